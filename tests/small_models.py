"""Networks whose answers can be worked out by hand, and folders of them.

Each word is one of eight vectors of ones and minus ones that are orthogonal to each other, so that
LayerNorm leaves them as they are.  Without attention the hidden state of a token is its vector, and
a head that looks for a vector gives its strength where it stands, else 0.  With attention, which is
uniform, each token also sees the mean of its sequence.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from minibert.checkpoint import Pretrained
from minibert.config import BertConfig
from minibert.prediction.settings import PredictionSettings
from minibert.tokenizer import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "good", "fine", "bad", "poor", "odd", "anna", "smith", "paris", "lives", "in", "the", "film",
    "who", "where", "is", ".", ",", "?", "##s", "##ly",
)  # fmt: skip
VOCAB = (*SPECIAL, *WORDS)
POSITIONS = 64

H = TypeVar("H", bound=Pretrained)


def vectors() -> Tensor:
    """Eight rows: zeros, and seven orthogonal vectors of mean 0 and variance 1."""
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    rows = torch.kron(torch.kron(two, two), two)
    rows[0] = 0
    return rows


def small_config(labels: Sequence[str] = ("neg", "pos"), **values: object) -> BertConfig:
    """That of the networks here."""
    return BertConfig(
        vocab_size=len(VOCAB), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=4, max_position_embeddings=POSITIONS, labels=tuple(labels), **values,
    )  # fmt: skip


def hand_made(
    head: type[H],
    words: Mapping[str, int],
    *,
    labels: Sequence[str] = ("neg", "pos"),
    strength: float = 8.0,
    attends: bool = False,
    problem_type: str | None = None,
) -> H:
    """A head whose label k has the logit `strength` where vector k + 1 is.

    Args:
        words: which vector each word is, 1 to 6; the others, and special tokens, are vector 7.
    """
    model = head(small_config(labels, problem_type=problem_type)).eval()
    table = vectors()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
        bert = model.bert
        assert isinstance(bert, nn.Module)
        for word in VOCAB:
            bert.embeddings.token.weight[VOCAB.index(word)] = table[words.get(word, 7)]
        if attends:
            layer = bert.layers[0].attention
            layer.qkv.weight[16:] = torch.eye(8)
            layer.output.weight.copy_(torch.eye(8))
        if bert.pooler is not None:
            bert.pooler.dense.weight.copy_(torch.eye(8))
        for name in ("classifier", "spans"):
            if hasattr(model, name):
                linear = getattr(model, name)
                linear.weight.copy_(table[1 : 1 + len(linear.weight)] * strength / 8)
    return model


def small_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of the words."""
    path = folder / "vocab.txt"
    path.write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return Tokenizer.from_vocab(path)


def save_small(model: Pretrained, folder: Path, settings: PredictionSettings | None = None) -> Path:
    """A folder of a network, its tokenizer and, where given, its `minibert.json`."""
    model.save_pretrained(folder)
    small_tokenizer(folder)
    if settings is not None:
        settings.save(folder)
    return folder
