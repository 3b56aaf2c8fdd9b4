"""Thresholds and temperature: by hand, then against a search of all that there is."""

import math
import sys
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import Tensor

from minibert.errors import LabelError, TrainingError
from minibert.training.calibration import (
    _best_threshold,
    calibration_error,
    fit_temperature,
    fit_thresholds,
)
from minibert.training.metrics import metrics_of


def odds(*likelihoods: float) -> Tensor:
    return torch.tensor(likelihoods, dtype=torch.float64).logit()


def f1(likelihoods: Tensor, targets: Tensor, threshold: float) -> float:
    predicted = likelihoods > threshold
    both = int(predicted.sum() + targets.sum())
    return 2 * int((predicted & targets.bool()).sum()) / both if both else 0.0


@pytest.mark.parametrize(
    ("likelihoods", "targets", "expected"),
    [
        ((0.1, 0.2, 0.3, 0.4), (0, 0, 1, 1), 0.25),  # the middle between 0.2 and 0.3
        ((0.1, 0.9), (0, 1), 0.5),  # everything from 0.1 to 0.9 decides alike
        ((0.6, 0.7, 0.9), (0, 0, 1), 0.8),
        ((0.2, 0.3), (1, 1), 0.1),  # all of them: the middle between 0 and 0.2
        ((0.2, 0.3), (0, 0), 0.5),  # no positives
        ((0.3, 0.3, 0.3), (1, 0, 0), 0.15),
        ((0.8, 0.6, 0.4, 0.2), (1, 0, 0, 1), 0.7),  # F1 2/3 above 0.7 as with all
    ],
)
def test_threshold_by_hand(
    likelihoods: Sequence[float], targets: Sequence[int], expected: float
) -> None:
    for wanted in (torch.tensor(targets), torch.tensor(targets)[:, None]):
        logits = odds(*likelihoods) if wanted.ndim == 1 else odds(*likelihoods)[:, None]
        assert fit_thresholds(logits, wanted) == pytest.approx([expected])


def test_equally_good_thresholds_are_decided_for_the_nearest_to_one_half() -> None:
    # Above 0.85 (one of one) and above 0.15 (all of them): F1 2/3 both; as far from 0.5: higher.
    assert fit_thresholds(odds(0.9, 0.8, 0.2, 0.1), torch.tensor([1, 0, 0, 1])) == pytest.approx(
        [0.85]
    )
    # Above 0.95 or with all: 2/3 again; nearer is 0.21.
    likelihoods = odds(0.98, 0.92, 0.44, 0.42)
    assert fit_thresholds(likelihoods, torch.tensor([1, 0, 0, 1])) == pytest.approx([0.21])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-6, 6), st.booleans()), min_size=1, max_size=10))
def test_no_threshold_is_better(rows: list[tuple[int, bool]]) -> None:
    logits = torch.tensor([score * 0.5 for score, _ in rows], dtype=torch.float64)
    targets = torch.tensor([wanted for _, wanted in rows]).long()
    (threshold,) = fit_thresholds(logits, targets)
    assert 0 <= threshold < 1
    likelihoods = logits.sigmoid()
    levels = [0.0, 0.5, *likelihoods.tolist()]
    best = max(f1(likelihoods, targets, level) for level in levels)
    assert f1(likelihoods, targets, threshold) == best
    if f1(likelihoods, targets, 0.5) == best:
        assert threshold == 0.5
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    assert fit_thresholds(logits[order], targets[order]) == [threshold]


def test_thresholds_raise_the_figures_they_are_fitted_for() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(200, 4, generator=generator) < torch.tensor([0.05, 0.2, 0.5, 0.0])).long()
    logits = torch.randn(200, 4, generator=generator) + targets * 2 - 3
    thresholds = fit_thresholds(logits, targets)
    assert thresholds[3] == 0.5
    assert len(set(thresholds)) == 4
    figures = []
    for chosen in (0.5, thresholds):
        metrics = metrics_of("multilabel", ("a", "b", "c", "d"), thresholds=chosen)
        metrics.update(logits, targets)
        report = metrics.report()
        figures.append([each.f1 for each in report.per_class.values()])
        for index, each in enumerate(list(report.per_class.values())[:3]):
            level = 0.5 if chosen == 0.5 else thresholds[index]
            expected = f1(logits[:, index].double().sigmoid(), targets[:, index], level)
            assert each.f1 == pytest.approx(expected)
    assert all(after > before + 0.1 for before, after in zip(*figures, strict=True) if before < 1)


def test_two_logits_have_the_threshold_of_one() -> None:
    logits, targets = torch.tensor([-2.0, -1.5, -1.0, 3.0]), torch.tensor([0, 1, 1, 1])
    two = torch.stack([torch.ones(4), logits + 1], dim=1)
    assert fit_thresholds(two, targets) == fit_thresholds(logits, targets)
    assert fit_thresholds(logits, targets)[0] < 0.2


def test_thresholds_of_saturated_scores_still_decide() -> None:
    """At -800 a probability is 0, at 50 it is 1; no threshold lies beyond."""
    logits, targets = torch.tensor([-800.0, -700.0, 50.0, 60.0]), torch.tensor([1, 0, 0, 1])
    (threshold,) = fit_thresholds(logits, targets)
    assert 0 <= threshold < 1
    assert fit_thresholds(torch.tensor([-800.0]), torch.tensor([1])) == [0.5]


