"""Figures of an evaluation: by hand, then as scikit-learn, scipy and seqeval have them."""

import math
import subprocess
import sys
import warnings
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from seqeval.metrics import f1_score
from sklearn import metrics as sk
from torch import Tensor

from minibert.errors import LabelError, TrainingError
from minibert.heads import QuestionAnsweringOutput
from minibert.training.metrics import Metrics, Report, Task, is_better, metrics_of
from minibert.training.scores import Logits

CLOSE = 1e-6  # torchmetrics divides in float32
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SOME = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "multilabel": ("x", "y", "z")}


def report_of(
    task: Task,
    logits: Logits,
    targets: Tensor,
    *,
    labels: Sequence[str] = (),
    thresholds: float | Sequence[float] = 0.5,
) -> Report:
    metrics = metrics_of(task, labels, thresholds=thresholds)
    metrics.update(logits, targets)
    report = metrics.report()
    assert set(report.figures) == set(metrics.names)
    assert metrics.main in metrics.names
    # A figure is NaN if and only if a reason is given.
    undefined = {name for name, value in report.figures.items() if math.isnan(value)}
    assert undefined == set(report.undefined)
    return report


def one_hot(classes: Sequence[int], n_labels: int) -> Tensor:
    """Logits that decide for these classes."""
    return torch.nn.functional.one_hot(torch.tensor(classes), n_labels).float() * 4 - 2


def test_multiclass_by_hand() -> None:
    report = report_of(
        "multiclass",
        one_hot([0, 0, 1, 1, 2, 0], 3),
        torch.tensor([0, 0, 0, 1, 2, 2]),
        labels=("a", "b", "c"),
    )
    assert report.confusion == [[2, 1, 0], [0, 1, 0], [1, 0, 1]]
    a, b, c = (report.per_class[name] for name in "abc")
    assert (a.precision, a.recall, a.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (b.precision, b.recall, b.f1) == pytest.approx((1 / 2, 1, 2 / 3))
    assert (c.precision, c.recall, c.f1) == pytest.approx((1, 1 / 2, 2 / 3))
    assert [(x.n_target, x.n_predicted) for x in (a, b, c)] == [(3, 3), (1, 2), (2, 1)]
    figures = report.figures
    assert figures["accuracy"] == pytest.approx(4 / 6)
    assert figures["macro_f1"] == pytest.approx(2 / 3)
    assert figures["macro_precision"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert figures["macro_recall"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert figures["micro_f1"] == pytest.approx(4 / 6)
    # R_K: (c·s - Σ t p) / sqrt((s² - Σ p²)(s² - Σ t²)), with c 4, s 6, t 3 1 2, p 3 2 1.
    assert figures["mcc"] == pytest.approx((24 - 13) / math.sqrt((36 - 14) * (36 - 14)))
    assert report.n_examples == 6


def test_binary_by_hand() -> None:
    report = report_of(
        "binary",
        torch.tensor([2.0, -1.0, 0.5, -3.0]),
        torch.tensor([1, 1, 0, 0]),
        labels=("no", "yes"),
    )
    assert report.confusion == [[1, 1], [1, 1]]
    figures = report.figures
    assert figures["precision"] == figures["recall"] == figures["f1"] == 0.5
    assert figures["macro_f1"] == figures["accuracy"] == 0.5
    assert figures["mcc"] == 0.0
    assert figures["roc_auc"] == 0.75  # of four pairs one is the wrong way round
    assert figures["pr_auc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert report.per_class["yes"].pr_auc == figures["pr_auc"]


def test_each_class_of_two_has_its_own_areas() -> None:
    logits, targets = torch.tensor([2.0, 1.0, -1.0]), torch.tensor([1, 0, 1])
    report = report_of("binary", logits, targets, labels=("no", "yes"))
    assert report.per_class["yes"].pr_auc == pytest.approx((1 + 2 / 3) / 2)
    assert report.per_class["no"].pr_auc == 0.5
    assert report.per_class["no"].roc_auc == report.per_class["yes"].roc_auc == 0.5


def test_multilabel_by_hand() -> None:
    logits = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, 0.5]])
    targets = torch.tensor([[1, 0], [0, 1], [1, 1]])
    report = report_of("multilabel", logits, targets, labels=("x", "y"))
    figures = report.figures
    assert figures["subset_accuracy"] == pytest.approx(1 / 3)
    assert figures["label_accuracy"] == pytest.approx(4 / 6)
    assert figures["macro_f1"] == pytest.approx((0.5 + 1.0) / 2)
    assert figures["micro_f1"] == pytest.approx(2 * 3 / (4 + 4))
    assert report.confusion is None


def test_regression_by_hand() -> None:
    report = report_of(
        "regression", torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([1.0, 3.0, 2.0])
    )
    figures = report.figures
    assert figures["pearson"] == pytest.approx(1 / math.sqrt(14 * 2))
    assert figures["spearman"] == pytest.approx(0.5)
    assert figures["rmse"] == pytest.approx(math.sqrt(17 / 3))
    assert figures["mae"] == pytest.approx(5 / 3)


def test_masked_lm_by_hand() -> None:
    logits = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [9.0, 9.0]]]).log()
    targets = torch.tensor([[1, 0, -100]])
    logits[0, 1] = torch.tensor([0.0, math.log(3)])
    report = report_of("masked_lm", logits, targets)
    loss = -(math.log(2 / 3) + math.log(1 / 4)) / 2
    assert report.figures == pytest.approx(
        {"loss": loss, "perplexity": math.exp(loss), "accuracy": 0.5}
    )


