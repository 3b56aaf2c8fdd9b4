"""Numbers for texts and for pairs of texts: `TextScorer`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, overload

import torch
from jaxtyping import Float
from torch import Tensor

from minibert.config import BertConfig
from minibert.embed import Embedder
from minibert.engine_choice import EngineChoice
from minibert.errors import ConfigError, TextError
from minibert.heads import BertForSequenceClassification, ClassifierOutput
from minibert.pooling import normalise
from minibert.prediction.loading import (
    Predictor,
    check_pairs,
    check_task,
    checked_device,
    model_folder,
    settings_for,
)
from minibert.prediction.sequences import (
    Batch,
    columns,
    cut,
    given_texts,
    on_cpu,
    pair_pieces,
    streamed,
    text_pieces,
)
from minibert.prediction.settings import COMPARED, PredictionSettings
from minibert.prediction.windows import mean_of_windows
from minibert.tokenizer import Tokenizer


class Score(NamedTuple):
    """The number of a text, or of a pair."""

    score: float
    truncated: bool
    windows: int  # of two texts compared, of the one that has more


class Scores(NamedTuple):
    """The numbers of many texts."""

    values: Float[Tensor, "texts 1"]
    truncated: list[bool]
    windows: list[int]

    def listed(self) -> list[Score]:
        """One after the other."""
        numbers = self.values[:, 0].tolist()
        return [Score(*each) for each in zip(numbers, self.truncated, self.windows, strict=True)]


class CrossEncoder(Predictor[BertForSequenceClassification]):
    """A network with a head of one number, which reads the two texts of a pair together."""

    head = BertForSequenceClassification
    tasks = ("regression",)

    def __init__(
        self,
        model: BertForSequenceClassification,
        tokenizer: Tokenizer,
        settings: PredictionSettings,
    ) -> None:
        super().__init__(model, tokenizer, settings)
        if model.config.num_labels != 1:
            raise ConfigError(
                f"the network has {model.config.num_labels} labels, expected 1 for task "
                "'regression'"
            )

    def scores(
        self,
        texts: list[str],
        pairs: list[str] | None,
        batch_tokens: int | None,
        show_progress_bar: bool | None,
    ) -> Scores:
        """The number of each text, or pair; of windows their mean, weighted by tokens."""
        check_pairs(self.settings, self.model.config, given=pairs is not None)
        if pairs is None:
            pieces = text_pieces(self.tokenizer, self.settings, texts)
        else:
            pieces = pair_pieces(self.tokenizer, self.settings, texts, pairs)
        logits = self.computed(
            pieces.pieces, self._logits_of,
            what="scoring", batch_tokens=batch_tokens, show_progress_bar=show_progress_bar,
        )  # fmt: skip
        values = mean_of_windows(
            torch.stack(logits) if logits else torch.empty(0, 1),
            torch.tensor(pieces.tokens, dtype=torch.long),
            torch.tensor(pieces.owners, dtype=torch.long),
            len(texts),
        )
        return Scores(values, pieces.truncated, pieces.windows)

    def _logits_of(self, out: ClassifierOutput, batch: Batch) -> Sequence[Tensor]:
        return on_cpu(out.logits).unbind()


@dataclass(eq=False)
class BiEncoder:
    """An embedder, which reads the two texts of a pair each by itself; they are compared by cosine.

    How long a text may be is in its recipe.
    """

    embedder: Embedder
    settings: PredictionSettings

    def __post_init__(self) -> None:
        check_task(self.settings, COMPARED)

    @property
    def computes(self) -> str:
        """As of `Embedder`."""
        return self.embedder.computes

    def settle(self, n_pairs: int | None) -> bool:
        """As of `Predictor`."""
        return self.embedder.settle(None if n_pairs is None else 2 * n_pairs)

    def scores(
        self,
        texts: list[str],
        pairs: list[str] | None,
        batch_tokens: int | None,
        show_progress_bar: bool | None,
    ) -> Scores:
        """The cosine of each pair, from -1 to 1."""
        if pairs is None:
            raise TextError("the model compares two texts, got one; give each a second text")
        both = [*texts, *pairs]
        truncated, windows = self._lengths(both)
        vectors = torch.from_numpy(
            self.embedder.encode(
                both,
                long_text=self.settings.long_text,  # type: ignore[arg-type]
                batch_tokens=batch_tokens,
                show_progress_bar=show_progress_bar,
            )
        )
        first, second = torch.tensor_split(normalise(vectors), 2)
        n = len(texts)
        return Scores(
            (first * second).sum(dim=1, keepdim=True).clamp(-1, 1),
            [a or b for a, b in zip(truncated[:n], truncated[n:], strict=True)],
            [max(a, b) for a, b in zip(windows[:n], windows[n:], strict=True)],
        )

    def _lengths(self, both: list[str]) -> tuple[list[bool], list[int]]:
        """Of first and then of second texts: whether each is cut, and its windows."""
        room, truncated, windows = self.embedder.recipe.max_length - 2, [], []
        for index, ids in enumerate(self.embedder.tokenizer.ids(both)):
            half = len(both) // 2
            what = ("text", index) if index < half else ("second text", index - half)
            spans = cut(len(ids), room, self.settings, what)
            truncated.append(spans[-1][1] < len(ids))
            windows.append(len(spans))
        return truncated, windows


class TextScorer:
    """Gives a number for a text or a pair, or says how alike the two texts of a pair are.

    >>> scorer = TextScorer.from_pretrained("all-MiniLM-L6-v2")
    >>> round(scorer.score("How do I sleep better?", "Ways to rest well at night").score, 2)
    0.69

    Made by `from_pretrained`, or of a `CrossEncoder` or a `BiEncoder`.  One scorer serves any
    number of threads.
    """

    def __init__(self, encoder: CrossEncoder | BiEncoder) -> None:
        self.encoder = encoder
        self.settings = encoder.settings

    @property
    def computes(self) -> str:
        """What computed last, such as "float32 by kernels for AVX-512 VNNI"."""
        return self.encoder.computes

    def settle(self, n_texts: int | None) -> bool:
        """Decide what computes a job of so many texts or pairs, None for very many."""
        return self.encoder.settle(n_texts)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        settings: PredictionSettings | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        engine: EngineChoice | None = None,
        offline: bool = False,
    ) -> "TextScorer":
        """The scorer of a folder: of a run, a head of one number, or of sentence-transformers.

        Arguments as in `TextClassifier.from_pretrained`.

        Raises: WeightsError, ConfigError, CheckpointError, TokenizerError or EngineError, in one
            line; a checkpoint without a trained head is refused.
        """
        folder = model_folder(name, offline=offline)
        config = BertConfig.from_file(folder / "config.json")
        settings = settings_for(("regression", *COMPARED), folder, config, settings)
        if settings.task in COMPARED:
            embedder = Embedder.from_pretrained(
                folder, dtype=dtype, device=checked_device(device), engine=engine
            )
            embedder.recipe = replace(embedder.recipe, max_length=settings.max_length)
            return cls(BiEncoder(embedder, settings))
        encoder = CrossEncoder.from_pretrained(
            folder, settings=settings, dtype=dtype, device=device, engine=engine, offline=offline
        )
        return cls(encoder)

    @overload
    def score(
        self,
        texts: str,
        pairs: str | None = None,
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Score: ...

    @overload
    def score(
        self,
        texts: list[str] | tuple[str, ...],
        pairs: list[str] | tuple[str, ...] | None = None,
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> list[Score]: ...

    def score(
        self,
        texts: str | Sequence[str],
        pairs: str | Sequence[str] | None = None,
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Score | list[Score]:
        """The number of each text, or pair, in the order given; of one alone, its number.

        Args:
            texts: a text, or a list of texts.
            pairs: the second text of each; where texts are compared there has to be one.
            batch_tokens: tokens computed at once.
            show_progress_bar: None shows one on a terminal, for more than a few batches.

        Raises: TypeError for anything but texts, with its index; TextError for a lone surrogate, a
            long text under "error", or pairs where the model takes none.
        """
        firsts, seconds, single = given_texts(texts, pairs)
        found = self.encoder.scores(firsts, seconds, batch_tokens, show_progress_bar).listed()
        return found[0] if single else found

    def stream(
        self,
        items: Iterable[str | tuple[str, str]],
        *,
        chunk_texts: int | None = None,
        batch_tokens: int | None = None,
    ) -> Iterator[Score]:
        """The numbers of any number of texts, or (text, second text), in order.

        It holds `chunk_texts` of them in memory; a fault is reported with its index in the corpus.
        """

        def predict(chunk: list[str | tuple[str, str]]) -> list[Score]:
            return self.encoder.scores(*columns(chunk), batch_tokens, False).listed()

        return streamed(items, predict, chunk_texts, self.settle)

    def logits(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Float[Tensor, "texts 1"]:
        """The numbers as a tensor."""
        firsts, seconds, _ = given_texts(texts, pairs)
        return self.encoder.scores(firsts, seconds, batch_tokens, show_progress_bar).values
