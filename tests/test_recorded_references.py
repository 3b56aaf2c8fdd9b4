"""Parity with transformers and sentence-transformers, without either: against recorded figures.

`scripts/record_references.py` recorded them; the tolerances are those of the reference tests.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import minibert
from minibert import BertModel, Embedder, Tokenizer, explicit_attention, set_attention
from minibert.layout import pack

PACKS = Path(__file__).resolve().parent.parent / "weights" / "packs"
HEADS = PACKS / "heads.safetensors"
TEXTS = PACKS / "texts.safetensors"

# Of the largest value of a stage, or of 1.
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def facts(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["pack"])
    return found


def group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def assert_close(ours: Tensor, recorded: Tensor, tolerance: float) -> None:
    assert ours.shape == recorded.shape
    scale = max(1.0, float(recorded.abs().max()))
    error = float((ours.double() - recorded.double()).abs().max())
    assert error <= tolerance * scale, f"error {error:.2e} at scale {scale:.2g}"


def states_of(encoder: BertModel) -> list[Tensor]:
    """The hidden states after embeddings and layers, filled by the next call."""
    states: list[Tensor] = []
    for module in (encoder.embeddings, *encoder.layers):
        module.register_forward_hook(lambda _module, _inputs, output: states.append(output))
    return states


def load_network(index: int, folder: Path, dtype: str) -> tuple[nn.Module, dict[str, Tensor]]:
    tensors = load_file(HEADS)
    network = facts(HEADS)["networks"][index]
    (folder / "config.json").write_text(json.dumps(network["config"]))
    weights = {k: v.clone() for k, v in group(tensors, f"{index}/weights/").items()}
    save_file(weights, folder / "model.safetensors")
    model = getattr(minibert, network["head"]).from_pretrained(folder, dtype=dtype)
    return model, group(tensors, f"{index}/inputs/") | group(tensors, f"{index}/outputs/")


@pytest.mark.parametrize("form", ["fused", "explicit"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("index", range(9))
def test_every_stage_equals_the_recorded_one(
    index: int, dtype: str, form: str, tmp_path: Path
) -> None:
    model, recorded = load_network(index, tmp_path, dtype)
    if form == "explicit":
        set_attention(model, explicit_attention)
    encoder = model if isinstance(model, BertModel) else model.bert
    assert isinstance(encoder, BertModel)
    states = states_of(encoder)
    names = ("input_ids", "attention_mask", "token_type_ids")
    with torch.no_grad():
        out = model(*(recorded.pop(name) for name in names[:1]), *map(recorded.get, names[1:]))
    mask = recorded["attention_mask"].flatten(0, -2).bool()
    compared = set()
    for layer, state in enumerate(states):
        assert_close(state[mask], recorded[f"hidden_{layer}"][mask], TOLERANCE[dtype])
        compared.add(f"hidden_{layer}")
    for name, value in out._asdict().items():
        expected = recorded[name]
        if expected.shape[:2] == mask.shape and not name.startswith("seq"):
            value, expected = value[mask], expected[mask]
        assert_close(value, expected, TOLERANCE[dtype])
        compared.add(name)
    assert compared == recorded.keys() - set(names)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_packed_layout_equals_the_recorded_padded_one(dtype: str, tmp_path: Path) -> None:
    model, recorded = load_network(0, tmp_path, dtype)
    mask = recorded["attention_mask"]
    ids, layout = pack(recorded["input_ids"], mask)
    types, _ = pack(recorded["token_type_ids"], mask)
    with torch.no_grad():
        out = model(ids, token_type_ids=types, layout=layout)
    assert_close(
        out.last_hidden_state, recorded["last_hidden_state"][mask.bool()], TOLERANCE[dtype]
    )
    assert_close(out.pooler_output, recorded["pooler_output"], TOLERANCE[dtype])


def test_packs_cover_every_head_and_activation() -> None:
    from minibert.config import HIDDEN_ACTS

    networks = facts(HEADS)["networks"]
    assert {network["config"]["hidden_act"] for network in networks} == set(HIDDEN_ACTS)
    heads = {name for name in minibert.__all__ if name.startswith("BertFor")} | {"BertModel"}
    assert {network["head"] for network in networks} == heads


def test_token_ids_equal_the_recorded_ones(minilm: Path) -> None:
    found = facts(TEXTS)
    encodings = Tokenizer.from_pretrained(minilm).encode(found["texts"], max_length=256)
    assert [encoding.ids for encoding in encodings] == found["ids"]


def test_vectors_of_the_real_checkpoint_equal_the_recorded_ones(minilm: Path) -> None:
    recorded = load_file(TEXTS)["vectors"]
    vectors = Embedder.from_pretrained(minilm).encode(facts(TEXTS)["texts"])
    assert float((torch.from_numpy(vectors) - recorded).abs().max()) <= 1e-6
