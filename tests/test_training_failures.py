"""Real failures on real data: the doctor names the cause first, and its remedy mends them."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def scripts_first() -> Iterator[None]:
    """Modules are looked for in scripts/ too."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        yield
    finally:
        sys.path.remove(str(ROOT / "scripts"))


with scripts_first():
    CASES = importlib.import_module("failure_cases")
    RUNS = importlib.import_module("failure_runs")


# One of each row of the page's table of what people report, and that of the page's first section.
OF_EACH_KIND = {
    "The rate is too high",
    "The rate was picked from a hat",
    "Every pair gets the same score",
    "A third class in a binary task",
    "The rare class is never predicted",
    "The metric hides the rare class",
    "Pretraining is overwritten",
    "Frozen layers drop values at random",
    "Most of each text is cut away",
    "A sigmoid in front of a loss that has one",
    "Pairs without token types",
    "Tags of words given to tokens",
    "The loss is NaN",
}


def grouped(case: Any) -> Any:
    """A case as a parameter: those of the same data, which share runs, go to the same process."""
    run = case.runs[-1]
    data = getattr(run, "tables", getattr(run, "rows", type(run)))
    marks = [pytest.mark.slow if case.name in OF_EACH_KIND else pytest.mark.gallery]
    return pytest.param(case, id=case.name, marks=[*marks, pytest.mark.xdist_group(data.__name__)])


@pytest.fixture(scope="module")
def results() -> Any:
    """Of runs, each made once: many failures are mended to the same one."""
    return RUNS.Results(Path(os.environ["MINIBERT_DATA"]))


@pytest.mark.data
# What the faults themselves do is not to be told by torch: a user may not see its warning.
@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("case", [grouped(case) for case in CASES.ALL])
def test_the_cause_is_named_first_and_its_remedy_mends(case: Any, results: Any) -> None:
    first, second = (results.of(run) for run in case.runs)
    assert case.verdict(first, second) == ""


def test_there_are_enough_of_them_and_the_page_has_each() -> None:
    assert len(CASES.CASES) >= 14
    assert {case.name for case in CASES.ALL} >= OF_EACH_KIND
    page = (ROOT / "docs" / "training-failures.md").read_text(encoding="utf-8")
    found = json.loads((ROOT / "docs" / "training-failures.json").read_text(encoding="utf-8"))
    assert list(found) == [case.name for case in CASES.ALL]
    for case in CASES.CASES:
        failed, _ = found[case.name]
        assert f"## {case.name}\n" in page
        if case.finding == CASES.REFUSED:
            assert failed["refused"] in page
        else:
            assert failed["findings"][0]["name"] == case.finding
    for case in CASES.HARMLESS:
        assert f"### {case.name}\n" in page
