"""Observers that tell people what a run does: a progress bar, a log, its curves, TensorBoard."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from minibert.errors import DataError
from minibert.training.curves import RunLog, draw
from minibert.training.loop import Observer, StepRecord, Trainer


class Progress(Observer):
    """A bar on standard error: loss, rate, examples a second, time left; figures above it."""

    def __init__(self, *, shown: bool | None = None) -> None:
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._bar: Any = None
        self._loss = math.nan
        self._examples = 0
        self._seconds = 0.0

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        if self._bar is None:
            from tqdm import tqdm  # here: the import is felt at start-up

            self._bar = tqdm(
                total=trainer.total,
                initial=record.step - 1,
                unit="update",
                desc="training",
                disable=not self._shown,
            )
        # Over about the last twenty updates: a single batch says little.
        self._loss = (
            record.loss if math.isnan(self._loss) else 0.95 * self._loss + 0.05 * record.loss
        )
        self._examples = int(0.95 * self._examples) + record.n_examples
        self._seconds = 0.95 * self._seconds + record.seconds
        speed = self._examples / self._seconds if self._seconds else 0.0
        self._bar.set_postfix_str(
            f"loss {self._loss:.4f}, rate {record.learning_rate:.1e}, {speed:.0f} examples/s"
        )
        self._bar.update(1)

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in list(metrics.items())[:6])
        best = "  (best)" if trainer.best.step == trainer.step else ""
        self.say(f"update {trainer.step} of {trainer.total}: {shown}{best}")

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._bar is None or not self._shown:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        else:
            self._bar.write(line, file=sys.stderr)

    def at_end(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.close()


class Log(Observer):
    """A JSON object a line: an update's figures, or an evaluation's.

    Of a run that is gone on with, what the log says of later updates is dropped first: they are
    made again.
    """

    def __init__(self, path: Path, *, from_step: int) -> None:
        kept = []
        if from_step and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    values = json.loads(line)
                except ValueError:  # the last line of a process that was killed
                    break
                if values.get("step", 0) <= from_step:
                    kept.append(line)
        try:
            self._file = path.open("w", encoding="utf-8")
            self._file.writelines(f"{line}\n" for line in kept)
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from None

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        self._write({name: _plain(value) for name, value in vars(record).items()})

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        figures = {name: _plain(value) for name, value in metrics.items()}
        self._write({"step": trainer.step, "evaluation": figures})

    def at_end(self, trainer: Trainer) -> None:
        self._file.close()

    def _write(self, values: dict[str, Any]) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()


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
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
