"""Operations of training by the kernels, with their gradients, as `torch.ops.minibert.*`.

Each has its twin in `minibert/ops.py`.  Inputs are float32, or bfloat16 where a signature says
"numbers".  Results are the same to the last bit on any number of threads.  `operations.use` has to
be called first.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from minibert.kernels.operations import checked, loaded
from minibert.kernels.panels import NormStructure

_Function = Callable[..., Any]

_LIBRARY = torch.library.Library("minibert", "FRAGMENT")  # type: ignore[no-untyped-call]


def _operation(numberless: _Function) -> Callable[[_Function], _Function]:
    """Makes a function an operation of torch; `numberless` gives results of the same shapes.

    Differs: `torch.library.custom_op` imports torch's compiler at the first call, 60 MB.
    """

    def made(function: _Function) -> _Function:
        name = function.__name__
        _LIBRARY.define(  # type: ignore[no-untyped-call]
            name + torch.library.infer_schema(function, mutates_args=())
        )
        _LIBRARY.impl(name, function, "CPU")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"minibert::{name}", numberless)
        operation: _Function = getattr(torch.ops.minibert, name).default
        return operation

    return made


def _like(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


class DropoutStructure(ctypes.Structure):
    """`struct Dropout` of dropout.h."""

    _fields_ = (
        ("seed", ctypes.c_uint64), ("n_dropped", ctypes.c_uint32), ("factor", ctypes.c_float),
    )  # fmt: skip


class _AttentionCall(ctypes.Structure):
    _fields_ = (
        ("q", ctypes.c_void_p), ("k", ctypes.c_void_p), ("v", ctypes.c_void_p),
        ("q_stride", ctypes.c_long), ("k_stride", ctypes.c_long), ("v_stride", ctypes.c_long),
        ("lengths", ctypes.c_void_p),
        ("sequences", ctypes.c_int), ("heads", ctypes.c_int), ("dim", ctypes.c_int),
        ("longest", ctypes.c_int),
        ("only_first", ctypes.c_bool), ("of_bfloat16", ctypes.c_bool), ("drops", ctypes.c_bool),
        ("dropout", DropoutStructure),
        ("logs", ctypes.c_void_p), ("out", ctypes.c_void_p),
        ("to_q", ctypes.c_void_p), ("to_k", ctypes.c_void_p), ("to_v", ctypes.c_void_p),
    )  # fmt: skip


def _dropout(n_dropped: int, seed: int) -> DropoutStructure:
    return DropoutStructure(seed % 2**64, n_dropped, 2**16 / (2**16 - n_dropped))


def _is_bfloat16(numbers: Tensor) -> bool:
    assert numbers.dtype in (torch.float32, torch.bfloat16), f"numbers are {numbers.dtype}"
    return numbers.dtype == torch.bfloat16


# ---- linear maps


def _products_like(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@_operation(_products_like)
def products(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b by 16-bit integers: `ops.linear` under autocast to bfloat16.

    Args:
        x: `(rows, inputs)`, bfloat16.
        weight, bias: `(outputs, inputs)` and `(outputs,)`, float32.
    """
    x, weight = x.contiguous(), weight.contiguous()
    y = _products_like(x, weight, bias)
    checked(
        loaded().minibert_products(
            x.data_ptr(), weight.data_ptr(), None if bias is None else bias.data_ptr(),
            len(x), x.shape[1], len(weight), y.data_ptr(), torch.get_num_threads(),
        )
    )  # fmt: skip
    return y


