"""Sparse gradients: of a table, those of the rows that were looked up, where all others are 0."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from minibert.model import BertModel


def gradient_values(gradient: Tensor) -> Tensor:
    """The numbers of a gradient, each place once; of a sparse one those that it holds.

    They are the gradient's own, to be changed in place, unless it is sparse and not coalesced.
    """
    return gradient.coalesce().values() if gradient.is_sparse else gradient


@contextmanager
def row_gradients(model: nn.Module) -> Iterator[None]:
    """Within the block the tables of tokens of a network get sparse gradients.

    Where a table has another use, as a tied decoder has, its gradient is a whole one all the same.
    """
    tables = [m.embeddings.token for m in model.modules() if isinstance(m, BertModel)]
    before = [table.sparse for table in tables]
    for table in tables:
        table.sparse = True
    try:
        yield
    finally:
        for table, sparse in zip(tables, before, strict=True):
            table.sparse = sparse
