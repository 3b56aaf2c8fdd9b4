"""The operations that faster forms may replace, each here in plain PyTorch: attention, activations,
dropout, linear maps, also of integers, sums that are normalised.

Hand-written kernels compute nothing that has no twin here: `engine.py` runs a whole encoder on
them, and gives what these operations give; in training they are put in one by one, within
`computed_by`.
"""

import math
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8, Integer
from torch import Tensor, nn

from minibert.layout import Layout, Packed

Activation = Callable[[Tensor], Tensor]

# Up to this many tokens the matrix products of `_unfused`, batched over sequences and heads, are
# faster on a CPU in float32 than the fused kernel, which visits each head of each sequence by
# itself: 2 to 4 times up to 16 tokens.  In other types the fused kernel is ahead at every length.
SHORT_TOKENS = 32

_HALVES = (torch.bfloat16, torch.float16)
_SUBSTITUTED = (torch.bfloat16, torch.float32)


class Substitutes(NamedTuple):
    """Faster forms of operations, with gradients, on a CPU, of float32 and bfloat16.

    Dropout is told how many of 65,536 values to drop, and a seed of which.
    """

    linear: Callable[[Tensor, Tensor, Tensor | None], Tensor]  # of bfloat16 inputs
    attention: Callable[[Tensor, Tensor, Tensor, Tensor, int, int], Sequence[Tensor]]
    dropout: Callable[[Tensor, int, int], Tensor]
    gelu: Callable[[Tensor], Tensor]
    add_norm: Callable[[Tensor, Tensor, Tensor, Tensor, float], Sequence[Tensor]]


_substitutes: Substitutes | None = None


@contextmanager
def computed_by(substitutes: Substitutes | None) -> Iterator[None]:
    """Within the block these compute what they can, in the whole process; None: PyTorch does."""
    global _substitutes
    before, _substitutes = _substitutes, substitutes
    try:
        yield
    finally:
        _substitutes = before


def _substitutes_for(*numbers: Tensor) -> Substitutes | None:
    """Those in use, where they can compute with such numbers."""
    if _substitutes is None:
        return None
    fit = all(x.device.type == "cpu" and x.dtype in _SUBSTITUTED for x in numbers)
    return _substitutes if fit else None


def gelu(x: Tensor) -> Tensor:
    """x Φ(x), exactly, not by its tanh form."""
    found = _substitutes_for(x)
    return F.gelu(x) if found is None else found.gelu(x)


# By the names of `config.HIDDEN_ACTS`. The exact GELU and its tanh form differ by up to 4.73e-4
# (at x ≈ -2.70): a checkpoint runs with the one it was trained with.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def attention(
    q: Float[Tensor, "*queries heads head_dim"],
    k: Float[Tensor, "*tokens heads head_dim"],
    v: Float[Tensor, "*tokens heads head_dim"],
    layout: Layout,
    dropout: float = 0.0,
) -> Float[Tensor, "*queries heads head_dim"]:
    """softmax(q kᵀ / √head_dim) v over the tokens that see each other.

    Fused, but on a CPU for packed sequences that are short or of which something is dropped.  A row
    with nothing to attend to gives zeros.  `model.explicit_attention` is the same, written to be
    read.

    Args:
        q, k, v: `(batch, seq, heads, head_dim)` when padded, `(tokens, heads, head_dim)` when
            packed; q may then have one token a sequence, `(sequences, heads, head_dim)`.
        layout: which tokens see each other.
        dropout: the share of attention probabilities to drop.
    """
    if not isinstance(layout, Packed):
        return _fused(q, k, v, layout.visible(), dropout)
    n_dropped = _of_65536(dropout)
    if n_dropped < 2**16 and (found := _substitutes_for(q)):
        counted = torch.tensor(layout.lengths, dtype=torch.int32)
        return found.attention(q, k, v, counted, n_dropped, _seed() if n_dropped else 0)[0]
    on_cpu = q.device.type == "cpu"
    asking = len(q) == len(layout.lengths)  # one of each sequence
    # A run of sequences of one length is a batch without padding. Split, not sliced: the gradient
    # of a slice is as large as what it was taken from.
    counts, lengths = zip(*((count, length) for _, count, length in layout.runs()), strict=True)
    queries = [1] * len(lengths) if asking else lengths
    pieces = (
        torch.split(each, [count * n for count, n in zip(counts, ns, strict=True)])
        for each, ns in ((q, queries), (k, lengths), (v, lengths))
    )
    runs = []
    for count, *parts in zip(counts, *pieces, strict=True):
        run_q, run_k, run_v = (part.unflatten(0, (count, -1)) for part in parts)
        # With dropout torch's kernel is not fused, and makes copies; half precision is a matter of
        # speed, and products this small have none of it.
        short = q.dtype == torch.float32 and run_k.shape[1] <= SHORT_TOKENS
        if on_cpu and (dropout or short):
            run = _unfused(run_q, run_k, run_v, dropout)
        else:
            run = _fused(run_q, run_k, run_v, None, dropout)
        runs.append(run.flatten(0, 1))
    return runs[0] if len(runs) == 1 else torch.cat(runs)


