"""The comparison: wrong models are found out, right ones are never accused."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from strategies import Batch, networks, randomised
from student import student
from torch import Tensor

from minibert import BertConfig, BertModel, explicit_attention, set_attention
from minibert.checkpoint import to_disk
from minibert.parity.compare import Comparison, compare
from minibert.parity.recording import Recording, record

CONFIG = BertConfig(
    vocab_size=60,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=24,
    initializer_range=0.15,
)


def batch_of(*, left: bool = False) -> dict[str, Tensor]:
    """Rows of several lengths, pairs among them; padded on the right, or on the left."""
    lengths, seq = [12, 5, 1, 9, 16, 3], 16
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, CONFIG.vocab_size, (len(lengths), seq), generator=generator)
    columns = torch.arange(seq)
    n = torch.tensor(lengths)[:, None]
    mask = columns >= seq - n if left else columns < n
    place = columns - (seq - n if left else 0)
    types = ((place >= n // 2) & mask & (torch.arange(len(lengths)) % 2 == 0)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask.long(), "token_type_ids": types}


def network(dtype: torch.dtype) -> BertModel:
    return randomised(BertModel(CONFIG), seed=5).to(dtype).eval()


def the_student(model: BertModel, inputs: Mapping[str, Tensor], **fault: Any) -> dict[str, Tensor]:
    return student(
        to_disk(dict(model.state_dict())),
        inputs,
        heads=CONFIG.num_attention_heads,
        layers=CONFIG.num_hidden_layers,
        eps=CONFIG.layer_norm_eps,
        **fault,
    )


# The mistake, the only layer that has it, the first stage that differs, the words of the cause.
WRONG: tuple[tuple[str, int | None, str, str], ...] = (
    ("tanh gelu", None, "layers.0.activation", "tanh GELU"),
    ("tanh gelu", 1, "layers.1.activation", "tanh GELU"),
    ("relu", 2, "layers.2.activation", "ReLU"),
    ("sigmoid gelu", None, "layers.0.activation", "quick GELU"),
    ("eps 1e-3", None, "embeddings.norm", "LayerNorm with eps 0.001"),
    ("eps 1e-5", 1, "layers.1.attention_norm", "LayerNorm with eps 1e-05"),
    ("eps 1e-6", None, "embeddings.norm", "LayerNorm with eps 1e-06"),
    ("unbiased variance", None, "embeddings.norm", "LayerNorm with the unbiased variance"),
    ("unbiased variance", 2, "layers.2.attention_norm", "LayerNorm with the unbiased variance"),
    ("rms norm", None, "embeddings.norm", "RMSNorm in place of LayerNorm"),
    ("norm without weight", 0, "layers.0.attention_norm", "LayerNorm without its weight"),
    ("pre-norm", None, "layers.0.q", "pre-norm"),
    ("no residual", 1, "layers.1.attention_norm", "no residual"),
    ("norm before sum", None, "layers.0.attention_norm", "norm before the sum"),
    (
        "residual from the input",
        0,
        "layers.0.feed_forward_norm",
        "residual from the layer's input",
    ),
    ("types swapped", None, "embeddings.token_type", "token types swapped"),
    ("types all 0", None, "embeddings.token_type", "token types all 0"),
    ("no types", None, "embeddings.token_type", "token types absent"),
    ("mask as types", None, "embeddings.token_type", "attention mask taken for token types"),
    ("positions from 2", None, "embeddings.position", "positions shifted by 2"),
    ("positions from 1", None, "embeddings.position", "positions shifted by 1"),
    (
        "positions by mask",
        None,
        "embeddings.position",
        "positions counted from the first attended token",
    ),
    ("scaled embeddings", None, "embeddings.token", "embeddings scaled by √hidden"),
    ("no qkv bias", None, "layers.0.q", "missing bias"),
    ("transposed qkv", 1, "layers.1.q", "transposed weights"),
    ("q and k swapped", 0, "layers.0.q", "queries and keys swapped"),
    ("heads interleaved", None, "layers.0.q", "heads interleaved"),
    ("no scale", None, "layers.0.scores", "missing scale"),
    ("scaled by head_dim", 2, "layers.2.scores", "scaled by head_dim"),
    ("no mask", None, "layers.0.probabilities", "missing mask"),
    ("mask of -1", None, "layers.0.probabilities", "mask value -1"),
    ("mask of -10", 1, "layers.1.probabilities", "mask value -10"),
    ("mask inverted", None, "layers.0.probabilities", "mask inverted"),
    ("mask multiplied", None, "layers.0.probabilities", "mask multiplied into the scores"),
    ("causal", None, "layers.0.probabilities", "causal mask"),
    ("softmax over queries", None, "layers.0.probabilities", "softmax over the queries"),
    ("attention dropout", 1, "layers.1.probabilities", "dropout left on"),
    ("heads not back", None, "layers.0.context", "heads not transposed back"),
    ("transposed output", 0, "layers.0.attention_output", "transposed weights"),
    ("no output bias", None, "layers.0.attention_output", "missing bias"),
    ("hidden dropout", 2, "layers.2.attention_output", "dropout left on"),
    ("no down bias", 1, "layers.1.feed_forward_output", "missing bias"),
    ("pooled by mean", None, "pooler", "pooled by mean instead of first token"),
    ("pooled from the end", None, "pooler", "pooled from the last token"),
    ("transposed pooler", None, "pooler", "transposed weights"),
    ("no tanh", None, "pooler", "pooler without tanh"),
)


@pytest.fixture(scope="module")
def references() -> dict[tuple[torch.dtype, bool], tuple[BertModel, Recording]]:
    found = {}
    for dtype in (torch.float32, torch.float64):
        for left in (False, True):
            model = network(dtype)
            found[dtype, left] = model, record(model, batch_of(left=left))
    return found


def diagnosed(
    references: dict[tuple[torch.dtype, bool], tuple[BertModel, Recording]],
    dtype: torch.dtype,
    stages: Any = None,
    **fault: Any,
) -> Comparison:
    model, reference = references[dtype, fault.get("wrong") == "positions by mask"]
    found = the_student(model, reference.inputs, **fault)
    if stages is not None:
        found = {name: tensor for name, tensor in found.items() if stages(name)}
    return compare(found, reference, model=model)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@settings(max_examples=50)
@given(networks("first"))
def test_right_network_is_never_accused(dtype: torch.dtype, case: tuple[BertModel, Batch]) -> None:
    model, batch = case
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.mask.long(),
        "token_type_ids": batch.token_type_ids,
    }
    reference = record(model, inputs)
    other = copy.deepcopy(model).to(dtype)
    set_attention(other, explicit_attention)
    comparison = compare(record(other, inputs, noise=False), reference, model=model)
    assert comparison.equal, comparison.first


def of_dtype(wrong: str) -> torch.dtype:
    """A small eps drowns in the rounding of float32, and is found in float64."""
    return torch.float64 if wrong in ("eps 1e-5", "eps 1e-6") else torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("left", [False, True])
def test_right_student_is_not_accused(references: Any, dtype: torch.dtype, left: bool) -> None:
    model, reference = references[dtype, left]
    comparison = compare(the_student(model, reference.inputs), reference, model=model)
    assert comparison.equal, comparison.first
    assert comparison.first is None
    assert comparison.cause is None


@pytest.mark.parametrize(
    ("wrong", "at", "stage", "cause"), WRONG, ids=[f"{w[0]} {w[1] or ''}" for w in WRONG]
)
def test_wrong_student_is_found_out(
    references: Any, wrong: str, at: int | None, stage: str, cause: str
) -> None:
    comparison = diagnosed(references, of_dtype(wrong), wrong=wrong, at=at)
    assert not comparison.equal
    assert comparison.first is not None
    assert comparison.first.stage == stage
    assert comparison.cause is not None, comparison.first
    assert comparison.cause.name == cause
    assert comparison.cause.explains
    if at is not None:  # what comes behind inherits, and is not accused
        assert {f.stage.rsplit(".", 1)[0] for f in comparison.faults} == {f"layers.{at}"}
