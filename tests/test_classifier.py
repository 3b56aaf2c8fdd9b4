"""Classes of texts: by hand, against the head's own logits, and long texts in windows."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import POSITIONS, hand_made, save_small, small_config, small_tokenizer
from strategies import randomised, texts
from torch import Tensor

from minibert import TextClassifier
from minibert.errors import ConfigError, TextError
from minibert.heads import BertForSequenceClassification
from minibert.prediction.settings import PredictionSettings
from minibert.tokenizer import Tokenizer

BAD, GOOD = {"bad": 1, "poor": 1}, {"good": 2, "fine": 2}
SENTIMENT = {**BAD, **GOOD}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def make(tokenizer: Tokenizer) -> Callable[..., TextClassifier]:
    """A classifier that is worked out by hand, for settings."""

    def made(
        task: str = "binary", labels: tuple[str, ...] = ("neg", "pos"), **values: Any
    ) -> TextClassifier:
        model = hand_made(
            BertForSequenceClassification, SENTIMENT | {"odd": 3}, labels=labels, attends=True
        )
        return TextClassifier(
            model, tokenizer, PredictionSettings(task=task, max_length=POSITIONS, **values)
        )

    return made


@pytest.fixture(scope="module")
def random(tokenizer: Tokenizer) -> TextClassifier:
    """A random network of three classes, in float64, where rounding hides nothing."""
    config = small_config(("a", "b", "c"), initializer_range=0.8)
    model = randomised(BertForSequenceClassification(config), seed=3).double()
    settings_ = PredictionSettings(task="multiclass", max_length=12)
    return TextClassifier(model, tokenizer, settings_)


def by_the_head(
    model: BertForSequenceClassification,
    tokenizer: Tokenizer,
    texts_: list[str],
    pairs: list[str] | None = None,
    max_length: int = 12,
) -> Tensor:
    """The head's logits of each text, run by itself."""
    encodings = tokenizer.encode(texts_, pairs, max_length=max_length)
    with torch.no_grad():
        return torch.cat([model(**tokenizer.pad([encoding])).logits for encoding in encodings])


# ---- by hand


def test_probability_by_hand(make: Callable[..., TextClassifier]) -> None:
    # [CLS] sees itself, "good" and [SEP]: LN(c + (2 c + g) / 3) of orthogonal c and g of ones, so
    # 5 c / 3 + g / 3 over the root of 26 / 9: four components are 6 / √26, four 4 / √26.
    found = make().classify("good")
    score = 8 / 8 * 4 * (math.tanh(6 / math.sqrt(26)) - math.tanh(4 / math.sqrt(26)))
    assert found.label == "pos"
    assert found.labels == ("pos",)
    assert found.probability == pytest.approx(1 / (1 + math.exp(-score)), abs=1e-6)
    assert found.probabilities == {
        "neg": pytest.approx(1 - found.probability),
        "pos": found.probability,
    }
    assert (found.truncated, found.windows) == (False, 1)


def test_labels_by_hand(make: Callable[..., TextClassifier]) -> None:
    found = make().classify(["good film", "poor film, bad", "fine good bad", "the film"])
    assert [each.label for each in found] == ["pos", "neg", "pos", "neg"]
    # Nothing speaks for either: one half each, which is not above the threshold.
    assert found[3].probabilities == {"neg": 0.5, "pos": 0.5}


def test_one_text_alone_gives_one_answer_and_none_gives_none(
    make: Callable[..., TextClassifier],
) -> None:
    classifier = make()
    assert classifier.classify(["good"]) == [classifier.classify("good")]
    assert classifier.classify([]) == []
    assert classifier.logits([]).shape == (0, 2)


def test_threshold_moves_the_decision(make: Callable[..., TextClassifier]) -> None:
    likely = make().classify("good bad good").probabilities["pos"]
    for threshold, label in ((likely - 1e-9, "pos"), (likely, "neg"), (1.0, "neg"), (0.0, "pos")):
        found = make(thresholds=(threshold,)).classify("good bad good")
        assert found.label == label
        assert found.probability == found.probabilities[label]
        assert found.probabilities["pos"] == likely


