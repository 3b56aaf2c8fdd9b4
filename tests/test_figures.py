"""Observers that draw and write what a run does: what they leave, and that they end no run."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from strategies import TINY

from minibert import BertForSequenceClassification
from minibert.training import figures
from minibert.training.curves import Curve, RunLog
from minibert.training.examples import Examples
from minibert.training.figures import Curves, TensorBoard
from minibert.training.loop import Observer, StepRecord, Trainer
from minibert.training.reporters import Log
from minibert.training.run_config import RunConfig
from minibert.training.text_task import text_task


def trainer_of(*observers: Observer, epochs: int = 2) -> Trainer:
    """Trains a tiny network on four examples, two updates an epoch."""
    torch.manual_seed(0)
    targets = [0, 1, 2, 0]
    data = Examples([[2, 5 + i, 3] for i in range(4)], [[0] * 3 for _ in range(4)], targets)
    training = {"epochs": epochs, "batch_size": 2}
    run = RunConfig.from_dict({"task": "multiclass", "training": training})
    task = text_task(run, TINY.labels, targets)
    values = iter((0.25, 0.75, 0.5, 0.25, 0.125))
    return Trainer(
        BertForSequenceClassification(TINY),
        task.objective,
        data,
        run,
        evaluate=lambda model: {"macro_f1": next(values), "roc_auc": float("nan")},
        metric="macro_f1",
        observers=observers,
    )


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    return folder


# ---- curves


class Drawn:
    """Stands in for `draw`: takes `seconds` each time, and keeps what it was asked for."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.calls: list[dict[str, Any]] = []
        self.seconds = seconds
        self.now = 100.0

    def __call__(self, log: RunLog, path: Path, **settings: Any) -> None:
        self.now += self.seconds
        self.calls.append({"path": path, "step": log.step, **settings})

    def put(self, monkeypatch: pytest.MonkeyPatch) -> "Drawn":
        monkeypatch.setattr(figures, "draw", self)
        monkeypatch.setattr(figures.time, "perf_counter", lambda: self.now)
        return self


def test_curves_are_drawn_of_a_whole_run(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    said: list[str] = []
    trainer_of(Log(folder / "log.jsonl", from_step=0), Curves(folder, say=said.append)).run()
    with Image.open(folder / "curves.png") as picture:
        assert picture.format == "PNG"
    assert said == []
    assert {each.name for each in folder.iterdir()} == {"log.jsonl", "curves.png"}


def test_curves_are_drawn_at_each_evaluation_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, folder = Drawn().put(monkeypatch), folder_of(tmp_path)
    log = Log(folder / "log.jsonl", from_step=0)
    trainer_of(log, Curves(folder, say=pytest.fail)).run()
    assert [call["step"] for call in drawn.calls] == [2, 4, 4]
    assert drawn.calls[0] == {
        "path": folder / "curves.png",
        "step": 2,
        "metric": "macro_f1",
        "max_grad_norm": 1.0,
        "title": "run  ·  update 2 of 4",
    }


def test_curves_of_a_resumed_run_begin_where_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has all, also what was before, but for what is made again; it is what is drawn."""
    folder = folder_of(tmp_path)
    trainer_of(Log(folder / "log.jsonl", from_step=0), epochs=2).run()
    kept: list[RunLog] = []
    monkeypatch.setattr(figures, "draw", lambda log, path, **settings: kept.append(log))
    resumed = trainer_of(
        Log(folder / "log.jsonl", from_step=2), Curves(folder, say=pytest.fail), epochs=3
    )
    resumed.step = 2
    resumed.run()
    assert kept[-1].updates["loss"].steps == [1, 2, 3, 4, 5, 6]
    assert kept[-1].evaluations["macro_f1"] == Curve([2, 4, 6], [0.25, 0.25, 0.75])


def test_curves_take_a_twentieth_of_the_time_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Updates of no length and pictures of one second: the first, and the last. Then slow ones."""
    drawn, folder = Drawn(seconds=1.0).put(monkeypatch), folder_of(tmp_path)
    log = Log(folder / "log.jsonl", from_step=0)
    trainer_of(log, Curves(folder, say=pytest.fail), epochs=5).run()
    assert [call["step"] for call in drawn.calls] == [2, 10]

    class Slow(Observer):
        def after_update(self, trainer: Trainer, record: StepRecord) -> None:
            drawn.now += 9.5

    drawn.calls.clear()
    log = Log(folder / "log.jsonl", from_step=0)
    trainer_of(log, Curves(folder, say=pytest.fail), Slow(), epochs=5).run()
    assert [call["step"] for call in drawn.calls] == [2, 4, 6, 8, 10, 10]


def test_curves_that_cannot_be_drawn_end_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, said once; when there is room again, the picture comes."""
    folder = folder_of(tmp_path)
    said: list[str] = []
    left = [OSError(28, "No space left on device")] * 2

    def draw(log: RunLog, path: Path, **settings: Any) -> None:
        if left:
            raise left.pop()
        path.touch()

    monkeypatch.setattr(figures, "draw", draw)
    monkeypatch.setattr(figures.time, "perf_counter", lambda: 0.0)
    found = trainer_of(Log(folder / "log.jsonl", from_step=0), Curves(folder, say=said.append))
    found.run()
    assert found.step == found.total
    assert said == [
        f"{folder}/curves.png: not drawn, training goes on: "
        "OSError: [Errno 28] No space left on device"
    ]
    assert (folder / "curves.png").exists()


def test_curves_without_matplotlib_say_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path)
    said: list[str] = []
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    trainer_of(Log(folder / "log.jsonl", from_step=0), Curves(folder, say=said.append)).run()
    assert said == [
        f"{folder}/curves.png: not drawn, training goes on: matplotlib is not installed: pip "
        "install matplotlib"
    ]


def test_curves_without_a_log_say_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    said: list[str] = []
    trainer_of(Curves(folder, say=said.append)).run()
    assert len(said) == 1
    assert "FileNotFoundError" in said[0]
    assert "\n" not in said[0]


# ---- TensorBoard


class Writer:
    """Stands in for torch's SummaryWriter, which needs the package tensorboard."""

    made: "list[Writer]" = []  # noqa: RUF012 - emptied by the fixture
    failing: OSError | None = None

    def __init__(self, folder: str, purge_step: int, flush_secs: int) -> None:
        self.folder, self.purge_step = folder, purge_step
        self.scalars: dict[str, list[tuple[int, float]]] = {}
        self.closed = False
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if self.failing and step == 2:
            raise self.failing
        self.scalars.setdefault(name, []).append((step, value))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> type[Writer]:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "made", [])
    return Writer


