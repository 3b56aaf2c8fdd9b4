"""Known ways to write a BERT wrong, each as the rule that would be computed then.

A variant changes the rules of some stages (`replay.RULES`).  What it gives is held against what the
candidate recorded: the variant that explains the difference is the likely cause.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.ops import ACTIVATIONS
from minibert.parity.replay import RULES, Rule, Scope, projection


@dataclass(frozen=True)
class Variant:
    """One mistake: its name, what to look at in the candidate, and the rules it changes."""

    name: str
    advice: str
    changes: Mapping[str, Rule]


def _norm(
    x: Tensor,
    module: nn.LayerNorm,
    *,
    eps: float | None = None,
    unbiased: bool = False,
    outside: bool = False,
    centred: bool = True,
    weight: bool = True,
    bias: bool = True,
) -> Tensor:
    """LayerNorm, or what it is mistaken for."""
    eps = module.eps if eps is None else eps
    shifted = x - x.mean(-1, keepdim=True) if centred else x
    width = x.shape[-1] - 1 if unbiased else x.shape[-1]
    variance = shifted.pow(2).sum(-1, keepdim=True) / max(width, 1)
    found = shifted / (variance.sqrt() + eps if outside else (variance + eps).sqrt())
    found = found * module.weight if weight else found
    return found + module.bias if bias else found


# Each norm: how it is reached, what goes into it, what the block behind it adds to.
_SUMS: dict[str, tuple[Callable[[Scope], nn.LayerNorm], Rule, Rule, Rule]] = {
    "embeddings.norm": (
        lambda s: s.encoder.embeddings.norm,
        lambda s: s["embeddings.sum"],
        lambda s: torch.zeros_like(s["embeddings.sum"]),
        lambda s: s["embeddings.sum"],
    ),
    "attention_norm": (
        lambda s: s.layer.attention_norm,
        lambda s: s.below + s["attention_output"],
        lambda s: s.below,
        lambda s: s["attention_output"],
    ),
    "feed_forward_norm": (
        lambda s: s.layer.feed_forward_norm,
        lambda s: s["attention_norm"] + s["feed_forward_output"],
        lambda s: s["attention_norm"],
        lambda s: s["feed_forward_output"],
    ),
}


def _norms(change: Callable[[Scope, nn.LayerNorm, Rule, Rule, Rule], Tensor]) -> dict[str, Rule]:
    """The same mistake in every norm."""

    def rule(s: Scope, kind: str) -> Tensor:
        module, total, residual, output = _SUMS[kind]
        return change(s, module(s), total, residual, output)

    return {kind: partial(rule, kind=kind) for kind in _SUMS}


def _residuals(change: Callable[[Scope, nn.LayerNorm, Rule, Rule], Tensor]) -> dict[str, Rule]:
    """The same mistake at both sums of a layer."""
    changes = _norms(lambda s, norm, _, residual, output: change(s, norm, residual, output))
    return {kind: rule for kind, rule in changes.items() if kind != "embeddings.norm"}


def _qkv(change: Callable[[Scope, int], Tensor]) -> dict[str, Rule]:
    """A mistake in all three projections."""
    return {
        kind: partial(lambda s, part: change(s, part), part=part) for part, kind in enumerate("qkv")
    }


def _transposed_projection(s: Scope, part: int) -> Tensor:
    qkv = s.layer.attention.qkv
    found = s.below @ qkv.weight.chunk(3)[part] + qkv.bias.chunk(3)[part]
    return found.view(*found.shape[:-1], *s.layer.attention.heads_shape[1:])


def _unbiased_projection(s: Scope, part: int) -> Tensor:
    found = s.below @ s.layer.attention.qkv.weight.chunk(3)[part].T
    return found.view(*found.shape[:-1], *s.layer.attention.heads_shape[1:])


def _interleaved(s: Scope, part: int) -> Tensor:
    """The heads taken as every n-th column, instead of neighbouring ones."""
    found = projection(s, part).flatten(-2)
    _, heads, head_dim = s.layer.attention.heads_shape
    return found.view(*found.shape[:-1], head_dim, heads).transpose(-2, -1)


def _by_head(s: Scope, part: int) -> Tensor:
    """A fused projection whose rows are taken as (heads, 3, head_dim) instead of (3, heads, …)."""
    _, heads, head_dim = s.layer.attention.heads_shape
    joined = torch.cat([projection(s, i).flatten(-2) for i in range(3)], -1)
    return joined.view(*joined.shape[:-1], heads, 3, head_dim)[..., part, :]


def _prenorm(s: Scope, part: int) -> Tensor:
    return projection(s, part, s.layer.attention_norm(s.below))


def _linear(
    linear: Callable[[Scope], nn.Linear], inputs: Rule, *, transposed: bool = False
) -> Rule:
    """A linear layer without its bias, or with its square weight transposed."""

    def rule(s: Scope) -> Tensor:
        module, x = linear(s), inputs(s)
        if not transposed:
            return x @ module.weight.T
        if module.in_features != module.out_features:
            return module(x)  # such a mistake would not run
        return x @ module.weight + module.bias

    return rule


_LINEARS: dict[str, tuple[Callable[[Scope], nn.Linear], Rule]] = {
    "attention_output": (
        lambda s: s.layer.attention.output,
        lambda s: s["context"].flatten(-2),
    ),
    "pre_activation": (lambda s: s.layer.feed_forward.up, lambda s: s["attention_norm"]),
    "feed_forward_output": (lambda s: s.layer.feed_forward.down, lambda s: s["activation"]),
}


def _masked(value: float) -> Rule:
    """The mask added to the scores as this value, where it should hide."""

    def rule(s: Scope) -> Tensor:
        return (s["scores"] + value * (~s.mask)[:, None, None, :]).softmax(-1)

    return rule


def _probabilities_unmasked(s: Scope) -> Tensor:
    return s["scores"].softmax(-1)


def _inverted(s: Scope) -> Tensor:
    found = s["scores"].masked_fill(s.mask[:, None, None, :], -math.inf).softmax(-1)
    return found.nan_to_num(nan=1 / found.shape[-1])


def _multiplied(s: Scope) -> Tensor:
    return (s["scores"] * s.mask[:, None, None, :]).softmax(-1)


def _masked_after(s: Scope) -> Tensor:
    return s["scores"].softmax(-1) * s.mask[:, None, None, :]


def _causal(s: Scope) -> Tensor:
    seq = s.ids.shape[1]
    seen = torch.ones(seq, seq).tril().bool() & s.mask[:, None, None, :]
    return s["scores"].masked_fill(~seen, -math.inf).softmax(-1).nan_to_num()


def _over_queries(s: Scope) -> Tensor:
    return (
        s["scores"]
        .masked_fill(~s.mask[:, None, None, :], -math.inf)
        .softmax(-2)
        .nan_to_num(nan=1 / s.ids.shape[1])
    )


def _query_mask(s: Scope) -> Tensor:
    found = s["scores"].masked_fill(~s.mask[:, None, :, None], -math.inf).softmax(-1)
    return found.nan_to_num(nan=1 / found.shape[-1])


def _scaled_scores(factor: Callable[[Scope], float]) -> Rule:
    def rule(s: Scope) -> Tensor:
        return RULES["scores"](s) * factor(s)

    return rule


def _head_dim(s: Scope) -> float:
    return float(s.layer.attention.heads_shape[-1])


def _heads_not_back(s: Scope) -> Tensor:
    """The heads left before the tokens when they are laid side by side."""
    context = RULES["context"](s)
    return context.transpose(1, 2).reshape(context.shape)


def _positions(index: Callable[[Scope], Tensor]) -> Rule:
    def rule(s: Scope) -> Tensor:
        table = s.encoder.embeddings.position.weight
        return table[index(s).clamp(0, len(table) - 1)].expand(*s.ids.shape, -1)

    return rule


def _sinusoids(s: Scope) -> Tensor:
    width, seq = s.encoder.config.hidden_size, s.ids.shape[1]
    angle = torch.arange(seq)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    waves = torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)[:, :width]
    return waves.expand(*s.ids.shape, -1)


def _token_types(types: Callable[[Scope], Tensor]) -> Rule:
    def rule(s: Scope) -> Tensor:
        table = s.encoder.embeddings.token_type.weight
        return table[types(s).clamp(0, len(table) - 1)]

    return rule


def _mean(s: Scope, mask: Tensor) -> Tensor:
    kept = mask[..., None].to(s.below.dtype)
    return (s.below * kept).sum(1) / kept.sum(1)


def _pooled(vector: Rule, *, dense: bool = True, tanh: bool = True) -> Rule:
    def rule(s: Scope) -> Tensor:
        found = _dense(s)(vector(s)) if dense else vector(s)
        return found.tanh() if tanh else found

    return rule


def _dense(s: Scope) -> nn.Linear:
    assert s.encoder.pooler is not None
    return s.encoder.pooler.dense


def _last_token(s: Scope) -> Tensor:
    return s.below[torch.arange(len(s.ids)), s.mask.sum(1) - 1]


def _transformed(
    activation: Callable[[Tensor], Tensor] | None = None,
    *,
    norm: Callable[[Tensor, nn.LayerNorm], Tensor] | None = None,
) -> Rule:
    def rule(s: Scope) -> Tensor:
        head = s.head.predictions
        found = (activation or head.activation)(head.dense(s.below))
        result: Tensor = (norm or (lambda x, module: module(x)))(found, head.norm)
        return result

    return rule


def _words_unbiased(s: Scope) -> Tensor:
    decoder = s.head.predictions.decoder
    weight = s.encoder.embeddings.token.weight if decoder is None else decoder.weight
    found: Tensor = s["predictions.transform"] @ weight.T
    return found


def _words_tied(s: Scope) -> Tensor:
    """Tied to the embedding table where the checkpoint has a decoder of its own."""
    head = s.head.predictions
    bias = head.bias if head.decoder is None else head.decoder.bias
    found: Tensor = s["predictions.transform"] @ s.encoder.embeddings.token.weight.T + bias
    return found


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _activation(name: str, function: Callable[[Tensor], Tensor], advice: str) -> Variant:
    rules: dict[str, Rule] = {
        "activation": lambda s: function(s["pre_activation"]),
        "predictions.transform": _transformed(function),
    }
    return Variant(name, advice, rules)


def _eps(eps: float) -> Variant:
    changes = _norms(lambda s, norm, total, *_: _norm(total(s), norm, eps=eps))
    changes["predictions.transform"] = _transformed(norm=partial(_norm, eps=eps))
    return Variant(f"LayerNorm with eps {eps:g}", "take layer_norm_eps of config.json", changes)


_UNSEEN = (
    -1.0,
    -10.0,
    -100.0,
    -1e4,
    torch.finfo(torch.float16).min,
    torch.finfo(torch.float32).min,
)

VARIANTS: tuple[Variant, ...] = (
    # activation
    _activation("tanh GELU", ACTIVATIONS["gelu_new"], 'hidden_act "gelu" is the exact erf form'),
    _activation(
        "exact GELU", ACTIVATIONS["gelu"], 'hidden_act "gelu_new" is the tanh form of GELU'
    ),
    _activation("quick GELU", _quick_gelu, "x · sigmoid(1.702 x) is CLIP's, take hidden_act's"),
    _activation("ReLU", torch.relu, "take the activation that hidden_act names"),
    _activation("SiLU", F.silu, "take the activation that hidden_act names"),
    _activation("tanh", torch.tanh, "take the activation that hidden_act names"),
    _activation("no activation", lambda x: x, "apply hidden_act between the two linear layers"),
    # norms
    *(_eps(eps) for eps in (1e-5, 1e-6, 1e-12, 1e-8, 1e-3, 0.0)),
    Variant(
        "LayerNorm with the unbiased variance",
        "divide by the width, not by the width less 1",
        _norms(lambda s, norm, total, *_: _norm(total(s), norm, unbiased=True))
        | {"predictions.transform": _transformed(norm=partial(_norm, unbiased=True))},
    ),
    Variant(
        "LayerNorm with eps outside the square root",
        "√(variance + eps), not √variance + eps",
        _norms(lambda s, norm, total, *_: _norm(total(s), norm, outside=True)),
    ),
    Variant(
        "no LayerNorm",
        "normalise the sum",
        _norms(lambda s, norm, total, *_: total(s))
        | {"predictions.transform": _transformed(norm=lambda x, module: x)},
    ),
    Variant(
        "RMSNorm in place of LayerNorm",
        "subtract the mean before dividing",
        _norms(lambda s, norm, total, *_: _norm(total(s), norm, centred=False)),
    ),
    Variant(
        "LayerNorm without its weight",
        "multiply by LayerNorm.weight (gamma in old files)",
        _norms(lambda s, norm, total, *_: _norm(total(s), norm, weight=False)),
    ),
    Variant(
        "LayerNorm without its bias",
        "add LayerNorm.bias (beta in old files)",
        _norms(lambda s, norm, total, *_: _norm(total(s), norm, bias=False)),
    ),
    Variant(
        "pre-norm",
        "BERT normalises behind each sum (post-norm), not before each block",
        _qkv(_prenorm)
        | {
            "attention_norm": lambda s: s.below + s["attention_output"],
            "pre_activation": lambda s: s.layer.feed_forward.up(
                s.layer.feed_forward_norm(s["attention_norm"])
            ),
            "feed_forward_norm": lambda s: s["attention_norm"] + s["feed_forward_output"],
        },
    ),
    Variant(
        "no residual",
        "add the block's input to its output before the norm",
        _residuals(lambda s, norm, residual, output: norm(output(s))),
    ),
    Variant(
        "norm before the sum",
        "LayerNorm(input + output), not input + LayerNorm(output)",
        _residuals(lambda s, norm, residual, output: residual(s) + norm(output(s))),
    ),
    Variant(
        "residual from the layer's input",
        "the feed-forward block adds to attention_norm, not to what the layer got",
        {
            "feed_forward_norm": lambda s: s.layer.feed_forward_norm(
                s.below + s["feed_forward_output"]
            )
        },
    ),
    Variant(
        "feed-forward from the layer's input",
        "the feed-forward block reads attention_norm, not what the layer got",
        {"pre_activation": lambda s: s.layer.feed_forward.up(s.below)},
    ),
    # embeddings
    Variant(
        "token types absent",
        "add the row of token type 0 even where no types are given",
        {
            "embeddings.token_type": lambda s: torch.zeros_like(s["embeddings.token"]),
            "embeddings.sum": lambda s: s["embeddings.token"] + s["embeddings.position"],
        },
    ),
    Variant(
        "token types swapped",
        "0 for the first text, 1 for the second",
        {"embeddings.token_type": _token_types(lambda s: 1 - s.types)},
    ),
    Variant(
        "token types all 0",
        "hand token_type_ids on: 1 for the second text of a pair",
        {"embeddings.token_type": _token_types(lambda s: torch.zeros_like(s.types))},
    ),
    Variant(
        "token types all 1",
        "0 for the first text, 1 for the second",
        {"embeddings.token_type": _token_types(lambda s: torch.ones_like(s.types))},
    ),
    Variant(
        "attention mask taken for token types",
        "the order of arguments is input_ids, attention_mask, token_type_ids",
        {"embeddings.token_type": _token_types(lambda s: s.mask.long())},
    ),
    Variant(
        "positions shifted by 2",
        "BERT counts positions from 0; the offset of 2 is RoBERTa's",
        {"embeddings.position": _positions(lambda s: s.layout.positions + 2)},
    ),
    Variant(
        "positions shifted by 1",
        "BERT counts positions from 0",
        {"embeddings.position": _positions(lambda s: s.layout.positions + 1)},
    ),
    Variant(
        "positions counted from the first attended token",
        "positions are column numbers, whatever the mask: left padding shifts the text",
        {"embeddings.position": _positions(lambda s: s.mask.long().cumsum(1) - 1)},
    ),
    Variant(
        "positions all 0",
        "positions are column numbers",
        {"embeddings.position": _positions(lambda s: torch.zeros_like(s.layout.positions))},
    ),
    Variant(
        "positions absent",
        "add the row of the position table",
        {
            "embeddings.position": lambda s: torch.zeros_like(s["embeddings.token"]),
            "embeddings.sum": lambda s: s["embeddings.token"] + s["embeddings.token_type"],
        },
    ),
    Variant(
        "sinusoids in place of learned positions",
        "BERT learns its positions: take embeddings.position_embeddings",
        {"embeddings.position": _sinusoids},
    ),
    Variant(
        "embeddings scaled by √hidden",
        "BERT does not scale its embeddings",
        {
            "embeddings.token": lambda s: (
                RULES["embeddings.token"](s) * math.sqrt(s.encoder.config.hidden_size)
            )
        },
    ),
    # projections
    Variant("missing bias", "add the bias of query, key and value", _qkv(_unbiased_projection)),
    Variant(
        "transposed weights",
        "nn.Linear holds (out, in); TensorFlow and JAX hold (in, out)",
        _qkv(_transposed_projection),
    ),
    Variant(
        "queries and keys swapped",
        "the fused projection is query, key, value",
        {"q": lambda s: projection(s, 1), "k": lambda s: projection(s, 0)},
    ),
    Variant(
        "keys and values swapped",
        "the fused projection is query, key, value",
        {"k": lambda s: projection(s, 2), "v": lambda s: projection(s, 1)},
    ),
    Variant(
        "queries and values swapped",
        "the fused projection is query, key, value",
        {"q": lambda s: projection(s, 2), "v": lambda s: projection(s, 0)},
    ),
    Variant(
        "heads interleaved",
        "a head is neighbouring columns: view(…, heads, head_dim), not (…, head_dim, heads)",
        _qkv(_interleaved),
    ),
    Variant(
        "fused projection split by head",
        "its rows are query, key, value, each of all heads",
        _qkv(_by_head),
    ),
    # attention
    Variant(
        "missing scale",
        "divide the scores by √head_dim",
        {"scores": _scaled_scores(lambda s: math.sqrt(_head_dim(s)))},
    ),
    Variant(
        "scaled by head_dim",
        "divide the scores by √head_dim, not by head_dim",
        {"scores": _scaled_scores(lambda s: 1 / math.sqrt(_head_dim(s)))},
    ),
    Variant(
        "scaled by √hidden",
        "divide the scores by √head_dim, not by √hidden",
        {
            "scores": _scaled_scores(
                lambda s: math.sqrt(_head_dim(s) / s.encoder.config.hidden_size)
            )
        },
    ),
    Variant(
        "missing mask",
        "hide padding: scores of masked keys become -inf before softmax",
        {"probabilities": _probabilities_unmasked},
    ),
    *(
        Variant(
            f"mask value {value:g}",
            "hide padding wholly: -inf, or a boolean mask; in half precision no finite value does",
            {"probabilities": _masked(value)},
        )
        for value in _UNSEEN
    ),
    Variant(
        "mask inverted",
        "1 means attend; in some libraries True means hide",
        {"probabilities": _inverted},
    ),
    Variant(
        "mask multiplied into the scores",
        "a score of 0 hides nothing: set it to -inf",
        {"probabilities": _multiplied},
    ),
    Variant(
        "mask applied after softmax",
        "hide before softmax, so that the rest sums to 1",
        {"probabilities": _masked_after},
    ),
    Variant(
        "mask on the queries",
        "the mask hides keys: (batch, 1, 1, seq), not (batch, 1, seq, 1)",
        {"probabilities": _query_mask},
    ),
    Variant("causal mask", "BERT looks both ways: no triangle", {"probabilities": _causal}),
    Variant(
        "softmax over the queries",
        "normalise over the keys, the last axis",
        {"probabilities": _over_queries},
    ),
    Variant(
        "heads not transposed back",
        "(batch, heads, seq, head_dim) becomes (batch, seq, heads, head_dim) before the reshape",
        {"context": _heads_not_back},
    ),
    # linear layers
    Variant(
        "missing bias",
        "add the bias of the linear layer",
        {kind: _linear(linear, inputs) for kind, (linear, inputs) in _LINEARS.items()}
        | {"pooler": lambda s: (s.below[:, 0] @ _dense(s).weight.T).tanh()},
    ),
    Variant(
        "transposed weights",
        "nn.Linear holds (out, in); TensorFlow and JAX hold (in, out)",
        {
            kind: _linear(linear, inputs, transposed=True)
            for kind, (linear, inputs) in _LINEARS.items()
        }
        | {
            "pooler": lambda s: (s.below[:, 0] @ _dense(s).weight + _dense(s).bias).tanh(),
        },
    ),
    # behind the layers
    Variant(
        "pooled by mean instead of first token",
        "the pooler reads the first token, [CLS]",
        {"pooler": _pooled(lambda s: _mean(s, s.mask))},
    ),
    Variant(
        "pooled by mean, padding included",
        "the pooler reads the first token, [CLS]",
        {"pooler": _pooled(lambda s: _mean(s, torch.ones_like(s.mask)))},
    ),
    Variant(
        "pooled by maximum",
        "the pooler reads the first token, [CLS]",
        {"pooler": _pooled(lambda s: s.below.masked_fill(~s.mask[..., None], -math.inf).amax(1))},
    ),
    Variant(
        "pooled from the last token",
        "the pooler reads the first token, [CLS]",
        {"pooler": _pooled(_last_token)},
    ),
    Variant(
        "pooler without tanh",
        "tanh(dense(first token))",
        {"pooler": _pooled(lambda s: s.below[:, 0], tanh=False)},
    ),
    Variant(
        "pooler without its dense layer",
        "tanh(dense(first token))",
        {"pooler": _pooled(lambda s: s.below[:, 0], dense=False, tanh=False)},
    ),
    Variant(
        "missing bias",
        "add cls.predictions.bias to the words' logits",
        {"logits": _words_unbiased, "prediction_logits": _words_unbiased},
    ),
    Variant(
        "decoder tied to the embeddings",
        "this checkpoint has a decoder of its own (tie_word_embeddings is false)",
        {"logits": _words_tied, "prediction_logits": _words_tied},
    ),
)


# ---- what can be told from the figures alone


def signs(got: Tensor, expected: Tensor, limit: float) -> str | None:
    """What the difference itself says where no variant explains it.

    Args:
        got, expected: the candidate's and our stage at the attended positions, `(tokens, …)`.
    """
    error = got - expected
    if not got.isfinite().all():
        return "NaN or infinity: overflow, or a row with nothing to attend to"
    for dtype in (torch.float16, torch.bfloat16):
        fits = torch.equal(got.to(dtype).to(got.dtype), got)
        near = error.abs() <= torch.finfo(dtype).eps * expected.abs() + limit
        if fits and near.all():
            return f"rounded to {str(dtype).removeprefix('torch.')}: compute it in float32"
    if _is_dropout(got, expected):
        return "dropout left on: entries are 0, the others scaled up; call eval()"
    if len(error) < 3:
        return None
    if _near(error, error.mean(0, keepdim=True).expand_as(error), limit):
        return "another bias: the difference is the same at every token"
    scale = (got * expected).sum(0) / expected.pow(2).sum(0).clamp(min=1e-300)
    if _near(got, expected * scale, limit):
        return "another scale: each channel is a multiple of the reference's"
    return None


def _near(a: Tensor, b: Tensor, limit: float) -> bool:
    return bool((a - b).abs().max() <= limit)


def _is_dropout(got: Tensor, expected: Tensor) -> bool:
    """Zeros here and there, and elsewhere one common factor that makes up for them."""
    present = expected.abs() > 1e-6 * expected.abs().max()
    ratio = (got / expected)[present]
    zero = ratio == 0
    share = zero.double().mean().item()
    if not 0 < share < 0.95 or len(ratio) < 50:
        return False
    factor = ratio[~zero].median()
    common = ((ratio[~zero] - factor).abs() <= 1e-3 * factor.abs()).double().mean().item()
    return common > 0.99 and abs(1 / factor.item() - (1 - share)) < 0.1
