"""Memory that is freed stays with the process while it is trained in, and only then."""

import subprocess
import sys

import pytest

from minibert.training.memory import freed_memory_kept

BLOCK = """
import ctypes, sys
from minibert.training.memory import freed_memory_kept

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 >> 20

def take_and_free():
    # 48 MiB: above every threshold that glibc comes to by itself.
    block = bytearray(48 << 20)
    held = resident()
    del block
    return held - resident()

given_back = [take_and_free()]
with freed_memory_kept():
    given_back += [take_and_free(), take_and_free()]
    inside = resident()
given_back += [inside - resident(), take_and_free()]
print(*given_back)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone gives memory back so")
def test_freed_memory_is_kept_within_the_block_and_given_back_behind_it() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCK], capture_output=True, text=True, check=True)
    before, first, second, end, after = map(int, done.stdout.split())
    assert min(before, end, after) > 40
    assert max(first, second) < 8


def test_an_error_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), freed_memory_kept():
        _ = 1 / 0


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_is_set(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("ctypes.CDLL", _refuse)
    with freed_memory_kept():
        pass


def _refuse(name: str | None) -> None:
    raise AssertionError(name)
