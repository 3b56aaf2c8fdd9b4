"""What the commands of prediction share: their options, and the way from file to file."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click

from minibert.cli.models import NARROW_DTYPE
from minibert.cli.records import Records, RecordWriter, check_output
from minibert.errors import TextError
from minibert.training.dialect import Dialect
from minibert.training.rows import Row

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Predictor = TypeVar("_Predictor")
_Item = TypeVar("_Item")

_FORMATS = click.Choice(["csv", "tsv", "jsonl", "conll", "txt"])
_DEFAULTS = {
    "output": None, "overwrite": False, "format": None, "delimiter": None, "encoding": "utf-8",
    "quoting": None, "header": True,
}  # fmt: skip
# Rows that are predicted at once: enough for batches of even length, and the bar still moves.
_CHUNK_ROWS = 512
_KEPT = "minibert.predictions"  # where the options are kept until they are asked for


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Which model to load, and how it is to be asked."""

    model: str
    dtype: str
    device: str
    revision: str | None
    sha256: str | None
    offline: bool
    max_length: int | None
    long_text: str | None
    batch_tokens: int | None

    def open(self, from_pretrained: Callable[..., _Predictor]) -> _Predictor:
        """The predictor of the model; imports torch, which takes a second or two."""
        from minibert.prediction.loading import model_folder
        from minibert.prediction.settings import PredictionSettings

        folder = model_folder(
            self.model, revision=self.revision, sha256=self.sha256, offline=self.offline
        )
        settings = PredictionSettings.of(folder)
        if self.max_length is not None:
            # What windows share was meant for the length that the model has by itself.
            settings = replace(settings, max_length=self.max_length, window_overlap=None)
        if self.long_text is not None:
            settings = replace(settings, long_text=self.long_text)
        return from_pretrained(folder, settings=settings, dtype=self.dtype, device=self.device)


@dataclass(frozen=True, kw_only=True)
class Files:
    """What to read and what to write, where texts come from a file."""

    input: str | None
    output: Path | None
    overwrite: bool
    format: str | None
    delimiter: str | None
    encoding: str
    quoting: bool | None
    header: bool

    def check(
        self,
        *,
        texts: bool,
        what: str,
        of_texts: Mapping[str, object],
        of_files: Mapping[str, object],
    ) -> None:
        """Refuse options that do not go together, before anything is read.

        Args:
            texts: whether there are some on the command line.
            what: they are called.
            of_texts, of_files: other options that are for one of them; None where not given.
        """
        if self.input is not None and texts:
            raise click.UsageError(f"got {what} and --input, expected one of them")
        if self.input is None and not texts:
            raise click.UsageError(f"got neither {what} nor --input, expected one of them")
        if self.input is not None:
            if self.output is not None:
                check_output(self.output, source=self.input, overwrite=self.overwrite)
            for name, value in of_texts.items():
                if value is not None:
                    raise click.UsageError(f"{name} is for {what}, not for a file")
            return
        given = {f"--{n}" for n, default in _DEFAULTS.items() if getattr(self, n) != default}
        given |= {name for name, value in of_files.items() if value is not None}
        if given:
            raise click.UsageError(f"{min(given)} is for a file, given with --input")

    @property
    def records(self) -> Records:
        """The rows of the input."""
        assert self.input is not None
        dialect = Dialect(
            format=self.format,
            encoding=self.encoding,
            delimiter=self.delimiter,
            quoting=self.quoting,
            header=self.header,
        )
        return Records(self.input, dialect)


def model_options(command: _Command) -> _Command:
    """Add MODEL and what loads it; `loading` gives them."""
    return _with(
        command,
        click.argument("model", expose_value=False, callback=_keep),
        _option("--max-length", type=click.IntRange(min=3), metavar="N",
                help="Tokens that are read at once. Default: as the model was trained."),
        _option("--long-text", type=click.Choice(["truncate", "windows", "error"]),
                help="Texts that are longer: cut them, read them in overlapping windows, or refuse "
                "them. Default: as the model was trained."),
        _option("--batch-tokens", type=click.IntRange(min=1), metavar="N",
                help="Tokens computed at once."),
        _option("--dtype", type=NARROW_DTYPE, default="float32", show_default=True,
                help="Of the computation; int16 and int8 are faster on a CPU."),
        _option("--device", default="auto", show_default=True, metavar="NAME",
                help="auto, cpu, cuda, cuda:1."),
        _option("--revision", metavar="COMMIT", help="Of a hub id."),
        _option("--sha256", metavar="HEX", help="What model.safetensors must hash to."),
        _option("--offline", is_flag=True, help="Open no connection."),
    )  # fmt: skip


