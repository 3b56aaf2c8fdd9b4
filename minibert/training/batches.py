"""Which examples make up each batch of an epoch: a pure function of the seed and the epoch.

Nothing is remembered, so nothing has to be saved: to go on after update k, compute the epoch's
batches again and start behind the k-th.
"""

from collections.abc import Sequence

import numpy as np


def epoch_batches(
    lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int, pool_batches: int
) -> list[list[int]]:
    """The batches of an epoch, each a list of indices into `lengths`.

    Examples are shuffled, pools of batches sorted by length, cut into batches, and the batches
    shuffled: no two epochs are alike, and every index occurs once.  The last examples of the
    shuffle make a smaller batch where they do not fill one.

    Args:
        lengths: tokens of each example.
        batch_size: examples of a batch.
        pool_batches: how many batches are sorted together.  1: each is a fair sample; the more
            there are, the nearer in length are the examples of a batch.
    """
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = generator.permutation(np.arange(len(lengths)))
    counts = np.asarray(lengths)
    batches: list[list[int]] = []
    pool_size = batch_size * pool_batches
    for start in range(0, len(order), pool_size):
        pool = order[start : start + pool_size]
        # What does not fill a batch must not always be the longest texts: taken before sorting.
        left = len(pool) % batch_size
        rest, pool = pool[:left], pool[left:]
        pool = pool[np.argsort(counts[pool], kind="stable")]
        batches += [pool[i : i + batch_size].tolist() for i in range(0, len(pool), batch_size)]
        if left:
            batches.append(rest.tolist())
    return [batches[i] for i in generator.permutation(len(batches))]


def drawn(labels: Sequence[int], how: str, *, seed: int, epoch: int) -> list[int]:
    """Indices with labels in equal numbers: "over" repeats rare ones, "under" thins frequent ones.

    Examples take turns: what an epoch has no room for comes first in the next.  A label that does
    not occur is left out.
    """
    generator = np.random.Generator(np.random.PCG64([seed, 1]))
    found = np.asarray(labels)
    members = [np.flatnonzero(found == label) for label in np.unique(found)]
    sizes = [len(each) for each in members]
    size = max(sizes) if how == "over" else min(sizes)
    rows: list[int] = []
    for each in members:
        turns = generator.permutation(each)  # the same in every epoch
        rows += turns[(epoch * size + np.arange(size)) % len(each)].tolist()
    return rows


def portions(batch: Sequence[int], number: int) -> list[list[int]]:
    """A batch in at most so many portions of about the same work, none of them empty.

    Its examples come sorted by length, so each portion takes every n-th of them.
    """
    return [list(batch[i::number]) for i in range(min(number, len(batch)))]
