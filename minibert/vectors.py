"""Files of vectors: .npy, .safetensors or .jsonl, written so that they are whole or not there.

    OUTPUT                 appears under its name when it is complete, in one rename
    OUTPUT.json            where its vectors come from; .safetensors has that in its own metadata
    OUTPUT.partial         a job under way, or one that was stopped; locked by the process at work
    OUTPUT.partial.json    how far it is; written after the vectors themselves are on the disk

A stopped job that is started again goes on behind the last chunk in OUTPUT.partial.json, and gives
the bytes that it would have given.  Nothing here unpickles anything.
"""

import contextlib
import glob
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from minibert.errors import DataError
from minibert.files import flush, replacing, try_lock
from minibert.precision import DTYPES, PRECISIONS, Precision, Vectors, stored_width

FORMATS = {".npy": "npy", ".safetensors": "safetensors", ".jsonl": "jsonl"}
TENSOR = "embeddings"  # the tensor of a .safetensors file
TENSOR_DTYPES = {"float32": "F32", "int8": "I8", "binary": "U8"}

# The chain of no texts at all; see `chain`.
NO_TEXTS = "00" * 32

_NPY_BYTES = 128
_BLOCK_BYTES = 1 << 20
_SAMPLES = 16
_SAMPLE_BYTES = 4096

# The longest that the shortest form of a float32 gets: -1.1754944e-38.
_FLOAT_CHARS = "U16"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What made a file of vectors; equal fingerprints make them comparable."""

    fingerprint: str  # Embedder.fingerprint_of(…)
    model: str
    dim: int
    dtype: str = "float32"  # of the computation
    precision: str = "float32"  # of what is stored; vectors of one fingerprint may have several
    prompt: str = ""
    normalised: bool = True
    long_text: str = "truncate"


@dataclass(frozen=True, eq=False)
class VectorFile:
    """A file of vectors as `read_vectors` gives it."""

    path: Path
    vectors: Vectors  # (rows, dim), as "binary" (rows, ⌈dim / 8⌉); memory-mapped but for .jsonl
    origin: Origin | None  # None where the file does not say, or its OUTPUT.json is of another
    texts_sha256: str = NO_TEXTS  # `chain` of the texts, in order
    with_text: bool = False

    @property
    def precision(self) -> Precision:
        """That of the vectors, which their dtype says."""
        return next(each for each in PRECISIONS if DTYPES[each] == self.vectors.dtype)

    @property
    def fingerprint(self) -> str | None:
        """That of the embedder and settings which made the vectors; None where it is not known."""
        return None if self.origin is None else self.origin.fingerprint


def format_of(path: Path) -> str:
    """The format that the suffix of a file of vectors says.

    Raises: DataError for another suffix.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(
            f"{path}: has the suffix {path.suffix!r}, expected one of {', '.join(FORMATS)}"
        )
    return FORMATS[path.suffix.lower()]


def chain(digest: str, texts: Iterable[str]) -> str:
    """The hash of a sequence of texts, carried on from that of the texts before: h = SHA-256(h, t).

    Unlike the state of a SHA-256 it can be stored, so that files can be added to and jobs resumed.
    """
    state = bytes.fromhex(digest)
    for text in texts:
        state = hashlib.sha256(state + text.encode("utf-8", "surrogatepass")).digest()
    return state.hex()


def differences(there: Origin, here: Origin) -> str:
    """In words, in what two origins differ; "" for those whose vectors may stand in one file."""
    alike = there.fingerprint == here.fingerprint
    names = {"precision"} if alike else {field.name for field in fields(Origin)} - {"fingerprint"}
    told = [
        f"{field.name} {getattr(there, field.name)!r} there, {getattr(here, field.name)!r} here"
        for field in fields(Origin)
        if field.name in names and getattr(there, field.name) != getattr(here, field.name)
    ]
    if told or alike:
        return "; ".join(told)
    return (
        f"other weights, tokenizer or recipe: fingerprint {there.fingerprint[:12]}… there, "
        f"{here.fingerprint[:12]}… here"
    )


