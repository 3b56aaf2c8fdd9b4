"""What a search tries: read from a file, refused where it cannot be searched, grids, ends."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from small_runs import run_of

from minibert.errors import RunError
from minibert.training.run_config import RunConfig
from minibert.training.search_space import (
    Choices,
    Range,
    default_space,
    extremes_of,
    grid_of,
    read_space,
    settings_of,
    space_of,
    spelled,
    toml_lines,
)

RATE = {"low": 1e-5, "high": 1e-3, "log": True}


@pytest.fixture
def run() -> RunConfig:
    return run_of("binary", data={"validation": 0.2})


def test_space_has_the_tables_of_a_run_file(run: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(
        "[optimizer]\nlearning_rate = { low = 1e-5, high = 1e-3, log = true }\n"
        'name = ["adamw", "sgd"]\n[training]\nbatch_size = { low = 8, high = 64 }\n'
        "[schedule]\nwarmup_fraction = { low = 0, high = 1 }\n"
    )
    assert read_space(path, run) == {
        "optimizer.learning_rate": Range(1e-5, 1e-3, log=True),
        "optimizer.name": Choices(("adamw", "sgd")),
        "training.batch_size": Range(8, 64),
        "schedule.warmup_fraction": Range(0.0, 1.0),  # and not 0 or 1
    }


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "the space has no keys, expected some"),
        (
            {"optimizer": {"learning_rat": [1.0]}},
            r"optimizer.learning_rat is no key.*learning_rate",
        ),
        ({"learning_rate": RATE}, r"learning_rate is no key, expected it as \[optimizer\]"),
        ({"optimizer": RATE}, r"optimizer is 1e-05, expected a table"),
        (
            {"optimizer": {"learning_rate": [-1.0]}},
            "learning_rate is -1.0, expected a number above",
        ),
        ({"optimizer": {"name": ["adam"]}}, "optimizer.name is 'adam', expected one of adamw"),
        ({"optimizer": {"name": {"low": 1, "high": 2}}}, "optimizer.name is 1, expected a string"),
        (
            {"training": {"batch_size": {"low": 8.5, "high": 9}}},
            "batch_size is 8.5, expected a who",
        ),
        ({"optimizer": {"learning_rate": 1e-3}}, "learning_rate is 0.001, expected a list of"),
        ({"optimizer": {"learning_rate": []}}, r"learning_rate is \[\], expected a list of"),
        ({"loss": {"class_weights": [[1.0, 2.0]]}}, "class_weights is .*, expected a list of str"),
        ({"optimizer": {"learning_rate": {"low": 1e-3}}}, "has low, expected low, high and"),
        ({"optimizer": {"learning_rate": {**RATE, "step": 1}}}, "has low, high, log, step, expec"),
        ({"optimizer": {"learning_rate": {**RATE, "log": 1}}}, "has log = 1, expected true or fal"),
        ({"schedule": {"restarts": {"low": 0, "high": 3, "log": True}}}, "expected .*, above 0"),
        ({"optimizer": {"weight_decay": {"low": 1, "high": 0}}}, "expected low to be less than"),
        ({"optimizer": {"weight_decay": {"low": "0", "high": 1}}}, "expected two numbers"),
        ({"masking": {"fraction": [0.1]}}, "'binary' has no use for"),
        ({"task": ["binary", "multiclass"]}, "task may not be searched, for it says what"),
        ({"data": {"label": ["label", "other"]}}, "data.label may not be searched, for it is part"),
        ({"data": {"labels": ["a"]}}, "data.labels is 'a', expected a list"),
        ({"data": {"train_rows": [10, 20]}}, "data.train_rows may not be searched"),
        ({"head": {"num_labels": [1, 2]}}, "head.num_labels may not be searched, for it is part"),
        ({"training": {"seed": [1, 2]}}, "training.seed may not be searched, for it says which"),
        ({"training": {"metric": ["loss"]}}, "training.metric may not be searched"),
        ({"output": ["a"]}, "output may not be searched"),
    ],
)
def test_space_that_cannot_be_searched_is_refused(
    run: RunConfig, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(RunError, match=said) as refused:
        space_of(values, run)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "values", [{"masking": {"fraction": [0.1, 0.2]}}, {"network": {"vocab_size": [500, 900]}}]
)
def test_what_changes_the_words_to_be_predicted_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="may not be searched, for it changes which words"):
        space_of(values, run_of("masked_lm", model="new"))


def test_file_is_named_where_it_is_refused(run: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    with pytest.raises(RunError, match=r"space\.toml: cannot be read"):
        read_space(path, run)
    path.write_text("[optimizer")
    with pytest.raises(RunError, match=r"space\.toml: is no TOML"):
        read_space(path, run)
    path.write_text("[optimiser]\nlearning_rate = [1.0]\n")
    with pytest.raises(RunError, match=r"space\.toml: optimiser is no key, expected optimizer\?"):
        read_space(path, run)


@pytest.mark.parametrize("task", ["binary", "tokens", "spans", "similarity", "contrastive"])
def test_default_space_fits_every_task(task: str) -> None:
    space = default_space(run_of(task))
    assert "optimizer.learning_rate" in space
    assert ("optimizer.head_learning_rate" in space) == (task in ("binary", "tokens", "spans"))


def test_grid_has_every_combination_and_of_a_range_three_points(run: RunConfig) -> None:
    space = space_of(
        {
            "optimizer.learning_rate": RATE,
            "training.batch_size": {"low": 8, "high": 9},
            "optimizer.name": ["adamw", "sgd"],
        },
        run,
    )
    grid = grid_of(space)
    assert len(grid) == 3 * 2 * 2
    assert [each["optimizer.learning_rate"] for each in grid[::4]] == [1e-5, 1e-4, 1e-3]
    assert {each["training.batch_size"] for each in grid} == {8, 9}


def test_ends_are_each_key_by_itself_and_both_corners(run: RunConfig) -> None:
    space = space_of(
        {"optimizer.learning_rate": RATE, "training.batch_size": [16, 4, 8],
         "schedule.name": ["linear", "cosine", "plateau"]}, run,
    )  # fmt: skip
    assert list(extremes_of(space)) == [
        {"optimizer.learning_rate": 1e-5},
        {"optimizer.learning_rate": 1e-3},
        {"training.batch_size": 4},
        {"training.batch_size": 16},
        {"schedule.name": "linear"},
        {"schedule.name": "cosine"},
        {"schedule.name": "plateau"},
        {"optimizer.learning_rate": 1e-5, "training.batch_size": 4, "schedule.name": "linear"},
        {"optimizer.learning_rate": 1e-3, "training.batch_size": 16, "schedule.name": "plateau"},
    ]


def test_settings_have_three_digits_within_the_range() -> None:
    space = {"a.b": Range(0.1, 0.9996), "c.d": Choices((0.12345,)), "e.f": Range(1, 9)}
    drawn = {"a.b": 0.99959, "c.d": 0.12345, "e.f": 7}
    assert settings_of(space, drawn) == {"a.b": 0.9996, "c.d": 0.12345, "e.f": 7}
    assert settings_of(space, {"a.b": 0.123456}) == {"a.b": 0.123}


def test_settings_are_written_as_a_run_file_takes_them(run: RunConfig) -> None:
    values = {
        "model": "small", "optimizer.learning_rate": 3e-05, "training.batch_size": 8,
        "optimizer.name": "sgd", "head.bias_from_prior": True,
    }  # fmt: skip
    text = "\n".join(toml_lines(values))
    assert text.startswith('model = "small"\n[optimizer]\nlearning_rate = 3e-05\nname = "sgd"\n')
    found = RunConfig.from_dict({"task": "binary", **tomllib.loads(text)})
    assert found == run_of("binary", data={"train": ""}).with_values(values)
    assert spelled({"a.b": 1, "c.d": "e"}) == 'a.b = 1, c.d = "e"'
