"""Thresholds and temperature fitted on an evaluation's scores, and how well these are calibrated.

Fit on one set and report on another: on few examples they fit those alone.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.errors import TrainingError
from minibert.prediction.decisions import probabilities
from minibert.training.metrics import classification
from minibert.training.scores import (
    Rows,
    gather_binary,
    gather_classes,
    gather_multilabel,
)

_BINS = 15  # of the expected calibration error, as in its papers


def fit_thresholds(logits: Tensor, targets: Tensor) -> list[float]:
    """Choose the threshold of each label that maximises its F1 on these scores.

    For multilabel logits and targets `(n, labels)`; for binary ones as `Metrics.update` takes them,
    where the list has one threshold, for the F1 of the positive class.  Of thresholds that give the
    same decisions it is the middle one, or 0.5; of decisions that are equally good those whose
    threshold is nearest to 0.5, then the higher.  A label without positive targets keeps 0.5.

    Raises: LabelError, TrainingError as `Metrics.update`, and without an example.
    """
    odds, wanted = _odds(logits, targets)
    columns = zip(odds.unbind(dim=1), wanted.unbind(dim=1), strict=True)
    return [_best_threshold(probabilities(column), each) for column, each in columns]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What `fit_temperature` found; the mean NLL and the calibration error before and after.

    `unchanged` says why the temperature was left at 1, where no temperature is best.
    """

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    unchanged: str | None = None


def fit_temperature(logits: Tensor, targets: Tensor) -> Calibration:
    """Find the one number to divide logits by that makes these targets the most likely.

    Logits and targets as `Metrics.update` takes them for multiclass, binary or multilabel.  No
    decision changes (at 0.5, or of classes).  Where every example is right the likelihood grows
    as the temperature falls to 0, and where scores tell nothing as it rises for ever: then it is
    left at 1.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    scores, wanted = _choices(logits, targets)
    scores = scores - scores.amax(dim=1, keepdim=True)
    low, high = -math.log(1e3), math.log(1e3)
    temperature, unchanged = 1.0, None
    if (scores.amin(dim=1) == 0).all():
        unchanged = "each example has the same score for every choice"
    elif _slope(scores, wanted, math.exp(low)) >= 0:
        unchanged = "the scores are no better than none"
    elif _slope(scores, wanted, math.exp(high)) <= 0:
        unchanged = "every example is right, so that no temperature is low enough"
    else:
        # The NLL is convex in 1 / temperature, so its slope crosses 0 once.
        for _ in range(48):
            middle = (low + high) / 2
            if _slope(scores, wanted, math.exp(middle)) < 0:
                low = middle
            else:
                high = middle
        temperature = math.exp(-(low + high) / 2)
    cooled = scores / temperature
    return Calibration(
        temperature,
        F.cross_entropy(scores, wanted).item(),
        F.cross_entropy(cooled, wanted).item(),
        _ece(scores, wanted),
        _ece(cooled, wanted),
        unchanged,
    )


def calibration_error(logits: Tensor, targets: Tensor) -> float:
    """The expected calibration error: how far the confidence of decisions is from their accuracy.

    Over 15 bins of equal width of the probability of what is decided for; for binary and
    multilabel that is the label or its absence, each decision by itself.
    """
    return _ece(*_choices(logits, targets))


def _odds(logits: Tensor, targets: Tensor) -> Rows:
    """Log-odds and targets, both (n, labels)."""
    logits, targets = logits.detach().cpu(), targets.cpu()
    if targets.ndim == 2:
        odds, wanted = gather_multilabel(logits, targets, logits.shape[-1] if logits.ndim else 0)
    else:
        odds, wanted = (column[:, None] for column in gather_binary(logits, targets, 2))
    _check_any(wanted)
    return odds, wanted


def _choices(logits: Tensor, targets: Tensor) -> Rows:
    """Scores of exclusive choices (n, choices), of a label those of its absence and it; targets."""
    if targets.ndim == 1 and logits.ndim == 2 and logits.shape[1] > 1:
        scores, wanted = gather_classes(logits.detach().cpu(), targets.cpu(), logits.shape[1])
        _check_any(wanted)
        return scores.double(), wanted
    odds, wanted = (column.flatten() for column in _odds(logits, targets))
    return torch.stack([torch.zeros_like(odds), odds], dim=1), wanted


def _check_any(targets: Tensor) -> None:
    if not targets.numel():
        raise TrainingError("there are 0 examples to fit on, expected one at least")


def _slope(scores: Tensor, wanted: Tensor, inverse: float) -> float:
    """The derivative of the mean NLL by 1 / temperature."""
    expected = ((scores * inverse).softmax(dim=1) * scores).sum(dim=1)
    return (expected - scores.gather(1, wanted[:, None])[:, 0]).mean().item()


def _ece(scores: Tensor, wanted: Tensor) -> float:
    error = classification().multiclass_calibration_error(
        scores.softmax(dim=1),
        wanted,
        num_classes=scores.shape[1],
        n_bins=_BINS,
        validate_args=False,
    )
    return error.item()


def _best_threshold(likelihoods: Tensor, targets: Tensor) -> float:
    n_positive = targets.sum()
    levels, place = torch.unique(likelihoods, return_inverse=True)
    # Of threshold k all is predicted from level k on: it lies in [level k - 1, level k).
    right = torch.zeros_like(levels).scatter_add_(0, place, targets.double())
    there = torch.zeros_like(levels).scatter_add_(0, place, torch.ones_like(likelihoods))
    right, there = (counts.flip(0).cumsum(dim=0).flip(0) for counts in (right, there))
    f1 = (2 * right / (there + n_positive)).tolist()
    upper = levels.tolist()
    lower = [0.0, *upper[:-1]]
    best: tuple[float, float, float] | None = None
    for score, low, high in zip(f1, lower, upper, strict=True):
        if low < high and n_positive:
            middle = (low + high) / 2
            value = 0.5 if low <= 0.5 < high else middle if middle < high else low
            found = (score, -abs(value - 0.5), value)
            best = found if best is None else max(best, found)
    return 0.5 if best is None else best[2]
