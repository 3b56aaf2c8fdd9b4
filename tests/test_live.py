"""The doctor in a loop of plain PyTorch: each fault is found first, and gone where it is mended.

The network is small, of words that tell their label, so that a fault can be made in milliseconds;
the same faults on real texts and a real BERT are in test_training_failures.py.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.doctor.catalogue import CATALOGUE
from minibert.doctor.findings import Finding
from minibert.doctor.live import Doctor, frozen_dropouts, parameters_of
from minibert.errors import TrainingError

N_WORDS, WIDTH, LENGTH = 60, 16, 6


class Toy(nn.Module):
    """Words -> the mean of their vectors -> a layer -> logits, as a BERT's parts are called."""

    def __init__(self, n_labels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embeddings = nn.Embedding(N_WORDS, WIDTH, padding_idx=0)
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(WIDTH, n_labels)

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        words = self.embeddings(ids)
        if attention_mask is not None:
            words = words * attention_mask[..., None]
        hidden = words.sum(1)
        for layer in self.layers:
            hidden = hidden + layer(hidden).tanh()
        logits: Tensor = self.classifier(self.dropout(hidden))
        return logits


class Rows(NamedTuple):
    """Texts as ids, and a label each that one of its words gives away."""

    ids: Tensor
    labels: Tensor


def rows(n: int = 640, n_labels: int = 3, *, seed: int = 1) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(n_labels, (n,), generator=generator)
    ids = torch.randint(10, N_WORDS, (n, LENGTH), generator=generator)
    ids[:, 0] = 1 + labels
    return Rows(ids, labels)


def batches(data: Rows, size: int = 16, *, shuffled: bool = True) -> Iterator[Rows]:
    generator = torch.Generator().manual_seed(2)
    while True:
        order = torch.arange(len(data.labels))
        if shuffled:
            order = torch.randperm(len(data.labels), generator=generator)
        for part in order.split(size):
            if len(part) == size:
                yield Rows(data.ids[part], data.labels[part])


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def run(
    *,
    data: Rows | None = None,
    n_labels: int = 3,
    steps: int = 40,
    rate: float = 3e-3,
    shuffled: bool = True,
    loss_of: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    answer: Callable[[Tensor], Tensor] = lambda logits: logits,
    target: Callable[[Tensor], Tensor] = lambda labels: labels,
    change: Callable[[Toy], None] = lambda model: None,
    held: Callable[[Toy], Any] = lambda model: model.parameters(),
    step: bool = True,
    zero_grad: bool = True,
    **settings: Any,
) -> Doctor:
    """Train a while, with something done otherwise than it should be."""
    data = rows(n_labels=n_labels) if data is None else data
    model = Toy(n_labels)
    change(model)
    optimizer = torch.optim.AdamW(held(model), lr=rate)
    settings = {"pretrained": False, **settings}
    doctor = Doctor(model, optimizer, say=lambda line: None, **settings)
    torch.manual_seed(3)
    for batch in islice(batches(data, shuffled=shuffled), steps):
        logits = answer(model(batch.ids))
        labels = target(batch.labels)
        loss = loss_of(logits, labels)
        if loss.requires_grad:
            loss.backward()
        doctor.step(loss=loss, logits=logits, labels=labels)
        if not math.isfinite(float(loss.detach())):
            break
        if step:
            optimizer.step()
        if zero_grad:
            optimizer.zero_grad()
    doctor.close()
    return doctor


def updates(model: nn.Module, optimizer: torch.optim.Optimizer, doctor: Doctor, n: int) -> None:
    """Train as it should be done, with the doctor looking on."""
    for batch in islice(batches(rows()), n):
        logits = model(batch.ids)
        loss = F.cross_entropy(logits, batch.labels)
        loss.backward()
        doctor.step(loss=loss, logits=logits, labels=batch.labels)
        optimizer.step()
        optimizer.zero_grad()


def names(doctor: Doctor) -> list[str]:
    return [each.name for each in doctor.ranked()]


def mean_square(logits: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(logits, labels)


def present(logits: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, labels)


def freeze_with_dropout(model: Toy) -> None:
    model.layers = nn.ModuleList([nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5))])
    model.layers.requires_grad_(False)