def test_perplexity_is_that_of_torchmetrics() -> None:
    from torchmetrics.functional.text import perplexity

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 7, 11, generator=generator)
    targets = torch.randint(11, (3, 7), generator=generator)
    targets[0, 3:] = -100
    figures = report_of("masked_lm", logits, targets).figures
    expected = perplexity(logits, targets, ignore_index=-100).item()
    assert figures["perplexity"] == pytest.approx(expected, rel=1e-5)


def test_perplexity_beyond_all_numbers_is_infinite() -> None:
    logits = torch.tensor([[0.0, 1000.0], [0.0, -math.inf]])
    figures = report_of("masked_lm", logits, torch.tensor([0, 0])).figures
    assert figures["loss"] == 500.0
    assert figures["perplexity"] == pytest.approx(math.exp(500))
    figures = report_of("masked_lm", logits[:1], torch.tensor([0])).figures
    assert figures["perplexity"] == math.inf


def test_spans_by_hand() -> None:
    start = torch.tensor([[0.0, 3, 0, 0], [0, 0, 9, 0], [5, 0, 0, 0], [0, 0, 0, 0]])
    end = torch.tensor([[0.0, 0, 3, 0], [0, 8, 5, 0], [4, 0, 0, 0], [0, 0, 0, 0]])
    # (1, 2) exactly; (2, 2) since no answer ends before it begins; (0, 0) is far off; not counted.
    targets = torch.tensor([[1, 2], [2, 3], [2, 3], [-100, -100]])
    report = report_of("spans", (start, end), targets)
    assert report.n_examples == 3
    assert report.figures["exact_match"] == pytest.approx(1 / 3)
    assert report.figures["overlap_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    named = QuestionAnsweringOutput(start, end)
    assert report_of("spans", named, targets).figures == report.figures


@settings(max_examples=50)
@given(st.integers(1, 7), st.integers(0, 1000))
def test_answers_are_the_best_of_all_pairs(seq: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    start, end = torch.randn(2, 3, seq, generator=generator)
    pairs = (start[:, :, None] + end[:, None, :]).masked_fill(
        ~torch.ones(seq, seq, dtype=torch.bool).triu(), -math.inf
    )
    best = pairs.flatten(1).argmax(dim=1)
    targets = torch.stack([best // seq, best % seq], dim=1)
    assert report_of("spans", (start, end), targets).figures["exact_match"] == 1.0


def test_chosen_answers_by_hand() -> None:
    """No answer, rightly and wrongly; another answer, one that overlaps, and one that is lost."""
    none, lost = (-1, -1), (-100, -100)
    found = [none, none, (3, 4), (3, 4), (3, 4), none, (0, 99)]
    wanted = [none, (3, 4), none, (3, 4), (4, 6), lost, lost]
    metrics = metrics_of("spans")
    metrics.update_spans(found[:3], wanted[:3])
    metrics.update_spans([], [])
    metrics.update_spans(found[3:], wanted[3:])
    report = metrics.report()
    assert report.n_examples == 7
    overlap = 2 * 1 / (2 + 3)  # of one token, of two and three
    assert report.figures == pytest.approx({
        "exact_match": 2 / 7, "overlap_f1": (1 + 1 + overlap) / 7,
    })  # fmt: skip
    metrics.reset()
    metrics.update_spans([lost], [none])
    assert metrics.compute() == {"exact_match": 0.0, "overlap_f1": 0.0}


def test_chosen_answers_are_those_of_spans_alone_and_one_each() -> None:
    with pytest.raises(TrainingError) as caught:
        metrics_of("regression").update_spans([(1, 1)], [(1, 1)])
    assert str(caught.value) == "task is 'regression', expected 'spans' for spans; use update"
    with pytest.raises(LabelError, match=r"^got 1 right answers, expected 2, one for each$"):
        metrics_of("spans").update_spans([(1, 1), (2, 2)], [(1, 1)])


def test_words_that_were_judged_already_are_as_those_of_logits() -> None:
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, -100, 3, 6, -100], [0, 0, -100, -100, 2]])
    counted = targets != -100
    losses = torch.nn.functional.cross_entropy(logits[counted], targets[counted], reduction="none")
    metrics = metrics_of("masked_lm")
    metrics.update_words(losses, logits[counted].argmax(dim=-1) == targets[counted])
    assert metrics.report() == report_of("masked_lm", logits, targets)
    with pytest.raises(TrainingError, match="task is 'spans', expected 'masked_lm' for words"):
        metrics_of("spans").update_words(losses, losses > 0)
    with pytest.raises(TrainingError, match="the loss of a masked word is nan, expected finite"):
        metrics.update_words(torch.tensor([1.0, math.nan]), torch.tensor([True, False]))


def test_contrastive_by_hand() -> None:
    logits = torch.tensor([[3.0, 1, 0], [2, 1, 0], [0, 0, 0]])
    report = report_of("contrastive", logits, torch.tensor([0, 1, 2]))
    # Ranks 1 and 2; equal scores are worth the last rank, so that a collapse does not look well.
    assert report.figures["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert report.figures["accuracy"] == pytest.approx(1 / 3)
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(3)).item()
    assert report.figures["loss"] == pytest.approx(expected)


def tokens_case(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 9, len(TAGS), generator=generator)
    targets = torch.randint(len(TAGS), (4, 9), generator=generator)
    noise = torch.rand(4, 9, generator=generator)
    targets = torch.where(noise < 0.5, logits.argmax(dim=-1), targets)
    return logits, torch.where(noise > 0.8, -100, targets)


def test_tokens_leave_out_what_is_not_counted() -> None:
    """-100 at a word's further pieces: the entity goes on behind them."""
    logits = one_hot([1, 0, 2, 0], 5)[None]
    targets = torch.tensor([[1, -100, 2, 0]])
    report = report_of("tokens", logits, targets, labels=TAGS)
    assert report.figures["span_f1"] == report.figures["accuracy"] == 1.0
    assert list(report.per_class) == ["PER"]
    assert (report.per_class["PER"].n_target, report.n_examples) == (1, 1)
    assert report.confusion is not None
    assert sum(map(sum, report.confusion)) == 3


def test_entities_end_with_their_sequence() -> None:
    logits = torch.stack([one_hot([1, 2], 5), one_hot([2, 0], 5)])
    targets = torch.tensor([[1, 2], [2, 0]])
    report = report_of("tokens", logits, targets, labels=TAGS)
    assert report.per_class["PER"].n_target == 2


@pytest.mark.parametrize("seed", range(6))
def test_tokens_are_judged_as_by_seqeval(seed: int) -> None:
    logits, targets = tokens_case(seed)
    found, wanted = [], []
    for row, classes in zip(logits.argmax(dim=-1), targets, strict=True):
        kept = classes != -100
        found.append([TAGS[i] for i in row[kept].tolist()])
        wanted.append([TAGS[i] for i in classes[kept].tolist()])
    report = report_of("tokens", logits, targets, labels=TAGS)
    assert report.figures["span_f1"] == pytest.approx(f1_score(wanted, found))
    assert 0 < report.figures["span_f1"] < 1
    flat = [[tag for row in rows for tag in row] for rows in (wanted, found)]
    expected = sk.f1_score(*flat, average="macro", labels=sorted(set(flat[0]) | set(flat[1])))
    assert report.figures["macro_f1"] == pytest.approx(expected, abs=CLOSE)


def test_tags_without_a_scheme_are_judged_as_classes() -> None:
    metrics = metrics_of("tokens", ("NN", "VB"))
    assert metrics.main == "macro_f1"
    metrics.update(one_hot([0, 1, 1], 2)[None], torch.tensor([[0, 1, 0]]))
    report = metrics.report()
    assert report.figures["accuracy"] == pytest.approx(2 / 3)
    assert set(report.per_class) == {"NN", "VB"}
    assert set(report.figures) == set(metrics.names)


# --- against scikit-learn and scipy


@st.composite
def classes(draw: st.DrawFn, n_labels: int = 3, least: int = 1) -> tuple[Tensor, Tensor]:
    """Logits with ties, and targets of any classes, maybe all of one."""
    n = draw(st.integers(least, 12))
    cells = draw(st.lists(st.integers(-3, 3), min_size=n * n_labels, max_size=n * n_labels))
    targets = draw(st.lists(st.integers(0, n_labels - 1), min_size=n, max_size=n))
    return torch.tensor(cells).view(n, n_labels) * 0.7, torch.tensor(targets)


@settings(max_examples=60)
@given(classes())
def test_multiclass_is_judged_as_by_scikit_learn(case: tuple[Tensor, Tensor]) -> None:
    logits, targets = case
    report = report_of("multiclass", logits, targets, labels=SOME["multiclass"])
    predicted = logits.argmax(dim=1).numpy()
    wanted = targets.numpy()
    for average in ("macro", "micro"):
        expected = sk.precision_recall_fscore_support(
            wanted, predicted, average=average, zero_division=0
        )
        found = [report.figures[f"{average}_{name}"] for name in ("precision", "recall", "f1")]
        assert found == pytest.approx(expected[:3], abs=CLOSE)
    matrix = sk.confusion_matrix(wanted, predicted, labels=[0, 1, 2])
    assert report.confusion == matrix.tolist()
    if len(set(wanted)) > 1:
        expected_mcc = sk.matthews_corrcoef(wanted, predicted)
        assert report.figures["mcc"] == pytest.approx(expected_mcc, abs=CLOSE)
        areas = [
            (
                sk.roc_auc_score(wanted == index, probabilities),
                sk.average_precision_score(wanted == index, probabilities),
            )
            for index, probabilities in enumerate(logits.double().softmax(dim=1).T.numpy())
            if index in wanted
        ]
        means = np.mean(areas, axis=0).tolist()
        found = [report.figures["roc_auc"], report.figures["pr_auc"]]
        assert found == pytest.approx(means, abs=CLOSE)
    else:
        assert set(report.undefined) == {"mcc", "roc_auc", "pr_auc"}


@settings(max_examples=40)
@given(classes(n_labels=2), st.sampled_from([0.2, 0.5, 0.7]))
def test_binary_is_judged_as_by_scikit_learn(case: tuple[Tensor, Tensor], threshold: float) -> None:
    logits, targets = case
    report = report_of("binary", logits, targets, labels=SOME["binary"], thresholds=threshold)
    odds = (logits[:, 1].double() - logits[:, 0].double()).numpy()
    predicted = 1 / (1 + np.exp(-odds)) > threshold
    wanted = targets.numpy().astype(bool)
    expected = sk.precision_recall_fscore_support(
        wanted, predicted, average="binary", zero_division=0
    )
    if wanted.any() or predicted.any():
        found = [report.figures[name] for name in ("precision", "recall", "f1")]
        assert found == pytest.approx(expected[:3], abs=CLOSE)
    macro = sk.f1_score(wanted, predicted, average="macro", zero_division=0)
    assert report.figures["macro_f1"] == pytest.approx(macro, abs=CLOSE)
    if 0 < wanted.sum() < len(wanted):
        for name, judge in (
            ("mcc", sk.matthews_corrcoef),
            ("roc_auc", sk.roc_auc_score),
            ("pr_auc", sk.average_precision_score),
        ):
            scores = predicted if name == "mcc" else odds
            expected_figure = float(judge(wanted, scores))
            assert report.figures[name] == pytest.approx(expected_figure, abs=CLOSE)


@settings(max_examples=40)
@given(classes(), st.integers(0, 2**16))
def test_multilabel_is_judged_as_by_scikit_learn(case: tuple[Tensor, Tensor], seed: int) -> None:
    logits, _ = case
    targets = torch.randint(2, logits.shape, generator=torch.Generator().manual_seed(seed))
    thresholds = (0.3, 0.5, 0.8)
    report = report_of(
        "multilabel", logits, targets, labels=SOME["multilabel"], thresholds=thresholds
    )
    predicted = (logits.double().sigmoid() > torch.tensor(thresholds)).long().numpy()
    wanted = targets.numpy()
    occur = [i for i in range(3) if wanted[:, i].any() or predicted[:, i].any()]
    if occur:
        for average in ("macro", "micro"):
            expected = sk.precision_recall_fscore_support(
                wanted, predicted, average=average, labels=occur, zero_division=0
            )
            found = [report.figures[f"{average}_{n}"] for n in ("precision", "recall", "f1")]
            assert found == pytest.approx(expected[:3], abs=CLOSE)
    subset = sk.accuracy_score(wanted, predicted)
    assert report.figures["subset_accuracy"] == pytest.approx(subset)
    both = [i for i in range(3) if 0 < wanted[:, i].sum() < len(wanted)]
    if both:
        expected_area = sk.roc_auc_score(wanted[:, both], logits[:, both], average="macro")
        assert report.figures["roc_auc"] == pytest.approx(expected_area, abs=CLOSE)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=15))
