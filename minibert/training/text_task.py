"""Tasks whose answer is read from the logits of a text, or of each of its words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minibert.checkpoint import Pretrained, initialise, load
from minibert.config import BertConfig
from minibert.errors import RunError
from minibert.heads import (
    BertForSequenceClassification,
    BertForTokenClassification,
    last_linear,
)
from minibert.layout import unpack
from minibert.prediction.settings import architecture
from minibert.prediction.windows import logits_of_texts, merge_tokens, odds_of_votes
from minibert.tokenizer import Tokenizer
from minibert.training.augment import Augmentation
from minibert.training.examples import Batch, Examples, Found, collate
from minibert.training.labels import counts
from minibert.training.losses import IGNORED, LossSum
from minibert.training.metrics import Metrics
from minibert.training.run_config import RunConfig
from minibert.training.text_losses import Loss, class_loss, presence_loss, regression_loss


@dataclass(frozen=True, eq=False)
class TextTask:
    """Labels, or a number, of a text or of each of its words.

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
    merge_windows: str = "mean"
    thresholds: tuple[float, ...] = ()  # by which windows vote
    temperature: float = 1.0
    augmentation: Augmentation | None = None
    seed: int = 0  # of the augmentation

    def network(self, run: RunConfig, folder: Path) -> Pretrained:
        """The encoder in a folder, with the task's head on it, fresh but for a head that fits.

        The head is the same for a seed, whatever was drawn before.
        """
        saved = BertConfig.from_file(folder / "config.json")
        config = replace(saved.with_labels(self.labels), problem_type=self.problem_type)
        config = with_dropout(run, config)
        torch.manual_seed(run.training.seed)
        if run.head.hidden is not None:
            config = replace(config, classifier_hidden_size=run.head.hidden)
        before, now = (
            (each.labels, each.classifier_hidden_size) for each in (saved, config)
        )  # fmt: skip
        fits = before == now and architecture(folder) in (None, self.head.__name__)
        model = load(self.head, folder, config, new_head=not fits)
        report = model.load_report
        if report is not None and any(map(_is_of_head, report.initialised)):
            self._begin(run, model)
        elif self.name == "regression":
            self._standardise(model)
        return model

    def _standardise(self, model: Pretrained) -> None:
        """Undo what `finish` did to a head that gives true numbers."""
        classifier = last_linear(model)
        with torch.no_grad():
            classifier.weight.div_(self.scale)
            classifier.bias.sub_(self.mean).div_(self.scale)

    def _begin(self, run: RunConfig, model: Pretrained) -> None:
        """Give a fresh head the values that it is to start from."""
        if run.head.init_std is not None:
            initialise(model.classifier, std=run.head.init_std)  # type: ignore[arg-type]
        if run.head.bias_from_prior and self.prior:
            shares = torch.tensor(self.prior).clamp(1e-3, 1 - 1e-3)
            alone = self.problem_type == "multi_label_classification"
            with torch.no_grad():  # so that the first answer is that share
                last_linear(model).bias.copy_(shares.logit() if alone else shares.log())

    def prepare(self, examples: Examples, rows: Sequence[int], step: int | None = None) -> Batch:
        """Examples as a batch; for an update of training as augmentation has them then."""
        if step is None or self.augmentation is None:
            return collate(examples, rows, dtype=self.target_dtype)
        ids, types = [examples.ids[row] for row in rows], [examples.types[row] for row in rows]
        found = self.augmentation.apply(ids, types, seed=self.seed, epoch=step, rows=rows)
        targets = [examples.targets[row] for row in rows]
        batch = collate(
            Examples(found.ids, found.types, targets), range(len(rows)), dtype=self.target_dtype
        )
        return batch._replace(rows=tuple(rows[i] for i in batch.rows))

    def objective(self, model: nn.Module, batch: Batch) -> LossSum:
        """The loss of a batch."""
        return self.judged(model, batch)[0]

    def judged(self, model: nn.Module, batch: Batch) -> tuple[LossSum, Found]:
        """The loss of a batch, and "logits": `(batch, labels)`, `(batch,)`, `(tokens, labels)`.

        Those of a regression are in the units of its targets.
        """
        out = model(batch.input_ids, token_type_ids=batch.token_type_ids, layout=batch.layout)
        logits: Tensor = out.logits.squeeze(-1) if self.one_logit else out.logits
        if self.name != "regression":
            return self.loss(logits, batch.targets), {"logits": logits}
        loss = self.loss(logits, (batch.targets - self.mean) / self.scale)
        return loss, {"logits": logits * self.scale + self.mean}

    def measure(
        self, results: Iterable[tuple[Batch, Found]], examples: Examples, metrics: Metrics
    ) -> dict[str, float]:
        """Give the metrics what a network found, the windows of a text merged."""
        if self.name == "tokens":
            self._measure_tags(results, examples, metrics)
        else:
            metrics.update(*self.scores(results, examples))
        return {}

    def scores(
        self, results: Iterable[tuple[Batch, Found]], examples: Examples
    ) -> tuple[Tensor, Tensor]:
        """Logits and targets of each text, in order: `(texts, …)`."""
        return self.merged(self.gathered(results, examples), examples), self.targets(examples)

    def targets(self, examples: Examples) -> Tensor:
        """The target of each text, in order: `(texts, …)`."""
        found = [examples.targets[rows[0]] for rows in examples.windows]
        return torch.tensor(found, dtype=self.target_dtype)

    def gathered(self, results: Iterable[tuple[Batch, Found]], examples: Examples) -> Tensor:
        """The logits of each example, a text or a window, in order: `(examples, …)`."""
        found: list[Tensor] = [torch.empty(0)] * len(examples)
        for batch, given in results:
            for row, each in zip(batch.rows, given["logits"].float(), strict=True):
                found[row] = each
        return torch.stack(found)

    def merged(self, logits: Tensor, examples: Examples) -> Tensor:
        """The logits of each text, from those of its windows: `(texts, …)`."""
        if not examples.texts:
            return logits
        found = logits_of_texts(
            logits.view(len(logits), -1), *_windows(examples), task=self.name,
            how=self.merge_windows, thresholds=self.thresholds, temperature=self.temperature,
        )  # fmt: skip
        return found.view(-1, *logits.shape[1:])

    def odds(self, logits: Tensor, examples: Examples) -> Tensor:
        """What the thresholds of each text are fitted on: `(texts,)`, of multilabel `(texts, …)`.

        Where windows vote these are not the odds of its merged logits, for which window wins
        depends on the threshold.
        """
        of_classes = self.problem_type == "single_label_classification"
        if self.merge_windows == "mean" or not examples.texts:
            merged = self.merged(logits, examples).double()
            return merged[:, 1] - merged[:, 0] if of_classes else merged
        wide = logits.double()
        odds = wide[:, 1] - wide[:, 0] if of_classes else wide
        found = odds_of_votes(odds.view(len(odds), -1), *_windows(examples))
        return found.view(-1, *odds.shape[1:])

    def _measure_tags(
        self, results: Iterable[tuple[Batch, Found]], examples: Examples, metrics: Metrics
    ) -> None:
        found: list[Tensor] = [torch.empty(0)] * len(examples)
        for batch, given in results:
            lengths = batch.layout.lengths
            if not examples.texts:
                padded = unpack(given["logits"], batch.layout).float()
                metrics.update(padded, unpack(batch.targets, batch.layout, fill=float(IGNORED)))
                continue
            for row, each in zip(
                batch.rows, torch.split(given["logits"].float(), list(lengths)), strict=True
            ):
                found[row] = each[1:-1]
        for rows in examples.windows if examples.texts else ():
            starts = [examples.starts[row] for row in rows]
            spans = [
                (start, start + len(found[row])) for row, start in zip(rows, starts, strict=True)
            ]
            logits = merge_tokens([found[row] for row in rows], spans)
            targets = torch.full((len(logits),), IGNORED)
            for row, (start, stop) in zip(rows, spans, strict=True):
                targets[start:stop] = torch.tensor(examples.targets[row][1:-1])
            metrics.update(logits[None], targets[None])

    def finish(self, model: Pretrained) -> None:
        """Put mean and scale into the classifier, so that any library reads true numbers."""
        if self.name == "regression":
            classifier = last_linear(model)
            with torch.no_grad():
                classifier.weight.mul_(self.scale)
                classifier.bias.mul_(self.scale).add_(self.mean)

    def save(self, model: Pretrained, tokenizer: Tokenizer, folder: Path) -> None:
        """Write model and tokenizer."""
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def text_task(
    run: RunConfig,
    labels: Sequence[str],
    targets: Sequence[Any],
    augmentation: Augmentation | None = None,
) -> TextTask:
    """The task of a run that names one of labels or of numbers.

    Args:
        labels: their names; of a regression none.
        targets: those of the training examples, which weights, mean and scale come from.

    Raises: RunError for settings that do not fit the task.
    """
    given, one_logit = run.head.num_labels, run.task == "binary" and run.head.num_labels == 1
    if given not in (None, len(labels)) and not one_logit:
        raise RunError(
            f"head.num_labels is {given}, expected {len(labels)}, for there are so many labels; "
            "leave it out"
        )
    made = _of_tags if run.task == "tokens" else _of_numbers if run.task == "regression" else _of
    return replace(
        made(run, tuple(labels), targets),
        merge_windows=run.data.merge_windows,
        augmentation=augmentation,
        seed=run.training.seed,
    )


