"""`Doctor`: watches a network while it trains, in any loop, and says what is wrong.

    doctor = Doctor(model, optimizer)
    for batch, labels in loader:
        logits = model(**batch).logits
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        doctor.step(loss=loss, logits=logits, labels=labels)    # before the optimizer's step
        optimizer.step()
        optimizer.zero_grad()

It reads, and changes nothing: neither weights nor gradients nor random numbers.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from minibert.doctor import rules
from minibert.doctor.findings import Finding, finding, ranked
from minibert.doctor.history import History
from minibert.doctor.inputs import (
    Watch,
    fingerprint,
    labels_at_start,
    padding_seen,
    pairs_of_one_type,
    rows_alike,
    scale_of,
    squashed_by,
    text_hidden,
)
from minibert.doctor.probe import Probe
from minibert.doctor.signals import (
    IGNORED,
    Kind,
    Signals,
    broadcast_loss,
    is_one_hot,
    kind_of,
    mean_cosine,
    same,
    signals_of,
)
from minibert.doctor.start import constant_weights, fresh_encoder, high_dropout, is_pretrained
from minibert.errors import TrainingError, in_one_line
from minibert.gradients import gradient_values

_EVERY = 5  # updates between two looks at weights and gradients, and at the rules
_ROW = 5  # updates in a row that settle what one may be by chance


class Doctor:
    """Watches one training run.

    Args:
        model: what is trained.
        optimizer: of torch, or one with `groups` of `parameters`; None leaves out what only it
            can tell.
        total: updates of the run, where that is known; judgements that need patience wait less.
        warmup: updates until the rate is at its highest.
        kind: what labels are: "classes" with one label a row, "presences" of several labels,
            "numbers"; read off their shape and values when not given.
        settings: what is set, by key of the run file; suggestions go by it.
        metric: the figure of an evaluation that decides.
        pretrained: is the encoder worth being kept near its start? Read off its weights when not
            given.
        say: gets each line about a finding; None writes to standard error.
        stop_on: the severity from which on a finding ends the run, as TrainingError.

    >>> doctor = Doctor(nn.Linear(2, 3))
    >>> doctor.step(loss=1.1, logits=torch.zeros(4, 3), labels=torch.tensor([0, 1, 2, 0]))
    []
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any = None,
        *,
        total: int | None = None,
        warmup: int = 0,
        kind: Kind | None = None,
        settings: Mapping[str, Any] | None = None,
        metric: str | None = None,
        pretrained: bool | None = None,
        say: Callable[[str], None] | None = None,
        stop_on: str | None = None,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.history = History(
            total=total,
            warmup=warmup,
            settings=settings or {},
            metric=metric,
            pretrained=is_pretrained(model) if pretrained is None else pretrained,
            optimizer=_described(optimizer),
        )
        self._is_fresh_by_will = pretrained is False
        self.findings: list[Finding] = []
        self._kind: Kind | None = kind
        self._given_kind = kind is not None
        self._say = say or _to_stderr
        self._stop_on = stop_on
        self._probe = Probe(model)
        self._watch = Watch(model)
        self._last_batch: Any = None
        self._bias: list[tuple[Tensor, Tensor]] = []  # gradients of the bias: found, expected

    def step(
        self,
        *,
        loss: float | Tensor | None = None,
        logits: Tensor | None = None,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rate: float | None = None,
    ) -> list[Finding]:
        """Look at an update: after backward, before the optimizer's step and zero_grad.

        What is not given is taken from the network's last call: its arguments `labels` and
        `attention_mask`, and `loss` and `logits` of what it gave.

        Args:
            loss: what was minimised.
            logits: what the network gave for the batch, or for a part of it.
            labels: what it should have given.
            attention_mask: of the batch.
            rate: of the update; the optimizer's when not given.

        Returns: what was found at this update, root causes first; each is found once.

        Raises: TypeError without a loss; TrainingError where a finding is as grave as `stop_on`.
        """
        loss = self._watch.loss if loss is None else loss
        if loss is None:
            raise TypeError(
                "got no loss, and the network's last call gave none under that name, expected "
                "step(loss=…, logits=…, labels=…)"
            )
        if logits is None and labels is None:
            logits, labels = self._watch.logits, self._watch.labels
        value = float(loss.detach()) if isinstance(loss, Tensor) else float(loss)
        new: list[Finding | None] = []
        signals = None
        if logits is not None and labels is not None:
            signals = self._signals(value, logits, labels, new)
            self._contract(value, logits, labels, attention_mask, new)
        self.history.add(value, self._rate() if rate is None else rate, signals)
        new += self._inputs(attention_mask)
        if self.history.step == 1:
            new += [*self._membership(), *self._start(signals)]
        if not math.isfinite(value):
            new.append(self._not_finite(f"the loss is {value}"))
        elif self.history.step % _EVERY == 0 or self.history.step == 1:
            new.append(self._look())
            new += [rule(self.history) for rule in rules.AFTER_UPDATES]
        new += [self._pile_up(signals), self._dropping()]
        return self._tell(new)

    def evaluation(
        self, metrics: Mapping[str, float], *, confusion: Tensor | None = None
    ) -> list[Finding]:
        """Look at an evaluation.

        Args:
            metrics: figures by name, "loss" among them.
            confusion: how often each label got each answer, `(labels, answers)`.

        Returns, Raises: as `step`.
        """
        self.history.evaluated(metrics, confusion)
        new = [rule(self.history) for rule in rules.AFTER_EVALUATION]
        return self._tell([self._dropping(), *new])

    def add(self, findings: Sequence[Finding]) -> list[Finding]:
        """Take over what was found elsewhere, as before the first update."""
        return self._tell(findings)

    def ranked(self) -> list[Finding]:
        """All findings so far, root causes first."""
        return ranked(self.findings)

    def close(self) -> None:
        """Take the hooks off the network."""
        self._watch.close()

    # ---- one update

    def _signals(
        self, loss: float, logits: Tensor, labels: Tensor, new: list[Finding | None]
    ) -> Signals | None:
        kind = kind_of(logits, labels)
        if kind == "presences" and not self._given_kind and is_one_hot(labels):
            classes = labels.argmax(-1)
            if same(loss, float(F.cross_entropy(logits.detach().float(), classes))):
                kind, labels = "classes", classes  # that were written as rows of 0 and one 1
        if kind is None:
            new.append(
                finding(
                    "labels-do-not-fit",
                    f"logits have shape {tuple(logits.shape)}, labels {tuple(labels.shape)} of "
                    f"{labels.dtype}",
                )
            )
            return None
        if not self._given_kind and self._kind != "numbers":
            self._kind = kind  # a batch of numbers may be all 0 and 1
        assert self._kind is not None
        if self._kind == "classes":
            if kind != "classes":
                return None
            counted = labels[labels != IGNORED]
            wrong = counted[(counted < 0) | (counted >= logits.shape[-1])]
            if len(wrong):
                new.append(
                    finding(
                        "labels-do-not-fit",
                        f"a label is {int(wrong[0])}, expected 0 to {logits.shape[-1] - 1}, for "
                        f"logits are {logits.shape[-1]} wide, or {IGNORED} where none counts",
                    )
                )
                return None
        self._watch.follow(logits.shape[-1] if logits.ndim > 1 else 1)
        found = signals_of(logits, labels, self._kind)
        if found is None:
            return None
        answers = self._watch.answers
        return replace(
            found, squashed_by=squashed_by(answers, logits), scale=scale_of(answers, logits)
        )

    def _contract(
        self,
        loss: float,
        logits: Tensor,
        labels: Tensor,
        mask: Tensor | None,
        new: list[Finding | None],
    ) -> None:
        """What can only be told while the tensors are here."""
        in_a_row = self.history.in_a_row
        if self._kind in ("numbers", "presences") and logits.shape != labels.shape:
            spread = broadcast_loss(logits, labels)
            if in_a_row("broadcast", same(loss, spread) and labels.numel() > 1) == _ROW:
                new.append(
                    finding(
                        "loss-broadcasts",
                        f"logits have shape {tuple(logits.shape)}, labels {tuple(labels.shape)}, "
                        f"and the loss is {loss:.4g}, the mean over all pairs of both",
                    )
                )
        if self._kind != "classes":
            return
        ids = self._watch.ids
        if in_a_row("start", ids is not None and labels_at_start(ids, labels, IGNORED)) == _ROW:
            new.append(
                finding(
                    "labels-on-special-tokens",
                    f"in {_ROW} batches all {len(labels)} rows begin with the same token, and it "
                    "has a label that counts",
                )
            )
        mask = self._watch.mask if mask is None else mask
        if mask is None or labels.shape != mask.shape:
            return
        counted = (labels != IGNORED) & (mask == 0)
        if in_a_row("padding labels", bool(counted.any())) == _ROW:
            share = float(counted.sum() / (labels != IGNORED).sum().clamp(min=1))
            new.append(
                finding(
                    "padding-has-labels",
                    f"{share:.0%} of the labels of a batch stand on padding, where the "
                    "attention_mask is 0",
                )
            )

    def _inputs(self, mask: Tensor | None) -> list[Finding | None]:
        """What the network's first table was asked for."""
        ids = self._watch.ids
        if ids is None:
            return []
        found: list[Finding | None] = []
        in_a_row = self.history.in_a_row
        mark = fingerprint(ids)
        if in_a_row("same batch", mark == self._last_batch) == 2 * _ROW:
            found.append(
                finding("one-batch-again", f"the last {2 * _ROW} updates had the same token ids")
            )
        self._last_batch = mark
        if in_a_row("alike", rows_alike(ids)) == _ROW:
            found.append(
                finding(
                    "inputs-alike",
                    f"in {_ROW} batches all {len(ids)} rows have the same token ids",
                )
            )
        assert self._watch.table is not None
        pad_id = self._watch.table.padding_idx or 0
        mask = self._watch.mask if mask is None else mask
        hidden = text_hidden(ids, mask, pad_id)
        if in_a_row("hidden", hidden > 0.01) == _ROW:
            found.append(
                finding(
                    "texts-are-hidden",
                    f"{hidden:.0%} of the tokens of a batch are no padding, and the attention_mask "
                    "is 0 there",
                )
            )
        share = padding_seen(ids, mask, pad_id)
        is_padded = in_a_row("padding seen", share > 0.01) == _ROW
        if is_padded and self._sees_padding(pad_id):
            found.append(
                finding(
                    "padding-is-seen",
                    f"{share:.0%} of the tokens of a batch are padding (id {pad_id}) at the end of "
                    "a row, and answers change with what stands there",
                )
            )
        alike = pairs_of_one_type(ids, self._watch.types, pad_id)
        if in_a_row("one type", alike) == _ROW:
            found.append(
                finding(
                    "pairs-without-types",
                    f"in {_ROW} batches all {len(ids)} rows are two texts, each with an end of its "
                    "own, and all their tokens are of one type",
                )
            )
        return found

    def _sees_padding(self, pad_id: int) -> bool:
        """Does padding change answers? A network that cannot be asked twice is not accused."""
        try:
            return self._watch.sees_padding(pad_id)
        except Exception as error:  # a training loop is worth more than a finding about it
            told = in_one_line(error)
            self._say(f"doctor: whether padding changes answers cannot be told: {told}")
            return False

    def _membership(self) -> list[Finding | None]:
        """Which parameters the optimizer holds."""
        trained = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        held = parameters_of(self.optimizer)
        if not trained or (held is not None and not any(id(p) in held for _, p in trained)):
            told = "none of the network's parameters"
            return [
                finding(
                    "nothing-is-trained",
                    "no parameter requires a gradient" if not trained else f"it holds {told}",
                )
            ]
        left = [n for n, p in trained if held is not None and id(p) not in held and _has_grad(p)]
        found: list[Finding | None] = []
        if left:
            found.append(
                finding(
                    "not-in-the-optimizer",
                    f"{len(left)} parameters get gradients and are not in the optimizer: "
                    f"{', '.join(left[:3])}",
                )
            )
        return found

    def _start(self, signals: Signals | None) -> list[Finding | None]:
        """What the network is before its first update."""
        found = [constant_weights(self.model), high_dropout(self.model)]
        of_texts = signals is not None and signals.is_about_texts
        if of_texts and not self._is_fresh_by_will:
            found.append(fresh_encoder(self.model))
        return found

    def _not_finite(self, what: str) -> Finding:
        rate = self.history.rate()
        lower = min(rate / 10, 1e-4)  # where any BERT's is a number
        return finding(
            "not-finite",
            f"{what}, first in {self._watch.first_not_finite()}; the rate was "
            f"{self.history.rates[-1]:.1e}",
            settings={"optimizer.learning_rate": f"{lower:.0e}"} if rate else {},
        )

    def _look(self) -> Finding | None:
        """Look at weights, gradients and modes."""
        look = self._probe.look(self.history.step)
        norms = [(part, norm) for part, norm in look.gradients.items() if not math.isfinite(norm)]
        if norms:
            return self._not_finite(f"the gradient of {norms[0][0]} has the norm {norms[0][1]}")
        self.history.looked(look)
        features = self._watch.features
        if features is not None and features.ndim == 2:
            self.history.cosines.append(mean_cosine(features[:256]))
        dropping = [m for m in self.model.modules() if isinstance(m, nn.Dropout) and m.p > 0]
        self.history.note_modes(
            any(module.training for module in self.model.modules()),
            len(dropping),
            sum(m.training for m in frozen_dropouts(self.model)),
        )
        return None

    def _dropping(self) -> Finding | None:
        """Was the network asked for answers, and not for gradients, in training mode?"""
        n, self._watch.n_dropping = self._watch.n_dropping, 0
        if not n:
            return None
        return finding(
            "evaluated-in-training-mode",
            f"before update {self.history.step + 1} the network was called {n:,} times without "
            "gradients, with its dropouts on",
        )

    def _pile_up(self, signals: Signals | None) -> Finding | None:
        """Is what the gradient of the head's bias grew by what one update alone would give?

        It is known exactly: the mean of probabilities less labels.
        """
        head = self._watch.head
        if signals is None or signals.bias_gradient is None or head is None:
            return None
        grad = None if head.bias is None else head.bias.grad
        if grad is None or grad.shape != signals.bias_gradient.shape:
            return None
        self._bias.append((grad.detach().float().cpu().clone(), signals.bias_gradient))
        del self._bias[:-12]
        if len(self._bias) < 12:
            return None
        grown = [
            _fit(now - before, expected) for (before, _), (now, expected) in pairwise(self._bias)
        ]
        alone = [_fit(now, expected) for now, expected in self._bias[1:]]
        if _is_steady(grown) and not _is_steady(alone):
            lengths = [float(now.norm()) for now, _ in self._bias]
            return finding(
                "gradients-pile-up",
                f"in 11 updates the gradient of the head's bias grew by what one batch gives, and "
                f"was not that itself: its norm went from {lengths[0]:.2g} to {lengths[-1]:.2g}",
            )
        return None

    def _rate(self) -> float:
        groups = getattr(self.optimizer, "param_groups", None)
        return max((float(group["lr"]) for group in groups), default=0.0) if groups else 0.0

    def _tell(self, new: Sequence[Finding | None]) -> list[Finding]:
        """Keep what is new, say it, and stop where that was asked for."""
        known = {each.name for each in self.findings}
        for each in self.findings:
            known |= set(each.entry.explains)
        told: list[Finding] = []
        for each in ranked(each for each in new if each is not None):
            if each.name not in known:
                known |= {each.name, *each.entry.explains}
                told.append(each.at(self.history.step or None))
        self.findings += told
        for each in told:
            if each.severity != "info":
                for line in each.lines():
                    self._say(line)
        grave = [each for each in told if self._stop_on and each.is_at_least(self._stop_on)]
        if grave:
            raise TrainingError(
                f"stopped by the doctor at update {self.history.step}: {grave[0].entry.title} "
                f"({grave[0].name}): {grave[0].evidence}; {grave[0].entry.remedy}"
            )
        return told


