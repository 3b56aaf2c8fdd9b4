"""`minibert init`: propose a run file for a file of labelled rows."""

import click

from minibert.training.run_keys import TASKS


@click.command(short_help="Propose a run file for a file of labelled rows.")
@click.argument("file", metavar="FILE")
@click.option("--task", type=click.Choice(list(TASKS)), help="What is to be learnt.")
@click.option(
    "--text", metavar="COLUMN", help="The text, or the lists of words, by name or by number from 1."
)
@click.option("--text-pair", metavar="COLUMN", help="The second text of a pair.")
@click.option(
    "--label",
    "labels",
    metavar="COLUMN",
    multiple=True,
    help="The label, or the lists of tags; given several times, columns of 0 and 1, one a label.",
)
@click.option("--model", default="all-MiniLM-L6-v2", show_default=True, help="What to start from.")
@click.option("--output", default="run", show_default=True, help="The folder of the run.")
def init(
    file: str,
    task: str | None,
    text: str | None,
    text_pair: str | None,
    labels: tuple[str, ...],
    model: str,
    output: str,
) -> None:
    """Look at FILE and print a run file for it, with what speaks for each choice as comments.

    \b
      minibert init reviews.csv > run.toml
      minibert train run.toml

    FILE holds labelled rows (csv, tsv, jsonl, conll, lines of a label and a text), or is a folder
    or a zip archive with a folder of texts for each label. What is given by an option is not
    guessed. Read what is proposed before you train: training guesses nothing.
    """
    from minibert.training.proposal import propose

    found = propose(
        file,
        task=task,
        text=text,
        text_pair=text_pair,
        labels=labels,
        model=model,
        output=output,
    )
    click.echo(found.encode(), nl=False)  # a run file is UTF-8, whatever the terminal is
