"""What tests/test_processes.py has several processes do; each function runs in all of them.

`python -c "import ranks; ranks.main()" FOLDER NAME…` with torchrun's variables set.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from strategies import TINY
from torch import Tensor, nn

from minibert import (
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)
from minibert.checkpoint import Pretrained
from minibert.errors import MinibertError
from minibert.recipe import Recipe
from minibert.training import evaluation as measuring
from minibert.training.evaluation import Evaluation
from minibert.training.examples import Batch, Examples
from minibert.training.loop import Observer, StepRecord, Trainer
from minibert.training.losses import LossSum
from minibert.training.masked_lm_task import MaskedLMTask
from minibert.training.masking import Masking
from minibert.training.processes import Processes, current, together
from minibert.training.run_config import RunConfig
from minibert.training.span_task import SpanTask
from minibert.training.tasks import Task
from minibert.training.text_task import text_task
from minibert.training.vector_task import vector_task

LABELS = ("no", "yes", "maybe")
SGD = {"name": "sgd", "learning_rate": 0.05}
SLOW = {"name": "sgd", "learning_rate": 0.01}  # where rounding errors would grow
ADAMW = {"name": "adamw", "learning_rate": 1e-3}

DTYPES = ("float32", "float64")

# Of 11 examples: 3 batches an epoch of at most 4; of at most 5 the last has one, which cannot be
# shared; accumulated, some portions are smaller than two processes.  Cosines are divided by a half
# or more: by the twentieth that is usual, float32 itself leaves 2e-6 of a loss open.
CASES: dict[str, dict[str, Any]] = {
    "classes": {"loss": {"class_weights": [1.0, 3.0, 0.5]}},
    "adamw": {"optimizer": ADAMW},
    "a batch of one": {"training": {"batch_size": 5}},
    "accumulated": {"training": {"accumulate": 2}, "loss": {"class_weights": [1.0, 3.0, 0.5]}},
    "portions of one": {"training": {"batch_size": 5, "accumulate": 4}},
    "thawed": {"training": {"freeze": "embeddings,0", "freeze_until_step": 9}},
    "recomputed": {"training": {"gradient_checkpointing": True}},
    "tags": {"task": "tokens"},
    "tags accumulated": {"task": "tokens", "training": {"accumulate": 2}},
    "tags one by one": {"task": "tokens", "training": {"batch_size": 1, "epochs": 2}},
    "contrastive": {"training": {"batch_size": 5}},
    "contrastive accumulated": {"training": {"batch_size": 7, "accumulate": 2, "epochs": 10}},
    "pairs with scores": {
        "task": "similarity", "loss": {"temperature": 0.5}, "training": {"batch_size": 5},
    },
    "pairs alone": {
        "task": "contrastive", "loss": {"temperature": 0.5}, "training": {"batch_size": 5},
        "optimizer": SLOW,
    },
    "pairs, negatives and widths": {
        "task": "contrastive",
        "data": {"negatives": ["third", "fourth"]},
        "loss": {"symmetric": True, "matryoshka_dims": [4], "temperature": 1.0},
        "training": {"batch_size": 7, "accumulate": 2, "epochs": 10},
        "optimizer": SLOW,
    },
    "triplets": {
        "task": "contrastive", "data": {"negatives": ["third"]}, "loss": {"name": "triplet"},
    },
    "masked words and pairs": {
        "task": "masked_lm", "masking": {"next_sentence": True, "fraction": 0.4},
        "training": {"accumulate": 2},
    },
    "answers": {"task": "spans", "training": {"batch_size": 5}},
}  # fmt: skip


def examples(task: str = "multiclass", n: int = 11) -> Examples:
    """Texts of 2 to 7 tokens; of tags a third do not count, and those of two texts none."""
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(2, 8, (n,), generator=generator).tolist()
    ids = [torch.randint(5, 11, (length,), generator=generator).tolist() for length in lengths]
    targets: list[Any] = [row[0] % 3 for row in ids]
    if task == "tokens":
        targets = [
            [-100 if i < 2 or t % 3 == 0 else t % 3 for t in row] for i, row in enumerate(ids)
        ]
    if task in ("similarity", "contrastive", "masked_lm", "spans"):
        return _of_other_tasks(task, ids)
    return Examples(ids, [[0] * len(row) for row in ids], targets)


def _of_other_tasks(task: str, ids: list[list[int]]) -> Examples:
    """Sets of up to four texts, of which some occur twice; pairs, and answers in their second."""
    if task in ("similarity", "contrastive"):
        n_parts = 2 if task == "similarity" else 4
        shifted = [ids[(i + i // 3 * part) % len(ids)] for i in range(11) for part in range(4)]
        sets = [text for i, text in enumerate(shifted) if i % 4 < n_parts]
        scores = [float(i % 4) for i in range(11)]
        return Examples(sets, [[0] * len(text) for text in sets], scores, n_parts)
    types = [[0] + [1] * (len(row) - 1) for row in ids]
    if task == "masked_lm":
        return Examples(ids, types, [i % 2 for i in range(11)])
    answers = [(1, len(row) - 1) if i % 3 else (0, 0) for i, row in enumerate(ids)]
    return Examples(ids, types, answers, texts=list(range(11)), starts=[-1] * 11)


def settings(case: dict[str, Any]) -> RunConfig:
    training = {"epochs": 7, "batch_size": 4, "seed": 3, "device": "cpu"} | case.get("training", {})
    return RunConfig.from_dict(
        {"task": "multiclass", "optimizer": SGD, **case, "training": training}
    )


def task_of(chosen: RunConfig, train: Examples) -> Task:
    """The task of a case, of a vocabulary without names."""
    if chosen.task in ("similarity", "contrastive"):
        return vector_task(chosen, Recipe(max_length=8), train.targets)
    if chosen.task == "masked_lm":
        special = torch.arange(11) < 5
        masking = Masking(
            4, 0, special, torch.arange(5, 11), torch.zeros(11, dtype=torch.bool), 0.4
        )
        return MaskedLMTask(masking, chosen.training.seed, 1.5)
    if chosen.task == "spans":
        return SpanTask(max_tokens=9, may_lack=True)
    return text_task(chosen, LABELS, train.targets)


HEADS: dict[str, type[Pretrained]] = {
    "tokens": BertForTokenClassification, "similarity": BertModel, "contrastive": BertModel,
    "masked_lm": BertForPreTraining, "spans": BertForQuestionAnswering,
}  # fmt: skip


def contrastive(model: nn.Module, batch: Batch) -> LossSum:
    """Each text against the others of the batch, wherever they are."""
    vectors: Tensor = model(batch.input_ids, layout=batch.layout).logits
    all_vectors, start = current().gather(vectors.tanh())
    scores = vectors @ all_vectors.T
    labels = start + torch.arange(len(vectors))
    return LossSum(F.cross_entropy(scores, labels, reduction="sum"), torch.tensor(len(vectors)))


class Losses(Observer):
    """Keeps what an update was."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        self.records.append(record)


