"""A training run from its file to a saved model: what `minibert train` does."""

import copy
import hashlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn

from minibert.checkpoint import Pretrained, hash_tensors
from minibert.config import BertConfig
from minibert.errors import CheckpointError, RunError, TrainingError, in_one_line
from minibert.files import discard, exclusive, replacing, replacing_folder, sweep
from minibert.prediction.settings import COMPARED, PredictionSettings
from minibert.recipe import read_recipe
from minibert.tokenizer import Tokenizer
from minibert.training.checkup import FILE as DOCTOR
from minibert.training.checkup import Checkup
from minibert.training.dataset import Dataset, read_dataset, training_texts
from minibert.training.evaluation import Evaluation
from minibert.training.examples import Batch, Found
from minibert.training.figures import Curves, TensorBoard
from minibert.training.fresh import fresh_checkpoint
from minibert.training.json_file import json_text, write_json
from minibert.training.loop import Observer, Schedule, Trainer
from minibert.training.metrics import Report
from minibert.training.preflight import preflight
from minibert.training.processes import together
from minibert.training.report_page import FILE as REPORT
from minibert.training.report_page import write_report
from minibert.training.reporters import Log, Progress
from minibert.training.row_targets import text_columns
from minibert.training.run_config import RunConfig
from minibert.training.saved_run import run_values
from minibert.training.state import steps
from minibert.training.tasks import Task, prediction_settings, task_of
from minibert.training.worst import FILE as EXAMPLES
from minibert.training.worst import examples_values, has_answers, worst_answers
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
    allow_changes: bool = False,
    stop_on: str | None = None,
    observers: Sequence[Observer] = (),
    show_progress_bar: bool | None = None,
) -> Outcome:
    """Train as a run says; its folder then holds the model, the log and the figures.

    SIGINT and SIGTERM end it after the update that is being made, with a checkpoint; a second one,
    and one at any other time, at once, as KeyboardInterrupt.  The processes that torchrun starts
    train together; the first of them writes and reports.

    Args:
        resume: go on from the newest checkpoint of the folder, bit for bit.
        overwrite: start anew where the folder holds a run already, whose checkpoints go when the
            new run begins, and its model when the new one is there.
        allow_changes: of a resume, go on although the run file, the data or the model changed.
        stop_on: "error" or "warning": how grave a finding of the doctor has to be to end the run;
            None goes on whatever it finds.
        observers: told of what happens, beside the log, the bar and the doctor.
        show_progress_bar: None shows one on a terminal.

    Raises: the errors of reading the data and loading the model; RunError for a folder that holds
        a run; CheckpointError for one that holds none to go on from, or another one.
    """
    folder = run.path(run.output)
    if allow_changes and not resume:
        raise RunError("got allow_changes without resume: there is nothing yet that could change")
    with (
        together() as processes,
        processes.first_within(run_folder(folder, resume=resume, overwrite=overwrite)),
        interrupted_by_sigterm(),
        ExitStack() as last,
    ):
        progress = Progress(shown=show_progress_bar)
        with processes.first_before_others():
            source = starting_folder(run, folder, resume=resume, first=processes.is_first)
        tell = processes.is_first and not resume
        setup = set_up(run, source, folder, say=progress.say if tell else None)
        trainer = setup.trainer
        told = trainer.resume(allow_changes=allow_changes) if resume else []
        processes.agree({**trainer.identity, "update": str(trainer.step)})
        with ExitStack() as stack:
            if processes.is_first:
                begin(folder, source, overwrite=overwrite)
                last.enter_context(reported(folder, say=progress.say))
                for line in told:
                    progress.say(line)
                stack.enter_context(
                    observed(run, setup, folder, progress, stop_on=stop_on, observers=observers)
                )
            stack.enter_context(stopping_on_signals(trainer))
            trainer.run()
        if trainer.stopping or (trainer.step < trainer.total and not trainer.stopped_early):
            return Outcome(folder, setup.model, False, None, None, trainer.n_skipped)
        trainer.restore_best()
        reports = conclude(run, setup, folder if processes.is_first else None)
        return Outcome(folder, setup.model, True, *reports, trainer.n_skipped)


@dataclass(frozen=True, eq=False)
class Setup:
    """What a run is made of, before its first update."""

    tokenizer: Tokenizer
    data: Dataset
    task: Task
    model: Pretrained
    evaluations: dict[str, Evaluation | None]  # of "validation" and "test"
    trainer: Trainer

    def trial(
        self,
        run: RunConfig,
        rows: Sequence[int] | None = None,
        *,
        observers: Sequence[Observer] = (),
        schedule: Schedule | None = None,
    ) -> Trainer:
        """A loop with settings of its own, on a copy of the network; it keeps nothing.

        Args:
            rows: which examples it is over; None for all.
            schedule: in place of the one that the settings name.
        """
        return Trainer(
            copy.deepcopy(self.model),
            self.task.objective,
            self.data.train if rows is None else self.data.train.taken(rows),
            run,
            prepare=self.task.prepare,
            observers=observers,
            schedule=schedule,
        )


