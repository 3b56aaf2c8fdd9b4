"""Lengths of texts in tokens, and the length that is proposed for them."""

from pathlib import Path

import pytest

from minibert import BertConfig, BertModel
from minibert.training.token_lengths import Lengths, measure_lengths


def lengths(*tokens: int, positions: int = 512) -> Lengths:
    return Lengths(sorted(tokens), "", positions, None)


def test_quantiles_are_lengths_that_stand_there() -> None:
    found = lengths(*range(1, 101))
    assert [found.quantile(share) for share in (0.0, 0.5, 0.95, 1.0)] == [1, 50, 95, 100]
    assert lengths(7).quantile(0.95) == 7


def test_shares_that_are_cut() -> None:
    found = lengths(10, 128, 129, 600)
    assert [found.cut_share(n) for n in (9, 10, 128, 129, 600)] == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize(
    ("tokens", "positions", "proposed"),
    [
        ([5] * 10, 512, 128),
        ([128] * 10, 512, 128),
        ([129] * 10, 512, 256),
        ([5] * 999 + [300], 512, 128),
        ([5] * 998 + [300] * 2, 512, 512),
        ([900], 512, 512),
        ([900], 4096, 512),
        ([900], 200, 200),
        ([90], 100, 100),
        ([128], 128, 128),
    ],
)
def test_proposed_length_cuts_hardly_any(tokens: list[int], positions: int, proposed: int) -> None:
    assert lengths(*tokens, positions=positions).proposed == proposed


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b"]
    config = BertConfig(
        vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=4, max_position_embeddings=9,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    return folder


def test_tokenizer_counts_where_the_model_is(small: Path) -> None:
    found = measure_lengths([["a abb"], ["a"], [""]], str(small))
    assert (found.tokens, found.positions, found.hidden_size) == ([2, 3, 6], 9, 4)
    assert found.how == f"by the tokenizer of {small}"
    assert measure_lengths([["ab", "a a"], ["a", ""]], str(small)).tokens == [4, 7]
    assert measure_lengths([[["ab", "a"]], [["a"]]], str(small)).tokens == [3, 5]


def test_words_are_counted_where_it_is_not(tmp_path: Path) -> None:
    texts = [["ten words of a text that no tokenizer is for"], ["a", "b"], [["a"] * 20]]
    found = measure_lengths(texts, str(tmp_path / "absent"))
    # 10 words make 13 tokens, with [CLS] and [SEP]; 2 make 3, with a [SEP] more; 20 make 26.
    assert found.tokens == [6, 15, 28]
    assert "by words times 1.3, for " in found.how
    assert (found.positions, found.hidden_size) == (512, None)
