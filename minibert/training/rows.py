"""Labelled rows, read from files or from Python, with their places; bad ones among them, told.

Rows are yielded as they are read, so that files larger than the memory can be.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from minibert.errors import DataError
from minibert.lines import MAX_CHARS, Lines, TableRow, listed, nearest, table_rows
from minibert.training.data_files import DataFile, find_files, opener
from minibert.training.dialect import Dialect

Value: TypeAlias = Any  # what JSON has: str, int, float, bool, None, lists and dicts of them
Source: TypeAlias = str | Path | Iterable[str | Path] | Iterable[Mapping[str, Value]]


class Place(NamedTuple):
    """Where a row stands; of rows made in Python, `file` is "row 7"."""

    file: str
    line: int | None = None  # that it begins on, counted from 1; None where the whole file is one

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}: line {self.line}"


class BadRow(NamedTuple):
    """A row that cannot be read: `kind` is for counting, `message` goes on where `place` ends."""

    place: Place
    kind: str
    message: str
    raw: str  # as it stands in the file, as far as it could be decoded


class Row(NamedTuple):
    """A row: its values by name of column, and by number from 1, as "1"."""

    values: Mapping[str, Value]
    place: Place

    def value(self, column: str | int) -> Value:
        """The value in a column.

        Raises: DataError that names the nearest column there is.
        """
        try:
            return self.values[str(column)]
        except KeyError:
            values = self.values
            columns = values.columns if isinstance(values, Cells) else _columns_of(tuple(values))
            raise DataError(f"{self.place}: {columns.fault(str(column))}") from None


class Columns:
    """The columns of rows: their names, where they have any, and their numbers from 1.

    A name goes before a number. A name that several columns have finds none of them.
    """

    def __init__(self, names: Sequence[str] | None, count: int) -> None:
        self.names = names
        self.count = count
        numbers = [str(number + 1) for number in range(count)]
        times = Counter(names)
        self.keys: tuple[str, ...] = tuple(
            name if times[name] == 1 else number
            for name, number in zip(names or numbers, numbers, strict=True)
        )
        self.indices = {number: index for index, number in enumerate(numbers)}
        self.indices.update({key: index for index, key in enumerate(self.keys) if names})

    def fault(self, wanted: str) -> str:
        """Why `wanted` is no column here and what may have been meant; "" where it is one."""
        if wanted in self.indices:
            return ""
        if self.names is None:
            return (
                f"has no column {wanted!r}, for it has no names of columns; choose by number from "
                f"1 to {self.count}"
            )
        if wanted in self.names:
            return (
                f"has {self.names.count(wanted)} columns {wanted!r}; choose one by its number, for "
                f"example {self.names.index(wanted) + 1}"
            )
        meant = nearest(wanted, self.names)
        return (
            f"has no column {wanted!r}{f', perhaps {meant!r}' if meant else ''}; it has "
            f"{listed(self.names)}, numbered from 1"
        )


class Cells(Mapping[str, Value]):
    """The values of a row, found by the names and numbers of `columns`."""

    __slots__ = ("columns", "values_in_order")

    def __init__(self, values: Sequence[Value], columns: Columns) -> None:
        self.values_in_order = values
        self.columns = columns

    def __getitem__(self, key: str) -> Value:
        return self.values_in_order[self.columns.indices[key]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns.keys)

    def __len__(self) -> int:
        return self.columns.count

    def __repr__(self) -> str:
        return repr(dict(self))


def read_rows(
    source: Source,
    dialect: Dialect | None = None,
    *,
    wanted: Sequence[str | int] = (),
    limit: int | None = None,
) -> Iterator[Row | BadRow]:
    """Yield the rows of a source, the bad ones as `BadRow`, holding one at a time.

    csv, tsv: a row each, with the columns of the header, or numbered; an empty line is none.
    jsonl: an object a line; a list has numbered columns, a string is the column "text".
    conll: sentences, separated by empty lines, of a token a line: "tokens" has the first column,
        "tags" the last, each other its number. Comments ("# …") and -DOCSTART- lines are no tokens.
    txt: a "text" a line, and the number of its "document": empty lines separate documents.
    folders: a "text" a file, with the name of the folder as its "label", and its "name".

    Args:
        source: files, as `find_files` has them, or mappings made in Python.
        dialect: how files are written; None is `Dialect()`.
        wanted: columns that have to be there, by name or by number from 1.
        limit: how many rows to read at most, bad ones included.

    Raises: DataError for what no reading on can make good: a file that is absent, empty where it
        should have a header, in UTF-16 where not so declared, without a wanted column, or damaged.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}, expected 1 or more rows")
    names = tuple(str(each) for each in wanted)
    paths = _paths(source)
    if paths is None:
        rows = _python_rows(source, names)
    else:
        rows = _file_rows(paths, dialect or Dialect(), names)
    return itertools.islice(rows, limit)


