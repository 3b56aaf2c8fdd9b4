"""The trace: every stage has its shape and its formula, and nothing changes by looking."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from strategies import TINY, Batch, networks, randomised, scaled_error
from torch import Tensor, nn

import minibert
from minibert import BertConfig, BertModel, Tokenizer
from minibert.errors import ParityError
from minibert.layout import pack
from minibert.parity.stages import stages_of
from minibert.parity.trace import trace

HEADS = [getattr(minibert, name) for name in minibert.__all__ if name.startswith("BertFor")]
IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
TYPES = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])


def a_model(kind: type[nn.Module] = BertModel, config: BertConfig = TINY) -> nn.Module:
    return randomised(kind(config).double().eval(), seed=3)


def sizes(config: BertConfig, batch: int, seq: int) -> dict[str, int]:
    return {
        **{"batch": batch, "seq": seq, "keys": seq, "hidden": config.hidden_size},
        **{"intermediate": config.intermediate_size, "heads": config.num_attention_heads},
        "head_dim": config.head_dim,
    }


cases = networks("first").map(lambda case: (case[0].double(), case[1]))


# ---- shapes, formulas


@given(cases)
def test_every_stage_is_captured_in_order_with_its_shape(case: tuple[nn.Module, Batch]) -> None:
    model, batch = case
    with trace(model) as stages:
        model(*batch)
    table = stages_of(model)
    assert list(stages) == [stage.name for stage in table]
    extent = sizes(model.config, *batch.input_ids.shape)
    for stage in table:
        assert tuple(stages[stage.name].shape) == tuple(extent[axis] for axis in stage.axes)


@given(cases)
def test_stages_follow_from_each_other_by_their_formulas(case: tuple[nn.Module, Batch]) -> None:
    model, batch = case
    config, embeddings = model.config, model.embeddings
    with trace(model) as s:
        model(*batch)

    def norm(x: Tensor, module: nn.LayerNorm) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.pow(2).mean(-1, keepdim=True) + config.layer_norm_eps).sqrt()
        return centred / deviation * module.weight + module.bias

    expected = {
        "embeddings.token": embeddings.token.weight[batch.input_ids],
        "embeddings.token_type": embeddings.token_type.weight[batch.token_type_ids],
        "embeddings.position": embeddings.position.weight[: batch.input_ids.shape[1]].expand(
            len(batch.input_ids), -1, -1
        ),
        "embeddings.sum": s["embeddings.token"]
        + s["embeddings.token_type"]
        + s["embeddings.position"],
        "embeddings.norm": norm(s["embeddings.sum"], embeddings.norm),
    }
    below = s["embeddings.norm"]
    for i, layer in enumerate(model.layers):
        at = f"layers.{i}."
        q, k, v = (s[f"{at}{name}"] for name in "qkv")
        weights, biases = layer.attention.qkv.weight.chunk(3), layer.attention.qkv.bias.chunk(3)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            expected[f"{at}{name}"] = (below @ weight.T + bias).view(q.shape)
        expected[f"{at}scores"] = torch.einsum("bihd,bjhd->bhij", q, k) / config.head_dim**0.5
        powers = s[f"{at}scores"].exp() * batch.mask[:, None, None, :]
        expected[f"{at}probabilities"] = powers / powers.sum(-1, keepdim=True)
        expected[f"{at}context"] = torch.einsum("bhij,bjhd->bihd", s[f"{at}probabilities"], v)
        output, up, down = layer.attention.output, layer.feed_forward.up, layer.feed_forward.down
        expected[f"{at}attention_output"] = (
            s[f"{at}context"].flatten(-2) @ output.weight.T + output.bias
        )
        expected[f"{at}attention_norm"] = norm(
            below + s[f"{at}attention_output"], layer.attention_norm
        )
        expected[f"{at}pre_activation"] = s[f"{at}attention_norm"] @ up.weight.T + up.bias
        expected[f"{at}activation"] = layer.feed_forward.activation(s[f"{at}pre_activation"])
        expected[f"{at}feed_forward_output"] = s[f"{at}activation"] @ down.weight.T + down.bias
        below = expected[f"{at}feed_forward_norm"] = norm(
            s[f"{at}attention_norm"] + s[f"{at}feed_forward_output"], layer.feed_forward_norm
        )
    dense = model.pooler.dense
    expected["pooler"] = torch.tanh(below[:, 0] @ dense.weight.T + dense.bias)
    assert list(expected) == list(s)
    for name in s:
        assert scaled_error(s[name], expected[name]) <= 1e-12, name


@pytest.mark.parametrize("kind", HEADS, ids=lambda kind: kind.__name__)
def test_stages_of_a_head_end_with_what_it_returns(kind: type[nn.Module]) -> None:
    model = a_model(kind)
    shape = (1, *IDS.shape) if "Choice" in kind.__name__ else IDS.shape
    with trace(model) as stages:
        out = model(IDS.view(shape), MASK.view(shape))
    returned = out._asdict()
    assert list(stages)[-len(returned) :] == list(returned)
    for name, tensor in returned.items():
        assert stages[name] is tensor
    assert ("pooler" in stages) == (model.bert.pooler is not None)
    if "predictions.transform" in stages:
        logits = stages["predictions.transform"] @ model.bert.embeddings.token.weight.T
        name = "logits" if "logits" in stages else "prediction_logits"
        assert scaled_error(logits + model.predictions.bias, stages[name]) <= 1e-12


@given(cases)
def test_packed_stages_are_the_attended_rows_of_the_padded(case: tuple[nn.Module, Batch]) -> None:
    model, batch = case
    with trace(model) as padded:
        model(*batch)
    ids, layout = pack(batch.input_ids, batch.mask)
    types, _ = pack(batch.token_type_ids, batch.mask)
    with trace(model) as packed:
        model(ids, token_type_ids=types, layout=layout)
    assert list(packed) == list(padded)
    for name, tensor in packed.items():
        if name == "pooler":
            expected = padded[name]
        elif name.endswith(("scores", "probabilities")):
            start = 0
            for row, length in enumerate(layout.lengths):
                own = slice(start, start + length)
                kept = padded[name][row][:, batch.mask[row]][..., batch.mask[row]]
                assert scaled_error(tensor[:, own, own], kept) <= 1e-12, name
                start += length
            if name.endswith("probabilities"):
                assert not tensor[:, ~layout.visible()[0]].any()
            continue
        else:
            expected = padded[name][batch.mask]
        assert scaled_error(tensor, expected) <= 1e-12, name


# ---- looking changes nothing


@pytest.mark.parametrize("kind", [BertModel, *HEADS], ids=lambda kind: kind.__name__)
def test_tracing_changes_no_bit_and_leaves_nothing_behind(kind: type[nn.Module]) -> None:
    model = a_model(kind)
    shape = (1, *IDS.shape) if "Choice" in kind.__name__ else IDS.shape
    inputs = (IDS.view(shape), MASK.view(shape), TYPES.view(shape))
    before = model(*inputs)
    state = {
        name: (dict(module._forward_hooks), dict(module._forward_pre_hooks), vars(module).copy())
        for name, module in model.named_modules()
    }
    with trace(model) as stages:
        traced = model(*inputs)
    for one, other in zip(before, traced, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    count = len(stages)
    model(*inputs)
    assert len(stages) == count  # of the call within the block
    for name, module in model.named_modules():
        hooks = (dict(module._forward_hooks), dict(module._forward_pre_hooks))
        assert (*hooks, vars(module)) == state[name]


def test_trace_is_taken_away_when_the_network_fails() -> None:
    model = a_model()
    attend = model.layers[0].attention.attend
    with pytest.raises(ValueError, match="expected 0 to 10"), trace(model):
        model(torch.tensor([[99]]))
    assert model.layers[0].attention.attend is attend
    assert not model.embeddings._forward_pre_hooks


def test_traces_within_each_other_see_the_same() -> None:
    model = a_model()
    with trace(model) as outer, trace(model, "pooler") as inner:
        model(IDS)
    assert torch.equal(inner["pooler"], outer["pooler"])
    assert list(inner) == ["pooler"]


def test_trace_holds_the_last_call() -> None:
    model = a_model()
    with trace(model, "embeddings.token") as stages:
        model(IDS)
        model(IDS[:1, :2])
    assert stages["embeddings.token"].shape == (1, 2, TINY.hidden_size)


def test_model_without_pooler_has_no_such_stage() -> None:
    model = a_model()
    model.pooler = None
    with trace(model) as stages:
        model(IDS)
    assert "pooler" not in stages


# ---- choosing, refusing


def test_stages_are_chosen_by_pattern() -> None:
    model = a_model()
    with trace(model, ["layers.1.[qk]", "layers.*.scores", "pooler"]) as stages:
        model(IDS)
    assert list(stages) == [
        "layers.0.scores", "layers.1.q", "layers.1.k", "layers.1.scores", "pooler",
    ]  # fmt: skip


def test_pattern_of_no_stage_is_refused_with_what_is_near() -> None:
    with pytest.raises(ParityError, match=r"^no stage of this network is called 'layers.0.query'"):
        trace(a_model(), ["pooler", "layers.0.query"])
    with pytest.raises(ParityError, match=r"'layers.2.q', expected a name such as layers.1.q"):
        trace(a_model(), "layers.2.q")


def test_another_network_is_refused() -> None:
    with pytest.raises(ParityError, match=r"^got Linear, expected BertModel or one of minibert's"):
        trace(nn.Linear(2, 2))


def test_stage_that_was_not_captured_says_why() -> None:
    with trace(a_model(), "pooler") as stages:
        pass
    with pytest.raises(KeyError, match="pooler was not captured: the network has not run"):
        stages["pooler"]
    with pytest.raises(KeyError, match=r"layers.0.q was not captured: it was not asked for"):
        stages["layers.0.q"]
    with pytest.raises(KeyError, match="no stage of this network is called 'q'"):
        stages["q"]


def test_patch_of_no_stage_or_another_shape_is_refused() -> None:
    model = a_model()
    with trace(model) as stages:
        with pytest.raises(ParityError, match=r"no stage of this network is called 'layers.9.q'"):
            stages.patch("layers.9.q", torch.relu)
        stages.patch("layers.0.q", lambda q: q[..., :1])
        with pytest.raises(
            ParityError, match=r"^the patch of layers.0.q gave torch.float64 of sha"
        ):
            model(IDS)
        stages.patch("layers.0.q", torch.Tensor.float)
        with pytest.raises(ParityError, match=r"gave torch.float32 .* expected torch.float64"):
            model(IDS)


# ---- patching


@pytest.mark.parametrize("index", range(TINY.num_attention_heads))
@pytest.mark.parametrize("packed", [False, True])
def test_zeroing_a_head_equals_removing_its_columns(index: int, packed: bool) -> None:
    model, without = a_model(), a_model()
    columns = slice(index * TINY.head_dim, (index + 1) * TINY.head_dim)
    with torch.no_grad():
        without.layers[1].attention.output.weight[:, columns] = 0

    def zero(context: Tensor) -> Tensor:
        context = context.clone()
        context[..., index, :] = 0
        return context

    ids, layout = pack(IDS, MASK) if packed else (IDS, None)
    with trace(model, "pooler") as stages:
        stages.patch("layers.1.context", zero)
        patched = model(ids, None if packed else MASK, layout=layout)
    expected = without(ids, None if packed else MASK, layout=layout)
    plain = model(ids, None if packed else MASK, layout=layout)
    assert scaled_error(patched.last_hidden_state, expected.last_hidden_state) <= 1e-14
    assert scaled_error(patched.last_hidden_state, plain.last_hidden_state) > 1e-6


@pytest.mark.parametrize("name", [stage.name for stage in stages_of(BertModel(TINY))])
def test_every_stage_can_be_patched_and_what_follows_changes(name: str) -> None:
    model = a_model()
    with trace(model) as plain:
        model(IDS, MASK, TYPES)
    kept = dict(plain)
    added = torch.linspace(0.1, 1, kept[name].shape[-1], dtype=torch.float64)
    with trace(model) as changed:
        changed.patch(name, lambda x: 2 * x + added)
        model(IDS, MASK, TYPES)
    names = list(kept)
    for before in names[: names.index(name)]:
        assert torch.equal(kept[before], changed[before]), before
    assert torch.equal(changed[name], 2 * kept[name] + added)
    if name != "pooler":
        assert not torch.equal(kept["pooler"], changed["pooler"])


def test_activations_of_one_text_patched_into_another() -> None:
    model = a_model()
    with trace(model) as source:
        model(IDS[:1])
    with trace(model) as target:
        target.patch("layers.0.feed_forward_norm", lambda _: source["layers.0.feed_forward_norm"])
        patched = model(IDS[1:])
    assert torch.equal(patched.last_hidden_state, source["layers.1.feed_forward_norm"])


def test_patched_probabilities_decide_the_context() -> None:
    model = a_model()
    with trace(model) as stages:
        stages.patch("layers.0.probabilities", lambda p: torch.eye(5, dtype=p.dtype).expand_as(p))
        model(IDS)
    assert torch.allclose(stages["layers.0.context"], stages["layers.0.v"])


# ---- gradients


def test_gradients_flow_through_every_stage() -> None:
    model = a_model()
    with trace(model) as stages:
        for i in range(2):  # computed beside the fused attention unless patched
            stages.patch(f"layers.{i}.scores", lambda x: x)
        out = model(IDS, MASK, TYPES)
    target = out.pooler_output.sum()
    gradients = torch.autograd.grad(target, list(stages.values()))
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients)


def test_gradient_of_a_stage_is_its_finite_difference() -> None:
    model = a_model()
    direction = torch.linspace(-1, 1, TINY.hidden_size, dtype=torch.float64)

    def target(step: float) -> tuple[Tensor, Tensor]:
        with trace(model, "layers.0.attention_norm") as stages:
            stages.patch("layers.0.attention_norm", lambda x: x + step * direction)
            value = model(IDS, MASK, TYPES).pooler_output.sum()
        return value, stages["layers.0.attention_norm"]

    value, stage = target(0.0)
    (gradient,) = torch.autograd.grad(value, stage)
    slope = (target(1e-5)[0] - target(-1e-5)[0]) / 2e-5
    assert slope.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-7)


def integrated_gradients(
    model: nn.Module, ids: Tensor, baseline: Tensor, direction: Tensor
) -> tuple[float, float]:
    """The sum of the attributions of the word embeddings, and the difference that they explain."""
    with trace(model, "embeddings.token") as stages, torch.no_grad():
        start, end = (
            (model(x).last_hidden_state.mean(1) @ direction).item() for x in (baseline, ids)
        )
        model(ids)
        words = stages["embeddings.token"]
        model(baseline)
        pads = stages["embeddings.token"]
    nodes, weights = np.polynomial.legendre.leggauss(64)
    total = 0.0
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        with trace(model, "embeddings.token") as stages:
            point = (pads + node * (words - pads)).requires_grad_()
            stages.patch("embeddings.token", lambda _, point=point: point)
            target = (model(ids).last_hidden_state.mean(1) @ direction).sum()
        (gradient,) = torch.autograd.grad(target, point)
        total += weight * ((words - pads) * gradient).sum().item()
    return total, end - start


@settings(max_examples=5)
@given(cases)
def test_integrated_gradients_explain_the_difference(case: tuple[nn.Module, Batch]) -> None:
    model, batch = case
    ids = batch.input_ids[:1]
    direction = torch.linspace(-1, 1, model.config.hidden_size, dtype=torch.float64)
    attributed, difference = integrated_gradients(model, ids, torch.zeros_like(ids), direction)
    assert attributed == pytest.approx(difference, rel=0.01, abs=1e-9)


def test_integrated_gradients_explain_minilm(minilm: Path) -> None:
    model = BertModel.from_pretrained(minilm)
    ids = torch.tensor([Tokenizer.from_pretrained(minilm).encode(["The cat sat."])[0].ids])
    baseline = ids.clone()
    baseline[:, 1:-1] = 0
    direction = F.normalize(torch.linspace(-1, 1, model.config.hidden_size), dim=0)
    attributed, difference = integrated_gradients(model, ids, baseline, direction)
    assert abs(difference) > 0.05
    assert attributed == pytest.approx(difference, rel=0.01)