class Records(Observer):
    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        self.records.append(record)


def board(folder: Path, say: Callable[[str], object], **settings: Any) -> TensorBoard:
    return TensorBoard(folder, **{"enabled": True, "from_step": 0, "say": say, **settings})


def expected(records: list[StepRecord]) -> Mapping[str, list[tuple[int, float]]]:
    """The scalars of a run of four updates and two evaluations; what is no number is left out."""
    return {
        "train/loss": [(each.step, each.loss) for each in records],
        "train/learning_rate": [(each.step, each.learning_rate) for each in records],
        "train/grad_norm": [(each.step, each.grad_norm) for each in records],
        "train/examples_per_second": [(each.step, 2 / each.seconds) for each in records],
        "validation/macro_f1": [(2, 0.25), (4, 0.75)],
    }


def test_scalars_are_those_of_updates_and_evaluations(tmp_path: Path, writer: type[Writer]) -> None:
    kept = Records()
    trainer_of(board(tmp_path, pytest.fail), kept).run()
    (made,) = writer.made
    assert made.folder == str(tmp_path / "tensorboard")
    assert made.scalars == expected(kept.records)
    assert made.purge_step == 1
    assert made.closed


def test_scalars_of_a_resumed_run_take_the_place_of_later_ones(
    tmp_path: Path, writer: type[Writer]
) -> None:
    board(tmp_path, pytest.fail, from_step=7)
    assert writer.made[0].purge_step == 8


def test_scalars_are_written_only_where_they_are_asked_for(
    tmp_path: Path, writer: type[Writer]
) -> None:
    trainer_of(board(tmp_path, pytest.fail, enabled=False)).run()
    assert writer.made == []


def test_scalars_that_cannot_be_written_end_no_run(
    tmp_path: Path, writer: type[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "failing", OSError(28, "No space left on device"))
    said: list[str] = []
    found = trainer_of(board(tmp_path, said.append))
    found.run()
    assert found.step == found.total
    assert said == [
        f"{tmp_path}/tensorboard: not written, training goes on: "
        "OSError: [Errno 28] No space left on device"
    ]
    assert [step for step, _ in writer.made[0].scalars["train/loss"]] == [1]


def test_without_tensorboard_it_is_said_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said: list[str] = []
    trainer_of(board(tmp_path, said.append)).run()
    assert said == [
        f"{tmp_path}/tensorboard: not written, training goes on: tensorboard is not installed: "
        "pip install tensorboard"
    ]
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None,
    reason="tensorboard is not installed: pip install tensorboard -c constraints.txt",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard and protobuf
def test_tensorboard_reads_the_scalars(tmp_path: Path) -> None:
    """Of a run that was stopped behind its third update, and gone on with behind its second."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = trainer_of(board(tmp_path, pytest.fail))
    first.total = 3
    first.run()
    kept = Records()
    second = trainer_of(board(tmp_path, pytest.fail, from_step=2), kept)
    second.step = 2
    second.run()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert set(read.Tags()["scalars"]) == set(expected([]))
    losses = [(event.step, event.value) for event in read.Scalars("train/loss")]
    assert [step for step, _ in losses] == [1, 2, 3, 4]
    assert losses[2:] == [(each.step, pytest.approx(each.loss)) for each in kept.records]
    assert [event.step for event in read.Scalars("validation/macro_f1")] == [2, 4]
