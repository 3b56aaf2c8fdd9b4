"""Splitting labelled rows into a training and a validation side."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from minibert.errors import DataError
from minibert.training.rows import Row, Value

Chooser: TypeAlias = str | int | Callable[[Row], Value]  # a column, or what is asked of a row


class Split(NamedTuple):
    """The indices of the rows on either side, ascending."""

    train: list[int]
    validation: list[int]


def split(
    rows: Sequence[Row],
    fraction: float,
    seed: int,
    *,
    label: Chooser | None = None,
    group: Chooser | None = None,
    text: Chooser | Sequence[str | int] | None = "text",
) -> Split:
    """Split rows so that about `fraction` of them, of each label too, are for validation.

    Rows stay together that have one text, but for white space, or one group: what is learnt of one
    would be known of the other.  Which rows are chosen hangs on the seed and their texts, not on
    their order, the machine or the process; rows that are added later move at most a few of the
    others.  A label that occurs once is trained on, unless nothing else is left.

    Args:
        rows: at least two.
        fraction: of the rows, for validation; where rows stay together, as near as that allows.
        seed: another one gives another split.
        label: where the label is; a list there is several labels, and the rarest counts.
        group: where the name of the group is; None and "" are no group.
        text: where the text is, or the texts that only together are one; None compares no texts.

    Raises: DataError for a fraction that leaves a side empty, rows that all stay together, and a
        column that is absent.
    """
    if not 0 < fraction < 1:
        raise DataError(f"fraction is {fraction}, expected one between 0 and 1")
    wanted = math.floor(fraction * len(rows) + 0.5)
    if not 0 < wanted < len(rows):
        side = "validation" if wanted == 0 else "training"
        raise DataError(
            f"fraction {fraction} of {len(rows)} rows leaves none for {side}; change it, or give "
            "more rows"
        )
    texts = None if text is None else [_text(row, text) for row in rows]
    units = _units(rows, texts, group, seed)
    if len(units) < 2:
        raise DataError(
            f"all {len(rows)} rows have one text or one group, so they cannot be on two sides; "
            "give rows that differ"
        )
    chosen = _chosen(units, _strata(rows, units, label), fraction, wanted)
    validation = sorted(row for unit in chosen for row in units[unit])
    held = set(validation)
    return Split([row for row in range(len(rows)) if row not in held], validation)


def _text(row: Row, text: Chooser | Sequence[str | int]) -> str:
    choosers = [text] if isinstance(text, str | int) or callable(text) else text
    return "\0".join(" ".join(_words(_asked(row, chooser))) for chooser in choosers)


def _words(value: Value) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else str(value).split()


def _asked(row: Row, chooser: Chooser) -> Value:
    return chooser(row) if callable(chooser) else row.value(chooser)


def _units(
    rows: Sequence[Row], texts: list[str] | None, group: Chooser | None, seed: int
) -> list[list[int]]:
    """The rows that stay together, in an order that hangs on the seed and what they hold."""
    parents = list(range(len(rows)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    first: dict[tuple[str, str], int] = {}
    for index, row in enumerate(rows):
        shared = [] if texts is None else [("text", texts[index])]
        name = None if group is None else _asked(row, group)
        if name not in (None, ""):
            shared.append(("group", str(name)))
        for key in shared:
            parents[root(index)] = root(first.setdefault(key, index))
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(rows)):
        members[root(index)].append(index)

    def draw(unit: list[int]) -> bytes:
        names = (str(row) if texts is None else texts[row] for row in unit)
        return min(hashlib.sha256(f"{seed}\0{name}".encode()).digest() for name in names)

    return sorted(members.values(), key=draw)


def _strata(rows: Sequence[Row], units: list[list[int]], label: Chooser | None) -> list[list[int]]:
    """The units by the rarest label that a row of them has, the rarest label first."""
    if label is None:
        return [list(range(len(units)))]
    labels = [_labels(_asked(row, label)) for row in rows]
    counts = Counter(name for names in labels for name in names)
    strata: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, unit in enumerate(units):
        names = {name for row in unit for name in labels[row]}
        strata[min(((counts[name], name) for name in names), default=(0, ""))].append(index)
    return [strata[key] for key in sorted(strata)]


def _labels(value: Value) -> list[str]:
    several = isinstance(value, list | tuple | set | frozenset)
    return [str(each) for each in (value if several else [value])]


def _chosen(
    units: list[list[int]], strata: list[list[int]], fraction: float, wanted: int
) -> set[int]:
    """The units for validation: of each stratum its share; the next gets what rounding leaves.

    The last unit of a stratum is kept for training, as long as others can take its place.
    """
    chosen: set[int] = set()
    n_chosen, share = 0, 0.0
    for stratum in strata:
        share += fraction * sum(len(units[unit]) for unit in stratum)
        for unit in stratum[:-1]:
            if n_chosen + len(units[unit]) / 2 <= share + 1e-9:
                chosen.add(unit)
                n_chosen += len(units[unit])
    rest = [unit for stratum in reversed(strata) for unit in stratum if unit not in chosen]
    for unit in rest:
        if n_chosen + len(units[unit]) / 2 <= wanted and len(chosen) + 1 < len(units):
            chosen.add(unit)
            n_chosen += len(units[unit])
    return chosen or {min(rest, key=lambda unit: len(units[unit]))}
