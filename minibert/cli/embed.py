"""`minibert embed`: texts in, a file of vectors out."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minibert.cli import StoppedError
from minibert.cli.inputs import Bar, Reading, Source, input_options
from minibert.cli.models import (
    LongText,
    ModelChoice,
    Precision,
    Settings,
    model_options,
    settings_options,
)
from minibert.errors import DataError, MinibertError, TextError

if TYPE_CHECKING:
    import minibert.embed
    import minibert.precision
    import minibert.texts
    import minibert.vectors


@click.command(short_help="Embed texts, or a file of them, into vectors.")
@click.argument("texts", nargs=-1, metavar="[TEXT]…")
@click.option("--input", "source", metavar="FILE|-", help="A file of texts; - is standard input.")
@input_options
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE", help=".npy, .safetensors or .jsonl"
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--append", is_flag=True, help="Add to an output that exists, of the same kind.")
@click.option("--with-text", is_flag=True, help="Put each text beside its vector, in .jsonl.")
@model_options
@click.option(
    "--prompt",
    metavar="NAME|TEXT",
    help="Put before each text: a prompt of the model by its name, or any text. Default: the "
    'model\'s default prompt, if it has one; "" for none.',
)
@click.option(
    "--normalize/--no-normalize", default=None, help="Vectors of length 1. Default: as the model."
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "int8", "binary"]),
    default="float32",
    show_default=True,
    help="Of the vectors: int8 takes a quarter of the bytes, binary, their signs, a 32nd.",
)
@settings_options
@click.option("--chunk-texts", type=click.IntRange(min=1), hidden=True)
def embed(
    texts: tuple[str, ...],
    source: str | None,
    format: str | None,
    field: str | None,
    output: Path | None,
    overwrite: bool,
    append: bool,
    with_text: bool,
    name: str,
    dtype: str,
    revision: str | None,
    sha256: str | None,
    offline: bool,
    prompt: str | None,
    normalize: bool | None,
    precision: Precision,
    truncate_dim: int | None,
    long_text: LongText,
    batch_tokens: int | None,
    chunk_texts: int | None,
) -> None:
    """Embed each TEXT, or each text of a file.

    \b
    txt          a text a line, UTF-8; an empty line is the text ""
    jsonl        a string a line, or an object with --field
    csv, tsv     with a header; --field says which column

    Without --output it prints a JSON object a text: {"text": …, "embedding": […]}.

    \b
    .npy         float32 (texts, dim), for numpy.load, memory-mapped if you like;
                 int8 (texts, dim) and uint8 (texts, dim / 8) with --precision
    .safetensors the same, as the tensor "embeddings"
    .jsonl       {"index": …, "embedding": […]} a line, and "text" with --with-text

    Every output says which model and settings made it: .safetensors in its metadata, the others in
    a small OUTPUT.json beside them.

    Files of any size are read and written in chunks. A job that was stopped, killed too, goes on
    behind its last chunk when the same command is run again, and gives the same file.
    """
    wanted = _source(texts, source, format, field)
    if output is None and (overwrite or append or with_text):
        raise click.UsageError("--overwrite, --append and --with-text need an --output")
    if output is not None:
        from minibert.vectors import check_output, format_of

        check_output(output, append=append, overwrite=overwrite)
        if with_text and format_of(output) != "jsonl":
            raise click.UsageError(f"--with-text needs an output that ends in .jsonl, not {output}")
        if source is not None and output.exists() and _is_same(Path(source), output):
            raise DataError(f"{output}: is the input too; choose another output")
    reading = wanted.read()

    choice = ModelChoice(name=name, dtype=dtype, revision=revision, sha256=sha256, offline=offline)
    settings = Settings(
        prompt=prompt,
        normalize=normalize,
        truncate_dim=truncate_dim,
        precision=precision,
        long_text=long_text,
        batch_tokens=batch_tokens,
    )
    embedder = choice.load()
    settings.check(embedder)
    from minibert.embed import BATCH_TOKENS, CHUNK_TEXTS

    size = CHUNK_TEXTS if chunk_texts is None else chunk_texts
    if output is None:
        return _print(embedder, settings, wanted, reading, size)

    from minibert.vectors import VectorWriter

    by_kernels = embedder.settle(wanted.about_texts())
    writer = VectorWriter(
        output,
        settings.origin(embedder, choice),
        append=append,
        overwrite=overwrite,
        with_text=with_text,
        settings={
            "chunk_texts": size,
            "batch_tokens": batch_tokens or BATCH_TOKENS,
            "kernels": int(by_kernels),
        },
    )
    with writer:
        try:
            _write(embedder, settings, wanted, reading, writer, size)
        except KeyboardInterrupt:
            kept = f"; {_kept(writer)}" if writer.n_kept else ""
            raise StoppedError(f"stopped{kept}") from None
    return None


def _source(
    texts: tuple[str, ...], source: str | None, format: str | None, field: str | None
) -> Source:
    if texts and source is not None:
        raise click.UsageError("got texts and --input, expected one of them")
    if not texts and source is None:
        raise click.UsageError("got no texts; give some, or a file of them with --input")
    if texts and (format is not None or field is not None):
        raise click.UsageError("--format and --field are for a file, given with --input")
    return Source("the texts given" if source is None else source, format, field, texts)


def _is_same(source: Path, output: Path) -> bool:
    return source.exists() and os.path.samefile(source, output)  # noqa: PTH121 - of two that exist


def _print(
    embedder: "minibert.embed.Embedder",
    settings: Settings,
    source: Source,
    reading: Reading,
    size: int,
) -> None:
    """Print a JSON object for each text, as soon as its chunk is done."""
    from minibert.vectors import json_rows

    with Bar(source, reading, what="embedding") as bar:
        for chunk in reading.chunks(size):
            vectors = _encode(embedder, settings, chunk)
            for item, numbers in zip(chunk, json_rows(vectors), strict=True):
                said = json.dumps(item.text, ensure_ascii=False)
                click.echo(f'{{"text": {said}, "embedding": {numbers}}}')
            bar.advance(len(chunk))
    if not source.texts:
        click.echo(f"minibert: {_count(bar.n_texts)} in {bar.seconds:.1f} s", err=True)


def _write(
    embedder: "minibert.embed.Embedder",
    settings: Settings,
    source: Source,
    reading: Reading,
    writer: "minibert.vectors.VectorWriter",
    size: int,
) -> None:
    """Write the vectors of the texts that a stopped job has not done yet, and finish the file."""
    n_resumed = writer.n_done
    if n_resumed:
        click.echo(f"minibert: {writer.path}: resuming at text {n_resumed + 1}", err=True)
        if not writer.skip(item.text for item in reading):
            click.echo(f"minibert: {writer.path}: the input has changed, starting again", err=True)
            reading, n_resumed = source.read_again(), 0
    with Bar(source, reading, what=writer.path.name) as bar:
        try:
            for chunk in reading.chunks(size):
                texts = [item.text for item in chunk]
                writer.append(_encode(embedder, settings, chunk), texts)
                bar.advance(len(chunk))
        except MinibertError as error:
            if not writer.n_kept:
                raise
            raise type(error)(f"{error}; {_kept(writer)}") from None
    writer.finish()
    resumed = f", {n_resumed} of them earlier" if n_resumed else ""
    pace = f"{bar.seconds:.1f} s ({bar.texts_per_second:.0f} texts/s)"
    click.echo(
        f"minibert: {_count(n_resumed + bar.n_texts)}{resumed}, in {pace}, {embedder.computes} "
        f"-> {writer.path}",
        err=True,
    )


def _encode(
    embedder: "minibert.embed.Embedder",
    settings: Settings,
    chunk: list["minibert.texts.SourceText"],
) -> "minibert.precision.Vectors":
    """The vectors of a chunk; a fault's index counts within it, so say where it begins."""
    try:
        return settings.encode(embedder, [item.text for item in chunk])
    except TextError as error:
        raise TextError(f"counted from line {chunk[0].line}: {error}") from None


def _kept(writer: "minibert.vectors.VectorWriter") -> str:
    return f"{_count(writer.n_kept)} kept, the same command goes on behind them"


def _count(n_texts: int) -> str:
    return f"{n_texts} text{'' if n_texts == 1 else 's'}"
