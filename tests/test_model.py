"""The network: each part by hand, the whole against plain numpy loops in double precision."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from strategies import TINY, Batch, configs, networks, randomised, scaled_error
from torch import Tensor, nn

from minibert import ops
from minibert.checkpoint import to_disk
from minibert.config import BertConfig
from minibert.layout import Packed, Padded, pack
from minibert.model import (
    BertModel,
    Embeddings,
    FeedForward,
    Layer,
    Pooler,
    SelfAttention,
    explicit_attention,
    set_attention,
)

Array = np.ndarray[Any, np.dtype[np.float64]]

ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "gelu_new": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "tanh": math.tanh,
}
ACTIVATIONS["gelu_pytorch_tanh"] = ACTIVATIONS["gelu_new"]


def numpy_bert(
    state: Mapping[str, Array],
    config: BertConfig,
    ids: list[int],
    types: list[int],
    seen: list[bool],
) -> tuple[Array, Array]:
    """Hidden states and pooled vector of one sequence, written out; names as in checkpoints."""

    def linear(x: Array, name: str) -> Array:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        mean = x.sum(axis=1, keepdims=True) / config.hidden_size
        variance = ((x - mean) ** 2).sum(axis=1, keepdims=True) / config.hidden_size
        x = (x - mean) / np.sqrt(variance + config.layer_norm_eps)
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    x = np.stack(
        [
            state["embeddings.word_embeddings.weight"][token]
            + state["embeddings.token_type_embeddings.weight"][kind]
            + state["embeddings.position_embeddings.weight"][column]
            for column, (token, kind) in enumerate(zip(ids, types, strict=True))
        ]
    )
    x = norm(x, "embeddings.LayerNorm")
    width = config.hidden_size // config.num_attention_heads
    for number in range(config.num_hidden_layers):
        layer = f"encoder.layer.{number}"
        q, k, v = (linear(x, f"{layer}.attention.self.{n}") for n in ("query", "key", "value"))
        context = np.zeros_like(x)
        for head in range(config.num_attention_heads):
            part = slice(head * width, (head + 1) * width)
            for row in range(len(ids)):
                weights = np.exp(k[:, part] @ q[row, part] / math.sqrt(width)) * seen
                if weights.sum() > 0:
                    context[row, part] = weights / weights.sum() @ v[:, part]
        output = linear(context, f"{layer}.attention.output.dense")
        x = norm(x + output, f"{layer}.attention.output.LayerNorm")
        wide = linear(x, f"{layer}.intermediate.dense")
        wide = np.vectorize(ACTIVATIONS[config.hidden_act], otypes=[np.float64])(wide)
        x = norm(x + linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x, np.tanh(linear(x[:1], "pooler.dense"))[0]


def fill(module: nn.Module, values: Mapping[str, Any]) -> None:
    """Set the parameters `values`; zero for all others."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.as_tensor(values.get(name, 0.0)))


def padded(*shape: int) -> Padded:
    return Padded(shape[0], shape[1], None, torch.device("cpu"))


# ---- parts by hand


def test_embeddings_are_the_normalised_sum_of_three_tables() -> None:
    config = replace(TINY, hidden_size=2, num_attention_heads=1, layer_norm_eps=3e-6)
    embeddings = Embeddings(config).eval().double()
    token, kind, position = torch.zeros(11, 2), torch.zeros(3, 2), torch.zeros(8, 2)
    token[5], kind[2], position[1] = (
        torch.tensor([1e-3, 0.0]),
        torch.tensor([0.0, -1e-3]),
        torch.tensor([2e-3, 2e-3]),
    )
    values = {"token.weight": token, "token_type.weight": kind, "position.weight": position}
    fill(embeddings, {**values, "norm.weight": [1.0, 2.0], "norm.bias": [10.0, 20.0]})
    ids, types = torch.tensor([[0, 5]]), torch.tensor([[0, 2]])
    # The sum is (3, 1)·1e-3: mean 2e-3, biased variance 1e-6, √(1e-6 + 3e-6) = 2e-3: ±0.5.
    out = embeddings(ids, types, padded(1, 2))
    expected = torch.tensor([[[10.0, 20.0], [10.5, 19.0]]], dtype=torch.float64)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-7)


