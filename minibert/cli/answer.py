"""`minibert answer`: the part of a text that answers a question."""

from collections.abc import Callable
from pathlib import Path
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
from minibert.cli.records import json_line, text_in
from minibert.errors import DataError
from minibert.training.rows import Row

if TYPE_CHECKING:
    from minibert.prediction.answerer import Answer, QuestionAnswerer

Item = tuple[str, str]


@click.command(short_help="Answer questions from texts.")
@model_options
@click.option("--question", metavar="TEXT", help="What is asked; of a file, of every row.")
@click.option("--context", metavar="TEXT", help="The text that it is answered from.")
@click.option(
    "--context-file", type=click.Path(path_type=Path), metavar="FILE", help="A file of that text."
)
@file_options
@click.option("--question-column", metavar="COLUMN", help='Of the question. Default: "question".')
@click.option("--context-column", metavar="COLUMN", help='Of the context. Default: "context".')
@click.option(
    "--no-answer/--always-answer",
    default=None,
    help="There may be none, or never. Default: as the model was trained.",
)
@click.option(
    "--max-answer-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="That an answer may have. Default: as the model was trained, else 30.",
)
@click.option("--top-k", type=click.IntRange(min=1), default=1, metavar="N", help="Answers shown.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, or one a row.")
@click.pass_context
def answer(
    ctx: click.Context,
    question: str | None,
    context: str | None,
    context_file: Path | None,
    question_column: str | None,
    context_column: str | None,
    no_answer: bool | None,
    max_answer_tokens: int | None,
    top_k: int,
    as_json: bool,
) -> None:
    """Find the part of a text that answers a question; for each row of a file too.

    MODEL is the folder of a run of minibert train, or a model that transformers saved.

    \b
      minibert answer run --question "Where does Anna live?" --context "Anna lives in Paris."
      minibert answer run --input questions.csv --output answered.csv

    It prints the answer and how probable it is. A context may have any length. To the rows of a
    file it adds the columns answer, score, start, end and truncated: start and end are characters
    of the context, and an empty answer says that there is none.
    """
    job = files(ctx)
    job.check(
        texts=context is not None or context_file is not None,
        what="--context",
        of_texts={},
        of_files={"--question-column": question_column, "--context-column": context_column},
    )

    def load(n_rows: int | None) -> Callable[[list[Item]], list[dict[str, Any]]]:
        answerer = _load(ctx)
        answerer.settle(n_rows)

        def predict(items: list[Item]) -> list[dict[str, Any]]:
            found = _answered(ctx, answerer, items, top_k, max_answer_tokens, no_answer)
            return [_columns(each, top_k) for each in found]

        return predict

    def item(row: Row) -> Item:
        asked = text_in(row, question_column, "question") if question is None else question
        return asked, text_in(row, context_column, "context")

    if job.input is not None:
        return predict_file(job, item, load, as_json=as_json)
    if question is None:
        raise click.UsageError("missing --question, or a file of questions with --input")
    text = _context(context, context_file)
    items = [(question, text)]
    (found,) = _answered(ctx, _load(ctx), items, top_k, max_answer_tokens, no_answer)
    if as_json:
        click.echo(json_line({"question": question, **_columns(found, top_k)}))
    else:
        for each in found.candidates:
            click.echo(f"{each.score:.4f}\t{one_line(each.answer) or '(none)'}")
        if not found.candidates:
            click.echo("(none)")
    return say_cut(int(found.truncated), 1)


def _context(text: str | None, file: Path | None) -> str:
    if text is not None and file is not None:
        raise click.UsageError("got --context and --context-file, expected one of them")
    if text is not None:
        return text
    assert file is not None  # one of them is there
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: byte {error.start} is no UTF-8; convert the file") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None


def _load(ctx: click.Context) -> "QuestionAnswerer":
    from minibert.prediction.answerer import QuestionAnswerer

    return loading(ctx).open(QuestionAnswerer.from_pretrained)


def _answered(
    ctx: click.Context,
    answerer: "QuestionAnswerer",
    items: list[Item],
    top_k: int,
    max_answer_tokens: int | None,
    no_answer: bool | None,
) -> "list[Answer]":
    return answerer.answer(
        [question for question, _ in items],
        [context for _, context in items],
        top_k=top_k,
        max_answer_tokens=max_answer_tokens,
        no_answer=no_answer,
        batch_tokens=loading(ctx).batch_tokens,
        show_progress_bar=False,
    )


def _columns(found: "Answer", top_k: int) -> dict[str, Any]:
    """The columns that are added to a row."""
    values: dict[str, Any] = {
        "answer": found.answer,
        "score": number(found.score),
        "start": found.start,
        "end": found.end,
    }
    if top_k > 1:
        values["candidates"] = [
            {**each._asdict(), "score": number(each.score)} for each in found.candidates
        ]
    values["truncated"] = found.truncated
    return values
