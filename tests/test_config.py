"""BertConfig: bert-base's values, every refusal, and `config.json` in and out."""

import json
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from strategies import TINY, configs, without_type_checks

from minibert import config as module
from minibert.config import HIDDEN_ACTS
from minibert.errors import ConfigError, MinibertError

# Values of a wrong type must meet the refusals that users meet.
BertConfig = without_type_checks(module).BertConfig

# What google-research/bert publishes for BERT-Base, uncased, and what `transformers` adds.
BERT_BASE = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
    "classifier_dropout": None,
    "problem_type": None,
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
}


def refusal(**values: object) -> str:
    with pytest.raises(ConfigError) as caught:
        BertConfig.from_dict(values)
    return str(caught.value)


def test_config_defaults_are_bert_base() -> None:
    assert BertConfig().to_dict() == BERT_BASE


def test_config_from_no_keys_is_the_default() -> None:
    assert BertConfig.from_dict({}) == BertConfig()


def test_config_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        TINY.hidden_size = 8  # type: ignore[misc]


def test_config_takes_names_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        BertConfig(30522)


def test_head_dim_is_the_share_of_one_head() -> None:
    assert BertConfig().head_dim == 64
    assert BertConfig(hidden_size=384).head_dim == 32


def test_num_labels_counts_the_labels() -> None:
    assert BertConfig().num_labels == 2
    assert TINY.num_labels == 3


@pytest.mark.parametrize(
    ("own", "expected"), [(None, 0.25), (0.0, 0.0), (0.5, 0.5)], ids=["null", "zero", "half"]
)
def test_head_dropout_is_the_classifiers_or_else_the_encoders(
    own: float | None, expected: float
) -> None:
    config = BertConfig(hidden_dropout_prob=0.25, classifier_dropout=own)
    assert config.head_dropout == expected


def test_with_labels_takes_names_or_a_number() -> None:
    assert TINY.with_labels(["a", "b"]).labels == ("a", "b")
    assert TINY.with_labels(3).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert TINY.with_labels(3).hidden_size == TINY.hidden_size
    assert TINY.labels == ("no", "yes", "maybe")


def test_with_labels_refuses_a_text_which_is_no_list_of_names() -> None:
    with pytest.raises(ConfigError, match=r"^got labels 'abc', expected a list of names, or their"):
        TINY.with_labels("abc")


def test_with_labels_refuses_none_at_all() -> None:
    with pytest.raises(ConfigError, match=r"^labels is \(\), expected a tuple of names, at least"):
        TINY.with_labels(0)


LARGEST = {
    "vocab_size": 16777216,
    "hidden_size": 1048576,
    "num_hidden_layers": 1024,
    "num_attention_heads": 1048576,
    "intermediate_size": 16777216,
    "max_position_embeddings": 16777216,
    "type_vocab_size": 16777216,
}


@pytest.mark.parametrize(("key", "largest"), LARGEST.items())
@pytest.mark.parametrize("value", [0, -1, 2.0, "12", None, True, [1], 10**30])
def test_sizes_are_integers_within_bounds(key: str, largest: int, value: object) -> None:
    said = f"{key} is {value!r}, expected an integer from 1 to {largest}"
    assert refusal(**{key: value}) == said


@pytest.mark.parametrize(("key", "largest"), LARGEST.items())
def test_sizes_up_to_their_bound_are_taken(key: str, largest: int) -> None:
    heads = {"num_attention_heads": largest, "hidden_size": largest}
    sizes = heads if key in heads else {key: largest}
    assert getattr(BertConfig(**sizes), key) == largest
    assert "expected an integer" in refusal(**{key: largest + 1})


def test_sizes_of_1_are_taken() -> None:
    config = BertConfig(
        vocab_size=1,
        hidden_size=1,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=1,
        max_position_embeddings=1,
        type_vocab_size=1,
    )
    assert config.head_dim == 1


