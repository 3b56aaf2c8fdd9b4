"""Tokenizer parity: pairs that differ in one rule each, and which rule and character is found."""

import copy
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import without_type_checks

from minibert import cli
from minibert.cli.parity_tokenizer import tokenizer as command
from minibert.errors import TextError, TokenizerError
from minibert.parity import tokenizers as module
from minibert.parity.tokenizers import (
    HOSTILE_TEXTS,
    RULES,
    Difference,
    RuleCount,
    compare_tokenizers,
)
from minibert.tokenizer import Tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDPIECES = """
    the cat sat The Cat cafe café Cafe na naive ##ive x y ##y ##x - ' . don t 中 文 ##文
    user < > e é E ##e fi ab i
""".split()
VOCAB = [*SPECIAL, *WORDPIECES]
ID = {token: i for i, token in enumerate(VOCAB)}

# Assigned characters alone: what is too new for this Python it cannot lower-case either.
CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs", "Cn"]),
    st.sampled_from("aeiAEI ßİſΑΣKﬁْ́̈̊中文〇豈한"),
    st.sampled_from(" \t\n\r\x00\x0b\x1c\x85\xa0\xad\u200b\u200d\u2028\u3000\ufeff\ufffd"),
    st.sampled_from("!'-.<>_`、。—…¿☃€"),
)
WORDS = st.sampled_from([*WORDPIECES, "Naïve", "CAFÉ", "中文x", "[SEP]", "x-y", "the\u200b", "☃x"])
LINES = st.lists(st.one_of(WORDS, st.text(CHARACTERS, max_size=6)), max_size=10).map(" ".join)
GLUED = st.lists(st.one_of(WORDS, CHARACTERS), max_size=8).map("".join)
TEXTS = st.lists(st.one_of(LINES, GLUED), max_size=8)


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


def content(vocab: list[str] = VOCAB, **changes: Any) -> dict[str, Any]:
    """A tokenizer.json: objects are changed in the fields given, all else is replaced."""
    special = {"special": True, "normalized": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, **special}
    found: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocab.index(t), "content": t, **flags} for t in SPECIAL],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: i for i, token in enumerate(vocab)},
        },
    }
    for key, change in changes.items():
        if key == "added":
            found["added_tokens"].append({"id": len(vocab), "content": change, **flags})
        elif isinstance(change, dict) and "type" not in change:
            found[key].update(change)
        else:
            found[key] = change
    return found


def in_file(folder: Path, **changes: Any) -> Tokenizer:
    """A tokenizer from a tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content(**changes)), encoding="utf-8")
    return Tokenizer.from_file(path)


def folder_of(folder: Path, vocab: list[str] = VOCAB, **config: Any) -> Path:
    """A folder of a vocab.txt and a tokenizer_config.json."""
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def in_folder(folder: Path, vocab: list[str] = VOCAB, **config: Any) -> Tokenizer:
    return Tokenizer.from_pretrained(folder_of(folder, vocab, **config))


def swapped(one: str, other: str) -> list[str]:
    """The vocabulary with two tokens in each other's place."""
    places = {one: other, other: one}
    return [places.get(token, token) for token in VOCAB]


def without(*tokens: str) -> list[str]:
    """The vocabulary without some tokens, and all other ids as they were."""
    return [f"[unused{i}]" if token in tokens else token for i, token in enumerate(VOCAB)]


def check(
    a: Tokenizer, b: Tokenizer, text: str, rule: str, index: int | None, evidence: str = ""
) -> None:
    """Both ways round, alone and among words that agree, the text parts by this rule, here."""
    for before, after in (("", ""), ("the cat ", " sat"), ("the\ncat\n", "\nx")):
        whole = before + text + after
        for one, other in ((a, b), (b, a)):
            found = compare_tokenizers(one, other, [whole])
            first = found.first
            assert first is not None
            assert (found.texts, found.differing) == (1, 1)
            assert found.by_rule == {rule: RuleCount(1, first)}, str(first)
            assert first.index == (None if index is None else len(before) + index), str(first)
            assert first.character == (None if index is None else text[index])
            assert evidence in first.evidence
            ends = first.n_agreeing
            assert first.ids_a[:ends] == first.ids_b[:ends]
            assert first.tokens_a[:ends] == first.tokens_b[:ends]


# ---- one rule changed in a tokenizer.json

CASED = {"lowercase": False, "strip_accents": False}
BLANKS_ALONE = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "CharDelimiterSplit", "delimiter": " "},
        {"type": "Punctuation", "behavior": "Isolated"},
    ],
}
NFKC = {
    "type": "Sequence",
    "normalizers": [{"type": "NFKC"}, content()["normalizer"]],
}

