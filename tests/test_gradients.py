"""Sparse gradients of tables: the whole ones, without the zeros."""

import pytest
import torch
from strategies import TINY
from torch import Tensor, nn

from minibert import BertForMaskedLM, BertForSequenceClassification
from minibert.doctor.probe import Probe
from minibert.gradients import gradient_values, row_gradients
from minibert.training.loop import first_not_finite

IDS = torch.tensor([[5, 6, 5, 7], [6, 6, 8, 0]])


def gradient(model: nn.Module, *, of_rows: bool) -> Tensor:
    model.zero_grad()
    table = model.bert.embeddings.token.weight
    assert isinstance(table, nn.Parameter)
    if of_rows:
        with row_gradients(model):
            model(IDS).logits.square().sum().backward()
    else:
        model(IDS).logits.square().sum().backward()
    assert table.grad is not None
    return table.grad


@pytest.fixture
def classifier() -> nn.Module:
    torch.manual_seed(0)
    return BertForSequenceClassification(TINY).eval()


def test_gradients_of_rows_are_the_whole_ones_without_zeros(classifier: nn.Module) -> None:
    whole, rows = (gradient(classifier, of_rows=of_rows) for of_rows in (False, True))
    assert rows.is_sparse
    assert rows.coalesce().indices()[0].tolist() == [0, 5, 6, 7, 8]
    assert torch.equal(rows.to_dense(), whole)
    assert torch.equal(gradient_values(rows), whole[[0, 5, 6, 7, 8]])
    assert gradient_values(whole) is whole


def test_tables_are_as_before_behind_the_block(classifier: nn.Module) -> None:
    with pytest.raises(KeyError), row_gradients(classifier):
        raise KeyError
    assert not gradient(classifier, of_rows=False).is_sparse


def test_gradient_of_a_tied_table_is_a_whole_one() -> None:
    torch.manual_seed(0)
    model = BertForMaskedLM(TINY).eval()
    whole, rows = (gradient(model, of_rows=of_rows) for of_rows in (False, True))
    assert not rows.is_sparse
    torch.testing.assert_close(rows, whole)


def test_values_of_a_coalesced_gradient_are_its_own(classifier: nn.Module) -> None:
    rows = gradient(classifier, of_rows=True).coalesce()
    gradient_values(rows).zero_()
    assert not rows.to_dense().any()


def test_sparse_gradients_are_looked_at_like_others(classifier: nn.Module) -> None:
    looks = []
    for of_rows in (False, True):
        gradient(classifier, of_rows=of_rows)
        looks.append(Probe(classifier).look(1).gradients)
    assert looks[0] == pytest.approx(looks[1])
    table = classifier.bert.embeddings.token.weight
    assert isinstance(table, nn.Parameter)
    assert table.grad is not None
    table.grad = table.grad.coalesce()
    assert first_not_finite(classifier) == "the loss"
    gradient_values(table.grad)[2, 1] = torch.inf
    assert first_not_finite(classifier) == "the gradient of bert.embeddings.token.weight"
