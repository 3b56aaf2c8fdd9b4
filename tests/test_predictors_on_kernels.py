"""Every kind of predictor with its encoder on the kernels: what PyTorch says, in any dtype."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import POSITIONS, save_small, small_config
from strategies import randomised
from torch import nn

from minibert import (
    MaskFiller,
    QuestionAnswerer,
    TextClassifier,
    TextScorer,
    TokenTagger,
)
from minibert.checkpoint import Pretrained
from minibert.errors import EngineError
from minibert.heads import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from minibert.prediction import loading
from minibert.prediction.loading import Predictor
from minibert.prediction.settings import PredictionSettings

TEXTS = ["anna went to paris", "a good film", "anna smith", "the film is in paris , anna"]
PAIRS = ["a bad film", "paris", "good", "anna"]


def saved(folder: Path, head: type[Pretrained], task: str, labels: tuple[str, ...]) -> Path:
    config = small_config(labels, initializer_range=0.8)
    model = randomised(head(config), seed=3)
    return save_small(model, folder, PredictionSettings(task=task, max_length=POSITIONS))


def classified(folder: Path, **how: Any) -> tuple[Any, ...]:
    predictor = TextClassifier.from_pretrained(
        saved(folder, BertForSequenceClassification, "multiclass", ("a", "b", "c")), **how
    )
    return predictor, predictor.logits(TEXTS), predictor.logits(TEXTS, PAIRS)


def scored(folder: Path, **how: Any) -> tuple[Any, ...]:
    scorer = TextScorer.from_pretrained(
        saved(folder, BertForSequenceClassification, "regression", ("a",)), **how
    )
    return scorer.encoder, scorer.logits(TEXTS), scorer.logits(TEXTS, PAIRS)


def tagged(folder: Path, **how: Any) -> tuple[Any, ...]:
    predictor = TokenTagger.from_pretrained(
        saved(folder, BertForTokenClassification, "tokens", ("O", "B-X", "I-X")), **how
    )
    return predictor, *(each.logits for each in predictor.logits(TEXTS))


def answered(folder: Path, **how: Any) -> tuple[Any, ...]:
    predictor = QuestionAnswerer.from_pretrained(
        saved(folder, BertForQuestionAnswering, "spans", ("a", "b")), **how
    )
    return predictor, *(each.windows[0] for each in predictor.logits(PAIRS, TEXTS))


def filled(folder: Path, **how: Any) -> tuple[Any, ...]:
    predictor = MaskFiller.from_pretrained(
        saved(folder, BertForMaskedLM, "masked_lm", ("a", "b")), **how
    )
    found = predictor.fill([f"{text} [MASK] film" for text in TEXTS], top_k=3)
    return predictor, *(
        torch.tensor([candidate.probability for candidate in candidates])
        for filling in found
        for candidates in filling.masks
    )


KINDS = (classified, scored, tagged, answered, filled)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "computes", "bound"),
    [
        ("float32", "float32 by kernels for", 1e-5),
        ("int16", "16-bit integers by kernels for", 1e-2),
        ("int8", "8-bit integers by kernels for", 0.3),
    ],
)
def test_kernels_say_what_pytorch_says(
    kind: Any, dtype: str, computes: str, bound: float, tmp_path: Path
) -> None:
    plain, *expected = kind(tmp_path / "a", dtype=dtype, engine="pytorch")
    fast, *got = kind(tmp_path / "b", dtype=dtype, engine="kernels")
    assert fast.computes.startswith(computes)
    assert "by PyTorch" in plain.computes
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=bound, atol=bound)


def test_batches_do_not_matter_to_the_last_bit(tmp_path: Path) -> None:
    predictor, together, _ = classified(tmp_path, engine="kernels")
    alone = [predictor.logits([text], batch_tokens=1) for text in TEXTS]
    # Pooler and head are PyTorch's, whose products of many rows round otherwise than of one.
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="got batch_tokens 0"):
        predictor.logits(TEXTS, batch_tokens=0)


def test_weights_that_change_are_those_that_predict(tmp_path: Path) -> None:
    predictor, before, _ = classified(tmp_path, engine="kernels")
    with torch.no_grad():
        predictor.model.bert.layers[0].feed_forward.down.bias[0].add_(3)
    plain = TextClassifier(predictor.model, predictor.tokenizer, predictor.settings)
    after = predictor.logits(TEXTS)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, plain.logits(TEXTS), rtol=1e-5, atol=1e-5)


def test_stages_that_are_looked_at_are_computed_by_pytorch(tmp_path: Path) -> None:
    folder = saved(tmp_path, BertForSequenceClassification, "multiclass", ("a", "b", "c"))
    predictor = TextClassifier.from_pretrained(folder, engine="auto")
    seen: list[nn.Module] = []
    predictor.model.bert.layers[0].register_forward_hook(lambda module, *_: seen.append(module))
    predictor.logits(TEXTS * 200)
    assert seen
    assert "float32 by PyTorch" in predictor.computes


def test_kernels_for_predictions_on_a_gpu_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path, BertForSequenceClassification, "multiclass", ("a", "b", "c"))
    monkeypatch.setattr(loading, "checked_device", lambda name: name)
    with pytest.raises(EngineError, match="on a GPU are computed by PyTorch, got engine 'kernels'"):
        TextClassifier.from_pretrained(folder, device="meta", engine="kernels")
    assert issubclass(TextClassifier, Predictor)
