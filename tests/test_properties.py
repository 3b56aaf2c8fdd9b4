"""What must hold for any network and any batch: small random networks, and the real checkpoint.

Each property is one `check_…`, which two tests run: on networks of hypothesis, and on the real
all-MiniLM-L6-v2 with batches of random texts.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import Batch, networks, scaled_error, texts
from tokenizers import Tokenizer
from torch import Tensor

from minibert import checkpoint, ops
from minibert.layout import Layout, Padded, pack
from minibert.model import BertModel, Layer, explicit_attention, set_attention
from minibert.pooling import normalise, pool

HIDDEN_BOUND = 1e-5  # × max(1, the largest value)
UNIT_BOUND = 1e-6

BOTH = pytest.mark.parametrize("attend", [ops.attention, explicit_attention])
few = settings(max_examples=5)
fewer_small = settings(max_examples=20)


@pytest.fixture(scope="module")
def real(minilm: Path) -> BertModel:
    return BertModel.from_pretrained(minilm)


@pytest.fixture(scope="module")
def cut(minilm: Path) -> Callable[[list[str]], Batch]:
    """From texts to a padded batch, up to 32 tokens a row, as the checkpoint's tokenizer has it."""
    backend = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    backend.enable_truncation(32)
    backend.enable_padding()

    def batch_of(rows: list[str]) -> Batch:
        found = backend.encode_batch(rows)
        ids, mask, types = (
            torch.tensor([getattr(row, name) for row in found])
            for name in ("ids", "attention_mask", "type_ids")
        )
        return Batch(ids, mask.bool(), types)

    return batch_of


some_texts = st.lists(texts(), min_size=1, max_size=4)


