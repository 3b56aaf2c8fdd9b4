"""Whatever a run writes is there as it was or as it shall be, whichever call fails or is killed."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from failures import Failing, KilledError, each_failure, files_of_at_most
from strategies import TINY

from minibert import BertForSequenceClassification, Tokenizer
from minibert.errors import MinibertError
from minibert.files import sweep
from minibert.prediction.settings import PredictionSettings
from minibert.training import run as runs
from minibert.training.loop import StepRecord, Trainer
from minibert.training.problems import Problems
from minibert.training.reporters import Log
from minibert.training.rows import Place
from minibert.training.run_config import RunConfig
from minibert.training.state import load_state, prune, save_state, steps
from minibert.training.text_task import text_task

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"]


Files = dict[str, bytes]


def files(folder: Path) -> Files:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---- every call that writes, failing


def at_once(found: Files, versions: list[Files], folder: Path) -> bool:
    """All files are of one version."""
    return found in versions


def folder_at_once(found: Files, versions: list[Files], folder: Path) -> bool:
    """Between two renames there may be neither."""
    return found in versions or not found


def each_file(found: Files, versions: list[Files], folder: Path) -> bool:
    """Every file is of some version."""
    return all(found.get(path) in [v[path] for v in versions] for path in versions[0])


def newest_whole(found: Files, versions: list[Files], folder: Path) -> bool:
    """A checkpoint loads; one that is being deleted may be torn, and is not reached."""
    checkpoint, said = load_state(folder / "checkpoints")
    return checkpoint is not None and checkpoint.facts["version"] in (1, 2) and not said


def results_of_model(found: Files, versions: list[Files], folder: Path) -> bool:
    """The model is of one version, or gone; where there are results, they are of the same."""
    model = {path: content for path, content in found.items() if path != "results.json"}
    for version in versions:
        whole = {path: content for path, content in version.items() if path != "results.json"}
        if model == whole:
            return found.get("results.json") in (None, version["results.json"])
    return not found


class Writer(NamedTuple):
    """Something that a run writes, in two versions; the second takes the place of the first."""

    write: Callable[[Path, int], object]
    killed: Callable[[Files, list[Files], Path], bool] = at_once  # may a kill leave that?
    failed: Callable[[Files, list[Files], Path], bool] = at_once  # may an error?


def a_checkpoint(folder: Path, version: int) -> None:
    tensors = {"a": torch.full((40,), float(version)), "b": torch.arange(4)}
    save_state(folder / "checkpoints", 7, tensors, {"version": version})


def a_next_checkpoint(folder: Path, version: int) -> None:
    place = folder / "checkpoints"
    save_state(place, version, {"a": torch.full((40,), float(version))}, {"version": version})
    prune(place, [version])


def a_network(version: int) -> BertForSequenceClassification:
    torch.manual_seed(version)
    return BertForSequenceClassification(TINY.with_labels([f"a{version}", "b"]))


@cache
def a_tokenizer(version: int) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join([*VOCAB, f"word{version}"]))
        return Tokenizer.from_pretrained(folder)


def a_model(folder: Path, version: int) -> None:
    a_network(version).save_pretrained(folder / "model")


def a_model_with_results(folder: Path, version: int) -> None:
    task = text_task(RunConfig.from_dict({"task": "multiclass"}), ("a", "b"), [0, 1])
    asked = PredictionSettings(task="multiclass", max_length=16)
    runs.save(folder, task, a_network(version), a_tokenizer(version), asked, {"best_step": version})


NOBODY = object.__new__(Trainer)


def a_log(folder: Path, version: int) -> None:
    """First four updates, then gone on with from the second."""
    path = folder / "log.jsonl"
    log = Log(path, from_step=2 if version == 2 else 0)
    try:
        for step in range(1, 5) if version == 1 else ():
            log.after_update(NOBODY, a_record(step))
        log.before_save(NOBODY)
    finally:
        log.close()


def a_record(step: int) -> StepRecord:
    return StepRecord(
        step=step, epoch=0, loss=0.5, count=4.0, learning_rate=1e-3, grad_norm=1.0, n_examples=4,
        n_tokens=20, seconds=0.1,
    )  # fmt: skip


def bad_rows(folder: Path, version: int) -> None:
    problems = Problems()
    for n in range(10 * version):
        problems.add(Place("a.csv", n), "columns", f"has {version}")
    problems.write(folder / "rejected.csv")


WRITERS = {
    "checkpoint of the same update": Writer(a_checkpoint, folder_at_once),
    "checkpoint": Writer(a_next_checkpoint, newest_whole, newest_whole),
    "model": Writer(a_model, each_file),
    "tokenizer": Writer(lambda folder, n: a_tokenizer(n).save_pretrained(folder), each_file),
    "model of a run, and its results": Writer(
        a_model_with_results, results_of_model, results_of_model
    ),
    "run.json": Writer(lambda folder, n: runs.write_json(folder / "run.json", {"version": n})),
    "log.jsonl": Writer(a_log),
    "rejected.csv": Writer(bad_rows),
}


def before_and_after(writer: Writer, folder: Path) -> list[Files]:
    """The files of either version."""
    writer.write(folder, 1)
    old = files(folder)
    writer.write(folder, 2)
    new = files(folder)
    assert old != new
    return [old, new]


def put_back(folder: Path, content: Files) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, each in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(each)


def outcome(failing: Failing, write: Callable[[], object]) -> str:
    """Run it; where a call failed it must say so in one line."""
    try:
        with failing:
            write()
    except (MinibertError, OSError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_call_that_fails_leaves_the_old_or_the_new(
    name: str, code: int, tmp_path: Path
) -> None:
    """Each write, flush, rename, and folder made fails once; nothing is mixed, nothing left over.

    What is refused was not done, but where only the last flush failed, behind the renames.
    """
    writer = WRITERS[name]
    versions = before_and_after(writer, tmp_path)
    n_old = 0
    for failing in each_failure(code):
        put_back(tmp_path, versions[0])
        said = outcome(failing, lambda: writer.write(tmp_path, 2))
        found = files(tmp_path)
        assert writer.failed(found, versions, tmp_path)
        assert not [path for path in found if "/." in f"/{path}"]  # nothing half done
        n_old += found == versions[0]
        if said:
            assert failing.failed
            assert os.strerror(code) in said
            assert "\n" not in said
        else:  # nothing failed, or the making of a folder that is there, or what deletes an old one
            assert found.items() >= versions[1].items()
    assert failing.at >= 4
    assert n_old >= failing.at - (3 if writer.failed is at_once else 20)


@pytest.mark.parametrize("name", WRITERS)
def test_every_call_that_is_killed_leaves_the_old_or_the_new(name: str, tmp_path: Path) -> None:
    """Nothing is mixed; what is left over has a name of its own, and is swept up the next time."""
    writer = WRITERS[name]
    versions = before_and_after(writer, tmp_path)
    seen = []
    for failing in each_failure(None):
        put_back(tmp_path, versions[0])
        try:
            with failing:
                writer.write(tmp_path, 2)
        except KilledError:
            assert failing.failed
        sweep_up(tmp_path)
        seen.append(files(tmp_path))
        assert writer.killed(seen[-1], versions, tmp_path)
        put_back(tmp_path, {})
    assert seen[0] == versions[0]
    assert seen[-1] == versions[1]
    assert len(seen) >= 5


def sweep_up(folder: Path) -> None:
    """As the next process does."""
    sweep(folder, "*.json", "log.jsonl", "rejected.csv", "model")
    sweep(folder / "model", "*.json", "*.safetensors")
    prune(folder / "checkpoints", steps(folder / "checkpoints"))


@pytest.mark.parametrize("name", ["model", "run.json", "log.jsonl", "rejected.csv"])
def test_disk_that_fills_up_at_any_byte_leaves_the_old(name: str, tmp_path: Path) -> None:
    """The system's own refusal, in the middle of a file."""
    writer = WRITERS[name]
    old, new = before_and_after(writer, tmp_path)
    size = max(len(content) for content in new.values())
    for limit in [*range(0, size, max(1, size // 40)), size - 1]:
        put_back(tmp_path, old)
        with (
            pytest.raises(MinibertError, match=r"^[^\n]*cannot be written[^\n]*File too large"),
            files_of_at_most(limit),
        ):
            writer.write(tmp_path, 2)
        assert files(tmp_path) == old
    with files_of_at_most(size):
        writer.write(tmp_path, 2)
    assert files(tmp_path) == new
