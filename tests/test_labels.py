"""The label contract: what fits becomes numbers, what does not is named by its row."""

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.errors import LabelError
from minibert.training.labels import (
    class_targets,
    counts,
    label_names,
    multilabel_targets,
    number_targets,
    span_targets,
    tag_targets,
)


class Refused(list[tuple[int, str, str]]):
    def __call__(self, row: int, kind: str, message: str) -> None:
        self.append((row, kind, message))


@pytest.mark.parametrize(
    ("task", "values", "names"),
    [
        ("multiclass", ["b", "a", "b", "c"], ("a", "b", "c")),
        ("multiclass", ["10", "9", "1"], ("1", "9", "10")),
        ("multiclass", [1, 0, 1.0, "0"], ("0", "1")),
        ("multiclass", [" a", "a ", "b"], ("a", "b")),
        ("multiclass", ["a", "a"], ("a", "not a")),
        ("multilabel", [["a"], ["a"]], ("a",)),
        ("binary", ["spam", "ham"], ("ham", "spam")),
        ("binary", ["spam", "spam"], ("spam", "not spam")),
        ("multilabel", [["joy", "fear"], [], ["joy"]], ("fear", "joy")),
        ("tokens", [["O", "B-x"], ["I-x"]], ("B-x", "I-x", "O")),
        ("multiclass", ["-1", "10", "9"], ("-1", "9", "10")),
        ("multiclass", ["a", None, float("nan"), "b"], ("a", "b")),
    ],
)
def test_names_are_those_that_occur(task: str, values: list[Any], names: tuple[str, ...]) -> None:
    assert label_names(task, values) == names


def test_given_names_decide_in_their_order() -> None:
    assert label_names("binary", ["a"], ["pos", "neg"]) == ("pos", "neg")
    with pytest.raises(LabelError, match="labels name 'a' twice"):
        label_names("multiclass", [], ["a", "b", "a"])


def test_a_third_label_of_a_binary_task_is_refused() -> None:
    with pytest.raises(LabelError, match=r"3 labels \('0', '1', '2'\), expected 2 .*multiclass"):
        label_names("binary", [0, 1, 2, 1])
    with pytest.raises(LabelError) as caught:  # a column of texts, taken for that of the labels
        label_names("binary", ["x" * 999, "y", "z"])
    assert len(str(caught.value)) < 250
    with pytest.raises(LabelError, match="'binary'; '7' stands once, first in line 4; drop the"):
        label_names("binary", [0, 1, 1, 7, 0], places=[f"line {i}" for i in range(1, 6)])
    with pytest.raises(LabelError, match="'c' stands in 2 rows, first in line 4; drop"):
        label_names(
            "binary", ["a", "a", "b", "c", "c", "b"], places=[f"line {i + 1}" for i in range(6)]
        )
    with pytest.raises(LabelError, match="expected 2 for task 'binary'; drop"):
        label_names("binary", [], ["a", "b", "c"], places=["line 1"])
    with pytest.raises(LabelError, match="no label at all"):
        label_names("multiclass", [""])


def test_classes_become_numbers_and_unknown_ones_are_refused() -> None:
    refused = Refused()
    assert class_targets(["pos", "neg", "Pos", "", 3], ["neg", "pos"], refused) == [
        1, 0, None, None, None,
    ]  # fmt: skip
    assert [(row, kind) for row, kind, _ in refused] == [(i, "unknown label") for i in (2, 3, 4)]
    assert refused[0][2] == "the label is 'Pos', expected one of 'neg', 'pos'; 'pos'?"
    assert refused[1][2] == "the label is empty, expected one of 'neg', 'pos'"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"), (math.nan, "nan"), (["a"], r"\['a'\]"), (("a",), r"\('a',\)"),
        ({"a": 1}, r"\{'a': 1\}"), (b"a", "b'a'"), ("  ", "empty"),
        (np.array([1, 2]), r"array\(\[1, 2\]\)"), (np.float64("nan"), r"np\.float64\(nan\)"),
    ],
)  # fmt: skip
def test_what_is_missing_or_no_single_label_is_no_label(value: Any, shown: str) -> None:
    """Nor does it become one, where the names are those that occur."""
    values = ["a", value, "b"]
    assert label_names("multiclass", values) == ("a", "b")
    refused = Refused()
    assert class_targets(values, ["a", "b"], refused) == [0, None, 1]
    ((row, kind, message),) = refused
    assert (row, kind) == (1, "unknown label")
    assert re.fullmatch(f"the label is {shown}, expected one of 'a', 'b'", message)
    refused = Refused()
    assert label_names("multilabel", [["a"], [value], ["b"]]) == ("a", "b")
    multilabel_targets([["a"], [value]], ["a", "b"], refused)
    assert [row for row, _, _ in refused] == [1]
    refused = Refused()
    tag_targets([["a", value]], [["x", "y"]], ["a", "b"], refused)
    assert [(row, kind) for row, kind, _ in refused] == [(0, "unknown tag")]


