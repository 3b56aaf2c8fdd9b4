"""Tags of the words of texts, and the entities that they spell: `TokenTagger`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

import torch
from jaxtyping import Float
from torch import Tensor

from minibert.heads import BertForTokenClassification, ClassifierOutput
from minibert.prediction.entities import has_entities, spans_of
from minibert.prediction.loading import Predictor
from minibert.prediction.sequences import Batch, Piece, cut, joined, on_cpu, streamed
from minibert.prediction.settings import PredictionSettings
from minibert.prediction.windows import merge_tokens
from minibert.tokenizer import Encoding, Tokenizer, checked_texts

Text = str | Sequence[str]  # or its words


class Word(NamedTuple):
    """A word, its tag, and where it stands in the text."""

    word: str
    tag: str
    probability: float
    start: int
    end: int  # the first character behind it


class Entity(NamedTuple):
    """Words that are one entity; its probability is the mean of theirs."""

    label: str
    text: str
    probability: float
    start: int
    end: int


class Tagging(NamedTuple):
    """What is said of the words of a text."""

    words: tuple[Word, ...]
    entities: tuple[Entity, ...]  # in order; none where the tags are of no scheme of entities
    truncated: bool
    windows: int

    @property
    def tags(self) -> list[str]:
        """The tag of each word."""
        return [word.tag for word in self.words]


class WordLogits(NamedTuple):
    """The logits of a text's words, those of the first token of each."""

    words: list[int]  # the numbers of the words that the network saw: most often all of them
    logits: Float[Tensor, "words labels"]


