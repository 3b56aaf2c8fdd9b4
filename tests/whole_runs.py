"""Runs from their files to what they leave: in one go, and stopped and gone on with."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from test_run import log_of

from minibert import cli
from minibert.training.loop import Observer, StepRecord, Trainer
from minibert.training.run import Outcome, train
from minibert.training.run_config import RunConfig
from minibert.training.state import steps


class StopAfter(Observer):
    """Ends training after an update, as a signal does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        trainer.stopping = record.step == self.step


def left(folder: Path) -> Mapping[str, Any]:
    """What a run leaves, but for its timings: the model, the last checkpoint, log and results."""
    last = folder / "checkpoints" / f"step-{steps(folder / 'checkpoints')[0]:07d}"
    files = [
        path
        for place in (folder / "model", folder / "start")
        for path in sorted(place.rglob("*"))
        if path.is_file()
    ]
    files += [last / "tensors.safetensors", folder / "results.json"]
    found: dict[str, Any] = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {**found, "log": log_of(folder)}


def in_one_go_and_in_parts(made: Callable[[Path], RunConfig], folder: Path, step: int) -> Outcome:
    """A run in `folder / "whole"`; it leaves what one does that is stopped after an update.

    Args:
        made: the run in a folder.
    """
    whole = train(made(folder / "whole"))
    assert whole.finished
    run = made(folder / "parts")
    assert not train(run, observers=[StopAfter(step)]).finished
    assert train(run, resume=True).finished
    parts, one = left(folder / "parts" / "run"), left(folder / "whole" / "run")
    assert parts.keys() == one.keys()
    differing = [name for name in one if parts[name] != one[name]]
    lines = [pair for pair in zip(parts["log"], one["log"], strict=True) if pair[0] != pair[1]]
    assert not differing, f"{differing} differ, and of the log first {lines[:1]}"
    return whole


def command(*args: str | Path) -> None:
    """A command that succeeds."""
    assert cli.main([str(arg) for arg in args]) == 0


def results(folder: Path) -> Any:
    """The figures of a run."""
    return json.loads((folder / "results.json").read_text())
