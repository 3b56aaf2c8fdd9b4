"""The operations that faster forms may replace, each here in plain PyTorch: attention, activations,
sums that are normalised.

This file is the only door to hand-written kernels: whatever comes in through it has its twin here
and gives the same result.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from minibert.layout import Layout, Packed

Activation = Callable[[Tensor], Tensor]

# Up to this many tokens the matrix products of `_unfused`, batched over sequences and heads, are
# faster on a CPU in float32 than the fused kernel, which visits each head of each sequence by
# itself: 2 to 4 times up to 16 tokens.  In other types the fused kernel is ahead at every length.
SHORT_TOKENS = 32

_HALVES = (torch.bfloat16, torch.float16)

# By the names of `config.HIDDEN_ACTS`. The exact GELU and its tanh form differ by up to 4.73e-4
# (at x ≈ -2.70): a checkpoint runs with the one it was trained with.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def attention(
    q: Float[Tensor, "*tokens heads head_dim"],
    k: Float[Tensor, "*tokens heads head_dim"],
    v: Float[Tensor, "*tokens heads head_dim"],
    layout: Layout,
    dropout: float = 0.0,
) -> Float[Tensor, "*tokens heads head_dim"]:
    """softmax(q kᵀ / √head_dim) v over the tokens that see each other.

    Fused, but for short sequences that are packed.  A row with nothing to attend to gives zeros.
    `model.explicit_attention` is the same, written to be read.

    Args:
        q, k, v: `(batch, seq, heads, head_dim)` when padded, `(tokens, heads, head_dim)` when
            packed.
        layout: which tokens see each other.
        dropout: the share of attention probabilities to drop.
    """
    if not isinstance(layout, Packed):
        return _fused(q, k, v, layout.visible(), dropout)
    plain = q.device.type == "cpu" and q.dtype == torch.float32 and not dropout
    runs = []
    for start, count, length in layout.runs():
        # A run of sequences of one length is a batch without padding: a view, not a copy.
        shape = (count, length, *q.shape[1:])
        rows = slice(start, start + count * length)
        run_q, run_k, run_v = q[rows].view(shape), k[rows].view(shape), v[rows].view(shape)
        if plain and length <= SHORT_TOKENS:
            run = _unfused(run_q, run_k, run_v)
        else:
            run = _fused(run_q, run_k, run_v, None, dropout)
        runs.append(run.flatten(0, 1))
    return runs[0] if len(runs) == 1 else torch.cat(runs)


def _unfused(
    q: Float[Tensor, "batch seq heads head_dim"],
    k: Float[Tensor, "batch seq heads head_dim"],
    v: Float[Tensor, "batch seq heads head_dim"],
) -> Float[Tensor, "batch seq heads head_dim"]:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    scores = (q @ k.transpose(2, 3)).mul_(1 / math.sqrt(q.shape[-1]))
    return (scores.softmax(dim=-1) @ v).transpose(1, 2)


def _fused(
    q: Float[Tensor, "batch seq heads head_dim"],
    k: Float[Tensor, "batch seq heads head_dim"],
    v: Float[Tensor, "batch seq heads head_dim"],
    visible: Tensor | None,
    dropout: float,
) -> Float[Tensor, "batch seq heads head_dim"]:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    context = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=dropout)
    return context.transpose(1, 2)


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
    x = add(terms)
    return F.layer_norm(x, weight.shape, weight.to(x.dtype), bias.to(x.dtype), eps).to(weight.dtype)


def add(terms: Sequence[Tensor]) -> Tensor:
    """The sum from left to right, on which its last bit depends; in float32 or wider."""
    total = terms[0].float() if terms[0].dtype in _HALVES else terms[0]
    for term in terms[1:]:
        total = total + term
    return total
