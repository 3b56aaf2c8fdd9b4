"""A saved folder opened for prediction: the network, its tokenizer, and how it is to be asked."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from minibert.checkpoint import Pretrained, load
from minibert.config import BertConfig
from minibert.embed import stay_alive_after_fork
from minibert.engine_choice import EngineChoice, Engines, chosen_engine
from minibert.errors import CheckpointError, ConfigError, EngineError, TextError, WeightsError
from minibert.model import BertModel, BertOutput
from minibert.prediction.sequences import Batch, Piece, computed
from minibert.prediction.settings import TAKERS, PredictionSettings, architecture
from minibert.tokenizer import Tokenizer
from minibert.weights import resolve

if TYPE_CHECKING:
    from minibert.engine_choice import AnyEngine

P = TypeVar("P", bound=Pretrained)
Q = TypeVar("Q", bound="Predictor[Any]")


@dataclass(frozen=True, eq=False)
class Saved(Generic[P]):
    """What a folder holds, and what a predictor needs."""

    model: P
    tokenizer: Tokenizer
    settings: PredictionSettings


def model_folder(
    name: str | Path,
    *,
    revision: str | None = None,
    sha256: str | None = None,
    offline: bool = False,
) -> Path:
    """The folder of a model: a folder of weights, the one in the folder of a run, or a name's.

    Raises: WeightsError for a name that leads nowhere, and for a run that has not ended.
    """
    folder = Path(name)
    if (folder / "run.json").is_file() and not (folder / "config.json").exists():
        if not (folder / "model" / "config.json").is_file():
            raise WeightsError(
                f"{folder}: holds a run without a model, which it gets at its end; go on with "
                "minibert train --resume"
            )
        name = folder / "model"
    return resolve(name, revision=revision, sha256=sha256, offline=offline)


def checked_device(name: str) -> str:
    """A device that is there: the one named, or of "auto" a GPU where there is one.

    Raises: ConfigError for one that is not.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"device is {name!r}, which is not here: {line}") from None
    return name


def settings_for(
    tasks: Collection[str], folder: Path, config: BertConfig, given: PredictionSettings | None
) -> PredictionSettings:
    """The settings given, or those of the folder, if they are of one of these tasks.

    Raises: ConfigError where they are of another, which says what takes the model.
    """
    settings = PredictionSettings.of(folder, config) if given is None else given
    if settings.task not in tasks:
        command, kind = TAKERS[settings.task]
        raise ConfigError(
            f"{folder}: is a model for task {settings.task!r}, expected {' or '.join(tasks)}; "
            f"{command} takes it, and in Python {kind}"
        )
    if settings.max_length > config.max_position_embeddings:
        raise ConfigError(
            f"{folder}: max_length is {settings.max_length}, expected at most "
            f"{config.max_position_embeddings}, the model's positions"
        )
    return settings


def open_saved(
    head: type[P],
    tasks: Collection[str],
    name: str | Path,
    *,
    settings: PredictionSettings | None,
    dtype: str,
    device: str,
    offline: bool,
) -> Saved[P]:
    """Open a folder with this head, whose weights it has to hold.

    Raises: the errors of finding and reading it; ConfigError for a model of another task;
        CheckpointError for one with another head, or with none: an untrained head predicts chance.
    """
    folder = model_folder(name, offline=offline)
    config = BertConfig.from_file(folder / "config.json")
    settings = settings_for(tasks, folder, config, settings)
    named = architecture(folder)
    # The masked-word head of pretraining is the same, whatever stands beside it.
    if named is not None and named.replace("PreTraining", "MaskedLM") != head.__name__:
        raise CheckpointError(
            f"{folder}: is a {named}, expected a {head.__name__}, for task {settings.task!r}"
        )
    tokenizer = Tokenizer.from_pretrained(folder)
    device = checked_device(device)
    model = load(head, folder, config, dtype=dtype, device=device, whole=True)
    return Saved(model, tokenizer, settings)


