"""From the files of a run to examples: rows, checked labels, tokens."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from minibert.errors import DataError, LabelError, RunError
from minibert.tokenizer import Tokenizer
from minibert.training.dialect import Dialect
from minibert.training.encoding import encode_rows
from minibert.training.examples import Examples
from minibert.training.labels import (
    class_targets,
    counts,
    label_names,
    multilabel_targets,
    number_targets,
    span_targets,
    tag_targets,
)
from minibert.training.problems import Problems, good
from minibert.training.processes import current
from minibert.training.rows import Row, fingerprint, read_rows
from minibert.training.run_config import RunConfig
from minibert.training.run_keys import DataConfig
from minibert.training.splits import split
from minibert.training.tags import repair

_WITHOUT_LABELS = ("regression", "similarity", "spans", "contrastive", "masked_lm")


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
    notes: list[str]  # lines about lengths and labels


def read_dataset(run: RunConfig, tokenizer: Tokenizer) -> Dataset:
    """Read, check and tokenise everything that a run names.

    All rows are looked at before anything is refused, so that all problems are told of at once.

    Raises: DataError for rows that cannot be read or have labels that do not fit, RunError for
        settings that do not fit the data, LabelError for labels that do not fit the task.
    """
    data = run.data
    problems = Problems()
    parts, sides = _read_parts(run, problems)
    labels = _label_names(run, parts["train"])
    good_rows = {name: _good(run, rows, labels, problems) for name, rows in parts.items()}
    if current().is_first or data.bad_rows == "error":
        problems.settle(data.bad_rows, run.path(run.output) / "rejected.csv")
    digest = hashlib.sha256(
        "".join(fingerprint(rows) for rows in parts.values()).encode()
    ).hexdigest()
    found, notes = {}, []
    for name, (rows, targets) in good_rows.items():
        encoded = encode_rows(run, rows, targets, tokenizer, name)
        if not len(encoded.examples):
            raise DataError(f"data.{name} has no row that can be used, expected at least one")
        found[name] = encoded.examples
        notes.append(f"{name}: {len(rows):,} rows, {encoded.cut}")
    _check_scale(run, {name: targets for name, (_, targets) in good_rows.items()})
    return Dataset(
        labels=labels,
        train=found["train"],
        validation=found.get("validation"),
        test=found.get("test"),
        problems=problems,
        identity=digest,
        split=sides,
        notes=[*_header_note(run), *notes, *_balance(run, labels, good_rows["train"][1])],
    )


def read_examples(
    run: RunConfig, source: Any, labels: tuple[str, ...], tokenizer: Tokenizer
) -> Examples:
    """The examples of other rows, read as those of the run: what a saved model is measured on.

    Args:
        labels: of the model.

    Raises: as `read_dataset`; bad rows are refused.
    """
    problems = Problems()
    rows, targets = _good(run, _rows(run, source, None, problems), labels, problems)
    problems.raise_if_any()
    if not rows:
        raise DataError("there is no row to evaluate on, expected at least one")
    return encode_rows(run, rows, targets, tokenizer, "rows").examples


def training_texts(run: RunConfig) -> Iterator[str]:
    """The texts of train, for a vocabulary to be learnt of; bad rows are told of later."""
    for row in _read_parts(run, Problems())[0]["train"]:
        if run.task == "tokens":
            yield " ".join(map(str, row.value("tokens")))
            continue
        for column in _text_columns(run):
            value = row.value(column)
            if isinstance(value, str):
                yield value


def _read_parts(
    run: RunConfig, problems: Problems
) -> tuple[dict[str, list[Row]], dict[str, list[str]]]:
    """The rows of train, validation and test; and of a split the names of each side's rows."""
    data = run.data
    if not data.train and isinstance(data.train, str):
        raise RunError('data.train is missing, expected a file, as train = "train.csv"')
    parts = {"train": _rows(run, data.train, data.train_rows, problems)}
    sides: dict[str, list[str]] = {}
    if isinstance(data.validation, int | float):
        rows = parts["train"]
        if len(rows) < 2:
            problems.raise_if_any()  # which say more than that there is nothing to split
        running = run.task == "masked_lm"  # whose lines are parts of a document
        lines = running and bool(rows) and "document" in rows[0].values
        chosen = split(
            rows,
            float(data.validation),
            run.training.seed,
            label=_stratify(run),
            group=data.group or ("document" if lines else None),
            text=None if running else _text_columns(run),
        )
        parts["train"] = [rows[i] for i in chosen.train]
        parts["validation"] = [rows[i] for i in chosen.validation]
        sides = {name: [_row_id(row, data) for row in part] for name, part in parts.items()}
    elif data.validation is not None:
        parts["validation"] = _rows(run, data.validation, data.validation_rows, problems)
    if data.test is not None:
        parts["test"] = _rows(run, data.test, None, problems)
    return parts, sides


def _good(
    run: RunConfig, rows: Sequence[Row], labels: tuple[str, ...], problems: Problems
) -> tuple[list[Row], list[Any]]:
    """The rows that fit, and their targets."""
    n_before = len(problems.bad)
    _check_texts(run, rows, problems)
    targets = _targets(run, rows, labels, problems)
    bad = {problem.place for problem in problems.bad[n_before:]}
    kept = [i for i, row in enumerate(rows) if row.place not in bad]
    return [rows[i] for i in kept], [targets[i] for i in kept]


def _header_note(run: RunConfig) -> list[str]:
    """A line where columns are chosen by number though the first row is taken for their names."""
    data = run.data
    label = data.label if isinstance(data.label, list) else [data.label]
    by_number = any(name.isdecimal() for name in [*_text_columns(run), *label])
    has_header = data.header and data.format in (None, "csv", "tsv")
    if not (by_number and has_header) or not isinstance(data.train, str):
        return []
    return [
        "columns are chosen by number, and the first row of each file is taken for their names; "
        "set data.header = false where it is a row like the others"
    ]


