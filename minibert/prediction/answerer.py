"""Answers to questions, found in texts of any length: `QuestionAnswerer`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

import torch
from torch import Tensor

from minibert.errors import ConfigError
from minibert.heads import BertForQuestionAnswering, QuestionAnsweringOutput
from minibert.prediction.loading import Predictor, check_pairs
from minibert.prediction.sequences import (
    Batch,
    Piece,
    RefusedTextError,
    columns,
    cut,
    given_texts,
    joined,
    on_cpu,
    streamed,
)
from minibert.prediction.settings import PredictionSettings
from minibert.prediction.windows import BestSpans, best_spans
from minibert.tokenizer import Encoding, Tokenizer

# Answers that differ in a part of a word are one, so more are looked at than are asked for.
_SPARE = 10


class Candidate(NamedTuple):
    """A possible answer, and where it stands in the context; "" at 0 for "there is none"."""

    answer: str
    score: float  # a probability
    start: int
    end: int  # the first character behind it


class Answer(NamedTuple):
    """The best answer to a question; "" with score 0 where the context has nothing to choose."""

    answer: str
    score: float
    start: int
    end: int
    candidates: tuple[Candidate, ...]  # the best first, itself among them
    truncated: bool
    windows: int


class SpanLogits(NamedTuple):
    """The logits of a context's windows."""

    spans: list[tuple[int, int]]  # (start, stop) of each over the tokens of the context
    windows: list[Tensor]  # of each `(window, 2)`: start and end
    nulls: Tensor  # `(windows, 2)`, of [CLS]: that there is no answer