def file_options(command: _Command) -> _Command:
    """Add what reads and writes files; `files` gives them."""
    return _with(
        command,
        _option("--input", metavar="FILE|-", help="A file of rows; - is standard input."),
        _option("--output", type=click.Path(path_type=Path), metavar="FILE|-",
                help="Its rows with columns added: .csv, .tsv or .jsonl. Default: standard output, "
                "in the format of the input where it is one of these, else jsonl."),
        _option("--overwrite", is_flag=True, help="Replace an output that exists."),
        _option("--format", type=_FORMATS,
                help="Of the input. Default: by the suffix; of standard input txt."),
        _option("--delimiter", metavar="CHAR", help='Between columns. Default: "," or a tab.'),
        _option("--encoding", default="utf-8", show_default=True, help="Of the input."),
        _option("--quoting/--no-quoting", default=None,
                help="Do quotation marks enclose a text, or are they part of it?"),
        _option("--header/--no-header", default=True,
                help="Does the first row name the columns? Else they are 1, 2, …"),
    )  # fmt: skip


def loading(ctx: click.Context) -> Loading:
    """The options of `model_options`."""
    return Loading(**{name: ctx.meta[_KEPT][name] for name in Loading.__dataclass_fields__})


def files(ctx: click.Context) -> Files:
    """The options of `file_options`."""
    return Files(**{name: ctx.meta[_KEPT][name] for name in Files.__dataclass_fields__})


def predict_file(
    files: Files,
    item: Callable[[Row], _Item],
    load: Callable[[int | None], Callable[[list[_Item]], Sequence[Mapping[str, Any]]]],
    *,
    as_json: bool,
) -> None:
    """Write the rows of the input with what is said of each.

    All rows are read once before the model is loaded, so that a bad one is told at once; of
    standard input the first alone.

    Args:
        item: what is read from a row.
        load: told how many rows there are, None where that is not known, it gives what predicts:
            for each item the columns to add, "truncated" among them.
        as_json: whatever the input is, what is printed is JSON.
    """
    records, start = files.records, time.perf_counter()
    n_rows = records.counted(item)
    rows = records.read()
    first = next(rows, None)
    if first is None:
        raise records.empty()
    item(first)
    predict = load(n_rows)
    shape = records.format if records.format in ("csv", "tsv") and not as_json else "jsonl"
    n_done = n_cut = 0
    with RecordWriter(files.output, format=shape) as writer, _bar(files, n_rows) as bar:
        for chunk in _chunks(first, rows, _CHUNK_ROWS):
            try:
                found = predict([item(row) for row in chunk])
            except TextError as error:
                raise _placed(error, chunk) from None
            for row, added in zip(chunk, found, strict=True):
                writer.write(row, added)
                n_cut += bool(added["truncated"])
            n_done += len(chunk)
            bar.update(len(chunk))
    place = "" if writer.path is None else f" -> {writer.path}"
    say(f"{n_done} row{'s' * (n_done != 1)} in {time.perf_counter() - start:.1f} s{place}")
    say_cut(n_cut, n_done)


def _placed(error: TextError, chunk: list[Row]) -> TextError:
    """What is said of a text of these rows, with its place in the file."""
    from minibert.prediction.sequences import RefusedTextError

    if isinstance(error, RefusedTextError):
        return TextError(f"{chunk[error.index].place}: the {error.kind} {error.why}")
    return TextError(f"{chunk[0].place}: {error}")


def say(line: str) -> None:
    """A line on standard error."""
    click.echo(f"minibert: {line}", err=True)


def say_cut(n_cut: int, n_texts: int) -> None:
    """Tell how many texts were cut, if any was."""
    if n_cut:
        say(
            f"{n_cut} of {n_texts} were longer than the model reads at once, and cut; "
            "--long-text windows reads all of a text"
        )


def number(value: float) -> float:
    """A number as it is printed: seven digits, which is what a float32 has."""
    return float(f"{value:.7g}")


def columns_of(items: list[tuple[str, str | None]]) -> tuple[list[str], list[str] | None]:
    """First texts, and second ones where there are some."""
    seconds = [second for _, second in items if second is not None]
    return [text for text, _ in items], seconds or None


def one_line(text: str) -> str:
    """A text in a line of a list."""
    return " ".join(text.split())


def _chunks(first: Row, rest: Iterator[Row], size: int) -> Iterator[list[Row]]:
    chunk = [first, *islice(rest, size - 1)]
    while chunk:
        yield chunk
        chunk = list(islice(rest, size))


def _bar(files: Files, n_rows: int | None) -> Any:
    from tqdm import tqdm

    what = "predicting" if files.output is None else files.output.name
    return tqdm(total=n_rows, unit="row", desc=what, disable=not sys.stderr.isatty())


def _option(*names: str, **about: Any) -> Callable[[_Command], _Command]:
    """An option that is kept aside, so that a command has only its own among its arguments."""
    return click.option(*names, expose_value=False, callback=_keep, **about)


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    ctx.meta.setdefault(_KEPT, {})[parameter.name] = value
    return value


def _with(command: _Command, *options: Callable[[_Command], _Command]) -> _Command:
    """The command with options, in the order in which its help is to list them."""
    for option in reversed(options):
        command = option(command)
    return command
