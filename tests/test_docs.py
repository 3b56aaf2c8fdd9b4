"""The examples of docs/ are run, and print what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from minibert.parity.stages import EMBEDDINGS, LAYER, OUTPUTS, POOLER, TRANSFORM

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCKS = [
    (path.name, block)
    for path in sorted(DOCS.glob("*.md"))
    for block in re.findall(
        r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
]


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_example_prints_what_it_says(name: str, block: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    promised = re.findall(r"^# (.+)$", block, re.MULTILINE)
    assert promised
    for line in promised:
        assert line in result.stdout


def test_table_of_stages_names_them_all() -> None:
    text = (DOCS / "parity.md").read_text(encoding="utf-8")
    for stage in (*EMBEDDINGS, *LAYER, POOLER, TRANSFORM, *OUTPUTS):
        last = stage.name.rsplit(".", 1)[-1]
        assert f"`{stage.name}`" in text or f"`.{last}`" in text, stage.name
