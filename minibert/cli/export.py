"""`minibert export`: a model as a program that runs without minibert."""

from pathlib import Path

import click

from minibert.cli.models import DTYPE


@click.command(short_help="Write a model as ONNX or a torch.export program.")
@click.argument("model")
@click.option(
    "--to", type=click.Choice(["onnx", "torch"]), required=True, help="What to write, see above."
)
@click.option(
    "--output", required=True, metavar="FOLDER", type=click.Path(file_okay=False), help="Where to."
)
@click.option(
    "--dtype",
    type=DTYPE,
    default="float32",
    show_default=True,
    help="Of weights and computation; ONNX takes float32 and float16.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=3),
    metavar="N",
    help="The most tokens of a text. Default: what the model says.",
)
@click.option(
    "--opset", type=int, metavar="N", help="The version of ONNX's operators, 18 to 23. Default: 20."
)
@click.option(
    "--check/--no-check",
    "checked",
    default=True,
    help="Run what was exported, and compare it with the network; the default.",
)
@click.option(
    "--reference",
    metavar="PACK",
    help="A recording of these weights to compare with too; of models of the manifest one comes "
    "with minibert.",
)
@click.option("--overwrite", is_flag=True, help="Replace a folder that holds an export.")
@click.option("--offline", is_flag=True, help="Open no connection.")
@click.pass_context
def export(
    ctx: click.Context,
    model: str,
    to: str,
    output: str,
    dtype: str,
    max_length: int | None,
    opset: int | None,
    checked: bool,
    reference: str | None,
    overwrite: bool,
    offline: bool,
) -> None:
    """Write MODEL as a program that runs without minibert, for any batch and any length.

    MODEL is a model of the manifest, a folder, a hub id, or the folder of a run of minibert train:
    an encoder, a model of sentence-transformers, or one with a trained head.

    \b
    onnx   FOLDER/onnx/model.onnx, for onnxruntime and others; needs the extra export
    torch  FOLDER/model.pt2, for torch.export.load

    \b
      minibert export all-MiniLM-L6-v2 --to onnx --output exported
      minibert export run --to torch --output exported

    Tokenizer, configuration and recipe go along, and export.json, which says what goes in and what
    comes out. What was written is run on texts of several lengths and compared with the network,
    in multiples of the noise of its dtype: a line each; where one differs nothing is left in
    FOLDER, and the exit status is 1.
    """
    if reference is not None and not checked:
        raise click.UsageError("got --reference and --no-check, expected one of them")
    from minibert.export.folder import DifferingExportError
    from minibert.export.folder import export as run
    from minibert.parity.pack import read_pack

    try:
        written = run(
            model,
            Path(output),
            to=to,
            dtype=dtype,
            max_length=max_length,
            opset=opset,
            checked=checked,
            reference=None if reference is None else read_pack(reference),
            overwrite=overwrite,
            offline=offline,
            say=lambda line: click.echo(line, err=True),
        )
    except DifferingExportError as error:
        click.echo(error.checked)
        click.echo(f"minibert: {error}", err=True)
        ctx.exit(1)
    if written.checked is not None:
        click.echo(written.checked)
    click.echo(f"{written.path}: {written.bytes:,} bytes")
