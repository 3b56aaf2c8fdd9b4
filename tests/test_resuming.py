"""Saved, killed, damaged and gone on with in any order: training is that of one go."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from failures import Failing, KilledError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from strategies import TINY, unchanged_random
from torch import nn

from minibert import BertForSequenceClassification
from minibert.errors import CheckpointError
from minibert.files import discard
from minibert.training.examples import Examples
from minibert.training.loop import Observer, StepRecord, Trainer
from minibert.training.run_config import RunConfig
from minibert.training.state import load_state, steps
from minibert.training.text_task import text_task

TOTAL = 12
# What each update's evaluation gives: better now and then, and not only at the end.
SCORES = (0.2, 0.1, 0.4, 0.3, 0.1, 0.5, 0.5, 0.2, 0.6, 0.1, 0.2, 0.3)
RUN = {
    "task": "multiclass",
    "training": {
        "epochs": 4, "batch_size": 4, "seed": 3, "accumulate": 2, "evaluate_every": 2,
        "save_every": 3, "freeze": "0", "freeze_until_step": 5,
    },
    "optimizer": {"learning_rate": 1e-2},
    "schedule": {"name": "plateau", "plateau_patience": 0},
    "data": {"sampling": "over"},
}  # fmt: skip


Trace = tuple[float, float, float]
Weights = dict[str, torch.Tensor]


class OneUpdate(Observer):
    """Ends training after each update, and keeps what it came to."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        self.records.append(record)
        trainer.stopping = True


class Figures:
    """An evaluation whose figure depends on the update after which it is made alone."""

    trainer: Trainer

    def __call__(self, model: nn.Module) -> dict[str, float]:
        return {"f1": SCORES[self.trainer.step - 1]}


def new_trainer(folder: Path, keep: int) -> Trainer:
    training = {**RUN["training"], "keep_checkpoints": keep}  # type: ignore[dict-item]
    run = RunConfig.from_dict({**RUN, "training": training})
    torch.manual_seed(1)
    model = BertForSequenceClassification(TINY)
    ids = [[5 + i % 5, 6, 7 + i % 3][: 2 + i % 2] for i in range(9)]
    data = Examples(ids, [[0] * len(row) for row in ids], [i % 3 for i in range(9)])
    evaluate = Figures()
    task = text_task(run, ("no", "yes", "maybe"), data.targets)
    evaluate.trainer = Trainer(
        model, task.objective, data, run, evaluate=evaluate, metric="f1", folder=folder,
        identity={"data": "a", "model": "b"},
    )  # fmt: skip
    return evaluate.trainer


def update(trainer: Trainer) -> StepRecord:
    """One update, with the evaluation and the checkpoint that are due behind it, and no other."""
    trainer.stopping = False
    one = OneUpdate()
    trainer.observers = [one]
    saved = trainer.save
    if trainer.step + 1 < TOTAL and (trainer.step + 1) % 3:
        trainer.save = lambda: None  # type: ignore[method-assign]
    try:
        trainer.run()
    finally:
        trainer.save = saved  # type: ignore[method-assign]
    return one.records[0]


@cache
def uninterrupted() -> tuple[list[Trace], dict[int, tuple[bytes, Any]], dict[int, Weights]]:
    """The trace of one go, what a checkpoint of each update holds, and the weights then."""
    with tempfile.TemporaryDirectory() as place:
        trainer = new_trainer(Path(place), keep=99)
        assert trainer.total == TOTAL
        trace, checkpoints, weights = [], {}, {}
        for step in range(1, TOTAL + 1):
            trace.append(figures(update(trainer)))
            trainer.save()
            checkpoints[step] = content(Path(place) / "checkpoints" / f"step-{step:07d}")
            weights[step] = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    return trace, checkpoints, weights


def figures(record: StepRecord) -> Trace:
    return record.loss, record.grad_norm, record.learning_rate


def content(place: Path) -> tuple[bytes, Any]:
    """What a checkpoint holds, as far as it does not depend on how many are kept."""
    facts = json.loads((place / "state.json").read_bytes())
    del facts["run"]["training"]["keep_checkpoints"], facts["sha256"]
    return (place / "tensors.safetensors").read_bytes(), facts


def is_whole(place: Path, step: int) -> bool:
    """Does a folder hold the checkpoint that an uninterrupted run would have written there?"""
    try:
        return content(place) == uninterrupted()[1][step]
    except (OSError, ValueError, LookupError, TypeError):
        return False


