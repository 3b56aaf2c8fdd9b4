"""Each kernel beside its twin in `ops.py`, and as an operation of torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from minibert import BertModel, ops
from minibert.config import BertConfig
from minibert.engine import Engine, load_kernels
from minibert.kernels import operations
from minibert.kernels.panels import Panels, packed
from minibert.layout import Packed
from minibert.quantise import quantised

SIZES = st.integers(1, 300)
SEEDS = st.integers(0, 2**16)


@pytest.fixture(scope="module", autouse=True)
def library() -> None:
    operations.use(load_kernels())


def packed_of(linear: nn.Linear | ops.QuantisedLinear) -> Panels:
    library = load_kernels()
    scale = linear.scale if isinstance(linear, ops.QuantisedLinear) else None
    return packed(library, linear.weight, linear.bias, scale)


def by_kernel(linear: nn.Linear | ops.QuantisedLinear, x: Tensor) -> Tensor:
    outputs = linear.weight.shape[0]
    return torch.ops.minibert.linear(x, *packed_of(linear), outputs)


def exactly(linear: nn.Linear | ops.QuantisedLinear, x: Tensor) -> Tensor:
    """In float64: of integers the quantised numbers are the twin's, and their sums exact."""
    if isinstance(linear, ops.QuantisedLinear):
        integers, scale, zero = (each.double() for each in ops.quantised_rows(x, linear.bits))
        sums = (integers - zero) @ linear.weight.double().T
        return sums * scale * linear.scale.double() + linear.bias.double()
    return x.double() @ linear.weight.double().T + linear.bias.double()


@pytest.mark.parametrize("bits", [32, 16, 8])
@given(inputs=SIZES, outputs=SIZES, rows=st.integers(1, 130), seed=SEEDS)
def test_a_linear_map_is_its_twin(
    bits: int, inputs: int, outputs: int, rows: int, seed: int
) -> None:
    torch.manual_seed(seed)
    linear: nn.Linear | ops.QuantisedLinear = nn.Linear(inputs, outputs)
    x = torch.randn(rows, inputs) * 10 ** torch.empty(rows, 1).uniform_(-3, 3)
    if bits < 32:
        linear = quantised(linear, bits)
    with torch.no_grad():
        got, twin, expected = by_kernel(linear, x), linear(x), exactly(linear, x)
    # As far as float32 goes, for a sum of products of these sizes.
    room = 1e-6 * (x.double().norm(dim=1, keepdim=True) * inputs**0.5 + 1)
    assert ((got - expected).abs() <= room).all()
    assert ((twin - expected).abs() <= room).all()


@pytest.mark.parametrize("bits", [16, 8])
def test_the_largest_integers_do_not_overflow(bits: int) -> None:
    """Every product as large as it can be, of one sign: 2^31 is not reached."""
    inputs = 1536
    linear = nn.Linear(inputs, 50)
    with torch.no_grad():
        linear.weight.fill_(1.0)
        linear.weight[1] = -1.0
    x = torch.full((9, inputs), 5.0)
    integers = quantised(linear, bits)
    torch.testing.assert_close(by_kernel(integers, x), exactly(integers, x).float())


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    heads=st.integers(1, 4),
    dim=st.integers(1, 70),
    seed=SEEDS,
)
def test_attention_is_its_twin(lengths: list[int], heads: int, dim: int, seed: int) -> None:
    torch.manual_seed(seed)
    q, k, v = (torch.randn(sum(lengths), heads, dim) * 2 for _ in range(3))
    got = torch.ops.minibert.attention(q, k, v, torch.tensor(lengths, dtype=torch.int32))
    layout = Packed.from_lengths(lengths)
    expected = ops.attention(q.double(), k.double(), v.double(), layout)
    # A score of s is rounded by s times a float's last place, and so are its exponential and all.
    largest = max(
        float((a.transpose(0, 1) @ b.permute(1, 2, 0)).abs().max()) / dim**0.5
        for a, b in zip(q.split(lengths), k.split(lengths), strict=True)
    )
    room = 4e-7 * (largest + 1) * float(v.abs().max())
    assert float((got - expected).abs().max()) <= room
    assert float((ops.attention(q, k, v, layout) - expected).abs().max()) <= room


