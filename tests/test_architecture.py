"""The rooms of docs/architecture.md: who may import whom, and what an import costs."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

from minibert import ops, weights
from minibert.layout import Packed, Padded
from minibert.parity.result import Cause

ROOT = Path(__file__).resolve().parent.parent

# Each may import those before it.
ORDER = (
    "errors", "columns", "files", "pages", "config", "machine", "layout", "ops", "quantise",
    "pooling", "sources", "weights", "tensor_files", "checkpoint", "model", "gradients", "heads",
    "engine", "gpu_engine", "engine_choice", "tokenizer_files", "tokenizer", "recipe", "precision",
    "embed", "vectors", "lines", "texts", "prediction", "parity", "export", "doctor", "training",
    "cli",
)  # fmt: skip
FOLDERS = (
    "pages",
    "prediction",
    "parity",
    "export",
    "doctor",
    "training",
    "cli",
)  # whose files import each other
# The files that import an extra's package, inside the functions that need it.
NEEDS = {
    "reference.py": {"transformers", "sentence_transformers"},  # records, where that is asked for
    "metrics.py": {"torchmetrics"},
    "curves.py": {"matplotlib"},
    "look.py": {"matplotlib"},
    "rate_finder.py": {"matplotlib"},
    "search_picture.py": {"matplotlib"},
    "tuning.py": {"optuna"},
    "onnx_file.py": {"onnx", "onnxruntime"},
}
EXTRAS = {
    "transformers", "sentence_transformers", "torchmetrics", "matplotlib", "optuna", "onnx",
    "onnxscript", "onnxruntime", "triton",
}  # fmt: skip


def rooms() -> list[Path]:
    package = ROOT / "minibert"
    return [path for path in sorted(package.rglob("*.py")) if path.name != "__init__.py"] + [
        package / "cli" / "__init__.py",
        package / "pages" / "__init__.py",
    ]


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "minibert").parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", rooms(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_before_it(path: Path) -> None:
    room = room_of(path)
    if room == "__main__":
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "minibert" or len(parts) < 2 or parts[1] not in ORDER:
            continue
        allowed = ORDER.index(parts[1]) < ORDER.index(room) or (room == parts[1] in FOLDERS)
        assert allowed, f"{room} imports {name}"


@pytest.mark.parametrize("path", rooms(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_package_imports_no_extra_and_no_pickle(path: Path) -> None:
    tops = {name.split(".")[0] for name in imported(path)}
    needed = NEEDS.get(path.name, set())
    for name in needed:
        text = path.read_text(encoding="utf-8")
        assert not re.search(rf"^(import|from) {name}\b", text, re.MULTILINE)
    tops -= needed
    assert not tops & (EXTRAS | {"pickle", "cloudpickle", "joblib", "shelve", "marshal", "dill"})
    source = path.read_text(encoding="utf-8")
    assert "torch.load" not in source
    assert not re.search(r"torch\.export\.load\(|import .*load_pt2", source)  # which unpickle
    assert "allow_pickle=True" not in source


def test_only_reference_tests_import_transformers() -> None:
    for path in sorted((ROOT / "tests").glob("*.py")):
        tops = {name.split(".")[0] for name in imported(path)}
        if tops & {"transformers", "sentence_transformers"}:
            assert "pytest.mark.reference" in path.read_text(encoding="utf-8"), path.name


# One process for what is asked of a process that has imported nothing yet, torch least of all.
FRESH = """
import sys
sys.modules["minibert.kernels"] = None
import minibert
print(*sys.modules)
minibert.Embedder
print(*sys.modules)
import torch
from minibert.layout import Packed
from minibert.ops import attention
q = torch.ones(3, 1, 2)
print(attention(q, q, q, Packed.from_lengths([3])).sum().item())
"""


@pytest.fixture(scope="module")
def fresh() -> tuple[set[str], set[str], str]:
    """The modules loaded by `import minibert`, those with the embedder, a sum without kernels."""
    result = subprocess.run(
        [sys.executable, "-c", FRESH], capture_output=True, text=True, check=True
    )
    first, second, total = result.stdout.splitlines()
    return set(first.split()), set(second.split()), total


def test_importing_minibert_loads_nothing_heavy(fresh: tuple[set[str], set[str], str]) -> None:
    loaded = {name.split(".")[0] for name in fresh[0]}
    assert "minibert" in loaded
    heavy = {"torch", "numpy", "tokenizers", "huggingface_hub", "tqdm", "click", "jinja2"}
    assert not loaded & heavy


def test_importing_the_embedder_loads_no_hub_and_no_compiler(
    fresh: tuple[set[str], set[str], str],
) -> None:
    assert "minibert.embed" in fresh[1]
    assert not fresh[1] & {"huggingface_hub", "click", "transformers", "torch._dynamo"}


def test_ops_works_without_the_kernels_package(fresh: tuple[set[str], set[str], str]) -> None:
    assert fresh[2] == "6.0"


def test_every_public_name_can_be_had() -> None:
    import minibert

    for name in minibert.__all__:
        assert getattr(minibert, name).__name__ == name
    assert dir(minibert) == minibert.__all__
    with pytest.raises(AttributeError, match="no attribute 'Bert'"):
        minibert.Bert  # noqa: B018 - looking is the test


def test_shapes_and_types_are_checked_while_the_tests_run() -> None:
    q, short = torch.ones(3, 1, 2), torch.ones(2, 1, 2)
    with pytest.raises(jaxtyping.TypeCheckError):  # two arguments of other lengths
        ops.attention(q, short, q, Packed.from_lengths([3]))
    with pytest.raises(jaxtyping.TypeCheckError):  # an axis too few, in a dataclass
        Padded(1, 3, torch.ones(3, dtype=torch.bool), torch.device("cpu"))
    with pytest.raises(BeartypeCallHintViolation):  # signatures without a shape
        weights.resolve(7)  # type: ignore[arg-type]
    with pytest.raises(BeartypeCallHintViolation):
        Cause("a name", "advice", residual=0.0, explains="yes")  # type: ignore[arg-type]


def test_model_can_be_read_in_one_sitting() -> None:
    lines = (ROOT / "minibert" / "model.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 320
    assert max(map(len, lines)) <= 100


def test_architecture_page_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in (ROOT / "minibert").iterdir():
        if path.suffix == ".py" and path.name != "__main__.py":
            assert f"  {path.name} " in page, path.name
        elif (path / "__init__.py").exists():
            assert f"  {path.name}/ " in page, path.name


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = set(listed["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "minibert").rglob("__init__.py")
    }
    assert found <= packages, found - packages
