"""Tasks read off labels, and what is told of the labels."""

from typing import Any

import pytest

from minibert.errors import DataError, LabelError
from minibert.training.rows import read_rows
from minibert.training.survey import Survey, survey
from minibert.training.task_choice import (
    TaskChoice,
    choose_task,
    label_counts,
    label_flags,
    type_flags,
)


def table(**columns: list[Any]) -> Survey:
    n = max(map(len, columns.values()))
    return survey(read_rows([{k: v[i % len(v)] for k, v in columns.items()} for i in range(n)]))


def choose(*values: Any, key: str = "label", task: str | None = None) -> TaskChoice:
    return choose_task(table(**{key: list(values)}), [key], task=task)


def refusal(*values: Any, key: str = "label", task: str | None = None) -> str:
    with pytest.raises((DataError, LabelError)) as caught:
        choose(*values, key=key, task=task)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "task", "counts"),
    [
        (["a", "b", "b"], "binary", {"a": 1, "b": 2}),
        (["c", "a", "b", "b", ""], "multiclass", {"a": 1, "b": 2, "c": 1}),
        (["1", "0", "0"], "binary", {"0": 2, "1": 1}),
        ([10, 9, 10, 1], "multiclass", {"1": 1, "9": 1, "10": 2}),
        ([0.5, 1.5, 2.5], "regression", {}),
        (["spam"], "binary", {"spam": 1, "not spam": 0}),
        ([True, False], "binary", {"False": 1, "True": 1}),
        ([["b"], [], ["a", "b"]], "multilabel", {"a": 1, "b": 2}),
        (["3,17", "3", "17", "3", "4,17"], "multilabel", {"3": 3, "4": 1, "17": 3}),
        (["a;b", "b;c", "a;c", "a;b;c", "b; a", "c;;a"], "multilabel", {"a": 5, "b": 4, "c": 4}),
        (["joy|fear", "joy", "fear"], "multilabel", {"fear": 2, "joy": 2}),
        (["x/y", "x", "y"], "multilabel", {"x": 2, "y": 2}),
        (["1 2", "1", "2"], "multilabel", {"1": 2, "2": 2}),
        (["very good", "good", "very bad", "bad"], "multiclass", None),
        (["Sci-Fi/Fantasy", "Sci-Fi", "Other"], "multiclass", None),
        (["New York, NY", "Albany, NY", "Newark, NJ", "Camden, NJ"], "multiclass", None),
        (["a" * 61 + ",b", "b", "a" * 61], "multiclass", None),
        (["a,b", *"ab" * 99], "multiclass", None),
        (["a,b", *"ab" * 49], "multilabel", {"a": 50, "b": 50}),
    ],
)
def test_task_is_read_off_the_labels(
    values: list[Any], task: str, counts: dict[str, int] | None
) -> None:
    found = choose(*values)
    assert found.task == task
    if counts is not None:
        assert list(found.counts.items()) == list(counts.items())


@pytest.mark.parametrize(
    ("values", "key", "task"),
    [
        (range(1, 6), "score", "multiclass"),
        (range(10), "score", "multiclass"),
        (range(11), "score", "regression"),
        (range(11), "ratings", "regression"),
        (range(11), "label", "multiclass"),
        (range(1, 151), "intent", "multiclass"),
        (range(2, 152), "intent", "regression"),
        ([*range(20), 30], "label", "regression"),
        (range(501), "label", "regression"),
        (range(500), "label", "multiclass"),
    ],
)
def test_whole_numbers_are_classes_or_amounts(values: range, key: str, task: str) -> None:
    found = choose(*values, *values, key=key)
    assert found.task == task
    (why,) = found.why
    assert "multiclass" in why if task == "regression" else '"regression"' in why
    assert choose(*values, *values, key=key, task="regression").task == "regression"
    assert choose(*values, *values, key=key, task="multiclass").task == "multiclass"


def test_numbers_are_described() -> None:
    assert choose(0.5, 1.5, 4).why == [
        "3 different numbers from 0.5 to 4 (mean 2, standard deviation 1.47), with fractions."
    ]
    assert choose(1, 2, 3).why[0].startswith("3 whole numbers from 1 to 3 (mean 2, standard")


def test_separators_are_told() -> None:
    found = choose("3,17", "3", "17")
    assert found.separator == ","
    assert found.why == [
        "Values such as '3,17' have any number of labels, of 2 in all.",
        "If these are numbers with a decimal comma, write them with a point.",
    ]
    assert choose("a,b", "a", "b").why == [
        "Values such as 'a,b' have any number of labels, of 2 in all."
    ]
    assert choose(["a"], ["a", "b"]).why == ["Lists have any number of labels, of 2 in all."]
    assert choose("a,b", "a", "b", task="multiclass").separator is None
    assert choose("a,b", "a", "b", task="multiclass").counts == {"a": 1, "a,b": 1, "b": 1}
    assert choose("a", "b", "b", task="multilabel").counts == {"a": 1, "b": 2}


