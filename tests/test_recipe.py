"""Recipes: the real folder's, each key of each file, and every refusal with the file's name."""

import json
from pathlib import Path
from typing import Any

import pytest
from strategies import TINY, without_type_checks

from minibert import recipe as module
from minibert.config import BertConfig
from minibert.errors import CheckpointError
from minibert.pooling import POOLINGS
from minibert.recipe import DenseStep, Recipe, read_recipe

PARTS = "sentence_transformers.models"
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": f"{PARTS}.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{PARTS}.Pooling"},
]
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{PARTS}.Normalize"}
DENSE = {"in_features": 4, "out_features": 3, "bias": True}
DENSE["activation_function"] = "torch.nn.modules.activation.Tanh"  # type: ignore[assignment]
LIMIT = 8  # TINY's positions


def folder_of(folder: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def recipe_of(folder: Path, files: dict[str, object], max_length: int | None = None) -> Recipe:
    return read_recipe(folder_of(folder, files), TINY, max_length)


def pooled(folder: Path, pooling: object, *more: dict[str, Any], **files: object) -> Recipe:
    """The recipe of a folder with this pooling, and what stands behind it."""
    modules: list[object] = [*MODULES, *more]
    written = {"modules.json": modules, "1_Pooling/config.json": pooling}
    return recipe_of(folder, written | {n.replace("__", "/"): c for n, c in files.items()})


def dense_steps(folder: Path, *configs: object) -> Recipe:
    """The recipe of a folder with these dense modules behind mean pooling."""
    modules: list[object] = [*MODULES]
    files: dict[str, object] = {"1_Pooling/config.json": {"pooling_mode_mean_tokens": True}}
    for number, config in enumerate(configs, start=2):
        modules.append({"path": f"{number}_Dense", "type": f"{PARTS}.Dense"})
        files[f"{number}_Dense/config.json"] = config
    return recipe_of(folder, {"modules.json": modules} | files)


def refusal(folder: Path, files: dict[str, object], max_length: Any = None) -> str:
    """What the folder is refused with, by the module as users have it."""
    plain = without_type_checks(module)
    with pytest.raises(CheckpointError) as caught:
        plain.read_recipe(folder_of(folder, files), TINY, max_length)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- what folders say


def test_recipe_of_the_real_checkpoint(minilm: Path) -> None:
    recipe = read_recipe(minilm, BertConfig.from_file(minilm / "config.json"), 512)
    assert recipe == Recipe(
        max_length=256,
        pooling=("mean",),
        pools_prompt=True,
        dense=(),
        normalise=True,
        lowercase=False,
        prompts={},
        default_prompt=None,
        origin="sentence-transformers modules.json",
    )


def test_recipe_of_a_plain_folder_is_the_normalised_mean(tmp_path: Path) -> None:
    assert recipe_of(tmp_path, {}) == Recipe(
        max_length=LIMIT,
        pooling=("mean",),
        pools_prompt=True,
        dense=(),
        normalise=True,
        lowercase=False,
        prompts={},
        default_prompt=None,
        origin="plain BERT folder: mean pooling, normalised",
    )


def test_recipe_as_a_dict_has_what_decides_a_vector() -> None:
    step = DenseStep(Path("x"), 4, 3, True, "tanh")
    recipe = Recipe(5, ("cls", "max"), False, (step,), False, True, {"q": "Q: "}, "q", "there")
    assert recipe.to_dict() == {
        "max_length": 5,
        "pooling": ["cls", "max"],
        "pools_prompt": False,
        "dense": [[4, 3, True, "tanh"]],
        "normalise": False,
        "lowercase": True,
        "prompts": {"q": "Q: "},
        "default_prompt": "q",
    }
    json.dumps(recipe.to_dict())


@pytest.mark.parametrize(
    ("said", "tokenizer", "expected"),
    [
        (5, 6, 5),  # the recipe comes first
        (6, 5, 6),
        (None, 6, 6),
        (None, None, LIMIT),
        (9, None, LIMIT),  # no more than there are positions
        (None, 512, LIMIT),
        (3, None, 3),
        (LIMIT, None, LIMIT),
    ],
)
def test_max_length_is_the_recipes_then_the_tokenizers_then_the_positions(
    tmp_path: Path, said: int | None, tokenizer: int | None, expected: int
) -> None:
    files: dict[str, object] = {"sentence_bert_config.json": {"max_seq_length": said}}
    assert recipe_of(tmp_path, files, tokenizer).max_length == expected


def test_lowercase_is_the_recipes(tmp_path: Path) -> None:
    files: dict[str, object] = {"sentence_bert_config.json": {"do_lower_case": True}}
    assert recipe_of(tmp_path, files).lowercase


def test_prompts_are_read(tmp_path: Path) -> None:
    values = {"prompts": {"query": "query: ", "none": ""}, "default_prompt_name": "query"}
    recipe = recipe_of(tmp_path, {"config_sentence_transformers.json": values})
    assert recipe.prompts == {"query": "query: ", "none": ""}
    assert recipe.default_prompt == "query"
    values = {"prompts": None, "default_prompt_name": None}  # type: ignore[dict-item]
    recipe = recipe_of(tmp_path, {"config_sentence_transformers.json": values})
    assert (recipe.prompts, recipe.default_prompt) == ({}, None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ("mean",)),
        ({"pooling_mode_cls_token": True}, ("cls",)),
        ({"pooling_mode_max_tokens": True}, ("max",)),
        ({"pooling_mode_mean_tokens": True}, ("mean",)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len",)),
        ({"pooling_mode_weightedmean_tokens": True}, ("weightedmean",)),
        ({"pooling_mode_lasttoken": True}, ("lasttoken",)),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            ("cls", "mean"),
        ),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False}, ("mean",)),
        ({"pooling_mode": "cls"}, ("cls",)),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, ("mean_sqrt_len",)),
        ({"pooling_mode": ["lasttoken", "mean_sqrt_len_tokens"]}, ("lasttoken", "mean_sqrt_len")),
        ({"pooling_mode": "max", "pooling_mode_cls_token": True}, ("max",)),
    ],
)
def test_pooling_is_read_in_both_spellings(
    tmp_path: Path, values: dict[str, object], expected: tuple[str, ...]
) -> None:
    assert pooled(tmp_path, values).pooling == expected


