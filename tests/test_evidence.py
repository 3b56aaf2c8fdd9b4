"""What is said of rows: numbers that can be counted by hand."""

from typing import Any

import pytest

from minibert.training import evidence as module
from minibert.training.evidence import balance, column_lines, n_shared, plural, repetition, unusable
from minibert.training.roles import Roles
from minibert.training.rows import BadRow, Place, Row, read_rows
from minibert.training.survey import Survey, survey
from minibert.training.task_choice import TaskChoice


def table(*rows: dict[str, Any]) -> Survey:
    return survey(read_rows(list(rows)))


def test_numbers_have_their_things() -> None:
    assert [plural(n, "row") for n in (0, 1, 2, 1000)] == [
        "0 rows",
        "1 row",
        "2 rows",
        "1,000 rows",
    ]


def test_columns_are_shown_with_what_they_hold() -> None:
    rows = [{"n": n, "label": "ab"[n % 3 == 0], "l": ["x"], "text": "word " * 30} for n in range(9)]
    rows[4]["label"] = ""
    assert column_lines(table(*rows)) == [
        "  'n': 9 different values, such as 1",
        "  'label': 'a' 5, 'b' 3; 1 are empty",
        "  'l': lists, such as ['x']",
        f"  'text': {('word ' * 30).strip()!r:.60}… 9",
    ]


def test_many_columns_and_wide_ones_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHOWN_COLUMNS", 2)
    lines = column_lines(table({"a" * 99: "x", "b": "y", "c": "z"}))
    assert lines == [f"  '{'a' * 94}…", "  'b': 'y' 1", "  and 1 more"]


def test_balance_is_told_with_shares() -> None:
    said, ratio = balance(TaskChoice("binary", {"ham": 30, "spam": 10}), 50)
    assert said == (
        "'ham' 30 (60.0%), 'spam' 10 (20.0%): of the most frequent 3.0 times as many rows as of "
        "the rarest."
    )
    assert ratio == 3.0
    said, ratio = balance(TaskChoice("tokens", {"B": 2, "O": 198}), 7)
    assert said.startswith(
        "'O' 198 (99.0%), 'B' 2 (1.0%): of the most frequent 99 times as many words"
    )
    assert ratio == 99.0
    assert balance(TaskChoice("binary", {"a": 5, "not a": 0}), 5) == (
        "'a' 5 (100.0%), 'not a' 0 (0.0%).", 1.0,
    )  # fmt: skip
    said, _ = balance(TaskChoice("multiclass", {f"l{n:02}": n + 1 for n in range(20)}), 210)
    assert said.startswith("'l19' 20 (9.5%), ")
    assert ", 'l14' 15 (7.1%), …, 'l05' 6 (2.9%), " in said


def test_equal_texts_are_counted_and_their_contradictions() -> None:
    rows = table(
        {"text": "x", "label": "a"}, {"text": "x ", "label": "a"}, {"text": "x", "label": "b"},
        {"text": "y", "label": "b"},
    )  # fmt: skip
    roles = Roles(["text"], ["label"])
    assert repetition(rows, roles, has_classes=True) == [
        "2 rows have the text of earlier ones.",
        "Among them are 1 whose labels contradict an earlier one's.",
    ]
    assert len(repetition(rows, roles, has_classes=False)) == 1
    assert repetition(rows, Roles(["text", "label"], []), has_classes=False) == [
        "1 row has the texts of an earlier one."
    ]
    assert repetition(table({"text": "x"}, {"text": "y"}), Roles(["text"]), has_classes=True) == []


def test_it_is_said_where_not_all_rows_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from minibert.training import survey as surveying

    monkeypatch.setattr(surveying, "_COMPARED", 2)
    rows = table(*({"text": "x"} for _ in range(5)))
    assert repetition(rows, Roles(["text"]), has_classes=False) == [
        "2 rows of the first 3 have the text of earlier ones."
    ]


def wrong(choice: TaskChoice | None, *values: Any, text: Any = "x") -> list[tuple[int, str]]:
    return unusable(
        table(*({"text": text, "label": value} for value in values)),
        Roles(["text"], ["label"]),
        choice,
    )


def test_rows_that_are_refused_are_counted() -> None:
    classes = TaskChoice("binary", {"a": 1, "b": 1})
    assert wrong(classes, "a", "b", " a") == []
    assert wrong(classes, "a", "", None) == [(2, "2 rows with nothing in 'label'")]
    assert wrong(classes, "a", "c", "c", "d") == [
        (3, "3 rows with labels that the training data lacks: 'c', 'd'")
    ]
    assert wrong(classes, "a", text=None) == [(1, "1 row with no text in 'text'")]
    assert wrong(None, "", text=7) == [(1, "1 row with no text in 'text'")]
    several = TaskChoice("multilabel", {"a": 1, "b": 1}, separator=",")
    assert wrong(several, "a,b", "", "b") == []
    assert wrong(several, "a,c", None) == [
        (1, "1 row with nothing in 'label'"),
        (1, "1 row with labels that the training data lacks: 'c'"),
    ]
    assert wrong(TaskChoice("regression"), *range(30), "n/a", "") == [
        (1, "1 row with nothing in 'label'"),
        (1, "1 row with no number in 'label': 'n/a'"),
    ]


def test_tags_that_are_unknown_are_counted() -> None:
    rows = table({"tokens": ["x", "y"], "tags": ["O", "B-a"]}, {"tokens": ["z"], "tags": ["B-b"]})
    roles, choice = Roles(["tokens"], ["tags"]), TaskChoice("tokens", {"O": 1, "B-a": 1})
    assert unusable(rows, roles, choice) == [
        (1, "1 row with labels that the training data lacks: 'B-b'")
    ]
    choice.counts["B-b"] = 1
    assert unusable(rows, roles, choice) == []


def test_rows_that_cannot_be_read_come_first() -> None:
    rows: list[Row | BadRow] = list(read_rows([{"text": "x", "label": "a"}]))
    rows += [BadRow(Place("f", n), "columns", "is torn", "") for n in (7, 8)]
    found = unusable(survey(rows), Roles(["text"], ["label"]), TaskChoice("binary", {"a": 1}))
    assert found == [(2, "2 rows cannot be read, the first f: line 7: is torn")]


def test_texts_that_two_files_share_are_counted() -> None:
    one = table({"text": "x", "b": "1"}, {"text": "y", "b": "2"})
    two = table({"b": "1", "text": "x"}, {"b": "3", "text": "y "}, {"b": "1", "text": "z"})
    assert n_shared(one, two, Roles(["text"])) == 2
    assert n_shared(one, two, Roles(["text", "b"])) == 1
