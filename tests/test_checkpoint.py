"""Checkpoints: the name table row by row, what loads and what is refused, saving, round trips."""

import errno
import json
import logging
import math
import os
import re
import resource
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from strategies import (
    TINY,
    WEIGHTS,
    configs,
    randomised,
    unchanged_random,
    write_checkpoint,
)
from torch import Tensor, nn

from minibert import checkpoint
from minibert.checkpoint import DTYPES, LoadReport, disk_names, from_disk, initialise, to_disk
from minibert.config import BertConfig
from minibert.errors import CheckpointError, ConfigError, WeightsError
from minibert.heads import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from minibert.model import BertModel

CLASSES: tuple[type[Any], ...] = (
    BertModel,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
ONE = replace(TINY, num_hidden_layers=1)
HIDDEN = replace(ONE, classifier_hidden_size=5)
CLASSIFIERS = (BertForSequenceClassification, BertForTokenClassification)
EVERY_CLASS = pytest.mark.parametrize("kind", CLASSES)

# What files of bert-base say, and what these names are here.
TABLE = {
    "embeddings.token.weight": ["embeddings.word_embeddings.weight"],
    "embeddings.token_type.weight": ["embeddings.token_type_embeddings.weight"],
    "embeddings.position.weight": ["embeddings.position_embeddings.weight"],
    "embeddings.norm.weight": ["embeddings.LayerNorm.weight"],
    "embeddings.norm.bias": ["embeddings.LayerNorm.bias"],
    "layers.3.attention.qkv.weight": [
        "encoder.layer.3.attention.self.query.weight",
        "encoder.layer.3.attention.self.key.weight",
        "encoder.layer.3.attention.self.value.weight",
    ],
    "layers.11.attention.qkv.bias": [
        "encoder.layer.11.attention.self.query.bias",
        "encoder.layer.11.attention.self.key.bias",
        "encoder.layer.11.attention.self.value.bias",
    ],
    "layers.0.attention.output.weight": ["encoder.layer.0.attention.output.dense.weight"],
    "layers.0.attention_norm.weight": ["encoder.layer.0.attention.output.LayerNorm.weight"],
    "layers.0.feed_forward.up.bias": ["encoder.layer.0.intermediate.dense.bias"],
    "layers.0.feed_forward.down.weight": ["encoder.layer.0.output.dense.weight"],
    "layers.0.feed_forward_norm.bias": ["encoder.layer.0.output.LayerNorm.bias"],
    "pooler.dense.weight": ["pooler.dense.weight"],
    "predictions.dense.weight": ["cls.predictions.transform.dense.weight"],
    "predictions.norm.bias": ["cls.predictions.transform.LayerNorm.bias"],
    "predictions.decoder.weight": ["cls.predictions.decoder.weight"],
    "predictions.bias": ["cls.predictions.bias"],
    "next_sentence.weight": ["cls.seq_relationship.weight"],
    "classifier.bias": ["classifier.bias"],
    "classifier.hidden.weight": ["classifier.hidden.weight"],
    "classifier.output.bias": ["classifier.output.bias"],
    "spans.weight": ["qa_outputs.weight"],
    "bert.embeddings.token.weight": ["bert.embeddings.word_embeddings.weight"],
    "bert.pooler.dense.bias": ["bert.pooler.dense.bias"],
    "bert.layers.12.attention.qkv.bias": [
        "bert.encoder.layer.12.attention.self.query.bias",
        "bert.encoder.layer.12.attention.self.key.bias",
        "bert.encoder.layer.12.attention.self.value.bias",
    ],
}


def a_model(kind: type[Any] = BertModel, config: BertConfig = ONE, seed: int = 0) -> Any:
    return randomised(kind(config), seed=seed).eval()


def disk_state(kind: type[Any] = BertModel, config: BertConfig = ONE) -> dict[str, Tensor]:
    """A random network's tensors under their names in a file."""
    return {
        name: tensor.clone() for name, tensor in to_disk(a_model(kind, config).state_dict()).items()
    }


def renamed(state: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {re.sub(old, new, name): tensor for name, tensor in state.items()}


def refusal(folder: Path, kind: type[Any] = BertModel, **arguments: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        kind.from_pretrained(folder, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def same_parameters(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- the name table


@pytest.mark.parametrize("name", TABLE)
def test_disk_names_are_those_of_the_ecosystem(name: str) -> None:
    assert disk_names(name) == tuple(TABLE[name])


@pytest.mark.parametrize("name", ["pooler.weight", "layers.0.norm.weight", "x.bias"])
def test_disk_names_of_unknown_parameters_are_a_bug_here(name: str) -> None:
    with pytest.raises(KeyError, match=f"the name table has no row for {name}"):
        disk_names(name)


def test_bert_base_has_199_tensors_in_a_file() -> None:
    with torch.device("meta"):
        model = BertModel(BertConfig())
    names = [name for ours in model.state_dict() for name in disk_names(ours)]
    assert len(names) == len(set(names)) == 199


def test_to_disk_splits_the_fused_projection_in_the_order_query_key_value() -> None:
    weight = torch.arange(6.0).view(6, 1)
    parts = to_disk({"layers.0.attention.qkv.weight": weight})
    assert [value.flatten().tolist() for value in parts.values()] == [[0, 1], [2, 3], [4, 5]]
    assert [name.split(".")[-2] for name in parts] == ["query", "key", "value"]


@EVERY_CLASS
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("width", [None, 5])
def test_from_disk_is_the_inverse_of_to_disk(
    kind: type[Any], tied: bool, width: int | None
) -> None:
    config = replace(TINY, tie_word_embeddings=tied, classifier_hidden_size=width)
    state = a_model(kind, config).state_dict()
    again = from_disk(to_disk(state), list(state))
    assert list(again) == list(state)
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_initialise_sets_only_what_it_is_told_to() -> None:
    model = a_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    chosen = ["embeddings.token.weight", "embeddings.norm.weight", "pooler.dense.bias"]
    torch.manual_seed(0)
    initialise(model, std=100.0, only=chosen)
    after = model.state_dict()
    assert bool((after["embeddings.norm.weight"] == 1).all())
    assert bool((after["pooler.dense.bias"] == 0).all())
    assert 50 < after["embeddings.token.weight"].std().item() < 150
    untouched = before.keys() - set(chosen)
    assert all(torch.equal(before[name], after[name]) for name in untouched)


# ---- what loads


@EVERY_CLASS
def test_checkpoint_gives_the_network_that_was_saved(tmp_path: Path, kind: type[Any]) -> None:
    model = a_model(kind)
    model.save_pretrained(tmp_path)
    again = kind.from_pretrained(tmp_path)
    assert type(again) is kind
    assert again.config == model.config
    assert same_parameters(again, model)
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())
    report = again.load_report
    assert report == LoadReport(
        folder=tmp_path, loaded=tuple(sorted(to_disk(model.state_dict()))), dtype="float32"
    )


def test_checkpoint_is_named_by_a_string_too(tmp_path: Path) -> None:
    model = a_model()
    model.save_pretrained(str(tmp_path))
    assert same_parameters(BertModel.from_pretrained(str(tmp_path)), model)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", DTYPES)
def test_checkpoint_loads_in_the_dtype_asked_for(tmp_path: Path, dtype: str, stored: str) -> None:
    state = {name: tensor.to(DTYPES[stored]) for name, tensor in disk_state().items()}
    write_checkpoint(tmp_path, state, ONE)
    model = BertModel.from_pretrained(tmp_path, dtype=dtype)
    assert model.load_report is not None
    assert model.load_report.dtype == dtype
    for name, tensor in to_disk(model.state_dict()).items():
        assert tensor.dtype == DTYPES[dtype], name
        assert torch.equal(tensor, state[name].to(DTYPES[dtype])), name


def test_checkpoint_loads_as_float32_unless_told(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {n: t.half() for n, t in disk_state().items()}, ONE)
    model = BertModel.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", ["int4", "float", "torch.float32", ""])
def test_unknown_dtype_is_refused(tmp_path: Path, dtype: str) -> None:
    a_model().save_pretrained(tmp_path)
    names = ["float32", "bfloat16", "float16", "float64", "int8", "int16"]
    assert refusal(tmp_path, dtype=dtype) == f"got dtype {dtype!r}, expected one of {names}"


def test_checkpoint_goes_to_the_device_asked_for(tmp_path: Path) -> None:
    a_model().save_pretrained(tmp_path)
    model = BertForSequenceClassification.from_pretrained(tmp_path, device="meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_from_pretrained_hands_the_pins_of_a_name_on(tmp_path: Path) -> None:
    a_model().save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="SHA-256"):
        BertModel.from_pretrained(tmp_path, sha256="0" * 64)
    with pytest.raises(WeightsError, match="revision"):
        BertModel.from_pretrained(tmp_path, revision="main")


def test_from_pretrained_stays_offline_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def resolve(name: str, **arguments: object) -> Path:
        asked.update(arguments, name=name)
        raise WeightsError("not here")

    monkeypatch.setattr(checkpoint, "resolve", resolve)
    with pytest.raises(WeightsError):
        BertModel.from_pretrained("owner/name", offline=True, revision="r", sha256="s")
    assert asked == {"name": "owner/name", "offline": True, "revision": "r", "sha256": "s"}
    with pytest.raises(WeightsError):
        BertModel.from_pretrained("name")
    assert asked == {"name": "name", "offline": False, "revision": None, "sha256": None}


def test_broken_config_is_refused_before_the_weights_are_opened(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_act": "swish"}')
    with pytest.raises(ConfigError, match=r"config\.json: hidden_act is 'swish', expected one of"):
        BertModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("key", ["vocab_size", "intermediate_size"])
def test_sizes_beyond_any_memory_are_refused(tmp_path: Path, key: str) -> None:
    a_model().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {key: 10**30}))
    with pytest.raises((CheckpointError, ConfigError)):
        BertModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("file_prefix", ["", "bert."])
@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM, BertForSequenceClassification])
def test_encoder_is_found_with_and_without_prefix(
    tmp_path: Path, kind: type[Any], file_prefix: str
) -> None:
    encoder = a_model()
    state = renamed(to_disk(encoder.state_dict()), "^", file_prefix)
    write_checkpoint(tmp_path, {name: tensor.clone() for name, tensor in state.items()}, ONE)
    model = kind.from_pretrained(tmp_path)
    found = model if kind is BertModel else model.bert
    if kind is BertForMaskedLM:
        encoder.pooler = None
    assert same_parameters(found, encoder)
    assert model.load_report.legacy == {}


def test_old_names_of_layer_norm_are_read(tmp_path: Path) -> None:
    old = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
    state = disk_state()
    for new, name in old.items():
        state = renamed(state, f"{new}$", name)
    assert "embeddings.LayerNorm.gamma" in state
    write_checkpoint(tmp_path, state, ONE)
    model = BertModel.from_pretrained(tmp_path)
    assert same_parameters(model, a_model())
    report = model.load_report
    assert report is not None
    assert set(report.loaded) == set(state)
    assert report.legacy == {
        f"{stem}.LayerNorm.{old}": f"{stem}.LayerNorm.{new}"
        for stem in ("embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output")
        for old, new in (("gamma", "weight"), ("beta", "bias"))
    }


def test_old_names_of_layer_norm_are_read_with_prefix(tmp_path: Path) -> None:
    state = renamed(disk_state(), "^", "bert.")
    state["bert.embeddings.LayerNorm.gamma"] = state.pop("bert.embeddings.LayerNorm.weight")
    write_checkpoint(tmp_path, state, ONE)
    model = BertModel.from_pretrained(tmp_path)
    assert same_parameters(model, a_model())
    assert model.load_report is not None
    assert model.load_report.legacy == {
        "bert.embeddings.LayerNorm.gamma": "embeddings.LayerNorm.weight"
    }


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_buffers_of_old_files_are_ignored_and_said(tmp_path: Path, prefix: str) -> None:
    state = renamed(disk_state(), "^", prefix)
    state[f"{prefix}embeddings.position_ids"] = torch.arange(8)[None]
    state[f"{prefix}embeddings.token_type_ids"] = torch.zeros(1, 8, dtype=torch.long)
    write_checkpoint(tmp_path, state, ONE)
    report = BertModel.from_pretrained(tmp_path).load_report
    assert report is not None
    assert report.ignored == {
        f"{prefix}embeddings.position_ids": "buffer of old files: the column numbers",
        f"{prefix}embeddings.token_type_ids": "buffer of old files: zeros",
    }


@pytest.mark.parametrize(
    "name",
    [
        "xembeddings.position_ids",
        "embeddings.position_ids2",
        "embeddings.position_embedding",
        "encoder.layer.1.output.dense.weight",
        "encoder.layer.0.attention.self.distance_embedding.weight",
        "pooler.dense.weight2",
        "pooler.bias",
        "cls",
        "lm_head.weight",
        "bert.bert.pooler.dense.weight",
    ],
)
def test_unexpected_tensors_are_refused(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path, disk_state() | {name: torch.zeros(1)}, ONE)
    assert refusal(tmp_path) == (
        f"{tmp_path}: holds {name}, for which BertModel has no place; the file is of another "
        "network, or one that was changed"
    )


@pytest.mark.parametrize(("count", "more"), [(5, ""), (6, " and 1 more"), (8, " and 3 more")])
def test_many_unexpected_tensors_are_counted(tmp_path: Path, count: int, more: str) -> None:
    unexpected = {f"x.{index}": torch.zeros(1) for index in range(count)}
    write_checkpoint(tmp_path, disk_state() | unexpected, ONE)
    assert f": holds x.0, x.1, x.2, x.3, x.4{more}, for which" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.word_embeddings.weight",
        "encoder.layer.0.attention.self.key.weight",
        "encoder.layer.0.attention.self.value.bias",
        "encoder.layer.0.output.LayerNorm.bias",
        "pooler.dense.bias",
    ],
)
def test_missing_encoder_tensor_is_refused(tmp_path: Path, name: str) -> None:
    state = disk_state()
    del state[name]
    write_checkpoint(tmp_path, state, ONE)
    assert refusal(tmp_path) == (
        f"{tmp_path}: lacks {name}; expected every tensor of BertModel, so the file is incomplete "
        "or of another network"
    )