def trainer(
    case: str | dict[str, Any],
    *,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
    **more: Any,
) -> Trainer:
    """A small network, the same in every process, and what trains it."""
    chosen = settings(CASES[case] if isinstance(case, str) else case)
    torch.manual_seed(chosen.training.seed)
    config = replace(
        TINY,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.3,
    )
    train = examples(chosen.task)
    if chosen.loss.name == "triplet" or chosen.task == "contrastive":
        train = of_parts(train, 2 + len(chosen.data.negatives))
    task, objective = task_of(chosen, train), None
    if isinstance(case, str) and case.startswith("contrastive"):
        objective = contrastive
    model = HEADS.get(chosen.task, BertForSequenceClassification)(config)
    objective = objective or task.objective
    return Trainer(model.to(dtype), objective, train, chosen, prepare=task.prepare, **more)


def of_parts(sets: Examples, n_parts: int) -> Examples:
    """Only the first texts of each set of four."""
    kept = [i for i in range(len(sets.ids)) if i % sets.n_parts < n_parts]
    ids, types = [sets.ids[i] for i in kept], [sets.types[i] for i in kept]
    return Examples(ids, types, sets.targets, n_parts)


def figures(records: list[StepRecord]) -> list[dict[str, float]]:
    return [{k: v for k, v in vars(record).items() if k != "seconds"} for record in records]


