"""A network on the Triton kernels of `kernels/gpu/`: what it computes on a GPU, in fewer passes.

`fuse` exchanges what a network is made of, in training too; `GpuEngine` embeds with such a network.
Importing this imports Triton.
"""

import copy
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from minibert import ops
from minibert.engine import check_batch, of_ones_own
from minibert.kernels.build import KernelsUnavailableError
from minibert.kernels.gpu import attention as kernel_attention
from minibert.kernels.gpu import gelu, norm
from minibert.kernels.gpu.attention import LARGEST_DIM, Blocks, blocks_of
from minibert.kernels.gpu.pool import pool
from minibert.layout import Layout, Packed
from minibert.model import AddNorm, BertModel, Embeddings, FeedForward, Layer, set_attention

_TANH = {"gelu": False, "gelu_new": True, "gelu_pytorch_tanh": True}  # by `config.hidden_act`
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Of a layout, for all layers and by what they hang on: counted on the CPU, and copied to the GPU.
_blocks: WeakKeyDictionary[Packed, dict[object, Blocks]] = WeakKeyDictionary()


def fuse(model: nn.Module) -> None:
    """Make a network, or a head's encoder, compute by the kernels from now on, in place.

    Parameters and their names stay, and so do gradients, autocast and dropout.  What the kernels do
    not have is computed as before: padded attention, attention with dropout or of heads wider than
    128, other activations, linear maps of integers.
    """
    set_attention(model, attention)
    for module in list(model.modules()):
        if not isinstance(module, BertModel):
            continue
        module.add_module("embeddings", FusedEmbeddings(module.embeddings))
        tanh = _TANH.get(module.config.hidden_act)
        for layer in module.layers:
            assert isinstance(layer, Layer)
            layer.attention_norm = _fused(layer.attention_norm)
            layer.feed_forward_norm = _fused(layer.feed_forward_norm)
            if tanh is not None and isinstance(layer.feed_forward.up, nn.Linear):
                feed_forward = FusedFeedForward(layer.feed_forward, tanh=tanh)
                layer.add_module("feed_forward", feed_forward)


def attention(
    q: Float[Tensor, "*queries heads head_dim"],
    k: Float[Tensor, "*tokens heads head_dim"],
    v: Float[Tensor, "*tokens heads head_dim"],
    layout: Layout,
    dropout: float = 0.0,
) -> Float[Tensor, "*queries heads head_dim"]:
    """`ops.attention`, of packed sequences in one call whatever their lengths are."""
    if dropout or not isinstance(layout, Packed) or q.shape[-1] > LARGEST_DIM:
        return ops.attention(q, k, v, layout, dropout)
    kept = _blocks.setdefault(layout, {})
    key = (q.device, q.dtype, q.shape[-1], asking := len(q) != len(k))
    if key not in kept:
        kept[key] = blocks_of(layout.lengths, q, asking=asking)
    context, _ = kernel_attention.attention(q, k, v, *kept[key])
    return context


class FusedEmbeddings(nn.Module):
    """`model.Embeddings`, each token's sum made and normalised in one pass."""

    def __init__(self, plain: Embeddings) -> None:
        super().__init__()
        self.token, self.token_type = plain.token, plain.token_type
        self.position, self.norm, self.dropout = plain.position, plain.norm, plain.dropout

    def forward(
        self,
        input_ids: Int[Tensor, "*tokens"],
        token_type_ids: Int[Tensor, "*tokens"],
        layout: Layout,
    ) -> Float[Tensor, "*tokens hidden"]:
        tables = (self.token.weight, self.token_type.weight, self.position.weight)
        hidden, _, _ = norm.embed_norm(
            input_ids, token_type_ids, layout.positions.expand_as(input_ids), *tables,
            self.norm.weight, self.norm.bias, self.norm.eps,
        )  # fmt: skip
        return self.dropout(hidden)


class FusedFeedForward(nn.Module):
    """`model.FeedForward`, whose first bias is added where the activation is computed."""

    def __init__(self, plain: FeedForward, *, tanh: bool) -> None:
        super().__init__()
        self.up, self.down, self._tanh = plain.up, plain.down, tanh

    def forward(self, hidden: Float[Tensor, "*tokens hidden"]) -> Float[Tensor, "*tokens hidden"]:
        wide = F.linear(hidden, self.up.weight)
        return self.down(gelu.bias_gelu(wide, self.up.bias, self._tanh))


