"""What columns hold: counted by hand on small tables, and over more rows than are held."""

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.errors import DataError
from minibert.training import survey as module
from minibert.training.rows import BadRow, Cells, Columns, Place, Row, read_rows
from minibert.training.survey import Column, Numbers, Survey, as_number, survey


def look(rows: Iterable[Mapping[str, Any]]) -> Survey:
    return survey(read_rows(list(rows)))


def column(*values: Any) -> Column:
    return look({"x": value} for value in values).columns["x"]


def numbers(*names: str) -> Numbers:
    found = Numbers()
    for name in names:
        found.add(name)
    return found


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("3", 3.0), ("-2.5", -2.5), (".5", 0.5), ("+1e3", 1000.0), ("007", 7.0),
        ("nan", None), ("inf", None), ("1e999", None), ("", None), ("3a", None), ("1,5", None),
        ("- 1", None),
    ],
)  # fmt: skip
def test_numbers_are_finite_and_whole_cells(name: str, number: float | None) -> None:
    assert as_number(name) == number


def test_numbers_are_summed_up() -> None:
    found = numbers("1", "2.5", "x", "4", "y")
    assert (found.n, found.n_fractions, found.n_others, found.other) == (3, 1, 2, "x")
    assert (found.low, found.high, found.mean) == (1.0, 4.0, 2.5)
    assert math.isclose(found.deviation, math.sqrt(1.5))
    assert not found.are_most
    assert numbers(*["1"] * 19, "x").are_most
    assert not numbers(*["1"] * 18, "x").are_most
    assert not numbers().are_most


@given(st.lists(st.tuples(st.integers(-99, 99), st.integers(1, 9)), min_size=1))
def test_numbers_may_be_added_several_at_once(values: list[tuple[int, int]]) -> None:
    found = Numbers()
    for value, times in values:
        found.add(str(value), times)
    flat = [value for value, times in values for _ in range(times)]
    assert found.n == len(flat)
    assert math.isclose(found.mean, statistics.fmean(flat), abs_tol=1e-9)
    assert math.isclose(found.deviation, statistics.pstdev(flat), abs_tol=1e-9)


def test_texts_are_counted() -> None:
    found = column("a b", " a b ", "", "  ", None, "été", float("nan"))
    assert found.counts == {"a b": 2, "été": 1}
    assert (found.n_empty, found.n_filled, found.n_values) == (4, 3, 2)
    assert (found.n_spaced, found.n_wide, found.longest) == (2, 1, 3)
    assert (found.mean_chars, found.mean_words) == (3.0, 5 / 3)
    assert found.kinds == {"str": 5, "NoneType": 1, "float": 1}


def test_labels_of_one_name_are_one_value() -> None:
    assert column(1, 1.0, "1", " 1", True).counts == {"1": 4, "True": 1}


def test_lists_are_counted_by_what_they_hold() -> None:
    found = column(["a", "b"], ["a"], [], "x")
    assert (found.parts, found.counts) == ({"a": 2, "b": 1}, {"x": 1})
    assert found.is_lists
    assert (found.n_filled, found.n_empty) == (1, 0)
    assert not column(["a"], "x", "y").is_lists


@pytest.mark.parametrize(
    ("values", "is_prose"),
    [
        (["a b", "c d", "e"], True),
        (["a b", "c", "e"], False),
        (["好看", "不好", "x"], True),
        (["１", "２", "３"], False),
        ([], False),
    ],
)
def test_prose_has_several_words_or_another_script(values: list[str], is_prose: bool) -> None:
    assert column(*values, *[None]).is_prose == is_prose


def test_what_is_too_much_to_count_is_known_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DISTINCT", 5)
    found = column(*map(str, range(5)))
    assert (found.counts is None, found.n_values, found.numbers.n) == (False, 5, 5)
    found = column(*map(str, range(20)), "x", 20.5)
    assert (found.counts, found.n_values) == (None, 6)
    assert (found.numbers.n, found.numbers.n_fractions, found.numbers.n_others) == (21, 1, 1)
    assert (found.numbers.high, found.numbers.other) == (20.5, "x")
    assert not column(*"abcdefghij", *"1234567890").numbers.are_most
    assert column(list("abcdef")).parts is None
    assert column(["a", "b"], ["a"]).parts is not None


