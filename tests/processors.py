"""Other processors that the kernels are compiled for, where this one runs their code."""

from pathlib import Path

import pytest

TARGETS = {
    "AVX2": "-march=haswell",
    "AVX-VNNI": "-march=haswell -mavxvnni",
    "AVX-512": "-march=skylake-avx512",
    "no vector instructions by name": "-march=x86-64",
}


def target_of(name: str) -> str:
    """The compiler's flags; the test is skipped where this processor lacks the instructions."""
    flags = Path("/proc/cpuinfo").read_text()
    needed = {"AVX2": "avx2", "AVX-VNNI": "avx_vnni", "AVX-512": "avx512bw"}.get(name, "sse2")
    if needed not in flags:
        pytest.skip(f"this processor has no {needed}; run it on one that has")
    return TARGETS[name]