ONE_RULE: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, int]]] = {
    "lower-casing": (
        "lower-casing",
        {"normalizer": {"strip_accents": False}},
        {"normalizer": {"strip_accents": False, "lowercase": False}},
        {"Cat": 0, "cAt": 1, "xY": 1, "x-É": 2, "CAFÉ": 0, "cafÉ": 3},
    ),
    "lower-casing, accents stripped": (
        "lower-casing",
        {"normalizer": {"strip_accents": True}},
        {"normalizer": {"strip_accents": True, "lowercase": False}},
        {"cAt": 1, "naïVe": 3, "ÉX": 0},
    ),
    "accents": (
        "accents",
        {"normalizer": {"strip_accents": True}},
        {"normalizer": {"strip_accents": False}},
        {"naïve": 2, "nai\u0308ve": 3, "CAFÉ": 3, "xÿ": 1, "e\u0301": 1, "\u0301": 0, "İ": 0},
    ),
    "accents, cased": (
        "accents",
        {"normalizer": CASED | {"strip_accents": True}},
        {"normalizer": CASED},
        # Lower-cased it is unknown to both, which is no agreement.
        {"Cafè": 3, "naïve": 2},
    ),
    "CJK": (
        "CJK",
        {},
        {"normalizer": {"handle_chinese_chars": False}},
        {"x中y": 1, "中x": 0, "x文": 1, "中文": 0, "㐀the": 0, "the\U0002b920": 3, "豈ab": 0},
    ),
    "control characters": (
        "control characters",
        {},
        {"normalizer": {"clean_text": False}},
        {"c\u200bat": 1, "cat\x00": 3, "\x07": 0, "x \x07 y": 2, "\ufeffcat": 0, "c\ufffdat": 1},
    ),
    "punctuation": (
        "punctuation",
        {},
        {"pre_tokenizer": {"type": "WhitespaceSplit"}},
        {"x-y": 1, "-x": 0, "don't": 3, "cat.": 3, "ab—cd": 2, "...": 0},
    ),
    "punctuation, by its neighbours": (
        "punctuation",
        {},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"5€x": 1, "..": 0, "x_y": 1},
    ),
    "punctuation, dropped": (
        "punctuation",
        {},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "WhitespaceSplit"},
                    {"type": "Punctuation", "behavior": "Removed"},
                ],
            }
        },
        {"x-y": 1, "cat.": 3},
    ),
    "special tokens": (
        "special tokens",
        {},
        {"added": "<user>"},
        {"<user>": 0, "x<user>y": 1, "cat <user>": 4},
    ),
    "unknown, by length": (
        "unknown",
        {},
        {"model": {"max_input_chars_per_word": 4}},
        {"naive": 0, "x-xyxyx": 2},
    ),
    "unknown, by vocabulary": ("unknown", {}, {"vocab": without("##y")}, {"xy": 0, "-xyx": 1}),
    "vocabulary, ids": ("vocabulary", {}, {"vocab": swapped("x", "y")}, {"x": 0, "ab y": 3}),
    "vocabulary, pieces": (
        "vocabulary",
        {},
        {"vocab": without("naive")},
        {"naive": 0, "NAÏVE": 0, "x naive": 2},
    ),
    "other": ("other", {}, {"normalizer": NFKC}, {"ﬁ": 0, "the ﬁx": 4}),
}


@pytest.fixture(scope="module", params=ONE_RULE)
def one_rule(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Tokenizer, Tokenizer, dict[str, int]]:
    rule, a, b, texts = ONE_RULE[request.param]
    folder = tmp_path_factory.mktemp("pair")
    return rule, in_file(folder / "a", **a), in_file(folder / "b", **b), texts


def test_the_rule_and_the_character_are_found(
    one_rule: tuple[str, Tokenizer, Tokenizer, dict[str, int]],
) -> None:
    rule, a, b, texts = one_rule
    for text, index in texts.items():
        check(a, b, text, rule, index)