def test_missing_layers_are_counted(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, disk_state(), TINY)
    assert re.search(
        r": lacks encoder\.layer\.1\.attention\.self\.query\.weight, .* and 11 more; expected",
        refusal(tmp_path),
    )


def test_missing_encoder_tensor_is_refused_with_a_new_head_too(tmp_path: Path) -> None:
    state = disk_state(BertForSequenceClassification)
    del state["bert.encoder.layer.0.output.dense.bias"]
    write_checkpoint(tmp_path, state, ONE)
    for new_head in (False, True):
        message = refusal(tmp_path, BertForSequenceClassification, new_head=new_head)
        assert message.startswith(f"{tmp_path}: lacks encoder.layer.0.output.dense.bias; expected")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("embeddings.word_embeddings.weight", (10, 4)),
        ("embeddings.word_embeddings.weight", (4, 11)),
        ("encoder.layer.0.attention.self.query.weight", (12, 4)),
        ("encoder.layer.0.intermediate.dense.bias", (6, 1)),
        ("embeddings.LayerNorm.bias", ()),
    ],
)
def test_wrong_shape_is_refused(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    state = disk_state()
    expected = tuple(state[name].shape)
    write_checkpoint(tmp_path, state | {name: torch.zeros(shape)}, ONE)
    assert refusal(tmp_path) == (
        f"{tmp_path / WEIGHTS}: {name} has shape {shape}, expected {expected}; "
        "config.json and weights are of different networks"
    )


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.uint8, torch.bool])
def test_weights_of_integers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    name = "encoder.layer.0.output.dense.weight"
    state = disk_state()
    state[name] = torch.zeros(state[name].shape, dtype=dtype)
    write_checkpoint(tmp_path, state, ONE)
    kind = {"int8": "I8", "int64": "I64", "uint8": "U8", "bool": "BOOL"}[str(dtype)[6:]]
    assert refusal(tmp_path) == (
        f"{tmp_path / WEIGHTS}: {name} is {kind}, expected one of ['BF16', 'F16', 'F32', 'F64']; "
        "integer weights are read where minibert wrote them, each with its scale"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_unless_told(tmp_path: Path, value: float) -> None:
    name = "encoder.layer.0.attention.self.key.weight"
    state = disk_state()
    state[name][1, 2] = value
    write_checkpoint(tmp_path, state, ONE)
    assert refusal(tmp_path) == (
        f"{tmp_path / WEIGHTS}: {name} holds NaN or infinity, expected finite weights; the "
        "training that wrote it went wrong (check_finite=False loads it all the same)"
    )
    model = BertModel.from_pretrained(tmp_path, check_finite=False)
    loaded = to_disk(model.state_dict())[name]
    assert torch.equal(loaded.nan_to_num(7), state[name].nan_to_num(7))


def test_tensors_that_are_not_taken_may_be_anything(tmp_path: Path) -> None:
    more = {
        "classifier.weight": torch.tensor([math.nan]),
        "qa_outputs.bias": torch.zeros(1).to(torch.int8),
    }
    write_checkpoint(tmp_path, disk_state() | more, ONE)
    assert same_parameters(BertModel.from_pretrained(tmp_path), a_model())


def test_two_names_of_one_parameter_are_refused(tmp_path: Path) -> None:
    state = disk_state()
    name = "pooler.dense.weight"
    write_checkpoint(tmp_path, state | {f"bert.{name}": state[name]}, ONE)
    path = tmp_path / WEIGHTS
    assert refusal(tmp_path) in (
        f"{path}: holds both {a} and {b}, two names of one parameter; expected one, so remove the "
        "other"
        for a, b in ((name, f"bert.{name}"), (f"bert.{name}", name))
    )


def test_old_and_new_name_together_are_refused(tmp_path: Path) -> None:
    state = disk_state()
    state["embeddings.LayerNorm.gamma"] = state["embeddings.LayerNorm.weight"]
    write_checkpoint(tmp_path, state, ONE)
    assert "two names of one parameter" in refusal(tmp_path)


# ---- optional modules and heads


def test_model_of_a_file_without_pooler_has_none(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in disk_state().items() if "pooler" not in name}
    write_checkpoint(tmp_path, state, ONE)
    model = BertModel.from_pretrained(tmp_path)
    assert model.pooler is None
    assert model.load_report is not None
    assert model.load_report.absent == ("pooler",)
    assert model.load_report.initialised == ()
    assert model(torch.tensor([[1, 2]])).pooler_output is None
    model.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / WEIGHTS).keys() == state.keys()


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_pooler_is_found_with_and_without_prefix(tmp_path: Path, prefix: str) -> None:
    write_checkpoint(tmp_path, renamed(disk_state(), "^", prefix), ONE)
    model = BertModel.from_pretrained(tmp_path)
    assert model.load_report is not None
    assert model.load_report.absent == ()
    assert model.pooler is not None


