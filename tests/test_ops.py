"""Activations, attention, dropout: numbers by hand, then each fast form against the plain one."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import TINY, Batch, batches, scaled_error
from torch import Tensor

from minibert import ops
from minibert.config import HIDDEN_ACTS
from minibert.layout import Layout, Packed, Padded, pack, unpack
from minibert.model import explicit_attention

Attention = Callable[[Tensor, Tensor, Tensor, Layout, float], Tensor]
BOTH = pytest.mark.parametrize("attend", [ops.attention, explicit_attention])

# By double precision math.erfc, tanh and exp: x Φ(x); x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))).
ACTIVATED = {
    "gelu": {1.0: 0.8413447460685429, -2.7: -0.009360829268209804, 0.0: 0.0},
    "gelu_new": {1.0: 0.8411919906082768, -2.7: -0.008887594639467884, 0.0: 0.0},
    "gelu_pytorch_tanh": {1.0: 0.8411919906082768, -2.7: -0.008887594639467884, 0.0: 0.0},
    "relu": {1.0: 1.0, -2.7: 0.0, 0.0: 0.0},
    "silu": {1.0: 0.7310585786300049, -2.7: -0.1700280613538905, 0.0: 0.0},
    "tanh": {1.0: 0.7615941559557649, -2.7: -0.9910074536781176, 0.0: 0.0},
}


@pytest.mark.parametrize("name", HIDDEN_ACTS)
def test_activation_has_its_known_values(name: str) -> None:
    for x, expected in ACTIVATED[name].items():
        got = ops.ACTIVATIONS[name](torch.tensor(x, dtype=torch.float64)).item()
        assert got == pytest.approx(expected, abs=1e-15), x


def test_every_activation_of_a_config_is_there() -> None:
    assert tuple(ops.ACTIVATIONS) == HIDDEN_ACTS


def test_exact_gelu_differs_most_from_its_tanh_form_at_minus_2_70() -> None:
    x = torch.linspace(-10, 0, 10_001, dtype=torch.float64)
    gap = (ops.ACTIVATIONS["gelu"](x) - ops.ACTIVATIONS["gelu_new"](x)).abs()
    assert gap.max().item() == pytest.approx(4.73e-4, abs=5e-7)
    assert x[gap.argmax()].item() == pytest.approx(-2.70, abs=0.005)


def heads_of(rows: list[list[float]]) -> Tensor:
    """Rows of four numbers as one head of each token: `(tokens, 1, 4)`."""
    return torch.tensor(rows, dtype=torch.float64)[:, None, :]


# head_dim 4, so scores are halved: 2·ln 3 / 2 = ln 3 for query 0 and key 0, 0 for all others.
# softmax(ln 3, 0) = (3/4, 1/4); softmax(0, 0) = (1/2, 1/2).
Q = heads_of([[2, 0, 0, 0], [0, 0, 0, 0]])
K = heads_of([[math.log(3), 0, 0, 0], [0, 0, 0, 0]])
V = heads_of([[4, 0, 0, 0], [0, 8, 0, 0]])


@BOTH
def test_attention_of_two_tokens_is_as_worked_by_hand(attend: Attention) -> None:
    out = attend(Q[None], K[None], V[None], Padded(1, 2, None, Q.device), 0.0)
    expected = heads_of([[3, 2, 0, 0], [2, 4, 0, 0]])[None]
    assert out.shape == (1, 2, 1, 4)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-15)


@BOTH
def test_attention_ignores_a_masked_key(attend: Attention) -> None:
    layout = Padded(1, 2, torch.tensor([[True, False]]), Q.device)
    out = attend(Q[None], K[None], V[None], layout, 0.0)
    assert out[0, :, 0].tolist() == [[4, 0, 0, 0], [4, 0, 0, 0]]


@BOTH
@pytest.mark.parametrize("score", [-400.0, -40_000.0])
def test_attention_ignores_a_masked_key_however_low_the_others_score(
    attend: Attention, score: float
) -> None:
    # A mask that adds some large negative number would let the hidden key win here.
    q, k = heads_of([[2, 0, 0, 0], [2, 0, 0, 0]]), heads_of([[score, 0, 0, 0], [0, 0, 0, 0]])
    layout = Padded(1, 2, torch.tensor([[True, False]]), Q.device)
    out = attend(q[None].float(), k[None].float(), V[None].float(), layout, 0.0)
    assert out[0, :, 0].tolist() == [[4, 0, 0, 0], [4, 0, 0, 0]]


@BOTH
def test_attention_of_nothing_is_zero(attend: Attention) -> None:
    layout = Padded(2, 2, torch.tensor([[False, False], [False, True]]), Q.device)
    two = [x[None].expand(2, -1, -1, -1) for x in (Q, K, V)]
    out = attend(two[0], two[1], two[2], layout, 0.0)
    assert out[0].tolist() == torch.zeros(2, 1, 4).tolist()
    assert out[1, :, 0].tolist() == [[0, 8, 0, 0], [0, 8, 0, 0]]


@BOTH
def test_attention_of_packed_tokens_stays_in_their_sequence(attend: Attention) -> None:
    alone = attend(Q, K, V, Packed.from_lengths([1, 1]), 0.0)
    assert torch.equal(alone, V)
    together = attend(Q, K, V, Packed.from_lengths([2]), 0.0)
    expected = heads_of([[3, 2, 0, 0], [2, 4, 0, 0]])
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-15)


@BOTH
def test_attention_heads_do_not_mix(attend: Attention) -> None:
    # Head 1 has the queries of head 0 in the other order, and values ten times as large.
    q, k, v = torch.cat([Q, Q.flip(0)], 1), torch.cat([K, K], 1), torch.cat([V, V * 10], 1)
    out = attend(q, k, v, Packed.from_lengths([2]), 0.0)
    expected = [[[3, 2, 0, 0], [20, 40, 0, 0]], [[2, 4, 0, 0], [30, 20, 0, 0]]]
    torch.testing.assert_close(out, torch.tensor(expected).double(), rtol=0, atol=1e-14)


@BOTH
def test_attention_without_dropout_argument_drops_nothing(
    attend: Callable[[Tensor, Tensor, Tensor, Layout], Tensor],
) -> None:
    layout = Padded(1, 2, None, Q.device)
    first, second = (attend(Q[None], K[None], V[None], layout) for _ in range(2))
    torch.testing.assert_close(first, heads_of([[3, 2, 0, 0], [2, 4, 0, 0]])[None])
    assert torch.equal(first, second)


@BOTH
@pytest.mark.parametrize("packed", [False, True])
def test_attention_dropout_drops_probabilities_and_scales_the_rest(
    attend: Attention, packed: bool
) -> None:
    # With the identity for values, what comes out are the probabilities themselves.
    tokens = 8
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, tokens, 4, tokens, generator=generator, dtype=torch.float64)
    v = torch.eye(tokens, dtype=torch.float64)[:, None].expand(-1, 4, -1)
    layout: Layout = Packed.from_lengths([tokens]) if packed else Padded(1, tokens, None, q.device)
    q, k, v = (x if packed else x[None] for x in (q, k, v))
    kept = attend(q, k, v, layout, 0.0)
    torch.manual_seed(0)
    dropped = attend(q, k, v, layout, 0.25)
    gone = dropped == 0
    assert 0.1 < gone.double().mean() < 0.4
    torch.testing.assert_close(dropped[~gone], kept[~gone] / 0.75)


@st.composite
def queries(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Batch]:
    """q, k, v of `(batch, seq, heads, head_dim)` in float64, and the batch whose mask is theirs."""
    batch = draw(batches(TINY, draw(st.sampled_from(["right", "first", "any"]))))
    heads, head_dim = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    shape = (3, *batch.input_ids.shape, heads, head_dim)
    q, k, v = torch.randn(shape, generator=generator, dtype=torch.float64) * 2
    return q, k, v, batch


@given(queries())
def test_attention_fused_equals_explicit_when_padded(
    case: tuple[Tensor, Tensor, Tensor, Batch],
) -> None:
    q, k, v, batch = case
    for mask in (batch.mask, None):
        layout = Padded.of(batch.input_ids, mask)
        fused, explicit = (
            attend(q, k, v, layout) for attend in (ops.attention, explicit_attention)
        )
        assert scaled_error(fused, explicit) <= 1e-12
        fused, explicit = (
            attend(q.float(), k.float(), v.float(), layout)
            for attend in (ops.attention, explicit_attention)
        )
        assert scaled_error(fused, explicit) <= 1e-5


@given(queries())
def test_attention_fused_equals_explicit_and_padded_when_packed(
    case: tuple[Tensor, Tensor, Tensor, Batch],
) -> None:
    q, k, v, batch = case
    mask = batch.mask.clone()
    mask[:, 0] = True
    padded = explicit_attention(q, k, v, Padded.of(batch.input_ids, mask))
    (pq, layout), (pk, _), (pv, _) = (pack(x, mask) for x in (q, k, v))
    fused = ops.attention(pq, pk, pv, layout)
    assert scaled_error(fused, explicit_attention(pq, pk, pv, layout)) <= 1e-12
    assert scaled_error(fused, padded[mask]) <= 1e-12
    single = ops.attention(pq.float(), pk.float(), pv.float(), layout)
    assert scaled_error(single.double(), fused) <= 1e-5
    assert unpack(fused, layout).shape[1] <= mask.shape[1]


@given(queries())
def test_attention_gradients_are_equal_in_both_forms(
    case: tuple[Tensor, Tensor, Tensor, Batch],
) -> None:
    q, k, v, batch = case
    layout = Padded.of(batch.input_ids, batch.mask)
    gradients = []
    for attend in (ops.attention, explicit_attention):
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        out = attend(inputs[0], inputs[1], inputs[2], layout)
        gradients.append(torch.autograd.grad(out.pow(2).sum(), inputs))
    for fused, explicit in zip(*gradients, strict=True):
        assert scaled_error(fused, explicit) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_attention_of_short_and_of_long_sequences_are_one_formula(
    dtype: torch.dtype, requires_grad: bool
) -> None:
    short = ops.SHORT_TOKENS
    layout = Packed.from_lengths([2 * short, short + 1, short, short, short - 1, 2, 2, 1])
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, *layout.shape, 3, 8, generator=generator, dtype=torch.float64) * 2
    outs, gradients = [], []
    for attend, kind in ((ops.attention, dtype), (explicit_attention, torch.float64)):
        inputs = [x.to(kind).requires_grad_(requires_grad) for x in (q, k, v)]
        out = attend(inputs[0], inputs[1], inputs[2], layout)
        outs.append(out.detach().double())
        if requires_grad:
            gradients.append([g.double() for g in torch.autograd.grad(out.pow(2).sum(), inputs)])
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert scaled_error(*outs) <= tolerance
    for fast, explicit in zip(*gradients, strict=True) if requires_grad else ():
        assert scaled_error(fast, explicit) <= tolerance


@pytest.mark.parametrize("dropout", [0.0, 1e-9])  # of which nothing is dropped, but by products
def test_attention_of_first_tokens_alone_is_theirs(dropout: float) -> None:
    short = ops.SHORT_TOKENS
    layout = Packed.from_lengths([1, 4, 4, 2, short + 1, 1])
    generator = torch.Generator().manual_seed(0)
    tensors = torch.randn(3, *layout.shape, 3, 8, generator=generator, dtype=torch.float64)
    outs, gradients = [], []
    for alone in (True, False):
        q, k, v = (x.clone().requires_grad_() for x in tensors)
        if alone:
            out = ops.attention(layout.first(q), k, v, layout, dropout)
        else:
            out = layout.first(ops.attention(q, k, v, layout, dropout))
        outs.append(out)
        gradients.append(torch.autograd.grad(out.pow(2).sum(), (q, k, v)))
    assert scaled_error(*outs) <= 1e-12
    for alone_gradient, gradient in zip(*gradients, strict=True):
        assert scaled_error(alone_gradient, gradient) <= 1e-12


@pytest.mark.parametrize("length", [3, ops.SHORT_TOKENS + 1])
def test_attention_of_packed_tokens_drops_probabilities(length: int) -> None:
    layout = Packed.from_lengths([length, length])
    q = torch.zeros(2 * length, 2, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = ops.attention(q, q, torch.ones_like(q), layout, 0.5)
    # Each context is the sum of what was kept of `length` equal shares, doubled.
    kept = out * length / 2
    assert torch.allclose(kept, kept.round(), atol=1e-5)
    assert kept.min() < kept.max()


@pytest.mark.parametrize("length", [3, ops.SHORT_TOKENS + 1])
def test_attention_with_dropout_equals_the_explicit_form(length: int) -> None:
    # Of one sequence both draw in the same order, so that they drop the same.
    layout = Packed.from_lengths([length])
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, length, 3, 8, generator=generator, dtype=torch.float64)
    outs, gradients = [], []
    for attend in (ops.attention, explicit_attention):
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            out = attend(inputs[0], inputs[1], inputs[2], layout, 0.4)
        outs.append(out)
        gradients.append(torch.autograd.grad(out.pow(2).sum(), inputs))
    assert scaled_error(*outs) <= 1e-12
    assert scaled_error(outs[0], explicit_attention(q, k, v, layout)) > 0.1  # it has dropped
    for fast, explicit in zip(*gradients, strict=True):
        assert scaled_error(fast, explicit) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_with_dropout_of_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    layout = Packed.from_lengths([9])
    q, k, v = torch.randn(3, 9, 2, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    outs = []
    for kind in (dtype, torch.float64):
        with torch.random.fork_rng(devices=[]), torch.autocast("cpu", dtype=torch.bfloat16):
            torch.manual_seed(1)
            outs.append(ops.attention(q.to(kind), k.to(kind), v.to(kind), layout, 0.25))
    assert outs[0].dtype == dtype
    bound = outs[1].abs() * torch.finfo(dtype).eps * 0.51 + 1e-6
    assert ((outs[0].double() - outs[1]).abs() <= bound).all()


@BOTH
@given(case=queries())
def test_attention_weights_sum_to_1_and_masked_ones_are_exactly_0(
    attend: Attention, case: tuple[Tensor, Tensor, Tensor, Batch]
) -> None:
    q, k, _, batch = case
    rows, seq, heads, _ = q.shape
    # Queries and keys as wide as there are keys, so that the identity can be the values.
    wide = torch.zeros(2, rows, seq, heads, seq, dtype=torch.float64)
    width = min(seq, q.shape[-1])
    wide[..., :width] = torch.stack([q, k])[..., :width]
    identity = torch.eye(seq, dtype=torch.float64)[None, :, None].expand(rows, -1, heads, -1)
    weights = attend(wide[0], wide[1], identity, Padded.of(batch.input_ids, batch.mask), 0.0)
    keys = batch.mask[:, None, None, :].expand_as(weights)
    assert bool((weights[~keys] == 0).all())
    assert bool((weights >= 0).all())
    sums = weights.sum(-1)
    attends = batch.mask.any(1)[:, None, None].expand_as(sums)
    assert bool(((sums[attends] - 1).abs() <= 1e-12).all())
    assert bool((sums[~attends] == 0).all())


# ---- dropout


def dropped(x: Tensor, share: float, seed: int = 0) -> Tensor:
    """`ops.dropout` of a seed; the stream of the other tests stays where it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ops.dropout(x, share)


