"""Each kernel of training beside its twin, forward and backward, and as an operation of torch."""

import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processors import TARGETS, target_of
from torch import Tensor

from minibert import ops
from minibert.engine import load_kernels
from minibert.kernels import build, operations
from minibert.kernels import training_operations as kernels
from minibert.weights import cache_folder

SEEDS = st.integers(0, 2**62)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
SHARES = st.sampled_from([0, 1, 6554, 40000, 65535])  # of 65,536


@pytest.fixture(scope="module", autouse=True)
def library() -> None:
    operations.use(load_kernels())


def gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], back: Tensor, *more: object
) -> tuple[Tensor, ...]:
    """What a function gives for inputs, and what comes back to each of them."""
    given = [each.detach().clone().requires_grad_() for each in inputs]
    out = function(*given, *more)
    return out.detach(), *torch.autograd.grad(out, given, back.to(out.dtype))


def assert_near(got: Tensor, exact: Tensor, *, room: Tensor | float = 0.0) -> None:
    """Rounded once to its dtype, and what else there is room for."""
    rounding = exact.abs() * torch.finfo(got.dtype).eps * 0.51
    assert ((got.double() - exact).abs() <= rounding + room).all()


# ---- linear maps


def error_of_products(left: Tensor, right: Tensor) -> Tensor:
    """The most that left · rightᵀ may be off, `(rows, outputs)`, for the rounding of integers."""
    inputs = left.shape[1]
    padded = torch.nn.functional.pad(right.abs(), (0, -inputs % 128)).view(len(right), -1, 128)
    largest_sum = (2**31 - 1) / 16383 - 128
    step = torch.maximum(
        padded.sum(dim=2).amax(dim=1, keepdim=True) / largest_sum,
        right.abs().amax(dim=1, keepdim=True) / 32767,
    )
    of_left = left.abs().amax(dim=1, keepdim=True) / 16383 / 2
    of_right = step / 2
    sums = left.abs() @ right.abs().T
    ours = of_left * right.abs().sum(dim=1)[None] + left.abs().sum(dim=1, keepdim=True) * of_right.T
    return 1.01 * (ours + of_left * of_right.T * inputs) + 1e-6 * sums


@settings(max_examples=20)
@given(
    rows=st.integers(1, 200), inputs=st.integers(1, 300), outputs=st.integers(1, 200),
    has_bias=st.booleans(), seed=SEEDS,
)  # fmt: skip
def test_products_err_by_the_rounding_of_integers_forward_and_backward(
    rows: int, inputs: int, outputs: int, has_bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    x = (torch.randn(rows, inputs) * 10 ** torch.empty(rows, 1).uniform_(-3, 3)).bfloat16()
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs) if has_bias else None
    back = torch.randn(rows, outputs).bfloat16()
    given = [x, weight, *([] if bias is None else [bias])]
    out, *found = gradients(
        lambda *inputs: kernels.products(*inputs, *([] if has_bias else [None])), given, back
    )
    wide_x, wide, wide_back = x.double(), weight.double(), back.double()
    exact = wide_x @ wide.T + (0.0 if bias is None else bias.double())
    assert_near(out, exact, room=error_of_products(wide_x, wide))
    assert_near(found[0], wide_back @ wide, room=error_of_products(wide_back, wide.T))
    assert_near(found[1], wide_back.T @ wide_x, room=error_of_products(wide_back.T, wide_x.T))
    if has_bias:
        assert_near(found[2], wide_back.sum(0), room=1e-5 * wide_back.abs().sum(0))


def test_products_are_nearer_than_those_of_rounded_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_has_bfloat16_units", lambda: False)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(300, 384).bfloat16(), torch.randn(500, 384), torch.randn(500)
    exact = x.double() @ weight.double().T + bias.double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        twin = ops.linear(x, weight, bias)
    errors = [(each.double() - exact).norm() for each in (kernels.products(x, weight, bias), twin)]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none(value: float) -> None:
    """In a product, forward and backward, and in attention: the loop looks at the loss for it."""
    torch.manual_seed(0)
    x, weight, back = torch.randn(5, 40).bfloat16(), torch.randn(60, 40), torch.randn(5, 60)
    for broken in range(3):
        tensors = [each.clone() for each in (x, weight, back.bfloat16())]
        tensors[broken][2, 7] = value
        out, to_x, to_weight = gradients(
            lambda x, weight: kernels.products(x, weight, None), tensors[:2], tensors[2]
        )
        rows = out if broken == 0 else out.T if broken == 1 else to_x
        assert rows[2].isnan().all()
        assert to_weight.isnan().any() == (broken != 1)
    lengths = torch.tensor([3], dtype=torch.int32)
    for broken in range(3):
        heads = list(torch.randn(3, 3, 1, 8).unbind())
        heads[broken][1, 0, 2] = value
        context, _ = kernels.packed_attention(*heads, lengths, 0, 0)
        assert not context.isfinite().all()


