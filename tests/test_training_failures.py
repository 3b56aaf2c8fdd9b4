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


# What the faults themselves do is not to be told by torch: a user may not see its warning.
@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_cause_is_named_first_and_its_remedy_mends(
    case: Any, data: Path, tmp_path: Path
) -> None:
    failed = case.run(data, tmp_path / "failed", False)
    first = failed.findings[0]
    assert first["name"] == case.finding, [each["name"] for each in failed.findings]
    assert first["severity"] in ("warning", "error")
    mended = case.run(data, tmp_path / "mended", True)
    assert case.finding not in [each["name"] for each in mended.findings]
    better = (
        mended.figure < failed.figure if case.lower_is_better else mended.figure > failed.figure
    )
    assert better or case.lies, (failed.figure, mended.figure)
    if case.lies:
        assert failed.figure > mended.figure


def test_there_are_enough_of_them_and_the_page_has_each() -> None:
    assert len(CASES) >= 14
    page = (ROOT / "docs" / "training-failures.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "docs" / "training-failures.json").read_text(encoding="utf-8"))
    for case in CASES:
        assert f"## {case.name}\n" in page
        assert results[case.name]["failed"]["findings"][0]["name"] == case.finding
