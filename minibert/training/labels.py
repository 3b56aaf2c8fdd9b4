"""The label contract: what the labels of each task may be, checked over all rows beforehand.

A task is named, never guessed from its labels.  Each function takes the labels as they stand in the
data, one a row, and gives what the loss takes; for each that does not fit it calls
`refuse(row, kind, message)` and goes on, so that all are told of at once.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from minibert.errors import LabelError
from minibert.lines import listed

Refuse = Callable[[int, str, str], None]

# What stands for a row that was refused: never trained on, for refused rows are dropped or end it.
_REFUSED = None
_SHOWN_CHARS = 40  # of a label, in a message about several


def label_names(
    task: str,
    values: Iterable[Any],
    given: Sequence[str] = (),
    places: Sequence[object] = (),
) -> tuple[str, ...]:
    """The names of the labels, in the order of their ids.

    Args:
        values: what occurs, one a row; of several labels a row a list, of tags too.
        given: names that the run file lists; they decide, in their order.
        places: of the values, for a message about a label too many.

    Returns: the given names, or those that occur: by value where all are whole numbers, else in
        alphabetical order; one more name, "not …", where data of one label a row has one alone.

    Raises: LabelError for a name given twice, a third label in a binary task, or no label at all.
    """
    if given:
        twice = [name for name, count in Counter(given).items() if count > 1]
        if twice:
            raise LabelError(f"labels name {twice[0]!r} twice, expected each once")
        names = list(given)
    else:
        found: Counter[str] = Counter()
        first: dict[str, int] = {}
        several = task in ("multilabel", "tokens")
        for row, value in enumerate(values):
            names = list(map(label_name, value)) if several else [label_name(value)]
            found.update(names)
            for name in names:
                first.setdefault(name, row)
        del found[""]
        whole = all(map(_is_whole, found))
        names = sorted(found, key=int if whole else None)
    if not names:
        raise LabelError("the data has no label at all; is [data] label the right column?")
    if task == "binary" and len(names) > 2:
        where = ""
        if places and not given:
            rarest = min(names, key=lambda name: (found[name], -first[name]))
            times = f"stands in {found[rarest]:,} rows" if found[rarest] > 1 else "stands once"
            where = f"; {rarest[:_SHOWN_CHARS]!r} {times}, first in {places[first[rarest]]}"
        shown = listed([name[:_SHOWN_CHARS] for name in names])
        raise LabelError(
            f"the data has {len(names)} labels ({shown}), expected 2 for task 'binary'{where}; "
            "drop the rows of the others, or choose task = 'multiclass'"
        )
    if task in ("binary", "multiclass") and len(names) == 1:
        names.append(f"not {names[0]}")
    return tuple(names)


def class_targets(values: Sequence[Any], names: Sequence[str], refuse: Refuse) -> list[Any]:
    """The number of each row's label."""
    ids = {name: i for i, name in enumerate(names)}
    targets = []
    for row, value in enumerate(values):
        name = label_name(value)
        if name not in ids:
            refuse(row, "unknown label", _unknown(value, names))
        targets.append(ids.get(name, _REFUSED))
    return targets


def multilabel_targets(
    values: Sequence[Sequence[Any]], names: Sequence[str], refuse: Refuse
) -> list[Any]:
    """For each row a 1 for each label that it has, and 0 for the others; a row may have none."""
    ids = {name: i for i, name in enumerate(names)}
    targets = []
    for row, labels in enumerate(values):
        target = [0.0] * len(names)
        for value in labels:
            name = label_name(value)
            if name not in ids:
                refuse(row, "unknown label", _unknown(value, names))
            else:
                target[ids[name]] = 1.0
        targets.append(target)
    return targets


def number_targets(values: Sequence[Any], refuse: Refuse) -> list[Any]:
    """Each row's number."""
    targets = []
    for row, value in enumerate(values):
        number = math.nan
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                number = float(value)
            except ValueError:
                number = math.nan
        if not math.isfinite(number):
            refuse(row, "no number", f"the label is {value!r}, expected a finite number")
        targets.append(number)
    return targets


def tag_targets(
    values: Sequence[Sequence[Any]],
    words: Sequence[Sequence[str]],
    names: Sequence[str],
    refuse: Refuse,
) -> list[Any]:
    """For each row the number of each word's tag."""
    ids = {name: i for i, name in enumerate(names)}
    targets = []
    for row, (tags, row_words) in enumerate(zip(values, words, strict=True)):
        if len(tags) != len(row_words):
            refuse(
                row,
                "tags and words",
                f"has {len(tags)} tags for {len(row_words)} words, expected one a word",
            )
        unknown = [tag for tag in tags if label_name(tag) not in ids]
        if unknown:
            refuse(row, "unknown tag", _unknown(unknown[0], names))
        targets.append([ids.get(label_name(tag), _REFUSED) for tag in tags])
    return targets


def span_targets(
    answers: Sequence[Any], starts: Sequence[Any], texts: Sequence[str], refuse: Refuse
) -> list[Any]:
    """For each row the first character of the answer in its text, and the one behind its last.

    Spaces around an answer are no part of it.

    Args:
        answers: missing or blank where the text has no answer: then both are 0.
        starts: where each answer begins, counted from 0; missing where it first stands.
    """
    targets: list[Any] = []
    for row, (answer, start, text) in enumerate(zip(answers, starts, texts, strict=True)):
        if not _is_missing(answer) and not isinstance(answer, str | int | float):
            refuse(row, "answer", f"the answer is {repr(answer)[:40]}, expected a text")
            targets.append(_REFUSED)
            continue
        said = "" if _is_missing(answer) else str(answer)
        bare = said.strip()
        place = text.find(bare) if _is_missing(start) else _whole(start)
        if not bare:
            targets.append((0, 0))
            continue
        if place is None:
            refuse(row, "answer", f"the answer starts at {start!r}, expected a whole number from 0")
        elif not _is_missing(start) and text.startswith(said, place):
            place += len(said) - len(said.lstrip())
        elif place < 0 or not text.startswith(bare, place):
            where = "" if _is_missing(start) else f" at character {place}"
            refuse(row, "answer", f"the answer {bare[:40]!r} is not in its text{where}")
            place = None
        targets.append(_REFUSED if place is None else (place, place + len(bare)))
    return targets


def _whole(value: Any) -> int | None:
    """A whole number from 0, as a number or a text; None for anything else."""
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    return int(text) if text.isdecimal() else None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def counts(targets: Sequence[Any], n_labels: int) -> list[int]:
    """How often each label occurs, of whatever shape the targets are."""
    found = [0] * n_labels
    for target in targets:
        if isinstance(target, int):
            found[target] += 1
        elif target and isinstance(target[0], float):
            for label, present in enumerate(target):
                found[label] += int(present)
        else:
            for label in target:
                if label >= 0:
                    found[label] += 1
    return found


def label_name(value: Any) -> str:
    """A label as text: 1, 1.0 and "1" are one label, and spaces around a name are no part of it.

    What is missing (None, NaN) has no name, nor has what is no single label (a list, a mapping).
    """
    several = hasattr(value, "__len__") and not isinstance(value, str)
    if several or _is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _unknown(value: Any, names: Sequence[str]) -> str:
    name = label_name(value)
    if not name:
        shown = "empty" if isinstance(value, str) else repr(value)
        return f"the label is {shown}, expected one of {listed(names)}"
    near = [known for known in names if known.casefold() == name.casefold()]
    meant = f"; {near[0]!r}?" if near else ""
    return f"the label is {name!r}, expected one of {listed(names)}{meant}"
