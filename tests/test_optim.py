"""Optimizers: numbers by hand, then torch's and google-research's, then properties."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from strategies import (
    TINY,
    configs,
    randomised,
    scaled_error,
    unchanged_random,
    without_type_checks,
)
from torch import Tensor, nn

from minibert import heads
from minibert.config import BertConfig
from minibert.errors import CheckpointError, TrainingError
from minibert.model import BertModel
from minibert.training import optim
from minibert.training.optim import (
    PRESETS,
    SGD,
    AdamW,
    Optimizer,
    ParameterGroup,
    clip_gradients,
    parameter_groups,
)

HEADS = (
    heads.BertForMaskedLM,
    heads.BertForNextSentencePrediction,
    heads.BertForPreTraining,
    heads.BertForSequenceClassification,
    heads.BertForTokenClassification,
    heads.BertForQuestionAnswering,
    heads.BertForMultipleChoice,
)


def parameter(values: Any, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def group(*parameters: nn.Parameter, rate: float = 0.1, **settings: float) -> ParameterGroup:
    names = tuple(f"p{index}" for index in range(len(parameters)))
    return ParameterGroup(names, parameters, rate, **settings)


def step(optimizer: Optimizer, p: nn.Parameter, gradient: Any, multiplier: float = 1.0) -> Any:
    """One step with this gradient; the values after it."""
    p.grad = torch.tensor(gradient, dtype=p.dtype)
    optimizer.step(multiplier)
    return p.tolist()


# ---- by hand


def test_adamw_gives_numbers_worked_by_hand() -> None:
    # Both corrected moments are those of the gradient: 1·(1 - 0.1·0.01) - 0.1·0.5/(0.5 + 1)
    p = parameter(1.0)
    optimizer = AdamW([group(p, weight_decay=0.01)], betas=(0.5, 0.75), eps=1.0)
    assert step(optimizer, p, 0.5) == pytest.approx(0.999 - 0.1 / 3, abs=1e-15)
    # mean = (0.25 + 1)/2 = 0.625, over 0.75; square = (0.75·0.0625 + 0.25) = 0.296875, over 0.4375
    expected = (0.999 - 0.1 / 3) * 0.9995 - 0.05 * (0.625 / 0.75) / (
        math.sqrt(0.296875 / 0.4375) + 1
    )
    assert step(optimizer, p, 1.0, multiplier=0.5) == pytest.approx(expected, abs=1e-15)


def test_google_bert_gives_numbers_worked_by_hand() -> None:
    # update = 0.05/(√0.00025 + 1e-6) + 0.01·2
    p = parameter(2.0)
    optimizer = PRESETS["google_bert"]([group(p, weight_decay=0.01)])
    expected = 2.0 - 0.1 * (0.05 / (math.sqrt(0.00025) + 1e-6) + 0.02)
    assert step(optimizer, p, 0.5) == pytest.approx(expected, abs=1e-14)


def test_first_step_of_adamw_is_the_rate_whatever_the_gradient() -> None:
    p = parameter([1.0, 1.0, 1.0])
    optimizer = PRESETS["torch_adamw"]([group(p)])
    assert step(optimizer, p, [1e-3, -1.0, 1e6]) == pytest.approx([0.9, 1.1, 0.9], abs=1e-5)


def test_sgd_gives_numbers_worked_by_hand() -> None:
    p = parameter(1.0)
    optimizer = SGD([group(p)], momentum=0.9)
    assert step(optimizer, p, 1.0) == pytest.approx(0.9, abs=1e-15)
    assert step(optimizer, p, 1.0) == pytest.approx(0.9 - 0.19, abs=1e-15)
    p = parameter(1.0)  # g = 1 + 0.5·1; 1 - 0.1·(1.5 + 0.9·1.5)
    optimizer = SGD([group(p, weight_decay=0.5)], momentum=0.9, nesterov=True)
    assert step(optimizer, p, 1.0) == pytest.approx(1 - 0.285, abs=1e-15)
    p = parameter(1.0)
    assert step(SGD([group(p)]), p, 1.0) == pytest.approx(0.9, abs=1e-15)
    p = parameter(1.0)
    assert step(PRESETS["sgd"]([group(p)]), p, 2.0) == pytest.approx(0.8, abs=1e-15)


@pytest.mark.parametrize("make", [AdamW, SGD])
def test_l1_takes_a_fixed_amount_and_stops_at_zero(make: Callable[..., Optimizer]) -> None:
    p = parameter([0.5, -0.5, 0.03, -0.03, 0.0])
    optimizer = make([group(p, l1=0.5)])
    assert step(optimizer, p, [0.0] * 5) == pytest.approx([0.45, -0.45, 0.0, 0.0, 0.0], abs=1e-15)
    assert p.tolist()[2:] == [0.0, 0.0, 0.0]  # exactly
    assert step(optimizer, p, [0.0] * 5, 0.2)[:2] == pytest.approx([0.44, -0.44], abs=1e-15)


# ---- groups


def rates(groups: Sequence[ParameterGroup]) -> dict[str, tuple[float, float, float]]:
    """Rate, decay and l1 of each parameter."""
    return {
        name: (entry.learning_rate, entry.weight_decay, entry.l1)
        for entry in groups
        for name in entry.names
    }


def test_groups_give_each_layer_the_rate_worked_by_hand() -> None:
    model = heads.BertForSequenceClassification(TINY)  # of two layers
    found = rates(
        parameter_groups(
            model,
            learning_rate=8.0,
            weight_decay=0.01,
            l1=0.001,
            head_learning_rate=16.0,
            layer_decay=0.5,
        )
    )
    expected = {"classifier": 16.0, "bert.pooler.dense": 8.0}
    for i, rate in ((1, 8.0), (0, 4.0)):
        for part in ("attention.qkv", "attention.output", "feed_forward.up", "feed_forward.down"):
            expected[f"bert.layers.{i}.{part}"] = rate
    decayed = {f"{name}.weight": rate for name, rate in expected.items()}
    for name in ("token", "token_type", "position"):
        decayed[f"bert.embeddings.{name}.weight"] = 2.0
    plain = {f"{name}.bias": rate for name, rate in expected.items()}
    for kind in ("weight", "bias"):
        plain[f"bert.embeddings.norm.{kind}"] = 2.0
        for i, rate in ((1, 8.0), (0, 4.0)):
            plain[f"bert.layers.{i}.attention_norm.{kind}"] = rate
            plain[f"bert.layers.{i}.feed_forward_norm.{kind}"] = rate
    assert found == {
        **{name: (rate, 0.01, 0.001) for name, rate in decayed.items()},
        **{name: (rate, 0.0, 0.0) for name, rate in plain.items()},
    }


def test_hidden_layer_of_a_classifier_has_the_rate_of_the_head() -> None:
    model = heads.BertForTokenClassification(replace(TINY, classifier_hidden_size=5))
    found = rates(parameter_groups(model, learning_rate=1.0, head_learning_rate=9.0))
    of_head = {name: found[name] for name in found if found[name][0] == 9.0}
    assert of_head == {
        "classifier.hidden.weight": (9.0, 0.01, 0.0),
        "classifier.hidden.bias": (9.0, 0.0, 0.0),
        "classifier.output.weight": (9.0, 0.01, 0.0),
        "classifier.output.bias": (9.0, 0.0, 0.0),
    }


def test_groups_are_two_unless_rates_differ() -> None:
    model = BertModel(TINY)
    decayed, plain = parameter_groups(model, learning_rate=1.0)
    assert (decayed.weight_decay, plain.weight_decay) == (0.01, 0.0)
    assert {decayed.learning_rate, plain.learning_rate} == {1.0}
    assert sorted(decayed.names + plain.names) == sorted(dict(model.named_parameters()))


@given(configs(), st.sampled_from(HEADS))
@settings(max_examples=15)
def test_groups_hold_every_parameter_once_and_decay_all_but_biases_and_norms(
    config: BertConfig, head: type[nn.Module]
) -> None:
    with unchanged_random():
        model = head(config)
        groups = parameter_groups(model, learning_rate=1.0, layer_decay=0.9)
        held = [p for entry in groups for p in entry.parameters]
        assert len(held) == len(set(held))
        assert set(held) == set(model.parameters())
        named = dict(model.named_parameters())
        for entry in groups:
            for name, p in zip(entry.names, entry.parameters, strict=True):
                assert named[name] is p
                # In a BERT, biases and norms are what is no matrix.
                assert entry.weight_decay == (0.01 if p.ndim == 2 else 0.0)


def test_decay_goes_by_the_module_not_by_its_name() -> None:
    model = nn.ModuleDict(
        {"LayerNorm_bias": nn.Linear(2, 2), "scale": nn.LayerNorm(2), "norm": nn.Embedding(3, 2)}
    )
    found = rates(parameter_groups(model, learning_rate=1.0, weight_decay=0.5, l1=0.2))
    assert {name for name, values in found.items() if values == (1.0, 0.5, 0.2)} == {
        "LayerNorm_bias.weight",
        "norm.weight",
    }
    assert {name for name, values in found.items() if values == (1.0, 0.0, 0.0)} == {
        "LayerNorm_bias.bias",
        "scale.weight",
        "scale.bias",
    }


def test_decay_alone_changes_only_what_is_decayed() -> None:
    model = randomised(heads.BertForMaskedLM(TINY))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = AdamW(parameter_groups(model, learning_rate=0.1, weight_decay=0.5))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name] * (0.95 if p.ndim == 2 else 1.0)), name


def test_a_shared_table_belongs_to_the_encoder_and_occurs_once() -> None:
    bert = BertModel(TINY)
    decoder = nn.Linear(4, 11)
    decoder.weight = bert.embeddings.token.weight
    model = nn.ModuleDict({"decoder": decoder, "bert": bert})  # the head's name comes first
    found = rates(
        parameter_groups(model, learning_rate=4.0, head_learning_rate=9.0, layer_decay=0.5)
    )
    assert found["decoder.weight"] == (1.0, 0.01, 0.0)
    assert found["decoder.bias"] == (9.0, 0.0, 0.0)
    assert "bert.embeddings.token.weight" not in found


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": -1e-5},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"weight_decay": -0.01},
        {"l1": -0.01},
        {"head_learning_rate": -1.0},
        {"layer_decay": 0.0},
        {"layer_decay": 1.1},
        {"layer_decay": math.nan},
    ],
)
def test_groups_refuse_settings_out_of_range(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(TrainingError, match=f"^{name} is .*, expected a "):
        parameter_groups(BertModel(TINY), **{"learning_rate": 1.0, **wrong})


@pytest.mark.parametrize("setting", ["head_learning_rate", "layer_decay"])
def test_groups_need_one_encoder_to_tell_it_from_the_head(setting: str) -> None:
    for model in (nn.Linear(2, 2), nn.ModuleList([BertModel(TINY), BertModel(TINY)])):
        assert parameter_groups(model, learning_rate=1.0)
        with pytest.raises(TrainingError, match=r"BertModels, expected one"):
            parameter_groups(model, learning_rate=1.0, **{setting: 0.5})


def test_wrong_types_are_type_errors() -> None:
    plain = without_type_checks(optim)
    for wrong in ("3e-5", None, True):
        with pytest.raises(TypeError, match=r"learning_rate is .*, expected a number"):
            plain.parameter_groups(BertModel(TINY), learning_rate=wrong)


def test_a_group_needs_a_name_for_each_parameter() -> None:
    with pytest.raises(TrainingError, match="1 names for 2 parameters"):
        ParameterGroup(("a",), (parameter(1.0), parameter(1.0)), 0.1)


# ---- against torch

Gradients = Mapping[int, Tensor | None]  # of parameter number …


class Plan(NamedTuple):
    """A short training: parameters, how they are grouped, and what comes at each step."""

    initial: list[Tensor]
    groups: list[tuple[list[int], dict[str, float]]]
    gradients: list[list[Tensor | None]]  # at each step, of each parameter
    multipliers: list[float]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    shapes = draw(st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    n_groups = draw(st.integers(1, len(shapes)))
    groups: list[tuple[list[int], dict[str, float]]] = [
        (
            list(range(index, len(shapes), n_groups)),
            {
                "rate": draw(st.sampled_from([0.0, 1e-5, 1e-3, 0.3])),
                "weight_decay": draw(st.sampled_from([0.0, 0.01, 0.7])),
            },
        )
        for index in range(n_groups)
    ]
    n_steps = draw(st.integers(1, 6))
    kinds = st.sampled_from([None, 0.0, 1e-4, 1.0, 1e3])
    scales = [[draw(kinds) for _ in shapes] for _ in range(n_steps)]
    multipliers = [draw(st.sampled_from([0.0, 0.1, 1.0])) for _ in range(n_steps)]
    with unchanged_random():
        initial = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
        gradients = [
            [
                None if scale is None else scale * torch.randn(shape, generator=generator).to(dtype)
                for scale, shape in zip(row, shapes, strict=True)
            ]
            for row in scales
        ]
    return Plan(initial, groups, gradients, multipliers)


def run(plan: Plan, make: Callable[[list[ParameterGroup]], Optimizer]) -> list[list[Tensor]]:
    """The values after each step."""
    parameters = [nn.Parameter(tensor.clone()) for tensor in plan.initial]
    groups = [
        ParameterGroup(
            tuple(f"p{member}" for member in members),
            tuple(parameters[member] for member in members),
            learning_rate=values["rate"],
            weight_decay=values["weight_decay"],
        )
        for members, values in plan.groups
    ]
    return steps(plan, parameters, make(groups).step)


def in_one_pass(p: Tensor) -> bool:
    """Whether AdamW updates it by one kernel: what fills registers of 16 elements, of AVX2."""
    return p.numel() % 16 == 0 and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def run_torch(
    plan: Plan, make: Callable[..., torch.optim.Optimizer], *, fused: bool = False
) -> list[list[Tensor]]:
    """The values after each step; with `fused` of what ours updates in one pass, torch too."""
    parameters = [nn.Parameter(tensor.clone()) for tensor in plan.initial]
    optimizer = make(
        [
            {
                "params": [parameters[member]],
                "weight_decay": values["weight_decay"],
                "fused": fused and in_one_pass(parameters[member]),
            }
            for members, values in plan.groups
            for member in members
        ],
        lr=1.0,
        foreach=False,
    )
    rates = [values["rate"] for members, values in plan.groups for _ in members]

    def step(multiplier: float) -> None:
        for entry, rate in zip(optimizer.param_groups, rates, strict=True):
            entry["lr"] = rate * multiplier
        optimizer.step()

    return steps(plan, parameters, step)


def steps(
    plan: Plan, parameters: list[nn.Parameter], step: Callable[[float], None]
) -> list[list[Tensor]]:
    trajectory = []
    for gradients, multiplier in zip(plan.gradients, plan.multipliers, strict=True):
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = None if gradient is None else gradient.clone()
        step(multiplier)
        trajectory.append([p.detach().clone() for p in parameters])
    return trajectory


def assert_equal(actual: list[list[Tensor]], expected: list[list[Tensor]]) -> None:
    for row, other in zip(actual, expected, strict=True):
        for tensor, reference in zip(row, other, strict=True):
            assert torch.equal(tensor, reference)


@given(plans(), st.sampled_from([(0.9, 0.999), (0.0, 0.5), (0.8, 0.0)]))
@settings(max_examples=60)
def test_adamw_equals_torch_bit_for_bit(plan: Plan, betas: tuple[float, float]) -> None:
    assert_equal(
        run(plan, lambda groups: AdamW(groups, betas=betas)),
        run_torch(
            plan, lambda *args, **kw: torch.optim.AdamW(*args, betas=betas, **kw), fused=True
        ),
    )


@given(plans(), st.sampled_from([(0.0, False), (0.9, False), (0.5, True)]))
@settings(max_examples=60)
def test_sgd_equals_torch_bit_for_bit(plan: Plan, settings: tuple[float, bool]) -> None:
    momentum, nesterov = settings
    assert_equal(
        run(plan, lambda groups: SGD(groups, momentum=momentum, nesterov=nesterov)),
        run_torch(
            plan,
            lambda *args, **kw: torch.optim.SGD(*args, momentum=momentum, nesterov=nesterov, **kw),
        ),
    )


def long_plan(dtype: torch.dtype, shapes: Sequence[Sequence[int]], n_steps: int) -> Plan:
    """All parameters in two groups, a gradient for each at each step, a warmup."""
    generator = torch.Generator().manual_seed(0)
    initial = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    gradients: list[list[Tensor | None]] = [
        [torch.randn(shape, generator=generator).to(dtype) * 0.1 + 0.01 for shape in shapes]
        for _ in range(n_steps)
    ]
    half = len(shapes) // 2
    groups = [
        (list(range(half)), {"rate": 3e-3, "weight_decay": 0.1}),
        (list(range(half, len(shapes))), {"rate": 1e-2, "weight_decay": 0.0}),
    ]
    return Plan(initial, groups, gradients, [min(1.0, step / 10) for step in range(n_steps)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_equals_torch_over_200_steps(dtype: torch.dtype) -> None:
    plan = long_plan(dtype, [(7, 5), (5,), (3, 2, 2), (33,)], 200)
    actual, expected = (
        run(plan, PRESETS["torch_adamw"]),
        run_torch(plan, torch.optim.AdamW, fused=True),
    )
    assert_equal(actual, expected)
    for tensor, reference, start in zip(actual[-1], expected[-1], plan.initial, strict=True):
        assert scaled_error(tensor, reference) <= 1e-12
        assert scaled_error(tensor, start) > 0.05  # it has gone somewhere


@pytest.mark.parametrize("make", [(AdamW, torch.optim.AdamW), (SGD, torch.optim.SGD)])
def test_parameters_longer_than_a_block_equal_torch(make: tuple[Any, Any]) -> None:
    # 561,501 elements are two blocks; the small ones before and after share one with their parts.
    plan = long_plan(torch.float32, [(3,), (5,), (801, 701), (520, 520), (7,)], 3)
    expected = run_torch(plan, make[1], fused=make[0] is AdamW)
    assert_equal(run(plan, make[0]), expected)


def trained(plan: Plan, betas: tuple[float, float]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What AdamW makes of the values, and what it remembers."""
    made: list[AdamW] = []

    def make(groups: list[ParameterGroup]) -> AdamW:
        made.append(AdamW(groups, betas=betas))
        return made[0]

    return run(plan, make)[-1], made[0].state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.5), (0.8, 0.0)])
