"""What is exported: a network whose three inputs are padded, and whose outputs have names."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from minibert.checkpoint import DTYPES, Pretrained, load
from minibert.config import BertConfig
from minibert.embed import Embedder, through_dense
from minibert.errors import ExportError
from minibert.heads import BertForMultipleChoice
from minibert.layout import Padded
from minibert.model import BertModel
from minibert.parity.check import reference_of
from minibert.parity.folders import network_class
from minibert.parity.recording import Recording
from minibert.pooling import normalise, pool
from minibert.prediction.loading import model_folder
from minibert.prediction.settings import FILE, PredictionSettings
from minibert.recipe import Recipe
from minibert.tokenizer import Tokenizer

# The ecosystem's names, in the order of the arguments of `BertModel`.
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Exportable(nn.Module):
    """A network as it is exported: all three inputs are given, and outputs are a dict.

    Outputs are named as the ecosystem has them: `last_hidden_state`, `pooler_output`, `logits`, …;
    with a recipe `last_hidden_state` and `sentence_embedding`, which is what `Embedder.encode`
    gives of a text that is not too long.
    """

    def __init__(
        self, network: Pretrained, recipe: Recipe | None = None, dense: Sequence[nn.Linear] = ()
    ) -> None:
        super().__init__()
        self.network = network.eval()
        self.recipe = recipe
        self.dense = nn.ModuleList(dense)

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of each input."""
        if isinstance(self.network, BertForMultipleChoice):
            return ("batch_size", "num_choices", "sequence_length")
        return ("batch_size", "sequence_length")

    @property
    def config(self) -> BertConfig:
        """That of the network."""
        return self.network.config

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> dict[str, Tensor]:
        out = self.network(input_ids, attention_mask, token_type_ids)
        if self.recipe is None:
            return {name: each for name, each in out._asdict().items() if each is not None}
        hidden = out.last_hidden_state
        pooled = pool(hidden, Padded.of(input_ids, attention_mask), self.recipe.pooling)
        vectors = through_dense(pooled, self.recipe, self.dense)
        if self.recipe.normalise:
            vectors = normalise(vectors)
        return {"last_hidden_state": hidden, "sentence_embedding": vectors}

    def cast(self, dtype: str) -> "Exportable":
        """A copy that computes in the dtype of that name."""
        return copy.deepcopy(self).to(DTYPES[dtype])


@dataclass(frozen=True, eq=False)
class Opened:
    """A model's folder, opened to be exported."""

    name: str
    network: Exportable  # in float32
    tokenizer: Tokenizer
    max_length: int  # tokens of a text, or of a pair, special ones included
    embedder: Embedder | None  # of a model of sentence-transformers
    settings: PredictionSettings | None  # those of its `minibert.json`
    reference: Recording | None  # what comes with minibert for these weights


def open_model(name: str | Path, *, max_length: int | None = None, offline: bool = False) -> Opened:
    """Open a model to be exported: an encoder, one with a recipe, or a trained head.

    Args:
        name: a folder, that of a run, a name of the manifest, or a hub id.
        max_length: the most tokens of a text, in place of what the folder says.
        offline: open no connection.

    Raises: the errors of finding and reading it; ExportError for more tokens than it takes.
    """
    folder = model_folder(name, offline=offline)
    config = BertConfig.from_file(folder / "config.json")
    kind = network_class(folder)
    if kind is BertModel and (folder / "modules.json").is_file():
        return _with_recipe(str(name), folder, config, max_length)
    tokenizer = Tokenizer.from_pretrained(folder)
    network = load(kind, folder, config, whole=True)
    tokenizer.check_embeddings(config.vocab_size, folder)
    has_settings = (folder / FILE).is_file()
    settings = PredictionSettings.from_file(folder / FILE) if has_settings else None
    said = tokenizer.model_max_length if settings is None else settings.max_length
    length = _checked_length(max_length, said, config)
    if settings is not None:
        settings = replace(settings, max_length=length)
    reference = reference_of(network)
    return Opened(str(name), Exportable(network), tokenizer, length, None, settings, reference)


def _with_recipe(name: str, folder: Path, config: BertConfig, max_length: int | None) -> Opened:
    embedder = Embedder.from_pretrained(folder)
    reference = reference_of(embedder.model)
    embedder.model.pooler = None  # which no recipe asks
    length = _checked_length(max_length, embedder.recipe.max_length, config)
    embedder.recipe = replace(embedder.recipe, max_length=length)
    network = Exportable(embedder.model, embedder.recipe, embedder.dense)
    return Opened(name, network, embedder.tokenizer, length, embedder, None, reference)


def _checked_length(given: int | None, said: int | None, config: BertConfig) -> int:
    """How many tokens a text may have."""
    positions = config.max_position_embeddings
    if given is None:
        return min(said or positions, positions)
    if not 3 <= given <= positions:
        raise ExportError(
            f"got max_length {given}, expected 3 ([CLS], [SEP] and some text) to {positions}, the "
            "model's positions"
        )
    return given
