"""Vectors against sentence-transformers, on the real checkpoint: ordinary and hostile texts, long
ones, prompts, every pooling, dense modules, folders of the old and of the new format.

Unit vectors differ by at most 1e-6 in any component.
"""

import csv
import json
import logging
import random
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import texts

from minibert import Embedder

pytestmark = pytest.mark.reference

TOLERANCE = 1e-6
SENTENCES = [
    "The cat sat on the mat.",
    "A feline rested on the rug, purring.",
    "Straße, naïve, e\u0301clair, ﬁne",
    "今天天气很好,我们去公园吧。",
    "Она читает книгу у окна.",
    "¿Dónde está la biblioteca? 👩🏽‍🚀 [SEP] [MASK]",
    "x" * 101,
    "",
    "?!",
    "The quick brown fox jumps over the lazy dog while seventeen auditors count the invoices. " * 2,
]
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}

_log = logging.getLogger("minibert.tests")
_worst: dict[str, tuple[float, int]] = {}


@pytest.fixture(scope="module", autouse=True)
def _report_the_largest_errors() -> Iterator[None]:
    """Shown by `pytest --log-cli-level=INFO`."""
    yield
    for check, (error, count) in sorted(_worst.items()):
        _log.info("%s: %d texts, largest error %.2e", check, count, error)


def load_theirs(folder: Path | str, **options: Any) -> Any:
    # Here: the default suite imports this file too, in an environment without it.
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", **options)


def theirs_named(name: str) -> Any:
    from sentence_transformers.sentence_transformer import modules

    return getattr(modules, name)


@pytest.fixture(scope="module")
def theirs(minilm: Path) -> Any:
    return load_theirs(minilm)


@pytest.fixture(scope="module")
def ours(minilm: Path) -> Embedder:
    return Embedder.from_pretrained(minilm)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that goes again: pytest would keep many of these."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def units(vectors: NDArray[Any]) -> NDArray[Any]:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=-1, keepdims=True)


def assert_near(check: str, got: NDArray[Any], expected: NDArray[Any], bound: float) -> None:
    assert got.shape == expected.shape
    error = float(np.abs(got - expected).max(initial=0.0))
    before, count = _worst.get(check, (0.0, 0))
    _worst[check] = max(before, error), count + (len(got) if got.ndim == 2 else 1)
    if error > bound:
        row = int(np.abs(np.atleast_2d(got - expected)).max(axis=1).argmax())
        pytest.fail(f"{check}: error {error:.2e}, largest in row {row}")


def assert_same(check: str, got: NDArray[Any], expected: NDArray[Any]) -> None:
    """Unit vectors, equal to 1e-6."""
    assert np.abs(np.linalg.norm(got.astype(np.float64), axis=-1) - 1).max() <= 1e-6
    assert_near(check, got, expected, TOLERANCE)


def assert_same_raw(check: str, got: NDArray[Any], expected: NDArray[Any]) -> None:
    """Vectors of any length, equal as hidden states are: to 1e-5 of the largest component."""
    scale = max(1.0, float(np.abs(expected).max()))
    assert_near(f"{check}, raw", got, expected, 1e-5 * scale)


# Ordinary and hostile texts.


@settings(max_examples=15)
@given(batch=st.lists(texts(), min_size=1, max_size=4))
def test_drawn_texts_equal_sentence_transformers(
    ours: Embedder, theirs: Any, batch: list[str]
) -> None:
    assert_same("drawn texts", ours.encode(batch), theirs.encode(batch))


