"""Predictions against the pipelines of `transformers`, on small random models that we saved.

`transformers` 5 has no pipeline for questions: there its own network gives the logits, its own
tokenizer the windows, and the answers are read from them by trying all.
"""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import VOCAB, save_small, small_config
from strategies import randomised

from minibert import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    MaskFiller,
    PredictionSettings,
    QuestionAnswerer,
    TextClassifier,
    TextScorer,
    TokenTagger,
)

pytestmark = pytest.mark.reference

TEXTS = [
    "The film is good.",
    "anna smith lives in paris, where the film is bad",
    "odd",
    "",
    "Who is in the films? Anna is, poorly; and nobody knows why.",
]
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def saved(head: Any, folder: Path, labels: tuple[str, ...] = ("a", "b"), **values: Any) -> Path:
    """A random network of a head in a folder; initializer_range is wide, so that it decides."""
    config = small_config(labels, initializer_range=0.8, **values)
    return save_small(randomised(head(config), seed=11).eval(), folder)


def pipe(task: str, folder: Path, **values: Any) -> Any:
    from transformers import pipeline

    return pipeline(task, model=str(folder), device="cpu", **values)


@pytest.mark.parametrize(
    ("labels", "problem_type"),
    [
        (("a", "b"), None),
        (("a", "b", "c"), "single_label_classification"),
        (("a", "b", "c"), "multi_label_classification"),
        (("a",), "multi_label_classification"),
    ],
)
def test_classes_are_those_of_the_pipeline(
    tmp_path: Path, labels: tuple[str, ...], problem_type: str | None
) -> None:
    folder = saved(BertForSequenceClassification, tmp_path, labels, problem_type=problem_type)
    theirs = pipe("text-classification", folder, top_k=None)
    classifier = TextClassifier.from_pretrained(folder)
    for text, found in zip(TEXTS, classifier.classify(TEXTS), strict=True):
        expected = theirs([text])[0]
        for each in expected:
            assert found.probabilities[each["label"]] == pytest.approx(each["score"], abs=1e-5)
        if len(labels) > 1:
            assert found.label == expected[0]["label"]
    pair = classifier.classify("the film", "is good")
    for each in theirs([{"text": "the film", "text_pair": "is good"}])[0]:
        assert pair.probabilities[each["label"]] == pytest.approx(each["score"], abs=1e-5)


def test_numbers_are_those_of_the_pipeline(tmp_path: Path) -> None:
    folder = saved(BertForSequenceClassification, tmp_path, ("score",), problem_type="regression")
    theirs = pipe("text-classification", folder)
    found = TextScorer.from_pretrained(folder).score(TEXTS)
    for text, each in zip(TEXTS, found, strict=True):
        assert each.score == pytest.approx(theirs(text)[0]["score"], abs=1e-5)


def test_tags_are_those_of_the_pipeline(tmp_path: Path) -> None:
    folder = saved(BertForTokenClassification, tmp_path, TAGS)
    tagger = TokenTagger.from_pretrained(folder)
    tokens = pipe("token-classification", folder, ignore_labels=[])
    entities = pipe("token-classification", folder, aggregation_strategy="first")
    n_entities = 0
    for text, found in zip(TEXTS, tagger.tag(TEXTS), strict=True):
        by_place = {each["start"]: each for each in tokens(text)}
        for word in found.words:
            first = by_place[word.start]
            assert word.tag == first["entity"]
            assert word.probability == pytest.approx(float(first["score"]), abs=1e-5)
        expected = entities(text)
        assert [each[:2] + each[3:] for each in found.entities] == [
            (each["entity_group"], text[each["start"] : each["end"]], each["start"], each["end"])
            for each in expected
        ]
        for one, other in zip(found.entities, expected, strict=True):
            assert one.probability == pytest.approx(float(other["score"]), abs=1e-5)
        n_entities += len(expected)
    assert n_entities > 5


