"""Replacing a file: the new one whole, or the earlier one untouched; never a leftover."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minibert.files import flush, replacing


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
