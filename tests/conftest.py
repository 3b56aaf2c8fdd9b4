"""What every test shares: shapes checked at run time, the real checkpoint, the public data sets."""

import dataclasses
import importlib.util
import inspect
import os
from pathlib import Path
from typing import Any

# Before torch is loaded: threads that spin while they wait would slow down the processes that many
# tests start beside this one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# What is not about the kernels is tested on the reference, in one arithmetic throughout.
os.environ["MINIBERT_ENGINE"] = "pytorch"

import jaxtyping
import pytest
import torch
from browser import find_chromium
from disks import can_mount
from hypothesis import HealthCheck, settings

# Without a GPU its kernels run in Triton's interpreter, which is chosen before Triton is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Triton exists for Linux alone, and only the tests of its kernels need it.
_HAS_TRITON = importlib.util.find_spec("triton") is not None
collect_ignore_glob = [] if _HAS_TRITON else ["test_gpu_*.py"]

_checks_shapes = jaxtyping.jaxtyped


def _checks(target: Any = None, *, typechecker: Any) -> Any:
    """What jaxtyping puts around a function, or the type checker alone where no shape is named.

    Binding the axes costs more than most of these functions do, and one call in fourteen has any.
    """
    if target is None:
        return lambda found: _checks(found, typechecker=typechecker)
    if inspect.isclass(target):
        if dataclasses.is_dataclass(target):
            target.__init__ = _checks(target.__init__, typechecker=typechecker)
        return target
    named = inspect.get_annotations(target).values()
    if any("constexpr" in repr(each) for each in named):
        return target  # a kernel, whose source Triton reads
    if any(isinstance(each, str) or "jaxtyping" in repr(each) for each in named):
        return _checks_shapes(target, typechecker=typechecker)
    return typechecker(target)


# Checks every shape and every type in every signature of the package while the tests run. It has to
# come before the first import of a module of minibert.
jaxtyping.jaxtyped = _checks
_hook = jaxtyping.install_import_hook("minibert", "beartype.beartype")

settings.register_profile(
    "minibert",
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("minibert")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what the machine cannot run, and say which and how to get it."""
    absent = {
        "reference": None
        if importlib.util.find_spec("transformers")
        else "transformers is not installed: pip install -e '.[reference]' -c constraints.txt",
        "data": None
        if os.environ.get("MINIBERT_DATA")
        else "MINIBERT_DATA is not set to the folder of the public data sets",
        "browser": None
        if find_chromium()
        else "no Chromium is found: install it, or set MINIBERT_CHROMIUM to its path",
        "gpu": None if torch.cuda.is_available() else "torch finds no GPU that it could use",
        "mount": None
        if can_mount()
        else "no file system can be mounted here: run the tests as root, in a container that may",
    }
    kept, gone = [], []
    for item in items:
        missing = [why for name, why in absent.items() if why and item.get_closest_marker(name)]
        (gone if missing else kept).append(item)
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = kept
    config.stash[_absent] = [f"{name}: {why}" for name, why in absent.items() if why]


_absent = pytest.StashKey[list[str]]()


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    told = [f"deselected, marked {line}" for line in config.stash.get(_absent, [])]
    if not _HAS_TRITON:
        advice = "triton is not installed: pip install -e '.[gpu]' -c constraints.txt"
        told.append(f"left out, test_gpu_*.py: {advice}")
    return told


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real all-MiniLM-L6-v2, fetched once into the user's cache."""
    from minibert.weights import resolve

    return resolve(os.environ.get("MINIBERT_TEST_MODEL", "all-MiniLM-L6-v2"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the public data sets."""
    return Path(os.environ["MINIBERT_DATA"])
