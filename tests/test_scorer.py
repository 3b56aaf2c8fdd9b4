"""Numbers of texts and pairs: the head's, the cosine of two texts, and the real checkpoint's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import POSITIONS, hand_made, save_small, small_config, small_tokenizer
from strategies import randomised, texts

from minibert import Embedder, TextScorer
from minibert.errors import CheckpointError, ConfigError, TextError
from minibert.heads import BertForSequenceClassification
from minibert.prediction.scorer import BiEncoder, CrossEncoder
from minibert.prediction.settings import PredictionSettings
from minibert.tokenizer import Tokenizer

WORDS = {"good": 1, "fine": 1}
NUMBER = PredictionSettings(task="regression", max_length=12)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def random(tokenizer: Tokenizer) -> TextScorer:
    config = small_config(("score",), initializer_range=0.8)
    model = randomised(BertForSequenceClassification(config), seed=5).double()
    return TextScorer(CrossEncoder(model, tokenizer, NUMBER))


@pytest.fixture(scope="module")
def alike(minilm: Path) -> TextScorer:
    return TextScorer.from_pretrained(minilm)


def by_hand(tokenizer: Tokenizer, **values: object) -> TextScorer:
    """A scorer that counts how much of a text is good."""
    model = hand_made(
        BertForSequenceClassification, WORDS, labels=("score",), attends=True, strength=80.0
    )
    asked = PredictionSettings(**{"task": "regression", "max_length": POSITIONS, **values})
    return TextScorer(CrossEncoder(model, tokenizer, asked))


# ---- a number by a head


def test_number_is_the_logit_of_the_head_whatever_its_size(tokenizer: Tokenizer) -> None:
    scorer = by_hand(tokenizer)
    found = scorer.score(["good good", "good the film is", "the film"])
    assert found[0].score > found[1].score > 1 > found[2].score == 0
    assert scorer.score("good good") == found[0]
    assert scorer.logits(["good good"]).tolist() == [[found[0].score]]
    assert scorer.score([]) == []
    assert scorer.logits([]).shape == (0, 1)


@settings(max_examples=15)
@given(st.lists(st.tuples(texts(), texts()), min_size=1, max_size=4), st.booleans())
def test_numbers_are_those_of_the_head(
    random: TextScorer, batch: list[tuple[str, str]], paired: bool
) -> None:
    assert isinstance(random.encoder, CrossEncoder)
    tokenizer, model = random.encoder.tokenizer, random.encoder.model
    firsts = [pair[0] for pair in batch]
    seconds = [pair[1] for pair in batch] if paired else None
    found = random.logits(firsts, seconds)
    for row, encoding in enumerate(tokenizer.encode(firsts, seconds, max_length=12)):
        expected = model(**tokenizer.pad([encoding])).logits[0]
        torch.testing.assert_close(found[row], expected, atol=1e-12, rtol=0)


def test_number_of_a_long_text_is_the_mean_of_its_windows(tokenizer: Tokenizer) -> None:
    scorer = by_hand(tokenizer, max_length=5, window_overlap=0, long_text="windows")
    parts = scorer.logits(["good fine film", "the film"])
    found = scorer.score("good fine film the film")
    assert found.score == pytest.approx(float(3 * parts[0] + 2 * parts[1]) / 5, rel=1e-6)
    assert (found.truncated, found.windows) == (False, 2)
    cut = by_hand(tokenizer, max_length=5).score("good fine film the film")
    assert cut == (pytest.approx(float(parts[0])), True, 1)


def test_stream_gives_what_the_list_gives(random: TextScorer) -> None:
    batch = ["good", "the film is bad", ""] * 3
    found = [each.score for each in random.stream(iter(batch), chunk_texts=4, batch_tokens=6)]
    assert found == pytest.approx([each.score for each in random.score(batch)], abs=1e-12)
    pairs = list(random.stream([("good", "film"), ("bad", "film")]))
    assert pairs == random.score(["good", "bad"], ["film", "film"])


# ---- two texts compared


def test_readme_pair_scores_as_the_readme_says(alike: TextScorer) -> None:
    found = alike.score("How do I sleep better?", "Ways to rest well at night")
    assert round(found.score, 2) == 0.69
    assert (found.truncated, found.windows) == (False, 1)


@settings(max_examples=5)
@given(st.lists(st.tuples(texts(), texts()), min_size=1, max_size=4))
def test_comparison_is_the_cosine_of_the_embeddings(
    alike: TextScorer, batch: list[tuple[str, str]]
) -> None:
    assert isinstance(alike.encoder, BiEncoder)
    embedder = alike.encoder.embedder
    firsts, seconds = [pair[0] for pair in batch], [pair[1] for pair in batch]
    a, b = embedder.encode(firsts), embedder.encode(seconds)
    expected = embedder.similarity(a, b).diagonal()
    found = [each.score for each in alike.score(firsts, seconds)]
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    assert list(alike.stream(batch)) == [
        (pytest.approx(score, abs=1e-6), False, 1) for score in found
    ]


def test_equal_texts_are_alike_and_nothing_is_more(alike: TextScorer) -> None:
    for text in ("a", "", "the same, and more of it"):
        assert 1 - 1e-6 <= alike.score(text, text).score <= 1
    assert alike.score([], []) == []
    assert alike.logits([], []).shape == (0, 1)


def test_comparison_follows_length_and_long_text_of_the_settings(minilm: Path) -> None:
    text, other = "one two three four five six seven eight", "one two three"
    cut = TextScorer.from_pretrained(
        minilm, settings=PredictionSettings(task="similarity", max_length=5)
    )
    assert cut.score(text, other) == (pytest.approx(1, abs=1e-6), True, 1)
    windows = TextScorer.from_pretrained(
        minilm,
        settings=PredictionSettings(task="contrastive", max_length=5, long_text="windows"),
    )
    found = windows.score(other, text)
    assert (found.truncated, found.windows) == (False, 3)
    assert found.score < 0.99
    refusing = TextScorer.from_pretrained(
        minilm, settings=PredictionSettings(task="similarity", max_length=5, long_text="error")
    )
    with pytest.raises(TextError, match=r"^second text 1 has 10 tokens, expected at most 5"):
        refusing.score(["one", "two"], [other, text])
    with pytest.raises(TextError, match=r"^text 1 has 10 tokens, expected at most 5"):
        refusing.score(["one", text], [other, text])


def test_one_text_cannot_be_compared(alike: TextScorer) -> None:
    with pytest.raises(TextError, match="the model compares two texts, got one"):
        alike.score("a")


# ---- refusals, folders


def test_settings_that_do_not_fit_are_refused(tokenizer: Tokenizer, minilm: Path) -> None:
    model = hand_made(BertForSequenceClassification, {})
    with pytest.raises(ConfigError, match="the network has 2 labels, expected 1 for task 'regress"):
        CrossEncoder(model, tokenizer, NUMBER)
    with pytest.raises(ConfigError, match="task is 'similarity', expected regression"):
        CrossEncoder(model, tokenizer, PredictionSettings(task="similarity"))
    with pytest.raises(ConfigError, match="task is 'regression', expected similarity or contrast"):
        BiEncoder(Embedder.from_pretrained(minilm), NUMBER)


def test_scorer_of_a_folder(tmp_path: Path) -> None:
    model = hand_made(BertForSequenceClassification, WORDS, labels=("score",), attends=True)
    folder = save_small(model, tmp_path)
    scorer = TextScorer.from_pretrained(folder)
    assert scorer.settings == PredictionSettings(task="regression", max_length=POSITIONS)
    assert scorer.score("good").score > 0
    PredictionSettings(task="regression", max_length=9, pairs=True).save(folder)
    with pytest.raises(TextError, match="takes pairs of texts, got texts alone"):
        TextScorer.from_pretrained(folder).score("good")


def test_encoder_alone_is_no_scorer_of_numbers(minilm: Path) -> None:
    with pytest.raises(CheckpointError, match="is a BertModel, expected a BertForSequenceClassif"):
        TextScorer.from_pretrained(minilm, settings=NUMBER)
