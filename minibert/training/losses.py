"""What a model is trained to make small: one plain function a loss, each giving a sum and a count.

The mean is `sum / count`.  A batch that is divided into micro-batches adds up its sums and its
counts and divides once, so that uneven micro-batches weigh as their examples do; the mean of their
means is another number.  (`contrastive` and `cosent` compare the examples of a batch with each
other, and say what that changes.)

All take logits or vectors, never probabilities: after a sigmoid or a softmax the logarithm has
nothing left to be exact with.  Half precision is computed in float32.  Shapes have to be equal,
nothing is broadcast; labels that do not fit are a `LabelError` that names the first of them.
Non-finite logits are not looked for here: they give a non-finite sum.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from minibert.errors import LabelError
from minibert.pooling import normalise, truncate

# The label of what is not counted: padding, word pieces that go on a word, words that are not
# masked, labels nobody knows.
IGNORED = -100


class LossSum(NamedTuple):
    """A loss before it is divided; both are scalars, of the dtype it was computed in.

    Where nothing is counted both are 0, and so are the gradients: skip the update.
    """

    sum: Tensor
    count: Tensor  # type: ignore[assignment]  # hides the method of tuples


# ---- classes: one right answer for each row of logits


def cross_entropy(
    logits: Float[Tensor, "*batch labels"],
    labels: Int[Tensor, "*batch"],
    *,
    weight: Float[Tensor, " labels"] | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = IGNORED,
) -> LossSum:
    """Σ -w_y log p_y, with p = softmax(logits) and y the label; smoothed, each row is

        (1 - ε) · -w_y log p_y  +  ε / labels · Σ_c -w_c log p_c

    The count is Σ w_y, so that the mean is that of `torch.nn.functional.cross_entropy`; without
    weights it is the number of rows whose label is not ignored.

    Args:
        labels: class numbers from 0; rows labelled `ignore_index` do not count and get a gradient
            of exactly 0, whatever their logits are.
        weight: one for each class, not negative; see `balanced_weights`.
        label_smoothing: ε from 0 to below 1.
        ignore_index: do not set it to the number of a class, or that class is never learned.

    Raises: LabelError for labels of another shape, dtype or range; ValueError for settings.
    Source: smoothing is that of Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"got label_smoothing {label_smoothing}, expected 0 to below 1, say 0.1")
    logits, labels = _counted(logits, labels, ignore_index)
    log_p = logits.log_softmax(-1)
    weights = _class_weights("weight", weight, log_p)
    loss = weights[labels] * -_of_label(log_p, labels)
    if label_smoothing:
        spread = (weights * -log_p).mean(-1)
        loss = (1 - label_smoothing) * loss + label_smoothing * spread
    return LossSum(loss.sum(), weights[labels].sum())


def focal(
    logits: Float[Tensor, "*batch labels"],
    labels: Int[Tensor, "*batch"],
    *,
    gamma: float = 2.0,
    alpha: Float[Tensor, " labels"] | None = None,
    ignore_index: int = IGNORED,
) -> LossSum:
    """Σ -α_y (1 - p_y)^γ log p_y: cross-entropy in which what is known already counts less.

    γ = 0 is `cross_entropy` with α for weights.  The count is Σ α_y, as it is there.

    Args:
        labels: class numbers from 0; rows labelled `ignore_index` do not count.
        gamma: not negative.
        alpha: one weight for each class, not negative.

    Raises: LabelError for labels of another shape, dtype or range; ValueError for settings, and
        where there are fewer than two classes.
    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, section 3, with softmax for sigmoid.
    """
    _not_negative("gamma", gamma)
    logits, labels = _counted(logits, labels, ignore_index)
    if logits.shape[-1] < 2:
        raise ValueError("got 1 class, expected 2 or more: for one logit use binary_focal")
    log_p = logits.log_softmax(-1)
    # log(1 - p_y), from the other classes: exact where p_y has been rounded to 1, so that neither
    # 0 ** (γ - 1) nor 0 · ∞ is met in the gradient.
    log_rest = log_p.scatter(-1, labels[..., None], -math.inf).logsumexp(-1)
    weights = _class_weights("alpha", alpha, log_p)
    loss = weights[labels] * -_of_label(log_p, labels) * (gamma * log_rest).exp()
    return LossSum(loss.sum(), weights[labels].sum())


