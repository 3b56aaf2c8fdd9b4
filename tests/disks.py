"""Small file systems of a test's own, where the machine lets one mount them."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@contextlib.contextmanager
def small_disk(folder: Path, *, size: int) -> Iterator[Path]:
    """A file system in memory with room for `size` bytes."""
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        check=True,
        capture_output=True,
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@cache
def can_mount() -> bool:
    """May this user mount a file system?"""
    if os.name != "posix" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as place:
        try:
            with small_disk(Path(place) / "disk", size=1 << 20):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False