def test_several_labels_become_ones_and_zeros() -> None:
    refused = Refused()
    found = multilabel_targets([["a", "c"], [], ["b", "z"]], ["a", "b", "c"], refused)
    assert found == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert [(row, kind) for row, kind, _ in refused] == [(2, "unknown label")]


def test_numbers_are_finite() -> None:
    refused = Refused()
    found = number_targets(["2.5", 3, " 1 ", "x", "nan", float("inf"), True, None], refused)
    assert found[:3] == [2.5, 3.0, 1.0]
    assert [row for row, _, _ in refused] == [3, 4, 5, 6, 7]
    assert refused[0][2] == "the label is 'x', expected a finite number"


def test_tags_are_one_a_word() -> None:
    refused = Refused()
    words = [["a", "b"], ["c"], ["d"]]
    found = tag_targets([["O", "B-x"], ["O", "O"], ["I-y"]], words, ["O", "B-x"], refused)
    assert found[0] == [0, 1]
    assert [(row, kind) for row, kind, _ in refused] == [(1, "tags and words"), (2, "unknown tag")]
    assert "has 2 tags for 1 words" in refused[0][2]


def test_counts_of_every_shape_of_targets() -> None:
    assert counts([0, 2, 2], 3) == [1, 0, 2]
    assert counts([[1.0, 0.0], [1.0, 1.0]], 2) == [2, 1]
    assert counts([[0, 1, -100], [1]], 2) == [1, 2]


# ---- answers in texts


TEXT = "in paris, in 1912. Paris "


@pytest.mark.parametrize(
    ("answer", "start", "found"),
    [
        ("paris", None, "paris"),
        ("in", None, "in"),  # where it first stands
        ("in", 10, "in"),
        ("in", "10", "in"),
        ("in", 10.0, "in"),  # as a column with gaps has it
        ("in", math.nan, "in"),
        ("Paris", 19, "Paris"),
        (1912, None, "1912"),
        (" paris ", None, "paris"),  # spaces are no part of it
        (" paris", 2, "paris"),  # whether they are counted
        (" paris", 3, "paris"),  # or not
        ("Paris ", 19, "Paris"),
        (TEXT, 0, TEXT.strip()),
    ],
)
def test_answer_is_where_it_stands(answer: Any, start: Any, found: str) -> None:
    refused = Refused()
    ((first, stop),) = span_targets([answer], [start], [TEXT], refused)
    assert refused == []
    assert TEXT[first:stop] == found
    assert first == (TEXT.find(found) if start is None or start != start else first)
    if answer == "in" and start is not None and start == start:
        assert first == 10


@pytest.mark.parametrize("answer", ["", "  ", None, math.nan])
@pytest.mark.parametrize("start", [None, 3, "x", -1, math.nan])
def test_missing_answer_is_that_there_is_none(answer: Any, start: Any) -> None:
    refused = Refused()
    assert span_targets([answer], [start], [TEXT], refused) == [(0, 0)]
    assert refused == []


@pytest.mark.parametrize(
    ("answer", "start", "said"),
    [
        ("rome", None, "the answer 'rome' is not in its text"),
        ("paris", 2, "the answer 'paris' is not in its text at character 2"),
        ("paris", 3000, "the answer 'paris' is not in its text at character 3000"),
        ("paris", -1, "the answer starts at -1, expected a whole number from 0"),
        ("paris", 3.5, "the answer starts at 3.5, expected a whole number from 0"),
        ("paris", "three", "the answer starts at 'three', expected a whole number from 0"),
        ("paris", True, "the answer starts at True, expected a whole number from 0"),
        ("r" * 99, None, f"the answer {'r' * 40!r} is not in its text"),
        (["paris"], None, "the answer is ['paris'], expected a text"),
        ({"text": "paris"}, 3, "the answer is {'text': 'paris'}, expected a text"),
        (["r" * 99], None, f"the answer is ['{'r' * 38}, expected a text"),
    ],
)
def test_answer_that_is_not_there_is_refused(answer: Any, start: Any, said: str) -> None:
    refused = Refused()
    assert span_targets(["in", answer], [None, start], [TEXT, TEXT], refused) == [(0, 2), None]
    assert refused == [(1, "answer", said)]


@given(st.data())
def test_any_part_of_a_text_is_found_where_it_is_said_to_be(data: st.DataObject) -> None:
    text = data.draw(st.text(st.sampled_from("ab ß猫"), min_size=1, max_size=12))
    start = data.draw(st.integers(0, len(text) - 1))
    stop = data.draw(st.integers(start + 1, len(text)))
    refused, answer = Refused(), text[start:stop]
    ((first, last),) = span_targets([answer], [start], [text], refused)
    assert refused == []
    assert text[first:last] == answer.strip()
    assert (start <= first <= last <= stop) or not answer.strip()
