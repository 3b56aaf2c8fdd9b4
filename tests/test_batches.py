"""Batches: every example once an epoch, those of a length together, the same for seed and epoch."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.training.batches import drawn, epoch_batches, portions

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=300)


@given(lengths=LENGTHS, batch_size=st.integers(1, 9), seed=st.integers(0, 2**40))
def test_every_index_occurs_once_an_epoch(lengths: list[int], batch_size: int, seed: int) -> None:
    batches = epoch_batches(lengths, batch_size, seed=seed, epoch=3)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    sizes = sorted((len(batch) for batch in batches), reverse=True)
    assert sizes == [batch_size] * (len(lengths) // batch_size) + [
        size for size in (len(lengths) % batch_size,) if size
    ]
    assert batches == epoch_batches(lengths, batch_size, seed=seed, epoch=3)


def test_epochs_and_seeds_are_shuffled_apart() -> None:
    lengths = [5] * 64
    seen = {
        tuple(map(tuple, epoch_batches(lengths, 8, seed=seed, epoch=epoch)))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(seen) == 9
    first = epoch_batches(lengths, 8, seed=0, epoch=0)[0]
    assert first != sorted(first)


def test_examples_of_a_batch_are_about_as_long() -> None:
    lengths = [1 + i % 50 for i in range(3200)]
    batches = epoch_batches(lengths, 32, seed=0, epoch=0)
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
    assert sum(spread) / len(spread) < 3
    means = [sum(lengths[i] for i in b) / 32 for b in batches]
    assert means != sorted(means)  # batches come in no order of length


def test_what_does_not_fill_a_batch_is_not_always_the_longest() -> None:
    lengths = list(range(1, 22))
    rests = set()
    for epoch in range(20):
        (rest,) = (b for b in epoch_batches(lengths, 4, seed=0, epoch=epoch) if len(b) == 1)
        rests.add(rest[0])
    assert len(rests) > 5


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=80), epoch=st.integers(0, 5))
def test_over_repeats_rare_labels_and_under_thins_frequent_ones(
    labels: list[int], epoch: int
) -> None:
    count = Counter(labels)
    over = drawn(labels, "over", seed=1, epoch=epoch)
    assert Counter(labels[i] for i in over) == dict.fromkeys(count, max(count.values()))
    assert set(over) == set(range(len(labels)))
    repeats = Counter(over)
    for label, n in count.items():
        each = [repeats[i] for i in range(len(labels)) if labels[i] == label]
        assert max(each) - min(each) <= 1, (label, n)
    under = drawn(labels, "under", seed=1, epoch=epoch)
    assert Counter(labels[i] for i in under) == dict.fromkeys(count, min(count.values()))
    assert len(set(under)) == len(under)


def test_thinned_examples_take_turns() -> None:
    labels = [0] * 50 + [1] * 5
    taken = {i for epoch in range(10) for i in drawn(labels, "under", seed=0, epoch=epoch)}
    assert len(taken) == 55


def test_rows_that_are_drawn_may_repeat() -> None:
    batches = epoch_batches([1, 2, 3], 2, seed=0, epoch=0, rows=[0, 0, 2, 2, 2])
    assert sorted(i for batch in batches for i in batch) == [0, 0, 2, 2, 2]


@pytest.mark.parametrize("number", [1, 2, 3, 7, 20])
def test_portions_share_a_batch_evenly(number: int) -> None:
    parts = portions(range(10), number)
    assert sorted(i for part in parts for i in part) == list(range(10))
    assert all(parts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(parts) == min(number, 10)
