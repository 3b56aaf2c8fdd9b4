"""Linear maps on tiles (AMX): their instructions are emulated, so no machine has to have them."""

import ctypes
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_networks import (
    LENGTHS,
    array,
    by_pytorch,
    error,
    ids_of,
    in_float64,
    network,
)
from torch import Tensor, nn

from minibert import BertModel, Embedder, engine, ops
from minibert.engine import Engine, load_kernels
from minibert.engine_choice import EngineChoice, Engines
from minibert.kernels import build, operations
from minibert.kernels.build import KernelsUnavailableError
from minibert.kernels.panels import instructions_of, packed
from minibert.machine import this_machine
from minibert.quantise import quantised
from minibert.weights import cache_folder

needs_vectors = pytest.mark.skipif(
    "avx2" not in this_machine().units,
    reason="this processor has no AVX2, without which a panel is narrower than a tile",
)
# One worker compiles for all.
pytestmark = [needs_vectors, pytest.mark.xdist_group("tiles")]

WEIGHTS = {"bfloat16x3": "float32"}  # the dtype of a network's, where that is not its name
NEARLY_FLOAT32 = 3e-5  # weights that are random make more of a small error than real ones do

SIZES = st.integers(1, 300)
SEEDS = st.integers(0, 2**16)
ROWS = st.integers(1, 70)


def compiled(target: str) -> ctypes.CDLL:
    return build.load(cache_folder() / "kernels", target=f"{build.TARGET} {target}")


def emulated() -> ctypes.CDLL:
    return compiled("-DMINIBERT_EMULATE_TILES")


