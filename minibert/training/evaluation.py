"""What a network is worth on examples: its mean loss and the figures of its task."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from minibert.training.examples import Batch, Examples, each_batch
from minibert.training.metrics import Metrics, Report, metrics_of
from minibert.training.tasks import Task

_BATCH = 64  # examples; of them a candidate's rank in contrastive evaluation is


class Evaluation:
    """Measures a network on examples; called by the loop, which gets the figures."""

    def __init__(
        self,
        task: Task,
        labels: Sequence[str],
        examples: Examples,
        *,
        thresholds: float | Sequence[float] = 0.5,
    ) -> None:
        self.task, self.examples = task, examples
        self.metrics: Metrics = metrics_of(task.name, labels, thresholds=thresholds)  # type: ignore[arg-type]
        self._loss = self._count = 0.0

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """The figures, and the mean loss as "loss", where the task has none of its own."""
        figures = self.report(model).figures
        return {"loss": self._loss / self._count if self._count else 0.0, **figures}

    @torch.no_grad()
    def report(self, model: nn.Module) -> Report:
        """All figures of the network, which has to be in evaluation mode."""
        self.metrics.reset()
        more = self.task.measure(self.results(model), self.examples, self.metrics)
        report = self.metrics.report()
        report.figures.update(more)
        return report

    def results(self, model: nn.Module) -> Iterator[tuple[Batch, Any]]:
        """Each batch and what the network gives for it; the losses are added up on the way."""
        device = next(model.parameters()).device
        self._loss = self._count = 0.0
        for batch in each_batch(self.examples, _BATCH, self.task.prepare):
            on_device = batch.to(device)
            loss, found = self.task.judged(model, on_device)
            self._loss, self._count = self._loss + float(loss.sum), self._count + float(loss.count)
            yield on_device, found
