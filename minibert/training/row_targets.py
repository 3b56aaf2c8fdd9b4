"""The rows of a run checked: texts that are texts, labels that fit; and what is learnt of each."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from minibert.errors import LabelError, RunError
from minibert.training.labels import (
    Refuse,
    class_targets,
    label_names,
    multilabel_targets,
    number_targets,
    span_targets,
    tag_targets,
)
from minibert.training.problems import Problems
from minibert.training.rows import Row
from minibert.training.run_config import RunConfig
from minibert.training.tags import complete, repair

_WITHOUT_LABELS = ("regression", "similarity", "spans", "contrastive", "masked_lm")
_TRUE, _FALSE = ("1", "1.0", "true"), ("0", "0.0", "false", "")


def text_columns(run: RunConfig) -> list[str]:
    """The columns of the texts, by which rows are known as equal; of words theirs."""
    if run.task == "tokens":
        return [run.data.words]
    columns = (run.data.text, run.data.text_pair, *run.data.negatives)
    return [name for name in columns if name is not None]


def label_columns(run: RunConfig) -> list[str]:
    """The columns that labels stand in.

    Raises: RunError for several where there is one label a row.
    """
    label = run.data.label
    if run.task in ("contrastive", "masked_lm"):
        return []
    if run.task == "tokens":
        return [run.data.tags]
    if isinstance(label, str):
        return [label]
    if run.task != "multilabel":
        raise RunError(
            f"data.label is {label!r}, expected the name of one column for task {run.task!r}; "
            "several are for multilabel"
        )
    return label


def label_of(run: RunConfig, row: Row) -> Any:
    """The label of a row as it stands there; of several labels a list."""
    column = run.data.label
    if isinstance(column, list):  # a column of 0 and 1 for each label
        return [name for name in column if _flag(row, name) in _TRUE]
    value = row.value(column)
    if run.task != "multilabel" or isinstance(value, list):
        return value
    if value is None or (isinstance(value, float) and value != value):
        return [value]  # missing: no label, which is refused
    text = str(value).strip()
    if run.data.label_separator is None:
        return [text] if text else []
    return [part.strip() for part in text.split(run.data.label_separator) if part.strip()]


def names_of(run: RunConfig, rows: Sequence[Row]) -> tuple[str, ...]:
    """The names of the labels, in the order of their ids: those given, or those of train's rows.

    Raises: LabelError for names that do not fit the task, or none at all.
    """
    data = run.data
    if run.task in _WITHOUT_LABELS:
        return ()
    if run.task == "tokens":
        return _names_of_tags(run, rows)
    if isinstance(data.label, list):
        return label_names(run.task, (), data.labels or data.label)
    names = (label_of(run, row) for row in rows)
    return label_names(run.task, names, data.labels, [row.place for row in rows])


def checked(
    run: RunConfig, rows: Sequence[Row], labels: tuple[str, ...], problems: Problems
) -> tuple[list[Row], list[Any]]:
    """The rows that fit, and their targets; the others are noted among the problems."""
    n_before = len(problems.bad)
    refuse = partial(_refuse, rows, problems)
    _check_texts(run, rows, refuse)
    targets = _targets(run, rows, labels, refuse)
    bad = {problem.place for problem in problems.bad[n_before:]}
    kept = [i for i, row in enumerate(rows) if row.place not in bad]
    return [rows[i] for i in kept], [targets[i] for i in kept]


def tags_of(run: RunConfig, row: Row) -> list[Any]:
    """The tags of a row's words, in the scheme that the run asks for, whichever they are in.

    Raises: LabelError for a tag of no scheme, where one is asked for.
    """
    tags, scheme = row.value(run.data.tags), run.data.tag_scheme
    if scheme is None:
        return tags if isinstance(tags, list) else [tags]
    return list(repair(plain_tags(run, row), scheme).tags)  # type: ignore[arg-type]


def plain_tags(run: RunConfig, row: Row) -> list[str]:
    """The tags of a row as they stand, without the spaces around them."""
    tags = row.value(run.data.tags)
    return [str(tag).strip() for tag in (tags if isinstance(tags, list) else [tags])]


def _names_of_tags(run: RunConfig, rows: Sequence[Row]) -> tuple[str, ...]:
    """As `names_of`, for tags; rows that are refused for theirs add nothing.

    In a scheme that is asked for, they are all tags of the types that occur.
    """
    found: list[list[Any]] = []
    for row in rows:
        with suppress(LabelError):
            found.append(tags_of(run, row))
    scheme: Any = run.data.tag_scheme
    if scheme is None or run.data.labels:
        return label_names("tokens", found, run.data.labels)
    if rows and not found:  # which says less than why each row is refused
        return ()
    return complete(label_names("tokens", found), scheme)


def _targets(
    run: RunConfig, rows: Sequence[Row], labels: tuple[str, ...], refuse: Refuse
) -> list[Any]:
    """The target of each row."""
    if run.task in ("contrastive", "masked_lm"):  # whose texts say all
        return [0] * len(rows)
    if run.task == "tokens":
        return _targets_of_words(run, rows, labels, refuse)
    if run.task == "spans":
        return _targets_of_answers(run, rows, refuse)
    _check_flags(run, rows, refuse)
    found = [label_of(run, row) for row in rows]
    if run.task in ("regression", "similarity"):
        return number_targets(found, refuse)
    if run.task == "multilabel":
        return multilabel_targets(found, labels, refuse)
    targets = class_targets(found, labels, refuse)
    if run.task == "binary" and run.head.num_labels == 1:
        return [None if target is None else float(target) for target in targets]
    return targets


def _targets_of_words(
    run: RunConfig, rows: Sequence[Row], labels: tuple[str, ...], refuse: Refuse
) -> list[Any]:
    tags, words = [], []
    for i, row in enumerate(rows):
        try:
            tags.append(tags_of(run, row))
        except LabelError as error:
            refuse(i, "bad tag", str(error))
            tags.append([])
        # What is refused already needs no second reason.
        found = row.value(run.data.words)
        words.append(found if tags[-1] and _are_words(found) else [""] * len(tags[-1]))
    return tag_targets(tags, words, labels, refuse)


def _targets_of_answers(run: RunConfig, rows: Sequence[Row], refuse: Refuse) -> list[Any]:
    data = run.data
    if data.text_pair is None:
        raise RunError("data.text_pair is missing, expected the column of the text of the answer")
    starts = [None if data.answer_start is None else row.value(data.answer_start) for row in rows]
    texts = [str(row.value(data.text_pair)) for row in rows]
    return span_targets([label_of(run, row) for row in rows], starts, texts, refuse)


def _check_texts(run: RunConfig, rows: Sequence[Row], refuse: Refuse) -> None:
    """Refuse each row that has anything but a text where a text should be, or words."""
    for i, row in enumerate(rows):
        for column in text_columns(run):
            value = row.value(column)
            if run.task == "tokens" and not _are_words(value):
                refuse(
                    i, "no words", f"column {column!r} is {_shown(value)}, expected a list of words"
                )
            elif run.task != "tokens" and not isinstance(value, str):
                refuse(i, "no text", f"column {column!r} is {_shown(value)}, expected a text")


def _check_flags(run: RunConfig, rows: Sequence[Row], refuse: Refuse) -> None:
    """Refuse each row with anything but 0 or 1 in the columns of several labels."""
    for i, row in enumerate(rows if isinstance(run.data.label, list) else ()):
        for column in run.data.label:
            if _flag(row, column) not in (*_TRUE, *_FALSE):
                refuse(
                    i, "no 0 or 1",
                    f"column {column!r} is {_shown(row.value(column))}, expected 0 or 1: "
                    "data.label lists a column for each label",
                )  # fmt: skip


def _flag(row: Row, column: str) -> str:
    return str(row.value(column)).strip().casefold()


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _refuse(rows: Sequence[Row], problems: Problems, row: int, kind: str, message: str) -> None:
    values = rows[row].values
    problems.add(rows[row].place, kind, message, "\t".join(str(v) for v in values.values()))
