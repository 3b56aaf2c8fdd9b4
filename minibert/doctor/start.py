"""What a network is made of before its first update: weights that are fresh, or none at all."""

import torch
from torch import Tensor, nn

from minibert.doctor.findings import Finding, finding
from minibert.doctor.probe import is_encoder, part_of

_HIGH_DROPOUT = 0.6
_LARGE = 5_000_000  # parameters: of no encoder that is made to be trained on one task from nothing


def is_pretrained(model: nn.Module) -> bool:
    """Has any norm been trained? It begins as a multiplication by 1."""
    scales = (p for n, p in model.named_parameters() if p.ndim == 1 and n.endswith("weight"))
    return any(bool((scale != 1).any()) for scale in scales)


def fresh_layers(model: nn.Module) -> tuple[list[str], int]:
    """The layers that are as BERT's are drawn, and of how many.

    A norm multiplies by exactly 1, and every bias is exactly 0; one update changes that.  A layer
    without a norm or without biases does not tell.
    """
    norms: dict[str, list[Tensor]] = {}
    biases: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if part.startswith("layer ") and parameter.ndim == 1:
            kind = norms if name.endswith("weight") else biases
            kind.setdefault(part, []).append(parameter.detach())
    layers = [part for part in norms if part in biases]
    fresh = [
        part
        for part in layers
        if all(bool((norm == 1).all()) for norm in norms[part])
        and not any(bool(bias.any()) for bias in biases[part])
    ]
    return fresh, max(1, len(layers))


def fresh_encoder(model: nn.Module) -> Finding | None:
    """Layers that never were trained, where a pretrained encoder is to be expected."""
    fresh, n_layers = fresh_layers(model)
    if not fresh:
        return None
    size = sum(p.numel() for n, p in model.named_parameters() if is_encoder(part_of(n)))
    some = f"{', '.join(fresh[:4])} of {n_layers} layers" if len(fresh) < n_layers else "all layers"
    return finding(
        "encoder-is-fresh",
        f"{some} have norms of exactly 1 and biases of exactly 0, as they are drawn; the encoder "
        f"has {size:,} parameters",
        severity="warning" if size >= _LARGE or len(fresh) < n_layers else "info",
    )


def constant_weights(model: nn.Module) -> Finding | None:
    """Matrices of the encoder whose values are all the same one."""
    found = []
    for name, parameter in model.named_parameters():
        # Of a table of two types one may do without; what adapters add begins at 0.
        small = parameter.ndim < 2 or len(parameter) <= 2 or "lora" in name or "adapter" in name
        if not small and is_encoder(part_of(name)):
            low, high = torch.aminmax(parameter.detach())
            if bool(low == high):
                found.append(f"{name} is {float(low):g} throughout")
    if not found:
        return None
    return finding("weights-are-constant", "; ".join(found[:3]))


def high_dropout(model: nn.Module) -> Finding | None:
    """Dropouts that leave hardly anything."""
    drops = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p >= _HIGH_DROPOUT]
    if not drops:
        return None
    return finding(
        "dropout-is-high",
        f"{len(drops)} dropouts take away {max(drop.p for drop in drops):.0%} of the values that "
        "they are given; usual is 10%",
        settings={"training.dropout": "0.1"},
    )
