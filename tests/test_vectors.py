"""Files of vectors: what stands in them, what is refused, and that no fault or kill leaves less."""

import errno
import itertools
import json
import os
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from minibert import vectors as module
from minibert.errors import DataError
from minibert.precision import PRECISIONS, Vectors, quantise_vectors
from minibert.vectors import NO_TEXTS, Origin, VectorWriter, chain, json_rows, read_vectors

SUFFIXES = (".npy", ".safetensors", ".jsonl")
ORIGIN = Origin(fingerprint="ab" * 32, model="a model", dim=3)
OTHER = replace(ORIGIN, fingerprint="cd" * 32, prompt="query: ")
ROWS = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
TEXTS = [f"text {number}" for number in range(7)]
CHUNK = 3

ANY_SUFFIX = pytest.mark.parametrize("suffix", SUFFIXES)
ANY_PRECISION = pytest.mark.parametrize("precision", PRECISIONS)


def stored(precision: Any) -> Vectors:
    """The vectors of TEXTS."""
    return quantise_vectors(ROWS, precision)


def job(path: Path, origin: Origin = ORIGIN, **options: Any) -> Callable[[], None]:
    """Embed TEXTS into `path`, resuming what was stopped."""
    rows = stored(origin.precision)

    def run() -> None:
        with VectorWriter(path, origin, **options) as writer:
            texts = iter(TEXTS)
            if not writer.skip(texts):
                texts = iter(TEXTS)
            done = writer.n_done
            while chunk := list(itertools.islice(texts, CHUNK)):
                writer.append(rows[done : done + len(chunk)], chunk)
                done += len(chunk)
            writer.finish()

    return run


def stopped(path: Path, chunks: int = 2, origin: Origin = ORIGIN, **options: Any) -> None:
    """Leave a job behind that was stopped after some chunks."""
    rows = stored(origin.precision)
    with VectorWriter(path, origin, **options) as writer:
        for start in range(0, chunks * CHUNK, CHUNK):
            stop = start + CHUNK
            writer.append(rows[start:stop], TEXTS[start:stop])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


# What stands in the files.


@ANY_PRECISION
def test_npy_is_what_numpy_writes(tmp_path: Path, precision: str) -> None:
    rows = stored(precision)
    job(tmp_path / "v.npy", replace(ORIGIN, precision=precision))()
    np.save(tmp_path / "w.npy", rows)
    assert (tmp_path / "v.npy").read_bytes() == (tmp_path / "w.npy").read_bytes()
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r", allow_pickle=False)
    np.testing.assert_array_equal(mapped, rows)
    assert (
        json.loads((tmp_path / "v.npy.json").read_bytes()).items()
        >= {
            "fingerprint": "ab" * 32,
            "model": "a model",
            "rows": 7,
            "dim": 3,
            "texts_sha256": chain(NO_TEXTS, TEXTS),
        }.items()
    )


def test_safetensors_says_in_its_metadata_where_it_comes_from(tmp_path: Path) -> None:
    job(tmp_path / "v.safetensors", origin=replace(ORIGIN, prompt="é: ", normalised=False))()
    assert sorted(files(tmp_path)) == ["v.safetensors"]
    with safe_open(tmp_path / "v.safetensors", framework="np") as opened:
        np.testing.assert_array_equal(opened.get_tensor("embeddings"), ROWS)
        assert opened.metadata() == {
            "fingerprint": "ab" * 32,
            "model": "a model",
            "dim": "3",
            "dtype": "float32",
            "prompt": "é: ",
            "normalised": "false",
            "long_text": "truncate",
            "texts_sha256": chain(NO_TEXTS, TEXTS),
            "with_text": "false",
        }


def test_jsonl_has_a_row_a_line(tmp_path: Path) -> None:
    job(tmp_path / "v.jsonl")()
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [["index", "embedding"]] * 7
    assert [line["index"] for line in lines] == list(range(7))
    job(tmp_path / "w.jsonl", with_text=True)()
    lines = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [["index", "text", "embedding"]] * 7
    assert [line["text"] for line in lines] == TEXTS


