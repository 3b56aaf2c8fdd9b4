"""Texts in, vectors out: shapes, refusals, long texts, prompts, threads, forks, fingerprints."""

import csv
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.typing import NDArray
from safetensors.torch import save_file
from strategies import randomised, texts, without_type_checks

from minibert import BertConfig, BertModel, Embedder, Tokenizer, embed, tokenizer
from minibert.embed import _merge_windows
from minibert.errors import CheckpointError, TextError, TokenizerError
from minibert.pooling import normalise
from minibert.recipe import Recipe

SENTENCES = [
    "The cat sat on the mat.",
    "A feline rested on the rug.",
    "Interest rates rose by a quarter of a percent.",
    "Wie komme ich zum Bahnhof?",
    "L'été dernier, nous étions à Besançon.",
    "Она читает книгу у окна.",
    "今天天气很好,我们去公园吧。",
    "def add(a, b): return a + b",
    "x" * 40,
    "?!",
    "Ἐν ἀρχῇ ἦν ὁ λόγος",
    "a",
    "The quick brown fox jumps over the lazy dog while seventeen auditors count the invoices.",
    "1234567890 3.14159 -42 1e-9",
    "👩🏽‍🚀 launches 🚀 tomorrow",
    "שלום עולם, ما الأخبار؟",
]
# Nothing of these is left behind the normaliser: [CLS] [SEP].
EMPTY = ["", " ", " \t\r\n\u3000\xa0", "\u0301\u0308\u0301", "\0\x01\x7f\x9f", "\u200b\ufeff\ufffd"]

_log = logging.getLogger("minibert.tests")


@pytest.fixture(scope="module")
def embedder(minilm: Path) -> Embedder:
    return Embedder.from_pretrained(minilm)


