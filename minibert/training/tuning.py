"""Settings searched by trials, each of which is a run: what `minibert tune` does.

    OUTPUT/trials/003/   the run of the third trial: log, figures, results; of the best its model
           tune.db       what optuna knows of all trials, in SQLite
           tune.json     what was searched, and what came of it
           tune.png      the same as a picture

A trial's settings are a function of the seed and of the trials before it that ended.  So a search
that was killed and is started again does the trial anew that was running, and leaves what one
leaves that was never stopped.
"""

import contextlib
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from minibert.columns import aligned
from minibert.errors import MinibertError, RunError, TrainingError
from minibert.files import discard, sweep
from minibert.training.consultation import set_up_aside
from minibert.training.json_file import write_json
from minibert.training.loop import Observer, Trainer
from minibert.training.metrics import LOWER_IS_BETTER, is_better
from minibert.training.processes import together
from minibert.training.run import Setup, alone_in, train
from minibert.training.run_config import RunConfig, flat
from minibert.training.search_picture import draw_search
from minibert.training.search_space import (
    Choices,
    Space,
    Value,
    default_space,
    extremes_of,
    grid_of,
    settings_of,
    spelled,
    toml_lines,
)

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

METHODS = ("grid", "random", "tpe")
DEFAULT_TRIALS = 20
_NEVER = 10**9  # updates between two checkpoints: a trial is done anew, not gone on with
# What only the loop reads: the data, the task and the network of the run itself will do.
_OF_LOOP = ("optimizer", "schedule", "training")
_OF_NETWORK = {"training.dropout"}
_MAY_CHANGE = {"output", "training.device", "training.tensorboard"}


@dataclass(frozen=True)
class TrialResult:
    """What a trial came to.

    Attributes:
        value: the best evaluation; None where there is none.
        state: "complete"; "pruned" where others had been better by then; "diverged".
    """

    number: int  # from 1
    values: dict[str, Value]
    value: float | None
    state: str
    n_evaluations: int


