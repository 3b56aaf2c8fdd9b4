"""Checkpoints to go on from: whole or not at all, the newest whole one counts."""

import errno
import json
import math
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from failures import KilledError, each_failure, files_of_at_most
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.errors import CheckpointError
from minibert.training.state import load_facts, load_state, prune, save_state, steps

FILES = ["tensors.safetensors", "state.json"]


def save(folder: Path, step: int, *, note: str = "") -> Path:
    tensors = {"a": torch.full((3,), float(step)), "b": torch.arange(4)}
    return save_state(folder, step, tensors, {"note": note or f"at {step}"})


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def newest(folder: Path) -> int:
    """The update of the newest whole checkpoint; nothing may be torn."""
    found, torn = load_state(folder)
    assert found is not None
    assert not torn
    return int(found.facts["step"])


# ---- saved and loaded


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert load_state(tmp_path / "none") == (None, [])
    assert steps(tmp_path / "none") == []
    place = save(tmp_path, 12)
    found, torn = load_state(tmp_path)
    assert found is not None
    assert not torn
    assert found.folder == place == tmp_path / "step-0000012"
    assert found.tensors.keys() == {"a", "b"}
    assert torch.equal(found.tensors["a"], torch.full((3,), 12.0))
    assert torch.equal(found.tensors["b"], torch.arange(4))
    assert (found.facts["note"], found.facts["step"]) == ("at 12", 12)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000012"]


@settings(max_examples=15)
@given(
    facts=st.dictionaries(
        st.text(max_size=3).filter(lambda name: name not in ("step", "sha256", "tensors_sha256")),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner),
            max_leaves=4,
        ),
        max_size=4,
    )
)
def test_facts_come_back_to_the_last_bit(
    facts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("facts")
    save_state(folder, 5, {"a": torch.ones(1)}, facts)
    found, _ = load_state(folder)
    assert found is not None
    known = dict(found.facts)
    assert known.pop("step") == 5
    assert len(known.pop("tensors_sha256")) == 64
    assert known == facts
    assert load_facts(folder, 5) == found.facts
    shutil.rmtree(folder)


def test_figures_that_are_no_numbers_come_back(tmp_path: Path) -> None:
    save_state(tmp_path, 5, {"a": torch.ones(1)}, {"value": math.nan, "most": math.inf})
    facts = load_facts(tmp_path, 5)
    assert facts is not None
    assert math.isnan(facts["value"])
    assert facts["most"] == math.inf


def test_tensors_may_be_views_and_need_gradients(tmp_path: Path) -> None:
    wide = torch.arange(6.0).view(2, 3).requires_grad_()
    save_state(tmp_path, 5, {"a": wide.T}, {})
    found, _ = load_state(tmp_path)
    assert found is not None
    assert torch.equal(found.tensors["a"], wide.T)


def test_newest_counts_by_number_and_one_can_be_asked_for(tmp_path: Path) -> None:
    for step in (9, 10, 9_999_999, 10_000_000, 11):
        save(tmp_path, step)
    (tmp_path / "step-12").mkdir()  # no name of ours
    (tmp_path / "notes.txt").write_text("mine")
    assert steps(tmp_path) == [10_000_000, 9_999_999, 11, 10, 9]
    assert newest(tmp_path) == 10_000_000
    found, torn = load_state(tmp_path, step=10)
    assert found is not None
    assert (found.facts["step"], torn) == (10, [])
    assert load_state(tmp_path, step=8) == (None, [])
    assert load_facts(tmp_path, 8) is None


def test_the_same_update_may_be_written_again(tmp_path: Path) -> None:
    first = files(save(tmp_path, 3))
    assert files(save(tmp_path, 3)) == first
    save(tmp_path, 3, note="other")
    assert load_facts(tmp_path, 3)["note"] == "other"  # type: ignore[index]
    assert sorted(files(tmp_path)) == [f"step-0000003/{name}" for name in sorted(FILES)]


def test_all_but_those_to_be_kept_are_deleted(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".step-0000005.abc_1234" / "step-0000005").mkdir(parents=True)
    (tmp_path / ".step-5.mine").write_text("mine")
    before = files(tmp_path / "step-0000003")
    prune(tmp_path, [1, 3, 9])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".step-5.mine", "notes.txt", "step-0000001", "step-0000003",
    ]  # fmt: skip
    assert files(tmp_path / "step-0000003") == before
    prune(tmp_path / "none", [])


