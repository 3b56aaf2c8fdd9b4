"""Figures of an evaluation: gathered batch by batch, computed once, never misleading in silence.

    metrics = metrics_of("multiclass", ["neg", "pos", "neutral"])
    for batch in batches:
        metrics.update(logits, targets)
    report = metrics.report()      # figures, figures of each class, confusion matrix
    report.figures[metrics.main]   # what the best checkpoint is chosen by

Figures are computed over the whole evaluation at once, so the size of the batches does not matter.
A figure that the targets leave undefined is NaN, and `Report.undefined` says why.  Classification
and correlation are computed by torchmetrics (extra `train`), imported when first needed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from minibert.columns import aligned
from minibert.errors import LabelError, TrainingError
from minibert.prediction.decisions import decide
from minibert.training.scores import (
    Logits,
    Rows,
    gather_binary,
    gather_classes,
    gather_contrastive,
    gather_masked_lm,
    gather_multilabel,
    gather_numbers,
    gather_spans,
    gather_tokens,
)
from minibert.training.spans import Scheme, scheme_of, span_scores

Task = Literal[
    "binary", "multiclass", "multilabel", "regression", "similarity", "tokens", "spans",
    "masked_lm", "contrastive",
]  # fmt: skip
LOWER_IS_BETTER = frozenset({"loss", "perplexity", "rmse", "mae"})

_AVERAGES = (
    "macro_precision", "macro_recall", "macro_f1", "micro_precision", "micro_recall", "micro_f1",
)  # fmt: skip
_ONE_OF = ("accuracy", *_AVERAGES, "mcc")
_BY_TAG = ("accuracy", "macro_f1")


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class, label, tag or type of entity.

    NaN throughout where it occurs neither in targets nor in predictions; a precision without
    predictions, or a recall without targets, is 0.  `roc_auc` and `pr_auc` are NaN where every
    target or none is of the class, and where there are no scores (entities, tags).
    """

    precision: float
    recall: float
    f1: float
    n_target: int
    n_predicted: int
    roc_auc: float = math.nan
    pr_auc: float = math.nan


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found.

    `undefined` has the reason of each figure that is NaN.  `confusion[i][j]` counts the examples
    (of `tokens` the tokens) of class i that were taken for j, in the order of `labels`; None for
    tasks without classes, and of several labels, which do not exclude each other.
    """

    figures: dict[str, float]
    n_examples: int
    undefined: dict[str, str] = field(default_factory=dict)
    per_class: dict[str, ClassFigures] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    confusion: list[list[int]] | None = None

    def table(self) -> str:
        """Lines for the terminal: the figures, the classes, the confusion matrix."""
        lines = [
            f"{name:<16} {value:.4f}" + (f"  ({why})" if (why := self.undefined.get(name)) else "")
            for name, value in self.figures.items()
        ]
        if self.per_class:
            rows = [("", "precision", "recall", "f1", "targets", "predicted")] + [
                (
                    name, f"{row.precision:.4f}", f"{row.recall:.4f}", f"{row.f1:.4f}",
                    str(row.n_target), str(row.n_predicted),
                )
                for name, row in self.per_class.items()
            ]  # fmt: skip
            lines += ["", *aligned(rows, left=(0,))]
        if self.confusion is not None:
            head = ("target \\ predicted", *self.labels)
            body = [
                (name, *map(str, row))
                for name, row in zip(self.labels, self.confusion, strict=True)
            ]
            lines += ["", *aligned([head, *body], left=(0,))]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A task: what of a batch is kept, and what is computed of all that was kept."""

    main: str
    names: tuple[str, ...]
    gather: Callable[[Logits, Tensor, int], Rows]
    judge: Callable[[Rows, "Metrics"], Report]
    needs_torchmetrics: bool = True


