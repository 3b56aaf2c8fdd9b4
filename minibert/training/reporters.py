"""Observers that tell people what a run does: a progress bar, and a log with a line an update."""

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minibert.errors import DataError
from minibert.files import replacing
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
    made again.  A line is written whole or not at all, and is on the disk before a checkpoint is.

    Raises: DataError where the file cannot be written.
    """

    def __init__(self, path: Path, *, from_step: int) -> None:
        self._path = path
        kept = _lines_up_to(path, from_step) if from_step and path.exists() else []
        try:
            with replacing(path) as part:
                part.write_bytes(b"".join(line + b"\n" for line in kept))
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._refusal(error) from None

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        self._write({name: _plain(value) for name, value in vars(record).items()})

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        figures = {name: _plain(value) for name, value in metrics.items()}
        self._write({"step": trainer.step, "evaluation": figures})

    def before_save(self, trainer: Trainer) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refusal(error) from None

    def at_end(self, trainer: Trainer) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; nothing is left to be written."""
        self._file.close()

    def _write(self, values: dict[str, Any]) -> None:
        line = json.dumps(values).encode() + b"\n"
        end = os.fstat(self._file.fileno()).st_size
        try:
            while line:  # a disk that fills up takes a part first
                line = line[self._file.write(line) :]
        except OSError as error:
            self._file.truncate(end)
            raise self._refusal(error) from None

    def _refusal(self, error: OSError) -> DataError:
        return DataError(
            f"{self._path}: cannot be written: {error.strerror}; make room, and go on with --resume"
        )


def _lines_up_to(path: Path, step: int) -> list[bytes]:
    """The lines of a log about updates up to `step`, but for what a killed process left of one."""
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and values.get("step", 0) <= step:
            kept.append(line)
    return kept


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
