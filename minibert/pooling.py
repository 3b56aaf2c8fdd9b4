"""From one vector a token to one vector a text: cls, mean, max, and the rest; normalise, truncate.

Each works on both layouts and looks at attended tokens only, [CLS] and [SEP] included.
Source: sentence-transformers `Pooling`, whose names and numbers these are.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from minibert.layout import Layout, Packed

# Below this the length of a vector counts as zero: such a vector stays what it is, and finite.
NORM_EPS = 1e-12


def pool(
    hidden: Float[Tensor, "*tokens hidden"], layout: Layout, modes: Sequence[str] = ("mean",)
) -> Float[Tensor, "batch pooled"]:
    """One float32 vector for each sequence (float64 for float64); several modes side by side.

    Args:
        hidden: the last hidden states.
        layout: where the sequences are.
        modes: names of `POOLINGS`, in the order in which their vectors are joined.

    Returns:
        `(batch, hidden · len(modes))`. A sequence without attended tokens gives zeros, but for
        "cls", which takes column 0 whatever the mask.

    Raises: ValueError for an unknown mode.
    """
    unknown = [mode for mode in modes if mode not in POOLINGS]
    if unknown or not modes:
        raise ValueError(f"got pooling {unknown or modes}, expected names of {list(POOLINGS)}")
    # Sums over many tokens need more digits than bfloat16 has.
    wide = hidden if hidden.dtype == torch.float64 else hidden.float()
    pooled = [POOLINGS[mode](wide, layout) for mode in modes]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)


def normalise(vectors: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
    """Each vector divided by its length; a zero vector stays zero."""
    return F.normalize(vectors, dim=-1, eps=NORM_EPS)


def truncate(vectors: Float[Tensor, "batch width"], width: int) -> Float[Tensor, "batch short"]:
    """The first `width` components, for models trained so that these suffice (Matryoshka).

    Raises: ValueError when there are fewer.
    """
    if not 1 <= width <= vectors.shape[-1]:
        raise ValueError(
            f"got truncate_dim {width}, expected 1 to {vectors.shape[-1]}, the model's width"
        )
    return vectors[:, :width]


def _cls(hidden: Tensor, layout: Layout) -> Tensor:
    return layout.first(hidden)


def _mean(hidden: Tensor, layout: Layout) -> Tensor:
    return _sum(hidden, layout) / _counts(hidden, layout)


def _mean_sqrt_len(hidden: Tensor, layout: Layout) -> Tensor:
    return _sum(hidden, layout) / _counts(hidden, layout).sqrt()


def _weighted_mean(hidden: Tensor, layout: Layout) -> Tensor:
    """Later tokens count more: the n-th column has weight n."""
    weights = (layout.positions + 1).to(hidden.dtype)[:, None]
    total = _sum(weights.expand(*hidden.shape[:-1], 1), layout)
    return _sum(hidden * weights, layout) / total.clamp(min=1)


def _max(hidden: Tensor, layout: Layout) -> Tensor:
    if isinstance(layout, Packed):
        return torch.segment_reduce(hidden, "max", lengths=_lengths(layout))
    if layout.mask is None:
        return hidden.amax(dim=1)
    largest = hidden.masked_fill(~layout.mask[..., None], -torch.inf).amax(dim=1)
    return largest.masked_fill(~layout.mask.any(dim=1, keepdim=True), 0.0)


def _last_token(hidden: Tensor, layout: Layout) -> Tensor:
    if isinstance(layout, Packed):
        return hidden[layout.cu_seqlens[1:] - 1]
    if layout.mask is None:
        return hidden[:, -1]
    last = (layout.mask * (layout.positions + 1)).amax(dim=1)  # 0 where none is attended
    taken = hidden[torch.arange(layout.batch, device=hidden.device), last - 1]
    return taken.masked_fill((last == 0)[:, None], 0.0)


POOLINGS: dict[str, Callable[[Tensor, Layout], Tensor]] = {
    "cls": _cls,
    "mean": _mean,
    "max": _max,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": _last_token,
}


def _sum(hidden: Float[Tensor, "*tokens width"], layout: Layout) -> Float[Tensor, "batch width"]:
    if isinstance(layout, Packed):
        # One sum for each run of sequences of one length: a view, and the sum of a padded batch.
        sums = [
            hidden[start : start + count * length].view(count, length, -1).sum(dim=1)
            for start, count, length in layout.runs()
        ]
        return sums[0] if len(sums) == 1 else torch.cat(sums)
    if layout.mask is None:
        return hidden.sum(dim=1)
    # Filled, not multiplied: what stands on padding may be anything, infinity included.
    return hidden.masked_fill(~layout.mask[..., None], 0.0).sum(dim=1)


def _counts(hidden: Float[Tensor, "*tokens hidden"], layout: Layout) -> Float[Tensor, "batch 1"]:
    """Attended tokens of each sequence, at least 1."""
    if isinstance(layout, Packed):
        counts = _lengths(layout)
    elif layout.mask is None:
        counts = torch.full((layout.batch,), layout.seq, device=hidden.device)
    else:
        counts = layout.mask.sum(dim=1)
    return counts.clamp(min=1).to(hidden.dtype)[:, None]


def _lengths(layout: Packed) -> Int[Tensor, " sequences"]:
    return torch.tensor(layout.lengths, device=layout.positions.device)
