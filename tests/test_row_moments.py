"""Moments of a table's seen rows: those of the whole table, to the last bit."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import unchanged_random
from torch import Tensor, nn

from minibert.errors import CheckpointError
from minibert.training import row_moments
from minibert.training.optim import (
    PRESETS,
    SGD,
    AdamW,
    Optimizer,
    ParameterGroup,
    clip_gradients,
)

N_ROWS = 40
MAKERS: dict[str, Callable[..., Optimizer]] = {
    **PRESETS,
    "no mean": partial(AdamW, betas=(0.0, 0.9)),
}


class Plan(NamedTuple):
    """Gradients of a table and of a bias, step by step, and how to go along them."""

    table: Tensor
    gradients: list[Tensor]  # sparse, not coalesced
    whole: list[bool]  # whether the table's is given as a whole one
    decay: float
    l1: float


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    width = draw(st.sampled_from([3, 16, 32]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    n_steps = draw(st.integers(1, 6))
    rows = [draw(st.lists(st.integers(0, N_ROWS - 1), max_size=30)) for _ in range(n_steps)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    with unchanged_random():
        table = torch.randn(N_ROWS, width, generator=generator).to(dtype)
        gradients = [
            torch.sparse_coo_tensor(
                torch.tensor([each], dtype=torch.int64),
                torch.randn(len(each), width, generator=generator).to(dtype),
                (N_ROWS, width),
                check_invariants=True,
            )
            for each in rows
        ]
    mostly = st.sampled_from([False, False, False, True])
    whole = draw(st.lists(mostly, min_size=n_steps, max_size=n_steps))
    decay, l1 = draw(st.sampled_from([(0.0, 0.0), (0.1, 0.0), (0.1, 0.0), (0.0, 0.2)]))
    return Plan(table, gradients, whole, decay, l1)


def started(plan: Plan, maker: str) -> tuple[list[nn.Parameter], Optimizer]:
    parameters = [nn.Parameter(plan.table.clone()), nn.Parameter(plan.table[0].clone())]
    group = ParameterGroup(
        ("table", "bias"), tuple(parameters), 0.1, weight_decay=plan.decay, l1=plan.l1
    )
    return parameters, MAKERS[maker]([group])


def advance(
    plan: Plan, parameters: list[nn.Parameter], optimizer: Optimizer, *, first: int, rows: bool
) -> None:
    """The steps from `first` on; without `rows` every gradient is a whole one."""
    for number in range(first, len(plan.gradients)):
        sparse = plan.gradients[number].clone()
        # Of the same sums: the order in which a place's numbers are added is torch's own affair.
        gradient = sparse.coalesce().to_dense()
        parameters[0].grad = sparse if rows and not plan.whole[number] else gradient
        parameters[1].grad = gradient[0]
        optimizer.step(1 / (1 + number))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five rows at most, so that there are several."""
    monkeypatch.setattr(row_moments, "_PART", 5 * 32)


@given(plans(), st.sampled_from(list(MAKERS)))
@settings(max_examples=100)
def test_seen_rows_go_as_in_the_whole_table_bit_for_bit(plan: Plan, maker: str) -> None:
    found = []
    for rows in (False, True):
        parameters, optimizer = started(plan, maker)
        advance(plan, parameters, optimizer, first=0, rows=rows)
        found.append(parameters)
    for whole, by_rows in zip(*found, strict=True):
        assert torch.equal(whole, by_rows)


