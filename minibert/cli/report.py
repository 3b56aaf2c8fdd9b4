"""`minibert report`: write the page about a run anew."""

from pathlib import Path

import click


@click.command(short_help="Write the page about a run.")
@click.argument("run_folder", metavar="RUN", type=click.Path(file_okay=False))
def report(run_folder: str) -> None:
    """Write report.html into RUN, the output folder of minibert train, from what lies there.

    \b
      minibert report run

    The page needs no network: what the doctor found, curves, gradients by layer, confusions, the
    worst answers, the data, the settings.  minibert train writes it when a run ends or is stopped;
    this writes it at any other time, of a run that is going on too.
    """
    from minibert.training.report_page import write_report

    path = write_report(Path(run_folder))
    click.echo(f"{path}: {path.stat().st_size:,} bytes")
