"""What tells people of a run: the log, whole whatever happens, and the bar."""

import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from failures import files_of_at_most

from minibert.errors import DataError
from minibert.training.loop import Best, StepRecord, Trainer
from minibert.training.reporters import Log, Progress


@pytest.fixture
def trainer() -> Trainer:
    """Enough of one to be told of."""
    found = object.__new__(Trainer)
    found.step, found.total, found.best = 0, 40, Best()
    return found


def record(step: int, **values: Any) -> StepRecord:
    return StepRecord(
        **{
            "step": step,
            "epoch": 0,
            "loss": 0.5,
            "count": 4.0,
            "learning_rate": 1e-3,
            "grad_norm": 1.0,
            "n_examples": 4,
            "n_tokens": 20,
            "seconds": 0.1,
            **values,
        }
    )


@pytest.fixture
def logged(tmp_path: Path, trainer: Trainer) -> Iterator[Log]:
    log = Log(tmp_path / "log.jsonl", from_step=0)
    yield log
    log.close()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# ---- the log


def test_log_has_a_line_an_update_and_an_evaluation_at_once(
    logged: Log, trainer: Trainer, tmp_path: Path
) -> None:
    logged.after_update(trainer, record(1, loss=0.25))
    trainer.step = 1
    assert lines(tmp_path) == [vars(record(1, loss=0.25))]  # nothing waits in this process
    logged.after_evaluation(trainer, {"macro_f1": 0.5, "roc_auc": math.nan, "loss": math.inf})
    assert lines(tmp_path)[1:] == [
        {"step": 1, "evaluation": {"macro_f1": 0.5, "roc_auc": None, "loss": None}}
    ]
    logged.after_update(trainer, record(2, grad_norm=math.nan))
    assert lines(tmp_path)[2]["grad_norm"] is None
    logged.at_end(trainer)
    logged.close()  # twice is no harm


def test_log_of_a_new_run_starts_empty(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    Log(tmp_path / "log.jsonl", from_step=0).close()
    assert (tmp_path / "log.jsonl").read_bytes() == b""
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize(
    "tail", [b"", b'{"step": 4, "lo', b"\0\0\0", b'{"step": 3}', b"\xff\n", b"7\n", b"\n"]
)
def test_log_is_gone_on_with_behind_the_checkpoint(
    tmp_path: Path, trainer: Trainer, tail: bytes
) -> None:
    """Lines of updates that are made again go, and what a killed process left of one."""
    path = tmp_path / "log.jsonl"
    log = Log(path, from_step=0)
    for step in (1, 2, 3):
        log.after_update(trainer, record(step))
        trainer.step = step
        log.after_evaluation(trainer, {"loss": 0.5})
    log.close()
    kept = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept) + tail)
    log = Log(path, from_step=2)
    assert path.read_bytes() == b"".join(kept[:4])
    log.after_update(trainer, record(3))
    log.close()
    assert path.read_bytes() == b"".join(kept[:5])


def test_damaged_line_takes_no_others_with_it(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st\xff\n{"step": 2}\n{"step": 3}\n')
    Log(path, from_step=2).close()
    assert lines(tmp_path) == [{"step": 1}, {"step": 2}]


def test_log_without_a_file_to_go_on_with_begins_one(tmp_path: Path) -> None:
    Log(tmp_path / "log.jsonl", from_step=7).close()
    assert lines(tmp_path) == []


def test_log_that_meets_a_full_disk_keeps_whole_lines(
    logged: Log, trainer: Trainer, tmp_path: Path
) -> None:
    logged.after_update(trainer, record(1))
    path = tmp_path / "log.jsonl"
    before = path.read_bytes()
    said = re.escape(f"{path}: cannot be written: File too large; make room, and go on with --res")
    for extra in range(0, len(before), 10):
        with files_of_at_most(len(before) + extra), pytest.raises(DataError, match=said):
            logged.after_update(trainer, record(2))
        assert path.read_bytes() == before
    logged.after_update(trainer, record(2))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_log_is_on_the_disk_before_a_checkpoint(
    logged: Log, trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []
    monkeypatch.setattr("os.fsync", flushed.append)
    logged.after_update(trainer, record(1))
    assert not flushed
    logged.before_save(trainer)
    assert flushed == [logged._file.fileno()]

    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(DataError, match="cannot be written: Input/output error; make room"):
        logged.before_save(trainer)


def test_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(DataError, match=r"log\.jsonl: cannot be written: Is a directory; make"):
        Log(tmp_path / "log.jsonl", from_step=0)


# ---- the bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("shown", "terminal", "seen"), [
    (None, True, True), (None, False, False), (True, False, True), (False, True, False),
])  # fmt: skip
def test_bar_is_shown_on_a_terminal_or_when_asked_for(
    shown: bool | None, terminal: bool, seen: bool, trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    progress = Progress(shown=shown)
    progress.say("before")
    assert stream.getvalue() == "before\n"
    for step in (5, 6):
        progress.after_update(trainer, record(step))
    progress.say("a line")
    progress.at_end(trainer)
    text = stream.getvalue()
    assert ("6/40" in text) == seen
    assert ("training" in text) == seen
    assert "a line\n" in text


def test_bar_shows_loss_rate_and_speed_of_the_last_updates(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stream := Terminal())
    progress = Progress()
    progress.at_end(trainer)  # before there is a bar
    progress.after_update(trainer, record(1, loss=1.0, n_examples=100, seconds=0.5))
    bar = progress._bar
    assert bar.postfix == "loss 1.0000, rate 1.0e-03, 200 examples/s"
    progress.after_update(trainer, record(2, loss=0.0, n_examples=5, seconds=0.525))
    # 0.95 · 1.0 + 0.05 · 0.0; (95 + 5) examples in (0.475 + 0.525) seconds
    assert bar.postfix == "loss 0.9500, rate 1.0e-03, 100 examples/s"
    assert (bar.n, bar.total) == (2, 40)
    progress.at_end(trainer)
    assert bar.disable  # closed
    assert "loss 0.9500" in stream.getvalue()


def test_evaluation_is_a_line_with_its_first_figures(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stream := io.StringIO())
    trainer.step = 7
    figures = {name: i / 8 for i, name in enumerate("abcdefg")}
    trainer.best = Best(0.5, 3, 1)
    Progress().after_evaluation(trainer, figures)
    trainer.best = Best(0.5, 7, 0)
    Progress().after_evaluation(trainer, {"f1": 0.5})
    first, second = stream.getvalue().splitlines()
    assert first == ("update 7 of 40: a 0.0000, b 0.1250, c 0.2500, d 0.3750, e 0.5000, f 0.6250")
    assert second == "update 7 of 40: f1 0.5000  (best)"
