"""The training runs of failure_cases.py: on real data, by `minibert train` or in a plain loop.

A run is a value: what it is made of, and the fault that is in it.  Called with the folder of the
data sets it trains, as long as a failure takes to show; it repeats itself bit for bit.
"""

import csv
import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.checkpoint import Pretrained
from minibert.doctor.findings import ranked
from minibert.doctor.live import Doctor
from minibert.errors import MinibertError
from minibert.heads import BertForSequenceClassification, BertForTokenClassification
from minibert.tokenizer import Encoding, Tokenizer
from minibert.training.consultation import set_up_aside
from minibert.training.rate_finder import find_rate
from minibert.training.run import train
from minibert.training.run_config import RunConfig

MODEL = "all-MiniLM-L6-v2"
Tables = Mapping[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """How a run went.

    Attributes:
        figure: on validation examples, or of the answers of the last updates.
        losses: of all updates.
        findings: by name, severity and the lines that were printed; root causes first.
        refused: the error that it ended with before its first update.
    """

    figure: float
    losses: list[float]
    findings: list[dict[str, Any]]
    refused: str = ""


Run = Callable[[Path, Path], Result]  # by the folder of the data sets, in a folder of its own


class Results:
    """What came of runs; those of one session, each made once.

    Args:
        data: the folder of the public data sets.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._done: dict[Run, Result] = {}

    def of(self, run: Run) -> Result:
        if run not in self._done:
            with tempfile.TemporaryDirectory(prefix="minibert-failure-") as place:
                self._done[run] = run(self._data, Path(place))
        return self._done[run]


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
    """Sentences: their words and the tags of these."""
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


@dataclass(frozen=True)
class FileRun:
    """As `minibert train` makes it.

    Attributes:
        tables: of the run file, by the folder of the data sets.
        figure: of the last evaluation, or of the best one.
        changes: settings by key, in place of those of the tables.
        finds_rate: is the rate the one that `minibert doctor --find-rate` proposes?
    """

    tables: Callable[[Path], Tables]
    figure: str
    changes: tuple[tuple[str, Any], ...] = ()
    of_best: bool = False
    finds_rate: bool = False

    def __call__(self, data: Path, folder: Path) -> Result:
        tables: dict[str, Any] = {
            "model": MODEL,
            "output": str(folder),
            **{key: _copied(value) for key, value in self.tables(data).items()},
        }
        for key, value in self.changes:
            table, _, name = key.partition(".")
            if name:
                tables[table] = {**tables.get(table, {}), name: value}
            else:
                tables[table] = value
        try:
            run = RunConfig.from_dict(tables)
            if self.finds_rate:
                run = replace(run, optimizer=replace(run.optimizer, learning_rate=_found_rate(run)))
            train(run, overwrite=True, show_progress_bar=False)
        except MinibertError as error:
            if (folder / "run.json").exists():
                raise
            return Result(math.nan, [], [], refused=str(error))
        found = json.loads((folder / "doctor.json").read_text(encoding="utf-8"))["findings"]
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        figures = [line["evaluation"] for line in lines if "evaluation" in line][-1]
        if self.of_best:
            figures = json.loads((folder / "results.json").read_text())["validation"]
        losses = [line["loss"] for line in lines if "evaluation" not in line]
        # A rank correlation with answers that are all the same is none.
        return Result(figures[self.figure] or 0.0, losses, found)


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _found_rate(run: RunConfig) -> float:
    with set_up_aside(run) as setup:
        found = find_rate(setup).proposal
    assert found is not None
    return found


def tables_of(
    task: str,
    sides: Mapping[str, Any],
    *,
    epochs: int = 1,
    batch_size: int = 16,
    rate: float = 1e-4,
) -> Tables:
    return {
        "task": task,
        "data": dict(sides),
        "training": {"epochs": epochs, "batch_size": batch_size, "seed": 1},
        "optimizer": {"learning_rate": rate},
    }


def _split(rows: Sequence[Row], n: int) -> Tables:
    """The first rows to validate on, the rest to train on."""
    return {"train": list(rows[n:]), "validation": list(rows[:n])}


def spam(data: Path) -> Tables:
    return tables_of("binary", _split(sms_spam(data, 840), 200))


def questions(data: Path) -> Tables:
    return tables_of("multiclass", _split(trec(data, 1160), 200))


def many_questions(data: Path) -> Tables:
    return tables_of("multiclass", _split(trec(data, 2240), 200), batch_size=32)


def three_kinds_of_questions(data: Path) -> Tables:
    rows = [row for row in trec(data, 1600) if row["label"] in "013"]
    return tables_of("multiclass", _split(rows, 200))


def rare_blame(data: Path) -> Tables:
    """One review in ten is negative."""
    sides = {}
    for side, name, n in (("train", "train", 600), ("validation", "dev", 200)):
        rows = sst2(data, 8000, side=name)
        liked = [row for row in rows if row["label"] == "pos"]
        blamed = [row for row in rows if row["label"] == "neg"]
        sides[side] = _some(liked[: n - n // 10] + blamed[: n // 10], n)
    return tables_of("binary", sides, epochs=3, rate=8e-5)


def weighted_blame(data: Path) -> Tables:
    return {**rare_blame(data), "loss": {"class_weights": "balanced"}}


def emotions(data: Path) -> Tables:
    sides = {
        **_split(goemotions(data, 2160), 400),
        "label_separator": ",",
        "labels": [str(number) for number in range(28)],
    }
    return tables_of("multilabel", sides)


def sentiment(data: Path) -> Tables:
    sides = {"train": sst2(data, 720), "validation": sst2(data, 200, side="dev")}
    return tables_of("binary", sides)


def swapped_sentiment(data: Path) -> Tables:
    """The file of validation names its two labels the other way round."""
    tables = sentiment(data)
    other = {"neg": "pos", "pos": "neg"}
    rows = [{**row, "label": other[row["label"]]} for row in tables["data"]["validation"]]
    return {**tables, "data": {**tables["data"], "validation": rows}}


def told_sentiment(data: Path) -> Tables:
    """The whole line taken for the text, of which the first word is the label."""
    tables = sentiment(data)
    sides = {
        side: [{**row, "text": f"{row['label']} {row['text']}"} for row in rows]
        for side, rows in tables["data"].items()
    }
    return {**tables, "data": sides}


def little_sentiment(data: Path) -> Tables:
    sides = {"train": sst2(data, 320), "validation": sst2(data, 200, side="dev")}
    return tables_of("binary", sides, epochs=3)


def known_sentiment(data: Path) -> Tables:
    """Validated on rows that were trained on."""
    tables = little_sentiment(data)
    return {**tables, "data": {**tables["data"], "validation": tables["data"]["train"][:200]}}


def similarities(data: Path) -> Tables:
    sides = {**_split(stsb(data, 840), 200), "text_pair": "text_pair"}
    return tables_of("regression", sides)


# ---- loops of plain PyTorch


@dataclass(frozen=True)
class LoopRun:
    """A loop over texts as people write it, with at most one fault in it.

    Attributes:
        rows: some of a data set, by its folder and their number.
        n_labels: of the head; 1 for numbers, and for one logit of two classes.
        fault: what is done wrongly.
        figure: "accuracy" or "loss" of the last 20 updates, or the "spread" of their answers in
            shares of that of the targets.
    """

    rows: Callable[[Path, int], list[Row]]
    n_labels: int
    fault: str = ""
    figure: str = "accuracy"
    n_updates: int = 45
    rate: float = 1e-4

    def __call__(self, data: Path, folder: Path) -> Result:
        rows = self.rows(data, 900)
        labels = self._labels(rows)
        if self.fault == "sorted":
            order = labels.argsort(stable=True)
            rows, labels = [rows[int(i)] for i in order], labels[order]
        torch.manual_seed(1)
        tokenizer = Tokenizer.from_pretrained(MODEL)
        names = [str(number) for number in range(self.n_labels)]
        model: Pretrained = BertForSequenceClassification.from_pretrained(MODEL, labels=names)
        optimizer = torch.optim.AdamW(self._prepared(model), lr=self.rate)
        doctor = Doctor(model, optimizer, say=_silent)
        losses: list[float] = []
        for some in _batches(len(rows), self.n_updates, shuffled=self.fault != "sorted"):
            batch = self._batch(tokenizer, [rows[i] for i in some])
            logits = model(**batch).logits
            if self.n_labels == 1 and self.fault != "broadcast":
                logits = logits.squeeze(-1)
            if self.fault == "sigmoid":
                logits = logits.sigmoid()
            loss = self._loss(logits, labels[some])
            loss.backward()
            doctor.step(loss=loss, logits=logits, labels=labels[some])
            losses.append(float(loss.detach()))
            optimizer.step()
            if self.fault != "no zero_grad":
                optimizer.zero_grad()
        return _result(doctor, losses, self._figure(doctor))

    @property
    def _is_regression(self) -> bool:
        return self.rows is stsb

    def _labels(self, rows: Sequence[Row]) -> Tensor:
        if not self._is_regression:
            names = sorted({row["label"] for row in rows})
            numbers = torch.tensor([names.index(row["label"]) for row in rows])
            return numbers if self.n_labels > 1 else numbers.float()
        scores = torch.tensor([row["label"] for row in rows])
        if self.fault == "targets to 100":
            return scores * 20
        return (scores - scores.mean()) / scores.std()

    def _prepared(self, model: Pretrained) -> Iterator[nn.Parameter]:
        """Set the network's modes; what the optimizer is to hold."""
        assert isinstance(model, BertForSequenceClassification)
        model.train(self.fault != "evaluation mode")
        if self.fault in ("frozen", "frozen in training mode"):
            model.bert.requires_grad_(False)
            model.bert.train(self.fault != "frozen")
        return (model.classifier if self.fault == "head only" else model).parameters()

    def _batch(self, tokenizer: Tokenizer, rows: Sequence[Row]) -> dict[str, Tensor]:
        pairs = [row["text_pair"] for row in rows] if self._is_regression else None
        batch = tokenizer.pad(tokenizer.encode([row["text"] for row in rows], pairs, max_length=64))
        if self.fault in ("no mask", "fixed length"):
            batch = {key: F.pad(v, (0, 64 - v.shape[1])) for key, v in batch.items()}
        if self.fault == "no mask":
            del batch["attention_mask"]
        if self.fault == "no types":
            del batch["token_type_ids"]
        return batch

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self._is_regression:
            return F.mse_loss(logits, labels)
        if self.n_labels == 1:
            return F.binary_cross_entropy_with_logits(logits, labels)
        if self.fault == "ignore class 0":
            return F.cross_entropy(logits, labels, ignore_index=0)
        return F.cross_entropy(logits, labels)

    def _figure(self, doctor: Doctor, n: int = 20) -> float:
        history = doctor.history
        if self.figure == "loss":
            return history.loss(n)
        if self.figure == "spread":
            return history.spread(n) / (sum(each.target_spread for each in history.last(n)) / n)
        return float(history.right_counts(n).sum()) / max(1, history.n_rows(n))


@dataclass(frozen=True)
class TagRun:
    """A loop over sentences and the tags of their words.

    Attributes:
        fault: what is done wrongly with the tags.
        figure: the "loss" of the last 20 updates, or how many "labels" count in a batch of them.
    """

    fault: str = ""
    figure: str = "loss"

    def __call__(self, data: Path, folder: Path) -> Result:
        sentences = wnut17(data, 500)
        tags = {tag for _, given in sentences for tag in given}
        names = sorted(tags, key=lambda tag: (tag != "O", tag))
        tokenizer = Tokenizer.from_pretrained(MODEL)
        torch.manual_seed(1)
        model = BertForTokenClassification.from_pretrained(MODEL, labels=names)
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        doctor = Doctor(model, optimizer, say=_silent)
        losses: list[float] = []
        for start in range(25):
            some = [sentences[(start * 12 + i) % len(sentences)] for i in range(12)]
            encoded = tokenizer.encode_words([words for words, _ in some], max_length=64)
            batch = tokenizer.pad(encoded)
            numbers = [[names.index(tag) for tag in given] for _, given in some]
            labels = self._labels(batch["input_ids"].shape, encoded, numbers)
            logits = model(**batch).logits
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
            loss.backward()
            doctor.step(loss=loss, logits=logits, labels=labels)
            losses.append(float(loss.detach()))
            optimizer.step()
            optimizer.zero_grad()
        history = doctor.history
        figure = history.loss(20) if self.figure == "loss" else history.n_rows(20) / 20
        return _result(doctor, losses, figure)

    def _labels(
        self, shape: torch.Size, encoded: Sequence[Encoding], numbers: Sequence[Sequence[int]]
    ) -> Tensor:
        labels = torch.full(shape, 0 if self.fault == "padding counts" else -100)
        for row, (each, given) in enumerate(zip(encoded, numbers, strict=True)):
            if self.fault == "not aligned":  # one after the other, as if a word were a token
                n = min(len(given), len(each.ids))
                labels[row, :n] = torch.tensor(given[:n])
                continue
            for place, word in enumerate(each.word_ids):
                if word is not None:
                    labels[row, place] = given[word]
        return labels


@dataclass(frozen=True)
class OverflowRun:
    """A loop with plain gradient descent; its figure is how many updates have a loss."""

    rate: float

    def __call__(self, data: Path, folder: Path) -> Result:
        rows = sst2(data, 400)
        labels = torch.tensor([int(row["label"] == "pos") for row in rows])
        torch.manual_seed(1)
        tokenizer = Tokenizer.from_pretrained(MODEL)
        model = BertForSequenceClassification.from_pretrained(MODEL, labels=["neg", "pos"])
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=self.rate)
        doctor = Doctor(model, optimizer, say=_silent)
        losses: list[float] = []
        for some in _batches(len(rows), 30):
            batch = tokenizer.pad(tokenizer.encode([rows[i]["text"] for i in some], max_length=64))
            logits = model(**batch).logits
            loss = F.cross_entropy(logits, labels[some])
            loss.backward()
            found = doctor.step(loss=loss, logits=logits, labels=labels[some])
            losses.append(float(loss.detach()))
            if any(each.severity == "error" for each in found):
                break
            optimizer.step()
            optimizer.zero_grad()
        return _result(doctor, losses, float(sum(map(math.isfinite, losses))))


def _batches(
    n_rows: int, n_updates: int, *, size: int = 16, shuffled: bool = True
) -> Iterator[list[int]]:
    """The numbers of each batch's rows, drawn anew for every epoch."""
    order: list[int] = []
    for epoch in range(n_updates * size // n_rows + 1):
        generator = torch.Generator().manual_seed(1 + epoch)
        found = torch.randperm(n_rows, generator=generator) if shuffled else torch.arange(n_rows)
        order += found.tolist()
    for update in range(n_updates):
        yield order[update * size : (update + 1) * size]


def _result(doctor: Doctor, losses: list[float], figure: float) -> Result:
    doctor.close()
    return Result(figure, losses, [each.to_dict() for each in ranked(doctor.findings)])


def _silent(line: str) -> None:
    """Findings are looked at when the run is over."""
