"""Looking inside a running network: every stage captured, any of them replaced."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minibert import ops
from minibert.errors import ParityError
from minibert.heads import Predictions
from minibert.layout import Layout
from minibert.model import (
    AttentionFunction,
    Layer,
    attention_probabilities,
    attention_scores,
)
from minibert.parity.stages import encoder_of, output_stages, select, stages_of, unknown_stage

Patch = Callable[[Tensor], Tensor]


class trace(Mapping[str, Tensor]):  # noqa: N801 - used like a function
    """Captures the stages of what a network computes within a `with` block.

    >>> with minibert.trace(model, "layers.*.probabilities") as stages:
    ...     model(input_ids, attention_mask)
    >>> stages["layers.0.probabilities"].shape
    torch.Size([1, 12, 5, 5])

    A mapping from names (`parity/stages.py` lists them) to the tensors of the last call, in the
    order in which they were computed; it stays readable behind the block.  The tensors are those of
    the computation, so gradients flow through them.  Scores and probabilities are computed beside
    the fused attention, which stays in use; patched, they take its place, and only then do
    gradients flow through them.

    In the padded layout stages are `(batch, seq, …)`, scores and probabilities
    `(batch, heads, seq, keys)`; in the packed one `(tokens, …)` and `(heads, tokens, tokens)`, in
    which sequences do not see each other.

    The network is changed for as long as the block lasts: no other thread may use it meanwhile.

    Args:
        model: a `BertModel` or one of minibert's heads.
        stages: which to capture: names, or patterns as for files; all by default.

    Raises: ParityError for a pattern that matches no stage, or a patch that changes a shape.
    """

    def __init__(self, model: nn.Module, stages: str | Iterable[str] = "*") -> None:
        self._model = model
        self._encoder = encoder_of(model)
        self._names = [stage.name for stage in stages_of(model)]
        self._wanted = set(select(self._names, stages))
        self._patches: dict[str, Patch] = {}
        self._captured: dict[str, Tensor] = {}
        self._stack = ExitStack()
        self._shape: tuple[int, ...] = ()

    def patch(self, name: str, function: Patch) -> None:
        """Replace a stage by what `function` makes of it, from the next call on.

        >>> with minibert.trace(model, "pooler") as stages:
        ...     stages.patch("layers.0.context", lambda context: context * keep[:, None])
        ...     model(input_ids)
        """
        if name not in self._names:
            raise ParityError(unknown_stage(name, self._names))
        self._patches[name] = function

    def __getitem__(self, name: str) -> Tensor:
        if name in self._captured:
            return self._captured[name]
        if name not in self._names:
            raise KeyError(unknown_stage(name, self._names))
        why = "the network has not run" if name in self._wanted else "it was not asked for"
        raise KeyError(f"{name} was not captured: {why}")

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if name in self._captured)

    def __len__(self) -> int:
        return len(self._captured)

    def __enter__(self) -> "trace":
        encoder = self._encoder
        embeddings = encoder.embeddings
        self._on(embeddings.register_forward_pre_hook(self._begin))
        self._output("embeddings.token", embeddings.token)
        self._output("embeddings.token_type", embeddings.token_type)
        self._output("embeddings.position", embeddings.position)
        self._on(embeddings.norm.register_forward_pre_hook(self._sum))
        self._output("embeddings.norm", embeddings.norm)
        for i, layer in enumerate(cast(Iterable[Layer], encoder.layers)):
            at = f"layers.{i}."
            attend = partial(self._attend, at, layer.attention.attend)
            self._replace(layer.attention, "attend", attend)
            self._output(f"{at}attention_output", layer.attention.output)
            self._output(f"{at}attention_norm", layer.attention_norm)
            self._output(f"{at}pre_activation", layer.feed_forward.up)
            self._input(f"{at}activation", layer.feed_forward.down)
            self._output(f"{at}feed_forward_output", layer.feed_forward.down)
            self._output(f"{at}feed_forward_norm", layer.feed_forward_norm)
        if encoder.pooler is not None:
            self._output("pooler", encoder.pooler)
        if isinstance(predictions := getattr(self._model, "predictions", None), Predictions):
            self._output("predictions.transform", predictions.norm)
        if outputs := [stage.name for stage in output_stages(self._model)]:
            self._on(self._model.register_forward_hook(partial(self._end, outputs)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _at(self, name: str, tensor: Tensor) -> Tensor:
        """What becomes of a stage: replaced where asked, captured where asked."""
        function = self._patches.get(name)
        if function is not None:
            replaced = function(tensor)
            if replaced.shape != tensor.shape or replaced.dtype != tensor.dtype:
                raise ParityError(
                    f"the patch of {name} gave {replaced.dtype} of shape {tuple(replaced.shape)}, "
                    f"expected {tensor.dtype} of {tuple(tensor.shape)}, as it got"
                )
            tensor = replaced
        if name in self._wanted:
            self._captured[name] = tensor
        return tensor

    def _begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._captured.clear()
        self._shape = tuple(inputs[0].shape)

    def _output(self, name: str, module: nn.Module) -> None:
        self._on(module.register_forward_hook(partial(self._after, name)))

    def _input(self, name: str, module: nn.Module) -> None:
        self._on(module.register_forward_pre_hook(partial(self._before, name)))

    def _after(self, name: str, module: nn.Module, inputs: Any, out: Tensor) -> Tensor:
        # Positions are computed once for all rows; here each row gets its own.
        return self._at(name, out.expand(*self._shape, -1) if "position" in name else out)

    def _before(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (self._at(name, inputs[0]),)

    def _sum(self, module: nn.Module, terms: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the embeddings add up to; of half precision in float32, as it goes on."""
        return (self._at("embeddings.sum", ops.add(terms)),)

    def _end(self, names: list[str], module: nn.Module, inputs: Any, out: Any) -> Any:
        return out._replace(**{name: self._at(name, getattr(out, name)) for name in names})

    def _attend(
        self,
        at: str,
        fused: AttentionFunction,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        layout: Layout,
        dropout: float,
    ) -> Tensor:
        """What `fused` computes, seen and changed on the way."""
        q, k, v = self._at(f"{at}q", q), self._at(f"{at}k", k), self._at(f"{at}v", v)
        open_names = {f"{at}scores", f"{at}probabilities"}
        patched = bool(self._patches.keys() & open_names)
        if patched or self._wanted & open_names:
            scores = self._at(f"{at}scores", attention_scores(q, k))
            probabilities = attention_probabilities(scores, layout)
            probabilities = self._at(f"{at}probabilities", probabilities)
        if patched:
            kept = F.dropout(probabilities, dropout)
            context = (kept @ v.transpose(-3, -2)).transpose(-3, -2)
        else:
            context = fused(q, k, v, layout, dropout)
        return self._at(f"{at}context", context)

    def _replace(self, module: nn.Module, name: str, value: object) -> None:
        before = getattr(module, name)
        setattr(module, name, value)
        self._stack.callback(setattr, module, name, before)

    def _on(self, handle: RemovableHandle) -> None:
        self._stack.callback(handle.remove)