def json_rows(vectors: Vectors) -> Iterator[str]:
    """Each vector as a JSON list, its numbers the shortest that give the same ones again."""
    for row in vectors.astype(_FLOAT_CHARS).tolist():
        yield f"[{', '.join(row)}]"


def check_output(path: Path, *, append: bool = False, overwrite: bool = False) -> None:
    """Refuse an output that could not be written in the end; costs nothing.

    Raises: DataError for a suffix, a folder or an existing file that stands in the way.
    """
    format_of(path)
    if append and overwrite:
        raise DataError(f"{path}: got append and overwrite, expected one of them")
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected the name of a file")
    if not path.parent.is_dir():
        raise DataError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DataError(f"{path}: the folder {path.parent} cannot be written to; choose another")
    if path.exists() and not append and not overwrite:
        raise DataError(f"{path}: exists; --overwrite replaces it, --append adds to it")


def read_vectors(path: str | Path) -> VectorFile:
    """The vectors of a file, and where they come from.

    Numbers in .jsonl are float32 where nothing is said of them.

    Raises: DataError for what is not vectors of one width and precision, torn files included.
    """
    path = Path(path)
    kind = format_of(path)
    try:
        if kind == "safetensors":
            vectors, facts = _read_safetensors(path)
        else:
            facts = _read_sidecar(path)
            vectors = _map_npy(path) if kind == "npy" else _read_jsonl(path, _dtype_in(facts))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if vectors.ndim != 2 or vectors.dtype not in DTYPES.values():
        raise DataError(
            f"{path}: holds {vectors.dtype} of shape {vectors.shape}, expected float32, int8 or "
            "uint8 (rows, dim)"
        )
    return VectorFile(path, vectors, *_parse_facts(facts, vectors.dtype))


