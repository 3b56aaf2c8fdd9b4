"""A packed sequence's mean, of length 1 where that is asked for.

One addition for each number read: the memory's rate bounds it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from minibert.kernels.gpu.shapes import padded, rows_at_once, wide, wide_dtype


@triton.jit
def _pool(
    hidden, starts, skips, out,
    NORMALISED: tl.constexpr, SMALLEST: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0)
    columns = tl.arange(0, PADDED)
    first = tl.load(starts + sequence) + tl.load(skips + sequence)
    end = tl.load(starts + sequence + 1)
    total = tl.zeros([PADDED], WIDE)
    for row in range(first, end, ROWS):
        rows = row + tl.arange(0, ROWS)
        inside = (rows < end)[:, None] & (columns < WIDTH)[None]
        places = rows.to(tl.int64)[:, None] * WIDTH + columns[None]
        total += tl.sum(tl.load(hidden + places, mask=inside, other=0.0).to(WIDE), 0)
    total = total / tl.maximum(end - first, 1).to(WIDE)
    if NORMALISED:
        total = total / tl.maximum(tl.sqrt(tl.sum(total * total, 0)), SMALLEST)
    places = sequence.to(tl.int64) * WIDTH + columns
    tl.store(out + places, total, mask=columns < WIDTH)


@torch.library.custom_op("minibert_gpu::pool", mutates_args=())
def pool(
    hidden: Tensor, starts: Tensor, skips: Tensor, normalised: bool, smallest: float
) -> Tensor:
    """Each sequence's mean in float32, without its first tokens: "mean" of `pooling.pool`.

    It has no gradient.

    Args:
        hidden: `(tokens, hidden)`.
        starts: `(sequences + 1)`, where each begins and the last ends (int32).
        skips: `(sequences)`, how many first tokens of each to leave out (int32).
        normalised: divide each by its length, as `pooling.normalise` does.
        smallest: the length that is divided by at least.

    Returns: `(sequences, hidden)`; zeros where all is left out.
    """
    hidden = hidden.contiguous()
    out, width = _result(hidden, skips), hidden.shape[1]
    with torch.cuda.device_of(hidden):
        _pool[(len(skips),)](
            hidden, starts, skips, out, NORMALISED=normalised, SMALLEST=smallest, WIDTH=width,
            PADDED=padded(width), ROWS=rows_at_once(width), WIDE=wide(hidden),
        )  # fmt: skip
    return out


@pool.register_fake
def _(hidden: Tensor, starts: Tensor, skips: Tensor, normalised: bool, smallest: float) -> Tensor:
    return _result(hidden, skips)


def _result(hidden: Tensor, skips: Tensor) -> Tensor:
    return hidden.new_empty(skips.shape[0], hidden.shape[1], dtype=wide_dtype(hidden))
