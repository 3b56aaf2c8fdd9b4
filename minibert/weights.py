"""A model name becomes a folder on disk whose bytes have been checked.

`resolve` takes a folder, a name of the manifest or a hub id.  `fetch` brings a manifest entry into
the cache: staged beside its place, every file's SHA-256 compared, then renamed into place at once,
so that a folder that is there is whole whatever happened on the way.

    <cache>/<name>/                 the model's files, and `.verified.json`: their sizes and times
    <cache>/.staging-<name>/        a fetch under way, or one that was killed; the next continues it
    <cache>/.lock-<name>            held while fetching; the system frees it when a process dies

The cache is $MINIBERT_CACHE, else $XDG_CACHE_HOME/minibert, else ~/.cache/minibert.
$MINIBERT_MANIFEST replaces the shipped manifest.  $MINIBERT_OFFLINE or $HF_HUB_OFFLINE set to 1,
true or yes forbids the network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    pass

_MARKER = ".verified.json"
_WEIGHTS = "model.safetensors"
_BLOCK_BYTES = 1 << 18
_SOCKET_SECONDS = 5.0  # one operation on a socket
_ANSWER_SECONDS = 8.0  # the look-up of a host and all of its addresses together
_STALL_SECONDS = 15.0  # pip may look at several indexes before the first byte arrives
# fnmatch's * crosses "/", so these take 1_Pooling/config.json and 2_Dense/model.safetensors too.
_HUB_PATTERNS = ("*.safetensors", "*.json", "*.txt")

_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[\w.+-]+"  # neither "." nor ".."
_PATH = rf"{_SEGMENT}(?:/{_SEGMENT})*"
_HUB_ID = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
# What each string of the manifest must look like. None may begin with "-": pip gets some of them.
_FORMS = {
    "name": r"[A-Za-z0-9][\w.-]*",
    "licence": r"\S.*",
    "description": r"\S.*",
    "homepage": r"https?://\S+",
    "revision": r"[A-Za-z0-9][\w.-]*",
    "sha256": r"[0-9a-f]{64}",
    "project": r"[A-Za-z0-9][\w.-]*",
    "version": r"[A-Za-z0-9][\w.+!-]*",
    "prefix": r"(?:[\w.-]+/)*",
    "base": r"https?://[^\s@]+/",
    "repo": _HUB_ID,
}

_T = TypeVar("_T")


@dataclass(frozen=True)
class PypiSource:
    """Files under `prefix` in the wheel of a project of the Python package index."""

    project: str
    version: str
    prefix: str

    def __str__(self) -> str:
        return f"pypi {self.project}=={self.version}"


@dataclass(frozen=True)
class UrlSource:
    """Files at `base` + relative path."""

    base: str

    def __str__(self) -> str:
        return self.base


@dataclass(frozen=True)
class HubSource:
    """Files of a Hugging Face repository at one revision."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return f"hub {self.repo}"


Source = PypiSource | UrlSource | HubSource
_SOURCES: Mapping[str, Any] = {"pypi": PypiSource, "url": UrlSource, "hub": HubSource}


