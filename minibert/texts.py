"""Files of texts, read one text at a time: lines, JSON Lines, CSV and TSV, in UTF-8.

Of a file, what it holds when it is opened is read and no more: one that grows meanwhile ends there.
"""

import codecs
import csv
import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from minibert.errors import DataError

STDIN = "-"
FORMATS = ("txt", "jsonl", "csv", "tsv")

_SUFFIXES = {".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_DEFAULT_FIELD = "text"

# A quotation mark that is never closed takes the rest of the file into one field: stop before it
# takes the memory too.
_FIELD_CHARS = 1 << 28


@runtime_checkable
class _Stream(Protocol):
    """What is asked of an open file."""

    def readline(self, size: int = -1, /) -> bytes: ...


class SourceText(NamedTuple):
    """A text, and where it stands."""

    text: str
    line: int  # the line that it begins on, counted from 1
    bytes_read: int  # of the file, up to its end


def format_of(source: str | Path, format: str | None = None) -> str:
    """The format to read `source` in: the one given, else by its suffix; of standard input txt.

    Raises: DataError for a suffix or a format that is not known here.
    """
    name = str(source)
    known = "txt" if name == STDIN else _SUFFIXES.get(Path(name).suffix.lower())
    chosen = known if format is None else format
    if chosen not in FORMATS:
        got = f"has the suffix {Path(name).suffix!r}" if format is None else f"format is {format!r}"
        raise DataError(f"{name}: {got}, expected one of {', '.join(FORMATS)}; give --format")
    return chosen


def size_bytes(source: str | Path) -> int | None:
    """The size of a file; None for what has none to say: standard input, a pipe.

    Raises: DataError for a file that is absent.
    """
    if str(source) == STDIN:
        return None
    try:
        about = Path(source).stat()  # not opened: of a pipe that would wait for its writer
    except OSError as error:
        raise _unreadable(source, error) from None
    return about.st_size if stat.S_ISREG(about.st_mode) else None


def read_texts(
    source: str | Path, *, format: str | None = None, field: str | None = None
) -> Iterator[SourceText]:
    r"""Yield the texts of a file in order, holding one at a time.

    txt: each line is a text, an empty line the text "". A line ends with \n or \r\n.
    jsonl: each line is a string, or an object whose `field` is one.
    csv, tsv: quoted as the csv module does, strictly; the first row names the columns.

    Args:
        source: a file, or "-" for standard input.
        format: one of `FORMATS`; None goes by the suffix.
        field: which field of an object, or which column: by its name, or by its number from 1. None
            takes "text"; of a table with one column, that one.

    Raises: DataError, with the file and the line or the byte, for what cannot be read as text.
    """
    format = format_of(source, format)
    if format == "txt" and field is not None:
        raise DataError(f"{source}: txt has no field {field!r}; leave --field out, or --format csv")
    with _opened(source) as (file, size):
        lines = _Lines(file, _name(source), size)
        if format == "txt":
            for line in lines:
                yield SourceText(line.removesuffix("\n").removesuffix("\r"), *lines.place)
        elif format == "jsonl":
            for line in lines:
                text = _json_text(line, _DEFAULT_FIELD if field is None else field, lines)
                yield SourceText(text, *lines.place)
        else:
            yield from _column_texts(lines, _DELIMITERS[format], field)


class _Lines:
    """The decoded lines of a file with their ends, up to the size that it had when opened."""

    def __init__(self, file: _Stream, name: str, size: int | None) -> None:
        self.name = name
        self.number = 0
        self.bytes_read = 0
        self._file = file
        self._size = size

    @property
    def place(self) -> tuple[int, int]:
        return self.number, self.bytes_read

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        left = -1 if self._size is None else self._size - self.bytes_read
        try:
            raw = self._file.readline(left) if left else b""
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read: {error.strerror}") from None
        if not raw:
            if left > 0:
                raise DataError(
                    f"{self.name}: ends at byte {self.bytes_read}, expected {self._size} as when "
                    "it was opened; it was cut short meanwhile, so start again"
                )
            raise StopIteration
        start = self.bytes_read
        self.number += 1
        self.bytes_read += len(raw)
        if self.number == 1 and raw.startswith(codecs.BOM_UTF8):
            start += len(codecs.BOM_UTF8)
            raw = raw.removeprefix(codecs.BOM_UTF8)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            wide = start == 0 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            raise DataError(
                f"{self.name}: byte {start + error.start}, on line {self.number}, is "
                f"0x{raw[error.start]:02x}, expected UTF-8; convert the file, for example with "
                f"iconv -f {'UTF-16' if wide else 'LATIN1'} -t UTF-8"
            ) from None


def _name(source: str | Path) -> str:
    return "standard input" if str(source) == STDIN else str(source)


def _unreadable(source: str | Path, error: OSError) -> DataError:
    return DataError(
        f"{source}: cannot be read: {error.strerror}; give a file of texts, or - for standard input"
    )


@contextmanager
def _opened(source: str | Path) -> Iterator[tuple[_Stream, int | None]]:
    """A source open for reading, and its size where it has one."""
    if str(source) == STDIN:
        yield sys.stdin.buffer, None
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115 - closed below, and errors of opening apart
    except OSError as error:
        raise _unreadable(source, error) from None
    with file:
        about = os.fstat(file.fileno())
        yield file, about.st_size if stat.S_ISREG(about.st_mode) else None


def _json_text(line: str, field: str, lines: _Lines) -> str:
    where = f"{lines.name}: line {lines.number}"
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        got = str(error) if line.strip() else "it is empty"
        raise DataError(f"{where} is not JSON: {got}; expected a string or an object") from None
    if isinstance(value, dict):
        if field not in value:
            raise DataError(
                f"{where} has no field {field!r}, only {_listed(value)}; choose one with --field"
            )
        value = value[field]
    if not isinstance(value, str):
        raise DataError(
            f"{where}: got {type(value).__name__} {json.dumps(value)[:40]}, expected a string, or "
            f"an object whose {field!r} is one"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} has the lone surrogate {value[error.start]!a}, half of a character, expected "
            "valid Unicode; mend the program that wrote it"
        ) from None
    return value


