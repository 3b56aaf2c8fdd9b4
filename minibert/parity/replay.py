"""Each stage again from the stages before it: the network as a table of rules.

Where `model.py` computes from ids to the end, a `Replay` starts from whatever was recorded.  So a
stage can be judged by itself, on the input that the candidate gave it, and a rule can be exchanged
for one that is known to be written by mistake (`causes.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from minibert.errors import ParityError
from minibert.heads import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForTokenClassification,
    Predictions,
)
from minibert.layout import Padded
from minibert.model import Layer, attention_probabilities, attention_scores
from minibert.parity.stages import encoder_of, parts_of


class Replay:
    """The stages of a network, each computed from those that were recorded before it.

    Args:
        model: the network, in the dtype to compute in.
        inputs: `input_ids`, and where there are some `attention_mask` and `token_type_ids`.
        recorded: stages that are taken as they are.
        rules: how each kind of stage is computed; `RULES` unless changed.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        recorded: Mapping[str, Tensor],
        rules: "Mapping[str, Rule] | None" = None,
    ) -> None:
        self.model, self.encoder = model, encoder_of(model)
        self.ids = inputs["input_ids"]
        types = inputs.get("token_type_ids")
        self.types = torch.zeros_like(self.ids) if types is None else types
        mask = inputs.get("attention_mask")
        self.mask = torch.ones_like(self.ids).bool() if mask is None else mask.bool()
        self.layout = Padded.of(self.ids, mask)
        self.dtype = self.encoder.embeddings.token.weight.dtype
        self._recorded, self._rules = recorded, RULES if rules is None else rules
        self._computed: dict[str, Tensor] = {}

    def value(self, name: str) -> Tensor:
        """A stage as recorded, or else computed."""
        if name in self._recorded:
            return self._recorded[name].to(self.dtype)
        if name not in self._computed:
            self._computed[name] = self.again(name)
        return self._computed[name]

    def again(self, name: str) -> Tensor:
        """A stage computed from the last recorded ones before it, though it may be recorded."""
        layer, kind = parts_of(name)
        with torch.no_grad():
            return self._rules[kind](Scope(self, layer))

    @property
    def between(self) -> set[str]:
        """The stages that had to be computed on the way, for want of a recording."""
        return set(self._computed)


class Scope:
    """What the rule of a stage may ask for: what comes before it, the inputs, the weights."""

    def __init__(self, replay: Replay, index: int | None) -> None:
        self.replay, self.index = replay, index
        self.model, self.encoder = replay.model, replay.encoder
        self.ids, self.types, self.mask = replay.ids, replay.types, replay.mask
        self.layout = replay.layout

    def __getitem__(self, kind: str) -> Tensor:
        """A stage of the same layer, or one outside the layers, by its kind."""
        inside = self.index is not None and "." not in kind and kind != "pooler"
        return self.replay.value(f"layers.{self.index}.{kind}" if inside else kind)

    @property
    def layer(self) -> Layer:
        assert self.index is not None
        return cast(Layer, self.encoder.layers[self.index])

    @property
    def below(self) -> Tensor:
        """What the layer gets; behind the layers, what the last one gives."""
        index = len(self.encoder.layers) if self.index is None else self.index
        return self.replay.value(
            f"layers.{index - 1}.feed_forward_norm" if index else "embeddings.norm"
        )

    @property
    def head(self) -> Any:
        """The network with its head, whose modules depend on its class."""
        return self.model


Rule = Callable[[Scope], Tensor]


def projection(s: Scope, part: int, below: Tensor | None = None) -> Tensor:
    """Queries, keys or values: the `part`-th third of the fused projection."""
    qkv = s.layer.attention.qkv
    weight, bias = qkv.weight.chunk(3)[part], qkv.bias.chunk(3)[part]
    found = (s.below if below is None else below) @ weight.T + bias
    return found.view(*found.shape[:-1], *s.layer.attention.heads_shape[1:])


def _logits(s: Scope) -> Tensor:
    head = s.head
    if isinstance(getattr(head, "predictions", None), Predictions):
        return _words(s)
    if isinstance(head, BertForTokenClassification):
        return cast(Tensor, head.classifier(s.below))
    if hasattr(head, "next_sentence"):
        return cast(Tensor, head.next_sentence(s["pooler"]))
    logits = cast(Tensor, head.classifier(s["pooler"]))
    return logits.view(-1, 1) if isinstance(head, BertForMultipleChoice) else logits


def _words(s: Scope) -> Tensor:
    predictions = s.head.predictions
    transformed = s["predictions.transform"]
    if predictions.decoder is not None:
        return cast(Tensor, predictions.decoder(transformed))
    return transformed @ s.encoder.embeddings.token.weight.T + cast(Tensor, predictions.bias)


def _transform(s: Scope) -> Tensor:
    predictions = s.head.predictions
    return cast(Tensor, predictions.norm(predictions.activation(predictions.dense(s.below))))


def _span(part: int) -> Rule:
    def rule(s: Scope) -> Tensor:
        head = s.head
        assert isinstance(head, BertForQuestionAnswering)
        return cast(Tensor, head.spans(s.below))[..., part]

    return rule


def _pooler(s: Scope) -> Tensor:
    if s.encoder.pooler is None:
        raise ParityError("the reference has no pooler, expected one to judge the pooler by")
    return cast(Tensor, s.encoder.pooler(s.below, s.layout))


RULES: dict[str, Rule] = {
    "embeddings.token": lambda s: s.encoder.embeddings.token(s.ids),
    "embeddings.token_type": lambda s: s.encoder.embeddings.token_type(s.types),
    "embeddings.position": lambda s: s.encoder.embeddings.position(s.layout.positions).expand(
        *s.ids.shape, -1
    ),
    "embeddings.sum": lambda s: (
        s["embeddings.token"] + s["embeddings.token_type"] + s["embeddings.position"]
    ),
    "embeddings.norm": lambda s: s.encoder.embeddings.norm(s["embeddings.sum"]),
    "q": lambda s: projection(s, 0),
    "k": lambda s: projection(s, 1),
    "v": lambda s: projection(s, 2),
    "scores": lambda s: attention_scores(s["q"], s["k"]),
    "probabilities": lambda s: attention_probabilities(s["scores"], s.layout),
    "context": lambda s: (s["probabilities"] @ s["v"].transpose(-3, -2)).transpose(-3, -2),
    "attention_output": lambda s: s.layer.attention.output(s["context"].flatten(-2)),
    "attention_norm": lambda s: s.layer.attention_norm(s.below + s["attention_output"]),
    "pre_activation": lambda s: s.layer.feed_forward.up(s["attention_norm"]),
    "activation": lambda s: s.layer.feed_forward.activation(s["pre_activation"]),
    "feed_forward_output": lambda s: s.layer.feed_forward.down(s["activation"]),
    "feed_forward_norm": lambda s: s.layer.feed_forward_norm(
        s["attention_norm"] + s["feed_forward_output"]
    ),
    "pooler": _pooler,
    "predictions.transform": _transform,
    "logits": _logits,
    "prediction_logits": _words,
    "seq_relationship_logits": lambda s: s.head.next_sentence(s["pooler"]),
    "start_logits": _span(0),
    "end_logits": _span(1),
}
