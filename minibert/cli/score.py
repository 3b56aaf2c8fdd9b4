"""`minibert score`: numbers for texts, or how alike two texts are."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from minibert.cli.predictions import (
    columns_of,
    file_options,
    files,
    loading,
    model_options,
    number,
    one_line,
    predict_file,
    say_cut,
)
from minibert.cli.records import json_line, pair_in
from minibert.training.rows import Row

if TYPE_CHECKING:
    from minibert.prediction.scorer import Score, TextScorer

Item = tuple[str, str | None]


@click.command(short_help="Give texts, or pairs of them, a number.")
@model_options
@click.argument("texts", nargs=-1, metavar="[TEXT]…")
@click.option("--pair", metavar="TEXT", help="The second text of each TEXT.")
@file_options
@click.option("--text", "column", metavar="COLUMN", help='Of the text. Default: "text".')
@click.option("--text-pair", "pair_column", metavar="COLUMN", help="Of the second text of a pair.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a text, or a row.")
@click.pass_context
def score(
    ctx: click.Context,
    texts: tuple[str, ...],
    pair: str | None,
    column: str | None,
    pair_column: str | None,
    as_json: bool,
) -> None:
    """Give each TEXT a number, or each row of a file.

    MODEL is the folder of a run of minibert train, a model with a head of one number that
    transformers saved, or a model of sentence-transformers. The last compares two texts: its
    number is their cosine, from -1 to 1.

    \b
      minibert score run "A film that stays with you."
      minibert score all-MiniLM-L6-v2 "How do I sleep better?" --pair "Ways to rest well"
      minibert score run --input pairs.csv --text a --text-pair b --output scored.csv

    A file is csv, tsv, jsonl (an object a line) or txt (a text a line); to its rows it adds the
    columns score and truncated.
    """
    job = files(ctx)
    job.check(
        texts=bool(texts),
        what="texts",
        of_texts={"--pair": pair},
        of_files={"--text": column, "--text-pair": pair_column},
    )

    def item(row: Row) -> Item:
        return pair_in(row, column, pair_column)

    def load(n_rows: int | None) -> Callable[[list[Item]], list[dict[str, Any]]]:
        scorer = _load(ctx)
        scorer.settle(n_rows)
        return lambda items: [_columns(each) for each in _scored(ctx, scorer, items)]

    if job.input is not None:
        return predict_file(job, item, load, as_json=as_json)
    found = _scored(ctx, _load(ctx), [(text, pair) for text in texts])
    for text, each in zip(texts, found, strict=True):
        if as_json:
            said = {"text": text, **({} if pair is None else {"text_pair": pair})}
            click.echo(json_line({**said, **_columns(each)}))
        else:
            shown = [] if len(texts) == 1 else [one_line(text)]
            click.echo("\t".join([f"{each.score:z.4f}", *shown]))
    return say_cut(sum(each.truncated for each in found), len(found))


def _load(ctx: click.Context) -> "TextScorer":
    from minibert.prediction.scorer import TextScorer

    return loading(ctx).open(TextScorer.from_pretrained)


def _scored(ctx: click.Context, scorer: "TextScorer", items: list[Item]) -> "list[Score]":
    texts, pairs = columns_of(items)
    return scorer.score(
        texts,
        pairs,
        batch_tokens=loading(ctx).batch_tokens,
        show_progress_bar=False,
    )


def _columns(found: "Score") -> dict[str, Any]:
    """The columns that are added to a row."""
    return {"score": number(found.score), "truncated": found.truncated}