def test_pooler_that_has_no_place_is_ignored_and_said(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, disk_state(), ONE)
    report = BertForTokenClassification.from_pretrained(tmp_path).load_report
    assert report is not None
    why = "this model has no pooler"
    assert report.ignored == {"pooler.dense.bias": why, "pooler.dense.weight": why}


@pytest.mark.parametrize("kind", [BertForPreTraining, BertForQuestionAnswering])
def test_head_of_another_task_is_ignored_and_said(tmp_path: Path, kind: type[Any]) -> None:
    config = kind(ONE).config
    state = disk_state(kind, config)
    write_checkpoint(tmp_path, state, config)
    report = BertModel.from_pretrained(tmp_path).load_report
    assert report is not None
    why = "head of another task"
    heads = [name for name in state if not name.startswith("bert.")]
    assert report.ignored == dict.fromkeys(sorted(heads), why)


NEW_HEADS = {
    BertForMaskedLM: [
        "predictions.bias",
        "predictions.dense.bias",
        "predictions.dense.weight",
        "predictions.norm.bias",
        "predictions.norm.weight",
    ],
    BertForNextSentencePrediction: ["next_sentence.bias", "next_sentence.weight"],
    BertForQuestionAnswering: ["spans.bias", "spans.weight"],
    BertForSequenceClassification: ["classifier.bias", "classifier.weight"],
    BertForTokenClassification: ["classifier.bias", "classifier.weight"],
    BertForMultipleChoice: ["classifier.bias", "classifier.weight"],
}


