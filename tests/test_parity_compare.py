"""The comparison: wrong models are found out, right ones are never accused."""

import copy
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from strategies import Batch, networks, randomised
from student import student
from torch import Tensor

import minibert
from minibert import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    cli,
    explicit_attention,
    read_pack,
    set_attention,
)
from minibert.checkpoint import to_disk
from minibert.errors import ParityError
from minibert.parity.compare import compare
from minibert.parity.comparison_page import page, write_page
from minibert.parity.recording import Recording, record
from minibert.parity.result import Comparison

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
@settings(max_examples=12)
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


@pytest.mark.slow
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


def test_several_mistakes_are_told_apart_in_one_run(references: Any) -> None:
    model, reference = references[torch.float32, False]
    found = the_student(model, reference.inputs, wrong="no scale", at=0)
    for wrong, at in (("relu", 1), ("no down bias", 2)):
        other = the_student(model, reference.inputs, wrong=wrong, at=at)
        found |= {name: t for name, t in other.items() if name.startswith(f"layers.{at}.")}
    comparison = compare(found, reference, model=model)
    causes = {(f.stage, f.cause.name) for f in comparison.faults if f.cause is not None}
    assert {
        ("layers.0.scores", "missing scale"),
        ("layers.1.activation", "ReLU"),
        ("layers.2.feed_forward_output", "missing bias"),
    } <= causes


@pytest.mark.parametrize(
    ("wrong", "at", "cause"),
    [
        ("tanh gelu", None, "tanh GELU"),
        ("no mask", None, "missing mask"),
        ("types swapped", None, "token types swapped"),
        ("eps 1e-3", None, "LayerNorm with eps 0.001"),
        ("no scale", None, "missing scale"),
    ],
)
def test_cause_is_found_from_the_last_hidden_states_alone(
    references: Any, wrong: str, at: int | None, cause: str
) -> None:
    last = f"layers.{CONFIG.num_hidden_layers - 1}.feed_forward_norm"
    comparison = diagnosed(references, torch.float32, lambda name: name == last, wrong=wrong, at=at)
    assert comparison.first is not None
    assert comparison.first.stage == last
    assert comparison.cause is not None
    assert comparison.cause.name == cause
    # 42 stages lead there, and the one in the middle would halve the search.
    assert len(comparison.first.between) == 40
    assert comparison.dump_next == [comparison.first.between[20]]


def test_cause_within_one_unrecorded_layer_is_found(references: Any) -> None:
    comparison = diagnosed(
        references,
        torch.float32,
        lambda name: name.endswith("feed_forward_norm"),
        wrong="transposed output",
        at=1,
    )
    assert comparison.first is not None
    assert comparison.first.stage == "layers.1.feed_forward_norm"
    assert comparison.cause is not None
    assert comparison.cause.name == "transposed weights"
    assert [f.stage for f in comparison.faults] == ["layers.1.feed_forward_norm"]


def test_cause_unknown_to_the_table_is_told_by_its_signs(references: Any) -> None:
    model, reference = references[torch.float32, False]
    right = the_student(model, reference.inputs)

    def cause(stage: str, change: Callable[[Tensor], Tensor]) -> str | None:
        found = compare(right | {stage: change(right[stage])}, reference, model=model).cause
        return None if found is None else found.name

    assert cause("layers.1.feed_forward_output", lambda x: x + x.new_ones(48)) == "another bias"
    scale = torch.linspace(0.5, 2, 48)
    assert cause("layers.1.attention_norm", lambda x: x * scale) == "another scale"
    assert cause("layers.2.activation", lambda x: x.half().float()) == "rounded to float16"
    nan = torch.full((), torch.nan)
    assert cause("layers.0.probabilities", lambda x: x * nan) == "NaN or infinity"
    noise = torch.randn(right["layers.0.context"].shape)
    assert cause("layers.0.context", lambda x: x + noise) is None


def test_padding_is_compared_by_itself(references: Any) -> None:
    model, reference = references[torch.float32, False]
    found = the_student(model, reference.inputs)
    last = f"layers.{CONFIG.num_hidden_layers - 1}.feed_forward_norm"
    found[last] = found[last].masked_fill(~reference.mask[..., None], 9.0)
    comparison = compare(found, reference, model=model)
    assert comparison.equal
    result = next(r for r in comparison.results if r.stage == last)
    assert result.padding is not None
    assert result.padding > 1 > result.max_abs


