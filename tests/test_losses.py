"""Losses: numbers by hand, then torch and float64 numpy, then what holds for all of them."""

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import without_type_checks
from torch import Tensor

from minibert.errors import LabelError
from minibert.training import losses
from minibert.training.losses import IGNORED, LossSum

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
LN4_3 = LN4 - LN3  # -log p where p = 3/4

Numbers = np.ndarray[Any, np.dtype[Any]]


def of(*rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def near(got: LossSum, total: float, count: float) -> None:
    assert got.sum.shape == got.count.shape == ()
    assert got.sum.item() == pytest.approx(total, abs=1e-14, rel=1e-14)
    assert got.count.item() == count


# ---- numbers by hand

# softmax(ln 3, 0) = (3/4, 1/4) and σ(ln 3) = 3/4
ROWS = of([LN3, 0], [LN3, 0], [5, 7])
LABELS = torch.tensor([0, 1, IGNORED])


def test_cross_entropy_is_as_worked_by_hand() -> None:
    near(losses.cross_entropy(ROWS, LABELS), LN4_3 + LN4, 2)


def test_cross_entropy_weights_count_too() -> None:
    near(losses.cross_entropy(ROWS, LABELS, weight=of(2, 5)), 2 * LN4_3 + 5 * LN4, 7)


def test_cross_entropy_smoothed_is_as_worked_by_hand() -> None:
    # each row: 0.8 of its own, and 0.2 of the mean over both classes
    mean = (LN4_3 + LN4) / 2
    got = losses.cross_entropy(ROWS, LABELS, label_smoothing=0.2)
    near(got, 0.8 * (LN4_3 + LN4) + 0.2 * 2 * mean, 2)


def test_cross_entropy_smoothed_weighs_every_class_of_a_row() -> None:
    mean = (2 * LN4_3 + 5 * LN4) / 2
    got = losses.cross_entropy(ROWS, LABELS, label_smoothing=0.2, weight=of(2, 5))
    near(got, 0.8 * (2 * LN4_3 + 5 * LN4) + 0.2 * 2 * mean, 7)


def test_cross_entropy_ignores_what_it_is_told_to() -> None:
    labels = torch.tensor([0, 1, 1])
    near(losses.cross_entropy(ROWS, labels, ignore_index=1), LN4_3, 1)
    near(losses.focal(ROWS, labels, gamma=1.0, ignore_index=1), LN4_3 / 4, 1)


def test_focal_is_as_worked_by_hand() -> None:
    near(losses.focal(ROWS, LABELS), LN4_3 / 16 + 9 / 16 * LN4, 2)
    got = losses.focal(ROWS, LABELS, gamma=1.0, alpha=of(2, 5))
    near(got, 2 / 4 * LN4_3 + 5 * 3 / 4 * LN4, 7)


def test_balanced_weights_are_as_worked_by_hand() -> None:
    # 4 labels of 2 classes: 4 / (2 · 3) and 4 / (2 · 1); class 1 is absent
    labels = torch.tensor([[0, 0, IGNORED], [0, 2, IGNORED]])
    expected = torch.tensor([2 / 3, 1, 2])
    assert torch.equal(losses.balanced_weights(labels, 3), expected)


def test_balanced_weights_of_nothing_are_1() -> None:
    got = losses.balanced_weights(torch.tensor([IGNORED]), 2)
    assert got.tolist() == [1, 1]
    got = losses.balanced_weights(torch.tensor([0, 1, 1]), 2, ignore_index=1)
    assert got.tolist() == [1, 1]


def test_masked_lm_counts_masked_words() -> None:
    near(losses.masked_lm(ROWS[None], LABELS[None]), LN4_3 + LN4, 2)
    near(losses.masked_lm(ROWS, LABELS), LN4_3 + LN4, 2)


def test_next_sentence_0_is_next() -> None:
    near(losses.next_sentence(of([LN3, 0]), torch.tensor([0])), LN4_3, 1)


def test_span_is_the_mean_of_both_ends() -> None:
    start, end = of([LN3, 0], [0, LN3]), of([0, LN3], [0, 0])
    got = losses.span(start, end, torch.tensor([0, 0]), torch.tensor([1, 1]))
    near(got, (LN4_3 + LN4) + (LN4_3 + LN2), 4)


def test_span_leaves_out_ends_outside_the_sequence() -> None:
    logits = of([LN3, 0], [LN3, 0], [LN3, 0])
    starts, ends = torch.tensor([0, 2, IGNORED]), torch.tensor([2, 9, IGNORED])
    near(losses.span(logits, logits, starts, ends), LN4_3, 1)
    near(losses.span(logits[:1], logits[:1], torch.tensor([0]), torch.tensor([IGNORED])), LN4_3, 1)


def test_span_predicts_no_padding_with_a_mask() -> None:
    logits, mask = of([LN3, 0, 99]), torch.tensor([[True, True, False]])
    zero = torch.tensor([0])
    near(losses.span(logits, logits, zero, torch.tensor([1]), mask=mask), LN4_3 + LN4, 2)
    near(losses.span(logits, logits, zero, torch.tensor([2]), mask=mask), LN4_3, 1)
    near(losses.span(logits, logits, zero, torch.tensor([2]), mask=~mask), 0, 1)
    nothing = torch.zeros_like(mask)
    near(losses.span(logits, logits, zero, zero, mask=nothing), 0, 0)


def test_distillation_is_as_worked_by_hand() -> None:
    # with T = 2 the teacher says (3/4, 1/4), the student (1/2, 1/2)
    divergence = 3 / 4 * (LN3 - LN2) + 1 / 4 * -LN2
    teacher, student = of([2 * LN3, 0], [0, 2 * LN3]), of([0, 0], [1, 1])
    near(losses.distillation(student, teacher), 2 * 4 * divergence, 2)


def test_distillation_leaves_the_teacher_alone() -> None:
    student, teacher = of([1, 2]).requires_grad_(), of([2, 1]).requires_grad_()
    losses.distillation(student, teacher).sum.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().min() > 0


def test_binary_cross_entropy_is_as_worked_by_hand() -> None:
    logits, targets = of(LN3, LN3, 9), of(1, 0, IGNORED)
    near(losses.binary_cross_entropy(logits, targets), LN4_3 + LN4, 2)
    near(losses.binary_cross_entropy(logits, targets, pos_weight=5.0), 5 * LN4_3 + LN4, 2)


def test_binary_cross_entropy_weighs_each_label_by_its_own() -> None:
    logits = of([LN3, LN3], [LN3, LN3], [LN3, LN3])
    targets = of([1, 1], [0, 1], [IGNORED, 1])
    got = losses.binary_cross_entropy(logits, targets, pos_weight=of(2, 5))
    near(got, 2 * LN4_3 + LN4 + 3 * 5 * LN4_3, 5)


def test_binary_cross_entropy_takes_targets_between() -> None:
    near(losses.binary_cross_entropy(of(LN3), of(0.25)), 0.25 * LN4_3 + 0.75 * LN4, 1)


def test_binary_focal_is_as_worked_by_hand() -> None:
    logits, targets = of(LN3, LN3, 9), of(1, 0, IGNORED)
    near(losses.binary_focal(logits, targets), LN4_3 / 16 + 9 / 16 * LN4, 2)
    got = losses.binary_focal(logits, targets, gamma=1.0, alpha=0.2)
    near(got, 0.2 / 4 * LN4_3 + 0.8 * 3 / 4 * LN4, 2)


def test_binary_focal_weighs_each_label_by_its_own() -> None:
    logits, targets = of([LN3, LN3], [LN3, LN3]), of([1, 1], [0, 0])
    got = losses.binary_focal(logits, targets, gamma=0.0, alpha=of(0.2, 1))
    near(got, 0.2 * LN4_3 + 0.8 * LN4 + LN4_3, 4)


def test_losses_of_numbers_are_as_worked_by_hand() -> None:
    predictions, targets = of(1, 2, 5), of(1, 4, 2)
    near(losses.mse(predictions, targets), 0 + 4 + 9, 3)
    near(losses.l1(predictions, targets), 0 + 2 + 3, 3)
    near(losses.huber(predictions, targets), 0 + 1.5 + 2.5, 3)
    near(losses.huber(predictions, targets, delta=2.0), 0 + 2 + 4, 3)


def test_regression_takes_whole_numbers() -> None:
    near(losses.mse(of(1, 2), torch.tensor([2, 4])), 5, 2)
    near(losses.mse(of(0.0), torch.tensor([IGNORED])), 1e4, 1)  # a number like any other


# Three times the unit vectors, so that nothing here is right unless it normalises.
E1, E2 = [3.0, 0.0], [0.0, 3.0]


def test_contrastive_is_as_worked_by_hand() -> None:
    # cosines over T are ln 3 and 0
    pairs, temperature = of(E1, E2), 1 / LN3
    near(losses.contrastive(pairs, pairs, temperature=temperature), 2 * LN4_3, 2)
    # candidates e1, e2, e1: 3 / (3 + 1 + 3) for the first anchor, 3 / (1 + 3 + 1) for the second
    got = losses.contrastive(pairs, pairs, of(E1), temperature=temperature)
    near(got, math.log(7 / 3) + math.log(5 / 3), 2)


def test_contrastive_symmetric_is_the_mean_of_both_directions() -> None:
    # Anchors e1, e1; positives e1, e2.  Forward (3/4, 1/4); backward 1/2 each.
    anchors, positives = of(E1, E1), of(E1, E2)
    got = losses.contrastive(anchors, positives, temperature=1 / LN3, symmetric=True)
    near(got, (LN4_3 + LN4 + 2 * LN2) / 2, 2)
    # A negative is a candidate forward only: 3/5 and 1/5.
    got = losses.contrastive(anchors, positives, of(E2), temperature=1 / LN3, symmetric=True)
    near(got, (math.log(5 / 3) + math.log(5) + 2 * LN2) / 2, 2)


def test_contrastive_takes_equal_texts_for_no_negatives() -> None:
    pairs = of(E1, E1, E2)
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    got = losses.contrastive(pairs, pairs, temperature=1 / LN3, same=same)
    # The third anchor has both as negatives: 3 / (3 + 1 + 1).
    near(got, 2 * LN4_3 + math.log(5 / 3), 3)
    unmarked = same & ~torch.eye(3, dtype=torch.bool)
    near(losses.contrastive(pairs, pairs, temperature=1 / LN3, same=unmarked), got.sum.item(), 3)


def test_contrastive_takes_a_negative_that_is_right_for_no_negative() -> None:
    pairs = of(E1, E2)
    same = torch.tensor([[0, 0, 1], [0, 0, 0]]).bool()
    got = losses.contrastive(pairs, pairs, of(E1), temperature=1 / LN3, same=same)
    near(got, LN4_3 + math.log(5 / 3), 2)


def test_cosine_similarity_is_as_worked_by_hand() -> None:
    got = losses.cosine_similarity(of([3, 4], [1, 0]), of([4, 3], [-9, 0]), of(0.5, 1))
    near(got, 0.46**2 + 4, 2)


def test_cosent_is_as_worked_by_hand() -> None:
    a, b = of(E1, E1), of(E1, E2)  # cosines 1 and 0
    near(losses.cosent(a, b, of(0.1, 0.2), scale=LN3), 2 * math.log(1 + 3), 2)
    near(losses.cosent(a, b, of(7, 2), scale=LN3), 2 * math.log(1 + 1 / 3), 2)
    near(losses.cosent(a, b, of(2, 2), scale=LN3), 0, 2)
    assert losses.cosent(a, b, of(0, 1)).sum.item() == pytest.approx(2 * math.log1p(math.exp(20)))


def test_triplet_is_as_worked_by_hand() -> None:
    anchors, positives = of([1, 0], [1, 0]), of([4, 4], [1, 0])
    negatives = of([1, 2], [1, -9])
    triplet = partial(losses.triplet, anchors, positives, negatives, margin=1.0)
    near(triplet(), 5 - 2 + 1, 2)
    near(triplet(distance="manhattan"), 7 - 2 + 1, 2)
    # 1 - 1/√2 - (1 - 1/√5) + 1; 0 - (1 - 1/√82) + 1
    near(triplet(distance="cosine"), 1 - 0.5**0.5 + 0.2**0.5 + 82**-0.5, 2)


def test_matryoshka_is_the_sum_over_widths() -> None:
    # The first component alone is the unit vector in both; together the cosine is 0.96.
    a, b, loss = of([3, 4]), of([4, 3]), partial(losses.cosine_similarity, scores=of(0.5))
    near(losses.matryoshka(loss, (a, b), dims=(2, 1)), 0.46**2 + 0.25, 1)
    got = losses.matryoshka(loss, (a, b), dims=(2, 1), weights=(1.0, 4.0))
    near(got, 0.46**2 + 4 * 0.25, 1)


def test_matryoshka_normalises_what_it_truncates() -> None:
    loss = partial(losses.triplet, margin=1.0)
    vectors = of([6, 1]), of([7, 1]), of([0.5, -1])
    near(losses.matryoshka(loss, vectors, dims=(1,)), 1, 1)


# ---- against torch and numpy, in float64, with logits up to ±1e4

Logits = st.one_of(
    st.floats(-5, 5, width=32), st.floats(-1e4, 1e4, width=32), st.sampled_from([-1e4, 0.0, 1e4])
)


class Classes(NamedTuple):
    logits: Numbers  # (rows, labels), all exact in float32
    labels: Numbers
    weight: Numbers


@st.composite
def classes(draw: st.DrawFn) -> Classes:
    rows, width = draw(st.integers(1, 5)), draw(st.integers(2, 4))
    logits = draw(hnp.arrays(np.float64, (rows, width), elements=Logits))
    labels = draw(hnp.arrays(np.int64, rows, elements=st.sampled_from([IGNORED, *range(width), 0])))
    weight = draw(hnp.arrays(np.float64, width, elements=st.floats(0.125, 8, width=32)))
    return Classes(logits, labels, weight)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Numbers, Numbers, Numbers]:
    """Logits and targets of `(rows, labels)`, and a weight from 0 to 1 for each label."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    logits = draw(hnp.arrays(np.float64, shape, elements=Logits))
    target = st.one_of(st.sampled_from([0.0, 1.0, float(IGNORED)]), st.floats(0, 1, width=32))
    targets = draw(hnp.arrays(np.float64, shape, elements=target))
    weight = draw(hnp.arrays(np.float64, shape[1], elements=st.floats(0, 1, width=32)))
    return logits, targets, weight


def log_softmax(row: Numbers) -> Numbers:
    shifted = row - row.max()
    return shifted - np.log(np.exp(shifted).sum())


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def agrees(
    loss: Callable[..., LossSum], tensors: list[Numbers], total: float, count: float
) -> None:
    """In float64 to its last digits, in float32 to its own; whole numbers stay what they are."""
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        inputs = [torch.from_numpy(each) for each in tensors]
        got = loss(*[each.to(dtype) if each.is_floating_point() else each for each in inputs])
        assert got.sum.dtype == got.count.dtype == dtype
        assert abs(got.sum.item() - total) <= tolerance * max(1, abs(total))
        assert abs(got.count.item() - count) <= tolerance * max(1, count)


@given(classes(), st.sampled_from([0.0, 0.1, 0.5]))
def test_cross_entropy_equals_numpy(case: Classes, smoothing: float) -> None:
    total, count = 0.0, 0.0
    for row, label in zip(case.logits, case.labels, strict=True):
        if label != IGNORED:
            p = np.full(len(row), smoothing / len(row))
            p[label] += 1 - smoothing
            total -= float((p * case.weight * log_softmax(row)).sum())
            count += float(case.weight[label])
    loss = partial(weighted_cross_entropy, smoothing=smoothing)
    agrees(loss, [case.logits, case.labels, case.weight], total, count)


def weighted_cross_entropy(
    logits: Tensor, labels: Tensor, weight: Tensor, smoothing: float
) -> LossSum:
    return losses.cross_entropy(logits, labels, weight=weight, label_smoothing=smoothing)


@given(classes(), st.sampled_from([0.0, 0.1, 0.5]), st.booleans())
def test_cross_entropy_mean_equals_torch(case: Classes, smoothing: float, weighted: bool) -> None:
    logits, labels, weight = (torch.from_numpy(each) for each in case)
    w = weight if weighted else None
    got = losses.cross_entropy(logits, labels, weight=w, label_smoothing=smoothing)
    expected = F.cross_entropy(logits, labels, weight=w, label_smoothing=smoothing)
    if got.count:
        torch.testing.assert_close(got.sum / got.count, expected, rtol=1e-12, atol=1e-12)
    else:
        assert got.sum == 0


@given(classes(), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
def test_focal_equals_numpy(case: Classes, gamma: float) -> None:
    total, count = 0.0, 0.0
    for row, label in zip(case.logits, case.labels, strict=True):
        if label != IGNORED:
            log_p = log_softmax(row)
            rest = float(np.exp(np.delete(log_p, label)).sum())  # 1 - p, exact near p = 1
            total -= float(case.weight[label] * rest**gamma * log_p[label])
            count += float(case.weight[label])
    loss = partial(weighted_focal, gamma=gamma)
    agrees(loss, [case.logits, case.labels, case.weight], total, count)


def weighted_focal(logits: Tensor, labels: Tensor, alpha: Tensor, gamma: float) -> LossSum:
    return losses.focal(logits, labels, alpha=alpha, gamma=gamma)


@given(answers())
def test_binary_cross_entropy_equals_numpy_and_torch(
    case: tuple[Numbers, Numbers, Numbers],
) -> None:
    logits, targets, weight = case
    total, count = 0.0, 0
    for (row, label), target in np.ndenumerate(targets):
        if target != IGNORED:
            x = logits[row, label]
            total -= weight[label] * target * log_sigmoid(x) + (1 - target) * log_sigmoid(-x)
            count += 1
    agrees(weighted_binary, [logits, targets, weight], total, count)
    known = np.where(targets == IGNORED, 0.5, targets)
    x, t, w = (torch.from_numpy(each) for each in (logits, known, weight))
    got = losses.binary_cross_entropy(x, t, pos_weight=w)
    expected = F.binary_cross_entropy_with_logits(x, t, pos_weight=w)
    torch.testing.assert_close(got.sum / got.count, expected, rtol=1e-12, atol=1e-12)


def weighted_binary(logits: Tensor, targets: Tensor, weight: Tensor) -> LossSum:
    return losses.binary_cross_entropy(logits, targets, pos_weight=weight)


@given(answers(), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
def test_binary_focal_equals_numpy(case: tuple[Numbers, Numbers, Numbers], gamma: float) -> None:
    logits, targets, alpha = case
    total, count = 0.0, 0
    for (row, label), target in np.ndenumerate(targets):
        if target != IGNORED:
            yes, no = log_sigmoid(logits[row, label]), log_sigmoid(-logits[row, label])
            total -= alpha[label] * target * math.exp(no) ** gamma * yes
            total -= (1 - alpha[label]) * (1 - target) * math.exp(yes) ** gamma * no
            count += 1
    agrees(partial(weighted_binary_focal, gamma=gamma), [logits, targets, alpha], total, count)


def weighted_binary_focal(logits: Tensor, targets: Tensor, alpha: Tensor, gamma: float) -> LossSum:
    return losses.binary_focal(logits, targets, alpha=alpha, gamma=gamma)


@given(classes(), st.sampled_from([0.5, 1.0, 3.0]), st.randoms(use_true_random=False))
def test_distillation_equals_numpy_and_torch(
    case: Classes, temperature: float, random: Any
) -> None:
    teacher = case.logits
    student = teacher[:, random.sample(range(teacher.shape[1]), teacher.shape[1])].copy()
    total = 0.0
    for t, s in zip(teacher, student, strict=True):
        p, q = log_softmax(t / temperature), log_softmax(s / temperature)
        total += temperature**2 * float((np.exp(p) * (p - q)).sum())
    loss = partial(losses.distillation, temperature=temperature)
    agrees(loss, [student, teacher], total, len(teacher))
    expected = temperature**2 * F.kl_div(
        torch.from_numpy(student / temperature).log_softmax(-1),
        torch.from_numpy(teacher / temperature).log_softmax(-1),
        reduction="sum",
        log_target=True,
    )
    assert total == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)


@given(hnp.arrays(np.float64, (2, 5), elements=Logits), st.sampled_from([0.5, 1.0, 3.0]))
def test_losses_of_numbers_equal_numpy_and_torch(values: Numbers, delta: float) -> None:
    e = np.abs(values[0] - values[1])
    agrees(losses.mse, list(values), float((e**2).sum()), 5)
    agrees(losses.l1, list(values), float(e.sum()), 5)
    far = np.where(e <= delta, e**2 / 2, delta * (e - delta / 2))
    agrees(partial(losses.huber, delta=delta), list(values), float(far.sum()), 5)
    predictions, targets = torch.from_numpy(values)
    expected = F.huber_loss(predictions, targets, reduction="sum", delta=delta)
    assert far.sum() == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)


Seeds = st.integers(0, 2**32 - 1)


def vectors(seed: int, count: int, rows: int = 5, width: int = 4) -> list[Numbers]:
    """Exact in float32, of lengths between 0.01 and 100."""
    random = np.random.default_rng(seed)
    drawn = random.normal(size=(count, rows, width)) * 10.0 ** random.uniform(-2, 2, (rows, 1))
    return list(drawn.astype(np.float32).astype(np.float64))


def cosine(a: Numbers, b: Numbers) -> float:
    return float(a @ b / math.sqrt(float((a @ a) * (b @ b))))


@given(Seeds, st.sampled_from([0.02, 0.05, 1.0]), st.booleans(), st.integers(0, 3))
def test_contrastive_equals_numpy(
    seed: int, temperature: float, symmetric: bool, extra: int
) -> None:
    anchors, positives, more = vectors(seed, 3)
    negatives = more[:extra]
    same = np.random.default_rng(seed).random((5, 5 + extra)) < 0.2
    candidates = [*positives, *negatives]
    totals = []
    for backward in (False, True):
        total = 0.0
        for i in range(5):
            scores = []
            for j in range(5 if backward else 5 + extra):
                a, c = (j, i) if backward else (i, j)
                if i == j or not same[a, c]:
                    scores.append(cosine(anchors[a], candidates[c]) / temperature)
                if i == j:
                    own = len(scores) - 1
            total -= float(log_softmax(np.array(scores))[own])
        totals.append(total)
    loss = partial(
        losses.contrastive,
        temperature=temperature,
        symmetric=symmetric,
        same=torch.from_numpy(same),
    )
    tensors = [anchors, positives, negatives] if extra else [anchors, positives]
    agrees_of_vectors(loss, tensors, sum(totals) / 2 if symmetric else totals[0], 5)


def agrees_of_vectors(
    loss: Callable[..., LossSum], tensors: list[Numbers], total: float, count: float
) -> None:
    """In float64; that float32 is no more than that in float32 is seen with logits."""
    got = loss(*[torch.from_numpy(each) for each in tensors])
    assert got.sum.item() == pytest.approx(total, rel=1e-11, abs=1e-11)
    assert got.count.item() == count


@given(Seeds)
def test_cosine_similarity_equals_numpy(seed: int) -> None:
    a, b = vectors(seed, 2)
    scores = np.random.default_rng(seed).uniform(-1, 1, 5)
    total = sum((cosine(a[i], b[i]) - scores[i]) ** 2 for i in range(5))
    agrees_of_vectors(losses.cosine_similarity, [a, b, scores], total, 5)


@given(Seeds, st.sampled_from([1.0, 20.0, 100.0]))
def test_cosent_equals_numpy(seed: int, scale: float) -> None:
    a, b = vectors(seed, 2)
    scores = np.random.default_rng(seed).integers(0, 4, 5)  # with ties
    total = 1.0
    for i in range(5):
        for j in range(5):
            if scores[i] < scores[j]:
                total += math.exp(scale * (cosine(a[i], b[i]) - cosine(a[j], b[j])))
    agrees_of_vectors(partial(losses.cosent, scale=scale), [a, b, scores], 5 * math.log(total), 5)


@given(Seeds, st.sampled_from([0.0, 0.5, 5.0]))
def test_triplet_equals_numpy(seed: int, margin: float) -> None:
    distances: dict[str, Callable[[Numbers, Numbers], float]] = {
        "euclidean": lambda x, y: math.sqrt(((x - y) ** 2).sum()),
        "manhattan": lambda x, y: float(np.abs(x - y).sum()),
        "cosine": lambda x, y: 1 - cosine(x, y),
    }
    assert set(distances) == set(losses.DISTANCES)
    triplets = vectors(seed, 3)
    for name, d in distances.items():
        total = sum(max(0.0, d(a, p) - d(a, n) + margin) for a, p, n in zip(*triplets, strict=True))
        loss = partial(losses.triplet, margin=margin, distance=name)
        agrees_of_vectors(loss, triplets, total, 5)


@given(Seeds, st.sampled_from([(4,), (4, 2), (3, 1, 2)]))
def test_matryoshka_equals_the_losses_of_cut_vectors(seed: int, dims: tuple[int, ...]) -> None:
    triplets = vectors(seed, 3)
    weights = [0.5 * (index + 1) for index in range(len(dims))]
    total = 0.0
    for dim, weight in zip(dims, weights, strict=True):
        for a, p, n in zip(*triplets, strict=True):
            x, y, z = (v[:dim] / np.linalg.norm(v[:dim]) for v in (a, p, n))
            distance = np.linalg.norm(x - y) - np.linalg.norm(x - z) + 0.5
            total += weight * max(0.0, float(distance))
    loss = partial(losses.triplet, margin=0.5)
    got = losses.matryoshka(
        loss, [torch.from_numpy(v) for v in triplets], dims=dims, weights=weights
    )
    assert got.sum.item() == pytest.approx(total, abs=1e-11)
    assert got.count == 5


# ---- what holds for all of them


class Case(NamedTuple):
    """A loss with what it is called with: what gets gradients, then labels; rows come first."""

    loss: Callable[..., LossSum]
    inputs: list[Tensor]
    labels: list[Tensor]

    def __call__(self, *inputs: Tensor) -> LossSum:
        return self.loss(*inputs, *self.labels)

    def rows(self, chosen: Tensor | slice) -> "Case":
        return Case(
            self.loss, [x[chosen] for x in self.inputs], [label[chosen] for label in self.labels]
        )


def matryoshka(a: Tensor, b: Tensor, scores: Tensor) -> LossSum:
    loss = partial(losses.cosine_similarity, scores=scores)
    return losses.matryoshka(loss, (a, b), dims=(4, 2), weights=(1.0, 0.5))


def span(start: Tensor, end: Tensor, starts: Tensor, ends: Tensor, mask: Tensor) -> LossSum:
    return losses.span(start, end, starts, ends, mask=mask)


def with_teacher(student: Tensor, teacher: Tensor) -> LossSum:
    return losses.distillation(student, teacher, temperature=3.0)


def contrastive(a: Tensor, b: Tensor, negatives: Tensor) -> LossSum:
    return losses.contrastive(a, b, negatives, symmetric=True, temperature=0.3)


WEIGHT = of(0.5, 2, 1, 3)


def case_of(name: str, rows: int = 6, seed: int = 0) -> Case:
    g = torch.Generator().manual_seed(seed)
    x, y, z = torch.randn(3, rows, 4, generator=g, dtype=torch.float64)
    labels = torch.randint(4, (rows,), generator=g)
    labels[1::3] = IGNORED
    answers = torch.randint(2, (rows, 4), generator=g).double()
    answers[1::3] = IGNORED
    scores = torch.rand(rows, generator=g, dtype=torch.float64)
    starts = torch.randint(3, (rows,), generator=g)
    mask = torch.tensor([True, True, True, False]).expand(rows, -1)
    starts[1::3] = IGNORED
    ends = (starts + 1).where(starts != IGNORED, IGNORED)
    w, alpha = {"weight": WEIGHT, "label_smoothing": 0.1}, WEIGHT / 4
    found = {
        "cross_entropy": Case(partial(losses.cross_entropy, **w), [x], [labels]),
        "focal": Case(partial(losses.focal, gamma=0.5, alpha=WEIGHT), [x], [labels]),
        "masked_lm": Case(losses.masked_lm, [x], [labels]),
        "next_sentence": Case(losses.next_sentence, [x[:, :2]], [labels.clamp(max=1)]),
        "span": Case(span, [x, y], [starts, ends, mask]),
        "distillation": Case(with_teacher, [x], [y]),
        "binary_cross_entropy": Case(
            partial(losses.binary_cross_entropy, pos_weight=WEIGHT), [x], [answers]
        ),
        "binary_focal": Case(partial(losses.binary_focal, gamma=0.5, alpha=alpha), [x], [answers]),
        "mse": Case(losses.mse, [x[:, 0]], [scores]),
        "l1": Case(losses.l1, [x[:, 0]], [scores]),
        "huber": Case(losses.huber, [x[:, 0]], [scores]),
        "contrastive": Case(contrastive, [x, y, z], []),
        "cosine_similarity": Case(losses.cosine_similarity, [x, y], [scores]),
        "cosent": Case(losses.cosent, [x, y], [scores]),
        "triplet": Case(partial(losses.triplet, margin=1.0), [x, y, z], []),
        "matryoshka": Case(matryoshka, [x, y], [scores]),
    }
    assert list(found) == NAMES
    return found[name]


NAMES = [
    "cross_entropy",
    "focal",
    "masked_lm",
    "next_sentence",
    "span",
    "distillation",
    "binary_cross_entropy",
    "binary_focal",
    "mse",
    "l1",
    "huber",
    "contrastive",
    "cosine_similarity",
    "cosent",
    "triplet",
    "matryoshka",
]
IGNORING = [*NAMES[:5], *NAMES[6:8]]
ALL = pytest.mark.parametrize("name", NAMES)


def test_every_loss_is_tried() -> None:
    public = {
        name
        for name, value in vars(losses).items()
        if callable(value)
        and getattr(value, "__module__", "") == losses.__name__
        and not name.startswith("_")
    }
    assert public == {*NAMES, "LossSum", "balanced_weights"}


def gradients(case: Case, dtype: torch.dtype = torch.float64) -> tuple[LossSum, list[Tensor]]:
    inputs = [x.detach().to(dtype).requires_grad_() for x in case.inputs]
    got = case(*inputs)
    return got, list(torch.autograd.grad(got.sum, inputs))


@ALL
def test_gradient_is_that_of_finite_differences(name: str) -> None:
    case = case_of(name, rows=4)
    inputs = [x.clone().requires_grad_() for x in case.inputs]
    assert torch.autograd.gradcheck(lambda *given: case(*given).sum, inputs)
    assert all(bool(g.any()) for g in gradients(case)[1])
    assert not case(*inputs).count.requires_grad


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("contrastive", "cosent")])
@settings(max_examples=8)
@given(seed=Seeds)
def test_micro_batches_of_unequal_counts_add_up_to_the_full_batch(name: str, seed: int) -> None:
    full = case_of(name, seed=seed)
    total, expected = gradients(full)
    parts = [gradients(full.rows(rows)) for rows in (slice(0, 2), slice(2, 3), slice(3, 6))]
    counts = [part.count.item() for part, _ in parts]
    assert sum(counts) == pytest.approx(total.count.item(), abs=1e-12)
    assert sum(part.sum.item() for part, _ in parts) == pytest.approx(total.sum.item(), rel=1e-12)
    for index, gradient in enumerate(expected):
        torch.testing.assert_close(torch.cat([g[index] for _, g in parts]), gradient)
    assert len(set(counts)) > 1


@pytest.mark.parametrize("name", ["contrastive", "cosent"])
def test_micro_batches_of_compared_examples_are_another_task(name: str) -> None:
    full = case_of(name)
    whole = full(*full.inputs)
    halves = [full.rows(rows) for rows in (slice(0, 3), slice(3, 6))]
    parts = [half(*half.inputs) for half in halves]
    assert sum(part.count.item() for part in parts) == whole.count.item()
    assert sum(part.sum.item() for part in parts) < 0.95 * whole.sum.item()


@ALL
@settings(max_examples=8)
@given(seed=Seeds)
def test_order_of_rows_is_of_no_account(name: str, seed: int) -> None:
    case = case_of(name, seed=seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    total, expected = gradients(case)
    permuted, got = gradients(case.rows(order))
    torch.testing.assert_close(permuted, total, rtol=1e-12, atol=1e-12)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e[order], rtol=1e-10, atol=1e-12)


def test_contrastive_pairs_stay_pairs_in_any_order() -> None:
    # That only positives are permuted has to matter, or the test above says nothing of pairs.
    case = case_of("contrastive")
    a, b, negatives = case.inputs
    assert not torch.isclose(case(a, b.flip(0), negatives).sum, case(a, b, negatives).sum)


@pytest.mark.parametrize("name", IGNORING)
def test_ignored_rows_have_a_gradient_of_exactly_zero(name: str) -> None:
    case = case_of(name)
    clean, expected = gradients(case)
    for x in case.inputs:
        x[1::3] = math.nan  # what stands there has no say
    got, found = gradients(case)
    assert torch.equal(got.sum, clean.sum)
    for g, e in zip(found, expected, strict=True):
        assert not g[1::3].any()
        assert torch.equal(g, e)
        assert g[0::3].any()


@pytest.mark.parametrize("name", IGNORING)
def test_nothing_counted_gives_zeros_that_can_be_trained_on(name: str) -> None:
    case = case_of(name).rows(slice(1, None, 3))
    got, found = gradients(case)
    assert got == (0, 0)
    for g, x in zip(found, case.inputs, strict=True):
        assert torch.equal(g, torch.zeros_like(x))


@ALL
def test_no_rows_give_zeros(name: str) -> None:
    got, found = gradients(case_of(name, rows=0))
    assert got == (0, 0)
    assert all(g.numel() == 0 for g in found)


@ALL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    case = case_of(name)
    halves = [x.to(dtype) for x in case.inputs]
    labels = [y.float() if y.is_floating_point() else y for y in case.labels]
    expected = case.loss(*[x.float() for x in halves], *labels)
    assert expected.sum.dtype == torch.float32
    for got in (case(*halves), case.loss(*halves, *labels)):
        assert got.sum.dtype == got.count.dtype == torch.float32
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        got = case.loss(*halves, *labels)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@ALL
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_gradients_of_any_size_of_logits_are_finite_and_right(name: str, scale: float) -> None:
    case = case_of(name)
    big = Case(case.loss, [x.float().sign() * scale for x in case.inputs], case.labels)
    got, found = gradients(big, torch.float32)
    expected, exact = gradients(big)
    torch.testing.assert_close(got.sum.double(), expected.sum, rtol=1e-5, atol=1e-5)
    for g, e in zip(found, exact, strict=True):
        assert g.isfinite().all()
        torch.testing.assert_close(g.double(), e, rtol=1e-4, atol=1e-4 * float(e.abs().max()))


SHIFTS: list[tuple[str, int]] = [
    ("cross_entropy", 1),
    ("focal", 1),
    ("masked_lm", 1),
    ("next_sentence", 1),
    ("span", 2),
    ("distillation", 1),
]


@pytest.mark.parametrize(("name", "n_inputs"), SHIFTS)
@settings(max_examples=8)
@given(seed=Seeds, shift=st.floats(-1e4, 1e4))
def test_what_is_added_to_all_logits_of_a_row_changes_nothing(
    name: str, n_inputs: int, seed: int, shift: float
) -> None:
    case = case_of(name, seed=seed)
    assert len(case.inputs) == n_inputs
    shifts = shift * torch.arange(6, dtype=torch.float64)[:, None]
    got, expected = case(*[x + shifts for x in case.inputs]), case(*case.inputs)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@given(classes())
def test_focal_with_gamma_0_is_weighted_cross_entropy_bit_for_bit(case: Classes) -> None:
    logits, labels, weight = (torch.from_numpy(each) for each in case)
    labels = labels.where(labels != IGNORED, 0)
    focal = Case(partial(losses.focal, gamma=0.0, alpha=weight), [logits], [labels])
    entropy = Case(partial(losses.cross_entropy, weight=weight), [logits], [labels])
    (got, (g,)), (expected, (e,)) = gradients(focal), gradients(entropy)
    assert got == expected
    torch.testing.assert_close(g, e, rtol=1e-14, atol=1e-14)


@given(answers())
def test_binary_focal_with_gamma_0_is_binary_cross_entropy(
    case: tuple[Numbers, Numbers, Numbers],
) -> None:
    logits, targets, weight = (torch.from_numpy(each) for each in case)
    assert losses.binary_focal(logits, targets, gamma=0.0) == losses.binary_cross_entropy(
        logits, targets
    )
    # α against 1 - α is α / (1 - α) against 1
    alpha = 0.75 * weight[0].item()
    got = losses.binary_focal(logits, targets, gamma=0.0, alpha=alpha)
    expected = losses.binary_cross_entropy(logits, targets, pos_weight=alpha / (1 - alpha))
    torch.testing.assert_close(got.sum, (1 - alpha) * expected.sum, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("label", [0, 1])
def test_focal_of_saturated_logits_has_a_finite_gradient(gamma: float, label: int) -> None:
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    losses.focal(logits, torch.tensor([label]), gamma=gamma).sum.backward()
    assert logits.grad is not None
    # Known: nothing to learn.  Wrong: that of cross-entropy, for (1 - p)^γ is 1.
    expected = torch.tensor([[0.0, 0.0]] if label == 0 else [[1.0, -1.0]])
    assert torch.equal(logits.grad, expected)
    single = torch.tensor([1e4], requires_grad=True)
    losses.binary_focal(single, torch.tensor([1.0 - label]), gamma=gamma).sum.backward()
    assert single.grad is not None
    assert single.grad.item() == float(label)


def test_triplet_of_equal_vectors_has_a_finite_gradient() -> None:
    a = of([1, 2]).requires_grad_()
    losses.triplet(a, a.detach(), of([1, 2]), margin=1.0).sum.backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


@given(hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 4)))
def test_balanced_weights_equal_numpy_and_add_up_to_the_labels(labels: Numbers) -> None:
    present, counts = np.unique(labels, return_counts=True)
    expected = np.ones(6)
    expected[present] = len(labels) / (len(present) * counts)
    got = losses.balanced_weights(torch.from_numpy(labels), 6)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6)
    assert got[torch.from_numpy(labels)].sum().item() == pytest.approx(len(labels), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_labels_may_be_of_any_signed_integer(dtype: torch.dtype) -> None:
    near(losses.cross_entropy(ROWS, LABELS.to(dtype)), LN4_3 + LN4, 2)
    near(losses.focal(ROWS, LABELS.to(dtype), gamma=0.0), LN4_3 + LN4, 2)
    ends = torch.tensor([0, 0, 0], dtype=dtype)
    mask = torch.ones(3, 2, dtype=torch.bool)
    assert losses.span(ROWS, ROWS, ends, ends, mask=mask).count == 6
    assert losses.balanced_weights(LABELS.to(dtype), 2).tolist() == [1, 1]
    # 300 is 44 in 8 bits, and is what 100 must not be compared with
    many, far = torch.zeros(3, 300), torch.full((3,), 100, dtype=dtype)
    assert losses.cross_entropy(many, far).count == 3
    assert losses.span(many, many, far, far).count == 6


# ---- refusals, as users meet them: without the type checks of the tests

PLAIN = without_type_checks(losses)
LOGITS, PAIRS = torch.zeros(4, 3), torch.ones(4, 2)
FITTING = torch.tensor([0, 1, 2, IGNORED])


def wrong_labels() -> Iterator[tuple[str, Callable[[], LossSum], str]]:
    ce, bce, mse = PLAIN.cross_entropy, PLAIN.binary_cross_entropy, PLAIN.mse
    shape = "labels have shape (4, 1), expected (4,) for what the model gives"
    for name, loss in (("cross_entropy", ce), ("focal", PLAIN.focal), ("mlm", PLAIN.masked_lm)):
        yield f"{name} shape", partial(loss, LOGITS, FITTING[:, None]), shape
        wrong = torch.tensor([0, 1, 3, 9])
        yield f"{name} range", partial(loss, LOGITS, wrong), "labels hold 3 at index 2"
        yield f"{name} -1", partial(loss, LOGITS, FITTING - 1), "hold -1 at index 0, expected 0 to"
        dtype = "dtype torch.float32, expected class numbers of dtype torch.int64"
        yield f"{name} dtype", partial(loss, LOGITS, FITTING.float()), dtype
    yield "bytes", partial(ce, LOGITS, FITTING.clamp(min=0).byte()), "dtype torch.uint8"
    yield "one-hot", partial(ce, LOGITS, LOGITS), "labels have shape (4, 3), expected (4,)"
    tokens = torch.zeros(2, 3, 5)
    wrong = torch.zeros(2, 3).long()
    wrong[1, 2] = 5
    yield "token", partial(ce, tokens, wrong), "labels hold 5 at index (1, 2), expected 0 to 4, or"
    yield "pad", partial(ce, LOGITS, FITTING, ignore_index=0), "hold -100 at index 3"
    yield "next", partial(PLAIN.next_sentence, PAIRS, FITTING), "hold 2 at index 2"
    yield "weights", partial(PLAIN.balanced_weights, FITTING, 2), "hold 2 at index 2"
    for name, loss in (("bce", bce), ("focal", PLAIN.binary_focal)):
        x = torch.zeros(2, 2)
        yield f"binary {name} shape", partial(loss, x[:, 0], x[:, :1]), "expected (2,)"
        yield f"binary {name} row", partial(loss, x, x[0]), "(2,), expected (2, 2)"
        high, nan = torch.tensor([0, 1.5]), torch.tensor([math.nan, 1])
        yield f"binary {name} 1.5", partial(loss, x[0], high), "targets hold 1.5 at index 1"
        yield f"binary {name} -1", partial(loss, x[0], -high), "targets hold -1.5 at index 1"
        yield f"binary {name} NaN", partial(loss, x[0], nan), "targets hold nan at index 0"
        wide = torch.tensor([[0, 1], [2, 0]])
        yield f"binary {name} 2", partial(loss, x, wide), "targets hold 2 at index (1, 0)"
    for name, loss in (("mse", mse), ("l1", PLAIN.l1), ("huber", PLAIN.huber)):
        x = torch.zeros(3)
        yield f"{name} shape", partial(loss, x, x[:, None]), "targets have shape (3, 1)"
        yield (
            f"{name} wide",
            partial(loss, x[:, None], x),
            "targets have shape (3,), expected (3, 1)",
        )
        bad = torch.tensor([0, math.nan, math.inf])
        yield f"{name} NaN", partial(loss, x, bad), "targets hold nan at index 1, expected finite"
        yield f"{name} inf", partial(loss, x, -bad[[0, 2, 0]]), "targets hold -inf at index 1"
    huge = torch.tensor([1e300], dtype=torch.float64)
    yield "overflow", partial(mse, torch.zeros(1), huge), "targets hold inf at index 0"
    ones = torch.ones(4)
    cosine, cosent = PLAIN.cosine_similarity, PLAIN.cosent
    for name, loss in (("cosine", cosine), ("cosent", cosent)):
        yield (
            f"{name} shape",
            partial(loss, PAIRS, PAIRS, ones[:, None]),
            "scores have shape (4, 1)",
        )
        yield f"{name} NaN", partial(loss, PAIRS, PAIRS, ones * math.nan), "hold nan at index 0"
    stars = torch.tensor([1.0, -1.0, 4.5, 5.0])
    yield "stars", partial(cosine, PAIRS, PAIRS, stars), "score 4.5 at index 2, expected -1 to 1"
    span, at = partial(PLAIN.span, LOGITS, LOGITS), torch.tensor([0, 1, 2, 0])
    yield "starts", partial(span, at[:3], at), "starts have shape (3,), expected (4,)"
    yield "ends", partial(span, at, at[:, None]), "ends have shape (4, 1), expected (4,)"
    yield "float", partial(span, at, at.float()), "ends have dtype torch.float32"
    yield "negative", partial(span, at - 1, at), "starts hold -1 at index 0, expected 0 to the last"
    yield "backwards", partial(span, at, at * 0), "span 1 to 0 at index 1 ends before it starts"
    distillation = PLAIN.distillation
    yield "teacher", partial(distillation, LOGITS, LOGITS[:1]), "teacher_logits have shape (1, 3)"


@pytest.mark.parametrize(("call", "message"), [
    pytest.param(call, message, id=name) for name, call, message in wrong_labels()
])  # fmt: skip
def test_labels_that_do_not_fit_are_refused_in_one_line(
    call: Callable[[], LossSum], message: str
) -> None:
    with pytest.raises(LabelError, match=re.escape(message)) as refusal:
        call()
    assert "\n" not in str(refusal.value)
    assert "expected" in str(refusal.value) or "give the last" in str(refusal.value)
    assert ":" in str(refusal.value)  # how to mend it


def wrong_settings() -> Iterator[tuple[str, Callable[[], LossSum], str]]:
    ce, bce = partial(PLAIN.cross_entropy, LOGITS, FITTING), PLAIN.binary_cross_entropy
    focal, contrastive = partial(PLAIN.focal, LOGITS, FITTING), PLAIN.contrastive
    for value in (-0.1, 1.0, math.nan):
        yield f"smoothing {value}", partial(ce, label_smoothing=value), "got label_smoothing"
    for name, loss, key in (("weight", ce, "weight"), ("alpha", focal, "alpha")):
        yield f"{name} short", partial(loss, **{key: torch.ones(2)}), f"got {key} of shape (2,)"
        yield f"{name} one", partial(loss, **{key: torch.ones(1)}), "expected (3,), one for each"
        for value in (-1.0, math.nan, math.inf):
            w = torch.tensor([1, value, 1])
            yield f"{name} {value}", partial(loss, **{key: w}), f"got {key} {value}, expected"
    for value in (-1.0, math.nan, math.inf):
        yield f"gamma {value}", partial(focal, gamma=value), "got gamma"
        yield f"margin {value}", partial(PLAIN.triplet, PAIRS, PAIRS, PAIRS, margin=value), "margin"
        binary = partial(PLAIN.binary_focal, LOGITS, LOGITS, gamma=value)
        yield f"binary gamma {value}", binary, "got gamma"
        weights = partial(PLAIN.matryoshka, contrastive, (PAIRS,), dims=(1,), weights=(value,))
        yield f"weights {value}", weights, "got weights"
    for value in (0.0, -1.0, math.nan, math.inf):
        yield (
            f"T {value}",
            partial(PLAIN.distillation, LOGITS, LOGITS, temperature=value),
            "above 0",
        )
        yield f"contrast {value}", partial(contrastive, PAIRS, PAIRS, temperature=value), "above 0"
        scores = torch.ones(4)
        yield f"scale {value}", partial(PLAIN.cosent, PAIRS, PAIRS, scores, scale=value), "above 0"
        yield f"delta {value}", partial(PLAIN.huber, scores, scores, delta=value), "above 0"
    one = torch.zeros(4).long()
    yield "one class", partial(PLAIN.focal, LOGITS[:, :1], one), "use binary_focal"
    yield "three", partial(PLAIN.next_sentence, LOGITS, one), "expected (batch, 2)"
    x, w = torch.zeros(4), torch.ones(4)
    yield "pos_weight a row", partial(bce, x, x, pos_weight=w), "got pos_weight of shape (4,)"
    yield "pos_weight", partial(bce, LOGITS, LOGITS, pos_weight=w), "one for each label of logits"
    yield "pos_weight < 0", partial(bce, x, x, pos_weight=-1.0), "got pos_weight -1.0"
    binary = PLAIN.binary_focal
    yield "alpha 1.5", partial(binary, x, x, alpha=1.5), "got alpha 1.5, expected 0 to 1"
    yield "alpha < 0", partial(binary, x, x, alpha=-0.5), "got alpha -0.5"
    yield "ends", partial(PLAIN.span, LOGITS, LOGITS[:, :2], one, one), "end_logits of shape (4, 2)"
    mask = torch.ones(4, 1).bool()
    yield "mask", partial(PLAIN.span, LOGITS, LOGITS, one, one, mask=mask), "mask of shape (4, 1)"
    for name, loss in (
        ("contrastive", contrastive),
        ("cosine", partial(PLAIN.cosine_similarity, scores=torch.ones(4))),
        ("cosent", partial(PLAIN.cosent, scores=torch.ones(4))),
    ):
        yield f"{name} row", partial(loss, PAIRS, PAIRS[:1]), "of shape (1, 2), expected (batch, "
        yield f"{name} flat", partial(loss, PAIRS[0], PAIRS[0]), "of shape (2,), expected (batch, "
    triplet = partial(PLAIN.triplet, PAIRS, PAIRS, margin=1.0)
    yield "triplet row", partial(triplet, PAIRS[:1]), "got negatives of shape (1, 2)"
    yield "distance", partial(triplet, PAIRS, distance="dot"), "got distance 'dot', expected one of"
    yield "wide", partial(contrastive, PAIRS, PAIRS, LOGITS), "negatives of shape (4, 3)"
    yield "flat", partial(contrastive, PAIRS, PAIRS, PAIRS[0]), "expected (any number, 2)"
    same = torch.ones(4, 4).bool()
    call = partial(contrastive, PAIRS, PAIRS, PAIRS, same=same)
    yield "same", call, "got same of shape (4, 4), expected (anchors, candidates), (4, 8)"
    nested = partial(PLAIN.matryoshka, contrastive, (PAIRS, PAIRS))
    yield "no dims", partial(nested, dims=()), "one for each of dims ()"
    yield "weights", partial(nested, dims=(1, 2), weights=(1.0,)), "got 1 weights"
    yield "dim 3", partial(nested, dims=(2, 3)), "expected 1 to 2"


@pytest.mark.parametrize(("call", "message"), [
    pytest.param(call, message, id=name) for name, call, message in wrong_settings()
])  # fmt: skip
def test_settings_and_shapes_that_do_not_fit_are_refused_in_one_line(
    call: Callable[[], LossSum], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        call()
    assert not isinstance(refusal.value, LabelError)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "call",
    [
        partial(PLAIN.cross_entropy, LOGITS, [0, 1, 2, 0]),
        partial(PLAIN.cross_entropy, LOGITS.long(), FITTING),
        partial(PLAIN.cross_entropy, LOGITS, FITTING, weight=[1.0, 2.0, 3.0]),
        partial(PLAIN.binary_cross_entropy, torch.zeros(1), [1.0]),
        partial(PLAIN.binary_cross_entropy, torch.zeros(1).long(), torch.zeros(1)),
        partial(PLAIN.mse, torch.zeros(1), [1.0]),
        partial(PLAIN.mse, torch.zeros(1).long(), torch.zeros(1)),
        partial(PLAIN.contrastive, [[1.0]], torch.ones(1, 1)),
        partial(PLAIN.contrastive, torch.ones(1, 1), torch.ones(1, 1), [[1.0]]),
    ],
)
def test_wrong_types_are_refused(call: Callable[[], LossSum]) -> None:
    with pytest.raises(TypeError, match=r"got \w+ of type .*, expected a tensor"):
        call()
