"""Processes that are killed, disks that fill up, signals: a training run loses nothing."""

import csv
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from disks import small_disk
from forked import ONE_THREAD, Ended, Forked

from minibert import BertConfig, BertModel
from minibert.training.state import load_state, steps

pytestmark = pytest.mark.slow

WORDS = ["good", "fine", "nice", "bad", "poor", "sad", "film", "the", "a", "is", "was", "##s"]
Files = dict[str, bytes]


# ---- runs


# What the doctor saw begins anew where a run is gone on with; the others are drawn of the log.
ABOUT = (".lock", "curves.png", "doctor.json", "report.html")


class Place(NamedTuple):
    """A folder with a run file and its data, and what a run of it leaves."""

    folder: Path

    @property
    def toml(self) -> Path:
        return self.folder / "run.toml"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def checkpoints(self) -> Path:
        return self.run / "checkpoints"

    def how(self) -> str:
        """Go on, where there is something to go on from."""
        return "--resume" if steps(self.checkpoints) else "--overwrite"

    def made(self) -> Files:
        """All that is there, but for timings, where it is, and what is only about the run."""
        here = str(self.folder).encode()
        found = {
            str(path.relative_to(self.run)): path.read_bytes().replace(here, b"")
            for path in self.run.rglob("*")
            if path.is_file() and path.name not in ABOUT
        }
        if "log.jsonl" in found:
            lines = [json.loads(line) for line in found["log.jsonl"].splitlines()]
            timeless = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
            found["log.jsonl"] = json.dumps(timeless).encode()
        return found


RUN = """
task = "binary"
model = "{model}"
[data]
train = "train.csv"
validation = 0.3
test = "train.csv"
bad_rows = "quarantine"
labels = ["neg", "pos"]
max_length = 16
[training]
epochs = {epochs}
batch_size = 4
accumulate = 2
precision = "{precision}"
evaluate_every = {evaluate_every}
save_every = {save_every}
keep_checkpoints = {keep}
seed = 7
[schedule]
name = "plateau"
plateau_patience = 0
[optimizer]
learning_rate = 1e-2
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random encoder with its vocabulary, to start from."""
    folder = tmp_path_factory.mktemp("small")
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=16, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    return folder


def a_run(
    small: Path,
    folder: Path,
    *,
    epochs: float = 2,
    evaluate_every: int = 1,
    save_every: int = 1,
    keep: int = 2,
    precision: str = "fp32",
) -> Place:
    folder.mkdir(exist_ok=True)
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(20):
            text = f"{WORDS[7 + i % 2]} film is {WORDS[i % 6]} {i}"
            writer.writerow([text, "pos" if i % 6 < 3 else "neg"])
        writer.writerow(["a film", "odd"])  # which goes to rejected.csv
    (folder / "run.toml").write_text(
        RUN.format(
            model=small,
            epochs=epochs,
            evaluate_every=evaluate_every,
            save_every=save_every,
            keep=keep,
            precision=precision,
        )
    )
    return Place(folder)


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    with Forked() as found:
        yield found


def trained(forked: Forked, place: Place) -> Place:
    ended = forked.run("train", place.toml)
    assert ended.status == 0, ended.err
    return place


@pytest.fixture(scope="module")
def whole(forked: Forked, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run that nobody interrupted: 8 updates."""
    return trained(forked, a_run(small, tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def every_update(forked: Forked, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same run, whose checkpoints are all kept."""
    return trained(forked, a_run(small, tmp_path_factory.mktemp("every"), keep=99))


def tensors(place: Place, step: int) -> bytes:
    return (place.checkpoints / f"step-{step:07d}" / "tensors.safetensors").read_bytes()


def assert_nothing_is_lost(place: Place, every_update: Place, at_least: int) -> int:
    """All checkpoints are whole and those of the uninterrupted run; the update of the newest."""
    found = steps(place.checkpoints)
    newest, torn = load_state(place.checkpoints)
    assert not torn
    assert (newest is not None) == bool(found)
    for step in found:
        assert load_state(place.checkpoints, step=step)[0] is not None
        assert tensors(place, step) == tensors(every_update, step)
    assert max(found, default=0) >= at_least
    return max(found, default=0)


def test_what_is_forked_computes_what_the_command_does(
    small: Path, whole: Place, every_update: Place, tmp_path: Path
) -> None:
    place = a_run(small, tmp_path / "run")
    ended = command(place, "--overwrite")
    assert ended.wait() == 0
    assert place.made() == whole.made()
    assert steps(every_update.checkpoints) == list(range(8, 0, -1))
    names = {name.partition("/")[0] for name in whole.made()}
    assert names == {
        "checkpoints", "best", "model", "log.jsonl", "rejected.csv", "results.json", "run.json",
        "split.json", "examples.json",
    }  # fmt: skip


# ---- kills


def command(place: Place, *args: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "minibert", "train", str(place.toml), *args],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **ONE_THREAD},
    )


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_it_goes_on_bit_for_bit(
    seed: int, forked: Forked, small: Path, whole: Place, every_update: Place, tmp_path: Path
) -> None:
    """Killed again and again at random moments, until it comes to the end: 60 kills in all."""
    draw = random.Random(seed)
    kills = finished = 0
    lasts = forked.run("train", a_run(small, tmp_path / "measured").toml).seconds
    while kills < 20 or not finished:
        place = a_run(small, tmp_path / f"{finished}")
        newest = 0
        while True:
            after = draw.uniform(0, lasts) if kills < 20 else None
            ended = forked.run("train", place.toml, place.how(), kill_after=after)
            newest = assert_nothing_is_lost(place, every_update, newest)
            if not ended.killed:
                break
            kills += 1
        assert ended.status == 0, ended.err
        finished += 1
        assert place.made() == whole.made()
    assert kills == 20


