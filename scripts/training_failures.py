"""Writes docs/training-failures.md: real failures, what the doctor says of each, what mends it.

    python scripts/training_failures.py --data FOLDER [--only rate] [--again]

Each case of failure_cases.py is trained twice, as it fails and mended; what came of it is kept in
docs/training-failures.json, case by case, so that it can be stopped and gone on with.  The text
around the sections stands in the page itself; what is between its marks is written anew.
"""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from failure_cases import ALL, CASES, HARMLESS, Case, Harmless
from failure_runs import Result, Results
from pages import between_marks

from minibert.files import replacing
from minibert.training.curves import smoothed

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "training-failures.md"
RESULTS = ROOT / "docs" / "training-failures.json"
PICTURES = ROOT / "docs" / "failures"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("MINIBERT_DATA"), help="the data sets")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--again", action="store_true", help="run cases that are there too")
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("missing --data, or MINIBERT_DATA, the folder of the data sets")
    PICTURES.mkdir(exist_ok=True)
    results = Results(Path(arguments.data))
    cases = [case for case in ALL if arguments.only in case.name]
    for number, case in enumerate(cases, start=1):
        if case.name in read_results() and not arguments.again:
            continue
        print(f"==> {case.name}, {number} of {len(cases)}", file=sys.stderr, flush=True)
        first, second = (results.of(run) for run in case.runs)
        if against := case.verdict(first, second):
            raise SystemExit(f"error: {case.name}: {against}")
        found = [told(first), told(second)]
        if not first.refused:
            draw(case, found)
        with replacing(RESULTS) as part:
            all_found = {**read_results(), case.name: found}
            done = {each.name: all_found[each.name] for each in ALL if each.name in all_found}
            part.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", "utf-8")
    write_page(read_results())
    print(f"wrote {PAGE.relative_to(ROOT)}")


def told(result: Result) -> dict[str, Any]:
    """What is kept of a run: its losses to four digits."""
    return {
        "figure": None if math.isnan(result.figure) else round(result.figure, 4),
        "losses": [float(f"{loss:.4g}") if loss == loss else None for loss in result.losses],
        "findings": result.findings,
        "refused": result.refused,
    }


def read_results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def slug(case: Case | Harmless) -> str:
    return re.sub(r"[^a-z0-9]+", "-", case.name.lower()).strip("-")


def write_page(results: Mapping[str, Any]) -> None:
    """Put the sections between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    for cases, write, mark in ((CASES, section, "sections"), (HARMLESS, harmless, "harmless")):
        texts = [write(case, *results[case.name]) for case in cases if case.name in results]
        page = between_marks(page, mark, "\n\n".join(texts))
    with replacing(PAGE) as part:
        part.write_text(page, encoding="utf-8")


def section(case: Case, failed: Mapping[str, Any], mended: Mapping[str, Any]) -> str:
    """How it looks, what the doctor says, what mends it, and what that gives."""
    lines = [f"## {case.name}", "", case.story, ""]
    if failed["refused"]:
        lines += ["**Refused before the model is loaded:**", "", f"> {failed['refused']}", ""]
    else:
        lines += [f"![The loss of both runs](failures/{slug(case)}.png)", "", *diagnosis(failed)]
    lines += [
        f"| {case.figure} | as it failed | with `{case.remedy}` |",
        "|---|---|---|",
        f"| on validation or the last answers | {shown(failed)} | {shown(mended)} |",
    ]
    if case.lies:
        lines += ["", "The figure before is too good to be true."]
    others = [each["name"] for each in grave(failed)[1:]]
    if others:
        lines += ["", f"Also told: {', '.join(f'`{name}`' for name in others)}."]
    return "\n".join(lines)


def diagnosis(failed: Mapping[str, Any]) -> list[str]:
    first = failed["findings"][0]
    when = "before the first update" if first["step"] is None else f"at update {first['step']}"
    settings = ", ".join(f"`{key} = {value}`" for key, value in first["settings"].items())
    return [
        f"**{first['severity']} {when}: {first['title']}** (`{first['name']}`)",
        "",
        f"> {first['evidence']}",
        "",
        f"Why: {first['why']}.",
        "",
        f"Mend: {first['remedy']}.{f' In a run file: {settings}.' if settings else ''}",
        "",
    ]


def harmless(case: Harmless, usual: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What is said, and what a run says to that."""
    found = [each["name"] for each in other["findings"]]
    told = f"worth knowing: {', '.join(f'`{name}`' for name in found)}" if found else "nothing"
    return "\n".join([
        f"### {case.name}",
        "",
        f"“{case.advice}”",
        "",
        f"![The loss of both runs](failures/{slug(case)}.png)",
        "",
        f"| {case.figure} of the last updates | without it | with it |",
        "|---|---|---|",
        f"| | {shown(usual)} | {shown(other)} |",
        "",
        f"The doctor says of it: {told}.",
    ])  # fmt: skip


def shown(found: Mapping[str, Any]) -> str:
    return "none" if found["figure"] is None else f"{found['figure']:.3f}"


def grave(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [each for each in found["findings"] if each["severity"] != "info"]


def draw(case: Case | Harmless, found: Sequence[Mapping[str, Any]]) -> None:
    """The loss of both runs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = ("as it failed", "mended") if isinstance(case, Case) else ("with it", "without it")
    runs = found if isinstance(case, Case) else found[::-1]
    figure, axes = pyplot.subplots(figsize=(6, 2.6), layout="constrained")
    for run, colour, label in zip(runs, ("tab:red", "tab:blue"), labels, strict=True):
        losses = [loss for loss in run["losses"] if loss is not None]
        steps = range(1, len(losses) + 1)
        axes.plot(steps, losses, color=colour, alpha=0.25, linewidth=1)
        axes.plot(steps, smoothed(losses, 9), color=colour, label=label)
    steps = [each["step"] for each in grave(runs[0])[:1] if each["step"]]
    for step in steps:
        axes.axvline(step, color="0.5", linestyle=":", linewidth=1)
    values = [value for run in runs for value in run["losses"] if value]
    if values and max(values) > 50 * sorted(values)[len(values) // 2]:
        axes.set_yscale("log")
    axes.set_xlabel("update")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    with replacing(PICTURES / f"{slug(case)}.png") as part:
        figure.savefig(part, dpi=110, format="png")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
