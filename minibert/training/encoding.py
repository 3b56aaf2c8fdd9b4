"""Rows and their targets as examples: tokenised, cut or read in windows, tags at their tokens."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from minibert.errors import DataError, RunError
from minibert.prediction.sequences import joined
from minibert.prediction.settings import COMPARED, PredictionSettings
from minibert.tokenizer import Encoding, Tokenizer, window_spans
from minibert.training.examples import Examples
from minibert.training.losses import IGNORED
from minibert.training.masking import sentence_pairs
from minibert.training.processes import current
from minibert.training.rows import Row
from minibert.training.run_config import RunConfig

# Of tokens of a text, where an answer is that there is none of; and one that no window holds whole,
# or that was cut away with the end of its text.
NOWHERE, LOST = (-1, -1), (IGNORED, IGNORED)

_CHUNK = 4096  # texts that are tokenised at once


@dataclass
class Cut:
    """How much of the texts does not fit into `max_length`."""

    n_texts: int = 0
    n_tokens: int = 0
    cut_texts: int = 0
    cut_tokens: int = 0

    def add(self, n_tokens: int, n_cut: int = 0) -> None:
        """Count a text of so many tokens, of which so many are cut away."""
        self.n_texts += 1
        self.n_tokens += n_tokens
        self.cut_texts += n_cut > 0
        self.cut_tokens += n_cut

    def __str__(self) -> str:
        mean = self.n_tokens / max(1, self.n_texts)
        if not self.cut_texts:
            return f"{mean:.1f} tokens a text, none cut"
        return (
            f"{mean:.1f} tokens a text; {self.cut_texts / self.n_texts:.2%} of the texts and "
            f"{self.cut_tokens / self.n_tokens:.2%} of the tokens are cut"
        )


class Encoded(NamedTuple):
    """Examples, and what became of the lengths of their texts."""

    examples: Examples
    cut: Cut


def encode_rows(
    run: RunConfig, rows: Sequence[Row], targets: Sequence[Any], tokenizer: Tokenizer, what: str
) -> Encoded:
    """The examples of a task.

    Args:
        rows: good ones; texts are texts, tags as many as words.
        targets: what `labels.py` made of their labels, one a row.
        what: "train", or what is measured on: there words are judged, whatever their pieces learn.

    Raises: DataError for a text that is too long under long_text = "error", or a question that
        leaves its text no room; RunError for settings that do not fit.
    """
    if run.task == "masked_lm":
        return _running_text(run, rows, tokenizer, what)
    if run.task in COMPARED:
        return _sets_of_texts(run, rows, targets, tokenizer, what)
    if run.task == "spans":
        return _answers(run, rows, targets, tokenizer, what)
    return _texts(run, rows, targets, tokenizer, what)


# ---- a text, or a pair of texts read together; words with tags


def _texts(
    run: RunConfig, rows: Sequence[Row], targets: Sequence[Any], tokenizer: Tokenizer, what: str
) -> Encoded:
    data, found, cut = run.data, Examples([], [], []), Cut()
    windows = data.long_text == "windows"
    if windows and data.text_pair is not None:
        raise RunError("data.long_text is 'windows', expected 'truncate' or 'error' for pairs")
    overlap = overlaps(run)(data.max_length - 2)
    of_words, every = run.task == "tokens", data.label_all_pieces and what == "train"
    for chunk in _chunks(len(rows), what):
        encodings = _encoded(run, [rows[i] for i in chunk], tokenizer)
        for i, encoding in zip(chunk, encodings, strict=True):
            _count(cut, run, rows[i], encoding)
            target = aligned(targets[i], encoding.word_ids, every=every) if of_words else targets[i]
            if windows:
                _add_windows(found, i, encoding, target, data.max_length, overlap, tags=of_words)
            else:
                _add(found, encoding, target)
    return Encoded(found, cut)


def _encoded(run: RunConfig, rows: Sequence[Row], tokenizer: Tokenizer) -> list[Encoding]:
    """The texts, pairs or words of rows, whole where they are read in windows, else cut."""
    data = run.data
    limit = None if data.long_text == "windows" else data.max_length
    if run.task == "tokens":
        return tokenizer.encode_words([row.value(data.words) for row in rows], max_length=limit)
    pairs = None if data.text_pair is None else [_text(row, data.text_pair) for row in rows]
    return tokenizer.encode([_text(row, data.text) for row in rows], pairs, max_length=limit)


def _count(cut: Cut, run: RunConfig, row: Row, encoding: Encoding) -> None:
    """Note how long a text is.

    Raises: DataError where it is too long, and is not to be cut.
    """
    n_tokens = len(encoding.ids) + encoding.n_truncated
    cut.add(n_tokens, encoding.n_truncated)
    if encoding.n_truncated and run.data.long_text == "error":
        others = "'truncate' or 'windows'" if run.data.text_pair is None else "'truncate'"
        raise DataError(
            f"{row.place}: has {n_tokens} tokens, expected at most {run.data.max_length}; raise "
            f"data.max_length, or set data.long_text to {others}"
        )


def _add(found: Examples, encoding: Encoding, target: Any) -> None:
    found.ids.append(encoding.ids)
    found.types.append(encoding.token_type_ids)
    found.targets.append(target)


def _add_windows(
    found: Examples,
    text: int,
    encoding: Encoding,
    target: Any,
    max_length: int,
    overlap: int,
    *,
    tags: bool,
) -> None:
    """The windows of a text, each between [CLS] and [SEP], and each with the text's target.

    Args:
        tags: whether the target has a tag for each token, of which a window gets its own.
    """
    first, *inner, last = encoding.ids
    for start, stop in window_spans(len(inner), max_length - 2, overlap):
        found.ids.append([first, *inner[start:stop], last])
        found.types.append([0] * (stop - start + 2))
        own = [IGNORED, *target[1 + start : 1 + stop], IGNORED] if tags else target
        found.targets.append(own)
        found.texts.append(text)
        found.starts.append(start)


def overlaps(run: RunConfig) -> Callable[[int], int]:
    """How many of its tokens a window repeats of the one before, by its size; as in prediction.

    Raises: RunError for more than half of them.
    """
    given, most = run.data.window_overlap, (run.data.max_length - 2) // 2
    if given is not None and given > most:
        raise RunError(
            f"data.window_overlap is {given}, expected at most {most}, half of what "
            "data.max_length leaves"
        )
    length = run.data.max_length
    return PredictionSettings(task=run.task, max_length=length, window_overlap=given).overlap


def aligned(tags: Sequence[int], word_ids: Sequence[int | None], *, every: bool) -> list[int]:
    """The tag of each token: its word's on the first piece, or on every one; none elsewhere."""
    found, before = [], None
    for word in word_ids:
        first = word is not None and word != before
        found.append(tags[word] if word is not None and (first or every) else IGNORED)
        before = word
    return found


