"""What is refused of logits, targets, labels and thresholds, and with which line."""

import math
from typing import Any

import pytest
import torch
from strategies import without_type_checks
from torch import Tensor

from minibert.errors import LabelError, TrainingError
from minibert.training import metrics
from minibert.training.metrics import Task, metrics_of
from minibert.training.scores import (
    Logits,
    gather_binary,
    gather_contrastive,
    gather_spans,
    gather_tokens,
)

LABELS: dict[Task, tuple[str, ...]] = {
    "binary": ("no", "yes"),
    "multiclass": ("a", "b", "c"),
    "multilabel": ("x", "y", "z"),
    "tokens": ("O", "B-A", "I-A"),
}
LONG = torch.long


def ids(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=LONG)


def test_two_logits_are_kept_as_their_difference() -> None:
    odds, targets = gather_binary(torch.tensor([[1.0, 3.0], [0.5, 0.0]]), torch.tensor([1, 0]), 2)
    assert odds.tolist() == [2.0, -0.5]
    assert targets.tolist() == [1, 0]


def test_tokens_are_kept_with_the_beginnings_of_their_sequences() -> None:
    logits = torch.eye(3)[torch.tensor([[0, 1, 2], [2, 2, 2], [2, 1, 0]])]
    targets = torch.tensor([[-100, 1, 0], [-100, -100, -100], [2, -100, 1]])
    found, wanted, first = gather_tokens(logits, targets, 3)
    assert found.tolist() == [1, 2, 2, 0]
    assert wanted.tolist() == [1, 0, 2, 1]
    assert first.tolist() == [True, False, True, False]


def test_an_answer_does_not_end_before_it_begins() -> None:
    start, end = torch.tensor([[1.0, 0.0, 9.0]]), torch.tensor([[0.0, 9.0, 0.0]])
    found, _ = gather_spans((start, end), torch.tensor([[0, 0]]), 0)
    assert found.tolist() == [[0, 1]]


def test_equal_candidates_count_as_before_the_right_one() -> None:
    ranks, _ = gather_contrastive(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([1]), 0)
    assert ranks.tolist() == [2]


@pytest.mark.parametrize(
    ("task", "logits", "targets", "line"),
    [
        ("binary", torch.zeros(2, 3), ids(2), r"^logits have shape \(2, 3\), expected \(batch,\)"),
        ("binary", torch.zeros(2), ids(2, 1), r"^targets have shape \(2, 1\), expected \(2,\): n"),
        ("binary", torch.zeros(2), ids(3), r"^targets have shape \(3,\), expected \(2,\)"),
        ("binary", torch.zeros(2), torch.tensor([0, 2]), r"^targets\[1\] is 2, expected 0 or 1"),
        ("binary", torch.zeros(1), torch.tensor([0.5]), r"^targets\[0\] is 0.5, expected 0 or 1"),
        ("multiclass", torch.zeros(2, 2), ids(2), r"\(2, 2\), expected \(batch, labels\) with 3"),
        ("multiclass", torch.zeros(2, 1, 3), ids(2), r"shape \(2, 1, 3\), expected \(batch, lab"),
        ("multiclass", torch.zeros(1, 3), torch.tensor([3]), r"targets\[0\] is 3, expected 0 to 2"),
        ("multiclass", torch.zeros(1, 3), torch.tensor([-1]), r"targets\[0\] is -1, expected 0 to"),
        ("multiclass", torch.zeros(1, 3), torch.zeros(1), r"targets are torch.float32, expected i"),
        ("multiclass", torch.zeros(2, 3), ids(2, 3), r"targets have shape \(2, 3\), expected \(2"),
        ("multilabel", torch.zeros(2, 3), ids(2), r"targets have shape \(2,\), expected \(2, 3\)"),
        ("multilabel", torch.zeros(1, 3), -ids(1, 3) - 100, r"targets\[0, 0\] is -100, expected 0"),
        ("regression", torch.zeros(2, 1), torch.zeros(2, 1), r"\(2, 1\), expected \(2,\): nothing"),
        ("regression", torch.zeros(2, 2), torch.zeros(2), r"predictions have shape \(2, 2\), exp"),
        ("similarity", torch.zeros(1), torch.tensor([math.nan]), r"targets\[0\] is nan, expected"),
        ("tokens", torch.zeros(2, 3), ids(2), r"\(2, 3\), expected \(batch, seq, labels\) with 3"),
        ("tokens", torch.zeros(1, 2, 3), ids(1, 3), r"shape \(1, 3\), expected \(1, 2\)"),
        ("tokens", torch.zeros(1, 2, 3), ids(1, 2) + 3, r"targets\[0\] is 3, expected 0 to 2"),
        ("spans", torch.zeros(1, 4), ids(1, 2), "expected to be two tensors of one shape"),
        ("spans", (torch.zeros(1, 4), torch.zeros(1, 3)), ids(1, 2), "two tensors of one shape"),
        ("spans", (torch.zeros(4), torch.zeros(4)), ids(4, 2), r"shape \(4,\), expected \(batch"),
        ("spans", (torch.zeros(1, 4),) * 2, ids(1), r"shape \(1,\), expected \(1, 2\)"),
        ("spans", (torch.zeros(1, 4),) * 2, torch.tensor([[0, 4]]), r"\[0, 1\] is 4, expected 0 "),
        ("spans", (torch.zeros(1, 4),) * 2, torch.tensor([[2, 1]]), r"\[0\] is \[2, 1\], expected"),
        ("masked_lm", torch.zeros(4), ids(4), r"shape \(4,\), expected \(\*tokens, vocab\)"),
        ("masked_lm", torch.zeros(1, 2, 4), ids(2), r"shape \(2,\), expected \(1, 2\)"),
        ("masked_lm", torch.zeros(2, 4), ids(2) + 4, r"targets\[0\] is 4, expected 0 to 3"),
        ("contrastive", torch.zeros(4), ids(4), r"shape \(4,\), expected \(batch, candidates\)"),
        ("contrastive", torch.zeros(2, 4), ids(4), r"shape \(4,\), expected \(2,\)"),
        ("multiclass", (torch.zeros(1, 3),) * 2, ids(1), "logits are two tensors, expected one"),
    ],
)
def test_what_does_not_fit_is_refused(
    task: Task, logits: Logits, targets: Tensor, line: str
) -> None:
    with pytest.raises(LabelError, match=line):
        metrics_of(task, LABELS.get(task, ())).update(logits, targets)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("task", "shape", "targets"),
    [
        ("binary", (2,), ids(2)),
        ("binary", (2, 2), ids(2)),
        ("multiclass", (2, 3), ids(2)),
        ("multilabel", (2, 3), ids(2, 3)),
        ("regression", (2,), torch.zeros(2)),
        ("tokens", (1, 2, 3), ids(1, 2)),
        ("spans", (2, 3), ids(2, 2)),
        ("masked_lm", (2, 3), ids(2)),
        ("contrastive", (2, 3), ids(2)),
    ],
)
def test_scores_that_are_no_numbers_are_refused(
    task: Task, shape: tuple[int, ...], targets: Tensor, value: float
) -> None:
    logits = torch.zeros(shape)
    logits.view(-1)[-1] = value
    given: Logits = (torch.zeros(shape), logits) if task == "spans" else logits
    with pytest.raises(TrainingError, match=rf"^logits\[\d.*\] is {value}, .* has diverged"):
        metrics_of(task, LABELS.get(task, ())).update(given, targets)


