"""What one batch's logits and labels say: numbers, computed in a few passes over small tensors.

Nothing here remembers anything, draws at random, or takes part in a gradient.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
Kind = Literal["classes", "presences", "numbers"]

# Logits over a vocabulary are wide: of no more values than this a batch is judged.
_MOST_VALUES = 1 << 18
_SURE = 0.99
_FEW = 1000  # labels that are looked at one by one
# What two numbers may differ by that were computed of the same in another order, or in bfloat16.
_SAME = 0.02


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Of one batch.

    Attributes:
        kind: "classes" with one label a row, "presences" of labels that are there or not,
            "numbers" otherwise.
        n_rows: that count.
        plain_loss: cross-entropy, binary cross-entropy or mean squared error of these logits and
            labels, unweighted.
        spread: by how much answers differ between rows, as a standard deviation: of the log-odds
            of classes and presences, of numbers themselves.
        target_spread, target_mean: of numbers.
        answer_mean: of numbers.
        whole_targets: of numbers the different ones, where all are whole and there are few.
        labels: how often each label stands in the batch, `(labels,)`; of numbers empty.
        answers: how often each is the answer; of presences those above a half.
        right: how often each is rightly the answer.
        sure_and_wrong: the share of answers that are given 0.99 or more, and are wrong.
        squashed_by: "sigmoid" or "softmax" where logits are known to be the head's answers behind
            it, "" where they are known to be the answers themselves, None otherwise.
        scale: by which factor logits are known to be the head's answers.
        in_unit: do all logits lie within [0, 1]?
        sum_to_one: do the logits of each row?
        bias_gradient: what the mean loss gives a bias in front of the logits, `(labels,)`.
        loss_without: of classes the mean loss of all rows but those of each class, `(labels,)`.
        loss_of_columns: of classes the loss where the softmax is over the rows of the batch.
    """

    kind: Kind
    n_rows: int
    n_labels: int
    plain_loss: float
    spread: float
    labels: Tensor
    answers: Tensor
    right: Tensor
    sure_and_wrong: float = 0.0
    squashed_by: str | None = None
    scale: float | None = None
    in_unit: bool = False
    sum_to_one: bool = False
    target_spread: float = 0.0
    target_mean: float = 0.0
    answer_mean: float = 0.0
    whole_targets: frozenset[float] | None = None
    bias_gradient: Tensor | None = None
    loss_without: Tensor | None = None
    loss_of_columns: float | None = None

    @property
    def is_about_texts(self) -> bool:
        """Are labels few enough to be looked at one by one? Those of a vocabulary are not."""
        return self.n_labels <= _FEW


def kind_of(logits: Tensor, labels: Tensor) -> Kind | None:
    """What labels of this shape and dtype are to logits of that one; None where they do not fit."""
    in_rows = logits.ndim > 0 and logits.shape[:-1] == labels.shape
    if in_rows and not labels.is_floating_point() and logits.shape[-1] > 1:
        return "classes"
    if _squeezed(logits).shape != _squeezed(labels).shape:
        return None
    return "presences" if bool(((labels == 0) | (labels == 1)).all()) else "numbers"


def is_one_hot(labels: Tensor) -> bool:
    """Is each row a single 1 among 0?"""
    return labels.ndim == 2 and labels.shape[1] > 1 and bool((labels.sum(-1) == 1).all())


@torch.no_grad()
def signals_of(logits: Tensor, labels: Tensor, kind: Kind) -> Signals | None:
    """What a batch says; None where none of its labels counts.

    Args:
        logits: `(…, labels)` with labels `(…)` of classes, else both of one shape.
        labels: those of classes that are -100 do not count.
    """
    logits = logits.detach().float()
    if kind == "classes":
        return _of_classes(logits.flatten(0, -2), labels.detach().flatten().long())
    logits, labels = _squeezed(logits), _squeezed(labels.detach()).float()
    if not logits.numel():
        return None
    return _of_presences(logits, labels) if kind == "presences" else _of_numbers(logits, labels)


