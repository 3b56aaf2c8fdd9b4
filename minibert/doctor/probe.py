"""What the network's weights and gradients say, looked at every few updates.

A fixed sample of each parameter stands for it, so that a look costs little; norms of gradients are
exact.  Nothing is changed, nothing is drawn at random, and no copy of the weights is kept.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minibert.gradients import gradient_values

# Values of each parameter that are followed. Of all layers together that makes tens of thousands.
_SAMPLE = 512
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)(?:\.|$)")


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a network: by part, as "embeddings", "layer 3", "head".

    Attributes:
        step: the update that it was taken before.
        gradients: the norm of each part's gradients; nothing of parts without any.
        missing: parts that are to be trained, and have no gradient at all.
        moved: how far each part went since the look before, in shares of its length, an update.
        drifted: how far it is from where it was first seen, in shares of its length then.
        length: how long it is, in shares of its length then.
    """

    step: int
    gradients: Mapping[str, float]
    missing: tuple[str, ...]
    moved: Mapping[str, float]
    drifted: Mapping[str, float]
    length: Mapping[str, float]


class Probe:
    """Follows a network.

    >>> probe = Probe(nn.Linear(4, 2))
    >>> probe.look(1).gradients
    {}
    """

    def __init__(self, model: nn.Module) -> None:
        self._parts: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in model.named_parameters():
            self._parts.setdefault(part_of(name), []).append((name, parameter))
        self._start = self._before = self._samples()
        self._step = 0

    @property
    def parts(self) -> tuple[str, ...]:
        """In the order of the network."""
        return tuple(self._parts)

    @torch.no_grad()
    def look(self, step: int) -> Look:
        """See where it stands before an update, with its gradients."""
        now = self._samples()
        n_updates = max(1, step - self._step)
        gradients, missing = {}, []
        for part, members in self._parts.items():
            norms = [
                gradient_values(p.grad.detach()).float().norm()
                for _, p in members
                if p.grad is not None
            ]
            if norms:
                gradients[part] = float(torch.stack(norms).norm())
            elif any(p.requires_grad for _, p in members):
                missing.append(part)
        found = Look(
            step=step,
            gradients=gradients,
            missing=tuple(missing),
            moved={k: _distance(v, self._before[k]) / n_updates for k, v in now.items()},
            drifted={k: _distance(v, self._start[k]) for k, v in now.items()},
            length={k: _length(v, self._start[k]) for k, v in now.items()},
        )
        self._before, self._step = now, step
        return found

    @torch.no_grad()
    def _samples(self) -> dict[str, Tensor]:
        """Of each part some of its values, always the same ones: of matrices, not of biases."""
        found = {}
        for part, members in self._parts.items():
            matrices = [p for _, p in members if p.ndim > 1] or [p for _, p in members]
            found[part] = torch.cat([_sample(p.detach()) for p in matrices])
        return found


def part_of(name: str) -> str:
    """The part of the network that a parameter belongs to, by its name.

    >>> part_of("bert.layers.3.attention.qkv.weight"), part_of("bert.embeddings.token.weight")
    ('layer 3', 'embeddings')
    >>> part_of("bert.encoder.layer.11.output.dense.bias"), part_of("classifier.weight")
    ('layer 11', 'head')
    """
    if match := _LAYER.search(name):
        return f"layer {match[1]}"
    for part in ("embeddings", "pooler"):
        if part in name.split("."):
            return part
    return "head"


def is_encoder(part: str) -> bool:
    """Does it belong to what was pretrained?"""
    return part not in ("head", "pooler")


def _sample(values: Tensor) -> Tensor:
    flat = values.reshape(-1) if values.is_contiguous() else values.flatten()
    stride = max(1, len(flat) // _SAMPLE)
    return flat[::stride][:_SAMPLE].float().cpu().clone()


def _distance(now: Tensor, before: Tensor) -> float:
    length = float(before.norm())
    moved = float((now - before).norm())
    return moved / length if length else moved


def _length(now: Tensor, before: Tensor) -> float:
    length = float(before.norm())
    return float(now.norm()) / length if length else 1.0
