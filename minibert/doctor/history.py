"""What the doctor has seen of a run so far, and what it came to over the last updates."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minibert.doctor.probe import Look, is_encoder
from minibert.doctor.signals import Signals, entropy, presence_entropy

_MOST_LOOKS = 1000
_KEPT = 200  # updates whose signals are kept; of all their losses


class Evaluated(NamedTuple):
    """One evaluation on validation examples."""

    step: int
    metrics: Mapping[str, float]
    confusion: Tensor | None  # (labels, answers)


class Modes(NamedTuple):
    """Which modules are in training mode."""

    training: bool  # any at all
    n_dropouts: int  # that are not 0
    n_frozen: int  # of these, in training mode within modules that are frozen


@dataclass(kw_only=True)
class History:
    """Of one run.

    Attributes:
        total, warmup: updates, where they are known.
        settings: what is set, by key of the run file.
        metric: the figure of an evaluation that decides, and whether more of it is better.
        pretrained: did the encoder start from weights that are worth keeping?
        optimizer: what it is called, and what is unusual of it.
    """

    total: int | None = None
    warmup: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None
    pretrained: bool = True
    optimizer: str = ""
    step: int = 0
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    signals: list[Signals] = field(default_factory=list)
    first: Signals | None = None
    looks: list[Look] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    modes: list[Modes] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    had_learnt: bool = False  # was more known than label frequencies at any time?
    counted: dict[str, int] = field(default_factory=dict)  # updates in a row that something held

    def add(self, loss: float, rate: float, signals: Signals | None) -> None:
        """Another update."""
        self.step += 1
        self.losses.append(loss)
        self.rates.append(rate)
        if signals is not None:
            self.first = self.first or signals
            self.signals.append(signals)
            del self.signals[:-_KEPT]
            n = 20
            known = len(self.last(n)) == n and self.plain_loss(n) < 0.985 * self.chance_loss(n)
            self.had_learnt = self.had_learnt or known

    def looked(self, look: Look) -> None:
        """Another look at the network; of a long run the older ones are thinned out."""
        self.looks.append(look)
        if len(self.looks) > _MOST_LOOKS:
            half = _MOST_LOOKS // 2
            self.looks[:half] = self.looks[:half:2]

    def evaluated(self, metrics: Mapping[str, float], confusion: Tensor | None) -> None:
        """Another evaluation."""
        self.evaluations.append(Evaluated(self.step, dict(metrics), confusion))

    def note_modes(self, training: bool, n_dropouts: int, n_frozen: int) -> None:
        """In which mode the network trains: of its dropouts so many are of frozen modules."""
        self.modes.append(Modes(training, n_dropouts, n_frozen))
        del self.modes[:-10]

    def in_a_row(self, what: str, holds: bool) -> int:
        """Count that something held again, from 0 where it does not."""
        self.counted[what] = self.counted.get(what, 0) + 1 if holds else 0
        return self.counted[what]

    # ---- over the last updates

    def loss(self, n: int) -> float:
        """The mean of the last losses."""
        return statistics.fmean(self.losses[-n:])

    def begins_with(self, n: int = 5) -> float:
        """The mean of the first losses."""
        return statistics.fmean(self.losses[:n])

    def with_losses(self, n: int) -> Sequence[tuple[float, Signals]]:
        """The last losses, each with the signals of its update; none where there are fewer."""
        found = self.last(n)
        if min(len(found), len(self.losses)) < n:
            return []
        return list(zip(self.losses[-n:], found, strict=True))

    def last(self, n: int) -> Sequence[Signals]:
        """The signals of the last updates that are of one kind with the very last."""
        found = self.signals[-n:]
        return [each for each in found if each.kind == found[-1].kind]

    def plain_loss(self, n: int) -> float:
        """The mean of the doctor's own losses, weighted by rows."""
        found = self.last(n)
        rows = sum(each.n_rows for each in found)
        return sum(each.plain_loss * each.n_rows for each in found) / rows

    def chance_loss(self, n: int) -> float:
        """What it would be for who knows how frequent the labels are, and no more.

        Of the same updates, so that both are as lucky.
        """
        found = self.last(n)
        if found[-1].kind == "numbers":
            means = torch.tensor([each.target_mean for each in found])
            within = statistics.fmean(each.target_spread**2 for each in found)
            return within + float(means.var(correction=0))
        counts = self.label_counts(n)
        if found[-1].kind == "classes":
            return entropy(counts)
        return presence_entropy(counts, sum(each.n_rows for each in found))

    def label_counts(self, n: int) -> Tensor:
        return torch.stack([each.labels for each in self.last(n)]).sum(0)

    def answer_counts(self, n: int) -> Tensor:
        return torch.stack([each.answers for each in self.last(n)]).sum(0)

    def right_counts(self, n: int) -> Tensor:
        return torch.stack([each.right for each in self.last(n)]).sum(0)

    def n_rows(self, n: int) -> int:
        return sum(each.n_rows for each in self.last(n))

    def spread(self, n: int) -> float:
        """By how much the answers to different inputs differ."""
        return statistics.fmean(each.spread for each in self.last(n))

    def has_learnt(self, n: int = 20, *, share: float = 0.95) -> bool:
        """Is more known than how frequent the labels are: is the loss below a share of theirs?

        Where the loss is another one than the plain one, as with weights, it may also have fallen.
        """
        if self.signals and self.plain_loss(n) < share * self.chance_loss(n):
            return True
        weighted = not self.signals or abs(self.loss(n) / max(1e-9, self.plain_loss(n)) - 1) > 0.1
        return weighted and self.loss(n) < share * self.begins_with()

    # ---- of the network

    def encoder_moves(self, n: int = 3) -> float:
        """How far the fastest layer of the encoder goes in an update, in the last looks."""
        return max(
            (value for look in self.looks[-n:] for k, value in look.moved.items() if is_encoder(k)),
            default=0.0,
        )

    def encoder_drift(self) -> tuple[str, float]:
        """The layer that is farthest from where it started, and how far."""
        drifted = self.looks[-1].drifted if self.looks else {}
        found = [(value, part) for part, value in drifted.items() if is_encoder(part)]
        value, part = max(found, default=(0.0, ""))
        return part, value

    def rate(self) -> float:
        """The highest so far."""
        return max(self.rates, default=0.0)

    def setting(self, key: str, default: Any = None) -> Any:
        return self.settings.get(key, default)

    def has_had_time(self) -> bool:
        """Were there as many updates, at rates as high, as a pretrained BERT needs to get going?

        Healthy ones have learnt something when their rates add up to 2e-3 (20 updates at 1e-4).
        """
        if not self.is_past(30) or self.is_warming_up():
            return False
        # Of plain gradient descent rates say nothing of how far a step goes.
        way = 1e-4 * self.step if self.optimizer.startswith("SGD") else sum(self.rates)
        return way >= 5e-3 or (
            self.total is not None and self.step >= 0.6 * self.total and way >= 1.5e-3
        )

    def is_warming_up(self, n: int = 10) -> bool:
        """Is the rate above that of a few updates before?"""
        return self.rates[-1] > self.rates[-n]

    def is_falling(self, n: int = 15) -> bool:
        """Is the loss of the last updates below that of as many before?"""
        return self.loss(n) < 0.98 * statistics.fmean(self.losses[-2 * n : -n])

    def is_past(self, updates: int, *, share: float = 0.0) -> bool:
        """Is the warmup over, and were there so many updates, and such a share of all?"""
        return self.step >= max(updates, self.warmup + 10, share * (self.total or 0))