def test_embeddings_add_in_the_order_token_type_position() -> None:
    config = replace(TINY, hidden_size=2, num_attention_heads=1)
    embeddings = Embeddings(config).eval()
    # In float32 (1e8 + -1e8) + 1 is 1, but 1e8 + (-1e8 + 1) is 0.
    token, kind, position = torch.zeros(11, 2), torch.zeros(3, 2), torch.zeros(8, 2)
    token[0, 0], kind[0, 0], position[0, 0] = 1e8, -1e8, 1.0
    values = {"token.weight": token, "token_type.weight": kind, "position.weight": position}
    fill(embeddings, {**values, "norm.weight": 1.0})
    out = embeddings(torch.tensor([[0]]), torch.tensor([[0]]), padded(1, 1))
    torch.testing.assert_close(out, torch.tensor([[[1.0, -1.0]]]))


def test_embeddings_of_packed_tokens_take_the_positions_of_the_layout() -> None:
    embeddings = randomised(BertModel(TINY)).embeddings.eval()
    ids, types = torch.tensor([3, 4, 5]), torch.tensor([0, 1, 2])
    packed = embeddings(ids, types, Packed((1, 2), torch.tensor([2, 0, 1])))
    rows = embeddings(ids.expand(1, 3), types.expand(1, 3), Padded(1, 3, None, ids.device))[0]
    alone = embeddings(
        torch.tensor([[0, 0, 3]]), torch.tensor([[0, 0, 0]]), Padded(1, 3, None, ids.device)
    )
    torch.testing.assert_close(packed[0], alone[0, 2])
    assert not torch.allclose(packed, rows, atol=1e-3)


def test_self_attention_is_as_worked_by_hand() -> None:
    # One head of width 4, so scores are halved. q = x, k = x, v = 2x, output = 3·context + 1.
    config = replace(TINY, num_attention_heads=1)
    attention = SelfAttention(config).eval().double()
    eye = torch.eye(4)
    fill(
        attention,
        {
            "qkv.weight": torch.cat([eye, eye, 2 * eye]),
            "output.weight": 3 * eye,
            "output.bias": 1.0,
        },
    )
    a = math.sqrt(2 * math.log(3))  # a·a / 2 = ln 3: weights 3/4 and 1/4
    hidden = torch.tensor([[[a, 0, 0, 0], [0, 0, 0, 0]]], dtype=torch.float64)
    out = attention(hidden, padded(1, 2))
    expected = torch.tensor([[[4.5 * a + 1, 1, 1, 1], [3 * a + 1, 1, 1, 1]]]).double()
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_self_attention_takes_query_key_and_value_from_their_thirds() -> None:
    config = replace(TINY, hidden_size=2, num_attention_heads=2)
    attention = SelfAttention(config).eval()
    seen: dict[str, Any] = {}

    def attend(q: Tensor, k: Tensor, v: Tensor, layout: object, dropout: float) -> Tensor:
        seen.update(q=q, k=k, v=v, dropout=dropout)
        return v

    attention.attend = attend
    fill(attention, {"qkv.bias": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "output.weight": torch.eye(2)})
    out = attention(torch.zeros(1, 1, 2), padded(1, 1))
    assert seen["q"].shape == (1, 1, 2, 1)
    assert seen["q"].flatten().tolist() == [1.0, 2.0]
    assert seen["k"].flatten().tolist() == [3.0, 4.0]
    assert seen["v"].flatten().tolist() == out.flatten().tolist() == [5.0, 6.0]


