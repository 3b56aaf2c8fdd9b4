"""Which way a network computes, and what is said of it."""

import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from minibert import Embedder
from minibert.engine import load_kernels
from minibert.engine_choice import TOKENS_TO_COMPILE, TOKENS_TO_LOAD, Engines, chosen_engine
from minibert.errors import EngineError
from minibert.kernels import build
from minibert.kernels.build import KernelsUnavailableError

TEXTS = ["cats purr", "a longer text about cats that purr", "cats purr", "dogs bark, and loudly"]


def embedder(**options: object) -> Embedder:
    return Embedder.from_pretrained("all-MiniLM-L6-v2", **options)  # type: ignore[arg-type]


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a compiler, on which nothing was compiled before."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)


@pytest.fixture
def compiled() -> None:
    load_kernels()


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether kernels might be compiled, at each time they were asked for; none is there yet."""
    asked: list[bool] = []

    def load(folder: Path, *, build: bool = True) -> None:
        asked.append(build)
        raise KernelsUnavailableError("not compiled yet")

    monkeypatch.setattr(build, "load", load)
    return asked  # type: ignore[return-value]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("int16", 1e-3), ("int8", 0.05)])
def test_kernels_embed_as_pytorch_does(dtype: str, bound: float) -> None:
    fast, plain = embedder(dtype=dtype, engine="kernels"), embedder(engine="pytorch")
    for options in ({}, {"prompt": "query: "}, {"long_text": "windows"}, {"truncate_dim": 200}):
        texts = [*TEXTS, "many words " * 400]
        got = fast.encode(texts, **options)
        assert np.abs(got - plain.encode(texts, **options)).max() < bound
        assert np.array_equal(got[0], got[2])
    assert "by kernels for" in fast.computes


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("pooling", [("cls",), ("max",), ("mean", "cls")])
def test_kernels_serve_every_pooling(pooling: tuple[str, ...]) -> None:
    plain = embedder(engine="pytorch")
    plain.recipe = replace(plain.recipe, pooling=pooling, pools_prompt=False)
    fast = Embedder(plain.model, plain.tokenizer, plain.recipe, engine="kernels")
    for prompt in (None, "query: "):
        expected = plain.encode(TEXTS, prompt=prompt)
        np.testing.assert_allclose(fast.encode(TEXTS, prompt=prompt), expected, atol=1e-6)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("engine", ["kernels", "pytorch"])
def test_reproducible_vectors_do_not_hang_on_their_company(engine: str) -> None:
    one = embedder(engine=engine, reproducible=True)
    together = one.encode(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        assert np.array_equal(one.encode(text), vector)
        assert np.array_equal(one.encode([text, "another " * 30])[0], vector)


def test_auto_waits_until_there_is_something_to_do(builds: list[bool]) -> None:
    engines = Engines(embedder().model, "auto", reproducible=False)
    engines.for_tokens(TOKENS_TO_LOAD - 1)
    assert builds == []
    assert engines.description == "float32 by PyTorch (there is little to do)"
    engines.for_tokens(1)
    engines.for_tokens(TOKENS_TO_COMPILE)
    assert builds == [False, True]
    assert engines.description == "float32 by PyTorch (not compiled yet)"


def test_bfloat16x3_asks_for_kernels_and_does_without(
    builds: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    engines = Engines(embedder().model, "auto", reproducible=False, bfloat16x3=True)
    for _ in range(2):
        assert engines.for_tokens(1) is None
    assert set(builds) == {True}
    assert engines.description == "float32 by PyTorch (not compiled yet)"
    assert caplog.messages == ["float32 is computed in place of bfloat16x3: not compiled yet"]


def test_what_is_settled_stays(builds: list[bool]) -> None:
    engines = Engines(embedder().model, "auto", reproducible=False)
    assert engines.settle(10) is False
    engines.for_tokens(TOKENS_TO_COMPILE)
    assert builds == [False]
    large = Engines(embedder().model, "auto", reproducible=False)
    assert large.settle(TOKENS_TO_COMPILE) is False
    assert builds == [False, True]


@pytest.mark.usefixtures("compiled")
def test_a_stream_is_computed_in_one_way() -> None:
    auto = embedder(engine="auto")
    (first,) = auto.stream(["a text"])
    assert "by kernels" in auto.computes
    assert np.array_equal(first, embedder(engine="kernels").encode(["a text"]))


def test_kernels_are_made_anew_when_weights_change() -> None:
    one = embedder(engine="kernels")
    before = one.encode("a text")
    with torch.no_grad():
        one.model.layers[0].feed_forward.up.bias.add_(1)
    after = one.encode("a text")
    assert not np.array_equal(before, after)
    plain = Embedder(one.model, one.tokenizer, one.recipe)
    np.testing.assert_allclose(after, plain.encode("a text"), atol=1e-6)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_everything_works(caplog: pytest.LogCaptureFixture) -> None:
    plain = embedder(engine="pytorch").encode(TEXTS)
    auto = embedder(engine="auto")
    auto.encode(["a text " * 200] * 2)
    assert np.array_equal(auto.encode(TEXTS), plain)
    assert "no C++ compiler was found: install g++" in auto.computes
    with caplog.at_level(logging.WARNING):
        integers = embedder(dtype="int16", engine="auto")
        assert np.abs(integers.encode(TEXTS) - plain).max() < 1e-3
        integers.encode(TEXTS)
    (told,) = caplog.messages
    assert told.startswith("integers are computed by PyTorch, slower than float32: no C++ compiler")


@pytest.mark.usefixtures("no_compiler")
def test_kernels_that_were_asked_for_and_cannot_be_are_refused() -> None:
    one = embedder(engine="kernels")
    with pytest.raises(EngineError, match=r"no C\+\+ compiler was found.*choose engine='pytorch'"):
        one.encode("a text")


def test_an_unknown_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="got engine 'gpu', expected one of"):
        chosen_engine("gpu")
    monkeypatch.setenv("MINIBERT_ENGINE", "fast")
    with pytest.raises(EngineError, match="got MINIBERT_ENGINE 'fast', expected one of"):
        chosen_engine(None)
    monkeypatch.setenv("MINIBERT_ENGINE", "")
    assert chosen_engine(None) == "auto"


def test_an_embedder_with_kernels_goes_to_another_process() -> None:
    one = embedder(engine="kernels")
    before = one.encode(TEXTS)
    copy = pickle.loads(pickle.dumps(one._engines))
    assert copy._engine is None
    assert "by kernels" in one.computes
    assert np.array_equal(one.encode(TEXTS), before)


def test_kernels_are_compiled_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    build.load(tmp_path, target="-march=x86-64 -O0")
    (place,) = tmp_path.glob("*/libminibert.so")
    said = capfd.readouterr().err
    assert said.startswith("minibert: compiling kernels for this CPU with ")
    assert said.endswith(" s\n")
    assert list(place.parent.iterdir()) == [place]
    build.load(tmp_path, target="-march=x86-64 -O0")
    assert capfd.readouterr().err == ""


def test_two_processes_compile_once(tmp_path: Path) -> None:
    """By a compiler that takes its time, and gives what has been compiled before."""
    library = Path(load_kernels()._name)
    compiler, asked = tmp_path / "g++", tmp_path / "asked"
    compiler.write_text(
        "#!/bin/sh\n"
        'for each; do out="$each"; done\n'  # the last argument is where to write
        'case "$1" in\n'
        "--version) echo 1 ;;\n"
        f'-shared) cp "{library}" "$out" ;;\n'
        f'*) echo x >> "{asked}"; sleep 2; touch "$out" ;;\n'
        "esac\n"
    )
    compiler.chmod(0o755)
    program = (
        "import pathlib, sys; from minibert.kernels import build;"
        "build.load(pathlib.Path(sys.argv[1]))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "cache")],
            env={**os.environ, "CXX": str(compiler)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = "".join(process.communicate(timeout=120)[1] for process in processes)
    assert [process.returncode for process in processes] == [0, 0], said
    assert asked.read_text().split() == ["x"]
    assert said.count("compiling kernels") == 1, said


def test_a_compiler_that_fails_is_quoted_and_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "g++"
    broken.write_text('#!/bin/sh\ncase "$1" in --version) echo 1; exit;; esac\n'
                      'echo "x.cpp:1: error: no good" >&2; exit 1\n')  # fmt: skip
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(KernelsUnavailableError, match=r"could not be compiled.*error: no good"):
        build.load(tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.so"))
    assert capfd.readouterr().err.endswith("once … failed\n")
    with pytest.raises(KernelsUnavailableError, match=r"could not be compiled.*error: no good"):
        build.load(tmp_path / "cache")
    assert capfd.readouterr().err == ""


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KernelsUnavailableError, match="could not be compiled"):
        build.load(tmp_path / "file")


def test_a_library_that_is_torn_is_said(tmp_path: Path) -> None:
    compiler = build.find_compiler()
    place = tmp_path / build._key(compiler, build.TARGET) / "libminibert.so"
    place.parent.mkdir()
    place.write_bytes(b"\x7fELF torn")
    with pytest.raises(KernelsUnavailableError, match="cannot be loaded"):
        build.load(tmp_path)


def test_kernels_not_compiled_yet_are_only_looked_for(tmp_path: Path) -> None:
    with pytest.raises(KernelsUnavailableError, match="not compiled yet: minibert kernels"):
        build.load(tmp_path, build=False)
    assert not list(tmp_path.iterdir())


def minibert(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "minibert", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_command_compiles_and_says_for_what() -> None:
    done = minibert("kernels")
    assert done.returncode == 0
    assert done.stdout.startswith("kernels for ")


@pytest.mark.slow
def test_the_command_refuses_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = minibert("kernels")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no C++ compiler was found" in done.stderr


@pytest.mark.slow
def test_embedding_says_what_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_kernels()
    monkeypatch.setenv("MINIBERT_ENGINE", "auto")
    texts = tmp_path / "texts.txt"
    texts.write_text("a text\nanother one\n" * 20)
    for dtype in ("float32", "int8"):
        out = tmp_path / f"{dtype}.npy"
        done = minibert("embed", "--input", str(texts), "--output", str(out), "--dtype", dtype)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith("minibert: 40 texts, in ")
        assert "by kernels for" in done.stderr
