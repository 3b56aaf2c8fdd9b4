"""The run file: one TOML file that says all that a training run does.

Every key is a field of a table in `run_keys.py`, with what it means, its default and its bounds:
what `minibert train --print-config` writes, what the docs list and what is refused come from there.
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
from minibert.training.run_keys import (
    TASKS,
    AugmentationConfig,
    DataConfig,
    HeadConfig,
    LossConfig,
    MaskingConfig,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
    key,
)

IN_PYTHON = "rows given in Python"  # what is written down of them


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A training run: `RunConfig.from_file("run.toml")`, or made in Python.

    Raises: RunError, naming the key, what it got, and what it takes.
    """

    task: str = key("", "what is learnt", choices=tuple(TASKS))
    model: str = key(
        "all-MiniLM-L6-v2",
        "a name, a folder, or a hub id to start from; 'new' makes a network as [network] says",
    )
    output: str = key("run", "the folder of the run")
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
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
        if self.model != "new":
            for f in fields(NetworkConfig):
                if (value := getattr(self.network, f.name)) != _default(f):
                    raise RunError(
                        f"network.{f.name} is {value!r}, which model {self.model!r} has no use "
                        "for; it is for model = 'new'"
                    )

    @classmethod
    def from_file(cls, path: str | Path) -> "RunConfig":
        """Read a run file; the paths in it are relative to it."""
        path = Path(path)
        values = read_toml(path)
        try:
            return cls.from_dict(values, folder=path.parent)
        except RunError as error:
            raise RunError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, folder: str | Path = ".") -> "RunConfig":
        """A run from nested mappings, as TOML gives them."""
        return typing.cast(RunConfig, _made(cls, values, "")._in(Path(folder)))

    def with_values(self, values: Mapping[str, Any]) -> "RunConfig":
        """The run with other values of some keys, such as "optimizer.learning_rate".

        Raises: RunError as for a run file.
        """
        nested: dict[str, Any] = {}
        for name, value in values.items():
            table, _, inner = name.rpartition(".")
            (nested.setdefault(table, {}) if table else nested)[inner] = value
        return typing.cast(RunConfig, _made(RunConfig, nested, "", base=self))

    def to_dict(self) -> dict[str, Any]:
        """All keys with their values, as JSON takes them; rows given in Python are counted."""
        return _plain(self)

    def path(self, name: str) -> Path:
        """A path of the run file, from where it counts."""
        return self.folder / name

    def _in(self, folder: Path) -> "RunConfig":
        return dataclasses.replace(self, folder=folder)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file.

    Raises: RunError where it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise RunError(f"{path}: is no TOML: {error}") from None


def template(task: str) -> str:
    """A run file for a task: every key that it has, its meaning and its default."""
    if task not in TASKS:
        raise RunError(f"task is {task!r}, expected one of {', '.join(TASKS)}")
    lines = [f"# {TASKS[task]}", f'task = "{task}"', *_lines(RunConfig, ("task",), task)]
    for name, kind in _tables().items():
        if keys := _lines(kind, (), task):
            lines += ["", "", f"[{name}]", f"# {_first_line(kind)}", *keys]
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
_ASKED_BY_TASK = {
    "similarity": {"text": '"text_a"', "text_pair": '"text_b"', "label": '"score"'},
    "contrastive": {"text": '"text_a"', "text_pair": '"text_b"'},
    "spans": {"text": '"question"', "text_pair": '"context"', "label": '"answer"'},
    "tokens": {"train": '"train.conll"'},
    "masked_lm": {"train": '"train.txt"', "model": '"new"'},
}


def _lines(kind: Any, without: tuple[str, ...], task: str) -> list[str]:
    """The keys of a table, each behind a line that says what it means."""
    lines = []
    asked = {**_ASKED, **_ASKED_BY_TASK.get(task, {})}
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
        is_asked = kind in (RunConfig, DataConfig) and f.name in asked
        value, mark = (asked[f.name], "") if is_asked else (default, "# ")
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


def _made(kind: Any, values: Any, where: str, *, base: Any = None) -> Any:
    """A dataclass filled from a mapping; unknown keys are refused with the nearest right one.

    Args:
        base: has all that is not in the mapping; None leaves it at its default.
    """
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
            known_values = None if base is None else getattr(base, name)
            given[name] = _made(inner, value, f"{name}.", base=known_values)
        else:
            _check_value(f"{where}{name}", value, inner, about[name])
            given[name] = _as(value, inner)
    return kind(**given) if base is None else dataclasses.replace(base, **given)


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
    return IN_PYTHON


def flat(run: RunConfig) -> dict[str, Any]:
    """What a run file sets, by keys such as "optimizer.learning_rate"."""
    found: dict[str, Any] = {}
    for name, value in run.to_dict().items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": each for key, each in value.items()}
        else:
            found[name] = value
    return found
