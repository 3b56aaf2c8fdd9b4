"""What the machine is, how fast it multiplies matrices, and what a network asks of it."""

from pathlib import Path

import pytest
import torch

from minibert import machine
from minibert.cli.info import module_tree
from minibert.config import BertConfig
from minibert.machine import (
    LIMITS,
    distinct_lengths,
    layer_shapes,
    matrix_flops,
    matrix_rate,
    peak_bytes,
    this_machine,
)

INTEL = """processor\t: 0
model name\t: A Processor @ 2.00GHz
flags\t\t: fpu avx2 avx512f amx_tile made_up

processor\t: 1
model name\t: A Processor @ 2.00GHz
flags\t\t: fpu avx2
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd i8mm\n"


def config(**values: int) -> BertConfig:
    small = {
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 20,
    }
    return BertConfig(**{**small, **values})


def test_flops_of_one_layer_are_those_worked_by_hand() -> None:
    # A token: 2·(12·36 + 12·12 + 12·20 + 20·12) = 2,112. Attention: 4·12 for each pair of tokens.
    one_layer = config(num_hidden_layers=1)
    assert matrix_flops(one_layer, [3]) == 3 * 2112 + 48 * 9
    assert matrix_flops(one_layer, [3, 5]) == 8 * 2112 + 48 * (9 + 25)
    assert matrix_flops(config(), [3, 5]) == 2 * (8 * 2112 + 48 * 34)
    assert matrix_flops(config(), []) == 0


@pytest.mark.parametrize("seq", [1, 7, 64])
def test_flops_are_those_of_the_tree_of_modules(seq: int) -> None:
    tree = module_tree(config(), batch=1, seq=seq, pooler=False, dtype="float32")
    assert matrix_flops(config(), [seq]) == tree[0].flops


def test_equal_texts_are_counted_once_and_long_ones_as_they_are_cut() -> None:
    ids = [[5, 6], [5, 6], [5], [5, 6, 7, 8, 9], [5, 6, 7, 8, 10], []]
    assert sorted(distinct_lengths(ids, 64)) == [2, 3, 4, 7, 7]
    assert sorted(distinct_lengths(ids, 6)) == [2, 3, 4, 6]  # the long ones are equal once cut


@pytest.mark.parametrize("dtype", list(LIMITS))
def test_rate_is_operations_over_the_fastest_pass(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that only products move, by their operations: the rate is then the clock's."""
    now = 0.0

    def way(n_in: int, n_out: int, tokens: int) -> machine.Product:
        assert tokens == machine.PRODUCT_TOKENS

        def product() -> torch.Tensor:
            nonlocal now
            now += 2 * tokens * n_in * n_out / 4e9
            return torch.empty(0)

        return product

    slower = [(lambda *shape: lambda: sleep(), lambda: True)]

    def sleep() -> torch.Tensor:
        nonlocal now
        now += 1.0
        return torch.empty(0)

    monkeypatch.setitem(LIMITS, dtype, (*slower, (way, lambda: True), *slower))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now)
    assert matrix_rate(config(), dtype) == pytest.approx(4e9)


def test_bfloat16x3_takes_three_products_or_one_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"bfloat16": 9e9, "float32": 2e9}
    rate = machine.matrix_rate
    monkeypatch.setattr(machine, "matrix_rate", lambda config, dtype, seconds: rates[dtype])
    assert rate(config(), "bfloat16x3") == 3e9
    rates["float32"] = 4e9
    assert rate(config(), "bfloat16x3") == 4e9


@pytest.mark.parametrize("dtype", list(LIMITS))
def test_every_way_of_multiplying_gives_the_shape_of_the_layer(dtype: str) -> None:
    for way, is_there in LIMITS[dtype]:
        if is_there():
            for n_in, n_out in layer_shapes(config()):
                assert way(n_in, n_out, 16)().shape == (16, n_out)
    assert any(is_there() for _, is_there in LIMITS[dtype]) or dtype == "int8"


def test_rate_of_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got dtype 'int4', expected one of \['float64', "):
        matrix_rate(config(), "int4")


def test_rate_that_this_build_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = tuple((way, lambda: False) for way, _ in LIMITS["int8"])
    monkeypatch.setitem(LIMITS, "int8", ways)
    with pytest.raises(ValueError, match="no matrix products of int8 on a CPU"):
        matrix_rate(config(), "int8")


@pytest.mark.parametrize(
    ("text", "cpu", "units"),
    [
        (INTEL, "A Processor @ 2.00GHz", ("avx2", "avx512f", "amx_tile")),
        (ARM, None, ("asimd", "i8mm")),
    ],
)
def test_machine_is_what_its_first_core_says(
    text: str, cpu: str | None, units: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    found = this_machine(tmp_path / "cpuinfo")
    assert found.units == units
    assert found.cpu == cpu if cpu else found.cpu  # what the system says where the file does not
    assert " ".join(units) in str(found)


def test_machine_without_a_list_of_units_has_a_name() -> None:
    found = this_machine("/no/such/file")
    assert found.cpu
    assert found.n_cores >= 1
    assert str(found).endswith("units unknown")


def test_peak_is_in_bytes_and_never_falls() -> None:
    before = peak_bytes()
    held = torch.ones(32 << 20, dtype=torch.uint8)
    after = peak_bytes()
    del held
    assert 20 << 20 < before <= after == peak_bytes() < 1 << 40
