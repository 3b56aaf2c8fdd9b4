"""A run that has ended: its model measured on data, its thresholds and temperature fitted."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from minibert.checkpoint import Pretrained
from minibert.config import BertConfig
from minibert.errors import RunError
from minibert.prediction.loading import checked_device
from minibert.prediction.settings import CLASSIFIED, FILE, PredictionSettings
from minibert.recipe import read_recipe
from minibert.tokenizer import Tokenizer
from minibert.training.calibration import Calibration, fit_temperature, fit_thresholds
from minibert.training.dataset import read_examples, read_side
from minibert.training.evaluation import Evaluation
from minibert.training.examples import Examples
from minibert.training.metrics import Report
from minibert.training.run_config import IN_PYTHON, RunConfig
from minibert.training.span_task import SpanTask
from minibert.training.tasks import Task, task_of
from minibert.training.text_task import TextTask

_WITH_THRESHOLDS = ("binary", "multilabel")


@dataclass(frozen=True)
class Fitted:
    """What was fitted on the validation examples of a run."""

    thresholds: dict[str, float]  # by label; without any of multiclass
    calibration: Calibration


class SavedRun:
    """The folder of a run that has ended, opened to be measured.

    Args:
        folder: what `minibert train` wrote.
        device: where it is computed: "cpu", "cuda", "cuda:1", or "auto".

    Raises: RunError where the folder holds no run, or one without a model; the errors of opening
        the model.
    """

    def __init__(self, folder: str | Path, *, device: str = "cpu") -> None:
        self.folder = Path(folder)
        self.run = read_run(self.folder)
        self.model_folder = self.folder / "model"
        if not (self.model_folder / "config.json").is_file():
            raise RunError(
                f"{self.folder}: has no model, which a run gets at its end; go on with minibert "
                "train --resume"
            )
        self.device = checked_device(device)
        self.settings = PredictionSettings.from_file(self.model_folder / FILE)
        self.tokenizer = Tokenizer.from_pretrained(self.model_folder)
        self.config = BertConfig.from_file(self.model_folder / "config.json")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels; of tasks without labels none."""
        if self.run.task not in (*CLASSIFIED, "tokens"):
            return ()
        return self.settings.labels or tuple(self.config.labels)

    def examples(self, source: Any) -> Examples:
        """Rows of other files, or made in Python, read as those of the run.

        Raises: the errors of reading data; bad rows are refused.
        """
        if isinstance(source, str | Path):  # from here, and not from the run's file
            source = Path.cwd() / source
        return read_examples(self.run, source, self.labels, self.tokenizer)

    def own_examples(self, side: str) -> Examples:
        """The "validation" or "test" examples of the run, read anew.

        Raises: RunError where the run has none, where its rows were made in Python, and where a
            share of train is not the rows any more that it was when the run was trained.
        """
        data = self.run.data
        source = {"validation": data.validation, "test": data.test}[side]
        if source is None:
            raise RunError(
                f"{self.folder}: the run has no data.{side}, expected some; give DATA, a file of "
                f"rows, or train with data.{side}"
            )
        is_share = isinstance(source, float)
        if (data.train if is_share else source) == IN_PYTHON:
            raise RunError(
                f"{self.folder}: its {side} rows were given in Python, expected files; give DATA, "
                "a file of rows"
            )
        found = read_side(self.run, side, self.labels, self.tokenizer)
        if is_share:
            self._check_split(found.split)
        return found.examples

    def _check_split(self, split: Mapping[str, list[str]]) -> None:
        """Refuse to measure on rows that the model was trained on."""
        known = _read_json(self.folder / "split.json")
        for side, names in split.items():
            before = known.get(side)
            places = [_short(name) for name in names]
            if not isinstance(before, list) or [_short(name) for name in before] != places:
                raise RunError(
                    f"{self.folder}: the rows of data.train are not those that it was trained on, "
                    "so that a share of them is no longer what it was; give DATA, a file of rows "
                    "that are new to it"
                )

    def evaluate(self, examples: Examples) -> Report:
        """All figures on examples, with the thresholds that are saved with the model."""
        task, model = self._opened(examples)
        if not isinstance(task, TextTask) or task.name == "tokens":
            return Evaluation(task, self.labels, examples).report(model)
        thresholds = self.settings.thresholds or 0.5
        evaluation = Evaluation(task, self.labels, examples, thresholds=thresholds)
        with torch.no_grad():
            logits, targets = task.scores(evaluation.results(model), examples)
        evaluation.metrics.update(logits.double() / self.settings.temperature, targets)
        return evaluation.metrics.report()

    def fit(self, examples: Examples) -> Fitted:
        """Fit temperature and thresholds on examples that were not trained on, and save them.

        Raises: RunError for a task that gives no probabilities.
        """
        if self.run.task not in CLASSIFIED:
            raise RunError(
                f"{self.folder}: its task is {self.run.task!r}, expected one of "
                f"{', '.join(CLASSIFIED)} to fit thresholds"
            )
        task, model = self._opened(examples)
        assert isinstance(task, TextTask)
        task = replace(task, thresholds=(), temperature=1.0)  # as if nothing was fitted yet
        with torch.no_grad():
            found = task.gathered(Evaluation(task, self.labels, examples).results(model), examples)
        targets = task.targets(examples)
        calibration = fit_temperature(task.merged(found, examples), targets)
        thresholds: tuple[float, ...] = ()
        if self.run.task in _WITH_THRESHOLDS:
            odds = task.odds(found, examples) / calibration.temperature
            thresholds = tuple(fit_thresholds(odds, targets))
        self.settings = replace(
            self.settings, thresholds=thresholds, temperature=calibration.temperature
        )
        self.settings.save(self.model_folder)
        names = self.labels if self.run.task == "multilabel" else self.labels[1:]
        return Fitted(dict(zip(names, thresholds, strict=False)), calibration)

    def _opened(self, examples: Examples) -> tuple[Task, Pretrained]:
        recipe = read_recipe(self.model_folder, self.config, self.tokenizer.model_max_length)
        task: Task
        if self.run.task == "spans":  # as the examples of train had it
            task = SpanTask(self.settings.max_answer_tokens, self.settings.no_answer)
        else:
            task = task_of(self.run, self.labels, examples, self.tokenizer, recipe)
        if isinstance(task, TextTask):
            task = replace(
                task, mean=0.0, scale=1.0,  # which the saved classifier has in it
                thresholds=self.settings.thresholds, temperature=self.settings.temperature,
            )  # fmt: skip
        return task, task.network(self.run, self.model_folder).to(self.device).eval()


def run_values(run: RunConfig, folder: Path) -> dict[str, Any]:
    """What `run.json` in the folder of a run holds: its keys, and where its paths start from."""
    return {"folder": os.path.relpath(run.folder, folder), "run": run.to_dict()}


def read_run(folder: Path) -> RunConfig:
    """The run whose folder it is.

    Raises: RunError where there is none.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise RunError(f"{folder}: holds no run, expected the output folder of minibert train")
    values = _read_json(path)
    if not isinstance(values.get("run"), Mapping):
        raise RunError(f"{path}: holds no run, expected what minibert train writes")
    try:
        return RunConfig.from_dict(values["run"], folder=folder / str(values.get("folder", ".")))
    except RunError as error:
        raise RunError(f"{path}: {error}") from None


def _read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object.

    Raises: RunError for anything else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise RunError(f"{path}: is a {type(values).__name__}, expected what minibert train writes")
    return values


def _short(name: str) -> str:
    """The place of a row without the folder of its file, which hangs on where one looks from."""
    return str(name).rsplit("/", 1)[-1]
