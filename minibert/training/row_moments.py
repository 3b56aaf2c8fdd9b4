"""What AdamW remembers of a table's rows: of those that ever had a gradient, and of no others.

A batch of sentences has some hundred of the 30,522 words of a vocabulary.  The gradient of the
table is 0 everywhere else, and a row that never had one has moments of 0: nothing moves it but the
decay.  So neither its gradient nor its moments have to be there, and the result is the same to the
last bit.

    moments.see(gradient.indices()[0])        # the sparse one of nn.Embedding, coalesced
    for part in moments.parts(gradient):
        …

Where a row's gradient is 0 now but was not before, its moments still move it: such rows stay.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Elements of a part. What a step reads and writes of it stays in the cache.
_PART = 1 << 18


class Part(NamedTuple):
    """Some rows of a table, in the order in which they were first seen."""

    rows: Int[Tensor, " rows"]
    gradients: Float[Tensor, "rows width"]
    memory: tuple[Float[Tensor, "rows width"], ...]  # to be changed in place


class RowMoments:
    """Moments of the rows of a table `(n_rows, width)`, as many kinds as `n_kinds`."""

    def __init__(self, table: Tensor, n_kinds: int, dtype: torch.dtype) -> None:
        self._n_kinds = n_kinds
        self._shape = (max(1, _PART // table.shape[1]), table.shape[1])
        self._dtype = dtype
        self._place = torch.full((len(table),), -1)  # of a row among those seen
        self._chunks: list[tuple[Tensor, ...]] = []
        self.rows = torch.empty(0, dtype=torch.int64)

    def see(self, rows: Int[Tensor, " rows"]) -> None:
        """Make room for those of `rows`, each of which is there once, that are new."""
        new = rows[self._place[rows] < 0]
        n_before, n_now = len(self.rows), len(self.rows) + len(new)
        self._place[new] = torch.arange(n_before, n_now)
        self.rows = torch.cat([self.rows, new])
        while not self._chunks or len(self._chunks) * self._shape[0] < n_now:
            self._chunks.append(
                tuple(torch.zeros(self._shape, dtype=self._dtype) for _ in range(self._n_kinds))
            )

    def parts(self, gradient: Tensor) -> Iterator[Part]:
        """All rows seen, part by part; of a coalesced gradient, whose rows have been seen."""
        places, order = self._place[gradient.indices()[0]].sort()
        values = gradient.values()
        starts = torch.arange(len(self._chunks) + 1) * self._shape[0]
        bounds = torch.searchsorted(places, starts).tolist()
        for i, (rows, memory) in enumerate(self._held()):
            of_part = slice(bounds[i], bounds[i + 1])
            gradients = torch.zeros(len(rows), self._shape[1], dtype=self._dtype)
            gradients[places[of_part] - int(starts[i])] = values[order[of_part]]
            yield Part(rows, gradients, memory)

    def _held(self) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """The rows of each chunk, and what is remembered of them."""
        for rows, chunk in zip(torch.split(self.rows, self._shape[0]), self._chunks, strict=True):
            yield rows, tuple(kind[: len(rows)] for kind in chunk)

    def memory(self) -> tuple[Tensor, ...]:
        """What is remembered of `rows`, each kind as one tensor."""
        kinds = zip(*(memory for _, memory in self._held()), strict=True)
        return tuple(torch.cat(kind) for kind in kinds)

    def put(self, rows: Tensor, memory: tuple[Tensor, ...]) -> None:
        """Begin with what `rows` and `memory` were of another."""
        self.see(rows)
        for (_, held), *given in zip(
            self._held(), *(torch.split(kind, self._shape[0]) for kind in memory), strict=True
        ):
            for kind, values in zip(held, given, strict=True):
                kind.copy_(values)

    def of_whole_table(self) -> tuple[Tensor, ...]:
        """The same with the zeros of all other rows."""
        whole = tuple(
            torch.zeros(len(self._place), self._shape[1], dtype=self._dtype)
            for _ in range(self._n_kinds)
        )
        for rows, memory in self._held():
            for kind, values in zip(whole, memory, strict=True):
                kind[rows] = values
        return whole