def set_up(
    run: RunConfig,
    source: Path,
    folder: Path | None,
    *,
    say: Callable[[str], None] | None = None,
) -> Setup:
    """Read the data of a run, and make its network and its loop; the data is checked first.

    Args:
        source: the checkpoint that it starts from.
        folder: where its checkpoints go; None keeps none.
        say: gets the lines about the data.

    Raises: the errors of reading the data and loading the model.
    """
    tokenizer = Tokenizer.from_pretrained(source)
    saved = BertConfig.from_file(source / "config.json")
    tokenizer.check_embeddings(saved.vocab_size, source)
    if run.data.max_length > saved.max_position_embeddings:
        raise RunError(
            f"data.max_length is {run.data.max_length}, expected at most "
            f"{saved.max_position_embeddings}, the positions of model {run.model!r}"
        )
    recipe = read_recipe(source, saved, tokenizer.model_max_length)
    if run.task in COMPARED and recipe.lowercase:
        tokenizer = tokenizer.lowercased()  # as the embedder that is saved has it
    data = read_dataset(run, tokenizer)
    if say is not None:
        for line in data.notes:
            say(line)
    task = task_of(run, data.labels, data.train, tokenizer, recipe)
    model = task.network(run, source)
    evaluations = {
        name: None if examples is None else Evaluation(task, data.labels, examples)
        for name, examples in (("validation", data.validation), ("test", data.test))
    }
    trainer = Trainer(
        model,
        task.objective,
        data.train,
        run,
        prepare=task.prepare,
        evaluate=evaluations["validation"],
        metric=_metric(run, evaluations["validation"]),
        folder=folder,
        identity={"data": data.identity, "model": _hash(model)},
    )
    return Setup(tokenizer, data, task, model, evaluations, trainer)


def starting_folder(run: RunConfig, folder: Path, *, resume: bool, first: bool) -> Path:
    """The checkpoint that a run starts from: a folder beside its file, a name's, or a new one.

    A new one stands beside that of an earlier run until `begin`; who goes on keeps the own one.

    Args:
        first: does this process make it? Others find it made.

    Raises: WeightsError for a name that leads nowhere; RunError for a network that cannot be made.
    """
    if run.model != "new":
        path = run.path(run.model)
        return path if path.is_dir() else resolve(run.model)
    if resume and (folder / "start").is_dir():
        return folder / "start"
    if first:
        fresh_checkpoint(run, training_texts(run), folder / "start.new")
    return folder / "start.new"


