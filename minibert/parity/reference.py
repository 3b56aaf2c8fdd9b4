"""Recording from `transformers` and `sentence-transformers`, where they are installed: the
references that others are held to."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minibert.checkpoint import DTYPES
from minibert.config import BertConfig
from minibert.errors import ParityError
from minibert.parity.recording import (
    Recording,
    capture,
    digests_of,
    noise_of,
    sliced,
    versions,
)
from minibert.parity.stages import parts_of, select

_OUTSIDE = {
    "embeddings.word_embeddings": "embeddings.token",
    "embeddings.token_type_embeddings": "embeddings.token_type",
    "embeddings.position_embeddings": "embeddings.position",
    "embeddings.LayerNorm:input": "embeddings.sum",
    "embeddings.LayerNorm": "embeddings.norm",
    "pooler": "pooler",
}
_LAYER = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.self:1": "probabilities",
    "attention.output.dense:input": "context",
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "pre_activation",
    "intermediate": "activation",
    "output.dense": "feed_forward_output",
    "output.LayerNorm": "feed_forward_norm",
}


def record_transformers(
    folder: Path,
    inputs: Mapping[str, Tensor],
    *,
    dtype: str = "float32",
    stages: str | Iterable[str] = "*",
    noise: bool = True,
    step: int = 1,
) -> Recording:
    """The stages of `transformers.BertModel` on a batch; all but the scores, which it keeps.

    Args:
        folder: the checkpoint.
        inputs: `input_ids`, and where needed `attention_mask`, `token_type_ids`.
        dtype: what it computes in.
        stages, noise, step: as in `record`.

    Raises: ParityError where `transformers` is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise ParityError(
            "transformers is not installed, expected it for --with transformers: pip install "
            "'minibert[reference]', or record --with minibert"
        ) from None
    config = BertConfig.from_file(folder / "config.json")

    def run(name: str) -> tuple[Recording, nn.Module]:
        """What it computes in a dtype, in our shapes."""
        model: Any = transformers.BertModel.from_pretrained(
            folder, dtype=DTYPES[name], attn_implementation="eager"
        ).eval()
        names = {k: v for k, v in _OUTSIDE.items() if k != "pooler" or model.pooler is not None}
        for i in range(config.num_hidden_layers):
            names |= {f"encoder.layer.{i}.{k}": f"layers.{i}.{v}" for k, v in _LAYER.items()}
        with torch.no_grad(), capture(model, names) as recording:
            model(**inputs)
        shape = (*inputs["input_ids"].shape, config.num_attention_heads, config.head_dim)
        for stage, tensor in recording.stages.items():
            if parts_of(stage)[1] in ("q", "k", "v", "context"):
                recording.stages[stage] = tensor.reshape(shape)
            elif stage == "embeddings.position":
                recording.stages[stage] = tensor.expand(*shape[:2], -1).contiguous()
        return recording, model

    recording, model = run(dtype)
    recording.stages = {
        name: recording.stages[name] for name in select(list(recording.stages), stages)
    }
    recording.inputs = dict(inputs)
    recording.origin = f"transformers {transformers.__version__}"
    recording.config = config.to_dict()
    recording.parameters = digests_of(
        {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
    )
    recording.versions = versions() | {"transformers": transformers.__version__}
    if noise:
        kept = recording.stages.keys()
        recording.noise = noise_of(
            lambda name: {n: t for n, t in run(name)[0].stages.items() if n in kept}, recording.mask
        )
    return sliced(recording, step)


def sentence_transformers_vectors(folder: Path, texts: Sequence[str]) -> Tensor | None:
    """The vectors that `sentence-transformers` makes, `(texts, dim)`; None where it is missing."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return None
    embedder = SentenceTransformer(str(folder), device="cpu")
    return torch.from_numpy(embedder.encode(list(texts), show_progress_bar=False))