@dataclass(frozen=True)
class FileEntry:
    """One file of a model: what it must hash to, and its size."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Entry:
    """One model of the manifest; `sources` are tried in order, `files` by relative path."""

    name: str
    licence: str
    description: str
    revision: str
    homepage: str
    sources: tuple[Source, ...]
    files: dict[str, FileEntry]


class _SourceFailure(Exception):
    """A source that does not deliver, and why; the next one is tried."""


class _BrokenOff(_SourceFailure):
    """A connection that failed or broke off: worth another attempt."""


def resolve(
    name: str | Path, *, revision: str | None = None, sha256: str | None = None, offline: bool = False
) -> Path:
    """The folder that holds the model `name`, fetched if it is not on this machine.

    `name` is a folder with a config.json, a name of the manifest, or a hub id "owner/name" (brought
    by huggingface_hub into its own cache; safetensors, never pickles).  A `Path` is only ever a
    folder.  `revision` is a hub id's branch, tag or commit; for a manifest name it must be the
    recorded one.  `sha256` pins model.safetensors, which is then hashed on every call; without it a
    cached folder costs a few stats.  `offline` opens no socket.

    Raises: WeightsError: no such model, not to be had, damaged while offline, or not as pinned.
    """
    if not isinstance(name, str | Path):
        raise TypeError(f"a model is named by a str or a Path, got {type(name).__name__}")
    if sha256 is not None and not re.fullmatch(_FORMS["sha256"], sha256):
        raise WeightsError(f"sha256 is {sha256!r}, expected 64 lower-case hexadecimal digits")
    folder = _locate(name, revision, sha256=sha256, offline=offline or _is_offline())
    if sha256 is not None:
        path = folder / _WEIGHTS
        if not path.is_file():
            raise WeightsError(f"sha256= pins {_WEIGHTS}, which {folder} does not hold")
        if (got := _sha256(path)) != sha256:
            raise WeightsError(f"{path}: SHA-256 is {got}, the pinned one is {sha256}")
    return folder


def fetch(name: str, *, cache: Path | None = None, progress: bool | None = None) -> Path:
    """Bring a manifest entry into `cache` and return its folder, every file checked by SHA-256.

    What is there and right stays; what is damaged is fetched again.  Two calls at once do the work
    once.  Writes to stderr only; `progress` forces the bar on or off (None: where stderr is a
    terminal).  Killed or interrupted it leaves what it has, and the next call goes on from there;
    otherwise it leaves nothing behind.

    Raises: WeightsError: unknown name, no source delivers, or the cache cannot be written.
    """
    entry = _entry(name)
    root = (cache_folder() if cache is None else cache).absolute()
    folder = root / name
    try:
        if _is_whole(entry, folder):
            return folder
        if _is_offline():
            raise WeightsError(_offline_refusal(entry, folder))
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".lock-{name}", name):
            if not _is_whole(entry, folder, say=True):
                _bring(entry, folder, progress)
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
    where, text = _manifest_text()
    try:
        models = json.loads(text)
    except ValueError as error:
        raise WeightsError(f"{where} is not JSON: {error}") from error
    if not isinstance(models, dict):
        raise WeightsError(f"{where}: got {type(models).__name__}, expected an object of models")
    return {name: _read_entry(name, item, f"{where}: {name}") for name, item in models.items()}


def cache_folder() -> Path:
    """The folder that fetched models live in; it need not exist yet."""
    if chosen := os.environ.get("MINIBERT_CACHE"):
        return Path(chosen).absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():  # the XDG specification: a relative one is to be ignored
        return shared / "minibert"
    try:
        if sys.platform != "win32" and not os.environ.get("HOME"):
            import pwd

            return Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache" / "minibert"
        return Path.home() / ".cache" / "minibert"
    except (KeyError, RuntimeError):
        raise WeightsError("this user has no home folder: set MINIBERT_CACHE to a folder") from None


def _locate(name: str | Path, revision: str | None, *, sha256: str | None, offline: bool) -> Path:
    if str(name) and _is_file(Path(name) / "config.json"):
        if revision is not None:
            raise WeightsError(f"revision={revision!r} has no meaning for the folder {str(name)!r}")
        return Path(name)
    known = manifest()
    if isinstance(name, str) and name in known:
        entry = known[name]
        _check_pins(entry, revision, sha256)
        return _from_manifest(entry, offline=offline)
    if isinstance(name, str) and re.fullmatch(_HUB_ID, name, re.ASCII) and not Path(name).exists():
        return _from_hub(name, revision, offline=offline)
    raise WeightsError(_unknown(str(name), known))


def _check_pins(entry: Entry, revision: str | None, sha256: str | None) -> None:
    """Refuse what the manifest contradicts before 90 MB are fetched."""
    if revision not in (None, entry.revision):
        raise WeightsError(
            f"{entry.name}: revision is {entry.revision} in the manifest, asked for {revision!r}"
        )
    weights = entry.files.get(_WEIGHTS)
    if weights is not None and sha256 not in (None, weights.sha256):
        raise WeightsError(
            f"{entry.name}: SHA-256 of {_WEIGHTS} is {weights.sha256} in the manifest, "
            f"the pinned one is {sha256}"
        )


def _from_manifest(entry: Entry, *, offline: bool) -> Path:
    folder = cache_folder() / entry.name
    if _is_whole(entry, folder, trust_marker=True):
        return folder
    if offline:
        raise WeightsError(_offline_refusal(entry, folder))
    return fetch(entry.name)


def _from_hub(name: str, revision: str | None, *, offline: bool) -> Path:
    try:
        folder = _snapshot(name, revision, _HUB_PATTERNS, offline=offline)
    except _SourceFailure as failure:
        raise WeightsError(
            f"{name!r} is no folder here, and the hub does not give it: {failure}"
            f"{_suggestion(name.split('/')[1], manifest())}"
        ) from failure
    for needed in ("config.json", "*.safetensors"):
        if not any(folder.rglob(needed)):
            raise WeightsError(
                f"{name}: its repository holds no {needed} (got {folder}); pickled weights are "
                "never read, convert them with safetensors"
            )
    return folder


def _entry(name: str) -> Entry:
    known = manifest()
    if name not in known:
        raise WeightsError(_unknown(name, known))
    return known[name]


def _unknown(name: str, known: Mapping[str, Entry]) -> str:
    if Path(name).is_dir() if name and len(name) < 256 and "\0" not in name else False:
        return f"the folder {name!r} holds no config.json, so it is no model"
    return (
        f"no model {name!r}: it is no folder and not in the manifest ({', '.join(sorted(known))})"
        f"{_suggestion(name, known)}; give a folder of your own by its path, such as ./my-model"
    )


def _suggestion(name: str, known: Iterable[str]) -> str:
    import difflib

    plain = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), plain, n=1)
    return f"; the nearest name is {plain[near[0]]!r}" if near else ""
