"""An evaluation: the mean loss of all examples, and the figures of their task."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import hand_made
from small_runs import ids_of, run_of
from torch import nn

from minibert import BertForSequenceClassification, BertForTokenClassification, Tokenizer
from minibert.checkpoint import Pretrained
from minibert.training import evaluation, losses
from minibert.training.evaluation import Evaluation
from minibert.training.examples import Batch, Examples, Found
from minibert.training.losses import LossSum
from minibert.training.metrics import Metrics
from minibert.training.run_config import RunConfig
from minibert.training.text_task import TextTask, text_task

LABELS = ("neg", "pos")
TEXTS = ["good", "fine film", "bad", "poor the film", "odd", "good bad", "film is good"]
TARGETS = [1, 1, 0, 0, 0, 1, 0]


def examples_of(texts: Sequence[str], targets: Sequence[Any]) -> Examples:
    ids = [ids_of(f"[CLS] {text} [SEP]") for text in texts]
    return Examples(ids, [[0] * len(each) for each in ids], list(targets))


@pytest.fixture
def model() -> BertForSequenceClassification:
    words = {"good": 2, "fine": 2, "bad": 1, "poor": 1}
    return hand_made(BertForSequenceClassification, words, attends=True)


@pytest.fixture
def task() -> TextTask:
    return text_task(run_of("binary"), LABELS, TARGETS)


def test_figures_are_those_of_all_examples(
    task: TextTask, model: BertForSequenceClassification
) -> None:
    """good, fine film and film is good are positive; of good bad and odd the logits are equal."""
    report = Evaluation(task, LABELS, examples_of(TEXTS, TARGETS)).report(model)
    assert report.n_examples == 7
    assert report.confusion == [[3, 1], [1, 2]]
    assert report.figures["accuracy"] == pytest.approx(5 / 7)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_loss_is_the_mean_over_examples_whatever_the_batches(
    size: int, task: TextTask, model: BertForSequenceClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_BATCH", size)
    examples = examples_of(TEXTS, TARGETS)
    measured = Evaluation(task, LABELS, examples)
    with torch.no_grad():
        batches = list(measured.results(model))
        logits, targets = task.scores(batches, examples)
    sizes = [batch.n_examples for batch, _ in batches]
    assert sizes == [size] * (7 // size) + [7 % size] * (7 % size > 0)
    assert all(set(found) == {"logits"} for _, found in batches)  # the loss is told apart
    mean = losses.cross_entropy(logits, targets).sum.item() / 7
    figures = measured(model)
    assert figures["loss"] == pytest.approx(mean, rel=1e-6)
    assert figures["accuracy"] == pytest.approx(5 / 7)


def test_nothing_is_left_of_an_evaluation_before(
    task: TextTask, model: BertForSequenceClassification
) -> None:
    other = hand_made(BertForSequenceClassification, {"odd": 2})
    examples = examples_of(TEXTS, TARGETS)
    measured = Evaluation(task, LABELS, examples)
    figures = measured(model)
    assert measured(other) == Evaluation(task, LABELS, examples)(other) != figures
    assert measured.report(model).n_examples == 7
    assert measured(model) == figures


def test_thresholds_decide(task: TextTask, model: BertForSequenceClassification) -> None:
    never = Evaluation(task, LABELS, examples_of(TEXTS, TARGETS), thresholds=[1.0])
    assert never.report(model).confusion == [[4, 0], [3, 0]]


def test_tags_count_one_by_one() -> None:
    model = hand_made(BertForTokenClassification, {"good": 2}, labels=["x", "y"])
    task = text_task(run_of("tokens"), ("x", "y"), [[0, 1]])
    tags = [[-100, 1, 0, -100], [-100, 0, -100]]
    measured = Evaluation(task, ("x", "y"), examples_of(["good film", "odd"], tags))
    logits = torch.tensor([[0.0, 8.0], [0.0, 0.0], [0.0, 0.0]])  # of good, film and odd
    wanted = losses.cross_entropy(logits, torch.tensor([1, 0, 0])).sum.item() / 3
    assert measured(model)["loss"] == pytest.approx(wanted, rel=1e-5)


def test_no_gradient_is_kept(task: TextTask, model: BertForSequenceClassification) -> None:
    Evaluation(task, LABELS, examples_of(TEXTS, TARGETS)).report(model)
    assert all(parameter.grad is None for parameter in model.parameters())


@dataclass(frozen=True)
class Other:
    """The task, but that nothing counts for its loss, and that it has figures of its own."""

    inner: TextTask
    more: dict[str, float]

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def labels(self) -> tuple[str, ...]:
        return self.inner.labels

    def network(self, run: RunConfig, folder: Path) -> Pretrained:
        return self.inner.network(run, folder)

    def prepare(self, examples: Examples, rows: Sequence[int], step: int | None = None) -> Batch:
        return self.inner.prepare(examples, rows, step)

    def objective(self, model: nn.Module, batch: Batch) -> LossSum:
        return self.judged(model, batch)[0]

    def judged(self, model: nn.Module, batch: Batch) -> tuple[LossSum, Found]:
        nothing = torch.zeros(())
        return LossSum(nothing, nothing), self.inner.judged(model, batch)[1]

    def measure(
        self, results: Iterable[tuple[Batch, Found]], examples: Examples, metrics: Metrics
    ) -> dict[str, float]:
        return {**self.inner.measure(results, examples, metrics), **self.more}

    def finish(self, model: Pretrained) -> None:
        self.inner.finish(model)

    def save(self, model: Pretrained, tokenizer: Tokenizer, folder: Path) -> None:
        self.inner.save(model, tokenizer, folder)


def test_tasks_add_figures_and_their_own_loss_goes_first(
    task: TextTask, model: BertForSequenceClassification
) -> None:
    examples = examples_of(TEXTS, TARGETS)
    report = Evaluation(Other(task, {"pairs": 0.25}), LABELS, examples).report(model)
    assert report.figures["pairs"] == 0.25
    assert report.figures["accuracy"] == pytest.approx(5 / 7)
    figures = Evaluation(Other(task, {}), LABELS, examples)(model)
    assert figures["loss"] == 0.0  # of nothing that counts
    assert Evaluation(Other(task, {"loss": 7.0}), LABELS, examples)(model)["loss"] == 7.0
