"""Splits: shares, what stays together, and what a split hangs on."""

import math
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minibert.errors import DataError
from minibert.training.rows import Place, Row
from minibert.training.splits import split


def rows_of(*values: dict[str, Any]) -> list[Row]:
    return [Row(each, Place(f"row {number}")) for number, each in enumerate(values, start=1)]


def labelled(*labels: Any) -> list[Row]:
    return rows_of(*({"text": f"text {n}", "label": label} for n, label in enumerate(labels)))


def test_split_is_stratified() -> None:
    rows = labelled(*["ham"] * 80, *["spam"] * 20)
    train, validation = split(rows, 0.1, 1, label="label")
    assert len(validation) == 10
    assert [rows[row].value("label") for row in validation].count("spam") == 2
    assert sorted(train + validation) == list(range(100))
    assert train == sorted(train)
    assert validation == sorted(validation)


def test_several_labels_count_by_the_rarest() -> None:
    rows = labelled(*[["common"]] * 60, *[["common", "rare"]] * 20, *[("rare", "common")] * 20)
    _, validation = split(rows, 0.25, 1, label="label")
    assert sum("rare" in rows[row].value("label") for row in validation) == 10
    assert len(validation) == 25
    by_asking = split(rows, 0.25, 1, label=lambda row: list(row.value("label")))
    assert by_asking.validation == validation


def test_label_that_occurs_once_is_trained_on() -> None:
    rows = labelled(*"abcdefgh", *["z"] * 32)
    _, validation = split(rows, 0.25, 0, label="label")
    assert len(validation) == 10
    assert {rows[row].value("label") for row in validation} == {"z"}


def test_rows_with_one_text_or_one_group_stay_together() -> None:
    made = [
        {"text": f" a\t{n // 2}\n" if n % 2 else f"a {n // 2} ", "group": ""} for n in range(40)
    ]
    made += [{"text": f"b {n}", "group": f"g{n // 4}"} for n in range(40)]
    made += [{"text": "b 0", "group": "g9"}, {"text": "c", "group": None}]
    train, _ = split(rows_of(*made), 0.3, 3, group="group")
    sides = [row in set(train) for row in range(len(made))]
    assert all(sides[n] == sides[n + 1] for n in range(0, 40, 2))
    assert all(len(set(sides[n : n + 4])) == 1 for n in range(40, 80, 4))
    assert sides[40] == sides[80] == sides[76]  # by its text with one group, by name with another
    assert 22 <= len(made) - len(train) <= 27


def test_pairs_are_equal_only_together() -> None:
    made = [{"a": "one", "b": f"other {n}", "tokens": ["x", str(n)]} for n in range(10)]
    assert len(split(rows_of(*made), 0.2, 1, text=("a", "b")).validation) == 2
    assert len(split(rows_of(*made), 0.2, 1, text="tokens").validation) == 2
    with pytest.raises(DataError, match="all 10 rows have one text or one group"):
        split(rows_of(*made), 0.2, 1, text="a")
    assert len(split(rows_of(*made), 0.2, 1, text=None).validation) == 2


def test_two_rows_are_split() -> None:
    for labels in ("aa", "ab"):
        train, validation = split(labelled(*labels), 0.5, 1, label="label")
        assert (len(train), len(validation)) == (1, 1)


def test_large_groups_leave_no_side_empty() -> None:
    made = [{"text": f"{n}", "group": "large" if n < 7 else "small"} for n in range(10)]
    for fraction in (0.1, 0.5, 0.9):
        train, validation = split(rows_of(*made), fraction, 1, group="group")
        assert {len(train), len(validation)} == {7, 3}
    assert len(split(rows_of(*made), 0.1, 1, group="group").validation) == 3


@pytest.mark.parametrize(
    ("n_rows", "fraction", "said"),
    [
        (2, 0.1, "fraction 0.1 of 2 rows leaves none for validation; change it, or give more rows"),
        (2, 0.9, "fraction 0.9 of 2 rows leaves none for training"),
        (0, 0.5, "fraction 0.5 of 0 rows leaves none for validation"),
        (10, 0.0, "fraction is 0.0, expected one between 0 and 1"),
        (10, 1.0, "fraction is 1.0"),
        (10, math.nan, "fraction is nan"),
    ],
)
def test_fraction_that_leaves_a_side_empty_is_refused(
    n_rows: int, fraction: float, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        split(labelled(*["a"] * n_rows), fraction, 1)
    assert said in str(caught.value)


def test_absent_column_is_refused() -> None:
    with pytest.raises(DataError, match="row 1: has no column 'lable', perhaps 'label'"):
        split(labelled("a", "b"), 0.5, 1, label="lable")


SPLIT = """
from minibert.training.rows import Place, Row
from minibert.training.splits import split
made = [{"text": f"text {n}", "label": [f"l{n % 7}", f"m{n % 3}"]} for n in range(60)]
rows = [Row(values, Place("")) for values in made]
print(split(rows, 0.2, 5, label="label").validation)
"""


def test_split_is_the_same_in_every_process() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-c", SPLIT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert printed == {"[3, 5, 20, 27, 30, 32, 35, 42, 43, 45, 53, 58]\n"}


def test_another_seed_gives_another_split() -> None:
    rows = labelled(*["a"] * 100)
    assert len({tuple(split(rows, 0.5, seed).validation) for seed in range(5)}) == 5


@given(
    st.lists(st.sampled_from("aaaaabbbcd"), min_size=2, max_size=60),
    st.floats(0.05, 0.95),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_shares_hold_whatever_the_order(
    labels: list[str], fraction: float, seed: int, random: Any
) -> None:
    wanted = math.floor(fraction * len(labels) + 0.5)
    assume(0 < wanted < len(labels))
    rows = labelled(*labels)
    train, validation = split(rows, fraction, seed, label="label")
    assert sorted(train + validation) == list(range(len(rows)))
    assert abs(len(validation) - wanted) <= 1
    for label in set(labels):
        share = sum(rows[row].value("label") == label for row in validation)
        others = len(set(labels))
        assert abs(share - fraction * labels.count(label)) <= 1 + others
    shuffled = list(rows)
    random.shuffle(shuffled)
    again = split(shuffled, fraction, seed, label="label")
    assert {shuffled[row].place for row in again.validation} == {
        rows[row].place for row in validation
    }


@given(
    st.lists(st.sampled_from("aaab"), min_size=30, max_size=60),
    st.lists(st.sampled_from("ab"), min_size=1, max_size=5),
)
def test_rows_added_later_move_few_of_the_others(labels: list[str], added: list[str]) -> None:
    before = set(split(labelled(*labels), 0.3, 1, label="label").validation)
    after = set(split(labelled(*labels, *added), 0.3, 1, label="label").validation)
    moved = before ^ {row for row in after if row < len(labels)}
    assert len(moved) <= len(added) + 3