@pytest.fixture(scope="module")
def vocab(minilm: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(minilm)


@pytest.fixture(scope="module")
def tiny(vocab: Tokenizer) -> Embedder:
    """A random network, small enough to build again, with the real vocabulary."""
    config = BertConfig(
        vocab_size=vocab.vocab_size, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=12, initializer_range=0.5,
    )  # fmt: skip
    return Embedder(randomised(BertModel(config), seed=1), vocab, Recipe(max_length=16))


@pytest.fixture(scope="module")
def unchecked(minilm: Path) -> Any:
    """The real embedder without the type checks of the tests: refusals as users meet them."""
    plain: Any = without_type_checks(embed)
    tokens: Any = without_type_checks(tokenizer)
    whole = plain.Embedder.from_pretrained(minilm)
    return plain.Embedder(whole.model, tokens.Tokenizer.from_pretrained(minilm), whole.recipe)


def with_recipe(base: Embedder, **changes: Any) -> Embedder:
    """The same network and tokenizer under another recipe."""
    return Embedder(base.model, base.tokenizer, replace(base.recipe, **changes))


def encoder_mean(base: Embedder, ids: Sequence[int]) -> torch.Tensor:
    """The mean of the last hidden states of one sequence, by the padded layout."""
    with torch.no_grad():
        return base.model(torch.tensor([list(ids)])).last_hidden_state.mean(dim=1)[0]


def unit(vector: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = (vector / vector.norm()).numpy()
    return array


def assert_close(got: Any, expected: Any, tolerance: float = 1e-6) -> None:
    assert got.shape == expected.shape
    assert np.isfinite(got).all()
    assert float(np.abs(got - expected).max(initial=0.0)) <= tolerance


# One text, several, none.


def test_encode_gives_a_row_for_each_text(embedder: Embedder) -> None:
    vectors = embedder.encode(SENTENCES)
    assert vectors.shape == (len(SENTENCES), 384) == (len(SENTENCES), embedder.dim)
    assert vectors.dtype == np.float32
    assert len(np.unique(vectors.round(4), axis=0)) == len(SENTENCES)


def test_encode_gives_one_vector_for_a_single_text(embedder: Embedder) -> None:
    vector = embedder.encode(SENTENCES[0])
    assert vector.shape == (384,)
    assert_close(vector, embedder.encode([SENTENCES[0]])[0], 0.0)


@pytest.mark.parametrize("none", [[], (), iter([])])
def test_encode_gives_no_row_for_no_text(none: Any, embedder: Embedder) -> None:
    vectors = embedder.encode(none)
    assert vectors.shape == (0, 384)
    assert vectors.dtype == np.float32


def test_encode_takes_any_iterable_of_texts(embedder: Embedder) -> None:
    expected = embedder.encode(SENTENCES[:3])
    assert_close(embedder.encode(text for text in SENTENCES[:3]), expected, 0.0)
    assert_close(embedder.encode(tuple(SENTENCES[:3])), expected, 0.0)
    assert_close(embedder.encode(np.array(SENTENCES[:3])), expected, 0.0)


def test_encode_keeps_the_order_of_the_texts(embedder: Embedder) -> None:
    """Batches are made by length, so lengths that go up and down show a wrong order."""
    mixed = [text * (1 + index * 7 % 5) for index, text in enumerate(SENTENCES)]
    alone = np.stack([embedder.encode(text) for text in mixed])
    assert_close(embedder.encode(mixed), alone)
    assert_close(embedder.encode(mixed, batch_tokens=32), alone)


def test_encode_is_the_normalised_mean_of_the_last_hidden_states(embedder: Embedder) -> None:
    words = embedder.tokenizer.ids(["The cat sat."])[0]
    ids = [embedder.tokenizer.cls_id, *words, embedder.tokenizer.sep_id]
    assert_close(embedder.encode("The cat sat."), unit(encoder_mean(embedder, ids)))


@pytest.mark.parametrize("text", EMPTY)
def test_text_of_nothing_is_the_vector_of_cls_and_sep(text: str, embedder: Embedder) -> None:
    ids = [embedder.tokenizer.cls_id, embedder.tokenizer.sep_id]
    vector = embedder.encode(text)
    assert_close(vector, unit(encoder_mean(embedder, ids)))
    assert abs(np.linalg.norm(vector.astype(np.float64)) - 1) <= 1e-6
    assert_close(embedder.encode(["text", text, *SENTENCES])[1], vector)


# Refusals.


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [(None, "NoneType"), (7, "int"), (1.5, "float"), (b"bytes", "bytes"), (["a"], "list")],
)
def test_encode_refuses_what_is_no_text_and_names_its_index(
    wrong: object, kind: str, unchecked: Any
) -> None:
    with pytest.raises(TypeError, match=rf"^texts\[2\] must be str, got {kind}$"):
        unchecked.encode(["a", "b", wrong, "c"])
    with pytest.raises(TypeError, match=rf"^texts\[2\] must be str, got {kind}$"):
        unchecked.encode(["a", "b", wrong, "c"], prompt="query: ")


def test_encode_refuses_nan_among_texts(unchecked: Any) -> None:
    with pytest.raises(TypeError, match=r"^texts\[1\] must be str, got float$"):
        unchecked.encode(["a", float("nan")])


@pytest.mark.parametrize("wrong", [None, 7, b"bytes", bytearray(b"bytes")])
def test_encode_refuses_what_holds_no_texts(wrong: object, unchecked: Any) -> None:
    with pytest.raises(TypeError, match=r"^got \w+, expected a text or a list of texts$"):
        unchecked.encode(wrong)


def test_encode_refuses_a_lone_surrogate_and_names_its_index(embedder: Embedder) -> None:
    expected = (
        "texts[1] has the lone surrogate '\\ud83d' at position 2, expected valid Unicode: "
        "decode it with errors='replace'"
    )
    for prompt in (None, "query: "):
        with pytest.raises(TextError) as caught:
            embedder.encode(["fine 😀", "ab\ud83d"], prompt=prompt)
        assert str(caught.value) == expected
    with pytest.raises(TextError, match=r"^texts\[0\] has the lone surrogate"):
        embedder.encode("\udc00")


def test_encode_refuses_a_batch_of_no_tokens(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match=r"^got batch_tokens 0, expected at least 1$"):
        embedder.encode(["a"], batch_tokens=0)


@pytest.mark.parametrize("width", [0, 385, -1])
def test_encode_refuses_more_components_than_there_are(width: int, embedder: Embedder) -> None:
    with pytest.raises(ValueError, match=f"^got truncate_dim {width}, expected 1 to 384"):
        embedder.encode(["a"], truncate_dim=width)


def test_encode_refuses_an_unknown_way_with_long_texts(unchecked: Any) -> None:
    expected = "got long_text 'cut', expected 'truncate', 'windows' or 'error'"
    with pytest.raises(ValueError, match=f"^{expected}$"):
        unchecked.encode(["a"], long_text="cut")


def test_tokenizer_with_more_ids_than_embeddings_is_refused(
    vocab: Tokenizer, tiny: Embedder
) -> None:
    model = BertModel(replace(tiny.model.config, vocab_size=30521))
    with pytest.raises(TokenizerError) as caught:
        Embedder(model, vocab, tiny.recipe)
    assert str(caught.value) == (
        "the tokenizer: has token ids up to 30521, expected at most 30520, the model's last "
        "embedding; the tokenizer must be that of the checkpoint"
    )


def test_tokenizer_with_fewer_ids_than_embeddings_is_taken(
    vocab: Tokenizer, tiny: Embedder
) -> None:
    model = BertModel(replace(tiny.model.config, vocab_size=30600))
    assert Embedder(model, vocab, tiny.recipe).encode(["a"]).shape == (1, 8)


def test_from_pretrained_refuses_a_folder_with_a_larger_tokenizer(
    tmp_path: Path, vocab: Tokenizer, tiny: Embedder
) -> None:
    BertModel(replace(tiny.model.config, vocab_size=100)).save_pretrained(tmp_path)
    vocab.save_pretrained(tmp_path)
    expected = re.escape(f"{tmp_path}: has token ids up to 30521, expected at most 99")
    with pytest.raises(TokenizerError, match=f"^{expected}"):
        Embedder.from_pretrained(tmp_path)


# Long texts.


def test_truncate_takes_the_first_tokens_of_a_long_text(embedder: Embedder) -> None:
    short = with_recipe(embedder, max_length=10)
    text = " ".join(["one two three four five six seven eight", "nine ten eleven twelve"])
    assert_close(short.encode(text), short.encode("one two three four five six seven eight"), 0.0)
    assert_close(short.encode(text, long_text="truncate"), short.encode(text), 0.0)
    ids = embedder.tokenizer.ids([text])[0][:8]
    whole = [embedder.tokenizer.cls_id, *ids, embedder.tokenizer.sep_id]
    assert_close(short.encode(text), unit(encoder_mean(embedder, whole)))


def test_windows_are_worked_by_hand(embedder: Embedder) -> None:
    """Of 10 tokens, 8 for text: one word in common (8 // 8), so 7 further on each time."""
    short = with_recipe(embedder, max_length=10)
    text = (
        "alpha beta gamma delta apple pear plum grape red green blue white north south east west "
        "spring summer autumn winter"
    )
    ids = embedder.tokenizer.ids([text])[0]
    assert len(ids) == 20
    cls, sep = embedder.tokenizer.cls_id, embedder.tokenizer.sep_id
    windows = [[cls, *ids[a:b], sep] for a, b in [(0, 8), (7, 15), (14, 20)]]
    means = [encoder_mean(embedder, window) for window in windows]
    expected = unit(means[0] * (10 / 28) + means[1] * (10 / 28) + means[2] * (8 / 28))
    around = ["before", text, "behind"]
    vectors = short.encode(around, long_text="windows")
    assert_close(vectors[1], expected)
    assert_close(vectors[[0, 2]], short.encode(["before", "behind"]))
    assert np.abs(vectors[1] - short.encode(text)).max() > 1e-2


def test_merge_windows_weights_by_tokens() -> None:
    pooled = torch.tensor([[1.0, 0.0], [4.0, 4.0], [0.0, 1.0]])
    merged = _merge_windows(pooled, [3, 5, 1], [0, 1, 0], 2)
    assert merged.tolist() == [[0.75, 0.25], [4.0, 4.0]]


@given(
    lengths=st.lists(st.integers(2, 512), min_size=1, max_size=12),
    cuts=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_window_weights_of_a_text_sum_to_one(lengths: list[int], cuts: list[bool]) -> None:
    owners = [sum(cuts[1 : index + 1]) for index in range(len(lengths))]
    ones = torch.ones(len(lengths), 1, dtype=torch.float64)
    merged = _merge_windows(ones, lengths, owners, owners[-1] + 1)
    assert torch.allclose(merged, torch.ones_like(merged), rtol=0, atol=1e-12)


@settings(max_examples=15)
@given(batch=st.lists(texts(), max_size=4))
def test_text_of_one_window_is_the_text_without_windows(
    embedder: Embedder, batch: list[str]
) -> None:
    whole = embedder.encode(batch)
    assert_close(embedder.encode(batch, long_text="windows"), whole, 0.0)
    assert_close(embedder.encode(batch, long_text="error"), whole, 0.0)


def test_text_that_just_fits_is_one_window(embedder: Embedder) -> None:
    fits, over = "cat " * 254, "cat " * 255
    vectors = embedder.encode([fits, over, over], long_text="windows")
    assert_close(vectors[0], embedder.encode(fits))
    assert embedder.encode(fits, long_text="error").shape == (384,)
    assert np.abs(vectors[1] - embedder.encode(over)).max() > 1e-4
    assert_close(vectors[1], vectors[2])


def test_error_names_the_long_text_and_what_to_do(embedder: Embedder) -> None:
    with pytest.raises(TextError) as caught:
        embedder.encode(["a", "cat " * 255], long_text="error")
    assert str(caught.value) == (
        "text 1 has 257 tokens, expected at most 256; shorten it, or choose "
        "long_text='truncate' or 'windows'"
    )


# Prompts.


def test_prompt_is_put_before_each_text(embedder: Embedder) -> None:
    named = with_recipe(embedder, prompts={"query": "query: ", "empty": ""})
    expected = embedder.encode(["query: a text", "query: another"])
    plain = embedder.encode(["a text", "another"])
    both = ["a text", "another"]
    assert_close(named.encode(both, prompt="query"), expected, 0.0)
    assert_close(named.encode(both, prompt="query: "), expected, 0.0)
    assert_close(named.encode("a text", prompt="query"), expected[0])
    assert_close(named.encode(both), plain, 0.0)
    assert_close(named.encode(both, prompt="empty"), plain, 0.0)
    assert_close(named.encode(both, prompt="a name of none "), embedder.encode(
        ["a name of none a text", "a name of none another"]), 0.0)  # fmt: skip
    assert np.abs(expected - plain).max() > 1e-2


def test_default_prompt_is_taken_unless_another_or_none_is_asked_for(embedder: Embedder) -> None:
    prompts = {"query": "query: ", "passage": "passage: "}
    named = with_recipe(embedder, prompts=prompts, default_prompt="query")
    assert_close(named.encode("a text"), embedder.encode("query: a text"), 0.0)
    assert_close(named.encode("a text", prompt="passage"), embedder.encode("passage: a text"), 0.0)
    assert_close(named.encode("a text", prompt=""), embedder.encode("a text"), 0.0)


def test_prompt_that_is_not_pooled_is_attended_all_the_same(embedder: Embedder) -> None:
    """Of [CLS] query : cats [SEP], the mean of the last two."""
    left_out = with_recipe(embedder, pools_prompt=False)
    ids = embedder.tokenizer.ids(["query: cats"])[0]
    assert len(ids) == 3
    whole = torch.tensor([[embedder.tokenizer.cls_id, *ids, embedder.tokenizer.sep_id]])
    with torch.no_grad():
        hidden = embedder.model(whole).last_hidden_state[0]
    assert_close(left_out.encode("cats", prompt="query: "), unit(hidden[3:].mean(dim=0)))
    assert_close(left_out.encode("cats"), embedder.encode("cats"), 0.0)


def test_prompt_longer_than_a_text_may_be_is_refused(tiny: Embedder) -> None:
    left_out = with_recipe(tiny, pools_prompt=False)
    with pytest.raises(TextError, match=r"^the prompt has 14 tokens, expected fewer than 13; "):
        left_out.encode(["a"], prompt="cat " * 14)


@pytest.mark.parametrize("n_words", [5, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 40])
def test_windows_work_with_a_prompt_that_is_not_pooled(n_words: int, tiny: Embedder) -> None:
    """The last window may well be shorter than the prompt, which it does not hold."""
    left_out = with_recipe(tiny, pools_prompt=False)
    text, prompt = "cat " * n_words, "one two three four: "
    vector = left_out.encode(text, prompt=prompt, long_text="windows")
    assert vector.shape == (8,)
    assert abs(np.linalg.norm(vector.astype(np.float64)) - 1) <= 1e-6


@pytest.mark.parametrize(
    ("max_length", "n_prompt", "n_words", "spans", "skips"),
    [
        (10, 2, 12, [(0, 8), (7, 14)], [3, 0]),
        (18, 15, 10, [(0, 16), (14, 25)], [16, 2]),  # the overlap repeats a token of the prompt
    ],
)
def test_prompt_that_is_not_pooled_weighs_nothing_in_windows(
    max_length: int,
    n_prompt: int,
    n_words: int,
    spans: list[tuple[int, int]],
    skips: list[int],
    embedder: Embedder,
) -> None:
    left_out = with_recipe(embedder, pools_prompt=False, max_length=max_length)
    prompt, text = "cat " * n_prompt, " ".join(["dog", "bird"] * (n_words // 2))
    ids = embedder.tokenizer.ids([prompt + text])[0]
    assert len(ids) == n_prompt + n_words
    total = torch.zeros(384)
    for (start, stop), skip in zip(spans, skips, strict=True):
        window = [embedder.tokenizer.cls_id, *ids[start:stop], embedder.tokenizer.sep_id]
        with torch.no_grad():
            hidden = embedder.model(torch.tensor([window])).last_hidden_state[0]
        total += hidden[skip:].sum(dim=0)  # the mean weighted by tokens: their sum, but for length
    vector = left_out.encode(text, prompt=prompt, long_text="windows")
    assert_close(vector, unit(total))


def test_prompt_that_melts_into_the_first_word_still_gives_a_vector(tiny: Embedder) -> None:
    """Alone the prompt has more tokens than together with the text: "unbelievable" is one."""
    left_out = with_recipe(tiny, pools_prompt=False)
    assert len(tiny.tokenizer.ids(["unbeliev"])[0]) > len(tiny.tokenizer.ids(["unbelievable"])[0])
    assert np.isfinite(left_out.encode("able", prompt="unbeliev")).all()


# What stands behind the pooling.


def test_normalize_embeddings_overrules_the_recipe(embedder: Embedder) -> None:
    raw = embedder.encode(SENTENCES, normalize_embeddings=False)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 1e-2
    units = raw / np.linalg.norm(raw.astype(np.float64), axis=1, keepdims=True)
    assert_close(embedder.encode(SENTENCES, normalize_embeddings=True), units)
    assert_close(embedder.encode(SENTENCES, normalize_embeddings=None), units)
    plain = with_recipe(embedder, normalise=False)
    assert_close(plain.encode(SENTENCES), raw, 0.0)
    assert_close(plain.encode(SENTENCES, normalize_embeddings=True), units)


def test_truncate_dim_keeps_the_first_components_and_then_normalises(embedder: Embedder) -> None:
    raw = embedder.encode(SENTENCES, normalize_embeddings=False)
    kept = raw[:, :100]
    assert_close(
        embedder.encode(SENTENCES, normalize_embeddings=False, truncate_dim=100), kept, 0.0
    )
    units = kept / np.linalg.norm(kept.astype(np.float64), axis=1, keepdims=True)
    assert_close(embedder.encode(SENTENCES, truncate_dim=100), units)
    assert_close(embedder.encode(SENTENCES, truncate_dim=384), embedder.encode(SENTENCES), 0.0)


def test_poolings_stand_side_by_side(embedder: Embedder) -> None:
    several = with_recipe(embedder, pooling=("cls", "max", "mean"), normalise=False)
    joined = several.encode(SENTENCES)
    assert several.dim == 3 * 384
    parts = [
        with_recipe(embedder, pooling=(mode,), normalise=False).encode(SENTENCES)
        for mode in ("cls", "max", "mean")
    ]
    assert_close(joined, np.concatenate(parts, axis=1), 0.0)


@settings(max_examples=15)
@given(batch=st.lists(texts() | st.sampled_from(EMPTY), min_size=1, max_size=5))
def test_vectors_have_unit_length(embedder: Embedder, batch: list[str]) -> None:
    lengths = np.linalg.norm(embedder.encode(batch).astype(np.float64), axis=1)
    assert np.abs(lengths - 1).max() <= 1e-6


def test_dense_module_of_a_folder_stands_behind_the_pooling(tmp_path: Path, tiny: Embedder) -> None:
    """tanh(W mean + b), in both spellings of the modules' types."""
    weight = torch.arange(24, dtype=torch.float32).view(3, 8) / 20 - 0.5
    bias = torch.tensor([0.1, -0.2, 0.3])
    raw = torch.from_numpy(tiny.encode(SENTENCES, normalize_embeddings=False))
    for prefix in ("sentence_transformers.models", "sentence_transformers.base.modules.any"):
        folder = st_folder(tmp_path / prefix, tiny, prefix, weight, bias)
        loaded = Embedder.from_pretrained(folder)
        assert loaded.dim == 3
        expected = torch.tanh(raw @ weight.T + bias)
        assert_close(loaded.encode(SENTENCES), normalise(expected).numpy())
        raw_of_it = loaded.encode(SENTENCES, normalize_embeddings=False)
        assert_close(raw_of_it, expected.numpy())


def test_dense_module_with_other_tensors_is_refused(tmp_path: Path, tiny: Embedder) -> None:
    folder = st_folder(tmp_path, tiny, "sentence_transformers.models", torch.ones(3, 9))
    with pytest.raises(CheckpointError, match=r"2_Dense: holds tensors .*\(3, 9\).*expected"):
        Embedder.from_pretrained(folder)


def st_folder(
    folder: Path,
    source: Embedder,
    prefix: str,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> Path:
    """A sentence-transformers folder: `source`, mean pooling, a dense module, normalisation."""
    source.model.save_pretrained(folder)
    source.tokenizer.save_pretrained(folder)
    kinds = ["Transformer", "Pooling", "Dense", "Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"{prefix}.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    settings_ = {
        "sentence_bert_config.json": {"max_seq_length": source.recipe.max_length},
        "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True},
        "2_Dense/config.json": {
            "in_features": 8,
            "out_features": 3,
            "bias": bias is not None,
            "activation_function": "torch.nn.modules.activation.Tanh",
        },
    }
    for name, values in settings_.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(values))
    tensors = {"linear.weight": weight} | ({} if bias is None else {"linear.bias": bias})
    save_file(tensors, folder / "2_Dense" / "model.safetensors")
    return folder


# Batches.


@settings(max_examples=15)
@given(batch=st.lists(texts(), max_size=6), batch_tokens=st.integers(1, 300))
def test_any_batch_tokens_give_the_same_vectors(
    embedder: Embedder, batch: list[str], batch_tokens: int
) -> None:
    assert_close(embedder.encode(batch, batch_tokens=batch_tokens), embedder.encode(batch))


@pytest.mark.parametrize("long_text", ["truncate", "windows"])
def test_equal_texts_are_computed_once_and_give_equal_vectors(
    long_text: Any, tiny: Embedder
) -> None:
    computed: list[int] = []

    def count(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        computed.append(len(args[0]))

    long = "a b c " * 40
    texts = ["a b", long, "c", "a b", long, "a b"]
    distinct = tiny.encode(texts[:3], long_text=long_text)
    with tiny.model.register_forward_pre_hook(count):
        vectors = tiny.encode(texts, long_text=long_text)
        tokens, computed = sum(computed), []
        tiny.encode(texts[:3], long_text=long_text)
    assert tokens == sum(computed) > 0
    np.testing.assert_array_equal(vectors, distinct[[0, 1, 2, 0, 1, 0]])


@settings(max_examples=15)
@given(batch=st.lists(texts(), min_size=2, max_size=6), data=st.data())
def test_permuted_texts_give_permuted_vectors(
    embedder: Embedder, batch: list[str], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(batch))))
    vectors = embedder.encode([batch[index] for index in order])
    assert_close(vectors, embedder.encode(batch)[order])


@settings(max_examples=15)
@given(first=st.lists(texts(), max_size=4), second=st.lists(texts(), max_size=4))
def test_vectors_of_two_lists_are_those_of_the_lists_joined(
    embedder: Embedder, first: list[str], second: list[str]
) -> None:
    parts = np.concatenate([embedder.encode(first), embedder.encode(second)])
    assert_close(embedder.encode(first + second), parts)


def test_progress_bar_is_shown_when_asked_for_and_only_then(
    embedder: Embedder, capsys: pytest.CaptureFixture[str]
) -> None:
    embedder.encode(SENTENCES, batch_tokens=8)
    embedder.encode(SENTENCES, batch_tokens=8, show_progress_bar=False)
    assert capsys.readouterr() == ("", "")
    embedder.encode(SENTENCES, show_progress_bar=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{len(SENTENCES)}/{len(SENTENCES)}" in err


# Streams.


def test_stream_gives_the_vectors_of_encode(embedder: Embedder) -> None:
    chunks = list(embedder.stream(SENTENCES, chunk_texts=5))
    assert [len(chunk) for chunk in chunks] == [5, 5, 5, 1]
    assert_close(np.concatenate(chunks), embedder.encode(SENTENCES))
    assert list(embedder.stream([])) == []


def test_stream_takes_the_settings_of_encode(embedder: Embedder) -> None:
    short = with_recipe(embedder, max_length=6)
    settings_: dict[str, Any] = {
        "prompt": "query: ",
        "normalize_embeddings": False,
        "truncate_dim": 7,
        "long_text": "windows",
        "batch_tokens": 20,
    }
    chunks = list(short.stream(SENTENCES, chunk_texts=4, **settings_))
    assert_close(np.concatenate(chunks), short.encode(SENTENCES, **settings_), 1e-5)


def test_stream_reads_no_further_than_the_chunk_asked_for(embedder: Embedder) -> None:
    taken = []

    def corpus() -> Iterator[str]:
        for text in SENTENCES:
            taken.append(text)
            yield text

    stream = embedder.stream(corpus(), chunk_texts=3)
    assert taken == []
    next(stream)
    assert taken == SENTENCES[:3]
    next(stream)
    assert taken == SENTENCES[:6]


def test_stream_counts_faults_within_the_corpus(embedder: Embedder, unchecked: Any) -> None:
    stream = embedder.stream(["a", "b", "c", "\ud800"], chunk_texts=2)
    assert next(stream).shape == (2, 384)
    with pytest.raises(TextError, match=r"^texts\[1\] has .*; counted from text 2 of the corpus$"):
        next(stream)
    with pytest.raises(TypeError, match=r"^texts\[1\] must be str, got int$"):
        list(unchecked.stream(["a", 1]))


def test_stream_refuses_one_text(embedder: Embedder) -> None:
    with pytest.raises(TypeError, match=r"^got one text, expected an iterable of texts"):
        list(embedder.stream("a text"))


@pytest.mark.parametrize("chunk_texts", [0, -1])
def test_stream_refuses_chunks_of_no_text(chunk_texts: int, embedder: Embedder) -> None:
    """Silence would be taken for an empty corpus."""
    with pytest.raises(ValueError, match="chunk_texts"):
        list(embedder.stream(["a"], chunk_texts=chunk_texts))


# Similarity.


def test_similarity_equals_numpy(embedder: Embedder) -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(size=(5, 7)).astype(np.float32)
    b = rng.normal(size=(4, 7)).astype(np.float32)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(wide_a, axis=1)[:, None] * np.linalg.norm(wide_b, axis=1)
    assert_close(embedder.similarity(a, b), wide_a @ wide_b.T / norms)
    assert embedder.similarity(a, b).dtype == np.float32


def test_similarity_is_worked_by_hand() -> None:
    a = np.array([[3, 4], [0, 0]], dtype=np.float32)
    b = np.array([[6, 8], [-4, 3], [-3, -4]], dtype=np.float32)
    assert_close(Embedder.similarity(a, b), np.array([[1, 0, -1], [0, 0, 0]]))


def test_similarity_takes_a_single_vector_for_one_row() -> None:
    a = np.array([3, 4], dtype=np.float32)
    assert_close(Embedder.similarity(a, np.array([[4, 3]], dtype=np.float32)), np.array([[0.96]]))


def test_similarity_refuses_vectors_of_other_widths() -> None:
    a, b = np.ones((1, 3), dtype=np.float32), np.ones((1, 4), dtype=np.float32)
    with pytest.raises(ValueError, match=r"^got vectors of width 3 and 4, expected the same"):
        Embedder.similarity(a, b)


def test_similarity_of_any_precisions_is_worked_by_hand() -> None:
    wide = np.array([[3, 4, 0], [-1, 1, 1]], dtype=np.float32)
    whole = np.array([[3, 4, 0], [0, 0, 0]], dtype=np.int8)
    bits = np.array([[0b11000000], [0b01100000]], dtype=np.uint8)  # 1 1 -1, and -1 1 1
    similarity = Embedder.similarity
    assert_close(similarity(wide, whole), np.array([[1, 0], [1 / 75**0.5, 0]]))
    assert_close(similarity(whole, bits), np.array([[7 / 75**0.5, 1 / 75**0.5], [0, 0]]))
    assert_close(similarity(bits, wide), similarity(wide, bits).T)
    assert_close(similarity(bits, bits, dim=3), np.array([[1, -1 / 3], [-1 / 3, 1]]))
    assert_close(similarity(bits, bits), np.array([[1, 0.5], [0.5, 1]]))  # of eight components
    assert_close(similarity(bits[0], bits[1], dim=3), np.array([[-1 / 3]]))


def test_similarity_of_precisions_refuses_other_dims() -> None:
    wide, bits = np.ones((1, 12), dtype=np.float32), np.ones((1, 2), dtype=np.uint8)
    for a, b, dim, said in (
        (wide, bits[:, :1], None, "width 12 and 1, expected the same (of uint8 a byte for 8 comp"),
        (bits, bits[:, :1], None, "width 2 and 1, expected the same"),
        (bits, bits, 17, "width 2 and 2 for dim 17, expected the same"),
        (bits, bits, 8, "width 2 and 2 for dim 8, expected the same"),
        (wide, bits, 13, "width 12 and 2 for dim 13, expected the same"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            Embedder.similarity(a, b, dim=dim)


def test_similarity_of_many_is_that_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many stand in a block."""
    rows = np.random.default_rng(5).integers(0, 256, (7, 3)).astype(np.uint8)
    expected = Embedder.similarity(rows[:2], rows)
    monkeypatch.setattr(embed, "CHUNK_TEXTS", 3)
    assert_close(Embedder.similarity(rows[:2], rows), expected)
    assert Embedder.similarity(rows, rows[:0]).shape == (7, 0)


def test_similarity_ranks_what_means_the_same_first(embedder: Embedder) -> None:
    query = embedder.encode("A cat is lying on a carpet.")
    scores = embedder.similarity(query, embedder.encode(SENTENCES))[0]
    assert set(np.argsort(-scores)[:2].tolist()) == {0, 1}


# Threads, forks, other processes.


def test_eight_threads_give_the_serial_result_bit_for_bit(embedder: Embedder) -> None:
    """Each thread has texts of its own, several calls long, with truncation in some."""
    jobs = [
        [SENTENCES[n : n + 5], [text * 3 for text in SENTENCES[:n]], ["cat " * (250 + n), ""]]
        for n in range(8)
    ]
    serial = [[embedder.encode(batch) for batch in job] for job in jobs]
    found: list[list[Any]] = [[] for _ in jobs]
    barrier = threading.Barrier(len(jobs))

    def work(number: int) -> None:
        barrier.wait()
        try:
            found[number] += [embedder.encode(batch) for batch in jobs[number]]
        except Exception as error:  # shown by the comparison below
            found[number].append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, expected in zip(found, serial, strict=True):
        assert not [item for item in got if isinstance(item, Exception)]
        for vectors, others in zip(got, expected, strict=True):
            assert np.array_equal(vectors, others)


def run_script(script: str, *args: str, timeout_seconds: float = 180) -> str:
    """What a Python script prints; it and all it started are ended when it takes too long."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pytest.fail(f"not done after {timeout_seconds} s")
    assert process.returncode == 0, err
    return out


FORK = """
import os, sys
import numpy as np
from minibert import Embedder

embedder = Embedder.from_pretrained(sys.argv[1])
texts = ["some words and more " * n for n in range(1, 41, 4)]
expected = embedder.encode(texts)
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(embedder.encode(texts).tobytes())
    os._exit(0)
os.close(writer)
with os.fdopen(reader, "rb") as pipe:
    got = np.frombuffer(pipe.read(), dtype=np.float32)
_, status = os.waitpid(child, 0)
assert status == 0, status
print(float(np.abs(got.reshape(expected.shape) - expected).max()))
assert np.array_equal(embedder.encode(texts), expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_forked_worker_finishes_and_agrees(minilm: Path) -> None:
    """Forked after an encode in the parent, whose thread pool is not in the child."""
    assert float(run_script(FORK, str(minilm))) <= 1e-6


# The peak of a process; ru_maxrss of Linux would begin with what the process that started it had.
PEAK = """
import resource, sys

def peak_mib():
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) >> 10
"""

OFFLINE = (
    PEAK
    + """
events = []
def refuse(event, args):
    if event.startswith("socket."):
        events.append((event, str(args)))
        raise OSError(f"offline, and yet {event} {args}")
sys.addaudithook(refuse)

import socket
try:
    socket.create_connection(("127.0.0.1", 9))
except OSError as error:
    assert "offline, and yet" in str(error), error
events.clear()

import torch
before = peak_mib()
from minibert import Embedder
embedder = Embedder.from_pretrained(sys.argv[1], offline=True)
assert embedder.encode("a text").shape == (384,)
assert not events, events
print(before, peak_mib(), embedder.fingerprint)
"""
)


@pytest.fixture(scope="module")
def offline_process(minilm: Path) -> tuple[int, int, str]:
    """Peak MiB after `import torch` and after one sentence, and the fingerprint, of a process that
    may open no socket.

    It gets the checkpoint's name where that is in the cache: `minilm` has put it there.
    """
    assert minilm.is_dir()
    name = os.environ.get("MINIBERT_TEST_MODEL", "all-MiniLM-L6-v2")
    before, after, fingerprint = run_script(OFFLINE, name).split()
    return int(before), int(after), fingerprint


def test_offline_mode_opens_no_socket(offline_process: tuple[int, int, str]) -> None:
    before, after, _ = offline_process
    _log.info("peak memory: import torch %d MiB, one sentence %d MiB", before, after)
    assert after > before > 0


LARGE = (
    PEAK
    + """
from minibert import BertConfig, BertModel, Embedder, Tokenizer
from minibert.recipe import Recipe
import numpy as np
import torch

torch.set_num_threads(1)  # a network this small only loses by more
config = BertConfig(hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4)
tokenizer = Tokenizer.from_pretrained(sys.argv[1])
embedder = Embedder(BertModel(config), tokenizer, Recipe(max_length=256))
embedder.encode(["warm up"], long_text="windows")
before = peak_mib()
unit, long_text = sys.argv[2:]
vector = embedder.encode(unit * (10_000_000 // len(unit.encode())), long_text=long_text)
assert np.isfinite(vector).all()
print(peak_mib() - before)
"""
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "long_text", "bound_mib"),
    [
        ("international universities, governments ", "windows", 300),
        ("ภาษาไทย", "truncate", 700),  # nowhere to cut: one word for the tokenizer
    ],
)
def test_text_of_ten_megabytes_is_embedded_in_bounded_memory(
    unit: str, long_text: str, bound_mib: int, minilm: Path
) -> None:
    grown = int(run_script(LARGE, str(minilm), unit, long_text))
    _log.info("10 MB of %r, %s: %d MiB more", unit, long_text, grown)
    assert 10 < grown < bound_mib  # less than the text itself would be a mistake of this test


def test_long_text_of_the_real_checkpoint_is_cut_before_it_is_computed(embedder: Embedder) -> None:
    text = "a text of many words " * 20_000
    assert_close(embedder.encode(text), embedder.encode("a text of many words " * 60), 0.0)


# Fingerprints.


def test_fingerprint_is_the_same_in_every_load_and_process(
    minilm: Path, embedder: Embedder, offline_process: tuple[int, int, str]
) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", embedder.fingerprint)
    assert Embedder.from_pretrained(minilm).fingerprint == embedder.fingerprint
    assert offline_process[2] == embedder.fingerprint


def test_fingerprint_does_not_change_with_use(tiny: Embedder) -> None:
    fresh = with_recipe(tiny)
    before = fresh.fingerprint
    fresh.encode(SENTENCES, batch_tokens=5, prompt="query: ", long_text="windows")
    assert with_recipe(fresh).fingerprint == before


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 17},
        {"pooling": ("cls",)},
        {"pooling": ("mean", "cls")},
        {"pools_prompt": False},
        {"normalise": False},
        {"lowercase": True},
        {"prompts": {"query": "query: "}},
        {"prompts": {"query": "query:"}},
        {"prompts": {"query": "query: "}, "default_prompt": "query"},
    ],
)
def test_fingerprint_changes_with_the_recipe(change: dict[str, Any], tiny: Embedder) -> None:
    assert with_recipe(tiny, **change).fingerprint != tiny.fingerprint


def test_fingerprint_does_not_change_with_where_the_recipe_came_from(tiny: Embedder) -> None:
    assert with_recipe(tiny, origin="elsewhere").fingerprint == tiny.fingerprint


def other_weight(model: BertModel) -> None:
    with torch.no_grad():
        model.layers[0].attention.qkv.bias[3] += 1e-6


def one_more_zero(model: BertModel) -> None:
    with torch.no_grad():
        model.embeddings.token.weight[29_000, 7] = -0.0


@pytest.mark.parametrize("change", [other_weight, one_more_zero])
def test_fingerprint_changes_with_the_weights(
    change: Callable[[BertModel], None], tiny: Embedder
) -> None:
    model = BertModel(tiny.model.config)
    model.load_state_dict(tiny.model.state_dict())
    assert Embedder(model, tiny.tokenizer, tiny.recipe).fingerprint == tiny.fingerprint
    change(model)
    assert Embedder(model, tiny.tokenizer, tiny.recipe).fingerprint != tiny.fingerprint


@pytest.mark.parametrize("change", [{"hidden_act": "gelu_new"}, {"layer_norm_eps": 1e-5}])
def test_fingerprint_changes_with_the_configuration(change: dict[str, Any], tiny: Embedder) -> None:
    model = BertModel(replace(tiny.model.config, **change))
    model.load_state_dict(tiny.model.state_dict())
    assert Embedder(model, tiny.tokenizer, tiny.recipe).fingerprint != tiny.fingerprint


def test_fingerprint_changes_with_the_dtype(minilm: Path, embedder: Embedder) -> None:
    found = {embedder.fingerprint}
    for dtype in ("bfloat16", "float16", "float64"):
        found.add(Embedder.from_pretrained(minilm, dtype=dtype).fingerprint)
    assert len(found) == 4


def test_bfloat16x3_is_a_way_of_computing_float32(minilm: Path, embedder: Embedder) -> None:
    split = Embedder.from_pretrained(minilm, dtype="bfloat16x3", engine="pytorch")
    assert split.fingerprint == embedder.fingerprint
    assert split.computes == "float32 by PyTorch (as asked)"


def test_fingerprint_changes_with_the_tokenizer(tmp_path: Path, tiny: Embedder) -> None:
    tiny.tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "vocab.txt"
    same = Tokenizer.from_pretrained(tmp_path)
    cased = Tokenizer.from_vocab(path, lowercase=False)
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[2000], lines[2001] = lines[2001], lines[2000]
    path.write_text("\n".join(lines), encoding="utf-8")
    swapped = Tokenizer.from_vocab(path)
    prints = [
        Embedder(tiny.model, tokens, tiny.recipe).fingerprint for tokens in (same, cased, swapped)
    ]
    assert prints[0] == tiny.fingerprint
    assert len(set(prints)) == 3


def test_fingerprint_changes_with_a_dense_module(tmp_path: Path, tiny: Embedder) -> None:
    prefix, weight = "sentence_transformers.models", torch.ones(3, 8)
    one = Embedder.from_pretrained(st_folder(tmp_path / "1", tiny, prefix, weight))
    same = Embedder.from_pretrained(st_folder(tmp_path / "2", tiny, prefix, weight))
    other = Embedder.from_pretrained(st_folder(tmp_path / "3", tiny, prefix, weight * 2))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_fingerprint_changes_with_the_numerics(
    tiny: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: ModuleType = embed
    monkeypatch.setattr(module, "NUMERICS_VERSION", embed.NUMERICS_VERSION + 1)
    assert with_recipe(tiny).fingerprint != tiny.fingerprint


def test_fingerprint_of_changes_with_each_setting(tiny: Embedder) -> None:
    named = with_recipe(tiny, prompts={"query": "query: "})
    settings_: list[dict[str, Any]] = [
        {},
        {"prompt": "query"},
        {"prompt": "passage: "},
        {"normalize_embeddings": False},
        {"truncate_dim": 7},
        {"long_text": "windows"},
        {"truncate_dim": 7, "normalize_embeddings": False},
    ]
    prints = [named.fingerprint_of(**setting) for setting in settings_]
    assert len(set(prints)) == len(settings_)
    assert prints[0] != with_recipe(tiny).fingerprint_of()


def test_fingerprint_of_is_the_same_for_settings_that_mean_the_same(tiny: Embedder) -> None:
    named = with_recipe(tiny, prompts={"query": "query: "})
    default = named.fingerprint_of()
    assert default == named.fingerprint_of(
        prompt="", normalize_embeddings=True, truncate_dim=8, long_text="truncate"
    )
    assert named.fingerprint_of(prompt="query") == named.fingerprint_of(prompt="query: ")


# Numbers of the real checkpoint.


def test_bfloat16_keeps_the_direction(minilm: Path, embedder: Embedder) -> None:
    half = Embedder.from_pretrained(minilm, dtype="bfloat16").encode(SENTENCES + EMPTY)
    assert half.dtype == np.float32
    cosines = (half.astype(np.float64) * embedder.encode(SENTENCES + EMPTY)).sum(axis=1)
    cosines /= np.linalg.norm(half.astype(np.float64), axis=1)
    _log.info("bfloat16: mean cosine %.6f, worst %.6f", cosines.mean(), cosines.min())
    assert cosines.mean() >= 0.9999
    assert np.abs(half - embedder.encode(SENTENCES + EMPTY)).max() > 1e-5  # it is another dtype


def test_float64_gives_the_same_vectors(minilm: Path, embedder: Embedder) -> None:
    wide = Embedder.from_pretrained(minilm, dtype="float64").encode(SENTENCES)
    assert wide.dtype == np.float32
    assert_close(wide, embedder.encode(SENTENCES))


def ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """The rank of each value; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    first = np.cumsum(counts) - counts
    mean: NDArray[np.float64] = first + (counts - 1) / 2
    return mean[places]


@pytest.mark.slow
@pytest.mark.data
def test_spearman_of_stsb_is_that_of_sentence_transformers(data: Path, embedder: Embedder) -> None:
    """82.03 on the test split, measured with sentence-transformers 5.7."""
    with (data / "stsb" / "sts-test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == 1379
    assert ranks(np.array([5, 1, 5, 9])).tolist() == [1.5, 0.0, 1.5, 3.0]
    human = np.array([float(row[4]) for row in rows])
    first, second = (
        embedder.encode([row[5] for row in rows]),
        embedder.encode([row[6] for row in rows]),
    )
    cosines = (first.astype(np.float64) * second).sum(axis=1)
    spearman = 100 * float(np.corrcoef(ranks(human), ranks(cosines))[0, 1])
    _log.info("Spearman × 100 of STS-B test: %.4f", spearman)
    assert spearman == pytest.approx(82.03, abs=0.01)


# Saving.

RECIPES = [
    {},
    {"pooling": ("cls",), "normalise": False},
    {"pooling": ("max", "mean")},
    {"pooling": ("mean", "cls", "mean_sqrt_len"), "pools_prompt": False},
    {"lowercase": True, "prompts": {"query": "q: "}, "default_prompt": "query"},
]


@pytest.mark.parametrize("changes", RECIPES, ids=str)
def test_saved_embedder_loads_as_the_same(
    changes: dict[str, Any], tiny: Embedder, tmp_path: Path
) -> None:
    base = with_recipe(tiny, **changes)
    base.save_pretrained(tmp_path)
    again = Embedder.from_pretrained(tmp_path)
    assert again.recipe.to_dict() == base.recipe.to_dict()
    np.testing.assert_array_equal(again.encode(SENTENCES), base.encode(SENTENCES))


def test_saved_embedder_keeps_its_dense_modules(tiny: Embedder, tmp_path: Path) -> None:
    torch.manual_seed(0)
    linears = [torch.nn.Linear(8, 6), torch.nn.Linear(6, 4, bias=False)]
    steps = (
        embed.DenseStep(tmp_path, 8, 6, True, "tanh"),
        embed.DenseStep(tmp_path, 6, 4, False, "identity"),
    )
    recipe = replace(tiny.recipe, dense=steps)
    base = Embedder(tiny.model, tiny.tokenizer, recipe, dense=linears)
    base.save_pretrained(tmp_path / "saved")
    again = Embedder.from_pretrained(tmp_path / "saved")
    assert again.dim == 4
    assert again.fingerprint == base.fingerprint
    np.testing.assert_array_equal(again.encode(SENTENCES), base.encode(SENTENCES))


def test_embedder_is_not_saved_where_nothing_can_be_written(tiny: Embedder, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(CheckpointError, match=r"taken: cannot be written: .*another folder"):
        tiny.save_pretrained(tmp_path / "taken")
