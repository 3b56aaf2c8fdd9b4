"""What a model answers on texts that it was measured on: its confusions, and its worst answers.

They are kept in RUN/examples.json, for people to look at.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.prediction.decisions import probabilities
from minibert.prediction.settings import OF_TEXTS
from minibert.training.examples import Batch, Examples, Found
from minibert.training.metrics import Report
from minibert.training.rows import Row
from minibert.training.tasks import Task
from minibert.training.text_task import TextTask

FILE = "examples.json"
_MOST_LABELS = 30  # of a confusion matrix that can still be read
_MOST_CHARS = 1000  # of a text


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often each label got each answer: `counts[i][j]` texts of label i were taken for j.

    Of many labels these are the most frequent; `others[i]` counts the answers that are none of
    them.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    others: tuple[int, ...]
    n_labels: int  # of the task

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Confusion":
        """From JSON.

        Raises: KeyError, TypeError or ValueError for anything else.
        """
        found = cls(
            labels=tuple(map(str, values["labels"])),
            counts=tuple(tuple(map(int, row)) for row in values["counts"]),
            others=tuple(map(int, values["others"])),
            n_labels=int(values["n_labels"]),
        )
        sizes = {len(found.labels), len(found.others), len(found.counts), *map(len, found.counts)}
        if len(sizes) != 1:
            raise ValueError(f"counts of {sizes} labels, expected one number")
        return found


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A text, what it is labelled, and what the model made of it.

    Attributes:
        place: where the row stands: its file, without folders, and its line.
        text: as it stands there; of a pair the second begins a line.
        probability: of the answer; None of numbers, and of several labels, whose probabilities
            stand in the answer.
        loss: the plain one, whatever was minimised: -log p of the label; of several labels the
            mean over all; of numbers the square of the error in shares of the labels' spread.
    """

    place: str
    text: str
    label: str
    answer: str
    probability: float | None
    loss: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Answered":
        """From JSON.

        Raises: KeyError, TypeError or ValueError for anything else.
        """
        given = values["probability"]
        return cls(
            place=str(values["place"]),
            text=str(values["text"]),
            label=str(values["label"]),
            answer=str(values["answer"]),
            probability=None if given is None else float(given),
            loss=float(values["loss"]),
        )


def has_answers(task: Task) -> bool:
    """Does it answer for a whole text, with classes, presences or a number?"""
    return isinstance(task, TextTask) and task.name in OF_TEXTS


def examples_values(report: Report, worst: Sequence[Answered]) -> dict[str, Any]:
    """What `examples.json` holds."""
    confusion = None
    if report.confusion is not None:
        confusion = asdict(most_frequent(report.labels, report.confusion))
    return {"confusion": confusion, "worst": [asdict(each) for each in worst]}


def most_frequent(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> Confusion:
    """The confusions of at most 30 labels, in their order."""
    totals = [sum(row) for row in confusion]
    kept = sorted(heapq.nlargest(_MOST_LABELS, range(len(labels)), key=totals.__getitem__))
    counts = tuple(tuple(confusion[i][j] for j in kept) for i in kept)
    return Confusion(
        labels=tuple(labels[i] for i in kept),
        counts=counts,
        others=tuple(totals[i] - sum(row) for i, row in zip(kept, counts, strict=True)),
        n_labels=len(labels),
    )


def worst_answers(
    task: Task,
    labels: Sequence[str],
    examples: Examples,
    results: Iterable[tuple[Batch, Found]],
    rows: Sequence[Row],
    columns: Sequence[str],
    *,
    n: int = 20,
) -> list[Answered]:
    """The texts with the largest losses, the largest first.

    Args:
        task: one that `has_answers`.
        labels: of the run: of one logit its absence and its presence.
        results: each batch of the examples, and what the network gave for it.
        rows: those that the examples were made of, one a text.
        columns: where in them the texts stand.
    """
    assert isinstance(task, TextTask)
    logits, targets = (each.double() for each in task.scores(results, examples))
    losses = _losses(task, logits, targets)
    # What is no number is worst of all.
    order = losses.nan_to_num(nan=torch.inf).argsort(descending=True, stable=True)[:n]
    found = []
    for i in order.tolist():
        answer, probability = _answer(task, labels, logits[i])
        found.append(
            Answered(
                place=str(rows[i].place).rsplit("/", 1)[-1],
                text=_cut("\n".join(str(rows[i].value(column)) for column in columns)),
                label=_label(task, labels, targets[i]),
                answer=answer,
                probability=probability,
                loss=float(losses[i]),
            )
        )
    return found


def _losses(task: TextTask, logits: Tensor, targets: Tensor) -> Tensor:
    """The plain loss of each text: `(texts,)`."""
    if task.name == "regression":
        return ((logits - targets) / task.scale).square()
    if task.problem_type == "single_label_classification":
        return F.cross_entropy(logits, targets.long(), reduction="none")
    found = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return found.view(len(found), -1).mean(dim=1)


def _label(task: TextTask, labels: Sequence[str], target: Tensor) -> str:
    if task.name == "regression":
        return f"{float(target):g}"
    if task.name == "multilabel":
        return ", ".join(labels[i] for i in target.nonzero().flatten().tolist()) or "none"
    return labels[int(target)]


def _answer(task: TextTask, labels: Sequence[str], logits: Tensor) -> tuple[str, float | None]:
    """What is answered, and its probability."""
    if task.name == "regression":
        return f"{float(logits):.4g}", None
    if task.problem_type == "single_label_classification":
        best = int(logits.argmax())
        return labels[best], float(logits.softmax(dim=-1)[best])
    found = probabilities(logits)
    if task.one_logit:
        present = bool(found > 0.5)
        return labels[present], float(found if present else 1 - found)
    given = [f"{labels[i]} {float(found[i]):.2f}" for i in (found > 0.5).nonzero().flatten()]
    return ", ".join(given) or "none", None


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]} …"
