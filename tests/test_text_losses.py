"""The loss that a run file names, with its settings; and what does not go together."""

from typing import Any

import pytest
import torch
from small_runs import run_of

from minibert.errors import RunError
from minibert.training import losses
from minibert.training.losses import LossSum
from minibert.training.text_losses import allowed, class_loss, presence_loss, regression_loss

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [1.0, 1.0, 0.0]])
CLASSES = torch.tensor([0, 2, 1])
LABELS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
NAMES = ("a", "b", "c")


def same(found: LossSum, wanted: LossSum) -> bool:
    return torch.equal(found.sum, wanted.sum) and torch.equal(found.count, wanted.count)


def refusal(make: Any) -> str:
    with pytest.raises(RunError) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- one right label


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {}),
        ({"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
        ({"class_weights": [1.0, 2.0, 3.0]}, {"weight": torch.tensor([1.0, 2.0, 3.0])}),
        # Of four labels a: 2, b: 1, c: 1, so 4 / (3 · 2) and 4 / (3 · 1).
        ({"class_weights": "balanced"}, {"weight": torch.tensor([2 / 3, 4 / 3, 4 / 3])}),
    ],
)
def test_cross_entropy_has_what_the_run_says(
    settings: dict[str, Any], wanted: dict[str, Any]
) -> None:
    for task in ("multiclass", "tokens"):
        loss = class_loss(run_of(task, loss=settings), [0, 0, 1, 2], NAMES)
        assert same(loss(LOGITS, CLASSES), losses.cross_entropy(LOGITS, CLASSES, **wanted))


def test_focal_has_what_the_run_says() -> None:
    loss = class_loss(run_of("multiclass", loss={"name": "focal"}), [0], NAMES)
    assert same(loss(LOGITS, CLASSES), losses.focal(LOGITS, CLASSES, gamma=2.0))
    settings = {"name": "focal", "focal_gamma": 1.0, "class_weights": "balanced"}
    loss = class_loss(run_of("multiclass", loss=settings), [0, 0, 1, 2], NAMES)
    alpha = torch.tensor([2 / 3, 4 / 3, 4 / 3])
    assert same(loss(LOGITS, CLASSES), losses.focal(LOGITS, CLASSES, gamma=1.0, alpha=alpha))


def test_weights_of_tags_leave_out_what_is_ignored() -> None:
    run = run_of("tokens", loss={"class_weights": "balanced"})
    assert same(
        class_loss(run, [0, -100, 0, 1, -100, 2], NAMES)(LOGITS, CLASSES),
        class_loss(run, [0, 0, 1, 2], NAMES)(LOGITS, CLASSES),
    )


# ---- labels that are there or not


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {}),
        ({"pos_weight": [1.0, 2.0, 3.0]}, {"pos_weight": torch.tensor([1.0, 2.0, 3.0])}),
        # Of ten rows one, five, none: nine times, once as often absent; none has nothing to weigh.
        ({"pos_weight": "balanced"}, {"pos_weight": torch.tensor([9.0, 1.0, 1.0])}),
    ],
)
def test_presence_has_what_the_run_says(settings: dict[str, Any], wanted: dict[str, Any]) -> None:
    loss = presence_loss(run_of("multilabel", loss=settings), [1, 5, 0], 10)
    assert same(loss(LOGITS, LABELS), losses.binary_cross_entropy(LOGITS, LABELS, **wanted))


def test_presence_of_one_logit() -> None:
    head = {"num_labels": 1}
    for settings, weight in (
        ({}, None), ({"pos_weight": "balanced"}, 4.0), ({"pos_weight": [2.5]}, 2.5),
    ):  # fmt: skip
        loss = presence_loss(run_of("binary", head=head, loss=settings), [2], 10)
        wanted = losses.binary_cross_entropy(LOGITS[:, 0], LABELS[:, 0], pos_weight=weight)
        assert same(loss(LOGITS[:, 0], LABELS[:, 0]), wanted)
    settings = {"name": "focal", "focal_gamma": 1.5, "focal_alpha": 0.25}
    loss = presence_loss(run_of("binary", head=head, loss=settings), [2], 10)
    wanted = losses.binary_focal(LOGITS[:, 0], LABELS[:, 0], gamma=1.5, alpha=0.25)
    assert same(loss(LOGITS[:, 0], LABELS[:, 0]), wanted)


