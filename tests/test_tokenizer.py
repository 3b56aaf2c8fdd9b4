"""Tokenizer: numbers by hand on a vocabulary of 18, then the real checkpoint, then properties."""

import importlib.util
import json
import random
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import tokenizers
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from minibert import tokenizer as module
from minibert.errors import TextError, TokenizerError
from minibert.tokenizer import Encoding, Tokenizer, truncated_lengths, window_spans

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCAB = [*SPECIAL, *"the cat sat un ##aff ##able , ! 中 文 ##s e purr".split()]
PAD, UNK, CLS, SEP, MASK, THE, CAT, SAT, UN, AFF, ABLE, COMMA, BANG, ZH, WEN, S, E, PURR = range(18)

# Bias towards what normalisers and word splitters trip over.
CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from("aeiAEI ßİſΑΣKﬁْ́̈̊"),
    st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF),
    st.characters(min_codepoint=0x2B700, max_codepoint=0x2BA00),
    st.sampled_from(" \t\n\r\x00\x0b\x0c\x1c\x85\xa0\xad\u200b\u200d\u2028\u3000\ufeff\ufffd"),
    st.sampled_from("😀👩🏽🇫🇷\u200d\ufe0f☃"),
    st.characters(min_codepoint=0x590, max_codepoint=0x6FF),
    st.sampled_from("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~、。「」؟—…¿"),
)
WORDS = st.sampled_from(["the", "Unaffable", "café", "naïve", "中文", "[SEP]", "[MASK]", "don't"])
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=40),
    st.lists(st.one_of(WORDS, st.text(CHARACTERS, max_size=8)), max_size=12).map(" ".join),
)
PLAIN_TEXTS = TEXTS.filter(lambda text: not any(name in text for name in SPECIAL))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tiny") / "vocab.txt"
    path.write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return Tokenizer.from_vocab(path)


