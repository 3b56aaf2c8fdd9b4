"""A run tried out before it begins: can it learn at all, how long will it take, what will it need?

All of it on a copy of the network: weights and random numbers stay as they are.
"""

import statistics
from dataclasses import dataclass, replace
from typing import Any

import torch

from minibert.doctor.findings import Finding, finding
from minibert.doctor.probe import part_of
from minibert.machine import peak_bytes
from minibert.training.checkup import Checkup
from minibert.training.loop import Observer, StepRecord, Trainer
from minibert.training.run import Setup

_TIMED = 3  # updates, behind one that is not
_MOST = 16  # examples that are learnt by heart
_UPDATES = 25
# What says something of one batch that is learnt by heart; all else speaks of whole data.
_KEPT = {
    "not-finite", "labels-do-not-fit", "nothing-is-trained", "no-gradient", "weights-stand-still",
    "head-starts-large", "layer-is-dead", "dropout-is-off", "frozen-but-dropping",
    "weights-are-constant", "encoder-is-fresh", "dropout-is-high",
}  # fmt: skip


@dataclass(frozen=True)
class Rehearsal:
    """How a trial went.

    Attributes:
        parameters: of each part of the network how many there are, and how many are trained.
        first_loss, last_loss: of one batch, that was trained on `n_updates` times.
        seconds: of an update.
        peak_bytes: of memory, of this process so far.
    """

    findings: list[Finding]
    parameters: dict[str, tuple[int, int]]
    first_loss: float
    last_loss: float
    n_updates: int
    n_examples: int
    seconds: float
    total: int
    peak_bytes: int


def rehearse(setup: Setup) -> Rehearsal:
    """Make a few updates as the run would, and learn one batch by heart at its highest rate."""
    trainer = setup.trainer
    with torch.random.fork_rng():
        seconds = _timed(setup)
        heart, found = _by_heart(setup)
    first, last = heart[0].loss, statistics.fmean(each.loss for each in heart[-3:])
    n = heart[0].n_examples
    if last > 0.8 * first and first > 0 and setup.task.name != "contrastive":
        found.append(
            finding(
                "cannot-overfit",
                f"{len(heart)} updates on the same {n} examples, at the rate "
                f"{trainer.run_config.optimizer.learning_rate:g}, brought their loss from "
                f"{first:.4g} to {last:.4g}",
            )
        )
    return Rehearsal(
        findings=found,
        parameters=_parameters(trainer),
        first_loss=first,
        last_loss=last,
        n_updates=len(heart),
        n_examples=n,
        seconds=seconds,
        total=trainer.total,
        peak_bytes=peak_bytes(),
    )


class _Records(Observer):
    """Keeps what is known of each update."""

    def __init__(self) -> None:
        self.all: list[StepRecord] = []

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        self.all.append(record)


def _timed(setup: Setup) -> float:
    """Seconds of an update: the median of a few, of whatever lengths come first."""
    trainer, records = setup.trainer, _Records()
    run = trainer.run_config
    epochs = (_TIMED + 1) / trainer.steps_per_epoch
    run = replace(run, training=replace(run.training, epochs=epochs))
    setup.trial(run, observers=[records]).run()
    return statistics.median(each.seconds for each in records.all[1:] or records.all)


def _by_heart(setup: Setup) -> tuple[list[StepRecord], list[Finding]]:
    """Updates on the same few examples, at the run's highest rate."""
    run, records = setup.trainer.run_config, _Records()
    rows = _mixed(setup, min(_MOST, run.training.batch_size))
    run = replace(
        run,
        training=replace(
            run.training,
            epochs=float(_UPDATES), batch_size=len(rows), accumulate=1,
            freeze_until_step=None, gradient_checkpointing=False,
        ),
        data=replace(run.data, sampling="none"),
        schedule=replace(run.schedule, name="constant", warmup_fraction=0.0),
    )  # fmt: skip
    trial = setup.trial(run, rows)
    checkup = Checkup(trial, setup.task, None, folder=None, say=lambda line: None)
    trial.observers = (records, checkup)
    trial.run()
    return records.all, [each for each in checkup.doctor.ranked() if each.name in _KEPT]


def _mixed(setup: Setup, n: int) -> list[int]:
    """Some examples, of as many labels as can be."""
    examples = setup.data.train
    by_target: dict[str, list[int]] = {}
    for row, target in enumerate(examples.targets[:5000]):
        by_target.setdefault(repr(target)[:80], []).append(row)
    found: list[int] = []
    columns: list[list[int]] = sorted(by_target.values(), key=len, reverse=True)[:n]
    depth = 0
    while len(found) < min(n, len(examples)) and any(len(c) > depth for c in columns):
        found += [column[depth] for column in columns if len(column) > depth]
        depth += 1
    return sorted(found[:n])


def _parameters(trainer: Trainer) -> dict[str, tuple[int, int]]:
    frozen: set[Any] = {p for module in trainer.frozen for p in module.parameters()}
    found: dict[str, tuple[int, int]] = {}
    for name, parameter in trainer.model.named_parameters():
        part = part_of(name)
        all_of_it, trained = found.get(part, (0, 0))
        n = parameter.numel()
        found[part] = (all_of_it + n, trained + (0 if parameter in frozen else n))
    return found
