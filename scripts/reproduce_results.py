"""Trains on real tasks and writes the table of docs/results.md, one cell at a time.

    python scripts/reproduce_results.py --data FOLDER [--only sst2] [--seeds 1,2,3] [--list]

A cell is a task, a variant of it and a seed; what it came to is kept in docs/results.json, and a
cell that is there is not computed again (`--again` does).  Stopped at any moment, the same command
goes on with the cells that are missing.  Each is trained by `minibert.training.run.train`, as
`minibert train` does, in a folder of its own below --runs.

The recipe is that of the transformers Trainer's figures in scripts/trainer_results.json: encoder
all-MiniLM-L6-v2 with a fresh head, 3 epochs, batches of 32, rate 1e-4 falling linearly after a
warmup of a tenth, weight decay 0.01, texts cut at 128 tokens (movie_reviews: 256).
"""

import argparse
import csv
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pages import between_marks

from minibert import Embedder
from minibert.errors import MinibertError
from minibert.files import replacing
from minibert.training.checkup import FILE as DOCTOR
from minibert.training.run import train
from minibert.training.run_config import RunConfig
from minibert.training.saved_run import SavedRun

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results.json"
PAGE = ROOT / "docs" / "results.md"
TRAINER = ROOT / "scripts" / "trainer_results.json"

MODEL = "all-MiniLM-L6-v2"
LABELLED_LINES = {
    "format": "csv", "delimiter": " ", "quoting": False, "header": False, "columns": 2,
    "extra_columns": "join", "label": "1", "text": "2",
}  # fmt: skip
STSB = {
    "format": "tsv", "quoting": False, "header": False, "columns": 7, "extra_columns": "ignore",
    "label": "5", "text": "6", "text_pair": "7",
}  # fmt: skip

Tables = dict[str, Any]


class Cell(NamedTuple):
    """One training run of the table."""

    task: str
    variant: str  # "" for the plain recipe
    seed: int

    @property
    def name(self) -> str:
        return "-".join(str(part) for part in self if part != "")


class Experiment(NamedTuple):
    """A row of the table."""

    figure: str  # what it is measured by
    tables: Callable[[Path, str], Tables]  # the run file's, of the data and a variant
    variants: tuple[str, ...] = ("",)
    seeds: tuple[int, ...] = (1, 2, 3)
    measure: Callable[[SavedRun], Mapping[str, float]] | None = None  # beside the figures


def sst2(data: Path, variant: str) -> Tables:
    parts = {"train": "train", "validation": "dev", "test": "test"}
    files = {side: str(data / "sst2" / f"stsa.binary.{part}") for side, part in parts.items()}
    return {"task": "binary", "data": {**LABELLED_LINES, **files}}


def trec(data: Path, variant: str) -> Tables:
    files = {side: str(data / "trec" / f"TREC.{side}.all") for side in ("train", "test")}
    return {"task": "multiclass", "data": {**LABELLED_LINES, "encoding": "latin-1", **files}}


def stsb(data: Path, variant: str) -> Tables:
    return {"task": "regression", "data": {**STSB, **_stsb_files(data)}}


def _stsb_files(data: Path) -> dict[str, str]:
    parts = {"train": "train", "validation": "dev", "test": "test"}
    return {side: str(data / "stsb" / f"sts-{part}.csv") for side, part in parts.items()}


def wnut17(data: Path, variant: str) -> Tables:
    names = {
        "train": "wnut17train.conll", "validation": "emerging.dev.conll",
        "test": "emerging.test.annotated",
    }  # fmt: skip
    files = {side: str(data / "wnut17" / name) for side, name in names.items()}
    return {
        "task": "tokens",
        "data": {"format": "conll", "columns": 2, "extra_columns": "ignore", **files},
    }


def sms_spam(data: Path, variant: str) -> Tables:
    lines = (data / "sms_spam" / "sms.tsv").read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(("label", "text"), line.split("\t", 1), strict=True)) for line in lines]
    random.Random(0).shuffle(rows)
    sides = {"train": rows[:4000], "validation": rows[4000:4500], "test": rows[4500:]}
    # Spam is long: batches sorted by length would hold one label each, as the doctor says.
    return {"task": "binary", "data": {"length_pool": 1, **sides}}


def goemotions(data: Path, variant: str) -> Tables:
    files = {
        side: str(data / "goemotions" / f"{part}.tsv")
        for side, part in (("train", "train"), ("validation", "dev"), ("test", "test"))
    }
    tables: Tables = {
        "task": "multilabel",
        "data": {
            "format": "tsv", "quoting": False, "header": False, "text": "1", "label": "2",
            "label_separator": ",", "labels": [str(number) for number in range(28)],
            "train_rows": 10_000, "validation_rows": 2_000, **files,
        },
    }  # fmt: skip
    if variant == "balanced":
        tables["loss"] = {"pos_weight": "balanced"}
    return tables


