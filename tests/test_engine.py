"""The kernels beside their twins in PyTorch: the same numbers, in any company."""

import copy
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processors import TARGETS, target_of
from random_networks import (
    LENGTHS,
    POSITIONS,
    VOCAB,
    array,
    by_pytorch,
    error,
    ids_of,
    in_float64,
    network,
)
from torch import nn

from minibert import BertModel, engine
from minibert.engine import Engine
from minibert.kernels import build
from minibert.kernels.build import KernelsUnavailableError
from minibert.layout import Packed
from minibert.model import explicit_attention, set_attention

DTYPES = ("float32", "int16", "int8")


@pytest.fixture(scope="module", params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(dtype: str) -> BertModel:
    return network(dtype)


@pytest.fixture(scope="module")
def kernels(model: BertModel) -> Engine:
    return Engine(model)


# Rounding before a number becomes an integer moves some of them by one, so networks of integers are
# as near as these steps are small; within float32 it is rounding alone.
BOUNDS = {"float32": 2e-6, "int16": 1e-3, "int8": 0.05}


@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_kernels_give_what_pytorch_gives(
    model: BertModel, kernels: Engine, dtype: str, lengths: list[int], seed: int
) -> None:
    ids = ids_of(lengths, seed)
    got = kernels.hidden(ids, array(lengths))
    assert error(got, by_pytorch(model, ids, lengths)) < BOUNDS[dtype]


@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_tokens_of_several_types_are_those_of_pytorch(
    model: BertModel, kernels: Engine, dtype: str, lengths: list[int], seed: int
) -> None:
    ids = ids_of(lengths, seed)
    types = np.random.default_rng(seed).integers(0, 2, len(ids), dtype=np.int32)
    got = kernels.hidden(ids, array(lengths), types)
    with torch.no_grad():
        expected = model(
            torch.from_numpy(ids).long(),
            token_type_ids=torch.from_numpy(types).long(),
            layout=Packed.from_lengths(lengths),
        )
    assert error(got, expected.last_hidden_state) < BOUNDS[dtype]
    assert kernels.hidden(ids, array(lengths), np.zeros_like(types)).equal(
        kernels.hidden(ids, array(lengths))
    )


@pytest.mark.parametrize("types", [[0, 1, 2], [0, -1, 0], [0, 1]])
def test_types_that_there_are_not_are_refused(kernels: Engine, types: list[int]) -> None:
    with pytest.raises(ValueError, match="got types outside of 0 to 1, or not one for each id"):
        kernels.hidden(ids_of([3]), array([3]), array(types))


@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_float32_errs_no_further_than_pytorch_does(lengths: list[int], seed: int) -> None:
    model = network("float32")
    ids = ids_of(lengths, seed)
    exact = by_pytorch(in_float64(model), ids, lengths)
    got = error(Engine(model).hidden(ids, array(lengths)), exact)
    assert got < 2 * error(by_pytorch(model, ids, lengths), exact) + 1e-7


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_act": "gelu_new"},
        {"hidden_act": "gelu_pytorch_tanh"},
        {"hidden_act": "relu"},
        {"hidden_size": 30, "num_attention_heads": 5, "intermediate_size": 7},
        {"hidden_size": 130, "num_attention_heads": 2, "intermediate_size": 260},
        {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 48},
        {"hidden_size": 7, "num_attention_heads": 7, "intermediate_size": 1},
        {"layer_norm_eps": 0.1},
    ],
    ids=str,
)
def test_kernels_take_other_networks(dtype: str, values: dict[str, object]) -> None:
    model = network(dtype, **values)
    lengths = [3, 40, 1, 18, 18]
    ids = ids_of(lengths)
    got = Engine(model).hidden(ids, array(lengths))
    expected = by_pytorch(model, ids, lengths)
    narrow = 4 if min(int(values.get("hidden_size", 48)), 8) < 8 else 1  # a step is a larger part
    assert error(got, expected) < narrow * BOUNDS[dtype]