def test_feed_forward_is_as_worked_by_hand() -> None:
    config = replace(TINY, hidden_size=2, num_attention_heads=1, intermediate_size=3)
    feed_forward = FeedForward(config).double()
    fill(
        feed_forward,
        {
            "up.weight": [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]],
            "up.bias": [0.0, 0.0, -2.7],
            "down.weight": [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]],
            "down.bias": [10.0, 20.0],
        },
    )
    out = feed_forward(torch.tensor([[[1.0, 0.0]]], dtype=torch.float64))
    expected = torch.tensor([[[10.8413447460685429, 20 - 0.009360829268209804]]]).double()
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_feed_forward_bends_as_the_configuration_says() -> None:
    x = torch.tensor([[-2.7, 1.0, 0.5, 0.0]])
    for name in ACTIVATIONS:
        feed_forward = FeedForward(replace(TINY, hidden_act=name, intermediate_size=4))
        fill(feed_forward, {"up.weight": torch.eye(4), "down.weight": torch.eye(4)})
        expected = torch.tensor([[ACTIVATIONS[name](value) for value in x[0].tolist()]])
        torch.testing.assert_close(feed_forward(x), expected, rtol=0, atol=1e-6)


def still_layer() -> Layer:
    """Sublayers that give 0, norms that leave what they get centred and scaled."""
    layer = Layer(replace(TINY, layer_norm_eps=3.0)).double()
    fill(layer, {"attention_norm.weight": 1.0, "feed_forward_norm.weight": 1.0})
    return layer.eval()


def test_layer_adds_its_input_and_norms_after_the_sum() -> None:
    layer = still_layer()
    fill(
        layer,
        {
            "attention.output.bias": [1.0, 0.0, 0.0, -1.0],
            "attention_norm.weight": 1.0,
            "attention_norm.bias": [0.0, 5.0, 0.0, 0.0],
            "feed_forward.down.bias": [0.0, -5.0, 0.0, 0.0],
            "feed_forward_norm.weight": [1.0, 1.0, 2.0, 1.0],
            "feed_forward_norm.bias": [0.0, 0.0, 1.0, 0.0],
        },
    )
    x = torch.tensor([[[0.0, -1.0, 1.0, 0.0]]], dtype=torch.float64)
    # Sum (1, -1, 1, -1): variance 1, / √(1 + 3) = ±1/2. Then + 5 - 5: variance 1/4, / √(13/4).
    out = layer(x, padded(1, 1))
    half = 0.5 / math.sqrt(3.25)
    expected = torch.tensor([[[half, -half, 2 * half + 1, -half]]]).double()
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_pooler_is_tanh_of_the_first_token() -> None:
    pooler = Pooler(TINY)
    fill(pooler, {"dense.weight": 2 * torch.eye(4), "dense.bias": [0.0, 0.0, 0.0, 1.0]})
    hidden = torch.tensor([[[0.5, 0.0, -0.5, 0.0], [9.0] * 4], [[0.0] * 4, [9.0] * 4]])
    mask = torch.tensor([[True, True], [False, True]])
    out = pooler(hidden, Padded(2, 2, mask, hidden.device))
    one = math.tanh(1.0)
    torch.testing.assert_close(out, torch.tensor([[one, 0.0, -one, one], [0.0, 0.0, 0.0, one]]))
    packed = pooler(hidden.flatten(0, 1), Packed.from_lengths([2, 2]))
    assert torch.equal(packed, out)


# ---- dropout


def test_dropout_has_the_probabilities_of_the_configuration() -> None:
    config = replace(TINY, hidden_dropout_prob=0.25, attention_probs_dropout_prob=0.5)
    model = BertModel(config)
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.25] * 3  # of the embeddings, and one in each layer
    assert all(
        isinstance(layer, Layer) and layer.attention.dropout == 0.5 for layer in model.layers
    )


def test_dropout_stands_behind_the_norm_of_the_embeddings() -> None:
    embeddings = randomised(BertModel(TINY)).embeddings.train()
    embeddings.dropout = nn.Dropout(1.0)
    ids = torch.tensor([[1, 2]])
    assert bool((embeddings(ids, ids * 0, padded(1, 2)) == 0).all())