def movie_reviews(data: Path, variant: str) -> Tables:
    archive = data / "movie_reviews" / "movie_reviews.zip"
    numbers = {"train": "cv[0-7]*", "validation": "cv8*", "test": "cv9*"}
    sides = {
        side: [f"{archive}/{label}/{number}" for label in ("neg", "pos")]
        for side, number in numbers.items()
    }
    tables: Tables = {
        "task": "binary",
        "data": {"format": "folders", "max_length": 256, "long_text": "truncate", **sides},
    }
    if variant == "windows":
        tables["data"]["long_text"] = "windows"
    return tables


def contrastive(data: Path, variant: str) -> Tables:
    """Pairs of stsb that belong together: those with a score of 4 or more."""
    with (data / "stsb" / "sts-train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    pairs = [{"text": row[5], "text_pair": row[6]} for row in rows if float(row[4]) >= 4]
    return {
        "task": "contrastive",
        "data": {"train": pairs, "text_pair": "text_pair"},
        "training": {"epochs": 1},
        "optimizer": {"learning_rate": 2e-5},
    }


def fitted_thresholds(saved: SavedRun) -> Mapping[str, float]:
    """Macro-F1 at thresholds that were fitted on the validation rows."""
    saved.fit(saved.own_examples("validation"))
    sides = {"dev": "validation", "test": "test"}
    reports = {name: saved.evaluate(saved.own_examples(side)) for name, side in sides.items()}
    return {f"{name}_fitted": report.figures["macro_f1"] for name, report in reports.items()}


def spearman_of_stsb(saved: SavedRun) -> Mapping[str, float]:
    """Spearman of the cosines of stsb's pairs, trained and untouched."""
    data = Path(os.environ["MINIBERT_DATA"])
    found = {}
    for name, model in (("", saved.model_folder), ("untouched_", MODEL)):
        embedder = Embedder.from_pretrained(model)
        for side, part in (("dev", "dev"), ("test", "test")):
            with (data / "stsb" / f"sts-{part}.csv").open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
            a, b = (embedder.encode([row[column] for row in rows]) for column in (5, 6))
            cosines = torch.from_numpy((a * b).sum(axis=1))
            scores = torch.tensor([float(row[4]) for row in rows])
            found[f"{name}{side}"] = _spearman(cosines, scores)
    return found


def _spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    from minibert.training.metrics import metrics_of

    metrics = metrics_of("similarity")
    metrics.update(a, b)
    return metrics.compute()["spearman"]


EXPERIMENTS: dict[str, Experiment] = {
    "sst2": Experiment("accuracy", sst2),
    "trec": Experiment("accuracy", trec),
    "stsb": Experiment("spearman", stsb),
    "wnut17": Experiment("span_f1", wnut17),
    "sms_spam": Experiment("macro_f1", sms_spam),
    "goemotions": Experiment("macro_f1", goemotions, ("", "balanced"), measure=fitted_thresholds),
    "movie_reviews": Experiment("accuracy", movie_reviews, ("", "windows"), seeds=(1,)),
    "contrastive": Experiment("spearman", contrastive, measure=spearman_of_stsb),
}


def main() -> None:
    arguments = parse_arguments()
    os.environ["MINIBERT_DATA"] = str(Path(arguments.data).resolve())
    cells = [
        Cell(task, variant, seed)
        for seed in arguments.seeds
        for task, experiment in EXPERIMENTS.items()
        for variant in experiment.variants
        if seed in experiment.seeds and arguments.only in f"{task}-{variant}"
    ]
    done = read_results()
    if arguments.list:
        for cell in cells:
            print(f"{cell.name}: {'done' if cell.name in done else 'missing'}")
        return
    for number, cell in enumerate(cells, start=1):
        if cell.name not in done or arguments.again:
            print(f"==> {cell.name}, {number} of {len(cells)}", file=sys.stderr, flush=True)
            try:
                result = run(cell, Path(arguments.data).resolve(), Path(arguments.runs), arguments)
            except MinibertError as error:
                raise SystemExit(f"error: {cell.name}: {error}") from None
            done = {**read_results(), cell.name: result}
            write_results(done)
    write_page(done)
    print(f"wrote {PAGE.relative_to(ROOT)}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("MINIBERT_DATA"), help="the data sets")
    parser.add_argument("--only", default="", help="tasks, or variants, whose name contains this")
    parser.add_argument(
        "--seeds", default="1,2,3", type=lambda text: [int(seed) for seed in text.split(",")]
    )
    parser.add_argument("--runs", default="runs", help="where the folders of the runs go")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--again", action="store_true", help="compute cells that are there too")
    parser.add_argument("--list", action="store_true", help="say which cells are missing")
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("missing --data, or MINIBERT_DATA, the folder of the data sets")
    return arguments


def run(cell: Cell, data: Path, runs: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one cell; what it came to."""
    experiment = EXPERIMENTS[cell.task]
    tables = experiment.tables(data, cell.variant)
    tables["training"] = {
        "epochs": 3, "batch_size": 32, "seed": cell.seed, "precision": arguments.precision,
        "metric": None, **tables.get("training", {}),
    }  # fmt: skip
    if "validation" in tables["data"]:
        tables["training"]["metric"] = experiment.figure
    tables["optimizer"] = {"learning_rate": 1e-4, **tables.get("optimizer", {})}
    settings = RunConfig.from_dict({**tables, "model": MODEL, "output": str(runs / cell.name)})
    start = time.perf_counter()
    outcome = train(settings, overwrite=True)
    if not outcome.finished:
        raise SystemExit(130)
    seconds = time.perf_counter() - start
    result: dict[str, Any] = {
        side: report.figures[experiment.figure]
        for side, report in (("dev", outcome.validation), ("test", outcome.test))
        if report is not None
    }
    if experiment.measure is not None:
        result |= experiment.measure(SavedRun(outcome.folder))
    result["findings"] = findings_of(outcome.folder)
    versions = {name: version(name) for name in ("minibert", "torch")}
    return {**result, "seconds": round(seconds), "precision": arguments.precision} | versions


def findings_of(folder: Path) -> list[dict[str, Any]]:
    """What the doctor said of a run."""
    found = json.loads((folder / DOCTOR).read_text(encoding="utf-8"))["findings"]
    return [{key: each[key] for key in ("name", "severity", "step", "evidence")} for each in found]


def read_results() -> dict[str, dict[str, Any]]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def write_results(results: Mapping[str, Any]) -> None:
    with replacing(RESULTS) as part:
        part.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


# ---- the page


def write_page(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Put each table between its two marks in docs/results.md."""
    page = PAGE.read_text(encoding="utf-8")
    for mark, lines in (
        ("table", table_lines(results, json.loads(TRAINER.read_text()))),
        ("findings", finding_lines(results)),
    ):
        page = between_marks(page, mark, "\n".join(lines))
    with replacing(PAGE) as part:
        part.write_text(page, encoding="utf-8")


def table_lines(
    results: Mapping[str, Mapping[str, Any]], trainer: Mapping[str, list[float]]
) -> list[str]:
    """A row for each task and variant: the mean over its seeds, beside the Trainer's."""
    lines = [
        "| task | figure | dev | test | seeds | Trainer, test | seeds | difference | may be |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task, experiment in EXPERIMENTS.items():
        for variant in experiment.variants:
            cells = [Cell(task, variant, seed).name for seed in experiment.seeds]
            found = [results[name] for name in cells if name in results]
            for suffix, told in (("", ""), ("_fitted", ", fitted thresholds")):
                tests = [100 * each[f"test{suffix}"] for each in found if f"test{suffix}" in each]
                devs = [100 * each[f"dev{suffix}"] for each in found if f"dev{suffix}" in each]
                if not tests and suffix:
                    continue
                name = f"{task}{f', {variant}' if variant else ''}{told}"
                peers = [] if variant or suffix else [100 * each for each in trainer.get(task, [])]
                lines.append(_line(name, experiment.figure, devs, tests, peers))
    return lines


def finding_lines(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row for each task and variant: what the doctor said of its runs."""
    lines = ["| task | runs | warnings | worth knowing |", "|---|---|---|---|"]
    for task, experiment in EXPERIMENTS.items():
        for variant in experiment.variants:
            cells = [Cell(task, variant, seed).name for seed in experiment.seeds]
            runs = [
                results[name]["findings"] for name in cells if "findings" in results.get(name, ())
            ]
            if not runs:
                continue
            warnings: dict[str, list[str]] = {}
            others: dict[str, None] = {}
            for finding in (each for run in runs for each in run):
                if finding["severity"] == "info":
                    others[f"`{finding['name']}`"] = None
                else:
                    warnings.setdefault(finding["name"], []).append(finding["evidence"])
            told = [
                f"`{name}` in {len(evidence)}: {evidence[0]}" for name, evidence in warnings.items()
            ]
            name = f"{task}, {variant}" if variant else task
            known = ", ".join(others) or "none"
            lines.append(f"| {name} | {len(runs)} | {'; '.join(told) or 'none'} | {known} |")
    return lines


def _line(name: str, figure: str, devs: list[float], tests: list[float], peers: list[float]) -> str:
    cells = [
        name, figure, _mean(devs), _mean(tests), str(len(tests)), _mean(peers),
        str(len(peers)) if peers else "",
    ]  # fmt: skip
    difference = bound = ""
    if peers and tests:
        difference = f"{statistics.mean(tests) - statistics.mean(peers):+.2f}"
        bound = f"{-max(0.5, 2 * standard_error(tests, peers)):.2f}"
    return f"| {' | '.join([*cells, difference, bound])} |"


def standard_error(ours: list[float], theirs: list[float]) -> float:
    """Of the difference of the means; a side with one seed is taken to scatter as the other."""
    spreads = [statistics.variance(side) for side in (ours, theirs) if len(side) > 1]
    if not spreads:
        return 0.0
    pooled = statistics.mean(spreads)
    return float((pooled / len(ours) + pooled / len(theirs)) ** 0.5)


def _mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f}" if values else ""


if __name__ == "__main__":
    main()
