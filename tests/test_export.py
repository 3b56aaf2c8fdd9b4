"""Exported programs: that they give what the network gives, at any shape; what stands beside them.

Translating to ONNX takes seconds whatever the size, so the default suite does it once, for a model
that has every pooling; other networks and versions of operators are slow tests.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from disks import small_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from small_models import POSITIONS, VOCAB, WORDS, save_small, small_config, small_tokenizer
from strategies import batches, randomised, scaled_error
from torch import Tensor, nn
from torch.export import ExportedProgram

import minibert
from minibert import cli
from minibert.checkpoint import Pretrained
from minibert.config import BertConfig
from minibert.embed import Embedder
from minibert.errors import ExportError, ParityError
from minibert.export import folder as export_folder
from minibert.export import onnx_file
from minibert.export.agreement import Agreement, Checked, check
from minibert.export.folder import export
from minibert.export.network import INPUTS, Exportable, Opened, open_model
from minibert.export.onnx_file import opened
from minibert.export.program import axes_of, run_program, traced
from minibert.heads import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from minibert.model import BertModel, explicit_attention
from minibert.parity.recording import Recording, inputs_of, record
from minibert.pooling import POOLINGS
from minibert.prediction.settings import PredictionSettings
from minibert.recipe import DenseStep, Recipe

HEADS = (
    BertForMaskedLM, BertForNextSentencePrediction, BertForPreTraining,
    BertForSequenceClassification, BertForTokenClassification, BertForQuestionAnswering,
    BertForMultipleChoice,
)  # fmt: skip
KINDS = (BertModel, BertForPreTraining, BertForQuestionAnswering, BertForMultipleChoice)
CONFIG = small_config(initializer_range=0.5, labels=("no", "yes", "maybe"))
TEXTS = ["good film", "the film is bad , anna .", "", "who lives in paris ? smith", "odd"]
# Beyond the rounding of float32 by far, below the mistake of a token too many or too few.
CLOSE = 1e-5


Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def inputs_in(data: st.DataObject, network: Exportable) -> dict[str, Tensor]:
    """A random batch, with any mask; of a network that chooses among texts, one choice each."""
    batch = data.draw(batches(network.config, "any", max_batch=5, max_seq=POSITIONS))
    tensors = (batch.input_ids, batch.mask.long(), batch.token_type_ids)
    found = dict(zip(INPUTS, tensors, strict=True))
    if "num_choices" in network.axes:
        n_choices = data.draw(st.sampled_from([n for n in range(1, 6) if len(batch.mask) % n == 0]))
        found = {name: each.unflatten(0, (-1, n_choices)) for name, each in found.items()}
    return found


def assert_agrees(run: Run, network: Exportable, inputs: Mapping[str, Tensor]) -> None:
    got = run(inputs)
    with torch.no_grad():
        expected = network.cast("float64")(*inputs.values())
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        assert got[name].dtype == torch.float32
        assert got[name].shape == tensor.shape, name
        assert scaled_error(got[name], tensor) < CLOSE, name


# ---- programs of torch.export


@cache
def a_program(kind: type[Pretrained]) -> tuple[Exportable, Run, dict[str, Any]]:
    network = Exportable(randomised(kind(CONFIG), seed=3))
    program = traced(network, max_length=POSITIONS)
    return network, partial(run_program, program), axes_of(program, network)


# Those of which the outputs and inputs are of different forms; all go to ONNX in slow tests.
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=6)
@given(data=st.data())
def test_program_gives_what_the_network_gives(kind: type[Pretrained], data: st.DataObject) -> None:
    network, run, _ = a_program(kind)
    assert_agrees(run, network, inputs_in(data, network))


def test_outputs_have_the_names_and_axes_of_the_ecosystem() -> None:
    texts, tokens = "batch_size", "sequence_length"
    assert a_program(BertModel)[2] == {
        **dict.fromkeys(INPUTS, (texts, tokens)),
        "last_hidden_state": (texts, tokens, 8),
        "pooler_output": (texts, 8),
    }
    outputs = {
        kind: {name: axes for name, axes in a_program(kind)[2].items() if name not in INPUTS}
        for kind in KINDS
    }
    assert outputs[BertForPreTraining] == {
        "prediction_logits": (texts, tokens, len(VOCAB)), "seq_relationship_logits": (texts, 2),
    }  # fmt: skip
    assert outputs[BertForQuestionAnswering] == {
        "start_logits": (texts, tokens), "end_logits": (texts, tokens),
    }  # fmt: skip
    assert outputs[BertForMultipleChoice] == {"logits": (texts, "num_choices")}


def test_model_without_pooler_has_one_output() -> None:
    model = randomised(BertModel(CONFIG))
    model.pooler = None
    network = Exportable(model)
    program = traced(network, max_length=4)
    assert list(axes_of(program, network)) == [*INPUTS, "last_hidden_state"]


def test_program_refuses_more_tokens_than_it_was_traced_for() -> None:
    program = traced(Exportable(BertModel(CONFIG)), max_length=5)
    inputs = dict.fromkeys(INPUTS, torch.ones(1, 6, dtype=torch.long))
    with pytest.raises(AssertionError, match=r"<= 5"):
        run_program(program, inputs)


def test_tracing_leaves_the_network_as_it_was() -> None:
    network = Exportable(BertModel(CONFIG))
    attends = [layer.attention.attend for layer in network.network.layers]
    program = traced(network, max_length=5, attend=explicit_attention)
    assert [layer.attention.attend for layer in network.network.layers] == attends
    targets = {str(node.target) for node in program.graph.nodes}
    assert not any("scaled_dot_product" in target for target in targets)
    assert any("softmax" in target for target in targets)


# ---- a folder


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding model of every pooling and a dense module, as sentence-transformers has it."""
    folder = tmp_path_factory.mktemp("sentences")
    width = CONFIG.hidden_size * len(POOLINGS)
    dense = DenseStep(folder, width, 10, True, "tanh")
    recipe = Recipe(max_length=32, pooling=tuple(POOLINGS), dense=(dense,))
    torch.manual_seed(0)
    linear = nn.Linear(width, 10)
    model = randomised(BertModel(CONFIG), seed=1)
    Embedder(model, small_tokenizer(folder), recipe, dense=[linear]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def in_onnx(sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, exported."""
    folder = tmp_path_factory.mktemp("exports") / "deeper" / "onnx"
    written = export(sentences, folder, to="onnx")
    assert written.path == folder / "onnx" / "model.onnx"
    assert written.bytes == written.path.stat().st_size
    assert written.checked is not None
    assert written.checked.holds
    return folder


@settings(max_examples=20)
@given(data=st.data())
def test_onnx_gives_what_the_network_gives(
    in_onnx: Path, sentences: Path, data: st.DataObject
) -> None:
    network = open_model(sentences).network
    assert_agrees(opened(in_onnx / "onnx" / "model.onnx"), network, inputs_in(data, network))


def test_onnx_gives_the_vectors_of_the_embedder(in_onnx: Path, sentences: Path) -> None:
    embedder = Embedder.from_pretrained(sentences)
    batch = inputs_of([(text, None) for text in TEXTS], embedder.tokenizer, 32)
    got = opened(in_onnx / "onnx" / "model.onnx")(batch)["sentence_embedding"]
    assert scaled_error(got, torch.from_numpy(embedder.encode(TEXTS))) < CLOSE


def test_onnx_file_is_what_its_users_expect(in_onnx: Path) -> None:
    import onnx

    path = in_onnx / "onnx" / "model.onnx"
    model = onnx.load(path)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 20)]

    def shapes(values: Any) -> dict[str, list[str | int]]:
        return {
            value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in values
        }

    axes = ["batch_size", "sequence_length"]
    assert shapes(model.graph.input) == dict.fromkeys(INPUTS, axes)
    assert shapes(model.graph.output) == {
        "last_hidden_state": ["batch_size", "sequence_length", 8],
        "sentence_embedding": ["batch_size", 10],
    }
    # Neither where this checkout lies nor of which modules it was made.
    content = path.read_bytes()
    assert str(Path(minibert.__file__).parent).encode() not in content
    assert b"stack_trace" not in content
    assert b"test_export" not in content


def test_folder_says_what_goes_in_and_what_comes_out(in_onnx: Path, sentences: Path) -> None:
    said = json.loads((in_onnx / "export.json").read_text())
    axes = ["batch_size", "sequence_length"]
    assert said["inputs"] == {name: {"dtype": "int64", "axes": axes} for name in INPUTS}
    assert said["outputs"] == {
        "last_hidden_state": {"dtype": "float32", "axes": [*axes, 8]},
        "sentence_embedding": {"dtype": "float32", "axes": ["batch_size", 10]},
    }
    assert (said["format"], said["file"], said["opset"]) == ("onnx", "onnx/model.onnx", 20)
    assert (said["network"], said["dtype"], said["max_length"]) == ("BertModel", "float32", 32)
    assert said["recipe"]["pooling"] == list(POOLINGS)
    batches_seen = {tuple(row["shape"]) for row in said["check"]["found"]}
    assert {(1, 1), (2, 32)} <= batches_seen
    # All that sentence-transformers reads, but the weights.
    names = {str(path.relative_to(sentences)) for path in sentences.rglob("*.*")}
    kept = {str(path.relative_to(in_onnx)) for path in in_onnx.rglob("*.*")}
    assert kept == names - {"model.safetensors"} | {"onnx/model.onnx", "export.json"}


def test_head_keeps_how_it_is_asked(tmp_path: Path) -> None:
    model = randomised(BertForSequenceClassification(CONFIG))
    given = PredictionSettings(task="multiclass", max_length=20, temperature=2.0)
    source = save_small(model, tmp_path / "model", given)
    written = export(source, tmp_path / "out", to="torch", max_length=12)
    assert written.checked is not None
    assert max(each.shape[1] for each in written.checked.found) == 12
    kept = PredictionSettings.from_file(tmp_path / "out" / "minibert.json")
    assert (kept.task, kept.max_length, kept.temperature) == ("multiclass", 12, 2.0)
    content = (tmp_path / "out" / "model.pt2").read_bytes()
    assert b"aten.layer_norm" in content  # so that it is not compressed
    assert str(Path(minibert.__file__).parent).encode() not in content
    said = json.loads((tmp_path / "out" / "export.json").read_text())
    assert said["labels"] == ["no", "yes", "maybe"]
    assert said["outputs"] == {"logits": {"dtype": "float32", "axes": ["batch_size", 3]}}


@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("float16", "float64"))],
)
def test_program_is_written_in_other_dtypes(dtype: str, tmp_path: Path) -> None:
    source = save_small(randomised(BertModel(CONFIG)), tmp_path / "model")
    written = export(source, tmp_path / "out", to="torch", dtype=dtype)
    assert written.checked is not None
    said = json.loads((tmp_path / "out" / "export.json").read_text())
    assert {each["dtype"] for each in said["outputs"].values()} == {dtype}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype


def test_model_of_one_token_type_is_checked_on_texts_alone(tmp_path: Path) -> None:
    config = small_config(type_vocab_size=1)
    source = save_small(randomised(BertModel(config)), tmp_path / "model")
    written = export(source, tmp_path / "out", to="torch")
    assert written.checked is not None
    assert written.checked.holds


# ---- the check


class Candidate(NamedTuple):
    """An encoder that was opened, and its program."""

    model: Opened
    program: ExportedProgram
    axes: dict[str, Any]


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    source = save_small(randomised(BertModel(CONFIG)), tmp_path_factory.mktemp("candidate"))
    model = open_model(source)
    program = traced(model.network, max_length=model.max_length)
    return Candidate(model, program, axes_of(program, model.network))


def checked(candidate: Candidate, run: Run, **options: Any) -> Checked:
    return check(run, candidate.model, axes=candidate.axes, dtype="float32", **options)


def pack_of(candidate: Candidate) -> Recording:
    """The candidate's network recorded in float64."""
    inputs = inputs_of([(text, None) for text in TEXTS], candidate.model.tokenizer, 32)
    return record(candidate.model.network.cast("float64").network, inputs)


def test_recording_of_the_same_weights_is_held_against_it(candidate: Candidate) -> None:
    run, pack = partial(run_program, candidate.program), pack_of(candidate)
    found = checked(candidate, run, reference=pack)
    recorded = [each for each in found.found if each.inputs.startswith("recorded by minibert")]
    assert {each.output for each in recorded} == {"last_hidden_state", "pooler_output"}
    assert found.holds
    assert found.notes == []
    pack.stages["pooler"] = pack.stages["pooler"] + 0.01
    wrong = [each for each in checked(candidate, run, reference=pack).found if not each.holds]
    assert [(each.output, each.inputs) for each in wrong] == [
        ("pooler_output", recorded[0].inputs)
    ]  # fmt: skip


def test_recording_without_outputs_is_said_to_be_of_no_use(candidate: Candidate) -> None:
    run, pack = partial(run_program, candidate.program), pack_of(candidate)
    pack.stages = {"embeddings.norm": pack.stages["embeddings.norm"]}
    assert checked(candidate, run, reference=pack).notes == [
        f"{pack.origin}: holds none of the outputs"
    ]


def test_recording_of_other_weights_is_refused(candidate: Candidate, tmp_path: Path) -> None:
    source, batch = candidate.model.name, {"input_ids": torch.full((1, 3), 9)}
    pack = record(randomised(BertModel(CONFIG), seed=5), batch)
    with pytest.raises(ExportError, match="a pack for another checkpoint"):
        export(source, tmp_path / "out", to="torch", reference=pack)
    pack.inputs["input_ids"] += 90
    with pytest.raises(ParityError, match="recorded from another network"):
        export(source, tmp_path / "out", to="torch", reference=pack)


@pytest.mark.parametrize("wrong", [1e-3, float("nan"), float("inf")])
def test_one_number_that_is_off_is_found(candidate: Candidate, wrong: float) -> None:
    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = run_program(candidate.program, inputs)
        if inputs["input_ids"].shape[1] == POSITIONS:
            found["last_hidden_state"][-1, 0, 0] += wrong
        return found

    found = checked(candidate, run)
    (off,) = [each for each in found.found if not each.holds]
    assert found.worst == off
    assert (off.output, off.shape) == ("last_hidden_state", (2, POSITIONS))
    assert off.error == pytest.approx(1e-3 if wrong == 1e-3 else float("inf"), rel=0.01)


def test_padding_does_not_count(candidate: Candidate) -> None:
    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = run_program(candidate.program, inputs)
        found["last_hidden_state"][inputs["attention_mask"] == 0] += 1
        return found

    assert checked(candidate, run).holds


def test_export_that_differs_leaves_nothing(
    candidate: Candidate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source, out = candidate.model.name, tmp_path / "out"
    export(source, out, to="torch", checked=False)
    assert json.loads((out / "export.json").read_text())["check"] is None
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}

    def run(program: ExportedProgram, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: each + 1e-3 for name, each in run_program(program, inputs).items()}

    monkeypatch.setattr(export_folder, "run_program", run)
    command = ["export", source, "--to", "torch", "--output", str(out), "--overwrite"]
    assert cli.main(command) == 1
    printed, err = capfd.readouterr()
    assert printed.count("DIFFERS") == 8
    assert "8 of 8 differ" in printed
    line = err.splitlines()[-1]
    assert line.startswith(f"minibert: {out}: ")
    assert re.search(r"times the noise, expected at most 10 times.*nothing was written", line)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    assert sorted(tmp_path.iterdir()) == [out]


def test_verdict_is_a_multiple_of_the_noise() -> None:
    def found(error: float, noise: float = 1e-7) -> Agreement:
        return Agreement(inputs="a", shape=(2, 3), output="logits", error=error, noise=noise)

    assert found(9.9e-7).holds
    assert not found(1.1e-6).holds
    assert found(0.0, noise=0.0).holds
    assert not found(1e-30, noise=0.0).holds
    assert not found(float("inf"), noise=float("inf")).holds
    assert not Checked([]).holds
    both = Checked([found(5e-7), found(float("inf"))])
    assert not both.holds
    assert both.worst.error == float("inf")
    assert "1 of 2 differ" in str(both)
    assert "all equal: the worst 5 times the noise (logits)" in str(Checked([found(5e-7)]))


# ---- what cannot be done


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": "tflite"}, "got the format 'tflite', expected one of onnx, torch"),
        ({"to": "onnx", "dtype": "bfloat16"}, "got dtype 'bfloat16' for onnx, expected one of"),
        ({"to": "onnx", "opset": 17}, "got opset 17, expected 18 to 23"),
        ({"to": "torch", "opset": 20}, "got opset 20 for torch, expected none"),
        ({"to": "torch", "max_length": 2}, r"got max_length 2, expected 3 .* to 64"),
        ({"to": "torch", "max_length": 65}, r"got max_length 65, expected 3 .* to 64"),
    ],
)
def test_wrong_wishes_are_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    source = save_small(BertModel(CONFIG), tmp_path / "model")
    with pytest.raises(ExportError, match=said):
        export(source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_head_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    source = save_small(BertModel(CONFIG), tmp_path / "model")
    values = json.loads((source / "config.json").read_text())
    values["architectures"] = ["BertForSequenceClassification"]
    (source / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="untrained and what it predicts is chance"):
        export(source, tmp_path / "out", to="torch")


def test_only_an_earlier_export_is_replaced_and_only_when_asked(tmp_path: Path) -> None:
    source = save_small(BertModel(CONFIG), tmp_path / "model")
    with pytest.raises(ExportError, match="holds files of another kind"):
        export(source, source, to="torch", overwrite=True)
    assert (source / "model.safetensors").is_file()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="is a file, expected a folder"):
        export(source, tmp_path / "file", to="torch", overwrite=True)
    out = tmp_path / "out"
    out.mkdir()
    export(source, out, to="torch", checked=False)
    (out / "notes.txt").write_text("of the earlier one")
    with pytest.raises(ExportError, match="holds an export already; --overwrite replaces it"):
        export(source, out, to="torch")
    export(source, out, to="torch", overwrite=True, max_length=9, checked=False)
    assert json.loads((out / "export.json").read_text())["max_length"] == 9
    assert not (out / "notes.txt").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_extra_that_is_missing_is_one_line(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == package else name)
    with pytest.raises(ExportError, match=rf"{package} is not installed.*minibert\[export\]"):
        export(tmp_path, tmp_path / "out", to="onnx")
    if package == "onnxruntime":  # which only the check needs
        onnx_file.check_extra(run=False)