class VectorWriter:
    """Writes one file of vectors, which appears under its name when `finish` is called.

        with VectorWriter(path, origin, settings={"chunk_texts": 4096}) as writer:
            writer.skip(texts)  # those that a stopped job has done
            while chunk := list(islice(texts, 4096)):
                writer.append(embedder.encode(chunk), chunk)
            writer.finish()

    Left without `finish`, it keeps what was appended for the next writer to go on from; a disk that
    is full is left as it was.

    Args:
        path: the output; its suffix says the format.
        origin: of the vectors.
        append: begin with the rows of the file that is there, if one is.
        overwrite: replace the file that is there. A stopped job that does not fit is dropped too.
        with_text: put each text beside its vector, in .jsonl.
        settings: what else decides the bytes; a stopped job goes on only under the same.

    Raises: DataError, from each method, in a line that says what to do.
    """

    def __init__(
        self,
        path: str | Path,
        origin: Origin,
        *,
        append: bool = False,
        overwrite: bool = False,
        with_text: bool = False,
        settings: Mapping[str, int] | None = None,
    ) -> None:
        self.path = Path(path)
        self.origin = origin
        self.rows = 0  # in the file so far, those of an earlier file included
        self._overwrite = overwrite
        self._texts_sha256 = NO_TEXTS
        self._bytes = 0
        self._kind = format_of(self.path)
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._state = self.path.with_name(self.path.name + ".partial.json")
        check_output(self.path, append=append, overwrite=overwrite)
        self._handle = self._lock()
        self._resumable = self._state.exists()  # what is there is worth keeping
        try:
            check_output(self.path, append=append, overwrite=overwrite)  # now that none can come
            self._earlier = self._read_earlier(with_text) if append else None
            self._job: dict[str, Any] = {
                "append": append,
                "with_text": with_text,
                "earlier": _sample_sha256(self.path) if self._earlier else "",
                **(settings or {}),
            }
            self._resume(self._read_state())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "VectorWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_done(self) -> int:
        """How many texts of this job are on the disk."""
        return self.rows - self._n_earlier

    @property
    def n_kept(self) -> int:
        """How many texts of this job a next writer would not have to embed again."""
        return self.n_done if self._resumable else 0

    def skip(self, texts: Iterator[str]) -> bool:
        """Pass over the `n_done` texts that a stopped job has embedded, checking that they are its.

        Returns: False where they are not and the output may be overwritten: then the job begins
            anew, and `texts` must be read again from the first.
        Raises: DataError where they are not.
        """
        start = NO_TEXTS if self._earlier is None else self._earlier.texts_sha256
        if self._texts_sha256 == chain(start, islice(texts, self.n_done)):
            return True
        if not self._overwrite:
            raise DataError(
                f"{self.path}: the input has changed since its job was stopped at text "
                f"{self.n_done}; {self._how_to_restart()}"
            )
        self._restart()
        return False

    def append(self, vectors: Vectors, texts: Sequence[str]) -> None:
        """Add the vectors of `texts`, and put them on the disk."""
        expected = (len(texts), self._width)
        if (vectors.shape, vectors.dtype) != (expected, self._dtype):
            raise ValueError(
                f"got vectors of shape {vectors.shape} and {vectors.dtype}, expected {expected} "
                f"and {self._dtype}"
            )
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise DataError(
                f"{self.path}: the vector of text {self.n_done + int(finite.argmin())} holds NaN "
                f"or infinity: {self.origin.dtype} overflowed; take --dtype float32 or bfloat16"
            )
        try:
            self._write(self._encoded(vectors, texts))
            os.fsync(self._handle)
            self.rows += len(texts)
            self._texts_sha256 = chain(self._texts_sha256, texts)
            self._write_state()
        except OSError as error:
            self._abort(error)

    def finish(self) -> None:
        """Give the file its name; nothing else ever does."""
        facts = _facts(self.origin, self._texts_sha256, bool(self._job["with_text"]))
        try:
            self._write_header()
            os.fsync(self._handle)
            # While one file takes the place of another, the sidecar speaks of both.
            sample = {"rows": self.rows, "sample_sha256": _sample_sha256(self._partial)}
            new = [] if self._kind == "safetensors" else [facts | sample]
            old = [] if self._kind == "safetensors" else _entries_of(self.path)
            try:
                if new:
                    _write_sidecar(self.path, new + old)
                self._partial.replace(self.path)
            except OSError:
                if new:
                    with contextlib.suppress(OSError):
                        _write_sidecar(self.path, old)
                raise
        except OSError as error:
            self._abort(error)
        self._resumable = False
        # The file is whole under its name; what follows only tidies up.
        with contextlib.suppress(OSError):
            flush(self.path.parent)
            if old:
                _write_sidecar(self.path, new)
        self.close()

    def close(self) -> None:
        """Stop here: what was appended stays for the next writer, if it is worth staying."""
        if self._handle < 0:
            return
        if not self._resumable:
            self._remove()
        with contextlib.suppress(OSError):
            _remove_temporaries(self._state)
            _remove_temporaries(_sidecar(self.path))
        os.close(self._handle)
        self._handle = -1

    @property
    def _dtype(self) -> np.dtype[Any]:
        return DTYPES[self.origin.precision]

    @property
    def _width(self) -> int:
        return stored_width(self.origin.dim, self._dtype)

    @property
    def _n_earlier(self) -> int:
        return 0 if self._earlier is None else len(self._earlier.vectors)

    def _lock(self) -> int:
        """The partial file, open, and ours alone until it is closed."""
        while True:
            try:
                handle = os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise DataError(f"{self._partial}: cannot be written: {error.strerror}") from None
            if not _try_lock(handle):
                os.close(handle)
                raise DataError(
                    f"{self.path}: another process is writing it; wait for it, or choose another "
                    "output"
                )
            # Its last holder may have given it its final name, or removed it, in between.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), self._partial.stat()):
                    return handle
            os.close(handle)

    def _read_earlier(self, with_text: bool) -> VectorFile | None:
        """The file to add to, None where there is none yet."""
        if not self.path.exists():
            return None
        earlier = read_vectors(self.path)
        if earlier.origin is None:
            raise DataError(
                f"{self.path}: does not say which model made it ({_sidecar(self.path).name} is "
                "absent, or of another file), expected a file that minibert wrote; embed into a "
                "new one"
            )
        if told := differences(earlier.origin, self.origin):
            raise DataError(
                f"{self.path}: holds vectors of another kind: {told}; embed as it was made, or "
                "into another file"
            )
        if earlier.with_text != with_text:
            state = "with" if earlier.with_text else "without"
            raise DataError(f"{self.path}: was written {state} --with-text; append to it likewise")
        return earlier

    def _read_state(self) -> Mapping[str, Any] | None:
        """How far a stopped job got; None where there is none, or its vectors are gone."""
        try:
            state = json.loads(self._state.read_bytes())
            Origin(**state["origin"])
            bytes.fromhex(state["texts_sha256"])
            whole = 0 <= state["bytes"] <= os.fstat(self._handle).st_size
            return state if whole and state["rows"] > 0 and state["job"] else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise DataError(
                f"{self._state}: does not say how far a job got; remove it, and "
                f"{self._partial.name}, to start again"
            ) from None

    def _resume(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a state, or begin."""
        if state is None:
            self._restart()
            return
        there, origin = state["job"], Origin(**state["origin"])
        told = [
            f"{key} {there.get(key)!r} there, {here!r} here"
            for key, here in self._job.items()
            if there.get(key) != here
        ]
        told += filter(None, [differences(origin, self.origin)])
        if told and self._overwrite:
            self._restart()
            return
        if told:
            raise DataError(
                f"{self.path}: its stopped job is another: {'; '.join(told)}; "
                f"{self._how_to_restart()}"
            )
        # Its own names (of the model, for one) go on, so that the bytes come out the same.
        self.origin = origin
        self.rows, self._bytes = state["rows"], state["bytes"]
        self._texts_sha256 = state["texts_sha256"]
        os.ftruncate(self._handle, self._bytes)

    def _restart(self) -> None:
        """Begin anew, with the rows of the earlier file where there is one."""
        self._resumable = False
        self._bytes = 0
        self.rows = self._n_earlier
        self._texts_sha256 = NO_TEXTS
        try:
            self._state.unlink(missing_ok=True)
            flush(self.path.parent)  # before the bytes that the state counts are gone
            os.ftruncate(self._handle, 0)
            self._write(bytes(self._header_bytes))
            if self._earlier is not None:
                self._texts_sha256 = self._earlier.texts_sha256
                self._copy_rows(self._earlier)
        except OSError as error:
            self._abort(error)

    def _copy_rows(self, earlier: VectorFile) -> None:
        with earlier.path.open("rb") as file:
            if self._kind != "jsonl":  # the numbers are what stands last in both formats
                file.seek(-earlier.vectors.nbytes, os.SEEK_END)
            while block := file.read(_BLOCK_BYTES):
                self._write(block)

    def _encoded(self, vectors: Vectors, texts: Sequence[str]) -> bytes:
        if self._kind != "jsonl":
            return vectors.astype(self._dtype).tobytes()
        lines = []
        for row, (text, numbers) in enumerate(zip(texts, json_rows(vectors), strict=True)):
            said = f'"text": {json.dumps(text, ensure_ascii=False)}, '
            middle = said if self._job["with_text"] else ""
            lines.append(f'{{"index": {self.rows + row}, {middle}"embedding": {numbers}}}\n')
        return "".join(lines).encode()

    @property
    def _header_bytes(self) -> int:
        """The room that is left for the header, the same for any number of rows."""
        if self._kind == "jsonl":
            return 0
        if self._kind == "npy":
            return _NPY_BYTES
        longest = len(_safetensors_json(10**15, self._safetensors_facts()))
        return -(-(8 + longest) // 512) * 512

    def _write_header(self) -> None:
        size = self._header_bytes
        if self._kind == "npy":
            self._write(_npy_header(self.rows, self._width, self._dtype), at=0)
        elif self._kind == "safetensors":
            text = _safetensors_json(self.rows, self._safetensors_facts()).ljust(size - 8)
            self._write((size - 8).to_bytes(8, "little") + text, at=0)

    def _safetensors_facts(self) -> dict[str, Any]:
        return _facts(self.origin, self._texts_sha256, bool(self._job["with_text"]))

    def _write(self, content: bytes, *, at: int | None = None) -> None:
        """Put bytes at a place of the partial file, by default behind all that is there."""
        os.lseek(self._handle, self._bytes if at is None else at, os.SEEK_SET)
        left = memoryview(content)
        while left:
            left = left[os.write(self._handle, left) :]
        if at is None:
            self._bytes += len(content)

    def _write_state(self) -> None:
        state = {
            "job": self._job,
            "origin": asdict(self.origin),
            "rows": self.rows,
            "bytes": self._bytes,
            "texts_sha256": self._texts_sha256,
        }
        with replacing(self._state) as part:
            part.write_text(json.dumps(state, indent=1), encoding="utf-8")
        self._resumable = True

    def _abort(self, error: OSError) -> NoReturn:
        """Leave the disk as it was before this job, and say why."""
        self._resumable = False
        self.close()
        earlier = "the earlier file is unchanged" if self.path.exists() else "nothing is left of it"
        raise DataError(
            f"{self.path}: cannot be written: {error.strerror or error}; {earlier}, so make room "
            "or choose another output, and start again"
        ) from None

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._handle), self._partial.stat()):
                self._partial.unlink()
        with contextlib.suppress(OSError):
            self._state.unlink(missing_ok=True)

    def _how_to_restart(self) -> str:
        if self._job["append"]:
            return f"remove {self._partial} to start it again"
        return "--overwrite starts it again"


def _try_lock(handle: int) -> bool:
    # Windows does not let two processes rename one open file.
    return sys.platform == "win32" or try_lock(handle)


def _facts(origin: Origin, texts_sha256: str, with_text: bool) -> dict[str, Any]:
    facts = {**asdict(origin), "texts_sha256": texts_sha256, "with_text": with_text}
    # Files of float32 keep the bytes that they had before there was another precision.
    if origin.precision == "float32":
        del facts["precision"]
    return facts


def _parse_facts(
    facts: Mapping[str, Any] | None, dtype: np.dtype[Any]
) -> tuple[Origin | None, str, bool]:
    """What `_facts` was given; no origin where the file says something else, or nothing."""
    told: dict[str, Any] = {"precision": "float32", **(facts or {})}
    try:
        origin = Origin(
            **{field.name: _typed(told[field.name], field.type) for field in fields(Origin)}
        )
        texts_sha256 = _typed(told["texts_sha256"], str)
        bytes.fromhex(texts_sha256)
        with_text = _typed(told["with_text"], bool)
    except (KeyError, TypeError, ValueError):
        return None, NO_TEXTS, False
    if DTYPES.get(origin.precision) != dtype:
        return None, NO_TEXTS, False
    return origin, texts_sha256, with_text


def _dtype_in(facts: Mapping[str, Any] | None) -> np.dtype[Any]:
    """What the numbers of a .jsonl file are."""
    said = (facts or {}).get("precision")
    return DTYPES[said if said in list(DTYPES) else "float32"]


def _typed(value: Any, kind: Any) -> Any:
    """A value as its type; the metadata of safetensors has only strings."""
    if kind is not str and isinstance(value, str):
        value = json.loads(value)
    if type(value) is not kind:
        raise TypeError(f"got {value!r}, expected {kind}")
    return value


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _write_sidecar(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Have the sidecar of `path` speak of these files; of none, there is no sidecar."""
    if not entries:
        _sidecar(path).unlink(missing_ok=True)
        return
    with replacing(_sidecar(path)) as part:
        content = entries[0] if len(entries) == 1 else entries
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read_sidecar(path: Path) -> Mapping[str, Any] | None:
    """What is told of the file that stands at `path` now; None where nothing is."""
    return next(iter(_entries_of(path)), None)


def _entries_of(path: Path) -> list[Mapping[str, Any]]:
    """The entry of a sidecar that speaks of the file at `path`, as a list of at most one."""
    try:
        content = json.loads(_sidecar(path).read_bytes())
        sample = _sample_sha256(path)
    except (OSError, ValueError, RecursionError):
        return []
    entries = content if isinstance(content, list) else [content]
    fitting = [e for e in entries if isinstance(e, dict) and e.get("sample_sha256") == sample]
    return [*fitting[:1]]


def _sample_sha256(path: Path) -> str:
    """Tells one file of vectors from another, at the cost of a few blocks: not whether it is whole.

    It ties a sidecar to its file, for two files cannot be renamed at one instant.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for sample in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _remove_temporaries(path: Path) -> None:
    """Remove what a killed process left of writing `path`; only the holder of the lock may."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        left.unlink(missing_ok=True)


def _npy_header(rows: int, width: int, dtype: np.dtype[Any]) -> bytes:
    """The header that numpy writes, which leaves room for any number of rows."""
    described = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
    text = described.ljust(_NPY_BYTES - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + (_NPY_BYTES - 10).to_bytes(2, "little") + text.encode()


def _safetensors_json(rows: int, facts: Mapping[str, Any]) -> bytes:
    precision = facts.get("precision", "float32")
    width = stored_width(facts["dim"], DTYPES[precision])
    header = {
        "__metadata__": {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()},
        TENSOR: {
            "dtype": TENSOR_DTYPES[precision],
            "shape": [rows, width],
            "data_offsets": [0, rows * width * DTYPES[precision].itemsize],
        },
    }
    return json.dumps(header).encode()


def _map_npy(path: Path) -> NDArray[Any]:
    try:
        # Unlike np.load it opens nothing but .npy, and arrays of objects not at all.
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # a torn header raises anything
        raise DataError(f"{path}: is no whole .npy file of numbers: {error}") from None


def _read_safetensors(path: Path) -> tuple[NDArray[Any], Mapping[str, Any] | None]:
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    try:
        with safe_open(path, framework="np") as opened:
            names, facts = list(opened.keys()), opened.metadata()
            if names != [TENSOR]:
                raise DataError(f"{path}: holds the tensors {names[:4]}, expected one, {TENSOR!r}")
            part = opened.get_slice(TENSOR)
            shape, kind = tuple(part.get_shape()), part.get_dtype()
    except SafetensorError as error:
        raise DataError(f"{path}: is no whole safetensors file: {error}") from None
    dtypes = {TENSOR_DTYPES[precision]: dtype for precision, dtype in DTYPES.items()}
    if kind not in dtypes:
        raise DataError(f"{path}: holds {kind}, expected F32, I8 or U8 of shape (rows, dim)")
    if 0 in shape:
        return np.zeros(shape, dtype=dtypes[kind]), facts
    return np.memmap(path, dtype=dtypes[kind], mode="r", offset=start, shape=shape), facts


def _read_jsonl(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    rows: list[NDArray[Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                numbers = json.loads(line)["embedding"]
                row = np.array(numbers, dtype=dtype)
                alike = row.ndim == 1 and row.shape == (rows or [row])[0].shape
                # Of integers nothing may be cut off, or wrap around.
                exact = dtype == np.float32 or row.tolist() == numbers
                whole = alike and exact and bool(np.isfinite(row).all())
            except (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError):
                whole = False
            if not whole:
                raise DataError(
                    f"{path}: line {number} holds no {dtype} vector, expected an object whose "
                    "'embedding' is a list of numbers, as long in every line"
                )
            rows.append(row)
    return np.stack(rows) if rows else np.zeros((0, 0), dtype=dtype)
