"""What is told of data and settings before the first update."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
from small_models import small_tokenizer

from minibert.tokenizer import Tokenizer
from minibert.training.dataset import read_dataset
from minibert.training.preflight import Preflight, preflight
from minibert.training.run_config import RunConfig

WORDS = ["good", "fine", "bad", "poor", "odd", "anna", "film", "the", "in", "lives"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("words"))


def rows(n: int = 120, *, seed: int = 0, words: list[str] = WORDS) -> list[dict[str, Any]]:
    """Different texts, each with one of two labels that nothing in it tells."""
    generator = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < n:
        text = " ".join(generator.choice(words) for _ in range(8))
        found[text] = generator.choice(["neg", "pos"])
    return [{"text": text, "label": label} for text, label in found.items()]


def look(
    tokenizer: Tokenizer, tables: Mapping[str, Any], train: list[dict[str, Any]], **data: Any
) -> Preflight:
    values = {
        "task": "binary", **tables,
        "data": {"train": train, "max_length": 32, **data},
        "training": {"epochs": 10, **tables.get("training", {})},
    }  # fmt: skip
    run = RunConfig.from_dict(values)
    return preflight(run, read_dataset(run, tokenizer), tokenizer)


def told(found: Preflight) -> list[tuple[str, str]]:
    return [(each.name, each.severity) for each in found.findings]


def test_clean_rows_are_not_accused(tokenizer: Tokenizer) -> None:
    found = look(tokenizer, {}, rows(), validation=rows(60, seed=9))
    assert told(found) == []
    assert found.facts["train: examples"] == "120"
    assert "neg" in found.facts["labels of train"]
    assert found.facts["max_length"] == "32; 32 would cut hardly any text"


def test_empty_texts_are_counted(tokenizer: Tokenizer) -> None:
    empty = [{"text": "", "label": "neg"}, {"text": " ", "label": "pos"}]
    found = look(tokenizer, {}, [*rows(), *empty])
    assert ("texts-empty", "warning") in told(found)
    (each,) = [each for each in found.findings if each.name == "texts-empty"]
    assert each.evidence.startswith("2 of 122 examples of train (1.6%)")


def test_few_different_texts_are_no_texts(tokenizer: Tokenizer) -> None:
    kinds = [{"text": "the film" if i % 2 else "odd", "label": "np"[i % 2]} for i in range(200)]
    assert ("inputs-alike", "error") in told(look(tokenizer, {}, kinds))


def test_words_that_the_tokenizer_does_not_know_are_told(tokenizer: Tokenizer) -> None:
    found = look(tokenizer, {}, rows(words=[*WORDS, "где", "дом"]))
    assert told(found) == [("vocabulary-does-not-fit", "warning")]
    assert "[UNK]" in found.findings[0].evidence


@pytest.mark.parametrize(("length", "severity"), [(5, "warning"), (9, "info")])
def test_texts_that_are_cut_are_told_by_how_much(
    tokenizer: Tokenizer, length: int, severity: str
) -> None:
    found = look(tokenizer, {}, rows(), max_length=length)
    assert ("texts-are-cut", severity) in told(found)
    (each,) = [each for each in found.findings if each.name == "texts-are-cut"]
    assert dict(each.settings) == {"data.max_length": "512", "data.long_text": '"windows"'}
    found = look(tokenizer, {}, rows(), max_length=length, long_text="windows")
    assert "texts-are-cut" not in dict(told(found))


def test_texts_on_both_sides_are_told(tokenizer: Tokenizer) -> None:
    train = rows()
    found = look(tokenizer, {}, train, validation=[*train[:10], *rows(50, seed=9)])
    assert told(found) == [("validation-is-train", "warning")]
    assert "10 of the 60 of validation (16.7%)" in found.findings[0].evidence


def test_contradicting_labels_are_told(tokenizer: Tokenizer) -> None:
    train = rows()
    other = {"neg": "pos", "pos": "neg"}
    twice = [{**row, "label": other[row["label"]]} for row in train[:5]]
    found = look(tokenizer, {}, [*train, *twice])
    assert told(found) == [("labels-conflict", "warning")]
    assert "10 of 125 examples" in found.findings[0].evidence


def test_one_label_is_nothing_to_learn(tokenizer: Tokenizer) -> None:
    train = [{**row, "label": "pos"} for row in rows()]
    assert ("one-label", "error") in told(
        look(tokenizer, {}, train, labels=["neg", "pos"])
    )  # fmt: skip


def test_sides_with_other_shares_of_labels_are_told(tokenizer: Tokenizer) -> None:
    validation = rows(100, seed=9)
    for row in validation[:80]:
        row["label"] = "pos"
    assert told(look(tokenizer, {}, rows(), validation=validation)) == [("sides-differ", "warning")]


def test_a_word_that_gives_the_label_away_is_told(tokenizer: Tokenizer) -> None:
    train = [
        {**row, "text": f"{'who' if row['label'] == 'pos' else 'where'} {row['text']}"}
        for row in rows()
    ]
    found = look(tokenizer, {}, train)
    assert told(found) == [("label-in-the-text", "warning")]
    assert "'who'" in found.findings[0].evidence or "'where'" in found.findings[0].evidence


def test_unequal_labels_are_worth_knowing(tokenizer: Tokenizer) -> None:
    train = rows()
    for row in train[:110]:
        row["label"] = "neg"
    found = look(tokenizer, {}, train)
    assert told(found) == [("classes-unequal", "info")]
    assert dict(found.findings[0].settings) == {"loss.class_weights": '"balanced"'}
    found = look(tokenizer, {"head": {"num_labels": 1}}, train)
    assert dict(found.findings[0].settings) == {"loss.pos_weight": '"balanced"'}


@pytest.mark.parametrize(
    ("metric", "n_frequent", "is_told"),
    [("accuracy", 90, True), ("accuracy", 60, False), ("macro_f1", 90, False), (None, 90, False)],
)
def test_a_figure_that_hides_a_rare_class_is_told(
    tokenizer: Tokenizer, metric: str | None, n_frequent: int, is_told: bool
) -> None:
    sides = [rows(), rows(100, seed=9)]
    for side in sides:
        for place, row in enumerate(side):
            row["label"] = "neg" if place < len(side) * n_frequent / 100 else "pos"
    found = look(tokenizer, {"training": {"metric": metric}}, sides[0], validation=sides[1])
    told_it = [each for each in found.findings if each.name == "metric-hides-classes"]
    assert bool(told_it) == is_told
    for each in told_it:
        assert "'neg' for every text of validation has 90.0%" in each.evidence
        assert dict(each.settings) == {"training.metric": '"macro_f1"'}


def test_rates_that_overwrite_pretraining_are_told(tokenizer: Tokenizer) -> None:
    for changes, expected in (
        ({"optimizer": {"learning_rate": 1e-3}}, ["rate-is-unusual"]),
        ({"optimizer": {"learning_rate": 2e-4}}, []),
        ({"optimizer": {"learning_rate": 1e-2, "name": "sgd"}}, []),
        ({"optimizer": {"learning_rate": 1e-3}, "training": {"freeze": "encoder"}}, []),
    ):
        assert [name for name, _ in told(look(tokenizer, changes, rows()))] == expected


def test_a_frozen_encoder_is_told_where_there_is_much_data(tokenizer: Tokenizer) -> None:
    freeze = {"training": {"freeze": "encoder"}}
    assert told(look(tokenizer, freeze, rows(2000))) == [("frozen-with-much-data", "warning")]
    assert told(look(tokenizer, freeze, rows(500))) == []


def test_every_task_can_be_looked_at(tokenizer: Tokenizer) -> None:
    """Pairs, numbers, several labels, tags, running text, vectors, spans."""
    texts = rows(60)
    pairs = [{**row, "text_pair": "the film", "label": 0.5} for row in texts]
    tables: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
        "regression": (pairs, {"text_pair": "text_pair"}),
        "similarity": (pairs, {"text_pair": "text_pair"}),
        "contrastive": (pairs, {"text_pair": "text_pair"}),
        "multilabel": (texts, {"label_separator": ","}),
        "tokens": ([{"tokens": ["good", "film"], "tags": ["O", "B-x"]}] * 9, {}),
        "masked_lm": ([{"text": row["text"]} for row in texts], {}),
        "spans": (
            [{"text": "who", "context": "anna lives in paris", "label": "paris"}] * 9,
            {"text_pair": "context"},
        ),
    }
    for task, (train, data) in tables.items():
        found = look(tokenizer, {"task": task}, train, **data)
        assert "unknown tokens" in found.facts, task


def test_rows_that_repeat_are_told(tokenizer: Tokenizer) -> None:
    train = rows()
    assert told(look(tokenizer, {}, [*train, *train[:60]])) == [("rows-repeat", "warning")]
    assert told(look(tokenizer, {}, [*train, *train[:10]])) == [("rows-repeat", "info")]


def test_the_text_that_repeats_most_is_shown(tokenizer: Tokenizer) -> None:
    train = [*rows(), *({"text": "odd film", "label": "pos"} for _ in range(60))]
    (found,) = [e for e in look(tokenizer, {}, train).findings if e.name == "rows-repeat"]
    assert "most often, 60 times, 'odd film'" in found.evidence


@pytest.mark.parametrize("task", ["binary", "contrastive"])
def test_pairs_of_a_text_and_itself_are_told(tokenizer: Tokenizer, task: str) -> None:
    train = [{**row, "other": row["text"]} for row in rows()]
    if task == "contrastive":
        train = [{"text": row["text"], "other": row["other"]} for row in train]
    found = look(tokenizer, {"task": task}, train, text_pair="other")
    assert ("pairs-are-alike", "error") in told(found)
    others = [*(row["other"] for row in train[1:]), "the film"]
    apart = [{**row, "other": other} for row, other in zip(train, others, strict=True)]
    found = look(tokenizer, {"task": task}, apart, text_pair="other")
    assert "pairs-are-alike" not in [each.name for each in found.findings]


def test_a_small_validation_is_told(tokenizer: Tokenizer) -> None:
    found = look(tokenizer, {}, rows(400), validation=rows(10, seed=9))
    assert told(found) == [("validation-is-small", "warning")]
    assert "validation has 10 examples" in found.findings[0].evidence
    found = look(tokenizer, {}, rows(100), validation=rows(10, seed=9))
    assert told(found) == [("validation-is-small", "info")]


def test_hardly_any_updates_are_told(tokenizer: Tokenizer) -> None:
    few = {"training": {"epochs": 1, "batch_size": 32}}
    assert told(look(tokenizer, few, rows())) == [("few-updates", "warning")]


def test_extreme_settings_are_told_with_what_is_usual(tokenizer: Tokenizer) -> None:
    tables = {
        "training": {"dropout": 0.9, "max_grad_norm": 1e-6},
        "schedule": {"warmup_fraction": 1.0},
        "loss": {"label_smoothing": 0.9},
    }
    (found,) = look(tokenizer, tables, rows()).findings
    assert found.name == "settings-are-extreme"
    assert dict(found.settings) == {
        "training.dropout": "0.1",
        "training.max_grad_norm": "1.0",
        "schedule.warmup_fraction": "0.1",
        "loss.label_smoothing": "0.1",
    }
    assert "training.dropout is 0.9, usual is 0.1" in found.evidence


def test_targets_far_from_all_others_are_told(tokenizer: Tokenizer) -> None:
    numbers = [{**row, "label": number % 10} for number, row in enumerate(rows())]
    assert told(look(tokenizer, {"task": "regression"}, numbers)) == []
    numbers[5]["label"] = 1e5
    found = look(tokenizer, {"task": "regression"}, numbers)
    assert told(found) == [("targets-are-far-apart", "warning")]
    assert "the farthest is 100000" in found.findings[0].evidence
    same = [{**row, "label": 3} for row in numbers]
    assert told(look(tokenizer, {"task": "regression"}, same)) == [("one-label", "error")]


def test_every_key_with_a_usual_range_is_one_of_the_run_file(tokenizer: Tokenizer) -> None:
    from minibert.doctor.catalogue import CATALOGUE
    from minibert.training.preflight import _USUAL

    assert set(_USUAL) <= set(CATALOGUE["settings-are-extreme"].keys)
