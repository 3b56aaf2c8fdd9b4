"""The tables of a run file: every key with what it means, its default and its bounds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

TASKS = {
    "binary": "one of two labels a text, or a pair of texts",
    "multiclass": "one of several labels a text, or a pair of texts",
    "multilabel": "any number of labels a text, or a pair of texts",
    "regression": "a number a text, or a pair of texts, read together",
    "similarity": "a number a pair of texts, each of which gets a vector of its own",
    "tokens": "a tag a word",
    "spans": "where in a text the answer to a question stands",
    "masked_lm": "the words of running text that were masked: what BERT is pretrained on",
    "contrastive": "pairs of texts that belong together, told from all others of a batch",
}

Source = str | list[str] | Iterable[Mapping[str, Any]]


def key(
    default: Any,
    doc: str,
    *,
    choices: tuple[str, ...] = (),
    low: int | float | None = None,
    high: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
    tasks: tuple[str, ...] = (),
) -> Any:
    """A field of the run file.

    Args:
        doc: what it means, in a line.
        choices: the strings that it may be.
        low, high: bounds that it may reach; above, below: bounds that it may not.
        tasks: those that it is for; all when empty.
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    metadata = {"doc": doc, "choices": choices, "tasks": tasks, **bounds}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


_CLASSES = ("binary", "multiclass", "multilabel", "tokens")
_ONE_CLASS = ("binary", "multiclass", "tokens")
_TEXTS = ("binary", "multiclass", "multilabel", "regression")
_HEADS = (*_TEXTS, "tokens")
_LABELLED = (*_HEADS, "similarity", "spans")
_VECTORS = ("similarity", "contrastive")
_PAIRS = (*_TEXTS, *_VECTORS, "spans")
_ROWS = (*_PAIRS, "tokens")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on: files, or in Python any iterable of mappings, and their columns."""

    train: Source = key("", "files to train on: a path, a pattern such as 'part-*.csv', or a list")
    validation: Source | float | None = key(
        None, "files to choose the best checkpoint on, or a share of train such as 0.1"
    )
    test: Source | None = key(None, "files that the trained model is measured on at the end")
    format: str | None = key(
        None,
        "of the files; by their suffix when not given",
        choices=("csv", "tsv", "jsonl", "conll", "txt", "folders"),
    )
    encoding: str = key("utf-8", "of the files: 'utf-8', 'latin-1', 'utf-16', …")
    delimiter: str | None = key(None, "between columns: ',' for csv, a tab for tsv")
    quoting: bool | None = key(
        None, "do quotation marks enclose a text? false: they are part of it; yes for csv and tsv"
    )
    header: bool = key(True, "does the first row name the columns? false: number them from 1")
    columns: int | None = key(
        None, "how many there are; 2 with delimiter = ' ' for lines such as 'label a text'", low=1
    )
    extra_columns: str | None = key(
        None,
        "of rows with more columns: refuse them, leave the surplus out, or put it to the last",
        choices=("error", "ignore", "join"),
    )
    text: str = key(
        "text",
        "the column of the text, of spans of the question, by name or by number from 1",
        tasks=(*_PAIRS, "masked_lm"),
    )
    text_pair: str | None = key(
        None,
        "the column of the second text of a pair; of spans the text that holds the answer",
        tasks=_PAIRS,
    )
    negatives: list[str] = key(
        [],
        "columns of texts that do not belong to the first, though they seem to",
        tasks=("contrastive",),
    )
    label: str | list[str] = key(
        "label",
        "the column of the label, of spans the answer; a list of columns of 0 and 1 for multilabel",
        tasks=_LABELLED,
    )
    answer_start: str | None = key(
        None,
        "the column of the answer's first character, from 0; where it stands first when not given",
        tasks=("spans",),
    )
    labels: list[str] = key(
        [],
        "names of the labels in the order of their ids; those of train, sorted, when empty",
        tasks=_CLASSES,
    )
    words: str = key("tokens", "the column of the lists of words", tasks=("tokens",))
    tags: str = key(
        "tags",
        "the column of the lists of their tags; of conll files the last column is called tags, "
        "each in the middle has its number",
        tasks=("tokens",),
    )
    label_separator: str | None = key(
        None, "between the labels of one text: ',' for 'joy,anger'", tasks=("multilabel",)
    )
    id: str | None = key(None, "the column that names a row in reports and predictions")
    group: str | None = key(
        None, "the column of what must stay on one side of a split: a person, a document"
    )
    train_rows: int | None = key(None, "take only the first rows of train", low=1)
    validation_rows: int | None = key(None, "take only the first rows of validation", low=1)
    max_length: int = key(128, "tokens of a text, or of a pair, special ones included", low=3)
    long_text: str = key(
        "truncate",
        "of longer texts: cut them, refuse them, or read them in windows that overlap",
        choices=("truncate", "error", "windows"),
        tasks=_ROWS,
    )
    window_overlap: int | None = key(
        None,
        "tokens that a window repeats of the one before; an eighth of it, of tags and spans a "
        "quarter, when not given",
        low=0,
        tasks=(*_HEADS, "spans"),
    )
    merge_windows: str = key(
        "mean",
        "what the windows of a text say together: their mean weighted by tokens, or by votes",
        choices=("mean", "vote"),
        tasks=("binary", "multiclass", "multilabel"),
    )
    bad_rows: str = key(
        "error",
        "of rows that cannot be used: refuse all, or set them aside in rejected.csv",
        choices=("error", "quarantine"),
    )
    sampling: str = key(
        "none",
        "of unequal labels: as they are, the rare ones repeated, the frequent ones thinned",
        choices=("none", "over", "under"),
        tasks=("binary", "multiclass"),
    )
    length_pool: int = key(
        50,
        "batches that are sorted by length together, so that those of a batch are about as long, "
        "which is faster; 1: each is a fair sample of all lengths",
        low=1,
    )
    label_all_pieces: bool = key(
        False,
        "does every piece of a word learn its tag, not the first alone, which says it?",
        tasks=("tokens",),
    )
    tag_scheme: str | None = key(
        None,
        "what tags of entities are rewritten in, whichever scheme they are in, and mended; as they "
        "stand when not given",
        choices=("BIO", "IOB1", "BIOES"),
        tasks=("tokens",),
    )
    score_scale: float | None = key(
        None,
        "what a score is divided by to be a cosine, for the loss cosine; the largest of train "
        "when not given",
        above=0,
        tasks=("similarity",),
    )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, in what portions and in what precision."""

    epochs: float = key(3.0, "times that all of train is gone through", above=0)
    batch_size: int = key(32, "examples an update, over all processes", low=1)
    accumulate: int = key(1, "portions that a batch is computed in, to save memory", low=1)
    precision: str = key("fp32", "of the matrix products", choices=("fp32", "bf16", "fp16"))
    engine: str | None = key(
        None,
        "what computes on a CPU: PyTorch, kernels of our own, or auto, the kernels for bf16; as "
        "$MINIBERT_ENGINE says, or else auto, when not given",
        choices=("auto", "kernels", "pytorch"),
    )
    seed: int = key(0, "of the new head, shuffling and dropout", low=0, high=2**63 - 1)
    device: str = key("auto", "where it runs: 'auto', 'cpu', 'cuda', 'cuda:1'")
    evaluate_every: str | int = key("epoch", "'epoch', or a number of updates")
    save_every: str | int = key("epoch", "'epoch', or a number of updates")
    keep_checkpoints: int = key(2, "checkpoints that are kept, beside the best", low=1)
    metric: str | None = key(
        None, "what the best checkpoint is chosen by; macro-F1 for classes when not given"
    )
    early_stopping_patience: int | None = key(
        None, "evaluations without a better one after which it stops", low=1
    )
    freeze: str = key("", "what is not trained: 'embeddings', layers as '0-5', 'encoder'")
    freeze_until_step: int | None = key(
        None, "the update from which on what is frozen is trained too", low=1
    )
    max_grad_norm: float | None = key(1.0, "gradients longer than this are shortened", above=0)
    dropout: float | None = key(
        None, "of the encoder, in place of the checkpoint's", low=0, below=1
    )
    gradient_checkpointing: bool = key(
        False, "compute activations twice in place of keeping them: less memory, a third slower"
    )
    tensorboard: bool = key(False, "write the figures for TensorBoard too, where it is installed")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """What turns gradients into updates."""

    name: str = key(
        "adamw", "AdamW, BERT's own form of it, or SGD", choices=("adamw", "google_bert", "sgd")
    )
    learning_rate: float = key(3e-5, "the highest; MiniLM-sized models take 1e-4", above=0)
    head_learning_rate: float | None = key(None, "of the head, in place of learning_rate", above=0)
    layer_decay: float = key(
        1.0, "the rate of each layer as a share of the one above it", above=0, high=1
    )
    weight_decay: float = key(0.01, "of weights, not of biases and LayerNorms", low=0)
    l1: float = key(0.0, "pull of weights towards zero, the same for large and small ones", low=0)
    momentum: float = key(0.9, "of SGD", low=0, below=1)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the rate rises and falls."""

    name: str = key(
        "linear",
        "how the rate falls after the warmup",
        choices=("linear", "cosine", "constant", "polynomial", "inverse_sqrt", "plateau"),
    )
    warmup_fraction: float = key(0.1, "share of all updates in which the rate rises", low=0, high=1)
    restarts: int = key(0, "of the cosine", low=0)
    power: float = key(1.0, "of the polynomial", above=0)
    plateau_factor: float = key(0.5, "what plateau multiplies the rate by", above=0, below=1)
    plateau_patience: int = key(1, "evaluations without a better one before it does", low=0)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised."""

    name: str | None = key(
        None,
        "the task's own when not given",
        choices=(
            "cross_entropy", "binary_cross_entropy", "focal", "mse", "l1", "huber",
            "cosent", "cosine", "contrastive", "triplet",
        ),
    )  # fmt: skip
    class_weights: str | list[float] | None = key(
        None, "'balanced', or a weight a label: rare labels count more", tasks=_ONE_CLASS
    )
    pos_weight: str | list[float] | None = key(
        None, "'balanced', or a weight a label for its presence", tasks=("binary", "multilabel")
    )
    label_smoothing: float = key(
        0.0, "share of certainty given to all labels", low=0, below=1, tasks=_ONE_CLASS
    )
    focal_gamma: float = key(2.0, "how much less an easy example counts", low=0, tasks=_CLASSES)
    focal_alpha: float | None = key(
        None, "the weight of the present label", above=0, below=1, tasks=("binary", "multilabel")
    )
    huber_delta: float = key(1.0, "where huber turns linear", above=0, tasks=("regression",))
    temperature: float = key(
        0.05, "what cosines are divided by: the lower, the more the nearest count", above=0,
        tasks=_VECTORS,
    )  # fmt: skip
    symmetric: bool = key(
        False, "does each second text look for its first one too?", tasks=("contrastive",)
    )
    margin: float = key(
        0.5, "of triplet: how much farther, as a cosine distance, a negative has to be", low=0,
        high=2, tasks=("contrastive",),
    )  # fmt: skip
    matryoshka_dims: list[int] = key(
        [], "widths that the vectors shall be good at when cut to them, such as [384, 128, 64]",
        tasks=_VECTORS,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What is put on the encoder."""

    num_labels: int | None = key(
        None, "1 makes a binary head of one logit; else the labels say it", low=1, tasks=_CLASSES
    )
    hidden: int | None = key(
        None,
        "width of a hidden layer in the head; such a model does not open in transformers",
        low=1,
        tasks=_HEADS,
    )
    init_std: float | None = key(
        None, "of the new weights; initializer_range else", above=0, tasks=_HEADS
    )
    dropout: float | None = key(
        None, "before the classifier, or as saved", low=0, below=1, tasks=_HEADS
    )
    bias_from_prior: bool = key(
        False,
        "start from the labels' shares, so that rare ones need not be unlearnt",
        tasks=("binary", "multiclass", "multilabel"),
    )


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """What is changed in the texts of train, anew each epoch."""

    delete: float = key(0.0, "share of the tokens that are left out", low=0, below=1, tasks=_TEXTS)
    swap: float = key(
        0.0, "share of the tokens that change places with the next", low=0, below=1, tasks=_TEXTS
    )
    mask: float = key(0.0, "share of the tokens that become [MASK]", low=0, below=1, tasks=_HEADS)


@dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """What is masked, and what else is asked of pretraining."""

    fraction: float = key(
        0.15, "share of the tokens that are to be predicted", above=0, high=1, tasks=("masked_lm",)
    )
    mask_share: float = key(0.8, "of these become [MASK]", low=0, high=1, tasks=("masked_lm",))
    random_share: float = key(
        0.1, "of these become any other token; the rest stay", low=0, high=1, tasks=("masked_lm",)
    )
    whole_words: bool = key(
        False, "are all pieces of a word predicted together?", tasks=("masked_lm",)
    )
    next_sentence: bool = key(
        False,
        "also tell whether a text follows another; empty lines end a document",
        tasks=("masked_lm",),
    )


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Of a network that is made new: model = "new"."""

    tokenizer: str | None = key(
        None, "a name or a folder to take the vocabulary from; learnt of train when not given"
    )
    vocab_size: int = key(8000, "tokens that are learnt of train, at most", low=200)
    lowercase: bool = key(True, "does a learnt vocabulary know no capitals and accents?")
    hidden_size: int = key(256, "width of a token", low=1)
    num_hidden_layers: int = key(4, "layers", low=1)
    num_attention_heads: int = key(4, "attention heads", low=1)
    intermediate_size: int = key(1024, "width within the feed-forward", low=1)
    max_position_embeddings: int = key(512, "the longest sequence", low=3)
    positions: str = key(
        "random",
        "what the vectors of positions, which are learnt, start from; sinusoidal ones tell near "
        "from far from the first update on",
        choices=("random", "sinusoidal"),
    )
