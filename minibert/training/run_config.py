"""The run file: one TOML file that says all that a training run does.

Every key is a field here, with what it means, its default and its bounds: what `minibert train
--print-config` writes, what the docs list and what is refused come from this one place.
"""

import dataclasses
import textwrap
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from minibert.errors import RunError
from minibert.lines import nearest

TASKS = {
    "binary": "one of two labels a text, or a pair of texts",
    "multiclass": "one of several labels a text, or a pair of texts",
    "multilabel": "any number of labels a text, or a pair of texts",
    "regression": "a number a text, or a pair of texts, read together",
    "tokens": "a tag a word",
}

Source = str | list[str] | Iterable[Mapping[str, Any]]


def key(
    default: Any,
    doc: str,
    *,
    choices: tuple[str, ...] = (),
    low: int | float | None = None,
    high: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
    tasks: tuple[str, ...] = (),
) -> Any:
    """A field of the run file.

    Args:
        doc: what it means, in a line.
        choices: the strings that it may be.
        low, high: bounds that it may reach; above, below: bounds that it may not.
        tasks: those that it is for; all when empty.
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    metadata = {"doc": doc, "choices": choices, "tasks": tasks, **bounds}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


_CLASSES = ("binary", "multiclass", "multilabel", "tokens")
_ONE_CLASS = ("binary", "multiclass", "tokens")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on: files, or in Python any iterable of mappings, and their columns."""

    train: Source = key("", "files to train on: a path, a pattern such as 'part-*.csv', or a list")
    validation: Source | float | None = key(
        None, "files to choose the best checkpoint on, or a share of train such as 0.1"
    )
    test: Source | None = key(None, "files that the trained model is measured on at the end")
    format: str | None = key(
        None,
        "of the files; by their suffix when not given",
        choices=("csv", "tsv", "jsonl", "conll", "txt", "folders"),
    )
    encoding: str = key("utf-8", "of the files: 'utf-8', 'latin-1', 'utf-16', …")
    delimiter: str | None = key(None, "between columns: ',' for csv, a tab for tsv")
    quoting: bool | None = key(
        None, "do quotation marks enclose a text? false: they are part of it; yes for csv and tsv"
    )
    header: bool = key(True, "does the first row name the columns? false: number them from 1")
    columns: int | None = key(
        None, "how many there are; 2 with delimiter = ' ' for lines such as 'label a text'", low=1
    )
    extra_columns: str | None = key(
        None,
        "of rows with more columns: refuse them, leave the surplus out, or put it to the last",
        choices=("error", "ignore", "join"),
    )
    text: str = key("text", "the column of the text, by name or by number from 1")
    text_pair: str | None = key(None, "the column of the second text of a pair")
    label: str | list[str] = key(
        "label", "the column of the label; a list of columns of 0 and 1 for multilabel"
    )
    labels: list[str] = key(
        [], "names of the labels in the order of their ids; those of train, sorted, when empty"
    )
    label_separator: str | None = key(
        None, "between the labels of one text: ',' for 'joy,anger'", tasks=("multilabel",)
    )
    id: str | None = key(None, "the column that names a row in reports and predictions")
    group: str | None = key(
        None, "the column of what must stay on one side of a split: a person, a document"
    )
    train_rows: int | None = key(None, "take only the first rows of train", low=1)
    validation_rows: int | None = key(None, "take only the first rows of validation", low=1)
    max_length: int = key(128, "tokens of a text, or of a pair, special ones included", low=3)
    long_text: str = key(
        "truncate", "of longer texts: cut them, or refuse them", choices=("truncate", "error")
    )
    bad_rows: str = key(
        "error",
        "of rows that cannot be used: refuse all, or set them aside in rejected.csv",
        choices=("error", "quarantine"),
    )
    sampling: str = key(
        "none",
        "of unequal labels: as they are, the rare ones repeated, the frequent ones thinned",
        choices=("none", "over", "under"),
        tasks=("binary", "multiclass"),
    )
    label_all_pieces: bool = key(
        False, "does every piece of a word carry its tag, not the first alone?", tasks=("tokens",)
    )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, in what portions and in what precision."""

    epochs: float = key(3.0, "times that all of train is gone through", above=0)
    batch_size: int = key(32, "examples an update, over all processes", low=1)
    accumulate: int = key(1, "portions that a batch is computed in, to save memory", low=1)
    precision: str = key("fp32", "of the matrix products", choices=("fp32", "bf16", "fp16"))
    seed: int = key(0, "of the new head, shuffling and dropout", low=0, high=2**63 - 1)
    device: str = key("auto", "where it runs: 'auto', 'cpu', 'cuda', 'cuda:1'")
    evaluate_every: str | int = key("epoch", "'epoch', or a number of updates")
    save_every: str | int = key("epoch", "'epoch', or a number of updates")
    keep_checkpoints: int = key(2, "checkpoints that are kept, beside the best", low=1)
    metric: str | None = key(
        None, "what the best checkpoint is chosen by; macro-F1 for classes when not given"
    )
    early_stopping_patience: int | None = key(
        None, "evaluations without a better one after which it stops", low=1
    )
    freeze: str = key("", "what is not trained: 'embeddings', layers as '0-5', 'encoder'")
    freeze_until_step: int | None = key(
        None, "the update from which on what is frozen is trained too", low=1
    )
    max_grad_norm: float | None = key(1.0, "gradients longer than this are shortened", above=0)
    dropout: float | None = key(
        None, "of the encoder, in place of the checkpoint's", low=0, below=1
    )
    gradient_checkpointing: bool = key(
        False, "compute activations twice in place of keeping them: less memory, a third slower"
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """What turns gradients into updates."""

    name: str = key(
        "adamw", "AdamW, BERT's own form of it, or SGD", choices=("adamw", "google_bert", "sgd")
    )
    learning_rate: float = key(3e-5, "the highest; MiniLM-sized models take 1e-4", above=0)
    head_learning_rate: float | None = key(None, "of the head, in place of learning_rate", above=0)
    layer_decay: float = key(
        1.0, "the rate of each layer as a share of the one above it", above=0, high=1
    )
    weight_decay: float = key(0.01, "of weights, not of biases and LayerNorms", low=0)
    l1: float = key(0.0, "pull of weights towards zero, the same for large and small ones", low=0)
    momentum: float = key(0.9, "of SGD", low=0, below=1)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the rate rises and falls."""

    name: str = key(
        "linear",
        "how the rate falls after the warmup",
        choices=("linear", "cosine", "constant", "polynomial", "inverse_sqrt", "plateau"),
    )
    warmup_fraction: float = key(0.1, "share of all updates in which the rate rises", low=0, high=1)
    restarts: int = key(0, "of the cosine", low=0)
    power: float = key(1.0, "of the polynomial", above=0)
    plateau_factor: float = key(0.5, "what plateau multiplies the rate by", above=0, below=1)
    plateau_patience: int = key(1, "evaluations without a better one before it does", low=0)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised."""

    name: str | None = key(
        None,
        "the task's own when not given",
        choices=("cross_entropy", "binary_cross_entropy", "focal", "mse", "l1", "huber"),
    )
    class_weights: str | list[float] | None = key(
        None, "'balanced', or a weight a label: rare labels count more", tasks=_ONE_CLASS
    )
    pos_weight: str | list[float] | None = key(
        None, "'balanced', or a weight a label for its presence", tasks=("binary", "multilabel")
    )
    label_smoothing: float = key(
        0.0, "share of certainty given to all labels", low=0, below=1, tasks=_ONE_CLASS
    )
    focal_gamma: float = key(2.0, "how much less an easy example counts", low=0, tasks=_CLASSES)
    focal_alpha: float | None = key(
        None, "the weight of the present label", above=0, below=1, tasks=("binary", "multilabel")
    )
    huber_delta: float = key(1.0, "where huber turns linear", above=0, tasks=("regression",))


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What is put on the encoder."""

    num_labels: int | None = key(
        None, "1 makes a binary head of one logit; else the labels say it", low=1
    )
    init_std: float | None = key(None, "of the new weights; initializer_range else", above=0)
    dropout: float | None = key(None, "before the classifier, or as saved", low=0, below=1)
    bias_from_prior: bool = key(
        False, "start from the labels' shares, so that rare ones need not be unlearnt"
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A training run: `RunConfig.from_file("run.toml")`, or made in Python.

    Raises: RunError, naming the key, what it got, and what it takes.
    """

    task: str = key("", "what is learnt", choices=tuple(TASKS))
    model: str = key("all-MiniLM-L6-v2", "a name, a folder, or a hub id to start from")
    output: str = key("run", "the folder of the run")
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    folder: Path = field(default_factory=Path, metadata={"hidden": True})  # paths start from here

    def __post_init__(self) -> None:
        _check(self, "")
        if not self.task:
            raise RunError(f"task is missing, expected one of {', '.join(TASKS)}")
        for table, kind in _tables().items():
            for f in fields(kind):
                value, tasks = getattr(getattr(self, table), f.name), f.metadata["tasks"]
                if tasks and self.task not in tasks and value != _default(f):
                    raise RunError(
                        f"{table}.{f.name} is {value!r}, which task {self.task!r} has no use for; "
                        f"it is for {', '.join(tasks)}"
                    )

    @classmethod
    def from_file(cls, path: str | Path) -> "RunConfig":
        """Read a run file; the paths in it are relative to it."""
        path = Path(path)
        try:
            values = tomllib.loads(path.read_bytes().decode("utf-8"))
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise RunError(f"{path}: is no TOML: {error}") from None
        try:
            return cls.from_dict(values, folder=path.parent)
        except RunError as error:
            raise RunError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, folder: str | Path = ".") -> "RunConfig":
        """A run from nested mappings, as TOML gives them."""
        return typing.cast(RunConfig, _made(cls, values, "")._in(Path(folder)))

    def to_dict(self) -> dict[str, Any]:
        """All keys with their values, as JSON takes them; rows given in Python are counted."""
        return _plain(self)

    def path(self, name: str) -> Path:
        """A path of the run file, from where it counts."""
        return self.folder / name

    def _in(self, folder: Path) -> "RunConfig":
        return dataclasses.replace(self, folder=folder)


def template(task: str) -> str:
    """A run file for a task: every key that it has, its meaning and its default."""
    if task not in TASKS:
        raise RunError(f"task is {task!r}, expected one of {', '.join(TASKS)}")
    lines = [f"# {TASKS[task]}", f'task = "{task}"', *_lines(RunConfig, ("task",), task)]
    for name, kind in _tables().items():
        lines += ["", "", f"[{name}]", f"# {_first_line(kind)}", *_lines(kind, (), task)]
    return "\n".join([*lines, ""])


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").splitlines()[0]


@cache
def _tables() -> dict[str, Any]:
    """The tables of a run file, and their classes."""
    return {
        name: kind for name, kind in _hints(RunConfig).items() if dataclasses.is_dataclass(kind)
    }


# What is filled in, for everyone has to say it; all else is shown as a comment, with its default.
_ASKED = {
    "model": '"all-MiniLM-L6-v2"',
    "output": '"run"',
    "train": '"train.csv"',
    "validation": "0.1",
    "text": '"text"',
    "label": '"label"',
}


def _lines(kind: Any, without: tuple[str, ...], task: str) -> list[str]:
    """The keys of a table, each behind a line that says what it means."""
    lines = []
    for f in fields(kind):
        about = f.metadata
        if (
            "doc" not in about
            or f.name in without
            or (about["tasks"] and task not in about["tasks"])
        ):
            continue
        choices = f": {', '.join(about['choices'])}" if about["choices"] else ""
        default = _toml(_default(f))
        value = _ASKED.get(f.name, default) if kind in (RunConfig, DataConfig) else default
        mark = "" if kind in (RunConfig, DataConfig) and f.name in _ASKED else "# "
        said = textwrap.wrap(f"{about['doc']}{choices}", 98)
        lines += ["", *(f"# {line}" for line in said), f"{mark}{f.name} = {value}".rstrip()]
    return lines


def _default(f: "dataclasses.Field[Any]") -> Any:
    if f.default is not dataclasses.MISSING:
        return f.default
    assert f.default_factory is not dataclasses.MISSING
    return f.default_factory()


def _toml(value: Any) -> str:
    """A value as TOML writes it; nothing for None, which TOML has not."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


# ---- from mappings, and what is refused


def _made(kind: Any, values: Any, where: str) -> Any:
    """A dataclass filled from a mapping; unknown keys are refused with the nearest right one."""
    if not isinstance(values, Mapping):
        raise RunError(f"{where.rstrip('.')} is {values!r}, expected a table [{where.rstrip('.')}]")
    about = {f.name: f.metadata for f in fields(kind) if not f.metadata.get("hidden")}
    known = list(about)
    given = {}
    for name, value in values.items():
        if name not in known:
            raise RunError(f"{where}{name} is no key, expected {_nearest(name, known)}")
        inner = _hints(kind)[name]
        if dataclasses.is_dataclass(inner):
            given[name] = _made(inner, value, f"{name}.")
        else:
            _check_value(f"{where}{name}", value, inner, about[name])
            given[name] = _as(value, inner)
    return kind(**given)


def _nearest(name: str, known: list[str]) -> str:
    """What may have been meant: in this table, or in another."""
    if meant := nearest(name, known):
        return f"{meant}?"
    places = [
        f"[{table}] {name}"
        for table, kind in _tables().items()
        if name in {f.name for f in fields(kind)}
    ]
    return f"it as {places[0]}" if places else f"one of {', '.join(known)}"


def _check(config: Any, where: str) -> None:
    """Types and bounds of all keys of a table, and of the tables in it."""
    for f in fields(config):
        kind: Any = type(config)
        value, hint = getattr(config, f.name), _hints(kind)[f.name]
        if dataclasses.is_dataclass(value):
            _check(value, f"{f.name}.")
        elif "doc" in f.metadata:
            _check_value(f"{where}{f.name}", value, hint, f.metadata)


def _check_value(name: str, value: Any, hint: Any, about: Mapping[str, Any]) -> None:
    if not _is_of(value, hint):
        raise RunError(f"{name} is {value!r}, expected {_spelled(hint)}")
    if about["choices"] and isinstance(value, str) and value and value not in about["choices"]:
        meant = nearest(value, about["choices"])
        asked = f"; {meant}?" if meant else ""
        raise RunError(f"{name} is {value!r}, expected one of {', '.join(about['choices'])}{asked}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, high, above, below = (about[bound] for bound in ("low", "high", "above", "below"))
    fits = (
        value == value
        and abs(value) != float("inf")
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not fits:
        bounds = (("at least", low), ("above", above), ("at most", high), ("below", below))
        said = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
        raise RunError(f"{name} is {value}, expected a number {' and '.join(said) or 'as any'}")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _is_of(value: Any, hint: Any) -> bool:
    """Is a value of an annotated type? An integer counts as a float, a truth value as neither."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_is_of(value, each) for each in typing.get_args(hint))
    if origin is list:
        (inner,) = typing.get_args(hint)
        return isinstance(value, list) and all(_is_of(each, inner) for each in value)
    if origin is not None:  # rows given in Python
        return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float and isinstance(value, int):
        return True
    return isinstance(value, hint)


def _as(value: Any, hint: Any) -> Any:
    """A value as its annotation has it: 3 for a float is 3.0."""
    wanted = typing.get_args(hint) or (hint,)
    if float in wanted and int not in wanted and isinstance(value, int):
        return float(value)
    if list[float] in wanted and isinstance(value, list):
        return [float(each) for each in value]
    return value


def _spelled(hint: Any) -> str:
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        parts = [_spelled(each) for each in typing.get_args(hint) if each is not type(None)]
        return " or ".join(parts)
    if typing.get_origin(hint) is list:
        return f"a list of {_spelled(typing.get_args(hint)[0]).removeprefix('a ')}s"
    return names.get(hint, "rows")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        shown = [f for f in fields(value) if not f.metadata.get("hidden")]
        return {f.name: _plain(getattr(value, f.name)) for f in shown}
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        return list(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return "rows given in Python"
