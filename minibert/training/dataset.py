"""From the files of a run to examples: rows, checked labels, tokens."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from minibert.errors import DataError, RunError
from minibert.prediction.settings import OF_TEXTS
from minibert.tokenizer import Tokenizer
from minibert.training.dialect import Dialect
from minibert.training.encoding import Cut, Encoded, encode_rows
from minibert.training.examples import Examples
from minibert.training.labels import counts
from minibert.training.problems import Problems, good
from minibert.training.processes import current
from minibert.training.row_targets import (
    checked,
    label_columns,
    label_of,
    names_of,
    plain_tags,
    text_columns,
)
from minibert.training.rows import Row, fingerprint, read_rows
from minibert.training.run_config import RunConfig
from minibert.training.run_keys import DataConfig
from minibert.training.splits import split
from minibert.training.tags import convert, detect

_PARTS = ("train", "validation", "test")


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
    cuts: dict[str, Cut]  # of each side, how much did not fit into max_length
    validation_rows: Sequence[Row] = ()  # a row a text, of tasks that answer for a text


def read_dataset(run: RunConfig, tokenizer: Tokenizer) -> Dataset:
    """Read, check and tokenise everything that a run names.

    All rows are looked at before anything is refused, so that all problems are told of at once.

    Raises: DataError for rows that cannot be read or have labels that do not fit, RunError for
        settings that do not fit the data, LabelError for labels that do not fit the task.
    """
    data = run.data
    problems = Problems()
    parts, sides = _read_parts(run, problems)
    if not parts["train"]:
        told = f"; {problems.summary()}" if problems.bad else ""
        raise DataError(f"data.train has no row that can be used, expected at least one{told}")
    labels = names_of(run, parts["train"])
    good_rows = {name: checked(run, rows, labels, problems) for name, rows in parts.items()}
    if current().is_first or data.bad_rows == "error":
        problems.settle(data.bad_rows, run.path(run.output) / "rejected.csv")
    digest = hashlib.sha256(
        "".join(fingerprint(rows) for rows in parts.values()).encode()
    ).hexdigest()
    found, notes, cuts = {}, [], {}
    for name, (rows, targets) in good_rows.items():
        encoded = _encoded(run, rows, targets, tokenizer, name)
        found[name], cuts[name] = encoded.examples, encoded.cut
        n_windows = len(encoded.examples.texts)
        windows = f" in {n_windows:,} windows" if n_windows > len(rows) else ""
        notes.append(f"{name}: {len(rows):,} rows{windows}, {encoded.cut}")
    _check_scale(run, {name: targets for name, (_, targets) in good_rows.items()})
    return Dataset(
        labels=labels,
        train=found["train"],
        validation=found.get("validation"),
        test=found.get("test"),
        problems=problems,
        identity=digest,
        split=sides,
        notes=[
            *_header_note(run),
            *notes,
            *_scheme_note(run, good_rows["train"][0]),
            *_balance(run, labels, good_rows["train"][1]),
        ],
        cuts=cuts,
        validation_rows=good_rows["validation"][0]
        if "validation" in good_rows and run.task in OF_TEXTS
        else (),
    )


class Side(NamedTuple):
    """The examples of one side of a run, read anew."""

    examples: Examples
    split: dict[str, list[str]]  # of a share of train, as in `Dataset`


def read_side(run: RunConfig, side: str, labels: tuple[str, ...], tokenizer: Tokenizer) -> Side:
    """The "validation" or "test" examples of a run, for its model; no more is read than is needed.

    Rows that the run set aside are left out again.

    Args:
        labels: of the model.

    Raises: as `read_dataset`.
    """
    problems = Problems()
    parts, sides = _read_parts(run, problems, (side,))
    rows, targets = checked(run, parts[side], labels, problems)
    if run.data.bad_rows == "error":
        problems.raise_if_any()
    return Side(_encoded(run, rows, targets, tokenizer, side).examples, sides)


def read_examples(
    run: RunConfig, source: Any, labels: tuple[str, ...], tokenizer: Tokenizer
) -> Examples:
    """The examples of other rows, read as those of the run: what a saved model is measured on.

    Args:
        labels: of the model.

    Raises: as `read_dataset`; bad rows are refused, whatever the run does with them.
    """
    problems = Problems()
    rows, targets = checked(run, _rows(run, source, None, problems), labels, problems)
    if problems.bad:
        raise DataError(f"{problems.summary()}; mend them, or leave them out")
    if not rows:
        raise DataError("there is no row to evaluate on, expected at least one")
    return encode_rows(run, rows, targets, tokenizer, "rows").examples


def _encoded(
    run: RunConfig, rows: Sequence[Row], targets: Sequence[Any], tokenizer: Tokenizer, name: str
) -> Encoded:
    encoded = encode_rows(run, rows, targets, tokenizer, name)
    if not len(encoded.examples):
        raise DataError(f"data.{name} has no row that can be used, expected at least one")
    return encoded


def training_texts(run: RunConfig) -> Iterator[str]:
    """The texts of train, for a vocabulary to be learnt of; bad rows are told of later."""
    for row in _read_parts(run, Problems(), ("train",))[0]["train"]:
        for column in text_columns(run):
            value = row.value(column)
            texts = value if isinstance(value, list) else [value]
            if all(isinstance(text, str) for text in texts):
                yield " ".join(texts)


def _read_parts(
    run: RunConfig, problems: Problems, names: Collection[str] = _PARTS
) -> tuple[dict[str, list[Row]], dict[str, list[str]]]:
    """The rows of the parts that are asked for; and of a split the names of each side's rows."""
    data = run.data
    if not data.train and isinstance(data.train, str):
        raise RunError('data.train is missing, expected a file, as train = "train.csv"')
    parts: dict[str, list[Row]] = {}
    sides: dict[str, list[str]] = {}
    shared = isinstance(data.validation, int | float)
    if "train" in names or (shared and "validation" in names):
        parts["train"] = _rows(run, data.train, data.train_rows, problems)
    if shared and "train" in parts:
        parts |= _split(run, parts["train"], problems)
        sides = {name: [_row_id(row, data) for row in part] for name, part in parts.items()}
    elif data.validation is not None and "validation" in names:
        parts["validation"] = _rows(run, data.validation, data.validation_rows, problems)
    if data.test is not None and "test" in names:
        parts["test"] = _rows(run, data.test, None, problems)
    return parts, sides