@pytest.mark.parametrize(
    "needed", [(True, False, False), (False, True, False), (False, False, True)]
)
def test_products_compute_the_gradients_that_are_needed(needed: tuple[bool, ...]) -> None:
    tensors = [torch.randn(4, 8).bfloat16(), torch.randn(5, 8), torch.randn(5)]
    for tensor, wanted in zip(tensors, needed, strict=True):
        tensor.requires_grad_(wanted)
    kernels.products(*tensors).sum().backward()
    assert [each.grad is not None for each in tensors] == list(needed)


def test_products_of_no_rows_are_none() -> None:
    x, weight, bias = torch.zeros(0, 8).bfloat16(), torch.randn(5, 8), torch.randn(5)
    out, to_x, to_weight, to_bias = gradients(
        kernels.products, (x, weight, bias), torch.zeros(0, 5)
    )
    assert (out.shape, to_x.shape) == ((0, 5), (0, 8))
    assert not to_weight.any()
    assert not to_bias.any()


# ---- attention


@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=5),
    heads=st.integers(1, 3),
    dim=st.integers(1, 70),
    only_first=st.booleans(),
    n_dropped=SHARES.filter(lambda n: n < 65535),
    seed=SEEDS,
    dtype=DTYPES,
)
def test_attention_is_its_twin_forward_and_backward(
    lengths: list[int],
    heads: int,
    dim: int,
    only_first: bool,
    n_dropped: int,
    seed: int,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(seed)
    queries = len(lengths) if only_first else sum(lengths)
    q, back = torch.randn(2, queries, heads, dim).to(dtype).unbind()
    # Not each by itself in memory, as a network has them.
    k, v = torch.randn(sum(lengths), 2, heads, dim).to(dtype).unbind(1)
    found = gradients(
        lambda q, k, v: kernels.packed_attention(
            q, k, v, torch.tensor(lengths, dtype=torch.int32), n_dropped, seed
        )[0],
        (q, k, v),
        back,
    )
    exact = gradients(
        lambda q, k, v: ops.attention_of_seed(q, k, v, lengths, n_dropped, seed),
        [each.double() for each in (q, k, v)],
        back.double(),
    )
    for got, expected in zip(found, exact, strict=True):
        assert got.dtype == dtype
        assert_near(got, expected, room=4e-6 * (1 + float(expected.abs().max())))


def test_attention_of_seed_without_dropout_is_attention() -> None:
    from minibert.layout import Packed

    torch.manual_seed(0)
    lengths = [3, 1, 7]
    q, k, v = torch.randn(3, 11, 2, 8, dtype=torch.float64).unbind()
    layout = Packed.from_lengths(lengths)
    for asking in (q, layout.first(q)):
        torch.testing.assert_close(
            ops.attention_of_seed(asking, k, v, lengths, 0, 0),
            ops.attention(asking, k, v, layout),
        )


# ---- value by value


@given(shape=st.sampled_from([(1,), (7,), (3, 40), (2, 3, 5), (40000,)]), n_dropped=SHARES,
       seed=SEEDS, dtype=DTYPES)  # fmt: skip
def test_dropout_is_its_twin_to_the_last_bit(
    shape: tuple[int, ...], n_dropped: int, seed: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    x, back = torch.randn(2, *shape).to(dtype).unbind()
    found = gradients(kernels.dropout, [x], back, n_dropped, seed)
    for got, each in zip(found, (x, back), strict=True):
        assert torch.equal(got, ops.dropout_of_seed(each.float(), n_dropped, seed).to(dtype))


@pytest.mark.parametrize("seed", [0, 1, 2**40, 2**62 - 1])
def test_dropout_of_a_seed_drops_its_share_independently(seed: int) -> None:
    n = 1 << 20
    gone = (ops.dropout_of_seed(torch.ones(n), 6554, seed) == 0).double()
    # The nearest that two draws of 63 bits ever come.
    other = (ops.dropout_of_seed(torch.ones(n), 6554, seed ^ 2**33) == 0).double()
    spread = (0.1 * 0.9 / n) ** 0.5
    assert abs(gone.mean() - 6554 / 65536) <= 5 * spread
    # Neither its neighbours nor what another seed drops tell what is dropped.
    pairs = [(gone[shift:], gone[:-shift]) for shift in (1, 2, 16, 384, 1 << 16)]
    pairs += [(gone, other), (gone[1:], other[:-1]), (gone[:-1], other[1:])]
    for a, b in pairs:
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) <= 5 / len(a) ** 0.5


@given(n=st.integers(1, 300), scale=st.floats(0.01, 20), seed=SEEDS, dtype=DTYPES)
def test_gelu_is_its_twin_forward_and_backward(
    n: int, scale: float, seed: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    x, back = (torch.randn(2, n) * torch.tensor([[scale], [1.0]])).to(dtype).unbind()
    found = gradients(kernels.gelu, [x], back)
    exact = gradients(ops.gelu, [x.double()], back.double())
    for got, expected, size in zip(found, exact, (x, back), strict=True):
        assert got.dtype == dtype
        assert_near(got, expected, room=2e-7 * (1 + size.double().abs()))


@given(rows=st.integers(1, 150), width=st.integers(2, 130), seed=SEEDS, dtype=DTYPES)
def test_a_norm_is_its_twin_forward_and_backward(
    rows: int, width: int, seed: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    inputs = torch.randn(rows, width) * 3 + 1, torch.randn(rows, width).to(dtype)
    scales, back = torch.randn(2, width), torch.randn(rows, width)
    tensors = (*inputs, *scales.unbind())
    found = gradients(lambda *given: kernels.add_norm_training(*given, 1e-3)[0], tensors, back)
    exact = gradients(
        lambda x, y, weight, bias: ops.add_norm((x, y), weight, bias, 1e-3),
        [each.double() for each in tensors],
        back.double(),
    )
    # What is remembered is rounded to the dtype of y, of which each gradient has a share.
    eps = torch.finfo(dtype).eps
    for number, (got, expected, given_to) in enumerate(
        zip(found, exact, (inputs[0], *tensors), strict=True)
    ):
        assert got.dtype == given_to.dtype
        size = float(expected.abs().max()) + float(back.abs().sum(0).max() if number > 2 else 1)
        assert_near(got, expected, room=(4e-5 + (4 * eps if number else 0)) * size)


# ---- as operations


def test_operations_are_the_same_on_any_number_of_threads() -> None:
    torch.manual_seed(0)
    x, back = torch.randn(2, 700, 96).bfloat16().unbind()
    weight, bias, eps = torch.randn(96, 96), torch.randn(96), 1e-12
    lengths = torch.tensor([300, 1, 399], dtype=torch.int32)
    q = x.unflatten(1, (4, 24))
    calls: list[tuple[Callable[..., Tensor], list[Tensor]]] = [
        (kernels.products, [x, weight, bias]),
        (lambda q: kernels.packed_attention(q, q, q, lengths, 6554, 3)[0], [q]),
        (lambda x: kernels.dropout(x, 6554, 3), [x]),
        (kernels.gelu, [x]),
        (lambda y, *scales: kernels.add_norm_training(x.float(), y, *scales, eps)[0],
         [x, weight[0], bias]),
    ]  # fmt: skip
    threads = torch.get_num_threads()
    try:
        for function, inputs in calls:
            results = []
            for n in (1, 2, 3):
                torch.set_num_threads(n)
                results.append(gradients(function, inputs, back.view(inputs[0].shape)))
            for others in results[1:]:
                assert all(map(torch.equal, results[0], others))
    finally:
        torch.set_num_threads(threads)


def test_operations_are_registered_as_torch_wants_them() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 24).bfloat16().requires_grad_()
    wide, ones = torch.randn(5, 24, requires_grad=True), torch.ones(24, requires_grad=True)
    weight = torch.randn(30, 24, requires_grad=True)
    q = torch.randn(5, 3, 8, requires_grad=True)
    lengths = torch.tensor([2, 3], dtype=torch.int32)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for operation, inputs in (
        (kernels.products, (x, weight, None)),
        (kernels.packed_attention, (q, q, q, lengths, 6554, 3)),
        (kernels.dropout, (x, 6554, 3)),
        (kernels.gelu, (x,)),
        (kernels.add_norm_training, (wide, x, ones, ones, 1e-12)),
    ):
        torch.library.opcheck(operation, inputs, test_utils=checks)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_operations_for_other_processors_are_their_twins_too(name: str) -> None:
    operations.use(build.load(cache_folder() / "kernels", target=target_of(name)))
    try:
        test_products_err_by_the_rounding_of_integers_forward_and_backward()
        test_what_is_no_number_stays_none(float("nan"))
        test_attention_is_its_twin_forward_and_backward()
        test_dropout_is_its_twin_to_the_last_bit()
        test_gelu_is_its_twin_forward_and_backward()
        test_a_norm_is_its_twin_forward_and_backward()
    finally:
        operations.use(load_kernels())


@pytest.mark.slow
def test_operations_do_not_import_the_compiler() -> None:
    """It takes 60 MB and two seconds."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


COUNTED = """
import sys, torch
from minibert.engine import load_kernels
from minibert.kernels import operations, training_operations
operations.use(load_kernels())
print("torch._dynamo" in sys.modules)
x = torch.ones(3, requires_grad=True)
training_operations.gelu(x).sum().backward()
print("torch._dynamo" in sys.modules)
"""
