"""What is told of a network before its first update."""

import pytest
import torch
from torch import nn

from minibert.config import BertConfig
from minibert.doctor.live import Doctor
from minibert.doctor.start import constant_weights, fresh_layers, high_dropout
from minibert.heads import BertForSequenceClassification

SMALL = BertConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=16, labels=("neg", "pos"),
)  # fmt: skip


def network(*, trained: tuple[int, ...] = (), **values: int) -> BertForSequenceClassification:
    """A fresh one, some of whose layers look as if they had been trained."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(SMALL if not values else SMALL.__class__(
        **{**vars(SMALL), **values}
    ))  # fmt: skip
    for layer in trained:
        for parameter in model.bert.layers[layer].parameters():
            parameter.data += 0.01
    return model


def told(model: nn.Module, **settings: bool) -> list[tuple[str, str]]:
    """What a doctor says at its first update."""
    doctor = Doctor(model, say=lambda line: None, **settings)
    ids, labels = torch.randint(1, 50, (8, 6)), torch.tensor([0, 1] * 4)
    logits = model(ids).logits
    loss = nn.functional.cross_entropy(logits, labels)
    loss.backward()
    doctor.step(loss=loss, logits=logits, labels=labels)
    doctor.close()
    return [(each.name, each.severity) for each in doctor.ranked()]


def test_layers_as_they_are_drawn_are_known_from_those_that_were_trained() -> None:
    assert fresh_layers(network()) == (["layer 0", "layer 1", "layer 2"], 3)
    assert fresh_layers(network(trained=(0, 2))) == (["layer 1"], 3)
    assert fresh_layers(network(trained=(0, 1, 2))) == ([], 3)
    assert fresh_layers(nn.Linear(2, 2)) == ([], 1)


def test_an_encoder_that_was_not_loaded_is_told() -> None:
    assert told(network()) == [("encoder-is-fresh", "info")]  # small: likely meant
    assert told(network(vocab_size=400_000)) == [("encoder-is-fresh", "warning")]
    assert told(network(trained=(0, 2))) == [("encoder-is-fresh", "warning")]
    assert told(network(trained=(0, 1, 2))) == []


def test_who_means_it_is_told_nothing() -> None:
    assert told(network(vocab_size=400_000), pretrained=False) == []


def test_a_fresh_encoder_is_judged_as_one() -> None:
    doctor = Doctor(network(), say=lambda line: None)
    assert not doctor.history.pretrained
    assert Doctor(network(trained=(1,)), say=lambda line: None).history.pretrained
    assert Doctor(network(), pretrained=True, say=lambda line: None).history.pretrained
    assert not Doctor(nn.Sequential(nn.GRU(4, 4)), say=lambda line: None).history.pretrained


@pytest.mark.parametrize("name", ["embeddings.token", "layers.1.attention"])
def test_a_matrix_of_one_value_is_told(name: str) -> None:
    model = network(trained=(0, 1, 2))
    assert constant_weights(model) is None
    module = model.bert.get_submodule(name)
    weight = next(p for p in module.parameters() if p.ndim > 1)
    nn.init.zeros_(weight)
    found = constant_weights(model)
    assert found is not None
    assert f"bert.{name}" in found.evidence
    assert found.evidence.endswith("is 0 throughout")


def test_a_table_of_types_that_are_alike_is_no_fault() -> None:
    model = network(trained=(0, 1, 2))
    nn.init.zeros_(model.bert.embeddings.token_type.weight)
    assert constant_weights(model) is None


def test_dropouts_are_told_where_they_take_most() -> None:
    assert high_dropout(nn.Sequential(nn.Dropout(0.5))) is None
    found = high_dropout(nn.Sequential(nn.Dropout(0.1), nn.Dropout(0.9)))
    assert found is not None
    assert "1 dropouts take away 90%" in found.evidence
