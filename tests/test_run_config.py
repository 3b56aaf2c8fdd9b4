"""Run files: what they may say, what is refused, and the templates that are written."""

import re
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from minibert.errors import RunError
from minibert.training.run_config import RunConfig, template
from minibert.training.run_keys import TASKS


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(RunError) as caught:
        RunConfig.from_dict(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_task_is_all_that_must_be_said() -> None:
    run = RunConfig.from_dict({"task": "binary"})
    assert (run.training.epochs, run.training.batch_size, run.training.seed) == (3.0, 32, 0)
    assert (run.optimizer.learning_rate, run.optimizer.weight_decay) == (3e-5, 0.01)
    assert (run.schedule.name, run.schedule.warmup_fraction) == ("linear", 0.1)
    assert run.training.max_grad_norm == 1.0
    assert run.data.max_length == 128
    assert refusal({}).startswith("task is missing, expected one of binary, multiclass")


def test_tables_are_read_and_written_back() -> None:
    values = {
        "task": "multilabel",
        "data": {"train": ["a.csv", "b.csv"], "validation": 0.2, "label_separator": ","},
        "loss": {"name": "focal", "pos_weight": [1, 2.5]},
        "optimizer": {"learning_rate": 1e-4, "layer_decay": 0.9},
    }
    run = RunConfig.from_dict(values)
    assert run.loss.pos_weight == [1, 2.5]
    written = run.to_dict()
    assert written["data"]["train"] == ["a.csv", "b.csv"]
    assert RunConfig.from_dict(written) == run
    assert "folder" not in written


def test_bounds_hold_for_what_is_made_in_python() -> None:
    from minibert.training.run_keys import OptimizerConfig

    with pytest.raises(RunError, match=r"optimizer\.learning_rate is 0\.0, expected .* above 0"):
        RunConfig(task="binary", optimizer=OptimizerConfig(learning_rate=0.0))


def test_rows_may_be_given_in_python() -> None:
    rows = [{"text": "a", "label": "b"}]
    run = RunConfig.from_dict({"task": "binary", "data": {"train": rows, "validation": rows}})
    assert run.data.train is rows
    assert run.to_dict()["data"]["train"] == "rows given in Python"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"task": "binray"}, "task is 'binray', expected one of .*; binary\\?"),
        ({"tsk": "binary"}, r"tsk is no key, expected task\?"),
        ({"training": {"epoch": 3}}, r"training\.epoch is no key, expected epochs\?"),
        ({"learning_rate": 1}, r"learning_rate is no key, expected it as \[optimizer\] learning"),
        ({"data": {"learning_rate": 1}}, r"data\.learning_rate is no key, .* \[optimizer\]"),
        ({"data": {"zzz": 1}}, r"data\.zzz is no key, expected one of train, validation"),
        ({"data": 3}, r"data is 3, expected a table \[data\]"),
        ({"folder": "x"}, "folder is no key"),
        (
            {"data": {"label_separator": ","}},
            r"data\.label_separator is ',', which task 'binary' has no use for; .* multilabel",
        ),
        ({"training": {"epochs": 0}}, r"training\.epochs is 0, expected a number above 0"),
        ({"training": {"epochs": True}}, r"training\.epochs is True, expected a number"),
        ({"training": {"epochs": float("nan")}}, r"training\.epochs is nan, expected a number"),
        ({"training": {"batch_size": 2.5}}, r"batch_size is 2\.5, expected a whole number"),
        ({"training": {"batch_size": "32"}}, r"batch_size is '32', expected a whole number"),
        ({"loss": {"name": "hinge"}}, r"loss\.name is 'hinge', expected one of cross_entropy"),
        ({"training": {"precision": "bf32"}}, r"precision is 'bf32', .* bf16, fp16; fp32\?"),
        ({"training": {"dropout": 1.0}}, r"at least 0 and below 1"),
        ({"optimizer": {"layer_decay": 1.1}}, r"above 0 and at most 1"),
        ({"data": {"labels": ["a", 1]}}, r"data\.labels is .*, expected a list of strings"),
        ({"data": {"labels": "a,b"}}, r"data\.labels is 'a,b', expected a list of strings"),
        ({"data": {"header": 0}}, r"data\.header is 0, expected true or false"),
        ({"loss": {"class_weights": 3}}, r"expected a string or a list of numbers"),
        ({"data": {"max_length": 2}}, r"data\.max_length is 2, expected a number at least 3"),
    ],
)
def test_what_cannot_be_followed_is_refused(values: dict[str, Any], said: str) -> None:
    assert re.search(said, refusal({"task": "binary", **values}))


