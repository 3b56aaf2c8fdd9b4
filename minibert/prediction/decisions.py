"""From log-odds to probabilities, and from probabilities to decisions."""

import math

import torch
from torch import Tensor

_HALF_UP = math.nextafter(0.5, 1.0)


def probabilities(odds: Tensor) -> Tensor:
    """The logistic function, in float64; what is likelier than not stays above 0.5."""
    found = odds.double().sigmoid()
    return torch.where(odds > 0, found.clamp(min=_HALF_UP), found)


def decide(odds: Tensor, thresholds: Tensor) -> Tensor:
    """True where the probability is above the threshold."""
    return probabilities(odds) > thresholds
