"""A network on hand-written kernels: what `BertModel` computes for packed sequences, faster.

The kernels (`kernels/cpu/`) are compiled once for the CPU at hand; those for GPUs are used by
`gpu_engine.py`.  Where there can be none, or a network has something that they lack, `minibert`
computes with plain PyTorch: the same results, slower.
"""

import ctypes
import operator
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from minibert import ops
from minibert.config import BertConfig
from minibert.kernels import build
from minibert.kernels.build import KernelsUnavailableError
from minibert.kernels.encoder import (
    Encoder,
    LayerWeights,
    LinearWeights,
    NetworkWeights,
    NormWeights,
)
from minibert.model import BertModel, Layer
from minibert.weights import cache_folder

_ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
}  # fmt: skip

_END = object()  # so that one tensor more, or one less, is seen
_version = operator.attrgetter("_version")

_INTEGERS = {"int16": "16-bit integers", "int8": "8-bit integers"}


def load_kernels(*, compile_kernels: bool = True) -> ctypes.CDLL:
    """The library of kernels in minibert's cache, compiled there if it is not and may be.

    Raises: KernelsUnavailableError: why not, in one line.
    """
    return build.load(cache_folder() / "kernels", build=compile_kernels)


class Engine:
    """The encoder of a `BertModel` on the kernels, with its weights as they are now.

    A text's numbers are the same to the last bit whatever it is computed with, and on any number of
    threads.

    Args:
        compile_kernels: if they are not.
        bfloat16x3: compute a float32 network's linear maps as `ops.split_linear` does.

    Raises: KernelsUnavailableError: why not, in one line.
    """

    def __init__(
        self, model: BertModel, *, compile_kernels: bool = True, bfloat16x3: bool = False
    ) -> None:
        if (lacking := _lacking(model, bfloat16x3)) is not None:
            raise KernelsUnavailableError(f"the kernels do not have {lacking}")
        library = load_kernels(compile_kernels=compile_kernels)
        self._encoder = Encoder(library, _weights_of(model), bfloat16x3=bfloat16x3)
        self._config = model.config
        self._snapshot = _Snapshot(model)

    @property
    def description(self) -> str:
        """What computes, for a line that says it."""
        numbers = self._encoder.numbers
        return f"{_INTEGERS.get(numbers, numbers)} by kernels for {self._encoder.instructions}"

    def is_of(self, model: BertModel) -> bool:
        """Whether the model's weights are still those that this engine was made of."""
        return self._snapshot.is_of(model)

    def mean(
        self, ids: NDArray[np.int32], lengths: NDArray[np.int32], skips: NDArray[np.int32] | None
    ) -> Float[Tensor, "sequences hidden"]:
        """Each sequence's mean hidden state, without its first tokens, as many as `skips` says.

        Raises: ValueError for ids outside the vocabulary, or lengths that do not fit.
        """
        check_batch(self._config, ids, lengths)
        return self._encoder.run(
            ids, lengths, skips=skips, pooled=True, threads=torch.get_num_threads()
        )

    def hidden(
        self,
        ids: NDArray[np.int32],
        lengths: NDArray[np.int32],
        types: NDArray[np.int32] | None = None,
    ) -> Float[Tensor, "tokens hidden"]:
        """Each token's last hidden state; `types` are the tokens', None for the first.

        Raises: ValueError for what `mean` refuses, and for types that there are not.
        """
        check_batch(self._config, ids, lengths, types)
        return self._encoder.run(
            ids, lengths, types=types, pooled=False, threads=torch.get_num_threads()
        )


def check_batch(
    config: BertConfig,
    ids: NDArray[np.int32],
    lengths: NDArray[np.int32],
    types: NDArray[np.int32] | None = None,
) -> None:
    """Refuse, with a ValueError, ids and types that have no row, and lengths that do not fit them.

    The kernels trust what they get: a wrong id would read memory of something else.
    """
    vocab_size, longest = config.vocab_size, config.max_position_embeddings
    if ids.size == 0 or _any_outside(ids, vocab_size):
        raise ValueError(f"got ids outside of 0 to {vocab_size - 1}, or none")
    if _any_outside(lengths - 1, longest) or lengths.sum() != ids.size:
        raise ValueError(
            f"got lengths {lengths.min()} to {lengths.max()} of {ids.size} ids, expected 1 to "
            f"{longest}, as many as there are ids in all"
        )
    if types is not None:
        n_types = config.type_vocab_size
        if types.shape != ids.shape or _any_outside(types, n_types):
            raise ValueError(f"got types outside of 0 to {n_types - 1}, or not one for each id")


