"""Small networks of random weights, texts for them, and what PyTorch makes of these."""

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from minibert import BertModel
from minibert.config import BertConfig
from minibert.layout import Packed
from minibert.ops import QuantisedLinear
from minibert.quantise import BITS, quantise

VOCAB, POSITIONS = 60, 80
LENGTHS = st.lists(st.integers(1, POSITIONS), min_size=1, max_size=12)


def network(dtype: str, *, seed: int = 0, **values: object) -> BertModel:
    """Random, with biases and norms that are none of those that change nothing."""
    torch.manual_seed(seed)
    config = BertConfig.from_dict(
        {
            "vocab_size": VOCAB, "hidden_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 3, "intermediate_size": 100,
            "max_position_embeddings": POSITIONS, "type_vocab_size": 2, **values,
        }
    )  # fmt: skip
    model = BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.15))
    return quantise(model, dtype) if dtype in BITS else model.to(getattr(torch, dtype))


def ids_of(lengths: list[int], seed: int = 1) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, VOCAB, sum(lengths), dtype=np.int32)


def array(lengths: list[int]) -> NDArray[np.int32]:
    return np.array(lengths, dtype=np.int32)


def by_pytorch(model: BertModel, ids: NDArray[np.int32], lengths: list[int]) -> Tensor:
    with torch.no_grad():
        layout = Packed.from_lengths(lengths)
        return model(torch.from_numpy(ids).long(), layout=layout).last_hidden_state


def in_float64(model: BertModel) -> BertModel:
    """The same function of wider numbers: integers are multiplied exactly, and rounded nowhere."""
    wide = BertModel(model.config).eval()
    for name, child in model.named_modules():
        if isinstance(child, QuantisedLinear):
            parent, _, last = name.rpartition(".")
            copy = QuantisedLinear(child.weight, child.scale, child.bias)
            setattr(wide.get_submodule(parent), last, copy)
    wide.load_state_dict(model.state_dict())
    return wide.double()


def error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())
