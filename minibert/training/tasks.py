"""What each task puts on the encoder, minimises, and reads from the logits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minibert.checkpoint import Pretrained, initialise, load
from minibert.config import BertConfig
from minibert.errors import RunError
from minibert.heads import BertForSequenceClassification, BertForTokenClassification
from minibert.training import losses
from minibert.training.examples import Batch
from minibert.training.labels import counts
from minibert.training.losses import LossSum
from minibert.training.run_config import RunConfig

Loss = Callable[[Tensor, Tensor], LossSum]


@dataclass(frozen=True, eq=False)
class Task:
    """One task: its head, its labels, what its targets are, and what is minimised.

    `mean` and `scale` are those of the targets of a regression, which is learnt on standardised
    ones: a fresh head gives numbers around 0.
    """

    name: str
    labels: tuple[str, ...]
    head: type[Pretrained]
    target_dtype: torch.dtype
    loss: Loss
    problem_type: str | None
    one_logit: bool = False
    prior: tuple[float, ...] = ()  # the share of training examples that have each label
    mean: float = 0.0
    scale: float = 1.0

    def logits(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """What the network gives for a batch: `(batch, labels)`, `(batch,)`, `(tokens, labels)`."""
        out = model(batch.input_ids, token_type_ids=batch.token_type_ids, layout=batch.layout)
        logits: Tensor = out.logits
        return logits.squeeze(-1) if self.one_logit else logits

    def objective(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """The loss of a batch."""
        return self.judged(model, batch)[0]

    def judged(self, model: torch.nn.Module, batch: Batch) -> tuple[LossSum, Tensor]:
        """The loss of a batch, and the logits that it comes from."""
        targets, logits = batch.targets, self.logits(model, batch)
        if self.name == "regression":
            targets = (targets - self.mean) / self.scale
        return self.loss(logits, targets), logits

    def config(self, config: BertConfig) -> BertConfig:
        """The configuration of a network for this task: its labels, and what they are."""
        return replace(config.with_labels(self.labels), problem_type=self.problem_type)

    def read(self, logits: Tensor) -> Tensor:
        """Logits in the units of the targets: of a regression the number itself."""
        return logits * self.scale + self.mean if self.name == "regression" else logits

    def fold(self, model: Pretrained) -> None:
        """Put mean and scale into the classifier, so that any library reads true numbers."""
        if self.name == "regression":
            classifier = model.classifier
            assert isinstance(classifier, torch.nn.Linear)
            with torch.no_grad():
                classifier.weight.mul_(self.scale)
                classifier.bias.mul_(self.scale).add_(self.mean)


def task_of(run: RunConfig, labels: Sequence[str], targets: Sequence[Any]) -> Task:
    """The task of a run.

    Args:
        labels: their names; of a regression none.
        targets: those of the training examples, which weights, mean and scale come from.

    Raises: RunError for settings that do not fit the task.
    """
    names = tuple(labels)
    one_logit = run.task == "binary" and run.head.num_labels == 1
    found = counts(targets, len(names)) if names and not one_logit else []
    if run.task == "regression":
        values = torch.tensor(targets, dtype=torch.float64)
        scale = float(values.std(correction=0)) if len(values) else 1.0
        return Task(
            "regression", ("score",), BertForSequenceClassification, torch.float,
            _regression_loss(run), "regression", one_logit=True,
            mean=float(values.mean()) if len(values) else 0.0, scale=scale or 1.0,
        )  # fmt: skip
    if run.task == "multilabel":
        return Task(
            "multilabel", names, BertForSequenceClassification, torch.float,
            _presence_loss(run, found, len(targets)), "multi_label_classification",
            prior=_shares(found, len(targets)),
        )  # fmt: skip
    if run.task == "tokens":
        return Task(
            "tokens",
            names,
            BertForTokenClassification,
            torch.long,
            _class_loss(run, [tag for tags in targets for tag in tags], names),
            None,
        )
    if one_logit:
        positives = sum(map(int, targets))
        return Task(
            "binary", names[1:], BertForSequenceClassification, torch.float,
            _presence_loss(run, [positives], len(targets)), "multi_label_classification",
            one_logit=True, prior=_shares([positives], len(targets)),
        )  # fmt: skip
    if run.task in ("binary", "multiclass"):
        return Task(
            run.task, names, BertForSequenceClassification, torch.long,
            _class_loss(run, targets, names), "single_label_classification",
            prior=_shares(found, len(targets)),
        )  # fmt: skip
    raise AssertionError(run.task)  # a RunConfig has no other


def _shares(found: Sequence[int], n_examples: int) -> tuple[float, ...]:
    """What part of the examples has each label."""
    return tuple(n / max(1, n_examples) for n in found)


def _class_loss(run: RunConfig, labels: Sequence[int], names: Sequence[str]) -> Loss:
    """One right label: cross-entropy, or focal."""
    settings = run.loss
    for key in ("pos_weight", "focal_alpha"):
        if getattr(settings, key) is not None:
            raise RunError(f"loss.{key} goes with one logit a label; take class_weights here")
    weight = _weights("class_weights", settings.class_weights, len(names))
    if settings.class_weights == "balanced":
        weight = losses.balanced_weights(torch.tensor(labels), len(names))
    name = _allowed(run, "cross_entropy", "focal")
    if name == "focal" and settings.label_smoothing:
        raise RunError("loss.label_smoothing goes with cross_entropy, not with focal")
    if name == "focal":
        return partial(losses.focal, gamma=settings.focal_gamma, alpha=weight)
    return partial(losses.cross_entropy, weight=weight, label_smoothing=settings.label_smoothing)


def _presence_loss(run: RunConfig, found: Sequence[int], n_examples: int) -> Loss:
    """Each label present or absent: binary cross-entropy, or focal."""
    settings = run.loss
    if settings.class_weights is not None or settings.label_smoothing:
        raise RunError(
            "loss.class_weights and label_smoothing go with a logit for each of two labels, and "
            "head.num_labels is 1; take pos_weight"
        )
    name = _allowed(run, "binary_cross_entropy", "focal")
    if name == "focal" and settings.pos_weight is not None:
        raise RunError("loss.pos_weight goes with binary_cross_entropy; focal has focal_alpha")
    if name == "focal":
        return partial(losses.binary_focal, gamma=settings.focal_gamma, alpha=settings.focal_alpha)
    if settings.pos_weight == "balanced":
        # As many times as absence is more frequent; a label that never occurs has nothing to weigh.
        ratios = [(n_examples - n) / n if n else 1.0 for n in found]
        pos_weight: Tensor | None = torch.tensor(ratios)
    else:
        pos_weight = _weights("pos_weight", settings.pos_weight, len(found))
    if pos_weight is not None and run.task == "binary":
        return partial(losses.binary_cross_entropy, pos_weight=float(pos_weight))
    return partial(losses.binary_cross_entropy, pos_weight=pos_weight)


def _regression_loss(run: RunConfig) -> Loss:
    name = _allowed(run, "mse", "l1", "huber")
    if name == "huber":
        return partial(losses.huber, delta=run.loss.huber_delta)
    return losses.l1 if name == "l1" else losses.mse


def _allowed(run: RunConfig, *names: str) -> str:
    """The loss that the run file names, or the first of those that fit the task."""
    name = run.loss.name or names[0]
    if name not in names:
        raise RunError(
            f"loss.name is {name!r}, expected {' or '.join(names)} for task {run.task!r}"
        )
    return name


def _weights(key: str, given: str | list[float] | None, n_labels: int) -> Tensor | None:
    """Weights that are given as numbers."""
    if given is None or given == "balanced":
        return None
    if isinstance(given, str):
        raise RunError(f"loss.{key} is {given!r}, expected 'balanced' or a list of numbers")
    if len(given) != n_labels:
        raise RunError(
            f"loss.{key} has {len(given)} numbers, expected {n_labels}, one for each label"
        )
    return torch.tensor(given)


def network(run: RunConfig, task: Task, folder: Path) -> Pretrained:
    """The encoder in a folder, with the task's head on it, fresh but for a head that fits.

    The head is the same for a seed, whatever was drawn before.
    """
    saved = BertConfig.from_file(folder / "config.json")
    config = task.config(saved)
    if run.training.dropout is not None:
        config = replace(
            config,
            hidden_dropout_prob=run.training.dropout,
            attention_probs_dropout_prob=run.training.dropout,
        )
    if run.head.dropout is not None:
        config = replace(config, classifier_dropout=run.head.dropout)
    torch.manual_seed(run.training.seed)
    model = load(task.head, folder, config, new_head=saved.labels != config.labels)
    classifier = model.classifier
    assert isinstance(classifier, torch.nn.Linear)
    if run.head.init_std is not None:
        initialise(classifier, std=run.head.init_std)
    if run.head.bias_from_prior and task.prior:
        shares = torch.tensor(task.prior).clamp(1e-3, 1 - 1e-3)
        alone = task.problem_type == "multi_label_classification"
        with torch.no_grad():  # so that the first answer is that share
            classifier.bias.copy_(shares.logit() if alone else shares.log())
    return model