def test_network_that_one_file_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "_MOST_BYTES", 1000)
    network = Exportable(BertModel(CONFIG))
    program = traced(network, max_length=5)
    with pytest.raises(ExportError, match=r"expected at most 1,000.*float16, or with --to torch"):
        onnx_file.write_onnx(
            program, tmp_path / "x", axes=axes_of(program, network), opset=20, name="x"
        )
    assert not (tmp_path / "x").exists()


@pytest.mark.mount
def test_full_disk_is_one_line_and_leaves_the_earlier_export(tmp_path: Path) -> None:
    source = save_small(BertModel(CONFIG), tmp_path / "model")
    with small_disk(tmp_path / "disk", size=200_000) as disk:
        export(source, disk / "out", to="torch", checked=False)
        earlier = {path: path.read_bytes() for path in (disk / "out").rglob("*.*")}
        config = BertConfig.from_dict({**CONFIG.to_dict(), "intermediate_size": 9000})
        larger = save_small(BertModel(config), tmp_path / "larger")
        with pytest.raises(ExportError, match=r"cannot be written: OSError.*No space left"):
            export(larger, disk / "out", to="torch", overwrite=True)
        assert {path: path.read_bytes() for path in disk.rglob("*.*")} == earlier


# ---- the command


def test_command_prints_a_table_and_where_it_went(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = save_small(randomised(BertForTokenClassification(CONFIG)), tmp_path / "model")
    out = tmp_path / "out"
    capfd.readouterr()
    assert cli.main(["export", str(source), "--to", "torch", "--output", str(out)]) == 0
    printed, progress = capfd.readouterr()
    lines = printed.splitlines()
    assert lines[0].split() == [
        "inputs",
        "shape",
        "output",
        "max",
        "error",
        "×",
        "noise",
        "verdict",
    ]
    assert len([line for line in lines if line.endswith("equal")]) == 4
    assert lines[-2].startswith("all equal: the worst")
    size = (out / "model.pt2").stat().st_size
    assert lines[-1] == f"{out / 'model.pt2'}: {size:,} bytes"
    assert [line.split()[0] for line in progress.splitlines()] == [
        "opening", "tracing", "writing", "running",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "--to", "torch"], "nowhere"),
        (["{model}", "--to", "tflite"], "'tflite' is not one of 'onnx', 'torch'"),
        (["{model}"], "Missing option '--to'"),
        (["{model}", "--to", "onnx", "--dtype", "float64"], "got dtype 'float64' for onnx"),
        (["{model}", "--to", "torch", "--reference", "no.safetensors"], "there is no such file"),
        (["{model}", "--to", "torch", "--reference", "x", "--no-check"], "expected one of them"),
    ],
)
def test_command_refuses_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = save_small(BertModel(CONFIG), tmp_path / "model")
    given = [each.format(model=source) for each in arguments]
    capfd.readouterr()
    assert cli.main(["export", *given, "--output", str(tmp_path / "out"), "--offline"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if not line.startswith("opening")]
    assert line.startswith("minibert: ")
    assert said in line
    assert not (tmp_path / "out").exists()


# ---- slow: other processes, every head and version, the real checkpoint

ALONE = {
    "torch": """
import sys, torch
sys.modules["minibert"] = None
from safetensors.torch import load_file
inputs = load_file(sys.argv[2])
program = torch.export.load(sys.argv[1] + "/model.pt2")
with torch.no_grad():
    found = program.module()(**{name: inputs[name] for name in inputs if name != "expected"})
print(float((found["logits"] - inputs["expected"]).abs().max()))
""",
    "onnx": """
import sys, onnxruntime
sys.modules["minibert"] = sys.modules["torch"] = None
from safetensors.numpy import load_file
inputs = load_file(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1] + "/onnx/model.onnx")
given = {each.name: inputs[each.name] for each in session.get_inputs()}
print(float(abs(session.run(["logits"], given)[0] - inputs["expected"]).max()))
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("to", ALONE)
def test_another_process_runs_it_without_minibert(to: str, tmp_path: Path) -> None:
    model = randomised(BertForTokenClassification(CONFIG)).eval()
    source = save_small(model, tmp_path / "model")
    export(source, tmp_path / "out", to=to)
    texts = [(" ".join(WORDS[:n]), None) for n in (2, 9, 5)]
    inputs = inputs_of(texts, small_tokenizer(tmp_path), 32)
    with torch.no_grad():
        expected = model(*(inputs[name] for name in INPUTS)).logits
    save_file({**inputs, "expected": expected}, tmp_path / "inputs.safetensors")
    command = [sys.executable, "-c", ALONE[to], str(tmp_path / "out")]
    result = subprocess.run(
        [*command, str(tmp_path / "inputs.safetensors")],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("kind", [BertModel, *HEADS], ids=lambda kind: kind.__name__)
def test_every_network_goes_to_onnx(kind: type[Pretrained], tmp_path: Path) -> None:
    source = save_small(randomised(kind(CONFIG), seed=2), tmp_path / "model")
    export(source, tmp_path / "out", to="onnx")
    network, run = open_model(source).network, opened(tmp_path / "out" / "onnx" / "model.onnx")

    @settings(max_examples=15)
    @given(data=st.data())
    def agrees(data: st.DataObject) -> None:
        assert_agrees(run, network, inputs_in(data, network))

    agrees()


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 19, 21, 22, 23])
def test_every_opset_runs(opset: int, sentences: Path, tmp_path: Path) -> None:
    import onnx

    written = export(sentences, tmp_path / "out", to="onnx", opset=opset)
    assert written.checked is not None
    assert [each.version for each in onnx.load(written.path).opset_import] == [opset]


@pytest.mark.slow
def test_same_model_gives_the_same_bytes(in_onnx: Path, sentences: Path, tmp_path: Path) -> None:
    again = export(sentences, tmp_path / "out", to="onnx")
    assert again.path.read_bytes() == (in_onnx / "onnx" / "model.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "dtype"), [("onnx", "float32"), ("onnx", "float16"), ("torch", "float32")]
)
def test_real_checkpoint_agrees_with_the_original(
    to: str, dtype: str, minilm: Path, tmp_path: Path
) -> None:
    written = export(minilm, tmp_path / "out", to=to, dtype=dtype)
    assert written.checked is not None
    recorded = [each for each in written.checked.found if each.inputs.startswith("recorded by")]
    assert {each.output for each in recorded} == {"last_hidden_state", "sentence_embedding"}
    assert "transformers" in recorded[0].inputs
    weights = (minilm / "model.safetensors").stat().st_size
    assert written.bytes < (1.02 if dtype == "float32" else 0.52) * weights
