"""Texts and labels as numbers, and the batches that the network gets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from minibert.layout import Packed


@dataclass(frozen=True, eq=False)
class Examples:
    """What is trained or evaluated on, tokenised.

    `targets` has one entry an example: a class number, a number, a list of numbers for several
    labels, or a list of tags as long as its ids.
    """

    ids: list[list[int]]
    types: list[list[int]]
    targets: list[Any]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [len(ids) for ids in self.ids]


class Batch(NamedTuple):
    """Examples end to end, without padding; `targets` are `(batch, …)`, of tags `(tokens,)`."""

    input_ids: Int[Tensor, " tokens"]
    token_type_ids: Int[Tensor, " tokens"]
    layout: Packed
    targets: Tensor

    @property
    def n_examples(self) -> int:
        return len(self.layout.lengths)

    @property
    def n_tokens(self) -> int:
        return len(self.input_ids)

    def to(self, device: torch.device) -> "Batch":
        """The batch where the network is."""
        if device.type == "cpu":
            return self
        return Batch(
            self.input_ids.to(device, non_blocking=True),
            self.token_type_ids.to(device, non_blocking=True),
            Packed(self.layout.lengths, self.layout.positions.to(device, non_blocking=True)),
            self.targets.to(device, non_blocking=True),
        )


def collate(examples: Examples, rows: Sequence[int], *, dtype: torch.dtype) -> Batch:
    """Some examples as a packed batch, those of one length side by side.

    Args:
        dtype: of the targets.
    """
    order = sorted(rows, key=lambda row: len(examples.ids[row]))
    ids = [examples.ids[row] for row in order]
    targets = [examples.targets[row] for row in order]
    per_token = isinstance(targets[0], list) and dtype == torch.long
    flat = [tag for tags in targets for tag in tags] if per_token else targets
    return Batch(
        torch.tensor([token for row in ids for token in row]),
        torch.tensor([kind for row in order for kind in examples.types[row]]),
        Packed.from_lengths([len(row) for row in ids]),
        torch.tensor(flat, dtype=dtype),
    )


def each_batch(
    examples: Examples, batch_size: int, *, dtype: torch.dtype
) -> Iterator[tuple[list[int], Batch]]:
    """All examples in batches of about one length, each with the rows that it holds, in order."""
    order = sorted(range(len(examples)), key=lambda row: len(examples.ids[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield rows, collate(examples, rows, dtype=dtype)