@given(texts=TEXTS)
@example(texts=["㐀ab x É", "\x00 ☃ x", "the \u0301㐀  ", "\u0301\u0301é", "x\x85y"])
def test_one_rule_changed_is_the_only_one_found(
    one_rule: tuple[str, Tokenizer, Tokenizer, dict[str, int]], texts: list[str]
) -> None:
    rule, a, b, _ = one_rule
    found = compare_tokenizers(a, b, texts)
    pairs = enumerate(zip(a.encode(texts), b.encode(texts), strict=True))
    differing = [row for row, (one, other) in pairs if one.ids != other.ids]
    assert (found.texts, found.differing) == (len(texts), len(differing))
    # NFKC makes a blank of some marks, so drops them.
    assert set(found.by_rule) <= {rule, *(["punctuation"] if rule == "other" else [])}, str(found)
    if found.first is not None:
        assert found.first.row == differing[0]
        assert found.first.text == texts[differing[0]]
        assert found.by_rule[found.first.rule].example == found.first


def test_whitespace_that_does_not_end_a_word(tmp_path: Path) -> None:
    dirty = {"clean_text": False}
    a = in_file(tmp_path / "a", normalizer=dirty)
    b = in_file(tmp_path / "b", normalizer=dirty, pre_tokenizer=BLANKS_ALONE)
    for text, index in {"x\xa0y": 1, "cat\u3000": 3, "\u2028the": 0, "ab x\u2003y": 4}.items():
        found = compare_tokenizers(a, b, [f"the cat {text} sat"])
        assert list(found.by_rule) == ["whitespace"]
        assert found.first is not None
        assert found.first.index == 8 + index
        assert found.first.evidence.endswith("whitespace is a blank")


def test_blanks_that_do_not_end_a_word(tmp_path: Path) -> None:
    a, b = in_file(tmp_path / "a"), in_file(tmp_path / "b", pre_tokenizer=None)
    for one, other in ((a, b), (b, a)):
        found = compare_tokenizers(one, other, ["the cat"])
        assert found.first is not None
        assert (found.first.rule, found.first.index) == ("whitespace", 3)
        assert found.first.evidence.endswith("whitespace is dropped")


def test_unknown_words_are_not_taken_for_agreement(tmp_path: Path) -> None:
    a, b = in_file(tmp_path / "a"), in_file(tmp_path / "b", normalizer={"lowercase": False})
    # 㐁 and ☃ are [UNK] for both; only the cat differs.
    check(a, b, "㐁 ☃☃ Cat", "lower-casing", 5)
    # É differs as well, in a word that is [UNK] for both.
    check(a, b, "☃É-Cat", "lower-casing", 3)
    c = in_file(tmp_path / "c", normalizer={"handle_chinese_chars": False})
    # [UNK] [UNK] x against [UNK] x: the ids part at x, the characters before it.
    found = compare_tokenizers(a, c, ["㐀☃ x"])
    assert found.first is not None
    assert (found.first.rule, found.first.index) == ("CJK", 0)
    d = in_file(tmp_path / "d", normalizer={"clean_text": False})
    found = compare_tokenizers(a, d, ["\x00 ☃ x"])
    assert found.first is not None
    assert (found.first.rule, found.first.index) == ("control characters", 0)
    assert found.first.tokens_b == ("[CLS]", "[UNK]", "[UNK]", "x", "[SEP]")


def test_two_rules_at_one_character_are_both_told(tmp_path: Path) -> None:
    a, b = in_file(tmp_path / "a"), in_file(tmp_path / "b", normalizer={"lowercase": False})
    both = "it is lower-cased and accents are stripped"
    check(a, b, "Éx", "lower-casing", 0, both)
    check(a, b, "éx", "accents", 0, "once accents are stripped")
    check(a, b, "ex Cafe", "lower-casing", 3, "once it is lower-cased")


def test_the_first_token_that_differs_decides(tmp_path: Path) -> None:
    a = in_file(tmp_path / "a")
    b = in_file(tmp_path / "b", vocab=without("##y"), normalizer={"lowercase": False})
    check(a, b, "xy.Cat", "unknown", 0)
    check(a, b, "x.Cat.xy", "lower-casing", 2)


def test_without_its_character_any_difference_goes_which_proves_nothing(tmp_path: Path) -> None:
    letter = {"type": "Replace", "pattern": {"String": "-"}, "content": "z"}
    lower = content()["normalizer"]
    a = in_file(tmp_path / "a")
    b = in_file(tmp_path / "b", normalizer={"type": "Sequence", "normalizers": [letter, lower]})
    check(a, b, "x-y", "other", 1, "no change tried mends that")