def test_flags_of_several_poolings_join_in_one_order(tmp_path: Path) -> None:
    values = {
        f"pooling_mode_{name}": True
        for name in (
            *["lasttoken", "weightedmean_tokens", "mean_sqrt_len_tokens", "mean_tokens"],
            *["max_tokens", "cls_token"],
        )
    }
    order = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
    assert pooled(tmp_path, values).pooling == order


@pytest.mark.parametrize(("value", "expected"), [(True, True), (False, False), (None, False)])
def test_prompts_are_pooled_unless_told(tmp_path: Path, value: bool | None, expected: bool) -> None:
    assert pooled(tmp_path, {"include_prompt": value}).pools_prompt == expected
    assert pooled(tmp_path, {}).pools_prompt


def test_vectors_are_normalised_where_modules_end_in_it(tmp_path: Path) -> None:
    assert not pooled(tmp_path, {}).normalise
    recipe = pooled(tmp_path, {}, NORMALIZE)
    assert recipe.normalise
    assert recipe.origin == "sentence-transformers modules.json"


def test_modules_of_version_5_are_known_by_their_last_name(tmp_path: Path) -> None:
    place = "sentence_transformers.sentence_transformer.modules"
    modules = [
        {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"path": "1_Pooling", "type": f"{place}.pooling.Pooling"},
        {"path": "2_Normalize", "type": f"{place}.normalize.Normalize"},
    ]
    files: dict[str, object] = {"modules.json": modules, "1_Pooling/config.json": {}}
    assert recipe_of(tmp_path, files).normalise


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torch.nn.modules.linear.Identity", "identity"),
        ("torch.nn.modules.activation.Tanh", "tanh"),
        ("torch.nn.modules.activation.GELU", "gelu"),
        ("torch.nn.modules.activation.ReLU", "relu"),
        ("torch.nn.modules.activation.SiLU", "silu"),
    ],
)
def test_dense_modules_are_read(tmp_path: Path, name: str, expected: str) -> None:
    recipe = dense_steps(tmp_path, DENSE | {"activation_function": name})
    assert recipe.dense == (DenseStep(tmp_path / "2_Dense", 4, 3, True, expected),)
    assert not recipe.normalise