def _gradients_of_products(
    gradient: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = x.shape, weight.shape, weight.shape[:1]
    to_x, to_weight, to_bias = (
        like.new_empty(shape if wanted else (0,))
        for like, shape, wanted in zip((x, weight, weight), shapes, needed, strict=True)
    )
    return to_x, to_weight, to_bias


@_operation(_gradients_of_products)
def products_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias, empty where one is not `needed`."""
    gradient, x, weight = gradient.contiguous(), x.contiguous(), weight.contiguous()
    found = _gradients_of_products(gradient, x, weight, needed)
    to_x, to_weight, to_bias = (
        each.data_ptr() if wanted else None for each, wanted in zip(found, needed, strict=True)
    )
    checked(
        loaded().minibert_products_backward(
            gradient.data_ptr(), x.data_ptr(), weight.data_ptr(), len(x), x.shape[1], len(weight),
            to_x, to_weight, to_bias, torch.get_num_threads(),
        )
    )  # fmt: skip
    return found


def _keep_of_products(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _back_of_products(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    needed = list(ctx.needs_input_grad)
    found = products_backward(gradient, *ctx.saved_tensors, needed)
    return tuple(each if wanted else None for each, wanted in zip(found, needed, strict=True))


torch.library.register_autograd(
    "minibert::products", _back_of_products, setup_context=_keep_of_products
)


# ---- attention


def _context(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _like(q), q.new_empty(q.shape[:2], dtype=torch.float32)


@_operation(_context)
def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, n_dropped: int, seed: int
) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √dim) v of packed sequences, with dropout: `ops.attention_of_seed`.

    Args:
        q, k, v: `(tokens, heads, dim)`, numbers; q of all tokens, or of each sequence's first.
        lengths: of the sequences, int32; they add up to `tokens`.
        n_dropped: probabilities to drop, of 65,536.
        seed: of which those are.

    Returns: the context, and of each query the logarithm of its sum of exponentials.
    """
    q, k, v = (_rows_whole(each) for each in (q, k, v))
    out, logs = _context(q)
    call = _attention_call(q, k, v, lengths, logs, out, n_dropped, seed)
    checked(
        loaded().minibert_attention_training(ctypes.byref(call), False, torch.get_num_threads())
    )
    return out, logs


def _gradients_of_attention(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _like(q), _like(k), _like(v)


@_operation(_gradients_of_attention)
def packed_attention_backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    logs: Tensor,
    n_dropped: int,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v."""
    gradient, q, k, v = gradient.contiguous(), *(_rows_whole(each) for each in (q, k, v))
    call = _attention_call(q, k, v, lengths, logs, gradient, n_dropped, seed)
    found = _gradients_of_attention(gradient, q, k, v)
    call.to_q, call.to_k, call.to_v = (each.data_ptr() for each in found)
    checked(loaded().minibert_attention_training(ctypes.byref(call), True, torch.get_num_threads()))
    return found


def _rows_whole(x: Tensor) -> Tensor:
    """The same, with the heads of a token side by side."""
    return x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous()


def _attention_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    logs: Tensor,
    out: Tensor,
    n_dropped: int,
    seed: int,
) -> _AttentionCall:
    assert lengths.dtype == torch.int32, f"lengths are {lengths.dtype}"
    assert int(lengths.sum()) == len(k) == len(v), "lengths do not add up to all tokens"
    assert q.dtype == k.dtype == v.dtype, f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}"
    assert len(q) in (len(lengths), len(k)), f"{len(q)} queries of {len(k)} tokens"
    return _AttentionCall(
        q=q.data_ptr(), k=k.data_ptr(), v=v.data_ptr(),
        q_stride=q.stride(0), k_stride=k.stride(0), v_stride=v.stride(0),
        lengths=lengths.data_ptr(), sequences=len(lengths), heads=q.shape[1], dim=q.shape[2],
        longest=int(lengths.max()), only_first=len(q) == len(lengths),
        of_bfloat16=_is_bfloat16(q), drops=n_dropped > 0, dropout=_dropout(n_dropped, seed),
        logs=logs.data_ptr(), out=out.data_ptr(),
    )  # fmt: skip


def _keep_of_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, lengths, ctx.n_dropped, ctx.seed = inputs
    ctx.save_for_backward(q, k, v, lengths, output[1])
    ctx.mark_non_differentiable(output[1])


def _back_of_attention(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    found = packed_attention_backward(gradient, *ctx.saved_tensors, ctx.n_dropped, ctx.seed)
    return (*found, None, None, None)


torch.library.register_autograd(
    "minibert::packed_attention", _back_of_attention, setup_context=_keep_of_attention
)


# ---- dropout


@_operation(_like)
def dropout(x: Tensor, n_dropped: int, seed: int) -> Tensor:
    """Numbers, each made 0 at a chance of `n_dropped` in 65,536: `ops.dropout_of_seed`."""
    x = x.contiguous()
    y = torch.empty_like(x)
    how = _dropout(n_dropped, seed)
    checked(
        loaded().minibert_dropout(
            x.data_ptr(), _is_bfloat16(x), x.numel(), ctypes.byref(how), y.data_ptr(),
            torch.get_num_threads(),
        )
    )  # fmt: skip
    return y


def _keep_of_dropout(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.n_dropped, ctx.seed = inputs


def _back_of_dropout(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return dropout(gradient, ctx.n_dropped, ctx.seed), None, None


torch.library.register_autograd(
    "minibert::dropout", _back_of_dropout, setup_context=_keep_of_dropout
)


# ---- GELU


@_operation(_like)
def gelu(x: Tensor) -> Tensor:
    """x Φ(x) of numbers: `ops.ACTIVATIONS["gelu"]`."""
    x = x.contiguous()
    y = torch.empty_like(x)
    checked(
        loaded().minibert_gelu(
            x.data_ptr(), _is_bfloat16(x), x.numel(), y.data_ptr(), torch.get_num_threads()
        )
    )
    return y


@_operation(_like)
def gelu_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient of x."""
    gradient, x = gradient.contiguous(), x.contiguous()
    to_x = torch.empty_like(x)
    checked(
        loaded().minibert_gelu_backward(
            gradient.data_ptr(), x.data_ptr(), _is_bfloat16(x), x.numel(), to_x.data_ptr(),
            torch.get_num_threads(),
        )
    )  # fmt: skip
    return to_x


def _keep_of_gelu(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _back_of_gelu(ctx: Any, gradient: Tensor) -> Tensor:
    return gelu_backward(gradient, *ctx.saved_tensors)


torch.library.register_autograd("minibert::gelu", _back_of_gelu, setup_context=_keep_of_gelu)


# ---- sums that are normalised


def _normalised(x: Tensor, y: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _like(x), _like(y), x.new_empty(x.shape[0])


@_operation(_normalised)
def add_norm_training(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm of x + y: `ops.add_norm`.

    Args:
        x: `(rows, width)`, float32.
        y: of the same shape, numbers.

    Returns: the result, `(rows, width)`, float32; for the backward pass the same without weight
        and bias, of y's type, and of each row what it was multiplied by.
    """
    x, y = x.contiguous(), y.contiguous()
    out, normal, factor = _normalised(x, y)
    norm = NormStructure(weight.data_ptr(), bias.data_ptr(), eps)
    checked(
        loaded().minibert_add_norm_training(
            x.data_ptr(), y.data_ptr(), _is_bfloat16(y), ctypes.byref(norm), len(x), x.shape[1],
            out.data_ptr(), normal.data_ptr(), factor.data_ptr(), torch.get_num_threads(),
        )
    )  # fmt: skip
    return out, normal, factor


def _gradients_of_norm(
    gradient: Tensor, normal: Tensor, factor: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _like(gradient), _like(normal), _like(weight), _like(weight)


@_operation(_gradients_of_norm)
def add_norm_backward(
    gradient: Tensor, normal: Tensor, factor: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, y, weight and bias."""
    gradient = gradient.contiguous()
    found = _gradients_of_norm(gradient, normal, factor, weight)
    checked(
        loaded().minibert_add_norm_backward(
            gradient.data_ptr(), normal.data_ptr(), _is_bfloat16(normal), factor.data_ptr(),
            weight.data_ptr(), len(gradient), gradient.shape[1],
            *(each.data_ptr() for each in found), torch.get_num_threads(),
        )
    )  # fmt: skip
    return found


def _keep_of_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output[1:], inputs[2])
    ctx.mark_non_differentiable(*output[1:])


def _back_of_norm(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return (*add_norm_backward(gradient, *ctx.saved_tensors), None)


torch.library.register_autograd(
    "minibert::add_norm_training", _back_of_norm, setup_context=_keep_of_norm
)
