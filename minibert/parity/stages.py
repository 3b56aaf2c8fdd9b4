"""The stages of the network: every intermediate that has a name, in the order in which they come.

A name is the same in traces, packs, comparisons and reports.  `{i}` is a layer's number.
"""

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import nn

from minibert.errors import ParityError
from minibert.heads import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
)
from minibert.model import BertModel


class Stage(NamedTuple):
    """One intermediate: its name, its axes in the padded layout, and what it is."""

    name: str
    axes: tuple[str, ...]
    what: str

    @property
    def kind(self) -> str:
        """The name without the layer: "layers.3.scores" is of the kind "scores"."""
        return parts_of(self.name)[1]


_TOKEN = ("batch", "seq", "hidden")
_WIDE = ("batch", "seq", "intermediate")
_HEADS = ("batch", "seq", "heads", "head_dim")
_PAIRS = ("batch", "heads", "seq", "keys")

# What comes once before the layers, in each layer, and behind them.
EMBEDDINGS = (
    Stage("embeddings.token", _TOKEN, "the table's row of each token id"),
    Stage("embeddings.token_type", _TOKEN, "the table's row of each token type"),
    Stage("embeddings.position", _TOKEN, "the table's row of each column number"),
    Stage("embeddings.sum", _TOKEN, "token + token type + position"),
    Stage("embeddings.norm", _TOKEN, "LayerNorm of the sum, before dropout: what layer 0 gets"),
)
LAYER = (
    Stage("layers.{i}.q", _HEADS, "queries: what each token asks"),
    Stage("layers.{i}.k", _HEADS, "keys: what each token answers to"),
    Stage("layers.{i}.v", _HEADS, "values: what each token gives"),
    Stage("layers.{i}.scores", _PAIRS, "q kᵀ / √head_dim, before the mask"),
    Stage("layers.{i}.probabilities", _PAIRS, "softmax over the visible keys, before dropout"),
    Stage("layers.{i}.context", _HEADS, "probabilities times values"),
    Stage("layers.{i}.attention_output", _TOKEN, "the heads side by side, projected"),
    Stage("layers.{i}.attention_norm", _TOKEN, "LayerNorm(layer's input + attention_output)"),
    Stage("layers.{i}.pre_activation", _WIDE, "attention_norm, widened"),
    Stage("layers.{i}.activation", _WIDE, "the activation function of it"),
    Stage("layers.{i}.feed_forward_output", _TOKEN, "narrowed again"),
    Stage(
        "layers.{i}.feed_forward_norm",
        _TOKEN,
        "LayerNorm(attention_norm + feed_forward_output): what the next layer gets",
    ),
)
POOLER = Stage("pooler", ("batch", "hidden"), "tanh of the projected first token")
TRANSFORM = Stage("predictions.transform", _TOKEN, "masked LM: what meets the embedding table")
OUTPUTS = (
    Stage("logits", ("batch", "…"), "of a head: words, labels or choices"),
    Stage("prediction_logits", ("batch", "seq", "vocab"), "pretraining: the words"),
    Stage("seq_relationship_logits", ("batch", "labels"), "pretraining: does the second follow?"),
    Stage("start_logits", ("batch", "seq"), "question answering: where the answer begins"),
    Stage("end_logits", ("batch", "seq"), "question answering: where it ends"),
)


def parts_of(name: str) -> tuple[int | None, str]:
    """The layer and the kind of a stage's name; no layer before and behind the layers."""
    found = re.fullmatch(r"layers\.(\d{1,4})\.(.+)", name)
    return (int(found[1]), found[2]) if found else (None, name)


def encoder_of(model: nn.Module) -> BertModel:
    """The encoder of a network: itself, or what stands before its head."""
    encoder = model if isinstance(model, BertModel) else getattr(model, "bert", None)
    if not isinstance(encoder, BertModel):
        raise ParityError(
            f"got {type(model).__name__}, expected BertModel or one of minibert's heads; another "
            "network's modules are recorded by minibert.capture"
        )
    return encoder


def output_stages(model: nn.Module) -> tuple[Stage, ...]:
    """What the head of a network returns."""
    if isinstance(model, BertModel):
        return ()
    names = {"logits"}
    if isinstance(model, BertForPreTraining):
        names = {"prediction_logits", "seq_relationship_logits"}
    elif isinstance(model, BertForQuestionAnswering):
        names = {"start_logits", "end_logits"}
    return tuple(stage for stage in OUTPUTS if stage.name in names)


def stages_of(model: nn.Module) -> tuple[Stage, ...]:
    """Every stage of a network, in the order in which they are computed."""
    encoder = encoder_of(model)
    stages = [*EMBEDDINGS, *layer_stages(len(encoder.layers))]
    if encoder.pooler is not None:
        stages.append(POOLER)
    if isinstance(model, BertForMaskedLM | BertForPreTraining):
        stages.append(TRANSFORM)
    return (*stages, *output_stages(model))


def layer_stages(layers: int) -> list[Stage]:
    """The stages of this many layers."""
    return [stage._replace(name=stage.name.format(i=i)) for i in range(layers) for stage in LAYER]


def select(names: Sequence[str], patterns: str | Iterable[str]) -> list[str]:
    """The names that match any of the patterns (`*`, `?`, `[…]` as in file names), in order.

    Raises: ParityError for a pattern that matches none.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    chosen: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            raise ParityError(unknown_stage(pattern, names))
        chosen.update(found)
    return [name for name in names if name in chosen]


def unknown_stage(name: str, names: Sequence[str]) -> str:
    """What to say of a name that is no stage."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or list(names[:3])
    return f"no stage of this network is called {name!r}, expected a name such as {', '.join(near)}"