@given(lengths=LENGTHS, others=LENGTHS, threads=st.integers(1, 3))
def test_a_sequence_is_the_same_to_the_last_bit_in_any_company(
    kernels: Engine, lengths: list[int], others: list[int], threads: int
) -> None:
    torch.set_num_threads(1)
    ids, more = ids_of(lengths), ids_of(others, seed=2)
    alone = [
        kernels.hidden(part.copy(), array([len(part)]))
        for part in np.split(ids, np.cumsum(lengths)[:-1])
    ]
    torch.set_num_threads(threads)
    together = kernels.hidden(np.concatenate([more, ids]), array([*others, *lengths]))
    torch.set_num_threads(1)
    assert together[len(more) :].equal(torch.cat(alone))


def test_many_batches_come_out_as_one_by_one(kernels: Engine) -> None:
    rng = np.random.default_rng(0)
    lengths = sorted(rng.integers(1, POSITIONS, 90).tolist(), reverse=True)  # 14 batches or so
    ids = ids_of(lengths)
    pieces = np.split(ids, np.cumsum(lengths)[:-1])
    for threads in (1, 2):
        torch.set_num_threads(threads)
        got = kernels.hidden(ids, array(lengths))
        means = kernels.mean(ids, array(lengths), None)
        torch.set_num_threads(1)
        alone = [kernels.hidden(part.copy(), array([len(part)])) for part in pieces]
        assert got.equal(torch.cat(alone))
        for mean, states in zip(means, alone, strict=True):
            torch.testing.assert_close(mean, states.mean(0), rtol=1e-5, atol=1e-6)


def test_means_leave_out_what_is_skipped(kernels: Engine) -> None:
    lengths, skips = [5, 9, 1], [0, 8, 0]
    ids = ids_of(lengths)
    states = kernels.hidden(ids, array(lengths)).split(lengths)
    expected = torch.stack([s[skip:].mean(0) for s, skip in zip(states, skips, strict=True)])
    torch.testing.assert_close(kernels.mean(ids, array(lengths), array(skips)), expected)


def test_scores_that_would_overflow_are_attended_as_in_pytorch() -> None:
    model = network("float32")
    with torch.no_grad():
        for layer in model.layers:
            layer.attention.qkv.weight.mul_(40)
    lengths = [POSITIONS, 5]
    ids = ids_of(lengths)
    got = Engine(model).hidden(ids, array(lengths))
    assert got.isfinite().all()
    assert error(got, by_pytorch(in_float64(model), ids, lengths)) < 1e-3