class Metrics:
    """Gathers the batches of one evaluation; made by `metrics_of`.

    `main` names the figure that the best checkpoint is chosen by, `names` all figures that
    `compute` gives, known before the first batch.
    """

    def __init__(
        self,
        task: Task,
        labels: tuple[str, ...],
        thresholds: tuple[float, ...],
        scheme: Scheme | None,
        kind: _Kind,
    ) -> None:
        self.task = task
        self.labels = labels
        self.thresholds = thresholds
        self.scheme = scheme
        self.main = kind.main
        self.names = kind.names
        self._kind = kind
        self._batches: list[Rows] = []

    @property
    def higher_is_better(self) -> bool:
        """Of the main figure."""
        return self.main not in LOWER_IS_BETTER

    def update(self, logits: Logits, targets: Tensor) -> None:
        """Add a batch; tensors of any device and floating dtype, batches of any size.

        Shapes, where `-100` is a target that does not count:
        binary `(batch,)`, `(batch, 1)` or `(batch, 2)` against 0 or 1 `(batch,)`;
        multiclass `(batch, labels)` against classes `(batch,)`;
        multilabel `(batch, labels)` against 0 or 1 `(batch, labels)`;
        regression and similarity `(batch,)` or `(batch, 1)` against numbers `(batch,)`;
        tokens `(batch, seq, labels)` against classes or -100 `(batch, seq)`;
        spans starts and ends, each `(batch, seq)`, against first and last position `(batch, 2)`;
        masked_lm `(*tokens, vocab)` against ids or -100 `(*tokens)`;
        contrastive `(batch, candidates)` against the right candidate's number `(batch,)`.

        Raises: LabelError for targets that do not fit; TrainingError for scores that are NaN.
        """
        if self.task != "masked_lm":  # whose logits are as wide as the vocabulary
            # Not every device has float64.
            targets = targets.cpu()
            logits = (
                logits.cpu() if isinstance(logits, Tensor) else (logits[0].cpu(), logits[1].cpu())
            )
        with torch.no_grad():
            rows = self._kind.gather(logits, targets, len(self.labels))
        self._batches.append(tuple(row.detach().cpu() for row in rows))

    def update_spans(
        self, found: Sequence[tuple[int, int]], wanted: Sequence[tuple[int, int]]
    ) -> None:
        """Add answers that were chosen already: first and last token of each, and of the right one.

        (-1, -1) stands for "no answer"; any other negative pair is never found.

        Raises: TrainingError for another task than spans; LabelError for another number of right
        answers.
        """
        if self.task != "spans":
            raise TrainingError(f"task is {self.task!r}, expected 'spans' for spans; use update")
        if len(found) != len(wanted):
            raise LabelError(
                f"got {len(wanted)} right answers, expected {len(found)}, one for each"
            )
        pairs = [torch.tensor(each, dtype=torch.long).view(-1, 2) for each in (found, wanted)]
        self._batches.append((pairs[0], pairs[1]))

    def update_words(self, losses: Tensor, right: Tensor) -> None:
        """Add masked words that were judged already: of each its loss, and whether it was told.

        Raises: TrainingError for another task than masked_lm, and for a loss that is no number.
        """
        if self.task != "masked_lm":
            raise TrainingError(
                f"task is {self.task!r}, expected 'masked_lm' for words; use update"
            )
        bad = ~losses.isfinite()
        if bad.any():
            raise TrainingError(
                f"the loss of a masked word is {losses[bad][0].item()}, expected finite numbers: "
                "training has diverged; lower learning_rate and go on from the last good checkpoint"
            )
        self._batches.append((losses.detach().cpu().double(), right.cpu()))

    def compute(self) -> dict[str, float]:
        """Return the figures, by the names in `names`.

        Raises: TrainingError where no batch had an example that counts.
        """
        return self.report().figures

    def report(self) -> Report:
        """Return the figures, those of each class, the confusion matrix; or raise as `compute`."""
        columns = tuple(torch.cat(column) for column in zip(*self._batches, strict=True))
        if not columns or not len(columns[0]):
            raise TrainingError(
                f"{self.task} was evaluated on 0 examples, expected one at least: is the data set "
                "empty, or every target -100?"
            )
        with torch.no_grad():
            return self._kind.judge(columns, self)

    def reset(self) -> None:
        """Forget all batches, for the next evaluation."""
        self._batches.clear()