def test_figures_of_a_stage_are_as_worked_by_hand(references: Any) -> None:
    model, reference = references[torch.float32, False]
    found = {name: tensor.clone() for name, tensor in reference.stages.items()}
    stage = found["layers.1.attention_output"]
    count = int(reference.mask.sum()) * CONFIG.hidden_size
    stage[0, 0, 0] += 0.5
    stage[0, 1] = -stage[0, 1]
    expected = reference.stages["layers.1.attention_output"]
    largest = float(expected[reference.mask].abs().max())
    error = (stage - expected).abs()
    comparison = compare(found, reference, model=model)
    result = next(r for r in comparison.results if r.stage == "layers.1.attention_output")
    assert result.max_abs == pytest.approx(float(error.max()))
    assert result.mean_abs == pytest.approx(float(error.sum()) / count)
    assert result.relative == pytest.approx(float(error.max()) / largest)
    assert result.cosine == pytest.approx(-1)
    assert result.ulp == 0  # the median: nearly all are equal
    assert comparison.errors["layers.1.attention_output"].shape == reference.mask.shape
    assert comparison.first is result
    # What comes behind was recorded right: it does not follow from this, and is accused.
    assert [r.stage for r in comparison.faults] == [
        "layers.1.attention_output",
        "layers.1.attention_norm",
    ]


# ---- refusals


