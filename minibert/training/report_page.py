"""A run as one self-contained page, `RUN/report.html`: findings, curves, gradients, examples."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from minibert import pages
from minibert.errors import ParityError, RunError
from minibert.training.curves import (
    Curve,
    shown_figures,
    smoothed,
    spans_much,
    thinned,
)
from minibert.training.look import spelt
from minibert.training.report import LOG, Examined, RunReport, read_report
from minibert.training.run_config import RunConfig, flat
from minibert.training.run_keys import TASKS
from minibert.training.worst import Confusion

FILE = "report.html"
_MOST_COLUMNS = 240  # of the map of gradients: more than a page is wide in cells that can be seen
_WORDS = {"error": "error", "warning": "warning", "info": "note"}


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a run, from what lies there.

    Returns: where it is.

    Raises: RunError where the folder holds no run, or the page cannot be written.
    """
    path = folder / FILE
    text = page(read_report(folder))
    try:
        pages.write_page(text, path)
    except ParityError as error:
        raise RunError(str(error)) from None
    return path


def page(report: RunReport) -> str:
    """The page as text."""
    doctor, examples = report.doctor, report.examples
    values = {
        "name": report.name,
        "verdict": verdict(report),
        "tone": _tone(report),
        "counts": [
            (severity, _counted(n, word))
            for severity, word in _WORDS.items()
            if (n := report.n_findings(severity))
        ],
        "about": about(report),
        "figures": _figures(report),
        "findings": None if doctor is None else doctor.findings,
        "words": _WORDS,
        "facts": () if doctor is None else doctor.facts,
        "confusion": None if examples is None else _confusion(examples.confusion),
        "worst": () if examples is None else examples.worst,
        "loss": _LOSSES.get(report.run.task, ""),
        "changed": settings(report.run, changed=True),
        "unchanged": settings(report.run, changed=False),
        "missing": report.missing,
        "n_updates": len(report.log.updates["learning_rate"].steps),
        "n_not_finite": report.log.n_not_finite,
    }
    data = {
        "panels": [asdict(panel) for panel in panels(report)],
        "epochs": [start for start in report.log.epochs[1:31] if start > 1],
        "last": max(1, report.log.step),
        "gradients": None if doctor is None else heat_map(doctor),
    }
    return pages.render("report.html", values, data)


# ---- what stands above


def verdict(report: RunReport) -> str:
    """How far it came, and how good it is, in a sentence."""
    step, total = report.log.step, report.total
    of = f"{step:,}" if total is None else f"{step:,} of {total:,}"
    if LOG in report.missing:
        ended = "How far it came is not known" if report.results is None else "It ended"
    elif report.results is not None:
        early = total is not None and step < total
        ended = f"It ended {'early ' if early else ''}after update {of}"
    else:
        ended = f"It has not ended: {of} updates are done" if step else "It has no update yet"
    if report.best is None:
        return f"{ended}."
    best, value = report.best
    n = len(report.log.evaluations[report.metric].steps)
    which = "its only evaluation" if n == 1 else f"the best of {n:,} evaluations"
    return f"{ended}, with {spelt(report.metric)} {value:.4g} at update {best:,}, {which}."


def _tone(report: RunReport) -> str:
    if report.n_findings("error"):
        return "bad"
    sound = report.doctor is not None and not report.n_findings("warning")
    return "good" if sound and report.results is not None else ""


def about(report: RunReport) -> list[tuple[str, str]]:
    """What was trained, on what, for how long."""
    run, log = report.run, report.log
    found = [
        ("Task", f"{run.task}: {TASKS[run.task]}"),
        ("Model", run.model),
        ("Chosen by", spelt(report.metric)),
    ]
    if log.step:
        epochs = _counted(len(log.epochs), "epoch")
        found.append(("Updates", f"{log.step:,} in {epochs}, {_duration(log.seconds)}"))
    return found


def _figures(report: RunReport) -> list[tuple[str, list[str]]]:
    """A row a figure of the saved model: its name, and its value on each side."""
    if report.results is None:
        return []
    sides = report.results.figures
    names = dict.fromkeys(name for figures in sides.values() for name in figures)
    rows = [(spelt(name), [_shown(each.get(name)) for each in sides.values()]) for name in names]
    return [("", list(sides)), *rows]


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if math.isfinite(value) else "undefined"


