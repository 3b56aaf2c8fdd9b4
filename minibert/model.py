"""BERT, from token ids to hidden states.  Read it from top to bottom: it is the whole network.

A text reaches this file as numbers: the tokenizer cuts "Cats purr" into [CLS] cats pu ##rr [SEP]
and gives the row of each piece in the vocabulary.  From there:

    input_ids ─► Embeddings ─► Layer 0 ─► … ─► Layer n-1 ─┬─► last_hidden_state, one a token
                                                          └─► Pooler ─► pooler_output, one a text

    Embeddings = LayerNorm(token + token type + position)
    Layer      = SelfAttention, then FeedForward, each followed by LayerNorm(input + output)

Attention is the only place where tokens exchange anything; all the rest treats each one alone.

Dimensions, as the shapes here name them (in brackets: bert-base, all-MiniLM-L6-v2):

    batch      sequences                          hidden     width of a token (768, 384)
    seq        tokens of a padded row             heads      attention heads (12, 12)
    tokens     tokens of a packed batch           head_dim   width of a head, hidden/heads (64, 32)
    *tokens    (batch, seq) or (tokens,): either layout of `layout.py`

Source: Devlin et al. 2019, https://arxiv.org/abs/1810.04805; Vaswani et al. 2017,
https://arxiv.org/abs/1706.03762; google-research/bert `modeling.py`, whose numbers it reproduces.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minibert import checkpoint, ops
from minibert.config import BertConfig
from minibert.layout import Layout, Packed, layout_of

AttentionFunction = Callable[[Tensor, Tensor, Tensor, Layout, float], Tensor]


class Embeddings(nn.Module):
    """Turns each token id into a vector: which token + which segment + which position.

    x = LayerNorm(token[id] + token_type[segment] + position[column])

    All three tables are learned.  Without the third a sentence would be a bag of words, for
    attention itself knows no order.  The sum is taken in this order, on which its last bit depends.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.token = _table(config.vocab_size, config.hidden_size)
        self.token_type = _table(config.type_vocab_size, config.hidden_size)
        self.position = _table(config.max_position_embeddings, config.hidden_size)
        self.norm = AddNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = ops.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Int[Tensor, "*tokens"],
        token_type_ids: Int[Tensor, "*tokens"],
        layout: Layout,
    ) -> Float[Tensor, "*tokens hidden"]:
        token, segment = self.token(input_ids), self.token_type(token_type_ids)
        return self.dropout(self.norm(token, segment, self.position(layout.positions)))


def _table(rows: int, width: int) -> nn.Embedding:
    # Not nn.Embedding(rows, width): that would draw random values here, to be drawn again below.
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


class AddNorm(nn.LayerNorm):
    """LayerNorm of the sum x of its inputs: (x - mean) / √(var + eps) · weight + bias.

    Of each token alone; the variance is the biased one, with eps inside the square root.
    """

    def forward(self, *terms: Float[Tensor, "..."]) -> Float[Tensor, "*tokens hidden"]:
        return ops.add_norm(terms, self.weight, self.bias, self.eps)


def explicit_attention(
    q: Float[Tensor, "*tokens heads head_dim"],
    k: Float[Tensor, "*tokens heads head_dim"],
    v: Float[Tensor, "*tokens heads head_dim"],
    layout: Layout,
    dropout: float = 0.0,
) -> Float[Tensor, "*tokens heads head_dim"]:
    """softmax(q kᵀ / √head_dim) v, step by step: what `ops.attention` computes in one fused call.

    Each token asks with its query q; how well q agrees with the key k of another token decides how
    much of that token's value v it takes.  `set_attention(model, explicit_attention)` makes a
    model run this form.
    """
    probabilities = attention_probabilities(attention_scores(q, k), layout)
    context = ops.dropout(probabilities, dropout) @ v.transpose(-3, -2)
    return context.transpose(-3, -2)  # (*tokens, heads, head_dim)


def attention_scores(
    q: Float[Tensor, "*tokens heads head_dim"], k: Float[Tensor, "*tokens heads head_dim"]
) -> Float[Tensor, "*batch heads queries keys"]:
    """q kᵀ / √head_dim: how much each token asks of each other one."""
    q, k = q.transpose(-3, -2), k.transpose(-3, -2)  # heads before tokens
    # Dot products of head_dim terms grow like √head_dim; undone, so that softmax is not saturated.
    return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])


def attention_probabilities(
    scores: Float[Tensor, "*batch heads queries keys"], layout: Layout
) -> Float[Tensor, "*batch heads queries keys"]:
    """softmax over the keys that a query may see; what it may not see gets exactly 0."""
    if (visible := layout.visible()) is None:
        return scores.softmax(dim=-1)  # each query's sum to 1
    probabilities = scores.masked_fill(~visible, -math.inf).softmax(dim=-1)
    # A query without any visible key had only -inf, and softmax made it NaN: it takes nothing.
    return probabilities.masked_fill(~visible, 0.0)