def test_values_are_told_apart_by_their_beginning() -> None:
    found = column("x" * 200 + "a", "x" * 200 + "b")
    assert found.n_values == 1
    assert look([{"x": "x" * 200 + "a"}, {"x": "x" * 200 + "b"}]).n_distinct("x") == 2


def test_rows_are_compared_in_several_columns() -> None:
    found = look([
        {"a": "x", "b": "y"}, {"a": "x", "b": "z"}, {"a": " x", "b": "y "}, {"a": "y", "b": "x"},
    ])  # fmt: skip
    assert (found.n_rows, found.n_compared) == (4, 4)
    assert (found.n_distinct("a"), found.n_distinct("b"), found.n_distinct("a", "b")) == (2, 3, 3)
    lists = look([{"a": ["x", "y"]}, {"a": ["x", "y"]}, {"a": ["xy"]}, {"a": [1]}, {"a": ["1"]}])
    assert lists.n_distinct("a") == 3


def test_so_many_cells_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMPARED", 10)
    found = look({"a": str(n), "b": "x"} for n in range(100))
    assert (found.n_rows, found.n_compared, found.n_distinct("a")) == (100, 6, 6)
    late = look([*({"a": str(n)} for n in range(20)), {"a": "0", "b": "1"}])
    assert late.n_compared == len(late.columns["b"].hashes) == 11


def test_columns_that_some_rows_lack_are_empty_there() -> None:
    found = look([{"a": "x"}, {"a": "y", "b": "z"}, {"b": "w", "c": 1}, {"a": "x"}])
    assert list(found.columns) == ["a", "b", "c"]
    assert [each.n_empty for each in found.columns.values()] == [1, 2, 3]
    assert [each.kinds["NoneType"] for each in found.columns.values()] == [1, 2, 3]
    assert [each.position for each in found.columns.values()] == [0, 1, 2]
    assert found.n_distinct("b") == 3
    assert found.sample == [
        {"a": "x"}, {"a": "y", "b": "z"}, {"a": None, "b": "w", "c": 1},
        {"a": "x", "b": None, "c": None},
    ]  # fmt: skip


def test_any_number_of_columns_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COLUMNS", 3)
    found = look({f"k{n}": "x", "a": "y"} for n in range(9))
    assert list(found.columns) == ["k0", "a", "k1"]
    assert found.columns["a"].counts == {"y": 9}


def test_bad_rows_are_counted_apart() -> None:
    bad = [BadRow(Place("f", line), "kind", f"message {line}", "") for line in (2, 3)]
    good = Row(Cells(["x"], Columns(["a"], 1)), Place("f", 1))
    found = survey([bad[0], good, bad[1]])
    assert (found.n_rows, found.n_bad, found.first_bad) == (1, 2, bad[0])
    empty = survey([])
    assert (empty.n_rows, empty.columns, empty.n_compared, empty.first_bad) == (0, {}, 0, None)


def test_sample_is_drawn_from_all_rows_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 200)
    found = look({"n": n, "text": "x" * 30_000} for n in range(1000))
    drawn = [row["n"] for row in found.sample]
    assert len(set(drawn)) == 200
    assert drawn == sorted(drawn)
    assert 400 < statistics.fmean(drawn) < 600
    assert {len(row["text"]) for row in found.sample} == {20_000}
    assert [row["n"] for row in look({"n": n} for n in range(9)).sample] == list(range(9))


def test_columns_are_found_by_name_and_number() -> None:
    cells = [Row(Cells(["1", "x", "y"], Columns(["", "a", "b"], 3)), Place("f", 1))]
    found = survey(cells)
    assert list(found.columns) == ["1", "a", "b"]
    assert [found.key_of(each, "f") for each in ("1", "2", "b")] == ["1", "a", "b"]
    with pytest.raises(DataError, match=r"f\.csv: has no column 'aa', perhaps 'a'"):
        found.key_of("aa", "f.csv")
