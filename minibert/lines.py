"""The decoded lines of a file, each with its place, and the rows of a table over them.

Of a file, what it holds when it is opened is read and no more: one that grows meanwhile ends there.
"""

import codecs
import csv
import difflib
import os
import stat
import sys
import zlib
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable
from zipfile import BadZipFile

from minibert.errors import DataError

STDIN = "-"

# A quotation mark that is never closed takes the rest of the file into one field, and a file whose
# lines end otherwise is one line: stop before they take the memory too.
MAX_CHARS = 1 << 26
MAX_LINE_BYTES = 1 << 28

# Codecs that read their byte order from the file, and the width of what they read.
_ORDERED = {"utf-16": 2, "utf-32": 4}
_MARKS = {
    "utf-16": {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"},
    "utf-32": {codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be"},
}


@runtime_checkable
class Stream(Protocol):
    """What is asked of an open file."""

    def readline(self, size: int = -1, /) -> bytes: ...


class Undecodable(NamedTuple):
    """A byte that begins no character of the encoding."""

    byte: int  # its offset in the file
    value: int
    line: int
    encoding: str
    is_utf16: bool  # the file begins with the mark of UTF-16

    def __str__(self) -> str:
        return (
            f"byte {self.byte}, on line {self.line}, is 0x{self.value:02x}, "
            f"expected {self.encoding.upper()}"
        )


class Lines:
    """The decoded lines of a file with their ends, up to the size that it had when opened.

    A line with bytes that are no characters is decoded all the same, with `\\x..` in their place,
    and then `fault` names the first of them until the next line is read.  The byte order mark is
    dropped.

    Raises: DataError for an encoding that cannot be read by lines, and for a file that cannot be
        read, is cut short meanwhile, or has a line beyond `MAX_LINE_BYTES`.
    """

    def __init__(
        self, file: Stream, name: str, size: int | None, *, encoding: str = "utf-8"
    ) -> None:
        self.name = name
        self.number = 0
        self.bytes_read = 0
        self.fault: Undecodable | None = None
        self._file = file
        self._size = size
        self._codec = checked_encoding(encoding)
        self._width = _width(self._codec)

    @property
    def place(self) -> tuple[int, int]:
        return self.number, self.bytes_read

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        start = self.bytes_read
        raw = self._some(MAX_LINE_BYTES) if self._width == 1 else self._wide_line()
        if not raw:
            raise StopIteration
        self.number += 1
        if len(raw) >= MAX_LINE_BYTES:
            raise DataError(
                f"{self.name}: line {self.number} is longer than {MAX_LINE_BYTES:,} bytes, "
                "expected lines that end with a line feed; convert it, for example with "
                "tr '\\r' '\\n'"
            )
        if self.number == 1:
            raw, start = self._without_mark(raw)
            if not raw:
                raise StopIteration
        self.fault = None
        try:
            return raw.decode(self._codec)
        except UnicodeDecodeError as error:
            self.fault = Undecodable(
                start + error.start,
                raw[error.start],
                self.number,
                self._codec,
                start == 0 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
            )
            return raw.decode(self._codec, "backslashreplace")

    def _some(self, n_bytes: int) -> bytes:
        """At most so many bytes, up to the end of a line; none at the end of the file."""
        left = None if self._size is None else self._size - self.bytes_read
        try:
            raw = self._file.readline(n_bytes if left is None else min(left, n_bytes))
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read: {error.strerror}") from None
        except (BadZipFile, zlib.error, EOFError) as error:
            raise DataError(f"{self.name}: its archive is damaged: {error}") from None
        if not raw and left:
            raise DataError(
                f"{self.name}: ends at byte {self.bytes_read}, expected {self._size} as when "
                "it was opened; it was cut short meanwhile, so start again"
            )
        self.bytes_read += len(raw)
        return raw

    def _wide_line(self) -> bytes:
        """A line of characters of several bytes each, where a byte 0x0a alone ends nothing."""
        raw = b""
        while len(raw) < MAX_LINE_BYTES and (more := self._some(MAX_LINE_BYTES)):
            raw += more
            while len(raw) % self._width and (
                more := self._some(self._width - len(raw) % self._width)
            ):
                raw += more
            if self._codec in _ORDERED:
                mark = raw[: self._width]
                self._codec = _MARKS[self._codec].get(mark, f"{self._codec}-le")
            if raw.endswith("\n".encode(self._codec)):
                break
        return raw

    def _without_mark(self, raw: bytes) -> tuple[bytes, int]:
        """The first line without its byte order mark, and where it then begins."""
        mark = b"" if self._width == 1 else "\ufeff".encode(self._codec)
        if raw.startswith(codecs.BOM_UTF8) and self._width == 1:
            if self._codec != "utf-8":
                raise DataError(
                    f"{self.name}: begins with the mark of UTF-8, expected {self._codec}; set the "
                    "encoding to utf-8"
                )
            mark = codecs.BOM_UTF8
        found = len(mark) if raw.startswith(mark) else 0
        return raw[found:], found


def checked_encoding(encoding: str) -> str:
    """The codec's own name.

    Raises: DataError for what is no encoding of text, or does not end its lines with byte 0x0a.
    """
    try:
        name = codecs.lookup(encoding).name
        ends = "\n".encode(name).endswith((b"\n", b"\n\0", b"\n\0\0\0"))
    except (LookupError, UnicodeError):
        name, ends = "", False
    if not ends:
        raise DataError(
            f"encoding is {encoding!r}, expected one of Python's encodings of text, such as utf-8, "
            "cp1252, latin-1 or utf-16"
        )
    return "utf-8" if name == "utf-8-sig" else name


def _width(codec: str) -> int:
    return next((width for name, width in _ORDERED.items() if codec.startswith(name)), 1)


def unreadable(source: str | Path, error: OSError) -> DataError:
    return DataError(
        f"{source}: cannot be read: {error.strerror}; give a file of texts, or - for standard input"
    )


@contextmanager
def opened(source: str | Path) -> Iterator[tuple[Stream, int | None]]:
    """A source open for reading, and its size where it has one."""
    if str(source) == STDIN:
        yield sys.stdin.buffer, None
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115 - closed below, and errors of opening apart
    except OSError as error:
        raise unreadable(source, error) from None
    with file:
        about = os.fstat(file.fileno())
        yield file, about.st_size if stat.S_ISREG(about.st_mode) else None


class TableRow(NamedTuple):
    """A row of a table, or a line that begins one whose quotation marks are wrong."""

    cells: list[str]
    line: int  # that it begins on, counted from 1
    lines: list[str]  # as they stand in the file
    error: str = ""


def table_rows(lines: Iterator[str], delimiter: str) -> Iterator[TableRow]:
    """The rows of a table that is quoted as the csv module does, strictly.

    A row whose quotation marks are wrong is given up at its first line, and the lines that it had
    taken with it are read again, as rows of their own; they are left out only where that has
    happened to `MAX_CHARS` characters of the file, and then the last `error` says so.
    """
    again = _Again(lines)
    reader = csv.reader(again, delimiter=delimiter, strict=True)
    n_reread = 0
    while True:
        taken, first = again.begin()
        error = ""
        limit = csv.field_size_limit(MAX_CHARS)  # of the whole process, so put back at once
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            error = str(problem)
        finally:
            csv.field_size_limit(limit)
        if not error:
            yield TableRow(cells, first, taken)
            continue
        n_reread += sum(map(len, taken[1:]))
        if n_reread > MAX_CHARS:
            yield TableRow([], first, taken[:1], f"{error}, and the rest of the file is not read")
            return
        again.put_back(taken[1:])
        yield TableRow([], first, taken[:1], error)


class _Again:
    """Lines that can be put back, to be read again."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._waiting: deque[str] = deque()
        self._taken: list[str] = []
        self._number = 0

    def begin(self) -> tuple[list[str], int]:
        """The list of lines taken from now on, and the number of the next one."""
        self._taken = []
        return self._taken, self._number + 1

    def put_back(self, lines: list[str]) -> None:
        self._waiting.extendleft(reversed(lines))
        self._number -= len(lines)

    def __iter__(self) -> "_Again":
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self._taken.append(line)
        self._number += 1
        return line


def listed(names: Collection[str]) -> str:
    """The first names of several, quoted."""
    shown = ", ".join(repr(name) for name in list(names)[:8])
    return f"{shown}, …" if len(names) > 8 else shown or "none"


def nearest(wanted: str, names: Collection[str]) -> str:
    """The name that was likely meant, or nothing."""
    plain = {name.strip().casefold(): name for name in reversed(list(names))}
    found = difflib.get_close_matches(wanted.strip().casefold(), plain, n=1)
    return plain[found[0]] if found else ""