def test_one_pass_remembers_what_operations_do_and_goes_where_they_go(
    dtype: torch.dtype, betas: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = long_plan(dtype, [(64,), (128, 80), (16, 5), (1 << 17,)], 20)
    fused, moments = trained(plan, betas)
    monkeypatch.setattr(optim, "_LANES", 1 << 40)  # which nothing fills
    plain, expected = trained(plan, betas)
    for name, tensor in expected.items():
        assert torch.equal(moments[name], tensor), name
    for one, other in zip(fused, plain, strict=True):
        assert (one != other).double().mean() < 0.01
        assert scaled_error(one, other) <= 20 * torch.finfo(dtype).eps


def test_where_one_pass_differs_it_is_nearer_to_the_formula(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # From 0, and at rate 0 until the last step, so that the values are that step to the last bit.
    plan = long_plan(torch.float32, [(1 << 17,), (1 << 17,)], 10)
    plan = plan._replace(
        initial=[torch.zeros_like(p) for p in plan.initial], multipliers=[0.0] * 9 + [1.0]
    )
    fused, moments = trained(plan, (0.9, 0.999))
    monkeypatch.setattr(optim, "_LANES", 1 << 40)
    plain, _ = trained(plan, (0.9, 0.999))
    n_differing, errors = 0, [0.0, 0.0]
    for index, (one, other) in enumerate(zip(fused, plain, strict=True)):
        mean, square = (moments[f"{kind}.p{index}"].double() for kind in ("mean", "square"))
        # Of the factors as float32 has them, which both forms share.
        rate, bias, eps = torch.tensor(
            [plan.groups[index][1]["rate"] / (1 - 0.9**10), (1 - 0.999**10) ** 0.5, 1e-8]
        ).double()
        exact = -rate * mean / (square.sqrt() / bias + eps)
        differing = one != other
        n_differing += int(differing.sum())
        for form, found in enumerate((one, other)):
            errors[form] += float((found.double() - exact)[differing].abs().sum())
    # The root that MKL takes is not always the nearest float32; the kernel's is.
    assert n_differing < 0.02 * (1 << 18)
    assert errors[0] <= errors[1]


@pytest.mark.parametrize("transposed", ["parameter", "gradient", "both"])
@pytest.mark.parametrize("shape", [(801, 701), (64, 80)])  # by operations, and by one kernel
def test_memory_order_makes_no_difference(transposed: str, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start, *gradients = (torch.randn(shape, generator=generator) for _ in range(3))
    values = []
    for turned in (False, True):
        value, grads = start.clone(), [gradient.clone() for gradient in gradients]
        if turned and transposed != "gradient":
            value = value.t().contiguous().t()
        if turned and transposed != "parameter":
            grads = [gradient.t().contiguous().t() for gradient in grads]
        p = nn.Parameter(value)
        assert p.is_contiguous() != (turned and transposed != "gradient")
        optimizer = AdamW([group(p, weight_decay=0.1)])
        for gradient in grads:
            p.grad = gradient
            optimizer.step()
        values.append(p.detach())
    assert scaled_error(values[1], values[0]) <= 1e-6
    assert scaled_error(values[1], start) > 0.05


def google_steps(plan: Plan) -> list[np.ndarray]:
    """`AdamWeightDecayOptimizer` of google-research/bert, in float64: the values at the end."""
    settings = {member: values for members, values in plan.groups for member in members}
    values = [tensor.double().numpy().copy() for tensor in plan.initial]
    mean = [np.zeros_like(value) for value in values]
    square = [np.zeros_like(value) for value in values]
    for gradients, multiplier in zip(plan.gradients, plan.multipliers, strict=True):
        for index, gradient in enumerate(gradients):
            assert gradient is not None
            g = gradient.double().numpy()
            mean[index] = 0.9 * mean[index] + 0.1 * g
            square[index] = 0.999 * square[index] + 0.001 * g * g
            update = mean[index] / (np.sqrt(square[index]) + 1e-6)
            update += settings[index]["weight_decay"] * values[index]
            values[index] -= settings[index]["rate"] * multiplier * update
    return values


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_google_bert_equals_its_formula_over_200_steps(dtype: torch.dtype, bound: float) -> None:
    plan = long_plan(dtype, [(7, 5), (5,), (3, 2, 2), (33,), (4, 8)], 200)
    expected = google_steps(plan)
    actual = run(plan, PRESETS["google_bert"])[-1]
    other = run(plan, PRESETS["torch_adamw"])[-1]
    for tensor, reference, not_this in zip(actual, expected, other, strict=True):
        assert scaled_error(tensor.double(), torch.from_numpy(reference)) <= bound
        assert scaled_error(not_this.double(), torch.from_numpy(reference)) > 1e-3


def test_a_real_network_is_trained_as_torch_trains_it() -> None:
    ids = torch.tensor([[1, 5, 3, 2], [4, 4, 9, 10]])
    ours, theirs = (randomised(heads.BertForSequenceClassification(TINY)).eval() for _ in range(2))
    groups = parameter_groups(ours, learning_rate=1e-2, layer_decay=0.5, head_learning_rate=0.1)
    optimizer = AdamW(groups)
    named = dict(theirs.named_parameters())
    reference = torch.optim.AdamW(
        [
            {
                "params": [named[name]],
                "lr": entry.learning_rate,
                "weight_decay": entry.weight_decay,
                "fused": in_one_pass(named[name]),
            }
            for entry in groups
            for name in entry.names
        ],
        foreach=False,
    )
    losses = []
    for _ in range(10):
        for model in (ours, theirs):
            logits = model(ids).logits
            loss = nn.functional.cross_entropy(logits, torch.tensor([0, 2]))
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        reference.step()
        optimizer.zero_grad()
        reference.zero_grad()
    assert losses[-1] < losses[0] * 0.7
    for name, p in ours.named_parameters():
        assert torch.equal(p, named[name]), name


# ---- rate 0, frozen parameters, half precision


@given(plans(), st.sampled_from(["adamw", "google", "sgd"]))
def test_rate_zero_changes_nothing_but_is_remembered(plan: Plan, name: str) -> None:
    make: dict[str, Callable[[list[ParameterGroup]], Optimizer]] = {
        "adamw": AdamW,
        "google": PRESETS["google_bert"],
        "sgd": lambda groups: SGD(groups, momentum=0.9, nesterov=True),
    }
    frozen_in_time = plan._replace(multipliers=[0.0] * len(plan.multipliers))
    for row in run(frozen_in_time, make[name]):
        assert_equal([row], [plan.initial])
    p = parameter([1.0, -2.0])
    optimizer = make[name]([group(p, weight_decay=0.5, l1=0.5)])
    assert step(optimizer, p, [3.0, 4.0], multiplier=0.0) == [1.0, -2.0]
    kind = "velocity" if name == "sgd" else "mean"
    assert optimizer.state_dict()[f"{kind}.p0"].abs().min() > 0
    assert optimizer.state_dict()["steps.p0"] == 1


@pytest.mark.parametrize("multiplier", [-0.1, math.nan, math.inf])
def test_steps_refuse_a_wrong_multiplier(multiplier: float) -> None:
    p = parameter(1.0)
    for optimizer in (AdamW([group(p)]), SGD([group(p)])):
        with pytest.raises(TrainingError, match=r"^multiplier is "):
            step(optimizer, p, 1.0, multiplier)
        assert p.item() == 1.0


@pytest.mark.parametrize("make", [AdamW, PRESETS["sgd"]])
def test_frozen_parameters_stay_and_can_be_unfrozen(make: Callable[..., Optimizer]) -> None:
    p, other = parameter([1.0, 2.0]), parameter([1.0, 2.0])
    optimizer = make([group(p, other, weight_decay=0.1, l1=0.1)])
    p.grad = torch.ones_like(p)  # left over from before it was frozen
    p.requires_grad_(False)
    for _ in range(3):
        step(optimizer, other, [0.5, 0.5])
    assert p.tolist() == [1.0, 2.0]
    assert optimizer.state_dict()["steps.p0"] == 0
    assert not [name for name in optimizer.state_dict() if name.endswith("p0")][1:]
    p.requires_grad_(True)
    fresh = parameter([1.0, 2.0])
    other.grad = None
    expected = step(make([group(fresh, weight_decay=0.1, l1=0.1)]), fresh, [0.3, -0.3])
    assert step(optimizer, p, [0.3, -0.3]) == expected


def test_zero_grad_forgets_every_gradient() -> None:
    p, q = parameter(1.0), parameter(2.0)
    for optimizer in (AdamW([group(p), ParameterGroup(("q",), (q,), 0.1)]), SGD([group(p, q)])):
        p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
        q.requires_grad_(False)
        optimizer.zero_grad()
        assert p.grad is None
        assert q.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(40,), (800, 701)])
def test_half_precision_is_computed_in_float32_and_rounded_once(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    p = nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
    twin = nn.Parameter(p.detach().float())
    optimizer = AdamW([group(p, weight_decay=0.1)])
    reference = torch.optim.AdamW([twin], lr=0.1, weight_decay=0.1, foreach=False)
    for _ in range(4):
        p.grad = torch.randn(shape, generator=generator).to(dtype)
        twin.grad = p.grad.float()
        twin.data.copy_(p.detach().float())
        optimizer.step()
        reference.step()
        assert torch.equal(p, twin.to(dtype))
    assert p.dtype == dtype
    state = optimizer.state_dict()
    assert {state[f"{kind}.p0"].dtype for kind in ("mean", "square")} == {torch.float32}


def test_settings_out_of_range_are_refused() -> None:
    groups = [group(parameter(1.0))]
    for betas in ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, math.nan)):
        with pytest.raises(TrainingError, match=r"^betas (is|are) "):
            AdamW(groups, betas=betas)
    with pytest.raises(TrainingError, match=r"^eps is "):
        AdamW(groups, eps=-1e-8)
    for momentum in (1.0, -0.1, math.nan):
        with pytest.raises(TrainingError, match=r"^momentum is "):
            SGD(groups, momentum=momentum)
    with pytest.raises(TrainingError, match=r"^nesterov without momentum"):
        SGD(groups, nesterov=True)