def test_equal_tokens_of_other_characters_are_apart(tmp_path: Path) -> None:
    first_x = {"type": "Replace", "pattern": {"Regex": "^x"}, "content": ""}
    lower = content()["normalizer"]
    a = in_file(tmp_path / "a")
    b = in_file(tmp_path / "b", normalizer={"type": "Sequence", "normalizers": [first_x, lower]})
    found = compare_tokenizers(a, b, ["xx"])
    assert found.first is not None
    assert (found.first.rule, found.first.index) == ("other", 0)
    assert found.first.tokens_a == ("[CLS]", "x", "##x", "[SEP]")
    assert found.first.tokens_b == ("[CLS]", "x", "[SEP]")


def test_unknown_tokens_that_each_drops_elsewhere_are_apart(tmp_path: Path) -> None:
    no_snowman = {"type": "Replace", "pattern": {"String": "☃"}, "content": ""}
    dirty = content()["normalizer"] | {"clean_text": False, "lowercase": False}
    a = in_file(tmp_path / "a")
    b = in_file(tmp_path / "b", normalizer={"type": "Sequence", "normalizers": [no_snowman, dirty]})
    # [UNK] cat and [UNK] Cat, but one is the snowman and the other the NUL.
    check(a, b, "\x00 ☃ Cat", "control characters", 0)


def test_a_special_token_that_takes_the_blanks_before_it_is_placed_behind_them(
    tmp_path: Path,
) -> None:
    changed = content(added="<user>")
    changed["added_tokens"][-1]["lstrip"] = True
    path = tmp_path / "greedy.json"
    path.write_text(json.dumps(changed), encoding="utf-8")
    check(in_file(tmp_path / "a"), Tokenizer.from_file(path), "x  <user>", "special tokens", 3)


def test_what_stands_beside_a_special_token_is_looked_at(tmp_path: Path) -> None:
    changed = content(added="<user>")
    changed["added_tokens"][-1]["single_word"] = True
    path = tmp_path / "alone.json"
    path.write_text(json.dumps(changed), encoding="utf-8")
    b = in_file(tmp_path / "b", added="<user>")
    check(Tokenizer.from_file(path), b, "x<user>", "special tokens", 1, "only one takes <user>")


def test_unknown_tokens_with_other_ids_are_another_vocabulary(tmp_path: Path) -> None:
    vocab = [*VOCAB, "<unk>"]
    a = in_folder(tmp_path / "a", vocab)
    b = in_folder(tmp_path / "b", vocab, unk_token="<unk>")
    check(a, b, "x ☃", "vocabulary", 2)


def test_the_reasons_of_unknown_words_are_told(tmp_path: Path) -> None:
    a = in_file(tmp_path / "a")
    short = in_file(tmp_path / "short", model={"max_input_chars_per_word": 4})
    why = "a word of 5 characters is too long for B, whose vocabulary has its pieces"
    found = compare_tokenizers(a, short, ["the naive"])
    assert found.first is not None
    assert found.first.evidence == why
    poor = in_file(tmp_path / "poor", vocab=without("##y"))
    found = compare_tokenizers(poor, a, ["the xyx"])
    assert found.first is not None
    assert found.first.evidence == "the vocabulary of A lacks ##y"
    assert found.first.tokens_a == ("[CLS]", "the", "[UNK]", "[SEP]")
    assert found.first.tokens_b == ("[CLS]", "the", "x", "##y", "##x", "[SEP]")


def test_special_tokens_with_other_ids_differ_everywhere_at_no_character(tmp_path: Path) -> None:
    a = in_file(tmp_path / "a")
    for other, place in (("[CLS]", 0), ("[SEP]", 2)):
        b = in_file(tmp_path / other, vocab=swapped(other, "[MASK]"))
        found = compare_tokenizers(a, b, ["the", ""])
        assert found.differing == found.by_rule["vocabulary"].texts == 2
        assert found.first is not None
        assert (found.first.index, found.first.character) == (None, None)
        assert found.first.character_name is None
        assert found.first.n_agreeing == place
        assert found.first.ids_a[place] == ID[other]
        assert found.first.ids_b[place] == ID["[MASK]"]
        assert "no character of the text" in str(found)
        # What differs in the text itself comes first.
        found = compare_tokenizers(a, Tokenizer.from_file(cased(tmp_path, b)), ["the Cat"])
        assert found.first is not None
        assert (found.first.rule, found.first.index) == ("lower-casing", 4)


def cased(folder: Path, tokenizer: Tokenizer) -> Path:
    """The tokenizer.json of a tokenizer that does not lower-case."""
    changed = json.loads(tokenizer.to_json())
    changed["normalizer"]["lowercase"] = False
    path = folder / "cased.json"
    path.write_text(json.dumps(changed), encoding="utf-8")
    return path


# ---- one rule changed in a folder of vocab.txt and tokenizer_config.json


