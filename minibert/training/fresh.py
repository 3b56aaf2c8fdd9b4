"""A network made from nothing: a vocabulary learnt of the texts, and random weights."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from minibert.config import BertConfig
from minibert.errors import RunError
from minibert.model import BertModel
from minibert.tokenizer import Tokenizer
from minibert.training.run_config import RunConfig
from minibert.weights import resolve

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def fresh_checkpoint(run: RunConfig, texts: Iterable[str], folder: Path) -> Path:
    """Write a checkpoint as `[network]` says; one that is there already is taken as it is.

    Args:
        texts: those of train, which a vocabulary is learnt of.

    Returns: the folder.
    Raises: RunError for sizes that do not fit; CheckpointError where it cannot be written.
    """
    if (folder / "config.json").exists():  # the last file to be written, of a run that goes on
        return folder
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
    if settings.tokenizer is not None:
        path = run.path(settings.tokenizer)
        tokenizer = Tokenizer.from_pretrained(
            path if path.is_dir() else resolve(settings.tokenizer)
        )
    else:
        tokenizer = learnt_tokenizer(
            texts, vocab_size=settings.vocab_size, lowercase=settings.lowercase
        )
    tokenizer.model_max_length = settings.max_position_embeddings
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_hidden_layers,
        num_attention_heads=settings.num_attention_heads,
        intermediate_size=settings.intermediate_size,
        max_position_embeddings=settings.max_position_embeddings,
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(run.training.seed)
    BertModel(config).save_pretrained(folder)
    return folder


def learnt_tokenizer(texts: Iterable[str], *, vocab_size: int, lowercase: bool) -> Tokenizer:
    """A WordPiece tokenizer whose vocabulary is learnt of texts.

    Pieces are joined as byte-pair encoding joins them, the most frequent pair first, which is how
    the `tokenizers` package learns WordPiece; the original program was never published.

    Args:
        vocab_size: tokens at most, special ones included; fewer where the texts have no more.
        lowercase: are capitals and accents taken away first?
    """
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=_SPECIAL, show_progress=False
    )
    backend.train_from_iterator(_in_portions(texts), trainer=trainer)
    return Tokenizer(backend)


def _in_portions(texts: Iterable[str], size: int = 1000) -> Iterator[list[str]]:
    portion: list[str] = []
    for text in texts:
        portion.append(text)
        if len(portion) == size:
            yield portion
            portion = []
    yield portion