def test_temperature_divides_the_logits(make: Callable[..., TextClassifier]) -> None:
    classifier = make(temperature=4.0)
    logits = classifier.logits(["good film"])
    torch.testing.assert_close(logits, make().logits(["good film"]), atol=0, rtol=0)
    expected = (logits.double() / 4).softmax(dim=1)[0].tolist()
    found = classifier.classify("good film")
    assert list(found.probabilities.values()) == pytest.approx(expected, abs=1e-12)


def test_several_labels_are_decided_each_by_itself(make: Callable[..., TextClassifier]) -> None:
    classifier = make("multilabel", ("bad", "good", "odd"), thresholds=(0.5, 0.6, 0.5))
    found = classifier.classify(["good good bad", "odd bad", "the film"])
    logits = classifier.logits(["good good bad", "odd bad", "the film"]).double()
    for each, likely in zip(found, logits.sigmoid().tolist(), strict=True):
        assert list(each.probabilities.values()) == pytest.approx(likely, abs=1e-12)
        assert each.probability == max(each.probabilities.values())
    assert [each.labels for each in found] == [("good", "bad"), ("bad", "odd"), ()]
    assert [each.label for each in found] == ["good", "bad", "bad"]


def test_label_at_its_threshold_is_absent(make: Callable[..., TextClassifier]) -> None:
    likely = make("multilabel").classify("good").probabilities["pos"]
    assert make("multilabel", thresholds=(0.5, likely)).classify("good").labels == ()
    assert make("multilabel", thresholds=(0.5, likely - 1e-9)).classify("good").labels == ("pos",)


def test_one_logit_decides_between_two_names(make: Callable[..., TextClassifier]) -> None:
    classifier = make("binary", ("poor",))
    assert classifier.labels == ("not poor", "poor")
    found = classifier.classify(["bad", "the film"])
    assert [each.label for each in found] == ["poor", "not poor"]
    likely = classifier.logits(["bad"]).double().sigmoid().item()
    assert found[0].probabilities == {"not poor": pytest.approx(1 - likely), "poor": likely}


def test_one_logit_has_the_names_of_its_settings(tokenizer: Tokenizer) -> None:
    model = hand_made(BertForSequenceClassification, BAD, labels=("poor",), attends=True)
    asked = PredictionSettings(
        task="binary", max_length=POSITIONS, labels=("fine", "poor"), thresholds=(0.9,)
    )
    classifier = TextClassifier(model, tokenizer, asked)
    assert list(classifier.classify("bad").probabilities) == ["fine", "poor"]
    assert classifier.classify("bad").label == "fine"  # under the threshold


# ---- as the head


@settings(max_examples=20)
@given(st.lists(texts(), min_size=1, max_size=6), st.sampled_from([1, 9, 1000]))
def test_logits_are_those_of_the_head(
    random: TextClassifier, batch: list[str], batch_tokens: int
) -> None:
    found = random.logits(batch, batch_tokens=batch_tokens)
    expected = by_the_head(random.model, random.tokenizer, batch)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    results = random.classify(batch, batch_tokens=batch_tokens)
    for each, likely in zip(results, expected.double().softmax(dim=1), strict=True):
        assert list(each.probabilities.values()) == pytest.approx(likely.tolist(), abs=1e-6)
        assert each.probability == max(each.probabilities.values())


@settings(max_examples=20)
@given(st.lists(st.tuples(texts(), texts()), min_size=1, max_size=4))
def test_logits_of_pairs_are_those_of_the_head(
    random: TextClassifier, batch: list[tuple[str, str]]
) -> None:
    firsts, seconds = [pair[0] for pair in batch], [pair[1] for pair in batch]
    expected = by_the_head(random.model, random.tokenizer, firsts, seconds)
    torch.testing.assert_close(random.logits(firsts, seconds), expected, atol=1e-12, rtol=0)


