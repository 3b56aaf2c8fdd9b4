"""Edits the package in one place at a time and sees whether the default suite notices.

    python scripts/mutate.py [--only TEXT] [--jobs 1]

The test files must be green before.  For each edit a copy of the checkout is changed and tested:
first the test file of the edited module, then, while everything is green, the rest.  Prints the
edits that no test noticed, and ends with exit status 1 when these are more than 5 %.
"""

import argparse
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# A file for each module, of the same name: EDITS, pairs of what stands there once and what to put.
MUTATIONS = ROOT / "scripts" / "mutations"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="only edits whose module or text contains this")
    parser.add_argument("--jobs", type=int, default=1, help="edits tested at once")
    arguments = parser.parse_args()
    edits = [edit for edit in all_edits() if any(arguments.only in part for part in edit)]
    if not edits:
        raise SystemExit(f"error: no edit has {arguments.only!r} in it; leave --only out")
    for module, old, _ in edits:
        count = source(ROOT, module).read_text(encoding="utf-8").count(old)
        if count != 1:
            raise SystemExit(f"error: {module}.py holds {old!r} {count} times, expected once")
    for module in sorted({module for module, _, _ in edits}):
        if run_tests(ROOT, [test_file(module)]):
            raise SystemExit(f"error: {test_file(module)} fails without any edit; mend it first")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        noticed = list(pool.map(test, edits))
    survivors = [edit for edit, seen in zip(edits, noticed, strict=True) if not seen]
    share = 1 - len(survivors) / len(edits)
    print(f"{len(edits)} edits, {len(edits) - len(survivors)} noticed: {share:.1%}")
    for module, old, new in survivors:
        print(f"  not noticed in {module}.py: {old!r} -> {new!r}")
    raise SystemExit(share < 0.95)


def all_edits() -> list[tuple[str, str, str]]:
    """Module (with its folder), what stands there, what to put there."""
    return [
        (path.relative_to(MUTATIONS).with_suffix("").as_posix(), old, new)
        for path in sorted(MUTATIONS.rglob("*.py"))
        for old, new in runpy.run_path(str(path))["EDITS"]
    ]


def source(root: Path, module: str) -> Path:
    return root / "minibert" / f"{module}.py"


def test_file(module: str) -> str:
    """Its tests, by the last name of a module in a folder."""
    return f"tests/test_{Path(module).name}.py"


def test(edit: tuple[str, str, str]) -> bool:
    """Whether the default suite turns red when the edit is made."""
    module, old, new = edit
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "checkout"
        ignored = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist")
        shutil.copytree(ROOT, copy, ignore=ignored)
        path = source(copy, module)
        edited = path.read_text(encoding="utf-8").replace(old, new)
        compile(edited, path, "exec")  # an edit that is no Python proves nothing
        path.write_text(edited, encoding="utf-8")
        own = test_file(module)
        seen = any(
            run_tests(copy, selection)
            for selection in ([own], ["tests", f"--ignore={own}", "--ignore=tests/test_readme.py"])
        )
    print(
        f"{'noticed' if seen else 'NOT NOTICED'} after {time.perf_counter() - start:.0f} s: "
        f"{module}: {old!r} -> {new!r}",
        flush=True,
    )
    return seen


def run_tests(copy: Path, selection: list[str]) -> bool:
    """Whether these tests fail; a run that collects nothing is an error, not a failure."""
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "",
        *selection,
    ]
    result = subprocess.run(
        command, cwd=copy, env=env, capture_output=True, text=True, check=False, timeout=1800
    )
    if result.returncode not in (0, 1, 2):
        raise SystemExit(f"error: pytest did not run: {result.stdout[-2000:]}{result.stderr}")
    return result.returncode != 0


if __name__ == "__main__":
    main()