@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=4),
    heads=st.integers(1, 3),
    dim=st.integers(1, 70),
    size=st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    seed=SEEDS,
)
def test_integer_attention_is_its_twin(
    lengths: list[int], heads: int, dim: int, size: float, seed: int
) -> None:
    torch.manual_seed(seed)
    q, k, v = (torch.randn(sum(lengths), heads, dim) for _ in range(3))
    q *= size
    k *= 10 ** torch.empty(dim).uniform_(-2, 0)  # some columns are large, as in real networks
    layout = Packed.from_lengths(lengths)
    of_lengths = torch.tensor(lengths, dtype=torch.int32)
    got = torch.ops.minibert.attention(q, k, v, of_lengths, 16)
    twin = ops.integer_attention(q, k, v, layout)
    exact = ops.attention(q.double(), k.double(), v.double(), layout)
    # What a step of an integer moves: a score, if it does so in all columns; a value; a share.
    largest = (q * k.abs().amax(dim=0)).abs().max() * dim**0.5
    room = float(v.abs().max() * (largest * 2**-14 + 2**-11))
    assert float((got - twin).abs().max()) <= room
    assert float((got - exact).abs().max()) <= room


def test_integer_attention_does_not_overflow() -> None:
    """Every score as large as it can be, and every share, of one sign."""
    for dim in (1, 32, 64, 70):
        q, v = torch.full((200, 1, dim), 7.0), torch.full((200, 1, dim), -3.0)
        lengths = torch.tensor([200], dtype=torch.int32)
        for k in (q, -q):
            torch.testing.assert_close(torch.ops.minibert.attention(q, k, v, lengths, 16), v)


@given(rows=st.integers(1, 5), width=st.integers(2, 200), seed=SEEDS)
def test_a_norm_is_its_twin(rows: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, y = torch.randn(rows, width) * 3 + 1, torch.randn(rows, width)
    weight, bias = torch.randn(width), torch.randn(width)
    got = torch.ops.minibert.add_norm(x, y, weight, bias, 1e-12)
    twin = ops.add_norm((x, y), weight, bias, 1e-12)
    expected = ops.add_norm((x.double(), y.double()), weight.double(), bias.double(), 1e-12)
    room = {"rtol": 1e-4, "atol": 1e-4}  # two numbers that are all but one have no more
    torch.testing.assert_close(got, expected.float(), **room)
    torch.testing.assert_close(twin, got, **room)


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "relu"])
def test_activations_are_their_twins(name: str) -> None:
    """By a network whose linear maps change nothing: what comes out is the activation."""
    values = torch.linspace(-12, 12, 64)
    config = BertConfig(
        vocab_size=2, hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=1, hidden_act=name,
    )  # fmt: skip
    model = BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        layer = model.layers[0]
        layer.attention_norm.bias.copy_(values)  # all that there is behind attention
        layer.feed_forward.up.weight.copy_(torch.eye(64))
        layer.feed_forward.down.weight.copy_(torch.eye(64))
        layer.feed_forward.down.bias.copy_(-values)  # the norm's input is then the activation
        layer.feed_forward_norm.weight.fill_(1.0)
        expected = model(torch.tensor([[1]])).last_hidden_state[0]
        one = np.ones(1, dtype=np.int32)
        got = Engine(model).hidden(one, one)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


class Small(nn.Module):
    """All operations, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        linear = nn.Linear(24, 24)
        for name, tensor in zip(Panels._fields, packed_of(linear), strict=True):
            self.register_buffer(name, tensor)
        self.norm = nn.LayerNorm(24)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        panels = (self.weights, self.bias, self.scale, self.sums)
        y = torch.ops.minibert.linear(x, *panels, 24)
        q = y.unflatten(1, (3, 8))
        context = torch.ops.minibert.attention(q, q, q, lengths).flatten(1)
        norm = self.norm
        return torch.ops.minibert.add_norm(x, context, norm.weight, norm.bias, norm.eps)


def test_a_network_of_the_operations_is_exported() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(7, 24), torch.tensor([3, 4], dtype=torch.int32)
    small = Small().eval()
    tokens = torch.export.Dim("tokens", min=2)
    with torch.no_grad():
        program = torch.export.export(small, inputs, dynamic_shapes=({0: tokens}, None))
        assert "minibert.attention" in str(program.graph)
        more = torch.randn(12, 24), torch.tensor([5, 7], dtype=torch.int32)
        assert program.module()(*more).equal(small(*more))


def test_operations_are_registered_as_torch_wants_them() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 24)
    lengths = torch.tensor([2, 3], dtype=torch.int32)
    q = x.unflatten(1, (3, 8))
    checks = ("test_schema", "test_faketensor")
    panels = packed_of(nn.Linear(24, 30))
    torch.library.opcheck(torch.ops.minibert.linear.default, (x, *panels, 30), test_utils=checks)
    torch.library.opcheck(
        torch.ops.minibert.attention.default, (q, q, q, lengths), test_utils=checks
    )
    ones = torch.ones(24)
    torch.library.opcheck(
        torch.ops.minibert.add_norm.default, (x, x, ones, ones, 1e-12), test_utils=checks
    )
