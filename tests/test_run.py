"""Training runs from files to saved models: every task, stopped, killed and gone on with."""

import csv
import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minibert import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    Embedder,
    Tokenizer,
    cli,
)
from minibert.errors import CheckpointError, DataError, LabelError, RunError, TokenizerError
from minibert.training.loop import Observer, StepRecord, Trainer
from minibert.training.run import Outcome, train
from minibert.training.run_config import RunConfig

WORDS = ["good", "fine", "nice", "bad", "poor", "sad", "film", "the", "a", "is", "was", "##s"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random encoder with its vocabulary, to start from."""
    folder = tmp_path_factory.mktemp("small")
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    return folder


def sentences(n: int = 40) -> list[dict[str, Any]]:
    """Films, and whether they are liked."""
    rows = []
    for i in range(n):
        text = f"{WORDS[7 + i % 2]} film is {WORDS[i % 6]} {i}"
        rows.append({"text": text, "label": "pos" if i % 6 < 3 else "neg"})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def settings(small: Path, folder: Path, task: str, **tables: Any) -> RunConfig:
    training = {"epochs": 3, "batch_size": 8, "seed": 1} | tables.pop("training", {})
    data = {"validation": 0.2, "max_length": 16} | tables.pop("data")
    values = {
        "task": task, "model": str(small), "output": "run", "data": data, "training": training,
        "optimizer": {"learning_rate": 1e-2}, **tables,
    }  # fmt: skip
    return RunConfig.from_dict(values, folder=folder)


# ---- tasks


def test_binary_run_learns_and_saves_what_opens_everywhere(small: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", sentences())
    # With dropout three in five seeds do not get there in so few updates.
    training = {"epochs": 12, "dropout": 0.0}
    run = settings(small, tmp_path, "binary", data={"train": "train.csv"}, training=training)
    outcome = train(run)
    assert outcome.finished
    assert outcome.validation is not None
    assert outcome.validation.figures["macro_f1"] == 1.0
    assert outcome.test is None
    folder = tmp_path / "run"
    model = BertForSequenceClassification.from_pretrained(folder / "model")
    assert model.config.labels == ("neg", "pos")
    assert model.config.problem_type == "single_label_classification"
    tokenizer = Tokenizer.from_pretrained(folder / "model")
    batch = tokenizer.pad(tokenizer.encode(["the film is good", "a film is sad"]))
    assert model(**batch).logits.argmax(-1).tolist() == [1, 0]
    assert Embedder.from_pretrained(folder / "model").encode("a film").shape == (16,)
    results = json.loads((folder / "results.json").read_text())
    assert results["validation"]["macro_f1"] == 1.0
    noted = json.loads((folder / "run.json").read_text())
    assert (noted["run"]["task"], noted["engine"]) == ("binary", "pytorch")
    sides = json.loads((folder / "split.json").read_text())
    assert (len(sides["train"]), len(sides["validation"])) == (32, 8)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(1, 12 * 4 + 1))
    assert sum("evaluation" in line for line in lines) == 12


@pytest.mark.parametrize(
    ("task", "tables", "figure", "least"),
    [
        ("multiclass", {"loss": {"name": "focal", "class_weights": "balanced"}}, "macro_f1", 0.9),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (
                ("binary", {"head": {"num_labels": 1, "bias_from_prior": True}}, "macro_f1", 0.9),
                ("multilabel", {"loss": {"pos_weight": "balanced"}}, "macro_f1", 0.9),
                ("regression", {"loss": {"name": "huber"}}, "pearson", 0.9),
            )
        ),
    ],
    ids=["multiclass", "one-logit", "multilabel", "regression"],
)
def test_tasks_of_texts_are_learnt(
    small: Path, tmp_path: Path, task: str, tables: dict[str, Any], figure: str, least: float
) -> None:
    rows = sentences()
    for i, row in enumerate(rows):
        if task == "multiclass":
            row["label"] = ("fine", "poor", "odd")[i % 6 // 2]
        elif task == "multilabel":
            row["label"] = [name for name, on in (("x", i % 6 < 3), ("y", i % 2)) if on]
        elif task == "regression":
            row["label"] = 100.0 + 10 * (i % 6)
    run = settings(
        small, tmp_path, task, data={"train": rows, "validation": rows, "test": rows},
        training={"epochs": 40, "dropout": 0.0}, **tables,
    )  # fmt: skip
    outcome = train(run)
    assert outcome.test is not None
    assert outcome.test.figures[figure] > least
    model = BertForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    tokenizer = Tokenizer.from_pretrained(tmp_path / "run" / "model")
    batch = tokenizer.pad(tokenizer.encode([row["text"] for row in rows[:6]]))
    logits = model(**batch).logits
    if task == "regression":  # true numbers, not standardised ones
        assert (logits[:, 0] - torch.tensor([row["label"] for row in rows[:6]])).abs().max() < 20
    elif task == "multilabel":
        assert model.config.problem_type == "multi_label_classification"
        assert (logits[0, 0] > 0, logits[3, 0] > 0) == (True, False)


def test_tags_of_words_are_learnt(small: Path, tmp_path: Path) -> None:
    lines = []
    for row in sentences():
        words = row["text"].split()
        lines += [f"{w}\t{'B-mood' if w in WORDS[:6] else 'O'}" for w in words] + [""]
    (tmp_path / "train.conll").write_text("\n".join(lines))
    run = settings(
        small, tmp_path, "tokens", data={"train": "train.conll"}, training={"epochs": 10}
    )
    outcome = train(run)
    assert outcome.validation is not None
    assert outcome.validation.figures["span_f1"] == 1.0
    model = BertForTokenClassification.from_pretrained(tmp_path / "run" / "model")
    assert model.config.labels == ("B-mood", "O")


def test_prior_is_where_a_head_may_start(small: Path, tmp_path: Path) -> None:
    rows = [{"text": "a film", "label": "rare" if i % 10 == 0 else "often"} for i in range(100)]
    seen = []

    class First(Observer):
        def after_update(self, trainer: Trainer, record: StepRecord) -> None:
            seen.append(record.loss)
            trainer.stopping = True

    for on in (False, True):
        run = settings(
            small, tmp_path, "binary", data={"train": rows, "validation": rows},
            training={"batch_size": 100}, head={"bias_from_prior": on, "init_std": 1e-4},
        )  # fmt: skip
        train(run, overwrite=True, observers=[First()])
    entropy = -(0.1 * np.log(0.1) + 0.9 * np.log(0.9))
    assert seen == pytest.approx([np.log(2), entropy], abs=1e-2)


# ---- what does not fit is told before anything is trained


def refusal(run: RunConfig, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        train(run)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_bad_rows_are_told_of_at_once_or_set_aside(small: Path, tmp_path: Path) -> None:
    rows = [*sentences(), {"text": "a film", "label": "Pos"}, {"text": "a film", "label": ""}]
    write_csv(tmp_path / "train.csv", rows)
    with (tmp_path / "train.csv").open("a") as file:
        file.write("one,two,three\n")
    data = {"train": "train.csv", "labels": ["neg", "pos"]}
    said = refusal(settings(small, tmp_path, "binary", data=data), DataError)
    assert "3 of 43 rows are bad" in said
    assert "2 of kind 'unknown label', first" in said
    assert "train.csv: line 42: the label is 'Pos', expected one of 'neg', 'pos'; 'pos'?" in said
    run = settings(small, tmp_path, "binary", data={**data, "bad_rows": "quarantine"})
    assert train(run).finished
    with (tmp_path / "run" / "rejected.csv").open(newline="") as file:
        assert [row["kind"] for row in csv.DictReader(file)].count("unknown label") == 2


@pytest.mark.parametrize(
    ("task", "labels", "wrong", "said"),
    [
        ("binary", ["neg", "pos"], "odd", "the label is 'odd', expected one of 'neg', 'pos'"),
        ("binary", ["neg", "pos"], ["pos"], "the label is ['pos'], expected one of"),
        ("binary", ["neg", "pos"], float("nan"), "the label is nan, expected one of"),
        ("multiclass", [], None, "the label is None, expected one of 'neg', 'pos'"),
        ("multiclass", [], {"pos": 1}, "the label is {'pos': 1}, expected one of 'neg', 'pos'"),
        ("multilabel", ["neg", "pos"], ["pos", "odd"], "the label is 'odd', expected one of"),
        ("multilabel", ["neg", "pos"], float("nan"), "the label is nan, expected one of"),
        ("regression", [], "pos", "the label is 'pos', expected a finite number"),
        ("regression", [], float("nan"), "the label is nan, expected a finite number"),
        ("regression", [], float("inf"), "the label is inf, expected a finite number"),
        ("regression", [], [1.0], "the label is [1.0], expected a finite number"),
    ],
)
def test_label_that_does_not_fit_is_named_by_its_row(
    small: Path, tmp_path: Path, task: str, labels: list[str], wrong: Any, said: str
) -> None:
    rows = sentences(6)
    for row in rows if task == "regression" else ():
        row["label"] = 0.5
    rows[3]["label"] = wrong
    data = {"train": rows, "validation": None, "labels": labels}
    line = refusal(settings(small, tmp_path, task, data=data), DataError)
    assert "1 of 6 rows are bad" in line
    assert f"first row 4: {said}" in line
    assert not (tmp_path / "run" / "run.json").exists()


def test_tags_that_do_not_fit_their_words_are_named_by_their_row(
    small: Path, tmp_path: Path
) -> None:
    rows = [
        {"tokens": ["a", "film"], "tags": tags}
        for tags in (["O", "B-x"], ["O"], ["O", None], ["O", "I-y"])
    ]
    data = {"train": rows, "validation": None, "labels": ["O", "B-x"]}
    line = refusal(settings(small, tmp_path, "tokens", data=data), DataError)
    assert "3 of 4 rows are bad" in line
    assert "first row 2: has 1 tags for 2 words" in line
    assert "2 of kind 'unknown tag', first row 3: the label is None, expected one of" in line


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_single_label_trains_and_is_told_of(
    task: str, small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "label": "pos"} for row in sentences(12)]
    outcome = train(settings(small, tmp_path, task, data={"train": rows}))
    assert outcome.finished
    said = "warning: every row of train is 'pos': nothing else can be learnt\n"
    assert said in capfd.readouterr().err
    assert outcome.validation is not None
    assert outcome.validation.figures["accuracy"] == 1.0
    run = settings(small, tmp_path, task, data={"train": sentences(12)})
    train(run, overwrite=True)
    assert "no other is learnt" not in capfd.readouterr().err


def test_updates_without_any_label_are_skipped_and_counted(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Sentences of no words have no label that counts."""
    lines = ["film\tB-x", "", "a\tO", "", "the\tO", ""]
    (tmp_path / "train.conll").write_text("\n".join(lines))
    (tmp_path / "run.toml").write_text(
        f'task = "tokens"\nmodel = "{small}"\n[data]\ntrain = "train.conll"\nmax_length = 16\n'
        "[training]\nbatch_size = 1\nepochs = 2\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "minibert.training.encoding.aligned",
            lambda tags, ids, every: [-100] * len(ids) if tags == [0] else [-100, tags[0], -100],
        )
        assert cli.main(["train", str(tmp_path / "run.toml")]) == 0
    assert "updates that were skipped, for they had no label: 2\n" in capfd.readouterr().out


def test_settings_that_do_not_fit_are_refused(small: Path, tmp_path: Path) -> None:
    rows = sentences()
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"data": {"train": ""}}, RunError, "data.train is missing"),
        ({"data": {"train": rows}, "loss": {"name": "mse"}}, RunError, "expected cross_entropy or"),
        ({"data": {"train": rows}, "loss": {"class_weights": [1.0]}}, RunError, "has 1 numbers"),
        ({"data": {"train": rows}, "loss": {"pos_weight": "balanced"}}, RunError, "class_weights"),
        (
            {
                "data": {"train": rows},
                "head": {"num_labels": 1},
                "loss": {"class_weights": "balanced"},
            },
            RunError,
            "take pos_weight",
        ),
        (
            {"data": {"train": rows}, "loss": {"name": "focal", "label_smoothing": 0.1}},
            RunError,
            "goes with cross_entropy",
        ),
        ({"data": {"train": rows}, "training": {"metric": "f2"}}, RunError, "metric is 'f2'"),
        ({"data": {"train": "x.csv"}}, DataError, "x.csv"),
        ({"data": {"train": rows, "text": "txt"}}, DataError, "no column 'txt'"),
        (
            {"data": {"train": [{"text": f"{i}", "label": i} for i in range(5)]}},
            LabelError,
            "'3' stands once, first in row 4",
        ),
    ]
    for tables, kind, said in cases:
        assert said in refusal(settings(small, tmp_path, "binary", **tables), kind)


