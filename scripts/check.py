"""Sets up everything that the tests need and runs all of them.

    python3 scripts/check.py

1. `.venv`: lint, types, and the whole default suite, in an environment without transformers;
2. `.venv-reference`: the tests that compare with transformers and sentence-transformers;
3. the wheel: built, installed elsewhere, and used from another folder.

Tests that need the public data sets run when MINIBERT_DATA names their folder; tests that open a
page, where Chromium is installed or MINIBERT_CHROMIUM names it.
"""

import os
import tempfile
from pathlib import Path

from environment import ROOT, ensure, run, say

SMOKE_TEST = """
import sys, pathlib, minibert
from minibert import Embedder
assert pathlib.Path(minibert.__file__).is_relative_to(sys.argv[1]), minibert.__file__
vectors = Embedder.from_pretrained("all-MiniLM-L6-v2").encode(["a text", "another"])
assert vectors.shape == (2, 384), vectors.shape
print("the installed wheel embeds", vectors.shape)
"""


def main() -> None:
    python = ensure(".venv", {"test", "dev", "train", "tune", "export", "gpu"})
    say("linting")
    run(python, "-m", "ruff", "check")
    run(python, "-m", "ruff", "format", "--check")
    say("checking types")
    run(python, "-m", "mypy")
    say("fetching the checkpoint that the tests use")
    run(python, "-m", "minibert", "fetch", "all-MiniLM-L6-v2")
    say("testing without transformers")
    test(python)
    say("testing what is slow: failures of training, processes that are killed, large files")
    test(python, "-m", "slow and not reference")
    say("testing the wheel")
    test_wheel(python)
    reference = ensure(".venv-reference", {"test", "reference", "train", "tune"})
    say("testing against transformers and sentence-transformers")
    test(reference, "-m", "reference")


def test(python: Path, *selection: str) -> None:
    """Run tests, two at once and each on a thread of its own: most are small, or wait."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    run(python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", *selection, env=one_thread)


def test_wheel(python: Path) -> None:
    """Build the wheel, install it into a folder of its own, and use it from another folder."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        installed, elsewhere = folder / "installed", folder / "elsewhere"
        elsewhere.mkdir()
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", installed, wheel)
        env = {**os.environ, "PYTHONPATH": str(installed)}
        run(python, "-c", SMOKE_TEST, installed, cwd=elsewhere, env=env)
        run(python, "-m", "minibert", "--version", cwd=elsewhere, env=env)
        trace = ("trace", "a text", "--html", "page.html")  # its template has to be in the wheel
        run(python, "-m", "minibert", *trace, cwd=elsewhere, env=env)


if __name__ == "__main__":
    main()