def test_a_parameter_or_name_in_two_places_is_refused() -> None:
    p, q = parameter(1.0), parameter(1.0)
    for groups in (
        [group(p), ParameterGroup(("other",), (p,), 0.1)],
        [group(p), ParameterGroup(("p0",), (q,), 0.1)],
        [group(p, p)],
    ):
        with pytest.raises(TrainingError, match=r"hold \S+ twice"):
            AdamW(groups)


# ---- clipping


def with_gradients(*gradients: Tensor | None) -> list[nn.Parameter]:
    parameters = []
    for gradient in gradients:
        p = nn.Parameter(torch.zeros(2) if gradient is None else torch.zeros_like(gradient))
        p.grad = None if gradient is None else gradient.clone()
        parameters.append(p)
    return parameters


def test_clipping_gives_numbers_worked_by_hand() -> None:
    parameters = with_gradients(torch.tensor([3.0]), None, torch.tensor([[0.0, 4.0]]))
    assert clip_gradients(parameters, 1.0) == 5.0
    assert [p.grad.tolist() for p in parameters if p.grad is not None] == [
        pytest.approx([0.6]),
        [pytest.approx([0.0, 0.8])],
    ]
    assert parameters[1].grad is None


def test_clipping_divides_first() -> None:
    for bound, expected in ((1.0, [0.6, 0.8]), (10.0, [1.5, 2.0]), (math.inf, [1.5, 2.0])):
        (p,) = with_gradients(torch.tensor([6.0, 8.0]))
        assert clip_gradients([p], bound, divisor=4.0) == 2.5
        assert p.grad is not None
        assert p.grad.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bound", [1.0, math.inf])
