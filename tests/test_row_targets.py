"""Rows of a run: texts that are texts, labels that fit; all that does not is told of."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import row_of, rows_of, run_of
from strategies import tag_sequences

from minibert.errors import LabelError, RunError
from minibert.training.problems import Problems
from minibert.training.row_targets import (
    checked,
    label_columns,
    label_of,
    names_of,
    tags_of,
    text_columns,
)
from minibert.training.run_config import RunConfig
from minibert.training.tags import repair

Told = list[tuple[str, str, str]]


def looked_at(
    run: RunConfig, values: list[dict[str, Any]], labels: tuple[str, ...] | None = None
) -> tuple[list[str], list[Any], Told]:
    """The places of the rows that fit, their targets, and what is told of the others."""
    rows, problems = rows_of(values), Problems()
    names = names_of(run, rows) if labels is None else labels
    kept, targets = checked(run, rows, names, problems)
    told = [(str(bad.place), bad.kind, bad.message) for bad in problems.bad]
    return [str(row.place) for row in kept], targets, told


# ---- columns


def test_columns_of_each_task() -> None:
    pair = {"text_pair": "b", "text": "a"}
    vectors = run_of("contrastive", data={**pair, "negatives": ["n", "m"]})
    assert text_columns(vectors) == ["a", "b", "n", "m"]
    assert label_columns(vectors) == []
    assert text_columns(run_of("binary")) == ["text"]
    assert text_columns(run_of("spans", data=pair)) == ["a", "b"]
    words = run_of("tokens")
    assert (text_columns(words), label_columns(words)) == (["tokens"], ["tags"])
    assert label_columns(run_of("masked_lm")) == []
    assert label_columns(run_of("binary", data={"label": "y"})) == ["y"]
    assert label_columns(run_of("multilabel", data={"label": ["x", "y"]})) == ["x", "y"]
    with pytest.raises(RunError) as caught:
        label_columns(run_of("binary", data={"label": ["x", "y"]}))
    assert str(caught.value) == (
        "data.label is ['x', 'y'], expected the name of one column for task 'binary'; several are "
        "for multilabel"
    )


# ---- labels


def test_classes_and_numbers() -> None:
    rows = [{"text": "a", "label": label} for label in ("pos", "neg", "pos")]
    assert looked_at(run_of("binary"), rows) == (["row 1", "row 2", "row 3"], [1, 0, 1], [])
    one = run_of("binary", head={"num_labels": 1})
    assert looked_at(one, rows)[1] == [1.0, 0.0, 1.0]
    assert all(isinstance(target, float) for target in looked_at(one, rows)[1])
    two = run_of("binary", head={"num_labels": 2})
    assert all(isinstance(target, int) for target in looked_at(two, rows)[1])
    numbers = [{"text": "a", "label": label} for label in ("2.5", 3)]
    assert looked_at(run_of("regression"), numbers)[1] == [2.5, 3.0]
    assert names_of(run_of("regression"), rows_of(numbers)) == ()
    pairs = [{"text": "a", "b": "b", "label": 0.5}]
    assert looked_at(run_of("similarity", data={"text_pair": "b"}), pairs)[1] == [0.5]
    assert looked_at(run_of("contrastive", data={"text_pair": "b"}), pairs)[1] == [0]
    assert looked_at(run_of("masked_lm"), [{"text": "a"}])[1] == [0]


@pytest.mark.parametrize(
    ("separator", "value", "labels"),
    [
        (",", "joy, anger,", ["joy", "anger"]),
        (None, " joy, anger ", ["joy, anger"]),
        (",", "", []),
        (None, "  ", []),
        (",", ["joy", "anger"], ["joy", "anger"]),
        (",", 3, ["3"]),
        (",", None, [None]),
    ],
)
def test_several_labels_of_a_row(separator: str | None, value: Any, labels: list[Any]) -> None:
    data = {} if separator is None else {"label_separator": separator}
    run = run_of("multilabel", data=data)
    assert label_of(run, row_of(label=value)) == labels


def test_missing_label_of_several_is_refused_and_none_is_none() -> None:
    rows = [{"text": "a", "label": label} for label in ("joy", "", None, float("nan"))]
    kept, targets, told = looked_at(run_of("multilabel"), rows)
    assert (kept, targets) == (["row 1", "row 2"], [[1.0], [0.0]])
    assert told == [
        ("row 3", "unknown label", "the label is None, expected one of 'joy'"),
        ("row 4", "unknown label", "the label is nan, expected one of 'joy'"),
    ]


def test_column_for_each_label_has_ones_and_zeros() -> None:
    run = run_of("multilabel", data={"label": ["joy", "fear"]})
    rows = [
        {"text": "a", "joy": joy, "fear": fear}
        for joy, fear in (
            ("1", "0"),
            (1, 0.0),
            (True, " "),
            (" TRUE", "1.0"),
            ("2", "0"),
            (None, 1),
        )
    ]
    kept, targets, told = looked_at(run, rows)
    assert names_of(run, rows_of(rows)) == ("joy", "fear")
    assert kept == [f"row {n}" for n in (1, 2, 3, 4)]
    assert targets == [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
    end = ", expected 0 or 1: data.label lists a column for each label"
    assert told == [
        ("row 5", "no 0 or 1", f"column 'joy' is '2'{end}"),
        ("row 6", "no 0 or 1", f"column 'joy' is None{end}"),
    ]
    asked = run_of("multilabel", data={"label": ["joy", "fear"], "labels": ["fear", "joy"]})
    assert looked_at(asked, rows)[1][0] == [0.0, 1.0]


def test_answers_stand_in_their_texts() -> None:
    rows = [
        {"text": "who", "c": "anna is odd", "label": answer, "at": at}
        for answer, at in (("is odd", 5), ("", None), ("odd", "8"), ("odd", 5), ("is", "x"))
    ]
    run = run_of("spans", data={"text_pair": "c", "answer_start": "at"})
    kept, targets, told = looked_at(run, rows)
    assert (kept, targets) == (["row 1", "row 2", "row 3"], [(5, 11), (0, 0), (8, 11)])
    assert [place for place, _, _ in told] == ["row 4", "row 5"]
    first = run_of("spans", data={"text_pair": "c"})
    assert looked_at(first, rows)[1] == [(5, 11), (0, 0), (8, 11), (8, 11), (5, 7)]
    with pytest.raises(RunError, match=r"data\.text_pair is missing, expected the column of the"):
        looked_at(run_of("spans"), rows)


# ---- texts


def test_what_is_no_text_is_refused_with_its_column() -> None:
    run = run_of("binary", data={"text_pair": "b"})
    rows = [
        {"text": text, "b": second, "label": label}
        for text, second, label in (
            ("a", "b", "x"), ("a", "b", "y"), (None, "b", "x"), ("a", 3, "x"),
            ("a", ["b"] * 30, "z"),
        )
    ]  # fmt: skip
    kept, targets, told = looked_at(run, rows, ("x", "y"))
    assert (kept, targets) == (["row 1", "row 2"], [0, 1])
    assert told[:2] == [
        ("row 3", "no text", "column 'text' is None, expected a text"),
        ("row 4", "no text", "column 'b' is 3, expected a text"),
    ]
    place, kind, message = told[2]
    assert (place, kind) == ("row 5", "no text")
    assert message == "column 'b' is " + repr(["b"] * 30)[:59] + "…, expected a text"
    assert told[3] == ("row 5", "unknown label", "the label is 'z', expected one of 'x', 'y'")


@pytest.mark.parametrize("words", ["a b", None, 3, ["a", 3], {"a": 1}])
def test_what_is_no_list_of_words_is_refused_once(words: Any) -> None:
    rows = [{"tokens": ["a", "b"], "tags": ["O", "X"]}, {"tokens": words, "tags": ["O", "X"]}]
    kept, targets, told = looked_at(run_of("tokens"), rows)
    assert (kept, targets) == (["row 1"], [[0, 1]])
    shown = f"column 'tokens' is {words!r}, expected a list of words"
    assert told == [("row 2", "no words", shown)]


# ---- tags


def test_tags_as_they_stand() -> None:
    rows = [
        {"tokens": ["a", "b"], "tags": ["O", "I-x"]}, {"tokens": ["a"], "tags": ["O", "O"]},
        {"tokens": ["a"], "tags": "O"},
    ]  # fmt: skip
    run = run_of("tokens")
    assert names_of(run, rows_of(rows)) == ("I-x", "O")
    kept, targets, told = looked_at(run, rows)
    assert (kept, targets) == (["row 1", "row 3"], [[1, 0], [1]])
    assert told == [
        ("row 2", "tags and words", "has 2 tags for 1 words, expected one a word"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("BIO", ["B-x", "I-x", "B-x", "O"]),
        ("IOB1", ["I-x", "I-x", "B-x", "O"]),
        ("BIOES", ["B-x", "E-x", "S-x", "O"]),
    ],
)
def test_tags_are_rewritten_in_the_scheme_that_is_asked_for(scheme: str, tags: list[str]) -> None:
    """Whichever they are in, BILOU too, and mended on the way."""
    run = run_of("tokens", data={"tag_scheme": scheme})
    for stands in (
        "B-x I-x B-x O",
        "I-x I-x B-x O",
        "B-x E-x S-x O",
        "B-x L-x U-x O",
        "I-x L-x S-x O",
    ):
        assert tags_of(run, row_of(tags=stands.split())) == tags
    assert tags_of(run, row_of(tags=[" B-x", "I-x "])) == tags_of(run, row_of(tags=["B-x", "I-x"]))


def test_names_of_tags_are_all_of_the_scheme() -> None:
    """A tag that train lacks may be needed for other rows."""
    rows = rows_of([{"tags": ["B-x", "O"]}])
    run = run_of("tokens", data={"tag_scheme": "BIOES"})
    assert names_of(run, rows) == ("B-x", "E-x", "I-x", "O", "S-x")
    asked = run_of("tokens", data={"tag_scheme": "BIOES", "labels": ["O", "S-x"]})
    assert names_of(asked, rows) == ("O", "S-x")


def test_tag_of_no_scheme_is_refused_by_its_row_alone() -> None:
    rows = [
        {"tokens": ["a", "b"], "tags": ["O", "B-x"]}, {"tokens": ["a", "b"], "tags": ["NN", "B-y"]},
        {"tokens": ["a"], "tags": [None]},
    ]  # fmt: skip
    run = run_of("tokens", data={"tag_scheme": "BIO"})
    assert names_of(run, rows_of(rows)) == ("B-x", "I-x", "O")
    kept, targets, told = looked_at(run, rows)
    assert (kept, targets) == (["row 1"], [[2, 0]])
    end = "expected O, or one of B-, I-, E-, S-, L-, U- and a type, as B-PER"
    assert told == [
        ("row 2", "bad tag", f"tag 1 is 'NN', {end}"),
        ("row 3", "bad tag", f"tag 1 is 'None', {end}"),
    ]
    # Where all of them are refused, that is what is said, not that there are no labels.
    assert names_of(run, rows_of(rows[1:])) == ()
    assert len(looked_at(run, rows[1:])[2]) == 2
    with pytest.raises(LabelError, match="no label at all"):
        names_of(run, [])


@given(tags=tag_sequences(), scheme=st.sampled_from(["BIO", "IOB1", "BIOES"]))
def test_every_row_that_a_scheme_can_say_has_its_targets(tags: list[str], scheme: Any) -> None:
    run = run_of("tokens", data={"tag_scheme": scheme})
    rows = [{"tokens": ["a"] * len(tags), "tags": tags}, {"tokens": ["a"], "tags": ["B-PER"]}]
    names = names_of(run, rows_of(rows))
    kept, targets, told = looked_at(run, rows)
    assert (len(kept), told) == (2, [])
    assert [names[target] for target in targets[0]] == repair(tags, scheme).tags
