"""How a saved model is to be asked: `minibert.json` beside its weights, or what stands in for it.

`minibert train` writes the file.  A checkpoint of another library has none; then what it predicts
is read from the `config.json` that `transformers` writes.
"""

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from minibert.config import BertConfig
from minibert.embed import LongText
from minibert.errors import CheckpointError, ConfigError
from minibert.files import replacing
from minibert.lines import nearest
from minibert.recipe import read_recipe
from minibert.tokenizer_files import read_config, stated_length

Task = Literal[
    "binary", "multiclass", "multilabel", "regression", "similarity", "tokens", "spans",
    "masked_lm", "contrastive",
]  # fmt: skip
Merging = Literal["mean", "vote"]

FILE = "minibert.json"

# Which command, and class, predicts what.
CLASSIFIED: tuple[str, ...] = ("binary", "multiclass", "multilabel")
COMPARED: tuple[str, ...] = ("similarity", "contrastive")
OF_TEXTS: tuple[str, ...] = (*CLASSIFIED, "regression")  # one answer a text, or a pair
TAKERS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(CLASSIFIED, ("minibert classify", "TextClassifier")),
    **dict.fromkeys(("regression", *COMPARED), ("minibert score", "TextScorer")),
    "tokens": ("minibert tag", "TokenTagger"),
    "spans": ("minibert answer", "QuestionAnswerer"),
    "masked_lm": ("minibert fill-mask", "MaskFiller"),
}
# The tasks in which each token matters, and needs others around it.
_BY_TOKEN = ("tokens", "spans", "masked_lm")

