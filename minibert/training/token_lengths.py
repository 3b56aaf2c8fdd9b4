"""How long texts are in tokens, and how many tokens a run should let them have."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minibert.config import BertConfig
from minibert.errors import MinibertError
from minibert.weights import resolve

_STEPS = (128, 256, 512)
_TOKENS_A_WORD = 1.3  # about what WordPiece makes of English
_CUT_SHARE = 0.001  # of the texts: a longer limit costs nothing but for the long ones
_POSITIONS = 512  # of a BERT that is not here


@dataclass(frozen=True)
class Lengths:
    """Tokens of each text, or pair, of a sample, special ones included, ascending."""

    tokens: list[int]
    how: str  # they were counted, in words
    positions: int  # the most that the model takes
    hidden_size: int | None  # of the model, where it is here

    def quantile(self, share: float) -> int:
        """The length that this share of the texts does not exceed."""
        return self.tokens[max(0, int(share * len(self.tokens) + 0.5) - 1)]

    def cut_share(self, max_length: int) -> float:
        """The share of the texts that are longer."""
        return sum(n > max_length for n in self.tokens) / len(self.tokens)

    @property
    def proposed(self) -> int:
        """The least of a few lengths that cuts hardly any text; else the most there is."""
        steps = [step for step in _STEPS if step < self.positions]
        fits = [step for step in steps if self.cut_share(step) <= _CUT_SHARE]
        return fits[0] if fits else min(self.positions, _STEPS[-1])


def measure_lengths(texts: Sequence[Sequence[Any]], model: str) -> Lengths:
    """Count the tokens of texts, or of pairs of texts, or of lists of words.

    The model's tokenizer counts where the model is on this machine; nothing is fetched.
    """
    try:
        folder = resolve(model, offline=True)
        config = BertConfig.from_file(folder / "config.json")
        tokens = _by_tokenizer(folder, texts)
    except MinibertError as error:
        tokens = [_by_words(each) for each in texts]
        how = f"by words times {_TOKENS_A_WORD}, for {model} is not here to count them ({error})"
        return Lengths(sorted(tokens), how, _POSITIONS, None)
    return Lengths(
        sorted(tokens),
        f"by the tokenizer of {model}",
        config.max_position_embeddings,
        config.hidden_size,
    )


def _by_tokenizer(folder: Path, texts: Sequence[Sequence[Any]]) -> list[int]:
    from minibert.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_pretrained(folder)
    if texts and isinstance(texts[0][0], list):
        return [len(each.ids) for each in tokenizer.encode_words([each[0] for each in texts])]
    firsts = [each[0] for each in texts]
    seconds = [each[1] for each in texts] if texts and len(texts[0]) > 1 else None
    return [len(each.ids) for each in tokenizer.encode(firsts, seconds)]


def _by_words(texts: Sequence[Any]) -> int:
    """About how many tokens there are, with [CLS] and a [SEP] for each text."""
    words = sum(len(each if isinstance(each, list) else each.split()) for each in texts)
    return round(words * _TOKENS_A_WORD) + 1 + len(texts)
