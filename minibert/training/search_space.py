"""What a search tries: keys of the run file, each with values or a range, read and checked.

    [optimizer]
    learning_rate = { low = 1e-5, high = 3e-4, log = true }
    [training]
    batch_size = [16, 32]

A space stands in a file with the tables of a run file.  What makes figures of two trials comparable
is no part of it: the task, the rows, their labels, how they are split and which figure decides.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minibert.errors import RunError
from minibert.training.run_config import RunConfig, read_toml
from minibert.training.toml_text import assignment

Value = str | bool | int | float
Values = Mapping[str, Value]  # by key: "optimizer.learning_rate"

_GRID_POINTS = 3  # of a range
# All other keys of [data] say which rows there are and what their labels mean.
_OF_DATA = {
    "max_length", "long_text", "window_overlap", "merge_windows", "sampling", "length_pool",
    "label_all_pieces",
}  # fmt: skip
_FIXED = {
    "task": "it says what is learnt",
    "output": "each trial has a folder of its own",
    "head.num_labels": "it is part of what labels mean",
    "training.metric": "trials are compared by it",
    "training.seed": "it says which rows are set aside for validation",
    "training.device": "it changes nothing that is measured",
}
_OF_WORDS = {
    "model", "data.max_length", "network.tokenizer", "network.vocab_size", "network.lowercase",
}  # fmt: skip
_DEFAULT: dict[str, Any] = {
    "optimizer.learning_rate": {"low": 1e-5, "high": 3e-4, "log": True},
    "optimizer.head_learning_rate": {"low": 1e-4, "high": 3e-3, "log": True},
    "optimizer.weight_decay": [0.0, 0.01, 0.1],
    "schedule.warmup_fraction": {"low": 0.0, "high": 0.2},
    "training.batch_size": [16, 32],
}
_HEADLESS = ("similarity", "contrastive")


@dataclass(frozen=True)
class Choices:
    """Some values."""

    values: tuple[Value, ...]

    def grid(self) -> tuple[Value, ...]:
        return self.values

    def extremes(self) -> tuple[Value, ...]:
        """Of numbers the least and the greatest; all of what has no order."""
        if any(isinstance(value, str | bool) for value in self.values):
            return self.values
        return (min(self.values), max(self.values))

    def to_dict(self) -> list[Value]:
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """All numbers between two; whole ones where both are."""

    low: int | float
    high: int | float
    log: bool = False

    def grid(self) -> tuple[Value, ...]:
        """A few of them, at equal distances or, of a logarithmic one, by equal factors."""
        found: list[Value] = []
        for share in (i / (_GRID_POINTS - 1) for i in range(_GRID_POINTS)):
            value = (1 - share) * self.low + share * self.high
            if self.log:
                value = self.low * (self.high / self.low) ** share
            found.append(round(value) if self.is_whole else float(f"{value:.6g}"))
        return tuple(dict.fromkeys(found))

    def extremes(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    def to_dict(self) -> dict[str, Value]:
        return {"low": self.low, "high": self.high, "log": self.log}

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


Space = Mapping[str, Choices | Range]


def read_space(path: str | Path, run: RunConfig) -> Space:
    """The space in a file, checked against a run.

    Raises: RunError for a file that is no TOML, and as `space_of`.
    """
    path = Path(path)
    values = read_toml(path)
    try:
        return space_of(values, run)
    except RunError as error:
        raise RunError(f"{path}: {error}") from None


def default_space(run: RunConfig) -> Space:
    """Rates, decay, warmup and the size of a batch: what is worth trying of any run."""
    values = dict(_DEFAULT)
    if run.task in _HEADLESS:
        del values["optimizer.head_learning_rate"]
    return space_of(values, run)


def space_of(values: Mapping[str, Any], run: RunConfig) -> Space:
    """A space from nested mappings, as TOML gives them, or by keys such as "loss.name".

    Raises: RunError for a key that the run file has not, or that may not be searched, for a value
        that is out of the key's bounds, and for a space without any key.
    """
    space = {name: _checked(name, _dimension(name, given), run) for name, given in _flat(values)}
    if not space:
        raise RunError(
            "the space has no keys, expected some, such as optimizer.learning_rate = "
            "{ low = 1e-5, high = 3e-4, log = true }"
        )
    return space


def grid_of(space: Space) -> list[dict[str, Value]]:
    """Every combination of the values of a space; of a range the ends and the middle."""
    columns = [dimension.grid() for dimension in space.values()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*columns)]


def extremes_of(space: Space) -> Iterator[dict[str, Value]]:
    """What is to be tried before a search: each key at its ends, and all at once at either."""
    for name, dimension in space.items():
        for value in dict.fromkeys(dimension.extremes()):
            yield {name: value}
    for end in (0, -1):
        yield {name: dimension.extremes()[end] for name, dimension in space.items()}


def settings_of(space: Space, drawn: Values) -> dict[str, Value]:
    """What was drawn from a space as it is tried: of a range to three digits, as it is written."""
    found: dict[str, Value] = {}
    for name, value in drawn.items():
        dimension = space[name]
        if isinstance(dimension, Range) and isinstance(value, float):
            value = min(max(float(f"{value:.3g}"), dimension.low), dimension.high)
        found[name] = value
    return found


def toml_lines(values: Values) -> list[str]:
    """Values as the lines of a run file, table by table."""
    tables: dict[str, list[str]] = {}
    for name, value in values.items():
        table, _, key = name.rpartition(".")
        tables.setdefault(table, []).extend(assignment(key, value))
    lines = list(tables.pop("", []))
    for table, assignments in tables.items():
        lines += [f"[{table}]", *assignments]
    return lines


def spelled(values: Values) -> str:
    """Values in a line."""
    return ", ".join(line for name, value in values.items() for line in assignment(name, value))


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys with what they are given, those in tables by their full names."""
    for name, given in values.items():
        if isinstance(given, Mapping) and not {"low", "high", "log"} & set(given):
            yield from ((f"{name}.{key}", each) for key, each in given.items())
        else:
            yield name, given


