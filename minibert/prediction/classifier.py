"""Classes of texts and of pairs of texts: `TextClassifier`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

import torch
from jaxtyping import Float
from torch import Tensor

from minibert.errors import ConfigError
from minibert.heads import BertForSequenceClassification, ClassifierOutput
from minibert.prediction.decisions import probabilities
from minibert.prediction.loading import Predictor, check_pairs
from minibert.prediction.sequences import (
    Batch,
    Pieces,
    columns,
    given_texts,
    on_cpu,
    pair_pieces,
    streamed,
    text_pieces,
)
from minibert.prediction.settings import CLASSIFIED, PredictionSettings
from minibert.prediction.windows import logits_of_texts
from minibert.tokenizer import Tokenizer


class Classification(NamedTuple):
    """What is said of a text.

    Of multilabel, `labels` are all that are above their threshold, the most probable first, and may
    be none; `label` is the most probable one, whether or not it is among them.
    """

    label: str
    probability: float  # of `label`
    labels: tuple[str, ...]
    probabilities: dict[str, float]
    truncated: bool
    windows: int


class TextClassifier(Predictor[BertForSequenceClassification]):
    """Says which of its labels a text has: one of two, one of several, or any number.

    >>> classifier = TextClassifier.from_pretrained("run")
    >>> classifier.classify("A film that stays with you.").label
    'pos'

    Made of a network, its tokenizer and settings, or by `from_pretrained`.  One classifier serves
    any number of threads.

    Raises: ConfigError for settings of another task, or that do not fit the network's labels.
    """

    head = BertForSequenceClassification
    tasks = CLASSIFIED

    def __init__(
        self,
        model: BertForSequenceClassification,
        tokenizer: Tokenizer,
        settings: PredictionSettings,
    ) -> None:
        super().__init__(model, tokenizer, settings)
        self.labels = _labels(model.config.labels, settings)
        self._thresholds = torch.tensor(settings.thresholds or (0.5,), dtype=torch.double)

    @overload
    def classify(
        self,
        texts: str,
        pairs: str | None = None,
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Classification: ...

    @overload
    def classify(
        self,
        texts: list[str] | tuple[str, ...],
        pairs: list[str] | tuple[str, ...] | None = None,
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> list[Classification]: ...

    def classify(
        self,
        texts: str | Sequence[str],
        pairs: str | Sequence[str] | None = None,
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Classification | list[Classification]:
        """What is said of each text, in the order given; of one text alone, of it.

        Args:
            texts: a text, or a list of texts.
            pairs: the second text of each, for a model of pairs.
            batch_tokens: tokens computed at once.
            show_progress_bar: None shows one on a terminal, for more than a few batches.

        Raises: TypeError for anything but texts, with its index; TextError for a lone surrogate, a
            long text under "error", or pairs where the model takes none.
        """
        firsts, seconds, single = given_texts(texts, pairs)
        pieces = self._pieces(firsts, seconds)
        logits = self._merged(pieces, batch_tokens, show_progress_bar)
        found = self._read(logits, pieces)
        return found[0] if single else found

    def stream(
        self,
        items: Iterable[str | tuple[str, str]],
        *,
        chunk_texts: int | None = None,
        batch_tokens: int | None = None,
    ) -> Iterator[Classification]:
        """What is said of any number of texts, or (text, second text), in order.

        It holds `chunk_texts` of them in memory; a fault is reported with its index in the corpus.
        """

        def predict(chunk: list[str | tuple[str, str]]) -> list[Classification]:
            firsts, seconds = columns(chunk)
            pieces = self._pieces(firsts, seconds)
            return self._read(self._merged(pieces, batch_tokens, False), pieces)

        return streamed(items, predict, chunk_texts, self.settle)

    def logits(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Float[Tensor, "texts labels"]:
        """The logits of each text, its windows merged, before temperature and thresholds."""
        firsts, seconds, _ = given_texts(texts, pairs)
        return self._merged(self._pieces(firsts, seconds), batch_tokens, show_progress_bar)

    def _pieces(self, texts: list[str], pairs: list[str] | None) -> Pieces:
        check_pairs(self.settings, self.model.config, given=pairs is not None)
        if pairs is None:
            return text_pieces(self.tokenizer, self.settings, texts)
        return pair_pieces(self.tokenizer, self.settings, texts, pairs)

    def _merged(
        self, pieces: Pieces, batch_tokens: int | None, show_progress_bar: bool | None
    ) -> Float[Tensor, "texts labels"]:
        n_texts = len(pieces.truncated)
        if not n_texts:
            return torch.empty(0, self.model.config.num_labels)
        logits = torch.stack(
            self.computed(
                pieces.pieces, self._logits_of,
                what="classifying", batch_tokens=batch_tokens, show_progress_bar=show_progress_bar,
            )
        )  # fmt: skip
        owners, tokens = torch.tensor(pieces.owners), torch.tensor(pieces.tokens)
        return logits_of_texts(
            logits, owners=owners, tokens=tokens, n_texts=n_texts,
            task=self.settings.task, how=self.settings.merge_windows,
            thresholds=self.settings.thresholds, temperature=self.settings.temperature,
        )  # fmt: skip

    def _logits_of(self, out: ClassifierOutput, batch: Batch) -> Sequence[Tensor]:
        return on_cpu(out.logits).unbind()

    def _probabilities(self, logits: Tensor) -> Float[Tensor, "texts labels"]:
        """Of each label, in the order of `labels`; of one text they sum to 1, or are multilabel."""
        odds = logits.double() / self.settings.temperature
        if self.settings.task == "multiclass":
            return odds.softmax(dim=1)
        if self.settings.task == "multilabel":
            return probabilities(odds)
        second = probabilities(odds[:, 0] if odds.shape[1] == 1 else odds[:, 1] - odds[:, 0])
        return torch.stack([1 - second, second], dim=1)

    def _classes(self, found: Float[Tensor, "texts labels"]) -> Tensor:
        """The number of each text's class."""
        if self.settings.task == "binary":
            return (found[:, 1] > self._thresholds[0]).long()
        return found.argmax(dim=1)

    def _read(self, logits: Tensor, pieces: Pieces) -> list[Classification]:
        found = self._probabilities(logits)
        classes = self._classes(found).tolist()
        above = (found > self._thresholds).tolist()
        results = []
        for row, (values, windows) in enumerate(zip(found.tolist(), pieces.windows, strict=True)):
            by_label = dict(zip(self.labels, values, strict=True))
            labels = [self.labels[classes[row]]]
            if self.settings.task == "multilabel":
                there = [x for x, is_there in zip(self.labels, above[row], strict=True) if is_there]
                labels = sorted(there, key=lambda x: -by_label[x])
            results.append(
                Classification(
                    label=self.labels[classes[row]],
                    probability=values[classes[row]],
                    labels=tuple(labels),
                    probabilities=by_label,
                    truncated=pieces.truncated[row],
                    windows=windows,
                )
            )
        return results


def _labels(names: tuple[str, ...], settings: PredictionSettings) -> tuple[str, ...]:
    """The names of the labels that are decided between, in the order of their probabilities."""
    count, task = len(names), settings.task
    if (task == "binary" and count > 2) or (task == "multiclass" and count < 2):
        expected = "1 or 2" if task == "binary" else "2 or more"
        raise ConfigError(f"the network has {count} labels, expected {expected} for task {task!r}")
    wanted = 1 if task == "binary" else count
    if len(settings.thresholds) not in (0, wanted):
        raise ConfigError(
            f"thresholds has {len(settings.thresholds)} numbers, expected {wanted} for task "
            f"{task!r}, or none"
        )
    if task == "binary" and count == 1:
        return settings.labels or (f"not {names[0]}", names[0])
    if settings.labels not in ((), names):
        raise ConfigError(f"labels is {settings.labels!r}, expected {names!r} as in config.json")
    return names