def fingerprint(rows: Iterable[Row]) -> str:
    """The SHA-256 of the rows' columns and values in order, wherever they stand."""
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps([list(row.values), list(row.values.values())], default=repr)
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _paths(source: Any) -> list[str | Path] | None:
    """The paths of a source that is in files."""
    if isinstance(source, str | Path):
        return [source]
    if isinstance(source, Mapping):
        raise TypeError("rows are a mapping, expected a list of mappings, one a row")
    if isinstance(source, list | tuple) and source:
        return list(source) if all(isinstance(each, str | Path) for each in source) else None
    return None


def _python_rows(source: Any, wanted: Sequence[str]) -> Iterator[Row | BadRow]:
    for number, row in enumerate(source, start=1):
        if not isinstance(row, Mapping) or not all(isinstance(key, str) for key in row):
            raise TypeError(
                f"row {number} is {type(row).__name__} {str(row)[:40]!r}, expected a mapping from "
                'names of columns to values; of a table of pandas, give .to_dict("records")'
            )
        cells = Cells(list(row.values()), _columns_of(tuple(row)))
        yield _free_row(cells, Place(f"row {number}"), wanted, raw=None)


def _file_rows(
    paths: list[str | Path], dialect: Dialect, wanted: Sequence[str]
) -> Iterator[Row | BadRow]:
    files = find_files(paths, folders=dialect.format == "folders")
    dialects = [dialect.completed(file.file_name) for file in files]  # before any is read
    return _rows_of(list(zip(files, dialects, strict=True)), wanted)


def _rows_of(
    files: list[tuple[DataFile, Dialect]], wanted: Sequence[str]
) -> Iterator[Row | BadRow]:
    documents = itertools.count(1)
    with opener() as open_file:
        for file, dialect in files:
            with open_file(file) as (stream, size):
                lines = Lines(stream, file.name, size, encoding=dialect.encoding)
                reading = _Reading(file, dialect, lines, wanted, documents)
                yield from _READERS[dialect.format or ""](reading)


@dataclass
class _Reading:
    """A file that is being read."""

    file: DataFile
    dialect: Dialect
    source: Lines
    wanted: Sequence[str]
    documents: Iterator[int]
    faults: dict[int, tuple[str, str]] = field(default_factory=dict)  # of lines: kind and message

    def lines(self) -> Iterator[str]:
        """The decoded lines; `faults` has those with characters that no text has."""
        for line in self.source:
            fault = self.source.fault
            if fault is not None and fault.is_utf16:
                raise DataError(
                    f'{self.file.name}: begins with the mark of UTF-16; set encoding = "utf-16"'
                )
            if fault is not None:
                self.faults[fault.line] = (
                    "encoding",
                    f'{fault}; set encoding, perhaps to "cp1252"'
                    if fault.encoding == "utf-8"
                    else str(fault),
                )
            elif (wrong := _wrong_characters(line)) is not None:
                self.faults[self.source.number] = wrong
            yield line

    def place(self, line: int) -> Place:
        return Place(self.file.name, line)

    def bad(self, lines: list[str], line: int, kind: str, message: str) -> BadRow:
        return BadRow(self.place(line), kind, message, "".join(lines).rstrip("\r\n"))

    def faulty(self, lines: list[str], line: int) -> BadRow | None:
        """The bad row that these lines are, if any of them has a fault."""
        if not self.faults:
            return None
        found = [self.faults.pop(line + n, None) for n in range(len(lines))]
        faults = [fault for fault in found if fault is not None]
        return self.bad(lines, line, *faults[0]) if faults else None


