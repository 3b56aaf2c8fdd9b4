"""What a task is to the loop and to an evaluation, and the task that a run file names."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import nn

from minibert.checkpoint import Pretrained
from minibert.prediction.settings import PredictionSettings
from minibert.recipe import Recipe
from minibert.tokenizer import Tokenizer
from minibert.training.augment import Augmentation
from minibert.training.examples import Batch, Examples, Found
from minibert.training.losses import LossSum
from minibert.training.masked_lm_task import masked_lm_task
from minibert.training.metrics import Metrics
from minibert.training.run_config import RunConfig
from minibert.training.span_task import SpanTask, span_task
from minibert.training.text_task import text_task
from minibert.training.vector_task import vector_task


@runtime_checkable  # the tests look at types while they run
class Task(Protocol):
    """One task: its network, its batches, what is minimised, and what an evaluation looks at."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the head; without any for tasks that have none."""

    def network(self, run: RunConfig, folder: Path) -> Pretrained:
        """The encoder in a folder, and on it what the task needs, fresh where it is not there."""

    def prepare(self, examples: Examples, rows: Sequence[int], step: int | None = None) -> Batch:
        """Some examples as a batch.

        Args:
            step: the update of training that it is for, of which what is drawn at random is a
                function; None for an evaluation.
        """

    def objective(self, model: nn.Module, batch: Batch) -> LossSum:
        """The loss of a batch."""

    def judged(self, model: nn.Module, batch: Batch) -> tuple[LossSum, Found]:
        """The loss of a batch, and what `measure` takes, by name."""

    def measure(
        self, results: Iterable[tuple[Batch, Found]], examples: Examples, metrics: Metrics
    ) -> dict[str, float]:
        """Give metrics what a network found in all batches of the examples; figures beside them."""

    def finish(self, model: Pretrained) -> None:
        """What is left to be done with a trained network before it is saved."""

    def save(self, model: Pretrained, tokenizer: Tokenizer, folder: Path) -> None:
        """Write a folder that opens here and elsewhere."""


def task_of(
    run: RunConfig,
    labels: Sequence[str],
    examples: Examples,
    tokenizer: Tokenizer,
    recipe: Recipe,
) -> Task:
    """The task of a run.

    Args:
        labels: their names.
        examples: those of train, which weights, mean and scale come from.
        recipe: of the checkpoint, for tasks of vectors.

    Raises: RunError for settings that do not fit the task.
    """
    if run.task == "masked_lm":
        return masked_lm_task(run, tokenizer, examples)
    if run.task in ("similarity", "contrastive"):
        return vector_task(run, recipe, examples.targets)
    if run.task == "spans":
        return span_task(run, examples)
    change = run.augmentation
    augmentation = None
    if change.delete or change.swap or change.mask:
        augmentation = Augmentation.of(
            tokenizer, delete=change.delete, swap=change.swap, mask=change.mask
        )
    return text_task(run, labels, examples.targets, augmentation)


def prediction_settings(run: RunConfig, labels: Sequence[str], task: Task) -> PredictionSettings:
    """How the model that a run trains is to be asked."""
    data = run.data
    one_logit = run.task == "binary" and run.head.num_labels == 1
    running = run.task == "masked_lm"  # text, which is read in blocks without end
    settings = PredictionSettings(
        task=run.task,
        max_length=data.max_length,
        long_text="windows" if running else data.long_text,
        window_overlap=data.window_overlap,
        merge_windows=data.merge_windows,
        labels=tuple(labels) if one_logit else (),
        pairs=None if running else data.text_pair is not None,
    )
    if not isinstance(task, SpanTask):
        return settings
    return replace(settings, no_answer=task.may_lack, max_answer_tokens=task.max_tokens)
