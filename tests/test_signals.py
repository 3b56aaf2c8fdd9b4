"""What logits and labels of a batch say, worked by hand."""

import math

import pytest
import torch

from minibert.doctor.signals import (
    broadcast_loss,
    entropy,
    kind_of,
    mean_cosine,
    presence_entropy,
    same,
    signals_of,
)


def test_kinds_are_read_off_shapes_and_values() -> None:
    logits = torch.zeros(4, 3)
    assert kind_of(logits, torch.tensor([0, 1, 2, 0])) == "classes"
    assert kind_of(torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.long)) == "classes"
    assert kind_of(logits, torch.ones(4, 3)) == "presences"
    assert kind_of(torch.zeros(4, 1), torch.tensor([0.0, 1.0, 1.0, 0.0])) == "presences"
    assert kind_of(torch.zeros(4), torch.tensor([0.5, 1.0, 1.0, 0.0])) == "numbers"
    assert kind_of(logits, torch.zeros(3, dtype=torch.long)) is None
    assert kind_of(logits, torch.zeros(4, 5)) is None


def test_classes_give_loss_counts_and_what_a_bias_would_get() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [10.0, 0.0], [5.0, 5.0]])
    found = signals_of(logits, torch.tensor([1, 0, 1, -100]), "classes")
    assert found is not None
    assert found.n_rows == 3
    losses = [-math.log(0.75), math.log(2), 10 + math.log1p(math.exp(-10))]
    assert found.plain_loss == pytest.approx(sum(losses) / 3, rel=1e-6)
    assert found.labels.tolist() == [1, 2]
    assert found.answers.tolist() == [2, 1]  # of equal logits the first
    assert found.right.tolist() == [1, 1]
    assert found.sure_and_wrong == pytest.approx(1 / 3)
    assert found.loss_without is not None
    assert found.loss_without.tolist() == pytest.approx(
        [(losses[0] + losses[2]) / 2, losses[1]], rel=1e-6
    )
    assert found.bias_gradient is not None
    of_second = (0.75 + 0.5 + math.exp(-10) / (1 + math.exp(-10)) - 2) / 3
    assert found.bias_gradient.tolist() == pytest.approx([-of_second, of_second], abs=1e-6)
    assert not found.in_unit


def test_the_gradient_of_the_bias_is_that_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    for kind, labels, loss_of in (
        ("classes", torch.tensor([0, 2, 1, 1]), torch.nn.functional.cross_entropy),
        (
            "presences",
            torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]]),
            torch.nn.functional.binary_cross_entropy_with_logits,
        ),
        ("numbers", torch.randn(4, 3, generator=generator), torch.nn.functional.mse_loss),
    ):
        below = torch.randn(4, 3, generator=generator)
        bias = torch.zeros(3, requires_grad=True)
        loss_of(below + bias, labels).backward()
        found = signals_of(below, labels, kind)  # type: ignore[arg-type]
        assert found is not None
        assert bias.grad is not None
        torch.testing.assert_close(found.bias_gradient, bias.grad)


def test_presences_above_a_half_are_answers() -> None:
    logits = torch.tensor([[1.0, -1.0], [6.0, -6.0]])
    found = signals_of(logits, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "presences")
    assert found is not None
    assert (found.answers.tolist(), found.labels.tolist(), found.right.tolist()) == (
        [2, 0], [1, 0], [1, 0],
    )  # fmt: skip
    assert found.sure_and_wrong == 0.25


def test_numbers_give_spreads_and_means() -> None:
    found = signals_of(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 10.0]), "numbers")
    assert found is not None
    assert (found.spread, found.target_spread) == (1.0, 5.0)
    assert (found.answer_mean, found.target_mean) == (2.0, 5.0)
    assert found.plain_loss == pytest.approx((1 + 49) / 2)


def test_batches_in_which_nothing_counts_say_nothing() -> None:
    assert signals_of(torch.zeros(2, 3), torch.tensor([-100, -100]), "classes") is None
    assert signals_of(torch.zeros(0), torch.zeros(0), "numbers") is None


def test_a_wide_vocabulary_is_judged_on_some_rows() -> None:
    found = signals_of(torch.zeros(40, 20_000), torch.zeros(40, dtype=torch.long), "classes")
    assert found is not None
    assert found.n_rows == 13
    assert found.plain_loss == pytest.approx(math.log(20_000))


def test_probabilities_are_told_from_logits() -> None:
    labels = torch.tensor([0, 1])
    found = signals_of(torch.tensor([[0.2, 0.8], [0.5, 0.5]]), labels, "classes")
    assert found is not None
    assert found.in_unit
    assert found.sum_to_one
    found = signals_of(torch.tensor([[0.2, 0.9], [0.5, 0.5]]), labels, "classes")
    assert found is not None
    assert not found.sum_to_one


def test_broadcast_loss_is_that_of_all_pairs() -> None:
    logits, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0])
    assert broadcast_loss(logits, labels) == pytest.approx((1 + 9 + 4 + 4) / 4)


def test_entropies_in_nats() -> None:
    assert entropy(torch.tensor([5, 5])) == pytest.approx(math.log(2))
    assert entropy(torch.tensor([5, 0])) == 0
    assert presence_entropy(torch.tensor([5, 0]), 10) == pytest.approx(math.log(2) / 2)


def test_cosines_are_of_different_rows() -> None:
    assert mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0]])) == pytest.approx(0)
    assert mean_cosine(torch.tensor([[1.0, 1.0], [2.0, 2.0]])) == pytest.approx(1)
    assert mean_cosine(torch.tensor([[1.0, 1.0]])) == 0


def test_losses_are_the_same_but_for_rounding() -> None:
    assert same(1.0, 1.01)
    assert not same(1.0, 1.05)
