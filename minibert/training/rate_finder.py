"""Which learning rate to take: updates whose rate grows until the loss does, on a copy.

    rates 1e-7 … 1, equal steps in log rate  ->  losses  ->  means over nine updates around each
    proposal = min(the rate of the steepest fall of the mean, a tenth of where it starts to rise)

Source: Smith 2017, https://arxiv.org/abs/1506.01186, section 3.3, "LR range test".
Differs: the rate grows exponentially and not linearly, for its order of magnitude is not known; and
    what is looked at are the losses of the batches, not accuracies of evaluations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from minibert.columns import aligned
from minibert.errors import RunError, TrainingError
from minibert.files import replacing
from minibert.training.curves import smoothed
from minibert.training.json_file import json_text
from minibert.training.look import BLUE, LOOK, ORANGE, short, use_logarithms
from minibert.training.loop import Observer, StepRecord, Trainer
from minibert.training.run import Setup
from minibert.training.run_config import RunConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WINDOW = 9  # updates that a mean is over
_TOO_HIGH = 4.0  # times the best mean loss: nothing is to be learnt beyond
_LEAST_FALL = 0.05  # of the loss, below which nothing was learnt
_NOISE = 4  # standard errors of a mean, that batches alone may make between two of them
_RISEN = 0.1  # of the fall, that is lost again where the loss starts to diverge
_LINES = 15  # of the table, about


@dataclass(frozen=True)
class RateSearch:
    """What was seen on the way up.

    Attributes:
        rates: of each update: what optimizer.learning_rate would have been.
        losses: of its batch, before it.
        means: of the losses around each update.
        steepest: the rate at which the mean falls fastest; None where it never falls.
        diverging: the rate from which on it rises; None where it never does.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    means: tuple[float, ...]
    steepest: float | None
    diverging: float | None

    @property
    def proposal(self) -> float | None:
        """The rate to take, to two digits; None where no rate made the loss fall."""
        if self.steepest is None:
            return None
        limit = math.inf if self.diverging is None else self.diverging / 10
        return float(f"{min(self.steepest, limit):.1e}")

    def table(self) -> str:
        """For a terminal: rates and losses, and the line for the run file."""
        every = max(1, round(len(self.rates) / _LINES))
        marks = {self.steepest: "falls fastest", self.diverging: "starts to diverge"}
        shown = [
            (short(rate), f"{loss:.4g}", marks.get(rate, ""))
            for at, (rate, loss) in enumerate(zip(self.rates, self.means, strict=True))
            if at % every == 0 or rate in marks or at == len(self.rates) - 1
        ]
        lines = aligned([("rate", "mean loss", ""), *shown], left=[0, 2])
        return "\n".join([*lines, "", self._verdict()])

    def to_json(self) -> str:
        """For programs."""
        return json_text({**vars(self), "proposal": self.proposal})

    def draw(self, path: Path) -> None:
        """Write a picture of losses over rates to a .png file, whole or not at all.

        Raises: RunError where matplotlib is not installed, or the file cannot be written.
        """
        try:
            import matplotlib
        except ImportError:
            raise RunError(
                f"{path}: matplotlib is not installed, expected it to draw: pip install "
                "'minibert[train]'"
            ) from None
        try:
            with matplotlib.rc_context(LOOK), replacing(path) as part:
                self._figure().savefig(part, format="png")
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}") from None

    def _verdict(self) -> str:
        if self.proposal is None:
            return (
                f"no rate up to {self.rates[-1]:.2g} brought the loss down by more than noise: "
                "minibert doctor without --find-rate says whether one batch can be learnt at all"
            )
        return f"optimizer.learning_rate = {short(self.proposal)}"

    def _figure(self) -> "Figure":
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        axes.plot(self.rates, self.losses, color=BLUE, alpha=0.25, linewidth=0.7)
        axes.plot(self.rates, self.means, color=BLUE, linewidth=1.8, label="mean loss")
        axes.set_xscale("log")
        if min(self.losses) > 0:
            use_logarithms(axes)
        if self.diverging is not None:
            axes.axvline(self.diverging, color=ORANGE, linestyle="--", label="starts to diverge")
        if self.proposal is not None:
            rate = self.proposal
            axes.axvline(rate, color=BLUE, linestyle=":", label=f"proposal {short(rate)}")
        axes.set_title("Loss while the learning rate grows")
        axes.set_xlabel("learning rate")
        axes.legend(loc="best")
        return figure


