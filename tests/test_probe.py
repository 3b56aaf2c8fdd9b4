"""Norms, steps and drift of a network's parts, worked by hand."""

import pytest
import torch
from torch import nn

from minibert.config import BertConfig
from minibert.doctor.probe import Probe, is_encoder, part_of
from minibert.heads import BertForSequenceClassification


def test_parts_are_named_as_the_network_has_them() -> None:
    config = BertConfig(num_hidden_layers=2, hidden_size=16, num_attention_heads=2,
                        intermediate_size=32, vocab_size=50)  # fmt: skip
    model = BertForSequenceClassification(config)
    assert Probe(model).parts == ("embeddings", "layer 0", "layer 1", "pooler", "head")
    assert [is_encoder(part) for part in ("embeddings", "layer 0", "pooler", "head")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert part_of("roberta.encoder.layer.3.output.LayerNorm.weight") == "layer 3"
    assert part_of("transformer.h.0.attn.weight") == "layer 0"


def test_a_look_gives_gradients_steps_and_drift() -> None:
    model = nn.Sequential(nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 4.0]]))
    probe = Probe(model)
    assert probe.look(1).missing == ("head",)
    model[0].weight.grad = torch.tensor([[6.0, 8.0]])
    model[0].bias.grad = torch.zeros(1)
    with torch.no_grad():
        model[0].weight.add_(torch.tensor([[0.0, 1.0]]))
    first = probe.look(5)
    assert first.gradients == {"head": 10.0}
    assert first.missing == ()
    assert first.moved["head"] == pytest.approx(1 / 5 / 4)  # of a length of 5, in 4 updates
    assert first.drifted["head"] == pytest.approx(1 / 5)
    with torch.no_grad():
        model[0].weight.zero_()
    second = probe.look(6)
    assert second.drifted["head"] == pytest.approx(1)
    assert second.length["head"] == 0


def test_frozen_parts_are_not_missed() -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    assert Probe(model).look(1).missing == ()


def test_a_sample_stands_for_a_large_matrix() -> None:
    model = nn.Linear(1000, 1000, bias=False)
    probe = Probe(model)
    with torch.no_grad():
        model.weight.mul_(1.1)
    assert probe.look(1).drifted["head"] == pytest.approx(0.1, rel=1e-4)
