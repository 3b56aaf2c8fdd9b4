"""`minibert train`: follow a run file."""

import click

from minibert.cli import StoppedError
from minibert.training.run_config import RunConfig, template
from minibert.training.run_keys import TASKS


@click.command(short_help="Train a model as a run file says.")
@click.argument("run_file", required=False, type=click.Path(dir_okay=False), metavar="RUN.TOML")
@click.option(
    "--print-config",
    "task",
    type=click.Choice(list(TASKS)),
    help="Print a run file for a task: every key, its meaning and its default.",
)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint, bit for bit.")
@click.option("--overwrite", is_flag=True, help="Start anew where the output holds a run.")
@click.option(
    "--allow-changes",
    is_flag=True,
    help="With --resume: go on although the run file, the data or the model changed.",
)
@click.option(
    "--stop-on",
    type=click.Choice(["error", "warning"]),
    help="End the run when the doctor finds something as grave as that.",
)
@click.pass_context
def train(
    context: click.Context,
    run_file: str | None,
    task: str | None,
    resume: bool,
    overwrite: bool,
    allow_changes: bool,
    stop_on: str | None,
) -> None:
    """Train as RUN.TOML says; its output folder then holds the model, log, figures and a report.

    \b
      minibert train --print-config binary > run.toml
      minibert train run.toml
      torchrun --nproc-per-node 2 -m minibert train run.toml

    Ctrl-C ends it after the update that is being made, with a checkpoint to go on from; a second
    one at once.
    """
    if task is not None:
        click.echo(template(task), nl=False)
        return
    if run_file is None:
        raise click.UsageError("missing RUN.TOML; --print-config TASK writes one")
    if allow_changes and not resume:
        raise click.UsageError("--allow-changes goes with --resume")
    config = RunConfig.from_file(run_file)
    try:
        from minibert.training.processes import together
        from minibert.training.run import train as run

        with together() as processes:
            outcome = run(
                config,
                resume=resume,
                overwrite=overwrite,
                allow_changes=allow_changes,
                stop_on=stop_on,
            )
    except KeyboardInterrupt:
        raise _stopped(config, run_file) from None
    if not processes.is_first:
        context.exit(0 if outcome.finished else 130)
    if not outcome.finished:
        raise _stopped(config, run_file)
    if outcome.n_skipped:
        click.echo(f"updates that were skipped, for they had no label: {outcome.n_skipped}")
    for name, figures in (("validation", outcome.validation), ("test", outcome.test)):
        if figures is not None:
            click.echo(f"{name}\n{figures.table()}\n")
    click.echo(f"the model is in {outcome.folder / 'model'}")
    if (report := outcome.folder / "report.html").is_file():
        click.echo(f"the report is in {report}")


def _stopped(config: RunConfig, run_file: str) -> StoppedError:
    """What is said when it was stopped: how to go on, where that can be done."""
    # By their names: state.py imports torch, in whose import it may have been stopped.
    found = sorted((config.path(config.output) / "checkpoints").glob("step-*"))
    if not found:
        return StoppedError("stopped, before there was a checkpoint to go on from")
    return StoppedError(
        f"stopped; the newest checkpoint is {found[-1].name}: go on with minibert train "
        f"{run_file} --resume"
    )