def test_json_numbers_are_the_shortest_of_their_float() -> None:
    row = np.array([[0.1, -1e-5, 3.0, 1e20, -1.1754944e-38]], dtype=np.float32)
    assert list(json_rows(row)) == ["[0.1, -1e-05, 3.0, 1e+20, -1.1754944e-38]"]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_json_numbers_give_the_same_float_again(numbers: list[float]) -> None:
    row = np.array([numbers], dtype=np.float32)
    (line,) = json_rows(row)
    np.testing.assert_array_equal(np.array([json.loads(line)], dtype=np.float32), row)


@ANY_SUFFIX
@ANY_PRECISION
@pytest.mark.parametrize("with_text", [False, True])
def test_vectors_come_back_as_written(
    tmp_path: Path, suffix: str, precision: str, with_text: bool
) -> None:
    path, origin = tmp_path / f"v{suffix}", replace(ORIGIN, precision=precision)
    job(path, origin, with_text=with_text)()
    found = read_vectors(path)
    np.testing.assert_array_equal(found.vectors, stored(precision))
    assert found.vectors.dtype == stored(precision).dtype
    assert (found.origin, found.fingerprint) == (origin, ORIGIN.fingerprint)
    assert found.precision == precision
    assert (found.texts_sha256, found.with_text) == (chain(NO_TEXTS, TEXTS), with_text)


@ANY_SUFFIX
@ANY_PRECISION
def test_no_texts_give_a_file_without_rows(tmp_path: Path, suffix: str, precision: str) -> None:
    path, origin = tmp_path / f"v{suffix}", replace(ORIGIN, precision=precision)
    with VectorWriter(path, origin) as writer:
        assert writer.skip(iter([]))
        writer.finish()
    assert len(read_vectors(path).vectors) == 0
    assert (read_vectors(path).origin, read_vectors(path).precision) == (origin, precision)
    job(path, origin, append=True)()
    np.testing.assert_array_equal(read_vectors(path).vectors, stored(precision))


@ANY_PRECISION
def test_npy_and_safetensors_are_mapped_not_read(tmp_path: Path, precision: str) -> None:
    for suffix in (".npy", ".safetensors"):
        job(tmp_path / f"v{suffix}", replace(ORIGIN, precision=precision))()
        assert isinstance(read_vectors(tmp_path / f"v{suffix}").vectors, np.memmap)


def test_chain_depends_on_order_and_on_where_texts_end() -> None:
    assert chain(NO_TEXTS, []) == NO_TEXTS
    assert chain(NO_TEXTS, ["a", "b"]) == chain(chain(NO_TEXTS, ["a"]), ["b"])
    different = [["a", "b"], ["b", "a"], ["ab"], ["ab", ""], ["", "ab"]]
    assert len({chain(NO_TEXTS, texts) for texts in different}) == 5


# Resuming, overwriting, appending.


@ANY_SUFFIX
@ANY_PRECISION
def test_stopped_job_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, suffix: str, precision: str
) -> None:
    origin = replace(ORIGIN, precision=precision)
    job(tmp_path / f"whole{suffix}", origin, settings={"chunk_texts": CHUNK})()
    path = tmp_path / f"v{suffix}"
    stopped(path, origin=origin, settings={"chunk_texts": CHUNK})
    assert not path.exists()
    with (tmp_path / f"v{suffix}.partial").open("ab") as file:
        file.write(b"half a chunk, not in the state")
    other_name = replace(origin, model="./a-much-longer-way/to-the-same-model")
    writer = VectorWriter(path, other_name, settings={"chunk_texts": CHUNK})
    assert (writer.n_done, writer.n_kept) == (6, 6)
    writer.close()
    job(path, origin=other_name, settings={"chunk_texts": CHUNK})()
    assert path.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert not list(tmp_path.glob("*.partial*"))