def metrics_of(
    task: Task,
    labels: Sequence[str] = (),
    *,
    thresholds: float | Sequence[float] = 0.5,
) -> Metrics:
    """Make what gathers the figures of a task.

    `labels` names the classes, in the order of the logits; of `binary` both or the positive one;
    of `tokens` the tags: with a scheme (`B-PER` …) the main figure is the F1 of the entities,
    else the macro-F1 of the tags.  Tasks without classes have none.  `thresholds` are
    probabilities above which a label is given, of `multilabel` one or as many as labels, of
    `binary` one.

    Raises: LabelError for labels that do not fit the task; TrainingError for a task or a threshold
    that does not exist, and where torchmetrics is not installed.
    """
    if task not in get_args(Task):
        raise TrainingError(f"task is {task!r}, expected one of {', '.join(get_args(Task))}")
    names = _checked_labels(task, tuple(labels))
    scheme = scheme_of(names) if task == "tokens" else None
    kind = _KINDS["tags" if task == "tokens" and scheme is None else task]
    if kind.needs_torchmetrics:
        _need_torchmetrics()
    return Metrics(task, names, _checked_thresholds(task, names, thresholds), scheme, kind)


def is_better(name: str, new: float, old: float) -> bool:
    """Is the figure `name` better than it was?  NaN is better than nothing, and anything than NaN.

    >>> is_better("perplexity", 9.0, 10.0), is_better("macro_f1", 0.5, 0.5)
    (True, False)
    """
    if math.isnan(new) or math.isnan(old):
        return not math.isnan(new)
    return new < old if name in LOWER_IS_BETTER else new > old


def classification() -> Any:
    """The module `torchmetrics.functional.classification`.

    Raises: TrainingError where torchmetrics is not installed.
    """
    _need_torchmetrics()
    # Here, for it takes seconds: it imports matplotlib and scipy.
    from torchmetrics.functional import classification

    return classification


def _need_torchmetrics() -> None:
    if find_spec("torchmetrics") is None:
        raise TrainingError(
            "torchmetrics is not installed, expected it for the figures of an evaluation: pip "
            "install 'minibert[train]'"
        )


# --- what is checked before the first batch


def _checked_labels(task: Task, labels: tuple[str, ...]) -> tuple[str, ...]:
    least, most = {
        "binary": (1, 2), "multiclass": (2, None), "multilabel": (1, None), "tokens": (2, None),
    }.get(task, (0, 0))  # fmt: skip
    if len(labels) < least or (most is not None and len(labels) > most):
        expected = (
            f"{least} or more"
            if most is None
            else " or ".join(str(count) for count in sorted({least, most}))
        )
        raise LabelError(f"{task} has {len(labels)} labels, expected {expected}")
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise LabelError(f"label {min(twice)!r} stands twice in labels, expected each once")
    if task == "binary" and len(labels) == 1:
        return (f"not {labels[0]}", labels[0])
    return labels


def _checked_thresholds(
    task: Task, labels: tuple[str, ...], thresholds: float | Sequence[float]
) -> tuple[float, ...]:
    count = {"binary": 1, "multilabel": len(labels)}.get(task, 0)
    if isinstance(thresholds, (int, float)):
        if not count and thresholds != 0.5:
            raise TrainingError(
                f"{task} decides without thresholds, got {thresholds}; leave it out"
            )
        values = (float(thresholds),) * count
    else:
        values = tuple(float(value) for value in thresholds)
    if len(values) != count:
        raise TrainingError(f"thresholds has {len(values)} numbers, expected {count} for {task}")
    for place, value in enumerate(values):
        if not 0 <= value <= 1:
            raise TrainingError(f"thresholds[{place}] is {value}, expected a probability, 0 to 1")
    return values


# --- what is computed of everything that was kept, by task


def _judge_binary(rows: Rows, metrics: Metrics) -> Report:
    odds, targets = rows
    predicted = decide(odds, torch.tensor(metrics.thresholds[0], dtype=torch.float64)).long()
    figures, undefined, per_class, confusion = _judge_ids(predicted, targets, metrics.labels)
    roc, pr = _areas(odds, targets)
    # The other class's areas are those of the scores turned round.
    other = _areas(-odds, 1 - targets)
    negative, positive = metrics.labels
    for name, areas in ((negative, other), (positive, (roc, pr))):
        per_class[name] = _with_areas(per_class[name], areas)
    figures |= {"roc_auc": roc, "pr_auc": pr}
    if math.isnan(roc):
        why = _one_kind(targets, metrics.labels)
        undefined |= {"roc_auc": why, "pr_auc": why}
    ours = per_class[positive]
    figures |= {"precision": ours.precision, "recall": ours.recall, "f1": ours.f1}
    if math.isnan(ours.f1):
        why = f"{positive!r} occurs neither in targets nor in predictions"
        undefined |= dict.fromkeys(("precision", "recall", "f1"), why)
    return Report(figures, len(targets), undefined, per_class, metrics.labels, confusion)


