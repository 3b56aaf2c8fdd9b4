"""How a file of labelled rows is written: its format, encoding, delimiter, quotation, columns."""

import dataclasses
from dataclasses import dataclass
from pathlib import PurePath

from minibert.errors import DataError
from minibert.lines import checked_encoding

FORMATS = ("csv", "tsv", "jsonl", "conll", "txt", "folders")
EXTRA_COLUMNS = ("error", "ignore", "join")

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".conll": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".txt": "txt",
}
_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class Dialect:
    r"""How files of rows are written.  None leaves a setting to what the others make likely.

    Args:
        format: one of `FORMATS`; None goes by each file's suffix.
        encoding: any of Python's encodings of text; a byte order mark is dropped.
        delimiter: between columns, one character; None is "," in csv, "\t" in tsv, and in conll a
            tab where a line has one, else blanks.
        quoting: whether quotation marks enclose a text, or are part of it; None is True, but where
            the delimiter is a blank, or surplus columns are joined.
        header: whether the first row of a table names its columns.
        columns: how many there are; None goes by the header, or by the first row.
        extra_columns: what becomes of columns beyond those: "error" makes the row a bad one,
            "ignore" drops them, "join" lets the last column take the rest of the line.  None is
            "error"; where the delimiter is a blank and `columns` is given, "join", so that
            `delimiter=" ", columns=2` reads lines such as "label a text".
    """

    format: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    quoting: bool | None = None
    header: bool = True
    columns: int | None = None
    extra_columns: str | None = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise DataError(f"format is {self.format!r}, expected one of {', '.join(FORMATS)}")
        checked_encoding(self.encoding)
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise DataError(
                f"delimiter is {self.delimiter!r}, expected one character that is no quotation "
                "mark and no line end"
            )
        if self.columns is not None and self.columns < 1:
            raise DataError(f"columns is {self.columns}, expected 1 or more")
        if self.extra_columns not in (None, *EXTRA_COLUMNS):
            raise DataError(
                f"extra_columns is {self.extra_columns!r}, expected one of "
                f"{', '.join(EXTRA_COLUMNS)}"
            )
        if self.extra_columns == "join" and (self.quoting or self.columns is None):
            raise DataError(
                'extra_columns is "join", which needs columns, their number, and no quoting; give '
                "columns and quoting = false"
            )

    def completed(self, name: str) -> "Dialect":
        """This dialect for the file of this name, with what it left open filled in.

        Raises: DataError for a suffix that says no format, and for settings that it has not.
        """
        format = self.format or format_of(name)
        if format is None:
            raise DataError(
                f"{name}: the suffix {PurePath(name).suffix!r} says no format; set format to one "
                f"of {', '.join(FORMATS)}; minibert init proposes one"
            )
        if format in ("jsonl", "txt", "folders"):
            for setting in ("delimiter", "quoting", "columns", "extra_columns"):
                if getattr(self, setting) is not None:
                    raise DataError(f"{name}: {format} has no {setting}; leave it out")
            return dataclasses.replace(self, format=format)
        if format == "conll" and (self.quoting or self.extra_columns == "join"):
            raise DataError(
                f"{name}: conll has no quotation marks and joins no columns; leave it out"
            )
        delimiter = self.delimiter or _DELIMITERS.get(format)
        by_blanks = delimiter == " " and format != "conll" and not self.quoting
        default = "join" if by_blanks and self.columns is not None else "error"
        extra = self.extra_columns or default
        quoting = not (by_blanks or extra == "join") if self.quoting is None else self.quoting
        return dataclasses.replace(
            self, format=format, delimiter=delimiter, quoting=quoting, extra_columns=extra
        )


def format_of(name: str) -> str | None:
    """The format that the suffix of a file's name says, if it says any."""
    return _SUFFIXES.get(PurePath(name).suffix.lower())
