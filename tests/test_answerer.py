"""Answers found in contexts: by hand, against the head, in windows, and none at all."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import POSITIONS, hand_made, save_small, small_config, small_tokenizer
from strategies import randomised, texts, without_type_checks

from minibert import QuestionAnswerer
from minibert.errors import ConfigError, TextError
from minibert.heads import BertForQuestionAnswering
from minibert.prediction import answerer as module
from minibert.prediction.settings import PredictionSettings
from minibert.prediction.windows import best_spans
from minibert.tokenizer import Tokenizer

ASKED = PredictionSettings(task="spans", max_length=POSITIONS, long_text="windows")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def by_hand(tokenizer: Tokenizer, strength: float = 8.0, **values: Any) -> QuestionAnswerer:
    """Answers begin at "anna" or "paris", and end at "smith" or "paris"."""
    model = hand_made(
        BertForQuestionAnswering, {"anna": 1, "smith": 2, "paris": 3}, strength=strength
    )
    with torch.no_grad():  # "paris" is both, a little less
        third = model.bert.embeddings.token.weight[tokenizer.token_to_id("paris") or 0]
        model.spans.weight += third * strength / 16
    return QuestionAnswerer(
        model,
        tokenizer,
        PredictionSettings(
            **{"task": "spans", "max_length": POSITIONS, "long_text": "windows", **values}
        ),
    )


@pytest.fixture(scope="module")
def random(tokenizer: Tokenizer) -> QuestionAnswerer:
    """A random network in float64, which reads 14 tokens at once."""
    model = randomised(BertForQuestionAnswering(small_config(initializer_range=0.8)), seed=4)
    asked = PredictionSettings(task="spans", max_length=14, long_text="windows", window_overlap=4)
    return QuestionAnswerer(model.double(), tokenizer, asked)


# ---- by hand


def test_answer_by_hand(tokenizer: Tokenizer) -> None:
    context = "The film is Anna Smith, in Paris."
    found = by_hand(tokenizer).answer("who is in the film?", context, top_k=3)
    assert (found.answer, found.start, found.end) == ("Anna Smith", 12, 22)
    assert context[found.start : found.end] == found.answer
    # Nine tokens: one of logit 8, one of 4, seven of 0, for the start and for the end alike.
    total = math.exp(8) + math.exp(4) + 7
    assert found.score == pytest.approx((math.exp(8) / total) ** 2, rel=1e-5)
    assert found.candidates[0] == found[:4]
    assert [each.answer for each in found.candidates] == [
        "Anna Smith",
        "Anna Smith, in Paris",
        "The film is Anna Smith",  # as good as "Paris", and earlier
    ]
    assert [each.score for each in found.candidates[1:]] == [
        pytest.approx(math.exp(12) / total**2, rel=1e-5),
        pytest.approx(math.exp(8) / total**2, rel=1e-5),
    ]
    assert (found.truncated, found.windows) == (False, 1)


def test_answer_is_not_looked_for_in_the_question(tokenizer: Tokenizer) -> None:
    found = by_hand(tokenizer).answer("is anna smith in?", "the film paris")
    assert found.answer == "paris"


def test_answer_has_no_more_tokens_than_it_may(tokenizer: Tokenizer) -> None:
    answerer = by_hand(tokenizer)
    context = "anna in the film smith"
    assert answerer.answer("who ?", context).answer == context
    assert answerer.answer("who ?", context, max_answer_tokens=4).answer != context


def test_answer_is_of_whole_words(tokenizer: Tokenizer) -> None:
    found = by_hand(tokenizer).answer("who ?", "the annas smithly .", top_k=5)
    assert found.answer == "annas smithly"
    assert found.score == pytest.approx((math.exp(8) / (math.exp(8) + 5)) ** 2, rel=1e-5)
    answers = [each.answer for each in found.candidates]
    assert len(answers) == len(set(answers)) == 5


def test_answer_that_begins_inside_a_word_is_given_from_its_beginning(
    tokenizer: Tokenizer,
) -> None:
    model = hand_made(BertForQuestionAnswering, {"##s": 1, "smith": 2})
    found = QuestionAnswerer(model, tokenizer, ASKED).answer("who ?", "in the films smith .")
    assert (found.answer, found.start, found.end) == ("films smith", 7, 18)


def test_no_answer_wins_where_it_may(tokenizer: Tokenizer) -> None:
    answerer = by_hand(tokenizer)
    found = answerer.answer("who ?", "the film", no_answer=True, top_k=9)
    assert found.candidates[0].answer == ""
    assert found[:4] == ("", pytest.approx(1 / 9), 0, 0)  # three tokens to choose from, [CLS] one
    sure = answerer.answer("who ?", "anna smith", no_answer=True, top_k=9)
    assert sure.answer == "anna smith"
    assert "" in [each.answer for each in sure.candidates]
    assert "" not in [each.answer for each in answerer.answer("who ?", "anna", top_k=9).candidates]


def test_answers_are_as_the_settings_say_unless_asked_otherwise(tokenizer: Tokenizer) -> None:
    trained = by_hand(tokenizer, no_answer=True, max_answer_tokens=4)
    assert trained.answer("who ?", "the film").answer == ""
    assert trained.answer("who ?", "the film", no_answer=False).answer == "the"
    context = "anna in the film smith"
    assert trained.answer("who ?", context).answer != context
    assert trained.answer("who ?", context, max_answer_tokens=5).answer == context
    (streamed,) = trained.stream([("who ?", "the film")])
    assert streamed.answer == ""


def test_temperature_divides_the_logits(tokenizer: Tokenizer) -> None:
    found = by_hand(tokenizer, temperature=2.0).answer("who ?", "anna smith in")
    total = math.exp(4) + 2
    assert found.score == pytest.approx((math.exp(4) / total) ** 2, rel=1e-5)
    answerer = by_hand(tokenizer, temperature=2.0)
    with torch.no_grad():  # [CLS] is as "anna", a start of logit 8
        table = answerer.model.bert.embeddings.token.weight
        table[tokenizer.cls_id] = table[tokenizer.token_to_id("anna") or 0]
    none = answerer.answer("who ?", "in", no_answer=True)
    assert none.score == pytest.approx(math.exp(4) / (math.exp(4) + 1) / 2, rel=1e-5)


def test_context_of_nothing_has_no_answer(tokenizer: Tokenizer) -> None:
    answerer = by_hand(tokenizer)
    assert answerer.answer("who ?", " ") == ("", 0.0, 0, 0, (), False, 1)
    found = answerer.answer("who ?", "", no_answer=True)
    assert (found.answer, found.score) == ("", 1.0)
    assert answerer.answer([], []) == []
    assert answerer.answer("", "anna smith").answer == "anna smith"


# ---- against the head


@settings(max_examples=25)
@given(texts(), st.lists(texts(), max_size=5).map(" ".join), st.booleans())
def test_answers_are_the_best_spans_of_the_heads_logits(
    random: QuestionAnswerer, question: str, context: str, no_answer: bool
) -> None:
    if len(random.tokenizer.ids([question])[0]) > 5:
        question = "who ?"
    windows = random.tokenizer.windows(
        [context], max_length=14, overlap=_overlap(random, question), pairs=[question], offsets=True
    )[0]
    logits, nulls, spans, at = [], [], [], 0
    for window in windows:
        out = random.model(**random.tokenizer.pad([window]))
        both = torch.stack([out.start_logits[0], out.end_logits[0]], dim=1).detach()
        first = window.token_type_ids.index(1)
        logits.append(both[first:-1])
        nulls.append(both[0])
        spans.append((at, at + len(both) - 1 - first))
        at = spans[-1][1] - _overlap(random, question)
    (found,) = random.logits([question], [context])
    assert found.spans == spans
    for ours, expected in zip(found.windows, logits, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.nulls, torch.stack(nulls), atol=1e-12, rtol=0)
    best = best_spans(
        logits, spans, torch.stack(nulls) if no_answer else None, max_tokens=3, top_k=1
    )
    answer = random.answer(question, context, max_answer_tokens=3, no_answer=no_answer)
    scores = [span.probability for span in best.spans]
    assert answer.score == pytest.approx(max([*scores, best.no_answer]), abs=1e-12)
    assert answer.answer == context[answer.start : answer.end]
    assert answer.windows == len(windows)


def _overlap(answerer: QuestionAnswerer, question: str) -> int:
    return answerer.settings.overlap(11 - len(answerer.tokenizer.ids([question])[0]))


def test_stream_gives_what_the_list_gives(random: QuestionAnswerer) -> None:
    questions = ["who ?", "where is the film ?", "who ?"] * 3
    contexts = ["anna lives in paris", "the film is good , bad , poor and fine . anna"] * 4 + [""]
    found = random.answer(questions, contexts, top_k=2, no_answer=True)
    streamed = random.stream(
        zip(questions, contexts, strict=True), top_k=2, no_answer=True, chunk_texts=4
    )
    for one, other in zip(streamed, found, strict=True):
        assert one[:1] + one[2:4] == other[:1] + other[2:4]
        assert one.score == pytest.approx(other.score, abs=1e-12)
        assert len(one.candidates) == len(other.candidates)


# ---- long contexts


def test_answer_is_found_wherever_it_is_in_a_long_context(tokenizer: Tokenizer) -> None:
    answerer = by_hand(tokenizer, max_length=12, window_overlap=3)
    for place in range(30):
        words = ["the film is in"] * 8
        words.insert(place // 4, "anna smith")
        context = " ".join(words)
        found = answerer.answer("who ?", context)
        assert found.answer == "anna smith"
        assert context[found.start : found.end] == "anna smith"
        assert found.windows > 4
        assert not found.truncated


def test_window_without_the_answer_does_not_win(tokenizer: Tokenizer) -> None:
    """Within its own window "paris" would be nearly certain."""
    answerer = by_hand(tokenizer, max_length=12, window_overlap=0)
    context = "the film is anna smith in the film is in the paris the film is in"
    found = answerer.answer("who ?", context)
    assert found.answer == "anna smith"
    assert found.score > 0.9


def test_context_behind_the_cut_is_told(tokenizer: Tokenizer) -> None:
    answerer = by_hand(tokenizer, max_length=10, long_text="truncate")
    found = answerer.answer(["who ?", "who ?"], ["in the film is in anna", "anna"])
    assert "anna" not in found[0].answer
    assert [each.truncated for each in found] == [True, False]
    with pytest.raises(TextError, match=r"^context 1 has 11 tokens, expected at most 10"):
        by_hand(tokenizer, max_length=10, long_text="error").answer(
            ["who ?", "who ?"], ["anna", "in the film is in anna"]
        )


def test_question_that_leaves_no_room_is_refused(tokenizer: Tokenizer) -> None:
    answerer = by_hand(tokenizer, max_length=13)
    assert answerer.answer("who is in the", "anna smith").answer == "anna smith"
    with pytest.raises(TextError, match=r"^question 1 has 6 tokens, expected at most 5, half of"):
        answerer.answer(["who ?", "who is in the film ?"], ["anna", "anna"])


# ---- refusals, folders


@pytest.mark.parametrize("name", ["top_k", "max_answer_tokens"])
def test_counts_below_one_are_refused(tokenizer: Tokenizer, name: str) -> None:
    with pytest.raises(ValueError, match=f"got {name} 0, expected at least 1"):
        by_hand(tokenizer).answer("who ?", "anna", **{name: 0})  # type: ignore[call-overload]


def test_settings_and_networks_that_do_not_fit_are_refused(tokenizer: Tokenizer) -> None:
    model = hand_made(BertForQuestionAnswering, {})
    with pytest.raises(ConfigError, match="task is 'tokens', expected spans"):
        QuestionAnswerer(model, tokenizer, PredictionSettings(task="tokens"))
    with pytest.raises(ConfigError, match="max_length is 7, expected 8 at least"):
        QuestionAnswerer(model, tokenizer, PredictionSettings(task="spans", max_length=7))
    one_type = BertForQuestionAnswering(small_config(type_vocab_size=1))
    with pytest.raises(ConfigError, match="type_vocab_size is 1, expected 2"):
        QuestionAnswerer(one_type, tokenizer, ASKED)


def test_stream_of_texts_alone_is_refused(tokenizer: Tokenizer) -> None:
    model = hand_made(BertForQuestionAnswering, {})
    answerer = without_type_checks(module).QuestionAnswerer(model, tokenizer, ASKED)
    with pytest.raises(TypeError, match="got texts alone, expected tuples of a question and its"):
        next(answerer.stream(["who ?"]))


def test_answerer_of_a_folder(tmp_path: Path) -> None:
    model = hand_made(BertForQuestionAnswering, {"anna": 1, "smith": 2})
    answerer = QuestionAnswerer.from_pretrained(save_small(model, tmp_path))
    assert answerer.settings == ASKED
    assert answerer.answer("who ?", "the anna smith").answer == "anna smith"
