"""Packs and arrays: what is written is read again, and what is no pack is refused in one line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from strategies import TINY, randomised
from torch import Tensor, nn

from minibert import BertModel, capture, compare, read_pack, record, write_pack
from minibert.errors import ParityError
from minibert.parity.pack import read_arrays, shaped
from minibert.parity.recording import Recording
from minibert.parity.stages import stages_of

INPUTS = {
    "input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
    "token_type_ids": torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]]),
}


@pytest.fixture(scope="module")
def model() -> BertModel:
    return randomised(BertModel(TINY), seed=1).eval()


@pytest.fixture(scope="module")
def recording(model: BertModel) -> Recording:
    return record(model, INPUTS)


def refusal(function: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(ParityError) as caught:
        function(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- recording


def test_recording_holds_stages_inputs_and_where_they_come_from(
    model: BertModel, recording: Recording
) -> None:
    names = [stage.name for stage in stages_of(model)]
    assert list(recording.stages) == names
    assert recording.inputs.keys() == INPUTS.keys()
    assert recording.network == "BertModel"
    assert recording.config == TINY.to_dict()
    assert recording.versions.keys() >= {"minibert", "torch", "numpy"}
    assert "embeddings.word_embeddings.weight" in recording.parameters
    assert "encoder.layer.0.attention.self.key.bias" in recording.parameters
    assert not recording.dropout
    assert recording.dtype == torch.float32


def test_noise_is_the_error_of_a_dtype_against_float64(recording: Recording) -> None:
    for name, tensor in recording.stages.items():
        single, half = recording.noise["float32"][name], recording.noise["bfloat16"][name]
        assert single <= half or half == 0
        assert single <= 1e-5 * max(1, float(tensor.abs().max()))
    assert recording.noise["bfloat16"]["layers.1.feed_forward_norm"] > 1e-3
    assert recording.noise["float32"]["embeddings.token"] == 0


def test_recording_leaves_training_mode_as_it_was(model: BertModel) -> None:
    model.train()
    record(model, INPUTS, stages="pooler", noise=False)
    assert model.training
    model.eval()


def test_recording_of_some_stages_and_every_third_entry(model: BertModel) -> None:
    some = record(model, INPUTS, stages=["*.context", "pooler"], step=3)
    assert list(some.stages) == ["layers.0.context", "layers.1.context", "pooler"]
    assert some.stages["pooler"].shape == (2, 2)
    assert some.steps == {"layers.0.context": 3, "layers.1.context": 3, "pooler": 3}
    assert some.noise["float32"].keys() == some.stages.keys()
    comparison = compare(model, some)
    assert comparison.equal
    assert [r.stage for r in comparison.results] == list(some.stages)
    assert "expected at least 1" in refusal(record, model, INPUTS, step=0)


# ---- packs


def test_pack_gives_back_what_was_recorded(recording: Recording, tmp_path: Path) -> None:
    write_pack(recording, tmp_path / "a.safetensors")
    again = read_pack(tmp_path / "a.safetensors")
    for name in (
        "network",
        "config",
        "parameters",
        "noise",
        "steps",
        "texts",
        "tokens",
        "versions",
    ):
        assert getattr(again, name) == getattr(recording, name), name
    assert again.origin == recording.origin
    for before, after in ((recording.stages, again.stages), (recording.inputs, again.inputs)):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    write_pack(again, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_vectors_and_texts_of_a_pack_must_fit(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    recording = replace(recording, texts=[["one"], ["a", "pair"]], vectors=torch.ones(1, 4))
    write_pack(recording, path)
    again = read_pack(path)
    assert again.texts == recording.texts
    assert again.vectors is not None
    assert torch.equal(again.vectors, torch.ones(1, 4))
    write_pack(replace(recording, vectors=torch.ones(2, 4)), path)
    assert "expected one for each of the 1 texts that are no pairs" in refusal(read_pack, path)
    write_pack(replace(recording, vectors=torch.ones(4)), path)
    assert "vectors have shape (4,)" in refusal(read_pack, path)
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["pack"])
    tensors = {"inputs/input_ids": INPUTS["input_ids"], "stages/pooler": torch.ones(2, 4)}
    save_file(tensors, path, metadata={"pack": json.dumps({**facts, "texts": ["one", "a"]})})
    assert "texts hold 'one', expected lists of strings" in refusal(read_pack, path)


def test_pack_needs_no_more_than_ids_and_a_stage(model: BertModel, tmp_path: Path) -> None:
    with torch.no_grad():
        hidden = model(INPUTS["input_ids"]).last_hidden_state
    path = tmp_path / "foreign.safetensors"
    save_file(
        {"inputs/input_ids": INPUTS["input_ids"], "stages/layers.1.feed_forward_norm": hidden}, path
    )
    comparison = compare(model, read_pack(path), model=model)
    assert comparison.equal
    assert comparison.reference == "foreign.safetensors"
    wrong = read_pack(path)
    wrong.stages["layers.1.feed_forward_norm"] = hidden + 1e-3
    assert not compare(model, wrong, model=model).equal


def rewritten(source: Path, target: Path, **facts: Any) -> Path:
    """A pack with other metadata."""
    with safe_open(source, framework="pt") as file:
        values = json.loads(file.metadata()["pack"]) | facts
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, target, metadata={"pack": json.dumps(values)})
    return target


def test_what_is_no_pack_is_refused(recording: Recording, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    write_pack(recording, good)
    assert refusal(read_pack, bad) == f"{bad}: there is no such file, expected a parity pack"
    for cut in (0, 4, 100, good.stat().st_size - 1):
        bad.write_bytes(good.read_bytes()[:cut])
        assert refusal(read_pack, bad).startswith(f"{bad}: cannot be read as safetensors:")
    save_file({"embeddings.weight": torch.zeros(2)}, bad)
    assert refusal(read_pack, bad).startswith(
        f"{bad}: is no parity pack: it holds embeddings.weight, expected inputs/input_ids"
    )
    assert "version 2, expected 1" in refusal(read_pack, rewritten(good, bad, version=2))
    assert "does not say" in refusal(read_pack, rewritten(good, bad, format="other"))
    assert "noise is 3, expected dict" in refusal(read_pack, rewritten(good, bad, noise=3))
    save_file({"stages/pooler": torch.zeros(2)}, bad, metadata={"pack": "{"})
    assert "its metadata is no JSON" in refusal(read_pack, bad)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"input_ids": torch.zeros(2, 4)}, "inputs/input_ids is torch.float32 of shape (2, 4)"),
        ({"input_ids": torch.zeros(4).long()}, "of shape (4,), expected integers of (batch, seq)"),
        (
            {**INPUTS, "attention_mask": torch.ones(2, 3).long()},
            "inputs/attention_mask has shape (2, 3), expected (2, 4)",
        ),
    ],
)
def test_pack_of_inputs_that_disagree_is_refused(
    inputs: dict[str, Tensor], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {f"inputs/{name}": tensor for name, tensor in inputs.items()}
    save_file({**tensors, "stages/pooler": torch.zeros(2, 4)}, path)
    assert said in refusal(read_pack, path)


def test_pack_that_cannot_be_written_is_refused(recording: Recording, tmp_path: Path) -> None:
    assert "cannot be written" in refusal(write_pack, recording, tmp_path / "no" / "x.safetensors")


# ---- arrays


def test_arrays_of_other_names_and_axes_are_read_by_their_mapping(
    model: BertModel, recording: Recording, tmp_path: Path
) -> None:
    stages = recording.stages
    np.savez(
        tmp_path / "dump.npz",
        ids=INPUTS["input_ids"],
        q=stages["layers.0.q"].flatten(2).transpose(0, 1),  # (seq, batch, hidden)
        k=stages["layers.0.k"].permute(2, 0, 1, 3),  # (heads, batch, seq, head_dim)
        att=stages["layers.1.scores"].transpose(2, 3),
        out=stages["layers.1.feed_forward_norm"],
        unused=np.zeros(3),
    )
    mapping = {
        "input_ids": "ids",
        "layers.0.q": {"name": "q", "axes": "seq batch (heads head_dim)"},
        "layers.0.k": {"name": "k", "axes": "heads batch seq head_dim"},
        "layers.1.scores": {"name": "att", "axes": "batch heads keys seq"},
        "layers.1.feed_forward_norm": {"name": "out"},
    }
    (tmp_path / "mapping.json").write_text(json.dumps(mapping))
    comparison = compare(
        tmp_path / "dump.npz", recording, model=model, mapping=tmp_path / "mapping.json"
    )
    assert comparison.equal, comparison.first
    assert {r.stage for r in comparison.results} == mapping.keys() - {"input_ids"}
    assert len(comparison.missing) == len(stages) - 4


def test_arrays_of_our_names_need_no_mapping(model: BertModel, recording: Recording) -> None:
    arrays = {name: tensor.numpy() for name, tensor in recording.stages.items()}
    assert compare(arrays, recording, model=model).equal


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"pooler": "nothing"}, "has no array 'nothing', which the mapping gives for pooler; it"),
        ({"pooler": 3}, "the mapping gives 3 for pooler, expected the array's name, or an object"),
        ({"pooler": {"axes": "batch hidden"}}, "expected the array's name, or an object such as"),
        (
            {"pooler": {"name": "p", "axes": "batch"}},
            "pooler: axes are 'batch', expected 2 different ones",
        ),
        ({"pooler": {"name": "p", "axes": "batch depth"}}, "axes are 'batch depth', expected 2"),
        ({"input_ids": "p"}, "holds no stage, expected at least one"),
    ],
)
def test_mapping_that_does_not_fit_is_refused(mapping: dict[str, Any], said: str) -> None:
    assert said in refusal(read_arrays, {"p": np.zeros((2, 4))}, mapping)


def test_files_that_hold_no_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    assert "there is no such file" in refusal(read_arrays, path)
    path.write_text("text")
    assert "cannot be read as a numpy archive" in refusal(read_arrays, path)
    np.savez(path, pooler=np.array([{}], dtype=object))
    assert "cannot be read as a numpy archive" in refusal(read_arrays, path)
    path.write_bytes(b"")
    assert "cannot be read as a numpy archive" in refusal(read_arrays, path)
    (tmp_path / "m.json").write_text("[1]")
    said = refusal(read_arrays, {"p": np.zeros(2)}, tmp_path / "m.json")
    assert "is no JSON object, expected stages and the arrays' names" in said
    said = refusal(read_arrays, {"p": np.zeros(2)}, tmp_path / "n.json")
    assert "cannot be read as a JSON mapping" in said


def test_shapes_that_mean_the_same_are_taken() -> None:
    assert shaped("layers.0.q", torch.zeros(2, 3, 8), (2, 3, 4, 2), "x").shape == (2, 3, 4, 2)
    assert shaped("embeddings.position", torch.zeros(3, 8), (2, 3, 8), "x").shape == (2, 3, 8)
    assert shaped("embeddings.position", torch.zeros(1, 3, 8), (2, 3, 8), "x").shape == (2, 3, 8)
    assert refusal(shaped, "embeddings.norm", torch.zeros(2, 5, 8), (2, 3, 8), "x") == (
        "x: embeddings.norm has shape (2, 5, 8), expected (2, 3, 8) (another sequence length?); "
        "run the candidate on the reference's own input_ids, and give the order of axes in the "
        "mapping"
    )


# ---- capture


class Port(nn.Module):
    """Somebody's network, of which we know the names of modules alone."""

    def __init__(self, model: BertModel) -> None:
        super().__init__()
        self.words, self.bert = model.embeddings.token, model
        self.drop = nn.Dropout(0.5)
        self.final = nn.Identity()

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        out = self.bert(ids)
        return self.final(out.last_hidden_state), out.pooler_output


