"""LayerNorm of sums: of two terms, and of a token's three embeddings.

A row is read once, held in registers, and normalised there: about 10 operations for 3 numbers moved
(two terms in, one out), so the memory's rate bounds it, in every dtype and at every size.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from minibert.kernels.gpu.shapes import padded, parts, rows_at_once, wide, wide_dtype


@triton.jit
def _normalised(
    total, inside, columns, weight, bias, EPS: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """Rows normalised, their means and the inverses of their deviations; what pads rows is 0."""
    mean = tl.sum(total, 1) / WIDTH
    centred = tl.where(inside, total - mean[:, None], 0.0)
    inverse = 1 / tl.sqrt(tl.sum(centred * centred, 1) / WIDTH + EPS)
    scale = tl.load(weight + columns, mask=columns < WIDTH, other=0.0).to(total.dtype)
    shift = tl.load(bias + columns, mask=columns < WIDTH, other=0.0).to(total.dtype)
    return centred * inverse[:, None] * scale[None] + shift[None], mean, inverse


@triton.jit(do_not_specialize=["n_rows"])
def _add_norm(
    x, y, weight, bias, out, means, inverses, n_rows,
    EPS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, PADDED)
    inside = (rows < n_rows)[:, None] & (columns < WIDTH)[None]
    places = rows[:, None] * WIDTH + columns[None]
    total = tl.load(x + places, mask=inside, other=0.0).to(WIDE)
    total += tl.load(y + places, mask=inside, other=0.0).to(WIDE)
    normal, mean, inverse = _normalised(total, inside, columns, weight, bias, EPS, WIDTH)
    tl.store(out + places, normal, mask=inside)
    tl.store(means + rows, mean, mask=rows < n_rows)
    tl.store(inverses + rows, inverse, mask=rows < n_rows)


@triton.jit(do_not_specialize=["n_rows", "part_rows"])
def _add_norm_backward(
    gradient, x, y, weight, means, inverses, sum_gradient, weight_parts, bias_parts, n_rows,
    part_rows, WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Of s, with n the normalised s and g what arrives, times the weight:

    ds = (g - mean(g) - n · mean(g n)) / deviation;  dweight = Σ arrived · n;  dbias = Σ arrived
    """
    part = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, PADDED)
    scale = tl.load(weight + columns, mask=columns < WIDTH, other=0.0).to(WIDE)
    weight_sum = tl.zeros([PADDED], WIDE)
    bias_sum = tl.zeros([PADDED], WIDE)
    for first in range(0, part_rows, ROWS):
        rows = part * part_rows + first + tl.arange(0, ROWS)
        inside = (rows < n_rows)[:, None] & (columns < WIDTH)[None]
        places = rows[:, None] * WIDTH + columns[None]
        total = tl.load(x + places, mask=inside, other=0.0).to(WIDE)
        total += tl.load(y + places, mask=inside, other=0.0).to(WIDE)
        arrived = tl.load(gradient + places, mask=inside, other=0.0).to(WIDE)
        mean = tl.load(means + rows, mask=rows < n_rows, other=0.0)
        inverse = tl.load(inverses + rows, mask=rows < n_rows, other=0.0)
        normal = tl.where(inside, (total - mean[:, None]) * inverse[:, None], 0.0)
        weight_sum += tl.sum(arrived * normal, 0)
        bias_sum += tl.sum(arrived, 0)
        scaled = arrived * scale[None]
        along = tl.sum(scaled * normal, 1) / WIDTH
        level = tl.sum(scaled, 1) / WIDTH
        of_sum = (scaled - level[:, None] - normal * along[:, None]) * inverse[:, None]
        tl.store(sum_gradient + places, of_sum, mask=inside)
    tl.store(weight_parts + part * WIDTH + columns, weight_sum, mask=columns < WIDTH)
    tl.store(bias_parts + part * WIDTH + columns, bias_sum, mask=columns < WIDTH)


@triton.jit(do_not_specialize=["n_rows"])
def _embed_norm(
    ids, types, positions, token, token_type, position, weight, bias, out, means, inverses, n_rows,
    EPS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, PADDED)
    inside = (rows < n_rows)[:, None] & (columns < WIDTH)[None]
    token_row = tl.load(ids + rows, mask=rows < n_rows, other=0).to(tl.int64)
    type_row = tl.load(types + rows, mask=rows < n_rows, other=0).to(tl.int64)
    position_row = tl.load(positions + rows, mask=rows < n_rows, other=0).to(tl.int64)
    total = tl.load(token + token_row[:, None] * WIDTH + columns, mask=inside, other=0.0).to(WIDE)
    total += tl.load(
        token_type + type_row[:, None] * WIDTH + columns, mask=inside, other=0.0
    ).to(WIDE)  # fmt: skip
    total += tl.load(
        position + position_row[:, None] * WIDTH + columns, mask=inside, other=0.0
    ).to(WIDE)  # fmt: skip
    normal, mean, inverse = _normalised(total, inside, columns, weight, bias, EPS, WIDTH)
    tl.store(out + rows[:, None] * WIDTH + columns[None], normal, mask=inside)
    tl.store(means + rows, mean, mask=rows < n_rows)
    tl.store(inverses + rows, inverse, mask=rows < n_rows)