@pytest.mark.parametrize("kind", NEW_HEADS)
def test_head_that_the_file_lacks_is_initialised_and_said(
    tmp_path: Path, kind: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(ONE, initializer_range=30.0)
    write_checkpoint(tmp_path, disk_state(), config)
    torch.manual_seed(0)
    model = kind.from_pretrained(tmp_path)
    report = model.load_report
    assert sorted(report.initialised) == NEW_HEADS[kind]
    for name in report.initialised:
        parameter = model.get_parameter(name)
        if name.endswith("bias"):
            assert bool((parameter == 0).all()), name
        elif "norm" in name:
            assert bool((parameter == 1).all()), name
        else:
            assert 5 < parameter.std().item() < 90, name
    assert caplog.record_tuples == [
        (
            "minibert",
            logging.WARNING,
            f"{tmp_path}: initialised afresh: {', '.join(report.initialised)}",
        )
    ]


def test_pooler_that_the_file_lacks_is_initialised_where_a_head_reads_it(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in disk_state().items() if "pooler" not in name}
    write_checkpoint(tmp_path, state, ONE)
    report = BertForSequenceClassification.from_pretrained(tmp_path).load_report
    assert report is not None
    assert set(report.initialised) == {
        *["bert.pooler.dense.weight", "bert.pooler.dense.bias"],
        *["classifier.weight", "classifier.bias"],
    }
    assert report.absent == ()


def test_checkpoint_that_fills_everything_logs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in CLASSES:
        a_model(kind).save_pretrained(tmp_path)
        kind.from_pretrained(tmp_path)
    assert caplog.record_tuples == []


def test_head_of_other_labels_is_refused_unless_made_afresh(tmp_path: Path) -> None:
    a_model(BertForSequenceClassification).save_pretrained(tmp_path)
    assert refusal(tmp_path, BertForSequenceClassification, labels=2) in (
        f"{tmp_path / WEIGHTS}: {name} has shape {(3, *rest)}, expected {(2, *rest)}; give "
        "new_head=True to initialise the head afresh, or leave labels out"
        for name, rest in (("classifier.weight", (4,)), ("classifier.bias", ()))
    )
    model = BertForSequenceClassification.from_pretrained(tmp_path, labels=2, new_head=True)
    assert model.classifier.weight.shape == (2, 4)
    assert model.config.labels == ("LABEL_0", "LABEL_1")


def test_labels_take_the_place_of_the_checkpoints(tmp_path: Path) -> None:
    a_model(BertForTokenClassification).save_pretrained(tmp_path)
    again = BertForTokenClassification.from_pretrained(tmp_path)
    assert again.config.labels == ("no", "yes", "maybe")
    other = BertForTokenClassification.from_pretrained(tmp_path, labels=["a", "b", "c"])
    assert other.config.labels == ("a", "b", "c")
    assert torch.equal(other.classifier.weight, again.classifier.weight)


def test_new_head_is_fresh_whatever_the_file_holds(tmp_path: Path) -> None:
    saved = a_model(BertForTokenClassification)
    saved.save_pretrained(tmp_path)
    kept = BertForTokenClassification.from_pretrained(tmp_path)
    assert torch.equal(kept.classifier.bias, saved.classifier.bias)
    model = BertForTokenClassification.from_pretrained(tmp_path, new_head=True)
    assert bool((model.classifier.bias == 0).all())
    assert not torch.equal(model.classifier.weight, saved.classifier.weight)
    assert same_parameters(model.bert, saved.bert)
    report = model.load_report
    assert report is not None
    assert set(report.initialised) == {"classifier.weight", "classifier.bias"}
    why = "initialised afresh, as asked"
    assert report.ignored == {"classifier.bias": why, "classifier.weight": why}


OF_HIDDEN = {
    f"classifier.{layer}.{kind}" for layer in ("hidden", "output") for kind in ("weight", "bias")
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_head_with_a_hidden_layer_is_saved_and_loaded_and_said(
    tmp_path: Path, kind: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = a_model(kind, HIDDEN)
    model.save_pretrained(tmp_path)
    assert caplog.record_tuples == [
        (
            "minibert",
            logging.WARNING,
            f"{tmp_path}: the classifier has a hidden layer, for which transformers has no place: "
            "opened there, its head is untrained; minibert opens it whole",
        )
    ]
    assert json.loads((tmp_path / "config.json").read_text())["classifier_hidden_size"] == 5
    assert {name for name in load_file(tmp_path / WEIGHTS) if "classifier" in name} == OF_HIDDEN
    again = kind.from_pretrained(tmp_path)
    assert same_parameters(again, model)
    assert again.config == HIDDEN
    assert again.load_report.initialised == ()
    assert not again.load_report.ignored
    assert len(caplog.record_tuples) == 1


def test_head_with_a_hidden_layer_is_fresh_on_a_file_without(tmp_path: Path) -> None:
    """On a bare encoder, and on one with a classifier of one map, which is left out and said."""
    write_checkpoint(tmp_path / "bare", disk_state(), HIDDEN)
    report = BertForSequenceClassification.from_pretrained(tmp_path / "bare").load_report
    assert report is not None
    assert set(report.initialised) == OF_HIDDEN
    assert not report.ignored

    plain = disk_state(BertForTokenClassification)
    write_checkpoint(tmp_path / "plain", plain, HIDDEN)
    why = {False: "of a head of another form", True: "initialised afresh, as asked"}
    for new_head in (False, True):
        folder = tmp_path / "plain"
        model = BertForTokenClassification.from_pretrained(folder, new_head=new_head)
        report = model.load_report
        assert report is not None
        assert set(report.initialised) == OF_HIDDEN
        assert report.ignored == dict.fromkeys(
            ["classifier.bias", "classifier.weight"], why[new_head]
        )


def test_head_with_a_hidden_layer_that_has_no_place_is_left_out_and_said(tmp_path: Path) -> None:
    state = disk_state(BertForSequenceClassification, HIDDEN)
    write_checkpoint(tmp_path, state, ONE)
    report = BertModel.from_pretrained(tmp_path).load_report
    assert report is not None
    assert report.ignored == dict.fromkeys(sorted(OF_HIDDEN), "head of another task")
    report = BertForSequenceClassification.from_pretrained(tmp_path).load_report
    assert report is not None
    assert set(report.initialised) == {"classifier.weight", "classifier.bias"}
    assert report.ignored == dict.fromkeys(sorted(OF_HIDDEN), "of a head of another form")


@pytest.mark.parametrize("name", sorted(OF_HIDDEN))
def test_head_with_a_hidden_layer_that_is_there_in_part_is_refused(
    tmp_path: Path, name: str
) -> None:
    state = disk_state(BertForSequenceClassification, HIDDEN)
    del state[name]
    write_checkpoint(tmp_path, state, HIDDEN)
    assert refusal(tmp_path, BertForSequenceClassification).startswith(f"{tmp_path}: lacks {name};")


def test_hidden_layer_of_another_width_is_refused_unless_made_afresh(tmp_path: Path) -> None:
    state = disk_state(BertForSequenceClassification, HIDDEN)
    write_checkpoint(tmp_path, state, replace(HIDDEN, classifier_hidden_size=6))
    assert "new_head=True" in refusal(tmp_path, BertForSequenceClassification)
    model = BertForSequenceClassification.from_pretrained(tmp_path, new_head=True)
    assert model.load_report is not None
    assert set(model.load_report.initialised) == OF_HIDDEN


@pytest.mark.parametrize("bias", ["none", "equal"])
def test_new_masked_lm_head_accounts_for_the_tied_decoder_of_the_file(
    bias: Any, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path, mlm_state(weight="equal", bias=bias), ONE)
    report = BertForMaskedLM.from_pretrained(tmp_path, new_head=True).load_report
    assert report is not None
    ignored = {n: w for n, w in report.ignored.items() if n.startswith("cls.predictions.")}
    assert "cls.predictions.decoder.weight" in ignored
    assert set(ignored.values()) == {"initialised afresh, as asked"}


def test_weights_beyond_float16_are_refused_in_float16(tmp_path: Path) -> None:
    state = disk_state()
    state["encoder.layer.0.output.dense.weight"][0, 0] = -70_000.0
    write_checkpoint(tmp_path, state, ONE)
    assert refusal(tmp_path, BertModel, dtype="float16") == (
        f"{tmp_path}: encoder.layer.0.output.dense.weight reaches 7e+04, expected at most 65504 "
        "for float16; load it as bfloat16"
    )
    BertModel.from_pretrained(tmp_path, dtype="bfloat16")
    BertModel.from_pretrained(tmp_path, dtype="float16", check_finite=False)


def test_new_head_keeps_the_trained_pooler_of_the_file(tmp_path: Path) -> None:
    saved = a_model(BertForPreTraining)
    saved.save_pretrained(tmp_path)
    model = BertForSequenceClassification.from_pretrained(tmp_path, new_head=True)
    assert same_parameters(model.bert, saved.bert)
    assert model.load_report is not None
    assert set(model.load_report.initialised) == {"classifier.weight", "classifier.bias"}


def test_file_without_the_head_is_refused_where_chance_will_not_do(tmp_path: Path) -> None:
    a_model(BertForPreTraining).save_pretrained(tmp_path)
    config = BertConfig.from_file(tmp_path / "config.json")
    said = (
        f"{tmp_path}: lacks classifier.weight, classifier.bias, so that the head of "
        "BertForSequenceClassification is untrained and what it predicts is chance; train it "
        "first, as minibert train does"
    )
    with pytest.raises(CheckpointError, match=re.escape(said)):
        checkpoint.load(BertForSequenceClassification, tmp_path, config, whole=True)
    whole = checkpoint.load(BertForMaskedLM, tmp_path, config, whole=True)
    assert whole.load_report is not None
    assert not whole.load_report.initialised


def test_misnamed_tensor_of_the_own_head_is_refused(tmp_path: Path) -> None:
    state = disk_state(BertForSequenceClassification)
    state["classifier.weighu"] = state.pop("classifier.weight")
    write_checkpoint(tmp_path, state, ONE)
    assert "classifier.weigh" in refusal(tmp_path, BertForSequenceClassification)


@pytest.mark.parametrize("name", ["classifier.weight", "classifier.bias"])
def test_head_that_is_there_in_part_is_refused(tmp_path: Path, name: str) -> None:
    state = disk_state(BertForTokenClassification)
    del state[name]
    write_checkpoint(tmp_path, state, ONE)
    message = refusal(tmp_path, BertForTokenClassification)
    assert message.startswith(f"{tmp_path}: lacks {name}; expected every tensor of BertForTokenC")
    model = BertForTokenClassification.from_pretrained(tmp_path, new_head=True)
    assert bool((model.classifier.bias == 0).all())


def test_pooler_of_a_head_that_is_there_in_part_is_refused(tmp_path: Path) -> None:
    state = disk_state(BertForSequenceClassification)
    del state["bert.pooler.dense.bias"]
    write_checkpoint(tmp_path, state, ONE)
    for new_head in (False, True):
        message = refusal(tmp_path, BertForSequenceClassification, new_head=new_head)
        assert message.startswith(f"{tmp_path}: lacks pooler.dense.bias; expected")


def test_each_head_of_pretraining_may_be_absent_alone(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, disk_state(BertForMaskedLM), ONE)
    report = BertForPreTraining.from_pretrained(tmp_path).load_report
    assert report is not None
    assert set(report.initialised) == {
        *["bert.pooler.dense.weight", "bert.pooler.dense.bias"],
        *["next_sentence.weight", "next_sentence.bias"],
    }
    assert "cls.predictions.bias" in report.loaded


def test_pooler_of_another_shape_is_not_mended_by_a_new_head(tmp_path: Path) -> None:
    state = disk_state(BertForSequenceClassification)
    state["bert.pooler.dense.bias"] = torch.zeros(5)
    write_checkpoint(tmp_path, state, ONE)
    message = refusal(tmp_path, BertForSequenceClassification)
    assert message.endswith("; config.json and weights are of different networks")


# ---- the decoder of masked words


def mlm_state(*, weight: str, bias: str) -> dict[str, Tensor]:
    """A masked LM's tensors; with the decoder's: none, equal to what it is tied to, or other."""
    state = disk_state(BertForMaskedLM)
    embeddings = state["bert.embeddings.word_embeddings.weight"]
    if weight != "none":
        state["cls.predictions.decoder.weight"] = embeddings + (weight == "other")
    if bias != "none":
        state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"] + (bias == "other")
    if bias == "alone":
        del state["cls.predictions.bias"]
    return state


def report_of(tmp_path: Path, state: Mapping[str, Tensor]) -> tuple[Any, LoadReport]:
    write_checkpoint(tmp_path, state, ONE)
    model = BertForMaskedLM.from_pretrained(tmp_path)
    assert model.load_report is not None
    return model, model.load_report


def test_decoder_equal_to_what_it_is_tied_to_is_said(tmp_path: Path) -> None:
    model, report = report_of(tmp_path, mlm_state(weight="equal", bias="equal"))
    assert same_parameters(model, a_model(BertForMaskedLM))
    assert report.tied == {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    assert report.ignored == {}


def test_decoder_other_than_what_it_is_tied_to_is_ignored_and_said(tmp_path: Path) -> None:
    model, report = report_of(tmp_path, mlm_state(weight="other", bias="other"))
    assert same_parameters(model, a_model(BertForMaskedLM))
    assert report.tied == {}
    assert report.ignored == {
        name: f"differs from {other}, which is used in its place"
        for name, other in {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }.items()
    }


def test_decoder_bias_alone_is_the_bias(tmp_path: Path) -> None:
    model, report = report_of(tmp_path, mlm_state(weight="none", bias="alone"))
    assert same_parameters(model, a_model(BertForMaskedLM))
    assert "cls.predictions.decoder.bias" in report.loaded
    assert report.initialised == ()
    assert report.ignored == report.tied == {}
    assert report.legacy == {"cls.predictions.decoder.bias": "cls.predictions.bias"}


def test_decoder_weight_is_loaded_where_it_is_not_tied(tmp_path: Path) -> None:
    config = replace(ONE, tie_word_embeddings=False)
    state = disk_state(BertForMaskedLM, config)
    state["cls.predictions.bias"] = state["cls.predictions.decoder.bias"]
    write_checkpoint(tmp_path, state, config)
    model = BertForMaskedLM.from_pretrained(tmp_path)
    assert same_parameters(model, a_model(BertForMaskedLM, config))
    report = model.load_report
    assert report is not None
    assert "cls.predictions.decoder.weight" in report.loaded
    assert report.tied == {"cls.predictions.bias": "cls.predictions.decoder.bias"}


def test_decoder_bias_goes_by_the_other_name_where_it_is_not_tied(tmp_path: Path) -> None:
    config = replace(ONE, tie_word_embeddings=False)
    state = disk_state(BertForMaskedLM, config)
    state["cls.predictions.bias"] = state.pop("cls.predictions.decoder.bias")
    write_checkpoint(tmp_path, state, config)
    model = BertForMaskedLM.from_pretrained(tmp_path)
    assert same_parameters(model, a_model(BertForMaskedLM, config))
    report = model.load_report
    assert report is not None
    assert "cls.predictions.bias" in report.loaded
    assert report.legacy == {"cls.predictions.bias": "cls.predictions.decoder.bias"}
    assert report.ignored == report.tied == {}


def test_decoder_bias_of_its_own_wins_where_it_is_not_tied(tmp_path: Path) -> None:
    config = replace(ONE, tie_word_embeddings=False)
    state = disk_state(BertForMaskedLM, config)
    state["cls.predictions.bias"] = state["cls.predictions.decoder.bias"] + 1
    write_checkpoint(tmp_path, state, config)
    model = BertForMaskedLM.from_pretrained(tmp_path)
    assert same_parameters(model, a_model(BertForMaskedLM, config))
    assert model.load_report is not None
    assert model.load_report.ignored == {
        "cls.predictions.bias": "differs from cls.predictions.decoder.bias, "
        "which is used in its place"
    }


def test_decoder_that_the_file_lacks_is_refused_where_it_is_not_tied(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, disk_state(BertForMaskedLM), replace(ONE, tie_word_embeddings=False))
    message = refusal(tmp_path, BertForMaskedLM)
    assert message.startswith(f"{tmp_path}: lacks cls.predictions.decoder.weight; expected")


def test_decoder_of_a_file_for_another_head_is_of_another_task(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, mlm_state(weight="equal", bias="equal"), ONE)
    report = BertForTokenClassification.from_pretrained(tmp_path).load_report
    assert report is not None
    assert report.tied == {}
    assert report.ignored["cls.predictions.decoder.weight"] == "head of another task"
    assert report.ignored["cls.predictions.decoder.bias"] == "head of another task"


def test_tied_decoder_stays_tied_after_loading(tmp_path: Path) -> None:
    model, _ = report_of(tmp_path, mlm_state(weight="equal", bias="none"))
    ids = torch.tensor([[1, 2]])
    before = model(ids).logits
    with torch.no_grad():
        model.bert.embeddings.token.weight[9] += 1
    after = model(ids).logits
    changed = (before != after).any(0).any(0)
    assert changed.tolist() == [index == 9 for index in range(11)]


# ---- the report


def test_report_tells_everything_in_lines(tmp_path: Path) -> None:
    report = LoadReport(
        folder=tmp_path,
        loaded=("a", "b"),
        legacy={"a": "c"},
        ignored={"d": "because"},
        tied={"e": "f"},
        absent=("pooler",),
        initialised=("g",),
        dtype="float16",
    )
    assert str(report).splitlines() == [
        f"{tmp_path}: 2 tensors loaded as float16",
        "  read under its old name: a -> c",
        "  ignored: d (because)",
        "  tied: e is f",
        "  without pooler: the file has none",
        "  initialised afresh: g",
    ]


@st.composite
def files(draw: st.DrawFn) -> tuple[type[Any], type[Any], dict[str, Tensor], BertConfig]:
    """A class, a file of another class in any of the dialects there are, and its configuration."""
    kind, saved = draw(st.sampled_from(CLASSES)), draw(st.sampled_from(CLASSES))
    tied, prefixed, old, buffers, pooler, decoder = (draw(st.booleans()) for _ in range(6))
    saved_width, width = (draw(st.sampled_from([None, 5])) for _ in range(2))
    with unchanged_random():
        config = replace(ONE, tie_word_embeddings=tied, labels=("a", "b"))
        state = disk_state(saved, replace(config, classifier_hidden_size=saved_width))
        config = replace(config, classifier_hidden_size=width)
    if kind is BertForMultipleChoice or saved is BertForMultipleChoice:
        # One output there, one for each label elsewhere: of different shapes, refused.
        state = {name: tensor for name, tensor in state.items() if "classifier" not in name}
    if not prefixed:
        state = renamed(state, r"^bert\.", "")
    if old:
        state = renamed(state, r"LayerNorm\.weight$", "LayerNorm.gamma")
        state = renamed(state, r"LayerNorm\.bias$", "LayerNorm.beta")
    if buffers:
        state["embeddings.position_ids"] = torch.arange(8)[None]
    if not pooler:
        state = {name: tensor for name, tensor in state.items() if "pooler" not in name}
    if decoder and "cls.predictions.bias" in state:
        state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"].clone()
    return kind, saved, state, config


@settings(max_examples=60)
@given(files())
def test_report_accounts_for_every_tensor_and_every_parameter(
    case: tuple[type[Any], type[Any], dict[str, Tensor], BertConfig],
) -> None:
    kind, _, state, config = case
    with tempfile.TemporaryDirectory() as name:
        folder = write_checkpoint(Path(name), state, config)
        model = kind.from_pretrained(folder)
        report = model.load_report
        parts = [set(report.loaded), set(report.ignored), set(report.tied)]
        assert set.union(*parts) == set(state)
        assert sum(map(len, parts)) == len(state)
        assert set(report.legacy) <= set(report.loaded)
        values = {n.removeprefix("bert."): t for n, t in state.items()}
        values = renamed(renamed(values, r"\.gamma$", ".weight"), r"\.beta$", ".bias")
        filled = {}
        for ours, tensor in model.state_dict().items():
            if ours in report.initialised:
                continue
            for theirs, part in to_disk({ours: tensor}).items():
                filled[theirs.removeprefix("bert.")] = part
                assert torch.equal(part, values[theirs.removeprefix("bert.")])
        assert len(filled) == len(report.loaded)
        for module in report.absent:
            assert getattr(model, module) is None


# ---- memory


def mapped_ranges(path: Path) -> list[tuple[int, int]]:
    """Where a file is mapped into this process."""
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(path):
            start, end = (int(part, 16) for part in fields[0].split("-"))
            ranges.append((start, end))
    return ranges


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="needs /proc/self/maps of Linux to look at"
)
def test_weights_are_mapped_and_not_copied(tmp_path: Path) -> None:
    a_model().save_pretrained(tmp_path)
    model = BertModel.from_pretrained(tmp_path)
    ranges = mapped_ranges((tmp_path / WEIGHTS).resolve())
    mapped = {
        name: any(start <= parameter.data_ptr() < end for start, end in ranges)
        for name, parameter in model.named_parameters()
    }
    # Joining query, key and value takes a copy; all else lies in the file.
    assert mapped == {name: ".qkv." not in name for name in mapped}


def test_training_in_place_leaves_the_file_alone(tmp_path: Path) -> None:
    a_model().save_pretrained(tmp_path)
    before = bytes_in(tmp_path)
    model = BertModel.from_pretrained(tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert bytes_in(tmp_path) == before
    assert not same_parameters(BertModel.from_pretrained(tmp_path), model)


def test_saving_over_the_folder_one_loaded_from_works(tmp_path: Path) -> None:
    a_model().save_pretrained(tmp_path)
    model = BertModel.from_pretrained(tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    model.save_pretrained(tmp_path)
    assert same_parameters(BertModel.from_pretrained(tmp_path), model)
    assert names_in(tmp_path) == ["config.json", WEIGHTS]


def test_networks_of_one_file_do_not_share_their_weights(tmp_path: Path) -> None:
    a_model().save_pretrained(tmp_path)
    first, second = (BertModel.from_pretrained(tmp_path) for _ in range(2))
    with torch.no_grad():
        first.embeddings.token.weight.zero_()
    assert same_parameters(second, a_model())


# ---- saving


def test_saved_file_has_the_names_and_the_one_metadata_key_of_the_ecosystem(tmp_path: Path) -> None:
    a_model(BertForSequenceClassification).save_pretrained(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert names_in(folder) == ["config.json", WEIGHTS]
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        names = set(file.keys())
    layer = "bert.encoder.layer.0"
    linears = [
        *[f"{layer}.attention.self.{name}" for name in ("query", "key", "value")],
        *[f"{layer}.attention.output.dense", f"{layer}.attention.output.LayerNorm"],
        *[f"{layer}.intermediate.dense", f"{layer}.output.dense", f"{layer}.output.LayerNorm"],
        *["bert.embeddings.LayerNorm", "bert.pooler.dense", "classifier"],
    ]
    tables = ["word_embeddings", "token_type_embeddings", "position_embeddings"]
    assert names == {f"{name}.{kind}" for name in linears for kind in ("weight", "bias")} | {
        f"bert.embeddings.{name}.weight" for name in tables
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_saved_config_names_class_and_dtype(tmp_path: Path, dtype: str) -> None:
    a_model(BertForQuestionAnswering).to(DTYPES[dtype]).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config = BertForQuestionAnswering(ONE).config
    assert values == config.to_dict() | {
        "architectures": ["BertForQuestionAnswering"],
        "dtype": dtype,
    }
    tensors = load_file(tmp_path / WEIGHTS)
    assert {tensor.dtype for tensor in tensors.values()} == {DTYPES[dtype]}


def test_saved_config_of_mixed_dtypes_says_float32(tmp_path: Path) -> None:
    model = a_model()
    model.embeddings.to(torch.float16)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    assert load_file(tmp_path / WEIGHTS)["embeddings.LayerNorm.bias"].dtype == torch.float16


def test_saved_config_is_for_people_to_read(tmp_path: Path) -> None:
    a_model(config=ONE.with_labels(["grün", "赤"])).save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "vocab_size": 11,\n')
    assert text.endswith("}\n")
    assert "grün" in text
    assert "赤" in text


def test_saved_parameters_need_not_be_contiguous(tmp_path: Path) -> None:
    model = a_model()
    model.pooler.dense.weight = nn.Parameter(model.pooler.dense.weight.detach().T)
    model.save_pretrained(tmp_path)
    assert same_parameters(BertModel.from_pretrained(tmp_path), model)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def foreign_error(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device")


def at_call(number: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, but for the call of that number, which finds the disk full."""
    calls = iter(range(1000))

    def run(*args: Any, **kwargs: Any) -> Any:
        return full_disk() if next(calls) == number else original(*args, **kwargs)

    return run


FAILURES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "writing": lambda patch: patch.setattr(checkpoint, "save_file", full_disk),
    "serialising": lambda patch: patch.setattr(checkpoint, "save_file", foreign_error),
    "temporary file 1": lambda patch: patch.setattr(tempfile, "mkstemp", full_disk),
    "temporary file 2": lambda patch: patch.setattr(
        tempfile, "mkstemp", at_call(1, tempfile.mkstemp)
    ),
    "fsync 1": lambda patch: patch.setattr(os, "fsync", full_disk),
    "rename 1": lambda patch: patch.setattr(os, "replace", full_disk),
    "config": lambda patch: patch.setattr(Path, "write_text", full_disk),
}


@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES.keys())
def test_save_that_fails_leaves_the_earlier_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[[pytest.MonkeyPatch], None]
) -> None:
    a_model(seed=1).save_pretrained(tmp_path)
    before = bytes_in(tmp_path)
    other = a_model(config=replace(ONE, hidden_size=6), seed=2)
    fail(monkeypatch)
    with pytest.raises(CheckpointError) as caught:
        other.save_pretrained(tmp_path)
    monkeypatch.undo()
    assert bytes_in(tmp_path) == before
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: cannot be written: ")
    assert "No space left on device" in message
    assert message.endswith(
        "; what stood there is unchanged, so free space or choose another folder, and save again"
    )


def test_save_into_a_disk_that_fills_up_leaves_the_earlier_checkpoint_whole(tmp_path: Path) -> None:
    a_model(seed=1).save_pretrained(tmp_path)
    before = bytes_in(tmp_path)
    size = (tmp_path / WEIGHTS).stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file may not grow beyond half of what is needed: the system's own error, not a made-up one.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(
            CheckpointError, match=r"cannot be written: .*; what stood there is unch"
        ):
            a_model(seed=2).save_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert bytes_in(tmp_path) == before


def test_save_into_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError) as caught:
            a_model().save_pretrained(place)
        assert str(caught.value).startswith(f"{place}: cannot be written: ")
    assert (tmp_path / "file").read_text() == "x"


# ---- round trips and damage


@EVERY_CLASS
@settings(max_examples=5)
@given(config=configs(), dtype=st.sampled_from(sorted(DTYPES)), seed=st.integers(0, 99))
def test_save_load_save_gives_the_same_bytes(
    kind: type[Any], config: BertConfig, dtype: str, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        first, second = Path(name) / "first", Path(name) / "second"
        model = randomised(kind(config), seed=seed).to(DTYPES[dtype])
        model.save_pretrained(first)
        again = kind.from_pretrained(first, dtype=dtype)
        assert same_parameters(again, model)
        assert again.config == model.config
        again.save_pretrained(second)
        assert bytes_in(first) == bytes_in(second)


def test_save_load_save_of_the_real_checkpoint_gives_the_same_tensors(
    tmp_path: Path, minilm: Path
) -> None:
    model = BertModel.from_pretrained(minilm)
    assert model.load_report is not None
    assert len(model.load_report.loaded) == 103
    assert model.load_report.ignored == {
        "embeddings.position_ids": "buffer of old files: the column numbers"
    }
    model.save_pretrained(tmp_path / "first")
    BertModel.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    original = load_file(minilm / WEIGHTS)
    saved = load_file(tmp_path / "first" / WEIGHTS)
    assert saved.keys() == original.keys() - {"embeddings.position_ids"}
    assert all(torch.equal(saved[name], original[name]) for name in saved)
    contents = [(tmp_path / name / WEIGHTS).read_bytes() for name in ("first", "second")]
    assert contents[0] == contents[1]


@pytest.fixture(scope="module", params=[BertModel, BertForSequenceClassification, BertForMaskedLM])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A class, a folder to break, and the bytes of its whole file."""
    folder = tmp_path_factory.mktemp("whole")
    a_model(request.param).save_pretrained(folder)
    return request.param, folder, (folder / WEIGHTS).read_bytes()


@settings(max_examples=50)
@given(data=st.data())
def test_truncated_checkpoint_is_refused(whole: Any, data: st.DataObject) -> None:
    kind, folder, content = whole
    (folder / WEIGHTS).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    assert refusal(folder, kind).startswith(f"{folder / WEIGHTS}: is no whole safetensors file: ")


@settings(max_examples=150)
@given(data=st.data())
def test_flipped_header_bit_is_refused_or_changes_no_tensor(
    whole: Any, data: st.DataObject
) -> None:
    kind, folder, content = whole
    end = 8 + struct.unpack("<Q", content[:8])[0]
    bit = data.draw(st.integers(0, end * 8 - 1))
    broken = bytearray(content)
    broken[bit // 8] ^= 1 << bit % 8
    (folder / WEIGHTS).write_bytes(broken)
    try:
        model = kind.from_pretrained(folder)
    except CheckpointError:
        return
    assert same_parameters(model, a_model(kind))


class Small(checkpoint.Pretrained):
    """Two linear maps, one of them a head: small enough to flip every bit of every name."""

    fresh = ("classifier",)

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.next_sentence = nn.Linear(2, 2)
        self.classifier = nn.Linear(2, 1)


def test_every_flipped_bit_of_a_name_is_refused(tmp_path: Path) -> None:
    # All else in a header is for test_tensor_files.py.
    model = a_model(Small)
    model.save_pretrained(tmp_path)
    content = (tmp_path / WEIGHTS).read_bytes()
    wrong = []
    for name in to_disk(model.state_dict()):
        start = content.index(f'"{name}"'.encode()) + 1
        for bit in range(start * 8, (start + len(name)) * 8):
            broken = bytearray(content)
            broken[bit // 8] ^= 1 << bit % 8
            (tmp_path / WEIGHTS).write_bytes(broken)
            try:
                Small.from_pretrained(tmp_path)
            except CheckpointError:
                continue
            wrong.append(broken[start : start + len(name)].decode())
    assert wrong == []