@dataclass(frozen=True)
class Search:
    """All trials that ended."""

    folder: Path
    metric: str
    space: Space
    trials: tuple[TrialResult, ...]

    @property
    def best(self) -> TrialResult | None:
        """The first of the best trials that came to their ends."""
        best = None
        for trial in self.trials:
            if trial.state == "complete" and trial.value is not None:
                before = math.nan if best is None or best.value is None else best.value
                best = trial if is_better(self.metric, trial.value, before) else best
        return best

    def table(self) -> str:
        """For a terminal: the trials, and the settings of the best as lines for the run file."""
        keys = [name.rpartition(".")[2] for name in self.space]
        rows = [("trial", *keys, self.metric, "state")]
        for trial in self.trials:
            values = [_shown(trial.values[name]) for name in self.space]
            value = "" if trial.value is None else f"{trial.value:.4f}"
            state = f"{trial.state}, the best" if trial is self.best else trial.state
            rows.append((str(trial.number), *values, value, state))
        lines = [*aligned(rows, left=[len(rows[0]) - 1]), ""]
        if self.best is None:
            return "\n".join([*lines, "no trial came to its end; take lower rates, or more trials"])
        return "\n".join(
            [
                *lines,
                f"# trial {self.best.number}, {self.metric} {self.best.value:.4f}; its model is in "
                f"{trial_folder(self.folder, self.best.number) / 'model'}",
                *toml_lines(self.best.values),
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "metric": self.metric,
            "best": None if self.best is None else vars(self.best),
            "trials": [vars(trial) for trial in self.trials],
        }


def tune(
    run: RunConfig,
    *,
    space: Space | None = None,
    method: str = "tpe",
    n_trials: int | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Search:
    """Train with settings of a space until there are `n_trials` trials, and tell of the best.

    Where the folder holds a part of the same search, it goes on with it.  Before the first trial
    one batch is computed at every end of the space.  A trial ends early where its evaluation is
    worse than the median of the trials before it had been by then.

    Args:
        space: what is searched; rates, decay, warmup and the size of a batch when not given.
        method: "grid" for all combinations, "random", or "tpe", which learns from earlier trials.
        n_trials: of all of the search; 20 when not given, of a grid all.
        overwrite: start anew where the folder holds a search.
        say: gets a line about each trial.

    Raises: RunError for a space that cannot be run, a run without validation rows, and a folder
        that holds another search; KeyboardInterrupt where a trial was stopped; the errors of
        training.
    """
    _need_optuna()
    if method not in METHODS:
        raise RunError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if n_trials is not None and n_trials < 1:
        raise RunError(f"n_trials is {n_trials}, expected at least 1")
    if run.data.validation is None:
        raise RunError(
            "data.validation is missing, expected files or a share of train: trials are compared "
            "by its figures"
        )
    space = default_space(run) if space is None else space
    points = grid_of(space) if method == "grid" else None
    total = DEFAULT_TRIALS if n_trials is None else n_trials
    if points is not None:
        total = len(points) if n_trials is None else min(n_trials, len(points))
    folder = run.path(run.output)
    with _alone(), search_folder(folder):
        metric = _begin(run, space, method, folder, overwrite=overwrite, say=say)
        with _study(folder, metric) as study:
            search = Search(folder, metric, space, _ended(study, space))
            _keep(search)  # who was killed may not have come to it
            while len(search.trials) < total:
                number = len(search.trials) + 1
                point = None if points is None else points[number - 1]
                trial = _asked(study, space, method, number, seed=run.training.seed, point=point)
                settings = settings_of(space, trial.params)
                say(f"trial {number} of {total}: {spelled(settings)}")
                place = {
                    "output": str(trial_folder(Path(run.output), number)),
                    "training.save_every": _NEVER,
                }
                _run_trial(run.with_values(settings | place), study, trial, say=say)
                search = replace(search, trials=_ended(study, space))
                _keep(search)
            _draw(search, say)
    return search


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial of a search is run."""
    return folder / "trials" / f"{number:03d}"


def check_ends(run: RunConfig, space: Space, setup: Setup) -> None:
    """Compute one batch, the longest examples in it, at every end of a space.

    Args:
        setup: of the run itself.

    Raises: RunError for the first end that cannot be run.
    """
    for values in extremes_of(space):
        try:
            changed = run.with_values(values)
            if all(_is_of_loop(name) for name in values):
                _one_update(setup, changed)
            else:
                with set_up_aside(changed) as own:
                    _one_update(own, changed)
        except (MinibertError, torch.OutOfMemoryError) as error:
            line = str(error).splitlines()[0]
            raise RunError(
                f"the space has {spelled(values)}, with which one batch cannot be computed: {line}"
            ) from None


@contextlib.contextmanager
def search_folder(folder: Path) -> Iterator[None]:
    """The folder of a search, for one process at a time.

    Raises: RunError where another process is at work in it, or it cannot be written to.
    """
    with alone_in(folder, "at work"):
        sweep(folder, "tune.json", "tune.png", "trials")
        yield


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    with together() as processes:
        if processes.size > 1:
            raise RunError(
                f"got {processes.size} processes by torchrun, expected one: trials come one after "
                "the other; start minibert tune without torchrun"
            )
        yield


# ---- before the first trial


def _begin(
    run: RunConfig,
    space: Space,
    method: str,
    folder: Path,
    *,
    overwrite: bool,
    say: Callable[[str], None],
) -> str:
    """See that the folder holds this search, or that it can begin; the figure that decides.

    What is searched is written down before anything else, so that whatever stands beside
    `tune.json` belongs to it.

    Raises: RunError where neither is so.
    """
    path = folder / "tune.json"
    known = None if overwrite or not path.exists() else _read(path)
    if known is None and not overwrite and (folder / "tune.db").exists():
        raise RunError(
            f"{path}: is gone, expected it beside tune.db; put it back, or start anew by "
            "--overwrite"
        )
    with set_up_aside(run, say=None if known else say) as setup:
        metric = setup.trainer.metric
        if metric == "loss" and any(name.startswith("loss.") for name in space):
            raise RunError(
                "the space has keys of [loss], and trials are compared by the loss, which they "
                "change; set training.metric, or take them out of the space"
            )
        about = {
            "method": method,
            **{f"space of {name}": dimension.to_dict() for name, dimension in space.items()},
            **{name: value for name, value in flat(run).items() if name not in _MAY_CHANGE},
            **{f"hash of {name}": value for name, value in setup.trainer.identity.items()},
        }
        if known is not None:
            _check_same(folder, known, about)
            return metric
        say("one batch is computed at every end of the space")
        check_ends(run, space, setup)
    if overwrite:
        _discard_search(folder)
    write_json(path, {"search": about, **Search(folder, metric, space, ()).to_dict()})
    return metric


def _is_of_loop(name: str) -> bool:
    return name.partition(".")[0] in _OF_LOOP and name not in _OF_NETWORK


def _one_update(setup: Setup, run: RunConfig) -> None:
    """An update on a copy of the network, of the longest examples."""
    lengths = setup.data.train.lengths
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)[-run.training.batch_size :]
    run = replace(
        run,
        training=replace(run.training, epochs=1.0),
        data=replace(run.data, sampling="none"),
    )
    with torch.random.fork_rng():
        setup.trial(run, rows).run()


def _read(path: Path) -> Mapping[str, Any]:
    """What `tune.json` says is searched.

    Raises: RunError where it does not say.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["search"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, dict):
        raise RunError(
            f"{path}: is not what minibert tune writes; put it back, or start anew by --overwrite"
        )
    return found


def _check_same(folder: Path, known: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    changes = [
        f"{name} is {about.get(name)!r}, was {known.get(name)!r}"
        for name in {**about, **known}
        if about.get(name) != known.get(name)
    ]
    if changes:
        raise RunError(
            f"{folder}: holds another search, expected the same: {'; '.join(changes)}; put it "
            "back, give another output, or start anew by --overwrite"
        )


def _discard_search(folder: Path) -> None:
    """Delete an earlier search, what its trials are counted by first."""
    try:
        for name in ("tune.db", "tune.db-journal", "tune.json", "tune.png"):
            (folder / name).unlink(missing_ok=True)
        if (folder / "trials").exists():
            discard(folder / "trials")
    except OSError as error:
        raise RunError(f"{error.filename}: cannot be deleted: {error.strerror}") from None


# ---- trials


class _Reports(Observer):
    """Tells optuna of each evaluation, and ends a trial that it thinks little of."""

    def __init__(self, trial: "Trial") -> None:
        self._trial = trial
        self._n_evaluations = 0
        self.best: float | None = None
        self.pruned = False

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        self._n_evaluations += 1
        self.best = trainer.best.value
        self._trial.report(metrics[trainer.metric], self._n_evaluations)
        goes_on = trainer.step < trainer.total and not trainer.stopped_early
        if goes_on and self._trial.should_prune():
            self.pruned = trainer.stopping = True


def _run_trial(
    run: RunConfig, study: "Study", trial: "Trial", *, say: Callable[[str], None]
) -> None:
    """Train as a trial says, and tell optuna what came of it.

    Raises: KeyboardInterrupt where it was stopped; it will be done anew.
    """
    from optuna.trial import TrialState

    reports = _Reports(trial)
    try:
        outcome = train(run, overwrite=True, observers=[reports])
    except TrainingError as error:
        say(str(error))
        trial.set_user_attr("diverged", True)
        study.tell(trial, state=TrialState.PRUNED)
        return
    if reports.pruned:
        study.tell(trial, state=TrialState.PRUNED)
    elif not outcome.finished:
        raise KeyboardInterrupt
    elif reports.best is None:  # no evaluation had a figure
        trial.set_user_attr("diverged", True)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, reports.best)


def _asked(
    study: "Study",
    space: Space,
    method: str,
    number: int,
    *,
    seed: int,
    point: Mapping[str, Value] | None,
) -> "Trial":
    """The next trial; those that were running when a process was killed have failed."""
    from optuna.trial import TrialState

    for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(left.number, state=TrialState.FAIL)
    study.sampler = _sampler(method, zlib.crc32(f"{seed} {number}".encode()))
    # One that waits is the same point: who put it there was killed before it was asked for.
    if point is not None and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(dict(point))
    return study.ask({name: _distribution(each, point) for name, each in space.items()})


def _sampler(method: str, seed: int) -> "BaseSampler":
    from optuna.samplers import RandomSampler, TPESampler

    return TPESampler(seed=seed) if method == "tpe" else RandomSampler(seed=seed)


def _distribution(dimension: Any, point: Mapping[str, Value] | None) -> "BaseDistribution":
    """A dimension as optuna has it; of a grid its values alone."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if point is not None or isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.grid())
    kind = IntDistribution if dimension.is_whole else FloatDistribution
    return kind(dimension.low, dimension.high, log=dimension.log)


def _ended(study: "Study", space: Space) -> tuple[TrialResult, ...]:
    """The trials that ended by themselves, numbered in their order."""
    from optuna.trial import TrialState

    states = (TrialState.COMPLETE, TrialState.PRUNED)
    found = []
    for number, trial in enumerate(study.get_trials(deepcopy=False, states=states), start=1):
        state = "complete" if trial.state == TrialState.COMPLETE else "pruned"
        found.append(
            TrialResult(
                number,
                settings_of(space, trial.params),
                trial.value,
                "diverged" if trial.user_attrs.get("diverged") else state,
                len(trial.intermediate_values),
            )
        )
    return tuple(found)


@contextlib.contextmanager
def _study(folder: Path, metric: str) -> Iterator["Study"]:
    """What optuna knows of a search, in a file that a killed process leaves whole."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / 'tune.db').resolve()}")
    try:
        yield optuna.create_study(
            study_name="tune",
            storage=storage,
            direction="minimize" if metric in LOWER_IS_BETTER else "maximize",
            pruner=optuna.pruners.MedianPruner(),
            load_if_exists=True,
        )
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _keep(search: Search) -> None:
    """Write down the trials that ended, and delete what nobody needs of them.

    That is checkpoints, and all models but the best.
    """
    path = search.folder / "tune.json"
    write_json(path, {"search": _read(path), **search.to_dict()})
    best = None if search.best is None else search.best.number
    for trial in search.trials:
        folder = trial_folder(search.folder, trial.number)
        gone = ["checkpoints", "best", "start"]
        if trial.number != best:
            gone.append("model")
        sweep(folder, *gone)
        for name in gone:
            if (folder / name).exists():
                discard(folder / name)


def _draw(search: Search, say: Callable[[str], None]) -> None:
    """Draw the picture; a search is worth more than that."""
    path = search.folder / "tune.png"
    try:
        draw_search(
            path,
            metric=search.metric,
            trials=[(trial.values, trial.value, trial.state) for trial in search.trials],
            logarithmic=[name for name, each in search.space.items() if getattr(each, "log", 0)],
        )
    except Exception as error:  # whatever it is, as of the curves of a run
        say(f"{path}: not drawn: {' '.join(str(error).split())}")


def _shown(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _need_optuna() -> None:
    if find_spec("optuna") is None:
        raise RunError(
            "optuna is not installed, expected it to search settings: pip install "
            "'minibert[train,tune]'"
        )