def test_dropout_of_a_layer_drops_both_sublayers_and_not_their_inputs() -> None:
    layer = still_layer().train()
    fill(
        layer,
        {
            "attention.output.bias": [7.0, 0.0, 0.0, 0.0],
            "feed_forward.down.bias": [0.0, 7.0, 0.0, 0.0],
            "attention_norm.weight": 1.0,
            "feed_forward_norm.weight": 1.0,
        },
    )
    layer.dropout = nn.Dropout(1.0)
    x = torch.tensor([[[1.0, -1.0, 1.0, -1.0]]], dtype=torch.float64)
    half = 0.5 / math.sqrt(3.25)
    expected = torch.tensor([[[half, -half, half, -half]]]).double()
    torch.testing.assert_close(layer(x, padded(1, 1)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attend", [ops.attention, explicit_attention])
@pytest.mark.parametrize("where", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_is_active_in_training_only(where: str, attend: Any) -> None:
    none = replace(TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    some: dict[str, Any] = {where: 0.5, "initializer_range": 0.5}
    model = randomised(BertModel(replace(none, **some)))
    set_attention(model, attend)
    ids = torch.arange(8).view(1, 8)
    torch.manual_seed(0)
    first, second = (model.train()(ids).last_hidden_state for _ in range(2))
    assert not torch.allclose(first, second, atol=1e-3)
    first, second = (model.eval()(ids).last_hidden_state for _ in range(2))
    assert torch.equal(first, second)
    still = BertModel(none)
    still.load_state_dict(model.state_dict())
    set_attention(still, attend)
    assert torch.equal(still.train()(ids).last_hidden_state, first)


# ---- initialisation


def test_new_model_has_the_values_of_a_new_bert() -> None:
    torch.manual_seed(0)
    model = BertModel(BertConfig(num_hidden_layers=1, vocab_size=2000, initializer_range=0.03))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert bool((parameter == 0).all()), name
        elif "norm." in name:
            assert bool((parameter == 1).all()), name
        else:
            # The tolerance is 5 standard errors of the mean and of the deviation.
            count = parameter.numel()
            assert abs(parameter.mean().item()) <= 5 * 0.03 / math.sqrt(count), name
            assert abs(parameter.std().item() - 0.03) <= 5 * 0.03 / math.sqrt(2 * count), name
            assert parameter.abs().max().item() > 2.5 * 0.03 or count < 2000, name


def test_new_model_gives_the_padding_token_a_vector_like_any_other() -> None:
    model = BertModel(replace(TINY, pad_token_id=0))
    assert bool((model.embeddings.token.weight[0] != 0).all())
    assert model.embeddings.token.padding_idx is None
    model.train()(torch.tensor([[0, 1]])).last_hidden_state[..., 0].sum().backward()
    gradient = model.embeddings.token.weight.grad
    assert gradient is not None
    assert bool((gradient[0] != 0).any())


def test_new_models_are_random() -> None:
    first, second = (BertModel(TINY).embeddings.token.weight for _ in range(2))
    assert not torch.equal(first, second)


# ---- the whole


def test_model_has_as_many_layers_and_parameters_as_bert_base() -> None:
    with torch.device("meta"):
        model = BertModel(BertConfig())
    assert len(model.layers) == 12
    assert sum(parameter.numel() for parameter in model.parameters()) == 109_482_240


def test_model_gives_hidden_states_and_pooled_vectors() -> None:
    out = BertModel(TINY).eval()(torch.tensor([[1, 2, 3], [4, 5, 6]]))
    assert out.last_hidden_state.shape == (2, 3, 4)
    assert out.pooler_output is not None
    assert out.pooler_output.shape == (2, 4)
    assert out._fields == ("last_hidden_state", "pooler_output")


def test_model_without_pooler_gives_no_pooled_vectors() -> None:
    model = BertModel(TINY).eval()
    model.pooler = None
    assert model(torch.tensor([[1, 2]])).pooler_output is None


def test_model_takes_token_types_as_0_unless_told() -> None:
    model = randomised(BertModel(TINY)).eval()
    ids = torch.tensor([[1, 2, 3]])
    default, zeros, ones = (
        model(ids, token_type_ids=types).last_hidden_state
        for types in (None, torch.zeros_like(ids), torch.ones_like(ids))
    )
    assert torch.equal(default, zeros)
    assert not torch.allclose(default, ones, atol=1e-3)


def test_model_takes_masks_of_bools_and_integers_alike() -> None:
    model = randomised(BertModel(TINY)).eval()
    ids, mask = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 1, 0]])
    expected = model(ids, mask.bool()).last_hidden_state
    for other in (mask, mask.int(), mask.to(torch.int8), mask * 7):
        assert torch.equal(model(ids, other).last_hidden_state, expected)
    assert not torch.allclose(model(ids).last_hidden_state[:, :2], expected[:, :2], atol=1e-6)


def test_model_takes_ids_of_32_bits() -> None:
    model = randomised(BertModel(TINY)).eval()
    ids = torch.tensor([[1, 2, 3]])
    expected = model(ids, token_type_ids=ids * 0 + 1).last_hidden_state
    got = model(ids.int(), token_type_ids=ids.int() * 0 + 1).last_hidden_state
    assert torch.equal(got, expected)


def test_model_takes_a_layout_in_place_of_a_mask() -> None:
    model = randomised(BertModel(TINY)).eval()
    ids, mask = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 0, 1]])
    expected = model(ids, mask).last_hidden_state
    assert torch.equal(model(ids, layout=Padded.of(ids, mask)).last_hidden_state, expected)