def refusal(*arguments: Any, **named: Any) -> str:
    with pytest.raises(ParityError) as caught:
        compare(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pack_for_another_checkpoint_is_refused(references: Any, tmp_path: Path) -> None:
    _, reference = references[torch.float32, False]
    other = randomised(BertModel(CONFIG), seed=6).eval()
    said = refusal(other, reference)
    assert said.startswith("minibert 0.1.0: 55 of 55 tensors differ from those of minibert 0.1.0")
    assert said.endswith("a pack for another checkpoint; record one for this")
    smaller = BertModel(replace(CONFIG, num_hidden_layers=2))
    smaller.save_pretrained(tmp_path / "smaller")
    assert refusal(tmp_path / "smaller", reference).startswith(
        f"{tmp_path / 'smaller'}: has num_hidden_layers 2, but minibert"
    )
    other.save_pretrained(tmp_path / "other")
    assert "is not the checkpoint of" in refusal(
        dict(reference.stages), reference, model=tmp_path / "other"
    )


def test_one_tensor_that_differs_is_named(references: Any) -> None:
    model, reference = references[torch.float32, False]
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.layers[1].feed_forward.down.bias += 0.5
    comparison = compare(other, reference, model=model)
    assert comparison.notes == ["weights differ: encoder.layer.1.output.dense.bias"]
    assert comparison.first is not None
    assert comparison.first.stage == "layers.1.feed_forward_output"
    assert comparison.cause is not None
    assert comparison.cause.name == "another bias"


def test_other_inputs_are_refused(references: Any) -> None:
    model, reference = references[torch.float32, False]
    shorter = {name: tensor[:, :8] for name, tensor in reference.inputs.items()}
    said = refusal(record(model, shorter, noise=False), reference)
    assert "input_ids has shape (6, 8), expected (6, 16), that of minibert" in said
    others = reference.inputs | {"input_ids": reference.inputs["input_ids"].roll(1, 0)}
    assert "input_ids are not those of" in refusal(record(model, others, noise=False), reference)
    cut = {name: tensor[:, :8] for name, tensor in reference.stages.items() if "norm" in name}
    assert "(another sequence length?)" in refusal(cut, reference)


def test_stages_that_the_network_lacks_are_refused(references: Any) -> None:
    _, reference = references[torch.float32, False]
    stage = reference.stages["layers.0.q"]
    assert "holds layers.7.q, which the reference's network has no stage for" in refusal(
        {"layers.7.q": stage}, reference
    )
    assert "has no stage of minibert" in refusal({"predictions.transform": stage}, reference)


def test_other_dtype_is_said_and_judged_by_its_noise(references: Any) -> None:
    model, reference = references[torch.float32, False]
    half = record(copy.deepcopy(model).bfloat16(), reference.inputs, noise=False)
    comparison = compare(half, reference, model=model)
    assert comparison.equal
    assert comparison.dtype == "bfloat16"
    assert comparison.notes == [
        "the candidate is bfloat16, the reference float32: judged by the noise of the coarser"
    ]


def test_inputs_that_a_network_cannot_take_are_refused(references: Any) -> None:
    model, reference = references[torch.float32, False]

    def with_inputs(**changes: Tensor) -> Recording:
        return replace(reference, inputs=reference.inputs | changes, config=None, parameters={})

    ids, types = reference.inputs["input_ids"], reference.inputs["token_type_ids"]
    said = "minibert 0.1.0: input_ids hold 60, expected 0 to 59: it was recorded from another"
    assert said in refusal(model, with_inputs(input_ids=ids + (ids == ids.max())))
    assert said in refusal(
        dict(reference.stages), with_inputs(input_ids=ids + (ids == ids.max())), model=model
    )
    assert "input_ids hold -1, expected 0 to 59" in refusal(model, with_inputs(input_ids=ids - 1))
    assert "token_type_ids hold 2" in refusal(model, with_inputs(token_type_ids=types + 1))
    long = {name: tensor.repeat(1, 2) for name, tensor in reference.inputs.items()}
    assert "has sequences of 32 tokens, expected at most 24" in refusal(model, with_inputs(**long))


def test_foreign_names_of_layers_are_refused(references: Any) -> None:
    _, reference = references[torch.float32, False]
    stage = reference.stages["layers.0.q"]
    for name in ("layers.x.q", "layers.0", "layers.", "layers.99999999999.q", "layers.-1.q"):
        odd = replace(reference, stages={"layers.0.q": stage, name: stage})
        assert f"holds {name}, which" in refusal(dict(reference.stages), odd)


def test_network_as_reference_is_refused(references: Any) -> None:
    model, _ = references[torch.float32, False]
    assert "expected a recording of it" in refusal(model, model)


def test_without_weights_stages_are_compared_all_the_same(references: Any) -> None:
    model, reference = references[torch.float32, False]
    found = the_student(model, reference.inputs, wrong="relu", at=1)
    comparison = compare(found, reference)
    assert comparison.first is not None
    assert comparison.first.stage == "layers.1.activation"
    assert comparison.first.local is None
    assert comparison.cause is None
    assert "no weights of the reference at hand" in comparison.notes[0]


# ---- heads


def test_heads_are_compared_to_their_logits() -> None:
    inputs = batch_of()
    for name in minibert.__all__:
        if not name.startswith("BertFor"):
            continue
        model = randomised(getattr(minibert, name)(CONFIG), seed=2).eval()
        reference = record(model, inputs)
        double = record(copy.deepcopy(model).double(), inputs, noise=False)
        comparison = compare(double, reference, model=model)
        assert comparison.equal, comparison.first
        assert "logits" in comparison.results[-1].stage


@pytest.mark.parametrize("tied", [True, False])
def test_decoder_of_masked_lm_is_diagnosed(tied: bool) -> None:
    config = replace(CONFIG, tie_word_embeddings=tied)
    model = randomised(BertForMaskedLM(config), seed=2).eval()
    reference = record(model, batch_of())
    wrong = dict(reference.stages)
    transformed = wrong["predictions.transform"]
    with torch.no_grad():
        words = transformed @ model.bert.embeddings.token.weight.T
        if tied:
            wrong["logits"], cause = words, "missing bias"
        else:
            assert model.predictions.decoder is not None
            wrong["logits"] = words + model.predictions.decoder.bias
            cause = "decoder tied to the embeddings"
    comparison = compare(wrong, reference, model=model)
    assert [(f.stage, f.cause.name) for f in comparison.faults if f.cause] == [("logits", cause)]


def test_logits_behind_a_wrong_pooler_are_not_accused() -> None:
    model = randomised(BertForSequenceClassification(CONFIG), seed=2).eval()
    reference = record(model, batch_of())
    wrong = dict(reference.stages)
    with torch.no_grad():
        wrong["pooler"] = wrong["pooler"].atanh()
        wrong["logits"] = model.classifier(wrong["pooler"])
    comparison = compare(wrong, reference, model=model)
    assert [f.stage for f in comparison.faults] == ["pooler"]
    assert comparison.results[-1].stage == "logits"
    assert comparison.results[-1].verdict == "inherits"


# ---- the report


def test_report_names_the_stage_the_cause_and_the_remedy(references: Any) -> None:
    comparison = diagnosed(references, torch.float32, wrong="tanh gelu", at=1)
    report = str(comparison)
    assert "first: layers.1.activation\n" in report
    assert "cause: tanh GELU (explains it, " in report
    assert 'mend:  hidden_act "gelu" is the exact erf form' in report
    values = json.loads(comparison.to_json())
    assert values["first"] == "layers.1.activation"
    assert values["cause"]["name"] == "tanh GELU"
    assert not values["equal"]
    assert len(values["stages"]) == len(comparison.results)
    model, reference = references[torch.float32, False]
    right = compare(model, reference)
    assert "stages compared in float32: all equal, the worst" in str(right)
    assert json.loads(right.to_json())["equal"] is True


def test_page_holds_all_of_it_and_needs_nothing_else(references: Any, tmp_path: Path) -> None:
    model, reference = references[torch.float32, False]
    found = record(model, reference.inputs, noise=False)
    found.stages = the_student(model, reference.inputs, wrong="tanh gelu", at=1)
    found.origin = "<script>alert(1)</script>"
    comparison = compare(found, reference, model=model)
    write_page(comparison, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "First difference: layers.1.activation" in text
    assert "tanh GELU" in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert not re.search(r"(src|href)=|https?://|@import|url[(]", text)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</', text)[1])
    assert list(data["stages"]) == [result.stage for result in comparison.results]
    assert data["faults"] == ["layers.1.activation"]
    assert data["attended"] == reference.mask.tolist()
    cells = torch.tensor(data["stages"]["layers.1.activation"])
    assert cells.shape == reference.mask.shape
    assert cells[reference.mask].min() > 1  # more than ten times the noise at every token
    assert "Equal at every stage" in page(compare(model, reference))
    with pytest.raises(ParityError, match="cannot be written"):
        write_page(comparison, tmp_path / "no" / "page.html")


# ---- the command line


@pytest.fixture(scope="module")
def minilm_pack(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "pack.safetensors"
    assert cli.main(["parity", "record", "--model", str(minilm), "--output", str(path)]) == 0
    return path


def test_recorded_checkpoint_compares_equal_with_itself(
    minilm: Path, minilm_pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["parity", "compare", str(minilm), str(minilm_pack)]) == 0
    assert "78 stages compared in float32: all equal" in capsys.readouterr().out


def test_config_with_the_other_gelu_is_found_out(
    minilm: Path, minilm_pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in minilm.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path.resolve())
    values = json.loads((minilm / "config.json").read_text()) | {"hidden_act": "gelu_new"}
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(values))
    options = ["--html", str(tmp_path / "page.html")]
    assert cli.main(["parity", "compare", str(tmp_path), str(minilm_pack), *options]) == 1
    assert "[CLS]" in (tmp_path / "page.html").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert "config.json differs: hidden_act is 'gelu_new', the reference's 'gelu'" in said
    assert "first: layers.0.activation\n" in said
    assert "cause: tanh GELU (explains it" in said


def test_record_takes_texts_pairs_stages_and_every_nth(
    minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("one text\na pair\tits second\n")
    path = tmp_path / "small.safetensors"
    options = ["--input", str(tmp_path / "in.txt"), "--stages", "*.context", "--every", "8"]
    command = ["parity", "record", "--model", str(minilm), "--output", str(path), *options]
    assert cli.main(command) == 0
    assert "6 stages of 2 texts" in capsys.readouterr().out
    pack = read_pack(path)
    assert pack.tokens[1][:3] == ["[CLS]", "a", "pair"]
    assert pack.inputs["token_type_ids"][1].sum() == 3
    assert pack.stages["layers.0.context"].shape == (2, 7, 12, 4)
    assert path.stat().st_size < 40_000
    assert cli.main(["parity", "compare", str(minilm), str(path)]) == 0


def test_command_refuses_in_one_line(
    minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"12345678")
    assert cli.main(["parity", "compare", str(minilm), str(torn)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"minibert: {torn}: cannot be read as safetensors")
    assert said.count("\n") == 1
    absent = str(tmp_path / "absent.safetensors")
    assert cli.main(["parity", "compare", str(minilm), absent]) == 2
    said = capsys.readouterr().err
    assert said == f"minibert: {absent}: there is no such file, expected a parity pack\n"
    options = ["--model", str(minilm), "--output", str(tmp_path / "x"), "--stages", "nothing"]
    assert cli.main(["parity", "record", *options]) == 2
    assert "no stage of this network is called 'nothing'" in capsys.readouterr().err
