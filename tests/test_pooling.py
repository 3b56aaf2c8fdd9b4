"""Pooling: six modes by hand in both layouts, then hull, unit length, and both layouts equal."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import TINY, Batch, batches, scaled_error
from torch import Tensor

from minibert.layout import Packed, Padded, pack
from minibert.pooling import NORM_EPS, POOLINGS, normalise, pool, truncate

NAN, INF = math.nan, math.inf

# Three tokens, two, and none attended; on padding stands what must not count.
HIDDEN = torch.tensor(
    [
        [[1.0, -2.0], [3.0, -4.0], [8.0, -6.0]],
        [[2.0, -8.0], [4.0, -6.0], [INF, NAN]],
        [[7.0, 9.0], [100.0, 100.0], [100.0, 100.0]],
    ]
)
MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 0]])
BY_HAND = {
    "cls": [[1.0, -2.0], [2.0, -8.0], [7.0, 9.0]],
    "mean": [[4.0, -4.0], [3.0, -7.0], [0.0, 0.0]],
    "max": [[8.0, -2.0], [4.0, -6.0], [0.0, 0.0]],
    "mean_sqrt_len": [
        [12 / math.sqrt(3), -12 / math.sqrt(3)],
        [6 / math.sqrt(2), -14 / math.sqrt(2)],
        [0.0, 0.0],
    ],
    # (1·1 + 2·3 + 3·8) / 6 and (1·2 + 2·4) / 3
    "weightedmean": [[31 / 6, -28 / 6], [10 / 3, -20 / 3], [0.0, 0.0]],
    "lasttoken": [[8.0, -6.0], [4.0, -6.0], [0.0, 0.0]],
}
MODES = pytest.mark.parametrize("mode", BY_HAND)


def close(actual: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=actual.dtype))


def test_every_mode_is_worked_by_hand() -> None:
    assert set(POOLINGS) == set(BY_HAND)


@MODES
def test_pool_of_padded_rows_is_as_worked_by_hand(mode: str) -> None:
    pooled = pool(HIDDEN, Padded.of(MASK, MASK), [mode])
    assert pooled.dtype == torch.float32
    close(pooled, BY_HAND[mode])


@MODES
def test_pool_of_rows_without_mask_takes_all_tokens(mode: str) -> None:
    pooled = pool(HIDDEN[:1], Padded.of(MASK[:1]), [mode])
    close(pooled, BY_HAND[mode][:1])


@MODES
def test_pool_of_packed_tokens_is_as_worked_by_hand(mode: str) -> None:
    tokens, layout = pack(HIDDEN[:2], MASK[:2])
    close(pool(tokens, layout, [mode]), BY_HAND[mode][:2])


@MODES
def test_pool_of_left_padded_rows_skips_the_padding(mode: str) -> None:
    hidden = torch.tensor([[[INF, NAN], [2.0, -8.0], [4.0, -6.0]]])
    expected = {
        "cls": [INF, NAN],
        "mean": [3.0, -7.0],
        "max": [4.0, -6.0],
        "mean_sqrt_len": [6 / math.sqrt(2), -14 / math.sqrt(2)],
        "weightedmean": [16 / 5, -34 / 5],  # of columns 2 and 3
        "lasttoken": [4.0, -6.0],
    }
    mask = torch.tensor([[0, 1, 1]])
    pooled = pool(hidden, Padded.of(mask, mask), [mode])
    torch.testing.assert_close(pooled, torch.tensor([expected[mode]]), equal_nan=True)


def test_lasttoken_is_the_last_attended_one_across_holes() -> None:
    mask = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 0]])
    pooled = pool(HIDDEN, Padded.of(mask, mask), ["lasttoken"])
    close(pooled, [[8.0, -6.0], [4.0, -6.0], [7.0, 9.0]])


def test_weightedmean_of_packed_holes_weighs_by_column() -> None:
    mask = torch.tensor([[1, 0, 1]])
    tokens, layout = pack(HIDDEN[:1], mask)
    expected = [[(1 + 3 * 8) / 4, (-2 - 3 * 6) / 4]]
    close(pool(tokens, layout, ["weightedmean"]), expected)
    close(pool(HIDDEN[:1], Padded.of(mask, mask), ["weightedmean"]), expected)


def test_pool_means_the_tokens_unless_told() -> None:
    close(pool(HIDDEN[:1], Padded.of(MASK[:1])), BY_HAND["mean"][:1])


def test_pool_joins_several_modes_in_their_order() -> None:
    layout = Padded.of(MASK[:2], MASK[:2])
    for modes in (["max", "cls"], ["max", "cls", "mean"]):
        expected = [[x for mode in modes for x in BY_HAND[mode][row]] for row in range(2)]
        close(pool(HIDDEN[:2], layout, modes), expected)


def test_pool_keeps_float64_and_widens_the_rest() -> None:
    layout = Padded.of(MASK[:1])
    for dtype, expected in [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ]:
        assert pool(HIDDEN[:1].to(dtype), layout).dtype == expected


def test_pool_of_bfloat16_sums_in_float32() -> None:
    # In bfloat16 256 + 1 is 256: the sum would stay there.
    hidden = torch.ones(1, 512, 1, dtype=torch.bfloat16)
    layout = Padded.of(torch.ones(1, 512, dtype=torch.long))
    assert pool(hidden, layout, ["mean"]).item() == 1.0
    assert pool(hidden, layout, ["mean_sqrt_len"]).item() == pytest.approx(math.sqrt(512))


@pytest.mark.parametrize(
    ("modes", "got"),
    [(["median"], "['median']"), (["mean", "Mean", "x"], "['Mean', 'x']"), ([], "[]")],
)
def test_pool_refuses_unknown_modes(modes: list[str], got: str) -> None:
    with pytest.raises(ValueError, match="got pooling") as caught:
        pool(HIDDEN, Padded.of(MASK), modes)
    assert str(caught.value) == f"got pooling {got}, expected names of {list(POOLINGS)}"


def test_normalise_divides_by_the_length() -> None:
    close(normalise(torch.tensor([[3.0, 4.0], [-5.0, 0.0]])), [[0.6, 0.8], [-1.0, 0.0]])


def test_normalise_leaves_zero_alone_and_divides_by_1e_12_at_least() -> None:
    assert NORM_EPS == 1e-12
    vectors = torch.tensor([[0.0, 0.0], [3e-13, 4e-13]], dtype=torch.float64)
    close(normalise(vectors), [[0.0, 0.0], [0.3, 0.4]])


def test_truncate_keeps_the_first_components() -> None:
    vectors = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert truncate(vectors, 1).tolist() == [[1.0], [4.0]]
    assert truncate(vectors, 2).tolist() == [[1.0, 2.0], [4.0, 5.0]]
    assert torch.equal(truncate(vectors, 3), vectors)


@pytest.mark.parametrize("width", [0, 4, -1])
def test_truncate_refuses_what_is_not_there(width: int) -> None:
    message = f"^got truncate_dim {width}, expected 1 to 3, the model's width$"
    with pytest.raises(ValueError, match=message):
        truncate(torch.ones(2, 3), width)


@st.composite
def states(draw: st.DrawFn, masks: str) -> tuple[Tensor, Batch]:
    """Hidden states in float32 and the batch whose mask is theirs."""
    batch = draw(batches(TINY, masks))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    scale = draw(st.sampled_from([1e-3, 1.0, 1e3]))
    shape = (*batch.input_ids.shape, draw(st.integers(1, 5)))
    return torch.randn(shape, generator=generator) * scale, batch


@MODES
@given(case=states("first"))
def test_pool_of_packed_equals_padded(mode: str, case: tuple[Tensor, Batch]) -> None:
    hidden, batch = case
    padded = pool(hidden, Padded.of(batch.input_ids, batch.mask), [mode])
    tokens, layout = pack(hidden, batch.mask)
    assert scaled_error(pool(tokens, layout, [mode]), padded) <= 1e-6


@MODES
@given(case=states("any"))
def test_pool_does_not_see_what_is_masked(mode: str, case: tuple[Tensor, Batch]) -> None:
    hidden, batch = case
    mask = batch.mask.clone()
    mask[:, 0] |= mode == "cls"
    layout = Padded.of(batch.input_ids, mask)
    spoilt = hidden.masked_fill(~mask[..., None], NAN)
    assert torch.equal(pool(spoilt, layout, [mode]), pool(hidden, layout, [mode]))


@pytest.mark.parametrize("mode", ["mean", "weightedmean"])
@given(case=states("first"))
def test_mean_lies_in_the_hull_of_the_tokens(mode: str, case: tuple[Tensor, Batch]) -> None:
    hidden, batch = case
    pooled = pool(hidden, Padded.of(batch.input_ids, batch.mask), [mode])
    low = hidden.masked_fill(~batch.mask[..., None], INF).amin(1)
    high = hidden.masked_fill(~batch.mask[..., None], -INF).amax(1)
    slack = 1e-6 * hidden.abs().amax()
    assert bool((low - slack <= pooled).all())
    assert bool((pooled <= high + slack).all())


@MODES
@given(case=states("any"))
def test_pooled_vectors_have_unit_length_or_are_zero(mode: str, case: tuple[Tensor, Batch]) -> None:
    hidden, batch = case
    vectors = normalise(pool(hidden, Padded.of(batch.input_ids, batch.mask), [mode]))
    lengths = vectors.double().norm(dim=1)
    empty = ~batch.mask.any(1) & (mode != "cls")
    assert bool((lengths[empty] == 0).all())
    assert bool(((lengths[~empty] - 1).abs() <= 1e-6).all())


@given(states("right"))
def test_cls_ignores_padding(case: tuple[Tensor, Batch]) -> None:
    hidden, batch = case
    expected = hidden[:, 0]
    for mask in (batch.mask, None):
        assert torch.equal(pool(hidden, Padded.of(batch.input_ids, mask), ["cls"]), expected)
    tokens, layout = pack(hidden, batch.mask)
    assert torch.equal(pool(tokens, layout, ["cls"]), expected)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=7), st.integers(0, 1000))
def test_mean_of_packed_is_bit_equal_to_each_sequence_alone(lengths: list[int], seed: int) -> None:
    layout = Packed.from_lengths(lengths)
    hidden = torch.randn(sum(lengths), 3, generator=torch.Generator().manual_seed(seed))
    pooled = pool(hidden, layout)
    for row, part in enumerate(torch.split(hidden, lengths)):
        assert torch.equal(pooled[row], pool(part, Packed.from_lengths([len(part)]))[0])
