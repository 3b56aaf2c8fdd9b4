"""The doctor in the loop of this package, and `minibert doctor`: small networks, whole runs."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import WORDS, small_config, small_tokenizer

from minibert import cli
from minibert.errors import TrainingError
from minibert.model import BertModel
from minibert.training import checkup
from minibert.training.checkup import read_until
from minibert.training.consultation import consult
from minibert.training.loop import Observer, StepRecord, Trainer
from minibert.training.rehearsal import rehearse
from minibert.training.run import set_up, train
from minibert.training.run_config import RunConfig

pytestmark = pytest.mark.slow  # whole runs, seconds each


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random encoder with its vocabulary."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    BertModel(small_config(initializer_range=0.3)).save_pretrained(folder)
    small_tokenizer(folder).save_pretrained(folder)
    return folder


def rows(n: int = 320, *, seed: int = 0) -> list[dict[str, Any]]:
    """Texts of which one word tells the label."""
    generator = random.Random(seed)
    found = {}
    while len(found) < n:
        words = [generator.choice(WORDS[4:]) for _ in range(7)]
        label = generator.choice(["neg", "pos"])
        words[generator.randrange(7)] = generator.choice(
            WORDS[:2] if label == "pos" else WORDS[2:4]
        )
        found[" ".join(words)] = label
    return [{"text": text, "label": label} for text, label in found.items()]


def settings(small: Path, folder: Path, **tables: Any) -> RunConfig:
    values: dict[str, Any] = {
        "task": "binary", "model": str(small), "output": str(folder / "run"),
        "data": {"train": rows(), "validation": rows(60, seed=7), "max_length": 16},
        "training": {"epochs": 2, "batch_size": 8, "seed": 1, "dropout": 0.0},
        "optimizer": {"learning_rate": 2e-4},
    }  # fmt: skip
    for name, table in tables.items():
        values[name] = {**values.get(name, {}), **table} if isinstance(table, dict) else table
    return RunConfig.from_dict(values)


def saved(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "doctor.json").read_text())
    return found


def test_a_run_keeps_what_was_seen(small: Path, tmp_path: Path) -> None:
    train(settings(small, tmp_path))
    found = saved(tmp_path)
    assert found["facts"]["train: examples"] == "320"
    assert [look["step"] for look in found["looks"]] == [1, *range(5, 81, 5)]
    assert set(found["looks"][3]["gradients"]) == {"embeddings", "layer 0", "pooler", "head"}
    assert all(each["severity"] != "error" for each in found["findings"])


def test_a_collapse_is_told_and_can_stop_the_run(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = settings(small, tmp_path, optimizer={"learning_rate": 30.0})
    with pytest.raises(TrainingError, match="stopped by the doctor at update"):
        train(run, stop_on="error")
    assert "[rate-too-high]" in capsys.readouterr().err
    (worst, *_) = saved(tmp_path)["findings"]
    assert (worst["name"], worst["severity"]) == ("rate-too-high", "error")
    assert 5 <= worst["step"] <= 50
    assert worst["settings"]["optimizer.learning_rate"] == "1e-04"


def test_the_doctor_changes_nothing_of_a_run(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for name in ("with", "without"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "without":
            nothing = Observer.before_update
            monkeypatch.setattr(checkup.Checkup, "before_update", nothing)
        outcome = train(settings(small, folder, training={"dropout": 0.2}))
        ends.append(outcome.model.state_dict())
    for key, values in ends[0].items():
        assert values.equal(ends[1][key]), key


class Stop(Observer):
    """Ends a run after some updates, as a signal would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        trainer.stopping = trainer.stopping or record.step == self.step


def test_what_was_seen_before_a_stop_stands_beside_what_comes(small: Path, tmp_path: Path) -> None:
    run = settings(small, tmp_path, optimizer={"learning_rate": 1e-3})  # which is unusual
    assert not train(run, observers=[Stop(23)]).finished
    assert [look["step"] for look in saved(tmp_path)["looks"]] == [1, 5, 10, 15, 20]
    train(run, resume=True)
    found = saved(tmp_path)
    steps = [look["step"] for look in found["looks"]]
    assert steps[:5] == [1, 5, 10, 15, 20]
    assert steps == sorted(set(steps))
    assert steps[-1] == 80
    assert [each["name"] for each in found["findings"]].count("rate-is-unusual") == 1
    assert found["facts"]["train: examples"] == "320"


def test_a_torn_file_of_the_doctor_is_no_obstacle(small: Path, tmp_path: Path) -> None:
    run = settings(small, tmp_path)
    train(run, observers=[Stop(12)])
    (tmp_path / "run" / "doctor.json").write_text('{"findings": [')
    assert read_until(tmp_path / "run", 12) == {"findings": [], "facts": {}, "looks": []}
    assert train(run, resume=True).finished
    assert saved(tmp_path)["looks"][0]["step"] == 15