def _check_scale(run: RunConfig, scores: Mapping[str, Sequence[Any]]) -> None:
    """Refuse scores that are no cosines once they are divided, where the loss takes them so."""
    if run.task != "similarity" or run.loss.name != "cosine":
        return
    most = {name: max(map(abs, each), default=0.0) for name, each in scores.items()}
    scale = run.data.score_scale or most["train"] or 1.0
    for name, largest in most.items():
        if largest > scale:
            raise RunError(
                f"data.{name} has the score {largest:g}, expected at most {scale:g}, "
                f"{'data.score_scale' if run.data.score_scale else 'the largest of train'}: a "
                f"cosine is at most 1; set data.score_scale to the largest that there can be"
            )


def _balance(run: RunConfig, labels: tuple[str, ...], targets: Sequence[Any]) -> list[str]:
    """Lines about how often each label occurs, and what to set where some hardly do."""
    if run.task not in ("binary", "multiclass", "multilabel") or not labels:
        return []
    whole = [int(t) if isinstance(t, float) else t for t in targets]  # of a head of one logit
    found = counts(whole, len(labels))
    shown = sorted(zip(found, labels, strict=True), reverse=True)
    listed = ", ".join(f"{name} {n:,}" for n, name in shown[:8])
    lines = [f"labels: {listed}{', …' if len(shown) > 8 else ''}"]
    joined = [name for name in labels if any(mark in name for mark in ",;|")]
    if run.task == "multilabel" and run.data.label_separator is None and joined:
        lines.append(
            f"warning: {joined[0]!r} is taken for one label; if it is several, set "
            "data.label_separator"
        )
    if sum(n > 0 for n in found) == 1 and run.task != "multilabel":
        lines.append(f"warning: every row of train is {shown[0][1]!r}: nothing else can be learnt")
    elif shown[0][0] > 4 * shown[-1][0]:
        setting = "pos_weight" if run.task == "multilabel" else "class_weights"
        lines.append(
            f"warning: {shown[0][1]!r} is over 4 times as frequent as {shown[-1][1]!r}; if rare "
            f'labels matter, set loss.{setting} = "balanced"'
        )
    return lines


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
        wanted = _text_columns(run)
    if run.task not in ("tokens", "contrastive", "masked_lm"):
        wanted += data.label if isinstance(data.label, list) else [data.label]
    if data.answer_start is not None:
        wanted.append(data.answer_start)
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
    columns = (run.data.text, run.data.text_pair, *run.data.negatives)
    return [name for name in columns if name is not None]


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
    if value is None or (
        isinstance(value, float) and value != value
    ):  # missing: no label, which is refused
        return [value]
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
    if run.task in _WITHOUT_LABELS:
        return ()
    if run.task == "tokens":
        return label_names("tokens", (_tags(run, row) for row in rows), run.data.labels)
    if isinstance(run.data.label, list):
        return label_names(run.task, (), run.data.labels or run.data.label)
    return label_names(run.task, (_label(run, row) for row in rows), run.data.labels)


def _tags(run: RunConfig, row: Row) -> list[Any]:
    tags = row.value("tags")
    tags = tags if isinstance(tags, list) else [tags]
    scheme = run.data.tag_repair
    if scheme == "none":
        return tags
    try:
        return repair([str(tag) for tag in tags], scheme).tags  # type: ignore[arg-type]
    except LabelError as error:
        raise LabelError(f"{row.place}: {error}") from None


def _targets(
    run: RunConfig, rows: Sequence[Row], labels: tuple[str, ...], problems: Problems
) -> list[Any]:
    """The target of each row; those that do not fit are noted among the problems."""
    refuse = partial(_refuse, rows, problems)
    if run.task in ("contrastive", "masked_lm"):  # whose texts say all
        return [0] * len(rows)
    if run.task in ("regression", "similarity"):
        return number_targets([_label(run, row) for row in rows], refuse)
    if run.task == "spans":
        return _span_targets(run, rows, refuse)
    if run.task == "multilabel":
        return multilabel_targets([_label(run, row) for row in rows], labels, refuse)
    if run.task == "tokens":
        words = [row.value("tokens") for row in rows]
        return tag_targets([_tags(run, row) for row in rows], words, labels, refuse)
    targets = class_targets([_label(run, row) for row in rows], labels, refuse)
    if run.task == "binary" and run.head.num_labels == 1:
        return [None if target is None else float(target) for target in targets]
    return targets


def _span_targets(run: RunConfig, rows: Sequence[Row], refuse: Any) -> list[Any]:
    data = run.data
    if data.text_pair is None:
        raise RunError("data.text_pair is missing, expected the column of the text of the answer")
    starts = [None if data.answer_start is None else row.value(data.answer_start) for row in rows]
    texts = [str(row.value(data.text_pair)) for row in rows]
    return span_targets([_label(run, row) for row in rows], starts, texts, refuse)


def _refuse(rows: Sequence[Row], problems: Problems, row: int, kind: str, message: str) -> None:
    values = rows[row].values
    problems.add(rows[row].place, kind, message, "\t".join(str(v) for v in values.values()))


# ---- texts


def _check_texts(run: RunConfig, rows: Sequence[Row], problems: Problems) -> None:
    """Note each row that has anything but a text where a text should be."""
    for row in rows:
        for column in _text_columns(run) if run.task != "tokens" else ():
            value = row.value(column)
            if not isinstance(value, str):
                message = f"column {column!r} is {value!r}, expected a text"
                problems.add(row.place, "no text", message, str(dict(row.values)))