def test_scores_that_do_not_count_may_be_anything() -> None:
    lm = metrics_of("masked_lm")
    lm.update(torch.tensor([[0.0, 0.0], [math.nan, 0.0]]), torch.tensor([0, -100]))
    assert lm.compute()["perplexity"] == pytest.approx(2)


def test_choices_can_be_ruled_out_but_never_all() -> None:
    logits = torch.tensor([[0.0, -math.inf], [-math.inf, -math.inf]])
    contrastive = metrics_of("contrastive")
    contrastive.update(logits[:1], torch.tensor([0]))
    assert contrastive.compute() == {"mrr": 1.0, "accuracy": 1.0, "loss": 0.0}
    with pytest.raises(TrainingError, match=r"^logits\[1, 0\] is -inf"):
        contrastive.update(logits, torch.tensor([0, 0]))
    with pytest.raises(TrainingError, match=r"^logits\[0, 1\] is -inf"):
        metrics_of("multiclass", ("a", "b")).update(logits[:1], torch.tensor([0]))


@pytest.mark.parametrize(
    ("task", "labels", "line"),
    [
        ("binary", (), r"^binary has 0 labels, expected 1 or 2$"),
        ("binary", ("a", "b", "c"), "^binary has 3 labels, expected 1 or 2$"),
        ("multiclass", ("a",), "^multiclass has 1 labels, expected 2 or more$"),
        ("multilabel", (), "^multilabel has 0 labels, expected 1 or more$"),
        ("multiclass", ("a", "b", "a"), "^label 'a' stands twice"),
        ("regression", ("a",), "^regression has 1 labels, expected 0$"),
        ("tokens", ("O", "B-A", "X"), "^'X' stands among tags"),
    ],
)
def test_labels_that_do_not_fit_the_task_are_refused(
    task: Task, labels: tuple[str, ...], line: str
) -> None:
    with pytest.raises(LabelError, match=line):
        metrics_of(task, labels)


@pytest.mark.parametrize(
    ("task", "thresholds", "line"),
    [
        ("multilabel", [0.5], "^thresholds has 1 numbers, expected 3 for multilabel"),
        ("multilabel", [0.5, 1.5, 0.5], r"^thresholds\[1\] is 1.5, expected a probability"),
        ("binary", math.nan, r"^thresholds\[0\] is nan, expected a probability"),
        ("multiclass", 0.4, "^multiclass decides without thresholds, got 0.4"),
        ("multiclass", [0.4], "^thresholds has 1 numbers, expected 0"),
    ],
)
def test_thresholds_that_do_not_fit_are_refused(task: Task, thresholds: Any, line: str) -> None:
    with pytest.raises(TrainingError, match=line):
        metrics_of(task, LABELS[task], thresholds=thresholds)


def test_unknown_task_is_refused() -> None:
    plain = without_type_checks(metrics)
    with pytest.raises(TrainingError, match=r"^task is 'pairs', expected one of binary, multi"):
        plain.metrics_of("pairs")