def test_order_of_a_pair_matters(random: TextClassifier) -> None:
    one, other = random.classify("good film", "bad"), random.classify("bad", "good film")
    assert one.probabilities != other.probabilities


# ---- long texts


def long_classifier(tokenizer: Tokenizer, **values: Any) -> TextClassifier:
    model = hand_made(BertForSequenceClassification, SENTIMENT, attends=True)
    asked = PredictionSettings(task="binary", max_length=6, window_overlap=0, **values)
    return TextClassifier(model, tokenizer, asked)


LONG = "good film the film bad bad bad bad bad bad"  # windows of 4, 4 and 2 words


def test_long_text_is_cut_read_in_windows_or_refused(tokenizer: Tokenizer) -> None:
    cut = long_classifier(tokenizer).classify(LONG)
    assert (cut.label, cut.truncated, cut.windows) == ("pos", True, 1)
    whole = long_classifier(tokenizer, long_text="windows").classify(LONG)
    assert (whole.label, whole.truncated, whole.windows) == ("neg", False, 3)
    with pytest.raises(TextError, match="text 1 has 12 tokens, expected at most 6"):
        long_classifier(tokenizer, long_text="error").classify(["good", LONG])


def test_windows_are_merged_by_their_tokens(tokenizer: Tokenizer) -> None:
    classifier = long_classifier(tokenizer, long_text="windows")
    parts = ["good film the film", "bad bad bad bad", "bad bad"]
    logits = classifier.logits(parts)
    expected = (4 * logits[0] + 4 * logits[1] + 2 * logits[2]) / 10
    found = classifier.logits(["good", LONG, "bad"])
    torch.testing.assert_close(found[1], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[0], classifier.logits(["good"])[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[2], classifier.logits(["bad"])[0], atol=1e-6, rtol=0)


def test_windows_vote(tokenizer: Tokenizer) -> None:
    classifier = long_classifier(tokenizer, long_text="windows", merge_windows="vote")
    logits = classifier.logits(["good film the film", "bad bad bad bad", "bad bad"])
    expected = (4 * logits[1] + 2 * logits[2]) / 6  # of the two that agree
    torch.testing.assert_close(classifier.logits([LONG])[0], expected, atol=1e-6, rtol=0)
    # By a threshold that none of them reaches, all of them vote for the first label.
    never = long_classifier(tokenizer, long_text="windows", merge_windows="vote", thresholds=(1.0,))
    every = (4 * logits[0] + 4 * logits[1] + 2 * logits[2]) / 10
    torch.testing.assert_close(never.logits([LONG])[0], every, atol=1e-6, rtol=0)


@pytest.mark.parametrize("labels", [("bad",), ("bad", "good")])
def test_windows_vote_on_each_label(tokenizer: Tokenizer, labels: tuple[str, ...]) -> None:
    model = hand_made(BertForSequenceClassification, SENTIMENT, labels=labels, attends=True)
    asked = PredictionSettings(
        task="multilabel" if len(labels) == 2 else "binary", max_length=6, window_overlap=0,
        long_text="windows", merge_windows="vote", temperature=2.0,
    )  # fmt: skip
    classifier = TextClassifier(model, tokenizer, asked)
    logits = classifier.logits(["good film the film", "bad bad bad bad", "bad bad"])
    (found,) = classifier.logits([LONG])
    torch.testing.assert_close(found[0], (4 * logits[1, 0] + 2 * logits[2, 0]) / 6)
    if len(labels) == 2:  # two of three windows are for its absence
        torch.testing.assert_close(found[1], (4 * logits[1, 1] + 2 * logits[2, 1]) / 6)
    assert classifier.classify(LONG).windows == 3


def test_windows_vote_by_the_probability_that_is_given(tokenizer: Tokenizer) -> None:
    """Of logits divided by a high temperature none is sure enough, so all vote against."""
    model = hand_made(BertForSequenceClassification, SENTIMENT, labels=("bad",), attends=True)
    asked = PredictionSettings(
        task="binary", max_length=6, window_overlap=0, long_text="windows", merge_windows="vote",
        thresholds=(0.7,),
    )  # fmt: skip
    sure = TextClassifier(model, tokenizer, asked)
    parts = sure.logits(["good film the film", "bad bad bad bad", "bad bad"])
    assert (parts.sigmoid() > 0.7)[:, 0].tolist() == [False, True, True]
    torch.testing.assert_close(sure.logits([LONG])[0], (4 * parts[1] + 2 * parts[2]) / 6)
    unsure = TextClassifier(model, tokenizer, replace(asked, temperature=9.0))
    every = (4 * parts[0] + 4 * parts[1] + 2 * parts[2]) / 10
    torch.testing.assert_close(unsure.logits([LONG])[0], every)


# ---- streams, refusals, folders


def test_stream_gives_what_the_list_gives(random: TextClassifier) -> None:
    batch = ["good", "the film is bad", "", "odd, odd"] * 3
    found = list(random.stream(iter(batch), chunk_texts=5, batch_tokens=7))
    for one, other in zip(found, random.classify(batch), strict=True):
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
    pairs = list(random.stream([("good", "film"), ("bad", "film")], chunk_texts=1))
    assert [each.label for each in pairs] == [
        each.label for each in random.classify(["good", "bad"], ["film", "film"])
    ]


def test_model_of_pairs_refuses_texts_alone(make: Callable[..., TextClassifier]) -> None:
    with pytest.raises(TextError, match="takes pairs of texts, got texts alone"):
        make(pairs=True).classify("good")
    with pytest.raises(TextError, match="takes texts alone, got pairs"):
        list(make(pairs=False).stream([("good", "film")]))
    assert make(pairs=True).classify("good", "film").label == "pos"


@pytest.mark.parametrize(
    ("task", "labels", "values", "said"),
    [
        ("tokens", ("a", "b"), {}, "task is 'tokens', expected binary or multiclass or multilabel"),
        ("binary", ("a", "b", "c"), {}, "has 3 labels, expected 1 or 2 for task 'binary'"),
        ("multiclass", ("a",), {}, "has 1 labels, expected 2 or more for task 'multiclass'"),
        ("binary", ("a", "b"), {"thresholds": (0.5, 0.5)}, "thresholds has 2 numbers, expected 1"),
        ("multilabel", ("a", "b"), {"thresholds": (0.5,)}, "thresholds has 1 numbers, expected 2"),
        ("binary", ("a", "b"), {"labels": ("b", "a")}, r"labels is \('b', 'a'\), expected \('a'"),
    ],
)
def test_settings_that_do_not_fit_the_head_are_refused(
    tokenizer: Tokenizer, task: str, labels: tuple[str, ...], values: dict[str, Any], said: str
) -> None:
    model = hand_made(BertForSequenceClassification, {}, labels=labels)
    with pytest.raises(ConfigError, match=said):
        TextClassifier(model, tokenizer, PredictionSettings(task=task, max_length=9, **values))


def test_classifier_of_a_folder(tmp_path: Path) -> None:
    model = hand_made(BertForSequenceClassification, SENTIMENT, attends=True)
    asked = PredictionSettings(task="binary", max_length=POSITIONS, thresholds=(0.9,))
    folder = save_small(model, tmp_path, asked)
    classifier = TextClassifier.from_pretrained(folder)
    assert classifier.settings == asked
    assert classifier.classify("good").label == "neg"
    mine = PredictionSettings(task="binary", max_length=POSITIONS)
    assert (
        TextClassifier.from_pretrained(str(folder), settings=mine).classify("good").label == "pos"
    )
    wide = TextClassifier.from_pretrained(folder, dtype="float64")
    assert wide.logits(["good"]).dtype == torch.float64
    half = TextClassifier.from_pretrained(folder, dtype="bfloat16")
    assert half.logits(["good"]).dtype == torch.float32
    torch.testing.assert_close(
        half.logits(["good"]), classifier.logits(["good"]), atol=0.05, rtol=0
    )
