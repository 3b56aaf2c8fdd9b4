"""What training saves, opened by `transformers` and `sentence-transformers`: the same numbers.

Logits differ by at most 1e-5 of their scale, unit vectors by at most 1e-6.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
import test_masked_lm_task as masked
import test_span_task as spans
import test_vector_task as vectors
import torch
from strategies import scaled_error
from test_run import small
from torch import Tensor, nn

from minibert import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    Embedder,
    Tokenizer,
)
from minibert.layout import Packed
from minibert.recipe import Recipe, write_recipe
from minibert.training.examples import Batch, Examples
from minibert.training.losses import IGNORED
from minibert.training.run import train

pytestmark = pytest.mark.reference
small_of_words = spans.small

__all__ = ["small", "small_of_words"]  # fixtures


def theirs(name: str, folder: Path) -> Any:
    # Here: the default suite imports this file too, in an environment without it.
    import transformers

    model = getattr(transformers, name).from_pretrained(folder)
    return model.eval()


def their_batch(folder: Path, *texts: list[str]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)(*texts, padding=True, return_tensors="pt")


def assert_same(batch: Any, ours: dict[str, Tensor]) -> None:
    assert {name: batch[name].tolist() for name in ours} == {
        name: each.tolist() for name, each in ours.items()
    }


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("BertForSequenceClassification", {}),
        ("BertForTokenClassification", {"task": "tokens"}),
    ],
)
def test_training_gives_the_losses_of_transformers_and_torch(
    name: str, case: dict[str, Any], tmp_path: Path
) -> None:
    """The same weights and batches: packed and by our loop, or padded and by torch's AdamW."""
    batches: list[Batch] = []
    losses = ranks.Losses()
    training = {"max_grad_norm": None, "epochs": 14, "accumulate": 1}
    found = ranks.trainer(
        {**case, "optimizer": ranks.ADAMW, "training": training},
        dtype=torch.float64,
        observers=[losses],
    )
    found.model.save_pretrained(tmp_path)
    prepare = found.prepare
    assert prepare is not None

    def seen(examples: Examples, rows: Sequence[int], step: int) -> Batch:
        batches.append(prepare(examples, rows, step))
        return batches[-1]

    found.prepare = seen
    found.run()

    model = theirs(name, tmp_path).double().train()
    decayed = [p for n, p in model.named_parameters() if n.endswith("weight") and "Norm" not in n]
    others = [p for n, p in model.named_parameters() if not n.endswith("weight") or "Norm" in n]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=ranks.ADAMW["learning_rate"],
    )
    total = len(batches)
    warmup = round(0.1 * total)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: k / warmup if k < warmup else (total - k) / (total - warmup)
    )
    assert total >= 40
    for batch, record in zip(batches, losses.records, strict=True):
        loss = model(**padded(batch)).loss
        assert record.loss == pytest.approx(loss.item(), rel=1e-9)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def padded(batch: Batch) -> dict[str, Tensor]:
    """A packed batch as transformers wants it, with its labels."""
    assert isinstance(batch.layout, Packed)
    lengths = list(batch.layout.lengths)

    def rows(values: Tensor, fill: int) -> Tensor:
        return nn.utils.rnn.pad_sequence(list(values.split(lengths)), True, fill)

    found = {
        "input_ids": rows(batch.input_ids, 0),
        "attention_mask": rows(torch.ones_like(batch.input_ids), 0),
        "token_type_ids": rows(batch.token_type_ids, 0),
    }
    by_token = batch.targets.shape == batch.input_ids.shape
    return {**found, "labels": rows(batch.targets, IGNORED) if by_token else batch.targets}


def test_answers_of_a_run_are_found_by_transformers(small_of_words: Path, tmp_path: Path) -> None:
    train(spans.run_in(small_of_words)(tmp_path))
    folder = tmp_path / "run" / "model"
    rows = spans.questions(6)
    columns = [[row[name] for row in rows] for name in ("question", "context")]
    batch = their_batch(folder, *columns)
    tokenizer = Tokenizer.from_pretrained(folder)
    own = tokenizer.pad(tokenizer.encode(columns[0], columns[1]))
    assert_same(batch, own)
    with torch.no_grad():
        ours = BertForQuestionAnswering.from_pretrained(folder)(**own)
        found = theirs("BertForQuestionAnswering", folder)(**batch)
    attended = own["attention_mask"].bool()
    for name in ("start_logits", "end_logits"):
        expected = getattr(found, name)[attended]
        assert scaled_error(getattr(ours, name)[attended], expected) <= 1e-5
        assert expected.std() > 0.1


@pytest.mark.parametrize("pairs", [False, True])
def test_masked_words_of_a_run_are_told_by_transformers(tmp_path: Path, pairs: bool) -> None:
    train(masked.run_in(masking={"next_sentence": pairs})(tmp_path))
    folder = tmp_path / "run" / "model"
    texts = ["Anna lives in [MASK] now", "[MASK] loves", "maria sees [MASK] Lisbon still"]
    batch = their_batch(folder, texts)
    tokenizer = Tokenizer.from_pretrained(folder)
    own = tokenizer.pad(tokenizer.encode(texts))
    assert_same(batch, own)
    attended = own["attention_mask"].bool()
    if not pairs:
        with torch.no_grad():
            found = theirs("BertForMaskedLM", folder)(**batch).logits[attended]
            ours = BertForMaskedLM.from_pretrained(folder)(**own).logits[attended]
        assert scaled_error(ours, found) <= 1e-5
        return
    with torch.no_grad():
        both = theirs("BertForPreTraining", folder)(**batch)
        words, follows = BertForPreTraining.from_pretrained(folder)(**own)
    assert scaled_error(words[attended], both.prediction_logits[attended]) <= 1e-5
    assert scaled_error(follows, both.seq_relationship_logits) <= 1e-5


@pytest.mark.parametrize("name", ["cosent", "contrastive"])
@pytest.mark.parametrize("pooling", [("mean",), ("cls", "max")])
def test_vectors_of_a_run_are_those_of_sentence_transformers(
    small: Path, tmp_path: Path, name: str, pooling: tuple[str, ...]
) -> None:
    from sentence_transformers import SentenceTransformer

    base = tmp_path / "base"
    shutil.copytree(small, base)
    write_recipe(Recipe(max_length=16, pooling=pooling), base, hidden_size=16)
    tables = {**vectors.RUNS[name].tables}
    tables["data"] = {**tables["data"], "max_length": 8}
    train(vectors.run_in(base, **tables)(tmp_path))
    folder = tmp_path / "run" / "model"
    texts = ["the film is good", "A film was fines", "", "nice " * 12]
    found = SentenceTransformer(str(folder), device="cpu").encode(texts)
    ours = Embedder.from_pretrained(folder).encode(texts)
    assert ours.shape == (4, 16 * len(pooling))
    assert np.abs(ours - found).max() <= 1e-6
