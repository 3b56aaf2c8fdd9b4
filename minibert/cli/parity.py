"""`minibert parity`: record packs, compare stage by stage, compare tokenizers."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from minibert.cli.models import DTYPE
from minibert.cli.parity_tokenizer import tokenizer

if TYPE_CHECKING:
    from minibert.parity.recording import Recording


@click.group(short_help="Verify a BERT against a reference, stage by stage.")
def parity() -> None:
    """Verify a BERT against a reference: ours, a port, an export, a student's.

    \b
    record     run a model and keep its stages in a pack, one safetensors file
    compare    a model, a pack or arrays against a reference: the first stage that differs, and why
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
    from minibert.parity.pack import write_pack
    from minibert.parity.recording import TEXTS

    lines = list(TEXTS) if texts is None else _pairs(Path(texts))
    recording = _record(name, library, dtype, lines, stages or ("*",), every)
    write_pack(recording, output)
    size = Path(output).stat().st_size
    click.echo(f"{output}: {len(recording.stages)} stages of {len(lines)} texts, {size:,} bytes")


def _record(
    name: str,
    library: str,
    dtype: str,
    lines: list[tuple[str, str | None]],
    stages: tuple[str, ...],
    every: int,
) -> "Recording":
    import minibert.parity.recording as recordings
    from minibert.parity.compare import network_class
    from minibert.parity.reference import record_transformers
    from minibert.parity.stages import select
    from minibert.tokenizer import Tokenizer
    from minibert.weights import resolve

    folder = resolve(name)
    tokens = Tokenizer.from_pretrained(folder)
    network = None
    if library == "minibert":
        network = network_class(folder).from_pretrained(folder, dtype=dtype)
        longest = network.config.max_position_embeddings
    else:
        from minibert.config import BertConfig

        longest = BertConfig.from_file(folder / "config.json").max_position_embeddings
    inputs = recordings.inputs_of(lines, tokens, longest)
    if network is not None:
        found = recordings.record(network, inputs, stages=stages, step=every)
    else:
        found = record_transformers(folder, inputs, dtype=dtype)
        chosen = select(list(found.stages), stages)
        found.stages = {stage: found.stages[stage][..., ::every] for stage in chosen}
        found.steps = dict.fromkeys(chosen, every) if every > 1 else {}
    found.model_name = name
    found.texts = recordings.token_texts(inputs, tokens)
    return found


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
        from minibert.parity.page import write_page

        write_page(found, html)
    click.echo(found.to_json() if as_json else str(found))
    context.exit(0 if found.equal else 1)


parity.add_command(tokenizer)
