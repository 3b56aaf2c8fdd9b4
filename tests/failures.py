"""Disks that fill up or break, and processes that are killed, at every call that writes a file."""

import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
import safetensors.torch

import minibert.checkpoint
import minibert.training.state

# Whatever puts something on a disk: each of these calls may fail, as a disk that is full or broken
# has it.  `write` and `save_file` write a part first.
CALLS: tuple[tuple[Any, str], ...] = (
    (os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir"), (tempfile, "mkstemp"),
    (tempfile, "mkdtemp"), (Path, "write_text"), (Path, "write_bytes"), (Path, "touch"),
    (minibert.checkpoint, "save_file"), (minibert.training.state, "save_file"),
)  # fmt: skip
# Those that take away, too: a process may be killed there, but they do not fail for want of room.
REMOVALS: tuple[tuple[Any, str], ...] = ((os, "unlink"), (os, "rmdir"))


class KilledError(BaseException):
    """In place of a SIGKILL: no cleaning up is done behind it, for every call from then on raises.

    It is no Exception, so that nothing catches it.
    """


def _raise_killed() -> NoReturn:
    raise KilledError


class Failing:
    """Of the calls within a `with`, the n-th fails: by an error, or as if the process was killed.

    Args:
        at: the number of the call, counted from 1.
        code: of the error; None for a kill.
        die: how the process is killed.
    """

    def __init__(
        self, at: int, code: int | None, *, die: Callable[[], NoReturn] = _raise_killed
    ) -> None:
        self.at, self.code, self.die = at, code, die
        self.calls, self.active = 0, False

    @property
    def failed(self) -> bool:
        """Did the block come to the call that fails?"""
        return self.calls >= self.at

    def __enter__(self) -> "Failing":
        self.calls, self.active = 0, True
        return self

    def __exit__(self, *_: object) -> None:
        self.active = False

    def instead_of(self, real: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            if self.active:
                self.calls += 1
                if self.calls == self.at or (self.code is None and self.calls > self.at):
                    _write_a_part(real, args)
                    if self.code is None:
                        self.die()
                    raise OSError(self.code, os.strerror(self.code))
            return real(*args, **named)

        return call

    @contextmanager
    def installed(self) -> Iterator[None]:
        """In place of the calls of the system for as long as the block lasts."""
        with pytest.MonkeyPatch.context() as patch:
            for owner, name in (*CALLS, *(REMOVALS if self.code is None else ())):
                patch.setattr(owner, name, self.instead_of(getattr(owner, name)))
            yield


def _write_a_part(real: Any, args: tuple[Any, ...]) -> None:
    """What has been written of a file when there is no more room."""
    if getattr(real, "__name__", "") in ("write_text", "write_bytes"):
        path, content = args
        raw = content.encode() if isinstance(content, str) else content
        with path.open("wb") as file:
            file.write(raw[: len(raw) // 2])
    elif real is safetensors.torch.save_file:
        with Path(args[1]).open("wb") as file:
            file.write(b"half of it")


def each_failure(code: int | None) -> Iterator[Failing]:
    """Blocks of which the first call fails, then the second, until one comes to its end.

    Args:
        code: of the error; None kills.
    """
    at = 0
    while True:
        at += 1
        failing = Failing(at, code)
        with failing.installed():
            yield failing
        if not failing.failed:
            return


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """Within the block no file can be written beyond that: the system refuses, in mid-write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
