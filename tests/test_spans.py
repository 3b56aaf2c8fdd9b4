"""Entity spans: written in each scheme, and compared as seqeval compares them."""

import warnings
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support
from strategies import tag_sequences, without_type_checks

from minibert.errors import LabelError
from minibert.prediction.entities import Span, spans_of
from minibert.training import spans
from minibert.training.spans import Scheme, scheme_of, span_scores, write_tags

SCHEMES: tuple[Scheme, ...] = ("BIO", "IOB1", "BIOES")


@st.composite
def placed(draw: st.DrawFn) -> tuple[list[Span], int]:
    """Spans that do not overlap, some of them touching, and the length of their sequence."""
    found, place = [], 0
    for _ in range(draw(st.integers(0, 4))):
        start = place + draw(st.integers(0, 2))
        place = start + draw(st.integers(1, 3))
        found.append(Span(draw(st.sampled_from(["PER", "LOC", "_"])), start, place))
    return found, place + draw(st.integers(0, 2))


@settings(max_examples=150)
@given(st.sampled_from(["BI", "BIES", "I", "ES"]), st.data())
def test_span_scores_are_those_of_seqeval(letters: str, data: st.DataObject) -> None:
    rows = data.draw(
        st.lists(st.tuples(tag_sequences(letters), tag_sequences(letters)), min_size=1, max_size=4)
    )
    predicted = [list(a[: len(b)]) + ["O"] * (len(b) - len(a)) for a, b in rows]
    targets = [list(b) for _, b in rows]
    ours = span_scores(predicted, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of seqeval, where there is nothing to divide by
        total = [score(targets, predicted) for score in (precision_score, recall_score, f1_score)]
        by_type = precision_recall_fscore_support(targets, predicted)
    counts = ours.total
    assert [counts.precision, counts.recall, counts.f1] == pytest.approx(total)
    found = [(c.precision, c.recall, c.f1, c.n_target) for c in ours.by_type.values()]
    theirs = list(zip(*(column.tolist() for column in by_type), strict=True))
    assert len(found) == len(theirs)
    for a, b in zip(found, theirs, strict=True):
        assert a == pytest.approx(b)


def test_span_scores_by_hand() -> None:
    scores = span_scores(
        [["B-A", "I-A", "O", "B-B"], ["B-A"]],
        [["B-A", "I-A", "O", "B-A"], ["O"]],
    )
    assert (scores.total.n_right, scores.total.n_predicted, scores.total.n_target) == (1, 3, 2)
    assert scores.total.precision == pytest.approx(1 / 3)
    assert scores.total.recall == 0.5
    assert scores.total.f1 == pytest.approx(0.4)
    assert list(scores.by_type) == ["A", "B"]
    assert (scores.by_type["A"].precision, scores.by_type["A"].recall) == (0.5, 0.5)
    assert (scores.by_type["B"].n_predicted, scores.by_type["B"].n_target) == (1, 0)
    assert scores.by_type["B"].recall == scores.by_type["B"].f1 == 0.0


def test_span_scores_keep_sequences_apart() -> None:
    """An entity at the end of one and the beginning of the next are two."""
    scores = span_scores([["B-A"], ["I-A"]], [["B-A"], ["I-A"]])
    assert scores.total.n_right == 2


def test_span_scores_refuse_other_shapes() -> None:
    with pytest.raises(LabelError, match=r"^1 predicted sequences stand against 2 targets"):
        span_scores([["O"]], [["O"], ["O"]])
    with pytest.raises(LabelError, match=r"^predicted\[1\] has 1 tags, expected 2"):
        span_scores([["O"], ["O"]], [["O"], ["O", "O"]])


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("BIO", "B-A I-A B-A O B-B B-A I-A I-A"),
        ("IOB1", "I-A I-A B-A O I-B I-A I-A I-A"),
        ("BIOES", "B-A E-A S-A O S-B B-A I-A E-A"),
    ],
)
def test_tags_by_hand(scheme: Scheme, expected: str) -> None:
    found = [Span("A", 0, 2), Span("A", 2, 3), Span("B", 4, 5), Span("A", 5, 8)]
    assert write_tags(found[::-1], 8, scheme) == expected.split()


@settings(max_examples=100)
@given(placed(), st.sampled_from(SCHEMES))
def test_spans_come_back_from_tags_of_every_scheme(
    case: tuple[list[Span], int], scheme: Scheme
) -> None:
    found, length = case
    assert spans_of(write_tags(found, length, scheme)) == found


@pytest.mark.parametrize(
    "found",
    [
        [Span("A", 0, 2), Span("B", 1, 3)],
        [Span("A", 2, 2)],
        [Span("A", 2, 4)],
        [Span("A", -1, 1)],
    ],
)
def test_spans_that_do_not_fit_are_refused(found: Sequence[Span]) -> None:
    with pytest.raises(LabelError, match="does not fit behind"):
        write_tags(found, 3)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("O B-PER I-PER", "BIO"),
        ("B-PER O", "BIO"),
        ("O I-PER I-LOC", "IOB1"),
        ("O B-PER I-PER E-PER S-PER", "BIOES"),
        ("S-PER O", "BIOES"),
        ("NN VB DT", None),
        ("NN O", None),
    ],
)
def test_scheme_of_names(names: str, expected: Scheme | None) -> None:
    assert scheme_of(names.split()) == expected


def test_scheme_of_refuses_names_of_two_minds() -> None:
    with pytest.raises(LabelError, match="'X' stands among tags as 'O'"):
        scheme_of(["O", "B-A", "X"])
    with pytest.raises(LabelError, match="expected one of an entity"):
        scheme_of(["O"])


def test_unknown_scheme_is_refused() -> None:
    plain = without_type_checks(spans)
    with pytest.raises(LabelError, match="scheme is 'BILOU', expected one of BIO, IOB1, BIOES"):
        plain.write_tags([], 1, "BILOU")
