"""Checkpoints to go on from: tensors as safetensors, all else as JSON, whole or not at all.

    RUN/checkpoints/step-0000120/tensors.safetensors    model, optimizer, random state
                                 state.json             where training stands, and the tensors' hash

A checkpoint is written under another name, flushed to the disk and then renamed, so that what has
the right name is whole.  What is torn all the same (a failing disk) is found by its hash, passed
over and told of.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minibert.errors import CheckpointError
from minibert.files import flush
from minibert.sources import file_sha256

_TENSORS, _FACTS = "tensors.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{7,})")


class Checkpoint(NamedTuple):
    """What was saved: tensors by name, facts, and where."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    folder: Path


def save_state(
    folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, keep: int
) -> Path:
    """Write the checkpoint of an update, then delete all but the `keep` newest.

    Raises: CheckpointError where it cannot be written; the earlier ones are untouched.
    """
    place = folder / f"step-{step:07d}"
    part: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
        contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        save_file(contiguous, part / _TENSORS)
        flush(part / _TENSORS)
        known = {**facts, "step": step, "sha256": file_sha256(part / _TENSORS)}
        (part / _FACTS).write_text(json.dumps(known, sort_keys=True, indent=1), encoding="utf-8")
        flush(part / _FACTS)
        flush(part)
        if place.exists():  # written again after a resume: the same, or torn
            shutil.rmtree(place)
        part.rename(place)
        flush(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{place}: cannot be written: {error}; the earlier checkpoints are whole: make room "
            "and resume"
        ) from None
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    for old in _places(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def load_state(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, and a line about each newer one that is torn."""
    torn = []
    for place in _places(folder):
        try:
            facts = json.loads((place / _FACTS).read_text(encoding="utf-8"))
            if not isinstance(facts, dict) or facts.get("sha256") != file_sha256(place / _TENSORS):
                raise ValueError("the tensors are not those that were written")
            tensors = load_file(place / _TENSORS)
        except (OSError, ValueError, SafetensorError) as error:
            torn.append(f"{place.name} is torn and passed over: {error}")
            continue
        return Checkpoint(tensors, facts, place), torn
    return None, torn


def _places(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True)
