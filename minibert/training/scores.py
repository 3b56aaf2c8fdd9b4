"""What the logits and targets of a batch have to be, by task, and what of them is kept.

Each `gather_…` takes logits, targets and the number of labels, refuses what does not fit, and gives
tensors whose first axis can be joined with those of other batches.  Nothing is ever broadcast.

Raises: LabelError for shapes and targets; TrainingError for scores that are NaN or infinite.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.errors import LabelError, TrainingError

# Of question answering two tensors, starts and ends, each (batch, seq).
Logits = Tensor | tuple[Tensor, Tensor]
Rows = tuple[Tensor, ...]

IGNORED = -100  # the target of what is not counted


def gather_binary(logits: Logits, targets: Tensor, n_labels: int) -> Rows:
    scores = _one_tensor(logits)
    if not (scores.ndim == 1 or (scores.ndim == 2 and scores.shape[1] in (1, 2))):
        raise LabelError(
            f"logits have shape {tuple(scores.shape)}, expected (batch,), (batch, 1) or (batch, 2)"
        )
    _check_shape(targets, scores.shape[:1])
    _check_scores(scores)
    # The log-odds of the positive class: so one logit and two give the same decisions.
    wide = scores.double()
    odds = wide[:, 1] - wide[:, 0] if scores.ndim == 2 and scores.shape[1] == 2 else wide.flatten()
    return odds, _zeros_and_ones(targets)


def gather_classes(logits: Logits, targets: Tensor, n_labels: int) -> Rows:
    scores = _one_tensor(logits)
    _check_width(scores, ("batch", "labels"), n_labels)
    _check_shape(targets, scores.shape[:1])
    _check_scores(scores)
    return scores, _class_ids(targets, n_labels)


def gather_multilabel(logits: Logits, targets: Tensor, n_labels: int) -> Rows:
    scores = _one_tensor(logits)
    _check_width(scores, ("batch", "labels"), n_labels)
    _check_shape(targets, scores.shape)
    _check_scores(scores)
    return scores.double(), _zeros_and_ones(targets)


def gather_numbers(logits: Logits, targets: Tensor, n_labels: int) -> Rows:
    scores = _one_tensor(logits)
    if not (scores.ndim == 1 or (scores.ndim == 2 and scores.shape[1] == 1)):
        raise LabelError(
            f"predictions have shape {tuple(scores.shape)}, expected (batch,) or (batch, 1)"
        )
    _check_shape(targets, scores.shape[:1])
    _check_scores(scores)
    bad = ~targets.isfinite()
    if bad.any():
        row = int(bad.nonzero()[0])
        raise LabelError(f"targets[{row}] is {targets[row].item()}, expected a finite number")
    return scores.double().flatten(), targets.double()


def gather_tokens(logits: Logits, targets: Tensor, n_labels: int) -> Rows:
    scores = _one_tensor(logits)
    _check_width(scores, ("batch", "seq", "labels"), n_labels)
    _check_shape(targets, scores.shape[:2])
    counted = targets != IGNORED
    kept = scores[counted]
    _check_scores(kept)
    rows = counted.nonzero()[:, 0]
    # A token is the first of its sequence where the row changes: so batches can be joined.
    first = torch.ones_like(rows, dtype=torch.bool)
    first[1:] = rows[1:] != rows[:-1]
    return kept.argmax(dim=-1), _class_ids(targets[counted], n_labels), first


def gather_spans(logits: Logits, targets: Tensor, n_labels: int) -> Rows:
    if isinstance(logits, Tensor) or len(logits) != 2 or logits[0].shape != logits[1].shape:
        raise LabelError("logits of spans are expected to be two tensors of one shape (batch, seq)")
    start, end = logits
    if start.ndim != 2:
        raise LabelError(f"start logits have shape {tuple(start.shape)}, expected (batch, seq)")
    _check_shape(targets, (len(start), 2))
    _check_scores(start, ruled_out=True)
    _check_scores(end, ruled_out=True)
    wanted = _class_ids(targets, start.shape[1], ignored=True)
    counted = (wanted >= 0).all(dim=1)
    wrong = counted & (wanted[:, 0] > wanted[:, 1])
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise LabelError(
            f"targets[{row}] is {targets[row].tolist()}, expected the first position not to be "
            "behind the last"
        )
    # The best start not behind each end; with it the best end: all pairs in two passes.
    best, starts = start.double().cummax(dim=1)
    ends = (best + end.double()).argmax(dim=1)
    starts = starts.gather(1, ends[:, None])[:, 0]
    found = torch.stack([starts, ends], dim=1)
    return found[counted], wanted[counted]


def gather_masked_lm(logits: Logits, targets: Tensor, n_labels: int) -> Rows:
    scores = _one_tensor(logits)
    if scores.ndim < 2:
        raise LabelError(f"logits have shape {tuple(scores.shape)}, expected (*tokens, vocab)")
    _check_shape(targets, scores.shape[:-1])
    counted = targets != IGNORED
    kept, wanted = scores[counted], _class_ids(targets[counted], scores.shape[-1])
    _check_scores(kept, ruled_out=True)
    losses = F.cross_entropy(kept.float(), wanted, reduction="none")
    return losses.cpu().double(), kept.argmax(dim=-1) == wanted


def gather_contrastive(logits: Logits, targets: Tensor, n_labels: int) -> Rows:
    scores = _one_tensor(logits)
    if scores.ndim != 2:
        raise LabelError(f"logits have shape {tuple(scores.shape)}, expected (batch, candidates)")
    _check_shape(targets, scores.shape[:1])
    _check_scores(scores, ruled_out=True)
    wanted = _class_ids(targets, scores.shape[1])
    right = scores.gather(1, wanted[:, None])
    # Every candidate that scores as much counts as before it: equal scores tell nothing.
    ranks = (scores >= right).sum(dim=1)
    return ranks, F.cross_entropy(scores.double(), wanted, reduction="none")


def _one_tensor(logits: Logits) -> Tensor:
    if not isinstance(logits, Tensor):
        raise LabelError("logits are two tensors, expected one; two are of the task spans")
    return logits


def _check_width(scores: Tensor, shape: tuple[str, ...], n_labels: int) -> None:
    if scores.ndim != len(shape) or scores.shape[-1] != n_labels:
        raise LabelError(
            f"logits have shape {tuple(scores.shape)}, expected ({', '.join(shape)}) with "
            f"{n_labels} labels"
        )


def _check_shape(targets: Tensor, expected: Sequence[int]) -> None:
    if tuple(targets.shape) != tuple(expected):
        raise LabelError(
            f"targets have shape {tuple(targets.shape)}, expected {tuple(expected)}: nothing is "
            "broadcast"
        )


def _check_scores(scores: Tensor, *, ruled_out: bool = False) -> None:
    """Refuse NaN and infinities; with `ruled_out`, -inf may rule a choice out, but never all."""
    bad = ~scores.isfinite()
    if ruled_out and scores.numel():
        bad &= (scores != -math.inf) | (scores.amax(dim=-1, keepdim=True) == -math.inf)
    if bad.any():
        place = bad.nonzero()[0].tolist()
        raise TrainingError(
            f"logits{place} is {scores[tuple(place)].item()}, expected finite numbers: training "
            "has diverged; lower learning_rate and go on from the last good checkpoint"
        )


def _class_ids(targets: Tensor, n_labels: int, *, ignored: bool = False) -> Tensor:
    if targets.is_floating_point():
        raise LabelError(f"targets are {targets.dtype}, expected integers: numbers of classes")
    found = targets.long()
    bad = (found < 0) | (found >= n_labels)
    if ignored:
        bad &= found != IGNORED
    if bad.any():
        place = bad.nonzero()[0].tolist()
        raise LabelError(
            f"targets{place} is {found[tuple(place)].item()}, expected 0 to {n_labels - 1}"
        )
    return found


def _zeros_and_ones(targets: Tensor) -> Tensor:
    bad = (targets != 0) & (targets != 1)
    if bad.any():
        place = bad.nonzero()[0].tolist()
        raise LabelError(f"targets{place} is {targets[tuple(place)].item()}, expected 0 or 1")
    return targets.long()
