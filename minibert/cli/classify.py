"""`minibert classify`: the labels of texts."""

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
from minibert.cli.records import Joined, json_line, pair_in
from minibert.training.rows import Row

if TYPE_CHECKING:
    from minibert.prediction.classifier import Classification, TextClassifier

Item = tuple[str, str | None]


@click.command(short_help="Say which labels texts have.")
@model_options
@click.argument("texts", nargs=-1, metavar="[TEXT]…")
@click.option("--pair", metavar="TEXT", help="The second text of each TEXT, for models of pairs.")
@file_options
@click.option("--text", "column", metavar="COLUMN", help='Of the text. Default: "text".')
@click.option("--text-pair", "pair_column", metavar="COLUMN", help="Of the second text of a pair.")
@click.option("--proba", is_flag=True, help="The probability of every label too.")
@click.option(
    "--top-k", type=click.IntRange(min=1), metavar="N", help="The N most probable labels too."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a text, or a row.")
@click.pass_context
def classify(
    ctx: click.Context,
    texts: tuple[str, ...],
    pair: str | None,
    column: str | None,
    pair_column: str | None,
    proba: bool,
    top_k: int | None,
    as_json: bool,
) -> None:
    """Say which label each TEXT has, or each row of a file.

    MODEL is the folder of a run of minibert train, or a model that transformers saved.

    \b
      minibert classify run "A film that stays with you."
      minibert classify run --input reviews.csv --output labelled.csv

    It prints label and probability. A file is csv, tsv, jsonl (an object a line) or txt (a text a
    line); to its rows it adds the columns label, probability and truncated. Where a text may have
    several labels, they are those above their threshold, the most probable first.
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
        classifier = _load(ctx)
        classifier.settle(n_rows)
        return lambda items: [
            _columns(classifier, each, proba=proba, top_k=top_k)
            for each in _classified(ctx, classifier, items)
        ]

    if job.input is not None:
        return predict_file(job, item, load, as_json=as_json)
    classifier = _load(ctx)
    found = _classified(ctx, classifier, [(text, pair) for text in texts])
    for text, each in zip(texts, found, strict=True):
        if as_json:
            values = _columns(classifier, each, proba=proba, top_k=top_k)
            click.echo(json_line({"text": text, **values}))
        elif proba or top_k:
            _print_ranking(each, text if len(texts) > 1 else None, top_k)
        else:
            _print(each, text if len(texts) > 1 else None)
    return say_cut(sum(each.truncated for each in found), len(found))


def _load(ctx: click.Context) -> "TextClassifier":
    from minibert.prediction.classifier import TextClassifier

    return loading(ctx).open(TextClassifier.from_pretrained)


def _classified(
    ctx: click.Context, classifier: "TextClassifier", items: list[Item]
) -> "list[Classification]":
    texts, pairs = columns_of(items)
    return classifier.classify(
        texts,
        pairs,
        batch_tokens=loading(ctx).batch_tokens,
        show_progress_bar=False,
    )


def _columns(
    classifier: "TextClassifier", found: "Classification", *, proba: bool, top_k: int | None
) -> dict[str, Any]:
    """The columns that are added to a row."""
    values: dict[str, Any] = {"label": found.label, "probability": number(found.probability)}
    if classifier.settings.task == "multilabel":
        likely = [number(found.probabilities[label]) for label in found.labels]
        if any("," in label for label in classifier.labels):  # then a table holds JSON
            values = {"label": list(found.labels), "probability": likely}
        else:
            labels = list(found.labels)
            values = {"label": Joined(labels, ","), "probability": Joined(likely, ",")}
    if proba:
        for label, likely_of in found.probabilities.items():
            values[f"probability_{label}"] = number(likely_of)
    if top_k is not None:
        for place, (label, likely_of) in enumerate(_ranking(found)[:top_k], 1):
            values[f"label_{place}"] = label
            values[f"label_{place}_probability"] = number(likely_of)
    values["truncated"] = found.truncated
    return values


def _ranking(found: "Classification") -> list[tuple[str, float]]:
    """All labels, the most probable first."""
    return sorted(found.probabilities.items(), key=lambda each: -each[1])


def _print(found: "Classification", text: str | None) -> None:
    """A line: label, probability and, of several texts, the text."""
    labels = ", ".join(found.labels) or "(none)"
    likely = ", ".join(f"{found.probabilities[label]:.4f}" for label in found.labels)
    click.echo("\t".join([labels, likely, *([] if text is None else [one_line(text)])]))


def _print_ranking(found: "Classification", text: str | None, top_k: int | None) -> None:
    """A line a label: its probability, and its name."""
    if text is not None:
        click.echo(one_line(text))
    for label, likely in _ranking(found)[:top_k]:
        click.echo(f"{'' if text is None else '  '}{likely:.4f}\t{label}")