class QuestionAnswerer(Predictor[BertForQuestionAnswering]):
    """Finds the part of a context that answers a question.

    >>> answerer = QuestionAnswerer.from_pretrained("run")
    >>> answerer.answer("Where does Anna live?", "Anna Smith lives in Paris.").answer
    'Paris'

    A context that is too long is read in windows that overlap, each behind the whole question.
    Made of a network, its tokenizer and settings, or by `from_pretrained`.  One answerer serves any
    number of threads.

    Raises: ConfigError for settings of another task.
    """

    head = BertForQuestionAnswering
    tasks = ("spans",)

    def __init__(
        self, model: BertForQuestionAnswering, tokenizer: Tokenizer, settings: PredictionSettings
    ) -> None:
        super().__init__(model, tokenizer, settings)
        if settings.max_length < 8:
            raise ConfigError(
                f"max_length is {settings.max_length}, expected 8 at least: a question, a part of "
                "its context and three special tokens"
            )
        check_pairs(settings, model.config, given=True)

    @overload
    def answer(
        self,
        questions: str,
        contexts: str,
        *,
        top_k: int = 1,
        max_answer_tokens: int | None = None,
        no_answer: bool | None = None,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Answer: ...

    @overload
    def answer(
        self,
        questions: list[str] | tuple[str, ...],
        contexts: list[str] | tuple[str, ...],
        *,
        top_k: int = 1,
        max_answer_tokens: int | None = None,
        no_answer: bool | None = None,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> list[Answer]: ...

    def answer(
        self,
        questions: str | Sequence[str],
        contexts: str | Sequence[str],
        *,
        top_k: int = 1,
        max_answer_tokens: int | None = None,
        no_answer: bool | None = None,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Answer | list[Answer]:
        """The best answer to each question in its context, in the order given.

        An answer is of whole words.  Its score is the probability of its start, among all tokens of
        the context, times that of its end.
        Differs: the pipeline of transformers 4 took probabilities within each window, so that one
        without the answer could win; of a context that fits one window the scores are the same.

        Args:
            questions: a question, or a list of them.
            contexts: what each is to be answered from.
            top_k: candidates to give at most.
            max_answer_tokens: that an answer may have; None takes what the settings say.
            no_answer: whether "there is none" may win, for models trained with such questions;
                None does as the settings say.
            batch_tokens: tokens computed at once.
            show_progress_bar: None shows one on a terminal, for more than a few batches.

        Raises: TypeError for anything but texts, with its index; TextError for a lone surrogate, a
            question that leaves no room for its context, or a long context under "error".
        """
        firsts, seconds, single = given_texts(questions, contexts)
        assert seconds is not None  # for there are contexts
        choice = self._choice(top_k, max_answer_tokens, no_answer)
        found = self._answers(firsts, seconds, choice, batch_tokens, show_progress_bar)
        return found[0] if single else found

    def stream(
        self,
        items: Iterable[tuple[str, str]],
        *,
        top_k: int = 1,
        max_answer_tokens: int | None = None,
        no_answer: bool | None = None,
        chunk_texts: int | None = None,
        batch_tokens: int | None = None,
    ) -> Iterator[Answer]:
        """The answers to any number of (question, context), in order.

        It holds `chunk_texts` of them in memory; a fault is reported with its index in the corpus.
        """
        choice = self._choice(top_k, max_answer_tokens, no_answer)

        def predict(chunk: list[tuple[str, str]]) -> list[Answer]:
            firsts, seconds = columns(chunk)
            if seconds is None:
                raise TypeError("got texts alone, expected tuples of a question and its context")
            return self._answers(firsts, seconds, choice, batch_tokens, False)

        return streamed(items, predict, chunk_texts, self.settle)

    def logits(
        self,
        questions: Sequence[str],
        contexts: Sequence[str],
        *,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> list[SpanLogits]:
        """The logits of each context's windows, before temperature; for `best_spans`."""
        firsts, seconds, _ = given_texts(questions, contexts)
        assert seconds is not None  # for there are contexts
        return self._logits(self._readings(firsts, seconds), batch_tokens, show_progress_bar)

    def _choice(
        self, top_k: int, max_answer_tokens: int | None, no_answer: bool | None
    ) -> "_Choice":
        """Which answers are asked for, by an argument or by the settings."""
        if max_answer_tokens is None:
            max_answer_tokens = self.settings.max_answer_tokens
        for name, value in (("top_k", top_k), ("max_answer_tokens", max_answer_tokens)):
            if value < 1:
                raise ValueError(f"got {name} {value}, expected at least 1")
        may_lack = self.settings.no_answer if no_answer is None else no_answer
        return _Choice(top_k, max_answer_tokens, may_lack)

    def _answers(
        self,
        questions: list[str],
        contexts: list[str],
        choice: "_Choice",
        batch_tokens: int | None,
        show_progress_bar: bool | None,
    ) -> list[Answer]:
        readings = self._readings(questions, contexts)
        found = []
        logits = self._logits(readings, batch_tokens, show_progress_bar)
        for context, reading, windows in zip(contexts, readings, logits, strict=True):
            best = best_spans(
                [window / self.settings.temperature for window in windows.windows],
                windows.spans,
                windows.nulls / self.settings.temperature if choice.no_answer else None,
                max_tokens=choice.max_answer_tokens,
                top_k=choice.top_k * _SPARE,
            )
            candidates = _candidates(context, reading.context, best, choice)
            found.append(
                Answer(
                    *(candidates[0] if candidates else Candidate("", 0.0, 0, 0)),
                    candidates=candidates,
                    truncated=reading.truncated,
                    windows=len(reading.spans),
                )
            )
        return found

    def _readings(self, questions: list[str], contexts: list[str]) -> "list[_Reading]":
        """The tokens of each context, and its windows behind the question."""
        found = []
        room, asked = self.settings.max_length - 3, self.tokenizer.ids(questions)
        encodings = self.tokenizer.encode(contexts, offsets=True)
        for index, (question, context) in enumerate(zip(asked, encodings, strict=True)):
            if len(question) > room // 2:
                raise RefusedTextError(
                    "question",
                    index,
                    f"has {len(question)} tokens, expected at most {room // 2}, half of what the "
                    "model reads at once; shorten it",
                )
            ids, size = context.ids[1:-1], room - len(question)
            what = ("context", index)
            spans = cut(len(ids), size, self.settings, what, special=3 + len(question))
            pieces = [joined(self.tokenizer, question, ids[start:stop]) for start, stop in spans]
            found.append(_Reading(context, spans, pieces, spans[-1][1] < len(ids)))
        return found

    def _logits(
        self, readings: "list[_Reading]", batch_tokens: int | None, show_progress_bar: bool | None
    ) -> list[SpanLogits]:
        windows = iter(
            self.computed(
                [piece for reading in readings for piece in reading.pieces],
                self._logits_of, what="answering",
                batch_tokens=batch_tokens, show_progress_bar=show_progress_bar,
            )
        )  # fmt: skip
        found = []
        for reading in readings:
            logits = [next(windows) for _ in reading.pieces]
            contexts = [
                window[piece.n_first : -1]
                for window, piece in zip(logits, reading.pieces, strict=True)
            ]
            nulls = torch.stack([window[0] for window in logits])
            found.append(SpanLogits(reading.spans, contexts, nulls))
        return found

    def _logits_of(self, out: QuestionAnsweringOutput, batch: Batch) -> Sequence[Tensor]:
        both = torch.stack([out.start_logits, out.end_logits], dim=-1)
        return torch.split(on_cpu(both), list(batch.layout.lengths))


class _Choice(NamedTuple):
    """Which answers are asked for."""

    top_k: int
    max_answer_tokens: int
    no_answer: bool


class _Reading(NamedTuple):
    """A question and its context as the network reads them."""

    context: Encoding
    spans: list[tuple[int, int]]  # the windows, over the tokens of the context
    pieces: list[Piece]
    truncated: bool


def _candidates(
    text: str, encoding: Encoding, best: BestSpans, choice: _Choice
) -> tuple[Candidate, ...]:
    """The answers as parts of the text, of whole words, each once."""
    offsets, words = encoding.offsets[1:-1], encoding.word_ids[1:-1]
    found: dict[tuple[int, int], Candidate] = {}
    if choice.no_answer:
        found[0, 0] = Candidate("", best.no_answer, 0, 0)
    for first, stop, probability in best.spans:
        last = stop - 1
        while first > 0 and words[first - 1] == words[first]:
            first -= 1
        while last + 1 < len(words) and words[last + 1] == words[last]:
            last += 1
        start, end = offsets[first][0], offsets[last][1]
        found.setdefault((start, end), Candidate(text[start:end], probability, start, end))
    ordered = sorted(found.values(), key=lambda candidate: -candidate.score)
    return tuple(ordered[: choice.top_k])