def _table(reading: _Reading) -> Iterator[Row | BadRow]:
    dialect, columns, count, why = reading.dialect, None, reading.dialect.columns, "as set"
    has_header = dialect.header
    for row in _split_rows(reading):
        if not row.cells and not row.error:
            continue
        bad = reading.faulty(row.lines, row.line)
        if bad is None and row.error:
            bad = reading.bad(row.lines, row.line, *_misquoted(row.error))
        if bad is not None and has_header:
            raise DataError(f"{bad.place}, the header: {bad.message}")
        if bad is not None:
            yield bad
            continue
        if count is None:
            count = len(row.cells)
            why = f"as in the {'header' if has_header else f'first row, line {row.line}'}"
        n_cells = len(row.cells)
        if n_cells < count or (n_cells > count and dialect.extra_columns == "error"):
            message = f"has {n_cells} column{'s' * (n_cells != 1)}, expected {count} {why}"
            if has_header:
                raise DataError(f"{reading.place(row.line)}, the header, {message}")
            yield reading.bad(row.lines, row.line, "columns", message)
            continue
        cells = row.cells[:count]
        if columns is None:
            columns = Columns(cells if has_header else None, count)
            _refuse_absent(columns, reading)
            if has_header:
                has_header = False
                continue
        yield Row(Cells(cells, columns), reading.place(row.line))
    if has_header:
        raise DataError(f"{reading.file.name}: is empty, expected a header that names the columns")


def _misquoted(error: str) -> tuple[str, str]:
    """The kind and the message of what the csv module refuses."""
    if "new-line" in error:
        return "line end", (
            "has a carriage return outside quotation marks, expected line ends \\n or \\r\\n; "
            "convert the file, for example with tr '\\r' '\\n'"
        )
    return "quotation", (
        f"its quotation marks are wrong ({error}); double those inside a quoted text, or set "
        "quoting = false"
    )


def _refuse_absent(columns: Columns, reading: _Reading) -> None:
    delimiter = reading.dialect.delimiter
    lone = columns.count == 1 and delimiter is not None
    asked = f"; is {delimiter!r} what its columns are split at?" if lone else ""
    for wanted in reading.wanted:
        if fault := columns.fault(wanted):
            raise DataError(f"{reading.file.name}: {fault}{asked}")


def _split_rows(reading: _Reading) -> Iterator[TableRow]:
    dialect = reading.dialect
    assert dialect.delimiter is not None
    if dialect.quoting:
        yield from table_rows(reading.lines(), dialect.delimiter)
        return
    at_most = -1
    if dialect.extra_columns == "join" and dialect.columns is not None:
        at_most = dialect.columns - 1
    for number, line in enumerate(reading.lines(), start=1):
        text = line.removesuffix("\n").removesuffix("\r")
        cells = text.split(dialect.delimiter, at_most) if text else []
        yield TableRow(cells, number, [line])


def _json_lines(reading: _Reading) -> Iterator[Row | BadRow]:
    for number, line in enumerate(reading.lines(), start=1):
        if (bad := reading.faulty([line], number)) is not None:
            yield bad
            continue
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            said = str(error)
            if isinstance(error, json.JSONDecodeError):
                said = f"{error.msg} at character {error.pos + 1}"
            yield reading.bad([line], number, "JSON", f"is not JSON: {said}")
            continue
        if isinstance(value, str):
            value = {"text": value}
        if isinstance(value, dict):
            cells = Cells(list(value.values()), _columns_of(tuple(value)))
        elif isinstance(value, list):
            cells = Cells(value, _numbered(len(value)))
        else:
            message = f'is {json.dumps(value)[:40]}, expected an object, such as {{"text": "…"}}'
            yield reading.bad([line], number, "JSON", message)
            continue
        yield _free_row(cells, reading.place(number), reading.wanted, raw=line)


def _free_row(
    cells: Cells, place: Place, wanted: Sequence[str], *, raw: str | None
) -> Row | BadRow:
    """A row that has its columns to itself, if its texts and columns are right."""
    for value in cells.values_in_order:
        wrong = _wrong_characters(value)
        if wrong is not None:
            return BadRow(place, *wrong, repr(cells) if raw is None else raw.rstrip("\r\n"))
    for each in wanted:
        if fault := cells.columns.fault(each):
            text = repr(cells) if raw is None else raw.rstrip("\r\n")
            return BadRow(place, "missing column", fault, text)
    return Row(cells, place)


