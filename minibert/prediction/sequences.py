"""Texts as the token sequences that the network reads, and the network run over many of them.

texts -> token ids -> cut, in windows, or refused -> those that differ, sorted by length into
batches of a token budget -> packed, without padding -> what is read from the network, in order
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from minibert.embed import BATCH_TOKENS, CHUNK_TEXTS, KERNEL_TOKENS, budgeted_batches, progress
from minibert.errors import CheckpointError, ConfigError, TextError
from minibert.layout import Packed
from minibert.prediction.settings import PredictionSettings
from minibert.tokenizer import Tokenizer, checked_texts, truncated_lengths, window_spans

Result = TypeVar("Result")
Item = TypeVar("Item")


class RefusedTextError(TextError):
    """A text that cannot be read as asked: which of those given, and why."""

    def __init__(self, kind: str, index: int, why: str) -> None:
        super().__init__(kind, index, why)
        self.kind, self.index, self.why = kind, index, why

    def __str__(self) -> str:
        return f"{self.kind} {self.index} {self.why}"


class Piece(NamedTuple):
    """A sequence as the network reads it, special tokens included."""

    ids: tuple[int, ...]
    n_first: int  # tokens of type 0; those of a second text, behind them, have type 1


@dataclass(frozen=True, eq=False)
class Pieces:
    """Texts, or pairs, as sequences: one each, or several windows."""

    pieces: list[Piece] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)  # of each piece, the number of its text
    tokens: list[int] = field(default_factory=list)  # of each piece, those of the text in it
    truncated: list[bool] = field(default_factory=list)  # of each text

    @property
    def windows(self) -> list[int]:
        """How many pieces each text has."""
        counts = [0] * len(self.truncated)
        for owner in self.owners:
            counts[owner] += 1
        return counts

    def add(self, piece: Piece, n_tokens: int) -> None:
        """Put a piece to the text begun last."""
        self.pieces.append(piece)
        self.owners.append(len(self.truncated) - 1)
        self.tokens.append(n_tokens)


def text_pieces(tokenizer: Tokenizer, settings: PredictionSettings, texts: list[str]) -> Pieces:
    """Each text as [CLS] text [SEP].

    Raises: TextError for a long text where settings say "error".
    """
    found, room = Pieces(), settings.max_length - 2
    for index, ids in enumerate(tokenizer.ids(texts)):
        found.truncated.append(len(ids) > room and settings.long_text == "truncate")
        for start, stop in cut(len(ids), room, settings, ("text", index)):
            found.add(joined(tokenizer, ids[start:stop]), stop - start)
    return found


def pair_pieces(
    tokenizer: Tokenizer, settings: PredictionSettings, texts: list[str], pairs: list[str]
) -> Pieces:
    """Each pair as [CLS] text [SEP] its second text [SEP].

    "truncate" cuts the longer of the two first, as training does.  "windows" keeps the shorter one
    in every window, and takes windows of the longer one; a shorter one that alone fills more than
    half of the room is cut to that, and counts as truncated.

    Raises: TextError for a long pair where settings say "error".
    """
    room = settings.max_length - 3
    if room < 1:
        raise ConfigError("max_length is 3, expected 4 at least for pairs: three special tokens")
    found = Pieces()
    columns = zip(tokenizer.ids(texts), tokenizer.ids(pairs), strict=True)
    for index, (first, second) in enumerate(columns):
        whole = len(first) + len(second) <= room
        if settings.long_text != "windows" or whole:
            n_both, what = len(first) + len(second), ("pair", index)
            ((_, stop),) = cut(n_both, room, settings, what, special=3)
            lengths = truncated_lengths(
                len(first), len(second), room=room, truncation="longest_first"
            )
            assert lengths is not None  # which this truncation always can
            found.truncated.append(not whole)
            found.add(joined(tokenizer, first[: lengths[0]], second[: lengths[1]]), stop)
            continue
        kept = min(len(first), len(second), room // 2)
        found.truncated.append(kept < min(len(first), len(second)))
        slides = max(len(first), len(second))
        for start, stop in cut(slides, room - kept, settings, ("pair", index)):
            if len(second) >= len(first):
                piece = joined(tokenizer, first[:kept], second[start:stop])
            else:
                piece = joined(tokenizer, first[start:stop], second[:kept])
            found.add(piece, stop - start)
    return found


def cut(
    n_tokens: int,
    room: int,
    settings: PredictionSettings,
    what: tuple[str, int],
    *,
    special: int = 2,
) -> list[tuple[int, int]]:
    """The (start, stop) of what is read of a text: the part that fits, or windows of it all.

    Raises: RefusedTextError that calls the text `what`, where it is too long under "error".
    """
    if n_tokens <= room:
        return [(0, n_tokens)]
    if settings.long_text == "error":
        raise RefusedTextError(
            *what,
            f"has {n_tokens + special} tokens, expected at most {room + special}; shorten it, or "
            "choose long_text 'truncate' or 'windows'",
        )
    if settings.long_text == "truncate":
        return [(0, room)]
    return window_spans(n_tokens, room, settings.overlap(room))


def joined(
    tokenizer: Tokenizer, first: Sequence[int], second: Sequence[int] | None = None
) -> Piece:
    """One text or two with the special tokens around them."""
    ids = (tokenizer.cls_id, *first, tokenizer.sep_id)
    if second is None:
        return Piece(ids, len(ids))
    return Piece((*ids, *second, tokenizer.sep_id), len(ids))


class Batch(NamedTuple):
    """Pieces end to end, without padding."""

    input_ids: Int[Tensor, " tokens"]
    token_type_ids: Int[Tensor, " tokens"]
    layout: Packed


def computed(
    model: nn.Module,
    pieces: Sequence[Piece],
    read: Callable[[Batch], Iterable[Tensor]],
    *,
    what: str,
    batch_tokens: int | None = None,
    show_progress_bar: bool | None = None,
    by_kernels: bool = False,
) -> list[Tensor]:
    """What `read` gives for each piece, in order; equal pieces are computed once.

    Args:
        read: runs the network on a batch, and gives a tensor for each of its pieces.
        what: the name of the bar.
        batch_tokens: tokens computed at once, at most; None: as many as suit what computes.
        show_progress_bar: None shows one on a terminal, for more than a few batches.
        by_kernels: whether the kernels compute, which more suit than PyTorch.

    Raises: CheckpointError where the network gives NaN or infinity.
    """
    budget = KERNEL_TOKENS if by_kernels else BATCH_TOKENS
    if batch_tokens is not None:
        budget = batch_tokens
    if budget < 1:
        raise ValueError(f"got batch_tokens {batch_tokens}, expected at least 1")
    device = next(model.parameters()).device
    rows: dict[Piece, int] = {}
    row_of = [rows.setdefault(piece, len(rows)) for piece in pieces]
    distinct = list(rows)
    lengths = [len(piece.ids) for piece in distinct]
    order = sorted(range(len(distinct)), key=lengths.__getitem__, reverse=True)
    found: list[Tensor] = [torch.empty(0)] * len(distinct)
    long = sum(lengths) > 8 * budget
    with torch.no_grad(), progress(len(distinct), what, long=long, asked=show_progress_bar) as bar:
        for members in budgeted_batches(order, lengths, budget):
            batch = _batch([distinct[member] for member in members], device)
            for member, values in zip(members, read(batch), strict=True):
                found[member] = _finite(values)
            bar.update(len(members))
    return [found[row] for row in row_of]


def on_cpu(logits: Tensor) -> Tensor:
    """Logits in the precision that they are read in: float64 where computed so, else float32."""
    return logits.cpu() if logits.dtype == torch.float64 else logits.float().cpu()


def given_texts(texts: object, pairs: object) -> tuple[list[str], list[str] | None, bool]:
    """Texts and second texts as lists, and whether it was one text alone.

    Raises: TypeError for anything but texts, TextError for what is no Unicode, both with the index;
        TextError where there is not a second text for each.
    """
    single = isinstance(texts, str)
    if pairs is not None and isinstance(pairs, str) != single:
        raise TypeError("got one text and a list of texts, expected a second text for each text")
    listed = checked_texts([texts] if single else texts, "texts")
    if pairs is None:
        return listed, None, single
    seconds = checked_texts([pairs] if single else pairs, "pairs")
    if len(seconds) != len(listed):
        raise TextError(
            f"got {len(seconds)} second texts, expected one for each of {len(listed)} texts"
        )
    return listed, seconds, single


def streamed(
    items: Iterable[Item],
    predict: Callable[[list[Item]], Sequence[Result]],
    chunk_texts: int | None,
    settle: Callable[[int | None], object] = lambda n_texts: None,
) -> Iterator[Result]:
    """The results of any number of items, with a chunk of them in memory.

    Args:
        settle: told how many there are, or None, before the first is predicted.
    """
    if isinstance(items, str):
        raise TypeError("got one text, expected an iterable of texts; put it into a list")
    size = CHUNK_TEXTS if chunk_texts is None else chunk_texts
    if size < 1:
        raise ValueError(f"got chunk_texts {chunk_texts}, expected at least 1")
    settle(len(items) if isinstance(items, Sized) else None)
    iterator, done = iter(items), 0
    while chunk := list(islice(iterator, size)):
        try:
            results = predict(chunk)
        except RefusedTextError as error:
            raise RefusedTextError(error.kind, error.index + done, error.why) from None
        except (TextError, TypeError) as error:
            counted = f"; counted from text {done} of the corpus" if done else ""
            raise type(error)(f"{error}{counted}") from None
        yield from results
        done += len(chunk)


def columns(items: Sequence[str | tuple[str, str]]) -> tuple[list[str], list[str] | None]:
    """Texts, or pairs of them, as a list of first and one of second texts.

    Raises: TypeError, with the index, where texts and pairs are mixed, or for something else.
    """
    if not items or isinstance(items[0], str):
        return checked_texts(items, "texts"), None
    for index, item in enumerate(items):
        if not isinstance(item, tuple) or len(item) != 2:
            raise TypeError(f"texts[{index}] is {str(item)[:40]!r}, expected a tuple of two texts")
    firsts, seconds = zip(*items, strict=True)
    return checked_texts(firsts, "texts"), checked_texts(seconds, "pairs")


def _batch(pieces: Sequence[Piece], device: torch.device) -> Batch:
    lengths = [len(piece.ids) for piece in pieces]
    types = [[0] * piece.n_first + [1] * (len(piece.ids) - piece.n_first) for piece in pieces]
    return Batch(
        torch.tensor([i for piece in pieces for i in piece.ids]).to(device),
        torch.tensor([kind for row in types for kind in row]).to(device),
        Packed.from_lengths(lengths, device),
    )


def _finite(values: Tensor) -> Tensor:
    if not values.isfinite().all():
        raise CheckpointError(
            "the network gave NaN or infinity: the numbers of its dtype do not reach that far; "
            "compute in float32 or bfloat16"
        )
    return values