# ---- numbers


def test_losses_of_numbers() -> None:
    a, b = torch.tensor([0.0, 3.0]), torch.tensor([1.0, -1.0])
    for settings, wanted in (
        ({}, losses.mse(a, b)), ({"name": "l1"}, losses.l1(a, b)),
        ({"name": "huber"}, losses.huber(a, b)),
        ({"name": "huber", "huber_delta": 0.5}, losses.huber(a, b, delta=0.5)),
    ):  # fmt: skip
        assert same(regression_loss(run_of("regression", loss=settings))(a, b), wanted)


# ---- what is refused


def test_loss_of_another_task_is_refused() -> None:
    said = "loss.name is 'mse', expected cross_entropy or focal for task 'multiclass'"
    assert (
        refusal(lambda: class_loss(run_of("multiclass", loss={"name": "mse"}), [], NAMES)) == said
    )
    for make in (
        lambda: presence_loss(run_of("multilabel", loss={"name": "cross_entropy"}), [1], 2),
        lambda: regression_loss(run_of("regression", loss={"name": "focal"})),
    ):
        assert refusal(make).startswith("loss.name is ")
    assert allowed(run_of("binary"), "one", "two") == "one"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"class_weights": [1.0]},
            "loss.class_weights has 1 numbers, expected 3, one for each label",
        ),
        (
            {"class_weights": [1.0, -1.0, 2.0]},
            "loss.class_weights has -1.0, expected finite numbers",
        ),
        (
            {"class_weights": [1.0, float("inf"), 2.0]},
            "loss.class_weights has inf, expected finite ",
        ),
        (
            {"class_weights": "balance"},
            "loss.class_weights is 'balance', expected 'balanced' or a l",
        ),
        (
            {"name": "focal", "label_smoothing": 0.1},
            "loss.label_smoothing goes with cross_entropy,",
        ),
    ],
)
def test_settings_of_classes_that_do_not_fit(settings: dict[str, Any], said: str) -> None:
    assert refusal(lambda: class_loss(run_of("multiclass", loss=settings), [0], NAMES)).startswith(
        said
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pos_weight": [1.0]}, "loss.pos_weight has 1 numbers, expected 3, one for each label"),
        ({"pos_weight": "balance"}, "loss.pos_weight is 'balance', expected 'balanced' or a list"),
        (
            {"name": "focal", "pos_weight": "balanced"},
            "loss.pos_weight goes with binary_cross_entr",
        ),
    ],
)
def test_settings_of_presence_that_do_not_fit(settings: dict[str, Any], said: str) -> None:
    run = run_of("multilabel", loss=settings)
    assert refusal(lambda: presence_loss(run, [1, 1, 1], 3)).startswith(said)


@pytest.mark.parametrize("settings", [{"class_weights": "balanced"}, {"label_smoothing": 0.1}])
def test_weights_of_two_logits_do_not_go_with_one(settings: dict[str, Any]) -> None:
    run = run_of("binary", head={"num_labels": 1}, loss=settings)
    assert refusal(lambda: presence_loss(run, [1], 3)).endswith("take pos_weight")
    for name, value in (("pos_weight", "balanced"), ("focal_alpha", 0.5)):
        run = run_of("binary", loss={name: value})
        assert refusal(lambda run=run: class_loss(run, [0], ("a", "b"))) == (
            f"loss.{name} goes with one logit a label; take class_weights here"
        )