class Predictor(Generic[P]):
    """A network, its tokenizer, and how it is to be asked; a subclass asks it.

    Raises: ConfigError for settings of a task that is none of `tasks`.
    """

    head: ClassVar[type[Pretrained]]
    tasks: ClassVar[tuple[str, ...]]

    def __init__(self, model: P, tokenizer: Tokenizer, settings: PredictionSettings) -> None:
        check_task(settings, self.tasks)
        self.model = prepared(model, tokenizer)
        self.tokenizer = tokenizer
        self.settings = settings
        self._engines = Engines(self._encoder, "pytorch", reproducible=False)

    @classmethod
    def from_pretrained(
        cls: type[Q],
        name: str | Path,
        *,
        settings: PredictionSettings | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        engine: EngineChoice | None = None,
        offline: bool = False,
    ) -> Q:
        """What a folder holds: that of a run, or of a model that `transformers` saved.

        Args:
            name: a run's folder, a model's folder, a name of the manifest, or a hub id.
            settings: in place of the folder's own, `PredictionSettings.of(folder)`.
            dtype: of the computation: "float32", "bfloat16", "float16" or "float64"; "int16" and
                "int8" are faster on a CPU.
            device: where it runs: "cpu", "cuda", "cuda:1", or "auto".
            engine: of the encoder on a CPU, as in `Embedder.from_pretrained`.
            offline: open no connection.

        Raises: WeightsError, ConfigError, CheckpointError, TokenizerError or EngineError, in one
            line; a checkpoint without a trained head is refused.
        """
        saved: Saved[Any] = open_saved(
            cls.head, cls.tasks, name,
            settings=settings, dtype=dtype, device=device, offline=offline,
        )  # fmt: skip
        predictor = cls(saved.model, saved.tokenizer, saved.settings)
        if engine == "kernels" and not predictor._is_on_cpu:
            raise EngineError(
                "predictions on a GPU are computed by PyTorch, got engine 'kernels', expected "
                "'pytorch' or 'auto'; or choose device 'cpu'"
            )
        predictor._engines = Engines(predictor._encoder, chosen_engine(engine), reproducible=False)
        return predictor

    @property
    def computes(self) -> str:
        """What computed last, such as "float32 by kernels for AVX-512 VNNI"."""
        return self._engines.description

    def settle(self, n_texts: int | None) -> bool:
        """Decide what computes a job of so many texts, None for very many; streams do so too.

        Returns: whether the kernels do it.
        """
        return self._is_on_cpu and self._engines.settle_for_texts(n_texts)

    def computed(
        self,
        pieces: Sequence[Piece],
        read: Callable[[Any, Batch], Iterable[Tensor]],
        *,
        what: str,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> list[Tensor]:
        """As `sequences.computed`, where `read` is given what the network gives for a batch.

        Raises: EngineError where kernels were asked for, and there can be none.
        """
        self._engines = self._engines.of(self._encoder)
        engine = None
        if self._is_on_cpu:
            engine = self._engines.for_tokens(sum(len(piece.ids) for piece in set(pieces)))

        def output(batch: Batch) -> Iterable[Tensor]:
            if engine is None:
                return read(self._computed_by_pytorch(batch), batch)
            return read(self._head_output(_encoded(self._encoder, engine, batch)), batch)

        return computed(
            self.model, pieces, output, what=what,
            batch_tokens=batch_tokens, show_progress_bar=show_progress_bar,
            by_kernels=engine is not None,
        )  # fmt: skip

    def _computed_by_pytorch(self, batch: Batch) -> Any:
        return self.model(batch.input_ids, token_type_ids=batch.token_type_ids, layout=batch.layout)

    def _head_output(self, encoded: BertOutput) -> Any:
        """What the head makes of what the kernels give."""
        read: Any = self.model.read
        return read(encoded)

    @property
    def _encoder(self) -> BertModel:
        encoder = self.model.bert
        assert isinstance(encoder, BertModel)
        return encoder

    @property
    def _is_on_cpu(self) -> bool:
        return self._encoder.embeddings.token.weight.device.type == "cpu"


def _encoded(encoder: BertModel, engine: "AnyEngine", batch: Batch) -> BertOutput:
    """What the kernels give, in the encoder's dtype, and what its pooler makes of it."""
    ids, types = (each.numpy().astype(np.int32) for each in (batch.input_ids, batch.token_type_ids))
    lengths = np.array(batch.layout.lengths, dtype=np.int32)
    hidden = engine.hidden(ids, lengths, types if types.any() else None)
    hidden = hidden.to(encoder.embeddings.token.weight.dtype)
    pooler = encoder.pooler
    return BertOutput(hidden, None if pooler is None else pooler(hidden, batch.layout))


def prepared(model: P, tokenizer: Tokenizer) -> P:
    """A network ready to predict with this tokenizer: in evaluation mode.

    Raises: TokenizerError for a tokenizer with more ids than the network has embeddings.
    """
    tokenizer.check_embeddings(model.config.vocab_size, "the tokenizer")
    stay_alive_after_fork()
    return model.eval()


def check_task(settings: PredictionSettings, tasks: Collection[str]) -> None:
    """Refuse, as ConfigError, settings of a task that is none of these."""
    if settings.task not in tasks:
        raise ConfigError(f"task is {settings.task!r}, expected {' or '.join(tasks)}")


def check_pairs(settings: PredictionSettings, config: BertConfig, *, given: bool) -> None:
    """Refuse texts alone for a model of pairs, and pairs for one of texts alone.

    Raises: TextError; ConfigError for a network that cannot tell the second text from the first.
    """
    if settings.pairs and not given:
        raise TextError("the model takes pairs of texts, got texts alone; give each a second text")
    if given and settings.pairs is False:
        raise TextError("the model takes texts alone, got pairs; leave the second texts out")
    if given and config.type_vocab_size < 2:
        raise ConfigError(
            f"type_vocab_size is {config.type_vocab_size}, expected 2 for pairs of texts: the "
            "model has one type of token, so take texts alone"
        )