def tiled(model: BertModel, dtype: str, library: ctypes.CDLL) -> Engine:
    """On a processor that says that it has tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "load_kernels", lambda **_: library)
        patch.setattr("torch.cpu._is_amx_tile_supported", lambda: True)
        return Engine(model, bfloat16x3=dtype == "bfloat16x3")


def linear_map(
    library: ctypes.CDLL,
    linear: nn.Linear | ops.QuantisedLinear,
    x: Tensor,
    *,
    bfloat16x3: bool = False,
) -> Tensor:
    operations.use(library)
    scale = linear.scale if isinstance(linear, ops.QuantisedLinear) else None
    panels = packed(library, linear.weight, linear.bias, scale, bfloat16x3=bfloat16x3)
    return torch.ops.minibert.linear(x, *panels, linear.weight.shape[0], bfloat16x3)


# ---- linear maps


def test_inputs_are_rounded_to_the_nearest_bfloat16_halves_to_even() -> None:
    one = nn.Linear(1, 1).bfloat16()
    with torch.no_grad():
        one.weight.fill_(1.0)
        one.bias.fill_(0.0)
    step = 2**-7  # from 1 to the next that bfloat16 has
    inputs = [1 + step / 2, 1 + step * 3 / 2, 1 + step / 2 + 2**-20, -1 - step / 2, 0.0, 1e-45]
    got = linear_map(emulated(), one, torch.tensor(inputs)[:, None])
    assert got.flatten().tolist() == [1, 1 + 2 * step, 1 + step, -1, 0, 0]


def test_products_of_bfloat16_are_summed_up_in_float32() -> None:
    linear = nn.Linear(200, 1).bfloat16()
    with torch.no_grad():
        linear.weight.fill_(1.0)
        linear.bias.fill_(0.25)
    x = torch.full((1, 200), 1 + 2**-7)  # bfloat16 would lose the parts beyond 256
    assert linear_map(emulated(), linear, x).item() == 200 * (1 + 2**-7) + 0.25


@given(inputs=SIZES, outputs=SIZES, rows=ROWS, seed=SEEDS)
def test_a_bfloat16_linear_map_is_its_twin(inputs: int, outputs: int, rows: int, seed: int) -> None:
    torch.manual_seed(seed)
    linear = nn.Linear(inputs, outputs).bfloat16()
    x = torch.randn(rows, inputs) * 10 ** torch.empty(rows, 1).uniform_(-3, 3)
    with torch.no_grad():
        got = linear_map(emulated(), linear, x)
        twin = ops.rounded_linear(x, linear.weight, linear.bias)
    room = 2e-6 * (x.norm(dim=1, keepdim=True) * inputs**0.5 + 1)
    assert ((got - twin).abs() <= room).all()


def test_bfloat16x3_leaves_out_the_product_of_the_small_parts_alone() -> None:
    linear = nn.Linear(1, 1)
    with torch.no_grad():
        linear.weight.fill_(1 + 2**-9)  # split into 1 and 2^-9, as is each input
        linear.bias.fill_(0.25)
    x = torch.tensor([[1 + 2**-9], [-1 - 2**-9], [0.0], [3.0]])
    got = linear_map(emulated(), linear, x, bfloat16x3=True) - 0.25
    assert got.flatten().tolist() == [1 + 2**-8, -1 - 2**-8, 0, 3 + 3 * 2**-9]


@given(inputs=SIZES, outputs=SIZES, rows=ROWS, seed=SEEDS)
def test_a_bfloat16x3_linear_map_is_its_twin_and_nearly_float32(
    inputs: int, outputs: int, rows: int, seed: int
) -> None:
    torch.manual_seed(seed)
    linear = nn.Linear(inputs, outputs)
    x = torch.randn(rows, inputs) * 10 ** torch.empty(rows, 1).uniform_(-3, 3)
    with torch.no_grad():
        got = linear_map(emulated(), linear, x, bfloat16x3=True)
        twin = ops.split_linear(x, linear.weight, linear.bias)
        exact = linear.double()(x.double())
    room = 2e-6 * (x.norm(dim=1, keepdim=True) * inputs**0.5 + 1)
    assert ((got - twin).abs() <= room).all()
    # Of each product 2^-16 is left out, and two parts lose 2^-17; the rest is rounding of sums.
    sizes = x.double().abs() @ linear.weight.abs().T + linear.bias.abs()
    assert ((got - exact).abs() <= 2**-15 * sizes + room).all()


@given(inputs=SIZES, outputs=SIZES, rows=ROWS, seed=SEEDS)
def test_an_8_bit_linear_map_is_to_the_last_bit_what_it_is_by_vectors(
    inputs: int, outputs: int, rows: int, seed: int
) -> None:
    torch.manual_seed(seed)
    linear = quantised(nn.Linear(inputs, outputs), 8)
    x = torch.randn(rows, inputs) * 10 ** torch.empty(rows, 1).uniform_(-3, 3)
    assert linear_map(emulated(), linear, x).equal(linear_map(load_kernels(), linear, x))


def test_the_largest_sums_of_8_bits_are_exact() -> None:
    linear = nn.Linear(4096, 50)
    with torch.no_grad():
        linear.weight.fill_(1.0)
        linear.weight[1] = -1.0
    integers = quantised(linear, 8)
    x = torch.full((9, 4096), 5.0)
    got = linear_map(emulated(), integers, x)
    assert got.equal(linear_map(load_kernels(), integers, x))
    torch.testing.assert_close(got[:, :2], torch.tensor([[20480.0, -20480.0]]).expand(9, 2))


# ---- whole networks


@cache
def small(dtype: str) -> BertModel:
    return network(WEIGHTS.get(dtype, dtype))


@cache
def by_tiles(dtype: str) -> Engine:
    return tiled(small(dtype), dtype, emulated())


@cache
def by_vectors() -> Engine:
    return tiled(small("int8"), "int8", load_kernels())


@given(lengths=LENGTHS, seed=SEEDS, threads=st.integers(1, 3))
def test_a_network_of_8_bits_is_to_the_last_bit_what_it_is_by_vectors(
    lengths: list[int], seed: int, threads: int
) -> None:
    ids = ids_of(lengths, seed)
    expected = by_vectors().hidden(ids, array(lengths))
    torch.set_num_threads(threads)
    got = by_tiles("int8").hidden(ids, array(lengths))
    torch.set_num_threads(1)
    assert got.equal(expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "bfloat16x3"])
@settings(max_examples=15)  # each spends its time where threads wait for each other
@given(lengths=LENGTHS, others=LENGTHS, threads=st.integers(1, 3))
def test_a_sequence_is_the_same_to_the_last_bit_in_any_company(
    dtype: str, lengths: list[int], others: list[int], threads: int
) -> None:
    made = by_tiles(dtype)
    ids, more = ids_of(lengths), ids_of(others, seed=2)
    alone = [
        made.hidden(part.copy(), array([len(part)]))
        for part in np.split(ids, np.cumsum(lengths)[:-1])
    ]
    torch.set_num_threads(threads)
    together = made.hidden(np.concatenate([more, ids]), array([*others, *lengths]))
    torch.set_num_threads(1)
    assert together[len(more) :].equal(torch.cat(alone))


@given(lengths=LENGTHS, seed=SEEDS)
def test_bfloat16_errs_no_further_than_pytorch_does(lengths: list[int], seed: int) -> None:
    model = small("bfloat16")
    ids = ids_of(lengths, seed)
    exact = by_pytorch(in_float64(model), ids, lengths)
    got = by_tiles("bfloat16").hidden(ids, array(lengths))
    assert error(got, exact) <= error(by_pytorch(model, ids, lengths), exact)


@given(lengths=LENGTHS, seed=SEEDS)
def test_a_network_in_bfloat16x3_is_nearly_float32(lengths: list[int], seed: int) -> None:
    ids = ids_of(lengths, seed)
    exact = by_pytorch(in_float64(small("float32")), ids, lengths)
    got = by_tiles("bfloat16x3").hidden(ids, array(lengths))
    assert error(got, exact) < NEARLY_FLOAT32


@pytest.mark.parametrize(
    ("dtype", "bound"), [("bfloat16", 0.1), ("int8", 0.1), ("bfloat16x3", NEARLY_FLOAT32)]
)
@pytest.mark.parametrize(
    "values",
    [
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu"},
        {"hidden_size": 130, "num_attention_heads": 2, "intermediate_size": 260},
        {"hidden_size": 7, "num_attention_heads": 7, "intermediate_size": 1},
    ],
    ids=str,
)
def test_tiles_take_other_networks(dtype: str, bound: float, values: dict[str, object]) -> None:
    model = network(WEIGHTS.get(dtype, dtype), **values)
    lengths = [3, 40, 1, 18, 18]
    ids = ids_of(lengths)
    got = tiled(model, dtype, emulated()).hidden(ids, array(lengths))
    assert error(got, by_pytorch(model, ids, lengths)) < bound


def test_a_real_checkpoint_in_bfloat16_errs_no_further_than_by_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "load_kernels", lambda **_: emulated())
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: True)
    texts = ["cats purr", "dogs bark, and loudly", "a longer text about cats that purr"]

    def vectors(dtype: str, choice: EngineChoice) -> NDArray[np.float32]:
        embedder = Embedder.from_pretrained("all-MiniLM-L6-v2", dtype=dtype, engine=choice)
        return embedder.encode(texts)

    exact = vectors("float32", "pytorch")
    got, by_pytorch = (vectors("bfloat16", choice) for choice in ("kernels", "pytorch"))
    assert np.linalg.norm(got - exact) < np.linalg.norm(by_pytorch - exact)


def test_a_real_checkpoint_in_bfloat16x3_is_nearly_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "load_kernels", lambda **_: emulated())
    texts = ["cats purr", "dogs bark, and loudly", "a longer text about cats that purr"]
    exact = Embedder.from_pretrained("all-MiniLM-L6-v2", dtype="float64").encode(texts)
    embedder = Embedder.from_pretrained("all-MiniLM-L6-v2", dtype="bfloat16x3", engine="kernels")
    got = embedder.encode(texts)
    assert embedder.computes.startswith("bfloat16x3 by kernels for emulated AMX and ")
    assert np.abs(got - exact).max() < 1e-5
    assert np.array_equal(embedder.encode(texts[1]), got[1])


# ---- what is said, and where there are none


def test_what_computes_names_tiles_where_they_do() -> None:
    dtypes = ("float32", "bfloat16", "bfloat16x3", "int16", "int8")
    said = {dtype: by_tiles(dtype).description for dtype in dtypes}
    vectors = instructions_of(load_kernels(), "float32")
    assert said == {
        "float32": f"float32 by kernels for {vectors}",
        "bfloat16": f"bfloat16 by kernels for emulated AMX and {vectors}",
        "bfloat16x3": f"bfloat16x3 by kernels for emulated AMX and {vectors}",
        "int16": f"16-bit integers by kernels for {vectors}",
        "int8": f"8-bit integers by kernels for emulated AMX and {vectors}",
    }


def test_bfloat16_without_tiles_is_refused() -> None:
    """By a library that was compiled for other processors, or a system that lends no tiles."""
    library = compiled("-march=x86-64 -O0")
    with pytest.raises(KernelsUnavailableError, match="a form for bfloat16 without AMX"):
        tiled(network("bfloat16"), "bfloat16", library)
    with pytest.raises(KernelsUnavailableError, match="a form for bfloat16 without AMX"):
        linear_map(library, nn.Linear(3, 2).bfloat16(), torch.ones(1, 3))


def test_bfloat16x3_without_tiles_is_float32_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library = compiled("-march=x86-64 -O0")
    monkeypatch.setattr(engine, "load_kernels", lambda **_: library)
    model, lengths = small("float32"), [3, 2]
    ids = ids_of(lengths)
    engines = Engines(model, "kernels", reproducible=False, bfloat16x3=True)
    found = engines.for_tokens(len(ids))
    assert found is not None
    assert found.hidden(ids, array(lengths)).equal(Engine(model).hidden(ids, array(lengths)))
    why = "the kernels do not have a form for bfloat16x3 without AMX"
    assert engines.description == f"{found.description} ({why})"
    assert engines.for_tokens(len(ids)) is found
    assert caplog.messages == [f"float32 is computed in place of bfloat16x3: {why}"]


# ---- what the compiler makes of the instructions' names


FOR_TILES = "-mamx-tile -mamx-int8 -mamx-bf16"


@pytest.fixture(scope="module")
def compiler() -> str:
    compiler = build.find_compiler()
    command = [compiler, *FOR_TILES.split(), "-x", "c++", "-fsyntax-only", "/dev/null"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this compiler knows no AMX; install GCC 11 or later")
    return compiler


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_what_is_compiled_for_tiles_computes_by_vectors_where_the_system_lends_none() -> None:
    library = compiled(FOR_TILES)
    lends = "amx_tile" in this_machine().units
    assert instructions_of(library, "int8").startswith("AMX and ") == lends
    lengths = [1, 17, 40]
    ids = ids_of(lengths)
    got = tiled(small("int8"), "int8", library).hidden(ids, array(lengths))
    assert got.equal(by_vectors().hidden(ids, array(lengths)))


TRAPPED = """
import ctypes, sys, torch
from test_tiles import FOR_TILES, array, by_tiles, compiled, error, ids_of, small, tiled
ctypes.CDLL(sys.argv[1]).trap_tiles()
for dtype, bound in (("int8", 0), ("bfloat16", 0.01), ("bfloat16x3", 1e-5)):
    trapped, expected = tiled(small(dtype), dtype, compiled(FOR_TILES)), by_tiles(dtype)
    assert " by kernels for AMX and " in trapped.description
    for lengths in ([1], [17, 40, 3], [80] * 9):
        ids = ids_of(lengths)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            states = [each.hidden(ids, array(lengths)) for each in (trapped, expected)]
            assert error(*states) <= bound
"""


@pytest.mark.slow
def test_compiled_instructions_compute_what_the_emulation_does(
    compiler: str, tmp_path: Path
) -> None:
    tests = Path(__file__).parent
    trap = tmp_path / "trap.so"
    flags = ["-std=c++17", "-O3", build.TARGET, "-shared", "-fPIC", "-o", str(trap)]
    subprocess.run([compiler, *flags, str(tests / "trapped_tiles.cpp"), "-ldl"], check=True)
    compiled(FOR_TILES)
    path = os.pathsep.join([str(tests), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, "-c", TRAPPED, str(trap)], timeout=300, check=True,
        env={**os.environ, "LD_PRELOAD": str(trap), "PYTHONPATH": path},
    )  # fmt: skip
