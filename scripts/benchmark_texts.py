"""What the workloads of `benchmark.py` embed: real texts, always the same ones."""

import csv
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

QUESTION = "how do bees find their way back home"  # eight words
REVIEW_TOKENS = 256
N_REVIEWS = 150  # of each class


class Pairs(NamedTuple):
    """Sentences in pairs, and how much alike people found them."""

    first: list[str]
    second: list[str]
    scores: list[float]


def sentences(data: Path) -> list[str]:
    """W1: the first 1,000 sentences of sst2's training part, and 1,000 of stsb's."""
    with (data / "sst2" / "stsa.binary.train").open(encoding="utf-8") as file:
        sst2 = [line.split(" ", 1)[1].strip() for line in file]
    stsb = [row[5] for row in _stsb(data, "train")]
    return sst2[:1000] + stsb[:1000]


def calibration_sentences(data: Path) -> list[str]:
    """About 300 other sentences, none of them of W1, that a converter may look at."""
    taken = set(sentences(data))
    others = [row[5] for row in _stsb(data, "train")[1000:] if row[5] not in taken]
    return others[:: len(others) // 300]


def reviews(data: Path) -> list[str]:
    """W2: the first 150 reviews of each class, by their names."""
    with zipfile.ZipFile(data / "movie_reviews" / "movie_reviews.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".txt"))
        chosen = [
            name
            for kind in ("neg", "pos")
            for name in [each for each in names if f"/{kind}/" in f"/{each}"][:N_REVIEWS]
        ]
        return [archive.read(name).decode("utf-8", errors="replace") for name in chosen]


def judged_pairs(data: Path) -> Pairs:
    """The development part of stsb."""
    rows = _stsb(data, "dev")
    return Pairs(
        [row[5] for row in rows], [row[6] for row in rows], [float(row[4]) for row in rows]
    )


def _stsb(data: Path, part: str) -> list[list[str]]:
    with (data / "stsb" / f"sts-{part}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def grown(texts: list[str], n_texts: int) -> Iterator[str]:
    """W7: texts that all differ, as long as the given ones: each again with a word of another."""
    words = sorted({word for text in texts for word in text.split()})
    seen: set[bytes] = set()
    made = 0
    for turn in count():
        for place, text in enumerate(texts):
            parts = text.split()
            if turn and parts:
                drawn = hashlib.sha256(f"{turn} {place}".encode()).digest()
                at = int.from_bytes(drawn[:4]) % len(parts)
                parts[at] = words[int.from_bytes(drawn[4:8]) % len(words)]
            new = " ".join(parts)
            key = hashlib.sha256(new.encode()).digest()
            if key in seen:
                continue
            seen.add(key)
            yield new
            made += 1
            if made == n_texts:
                return


def base_model(small: Path, cache: Path) -> Path:
    """W3: a folder with a BERT of 12 layers, 768 wide, of random weights that are always the same.

    Args:
        small: a sentence-transformers folder, whose tokenizer and recipe it gets.
        cache: where the folder is made, once.
    """
    import torch

    from minibert import BertConfig, BertModel, Embedder

    folder = cache / "base"
    if folder.exists():
        return folder
    source = Embedder.from_pretrained(small)
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=source.model.config.vocab_size))
    partial = cache / f"base.{os.getpid()}"
    Embedder(model, source.tokenizer, source.recipe).save_pretrained(partial)
    partial.rename(folder)
    return folder


def write_texts(texts: list[str], path: Path) -> Path:
    """A file of texts for a contender's process."""
    path.write_text(json.dumps(texts), encoding="utf-8")
    return path
