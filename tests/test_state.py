"""Checkpoints to go on from: whole or not at all, the newest whole one counts."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import minibert.training.state as state
from minibert.errors import CheckpointError
from minibert.training.state import load_state, save_state


def save(folder: Path, step: int, keep: int = 9) -> Path:
    tensors = {"a": torch.full((3,), float(step)), "b": torch.arange(4)}
    return save_state(folder, step, tensors, {"note": f"at {step}"}, keep=keep)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Failing:
    """Lets the first call fail, the next time the second, and so on."""

    def __init__(self) -> None:
        self.at, self.calls, self.failed = 0, 0, True

    def start(self) -> None:
        self.at, self.calls, self.failed = self.at + 1, 0, False

    def instead_of(self, real: Any) -> Any:
        return lambda *args, **named: self.call(real, *args, **named)

    def call(self, real: Any, *args: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            self.failed = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **named)

    def failed_at(self, action: Callable[[], object]) -> bool:
        """Run it; where a call failed it has to say so in one line."""
        try:
            action()
        except CheckpointError as error:
            said = str(error)
        else:
            said = ""
        assert self.failed == ("No space left" in said)
        assert "\n" not in said
        return self.failed


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert load_state(tmp_path / "none") == (None, [])
    place = save(tmp_path, 12)
    found, torn = load_state(tmp_path)
    assert found is not None
    assert not torn
    assert found.folder == place == tmp_path / "step-0000012"
    assert torch.equal(found.tensors["a"], torch.full((3,), 12.0))
    assert torch.equal(found.tensors["b"], torch.arange(4))
    assert (found.facts["note"], found.facts["step"]) == ("at 12", 12)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000012"]


def test_the_newest_counts_and_older_ones_go(tmp_path: Path) -> None:
    for step in (9, 10, 11, 10_000_000):
        save(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000011", "step-10000000"]
    found, _ = load_state(tmp_path)
    assert found is not None
    assert found.facts["step"] == 10_000_000


def test_the_same_step_may_be_written_again(tmp_path: Path) -> None:
    first = files(save(tmp_path, 3))
    assert files(save(tmp_path, 3)) == first


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_every_cut_and_every_flipped_byte_is_noticed(tmp_path: Path, name: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    whole = path.read_bytes()
    broken = [whole[:n] for n in range(0, len(whole), 7)]
    if name == "tensors.safetensors":  # of the JSON a letter of a note may change
        broken += [
            whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(0, len(whole), 5)
        ]
    for content in broken:
        path.write_bytes(content)
        found, torn = load_state(tmp_path)
        assert found is not None
        assert found.facts["step"] == 1
        assert len(torn) == 1
        assert "step-0000002 is torn and passed over" in torn[0]
    path.unlink()
    assert load_state(tmp_path)[1]


def test_a_failure_of_any_call_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write, flush and rename fails once, until a save meets no failure any more."""
    save(tmp_path, 1)
    before = files(tmp_path)
    failing = Failing()
    for owner, name in (
        (state, "save_file"), (state, "flush"), (Path, "write_text"), (os, "rename"),
        (state.tempfile, "mkdtemp"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, failing.instead_of(getattr(owner, name)))
    while failing.failed:
        failing.start()
        if failing.failed_at(lambda: save(tmp_path, 2, keep=2)):
            found, torn = load_state(tmp_path)
            assert found is not None
            assert not torn
        assert all(files(tmp_path)[name] == content for name, content in before.items())
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".part-")]
    assert failing.at >= 7
    found, _ = load_state(tmp_path)
    assert found is not None
    assert found.facts["step"] == 2


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(tmp_path / "file" / "run", 1)
