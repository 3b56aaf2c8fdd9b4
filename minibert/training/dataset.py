"""From the files of a run to examples: rows, checked labels, tokens."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from minibert.errors import DataError, RunError
from minibert.tokenizer import Tokenizer
from minibert.training.dialect import Dialect
from minibert.training.examples import Examples
from minibert.training.labels import (
    class_targets,
    label_names,
    multilabel_targets,
    number_targets,
    tag_targets,
)
from minibert.training.losses import IGNORED
from minibert.training.problems import Problems, good
from minibert.training.rows import Row, fingerprint, read_rows
from minibert.training.run_config import DataConfig, RunConfig
from minibert.training.splits import split

_CHUNK = 4096  # texts that are tokenised at once


@dataclass(frozen=True, eq=False)
class Dataset:
    """The examples of a run, its labels, and what was learnt of its rows."""

    labels: tuple[str, ...]
    train: Examples
    validation: Examples | None
    test: Examples | None
    problems: Problems
    identity: str  # a hash of all rows: a run is gone on with on the same ones
    split: dict[str, list[str]]  # of a share of train: the places of each side's rows


def read_dataset(run: RunConfig, tokenizer: Tokenizer) -> Dataset:
    """Read, check and tokenise everything that a run names.

    All rows are looked at before anything is refused, so that all problems are told of at once.

    Raises: DataError for rows that cannot be read or have labels that do not fit, RunError for
        settings that do not fit the data, LabelError for labels that do not fit the task.
    """
    data = run.data
    if not data.train and isinstance(data.train, str):
        raise RunError('data.train is missing, expected a file, as train = "train.csv"')
    problems = Problems()
    parts = {"train": _rows(run, data.train, data.train_rows, problems)}
    sides: dict[str, list[str]] = {}
    if isinstance(data.validation, int | float):
        rows = parts["train"]
        if len(rows) < 2:
            problems.raise_if_any()  # which say more than that there is nothing to split
        chosen = split(
            rows,
            float(data.validation),
            run.training.seed,
            label=_stratify(run),
            group=data.group,
            text=_text_columns(run),
        )
        parts["train"] = [rows[i] for i in chosen.train]
        parts["validation"] = [rows[i] for i in chosen.validation]
        sides = {name: [_row_id(row, data) for row in part] for name, part in parts.items()}
    elif data.validation is not None:
        parts["validation"] = _rows(run, data.validation, data.validation_rows, problems)
    if data.test is not None:
        parts["test"] = _rows(run, data.test, None, problems)
    labels = _label_names(run, parts["train"])
    found = {
        name: _examples(run, rows, labels, tokenizer, problems, name)
        for name, rows in parts.items()
    }
    problems.settle(data.bad_rows, run.path(run.output) / "rejected.csv")
    digest = hashlib.sha256(
        "".join(fingerprint(rows) for rows in parts.values()).encode()
    ).hexdigest()
    for name, each in found.items():
        if not len(each):
            raise DataError(f"data.{name} has no row that can be used, expected at least one")
    return Dataset(
        labels, found["train"], found.get("validation"), found.get("test"), problems, digest, sides
    )


def dialect_of(data: DataConfig) -> Dialect:
    """How the files are written."""
    return Dialect(
        format=data.format,
        encoding=data.encoding,
        delimiter=data.delimiter,
        quoting=data.quoting,
        header=data.header,
        columns=data.columns,
        extra_columns=data.extra_columns,
    )


def _rows(run: RunConfig, source: Any, limit: int | None, problems: Problems) -> list[Row]:
    data = run.data
    wanted: list[str] = []
    if run.task != "tokens":  # a sentence has columns of its own
        labels = data.label if isinstance(data.label, list) else [data.label]
        wanted = [*_text_columns(run), *labels]
    if isinstance(source, str):
        source = str(run.path(source))
    elif isinstance(source, list) and all(isinstance(each, str) for each in source):
        source = [str(run.path(each)) for each in source]
    rows = read_rows(source, dialect_of(data), wanted=wanted, limit=limit)
    return list(good(rows, problems))


def _text_columns(run: RunConfig) -> list[str]:
    """Where the texts are by which rows are known as equal."""
    if run.task == "tokens":
        return ["tokens"]
    return [name for name in (run.data.text, run.data.text_pair) if name is not None]


def _row_id(row: Row, data: DataConfig) -> str:
    return str(row.place) if data.id is None else str(row.value(data.id))


# ---- labels


def _stratify(run: RunConfig) -> Callable[[Row], Any] | None:
    """What a split keeps the shares of."""
    if run.task in ("binary", "multiclass", "multilabel"):
        return partial(_label, run)
    return None


def _label(run: RunConfig, row: Row) -> Any:
    """The label of a row as it stands there; of several labels a list."""
    column = run.data.label
    if isinstance(column, list):  # a column of 0 and 1 for each label
        return [name for name in column if _is_set(row, name)]
    value = row.value(column)
    if run.task != "multilabel":
        return value
    if isinstance(value, list):
        return value
    text = str(value).strip()
    if run.data.label_separator is None:
        return [text] if text else []
    return [part.strip() for part in text.split(run.data.label_separator) if part.strip()]


def _is_set(row: Row, column: str) -> bool:
    value = str(row.value(column)).strip().casefold()
    if value not in ("0", "1", "0.0", "1.0", "true", "false", ""):
        raise DataError(
            f"{row.place}: column {column!r} is {value!r}, expected 0 or 1: data.label lists a "
            "column for each label"
        )
    return value in ("1", "1.0", "true")


def _label_names(run: RunConfig, rows: Sequence[Row]) -> tuple[str, ...]:
    if run.task == "regression":
        return ()
    if run.task == "tokens":
        return label_names("tokens", (_tags(row) for row in rows), run.data.labels)
    if isinstance(run.data.label, list):
        return label_names(run.task, (), run.data.labels or run.data.label)
    return label_names(run.task, (_label(run, row) for row in rows), run.data.labels)


def _tags(row: Row) -> list[Any]:
    tags = row.value("tags")
    return tags if isinstance(tags, list) else [tags]


def _targets(
    run: RunConfig, rows: Sequence[Row], labels: tuple[str, ...], problems: Problems
) -> list[Any]:
    """The target of each row; those that do not fit are noted among the problems."""
    refuse = partial(_refuse, rows, problems)
    if run.task == "regression":
        return number_targets([_label(run, row) for row in rows], refuse)
    if run.task == "multilabel":
        return multilabel_targets([_label(run, row) for row in rows], labels, refuse)
    if run.task == "tokens":
        words = [row.value("tokens") for row in rows]
        return tag_targets([_tags(row) for row in rows], words, labels, refuse)
    targets = class_targets([_label(run, row) for row in rows], labels, refuse)
    if run.task == "binary" and run.head.num_labels == 1:
        return [None if target is None else float(target) for target in targets]
    return targets


def _refuse(rows: Sequence[Row], problems: Problems, row: int, kind: str, message: str) -> None:
    values = rows[row].values
    problems.add(rows[row].place, kind, message, "\t".join(str(v) for v in values.values()))


# ---- tokens


def _examples(
    run: RunConfig,
    rows: Sequence[Row],
    labels: tuple[str, ...],
    tokenizer: Tokenizer,
    problems: Problems,
    what: str,
) -> Examples:
    """The rows that fit, tokenised."""
    n_before = len(problems.bad)
    targets = _targets(run, rows, labels, problems)
    texts = [_texts(run, row, problems) for row in rows]
    bad = {problem.place for problem in problems.bad[n_before:]}
    kept = [i for i, row in enumerate(rows) if row.place not in bad]
    found = Examples([], [], [])
    for chunk in _chunks(kept, what):
        if run.task == "tokens":
            encodings = tokenizer.encode_words(
                [rows[i].value("tokens") for i in chunk], max_length=run.data.max_length
            )
        else:
            firsts = [texts[i][0] for i in chunk]
            pairs = [texts[i][1] for i in chunk] if run.data.text_pair else None
            encodings = tokenizer.encode(
                firsts,
                pairs,
                max_length=run.data.max_length,
                truncation="error" if run.data.long_text == "error" else "longest_first",
            )
        for i, encoding in zip(chunk, encodings, strict=True):
            found.ids.append(encoding.ids)
            found.types.append(encoding.token_type_ids)
            target = targets[i]
            if run.task == "tokens":
                target = aligned(target, encoding.word_ids, every=run.data.label_all_pieces)
            found.targets.append(target)
    return found


def _texts(run: RunConfig, row: Row, problems: Problems) -> tuple[str, str]:
    if run.task == "tokens":
        return "", ""
    found = []
    for column in (run.data.text, run.data.text_pair):
        value = "" if column is None else row.value(column)
        if not isinstance(value, str):
            problems.add(
                row.place,
                "no text",
                f"column {column!r} is {value!r}, expected a text",
                str(dict(row.values)),
            )
            value = ""
        found.append(value)
    return found[0], found[1]


def aligned(tags: Sequence[int], word_ids: Sequence[int | None], *, every: bool) -> list[int]:
    """The tag of each token: its word's on the first piece, or on every one; none elsewhere."""
    found, before = [], None
    for word in word_ids:
        first = word is not None and word != before
        found.append(tags[word] if word is not None and (first or every) else IGNORED)
        before = word
    return found


def _chunks(rows: Sequence[int], what: str) -> Iterable[Sequence[int]]:
    """Rows a few thousand at a time, with a bar on a terminal where there are many."""
    from tqdm import tqdm

    parts = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    return tqdm(parts, desc=f"tokenising {what}", disable=None if len(parts) > 4 else True)
