"""Batches: every example once an epoch, those of a length together, the same for seed and epoch."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.training.batches import drawn, epoch_batches, portions

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=300)


@given(
    lengths=LENGTHS,
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 2**40),
    pool=st.integers(1, 9),
)
def test_every_index_occurs_once_an_epoch(
    lengths: list[int], batch_size: int, seed: int, pool: int
) -> None:
    batches = epoch_batches(lengths, batch_size, seed=seed, epoch=3, pool_batches=pool)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    sizes = sorted((len(batch) for batch in batches), reverse=True)
    assert sizes == [batch_size] * (len(lengths) // batch_size) + [
        size for size in (len(lengths) % batch_size,) if size
    ]
    again = epoch_batches(lengths, batch_size, seed=seed, epoch=3, pool_batches=pool)
    assert batches == again


@given(
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=120),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 2**40),
    how=st.sampled_from(["none", "over", "under"]),
    data=st.data(),
)
def test_gone_on_with_from_any_update_the_rest_is_the_same(
    labels: list[int], batch_size: int, seed: int, how: str, data: st.DataObject
) -> None:
    """As the loop asks for them: the epoch and the place in it come from the update alone."""
    lengths = [1 + 7 * i % 11 for i in range(len(labels))]

    def batches(epoch: int) -> list[list[int]]:
        rows = list(range(len(labels)))
        if how != "none":
            rows = drawn(labels, how, seed=seed, epoch=epoch)
        taken = [lengths[row] for row in rows]
        found = epoch_batches(taken, batch_size, seed=seed, epoch=epoch, pool_batches=1)
        return [[rows[i] for i in batch] for batch in found]

    n = len(batches(0))
    assert all(len(batches(epoch)) == n for epoch in range(3))
    whole = [batch for epoch in range(3) for batch in batches(epoch)]
    k = data.draw(st.integers(0, len(whole)))
    np.random.default_rng().random(k)  # whatever else is drawn
    assert [batches(i // n)[i % n] for i in range(k, len(whole))] == whole[k:]


def test_batches_are_the_same_in_every_version_and_process() -> None:
    """Written down once: a run that is gone on with after an upgrade must not change its order."""
    lengths = [5, 3, 8, 1, 9, 2, 7, 4, 6, 5]
    pooled = [epoch_batches(lengths, 3, seed=7, epoch=n, pool_batches=50) for n in range(2)]
    assert pooled[0] == [[7, 0, 9], [6, 2, 4], [3, 5, 1], [8]]
    assert pooled[1] == [[7, 0, 8], [6, 2, 4], [3, 5, 1], [9]]
    assert epoch_batches(lengths, 3, seed=7, epoch=0, pool_batches=1) == [
        [3, 1, 6],
        [5, 2, 4],
        [7, 0, 8],
        [9],
    ]
    assert drawn([0, 1, 0, 0, 1, 2], "over", seed=7, epoch=1) == [0, 3, 2, 1, 4, 1, 5, 5, 5]
    assert drawn([0, 1, 0, 0, 1, 2], "under", seed=7, epoch=1) == [3, 1, 5]


def test_epochs_and_seeds_are_shuffled_apart() -> None:
    lengths = [5] * 64
    seen = {
        tuple(map(tuple, epoch_batches(lengths, 8, seed=seed, epoch=epoch, pool_batches=1)))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(seen) == 9
    first = epoch_batches(lengths, 8, seed=0, epoch=0, pool_batches=1)[0]
    assert first != sorted(first)


def test_a_batch_is_a_fair_sample() -> None:
    lengths = [1 + i % 50 for i in range(3200)]
    batches = epoch_batches(lengths, 32, seed=0, epoch=0, pool_batches=1)
    means = [sum(lengths[i] for i in b) / 32 for b in batches]
    assert np.std(means) == pytest.approx(np.std(lengths) / 32**0.5, rel=0.2)
    assert all(lengths[a] <= lengths[b] for batch in batches for a, b in pairwise(batch))


def test_examples_of_a_batch_are_about_as_long_where_many_are_sorted() -> None:
    lengths = [1 + i % 50 for i in range(3200)]
    batches = epoch_batches(lengths, 32, seed=0, epoch=0, pool_batches=50)
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
    assert sum(spread) / len(spread) < 3
    means = [sum(lengths[i] for i in b) / 32 for b in batches]
    assert means != sorted(means)  # batches come in no order of length


def test_what_does_not_fill_a_batch_is_not_always_the_longest() -> None:
    lengths = list(range(1, 22))
    rests = set()
    for epoch in range(20):
        (rest,) = (
            b for b in epoch_batches(lengths, 4, seed=0, epoch=epoch, pool_batches=9) if len(b) == 1
        )
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


@pytest.mark.parametrize("number", [1, 2, 3, 7, 20])
def test_portions_share_a_batch_evenly(number: int) -> None:
    parts = portions(range(10), number)
    assert sorted(i for part in parts for i in part) == list(range(10))
    assert all(parts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(parts) == min(number, 10)
