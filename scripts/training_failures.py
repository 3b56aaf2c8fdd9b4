"""Writes docs/training-failures.md: real failures, what the doctor says of each, what mends it.

    python scripts/training_failures.py --data FOLDER [--only rate] [--again]

Each case of failure_cases.py is trained twice, as it fails and mended; what came of it is kept in
docs/training-failures.json, case by case, so that it can be stopped and gone on with.  The text
around the sections stands in the page itself; what is between its marks is written anew.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from failure_cases import CASES, Case, Result

from minibert.files import replacing
from minibert.training.curves import smoothed

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "training-failures.md"
RESULTS = ROOT / "docs" / "training-failures.json"
PICTURES = ROOT / "docs" / "failures"
BEGIN, END = "<!-- sections -->", "<!-- end of sections -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("MINIBERT_DATA"), help="the data sets")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--again", action="store_true", help="run cases that are there too")
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("missing --data, or MINIBERT_DATA, the folder of the data sets")
    PICTURES.mkdir(exist_ok=True)
    for case in CASES:
        done = read_results()
        if arguments.only not in case.name or (case.name in done and not arguments.again):
            continue
        print(f"==> {case.name}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        runs = []
        for is_mended in (False, True):
            with tempfile.TemporaryDirectory() as place:
                runs.append(case.run(Path(arguments.data), Path(place), is_mended))
        if against := case.verdict(*runs):
            raise SystemExit(f"error: {case.name}: {against}")
        found = {"failed": told(runs[0]), "mended": told(runs[1])}
        draw(case, found)
        done[case.name] = {**found, "seconds": round(time.perf_counter() - start)}
        with replacing(RESULTS) as part:
            part.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", "utf-8")
    write_page(read_results())
    print(f"wrote {PAGE.relative_to(ROOT)}")


def told(result: Result) -> dict[str, Any]:
    """What is kept of a run: its losses to four digits."""
    return {
        "figure": round(result.figure, 4),
        "losses": [float(f"{loss:.4g}") if loss == loss else None for loss in result.losses],
        "findings": result.findings,
    }


def read_results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def slug(case: Case) -> str:
    return re.sub(r"[^a-z0-9]+", "-", case.name.lower()).strip("-")


def write_page(results: Mapping[str, Any]) -> None:
    """Put the sections between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    sections = "\n\n".join(
        section(case, results[case.name]) for case in CASES if case.name in results
    )
    with replacing(PAGE) as part:
        part.write_text(f"{before}{BEGIN}\n\n{sections}\n\n{END}{after}", encoding="utf-8")


def section(case: Case, found: Mapping[str, Any]) -> str:
    """How it looks, what the doctor says, what mends it, and what that gives."""
    first = found["failed"]["findings"][0]
    when = "before the first update" if first["step"] is None else f"at update {first['step']}"
    settings = ", ".join(f"`{key} = {value}`" for key, value in first["settings"].items())
    others = [
        each["name"] for each in found["failed"]["findings"][1:] if each["severity"] != "info"
    ]
    lines = [
        f"## {case.name}",
        "",
        case.story,
        "",
        f"![The loss of both runs](failures/{slug(case)}.png)",
        "",
        f"**{first['severity']} {when}: {first['title']}** (`{first['name']}`)",
        "",
        f"> {first['evidence']}",
        "",
        f"Why: {first['why']}.",
        "",
        f"Mend: {first['remedy']}.{f' In a run file: {settings}.' if settings else ''}",
        "",
        f"| {case.figure} | as it failed | with `{case.remedy}` |",
        "|---|---|---|",
        f"| on validation or the last answers | {found['failed']['figure']:.3f} | "
        f"{found['mended']['figure']:.3f} |",
    ]
    if case.lies:
        lines += ["", "The figure before is too good to be true."]
    if others:
        lines += ["", f"Also told: {', '.join(f'`{name}`' for name in others)}."]
    return "\n".join(lines)


def draw(case: Case, found: Mapping[str, Any]) -> None:
    """The loss of both runs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 2.6), layout="constrained")
    for name, colour, label in (
        ("failed", "tab:red", "as it failed"),
        ("mended", "tab:blue", "mended"),
    ):
        losses = [loss for loss in found[name]["losses"] if loss is not None]
        steps = range(1, len(losses) + 1)
        axes.plot(steps, losses, color=colour, alpha=0.25, linewidth=1)
        axes.plot(steps, smoothed(losses, 9), color=colour, label=label)
    first = found["failed"]["findings"][0]
    if first["step"]:
        axes.axvline(first["step"], color="0.5", linestyle=":", linewidth=1)
    values = [v for side in ("failed", "mended") for v in found[side]["losses"] if v]
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
