"""Every kind of predictor with its encoder on the kernels: what PyTorch says, in any dtype."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import POSITIONS, save_small, small_config
from strategies import randomised
from torch import Tensor, nn

from minibert import (
    MaskFiller,
    QuestionAnswerer,
    TextClassifier,
    TextScorer,
    TokenTagger,
)
from minibert.checkpoint import Pretrained
from minibert.engine import load_kernels
from minibert.errors import EngineError
from minibert.heads import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from minibert.layout import Packed
from minibert.model import BertModel
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
    candidates = [each for filling in found for mask in filling.masks for each in mask]
    assert len({each.token for each in candidates}) > 1
    return predictor, torch.tensor([each.probability for each in candidates])


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


def test_batches_do_not_matter(tmp_path: Path) -> None:
    predictor, together, _ = classified(tmp_path, engine="kernels")
    alone = [predictor.logits([text], batch_tokens=1) for text in TEXTS]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="got batch_tokens 0"):
        predictor.logits(TEXTS, batch_tokens=0)


def test_weights_that_change_are_those_that_predict(tmp_path: Path) -> None:
    predictor, before, _ = classified(tmp_path, engine="kernels")
    with torch.no_grad():
        predictor.model.bert.layers[0].feed_forward.down.bias[0].add_(3)
    assert_by_pytorch(predictor, before)


def test_an_encoder_that_is_put_in_its_place_is_the_one_that_predicts(tmp_path: Path) -> None:
    predictor, before, _ = classified(tmp_path, engine="kernels")
    predictor.model.bert = randomised(BertModel(predictor.model.config), seed=8).eval()
    assert_by_pytorch(predictor, before)


def assert_by_pytorch(predictor: TextClassifier, before: Tensor) -> None:
    """It says what PyTorch says, on kernels, and no longer what it said before."""
    plain = TextClassifier(predictor.model, predictor.tokenizer, predictor.settings)
    after = predictor.logits(TEXTS)
    assert "by kernels" in predictor.computes
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, plain.logits(TEXTS), rtol=1e-5, atol=1e-5)


def many_texts() -> list[str]:
    """Enough, and no two alike, for kernels to be worth it."""
    words = ["anna", "paris", "film", "good", "bad", "smith"]
    return [" ".join(each) for each in itertools.permutations(words, 3)]


def test_stages_that_are_looked_at_are_computed_by_pytorch(tmp_path: Path) -> None:
    folder = saved(tmp_path, BertForSequenceClassification, "multiclass", ("a", "b", "c"))
    predictor = TextClassifier.from_pretrained(folder, engine="auto")
    load_kernels()
    predictor.logits(many_texts())
    assert "by kernels" in predictor.computes
    seen: list[nn.Module] = []
    for module in (predictor.model.bert.layers[0], predictor.model):
        module.register_forward_hook(lambda module, *_: seen.append(module))
    predictor.logits(many_texts())
    assert seen == [predictor.model.bert.layers[0], predictor.model]
    assert "hooks" in predictor.computes


def test_a_stream_is_predicted_in_one_way(tmp_path: Path) -> None:
    load_kernels()
    folder = saved(tmp_path, BertForSequenceClassification, "multiclass", ("a", "b", "c"))
    predictor = TextClassifier.from_pretrained(folder, engine="auto")
    next(predictor.stream(iter(["anna"])))
    assert "by kernels" in predictor.computes
    few = TextScorer.from_pretrained(
        saved(tmp_path / "b", BertForSequenceClassification, "regression", ("a",)), engine="auto"
    )
    few.settle(3)
    assert "by kernels" in few.computes
    few.score(TEXTS)
    assert "by kernels" in few.computes


def test_sixteen_bits_reach_the_head_as_sixteen_bits(tmp_path: Path) -> None:
    """As where a CPU has units for bfloat16, and kernels compute a network of it."""
    folder = saved(tmp_path, BertForSequenceClassification, "multiclass", ("a", "b", "c"))
    predictor = TextClassifier.from_pretrained(folder, dtype="bfloat16", engine="pytorch")
    expected = predictor.logits(TEXTS)

    class Kernels:
        def hidden(self, ids: Any, lengths: Any, types: Any) -> Tensor:
            layout = Packed.from_lengths(lengths.tolist())
            out = predictor.model.bert(torch.from_numpy(ids).long(), layout=layout)
            return out.last_hidden_state.float()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor._engines, "for_tokens", lambda n_tokens: Kernels())
        assert predictor.logits(TEXTS).equal(expected)


def test_kernels_for_predictions_on_a_gpu_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path, BertForSequenceClassification, "multiclass", ("a", "b", "c"))
    monkeypatch.setattr(TextClassifier, "_is_on_cpu", False)
    with pytest.raises(EngineError, match="on a GPU are computed by PyTorch, got engine 'kernels'"):
        TextClassifier.from_pretrained(folder, engine="kernels")
    monkeypatch.setenv("MINIBERT_ENGINE", "kernels")  # of embedders, perhaps
    predictor = TextClassifier.from_pretrained(folder)
    assert predictor.settle(None) is False
    predictor.logits(TEXTS)
    assert "by PyTorch" in predictor.computes