_HEADS = {
    "BertForTokenClassification": "tokens",
    "BertForQuestionAnswering": "spans",
    "BertForMaskedLM": "masked_lm",
    "BertForPreTraining": "masked_lm",
}
_WHICH = (
    "minibert classify takes a BertForSequenceClassification; score one that gives a number, or a "
    "model of sentence-transformers; tag a BertForTokenClassification; answer a "
    "BertForQuestionAnswering; fill-mask a BertForMaskedLM"
)


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """What a model predicts, how long its texts may be, and how its logits are read.

    Raises: ConfigError, naming the key, what it got, what it takes.
    """

    task: str
    max_length: int = 512  # tokens of a text, or of a pair, special ones included
    long_text: str = "truncate"  # of longer ones: "truncate", "windows" or "error"
    window_overlap: int | None = None  # tokens that neighbouring windows share; None: see `overlap`
    merge_windows: str = "mean"  # of a text's logits: weighted by tokens, or "vote"
    thresholds: tuple[float, ...] = ()  # of binary one, of multilabel one a label; none: 0.5
    temperature: float = 1.0  # that logits are divided by
    labels: tuple[str, ...] = ()  # of binary with one logit: its absence, and its presence
    pairs: bool | None = None  # whether it takes pairs of texts; None: it is not known
    no_answer: bool = False  # of spans: whether a text may hold no answer
    max_answer_tokens: int = 30  # that an answer may have; google-research/bert's

    def __post_init__(self) -> None:
        _check(self, "task", self.task in get_args(Task), f"one of {', '.join(get_args(Task))}")
        _check(self, "max_length", _is_count(self.max_length, 3), "a whole number ≥ 3")
        choices = get_args(LongText)
        _check(self, "long_text", self.long_text in choices, f"one of {', '.join(choices)}")
        shared, most = self.window_overlap, self.max_length // 2
        fits = shared is None or (_is_count(shared, 0) and shared <= most)
        _check(self, "window_overlap", fits, f"a whole number up to {most}, half of max_length")
        choices = get_args(Merging)
        _check(self, "merge_windows", self.merge_windows in choices, "mean or vote")
        found = self.thresholds
        fits = isinstance(found, tuple) and all(_is_number(each, 0.0, 1.0) for each in found)
        _check(self, "thresholds", fits, "probabilities from 0 to 1")
        fits = _is_number(self.temperature, 0.0, math.inf) and self.temperature > 0
        _check(self, "temperature", fits, "a number > 0")
        names = self.labels
        fits = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
        _check(self, "labels", fits and len(names) in (0, 2), "two names, or none")
        _check(self, "pairs", isinstance(self.pairs, bool | None), "true, false or null")
        _check(self, "no_answer", isinstance(self.no_answer, bool), "true or false")
        fits = _is_count(self.max_answer_tokens, 1)
        _check(self, "max_answer_tokens", fits, "a whole number ≥ 1")
        for key, default, tasks in (
            ("thresholds", (), ("binary", "multilabel")),
            ("labels", (), ("binary",)),
            ("merge_windows", "mean", CLASSIFIED),
            ("temperature", 1.0, (*CLASSIFIED, *_BY_TOKEN)),
            ("no_answer", False, ("spans",)),
            ("max_answer_tokens", 30, ("spans",)),
        ):
            if getattr(self, key) != default and self.task not in tasks:
                raise ConfigError(
                    f"{key} is {getattr(self, key)!r}, which task {self.task!r} has no use for; it "
                    f"is for {', '.join(tasks)}"
                )

    def overlap(self, size: int) -> int:
        """How many tokens neighbouring windows of `size` share: at most half of them.

        Where it is not said, an eighth; a quarter where tokens are predicted, which lack what
        stands beyond the edge of their window.
        """
        given = self.window_overlap
        if given is None:
            given = size // (4 if self.task in _BY_TOKEN else 8)
        return min(given, size // 2)

    @classmethod
    def from_file(cls, path: str | Path) -> "PredictionSettings":
        """The settings in a `minibert.json`.

        Raises: ConfigError, beginning with the file's name.
        """
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: not JSON: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: got a {type(values).__name__}, expected a JSON object")
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                meant = nearest(key, known) or f"one of {', '.join(known)}"
                raise ConfigError(f"{path}: {key!r} is no key, expected {meant}")
        if "task" not in values:
            raise ConfigError(f"{path}: lacks task, expected one of {', '.join(get_args(Task))}")
        for key in ("thresholds", "labels"):
            if isinstance(values.get(key), list):
                values[key] = tuple(values[key])
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def of(cls, folder: str | Path, config: BertConfig | None = None) -> "PredictionSettings":
        """The settings of a model's folder: of its `minibert.json`, else what its other files say.

        A checkpoint of `transformers` is known by architectures, problem_type and the number of its
        labels (without a problem_type one label is a number, as there); one that is an encoder
        alone, by the `modules.json` of sentence-transformers.

        Args:
            config: that of the folder, where it is read already.

        Raises: ConfigError where it cannot be told, with what each command takes.
        """
        folder = Path(folder)
        if (folder / FILE).is_file():
            return cls.from_file(folder / FILE)
        config = BertConfig.from_file(folder / "config.json") if config is None else config
        task = _task_of(folder, config)
        said = stated_length(read_config(folder)[0])
        length = min(said or config.max_position_embeddings, config.max_position_embeddings)
        if task in COMPARED:
            length = read_recipe(folder, config, said).max_length
        return cls(
            task=task,
            max_length=length,
            long_text="windows" if task in _BY_TOKEN else "truncate",
            pairs=True if task in COMPARED else None,
        )

    def save(self, folder: str | Path) -> None:
        """Write `minibert.json` into a model's folder, whole or not at all.

        Raises: CheckpointError when the folder cannot be written to.
        """
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        try:
            with replacing(Path(folder) / FILE) as part:
                part.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CheckpointError(
                f"{Path(folder) / FILE}: cannot be written: {error.strerror}; free space or choose "
                "another folder"
            ) from None


def architecture(folder: Path) -> str | None:
    """The class that a checkpoint's `config.json` names, if it names one."""
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = values.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None


def _task_of(folder: Path, config: BertConfig) -> str:
    """What a checkpoint without a `minibert.json` predicts."""
    head = architecture(folder)
    if head in _HEADS:
        return _HEADS[head]
    if head == "BertForSequenceClassification":
        return _classified(folder, config)
    if head in (None, "BertModel") and (folder / "modules.json").is_file():
        return "similarity"
    what = f"it is a {head}" if head else "its config.json names no architecture"
    raise ConfigError(f"{folder}: what it predicts cannot be told, for {what}; {_WHICH}")


def _classified(folder: Path, config: BertConfig) -> str:
    """What a sequence classifier predicts, as `transformers` has it."""
    kind, count = config.problem_type, config.num_labels
    if kind == "multi_label_classification":
        return "binary" if count == 1 else "multilabel"
    if kind in (None, "single_label_classification") and count > 1:
        return "binary" if count == 2 else "multiclass"
    if kind in (None, "regression") and count == 1:
        return "regression"
    raise ConfigError(
        f"{folder / 'config.json'}: problem_type is {kind!r} with {count} labels, expected "
        "'regression' with one, 'single_label_classification' with several, or "
        "'multi_label_classification'"
    )


def _check(settings: PredictionSettings, key: str, fits: bool, expected: str) -> None:
    if not fits:
        raise ConfigError(f"{key} is {getattr(settings, key)!r}, expected {expected}")


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object, low: float, high: float) -> bool:
    """A finite number within bounds."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return low <= value <= high and value != math.inf