@torch.library.custom_op("minibert_gpu::add_norm", mutates_args=())
def add_norm(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm of x + y in the weight's dtype: `ops.add_norm`; and what the gradient needs.

    Args:
        x, y: `(*tokens, hidden)`, of any floating dtypes.

    Returns: `(*tokens, hidden)`, and of each row its mean and 1 / deviation.
    """
    x, y = x.contiguous(), y.contiguous()
    out, means, inverses = _results(x[..., 0], weight, y)
    width = x.shape[-1]
    n_rows, rows = x.numel() // width, rows_at_once(width)
    with torch.cuda.device_of(x):
        _add_norm[(triton.cdiv(n_rows, rows),)](
            x, y, weight, bias, out, means, inverses, n_rows,
            EPS=eps, WIDTH=width, PADDED=padded(width), ROWS=rows, WIDE=wide(y),
        )  # fmt: skip
    return out, means, inverses


@add_norm.register_fake
def _(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return _results(x[..., 0], weight, y)


def _results(rows: Tensor, weight: Tensor, term: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where as many rows as there are numbers in `rows` go, and their means and deviations."""
    means, inverses = (term.new_empty(rows.shape, dtype=wide_dtype(term)) for _ in range(2))
    return weight.new_empty(*rows.shape, weight.shape[0]), means, inverses


@torch.library.custom_op("minibert_gpu::add_norm_backward", mutates_args=())
def add_norm_backward(
    gradient: Tensor, x: Tensor, y: Tensor, weight: Tensor, means: Tensor, inverses: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the sum, in the dtype of x, of the weight and of the bias."""
    gradient, x, y = gradient.contiguous(), x.contiguous(), y.contiguous()
    of_sum, width = torch.empty_like(x), x.shape[-1]
    n_rows = x.numel() // width
    n_parts, part_rows = parts(n_rows, width)
    weights, biases = (means.new_empty(n_parts, width) for _ in range(2))
    with torch.cuda.device_of(x):
        _add_norm_backward[(n_parts,)](
            gradient, x, y, weight, means, inverses, of_sum, weights, biases, n_rows, part_rows,
            WIDTH=width, PADDED=padded(width), ROWS=rows_at_once(width), WIDE=wide(means),
        )  # fmt: skip
    return of_sum, weights.sum(0).to(weight.dtype), biases.sum(0).to(weight.dtype)


@add_norm_backward.register_fake
def _(
    gradient: Tensor, x: Tensor, y: Tensor, weight: Tensor, means: Tensor, inverses: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    of_sum = torch.empty_like(x, memory_format=torch.contiguous_format)
    return of_sum, torch.empty_like(weight), torch.empty_like(weight)


def _save_terms(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, y, weight, _, _ = inputs
    ctx.save_for_backward(x, y, weight, *output[1:])


def _to_terms(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, y, weight, means, inverses = ctx.saved_tensors
    of_sum, of_weight, of_bias = add_norm_backward(gradient, x, y, weight, means, inverses)
    return of_sum, of_sum.to(y.dtype), of_weight, of_bias, None


add_norm.register_autograd(_to_terms, setup_context=_save_terms)


@torch.library.custom_op("minibert_gpu::embed_norm", mutates_args=())
def embed_norm(
    ids: Tensor, types: Tensor, positions: Tensor, token: Tensor, token_type: Tensor,
    position: Tensor, weight: Tensor, bias: Tensor, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """LayerNorm of token[ids] + token_type[types] + position[positions]: `model.Embeddings`.

    Args:
        ids, types, positions: `(*tokens)`, trusted to be rows of their tables.

    Returns: as `add_norm`.
    """
    ids, types, positions = ids.contiguous(), types.contiguous(), positions.contiguous()
    width = token.shape[1]
    out, means, inverses = _results(ids, weight, token)
    n_rows, rows = ids.numel(), rows_at_once(width)
    with torch.cuda.device_of(token):
        _embed_norm[(triton.cdiv(n_rows, rows),)](
            ids, types, positions, token, token_type, position, weight, bias, out, means, inverses,
            n_rows, EPS=eps, WIDTH=width, PADDED=padded(width), ROWS=rows, WIDE=wide(token),
        )  # fmt: skip
    return out, means, inverses


@embed_norm.register_fake
def _(
    ids: Tensor, types: Tensor, positions: Tensor, token: Tensor, token_type: Tensor,
    position: Tensor, weight: Tensor, bias: Tensor, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _results(ids, weight, token)


def _save_rows(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, _ = inputs  # all but bias and eps
    ctx.save_for_backward(*tensors, *output[1:])


def _to_tables(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    *rows_and_tables, weight, means, inverses = ctx.saved_tensors
    rows, tables = rows_and_tables[:3], rows_and_tables[3:]
    token, segment, position = (
        table[row].to(means.dtype) for row, table in zip(rows, tables, strict=True)
    )
    of_sum, of_weight, of_bias = add_norm_backward(
        gradient, token + segment, position, weight, means, inverses
    )
    of_tables = (
        torch.ops.aten.embedding_dense_backward(of_sum, row, len(table), -1, False).to(table.dtype)
        for row, table in zip(rows, tables, strict=True)
    )
    return None, None, None, *of_tables, of_weight, of_bias, None


embed_norm.register_autograd(_to_tables, setup_context=_save_rows)