def test_hidden_states_of_zeros_are_no_division_by_zero(dtype: str) -> None:
    model = network(dtype)
    with torch.no_grad():
        for norm in [each for each in model.modules() if isinstance(each, nn.LayerNorm)]:
            norm.weight.zero_()
            norm.bias.zero_()
    ids = ids_of([4, 2])
    got = Engine(model).hidden(ids, array([4, 2]))
    assert got.equal(torch.zeros(6, 48))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda model: model.double(), "a form for float64"),
        (lambda model: model.bfloat16(), "a form for bfloat16 on a CPU without AMX"),
        (lambda model: set_attention(model, explicit_attention), "an attention of one's own"),
        (lambda model: model.layers[1].register_forward_hook(print), "hooks"),
    ],
)
def test_what_the_kernels_lack_is_said(
    change: object, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    model = network("float32")
    change(model)  # type: ignore[operator]
    with pytest.raises(KernelsUnavailableError, match=told):
        Engine(model)


def test_an_activation_that_the_kernels_lack_is_said() -> None:
    with pytest.raises(KernelsUnavailableError, match="do not have the activation silu"):
        Engine(network("float32", hidden_act="silu"))


def test_integers_are_not_computed_in_bfloat16x3() -> None:
    with pytest.raises(KernelsUnavailableError, match="bfloat16x3 of weights that are not float32"):
        Engine(network("int8"), bfloat16x3=True)


def test_an_engine_knows_when_weights_have_changed() -> None:
    model = network("float32")
    made = Engine(model)
    assert made.is_of(model)
    with torch.no_grad():
        model.layers[0].feed_forward.up.bias.add_(1)
    assert not made.is_of(model)
    made = Engine(model)
    model.embeddings.token.weight.data = model.embeddings.token.weight.data.clone()
    assert not made.is_of(model)


def another_parameter(model: BertModel) -> None:
    linear = model.layers[0].feed_forward.up
    linear.weight = nn.Parameter(linear.weight.detach().clone())


def another_module(model: BertModel) -> None:
    model.layers[1].feed_forward.up = copy.deepcopy(model.layers[1].feed_forward.up)


def one_tensor_more(model: BertModel) -> None:
    model.layers[1].feed_forward.down.register_buffer("scale", torch.ones(1))


def one_tensor_less(model: BertModel) -> None:
    model.layers[0].feed_forward.up.bias = None


@pytest.mark.parametrize(
    "change",
    [
        another_parameter,
        another_module,
        one_tensor_more,
        one_tensor_less,
        lambda model: model.layers[1].register_forward_hook(print),
        lambda model: set_attention(model, explicit_attention),
    ],
)
def test_an_engine_knows_when_the_network_has_changed(
    change: Callable[[BertModel], object],
) -> None:
    model = network("float32")
    made = Engine(model)
    change(model)
    assert not made.is_of(model)


@pytest.mark.parametrize(
    ("ids", "lengths", "told"),
    [
        ([1, VOCAB], [2], "ids outside of 0 to 59"),
        ([-1], [1], "ids outside"),
        ([], [], "or none"),
        ([1, 2, 3], [2], "lengths 2 to 2 of 3 ids"),
        ([1, 2], [2, 0], "lengths 0 to 2"),
        ([1] * (POSITIONS + 1), [POSITIONS + 1], f"expected 1 to {POSITIONS}"),
    ],
)
def test_what_does_not_fit_reaches_no_kernel(
    kernels: Engine, ids: list[int], lengths: list[int], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        kernels.hidden(array(ids), array(lengths))


def test_what_computes_is_said(kernels: Engine, dtype: str) -> None:
    kind = {"float32": "float32", "int16": "16-bit integers", "int8": "8-bit integers"}[dtype]
    assert kernels.description.startswith(f"{kind} by kernels for ")


# ---- other processors


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_kernels_for_other_processors_give_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, target = build.load, target_of(name)
    monkeypatch.setattr(engine.build, "load", lambda folder, **options: load(folder, target=target))
    for dtype in DTYPES:
        model = network(dtype)
        for lengths in ([1], [17, 30, 1, 9], [POSITIONS] * 9):
            ids = ids_of(lengths)
            made = Engine(model)
            assert made.description.endswith(f"by kernels for {name}")
            got = made.hidden(ids, array(lengths))
            assert error(got, by_pytorch(model, ids, lengths)) < BOUNDS[dtype]


# ---- processes


FORKED = """
import os, sys, numpy as np, torch
from minibert import Embedder
torch.set_num_threads(2)
embedder = Embedder.from_pretrained(sys.argv[1], engine="kernels")
before = embedder.encode(["a text", "another one"])
assert "by kernels" in embedder.computes
child = os.fork()
if not child:
    same = np.array_equal(embedder.encode(["a text", "another one"]), before)
    os._exit(0 if same else 3)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.slow
def test_a_forked_process_computes_the_same() -> None:
    command = [sys.executable, "-c", FORKED, "all-MiniLM-L6-v2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "0\n"


LIBRARIES = """
import torch, sys
from pathlib import Path
from minibert.engine import load_kernels
load_kernels()
maps = Path("/proc/self/maps").read_text().splitlines()
print(len({line.split()[-1] for line in maps if "gomp" in line or "iomp" in line}))
"""


@pytest.mark.slow
def test_threads_are_those_of_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIBRARIES], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "1\n", "a second OpenMP would spin against torch's"
