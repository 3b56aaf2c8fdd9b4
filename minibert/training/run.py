"""A training run from its file to a saved model: what `minibert train` does."""

import hashlib
import json
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn

from minibert.checkpoint import Pretrained, hash_tensors
from minibert.config import BertConfig
from minibert.errors import RunError
from minibert.files import exclusive, replacing
from minibert.recipe import read_recipe
from minibert.tokenizer import Tokenizer
from minibert.training.dataset import read_dataset, training_texts
from minibert.training.evaluation import Evaluation
from minibert.training.fresh import fresh_checkpoint
from minibert.training.loop import Observer, Trainer
from minibert.training.metrics import Report
from minibert.training.processes import together
from minibert.training.reporters import Log, Progress
from minibert.training.run_config import RunConfig
from minibert.training.saved_run import write_run
from minibert.training.tasks import prediction_settings, task_of
from minibert.weights import resolve


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run came to; the model is the best one, in evaluation mode, as it was saved."""

    folder: Path
    model: Pretrained
    finished: bool  # False where it was stopped: go on with resume
    validation: Report | None
    test: Report | None
    n_skipped: int


def train(
    run: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    observers: Sequence[Observer] = (),
    show_progress_bar: bool | None = None,
) -> Outcome:
    """Train as a run says; its folder then holds the model, the log and the figures.

    SIGINT and SIGTERM end it after the update that is being made, with a checkpoint.  The processes
    that torchrun starts train together; the first of them writes and reports.

    Args:
        resume: go on from the newest checkpoint of the folder, bit for bit.
        overwrite: start anew where the folder holds a run already.
        observers: told of what happens, beside the log and the bar.
        show_progress_bar: None shows one on a terminal.

    Raises: the errors of reading the data and loading the model; RunError for a folder that holds
        a run; CheckpointError for one that holds none to go on from, or another one.
    """
    folder = run.path(run.output)
    with (
        together() as processes,
        processes.first_within(run_folder(folder, resume=resume, overwrite=overwrite)),
    ):
        progress = Progress(shown=show_progress_bar)
        with processes.first_before_others():
            source = starting_folder(run, folder)
        tokenizer = Tokenizer.from_pretrained(source)
        saved = BertConfig.from_file(source / "config.json")
        recipe = read_recipe(source, saved, tokenizer.model_max_length)
        data = read_dataset(run, tokenizer)
        if processes.is_first and not resume:
            for line in data.notes:
                progress.say(line)
        task = task_of(run, data.labels, data.train, tokenizer, recipe)
        model = task.network(run, source)
        evaluations = {
            name: None if examples is None else Evaluation(task, data.labels, examples)
            for name, examples in (("validation", data.validation), ("test", data.test))
        }
        evaluation = evaluations["validation"]
        trainer = Trainer(
            model,
            task.objective,
            data.train,
            run,
            prepare=task.prepare,
            evaluate=evaluation,
            metric=_metric(run, evaluation),
            folder=folder,
            identity={"data": data.identity, "model": _hash(model)},
        )
        torn = trainer.resume() if resume else []
        processes.agree({**trainer.identity, "update": str(trainer.step)})
        if processes.is_first:
            for line in torn:
                progress.say(line)
            write_run(run, folder)
            if data.split:
                _write_json(folder / "split.json", data.split)
            log = Log(folder / "log.jsonl", from_step=trainer.step)
            trainer.observers = (log, progress, *observers)
        with stopping_on_signals(trainer):
            trainer.run()
        if trainer.step < trainer.total and not trainer.stopped_early:
            return Outcome(folder, model, False, None, None, trainer.n_skipped)
        trainer.restore_best()
        model.eval()
        reports = {
            name: None if each is None else each.report(model) for name, each in evaluations.items()
        }
        task.finish(model)
        if processes.is_first:
            task.save(model, tokenizer, folder / "model")
            prediction_settings(run, data.labels, recipe).save(folder / "model")
            figures = {name: each.figures for name, each in reports.items() if each is not None}
            _write_json(folder / "results.json", {"best_step": trainer.best.step, **figures})
        return Outcome(
            folder, model, True, reports["validation"], reports["test"], trainer.n_skipped
        )


def starting_folder(run: RunConfig, folder: Path) -> Path:
    """The checkpoint that a run starts from: a folder beside its file, a name's, or a new one.

    Raises: WeightsError for a name that leads nowhere; RunError for a network that cannot be made.
    """
    if run.model != "new":
        path = run.path(run.model)
        return path if path.is_dir() else resolve(run.model)
    return fresh_checkpoint(run, training_texts(run), folder / "start")


@contextmanager
def run_folder(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """The folder of a run, for one process at a time.

    Raises: RunError where it holds a run already, or another process is at work in it.
    """
    if resume and overwrite:
        raise RunError("got resume and overwrite, expected one of them")
    if (folder / "run.json").exists() and not (resume or overwrite):
        raise RunError(
            f"{folder}: holds a run already; go on with it by --resume, start anew by --overwrite, "
            "or give another output"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror}") from None
    with exclusive(folder / ".lock") as held:
        if not held:
            raise RunError(f"{folder}: another process is training there; wait for it, or stop it")
        if overwrite:
            for name in ("checkpoints", "best", "model", "start"):
                shutil.rmtree(folder / name, ignore_errors=True)
        yield


@contextmanager
def stopping_on_signals(trainer: Trainer) -> Iterator[None]:
    """Within the block SIGINT and SIGTERM end training after the current update, with a checkpoint.

    A second one ends it at once, but for torchrun, which may say it again and kills who takes too
    long.  In another thread than the main one nothing changes.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        trainer.stopping = True
        if trainer.processes.size == 1:
            signal.signal(number, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _metric(run: RunConfig, evaluation: Evaluation | None) -> str:
    """The figure that the best checkpoint is chosen by."""
    if evaluation is None:
        return "loss"
    names = (*evaluation.metrics.names, "loss")
    name = run.training.metric or evaluation.metrics.main
    if name not in names:
        raise RunError(f"training.metric is {name!r}, expected one of {', '.join(names)}")
    return name


def _hash(model: nn.Module) -> str:
    """A hash of all weights."""
    digest = hashlib.sha256()
    hash_tensors(digest, model.state_dict())
    return digest.hexdigest()


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(values, ensure_ascii=False, indent=1), encoding="utf-8")
