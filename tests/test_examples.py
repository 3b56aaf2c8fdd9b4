"""Examples and batches: lengths, windows, and where each text of a batch comes to stand."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import unchanged_random
from torch import Tensor

from minibert.layout import Packed
from minibert.training.examples import Batch, Examples, collate, each_batch

TEXTS = Examples([[2, 9, 3], [2, 3], [2, 7, 8, 3]], [[0, 0, 0], [1, 1], [0, 1, 1, 1]], [5, 6, 7])
PAIRS = Examples(
    [[2, 9, 3], [2, 3], [2, 7, 8, 3], [2, 9, 3]], [[0] * 3, [0] * 2, [0] * 4, [0] * 3],
    [0.5, 1.0], n_parts=2,
)  # fmt: skip


@st.composite
def examples(draw: st.DrawFn, n_parts: int | None = None) -> Examples:
    """Random ones, of texts of their own or of sets of them."""
    parts = draw(st.integers(1, 3)) if n_parts is None else n_parts
    n = draw(st.integers(1, 12))
    lengths = draw(st.lists(st.integers(1, 6), min_size=n * parts, max_size=n * parts))
    tokens = itertools.count(10)  # no two tokens alike
    ids = [[next(tokens) for _ in range(length)] for length in lengths]
    types = [[i % 2] * len(each) for i, each in enumerate(ids)]
    with unchanged_random():
        return Examples(ids, types, list(range(n)), parts)


def sequences(batch: Batch) -> list[list[int]]:
    """The ids of each sequence of a batch, in its order."""
    return [part.tolist() for part in torch.split(batch.input_ids, list(batch.layout.lengths))]


def all_batches(found: Examples, size: int) -> list[Batch]:
    return list(each_batch(found, size, lambda some, rows: collate(some, rows, dtype=torch.long)))


# ---- what there is


def test_lengths_are_those_of_all_parts() -> None:
    assert TEXTS.lengths == [3, 2, 4]
    assert PAIRS.lengths == [5, 7]
    assert (len(TEXTS), len(PAIRS)) == (3, 2)
    assert [list(PAIRS.sequences(row)) for row in (0, 1)] == [[0, 1], [2, 3]]


def test_windows_of_each_text() -> None:
    assert TEXTS.windows == [[0], [1], [2]]
    found = Examples([[2, 3]] * 4, [[0, 0]] * 4, [0] * 4, texts=[0, 1, 1, 2], starts=[0, 0, 3, 0])
    assert found.windows == [[0], [1, 2], [3]]


def test_example_that_is_taken_twice_is_two() -> None:
    taken = TEXTS.taken([2, 0, 2])
    assert taken.ids == [[2, 7, 8, 3], [2, 9, 3], [2, 7, 8, 3]]
    assert taken.types == [[0, 1, 1, 1], [0, 0, 0], [0, 1, 1, 1]]
    assert taken.targets == [7, 5, 7]
    pairs = PAIRS.taken([1, 1])
    assert pairs.ids == [[2, 7, 8, 3], [2, 9, 3]] * 2
    assert (pairs.targets, pairs.n_parts, pairs.lengths) == ([1.0, 1.0], 2, [7, 7])
    assert len(TEXTS.taken([])) == 0


# ---- batches


def test_batch_is_sorted_by_length_and_says_whose_each_is() -> None:
    batch = collate(TEXTS, [2, 0, 1], dtype=torch.long)
    assert sequences(batch) == [[2, 3], [2, 9, 3], [2, 7, 8, 3]]
    assert batch.token_type_ids.tolist() == [1, 1, 0, 0, 0, 0, 1, 1, 1]
    assert batch.targets.tolist() == [6, 5, 7]
    assert batch.rows == (1, 0, 2)
    assert (batch.n_examples, batch.n_tokens, batch.parts) == (3, 9, None)
    assert collate(TEXTS, [0], dtype=torch.float).targets.dtype == torch.float


def test_tags_stand_end_to_end_and_several_labels_in_rows() -> None:
    tags = Examples([[2, 9, 3], [2, 3]], [[0] * 3, [0] * 2], [[-100, 4, -100], [-100, -100]])
    batch = collate(tags, [0, 1], dtype=torch.long)
    assert batch.targets.tolist() == [-100, -100, -100, 4, -100]
    several = Examples([[2, 9, 3], [2, 3]], [[0] * 3, [0] * 2], [[1.0, 0.0], [0.0, 1.0]])
    assert collate(several, [0, 1], dtype=torch.float).targets.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    spans = Examples([[2, 9, 3], [2, 3]], [[0] * 3, [0] * 2], [(1, 1), (0, 0)])
    assert collate(spans, [0, 1], dtype=torch.long).targets.tolist() == [[0, 0], [1, 1]]


def test_parts_say_where_the_texts_of_each_example_stand() -> None:
    batch = collate(PAIRS, [1, 0], dtype=torch.float)
    assert [len(each) for each in sequences(batch)] == [2, 3, 3, 4]
    assert batch.parts is not None
    assert batch.parts.tolist() == [[3, 1], [2, 0]]
    assert batch.targets.tolist() == [1.0, 0.5]
    assert batch.rows == (1, 0)
    assert (batch.n_examples, batch.n_tokens) == (2, 12)


@given(found=examples(), data=st.data())
def test_batch_holds_its_examples_wherever_they_stand(found: Examples, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(found) - 1), min_size=1, max_size=9))
    batch = collate(found, rows, dtype=torch.long)
    shown = sequences(batch)
    assert sorted(batch.rows) == sorted(rows)
    assert batch.targets.tolist() == [found.targets[row] for row in batch.rows]
    assert [len(each) for each in shown] == sorted(len(each) for each in shown)
    assert batch.n_examples == len(rows)
    for place, row in enumerate(batch.rows):
        parts = [place] if batch.parts is None else batch.parts[place].tolist()
        wanted = [found.ids[each] for each in found.sequences(row)]
        assert [shown[part] for part in parts] == wanted
    types = torch.split(batch.token_type_ids, list(batch.layout.lengths))
    kinds = {token: kind for ids, each in zip(found.ids, found.types, strict=True)
             for token, kind in zip(ids, each, strict=True)}  # fmt: skip
    assert all(
        [kinds[token] for token in ids] == each.tolist()
        for ids, each in zip(shown, types, strict=True)
    )


@given(found=examples(), size=st.integers(1, 5))
def test_all_examples_are_in_batches_of_about_one_length(found: Examples, size: int) -> None:
    batches = all_batches(found, size)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(found)))
    assert [batch.n_examples for batch in batches[:-1]] == [size] * (len(batches) - 1)
    tops = [[found.lengths[row] for row in batch.rows] for batch in batches]
    assert all(max(a) <= min(b) for a, b in itertools.pairwise(tops))


@given(found=examples(1), data=st.data())
def test_taken_examples_are_those_of_their_rows(found: Examples, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(found) - 1), max_size=9))
    taken = found.taken(rows)
    assert [taken.ids[i] for i in range(len(rows))] == [found.ids[row] for row in rows]
    assert taken.targets == [found.targets[row] for row in rows]


def test_batch_goes_to_a_device_with_all_that_it_has() -> None:
    batch = collate(PAIRS, [0, 1], dtype=torch.float)
    assert batch.to(torch.device("cpu")) is batch
    full = batch._replace(
        texts=torch.zeros(2, 2, dtype=torch.long), next_sentence=torch.zeros(2, dtype=torch.long)
    )
    moved = full.to(torch.device("meta"))
    for name, value in moved._asdict().items():
        if isinstance(value, Tensor):
            assert value.device.type == "meta", name
            assert value.shape == getattr(full, name).shape
    assert isinstance(moved.layout, Packed)
    assert moved.layout.positions.device.type == "meta"
    assert moved.rows == full.rows
    assert batch.to(torch.device("meta")).next_sentence is None


@pytest.mark.parametrize("targets", [[0, 1], [0.0, 1.0]])
def test_targets_have_the_type_that_is_asked_for(targets: list[float]) -> None:
    found = Examples([[2, 3]] * 2, [[0, 0]] * 2, targets)
    for dtype in (torch.long, torch.float):
        assert collate(found, [0, 1], dtype=dtype).targets.dtype == dtype