@pytest.mark.parametrize("key", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
@pytest.mark.parametrize("value", [1, 1.0, -0.1, "0.1", None, True, float("nan"), [0.1]])
def test_dropouts_are_numbers_from_0_to_below_1(key: str, value: object) -> None:
    assert refusal(**{key: value}) == f"{key} is {value!r}, expected a number from 0 to below 1"


@pytest.mark.parametrize("value", [1, -0.5, "0", False, float("inf")])
def test_classifier_dropout_is_a_number_from_0_to_below_1_or_null(value: object) -> None:
    expected = f"classifier_dropout is {value!r}, expected a number from 0 to below 1"
    assert refusal(classifier_dropout=value) == expected


@pytest.mark.parametrize("value", [0, 0.0, 0.999])
def test_dropouts_take_0_and_just_below_1(value: float) -> None:
    config = BertConfig(hidden_dropout_prob=value, classifier_dropout=value)
    assert config.hidden_dropout_prob == config.head_dropout == value


@pytest.mark.parametrize("value", [0, -1, 2.0, "12", True, [1], 1048577])
def test_classifier_hidden_size_is_an_integer_within_bounds_or_null(value: object) -> None:
    expected = (
        f"classifier_hidden_size is {value!r}, expected an integer from 1 to 1048576, or null"
    )
    assert refusal(classifier_hidden_size=value) == expected


@pytest.mark.parametrize("value", [1, 128, 1048576])
def test_classifier_hidden_size_is_written_where_it_is_set(value: int) -> None:
    config = BertConfig.from_dict({"classifier_hidden_size": value})
    assert config.to_dict() == {**BERT_BASE, "classifier_hidden_size": value}
    assert BertConfig.from_dict(config.to_dict()) == config
    assert BertConfig.from_dict({"classifier_hidden_size": None}).to_dict() == BERT_BASE


@pytest.mark.parametrize("key", ["layer_norm_eps", "initializer_range"])
@pytest.mark.parametrize("value", [0, 0.0, -1e-12, "1e-12", None, True, float("nan"), float("inf")])
def test_eps_and_initializer_range_are_positive_numbers(key: str, value: object) -> None:
    assert refusal(**{key: value}) == f"{key} is {value!r}, expected a number > 0"


@pytest.mark.parametrize("key", ["hidden_dropout_prob", "layer_norm_eps"])
def test_numbers_beyond_floats_are_refused(key: str) -> None:
    assert refusal(**{key: 10**400}).startswith(f"{key} is 1000")


@pytest.mark.parametrize("value", [-1, 0.0, "0", False])
def test_pad_token_id_is_an_integer_from_0_or_null(value: object) -> None:
    assert (
        refusal(pad_token_id=value)
        == f"pad_token_id is {value!r}, expected an integer ≥ 0, or null"
    )


@pytest.mark.parametrize("value", [None, 0, 3])
def test_pad_token_id_may_be_null_or_any_row(value: int | None) -> None:
    assert BertConfig.from_dict({"pad_token_id": value}).pad_token_id == value


@pytest.mark.parametrize("value", [0, 1, None, "true"])
def test_tie_word_embeddings_is_a_bool(value: object) -> None:
    expected = f"tie_word_embeddings is {value!r}, expected a bool"
    assert refusal(tie_word_embeddings=value) == expected


@pytest.mark.parametrize("value", ["GELU", "gelu_fast", "", None, 1, ["gelu"]])
def test_hidden_act_is_one_of_six(value: object) -> None:
    expected = f"hidden_act is {value!r}, expected one of {list(HIDDEN_ACTS)}"
    assert refusal(hidden_act=value) == expected
    assert HIDDEN_ACTS == ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh")


def test_problem_type_is_a_string_or_null() -> None:
    assert BertConfig.from_dict({"problem_type": "regression"}).problem_type == "regression"
    assert refusal(problem_type=1) == "problem_type is 1, expected a string, or null"


@pytest.mark.parametrize("labels", [["a"], "ab", ("a", 1), (), None])
def test_labels_are_a_tuple_of_names(labels: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^labels is .*, expected a tuple of names, at least one"
    ):
        BertConfig(labels=labels)


def test_hidden_size_must_be_shared_equally_by_the_heads() -> None:
    assert refusal(hidden_size=10, num_attention_heads=4) == (
        "hidden_size 10 is not divisible by num_attention_heads 4; "
        "each head takes an equal share, so change one of them"
    )


@pytest.mark.parametrize(
    ("key", "value", "expected", "why"),
    [
        ("model_type", "roberta", '"bert"', "only BERT encoders load here"),
        ("model_type", ["bert"], '"bert"', "only BERT encoders load here"),
        (
            "position_embedding_type",
            "relative_key",
            '"absolute"',
            "only learned absolute positions are here",
        ),
        ("is_decoder", True, "false", "decoders are not here"),
        ("add_cross_attention", True, "false", "cross-attention is not here"),
        ("is_encoder_decoder", True, "false", "encoder-decoders are not here"),
        (
            "pruned_heads",
            {"0": [1]},
            "{}",
            "pruned heads are not here; load the unpruned checkpoint",
        ),
    ],
)
def test_config_of_another_network_is_refused(
    key: str, value: object, expected: str, why: str
) -> None:
    assert refusal(**{key: value}) == f"{key} is {value!r}, expected {expected}: {why}"


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "bert"},
        {"position_embedding_type": "absolute"},
        {"is_decoder": False},
        {"add_cross_attention": False},
        {"is_encoder_decoder": False},
        {"pruned_heads": {}},
        {"model_type": None, "position_embedding_type": None, "is_decoder": None},
        {"add_cross_attention": None, "is_encoder_decoder": None, "pruned_heads": None},
    ],
)
def test_keys_that_change_nothing_are_taken(values: dict[str, object]) -> None:
    assert BertConfig.from_dict(values) == BertConfig()


