"""Schedules: tables by hand, torch's stepped schedulers and others' formulas, then properties."""

import doctest
import json
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import without_type_checks
from torch import nn
from torch.optim import lr_scheduler

from minibert.errors import CheckpointError, MinibertError, TrainingError
from minibert.training import schedules
from minibert.training.schedules import (
    SCHEDULES,
    Plateau,
    constant,
    cosine,
    inverse_sqrt,
    linear,
    polynomial,
)

Schedule = Callable[[int, int, int], float]
EVERY: dict[str, Schedule] = {
    **SCHEDULES,
    "cosine with restarts": partial(cosine, restarts=2),
    "polynomial to an end": partial(polynomial, power=2.5, end=0.1),
    "polynomial, steep at last": partial(polynomial, power=0.3),
}
ENDS = {"constant": 1.0, "polynomial to an end": 0.1}  # the others end at 0; inverse_sqrt never
every_schedule = pytest.mark.parametrize("name", EVERY)


@st.composite
def runs(draw: st.DrawFn) -> tuple[int, int]:
    """Total and warmup; none and all of it among them."""
    total = draw(st.integers(1, 60))
    return total, draw(st.sampled_from([0, total]) | st.integers(0, total))


# Worked by hand: 8 updates, of which 2 warm up; then six, and what follows the last.
TABLES = {
    "constant": [0, 1 / 2, 1, 1, 1, 1, 1, 1, 1, 1],
    "linear": [0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0],
    "polynomial": [0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0],
    "cosine": [
        0, 1 / 2, 1, (2 + math.sqrt(3)) / 4, 3 / 4, 1 / 2, 1 / 4, (2 - math.sqrt(3)) / 4, 0, 0,
    ],
    "cosine with restarts": [0, 1 / 2, 1, 1 / 2, 1, 1 / 2, 1, 1 / 2, 0, 0],
    "inverse_sqrt": [0, 1 / 2, *(math.sqrt(2 / step) for step in range(2, 10))],
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_schedules_give_the_tables_worked_by_hand(name: str) -> None:
    assert [EVERY[name](step, 8, 2) for step in range(10)] == pytest.approx(TABLES[name], abs=1e-15)


def test_polynomial_gives_numbers_worked_by_hand() -> None:
    assert polynomial(1, 2, 0, power=2.0) == 0.25
    assert polynomial(1, 2, 0, power=2.0, end=0.2) == pytest.approx(0.4, abs=1e-15)
    assert polynomial(3, 4, 0, power=0.5) == 0.5


def test_inverse_sqrt_without_warmup_falls_over_ten_thousand_steps() -> None:
    assert inverse_sqrt(0, 5, 0) == 1.0
    assert inverse_sqrt(30_000, 5, 0) == 0.5


def test_first_update_has_rate_zero_only_with_a_warmup() -> None:
    for schedule in EVERY.values():
        assert schedule(0, 5, 1) == 0.0
        assert schedule(0, 5, 0) == 1.0
        assert [schedule(step, 4, 4) for step in range(4)] == [0.0, 0.25, 0.5, 0.75]


def stepped(
    make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], n: int
) -> list[float]:
    """The rates that a scheduler of torch gives when it is stepped n - 1 times."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(n):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


@given(st.integers(1, 40), st.sampled_from([0.5, 1.0, 2.0, 3.7]))
def test_polynomial_equals_torch_stepped(total: int, power: float) -> None:
    expected = stepped(
        partial(lr_scheduler.PolynomialLR, total_iters=total, power=power), total + 3
    )
    actual = [polynomial(step, total, 0, power=power) for step in range(total + 3)]
    # Of a rate that is stepped, rounding errors grow; beside 0 only absolute ones can be told.
    assert actual == pytest.approx(expected, abs=1e-7 if power < 1 else 1e-12)


@given(st.integers(1, 12), st.integers(0, 3))
def test_cosine_equals_torch_stepped(part: int, restarts: int) -> None:
    total = part * (restarts + 1)
    expected = stepped(partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=part), total)
    actual = [cosine(step, total, 0, restarts=restarts) for step in range(total)]
    assert actual == pytest.approx(expected, abs=1e-12)


@given(runs())
def test_schedules_equal_the_formulas_of_transformers(run: tuple[int, int]) -> None:
    total, warmup = run
    for step in range(warmup, total):
        rest = max(1, total - warmup)
        assert linear(step, total, warmup) == pytest.approx((total - step) / rest, abs=1e-14)
        half_wave = 0.5 * (1.0 + math.cos(math.pi * 2.0 * 0.5 * (step - warmup) / rest))
        assert cosine(step, total, warmup) == pytest.approx(half_wave, abs=1e-14)
        timescale = warmup or 10_000
        falling = 1 / math.sqrt((step + timescale - warmup) / timescale)
        assert inverse_sqrt(step, total, warmup) == pytest.approx(falling, abs=1e-14)
        assert constant(step, total, warmup) == 1.0


@every_schedule
@given(run=runs())
def test_schedules_rise_to_one_and_stay_within_zero_and_one(
    name: str, run: tuple[int, int]
) -> None:
    total, warmup = run
    values = [EVERY[name](step, total, warmup) for step in range(total + 20)]
    assert all(0 <= value <= 1 for value in values)
    assert values[:warmup] == [step / warmup for step in range(warmup)]
    if warmup < total:
        assert values[warmup] == 1.0
    if name != "cosine with restarts":
        assert values[warmup:] == sorted(values[warmup:], reverse=True)
    if name != "inverse_sqrt":
        assert set(values[total:]) == {ENDS.get(name, 0.0)}


@every_schedule
def test_schedules_have_no_jump_after_the_warmup(name: str) -> None:
    around = [EVERY[name](step, 100_000, 50_000) for step in range(49_990, 50_010)]
    assert max(abs(a - b) for a, b in pairwise(around)) < 1e-3


@every_schedule
@pytest.mark.parametrize(
    ("step", "total", "warmup"), [(-1, 5, 2), (0, 5, 6), (0, 0, 0), (0, 5, -1)]
)
def test_schedules_refuse_steps_that_cannot_be(
    name: str, step: int, total: int, warmup: int
) -> None:
    with pytest.raises(TrainingError, match=r"^(step|warmup) is .*, expected "):
        EVERY[name](step, total, warmup)


def test_schedules_refuse_wrong_settings() -> None:
    with pytest.raises(TrainingError, match="restarts is -1"):
        cosine(0, 5, restarts=-1)
    for power, end in ((0.0, 0.0), (math.nan, 0.0), (math.inf, 0.0), (1.0, -0.1), (1.0, 1.1)):
        with pytest.raises(TrainingError, match="expected power above 0 and end from 0 to 1"):
            polynomial(0, 5, power=power, end=end)


@pytest.mark.parametrize("arguments", [(1.0, 5, 0), (1, 5.0, 0), (1, 5, True), ("1", 5, 0)])
def test_schedules_refuse_wrong_types(arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match="expected a whole number of updates"):
        without_type_checks(schedules).constant(*arguments)


def test_doctests_run() -> None:
    result = doctest.testmod(without_type_checks(schedules))
    assert result.attempted >= 4
    assert result.failed == 0


def test_plateau_gives_numbers_worked_by_hand() -> None:
    plateau = Plateau(mode="min", factor=0.1, patience=1, threshold=0.05, minimum=0.02)
    losses = [1.0, 0.96, 0.97, 0.5, math.nan, 0.5, 0.5, 0.49, 0.44, 0.44, 0.44]
    expected = [1.0, 1.0, 0.1, 0.1, 0.1, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02]
    assert [plateau.update(loss) for loss in losses] == pytest.approx(expected)
    assert plateau.best == 0.44


def test_plateau_waits_for_a_number() -> None:
    plateau = Plateau(mode="max", patience=5)
    assert [plateau.update(value) for value in (math.nan, 0.1)] == [1.0, 1.0]
    assert plateau.state_dict() == {"multiplier": 1.0, "best": 0.1, "bad_evaluations": 0}


METRICS = st.lists(st.integers(0, 8).map(lambda value: value / 8), max_size=25)


@given(
    METRICS,
    st.sampled_from(["max", "min"]),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.25]),
    st.sampled_from([0.0, 0.3]),
)
def test_plateau_equals_torch(
    metrics: list[float], mode: str, factor: float, patience: int, threshold: float, minimum: float
) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode=mode,
        factor=factor,
        patience=patience,
        threshold=threshold,
        threshold_mode="abs",
        min_lr=minimum,
        eps=0.0,
    )
    plateau = Plateau(
        mode=mode, factor=factor, patience=patience, threshold=threshold, minimum=minimum
    )
    for metric in metrics:
        reference.step(metric)
        assert plateau.update(metric) == optimizer.param_groups[0]["lr"]


@given(METRICS, st.sampled_from(["max", "min"]), st.integers(0, 25))
def test_plateau_restored_at_any_evaluation_continues_alike(
    metrics: list[float], mode: str, at: int
) -> None:
    whole, first, second = (Plateau(mode=mode, patience=1) for _ in range(3))
    expected = [whole.update(metric) for metric in metrics]
    actual = [first.update(metric) for metric in metrics[:at]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    actual += [second.update(metric) for metric in metrics[at:]]
    assert actual == expected
    assert second == whole


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "most"},
        {"mode": "max", "factor": 0.0},
        {"mode": "max", "factor": 1.0},
        {"mode": "max", "patience": -1},
        {"mode": "max", "threshold": -0.1},
        {"mode": "max", "threshold": math.nan},
        {"mode": "max", "minimum": 1.5},
    ],
)
def test_plateau_refuses_wrong_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match=r"is .*, expected "):
        without_type_checks(schedules).Plateau(**wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"multiplier": 2.0},
        {"multiplier": "1"},
        {"bad_evaluations": -1},
        {"bad_evaluations": None},
        {"best": "high"},
        {"more": 1},
    ],
)
def test_plateau_refuses_a_wrong_state(change: dict[str, object]) -> None:
    plateau = without_type_checks(schedules).Plateau(mode="max")
    plateau.update(0.5)
    before = plateau.state_dict()
    with pytest.raises(CheckpointError, match="the plateau's state is "):
        plateau.load_state_dict({**before, **change})
    with pytest.raises(CheckpointError, match="the plateau's state is "):
        plateau.load_state_dict({})
    assert plateau.state_dict() == before


def test_errors_are_those_that_the_command_line_catches() -> None:
    assert issubclass(TrainingError, MinibertError)
