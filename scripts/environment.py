"""Virtual environments of the checkout, made with nothing but Python 3.11 and its own library."""

import hashlib
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def say(line: str) -> None:
    """A line about what happens now, before whatever the next step prints itself."""
    print(f"==> {line}", flush=True)


def fail(line: str) -> None:
    """End with one line that says what to do."""
    print(f"error: {line}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Run a step; when it fails, end with its exit status and say which one it was."""
    result = subprocess.run([str(part) for part in command], cwd=cwd, env=env, check=False)
    if result.returncode:
        shown = " ".join(Path(part).name if "/" in str(part) else str(part) for part in command)
        print(f"error: failed with exit status {result.returncode}: {shown}", file=sys.stderr)
        raise SystemExit(result.returncode)


def ensure(name: str, extras: set[str]) -> Path:
    """The Python of the environment `name`, with minibert and these extras installed in it.

    What is there already is left alone: a second call takes a fraction of a second.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this may have an older one
        found = ".".join(map(str, sys.version_info[:2]))
        fail(f"this is Python {found}, expected 3.11 or later; run python3.11 {sys.argv[0]}")
    folder = ROOT / name
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = folder / "minibert.json"
    wanted = hashlib.sha256(
        b"".join((ROOT / file).read_bytes() for file in ("pyproject.toml", "constraints.txt"))
    ).hexdigest()
    state = json.loads(stamp.read_text()) if stamp.exists() else {}
    installed = set(state.get("extras", []))
    if state.get("sha256") == wanted and extras <= installed and python.exists():
        say(f"{name} is ready")
        return python
    if not state and folder.exists():
        say(f"{name} was left unfinished: starting again")
        shutil.rmtree(folder)
    if not python.exists():
        say(f"creating the virtual environment {name}")
        try:
            venv.create(folder, with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            fail(
                f"{name} cannot be created ({error}); install Python's venv module (Debian and "
                "Ubuntu: apt install python3-venv), or free disk space, and run this again"
            )
    extras |= installed
    target = f".[{','.join(sorted(extras))}]" if extras else "."
    say(f"installing minibert and what it needs into {name}; PyTorch takes a minute or more")
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    run(
        python, "-m", "pip", "install", *quiet, "--disable-pip-version-check",
        "-e", target, "-c", "constraints.txt",
    )  # fmt: skip
    stamp.write_text(json.dumps({"sha256": wanted, "extras": sorted(extras)}))
    return python