def test_masks_are_filled_as_by_the_pipeline(tmp_path: Path) -> None:
    folder = saved(BertForMaskedLM, tmp_path)
    theirs = pipe("fill-mask", folder, top_k=4)
    filler = MaskFiller.from_pretrained(folder)
    for text in ("the film is [MASK]", "[MASK] lives in [MASK] .", "Who [MASK]?"):
        expected = theirs(text)
        masks = filler.fill(text, top_k=4).masks
        rows = [expected] if len(masks) == 1 else expected
        for mask, row in zip(masks, rows, strict=True):
            assert [each.token for each in mask] == [VOCAB[each["token"]] for each in row]
            assert [each.probability for each in mask] == pytest.approx(
                [each["score"] for each in row], abs=1e-5
            )
            if len(masks) == 1 and not any(each.token.startswith("[") for each in mask):
                same = [each.text.lower().replace(" ", "") for each in mask]
                assert same == [each["sequence"].replace(" ", "") for each in row]


@pytest.mark.parametrize("no_answer", [False, True])
@pytest.mark.parametrize("max_length", [16, 64])
def test_answers_are_those_of_the_reference(
    tmp_path: Path, max_length: int, no_answer: bool
) -> None:
    """Of a context in one window, scores and answers are those of the pipeline that was."""
    from transformers import AutoTokenizer
    from transformers import BertForQuestionAnswering as Reference

    folder = saved(BertForQuestionAnswering, tmp_path)
    overlap = 3
    asked = PredictionSettings(
        task="spans", max_length=max_length, long_text="windows", window_overlap=overlap
    )
    answerer = QuestionAnswerer.from_pretrained(folder, settings=asked)
    tokenizer, network = AutoTokenizer.from_pretrained(folder), Reference.from_pretrained(folder)
    question = "Who is in the film?"
    for context in (TEXTS[1], TEXTS[4], " ".join(TEXTS)):
        windows = tokenizer(
            question, context, truncation="only_second", max_length=max_length, stride=overlap,
            return_overflowing_tokens=True, return_offsets_mapping=True, padding=True,
            return_tensors="pt",
        )  # fmt: skip
        offsets = windows.pop("offset_mapping").tolist()
        windows.pop("overflow_to_sample_mapping")
        with torch.no_grad():
            out = network(**windows)
        expected = by_trying_all(
            out.start_logits.double(), out.end_logits.double(),
            [windows.sequence_ids(i) for i in range(len(offsets))], offsets, no_answer=no_answer,
        )  # fmt: skip
        found = answerer.answer(question, context, max_answer_tokens=4, no_answer=no_answer)
        assert found.windows == len(offsets)
        assert (found.windows > 1) == (max_length == 16)
        assert found.score == pytest.approx(expected[0], abs=1e-5)
        assert found.start <= expected[1] <= expected[2] <= found.end  # whole words are given
        assert " " not in context[found.start : expected[1]] + context[expected[2] : found.end]


def by_trying_all(
    starts: Any, ends: Any, sequences: list[Any], offsets: list[Any], *, no_answer: bool
) -> tuple[float, int, int]:
    """Score and place of the best answer of at most four tokens."""
    best: dict[tuple[int, int], float] = {}
    highest: dict[int, list[float]] = {}  # of each token, by its place, the best two logits
    null = min((s[0] + e[0], float(s[0]), float(e[0])) for s, e in zip(starts, ends, strict=True))
    for start, end, sequence, places in zip(starts, ends, sequences, offsets, strict=True):
        inside = [i for i, number in enumerate(sequence) if number == 1]
        for i in inside:
            seen = highest.setdefault(places[i][0], [float("-inf")] * 2)
            highest[places[i][0]] = [max(seen[0], float(start[i])), max(seen[1], float(end[i]))]
        for first, last in itertools.product(inside, repeat=2):
            if first <= last < first + 4:
                key = (places[first][0], places[last][1])
                best[key] = max(best.get(key, float("-inf")), float(start[first] + end[last]))
    if no_answer:
        highest[-1] = [null[1], null[2]]
        best[0, 0] = null[1] + null[2]
    total = torch.tensor(list(highest.values()), dtype=torch.double).logsumexp(dim=0).sum()
    place = max(best, key=best.__getitem__)
    return float((best[place] - total).exp()), *place