def test_file_is_read_and_its_paths_start_from_it(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "run.toml"
    path.parent.mkdir()
    path.write_text('task = "tokens"\n[data]\ntrain = "train.conll"\n', encoding="utf-8")
    run = RunConfig.from_file(path)
    assert run.path("train.conll") == path.parent / "train.conll"
    assert run.path("/abs/train.conll") == Path("/abs/train.conll")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"task = ", "is no TOML"),
        (b"\xff\xfe", "is no TOML"),
        (b'task = "binary"\ntrian = 1', "run.toml: trian is no key"),
        (None, "cannot be read: No such file"),
    ],
)
def test_file_that_is_no_run_file_is_named(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=said) as caught:
        RunConfig.from_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", TASKS)
def test_template_reads_as_the_defaults_and_shows_every_key(task: str) -> None:
    text = template(task)
    run = RunConfig.from_dict(tomllib.loads(text))
    assert run.task == task
    asked: dict[str, dict[str, Any]] = {
        "similarity": {"text": "text_a", "text_pair": "text_b", "label": "score"},
        "contrastive": {"text": "text_a", "text_pair": "text_b"},
        "spans": {"text": "question", "text_pair": "context", "label": "answer"},
        "tokens": {"train": "train.conll"},
        "masked_lm": {"train": "train.txt"},
    }
    data = {"train": "train.csv", "validation": 0.1} | asked.get(task, {})
    model = "new" if task == "masked_lm" else "all-MiniLM-L6-v2"
    expected = RunConfig.from_dict({"task": task, "model": model, "data": data})
    assert run == expected
    lines = {line.removeprefix("# ").split(" =")[0] for line in text.splitlines() if " =" in line}
    for table in (expected, *(v for v in vars(expected).values() if is_dataclass(v))):
        for each in fields(table):
            tasks = each.metadata.get("tasks", ())
            if "doc" in each.metadata and (not tasks or task in tasks):
                assert each.name in lines, each.name
    assert max(map(len, text.splitlines())) <= 100
    # Uncommented, what has a default still says it.
    shown = [line[2:] for line in text.splitlines() if re.match(r"# \w+ = \S", line)]
    assert all(tomllib.loads(line) for line in shown)


def test_template_of_no_task_is_refused() -> None:
    with pytest.raises(RunError, match="task is 'x', expected one of binary"):
        template("x")


def test_values_of_some_keys_are_changed_and_all_others_stay() -> None:
    run = RunConfig.from_dict(
        {"task": "binary", "optimizer": {"weight_decay": 0.5}, "data": {"train": [{"text": "a"}]}},
        folder="somewhere",
    )
    changed = run.with_values({"optimizer.learning_rate": 1, "output": "other"})
    assert (changed.optimizer.learning_rate, changed.optimizer.weight_decay) == (1.0, 0.5)
    assert isinstance(changed.optimizer.learning_rate, float)
    assert (changed.output, changed.path("a")) == ("other", Path("somewhere/a"))
    assert changed.data is run.data
    assert run.with_values({}) == run
    for values, said in (
        ({"optimizer.learning_rat": 1.0}, "optimizer.learning_rat is no key"),
        ({"folder": "a"}, "folder is no key"),
        ({"optimizer": 1.0}, "optimizer is 1.0, expected a table"),
        ({"loss.temperature": 0.1}, "'binary' has no use for"),
    ):
        with pytest.raises(RunError, match=said):
            run.with_values(values)
