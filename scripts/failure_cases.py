"""Real ways in which training a BERT fails, each made on real data, and each mended.

A case is trained twice: as people report that they had it, and with the setting that the doctor
names.  `tests/test_training_failures.py` holds that the doctor finds the cause first and that the
remedy mends it; `scripts/training_failures.py` writes them down in docs/training-failures.md.

Runs are short: long enough for the failure to show, and for the mended one to be better.
"""

import csv
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.checkpoint import Pretrained
from minibert.doctor.findings import ranked
from minibert.doctor.live import Doctor
from minibert.heads import BertForSequenceClassification, BertForTokenClassification
from minibert.tokenizer import Tokenizer
from minibert.training.run import train
from minibert.training.run_config import RunConfig

MODEL = "all-MiniLM-L6-v2"
Tables = Mapping[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """How one of the two runs went.

    Attributes:
        figure: on validation examples, or of the answers of the last updates.
        losses: of all updates.
        findings: by name, severity and the lines that were printed; root causes first.
    """

    figure: float
    losses: list[float]
    findings: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A failure.

    Attributes:
        name: of its section.
        story: how it looks to whom it happens.
        finding: what the doctor has to name first.
        remedy: the setting, or the line of code, that mends it.
        figure: what is compared before and after.
        lower_is_better: of the figure.
        run: the run, as it failed or mended; in a folder of its own.
    """

    name: str
    story: str
    finding: str
    remedy: str
    figure: str
    run: Callable[[Path, Path, bool], Result]
    lower_is_better: bool = False
    lies: bool = False  # the figure before is too good to be true, and falls when mended

    def verdict(self, failed: Result, mended: Result) -> str:
        """What speaks against it; "" where the cause is named first and the remedy mends it."""
        grave = [each["name"] for each in failed.findings if each["severity"] != "info"]
        if grave[:1] != [self.finding]:
            return f"{grave} was found, expected {self.finding} first"
        if self.finding in [each["name"] for each in mended.findings]:
            return f"{self.finding} was found in the mended run too"
        better = failed.figure > mended.figure
        if not (self.lower_is_better or self.lies):
            better = mended.figure > failed.figure
        return "" if better else f"{self.figure} was {failed.figure:g}, is {mended.figure:g}"


# ---- data


def sst2(data: Path, n: int, *, side: str = "train") -> list[Row]:
    lines = (data / "sst2" / f"stsa.binary.{side}").read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(("label", "text"), line.split(" ", 1), strict=True)) for line in lines]
    return _some([{**row, "label": ("neg", "pos")[int(row["label"])]} for row in rows], n)


def trec(data: Path, n: int) -> list[Row]:
    lines = (data / "trec" / "TREC.train.all").read_text(encoding="latin-1").splitlines()
    return _some([{"label": line[0], "text": line[2:]} for line in lines], n)


def sms_spam(data: Path, n: int) -> list[Row]:
    lines = (data / "sms_spam" / "sms.tsv").read_text(encoding="utf-8").splitlines()
    # Of messages that are sent to many once: else a split would hold them on both sides.
    texts = {text: label for label, text in (line.split("\t", 1) for line in lines)}
    return _some([{"label": label, "text": text} for text, label in texts.items()], n)


def stsb(data: Path, n: int) -> list[Row]:
    with (data / "stsb" / "sts-train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    found = [
        {"kind": row[0], "label": float(row[4]), "text": row[5], "text_pair": row[6]}
        for row in rows
    ]
    return _some(found, n)


def goemotions(data: Path, n: int) -> list[Row]:
    lines = (data / "goemotions" / "train.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    return _some([{"text": row[0], "label": row[1]} for row in rows], n)


def wnut17(data: Path, n: int) -> list[tuple[list[str], list[str]]]:
    text = (data / "wnut17" / "wnut17train.conll").read_text(encoding="utf-8")
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    pairs = [[line.split("\t") for line in block if "\t" in line] for block in blocks]
    found = [([p[0] for p in pair], [p[1].strip() for p in pair]) for pair in pairs if pair]
    random.Random(0).shuffle(found)
    return found[:n]


def _some(rows: list[Row], n: int) -> list[Row]:
    random.Random(0).shuffle(rows)
    return rows[:n]


# ---- runs of run files


def run_file(
    folder: Path, tables: Tables, figure: str, changes: Mapping[str, Any] | None = None
) -> Result:
    """Train as `minibert train` does, with settings changed by key."""
    merged = {
        "model": MODEL,
        "output": str(folder),
        **{key: dict(value) if isinstance(value, dict) else value for key, value in tables.items()},
    }
    for key, value in (changes or {}).items():
        table, _, name = key.partition(".")
        if name:
            merged[table] = {**merged.get(table, {}), name: value}
        else:
            merged[table] = value
    try:
        train(RunConfig.from_dict(merged), overwrite=True, show_progress_bar=False)
    finally:
        found = json.loads((folder / "doctor.json").read_text(encoding="utf-8"))["findings"]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    evaluations = [line["evaluation"] for line in lines if "evaluation" in line]
    losses = [line["loss"] for line in lines if "evaluation" not in line]
    # A rank correlation with answers that are all the same is none.
    return Result(evaluations[-1][figure] or 0.0, losses, found)


def of_settings(
    rows: Callable[[Path], Tables], figure: str, faulty: Tables, mended: Tables
) -> Callable[[Path, Path, bool], Result]:
    """A case of a run file: the same tables with other settings."""

    def run(data: Path, folder: Path, is_mended: bool) -> Result:
        return run_file(folder, rows(data), figure, mended if is_mended else faulty)

    return run


def split(rows: Sequence[Row], n: int) -> Tables:
    """The first rows to validate on, the rest to train on."""
    return {"train": list(rows[n:]), "validation": list(rows[:n])}


def spam(n: int = 840, **training: Any) -> Callable[[Path], Tables]:
    return lambda data: {
        "task": "binary",
        "data": split(sms_spam(data, n), 200),
        "training": {"epochs": 1, "batch_size": 16, "seed": 1, **training},
        "optimizer": {"learning_rate": 1e-4},
    }


def questions(n: int = 1160, **training: Any) -> Callable[[Path], Tables]:
    return lambda data: {
        "task": "multiclass",
        "data": split(trec(data, n), 200),
        "training": {"epochs": 1, "batch_size": 16, "seed": 1, **training},
        "optimizer": {"learning_rate": 1e-4},
    }


def rare_blame(data: Path) -> Tables:
    """One review in thirty is negative."""
    sides = {}
    for side, n, n_rare in (("train", 600, 60), ("dev", 200, 20)):
        rows = sst2(data, 8000, side=side)
        liked = [row for row in rows if row["label"] == "pos"]
        blamed = [row for row in rows if row["label"] == "neg"]
        sides[side] = _some(liked[: n - n_rare] + blamed[:n_rare], n)
    return {
        "task": "binary",
        "data": {"train": sides["train"], "validation": sides["dev"]},
        "training": {"epochs": 3, "batch_size": 16, "seed": 1},
        "optimizer": {"learning_rate": 8e-5},
    }


def emotions(data: Path) -> Tables:
    return {
        "task": "multilabel",
        "data": {
            **split(goemotions(data, 2160), 400),
            "label_separator": ",",
            "labels": [str(number) for number in range(28)],
        },
        "training": {"epochs": 1, "batch_size": 16, "seed": 1},
        "optimizer": {"learning_rate": 1e-4},
    }


def sentiment(n: int = 720, **training: Any) -> Callable[[Path], Tables]:
    return lambda data: {
        "task": "binary",
        "data": {"train": sst2(data, n), "validation": sst2(data, 200, side="dev")},
        "training": {"epochs": 1, "batch_size": 16, "seed": 1, **training},
        "optimizer": {"learning_rate": 1e-4},
    }


def similarities(data: Path) -> Tables:
    return {
        "task": "regression",
        "data": {**split(stsb(data, 840), 200), "text_pair": "text_pair"},
        "training": {"epochs": 1, "batch_size": 16, "seed": 1},
        "optimizer": {"learning_rate": 1e-4},
    }


def swapped(data: Path, folder: Path, is_mended: bool) -> Result:
    """Validation rows whose file has its two labels the other way round."""
    tables = sentiment()(data)
    if not is_mended:
        other = {"neg": "pos", "pos": "neg"}
        rows = [{**row, "label": other[row["label"]]} for row in tables["data"]["validation"]]
        tables = {**tables, "data": {**tables["data"], "validation": rows}}
    return run_file(folder, tables, "accuracy")


def telling(data: Path, folder: Path, is_mended: bool) -> Result:
    """The whole line taken for the text, of which the first word is the label."""
    tables = sentiment()(data)
    if not is_mended:
        sides = {
            side: [{**row, "text": f"{row['label']} {row['text']}"} for row in rows]
            for side, rows in tables["data"].items()
        }
        tables = {**tables, "data": sides}
    return run_file(folder, tables, "accuracy")


def seen_before(data: Path, folder: Path, is_mended: bool) -> Result:
    """Validation rows that were trained on."""
    tables = sentiment(320, epochs=3)(data)
    if not is_mended:
        tables = {
            **tables, "data": {**tables["data"], "validation": tables["data"]["train"][:200]},
        }  # fmt: skip
    return run_file(folder, tables, "accuracy")


# ---- loops of plain PyTorch


class Loop:
    """A loop as people write it, over texts that are padded to a batch's longest one.

    Args:
        texts, labels: what is trained on.
        n_labels: of the head; 1 for numbers.
    """

    def __init__(self, texts: Sequence[str], labels: Tensor, n_labels: int) -> None:
        torch.manual_seed(1)
        self.tokenizer = Tokenizer.from_pretrained(MODEL)
        names = [str(number) for number in range(n_labels)]
        self.model: Pretrained = BertForSequenceClassification.from_pretrained(MODEL, labels=names)
        self.model.train()
        self.texts, self.labels = texts, labels

    def batches(
        self, n: int, size: int = 16, *, shuffled: bool = True, length: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Token ids, masks, labels."""
        generator = torch.Generator().manual_seed(1)
        for start in range(n):
            order = torch.arange(len(self.texts))
            if shuffled:
                epoch = start * size // len(self.texts)
                order = torch.randperm(len(order), generator=generator.manual_seed(epoch))
            rows = [int(order[(start * size + i) % len(order)]) for i in range(size)]
            encoded = self.tokenizer.encode([self.texts[row] for row in rows], max_length=64)
            padded = self.tokenizer.pad(encoded)
            ids, mask = padded["input_ids"], padded["attention_mask"]
            if length is not None:
                ids, mask = (F.pad(each, (0, length - each.shape[1])) for each in (ids, mask))
            yield ids, mask, self.labels[rows]


def result(doctor: Doctor, losses: list[float], figure: float) -> Result:
    doctor.close()
    return Result(figure, losses, [each.to_dict() for each in ranked(doctor.findings)])


def accuracy(doctor: Doctor, n: int = 20) -> float:
    """Of the answers of the last updates."""
    history = doctor.history
    return float(history.right_counts(n).sum()) / max(1, history.n_rows(n))


def loop_case(
    rows: Callable[[Path], Sequence[Row]],
    *,
    n_updates: int = 45,
    n_labels: int = 2,
    rate: float = 1e-4,
    switches: Mapping[str, Any],
) -> Callable[[Path, Path, bool], Result]:
    """A case of a loop: `switches` say what is done wrongly in it; mended, none is on."""

    def run(data: Path, folder: Path, is_mended: bool) -> Result:
        on = {} if is_mended else dict(switches)
        found = list(rows(data))
        names = sorted({row["label"] for row in found})
        numbers = isinstance(found[0]["label"], float)
        labels = torch.tensor(
            [row["label"] if numbers else names.index(row["label"]) for row in found]
        )
        if on.get("sorted"):
            order = labels.argsort(stable=True)
            found, labels = [found[int(i)] for i in order], labels[order]
        if numbers and not on.get("raw targets"):
            labels = (labels - labels.mean()) / labels.std()
        elif numbers:
            labels = labels * 20  # from 0 to 100
        bce = "sigmoid" in switches
        if bce:
            labels = labels.float()
        loop = Loop([row["text"] for row in found], labels, n_labels)
        return _loop(loop, n_updates, rate, on, bce=bce, numbers=numbers)

    return run


def _loop(
    loop: Loop, n_updates: int, rate: float, on: Mapping[str, Any], *, bce: bool, numbers: bool
) -> Result:
    model = loop.model
    held: Iterator[nn.Parameter] = model.parameters()
    if on.get("encoder only"):
        assert isinstance(model, BertForSequenceClassification)
        held = model.bert.parameters()
    if on.get("evaluation mode"):
        model.eval()
    optimizer = torch.optim.AdamW(held, lr=rate)
    doctor = Doctor(model, optimizer, say=lambda line: None)
    losses: list[float] = []
    length = 64 if on.get("no mask") else None
    for ids, mask, labels in loop.batches(n_updates, shuffled=not on.get("sorted"), length=length):
        logits = model(ids, None if on.get("no mask") else mask).logits
        if (bce or numbers) and not on.get("broadcast"):
            logits = logits.squeeze(-1)
        if on.get("sigmoid"):
            logits = logits.sigmoid()
        loss = _loss(logits, labels, on, bce=bce, numbers=numbers)
        loss.backward()
        doctor.step(
            loss=loss, logits=logits, labels=labels,
            attention_mask=None if on.get("no mask") else mask,
        )  # fmt: skip
        losses.append(float(loss.detach()))
        optimizer.step()
        if not on.get("no zero_grad"):
            optimizer.zero_grad()
    if numbers:
        history = doctor.history
        spread = sum(each.target_spread for each in history.last(20)) / 20
        return result(doctor, losses, history.spread(20) / spread)
    if bce:
        return result(doctor, losses, doctor.history.loss(20))
    return result(doctor, losses, accuracy(doctor))


def _loss(
    logits: Tensor, labels: Tensor, on: Mapping[str, Any], *, bce: bool, numbers: bool
) -> Tensor:
    if bce:
        return F.binary_cross_entropy_with_logits(logits, labels)
    if numbers:
        return F.mse_loss(logits, labels)
    if on.get("ignore class 0"):
        return F.cross_entropy(logits, labels, ignore_index=0)
    return F.cross_entropy(logits, labels)


def tags(data: Path, folder: Path, is_mended: bool) -> Result:
    """Word tags that are padded with 0, which is the number of a tag."""
    sentences = wnut17(data, 500)
    names = sorted(
        {tag for _, tags in sentences for tag in tags}, key=lambda tag: (tag != "O", tag)
    )
    tokenizer = Tokenizer.from_pretrained(MODEL)
    torch.manual_seed(1)
    model = BertForTokenClassification.from_pretrained(MODEL, labels=names)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    doctor = Doctor(model, optimizer, say=lambda line: None)
    losses: list[float] = []
    for start in range(40):
        some = [sentences[(start * 12 + i) % len(sentences)] for i in range(12)]
        encoded = tokenizer.encode_words([words for words, _ in some], max_length=64)
        padded = tokenizer.pad(encoded)
        labels = torch.full(padded["input_ids"].shape, -100 if is_mended else 0)
        for row, (each, (_, given)) in enumerate(zip(encoded, some, strict=True)):
            for place, word in enumerate(each.word_ids):
                if word is not None:
                    labels[row, place] = names.index(given[word])
        logits = model(padded["input_ids"], padded["attention_mask"]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        doctor.step(
            loss=loss, logits=logits, labels=labels, attention_mask=padded["attention_mask"]
        )
        losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    counted = doctor.history.n_rows(20) / 20
    return result(doctor, losses, counted)


def broken(data: Path, folder: Path, is_mended: bool) -> Result:
    """A rate at which float32 itself overflows."""
    rows = sst2(data, 400)
    labels = torch.tensor([int(row["label"] == "pos") for row in rows])
    loop = Loop([row["text"] for row in rows], labels, 2)
    optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.05 if is_mended else 1e25)
    doctor = Doctor(loop.model, optimizer, say=lambda line: None)
    losses: list[float] = []
    for ids, mask, wanted in loop.batches(30):
        logits = loop.model(ids, mask).logits
        loss = F.cross_entropy(logits, wanted)
        loss.backward()
        doctor.step(loss=loss, logits=logits, labels=wanted)
        losses.append(float(loss.detach()))
        if doctor.findings and not is_mended:
            break
        optimizer.step()
        optimizer.zero_grad()
    return result(doctor, losses, float(sum(map(math.isfinite, losses))))


CASES: tuple[Case, ...] = (
    Case(
        name="The rate is too high",
        story="After a few updates every text gets the same answer, and nothing changes any more.",
        finding="rate-too-high",
        remedy="optimizer.learning_rate = 1e-4",
        figure="macro_f1",
        run=of_settings(spam(), "macro_f1", {"optimizer.learning_rate": 5e-2}, {}),
    ),
    Case(
        name="The rate is too low",
        story="The loss stays where it began, for as long as one waits.",
        finding="rate-too-low",
        remedy="optimizer.learning_rate = 1e-4",
        figure="accuracy",
        run=of_settings(questions(), "accuracy", {"optimizer.learning_rate": 1e-8}, {}),
    ),
    Case(
        name="Every pair gets the same score",
        story="A regression that answers the mean of all scores, whatever the pair.",
        finding="rate-too-high",
        remedy="optimizer.learning_rate = 1e-4",
        figure="spearman",
        run=of_settings(similarities, "spearman", {"optimizer.learning_rate": 1e-2}, {}),
    ),
    Case(
        name="The rare class is never predicted",
        story="Accuracy is 0.90 and looks well; not one rare example is found.",
        finding="majority-only",
        remedy='loss.class_weights = "balanced"',
        figure="macro_f1",
        run=of_settings(rare_blame, "macro_f1", {}, {"loss.class_weights": "balanced"}),
    ),
    Case(
        name="No label is ever predicted",
        story="Many labels, each of them rare: the loss falls, and macro-F1 is exactly 0.",
        finding="never-predicted",
        remedy='loss.pos_weight = "balanced"',
        figure="macro_f1",
        run=of_settings(emotions, "macro_f1", {}, {"loss.pos_weight": "balanced"}),
    ),
    Case(
        name="Pretraining is overwritten",
        story="It trains, but ends well below what others report of the same model and data.",
        finding="rate-is-unusual",
        remedy="optimizer.learning_rate = 1e-4",
        figure="accuracy",
        run=of_settings(
            sentiment(),
            "accuracy",
            {"optimizer.learning_rate": 1e-3, "schedule.warmup_fraction": 0.0},
            {},
        ),
    ),
    Case(
        name="Decay takes the weights away",
        story="A weight_decay that was meant for another optimizer, or has lost its comma.",
        finding="weights-shrink",
        remedy="optimizer.weight_decay = 0.01",
        figure="accuracy",
        run=of_settings(questions(), "accuracy", {"optimizer.weight_decay": 300.0}, {}),
    ),
    Case(
        name="The encoder is frozen though there is much data",
        story="Only the head learns, and stays far below what the encoder could.",
        finding="frozen-with-much-data",
        remedy='training.freeze = ""',
        figure="accuracy",
        run=of_settings(
            questions(2240, batch_size=32), "accuracy", {"training.freeze": "encoder"}, {}
        ),
    ),
    Case(
        name="Most of each text is cut away",
        story="A max_length from an example, for texts that are longer.",
        finding="texts-are-cut",
        remedy="data.max_length = 64",
        figure="accuracy",
        run=of_settings(sentiment(), "accuracy", {"data.max_length": 6}, {"data.max_length": 64}),
    ),
    Case(
        name="The column of the text is another one",
        story="A table without a header, and a number of a column that is off.",
        finding="inputs-alike",
        remedy='data.text = "text"',
        figure="spearman",
        run=of_settings(
            similarities, "spearman", {"data.text": "kind", "data.text_pair": None}, {}
        ),
    ),
    Case(
        name="The text tells the label",
        story="Validation is perfect within an epoch, and the model useless elsewhere.",
        finding="label-in-the-text",
        remedy="data.text without the label",
        figure="accuracy",
        run=telling,
        lies=True,
    ),
    Case(
        name="Validation rows were trained on",
        story="Figures rise with every epoch, and are not reached on new texts.",
        finding="validation-is-train",
        remedy="data.validation of other rows",
        figure="accuracy",
        run=seen_before,
        lies=True,
    ),
    Case(
        name="Two files name their labels differently",
        story="The loss falls; accuracy on validation falls with it, far below chance.",
        finding="labels-permuted",
        remedy='data.labels = ["neg", "pos"] for both',
        figure="accuracy",
        run=swapped,
    ),
    Case(
        name="A sigmoid in front of a loss that has one",
        story="The loss hardly falls below 0.5, and answers stay near the middle.",
        finding="probabilities-as-logits",
        remedy="loss(logits, labels) without .sigmoid()",
        figure="loss",
        lower_is_better=True,
        run=loop_case(lambda data: sst2(data, 900), n_labels=1, switches={"sigmoid": True}),
    ),
    Case(
        name="Shapes that broadcast",
        story="A regression by mse_loss(logits, targets) gives the same number for every text.",
        finding="loss-broadcasts",
        remedy="logits.squeeze(-1)",
        figure="spread of answers, in that of targets",
        run=loop_case(
            lambda data: stsb(data, 900), n_labels=1, n_updates=60, switches={"broadcast": True}
        ),
    ),
    Case(
        name="Targets from 0 to 100",
        story="The same score for every text, near 0 at first and near the mean later.",
        finding="targets-not-scaled",
        remedy="(targets - targets.mean()) / targets.std()",
        figure="spread of answers, in that of targets",
        run=loop_case(
            lambda data: stsb(data, 900),
            n_labels=1,
            n_updates=60,
            switches={"raw targets": True},
        ),
    ),
    Case(
        name="An ignore_index that is a class",
        story="The padding id, 0, given as ignore_index: class 0 is never learnt.",
        finding="class-is-ignored",
        remedy="cross_entropy(logits, labels), ignoring -100",
        figure="accuracy",
        run=loop_case(lambda data: trec(data, 900), n_labels=6, switches={"ignore class 0": True}),
    ),
    Case(
        name="Rows in the order of their labels",
        story="A loader without shuffle: each batch holds one class.",
        finding="labels-in-runs",
        remedy="DataLoader(…, shuffle=True)",
        figure="accuracy",
        run=loop_case(lambda data: trec(data, 900), n_labels=6, switches={"sorted": True}),
    ),
    Case(
        name="No zero_grad",
        story="The loss falls for some updates, then jumps and stays high.",
        finding="gradients-pile-up",
        remedy="optimizer.zero_grad()",
        figure="accuracy",
        run=loop_case(lambda data: trec(data, 900), n_labels=6, switches={"no zero_grad": True}),
    ),
    Case(
        name="The optimizer lacks the head",
        story="An optimizer that was made before the head, or of the encoder alone.",
        finding="head-is-not-trained",
        remedy="AdamW(model.parameters())",
        figure="accuracy",
        run=loop_case(lambda data: trec(data, 900), n_labels=6, switches={"encoder only": True}),
    ),
    Case(
        name="Padding to a fixed length without a mask",
        story="Short texts are drowned in padding, and learn slowly.",
        finding="padding-is-seen",
        remedy="model(input_ids, attention_mask)",
        figure="accuracy",
        run=loop_case(lambda data: trec(data, 900), n_labels=6, switches={"no mask": True}),
    ),
    Case(
        name="Evaluation mode while training",
        story="model.eval() from the last evaluation stays on: dropout is off.",
        finding="dropout-is-off",
        remedy="model.train()",
        figure="accuracy",
        lies=True,
        run=loop_case(lambda data: trec(data, 900), n_labels=6, switches={"evaluation mode": True}),
    ),
    Case(
        name="Tags of padding count",
        story="Labels of words padded with 0: most of what is learnt is padding.",
        finding="padding-has-labels",
        remedy="labels of padding = -100",
        figure="labels that count in a batch",
        lower_is_better=True,
        run=tags,
    ),
    Case(
        name="The loss is NaN",
        story="A few updates, then NaN for ever.",
        finding="not-finite",
        remedy="a lower rate",
        figure="updates whose loss is a number",
        run=broken,
    ),
)
