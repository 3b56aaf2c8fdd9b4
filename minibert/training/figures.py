"""Observers that show the figures of a run: in a picture, `curves.png`, and in TensorBoard."""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from minibert.errors import in_one_line
from minibert.training.curves import RunLog, draw
from minibert.training.loop import Observer, StepRecord, Trainer


class Curves(Observer):
    """Draws a run's `curves.png` from its `log.jsonl`, at each evaluation and at the end.

    It stands behind `Log` among the observers.  A picture takes part of a second, and one is left
    out where they would take more than a twentieth of the run.  What fails is said in a line, once,
    and ends nothing; the picture that was there stays.

    Args:
        folder: of the run.
        say: takes the line.
    """

    def __init__(self, folder: Path, *, say: Callable[[str], None]) -> None:
        self._path = folder / "curves.png"
        self._log = RunLog(folder / "log.jsonl")
        self._say = say
        self._said: str | None = None
        self._seconds, self._ended = 0.0, -math.inf  # of the last picture

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        if time.perf_counter() - self._ended >= 19 * self._seconds:
            self._draw(trainer)

    def at_end(self, trainer: Trainer) -> None:
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        start = time.perf_counter()
        try:
            self._log.read()
            draw(
                self._log,
                self._path,
                metric=trainer.metric,
                max_grad_norm=trainer.run_config.training.max_grad_norm,
                title=f"{self._path.parent.name}  ·  update {trainer.step:,} of {trainer.total:,}",
            )
        except Exception as error:  # whatever it is: a run is worth more than its picture
            line = f"{self._path}: not drawn, training goes on: {_reason(error, 'matplotlib')}"
            if line != self._said:
                self._say(line)
            self._said = line
        self._ended = time.perf_counter()
        self._seconds = self._ended - start


class TensorBoard(Observer):
    """Writes the figures of a run as scalars for TensorBoard, where that is asked for.

    Those of updates are named train/…, those of evaluations validation/….  Of a run that is gone
    on with, TensorBoard drops what was written of later updates.  Where it is not installed, or
    writing fails, a line says so and nothing more is written.

    Args:
        folder: of the run; the scalars go to its folder `tensorboard`.
        enabled: is it asked for?
        from_step: updates that are done already.
        say: takes the line.
    """

    def __init__(
        self, folder: Path, *, enabled: bool, from_step: int, say: Callable[[str], None]
    ) -> None:
        self._folder = folder / "tensorboard"
        self._from_step = from_step
        self._say = say
        self._writer: Any = None
        if enabled:
            self._attempt(self._open)

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        figures = {
            "loss": record.loss,
            "learning_rate": record.learning_rate,
            "grad_norm": record.grad_norm,
            "examples_per_second": record.n_examples / record.seconds,
        }
        self._attempt(partial(self._add, "train", figures, record.step))

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        self._attempt(partial(self._add, "validation", metrics, trainer.step))

    def at_end(self, trainer: Trainer) -> None:
        if self._writer is not None:
            self._attempt(self._writer.close)

    def _open(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(self._folder), purge_step=self._from_step + 1, flush_secs=5
        )

    def _add(self, kind: str, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            if self._writer is not None and math.isfinite(value):
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # as of `Curves`
            self._writer = None
            reason = _reason(error, "tensorboard")
            self._say(f"{self._folder}: not written, training goes on: {reason}")


def _reason(error: Exception, package: str) -> str:
    """What went wrong, in a line, and how to mend it where the package is not there."""
    if isinstance(error, ImportError):
        return f"{package} is not installed: pip install {package}"
    return in_one_line(error)
