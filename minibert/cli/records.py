"""Files of rows for prediction: read row by row, and written with columns added, whole or not."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import click

from minibert.errors import DataError
from minibert.files import replacing
from minibert.lines import STDIN
from minibert.texts import read_texts
from minibert.training.dialect import Dialect
from minibert.training.rows import BadRow, Cells, Columns, Place, Row, read_rows

OUTPUTS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

_LINE = Columns(("text",), 1)


class Joined(NamedTuple):
    """Several values for one column: a list in JSON, joined in a table."""

    values: list[Any]
    separator: str


@dataclass(frozen=True)
class Records:
    """A file of rows as the command line names it; see `read_rows`.

    Of txt each line is a row, an empty one too, so that line numbers go on counting.
    """

    path: str
    dialect: Dialect

    @property
    def format(self) -> str:
        """The one that is said, else by the suffix; of standard input txt."""
        if self.path == STDIN and self.dialect.format is None:
            return "txt"
        return self.dialect.completed(Path(self.path).name).format or ""

    def read(self) -> Iterator[Row]:
        """The rows, in order.

        Raises: DataError, with file and line, for the first that cannot be read.
        """
        if self.format == "txt":
            name = "standard input" if self.path == STDIN else self.path
            for text in read_texts(self.path, format="txt", encoding=self.dialect.encoding):
                yield Row(Cells([text.text], _LINE), Place(name, text.line))
            return
        for row in read_rows(self.path, self.dialect):
            if isinstance(row, BadRow):
                raise DataError(f"{row.place}: {row.message}")
            yield row

    def counted(self, read: Callable[[Row], object]) -> int | None:
        """How many rows there are, each of which was tried to `read`; None for standard input.

        So what is wrong in the last row is told before the model has worked for hours.

        Raises: DataError for the first row that cannot be read, and for a file without any.
        """
        if self.path == STDIN or not Path(self.path).is_file():
            return None
        count = 0
        for row in self.read():
            read(row)
            count += 1
        if not count:
            raise self.empty()
        return count

    def empty(self) -> DataError:
        """What is said where there is no row."""
        return DataError(f"{self.path}: holds no row, expected one at least")


def json_line(values: Mapping[str, Any]) -> str:
    """Values as a JSON object in one line."""
    plain = {
        name: value.values if isinstance(value, Joined) else value for name, value in values.items()
    }
    return json.dumps(plain, ensure_ascii=False)


def text_in(row: Row, column: str | None, default: str) -> str:
    """The text in a column of a row.

    Args:
        column: its name, or its number from 1; None is `default`, or the only column.

    Raises: DataError for a row without it, or where it is no text.
    """
    value = value_in(row, column, default)
    if not isinstance(value, str):
        raise _no_text(row, column or default, value, "a text")
    return value


def pair_in(row: Row, column: str | None, pair_column: str | None) -> tuple[str, str | None]:
    """The text of a row, by default that in the column "text", and its second text, if any."""
    second = None if pair_column is None else text_in(row, pair_column, pair_column)
    return text_in(row, column, "text"), second


def text_or_words_in(row: Row, column: str | None, default: str) -> str | list[str]:
    """The text in a column, or the list of its words."""
    value = value_in(row, column, default)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return value
    if not isinstance(value, str):
        raise _no_text(row, column or default, value, "a text, or a list of words")
    return value


def value_in(row: Row, column: str | None, default: str) -> Any:
    """What a column of a row holds."""
    if column is None and default not in row.values and len(row.values) == 1:
        return next(iter(row.values.values()))
    return row.value(default if column is None else column)


def _no_text(row: Row, column: str, value: object, expected: str) -> DataError:
    got = json.dumps(value, ensure_ascii=False, default=str)[:40]
    return DataError(f"{row.place}: column {column!r} is {got}, expected {expected}")


def check_output(path: Path, *, source: str, overwrite: bool) -> None:
    """Refuse an output that could not be written in the end; costs nothing.

    Raises: DataError for a suffix, a folder, the input itself, or a file that stands in the way.
    """
    if str(path) == STDIN:
        return
    if path.suffix.lower() not in OUTPUTS:
        raise DataError(
            f"{path}: has the suffix {path.suffix!r}, expected one of {', '.join(OUTPUTS)}"
        )
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected the name of a file")
    if not path.parent.is_dir():
        raise DataError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DataError(f"{path}: the folder {path.parent} cannot be written to; choose another")
    if path.is_file() and Path(source).is_file() and path.samefile(source):
        raise DataError(f"{path}: is the input too; choose another output")
    if path.is_file() and not overwrite:
        raise DataError(f"{path}: exists; --overwrite replaces it")


class RecordWriter:
    """Writes rows with columns added, to a file that appears when it is whole, or to the terminal.

        with RecordWriter(path, format="csv") as writer:
            writer.write(row, {"label": "pos"})

    The first row says which columns a table has.  What is added under a name that the rows have
    already gets "predicted_" before it.

    Args:
        path: the output; None or "-" is standard output.
        format: of standard output; a file's is by its suffix.

    Raises: DataError where a row has a column that the table lacks, or the disk is full; what stood
        in the place of the output stays.
    """

    def __init__(self, path: Path | None, *, format: str) -> None:
        self.path = None if path is None or str(path) == STDIN else path
        self._format = format if self.path is None else OUTPUTS[self.path.suffix.lower()]
        self._names: dict[str, str] | None = None  # of what is added
        self._columns: list[str] = []  # of a table
        self._stack = ExitStack()
        self._file: IO[str] | None = None

    def __enter__(self) -> "RecordWriter":
        if self.path is not None:
            with _telling(self.path), ExitStack() as stack:
                part = stack.enter_context(replacing(self.path))
                opened = part.open("w", encoding="utf-8", newline="")
                self._file = stack.enter_context(opened)
                self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        with _telling(self.path):
            self._stack.__exit__(*error)

    def write(self, row: Row, added: Mapping[str, Any]) -> None:
        """Add a row, and what is said of it."""
        first = self._names is None
        if self._names is None:
            self._names = _added_names(row, added)
            self._columns = [*row.values, *self._names.values()]
        values = {**row.values, **{self._names[name]: value for name, value in added.items()}}
        if len(values) != len(row.values) + len(added):
            clash = next(name for name in self._names.values() if name in row.values)
            raise DataError(
                f"{row.place}: has the column {clash!r}, which the first row lacks, so that it is "
                "the name of what is added; rename it"
            )
        with _telling(self.path):
            if self._format == "jsonl":
                self._put(json_line(values) + "\n")
                return
            if first:
                self._put(self._line(self._columns))
            if unknown := values.keys() - set(self._columns):
                raise DataError(
                    f"{row.place}: has the column {min(unknown)!r}, which the first row lacks, and "
                    "a table no place for it; choose an output that ends in .jsonl"
                )
            self._put(self._line([_cell(values.get(name)) for name in self._columns]))

    def _line(self, cells: list[str]) -> str:
        line = io.StringIO()
        delimiter = "," if self._format == "csv" else "\t"
        csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(cells)
        return line.getvalue()

    def _put(self, line: str) -> None:
        if self._file is None:
            click.echo(line, nl=False)
        else:
            self._file.write(line)


@contextmanager
def _telling(path: Path | None) -> Iterator[None]:
    """Tell of a file that cannot be written; of standard output the reader may just have gone."""
    try:
        yield
    except OSError as error:
        if path is None:
            raise
        raise DataError(
            f"{path}: cannot be written: {error.strerror}; what stood there is unchanged"
        ) from None


def _added_names(row: Row, added: Mapping[str, Any]) -> dict[str, str]:
    """The names of what is added, which no column of the row has."""
    names = {name: f"predicted_{name}" if name in row.values else name for name in added}
    taken = [name for name in names.values() if name in row.values]
    if taken:
        raise DataError(
            f"{row.place}: has the columns {taken[0].removeprefix('predicted_')!r} and "
            f"{taken[0]!r}, expected one of these names to be free; rename a column"
        )
    renamed = [f"{new!r}" for old, new in names.items() if old != new]
    if renamed:
        click.echo(
            f"minibert: the input has columns of these names, so what is added is "
            f"{' and '.join(renamed)}",
            err=True,
        )
    return names


def _cell(value: Any) -> str:
    """A value in a table; what it has no form for is JSON."""
    if isinstance(value, Joined):
        parts = [_cell(part) for part in value.values]
        if not any(value.separator in part for part in parts):
            return value.separator.join(parts)
        value = value.values
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