def trained(case: str, dtype: str) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """The figures of every update, and the weights behind the last."""
    losses = Losses()
    found = trainer(case, observers=[losses], dtype=getattr(torch, dtype))
    found.run()
    return figures(losses.records), dict(found.model.state_dict())


# ---- what processes do


def trainings(folder: Path, processes: Processes) -> None:
    """Every case in every precision: figures and weights of each process."""
    for case, dtype in product(CASES, DTYPES):
        records, weights = trained(case, dtype)
        name = f"{case}-{dtype}-{processes.rank}"
        (folder / f"{name}.json").write_text(json.dumps(records))
        save_file(weights, folder / f"{name}.safetensors")


def meetings(folder: Path, processes: Processes) -> None:
    """What each method that meets gives."""
    rank = processes.rank
    odd = torch.nn.Parameter(torch.zeros(2))
    never = torch.nn.Parameter(torch.zeros(1))
    both = torch.nn.Parameter(torch.zeros(2, 2))
    both.grad = torch.full((2, 2), 1.0 + rank).T
    odd.grad = torch.tensor([5.0, 7.0]) if rank else None
    processes.add_gradients([odd, never, both])
    assert odd.grad is not None
    given = {"n": torch.tensor(rank), "rows": torch.full((rank, 2), 0.5, dtype=torch.bfloat16)}
    exchanged = processes.exchange(given)
    worked: list[int] = []

    def work(n: int) -> dict[str, Tensor]:
        worked.append(n)
        return {"n": torch.tensor(n * n)}

    vectors = torch.arange(3.0)[: 3 - 3 * rank, None].requires_grad_()
    gathered = processes.gather(vectors)
    (gathered.vectors * (1 + rank)).sum().backward()
    disagreement = ""
    processes.agree({"data": "same"})
    try:
        processes.agree({"data": "same", "model": f"of {rank}", "update": f"{rank}"})
    except MinibertError as error:
        disagreement = str(error)
    said = {
        "add_up": processes.add_up(1.0 + rank, math.inf if rank else -1.0, 0.1),
        "any": [processes.any(False), processes.any(rank == 1), processes.any(True)],
        "odd": odd.grad.tolist(),
        "never": never.grad,
        "both": both.grad.tolist(),
        "exchange": [(int(each["n"]), list(each["rows"].shape)) for each in exchanged],
        "from_first": processes.from_first({"f1": 0.1 + rank, "nan": math.nan}),
        "shared": [int(each["n"]) for each in processes.shared(range(5), work)],
        "worked": worked,
        "gather": [gathered.vectors.tolist(), gathered.start],
        "gradient": None if vectors.grad is None else vectors.grad.tolist(),
        "agree": disagreement,
        "nested": [again.rank for again in [*_nested()]],
    }
    (folder / f"{rank}.json").write_text(json.dumps(said))


def _nested() -> Any:
    with together() as again:
        yield again


