"""Searches of small runs: what they leave, pruned, stopped, killed and gone on with, refused."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from PIL import Image
from small_runs import run_of, save_encoder

import minibert.training.run
from minibert import TextClassifier, cli
from minibert.errors import RunError
from minibert.files import exclusive
from minibert.training import tuning
from minibert.training.loop import Observer
from minibert.training.run import Outcome
from minibert.training.run_config import RunConfig
from minibert.training.search_space import Space, space_of
from minibert.training.tuning import Search, trial_folder, tune

pytestmark = pytest.mark.slow  # whole runs, seconds each

RATES = {"optimizer.learning_rate": {"low": 1e-4, "high": 3e-2, "log": True}}
TOML = """
task = "binary"
model = "encoder"
[data]
train = "train.csv"
validation = 0.25
max_length = 8
[training]
epochs = 2
batch_size = 8
metric = "loss"
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("small") / "encoder")


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of the trials' runs, which take longer than all else."""
    monkeypatch.setattr(minibert.training.run, "Curves", lambda folder, say: Observer())


def text_of(i: int) -> str:
    return f"the film is {('good', 'bad', 'fine', 'poor')[i % 4]} {'in paris ' * (i % 3)}"


def a_run(encoder: Path, folder: Path, **tables: Any) -> RunConfig:
    """Films, and whether they are liked; the loss of some decides."""
    rows = [{"text": text_of(i), "label": "ab"[i % 2]} for i in range(32)]
    training = {"epochs": 2, "batch_size": 8, "metric": "loss", "dropout": 0.0}
    training |= tables.pop("training", {})
    data = {"train": rows, "validation": 0.25, "max_length": 8} | tables.pop("data", {})
    return run_of("binary", folder, model=str(encoder), data=data, training=training, **tables)


def rates(run: RunConfig, *values: float) -> Space:
    return space_of({"optimizer.learning_rate": list(values)}, run)


def left(folder: Path) -> dict[str, Any]:
    """What a search leaves, but for timings, where it is, and what optuna knows."""
    found: dict[str, Any] = {"search": json.loads((folder / "tune.json").read_text())}
    for path in sorted((folder / "trials").rglob("*")):
        name = str(path.relative_to(folder))
        about = path.suffix in (".png", ".html") or path.name in (
            ".lock",
            "run.json",
            "doctor.json",
        )
        if path.is_file() and not about:
            text = path.read_bytes().replace(str(folder.parent).encode(), b"")
            if path.name == "log.jsonl":
                text = re.sub(rb'"seconds": [^}]*', b"", text)
            found[name] = text
    return found


def states(folder: Path) -> list[TrialState]:
    """How the trials that optuna knows of ended."""
    import optuna

    storage = RDBStorage(f"sqlite:///{folder / 'tune.db'}")
    found = optuna.load_study(study_name="tune", storage=storage).get_trials(deepcopy=False)
    storage.remove_session()
    storage.engine.dispose()
    return [trial.state for trial in found]


# ---- what it leaves


def test_grid_tries_all_and_keeps_the_model_of_the_best(encoder: Path, tmp_path: Path) -> None:
    run = a_run(encoder, tmp_path)
    space = space_of({"optimizer.learning_rate": [1e-6, 1e-2], "training.batch_size": [4, 8]}, run)
    said: list[str] = []
    found = tune(run, space=space, method="grid", say=said.append)
    assert [trial.values for trial in found.trials] == [
        {"optimizer.learning_rate": rate, "training.batch_size": size}
        for rate in (1e-6, 1e-2)
        for size in (4, 8)
    ]
    assert {trial.state for trial in found.trials} == {"complete"}
    assert found.best is not None
    assert found.best.value == min(trial.value for trial in found.trials if trial.value is not None)
    assert found.best.values["optimizer.learning_rate"] == 1e-2
    folder = tmp_path / "run"
    for trial in found.trials:
        place = trial_folder(folder, trial.number)
        is_best = trial.number == found.best.number
        assert (place / "model").exists() == is_best
        assert not (place / "checkpoints").exists()
        assert not (place / "best").exists()
        lines = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
        losses = [line["evaluation"]["loss"] for line in lines if "evaluation" in line]
        assert (len(losses), min(losses)) == (trial.n_evaluations, trial.value)
        assert json.loads((place / "results.json").read_text())["validation"]
    best = trial_folder(folder, found.best.number)
    assert TextClassifier.from_pretrained(best).labels == ("a", "b")
    written = json.loads((folder / "tune.json").read_text())
    assert written["best"]["values"] == found.best.values
    assert len(written["trials"]) == 4
    with Image.open(folder / "tune.png") as image:
        assert image.size[0] == 1210
    table = found.table().splitlines()
    assert table[0].split() == ["trial", "learning_rate", "batch_size", "loss", "state"]
    assert table[found.best.number].endswith("complete, the best")
    assert table[-4:-2] == ["[optimizer]", "learning_rate = 0.01"]
    assert sum(line.startswith("trial ") for line in said) == 4