def _judge_classes(rows: Rows, metrics: Metrics) -> Report:
    scores, targets = rows
    figures, undefined, per_class, confusion = _judge_ids(
        scores.argmax(dim=1), targets, metrics.labels
    )
    probabilities = scores.double().softmax(dim=1)
    for index, name in enumerate(metrics.labels):
        areas = _areas(probabilities[:, index], (targets == index).long())
        per_class[name] = _with_areas(per_class[name], areas)
    _average_areas(figures, undefined, per_class, _one_kind(targets, metrics.labels))
    return Report(figures, len(targets), undefined, per_class, metrics.labels, confusion)


def _judge_multilabel(rows: Rows, metrics: Metrics) -> Report:
    scores, targets = rows
    tm = classification()
    predicted = decide(scores, torch.tensor(metrics.thresholds, dtype=torch.float64)).long()
    settings: dict[str, Any] = {"num_labels": len(metrics.labels), "validate_args": False}
    judges = (tm.multilabel_precision, tm.multilabel_recall, tm.multilabel_f1_score)
    # A label alone gives a number, several a list of them.
    by_label = [
        judge(predicted, targets, average="none", **settings).view(-1).tolist() for judge in judges
    ]
    micro = [judge(predicted, targets, average="micro", **settings).item() for judge in judges]
    per_class = _classes(
        metrics.labels, by_label, targets.sum(dim=0).tolist(), predicted.sum(dim=0).tolist()
    )
    for index, name in enumerate(metrics.labels):
        areas = _areas(scores[:, index], targets[:, index])
        per_class[name] = _with_areas(per_class[name], areas)
    right = predicted == targets
    figures = {
        "subset_accuracy": right.all(dim=1).double().mean().item(),
        "label_accuracy": right.double().mean().item(),
    }
    undefined: dict[str, str] = {}
    _average(figures, undefined, per_class, micro)
    _average_areas(figures, undefined, per_class, "no label has both kinds of targets")
    return Report(figures, len(targets), undefined, per_class, metrics.labels)


def _judge_numbers(rows: Rows, metrics: Metrics) -> Report:
    predicted, targets = rows
    errors = predicted - targets
    figures = {"pearson": math.nan, "spearman": math.nan}
    undefined: dict[str, str] = {}
    constant = [
        name
        for name, values in (("prediction", predicted), ("target", targets))
        if values.min() == values.max()
    ]
    if len(targets) < 2:
        undefined = dict.fromkeys(figures, "one example has no correlation")
    elif constant:
        value = (predicted if constant[0] == "prediction" else targets)[0].item()
        undefined = dict.fromkeys(figures, f"every {constant[0]} is {value:.6g}")
    else:
        figures = {
            "pearson": _correlation(predicted, targets),
            "spearman": _correlation(_ranks(predicted), _ranks(targets)),
        }
    if metrics.task == "regression":
        figures["rmse"] = errors.square().mean().sqrt().item()
        figures["mae"] = errors.abs().mean().item()
    return Report(figures, len(targets), undefined)


def _judge_tokens(rows: Rows, metrics: Metrics) -> Report:
    predicted, targets, _ = rows
    figures, undefined, _, confusion = _judge_ids(predicted, targets, metrics.labels)
    found, wanted = (_sequences(ids, rows[2], metrics.labels) for ids in (predicted, targets))
    scores = span_scores(found, wanted)
    spans = {
        "span_precision": scores.total.precision,
        "span_recall": scores.total.recall,
        "span_f1": scores.total.f1,
    }
    undefined = {name: why for name, why in undefined.items() if name in _BY_TAG}
    if not scores.total.n_predicted and not scores.total.n_target:
        undefined |= dict.fromkeys(spans, "there is no entity in targets or predictions")
        spans = dict.fromkeys(spans, math.nan)
    per_class = {
        name: ClassFigures(
            counts.precision, counts.recall, counts.f1, counts.n_target, counts.n_predicted
        )
        for name, counts in scores.by_type.items()
    }
    figures = spans | {name: figures[name] for name in _BY_TAG}
    return Report(figures, len(wanted), undefined, per_class, metrics.labels, confusion)


