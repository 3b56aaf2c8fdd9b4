"""Linear maps of integers, and networks of them."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minibert import BertForSequenceClassification, BertModel, ops
from minibert.config import BertConfig
from minibert.errors import CheckpointError
from minibert.ops import QuantisedLinear
from minibert.quantise import quantise, quantised

CONFIG = BertConfig(
    vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=40, max_position_embeddings=32,
)  # fmt: skip
ROWS = st.lists(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=5, max_size=5), min_size=1, max_size=4
)


def test_eight_bits_of_a_row_worked_by_hand() -> None:
    # From -1 to 4.1 there are 255 steps of 0.02; -1 is the 0th, so 0 is the 50th.
    integers, scale, zero = ops.quantised_rows(torch.tensor([[-1.0, 0.0, 0.03, 4.1]]), 8)
    assert scale.item() == pytest.approx(0.02)
    assert zero.item() == 50
    assert integers.tolist() == [[0.0, 50.0, 52.0, 255.0]]  # 1.5 steps round to the even 2


def test_sixteen_bits_of_a_row_worked_by_hand() -> None:
    integers, scale, zero = ops.quantised_rows(torch.tensor([[-2.0, 0.0, 1.0]]), 16)
    assert integers.tolist() == [[-16383.0, 0.0, 8192.0]]
    assert scale.item() == pytest.approx(2 / 16383)
    assert zero.item() == 0


@pytest.mark.parametrize("bits", [8, 16])
@given(rows=ROWS)
def test_a_row_is_told_to_half_a_step(bits: int, rows: list[list[float]]) -> None:
    x = torch.tensor(rows)
    integers, scale, zero = ops.quantised_rows(x, bits)
    low, high = (0, 255) if bits == 8 else (-16383, 16383)
    assert low <= integers.min()
    assert integers.max() <= high
    assert integers.equal(integers.round())
    # Half a step, and of 8 bits another half where both ends have been rounded outwards.
    steps = 1.01 if bits == 8 else 0.51
    assert ((integers - zero) * scale - x).abs().le(steps * scale + 1e-30).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_row_of_zeros_stays_one(bits: int) -> None:
    linear = quantised(torch.nn.Linear(3, 2), bits)
    assert linear(torch.zeros(1, 3)).equal(linear.bias[None])


@given(
    weight=st.lists(
        st.lists(st.floats(-10, 10, width=32), min_size=7, max_size=7), min_size=1, max_size=3
    )
)
def test_sums_of_sixteen_bit_products_fit_their_register(weight: list[list[float]]) -> None:
    wide = torch.tensor(weight).repeat(1, 40)  # 280 inputs, in three blocks
    integers, scale = ops.quantised_weight(wide, 16)
    blocks = integers.long().abs().split(ops.BLOCK, dim=1)
    assert max(int(block.sum(1).max()) for block in blocks) * 16383 < 2**31
    assert (integers * scale[:, None] - wide).abs().le(0.51 * scale[:, None]).all()


def test_the_widest_sum_of_sixteen_bits_uses_its_register() -> None:
    integers, _ = ops.quantised_weight(torch.ones(1, ops.BLOCK), 16)
    assert int(integers.long().sum()) * 16383 > 0.99 * 2**31


@pytest.mark.parametrize(("dtype", "bound"), [("int8", 0.02), ("int16", 4e-4)])
def test_a_linear_map_of_integers_is_near_its_original(dtype: str, bound: float) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(384, 64)
    x = torch.randn(20, 384)
    got, expected = quantised(linear, {"int8": 8, "int16": 16}[dtype])(x), linear(x)
    error = (got - expected).norm() / expected.norm()
    assert bound / 20 < error < bound


def test_the_maps_of_the_layers_are_replaced_and_nothing_else() -> None:
    model = quantise(BertForSequenceClassification(CONFIG), "int8")
    changed = {name for name, each in model.named_modules() if isinstance(each, QuantisedLinear)}
    parts = ("attention.qkv", "attention.output", "feed_forward.up", "feed_forward.down")
    assert changed == {f"bert.layers.{i}.{part}" for i in range(2) for part in parts}


def test_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got dtype 'int4', expected one of \['int8', 'int16'\]"):
        quantise(BertModel(CONFIG), "int4")


def hidden(model: BertModel) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6]])).last_hidden_state


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_a_network_of_integers_is_saved_and_opened_as_it_is(dtype: str, tmp_path: Path) -> None:
    BertModel(CONFIG).save_pretrained(tmp_path / "float32")
    model = BertModel.from_pretrained(tmp_path / "float32", dtype=dtype)
    model.save_pretrained(tmp_path / "integers")
    opened = BertModel.from_pretrained(tmp_path / "integers")
    assert hidden(opened).equal(hidden(model))
    assert not hidden(opened).equal(hidden(BertModel.from_pretrained(tmp_path / "float32")))
    again = BertModel.from_pretrained(tmp_path / "integers", dtype=dtype)
    assert hidden(again).equal(hidden(model))
    written = json.loads((tmp_path / "integers" / "config.json").read_text())
    assert written["quantization_config"] == {"quant_method": "minibert", "weights": dtype}
    for each in (model, opened, again):
        assert each.load_report is not None
        assert each.load_report.dtype == dtype


def test_integers_become_no_other_dtype(tmp_path: Path) -> None:
    quantise(BertModel(CONFIG), "int8").save_pretrained(tmp_path)
    for dtype in ("int16", "bfloat16"):
        with pytest.raises(CheckpointError, match=f"its weights are int8, got dtype '{dtype}'"):
            BertModel.from_pretrained(tmp_path, dtype=dtype)


def test_integers_without_scales_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    quantise(BertModel(CONFIG), "int8").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name: each for name, each in tensors.items() if not name.endswith("scale")}
    save_file(bare, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="is I8, expected one of"):
        BertModel.from_pretrained(tmp_path)