def test_search_that_goes_on_is_that_which_never_stopped(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = a_run(encoder, tmp_path / "whole")
    tune(whole, space=space_of(RATES, whole), method="random", n_trials=2)
    parts = a_run(encoder, tmp_path / "parts")
    first = tune(parts, space=space_of(RATES, parts), method="random", n_trials=1)
    assert len(first.trials) == 1
    path = tmp_path / "parts" / "run" / "tune.json"  # as if killed before it was written
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "trials": [], "best": None}))
    tune(parts, space=space_of(RATES, parts), method="random", n_trials=1)
    assert json.loads(path.read_text()) == about
    again = tune(parts, space=space_of(RATES, parts), method="random", n_trials=2)
    assert again.trials[:1] == first.trials
    assert len({trial.values["optimizer.learning_rate"] for trial in again.trials}) == 2
    assert left(tmp_path / "parts" / "run") == left(tmp_path / "whole" / "run")


def test_trial_that_was_stopped_has_failed_and_is_done_anew(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(encoder, tmp_path)
    space = rates(run, 1e-4, 1e-3, 1e-2)
    train = tuning.train

    def stopped(run: RunConfig, **options: Any) -> Outcome:
        if run.output.endswith("002"):
            raise KeyboardInterrupt
        return train(run, **options)

    monkeypatch.setattr(tuning, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        tune(run, space=space, method="grid")
    monkeypatch.undo()
    found = tune(run, space=space, method="grid")
    assert [trial.values["optimizer.learning_rate"] for trial in found.trials] == [1e-4, 1e-3, 1e-2]
    complete, failed = TrialState.COMPLETE, TrialState.FAIL
    assert states(tmp_path / "run") == [complete, failed, complete, complete]


def test_trial_below_the_median_is_pruned(encoder: Path, tmp_path: Path) -> None:
    run = a_run(encoder, tmp_path)
    found = tune(run, space=rates(run, 9e-3, 1e-2, 1.1e-2, 1.2e-2, 1.3e-2, 1e-9), method="grid")
    *others, last = found.trials
    assert {trial.state for trial in others} == {"complete"}
    assert (last.state, last.n_evaluations) == ("pruned", 1)
    folder = trial_folder(tmp_path / "run", 6)
    assert (folder / "log.jsonl").exists()
    assert not (folder / "checkpoints").exists()
    assert found.best is not None
    assert found.best.number != 6


def test_trial_that_diverges_is_told_and_passed_over(encoder: Path, tmp_path: Path) -> None:
    run = a_run(encoder, tmp_path)
    said: list[str] = []
    found = tune(run, space=rates(run, 1e36, 1e-2), method="grid", say=said.append)
    assert [trial.state for trial in found.trials] == ["diverged", "complete"]
    assert found.trials[0].value is None
    assert found.best == found.trials[1]
    assert any("is not finite" in line for line in said)
    assert "diverged" in found.table()
    alone = Search(found.folder, "loss", found.space, found.trials[:1])
    assert alone.table().endswith("no trial came to its end; take lower rates, or more trials")


# ---- what is refused


def test_end_of_the_space_that_cannot_run_is_refused_before_the_first_trial(
    encoder: Path, tmp_path: Path
) -> None:
    run = a_run(encoder, tmp_path)
    for values, said in (
        ({"data.max_length": {"low": 8, "high": 999}}, "data.max_length = 999, with which one"),
        ({"training.freeze": ["", "0-9"]}, 'training.freeze = "0-9", with which one batch cannot'),
        ({"head.dropout": [0.1], "loss.name": ["cosent"]}, 'loss.name = "cosent", with which'),
    ):
        with pytest.raises(RunError, match=f"the space has {re.escape(said)}") as refused:
            tune(run.with_values({"training.metric": "macro_f1"}), space=space_of(values, run))
        assert "\n" not in str(refused.value)
        assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock"}


def test_weights_and_random_numbers_are_left_by_the_trial_of_the_ends(
    encoder: Path, tmp_path: Path
) -> None:
    run = a_run(encoder, tmp_path)
    with tuning.set_up_aside(run) as setup:
        before = {name: tensor.clone() for name, tensor in setup.model.state_dict().items()}
        random = torch.get_rng_state()
        tuning.check_ends(run, space_of(RATES, run), setup)
        assert torch.equal(torch.get_rng_state(), random)
        assert all(torch.equal(t, before[name]) for name, t in setup.model.state_dict().items())


def test_what_trials_cannot_be_compared_by_is_refused(encoder: Path, tmp_path: Path) -> None:
    run = a_run(encoder, tmp_path)
    space = space_of({"loss.label_smoothing": [0.0, 0.1]}, run)
    with pytest.raises(RunError, match=r"keys of \[loss\], and trials are compared by the loss"):
        tune(run, space=space)
    with pytest.raises(RunError, match=r"data\.validation is missing, expected files or a share"):
        tune(a_run(encoder, tmp_path, data={"validation": None}))
    with pytest.raises(RunError, match="method is 'bayes', expected one of grid, random, tpe"):
        tune(run, method="bayes")
    with pytest.raises(RunError, match="n_trials is 0, expected at least 1"):
        tune(run, n_trials=0)


def test_folder_of_another_search_is_refused_unless_it_is_to_go(
    encoder: Path, tmp_path: Path
) -> None:
    run, folder = a_run(encoder, tmp_path), tmp_path / "run"
    tune(run, space=rates(run, 1e-2), method="grid")
    with pytest.raises(RunError, match=r"space of optimizer.learning_rate is \[0.02\], was \[0.01"):
        tune(run, space=rates(run, 2e-2), method="grid")
    other = run.with_values({"training.epochs": 1.0})
    with pytest.raises(RunError, match=r"training.epochs is 1.0, was 2.0; put it back, give"):
        tune(other, space=rates(run, 1e-2), method="grid")
    found = tune(other, space=rates(run, 2e-2), method="grid", overwrite=True)
    assert [trial.values for trial in found.trials] == [{"optimizer.learning_rate": 2e-2}]
    assert states(folder) == [TrialState.COMPLETE]
    (folder / "tune.json").write_text("{}")
    with pytest.raises(RunError, match=r"tune\.json: is not what minibert tune writes"):
        tune(other, space=rates(run, 2e-2), method="grid")
    (folder / "tune.json").unlink()
    with pytest.raises(RunError, match=r"tune\.json: is gone, expected it beside tune\.db"):
        tune(other, space=rates(run, 2e-2), method="grid")
    with exclusive(folder / ".lock"), pytest.raises(RunError, match="another process is at work"):
        tune(other, space=rates(run, 2e-2), method="grid")


def test_optuna_that_is_missing_is_one_line(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"optuna is not installed.*minibert\[train,tune\]"):
        tune(a_run(encoder, tmp_path))


# ---- the command


def a_file(folder: Path) -> Path:
    """A run file with its data and its encoder; its folder."""
    save_encoder(folder / "encoder")
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(32):
            writer.writerow([text_of(i), "ab"[i % 2]])
    (folder / "run.toml").write_text(TOML)
    (folder / "space.toml").write_text(
        "[optimizer]\nlearning_rate = { low = 1e-4, high = 3e-2, log = true }\n"
        "[training]\nbatch_size = [4, 8]\n"
    )
    return folder


def test_command_prints_trials_and_the_settings_of_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    toml, space = (a_file(tmp_path) / name for name in ("run.toml", "space.toml"))
    args = ["tune", str(toml), "--space", str(space), "--trials", "2"]
    assert cli.main(args) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["trial", "learning_rate", "batch_size", "loss", "state"]
    assert re.search(r"\n\[optimizer\]\nlearning_rate = \S+\n\[training\]\nbatch_size = \d\n$", out)
    assert cli.main([*args, "--method", "random"]) == 2
    assert "method is 'random', was 'tpe'" in capsys.readouterr().err

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "tune", stopped)
    assert cli.main(args) == 130
    assert "stopped; started again, the same command goes on" in capsys.readouterr().err


def test_search_that_is_killed_at_any_moment_goes_on(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, parts = a_file(tmp_path / "whole"), a_file(tmp_path / "parts")

    def args(folder: Path) -> list[str | Path]:
        space = ["--space", folder / "space.toml", "--trials", "4", "--method", "tpe"]
        return ["tune", folder / "run.toml", *space]

    with Forked() as forked:
        one = forked.run(*args(whole))
        assert one.status == 0, one.err
        n_killed, share = 0, 0.15
        ended = forked.run(*args(parts), kill_after=share * one.seconds)
        while ended.killed:
            n_killed += 1
            share += 0.1  # so that it comes to its end, though each time another thing is cut off
            ended = forked.run(*args(parts), kill_after=share * one.seconds)
        assert ended.status == 0, ended.err
    assert n_killed >= 3
    assert left(parts / "run") == left(whole / "run")
    assert ended.out.replace(str(parts), "") == one.out.replace(str(whole), "")
    assert states(whole / "run") == [TrialState.COMPLETE] * 4
    found = states(parts / "run")
    assert found.count(TrialState.COMPLETE) == 4
    assert set(found) <= {TrialState.COMPLETE, TrialState.FAIL}


def test_trial_that_was_killed_has_failed_and_is_done_anew(tmp_path: Path) -> None:
    folder = a_file(tmp_path)
    args = ["tune", str(folder / "run.toml"), "--trials", "3", "--method", "random"]
    log = trial_folder(folder / "run", 2) / "log.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "minibert", *args], stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert states(folder / "run") == [TrialState.COMPLETE, TrialState.RUNNING]
    assert cli.main(args) == 0
    complete, failed = TrialState.COMPLETE, TrialState.FAIL
    assert states(folder / "run") == [complete, failed, complete, complete]
    trials = json.loads((folder / "run" / "tune.json").read_text())["trials"]
    assert [trial["number"] for trial in trials] == [1, 2, 3]