def ordinary(data: Path) -> list[str]:
    """Film reviews and captions, one of every few."""
    lines = (data / "sst2" / "stsa.binary.dev").read_text(encoding="utf-8").splitlines()
    with (data / "stsb" / "sts-test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    pairs = [text for row in rows[::28] for text in row[5:7]]
    return [line.split(" ", 1)[1] for line in lines[::8]] + pairs


def naughty(data: Path) -> list[str]:
    found: list[str] = json.loads((data / "blns" / "blns.json").read_text(encoding="utf-8"))
    return found


def of_many_languages(data: Path) -> list[str]:
    """From a seeded place on, of each language's declaration of human rights."""
    rng = random.Random(0)
    found = []
    with zipfile.ZipFile(data / "udhr" / "udhr2.zip") as archive:
        for name in sorted(archive.namelist()):
            text = archive.read(name).decode("utf-8-sig", errors="replace")
            if text:
                start = rng.randrange(max(1, len(text) - 90))
                found.append(text[start : start + 90])
    return found


def of_unicode(data: Path) -> list[str]:
    """Sequences that normalisation and segmentation get wrong, and a page in many scripts."""
    folder = data / "unicode"
    lines = (folder / "NormalizationTest.txt").read_text(encoding="utf-8").splitlines()
    sources = [line.split(";") for line in lines if line and line[0] not in "#@"]
    found = [
        "".join(chr(int(code, 16)) for code in column.split())
        for row in sources[::200]
        for column in row[:2]
    ]
    lines = (folder / "GraphemeBreakTest.txt").read_text(encoding="utf-8").splitlines()
    for line in lines[::20]:
        codes = line.split("#")[0].replace("÷", " ").replace("×", " ").split()
        characters = [chr(int(code, 16)) for code in codes]
        found.append("".join(c for c in characters if not 0xD800 <= ord(c) < 0xE000))
    found += (folder / "UTF-8-demo.txt").read_text(encoding="utf-8").split("\n\n")
    return found


@pytest.mark.data
@pytest.mark.parametrize(
    ("source", "at_least"),
    [(ordinary, 200), (naughty, 500), (of_many_languages, 380), (of_unicode, 250)],
)
def test_texts_of_the_data_sets_equal_sentence_transformers(
    source: Callable[[Path], list[str]], at_least: int, data: Path, ours: Embedder, theirs: Any
) -> None:
    found = source(data)
    assert len(found) >= at_least
    expected = theirs.encode(found, batch_size=32)
    assert_same(source.__name__.replace("_", " "), ours.encode(found), expected)


@pytest.mark.parametrize(
    "text",
    [
        "word " * 253,
        "word " * 254,
        "word " * 255,
        "unbelievably " * 400,
        "北京是中国的首都" * 60,
        "x" * 5000 + " and then " * 300,
        "[SEP] " * 300,
    ],
)
def test_long_text_is_cut_as_sentence_transformers_does(
    text: str, ours: Embedder, theirs: Any
) -> None:
    assert theirs.max_seq_length == ours.recipe.max_length == 256
    assert_same("long texts", ours.encode(text), theirs.encode(text))


# Settings.


def test_truncate_dim_is_theirs_normalised_again(ours: Embedder, theirs: Any) -> None:
    for width in (1, 64, 383, 384):
        cut = theirs.encode(SENTENCES, truncate_dim=width)
        assert_same("truncate_dim", ours.encode(SENTENCES, truncate_dim=width), units(cut))
        again = theirs.encode(SENTENCES, truncate_dim=width, normalize_embeddings=True)
        assert_same("truncate_dim", ours.encode(SENTENCES, truncate_dim=width), again)


def test_binary_is_their_ubinary_and_their_binary_less_128(ours: Embedder) -> None:
    from sentence_transformers.util import quantize_embeddings

    for width in (384, 381):
        floats = ours.encode(SENTENCES, truncate_dim=width)
        binary = ours.encode(SENTENCES, truncate_dim=width, precision="binary")
        np.testing.assert_array_equal(binary, quantize_embeddings(floats, "ubinary"))
        theirs = quantize_embeddings(floats, "binary")
        np.testing.assert_array_equal(binary.astype(int) - 128, theirs)


@pytest.mark.parametrize(
    ("mode", "include_prompt"),
    [("mean", True), ("mean", False), ("cls", False), ("weightedmean", False), ("max", False)],
)
def test_prompts_equal_sentence_transformers(
    mode: str, include_prompt: bool, theirs: Any, place: Path
) -> None:
    prompts = {"query": "Represent this question: ", "passage": "passage: ", "none": ""}
    modules = [
        theirs[0],
        theirs_named("Pooling")(384, pooling_mode=mode, include_prompt=include_prompt),
        theirs_named("Normalize")(),
    ]
    expected = load_modules(modules, prompts=prompts, default_prompt_name="passage")
    expected.save(str(place))
    ours = Embedder.from_pretrained(place)
    assert ours.recipe.pools_prompt == include_prompt
    check = f"prompts, {'pooled' if include_prompt else 'not pooled'}"
    batch = [*SENTENCES[:6], "word " * 300]
    for name in (None, "query", "none"):
        got = ours.encode(batch, prompt=name)
        assert_same(check, got, expected.encode(batch, prompt_name=name))
    literal = "Ein Satz ohne Namen: "
    got = ours.encode(batch, prompt=literal)
    assert_same(check, got, expected.encode(batch, prompt=literal))


def load_modules(modules: Sequence[Any], **options: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(modules=list(modules), device="cpu", **options)


# Folders.


@pytest.fixture(scope="module")
def new_format(theirs: Any) -> Iterator[Path]:
    """What sentence-transformers 6 saves: other types in modules.json, a pooling_mode."""
    with tempfile.TemporaryDirectory() as name:
        theirs.save(name)
        types = [module["type"] for module in json.loads(Path(name, "modules.json").read_text())]
        assert types[0] == "sentence_transformers.base.modules.transformer.Transformer"
        yield Path(name)


def test_folder_of_the_new_format_equals_sentence_transformers(
    new_format: Path, theirs: Any
) -> None:
    ours = Embedder.from_pretrained(new_format)
    assert ours.recipe.max_length == 256
    assert ours.recipe.normalise
    batch = [*SENTENCES, "word " * 300]
    assert_same("new format", ours.encode(batch), theirs.encode(batch))


POOLINGS = [
    *MODES,
    ("cls", "mean"),
    ("mean", "cls"),
    ("lasttoken", "weightedmean", "max"),
    MODES,
]


@pytest.mark.parametrize("mode", POOLINGS)
def test_pooling_of_the_new_format_equals_sentence_transformers(
    mode: str | tuple[str, ...], new_format: Path, theirs: Any
) -> None:
    pooling = theirs_named("Pooling")(384, pooling_mode=mode)
    pooling.save(str(new_format / "1_Pooling"))
    expected = load_modules([theirs[0], pooling, theirs_named("Normalize")()])
    ours = Embedder.from_pretrained(new_format)
    count = 1 if isinstance(mode, str) else len(mode)
    assert ours.dim == 384 * count
    assert_same("poolings, new format", ours.encode(SENTENCES), expected.encode(SENTENCES))


@pytest.mark.parametrize("mode", POOLINGS)
def test_pooling_of_the_old_format_equals_sentence_transformers(
    mode: str | tuple[str, ...], minilm: Path, place: Path
) -> None:
    """Flags have no order: both libraries join in one that is theirs."""
    modes = (mode,) if isinstance(mode, str) else mode
    flags = {flag: name in modes for name, flag in FLAGS.items()}
    folder = Path(shutil.copytree(minilm, place / "copy"))
    values = {"word_embedding_dimension": 384, **flags}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(values))
    types = [module["type"] for module in json.loads((folder / "modules.json").read_text())]
    assert types[1] == "sentence_transformers.models.Pooling"
    expected, ours = load_theirs(folder), Embedder.from_pretrained(folder)
    assert_same("poolings, old format", ours.encode(SENTENCES), expected.encode(SENTENCES))


@pytest.mark.parametrize(
    ("activations", "bias", "normalised"),
    [
        (["Tanh"], True, True),
        (["Identity"], False, True),
        (["GELU"], True, False),
        (["ReLU"], False, False),
        (["SiLU", "Tanh"], True, True),
    ],
)
def test_dense_modules_equal_sentence_transformers(
    activations: list[str], bias: bool, normalised: bool, theirs: Any, place: Path
) -> None:
    modules, width = [theirs[0], theirs_named("Pooling")(384, pooling_mode=("mean", "cls"))], 768
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for activation in activations:
            function = getattr(torch.nn, activation)()
            dense = theirs_named("Dense")(width, 48, bias=bias, activation_function=function)
            modules.append(dense)
            width = 48
    if normalised:
        modules.append(theirs_named("Normalize")())
    expected = load_modules(modules)
    expected.save(str(place))
    ours = Embedder.from_pretrained(place)
    assert ours.dim == 48
    assert ours.recipe.normalise == normalised
    check = assert_same if normalised else assert_same_raw
    check("dense modules", ours.encode(SENTENCES), expected.encode(SENTENCES))
    both = [model.encode(SENTENCES, normalize_embeddings=True) for model in (ours, expected)]
    assert_same("dense modules", *both)


def test_folder_without_recipe_is_mean_pooling_and_normalised_here(
    minilm: Path, place: Path
) -> None:
    """Theirs is mean pooling too, not normalised; both take all 512 positions."""
    names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    for name in names:
        shutil.copy(minilm / name, place / name)
    expected, ours = load_theirs(place), Embedder.from_pretrained(place)
    assert ours.recipe.max_length == expected.max_seq_length == 512
    batch = [*SENTENCES, "word " * 300, "word " * 600]
    raw = expected.encode(batch)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 1e-2
    assert_same("folder without recipe", ours.encode(batch), units(raw))
    assert_same_raw("folder without recipe", ours.encode(batch, normalize_embeddings=False), raw)


def test_max_seq_length_of_a_saved_model_is_kept(minilm: Path, place: Path) -> None:
    expected = load_theirs(minilm)
    expected.max_seq_length = 9
    expected.save(str(place))
    ours = Embedder.from_pretrained(place)
    assert ours.recipe.max_length == 9
    assert_same("max_seq_length", ours.encode(SENTENCES), expected.encode(SENTENCES))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_model_saved_in_half_precision_is_computed_in_float32(
    dtype: str, minilm: Path, place: Path
) -> None:
    load_theirs(minilm).to(getattr(torch, dtype)).save(str(place))
    expected = load_theirs(place, model_kwargs={"dtype": "float32"})
    ours = Embedder.from_pretrained(place)
    assert_same(f"saved as {dtype}", ours.encode(SENTENCES), expected.encode(SENTENCES))


@pytest.mark.parametrize("cased", [False, True])
def test_do_lower_case_of_the_recipe_equals_sentence_transformers(
    cased: bool, minilm: Path, place: Path
) -> None:
    """It lower-cases as a tokenizer does: per character, and special tokens in a text stay."""
    folder = Path(shutil.copytree(minilm, place / "copy"))
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    if cased:
        edit(folder / "tokenizer_config.json", do_lower_case=False)
        normalizer = json.loads((folder / "tokenizer.json").read_text())["normalizer"]
        edit(folder / "tokenizer.json", normalizer={**normalizer, "lowercase": False})
    expected, ours = load_theirs(folder), Embedder.from_pretrained(folder)
    batch = [*SENTENCES, "Hello WORLD", "ΑΣ ΟΔΟΣ", "İstanbul", "a [SEP] B [MASK]", "ÀÉ ẞ Ⅷ"]
    assert_same("do_lower_case", ours.encode(batch), expected.encode(batch))


def edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(values | changes), encoding="utf-8")


