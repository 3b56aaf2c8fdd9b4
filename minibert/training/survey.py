"""What the columns of labelled rows hold: counted over all rows, with a sample of them.

One pass over any number of rows, in bounded memory: of each column the counts of its values, as
long as there are few, and of a sample of rows what they hold, for lengths and examples.
"""

import math
import random
import re
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from minibert.errors import DataError
from minibert.training.labels import label_name
from minibert.training.rows import BadRow, Cells, Columns, Row, Value

SAMPLE_ROWS = 2_000

_DISTINCT = 10_000  # values of a column that are counted each
_VALUE_CHARS = 200  # by which they are told apart
_TEXT_CHARS = 20_000  # of a text in the sample
_COMPARED = 1 << 23  # cells that are compared for equality, over all columns
_COLUMNS = 1_000  # objects in JSON may have any number of them
_NUMBER = re.compile(r"\s*[+-]?(\d|\.\d)")  # how one begins; "nan" and "infinity" are none


class Numbers:
    """What is known of a column's values as numbers."""

    def __init__(self) -> None:
        self.n = 0
        self.n_others = 0
        self.n_fractions = 0
        self.low = math.inf
        self.high = -math.inf
        self.mean = 0.0
        self._squares = 0.0  # the sum of the squared differences from the mean
        self.other = ""  # the first value that is none

    def add(self, name: str, times: int = 1) -> None:
        """Note a value, as text."""
        number = as_number(name)
        if number is None:
            self.n_others += times
            self.other = self.other or name
            return
        self.n += times
        self.n_fractions += times * (not number.is_integer())
        self.low, self.high = min(self.low, number), max(self.high, number)
        from_before = number - self.mean
        self.mean += times * from_before / self.n
        self._squares += times * from_before * (number - self.mean)

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return math.sqrt(self._squares / max(1, self.n))

    @property
    def are_most(self) -> bool:
        """Are they numbers, but for a few?"""
        return self.n > 0 and self.n_others <= 0.05 * (self.n + self.n_others)


class Column:
    """What a column holds; `key` is its name as a run file says it."""

    def __init__(self, key: str, position: int) -> None:
        self.key = key
        self.position = position  # from 0
        self.kinds: Counter[str] = Counter()  # types of the values; NoneType where one is absent
        self.n_empty = 0
        self.counts: Counter[str] | None = Counter()  # None: too many values to count each
        self.parts: Counter[str] | None = Counter()  # of lists
        self.n_spaced = 0  # values with a blank in them
        self.n_wide = 0  # with characters beyond ASCII
        self.n_blanks = 0
        self.n_chars = 0
        self.longest = 0  # characters
        self.hashes = array("q")  # of the rows that are compared
        self._numbers = Numbers()  # of the values that are no longer counted each

    def add(self, value: Value, *, compare: bool) -> None:
        """Note the value of the next row."""
        self.kinds[type(value).__name__] += 1
        if isinstance(value, list):
            self._add_parts(value)
            name = "\0".join(map(str, value))
        else:
            name = label_name(value)
            self.n_empty += not name
            if name:
                self._add_name(name)
        if compare:
            self.hashes.append(hash(name))

    def _add_name(self, name: str) -> None:
        n_chars, n_blanks = len(name), name.count(" ")
        self.n_chars += n_chars
        self.longest = max(self.longest, n_chars)
        self.n_blanks += n_blanks
        self.n_spaced += n_blanks > 0
        self.n_wide += not name.isascii()
        if self.counts is not None:
            self.counts[name[:_VALUE_CHARS]] += 1
            if len(self.counts) > _DISTINCT:
                self._numbers, self.counts = self.numbers, None
        elif self._numbers.are_most:
            self._numbers.add(name)

    def _add_parts(self, values: list[Any]) -> None:
        if self.parts is not None:
            self.parts.update(map(label_name, values))
            if len(self.parts) > _DISTINCT:
                self.parts = None

    @property
    def numbers(self) -> Numbers:
        """Its values as numbers; where there are many, up to the first many that are none."""
        if self.counts is None:
            return self._numbers
        numbers = Numbers()
        for name, times in self.counts.items():
            numbers.add(name, times)
        return numbers

    @property
    def n_filled(self) -> int:
        """Rows that have a value here, of those that are no lists."""
        return sum(self.kinds.values()) - self.n_empty - self.kinds["list"]

    @property
    def n_values(self) -> int:
        """Different values; at least so many, where they are too many to count."""
        return _DISTINCT + 1 if self.counts is None else len(self.counts)

    @property
    def is_lists(self) -> bool:
        return self.kinds["list"] > self.n_filled

    @property
    def mean_chars(self) -> float:
        return self.n_chars / max(1, self.n_filled)

    @property
    def mean_words(self) -> float:
        return (self.n_blanks + self.n_filled) / max(1, self.n_filled)

    @property
    def is_prose(self) -> bool:
        """Do most values have several words, or letters of a script that may not part them?"""
        return self.n_spaced + self.n_wide > self.n_filled / 2 and not self.numbers.are_most


