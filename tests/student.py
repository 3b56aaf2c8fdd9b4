"""A BERT as a student might write it, on plain tensors, with one mistake where asked for.

It shares nothing with the package: neither its modules nor its table of mistakes.  Weights come
under the names of checkpoints; what it computes is handed out under the names of stages.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


def student(
    weights: Weights,
    inputs: Mapping[str, Tensor],
    *,
    heads: int,
    layers: int,
    eps: float,
    wrong: str = "",
    at: int | None = None,
) -> dict[str, Tensor]:
    """Every stage of a BERT with GELU; `wrong` is the mistake, `at` the only layer that has it."""
    stages: dict[str, Tensor] = {}
    ids, mask, types = inputs["input_ids"], inputs["attention_mask"], inputs["token_type_ids"]
    batch, seq = ids.shape
    generator = torch.Generator().manual_seed(1)

    def norm(x: Tensor, name: str, wrong: str) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        centred = x - x.mean(-1, keepdim=True)
        if wrong == "rms norm":
            centred = x
        variance = (centred**2).mean(-1, keepdim=True)
        if wrong == "unbiased variance":
            variance = x.var(-1, unbiased=True, keepdim=True)
        own = {"eps 1e-5": 1e-5, "eps 1e-3": 1e-3, "eps 1e-6": 1e-6}.get(wrong, eps)
        if wrong == "eps outside":
            return centred / (variance.sqrt() + 1e-3) * weight + bias
        if wrong == "norm without weight":
            return centred / (variance + own).sqrt() + bias
        return centred / (variance + own).sqrt() * weight + bias

    def linear(x: Tensor, name: str, wrong: str) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        if wrong == "transposed":
            weight = weight.T
        return x @ weight.T + (0 if wrong == "no bias" else bias)

    def drop(x: Tensor) -> Tensor:
        kept = torch.rand(x.shape, generator=generator, dtype=x.dtype) >= 0.1
        return x * kept / 0.9

    if wrong == "types swapped":
        types = 1 - types
    elif wrong == "types all 0":
        types = types * 0
    elif wrong == "mask as types":
        types = mask
    columns = torch.arange(seq).expand(batch, seq)
    if wrong == "positions from 2":
        columns = columns + 2
    elif wrong == "positions from 1":
        columns = columns + 1
    elif wrong == "positions by mask":
        columns = (mask.cumsum(1) - 1).clamp(min=0)
    words = stages["embeddings.token"] = weights["embeddings.word_embeddings.weight"][ids]
    if wrong == "scaled embeddings":
        words = stages["embeddings.token"] = words * math.sqrt(words.shape[-1])
    kinds = stages["embeddings.token_type"] = weights["embeddings.token_type_embeddings.weight"][
        types
    ]
    if wrong == "no types":
        kinds = stages["embeddings.token_type"] = torch.zeros_like(kinds)
    places = stages["embeddings.position"] = weights["embeddings.position_embeddings.weight"][
        columns
    ]
    total = stages["embeddings.sum"] = words + kinds + places
    x = norm(total, "embeddings.LayerNorm", wrong if at is None else "")
    if wrong == "dropout" and at is None:
        x = drop(x)
    stages["embeddings.norm"] = x
    for i in range(layers):
        fault = wrong if at in (None, i) else ""
        name, out = f"encoder.layer.{i}", f"layers.{i}"
        below = norm(x, f"{name}.attention.output.LayerNorm", "") if fault == "pre-norm" else x
        qkv = []
        parts = ["query", "key", "value"]
        if fault == "q and k swapped":
            parts = ["key", "query", "value"]
        for letter, part in zip("qkv", parts, strict=True):
            how = {"no qkv bias": "no bias", "transposed qkv": "transposed"}.get(fault, "")
            flat = linear(below, f"{name}.attention.self.{part}", how)
            cut = flat.view(batch, seq, heads, -1)
            if fault == "heads interleaved":
                cut = flat.view(batch, seq, -1, heads).transpose(2, 3)
            stages[f"{out}.{letter}"] = cut
            qkv.append(cut.transpose(1, 2))
        q, k, v = qkv
        head_dim = q.shape[-1]
        scale = {"no scale": 1.0, "scaled by head_dim": head_dim}.get(fault, math.sqrt(head_dim))
        scores = stages[f"{out}.scores"] = q @ k.transpose(2, 3) / scale
        hidden = (1 - mask)[:, None, None, :].to(scores.dtype)
        if fault == "no mask":
            hidden = hidden * 0
        elif fault == "mask inverted":
            hidden = 1 - hidden
        value = {"mask of -1": -1.0, "mask of -10": -10.0}.get(fault, -1e30)
        masked = scores + hidden * value
        if fault == "mask multiplied":
            masked = scores * (1 - hidden)
        elif fault == "causal":
            masked = masked + torch.full((seq, seq), -1e30, dtype=scores.dtype).triu(1)
        probabilities = masked.softmax(-2 if fault == "softmax over queries" else -1)
        if fault == "attention dropout":
            probabilities = drop(probabilities)
        stages[f"{out}.probabilities"] = probabilities
        context = (probabilities @ v).transpose(1, 2)
        if fault == "heads not back":
            context = (probabilities @ v).reshape(batch, seq, heads, head_dim)
        stages[f"{out}.context"] = context
        how = {"transposed output": "transposed", "no output bias": "no bias"}.get(fault, "")
        mixed = linear(context.reshape(batch, seq, -1), f"{name}.attention.output.dense", how)
        if fault == "hidden dropout":
            mixed = drop(mixed)
        stages[f"{out}.attention_output"] = mixed
        attended = norm(
            mixed if fault == "no residual" else x + mixed,
            f"{name}.attention.output.LayerNorm",
            fault,
        )
        if fault == "pre-norm":
            attended = x + mixed
        elif fault == "norm before sum":
            attended = x + norm(mixed, f"{name}.attention.output.LayerNorm", "")
        stages[f"{out}.attention_norm"] = attended
        inner = attended
        if fault == "pre-norm":
            inner = norm(attended, f"{name}.output.LayerNorm", "")
        wide = linear(inner, f"{name}.intermediate.dense", "")
        stages[f"{out}.pre_activation"] = wide
        active = wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2)))
        if fault == "tanh gelu":
            cubic = wide + 0.044715 * wide**3
            active = 0.5 * wide * (1 + torch.tanh(math.sqrt(2 / math.pi) * cubic))
        elif fault == "relu":
            active = wide.clamp(min=0)
        elif fault == "sigmoid gelu":
            active = wide / (1 + torch.exp(-1.702 * wide))
        stages[f"{out}.activation"] = active
        how = "no bias" if fault == "no down bias" else ""
        narrow = linear(active, f"{name}.output.dense", how)
        stages[f"{out}.feed_forward_output"] = narrow
        residual = x if fault == "residual from the input" else attended
        x = norm(residual + narrow, f"{name}.output.LayerNorm", fault)
        if fault == "pre-norm":
            x = attended + narrow
        stages[f"{out}.feed_forward_norm"] = x
    first = x[:, 0]
    if wrong == "pooled by mean":
        weight = mask[..., None].to(x.dtype)
        first = (x * weight).sum(1) / weight.sum(1)
    elif wrong == "pooled from the end":
        first = x[torch.arange(batch), mask.sum(1) - 1]
    pooled = linear(first, "pooler.dense", "transposed" if wrong == "transposed pooler" else "")
    stages["pooler"] = pooled if wrong == "no tanh" else torch.tanh(pooled)
    return stages