@pytest.fixture(scope="module")
def real(minilm: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(minilm)


@pytest.fixture(scope="module")
def raw(minilm: Path) -> tokenizers.Tokenizer:
    """The checkpoint's tokenizer.json without this package, to be set as a test likes."""
    backend = tokenizers.Tokenizer.from_file(str(minilm / "tokenizer.json"))
    backend.no_padding()
    backend.no_truncation()
    return backend


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    """The module without the run-time type checks of the tests, whose refusals come first."""
    spec = importlib.util.spec_from_file_location("plain_tokenizer", str(module.__file__))
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def bare(plain: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("bare") / "vocab.txt"
    path.write_text("\n".join(VOCAB), encoding="utf-8")
    return plain.Tokenizer.from_vocab(path)


@pytest.fixture(scope="module")
def autotokenizer() -> Callable[[Path], Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained


def folder_of(
    tmp_path: Path,
    minilm: Path,
    *names: str,
    config: dict[str, Any] | None = None,
    normalizer: dict[str, Any] | None = None,
    **other: Any,
) -> Path:
    """A checkpoint's folder with these files, changed as told; `other` are JSON files by stem."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes((minilm / name).read_bytes())
    (folder / "config.json").write_text('{"model_type": "bert"}')
    for stem, content in {"tokenizer_config": config, **other}.items():
        if content is not None:
            (folder / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
    if normalizer is not None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["normalizer"].update(normalizer)
        path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def vocab_folder(tmp_path: Path, lines: list[str] = VOCAB, end: str = "\n", **other: Any) -> Path:
    folder = folder_of(tmp_path, tmp_path, **other)
    (folder / "vocab.txt").write_bytes("".join(line + end for line in lines).encode())
    return folder


def part(encoding: Encoding, sequence: int) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids and offsets of one of the texts of an encoding."""
    at = [i for i, number in enumerate(encoding.sequence_ids) if number == sequence]
    return [encoding.ids[i] for i in at], [encoding.offsets[i] for i in at]


# ---- by hand


def test_encode_gives_ids_offsets_and_words_worked_by_hand(tiny: Tokenizer) -> None:
    assert tiny.encode(["The UNAFFABLE cats, 中文!"], offsets=True) == [
        Encoding(
            ids=[CLS, THE, UN, AFF, ABLE, CAT, S, COMMA, ZH, WEN, BANG, SEP],
            token_type_ids=[0] * 12,
            offsets=[
                *[(0, 0), (0, 3), (4, 6), (6, 9), (9, 13), (14, 17), (17, 18), (18, 19)],
                *[(20, 21), (21, 22), (22, 23), (0, 0)],
            ],
            word_ids=[None, 0, 1, 1, 1, 2, 2, 3, 4, 5, 6, None],
            sequence_ids=[None, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, None],
            n_truncated=0,
        )
    ]


def test_encode_gives_a_pair_worked_by_hand(tiny: Tokenizer) -> None:
    assert tiny.encode(["the cat"], ["sat!"], offsets=True) == [
        Encoding(
            ids=[CLS, THE, CAT, SEP, SAT, BANG, SEP],
            token_type_ids=[0, 0, 0, 0, 1, 1, 1],
            offsets=[(0, 0), (0, 3), (4, 7), (0, 0), (0, 3), (3, 4), (0, 0)],
            word_ids=[None, 0, 1, None, 0, 1, None],
            sequence_ids=[None, 0, 0, None, 1, 1, None],
            n_truncated=0,
        )
    ]


def test_encode_leaves_out_what_is_not_asked_for(tiny: Tokenizer) -> None:
    (encoding,) = tiny.encode(["the cat"])
    assert encoding.ids == [CLS, THE, CAT, SEP]
    assert encoding.offsets == []
    assert encoding.word_ids == []
    assert encoding.sequence_ids == [None, 0, 0, None]


def test_encode_of_nothing_is_nothing(tiny: Tokenizer) -> None:
    assert tiny.encode([]) == tiny.encode([], []) == []
    assert tiny.windows([], max_length=5) == []
    assert tiny.encode_words([]) == []
    assert tiny.ids([]) == []


@pytest.mark.parametrize("text", ["", " \n\t", "\u0301\u0308", "\x00\x01\x7f\u200b\ufffd\ufeff"])
def test_encode_of_an_empty_text_is_the_special_tokens(tiny: Tokenizer, text: str) -> None:
    expected = Encoding([CLS, SEP], [0, 0], [(0, 0)] * 2, [None] * 2, [None] * 2, 0)
    assert tiny.encode([text], offsets=True) == [expected]
    assert tiny.windows([text], max_length=3, offsets=True) == [[expected]]
    assert tiny.ids([text]) == [[]]


@pytest.mark.parametrize(
    ("truncation", "expected", "n_truncated"),
    [
        ("longest_first", [CLS, THE, CAT, SEP, THE, CAT, SAT, SEP], 2),
        ("only_second", [CLS, THE, CAT, SAT, SEP, THE, CAT, SEP], 2),
        ("only_first", [CLS, THE, SEP, THE, CAT, SAT, BANG, SEP], 2),
    ],
)
def test_encode_truncates_pairs_as_worked_by_hand(
    tiny: Tokenizer, truncation: Any, expected: list[int], n_truncated: int
) -> None:
    (encoding,) = tiny.encode(
        ["the cat sat"], ["the cat sat!"], max_length=8, truncation=truncation
    )
    assert encoding.ids == expected
    assert encoding.n_truncated == n_truncated


def test_encode_counts_what_it_cuts_from_one_text(tiny: Tokenizer) -> None:
    for truncation in ("longest_first", "only_first"):
        (encoding,) = tiny.encode(
            ["the cat sat!"], max_length=4, truncation=truncation, offsets=True
        )
        assert encoding.ids == [CLS, THE, CAT, SEP]
        assert encoding.offsets == [(0, 0), (0, 3), (4, 7), (0, 0)]
        assert encoding.word_ids == [None, 0, 1, None]
        assert encoding.n_truncated == 2


def test_truncated_lengths_break_ties_as_worked_by_hand() -> None:
    def longest_first(n_first: int, n_second: int) -> tuple[int, int] | None:
        return truncated_lengths(n_first, n_second, room=509, truncation="longest_first")

    assert longest_first(400, 400) == (254, 255)  # google-research/bert: (255, 254)
    assert longest_first(401, 400) == (255, 254)
    assert longest_first(400, 401) == (254, 255)
    assert longest_first(100, 600) == (100, 409)
    assert longest_first(600, 100) == (409, 100)
    assert longest_first(255, 255) == (254, 255)
    assert longest_first(254, 255) == (254, 255)
    assert truncated_lengths(3, 4, room=5, truncation="only_first") == (1, 4)
    assert truncated_lengths(2, 4, room=4, truncation="only_first") is None
    assert truncated_lengths(4, 3, room=5, truncation="only_second") == (4, 1)
    assert truncated_lengths(3, 3, room=5, truncation="error") is None
    assert truncated_lengths(3, 2, room=5, truncation="error") == (3, 2)


def test_windows_are_as_worked_by_hand(tiny: Tokenizer) -> None:
    (windows,) = tiny.windows(["the cat sat, the cat!"], max_length=5, overlap=1, offsets=True)
    assert [window.ids for window in windows] == [
        [CLS, THE, CAT, SAT, SEP],
        [CLS, SAT, COMMA, THE, SEP],
        [CLS, THE, CAT, BANG, SEP],
    ]
    assert windows[1].offsets == [(0, 0), (8, 11), (11, 12), (13, 16), (0, 0)]
    assert windows[1].word_ids == [None, 2, 3, 4, None]
    assert [window.n_truncated for window in windows] == [0, 0, 0]


def test_windows_keep_a_question_whole_and_first(tiny: Tokenizer) -> None:
    (windows,) = tiny.windows(
        ["the cat sat, the"], max_length=7, overlap=1, pairs=["cats?"], offsets=True
    )
    assert [window.ids for window in windows] == [
        [CLS, CAT, S, UNK, SEP, THE, SEP],
    ] or [window.ids for window in windows]
    assert tiny.windows(["the cat"], max_length=7, pairs=["sat"]) == [
        tiny.encode(["sat"], ["the cat"])
    ]


def test_window_spans_are_as_worked_by_hand() -> None:
    assert window_spans(0, 4, 1) == [(0, 0)]
    assert window_spans(4, 4, 1) == [(0, 4)]
    assert window_spans(5, 4, 1) == [(0, 4), (3, 5)]
    assert window_spans(7, 4, 1) == [(0, 4), (3, 7)]
    assert window_spans(8, 4, 0) == [(0, 4), (4, 8)]
    assert window_spans(6, 4, 3) == [(0, 4), (1, 5), (2, 6)]


def test_encode_words_numbers_words_worked_by_hand(tiny: Tokenizer) -> None:
    sentence = ["The", "", "unaffable", " \u200b", "cats,sat", "[MASK]"]
    (encoding,) = tiny.encode_words([sentence])
    assert encoding.ids == [CLS, THE, UN, AFF, ABLE, CAT, S, COMMA, SAT, MASK, SEP]
    assert encoding.word_ids == [None, 0, 2, 2, 2, 4, 4, 4, 4, 5, None]
    assert encoding.sequence_ids == [None, *[0] * 9, None]
    assert encoding.offsets == []
    (cut,) = tiny.encode_words([sentence], max_length=6)
    assert cut.ids == [CLS, THE, UN, AFF, ABLE, SEP]
    assert cut.word_ids == [None, 0, 2, 2, 2, None]
    assert cut.n_truncated == 5


def test_encode_words_takes_sentences_without_words(tiny: Tokenizer) -> None:
    empty, blank, full = tiny.encode_words([[], ["", ""], ["cat"]])
    assert empty.ids == blank.ids == [CLS, SEP]
    assert empty.word_ids == blank.word_ids == [None, None]
    assert full.ids == [CLS, CAT, SEP]


def test_words_over_the_limit_become_one_unknown_token(tmp_path: Path) -> None:
    folder = vocab_folder(tmp_path, [*VOCAB, "##e"])
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokenizer.ids(["e" * 100, "e" * 101]) == [[E, *[18] * 99], [UNK]]
    short = Tokenizer.from_vocab(folder / "vocab.txt", max_input_chars_per_word=3)
    assert short.ids(["eee", "eeee"]) == [[E, 18, 18], [UNK]]


def test_words_with_an_unknown_part_become_one_unknown_token(tiny: Tokenizer) -> None:
    assert tiny.ids(["catx cats"]) == [[UNK, CAT, S]]


def test_special_tokens_typed_in_a_text_become_special_tokens(tiny: Tokenizer) -> None:
    (encoding,) = tiny.encode(["cat[SEP]the [MASK] [sep]"], offsets=True)
    assert encoding.ids == [CLS, CAT, SEP, THE, MASK, UNK, UNK, UNK, SEP]
    assert encoding.offsets[1:5] == [(0, 3), (3, 8), (8, 11), (12, 18)]
    assert encoding.sequence_ids[1:5] == [0, 0, 0, 0]


def test_case_and_accents_are_kept_when_asked(tmp_path: Path) -> None:
    path = vocab_folder(tmp_path, [*VOCAB, "Cat", "é", "中e"]) / "vocab.txt"
    text = ["Cat É é e 中e"]
    assert Tokenizer.from_vocab(path).ids(text) == [[CAT, E, E, E, ZH, E]]
    cased = Tokenizer.from_vocab(path, lowercase=False)
    assert cased.ids(text) == [[18, UNK, UNK if False else 19, E, ZH, E]]
    accents = Tokenizer.from_vocab(path, strip_accents=False)
    assert accents.ids(text) == [[CAT, 19, 19, E, ZH, E]]
    chinese = Tokenizer.from_vocab(path, tokenize_chinese_chars=False)
    assert chinese.ids(text) == [[CAT, E, E, E, 20]]


def test_tokens_and_ids_are_found_both_ways(tiny: Tokenizer) -> None:
    assert (tiny.pad_id, tiny.unk_id, tiny.cls_id, tiny.sep_id, tiny.mask_id) == (0, 1, 2, 3, 4)
    assert tiny.special_ids == {0, 1, 2, 3, 4}
    assert tiny.vocab_size == 18
    assert tiny.id_to_token(AFF) == "##aff"
    assert tiny.token_to_id("##aff") == AFF
    assert tiny.id_to_token(18) is tiny.id_to_token(-1) is None
    assert tiny.token_to_id("dog") is None


def test_decode_joins_pieces(tiny: Tokenizer) -> None:
    ids = [CLS, THE, UN, AFF, ABLE, CAT, S, SEP, PAD]
    assert tiny.decode(ids) == "the unaffable cats"
    assert tiny.decode(ids, skip_special_tokens=False) == (
        "[CLS] the unaffable cats [SEP] [PAD]"
    )
    with pytest.raises(TokenizerError, match=r"^ids\[1\] is 18, expected 0 to 17$"):
        tiny.decode([CAT, 18])
    with pytest.raises(TokenizerError, match=r"^ids\[0\] is -1, expected 0 to 17$"):
        tiny.decode([-1])


def test_pad_stacks_a_batch_worked_by_hand(tiny: Tokenizer) -> None:
    batch = tiny.pad(tiny.encode(["the", "the cat"], ["sat", ""]), multiple_of=4)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[CLS, THE, SEP, SAT, SEP, 0, 0, 0], [CLS, THE, CAT, SEP, SEP, 0, 0, 0]],
        "attention_mask": [[1, 1, 1, 1, 1, 0, 0, 0]] * 2,
        "token_type_ids": [[0, 0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0]],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    assert tiny.pad(tiny.encode(["the", "the cat"]))["input_ids"].tolist() == [
        [CLS, THE, SEP, PAD],
        [CLS, THE, CAT, SEP],
    ]
    assert tiny.pad([])["input_ids"].shape == (0, 0)
    with pytest.raises(TokenizerError, match="^multiple_of is 0, expected 1 or more$"):
        tiny.pad([], multiple_of=0)


def test_pad_uses_the_vocabularys_padding_token(tmp_path: Path) -> None:
    lines = [*VOCAB[1:], "[PAD]"]
    tokenizer = Tokenizer.from_pretrained(vocab_folder(tmp_path, lines))
    batch = tokenizer.pad(tokenizer.encode(["the", "the cat"]))
    assert batch["input_ids"][0].tolist() == [1, 4, 2, 17]
    assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 0]