class Survey(NamedTuple):
    """What rows hold."""

    n_rows: int  # that could be read
    n_bad: int
    first_bad: BadRow | None
    columns: dict[str, Column]
    sample: list[dict[str, Value]]  # rows drawn from all, in order, their texts clipped
    names: Columns  # as the first row has them

    def key_of(self, wanted: str, source: str) -> str:
        """The column of a name, or of a number from 1.

        Raises: DataError that names the nearest column there is.
        """
        if wanted in self.columns:
            return wanted
        if fault := self.names.fault(wanted):
            raise DataError(f"{source}: {fault}")
        return _key(self.names, self.names.indices[wanted])

    @property
    def n_compared(self) -> int:
        """Rows, from the first, that are compared for equality."""
        return min((len(column.hashes) for column in self.columns.values()), default=0)

    def n_distinct(self, *keys: str) -> int:
        """How many of the rows that are compared differ in these columns."""
        return len(np.unique(self.hashes(*keys)))

    def hashes(self, *keys: str) -> "np.ndarray[Any, np.dtype[np.uint64]]":
        """Of what the compared rows hold in these columns together: equal for equal rows."""
        found = np.zeros(self.n_compared, dtype=np.uint64)
        for key in keys:
            column = np.frombuffer(self.columns[key].hashes, dtype=np.uint64)
            found = found * np.uint64(0x9E3779B97F4A7C15) + column
        return found


def survey(rows: Iterable[Row | BadRow]) -> Survey:
    """Look at all rows, holding a sample."""
    return _Surveyor().look(rows)


def as_number(name: str) -> float | None:
    """The finite number that a text is, if it is one."""
    if not _NUMBER.match(name):
        return None
    try:
        number = float(name)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class _Surveyor:
    """A pass over rows."""

    def __init__(self) -> None:
        self.columns: dict[str, Column] = {}
        self.plans: dict[Columns, list[tuple[Column, int | None]]] = {}
        self.n_rows = self.n_bad = self.n_cells = 0
        self.first_bad: BadRow | None = None
        self.sample: list[tuple[int, dict[str, Value]]] = []
        self.names: Columns | None = None
        self.random = random.Random(0)

    def look(self, rows: Iterable[Row | BadRow]) -> Survey:
        for row in rows:
            if isinstance(row, BadRow):
                self.n_bad += 1
                self.first_bad = self.first_bad or row
                continue
            assert isinstance(row.values, Cells)  # as every reader gives them
            self._add(row.values)
        self.sample.sort(key=lambda item: item[0])
        return Survey(
            self.n_rows,
            self.n_bad,
            self.first_bad,
            self.columns,
            [values for _, values in self.sample],
            self.names or Columns(None, 0),
        )

    def _add(self, cells: Cells) -> None:
        self.names = self.names or cells.columns
        plan = self.plans.get(cells.columns) or self._plan(cells.columns)
        compare = self.n_cells <= _COMPARED
        self.n_cells += len(plan)
        values = [None if index is None else cells.values_in_order[index] for _, index in plan]
        for (column, _), value in zip(plan, values, strict=True):
            column.add(value, compare=compare)
        place = self.n_rows
        self.n_rows += 1
        if place >= SAMPLE_ROWS:  # each row has one chance, whatever the order of the file
            place = self.random.randrange(self.n_rows)
        if place < SAMPLE_ROWS:
            clipped = {
                column.key: _clipped(value) for (column, _), value in zip(plan, values, strict=True)
            }
            self.sample[place : place + 1] = [(self.n_rows, clipped)]

    def _plan(self, names: Columns) -> list[tuple[Column, int | None]]:
        """Where in rows with these columns each column known so far stands."""
        keys = {_key(names, index): index for index in range(names.count)}
        for key in keys:
            if key not in self.columns and len(self.columns) < _COLUMNS:
                self.columns[key] = self._column(key)
                self.plans.clear()
        if len(self.plans) > _COLUMNS:
            self.plans.clear()
        self.plans[names] = [(column, keys.get(key)) for key, column in self.columns.items()]
        return self.plans[names]

    def _column(self, key: str) -> Column:
        """A column that the rows so far do not have."""
        column = Column(key, len(self.columns))
        column.n_empty = column.kinds["NoneType"] = self.n_rows
        others = next(iter(self.columns.values()), None)
        column.hashes = array("q", bytes(8 * len(others.hashes) if others else 0))
        return column


def _key(names: Columns, index: int) -> str:
    """The name of a column in a run file; a number where it has no name of its own."""
    return names.keys[index] if names.keys[index].strip() else str(index + 1)


def _clipped(value: Value) -> Value:
    return value[:_TEXT_CHARS] if isinstance(value, str | list) else value