def balanced_weights(
    labels: Int[Tensor, "*batch"], n_labels: int, *, ignore_index: int = IGNORED
) -> Float[Tensor, " n_labels"]:
    """Class weights by which each class counts alike: n / (classes present · n of the class).

    The weights of the labels add up to their number.  A class that is absent gets 1: it has no
    say in these labels, and is an ordinary one wherever it appears.

    Args:
        labels: those of the whole training set.

    Raises: LabelError for labels of another dtype or range.
    Source: `compute_class_weight("balanced", …)` of scikit-learn.
    """
    counted = _check_classes("labels", labels, n_labels, ignore_index)
    counts = torch.bincount(labels[counted], minlength=n_labels).double()
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts)
    return weights.where(present, 1.0).float()


def masked_lm(logits: Float[Tensor, "*tokens vocab"], labels: Int[Tensor, "*tokens"]) -> LossSum:
    """Cross-entropy of the words that were masked; the count is their number.

    Args:
        logits: over the vocabulary.  They are wide: a head that is given only the masked positions
            makes a seventh of them, and gives the same loss.
        labels: the word that stood there; -100 where none was masked.

    Raises: LabelError, as `cross_entropy`.
    Source: Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1.
    Differs: google-research/bert `get_masked_lm_output` adds 1e-5 to the count.
    """
    return cross_entropy(logits, labels)


def next_sentence(logits: Float[Tensor, "batch 2"], labels: Int[Tensor, " batch"]) -> LossSum:
    """Cross-entropy of pairs; the count is that of the pairs not ignored.

    Args:
        labels: 0 "the second text follows the first", 1 "it is a random one".

    Raises: LabelError, as `cross_entropy`.
    Source: google-research/bert `get_next_sentence_output`.
    """
    if logits.shape[-1] != 2:
        raise ValueError(
            f"got logits of shape {tuple(logits.shape)}, expected (batch, 2): use the head of "
            "BertForNextSentencePrediction"
        )
    return cross_entropy(logits, labels)


def span(
    start_logits: Float[Tensor, "batch seq"],
    end_logits: Float[Tensor, "batch seq"],
    starts: Int[Tensor, " batch"],
    ends: Int[Tensor, " batch"],
    *,
    mask: Bool[Tensor, "batch seq"] | None = None,
) -> LossSum:
    """Cross-entropy over positions, of the first and of the last token of an answer.

    Each end counts by itself: the count is that of the ends inside the sequence, and the mean that
    of both losses.  An end at or past `seq`, where a text was truncated, or on a token that is not
    attended, is not counted, nor is one of -100.

    Args:
        starts, ends: positions from 0; the end is the last token of the answer, not one past it.
        mask: the attended tokens.  Without it padding can be predicted too, and more padding
            changes the loss.

    Raises: LabelError for positions of another shape or dtype, that are negative, or that end
        before they start.
    Source: google-research/bert `run_squad.py`, which has no mask.
    """
    if end_logits.shape != start_logits.shape:
        raise ValueError(
            f"got end_logits of shape {tuple(end_logits.shape)}, expected that of start_logits, "
            f"{tuple(start_logits.shape)}"
        )
    if mask is not None and mask.shape != start_logits.shape:
        raise ValueError(
            f"got a mask of shape {tuple(mask.shape)}, expected that of the logits, "
            f"{tuple(start_logits.shape)}"
        )
    for name, positions in (("starts", starts), ("ends", ends)):
        _check_shape(name, positions, start_logits.shape[:-1])
        _check_classes(name, positions, None, IGNORED)
    backwards = (starts > ends) & (ends != IGNORED)
    if backwards.any():
        row = int(backwards.nonzero()[0])
        raise LabelError(
            f"span {int(starts[row])} to {int(ends[row])} at index {row} ends before it starts: "
            "give the last token of the answer as its end"
        )
    start = _end_of_span(start_logits, starts, mask)
    end = _end_of_span(end_logits, ends, mask)
    return LossSum(start.sum + end.sum, start.count + end.count)


