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
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import tokenizers
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from minibert import tokenizer as module
from minibert.errors import TextError, TokenizerError
from minibert.tokenizer import Encoding, Tokenizer, truncated_lengths, window_spans

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDPIECES = [
    "the",
    "cat",
    "sat",
    "un",
    "##aff",
    "##able",
    ",",
    "!",
    "中",
    "文",
    "##s",
    "e",
    "purr",
]
VOCAB = [*SPECIAL, *WORDPIECES]
PAD, UNK, CLS, SEP, MASK, THE, CAT, SAT, UN, AFF, ABLE, COMMA, BANG, ZH, WEN, S, E, _ = range(18)

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
def own(raw: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A copy of `raw` that tests may switch truncation on in."""
    return tokenizers.Tokenizer.from_str(raw.to_str())


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
    folder.mkdir(parents=True)
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
        ["the cat sat, the"], max_length=8, overlap=1, pairs=["cats?"], offsets=True
    )
    question = [CLS, CAT, S, UNK, SEP]
    assert [window.ids for window in windows] == [
        [*question, THE, CAT, SEP],
        [*question, CAT, SAT, SEP],
        [*question, SAT, COMMA, SEP],
        [*question, COMMA, THE, SEP],
    ]
    assert windows[2].token_type_ids == [0, 0, 0, 0, 0, 1, 1, 1]
    assert windows[2].sequence_ids == [None, 0, 0, 0, None, 1, 1, None]
    assert windows[2].offsets[1:4] == [(0, 3), (3, 4), (4, 5)]
    assert windows[2].offsets[5:7] == [(8, 11), (11, 12)]
    assert windows[2].word_ids == [None, 0, 0, 1, None, 2, 3, None]
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
    assert cased.ids(text) == [[18, UNK, 19, E, ZH, E]]
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
    for outside in (18, -1, 10**30):
        assert tiny.id_to_token(outside) is None
    assert tiny.token_to_id("dog") is None


def test_decode_joins_pieces(tiny: Tokenizer) -> None:
    ids = [CLS, THE, UN, AFF, ABLE, CAT, S, SEP, PAD]
    assert tiny.decode(ids) == "the unaffable cats"
    assert tiny.decode(ids, skip_special_tokens=False) == ("[CLS] the unaffable cats [SEP] [PAD]")
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
    with pytest.raises(TokenizerError, match=r"^multiple_of is 0, expected 1 or more$"):
        tiny.pad([], multiple_of=0)


def test_pad_uses_the_vocabularys_padding_token(tmp_path: Path) -> None:
    lines = [*VOCAB[1:], "[PAD]"]
    tokenizer = Tokenizer.from_pretrained(vocab_folder(tmp_path, lines))
    batch = tokenizer.pad(tokenizer.encode(["the", "the cat"]))
    assert batch["input_ids"][0].tolist() == [1, 4, 2, 17]
    assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 0]


# ---- files


def test_tokenizer_json_and_vocab_give_the_same_tokenizer(minilm: Path, real: Tokenizer) -> None:
    built = Tokenizer.from_vocab(minilm / "vocab.txt")
    assert (
        built.to_json()
        == real.to_json()
        == Tokenizer.from_file(minilm / "tokenizer.json").to_json()
    )
    assert json.loads(real.to_json())["truncation"] is None
    assert json.loads(real.to_json())["padding"] is None
    other = Tokenizer.from_vocab(minilm / "vocab.txt", lowercase=False)
    assert other.to_json() != real.to_json()
    ordered = json.dumps(json.loads(real.to_json()), sort_keys=True, ensure_ascii=False)
    assert ordered == real.to_json()


def test_real_checkpoint_is_read(real: Tokenizer) -> None:
    assert real.model_max_length == 512
    assert real.vocab_size == 30522
    assert real.ids(["hello world"]) == [[7592, 2088]]
    assert real.special_ids == {0, 100, 101, 102, 103}
    (encoding,) = real.encode(["hello world " * 200])
    assert len(encoding.ids) == 402  # the file says 128 at most, and pads to it


@pytest.mark.parametrize(
    ("stated", "absurd"), [(512, False), (512.0, False), (1e30, True), (-1, True), (None, True)]
)
def test_model_max_length_is_known_or_none(tmp_path: Path, stated: Any, absurd: bool) -> None:
    folder = vocab_folder(tmp_path, config={"model_max_length": stated})
    assert Tokenizer.from_pretrained(folder).model_max_length == (None if absurd else 512)


def test_configuration_wins_where_it_states_something(tmp_path: Path, minilm: Path) -> None:
    folder = folder_of(tmp_path, minilm, "tokenizer.json", config={"do_lower_case": False})
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokenizer.ids(["Hello hello"]) == [[100, 7592]]


def test_tokenizer_json_decides_where_the_configuration_is_silent(
    tmp_path: Path, minilm: Path
) -> None:
    folder = folder_of(
        tmp_path, minilm, "tokenizer.json", config={}, normalizer={"lowercase": False}
    )
    assert Tokenizer.from_pretrained(folder).ids(["Hello hello"]) == [[100, 7592]]


def test_generic_class_leaves_tokenizer_json_as_it_is(tmp_path: Path, minilm: Path) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}
    folder = folder_of(
        tmp_path, minilm, "tokenizer.json", config=config, normalizer={"lowercase": False}
    )
    assert Tokenizer.from_pretrained(folder).ids(["Hello hello"]) == [[100, 7592]]


def test_configuration_overrules_each_field(tmp_path: Path, minilm: Path) -> None:
    config = {"strip_accents": None, "tokenize_chinese_chars": False}
    folder = folder_of(
        tmp_path, minilm, "tokenizer.json", config=config, normalizer={"strip_accents": False}
    )
    normalizer = json.loads(Tokenizer.from_pretrained(folder).to_json())["normalizer"]
    assert normalizer == {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": False,
        "lowercase": True,
        "strip_accents": None,
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_vocab_takes_any_line_end(tmp_path: Path, tiny: Tokenizer, end: str) -> None:
    folder = vocab_folder(tmp_path, end=end)
    assert Tokenizer.from_pretrained(folder).to_json() == tiny.to_json()


def test_vocab_gives_a_repeated_token_its_later_id(tmp_path: Path) -> None:
    lines = [*SPECIAL, "cat", "", "the", "cat", "\u2028"]
    tokenizer = Tokenizer.from_pretrained(vocab_folder(tmp_path, lines))
    assert tokenizer.ids(["the cat"]) == [[7, 8]]
    assert tokenizer.id_to_token(5) is None
    assert tokenizer.token_to_id("") == 6
    assert tokenizer.vocab_size == 10
    tokenizer.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_vocab(tmp_path / "saved" / "vocab.txt")
    assert again.to_json() == tokenizer.to_json()


def test_vocab_of_other_names_is_read(tmp_path: Path) -> None:
    names = {"pad_token": "<pad>", "unk_token": {"content": "<unk>"}, "cls_token": "<s>"}
    lines = ["<pad>", "<unk>", "<s>", "[SEP]", "[MASK]", *VOCAB[5:]]
    folder = vocab_folder(tmp_path, lines, config=names)
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokenizer.encode(["cat dog"])[0].ids == [2, CAT, 1, 3]
    (folder / "tokenizer_config.json").unlink()
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    assert Tokenizer.from_pretrained(folder).to_json() == tokenizer.to_json()
    by_hand = Tokenizer.from_vocab(
        folder / "vocab.txt", unk_token="<unk>", pad_token="<pad>", cls_token="<s>"
    )
    assert by_hand.to_json() == tokenizer.to_json()


def test_added_tokens_go_on_after_the_vocabulary(tmp_path: Path) -> None:
    folder = vocab_folder(tmp_path, added_tokens={"<b>": 19, "<a>": 18, "[MASK]": MASK})
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokenizer.ids(["the<a>cat <b>[MASK]"]) == [[THE, 18, CAT, 19, MASK]]
    assert tokenizer.ids(["<A> [mask]"]) == [[18, UNK, UNK, UNK]]
    assert tokenizer.vocab_size == 20
    assert tokenizer.special_ids == {0, 1, 2, 3, 4}
    assert Tokenizer.from_vocab(folder / "vocab.txt").to_json() == tokenizer.to_json()


def test_added_tokens_of_the_configuration_come_before_the_file(tmp_path: Path) -> None:
    stated = {
        "18": {"content": "<a>", "special": True, "normalized": False},
        "4": {"content": "[MASK]", "special": False},
    }
    folder = vocab_folder(
        tmp_path,
        config={"added_tokens_decoder": stated},
        added_tokens={"<x>": 99},
        special_tokens_map={"cls_token": "<x>"},
    )
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokenizer.ids(["the<a>cat"]) == [[THE, 18, CAT]]
    assert tokenizer.special_ids == {0, 1, 2, 3, 4, 18}


def test_saved_tokenizer_is_read_back_the_same(tmp_path: Path, real: Tokenizer) -> None:
    real.save_pretrained(tmp_path / "new" / "folder")
    again = Tokenizer.from_pretrained(tmp_path / "new" / "folder")
    assert again.to_json() == real.to_json()
    assert again.model_max_length == 512
    names = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert names == {
        *["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
    }


def test_saved_vocab_of_the_real_checkpoint_is_the_same_file(
    tmp_path: Path, minilm: Path, real: Tokenizer
) -> None:
    real.save_pretrained(tmp_path)
    assert (tmp_path / "vocab.txt").read_bytes() == (minilm / "vocab.txt").read_bytes()


def test_saved_files_alone_are_enough(tmp_path: Path) -> None:
    config = {"do_lower_case": False, "strip_accents": True, "cls_token": "<s>"}
    lines = ["[PAD]", "[UNK]", "<s>", *VOCAB[3:], "Cat"]
    original = Tokenizer.from_pretrained(vocab_folder(tmp_path, lines, config=config))
    original.save_pretrained(tmp_path / "saved")
    for gone in ("tokenizer.json", "special_tokens_map.json"):
        (tmp_path / "saved" / gone).unlink()
        assert Tokenizer.from_pretrained(tmp_path / "saved").to_json() == original.to_json()


def test_tokenizer_goes_through_a_folder_of_weights(minilm: Path) -> None:
    with pytest.raises(ValueError, match="revision") as refusal:
        Tokenizer.from_pretrained(minilm, revision="main")
    assert type(refusal.value).__name__ == "WeightsError"


# ---- refusals of files


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"has neither tokenizer\.json nor vocab\.txt$"),
        ({"tokenizer.json": b"{"}, r"tokenizer\.json is not a tokenizer\.json: EOF while parsing"),
        ({"tokenizer.json": b""}, r"tokenizer\.json is not a tokenizer\.json: EOF while parsing"),
        ({"tokenizer.json": b"ab\xff"}, r"tokenizer\.json is not UTF-8 at byte 2$"),
        ({"vocab.txt": b"[PAD]\n\xe9"}, r"vocab\.txt is not UTF-8 at byte 6$"),
        (
            {"vocab.txt": b""},
            r"the vocabulary lacks \[UNK\], \[SEP\], \[PAD\], \[CLS\], \[MASK\], ",
        ),
        (
            {"vocab.txt": b"[PAD]\n[UNK]\n[CLS]\nthe\n[MASK]\n"},
            r"the vocabulary lacks \[SEP\], expected all of \[UNK\], \[SEP\], \[PAD\], ",
        ),
        ({"tokenizer_config.json": b"{,"}, r"tokenizer_config\.json is not JSON: .*line 1"),
        ({"tokenizer_config.json": b"[]"}, r"_config\.json holds a list, expected a JSON object$"),
        (
            {"tokenizer_config.json": b'{"do_lower_case": "yes"}'},
            r"tokenizer_config\.json: do_lower_case is 'yes', expected true or false$",
        ),
        (
            {"tokenizer_config.json": b'{"do_lower_case": null}'},
            r"tokenizer_config\.json: do_lower_case is None, expected true or false$",
        ),
        (
            {"tokenizer_config.json": b'{"sep_token": 3}'},
            r"tokenizer_config\.json: sep_token is 3, expected a string$",
        ),
        (
            {"tokenizer_config.json": b'{"truncation_side": "left"}'},
            r"tokenizer_config\.json: truncation_side is 'left', expected right$",
        ),
        (
            {"tokenizer_config.json": b'{"tokenizer_class": "BertJapaneseTokenizer"}'},
            r"tokenizer_class is BertJapaneseTokenizer, whose vocab\.txt alone does not say",
        ),
        (
            {"added_tokens.json": b'{"<a>": 18, "<b>": 20}'},
            r"added_tokens\.json: token '<b>' has id 20, expected 19: the ids of added tokens go",
        ),
        (
            {"added_tokens.json": b'{"cat": 18}'},
            r"added_tokens\.json: token 'cat' has id 18, expected 6: ",
        ),
        ({"added_tokens.json": b'{"<a>": "x"}'}, r"added_tokens\.json: an added token is not as"),
        (
            {"tokenizer_config.json": b'{"added_tokens_decoder": {"18": {"text": "<a>"}}}'},
            r"tokenizer_config\.json: an added token is not as expected: KeyError\('content'\)$",
        ),
    ],
)
def test_broken_files_are_refused_in_one_line(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    folder = vocab_folder(tmp_path)
    if not files:
        (folder / "vocab.txt").unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=message) as refusal:
        Tokenizer.from_pretrained(folder)
    assert "\n" not in str(refusal.value)


def test_absent_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"x\.json cannot be read: No such file or directory$"):
        Tokenizer.from_file(tmp_path / "x.json")
    with pytest.raises(TokenizerError, match=r"x\.txt cannot be read: No such file or directory$"):
        Tokenizer.from_vocab(tmp_path / "x.txt")


def test_ids_that_follow_a_repeated_token_are_refused(tmp_path: Path) -> None:
    # The backend would give the new token the id of "the" a second time.
    folder = vocab_folder(tmp_path, [*SPECIAL, "cat", "cat", "the"], added_tokens={"<a>": 8})
    with pytest.raises(TokenizerError, match=r"token '<a>' has id 8, but the backend gives it 7"):
        Tokenizer.from_pretrained(folder)


def bert_backend(vocab: list[str] = VOCAB) -> tokenizers.Tokenizer:
    model = tokenizers.models.WordPiece(
        {token: i for i, token in enumerate(vocab)}, unk_token="[UNK]"
    )
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return backend


def test_backends_of_other_models_are_refused() -> None:
    model = tokenizers.models.BPE({"a": 0}, [])
    with pytest.raises(TokenizerError, match=r"^the tokenizer's model is BPE, expected WordPiece$"):
        Tokenizer(tokenizers.Tokenizer(model))


def test_backends_with_another_unknown_token_are_refused() -> None:
    backend = bert_backend([*VOCAB, "<unk>"])
    backend.model.unk_token = "<unk>"
    with pytest.raises(TokenizerError, match=r"WordPiece is '<unk>', expected '\[UNK\]'$"):
        Tokenizer(backend)


@pytest.mark.parametrize(
    ("single", "pair"),
    [
        ("[CLS] $A", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"),
        ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B:1 [SEP]:1"),
        ("[CLS]:1 $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        ("[SEP] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    ],
)
def test_backends_that_frame_texts_differently_are_refused(single: str, pair: str) -> None:
    backend = bert_backend()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    with pytest.raises(TokenizerError, match=r"^the post-processor gives something else than "):
        Tokenizer(backend)


def test_backends_without_post_processor_are_taken() -> None:
    assert Tokenizer(bert_backend()).encode(["the cat"])[0].ids == [CLS, THE, CAT, SEP]


# ---- refusals of texts and lengths: what the type checks of the tests would refuse first goes
# through `plain` and `bare`


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("cat", "texts must be a list of str, got str: put it into a list"),
        (b"cat", "texts must be a list of str, got bytes: put it into a list"),
        (None, "texts must be a list of str, got NoneType: put it into a list"),
        (["cat", None], r"texts[1] must be str, got NoneType"),
        ([1], r"texts[0] must be str, got int"),
        (["cat", "the", float("nan")], r"texts[2] must be str, got float"),
        ([b"cat"], r"texts[0] must be str, got bytes"),
        ([("cat", "the")], r"texts[0] must be str, got tuple"),
    ],
)
def test_texts_of_wrong_type_are_refused(bare: Any, texts: Any, message: str) -> None:
    calls = [bare.ids, bare.encode, lambda texts: bare.windows(texts, max_length=5)]
    for call in calls:
        with pytest.raises(TypeError) as refusal:
            call(texts)
        assert str(refusal.value) == message
    with pytest.raises(TypeError) as refusal:
        bare.encode(["cat"], texts or 1)
    assert str(refusal.value).startswith("pairs")


def test_sentences_of_wrong_type_are_refused(bare: Any) -> None:
    for sentences, message in [
        ("cat", "sentences must be a list of lists of words, got str: put it into a list"),
        (["cat"], "sentences[0] must be a list of str, got str: put it into a list"),
        ([["cat"], ["the", 3]], "sentences[1][1] must be str, got int"),
    ]:
        with pytest.raises(TypeError) as refusal:
            bare.encode_words(sentences)
        assert str(refusal.value) == message


def test_lone_surrogates_are_refused_with_their_place(tiny: Tokenizer) -> None:
    message = (
        r"^texts\[1\] has the lone surrogate '\\udc80' at position 3, expected valid Unicode: "
        r"decode it with errors='replace'$"
    )
    for call in (tiny.ids, tiny.encode, lambda texts: tiny.windows(texts, max_length=4)):
        with pytest.raises(TextError, match=message):
            call(["fine", "caf\udc80"])
    with pytest.raises(
        TextError, match=r"^pairs\[0\] has the lone surrogate '\\ud800' at position 0"
    ):
        tiny.encode(["cat"], ["\ud800"])
    with pytest.raises(TextError, match=r"^sentences\[0\]\[1\] has the lone surrogate"):
        tiny.encode_words([["cat", "\ud800"]])


def test_pairs_of_unequal_count_are_refused(tiny: Tokenizer) -> None:
    message = "^pairs has 1 items, expected one for each text: 2$"
    with pytest.raises(TokenizerError, match=message):
        tiny.encode(["cat", "the"], ["sat"])
    with pytest.raises(TokenizerError, match=message):
        tiny.windows(["cat", "the"], max_length=9, pairs=["sat"])


@pytest.mark.parametrize("max_length", [2, 0, -7])
def test_max_length_without_room_is_refused(tiny: Tokenizer, max_length: int) -> None:
    message = rf"^max_length is {max_length}, expected at least 3: 2 special tokens and one of the"
    with pytest.raises(TokenizerError, match=message):
        tiny.encode(["cat"], max_length=max_length)
    with pytest.raises(TokenizerError, match=message):
        tiny.windows(["cat"], max_length=max_length)
    with pytest.raises(TokenizerError, match=message):
        tiny.encode_words([["cat"]], max_length=max_length)
    with pytest.raises(TokenizerError, match=r"^max_length is 3, expected at least 4: 3 special"):
        tiny.encode(["cat"], ["sat"], max_length=3)
    with pytest.raises(TokenizerError, match=r"^max_length is 3, expected at least 4: 3 special"):
        tiny.windows(["cat"], pairs=["sat"], max_length=3)


def test_lengths_of_wrong_type_are_refused(bare: Any) -> None:
    with pytest.raises(TypeError, match=r"^max_length must be an int, got float$"):
        bare.encode(["cat"], max_length=8.0)
    with pytest.raises(TypeError, match=r"^max_length must be an int, got bool$"):
        bare.encode(["cat"], max_length=True)
    with pytest.raises(TypeError, match=r"^max_length must be an int, got NoneType$"):
        bare.windows(["cat"], max_length=None)
    with pytest.raises(TypeError, match=r"^overlap must be an int, got float$"):
        bare.windows(["cat"], max_length=8, overlap=0.5)


@pytest.mark.parametrize("overlap", [6, 7, 100, -1])
def test_overlap_without_room_is_refused(tiny: Tokenizer, overlap: int) -> None:
    message = f"^overlap is {overlap}, expected 0 to 5 for max_length 8$"
    with pytest.raises(TokenizerError, match=message):
        tiny.windows(["cat"], max_length=8, overlap=overlap)


def test_questions_without_room_for_the_text_are_refused(tiny: Tokenizer) -> None:
    texts, questions = ["cat", "the cat sat"], ["the cat sat!", "the cat sat!"]
    message = (
        r"^pairs\[1\] has 4 tokens, expected at most 3 for max_length 8 and overlap 1: "
        "shorten the question$"
    )
    with pytest.raises(TextError, match=message):
        tiny.windows(texts, max_length=8, overlap=1, pairs=questions)
    assert len(tiny.windows(texts, max_length=8, pairs=questions)[1]) == 3


def test_truncation_of_unknown_name_is_refused(bare: Any, plain: ModuleType) -> None:
    message = (
        "^truncation is 'longest', expected one of longest_first, only_first, only_second, error$"
    )
    with pytest.raises(TokenizerError, match=message):
        bare.encode(["cat"], truncation="longest")
    with pytest.raises(TokenizerError, match=r"^truncation='only_second' needs pairs, got texts"):
        bare.encode(["cat"], truncation="only_second")


def test_texts_too_long_are_refused_when_asked(tiny: Tokenizer) -> None:
    assert tiny.encode(["cat sat"], max_length=4, truncation="error")[0].n_truncated == 0
    message = (
        r"^texts\[1\] has 5 tokens with the special ones, expected at most 4 with "
        "truncation='error': shorten it$"
    )
    with pytest.raises(TextError, match=message):
        tiny.encode(["cat", "the cat sat"], max_length=4, truncation="error")
    with pytest.raises(TextError, match=r"^texts\[0\] has 8 tokens .* at most 6 .*'only_first'"):
        tiny.encode(["cat sat"], ["the cat sat"], max_length=6, truncation="only_first")
    with pytest.raises(TextError, match=r"^texts\[0\] has 8 tokens .* at most 6 .*'only_second'"):
        tiny.encode(["the cat sat"], ["cat sat"], max_length=6, truncation="only_second")


# ---- properties, on the real checkpoint


def words_of(raw: tokenizers.Tokenizer, text: str) -> list[str]:
    normalised = raw.normalizer.normalize_str(text)
    return [word for word, _ in raw.pre_tokenizer.pre_tokenize_str(normalised)]


def assert_same(encoding: Encoding, expected: tokenizers.Encoding) -> None:
    assert encoding.ids == expected.ids
    assert encoding.token_type_ids == expected.type_ids
    assert encoding.offsets == expected.offsets
    assert encoding.word_ids == expected.word_ids
    assert encoding.sequence_ids == expected.sequence_ids


@pytest.fixture(scope="module")
def built(minilm: Path) -> Tokenizer:
    return Tokenizer.from_vocab(minilm / "vocab.txt")


@given(texts=st.lists(TEXTS, max_size=4))
@example(texts=["a" * 100, "a" * 101, "[SEP][CLS] [UNK]", "한국어 각", "İstanbul ΑΣ ﬁ"])
def test_encoding_equals_the_backends(
    real: Tokenizer, built: Tokenizer, raw: tokenizers.Tokenizer, texts: list[str]
) -> None:
    expected = raw.encode_batch(texts, add_special_tokens=False)
    assert real.ids(texts) == built.ids(texts) == [e.ids for e in expected]
    whole = real.encode(texts, offsets=True)
    for encoding, other in zip(whole, raw.encode_batch(texts), strict=True):
        assert_same(encoding, other)
    assert [e.ids for e in real.encode(texts)] == [e.ids for e in whole]


@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
def test_encoding_of_pairs_equals_the_backends(
    real: Tokenizer, raw: tokenizers.Tokenizer, pairs: list[tuple[str, str]]
) -> None:
    first, second = ([pair[i] for pair in pairs] for i in (0, 1))
    encodings = real.encode(first, second, offsets=True)
    for encoding, expected in zip(encodings, raw.encode_batch(pairs), strict=True):
        assert_same(encoding, expected)


@given(sentences=st.lists(st.lists(st.one_of(WORDS, TEXTS), max_size=6), min_size=1, max_size=3))
def test_encoding_of_words_equals_the_backends(
    real: Tokenizer, raw: tokenizers.Tokenizer, sentences: list[list[str]]
) -> None:
    expected = raw.encode_batch(sentences, is_pretokenized=True)
    for encoding, other in zip(real.encode_words(sentences), expected, strict=True):
        assert (encoding.ids, encoding.word_ids) == (other.ids, other.word_ids)


@given(text=PLAIN_TEXTS)
def test_pieces_rebuild_the_normalised_words(
    real: Tokenizer, raw: tokenizers.Tokenizer, text: str
) -> None:
    (encoding,) = real.encode([text], offsets=True)
    pieces: dict[int, list[str]] = {}
    for i, number in zip(encoding.ids, encoding.word_ids, strict=True):
        if number is not None:
            pieces.setdefault(number, []).append(str(real.id_to_token(i)))
    words = words_of(raw, text)
    assert list(pieces) == list(range(len(words)))
    for word, parts in zip(words, pieces.values(), strict=True):
        assert parts == ["[UNK]"] or parts[0] + "".join(p[2:] for p in parts[1:]) == word
        assert parts == ["[UNK]"] or all(p.startswith("##") for p in parts[1:])


@given(text=TEXTS, max_length=st.integers(3, 20))
def test_truncated_texts_are_the_beginning_and_end_in_sep(
    real: Tokenizer, text: str, max_length: int
) -> None:
    ((cut,), (whole,)) = (
        real.encode([text], max_length=n, offsets=True) for n in (max_length, None)
    )
    assert len(cut.ids) == min(max_length, len(whole.ids))
    assert cut.ids == [*whole.ids[: len(cut.ids) - 1], real.sep_id]
    assert cut.offsets[:-1] == whole.offsets[: len(cut.ids) - 1]
    assert cut.word_ids[:-1] == whole.word_ids[: len(cut.ids) - 1]
    assert cut.n_truncated == len(whole.ids) - len(cut.ids)


@given(
    text=PLAIN_TEXTS,
    removed=st.sampled_from("\x00\x01\x1f\x7f\x85\xad\u200b\u200d\u202e\ufeff\ufffd\ue000"),
    place=st.integers(0, 40),
)
def test_what_the_normaliser_removes_changes_nothing(
    real: Tokenizer, text: str, removed: str, place: int
) -> None:
    place = min(place, len(text))
    assert real.ids([text[:place] + removed + text[place:]]) == real.ids([text])


@given(text=PLAIN_TEXTS)
def test_uncased_tokens_of_normalised_text_are_the_same(
    real: Tokenizer, raw: tokenizers.Tokenizer, text: str
) -> None:
    normalised = raw.normalizer.normalize_str(text)
    assert real.ids([normalised]) == real.ids([text])
    assert real.ids([unicodedata.normalize("NFD", text)]) == real.ids([text])
    if text.isascii():
        assert real.ids([text.swapcase()]) == real.ids([text])


@given(text=PLAIN_TEXTS)
def test_offsets_point_to_where_a_token_comes_from(
    real: Tokenizer, raw: tokenizers.Tokenizer, text: str
) -> None:
    (encoding,) = real.encode([text], offsets=True)
    spans = encoding.offsets[1:-1]
    assert all(0 <= start < stop <= len(text) for start, stop in spans)
    assert spans == sorted(spans)
    for i, (start, stop) in zip(encoding.ids[1:-1], spans, strict=True):
        piece = str(real.id_to_token(i)).removeprefix("##")
        assert i == real.unk_id or piece in raw.normalizer.normalize_str(text[start:stop])


@given(text=TEXTS, max_length=st.integers(3, 14), overlap=st.integers(0, 10))
def test_windows_cover_every_token_with_the_overlap_asked_for(
    real: Tokenizer, text: str, max_length: int, overlap: int
) -> None:
    overlap = min(overlap, max_length - 3)
    (windows,) = real.windows([text], max_length=max_length, overlap=overlap, offsets=True)
    (whole,) = real.encode([text], offsets=True)
    ids, offsets, words = windows[0].ids[1:-1], windows[0].offsets[1:-1], windows[0].word_ids[1:-1]
    for before, window in pairwise(windows):
        assert window.ids[1 : 1 + overlap] == before.ids[-1 - overlap : -1]
        assert len(before.ids) == max_length
        assert len(window.ids) > overlap + 2
        ids += window.ids[1 + overlap : -1]
        offsets += window.offsets[1 + overlap : -1]
        words += window.word_ids[1 + overlap : -1]
    assert (ids, offsets, words) == (whole.ids[1:-1], whole.offsets[1:-1], whole.word_ids[1:-1])
    assert len(windows) > 1 or windows == [whole]


@given(
    n_tokens=st.integers(0, 30),
    n_question=st.integers(0, 6),
    max_length=st.integers(10, 20),
    overlap=st.integers(0, 10),
)
def test_windows_equal_the_backends_strides(
    real: Tokenizer,
    own: tokenizers.Tokenizer,
    n_tokens: int,
    n_question: int,
    max_length: int,
    overlap: int,
) -> None:
    text = " ".join(random.Random(n_tokens).choices(["cat", "dog", "sat"], k=n_tokens))
    question = "who " * n_question
    alone, beside = (min(overlap, max_length - n - 1) for n in (2, 3 + n_question))
    own.enable_truncation(max_length, stride=alone)
    expected = own.encode(text)
    (windows,) = real.windows([text], max_length=max_length, overlap=alone, offsets=True)
    for window, other in zip(windows, [expected, *expected.overflowing], strict=True):
        assert_same(window, other)
    if beside < 0:
        return
    own.enable_truncation(max_length, stride=beside, strategy="only_second")
    expected = own.encode(question, text)
    (windows,) = real.windows(
        [text], max_length=max_length, overlap=beside, pairs=[question], offsets=True
    )
    for window, other in zip(windows, [expected, *expected.overflowing], strict=True):
        assert_same(window, other)


@given(
    lengths=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    max_length=st.integers(4, 40),
    truncation=st.sampled_from(["longest_first", "only_first", "only_second"]),
)
@example(lengths=(20, 20), max_length=20, truncation="longest_first")
@example(lengths=(20, 20), max_length=21, truncation="longest_first")
def test_truncation_of_pairs_equals_the_backends(
    real: Tokenizer,
    raw: tokenizers.Tokenizer,
    own: tokenizers.Tokenizer,
    lengths: tuple[int, int],
    max_length: int,
    truncation: Any,
) -> None:
    first, second = ("the cat sat, unaffably " * 6, "whose dog purrs? " * 8)
    first, second = first[: 3 * lengths[0]], second[: 3 * lengths[1]]
    own.enable_truncation(max_length, strategy=truncation)
    n_over = len(raw.encode(first, second).ids) - max_length
    alone = {"only_first": first, "only_second": second}.get(truncation)
    if alone is not None and 0 < n_over >= len(real.ids([alone])[0]):
        with pytest.raises(Exception, match="too short"):
            own.encode(first, second)
        with pytest.raises(TextError, match=r"^texts\[0\] has \d+ tokens"):
            real.encode([first], [second], max_length=max_length, truncation=truncation)
        return
    expected = own.encode(first, second)
    (encoding,) = real.encode(
        [first], [second], max_length=max_length, truncation=truncation, offsets=True
    )
    assert_same(encoding, expected)
    assert encoding.n_truncated == max(0, n_over)


# ---- long texts


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=3),
    piece=st.integers(1, 6),
    call=st.integers(1, 20),
    max_length=st.integers(3, 12),
)
@example(texts=["the   cat  sat"], piece=2, call=1, max_length=9)
@example(
    texts=["a\x0cb \u0301c .\u0338d\r\n中\u0301文 [SEP ] a[SEP]b"], piece=1, call=3, max_length=9
)
def test_texts_in_pieces_give_what_whole_texts_give(
    real: Tokenizer,
    raw: tokenizers.Tokenizer,
    texts: list[str],
    piece: int,
    call: int,
    max_length: int,
) -> None:
    words = [text.split(" ") for text in texts]
    whole = [
        real.ids(texts),
        real.encode(texts, max_length=max_length, offsets=True),
        real.encode(texts, texts[::-1], max_length=max_length + 1),
        real.encode_words(words, max_length=max_length),
        real.windows(texts, max_length=max_length),
    ]
    with (
        mock.patch.object(module, "_PIECE_CHARS", piece),
        mock.patch.object(module, "_CALL_CHARS", call),
    ):
        encodings = real.encode(texts, offsets=True)
        for encoding, expected in zip(encodings, raw.encode_batch(texts), strict=True):
            assert_same(encoding, expected)
        assert whole == [
            real.ids(texts),
            real.encode(texts, max_length=max_length, offsets=True),
            real.encode(texts, texts[::-1], max_length=max_length + 1),
            real.encode_words(words, max_length=max_length),
            real.windows(texts, max_length=max_length),
        ]


@given(texts=st.lists(TEXTS, max_size=3), enough=st.integers(1, 12), chars=st.integers(0, 4))
@example(texts=["the   cat  sat", "unaffably sat", ""], enough=3, chars=1)
def test_enough_ids_are_those_that_all_begin_with(
    real: Tokenizer, texts: list[str], enough: int, chars: int
) -> None:
    with mock.patch.object(module, "_CHARS_PER_TOKEN", chars):
        got = real.ids(texts, enough=enough)
    for ids, expected in zip(got, real.ids(texts), strict=True):
        assert ids == expected[: len(ids)]
        assert len(ids) >= min(enough, len(expected))


def test_what_is_more_than_enough_is_not_tokenised(real: Tokenizer) -> None:
    (ids,) = real.ids(["a cat sat. " * 1000], enough=10)
    assert 10 <= len(ids) <= 60


@pytest.mark.parametrize(
    ("added", "text"),
    [
        (tokenizers.AddedToken("the cat"), "of the cat of the\tcat"),
        (tokenizers.AddedToken("<a>", lstrip=True), "of  <a> the"),
        (tokenizers.AddedToken("<a>", rstrip=True), "of <a>   the"),
        (tokenizers.AddedToken("fooq", single_word=True), "fooq. a_fooq fooq"),
        (tokenizers.AddedToken("a.b,c"), "of a.b,c.a.b,c"),
        (tokenizers.AddedToken("≠."), "of ≠.=.≠. the"),
        (tokenizers.AddedToken("a中b", normalized=False), "of a中b中a中b"),
        (tokenizers.AddedToken("a中b"), "of a中b中a中b a 中 b"),
        (tokenizers.AddedToken("\u037e;"), "of ;; \u037e; the"),
    ],
)
def test_added_tokens_are_not_cut_by_pieces(
    raw: tokenizers.Tokenizer, added: tokenizers.AddedToken, text: str
) -> None:
    own = tokenizers.Tokenizer.from_str(raw.to_str())
    own.add_tokens([added])
    expected = own.encode(text)
    assert any(i >= 30522 for i in expected.ids)
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(own.to_str()))
    for piece in (1, 2, 3, 4):
        with mock.patch.object(module, "_PIECE_CHARS", piece):
            (encoding,) = tokenizer.encode([text], offsets=True)
        assert_same(encoding, expected)


def test_unsplit_chinese_is_not_cut_by_pieces(minilm: Path) -> None:
    tokenizer = Tokenizer.from_vocab(minilm / "vocab.txt", tokenize_chinese_chars=False)
    texts = ["中文中文 the 中文"]
    whole = tokenizer.encode(texts, offsets=True)
    assert whole[0].ids[1:-1] != tokenizer.ids(["中 文 中 文 the 中 文"])[0]
    with mock.patch.object(module, "_PIECE_CHARS", 1):
        assert tokenizer.encode(texts, offsets=True) == whole


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(),
    reason="the peak of a process's own memory is read from Linux's /proc",
)
def test_long_text_needs_little_memory_and_is_counted_exactly(minilm: Path, tmp_path: Path) -> None:
    script = tmp_path / "long.py"
    script.write_text(
        """
import re, sys
from pathlib import Path
from minibert.tokenizer import Tokenizer

def peak():  # not ru_maxrss, which starts at the parent's
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

tokenizer = Tokenizer.from_pretrained(sys.argv[1])
text = "The unaffable cat sat on the mat, didn't it? " * 30_000
tokenizer.ids([text[:300_000]])
before = peak()
(encoding,) = tokenizer.encode([text], max_length=256, offsets=True)
print(encoding.n_truncated + 254, (peak() - before) // 1024)
""",
        encoding="utf-8",
    )
    n_tokens, megabytes = map(int, run(script, str(minilm)).split())
    one = Tokenizer.from_pretrained(minilm).ids(["The unaffable cat sat on the mat, didn't it? "])
    assert n_tokens == 30_000 * len(one[0])
    # The backend alone takes over 200 for this 1.3 MB.
    assert megabytes < 25, megabytes


# ---- threads, processes, imports


def run(script: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_eight_threads_get_the_serial_result(real: Tokenizer) -> None:
    texts = ["The unaffable cat sat on the mat. " * n for n in range(1, 20)]

    def work(number: int) -> Iterator[Any]:
        for _ in range(4):
            yield real.encode(texts, max_length=8 + 3 * number, offsets=number % 2 == 0)
            yield real.windows(texts[:8], max_length=8 + number, overlap=number % 4)
            yield real.ids(texts[number:])

    serial = [list(work(number)) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: list(work(number)), range(8))) == serial


def test_forked_child_tokenises_after_its_parent_did(minilm: Path, tmp_path: Path) -> None:
    script = tmp_path / "fork.py"
    script.write_text(
        """
import os, sys
from minibert.tokenizer import Tokenizer

tokenizer = Tokenizer.from_pretrained(sys.argv[1])
texts = ["The unaffable cat sat on the mat."] * 500
expected = tokenizer.ids(texts), tokenizer.encode(texts, max_length=6, offsets=True)
child = os.fork()
if not child:
    same = (tokenizer.ids(texts), tokenizer.encode(texts, max_length=6, offsets=True)) == expected
    os._exit(0 if same else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
        encoding="utf-8",
    )
    run(script, str(minilm))


def test_import_brings_neither_torch_nor_the_hub(tmp_path: Path) -> None:
    script = tmp_path / "imports.py"
    script.write_text(
        "import sys, minibert.tokenizer\n"
        "print(*{'torch', 'numpy', 'huggingface_hub', 'transformers'} & set(sys.modules))\n"
    )
    assert run(script).strip() == ""


# ---- real data


def assert_equal_to_both(
    real: Tokenizer, built: Tokenizer, raw: tokenizers.Tokenizer, texts: list[str]
) -> None:
    assert texts
    encodings, expected = real.encode(texts, offsets=True), raw.encode_batch(texts)
    for encoding, other in zip(encodings, expected, strict=True):
        assert_same(encoding, other)
    assert real.ids(texts) == built.ids(texts) == [e.ids[1:-1] for e in expected]


@pytest.mark.data
def test_naughty_strings_equal_the_backends(
    real: Tokenizer, built: Tokenizer, raw: tokenizers.Tokenizer, data: Path
) -> None:
    texts = json.loads((data / "blns" / "blns.json").read_text(encoding="utf-8"))
    assert_equal_to_both(real, built, raw, texts)
    lines = (data / "blns" / "blns.txt").read_text(encoding="utf-8").split("\n")
    assert_equal_to_both(real, built, raw, lines)


@pytest.mark.data
def test_hundreds_of_languages_equal_the_backends(
    real: Tokenizer, built: Tokenizer, raw: tokenizers.Tokenizer, data: Path
) -> None:
    with zipfile.ZipFile(data / "udhr" / "udhr2.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".txt")]
        texts = [archive.read(name).decode("utf-8")[:800] for name in names]
    assert len(texts) > 300
    assert_equal_to_both(real, built, raw, texts)


@pytest.mark.data
def test_unicode_test_files_equal_the_backends(
    real: Tokenizer, built: Tokenizer, raw: tokenizers.Tokenizer, data: Path
) -> None:
    lines = (data / "unicode" / "NormalizationTest.txt").read_text(encoding="utf-8").split("\n")
    columns = [line.split(";")[:5] for line in lines if line and line[0] not in "#@"]
    texts = [
        " ".join("".join(chr(int(code, 16)) for code in column.split()) for column in row)
        for row in columns
    ]
    assert_equal_to_both(real, built, raw, texts[::4])
    demo = (data / "unicode" / "UTF-8-demo.txt").read_text(encoding="utf-8")
    assert_equal_to_both(real, built, raw, [demo, *demo.split("\n")])


@pytest.mark.data
def test_books_in_pieces_equal_the_backends(
    real: Tokenizer, built: Tokenizer, raw: tokenizers.Tokenizer, data: Path
) -> None:
    text = (data / "gutenberg" / "alice_11-0.txt").read_bytes().decode("utf-8-sig")
    assert len(text) > 4 * module._PIECE_CHARS
    assert_equal_to_both(real, built, raw, [text])


# ---- transformers


@pytest.fixture(scope="module")
def auto(autotokenizer: Callable[[Path], Any], minilm: Path) -> Any:
    return autotokenizer(minilm)


@pytest.mark.reference
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=3), others=st.lists(TEXTS, min_size=3, max_size=3)
)
def test_encoding_equals_transformers(
    real: Tokenizer, auto: Any, texts: list[str], others: list[str]
) -> None:
    for pairs in (None, others[: len(texts)]):
        expected = auto(texts, pairs, return_offsets_mapping=True, padding=False, truncation=False)
        for row, encoding in enumerate(real.encode(texts, pairs, offsets=True)):
            assert encoding.ids == expected["input_ids"][row]
            assert encoding.token_type_ids == expected["token_type_ids"][row]
            assert encoding.offsets == [tuple(pair) for pair in expected["offset_mapping"][row]]
            assert encoding.word_ids == expected.word_ids(row)
            assert encoding.sequence_ids == expected.sequence_ids(row)


@pytest.mark.reference
@given(lengths=st.tuples(st.integers(0, 40), st.integers(0, 40)), max_length=st.integers(4, 60))
def test_truncation_of_pairs_equals_transformers(
    real: Tokenizer, auto: Any, lengths: tuple[int, int], max_length: int
) -> None:
    first, second = "cat " * lengths[0], "dog " * lengths[1]
    expected = auto([first], [second], truncation="longest_first", max_length=max_length)
    (encoding,) = real.encode([first], [second], max_length=max_length)
    assert [encoding.ids] == expected["input_ids"]
    assert [encoding.token_type_ids] == expected["token_type_ids"]


@pytest.mark.reference
def test_batches_equal_transformers(real: Tokenizer, auto: Any) -> None:
    texts = ["the cat", "", "the unaffable cat sat"]
    expected = auto(
        texts, padding=True, truncation=False, pad_to_multiple_of=8, return_tensors="pt"
    )
    batch = real.pad(real.encode(texts), multiple_of=8)
    assert set(batch) == set(expected)
    for name, tensor in batch.items():
        assert torch.equal(tensor, expected[name])
    ids = real.encode(texts)[2].ids
    assert real.decode(ids) == auto.decode(ids, skip_special_tokens=True)


@pytest.mark.reference
def test_words_equal_transformers(real: Tokenizer, auto: Any) -> None:
    sentences = [["The", "", "unaffable", "cats,sat", "[MASK]"], ["中文e", "\u200b", "ÅÉ"], ["a"]]
    expected = auto(sentences, is_split_into_words=True, padding=False, truncation=False)
    for row, encoding in enumerate(real.encode_words(sentences)):
        assert encoding.ids == expected["input_ids"][row]
        assert encoding.word_ids == expected.word_ids(row)


PROBE = ["Héllo <x> the CAT 中文 [MASK] <y>!", "cat", ""]


@pytest.mark.reference
@pytest.mark.parametrize(
    ("names", "changes"),
    [
        (["tokenizer.json"], {"config": {"do_lower_case": False}}),
        (["tokenizer.json"], {"config": {"strip_accents": False, "do_lower_case": True}}),
        (
            ["tokenizer.json"],
            {
                "config": {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True},
                "normalizer": {"lowercase": False},
            },
        ),
        (["vocab.txt"], {}),
        (["vocab.txt"], {"config": {"do_lower_case": False, "tokenize_chinese_chars": False}}),
        (["vocab.txt"], {"added_tokens": {"<x>": 30522, "<y>": 30523}}),
        (
            ["vocab.txt"],
            {"config": {"added_tokens_decoder": {"30522": {"content": "<x>", "lstrip": True}}}},
        ),
    ],
)
def test_folders_are_read_as_by_transformers(
    tmp_path: Path,
    minilm: Path,
    autotokenizer: Callable[[Path], Any],
    names: list[str],
    changes: dict[str, Any],
) -> None:
    folder = folder_of(tmp_path, minilm, *names, **changes)
    expected = autotokenizer(folder)(PROBE, padding=False, truncation=False)["input_ids"]
    assert [e.ids for e in Tokenizer.from_pretrained(folder).encode(PROBE)] == expected


@pytest.mark.reference
def test_repeated_and_blank_lines_are_read_as_by_transformers(
    tmp_path: Path, autotokenizer: Callable[[Path], Any]
) -> None:
    lines = [*SPECIAL, "cat", "", "the", "cat", "e"]
    for end in ("\n", "\r\n"):
        folder = vocab_folder(tmp_path / end.encode().hex(), lines, end)
        tokenizer, auto = Tokenizer.from_pretrained(folder), autotokenizer(folder)
        assert {t: tokenizer.token_to_id(t) for t in lines} == auto.get_vocab()


@pytest.mark.reference
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"config": {"do_lower_case": False, "strip_accents": True, "model_max_length": 512}},
        {"added_tokens": {"<x>": 30522, "<y>": 30523}},
        {"config": {"added_tokens_decoder": {"30522": {"content": "<x>", "special": True}}}},
    ],
)
def test_transformers_opens_what_is_saved(
    tmp_path: Path, minilm: Path, autotokenizer: Callable[[Path], Any], changes: dict[str, Any]
) -> None:
    tokenizer = Tokenizer.from_pretrained(folder_of(tmp_path, minilm, "vocab.txt", **changes))
    tokenizer.save_pretrained(tmp_path / "saved")
    auto = autotokenizer(tmp_path / "saved")
    texts = [*PROBE, "word " * 300]
    assert [e.ids for e in tokenizer.encode(texts)] == auto(texts)["input_ids"]
    assert set(auto.all_special_ids) <= tokenizer.special_ids
    assert auto.pad_token_id == tokenizer.pad_id
    assert auto.mask_token_id == tokenizer.mask_id
    assert type(auto).__name__ == "BertTokenizer"
    expected = 512 if "model_max_length" in changes.get("config", {}) else int(1e30)
    assert auto.model_max_length == expected
    assert tokenizer.model_max_length == (None if expected > 512 else 512)


@pytest.mark.reference
def test_transformers_opens_a_saved_tokenizer_with_a_normaliser_of_its_own(
    tmp_path: Path, raw: tokenizers.Tokenizer, autotokenizer: Callable[[Path], Any]
) -> None:
    own = tokenizers.Tokenizer.from_str(raw.to_str())
    own.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Replace("dog", "cat"), own.normalizer]
    )
    tokenizer = Tokenizer(own)
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer.ids(["dog"]) == tokenizer.ids(["cat"])
    assert autotokenizer(tmp_path)("a dog")["input_ids"] == tokenizer.encode(["a dog"])[0].ids
    assert Tokenizer.from_pretrained(tmp_path).to_json() == tokenizer.to_json()