def gone_on_with(folder: Path, processes: Processes) -> None:
    """With dropout, in one go and from the fourth update on."""
    case = {"training": {"save_every": 1, "keep_checkpoints": 99, "epochs": 3}}
    whole = trainer(case, dropout=0.3, folder=folder / "whole")
    whole.run()
    processes.add_up(0.0)  # the last checkpoint is whole
    if processes.is_first:
        (folder / "parts" / "checkpoints").mkdir(parents=True)
        name = "checkpoints/step-0000004"
        (folder / "parts" / name).symlink_to(folder / "whole" / name)
    processes.add_up(0.0)
    torch.manual_seed(99)
    parts = trainer(case, dropout=0.3, folder=folder / "parts")
    assert parts.resume() == []
    assert parts.step == 4
    parts.run()
    state = torch.get_rng_state()
    states = [each["state"] for each in processes.exchange({"state": state})]
    assert not torch.equal(states[0], states[1])  # they do not drop the same


def stopped(folder: Path, processes: Processes) -> None:
    """The second alone is told to stop, in the middle of the third update."""
    found = trainer({"training": {"epochs": 3}}, folder=folder)
    objective, step = found.objective, 0

    def told(model: nn.Module, batch: Batch) -> LossSum:
        nonlocal step
        step += 1
        found.stopping = processes.rank == 1 and step == 3
        return objective(model, batch)

    found.objective = told
    found.run()
    (folder / f"{processes.rank}.txt").write_text(str(found.step))


def overflowing(folder: Path, processes: Processes) -> None:
    """The gradients of the second process alone are too large for float32."""
    found = trainer({"training": {"precision": "fp16"}})
    objective = found.objective

    def large(model: nn.Module, batch: Batch) -> LossSum:
        loss = objective(model, batch)
        return LossSum(loss.sum * 1e36, loss.count) if processes.rank == 1 else loss

    found.objective = large
    found._update(found._batches(0)[0], 0)
    assert found.scale is not None
    (folder / f"{processes.rank}.txt").write_text(str(found.scale.value))


EVALUATED = (
    "classes", "pairs with scores", "pairs, negatives and widths", "masked words and pairs",
    "answers",
)  # fmt: skip


def evaluation(case: str) -> dict[str, float]:
    """Figures of a network that has not learnt anything, on all examples."""
    found = trainer(case)
    task = task_of(found.run_config, found.train)
    labels = LABELS if case == "classes" else ()
    return Evaluation(task, labels, found.train)(found.model.eval())


def evaluated(folder: Path, processes: Processes) -> None:
    """Of batches of three."""
    measuring._BATCH = 3
    figures = {case: evaluation(case) for case in EVALUATED}
    (folder / f"{processes.rank}.json").write_text(json.dumps(figures))


def _broken(folder: Path, processes: Processes, breaks: Callable[[LossSum], LossSum]) -> None:
    """The second update fails on the second process."""
    found = trainer("classes", folder=folder)
    objective, step = found.objective, 0

    def broken(model: nn.Module, batch: Batch) -> LossSum:
        nonlocal step
        step += 1
        loss = objective(model, batch)
        return breaks(loss) if processes.rank == 1 and step == 2 else loss

    found.objective = broken
    found.run()


def no_number(folder: Path, processes: Processes) -> None:
    _broken(folder, processes, lambda loss: LossSum(loss.sum * math.nan, loss.count))


def no_memory(folder: Path, processes: Processes) -> None:
    def fails(loss: LossSum) -> LossSum:
        raise MemoryError("no memory is left")

    _broken(folder, processes, fails)


def killed(folder: Path, processes: Processes) -> None:
    def dies(loss: LossSum) -> LossSum:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it lives")

    _broken(folder, processes, dies)


def interrupted(folder: Path, processes: Processes) -> None:
    """Both, as by torchrun's Ctrl-C before training has begun."""
    processes.add_up(0.0)
    raise KeyboardInterrupt


def main() -> None:
    """Run some of the functions above, each in a folder of its own; a refusal is a line."""
    folder, *names = sys.argv[1:]
    try:
        with together() as processes:
            for name in names:
                place = Path(folder) / name
                place.mkdir(exist_ok=True)
                globals()[name](place, processes)
    except MinibertError as error:
        sys.exit(f"minibert: {error}")
