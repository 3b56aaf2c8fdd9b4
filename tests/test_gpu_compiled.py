"""Every kernel for GPUs is compiled, down to the instructions of a GPU, without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# What a program may have on the smallest GPU with matrix units for bfloat16.
SHARED_BYTES = 99 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_are_compiled_and_fit(capability: int) -> None:
    script = Path(__file__).parent / "compiled_kernels.py"
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, script, str(capability)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 9 + 2 * 9  # of attention in two dtypes
    for kernel, dtype, shared in lines:
        assert int(shared) <= SHARED_BYTES, (kernel, dtype)