def distillation(
    student_logits: Float[Tensor, "*batch labels"],
    teacher_logits: Float[Tensor, "*batch labels"],
    *,
    temperature: float = 2.0,
) -> LossSum:
    """T² · KL(teacher ‖ student), both softmaxes taken of logits / T; the count is that of rows.

    T² keeps the gradient's size when T changes.  No gradient goes to the teacher.  To leave rows
    out, index both: `student_logits[counted], teacher_logits[counted]`.

    Raises: LabelError for logits of different shapes; ValueError for a temperature not above 0.
    Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2.
    """
    _positive("temperature", temperature)
    _check_shape("teacher_logits", teacher_logits, student_logits.shape)
    student = _wide("student_logits", student_logits)
    teacher = teacher_logits.detach().to(student.dtype)
    log_p = (teacher / temperature).log_softmax(-1)
    log_q = (student / temperature).log_softmax(-1)
    return _summed(temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1))


# ---- yes or no: one logit for each answer, on its own


def binary_cross_entropy(
    logits: Float[Tensor, "*batch"],
    targets: Real[Tensor, "*batch"],
    *,
    pos_weight: float | Float[Tensor, "..."] | None = None,
) -> LossSum:
    """Σ -(w t log σ(x) + (1 - t) log σ(-x)), over logits x and targets t.

    The count is that of targets not ignored, labels and not rows where there are several to a row,
    so that the mean is that of `torch.nn.functional.binary_cross_entropy_with_logits`.

    Args:
        logits: `(batch,)` of one answer, `(batch, labels)` of several.
        targets: from 0 "no" to 1 "yes"; -100 where nobody knows, which is not counted.
        pos_weight: what a "yes" weighs against a "no", not negative: a number, or one for each
            label.  Above 1 it raises recall: for rare labels (n of "no") / (n of "yes").

    Raises: LabelError for targets of another shape or range; ValueError for settings.
    """
    x, t, counted = _answers(logits, targets)
    w = _by_label("pos_weight", pos_weight, logits)[counted]
    return _summed(w * t * -F.logsigmoid(x) + (1 - t) * -F.logsigmoid(-x))


def binary_focal(
    logits: Float[Tensor, "*batch"],
    targets: Real[Tensor, "*batch"],
    *,
    gamma: float = 2.0,
    alpha: float | Float[Tensor, "..."] | None = None,
) -> LossSum:
    """Σ -(α t σ(-x)^γ log σ(x) + (1 - α) (1 - t) σ(x)^γ log σ(-x)), over logits x and targets t.

    `binary_cross_entropy` in which what is known already counts less; the same for γ = 0 without
    α.  The count is that of targets not ignored.

    Args:
        targets: from 0 "no" to 1 "yes"; -100 where nobody knows, which is not counted.
        gamma: not negative.
        alpha: the share of "yes", 0 to 1, a number or one for each label; "no" has the rest.
            Without it both weigh 1.  The paper's 0.25 goes with its γ of 2.

    Raises: LabelError for targets of another shape or range; ValueError for settings.
    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, section 3.
    """
    _not_negative("gamma", gamma)
    x, t, counted = _answers(logits, targets)
    yes = _by_label("alpha", alpha, logits)[counted]
    if (yes > 1).any():
        raise ValueError(f"got alpha {yes.max().item()}, expected 0 to 1: the share of the yeses")
    no = torch.ones_like(yes) if alpha is None else 1 - yes
    log_yes, log_no = F.logsigmoid(x), F.logsigmoid(-x)
    # Powers by way of the logarithm: their gradient is finite where σ is 0, for γ below 1 too.
    of_yes = yes * t * -log_yes * (gamma * log_no).exp()
    of_no = no * (1 - t) * -log_no * (gamma * log_yes).exp()
    return _summed(of_yes + of_no)


# ---- numbers