# ---- texts that get a vector each


def _sets_of_texts(
    run: RunConfig, rows: Sequence[Row], targets: Sequence[Any], tokenizer: Tokenizer, what: str
) -> Encoded:
    data = run.data
    if data.text_pair is None:
        raise RunError(f"data.text_pair is missing, expected a column for task {run.task!r}")
    if data.long_text == "windows":
        raise RunError(f"data.long_text is 'windows', expected 'truncate' for task {run.task!r}")
    columns = [data.text, data.text_pair, *data.negatives]
    found, cut = Examples([], [], list(targets), n_parts=len(columns)), Cut()
    for chunk in _chunks(len(rows), what):
        owners = [rows[i] for i in chunk for _ in columns]
        texts = [_text(rows[i], column) for i in chunk for column in columns]
        encodings = tokenizer.encode(texts, max_length=data.max_length)
        for row, encoding in zip(owners, encodings, strict=True):
            _count(cut, run, row, encoding)
            found.ids.append(encoding.ids)
            found.types.append(encoding.token_type_ids)
    return Encoded(found, cut)


# ---- questions, and where in a text their answers stand


def _answers(
    run: RunConfig, rows: Sequence[Row], targets: Sequence[Any], tokenizer: Tokenizer, what: str
) -> Encoded:
    """Each question with each window of its text, as `QuestionAnswerer` reads them.

    The target is the answer's first and last token; [CLS] in a window without all of it, and where
    there is none; LOST where no window has it.

    Source: Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 4.2 and 4.3.
    """
    data, found, cut = run.data, Examples([], [], []), Cut()
    if data.text_pair is None:
        raise RunError("data.text_pair is missing, expected the column of the text of the answer")
    room = data.max_length - 3
    if room < 5:
        raise RunError(f"data.max_length is {data.max_length}, expected at least 8 for questions")
    overlap = overlaps(run)
    for chunk in _chunks(len(rows), what):
        questions = tokenizer.ids([_text(rows[i], data.text) for i in chunk])
        contexts = tokenizer.encode([_text(rows[i], data.text_pair) for i in chunk], offsets=True)
        for i, question, context in zip(chunk, questions, contexts, strict=True):
            ids, n_first = context.ids[1:-1], len(question) + 2
            size = room - len(question)
            _check_room(run, rows[i], len(question), len(ids), room)
            spans = window_spans(len(ids), size, overlap(size))
            if data.long_text != "windows":
                spans = [(0, min(size, len(ids)))]
            cut.add(n_first + len(ids) + 1, len(ids) - spans[-1][1])
            answer = token_span(context.offsets[1:-1], *targets[i])
            for (start, _), target in zip(spans, windowed(answer, spans), strict=True):
                piece = joined(tokenizer, question, ids[start : start + size])
                found.ids.append(list(piece.ids))
                found.types.append([0] * n_first + [1] * (len(piece.ids) - n_first))
                found.targets.append(_of_window(target, n_first))
                found.texts.append(i)
                found.starts.append(start - n_first)
    return Encoded(found, cut)


