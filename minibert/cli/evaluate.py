"""`minibert evaluate`: measure the model of a run."""

import json
import math

import click


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
def evaluate(run_folder: str, data: str | None, fit_thresholds: bool, as_json: bool) -> None:
    """Print the figures of the model in RUN, the output folder of minibert train, on DATA.

    DATA is a file, or a pattern of names, written as the files of the run are.  Without it the
    test rows of the run are taken, or, where it has none, its validation rows.

    \b
      minibert evaluate run new.csv
      minibert evaluate run --fit-thresholds
    """
    from minibert.training.saved_run import SavedRun

    saved = SavedRun(run_folder)
    if fit_thresholds:
        fitted = saved.fit(saved.own_examples("validation"))
        found = fitted.calibration
        lines = [f"threshold of {name}: {value:.4f}" for name, value in fitted.thresholds.items()]
        lines.append(
            f"temperature: {found.temperature:.4f}, calibration error {found.ece_before:.4f} "
            f"before and {found.ece_after:.4f} after"
            + (f"; left as it was, for {found.unchanged}" if found.unchanged else "")
        )
        click.echo("\n".join(lines), err=as_json)
    if data is not None:
        examples = saved.examples(data)
    else:
        side = "test" if saved.run.data.test is not None else "validation"
        click.echo(f"on the {side} rows of the run", err=True)
        examples = saved.own_examples(side)
    report = saved.evaluate(examples)
    if not as_json:
        click.echo(report.table())
        return
    figures = {n: None if math.isnan(v) else v for n, v in report.figures.items()}
    click.echo(json.dumps({"n_examples": report.n_examples, "figures": figures}, indent=1))
