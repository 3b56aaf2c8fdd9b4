"""Compiles the kernels in `cpu/` for the CPU at hand, once, and loads them.

They are plain C++ behind C's calling convention, without a header of torch or Python: that takes
seconds in place of half a minute, needs a compiler and nothing else, and one library serves every
version of torch.  Threads are those of torch's own OpenMP, whose symbols are found when the library
is loaded; with a second pool the two would spin against each other.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "cpu"
FLAGS = ("-std=c++17", "-O3", "-fopenmp", "-fPIC", "-Wno-maybe-uninitialized")
TARGET = "-march=native"
COMPILE_SECONDS = 600

_failed: dict[Path, str] = {}  # what could not be compiled in this process, and why


class KernelsUnavailableError(Exception):
    """Why there are no kernels, in one line: everything works without them, slower."""


def load(cache_folder: Path, *, target: str = TARGET, build: bool = True) -> ctypes.CDLL:
    """The library of kernels, compiled if need be.

    Args:
        cache_folder: where it is kept, under a name that hangs on sources, compiler and CPU.
        target: the compiler's flags that say for which processor.
        build: compile it if it is not there; False only looks.

    Raises: KernelsUnavailableError: no compiler, one that fails, or nowhere to keep the library.
    """
    compiler = find_compiler()
    place = cache_folder / _key(compiler, target) / "libminibert.so"
    if not place.exists():
        if not build:
            raise KernelsUnavailableError("the kernels are not compiled yet: minibert kernels")
        if place in _failed:  # or each call for vectors would try for seconds again
            raise KernelsUnavailableError(_failed[place])
        _compile(compiler, target, place)
    return _open(place)


def find_compiler() -> str:
    """The path of a C++ compiler: $CXX, else g++ or c++.

    Raises: KernelsUnavailableError.
    """
    for name in (os.environ.get("CXX", ""), "g++", "c++"):
        if name and (path := shutil.which(name)):
            return path
    raise KernelsUnavailableError("no C++ compiler was found: install g++, or set CXX to its path")


@cache
def _key(compiler: str, target: str) -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    version = _run([compiler, "--version"]).stdout
    digest.update(repr((FLAGS, target, version, _cpu())).encode())
    return digest.hexdigest()[:16]


def _cpu() -> str:
    """What tells this CPU from one that has other instructions: a cache may be shared."""
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        lines = facts.read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
        return repr(sorted(set(told)))
    return platform.machine() + platform.processor()


def _compile(compiler: str, target: str, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(place.parent):
            if not place.exists():  # or another process has made it meanwhile
                _make(compiler, target, place)
    except (KernelsUnavailableError, OSError) as error:
        _failed[place] = f"the kernels could not be compiled: {error}"
        raise KernelsUnavailableError(_failed[place]) from None


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process compiles for a folder."""
    try:
        import fcntl
    except ImportError:  # on Windows two may compile, and the last one's library is kept
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("minibert: another process compiles the kernels, waiting for it … ")
            fcntl.flock(handle, fcntl.LOCK_EX)
            _say("done\n")
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def _make(compiler: str, target: str, place: Path) -> None:
    _say(f"minibert: compiling kernels for this CPU with {Path(compiler).name}, once … ")
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            made, library = Path(folder) / "kernels.o", Path(folder) / place.name
            source = str(SOURCES / "library.cpp")
            _run([compiler, *FLAGS, *target.split(), "-c", source, "-o", str(made)])
            # Linked without -fopenmp, which would bring a second OpenMP beside torch's.
            _run([compiler, "-shared", str(made), "-o", str(library)])
            library.replace(place)
    except (KernelsUnavailableError, OSError):
        _say("failed\n")
        raise
    _say(f"{time.perf_counter() - start:.0f} s\n")


def _say(part: str) -> None:
    """Part of a line on standard error."""
    sys.stderr.write(part)
    sys.stderr.flush()


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_SECONDS, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelsUnavailableError(f"{command[0]}: {error}") from None
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if "error" in line] or [
            f"exit status {done.returncode}"
        ]
        raise KernelsUnavailableError(f"{command[0]}: {told[0].strip()}")
    return done


@cache
def _open(place: Path) -> ctypes.CDLL:
    import torch  # noqa: F401 - brings the OpenMP whose symbols the library takes

    try:
        library = ctypes.CDLL(str(place))
    except OSError as error:
        raise KernelsUnavailableError(f"{place} cannot be loaded: {error}") from None
    library.minibert_instructions.restype = ctypes.c_char_p
    library.minibert_has.restype = ctypes.c_bool
    pointer, number, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
    library.minibert_encode.argtypes = (pointer, pointer, number, number)
    library.minibert_linear.argtypes = (
        pointer, number, pointer, long, number, pointer, number, number,
    )  # fmt: skip
    library.minibert_attention.argtypes = (
        pointer, pointer, pointer, pointer, number, number, number, number, pointer, number,
    )  # fmt: skip
    library.minibert_add_norm.argtypes = (
        pointer, pointer, pointer, long, number, pointer, number,
    )  # fmt: skip
    flag = ctypes.c_bool
    library.minibert_attention_training.argtypes = (pointer, flag, number)
    library.minibert_products.argtypes = (
        pointer, pointer, pointer, number, number, number, pointer, number,
    )  # fmt: skip
    library.minibert_products_backward.argtypes = (
        pointer, pointer, pointer, number, number, number, pointer, pointer, pointer, number,
    )  # fmt: skip
    library.minibert_dropout.argtypes = (pointer, flag, long, pointer, pointer, number)
    library.minibert_gelu.argtypes = (pointer, flag, long, pointer, number)
    library.minibert_gelu_backward.argtypes = (pointer, pointer, flag, long, pointer, number)
    library.minibert_add_norm_training.argtypes = (
        pointer, pointer, flag, pointer, number, number, pointer, pointer, pointer, number,
    )  # fmt: skip
    library.minibert_add_norm_backward.argtypes = (
        pointer, pointer, flag, pointer, pointer, number, number, pointer, pointer, pointer,
        pointer, number,
    )  # fmt: skip
    return library