@pytest.mark.parametrize(
    ("rule", "a", "b", "text", "index"),
    [
        ("lower-casing", {"strip_accents": False}, {"do_lower_case": False}, "x-Cat", 2),
        ("accents", {"strip_accents": True}, {}, "café", 3),
        ("CJK", {"strip_accents": False}, {"tokenize_chinese_chars": False}, "x中", 1),
        (
            "special tokens",
            {},
            {"added_tokens_decoder": {str(len(VOCAB)): {"content": "<user>", "special": True}}},
            "x <user>",
            2,
        ),
        ("special tokens", {"mask_token": "<mask>"}, {}, "x <mask>", 2),
        ("special tokens", {"mask_token": "<mask>"}, {}, "x[MASK]", 1),
        ("vocabulary", {}, {"vocab": swapped("t", "don")}, "don't", 0),
        ("vocabulary", {}, {"vocab": without("naive")}, "x-naïve", 2),
        ("unknown", {}, {"vocab": without("cafe")}, "the café", 4),
    ],
)
def test_the_rule_is_found_between_folders(
    tmp_path: Path, rule: str, a: dict[str, Any], b: dict[str, Any], text: str, index: int
) -> None:
    vocab = [*VOCAB, "<mask>"] if "mask_token" in a else VOCAB
    one = in_folder(tmp_path / "a", vocab, **{"strip_accents": None} | a)
    base = {"strip_accents": False if rule in ("lower-casing", "accents", "CJK") else None}
    other = in_folder(tmp_path / "b", **{"vocab": vocab} | base | b)
    check(one, other, text, rule, index)


@pytest.mark.parametrize(("a", "b", "kept"), [(4, 6, 4), (5, None, 5), (None, 3, 3)])
def test_truncation_is_found_at_the_first_character_cut(
    tmp_path: Path, a: int | None, b: int | None, kept: int
) -> None:
    one = in_folder(tmp_path / "a", **({} if a is None else {"model_max_length": a}))
    other = in_folder(tmp_path / "b", **({} if b is None else {"model_max_length": b}))
    text = "the cat naive the cat"
    found = compare_tokenizers(one, other, ["the", text])
    assert found.first is not None
    assert list(found.by_rule) == ["truncation"]
    assert (found.texts, found.differing, found.first.row) == (2, 1, 1)
    assert found.first.index == [0, 4, 8, 14, 18][kept - 2]
    shorter = "A" if (a or 99) < (b or 99) else "B"
    assert found.first.evidence == f"same ids, but {shorter} keeps {kept} tokens"
    # A length of one's own stands above theirs.
    for max_length in (3, 4, 100):
        assert compare_tokenizers(one, other, [text], max_length=max_length).differing == 0


def test_what_lies_behind_the_cut_is_not_compared(tmp_path: Path) -> None:
    a, b = in_file(tmp_path / "a"), in_file(tmp_path / "b", normalizer={"lowercase": False})
    assert compare_tokenizers(a, b, ["the cat Cat"], max_length=4).differing == 0
    assert compare_tokenizers(a, b, ["the cat Cat"], max_length=5).differing == 1


@pytest.mark.parametrize("max_length", [2, 0, -1])
def test_a_length_without_room_is_refused(tmp_path: Path, max_length: int) -> None:
    a = in_folder(tmp_path / "a")
    expected = "expected at least 3: 2 special tokens and one of the text$"
    with pytest.raises(TokenizerError, match=f"^max_length is {max_length}, {expected}"):
        compare_tokenizers(a, a, [], max_length=max_length)
    b = in_folder(tmp_path / "b", model_max_length=2)
    with pytest.raises(TokenizerError, match=f"^the model_max_length of B: .* is 2, {expected}"):
        compare_tokenizers(a, b, [])
    assert compare_tokenizers(a, b, [], max_length=3).texts == 0


# ---- equal tokenizers


