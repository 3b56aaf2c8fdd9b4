"""A run that has ended: its model measured on data, its thresholds and temperature fitted."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minibert.checkpoint import Pretrained
from minibert.config import BertConfig
from minibert.errors import RunError
from minibert.prediction.settings import PredictionSettings
from minibert.recipe import read_recipe
from minibert.tokenizer import Tokenizer
from minibert.training.calibration import Calibration, fit_temperature, fit_thresholds
from minibert.training.dataset import read_dataset, read_examples
from minibert.training.evaluation import Evaluation
from minibert.training.examples import Examples
from minibert.training.metrics import Report
from minibert.training.run_config import RunConfig
from minibert.training.run_keys import LossConfig
from minibert.training.span_task import SpanTask
from minibert.training.tasks import Task, task_of
from minibert.training.text_task import TextTask

_THRESHOLDS = ("binary", "multilabel")
_PROBABILITIES = ("binary", "multiclass", "multilabel")


@dataclass(frozen=True)
class Fitted:
    """What was fitted on the validation examples of a run."""

    thresholds: dict[str, float]  # by label; without any of multiclass
    calibration: Calibration


class SavedRun:
    """The folder of a run that has ended, opened to be measured.

    Raises: RunError where the folder holds no run, or one without a model.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.run = read_run(self.folder)
        self.model_folder = self.folder / "model"
        if not (self.model_folder / "config.json").is_file():
            raise RunError(
                f"{self.folder}: has no model, which a run gets at its end; go on with minibert "
                "train --resume"
            )
        self.settings = PredictionSettings.of(self.model_folder)
        self.tokenizer = Tokenizer.from_pretrained(self.model_folder)
        self.config = BertConfig.from_file(self.model_folder / "config.json")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels; of tasks without labels none."""
        if self.run.task not in (*_PROBABILITIES, "tokens"):
            return ()
        return self.settings.labels or tuple(self.config.labels)

    def examples(self, source: Any) -> Examples:
        """Rows of other files, read as those of the run.

        Raises: the errors of reading data; bad rows are refused.
        """
        if isinstance(source, str | Path):  # from here, and not from the run's file
            source = Path.cwd() / source
        return read_examples(self.run, source, self.labels, self.tokenizer)

    def own_examples(self, side: str) -> Examples:
        """The "validation" or "test" examples of the run.

        Raises: RunError where the run has none, or its rows were made in Python.
        """
        if "rows given in Python" in (self.run.data.train, self.run.data.validation):
            raise RunError(
                f"{self.folder}: its rows were given in Python, expected files; give DATA"
            )
        found = read_dataset(self.run, self.tokenizer)
        examples = found.validation if side == "validation" else found.test
        if examples is None:
            raise RunError(
                f"{self.folder}: the run has no data.{side}, expected some; give a file of rows, "
                f"or train with data.{side}"
            )
        return examples

    def evaluate(self, examples: Examples) -> Report:
        """All figures on examples, with the thresholds that are saved with the model."""
        task, model = self._opened(examples)
        scale = self.settings.temperature
        if not isinstance(task, TextTask) or task.name == "tokens":
            return Evaluation(task, self.labels, examples).report(model)
        thresholds = self.settings.thresholds or 0.5
        evaluation = Evaluation(task, self.labels, examples, thresholds=thresholds)
        logits, targets = self._scores(evaluation, task, model)
        evaluation.metrics.update(logits / scale, targets)
        return evaluation.metrics.report()

    def fit(self, examples: Examples) -> Fitted:
        """Fit temperature and thresholds on examples that were not trained on, and save them.

        Raises: RunError for a task that gives no probabilities.
        """
        if self.run.task not in _PROBABILITIES:
            raise RunError(
                f"{self.folder}: its task is {self.run.task!r}, expected one of "
                f"{', '.join(_PROBABILITIES)} to fit thresholds"
            )
        task, model = self._opened(examples)
        assert isinstance(task, TextTask)
        logits, targets = self._scores(Evaluation(task, self.labels, examples), task, model)
        calibration = fit_temperature(logits, targets)
        thresholds: tuple[float, ...] = ()
        if self.run.task in _THRESHOLDS:
            thresholds = tuple(fit_thresholds(logits / calibration.temperature, targets))
        self.settings = replace(
            self.settings, thresholds=thresholds, temperature=calibration.temperature
        )
        self.settings.save(self.model_folder)
        names = self.labels if self.run.task == "multilabel" else self.labels[1:]
        return Fitted(dict(zip(names, thresholds, strict=False)), calibration)

    def _opened(self, examples: Examples) -> tuple[Task, Pretrained]:
        recipe = read_recipe(self.model_folder, self.config, self.tokenizer.model_max_length)
        # Nothing is minimised here, so no loss has to fit these examples.
        run = replace(self.run, loss=LossConfig(temperature=self.run.loss.temperature))
        task: Task
        if run.task == "spans":  # as the examples of train had it
            task = SpanTask(self.settings.max_answer_tokens, self.settings.no_answer)
        else:
            task = task_of(run, self.labels, examples, self.tokenizer, recipe)
        if isinstance(task, TextTask):
            task = replace(task, mean=0.0, scale=1.0)  # which the saved classifier has in it
        return task, task.network(run, self.model_folder).eval()

    @torch.no_grad()
    def _scores(
        self, evaluation: Evaluation, task: TextTask, model: Pretrained
    ) -> tuple[Tensor, Tensor]:
        return task.scores(evaluation.results(model), evaluation.examples)


def run_values(run: RunConfig, folder: Path) -> dict[str, Any]:
    """What `run.json` in the folder of a run holds: its keys, and where its paths start from."""
    return {"folder": os.path.relpath(run.folder, folder), "run": run.to_dict()}


def read_run(folder: Path) -> RunConfig:
    """The run whose folder it is.

    Raises: RunError where there is none.
    """
    path = folder / "run.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise RunError(
            f"{folder}: holds no run, expected the output folder of minibert train"
        ) from None
    except ValueError as error:
        raise RunError(f"{path}: is no JSON: {error}") from None
    if not isinstance(values, Mapping) or not isinstance(values.get("run"), Mapping):
        raise RunError(f"{path}: holds no run, expected what minibert train writes")
    run = {name: _said(table) for name, table in values["run"].items()}
    return RunConfig.from_dict(run, folder=folder / str(values.get("folder", ".")))


def _said(value: Any) -> Any:
    """What a run file can say: it has no null, which stands for the default."""
    if not isinstance(value, Mapping):
        return value
    return {name: each for name, each in value.items() if each is not None}