def mse(predictions: Float[Tensor, "*batch"], targets: Real[Tensor, "*batch"]) -> LossSum:
    """Σ (prediction - target)²; the count is that of targets.

    Raises: LabelError for targets of another shape, or that are not finite.
    """
    return _summed(_errors(predictions, targets).square())


def l1(predictions: Float[Tensor, "*batch"], targets: Real[Tensor, "*batch"]) -> LossSum:
    """Σ |prediction - target|, which far outliers sway less; the count is that of targets.

    Raises: LabelError for targets of another shape, or that are not finite.
    """
    return _summed(_errors(predictions, targets).abs())


def huber(
    predictions: Float[Tensor, "*batch"], targets: Real[Tensor, "*batch"], *, delta: float = 1.0
) -> LossSum:
    """Σ e² / 2 for errors e up to `delta`, δ (|e| - δ/2) beyond: `mse` near, `l1` far.

    The count is that of targets.

    Raises: LabelError for targets of another shape, or that are not finite; ValueError for a delta
        not above 0.
    """
    _positive("delta", delta)
    errors = _errors(predictions, targets).abs()
    near = errors.clamp(max=delta)
    return _summed(near * (errors - near / 2))


# ---- vectors: what stands close to what


def contrastive(
    anchors: Float[Tensor, "batch width"],
    positives: Float[Tensor, "batch width"],
    negatives: Float[Tensor, "extra width"] | None = None,
    *,
    temperature: float = 0.05,
    symmetric: bool = False,
    same: Bool[Tensor, "batch candidates"] | None = None,
) -> LossSum:
    """Each anchor finds its own positive among all candidates: cross-entropy of cosines / T.

    Candidates are the positives of the whole batch, then the negatives.  The count is that of
    anchors.  As the negatives are those of the batch, sums over micro-batches do not add up to the
    full batch's: smaller ones have fewer negatives, and an easier task.

    Args:
        anchors, positives: row i of one belongs to row i of the other.  Any length: they are
            normalised here.
        negatives: hard negatives, any number of them, for all anchors alike.
        temperature: 1 / the "scale" of sentence-transformers.
        symmetric: the mean of this and of each positive finding its anchor (without `negatives`).
        same: true where candidate j is right for anchor i too, say because two texts of the batch
            are equal: it is no negative then.  The pairs themselves need not be marked.

    Raises: ValueError for shapes or a temperature that do not fit.
    Source: Henderson et al. 2017, https://arxiv.org/abs/1705.00652, section 4 (multiple negatives
        ranking); `MultipleNegativesRankingLoss` and `…SymmetricRankingLoss` of
        sentence-transformers, which have no `same`.
    """
    _positive("temperature", temperature)
    anchors, positives = _vectors(("anchors", "positives"), (anchors, positives))
    batch, width = anchors.shape
    candidates = positives
    if negatives is not None:
        hard = _wide("negatives", negatives).to(anchors.dtype)
        if hard.ndim != 2 or hard.shape[1] != width:
            raise ValueError(
                f"got negatives of shape {tuple(hard.shape)}, expected (any number, {width})"
            )
        candidates = torch.cat([positives, hard])
    with torch.autocast(anchors.device.type, enabled=False):  # it would round to half precision
        scores = normalise(anchors) @ normalise(candidates).T / temperature  # (batch, candidates)
    if same is not None:
        if same.shape != scores.shape:
            raise ValueError(
                f"got same of shape {tuple(same.shape)}, expected (anchors, candidates), "
                f"{tuple(scores.shape)}: candidates are the positives, then the negatives"
            )
        own = torch.eye(batch, len(candidates), dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(same & ~own, -math.inf)
    own_row = torch.arange(batch, device=scores.device)
    forward = cross_entropy(scores, own_row)
    if not symmetric:
        return forward
    backward = cross_entropy(scores[:, :batch].T, own_row)
    return LossSum((forward.sum + backward.sum) / 2, forward.count)


def cosine_similarity(
    a: Float[Tensor, "batch width"],
    b: Float[Tensor, "batch width"],
    scores: Real[Tensor, " batch"],
) -> LossSum:
    """Σ (cos(a, b) - score)²; the count is that of pairs.

    Args:
        scores: how alike each pair is, -1 to 1.

    Raises: LabelError for scores of another shape or range; ValueError for shapes.
    Source: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084, section 3;
        `CosineSimilarityLoss` of sentence-transformers.
    """
    a, b = _vectors(("a", "b"), (a, b))
    errors = _errors(_cosine(a, b), scores, "scores")
    outside = scores.abs() > 1
    if outside.any():
        index = _first(outside)
        raise LabelError(
            f"score {scores[outside][0].item():g} at index {index}, expected -1 to 1, as a cosine "
            "is: divide the scores by the largest there can be"
        )
    return _summed(errors.square())


def cosent(
    a: Float[Tensor, "batch width"],
    b: Float[Tensor, "batch width"],
    scores: Real[Tensor, " batch"],
    *,
    scale: float = 20.0,
) -> LossSum:
    """log(1 + Σ exp(scale · (cos_i - cos_j))) over all i, j with score_i < score_j.

    Only the order of the scores matters, so their scale is free.  The loss is one number for the
    batch; it is given times the pairs of the batch, with these for the count, so that a
    micro-batch weighs as its pairs do.  Pairs of different micro-batches are not compared: sums
    over these do not add up to the full batch's.

    Raises: LabelError for scores of another shape, or that are not finite; ValueError for shapes
        or a scale not above 0.
    Source: Su 2022, https://kexue.fm/archives/8847; `CoSENTLoss` of sentence-transformers.
    """
    _positive("scale", scale)
    a, b = _vectors(("a", "b"), (a, b))
    cosines = scale * _cosine(a, b)
    _errors(cosines, scores, "scores")
    in_order = scores[:, None] < scores[None, :]
    gaps = (cosines[:, None] - cosines[None, :])[in_order]
    loss = torch.cat([gaps.new_zeros(1), gaps]).logsumexp(0)  # the 0 is the 1 within the logarithm
    return LossSum(len(cosines) * loss, loss.new_full((), len(cosines)))


def triplet(
    anchors: Float[Tensor, "batch width"],
    positives: Float[Tensor, "batch width"],
    negatives: Float[Tensor, "batch width"],
    *,
    margin: float,
    distance: str = "euclidean",
) -> LossSum:
    """Σ max(0, d(anchor, positive) - d(anchor, negative) + margin); the count is that of triplets.

    Args:
        margin: how much farther the negative has to be; 5 is usual for euclidean distances of
            vectors that are not normalised, cosine distances are 0 to 2.
        distance: a name of `DISTANCES`.

    Raises: ValueError for shapes, an unknown distance or a negative margin.
    Source: Schroff et al. 2015, https://arxiv.org/abs/1503.03832, section 3.1 (with squares);
        `TripletLoss` of sentence-transformers.
    """
    _not_negative("margin", margin)
    if distance not in DISTANCES:
        raise ValueError(f"got distance {distance!r}, expected one of {list(DISTANCES)}")
    names = ("anchors", "positives", "negatives")
    anchors, positives, negatives = _vectors(names, (anchors, positives, negatives))
    far = DISTANCES[distance]
    return _summed((far(anchors, positives) - far(anchors, negatives) + margin).clamp(min=0))


def matryoshka(
    loss: Callable[..., LossSum],
    vectors: Sequence[Float[Tensor, "_ width"]],
    *,
    dims: Sequence[int],
    weights: Sequence[float] | None = None,
) -> LossSum:
    """Σ_d weight_d · the loss of the vectors' first d components, which are normalised again.

    A model trained so can be truncated to any of `dims`.  The count is that of the loss itself.

        matryoshka(partial(contrastive, temperature=0.02), (anchors, positives), dims=(384, 64))

    Args:
        loss: a function of vectors alone; `functools.partial` holds its scores and settings.
        vectors: what it is called with.
        weights: one for each of `dims`, not negative; 1 when not given.

    Raises: ValueError for dims that the vectors do not have, or weights that do not fit; what
        `loss` raises.
    Source: Kusupati et al. 2022, https://arxiv.org/abs/2205.13147, section 3; `MatryoshkaLoss` of
        sentence-transformers.
    """
    factors = [1.0] * len(dims) if weights is None else list(weights)
    if not dims or len(factors) != len(dims):
        raise ValueError(f"got {len(factors)} weights, expected one for each of dims {dims}")
    for factor in factors:
        _not_negative("weights", factor)
    wide = [_wide("vectors", each) for each in vectors]
    parts = [loss(*[normalise(truncate(each, dim)) for each in wide]) for dim in dims]
    sums = [factor * part.sum for factor, part in zip(factors, parts, strict=True)]
    return LossSum(torch.stack(sums).sum(), parts[0].count)


def _euclidean(
    a: Float[Tensor, "batch width"], b: Float[Tensor, "batch width"]
) -> Float[Tensor, " batch"]:
    return torch.linalg.vector_norm(a - b, dim=-1)  # its gradient is 0 where a = b


def _manhattan(
    a: Float[Tensor, "batch width"], b: Float[Tensor, "batch width"]
) -> Float[Tensor, " batch"]:
    return (a - b).abs().sum(-1)


def _cosine(
    a: Float[Tensor, "batch width"], b: Float[Tensor, "batch width"]
) -> Float[Tensor, " batch"]:
    return (normalise(a) * normalise(b)).sum(-1)


def _cosine_distance(
    a: Float[Tensor, "batch width"], b: Float[Tensor, "batch width"]
) -> Float[Tensor, " batch"]:
    return 1 - _cosine(a, b)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "euclidean": _euclidean,
    "manhattan": _manhattan,
    "cosine": _cosine_distance,
}


