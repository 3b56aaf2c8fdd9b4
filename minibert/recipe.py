"""How a checkpoint wants its texts embedded: the sentence-transformers recipe, or a plain default.

A sentence-transformers folder says in `modules.json` what stands behind the encoder (pooling, dense
layers, normalisation), and in small files beside it how long a text may be and which prompts there
are.  A plain BERT folder says nothing: then it is mean pooling, normalised.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minibert.config import BertConfig
from minibert.errors import CheckpointError
from minibert.files import replacing
from minibert.pooling import POOLINGS

_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")

# Flags of older files, in the order in which their vectors are joined.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# Activations of a dense module, by the class that its file names; a file never gets to import one.
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.SiLU": "silu",
}


@dataclass(frozen=True)
class DenseStep:
    """A dense module behind the pooling: activation(x W + b), its weights in `folder`."""

    folder: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str


@dataclass(frozen=True)
class Recipe:
    """From text to vector: everything but the encoder itself."""

    max_length: int  # tokens, [CLS] and [SEP] included
    pooling: tuple[str, ...] = ("mean",)
    pools_prompt: bool = True  # whether the prompt's tokens are pooled too
    dense: tuple[DenseStep, ...] = ()
    normalise: bool = True
    lowercase: bool = False  # before all that the tokenizer itself does
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None  # a name of `prompts`
    origin: str = "plain BERT folder: mean pooling, normalised"

    def to_dict(self) -> dict[str, Any]:
        """What decides a vector, for fingerprints and for showing."""
        return {
            "max_length": self.max_length,
            "pooling": list(self.pooling),
            "pools_prompt": self.pools_prompt,
            "dense": [[d.in_features, d.out_features, d.bias, d.activation] for d in self.dense],
            "normalise": self.normalise,
            "lowercase": self.lowercase,
            "prompts": dict(self.prompts),
            "default_prompt": self.default_prompt,
        }


def read_recipe(folder: Path, config: BertConfig, tokenizer_max_length: int | None) -> Recipe:
    """The recipe of a checkpoint folder.

    Raises: CheckpointError for a module that is not known here, a path that leaves the folder, or
        a file that does not say what it should.
    """
    transformer = _read(folder / "sentence_bert_config.json")
    general = _read(folder / "config_sentence_transformers.json")
    said, key = transformer.get("max_seq_length"), "sentence_bert_config.json: max_seq_length"
    if said is None:
        said, key = tokenizer_max_length, "tokenizer_config.json: model_max_length"
    if said is not None and (not isinstance(said, int) or isinstance(said, bool) or said < 3):
        raise CheckpointError(
            f"{folder / key} is {said!r}, expected an integer ≥ 3: [CLS], [SEP] and some text"
        )
    prompts = general.get("prompts") or {}
    default = general.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(p, str) for p in prompts.values()):
        raise CheckpointError(
            f"{folder / 'config_sentence_transformers.json'}: prompts is {prompts!r}, expected an "
            "object from names to texts"
        )
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise CheckpointError(
            f"{folder / 'config_sentence_transformers.json'}: default_prompt_name is {default!r}, "
            f"expected a name of its prompts {sorted(prompts)}"
        )
    positions = config.max_position_embeddings
    common: dict[str, Any] = {
        "max_length": positions if said is None else min(said, positions),
        "lowercase": bool(transformer.get("do_lower_case", False)),
        "prompts": prompts,
        "default_prompt": default,
    }
    if not (folder / "modules.json").exists():
        return Recipe(**common)
    return Recipe(**common, **_read_modules(folder, config))


def write_recipe(recipe: Recipe, folder: Path, *, hidden_size: int) -> list[Path]:
    """Write a recipe as sentence-transformers reads it, in the form that all its versions know.

    Returns: a folder for the weights of each dense module.
    Raises: CheckpointError when the folder cannot be written to.
    """
    kinds = ["Transformer", "Pooling", *["Dense"] * len(recipe.dense)]
    kinds += ["Normalize"] if recipe.normalise else []
    places = ["", *(f"{index}_{kind}" for index, kind in enumerate(kinds) if index)]
    modules = [
        {"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, place) in enumerate(zip(kinds, places, strict=True))
    ]
    pooling: dict[str, Any] = {
        "word_embedding_dimension": hidden_size,
        "include_prompt": recipe.pools_prompt,
    }
    flags = {flag: mode in recipe.pooling for flag, mode in _POOLING_FLAGS.items()}
    if tuple(mode for flag, mode in _POOLING_FLAGS.items() if flags[flag]) == recipe.pooling:
        pooling |= flags
    else:  # in an order that the flags cannot say
        names = {"mean_sqrt_len": "mean_sqrt_len_tokens"}
        pooling["pooling_mode"] = [names.get(mode, mode) for mode in recipe.pooling]
    files: dict[Path, Any] = {
        folder / "modules.json": modules,
        folder / "sentence_bert_config.json": {
            "max_seq_length": recipe.max_length,
            "do_lower_case": recipe.lowercase,
        },
        folder / "config_sentence_transformers.json": {
            "prompts": dict(recipe.prompts),
            "default_prompt_name": recipe.default_prompt,
            "similarity_fn_name": "cosine",
        },
        folder / places[1] / "config.json": pooling,
    }
    classes = {name: path for path, name in _ACTIVATIONS.items()}
    dense = [folder / place for place in places[2 : 2 + len(recipe.dense)]]
    for place, step in zip(dense, recipe.dense, strict=True):
        files[place / "config.json"] = {
            "in_features": step.in_features,
            "out_features": step.out_features,
            "bias": step.bias,
            "activation_function": classes[step.activation],
        }
    try:
        for path, values in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                part.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
        if recipe.normalise:  # older versions look for the folder of every module
            (folder / places[-1]).mkdir(exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be written: {error}; free space or choose another folder"
        ) from None
    return dense


def _read_modules(folder: Path, config: BertConfig) -> dict[str, Any]:
    """What `modules.json` puts behind the encoder."""
    path = folder / "modules.json"
    modules = _read(path, expected=list)
    steps: list[tuple[str, Path]] = []
    for module in modules:
        known = module if isinstance(module, dict) else {}
        kind, place = known.get("type"), known.get("path")
        if not isinstance(kind, str) or not isinstance(place, str):
            raise CheckpointError(f"{path}: got {module!r}, expected an object with type and path")
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise CheckpointError(
                f"{path}: names the path {place!r}, expected a folder inside; do not trust this "
                "checkpoint"
            )
        steps.append((kind.rsplit(".", 1)[-1], folder / place))
    kinds = [kind for kind, _ in steps]
    unknown = [
        kind for kind in kinds if kind not in ("Transformer", "Pooling", "Dense", "Normalize")
    ]
    if unknown:
        raise CheckpointError(
            f"{path}: names the module {unknown[0]}, expected one of {list(_MODULES)}; "
            "this checkpoint needs sentence-transformers itself"
        )
    normalised = kinds[-1:] == ["Normalize"]
    rest = kinds[2:-1] if normalised else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Dense" for kind in rest):
        raise CheckpointError(
            f"{path}: has the modules {kinds}, expected Transformer, Pooling, then any Dense, "
            "then perhaps Normalize"
        )
    pooling, pools_prompt = _read_pooling(steps[1][1] / "config.json")
    width = config.hidden_size * len(pooling)
    dense = []
    for kind, place in steps[2:]:
        if kind == "Dense":
            dense.append(_read_dense(place, width))
            width = dense[-1].out_features
    return {
        "pooling": pooling,
        "pools_prompt": pools_prompt,
        "dense": tuple(dense),
        "normalise": normalised,
        "origin": "sentence-transformers modules.json",
    }


def _read_pooling(path: Path) -> tuple[tuple[str, ...], bool]:
    values = _read(path, needed=True)
    modes = values.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if values.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    names = {"mean_sqrt_len_tokens": "mean_sqrt_len"}
    listed = isinstance(modes, list) and all(isinstance(mode, str) for mode in modes)
    modes = tuple(names.get(mode, mode) for mode in modes) if listed else ()
    if not modes or any(mode not in POOLINGS for mode in modes):
        raise CheckpointError(
            f"{path}: pooling_mode is {values.get('pooling_mode')!r}, expected names of "
            f"{list(POOLINGS)}"
        )
    return modes, bool(values.get("include_prompt", True))


def _read_dense(place: Path, width: int) -> DenseStep:
    path = place / "config.json"
    values = _read(path, needed=True)
    sizes = [values.get("in_features"), values.get("out_features")]
    if not all(isinstance(size, int) and size > 0 for size in sizes) or sizes[0] != width:
        raise CheckpointError(
            f"{path}: has in_features {sizes[0]!r} and out_features {sizes[1]!r}, expected "
            f"{width} and an integer ≥ 1"
        )
    activation = values.get("activation_function", "torch.nn.modules.activation.Tanh")
    known = isinstance(activation, str) and activation in _ACTIVATIONS
    if not known or values.get("use_residual"):
        raise CheckpointError(
            f"{path}: has activation_function {activation!r} and use_residual "
            f"{values.get('use_residual', False)!r}, expected one of {list(_ACTIVATIONS)} and false"
        )
    name = _ACTIVATIONS[activation]
    return DenseStep(place, sizes[0], sizes[1], bool(values.get("bias", True)), name)


def _read(path: Path, *, expected: type = dict, needed: bool = False) -> Any:
    """The JSON of a file; empty where there is none and none is needed."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if needed:
            raise CheckpointError(
                f"{path}: no such file, though modules.json names its folder; fetch the "
                "checkpoint again"
            ) from None
        return expected()
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(values, expected):
        raise CheckpointError(
            f"{path}: got a JSON {type(values).__name__}, expected a {expected.__name__}"
        )
    return values