def test_killed_at_every_call_that_writes_it_goes_on_bit_for_bit(
    forked: Forked, small: Path, every_update: Place, tmp_path: Path
) -> None:
    """In the middle of every file and between any two, from the first to the last."""
    done = trained(forked, a_run(small, tmp_path / "whole", epochs=0.5))
    assert steps(done.checkpoints) == [2, 1]
    seen, n = [], 0
    while True:
        n += 1
        place = a_run(small, tmp_path / "killed", epochs=0.5)
        ended = forked.run("train", place.toml, "--overwrite", fail_at=n)
        newest, torn = load_state(place.checkpoints)
        assert not torn
        seen.append(0 if newest is None else newest.facts["step"])
        if not ended.killed:
            break
        ended = forked.run("train", place.toml, place.how())
        assert ended.status == 0, ended.err
        assert place.made() == done.made()
        if n % 7:  # now and then the next run starts in what this one left
            remove(place.folder)
    assert set(seen) == {0, 1, 2}
    assert n > 100


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def test_processes_that_start_from_nothing_are_killed_too(
    small: Path, whole: Place, every_update: Place, tmp_path: Path
) -> None:
    """As it is in life: while modules are imported, rows are read, and later."""
    draw = random.Random(5)
    kills = finished = newest = 0
    while kills < 6 or not finished:
        place = a_run(small, tmp_path / f"{finished}")
        process = command(place, place.how())
        if kills < 6:
            time.sleep(draw.uniform(0.2, 3.0))
            process.kill()
        killed = process.wait() == -signal.SIGKILL
        kills += killed
        newest = assert_nothing_is_lost(place, every_update, newest)
        if not killed:
            assert process.returncode == 0
            assert place.made() == whole.made()
            finished, newest = finished + 1, 0


def test_second_process_on_a_run_is_refused_and_changes_nothing(
    forked: Forked, small: Path, tmp_path: Path
) -> None:
    place = a_run(small, tmp_path, epochs=10**5)
    first = command(place)
    try:
        while not steps(place.checkpoints):
            assert first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        before = place.made()
        for how in ([], ["--resume"], ["--overwrite"]):
            ended = forked.run("train", place.toml, *how)
            assert_refused(ended, "run: another process is training there; wait for it, or stop")
            assert place.made() == before
    finally:
        first.kill()
    assert first.wait() == -signal.SIGKILL
    place = a_run(small, tmp_path)  # the lock went with the process
    ended = forked.run("train", place.toml, "--overwrite")
    assert ended.status == 0, ended.err


def test_overwriting_that_is_killed_keeps_the_earlier_model_until_the_new_one_is_there(
    forked: Forked, small: Path, whole: Place, tmp_path: Path
) -> None:
    place = trained(forked, a_run(small, tmp_path / "run"))
    shutil.copytree(place.run, tmp_path / "before")
    before = place.made()
    place = a_changed(small, place.folder)
    calls = forked.run("train", place.toml, "--overwrite", fail_at=10**6).calls
    after = place.made()
    assert after == trained(forked, a_changed(small, tmp_path / "other")).made()
    assert model_of(after) != model_of(before)
    seen = []
    for n in [*range(1, calls - 40, 12), *range(calls - 40, calls)]:
        shutil.rmtree(place.run)
        shutil.copytree(tmp_path / "before", place.run)
        assert forked.run("train", place.toml, "--overwrite", fail_at=n).killed
        found = place.made()
        now = [model_of(before), model_of(after), {}].index(model_of(found))
        seen.append(now)
        if "results.json" in found:  # they are of the model beside them
            assert found["results.json"] == (before, after)[now]["results.json"]
    assert set(seen[:-40]) == {0}
    assert seen[-1] == 1
    assert sorted(set(seen)) == [0, 1, 2]  # for an instant there is neither