def _counted(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def _duration(seconds: float) -> str:
    """As people say it.

    >>> _duration(7.25), _duration(3700)
    ('7.2 s', '1 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = round(seconds / 60), int(seconds // 3600)
    return f"{minutes} min" if minutes < 60 else f"{hours} h {round(seconds / 60 - 60 * hours)} min"


# ---- curves


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a panel: `kind` is "faint", "line" or "points"; `colour` counts from 0."""

    label: str
    kind: str
    colour: int
    x: list[float]
    y: list[float]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A pair of axes.

    Attributes:
        zero: does the scale begin at 0? Not where it is logarithmic.
        rule: a label, and the height of the line that it names.
        star: what is best: its update and value.
    """

    title: str
    lines: list[Line]
    logarithmic: bool = False
    zero: bool = False
    rule: tuple[str, float] | None = None
    star: tuple[int, float] | None = None


def panels(report: RunReport) -> list[Panel]:
    """Loss, validation, learning rate and gradient norm, as far as there is anything to see."""
    log = report.log
    found = [_loss(report), *_validation(report)]
    rate = _line("learning rate", "line", 0, log.updates["learning_rate"])
    found.append(Panel(title="Learning rate", lines=[rate], zero=True))
    limit, norms = report.run.training.max_grad_norm, log.updates["grad_norm"]
    found.append(
        Panel(
            title="Gradient norm",
            lines=_noisy(norms, "before clipping"),
            logarithmic=bool(norms.values) and min(norms.values) > 0,
            rule=None if limit is None else ("clipped to", limit),
        )
    )
    kept = [replace(panel, lines=[line for line in panel.lines if line.x]) for panel in found]
    return [panel for panel in kept if panel.lines]


def _loss(report: RunReport) -> Panel:
    log = report.log
    lines = _noisy(log.updates["loss"], "training")
    validation = log.evaluations.get("loss", Curve())
    lines.append(_line("validation", "points", 1, validation))
    values = [*lines[-2].y, *validation.values]
    return Panel(
        title="Loss",
        lines=lines,
        logarithmic=spans_much(values),
        zero=bool(values) and min(values) >= 0,
        star=report.best if report.metric == "loss" else None,
    )


def _validation(report: RunReport) -> list[Panel]:
    log = report.log
    names = [name for name, curve in log.evaluations.items() if curve.steps]
    lines = [
        _line(spelt(name), "points", i, log.evaluations[name])
        for i, name in enumerate(shown_figures(report.metric, names))
    ]
    alone = len(lines) == 1 and spans_much(lines[0].y)  # of a perplexity
    star = None if report.metric == "loss" else report.best
    return [Panel(title="Validation", lines=lines, logarithmic=alone, star=star)]


def _noisy(curve: Curve, label: str) -> list[Line]:
    """Single batches, and their running mean over them."""
    window = len(curve.values) // 50 * 2 + 1
    mean = Curve(curve.steps, smoothed(curve.values, window).tolist())
    if window == 1:
        return [_line(label, "line", 0, curve)]
    return [
        _line("single updates", "faint", 0, curve),
        _line(f"{label}, mean of {window:,} updates", "line", 0, mean),
    ]


def _line(label: str, kind: str, colour: int, curve: Curve) -> Line:
    pairs = zip(curve.steps, curve.values, strict=True)
    finite = [(step, value) for step, value in pairs if math.isfinite(value)]
    x, y = thinned([step for step, _ in finite], [value for _, value in finite])
    return Line(
        label=label, kind=kind, colour=colour, x=x.tolist(), y=[_five(value) for value in y]
    )


def _five(value: float) -> float:
    """Five digits are more than anyone can see."""
    return float(f"{value:.5g}")


# ---- gradients by part


def heat_map(doctor: Examined) -> dict[str, Any] | None:
    """The norms of gradients by part and look, in at most 240 columns; None without any.

    Returns: "parts", of each column the "first" and the "last" update of its looks, and of each
        part and column the "low"est and "high"est norm, None where there is none; "broken" pairs
        of part and column with a norm that is no number; "range", what is above 0 from the
        smallest to the largest, None where nothing is.
    """
    parts, looks = doctor.parts, doctor.looks
    if not parts:
        return None
    size = -(-len(looks) // _MOST_COLUMNS)
    columns = [looks[start : start + size] for start in range(0, len(looks), size)]
    low, high, broken = [], [], []
    for row, part in enumerate(parts):
        lows: list[float | None] = []
        highs: list[float | None] = []
        for place, column in enumerate(columns):
            norms = [norms[part] for _, norms in column if part in norms]
            finite = [_five(norm) for norm in norms if math.isfinite(norm)]
            if len(finite) < len(norms):
                broken.append((row, place))
            lows.append(min(finite, default=None))
            highs.append(max(finite, default=None))
        low.append(lows)
        high.append(highs)
    above = [norm for rows in (low, high) for row in rows for norm in row if norm]
    return {
        "parts": parts,
        "first": [column[0][0] for column in columns],
        "last": [column[-1][0] for column in columns],
        "low": low,
        "high": high,
        "broken": broken,
        "range": (min(above), max(above)) if above else None,
    }


# ---- examples and settings

_LOSSES = {
    **dict.fromkeys(("binary", "multiclass"), "−log of the probability of the label"),
    "multilabel": "cross-entropy, the mean over all labels",
    "regression": "the square of the error, in shares of the spread of the labels",
}


def _confusion(confusion: Confusion | None) -> dict[str, Any] | None:
    """The matrix as rows of cells: a count, and its share of the texts of the label."""
    if confusion is None or not any(map(any, confusion.counts)):
        return None
    rows = []
    has_others = len(confusion.labels) < confusion.n_labels
    for label, counts, others in zip(
        confusion.labels, confusion.counts, confusion.others, strict=True
    ):
        total = max(1, sum(counts) + others)
        cells = [(f"{count:,}", count / total) for count in (*counts, *([others] * has_others))]
        rows.append((label, cells))
    return {
        "labels": [*confusion.labels, *(["others"] * has_others)],
        "rows": rows,
        "n_labels": confusion.n_labels if has_others else None,
    }


def settings(run: RunConfig, *, changed: bool) -> list[tuple[str, str, str]]:
    """Keys of the run file with their values and their defaults: those that differ, or do not."""
    defaults = {**flat(RunConfig(task=run.task)), "task": None}
    return [
        (key, _spelled(value), _spelled(defaults[key]))
        for key, value in flat(run).items()
        if (value != defaults[key]) == changed
    ]


def _spelled(value: Any) -> str:
    """As a run file has it; a dash for what is not set."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return f"{value:g}" if isinstance(value, float) else str(value)