def _any_outside(numbers: NDArray[np.int32], count: int) -> bool:
    """Whether one is none of 0 to `count` - 1: a negative one is large without its sign."""
    return bool(np.maximum.reduce(numbers.view(np.uint32)) >= count)


def _lacking(model: BertModel, bfloat16x3: bool) -> str | None:
    """What a network has that the kernels do not, or None."""
    token = model.embeddings.token.weight
    if token.device.type != "cpu":
        return f"a form for {token.device.type}"
    kinds = {linear.weight.dtype for layer in _layers(model) for linear in _maps(layer)}
    if bfloat16x3 and kinds != {torch.float32}:
        return "a form for bfloat16x3 of weights that are not float32"
    if token.dtype == torch.bfloat16 and kinds == {torch.bfloat16}:
        if not torch.cpu._is_amx_tile_supported():
            return "a form for bfloat16 on a CPU without AMX"
    elif token.dtype != torch.float32 or len(kinds) != 1:
        return f"a form for {str(token.dtype).removeprefix('torch.')}"
    if model.config.hidden_act not in _ACTIVATIONS:
        return f"the activation {model.config.hidden_act}"
    return of_ones_own(model)


def of_ones_own(model: BertModel) -> str | None:
    """What someone has put into a network that kernels would pass over, or None."""
    if any(layer.attention.attend is not ops.attention for layer in _layers(model)):
        return "an attention of one's own"
    if any(each._forward_hooks or each._forward_pre_hooks for each in model.modules()):
        return "hooks, and something looks at this network's stages"
    return None


def _layers(model: BertModel) -> list[Layer]:
    layers = list(model.layers)
    assert all(isinstance(layer, Layer) for layer in layers)
    return layers  # type: ignore[return-value]


def _maps(layer: Layer) -> tuple[nn.Linear | ops.QuantisedLinear, ...]:
    attention, feed_forward = layer.attention, layer.feed_forward
    return (attention.qkv, attention.output, feed_forward.up, feed_forward.down)


class _Snapshot:
    """Which tensors a network has, where they lie, and how often each was written to.

    Looked at before every call, so it is not made anew each time: that would take a tenth of what
    the network does of one question.
    """

    def __init__(self, model: BertModel) -> None:
        self._model = model
        modules = list(model.modules())
        self._children = [module._modules for module in modules]
        self._children_then = [dict(children) for children in self._children]
        self._holders: list[dict[str, Any]] = [
            each for module in modules for each in (module._parameters, module._buffers)
        ]
        self._tensors = [*self._held(), _END]
        self._there = [each for each in self._tensors if isinstance(each, Tensor)]
        self._counting = [each for each in self._there if not each.is_inference()]
        self._then = self._state()
        self._hooks = [
            each
            for module in modules
            for each in (module._forward_hooks, module._forward_pre_hooks)
        ]

    def _held(self) -> "chain[Tensor | None]":
        return chain.from_iterable(map(dict.values, self._holders))

    def _state(self) -> tuple[list[int], list[int]]:
        """Without a loop in Python, which would take twice as long."""
        places = list(map(Tensor.data_ptr, self._there))
        return places, list(map(_version, self._counting))

    def is_of(self, model: BertModel) -> bool:
        """Whether nothing has changed since, and nothing looks at its stages."""
        return (
            model is self._model
            and not any(self._hooks)
            and self._children == self._children_then
            and all(map(operator.is_, chain(self._held(), (_END,)), self._tensors))
            and self._state() == self._then
            and all(layer.attention.attend is ops.attention for layer in _layers(model))
        )


def _weights_of(model: BertModel) -> NetworkWeights:
    tables = model.embeddings
    return NetworkWeights(
        token=tables.token.weight,
        token_type=tables.token_type.weight,
        position=tables.position.weight,
        norm=_norm(tables.norm),
        layers=[_layer(layer) for layer in _layers(model)],
        heads=model.config.num_attention_heads,
        activation=_ACTIVATIONS[model.config.hidden_act],
    )


def _layer(layer: Layer) -> LayerWeights:
    return LayerWeights(
        *(_linear(each) for each in _maps(layer)),
        attention_norm=_norm(layer.attention_norm),
        feed_forward_norm=_norm(layer.feed_forward_norm),
    )


def _linear(linear: nn.Linear | ops.QuantisedLinear) -> LinearWeights:
    scale = linear.scale if isinstance(linear, ops.QuantisedLinear) else None
    return LinearWeights(linear.weight, linear.bias, scale)


def _norm(norm: nn.LayerNorm) -> NormWeights:
    return NormWeights(norm.weight, norm.bias, norm.eps)
