"""Each kernel for GPUs beside its twin, forward and backward, and as an operation of torch."""

import math
from collections.abc import Callable, Iterable, Sequence

import pytest
import torch
import torch.nn.functional as F
from gpu import DEVICE, mend_interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from minibert import ops, pooling
from minibert.kernels.gpu import attention, gelu, norm, shapes
from minibert.kernels.gpu.adamw import adamw_
from minibert.kernels.gpu.attention import blocks_of
from minibert.kernels.gpu.pool import pool
from minibert.layout import Packed
from minibert.training.optim import AdamW, ParameterGroup

mend_interpreter()

SEEDS = st.integers(0, 2**16)
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:]
)
FEW = settings(max_examples=6)  # the interpreter takes a tenth of a second for each

# Sums of so many numbers, all of about 1, and what a number rounded once or twice is off by.
ROOM = {
    torch.float64: 1e-13,
    torch.float32: 4e-6,
    torch.bfloat16: 2e-2,
    torch.float16: 2e-3,
}


def numbers(*shape: int, dtype: torch.dtype) -> Tensor:
    """Random ones that may have a gradient."""
    made = torch.randn(*shape, dtype=torch.float64).to(dtype)
    return made.to(DEVICE).requires_grad_()


def exact(*tensors: Tensor) -> list[Tensor]:
    """The same numbers in float64, on the CPU, to be differentiated anew."""
    return [each.detach().cpu().double().requires_grad_() for each in tensors]


def assert_agree(got: Iterable[Tensor], expected: Iterable[Tensor], room: float) -> None:
    """Each to so much, of the largest number expected if that is above 1."""
    for one, other in zip(got, expected, strict=True):
        difference = (one.detach().cpu().double() - other).abs().max()
        assert difference <= room * other.abs().max().clamp(min=1)


def assert_gradients_agree(
    out: Tensor, inputs: Sequence[Tensor], twin: Tensor, twins: Sequence[Tensor], room: float
) -> None:
    """Of a random sum of the outputs."""
    weights = torch.randn(out.shape, device="cpu").to(out)
    got = torch.autograd.grad(out, inputs, weights)
    expected = torch.autograd.grad(twin, twins, weights.cpu().double())
    assert [each.dtype for each in got] == [each.dtype for each in inputs]
    assert_agree(got, expected, room)


LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=4)


@DTYPES
@FEW
@given(
    lengths=LENGTHS | st.just([70, 3]) | st.just([1]),
    heads=st.integers(1, 2),
    dim=st.sampled_from([16, 32, 48, 128]) | st.integers(1, 80),
    seed=SEEDS,
)
def test_attention_is_its_twin(
    dtype: torch.dtype, lengths: list[int], heads: int, dim: int, seed: int
) -> None:
    torch.manual_seed(seed)
    qkv = numbers(sum(lengths), 3, heads, dim, dtype=dtype)
    out, log_sums = attention.attention(*qkv.unbind(1), *blocks_of(lengths, qkv))
    (twins,) = exact(qkv)
    layout = Packed.from_lengths(lengths)
    twin = ops.attention(*twins.unbind(1), layout)
    assert_agree([out], [twin], ROOM[dtype])
    assert_gradients_agree(out, [qkv], twin, [twins], 2 * ROOM[dtype])
    q, k, _ = (each.transpose(0, 1) for each in twins.unbind(1))  # heads before tokens
    scores = (q @ k.mT / math.sqrt(dim)).masked_fill(~layout.visible(), -math.inf)
    assert_agree([log_sums * math.log(2)], [scores.logsumexp(-1)], 2 * ROOM[dtype])


