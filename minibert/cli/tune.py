"""`minibert tune`: search the settings of a run."""

import click

from minibert.cli import StoppedError
from minibert.training.run_config import RunConfig


@click.command(short_help="Search the settings of a run: grid, random or TPE.")
@click.argument("run_file", type=click.Path(dir_okay=False), metavar="RUN.TOML")
@click.option(
    "--space",
    "space_file",
    type=click.Path(dir_okay=False),
    metavar="SPACE.TOML",
    help="What is searched; rates, decay, warmup and batch size when not given.",
)
@click.option(
    "--method",
    type=click.Choice(["grid", "random", "tpe"]),
    default="tpe",
    show_default=True,
    help="All combinations; at random; or learning from the trials before.",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    metavar="N",
    help="Trials of the whole search; 20 when not given, of a grid all.",
)
@click.option("--overwrite", is_flag=True, help="Start anew where the output holds a search.")
def tune(
    run_file: str, space_file: str | None, method: str, trials: int | None, overwrite: bool
) -> None:
    """Train as RUN.TOML says with many settings, and print those of the best.

    \b
      minibert tune run.toml --trials 30
      minibert tune run.toml --space space.toml --method grid

    SPACE.TOML has the tables of a run file, and each key in it values or a range:

    \b
      [optimizer]
      learning_rate = { low = 1e-5, high = 3e-4, log = true }
      [training]
      batch_size = [16, 32]

    Before the first trial one batch is computed at every end of the space.  Each trial is a run in
    OUTPUT/trials; the model of the best is kept.  Stopped or killed, the same command goes on.
    """
    config = RunConfig.from_file(run_file)
    try:
        from minibert.training.search_space import read_space
        from minibert.training.tuning import tune as search

        space = None if space_file is None else read_space(space_file, config)
        found = search(
            config,
            space=space,
            method=method,
            n_trials=trials,
            overwrite=overwrite,
            say=lambda line: click.echo(line, err=True),
        )
    except KeyboardInterrupt:
        raise StoppedError("stopped; started again, the same command goes on") from None
    click.echo(found.table())
