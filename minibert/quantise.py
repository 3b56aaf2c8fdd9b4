"""Networks whose linear maps compute with integers of 8 or 16 bits; the rest stays float32.

By the kernels attention's products are those of 16 bits as well (`ops.integer_attention`).

int16  activations and weights to about 14 bits: the vectors of all-MiniLM-L6-v2 differ by 5e-4
       at most, less than those of bfloat16, and nearly twice as fast as float32 on a CPU
int8   a quarter of the memory and three times as fast; see docs/performance.md for its price
"""

from typing import TypeVar

import torch
from torch import nn

from minibert import ops

BITS = {"int8": 8, "int16": 16}

M = TypeVar("M", bound=nn.Module)


def quantise(model: M, dtype: str) -> M:
    """Replace the linear maps of the encoder's layers by those of integers; returns `model`.

    Embeddings, norms, pooler and heads stay as they are: they take next to no time.

    Args:
        model: a `BertModel`, or a head over one, of float32 or wider.
        dtype: "int8" or "int16".
    """
    if dtype not in BITS:
        raise ValueError(f"got dtype {dtype!r}, expected one of {list(BITS)}")
    layers = [
        module
        for name, module in model.named_modules()
        if name == "layers" or name.endswith(".layers")
    ]
    for parent in [each for each in layers for each in each.modules()]:
        for name, child in list(parent.named_children()):
            if isinstance(child, ops.Linear):
                setattr(parent, name, quantised(child, BITS[dtype]))
    return model


def quantised(linear: nn.Linear, bits: int) -> ops.QuantisedLinear:
    """One linear map of integers."""
    with torch.no_grad():
        weight, scale = ops.quantised_weight(linear.weight.float(), bits)
        bias = linear.bias.detach().float().clone()
    return ops.QuantisedLinear(weight, scale, bias)
