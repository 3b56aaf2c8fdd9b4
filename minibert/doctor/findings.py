"""A finding: what is wrong with a training run, with its numbers and what to set."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from minibert.doctor.catalogue import CATALOGUE, Entry

SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong with a training run.

    Attributes:
        name: its place in `CATALOGUE`.
        severity: "error" where training is in vain, "warning" where it likely is worse than it
            could be, "info" for what a reader of the results should know.
        evidence: the numbers, in a line.
        settings: what to set, by key of the run file; the remedy in words says the same.
        step: the update that it was found at; None before the first.
    """

    name: str
    evidence: str
    severity: str
    settings: tuple[tuple[str, str], ...] = ()
    step: int | None = None

    @property
    def entry(self) -> Entry:
        return CATALOGUE[self.name]

    def at(self, step: int | None) -> "Finding":
        """The same, found at an update."""
        return replace(self, step=step) if self.step is None else self

    def is_at_least(self, severity: str) -> bool:
        return SEVERITIES.index(self.severity) <= SEVERITIES.index(severity)

    def lines(self) -> list[str]:
        """For a terminal: what, the numbers, why, what to do."""
        when = "" if self.step is None else f" at update {self.step}"
        found = [f"doctor: {self.severity}{when}: {self.entry.title} [{self.name}]"]
        found += [f"  {self.evidence}", f"  {self.entry.why}", f"  mend: {self.entry.remedy}"]
        if self.settings:
            found.append("  set:  " + ", ".join(f"{key} = {value}" for key, value in self.settings))
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "severity": self.severity,
            "step": self.step,
            "title": self.entry.title,
            "evidence": self.evidence,
            "why": self.entry.why,
            "remedy": self.entry.remedy,
            "settings": dict(self.settings),
        }


def finding(
    name: str,
    evidence: str,
    *,
    severity: str | None = None,
    step: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Finding:
    """A finding of the catalogue.

    Args:
        severity: in place of the catalogue's.
        settings: what to set, by key of the run file.
    """
    return Finding(
        name=name,
        evidence=evidence,
        severity=severity or CATALOGUE[name].severity,
        settings=tuple((settings or {}).items()),
        step=step,
    )


def rank(name: str, severity: str) -> tuple[bool, bool, int]:
    """Where a finding stands: in the order of the catalogue, what is only worth knowing behind it.

    One that the catalogue does not know comes last.
    """
    names = list(CATALOGUE)
    known = name in names
    return not known, severity == "info", names.index(name) if known else 0


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Root causes first."""
    return sorted(findings, key=lambda each: rank(each.name, each.severity))