def _judge_tags(rows: Rows, metrics: Metrics) -> Report:
    predicted, targets, first = rows
    found = _judge_ids(predicted, targets, metrics.labels)
    figures, undefined, per_class, confusion = found
    n_sequences = int(first.sum())
    return Report(figures, n_sequences, undefined, per_class, metrics.labels, confusion)


def _judge_spans(rows: Rows, metrics: Metrics) -> Report:
    found, wanted = rows
    shared = torch.minimum(found[:, 1], wanted[:, 1]) - torch.maximum(found[:, 0], wanted[:, 0]) + 1
    both = (found[:, 1] - found[:, 0] + 1) + (wanted[:, 1] - wanted[:, 0] + 1)
    overlap = 2 * shared.clamp(min=0).double() / both
    figures = {
        "exact_match": (found == wanted).all(dim=1).double().mean().item(),
        "overlap_f1": overlap.mean().item(),
    }
    return Report(figures, len(wanted))


def _judge_masked_lm(rows: Rows, metrics: Metrics) -> Report:
    losses, right = rows
    loss = losses.mean()
    figures = {
        "perplexity": loss.exp().item(),
        "loss": loss.item(),
        "accuracy": right.double().mean().item(),
    }
    return Report(figures, len(losses))


def _judge_contrastive(rows: Rows, metrics: Metrics) -> Report:
    ranks, losses = rows
    figures = {
        "mrr": (1 / ranks.double()).mean().item(),
        "accuracy": (ranks == 1).double().mean().item(),
        "loss": losses.mean().item(),
    }
    return Report(figures, len(ranks))


_KINDS: dict[str, _Kind] = {
    "binary": _Kind(
        "macro_f1",
        (*_ONE_OF, "roc_auc", "pr_auc", "precision", "recall", "f1"),
        gather_binary,
        _judge_binary,
    ),
    "multiclass": _Kind(
        "macro_f1", (*_ONE_OF, "roc_auc", "pr_auc"), gather_classes, _judge_classes
    ),
    "multilabel": _Kind(
        "macro_f1",
        ("subset_accuracy", "label_accuracy", *_AVERAGES, "roc_auc", "pr_auc"),
        gather_multilabel,
        _judge_multilabel,
    ),
    "regression": _Kind(
        "spearman", ("pearson", "spearman", "rmse", "mae"), gather_numbers, _judge_numbers
    ),
    "similarity": _Kind("spearman", ("pearson", "spearman"), gather_numbers, _judge_numbers),
    "tokens": _Kind(
        "span_f1",
        ("span_precision", "span_recall", "span_f1", *_BY_TAG),
        gather_tokens,
        _judge_tokens,
    ),
    "tags": _Kind("macro_f1", _ONE_OF, gather_tokens, _judge_tags),  # tokens without a scheme
    "spans": _Kind(
        "overlap_f1",
        ("exact_match", "overlap_f1"),
        gather_spans,
        _judge_spans,
        needs_torchmetrics=False,
    ),
    "masked_lm": _Kind(
        "perplexity",
        ("perplexity", "loss", "accuracy"),
        gather_masked_lm,
        _judge_masked_lm,
        needs_torchmetrics=False,
    ),
    "contrastive": _Kind(
        "mrr",
        ("mrr", "accuracy", "loss"),
        gather_contrastive,
        _judge_contrastive,
        needs_torchmetrics=False,
    ),
}


# --- what the figures have in common


def _judge_ids(
    predicted: Tensor, targets: Tensor, labels: tuple[str, ...]
) -> tuple[dict[str, float], dict[str, str], dict[str, ClassFigures], list[list[int]]]:
    """Figures, reasons, classes and confusion of one class an example."""
    tm = classification()
    settings: dict[str, Any] = {"num_classes": len(labels), "validate_args": False}
    confusion = tm.multiclass_confusion_matrix(predicted, targets, **settings)
    judges = (tm.multiclass_precision, tm.multiclass_recall, tm.multiclass_f1_score)
    by_class = [judge(predicted, targets, average="none", **settings).tolist() for judge in judges]
    micro = [judge(predicted, targets, average="micro", **settings).item() for judge in judges]
    n_target, n_predicted = confusion.sum(dim=1).tolist(), confusion.sum(dim=0).tolist()
    per_class = _classes(labels, by_class, n_target, n_predicted)
    figures = {"accuracy": (predicted == targets).double().mean().item()}
    undefined: dict[str, str] = {}
    _average(figures, undefined, per_class, micro)
    if max(n_target) == len(targets):
        figures["mcc"] = math.nan
        undefined["mcc"] = _one_kind(targets, labels)
    elif max(n_predicted) == len(targets):
        figures["mcc"] = 0.0  # as scikit-learn; torchmetrics has a value of its own there
    else:
        figures["mcc"] = tm.multiclass_matthews_corrcoef(predicted, targets, **settings).item()
    return figures, undefined, per_class, confusion.tolist()