@given(plans(), st.sampled_from(list(MAKERS)), st.data())
@settings(max_examples=60)
def test_training_continues_bit_for_bit(plan: Plan, maker: str, data: st.DataObject) -> None:
    whole, optimizer = started(plan, maker)
    advance(plan, whole, optimizer, first=0, rows=True)
    place = data.draw(st.integers(0, len(plan.gradients)))
    parameters, before = started(plan, maker)
    start = Plan(plan.table, plan.gradients[:place], *plan[2:])
    advance(start, parameters, before, first=0, rows=True)
    again, after = started(plan, maker)
    after.load_state_dict(before.state_dict())
    for parameter, reached in zip(again, parameters, strict=True):
        parameter.data.copy_(reached)
    advance(plan, again, after, first=place, rows=True)
    for parameter, expected in zip(again, whole, strict=True):
        assert torch.equal(parameter, expected)
    state, expected_state = after.state_dict(), optimizer.state_dict()
    assert state.keys() == expected_state.keys()
    assert all(torch.equal(state[key], expected_state[key]) for key in state)


def two_steps(maker: str = "torch_adamw") -> tuple[Plan, Optimizer]:
    gradients = [
        torch.sparse_coo_tensor(
            torch.tensor([rows]), torch.ones(len(rows), 16), (N_ROWS, 16), check_invariants=True
        )
        for rows in ([3, 7, 3], [7, 1])
    ]
    plan = Plan(torch.ones(N_ROWS, 16), gradients, [False, False], 0.1, 0.0)
    parameters, optimizer = started(plan, maker)
    advance(plan, parameters, optimizer, first=0, rows=True)
    return plan, optimizer


def test_nothing_is_remembered_of_rows_that_never_had_a_gradient() -> None:
    state = two_steps()[1].state_dict()
    assert state["rows.table"].tolist() == [3, 7, 1]
    assert state["mean.table"].shape == state["square.table"].shape == (3, 16)
    # The gradient of row 3 was 2, then 0: (1 - β₁) 2 β₁
    assert state["mean.table"][0, 0].item() == pytest.approx(0.1 * 2 * 0.9)


def test_other_optimizers_remember_the_whole_table() -> None:
    state = two_steps("sgd")[1].state_dict()
    assert isinstance(MAKERS["sgd"]([]), SGD)
    assert state["velocity.table"].shape == (N_ROWS, 16)


def test_memory_of_a_whole_table_is_gone_on_with() -> None:
    """Of a run that was begun with whole gradients."""
    plan, _ = two_steps()
    parameters, optimizer = started(plan, "torch_adamw")
    first = Plan(plan.table, plan.gradients[:1], *plan[2:])
    advance(first, parameters, optimizer, first=0, rows=False)
    advance(plan, parameters, optimizer, first=1, rows=True)
    whole, other = started(plan, "torch_adamw")
    advance(plan, whole, other, first=0, rows=False)
    assert torch.equal(parameters[0], whole[0])
    assert "rows.table" not in optimizer.state_dict()


@pytest.mark.parametrize(
    "rows",
    [
        torch.tensor([3, 3, 1]),
        torch.tensor([3, 7, N_ROWS]),
        torch.tensor([3, 7, -1]),
        torch.tensor([3.0, 7.0, 1.0]),
        torch.tensor(3),
    ],
)
def test_rows_that_are_none_are_refused(rows: Tensor) -> None:
    plan, optimizer = two_steps()
    state = {**optimizer.state_dict(), "rows.table": rows}
    _, other = started(plan, "torch_adamw")
    with pytest.raises(CheckpointError, match=r"has rows.table, .* of a table, each once, from 0"):
        other.load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"rows\.bias.* expected rows of a table"):
        other.load_state_dict({**optimizer.state_dict(), "rows.bias": torch.tensor([0])})
    assert not any(other.state_dict().values())


def test_clipping_takes_a_place_that_occurs_twice_for_one() -> None:
    table = nn.Parameter(torch.zeros(N_ROWS, 1))
    values = torch.tensor([[1.0], [4.0], [2.0]])
    table.grad = torch.sparse_coo_tensor(
        torch.tensor([[3, 9, 3]]), values, (N_ROWS, 1), check_invariants=True
    )
    assert clip_gradients([table], 1.0) == pytest.approx(5.0)
    assert table.grad.is_sparse
    assert table.grad.to_dense()[[3, 9], 0].tolist() == pytest.approx([0.6, 0.8])
