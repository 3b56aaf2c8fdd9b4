"""Everything that the README shows is run here."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from minibert import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForTokenClassification,
    Tokenizer,
)

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (
    "init", "doctor", "train", "tune", "report", "evaluate", "classify", "tag", "answer",
    "fill-mask",
)  # fmt: skip
COMMANDS = re.findall(r"^\| `(minibert [^`]+)` \|", README, re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600
    )


def test_readme_opens_with_two_commands() -> None:
    commands = [block.strip() for block in blocks("sh")]
    assert commands == ["python3 scripts/quickstart.py", "python3 scripts/check.py"]


def test_ci_runs_the_second_command() -> None:
    # Run here it would run itself; so what is held is that CI runs it, and that it runs the tests.
    assert blocks("sh")[1].strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    script = (ROOT / "scripts" / "check.py").read_text(encoding="utf-8")
    assert '"-m", "pytest"' in script


@pytest.mark.slow
def test_first_command_prints_a_ranked_search() -> None:
    result = run(sys.executable, "scripts/quickstart.py", cwd=ROOT)
    assert result.returncode == 0, result.stderr
    ranked = [line for line in result.stdout.splitlines() if re.match(r"\s*\d+\s+0\.\d+", line)]
    assert len(ranked) == 5, result.stdout
    scores = [float(line.split()[1]) for line in ranked]
    assert scores == sorted(scores, reverse=True)
    assert "nights" in ranked[0]


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"), ids=["embed", "train", "head"])
def test_python_example_prints_what_it_says(block: str, tmp_path: Path) -> None:
    result = run(sys.executable, "-c", block, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for line in block.splitlines():
        said = re.search(r"print\(.*\)  # ([(\[]|torch\.)(.*)", line)
        if said:
            promised = (said[1] + said[2]).split(":")[0].strip()
            assert promised in result.stdout, f"{promised!r} is not in {result.stdout!r}"


def test_readme_names_every_command() -> None:
    result = run(sys.executable, "-m", "minibert", "--help", cwd=ROOT)
    listed = re.search(r"Commands:\n(.*)", result.stdout, re.DOTALL)
    assert listed is not None
    names = {line.split()[0] for line in listed[1].splitlines() if line.strip()}
    assert names == {command.split()[1] for command in COMMANDS}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands of fine-tuning speak of: rows, a run file, a run, models."""
    folder = tmp_path_factory.mktemp("trained")
    kinds = [("What a joy to watch", "good"), ("A waste of time", "bad")]
    rows = [f'"{text}, number {i}.",{label}' for i in range(12) for text, label in kinds]
    (folder / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    proposed = run(sys.executable, "-m", "minibert", "init", "reviews.csv", cwd=folder)
    assert proposed.returncode == 0, proposed.stderr
    (folder / "run.toml").write_text(proposed.stdout, encoding="utf-8")
    result = run(sys.executable, "-m", "minibert", "train", "run.toml", cwd=folder)
    assert result.returncode == 0, result.stderr
    heads = {
        "names": BertForTokenClassification, "answers": BertForQuestionAnswering,
        "words": BertForMaskedLM,
    }  # fmt: skip
    for name, head in heads.items():
        labels = ["O", "B-person", "I-person"] if name == "names" else None
        head.from_pretrained("all-MiniLM-L6-v2", labels=labels).save_pretrained(folder / name)
        Tokenizer.from_pretrained("all-MiniLM-L6-v2").save_pretrained(folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_command_works_from_any_folder(command: str, tmp_path: Path, trained: Path) -> None:
    if command.split()[1] in TRAINING:
        tmp_path = trained
    lines = ["A cat sleeps on the sofa.", "The bridge is closed.", "Dogs bark.", "A query, really."]
    for name in ("texts.txt", "docs.txt"):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    if "compare" in command:  # what the line above it in the README records
        recorded = next(c for c in COMMANDS if c.startswith("minibert parity record"))
        assert run(sys.executable, "-m", *shlex.split(recorded), cwd=tmp_path).returncode == 0
    result = run(sys.executable, "-m", *shlex.split(command), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() or (tmp_path / "v.npy").exists()
    if command.startswith("minibert search"):
        assert "A query, really." in result.stdout.splitlines()[0]


def test_readme_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("http"):
            continue
        path, _, heading = target.partition("#")
        assert (ROOT / path).exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text("utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"\W+", "-", each.lower()).strip("-") for each in headings}
