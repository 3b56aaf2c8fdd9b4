"""Learning-rate schedules: pure functions of the step that give the rate's multiplier in [0, 1].

    multiplier = linear(step, total, warmup)      rate = multiplier · learning_rate

`step` counts updates from 0, so that with a warmup the first update has rate 0; `total` is how many
there will be; the last has step total - 1.  All rise as step / warmup to exactly 1 at
step = warmup, and only then begin to fall.  At `total` and after, the multiplier stays where the
schedule ends: it never turns negative, nor rises again.  A function of the step has no state to
save, and cannot be one off after resuming.

Source: transformers `optimization.py`, whose values these are up to `total`.
Differs: google-research/bert decays from step 0, so that its rate drops at the end of the warmup.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from minibert.errors import CheckpointError, TrainingError

# What inverse_sqrt falls by where there is no warmup to tell it.
_TIMESCALE = 10_000


def constant(step: int, total: int, warmup: int = 0) -> float:
    """1 after the warmup.

    >>> [constant(step, total=4, warmup=2) for step in range(4)]
    [0.0, 0.5, 1.0, 1.0]
    """
    return _warmed_up(step, total, warmup)


def linear(step: int, total: int, warmup: int = 0) -> float:
    """1 - progress: down to 0 at `total`, as BERT was trained.

    >>> [linear(step, total=4, warmup=2) for step in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return polynomial(step, total, warmup)


def cosine(step: int, total: int, warmup: int = 0, *, restarts: int = 0) -> float:
    """(1 + cos(π · progress)) / 2: slowly at first and at the end.

    With restarts it falls to 0 and starts again from 1, `restarts` times, in equal parts.

    Raises: TrainingError for a negative number of restarts.
    Source: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983, without warmup.
    """
    if restarts < 0:
        raise TrainingError(f"restarts is {restarts}, expected 0 or more; 0 falls once")
    if step < warmup:
        return _warmed_up(step, total, warmup)
    progress = _progress(step, total, warmup)
    if progress < 1:
        progress = (progress * (restarts + 1)) % 1.0
    return (1 + math.cos(math.pi * progress)) / 2


def polynomial(
    step: int, total: int, warmup: int = 0, *, power: float = 1.0, end: float = 0.0
) -> float:
    """end + (1 - end) · (1 - progress)^power.

    Args:
        power: 1 is a straight line; above, it falls steeply first; below, steeply last.
        end: the multiplier at `total` and after.

    Raises: TrainingError for a power that is not above 0, or an end outside [0, 1].
    """
    if not (0 < power < math.inf and 0 <= end <= 1):
        raise TrainingError(
            f"power is {power} and end {end}, expected power above 0 and end from 0 to 1"
        )
    if step < warmup:
        return _warmed_up(step, total, warmup)
    return end + (1 - end) * (1 - _progress(step, total, warmup)) ** power


def inverse_sqrt(step: int, total: int, warmup: int = 0) -> float:
    """√(timescale / (timescale + step - warmup)): falls ever more slowly, and never ends.

    The timescale is the warmup, which gives √(warmup / step), or 10,000 steps without one.
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 5.3.
    """
    if step < warmup:
        return _warmed_up(step, total, warmup)
    _check(step, total, warmup)
    timescale = warmup or _TIMESCALE
    return math.sqrt(timescale / (timescale + step - warmup))


SCHEDULES: Mapping[str, Callable[[int, int, int], float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "polynomial": polynomial,
    "inverse_sqrt": inverse_sqrt,
}


def _warmed_up(step: int, total: int, warmup: int) -> float:
    """step / warmup, up to 1."""
    _check(step, total, warmup)
    return step / warmup if step < warmup else 1.0


def _progress(step: int, total: int, warmup: int) -> float:
    """The share of the way from the end of the warmup to `total`, up to 1."""
    _check(step, total, warmup)
    return (step - warmup) / (total - warmup) if step < total else 1.0


def _check(step: int, total: int, warmup: int) -> None:
    for name, value in (("step", step), ("total", total), ("warmup", warmup)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}, expected a whole number of updates")
    if step < 0:
        raise TrainingError(f"step is {step}, expected 0 or more; the first update is step 0")
    if not 0 <= warmup <= total or total < 1:
        raise TrainingError(
            f"warmup is {warmup} of {total} updates, expected at least one update and a warmup "
            "from 0 to all of them"
        )


@dataclass(kw_only=True)
class Plateau:
    """Lowers the rate when a metric has stopped getting better.

    After more than `patience` evaluations in a row that are not better than the best one by more
    than `threshold`, the multiplier is multiplied by `factor`, and the count starts again.  NaN is
    never better.  Take it times `constant(step, total, warmup)`.

    Args:
        mode: "max" where more is better (F1), "min" where less is (a loss).
        factor: above 0, below 1.
        threshold: in the metric's own units.
        minimum: below which the multiplier does not fall.

    >>> plateau = Plateau(mode="max", patience=1, factor=0.5)
    >>> [plateau.update(f1) for f1 in (0.70, 0.75, 0.74, 0.75, 0.75, 0.76)]
    [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]

    Raises: TrainingError for settings out of range.
    Source: torch.optim.lr_scheduler.ReduceLROnPlateau, with threshold_mode="abs".
    """

    mode: str
    factor: float = 0.5
    patience: int = 2
    threshold: float = 0.0
    minimum: float = 0.0
    multiplier: float = field(default=1.0, init=False)
    best: float | None = field(default=None, init=False)
    bad_evaluations: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.mode not in ("max", "min"):
            raise TrainingError(
                f'mode is {self.mode!r}, expected "max" where more is better, or "min"'
            )
        for name, right, expected in (
            ("factor", 0 < self.factor < 1, "above 0 and below 1"),
            ("patience", self.patience >= 0, "0 or more"),
            ("threshold", 0 <= self.threshold < math.inf, "0 or more"),
            ("minimum", 0 <= self.minimum <= 1, "from 0 to 1"),
        ):
            if not right:
                raise TrainingError(f"{name} is {getattr(self, name)}, expected {expected}")

    def update(self, metric: float) -> float:
        """The multiplier from now on, after an evaluation that gave `metric`."""
        if self._is_better(metric):
            self.best = metric
            self.bad_evaluations = 0
        else:
            self.bad_evaluations += 1
        if self.bad_evaluations > self.patience:
            self.multiplier = max(self.multiplier * self.factor, self.minimum)
            self.bad_evaluations = 0
        return self.multiplier

    def _is_better(self, metric: float) -> bool:
        if self.best is None:
            return not math.isnan(metric)
        if self.mode == "max":
            return metric > self.best + self.threshold
        return metric < self.best - self.threshold

    def state_dict(self) -> dict[str, float | int | None]:
        """What the next multiplier depends on, as JSON can hold it."""
        return {
            "multiplier": self.multiplier,
            "best": self.best,
            "bad_evaluations": self.bad_evaluations,
        }

    def load_state_dict(self, state: Mapping[str, float | int | None]) -> None:
        """Continue where `state_dict` was taken.

        Raises: CheckpointError for a state that is none of a plateau's; then nothing has changed.
        """
        multiplier, best = state.get("multiplier"), state.get("best")
        bad_evaluations = state.get("bad_evaluations")
        if (
            set(state) != {"multiplier", "best", "bad_evaluations"}
            or not isinstance(multiplier, int | float)
            or not 0 <= multiplier <= 1
            or not (best is None or isinstance(best, int | float))
            or not isinstance(bad_evaluations, int)
            or bad_evaluations < 0
        ):
            raise CheckpointError(
                f"the plateau's state is {dict(state)}, expected multiplier, best and "
                "bad_evaluations; resume from what state_dict gave"
            )
        self.multiplier, self.best, self.bad_evaluations = float(multiplier), best, bad_evaluations