def sorted_rows() -> Rows:
    data = rows()
    order = data.labels.argsort(stable=True)
    return Rows(data.ids[order], data.labels[order])


def one_hot(labels: Tensor) -> Tensor:
    return F.one_hot(labels, 3).float()


def focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    log_p = -F.cross_entropy(logits, labels, reduction="none")
    return -(((1 - log_p.exp()) ** gamma) * log_p).mean()


def unrelated_rows() -> Rows:
    """Labels that nothing in the texts tells."""
    return Rows(rows(2000).ids, rows(2000, seed=7).labels)


# What is done wrongly, and what the doctor has to say first.
FAULTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "softmax in the network": (
        "probabilities-as-logits", {"answer": lambda logits: logits.softmax(-1)},
    ),
    "sigmoid in the network": (
        "probabilities-as-logits",
        {"answer": torch.sigmoid, "target": one_hot, "loss_of": present},
    ),
    "temperature": (
        "logits-are-scaled", {"answer": lambda logits: logits * 0.01, "steps": 130},
    ),
    "softmax over the batch": (
        "loss-over-the-batch",
        {"loss_of": lambda logits, labels: F.nll_loss(logits.log_softmax(0), labels)},
    ),
    "focal without end": (
        "loss-is-far-from-plain", {"loss_of": lambda logits, labels: focal(logits, labels, 20.0)},
    ),
    "a sum": (
        "loss-is-a-sum",
        {"loss_of": lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum")},
    ),
    "a minus": (
        "loss-has-the-wrong-sign", {"loss_of": lambda a, y: -F.cross_entropy(a, y), "steps": 30},
    ),
    "ignore_index of a class": (
        "class-is-ignored",
        {"loss_of": lambda logits, labels: F.cross_entropy(logits, labels, ignore_index=1)},
    ),
    "broadcast": (
        "loss-broadcasts",
        {"n_labels": 1, "target": lambda labels: labels.float() * 0.7, "loss_of": mean_square,
         "data": rows()},
    ),
    "far targets": (
        "targets-not-scaled",
        {"n_labels": 1, "answer": lambda logits: logits.squeeze(-1), "data": rows(),
         "target": lambda labels: labels * 50.0 + 200, "loss_of": mean_square},
    ),
    "not shuffled": ("labels-in-runs", {"data": sorted_rows(), "shuffled": False}),
    "one batch": ("one-batch-again", {"data": rows(16), "shuffled": False}),
    "one text": (
        "inputs-alike", {"data": Rows(rows().ids[:1].expand(640, -1), rows().labels)},
    ),
    "nothing held": ("nothing-is-trained", {"held": lambda model: [nn.Parameter(torch.ones(1))]}),
    "all frozen": (
        "nothing-is-trained",
        {"held": lambda model: list(model.parameters()),
         "change": lambda model: model.requires_grad_(False)},
    ),
    "head not held": (
        "not-in-the-optimizer", {"held": lambda model: model.layers.parameters()},
    ),
    "detached": (
        "no-gradient", {"loss_of": lambda logits, labels: cross_entropy(logits, labels).detach()},
    ),
    "no step": ("weights-stand-still", {"step": False}),
    "rate 0": ("weights-stand-still", {"rate": 0.0}),
    "no zero_grad": ("gradients-pile-up", {"zero_grad": False}),
    "rate too high": ("rate-too-high", {"rate": 3.0, "pretrained": True}),
    "rate too low": ("rate-too-low", {"rate": 1e-8, "steps": 60}),
    "large head": (
        "head-starts-large",
        {"change": lambda model: nn.init.normal_(model.classifier.weight, std=30.0)},
    ),
    "labels of other rows": (
        "labels-unrelated",
        {"data": unrelated_rows(), "pretrained": True, "rate": 1e-3, "steps": 100},
    ),
    "dropout": (
        "dropout-is-high", {"change": lambda model: setattr(model.dropout, "p", 0.9)},
    ),
    "a matrix of zeros": (
        "weights-are-constant",
        {"change": lambda model: nn.init.zeros_(model.layers[0].weight)},
    ),
    "evaluation mode": ("dropout-is-off", {"change": lambda model: model.eval()}),
    "frozen and dropping": ("frozen-but-dropping", {"change": freeze_with_dropout}),
    "class out of range": ("labels-do-not-fit", {"n_labels": 4, "target": lambda y: y + 4,
        "loss_of": lambda logits, labels: logits.sum()}),
    "wrong width": ("labels-do-not-fit", {"target": lambda y: F.one_hot(y, 5).float(),
        "loss_of": lambda logits, labels: logits.sum()}),
    "NaN in the network": (
        "not-finite",
        {"change": lambda model: nn.init.constant_(model.layers[1].bias, math.nan)},
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using a target size")  # which the fault "broadcast" is
@pytest.mark.parametrize("fault", FAULTS)
def test_the_cause_is_ranked_first(fault: str) -> None:
    expected, settings = FAULTS[fault]
    found = run(**settings).ranked()
    assert [each.name for each in found[:1]] == [expected], [each.lines() for each in found]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"steps": 400},
        {"n_labels": 2, "data": rows(n_labels=2)},
        {"rate": 3e-4, "steps": 200},
        {"target": one_hot, "loss_of": present},
        {"loss_of": lambda logits, y: F.cross_entropy(logits, y, label_smoothing=0.2)},
        {"loss_of": lambda a, y: F.cross_entropy(a, y, weight=torch.tensor([1.0, 5.0, 2.0]))},
        {"loss_of": lambda a, y: focal(a, y, 2.0)},
        {"loss_of": lambda a, y: F.cross_entropy(a, y) / 32},
        {"n_labels": 1, "data": rows(), "answer": lambda a: a.squeeze(-1), "loss_of": mean_square,
         "target": lambda y: y.float() - 1},
    ],
    ids=["plain", "long", "binary", "slow", "several", "smoothed", "weighted", "focal", "divided",
        "numbers"],
)  # fmt: skip
def test_a_healthy_run_is_not_accused(settings: Mapping[str, Any]) -> None:
    doctor = run(**{"steps": 130, **settings})
    assert not [each for each in doctor.ranked() if each.severity != "info"], doctor.ranked()


