"""The doctor in this package's loop: an observer that shows it each update and evaluation."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from minibert.doctor.live import Doctor
from minibert.doctor.signals import Kind
from minibert.errors import RunError
from minibert.training.evaluation import Evaluation
from minibert.training.examples import Batch
from minibert.training.json_file import write_json
from minibert.training.loop import Observer, Trainer
from minibert.training.losses import IGNORED, LossSum
from minibert.training.masked_lm_task import MaskedLMTask
from minibert.training.run_config import flat
from minibert.training.tasks import Task
from minibert.training.text_task import TextTask

FILE = "doctor.json"
_KINDS: dict[str, Kind] = {
    "binary": "classes",
    "multiclass": "classes",
    "multilabel": "presences",
    "regression": "numbers",
    "tokens": "classes",
    "masked_lm": "classes",
}


class Checkup(Observer):
    """Has a `Doctor` look at a run; what it finds is said, and kept in FOLDER/doctor.json.

    Of a run that is gone on with, what was found up to there stands beside what comes.

    Args:
        folder: of the run; None keeps nothing.
        facts: figures of the data, by name.
    """

    def __init__(
        self,
        trainer: Trainer,
        task: Task,
        evaluation: Evaluation | None,
        *,
        folder: Path | None,
        say: Callable[[str], None],
        stop_on: str | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        run = trainer.run_config
        kind = _KINDS.get(run.task)
        if isinstance(task, TextTask) and task.one_logit and run.task == "binary":
            kind = "presences"
        self.doctor = Doctor(
            trainer.model,
            trainer.optimizer,
            total=trainer.total,
            warmup=trainer.warmup,
            kind=kind,
            settings=flat(run),
            metric=trainer.metric,
            pretrained=run.model != "new",
            say=say,
            stop_on=stop_on,
        )
        self._path = None if folder is None else folder / FILE
        self._say = say
        self._facts = dict(facts or {})
        self._before: dict[str, Any] = {"findings": [], "looks": []}
        if folder is not None and trainer.step:
            self._before = read_until(folder, trainer.step)
            self._facts = self._before["facts"] | self._facts
            self.doctor.history.step = trainer.step
        self._task, self._evaluation = task, evaluation
        self._logits: Tensor | None = None
        self._labels: Tensor | None = None
        self._loss = self._count = 0.0
        answers = _giving_logits(task, trainer.model)
        self._handle = None
        if answers is not None:
            self._handle = answers.register_forward_hook(self._keep)

    def after_loss(self, trainer: Trainer, batch: Batch, loss: LossSum) -> None:
        self._labels = _labels(self._task, batch)
        self._loss += float(loss.sum.detach())
        self._count += float(loss.count.detach())

    def before_update(self, trainer: Trainer) -> None:
        logits = self._logits
        if logits is not None and logits.ndim > 1 and logits.shape[-1] == 1:
            logits = logits.squeeze(-1)
        known = len(self.doctor.findings)
        try:
            self.doctor.step(
                loss=self._loss / self._count if self._count else 0.0,
                logits=logits,
                labels=None if logits is None else self._labels,
                rate=trainer.rate,
            )
        finally:
            if len(self.doctor.findings) > known:  # it may be the last thing that is done
                self.write()
        self._logits = self._labels = None
        self._loss = self._count = 0.0

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        self._logits = None  # of validation examples
        confusion = None
        if self._evaluation is not None and self._evaluation.confusion is not None:
            confusion = Tensor(self._evaluation.confusion)
        self.doctor.evaluation(metrics, confusion=confusion)

    def before_save(self, trainer: Trainer) -> None:
        self.write()

    def at_end(self, trainer: Trainer) -> None:
        self.write()
        self.close()

    def write(self) -> None:
        """Put all that was seen so far on the disk, root causes first."""
        if self._path is None:
            return
        findings = [each.to_dict() for each in self.doctor.ranked()]
        known = {each["name"] for each in self._before["findings"]}
        looks = [
            {
                "step": look.step,
                "gradients": look.gradients,
                "moved": look.moved,
                "drifted": look.drifted,
            }
            for look in self.doctor.history.looks
        ]
        values = {
            "findings": [
                *self._before["findings"],
                *(each for each in findings if each["name"] not in known),
            ],
            "facts": self._facts,
            "looks": [*self._before["looks"], *looks],
        }
        try:
            write_json(self._path, values)
        except RunError as error:  # it is about the run, and no part of it
            self._say(f"warning: {error}")

    def close(self) -> None:
        self.doctor.close()
        if self._handle is not None:
            self._handle.remove()

    def _keep(self, module: nn.Module, args: Any, output: Any) -> None:
        if module.training:
            self._logits = (output if isinstance(output, Tensor) else output.logits).detach()


def read_until(folder: Path, step: int) -> dict[str, Any]:
    """What the doctor saw of a run up to an update: "findings", "facts" and "looks".

    Nothing where its file is not there or torn: it is about the run, and no part of it.
    """
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {
            "findings": [each for each in found["findings"] if (each["step"] or 0) <= step],
            "facts": dict(found["facts"]),
            "looks": [each for each in found["looks"] if each["step"] <= step],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {"findings": [], "facts": {}, "looks": []}


def _giving_logits(task: Task, model: nn.Module) -> nn.Module | None:
    """The module that gives the logits of a batch; None of tasks whose answers are no classes."""
    if isinstance(task, TextTask):
        return model
    if isinstance(task, MaskedLMTask):
        return model.get_submodule("predictions")
    return None


def _labels(task: Task, batch: Batch) -> Tensor | None:
    """What the logits should have been, as the loss has them."""
    if isinstance(task, MaskedLMTask):
        return batch.targets[batch.targets != IGNORED]
    if isinstance(task, TextTask) and task.name == "regression":
        return (batch.targets - task.mean) / task.scale
    return batch.targets
