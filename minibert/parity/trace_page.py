"""One text on its way through a network, as one self-contained page.

What it shows is computed here, in float64, from the stages; the page only draws it.
"""

import base64
import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minibert import pages
from minibert.parity.traced_text import TracedText, summaries, trace_text
from minibert.tokenizer import Tokenizer

# What the page needs.
STAGES = (
    "embeddings.*",
    "layers.*.probabilities",
    "layers.*.attention_output",
    "layers.*.attention_norm",
    "layers.*.feed_forward_output",
    "layers.*.feed_forward_norm",
)
_SHOWN_CHARS = 2000  # of a text, in the heading


def write_trace_page(
    model: nn.Module,
    tokenizer: Tokenizer,
    text: str,
    pair: str | None,
    path: str | Path,
    *,
    max_length: int | None = None,
    name: str | None = None,
) -> TracedText:
    """Trace a text, or a pair, and write the page; it needs no network and opens from the disk.

    Args:
        max_length: see `trace_text`.
        name: what the page calls the model; its class when None.

    Raises: as `trace_text`, and ParityError where the page cannot be written.
    """
    traced = trace_text(model, tokenizer, text, pair, max_length=max_length, stages=STAGES)
    pages.write_page(page(traced, name=name or type(model).__name__), path)
    return traced


def page(traced: TracedText, *, name: str) -> str:
    """The page as text.

    Args:
        traced: with at least `STAGES`.
        name: what it calls the model.
    """
    found = facts(traced)
    texts = [traced.text] if traced.pair is None else [traced.text, traced.pair]
    values = {
        "texts": [_shortened(text) for text in texts],
        "model": name,
        "hidden": traced.stages["embeddings.norm"].shape[-1],
        "cut_note": traced.cut_note,
        "not_finite": [(row.name, row.n_not_finite) for row in summaries(traced) if row[-1]],
        **{key: found[key] for key in ("layers", "heads", "tokens", "types")},
    }
    return pages.render("trace.html", values, found)


def facts(traced: TracedText) -> dict[str, object]:
    """All figures that the page draws.

    Returns: `tokens`, `ids`, `types`, `separators`; `layers` and `heads`, their numbers; `norms`,
        of each part of the embeddings a figure a token; `probabilities`, a text a layer, as
        `packed` makes it; `looks`, for each layer what `looks_of` says; `measures`, for each what
        `measures_of` says, by layer.  A figure that is not finite is None.
    """
    stages = {stage: tensor[0].double() for stage, tensor in traced.stages.items()}
    layers = sum(stage.endswith(".probabilities") for stage in stages)
    probabilities = [stages[f"layers.{i}.probabilities"] for i in range(layers)]
    parts = ("token", "position", "token_type", "sum", "norm")
    measured = [measures_of(stages, i) for i in range(layers)]
    return {
        "tokens": traced.tokens,
        "ids": traced.ids,
        "types": traced.token_type_ids,
        "separators": traced.separators,
        "layers": layers,
        "heads": probabilities[0].shape[0],
        "norms": {part: _figures(stages[f"embeddings.{part}"].norm(dim=-1)) for part in parts},
        "probabilities": [packed(each) for each in probabilities],
        "looks": [
            {kind: _figures(values) for kind, values in looks_of(each, traced.separators).items()}
            for each in probabilities
        ],
        "measures": {
            kind: [_figures(by_kind[kind]) for by_kind in measured] for kind in measured[0]
        },
    }


def packed(probabilities: Float[Tensor, "heads seq keys"]) -> str:
    """Base64 of little-endian uint16 of p x 65535; what is not finite becomes 0.

    A fifth of what decimals would take: 128 tokens in 12 layers of 12 heads are 6 MB.
    """
    steps = probabilities.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp(0, 1) * 65535
    return base64.b64encode(steps.round().numpy().astype("<u2").tobytes()).decode()


def looks_of(
    probabilities: Float[Tensor, "heads seq keys"], separators: list[int]
) -> dict[str, Tensor]:
    """Where each head looks on average, and last where they look together, their mean.

    Returns: `self`, `before`, `after`, `first` (mostly [CLS]) and `separators` (all [SEP] together)
        as shares of 1, `(heads + 1,)`, over the queries that have such a token; `entropy` in bits,
        0 for a head that always looks at one token, log2(seq) for one that looks at all alike.
    """
    together = torch.cat((probabilities, probabilities.mean(dim=0, keepdim=True)))
    return {
        "self": together.diagonal(0, -2, -1).mean(dim=-1),
        "before": together.diagonal(-1, -2, -1).mean(dim=-1),
        "after": together.diagonal(1, -2, -1).mean(dim=-1),
        "first": together[..., 0].mean(dim=-1),
        "separators": together[..., separators].sum(dim=-1).mean(dim=-1),
        "entropy": torch.special.entr(together).sum(dim=-1).mean(dim=-1) / math.log(2),
    }


def measures_of(stages: dict[str, Tensor], layer: int) -> dict[str, Tensor]:
    """What a layer changes at each token: x is what it gets, y what it gives.

    Returns: `change` ‖y - x‖ / ‖x‖, `cosine` of x and y, `attention` ‖attention_output‖ / ‖x‖,
        `feed_forward` ‖feed_forward_output‖ / ‖attention_norm‖, and `norm` ‖y‖, each `(seq,)`.
    """
    before = f"layers.{layer - 1}.feed_forward_norm" if layer else "embeddings.norm"
    x, at = stages[before], f"layers.{layer}."
    y, middle = stages[f"{at}feed_forward_norm"], stages[f"{at}attention_norm"]
    attended, fed = stages[f"{at}attention_output"], stages[f"{at}feed_forward_output"]
    return {
        "change": (y - x).norm(dim=-1) / x.norm(dim=-1),
        "cosine": torch.cosine_similarity(x, y, dim=-1),
        "attention": attended.norm(dim=-1) / x.norm(dim=-1),
        "feed_forward": fed.norm(dim=-1) / middle.norm(dim=-1),
        "norm": y.norm(dim=-1),
    }


def _figures(values: Float[Tensor, " n"]) -> list[float | None]:
    """Five digits are more than anyone can see, and JSON has no NaN."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values.tolist()]


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]} …"