def _unfused(
    q: Float[Tensor, "batch queries heads head_dim"],
    k: Float[Tensor, "batch keys heads head_dim"],
    v: Float[Tensor, "batch keys heads head_dim"],
    share: float,
) -> Float[Tensor, "batch queries heads head_dim"]:
    dtype = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):  # which would round all products
        wide_q, wide_k, wide_v = (each.transpose(1, 2).to(dtype) for each in (q, k, v))
        scores = (wide_q @ wide_k.transpose(2, 3)).mul_(1 / math.sqrt(q.shape[-1]))
        context = dropout(scores.softmax(dim=-1), share) @ wide_v
    return context.transpose(1, 2).to(q.dtype)


def _fused(
    q: Float[Tensor, "batch queries heads head_dim"],
    k: Float[Tensor, "batch keys heads head_dim"],
    v: Float[Tensor, "batch keys heads head_dim"],
    visible: Tensor | None,
    dropout: float,
) -> Float[Tensor, "batch queries heads head_dim"]:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    context = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=dropout)
    return context.transpose(1, 2)


def dropout(x: Tensor, share: float) -> Tensor:
    """`x` with each value made 0 at a chance of `share`, the others divided by 1 - share.

    On a CPU a value takes 16 bits of a draw, and `share` is rounded to a 65,536th: torch takes
    32 bits and a division of its own, at six times the cost.  Drawn from torch's generator.
    """
    n_dropped = _of_65536(share)
    if x.device.type != "cpu" or not 0 < n_dropped < 2**16:
        return F.dropout(x, share) if share else x
    if found := _substitutes_for(x):
        return found.dropout(x, n_dropped, _seed())
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[: x.numel()] >= n_dropped - 2**15
    # Of 8-bit integers, which become floating point numbers four times as fast as truth values.
    ones = kept.view(torch.int8).view(x.shape)
    factor = 2**16 / (2**16 - n_dropped)
    return _Kept.apply(x, ones, factor)  # type: ignore[no-untyped-call]


def _of_65536(share: float) -> int:
    return round(share * 2**16)


def _seed() -> int:
    """From torch's generator, whose state a checkpoint keeps."""
    return int(torch.randint(2**63 - 1, ()))


def dropout_of_seed(x: Tensor, n_dropped: int, seed: int) -> Tensor:
    """`x` with `n_dropped` of 65,536 values made 0: those that a hash of seed and number says.

    So nothing has to be kept for the backward pass.
    """
    numbers = torch.arange(x.numel(), device=x.device).view(x.shape)
    return x * _factors(numbers, n_dropped, seed).to(x.dtype)


def attention_of_seed(
    q: Float[Tensor, "queries heads head_dim"],
    k: Float[Tensor, "tokens heads head_dim"],
    v: Float[Tensor, "tokens heads head_dim"],
    lengths: Sequence[int],
    n_dropped: int,
    seed: int,
) -> Float[Tensor, "queries heads head_dim"]:
    """`attention` of packed sequences of these lengths, with the dropout of `dropout_of_seed`.

    The probability of query, head and key has the number (query · heads + head) · longest + key,
    with the key counted within its sequence, and `longest` of `lengths`.
    """
    queries = [1] * len(lengths) if len(q) == len(lengths) else list(lengths)
    rows = torch.arange(len(q) * q.shape[1]).view(len(q), -1) * max(lengths)
    contexts = []
    for part_q, part_k, part_v, part_rows in zip(
        torch.split(q, queries),
        torch.split(k, list(lengths)),
        torch.split(v, list(lengths)),
        torch.split(rows, queries),
        strict=True,
    ):
        scores = torch.einsum("qhd,khd->qhk", part_q, part_k) / math.sqrt(q.shape[-1])
        numbers = part_rows[:, :, None] + torch.arange(len(part_k))
        kept = scores.softmax(dim=-1) * _factors(numbers, n_dropped, seed).to(q.dtype)
        contexts.append(torch.einsum("qhk,khd->qhd", kept, part_v))
    return torch.cat(contexts)