def test_model_takes_an_empty_batch() -> None:
    out = BertModel(TINY).eval()(torch.zeros(0, 3, dtype=torch.long))
    assert out.last_hidden_state.shape == (0, 3, 4)
    assert out.pooler_output is not None
    assert out.pooler_output.shape == (0, 4)


def test_set_attention_reaches_every_layer_and_is_run() -> None:
    model = randomised(BertModel(TINY)).eval()
    calls = []

    def attend(q: Tensor, k: Tensor, v: Tensor, layout: object, dropout: float) -> Tensor:
        calls.append((q.shape, dropout))
        return torch.zeros_like(v)

    set_attention(model, attend)
    model(torch.tensor([[1, 2, 3]]))
    assert calls == [((1, 3, 2, 2), 0.0)] * 2
    model.train()(torch.tensor([[1, 2, 3]]))
    assert calls[2:] == [((1, 3, 2, 2), 0.1)] * 2


@given(networks("first"))
def test_first_tokens_alone_give_what_they_give_among_all(case: tuple[BertModel, Batch]) -> None:
    model, batch = case
    model = model.double()
    ids, layout = pack(batch.input_ids, batch.mask)
    types, _ = pack(batch.token_type_ids, batch.mask)
    results = []
    for only_first in (True, False):
        model.zero_grad()
        hidden, pooled = model(ids, None, types, layout=layout, only_first=only_first)
        pooled.pow(2).sum().backward()
        first = hidden if only_first else layout.first(hidden)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results.append([first, pooled, *gradients])
    assert len(results[0][0]) == len(batch.input_ids)
    for alone, among in zip(*results, strict=True):
        assert scaled_error(alone, among) <= 1e-12


def test_first_tokens_alone_are_computed_only_where_packed_and_attention_is_our_own() -> None:
    model = randomised(BertModel(TINY)).eval()
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert torch.equal(model(ids, only_first=True)[0], model(ids)[0])
    packed, layout = pack(ids, torch.ones_like(ids))
    assert model(packed, layout=layout, only_first=True)[0].shape == (2, 4)
    set_attention(model, explicit_attention)
    full = model(packed, layout=layout, only_first=True)
    assert full.last_hidden_state.shape == (6, 4)
    assert full.pooler_output is not None
    assert full.pooler_output.shape == (2, 4)