def _wrong_characters(value: Value) -> tuple[str, str] | None:
    """The kind and the message of characters that a text should not have."""
    if isinstance(value, str):
        if "\0" in value:
            return "NUL", (
                f"has a NUL at character {value.index(chr(0)) + 1}; the file is torn, or in UTF-16"
            )
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                return "surrogate", (
                    f"has the lone surrogate {value[error.start]!a}, half of a character; mend the "
                    "program that wrote it"
                )
    elif isinstance(value, dict):
        return _wrong_characters(list(value.values()))
    elif isinstance(value, list | tuple):
        return next((wrong for each in value if (wrong := _wrong_characters(each))), None)
    return None


class _Sentence:
    """The lines of a sentence as they come."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.lines: list[str] = []
        self.tokens: list[list[str]] = []
        self.fault: tuple[str, str] | None = None


def _conll(reading: _Reading) -> Iterator[Row | BadRow]:
    dialect, count, sentence = reading.dialect, reading.dialect.columns, None
    columns = None
    for number, line in enumerate(itertools.chain(reading.lines(), [""]), start=1):
        if not line.strip():
            if sentence is None:
                continue
            if sentence.fault is not None:
                yield reading.bad(sentence.lines, sentence.line, *sentence.fault)
            else:
                values = [list(column) for column in zip(*sentence.tokens, strict=True)]
                if columns is None:
                    middle = [str(index) for index in range(2, len(values))]
                    columns = Columns(["tokens", *middle, "tags"], len(values))
                    _refuse_absent(columns, reading)
                yield Row(Cells(values, columns), reading.place(sentence.line))
            sentence = None
            continue
        cells = _token(line, dialect.delimiter)
        if cells[0] == "-DOCSTART-" or (line.startswith("# ") and len(cells) != count):
            continue
        if sentence is None:
            sentence = _Sentence(number)
        sentence.lines.append(line)
        n_cells = len(cells)
        if dialect.extra_columns == "ignore" and count is not None:
            cells = cells[:count]
        if count is None and n_cells > 1:
            count = n_cells
        if number in reading.faults:
            sentence.fault = sentence.fault or reading.faults.pop(number)
        elif len(cells) != count:
            expected = "2 or more" if count is None else str(count)
            sentence.fault = sentence.fault or (
                "columns",
                f"line {number} has {n_cells} column{'s' * (n_cells != 1)}, expected {expected}",
            )
        elif not all(cells):
            sentence.fault = sentence.fault or (
                "columns",
                f"line {number} has nothing in column {cells.index('') + 1}",
            )
        else:
            sentence.tokens.append(cells)


def _token(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None and "\t" in line:
        delimiter = "\t"
    return [cell.strip() for cell in line.rstrip("\r\n").split(delimiter)]


def _text_lines(reading: _Reading) -> Iterator[Row | BadRow]:
    _refuse_absent(_LINE, reading)
    document = None
    for number, line in enumerate(reading.lines(), start=1):
        bad = reading.faulty([line], number)
        if bad is not None:
            yield bad
        elif not line.strip():
            document = None
        else:
            document = next(reading.documents) if document is None else document
            text = line.removesuffix("\n").removesuffix("\r")
            yield Row(Cells([text, document], _LINE), reading.place(number))


def _whole_file(reading: _Reading) -> Iterator[Row | BadRow]:
    place = Place(reading.file.name)
    parts: list[str] = []
    n_chars = 0
    for line in reading.lines():
        parts.append(line)
        n_chars += len(line)
        if reading.faults:
            kind, message = reading.faults[reading.source.number]
            yield BadRow(place, kind, message, line.rstrip("\r\n"))
            return
        if n_chars > MAX_CHARS:
            yield BadRow(place, "length", f"is longer than {MAX_CHARS:,} characters", "")
            return
    file = reading.file
    _refuse_absent(_DOCUMENT, reading)
    yield Row(Cells(["".join(parts), file.folder_name, file.file_name], _DOCUMENT), place)


@lru_cache(maxsize=256)
def _columns_of(names: tuple[str, ...]) -> Columns:
    return Columns(names, len(names))


@lru_cache(maxsize=256)
def _numbered(count: int) -> Columns:
    return Columns(None, count)


_LINE = Columns(("text", "document"), 2)
_DOCUMENT = Columns(("text", "label", "name"), 3)
_READERS = {
    "csv": _table,
    "tsv": _table,
    "jsonl": _json_lines,
    "conll": _conll,
    "txt": _text_lines,
    "folders": _whole_file,
}
