"""What can be told of a run before its first update: of its examples, and of its settings.

Texts are looked at as the network will see them, as token ids, so that equal means equal to it.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minibert.doctor.findings import Finding, finding
from minibert.tokenizer import Tokenizer
from minibert.training.dataset import Dataset
from minibert.training.examples import Examples
from minibert.training.labels import counts
from minibert.training.losses import IGNORED
from minibert.training.run_config import RunConfig, flat

_ENOUGH = 50  # rows that a verdict needs
_CLASSES = ("binary", "multiclass")
_FEW = 20  # updates
# By key: the least and the most that is in use, and what is usual.
_USUAL: dict[str, tuple[float, float, str]] = {
    "training.dropout": (0.0, 0.5, "0.1"),
    "head.dropout": (0.0, 0.6, "0.1"),
    "head.init_std": (1e-4, 0.5, "0.02"),
    "loss.label_smoothing": (0.0, 0.4, "0.1"),
    "loss.focal_gamma": (0.0, 5.0, "2.0"),
    "schedule.warmup_fraction": (0.0, 0.5, "0.1"),
    "training.max_grad_norm": (0.01, math.inf, "1.0"),
    "optimizer.weight_decay": (0.0, 0.5, "0.01"),
    "optimizer.l1": (0.0, 0.1, "0.0"),
    "optimizer.layer_decay": (0.4, 1.0, "0.95"),
    "masking.fraction": (0.05, 0.6, "0.15"),
    "augmentation.delete": (0.0, 0.4, "0.1"),
    "augmentation.swap": (0.0, 0.4, "0.1"),
    "augmentation.mask": (0.0, 0.4, "0.1"),
}
_MUCH = 2000  # examples: enough for a whole encoder to be fine-tuned on
_Key = tuple[tuple[int, ...], ...]
_LENGTHS = (32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Preflight:
    """What was found, and the figures of the data, by name, for people to read."""

    findings: list[Finding]
    facts: dict[str, str]


def preflight(run: RunConfig, data: Dataset, tokenizer: Tokenizer) -> Preflight:
    """Look at all examples, and at the settings that go with them."""
    unknown, pieces = _shares(data.train, tokenizer)
    keys = _keys(data.train)
    checks = [
        _empty(data.train),
        _alike(data.train),
        _vocabulary(unknown, pieces),
        _cut(run, data),
        _repeated(run, data, keys),
        _conflicts(run, data.train, keys),
        _rate(run),
        _frozen(run, data.train),
        _extreme(run),
        _few_updates(run, data.train),
        _small_validation(data),
        _same_rows(run, data.train, keys, tokenizer),
        _same_pairs(run, data.train, tokenizer),
    ]
    if run.task in ("regression", "similarity"):
        checks.append(_outliers(data.train))
    if run.task in _CLASSES:
        checks += [
            _one_label(data), _sides(run, data), _leak(run, data, tokenizer), _metric(run, data),
        ]  # fmt: skip
    if run.task in (*_CLASSES, "multilabel"):
        checks.append(_balance(run, data))
    found = _facts(run, data)
    found["unknown tokens"] = f"{unknown:.2%}"
    found["tokens that go on with a word"] = f"{pieces:.1%}"
    return Preflight([each for each in checks if each is not None], found)


def _facts(run: RunConfig, data: Dataset) -> dict[str, str]:
    """Figures of the data, by what they are called."""
    found = {}
    for name, examples in _sides_of(data).items():
        lengths = np.array(examples.lengths)
        quantiles = ", ".join(f"{int(np.quantile(lengths, q))}" for q in (0.5, 0.9, 0.99, 1.0))
        found[f"{name}: examples"] = f"{len(examples):,}"
        found[f"{name}: tokens, of half, 90 %, 99 %, all at most"] = quantiles
        found[f"{name}: cut"] = str(data.cuts[name])
    longest = np.array(data.train.lengths)
    fits = [n for n in _LENGTHS if (longest > n).mean() <= 0.001]
    if run.task != "masked_lm" and not data.cuts["train"].cut_texts and fits:
        found["max_length"] = f"{run.data.max_length}; {fits[0]} would cut hardly any text"
    if run.task in _CLASSES:
        most = Counter(_classes(data.train)).most_common(12)
        listed = [f"{_name(data, label)} {n:,}" for label, n in most]
        found["labels of train"] = ", ".join(listed)
    return found


# ---- of texts


def _empty(examples: Examples) -> Finding | None:
    n_special = 2 if examples.n_parts == 1 else 2 * examples.n_parts
    empty = sum(length <= n_special for length in examples.lengths)
    share = empty / len(examples)
    if not empty:
        return None
    return finding(
        "texts-empty",
        f"{empty:,} of {len(examples):,} examples of train ({share:.1%}) have no token but the "
        "special ones",
        severity="warning" if share >= 0.01 else "info",
    )


def _alike(examples: Examples) -> Finding | None:
    n, distinct = len(examples.ids), len(set(examples.alike))
    if n < _ENOUGH or distinct > min(0.1 * n, max(10, 0.02 * n)):
        return None
    return finding(
        "inputs-alike",
        f"the {n:,} texts of train are only {distinct:,} different ones to the network",
    )


def _vocabulary(unknown: float, pieces: float) -> Finding | None:
    if unknown < 0.02 and pieces < 0.45:
        return None
    return finding(
        "vocabulary-does-not-fit",
        f"{unknown:.1%} of the tokens of train are [UNK], {pieces:.1%} are pieces that go on with "
        "a word; of English and a vocabulary of English it is under 0.1 % and about 15 %",
    )


def _shares(examples: Examples, tokenizer: Tokenizer) -> tuple[float, float]:
    """Of all tokens that are not special: those unknown, and those that go on with a word."""
    counts = np.bincount(np.concatenate([np.array(ids) for ids in examples.ids]))
    ids = counts.nonzero()[0]
    tokens = {int(i): tokenizer.id_to_token(int(i)) or "" for i in ids}
    special = tokenizer.special_ids - {tokenizer.unk_id}
    total = sum(int(counts[i]) for i in tokens if i not in special)
    unknown = int(counts[tokenizer.unk_id]) if tokenizer.unk_id in tokens else 0
    pieces = sum(int(counts[i]) for i, token in tokens.items() if token.startswith("##"))
    return unknown / max(1, total), pieces / max(1, total)


def _cut(run: RunConfig, data: Dataset) -> Finding | None:
    cut = data.cuts["train"]
    if not cut.cut_texts or run.data.long_text == "windows":
        return None
    texts, tokens = cut.cut_texts / max(1, cut.n_texts), cut.cut_tokens / max(1, cut.n_tokens)
    longer = [n for n in _LENGTHS if n > run.data.max_length]
    settings = {"data.max_length": str(longer[-1])} if longer else {}
    if run.data.text_pair is None and run.task in ("binary", "multiclass", "multilabel"):
        settings["data.long_text"] = '"windows"'
    return finding(
        "texts-are-cut",
        f"{texts:.1%} of the texts of train and {tokens:.1%} of their tokens are behind "
        f"max_length = {run.data.max_length}",
        severity="warning" if tokens >= 0.2 else "info",
        settings=settings,
    )


def _repeated(run: RunConfig, data: Dataset, keys: Sequence[_Key]) -> Finding | None:
    """Texts of validation or test that are among those of train."""
    if run.task == "masked_lm":
        return None
    known = set(keys)
    told = []
    worst = 0.0
    for name, examples in _sides_of(data).items():
        if name == "train":
            continue
        n = sum(key in known for key in _keys(examples))
        share = n / len(examples)
        worst = max(worst, share)
        told.append(f"{n:,} of the {len(examples):,} of {name} ({share:.1%})")
    if worst < 0.002:
        return None
    return finding(
        "validation-is-train",
        f"the same text is also in train: {', '.join(told)}",
        severity="warning" if worst >= 0.02 else "info",
    )


def _conflicts(run: RunConfig, examples: Examples, keys: Sequence[_Key]) -> Finding | None:
    """Equal texts with different targets."""
    if run.task in ("masked_lm", "contrastive", "spans"):
        return None
    targets: dict[_Key, list[str]] = {}
    for key, target in zip(keys, examples.targets, strict=True):
        targets.setdefault(key, []).append(repr(target))
    rows = sum(len(found) for found in targets.values() if len(set(found)) > 1)
    share = rows / len(examples)
    if not rows:
        return None
    return finding(
        "labels-conflict",
        f"{rows:,} of {len(examples):,} examples of train ({share:.1%}) have a text that stands "
        "there with another label too",
        severity="warning" if share >= 0.05 else "info",
    )


def _same_rows(
    run: RunConfig, examples: Examples, keys: Sequence[_Key], tokenizer: Tokenizer
) -> Finding | None:
    """Examples of train that stand there before, with the same target."""
    if run.task in ("masked_lm", "spans") or len(examples) < _ENOUGH:
        return None
    known = set(zip(keys, map(repr, examples.targets), strict=True))
    n = len(examples) - len(known)
    share = n / len(examples)
    if share < 0.05:
        return None
    key, most = Counter(keys).most_common(1)[0]
    text = textwrap.shorten(" / ".join(tokenizer.decode(ids) for ids in key), 60)
    return finding(
        "rows-repeat",
        f"{n:,} of {len(examples):,} examples of train ({share:.1%}) stand there before, text and "
        f"label; most often, {most:,} times, {text!r}",
        severity="warning" if share >= 0.2 else "info",
    )


def _same_pairs(run: RunConfig, examples: Examples, tokenizer: Tokenizer) -> Finding | None:
    """Pairs of a text and itself."""
    if run.data.text_pair is None or run.task in ("spans", "masked_lm"):
        return None
    same = 0
    for row in range(len(examples)):
        first, *others = (list(examples.ids[i]) for i in examples.sequences(row))
        if others:
            same += first == others[0]
        else:  # [CLS] first [SEP] second [SEP]
            end = first.index(tokenizer.sep_id)
            same += first[1:end] == first[end + 1 : -1]
    if same < 0.5 * len(examples):
        return None
    return finding(
        "pairs-are-alike",
        f"of {same:,} of {len(examples):,} examples of train both texts, data.text and "
        "data.text_pair, are the same",
    )


def _small_validation(data: Dataset) -> Finding | None:
    if data.validation is None or len(data.validation) >= _ENOUGH:
        return None
    n = len(data.validation)
    return finding(
        "validation-is-small",
        f"validation has {n} example{'s' if n > 1 else ''}: one of them more or less is "
        f"{1 / n:.1%} of accuracy",
        # Where there is little data at all, it is worth knowing, and no mistake.
        severity="warning" if len(data.train) >= 20 * n else "info",
    )


# ---- of labels


def _one_label(data: Dataset) -> Finding | None:
    for name, examples in _sides_of(data).items():
        found = set(_classes(examples))
        if len(found) == 1 and len(examples) > 1:
            return finding(
                "one-label",
                f"all {len(examples):,} examples of {name} are {_name(data, found.pop())!r}",
                severity="error" if name == "train" else "warning",
            )
    return None


def _outliers(examples: Examples) -> Finding | None:
    """Targets ten standard deviations from the mean of the others, and targets that are all one."""
    targets = np.array(examples.targets, dtype=float)
    if len(targets) < 2:
        return None
    if (targets == targets[0]).all():
        return finding("one-label", f"all {len(targets):,} targets of train are {targets[0]:g}")
    middle, spread = np.median(targets), float(np.subtract(*np.quantile(targets, [0.95, 0.05])))
    far = np.abs(targets - middle) > 10 * max(spread, 1e-12)
    if not far.any():
        return None
    return finding(
        "targets-are-far-apart",
        f"{int(far.sum()):,} of {len(targets):,} targets of train are more than ten times as far "
        f"from the median, {middle:g}, as nine in ten are apart: the farthest is "
        f"{targets[np.abs(targets - middle).argmax()]:g}",
    )


def _balance(run: RunConfig, data: Dataset) -> Finding | None:
    targets = data.train.targets if run.task == "multilabel" else _classes(data.train)
    found = np.array(counts(targets, len(data.labels)))
    if len(found) < 2 or found.max() <= 4 * max(1, found.min()):
        return None
    most, least = int(found.argmax()), int(found.argmin())
    several = run.task == "multilabel" or run.head.num_labels == 1
    key = "loss.pos_weight" if several else "loss.class_weights"
    return finding(
        "classes-unequal",
        f"{_name(data, most)!r} is there {found[most]:,} times, {_name(data, least)!r} "
        f"{found[least]:,} times",
        settings={key: '"balanced"'},
    )


def _metric(run: RunConfig, data: Dataset) -> Finding | None:
    """Is the best checkpoint chosen by a figure that the most frequent label alone makes high?"""
    if run.training.metric != "accuracy" or data.validation is None:
        return None
    found = np.bincount(_classes(data.validation), minlength=max(1, len(data.labels)))
    share = found.max() / max(1, found.sum())
    if share < 0.8:
        return None
    return finding(
        "metric-hides-classes",
        f"training.metric is 'accuracy', and {_name(data, int(found.argmax()))!r} for every text "
        f"of validation has {share:.1%} of it",
        settings={"training.metric": '"macro_f1"'},
    )


def _sides(run: RunConfig, data: Dataset) -> Finding | None:
    """Shares of labels that differ between train and validation by more than chance."""
    if data.validation is None or len(data.validation) < _ENOUGH:
        return None
    n_labels = max(2, len(data.labels))
    shares = [
        np.bincount(_classes(side), minlength=n_labels) / len(side)
        for side in (data.train, data.validation)
    ]
    distance = float(np.abs(shares[0] - shares[1]).sum()) / 2
    # What it would be by chance of as many rows, twice over.
    chance = float(np.sqrt(shares[0] * (1 - shares[0]) / len(data.validation)).sum())
    if distance < max(0.15, 2 * chance):
        return None
    most = int(np.abs(shares[0] - shares[1]).argmax())
    return finding(
        "sides-differ",
        f"{_name(data, most)!r} is {shares[0][most]:.1%} of train and {shares[1][most]:.1%} of "
        "validation",
    )


def _leak(run: RunConfig, data: Dataset, tokenizer: Tokenizer) -> Finding | None:
    """A token that stands in nearly every text of one label and in hardly any other."""
    labels = np.array(_classes(data.train))
    n_labels = int(labels.max()) + 1
    if n_labels > 100:
        return None
    standing = _token_counts(data.train, labels, n_labels)
    sizes = np.bincount(labels, minlength=n_labels).astype(float)
    total = standing.sum(0)
    for label in np.argsort(-sizes):
        others = len(labels) - sizes[label]
        if sizes[label] < 20 or others < 20:
            continue
        inside = standing[label] / sizes[label]
        outside = (total - standing[label]) / others
        told = (inside >= 0.98) & (outside <= 0.02)
        told[list(tokenizer.special_ids)] = False
        if told.any():
            token = int(told.nonzero()[0][0])
            return finding(
                "label-in-the-text",
                f"{tokenizer.id_to_token(token)!r} stands in {inside[token]:.1%} of the texts that "
                f"are {_name(data, int(label))!r} and in {outside[token]:.1%} of the others",
            )
    return None


def _token_counts(
    examples: Examples, labels: npt.NDArray[Any], n_labels: int
) -> npt.NDArray[np.float64]:
    """In how many texts of each label each token stands: `(labels, tokens)`."""
    ids = [
        np.unique(np.concatenate([np.array(examples.ids[i]) for i in examples.sequences(row)]))
        for row in range(len(examples))
    ]
    flat = np.concatenate(ids)
    rows = np.repeat(labels, [len(each) for each in ids])
    n_tokens = int(flat.max()) + 1
    counted = np.bincount(rows * n_tokens + flat, minlength=n_labels * n_tokens)
    return counted.reshape(n_labels, n_tokens).astype(float)


# ---- of settings


def _rate(run: RunConfig) -> Finding | None:
    rate = run.optimizer.learning_rate
    if run.model == "new" or run.optimizer.name == "sgd" or rate <= 2e-4:
        return None
    if run.training.freeze == "encoder" and run.training.freeze_until_step is None:
        return None
    return finding(
        "rate-is-unusual",
        f"optimizer.learning_rate is {rate:g}, which the encoder is trained with too",
        settings={
            "optimizer.learning_rate": "1e-4",
            "optimizer.head_learning_rate": f"{min(rate, 1e-3):g}",
        },
    )


def _frozen(run: RunConfig, examples: Examples) -> Finding | None:
    """Only the head is trained, though there is data for more."""
    if run.training.freeze != "encoder" or run.training.freeze_until_step is not None:
        return None
    if len(examples) < _MUCH:
        return None
    return finding(
        "frozen-with-much-data",
        f"training.freeze is 'encoder' with {len(examples):,} examples; below about {_MUCH:,} the "
        "head alone is often best, above all of the network",
        settings={"training.freeze": '""'},
    )


def _extreme(run: RunConfig) -> Finding | None:
    """Settings out of the range that anybody has reason to use."""
    given = flat(run)
    found = [
        (key, given[key], usual)
        for key, (low, high, usual) in _USUAL.items()
        if isinstance(given.get(key), int | float) and not low <= given[key] <= high
    ]
    if not found:
        return None
    return finding(
        "settings-are-extreme",
        "; ".join(f"{key} is {value:g}, usual is {usual}" for key, value, usual in found),
        settings={key: usual for key, _, usual in found},
    )


def _few_updates(run: RunConfig, examples: Examples) -> Finding | None:
    settings = run.training
    total = math.ceil(settings.epochs * math.ceil(len(examples) / settings.batch_size))
    if total >= _FEW:
        return None
    return finding(
        "few-updates",
        f"{len(examples):,} examples in batches of {settings.batch_size}, {settings.epochs:g} "
        f"times: {total} updates",
        severity="warning" if len(examples) >= _ENOUGH else "info",
    )


# ---- shared


def _sides_of(data: Dataset) -> dict[str, Examples]:
    sides = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: examples for name, examples in sides.items() if examples is not None}


def _classes(examples: Examples) -> list[int]:
    """The class numbers of examples that have one."""
    return [int(target) for target in examples.targets if int(target) != IGNORED]


def _name(data: Dataset, label: int) -> str:
    return data.labels[label] if label < len(data.labels) else str(label)


def _keys(examples: Examples) -> list[_Key]:
    """One for each example, the same where they are the same to the network."""
    return [
        tuple(tuple(examples.ids[each]) for each in examples.sequences(row))
        for row in range(len(examples))
    ]