@given(texts=TEXTS)
@example(texts=list(HOSTILE_TEXTS))
def test_equal_tokenizers_do_not_differ(tmp_path_factory: Any, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("equal")
    a, b = in_file(folder / "a"), in_folder(folder / "b")
    for max_length in (None, 3, 5):
        found = compare_tokenizers(a, b, texts, max_length=max_length)
        assert (found.texts, found.differing, found.by_rule) == (len(texts), 0, {})
        assert found.first is None
    assert str(found) == f"0 of {len(texts)} texts differ"


# ---- corpora


def test_a_corpus_is_counted_by_rule(tmp_path: Path) -> None:
    a, b = in_file(tmp_path / "a"), in_file(tmp_path / "b", normalizer={"lowercase": False})
    texts = ["the", "café", "Cat", "naïve Cat", "Cat café", "", "THE"]
    found = compare_tokenizers(a, b, iter(texts))
    assert (found.texts, found.differing) == (7, 5)
    counted = {r: (c.texts, c.example.row, c.example.index) for r, c in found.by_rule.items()}
    assert counted == {"lower-casing": (3, 2, 0), "accents": (2, 1, 3)}
    assert list(found.by_rule) == ["lower-casing", "accents"]
    assert found.first == found.by_rule["accents"].example


def test_rows_are_counted_across_chunks(tmp_path: Path) -> None:
    a, b = in_file(tmp_path / "a"), in_file(tmp_path / "b", normalizer={"lowercase": False})
    texts = (f"cat {'Cat' if row in (1500, 2048) else ''}" for row in range(2100))
    found = compare_tokenizers(a, b, texts)
    assert (found.texts, found.differing) == (2100, 2)
    assert found.first is not None
    assert (found.first.row, found.first.index) == (1500, 4)


def test_texts_are_taken_in_chunks_of_bounded_size() -> None:
    endless = module._chunks(f"text {i}" for i in count())
    assert [len(chunk) for chunk in islice(endless, 3)] == [1024] * 3
    long = module._chunks("x" * 300_000 for _ in count())
    assert [len(chunk) for chunk in islice(long, 2)] == [4, 4]
    assert list(module._chunks([])) == []


def test_a_difference_deep_in_a_long_text_is_found(tmp_path: Path) -> None:
    a, b = in_file(tmp_path / "a"), in_file(tmp_path / "b", normalizer={"lowercase": False})
    long = "the cat sat " * 20_000
    found = compare_tokenizers(a, b, [f"{long}x-Cat {long}"])
    assert found.first is not None
    assert (found.first.rule, found.first.index) == ("lower-casing", len(long) + 2)
    assert found.first.tokens_a == ("sat", "x", "-", "cat", "the", "cat", "sat")
    assert found.first.tokens_b == ("sat", "x", "-", "Cat", "the", "cat", "sat")
    endless = compare_tokenizers(a, b, ["e" * 100_000 + "E"])
    assert endless.differing == 0  # a word too long for both


def test_what_is_no_text_is_refused_with_its_place(tmp_path: Path) -> None:
    plain = without_type_checks(module)
    a = in_file(tmp_path)
    with pytest.raises(TypeError, match=r"^texts\[1\] must be str, got NoneType$"):
        plain.compare_tokenizers(a, a, ["the", None])
    with pytest.raises(TypeError, match=r"^texts\[1024:\]\[6\] must be str, got int$"):
        plain.compare_tokenizers(a, a, [*["the"] * 1030, 5])
    with pytest.raises(TypeError, match=r"^texts must be an iterable of str, got str: put it into"):
        plain.compare_tokenizers(a, a, "the")
    with pytest.raises(TextError, match=r"^texts\[0\] has the lone surrogate"):
        compare_tokenizers(a, a, ["\ud800"])


# ---- the report


def test_the_report_is_as_written_by_hand(tmp_path: Path) -> None:
    a, b = in_file(tmp_path / "a"), in_file(tmp_path / "b", normalizer={"clean_text": False})
    found = compare_tokenizers(a, b, ["the cat", "the cat sat c\u200bat, the cat sat x y"])
    assert str(found) == "\n".join(
        [
            "1 of 2 texts differ",
            "",
            "rule                    texts  first at",
            "control characters          1  texts[1], character 13, '\\u200b' U+200B ZERO WIDTH "
            "SPACE",
            "",
            "first: texts[1], control characters: both find the same words once control "
            "characters are dropped",
            "  text  'the cat sat c\\u200bat, the cat sat x y'",
            "  at    character 13, '\\u200b' U+200B ZERO WIDTH SPACE",
            "  A     the cat sat »cat« [UNK] the cat",
            "  B     the cat sat »[UNK]« [UNK] the cat",
        ]
    )


def test_ids_are_shown_where_pieces_do_not_tell(tmp_path: Path) -> None:
    a, b = in_file(tmp_path / "a"), in_file(tmp_path / "b", vocab=swapped("x", "y"))
    shown = str(compare_tokenizers(a, b, ["x"])).splitlines()
    x, y = ID["x"], ID["y"]
    assert shown[-2:] == [
        f"  A     [CLS](2) »x({x})« [SEP](3)",
        f"  B     [CLS](2) »x({y})« [SEP](3)",
    ]


def test_characters_are_named() -> None:
    def named(character: str) -> str | None:
        return Difference(0, character, "other", 0, "", 0, (), (), (), ()).character_name

    assert named("é") == "U+00E9 LATIN SMALL LETTER E WITH ACUTE"
    assert named("\x00") == "U+0000 (without a name, category Cc)"
    assert named("\U0001f600") == "U+1F600 GRINNING FACE"


def test_the_json_form_says_everything(tmp_path: Path) -> None:
    a, b = in_file(tmp_path / "a"), in_file(tmp_path / "b", normalizer={"lowercase": False})
    found = compare_tokenizers(a, b, ["the", "a cAt"])
    first = {
        "row": 1,
        "text": "a cAt",
        "rule": "lower-casing",
        "index": 3,
        "character": "A",
        "character_name": "U+0041 LATIN CAPITAL LETTER A",
        "evidence": "both find the same words once it is lower-cased",
        "n_agreeing": 2,
        "tokens_a": ["[CLS]", "[UNK]", "cat", "[SEP]"],
        "tokens_b": ["[CLS]", "[UNK]", "[UNK]", "[SEP]"],
        "ids_a": [2, 1, ID["cat"], 3],
        "ids_b": [2, 1, 1, 3],
    }
    assert json.loads(json.dumps(found.to_dict())) == {
        "texts": 2,
        "differing": 1,
        "by_rule": {"lower-casing": {"texts": 1, "example": first}},
        "first": first,
    }
    assert compare_tokenizers(a, a, ["the"]).to_dict() == {
        "texts": 1,
        "differing": 0,
        "by_rule": {},
        "first": None,
    }


# ---- the real checkpoint


@pytest.fixture(scope="module")
def real(minilm: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(minilm)


def test_the_real_checkpoint_does_not_differ_from_itself(
    minilm: Path, real: Tokenizer, tmp_path: Path
) -> None:
    from_vocab = Tokenizer.from_vocab(minilm / "vocab.txt")
    real.save_pretrained(tmp_path)
    for other in (real, Tokenizer.from_pretrained(tmp_path)):
        assert compare_tokenizers(real, other, HOSTILE_TEXTS).differing == 0
    assert compare_tokenizers(real, from_vocab, HOSTILE_TEXTS, max_length=512).differing == 0
    assert list(compare_tokenizers(real, from_vocab, HOSTILE_TEXTS).by_rule) == ["truncation"]


@pytest.fixture(scope="module")
def real_json(real: Tokenizer) -> dict[str, Any]:
    found = json.loads(real.to_json())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("key", "change", "rules"),
    [
        ("normalizer", {"lowercase": False}, {"lower-casing", "accents"}),
        ("normalizer", {"strip_accents": False}, {"accents"}),
        ("normalizer", {"handle_chinese_chars": False}, {"CJK"}),
        ("normalizer", {"clean_text": False}, {"control characters"}),
        ("pre_tokenizer", {"type": "WhitespaceSplit"}, {"punctuation"}),
        ("model", {"max_input_chars_per_word": 200}, {"unknown"}),
        ("model", {"max_input_chars_per_word": 99}, {"unknown"}),
    ],
)
def test_the_built_in_texts_show_each_rule(
    real: Tokenizer,
    real_json: dict[str, Any],
    tmp_path: Path,
    key: str,
    change: dict[str, Any],
    rules: set[str],
) -> None:
    changed = copy.deepcopy(real_json)
    changed[key].update(change)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(changed), encoding="utf-8")
    found = compare_tokenizers(real, Tokenizer.from_file(path), HOSTILE_TEXTS, max_length=512)
    assert found.texts == len(HOSTILE_TEXTS)
    assert set(found.by_rule) == rules, str(found)


