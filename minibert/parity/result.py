"""What a comparison found: a verdict for each stage, the first that differs, and its cause."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from minibert.columns import aligned

# A stage differs when its error is more than so many times the noise of its dtype.
FACTOR = 10.0
_SHOWN = 30  # lines of the terminal's table


@dataclass(frozen=True)
class Cause:
    """What explains a difference."""

    name: str
    advice: str
    residual: float  # the largest error that is left when the candidate's mistake is made here too
    explains: bool  # is what is left within the noise?


@dataclass(frozen=True)
class StageResult:
    """One stage of the candidate against the reference's, over the attended positions."""

    stage: str
    max_abs: float
    mean_abs: float
    relative: float  # max_abs over the largest value of the reference's stage
    ulp: float  # the median error, in units of the last place of the dtype
    cosine: float  # the lowest over the vectors of the last axis
    noise: float  # the error that the dtype alone makes
    padding: float | None  # the largest error at padding
    differs: bool  # is max_abs more than FACTOR times the noise?
    local: float | None = None  # the error when our stage gets the candidate's own input
    local_noise: float | None = None
    between: tuple[str, ...] = ()  # stages that had to be computed for it, not being recorded
    cause: Cause | None = None

    @property
    def faulty(self) -> bool:
        """Does the stage err by itself, whatever it inherits?"""
        return (
            self.local is not None
            and self.local_noise is not None
            and not self.local <= FACTOR * self.local_noise
        )

    @property
    def verdict(self) -> str:
        """ "equal", "differs" (by itself) or "inherits" (only what comes before it differs)."""
        if self.faulty or (self.differs and self.local is None):
            return "differs"
        return "inherits" if self.differs else "equal"


@dataclass(eq=False)
class Comparison:
    """What a comparison found."""

    candidate: str
    reference: str
    dtype: str
    results: list[StageResult]
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # stages that the candidate lacks
    tokens: list[list[str]] = field(default_factory=list)
    errors: dict[str, Tensor] = field(default_factory=dict)  # of each token: (batch, seq)
    attended: Tensor = field(default_factory=lambda: torch.ones(1, 1).bool())  # (batch, seq)

    @property
    def equal(self) -> bool:
        """Does no stage differ?"""
        return all(result.verdict == "equal" for result in self.results)

    @property
    def first(self) -> StageResult | None:
        """The first stage that differs, None where none does."""
        return next((result for result in self.results if result.verdict != "equal"), None)

    @property
    def faults(self) -> list[StageResult]:
        """The stages that differ by themselves."""
        return [result for result in self.results if result.verdict == "differs"]

    @property
    def cause(self) -> Cause | None:
        """What explains the first difference, where something does."""
        return None if self.first is None else self.first.cause

    @property
    def dump_next(self) -> list[str]:
        """The stages to record next where the first difference spans several: halves the span."""
        between = [] if self.first is None else self.first.between
        return list(between) if len(between) <= 3 else [between[len(between) // 2]]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it, the errors of single tokens left out."""
        results = []
        for result in self.results:
            values = {key: value for key, value in vars(result).items() if key != "cause"}
            cause = None if result.cause is None else vars(result.cause)
            results.append({**values, "verdict": result.verdict, "cause": cause})
        first = self.first
        return {
            "equal": self.equal,
            "candidate": self.candidate,
            "reference": self.reference,
            "dtype": self.dtype,
            "first": None if first is None else first.stage,
            "cause": None if self.cause is None else vars(self.cause),
            "dump_next": self.dump_next,
            "notes": self.notes,
            "missing": self.missing,
            "stages": results,
        }

    def __str__(self) -> str:
        """The report for a terminal: what differs, first, why, and what to do next."""
        lines = [f"candidate  {self.candidate}", f"reference  {self.reference}", ""]
        lines += [f"note: {note}" for note in self.notes]
        inherits = [result for result in self.results if result.verdict == "inherits"]
        shown = self.faults or inherits
        lines += _table(shown[:_SHOWN]) if shown else []
        if len(shown) > _SHOWN:
            lines.append(f"… and {len(shown) - _SHOWN} more")
        if inherits and self.faults:
            lines.append(f"{len(inherits)} stages inherit an error, and err not by themselves")
        counted = f"{len(self.results)} stages compared in {self.dtype}"
        if self.first is None:
            worst = max(self.results, key=lambda result: result.max_abs / (result.noise or 1))
            times = worst.max_abs / (worst.noise or 1)
            lines.append(
                f"{counted}: all equal, the worst {times:.1f} times the noise ({worst.stage})"
            )
            return "\n".join(lines)
        lines += ["", f"{counted}: {len(self.faults)} differ by themselves"]
        lines.append(f"first: {self.first.stage}")
        if self.cause is not None:
            how = "explains it" if self.cause.explains else "may explain it"
            lines.append(f"cause: {self.cause.name} ({how}, {self.cause.residual:.1e} is left)")
            lines.append(f"mend:  {self.cause.advice}")
        elif self.first.verdict == "inherits":
            lines.append("cause: no stage errs by itself; rounding adds up, or inputs differ")
        else:
            lines.append("cause: none of the known ones")
        if self.dump_next:
            lines.append(f"dump next, to look closer: {', '.join(self.dump_next)}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """`to_dict` as text; what is infinite or not a number is a string there."""
        return json.dumps(_plain(self.to_dict()), ensure_ascii=False, indent=1)


def _table(results: list[StageResult]) -> list[str]:
    """One line a stage."""
    rows = [("stage", "max error", "× noise", "local", "cosine", "verdict", "cause")]
    for result in results:
        times = result.max_abs / result.noise if result.noise else math.inf
        local = "" if result.local is None else f"{result.local:.1e}"
        cause = "" if result.cause is None else result.cause.name
        figures = (f"{result.max_abs:.1e}", f"{times:.3g}", local, f"{result.cosine:.6f}")
        rows.append((result.stage, *figures, result.verdict, cause))
    return aligned(rows)


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