def test_correlations_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    predicted, targets = torch.tensor(pairs, dtype=torch.float64).T * 0.3 + 7
    figures = report_of("similarity", predicted, targets).figures
    if len(set(predicted.tolist())) == 1 or len(set(targets.tolist())) == 1:
        assert math.isnan(figures["spearman"])
        return
    assert figures["pearson"] == pytest.approx(stats.pearsonr(predicted, targets)[0], abs=1e-9)
    assert figures["spearman"] == pytest.approx(stats.spearmanr(predicted, targets)[0], abs=1e-9)


# --- edges


def test_class_absent_from_targets_and_predictions_is_left_out() -> None:
    report = report_of(
        "multiclass", one_hot([0, 1], 3), torch.tensor([0, 1]), labels=SOME["multiclass"]
    )
    assert report.figures["macro_f1"] == 1.0
    absent = report.per_class["c"]
    assert math.isnan(absent.f1)
    assert math.isnan(absent.roc_auc)
    assert (absent.n_target, absent.n_predicted) == (0, 0)


def test_class_absent_from_targets_but_predicted_counts_0() -> None:
    report = report_of(
        "multiclass", one_hot([0, 1, 2], 3), torch.tensor([0, 1, 1]), labels=SOME["multiclass"]
    )
    assert report.per_class["c"].f1 == 0.0
    assert report.figures["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_one_class_alone_leaves_figures_undefined_and_says_so() -> None:
    report = report_of("binary", torch.tensor([1.0, 2.0]), torch.tensor([1, 1]), labels=("yes",))
    assert report.undefined == dict.fromkeys(("mcc", "roc_auc", "pr_auc"), "every target is 'yes'")
    assert report.figures["macro_f1"] == 1.0
    report = report_of("binary", torch.tensor([-1.0]), torch.tensor([0]), labels=("yes",))
    assert report.undefined["f1"] == "'yes' occurs neither in targets nor in predictions"
    assert report.undefined["mcc"] == "every target is 'not yes'"


def test_constant_prediction_of_classes_is_no_better_than_chance() -> None:
    report = report_of(
        "binary", torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]), labels=SOME["binary"]
    )
    assert report.confusion == [[3, 0], [1, 0]]  # no score above another: not the positive class
    assert report.figures["mcc"] == 0.0
    assert report.figures["roc_auc"] == 0.5
    assert report.figures["pr_auc"] == 0.25
    assert report.figures["f1"] == 0.0
    assert report.figures["accuracy"] == 0.75
    assert report.figures["macro_f1"] == pytest.approx((2 * 0.75 / 1.75) / 2)