def hidden_of(model: BertModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(*batch).last_hidden_state


def packed_hidden_of(model: BertModel, batch: Batch) -> Tensor:
    ids, layout = pack(batch.input_ids, batch.mask)
    types, _ = pack(batch.token_type_ids, batch.mask)
    with torch.no_grad():
        return model(ids, token_type_ids=types, layout=layout).last_hidden_state


def check_same(actual: Batch, got: Tensor, expected: Tensor) -> None:
    """Hidden states of two batches with the tokens of `actual`, and the vectors of their texts."""
    assert scaled_error(got[actual.mask], expected[actual.mask]) <= HIDDEN_BOUND
    layout = Padded.of(actual.input_ids, actual.mask)
    vectors = [normalise(pool(hidden, layout)) for hidden in (got, expected)]
    assert float((vectors[0] - vectors[1]).abs().max()) <= UNIT_BOUND


def padded_by(batch: Batch, columns: int, filler: int = 0) -> Batch:
    ids, mask, types = (F.pad(x, (0, columns)) for x in batch)
    ids[:, ids.shape[1] - columns :] = filler
    return Batch(ids, mask, types)


# ---- 7 more right padding changes nothing


def check_padding(model: BertModel, batch: Batch, columns: int) -> None:
    seq = batch.input_ids.shape[1]
    got = hidden_of(model, padded_by(batch, columns, filler=1))
    check_same(batch, got[:, :seq], hidden_of(model, batch))


@given(networks("first"), st.integers(1, 3))
def test_more_padding_changes_nothing(case: tuple[BertModel, Batch], columns: int) -> None:
    check_padding(*case, columns)


@few
@given(some_texts, st.integers(1, 40))
def test_more_padding_changes_nothing_in_minilm(
    real: BertModel, cut: Callable[[list[str]], Batch], rows: list[str], columns: int
) -> None:
    check_padding(real, cut(rows), columns)


# ---- 8 what stands at masked positions changes nothing


def check_masked_values(model: BertModel, batch: Batch, filler: int) -> None:
    expected = hidden_of(model, batch)[batch.mask]
    ids = torch.where(batch.mask, batch.input_ids, filler)
    types = torch.where(batch.mask, batch.token_type_ids, model.config.type_vocab_size - 1)
    got = hidden_of(model, Batch(ids, batch.mask, types))[batch.mask]
    assert torch.equal(got, expected)


@given(networks("any"), st.data())
def test_masked_tokens_change_nothing(case: tuple[BertModel, Batch], data: st.DataObject) -> None:
    model, batch = case
    check_masked_values(model, batch, data.draw(st.integers(0, model.config.vocab_size - 1)))


@few
@given(some_texts, st.integers(0, 30521))
def test_masked_tokens_change_nothing_in_minilm(
    real: BertModel, cut: Callable[[list[str]], Batch], rows: list[str], filler: int
) -> None:
    batch = padded_by(cut(rows), 3)
    check_masked_values(real, batch, filler)


@BOTH
@given(case=networks("any"), value=st.sampled_from([0.0, -1e3, 1e12]))
def test_masked_tokens_with_any_finite_vector_change_nothing(
    attend: Callable[[Tensor, Tensor, Tensor, Layout, float], Tensor],
    case: tuple[BertModel, Batch],
    value: float,
) -> None:
    model, batch = case
    set_attention(model, attend)
    ids = batch.input_ids.masked_fill(batch.mask, 1).masked_fill(~batch.mask, 0)
    expected = hidden_of(model, batch._replace(input_ids=ids))[batch.mask]
    with torch.no_grad():
        model.embeddings.token.weight[0] = value * torch.randn(model.config.hidden_size)
    got = hidden_of(model, batch._replace(input_ids=ids))[batch.mask]
    assert torch.equal(got, expected)


@given(networks("first"))
def test_masked_tokens_with_a_vector_of_nan_change_nothing_when_packed(
    case: tuple[BertModel, Batch],
) -> None:
    model, batch = case
    batch = batch._replace(input_ids=batch.input_ids.clamp(min=1) * batch.mask)
    expected = hidden_of(model, batch)
    with torch.no_grad():
        model.embeddings.token.weight[0] = torch.nan
    got = packed_hidden_of(model, batch)
    assert scaled_error(got, expected[batch.mask]) <= HIDDEN_BOUND


# ---- 9 what stands at attended positions does change the output


def check_attended_values(model: BertModel, batch: Batch, replaced: int) -> None:
    """Changing the last attended token of a row changes every other attended token of the row."""
    row = int(batch.mask.sum(1).argmax())
    last = int(batch.mask[row].nonzero()[-1])
    assume(last > 0)
    ids = batch.input_ids.clone()
    assume(int(ids[row, last]) != replaced)
    ids[row, last] = replaced
    before, after = hidden_of(model, batch), hidden_of(model, batch._replace(input_ids=ids))
    changed = (before != after).any(-1)
    assert bool(changed[row][batch.mask[row]].all())
    assert not bool(torch.cat([changed[:row], changed[row + 1 :]]).any())


@given(networks(), st.data())
def test_attended_tokens_change_the_output(
    case: tuple[BertModel, Batch], data: st.DataObject
) -> None:
    model, batch = case
    check_attended_values(model, batch, data.draw(st.integers(0, model.config.vocab_size - 1)))


@few
@given(some_texts, st.integers(1000, 30521))
def test_attended_tokens_change_the_output_of_minilm(
    real: BertModel, cut: Callable[[list[str]], Batch], rows: list[str], replaced: int
) -> None:
    check_attended_values(real, cut(rows), replaced)


# ---- 10 permuting a batch permutes the output


def check_permutation(model: BertModel, batch: Batch, order: Sequence[int]) -> None:
    order = list(order)
    permuted = Batch(*(x[order] for x in batch))
    check_same(permuted, hidden_of(model, permuted), hidden_of(model, batch)[order])


@given(networks(), st.data())
def test_permuted_batches_give_permuted_outputs(
    case: tuple[BertModel, Batch], data: st.DataObject
) -> None:
    model, batch = case
    check_permutation(model, batch, data.draw(st.permutations(range(len(batch.mask)))))


@few
@given(some_texts)
def test_permuted_batches_give_permuted_outputs_in_minilm(
    real: BertModel, cut: Callable[[list[str]], Batch], rows: list[str]
) -> None:
    batch = cut(rows)
    check_permutation(real, batch, list(reversed(range(len(batch.mask)))))


# ---- 11 a batch gives what its rows give alone


def check_union(model: BertModel, batch: Batch) -> None:
    whole = hidden_of(model, batch)
    for row in range(len(batch.mask)):
        length = int(batch.mask[row].nonzero()[-1]) + 1
        alone = Batch(*(x[row : row + 1, :length] for x in batch))
        check_same(alone, hidden_of(model, alone), whole[row : row + 1, :length])


@fewer_small
@given(networks())
def test_a_batch_gives_what_its_rows_give_alone(case: tuple[BertModel, Batch]) -> None:
    check_union(*case)


@few
@given(some_texts)
def test_a_batch_gives_what_its_rows_give_alone_in_minilm(
    real: BertModel, cut: Callable[[list[str]], Batch], rows: list[str]
) -> None:
    check_union(real, cut(rows))


# ---- 12 equal rows give equal outputs


def check_equal_rows(model: BertModel, batch: Batch, count: int) -> None:
    rows = torch.cat([torch.arange(len(batch.mask)), torch.zeros(count, dtype=torch.long)])
    hidden = hidden_of(model, Batch(*(x[rows] for x in batch)))
    for row in range(len(batch.mask), len(rows)):
        assert torch.equal(hidden[row][batch.mask[0]], hidden[0][batch.mask[0]])


@given(networks(), st.integers(1, 4))
def test_equal_rows_give_equal_outputs(case: tuple[BertModel, Batch], count: int) -> None:
    check_equal_rows(*case, count)


@few
@given(some_texts, st.integers(1, 4))
def test_equal_rows_give_equal_outputs_in_minilm(
    real: BertModel, cut: Callable[[list[str]], Batch], rows: list[str], count: int
) -> None:
    check_equal_rows(real, cut(rows), count)


# ---- 13 packed equals padded; packed neighbours do not notice each other


def check_packed(model: BertModel, batch: Batch) -> None:
    padded, packed = hidden_of(model, batch), packed_hidden_of(model, batch)
    assert scaled_error(packed, padded[batch.mask]) <= HIDDEN_BOUND
    _, layout = pack(batch.input_ids, batch.mask)
    vectors = [
        normalise(pool(padded, Padded.of(batch.input_ids, batch.mask))),
        normalise(pool(packed, layout)),
    ]
    assert float((vectors[0] - vectors[1]).abs().max()) <= UNIT_BOUND
    with torch.no_grad():
        pooled = [
            model(*batch).pooler_output,
            model(
                batch.input_ids[batch.mask],
                token_type_ids=batch.token_type_ids[batch.mask],
                layout=layout,
            ).pooler_output,
        ]
    assert scaled_error(pooled[1], pooled[0]) <= HIDDEN_BOUND


def check_neighbours(model: BertModel, batch: Batch, row: int, replaced: int) -> None:
    before = packed_hidden_of(model, batch)
    ids = batch.input_ids.clone()
    ids[row] = replaced
    assume(not torch.equal(ids[batch.mask], batch.input_ids[batch.mask]))
    after = packed_hidden_of(model, batch._replace(input_ids=ids))
    _, layout = pack(ids, batch.mask)
    own = layout.sequence == row
    assert torch.equal(before[~own], after[~own])
    assert not torch.equal(before[own], after[own])


@given(networks("first"))
def test_packed_equals_padded(case: tuple[BertModel, Batch]) -> None:
    check_packed(*case)


@few
@given(some_texts)
def test_packed_equals_padded_in_minilm(
    real: BertModel, cut: Callable[[list[str]], Batch], rows: list[str]
) -> None:
    check_packed(real, cut(rows))


@given(networks("first"), st.data())
def test_packed_sequences_leave_their_neighbours_bit_equal(
    case: tuple[BertModel, Batch], data: st.DataObject
) -> None:
    model, batch = case
    row = data.draw(st.integers(0, len(batch.mask) - 1))
    check_neighbours(model, batch, row, data.draw(st.integers(0, model.config.vocab_size - 1)))


@few
@given(some_texts, st.integers(1000, 30521))
def test_packed_sequences_leave_their_neighbours_bit_equal_in_minilm(
    real: BertModel, cut: Callable[[list[str]], Batch], rows: list[str], replaced: int
) -> None:
    check_neighbours(real, cut(rows), len(rows) // 2, replaced)


# ---- 14 attention rows sum to 1, masked weights are exactly 0


def check_weights(model: BertModel, batch: Batch) -> None:
    """The weights of every layer of a run, again from its queries and keys; see test_ops.py."""
    runs: list[tuple[Tensor, Tensor]] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, dropout: float) -> Tensor:
        runs.append((q, k))
        return explicit_attention(q, k, v, layout, dropout)

    set_attention(model, attend)
    try:
        hidden_of(model, batch)
    finally:
        set_attention(model, ops.attention)
    assert len(runs) == model.config.num_hidden_layers
    layout = Padded.of(batch.input_ids, batch.mask)
    rows, seq = batch.mask.shape
    keys = batch.mask[:, None, None, :]
    for q, k in runs:
        heads, head_dim = q.shape[2:]
        # As wide as there are keys, so that the identity can be the values; the scale is kept.
        width = max(seq, head_dim)
        q, k = (F.pad(x, (0, width - head_dim)) for x in (q * (width / head_dim) ** 0.5, k))
        identity = torch.eye(seq, width)[None, :, None].expand(rows, -1, heads, -1)
        weights = explicit_attention(q, k, identity, layout)[..., :seq]
        assert bool((weights.masked_select(~keys) == 0).all())
        sums = weights.sum(-1)[batch.mask.any(1)]
        assert bool(((sums - 1).abs() <= 1e-5).all())
        fused = ops.attention(q, k, identity.contiguous(), layout)[..., :seq]
        assert scaled_error(fused, weights) <= HIDDEN_BOUND


@fewer_small
@given(networks("any"))
def test_attention_weights_sum_to_1_and_ignore_what_is_masked(
    case: tuple[BertModel, Batch],
) -> None:
    check_weights(*case)


@few
@given(some_texts)
def test_attention_weights_sum_to_1_and_ignore_what_is_masked_in_minilm(
    real: BertModel, cut: Callable[[list[str]], Batch], rows: list[str]
) -> None:
    check_weights(real, cut(rows))


# ---- 15 no gradient across examples


def check_gradients(model: BertModel, batch: Batch, row: int, *, packed: bool) -> None:
    """The gradient of one row's output: nothing for the embeddings of the others."""
    embedded: list[Tensor] = []
    hook = model.embeddings.register_forward_hook(lambda _, __, out: embedded.append(out))
    try:
        if packed:
            ids, layout = pack(batch.input_ids, batch.mask)
            types, _ = pack(batch.token_type_ids, batch.mask)
            own = layout.sequence == row
            out = model(ids, token_type_ids=types, layout=layout).last_hidden_state
        else:
            own = torch.arange(len(batch.mask)) == row
            out = model(*batch).last_hidden_state
    finally:
        hook.remove()
    # Weighted, for a norm makes the plain sum of its output constant.
    weights = torch.linspace(-1, 2, out.shape[-1])
    (gradient,) = torch.autograd.grad((out[own] * weights).sum(), embedded[0])
    assert bool((gradient[~own] == 0).all())
    assert bool((gradient[own] != 0).any())


@pytest.mark.parametrize("packed", [False, True])
@fewer_small
@given(case=networks(), data=st.data())
def test_no_gradient_crosses_examples(
    packed: bool, case: tuple[BertModel, Batch], data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, len(case[1].mask) - 1))
    check_gradients(*case, row, packed=packed)