def _checked(name: str, dimension: Choices | Range, run: RunConfig) -> Choices | Range:
    """A dimension that the run file can have, of numbers as its key takes them."""
    if name in _FIXED:
        raise _not_searched(name, _FIXED[name])
    for value in dimension.extremes():
        run.with_values({name: value})  # which knows keys, types and bounds
    table, _, key = name.rpartition(".")
    if table == "data" and key not in _OF_DATA:
        raise _not_searched(name, "it is part of what rows and labels are")
    if run.task == "masked_lm" and (table == "masking" or name in _OF_WORDS):
        raise _not_searched(name, "it changes which words are to be predicted")
    if isinstance(dimension, Choices) or not dimension.is_whole:
        return dimension
    as_float = Range(float(dimension.low), float(dimension.high), dimension.log)
    try:
        run.with_values({name: as_float.high})
    except RunError:  # a whole number is expected
        return dimension
    return as_float


def _not_searched(name: str, why: str) -> RunError:
    return RunError(f"{name} may not be searched, for {why}; take it out of the space")


def _dimension(name: str, given: Any) -> Choices | Range:
    """What a key is given: a list of values, or a range.

    Raises: RunError for anything else.
    """
    if isinstance(given, list):
        if not given or not all(isinstance(value, Value) for value in given):
            raise RunError(f"{name} is {given!r}, expected a list of strings, numbers or truths")
        return Choices(tuple(dict.fromkeys(given)))
    if not isinstance(given, Mapping):
        raise RunError(
            f"{name} is {given!r}, expected a list of values, or a range such as "
            "{ low = 1, high = 8, log = true }"
        )
    if not {"low", "high"} <= set(given) <= {"low", "high", "log"}:
        raise RunError(f"{name} has {', '.join(given)}, expected low, high and, if wanted, log")
    return _range(name, given["low"], given["high"], given.get("log", False))


def _range(name: str, low: Any, high: Any, log: Any) -> Range:
    ends: Sequence[Any] = (low, high)
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends):
        raise RunError(f"{name} is from {low!r} to {high!r}, expected two numbers")
    if not isinstance(log, bool):
        raise RunError(f"{name} has log = {log!r}, expected true or false")
    if not -math.inf < low < high < math.inf or (log and low <= 0):
        least = " and, for log = true, above 0" if log else ""
        raise RunError(f"{name} is from {low} to {high}, expected low to be less than high{least}")
    return Range(low, high, log)
