"""Real failures on real data: the doctor names the cause first, and its remedy mends them."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.data]


def cases() -> Any:
    path = ROOT / "scripts" / "failure_cases.py"
    spec = importlib.util.spec_from_file_location("failure_cases", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["failure_cases"] = module  # where its classes are looked for
    spec.loader.exec_module(module)
    return module.CASES


CASES = cases()
# What is run here takes seconds each; `scripts/training_failures.py` runs all, and fails alike.
QUICK = (
    "The rate is too high",
    "No zero_grad",
    "Padding to a fixed length without a mask",
    "The loss is NaN",
)


# What the faults themselves do is not to be told by torch: a user may not see its warning.
@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("case", [c for c in CASES if c.name in QUICK], ids=lambda c: c.name)
def test_the_cause_is_named_first_and_its_remedy_mends(
    case: Any, data: Path, tmp_path: Path
) -> None:
    failed = case.run(data, tmp_path / "failed", False)
    mended = case.run(data, tmp_path / "mended", True)
    assert case.verdict(failed, mended) == ""


def test_there_are_enough_of_them_and_the_page_has_each() -> None:
    assert len(CASES) >= 14
    page = (ROOT / "docs" / "training-failures.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "docs" / "training-failures.json").read_text(encoding="utf-8"))
    for case in CASES:
        assert f"## {case.name}\n" in page
        assert results[case.name]["failed"]["findings"][0]["name"] == case.finding
    assert set(QUICK) <= {case.name for case in CASES}
