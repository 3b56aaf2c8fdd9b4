"""Runs, rows and encoders that are small enough to work through by hand, for tests of training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from small_models import POSITIONS, VOCAB, small_tokenizer

from minibert.config import BertConfig
from minibert.model import BertModel
from minibert.training.rows import Place, Row
from minibert.training.run_config import RunConfig

ID = {word: number for number, word in enumerate(VOCAB)}


def ids_of(text: str) -> list[int]:
    """The ids of words, [CLS] and [SEP] among them, that stand between blanks."""
    return [ID[word] for word in text.split()]


def row_of(number: int = 1, **values: Any) -> Row:
    """A row, as one made in Python is read."""
    return Row(values, Place(f"row {number}"))


def rows_of(values: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [Row(dict(each), Place(f"row {number}")) for number, each in enumerate(values, start=1)]


def run_of(task: str, folder: str | Path = ".", **tables: Any) -> RunConfig:
    """A run of a task; `data` and the other tables as a run file has them, less the train file."""
    data = {"train": "train.csv", **tables.pop("data", {})}
    return RunConfig.from_dict({"task": task, "data": data, **tables}, folder=folder)


def save_encoder(folder: Path, *, seed: int = 0) -> Path:
    """A random encoder with its vocabulary, to start from."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCAB), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=POSITIONS, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    small_tokenizer(folder)
    return folder
