"""Observers that tell people what a run does: a progress bar, and a log with a line an update."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minibert.errors import DataError
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


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
