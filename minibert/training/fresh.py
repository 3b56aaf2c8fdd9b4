"""A network made from nothing: a vocabulary learnt of the texts, and random weights."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import tokenizers
import torch
from jaxtyping import Float
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from minibert.config import BertConfig
from minibert.errors import RunError
from minibert.files import replacing_folder
from minibert.model import BertModel
from minibert.tokenizer import Tokenizer
from minibert.training.run_config import RunConfig
from minibert.training.run_keys import NetworkConfig
from minibert.weights import resolve

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Characters that are learnt at most. Each may begin a word and go on with one, and a third of the
# vocabulary at least is left for what is longer.
_MOST_CHARACTERS = 1000
_LONGEST_WAVE = 1000.0  # in the shortest, which is 2π positions long
_PORTION = 1000  # texts that are learnt of at once


def fresh_checkpoint(run: RunConfig, texts: Iterable[str], folder: Path) -> None:
    """Write a checkpoint as `[network]` says, whole or not at all; one that is there is replaced.

    The same texts and the same seed give the same vocabulary and the same weights.

    Args:
        texts: those of train, which a vocabulary is learnt of.

    Raises: RunError for sizes that do not fit, and where it cannot be written.
    """
    settings = run.network
    if settings.hidden_size % settings.num_attention_heads:
        raise RunError(
            f"network.hidden_size is {settings.hidden_size}, expected a multiple of "
            f"network.num_attention_heads, {settings.num_attention_heads}"
        )
    if run.data.max_length > settings.max_position_embeddings:
        raise RunError(
            f"data.max_length is {run.data.max_length}, expected at most "
            f"network.max_position_embeddings, {settings.max_position_embeddings}"
        )
    tokenizer = _tokenizer(run, texts)
    tokenizer.model_max_length = settings.max_position_embeddings
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_hidden_layers,
        num_attention_heads=settings.num_attention_heads,
        intermediate_size=settings.intermediate_size,
        max_position_embeddings=settings.max_position_embeddings,
    )
    torch.manual_seed(run.training.seed)
    network = BertModel(config)
    if settings.positions == "sinusoidal":
        _make_sinusoidal(network.embeddings.position.weight, config.initializer_range)
    try:
        with replacing_folder(folder) as part:
            tokenizer.save_pretrained(part)
            network.save_pretrained(part)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written: {error}; make room, and start again"
        ) from None


@torch.no_grad()
def _make_sinusoidal(table: Float[Tensor, "positions hidden"], std: float) -> None:
    """Sines and cosines of each position in waves of many lengths; as large as random values are.

    table[p, 2i] = √2 std sin(p / L^(2i / hidden)),  table[p, 2i + 1] = √2 std cos(same)

    What two positions have in common hangs on their distance alone, so that one linear map finds
    the neighbour of every position; of random vectors it has to be learnt for each.

    Source: Vaswani et al. 2017, section 3.5.
    Differs: learnt from here on; L is 1,000 in place of 10,000, for sequences are shorter.
    """
    n, width = table.shape
    rates = _LONGEST_WAVE ** -(torch.arange(0, width, 2) / width)
    angles = torch.arange(n)[:, None] * rates
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
    table.copy_(waves * (math.sqrt(2) * std))


def _tokenizer(run: RunConfig, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer that is named, or one that is learnt."""
    settings = run.network
    if settings.tokenizer is None:
        return learnt_tokenizer(texts, vocab_size=settings.vocab_size, lowercase=settings.lowercase)
    for name in ("vocab_size", "lowercase"):
        if getattr(settings, name) != getattr(NetworkConfig(), name):
            raise RunError(
                f"network.{name} is {getattr(settings, name)}, which goes with a vocabulary that "
                f"is learnt, and network.tokenizer is {settings.tokenizer!r}; leave one of them out"
            )
    path = run.path(settings.tokenizer)
    return Tokenizer.from_pretrained(path if path.is_dir() else resolve(settings.tokenizer))


def learnt_tokenizer(texts: Iterable[str], *, vocab_size: int, lowercase: bool) -> Tokenizer:
    """A WordPiece tokenizer whose vocabulary is learnt of texts, the same one of the same texts.

    Pieces are joined as byte-pair encoding joins them, the most frequent pair first, which is how
    the `tokenizers` package learns WordPiece; the original program was never published.
    Differs: there the pieces of one character get their numbers as a hash table has them, and of
    pairs that are as frequent other ones are joined at each start.

    Args:
        vocab_size: tokens at most, special ones included; fewer where no more pairs occur twice.
        lowercase: are capitals and accents taken away first?

    Raises: RunError for texts without a word.
    """
    texts = list(texts)
    backend = _backend({}, lowercase=lowercase)
    words = _words(backend, texts)
    if not words:
        raise RunError("the texts of train have no word that a vocabulary could be learnt of")
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    most = min(_MOST_CHARACTERS, vocab_size // 3)
    alphabet = sorted(sorted(counts, key=lambda each: (-counts[each], each))[:most])
    inner = sorted({each for word in words for each in word[1:]}.intersection(alphabet))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        # Those that go on with a word too, so that they are numbered in this order.
        special_tokens=[*_SPECIAL, *alphabet, *(f"##{each}" for each in inner)],
        show_progress=False,
    )
    backend.train_from_iterator(_in_portions(texts), trainer=trainer)
    # Made anew: that one would find what it takes for special tokens anywhere in a word.
    return Tokenizer(_backend(backend.get_vocab(), lowercase=lowercase))


def _backend(vocab: Mapping[str, int], *, lowercase: bool) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordPiece(dict(vocab), unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def _words(backend: tokenizers.Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs."""
    found: Counter[str] = Counter()
    for text in texts:
        plain = backend.normalizer.normalize_str(text)
        found.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(plain))
    return found


def _in_portions(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _PORTION):
        yield texts[start : start + _PORTION]
