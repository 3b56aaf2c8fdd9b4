"""Rows as examples: cut or in windows, tags at their tokens, answers in theirs, running text."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import WORDS, small_tokenizer
from small_runs import ID, ids_of, row_of, rows_of, run_of

from minibert.errors import DataError, RunError
from minibert.prediction.answerer import QuestionAnswerer
from minibert.prediction.sequences import text_pieces
from minibert.prediction.settings import PredictionSettings
from minibert.tokenizer import Tokenizer
from minibert.training import encoding
from minibert.training.dialect import Dialect
from minibert.training.encoding import (
    LOST,
    NOWHERE,
    Cut,
    Encoded,
    aligned,
    encode_rows,
    overlaps,
    token_span,
    windowed,
)
from minibert.training.losses import IGNORED
from minibert.training.rows import Place, Row, read_rows
from minibert.training.run_config import RunConfig

CLS, SEP = ID["[CLS]"], ID["[SEP]"]
PLAIN = [word for word in WORDS if word.isalpha()]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("vocabulary"))


def encoded(
    run: RunConfig, rows: list[Row], targets: list[Any], tokenizer: Tokenizer, what: str = "train"
) -> Encoded:
    return encode_rows(run, rows, targets, tokenizer, what)


def refusal(run: RunConfig, rows: list[Row], targets: list[Any], tokenizer: Tokenizer) -> str:
    with pytest.raises((DataError, RunError)) as caught:
        encode_rows(run, rows, targets, tokenizer, "train")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- a text, or a pair


def test_text_stands_between_its_special_tokens(tokenizer: Tokenizer) -> None:
    rows = rows_of([{"text": "good film"}, {"text": ""}])
    found, cut = encoded(run_of("binary"), rows, [1, 0], tokenizer)
    assert found.ids == [ids_of("[CLS] good film [SEP]"), [CLS, SEP]]
    assert found.types == [[0] * 4, [0] * 2]
    assert found.targets == [1, 0]
    assert (found.texts, found.starts, found.n_parts) == ([], [], 1)
    assert str(cut) == "3.0 tokens a text, none cut"


def test_long_text_is_cut_and_counted(tokenizer: Tokenizer) -> None:
    rows = rows_of([{"text": "good fine bad poor odd"}, {"text": "film"}])
    found, cut = encoded(run_of("binary", data={"max_length": 5}), rows, [1, 0], tokenizer)
    assert found.ids == [ids_of("[CLS] good fine bad [SEP]"), ids_of("[CLS] film [SEP]")]
    assert cut == Cut(n_texts=2, n_tokens=10, cut_texts=1, cut_tokens=2)
    said = "5.0 tokens a text; 50.00% of the texts and 20.00% of the tokens are cut"
    assert str(cut) == said
    assert str(Cut()) == "0.0 tokens a text, none cut"


def test_pair_is_two_types_and_the_longer_is_cut_first(tokenizer: Tokenizer) -> None:
    rows = rows_of([{"a": "good fine bad", "b": "odd"}, {"a": "who", "b": "anna lives in paris"}])
    run = run_of("regression", data={"text": "a", "text_pair": "b", "max_length": 6})
    found, cut = encoded(run, rows, [0.5, 1.0], tokenizer)
    assert found.ids == [
        ids_of("[CLS] good fine [SEP] odd [SEP]"), ids_of("[CLS] who [SEP] anna lives [SEP]"),
    ]  # fmt: skip
    assert found.types == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert (cut.cut_texts, cut.cut_tokens, cut.n_tokens) == (2, 3, 15)


def test_windows_overlap_as_asked_and_share_their_targets(tokenizer: Tokenizer) -> None:
    rows = rows_of([{"text": "film"}, {"text": "good fine bad poor odd"}])
    run = run_of("binary", data={"max_length": 5, "long_text": "windows", "window_overlap": 1})
    found, cut = encoded(run, rows, [0, 1], tokenizer)
    assert found.ids == [
        ids_of("[CLS] film [SEP]"),
        ids_of("[CLS] good fine bad [SEP]"),
        ids_of("[CLS] bad poor odd [SEP]"),
    ]
    assert found.types == [[0] * 3, [0] * 5, [0] * 5]
    assert (found.targets, found.texts, found.starts) == ([0, 1, 1], [0, 1, 1], [0, 0, 2])
    assert found.windows == [[0], [1, 2]]
    assert str(cut) == "5.0 tokens a text, none cut"


def test_as_many_labels_as_tokens_are_no_tags(tokenizer: Tokenizer) -> None:
    run = run_of("multilabel", data={"max_length": 6, "long_text": "windows"})
    target = [1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    found, _ = encoded(run, [row_of(text="good fine bad poor odd")], [target], tokenizer)
    assert len(found.ids[0]) == 6
    assert found.targets == [target, target]


def test_windows_share_an_eighth_or_of_tags_a_quarter_by_default() -> None:
    settings = {"max_length": 34}
    assert overlaps(run_of("binary", data=settings))(32) == 4
    assert overlaps(run_of("tokens", data=settings))(32) == 8
    assert overlaps(run_of("spans", data=settings))(32) == 8
    asked = overlaps(run_of("tokens", data={**settings, "window_overlap": 16}))
    assert [asked(size) for size in (32, 20, 1)] == [16, 10, 0]
    with pytest.raises(RunError) as caught:
        overlaps(run_of("tokens", data={**settings, "window_overlap": 17}))
    assert str(caught.value) == (
        "data.window_overlap is 17, expected at most 16, half of what data.max_length leaves"
    )


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    max_length=st.integers(3, 12),
    share=st.floats(0, 1) | st.none(),
)
def test_windows_cover_every_token_and_are_those_of_prediction(
    tokenizer: Tokenizer, counts: list[int], max_length: int, share: float | None
) -> None:
    overlap = None if share is None else int(share * ((max_length - 2) // 2))
    data = {"max_length": max_length, "long_text": "windows", "window_overlap": overlap}
    data = {name: value for name, value in data.items() if value is not None}
    run = run_of("binary", data=data)
    texts = [" ".join(PLAIN[i % len(PLAIN)] for i in range(count)) for count in counts]
    found, _ = encoded(run, rows_of([{"text": t} for t in texts]), [0] * len(texts), tokenizer)
    for text, rows in zip(texts, found.windows, strict=True):
        shown: dict[int, int] = {}
        for row in rows:
            assert (found.ids[row][0], found.ids[row][-1]) == (CLS, SEP)
            for place, token in enumerate(found.ids[row][1:-1], start=found.starts[row]):
                assert shown.setdefault(place, token) == token
        assert [shown[place] for place in sorted(shown)] == ids_of(text)
        for before, row in itertools.pairwise(rows):
            stop = found.starts[before] + len(found.ids[before]) - 2
            assert stop - found.starts[row] == overlaps(run)(max_length - 2)
    pieces = text_pieces(tokenizer, settings_of(run), texts)
    assert [list(piece.ids) for piece in pieces.pieces] == found.ids
    assert pieces.owners == found.texts


def settings_of(run: RunConfig) -> PredictionSettings:
    """How texts are read by the model of a run."""
    data = run.data
    return PredictionSettings(
        task=run.task, max_length=data.max_length, long_text=data.long_text,
        window_overlap=data.window_overlap,
    )  # fmt: skip


@given(st.integers(0, 10))
def test_text_that_fits_is_one_window_and_as_without(tokenizer: Tokenizer, n_words: int) -> None:
    rows = [row_of(text=" ".join(PLAIN[:n_words]))]
    with_windows = run_of("binary", data={"max_length": 12, "long_text": "windows"})
    ones, _ = encoded(with_windows, rows, [1], tokenizer)
    others, _ = encoded(run_of("binary", data={"max_length": 12}), rows, [1], tokenizer)
    assert (ones.ids, ones.types, ones.targets) == (others.ids, others.types, others.targets)
    assert ones.windows == others.windows == [[0]]


@pytest.mark.parametrize(
    ("task", "data", "values", "said"),
    [
        ("binary", {}, {"text": "good fine bad poor"}, "'truncate' or 'windows'"),
        ("binary", {"text_pair": "b"}, {"text": "good fine", "b": "bad"}, "'truncate'"),
        ("tokens", {}, {"tokens": ["good", "films", "."]}, "'truncate' or 'windows'"),
        ("contrastive", {"text_pair": "b"}, {"text": "a", "b": "good fine bad ."}, "'truncate'"),
    ],
    ids=["text", "pair", "words", "set"],
)
def test_text_that_is_too_long_is_named_by_its_row(
    tokenizer: Tokenizer, task: str, data: dict[str, Any], values: dict[str, Any], said: str
) -> None:
    """Wherever among the texts that are tokenised at once it stands."""
    short = dict.fromkeys(values, "film") if task != "tokens" else {"tokens": ["film"]}
    run = run_of(task, data={**data, "max_length": 5, "long_text": "error"})
    targets = [[0], [0] * 3] if task == "tokens" else [0, 0]
    found, _ = encoded(run, rows_of([short, short]), [[0], [0]], tokenizer)
    assert len(found.targets) == 2
    assert refusal(run, rows_of([short, values]), targets, tokenizer) == (
        "row 2: has 6 tokens, expected at most 5; raise data.max_length, or set data.long_text to "
        + said
    )


def test_settings_that_do_not_go_together_are_refused(tokenizer: Tokenizer) -> None:
    pair = [row_of(text="a", b="a")]
    windows = {"text_pair": "b", "long_text": "windows"}
    for task, data, said in (
        (
            "binary",
            windows,
            "data.long_text is 'windows', expected 'truncate' or 'error' for pairs",
        ),
        ("similarity", windows, "data.long_text is 'windows', expected 'truncate' for task 'simil"),
        ("similarity", {}, "data.text_pair is missing, expected a column for task 'similarity'"),
        ("spans", {}, "data.text_pair is missing, expected the column of the text of the answer"),
        (
            "spans",
            {"text_pair": "b", "max_length": 7},
            "data.max_length is 7, expected at least 8 for questions",
        ),
        ("binary", {"window_overlap": 64}, "data.window_overlap is 64, expected at most 63, half"),
    ):
        assert refusal(run_of(task, data=data), pair, [0], tokenizer).startswith(said)


# ---- words with tags


def test_tag_stands_at_the_first_piece_or_in_training_at_every_one(tokenizer: Tokenizer) -> None:
    rows = [row_of(tokens=["the", "films", "."])]
    words, every = [[5, 6, 7]], run_of("tokens", data={"label_all_pieces": True})
    for run, what, expected in (
        (run_of("tokens"), "train", [IGNORED, 5, 6, IGNORED, 7, IGNORED]),
        (every, "train", [IGNORED, 5, 6, 6, 7, IGNORED]),
        (every, "validation", [IGNORED, 5, 6, IGNORED, 7, IGNORED]),  # where words are judged
    ):
        found, _ = encoded(run, rows, words, tokenizer, what)
        assert found.ids == [ids_of("[CLS] the film ##s . [SEP]")]
        assert found.targets == [expected]


def test_tags_of_what_is_cut_away_go_with_it(tokenizer: Tokenizer) -> None:
    run = run_of("tokens", data={"max_length": 5})
    found, cut = encoded(run, [row_of(tokens=["the", "films", "."])], [[5, 6, 7]], tokenizer)
    assert found.targets == [[IGNORED, 5, 6, IGNORED, IGNORED]]
    assert (cut.cut_texts, cut.cut_tokens) == (1, 1)


def test_windows_of_words_have_their_own_tags(tokenizer: Tokenizer) -> None:
    rows = [row_of(tokens=["the", "films", "good", "."])]
    run = run_of("tokens", data={"max_length": 5, "long_text": "windows", "window_overlap": 1})
    found, _ = encoded(run, rows, [[5, 6, 7, 8]], tokenizer)
    assert found.ids == [
        ids_of("[CLS] the film ##s [SEP]"), ids_of("[CLS] ##s good . [SEP]"),
    ]  # fmt: skip
    assert found.targets == [[IGNORED, 5, 6, IGNORED, IGNORED], [IGNORED, IGNORED, 7, 8, IGNORED]]
    assert found.starts == [0, 2]


def test_tags_by_hand() -> None:
    words = [None, 0, 0, 1, 3, 3, None]  # word 2 gives no token
    assert aligned([4, 5, 6, 7], words, every=False) == [
        IGNORED, 4, IGNORED, 5, 7, IGNORED, IGNORED,
    ]  # fmt: skip
    assert aligned([4, 5, 6, 7], words, every=True) == [IGNORED, 4, 4, 5, 7, 7, IGNORED]
    assert aligned([], [None, None], every=True) == [IGNORED, IGNORED]


@given(
    words=st.lists(st.sampled_from(["film", "films", "goodly", "."]), max_size=12),
    max_length=st.integers(3, 9),
    overlap=st.integers(0, 3),
)
def test_windows_of_words_together_have_the_tag_of_each_word_once(
    tokenizer: Tokenizer, words: list[str], max_length: int, overlap: int
) -> None:
    overlap = min(overlap, (max_length - 2) // 2)
    data = {"max_length": max_length, "long_text": "windows", "window_overlap": overlap}
    tags = [100 + i for i in range(len(words))]
    found, _ = encoded(run_of("tokens", data=data), [row_of(tokens=words)], [tags], tokenizer)
    merged: dict[int, int] = {}
    for row in found.windows[0]:
        inner = found.targets[row][1:-1]
        assert len(found.targets[row]) == len(found.ids[row])
        for place, tag in enumerate(inner, start=found.starts[row]):
            assert merged.setdefault(place, tag) == tag
    assert [tag for _, tag in sorted(merged.items()) if tag != IGNORED] == tags


# ---- texts that get a vector each


def test_texts_of_a_set_stand_side_by_side(tokenizer: Tokenizer) -> None:
    rows = rows_of([
        {"text": "good film", "b": "fine", "n": "bad"}, {"text": "odd", "b": "who is", "n": ""},
    ])  # fmt: skip
    run = run_of("contrastive", data={"text_pair": "b", "negatives": ["n"], "max_length": 3})
    found, cut = encoded(run, rows, [0, 0], tokenizer)
    assert found.ids == [
        ids_of(f"[CLS] {text} [SEP]") for text in ("good", "fine", "bad", "odd", "who", "")
    ]
    assert found.types == [[0] * len(ids) for ids in found.ids]
    assert (found.n_parts, len(found)) == (3, 2)
    assert (cut.n_texts, cut.cut_texts) == (6, 2)


# ---- questions and answers


def test_answer_is_its_tokens_behind_the_question(tokenizer: Tokenizer) -> None:
    """At the beginning, at the end, within a word, and nowhere."""
    text = "anna smith lives in paris."
    run = run_of("spans", data={"text": "q", "text_pair": "c"})
    rows = rows_of([{"q": "who is", "c": text}] * 5)
    places = [(0, 10), (20, 25), (20, 26), (12, 13), (0, 0)]
    found, _ = encoded(run, rows, places, tokenizer)
    assert found.ids[0] == ids_of("[CLS] who is [SEP] anna smith lives in paris . [SEP]")
    assert found.types[0] == [0] * 4 + [1] * 7
    assert found.targets == [(4, 5), (8, 8), (8, 9), (6, 6), (0, 0)]
    assert found.starts == [-4] * 5
    assert found.texts == [0, 1, 2, 3, 4]


def test_answer_in_windows_is_where_it_is_whole(tokenizer: Tokenizer) -> None:
    text = "anna smith lives in paris the film"
    data = {"text": "q", "text_pair": "c", "max_length": 8, "long_text": "windows"}
    run = run_of("spans", data={**data, "window_overlap": 2})
    rows = rows_of([{"q": "who", "c": text}] * 3)
    smith_lives, paris, most = (5, 16), (20, 25), (0, 25)
    found, cut = encoded(run, rows, [smith_lives, paris, most], tokenizer)
    assert found.ids[:3] == [
        ids_of(f"[CLS] who [SEP] {part} [SEP]")
        for part in ("anna smith lives in", "lives in paris the", "paris the film")
    ]
    assert found.targets == [
        (4, 5), (0, 0), (0, 0),
        (0, 0), (5, 5), (3, 3),
        LOST, LOST, LOST,  # of which no window has all
    ]  # fmt: skip
    assert found.starts == [-3, -1, 1] * 3
    assert found.windows == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert str(cut) == "11.0 tokens a text, none cut"


def test_answer_that_is_cut_away_is_lost(tokenizer: Tokenizer) -> None:
    rows = rows_of([{"text": "who", "c": "anna lives in paris the film"}] * 3)
    run = run_of("spans", data={"text_pair": "c", "max_length": 8})
    found, cut = encoded(run, rows, [(0, 4), (14, 23), (0, 0)], tokenizer)
    assert found.ids == [ids_of("[CLS] who [SEP] anna lives in paris [SEP]")] * 3
    assert found.targets == [(3, 3), LOST, (0, 0)]
    assert cut == Cut(n_texts=3, n_tokens=30, cut_texts=3, cut_tokens=6)


def test_question_without_any_text_has_no_answer(tokenizer: Tokenizer) -> None:
    run = run_of("spans", data={"text_pair": "c", "long_text": "windows"})
    found, _ = encoded(run, [row_of(text="who", c="")], [(0, 0)], tokenizer)
    assert found.ids == [ids_of("[CLS] who [SEP] [SEP]")]
    assert (found.targets, found.types) == ([(0, 0)], [[0, 0, 0, 1]])


def test_long_question_and_long_text_are_named_by_their_rows(tokenizer: Tokenizer) -> None:
    run = run_of("spans", data={"text_pair": "c", "max_length": 9, "long_text": "error"})
    good = {"text": "who is anna", "c": "anna is odd"}
    encoded(run, rows_of([good]), [(0, 0)], tokenizer)
    rows = rows_of([good, {**good, "c": "anna is in paris"}])
    assert refusal(run, rows, [(0, 0)] * 2, tokenizer) == (
        "row 2: question and text have 10 tokens, expected at most 9; raise data.max_length, or "
        "set data.long_text to 'truncate' or 'windows'"
    )
    rows = rows_of([good, {**good, "text": "who is the smith"}])
    assert refusal(run, rows, [(0, 0)] * 2, tokenizer) == (
        "row 2: the question has 4 tokens, expected at most 3, half of what data.max_length "
        "leaves; shorten it, or raise data.max_length"
    )


def test_token_span_by_hand() -> None:
    offsets = [(0, 4), (5, 8), (8, 10), (11, 12)]
    assert token_span(offsets, 0, 4) == (0, 0)
    assert token_span(offsets, 5, 10) == (1, 2)
    assert token_span(offsets, 6, 9) == (1, 2)  # within words
    assert token_span(offsets, 4, 12) == (1, 3)  # the blank before is no part of it
    assert token_span(offsets, 0, 0) == NOWHERE
    assert token_span(offsets, 10, 11) == LOST  # a blank alone
    assert token_span([], 3, 4) == LOST


def test_windows_of_an_answer_by_hand() -> None:
    spans = [(0, 4), (3, 7)]
    assert windowed((3, 3), spans) == [(3, 3), (0, 0)]
    assert windowed((4, 6), spans) == [NOWHERE, (1, 3)]
    assert windowed((3, 4), spans) == [NOWHERE, (0, 1)]
    assert windowed((2, 4), spans) == [LOST, LOST]
    assert windowed(NOWHERE, spans) == [NOWHERE, NOWHERE]
    assert windowed(LOST, spans) == [LOST, LOST]


@given(
    data=st.data(),
    max_length=st.integers(8, 14),
    long_text=st.sampled_from(["windows", "truncate"]),
)
def test_tokens_of_an_answer_spell_it_in_every_window_that_has_it(
    tokenizer: Tokenizer, data: st.DataObject, max_length: int, long_text: str
) -> None:
    words = data.draw(st.lists(st.sampled_from(["film", "films", "goodly", "anna"]), max_size=20))
    question = data.draw(st.lists(st.sampled_from(PLAIN), max_size=(max_length - 3) // 2))
    text, answer = " ".join(words), (0, 0)
    if words and data.draw(st.booleans()):
        first = data.draw(st.integers(0, len(words) - 1))
        last = data.draw(st.integers(first, min(len(words), first + 4) - 1))
        start = len(" ".join([*words[:first], ""]))
        answer = (start, start + len(" ".join(words[first : last + 1])))
    run = run_of("spans", data={"text_pair": "c", "max_length": max_length, "long_text": long_text})
    row = row_of(text=" ".join(question), c=text)
    found, _ = encoded(run, [row], [answer], tokenizer)
    wanted = tokenizer.ids([text[slice(*answer)]])[0]
    (whole,) = tokenizer.ids([text])
    holds = []
    for ids, target, start, types in zip(
        found.ids, found.targets, found.starts, found.types, strict=True
    ):
        n_first = types.index(1)
        inner = ids[n_first:-1]
        assert inner == whole[start + n_first : start + n_first + len(inner)]
        holds.append(target not in (LOST, (0, 0)))
        if holds[-1]:
            assert ids[target[0] : target[1] + 1] == wanted
    if answer == (0, 0):
        assert set(found.targets) == {(0, 0)}
    elif not any(holds):
        assert set(found.targets) == {LOST}
    if long_text == "windows" and len(wanted) <= overlaps(run)(max_length - 3 - len(question)):
        assert any(holds) == (answer != (0, 0))  # what two windows share is whole in one of them


@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=3), n_question=st.integers(0, 4))
def test_windows_of_questions_are_those_of_the_answerer(
    tokenizer: Tokenizer, counts: list[int], n_question: int
) -> None:
    question = " ".join(PLAIN[:n_question])
    contexts = [" ".join(PLAIN[i % len(PLAIN)] for i in range(count)) for count in counts]
    for long_text in ("windows", "truncate"):
        run = run_of("spans", data={"text_pair": "c", "max_length": 12, "long_text": long_text})
        rows = rows_of([{"text": question, "c": context} for context in contexts])
        found, _ = encoded(run, rows, [(0, 0)] * len(rows), tokenizer)
        answerer = object.__new__(QuestionAnswerer)  # of which no network is needed
        answerer.settings, answerer.tokenizer = settings_of(run), tokenizer
        readings = answerer._readings([question] * len(rows), contexts)
        assert [list(piece.ids) for each in readings for piece in each.pieces] == found.ids
        spans = [start for each in readings for start, _ in each.spans]
        assert [start + n_question + 2 for start in found.starts] == spans


# ---- running text


def lines(*documents: str) -> list[Row]:
    """The lines of a text file; those of a document between slashes."""
    return rows_of([
        {"text": line, "document": number}
        for number, document in enumerate(documents)
        for line in document.split("/")
    ])  # fmt: skip


def of_one_file(rows: list[Row]) -> list[Row]:
    return [row._replace(place=Place("a.txt", number)) for number, row in enumerate(rows, start=1)]


def test_lines_of_a_file_run_on_and_other_rows_begin_a_block(tokenizer: Tokenizer) -> None:
    run = run_of("masked_lm", data={"max_length": 5})
    found, cut = encoded(run, of_one_file(lines("good fine", "bad/poor odd")), [0] * 3, tokenizer)
    assert found.ids == [ids_of("[CLS] good fine bad [SEP]"), ids_of("[CLS] poor odd [SEP]")]
    assert (found.types, found.targets) == ([[0] * 5, [0] * 4], [0, 0])
    assert (cut.n_texts, cut.n_tokens) == (3, 5)
    by_row = rows_of([{"text": "good fine"}, {"text": ""}, {"text": "bad poor odd film"}])
    found, _ = encoded(run, by_row, [0] * 3, tokenizer)
    assert found.ids == [
        ids_of(f"[CLS] {text} [SEP]") for text in ("good fine", "bad poor odd", "film")
    ]
    files = [*of_one_file(lines("good")), *lines("fine")]  # of another file
    found, _ = encoded(run, files, [0] * 2, tokenizer)
    assert found.ids == [ids_of("[CLS] good [SEP]"), ids_of("[CLS] fine [SEP]")]


@given(
    texts=st.lists(
        st.lists(st.sampled_from([*PLAIN, "/"]), max_size=14).map(" ".join), min_size=1, max_size=4
    ),
    max_length=st.integers(3, 9),
    is_file=st.booleans(),
)
def test_blocks_hold_every_token_once_in_order(
    tokenizer: Tokenizer, texts: list[str], max_length: int, is_file: bool
) -> None:
    rows = lines(*texts)
    if is_file:
        rows = of_one_file(rows)
    run = run_of("masked_lm", data={"max_length": max_length})
    found, _ = encoded(run, rows, [0] * len(rows), tokenizer)
    tokens = [token for ids in found.ids for token in ids[1:-1]]
    assert tokens == [token for row in rows for token in ids_of(row.value("text"))]
    assert all(ids[0] == CLS and ids[-1] == SEP and 2 < len(ids) <= max_length for ids in found.ids)
    if is_file:
        assert all(len(ids) == max_length for ids in found.ids[:-1])


def test_pairs_of_sentences_are_told_apart_and_drawn_alike_for_a_seed(tokenizer: Tokenizer) -> None:
    rows = of_one_file(lines("good fine/bad poor/odd film", "who is/anna smith/lives in/paris"))
    found = {}
    for seed in (0, 0, 1):
        run = run_of(
            "masked_lm", data={"max_length": 9}, masking={"next_sentence": True},
            training={"seed": seed},
        )  # fmt: skip
        examples, cut = encoded(run, rows, [0] * len(rows), tokenizer)
        assert found.setdefault(seed, examples.ids) == examples.ids
        assert cut.n_texts == 7
    assert found[0] != found[1]
    first = set(ids_of("good fine bad poor odd film"))
    assert set(examples.targets) <= {0, 1}
    for ids, types, target in zip(examples.ids, examples.types, examples.targets, strict=True):
        middle = types.index(1)
        assert (ids[0], ids[middle - 1], ids[-1]) == (CLS, SEP, SEP)
        assert len(ids) == len(types) <= 9
        sides = [set(part) <= first for part in (ids[1 : middle - 1], ids[middle:-1])]
        assert (sides[0] != sides[1]) == bool(target)  # a random one is of the other document


def test_documents_are_told_by_empty_lines_where_sentences_follow(tokenizer: Tokenizer) -> None:
    run = run_of("masked_lm", masking={"next_sentence": True})
    examples, _ = encoded(run, of_one_file(lines("good/fine", "bad/poor")), [0] * 4, tokenizer)
    assert len(examples) >= 2  # which takes two documents


# ---- many


def test_rows_beyond_a_chunk_keep_their_targets(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_CHUNK", 2)
    rows = rows_of([{"text": word} for word in WORDS[:5]])
    found, cut = encoded(run_of("multiclass"), rows, list(range(5)), tokenizer)
    assert found.ids == [ids_of(f"[CLS] {word} [SEP]") for word in WORDS[:5]]
    assert found.targets == list(range(5))
    assert cut.n_texts == 5


@pytest.mark.data
def test_real_tags_come_back_from_their_windows(data: Path, minilm: Path) -> None:
    found = read_rows(str(data / "wnut17/wnut17train.conll"), Dialect(), limit=300)
    rows = [row for row in found if isinstance(row, Row)]
    names = sorted({tag for row in rows for tag in row.value("tags")})
    tags = [[names.index(tag) for tag in row.value("tags")] for row in rows]
    run = run_of("tokens", data={"max_length": 16, "long_text": "windows"})
    tokenizer = Tokenizer.from_pretrained(minilm)
    examples, _ = encode_rows(run, rows, tags, tokenizer, "train")
    assert len(examples) > len(rows)
    words = tokenizer.encode_words([row.value("tokens") for row in rows])
    for row, windows in enumerate(examples.windows):
        merged: dict[int, int] = {}
        for window in windows:
            start = examples.starts[window]
            merged |= dict(enumerate(examples.targets[window][1:-1], start=start))
        seen = {word for word in words[row].word_ids if word is not None}  # some give no token
        assert [tag for _, tag in sorted(merged.items()) if tag != IGNORED] == [
            tag for word, tag in enumerate(tags[row]) if word in seen
        ]