class TokenTagger(Predictor[BertForTokenClassification]):
    """Gives each word of a text a tag, as a part of speech, or B-PER where a name begins.

    >>> tagger = TokenTagger.from_pretrained("run")
    >>> tagger.tag("Anna Smith lives in Paris.").entities[0].text
    'Anna Smith'

    A text is split into words as BERT does it, at blanks and at each punctuation mark; a text that
    is split already is given as the list of its words.  Where a word is of several tokens, its tag
    is that of the first, as in training.  Made of a network, its tokenizer and settings, or by
    `from_pretrained`.  One tagger serves any number of threads.

    Raises: ConfigError for settings of another task.
    """

    head = BertForTokenClassification
    tasks = ("tokens",)

    def __init__(
        self, model: BertForTokenClassification, tokenizer: Tokenizer, settings: PredictionSettings
    ) -> None:
        super().__init__(model, tokenizer, settings)
        self.labels = model.config.labels
        self.has_entities = has_entities(self.labels)

    @overload
    def tag(
        self,
        texts: str,
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Tagging: ...

    @overload
    def tag(
        self,
        texts: list[str] | list[list[str]] | tuple[Text, ...],
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> list[Tagging]: ...

    def tag(
        self,
        texts: str | Sequence[Text],
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Tagging | list[Tagging]:
        """The tags and entities of each text, in the order given; of one text alone, of it.

        Of words given, each has a tag; one that was cut away, or that the tokenizer makes nothing
        of, has the tag O (or the first label) with probability 0.  Positions are then those in the
        words joined by a blank.

        Args:
            texts: a text, or a list, each of it a text or a list of words.
            batch_tokens: tokens computed at once.
            show_progress_bar: None shows one on a terminal, for more than a few batches.

        Raises: TypeError for anything else, with its index; TextError for a lone surrogate, or a
            long text under "error".
        """
        single = isinstance(texts, str)
        listed: list[Text] = [texts] if isinstance(texts, str) else list(texts)
        found = self._tagged(listed, batch_tokens, show_progress_bar)
        return found[0] if single else found

    def stream(
        self,
        items: Iterable[Text],
        *,
        chunk_texts: int | None = None,
        batch_tokens: int | None = None,
    ) -> Iterator[Tagging]:
        """The tags of any number of texts, or lists of words, in order.

        It holds `chunk_texts` of them in memory; a fault is reported with its index in the corpus.
        """
        return streamed(
            items,
            lambda chunk: self._tagged(chunk, batch_tokens, False),
            chunk_texts,
            self.settle,
        )

    def logits(
        self,
        texts: Sequence[Text],
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> list[WordLogits]:
        """The logits of each text's words, its windows merged, before temperature."""
        readings = self._readings(list(texts))
        return self._logits(readings, batch_tokens, show_progress_bar)

    def _tagged(
        self, texts: list[Text], batch_tokens: int | None, show_progress_bar: bool | None
    ) -> list[Tagging]:
        readings = self._readings(texts)
        found = self._logits(readings, batch_tokens, show_progress_bar)
        return [self._read(*each) for each in zip(texts, readings, found, strict=True)]

    def _readings(self, texts: list[Text]) -> "list[_Reading]":
        """Each text's tokens and windows."""
        whole = None if self.settings.long_text != "truncate" else self.settings.max_length
        checked_texts([text if isinstance(text, str) else "" for text in texts], "texts")
        plain = [text for text in texts if isinstance(text, str)]
        split = [
            checked_texts(text, f"texts[{index}]")
            for index, text in enumerate(texts)
            if not isinstance(text, str)
        ]
        of_texts = iter(self.tokenizer.encode(plain, max_length=whole, offsets=True))
        of_words = iter(self.tokenizer.encode_words(split, max_length=whole))
        readings = []
        for index, text in enumerate(texts):
            encoding = next(of_texts if isinstance(text, str) else of_words)
            ids = encoding.ids[1:-1]
            spans = cut(len(ids), self.settings.max_length - 2, self.settings, ("text", index))
            pieces = [joined(self.tokenizer, ids[start:stop]) for start, stop in spans]
            readings.append(_Reading(encoding, spans, pieces))
        return readings

    def _logits(
        self, readings: "list[_Reading]", batch_tokens: int | None, show_progress_bar: bool | None
    ) -> list[WordLogits]:
        windows = iter(
            self.computed(
                [piece for reading in readings for piece in reading.pieces],
                self._logits_of, what="tagging",
                batch_tokens=batch_tokens, show_progress_bar=show_progress_bar,
            )
        )  # fmt: skip
        found = []
        for reading in readings:
            merged = merge_tokens([next(windows)[1:-1] for _ in reading.spans], reading.spans)
            firsts = reading.first_tokens()
            found.append(WordLogits(list(firsts), merged[list(firsts.values())]))
        return found

    def _logits_of(self, out: ClassifierOutput, batch: Batch) -> Sequence[Tensor]:
        return torch.split(on_cpu(out.logits), list(batch.layout.lengths))

    def _read(self, text: Text, reading: "_Reading", found: WordLogits) -> Tagging:
        likely = (found.logits.double() / self.settings.temperature).softmax(dim=1).max(dim=1)
        tags = [self.labels[label] for label in likely.indices.tolist()]
        seen = dict(zip(found.words, zip(tags, likely.values.tolist(), strict=True), strict=True))
        unseen = ("O" if "O" in self.labels else self.labels[0], 0.0)
        places = reading.places(text)
        whole = text if isinstance(text, str) else " ".join(text)
        words = tuple(
            Word(whole[start:end], *seen.get(number, unseen), start, end)
            for number, (start, end) in places.items()
        )
        return Tagging(
            words,
            _entities(whole, words) if self.has_entities else (),
            reading.encoding.n_truncated > 0,
            len(reading.spans),
        )


class _Reading(NamedTuple):
    """A text as the network reads it."""

    encoding: Encoding
    spans: list[tuple[int, int]]  # the windows, over the tokens of the text
    pieces: list[Piece]

    def first_tokens(self) -> dict[int, int]:
        """Of each word that has tokens, the first."""
        firsts: dict[int, int] = {}
        for place, word in enumerate(self.encoding.word_ids[1:-1]):
            assert word is not None  # which only special tokens have
            firsts.setdefault(word, place)
        return firsts

    def places(self, text: Text) -> dict[int, tuple[int, int]]:
        """Where each word stands: of words given, in these joined by a blank."""
        found: dict[int, tuple[int, int]] = {}
        if not isinstance(text, str):
            start = 0
            for number, given in enumerate(text):
                found[number] = (start, start + len(given))
                start += len(given) + 1
            return found
        inner = zip(self.encoding.word_ids[1:-1], self.encoding.offsets[1:-1], strict=True)
        for word, (start, end) in inner:
            assert word is not None  # which only special tokens have
            found[word] = (found.get(word, (start, end))[0], end)
        return found


def _entities(text: str, words: Sequence[Word]) -> tuple[Entity, ...]:
    """The entities that the tags of words spell, read leniently."""
    found = []
    for label, first, stop in spans_of([word.tag for word in words]):
        start, end = words[first].start, words[stop - 1].end
        mean = sum(word.probability for word in words[first:stop]) / (stop - first)
        found.append(Entity(label, text[start:end], mean, start, end))
    return tuple(found)
