"""The examples of docs/ are run, and print what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from minibert.parity.stages import EMBEDDINGS, LAYER, OUTPUTS, POOLER, TRANSFORM

DOCS = Path(__file__).resolve().parent.parent / "docs"
EXAMPLES = {
    path.name: "".join(
        re.findall(
            r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
    )
    for path in sorted(DOCS.glob("*.md"))
    if path.name != "training-failures.md"  # test_live.py and test_reference_doctor.py run its own
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, code in EXAMPLES.items() if code])
def test_examples_print_what_they_say(name: str, tmp_path: Path) -> None:
    """The blocks of a page go on from each other; a comment that is a line by itself is printed."""
    block = EXAMPLES[name]
    result = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    promised = re.findall(r"^# (.+)$", block, re.MULTILINE)
    assert promised
    printed = result.stdout
    for line in promised:
        assert line in printed, f"{line!r} is not printed, or not behind what comes before it"
        printed = printed.partition(line)[2]


def test_table_of_stages_names_them_all() -> None:
    text = (DOCS / "parity.md").read_text(encoding="utf-8")
    for stage in (*EMBEDDINGS, *LAYER, POOLER, TRANSFORM, *OUTPUTS):
        last = stage.name.rsplit(".", 1)[-1]
        assert f"`{stage.name}`" in text or f"`.{last}`" in text, stage.name
