"""Runs that have ended: measured on their own rows and others, thresholds fitted; the command."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import hand_made, save_small
from small_runs import run_of, save_encoder

from minibert import (
    BertForSequenceClassification,
    BertForTokenClassification,
    TextClassifier,
    TextScorer,
    TokenTagger,
    cli,
)
from minibert.checkpoint import Pretrained
from minibert.errors import ConfigError, DataError, RunError
from minibert.prediction.settings import PredictionSettings
from minibert.training.dataset import read_dataset
from minibert.training.evaluation import Evaluation
from minibert.training.run import train
from minibert.training.run_config import RunConfig
from minibert.training.saved_run import SavedRun, read_run, run_values
from minibert.training.tags import complete
from minibert.training.tasks import prediction_settings
from minibert.training.text_task import TextTask, text_task

GOOD = ["good", "fine", "good film", "the film is fine"]
BAD = ["bad", "poor", "bad film", "odd", "the film is bad", "poor film ."]


def rows_of(texts: Sequence[str], label: Any) -> list[dict[str, Any]]:
    return [{"text": text, "label": label} for text in texts]


ROWS = rows_of(GOOD, "pos") + rows_of(BAD, "neg")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def saved(run: RunConfig, model: Pretrained, labels: Sequence[str], **settings: Any) -> Path:
    """The folder of a run with this model, as training leaves it."""
    folder = run.path(run.output)
    (folder / "model").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run_values(run, folder)))
    task = text_task(run, labels, [])
    asked = replace(prediction_settings(run, labels, task), **settings)
    save_small(model, folder / "model", asked)
    return folder


def two_labels(strength: float = 8.0) -> BertForSequenceClassification:
    """What says "pos" where it finds good or fine, "neg" where it finds bad, poor or odd."""
    words = {"good": 2, "fine": 2, "bad": 1, "poor": 1, "odd": 1}
    return hand_made(BertForSequenceClassification, words, strength=strength, attends=True)


def binary_run(folder: Path, **tables: Any) -> Path:
    """A run of two labels that was measured on two files."""
    write_csv(folder / "dev.csv", ROWS)
    write_csv(folder / "test.csv", ROWS[3:])
    data = {"validation": "dev.csv", "test": "test.csv", **tables.pop("data", {})}
    return saved(run_of("binary", folder, data=data, **tables), two_labels(), ("neg", "pos"))


# ---- opened


def test_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    run = run_of(
        "multilabel", tmp_path / "here", output="there/run",
        data={"label": ["a", "b"], "validation": 0.25, "max_length": 9}, training={"seed": 5},
    )  # fmt: skip
    folder = tmp_path / "here" / "there" / "run"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run_values(run, folder)))
    found = read_run(folder)
    assert replace(found, folder=run.folder) == run
    assert found.path("x.csv").resolve() == run.path("x.csv").resolve()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "{folder}: holds no run, expected the output folder of minibert train"),
        ("{", "{folder}/run.json: is no JSON: Expecting property name"),
        ("[" * 100_000, "{folder}/run.json: is no JSON: "),
        ("\udcff", "{folder}/run.json: is no JSON: 'utf-8' codec can't decode"),
        ("[]", "{folder}/run.json: is a list, expected what minibert train writes"),
        ("{}", "{folder}/run.json: holds no run, expected what minibert train writes"),
        ('{"run": []}', "{folder}/run.json: holds no run, expected what minibert train writes"),
        ('{"run": {"tsk": 1}}', "{folder}/run.json: tsk is no key, expected task?"),
        ('{"run": {"task": 1}}', "{folder}/run.json: task is 1, expected a string"),
    ],
)
def test_folder_without_a_run_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError) as caught:
        SavedRun(tmp_path)
    assert str(caught.value).startswith(said.format(folder=tmp_path))
    assert "\n" not in str(caught.value)


def test_run_without_a_model_or_its_settings_is_refused(tmp_path: Path) -> None:
    folder = binary_run(tmp_path)
    (folder / "model" / "minibert.json").unlink()
    with pytest.raises(ConfigError, match=r"minibert\.json: cannot be read: No such file"):
        SavedRun(folder)
    shutil.rmtree(folder / "model")
    with pytest.raises(RunError) as caught:
        SavedRun(folder)
    assert str(caught.value) == (
        f"{folder}: has no model, which a run gets at its end; go on with minibert train --resume"
    )


def test_device_that_is_not_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device is 'cuda:99', which is not here"):
        SavedRun(binary_run(tmp_path), device="cuda:99")


# ---- measured


def test_model_is_measured_on_its_own_rows_and_on_others(tmp_path: Path) -> None:
    run = SavedRun(binary_run(tmp_path))
    assert run.labels == ("neg", "pos")
    report = run.evaluate(run.own_examples("validation"))
    assert (report.n_examples, report.confusion) == (10, [[6, 0], [0, 4]])
    assert run.evaluate(run.own_examples("test")).n_examples == 7
    # In Python rows may be made, too.
    report = run.evaluate(run.examples(rows_of(GOOD, "neg")))
    assert report.confusion == [[0, 4], [0, 0]]


def test_other_files_are_found_from_here_and_the_own_ones_from_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = binary_run(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    write_csv(tmp_path / "elsewhere" / "new-1.csv", ROWS[:2])
    write_csv(tmp_path / "elsewhere" / "new-2.csv", ROWS[2:3])
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = SavedRun(Path("../run"))
    for source, n_rows in (("new-1.csv", 2), ("new-*.csv", 3), (Path("new-2.csv"), 1)):
        assert len(run.examples(source)) == n_rows
    assert len(run.examples(folder.parent / "dev.csv")) == 10
    assert len(run.own_examples("validation")) == 10
    with pytest.raises(DataError, match=r"elsewhere/dev\.csv"):
        run.examples("dev.csv")


def test_thresholds_and_temperature_of_the_model_decide(tmp_path: Path) -> None:
    """A threshold above what 8 of odds come to lets none be positive, unless they are cooled."""
    run = SavedRun(binary_run(tmp_path))
    examples = run.own_examples("validation")
    high = replace(run.settings, thresholds=(0.999,))
    for settings, confusion in (
        (high, [[6, 0], [4, 0]]), (replace(high, temperature=0.01), [[6, 0], [0, 4]]),
        (replace(run.settings, thresholds=(0.0,)), [[0, 6], [0, 4]]),
    ):  # fmt: skip
        settings.save(run.model_folder)
        assert SavedRun(run.folder).evaluate(examples).confusion == confusion


def test_head_is_measured_as_it_was_saved(tmp_path: Path) -> None:
    """What it started from was for training."""
    head = {"init_std": 1.0, "bias_from_prior": True, "dropout": 0.9}
    folder = binary_run(tmp_path, head=head, training={"dropout": 0.9})
    run = SavedRun(folder)
    assert run.evaluate(run.own_examples("validation")).confusion == [[6, 0], [0, 4]]
    weighted = {"class_weights": "balanced", "label_smoothing": 0.1}
    write = replace(run.run, loss=replace(run.run.loss, **weighted))
    (folder / "run.json").write_text(json.dumps(run_values(write, folder)))
    again = SavedRun(folder)
    assert again.evaluate(again.own_examples("validation")).confusion == [[6, 0], [0, 4]]
    assert again.evaluate(again.examples(ROWS[:4])).confusion == [[0, 0], [0, 4]]  # of one label


def test_one_logit_has_two_names(tmp_path: Path) -> None:
    write_csv(tmp_path / "dev.csv", ROWS)
    run = run_of("binary", tmp_path, head={"num_labels": 1}, data={"validation": "dev.csv"})
    words = {"good": 1, "fine": 1}
    model = hand_made(BertForSequenceClassification, words, labels=["pos"], attends=True)
    with torch.no_grad():
        model.classifier.bias.fill_(-0.1)
    opened = SavedRun(saved(run, model, ("neg", "pos")))
    assert opened.labels == ("neg", "pos")
    assert opened.settings.labels == ("neg", "pos")
    report = opened.evaluate(opened.own_examples("validation"))
    assert report.confusion == [[6, 0], [0, 4]]
    assert list(opened.fit(opened.own_examples("validation")).thresholds) == ["pos"]
    assert SavedRun(opened.folder).settings.labels == ("neg", "pos")


def test_numbers_and_tags_are_measured(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    model = hand_made(BertForSequenceClassification, {"good": 1}, labels=["score"])
    run = SavedRun(saved(run_of("regression", tmp_path / "a"), model, ()))
    assert run.labels == ()
    numbers = [{"text": "good", "label": 5.0}, {"text": "odd", "label": 1.0}]
    report = run.evaluate(run.examples(numbers))
    assert report.figures["mae"] == pytest.approx(3.0)  # it says 0, of [CLS] alone
    tagger = hand_made(BertForTokenClassification, {"anna": 2, "paris": 2}, labels=["O", "B-x"])
    run = SavedRun(saved(run_of("tokens", tmp_path / "b"), tagger, ("O", "B-x")))
    assert run.labels == ("O", "B-x")
    rows = [{"tokens": ["anna", "lives"], "tags": ["B-x", "O"]}]
    assert run.evaluate(run.examples(rows)).figures["span_f1"] == 1.0


def test_numbers_are_those_of_the_model_whatever_they_are_compared_with(tmp_path: Path) -> None:
    """Beside targets of a hundred million they are not rounded as such a number is."""
    model = hand_made(BertForSequenceClassification, {"good": 1}, labels=["score"], attends=True)
    run = SavedRun(saved(run_of("regression", tmp_path), model, ()))
    texts = ["good", "good film", "odd"]
    rows = [{"text": text, "label": 1e8 - 8 * i} for i, text in enumerate(texts)]
    assert run.evaluate(run.examples(rows)).figures["spearman"] == pytest.approx(1.0)


# ---- the rows of the run


def test_folder_may_be_moved_with_its_rows(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    binary_run(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert len(SavedRun(tmp_path / "b" / "run").own_examples("validation")) == 10


def test_rows_that_are_not_there_any_more_are_refused(tmp_path: Path) -> None:
    run = SavedRun(binary_run(tmp_path))
    alone = run_of("binary", tmp_path, output="alone")
    opened = SavedRun(saved(alone, two_labels(), ("neg", "pos")))
    for side in ("validation", "test"):
        with pytest.raises(RunError) as caught:
            opened.own_examples(side)
        assert str(caught.value) == (
            f"{tmp_path}/alone: the run has no data.{side}, expected some; give DATA, a file of "
            f"rows, or train with data.{side}"
        )
    (tmp_path / "test.csv").unlink()
    assert len(run.own_examples("validation")) == 10  # which needs no other rows
    with pytest.raises(DataError, match=r"test\.csv"):
        run.own_examples("test")


def test_rows_given_in_python_are_gone(tmp_path: Path) -> None:
    write_csv(tmp_path / "dev.csv", ROWS)
    for number, (data, refused, kept) in enumerate((
        ({"train": ROWS, "validation": 0.3, "test": "dev.csv"}, "validation", "test"),
        ({"train": ROWS, "validation": "dev.csv", "test": ROWS}, "test", "validation"),
        ({"train": "gone.csv", "validation": ROWS, "test": "dev.csv"}, "validation", "test"),
    )):  # fmt: skip
        run = run_of("binary", tmp_path, output=f"run-{number}", data=data)
        opened = SavedRun(saved(run, two_labels(), ("neg", "pos")))
        with pytest.raises(RunError) as caught:
            opened.own_examples(refused)
        assert str(caught.value) == (
            f"{opened.folder}: its {refused} rows were given in Python, expected files; give DATA, "
            "a file of rows"
        )
        assert len(opened.own_examples(kept)) == 10


def shared_run(folder: Path, **tables: Any) -> RunConfig:
    """A run of which a share of train is for validation, with its split.json."""
    write_csv(folder / "train.csv", [{**row, "n": f"a/{i}"} for i, row in enumerate(ROWS)])
    run = run_of("binary", folder, data={"validation": 0.3, **tables.pop("data", {})}, **tables)
    saved(run, two_labels(), ("neg", "pos"))
    return run


@pytest.mark.parametrize("data", [{}, {"id": "n"}], ids=["by-place", "by-name"])
def test_share_of_train_is_what_it_was(
    tmp_path: Path, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shared_run(tmp_path, data=data)
    opened = SavedRun(tmp_path / "run")
    found = read_dataset(run, opened.tokenizer)
    (tmp_path / "run" / "split.json").write_text(json.dumps(found.split))
    assert found.validation is not None
    assert opened.own_examples("validation").ids == found.validation.ids
    monkeypatch.chdir(tmp_path / "run")  # from where the places of the rows are others
    assert SavedRun(Path()).own_examples("validation").ids == found.validation.ids


def test_share_of_other_rows_is_refused(tmp_path: Path) -> None:
    """Some of them may have been trained on."""
    run = shared_run(tmp_path)
    opened = SavedRun(tmp_path / "run")
    with pytest.raises(RunError, match=r"run/split\.json: cannot be read: No such file"):
        opened.own_examples("validation")
    split = read_dataset(run, opened.tokenizer).split
    (tmp_path / "run" / "split.json").write_text(json.dumps(split))
    assert len(opened.own_examples("validation")) == 3
    for rows in ([*ROWS, {"text": "good good", "label": "pos"}], ROWS[::-1], ROWS[1:]):
        write_csv(tmp_path / "train.csv", rows)
        with pytest.raises(RunError) as caught:
            opened.own_examples("validation")
        assert str(caught.value) == (
            f"{tmp_path}/run: the rows of data.train are not those that it was trained on, so that "
            "a share of them is no longer what it was; give DATA, a file of rows that are new to it"
        )
    write_csv(tmp_path / "train.csv", ROWS)
    (tmp_path / "run" / "split.json").write_text('{"train": 3}')
    with pytest.raises(RunError, match="are not those that it was trained on"):
        opened.own_examples("validation")


# ---- fitted


def rare_labels(folder: Path, **data: Any) -> RunConfig:
    """A model whose second label is never likelier than 0.3, though its odds are the right ones."""
    labels = [
        ["x", "y"] if text in GOOD else ["x"] if text in BAD[:3] else [] for text in GOOD + BAD
    ]
    rows = [{"text": t, "label": ",".join(x)} for t, x in zip(GOOD + BAD, labels, strict=True)]
    write_csv(folder / "dev.csv", rows)
    write_csv(folder / "test.csv", rows[2:8])
    run = run_of(
        "multilabel", folder,
        data={"validation": "dev.csv", "test": "test.csv", "label_separator": ",", **data},
    )  # fmt: skip
    words = {"bad": 1, "poor": 1, "good": 2, "fine": 2}
    model = hand_made(
        BertForSequenceClassification, words, labels=["x", "y"], strength=2.0, attends=True
    )
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, -2.0]))
    saved(run, model, ("x", "y"))
    return run


def test_fitted_thresholds_raise_the_f1_and_are_saved(tmp_path: Path) -> None:
    rare_labels(tmp_path)
    run = SavedRun(tmp_path / "run")
    examples = run.own_examples("validation")
    before = run.evaluate(examples).figures["macro_f1"]
    fitted = run.fit(examples)
    assert list(fitted.thresholds) == ["x", "y"]
    assert fitted.thresholds["y"] < 0.5
    kept = PredictionSettings.of(tmp_path / "run" / "model")
    assert kept.thresholds == tuple(fitted.thresholds.values())
    assert kept.temperature == fitted.calibration.temperature
    assert (kept.task, kept.max_length, kept.pairs) == ("multilabel", 128, False)
    for opened in (run, SavedRun(tmp_path / "run")):
        report = opened.evaluate(examples)
        assert report.figures["macro_f1"] > before
        assert report.per_class["y"].f1 == 1.0
    # What was fitted before makes no difference.
    assert SavedRun(tmp_path / "run").fit(examples) == fitted


def test_thresholds_are_fitted_on_validation_rows_alone(tmp_path: Path) -> None:
    """Whatever the rows of test say; they need not even be there."""
    rare_labels(tmp_path)
    found = []
    for test in ("as they are", [{"text": "good", "label": "x"}] * 9, None):
        if test is None:
            (tmp_path / "test.csv").unlink()
        elif not isinstance(test, str):
            write_csv(tmp_path / "test.csv", test)
        run = SavedRun(tmp_path / "run")
        found.append(run.fit(run.own_examples("validation")))
    assert found[0] == found[1] == found[2]


def test_thresholds_are_fitted_on_what_a_vote_is_decided_by(tmp_path: Path) -> None:
    """Of odds 1, 1 and -5 in three windows the merged ones, of the two that agree, are 1."""
    data = {"max_length": 4, "long_text": "windows", "window_overlap": 0, "merge_windows": "vote"}
    write_csv(tmp_path / "dev.csv", [
        {"text": "good film fine film bad film", "label": "pos"},
        {"text": "good film bad film odd film", "label": "neg"},
    ])  # fmt: skip
    run = run_of("binary", tmp_path, data={"validation": "dev.csv", **data})
    opened = SavedRun(saved(run, two_labels(), ("neg", "pos")))
    examples = opened.own_examples("validation")
    assert len(examples) == 6
    opened.fit(examples)
    assert opened.evaluate(examples).figures["macro_f1"] == 1.0


def test_classes_have_a_temperature_alone_and_numbers_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    labels = ("neg", "pos", "odd")
    words = {"bad": 1, "poor": 1, "good": 2, "fine": 2, "odd": 3}
    model = hand_made(
        BertForSequenceClassification, words, labels=labels, strength=99.0, attends=True
    )
    run = SavedRun(saved(run_of("multiclass", tmp_path), model, labels))
    rows = rows_of(GOOD, "pos") + rows_of(["bad", "poor"], "neg") + rows_of(["odd", "good"], "odd")
    fitted = run.fit(run.examples(rows))
    assert fitted.thresholds == {}
    assert fitted.calibration.temperature > 1  # it was too sure of "good"
    assert fitted.calibration.ece_after < fitted.calibration.ece_before
    assert SavedRun(run.folder).settings.temperature == fitted.calibration.temperature
    assert SavedRun(run.folder).settings.thresholds == ()
    number = hand_made(BertForSequenceClassification, {"good": 1}, labels=["score"])
    run = SavedRun(saved(run_of("regression", tmp_path / "a"), number, ()))
    with pytest.raises(RunError) as caught:
        run.fit(run.examples([{"text": "good", "label": 1.0}]))
    assert str(caught.value) == (
        f"{tmp_path}/a/run: its task is 'regression', expected one of binary, multiclass, "
        "multilabel to fit thresholds"
    )


# ---- the command


def test_command_prints_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = binary_run(tmp_path)
    assert cli.main(["evaluate", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert err == "on the test rows of the run\n"
    assert "accuracy         1.0000\n" in out
    assert "target \\ predicted" in out
    assert cli.main(["evaluate", str(folder), str(tmp_path / "dev.csv"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert (found["n_examples"], found["figures"]["macro_f1"]) == (10, 1.0)
    write_csv(tmp_path / "one.csv", ROWS[:2])
    assert cli.main(["evaluate", str(folder), str(tmp_path / "one.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["roc_auc"] is None  # of one label alone


def test_command_fits_on_validation_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rare_labels(tmp_path)
    folder = str(tmp_path / "run")
    assert cli.main(["evaluate", folder, "--fit-thresholds"]) == 0
    out, err = capsys.readouterr()
    assert err == "on the test rows of the run\n"
    lines = out.splitlines()
    kept = PredictionSettings.of(tmp_path / "run" / "model")
    assert lines[:2] == [
        f"threshold of {name}: {value:.4f}"
        for name, value in zip("xy", kept.thresholds, strict=True)
    ]
    assert lines[2].startswith(f"temperature: {kept.temperature:.4f}, calibration error ")
    assert cli.main(["evaluate", folder, "--fit-thresholds", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["n_examples"] == 6
    assert "threshold of x: " in err


def test_command_says_where_the_figures_are_too_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "dev.csv", ROWS)
    run = run_of("binary", tmp_path, data={"validation": "dev.csv"})
    folder = str(saved(run, two_labels(), ("neg", "pos")))
    assert cli.main(["evaluate", folder]) == 0
    assert capsys.readouterr().err == "on the validation rows of the run\n"
    assert cli.main(["evaluate", folder, "--fit-thresholds"]) == 0
    out, err = capsys.readouterr()
    assert err == "on the validation rows of the run, which the thresholds were fitted on\n"
    assert "threshold of pos: 0.5" in out
    assert "; left at 1, for every example is right, so that no temperature is low enough\n" in out


def test_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = binary_run(tmp_path)
    alone = str(saved(run_of("binary", tmp_path, output="b"), two_labels(), ("neg", "pos")))
    made = run_of("binary", tmp_path, output="c", data={"train": ROWS, "validation": 0.3})
    in_python = str(saved(made, two_labels(), ("neg", "pos")))
    (tmp_path / "empty").mkdir()
    write_csv(tmp_path / "odd.csv", rows_of(["good", "bad"], "strange"))
    write_csv(tmp_path / "other.csv", [{"review": "good", "label": "pos"}])
    unfinished = tmp_path / "unfinished"
    shutil.copytree(folder, unfinished)
    shutil.rmtree(unfinished / "model")
    cases = [
        ([str(tmp_path / "empty")], "empty: holds no run, expected the output folder of minibert"),
        ([str(tmp_path / "gone")], "gone: holds no run, expected the output folder of minibert tr"),
        ([str(unfinished)], "unfinished: has no model, which a run gets at its end; go on with"),
        ([alone], "b: the run has no data.validation, expected some; give DATA, a file of rows,"),
        (
            [alone, "--fit-thresholds", str(tmp_path / "dev.csv")],
            "b: the run has no data.validation",
        ),
        ([in_python], "c: its validation rows were given in Python, expected files; give DATA"),
        ([str(folder), str(tmp_path / "gone.csv")], "gone.csv"),
        (
            [str(folder), str(tmp_path / "odd.csv")],
            "2 of 2 rows are bad; 2 of kind 'unknown label'",
        ),
        ([str(folder), str(tmp_path / "other.csv")], "has no column 'text'"),
        ([str(folder), "--device", "cuda:99"], "device is 'cuda:99', which is not here"),
        ([], "RUN"),
    ]
    for arguments, said in cases:
        assert cli.main(["evaluate", *arguments]) == 2, arguments
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
        last = err.splitlines()[-1]
        assert last.startswith("minibert: ")
        assert "Traceback" not in err
        assert len([line for line in err.splitlines() if not line.startswith("on the ")]) == 1


# ---- as prediction has it


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


WORDS = ["good", "fine", "bad", "poor", "odd", "film", "the", "is"]


def made(
    encoder: Path, folder: Path, task: str, rows: list[dict[str, Any]], *, updates: int,
    labels: Sequence[str] = (), **tables: Any,
) -> SavedRun:  # fmt: skip
    """A run of so many updates, or of none, whose model says whatever its fresh head says."""
    for name, part in (("train", rows), ("dev", rows[::2])):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)) + "\n")
    head = {"init_std": 1.0, **tables.pop("head", {})}
    data = {"train": "train.jsonl", "validation": "dev.jsonl", "max_length": 16}
    run = RunConfig.from_dict(
        {
            "task": task, "model": str(encoder), "data": data | tables.pop("data", {}),
            "training": {"epochs": max(1, updates) / 3, "batch_size": 8, "evaluate_every": 999},
            "optimizer": {"learning_rate": 3e-3}, "head": head, **tables,
        },
        folder=folder,
    )  # fmt: skip
    if updates:
        assert train(run, show_progress_bar=False).finished
    else:
        model = text_task(run, labels, []).network(run, encoder)
        saved(run, model, labels)
    return SavedRun(folder / "run")


def texts_with(labels: Sequence[Any], n: int = 24) -> list[dict[str, Any]]:
    """Short and long texts, whose label is that of their first word."""
    rows = []
    for i in range(n):
        words = [WORDS[(i + 3 * k) % 8] for k in range(2 + 5 * i % 23)]
        rows.append({"text": " ".join(words), "label": labels[i % 8 * len(labels) // 8]})
    return rows


WINDOWS = {"long_text": "windows", "max_length": 8}
# What a fresh head says is as good as what a trained one says, but comes from training itself.
UPDATES = [0, pytest.param(12, marks=pytest.mark.slow)]


@pytest.mark.parametrize("updates", UPDATES)
@pytest.mark.parametrize(
    ("task", "labels", "tables"),
    [
        ("binary", ["neg", "pos"], {}),
        ("binary", ["neg", "pos"], {"data": WINDOWS}),
        ("binary", ["neg", "pos"], {"data": {**WINDOWS, "merge_windows": "vote"}}),
        (
            "binary", ["neg", "pos"],
            {"data": {**WINDOWS, "merge_windows": "vote"}, "head": {"num_labels": 1}},
        ),
        ("multiclass", ["a", "b", "c"], {"data": {**WINDOWS, "merge_windows": "vote"}}),
        ("multilabel", [["a"], ["a", "b"], [], ["c"]], {"data": WINDOWS}),
        (
            "multilabel", [["a"], ["a", "b"], [], ["c"]],
            {"data": {**WINDOWS, "merge_windows": "vote", "window_overlap": 3}},
        ),
    ],
    ids=["cut", "mean", "vote", "one-logit", "classes", "several", "several-vote"],
)  # fmt: skip
def test_classifier_decides_as_it_was_measured(
    task: str, labels: list[Any], tables: dict[str, Any], updates: int,
    encoder: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """On the same rows: with thresholds, a temperature, and windows."""
    rows = texts_with(labels)
    names = labels if isinstance(labels[0], str) else "abc"
    run = made(encoder, tmp_path, task, rows, updates=updates, labels=tuple(names), **tables)
    texts, examples = [row["text"] for row in rows], run.examples(rows)
    settings = [run.settings]
    fitted = run.fit(run.own_examples("validation"))
    assert SavedRun(run.folder).fit(run.own_examples("validation")) == fitted  # as if for the first
    settings += [run.settings, replace(run.settings, temperature=2.5)]
    for each in settings:
        each.save(run.model_folder)
        opened = SavedRun(run.folder)
        report = opened.evaluate(examples)
        classifier = TextClassifier.from_pretrained(run.folder)
        assert classifier.labels == opened.labels
        found = classifier.classify(texts)
        several = task == "multilabel"
        said = [x.labels if several else (x.label,) for x in found]
        wanted = [row["label"] if several else [row["label"]] for row in rows]
        for name, figures in report.per_class.items():
            assert figures.n_predicted == sum(name in labels for labels in said)
            right = [name in a and name in b for a, b in zip(said, wanted, strict=True)]
            assert figures.n_target == sum(name in b for b in wanted)
            if figures.n_predicted:
                assert figures.precision == pytest.approx(sum(right) / figures.n_predicted)
        exact = [set(a) == set(b) for a, b in zip(said, wanted, strict=True)]
        figure = report.figures["subset_accuracy" if several else "accuracy"]
        assert figure == pytest.approx(sum(exact) / len(exact))
        # Not the decisions alone: what they rest on.
        measured, model = opened._opened(examples)
        assert isinstance(measured, TextTask)
        with torch.no_grad():
            results = Evaluation(measured, opened.labels, examples).results(model)
            logits, _ = measured.scores(results, examples)
        logits = logits.view(len(texts), -1)
        torch.testing.assert_close(classifier.logits(texts), logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("updates", UPDATES)
def test_scorer_gives_the_numbers_that_were_measured(
    updates: int, encoder: Path, tmp_path: Path
) -> None:
    rows = texts_with([10.0, 20.0, 40.0])
    run = made(encoder, tmp_path, "regression", rows, updates=updates, data=WINDOWS)
    report = run.evaluate(run.examples(rows))
    found = TextScorer.from_pretrained(run.folder).score([row["text"] for row in rows])
    errors = [abs(x.score - row["label"]) for x, row in zip(found, rows, strict=True)]
    assert report.figures["mae"] == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert any(x.windows > 1 for x in found)


@pytest.mark.parametrize("updates", UPDATES)
@pytest.mark.parametrize("data", [{}, WINDOWS, {"label_all_pieces": True, "tag_scheme": "BIOES"}])
def test_tagger_tags_as_it_was_measured(
    data: dict[str, Any], updates: int, encoder: Path, tmp_path: Path
) -> None:
    words = ["anna", "smith", "films", "lives", "goodly", "in", "paris", "."]
    tags = ["B-p", "I-p", "O", "O", "O", "O", "B-l", "O"]
    rows = [
        {
            "tokens": [words[(i + k) % 8] for k in range(1 + 3 * i % 12)],
            "tags": [tags[(i + k) % 8] for k in range(1 + 3 * i % 12)],
        }
        for i in range(24)
    ]
    names = complete(tags, "BIOES") if "tag_scheme" in data else sorted(set(tags))
    run = made(encoder, tmp_path, "tokens", rows, updates=updates, labels=names, data=data)
    examples = run.examples(rows)
    report = run.evaluate(examples)
    found = TokenTagger.from_pretrained(run.folder).tag([row["tokens"] for row in rows])
    assert report.n_examples == len(rows)
    n_entities = sum(len(each.entities) for each in found)
    assert n_entities == sum(figures.n_predicted for figures in report.per_class.values())
    assert report.confusion is not None
    columns = zip(*report.confusion, strict=True)
    by_tag = dict(zip(report.labels, map(sum, columns), strict=True))
    said = [tag for each in found for tag in each.tags]
    assert by_tag == {tag: said.count(tag) for tag in report.labels}
    assert sum(by_tag.values()) == sum(len(row["tokens"]) for row in rows)


def test_measuring_again_gives_the_figures_of_training(encoder: Path, tmp_path: Path) -> None:
    tables = {"data": {**WINDOWS, "merge_windows": "vote"}, "head": {"init_std": 0.5, "hidden": 6}}
    run = made(encoder, tmp_path, "binary", texts_with(["neg", "pos"]), updates=3, **tables)
    results = json.loads((run.folder / "results.json").read_text())
    assert run.evaluate(run.own_examples("validation")).figures == pytest.approx(
        results["validation"]
    )
