"""`minibert fill-mask`: words for the masks in texts."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from minibert.cli.predictions import (
    file_options,
    files,
    loading,
    model_options,
    number,
    one_line,
    predict_file,
    say_cut,
)
from minibert.cli.records import Joined, json_line, text_in
from minibert.training.rows import Row

if TYPE_CHECKING:
    from minibert.prediction.filler import Filling, MaskFiller


@click.command("fill-mask", short_help="Say which words may stand for [MASK].")
@model_options
@click.argument("texts", nargs=-1, metavar="[TEXT]…")
@file_options
@click.option("--text", "column", metavar="COLUMN", help='Of the text. Default: "text".')
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    metavar="N",
    help="Words for each mask. Default: 5 of a TEXT, 1 of a row.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a text, or a row.")
@click.pass_context
def fill_mask(
    ctx: click.Context,
    texts: tuple[str, ...],
    column: str | None,
    top_k: int | None,
    as_json: bool,
) -> None:
    """Say which words may stand where TEXT has [MASK]; for each row of a file too.

    MODEL is a BERT that was trained on masked words: the folder of a run of minibert train, or a
    model that transformers saved.

    \b
      minibert fill-mask bert-base-uncased "Paris is the [MASK] of France."

    It prints the probability of each word, and the text with it. Each mask is filled by itself. To
    the rows of a file it adds the columns filled, token, probability (one a mask) and truncated.
    """
    job = files(ctx)
    job.check(texts=bool(texts), what="texts", of_texts={}, of_files={"--text": column})

    def item(row: Row) -> str:
        return text_in(row, column, "text")

    def load(n_rows: int | None) -> Callable[[list[str]], list[dict[str, Any]]]:
        filler = _load(ctx)
        filler.settle(n_rows)
        return lambda items: [_columns(each) for each in _filled(ctx, filler, items, top_k or 1)]

    if job.input is not None:
        return predict_file(job, item, load, as_json=as_json)
    found = _filled(ctx, _load(ctx), list(texts), top_k or 5)
    for text, each in zip(texts, found, strict=True):
        if as_json:
            click.echo(json_line({"text": text, **_columns(each)}))
            continue
        if len(texts) > 1:
            click.echo(one_line(text))
        _print(each, "  " if len(texts) > 1 else "")
    return say_cut(sum(each.truncated for each in found), len(found))


def _load(ctx: click.Context) -> "MaskFiller":
    from minibert.prediction.filler import MaskFiller

    return loading(ctx).open(MaskFiller.from_pretrained)


def _filled(
    ctx: click.Context, filler: "MaskFiller", items: list[str], top_k: int
) -> "list[Filling]":
    batch_tokens = loading(ctx).batch_tokens
    return filler.fill(items, top_k=top_k, batch_tokens=batch_tokens, show_progress_bar=False)


def _columns(found: "Filling") -> dict[str, Any]:
    """The columns that are added to a row."""
    best = [mask[0] for mask in found.masks]
    values: dict[str, Any] = {
        "filled": found.text,
        "token": Joined([each.token for each in best], " "),
        "probability": Joined([number(each.probability) for each in best], " "),
    }
    if len(found.masks[0]) > 1:
        values["candidates"] = [
            [{**each._asdict(), "probability": number(each.probability)} for each in mask]
            for mask in found.masks
        ]
    values["truncated"] = found.truncated
    return values


def _print(found: "Filling", margin: str) -> None:
    """A line for each word: its probability, and the text with it."""
    for mask in found.masks:
        for each in mask:
            click.echo(f"{margin}{each.probability:.4f}\t{each.token}\t{one_line(each.text)}")
