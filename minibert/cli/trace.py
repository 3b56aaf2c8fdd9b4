"""`minibert trace`: what a text becomes at every stage, in the terminal or as a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minibert.cli.models import model_options
from minibert.columns import aligned

if TYPE_CHECKING:
    from minibert.parity.traced_text import StageSummary


@click.command(short_help="Look at what a text becomes inside the network.")
@click.argument("text")
@click.option("--pair", metavar="TEXT", help="A second text, for models of pairs.")
@model_options
@click.option(
    "--html",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write a page: tokens, attention of every head, what each layer changes.",
)
@click.option(
    "--stages",
    multiple=True,
    metavar="PATTERN",
    help="Only these in the table, as in --stages 'layers.*.context'; may be given again.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens from which on a text is cut, at most the model's positions.  [default: 128]",
)
def trace(
    text: str,
    pair: str | None,
    name: str,
    dtype: str,
    revision: str | None,
    sha256: str | None,
    offline: bool,
    html: str | None,
    stages: tuple[str, ...],
    max_length: int | None,
) -> None:
    """Run TEXT through a model and show what it becomes at every stage.

    Without --html it prints a table: of each stage the shape, the mean length of a token's vector,
    the smallest and the largest value. With --html it writes a page that needs no network, and
    prints the table only where --stages asks for it.
    """
    from minibert.parity.folders import network_class
    from minibert.parity.trace_page import STAGES, page
    from minibert.parity.traced_text import summaries, trace_text
    from minibert.tokenizer import Tokenizer
    from minibert.weights import resolve

    folder = resolve(name, revision=revision, sha256=sha256, offline=offline)
    tokenizer = Tokenizer.from_pretrained(folder)
    model = network_class(folder).from_pretrained(folder, dtype=dtype)
    wanted = stages or (() if html else ("*",))
    kept = [*wanted, *(STAGES if html else ())]
    traced = trace_text(model, tokenizer, text, pair, max_length=max_length, stages=kept)
    if traced.cut_note:
        click.echo(traced.cut_note)
    rows = summaries(traced)
    if wanted:
        from minibert.parity.stages import select

        shown = set(select(list(traced.stages), wanted))
        click.echo(" ".join(traced.tokens))
        _print_table([row for row in rows if row.name in shown])
    if html:
        from minibert.pages import write_page

        write_page(page(traced, name=name), html)
        size = Path(html).stat().st_size
        click.echo(f"{html}: {len(traced.tokens)} tokens, {size:,} bytes")
    if broken := [row for row in rows if row.n_not_finite]:
        click.echo(
            f"NOT FINITE: {len(broken)} of {len(rows)} stages, {broken[0].name} first, which has "
            f"{broken[0].n_not_finite:,} such values",
            err=True,
        )


def _print_table(rows: "Sequence[StageSummary]") -> None:
    lines = [("stage", "shape", "norm", "smallest", "largest", "")]
    for row in rows:
        norm = "" if row.norm is None else f"{row.norm:.3f}"
        warning = f"{row.n_not_finite:,} NOT FINITE" if row.n_not_finite else ""
        bounds = (f"{row.low:.3f}", f"{row.high:.3f}") if row.low <= row.high else ("", "")
        lines.append((row.name, str(row.shape), norm, *bounds, warning))
    for line in aligned(lines, left=(0, 1, 5)):
        click.echo(line)