def find_rate(
    setup: Setup, *, lowest: float = 1e-7, highest: float = 1.0, n_updates: int = 100
) -> RateSearch:
    """Make updates on a copy of the network, at rates from `lowest` to `highest`.

    It ends before, where the mean loss is four times its best or no number.  The head's rate keeps
    its share of the encoder's.  Weights and random numbers stay as they are.

    Raises: RunError for a range that is none; TrainingError where not even the first update, at the
        lowest rate, has a loss.
    """
    if not 0 < lowest < highest < math.inf or n_updates < 2 * _WINDOW:
        raise RunError(
            f"the rates are {lowest:g} to {highest:g} in {n_updates} updates, expected a lowest "
            f"above 0, a highest above it, and at least {2 * _WINDOW} updates"
        )
    run = _with_rate(setup.trainer.run_config, highest)
    run = replace(
        run,
        training=replace(
            run.training, epochs=n_updates / setup.trainer.steps_per_epoch,
            gradient_checkpointing=False,  # which the network has already
        ),
    )  # fmt: skip
    losses = _Losses(highest)
    with torch.random.fork_rng():
        trial = setup.trial(
            run, observers=[losses], schedule=partial(exponential, start=lowest / highest)
        )
        try:
            trial.run()
        except TrainingError:  # a loss that is no number: it has diverged
            if not losses.losses:
                raise
    return judged(losses.rates, losses.losses)


def exponential(step: int, total: int, warmup: int = 0, *, start: float) -> float:
    """From `start` at the first update to 1 at the last, by the same factor each.

    >>> [round(exponential(step, total=3, start=0.01), 4) for step in range(3)]
    [0.01, 0.1, 1.0]
    """
    return float(start ** (1 - step / max(1, total - 1)))


def judged(rates: Sequence[float], losses: Sequence[float]) -> RateSearch:
    """What losses at growing rates say."""
    means = smoothed(losses, _WINDOW)
    best = int(means.argmin())
    before = float(np.median(means[: max(1, len(means) // 10)]))
    fall = before - float(means[best])
    steepest = diverging = None
    steps = np.diff(losses[: best + 1])
    noise = float(steps.std()) / math.sqrt(2 * _WINDOW) if len(steps) else math.inf
    if fall > max(_LEAST_FALL * abs(before), _NOISE * noise):
        slopes = np.gradient(means, np.log(rates))
        steepest = rates[int(slopes[: best + 1].argmin())]
        risen = np.flatnonzero(means[best:] > means[best] + _RISEN * fall)
        if len(risen):
            diverging = rates[best + int(risen[0]) - 1]
    return RateSearch(tuple(rates), tuple(losses), tuple(means.tolist()), steepest, diverging)


class _Losses(Observer):
    """Keeps rates and losses, and ends the updates where they lead nowhere any more."""

    def __init__(self, highest: float) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._highest = highest

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        if not record.count or not math.isfinite(record.loss):  # no label; or fp16's overflow
            return
        assert trainer.schedule is not None
        multiplier = trainer.schedule(record.step - 1, trainer.total, trainer.warmup)
        self.rates.append(multiplier * self._highest)
        self.losses.append(record.loss)
        means = smoothed(self.losses, _WINDOW)
        trainer.stopping = bool(means[-1] > _TOO_HIGH * means.min())


def _with_rate(run: RunConfig, rate: float) -> RunConfig:
    """A run with another rate, and the head's in proportion."""
    before = run.optimizer
    head = before.head_learning_rate
    if head is not None:
        head *= rate / before.learning_rate
    return replace(run, optimizer=replace(before, learning_rate=rate, head_learning_rate=head))
