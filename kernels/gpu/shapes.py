"""What the kernels share: dtypes to compute in, sizes of tiles, rows dealt out to programs."""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Numbers that a program of four warps holds in registers at once, 16 a thread.
TILE = 2048

# Programs that add up gradients over rows, each its share, before the shares are added up: enough
# for two on each multiprocessor of a large GPU, and as many on any, so that sums are the same.
PARTS = 256


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """What numbers of this tensor are computed in: float32 or wider."""
    return torch.promote_types(tensor.dtype, torch.float32)


def wide(tensor: Tensor) -> tl.dtype:
    """`wide_dtype`, as Triton calls it."""
    return tl.float64 if tensor.dtype == torch.float64 else tl.float32


def padded(width: int) -> int:
    """The power of two that holds `width`: Triton's tiles have no other sizes."""
    return triton.next_power_of_2(width)


def rows_at_once(width: int) -> int:
    """How many rows of `width` numbers fill a tile."""
    return max(1, TILE // padded(width))


def parts(n_rows: int, width: int) -> tuple[int, int]:
    """How many programs add up over rows, and how many rows each has: whole tiles of them."""
    tile = rows_at_once(width)
    rows = tile * triton.cdiv(triton.cdiv(n_rows, PARTS), tile)
    return triton.cdiv(n_rows, rows), rows