def test_it_changes_neither_weights_nor_gradients_nor_random_numbers() -> None:
    states = []
    for watched in (False, True):
        torch.manual_seed(5)
        model = Toy(3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        doctor = Doctor(model, optimizer, say=lambda line: None) if watched else None
        for batch in islice(batches(rows()), 25):
            logits = model(batch.ids)
            loss = F.cross_entropy(logits, batch.labels)
            loss.backward()
            if doctor is not None:
                doctor.step(loss=loss, logits=logits, labels=batch.labels)
            optimizer.step()
            optimizer.zero_grad()
        states.append([*model.state_dict().values(), torch.rand(3)])
    for plain, seen in zip(*states, strict=True):
        assert plain.equal(seen)


def test_padding_that_no_mask_hides_is_found() -> None:
    data = rows()
    padded = torch.cat([data.ids, torch.zeros(len(data.ids), 10, dtype=torch.long)], 1)
    assert names(run(data=Rows(padded, data.labels)))[0] == "padding-is-seen"


class Wrapped(nn.Module):
    """A network of somebody else: the mask has another name, or is made of the ids."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.inner = how, Toy(3)

    def forward(self, ids: Tensor, keep: Tensor | None = None) -> Tensor:
        if self.how == "of the ids":
            keep = (ids != 0).long()
        if self.how == "forgotten":
            keep = None
        logits: Tensor = self.inner(ids, keep)
        return logits


@pytest.mark.parametrize(
    ("how", "is_called", "is_found"),
    [
        ("another name", True, False),
        ("of the ids", True, False),
        ("forgotten", True, True),
        ("the part alone", False, False),
    ],
)
def test_padding_is_seen_where_answers_change_with_it(
    how: str, is_called: bool, is_found: bool
) -> None:
    model = Wrapped(how)
    model.inner.embeddings.weight.data[0] = 0.5  # else the vector of padding is 0
    model.inner.embeddings.padding_idx = None
    doctor = Doctor(model, say=lambda line: None)
    before = torch.get_rng_state()
    for batch in islice(batches(rows()), 8):
        ids = torch.cat([batch.ids, torch.zeros(16, 4, dtype=torch.long)], 1)
        keep = (ids != 0).long()
        logits = model(ids, keep) if is_called else model.inner(ids, keep)
        before = torch.get_rng_state()
        doctor.step(loss=F.cross_entropy(logits, batch.labels), logits=logits, labels=batch.labels)
        assert torch.get_rng_state().equal(before)
        assert all(module.training for module in model.modules())
    assert ("padding-is-seen" in names(doctor)) == is_found


class Once(Toy):
    """A network that cannot be called but for training."""

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        if not torch.is_grad_enabled():
            raise RuntimeError("not\nnow")
        return super().forward(ids, attention_mask)


def test_a_network_that_cannot_be_asked_again_goes_on_training() -> None:
    model, said = Once(3), list[str]()
    doctor = Doctor(model, say=said.append)
    for batch in islice(batches(rows()), 8):
        ids = torch.cat([batch.ids, torch.zeros(16, 4, dtype=torch.long)], 1)
        logits = model(ids)
        doctor.step(loss=F.cross_entropy(logits, batch.labels), logits=logits, labels=batch.labels)
    told = [line for line in said if "whether" in line]
    assert told == ["doctor: whether padding changes answers cannot be told: RuntimeError: not now"]
    assert all(module.training for module in model.modules())


def test_a_mask_the_wrong_way_round_is_found() -> None:
    model = Toy(3)
    doctor = Doctor(model, say=lambda line: None)
    for batch in islice(batches(rows()), 10):
        ids = torch.cat([batch.ids, torch.zeros(16, 4, dtype=torch.long)], 1)
        logits = model(ids, attention_mask=(ids == 0).long())
        doctor.step(loss=F.cross_entropy(logits, batch.labels), logits=logits, labels=batch.labels)
    assert names(doctor)[0] == "texts-are-hidden"
    assert "padding-is-seen" not in names(doctor)


def test_a_mask_is_seen_by_its_place_too() -> None:
    model = Toy(3)
    doctor = Doctor(model, say=lambda line: None)
    for batch in islice(batches(rows()), 10):
        ids = torch.cat([batch.ids, torch.zeros(16, 4, dtype=torch.long)], 1)
        logits = model(ids, (ids != 0).long())
        doctor.step(loss=F.cross_entropy(logits, batch.labels), logits=logits, labels=batch.labels)
    assert "padding-is-seen" not in names(doctor)


def test_padding_under_a_mask_is_no_fault() -> None:
    """It is said to make all outputs equal; it does not."""
    data, model = rows(), Toy(3)
    padded = torch.cat([data.ids, torch.zeros(len(data.ids), 10, dtype=torch.long)], 1)
    doctor = Doctor(model, say=lambda line: None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in islice(batches(Rows(padded, data.labels)), 80):
        logits = model(batch.ids, attention_mask=(batch.ids != 0).long())
        loss = F.cross_entropy(logits, batch.labels)
        loss.backward()
        doctor.step(loss=loss, logits=logits, labels=batch.labels)
        optimizer.step()
        optimizer.zero_grad()
    assert not doctor.findings
    assert doctor.history.plain_loss(10) < 0.5


def test_labels_on_padding_are_found() -> None:
    torch.manual_seed(0)
    table, head = nn.Embedding(N_WORDS, WIDTH), nn.Linear(WIDTH, 3)
    model = nn.Sequential(table, head)
    doctor = Doctor(model, say=lambda line: None)
    for batch in islice(batches(rows()), 10):
        ids = torch.cat([batch.ids, torch.zeros(16, 4, dtype=torch.long)], 1)
        labels = torch.zeros_like(ids)
        labels[:, 0] = batch.labels
        logits = model(ids)
        doctor.step(
            loss=F.cross_entropy(logits.flatten(0, 1), labels.flatten()),
            logits=logits,
            labels=labels,
            attention_mask=(ids != 0).long(),
        )
    assert "padding-has-labels" in names(doctor)


@pytest.mark.parametrize(
    ("first", "label", "is_found"),
    [
        ([1] * 16, [2] * 16, True),
        ([1] * 16, [-100] * 16, False),  # as it should be
        ([1] * 16, [2] * 15 + [-100], False),
        ([1] * 16, [1] * 16, False),  # what a network is to repeat, or to go on from
        (list(range(1, 17)), [2] * 16, False),  # words: nothing stands before them
    ],
)
def test_labels_on_the_token_that_begins_every_row_are_found(
    first: list[int], label: list[int], is_found: bool
) -> None:
    model = nn.Sequential(nn.Embedding(N_WORDS, WIDTH), nn.Linear(WIDTH, 3))
    doctor = Doctor(model, say=lambda line: None)
    for batch in islice(batches(rows()), 5):
        ids = torch.cat([torch.tensor(first)[:, None], batch.ids], 1)
        labels = torch.full_like(ids, -100)
        labels[:, 0] = torch.tensor(label)
        labels[:, 1] = batch.labels
        logits = model(ids)
        doctor.step(
            loss=F.cross_entropy(logits.flatten(0, 1), labels.flatten()),
            logits=logits,
            labels=labels,
        )
    assert ("labels-on-special-tokens" in names(doctor)) == is_found


class Typed(nn.Module):
    """Two texts, told apart by a type."""

    def __init__(self, n_types: int = 2) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(N_WORDS, WIDTH, padding_idx=0)
        self.token_type_embeddings = nn.Embedding(n_types, WIDTH)
        self.classifier = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor, types: Tensor) -> Tensor:
        hidden = self.word_embeddings(ids) + self.token_type_embeddings(types)
        logits: Tensor = self.classifier(hidden.mean(1))
        return logits


@pytest.mark.parametrize(
    ("ends", "of_second", "n_types", "is_found"),
    [
        (2, 0, 2, True),
        (2, 1, 2, False),  # as it should be
        (1, 0, 2, False),  # one text
        (2, 0, 1, False),  # a network without types
    ],
)
def test_pairs_whose_tokens_are_of_one_type_are_found(
    ends: int, of_second: int, n_types: int, is_found: bool
) -> None:
    model = Typed(n_types)
    doctor = Doctor(model, say=lambda line: None)
    for batch in islice(batches(rows()), 5):
        end = torch.full((16, 1), 9)
        first = [batch.ids, end] if ends == 2 else [batch.ids]
        ids = torch.cat([*first, batch.ids, end, torch.zeros_like(end)], 1)
        types = torch.zeros_like(ids)
        types[:, LENGTH + 1 :] = of_second
        logits = model(ids, types)
        doctor.step(loss=F.cross_entropy(logits, batch.labels), logits=logits, labels=batch.labels)
    assert ("pairs-without-types" in names(doctor)) == is_found


def test_a_rate_at_which_no_number_is_left_is_not_merely_divided() -> None:
    def break_layer(model: Toy) -> None:
        model.layers[0].register_forward_hook(lambda module, args, output: output * math.nan)

    for rate, proposed in ((1e20, "1e-04"), (1e-4, "1e-05")):
        (found,) = [
            each
            for each in run(change=break_layer, rate=rate).ranked()
            if each.name == "not-finite"
        ]
        assert dict(found.settings) == {"optimizer.learning_rate": proposed}


def test_a_value_that_is_no_number_is_traced_to_the_module_that_made_it() -> None:
    def break_layer(model: Toy) -> None:
        model.layers[0].register_forward_hook(lambda module, args, output: output * math.nan)

    (found,) = [each for each in run(change=break_layer).ranked() if each.name == "not-finite"]
    assert "layers.0" in found.evidence


def test_validation_labels_under_other_names_are_found() -> None:
    doctor = run()
    confusion = torch.tensor([[2.0, 50.0, 0.0], [1.0, 3.0, 40.0], [45.0, 2.0, 1.0]])
    found = doctor.evaluation({"loss": 3.0}, confusion=confusion)
    assert found[0].name == "labels-permuted"
    assert "1 for 0, 2 for 1, 0 for 2" in found[0].evidence


@pytest.mark.parametrize(("is_same", "moves"), [(True, True), (False, True), (True, False)])
def test_evaluations_that_stand_still_while_the_network_moves_are_found(
    is_same: bool, moves: bool
) -> None:
    model = Toy(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3 if moves else 0.0)
    doctor = Doctor(model, optimizer, say=lambda line: None)
    for number in range(2):
        updates(model, optimizer, doctor, 20)
        doctor.evaluation({"loss": 1.1 if is_same else 1.1 - number / 100})
    assert ("evaluation-stands-still" in names(doctor)) == (is_same and moves)


@pytest.mark.parametrize("is_training", [True, False])
def test_an_evaluation_in_training_mode_is_found(is_training: bool) -> None:
    model = Toy(3)
    doctor = Doctor(model, say=lambda line: None)
    for batch in islice(batches(rows()), 3):
        logits = model.train()(batch.ids)
        loss = F.cross_entropy(logits, batch.labels)
        loss.backward()
        doctor.step(loss=loss, logits=logits, labels=batch.labels)
        model.train(is_training)
        with torch.no_grad():
            model(batch.ids)
    doctor.evaluation({"loss": 1.0})
    found = [each for each in doctor.ranked() if each.name == "evaluated-in-training-mode"]
    assert bool(found) == is_training
    assert all("called 1 times" in each.evidence for each in found)


def test_grades_and_names_that_are_numbers_are_worth_knowing() -> None:
    settings = {"n_labels": 1, "answer": lambda a: a.squeeze(-1), "loss_of": mean_square}
    whole = run(**settings, data=rows(), target=lambda y: y.float())
    assert names(whole)[-1] == "classes-as-numbers"
    assert "0, 1, 2, and nothing between" in whole.ranked()[-1].evidence
    assert "classes-as-numbers" not in names(
        run(**settings, data=rows(), target=lambda y: y.float() + 0.3)
    )


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        (lambda model: torch.optim.AdamW(model.parameters(), lr=1e-4, eps=100.0), "eps = 100"),
        (lambda model: torch.optim.SGD(model.parameters(), lr=1e-7), "of SGD"),
    ],
)
def test_short_steps_are_told_with_what_makes_them(
    optimizer: Callable[[nn.Module], Any], told: str
) -> None:
    model = Toy(3)
    held = optimizer(model)
    doctor = Doctor(model, held, say=lambda line: None)
    updates(model, held, doctor, 60)
    (found,) = [each for each in doctor.ranked() if each.name == "rate-too-low"]
    assert told in found.evidence


def test_guesses_on_validation_are_found_once_training_examples_are_learnt() -> None:
    doctor = run(steps=200)
    confusion = torch.tensor([[20.0, 19.0, 21.0], [20.0, 21.0, 19.0], [19.0, 20.0, 21.0]])
    assert [each.name for each in doctor.evaluation({"loss": 3.0}, confusion=confusion)] == [
        "no-better-than-chance"
    ]


def test_learning_by_heart_is_found_and_graver_where_the_figure_falls() -> None:
    for figures, severity in (((0.8, 0.75, 0.7), "warning"), ((0.8, 0.81, 0.82), "info")):
        doctor = run(steps=200, metric="macro_f1")
        for loss, figure in zip((0.5, 0.6, 0.9), figures, strict=True):
            found = doctor.evaluation({"loss": loss, "macro_f1": figure})
        assert [(each.name, each.severity) for each in found] == [("learnt-by-heart", severity)]


@pytest.mark.parametrize(("share", "told"), [(0.8, True), (0.0, False)])
def test_only_the_most_frequent_label_is_predicted(share: float, told: bool) -> None:
    """Of which one in ten is another, by a head that begins at that share and hardly learns; where
    labels are equally frequent, weights of classes are no remedy."""

    def sure(model: Toy) -> None:
        with torch.no_grad():
            model.classifier.weight.mul_(0.01)
            model.classifier.bias.copy_(torch.tensor([2.0, 0.0]))

    data = rows(n_labels=2)
    rare = torch.rand(len(data.labels), generator=torch.Generator().manual_seed(0)) < share
    labels = torch.where(rare, 0, data.labels)
    found = run(data=Rows(data.ids, labels), n_labels=2, rate=1e-4, steps=100, change=sure)
    settings = [dict(each.settings) for each in found.ranked() if each.name == "majority-only"]
    assert settings == ([{"loss.class_weights": '"balanced"'}] if told else [])


@pytest.mark.parametrize("n_learnt", [0, 60])
def test_labels_that_had_been_learnt_are_not_called_unrelated(n_learnt: int) -> None:
    """What was known once, and is lost, was there to be learnt: the later labels are guesses."""
    model = Toy(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    doctor = Doctor(model, optimizer, say=lambda line: None, pretrained=True)
    torch.manual_seed(3)
    known, guessed = islice(batches(rows()), n_learnt), islice(batches(unrelated_rows()), 120)
    for batch in (*known, *guessed):
        logits = model(batch.ids)
        loss = F.cross_entropy(logits, batch.labels)
        loss.backward()
        doctor.step(loss=loss, logits=logits, labels=batch.labels)
        optimizer.step()
        optimizer.zero_grad()
    doctor.close()
    assert doctor.history.had_learnt is bool(n_learnt)
    assert ("labels-unrelated" in names(doctor)) is not bool(n_learnt)


def test_labels_of_which_none_is_given_are_found() -> None:
    def rare(labels: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(int(labels.sum()))
        return (torch.rand(len(labels), 12, generator=generator) < 0.03).float()

    doctor = run(n_labels=12, data=rows(), target=rare, loss_of=present, steps=300)
    assert names(doctor)[0] == "never-predicted"


def test_labels_of_which_all_are_given_are_found() -> None:
    def eager(logits: Tensor, labels: Tensor) -> Tensor:
        weight = torch.full((3,), 1000.0)
        return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)

    found = names(run(target=one_hot, loss_of=eager, steps=200))
    assert found[0] == "loss-is-far-from-plain"  # which is why
    assert "always-predicted" in found


def test_each_finding_is_told_once_with_numbers_reason_and_setting() -> None:
    lines: list[str] = []
    model = Toy(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3.0)
    doctor = Doctor(model, optimizer, say=lines.append)
    updates(model, optimizer, doctor, 60)
    heads = [line for line in lines if line.startswith("doctor: ")]
    assert (
        len(heads) == len(set(heads)) == len([f for f in doctor.findings if f.severity != "info"])
    )
    assert any("[rate-too-high]" in line for line in heads)
    assert any("optimizer.learning_rate = " in line for line in lines)


def test_a_grave_finding_stops_where_that_was_asked_for() -> None:
    with pytest.raises(
        TrainingError, match=r"stopped by the doctor at update \d+: .*rate-too-high"
    ):
        run(rate=3.0, stop_on="error")
    assert names(run(shuffled=False, data=sorted_rows(), stop_on="error"))  # a warning only


def test_every_key_that_a_remedy_names_is_one_of_the_run_file() -> None:
    from minibert.training.run_config import RunConfig

    run_file = RunConfig.from_dict({"task": "binary", "data": {"train": "train.csv"}}).to_dict()
    keys = {"task", "model"} | {
        f"{table}.{key}"
        for table, values in run_file.items()
        if isinstance(values, dict)
        for key in values
    }
    for name, entry in CATALOGUE.items():
        assert entry.keys, name
        assert set(entry.keys) <= keys, (name, set(entry.keys) - keys)


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_settings_of_findings_are_among_those_of_the_catalogue() -> None:
    found: list[Finding] = []
    for _, settings in FAULTS.values():
        found += run(**settings).findings
    assert found
    for each in found:
        assert {key for key, _ in each.settings} <= set(each.entry.keys), each.name


def test_parameters_of_an_optimizer_are_found_in_either_form() -> None:
    from minibert.training.optim import AdamW, parameter_groups

    model = Toy(2)
    expected = {id(parameter) for parameter in model.parameters()}
    assert parameters_of(torch.optim.SGD(model.parameters(), lr=0.1)) == expected
    assert parameters_of(AdamW(parameter_groups(model, learning_rate=0.1))) == expected
    assert parameters_of(object()) is None


def test_dropouts_of_frozen_modules_are_those_below_them() -> None:
    model = Toy(2)
    assert frozen_dropouts(model) == []
    freeze_with_dropout(model)
    assert [module.p for module in frozen_dropouts(model)] == [0.5]


class Named(nn.Module):
    """Takes labels and gives loss and logits by name, as networks of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.toy = Toy(3)

    def forward(self, ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.toy(ids)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def test_what_is_not_given_is_taken_from_the_networks_last_call() -> None:
    model = Named()
    doctor = Doctor(model, say=lambda line: None)
    with pytest.raises(TypeError, match="got no loss"):
        doctor.step()
    batch = next(batches(rows()))
    loss = model(batch.ids, labels=batch.labels)["loss"]
    doctor.step()
    assert doctor.history.losses == [pytest.approx(float(loss.detach()))]
    assert doctor.history.signals[0].plain_loss == pytest.approx(float(loss.detach()), rel=1e-5)


def test_classes_that_are_written_as_rows_of_zeros_and_a_one_are_classes() -> None:
    doctor = run(target=one_hot, steps=120)  # by cross-entropy
    assert doctor.history.signals[-1].kind == "classes"
    assert not doctor.findings


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
        (torch.zeros(2, 3), torch.tensor([-100, -100])),
        (torch.zeros(2, 3), torch.tensor([-100, -1])),
        (torch.zeros(()), torch.zeros(())),
        (torch.zeros(1), torch.ones(1)),
        (torch.full((2, 3), math.nan), torch.tensor([0, 1])),
        (torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, dtype=torch.long)),
        (torch.zeros(2, 3, dtype=torch.bfloat16), torch.tensor([0, 1])),
        (torch.zeros(2, 3), torch.tensor([True, False])),
    ],
)
def test_odd_batches_never_stop_a_loop(logits: Tensor, labels: Tensor) -> None:
    doctor = Doctor(nn.Linear(2, 3), say=lambda line: None)
    for _ in range(12):
        doctor.step(loss=1.0, logits=logits, labels=labels)
    doctor.step(loss=math.inf, logits=logits, labels=labels)
    doctor.step(loss=1.0)
    doctor.evaluation({"loss": math.nan})
    doctor.evaluation({}, confusion=torch.zeros(3, 3))


class Logits(NamedTuple):
    logits: Tensor


class Outputs(nn.Module):
    """Gives its logits by name."""

    def __init__(self) -> None:
        super().__init__()
        self.toy = Toy(3)

    def forward(self, ids: Tensor) -> Logits:
        return Logits(self.toy(ids))


def test_the_loop_of_the_page_runs() -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "training-failures.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (source,) = [block for block in blocks if "for batch, labels in loader" in block]
    model = Outputs()
    some = [({"ids": each.ids}, each.labels) for each in islice(batches(rows()), 8)]
    names: dict[str, Any] = {
        "torch": torch, "model": model, "loader": some,
        "optimizer": torch.optim.AdamW(model.parameters(), lr=3e-3),
    }  # fmt: skip
    exec(compile(source, str(page), "exec"), names)
    assert names["doctor"].history.step == 8
    assert not names["doctor"].findings
