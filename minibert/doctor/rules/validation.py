"""Does what is learnt carry over to other examples?"""

import torch
from torch import Tensor

from minibert.doctor.findings import Finding, finding
from minibert.doctor.history import History

_ENOUGH = 50  # rows that a verdict needs


def still(history: History) -> Finding | None:
    """Evaluations that are the same to the last digit, though weights moved between them."""
    last = history.evaluations[-2:]
    if len(last) < 2 or last[0].step == last[1].step or not last[1].metrics:
        return None
    loss = [each.metrics.get("loss") for each in last]
    if loss[0] is None or dict(last[0].metrics) != dict(last[1].metrics):
        return None
    moved = max(
        (v for look in history.looks if look.step > last[0].step for v in look.moved.values()),
        default=0.0,
    )
    if moved < 1e-6:
        return None
    return finding(
        "evaluation-stands-still",
        f"evaluations at updates {last[0].step} and {last[1].step} both give a loss of "
        f"{loss[0]!r}, and an update moved a part by up to {moved:.1e} of its length between them",
    )


def permuted(history: History) -> Finding | None:
    """Answers that would be right under other names."""
    confusion = history.evaluations[-1].confusion
    if confusion is None or confusion.sum() < _ENOUGH or len(confusion) > 100:
        return None
    total = float(confusion.sum())
    right = float(confusion.diag().sum()) / total
    renamed, names = _best_names(confusion)
    if renamed < 0.6 or renamed < right + 0.3:
        return None
    moved = [f"{a} for {b}" for b, a in enumerate(names) if a != b]
    return finding(
        "labels-permuted",
        f"{right:.0%} of {int(total):,} validation answers are right, and {renamed:.0%} would be "
        f"under other names: {', '.join(moved[:4])}",
    )


def by_heart(history: History) -> Finding | None:
    """The loss on validation rises, and its figure falls, while training goes on getting better."""
    if history.metric is None or len(history.evaluations) < 3:
        return None
    losses = [each.metrics.get("loss") for each in history.evaluations]
    figures = [each.metrics.get(history.metric) for each in history.evaluations]
    if any(value is None for value in (*losses, *figures)):
        return None
    known, told = [float(v or 0) for v in losses], [float(v or 0) for v in figures]
    best = min(known)
    rising = known[-1] > known[-2] >= best and known[-1] > 1.25 * best
    trained = history.loss(30)
    if not rising or trained > 0.5 * known[-1]:
        return None
    falls = max(told) - told[-1]
    worse = falls > 0.01 and history.metric != "loss"
    return finding(
        "learnt-by-heart",
        f"the loss on validation rose from {best:.3g} to {known[-1]:.3g}, on training it is "
        f"{trained:.3g}; {history.metric} is {told[-1]:.4f}, was {max(told):.4f}",
        severity="warning" if worse else "info",
        settings={"training.early_stopping_patience": "1"},
    )


def chance(history: History) -> Finding | None:
    """Training examples are learnt, and others are guessed."""
    last = history.evaluations[-1]
    if not history.signals or not history.has_learnt():
        return None
    if history.plain_loss(20) > 0.85 * history.chance_loss(20):
        return None
    if last.confusion is not None and last.confusion.sum() >= _ENOUGH:
        total = float(last.confusion.sum())
        right = float(last.confusion.diag().sum()) / total
        usual = float(last.confusion.sum(1).max()) / total
        error = (usual * (1 - usual) / total) ** 0.5
        balanced = _balanced(last.confusion)
        labels = int((last.confusion.sum(1) > 0).sum())
        if right > usual + error or balanced > 1.2 / max(1, labels):
            return None
        told = f"{right:.1%} of {int(total):,} validation answers are right, {usual:.1%} have the "
        told += "most frequent label"
    elif "spearman" in last.metrics:
        found = last.metrics["spearman"]
        if abs(found) > 0.1:
            return None
        told = f"answers on validation have a rank correlation of {found:.3f} with the targets"
    else:
        return None
    return finding(
        "no-better-than-chance",
        f"{told}; the loss on training is {history.plain_loss(20):.3g}, label frequencies alone "
        f"give {history.chance_loss(20):.3g}",
    )


def perfect(history: History) -> Finding | None:
    last = history.evaluations[-1]
    if history.metric in (None, "loss") or last.metrics.get(history.metric or "", 0.0) < 0.999:
        return None
    return finding("too-good", f"{history.metric} is {last.metrics[history.metric or '']:.4f}")


def _best_names(confusion: Tensor) -> tuple[float, list[int]]:
    """The share that is right when answers are renamed, greedily, and the answer for each label."""
    left = confusion.double().clone()
    names = [-1] * len(left)
    for _ in range(len(left)):
        row, column = divmod(int(left.argmax()), left.shape[1])
        names[row] = column
        left[row, :] = left[:, column] = -1
    rows = torch.arange(len(names))
    return float(confusion[rows, torch.tensor(names)].sum() / confusion.sum()), names


def _balanced(confusion: Tensor) -> float:
    """The mean recall of labels that are there."""
    counts = confusion.sum(1)
    there = counts > 0
    return float((confusion.diag()[there] / counts[there]).double().mean())


RULES = (still, permuted, by_heart, chance, perfect)