def model_of(files: Files) -> Files:
    return {name: content for name, content in files.items() if name.startswith("model/")}


def a_changed(small: Path, folder: Path) -> Place:
    place = a_run(small, folder)
    place.toml.write_text(place.toml.read_text().replace("seed = 7", "seed = 8"))
    return place


# ---- disks


def test_every_call_that_fails_is_one_line_and_loses_nothing(
    forked: Forked, small: Path, tmp_path: Path
) -> None:
    """Each write, flush, rename and folder of a run, with a disk that is full or broken."""
    done = trained(forked, a_run(small, tmp_path / "whole", epochs=0.5))
    n = 0
    while True:
        n += 1
        place = a_run(small, tmp_path / "failed", epochs=0.5)
        code = (errno.ENOSPC, errno.EIO)[n % 2]
        ended = forked.run("train", place.toml, fail_at=n, code=code)
        if ended.status == 0 and ended.calls < n:
            break
        if ended.status:  # else a folder was to be made that is there
            assert_refused(ended, os.strerror(code))
        assert_no_leftovers(place)
        _, torn = load_state(place.checkpoints)
        assert not torn
        ended = forked.run("train", place.toml, place.how())
        assert ended.status == 0, ended.err
        assert place.made() == done.made()
        remove(place.folder)
    assert n > 80


def assert_refused(ended: Ended, *said: str) -> str:
    """One line, behind those that tell of progress; gives it."""
    assert ended.status == 2, ended.err
    lines = [line for line in ended.err.splitlines() if line.startswith("minibert: ")]
    assert len(lines) == 1, ended.err
    assert ended.err.endswith(f"{lines[0]}\n")
    assert "Traceback" not in ended.err
    assert all(each in lines[0] for each in said), lines[0]
    return lines[0]


def assert_no_leftovers(place: Place) -> None:
    left = [p.name for p in place.run.rglob(".*") if p.name != ".lock"]
    assert not left


@pytest.mark.mount
def test_full_disk_is_one_line_and_with_room_it_goes_on_bit_for_bit(
    forked: Forked, small: Path, every_update: Place, tmp_path: Path
) -> None:
    """A real file system that has room for less than a run, in steps of a few kilobytes."""
    done = trained(forked, a_run(small, tmp_path / "whole"))
    refused: list[str] = []
    free = 0
    with small_disk(tmp_path / "disk", size=4 << 20) as disk:
        while True:
            place = a_run(small, disk / "place")
            ballast = fill_up(disk, leaving=free)
            ended = forked.run("train", place.toml)
            if ended.status == 0:
                break
            refused.append(assert_refused(ended, "No space left on device"))
            assert_no_leftovers(place)
            newest = assert_nothing_is_lost(place, every_update, 0)
            before = place.made()
            if newest:  # it fails in the same way, and still nothing is lost
                again = forked.run("train", place.toml, "--resume")
                assert again.status == 2
                assert_nothing_is_lost(place, every_update, newest)
                assert_no_leftovers(place)
                kept = [name for name in before if name.startswith("checkpoints/")]
                assert kept
            ballast.unlink()
            ended = forked.run("train", place.toml, place.how())
            assert ended.status == 0, ended.err
            assert place.made() == done.made()
            remove(place.folder)
            free += 4096 if free < 40960 else 8192
        assert place.made() == done.made()
    met = {what for what in WHAT for line in refused if what in line}
    assert met == set(WHAT)


# What the refusals of a full disk name.
WHAT = ("run/checkpoints/step-", "run/best/step-", "run/log.jsonl", "run/run.json")
MOMENTS = [
    ("Trainer._update 1", "log.jsonl", 0),
    ("Trainer._update 3", "run/", 2),  # its checkpoint, or the log before it
    ("Trainer.save 1", "checkpoints/step-0000001", 0),
    ("Trainer.save 4", "checkpoints/step-0000004", 3),
    ("Evaluation.__call__ 1", "run/best/step-0000001", 0),
    ("Evaluation.report 2", "run/model: what was trained is in the checkpoints, but cannot be", 8),
    ("save 1", "run/model: what was trained is in the checkpoints, but cannot be", 8),
]


@pytest.mark.mount
@pytest.mark.parametrize(("moment", "said", "newest"), MOMENTS, ids=[each[0] for each in MOMENTS])
def test_disk_that_somebody_else_fills_up_meanwhile(
    moment: str, said: str, newest: int, forked: Forked, small: Path, whole: Place,
    every_update: Place, tmp_path: Path,
) -> None:  # fmt: skip
    with small_disk(tmp_path / "disk", size=4 << 20) as disk:
        place = a_run(small, disk / "place")
        ended = forked.run("train", place.toml, moment=moment, fill=disk / "ballast")
        assert_refused(ended, said, "No space left on device")
        assert_no_leftovers(place)
        assert assert_nothing_is_lost(place, every_update, newest) == newest
        if newest:  # with as little room nothing changes
            ended = forked.run("train", place.toml, "--resume")
            assert_refused(ended, "No space left on device")
            assert assert_nothing_is_lost(place, every_update, newest) == newest
        (disk / "ballast").unlink()
        ended = forked.run("train", place.toml, place.how())
        assert ended.status == 0, ended.err
        assert place.made() == whole.made()