def _of_classes(logits: Tensor, labels: Tensor) -> Signals | None:
    kept = (labels != IGNORED).nonzero().squeeze(-1)
    kept = kept[: max(8, _MOST_VALUES // logits.shape[-1])]
    logits, labels = logits[kept], labels[kept]
    n_rows, n_labels = logits.shape
    if not n_rows:
        return None
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    sure, answers = p.max(-1)
    wrong = answers != labels
    losses = F.nll_loss(log_p, labels, reduction="none")
    counts = torch.bincount(labels, minlength=n_labels)
    of_class = torch.zeros(n_labels).index_add_(0, labels.cpu(), losses.cpu())
    return Signals(
        kind="classes",
        n_rows=n_rows,
        n_labels=n_labels,
        plain_loss=float(losses.mean()),
        spread=float(log_p.std(0, correction=0).mean()),
        labels=counts.cpu(),
        answers=torch.bincount(answers, minlength=n_labels).cpu(),
        right=torch.bincount(answers[~wrong], minlength=n_labels).cpu(),
        sure_and_wrong=float(((sure > _SURE) & wrong).float().mean()),
        in_unit=_in_unit(logits),
        sum_to_one=bool(((logits.sum(-1) - 1).abs() < 1e-2).all()),
        bias_gradient=(p.mean(0) - counts / n_rows).cpu(),
        loss_without=(losses.sum().cpu() - of_class) / (n_rows - counts.cpu()).clamp(min=1),
        loss_of_columns=None
        if n_labels > _FEW
        else float(F.nll_loss(logits.log_softmax(0), labels)),
    )


def _of_presences(logits: Tensor, labels: Tensor) -> Signals:
    logits = logits.reshape(len(logits), -1) if logits.ndim else logits.reshape(1, 1)
    labels = labels.reshape(logits.shape)
    p = logits.sigmoid()
    given, there = logits > 0, labels == 1
    sure = (p > _SURE) | (p < 1 - _SURE)
    return Signals(
        kind="presences",
        n_rows=len(logits),
        n_labels=logits.shape[1],
        plain_loss=float(F.binary_cross_entropy_with_logits(logits, labels)),
        spread=float(logits.std(0, correction=0).mean()),
        labels=there.sum(0).cpu(),
        answers=given.sum(0).cpu(),
        right=(given & there).sum(0).cpu(),
        sure_and_wrong=float((sure & (given != there)).float().mean()),
        in_unit=_in_unit(logits),
        bias_gradient=((p - labels).mean(0) / logits.shape[1]).cpu(),
    )


def _of_numbers(logits: Tensor, labels: Tensor) -> Signals:
    empty = torch.zeros(0, dtype=torch.long)
    logits = logits.reshape(len(logits), -1) if logits.ndim else logits.reshape(1, 1)
    labels = labels.reshape(logits.shape)
    values = torch.unique(labels)
    is_few = len(values) <= 20 and bool((values == values.round()).all())
    return Signals(
        kind="numbers",
        n_rows=len(logits),
        n_labels=0,
        plain_loss=float(F.mse_loss(logits, labels)),
        spread=float(logits.std(0, correction=0).mean()),
        labels=empty,
        answers=empty,
        right=empty,
        target_spread=float(labels.std(0, correction=0).mean()),
        target_mean=float(labels.mean()),
        answer_mean=float(logits.mean()),
        whole_targets=frozenset(values.tolist()) if is_few else None,
        bias_gradient=(2 * (logits - labels).mean(0) / logits.shape[1]).cpu(),
    )


@torch.no_grad()
def broadcast_loss(logits: Tensor, labels: Tensor) -> float:
    """The mean squared error where `(batch, 1)` and `(batch,)` are spread to all pairs."""
    a, b = logits.detach().float().flatten(), labels.detach().float().flatten()
    return float((a[:, None] - b[None, :]).square().mean())


def same(a: float, b: float) -> bool:
    """Are two losses the same but for rounding?"""
    return math.isclose(a, b, rel_tol=_SAME, abs_tol=1e-6)


def entropy(counts: Tensor) -> float:
    """Of a distribution given by counts, in nats."""
    p = counts.double() / max(1.0, float(counts.sum()))
    return float(torch.special.entr(p).sum())


def presence_entropy(counts: Tensor, n_rows: int) -> float:
    """The mean binary cross-entropy of who knows how frequent each label is, and no more."""
    p = (counts.double() / max(1, n_rows)).clamp(0, 1)
    return float((torch.special.entr(p) + torch.special.entr(1 - p)).mean())


@torch.no_grad()
def mean_cosine(vectors: Tensor) -> float:
    """Of all pairs of different rows; 0 for fewer than two."""
    n = len(vectors)
    if n < 2:
        return 0.0
    unit = F.normalize(vectors.detach().float(), dim=-1)
    return float((unit.sum(0).square().sum() - n) / (n * (n - 1)))


def _in_unit(logits: Tensor) -> bool:
    return bool(((logits >= 0) & (logits <= 1)).all())


def _squeezed(values: Tensor) -> Tensor:
    return values.squeeze(-1) if values.ndim > 1 and values.shape[-1] == 1 else values