# Enough examples for each of the six activations.
@settings(max_examples=40)
@given(networks("any"))
def test_model_equals_numpy_loops_in_double_precision(case: tuple[BertModel, Batch]) -> None:
    model, batch = case
    model = model.double()
    state = {name: tensor.numpy() for name, tensor in to_disk(model.state_dict()).items()}
    with torch.no_grad():
        hidden, pooled = model(batch.input_ids, batch.mask, batch.token_type_ids)
    for row, (ids, mask, types) in enumerate(zip(*batch, strict=True)):
        expected, expected_pooled = numpy_bert(
            state, model.config, ids.tolist(), types.tolist(), mask.tolist()
        )
        assert scaled_error(hidden[row], torch.from_numpy(expected)) <= 1e-10
        assert scaled_error(pooled[row], torch.from_numpy(expected_pooled)) <= 1e-10


@given(networks("any"))
def test_model_in_single_precision_stays_near_double(case: tuple[BertModel, Batch]) -> None:
    model, batch = case
    with torch.no_grad():
        single = model(batch.input_ids, batch.mask, batch.token_type_ids)
        double = model.double()(batch.input_ids, batch.mask, batch.token_type_ids)
    assert scaled_error(single.last_hidden_state.double(), double.last_hidden_state) <= 1e-5
    assert scaled_error(single.pooler_output.double(), double.pooler_output) <= 1e-5


@settings(max_examples=15)
@given(networks("first"))
def test_model_gives_the_same_with_either_attention(case: tuple[BertModel, Batch]) -> None:
    model, batch = case
    ids, layout = pack(batch.input_ids, batch.mask)
    types, _ = pack(batch.token_type_ids, batch.mask)
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        outs = []
        for attend in (ops.attention, explicit_attention):
            set_attention(model.to(dtype), attend)
            with torch.no_grad():
                outs.append(model(*batch).last_hidden_state[batch.mask])
                outs.append(model(ids, token_type_ids=types, layout=layout).last_hidden_state)
        for out in outs[1:]:
            assert scaled_error(out, outs[0]) <= bound


# ---- refusals


def refusal(kind: type[Exception], *inputs: Any, **more: Any) -> str:
    with pytest.raises(kind) as caught:
        BertModel(TINY)(*inputs, **more)
    return str(caught.value)


IDS = torch.tensor([[1, 2, 3]])