def test_tokenizer_of_another_model_is_refused_before_the_data_is_read(
    small: Path, tmp_path: Path
) -> None:
    """Its ids would be met after hours, or never, and what is saved could not be opened."""
    shutil.copytree(small, tmp_path / "mixed")
    tokenizer = Tokenizer.from_pretrained(small)
    with (tmp_path / "mixed" / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("foreign\n")
    run = settings(small, tmp_path, "binary", data={"train": "gone.csv"}, model="mixed")
    said = refusal(run, TokenizerError)
    assert f"mixed: has token ids up to {tokenizer.vocab_size}, expected at most" in said
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_folder_that_holds_a_run_is_not_overwritten_unasked(small: Path, tmp_path: Path) -> None:
    run = settings(small, tmp_path, "binary", data={"train": sentences()})
    train(run)
    before = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    assert "holds a run already" in refusal(run, RunError)
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == before
    assert train(run, overwrite=True).finished
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == before  # the same run
    other = settings(small, tmp_path / "other", "binary", data={"train": sentences()})
    with pytest.raises(CheckpointError, match="no checkpoint to go on from"):
        train(other, resume=True)


def test_two_processes_do_not_share_a_folder(small: Path, tmp_path: Path) -> None:
    run = settings(small, tmp_path, "binary", data={"train": sentences()})

    class Second(Observer):
        said: tuple[str, ...] = ()

        def after_update(self, trainer: Trainer, record: StepRecord) -> None:
            if record.step == 1:
                for how in ({}, {"resume": True}, {"overwrite": True}):
                    with pytest.raises(RunError) as caught:
                        train(run, **how)
                    self.said += (str(caught.value),)

    second = Second()
    assert train(run, observers=[second]).finished
    assert len(second.said) == 3
    for said in second.said:
        assert said == (
            f"{tmp_path / 'run'}: another process is training there; wait for it, or stop it"
        )


# ---- gone on with, and what was changed


def command(capfd: pytest.CaptureFixture[str], folder: Path, *args: str) -> tuple[int, str]:
    """The command's exit status, and what it says on standard error."""
    capfd.readouterr()
    code = cli.main(["train", str(folder / "run.toml"), *args])
    return code, capfd.readouterr().err


def a_short_run(small: Path, folder: Path) -> Path:
    """A run of eight updates, made up to the fourth."""
    folder.mkdir(exist_ok=True)
    write_csv(folder / "train.csv", sentences(20))
    (folder / "run.toml").write_text(
        f'task = "binary"\nmodel = "{small}"\n[data]\ntrain = "train.csv"\nvalidation = 0.2\n'
        "max_length = 16\n"
        "[training]\nepochs = 2\nbatch_size = 4\nseed = 7\nsave_every = 2\n"
        '[optimizer]\nlearning_rate = 1e-2\n[schedule]\nname = "linear"\n'
    )

    class Stop(Observer):
        def after_update(self, trainer: Trainer, record: StepRecord) -> None:
            trainer.stopping = record.step == 4

    outcome = train(RunConfig.from_file(folder / "run.toml"), observers=[Stop()])
    assert not outcome.finished
    assert outcome.validation is outcome.test is None
    return folder


CHANGES = [
    ("seed = 7", "seed = 8", "training.seed is 8, was 7"),
    ("batch_size = 4", "batch_size = 5", "training.batch_size is 5, was 4"),
    ("epochs = 2", "epochs = 3", "training.epochs is 3.0, was 2.0"),
    ('"linear"', '"cosine"', "schedule.name is 'cosine', was 'linear'"),
    ("validation = 0.2", "validation = 0.3", "data.validation is 0.3, was 0.2"),
    ("1e-2", "1e-3", "optimizer.learning_rate is 0.001, was 0.01"),
]


@pytest.mark.parametrize(("old", "new", "said"), CHANGES, ids=[new for _, new, _ in CHANGES])
def test_resuming_a_changed_run_is_refused_unless_changes_are_allowed(
    old: str, new: str, said: str, small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = a_short_run(small, tmp_path)
    before = files(folder / "run")
    toml = (folder / "run.toml").read_text()
    assert toml.count(old) == 1
    (folder / "run.toml").write_text(toml.replace(old, new))
    code, err = command(capfd, folder, "--resume")
    line = err.splitlines()[-1]
    assert code == 2
    assert line.startswith("minibert: ")
    assert f"is of another run, expected the same: {said}" in line
    assert "go on all the same by --allow-changes" in line
    assert files(folder / "run") == before
    code, err = command(capfd, folder, "--resume", "--allow-changes")
    assert code == 0
    assert f"gone on with all the same: {said}\n" in err
    figures = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    found = [line["step"] for line in figures if "loss" in line]
    assert found == list(range(1, len(found) + 1))
    assert (folder / "run" / "model" / "model.safetensors").exists()
    assert json.loads((folder / "run" / "run.json").read_bytes())["run"] == (
        RunConfig.from_file(folder / "run.toml").to_dict()
    )
    assert command(capfd, folder, "--resume")[0] == 0  # it is this run now


def test_resuming_with_other_data_or_another_model_is_refused_unless_allowed(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = a_short_run(small, tmp_path / "here")
    other = BertModel.from_pretrained(small)
    with torch.no_grad():
        other.embeddings.token.weight[7, 0] += 1.0
    other.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "vocab.txt").write_bytes((small / "vocab.txt").read_bytes())
    toml = (folder / "run.toml").read_text()
    (folder / "run.toml").write_text(toml.replace(str(small), str(tmp_path / "model")))
    rows = sentences(20)
    rows[3]["text"] += " bad"
    write_csv(folder / "train.csv", rows)
    code, err = command(capfd, folder, "--resume")
    assert code == 2
    assert f"model is '{tmp_path / 'model'}', was '{small}'; data changed; model changed; " in err
    code, err = command(capfd, folder, "--resume", "--allow-changes")
    assert code == 0
    for said in ("data changed", "model changed"):
        assert f"gone on with all the same: {said}\n" in err
    assert "the best evaluation is looked for anew" in err


def test_resuming_what_is_not_there_never_starts_anew(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = a_short_run(small, tmp_path / "here")
    shutil.rmtree(folder / "run" / "checkpoints")
    before = files(folder / "run")
    for args in (["--resume"], ["--resume", "--allow-changes"]):
        code, err = command(capfd, folder, *args)
        assert code == 2
        assert "run: has no checkpoint to go on from, expected one in checkpoints/; start" in err
        assert files(folder / "run") == before
    shutil.rmtree(folder / "run")
    assert command(capfd, folder, "--resume")[0] == 2
    assert files(folder / "run") == {".lock": b""}
    assert command(capfd, folder, "--allow-changes")[0] == 2
    assert command(capfd, folder, "--resume", "--overwrite") == (
        2, "minibert: got resume and overwrite, expected one of them\n",
    )  # fmt: skip
    with pytest.raises(RunError, match="got allow_changes without resume"):
        train(RunConfig.from_file(folder / "run.toml"), allow_changes=True)


def test_folder_with_checkpoints_alone_holds_a_run(small: Path, tmp_path: Path) -> None:
    folder = a_short_run(small, tmp_path)
    (folder / "run" / "run.json").unlink()
    with pytest.raises(RunError, match="holds a run already"):
        train(RunConfig.from_file(folder / "run.toml"))


def test_overwriting_that_is_refused_changes_nothing(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A slip in the run file must not cost the run that is there."""
    folder = a_short_run(small, tmp_path)
    assert command(capfd, folder, "--resume")[0] == 0
    before = files(folder / "run")
    toml = (folder / "run.toml").read_text()
    for old, new in (
        ('"train.csv"', '"trian.csv"'), (str(small), "nowhere"), ("epochs", "epcohs"),
        ("[schedule]", 'weight_decay = 1\n[loss]\nname = "mse"\n[schedule]'),
        ("seed = 7", 'seed = 7\nmetric = "f7"'), ("seed = 7", 'seed = 7\nfreeze = "7"'),
    ):  # fmt: skip
        (folder / "run.toml").write_text(toml.replace(old, new))
        assert command(capfd, folder, "--overwrite")[0] == 2
        assert files(folder / "run") == before


def test_leftovers_of_a_killed_process_are_swept_up(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = a_short_run(small, tmp_path)
    run = folder / "run"
    for name in ("run.json", "log.jsonl", "rejected.csv"):
        (run / f".{name}.abcd_123").write_text("half")
    for name in ("model", "checkpoints", "best", "checkpoints/step-0000006", "best/step-0000006"):
        path = run / name
        left = path.with_name(f".{path.name}.abcd_123")
        left.mkdir(parents=True)
        (left / "half").write_text("half")
    (run / ".mine").write_text("mine")
    assert command(capfd, folder, "--resume")[0] == 0
    assert sorted(p.name for p in run.rglob(".*")) == [".lock", ".mine"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---- stopped


def uninterrupted(small: Path, folder: Path) -> tuple[RunConfig, Outcome]:
    folder.mkdir()
    write_csv(folder / "train.csv", sentences(32))
    toml = f"""
task = "binary"
model = "{small}"
[data]
train = "train.csv"
validation = 0.25
max_length = 16
[training]
epochs = 4
batch_size = 4
save_every = 1
seed = 7
[optimizer]
learning_rate = 1e-2
"""
    (folder / "run.toml").write_text(toml)
    run = RunConfig.from_file(folder / "run.toml")
    return run, train(run)


def made(folder: Path) -> Mapping[str, bytes]:
    """What a run leaves, but for its timings."""
    last = "checkpoints/step-0000024/tensors.safetensors"
    names = ("model/model.safetensors", "model/config.json", last, "results.json")
    return {name: (folder / name).read_bytes() for name in names}


def log_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_stopped_by_a_signal_it_goes_on_bit_for_bit(small: Path, tmp_path: Path) -> None:
    uninterrupted(small, tmp_path / "whole")
    run, _ = uninterrupted(small, tmp_path / "parts")

    class Interrupt(Observer):
        def after_update(self, trainer: Trainer, record: StepRecord) -> None:
            # Behind an evaluation that was no better, which must not pass for an early stop.
            if trainer.best.since > 0 and not self.sent:
                self.sent = True
                os.kill(os.getpid(), signal.SIGTERM)

        sent = False

    stopped = train(run, overwrite=True, observers=[Interrupt()])
    assert not stopped.finished
    assert train(run, resume=True).finished
    assert made(tmp_path / "parts" / "run") == made(tmp_path / "whole" / "run")
    assert log_of(tmp_path / "parts" / "run") == log_of(tmp_path / "whole" / "run")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# ---- the command


def test_command_prints_a_template_and_trains(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "--print-config", "binary"]) == 0
    text = capfd.readouterr().out
    text = text.replace('"all-MiniLM-L6-v2"', f'"{small}"')
    text = text.replace("# max_length = 128", "max_length = 16")
    (tmp_path / "run.toml").write_text(text)
    write_csv(tmp_path / "train.csv", sentences())
    assert cli.main(["train", str(tmp_path / "run.toml")]) == 0
    out, err = capfd.readouterr()
    assert "macro_f1" in out
    assert f"the model is in {tmp_path / 'run' / 'model'}" in out
    assert f"the report is in {tmp_path / 'run' / 'report.html'}" in out
    assert "update 6 of 6" in err
    assert cli.main(["train", str(tmp_path / "run.toml")]) == 2
    assert "holds a run already; go on with it by --resume" in capfd.readouterr().err
    assert cli.main(["train"]) == 2
    assert "missing RUN.TOML; --print-config TASK writes one" in capfd.readouterr().err
