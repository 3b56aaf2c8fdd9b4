"""`minibert tag`: tags of words, and the entities that they spell."""

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
from minibert.cli.records import Joined, json_line, text_or_words_in
from minibert.training.rows import Row

if TYPE_CHECKING:
    from minibert.prediction.tagger import Tagging, TokenTagger

Item = str | list[str]


@click.command(short_help="Tag the words of texts, and find entities.")
@model_options
@click.argument("texts", nargs=-1, metavar="[TEXT]…")
@file_options
@click.option(
    "--text",
    "column",
    metavar="COLUMN",
    help='Of the text, or of the list of its words. Default: "text", else "tokens".',
)
@click.option("--words", is_flag=True, help="Print every word with its tag, not entities.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a text, or a row.")
@click.pass_context
def tag(
    ctx: click.Context, texts: tuple[str, ...], column: str | None, words: bool, as_json: bool
) -> None:
    """Give each word of each TEXT a tag, or of each row of a file.

    MODEL is the folder of a run of minibert train, or a model that transformers saved.

    \b
      minibert tag run "Anna Smith lives in Paris."
      minibert tag run --input notes.jsonl --output tagged.jsonl

    It prints the entities that the tags spell, with probabilities; of tags of another kind (parts
    of speech) every word. A text is split into words at blanks and punctuation marks; in jsonl a
    list is taken for the words of a text, and so is a sentence of conll. To the rows of a file it
    adds the columns words, tags, entities and truncated.
    """
    job = files(ctx)
    job.check(texts=bool(texts), what="texts", of_texts={}, of_files={"--text": column})

    def item(row: Row) -> Item:
        default = "text" if "text" in row.values or "tokens" not in row.values else "tokens"
        return text_or_words_in(row, column, default)

    def load(n_rows: int | None) -> Callable[[list[Item]], list[dict[str, Any]]]:
        tagger = _load(ctx)
        tagger.settle(n_rows)
        return lambda items: [_columns(tagger, each) for each in _tagged(ctx, tagger, items)]

    if job.input is not None:
        return predict_file(job, item, load, as_json=as_json)
    tagger = _load(ctx)
    found = _tagged(ctx, tagger, list(texts))
    for text, each in zip(texts, found, strict=True):
        if as_json:
            click.echo(json_line({"text": text, **_columns(tagger, each)}))
            continue
        if len(texts) > 1:
            click.echo(one_line(text))
        _print(each, words or not tagger.has_entities, "  " if len(texts) > 1 else "")
    return say_cut(sum(each.truncated for each in found), len(found))


def _load(ctx: click.Context) -> "TokenTagger":
    from minibert.prediction.tagger import TokenTagger

    return loading(ctx).open(TokenTagger.from_pretrained)


def _tagged(ctx: click.Context, tagger: "TokenTagger", items: list[Item]) -> "list[Tagging]":
    batch_tokens = loading(ctx).batch_tokens
    return tagger.tag(tuple(items), batch_tokens=batch_tokens, show_progress_bar=False)


def _columns(tagger: "TokenTagger", found: "Tagging") -> dict[str, Any]:
    """The columns that are added to a row."""
    values: dict[str, Any] = {
        "words": Joined([word.word for word in found.words], " "),
        "tags": Joined(found.tags, " "),
        "probabilities": Joined([number(word.probability) for word in found.words], " "),
    }
    if tagger.has_entities:
        values["entities"] = [
            {**entity._asdict(), "probability": number(entity.probability)}
            for entity in found.entities
        ]
    values["truncated"] = found.truncated
    return values


def _print(found: "Tagging", words: bool, margin: str) -> None:
    """A line for each entity, or each word: tag, probability, text."""
    if words:
        for word in found.words:
            click.echo(f"{margin}{word.tag}\t{word.probability:.4f}\t{word.word}")
        return
    for entity in found.entities:
        click.echo(f"{margin}{entity.label}\t{entity.probability:.4f}\t{one_line(entity.text)}")
    if not found.entities:
        click.echo(f"{margin}(none)")