def test_capture_records_any_network_by_its_modules(model: BertModel) -> None:
    reference = record(model, {"input_ids": INPUTS["input_ids"]})
    port = Port(model).eval()
    names = {
        "words": "embeddings.token",
        "bert.embeddings.norm": "embeddings.norm",
        "bert.layers.0.attention.output:input": "layers.0.context",
        "bert:1": "pooler",
        "final": "layers.1.feed_forward_norm",
    }
    with capture(port, names) as recording:
        port(INPUTS["input_ids"])
    assert set(recording.stages) == set(names.values())
    comparison = compare(recording, reference, model=model)
    assert comparison.equal, comparison.first
    assert comparison.candidate == "Port"
    assert not any(module._forward_hooks for module in port.modules())
    port.train()
    with capture(port, {"final": "layers.1.feed_forward_norm"}) as recording:
        port(INPUTS["input_ids"])
    assert recording.dropout
    assert "dropout was active" in compare(recording, reference, model=model).notes[0]


def test_capture_refuses_what_is_no_module_or_no_tensor(model: BertModel) -> None:
    port = Port(model).eval()

    def run(names: dict[str, str]) -> None:
        with capture(port, names):
            port(INPUTS["input_ids"])

    assert "Port has no module 'word', expected a name of" in refusal(run, {"word": "pooler"})
    assert "Port has no module 'final:x'" in refusal(run, {"final:x": "pooler"})
    said = refusal(run, {"bert:2": "pooler"})
    assert said == "BertModel gives NoneType for pooler, expected a tensor"
    assert not any(module._forward_hooks for module in port.modules())