@pytest.mark.parametrize("shape", [(3,), (2, 3, 1), (), (2, 0)])
def test_model_refuses_ids_that_are_no_batch(shape: tuple[int, ...]) -> None:
    assert refusal(ValueError, torch.zeros(shape, dtype=torch.long)) == (
        f"input_ids has shape {shape}, expected (batch, seq); give a single sequence as a batch "
        "of one, packed tokens with layout=Packed(…)"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_model_refuses_masks_of_floats(dtype: torch.dtype) -> None:
    assert refusal(TypeError, IDS, torch.ones(1, 3, dtype=dtype)) == (
        f"attention_mask is {dtype}, expected bool or integer: 1 where a token is real, 0 on "
        "padding (additive masks are made inside)"
    )


@pytest.mark.parametrize("shape", [(1, 2), (3,), (1, 1, 1, 3), (2, 3)])
def test_model_refuses_masks_of_another_shape(shape: tuple[int, ...]) -> None:
    assert refusal(ValueError, IDS, torch.ones(shape, dtype=torch.long)) == (
        f"attention_mask has shape {shape}, expected (1, 3), the shape of input_ids"
    )


def test_model_refuses_mask_and_layout_together() -> None:
    mask = torch.ones_like(IDS)
    assert refusal(ValueError, IDS, mask, layout=Padded.of(IDS)) == (
        "got attention_mask and layout, expected one: a layout has the mask"
    )


@pytest.mark.parametrize("ids", [torch.tensor([1, 2]), torch.tensor([[1, 2, 3]])])
def test_model_refuses_packed_ids_of_another_number(ids: Tensor) -> None:
    assert refusal(ValueError, ids, layout=Packed.from_lengths([1, 2])) == (
        f"input_ids has shape {tuple(ids.shape)}, expected (3,): one id for each token of the "
        "packed layout"
    )


@pytest.mark.parametrize("shape", [(2, 1), (1, 3), (6,)])
def test_model_refuses_ids_that_do_not_fit_a_padded_layout(shape: tuple[int, ...]) -> None:
    message = refusal(ValueError, torch.ones(shape, dtype=torch.long), layout=padded(2, 3))
    assert message.startswith(f"input_ids has shape {shape}, expected (2, 3)")


def test_model_refuses_more_tokens_than_positions() -> None:
    BertModel(TINY)(torch.zeros(1, 8, dtype=torch.long))
    expected = "got 9 tokens in a sequence, expected at most 8; cut longer texts, or take windows"
    assert refusal(ValueError, torch.zeros(1, 9, dtype=torch.long)) == expected
    ids = torch.zeros(12, dtype=torch.long)
    assert refusal(ValueError, ids, layout=Packed.from_lengths([3, 9])) == expected
    BertModel(TINY)(ids, layout=Packed.from_lengths([8, 4]))


@pytest.mark.parametrize(
    ("ids", "got"), [([[0, 11]], 11), ([[-1, 3]], -1), ([[-5, 99]], -5), ([[100, 11]], 100)]
)
def test_model_refuses_ids_outside_the_vocabulary(ids: list[list[int]], got: int) -> None:
    assert refusal(ValueError, torch.tensor(ids)) == (
        f"input_ids holds {got}, expected 0 to 10; the tokenizer must be that of the checkpoint"
    )
    packed = torch.tensor(ids)[0]
    message = refusal(ValueError, packed, layout=Packed.from_lengths([2]))
    assert message.startswith(f"input_ids holds {got}, expected 0 to 10;")


def test_model_takes_the_first_and_the_last_row_of_each_table() -> None:
    ids, types = torch.tensor([[0, 10, 5]]), torch.tensor([[0, 2, 1]])
    assert BertModel(TINY)(ids, token_type_ids=types).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("kind", [3, -1])
def test_model_refuses_unknown_token_types(kind: int) -> None:
    assert refusal(ValueError, IDS, None, torch.tensor([[0, kind, 0]])) == (
        f"token_type_ids holds {kind}, expected 0 to 2; the tokenizer must be that of the "
        "checkpoint"
    )


@pytest.mark.parametrize("shape", [(1, 2), (3,), (2, 3)])
def test_model_refuses_token_types_of_another_shape(shape: tuple[int, ...]) -> None:
    assert refusal(ValueError, IDS, None, torch.zeros(shape, dtype=torch.long)) == (
        f"token_type_ids has shape {shape}, expected (1, 3), the shape of input_ids"
    )


def test_model_refuses_ids_that_are_no_integers() -> None:
    message = "input_ids is torch.float32, expected integers: rows of a table"
    assert refusal(TypeError, torch.ones(3), layout=Packed.from_lengths([3])) == message
    message = "input_ids is torch.bool, expected integers: rows of a table"
    wrong = torch.ones(3, dtype=torch.bool)
    assert refusal(TypeError, wrong, layout=Packed.from_lengths([3])) == message
    message = "token_type_ids is torch.float64, expected integers: rows of a table"
    assert refusal(TypeError, IDS, None, torch.zeros(1, 3, dtype=torch.float64)) == message


@settings(max_examples=10)
@given(configs())
def test_model_of_any_small_configuration_runs(config: BertConfig) -> None:
    ids = torch.zeros(1, config.max_position_embeddings, dtype=torch.long)
    out = BertModel(config).eval()(ids)
    assert out.last_hidden_state.shape == (1, ids.shape[1], config.hidden_size)
    assert bool(out.last_hidden_state.isfinite().all())