def test_dense_modules_follow_each_other_in_width(tmp_path: Path) -> None:
    second = {"in_features": 3, "out_features": 7, "bias": False}
    recipe = dense_steps(tmp_path, DENSE, second)
    assert recipe.dense[1] == DenseStep(tmp_path / "3_Dense", 3, 7, False, "tanh")


def test_dense_modules_have_a_bias_and_tanh_unless_told(tmp_path: Path) -> None:
    (step,) = dense_steps(tmp_path, {"in_features": 4, "out_features": 1}).dense
    assert (step.bias, step.activation) == (True, "tanh")


def test_dense_module_takes_all_joined_poolings(tmp_path: Path) -> None:
    dense = {"path": "2_Dense", "type": f"{PARTS}.Dense"}
    recipe = pooled(
        tmp_path,
        {"pooling_mode": ["cls", "mean"]},
        dense,
        NORMALIZE,
        **{"2_Dense__config.json": DENSE | {"in_features": 8}},
    )
    assert recipe.dense[0].in_features == 8
    assert recipe.normalise


# ---- refusals


@pytest.mark.parametrize("value", [2, 0, -1, "256", 12.0, True, [256]])
def test_max_seq_length_without_room_for_text_is_refused(tmp_path: Path, value: object) -> None:
    files: dict[str, object] = {"sentence_bert_config.json": {"max_seq_length": value}}
    assert refusal(tmp_path, files) == (
        f"{tmp_path / 'sentence_bert_config.json'}: max_seq_length is {value!r}, expected an "
        "integer ≥ 3: [CLS], [SEP] and some text"
    )


def test_model_max_length_without_room_for_text_is_blamed_on_its_own_file(tmp_path: Path) -> None:
    assert refusal(tmp_path, {}, max_length=2) == (
        f"{tmp_path / 'tokenizer_config.json'}: model_max_length is 2, expected an integer ≥ 3: "
        "[CLS], [SEP] and some text"
    )


@pytest.mark.parametrize("prompts", [["query: "], {"query": 3}, "query: ", {"query": None}])
def test_prompts_that_are_no_texts_are_refused(tmp_path: Path, prompts: object) -> None:
    path = tmp_path / "config_sentence_transformers.json"
    assert refusal(tmp_path, {path.name: {"prompts": prompts}}) == (
        f"{path}: prompts is {prompts!r}, expected an object from names to texts"
    )


@pytest.mark.parametrize("name", ["query", 3, ["a"]])
def test_default_prompt_that_is_none_is_refused(tmp_path: Path, name: object) -> None:
    path = tmp_path / "config_sentence_transformers.json"
    values = {"prompts": {"b": "", "a": ""}, "default_prompt_name": name}
    assert refusal(tmp_path, {path.name: values}) == (
        f"{path}: default_prompt_name is {name!r}, expected a name of its prompts ['a', 'b']"
    )


FILES = ["sentence_bert_config.json", "config_sentence_transformers.json", "modules.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_file_that_is_no_json_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    message = refusal(tmp_path, {name: content})
    assert message.startswith(f"{tmp_path / name}: cannot be read as JSON: ")


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert refusal(tmp_path, {}).startswith(f"{tmp_path / name}: cannot be read as JSON: ")


def test_file_with_other_json_is_refused(tmp_path: Path) -> None:
    for name, content, got, expected in [
        (FILES[0], [], "list", "dict"),
        (FILES[1], 3, "int", "dict"),
        (FILES[2], {}, "dict", "list"),
    ]:
        message = refusal(tmp_path, {name: content})
        assert message == f"{tmp_path / name}: got a JSON {got}, expected a {expected}"
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    "entry",
    ["Transformer", 3, None, {}, {"type": "x.Pooling"}, {"path": ""}, {"type": 1, "path": ""}],
)
def test_modules_without_type_and_path_are_refused(tmp_path: Path, entry: object) -> None:
    assert refusal(tmp_path, {"modules.json": [*MODULES, entry]}) == (
        f"{tmp_path / 'modules.json'}: got {entry!r}, expected an object with type and path"
    )


@pytest.mark.parametrize("place", ["../x", "/etc", "a/../../x", ".."])
@pytest.mark.parametrize("number", [0, 1])
def test_modules_outside_the_folder_are_refused(tmp_path: Path, place: str, number: int) -> None:
    modules = [dict(entry) for entry in MODULES]
    modules[number]["path"] = place
    assert refusal(tmp_path, {"modules.json": modules}) == (
        f"{tmp_path / 'modules.json'}: names the path {place!r}, expected a folder inside; do not "
        "trust this checkpoint"
    )


