"""JSON files beside a run, as people read them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minibert.errors import RunError
from minibert.files import replacing


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all.

    Raises: RunError where that cannot be done.
    """
    try:
        with replacing(path) as part:
            part.write_text(json_text(values), encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written: {error.strerror}; make room, and start again"
        ) from None


def json_text(values: Mapping[str, Any]) -> str:
    """Indented, with every letter as it is."""
    return json.dumps(values, ensure_ascii=False, indent=1)
