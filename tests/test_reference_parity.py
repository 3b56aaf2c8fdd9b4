"""Recordings of transformers: ours equal them stage by stage, and faults in them are found."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from strategies import Batch, networks, randomised

from minibert import BertConfig, BertModel, cli, compare, read_pack, record
from minibert.parity.recording import Recording, inputs_of
from minibert.parity.reference import record_transformers
from minibert.parity.stages import stages_of
from minibert.tokenizer import Tokenizer

pytestmark = pytest.mark.reference


def recorded(model: BertModel, batch: Batch, folder: Path, dtype: str) -> Recording:
    model.save_pretrained(folder)
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.mask.long(),
        "token_type_ids": batch.token_type_ids,
    }
    return record_transformers(folder, inputs, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@settings(max_examples=52)  # 208 configurations in all
@given(case=networks())
def test_our_stages_are_those_of_transformers(
    dtype: str, case: tuple[BertModel, Batch], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, batch = case
    reference = recorded(model, batch, tmp_path_factory.mktemp("network"), dtype)
    ours = record(copy.deepcopy(model).to(getattr(torch, dtype)), reference.inputs, noise=False)
    scores = {stage.name for stage in stages_of(model) if stage.kind == "scores"}
    assert ours.stages.keys() - reference.stages.keys() == scores  # which it does not give
    comparison = compare(ours, reference, model=model)
    assert comparison.equal, comparison.first
    assert len(comparison.results) == len(reference.stages)


def test_parameters_of_a_recording_of_transformers_are_those_of_the_file(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = randomised(BertModel(config)).eval()
    batch = Batch(torch.tensor([[1, 2]]), torch.ones(1, 2).bool(), torch.zeros(1, 2).long())
    reference = recorded(model, batch, tmp_path, "float32")
    assert reference.parameters == record(model, reference.inputs, noise=False).parameters


def test_minilm_equals_transformers_at_every_stage(minilm: Path, tmp_path: Path) -> None:
    pack = tmp_path / "reference.safetensors"
    options = ["--model", str(minilm), "--output", str(pack), "--with", "transformers"]
    assert cli.main(["parity", "record", *options]) == 0
    reference = read_pack(pack)
    assert reference.origin.startswith("transformers ")
    assert reference.noise.keys() == {"float32", "bfloat16"}
    comparison = compare(minilm, reference)
    assert comparison.equal, comparison.first
    for result in comparison.results:  # PARITY: 1e-5 of max(1, the stage's largest value)
        scale = max(1.0, float(reference.stages[result.stage].abs().max()))
        assert result.max_abs <= 1e-5 * scale, result.stage
    assert cli.main(["parity", "compare", str(minilm), str(pack)]) == 0


def test_figures_hold_against_transformers_as_it_is_installed(
    minilm: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """On more texts than the recorded ones, and every entry of every stage."""
    assert cli.main(["parity", "check", str(minilm), "--with", "transformers"]) == 0
    said = capfd.readouterr().out
    assert "unit vectors of 11 texts" in said
    assert "all 9 hold" in said


def test_transformers_with_the_other_gelu_is_found_out(minilm: Path, tmp_path: Path) -> None:
    for path in minilm.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path.resolve())
    config = (minilm / "config.json").read_text()
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(config.replace('"gelu"', '"gelu_new"'))
    tokens = Tokenizer.from_pretrained(minilm)
    inputs = inputs_of([("A short text.", None), ("Two texts.", "One pair.")], tokens, 128)
    reference = record(BertModel.from_pretrained(minilm), inputs)
    candidate = record_transformers(tmp_path, inputs, noise=False)
    comparison = compare(candidate, reference, model=minilm)
    assert comparison.first is not None
    assert comparison.first.stage == "layers.0.activation"
    assert comparison.cause is not None
    assert comparison.cause.name == "tanh GELU"
