"""`minibert.json`: written, read and refused; and what stands in for it."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_models import POSITIONS, small_config
from strategies import without_type_checks

from minibert.errors import CheckpointError, ConfigError
from minibert.prediction import settings as module
from minibert.prediction.settings import PredictionSettings


def folder_of(
    place: Path, architecture: str | None, labels: int = 2, problem_type: str | None = None
) -> Path:
    """A folder with nothing but the config.json of a checkpoint."""
    config = small_config([f"l{n}" for n in range(labels)], problem_type=problem_type)
    values = config.to_dict()
    if architecture is not None:
        values["architectures"] = [architecture]
    (place / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return place


def written(place: Path, **values: Any) -> Path:
    path = place / "minibert.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    """As users meet it, where the type checks of the tests do not come first."""
    with pytest.raises(ConfigError) as caught:
        without_type_checks(module).PredictionSettings.from_file(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_settings_come_back_as_they_were_saved(tmp_path: Path) -> None:
    settings = PredictionSettings(
        task="multilabel", max_length=100, long_text="windows", window_overlap=10,
        merge_windows="vote", thresholds=(0.25, 0.5), temperature=1.5, pairs=True,
    )  # fmt: skip
    settings.save(tmp_path)
    assert PredictionSettings.from_file(tmp_path / "minibert.json") == settings
    assert PredictionSettings.of(tmp_path) == settings
    assert [path.name for path in tmp_path.iterdir()] == ["minibert.json"]


def test_file_may_leave_out_all_but_the_task(tmp_path: Path) -> None:
    path = written(tmp_path, task="tokens", thresholds=[])
    assert PredictionSettings.from_file(path) == PredictionSettings(task="tokens")


def test_what_answers_may_be_is_kept(tmp_path: Path) -> None:
    settings = PredictionSettings(task="spans", no_answer=True, max_answer_tokens=41)
    settings.save(tmp_path)
    assert PredictionSettings.of(tmp_path) == settings
    assert PredictionSettings(task="spans") == PredictionSettings(
        task="spans", no_answer=False, max_answer_tokens=30
    )


def test_names_of_one_logit_are_kept(tmp_path: Path) -> None:
    PredictionSettings(task="binary", labels=("übel", "gut")).save(tmp_path)
    assert "übel" in (tmp_path / "minibert.json").read_text(encoding="utf-8")
    assert PredictionSettings.of(tmp_path).labels == ("übel", "gut")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"task": "regresion"}, "task is 'regresion', expected one of binary, multiclass"),
        ({}, "lacks task, expected one of binary"),
        ({"task": 3}, "task is 3, expected one of binary"),
        ({"task": "binary", "treshold": 1}, "'treshold' is no key, expected thresholds"),
        ({"task": "binary", "x": 1}, "'x' is no key, expected one of task, max_length"),
        ({"task": "binary", "max_length": 2}, "max_length is 2, expected a whole number ≥ 3"),
        ({"task": "binary", "max_length": 8.0}, "max_length is 8.0, expected a whole number"),
        ({"task": "binary", "max_length": True}, "max_length is True, expected a whole number"),
        ({"task": "binary", "long_text": "cut"}, "long_text is 'cut', expected one of truncate"),
        ({"task": "binary", "window_overlap": -1}, "window_overlap is -1, expected a whole number"),
        ({"task": "binary", "window_overlap": True}, "window_overlap is True, expected a whole"),
        (
            {"task": "binary", "max_length": 20, "window_overlap": 11},
            "window_overlap is 11, expected a whole number up to 10, half of max_length",
        ),
        ({"task": "binary", "merge_windows": "max"}, "merge_windows is 'max', expected mean or"),
        ({"task": "binary", "thresholds": [1.5]}, "thresholds is (1.5,), expected probabilities"),
        ({"task": "binary", "thresholds": 0.5}, "thresholds is 0.5, expected probabilities"),
        ({"task": "binary", "thresholds": ["a"]}, "thresholds is ('a',), expected probabilities"),
        ({"task": "binary", "thresholds": [True]}, "thresholds is (True,), expected"),
        ({"task": "binary", "temperature": 0}, "temperature is 0, expected a number > 0"),
        ({"task": "binary", "temperature": "1"}, "temperature is '1', expected a number > 0"),
        ({"task": "binary", "labels": ["a"]}, "labels is ('a',), expected two names, or none"),
        ({"task": "binary", "labels": [1, 2]}, "labels is (1, 2), expected two names, or none"),
        ({"task": "binary", "pairs": 1}, "pairs is 1, expected true, false or null"),
        ({"task": "multiclass", "thresholds": [0.5]}, "'multiclass' has no use for; it is for bi"),
        ({"task": "tokens", "merge_windows": "vote"}, "'tokens' has no use for; it is for binary"),
        ({"task": "regression", "temperature": 2}, "'regression' has no use for; it is for binary"),
        ({"task": "multilabel", "labels": ["a", "b"]}, "has no use for; it is for binary"),
        ({"task": "spans", "no_answer": 1}, "no_answer is 1, expected true or false"),
        ({"task": "tokens", "no_answer": True}, "'tokens' has no use for; it is for spans"),
        ({"task": "spans", "max_answer_tokens": 0}, "max_answer_tokens is 0, expected a whole"),
        ({"task": "tokens", "max_answer_tokens": 9}, "'tokens' has no use for; it is for spans"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, values: Any, said: str) -> None:
    path = written(tmp_path, **values)
    assert refusal(path).startswith(f"{path}: ")
    assert said in refusal(path)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "minibert.json"
    path.write_text('{"task": "binary", "temperature": NaN}', encoding="utf-8")
    assert "temperature is nan" in refusal(path)
    path.write_text('{"task": "binary", "temperature": Infinity}', encoding="utf-8")
    assert "temperature is inf" in refusal(path)


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, b"\xff\xfe"])
def test_file_that_is_no_json_is_refused(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "minibert.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert f"{path}: not JSON" in refusal(path)


def test_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "minibert.json"
    path.write_text("[]", encoding="utf-8")
    assert "got a list, expected a JSON object" in refusal(path)
    path.unlink()
    assert "cannot be read: No such file" in refusal(path)


def test_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"minibert\.json: cannot be written: No such file"):
        PredictionSettings(task="tokens").save(tmp_path / "absent")


def test_windows_share_what_is_said_and_at_most_half() -> None:
    settings = PredictionSettings(task="binary", max_length=100, window_overlap=20)
    assert [settings.overlap(size) for size in (98, 40, 30, 1)] == [20, 20, 15, 0]
    assert PredictionSettings(task="binary").overlap(80) == 10
    assert PredictionSettings(task="tokens").overlap(80) == 20


@pytest.mark.parametrize(
    ("architecture", "labels", "problem_type", "task"),
    [
        ("BertForSequenceClassification", 1, None, "regression"),
        ("BertForSequenceClassification", 2, None, "binary"),
        ("BertForSequenceClassification", 3, None, "multiclass"),
        ("BertForSequenceClassification", 1, "regression", "regression"),
        ("BertForSequenceClassification", 2, "single_label_classification", "binary"),
        ("BertForSequenceClassification", 5, "single_label_classification", "multiclass"),
        ("BertForSequenceClassification", 1, "multi_label_classification", "binary"),
        ("BertForSequenceClassification", 2, "multi_label_classification", "multilabel"),
        ("BertForTokenClassification", 3, None, "tokens"),
        ("BertForQuestionAnswering", 2, None, "spans"),
        ("BertForMaskedLM", 2, None, "masked_lm"),
        ("BertForPreTraining", 2, None, "masked_lm"),
    ],
)
def test_task_of_a_foreign_checkpoint_is_that_of_its_head(
    tmp_path: Path, architecture: str, labels: int, problem_type: str | None, task: str
) -> None:
    found = PredictionSettings.of(folder_of(tmp_path, architecture, labels, problem_type))
    by_token = task in ("tokens", "spans", "masked_lm")
    assert found == PredictionSettings(
        task=task, max_length=POSITIONS, long_text="windows" if by_token else "truncate"
    )


@pytest.mark.parametrize(
    ("labels", "problem_type"),
    [(2, "regression"), (1, "single_label_classification"), (2, "something_else")],
)
def test_heads_that_say_two_things_are_refused(
    tmp_path: Path, labels: int, problem_type: str
) -> None:
    folder = folder_of(tmp_path, "BertForSequenceClassification", labels, problem_type)
    with pytest.raises(ConfigError, match=f"problem_type is '{problem_type}' with {labels} labels"):
        PredictionSettings.of(folder)


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("BertForNextSentencePrediction", "it is a BertForNextSentencePrediction"),
        ("BertModel", "it is a BertModel"),
        (None, "its config.json names no architecture"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_each_command_takes(
    tmp_path: Path, architecture: str | None, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        PredictionSettings.of(folder_of(tmp_path, architecture))
    assert f"{tmp_path}: what it predicts cannot be told, for {said}; minibert" in str(caught.value)
    for command in ("classify", "score", "tag", "answer", "fill-mask"):
        assert f"{command} " in str(caught.value)


def test_length_is_that_of_the_tokenizer_up_to_the_positions(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "BertForMaskedLM")
    for said, expected in ((32, 32), (1000, POSITIONS), (int(1e30), POSITIONS)):
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": said}))
        assert PredictionSettings.of(folder).max_length == expected


def test_sentence_transformers_compares_texts_of_its_recipe(minilm: Path) -> None:
    found = PredictionSettings.of(minilm)
    assert found == PredictionSettings(task="similarity", max_length=256, pairs=True)


def test_head_goes_before_modules_of_sentence_transformers(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "BertForSequenceClassification", labels=1)
    (folder / "modules.json").write_text("[]")
    assert PredictionSettings.of(folder).task == "regression"
    folder_of(tmp_path, "BertForNextSentencePrediction")
    with pytest.raises(ConfigError, match="it is a BertForNextSentencePrediction"):
        PredictionSettings.of(folder)


def test_file_goes_before_what_the_checkpoint_says(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "BertForMaskedLM")
    PredictionSettings(task="tokens", max_length=9).save(folder)
    assert PredictionSettings.of(folder) == PredictionSettings(task="tokens", max_length=9)


def test_file_that_is_refused_is_not_passed_over(tmp_path: Path) -> None:
    written(folder_of(tmp_path, "BertForMaskedLM"), task="nothing")
    with pytest.raises(ConfigError, match="task is 'nothing'"):
        PredictionSettings.of(tmp_path)
