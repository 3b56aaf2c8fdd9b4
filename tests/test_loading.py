"""Folders opened for prediction, and those that are refused because it would be chance or wrong."""

import json
import logging
from pathlib import Path

import pytest
from small_models import POSITIONS, hand_made, save_small, small_config

from minibert.config import BertConfig
from minibert.errors import (
    CheckpointError,
    ConfigError,
    MinibertError,
    TextError,
    TokenizerError,
    WeightsError,
)
from minibert.heads import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from minibert.model import BertModel
from minibert.prediction.loading import (
    Saved,
    check_pairs,
    checked_device,
    model_folder,
    open_saved,
    prepared,
    settings_for,
)
from minibert.prediction.settings import CLASSIFIED, PredictionSettings
from minibert.tokenizer import Tokenizer


def classifier_in(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return save_small(hand_made(BertForSequenceClassification, {"good": 2}), folder)


def opened(
    folder: str | Path, settings: PredictionSettings | None = None
) -> Saved[BertForSequenceClassification]:
    return open_saved(
        BertForSequenceClassification, CLASSIFIED, folder,
        settings=settings, dtype="float32", device="cpu", offline=True,
    )  # fmt: skip


def refusal(folder: Path, settings: PredictionSettings | None = None) -> str:
    with pytest.raises(MinibertError) as caught:
        opened(folder, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_model_of_a_run_is_the_one_that_it_ended_with(tmp_path: Path) -> None:
    model = classifier_in(tmp_path / "run" / "model")
    (tmp_path / "run" / "run.json").write_text("{}")
    assert model_folder(tmp_path / "run") == model
    assert model_folder(str(tmp_path / "run")) == model
    assert model_folder(model) == model
    assert opened(tmp_path / "run").settings.task == "binary"


def test_run_that_has_not_ended_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(WeightsError, match="holds a run without a model, which it gets at its end"):
        model_folder(tmp_path)


def test_name_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(WeightsError, match="no model 'nonsense'"):
        model_folder("nonsense", offline=True)


def test_pinned_weights_are_hashed(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="the pinned one is 00"):
        model_folder(classifier_in(tmp_path), sha256="00")


def test_settings_given_go_before_those_of_the_folder(tmp_path: Path) -> None:
    folder = classifier_in(tmp_path)
    PredictionSettings(task="binary", max_length=9).save(folder)
    assert opened(folder).settings.max_length == 9
    mine = PredictionSettings(task="multiclass", max_length=POSITIONS)
    assert opened(folder, mine).settings is mine


def test_model_of_another_task_is_refused_with_what_takes_it(tmp_path: Path) -> None:
    folder = save_small(hand_made(BertForTokenClassification, {}), tmp_path)
    said = refusal(folder)
    assert said.startswith(f"{folder}: is a model for task 'tokens', expected binary or multiclass")
    assert said.endswith("; minibert tag takes it, and in Python TokenTagger")


def test_head_of_another_task_is_refused_whatever_the_settings_say(tmp_path: Path) -> None:
    # The weights of a classifier of texts would fill one of tokens, which has no pooler.
    folder = classifier_in(tmp_path)
    with pytest.raises(CheckpointError, match="is a BertForSequenceClassification, expected"):
        open_saved(
            BertForTokenClassification, ("tokens",), folder,
            settings=PredictionSettings(task="tokens", max_length=POSITIONS),
            dtype="float32", device="cpu", offline=True,
        )  # fmt: skip


def test_checkpoint_of_pretraining_fills_masks(tmp_path: Path) -> None:
    model = BertForPreTraining(small_config()).eval()
    saved = open_saved(
        BertForMaskedLM, ("masked_lm",), save_small(model, tmp_path),
        settings=None, dtype="float64", device="cpu", offline=True,
    )  # fmt: skip
    assert str(saved.model.predictions.dense.weight.dtype) == "torch.float64"


def test_untrained_head_is_refused_and_nothing_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_small(BertModel(small_config()), tmp_path)
    values = json.loads((folder / "config.json").read_text())
    values["architectures"] = ["BertForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(values))
    with caplog.at_level(logging.INFO, "minibert"):
        said = refusal(folder)
    assert said == (
        f"{folder}: lacks classifier.weight, classifier.bias, so that the head of "
        "BertForSequenceClassification is untrained and what it predicts is chance; train it "
        "first, as minibert train does"
    )
    assert not caplog.records


def test_more_tokens_than_positions_are_refused(tmp_path: Path) -> None:
    folder = classifier_in(tmp_path)
    PredictionSettings(task="binary", max_length=POSITIONS + 1).save(folder)
    said = f"{folder}: max_length is {POSITIONS + 1}, expected at most {POSITIONS}, the model's"
    assert refusal(folder).startswith(said)
    fits = PredictionSettings(task="binary", max_length=POSITIONS)
    config = BertConfig.from_file(folder / "config.json")
    assert settings_for(("binary",), folder, config, fits) is fits


def test_tokenizer_with_more_ids_than_embeddings_is_refused(tmp_path: Path) -> None:
    model = hand_made(BertForSequenceClassification, {})
    folder = save_small(model, tmp_path)
    with (folder / "vocab.txt").open("a") as file:
        file.write("one\nmore\n")
    with pytest.raises(TokenizerError, match="the tokenizer: has token ids up to 26, expected at"):
        prepared(model, Tokenizer.from_pretrained(folder))


def test_network_predicts_in_evaluation_mode(tmp_path: Path) -> None:
    model = hand_made(BertForSequenceClassification, {}).train()
    tokenizer = Tokenizer.from_pretrained(save_small(model, tmp_path))
    assert prepared(model, tokenizer) is model
    assert not model.training


@pytest.mark.parametrize("name", ["cuda:99", "nonsense"])
def test_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^device is '{name}', which is not here: ") as caught:
        checked_device(name)
    assert "\n" not in str(caught.value)
    assert checked_device("cpu") == "cpu"
    assert checked_device("auto") in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("pairs", "given", "said"),
    [
        (True, False, "takes pairs of texts, got texts alone; give each a second text"),
        (False, True, "takes texts alone, got pairs; leave the second texts out"),
    ],
)
def test_pairs_are_given_where_the_model_takes_them(pairs: bool, given: bool, said: str) -> None:
    settings, config = PredictionSettings(task="binary", pairs=pairs), small_config()
    with pytest.raises(TextError, match=said):
        check_pairs(settings, config, given=given)
    check_pairs(settings, config, given=pairs)
    for either in (True, False):
        check_pairs(PredictionSettings(task="binary"), config, given=either)


def test_network_of_one_type_takes_no_pairs() -> None:
    config = small_config(type_vocab_size=1)
    check_pairs(PredictionSettings(task="binary"), config, given=False)
    with pytest.raises(ConfigError, match="type_vocab_size is 1, expected 2 for pairs"):
        check_pairs(PredictionSettings(task="binary"), config, given=True)