def test_what_cannot_be_deleted_stays(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    before = files(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
        prune(tmp_path, [2])
    assert files(tmp_path) == before
    prune(tmp_path, [2])
    assert steps(tmp_path) == [2]


# ---- torn


@pytest.mark.parametrize("name", FILES)
def test_every_cut_and_every_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    whole = path.read_bytes()
    broken = [whole[:n] for n in range(0, len(whole), 7)] + [whole + b" "]
    broken += [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(len(whole))]
    if name == "state.json":  # what no fact hangs on
        broken = [each for each in broken if not same_json(each, whole)]
    for content in broken:
        path.write_bytes(content)
        found, torn = load_state(tmp_path)
        assert found is not None
        assert found.facts["step"] == 1
        (line,) = torn
        assert "step-0000002 is torn and passed over: " in line
        assert "\n" not in line
        if name == "state.json":
            assert load_facts(tmp_path, 2) is None
        else:
            assert line.endswith("its tensors are not those that were written")
    path.unlink()
    assert len(load_state(tmp_path)[1]) == 1
    path.write_bytes(whole)
    assert newest(tmp_path) == 2


def same_json(content: bytes, whole: bytes) -> bool:
    try:
        return bool(json.loads(content) == json.loads(whole))
    except ValueError:
        return False


@pytest.mark.parametrize("content", [b"[]", b"7", b"null", b"{}", b'"sha256"'])
def test_json_that_is_no_state_is_torn(tmp_path: Path, content: bytes) -> None:
    (save(tmp_path, 2) / "state.json").write_bytes(content)
    found, (line,) = load_state(tmp_path)
    assert found is None
    assert "state.json is not what was written" in line


def test_files_of_two_checkpoints_are_no_checkpoint(tmp_path: Path) -> None:
    for name in FILES:
        one, two = save(tmp_path, 1), save(tmp_path, 2)
        shutil.copy(one / name, two / name)
        found, torn = load_state(tmp_path)
        assert found is not None
        # The JSON of the first with the tensors of the second, and the other way round.
        assert (found.folder, len(torn)) == (one, 1)


# ---- what fails


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_a_failure_of_any_call_leaves_the_earlier_checkpoint(tmp_path: Path, code: int) -> None:
    save(tmp_path, 1)
    before = files(tmp_path)
    for failing in each_failure(code):
        said = ""
        try:
            with failing:
                save(tmp_path, 2)
        except CheckpointError as error:
            said = str(error)
        assert failing.failed == bool(said)
        if said:
            assert said.startswith(f"{tmp_path / 'step-0000002'}: cannot be written: ")
            assert os.strerror(code) in said
            assert said.endswith("the earlier checkpoints are whole: make room and resume")
        assert newest(tmp_path) in (1, 2)
        assert files(tmp_path).items() >= before.items()
        assert {path.name for path in tmp_path.iterdir()} <= {"step-0000001", "step-0000002"}
        prune(tmp_path, [1])
    assert failing.at >= 9
    assert newest(tmp_path) == 1


def test_a_kill_at_any_call_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    seen = set()
    for failing in each_failure(None):
        try:
            with failing:
                save(tmp_path, 2)
                prune(tmp_path, [2])
        except KilledError:
            assert failing.failed
        seen.add(newest(tmp_path))
        save(tmp_path, 1)  # as it was before, and what was left is gone
        prune(tmp_path, [1])
        assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]
    assert seen == {1, 2}
    assert failing.at >= 12


def test_disk_that_fills_up_at_any_byte_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    """The system's own refusal, in the middle of either file."""
    save(tmp_path, 1)
    before = files(tmp_path)
    sizes = sorted(len(content) for content in before.values())
    for limit in range(0, sizes[-1], 5):
        with (
            files_of_at_most(limit),
            pytest.raises(CheckpointError, match=r"step-0000002: cannot be written: .*too large"),
        ):
            save(tmp_path, 2)
        assert files(tmp_path) == before
        assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]
    with files_of_at_most(sizes[-1]):
        save(tmp_path, 2)
    assert newest(tmp_path) == 2


def test_without_an_earlier_checkpoint_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        CheckpointError,
        match=r"cannot be written: .*; there is no earlier checkpoint: make room and start again$",
    ):
        save(tmp_path / "file" / "run", 1)


def test_checkpoint_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files, then their folder, then the rename, then the folder that has the name."""
    steps_seen: list[object] = []
    fsync, rename = os.fsync, os.rename

    def seen_fsync(handle: int) -> None:
        names = {p.stat().st_ino: p.name for p in (tmp_path, *tmp_path.rglob("*"))}
        found = os.fstat(handle)
        kind = "folder" if stat.S_ISDIR(found.st_mode) else "file"
        steps_seen.append((kind, names[found.st_ino], (folder / "step-0000002").exists()))
        fsync(handle)

    def seen_rename(source: Path, target: Path) -> None:
        steps_seen.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "rename", seen_rename)
    folder = tmp_path / "checkpoints"
    save(folder, 2)
    assert steps_seen == [
        ("folder", tmp_path.name, False),  # which holds the new folder
        ("file", "state.json", False),
        ("file", "tensors.safetensors", False),
        ("folder", "step-0000002", False),
        "rename",
        ("folder", "checkpoints", True),
    ]