def test_constant_prediction_has_no_correlation_and_says_so() -> None:
    report = report_of("regression", torch.full((3,), 2.5), torch.tensor([1.0, 2.0, 3.0]))
    assert report.undefined == dict.fromkeys(("pearson", "spearman"), "every prediction is 2.5")
    assert report.figures["mae"] == pytest.approx(2.5 / 3)
    report = report_of("regression", torch.tensor([1.0, 2.0]), torch.tensor([4.0, 4.0]))
    assert report.undefined["spearman"] == "every target is 4"


def test_almost_constant_prediction_is_still_correlated() -> None:
    predicted = 0.5 + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) * 1e-12
    figures = report_of("similarity", predicted, torch.tensor([1.0, 2.0, 3.0])).figures
    assert figures["spearman"] == pytest.approx(1.0)
    assert figures["pearson"] == pytest.approx(1.0, abs=1e-3)


def test_scores_that_are_large_keep_their_order() -> None:
    """Squeezed through a sigmoid, 60 and 80 would both be 1."""
    report = report_of(
        "binary", torch.tensor([60.0, 80.0]), torch.tensor([0, 1]), labels=SOME["binary"]
    )
    assert report.figures["roc_auc"] == 1.0
    logits = torch.tensor([[60.0], [80.0]])
    report = report_of("multilabel", logits, torch.tensor([[0], [1]]), labels=("x",))
    assert report.figures["roc_auc"] == report.figures["pr_auc"] == 1.0


