"""`minibert parity`: record packs, compare stage by stage, compare tokenizers."""

from pathlib import Path

import click

from minibert.cli.models import DTYPE
from minibert.cli.parity_tokenizer import tokenizer


@click.group(short_help="Verify a BERT against a reference, stage by stage.")
def parity() -> None:
    """Verify a BERT against a reference: ours, a port, an export, a student's.

    \b
    record     run a model and keep its stages in a pack, one safetensors file
    compare    a model, a pack or arrays against a reference: the first stage that differs, and why
    check      the figures of parity, measured on a checkpoint, each beside its bound
    tokenizer  two tokenizers over a corpus: the first character that differs, and the rule
    """


@parity.command()
@click.option("--model", "name", required=True, metavar="NAME", help="A folder, or a name.")
@click.option("--output", required=True, type=click.Path(dir_okay=False), help="The pack.")
@click.option(
    "--with",
    "library",
    type=click.Choice(["minibert", "transformers"]),
    default="minibert",
    show_default=True,
    help="What runs the model.",
)
@click.option(
    "--dtype",
    type=DTYPE,
    default="float32",
    show_default=True,
    help="Of the computation.",
)
@click.option(
    "--input",
    "texts",
    type=click.Path(),
    metavar="FILE",
    help="Texts, one a line, a tab before the second of a pair; 16 of our own when not given.",
)
@click.option(
    "--stages",
    multiple=True,
    metavar="PATTERN",
    help="Only these, as in --stages 'layers.*.context'; may be given again.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Keep every N-th entry of each vector: a smaller pack, which has no local errors.",
)
def record(
    name: str,
    output: str,
    library: str,
    dtype: str,
    texts: str | None,
    stages: tuple[str, ...],
    every: int,
) -> None:
    """Run a model on a few texts and write its stages to a pack.

    The pack also holds the inputs, the configuration, the SHA-256 of every weight, and how far
    float32 and bfloat16 are from float64 at each stage, by which a comparison judges.
    """
    from minibert.parity.folders import record_folder
    from minibert.parity.pack import write_pack
    from minibert.parity.recording import TEXTS

    lines = TEXTS if texts is None else _pairs(Path(texts))
    recording = record_folder(
        name, library=library, dtype=dtype, texts=lines, stages=stages or ("*",), step=every
    )
    write_pack(recording, output)
    size = Path(output).stat().st_size
    click.echo(f"{output}: {len(recording.stages)} stages of {len(lines)} texts, {size:,} bytes")


def _pairs(path: Path) -> list[tuple[str, str | None]]:
    """The texts of a file, one a line; behind a tab the second of a pair."""
    from minibert.texts import read_texts

    found: list[tuple[str, str | None]] = []
    for text, _, _ in read_texts(path, format="txt"):
        first, tab, second = text.partition("\t")
        found.append((first, second if tab else None))
    return found


@parity.command()
@click.argument("candidate")
@click.argument("reference")
@click.option(
    "--model",
    metavar="NAME",
    help="The reference's weights, for local errors and causes, where a pack does not lead to "
    "them by itself.",
)
@click.option(
    "--mapping",
    type=click.Path(),
    metavar="FILE",
    help="JSON: from our stages to the candidate's arrays, and their axes.",
)
@click.option(
    "--dtype",
    type=DTYPE,
    help="What a candidate folder is computed in; the reference's when not given.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--html", type=click.Path(dir_okay=False), help="Also a page, with a map by token.")
@click.pass_context
def compare(
    context: click.Context,
    candidate: str,
    reference: str,
    model: str | None,
    mapping: str | None,
    dtype: str | None,
    as_json: bool,
    html: str | None,
) -> None:
    """Compare CANDIDATE with REFERENCE, stage by stage; exit with 1 where they differ.

    Each is a model (a folder or a name), a pack (.safetensors) or arrays (.npz). A model as
    candidate is run on the reference's inputs.
    """
    from minibert.parity.compare import compare as run

    found = run(candidate, reference, model=model, mapping=mapping, dtype=dtype)
    if html is not None:
        from minibert.parity.comparison_page import write_page

        write_page(found, html)
    click.echo(found.to_json() if as_json else str(found))
    context.exit(0 if found.equal else 1)


@parity.command()
@click.argument("model")
@click.option("--reference", metavar="PACK", help="The original, recorded in float64.")
@click.option(
    "--with",
    "library",
    type=click.Choice(["transformers"]),
    help="Record the original now, where it is installed.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def check(
    context: click.Context, model: str, reference: str | None, library: str | None, as_json: bool
) -> None:
    """Measure how near MODEL is to the original, and that its layouts, dtypes and files agree.

    Every stage in float32 and float64, unit vectors, packed against padded, bfloat16, saving and
    loading: a line each with its bound; exit with 1 where one is missed. The original's figures
    come with minibert for the models of the manifest.
    """
    if reference is not None and library is not None:
        raise click.UsageError("got --reference and --with, expected one of them")
    from minibert.parity.check import check as run
    from minibert.parity.check import shipped_reference
    from minibert.parity.folders import record_folder
    from minibert.parity.pack import read_pack

    if library is not None:
        recording = record_folder(model, library=library, dtype="float64")
    else:
        recording = shipped_reference(model) if reference is None else read_pack(reference)
    found = run(model, recording)
    click.echo(found.to_json() if as_json else str(found))
    context.exit(0 if found.holds else 1)


parity.add_command(tokenizer)
