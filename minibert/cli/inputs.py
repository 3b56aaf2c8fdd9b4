"""What the subcommands read texts from: a file, chunk by chunk, with a bar on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from minibert.errors import DataError

if TYPE_CHECKING:
    import minibert.texts

_Command = TypeVar("_Command", bound=Callable[..., Any])

_FORMATS = ("txt", "jsonl", "csv", "tsv")


def input_options(command: _Command) -> _Command:
    """Add --format and --field."""
    for option in (
        click.option(
            "--field",
            metavar="NAME",
            help="The field of a JSON object, or the column of a table (by name, or by number from "
            '1), that holds the text. Default: "text", or a table\'s only column.',
        ),
        click.option(
            "--format",
            type=click.Choice(_FORMATS),
            help="Default: by the suffix; of standard input txt.",
        ),
    ):
        command = option(command)
    return command


class Reading(Iterator["minibert.texts.SourceText"]):
    """Texts being read; the first is looked at once, so that a bad file is told early."""

    def __init__(self, texts: Iterator["minibert.texts.SourceText"]) -> None:
        self.bytes_read = 0  # up to the text given last
        self._texts = chain(list(islice(texts, 1)), texts)

    def __next__(self) -> "minibert.texts.SourceText":
        text = next(self._texts)
        self.bytes_read = text.bytes_read
        return text

    def chunks(self, size: int) -> Iterator[list["minibert.texts.SourceText"]]:
        """Lists of `size` texts; the last may be shorter."""
        while chunk := list(islice(self, size)):
            yield chunk


@dataclass(frozen=True)
class Source:
    """A file of texts as the command line names it, or texts of the command line itself."""

    path: str
    format: str | None = None
    field: str | None = None
    texts: tuple[str, ...] = ()  # in place of a file

    @property
    def size_bytes(self) -> int | None:
        """What the bar counts up to; None where that is not known."""
        from minibert.texts import size_bytes

        return None if self.texts else size_bytes(self.path)

    def about_texts(self) -> int:
        """How many texts there are, roughly, before any is read; of a pipe, that there are some."""
        size = self.size_bytes
        return len(self.texts) or (1000 if size is None else size // 100)

    def read(self) -> Reading:
        """Begin at the first text."""
        from minibert.texts import SourceText, read_texts

        if self.texts:
            listed = enumerate(self.texts, 1)
            return Reading(iter([SourceText(text, number, 0) for number, text in listed]))
        return Reading(read_texts(self.path, format=self.format, field=self.field))

    def read_again(self) -> Reading:
        """Begin at the first text once more.

        Raises: DataError for standard input, which is gone.
        """
        if not self.texts and self.path == "-":
            raise DataError("standard input cannot be read twice; run the command again")
        return self.read()


class Bar:
    """A bar on standard error, where that is a terminal: bytes of the input, and texts a second."""

    def __init__(self, source: Source, reading: Reading, *, what: str) -> None:
        from tqdm import tqdm

        size = source.size_bytes
        self.n_texts = 0
        self._reading = None if size is None else reading
        self._start = time.perf_counter()
        self._bar = tqdm(
            total=size,
            initial=0 if size is None else reading.bytes_read,
            unit="text" if size is None else "B",
            unit_scale=size is not None,
            desc=what,
            disable=bool(source.texts) or not sys.stderr.isatty(),
        )

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    @property
    def texts_per_second(self) -> float:
        return self.n_texts / max(self.seconds, 1e-9)

    def advance(self, n_texts: int) -> None:
        """Count texts that are done."""
        self.n_texts += n_texts
        self._bar.update(
            n_texts if self._reading is None else self._reading.bytes_read - self._bar.n
        )
        if self._reading is not None:
            self._bar.set_postfix_str(f"{self.texts_per_second:.0f} texts/s")