def _check_room(run: RunConfig, row: Row, n_question: int, n_text: int, room: int) -> None:
    if n_question > room // 2:
        raise DataError(
            f"{row.place}: the question has {n_question} tokens, expected at most {room // 2}, "
            "half of what data.max_length leaves; shorten it, or raise data.max_length"
        )
    if run.data.long_text == "error" and n_question + n_text > room:
        raise DataError(
            f"{row.place}: question and text have {n_question + n_text + 3} tokens, expected at "
            f"most {room + 3}; raise data.max_length, or set data.long_text to 'truncate' or "
            "'windows'"
        )


def token_span(offsets: Sequence[tuple[int, int]], start: int, stop: int) -> tuple[int, int]:
    """The first and the last token that hold any of the characters from `start` to `stop`.

    NOWHERE where these are none; LOST where no token holds any of them.
    """
    if start == stop:
        return NOWHERE
    inside = [i for i, (begin, end) in enumerate(offsets) if begin < stop and end > start]
    return (inside[0], inside[-1]) if inside else LOST


def _of_window(answer: tuple[int, int], n_first: int) -> tuple[int, int]:
    """What the network is to find: tokens behind the question, or [CLS]."""
    if answer == LOST:
        return LOST
    return (0, 0) if answer == NOWHERE else (answer[0] + n_first, answer[1] + n_first)


def windowed(answer: tuple[int, int], spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where an answer is in each window of its text: NOWHERE in one that has not all of it.

    LOST in all where no window has, for then none can be told from a text without an answer.
    """
    if answer in (NOWHERE, LOST):
        return [answer] * len(spans)
    first, last = answer
    found = [
        (first - start, last - start) if start <= first and last < stop else NOWHERE
        for start, stop in spans
    ]
    return found if any(each != NOWHERE for each in found) else [LOST] * len(spans)


# ---- running text


def _running_text(run: RunConfig, rows: Sequence[Row], tokenizer: Tokenizer, what: str) -> Encoded:
    """Blocks of `max_length` tokens; the lines of a text file run on, other rows begin a block.

    Source: the blocks are FULL-SENTENCES of Liu et al. 2019, https://arxiv.org/abs/1907.11692,
        section 4.2.
    Differs: there a separator stands between documents.
    """
    data, cut = run.data, Cut()
    room = data.max_length - 2
    documents: list[list[list[int]]] = []
    before: Any = object()
    for chunk in _chunks(len(rows), what):
        for i, ids in zip(
            chunk, tokenizer.ids([_text(rows[i], data.text) for i in chunk]), strict=True
        ):
            cut.add(len(ids))
            document = _document(rows[i], run.masking.next_sentence)
            if document is None or document != before:
                documents.append([])
            before = document
            if ids:
                documents[-1].append(ids)
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    found = Examples([], [], [])
    if run.masking.next_sentence:
        generator = torch.Generator().manual_seed(run.training.seed)
        for pair in sentence_pairs(documents, max_tokens=data.max_length, generator=generator):
            found.ids.append([cls, *pair.first, sep, *pair.second, sep])
            found.types.append([0] * (len(pair.first) + 2) + [1] * (len(pair.second) + 1))
            found.targets.append(pair.label)
        return Encoded(found, cut)
    for document in documents:
        tokens = [token for ids in document for token in ids]
        for start in range(0, len(tokens), room):
            block = tokens[start : start + room]
            found.ids.append([cls, *block, sep])
            found.types.append([0] * (len(block) + 2))
            found.targets.append(0)
    return Encoded(found, cut)


def _document(row: Row, by_empty_lines: bool) -> Any:
    """What a line of a text file is a part of; None for a row that is a text by itself."""
    if "document" not in row.values:
        return None
    return row.values["document"] if by_empty_lines else row.place.file


# ---- what they share


def _text(row: Row, column: str) -> str:
    value = row.value(column)
    assert isinstance(value, str)  # checked before
    return value


def _chunks(n_rows: int, what: str) -> Iterator[range]:
    """Rows a few thousand at a time, with a bar on a terminal where there are many."""
    from tqdm import tqdm

    parts: Iterable[range] = [
        range(start, min(start + _CHUNK, n_rows)) for start in range(0, n_rows, _CHUNK)
    ]
    shown = n_rows > 4 * _CHUNK and current().is_first
    yield from tqdm(parts, desc=f"tokenising {what}", disable=None if shown else True)
