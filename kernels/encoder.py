"""A BERT's encoder by the kernels: its weights laid out as `cpu/encoder.cpp` reads them.

Knows tensors and numbers, no module of `minibert`: `minibert/engine.py` takes a network apart.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minibert.kernels.large_pages import LargePages
from minibert.kernels.panels import (
    LinearStructure,
    NormStructure,
    instructions_of,
    most_bytes,
    number_of,
    numbers_of,
    packed,
    structure_of,
)

ACTIVATIONS = ("gelu", "gelu_tanh", "relu")  # by the numbers of `enum Activation`

# Tokens that a thread takes through the network at once: between 128 and 1,024 it makes no odds.
BATCH_TOKENS = 256


class _Layer(ctypes.Structure):
    _fields_ = (
        ("qkv", LinearStructure), ("output", LinearStructure), ("up", LinearStructure),
        ("down", LinearStructure), ("attention_norm", NormStructure),
        ("feed_forward_norm", NormStructure),
    )  # fmt: skip


class _Network(ctypes.Structure):
    _fields_ = (
        ("numbers", ctypes.c_int), ("layers", ctypes.c_int), ("hidden", ctypes.c_int),
        ("heads", ctypes.c_int), ("intermediate", ctypes.c_int), ("activation", ctypes.c_int),
        ("token", ctypes.c_void_p), ("token_type", ctypes.c_void_p),
        ("position", ctypes.c_void_p), ("norm", NormStructure), ("layer", ctypes.POINTER(_Layer)),
    )  # fmt: skip


class _Batch(ctypes.Structure):
    _fields_ = (
        ("ids", ctypes.c_void_p), ("types", ctypes.c_void_p), ("lengths", ctypes.c_void_p),
        ("skips", ctypes.c_void_p),
        ("sequences", ctypes.c_int), ("tokens", ctypes.c_int), ("pooled", ctypes.c_bool),
        ("out", ctypes.c_void_p),
    )  # fmt: skip


class LinearWeights(NamedTuple):
    """A linear map: of floats, or of integers that stand for `scale` times themselves."""

    weight: Tensor  # (outputs, inputs)
    bias: Tensor  # (outputs)
    scale: Tensor | None  # (outputs), of integers


class NormWeights(NamedTuple):
    """A LayerNorm."""

    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True)
class LayerWeights:
    """What a layer of the encoder has."""

    qkv: LinearWeights
    output: LinearWeights
    up: LinearWeights
    down: LinearWeights
    attention_norm: NormWeights
    feed_forward_norm: NormWeights

    @property
    def maps(self) -> tuple[LinearWeights, ...]:
        return (self.qkv, self.output, self.up, self.down)


@dataclass(frozen=True)
class NetworkWeights:
    """What an encoder has; tables and norms are computed in float32."""

    token: Tensor
    token_type: Tensor
    position: Tensor
    norm: NormWeights
    layers: Sequence[LayerWeights]
    heads: int
    activation: str


class Encoder:
    """An encoder that is ready to compute.

    Many threads may call it at once.  A sequence's numbers do not depend on what else is computed,
    nor on the number of threads, to the last bit.

    Args:
        bfloat16x3: whether linear maps of float32 weights are computed so.

    Raises: KernelsUnavailableError: there are no linear maps here for such numbers.
    """

    def __init__(
        self, library: ctypes.CDLL, weights: NetworkWeights, *, bfloat16x3: bool = False
    ) -> None:
        self._library = library
        self._kept: list[object] = []  # what the structures point into
        first = weights.layers[0]
        self.hidden = first.output.weight.shape[0]
        # What linear maps compute with, of `panels.NUMBERS`.
        self.numbers = "bfloat16x3" if bfloat16x3 else numbers_of(first.qkv.weight)
        number = number_of(library, self.numbers)
        maps = [each for layer in weights.layers for each in layer.maps]
        self._pages = LargePages(
            sum(most_bytes(library, each.weight, bfloat16x3=bfloat16x3) for each in maps)
        )
        layers = (_Layer * len(weights.layers))(*map(self._layer, weights.layers))
        self._kept.append(layers)
        self._network = _Network(
            number, len(layers), self.hidden, weights.heads,
            first.up.weight.shape[0], ACTIVATIONS.index(weights.activation),
            self._pointer(weights.token), self._pointer(weights.token_type),
            self._pointer(weights.position), self._norm(weights.norm), layers,
        )  # fmt: skip

    @property
    def instructions(self) -> str:
        """Which instructions of the CPU it computes by."""
        return instructions_of(self._library, self.numbers)

    def run(
        self,
        ids: NDArray[np.int32],
        lengths: NDArray[np.int32],
        *,
        pooled: bool,
        threads: int,
        types: NDArray[np.int32] | None = None,
        skips: NDArray[np.int32] | None = None,
    ) -> Tensor:
        """Hidden states `(tokens, hidden)`, or where `pooled` each sequence's mean of them.

        Args:
            ids: of all tokens, sequence after sequence; trusted to be rows of the table.
            lengths: of the sequences, each at least 1.
            pooled: the mean over a sequence's tokens, in place of them.
            threads: how many compute.
            types: of all tokens, trusted as well; None: all are of the first.
            skips: of each sequence, first tokens to leave out of the mean.

        Raises: MemoryError.
        """
        out = torch.empty(len(lengths) if pooled else len(ids), self.hidden)
        arrays = [ids, types, lengths, skips]
        for array in arrays:
            assert array is None or (array.dtype == np.int32 and array.flags.c_contiguous)
        pointers = [None if array is None else array.ctypes.data for array in arrays]
        batch = _Batch(*pointers, len(lengths), len(ids), pooled, out.data_ptr())
        network = ctypes.byref(self._network)
        if self._library.minibert_encode(network, ctypes.byref(batch), BATCH_TOKENS, threads):
            raise MemoryError(f"no memory for a batch of {len(ids):,} tokens")
        return out

    def _layer(self, layer: LayerWeights) -> _Layer:
        norms = (layer.attention_norm, layer.feed_forward_norm)
        return _Layer(*map(self._linear, layer.maps), *map(self._norm, norms))

    def _linear(self, linear: LinearWeights) -> LinearStructure:
        split = self.numbers == "bfloat16x3"
        panels = packed(self._library, *linear, bfloat16x3=split, put=self._pages.put)
        self._kept.append(panels)
        return structure_of(self._library, panels)

    def _norm(self, norm: NormWeights) -> NormStructure:
        return NormStructure(self._pointer(norm.weight), self._pointer(norm.bias), norm.eps)

    def _pointer(self, tensor: Tensor) -> int:
        tensor = tensor.detach().float().contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()
