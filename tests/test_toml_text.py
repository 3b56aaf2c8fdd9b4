"""TOML that is written: whatever a value or a comment holds, it reads back."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.errors import DataError
from minibert.training.toml_text import assignment, comment, comment_line, printable

ANY = st.text(st.characters(exclude_categories=["Cs"]))


def test_values_are_written_as_toml_has_them() -> None:
    assert assignment("a", "x") == ['a = "x"']
    assert assignment("a", 'a\t"b"\\\x7f\né') == ['a = "a\\t\\"b\\"\\\\\\u007f\\né"']
    assert assignment("a", True) == ["a = true"]
    assert assignment("a", 1e-4) == ["a = 0.0001"]
    assert assignment("a", 7) == ["a = 7"]
    assert assignment("a", ["x", "y"]) == ['a = ["x", "y"]']
    assert assignment("a", []) == ["a = []"]


@given(st.one_of(ANY, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.lists(ANY)))
def test_values_read_back(value: str | bool | int | list[str]) -> None:
    assert tomllib.loads("\n".join(assignment("key", value))) == {"key": value}


def test_long_lists_have_several_lines() -> None:
    names = [f"label number {n}" for n in range(20)]
    lines = assignment("labels", names)
    assert tomllib.loads("\n".join(lines)) == {"labels": names}
    assert len(lines) == 6
    assert max(map(len, lines)) <= 100
    assert lines[1].startswith('    "label number 0", "label number 1",')


@given(st.lists(ANY))
def test_comments_hold_anything(sentences: list[str]) -> None:
    lines = comment(sentences)
    assert all(line.startswith("# ") for line in lines)
    assert tomllib.loads("\n".join(["key = 1", *lines])) == {"key": 1}
    for sentence in sentences:
        assert tomllib.loads(comment_line(sentence)) == {}


def test_comments_are_wrapped_and_lines_are_kept() -> None:
    lines = comment(["word " * 29 + "word", "End."])
    assert len(lines) == 2
    assert max(map(len, lines)) <= 100
    assert lines[-1].endswith("word End.")
    assert comment_line("  a:  b\n") == "#   a:  b\\n"
    assert printable("a\tb\x00\u2028é") == "a\\tb\\x00\\u2028é"


def test_half_characters_are_refused() -> None:
    with pytest.raises(DataError, match=r"'\\udcff\.csv' holds half a character"):
        assignment("train", "\udcff.csv")