def test_threshold_between_neighbouring_numbers_keeps_them_apart() -> None:
    """The middle of two neighbours is one of them: here the upper one, which 1 does not exceed."""
    low = math.nextafter(1.0, 0.0)
    likelihoods = torch.tensor([low, 1.0], dtype=torch.float64)
    assert (low + 1.0) / 2 == 1.0
    assert _best_threshold(likelihoods, torch.tensor([0, 1])) == low


def drawn(temperature: float, *, n: int = 4000, n_labels: int = 3) -> tuple[Tensor, Tensor]:
    """Logits that are `temperature` times what their targets were drawn from."""
    generator = torch.Generator().manual_seed(1)
    true = torch.randn(n, n_labels, generator=generator) * 1.5
    targets = torch.multinomial(true.softmax(dim=1), 1, generator=generator)[:, 0]
    return true * temperature, targets


@pytest.mark.parametrize("temperature", [0.25, 1.0, 5.0])
def test_temperature_is_found_again(temperature: float) -> None:
    logits, targets = drawn(temperature)
    found = fit_temperature(logits, targets)
    assert found.temperature == pytest.approx(temperature, rel=0.08)
    assert found.unchanged is None
    assert found.nll_after <= found.nll_before
    assert found.ece_after < 0.03
    if temperature != 1:
        assert found.ece_before > 0.1
    after = calibration_error(logits.double() / found.temperature, targets)
    assert found.ece_after == pytest.approx(after, abs=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 500), st.integers(2, 4))
def test_no_temperature_is_better(seed: int, n_labels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, n_labels, generator=generator, dtype=torch.float64)
    targets = torch.randint(n_labels, (8,), generator=generator)
    found = fit_temperature(logits, targets)

    def nll(log_temperature: float) -> float:
        return F.cross_entropy(logits / math.exp(log_temperature), targets).item()

    best = minimize_scalar(nll, bounds=(-6.9, 6.9), method="bounded").fun
    if found.unchanged is None:
        assert found.nll_after <= best + 1e-9
        assert found.nll_after == pytest.approx(nll(math.log(found.temperature)), abs=1e-12)
    else:  # it goes on falling towards one end
        assert min(nll(-6.9), nll(6.9)) <= best + 1e-9


def test_temperature_of_one_logit_is_that_of_two() -> None:
    logits, targets = drawn(3.0, n=500, n_labels=2)
    one = logits[:, 1] - logits[:, 0]
    of_two = fit_temperature(logits, targets)
    for same in (one, one[:, None]):
        assert fit_temperature(same, targets).temperature == pytest.approx(of_two.temperature)
    assert fit_temperature(one, targets).ece_before == pytest.approx(of_two.ece_before, abs=1e-6)


def test_temperature_of_several_labels_is_one_number() -> None:
    logits, targets = drawn(3.0, n=600, n_labels=2)
    one = logits[:, 1] - logits[:, 0]
    together = fit_temperature(one.view(300, 2), targets.view(300, 2))
    assert together.temperature == pytest.approx(fit_temperature(one, targets).temperature)


@pytest.mark.parametrize(
    ("logits", "targets", "why"),
    [
        ([[2.0, 0.0], [0.0, 1.0]], [0, 1], "every example is right"),
        ([[2.0, 0.0], [0.0, 1.0]], [1, 0], "no better than none"),
        ([[2.0, 2.0], [1.0, 1.0]], [1, 0], "the same score for every choice"),
        ([[1.0, 0.0], [1.0, 0.0]], [1, 0], "no better than none"),
    ],
)
def test_temperature_stays_where_none_is_best(
    logits: list[list[float]], targets: list[int], why: str
) -> None:
    found = fit_temperature(torch.tensor(logits), torch.tensor(targets))
    assert found.temperature == 1.0
    assert found.unchanged is not None
    assert why in found.unchanged
    assert (found.nll_before, found.ece_before) == (found.nll_after, found.ece_after)


def test_large_scores_do_not_overflow() -> None:
    logits = torch.tensor([[9e3, 0.0], [9e3, 0.0], [9e3, 0.0], [9e3, 0.0]])
    found = fit_temperature(logits, torch.tensor([0, 0, 0, 1]))
    # Three of four are right: exp(9000 / T) = 3.
    assert found.unchanged is not None or found.temperature == pytest.approx(9e3 / math.log(3))
    found = fit_temperature(logits / 100, torch.tensor([0, 0, 0, 1]))
    assert found.temperature == pytest.approx(90 / math.log(3))
    assert found.ece_after == pytest.approx(0.0, abs=1e-9)


def test_calibration_error_by_hand() -> None:
    # Confidence 0.9 twice, of which one is right; 0.6 twice, of which both are.
    logits = odds(0.9, 0.1, 0.6, 0.6)
    error = calibration_error(logits, torch.tensor([1, 1, 1, 1]))
    assert error == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TrainingError, match="there are 0 examples to fit on"):
        fit_thresholds(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(TrainingError, match="there are 0 examples to fit on"):
        fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    with pytest.raises(TrainingError, match=r"logits\[0\] is nan"):
        fit_thresholds(torch.tensor([math.nan]), torch.tensor([1]))
    with pytest.raises(LabelError, match=r"targets\[0\] is 3, expected 0 to 2"):
        fit_temperature(torch.zeros(1, 3), torch.tensor([3]))
    with pytest.raises(LabelError, match=r"targets have shape \(2, 1\), expected \(2, 3\)"):
        fit_thresholds(torch.zeros(2, 3), torch.zeros(2, 1))


def test_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(TrainingError, match="torchmetrics is not installed"):
        calibration_error(torch.zeros(2), torch.tensor([0, 1]))
    assert fit_thresholds(odds(0.1, 0.9), torch.tensor([0, 1])) == [0.5]
