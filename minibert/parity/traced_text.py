"""One text, or a pair, through a network: its tokens, its stages, and a line about each stage."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minibert.errors import ParityError
from minibert.parity.recording import run
from minibert.parity.stages import encoder_of
from minibert.tokenizer import Tokenizer

MAX_LENGTH = 128  # tokens, where nobody asks for more: what people can still look at


@dataclass(frozen=True, eq=False)
class TracedText:
    """What a network made of a text or a pair.

    `tokens` are spelled as in the vocabulary.  `stages` are a batch of one, on the CPU, in the
    order in which they were computed.
    """

    text: str
    pair: str | None
    tokens: list[str]
    ids: list[int]
    token_type_ids: list[int]
    separators: list[int]  # the columns of [SEP]
    n_cut: int  # tokens that found no room
    stages: dict[str, Tensor]

    @property
    def cut_note(self) -> str:
        """What to say where not all of it is shown, else nothing."""
        if not self.n_cut:
            return ""
        n = len(self.tokens)
        which = f"the first {n}" if self.pair is None else f"{n}, cut from the longer text first,"
        return f"shows {which} of {n + self.n_cut:,} tokens; --max-length shows more"


class StageSummary(NamedTuple):
    """What can be said of a stage in a line; the figures are over its finite values.

    Where there are none, `low` is inf and `high` -inf.
    """

    name: str
    shape: tuple[int, ...]
    norm: float | None  # the mean length of a token's vector; None for what belongs to two tokens
    low: float
    high: float
    n_not_finite: int


def trace_text(
    model: nn.Module,
    tokenizer: Tokenizer,
    text: str,
    pair: str | None = None,
    *,
    max_length: int | None = None,
    stages: str | Iterable[str] = "*",
) -> TracedText:
    """Run a network on one text, in evaluation mode, and keep its stages.

    Args:
        model: a `BertModel` or one of minibert's heads.
        pair: a second text.
        max_length: tokens, special ones included, from which on it is cut; 128 when None, or the
            model's positions where these are fewer.
        stages: which to keep, as in `trace`.

    Raises: ParityError for more tokens than positions, a pair where the model has one token type,
        a tokenizer of another vocabulary, a pattern that matches no stage; TextError or
        TokenizerError for what cannot be tokenised.
    """
    config = encoder_of(model).config
    positions = config.max_position_embeddings
    if max_length is None:
        max_length = min(MAX_LENGTH, positions)
    if max_length > positions:
        raise ParityError(
            f"max_length is {max_length}, expected at most {positions}, the model's positions"
        )
    if pair is not None and config.type_vocab_size < 2:
        raise ParityError(
            f"got a pair, expected one text: the model has {config.type_vocab_size} token type, "
            "and a second text would need another"
        )
    pairs = None if pair is None else [pair]
    (encoding,) = tokenizer.encode([text], pairs, max_length=max_length)
    if max(encoding.ids) >= config.vocab_size:
        raise ParityError(
            f"the tokenizer gives the id {max(encoding.ids)}, expected at most "
            f"{config.vocab_size - 1}; it must be that of the checkpoint"
        )
    device = next(model.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in tokenizer.pad([encoding]).items()}
    found = run(model, inputs, stages)
    return TracedText(
        text,
        pair,
        tokens=[tokenizer.id_to_token(i) or "" for i in encoding.ids],
        ids=encoding.ids,
        token_type_ids=encoding.token_type_ids,
        separators=[at for at, i in enumerate(encoding.ids) if i == tokenizer.sep_id],
        n_cut=encoding.n_truncated,
        stages={name: tensor.cpu() for name, tensor in found.items()},
    )


def summaries(traced: TracedText) -> list[StageSummary]:
    """A line about each stage."""
    return [_summary(name, tensor) for name, tensor in traced.stages.items()]


def _summary(name: str, tensor: Tensor) -> StageSummary:
    values = tensor.double()
    finite = values.isfinite()
    low = values.masked_fill(~finite, torch.inf).min()
    high = values.masked_fill(~finite, -torch.inf).max()
    norm = None
    if not name.endswith((".scores", ".probabilities")):
        vectors = values.masked_fill(~finite, 0.0)
        if vectors.ndim == 4:  # (1, seq, heads, head_dim)
            vectors = vectors.flatten(-2)
        norm = float(vectors.norm(dim=-1).mean())
    n_not_finite = int((~finite).sum())
    return StageSummary(name, tuple(tensor.shape), norm, float(low), float(high), n_not_finite)