def _described(optimizer: Any) -> str:
    """Its name, and what of its settings makes its steps other than usual."""
    groups = getattr(optimizer, "param_groups", None) or [{}]
    eps = max(group.get("eps", 0.0) for group in groups)
    return type(optimizer).__name__ + (f" with eps = {eps:g}" if eps > 1e-4 else "")


def parameters_of(optimizer: Any) -> set[int] | None:
    """The ids of all parameters that an optimizer holds; None where that cannot be told."""
    groups = getattr(optimizer, "param_groups", None)
    if groups is not None:
        return {id(parameter) for group in groups for parameter in group["params"]}
    groups = getattr(optimizer, "groups", None)
    if groups is not None:
        return {id(parameter) for group in groups for parameter in group.parameters}
    return None


def frozen_dropouts(model: nn.Module) -> list[nn.Dropout]:
    """The dropouts of modules that are frozen whole."""
    found: dict[nn.Dropout, None] = {}
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            drops = (m for m in module.modules() if isinstance(m, nn.Dropout) and m.p > 0)
            found |= dict.fromkeys(drops)
    return list(found)


def _has_grad(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(gradient_values(parameter.grad).any())


def _fit(found: Tensor, expected: Tensor) -> float:
    """By which factor one is the other; NaN where no factor makes them alike."""
    square = float(expected.square().sum())
    if not square:
        return math.nan
    factor = float((found * expected).sum()) / square
    left = float((found - factor * expected).norm())
    return factor if left <= 0.05 * float(found.norm()) + 1e-8 else math.nan


def _is_steady(factors: Sequence[float]) -> bool:
    """Are they all there, positive, and about the same?"""
    if any(math.isnan(factor) or factor <= 0 for factor in factors):
        return False
    return max(factors) <= 1.1 * min(factors)


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