# ---- what the losses share


def _summed(losses: Float[Tensor, "*counted"]) -> LossSum:
    return LossSum(losses.sum(), losses.new_full((), losses.numel()))


def _of_label(
    log_p: Float[Tensor, "*counted labels"], labels: Int[Tensor, "*counted"]
) -> Float[Tensor, "*counted"]:
    return log_p.gather(-1, labels[..., None]).squeeze(-1)


def _counted(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The rows that count, in float32 or wider, and their labels; all checked."""
    _check_shape("labels", labels, logits.shape[:-1])
    counted = _check_classes("labels", labels, logits.shape[-1], ignore_index)
    if not counted.all():  # else not copied: over a vocabulary logits are the largest tensor
        logits, labels = logits[counted], labels[counted]
    return _wide("logits", logits), labels.long()


def _answers(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The logits of yes-or-no questions that count, their targets, and which these are."""
    _check_shape("targets", targets, logits.shape)
    x = _wide("logits", logits)
    t = targets.to(x.dtype)
    counted = t != IGNORED
    wrong = counted & ~((t >= 0) & (t <= 1))  # NaN is neither
    if wrong.any():
        raise LabelError(
            f"targets hold {t[wrong][0].item():g} at index {_first(wrong)}, expected 0 to 1, or "
            f"{IGNORED} where it is not known: for class numbers use cross_entropy"
        )
    return x[counted], t[counted], counted


def _end_of_span(logits: Tensor, positions: Tensor, mask: Tensor | None) -> LossSum:
    seq, positions = logits.shape[-1], positions.long()
    inside = (positions >= 0) & (positions < seq)
    if mask is not None:
        attended = mask.gather(-1, positions.clamp(0, seq - 1)[:, None]).squeeze(-1)
        inside &= attended
        logits = logits.masked_fill(~mask, -math.inf)
    return cross_entropy(logits, positions.where(inside, IGNORED))


def _errors(predictions: Tensor, targets: Tensor, name: str = "targets") -> Tensor:
    _check_shape(name, targets, predictions.shape)
    predictions = _wide("predictions", predictions)
    targets = targets.to(predictions.dtype)
    finite = targets.isfinite()
    if not finite.all():
        raise LabelError(
            f"{name} hold {targets[~finite][0].item()} at index {_first(~finite)}, expected finite "
            "numbers: leave the row out, or give it its number"
        )
    return predictions - targets


def _vectors(names: Sequence[str], vectors: Sequence[Tensor]) -> list[Tensor]:
    """All of one shape, `(batch, width)`, and one dtype, float32 or wider."""
    wide = [_wide(name, each) for name, each in zip(names, vectors, strict=True)]
    for name, each in zip(names, wide, strict=True):
        if each.ndim != 2 or each.shape != wide[0].shape:
            raise ValueError(
                f"got {name} of shape {tuple(each.shape)}, expected (batch, width), the same for "
                f"{' and '.join(names)}; {names[0]} have {tuple(wide[0].shape)}"
            )
    return [each.to(wide[0].dtype) for each in wide]


def _wide(name: str, values: Tensor) -> Tensor:
    if not isinstance(values, Tensor) or not values.is_floating_point():
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"got {name} of type {got}, expected a tensor of floating point numbers")
    return values if values.dtype == torch.float64 else values.float()