@pytest.mark.parametrize("share", [0.5, 0.1, 2**-16, 1 - 2**-16])
def test_dropout_drops_its_share_and_divides_the_rest(share: float) -> None:
    n = 1 << 20
    out = dropped(torch.full((n,), 3.0, dtype=torch.float64), share)
    gone = out == 0
    exact = round(share * 2**16) / 2**16
    torch.testing.assert_close(out[~gone], torch.full_like(out[~gone], 3 / (1 - exact)))
    # Five standard deviations, of all and of each of the four values that share a draw.
    for every, offset in ((1, 0), (4, 0), (4, 1), (4, 2), (4, 3)):
        found = gone[offset::every].double().mean().item()
        assert abs(found - share) <= 5 * math.sqrt(share * (1 - share) * every / n)


def test_values_that_share_a_draw_are_dropped_independently() -> None:
    gone = (dropped(torch.ones(1 << 20), 0.5) == 0).double().view(-1, 4)
    correlations = torch.corrcoef(gone.T) - torch.eye(4, dtype=torch.float64)
    assert correlations.abs().max() <= 5 / math.sqrt(1 << 18)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0,), (1,), (7,), (3, 5), (2, 4, 3)]),
    st.floats(0.01, 0.99),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_dropout_equals_its_plain_form_forward_and_backward(
    seed: int, shape: tuple[int, ...], share: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, gradient = torch.randn(2, *shape, generator=generator).to(dtype)
    # Four values a draw, the lowest bits first; what is least is dropped.
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
    words.random_(-(2**63), None, generator=torch.Generator().manual_seed(seed))
    draws = (words[:, None] >> torch.tensor([0, 16, 32, 48])).flatten()[: x.numel()]
    signed = (draws & 0xFFFF) - ((draws & 0x8000) << 1)
    n_dropped = round(share * 65536)
    kept = (signed >= n_dropped - 32768).view(shape)
    factor = kept.double() / (1 - n_dropped / 65536)
    inputs = x.clone().requires_grad_()
    out = dropped(inputs, share, seed)
    (found,) = torch.autograd.grad(out, inputs, gradient)
    for got, plain in ((out, x.double() * factor), (found, gradient.double() * factor)):
        assert got.dtype == dtype
        torch.testing.assert_close(got, plain.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


def test_dropout_of_nothing_and_outside_training_is_free() -> None:
    x = torch.randn(5, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    assert ops.dropout(x, 0.0) is x
    assert ops.Dropout(0.5).eval()(x) is x
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(ops.dropout(x, 1.0), torch.zeros(5))
    with torch.random.fork_rng(devices=[]):
        assert (ops.Dropout(0.5)(torch.ones(1000)) == 0).any()


def test_dropout_computed_again_drops_the_same() -> None:
    from torch.utils.checkpoint import checkpoint

    x = torch.ones(1000, requires_grad=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = checkpoint(lambda x: ops.dropout(x, 0.5).pow(2), x, use_reentrant=False)
        (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, 2 * out.detach())  # d/dx (2x)² = 8x; (2x)² = 4x²


# ---- linear maps


@pytest.fixture
def without_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU on which bfloat16 is slow, whatever this one is."""
    monkeypatch.setattr(ops, "_has_bfloat16_units", lambda: False)


def map_of(shape: tuple[int, ...], *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of this shape, a weight and a bias for five outputs."""
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(5, shape[-1] + 1, generator=generator).split([shape[-1], 1], -1)
    return torch.randn(shape, generator=generator), weight.contiguous(), bias[:, 0].contiguous()


@pytest.mark.usefixtures("without_units")
def test_linear_outside_autocast_is_that_of_torch() -> None:
    x, weight, bias = map_of((3, 8))
    assert torch.equal(ops.linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias))
    assert torch.equal(ops.linear(x, weight), torch.nn.functional.linear(x, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ops.linear(x.double(), weight.double(), bias.double()).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.float16):
        assert ops.linear(x, weight, bias).dtype == torch.float16


@pytest.mark.usefixtures("without_units")
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0, 3), (4, 8), (2, 3, 300)]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.booleans(),
)
def test_linear_of_bfloat16_is_exact_in_rounded_numbers(
    seed: int, shape: tuple[int, ...], dtype: torch.dtype, has_bias: bool
) -> None:
    x, weight, bias = map_of(shape, seed=seed)
    inputs = [x.to(dtype), weight, *([bias] if has_bias else [])]
    gradient = torch.randn(*shape[:-1], 5, generator=torch.Generator().manual_seed(1)).bfloat16()
    given = [each.clone().requires_grad_() for each in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ops.linear(*given)
    found = torch.autograd.grad(out, given, gradient)
    plain = [each.bfloat16().double() for each in inputs[:2]] + [b.double() for b in inputs[2:]]
    plain = [each.requires_grad_() for each in plain]
    exact = torch.nn.functional.linear(*plain)
    expected = torch.autograd.grad(exact, plain, gradient.double())
    assert out.dtype == torch.bfloat16
    for got, right, given_to in zip((out, *found), (exact, *expected), (out, *given), strict=True):
        assert got.dtype == given_to.dtype
        # Half a unit in the last place of what it is rounded to, and what float32 may be off.
        bound = right.abs() * torch.finfo(got.dtype).eps * 0.51 + 1e-6 * (1 + right.norm())
        assert ((got.double() - right).abs() <= bound).all()


@pytest.mark.usefixtures("without_units")
def test_linear_of_bfloat16_is_that_of_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = map_of((16, 256))
    results = []
    for units in (False, True):
        monkeypatch.setattr(ops, "_has_bfloat16_units", lambda units=units: units)
        given = [each.clone().requires_grad_() for each in tensors]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = ops.linear(*given)
        results.append((out, *torch.autograd.grad(out.float().pow(2).sum(), given)))
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        scale = theirs.abs().max().item()
        assert (ours - theirs).abs().max() <= 4 * torch.finfo(torch.bfloat16).eps * scale


def test_split_linear_leaves_out_the_product_of_the_small_parts_alone() -> None:
    x = torch.tensor([[1 + 2**-9, 3.0]])  # split into 1 and 2^-9, and 3 and 0
    weight = torch.tensor([[1 + 2**-9, 0.0], [0.0, 1 - 2**-10]])  # 1 and 2^-9, 1 and -2^-10
    assert [part.tolist() for part in ops.split(x)] == [[[1, 3]], [[2**-9, 0]]]
    assert ops.split_linear(x, weight).tolist() == [[1 + 2**-8, 3 - 3 * 2**-10]]


@given(exponent=st.integers(-30, 30), seed=st.integers(0, 2**16))
def test_split_is_all_but_the_last_bits(exponent: int, seed: int) -> None:
    x = torch.randn(200, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    high, low = ops.split(x)
    for part in (high, low):
        assert part.bfloat16().float().equal(part)
    assert ((high.double() + low - x).abs() <= 2**-17 * x.abs()).all()


@pytest.mark.usefixtures("without_units")
def test_linear_of_bfloat16_computes_no_gradient_of_what_is_frozen() -> None:
    x, weight, bias = map_of((4, 8))
    for trained in range(3):
        given = [
            each.clone().requires_grad_(i == trained) for i, each in enumerate((x, weight, bias))
        ]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ops.linear(*given).sum().backward()
        assert [each.grad is not None for each in given] == [i == trained for i in range(3)]


@pytest.mark.parametrize(
    ("machine", "amx", "expected"),
    [
        ("x86_64", False, False),
        ("AMD64", False, False),
        ("x86_64", True, True),
        ("arm64", False, True),
    ],
)
def test_units_for_bfloat16_are_those_of_amx_and_of_other_machines(
    machine: str, amx: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    ops._has_bfloat16_units.cache_clear()
    assert ops._has_bfloat16_units() is expected
    ops._has_bfloat16_units.cache_clear()


# ---- sums that are normalised


def test_add_norm_of_numbers_worked_by_hand() -> None:
    # 1 + 2, 5 + 4 and 3 + 3 have mean 6 and variance (9 + 9 + 0) / 3 = 6; with eps 3 the root is 3.
    terms = [torch.tensor([[1.0, 5.0, 3.0]]), torch.tensor([2.0, 4.0, 3.0])]
    weight, bias = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([0.0, 0.0, 0.5])
    got = ops.add_norm(terms, weight, bias, 3.0)
    torch.testing.assert_close(got, torch.tensor([[-1.0, 2.0, 0.5]]), rtol=0, atol=1e-6)


def test_sum_is_taken_from_left_to_right() -> None:
    terms = [torch.tensor([1e8]), torch.tensor([-1e8]), torch.tensor([1.0])]
    assert ops.add(terms).item() == 1.0
    assert ops.add(terms[::-1]).item() == 0.0  # 1 - 1e8 has no room for the 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@given(seed=st.integers(0, 2**32 - 1))
def test_add_norm_of_half_precision_rounds_once(dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y, weight, bias = (
        torch.randn(*shape, generator=generator).to(dtype)
        for shape in ((5, 32), (5, 32), (32,), (32,))
    )
    x = x * 20
    got = ops.add_norm([x, y], weight, bias, 1e-12)
    exact = ops.add_norm([t.double() for t in (x, y)], weight.double(), bias.double(), 1e-12)
    assert got.dtype == dtype
    # Rounded to nearest: half a unit in the last place, and what float32 itself may be off.
    assert (
        (got.double() - exact).abs() <= exact.abs() * torch.finfo(dtype).eps * 0.51 + 1e-6
    ).all()


@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8)])
def test_add_norm_of_one_term_is_layer_norm(shape: tuple[int, ...]) -> None:
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    norm = torch.nn.LayerNorm(8)
    assert torch.equal(ops.add_norm([hidden], norm.weight, norm.bias, norm.eps), norm(hidden))


@pytest.mark.parametrize("name", ["gelu", "gelu_new"])
def test_gelu_of_a_sum_is_rounded_once(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, bias = (torch.randn(size, generator=generator).bfloat16() for size in ((50, 8), (8,)))
    got = ops.bias_gelu(x, bias, name)
    exact = ops.ACTIVATIONS[name](x.double() + bias.double())
    room = exact.abs() * torch.finfo(torch.bfloat16).eps * 0.51 + 1e-6  # half a last place
    assert got.dtype == torch.bfloat16
    assert ((got.double() - exact).abs() <= room).all()
    twice = ops.ACTIVATIONS[name](x + bias)
    assert ((twice.double() - exact).abs() > room).any()  # were the sum rounded too
