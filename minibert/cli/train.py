"""`minibert train`: follow a run file."""

import click

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
@click.pass_context
def train(
    context: click.Context, run_file: str | None, task: str | None, resume: bool, overwrite: bool
) -> None:
    """Train as RUN.TOML says; its output folder then holds the model, the log and the figures.

    \b
      minibert train --print-config binary > run.toml
      minibert train run.toml
      torchrun --nproc-per-node 2 -m minibert train run.toml

    Ctrl-C ends it after the update that is being made, with a checkpoint to go on from.
    """
    if task is not None:
        click.echo(template(task), nl=False)
        return
    if run_file is None:
        raise click.UsageError("missing RUN.TOML; --print-config TASK writes one")
    from minibert.training.processes import together
    from minibert.training.run import train as run

    with together() as processes:
        outcome = run(RunConfig.from_file(run_file), resume=resume, overwrite=overwrite)
    if not processes.is_first:
        context.exit(0 if outcome.finished else 130)
    if not outcome.finished:
        click.echo(f"stopped; go on with minibert train {run_file} --resume", err=True)
        context.exit(130)
    for name, report in (("validation", outcome.validation), ("test", outcome.test)):
        if report is not None:
            click.echo(f"{name}\n{report.table()}\n")
    click.echo(f"the model is in {outcome.folder / 'model'}")
