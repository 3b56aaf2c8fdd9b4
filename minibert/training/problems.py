"""What is wrong with rows: collected, counted, refused in one line or set aside in a file."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from minibert.errors import DataError
from minibert.files import replacing
from minibert.training.rows import BadRow, Place, Row

POLICIES = ("error", "quarantine")
HEADER = ("place", "kind", "message", "raw")

_SHOWN_KINDS = 8
_SHOWN_CHARS = 300


class Problems:
    """Every row that cannot be used, whoever found it; `n_rows` were looked at, the good ones too.

    Kinds are any words: reading has its own, later checks add theirs.
    """

    def __init__(self) -> None:
        self.bad: list[BadRow] = []
        self.n_rows = 0
        self.files: set[str] = set()  # that rows were read from

    def add(self, place: Place, kind: str, message: str, raw: str = "") -> None:
        """Note a row; `message` goes on where `place` ends."""
        self.bad.append(BadRow(place, kind, message, raw))

    def counts(self) -> dict[str, int]:
        """How many there are of each kind, the most frequent first."""
        counts: dict[str, int] = {}
        for bad in self.bad:
            counts[bad.kind] = counts.get(bad.kind, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def summary(self) -> str:
        """One line: how many rows are bad, and of each kind the number and the first place."""
        counts = self.counts()
        first = {bad.kind: bad for bad in reversed(self.bad)}
        parts = [
            _clipped(
                f"{count:,} of kind {kind!r}, first {first[kind].place}: {first[kind].message}"
            )
            for kind, count in list(counts.items())[:_SHOWN_KINDS]
        ]
        if len(counts) > _SHOWN_KINDS:
            parts.append(f"and {len(counts) - _SHOWN_KINDS} more kinds")
        n_bad = len({bad.place for bad in self.bad})
        return "; ".join([f"{n_bad:,} of {max(self.n_rows, n_bad):,} rows are bad", *parts])

    def raise_if_any(self) -> None:
        """Raises: DataError with the summary, if there is any bad row."""
        if self.bad:
            raise DataError(
                f'{self.summary()}; mend them, or set bad_rows = "quarantine" to go on without them'
            )

    def write(self, path: Path) -> None:
        """Write the bad rows to a csv file of place, kind, message and the row as it stands.

        An earlier such file is replaced, atomically, nothing else is; without bad rows no file is
        written.

        Raises: DataError for a path that is read from, or where another file stands.
        """
        if not self.bad:
            return
        if any(path.exists() and _is_inside(path, name) for name in self.files):
            raise DataError(f"{path}: rows are read from it, expected another file for bad rows")
        if path.is_file() and not _is_ours(path):
            raise DataError(
                f"{path}: exists and holds no bad rows of an earlier run, so it is not replaced; "
                "give another path"
            )
        try:
            with (
                replacing(path) as part,
                part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
            ):
                writer = csv.writer(file)
                writer.writerow(HEADER)
                writer.writerows((str(bad.place), *bad[1:]) for bad in self.bad)
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from None

    def settle(self, bad_rows: str, rejected: Path | None = None) -> None:
        """Deal with bad rows as the policy says: "error" refuses, "quarantine" writes `rejected`.

        Raises: DataError with the summary; for a policy that is not known here, or has no file.
        """
        _check_policy(bad_rows, rejected)
        if bad_rows == "error":
            self.raise_if_any()
        elif rejected is not None:
            self.write(rejected)


class Taken(NamedTuple):
    """The good rows, and what was wrong with the others."""

    rows: list[Row]
    problems: Problems


def good(rows: Iterable[Row | BadRow], problems: Problems) -> Iterator[Row]:
    """Yield the good rows, and note the others in `problems`."""
    for row in rows:
        problems.n_rows += 1
        problems.files.add(row.place.file)
        if isinstance(row, Row):
            yield row
        else:
            problems.bad.append(row)


def take(
    rows: Iterable[Row | BadRow], *, bad_rows: str = "error", rejected: Path | None = None
) -> Taken:
    """Read everything, and deal with the bad rows.

    Args:
        rows: as `read_rows` yields them.
        bad_rows: "error" refuses, once everything is read, with one line for all; "quarantine"
            goes on with the good rows.
        rejected: where quarantine writes the bad ones, see `Problems.write`.

    Raises: DataError, see `Problems.settle`.
    """
    _check_policy(bad_rows, rejected)
    problems = Problems()
    taken = list(good(rows, problems))
    problems.settle(bad_rows, rejected)
    return Taken(taken, problems)


def _check_policy(bad_rows: str, rejected: Path | None) -> None:
    if bad_rows not in POLICIES:
        raise DataError(f"bad_rows is {bad_rows!r}, expected one of {', '.join(POLICIES)}")
    if bad_rows == "quarantine" and rejected is None:
        raise DataError('bad_rows is "quarantine", expected a file for the bad rows too')


def _is_inside(path: Path, name: str) -> bool:
    """Whether `name` is this file, or in this archive."""
    return any(each.exists() and each.samefile(path) for each in (Path(name), *Path(name).parents))


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline(100).rstrip() == ",".join(HEADER).encode()


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"
