"""`minibert doctor`: look at a run before it begins."""

from pathlib import Path

import click

from minibert.training.run_config import RunConfig


@click.command(short_help="Look at a run before it begins: data, network, time and memory.")
@click.argument("run_file", type=click.Path(dir_okay=False), metavar="RUN.TOML")
@click.option("--json", "as_json", is_flag=True, help="Print findings and figures as JSON.")
@click.option(
    "--find-rate", is_flag=True, help="Instead: propose a learning rate, by updates at many rates."
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="With --find-rate: draw the losses over the rates.",
)
@click.pass_context
def doctor(
    context: click.Context, run_file: str, as_json: bool, find_rate: bool, plot: Path | None
) -> None:
    """Check what RUN.TOML trains on, and try whether it can learn; nothing is changed.

    \b
      minibert doctor run.toml
      minibert doctor run.toml --find-rate --plot rates.png

    All examples are looked at: their labels, lengths, words that the tokenizer does not know,
    repeated and contradicting texts, texts on both sides of a split.  Then one batch is learnt by
    heart and a few updates are timed, on a copy of the network.  The exit status is 1 where an
    error is found.

    With --find-rate a copy makes about 100 updates, the rate of which grows from 1e-7 to 1 or until
    the loss is four times its best.  What is proposed is the rate at which it falls fastest, or a
    tenth of the one at which it starts to rise, if that is lower.
    """
    if plot is not None and not find_rate:
        raise click.UsageError("--plot goes with --find-rate")
    config = RunConfig.from_file(run_file)
    if find_rate:
        _find_rate(config, as_json=as_json, plot=plot)
        return
    from minibert.training.consultation import consult

    found = consult(config, say=_say)
    click.echo(found.to_json() if as_json else found.table())
    if any(each.severity == "error" for each in found.findings):
        context.exit(1)


def _find_rate(config: RunConfig, *, as_json: bool, plot: Path | None) -> None:
    from minibert.training.consultation import set_up_aside
    from minibert.training.rate_finder import find_rate

    with set_up_aside(config, say=_say) as setup:
        found = find_rate(setup)
    click.echo(found.to_json() if as_json else found.table())
    if plot is not None:
        found.draw(plot)


def _say(line: str) -> None:
    click.echo(line, err=True)
