"""`minibert parity tokenizer`: whether two tokenizers give the same ids, and if not, why."""

import json
from collections.abc import Iterator

import click

from minibert.cli.inputs import Bar, Reading, Source, input_options
from minibert.errors import DataError

_BAR_TEXTS = 256  # that the bar advances by


@click.command("tokenizer", short_help="Compare two tokenizers on a corpus.")
@click.argument("a")
@click.argument("b")
@click.option(
    "--input",
    "source",
    metavar="FILE",
    help="Texts; - is standard input. Default: a few lines that tokenizers tend to differ on.",
)
@input_options
@click.option(
    "--max-length",
    type=int,
    metavar="N",
    help="Cut at N tokens, special ones included. Default: each at its own model_max_length.",
)
@click.option("--offline", is_flag=True, help="Open no connection.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def tokenizer(
    ctx: click.Context,
    a: str,
    b: str,
    source: str | None,
    format: str | None,
    field: str | None,
    max_length: int | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Tokenise texts with A and with B; say which differ, where first, and by which rule.

    A and B are names of the manifest, folders, or hub ids OWNER/NAME.

    A text counts once, under the rule by which its first differing token differs: lower-casing,
    accents, CJK, control characters, punctuation, whitespace, special tokens (typed in the text),
    unknown (a word is [UNK] for one of them), vocabulary, truncation, or other.

    The exit status is 0 when nothing differs, 1 when something does, 2 for bad input.
    """
    if source is None and (format is not None or field is not None):
        raise click.UsageError("--format and --field are for a file, given with --input")
    from minibert.parity.tokenizers import HOSTILE_TEXTS, compare_tokenizers
    from minibert.tokenizer import Tokenizer

    built_in = HOSTILE_TEXTS if source is None else ()
    wanted = Source("the built-in texts" if source is None else source, format, field, built_in)
    reading = wanted.read()
    one, other = (Tokenizer.from_pretrained(name, offline=offline) for name in (a, b))
    with Bar(wanted, reading, what="comparing") as bar:
        found = compare_tokenizers(one, other, _texts(reading, bar), max_length=max_length)
    if not found.texts:
        raise DataError(f"{wanted.path}: holds no text, expected at least one to compare")
    if as_json:
        click.echo(json.dumps({"a": a, "b": b, **found.to_dict()}, ensure_ascii=False))
    else:
        click.echo(f"A: {a}\nB: {b}\n{found}")
    ctx.exit(1 if found.differing else 0)


def _texts(reading: Reading, bar: Bar) -> Iterator[str]:
    for chunk in reading.chunks(_BAR_TEXTS):
        yield from (text.text for text in chunk)
        bar.advance(len(chunk))
