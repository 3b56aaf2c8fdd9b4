"""What several test files share: random small networks, batches, texts; safetensors by hand."""

import importlib.util
import json
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import torch
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from minibert.config import HIDDEN_ACTS, BertConfig
from minibert.model import BertModel

WEIGHTS = "model.safetensors"
M = TypeVar("M", bound=nn.Module)

# Small enough to work through by hand, no two sizes alike where that can be.
TINY = BertConfig(
    vocab_size=11,
    hidden_size=4,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=6,
    max_position_embeddings=8,
    type_vocab_size=3,
    labels=("no", "yes", "maybe"),
)


class Batch(NamedTuple):
    """A padded batch: ids, which of them are attended, token types; all `(batch, seq)`."""

    input_ids: Tensor
    mask: Tensor
    token_type_ids: Tensor


@contextmanager
def unchanged_random() -> Iterator[None]:
    """Leave Python's random state as it was: hypothesis demands that of strategies.

    The type checks of the tests draw from it which item of a container they look at.
    """
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def without_type_checks(module: ModuleType) -> Any:
    """A second copy of a module of the package without the type checks of the tests.

    For refusals of wrong types: as users meet them, not as the type checks word them.
    """
    assert module.__file__ is not None
    spec = importlib.util.spec_from_file_location(f"plain_{module.__name__}", module.__file__)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


@st.composite
def configs(draw: st.DrawFn, max_layers: int = 2) -> BertConfig:
    """Small configurations, hidden ≥ 8 and initializer_range ≤ 0.05: the range of parity claims."""
    heads = draw(st.integers(1, 4))
    head_dim = draw(st.integers(-(-8 // heads), 8))
    values: dict[str, Any] = {
        "vocab_size": draw(st.integers(8, 30)),
        "hidden_size": heads * head_dim,
        "num_hidden_layers": draw(st.integers(1, max_layers)),
        "num_attention_heads": heads,
        "intermediate_size": draw(st.integers(1, 24)),
        "hidden_act": draw(st.sampled_from(HIDDEN_ACTS)),
        "hidden_dropout_prob": draw(st.sampled_from([0.0, 0.1, 0.5])),
        "attention_probs_dropout_prob": draw(st.sampled_from([0.0, 0.1, 0.5])),
        "max_position_embeddings": draw(st.integers(12, 20)),
        "type_vocab_size": draw(st.integers(1, 3)),
        "initializer_range": draw(st.sampled_from([0.02, 0.05])),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-6, 1e-3])),
        "tie_word_embeddings": draw(st.booleans()),
        "classifier_hidden_size": draw(st.none() | st.integers(1, 9)),
        "labels": tuple(f"label {index}" for index in range(draw(st.integers(1, 3)))),
    }
    with unchanged_random():
        return BertConfig(**values)


@st.composite
def batches(
    draw: st.DrawFn, config: BertConfig, masks: str = "right", max_batch: int = 4, max_seq: int = 9
) -> Batch:
    """Batches for a network.

    `masks`: "right" pads on the right, every row with a token; "first" attends to column 0 and
    anything else; "any" is anything, left padding and empty rows included.
    """
    batch, seq = draw(st.integers(1, max_batch)), draw(st.integers(1, max_seq))

    def table(values: st.SearchStrategy[int]) -> Tensor:
        cells = draw(st.lists(values, min_size=batch * seq, max_size=batch * seq))
        return torch.tensor(cells).view(batch, seq)

    ids = table(st.integers(0, config.vocab_size - 1))
    types = table(st.integers(0, config.type_vocab_size - 1))
    if masks == "right":
        lengths = draw(st.lists(st.integers(1, seq), min_size=batch, max_size=batch))
        mask = torch.arange(seq) < torch.tensor(lengths)[:, None]
    else:
        mask = table(st.integers(0, 1)).bool()
        if masks == "first":
            mask[:, 0] = True
    return Batch(ids, mask, types)


@st.composite
def networks(draw: st.DrawFn, masks: str = "right") -> tuple[BertModel, Batch]:
    """A random encoder in evaluation mode, every parameter random, and a batch for it."""
    config = draw(configs())
    batch = draw(batches(config, masks))
    seed = draw(st.integers(0, 1000))
    with unchanged_random():
        return randomised(BertModel(config), seed=seed).eval(), batch


def texts() -> st.SearchStrategy[str]:
    """Short texts of several scripts; no lone surrogates."""
    words = st.sampled_from(
        ["the", "cat", "purrs", "über", "naïve", "привет", "猫", "한국어", "👩🏽", "!", "...", "42"]
    )
    sentences = st.lists(words, max_size=8).map(" ".join)
    return sentences | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def randomised(model: M, *, seed: int = 0) -> M:
    """`model` with every parameter random, biases and norms too, so that each of them shows."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    assert isinstance(config, BertConfig)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if "norm." in name:
                value = noise * 0.1 + (1.0 if name.endswith("weight") else 0.0)
            else:
                value = noise * config.initializer_range
            parameter.copy_(value)
    return model


def scaled_error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, over max(1, largest expected value); NaN anywhere gives NaN."""
    actual, expected = actual.detach(), expected.detach()
    if not expected.numel():
        return 0.0
    scale = torch.clamp(expected.abs().max(), min=1.0)
    return float(((actual - expected).abs().max() / scale).double())


def write_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], config: BertConfig = TINY
) -> Path:
    """A checkpoint folder of these tensors, under the names that they have in the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / WEIGHTS)
    return folder


def raw_safetensors(
    header: bytes | Mapping[str, Any], body: bytes, length: int | None = None
) -> bytes:
    """The bytes of a safetensors file, right or wrong: length of the header, header, body."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def described(dtype: str, shape: Sequence[int], start: int, end: int) -> dict[str, Any]:
    """One tensor in the header of a safetensors file."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def tag_sequences(letters: str = "BIES") -> st.SearchStrategy[list[str]]:
    """Random tags, valid or not, types and bare letters mixed."""
    entity = st.builds(
        lambda letter, label: f"{letter}-{label}" if label else letter,
        st.sampled_from(letters),
        st.sampled_from(["PER", "LOC", "PER-x", ""]),
    )
    return st.lists(st.just("O") | entity, max_size=8)
