"""Texts and labels as numbers, and the batches that the network gets."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from minibert.layout import Packed


@dataclass(frozen=True, eq=False)
class Examples:
    """What is trained or evaluated on, tokenised.

    An example is a sequence of tokens, or `n_parts` of them, each of which the network sees by
    itself.  `targets` has one entry an example: a class number, a number, a list of numbers for
    several labels, a list of tags as long as its ids, or what else the task takes.

    Where a long text is read in windows, each window is an example; `texts` says whose.
    """

    ids: list[list[int]]  # of each sequence, those of an example side by side
    types: list[list[int]]
    targets: list[Any]
    n_parts: int = 1
    texts: list[int] = field(default_factory=list)  # of each window its text; empty: one a text
    starts: list[int] = field(default_factory=list)  # of each window the tokens before it

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        if self.n_parts == 1:
            return [len(ids) for ids in self.ids]
        return [
            sum(len(ids) for ids in self.ids[start : start + self.n_parts])
            for start in range(0, len(self.ids), self.n_parts)
        ]

    @property
    def windows(self) -> list[list[int]]:
        """Of each text the examples that are its windows, in order; one each without windows."""
        if not self.texts:
            return [[row] for row in range(len(self))]
        found: list[list[int]] = [[] for _ in range(self.texts[-1] + 1)]
        for row, text in enumerate(self.texts):
            found[text].append(row)
        return found

    @cached_property
    def alike(self) -> list[int]:
        """Of each sequence the first one with the same tokens: a number for each text."""
        first: dict[tuple[int, ...], int] = {}
        return [first.setdefault(tuple(ids), place) for place, ids in enumerate(self.ids)]

    def taken(self, rows: Sequence[int]) -> "Examples":
        """Some of the examples, by themselves: one that is taken twice is two of them."""
        sequences = [each for row in rows for each in self.sequences(row)]
        return Examples(
            [self.ids[each] for each in sequences],
            [self.types[each] for each in sequences],
            [self.targets[row] for row in rows],
            self.n_parts,
        )

    def sequences(self, row: int) -> range:
        """The sequences of an example."""
        return range(row * self.n_parts, (row + 1) * self.n_parts)


class Batch(NamedTuple):
    """Examples end to end, without padding; `targets` are `(batch, …)`, of tags `(tokens,)`."""

    input_ids: Int[Tensor, " tokens"]
    token_type_ids: Int[Tensor, " tokens"]
    layout: Packed
    targets: Tensor
    rows: tuple[int, ...] = ()  # which examples these are, in the order of the targets
    parts: Int[Tensor, "batch parts"] | None = None  # the sequences of each, where it has several
    texts: Int[Tensor, "batch parts"] | None = None  # of each sequence a number, alike for alike
    next_sentence: Int[Tensor, " batch"] | None = None  # in pretraining: 1 where it is a random one

    @property
    def n_examples(self) -> int:
        return len(self.layout.lengths) if self.parts is None else len(self.parts)

    @property
    def n_tokens(self) -> int:
        return len(self.input_ids)

    def to(self, device: torch.device) -> "Batch":
        """The batch where the network is."""
        if device.type == "cpu":
            return self
        return self._replace(
            input_ids=self.input_ids.to(device, non_blocking=True),
            token_type_ids=self.token_type_ids.to(device, non_blocking=True),
            layout=Packed(self.layout.lengths, self.layout.positions.to(device, non_blocking=True)),
            targets=self.targets.to(device, non_blocking=True),
            parts=None if self.parts is None else self.parts.to(device, non_blocking=True),
            texts=None if self.texts is None else self.texts.to(device, non_blocking=True),
            next_sentence=None if self.next_sentence is None else self.next_sentence.to(device),
        )


# What a network gives for a batch, by name, on the CPU: the logits, or whatever the task reads.
Found = dict[str, Tensor]
Prepare = Callable[[Examples, Sequence[int]], Batch]


def collate(examples: Examples, rows: Sequence[int], *, dtype: torch.dtype) -> Batch:
    """Some examples as a packed batch, sequences of one length side by side.

    Args:
        dtype: of the targets.
    """
    if examples.n_parts > 1:
        return _collate_parts(examples, rows, dtype)
    order = sorted(rows, key=lambda row: len(examples.ids[row]))
    targets = [examples.targets[row] for row in order]
    per_token = isinstance(targets[0], list) and dtype == torch.long
    flat = [tag for tags in targets for tag in tags] if per_token else targets
    return Batch(*_packed(examples, order), torch.tensor(flat, dtype=dtype), tuple(order))


def _collate_parts(examples: Examples, rows: Sequence[int], dtype: torch.dtype) -> Batch:
    sequences = [each for row in rows for each in examples.sequences(row)]
    order = sorted(range(len(sequences)), key=lambda i: len(examples.ids[sequences[i]]))
    places = torch.empty(len(order), dtype=torch.long)
    places[torch.tensor(order)] = torch.arange(len(order))
    targets = torch.tensor([examples.targets[row] for row in rows], dtype=dtype)
    packed = _packed(examples, [sequences[i] for i in order])
    return Batch(*packed, targets, tuple(rows), places.view(len(rows), examples.n_parts))


def _packed(examples: Examples, sequences: Sequence[int]) -> tuple[Tensor, Tensor, Packed]:
    ids = [examples.ids[each] for each in sequences]
    return (
        torch.tensor([token for row in ids for token in row]),
        torch.tensor([kind for each in sequences for kind in examples.types[each]]),
        Packed.from_lengths([len(row) for row in ids]),
    )


def each_batch(examples: Examples, batch_size: int, prepare: Prepare) -> Iterator[Batch]:
    """All examples in batches of about one length."""
    lengths = examples.lengths
    order = sorted(range(len(examples)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        yield prepare(examples, order[start : start + batch_size])