@pytest.mark.parametrize("packed", [False, True])
@settings(max_examples=3)
@given(rows=some_texts)
def test_no_gradient_crosses_examples_in_minilm(
    real: BertModel, cut: Callable[[list[str]], Batch], packed: bool, rows: list[str]
) -> None:
    check_gradients(real, cut(rows), len(rows) - 1, packed=packed)


# ---- 16 a fully masked row is finite, forward and backward


def check_masked_row(model: BertModel, batch: Batch) -> None:
    mask = batch.mask.clone()
    mask[0] = False
    out = model(batch.input_ids, mask, batch.token_type_ids)
    assert bool(out.last_hidden_state.isfinite().all())
    assert bool(out.pooler_output.isfinite().all())
    loss = out.last_hidden_state.pow(2).sum() + out.pooler_output.sum()
    parameters = list(model.parameters())
    for gradient in torch.autograd.grad(loss, parameters, allow_unused=True):
        assert gradient is None or bool(gradient.isfinite().all())


@BOTH
@fewer_small
@given(case=networks("any"))
def test_fully_masked_rows_are_finite(
    attend: Callable[[Tensor, Tensor, Tensor, Layout, float], Tensor],
    case: tuple[BertModel, Batch],
) -> None:
    set_attention(case[0], attend)
    check_masked_row(*case)