def _class_weights(
    name: str, weights: Tensor | None, log_p: Float[Tensor, "*counted labels"]
) -> Float[Tensor, " labels"]:
    if weights is None:
        return log_p.new_ones(log_p.shape[-1])
    weights = _wide(name, weights)
    if weights.shape != log_p.shape[-1:]:
        raise ValueError(
            f"got {name} of shape {tuple(weights.shape)}, expected ({log_p.shape[-1]},), one for "
            "each class"
        )
    return _checked_weights(name, weights.to(log_p))


def _by_label(name: str, weights: float | Tensor | None, logits: Tensor) -> Tensor:
    """Weights in the shape of the logits, from one number, or one for each label."""
    like = _wide("logits", logits)
    weights = 1.0 if weights is None else weights
    given = torch.as_tensor(weights, dtype=like.dtype, device=like.device)
    if given.ndim and (like.ndim < 2 or given.shape != like.shape[-1:]):
        raise ValueError(
            f"got {name} of shape {tuple(given.shape)}, expected a number, or one for each label "
            f"of logits {tuple(like.shape)}"
        )
    return _checked_weights(name, given).expand_as(like)


def _checked_weights(name: str, weights: Tensor) -> Tensor:
    fit = weights.isfinite() & (weights >= 0)
    if not fit.all():
        raise ValueError(
            f"got {name} {weights[~fit][0].item()}, expected finite numbers that are not negative"
        )
    return weights


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"got {name} {value}, expected a finite number above 0")