def test_one_example_is_judged() -> None:
    report = report_of("multiclass", one_hot([1], 3), torch.tensor([1]), labels=SOME["multiclass"])
    assert report.figures["accuracy"] == report.figures["macro_f1"] == 1.0
    report = report_of("similarity", torch.tensor([0.3]), torch.tensor([2.0]))
    assert report.undefined["pearson"] == "one example has no correlation"
    report = report_of("multilabel", one_hot([1], 3), torch.zeros(1, 3), labels=SOME["multilabel"])
    assert report.figures["macro_f1"] == 0.0
    assert report.undefined["roc_auc"] == "no label has both kinds of targets"


def test_nothing_anywhere_is_undefined() -> None:
    report = report_of(
        "multilabel", torch.full((2, 3), -1.0), torch.zeros(2, 3), labels=SOME["multilabel"]
    )
    assert report.undefined["macro_f1"] == "no label occurs in targets or predictions"
    assert report.figures["label_accuracy"] == 1.0
    report = report_of("tokens", one_hot([0, 0], 5)[None], torch.tensor([[0, 0]]), labels=TAGS)
    assert report.undefined["span_f1"] == "there is no entity in targets or predictions"
    assert report.figures["accuracy"] == 1.0
    report = report_of("tokens", one_hot([1, 0], 5)[None], torch.tensor([[0, 0]]), labels=TAGS)
    assert report.figures["span_f1"] == 0.0