def fill_up(disk: Path, *, leaving: int) -> Path:
    """A file that leaves so much room on a disk."""
    ballast = disk / "ballast"
    room = os.statvfs(disk)
    ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - leaving))
    return ballast


@pytest.mark.mount
def test_disk_that_can_only_be_read_is_one_line_and_changes_nothing(
    forked: Forked, small: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", size=4 << 20) as disk:
        place = trained(forked, a_run(small, disk / "place"))
        before = place.made()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for how in ("--resume", "--overwrite"):
            ended = forked.run("train", place.toml, how)
            assert_refused(ended, "run: cannot be written to: Read-only file system")
        assert place.made() == before


# ---- signals

INT, TERM = signal.SIGINT, signal.SIGTERM
# When they come, which, and the update of the newest checkpoint then.
SIGNALS: list[tuple[str, tuple[int, ...], int]] = [
    ("read_dataset 1", (INT,), 0),
    ("read_dataset 1", (TERM,), 0),
    ("TextTask.network 1", (TERM,), 0),
    ("Trainer._update 1", (INT,), 1),
    ("Trainer._update 3", (INT,), 3),
    ("Trainer._update 3", (TERM,), 3),
    ("Trainer._update 8", (TERM,), 8),
    ("Evaluation.__call__ 1", (INT,), 3),
    ("Evaluation.__call__ 2", (TERM,), 6),
    ("Trainer.save 1", (TERM,), 4),
    ("Evaluation.report 1", (INT,), 8),
    ("Evaluation.report 2", (TERM,), 8),
    ("save 1", (INT,), 8),
    ("save 1", (TERM,), 8),
    # A second one ends it at once, of whichever kind.
    ("Trainer._update 6", (INT, INT), 4),
    ("Trainer._update 6", (TERM, INT), 4),
    ("Trainer._update 6", (INT, TERM), 4),
    ("Evaluation.__call__ 2", (INT, INT), 4),
    ("Trainer.save 2", (TERM, TERM), 4),
]


@pytest.mark.parametrize(
    ("moment", "signals", "newest"), SIGNALS,
    ids=[f"{moment} {'+'.join(str(int(each)) for each in sent)}" for moment, sent, _ in SIGNALS],
)  # fmt: skip
def test_signal_ends_it_with_a_checkpoint_to_go_on_from(
    moment: str, signals: tuple[int, ...], newest: int, forked: Forked, small: Path,
    sparse: Place, tmp_path: Path,
) -> None:  # fmt: skip
    """Eight updates, evaluated after every third and saved after every fourth."""
    place = a_run(small, tmp_path, evaluate_every=3, save_every=4)
    ended = forked.run("train", place.toml, moment=moment, signals=signals)
    assert ended.status == 130, ended.err
    said = ended.err.splitlines()[-1]
    if newest:
        assert said == (
            f"minibert: stopped; the newest checkpoint is step-{newest:07d}: go on with minibert "
            f"train {place.toml} --resume"
        )
    else:
        assert said == "minibert: stopped, before there was a checkpoint to go on from"
    assert max(steps(place.checkpoints), default=0) == newest
    assert_no_leftovers(place)
    assert not (place.run / "results.json").exists()
    ended = forked.run("train", place.toml, *(["--resume"] if newest else []))
    assert ended.status == 0, ended.err
    found, wanted = place.made(), sparse.made()
    for files in (found, wanted):  # where it was stopped there is one more, or was
        for name in [name for name in files if name.startswith("checkpoints/")]:
            if not name.startswith("checkpoints/step-0000008/"):
                del files[name]
    assert {**found, "best": b""} == {**wanted, "best": b""}


@pytest.fixture(scope="module")
def sparse(forked: Forked, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("sparse")
    return trained(forked, a_run(small, folder, evaluate_every=3, save_every=4))


def test_signal_while_torch_is_imported_just_ends_it(small: Path, tmp_path: Path) -> None:
    place = a_run(small, tmp_path)
    for number in (INT, TERM):
        process = subprocess.Popen(
            [sys.executable, "-m", "minibert", "train", str(place.toml)],
            stderr=subprocess.PIPE, text=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        time.sleep(1.0)
        process.send_signal(number)
        _, said = process.communicate()
        assert process.returncode in (130, -number)
        assert not steps(place.checkpoints)
        assert not (place.run / "results.json").exists()
        assert "Traceback" not in said
