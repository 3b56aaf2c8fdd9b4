"""GELU of x + bias, and the bias's gradient in the pass that makes that of x.

About 20 operations for 2 numbers moved: the memory's rate bounds it.  The bias costs nothing here;
left to the linear map, its gradient would take one more pass over what is widest in the network.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from minibert.kernels.gpu.shapes import parts, rows_at_once, wide

_COLUMNS = 128  # of a tile: 256 bytes of half precision, whole sectors of memory


@triton.jit
def _tanh(x):
    """By an exponential that cannot overflow, since Triton has none of its own."""
    small = tl.exp(-2 * tl.abs(x))
    magnitude = (1 - small) / (1 + small)
    return tl.where(x < 0, -magnitude, magnitude)


@triton.jit(do_not_specialize=["n_rows"])
def _gelu(
    x, bias, out, n_rows, width, TANH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < n_rows)[:, None] & (columns < width)[None]
    places = rows[:, None] * width + columns[None]
    shift = tl.load(bias + columns, mask=columns < width, other=0.0).to(WIDE)
    total = tl.load(x + places, mask=inside, other=0.0).to(WIDE) + shift[None]
    if TANH:
        inner = 0.7978845608028654 * (total + 0.044715 * total * total * total)
        share = 0.5 * (1 + _tanh(inner))
    else:
        share = 0.5 * (1 + tl.erf(total * 0.7071067811865476))
    tl.store(out + places, total * share, mask=inside)


@triton.jit(do_not_specialize=["n_rows", "part_rows"])
def _gelu_backward(
    gradient, x, bias, x_gradient, bias_parts, n_rows, part_rows, width,
    TANH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    shift = tl.load(bias + columns, mask=columns < width, other=0.0).to(WIDE)
    bias_sum = tl.zeros([COLUMNS], WIDE)
    for first in range(0, part_rows, ROWS):
        rows = part * part_rows + first + tl.arange(0, ROWS)
        inside = (rows < n_rows)[:, None] & (columns < width)[None]
        places = rows[:, None] * width + columns[None]
        total = tl.load(x + places, mask=inside, other=0.0).to(WIDE) + shift[None]
        if TANH:
            square = total * total
            tanh = _tanh(0.7978845608028654 * (total + 0.044715 * square * total))
            inner_slope = 0.7978845608028654 * (1 + 3 * 0.044715 * square)
            slope = 0.5 * (1 + tanh) + 0.5 * total * (1 - tanh * tanh) * inner_slope
        else:
            density = 0.3989422804014327 * tl.exp(-0.5 * total * total)
            slope = 0.5 * (1 + tl.erf(total * 0.7071067811865476)) + total * density
        arrived = tl.load(gradient + places, mask=inside, other=0.0).to(WIDE)
        of_total = tl.where(inside, arrived * slope, 0.0)
        bias_sum += tl.sum(of_total, 0)
        tl.store(x_gradient + places, of_total, mask=inside)
    tl.store(bias_parts + part * width + columns, bias_sum, mask=columns < width)


@torch.library.custom_op("minibert_gpu::bias_gelu", mutates_args=())
def bias_gelu(x: Tensor, bias: Tensor, tanh: bool) -> Tensor:
    """GELU of x + bias, in the dtype of x: `ops.bias_gelu`.

    Args:
        x: `(*tokens, width)`.
        bias: `(width)`, of any floating dtype.
        tanh: the form by tanh, in place of the exact one.
    """
    x = x.contiguous()
    out, width = torch.empty_like(x), x.shape[-1]
    n_rows, rows = x.numel() // width, rows_at_once(_COLUMNS)
    grid = (triton.cdiv(n_rows, rows), triton.cdiv(width, _COLUMNS))
    with torch.cuda.device_of(x):
        _gelu[grid](
            x, bias, out, n_rows, width, TANH=tanh, ROWS=rows, COLUMNS=_COLUMNS, WIDE=wide(x)
        )
    return out


@bias_gelu.register_fake
def _(x: Tensor, bias: Tensor, tanh: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("minibert_gpu::bias_gelu_backward", mutates_args=())
def bias_gelu_backward(
    gradient: Tensor, x: Tensor, bias: Tensor, tanh: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the bias."""
    gradient, x = gradient.contiguous(), x.contiguous()
    of_x, width = torch.empty_like(x), x.shape[-1]
    n_rows, rows = x.numel() // width, rows_at_once(_COLUMNS)
    n_parts, part_rows = parts(n_rows, _COLUMNS)
    of_bias = x.new_empty(n_parts, width, dtype=torch.promote_types(x.dtype, torch.float32))
    with torch.cuda.device_of(x):
        _gelu_backward[(n_parts, triton.cdiv(width, _COLUMNS))](
            gradient, x, bias, of_x, of_bias, n_rows, part_rows, width,
            TANH=tanh, ROWS=rows, COLUMNS=_COLUMNS, WIDE=wide(x),
        )  # fmt: skip
    return of_x, of_bias.sum(0).to(bias.dtype)


@bias_gelu_backward.register_fake
def _(gradient: Tensor, x: Tensor, bias: Tensor, tanh: bool) -> tuple[Tensor, Tensor]:
    of_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return of_x, torch.empty_like(bias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, bias, ctx.tanh = inputs
    ctx.save_for_backward(x, bias)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return *bias_gelu_backward(gradient, *ctx.saved_tensors, ctx.tanh), None


bias_gelu.register_autograd(_backward, setup_context=_save)