@pytest.mark.parametrize("kind", ["WeightedLayerPooling", "LSTM", "os.system", "", "x.transformer"])
def test_unknown_modules_are_refused(tmp_path: Path, kind: str) -> None:
    modules = [*MODULES, {"path": "2_X", "type": kind}]
    known = ["Transformer", "Pooling", "Dense", "Normalize"]
    assert refusal(tmp_path, {"modules.json": modules}) == (
        f"{tmp_path / 'modules.json'}: names the module {kind.rsplit('.')[-1]}, expected one of "
        f"{known}; this checkpoint needs sentence-transformers itself"
    )


@pytest.mark.parametrize(
    "kinds",
    [
        [],
        ["Transformer"],
        ["Pooling", "Transformer"],
        ["Transformer", "Dense"],
        ["Transformer", "Normalize"],
        ["Transformer", "Pooling", "Pooling"],
        ["Transformer", "Pooling", "Normalize", "Dense"],
        ["Transformer", "Pooling", "Normalize", "Normalize"],
        ["Transformer", "Transformer", "Pooling"],
    ],
)
def test_modules_in_another_order_are_refused(tmp_path: Path, kinds: list[str]) -> None:
    modules = [{"path": str(index), "type": f"x.{kind}"} for index, kind in enumerate(kinds)]
    assert refusal(tmp_path, {"modules.json": modules}) == (
        f"{tmp_path / 'modules.json'}: has the modules {kinds}, expected Transformer, Pooling, "
        "then any Dense, then perhaps Normalize"
    )


@pytest.mark.parametrize("mode", ["median", ["mean", "x"], [], 5, {"mean": True}, "", [["mean"]]])
def test_unknown_pooling_is_refused(tmp_path: Path, mode: object) -> None:
    files: dict[str, object] = {
        "modules.json": MODULES,
        "1_Pooling/config.json": {"pooling_mode": mode},
    }
    assert refusal(tmp_path, files) == (
        f"{tmp_path / '1_Pooling' / 'config.json'}: pooling_mode is {mode!r}, expected names of "
        f"{list(POOLINGS)}"
    )


def test_pooling_without_its_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, {"modules.json": MODULES}) == (
        f"{tmp_path / '1_Pooling' / 'config.json'}: no such file, though modules.json names its "
        "folder; fetch the checkpoint again"
    )


def dense_files(config: object) -> dict[str, object]:
    modules = [*MODULES, {"path": "2_Dense", "type": "x.Dense"}]
    files: dict[str, object] = {"modules.json": modules, "1_Pooling/config.json": {}}
    return files | ({} if config is None else {"2_Dense/config.json": config})


def test_dense_module_without_its_file_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, dense_files(None))
    assert message.startswith(f"{tmp_path / '2_Dense' / 'config.json'}: no such file, though")


@pytest.mark.parametrize(
    ("got", "given"), [(5, 3), (None, 3), (4, None), (4, 0), (4, -3), (4, "3"), ("4", 3), (4.0, 3)]
)
def test_dense_module_of_another_width_is_refused(
    tmp_path: Path, got: object, given: object
) -> None:
    config = DENSE | {"in_features": got, "out_features": given}
    assert refusal(tmp_path, dense_files(config)) == (
        f"{tmp_path / '2_Dense' / 'config.json'}: has in_features {got!r} and out_features "
        f"{given!r}, expected 4 and an integer ≥ 1"
    )


@pytest.mark.parametrize("activation", ["os.system", "tanh", "", None, 3, ["x"]])
def test_dense_module_with_unknown_activation_is_refused(
    tmp_path: Path, activation: object
) -> None:
    message = refusal(tmp_path, dense_files(DENSE | {"activation_function": activation}))
    assert message.startswith(
        f"{tmp_path / '2_Dense' / 'config.json'}: has activation_function {activation!r} and "
        "use_residual False, expected one of ['torch.nn.modules.linear.Identity', "
    )


def test_dense_module_with_a_residual_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, dense_files(DENSE | {"use_residual": True}))
    assert message.endswith("] and false")
    assert "use_residual True" in message
    assert dense_steps(tmp_path, DENSE | {"use_residual": False}).dense