@settings(max_examples=3)
@given(some_texts)
def test_fully_masked_rows_are_finite_in_minilm(
    real: BertModel, cut: Callable[[list[str]], Batch], rows: list[str]
) -> None:
    check_masked_row(real, cut(rows))


# ---- 17 the fused projection equals three


def check_projections(model: BertModel, hidden: Tensor, bound: float) -> None:
    state = checkpoint.to_disk(model.state_dict())
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        fused = layer.attention.qkv(hidden).chunk(3, dim=-1)
        for part, name in zip(fused, ("query", "key", "value"), strict=True):
            stem = f"encoder.layer.{number}.attention.self.{name}"
            alone = F.linear(hidden, state[f"{stem}.weight"], state[f"{stem}.bias"])
            assert scaled_error(part, alone) <= bound


@fewer_small
@given(networks())
def test_fused_projection_equals_three(case: tuple[BertModel, Batch]) -> None:
    model, batch = case
    check_projections(model, hidden_of(model, batch), HIDDEN_BOUND)
    check_projections(model.double(), hidden_of(model, batch), 1e-12)


@few
@given(some_texts)
def test_fused_projection_equals_three_in_minilm(
    real: BertModel, cut: Callable[[list[str]], Batch], rows: list[str]
) -> None:
    check_projections(real, hidden_of(real, cut(rows)), HIDDEN_BOUND)