@pytest.mark.parametrize(
    ("task", "data", "tables"),
    [
        ("binary", {}, {"head": {"num_labels": 1}}),
        ("multilabel", {"label_separator": ","}, {}),
        ("masked_lm", {"label": "label"}, {}),
        ("contrastive", {"text_pair": "text_pair"}, {}),
        ("similarity", {"text_pair": "text_pair", "label": "score"}, {}),
        ("regression", {"text_pair": "text_pair", "label": "score"}, {}),
    ],
)
def test_every_task_is_watched(
    small: Path, tmp_path: Path, task: str, data: dict[str, Any], tables: dict[str, Any]
) -> None:
    texts = rows(120)
    for number, row in enumerate(texts):
        row |= {"text_pair": f"the film {row['text']}", "score": number % 7 / 7}
        if task in ("masked_lm", "contrastive"):
            del row["label"]
    if task == "masked_lm":
        data = {}
    run = settings(
        small, tmp_path, task=task, data={"train": texts, "validation": 0.2, **data}, **tables
    )
    train(run)
    found = saved(tmp_path)
    assert found["looks"]
    assert not [each for each in found["findings"] if each["severity"] == "error"]


def test_a_rehearsal_leaves_network_and_random_numbers_as_they_are(
    small: Path, tmp_path: Path
) -> None:
    setup = set_up(settings(small, tmp_path), small, None)
    before = {key: values.clone() for key, values in setup.model.state_dict().items()}
    state = torch.get_rng_state()
    found = rehearse(setup)
    assert torch.get_rng_state().equal(state)
    for key, values in setup.model.state_dict().items():
        assert values.equal(before[key]), key
    assert setup.trainer.step == 0
    assert found.total == 80
    assert found.seconds > 0
    assert found.n_examples == 8
    n = sum(parameter.numel() for parameter in setup.model.parameters())
    assert sum(all_of_it for all_of_it, _ in found.parameters.values()) == n


def test_a_network_that_cannot_learn_one_batch_is_told(small: Path, tmp_path: Path) -> None:
    slow = settings(small, tmp_path, optimizer={"learning_rate": 1e-9})
    told = rehearse(set_up(slow, small, None)).findings
    # That the encoder was drawn at random is worth knowing, of one as small as this.
    assert {each.name: each.severity for each in told} == {
        "cannot-overfit": "warning", "encoder-is-fresh": "info",
    }  # fmt: skip
    frozen = settings(small, tmp_path, training={"freeze": "encoder"})
    found = rehearse(set_up(frozen, small, None))
    assert found.parameters["layer 0"][1] == 0
    assert found.parameters["head"][1] == found.parameters["head"][0] > 0


def test_consulting_touches_no_folder(small: Path, tmp_path: Path) -> None:
    found = consult(settings(small, tmp_path, optimizer={"learning_rate": 1e-3}))
    assert list(tmp_path.iterdir()) == []
    assert found.findings[0].name == "rate-is-unusual"
    table = found.table()
    assert "seconds an update" in table
    assert "set:  optimizer.learning_rate = 1e-4" in table
    assert json.loads(found.to_json())["rehearsal"]["total"] == 80


def run_file(small: Path, folder: Path, labels: str, more: str = "") -> Path:
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([row["text"], labels[i % len(labels)]] for i, row in enumerate(rows()))
    path = folder / "run.toml"
    path.write_text(
        f'task = "binary"\nmodel = "{small}"\n[data]\ntrain = "train.csv"\nmax_length = 16\n{more}'
    )
    return path


def test_the_command_tells_what_it_sees(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_file(small, tmp_path, "01", "[optimizer]\nlearning_rate = 1e-2\n")
    assert cli.main(["doctor", str(path)]) == 0
    out = capsys.readouterr().out
    assert "train: examples" in out
    assert "[rate-is-unusual]" in out
    assert cli.main(["doctor", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["train: examples"] == "320"
    assert not (tmp_path / "run").exists()


def test_the_command_says_by_its_status_that_there_is_an_error(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_file(small, tmp_path, "00", 'labels = ["0", "1"]\n')
    assert cli.main(["doctor", str(path)]) == 1
    assert "[one-label]" in capsys.readouterr().out


def test_a_third_label_of_a_binary_task_is_refused_before_the_model_loads(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_file(small, tmp_path, "012")
    assert cli.main(["doctor", str(path)]) == 2
    err = capsys.readouterr().err
    assert "binary" in err
    assert "train.csv" in err
    assert "initialised afresh" not in err
