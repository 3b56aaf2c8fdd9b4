"""Schemes of word tags: detected, mended and converted; no entity changes."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Entities
from strategies import without_type_checks

from minibert.errors import LabelError
from minibert.training import tags as module
from minibert.training.dialect import Dialect
from minibert.training.rows import Row, read_rows
from minibert.training.spans import Span, spans_of
from minibert.training.tags import SCHEMES, TagScheme, complete, convert, detect, repair

STRICT = {"BIO": IOB2, "IOB1": IOB1, "BIOES": IOBES, "BILOU": BILOU}

# The same entities in each scheme.
SAME: dict[TagScheme, str] = {
    "BIO": "B-A I-A B-A O B-B B-A I-A I-A O",
    "IOB1": "I-A I-A B-A O I-B I-A I-A I-A O",
    "BIOES": "B-A E-A S-A O S-B B-A I-A E-A O",
    "BILOU": "B-A L-A U-A O U-B B-A I-A L-A O",
}


def sequences(letters: str = "BIESLU") -> st.SearchStrategy[list[str]]:
    """Random tags, valid or not, two types and bare letters mixed."""
    entity = st.builds(
        lambda letter, label: f"{letter}-{label}" if label else letter,
        st.sampled_from(letters),
        st.sampled_from(["PER", "LOC-x", ""]),
    )
    return st.lists(st.just("O") | entity, max_size=8)


def schemes() -> st.SearchStrategy[TagScheme]:
    return st.sampled_from(SCHEMES)


def entities(tags: list[str]) -> list[Span]:
    """As `spans_of` reads them, which knows no BILOU."""
    other = {"L": "E", "U": "S"}
    return spans_of([other.get(tag[0], tag[0]) + tag[1:] for tag in tags])


# ---- by hand


@pytest.mark.parametrize("source", SCHEMES)
@pytest.mark.parametrize("target", SCHEMES)
def test_convert_by_hand(source: TagScheme, target: TagScheme) -> None:
    assert convert(SAME[source].split(), source, target) == (SAME[target].split(), 0)


@pytest.mark.parametrize(
    ("scheme", "text", "expected", "n_repaired"),
    [
        ("BIO", "", "", 0),
        ("BIO", "O I-A I-A", "O B-A I-A", 1),  # an I- without its B-
        ("BIO", "B-A I-B I-B", "B-A B-B I-B", 1),  # the type changes inside
        ("BIO", "I-A I-A B-A", "B-A I-A B-A", 1),  # IOB1
        ("BIO", "B-A E-A S-B", "B-A I-A B-B", 2),
        ("BIO", "B-A L-A U-B", "B-A I-A B-B", 2),
        ("BIO", "B I O I", "B I O B", 1),
        ("BIO", "B- I-_ B-x-y", "B I B-x-y", 0),
        ("IOB1", "B-A I-A O B-B B-B", "I-A I-A O I-B B-B", 2),
        ("IOB1", "I-B B-A", "I-B I-A", 1),  # touches another type
        ("BIOES", "B-A O I-A E-A", "S-A O B-A E-A", 2),
        ("BIOES", "B-A I-A", "B-A E-A", 1),  # never ends
        ("BIOES", "B-A", "S-A", 1),
        ("BIOES", "I-A E-A", "B-A E-A", 1),  # never begins
        ("BIOES", "E-A", "S-A", 1),
        ("BIOES", "S-A I-A E-A", "S-A B-A E-A", 1),
        ("BIOES", "B-A E-A E-A", "B-A E-A S-A", 1),
        ("BIOES", "B-A L-A U-A", "B-A E-A S-A", 2),
        ("BILOU", "B-A E-A S-A", "B-A L-A U-A", 2),
        ("BILOU", "B-A I-A U-B L-B", "B-A L-A U-B U-B", 2),
    ],
)
def test_repair_by_hand(scheme: TagScheme, text: str, expected: str, n_repaired: int) -> None:
    assert repair(text.split(), scheme) == (expected.split(), n_repaired)


def test_convert_counts_what_broke_the_source() -> None:
    assert convert(["I-A", "I-A", "O", "B-B"], "IOB1", "BIO") == (["B-A", "I-A", "O", "B-B"], 1)
    assert convert(["I-A", "I-A", "O", "B-B"], "BIO", "BIO").n_repaired == 1
    assert convert(["B-A", "I-A"], "BIO", "BILOU") == (["B-A", "L-A"], 0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_detect_by_hand(scheme: TagScheme) -> None:
    assert detect([SAME[scheme].split()]) == scheme


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], None),
        (["O O", ""], None),
        (["NN VB", "DT NN"], None),
        (["NN O"], None),
        (["B-A O B-B"], "BIO"),
        (["I-A O I-B"], "IOB1"),
        (["O S-A"], "BIOES"),
        (["O U-A"], "BILOU"),
        (["I-A", "I-A", "B-A"], "IOB1"),  # one mistake, in BIO two
        (["B-A I-A O", "B-B", "O E-A"], "BIO"),  # one mistake, in BIOES two
        (["B-A", "I-A"], "BIO"),  # one mistake in either
        (["I-A O I-B O I-A", "B-A", "B-B"], "IOB1"),  # two tags, in BIO three
        (["I-A PER", "S-A"], "BIOES"),  # the first says nothing
    ],
)
def test_detect_takes_what_is_broken_least(rows: list[str], expected: TagScheme | None) -> None:
    assert detect(row.split() for row in rows) == expected


@pytest.mark.parametrize("tag", ["PER", "BPER", "B_PER", "X-PER", "o", "b-PER", "", "O-PER", "-"])
def test_tag_of_no_scheme_is_refused(tag: str) -> None:
    expected = f"tag 2 is {tag!r}, expected O, or one of B-, I-, E-, S-, L-, U- and a type, as"
    for refused in (
        lambda: repair(["O", tag], "BIO"),
        lambda: convert(["O", tag], "BIO", "BILOU"),
    ):
        with pytest.raises(LabelError) as caught:
            refused()
        assert str(caught.value).startswith(expected)


def test_unknown_scheme_is_refused() -> None:
    plain = without_type_checks(module)
    for call in (
        lambda: plain.repair(["O"], "IOB"),
        lambda: plain.convert(["O"], "BIO", "IOB"),
        lambda: plain.convert(["O"], "IOB", "BIO"),
    ):
        with pytest.raises(LabelError, match=r"^scheme is 'IOB', expected one of BIO, IOB1, BIOES"):
            call()


def test_names_are_completed_by_all_that_a_scheme_has_for_their_types() -> None:
    """A tag that train lacks may stand in other rows."""
    assert complete(["O", "I-A", "B-B"], "BIO") == ("B-A", "B-B", "I-A", "I-B", "O")
    assert complete(["I-A"], "IOB1") == ("B-A", "I-A", "O")
    assert complete(["B"], "BILOU") == ("B", "I", "L", "O", "U")
    assert complete(["O"], "BIOES") == ("O",)


# ---- properties


@settings(max_examples=200)
@given(sequences(), schemes(), schemes())
def test_no_entity_changes(tags: list[str], source: TagScheme, target: TagScheme) -> None:
    found = convert(tags, source, target)
    assert entities(found.tags) == entities(tags)
    assert 0 <= found.n_repaired <= sum(tag != "O" for tag in tags)
    assert [tag == "O" for tag in found.tags] == [tag == "O" for tag in tags]


@settings(max_examples=200)
@given(sequences(), schemes())
def test_what_was_repaired_is_valid(tags: list[str], scheme: TagScheme) -> None:
    """A reader that takes only what is valid finds the same entities; nothing is left to mend."""
    found = repair(tags, scheme)
    strict = [(e.tag, e.start, e.end) for e in Entities([found.tags], STRICT[scheme]).entities[0]]
    assert strict == [(label, start, stop) for label, start, stop in entities(tags)]
    assert repair(found.tags, scheme) == (found.tags, 0)
    changed = sum(a[0] != b[0] for a, b in zip(tags, found.tags, strict=True))
    assert found.n_repaired == changed


@settings(max_examples=100)
@given(sequences(), schemes(), schemes())
def test_converted_there_and_back_is_the_same(
    tags: list[str], source: TagScheme, target: TagScheme
) -> None:
    valid = repair(tags, source).tags
    there = convert(valid, source, target)
    assert there.n_repaired == 0
    assert convert(there.tags, target, source) == (valid, 0)


@settings(max_examples=100)
@given(sequences(), schemes(), schemes())
def test_completed_names_hold_every_tag_that_the_entities_may_need(
    tags: list[str], source: TagScheme, target: TagScheme
) -> None:
    names = complete(repair(tags, source).tags, target)
    assert set(repair(tags, target).tags) <= set(names)
    assert list(names) == sorted(set(names))
    assert complete(names, source) == complete(repair(tags, source).tags, source)


@settings(max_examples=100)
@given(st.lists(sequences(), max_size=4), schemes())
def test_the_detected_scheme_is_not_broken_where_one_is_not(
    rows: list[list[str]], scheme: TagScheme
) -> None:
    valid = [repair(tags, scheme).tags for tags in rows]
    found = detect(valid)
    if found is None:
        assert not any(map(entities, valid))
    else:
        assert all(repair(tags, found).n_repaired == 0 for tags in valid)


@pytest.mark.data
def test_real_tags_are_bio_and_survive_every_scheme(data: Path) -> None:
    rows = read_rows(str(data / "wnut17/wnut17train.conll"), Dialect(), wanted=[], limit=None)
    tags = [row.value("tags") for row in rows if isinstance(row, Row)]
    assert detect(tags) == "BIO"
    assert sum(repair(each, "BIO").n_repaired for each in tags) == 0
    for scheme in SCHEMES:
        others = [convert(each, "BIO", scheme).tags for each in tags]
        assert detect(others) == scheme
        assert [convert(each, scheme, "BIO") for each in others] == [(each, 0) for each in tags]