class FusedAddNorm(AddNorm):
    """`model.AddNorm` of two terms of one shape, in one pass."""

    def forward(self, *terms: Float[Tensor, "..."]) -> Float[Tensor, "*tokens hidden"]:
        x, y = terms
        out, _, _ = norm.add_norm(x, y, self.weight, self.bias, self.eps)
        return out


def _fused(plain: AddNorm) -> FusedAddNorm:
    fused = FusedAddNorm(plain.normalized_shape, eps=plain.eps, device="meta")
    fused.weight, fused.bias = plain.weight, plain.bias
    return fused


class GpuEngine:
    """The encoder of a `BertModel` on the kernels for GPUs, sharing its weights.

    Raises: KernelsUnavailableError: why not, in one line.
    """

    def __init__(self, model: BertModel, *, compile_kernels: bool = True) -> None:
        if (lacking := _lacking(model)) is not None:
            raise KernelsUnavailableError(f"the kernels for GPUs do not have {lacking}")
        if not compile_kernels:
            raise KernelsUnavailableError("kernels for GPUs are compiled where there is more to do")
        token = model.embeddings.token.weight
        try:
            gelu.bias_gelu(token[:1], token[0], False)
        except Exception as error:  # of a compiler, a driver or Triton: no more is asked of it
            told = (str(error) or repr(error)).splitlines()[0]
            raise KernelsUnavailableError(f"Triton cannot compute here: {told}") from None
        tensors = [*model.parameters(), *model.buffers()]
        # All is copied but the tensors, so that weights which change in place do so here too.
        self._network = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()
        fuse(self._network)
        self._state = _state(model)

    @property
    def description(self) -> str:
        """What computes, for a line that says it."""
        token = self._network.embeddings.token.weight
        place = (
            torch.cuda.get_device_name(token.device) if token.is_cuda else "Triton's interpreter"
        )
        return f"{str(token.dtype).removeprefix('torch.')} by kernels for {place}"

    def is_of(self, model: BertModel) -> bool:
        """Whether the model's weights are still those that this engine was made of."""
        return self._state == _state(model)

    def mean(
        self, ids: NDArray[np.int32], lengths: NDArray[np.int32], skips: NDArray[np.int32] | None
    ) -> Float[Tensor, "sequences hidden"]:
        """As `engine.Engine.mean`; the result lies on the CPU."""
        hidden, layout = self._run(ids, lengths)
        left_out = torch.zeros(len(lengths), dtype=torch.int32)
        if skips is not None:
            left_out = torch.from_numpy(skips)
        return pool(hidden, layout.cu_seqlens, left_out.to(hidden.device), False, 1.0).cpu()

    def hidden(
        self,
        ids: NDArray[np.int32],
        lengths: NDArray[np.int32],
        types: NDArray[np.int32] | None = None,
    ) -> Float[Tensor, "tokens hidden"]:
        """As `engine.Engine.hidden`, in the network's dtype; the result lies on the CPU."""
        return self._run(ids, lengths, types)[0].cpu()

    def _run(
        self,
        ids: NDArray[np.int32],
        lengths: NDArray[np.int32],
        types: NDArray[np.int32] | None = None,
    ) -> tuple[Tensor, Packed]:
        check_batch(self._network.config, ids, lengths, types)
        device = self._network.embeddings.token.weight.device
        layout = Packed.from_lengths(lengths.tolist(), device)
        with torch.no_grad():
            hidden = self._network(
                torch.from_numpy(ids).to(device),
                token_type_ids=None if types is None else torch.from_numpy(types).to(device),
                layout=layout,
            )
        return hidden.last_hidden_state, layout


def _lacking(model: BertModel) -> str | None:
    """What a network has that the kernels do not, or None."""
    config, kinds = model.config, {parameter.dtype for parameter in model.parameters()}
    if any(isinstance(module, ops.QuantisedLinear) for module in model.modules()):
        return "a form for integers"
    if len(kinds) != 1 or not kinds <= set(_DTYPES):
        return f"a form for {', '.join(sorted(str(kind)[6:] for kind in kinds))}"
    if config.head_dim > LARGEST_DIM:
        return f"a form for heads of {config.head_dim}, only to {LARGEST_DIM}"
    return of_ones_own(model)


def _state(model: BertModel) -> list[tuple[int, torch.device, torch.dtype]]:
    """Which tensors a network has; what is written into them changes nothing."""
    return [(id(each), each.device, each.dtype) for each in model.parameters()]
