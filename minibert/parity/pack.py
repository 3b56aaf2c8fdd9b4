"""Parity packs: a recording as one safetensors file, and plain arrays of other frameworks.

A pack holds tensors named `inputs/input_ids`, `inputs/attention_mask`, `inputs/token_type_ids` and
`stages/NAME`, perhaps `vectors`, and one key of metadata, `pack`: a JSON object.  Only the ids and
one stage have to be there; `docs/parity.md` describes the rest.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minibert.errors import ParityError
from minibert.files import replacing
from minibert.parity.recording import Recording

FORMAT = "minibert-parity-pack"
VERSION = 1
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_FACTS = (
    "origin", "network", "config", "parameters", "noise", "steps", "texts", "tokens",
    "versions", "model_name", "dropout",
)  # fmt: skip


def write_pack(recording: Recording, path: str | Path) -> None:
    """Write a recording as a pack, whole or not at all; the same recording gives the same bytes.

    Raises: ParityError where the file cannot be written.
    """
    path = Path(path)
    tensors = {f"inputs/{name}": tensor for name, tensor in recording.inputs.items()}
    tensors |= {f"stages/{name}": tensor for name, tensor in recording.stages.items()}
    if recording.vectors is not None:
        tensors["vectors"] = recording.vectors
    facts = {name: getattr(recording, name) for name in _FACTS}
    text = json.dumps(
        {"format": FORMAT, "version": VERSION, **facts}, ensure_ascii=False, sort_keys=True
    )
    try:
        with replacing(path) as part:
            contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
            save_file(contiguous, part, metadata={"pack": text})
    except (OSError, SafetensorError) as error:
        raise ParityError(f"{path}: cannot be written: {error}; choose another place") from None


def read_pack(path: str | Path) -> Recording:
    """The recording in a pack.

    Raises: ParityError for what is no pack, is torn, or holds shapes that disagree.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ParityError(f"{path}: there is no such file, expected a parity pack") from None
    except (OSError, SafetensorError) as error:
        raise ParityError(
            f"{path}: cannot be read as safetensors: {error}; record the pack again"
        ) from None
    facts = _facts(path, metadata)
    vectors = tensors.pop("vectors", None)
    unknown = [n for n in tensors if n.split("/")[0] not in ("inputs", "stages") or "/" not in n]
    inputs = {n: tensors[f"inputs/{n}"] for n in _INPUTS if f"inputs/{n}" in tensors}
    stages = {n.split("/", 1)[1]: t for n, t in tensors.items() if n.startswith("stages/")}
    if unknown or "input_ids" not in inputs or not stages:
        raise ParityError(
            f"{path}: is no parity pack: it holds {', '.join(sorted(tensors)[:4]) or 'nothing'}, "
            "expected inputs/input_ids and stages/…; `minibert parity record` writes one"
        )
    for name, tensor in inputs.items():
        if tensor.ndim != 2 or tensor.is_floating_point():
            raise ParityError(
                f"{path}: inputs/{name} is {tensor.dtype} of shape {tuple(tensor.shape)}, "
                "expected integers of (batch, seq)"
            )
        if tensor.shape != inputs["input_ids"].shape:
            raise ParityError(
                f"{path}: inputs/{name} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(inputs['input_ids'].shape)}, that of inputs/input_ids"
            )
    recording = Recording(stages, inputs, vectors=vectors, **facts)
    singles = sum(len(texts) == 1 for texts in recording.texts)
    if vectors is not None and (vectors.ndim != 2 or len(vectors) != singles):
        raise ParityError(
            f"{path}: vectors have shape {tuple(vectors.shape)}, expected one for each of the "
            f"{singles} texts that are no pairs; record it again"
        )
    return recording


