"""Replacing a file: the new one whole, or the earlier one untouched; never a leftover."""

import errno
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from failures import KilledError, each_failure

from minibert.files import (
    discard,
    exclusive,
    flush,
    replacing,
    replacing_all,
    replacing_folder,
    sweep,
)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replacing_puts_a_new_file_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.json"]


def test_replacing_keeps_the_earlier_file_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("earlier")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "earlier"
        assert part.parent == tmp_path  # a rename across file systems would copy
        assert part.name.startswith(".a.json.")
    assert path.read_text() == "new"


def test_replacing_gives_a_file_that_all_may_read(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as part:
        part.write_text("new")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_device_or_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text)
        with replacing(pipe) as part:
            part.write_text("through")
        assert read.result() == "through"
    assert pipe.is_fifo()
    assert names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("kind", [OSError, ValueError, KeyboardInterrupt])
def test_replacing_leaves_the_earlier_file_when_writing_fails(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    path = tmp_path / "a.json"
    path.write_text("earlier")

    def write_half() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise kind

    with pytest.raises(kind):
        write_half()
    assert path.read_text() == "earlier"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_replacing_leaves_the_earlier_file_when_a_step_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text("earlier")
    monkeypatch.setattr(os, step, full_disk)
    with pytest.raises(OSError, match="No space left"), replacing(path) as part:
        part.write_text("new")
    assert path.read_text() == "earlier"
    assert names(tmp_path) == ["a.json"]


def test_replacing_says_when_it_cannot_begin(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError),
        replacing(tmp_path / "absent" / "a"),
    ):
        pytest.fail("there is no folder to write to")


def test_replacing_flushes_the_file_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    steps: list[object] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        steps.append((kind, os.fstat(handle).st_size if kind == "file" else path.exists()))
        fsync(handle)

    def seen_replace(source: str, target: str) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    with replacing(path) as part:
        part.write_text("new")
    assert steps == [("file", 3), "rename", ("folder", True)]


def test_flush_closes_what_it_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    closed = []
    close = os.close

    def seen_close(handle: int) -> None:
        closed.append(handle)
        close(handle)

    monkeypatch.setattr(os, "close", seen_close)
    flush(path)
    flush(tmp_path)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        flush(path)
    assert len(closed) == 3


# ---- several files at once


def test_replacing_all_puts_all_in_place_at_the_end(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    paths[0].write_text("earlier")
    with replacing_all(*paths) as parts:
        for part in parts:
            part.write_text("new")
        assert paths[0].read_text() == "earlier"
        assert not paths[1].exists()
    assert [path.read_text() for path in paths] == ["new", "new"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o644] * 2
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_replacing_all_replaces_all_or_none(tmp_path: Path, code: int, earlier: bool) -> None:
    """Whichever call fails: also the second rename, behind the first."""
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    outcomes = []
    for failing in each_failure(code):
        for path in paths:
            path.unlink(missing_ok=True)
            if earlier:
                path.write_text("earlier")
        before = names(tmp_path)
        try:
            with failing, replacing_all(*paths) as parts:
                for part in parts:
                    part.write_text("new")
            failed = False
        except OSError:
            failed = True
        assert failed == failing.failed
        found = [path.read_text() for path in paths if path.exists()]
        assert found in (["earlier"] * (3 * earlier), ["new"] * 3)
        assert names(tmp_path) == (["a", "b", "c"] if "new" in found else before)
        outcomes.append("new" in found)
    assert outcomes == [False] * (len(outcomes) - 2) + [True, True]  # the last flush, and none


def test_replacing_all_flushes_all_before_the_first_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("flush"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("rename"), replace(a, b)))
    with replacing_all(tmp_path / "a", tmp_path / "b") as parts:
        for part in parts:
            part.write_text("new")
    assert steps == ["flush", "flush", "rename", "rename", "flush"]


# ---- folders