def test_stopped_before_its_first_chunk_leaves_nothing(tmp_path: Path) -> None:
    stopped(tmp_path / "v.npy", chunks=0)
    assert not files(tmp_path)


@ANY_SUFFIX
@ANY_PRECISION
def test_append_adds_behind_the_rows_that_are_there(
    tmp_path: Path, suffix: str, precision: str
) -> None:
    path, origin = tmp_path / f"v{suffix}", replace(ORIGIN, precision=precision)
    job(path, origin)()
    before = files(tmp_path)
    stopped(path, origin=origin, append=True)
    assert {name: files(tmp_path)[name] for name in before} == before
    job(path, origin, append=True)()
    found = read_vectors(path)
    np.testing.assert_array_equal(found.vectors, np.concatenate([stored(precision)] * 2))
    assert found.origin == origin
    assert found.texts_sha256 == chain(NO_TEXTS, TEXTS + TEXTS)
    if suffix == ".jsonl":
        indices = [json.loads(line)["index"] for line in path.read_text().splitlines()]
        assert indices == list(range(14))
    assert not list(tmp_path.glob("*.partial*"))


def test_append_begins_a_file_that_is_not_there(tmp_path: Path) -> None:
    job(tmp_path / "v.npy", append=True)()
    np.testing.assert_array_equal(read_vectors(tmp_path / "v.npy").vectors, ROWS)


