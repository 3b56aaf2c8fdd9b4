"""The kernels one by one, as operations of torch: `torch.ops.minibert.linear` and its like.

Each has its twin in `minibert/ops.py`, and a form without numbers, so that `torch.compile` and
`torch.export` go through them.  They have no gradient, as those of `training_operations.py` have.
`use` has to be called first.
"""

import ctypes

import torch
from torch import Tensor

from minibert.kernels.panels import (
    NormStructure,
    Panels,
    number_of,
    numbers_of,
    structure_of,
)

_library: ctypes.CDLL | None = None


def use(library: ctypes.CDLL) -> None:
    """Let the operations compute with this library, that `build.load` gives."""
    global _library
    _library = library


def checked(status: int) -> None:
    """Raises: MemoryError for what a kernel returns where memory was short."""
    if status:
        raise MemoryError("no memory for the kernels' scratch")


def loaded() -> ctypes.CDLL:
    """The library in use."""
    if _library is None:
        raise RuntimeError("no library of kernels is in use; call operations.use first")
    return _library


@torch.library.custom_op("minibert::linear", mutates_args=(), device_types="cpu")
def linear(
    x: Tensor,
    weights: Tensor,
    bias: Tensor,
    scale: Tensor,
    sums: Tensor,
    outputs: int,
    bfloat16x3: bool = False,
) -> Tensor:
    """x Wᵀ + b of packed weights (`Panels`): the form of `ops.py` for their numbers.

    Args:
        x: `(rows, inputs)`, float32.
        outputs: how many of the panels' outputs are real.
        bfloat16x3: the weights were packed so.
    """
    library, panels = loaded(), Panels(weights, bias, scale, sums)
    x = x.contiguous()
    y = x.new_empty(len(x), outputs)
    structure = structure_of(library, panels)
    numbers = "bfloat16x3" if bfloat16x3 else numbers_of(weights)
    checked(
        library.minibert_linear(
            ctypes.byref(structure), number_of(library, numbers), x.data_ptr(), len(x),
            x.shape[1], y.data_ptr(), outputs, torch.get_num_threads(),
        )
    )  # fmt: skip
    return y


@linear.register_fake
def _(
    x: Tensor,
    weights: Tensor,
    bias: Tensor,
    scale: Tensor,
    sums: Tensor,
    outputs: int,
    bfloat16x3: bool = False,
) -> Tensor:
    return x.new_empty(x.shape[0], outputs)


@torch.library.custom_op("minibert::attention", mutates_args=(), device_types="cpu")
def attention(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, bits: int = 32) -> Tensor:
    """softmax(q kᵀ / √dim) v of packed sequences: `ops.attention`, or `ops.integer_attention`.

    Args:
        q, k, v: `(tokens, heads, dim)`, float32.
        lengths: of the sequences, int32; they add up to `tokens`.
        bits: of what is multiplied, 32 for float32 or 16 for integers.
    """
    q, k, v, lengths = (each.contiguous() for each in (q, k, v, lengths))
    assert lengths.dtype == torch.int32, f"lengths are {lengths.dtype}"
    assert int(lengths.sum()) == len(q), "lengths do not add up to all tokens"
    out = torch.empty_like(q)
    checked(
        loaded().minibert_attention(
            q.data_ptr(), k.data_ptr(), v.data_ptr(), lengths.data_ptr(), len(lengths), q.shape[1],
            q.shape[2], bits, out.data_ptr(), torch.get_num_threads(),
        )
    )  # fmt: skip
    return out


@attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, bits: int = 32) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@torch.library.custom_op("minibert::add_norm", mutates_args=(), device_types="cpu")
def add_norm(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm of x + y, both `(rows, width)`, float32: `ops.add_norm`."""
    x, y, weight, bias = (each.contiguous() for each in (x, y, weight, bias))
    out = torch.empty_like(x)
    norm = NormStructure(weight.data_ptr(), bias.data_ptr(), eps)
    checked(
        loaded().minibert_add_norm(
            x.data_ptr(), y.data_ptr(), ctypes.byref(norm), len(x), x.shape[1], out.data_ptr(),
            torch.get_num_threads(),
        )
    )  # fmt: skip
    return out


@add_norm.register_fake
def _(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