# ---- the command


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process, under `minibert parity`."""
    parity = click.Group("parity", commands={"tokenizer": command})
    monkeypatch.setattr(cli, "commands", click.Group("minibert", commands={"parity": parity}))

    def call(*args: str | Path) -> Outcome:
        capfd.readouterr()
        code = cli.main(["parity", "tokenizer", *map(str, args)])
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    a = folder_of(tmp_path / "a", strip_accents=False)
    return a, folder_of(tmp_path / "b", strip_accents=False, do_lower_case=False)


def refusal(outcome: Outcome) -> str:
    """The one line of an outcome that must be a refusal."""
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("minibert: ")
    assert outcome.err.count("\n") == 1
    return outcome.err.removeprefix("minibert: ").removesuffix("\n")


def test_the_command_says_by_its_status_whether_texts_differ(
    run: Run, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    a, b = folders
    texts = tmp_path / "texts.txt"
    texts.write_text("the cat\nx Cat\n\n", encoding="utf-8")
    assert run(a, a, "--input", texts) == (0, f"A: {a}\nB: {a}\n0 of 3 texts differ\n", "")
    code, out, err = run(a, b, "--input", texts)
    assert (code, err) == (1, "")
    assert out.startswith(f"A: {a}\nB: {b}\n1 of 3 texts differ\n")
    expected = compare_tokenizers(
        Tokenizer.from_pretrained(a), Tokenizer.from_pretrained(b), ["the cat", "x Cat", ""]
    )
    assert out == f"A: {a}\nB: {b}\n{expected}\n"
    assert run(a, b, "--input", texts, "--max-length", 3).code == 0
    assert run(a, b, "--input", texts, "--max-length", 4).code == 1


def test_the_command_prints_one_json_object(
    run: Run, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    a, b = folders
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"body": "the"}\n{"body": "Cat"}\n', encoding="utf-8")
    code, out, err = run(a, b, "--input", texts, "--field", "body", "--json", "--offline")
    assert (code, err, out.count("\n")) == (1, "", 1)
    one, other = Tokenizer.from_pretrained(a), Tokenizer.from_pretrained(b)
    expected = compare_tokenizers(one, other, ["the", "Cat"]).to_dict()
    assert json.loads(out) == {"a": str(a), "b": str(b), **expected}
    assert run(a, a, "--input", texts, "--field", "body", "--json").code == 0


def test_the_command_has_texts_of_its_own(run: Run, folders: tuple[Path, Path]) -> None:
    a, b = folders
    found = json.loads(run(a, b, "--json").out)
    assert found["texts"] == len(HOSTILE_TEXTS)
    assert found["differing"] > 0
    assert run(a, a).out.endswith(f"0 of {len(HOSTILE_TEXTS)} texts differ\n")


def test_the_command_reads_standard_input(
    run: Run, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = folders
    for text, code in (("the cat\n", 0), ("the Cat\n", 1)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert run(a, b, "--input", "-").code == code


def test_the_command_takes_names(run: Run, minilm: Path) -> None:
    outcome = run(minilm, minilm, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["differing"] == 0


def test_the_command_refuses_bad_input_in_one_line(
    run: Run, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    a, b = folders
    absent = tmp_path / "absent.txt"
    assert refusal(run(a, b, "--input", absent)).startswith(f"{absent}: cannot be read: ")
    assert str(tmp_path / "nowhere") in refusal(run(a, tmp_path / "nowhere", "--offline"))
    assert refusal(run(a, b, "--max-length", 2)).startswith("max_length is 2, expected at least 3")
    assert "is not a valid integer" in refusal(run(a, b, "--max-length", "many"))
    assert "Missing argument 'B'" in refusal(run(a))
    assert "--format and --field are for a file" in refusal(run(a, b, "--field", "body"))
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"the\ncaf\xe9\n")
    assert refusal(run(a, b, "--input", latin)).startswith(f"{latin}: byte 7, on line 2, is 0xe9")
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    assert refusal(run(a, b, "--input", empty)).startswith(f"{empty}: holds no text, expected")
    (tmp_path / "bare").mkdir()
    assert str(tmp_path / "bare") in refusal(run(tmp_path / "bare", b, "--offline"))


def test_help_of_the_command_imports_nothing_slow() -> None:
    script = """
import sys
from minibert.cli.parity_tokenizer import tokenizer
tokenizer.main(["--help"], standalone_mode=False)
slow = {"torch", "tokenizers", "huggingface_hub", "numpy", "safetensors", "tqdm", "jaxtyping"}
print("imported:", sorted(slow & set(sys.modules)))
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "--max-length" in found.stdout
    assert all(rule.split()[0] in found.stdout for rule in RULES)
    assert found.stdout.endswith("imported: []\n")


def test_a_text_counts_before_the_next_is_read(tmp_path: Path) -> None:
    """A corpus that breaks off has been compared up to there, not held."""
    read: list[int] = []

    def texts() -> Iterator[str]:
        for row in range(5000):
            read.append(row)
            yield "the" if row < 1024 else "\ud800"

    a = in_file(tmp_path)
    with pytest.raises(TextError, match=r"^texts\[1024:\]\[0\]"):
        compare_tokenizers(a, a, texts())
    assert len(read) == 2048