@DTYPES
@settings(max_examples=3)
@given(lengths=LENGTHS | st.just([70, 3]), seed=SEEDS)
def test_one_token_of_each_sequence_may_ask(
    dtype: torch.dtype, lengths: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    q = numbers(len(lengths), 2, 16, dtype=dtype)
    kv = numbers(sum(lengths), 2, 2, 16, dtype=dtype)
    out, _ = attention.attention(q, *kv.unbind(1), *blocks_of(lengths, q, asking=True))
    twins = exact(q, kv)
    twin = ops.attention(twins[0], *twins[1].unbind(1), Packed.from_lengths(lengths))
    assert_agree([out], [twin], ROOM[dtype])
    assert_gradients_agree(out, [q, kv], twin, twins, 2 * ROOM[dtype])


def test_attention_survives_large_scores() -> None:
    """No exponential overflows, and none of a row are all 0."""
    q = torch.tensor([[300.0], [-300.0], [0.0]], device=DEVICE).view(3, 1, 1).expand(3, 1, 16)
    out, log_sums = attention.attention(q, q, q, *blocks_of([3], q))
    torch.testing.assert_close(out, torch.stack([q[0], q[1], q.mean(0)]), atol=1e-4, rtol=0)
    assert log_sums.isfinite().all()


def test_gradients_survive_scores_that_are_all_far_below_zero() -> None:
    q = torch.full((3, 1, 16), 30.0, device=DEVICE, requires_grad=True)
    v = torch.arange(48.0, device=DEVICE).view(3, 1, 16).requires_grad_()
    out, _ = attention.attention(q, -q, v, *blocks_of([3], q))
    of_q, of_v = torch.autograd.grad(out.sum(), [q, v])
    # The logarithm of the sum is -5194, known to a 2000th: so much are probabilities off.
    torch.testing.assert_close(of_v, torch.ones_like(v), atol=1e-3, rtol=0)
    # As keys: values add up to 120, 376 and 632, so of each score it is -256/3, 0 or 256/3.
    by_hand = torch.tensor([1920.0, 0.0, -1920.0], device=DEVICE).view(3, 1, 1).expand(3, 1, 16)
    torch.testing.assert_close(of_q, by_hand, atol=4, rtol=0)


def test_gradients_of_attention_are_the_same_each_time() -> None:
    torch.manual_seed(0)
    qkv = numbers(60, 3, 2, 32, dtype=torch.float32)
    blocks = blocks_of([40, 17, 3], qkv)
    first, second = (
        torch.autograd.grad(attention.attention(*qkv.unbind(1), *blocks)[0].sin().sum(), qkv)[0]
        for _ in range(2)
    )
    assert first.equal(second)


def test_blocks_of_sequences_have_the_rows_worked_out_by_hand() -> None:
    like = torch.empty(1, 32)
    blocks = blocks_of([3, 130, 1], like)
    assert (blocks.n_queries, blocks.n_keys) == (64, 64)
    assert blocks.queries is blocks.keys
    assert blocks.queries.tolist() == [
        [0, 3, 0, 3], [3, 133, 3, 133], [67, 133, 3, 133], [131, 133, 3, 133], [133, 134, 133, 134],
    ]  # fmt: skip
    asking = blocks_of([3, 20], like, asking=True)
    assert (asking.n_queries, asking.n_keys) == (16, 32)
    assert asking.queries.tolist() == [[0, 1, 0, 3], [1, 2, 3, 23]]
    assert asking.keys.tolist() == [[0, 3, 0, 1], [3, 23, 1, 2]]


@pytest.mark.parametrize(
    ("dim", "dtype", "tokens"),
    [(64, torch.bfloat16, 64), (80, torch.bfloat16, 32), (64, torch.float32, 32),
     (128, torch.float32, 16), (8, torch.float32, 64)],
)  # fmt: skip
def test_blocks_of_wide_heads_have_fewer_tokens(dim: int, dtype: torch.dtype, tokens: int) -> None:
    assert blocks_of([512], torch.empty(1, dim, dtype=dtype)).n_queries == tokens


def test_wider_heads_are_refused() -> None:
    q = torch.zeros(3, 1, 144, device=DEVICE)
    with pytest.raises(ValueError, match="got heads of 144, expected at most 128"):
        attention.attention(q, q, q, *blocks_of([3], q))


@DTYPES
@FEW
@given(rows=st.integers(1, 40), width=st.integers(2, 200), seed=SEEDS)
def test_a_norm_of_two_terms_is_its_twin(
    dtype: torch.dtype, rows: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    x, y = (numbers(rows, width, dtype=dtype) for _ in range(2))
    weight, bias = (numbers(width, dtype=dtype) for _ in range(2))
    out, _, _ = norm.add_norm(x, y, weight, bias, 1e-3)
    twins = exact(x, y, weight, bias)
    twin = ops.add_norm(twins[:2], *twins[2:], 1e-3)
    assert_agree([out], [twin], ROOM[dtype])
    assert_gradients_agree(out, [x, y, weight, bias], twin, twins, 10 * ROOM[dtype])


def test_terms_and_weights_may_differ_in_dtype() -> None:
    """As under autocast: the result is the weight's, and each gradient that of its tensor."""
    torch.manual_seed(0)
    x, y = numbers(2, 5, 24, dtype=torch.float32), numbers(2, 5, 24, dtype=torch.bfloat16)
    weight, bias = (numbers(24, dtype=torch.float32) for _ in range(2))
    out, _, _ = norm.add_norm(x, y, weight, bias, 1e-12)
    twins = exact(x, y, weight, bias)
    twin = ops.add_norm(twins[:2], *twins[2:], 1e-12)
    assert out.dtype == torch.float32
    assert_agree([out], [twin], ROOM[torch.float32])
    assert_gradients_agree(out, [x, y, weight, bias], twin, twins, ROOM[torch.bfloat16])


def test_gradients_of_many_rows_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one tile for each program that adds up."""
    monkeypatch.setattr(shapes, "PARTS", 2)
    torch.manual_seed(0)
    x, y = (numbers(70, 256, dtype=torch.float32) for _ in range(2))
    weight, bias = (numbers(256, dtype=torch.float32) for _ in range(2))
    twins = exact(x, y, weight, bias)
    twin = ops.add_norm(twins[:2], *twins[2:], 1e-12)
    out, _, _ = norm.add_norm(x, y, weight, bias, 1e-12)
    assert_gradients_agree(out, [x, y, weight, bias], twin, twins, ROOM[torch.float32])
    twin = ops.bias_gelu(twins[0], twins[3], "gelu")
    out = gelu.bias_gelu(x, bias, False)
    assert_gradients_agree(out, [x, bias], twin, [twins[0], twins[3]], ROOM[torch.float32])


@DTYPES
@FEW
@given(tokens=st.integers(1, 20), width=st.integers(2, 100), seed=SEEDS)
def test_embeddings_are_their_twins(dtype: torch.dtype, tokens: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    sizes = (7, 2, 20)
    rows = [torch.randint(size, (tokens,), device=DEVICE) for size in sizes]
    tables = [numbers(size, width, dtype=dtype) for size in sizes]
    weight, bias = (numbers(width, dtype=dtype) for _ in range(2))
    out, _, _ = norm.embed_norm(*rows, *tables, weight, bias, 1e-3)
    twins = exact(*tables, weight, bias)
    terms = [F.embedding(row.cpu(), table) for row, table in zip(rows, twins[:3], strict=True)]
    twin = ops.add_norm(terms, *twins[3:], 1e-3)
    assert_agree([out], [twin], ROOM[dtype])
    assert_gradients_agree(out, [*tables, weight, bias], twin, twins, 10 * ROOM[dtype])


@DTYPES
@pytest.mark.parametrize("name", ["gelu", "gelu_new"])
@FEW
@given(rows=st.integers(1, 20), width=st.integers(1, 300), seed=SEEDS)
def test_gelu_of_a_sum_is_its_twin(
    dtype: torch.dtype, name: str, rows: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    x, bias = numbers(rows, width, dtype=dtype), numbers(width, dtype=dtype)
    twins = exact(x, bias)
    twin = ops.bias_gelu(*twins, name)
    out = gelu.bias_gelu(x, bias, name != "gelu")
    assert_agree([out], [twin], ROOM[dtype])
    assert_gradients_agree(out, [x, bias], twin, twins, ROOM[dtype])


@pytest.mark.parametrize("tanh", [False, True])
def test_gelu_of_large_numbers_is_the_number_or_zero(tanh: bool) -> None:
    x = torch.tensor([[-1e4, 1e4]], device=DEVICE, requires_grad=True)
    out = gelu.bias_gelu(x, torch.zeros(2, device=DEVICE), tanh)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert out.tolist() == [[0.0, 1e4]]
    assert gradient.tolist() == [[0.0, 1.0]]


@DTYPES
@pytest.mark.parametrize("normalised", [False, True])
@FEW
@given(lengths=LENGTHS, width=st.integers(1, 200), seed=SEEDS, data=st.data())
def test_a_pooled_sequence_is_its_twin(
    dtype: torch.dtype, normalised: bool, lengths: list[int], width: int, seed: int,
    data: st.DataObject,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    hidden = numbers(sum(lengths), width, dtype=dtype).detach()
    skips = [data.draw(st.integers(0, length - 1)) for length in lengths]
    starts = Packed.from_lengths(lengths, DEVICE).cu_seqlens
    left_out = torch.tensor(skips, dtype=torch.int32, device=DEVICE)
    got = pool(hidden, starts, left_out, normalised, pooling.NORM_EPS)
    pieces = zip(hidden.cpu().double().split(lengths), skips, strict=True)
    twin = pooling.pool(
        torch.cat([piece[skip:] for piece, skip in pieces]),
        Packed.from_lengths([n - skip for n, skip in zip(lengths, skips, strict=True)]),
    )
    twin = pooling.normalise(twin) if normalised else twin
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    assert_agree([got], [twin], 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("bias_correction", [True, False])
@FEW
@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=3),
    decay=st.sampled_from([0.0, 0.1]),
    seed=SEEDS,
)
def test_a_step_of_adamw_is_its_twin(
    dtype: torch.dtype, bias_correction: bool, sizes: list[int], decay: float, seed: int
) -> None:
    torch.manual_seed(seed)
    values = [numbers(3, size, dtype=dtype).detach() for size in sizes]
    parameters = tuple(nn.Parameter(each.cpu().clone()) for each in values)
    names = tuple(map(str, range(len(sizes))))
    twin = AdamW([ParameterGroup(names, parameters, 1e-2, decay)], bias_correction=bias_correction)
    moments = [[torch.zeros_like(each, dtype=torch.float32) for each in values] for _ in range(2)]
    for step in (1, 2, 3):
        gradients = [numbers(3, size, dtype=dtype).detach() for size in sizes]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.cpu()
        twin.step()
        adamw_(values, gradients, *moments, step, 1e-2, 0.9, 0.999, 1e-8, decay, bias_correction)
    state = twin.state_dict()
    for name, *got in zip(names, *moments, strict=True):
        assert_agree(got, [state[f"mean.{name}"], state[f"square.{name}"]], 1e-6)
    # A value between two numbers of half precision may be rounded to either.
    assert_agree(values, [each.detach().double() for each in parameters], 2 * ROOM[dtype])


class Small(nn.Module):
    """All that a network is made of, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ParameterList(torch.randn(9, 24) for _ in range(3))
        self.weight, self.bias = nn.Parameter(torch.randn(24)), nn.Parameter(torch.randn(24))

    def forward(self, ids: Tensor, queries: Tensor, starts: Tensor) -> Tensor:
        x, _, _ = norm.embed_norm(ids, ids, ids, *self.tables, self.weight, self.bias, 1e-12)
        q = x.unflatten(1, (3, 8))
        context, _ = attention.attention(q, q, q, queries, queries, 16, 16)
        y = gelu.bias_gelu(context.flatten(1), self.bias, False)
        hidden, _, _ = norm.add_norm(x, y, self.weight, self.bias, 1e-12)
        return pool(hidden, starts, starts[1:] * 0, True, pooling.NORM_EPS)


def inputs_of(lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    blocks = blocks_of(lengths, torch.empty(1, 8, device=DEVICE))
    layout = Packed.from_lengths(lengths, DEVICE)
    return torch.arange(sum(lengths), device=DEVICE) % 9, blocks.queries, layout.cu_seqlens


def test_a_network_of_the_operations_is_exported() -> None:
    torch.manual_seed(0)
    small = Small().to(DEVICE).eval()
    tokens, programs = torch.export.Dim("tokens", min=2), torch.export.Dim("programs", min=2)
    shapes = ({0: tokens}, {0: programs}, {0: programs + 1})
    with torch.no_grad():
        program = torch.export.export(small, inputs_of([3, 4]), dynamic_shapes=shapes)
        assert "minibert_gpu.attention" in str(program.graph)
        more = inputs_of([5, 7, 2])
        assert program.module()(*more).equal(small(*more))


def test_a_network_of_the_operations_is_compiled_with_its_gradient() -> None:
    def loss(small: Small, x: Tensor, queries: Tensor) -> Tensor:
        q = x.unflatten(1, (3, 8))
        context, _ = attention.attention(q, q, q, queries, queries, 16, 16)
        y = gelu.bias_gelu(context.flatten(1), small.bias, True)
        return norm.add_norm(x, y, small.weight, small.bias, 1e-12)[0].sin().sum()

    torch.manual_seed(0)
    small, (ids, queries, _) = Small().to(DEVICE), inputs_of([3, 4])
    x = small.tables[0][ids].detach().requires_grad_()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(small, x, queries), [x, small.bias])
    expected = torch.autograd.grad(loss(small, x, queries), [x, small.bias])
    torch.testing.assert_close(got, expected)


Call = tuple[Callable[..., object], tuple[object, ...]]


def calls() -> list[Call]:
    """Each operation with its arguments."""
    torch.manual_seed(0)
    x, y = (numbers(5, 24, dtype=torch.float32) for _ in range(2))
    weight, bias = (numbers(24, dtype=torch.float32) for _ in range(2))
    q = numbers(5, 3, 8, dtype=torch.float32)
    ids, _, starts = inputs_of([2, 3])
    tables = [numbers(9, 24, dtype=torch.float32) for _ in range(3)]
    plain = [torch.ones(5, 24, device=DEVICE) for _ in range(4)]
    return [
        (attention.attention, (q, q, q, *blocks_of([2, 3], q))),
        (norm.add_norm, (x, y, weight, bias, 1e-3)),
        (norm.embed_norm, (ids, ids, ids, *tables, weight, bias, 1e-3)),
        (gelu.bias_gelu, (x, bias, False)),
        (pool, (x.detach(), starts, starts[1:] * 0, True, 1e-12)),
        (adamw_, (*([each] for each in plain), 1, 1e-2, 0.9, 0.999, 1e-8, 0.0, True)),
    ]


@pytest.mark.parametrize("call", calls(), ids=lambda call: call[0]._opoverload.name())
def test_operations_are_registered_as_torch_wants_them(call: Call) -> None:
    operation, arguments = call
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operation, arguments, test_utils=checks)
