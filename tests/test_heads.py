"""Task heads: each worked by hand over the encoder's output, in both layouts, with its dropout."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from strategies import TINY, Batch, networks, randomised, scaled_error
from torch import Tensor, nn

from minibert.config import BertConfig
from minibert.heads import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    HiddenClassifier,
    Predictions,
    last_linear,
)
from minibert.layout import Packed, pack
from minibert.model import BertModel, explicit_attention, set_attention

HEADS = (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
# Those whose inputs are those of the encoder.
PLAIN = tuple(head for head in HEADS if head is not BertForMultipleChoice)
POOLED = (
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForSequenceClassification,
)
WITH_HIDDEN = (BertForSequenceClassification, BertForTokenClassification)
WITH_DROPOUT = (BertForMultipleChoice, BertForSequenceClassification, BertForTokenClassification)

IDS = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])
HIDDEN = replace(TINY, classifier_hidden_size=5)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
TYPES = torch.tensor([[0, 0, 1, 1], [0, 2, 2, 0]])


def made(head: type[Any], config: BertConfig = TINY) -> Any:
    return randomised(head(replace(config, initializer_range=0.5)), seed=3).eval()


def inputs_of(head: type[Any]) -> tuple[Tensor, Tensor, Tensor]:
    if head is BertForMultipleChoice:
        return IDS[None], MASK[None], TYPES[None]
    return IDS, MASK, TYPES


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


# ---- by hand


def test_predictions_are_as_worked_by_hand() -> None:
    config = replace(TINY, vocab_size=3, hidden_size=2, num_attention_heads=1, layer_norm_eps=3.0)
    head = Predictions(replace(config, hidden_act="relu"))
    with torch.no_grad():
        head.dense.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        head.dense.bias.copy_(torch.tensor([0.0, -5.0]))
        head.norm.weight.copy_(torch.tensor([1.0, 2.0]))
        head.norm.bias.copy_(torch.tensor([0.0, 1.0]))
        assert head.bias is not None
        head.bias.copy_(torch.tensor([0.0, 10.0, 20.0]))
    # (1, 3) -> (2, -2) -> relu (2, 0) -> mean 1, variance 1, √(1 + 3) = 2: (½, -½) -> (½, 0).
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]])
    logits = head(torch.tensor([[[1.0, 3.0]]]), embeddings)
    close(logits, torch.tensor([[[0.5, 10.0, 22.0]]]))


def test_predictions_bend_by_the_activation_of_the_configuration() -> None:
    for act, value in [("gelu", 0.8413447), ("gelu_new", 0.8411920), ("tanh", 0.7615942)]:
        head = Predictions(replace(TINY, hidden_act=act))
        assert head.activation(torch.tensor(1.0)).item() == pytest.approx(value, abs=2e-7)


def test_masked_lm_decodes_with_the_embedding_table() -> None:
    model = made(BertForMaskedLM)
    assert model.predictions.decoder is None
    out = model(IDS, MASK, TYPES)
    assert out._fields == ("logits",)
    hidden = model.bert(IDS, MASK, TYPES).last_hidden_state
    head = model.predictions
    inner = head.norm(F.gelu(head.dense(hidden)))
    close(out.logits, inner @ model.bert.embeddings.token.weight.T + head.bias)


def test_masked_lm_untied_decodes_with_a_table_of_its_own() -> None:
    model = made(BertForMaskedLM, replace(TINY, tie_word_embeddings=False))
    assert model.predictions.bias is None
    out = model(IDS, MASK, TYPES)
    hidden = model.bert(IDS, MASK, TYPES).last_hidden_state
    head = model.predictions
    inner = head.norm(F.gelu(head.dense(hidden)))
    close(out.logits, inner @ head.decoder.weight.T + head.decoder.bias)
    table = model.bert.embeddings.token.weight
    assert not torch.allclose(out.logits, inner @ table.T + head.decoder.bias)


def test_masked_lm_trains_the_table_from_both_ends() -> None:
    model = made(BertForMaskedLM)
    model(torch.tensor([[1, 2]])).logits.pow(2).sum().backward()
    gradient = model.bert.embeddings.token.weight.grad
    assert bool((gradient[9] != 0).any())  # a word that is only predicted


def test_next_sentence_is_one_linear_map_of_the_pooler() -> None:
    model = made(BertForNextSentencePrediction)
    out = model(IDS, MASK, TYPES)
    assert out._fields == ("logits",)
    assert out.logits.shape == (2, 2)
    pooled = model.bert(IDS, MASK, TYPES).pooler_output
    close(out.logits, pooled @ model.next_sentence.weight.T + model.next_sentence.bias)


def test_pretraining_gives_both_predictions() -> None:
    model = made(BertForPreTraining)
    out = model(IDS, MASK, TYPES)
    assert out._fields == ("prediction_logits", "seq_relationship_logits")
    hidden, pooled = model.bert(IDS, MASK, TYPES)
    expected = model.predictions(hidden, model.bert.embeddings.token.weight)
    assert torch.equal(out.prediction_logits, expected)
    assert torch.equal(out.seq_relationship_logits, model.next_sentence(pooled))
    assert out.prediction_logits.shape == (2, 4, 11)
    assert out.seq_relationship_logits.shape == (2, 2)


def test_sequence_classification_is_one_linear_map_of_the_pooler() -> None:
    model = made(BertForSequenceClassification)
    out = model(IDS, MASK, TYPES)
    assert out._fields == ("logits",)
    assert out.logits.shape == (2, 3)
    pooled = model.bert(IDS, MASK, TYPES).pooler_output
    close(out.logits, pooled @ model.classifier.weight.T + model.classifier.bias)


def test_token_classification_is_one_linear_map_of_each_token() -> None:
    model = made(BertForTokenClassification)
    out = model(IDS, MASK, TYPES)
    assert out._fields == ("logits",)
    assert out.logits.shape == (2, 4, 3)
    hidden = model.bert(IDS, MASK, TYPES).last_hidden_state
    close(out.logits, hidden @ model.classifier.weight.T + model.classifier.bias)


def test_hidden_classifier_is_as_worked_by_hand() -> None:
    config = replace(TINY, hidden_size=2, num_attention_heads=1, hidden_dropout_prob=0.0)
    head = HiddenClassifier(config, 2)
    with torch.no_grad():
        head.hidden.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 0.0]]))
        head.hidden.bias.copy_(torch.tensor([1.0, -2.0]))
        head.output.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 4.0]]))
        head.output.bias.copy_(torch.tensor([0.0, 10.0, 20.0]))
    # (2, 3) -> (2 - 3 + 1, 1 - 2) = (0, -1) -> tanh (0, -0.7615942) -> (0, 10 - …, 20 - 4 · …).
    logits = head(torch.tensor([2.0, 3.0]))
    close(logits, torch.tensor([0.0, 9.2384058, 16.9536234]))


@pytest.mark.parametrize("head", WITH_HIDDEN)
def test_classifier_with_a_hidden_layer_is_two_linear_maps(head: type[Any]) -> None:
    model = made(head, HIDDEN)
    out = model(IDS, MASK, TYPES)
    encoded = model.bert(IDS, MASK, TYPES)
    below = encoded.pooler_output if head in POOLED else encoded.last_hidden_state
    hidden, output = model.classifier.hidden, model.classifier.output
    assert (hidden.weight.shape, output.weight.shape) == ((5, 4), (3, 5))
    inner = torch.tanh(below @ hidden.weight.T + hidden.bias)
    close(out.logits, inner @ output.weight.T + output.bias)
    assert out.logits.shape == (*below.shape[:-1], 3)


def test_last_linear_gives_the_logits() -> None:
    for head in WITH_DROPOUT:
        model = made(head)
        assert last_linear(model) is model.classifier
    for head in WITH_HIDDEN:
        model = made(head, HIDDEN)
        last = last_linear(model)
        assert last.weight.shape == (3, 5)
        with torch.no_grad():
            before = model(IDS, MASK, TYPES).logits
            last.weight.mul_(2)
            last.bias.mul_(2).add_(1)
            close(model(IDS, MASK, TYPES).logits, 2 * before + 1)
    with pytest.raises(TypeError, match=r"^BertForMaskedLM has no classifier, expected a network"):
        last_linear(made(BertForMaskedLM))


def test_question_answering_gives_start_then_end() -> None:
    model = made(BertForQuestionAnswering)
    out = model(IDS, MASK, TYPES)
    assert out._fields == ("start_logits", "end_logits")
    hidden = model.bert(IDS, MASK, TYPES).last_hidden_state
    close(out.start_logits, hidden @ model.spans.weight[0] + model.spans.bias[0])
    close(out.end_logits, hidden @ model.spans.weight[1] + model.spans.bias[1])
    assert out.start_logits.shape == (2, 4)


@pytest.mark.parametrize("labels", [1, 3])
def test_question_answering_says_two_labels_in_its_configuration(labels: int) -> None:
    model = BertForQuestionAnswering(TINY.with_labels(labels))
    assert model.config.labels == ("LABEL_0", "LABEL_1")
    named = TINY.with_labels(["start", "end"])
    assert BertForQuestionAnswering(named).config == named


def test_multiple_choice_scores_each_choice_alone() -> None:
    model = made(BertForMultipleChoice)
    ids = torch.stack([IDS, IDS.flip(1), IDS.roll(1, 1)])  # 3 examples of 2 choices
    mask, types = MASK.expand(3, 2, 4).clone(), TYPES.expand(3, 2, 4)
    mask[2, 0, 1] = 0
    out = model(ids, mask, types)
    assert out._fields == ("logits",)
    assert out.logits.shape == (3, 2)
    for example in range(3):
        for choice in range(2):
            row = (x[example, choice][None] for x in (ids, mask, types))
            pooled = model.bert(*row).pooler_output
            score = pooled @ model.classifier.weight.T + model.classifier.bias
            close(out.logits[example, choice], score[0, 0])


def test_multiple_choice_needs_neither_mask_nor_types() -> None:
    model = made(BertForMultipleChoice)
    ids = torch.stack([IDS, IDS.flip(1)])
    expected = model(ids, torch.ones_like(ids), torch.zeros_like(ids)).logits
    assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize("shape", [(2, 3), (3,), (1, 2, 2, 3)])
def test_multiple_choice_refuses_ids_without_choices(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="input_ids has shape") as caught:
        BertForMultipleChoice(TINY)(torch.zeros(shape, dtype=torch.long))
    assert str(caught.value) == f"input_ids has shape {shape}, expected (batch, choices, seq)"


# ---- what they have in common


@pytest.mark.parametrize("head", HEADS)
def test_heads_have_a_pooler_only_where_it_is_used(head: type[Any]) -> None:
    assert (head(TINY).bert.pooler is not None) == (head in POOLED)


@pytest.mark.parametrize("width", [None, 60])
@pytest.mark.parametrize("head", HEADS)
def test_new_heads_are_initialised_as_a_new_bert(head: type[Any], width: int | None) -> None:
    torch.manual_seed(0)
    config = replace(
        TINY, hidden_size=100, initializer_range=0.3, tie_word_embeddings=False,
        classifier_hidden_size=width,
    )  # fmt: skip
    for name, parameter in head(config).named_parameters():
        if name.endswith("bias"):
            assert bool((parameter == 0).all()), name
        elif "norm." in name:
            assert bool((parameter == 1).all()), name
        else:
            count = parameter.numel()
            assert abs(parameter.std().item() - 0.3) <= 5 * 0.3 / math.sqrt(2 * count), name
            assert abs(parameter.mean().item()) <= 5 * 0.3 / math.sqrt(count), name


@pytest.mark.parametrize("head", WITH_DROPOUT)
@pytest.mark.parametrize(("own", "expected"), [(None, 0.3), (0.0, 0.0), (0.4, 0.4)])
def test_classifiers_drop_as_the_configuration_says(
    head: type[Any], own: float | None, expected: float
) -> None:
    config = replace(TINY, hidden_dropout_prob=0.3, classifier_dropout=own)
    assert head(config).dropout.p == expected


@pytest.mark.parametrize("head", WITH_DROPOUT)
def test_classifiers_drop_what_they_read_while_training(head: type[Any]) -> None:
    model = made(head, replace(TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    model.dropout = nn.Dropout(1.0)
    inputs = inputs_of(head)
    assert bool((model.train()(*inputs).logits == model.classifier.bias).all())
    assert not bool((model.eval()(*inputs).logits == model.classifier.bias).any())


@pytest.mark.parametrize("head", WITH_HIDDEN)
def test_hidden_layers_drop_in_front_and_behind_while_training(head: type[Any]) -> None:
    plain = replace(HIDDEN, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config = replace(plain, classifier_dropout=0.4)
    assert head(config).dropout.p == head(config).classifier.dropout.p == 0.4
    model = made(head, plain).train()
    classifier = model.classifier
    model.dropout = nn.Dropout(1.0)  # nothing of the encoder is left
    expected = classifier.output(torch.tanh(classifier.hidden.bias)).expand(2, 3)
    logits = model(IDS, MASK, TYPES).logits
    close(logits if head in POOLED else logits[:, 0], expected)
    model.dropout, classifier.dropout = nn.Dropout(0.0), nn.Dropout(1.0)
    assert bool((model(IDS, MASK, TYPES).logits == classifier.output.bias).all())
    assert not bool((model.eval()(IDS, MASK, TYPES).logits == classifier.output.bias).any())


def test_hidden_layer_drops_behind_the_tanh() -> None:
    """What is left is twice as large: more than any tanh."""
    head = HiddenClassifier(replace(TINY, hidden_dropout_prob=0.5), 3)
    with torch.no_grad():
        head.hidden.bias.fill_(3.0)
        head.output.weight.copy_(torch.eye(3))
        head.output.bias.zero_()
    torch.manual_seed(0)
    values = head(torch.zeros(50, 4)).unique()
    close(values, torch.tensor([0.0, 2 * math.tanh(3.0)]))


@pytest.mark.parametrize("head", HEADS)
def test_heads_are_random_in_training_only(head: type[Any]) -> None:
    model = made(head, replace(TINY, hidden_dropout_prob=0.5))
    inputs = inputs_of(head)
    torch.manual_seed(0)
    first, second = (model.train()(*inputs)[0] for _ in range(2))
    assert not torch.allclose(first, second, atol=1e-4)
    first, second = (model.eval()(*inputs)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("config", [TINY, HIDDEN], ids=["plain", "hidden"])
@pytest.mark.parametrize("head", PLAIN)
def test_heads_take_packed_tokens(head: type[Any], config: BertConfig) -> None:
    model = made(head, config)
    padded = model(IDS, MASK, TYPES)
    ids, layout = pack(IDS, MASK)
    types, _ = pack(TYPES, MASK)
    packed = model(ids, token_type_ids=types, layout=layout)
    for name, a, b in zip(padded._fields, padded, packed, strict=True):
        of_tokens = a.shape[:2] == IDS.shape
        assert scaled_error(b, a[MASK.bool()] if of_tokens else a) <= 1e-5, name


def test_what_is_trained_reads_the_pooler_and_has_the_last_layer_compute_no_more() -> None:
    config = replace(TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = made(BertForSequenceClassification, config)
    ids, layout = pack(IDS, MASK)
    rows = []
    up = model.bert.layers[-1].feed_forward.up
    up.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    close(model.train()(ids, layout=layout).logits, model.eval()(ids, layout=layout).logits)
    assert rows == [len(IDS), len(ids)]


@pytest.mark.parametrize("head", PLAIN)
def test_heads_pass_mask_and_types_on(head: type[Any]) -> None:
    model = made(head)
    full = model(IDS, MASK, TYPES)[0]
    assert not torch.allclose(full, model(IDS, None, TYPES)[0], atol=1e-5)
    assert not torch.allclose(full, model(IDS, MASK)[0], atol=1e-5)
    with pytest.raises(ValueError, match=r"^got attention_mask and layout"):
        model(IDS, MASK, layout=Packed.from_lengths([8]))


@pytest.mark.parametrize("head", HEADS)
def test_set_attention_reaches_the_encoder_of_a_head(head: type[Any]) -> None:
    model = made(head)
    calls = []

    def attend(*args: Any) -> Tensor:
        calls.append(len(args))
        return explicit_attention(*args)

    fused = model(*inputs_of(head))
    set_attention(model, attend)
    explicit = model(*inputs_of(head))
    assert calls == [5] * TINY.num_hidden_layers
    for a, b in zip(fused, explicit, strict=True):
        close(a, b)


@settings(max_examples=10)
@given(networks("right"))
def test_heads_do_not_see_padding(case: tuple[BertModel, Batch]) -> None:
    encoder, batch = case
    other = torch.where(batch.mask, batch.input_ids, 7)
    for head in PLAIN:
        model = randomised(head(encoder.config), seed=1).eval()
        with torch.no_grad():
            outs = model(*batch)
            again = model(other, batch.mask, batch.token_type_ids)
        for a, b in zip(outs, again, strict=True):
            of_tokens = a.ndim == 3 or head is BertForQuestionAnswering
            if of_tokens:
                a, b = a[batch.mask], b[batch.mask]
            assert torch.equal(a, b), head
