"""Checkpoint folders in the laboratory: their class, and recordings made of them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import minibert
from minibert.checkpoint import Pretrained
from minibert.config import BertConfig
from minibert.errors import ParityError
from minibert.model import BertModel
from minibert.parity.recording import TEXTS, Recording, describe, inputs_of, record
from minibert.parity.reference import record_transformers, sentence_transformers_vectors
from minibert.tokenizer import Tokenizer
from minibert.weights import resolve


def record_folder(
    name: str | Path,
    *,
    library: str = "minibert",
    dtype: str = "float32",
    texts: Sequence[tuple[str, str | None]] = TEXTS,
    stages: str | Iterable[str] = "*",
    noise: bool = True,
    step: int = 1,
) -> Recording:
    """Run a checkpoint on texts, and pairs of them, and keep its stages.

    Args:
        name: a folder, a name of the manifest, or a hub id.
        library: what runs it: "minibert", or "transformers", whose recording also holds the vectors
            of sentence-transformers where that is installed.
        dtype: of the computation.
        stages, noise, step: as in `record`.

    Raises: ParityError where it cannot be recorded so; the errors of loading it.
    """
    folder = resolve(name)
    tokenizer = Tokenizer.from_pretrained(folder)
    longest = BertConfig.from_file(folder / "config.json").max_position_embeddings
    inputs = inputs_of(texts, tokenizer, longest)
    if library == "transformers":
        found = record_transformers(
            folder, inputs, dtype=dtype, stages=stages, noise=noise, step=step
        )
        singles = [first for first, second in texts if second is None]
        found.vectors = sentence_transformers_vectors(folder, singles) if singles else None
    else:
        network = network_class(folder).from_pretrained(folder, dtype=dtype)
        found = record(network, inputs, stages=stages, noise=noise, step=step)
    found.model_name = str(name)
    describe(found, texts, tokenizer)
    return found


def network_class(folder: Path) -> type[Pretrained]:
    """The class of minibert that a checkpoint's config.json names, the encoder where none."""
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = values.get("architectures") or ["BertModel"]
    return named_class(str(names[0]), BertModel)


def named_class(name: str, default: type[Pretrained] | None = None) -> type[Pretrained]:
    """The class of that name, `default` where minibert has none.

    Raises: ParityError where there is neither.
    """
    found = getattr(minibert, name, default) if name in minibert.__all__ else default
    if not (isinstance(found, type) and issubclass(found, Pretrained)):
        raise ParityError(
            f"got the network {name!r}, expected BertModel or one of minibert's heads"
        )
    return found
