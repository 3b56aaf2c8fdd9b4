"""What a network is worth on examples: its mean loss and the figures of its task."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import tee

import torch
from torch import nn

from minibert.training.examples import Batch, Examples, Found, each_batch
from minibert.training.metrics import Metrics, Report, metrics_of
from minibert.training.processes import current
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
        self.confusion: list[list[int]] | None = None  # of the last time, where the task has one
        self._loss = self._count = 0.0

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """The figures, and the mean loss as "loss", where the task has none of its own."""
        figures = self._report(model).figures
        return {"loss": self._loss / self._count if self._count else 0.0, **figures}

    def report(self, model: nn.Module, *, seen: list[tuple[Batch, Found]] | None = None) -> Report:
        """All figures of the network, which has to be in evaluation mode.

        Args:
            seen: gets each batch and what the network gave for it, for who wants more of them.
        """
        return self._report(model, seen)

    @torch.no_grad()
    def _report(self, model: nn.Module, seen: list[tuple[Batch, Found]] | None = None) -> Report:
        self.metrics.reset()
        results: Iterable[tuple[Batch, Found]] = self.results(model)
        if seen is not None:
            seen.extend(results)
            results = seen
        more = self.task.measure(results, self.examples, self.metrics)
        report = self.metrics.report()
        report.figures.update(more)
        self.confusion = report.confusion
        return report

    def results(self, model: nn.Module) -> Iterator[tuple[Batch, Found]]:
        """Each batch and what the network gives for it; the losses are added up on the way.

        Of several processes each computes every n-th batch, and all get all.
        """
        self._loss = self._count = 0.0
        batches, again = tee(each_batch(self.examples, _BATCH, self.task.prepare))
        found = current().shared(again, partial(self._judged, model))
        for batch, each in zip(batches, found, strict=True):
            self._loss += float(each.pop("sum"))
            self._count += float(each.pop("count"))
            yield batch, each

    def _judged(self, model: nn.Module, batch: Batch) -> Found:
        """What a batch adds to the loss, and to the figures."""
        loss, found = self.task.judged(model, batch.to(next(model.parameters()).device))
        return {"sum": loss.sum, "count": loss.count, **{k: v.cpu() for k, v in found.items()}}
