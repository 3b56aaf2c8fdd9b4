"""Workload W5 of `benchmark.py`: a fresh process that embeds one sentence."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark_peers import Contender
from benchmark_process import environment, versions_in

IMPORT = "import torch"
OURS = """
from minibert import Embedder
embedder = Embedder.from_pretrained({folder!r}, dtype={precision!r}, engine={engine!r})
embedder.encode("a single sentence to embed")
"""
SENTENCE_TRANSFORMERS = """
from sentence_transformers import SentenceTransformer
SentenceTransformer({folder!r}, device="cpu").encode("a single sentence to embed")
"""


def measure_cold(
    folder: Path, rounds: int, threads: int, pythons: Mapping[str, str], ours: Sequence[Contender]
) -> list[dict[str, Any]]:
    """Fresh processes in turn: wall time and peak memory of each.

    Args:
        ours: the contenders of minibert.
    """
    contenders = [("import torch", "minibert", IMPORT)]
    contenders += [
        (
            each.name,
            "minibert",
            OURS.format(folder=str(folder), precision=each.precision, engine=each.engine),
        )
        for each in ours
    ]
    contenders.append(
        (
            "sentence-transformers",
            "sentence-transformers",
            SENTENCE_TRANSFORMERS.format(folder=str(folder)),
        )
    )
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "library": library,
            "seconds": [],
            "peak_bytes": [],
            "versions": versions_in(pythons.get(library, sys.executable), library),
        }
        for name, library, _ in contenders
    ]
    for number in range(rounds + 1):
        for (name, library, program), figures in zip(contenders, found, strict=True):
            python = pythons.get(library, sys.executable)
            seconds, peak = _run([python, "-c", program], environment(threads))
            print(
                f"round {number}/{rounds} {name}: {seconds:.2f} s, {peak / 1e6:.0f} MB",
                file=sys.stderr,
                flush=True,
            )
            if number:  # round 0 brings the files into memory
                figures["seconds"].append(seconds)
                figures["peak_bytes"].append(peak)
    return found


def _run(command: list[str], env: dict[str, str]) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: exit status {process.returncode}: {command}")
    return seconds, usage.ru_maxrss * 1024