def _factors(numbers: Int[Tensor, "..."], n_dropped: int, seed: int) -> Float[Tensor, "..."]:
    """What dropout multiplies values of these numbers by: 0, or 1 / (1 - share)."""
    once = _mixed((numbers ^ seed) & _LOW_32)
    draws = _mixed((once + (seed >> 32)) & _LOW_32) >> 16
    return (draws >= n_dropped) * (2**16 / (2**16 - n_dropped))


_LOW_32 = 2**32 - 1


def _mixed(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """A hash of 32 bits. Source: Wellons, https://github.com/skeeto/hash-prospector, lowbias32."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _LOW_32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _LOW_32
    return x ^ (x >> 16)


class _Kept(torch.autograd.Function):
    """x · ones · factor, which remembers a byte a value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ones: Int8[Tensor, "..."], factor: float) -> Tensor:
        ctx.save_for_backward(ones)
        ctx.factor = factor
        return (x * ones).mul_(factor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (ones,) = ctx.saved_tensors
        return (gradients[0] * ones).mul_(ctx.factor), None, None


class Dropout(nn.Dropout):
    """`dropout` as a module: in training only."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p if self.training else 0.0)


def linear(
    x: Float[Tensor, "*tokens inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "*tokens outputs"]:
    """x Wᵀ + b; under autocast to bfloat16 of inputs and weights that are rounded to it.

    A product of two bfloat16 numbers is exact in float32, in which they are summed up either way.
    So on a CPU without units for bfloat16 they are rounded and multiplied in float32, half as fast
    again, and without the code that oneDNN makes and keeps for each number of tokens.  Substitutes
    multiply integers of 16 bits, which are nearer to what is rounded than bfloat16 is.
    """
    if (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and torch.promote_types(x.dtype, weight.dtype) == torch.float32
        and not _has_bfloat16_units()
    ):
        if weight.dtype == torch.float32 and (found := _substitutes_for(x)):
            rows = x.to(torch.bfloat16).reshape(-1, x.shape[-1])
            return found.linear(rows, weight, bias).view(*x.shape[:-1], len(weight))
        return _RoundedLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return F.linear(x, weight, bias)


@cache
def _has_bfloat16_units() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32: with AMX, or if it is none of x86.

    Instructions for it in AVX-512 are half as fast as those for float32.
    """
    return platform.machine() not in ("x86_64", "AMD64") or torch.cpu._is_amx_tile_supported()


class _RoundedLinear(torch.autograd.Function):
    """A linear map of bfloat16 numbers in float32; it remembers its input in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rounded = x.to(torch.bfloat16)
        ctx.save_for_backward(rounded, weight)
        ctx.dtype = x.dtype
        with torch.autocast("cpu", enabled=False):
            out = rounded_linear(rounded, weight, bias)
        return out.to(torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rounded, weight = ctx.saved_tensors
        out = gradients[0].float()
        rows = out.flatten(0, -2)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            (out @ _rounded(weight)).to(ctx.dtype) if needs_x else None,
            rows.T @ rounded.float().flatten(0, -2) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )


def rounded_linear(
    x: Float[Tensor, "*tokens inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "*tokens outputs"]:
    """x Wᵀ + b of inputs and weights that are rounded to bfloat16, in float32."""
    return F.linear(_rounded(x), _rounded(weight), None if bias is None else bias.float())


def _rounded(x: Tensor) -> Tensor:
    """The nearest numbers that bfloat16 has."""
    return x.to(torch.bfloat16).float()


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest numbers that bfloat16 has, and the nearest to what they lack: x to 2⁻¹⁷ of it."""
    high = _rounded(x)
    return high, _rounded(x - high)


def split_linear(
    x: Float[Tensor, "*tokens inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "*tokens outputs"]:
    """x Wᵀ + b of numbers that are split into two of bfloat16, in float32 ("bfloat16x3").

    Three products of bfloat16 make one that is nearly of float32, for the fourth, of the two small
    parts, is 2⁻¹⁶ of it at most: that pays where bfloat16 is multiplied more than three times as
    fast.  Here each is multiplied in float32, where it is exact.

    Source: Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For
        Higher-Precision Computations", ARITH 2019.
    """
    (high, low), (weight_high, weight_low) = split(x), split(weight)
    inputs = torch.cat((high, low, high), dim=-1)
    return F.linear(inputs, torch.cat((weight_high, weight_high, weight_low), dim=1), bias)


class Linear(nn.Linear):
    """`linear` as a module."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


# Inputs whose products are added up as integers; the sums of blocks are added in float32.
BLOCK = 128
# The largest input of 16 bits, and the most that the weights of a block may add up to in magnitude:
# their sum of products then fits 32 bits, whatever the inputs are.
_LARGEST_16 = 2**14 - 1
_LARGEST_SUM_16 = (2**31 - 1) // _LARGEST_16 - BLOCK  # each weight may be rounded up by a half


def quantised_rows(
    x: Float[Tensor, "*tokens inputs"], bits: int
) -> tuple[Float[Tensor, "*tokens inputs"], Float[Tensor, "*tokens 1"], Float[Tensor, "*tokens 1"]]:
    """Integers q, and of each row its scale and zero, so that x ≈ scale · (q - zero).

    Of 8 bits, q is 0 to 255, and 0.0 is exact: activations lie on one side.  Of 16 it is -16383 to
    16383, with the zero at 0: half of what fits, so that sums of products do.
    """
    if bits == 16:
        magnitude = x.abs().amax(dim=-1, keepdim=True)
        inverse = torch.where(magnitude > 0, _LARGEST_16 / magnitude, 0.0)
        return (x * inverse).round(), magnitude / _LARGEST_16, torch.zeros_like(magnitude)
    low = x.amin(dim=-1, keepdim=True).clamp(max=0.0)
    span = x.amax(dim=-1, keepdim=True).clamp(min=0.0) - low
    inverse = torch.where(span > 0, 255 / span, 0.0)
    zero = (-low * inverse).round()
    return ((x * inverse).round() + zero).clamp(0, 255), span / 255, zero


def quantised_weight(
    weight: Float[Tensor, "outputs inputs"], bits: int
) -> tuple[Integer[Tensor, "outputs inputs"], Float[Tensor, " outputs"]]:
    """Integers, and of each output its scale, so that weight ≈ scale · integers."""
    magnitude = weight.abs()
    if bits == 16:
        blocks = F.pad(magnitude, (0, -magnitude.shape[1] % BLOCK)).view(len(weight), -1, BLOCK)
        scale = torch.maximum(
            blocks.sum(dim=2).amax(dim=1) / _LARGEST_SUM_16, magnitude.amax(dim=1) / (2**15 - 1)
        )
    else:
        scale = magnitude.amax(dim=1) / 127
    scale = torch.where(scale > 0, scale, 1.0)
    dtype = torch.int16 if bits == 16 else torch.int8
    return (weight / scale[:, None]).round().to(dtype), scale


class QuantisedLinear(nn.Module):
    """x Wᵀ + b of weights of 8 or 16 bits, one scale an output, and inputs quantised by row.

    For inference: it has no gradient.  Here the integers are multiplied as float32 numbers, which
    shows what comes out and saves no time; the kernels do it as integers.
    """

    def __init__(
        self,
        weight: Integer[Tensor, "outputs inputs"],
        scale: Float[Tensor, " outputs"],
        bias: Float[Tensor, " outputs"],
    ) -> None:
        super().__init__()
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    @property
    def bits(self) -> int:
        """Of a weight, and of an input."""
        return 8 * self.weight.element_size()

    def forward(self, input: Float[Tensor, "*tokens inputs"]) -> Float[Tensor, "*tokens outputs"]:
        integers, scale, zero = quantised_rows(input, self.bits)
        weight = self.weight.to(input.dtype) * self.scale[:, None]
        return F.linear((integers - zero) * scale, weight, self.bias)


def integer_attention(
    q: Float[Tensor, "tokens heads head_dim"],
    k: Float[Tensor, "tokens heads head_dim"],
    v: Float[Tensor, "tokens heads head_dim"],
    layout: Packed,
) -> Float[Tensor, "tokens heads head_dim"]:
    """`attention` whose products are those of 16-bit integers, as the kernels compute it in a
    network of `QuantisedLinear`.

    Keys and values have one scale a column, over the tokens of their sequence and head; queries,
    once they are multiplied by those of the keys, one in all.  Probabilities are whole numbers of
    which the largest is 2^13.  Shows what comes out, and saves no time.
    """
    wide = (torch.split(each.double(), list(layout.lengths)) for each in (q, k, v))
    contexts = []
    for piece in zip(*wide, strict=True):
        queries, keys, values = (
            part.transpose(0, 1) for part in piece
        )  # (heads, tokens, head_dim)
        most = min(2**15 - 1, math.isqrt(2**30 // q.shape[-1]))  # sums stay within 2^30
        keys, key_scale = _whole(keys, keys.abs().amax(dim=1, keepdim=True), most)
        values, value_scale = _whole(values, values.abs().amax(dim=1, keepdim=True), 2**12 - 1)
        queries = queries * key_scale
        queries, scale = _whole(queries, queries.abs().amax(dim=(1, 2), keepdim=True), most)
        scores = queries @ keys.transpose(1, 2)
        scores = (scores - scores.amax(dim=2, keepdim=True)) * scale / math.sqrt(q.shape[-1])
        shares = (scores.exp() * 2**13).round()
        context = shares @ values * value_scale / shares.sum(dim=2, keepdim=True)
        contexts.append(context.transpose(0, 1))
    return torch.cat(contexts).to(q.dtype)


def _whole(x: Tensor, magnitude: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Whole numbers of which `magnitude` becomes `most`, and the scale that gives `x` back."""
    scale = torch.where(magnitude > 0, magnitude / most, 1.0)
    return (x / scale).round(), scale


def add_norm(
    terms: Sequence[Tensor],
    weight: Float[Tensor, " hidden"],
    bias: Float[Tensor, " hidden"],
    eps: float,
) -> Float[Tensor, "*tokens hidden"]:
    """LayerNorm of a sum: (x - mean) / √(var + eps) · weight + bias, in the weight's dtype.

    In half precision it is computed in float32 and rounded once, at the end.  Were the sum rounded
    too, some stages of all-MiniLM-L6-v2 in bfloat16 would err twice as far (`minibert parity
    check`).

    Args:
        terms: what is added, from left to right; `(*tokens, hidden)`, or what broadcasts to that.
    """
    if _is_sum_of_two(terms, weight) and (found := _substitutes_for(*terms)):
        x, y = (term.reshape(-1, len(weight)) for term in terms)
        return found.add_norm(x, y, weight, bias, eps)[0].view(terms[0].shape)
    x = add(terms)
    return F.layer_norm(x, weight.shape, weight.to(x.dtype), bias.to(x.dtype), eps).to(weight.dtype)


def _is_sum_of_two(terms: Sequence[Tensor], weight: Tensor) -> bool:
    """Whether there are two terms alike, the first and the weight of float32."""
    return (
        len(terms) == 2
        and terms[0].shape == terms[1].shape
        and terms[0].dtype == weight.dtype == torch.float32
    )


def bias_gelu(
    x: Float[Tensor, "*tokens width"], bias: Float[Tensor, " width"], name: str
) -> Float[Tensor, "*tokens width"]:
    """GELU of x + bias in the dtype of x; in half precision rounded once, at the end, as sums are.

    Args:
        name: which of `ACTIVATIONS`.
    """
    return ACTIVATIONS[name](add((x, bias))).to(x.dtype)


def add(terms: Sequence[Tensor]) -> Tensor:
    """The sum from left to right, on which its last bit depends; in float32 or wider."""
    total = terms[0].float() if terms[0].dtype in _HALVES else terms[0]
    for term in terms[1:]:
        total = total + term
    return total
