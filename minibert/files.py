"""Files that an interruption at any instant leaves as they were or as they shall be; and locks."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of `path` once it is on the disk.

    A device or a pipe is written to itself, and stays one.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        flush(part)
        part.replace(path)
        flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_all(*paths: Path) -> Iterator[list[Path]]:
    """As `replacing`, of several files: where one cannot take its place, none does.

    Only a process that is killed between two of them leaves some new and some as they were.  All
    but the last are kept in memory for a moment: a large one comes last.
    """
    parts: list[Path] = []
    try:
        for path in paths:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            os.close(handle)
            parts.append(Path(name))
        yield parts
        for part in parts:
            part.chmod(0o644)
            flush(part)
        _move_all(parts, paths)
        for folder in {path.parent for path in paths}:
            flush(folder)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _move_all(parts: Sequence[Path], paths: Sequence[Path]) -> None:
    """Rename all, or put back those that were."""
    earlier = [path.read_bytes() if path.exists() else None for path in paths[:-1]]
    for n, (part, path) in enumerate(zip(parts, paths, strict=True)):
        try:
            part.replace(path)
        except OSError:
            for moved, content in zip(paths[:n], earlier, strict=False):
                if content is None:
                    moved.unlink()
                else:
                    with replacing(moved) as back:
                        back.write_bytes(content)
            raise


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill, which takes the place of `path` once it is on the disk.

    The earlier folder is moved away at the last moment, and back where the new one cannot take its
    place; a process that is killed in between leaves neither.
    """
    outer = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    part, earlier = outer / path.name, outer / "earlier"
    try:
        part.mkdir()
        yield part
        for each in (*sorted(part.rglob("*")), part):
            flush(each)
        if path.exists():
            path.rename(earlier)
        part.rename(path)
        flush(path.parent)
    finally:
        if earlier.exists() and not path.exists():
            earlier.rename(path)
        shutil.rmtree(outer, ignore_errors=True)


def discard(path: Path) -> None:
    """Delete a folder, all of it at once for whoever looks for it, or is killed meanwhile."""
    gone = path.with_name(f".{path.name}.outdated")  # as sweep finds it
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone)


def sweep(folder: Path, *names: str) -> None:
    """Delete what was to take the place of such names, or was to go, when a process was killed.

    Nobody else may be writing there.  What cannot be deleted stays.

    Args:
        names: as they are, or patterns: "step-*".
    """
    for name in names:
        for left in folder.glob(f".{name}.????????"):  # as tempfile makes them
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    left.unlink()


def flush(path: Path) -> None:
    """Have the operating system put a file, or the names in a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Hold a lock file for as long as the block lasts; False where another process holds it.

    It is released when the process ends, however it ends; the file stays.
    """
    with path.open("ab") as stream:
        yield try_lock(stream.fileno())


def try_lock(handle: int) -> bool:
    """Lock an open file, where nobody else has; until it is closed."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