@contextmanager
def alone_in(folder: Path, doing: str) -> Iterator[None]:
    """A folder, made where it is not there, for one process at a time.

    Args:
        doing: what another process is at there, as "training".

    Raises: RunError where there is another one, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        raise RunError(f"{folder}: cannot be written to: {error.strerror}") from None
    with exclusive(folder / ".lock") as held:
        if not held:
            raise RunError(f"{folder}: another process is {doing} there; wait for it, or stop it")
        yield


@contextmanager
def run_folder(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """The folder of a run, for one process at a time.

    Raises: RunError where it holds a run already, or another process is at work in it.
    """
    if resume and overwrite:
        raise RunError("got resume and overwrite, expected one of them")
    with alone_in(folder, "training"):
        holds_run = (folder / "run.json").exists() or steps(folder / "checkpoints")
        if holds_run and not (resume or overwrite):
            raise RunError(
                f"{folder}: holds a run already; go on with it by --resume, start anew by "
                "--overwrite, or give another output"
            )
        sweep(
            folder,
            "*.json",
            "log.jsonl",
            "rejected.csv",
            "curves.png",
            REPORT,
            "start",
            "start.new",
            "model",
            "checkpoints",
            "best",
        )
        yield


def begin(folder: Path, source: Path, *, overwrite: bool) -> None:
    """Take leave of an earlier run: of its checkpoints, of what was told of it, of its start.

    Args:
        source: where the run starts from; a new network takes its place in the folder.

    Raises: RunError where that cannot be done: a later resume would take them for its own.
    """
    gone = [folder / "checkpoints", folder / "best"] if overwrite else []
    told = [folder / DOCTOR, folder / REPORT] if overwrite else []
    path = start = folder / "start"
    is_new = source == folder / "start.new"
    try:
        for path in told:
            path.unlink(missing_ok=True)
        for path in (*gone, start) if is_new else gone:
            if path.exists():
                discard(path)
        if is_new:
            source.rename(start)
    except OSError as error:
        raise RunError(f"{path}: cannot be deleted: {error.strerror}") from None


@contextmanager
def observed(
    run: RunConfig,
    setup: Setup,
    folder: Path,
    progress: Progress,
    *,
    stop_on: str | None,
    observers: Sequence[Observer],
) -> Iterator[None]:
    """Within the block the log, the bar, the curves and the doctor are told of what the loop does.

    What the run is made of is written down before; what the doctor finds in data and settings is
    said, but not again to who goes on.
    """
    trainer, say = setup.trainer, progress.say
    engine = "pytorch" if trainer.substitutes is None else "kernels"
    decided = {"metric": trainer.metric, "updates": trainer.total, "engine": engine}
    write_json(folder / "run.json", {**run_values(run, folder), **decided})
    if setup.data.split:
        write_json(folder / "split.json", setup.data.split)
    with closing(Log(folder / "log.jsonl", from_step=trainer.step)) as log:
        enabled = run.training.tensorboard
        board = TensorBoard(folder, enabled=enabled, from_step=trainer.step, say=say)
        looked = preflight(run, setup.data, setup.tokenizer)
        checkup = Checkup(
            trainer,
            setup.task,
            setup.evaluations["validation"],
            folder=folder,
            say=say,
            stop_on=stop_on,
            facts=looked.facts,
        )
        with closing(checkup), kept_on_error(checkup):
            if not trainer.step:
                checkup.doctor.add(looked.findings)
            curves = Curves(folder, say=say)
            trainer.observers = (log, progress, curves, board, checkup, *observers)
            yield


def conclude(
    run: RunConfig, setup: Setup, folder: Path | None
) -> tuple[Report | None, Report | None]:
    """Judge the network, put it into evaluation mode, and save it with its figures.

    Args:
        folder: of the run; None saves nothing.

    Returns: the reports of validation and of test, where there are such examples.

    Raises: RunError where it cannot be saved.
    """
    model, task, data = setup.model, setup.task, setup.data
    model.eval()
    # Of other tasks what a network gives may be too large to be kept.
    seen: list[tuple[Batch, Found]] | None = [] if has_answers(task) else None
    validation, test = setup.evaluations["validation"], setup.evaluations["test"]
    reports = {
        "validation": None if validation is None else validation.report(model, seen=seen),
        "test": None if test is None else test.report(model),
    }
    examples = _examples(run, task, data, reports["validation"], seen)
    task.finish(model)
    if folder is not None:
        figures = {name: each.figures for name, each in reports.items() if each is not None}
        asked = prediction_settings(run, data.labels, task)
        results = {"best_step": setup.trainer.best.step, **figures}
        save(folder, task, model, setup.tokenizer, asked, results, examples=examples)
    return reports["validation"], reports["test"]


def save(
    folder: Path,
    task: Task,
    model: Pretrained,
    tokenizer: Tokenizer,
    settings: PredictionSettings,
    results: Mapping[str, Any],
    *,
    examples: Mapping[str, Any] | None = None,
) -> None:
    """Put a model into the folder of its run, all of it at once, and then its results.

    Where results stand, they are those of the model beside them, and so are the examples.

    Args:
        examples: what `examples.json` gets; None leaves no such file.

    Raises: RunError where that cannot be done; an earlier model stays whole.
    """
    path = folder / "results.json"
    try:
        with replacing(path) as part, replacing_folder(folder / "model") as model_part:
            task.save(model, tokenizer, model_part)
            settings.save(model_part)
            part.write_text(json_text(results), encoding="utf-8")
            path.unlink(missing_ok=True)
            (folder / EXAMPLES).unlink(missing_ok=True)
            if examples is not None:
                write_json(folder / EXAMPLES, examples)
    except (OSError, CheckpointError) as error:
        raise RunError(
            f"{folder / 'model'}: what was trained is in the checkpoints, but cannot be saved: "
            f"{error}; make room, and go on with --resume"
        ) from None


@contextmanager
def reported(folder: Path, *, say: Callable[[str], None]) -> Iterator[None]:
    """Write the report of a run when the block ends, by an error too, but not when interrupted.

    Where that fails a line says so: a run is worth more than the page about it.
    """

    def write() -> None:
        try:
            write_report(folder)
        except Exception as error:
            say(
                f"warning: {folder}: the report was not written: {in_one_line(error)}; the run "
                "does not need it, and minibert report writes it anew"
            )

    try:
        yield
    except Exception:
        write()
        raise
    write()


@contextmanager
def kept_on_error(checkup: Checkup) -> Iterator[None]:
    """Within the block a run that cannot go on, or may not, leaves what the doctor found of it."""
    try:
        yield
    except TrainingError:
        checkup.write()
        raise


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Within the block SIGTERM is a KeyboardInterrupt too, so that nothing half done is left.

    In another thread than the main one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stopping_on_signals(trainer: Trainer) -> Iterator[None]:
    """Within the block SIGINT and SIGTERM end training after the current update, with a checkpoint.

    A second one, of either kind, ends it at once, but for torchrun, which may say it again and
    kills who takes too long.  In another thread than the main one nothing changes.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if trainer.stopping and trainer.processes.size == 1:
            raise KeyboardInterrupt
        trainer.stopping = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _examples(
    run: RunConfig,
    task: Task,
    data: Dataset,
    report: Report | None,
    seen: Sequence[tuple[Batch, Found]] | None,
) -> dict[str, Any] | None:
    """What `examples.json` gets of the validation rows, of which there is a report, if any."""
    if report is None or data.validation is None or (seen is None and report.confusion is None):
        return None
    worst = []
    if seen is not None:
        rows, columns = data.validation_rows, text_columns(run)
        worst = worst_answers(task, data.labels, data.validation, seen, rows, columns)
    return examples_values(report, worst)


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
