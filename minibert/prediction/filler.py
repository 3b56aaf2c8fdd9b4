"""Words for the masks in texts: `MaskFiller`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

import torch
from torch import Tensor

from minibert.embed import BATCH_TOKENS
from minibert.heads import BertForMaskedLM
from minibert.model import BertOutput
from minibert.prediction.loading import Predictor
from minibert.prediction.sequences import (
    Batch,
    Piece,
    RefusedTextError,
    cut,
    given_texts,
    joined,
    on_cpu,
    streamed,
)
from minibert.prediction.settings import PredictionSettings
from minibert.prediction.windows import clearest_windows
from minibert.tokenizer import Tokenizer


class Candidate(NamedTuple):
    """A token that may stand for a mask."""

    token: str  # "##s" where it goes on with the word before
    probability: float
    text: str  # the text with it, other masks as they are


class Filling(NamedTuple):
    """What may stand for the masks of a text."""

    text: str  # the text with the best token for each mask
    masks: tuple[tuple[Candidate, ...], ...]  # of each mask in order, the best first
    truncated: bool
    windows: int


class MaskFiller(Predictor[BertForMaskedLM]):
    """Says which tokens may stand where a text has [MASK].

    >>> filler = MaskFiller.from_pretrained("bert-base-uncased")
    >>> filler.fill("Paris is the [MASK] of France.").text
    'Paris is the capital of France.'

    Each mask is filled by itself, while the others stay masks.  Made of a network, its tokenizer
    and settings, or by `from_pretrained`.  One filler serves any number of threads.

    Raises: ConfigError for settings of another task.
    """

    head = BertForMaskedLM
    tasks = ("masked_lm",)

    def __init__(
        self, model: BertForMaskedLM, tokenizer: Tokenizer, settings: PredictionSettings
    ) -> None:
        super().__init__(model, tokenizer, settings)
        self.mask = tokenizer.id_to_token(tokenizer.mask_id) or "[MASK]"

    @overload
    def fill(
        self,
        texts: str,
        *,
        top_k: int = 5,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Filling: ...

    @overload
    def fill(
        self,
        texts: list[str] | tuple[str, ...],
        *,
        top_k: int = 5,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> list[Filling]: ...

    def fill(
        self,
        texts: str | Sequence[str],
        *,
        top_k: int = 5,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Filling | list[Filling]:
        """The likeliest tokens for each mask of each text, in order; of one text alone, of it.

        In a text of several windows each mask is filled from the one that shows most around it.

        Args:
            texts: a text, or a list of texts.
            top_k: tokens to give for each mask, at most.
            batch_tokens: tokens computed at once.
            show_progress_bar: None shows one on a terminal, for more than a few batches.

        Raises: TypeError for anything but texts, with its index; TextError for a lone surrogate, a
            text without a mask, or with one behind the cut, or a long text under "error".
        """
        listed, _, single = given_texts(texts, None)
        found = self._filled(listed, top_k, batch_tokens, show_progress_bar)
        return found[0] if single else found

    def stream(
        self,
        items: Iterable[str],
        *,
        top_k: int = 5,
        chunk_texts: int | None = None,
        batch_tokens: int | None = None,
    ) -> Iterator[Filling]:
        """The fillings of any number of texts, in order.

        It holds `chunk_texts` of them in memory; a fault is reported with its index in the corpus.
        """

        def predict(chunk: list[str]) -> list[Filling]:
            texts, _, _ = given_texts(chunk, None)
            return self._filled(texts, top_k, batch_tokens, False)

        return streamed(items, predict, chunk_texts, self.settle)

    def _filled(
        self,
        texts: list[str],
        top_k: int,
        batch_tokens: int | None,
        show_progress_bar: bool | None,
    ) -> list[Filling]:
        if top_k < 1:
            raise ValueError(f"got top_k {top_k}, expected at least 1")
        found = self._masks(texts)
        best = iter(
            self.computed(
                [place.piece for masks in found for place in masks.places],
                lambda encoded, batch: self._best(encoded, batch, top_k), what="filling",
                # Of each mask there is a number for each word of the vocabulary.
                batch_tokens=BATCH_TOKENS if batch_tokens is None else batch_tokens,
                show_progress_bar=show_progress_bar,
            )
        )  # fmt: skip
        fillings = []
        for text, masks in zip(texts, found, strict=True):
            rows = [next(best)[place.row].tolist() for place in masks.places]
            candidates = tuple(
                tuple(self._candidate(text, place, *each) for each in row)
                for place, row in zip(masks.places, rows, strict=True)
            )
            whole = text
            for place, (first, *_) in reversed(list(zip(masks.places, candidates, strict=True))):
                whole = _with(whole, place, first.token)
            fillings.append(Filling(whole, candidates, masks.truncated, masks.windows))
        return fillings

    def _masks(self, texts: list[str]) -> "list[_Masks]":
        """Where the masks of each text are, and the window that shows most around each."""
        found, room = [], self.settings.max_length - 2
        for index, encoding in enumerate(self.tokenizer.encode(texts, offsets=True)):
            ids, offsets = encoding.ids[1:-1], encoding.offsets[1:-1]
            spans = cut(len(ids), room, self.settings, ("text", index))
            masked = [place for place, i in enumerate(ids) if i == self.tokenizer.mask_id]
            if not masked:
                why = f"has no {self.mask}, put one where a word is missing"
                raise RefusedTextError("text", index, why)
            if masked[-1] >= spans[-1][1]:
                raise RefusedTextError(
                    "text",
                    index,
                    f"has a {self.mask} as token {masked[-1] + 1}, expected it among the first "
                    f"{room}, all that is read; choose long_text 'windows'",
                )
            places = []
            for place, window in zip(masked, clearest_windows(spans)[masked].tolist(), strict=True):
                start, stop = spans[window]
                row = ids[start:place].count(self.tokenizer.mask_id)
                piece = joined(self.tokenizer, ids[start:stop])
                places.append(_Place(piece, row, *offsets[place]))
            found.append(_Masks(places, spans[-1][1] < len(ids), len(spans)))
        return found

    def _head_output(self, encoded: BertOutput) -> BertOutput:
        """Not the head: it is for the masked places alone."""
        return encoded

    def _computed_by_pytorch(self, batch: Batch) -> BertOutput:
        return self._encoder(
            batch.input_ids, token_type_ids=batch.token_type_ids, layout=batch.layout
        )

    def _best(self, encoded: BertOutput, batch: Batch, top_k: int) -> Sequence[Tensor]:
        """Of each piece `(masks, top_k, 2)`: the ids of the best tokens and their probabilities."""
        masked = batch.input_ids == self.tokenizer.mask_id
        table = self.model.bert.embeddings.token.weight
        logits = on_cpu(self.model.predictions(encoded.last_hidden_state[masked], table)).double()
        likely = (logits / self.settings.temperature).softmax(dim=1)
        # A table of embeddings may be larger than the vocabulary, for the sake of its speed.
        likely = likely[:, : self.tokenizer.vocab_size]
        best = likely.topk(min(top_k, likely.shape[1]), dim=1)
        counts = [int(part.sum()) for part in torch.split(masked, list(batch.layout.lengths))]
        return torch.split(torch.stack([best.indices.double(), best.values], dim=-1), counts)

    def _candidate(self, text: str, place: "_Place", number: float, likely: float) -> Candidate:
        token = self.tokenizer.id_to_token(int(number)) or f"[{int(number)}]"
        return Candidate(token, likely, _with(text, place, token))


class _Place(NamedTuple):
    """A mask: the piece that shows it, which of the masks there it is, where the text has it."""

    piece: Piece
    row: int
    start: int
    end: int


class _Masks(NamedTuple):
    """The masks of a text."""

    places: list[_Place]
    truncated: bool
    windows: int


def _with(text: str, place: _Place, token: str) -> str:
    """The text with a token in place of a mask, joined to the word before where it goes on."""
    before, behind = text[: place.start], text[place.end :]
    if token.startswith("##"):
        return f"{before.rstrip()}{token[2:]}{behind}"
    return f"{before}{token}{behind}"
