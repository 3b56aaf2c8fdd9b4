"""Tags of words and their entities: by hand, against the head, and across the edges of windows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import POSITIONS, hand_made, save_small, small_config, small_tokenizer
from strategies import randomised, texts, without_type_checks

from minibert import TokenTagger
from minibert.errors import ConfigError, TextError
from minibert.heads import BertForTokenClassification
from minibert.prediction import tagger as module
from minibert.prediction.settings import PredictionSettings
from minibert.prediction.windows import clearest_windows
from minibert.tokenizer import Tokenizer, window_spans

LABELS = ("O", "B-PER", "I-PER", "B-LOC")
TAGS = {"anna": 2, "smith": 3, "paris": 4}  # vector k + 1 is label k
ASKED = PredictionSettings(task="tokens", max_length=POSITIONS, long_text="windows")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def by_hand(tokenizer: Tokenizer, labels: tuple[str, ...] = LABELS, **values: Any) -> TokenTagger:
    """A tagger of known words; the others are of label 0, which looks for vector 1, theirs here."""
    words = dict.fromkeys(("lives", "in", ".", ",", "is", "the", "##s", "##ly"), 1) | TAGS
    model = hand_made(BertForTokenClassification, words, labels=labels)
    asked = PredictionSettings(
        **{"task": "tokens", "max_length": POSITIONS, "long_text": "windows", **values}
    )
    return TokenTagger(model, tokenizer, asked)


@pytest.fixture(scope="module")
def random(tokenizer: Tokenizer) -> TokenTagger:
    """A random network in float64, and windows of six tokens."""
    model = randomised(
        BertForTokenClassification(small_config(LABELS, initializer_range=0.8)), seed=2
    )
    asked = PredictionSettings(task="tokens", max_length=8, long_text="windows", window_overlap=3)
    return TokenTagger(model.double(), tokenizer, asked)


# ---- by hand


def test_words_tags_and_entities_by_hand(tokenizer: Tokenizer) -> None:
    text = "Anna Smith, lives  in Paris."
    found = by_hand(tokenizer).tag(text)
    assert [word.word for word in found.words] == "Anna Smith , lives in Paris .".split()
    assert found.tags == ["B-PER", "I-PER", "O", "O", "O", "B-LOC", "O"]
    likely = float(torch.tensor([8.0, 0, 0, 0]).double().softmax(0)[0])
    assert all(word.probability == pytest.approx(likely, abs=1e-6) for word in found.words)
    assert all(text[word.start : word.end] == word.word for word in found.words)
    assert found.entities == (
        ("PER", "Anna Smith", pytest.approx(likely, abs=1e-6), 0, 10),
        ("LOC", "Paris", pytest.approx(likely, abs=1e-6), 22, 27),
    )
    assert (found.truncated, found.windows) == (False, 1)


def test_probability_of_an_entity_is_the_mean_of_its_words(tokenizer: Tokenizer) -> None:
    tagger = by_hand(tokenizer)
    with torch.no_grad():
        tagger.model.classifier.weight[2] /= 8  # of I-PER
    words = tagger.tag("anna smith").words
    assert words[0].probability > 0.99 > words[1].probability
    (entity,) = tagger.tag("anna smith").entities
    assert entity.probability == pytest.approx((words[0].probability + words[1].probability) / 2)


def test_word_of_several_tokens_has_the_tag_of_the_first(tokenizer: Tokenizer) -> None:
    found = by_hand(tokenizer).tag("annas lives")
    assert [word[:2] for word in found.words] == [("annas", "B-PER"), ("lives", "O")]
    assert found.entities[0][1::2] == ("annas", 0)


def test_words_that_are_given_stay_words(tokenizer: Tokenizer) -> None:
    words = ["Anna", "Paris.", "\u200b", "smith"]
    found = by_hand(tokenizer).tag([words, "Paris."])
    assert [word.word for word in found[0].words] == words
    assert found[0].tags == ["B-PER", "B-LOC", "O", "I-PER"]
    assert found[0].words[2].probability == 0  # the tokenizer makes nothing of it
    assert found[0].words[3][3:] == (14, 19)  # in "Anna Paris. \u200b smith"
    assert [entity.text for entity in found[0].entities] == ["Anna", "Paris.", "smith"]
    assert found[1].tags == ["B-LOC", "O"]


def test_tags_of_no_scheme_have_no_entities(tokenizer: Tokenizer) -> None:
    tagger = by_hand(tokenizer, ("NN", "VB", "JJ", "DT"))
    assert tagger.tag("anna paris").tags == ["VB", "DT"]
    assert tagger.tag("anna paris").entities == ()
    unseen = tagger.tag([["\u200b"]])[0].words[0]
    assert (unseen.tag, unseen.probability) == ("NN", 0)


def test_temperature_divides_the_logits(tokenizer: Tokenizer) -> None:
    (word,) = by_hand(tokenizer, temperature=2.0).tag("anna").words
    expected = float(torch.tensor([4.0, 0, 0, 0]).double().softmax(0)[0])
    assert word.probability == pytest.approx(expected, abs=1e-6)


def test_empty_texts_have_no_words(tokenizer: Tokenizer) -> None:
    tagger = by_hand(tokenizer)
    assert tagger.tag("") == ((), (), False, 1)
    assert tagger.tag([[], " "]) == [((), (), False, 1)] * 2
    assert tagger.tag([]) == []
    assert tagger.logits([""])[0].logits.shape == (0, 4)


# ---- against the head


@settings(max_examples=25)
@given(st.lists(texts() | st.lists(texts(), max_size=5), min_size=1, max_size=4))
def test_logits_of_words_are_those_of_the_head(
    random: TokenTagger, batch: list[str | list[str]]
) -> None:
    found = random.logits(batch, batch_tokens=20)
    for text, words in zip(batch, found, strict=True):
        if isinstance(text, str):
            (whole,) = random.tokenizer.encode([text], offsets=True)
        else:
            (whole,) = random.tokenizer.encode_words([text])
        ids, word_ids = whole.ids[1:-1], whole.word_ids[1:-1]
        spans = window_spans(len(ids), 6, 3)
        chosen = clearest_windows(spans).tolist()
        assert words.words == list(dict.fromkeys(word_ids))
        for number, logits in zip(words.words, words.logits, strict=True):
            place = word_ids.index(number)
            start, stop = spans[chosen[place]]
            window = torch.tensor([[whole.ids[0], *ids[start:stop], whole.ids[-1]]])
            expected = random.model(window).logits[0, 1 + place - start]
            torch.testing.assert_close(logits, expected, atol=1e-12, rtol=0)


def test_stream_gives_what_the_list_gives(random: TokenTagger) -> None:
    batch: list[str | list[str]] = ["anna lives in paris", ["anna", "smith"], "", "the film"] * 3
    for one, other in zip(
        random.stream(iter(batch), chunk_texts=5, batch_tokens=9), random.tag(batch), strict=True
    ):
        assert one.tags == other.tags
        assert [word.probability for word in one.words] == pytest.approx(
            [word.probability for word in other.words], abs=1e-12
        )


# ---- long texts


def test_every_word_of_a_long_text_has_a_tag(tokenizer: Tokenizer) -> None:
    text = " ".join(["anna smith lives in paris ."] * 20)
    whole = by_hand(tokenizer, max_length=9, window_overlap=2).tag(text)
    assert whole.tags == ["B-PER", "I-PER", "O", "O", "B-LOC", "O"] * 20
    assert (whole.truncated, whole.windows) == (False, 24)
    assert [entity.text for entity in whole.entities] == ["anna smith", "paris"] * 20


def test_words_behind_the_cut_are_told(tokenizer: Tokenizer) -> None:
    tagger = by_hand(tokenizer, max_length=4, long_text="truncate")
    found = tagger.tag(["anna in paris", ["anna", "in", "paris"], ["anna", "in"]])
    assert found[0].tags == ["B-PER", "O"]
    assert found[1].tags == ["B-PER", "O", "O"]
    assert found[1].words[2].probability == 0
    assert [each.truncated for each in found] == [True, True, False]


def test_long_text_is_refused_where_that_is_asked(tokenizer: Tokenizer) -> None:
    tagger = by_hand(tokenizer, max_length=4, long_text="error")
    with pytest.raises(TextError, match="text 1 has 5 tokens, expected at most 4"):
        tagger.tag(["anna", "anna in paris"])


# ---- refusals, folders


def test_what_is_neither_text_nor_words_is_refused(tokenizer: Tokenizer) -> None:
    plain = without_type_checks(module)
    model = hand_made(BertForTokenClassification, {}, labels=LABELS)
    tagger = plain.TokenTagger(model, tokenizer, ASKED)
    with pytest.raises(TypeError, match=r"texts\[1\] must be a list of str, got int"):
        tagger.tag(["a", 3])
    with pytest.raises(TypeError, match=r"texts\[1\]\[0\] must be str, got NoneType"):
        tagger.tag(["a", [None]])
    with pytest.raises(TextError, match=r"texts\[1\] has the lone surrogate"):
        tagger.tag([["a"], "\ud800"])
    with pytest.raises(ConfigError, match="task is 'spans', expected tokens"):
        TokenTagger(model, tokenizer, PredictionSettings(task="spans"))


def test_tagger_of_a_folder(tmp_path: Path) -> None:
    model = hand_made(BertForTokenClassification, TAGS, labels=LABELS)
    folder = save_small(model, tmp_path, ASKED)
    tagger = TokenTagger.from_pretrained(folder, dtype="float64")
    assert tagger.settings == ASKED
    assert tagger.tag("anna").tags == ["B-PER"]