def test_bfloat16_is_at_most_twice_as_wrong_as_theirs(minilm: Path, ours: Embedder) -> None:
    """Both against float32; the mean over the texts, and the direction kept."""
    batch = [text for text in SENTENCES if text]
    expected = ours.encode(batch)
    half = load_theirs(minilm, model_kwargs={"dtype": "bfloat16"})
    their_error = np.abs(half.encode(batch).astype(np.float32) - expected).mean()
    vectors = Embedder.from_pretrained(minilm, dtype="bfloat16").encode(batch)
    error = np.abs(vectors - expected).mean()
    _log.info("bfloat16: mean error %.2e, theirs %.2e", error, their_error)
    assert error <= 2 * their_error
    assert (vectors * expected).sum(axis=1).mean() >= 0.9999


@pytest.mark.parametrize("pooling", [("mean",), ("cls", "max"), ("max", "cls")], ids=str)
def test_what_an_embedder_saves_opens_in_sentence_transformers(
    pooling: tuple[str, ...], ours: Embedder, place: Path
) -> None:
    recipe = replace(ours.recipe, pooling=pooling)
    saved = Embedder(ours.model, ours.tokenizer, recipe)
    saved.save_pretrained(place)
    assert_same(f"saved {pooling}", saved.encode(SENTENCES), load_theirs(place).encode(SENTENCES))