def _facts(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What the metadata says of a recording; of another framework's pack nothing needs be said."""
    if "pack" not in metadata:
        return {"origin": path.name}
    try:
        values = json.loads(metadata["pack"])
    except json.JSONDecodeError as error:
        raise ParityError(f"{path}: its metadata is no JSON ({error}); record it again") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ParityError(
            f'{path}: its metadata does not say "format": "{FORMAT}"; it is another file\'s'
        )
    if values.get("version") != VERSION:
        raise ParityError(
            f"{path}: is a pack of version {values.get('version')!r}, expected {VERSION}; record "
            "it again, or take the release of minibert that wrote it"
        )
    defaults = Recording({})
    facts = {name: values[name] for name in _FACTS if name in values}
    for name, value in facts.items():
        kind = type(getattr(defaults, name))
        if name not in ("config", "model_name") and not isinstance(value, kind):
            raise ParityError(
                f"{path}: {name} is {value!r}, expected {kind.__name__}; record it again"
            )
    for name in ("texts", "tokens"):
        for row in facts.get(name, []):
            if not isinstance(row, list) or not all(isinstance(text, str) for text in row):
                raise ParityError(
                    f"{path}: {name} hold {row!r}, expected lists of strings; record it again"
                )
    return facts


def read_arrays(
    arrays: str | Path | Mapping[str, Any], mapping: str | Path | Mapping[str, Any] | None = None
) -> Recording:
    """A recording from plain arrays: a numpy archive (`.npz`), or a mapping from names to arrays.

    Args:
        arrays: the file, or the arrays.
        mapping: how names and axes translate, in Python or as a JSON file: our names to theirs,
            `{"layers.0.context": "enc0/ctx"}`, or to their name and axes,
            `{"layers.0.q": {"name": "q0", "axes": "seq batch (heads head_dim)"}}`.  Without it
            arrays have our names (`input_ids` and so on for the inputs).

    Raises: ParityError for a file that holds no arrays, or a mapping that does not fit them.
    """
    label = str(arrays) if isinstance(arrays, str | Path) else "arrays"
    found = _load(arrays) if isinstance(arrays, str | Path) else dict(arrays)
    if mapping is None:
        named: Mapping[str, Any] = {name: name for name in found}
    else:
        named = _read_mapping(mapping) if isinstance(mapping, str | Path) else mapping
    stages: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    for ours, entry in named.items():
        theirs, axes = (entry, None) if isinstance(entry, str) else _entry(ours, entry)
        if theirs not in found:
            raise ParityError(
                f"{label}: has no array {theirs!r}, which the mapping gives for {ours}; it has "
                f"{', '.join(sorted(found)[:6])}"
            )
        tensor = torch.as_tensor(np.asarray(found[theirs]))
        if ours in _INPUTS:
            inputs[ours] = tensor if axes is None else _transposed(ours, tensor, axes)
        else:
            stages[ours] = tensor if axes is None else _transposed(ours, tensor, axes)
    if not stages:
        raise ParityError(f"{label}: holds no stage, expected at least one array of a stage's name")
    return Recording(stages, inputs, origin=label)


def _load(path: str | Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise ParityError(f"{path}: there is no such file, expected a numpy archive") from None
    except (OSError, ValueError, AttributeError, EOFError) as error:
        raise ParityError(
            f"{path}: cannot be read as a numpy archive ({error}); write it with numpy.savez, "
            "without objects"
        ) from None


def _read_mapping(path: str | Path) -> Mapping[str, Any]:
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ParityError(f"{path}: cannot be read as a JSON mapping of stages: {error}") from None
    if not isinstance(values, dict):
        raise ParityError(f"{path}: is no JSON object, expected stages and the arrays' names")
    return values


def _entry(ours: str, entry: Any) -> tuple[str, str | None]:
    if (
        not isinstance(entry, Mapping)
        or not isinstance(entry.get("name"), str)
        or not set(entry) <= {"name", "axes"}
    ):
        raise ParityError(
            f"the mapping gives {entry!r} for {ours}, expected the array's name, or an object "
            'such as {"name": "q0", "axes": "seq batch (heads head_dim)"}'
        )
    return entry["name"], entry.get("axes")


# The axes of each array, in our order; "(heads head_dim)" is one axis that holds both.
_ORDER = ("batch", "heads", "seq", "keys", "head_dim", "hidden", "intermediate", "vocab", "labels")


def _transposed(ours: str, tensor: Tensor, axes: str) -> Tensor:
    """The array with its axes in our order."""
    names = axes.replace("(heads head_dim)", "hidden").split()
    heads_last = {"heads", "head_dim"} <= set(names)
    order = [name for name in _ORDER if name != "heads" or not heads_last]
    if heads_last:
        order.insert(order.index("head_dim"), "heads")
    if len(names) != tensor.ndim or len(set(names)) != len(names) or not set(names) <= set(order):
        raise ParityError(
            f"{ours}: axes are {axes!r}, expected {tensor.ndim} different ones of "
            f"{', '.join(_ORDER)}, for an array of shape {tuple(tensor.shape)}"
        )
    return tensor.permute([names.index(name) for name in order if name in names])


def shaped(name: str, tensor: Tensor, expected: tuple[int, ...], origin: str) -> Tensor:
    """A candidate's stage in the reference's shape: heads apart, one row of positions for all.

    Raises: ParityError where that cannot be.
    """
    shape = tuple(tensor.shape)
    if shape == expected:
        return tensor
    flat = (*expected[:2], math.prod(expected[2:]))
    if len(expected) == 4 and shape == flat:
        return tensor.reshape(expected)
    if name == "embeddings.position" and shape in (expected[1:], (1, *expected[1:])):
        return tensor.expand(expected)
    said = ""
    if len(shape) > 1 and shape[0] == expected[0] and len(shape) == len(expected):
        said = " (another sequence length?)" if shape[1] != expected[1] else ""
    raise ParityError(
        f"{origin}: {name} has shape {shape}, expected {expected}{said}; run the candidate on the "
        "reference's own input_ids, and give the order of axes in the mapping"
    )