def _classes(
    labels: tuple[str, ...],
    figures: list[list[float]],
    n_target: list[int],
    n_predicted: list[int],
) -> dict[str, ClassFigures]:
    rows = zip(labels, *figures, n_target, n_predicted, strict=True)
    nan = math.nan
    return {
        name: ClassFigures(precision, recall, f1, wanted, found)
        if wanted or found
        else ClassFigures(nan, nan, nan, 0, 0)
        for name, precision, recall, f1, wanted, found in rows
    }


def _average(
    figures: dict[str, float],
    undefined: dict[str, str],
    per_class: dict[str, ClassFigures],
    micro: list[float],
) -> None:
    """Add macro figures, over the classes that occur in targets or predictions, and micro ones.

    Differs: scikit-learn counts a label of a multilabel task that never occurs as 0.
    """
    occur = [each for each in per_class.values() if each.n_target or each.n_predicted]
    if occur:
        for name in ("precision", "recall", "f1"):
            figures[f"macro_{name}"] = sum(getattr(each, name) for each in occur) / len(occur)
        for name, value in zip(("precision", "recall", "f1"), micro, strict=True):
            figures[f"micro_{name}"] = value
    else:
        figures |= dict.fromkeys(_AVERAGES, math.nan)
        undefined |= dict.fromkeys(_AVERAGES, "no label occurs in targets or predictions")


def _average_areas(
    figures: dict[str, float],
    undefined: dict[str, str],
    per_class: dict[str, ClassFigures],
    why: str,
) -> None:
    """Add the macro averages of the areas, over the classes that have them."""
    for name in ("roc_auc", "pr_auc"):
        values = [getattr(each, name) for each in per_class.values()]
        there = [value for value in values if not math.isnan(value)]
        figures[name] = sum(there) / len(there) if there else math.nan
        if not there:
            undefined[name] = why


def _areas(scores: Tensor, targets: Tensor) -> tuple[float, float]:
    """The areas under the ROC and the precision-recall curve; NaN where targets are all alike."""
    if targets.min() == targets.max():
        return math.nan, math.nan
    tm = classification()
    # Ranks in place of scores: the same areas, and torchmetrics squeezes nothing through a sigmoid,
    # which it does with scores beyond [0, 1] and which would make large ones equal.
    levels, ranks = torch.unique(scores, return_inverse=True)
    ranked = ranks.double() / len(levels)
    roc = tm.binary_auroc(ranked, targets, validate_args=False)
    return roc.item(), tm.binary_average_precision(ranked, targets, validate_args=False).item()


def _with_areas(each: ClassFigures, areas: tuple[float, float]) -> ClassFigures:
    return ClassFigures(
        each.precision, each.recall, each.f1, each.n_target, each.n_predicted, *areas
    )


def _one_kind(targets: Tensor, labels: tuple[str, ...]) -> str:
    return f"every target is {labels[int(targets[0])]!r}"


def _correlation(a: Tensor, b: Tensor) -> float:
    from torchmetrics.functional import pearson_corrcoef

    return pearson_corrcoef(a, b).item()


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1, equal values having the mean of theirs; exact where torchmetrics adds 1e-6."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(dim=0).double()
    return (last - (counts - 1) / 2)[place]


def _sequences(ids: Tensor, first: Tensor, labels: tuple[str, ...]) -> list[list[str]]:
    found: list[list[str]] = []
    for index, begins in zip(ids.tolist(), first.tolist(), strict=True):
        if begins:
            found.append([])
        found[-1].append(labels[index])
    return found
