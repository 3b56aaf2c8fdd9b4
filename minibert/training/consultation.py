"""What `minibert doctor` tells: findings and figures of a run that has not begun."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minibert.columns import aligned
from minibert.doctor.findings import Finding, ranked
from minibert.training.json_file import json_text
from minibert.training.preflight import preflight
from minibert.training.rehearsal import Rehearsal, rehearse
from minibert.training.run import Setup, set_up, starting_folder
from minibert.training.run_config import RunConfig


@dataclass(frozen=True)
class Consultation:
    """Everything that was seen."""

    findings: list[Finding]
    facts: dict[str, str]
    rehearsal: Rehearsal

    def table(self) -> str:
        """For a terminal."""
        trial = self.rehearsal
        parts = [("part", "parameters", "trained")] + [
            (part, f"{n:,}", f"{trained:,}") for part, (n, trained) in trial.parameters.items()
        ]
        heart = f"one batch of {trial.n_examples} by heart, {trial.n_updates} updates"
        forecast = {
            heart: f"loss {trial.first_loss:.4g} -> {trial.last_loss:.4g}",
            "seconds an update": f"{trial.seconds:.3f}",
            "updates": f"{trial.total:,}",
            "minutes, without evaluations": f"{trial.seconds * trial.total / 60:.1f}",
            "memory at most, so far": f"{trial.peak_bytes / 1e9:.2f} GB",
        }
        lines = [*aligned(list(self.facts.items())), "", *aligned(parts, left=[0]), ""]
        lines += [*aligned(list(forecast.items())), ""]
        for each in self.findings:
            lines += [*each.lines(), ""]
        grave = [each for each in self.findings if each.severity != "info"]
        if not grave:
            lines.append("nothing was found that speaks against this run")
        return "\n".join(lines).rstrip()

    def to_json(self) -> str:
        """For programs."""
        trial = {k: v for k, v in vars(self.rehearsal).items() if k != "findings"}
        values: dict[str, Any] = {
            "findings": [each.to_dict() for each in self.findings],
            "facts": self.facts,
            "rehearsal": trial,
        }
        return json_text(values)


def consult(run: RunConfig, *, say: Callable[[str], None] | None = None) -> Consultation:
    """Look at a run, and try it out; its folder is not touched.

    Args:
        say: gets the lines about the data, as they come.

    Raises: the errors of reading the data and loading the model.
    """
    with set_up_aside(run, say=say) as setup:
        looked = preflight(setup.trainer.run_config, setup.data, setup.tokenizer)
        tried = rehearse(setup)
    return Consultation(ranked([*looked.findings, *tried.findings]), looked.facts, tried)


@contextmanager
def set_up_aside(run: RunConfig, *, say: Callable[[str], None] | None = None) -> Iterator[Setup]:
    """What a run is made of, for who tries it out; its own folder is not touched.

    Args:
        say: gets the lines about the data, as they come.

    Raises: the errors of reading the data and loading the model.
    """
    with tempfile.TemporaryDirectory(prefix="minibert-aside-") as place:
        run = replace(run, output=place)
        source = starting_folder(run, Path(place), resume=False, first=True)
        yield set_up(run, source, None, say=say)
