"""Checkpoints to go on from: tensors as safetensors, all else as JSON, whole or not at all.

    RUN/checkpoints/step-0000120/tensors.safetensors    model, optimizer, random state
                                 state.json             where training stands; hashes of both

A checkpoint is written under another name, flushed to the disk and then renamed, so that what has
the right name is whole.  What is torn all the same (a failing disk) is found by its hashes, passed
over and told of.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minibert.errors import CheckpointError
from minibert.files import discard, flush, replacing_folder, sweep
from minibert.sources import file_sha256

_TENSORS, _FACTS = "tensors.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{7,})")


class Checkpoint(NamedTuple):
    """What was saved: tensors by name, facts, and where."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    folder: Path


def save_state(
    folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> Path:
    """Write the checkpoint of an update; one of that update that stands there is replaced.

    Raises: CheckpointError where it cannot be written; the earlier ones are untouched.
    """
    place = folder / f"step-{step:07d}"
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            flush(folder.parent)
        with replacing_folder(place) as part:
            contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
            save_file(contiguous, part / _TENSORS)
            known = {**facts, "step": step, "tensors_sha256": file_sha256(part / _TENSORS)}
            known["sha256"] = _digest(known)
            text = json.dumps(known, sort_keys=True, indent=1)
            (part / _FACTS).write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        kept = "the earlier checkpoints are whole: make room and resume"
        if not steps(folder):
            kept = "there is no earlier checkpoint: make room and start again"
        raise CheckpointError(f"{place}: cannot be written: {error}; {kept}") from None
    return place


def load_state(folder: Path, *, step: int | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, and a line about each newer one that is torn.

    Args:
        step: only the checkpoint of this update will do.
    """
    torn = []
    for place in _places(folder):
        if step is not None and _step(place) != step:
            continue
        try:
            facts = _facts(place)
            if facts.get("tensors_sha256") != file_sha256(place / _TENSORS):
                raise ValueError("its tensors are not those that were written")
            tensors = load_file(place / _TENSORS)
        except (OSError, ValueError, SafetensorError) as error:
            torn.append(f"{place.name} is torn and passed over: {error}")
            continue
        return Checkpoint(tensors, facts, place), torn
    return None, torn


def load_facts(folder: Path, step: int) -> dict[str, Any] | None:
    """The facts of the checkpoint of an update; None where they are torn, or there is none."""
    try:
        return _facts(folder / f"step-{step:07d}")
    except (OSError, ValueError):
        return None


def steps(folder: Path) -> list[int]:
    """The updates that have a checkpoint, whole or torn, the newest first."""
    return [_step(place) for place in _places(folder)]


def prune(folder: Path, kept: Collection[int]) -> None:
    """Delete the checkpoints of all other updates, and what a process that was killed has left.

    What cannot be deleted stays: training goes on all the same.
    """
    sweep(folder, "step-*")
    for place in _places(folder):
        if _step(place) not in kept:
            with contextlib.suppress(OSError):
                discard(place)


def _places(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step, reverse=True)


def _step(place: Path) -> int:
    return int(place.name.split("-")[1])


def _facts(place: Path) -> dict[str, Any]:
    """What the JSON of a checkpoint says.

    Raises: OSError or ValueError where it is not what was written.
    """
    facts = json.loads((place / _FACTS).read_bytes())
    if not isinstance(facts, dict) or facts.pop("sha256", None) != _digest(facts):
        raise ValueError(f"{_FACTS} is not what was written")
    return facts


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
