"""The operations that faster forms may replace, each here in plain PyTorch: attention, activations.

This file is the only door to hand-written kernels: whatever comes in through it has its twin here
and gives the same result.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from minibert.layout import Layout, Packed

Activation = Callable[[Tensor], Tensor]

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
    """softmax(q kᵀ / √head_dim) v over the tokens that see each other, fused.

    A row with nothing to attend to gives zeros. `model.explicit_attention` is the same in the open.

    Args:
        q, k, v: `(batch, seq, heads, head_dim)` when padded, `(tokens, heads, head_dim)` when
            packed.
        layout: which tokens see each other.
        dropout: the share of attention probabilities to drop.
    """
    if not isinstance(layout, Packed):
        return _fused(q, k, v, layout.visible(), dropout)
    runs = []
    for start, count, length in layout.runs():
        # A run of sequences of one length is a batch without padding: a view, not a copy.
        shape = (count, length, *q.shape[1:])
        rows = slice(start, start + count * length)
        run = _fused(q[rows].view(shape), k[rows].view(shape), v[rows].view(shape), None, dropout)
        runs.append(run.flatten(0, 1))
    return runs[0] if len(runs) == 1 else torch.cat(runs)


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