@ANY_SUFFIX
def test_overwrite_leaves_the_earlier_file_until_the_new_one_is_whole(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"v{suffix}"
    job(path, origin=OTHER)()
    before = files(tmp_path)
    stopped(path, overwrite=True)
    assert {name: files(tmp_path)[name] for name in before} == before
    assert read_vectors(path).origin == OTHER
    with VectorWriter(path, ORIGIN, overwrite=True) as writer:
        assert writer.n_done == 6  # it replaces the file, and still resumes its own job
    job(path, overwrite=True)()
    assert read_vectors(path).origin == ORIGIN


def test_overwrite_drops_a_stopped_job_of_another_input(tmp_path: Path) -> None:
    stopped(tmp_path / "v.npy")
    with VectorWriter(tmp_path / "v.npy", ORIGIN, overwrite=True) as writer:
        assert not writer.skip(iter(["another"] * 6))
        assert writer.n_done == 0
        assert not (tmp_path / "v.npy.partial.json").exists()
        writer.append(ROWS[:1], ["another"])
        writer.finish()
    np.testing.assert_array_equal(read_vectors(tmp_path / "v.npy").vectors, ROWS[:1])


def test_overwrite_drops_a_stopped_job_of_another_model(tmp_path: Path) -> None:
    stopped(tmp_path / "v.npy", origin=OTHER)
    with VectorWriter(tmp_path / "v.npy", ORIGIN, overwrite=True) as writer:
        assert writer.n_done == 0


def test_partial_file_that_lost_its_end_begins_anew(tmp_path: Path) -> None:
    stopped(tmp_path / "v.npy")
    os.truncate(tmp_path / "v.npy.partial", 130)
    with VectorWriter(tmp_path / "v.npy", ORIGIN) as writer:
        assert writer.n_done == 0


# Refusals.


def test_resuming_with_another_input_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    stopped(path)
    for texts in (["another"] * 6, TEXTS[:5], TEXTS[1:]):
        with VectorWriter(path, ORIGIN) as writer:
            said = refusal(lambda writer=writer, texts=texts: writer.skip(iter(texts)))
            assert said == (
                f"{path}: the input has changed since its job was stopped at text 6; --overwrite "
                "starts it again"
            )
    job(path)()  # the refusals have left what was done


def test_resuming_a_job_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    stopped(path, settings={"batch_tokens": 64})
    assert refusal(lambda: VectorWriter(path, ORIGIN, settings={"batch_tokens": 32})) == (
        f"{path}: its stopped job is another: batch_tokens 64 there, 32 here; --overwrite starts "
        "it again"
    )
    assert "with_text False there, True here" in refusal(
        lambda: VectorWriter(path, ORIGIN, with_text=True, settings={"batch_tokens": 64})
    )
    said = refusal(lambda: VectorWriter(path, OTHER, settings={"batch_tokens": 64}))
    assert "is another: prompt '' there, 'query: ' here; --overwrite starts it again" in said
    model = replace(ORIGIN, fingerprint="cd" * 32)
    said = refusal(lambda: VectorWriter(path, model, settings={"batch_tokens": 64}))
    assert "other weights, tokenizer or recipe: fingerprint abababababab… there, cdcdcdc" in said
    smaller = replace(ORIGIN, precision="int8")
    said = refusal(lambda: VectorWriter(path, smaller, settings={"batch_tokens": 64}))
    assert "another: precision 'float32' there, 'int8' here; --overwrite starts it again" in said
    said = refusal(lambda: VectorWriter(path, ORIGIN, append=True, settings={"batch_tokens": 64}))
    assert f"append False there, True here; remove {path}.partial to start it again" in said


def test_resuming_to_append_to_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    job(path)()
    stopped(path, append=True)
    np.save(tmp_path / "w.npy", -ROWS)
    with VectorWriter(tmp_path / "w.npy", ORIGIN, overwrite=True) as writer:
        writer.append(-ROWS, TEXTS)
        writer.finish()
    for name in ("w.npy", "w.npy.json"):
        (tmp_path / name).replace(tmp_path / name.replace("w", "v"))
    said = refusal(lambda: VectorWriter(path, ORIGIN, append=True))
    assert "its stopped job is another: earlier '" in said
    assert said.endswith(f"; remove {path}.partial to start it again")


def test_resuming_from_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    for content in ("no JSON", "[]", "{}", '{"origin": {}, "texts_sha256": ""}'):
        (tmp_path / "v.npy.partial").write_bytes(b"vectors")
        (tmp_path / "v.npy.partial.json").write_text(content)
        assert "v.npy.partial.json: does not say how far a job got; remove it, and" in refusal(
            lambda: VectorWriter(path, ORIGIN)
        )
        assert (tmp_path / "v.npy.partial").read_bytes() == b"vectors"


def test_second_writer_of_one_output_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    with VectorWriter(path, ORIGIN) as first:
        first.append(ROWS[:CHUNK], TEXTS[:CHUNK])
        for options in ({}, {"overwrite": True}, {"append": True}):
            assert refusal(lambda options=options: VectorWriter(path, ORIGIN, **options)) == (
                f"{path}: another process is writing it; wait for it, or choose another output"
            )
        first.append(ROWS[CHUNK:], TEXTS[CHUNK:])
        first.finish()
    np.testing.assert_array_equal(read_vectors(path).vectors, ROWS)


def test_writer_that_comes_as_another_finishes_does_not_touch_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, partial = tmp_path / "v.npy", tmp_path / "v.npy.partial"
    try_lock, handles = module._try_lock, []

    def finish_first(handle: int) -> bool:
        handles.append(handle)
        if len(handles) == 1:  # opened, not yet locked: and now the other writer is done
            partial.write_bytes(b"the finished file")
            partial.replace(path)
        return try_lock(handle)

    monkeypatch.setattr(module, "_try_lock", finish_first)
    assert "v.npy: exists" in refusal(lambda: VectorWriter(path, ORIGIN))
    assert len(handles) == 2
    assert files(tmp_path) == {"v.npy": b"the finished file"}


def test_output_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(name: str, **options: Any) -> str:
        return refusal(lambda: VectorWriter(tmp_path / name, ORIGIN, **options))

    job(tmp_path / "v.npy")()
    (tmp_path / "folder.npy").mkdir()
    assert said("v.npy").endswith("v.npy: exists; --overwrite replaces it, --append adds to it")
    assert "folder.npy: is a folder, expected the name of a file" in said("folder.npy")
    assert said("no/v.npy").endswith(f"there is no folder {tmp_path}/no; make it first")
    assert "has the suffix '.bin', expected one of .npy, .safetensors, .jsonl" in said("v.bin")
    assert "got append and overwrite" in said("v.npy", append=True, overwrite=True)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert f"the folder {tmp_path} cannot be written to; choose another" in said("w.npy")
    assert sorted(files_in(tmp_path)) == ["folder.npy", "v.npy", "v.npy.json"]


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_append_to_vectors_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    job(path)()
    assert "holds vectors of another kind: prompt '' there, 'query: ' here; embed as it" in refusal(
        lambda: VectorWriter(path, OTHER, append=True)
    )
    # The name of the model does not matter.
    smaller = replace(ORIGIN, precision="binary", model="another name")
    assert refusal(lambda: VectorWriter(path, smaller, append=True)) == (
        f"{path}: holds vectors of another kind: precision 'float32' there, 'binary' here; embed "
        "as it was made, or into another file"
    )
    assert "was written without --with-text" in refusal(
        lambda: VectorWriter(path, ORIGIN, append=True, with_text=True)
    )
    (tmp_path / "v.jsonl.json").unlink()
    assert "does not say which model made it (v.jsonl.json is absent" in refusal(
        lambda: VectorWriter(path, ORIGIN, append=True)
    )
    assert files_in(tmp_path) == ["v.jsonl"]


def test_sidecar_of_another_file_says_nothing(tmp_path: Path) -> None:
    job(tmp_path / "v.npy")()
    job(tmp_path / "w.npy", origin=OTHER)()
    with VectorWriter(tmp_path / "w.npy", OTHER, overwrite=True) as writer:
        writer.append(-ROWS, TEXTS)
        writer.finish()
    (tmp_path / "w.npy.json").replace(tmp_path / "v.npy.json")
    assert read_vectors(tmp_path / "v.npy").origin is None


def test_vectors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    rows = ROWS.copy()
    rows[4, 1] = np.inf
    with VectorWriter(path, ORIGIN) as writer:
        writer.append(rows[:3], TEXTS[:3])
        assert refusal(lambda: writer.append(rows[3:], TEXTS[3:])) == (
            f"{path}: the vector of text 4 holds NaN or infinity: float32 overflowed; take --dtype "
            "float32 or bfloat16"
        )
        assert writer.n_kept == 3


def test_vectors_of_another_shape_are_a_mistake(tmp_path: Path) -> None:
    with VectorWriter(tmp_path / "v.npy", ORIGIN) as writer:
        for rows, texts in ((ROWS, TEXTS[:3]), (ROWS[:, :2], TEXTS), (stored("int8"), TEXTS)):
            with pytest.raises(ValueError, match="got vectors of shape"):
                writer.append(rows, texts)


NPY = b"\x93NUMPY\x01\x00"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("v.npy", b"", "is no whole .npy file of numbers"),
        ("v.npy", b"PK\x03\x04 a zip", "is no whole .npy file of numbers"),
        ("v.npy", b"\x80\x04\x95 a pickle", "is no whole .npy file of numbers"),
        ("v.npy", NPY + b"\xff\xff{'descr'", "is no whole .npy file of numbers"),
        ("v.npy", NPY + b"\x04\x00[[[\n", "is no whole .npy file of numbers"),
        ("v.npy", module._npy_header(9, 3, ROWS.dtype), "is no whole .npy file of numbers"),
        (
            "v.jsonl",
            b"\n",
            "line 1 holds no float32 vector, expected an object whose 'embedding' is a",
        ),
        ("v.jsonl", b'{"embedding": [1, "x"]}', "line 1 holds no float32 vector"),
        ("v.jsonl", b'{"embedding": [1]}\n{"embedding": [1, 2]}', "line 2 holds no float32 vector"),
        ("v.jsonl", b'{"embedding": [NaN]}', "line 1 holds no float32 vector"),
        ("v.jsonl", b"[1, 2]", "line 1 holds no float32 vector"),
        ("v.safetensors", b"", "is no whole safetensors file"),
        ("v.safetensors", b"\xff" * 64, "is no whole safetensors file"),
        ("v.txt", b"", "has the suffix '.txt'"),
    ],
)
def test_torn_and_foreign_files_are_refused(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refusal(lambda: read_vectors(tmp_path / name))


def test_arrays_of_another_type_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", ROWS.astype(np.float64))
    assert "holds float64 of shape (7, 3), expected float32, int8 or uint8 (rows, dim)" in refusal(
        lambda: read_vectors(tmp_path / "wide.npy")
    )
    np.save(tmp_path / "flat.npy", ROWS[0])
    assert "holds float32 of shape (3,)" in refusal(lambda: read_vectors(tmp_path / "flat.npy"))
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    assert "is no whole .npy file" in refusal(lambda: read_vectors(tmp_path / "objects.npy"))
    save_file({"embeddings": ROWS.astype(np.float16)}, tmp_path / "half.safetensors")
    assert "holds F16, expected F32, I8 or U8" in refusal(
        lambda: read_vectors(tmp_path / "half.safetensors")
    )
    save_file({"weight": ROWS}, tmp_path / "other.safetensors")
    assert "holds the tensors ['weight'], expected one, 'embeddings'" in refusal(
        lambda: read_vectors(tmp_path / "other.safetensors")
    )
    assert "cannot be read: No such file" in refusal(lambda: read_vectors(tmp_path / "none.npy"))


def test_foreign_vectors_are_read_without_an_origin(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", ROWS)
    save_file({"embeddings": ROWS}, tmp_path / "v.safetensors", metadata={"dim": "[["})
    for name in ("v.npy", "v.safetensors"):
        found = read_vectors(tmp_path / name)
        np.testing.assert_array_equal(found.vectors, ROWS)
        assert (found.origin, found.fingerprint) == (None, None)


def test_files_without_a_precision_are_float32(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        job(tmp_path / f"v{suffix}")()
        assert read_vectors(tmp_path / f"v{suffix}").origin == ORIGIN
    told = json.loads((tmp_path / "v.jsonl.json").read_bytes())
    assert "precision" not in told
    for other in ("int8", "int4", 8):  # what is said is not what is there
        (tmp_path / "v.npy.json").write_text(json.dumps({**told, "precision": other}))
        assert read_vectors(tmp_path / "v.npy").origin is None


@pytest.mark.parametrize("precision", ["int8", "binary"])
def test_lines_that_hold_no_such_integers_are_refused(tmp_path: Path, precision: str) -> None:
    path = tmp_path / "v.jsonl"
    for numbers in ("[1, 2.5]", "[1, 256]", "[1, -129]", "[1, 1e300]", "[1, NaN]", "1", '["1"]'):
        path.write_text(f'{{"embedding": [1, 2]}}\n{{"embedding": {numbers}}}\n')
        facts = module._facts(replace(ORIGIN, precision=precision), NO_TEXTS, False)
        module._write_sidecar(path, [{**facts, "sample_sha256": module._sample_sha256(path)}])
        said = refusal(lambda: read_vectors(path))
        assert f"line 2 holds no {stored(precision).dtype} vector, expected an object" in said


# A full disk, at every call that could meet it.

CALLS = ("write", "fsync", "replace", "unlink", "ftruncate")


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of jobs flush to the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with room for 1 MB: a disk of its own where that may be mounted, else a pretence."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if mounted:
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
        return
    write = os.write

    def refuse(handle: int, content: Any) -> int:
        if sum(path.stat().st_size for path in folder.iterdir()) + len(content) > 1 << 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, content)

    monkeypatch.setattr(os, "write", refuse)
    yield folder


@ANY_SUFFIX
def test_full_disk_leaves_the_earlier_file_and_nothing_else(small_disk: Path, suffix: str) -> None:
    path = small_disk / f"v{suffix}"
    job(path)()
    before = files(small_disk)

    def fill() -> None:
        with VectorWriter(path, ORIGIN, overwrite=True) as writer:
            for _ in range(1000):
                writer.append(np.tile(ROWS, (100, 1)), TEXTS * 100)

    assert refusal(fill) == (
        f"{path}: cannot be written: No space left on device; the earlier file is unchanged, so "
        "make room or choose another output, and start again"
    )
    assert files(small_disk) == before


@ANY_SUFFIX
@pytest.mark.parametrize("mode", ["new", "overwrite", "append"])
def test_every_failing_call_leaves_the_old_file_or_the_new_one(
    quick_disk: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, mode: str
) -> None:
    options = {} if mode == "new" else {mode: True}
    path, old, new = prepare(quick_disk, suffix, mode)
    for number in itertools.count(1):
        restore(path, old)
        with monkeypatch.context() as patch:
            failed = fail_at(number, patch)
            try:
                job(path, **options)()
                told = ""
            except DataError as error:
                told = str(error)
        if not failed:
            break
        if told:
            assert "cannot be written: No space left" in told
            assert files(quick_disk) == old, number
        else:  # it had its name already
            assert path.read_bytes() == new[path.name], number
            assert read_vectors(path).origin == ORIGIN
    assert number > 15
    assert files(quick_disk) == new


def fail_at(number: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Have the call of that number fail; gives the list that tells whether it came to it."""
    calls = itertools.count(1)
    failed: list[str] = []
    for name in ("write", "fsync", "replace"):
        real = getattr(os, name)

        def call(*args: Any, name: str = name, real: Any = real, **options: Any) -> Any:
            if next(calls) == number:
                failed.append(name)
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **options)

        patch.setattr(os, name, call)
    return failed


def prepare(
    folder: Path, suffix: str, mode: str
) -> tuple[Path, dict[str, bytes], dict[str, bytes]]:
    """An output, the folder as it is before a job, and as it is to be after it."""
    path = folder / f"v{suffix}"
    if mode != "new":
        job(path, origin=OTHER if mode == "overwrite" else ORIGIN)()
    old = files(folder)
    job(path, **({} if mode == "new" else {mode: True}))()
    new = files(folder)
    return path, old, new


def restore(path: Path, content: dict[str, bytes]) -> None:
    for name in files_in(path.parent):
        (path.parent / name).unlink()
    for name, each in content.items():
        (path.parent / name).write_bytes(each)


# SIGKILL, at every call that changes the disk.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        (".npy", "new"),
        (".npy", "overwrite"),
        (".npy", "append"),
        (".jsonl", "append"),
        (".safetensors", "overwrite"),
    ],
)
def test_killed_at_any_call_the_job_goes_on_to_the_same_file(
    quick_disk: Path, suffix: str, mode: str
) -> None:
    options = {} if mode == "new" else {mode: True}
    path, old, new = prepare(quick_disk, suffix, mode)
    for number in itertools.count(1):
        restore(path, old)
        if not killed_at(number, job(path, **options)):
            break
        published = path.exists() and path.read_bytes() == new[path.name]
        if not published and old:
            assert path.read_bytes() == old[path.name], number
        if path.exists():  # whatever happened, it says where it comes from
            assert read_vectors(path).fingerprint is not None, number
        if not published:
            job(path, **options)()
            assert files(quick_disk) == new, number
    assert number > 20
    assert files(quick_disk) == new


def killed_at(number: int, action: Callable[[], None]) -> bool:
    """Whether a process that runs `action` was killed at that call, half of which was done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, on fork and threads
        child = os.fork()
    if child == 0:
        try:
            calls = itertools.count(1)
            for name in CALLS:
                real = getattr(os, name)

                def call(*args: Any, name: str = name, real: Any = real, **options: Any) -> Any:
                    if next(calls) == number:
                        if name == "write":
                            real(args[0], args[1][: len(args[1]) // 2])
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*args, **options)

                setattr(os, name, call)
            action()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