def _of(run: RunConfig, names: tuple[str, ...], targets: Sequence[Any]) -> TextTask:
    """One label a text, or any number of them."""
    n_texts = len(targets)
    if run.task == "binary" and run.head.num_labels == 1:
        positives = sum(map(int, targets))
        return TextTask(
            "binary", names[1:], BertForSequenceClassification, torch.float,
            presence_loss(run, [positives], n_texts), "multi_label_classification",
            one_logit=True, prior=_shares([positives], n_texts),
        )  # fmt: skip
    found = counts(targets, len(names))
    several = run.task == "multilabel"
    return TextTask(
        run.task,
        names,
        BertForSequenceClassification,
        torch.float if several else torch.long,
        presence_loss(run, found, n_texts) if several else class_loss(run, targets, names),
        "multi_label_classification" if several else "single_label_classification",
        prior=_shares(found, n_texts),
    )


def _of_tags(run: RunConfig, names: tuple[str, ...], targets: Sequence[Any]) -> TextTask:
    tags = [tag for each in targets for tag in each]
    loss = class_loss(run, tags, names)
    return TextTask("tokens", names, BertForTokenClassification, torch.long, loss, None)


def _of_numbers(run: RunConfig, names: tuple[str, ...], targets: Sequence[Any]) -> TextTask:
    values = torch.tensor(targets, dtype=torch.float64)
    scale = float(values.std(correction=0)) if len(values) else 1.0
    return TextTask(
        "regression", ("score",), BertForSequenceClassification, torch.float,
        regression_loss(run), "regression", one_logit=True,
        mean=float(values.mean()) if len(values) else 0.0, scale=scale or 1.0,
    )  # fmt: skip


def _is_of_head(name: str) -> bool:
    return name.startswith("classifier.")


def _windows(examples: Examples) -> tuple[Tensor, Tensor, int]:
    """Of each window the tokens and the number of its text; how many texts there are."""
    tokens = torch.tensor([length - 2 for length in examples.lengths])
    return tokens, torch.tensor(examples.texts), len(examples.windows)


def _shares(found: Sequence[int], n_texts: int) -> tuple[float, ...]:
    """What part of the texts has each label."""
    return tuple(n / max(1, n_texts) for n in found)


def with_dropout(run: RunConfig, config: BertConfig) -> BertConfig:
    """The configuration with the dropouts that a run file gives in place of the checkpoint's."""
    if (share := run.training.dropout) is not None:
        config = replace(config, hidden_dropout_prob=share, attention_probs_dropout_prob=share)
    if run.head.dropout is not None:
        config = replace(config, classifier_dropout=run.head.dropout)
    return config