def test_half_precision_is_divided_by_what_it_has_no_number_for(
    dtype: torch.dtype, bound: float
) -> None:
    gradient = torch.full((4,), 1000.0, dtype=dtype)
    half, full = with_gradients(gradient, gradient.double())
    for p in (half, full):
        clip_gradients([p], bound, divisor=2049.0)  # to which both would round: 2048
    assert half.grad is not None
    assert full.grad is not None
    assert torch.equal(half.grad, full.grad.to(dtype))


def test_clipping_at_the_bound_changes_nothing() -> None:
    for bound in (5.0, math.inf):
        parameters = with_gradients(torch.tensor([3.0, 4.0]))
        assert clip_gradients(parameters, bound) == 5.0
        assert parameters[0].grad is not None
        assert parameters[0].grad.tolist() == [3.0, 4.0]


def test_clipping_without_gradients_gives_zero() -> None:
    assert clip_gradients([], 1.0) == 0.0
    assert clip_gradients(with_gradients(None), 1.0) == 0.0


def test_clipping_counts_a_parameter_that_is_given_twice_once() -> None:
    (p,) = with_gradients(torch.tensor([3.0, 4.0]))
    assert clip_gradients([p, p], 1.0) == 5.0
    assert p.grad is not None
    assert p.grad.tolist() == pytest.approx([0.6, 0.8])