def _not_negative(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"got {name} {value}, expected a finite number, 0 or above")


def _check_shape(name: str, labels: Tensor, shape: torch.Size) -> None:
    if not isinstance(labels, Tensor):
        raise TypeError(f"got {name} of type {type(labels).__name__}, expected a tensor")
    if labels.shape != shape:
        raise LabelError(
            f"{name} have shape {tuple(labels.shape)}, expected {tuple(shape)} for what the model "
            "gives: nothing is broadcast; reshape the labels, or mend num_labels"
        )


def _check_classes(
    name: str, labels: Tensor, n_labels: int | None, ignore_index: int
) -> Bool[Tensor, "*batch"]:
    """Which labels count; `n_labels` is None where there is no upper bound."""
    if labels.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8):
        raise LabelError(
            f"{name} have dtype {labels.dtype}, expected class numbers of dtype torch.int64: for "
            "one-hot rows take argmax(-1), for several labels a row binary_cross_entropy"
        )
    labels = labels.long()  # 8 bits hold no number of a class past 127
    counted = labels != ignore_index
    wrong = counted & (labels < 0)
    if n_labels is not None:
        wrong |= counted & (labels >= n_labels)
    if wrong.any():
        highest = "the last" if n_labels is None else n_labels - 1
        raise LabelError(
            f"{name} hold {int(labels[wrong][0])} at index {_first(wrong)}, expected 0 to {highest}"
            f", or {ignore_index} for what is not counted: mend the label, or num_labels"
        )
    return counted


def _first(wrong: Bool[Tensor, "*batch"]) -> str:
    index = wrong.nonzero()[0].tolist()
    return str(index[0] if len(index) == 1 else tuple(index))