def _column_texts(lines: _Lines, delimiter: str, field: str | None) -> Iterator[SourceText]:
    rows = _rows(lines, delimiter)
    header, _ = next(rows, ([], 0))
    column = _column(header, field, lines.name)
    for row, line in rows:
        if len(row) != len(header):
            raise DataError(
                f"{lines.name}: line {line} has {len(row)} columns, expected {len(header)} as in "
                "the header; quote a text that holds the delimiter, and drop empty lines"
            )
        yield SourceText(row[column], line, lines.bytes_read)


def _rows(lines: _Lines, delimiter: str) -> Iterator[tuple[list[str], int]]:
    """The rows of a table, each with the line that it begins on."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = lines.number + 1
        limit = csv.field_size_limit(_FIELD_CHARS)  # of the whole process, so put back at once
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{lines.name}: line {line} is no row of the table: {error}; expected quotation "
                'marks in pairs, those inside a quoted text doubled ("")'
            ) from None
        finally:
            csv.field_size_limit(limit)
        yield row, line


def _column(header: list[str], field: str | None, name: str) -> int:
    """The column that `field` names, or says the number of, counted from 0."""
    if not header:
        raise DataError(f"{name}: is empty, expected a header that names the columns")
    wanted = field
    if wanted is None:
        wanted = header[0] if len(header) == 1 else _DEFAULT_FIELD
    found = [index for index, column in enumerate(header) if column == wanted]
    if not found and wanted.isdecimal() and 1 <= int(wanted) <= len(header):
        return int(wanted) - 1
    if not found:
        raise DataError(
            f"{name}: has no column {wanted!r}, only {_listed(header)}; choose one with --field, "
            "by its name or by its number from 1"
        )
    if len(found) > 1:
        raise DataError(
            f"{name}: the header has {wanted!r} {len(found)} times, expected once; choose by "
            f"number, for example --field {found[0] + 1}"
        )
    return found[0]


def _listed(names: list[str] | dict[str, object]) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:8])
    return f"{shown}, …" if len(names) > 8 else shown or "none"
