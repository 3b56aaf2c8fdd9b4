"""How a batch of token sequences lies in memory: `Padded` rows, or one `Packed` run of tokens.

Everything in BERT but attention works on each token alone, so it takes `(batch, seq, hidden)` and
`(tokens, hidden)` alike. What does depend on the layout is answered here: the position of each
token, which tokens see each other, and where each sequence begins.

    Padded    [CLS] a b [SEP] [PAD]      Packed    [CLS] a b [SEP] [CLS] c d e [SEP]
              [CLS] c d e     [SEP]                cu_seqlens = 0, 4, 9
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

# How many there are: a number, or what stands for any while torch.export traces a network. torch's
# own signatures call both int.
if TYPE_CHECKING:
    Size = int
else:
    Size = int | torch.SymInt


@dataclass(frozen=True, eq=False)
class Padded:
    """Rows of equal length; `mask` is True where a token is attended, None where all are."""

    batch: Size
    seq: Size
    mask: Bool[Tensor, "batch seq"] | None
    device: torch.device

    @classmethod
    def of(
        cls,
        input_ids: Integer[Tensor, "batch seq"],
        attention_mask: Integer[Tensor, "batch seq"] | Bool[Tensor, "batch seq"] | None = None,
    ) -> "Padded":
        """The layout of a padded batch; any integer but 0 in `attention_mask` means attend."""
        batch, seq = input_ids.shape
        mask = None if attention_mask is None else attention_mask.bool()
        return cls(batch, seq, mask, input_ids.device)

    @cached_property
    def positions(self) -> Int[Tensor, " seq"]:
        """Column numbers from 0: padding has positions too, so left padding shifts the text."""
        return torch.arange(self.seq, device=self.device)

    @property
    def shape(self) -> tuple[Size, ...]:
        """That of the ids: `(batch, seq)`."""
        return self.batch, self.seq

    @property
    def longest(self) -> Size:
        """One more than the largest position."""
        return self.seq

    def first(self, hidden: Float[Tensor, "batch seq hidden"]) -> Float[Tensor, "batch hidden"]:
        """Column 0 of each row, attended or not."""
        return hidden[:, 0]

    def visible(self) -> Bool[Tensor, "batch 1 1 seq"] | None:
        """True where a key may be attended, to broadcast against scores; None where all may."""
        return None if self.mask is None else self.mask[:, None, None, :]


@dataclass(frozen=True, eq=False)
class Packed:
    """Sequences end to end without padding; each attends only to itself."""

    lengths: tuple[int, ...]
    positions: Int[Tensor, " tokens"]

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(
                f"got sequence lengths {list(self.lengths)[:8]}, expected at least one sequence "
                "and at least one token in each; leave empty sequences out"
            )
        if sum(self.lengths) != len(self.positions):
            raise ValueError(
                f"the sequence lengths add up to {sum(self.lengths)}, "
                f"but there are {len(self.positions)} positions; expected one for each token"
            )

    @classmethod
    def from_lengths(
        cls, lengths: Sequence[int], device: torch.device | str | None = None
    ) -> "Packed":
        """The layout of whole sequences of these lengths, positions counted from 0 in each."""
        longest = torch.arange(max([0, *lengths]), device=device)
        positions = [longest[:length] for length in lengths]
        return cls(tuple(lengths), torch.cat(positions) if positions else longest)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the ids: `(tokens,)`."""
        return (len(self.positions),)

    @cached_property
    def cu_seqlens(self) -> Int[Tensor, " sequences_plus_1"]:
        """Where each sequence begins, and after the last the number of tokens (int32)."""
        starts = [0, *accumulate(self.lengths)]
        return torch.tensor(starts, dtype=torch.int32, device=self.positions.device)

    @cached_property
    def sequence(self) -> Int[Tensor, " tokens"]:
        """The number of the sequence that each token belongs to."""
        lengths = torch.tensor(self.lengths, device=self.positions.device)
        return torch.repeat_interleave(lengths, output_size=len(self.positions))

    @cached_property
    def longest(self) -> int:
        """One more than the largest position."""
        return int(self.positions.max()) + 1

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Neighbouring sequences of one length, as (first token, how many sequences, length)."""
        start = 0
        for length, group in groupby(self.lengths):
            count = sum(1 for _ in group)
            yield start, count, length
            start += count * length

    def first(self, values: Float[Tensor, "tokens ..."]) -> Float[Tensor, "sequences ..."]:
        """The first token of each sequence."""
        return values[self.cu_seqlens[:-1]]

    def firsts(self) -> "Packed":
        """The layout of what `first` gives: sequences of one token."""
        return Packed.from_lengths([1] * len(self.lengths), self.positions.device)

    def visible(self) -> Bool[Tensor, "1 tokens tokens"]:
        """True where query and key are of one sequence, to broadcast against scores."""
        return (self.sequence[:, None] == self.sequence[None, :])[None]


Layout = Padded | Packed


def layout_of(
    input_ids: Tensor, attention_mask: Tensor | None, layout: Layout | None, *, n_positions: int
) -> Layout:
    """How a batch lies in memory: as `layout` says, or else padded.

    Args:
        n_positions: the most that a sequence may have.

    Raises: ValueError for shapes that disagree, or too many tokens; TypeError for a mask of floats.
    """
    if layout is None:
        if input_ids.ndim != 2 or input_ids.shape[1] == 0:
            raise ValueError(
                f"input_ids has shape {tuple(input_ids.shape)}, expected (batch, seq); give a "
                "single sequence as a batch of one, packed tokens with layout=Packed(…)"
            )
        if attention_mask is not None and attention_mask.is_floating_point():
            raise TypeError(
                f"attention_mask is {attention_mask.dtype}, expected bool or integer: 1 where a "
                "token is real, 0 on padding (additive masks are made inside)"
            )
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)}, expected "
                f"{tuple(input_ids.shape)}, the shape of input_ids"
            )
        layout = Padded.of(input_ids, attention_mask)
    elif attention_mask is not None:
        raise ValueError("got attention_mask and layout, expected one: a layout has the mask")
    elif input_ids.shape != layout.shape:
        kind = "packed" if isinstance(layout, Packed) else "padded"
        raise ValueError(
            f"input_ids has shape {tuple(input_ids.shape)}, expected {layout.shape}: one id for "
            f"each token of the {kind} layout"
        )
    if layout.longest > n_positions:
        raise ValueError(
            f"got {layout.longest} tokens in a sequence, expected at most {n_positions}; cut "
            "longer texts, or take windows"
        )
    return layout


def pack(
    values: torch.Tensor, attention_mask: Integer[Tensor, "batch seq"] | Bool[Tensor, "batch seq"]
) -> tuple[torch.Tensor, Packed]:
    """The attended tokens of a padded batch end to end, and their layout.

    Each token keeps its column as position, so the network gives what it gives when padded.

    Args:
        values: `(batch, seq, …)`: ids, token types, hidden states.
        attention_mask: True or 1 where a token is attended.

    Returns:
        `(tokens, …)` and the layout.

    Raises: ValueError where column 0 of a row is masked (left padding, an empty row): the first
        token, which pooler and "cls" pooling read, would be lost.
    """
    mask = attention_mask.bool()
    if not bool(mask[:, 0].all()):
        row = int((~mask[:, 0]).nonzero()[0])
        raise ValueError(
            f"row {row} of the attention mask begins with 0, expected 1: packing needs the first "
            "token of each row; pad on the right"
        )
    positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)[mask]
    return values[mask], Packed(tuple(mask.sum(dim=1).tolist()), positions)


def unpack(
    values: torch.Tensor, layout: Packed, *, seq: int | None = None, fill: float = 0
) -> torch.Tensor:
    """The inverse of `pack`: each token back in the column that its position names.

    Args:
        values: `(tokens, …)`.
        layout: where they belong.
        seq: columns of the result; the longest sequence's when None.
        fill: what stands where there is no token.

    Returns:
        `(batch, seq, …)`.
    """
    seq = layout.longest if seq is None else seq
    if seq < layout.longest:
        raise ValueError(f"got seq {seq}, expected at least {layout.longest}, the longest sequence")
    padded = values.new_full((len(layout.lengths), seq, *values.shape[1:]), fill)
    padded[layout.sequence, layout.positions] = values
    return padded
