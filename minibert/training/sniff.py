"""Looking at a file of rows to propose how it is to be read, and why."""

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from minibert.errors import DataError
from minibert.lines import Lines
from minibert.training.data_files import DataFile, OpenFile, find_files, opener
from minibert.training.dialect import Dialect, format_of

# How much of a file is looked at for its columns; for its encoding, all of it.
_LINES = 20_000
_CHARS = 1 << 24

_DELIMITERS = ("\t", ";", ",", "|")
_SPOKEN = {"\t": "a tab", ";": "a semicolon", ",": "a comma", "|": "a bar", " ": "a blank"}
_TAG = re.compile(r"O|[BIESLUM]-\S+")
_NAMES = re.compile(
    r"(id|idx|index|text|texts|sentence|review|comment|content|message|title|body|question|answer|"
    r"premise|hypothesis|label|labels|class|category|target|score|rating|sentiment|tag|tags|split|"
    r"date|author|name|subject|language|lang)[ _-]?\d*",
    re.IGNORECASE,
)
_MARKS = {
    b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


class Sniffed(NamedTuple):
    """A proposal, and what speaks for it, a sentence each."""

    dialect: Dialect
    evidence: list[str]


class _Table(NamedTuple):
    """A way to read lines as a table."""

    delimiter: str
    quoting: bool
    columns: int
    share: float  # of the rows that have so many columns
    more: int  # rows with more than that
    rows: list[list[str]]


def sniff(source: str | Path | list[str]) -> Sniffed:
    """Propose how to read a file, or files that are alike; a folder or an archive of texts too.

    Every setting is proposed; what it rests on is said.  Everything is read once for its encoding,
    for the rest a part of the first file.

    Raises: DataError for a file that is absent, empty, or holds bytes that are no text.
    """
    files = find_files(source, folders=True)
    if not files:
        raise DataError(f"{source}: has no files, expected some to look at")
    paths = [Path(each) for each in ([source] if isinstance(source, str | Path) else source)]
    with opener() as open_file:
        encoding, evidence = _encoding(files, open_file)
        if _are_texts(paths, files):
            folders = sorted({file.folder_name for file in files})
            shown = ", ".join(repr(folder) for folder in folders[:5])
            several = f"{len(folders)} folders ({shown}), the labels"
            place = several if len(folders) > 1 else f"one folder ({shown}), which is no label"
            said = f"{len(files):,} files in {place}."
            return Sniffed(Dialect("folders", encoding=encoding), [*evidence, said])
        with open_file(files[0]) as (stream, size):
            lines = Lines(stream, files[0].name, size, encoding=encoding)
            sample = _Sample.of(lines)
    _refuse_what_is_no_rows(sample, files[0].name)
    dialect, reasons = _shape(sample, encoding)
    return Sniffed(dialect, [*evidence, *reasons])


def _are_texts(paths: list[Path], files: list[DataFile]) -> bool:
    """Is each file a text of its own? Files of rows say so by their suffix."""
    if all(format_of(file.file_name) not in (None, "txt") for file in files):
        return False
    return any(path.is_dir() for path in paths) or (bool(files[0].member) and len(files) > 1)


class _Sample(NamedTuple):
    """The first lines of a file, without their ends."""

    lines: list[str]
    full: list[str]  # those that are not empty
    is_whole: bool

    @staticmethod
    def of(lines: Lines) -> "_Sample":
        sample: list[str] = []
        n_chars = 0
        for line in lines:
            if len(sample) >= _LINES or n_chars >= _CHARS:
                return _Sample(sample, [line for line in sample if line.strip()], False)
            sample.append(line.removesuffix("\n").removesuffix("\r"))
            n_chars += len(line)
        return _Sample(sample, [line for line in sample if line.strip()], True)


def _refuse_what_is_no_rows(sample: _Sample, name: str) -> None:
    if not sample.full:
        raise DataError(f"{name}: is empty, expected rows to look at")
    if any("\0" in line for line in sample.lines):
        raise DataError(
            f"{name}: holds NUL bytes, expected text; of a spreadsheet, save a table as CSV"
        )
    if len(sample.lines) == 1 and "\r" in sample.lines[0]:
        raise DataError(
            f"{name}: its lines end with carriage returns alone, expected line feeds; convert it, "
            "for example with tr '\\r' '\\n'"
        )
    if sample.full[0].lstrip().startswith("[") and name.lower().endswith(".json"):
        raise DataError(
            f"{name}: is one JSON list, expected an object a line; convert it, for example with "
            "jq -c '.[]'"
        )


def _encoding(files: list[DataFile], open_file: OpenFile) -> tuple[str, list[str]]:
    """The encoding that all bytes fit."""
    high = set()
    first = ""
    for file in files:
        with open_file(file) as (stream, _):
            head = stream.readline(1 << 16)
            for mark, encoding in _MARKS.items():
                if head.startswith(mark):
                    return encoding, [f"It begins with the byte order mark of {encoding.upper()}."]
            if len(head) > 3 and 0 in head:
                zeros = [head[start::2].count(0) / len(head[start::2]) for start in (0, 1)]
                if max(zeros) > 0.4 and min(zeros) < 0.1:
                    encoding = "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
                    return encoding, [f"Every other byte is 0, as in {encoding.upper()}."]
        with open_file(file) as (stream, size):
            lines = Lines(stream, file.name, size, encoding="latin-1")
            for line in lines:
                if line.isascii():
                    continue
                raw = line.encode("latin-1")
                try:
                    raw.decode()
                except UnicodeDecodeError as error:
                    offset = lines.bytes_read - len(raw) + error.start
                    first = first or (
                        f"Byte {offset:,}, on line {lines.number:,}, is 0x{raw[error.start]:02x}, "
                        "which is no UTF-8"
                    )
                    high |= {byte for byte in raw if byte > 127}
    if not first:
        return "utf-8", ["All bytes are UTF-8."]
    windows = any(0x80 <= byte < 0xA0 for byte in high)
    windows = windows and not high & {0x81, 0x8D, 0x8F, 0x90, 0x9D}
    return ("cp1252" if windows else "latin-1"), [
        f"{first}; {'CP1252 (Windows)' if windows else 'LATIN-1'} has a character for every byte."
    ]


def _shape(sample: _Sample, encoding: str) -> tuple[Dialect, list[str]]:
    if all(_is_json_object(line) for line in sample.full[:100]):
        return Dialect("jsonl", encoding=encoding), ["Every line is an object in JSON."]
    return (
        _conll(sample, encoding)
        or _table(sample, encoding)
        or _labelled_lines(sample.full, encoding)
        or _plain(sample, encoding)
    )


def _is_json_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _conll(sample: _Sample, encoding: str) -> tuple[Dialect, list[str]] | None:
    tokens = [line for line in sample.full if not line.startswith(("# ", "-DOCSTART-"))]
    if not tokens or len(sample.full) == len(sample.lines):
        return None
    rows = [line.split("\t" if "\t" in line else None) for line in tokens]
    (columns, n_rows) = Counter(len(row) for row in rows).most_common(1)[0]
    n_tags = sum(bool(_TAG.fullmatch(row[-1].strip())) for row in rows)
    if columns < 2 or n_rows < 0.95 * len(rows) or n_tags < 0.95 * len(rows):
        return None
    return Dialect("conll", encoding=encoding, columns=columns), [
        f"Empty lines separate runs of lines with {columns} columns.",
        f"The last column holds tags, such as {_first_tag(rows)!r}.",
    ]


def _first_tag(rows: list[list[str]]) -> str:
    return next((row[-1].strip() for row in rows if row[-1].strip() != "O"), "O")


def _table(sample: _Sample, encoding: str) -> tuple[Dialect, list[str]] | None:
    found = [
        (plain, quoted)
        for delimiter in _DELIMITERS
        if delimiter in sample.full[0]
        for plain in [_read_plain(sample, delimiter)]
        for quoted in [_read_quoted(sample, delimiter)]
        if plain is not None or quoted is not None
    ]
    if not found:
        return None
    plain, quoted = max(
        found, key=lambda pair: max(round(each.share, 2) for each in pair if each is not None)
    )
    best, why = _quotation(plain, quoted)
    header, said = _header(best.rows)
    evidence = [
        f"Split at {_SPOKEN[best.delimiter]}, {best.share:.1%} of {len(best.rows):,} rows have "
        f"{best.columns} columns.",
        why,
        said,
    ]
    if best.more:
        evidence.insert(1, f"{best.more:,} rows have more columns, which are left out.")
    dialect = Dialect(
        "tsv" if best.delimiter == "\t" else "csv",
        encoding=encoding,
        delimiter=best.delimiter,
        quoting=best.quoting,
        header=header,
        columns=best.columns,
        extra_columns="ignore" if best.more else "error",
    )
    return dialect, evidence


def _read_plain(sample: _Sample, delimiter: str) -> _Table | None:
    return _as_table([line.split(delimiter) for line in sample.full], delimiter, quoting=False)


def _read_quoted(sample: _Sample, delimiter: str) -> _Table | None:
    rows: list[list[str]] = []
    lines = (f"{line}\n" for line in sample.lines)
    try:
        for row in csv.reader(lines, delimiter=delimiter, strict=True):
            if row:
                rows.append(row)
    except csv.Error as error:
        if sample.is_whole or "end of data" not in str(error):
            return None
    return _as_table(rows, delimiter, quoting=True)


def _as_table(rows: list[list[str]], delimiter: str, *, quoting: bool) -> _Table | None:
    """The rows as a table, if most have one number of columns and hardly any fewer."""
    counts = Counter(map(len, rows))
    columns, n_rows = counts.most_common(1)[0] if rows else (0, 0)
    if columns < 2:
        return None
    share = n_rows / len(rows)
    none_fewer = min(counts) == columns
    if share < (0.5 if none_fewer else 0.9):
        return None
    return _Table(delimiter, quoting, columns, share, (len(rows) - n_rows) * none_fewer, rows)


def _quotation(plain: _Table | None, quoted: _Table | None) -> tuple[_Table, str]:
    """Whether quotation marks enclose columns, or are part of them."""
    if plain is None or quoted is None:
        found = plain or quoted
        assert found is not None
        if quoted is None:
            return (
                found,
                "Quotation marks do not match as quotation, so they are part of the texts.",
            )
        return found, "Only with quotation marks read as quotation do the columns match."
    words = [cell for row in plain.rows for cell in row if not _is_number(cell)]
    marked = sum(cell.startswith('"') for cell in words)
    if not marked:
        by_habit = plain.delimiter != "\t"
        return plain._replace(quoting=by_habit), "No column begins with a quotation mark."
    enclosed = [i for i in range(plain.columns) if _is_enclosed(plain.rows[1:], i)]
    if enclosed:
        return quoted, f"Every value of column {enclosed[0] + 1} is quoted."
    needed = sum(
        any(each in cell for each in (quoted.delimiter, '"', "\n"))
        for row in quoted.rows
        for cell in row
    )
    if marked < len(words) / 2 and needed < marked / 2:
        return plain, (
            f"{marked:,} columns begin with a quotation mark, most with nothing in them that needs "
            "one, so they are part of the texts."
        )
    return quoted, f"{marked:,} columns are quoted, and every quotation mark is matched."


def _is_enclosed(rows: list[list[str]], column: int) -> bool:
    """Does a quotation mark stand at either end of all values of a column, of two at least?"""
    values = [row[column] for row in rows if len(row) > column and row[column]]
    return len(values) > 1 and all(len(v) > 1 and v[0] == v[-1] == '"' for v in values)


def _header(rows: list[list[str]]) -> tuple[bool, str]:
    """Whether the first row names the columns."""
    first, rest = rows[0], rows[1:]
    if any(_is_number(cell) for cell in first):
        return False, "The first row has a number in a column, so it is no header."
    columns = [[row[index] for row in rest if len(row) > index] for index in range(len(first))]
    for cell, below in zip(first, columns, strict=True):
        if cell in below:
            return False, f"{cell[:40]!r} of the first row stands below it too: no header."
    if len(set(first)) < len(first) or max(map(len, first)) > 60:
        return False, "The first row has long or equal columns, so it is no header."
    for cell, below in zip(first, columns, strict=True):
        if below and all(map(_is_number, below)):
            return True, f"Below {cell!r} there are only numbers: the first row is a header."
        if len(set(below)) <= len(below) / 2:
            return True, f"{cell!r} is none of the {len(set(below))} values below it: a header."
    if any(_NAMES.fullmatch(cell.strip()) for cell in first):
        return True, f"The first row has names that columns have: {', '.join(first)[:60]}."
    return False, "Nothing tells the first row from the others, so it is no header."


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _labelled_lines(full: list[str], encoding: str) -> tuple[Dialect, list[str]] | None:
    """Lines of a label, a blank and a text."""
    parts = [line.split(" ", 1) for line in full]
    if not all(len(pair) == 2 and pair[0] and pair[1].strip() for pair in parts):
        return None
    labels = Counter(label for label, _ in parts)
    n_alone = sum(count == 1 for count in labels.values())
    if not 2 <= len(labels) <= len(parts) / 5 or n_alone > 0.05 * len(parts):
        return None
    shown = ", ".join(repr(label) for label, _ in labels.most_common(3))
    dialect = Dialect(
        "csv",
        encoding=encoding,
        delimiter=" ",
        quoting=False,
        header=False,
        columns=2,
        extra_columns="join",
    )
    return dialect, [
        f"{len(parts):,} lines begin with one of {len(labels)} words, such as {shown}: labels, "
        "with the text after the first blank."
    ]


def _plain(sample: _Sample, encoding: str) -> tuple[Dialect, list[str]]:
    lines, full = sample.lines, sample.full
    n_documents = sum(
        bool(line.strip()) and not (number and lines[number - 1].strip())
        for number, line in enumerate(lines)
    )
    return Dialect("txt", encoding=encoding), [
        f"No columns are to be seen: {len(full):,} lines of text; empty lines make "
        f"{n_documents:,} documents of them."
    ]