def fill(folder: Path, content: str) -> None:
    (folder / "a").write_text(content)
    (folder / "inner").mkdir()
    (folder / "inner" / f"b of {content}").write_text(content)


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_replacing_folder_takes_the_place_of_the_earlier_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for text in ("first", "second"):
        before = content(tmp_path)
        with replacing_folder(path) as part:
            fill(part, text)
            assert part.name == "model"  # a refusal names it
            assert content(path) == {k.removeprefix("model/"): v for k, v in before.items()}
        assert content(path) == {"a": text, f"inner/b of {text}": text}
        assert names(tmp_path) == ["model"]


def test_replacing_folder_flushes_all_that_is_in_it_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def seen_fsync(handle: int) -> None:
        names = {p.stat().st_ino: p.name for p in (tmp_path, *tmp_path.rglob("*"))}
        steps.append(names[os.fstat(handle).st_ino])
        fsync(handle)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "rename", lambda a, b: (steps.append("rename"), rename(a, b)))
    with replacing_folder(tmp_path / "model") as part:
        fill(part, "new")
    assert steps == ["a", "inner", "b of new", "model", "rename", tmp_path.name]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_replacing_folder_leaves_the_earlier_one_when_filling_fails(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    path = tmp_path / "model"
    path.mkdir()
    fill(path, "earlier")
    before = content(path)

    def fill_half() -> None:
        with replacing_folder(path) as part:
            (part / "a").write_text("half")
            raise kind

    with pytest.raises(kind):
        fill_half()
    assert content(path) == before
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("earlier", [True, False])
def test_replacing_folder_leaves_the_old_or_the_new_when_a_call_fails(
    tmp_path: Path, earlier: bool
) -> None:
    path = tmp_path / "model"
    outcomes = []
    for failing in each_failure(errno.ENOSPC):
        shutil.rmtree(path, ignore_errors=True)
        if earlier:
            path.mkdir()
            fill(path, "earlier")
        try:
            with failing, replacing_folder(path) as part:
                fill(part, "new")
            failed = False
        except OSError:
            failed = True
        assert failed == failing.failed
        found = set(content(path).values())
        assert found in ([{"earlier"}, {"new"}] if earlier else [set(), {"new"}])
        assert names(tmp_path) == (["model"] if found else [])
        outcomes.append(found == {"new"})
    assert outcomes == [False] * (len(outcomes) - 2) + [True, True]


def test_discarded_folder_is_gone_or_there_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    seen = []
    for failing in each_failure(None):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        fill(path, "whole")
        before = content(path)
        try:
            with failing:
                discard(path)
        except KilledError:
            assert failing.failed
        assert content(path) in (before, {})
        seen.append(path.exists())
    assert (seen[0], seen[-1]) == (True, False)
    assert names(tmp_path) == []
    path.mkdir()
    fill(tmp_path / "model", "whole")
    path.rename(tmp_path / ".model.outdated")
    sweep(tmp_path, "model")
    assert names(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        discard(path)


def test_sweep_deletes_what_killed_processes_left_and_nothing_else(tmp_path: Path) -> None:
    for failing in each_failure(None):
        try:
            with failing, replacing_all(tmp_path / "a.json", tmp_path / "b.bin") as parts:
                parts[0].write_text("x")
                with replacing_folder(tmp_path / "model") as part:
                    (part / "c").write_text("x")
        except KilledError:
            assert failing.failed
    mine = [".a.json.short", ".other.abcd1234", ".a.json", "a.json.abcd1234", ".a.json.abcd12345"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    left = {name for name in names(tmp_path) if name.startswith(".")} - set(mine)
    assert {name.rpartition(".")[0] for name in left} == {".a.json", ".b.bin", ".model"}
    sweep(tmp_path, "*.json", "b.bin", "model")
    assert names(tmp_path) == sorted([*mine, "a.json", "b.bin", "model"])
    sweep(tmp_path / "none", "model")


# ---- locks


def test_lock_is_held_by_one_at_a_time_and_let_go_of(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with exclusive(path) as first:
        assert first
        with exclusive(path) as second:
            assert not second
        with exclusive(tmp_path / ".other") as other:
            assert other
    with exclusive(path) as again:
        assert again
    assert path.exists()
