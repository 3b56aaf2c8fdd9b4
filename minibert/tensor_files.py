"""The tensors of a checkpoint folder: found, checked, and not read before they are asked for."""

import contextlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minibert.errors import CheckpointError

# What may hold weights, as safetensors spells it.
FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
# Whole numbers, which stand for a scale times themselves: see `quantise.py`.
INTEGERS = {"I8": torch.int8, "I16": torch.int16}
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A tensor of a file, not read yet."""

    path: Path
    file: Any  # an open safetensors file
    name: str
    shape: tuple[int, ...]
    kind: str  # the dtype, as safetensors spells it

    def read(self) -> Tensor:
        tensor: Tensor = self.file.get_tensor(self.name)
        return tensor


def open_tensors(folder: Path, stack: contextlib.ExitStack) -> dict[str, Entry]:
    """Every tensor of a checkpoint folder by its name in the file."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    expected: Mapping[str, str] | None = None
    if single.exists() or not index.exists():
        paths = [single]
    else:
        expected = _read_index(index)
        paths = [folder / shard for shard in sorted(set(expected.values()))]
    entries: dict[str, Entry] = {}
    for path in paths:
        file = stack.enter_context(_open_file(path))
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            if name in entries:
                raise CheckpointError(
                    f"{path}: holds {name}, which {entries[name].path.name} holds too; expected "
                    "each tensor in one shard, so save the checkpoint again"
                )
            part = file.get_slice(name)
            entries[name] = Entry(path, file, name, tuple(part.get_shape()), part.get_dtype())
    for name, shard in (expected or {}).items():
        if name not in entries or entries[name].path.name != Path(shard).name:
            raise CheckpointError(
                f"{index}: says that {name} is in {shard}, which does not hold it; the download "
                "is incomplete or mixed, so fetch the checkpoint again"
            )
    return entries


def _read_index(index: Path) -> Mapping[str, str]:
    """The weight map of a sharded checkpoint, each shard a file of the folder itself."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        pairs = list(weight_map.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{index}: is no index of shards, expected JSON with an object weight_map from "
            "tensors to files; fetch the checkpoint again"
        ) from None
    for name, shard in pairs:
        if not isinstance(shard, str) or not _is_inside(index.parent, shard):
            raise CheckpointError(
                f"{index}: puts {name} into {shard!r}, expected a file inside the folder; do not "
                "trust this checkpoint"
            )
        if not (index.parent / shard).exists():
            raise CheckpointError(
                f"{index}: names the shard {shard}, which is absent; fetch the checkpoint again"
            )
    return dict(pairs)


def _is_inside(folder: Path, name: str) -> bool:
    """Whether a name leads to a file of the folder, links followed."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return False
    # The hub's cache keeps `snapshots/<revision>/` as links into `blobs/` two folders up.
    in_hub_cache = folder.parent.name == "snapshots" and (folder.parent.parent / "blobs").is_dir()
    root = folder.parent.parent if in_hub_cache else folder
    return (folder / name).resolve().is_relative_to(root.resolve())


def _open_file(path: Path) -> Any:
    """A safetensors file, memory-mapped, its header checked."""
    if not path.exists():
        pickles = sorted(path.parent.glob("*.bin")) + sorted(path.parent.glob("*.pt"))
        if pickles:
            raise CheckpointError(
                f"{path.parent}: holds {pickles[0].name} but no {path.name}; pickle files can run "
                "any code and are never read: convert it where it was made, with "
                "save_pretrained(folder, safe_serialization=True) of transformers"
            )
        raise CheckpointError(f"{path}: no such file; fetch the checkpoint, or name its folder")
    try:
        with path.open("rb") as file:
            if file.read(20).startswith(b"version https://git-"):
                raise CheckpointError(
                    f"{path}: is a Git LFS pointer, not the weights; run `git lfs pull` in its "
                    "repository"
                )
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: is no whole safetensors file: {error}; fetch the checkpoint again"
        ) from None


def check_finite(entries: Sequence[Entry]) -> None:
    """Refuse NaN and infinity, reading the files in blocks: mapped, all would stay in memory."""
    block = bytearray(_BLOCK_BYTES)
    for path in sorted({entry.path for entry in entries}):
        kinds = {entry.name: entry.kind for entry in entries if entry.path == path}
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_bytes))
            for name, kind in kinds.items():
                start, end = header[name]["data_offsets"]
                file.seek(8 + header_bytes + start)
                for offset in range(start, end, _BLOCK_BYTES):
                    count = file.readinto(memoryview(block)[: end - offset])
                    values = torch.frombuffer(
                        block, dtype=FLOATS[kind], count=count // FLOATS[kind].itemsize
                    )
                    if not all(map(math.isfinite, torch.stack(values.aminmax()).tolist())):
                        raise CheckpointError(
                            f"{path}: {name} holds NaN or infinity, expected finite weights; the "
                            "training that wrote it went wrong (check_finite=False loads it "
                            "all the same)"
                        )


def read_all(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder's safetensors, read and checked to be finite."""
    with contextlib.ExitStack() as stack:
        entries = open_tensors(folder, stack)
        for entry in entries.values():
            if entry.kind not in FLOATS:
                raise CheckpointError(
                    f"{entry.path}: {entry.name} is {entry.kind}, expected one of {sorted(FLOATS)}"
                )
        check_finite(list(entries.values()))
        return {name: entry.read() for name, entry in entries.items()}
