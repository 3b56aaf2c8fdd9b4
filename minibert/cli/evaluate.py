"""`minibert evaluate`: measure the model of a run."""

import json
import math
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from minibert.training.metrics import Report
    from minibert.training.saved_run import Fitted


@click.command(short_help="Measure the model of a run on data.")
@click.argument("run_folder", metavar="RUN", type=click.Path(file_okay=False))
@click.argument("data", required=False, metavar="[DATA]")
@click.option(
    "--fit-thresholds",
    is_flag=True,
    help="First choose, on the run's validation rows, the threshold of each label and a "
    "temperature, and save them with the model.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda, cuda:1."
)
def evaluate(
    run_folder: str, data: str | None, fit_thresholds: bool, as_json: bool, device: str
) -> None:
    """Print the figures of the model in RUN, the output folder of minibert train, on DATA.

    DATA is a file, or a pattern of names, written as the files of the run are.  Without it the
    test rows of the run are taken, or, where it has none, its validation rows.

    \b
      minibert evaluate run new.csv
      minibert evaluate run --fit-thresholds
    """
    from minibert.training.saved_run import SavedRun

    saved = SavedRun(run_folder, device=device)
    if fit_thresholds:
        fitted = saved.fit(saved.own_examples("validation"))
        click.echo("\n".join(_lines(fitted)), err=as_json)
    if data is not None:
        examples = saved.examples(data)
    else:
        side = "test" if saved.run.data.test is not None else "validation"
        same = ", which the thresholds were fitted on" if side == "validation" else ""
        click.echo(f"on the {side} rows of the run{same if fit_thresholds else ''}", err=True)
        examples = saved.own_examples(side)
    report = saved.evaluate(examples)
    click.echo(_as_json(report) if as_json else report.table())


def _lines(fitted: "Fitted") -> list[str]:
    """What was fitted, for the terminal."""
    found = fitted.calibration
    why = f"; left at 1, for {found.unchanged}" if found.unchanged else ""
    return [
        *(f"threshold of {name}: {value:.4f}" for name, value in fitted.thresholds.items()),
        f"temperature: {found.temperature:.4f}, calibration error {found.ece_before:.4f} before "
        f"and {found.ece_after:.4f} after{why}",
    ]


def _as_json(report: "Report") -> str:
    """The figures; null for those that are undefined."""
    figures = {n: v if math.isfinite(v) else None for n, v in report.figures.items()}
    return json.dumps({"n_examples": report.n_examples, "figures": figures}, indent=1)
