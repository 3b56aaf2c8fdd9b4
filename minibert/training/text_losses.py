"""The loss of a task of labels or numbers, as a run file says it."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from minibert.errors import RunError
from minibert.training import losses
from minibert.training.losses import LossSum
from minibert.training.run_config import RunConfig

Loss = Callable[[Tensor, Tensor], LossSum]


def class_loss(run: RunConfig, labels: Sequence[int], names: Sequence[str]) -> Loss:
    """One right label: cross-entropy, or focal."""
    settings = run.loss
    for key in ("pos_weight", "focal_alpha"):
        if getattr(settings, key) is not None:
            raise RunError(f"loss.{key} goes with one logit a label; take class_weights here")
    weight = _weights("class_weights", settings.class_weights, len(names))
    if settings.class_weights == "balanced":
        weight = losses.balanced_weights(torch.tensor(labels), len(names))
    name = allowed(run, "cross_entropy", "focal")
    if name == "focal" and settings.label_smoothing:
        raise RunError("loss.label_smoothing goes with cross_entropy, not with focal")
    if name == "focal":
        return partial(losses.focal, gamma=settings.focal_gamma, alpha=weight)
    return partial(losses.cross_entropy, weight=weight, label_smoothing=settings.label_smoothing)


def presence_loss(run: RunConfig, found: Sequence[int], n_examples: int) -> Loss:
    """Each label present or absent: binary cross-entropy, or focal."""
    settings = run.loss
    if settings.class_weights is not None or settings.label_smoothing:
        raise RunError(
            "loss.class_weights and label_smoothing go with a logit for each of two labels, and "
            "head.num_labels is 1; take pos_weight"
        )
    name = allowed(run, "binary_cross_entropy", "focal")
    if name == "focal" and settings.pos_weight is not None:
        raise RunError("loss.pos_weight goes with binary_cross_entropy; focal has focal_alpha")
    if name == "focal":
        return partial(losses.binary_focal, gamma=settings.focal_gamma, alpha=settings.focal_alpha)
    if settings.pos_weight == "balanced":
        # As many times as absence is more frequent; a label that never occurs has nothing to weigh.
        ratios = [(n_examples - n) / n if n else 1.0 for n in found]
        pos_weight: Tensor | None = torch.tensor(ratios)
    else:
        pos_weight = _weights("pos_weight", settings.pos_weight, len(found))
    if pos_weight is not None and run.task == "binary":
        return partial(losses.binary_cross_entropy, pos_weight=float(pos_weight))
    return partial(losses.binary_cross_entropy, pos_weight=pos_weight)


def regression_loss(run: RunConfig) -> Loss:
    name = allowed(run, "mse", "l1", "huber")
    if name == "huber":
        return partial(losses.huber, delta=run.loss.huber_delta)
    return losses.l1 if name == "l1" else losses.mse


def allowed(run: RunConfig, *names: str) -> str:
    """The loss that the run file names, or the first of those that fit the task."""
    name = run.loss.name or names[0]
    if name not in names:
        raise RunError(
            f"loss.name is {name!r}, expected {' or '.join(names)} for task {run.task!r}"
        )
    return name


def _weights(key: str, given: str | list[float] | None, n_labels: int) -> Tensor | None:
    """Weights that are given as numbers."""
    if given is None or given == "balanced":
        return None
    if isinstance(given, str):
        raise RunError(f"loss.{key} is {given!r}, expected 'balanced' or a list of numbers")
    if len(given) != n_labels:
        raise RunError(
            f"loss.{key} has {len(given)} numbers, expected {n_labels}, one for each label"
        )
    wrong = [weight for weight in given if not 0 <= weight < math.inf]
    if wrong:
        raise RunError(f"loss.{key} has {wrong[0]}, expected finite numbers that are not negative")
    return torch.tensor(given)