def test_unknown_keys_are_ignored() -> None:
    values = {"auto_map": {"AutoModel": "evil.Model"}, "labels": ["x"], "torch_dtype": "float16"}
    assert BertConfig.from_dict(values) == BertConfig()


def test_labels_come_in_the_order_of_their_ids() -> None:
    names = {str(index): f"name {index}" for index in reversed(range(12))}
    config = BertConfig.from_dict({"id2label": names})
    assert config.labels == tuple(f"name {index}" for index in range(12))


def test_id2label_comes_before_num_labels() -> None:
    assert BertConfig.from_dict({"id2label": {"0": "a"}, "num_labels": 5}).labels == ("a",)


def test_num_labels_alone_names_them() -> None:
    assert BertConfig.from_dict({"num_labels": 1}).labels == ("LABEL_0",)
    assert BertConfig.from_dict({"num_labels": 3}).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert BertConfig.from_dict({"num_labels": None, "id2label": None}) == BertConfig()


@pytest.mark.parametrize("value", [0, -2, 1.5, "3", True])
def test_num_labels_is_an_integer_from_1(value: object) -> None:
    assert refusal(num_labels=value) == f"num_labels is {value!r}, expected an integer ≥ 1"


@pytest.mark.parametrize("value", [["a", "b"], {}, "a", 3])
def test_id2label_is_an_object(value: object) -> None:
    expected = "an object from the ids '0', '1', … to their names"
    assert refusal(id2label=value) == f"id2label is {value!r}, expected {expected}"


@pytest.mark.parametrize("ids", [["1", "2"], ["0", "2"], ["0", "01"], ["a"], ["0", "-1"]])
def test_id2label_has_the_ids_from_0(ids: list[str]) -> None:
    expected = "an object from the ids '0', '1', … to their names"
    message = refusal(id2label=dict.fromkeys(ids, "name"))
    assert message == f"id2label has the ids {ids}, expected {expected}"


def test_id2label_names_a_few_of_many_wrong_ids() -> None:
    message = refusal(id2label={str(index): "name" for index in range(1, 100)})
    assert "['1', '2', '3', '4', '5', '6', '7', '8']," in message


def test_id2label_holds_strings() -> None:
    assert refusal(id2label={"0": 7}).startswith("labels is (7,), expected a tuple of names")


def test_file_absent_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        BertConfig.from_file(tmp_path / "config.json")
    assert str(caught.value) == (
        f"{tmp_path / 'config.json'}: no such file; "
        "a checkpoint folder needs the config.json of its model"
    )


def test_file_that_is_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path}: cannot be read: Is a directory$"):
        BertConfig.from_file(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe{}", b"{'a': 1}", b"[" * 100_000, b"\xef\xbb\xbf{}", b"{} {}"],
    ids=["empty", "open", "not-utf8", "quotes", "deep", "bom", "two"],
)
def test_file_that_is_not_json_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{path}: not JSON: .") as caught:
        BertConfig.from_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "kind"), [("[]", "list"), ("3", "int"), ("null", "NoneType"), ('"bert"', "str")]
)
def test_file_that_is_no_object_is_said(tmp_path: Path, content: str, kind: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        BertConfig.from_file(path)
    assert str(caught.value) == f"{path}: got a {kind}, expected a JSON object"


def test_file_with_a_wrong_key_begins_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"hidden_size": -4, "layer_norm_eps": NaN}')
    with pytest.raises(MinibertError) as caught:
        BertConfig.from_file(path)
    assert str(caught.value) == f"{path}: hidden_size is -4, expected an integer from 1 to 1048576"


def test_file_with_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"layer_norm_eps": NaN}')
    with pytest.raises(ConfigError, match=r"layer_norm_eps is nan, expected a number > 0$"):
        BertConfig.from_file(str(path))


def test_real_config_is_read(minilm: Path) -> None:
    config = BertConfig.from_file(minilm / "config.json")
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (
        384,
        6,
        1536,
    )
    assert (config.num_attention_heads, config.head_dim, config.vocab_size) == (12, 32, 30522)
    assert (config.hidden_act, config.layer_norm_eps) == ("gelu", 1e-12)


@given(configs())
def test_config_is_what_it_was_after_json(config: module.BertConfig) -> None:
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_labels_keep_their_names_and_order_in_json() -> None:
    values = TINY.to_dict()
    assert values["id2label"] == {"0": "no", "1": "yes", "2": "maybe"}
    assert values["label2id"] == {"no": 0, "yes": 1, "maybe": 2}
    assert "labels" not in values