class SelfAttention(nn.Module):
    """Lets every token gather from the tokens that it can see, in several heads at once.

    q, k, v = x Wqkv + b;  context = attention(q, k, v) for each head;  output = context Wo + b

    Differs: the paper's three projections are one matrix here, `qkv`, with the same result;
        `checkpoint.py` joins and splits it.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads_shape = (3, config.num_attention_heads, config.head_dim)
        self.qkv = ops.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = ops.Linear(config.hidden_size, config.hidden_size)
        self.dropout = config.attention_probs_dropout_prob
        self.attend: AttentionFunction = ops.attention

    def forward(
        self, hidden: Float[Tensor, "*tokens hidden"], layout: Layout, only_first: bool = False
    ) -> Float[Tensor, "*queries hidden"]:
        qkv = self.qkv(hidden).unflatten(-1, self.heads_shape)  # (*tokens, 3, heads, head_dim)
        q, k, v = qkv.unbind(dim=-3)
        if only_first:  # of each sequence asks, and all its tokens answer
            q = layout.first(q)
        context = self.attend(q, k, v, layout, self.dropout if self.training else 0.0)
        return self.output(context.flatten(-2))  # the heads side by side: (*tokens, hidden)


class FeedForward(nn.Module):
    """Works on each token alone: widen, bend, narrow.

    output = activation(x Wup + b) Wdown + b
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.up = ops.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ops.ACTIVATIONS[config.hidden_act]
        self.down = ops.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Float[Tensor, "*tokens hidden"]) -> Float[Tensor, "*tokens hidden"]:
        return self.down(self.activation(self.up(hidden)))


class Layer(nn.Module):
    """One encoder layer: attention, then feed-forward, each added to its input and normalised.

    x = LayerNorm(x + SelfAttention(x));  x = LayerNorm(x + FeedForward(x))

    This is the "post-norm" of 2017: the norm stands behind the sum.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = AddNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = AddNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = ops.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden: Float[Tensor, "*tokens hidden"], layout: Layout, only_first: bool = False
    ) -> Float[Tensor, "*queries hidden"]:
        attended = self.attention(hidden, layout, only_first)
        if only_first:
            hidden = layout.first(hidden)
        hidden = self.attention_norm(hidden, self.dropout(attended))
        return self.feed_forward_norm(hidden, self.dropout(self.feed_forward(hidden)))


class Pooler(nn.Module):
    """One vector for the whole sequence: tanh(W x + b) of its first token, [CLS].

    It was trained with next sentence prediction; as a text embedding, the mean of the tokens is
    the better choice (`pooling.py`).
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = ops.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden: Float[Tensor, "*tokens hidden"], layout: Layout
    ) -> Float[Tensor, "batch hidden"]:
        return torch.tanh(self.dense(layout.first(hidden)))


class BertOutput(NamedTuple):
    """What the encoder gives."""

    last_hidden_state: Tensor  # (batch, seq, hidden), or (tokens, hidden) when packed
    pooler_output: Tensor | None  # (batch, hidden); None for a checkpoint without pooler


class BertModel(checkpoint.Pretrained):
    """The encoder: embeddings, the layers one after the other, and the pooler.

    >>> model = BertModel(BertConfig(num_hidden_layers=2, hidden_size=48)).eval()
    >>> model(torch.tensor([[101, 7592, 102]])).last_hidden_state.shape
    torch.Size([1, 3, 48])

    A new model is random: weights normal(0, initializer_range), biases 0, LayerNorm 1 and 0.
    """

    optional = ("pooler",)  # some checkpoints have none, and their model then too

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.pooler: Pooler | None = Pooler(config)
        checkpoint.initialise(self, std=config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        layout: Layout | None = None,
        only_first: bool = False,
    ) -> BertOutput:
        """Hidden states of a batch.

        Args:
            input_ids: `(batch, seq)` rows of the vocabulary; `(tokens,)` with a packed layout.
            attention_mask: 1 or True where a token is real, 0 on padding; None where all are.
            token_type_ids: 0 for the first text of a pair, 1 for the second; None means 0.
            layout: a `Packed` layout for packed ids; `attention_mask` must then be None.
            only_first: where packed, let the last layer compute the first token of each sequence
                alone, `(batch, hidden)`: all that `pooler_output` takes.

        Raises: ValueError for shapes that disagree, more tokens than positions, ids outside the
            vocabulary (looked at on the CPU only: elsewhere looking would cost a wait); TypeError
            for ids or a mask of floats.
        """
        n_positions = self.config.max_position_embeddings
        layout = layout_of(input_ids, attention_mask, layout, n_positions=n_positions)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        self._check_ids("input_ids", input_ids, input_ids, self.embeddings.token)
        self._check_ids("token_type_ids", token_type_ids, input_ids, self.embeddings.token_type)

        hidden = self.embeddings(input_ids, token_type_ids, layout)
        *lower, top = self.layers
        for layer in lower:
            hidden = layer(hidden, layout)
        assert isinstance(top, Layer)
        if only_first and isinstance(layout, Packed) and top.attention.attend is ops.attention:
            hidden, layout = top(hidden, layout, only_first=True), layout.firsts()
        else:
            hidden = top(hidden, layout)
        pooled = None if self.pooler is None else self.pooler(hidden, layout)
        return BertOutput(hidden, pooled)

    def _check_ids(self, name: str, ids: Tensor, input_ids: Tensor, table: nn.Embedding) -> None:
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise TypeError(f"{name} is {ids.dtype}, expected integers: rows of a table")
        if ids.shape != input_ids.shape:
            raise ValueError(
                f"{name} has shape {tuple(ids.shape)}, expected {tuple(input_ids.shape)}, "
                "the shape of input_ids"
            )
        if ids.device.type != "cpu" or torch.compiler.is_compiling() or not ids.numel():
            return
        low, high = (int(bound) for bound in ids.aminmax())
        if low < 0 or high >= table.num_embeddings:
            raise ValueError(
                f"{name} holds {low if low < 0 else high}, expected 0 to "
                f"{table.num_embeddings - 1}; the tokenizer must be that of the checkpoint"
            )


def set_attention(model: nn.Module, attend: AttentionFunction) -> None:
    """Make every attention of `model`, or of a head's encoder, run `attend` from now on."""
    for module in model.modules():
        if isinstance(module, SelfAttention):
            module.attend = attend
