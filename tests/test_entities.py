"""Entities read from tags: by hand, then as seqeval reads them."""

import pytest
from hypothesis import given, settings
from seqeval.metrics.sequence_labeling import get_entities
from strategies import tag_sequences

from minibert.errors import LabelError
from minibert.prediction.entities import has_entities, is_tag, spans_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("O O", []),
        ("B-A I-A O B-B", [("A", 0, 2), ("B", 3, 4)]),
        ("B-A B-A", [("A", 0, 1), ("A", 1, 2)]),
        ("I-A I-A", [("A", 0, 2)]),  # begins without B-
        ("B-A I-B", [("A", 0, 1), ("B", 1, 2)]),  # the type changes inside
        ("B-A I-A E-A", [("A", 0, 3)]),
        ("S-A I-A", [("A", 0, 1), ("A", 1, 2)]),
        ("E-A E-A", [("A", 0, 1), ("A", 1, 2)]),
        ("B-A E-A I-A", [("A", 0, 2), ("A", 2, 3)]),
        ("I-A S-A", [("A", 0, 1), ("A", 1, 2)]),
        ("B-A O I-A", [("A", 0, 1), ("A", 2, 3)]),
        ("B I O S", [("_", 0, 2), ("_", 3, 4)]),
        ("B-a-b I-a-b I-a-c", [("a-b", 0, 2), ("a-c", 2, 3)]),
        ("B- I-_", [("_", 0, 2)]),
    ],
)
def test_spans_by_hand(text: str, expected: list[tuple[str, int, int]]) -> None:
    assert spans_of(text.split()) == expected


@pytest.mark.parametrize("tag", ["L-PER", "PER", "BPER", "o", "", "O-PER", "U"])
def test_tag_of_no_scheme_is_refused(tag: str) -> None:
    with pytest.raises(LabelError, match=f"tag '{tag}' belongs to no scheme"):
        spans_of(["O", tag])


@settings(max_examples=300)
@given(tag_sequences())
def test_spans_are_those_of_seqeval(sequence: list[str]) -> None:
    theirs = [(label, start, last + 1) for label, start, last in get_entities(sequence)]
    assert spans_of(sequence) == theirs


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("O", "B-PER", "I-PER"), True),
        (("B", "I", "O"), True),
        (("S-A",), True),
        (("O",), False),
        ((), False),
        (("NN", "VB"), False),
        (("O", "B-PER", "X"), False),
        (("LABEL_0", "LABEL_1"), False),
    ],
)
def test_labels_have_entities_where_all_are_tags(labels: tuple[str, ...], expected: bool) -> None:
    assert has_entities(labels) is expected


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("O", True),
        ("I", True),
        ("E-x", True),
        ("B-", True),
        ("", False),
        ("O-A", False),
        ("Bx", False),
        ("L-A", False),
    ],
)
def test_tags_begin_with_a_letter_of_a_scheme(tag: str, expected: bool) -> None:
    assert is_tag(tag) is expected
