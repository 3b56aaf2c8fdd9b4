"""Probabilities and decisions from log-odds."""

import math

import pytest
import torch

from minibert.prediction.decisions import decide, probabilities


def test_decisions_at_one_half_are_those_of_the_sign() -> None:
    odds = torch.tensor([-1e-30, 0.0, 1e-30, 1.0, 800.0, -800.0], dtype=torch.float64)
    assert (probabilities(odds) > 0.5).tolist() == (odds > 0).tolist()
    assert decide(odds, torch.tensor(0.5)).tolist() == [False, False, True, True, True, False]
    assert probabilities(torch.tensor([0.0, math.log(3)])).tolist() == pytest.approx([0.5, 0.75])


def test_each_label_has_a_threshold_of_its_own() -> None:
    odds = torch.tensor([[0.0, 0.0, 0.0], [3.0, -3.0, 0.1]])
    found = decide(odds, torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64))
    assert found.tolist() == [[True, False, False], [True, False, False]]
