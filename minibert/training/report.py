"""What the folder of a run says about it: configuration, log, findings, figures, examples.

Only `run.json` has to be there.  Of every other file that is missing or torn a sentence says so,
and what can be told without it is told.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from minibert.doctor.findings import rank
from minibert.training.checkup import FILE as DOCTOR
from minibert.training.curves import Curve, RunLog, best_of, shown_figures
from minibert.training.run_config import RunConfig
from minibert.training.saved_run import read_run
from minibert.training.worst import FILE as EXAMPLES
from minibert.training.worst import Answered, Confusion

LOG, RESULTS = "log.jsonl", "results.json"
_LAYER = re.compile(r"layer (\d+)")

# What a file raises that is torn, or not what training wrote.
_UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError,
)  # fmt: skip

_Made = TypeVar("_Made")


@dataclass(frozen=True, kw_only=True)
class Noted:
    """A finding of the doctor, as it was written down."""

    name: str
    severity: str
    step: int | None  # None: before the first update
    title: str
    evidence: str
    why: str
    remedy: str
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What the doctor saw of a run: findings, root causes first; figures of the data; looks.

    A look has its update, and of each part of the network the norm of its gradients.
    """

    findings: tuple[Noted, ...]
    facts: tuple[tuple[str, str], ...]
    looks: tuple[tuple[int, Mapping[str, float]], ...]

    @property
    def parts(self) -> list[str]:
        """In the order of the network, from its input to its output."""
        found: dict[str, None] = {}
        for _, norms in self.looks:
            found |= dict.fromkeys(norms)
        order = list(found)
        return sorted(order, key=lambda part: (*_place(part), order.index(part)))


@dataclass(frozen=True, kw_only=True)
class Results:
    """The figures of the model that was saved, by side: "validation", "test"."""

    best_step: int
    figures: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the model that was saved made of validation texts."""

    confusion: Confusion | None
    worst: tuple[Answered, ...]


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """A run, as far as its folder tells of it.

    Attributes:
        name: of the folder.
        metric: the figure that the best model is chosen by.
        total: updates of the whole run, where that was written down.
        doctor, results, examples: None where there are none, or their file cannot be read.
        missing: of each such file the reason, by its name.
    """

    name: str
    run: RunConfig
    metric: str
    total: int | None
    log: RunLog
    doctor: Examined | None
    results: Results | None
    examples: Judged | None
    missing: Mapping[str, str]

    @property
    def best(self) -> tuple[int, float] | None:
        """The best evaluation: its update, and the figure that decides."""
        return best_of(self.log.evaluations.get(self.metric, Curve()), self.metric)

    def n_findings(self, severity: str) -> int:
        findings = () if self.doctor is None else self.doctor.findings
        return sum(each.severity == severity for each in findings)


def read_report(folder: Path) -> RunReport:
    """Read the folder of a run.

    Raises: RunError where it holds none.
    """
    run = read_run(folder)
    noted = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    total = noted.get("updates") if isinstance(noted.get("updates"), int) else None
    missing: dict[str, str] = {}
    log = _read_log(folder / LOG, missing)
    results = _read(folder / RESULTS, _results, missing)
    if results is not None and LOG not in missing and not _is_of(results, log, total):
        results = None
        missing[RESULTS] = "it is about an earlier run in this folder"
    examples = None
    if results is not None:
        examples = _read(folder / EXAMPLES, _examples, missing)
    else:
        missing[EXAMPLES] = "the run has no results yet"
    names = list(log.evaluations)
    known = [noted.get("metric"), run.training.metric, *shown_figures("loss", names), "loss"]
    return RunReport(
        name=folder.resolve().name,
        run=run,
        metric=next(name for name in known if isinstance(name, str)),
        total=total,
        log=log,
        doctor=_read(folder / DOCTOR, _examined, missing),
        results=results,
        examples=examples,
        missing=missing,
    )


def _read_log(path: Path, missing: dict[str, str]) -> RunLog:
    """The log; an empty one, and the reason noted, where it cannot be read."""
    log = RunLog(path)
    try:
        log.read()
    except _UNREADABLE as error:
        missing[path.name] = _reason(error)
        return RunLog(path)
    return log


def _read(path: Path, made: Callable[[Any], _Made], missing: dict[str, str]) -> _Made | None:
    """What a file of JSON holds; None, and the reason noted, where that cannot be told."""
    try:
        return made(json.loads(path.read_text(encoding="utf-8")))
    except _UNREADABLE as error:
        missing[path.name] = _reason(error)
    return None


def _reason(error: Exception) -> str:
    """Why a file cannot be read, in a line."""
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, OSError):
        return f"it cannot be read: {error.strerror}"
    if isinstance(error, KeyError):
        return f"it cannot be read: {error} is missing in it"
    return f"it cannot be read: {' '.join(str(error).split()) or type(error).__name__}"


def _examined(values: Any) -> Examined:
    findings = [
        Noted(
            name=str(each["name"]),
            severity=str(each["severity"]),
            step=None if each["step"] is None else int(each["step"]),
            title=str(each["title"]),
            evidence=str(each["evidence"]),
            why=str(each["why"]),
            remedy=str(each["remedy"]),
            settings=tuple((str(key), str(value)) for key, value in each["settings"].items()),
        )
        for each in values["findings"]
    ]
    looks = [
        (int(look["step"]), {str(part): float(norm) for part, norm in look["gradients"].items()})
        for look in values["looks"]
    ]
    return Examined(
        findings=tuple(sorted(findings, key=lambda each: rank(each.name, each.severity))),
        facts=tuple((str(name), str(fact)) for name, fact in values["facts"].items()),
        looks=tuple(sorted(looks, key=lambda look: look[0])),
    )


def _results(values: Any) -> Results:
    figures = {
        side: {str(name): math.nan if each is None else float(each) for name, each in found.items()}
        for side, found in values.items()
        if side in ("validation", "test")
    }
    return Results(best_step=int(values["best_step"]), figures=figures)


def _examples(values: Any) -> Judged:
    given = values["confusion"]
    return Judged(
        confusion=None if given is None else Confusion.from_dict(given),
        worst=tuple(Answered.from_dict(each) for each in values["worst"]),
    )


def _is_of(results: Results, log: RunLog, total: int | None) -> bool:
    """Are the results of the run that the log is of?

    A run that takes the place of another one keeps the other's model until it has its own.
    """
    figures = results.figures.get("validation")
    if figures is None:
        return total is None or log.step >= total
    step = results.best_step or log.step  # 0 where no evaluation was any better than another
    logged = {
        name: curve.values[curve.steps.index(step)]
        for name, curve in log.evaluations.items()
        if step in curve.steps
    }
    return bool(logged) and all(
        math.isclose(value, figures[name], rel_tol=1e-2, abs_tol=1e-3)  # devices may round
        for name, value in logged.items()
        if math.isfinite(figures.get(name, math.nan))
    )


def _place(part: str) -> tuple[int, int]:
    """Where a part stands between input and output."""
    if part == "embeddings":
        return 0, 0
    if match := _LAYER.fullmatch(part):
        return 1, int(match[1])
    return 2, 0