SIZES = st.lists(st.lists(st.integers(0, 6), max_size=3), min_size=1, max_size=4)


@given(
    SIZES,
    st.integers(0, 10_000),
    st.sampled_from([1e-12, 1e-3, 1.0, 1e4, 1e25]),
    st.sampled_from([1e-3, 1.0, 10.0]),
    st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60)
def test_clipped_norm_is_within_the_bound_and_below_it_nothing_changes(
    shapes: list[list[int]], seed: int, scale: float, bound: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    before = [scale * torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    parameters = with_gradients(*before)
    expected = math.sqrt(sum(float((tensor.double() ** 2).sum()) for tensor in before))
    assert clip_gradients(parameters, bound) == pytest.approx(expected, rel=1e-6, abs=1e-18)
    after = [p.grad for p in parameters if p.grad is not None]
    total = math.sqrt(sum(float((tensor.double() ** 2).sum()) for tensor in after))
    assert total <= bound * (1 + 1e-6)
    if expected < bound * (1 - 1e-6):
        assert_equal([after], [before])
    elif expected > bound * (1 + 1e-6):
        assert total == pytest.approx(bound, rel=1e-6)
        for tensor, original in zip(after, before, strict=True):
            # the direction stays
            assert torch.allclose(
                tensor.double(), original.double() * bound / expected, rtol=1e-6, atol=1e-30
            )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_norms_that_are_no_numbers_are_told_and_nothing_is_scaled(bad: float) -> None:
    before = [torch.tensor([1.0, bad]), torch.tensor([2e3])]
    parameters = with_gradients(*before)
    norm = clip_gradients(parameters, 1.0)
    assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
    for p, original in zip(parameters, before, strict=True):
        assert p.grad is not None
        assert torch.equal(p.grad, original) or (
            math.isnan(bad) and p.grad[0] == 1.0 and p.grad.isnan()[1]
        )


def test_norm_of_a_long_gradient_is_right_where_that_of_torch_is_not() -> None:
    gradient = torch.randn(30_000, 100, generator=torch.Generator().manual_seed(0))
    expected = float(gradient.double().norm())
    assert clip_gradients(with_gradients(gradient), math.inf) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norm_of_half_precision_is_neither_rounded_nor_too_large(dtype: torch.dtype) -> None:
    gradient = torch.full((257,), 60_000.0, dtype=dtype)
    expected = float(gradient.double().norm())
    parameters = with_gradients(gradient)
    assert clip_gradients(parameters, 1.0) == pytest.approx(expected, rel=1e-6)
    assert parameters[0].grad is not None
    assert float(parameters[0].grad.double().norm()) == pytest.approx(1.0, rel=1e-2)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_clipping_refuses_a_bound_that_is_none(bound: float) -> None:
    with pytest.raises(TrainingError, match=r"^max_norm is .*, expected a number above 0"):
        clip_gradients(with_gradients(torch.ones(2)), bound)


# ---- state

MAKERS: dict[str, Callable[[Sequence[ParameterGroup]], Optimizer]] = {
    "adamw": AdamW,
    "plain_sgd": SGD,
    **PRESETS,
}
N_STEPS = 5


def started(
    name: str, values: Sequence[Tensor] | None = None, dtype: torch.dtype = torch.float32
) -> tuple[list[nn.Parameter], Optimizer]:
    """Three parameters in two groups, of which one is frozen, and their optimizer."""
    generator = torch.Generator().manual_seed(1)
    initial = [torch.randn(shape, generator=generator).to(dtype) for shape in ((3, 4), (4,), (2,))]
    a, b, c = (nn.Parameter(tensor.clone()) for tensor in values or initial)
    groups = [
        ParameterGroup(("a", "c"), (a, c), 0.1, weight_decay=0.1, l1=0.01),
        ParameterGroup(("b",), (b,), 0.2),
    ]
    return [a, b, c], MAKERS[name](groups)


def advance(parameters: list[nn.Parameter], optimizer: Optimizer, first: int, last: int) -> None:
    """Steps `first` to `last`; the third parameter is unfrozen at step 2, without gradient at 3."""
    for number in range(first, last):
        generator = torch.Generator().manual_seed(number)
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        parameters[2].requires_grad_(number >= 2)
        if number == 3:
            parameters[2].grad = None
        optimizer.step(min(1.0, number / 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MAKERS)
def test_training_continues_bit_for_bit_from_every_step(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    whole, optimizer = started(name, dtype=dtype)
    advance(whole, optimizer, 0, N_STEPS)
    for k in range(N_STEPS + 1):
        parameters, first = started(name, dtype=dtype)
        advance(parameters, first, 0, k)
        save_file(first.state_dict(), tmp_path / "state.safetensors")
        values = [p.detach() for p in parameters]
        state = load_file(tmp_path / "state.safetensors")
        parameters, second = started(name, values)
        second.load_state_dict(state)
        advance(parameters, second, k, N_STEPS)
        for p, expected in zip(parameters, whole, strict=True):
            assert torch.equal(p, expected), k
        final = second.state_dict()
        assert final.keys() == optimizer.state_dict().keys()
        assert all(torch.equal(final[key], t) for key, t in optimizer.state_dict().items())


def test_state_is_flat_and_named_after_the_parameters() -> None:
    parameters, optimizer = started("adamw")
    assert {key: value.item() for key, value in optimizer.state_dict().items()} == {
        "steps.a": 0,
        "steps.b": 0,
        "steps.c": 0,
    }
    advance(parameters, optimizer, 0, 2)
    state = optimizer.state_dict()
    assert set(state) == {
        *("steps.a", "steps.b", "steps.c", "mean.a", "mean.b", "square.a", "square.b")
    }
    assert state["steps.a"] == 2
    assert state["mean.a"].shape == (3, 4)
    parameters, plain = started("plain_sgd")
    advance(parameters, plain, 0, 2)
    assert set(plain.state_dict()) == {"steps.a", "steps.b", "steps.c"}


def test_loaded_state_is_a_copy() -> None:
    parameters, first = started("torch_adamw")
    advance(parameters, first, 0, 2)
    state = {key: tensor.clone() for key, tensor in first.state_dict().items()}
    kept = {key: tensor.clone() for key, tensor in state.items()}
    parameters, second = started("torch_adamw")
    second.load_state_dict(state)
    advance(parameters, second, 2, 4)
    assert all(torch.equal(state[key], kept[key]) for key in kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps.a": None}, "lacks steps.a"),
        ({"square.b": None}, "lacks square.b"),
        ({"mean.d": torch.zeros(2)}, "holds mean.d, expected nothing beside"),
        ({"mean.c": torch.zeros(2)}, "holds mean.c, expected nothing beside"),
        ({"mean.b": torch.zeros(5)}, r"mean.b of shape \(5,\)"),
        ({"mean.b": torch.zeros(4).double()}, r"torch.float64, expected \(4,\) and torch.float32"),
        ({"steps.b": torch.tensor(2.0)}, "torch.float32, expected"),
    ],
)
def test_a_state_of_something_else_is_refused_and_changes_nothing(
    change: Mapping[str, Tensor | None], message: str
) -> None:
    parameters, optimizer = started("adamw")
    advance(parameters, optimizer, 0, 2)
    state = {**optimizer.state_dict(), **change}
    wrong = {key: tensor for key, tensor in state.items() if tensor is not None}
    _, other = started("adamw")
    with pytest.raises(CheckpointError, match=message):
        other.load_state_dict(wrong)
    assert set(other.state_dict()) == {"steps.a", "steps.b", "steps.c"}
    assert not any(other.state_dict().values())


def test_state_of_another_optimizer_is_refused() -> None:
    parameters, sgd = started("sgd")
    advance(parameters, sgd, 0, 1)
    for name in ("adamw", "plain_sgd"):
        _, other = started(name)
        state = sgd.state_dict()
        with pytest.raises(CheckpointError, match=r"the optimizer's state (lacks|holds) "):
            other.load_state_dict(state)
