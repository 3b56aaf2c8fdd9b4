"""Files of texts, read one text at a time: lines, JSON Lines, CSV and TSV, in UTF-8."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from minibert.errors import DataError
from minibert.lines import STDIN, Lines, TableRow, listed, opened, table_rows, unreadable

FORMATS = ("txt", "jsonl", "csv", "tsv")

_SUFFIXES = {".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_DEFAULT_FIELD = "text"


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
        raise unreadable(source, error) from None
    return about.st_size if stat.S_ISREG(about.st_mode) else None


def read_texts(
    source: str | Path,
    *,
    format: str | None = None,
    field: str | None = None,
    encoding: str = "utf-8",
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
        encoding: any of Python's encodings of text.

    Raises: DataError, with the file and the line or the byte, for what cannot be read as text.
    """
    format = format_of(source, format)
    if format == "txt" and field is not None:
        raise DataError(f"{source}: txt has no field {field!r}; leave --field out, or --format csv")
    with opened(source) as (file, size):
        lines = Lines(file, _name(source), size, encoding=encoding)
        if format == "txt":
            for line in _decoded(lines):
                yield SourceText(line.removesuffix("\n").removesuffix("\r"), *lines.place)
        elif format == "jsonl":
            for line in _decoded(lines):
                text = _json_text(line, _DEFAULT_FIELD if field is None else field, lines)
                yield SourceText(text, *lines.place)
        else:
            yield from _column_texts(lines, _DELIMITERS[format], field)


def _decoded(lines: Lines) -> Iterator[str]:
    """The lines, refusing the first that is not UTF-8."""
    for line in lines:
        if lines.fault is not None:
            raise DataError(
                f"{lines.name}: {lines.fault}; convert the file, for example with "
                f"iconv -f {'UTF-16' if lines.fault.is_utf16 else 'LATIN1'} -t UTF-8"
            )
        yield line


def _name(source: str | Path) -> str:
    return "standard input" if str(source) == STDIN else str(source)


def _json_text(line: str, field: str, lines: Lines) -> str:
    where = f"{lines.name}: line {lines.number}"
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        got = str(error) if line.strip() else "it is empty"
        raise DataError(f"{where} is not JSON: {got}; expected a string or an object") from None
    if isinstance(value, dict):
        if field not in value:
            raise DataError(
                f"{where} has no field {field!r}, only {listed(value)}; choose one with --field"
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


def _column_texts(lines: Lines, delimiter: str, field: str | None) -> Iterator[SourceText]:
    rows = _rows(lines, delimiter)
    header = next(rows, TableRow([], 0, [])).cells
    column = _column(header, field, lines.name)
    for row in rows:
        if len(row.cells) != len(header):
            raise DataError(
                f"{lines.name}: line {row.line} has {len(row.cells)} columns, expected "
                f"{len(header)} as in the header; quote a text that holds the delimiter, and drop "
                "empty lines"
            )
        yield SourceText(row.cells[column], row.line, lines.bytes_read)


def _rows(lines: Lines, delimiter: str) -> Iterator[TableRow]:
    for row in table_rows(_decoded(lines), delimiter):
        if row.error:
            raise DataError(
                f"{lines.name}: line {row.line} is no row of the table: {row.error}; expected "
                'quotation marks in pairs, those inside a quoted text doubled ("")'
            )
        yield row


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
            f"{name}: has no column {wanted!r}, only {listed(header)}; choose one with --field, "
            "by its name or by its number from 1"
        )
    if len(found) > 1:
        raise DataError(
            f"{name}: the header has {wanted!r} {len(found)} times, expected once; choose by "
            f"number, for example --field {found[0] + 1}"
        )
    return found[0]