def test_columns_of_0_and_1_are_labels() -> None:
    rows = table(a=[0, 1, 1], b=["true", "False", ""], c=[1, 2, 0])
    found = choose_task(rows, ["a", "b"])
    assert (found.task, found.counts) == ("multilabel", {"a": 2, "b": 1})
    with pytest.raises(DataError, match=r"column 'c' has '1', '2', '0', expected 0 and 1"):
        choose_task(rows, ["a", "c"])
    with pytest.raises(DataError, match=r"the labels in 'a', 'b': any number .* task multilabel"):
        choose_task(rows, ["a", "b"], task="binary")


@pytest.mark.parametrize(
    ("values", "task", "said"),
    [
        (["['a', 'b']", "['a']"], None, "lists written as text, such as \"['a', 'b']\""),
        (["0,5", "1,5", "2,25"], None, "'0,5' looks like a number with a decimal comma"),
        ([f"{n // 9},{n % 9}" for n in range(45)], None, "'0,0' looks like a number with a"),
        ([*map(str, range(9)), "x"], "regression", "1 rows have no number, such as 'x'"),
        ([["a"]], "binary", "the label in column 'label': any number of labels a row"),
        ([[]], None, "no labels, or over 10,000 different ones"),
        ([f"w{n}" for n in range(30)], None, "30 different values in 30 rows, expected labels"),
        ([f"w{n}" for n in range(10_001)], None, "over 10,000 different values in 10,001 rows"),
        (["a", "b", "c"], "binary", "the data has 3 labels ('a', 'b', 'c'), expected 2"),
    ],
)
def test_what_is_no_label_is_refused(values: list[Any], task: str | None, said: str) -> None:
    assert said in refusal(*values, task=task)


def test_a_few_labels_may_each_stand_alone() -> None:
    assert choose(*(f"w{n}" for n in range(20))).task == "multiclass"
    assert choose(*(f"w{n}" for n in range(21)), *(f"w{n}" for n in range(21))).task == "multiclass"


def test_suspicious_labels_are_told() -> None:
    counts = {
        "POS": 3,
        "pos": 9,
        "Very_good": 2,
        "very good": 2,
        "C": 5,
        "C++": 5,
        "1": 2,
        "1.0": 2,
    }
    assert label_flags(TaskChoice("multiclass", counts)) == [
        "'POS' (3) and 'pos' (9) look like one label written in different ways: mend the data.",
        "'Very_good' (2) and 'very good' (2) look like one label written in different ways: mend "
        "the data.",
        "'1' (2) and '1.0' (2) look like one label written in different ways: mend the data.",
    ]
    assert label_flags(TaskChoice("multiclass", {"a": 1, "b": 2})) == [
        "1 label has one row alone ('a'): too little to learn it, or to measure how well."
    ]
    said = label_flags(TaskChoice("multiclass", {"a": 1, "b": 1, "-1": 2, "1": 2}))
    assert said == [
        "2 labels have one row alone ('a', 'b'): too little to learn it, or to measure how well."
    ]
    assert label_flags(TaskChoice("binary", {"a": 2, "not a": 0})) == [
        "There is one label alone, so there is nothing to tell apart."
    ]
    assert choose("a", "A", "A").flags[0].startswith("'A' (2) and 'a' (1) look like one")


def test_types_of_labels_are_told() -> None:
    flags = [
        type_flags(table(x=values).columns["x"]) for values in ([1, "1", 0], ["1", "0"], [1, 0])
    ]
    assert flags == [
        ["The labels are numbers in 2 rows and text in 1; 1 and '1' count as one label."],
        ["The labels are numbers written as text."],
        [],
    ]


def test_labels_of_other_rows_are_counted_alike() -> None:
    other = table(x=["1,2", "3"], y=[["a"], ["b", "a"]], z=[0, 1])
    columns = other.columns
    assert label_counts([columns["x"]], TaskChoice("multiclass")) == {"1,2": 1, "3": 1}
    assert label_counts([columns["x"]], TaskChoice("multilabel", separator=",")) == {
        "1": 1, "2": 1, "3": 1,
    }  # fmt: skip
    assert label_counts([columns["y"]], TaskChoice("multilabel")) == {"a": 2, "b": 1}
    assert label_counts([columns["x"]], TaskChoice("regression")) == {}
    assert label_counts([columns["z"], columns["z"]], TaskChoice("multilabel")) == {}