class Interrupted(RuleBasedStateMachine):
    """A run that is updated, saved, killed, damaged, gone on with, and keeps more or fewer."""

    @initialize()
    def begin(self) -> None:
        with unchanged_random():
            uninterrupted()  # before this run, for both draw from one random state
        self.folder = Path(tempfile.mkdtemp())
        self.places = self.folder / "checkpoints"
        self.keep = 2
        self.trainer: Trainer | None = None

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @precondition(lambda self: self.trainer is None)
    @rule()
    def resume(self) -> None:
        """The newest whole checkpoint loads, and each newer one that is torn is told of."""
        with unchanged_random():
            trainer = new_trainer(self.folder, self.keep)
            torch.manual_seed(99)  # whatever was drawn before
            found = steps(self.places)
            whole = [step for step in found if is_whole(self.places / f"step-{step:07d}", step)]
            if whole:
                said = trainer.resume()
                assert trainer.step == whole[0]
                newer = [step for step in found if step > whole[0]]
                assert [line.partition(" ")[0] for line in said] == [
                    f"step-{step:07d}" for step in newer
                ]
            else:
                with pytest.raises(CheckpointError, match="no checkpoint to go on from"):
                    trainer.resume()
                for place in (self.places, self.folder / "best"):  # as --overwrite does
                    if place.exists():
                        discard(place)
            self.trainer = trainer

    @precondition(lambda self: self.trainer is not None and self.trainer.step < TOTAL)
    @rule(n=st.integers(1, 4))
    def go_on(self, n: int) -> None:
        """Each update is that of one go: its loss, its gradient, its rate."""
        assert self.trainer is not None
        with unchanged_random():
            for step in range(self.trainer.step, min(self.trainer.step + n, TOTAL)):
                assert figures(update(self.trainer)) == uninterrupted()[0][step]

    @precondition(lambda self: self.trainer is not None and self.trainer.step > 0)
    @rule()
    def save(self) -> None:
        assert self.trainer is not None
        with unchanged_random():
            self.trainer.save()
        found = steps(self.places)
        assert found[0] == self.trainer.step
        assert len(found) <= self.keep
        assert is_whole(self.places / f"step-{found[0]:07d}", found[0])

    @precondition(lambda self: self.trainer is not None)
    @rule()
    def kill(self) -> None:
        self.trainer = None

    @precondition(lambda self: self.trainer is not None and self.trainer.step > 0)
    @rule(at=st.integers(1, 25), best=st.booleans())
    def kill_while_saving(self, at: int, best: bool) -> None:
        """At any call that writes; checkpoints that are whole stay so until the new one is."""
        assert self.trainer is not None
        newest = self._newest_whole()
        failing = Failing(at, None)
        with unchanged_random(), failing.installed():
            try:
                with failing:
                    if best and self.trainer.best.step == self.trainer.step:
                        self.trainer.save_best()
                    else:
                        self.trainer.save()
            except KilledError:
                assert failing.failed
        if newest != self.trainer.step:  # which is moved away before the new one takes its place
            assert self._newest_whole() in (newest, self.trainer.step)
        self.trainer = None

    @precondition(lambda self: steps(self.places))
    @rule(
        name=st.sampled_from(["state.json", "tensors.safetensors"]),
        how=st.sampled_from(["cut", "flip", "delete"]),
        where=st.floats(0, 1, exclude_max=True),
    )
    def damage_the_newest(self, name: str, how: str, where: float) -> None:
        path = self.places / f"step-{steps(self.places)[0]:07d}" / name
        if not path.exists():
            return
        raw = path.read_bytes()
        at = int(where * len(raw))
        if how == "delete":
            path.unlink()
        elif how == "cut":
            path.write_bytes(raw[:at])
        elif at < len(raw):
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])

    @rule(keep=st.integers(1, 3))
    def keep_more_or_fewer(self, keep: int) -> None:
        self.keep = keep
        if self.trainer is not None:
            training = {**RUN["training"], "keep_checkpoints": keep}  # type: ignore[dict-item]
            self.trainer.run_config = RunConfig.from_dict({**RUN, "training": training})

    def _newest_whole(self) -> int:
        found = [s for s in steps(self.places) if is_whole(self.places / f"step-{s:07d}", s)]
        return max(found, default=0)

    @invariant()
    def best_is_that_of_one_go(self) -> None:
        """Whichever checkpoint is gone on from, its best weights are there, and they are right."""
        if not hasattr(self, "folder"):
            return
        for step in steps(self.places):
            place = self.places / f"step-{step:07d}"
            if is_whole(place, step):
                best: Mapping[str, Any] = uninterrupted()[1][step][1]["best"]
                if best["step"]:
                    found, _ = load_state(self.folder / "best", step=best["step"])
                    assert found is not None
                    weights = uninterrupted()[2][best["step"]]
                    assert found.tensors.keys() == weights.keys()
                    assert all(torch.equal(found.tensors[n], weights[n]) for n in weights)
        if self.trainer is not None and self.trainer.step == TOTAL:
            self.trainer.restore_best()
            assert self.trainer.best.step == 2 * (
                1 + max(range(6), key=lambda i: SCORES[2 * i + 1])
            )


TestInterrupted = pytest.mark.slow(Interrupted.TestCase)
TestInterrupted.settings = settings(
    max_examples=40, stateful_step_count=30, report_multiple_bugs=False
)