EMPTY: dict[Task, tuple[Logits, Tensor]] = {
    "binary": (torch.zeros(0), torch.zeros(0)),
    "multiclass": (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
    "multilabel": (torch.zeros(0, 3), torch.zeros(0, 3)),
    "regression": (torch.zeros(0), torch.zeros(0)),
    "tokens": (torch.zeros(1, 2, 5), torch.full((1, 2), -100)),
    "spans": ((torch.zeros(1, 2), torch.zeros(1, 2)), torch.full((1, 2), -100)),
    "masked_lm": (torch.zeros(1, 2, 5), torch.full((1, 2), -100)),
    "contrastive": (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
}


@pytest.mark.parametrize("task", EMPTY)
def test_no_examples_are_an_error(task: Task) -> None:
    metrics = metrics_of(task, {**SOME, "tokens": TAGS}.get(task, ()))
    line = f"^{task} was evaluated on 0 examples, expected one at least"
    with pytest.raises(TrainingError, match=line):
        metrics.compute()
    metrics.update(*EMPTY[task])
    with pytest.raises(TrainingError, match=line):
        metrics.compute()


def case_of(task: Task, seed: int) -> tuple[Logits, Tensor]:
    """Nine examples of a task."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(9, 3, generator=generator)
    ids = torch.randint(3, (9,), generator=generator)
    match task:
        case "binary":
            return logits[:, 0], ids.clamp(max=1)
        case "multilabel":
            return logits, (torch.randn(9, 3, generator=generator) > 0).long()
        case "regression" | "similarity":
            return logits[:, :1], logits[:, 1]
        case "tokens":
            tags = torch.randint(-1, 5, (9, 6), generator=generator)
            return torch.randn(9, 6, 5, generator=generator), tags.masked_fill(tags < 0, -100)
        case "spans":
            start, end = torch.randn(2, 9, 6, generator=generator)
            return (start, end), torch.randint(6, (9, 2), generator=generator).sort(dim=1)[0]
        case "masked_lm":
            tags = torch.randint(-1, 5, (9, 6), generator=generator)
            return torch.randn(9, 6, 5, generator=generator), tags.masked_fill(tags < 0, -100)
    return logits, ids


ALL: tuple[Task, ...] = (
    "binary", "multiclass", "multilabel", "regression", "similarity", "tokens", "spans",
    "masked_lm", "contrastive",
)  # fmt: skip


def taken(logits: Logits, places: Sequence[int]) -> Logits:
    if isinstance(logits, Tensor):
        return logits[list(places)]
    return logits[0][list(places)], logits[1][list(places)]


@settings(max_examples=36)
@given(
    st.sampled_from(ALL),
    st.permutations(range(9)),
    st.lists(st.integers(0, 9), max_size=4),
    st.integers(0, 99),
)
def test_order_and_batches_do_not_matter(
    task: Task, order: list[int], cuts: list[int], seed: int
) -> None:
    labels = {**SOME, "tokens": TAGS}.get(task, ())
    logits, targets = case_of(task, seed)
    whole = report_of(task, logits, targets, labels=labels)
    metrics = metrics_of(task, labels)
    edges = sorted({0, *cuts, 9})
    for start, stop in pairwise(edges):
        places = order[start:stop]
        metrics.update(taken(logits, places), targets[places])
    parts = metrics.report()
    assert parts.figures == pytest.approx(whole.figures, nan_ok=True, abs=1e-9)
    assert (parts.confusion, parts.n_examples) == (whole.confusion, whole.n_examples)


def test_sequences_of_other_lengths_are_joined() -> None:
    metrics = metrics_of("tokens", TAGS)
    metrics.update(one_hot([1, 2], 5)[None], torch.tensor([[1, 2]]))
    metrics.update(one_hot([2, 0, 3], 5)[None], torch.tensor([[2, 0, 3]]))
    report = metrics.report()
    assert report.per_class["PER"].n_target == 2
    assert report.per_class["LOC"].f1 == 1.0


@settings(max_examples=40)
@given(classes(n_labels=2))
def test_one_logit_and_two_give_the_same_figures(case: tuple[Tensor, Tensor]) -> None:
    two, targets = case
    one = two[:, 1].double() - two[:, 0].double()
    reports = [
        report_of("binary", logits, wanted, labels=SOME["binary"])
        for logits, wanted in ((two, targets), (one, targets), (one[:, None], targets.float()))
    ]
    assert all(repr(report) == repr(reports[0]) for report in reports)
    decided = report_of("multiclass", two, targets, labels=SOME["binary"])
    assert decided.confusion == reports[0].confusion


def test_half_precision_is_judged_without_rounding() -> None:
    logits = torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16)
    report = report_of("binary", logits, torch.tensor([0, 1]), labels=SOME["binary"])
    assert report.figures["roc_auc"] == 1.0


def test_thresholds_are_probabilities_that_have_to_be_exceeded() -> None:
    logits = torch.tensor([[0.0, 2.0, -2.0]]).repeat(2, 1)
    targets = torch.ones(2, 3, dtype=torch.long)

    def counts(thresholds: float | Sequence[float]) -> list[int]:
        report = report_of(
            "multilabel", logits, targets, labels=SOME["multilabel"], thresholds=thresholds
        )
        return [each.n_predicted for each in report.per_class.values()]

    assert counts(0.5) == [0, 2, 0]
    assert counts([0.4, 0.9, 0.1]) == [2, 0, 2]
    assert counts(0.0) == [2, 2, 2]
    assert counts(1.0) == [0, 0, 0]


def test_table_shows_figures_classes_and_reasons() -> None:
    report = report_of("binary", torch.tensor([1.0, 2.0]), torch.tensor([1, 1]), labels=("yes",))
    lines = report.table().splitlines()
    assert "accuracy         1.0000" in lines
    assert "mcc              nan  (every target is 'yes')" in lines
    assert any(line.split() == ["yes", "1.0000", "1.0000", "1.0000", "2", "2"] for line in lines)
    assert lines[-1].split() == ["yes", "0", "2"]
    assert report_of("similarity", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])).table() == (
        "pearson          1.0000\nspearman         1.0000"
    )


def test_reset_forgets() -> None:
    metrics = metrics_of("similarity")
    metrics.update(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0]))
    assert metrics.compute()["pearson"] == pytest.approx(-1)
    metrics.reset()
    metrics.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))
    assert metrics.compute()["pearson"] == pytest.approx(1)


def test_update_keeps_no_graph() -> None:
    metrics = metrics_of("multiclass", SOME["multiclass"])
    weights = torch.ones(3, requires_grad=True)
    metrics.update(one_hot([0, 1], 3) * weights, torch.tensor([0, 1]))
    assert not any(row.requires_grad for batch in metrics._batches for row in batch)
    assert metrics.compute()["accuracy"] == 1.0


def test_main_figures_and_their_direction() -> None:
    mains = {}
    for task in ALL:
        metrics = metrics_of(task, {**SOME, "tokens": TAGS}.get(task, ()))
        mains[task] = (metrics.main, metrics.higher_is_better)
    assert mains == {
        "binary": ("macro_f1", True),
        "multiclass": ("macro_f1", True),
        "multilabel": ("macro_f1", True),
        "regression": ("spearman", True),
        "similarity": ("spearman", True),
        "tokens": ("span_f1", True),
        "spans": ("overlap_f1", True),
        "masked_lm": ("perplexity", False),
        "contrastive": ("mrr", True),
    }


@pytest.mark.parametrize(
    ("name", "new", "old", "expected"),
    [
        ("macro_f1", 0.6, 0.5, True),
        ("macro_f1", 0.5, 0.5, False),
        ("perplexity", 5.0, 6.0, True),
        ("perplexity", 6.0, 5.0, False),
        ("perplexity", 5.0, 5.0, False),
        ("rmse", 1.0, 2.0, True),
        ("spearman", math.nan, -1.0, False),
        ("spearman", -1.0, math.nan, True),
        ("perplexity", 1.0, math.nan, True),
        ("spearman", math.nan, math.nan, False),
    ],
)
def test_is_better(name: str, new: float, old: float, expected: bool) -> None:
    assert is_better(name, new, old) == expected


@pytest.mark.slow
def test_nothing_is_printed_and_torchmetrics_comes_late() -> None:
    """In a process of its own: the tests turn warnings into errors and have imported everything."""
    script = """
import sys, torch
from minibert.training.metrics import metrics_of
metrics = metrics_of("multiclass", ["a", "b"])
lm = metrics_of("masked_lm")
lm.update(torch.zeros(1, 2), torch.tensor([0]))
lm.compute()
assert "torchmetrics" not in sys.modules
metrics.update(torch.zeros(2, 2), torch.tensor([1, 1]))
metrics.report()
assert "torchmetrics" in sys.modules
regression = metrics_of("regression")
regression.update(torch.zeros(2), torch.tensor([1.0, 2.0]))
assert regression.report().undefined
"""
    result = subprocess.run(
        [sys.executable, "-W", "always::UserWarning", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    line = r"^torchmetrics is not installed, expected it .* pip install 'minibert\[train\]'$"
    with pytest.raises(TrainingError, match=line):
        metrics_of("binary", ("yes",))
    assert isinstance(metrics_of("masked_lm"), Metrics)


def test_ties_are_the_mean_of_their_ranks() -> None:
    predicted, targets = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = report_of("similarity", predicted, targets).figures
    assert figures["spearman"] == pytest.approx(1.5 / math.sqrt(1.5 * 2), abs=1e-12)
