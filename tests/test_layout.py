"""Layouts: two sequences laid out by hand, then packing and unpacking as inverses."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import TINY, Batch, batches

from minibert.layout import Packed, Padded, pack, unpack

# [CLS] a b [SEP] and [CLS] c d e [SEP]: the picture in layout.py.
IDS = torch.tensor([[1, 5, 6, 2, 0], [1, 7, 8, 9, 2]])
MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])


def hidden_of(*shape: int) -> torch.Tensor:
    return torch.arange(float(torch.tensor(shape).prod())).view(shape)


def test_padded_knows_the_size_of_its_batch() -> None:
    layout = Padded.of(IDS, MASK)
    assert (layout.batch, layout.seq, layout.longest) == (2, 5, 5)
    assert layout.device == torch.device("cpu")


def test_padded_positions_are_columns_whatever_the_mask() -> None:
    left = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
    for mask in (MASK, left, None):
        assert Padded.of(IDS, mask).positions.tolist() == [0, 1, 2, 3, 4]


def test_padded_first_is_column_0_attended_or_not() -> None:
    hidden = hidden_of(2, 5, 3)
    for mask in (MASK, 1 - MASK, None):
        first = Padded.of(IDS, mask).first(hidden)
        assert first.tolist() == [[0.0, 1.0, 2.0], [15.0, 16.0, 17.0]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8])
def test_padded_mask_counts_any_integer_but_0_as_attended(dtype: torch.dtype) -> None:
    layout = Padded.of(IDS, torch.tensor([[1, 2, 7, 0, 0], [1, 0, 1, 127, 1]], dtype=dtype))
    expected = [[True, True, True, False, False], [True, False, True, True, True]]
    assert layout.mask is not None
    assert layout.mask.tolist() == expected
    visible = layout.visible()
    assert visible is not None
    assert visible.shape == (2, 1, 1, 5)
    assert visible[:, 0, 0].tolist() == expected


def test_padded_without_mask_hides_nothing() -> None:
    layout = Padded.of(IDS)
    assert layout.mask is None
    assert layout.visible() is None


def test_padded_is_where_its_ids_are() -> None:
    layout = Padded.of(torch.zeros(2, 3, dtype=torch.long, device="meta"))
    assert layout.device == torch.device("meta")
    assert layout.positions.device == torch.device("meta")


def test_packed_from_lengths_lays_sequences_end_to_end() -> None:
    layout = Packed.from_lengths([4, 5, 1])
    assert layout.lengths == (4, 5, 1)
    assert layout.positions.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 0]
    assert layout.cu_seqlens.tolist() == [0, 4, 9, 10]
    assert layout.cu_seqlens.dtype == torch.int32
    assert layout.sequence.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2]
    assert layout.longest == 5


def test_packed_first_is_the_first_token_of_each_sequence() -> None:
    first = Packed.from_lengths([2, 1, 3]).first(hidden_of(6, 2))
    assert first.tolist() == [[0.0, 1.0], [4.0, 5.0], [6.0, 7.0]]


def test_packed_firsts_are_sequences_of_one_token() -> None:
    layout = Packed.from_lengths([2, 1, 3])
    heads = layout.first(hidden_of(6, 4).unflatten(-1, (2, 2)))
    assert heads.shape == (3, 2, 2)
    assert layout.firsts().lengths == (1, 1, 1)
    assert layout.firsts().positions.tolist() == [0, 0, 0]
    assert torch.equal(layout.firsts().first(heads), heads)


def test_packed_sequences_see_themselves_alone() -> None:
    visible = Packed.from_lengths([1, 2]).visible()
    assert visible.shape == (1, 3, 3)
    assert visible[0].tolist() == [
        [True, False, False],
        [False, True, True],
        [False, True, True],
    ]


def test_packed_runs_join_neighbours_of_one_length() -> None:
    layout = Packed.from_lengths([2, 2, 3, 2, 1, 1, 1])
    assert list(layout.runs()) == [(0, 2, 2), (4, 1, 3), (7, 1, 2), (9, 3, 1)]
    assert list(Packed.from_lengths([4]).runs()) == [(0, 1, 4)]


def test_packed_from_lengths_takes_a_device() -> None:
    layout = Packed.from_lengths([1, 2], "meta")
    assert layout.positions.device == torch.device("meta")
    assert layout.cu_seqlens.device == torch.device("meta")


def test_packed_longest_is_of_positions_not_of_lengths() -> None:
    assert Packed((2, 1), torch.tensor([0, 6, 0])).longest == 7


@pytest.mark.parametrize("lengths", [[], [0], [3, 0, 2], [2, -1], [-1]])
def test_packed_refuses_empty_sequences(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="leave empty sequences out") as caught:
        Packed.from_lengths(lengths)
    assert str(caught.value) == (
        f"got sequence lengths {lengths}, expected at least one sequence and at least one token "
        "in each; leave empty sequences out"
    )


def test_packed_refusal_names_a_few_of_many_lengths() -> None:
    with pytest.raises(ValueError, match=r"got sequence lengths \[1, 1, 1, 1, 1, 1, 1, 0\], exp"):
        Packed.from_lengths([1] * 7 + [0] * 90)


@pytest.mark.parametrize("tokens", [2, 4])
def test_packed_refuses_positions_of_another_number(tokens: int) -> None:
    with pytest.raises(ValueError, match="sequence lengths") as caught:
        Packed((1, 2), torch.arange(tokens))
    assert str(caught.value) == (
        f"the sequence lengths add up to 3, but there are {tokens} positions; "
        "expected one for each token"
    )


def test_pack_takes_the_attended_tokens_in_order() -> None:
    packed, layout = pack(IDS, MASK)
    assert packed.tolist() == [1, 5, 6, 2, 1, 7, 8, 9, 2]
    assert layout.lengths == (4, 5)
    assert layout.positions.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4]


def test_pack_keeps_columns_as_positions_across_holes() -> None:
    packed, layout = pack(IDS, torch.tensor([[1, 0, 0, 1, 0], [2, 0, 1, 0, -1]]))
    assert packed.tolist() == [1, 2, 1, 8, 2]
    assert layout.lengths == (2, 3)
    assert layout.positions.tolist() == [0, 3, 0, 2, 4]
    assert layout.longest == 5


def test_pack_takes_values_of_more_dimensions() -> None:
    packed, _ = pack(hidden_of(2, 5, 3), MASK.bool())
    assert packed.shape == (9, 3)
    assert packed[4].tolist() == [15.0, 16.0, 17.0]


@pytest.mark.parametrize(
    ("mask", "row"),
    [([[1, 1], [0, 1]], 1), ([[0, 1], [0, 1]], 0), ([[1, 0], [1, 1], [0, 0]], 2)],
    ids=["left padding", "two rows", "empty row"],
)
def test_pack_refuses_rows_that_begin_masked(mask: list[list[int]], row: int) -> None:
    with pytest.raises(ValueError, match="attention mask begins with 0") as caught:
        pack(torch.ones(len(mask), 2), torch.tensor(mask))
    assert str(caught.value) == (
        f"row {row} of the attention mask begins with 0, expected 1: packing needs the first "
        "token of each row; pad on the right"
    )


def test_unpack_puts_tokens_back_into_their_columns() -> None:
    layout = Packed((2, 3), torch.tensor([0, 3, 0, 2, 4]))
    ids = torch.tensor([1, 2, 1, 8, 2])
    assert unpack(ids, layout).tolist() == [[1, 0, 0, 2, 0], [1, 0, 8, 0, 2]]
    assert unpack(ids, layout, seq=6, fill=-1.0).tolist() == [
        [1, -1, -1, 2, -1, -1],
        [1, -1, 8, -1, 2, -1],
    ]


def test_unpack_keeps_dtype_and_further_dimensions() -> None:
    layout = Packed.from_lengths([1, 2])
    values = hidden_of(3, 2).to(torch.float64)
    padded = unpack(values, layout, fill=0.5)
    assert padded.dtype == torch.float64
    assert padded.tolist() == [[[0.0, 1.0], [0.5, 0.5]], [[2.0, 3.0], [4.0, 5.0]]]


def test_unpack_refuses_fewer_columns_than_needed() -> None:
    layout = Packed.from_lengths([2, 3])
    assert unpack(torch.ones(5), layout, seq=3).shape == (2, 3)
    with pytest.raises(ValueError, match=r"^got seq 2, expected at least 3, the longest sequence$"):
        unpack(torch.ones(5), layout, seq=2)


@given(batches(TINY, "first"))
def test_unpack_is_the_inverse_of_pack(batch: Batch) -> None:
    packed, layout = pack(batch.input_ids, batch.mask)
    again = unpack(packed, layout, seq=batch.input_ids.shape[1], fill=-1.0)
    assert torch.equal(again, batch.input_ids.masked_fill(~batch.mask, -1))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_packed_runs_partition_the_sequences(lengths: list[int]) -> None:
    layout = Packed.from_lengths(lengths)
    starts = layout.cu_seqlens.tolist()
    rebuilt: list[int] = []
    for start, count, length in layout.runs():
        assert start == starts[len(rebuilt)]
        rebuilt += [length] * count
    assert rebuilt == lengths
    neighbours = [length for _, _, length in layout.runs()]
    assert all(a != b for a, b in pairwise(neighbours))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_packed_from_lengths_is_a_packed_batch_without_holes(lengths: list[int]) -> None:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    _, layout = pack(mask.long(), mask)
    expected = Packed.from_lengths(lengths)
    assert layout.lengths == expected.lengths
    assert torch.equal(layout.positions, expected.positions)
    assert torch.equal(layout.sequence, expected.sequence)
    same = expected.sequence[:, None] == expected.sequence
    assert torch.equal(layout.visible()[0], same)
