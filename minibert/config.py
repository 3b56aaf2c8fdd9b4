"""The configuration of a BERT: frozen, validated, read from and written to `config.json`."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from minibert.errors import ConfigError

# The activations of feed-forward and heads, by their names in `config.json`. "gelu" is the exact
# form with erf, the next two the same approximation with tanh.
HIDDEN_ACTS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh")

# The largest that a size may be: far beyond any BERT, and its products fit any machine's integers.
_SIZES = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 20,
    "intermediate_size": 1 << 24,
    "max_position_embeddings": 1 << 24,
    "type_vocab_size": 1 << 24,
}
_FRACTIONS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")

# Settings that change the network into one that is not here: key -> (values that change nothing,
# why any other is refused).
_REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "model_type": ((None, "bert"), "only BERT encoders load here"),
    "position_embedding_type": ((None, "absolute"), "only learned absolute positions are here"),
    "is_decoder": ((None, False), "decoders are not here"),
    "add_cross_attention": ((None, False), "cross-attention is not here"),
    "is_encoder_decoder": ((None, False), "encoder-decoders are not here"),
    "pruned_heads": ((None, {}), "pruned heads are not here; load the unpruned checkpoint"),
}


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Sizes and settings of a BERT, under the names that `config.json` gives them.

    The defaults are those of bert-base-uncased.

    Raises: ConfigError, naming the key, what it got, what it takes.
    Source: Devlin et al. 2019, section 3; google-research/bert `BertConfig`.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    classifier_dropout: float | None = None
    classifier_hidden_size: int | None = None  # of a hidden layer in the classifier; of minibert
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    problem_type: str | None = None

    def __post_init__(self) -> None:
        for key, largest in _SIZES.items():
            value = getattr(self, key)
            fits = _is_integer(value, at_least=1) and value <= largest
            _check(self, key, fits, f"an integer from 1 to {largest}")
        for key in _FRACTIONS:
            value = getattr(self, key)
            optional = key == "classifier_dropout" and value is None
            fits = optional or (_is_number(value) and 0 <= value < 1)
            _check(self, key, fits, "a number from 0 to below 1")
        size = self.classifier_hidden_size
        largest = _SIZES["hidden_size"]
        fits = size is None or (_is_integer(size, at_least=1) and size <= largest)
        _check(self, "classifier_hidden_size", fits, f"an integer from 1 to {largest}, or null")
        _check(self, "layer_norm_eps", _is_positive(self.layer_norm_eps), "a number > 0")
        _check(self, "initializer_range", _is_positive(self.initializer_range), "a number > 0")
        pad_fits = self.pad_token_id is None or _is_integer(self.pad_token_id, at_least=0)
        _check(self, "pad_token_id", pad_fits, "an integer ≥ 0, or null")
        _check(self, "tie_word_embeddings", isinstance(self.tie_word_embeddings, bool), "a bool")
        _check(self, "hidden_act", self.hidden_act in HIDDEN_ACTS, f"one of {list(HIDDEN_ACTS)}")
        fits = isinstance(self.problem_type, str | None)
        _check(self, "problem_type", fits, "a string, or null")
        fits = isinstance(self.labels, tuple) and all(isinstance(x, str) for x in self.labels)
        _check(self, "labels", fits and len(self.labels) > 0, "a tuple of names, at least one")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads "
                f"{self.num_attention_heads}; each head takes an equal share, so change one of them"
            )

    @property
    def head_dim(self) -> int:
        """The width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_labels(self) -> int:
        """How many outputs a classification head has."""
        return len(self.labels)

    @property
    def head_dropout(self) -> float:
        """The dropout before a classifier: `classifier_dropout`, or the encoder's when null."""
        if self.classifier_dropout is None:
            return self.hidden_dropout_prob
        return self.classifier_dropout

    def with_labels(self, labels: Sequence[str] | int) -> "BertConfig":
        """The same network with other labels: their names, or how many there are."""
        if isinstance(labels, str):
            raise ConfigError(f"got labels {labels!r}, expected a list of names, or their number")
        if isinstance(labels, int):
            labels = [f"LABEL_{index}" for index in range(labels)]
        return replace(self, labels=tuple(labels))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BertConfig":
        """A configuration from the keys of a `config.json`; keys unknown here are ignored.

        Raises: ConfigError where a key says that the network is another than BERT's encoder.
        """
        for key, (harmless, why) in _REFUSED.items():
            if values.get(key) not in harmless:
                expected = json.dumps(harmless[-1])
                raise ConfigError(f"{key} is {values[key]!r}, expected {expected}: {why}")
        own = {field.name for field in fields(cls)} - {"labels"}
        known = {key: value for key, value in values.items() if key in own}
        labels = _labels(values)
        return cls(**known) if labels is None else cls(**known, labels=labels)

    @classmethod
    def from_file(cls, path: str | Path) -> "BertConfig":
        """The configuration in a `config.json`.

        Raises: ConfigError, beginning with the file's name.
        """
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"{path}: no such file; a checkpoint folder needs the config.json of its model"
            ) from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: not JSON: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: got a {type(values).__name__}, expected a JSON object")
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The keys and values for a `config.json` that the ecosystem's readers open.

        `classifier_hidden_size`, which they do not know, is among them only where it is set.
        """
        values = asdict(self)
        if self.classifier_hidden_size is None:
            del values["classifier_hidden_size"]
        labels = values.pop("labels")
        values["model_type"] = "bert"
        values["position_embedding_type"] = "absolute"
        values["id2label"] = {str(index): name for index, name in enumerate(labels)}
        values["label2id"] = {name: index for index, name in enumerate(labels)}
        return values


def _labels(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The label names in id order, or None where the file names none."""
    id2label = values.get("id2label")
    if id2label is None:
        count = values.get("num_labels")
        if count is None:
            return None
        if not _is_integer(count, at_least=1):
            raise ConfigError(f"num_labels is {count!r}, expected an integer ≥ 1")
        return tuple(f"LABEL_{index}" for index in range(count))
    expected = "an object from the ids '0', '1', … to their names"
    if not isinstance(id2label, Mapping) or not id2label:
        raise ConfigError(f"id2label is {id2label!r}, expected {expected}")
    if set(id2label) != {str(index) for index in range(len(id2label))}:
        raise ConfigError(f"id2label has the ids {list(id2label)[:8]}, expected {expected}")
    return tuple(id2label[str(index)] for index in range(len(id2label)))


def _check(config: BertConfig, key: str, fits: bool, expected: str) -> None:
    if not fits:
        raise ConfigError(f"{key} is {getattr(config, key)!r}, expected {expected}")


def _is_integer(value: object, *, at_least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    # False for NaN and infinity, and for integers that no float can hold.
    return abs(value) <= sys.float_info.max


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and _is_number(value) and value > 0
