"""The models that the pretrained network of scripts/pretrain_small.py is compared with, by hand."""

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import VOCAB, WORDS, small_tokenizer

from minibert.training.examples import Examples

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "pretrain_small.py"
CLS, SEP, MASK = (VOCAB.index(name) for name in ("[CLS]", "[SEP]", "[MASK]"))
GOOD, FILM, THE = (VOCAB.index(word) for word in ("good", "film", "the"))


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("pretrain_small", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pretrain_small"] = module  # where its classes are looked for
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def counts(script: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of "the film", "the film", "good film" and "the good"."""
    rows = [[THE, FILM], [THE, FILM], [GOOD, FILM], [THE, GOOD]]
    ids = [[CLS, *row, SEP] for row in rows]
    examples = Examples(ids, [[0] * 4 for _ in ids], [0] * 4)
    return script.Counts.of(examples, small_tokenizer(tmp_path_factory.mktemp("words")))


def positions(script: Any, *rows: tuple[int, int, int]) -> Any:
    """Positions that show [MASK]: left, wanted, right."""
    left, wanted, right = (np.array(column) for column in zip(*rows, strict=True))
    shown = np.full(len(rows), MASK)
    return script.Positions(wanted, shown, left, right, np.zeros(len(rows)))


def test_unigram_by_hand(counts: Any) -> None:
    """Eight words, of which three are "film"; one more of each of the vocabulary's words."""
    total = 8 + len(WORDS)
    found = counts.unigram()
    assert found[[FILM, THE, GOOD, VOCAB.index("odd")]] == pytest.approx(
        [4 / total, 4 / total, 3 / total, 1 / total]
    )
    assert found[:5].tolist() == [0.0] * 5
    assert found.sum() == pytest.approx(1)


def test_neighbours_by_hand(script: Any, counts: Any) -> None:
    """Behind "the" there are two films of three words; before "film" two of three are "the"."""
    total = 8 + len(WORDS)
    alpha = 3.0
    left = script.losses_beside(
        counts, positions(script, (THE, FILM, SEP), (MASK, FILM, SEP)), MASK, both=False
    )[alpha]
    assert np.exp(-left) == pytest.approx([(2 + 3 * 4 / total) / (3 + 3), 4 / total])
    rows = positions(script, (CLS, THE, FILM), (MASK, THE, MASK), (MASK, THE, FILM))
    both = np.exp(-script.losses_beside(counts, rows, MASK, both=True)[alpha])
    prior = counts.unigram()
    before = np.zeros(len(VOCAB))
    before[[THE, GOOD]] = 2, 1
    before = (before + alpha * prior) / (3 + alpha)
    behind = np.zeros(len(VOCAB))
    behind[[THE, GOOD]] = 3, 1
    behind = (behind + alpha * prior) / (4 + alpha)
    together = np.divide(before * behind, prior, out=np.zeros(len(VOCAB)), where=prior > 0)
    expected = [together[THE] / together.sum(), prior[THE], before[THE]]
    assert both == pytest.approx(expected)


def test_comparison_is_over_all_positions_and_over_masks(script: Any, counts: Any) -> None:
    found = positions(script, (THE, FILM, SEP), (CLS, GOOD, FILM))
    found = found._replace(shown=np.array([MASK, GOOD]), losses=np.array([1.0, 2.0]))
    compared = script.comparison(counts, found, MASK)
    assert (compared["positions"], compared["positions_that_show_mask"]) == (2, 1)
    assert compared["all"]["network"] == 1.5
    assert compared["that_show_mask"]["network"] == 1.0
    assert compared["that_show_mask"]["unigram"] == pytest.approx(
        -math.log(4 / (8 + len(WORDS))), abs=1e-4
    )
    assert compared["all"]["left neighbour"] < compared["all"]["unigram"]
    assert compared["alpha"]["left neighbour"] in script.ALPHAS


@pytest.mark.data
def test_texts_are_read_in_their_encodings(script: Any, data: Path, tmp_path: Path) -> None:
    script.write_texts(data, tmp_path)
    train, held_out = (
        (tmp_path / f"{side}.txt").read_text(encoding="utf-8") for side in ("train", "held-out")
    )
    assert len(held_out) / len(train) == pytest.approx(0.05, abs=0.02)
    for text in (train, held_out):
        assert not {"\r", "\ufeff", "\ufffd"} & set(text)
        assert "OF THIS PROJECT" not in text
        assert "<unk>" not in text
        assert "[UNK]" in text
    assert "‘and what is the use of a book,’ thought Alice" in train
    assert "Irene Adler" in train
    assert "£" in train  # of the one that is latin-1