def _split(run: RunConfig, rows: list[Row], problems: Problems) -> dict[str, list[Row]]:
    """The rows of train on either side."""
    if len(rows) < 2:
        problems.raise_if_any()  # which say more than that there is nothing to split
    running = run.task == "masked_lm"  # whose lines are parts of a document
    lines = running and bool(rows) and "document" in rows[0].values
    assert isinstance(run.data.validation, int | float)
    chosen = split(
        rows,
        float(run.data.validation),
        run.training.seed,
        label=_stratify(run),
        group=run.data.group or ("document" if lines else None),
        text=None if running else text_columns(run),
    )
    return {name: [rows[i] for i in side] for name, side in chosen._asdict().items()}


def _stratify(run: RunConfig) -> Callable[[Row], Any] | None:
    """What a split keeps the shares of."""
    if run.task in ("binary", "multiclass", "multilabel"):
        return partial(label_of, run)
    return None


def _rows(run: RunConfig, source: Any, limit: int | None, problems: Problems) -> list[Row]:
    """The rows of a source that can be read."""
    data = run.data
    wanted = [*text_columns(run), *label_columns(run)]
    if data.answer_start is not None:
        wanted.append(data.answer_start)
    if isinstance(source, str):
        source = str(run.path(source))
    elif isinstance(source, list) and all(isinstance(each, str) for each in source):
        source = [str(run.path(each)) for each in source]
    rows = read_rows(source, dialect_of(data), wanted=wanted, limit=limit)
    return list(good(rows, problems))


def _row_id(row: Row, data: DataConfig) -> str:
    return str(row.place) if data.id is None else str(row.value(data.id))


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


# ---- lines about the rows


def _header_note(run: RunConfig) -> list[str]:
    """A line where columns are chosen by number though the first row is taken for their names."""
    data = run.data
    by_number = any(name.isdecimal() for name in [*text_columns(run), *label_columns(run)])
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


def _scheme_note(run: RunConfig, rows: Sequence[Row]) -> list[str]:
    """A line about what the tags are written in, and how many were mended on the way."""
    target: Any = run.data.tag_scheme
    if run.task != "tokens" or target is None:
        return []
    tags = [plain_tags(run, row) for row in rows]
    source = detect(tags)
    if source is None:
        return []
    n_mended = sum(convert(each, source, target).n_repaired for each in tags)
    said = f"; {n_mended:,} of them broke it and were mended" if n_mended else ""
    return [f"tags of train: {sum(map(len, tags)):,} in {source}, learnt as {target}{said}"]


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
    elif not shown[-1][0]:
        lines.append(f"warning: no row of train is {shown[-1][1]!r}: it cannot be learnt")
    elif shown[0][0] > 4 * shown[-1][0]:
        lines.append(
            f"warning: {shown[0][1]!r} is over 4 times as frequent as {shown[-1][1]!r}"
            + _remedy(run)
        )
    return lines


def _remedy(run: RunConfig) -> str:
    """What to set where some labels are rare, unless something is set."""
    loss = run.loss
    weights = (loss.class_weights, loss.pos_weight, loss.focal_alpha)
    if any(each is not None for each in weights) or run.data.sampling != "none":
        return ""
    alone = run.task == "multilabel" or run.head.num_labels == 1
    setting = "pos_weight" if alone else "class_weights"
    return f'; if rare labels matter, set loss.{setting} = "balanced"'
