"""The curves of a training run as a picture: loss, validation, learning rate, gradient norm."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minibert.files import replacing
from minibert.training.look import (
    BLUE,
    INK,
    LOOK,
    ORANGE,
    STYLES,
    short,
    spelt,
    use_logarithms,
)
from minibert.training.metrics import LOWER_IS_BETTER, is_better

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Array = npt.NDArray[np.float64]

# Beside the figure that decides, those that say most; a picture of all fourteen says nothing.
_TELLING = (
    "macro_f1", "f1", "span_f1", "overlap_f1", "mrr", "spearman", "pearson", "accuracy",
    "subset_accuracy", "exact_match", "mcc", "roc_auc", "pr_auc",
)  # fmt: skip
_MOST_POINTS = 2000  # of a curve: more than the picture is wide


@dataclass
class Curve:
    """What is known of one figure: at which updates it had which values."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, step: int, value: float | None) -> None:
        """Note a value; None, which stands for what is no number, leaves a gap."""
        if value is not None:
            self.steps.append(step)
            self.values.append(value)


@dataclass
class RunLog:
    """The figures of a `log.jsonl`; `read` takes what has been written since it was last called."""

    path: Path
    updates: dict[str, Curve] = field(
        default_factory=lambda: {name: Curve() for name in ("loss", "learning_rate", "grad_norm")}
    )
    evaluations: dict[str, Curve] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)  # the first update of each
    step: int = 0
    seconds: float = 0.0  # of all updates
    n_not_finite: int = 0  # updates whose loss is no number
    _offset: int = 0

    def read(self) -> None:
        """Take in the lines that are new; of a line that is being written nothing yet.

        Raises: ValueError or KeyError for a line that is none of a log.
        """
        with self.path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            self._add(_checked(json.loads(line)))

    def _add(self, values: Mapping[str, Any]) -> None:
        self.step = values["step"]
        if "evaluation" in values:
            for name, value in values["evaluation"].items():
                self.evaluations.setdefault(name, Curve()).add(self.step, value)
            return
        while len(self.epochs) <= values["epoch"]:
            self.epochs.append(self.step)
        self.seconds += values.get("seconds", 0.0)
        self.n_not_finite += values["loss"] is None
        self.updates["learning_rate"].add(self.step, values["learning_rate"])
        if values["count"]:  # else nothing of the batch had a label
            self.updates["loss"].add(self.step, values["loss"])
            self.updates["grad_norm"].add(self.step, values["grad_norm"])


def _checked(values: Any) -> dict[str, Any]:
    """A line of a log: figures by name, or those of an evaluation.

    Raises: ValueError for anything else.
    """
    figures = values.get("evaluation", values) if isinstance(values, dict) else None
    if not isinstance(figures, dict):
        raise ValueError(f"got {values!r}, expected figures by name")
    for name, value in figures.items():
        if value is not None and not isinstance(value, int | float):
            raise ValueError(f"{name} is {value!r}, expected a number")
    if not isinstance(values["step"], int):
        raise ValueError(f"step is {values['step']!r}, expected a whole number")
    return values


def draw(
    log: RunLog, path: Path, *, metric: str, max_grad_norm: float | None = None, title: str = ""
) -> None:
    """Write the picture of `figure_of` to a .png file, whole or not at all."""
    import matplotlib

    with matplotlib.rc_context(LOOK):
        figure = figure_of(log, metric=metric, max_grad_norm=max_grad_norm, title=title)
        with replacing(path) as part:
            figure.savefig(part, format="png")


def best_of(curve: Curve, metric: str) -> tuple[int, float] | None:
    """The update with the best value, the first of equals, and the value; None without any."""
    best = None
    for step, value in zip(curve.steps, curve.values, strict=True):
        if is_better(metric, value, math.nan if best is None else best[1]):
            best = step, value
    return best


def shown_figures(metric: str, names: Sequence[str]) -> list[str]:
    """The figures for one pair of axes: the one that decides, then at most three like it."""
    found = [name for name in _TELLING if name in names and name != metric]
    if metric == "loss" or metric not in names:  # the loss stands beside that of training
        return found[:4]
    return [metric] if metric in LOWER_IS_BETTER else [metric, *found[:3]]


def smoothed(values: Sequence[float], window: int) -> _Array:
    """The mean over `window` values around each, fewer at either end."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low = np.maximum(places - window // 2, 0)
    high = np.minimum(places + window // 2 + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def thinned(steps: Sequence[int], values: Sequence[float] | _Array) -> tuple[_Array, _Array]:
    """A curve of few points that covers the same ink: the extremes of each stretch."""
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    size = -(-len(x) // _MOST_POINTS) * 2  # two points of each stretch are kept
    if size <= 2:
        return x, y
    whole = len(x) // size * size
    stretches = y[:whole].reshape(-1, size)
    places = np.stack([stretches.argmin(axis=1), stretches.argmax(axis=1)])
    places = (np.sort(places, axis=0) + np.arange(len(stretches)) * size).T.ravel()
    places = np.concatenate([places, np.arange(whole, len(x))])
    return x[places], y[places]


# ---- the panels


def figure_of(
    log: RunLog, *, metric: str, max_grad_norm: float | None = None, title: str = ""
) -> "Figure":
    """What a log holds as four panels: loss, validation if there was any, rate, gradient norm.

    Args:
        metric: the figure that the best checkpoint is chosen by; its best value is marked.
        max_grad_norm: where gradients are cut off.
        title: stands above them, before what is best.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.6), dpi=110)
    names = shown_figures(metric, [name for name, each in log.evaluations.items() if each.steps])
    grid = figure.add_gridspec(
        2, 2, height_ratios=[3, 2], left=0.055, right=0.975, bottom=0.075, top=0.89, hspace=0.27,
        wspace=0.13,
    )  # fmt: skip
    loss = figure.add_subplot(grid[0, 0] if names else grid[0, :])
    rate, norm = figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])
    curves = [loss, rate, norm]
    _draw_loss(loss, log)
    _draw_rate(rate, log.updates["learning_rate"])
    _draw_norm(norm, log.updates["grad_norm"], max_grad_norm)
    best = best_of(log.evaluations.get(metric, Curve()), metric)
    if best is not None:
        title += f"  ·  best {spelt(metric)} {best[1]:.4g} at update {best[0]:,}"
        if metric == "loss":
            _mark(loss, best)
    loss.legend(loc="best")
    norm.legend(loc="best", ncols=2)
    if names:
        validation = figure.add_subplot(grid[0, 1])
        validation.set_title("Validation")
        shown = {name: log.evaluations[name] for name in names}
        if all(len(curve.steps) == 1 for curve in shown.values()):
            _draw_bars(validation, shown)
        else:
            _draw_figures(validation, shown, best if metric != "loss" else None)
            curves.append(validation)
    figure.suptitle(title, x=0.055, y=0.975, ha="left", fontsize=13)
    _draw_updates(curves, log)
    for axes in (rate, norm):
        axes.set_xlabel("update" if len(log.epochs) < 2 else "update  (dotted: a new epoch)")
    return figure


def _draw_updates(curves: "Sequence[Axes]", log: RunLog) -> None:
    """The same horizontal axis for all, with the epochs on it."""
    from matplotlib.ticker import MaxNLocator

    for axes in curves:
        axes.set_xlim(0, max(1, log.step) * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        for start in log.epochs[1:31]:
            axes.axvline(start - 0.5, color="#888888", linewidth=0.9, linestyle=(0, (1, 3)))


def _draw_loss(axes: "Axes", log: RunLog) -> None:
    axes.set_title("Loss")
    mean = _draw_noisy(axes, log.updates["loss"], "training")
    validation = log.evaluations.get("loss", Curve())
    if validation.steps:
        _draw_few(axes, validation, STYLES[0], "validation", width=1.8)
    values = [*mean.tolist(), *validation.values]
    if spans_much(values):
        use_logarithms(axes)
    else:
        axes.set_ylim(bottom=min(0.0, min(values, default=0.0)))


def _draw_figures(axes: "Axes", shown: Mapping[str, Curve], best: tuple[int, float] | None) -> None:
    for i, (name, curve) in enumerate(shown.items()):
        _draw_few(axes, curve, STYLES[i], spelt(name), width=1.2 if i else 2.2)
    if len(shown) == 1 and spans_much(*(curve.values for curve in shown.values())):
        use_logarithms(axes)  # of a perplexity
    if best is not None:
        _mark(axes, best)
    axes.legend(loc="best", ncols=2)


def _draw_bars(axes: "Axes", shown: Mapping[str, Curve]) -> None:
    """One evaluation alone makes no curve."""
    places = range(len(shown), 0, -1)
    values = [curve.values[0] for curve in shown.values()]
    axes.barh(places, values, height=0.35, color=[color for color, _ in STYLES])
    axes.set_yticks([])
    axes.set_ylim(0.4, len(shown) + 0.8)
    axes.margins(x=0.1)
    for place, value, name in zip(places, values, shown, strict=True):
        axes.text(0, place + 0.24, f" {spelt(name)}  {value:.4g}")


def _draw_rate(axes: "Axes", curve: Curve) -> None:
    axes.set_title("Learning rate")
    _draw_line(axes, curve.steps, curve.values, "learning rate")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda rate, _: short(rate))


def _draw_norm(axes: "Axes", curve: Curve, max_grad_norm: float | None) -> None:
    axes.set_title("Gradient norm")
    _draw_noisy(axes, curve, "before clipping")
    if max_grad_norm is not None:
        axes.axhline(max_grad_norm, color=ORANGE, linestyle="--", linewidth=1.2, label="clipped to")
    if curve.values and min(curve.values) > 0:
        use_logarithms(axes)


def _draw_noisy(axes: "Axes", curve: Curve, label: str) -> _Array:
    """Single batches, light, and their running mean over them, which is returned."""
    window = len(curve.values) // 50 * 2 + 1
    mean = smoothed(curve.values, window)
    if window > 1:
        axes.plot(*thinned(curve.steps, curve.values), color=BLUE, alpha=0.25, linewidth=0.7)
        label += f", mean of {window:,} updates"
    _draw_line(axes, curve.steps, mean, label)
    return mean


def _draw_line(
    axes: "Axes", steps: Sequence[int], values: Sequence[float] | _Array, label: str
) -> None:
    alone = "o" if len(steps) == 1 else None  # of one point there is no line to see
    axes.plot(*thinned(steps, values), color=BLUE, linewidth=1.8, marker=alone, label=label)


def _draw_few(
    axes: "Axes", curve: Curve, style: tuple[str, str], label: str, *, width: float
) -> None:
    """Evaluations, each of the few with a marker."""
    color, marker = style
    x, y = thinned(curve.steps, curve.values)
    every = max(1, len(x) // 20)
    axes.plot(x, y, color=color, marker=marker, markevery=every, linewidth=width, label=label)


def _mark(axes: "Axes", best: tuple[int, float]) -> None:
    axes.plot(
        *best, marker="*", markersize=15, color="#F0E442", markeredgecolor=INK, linestyle="none",
        label="best", zorder=5,
    )  # fmt: skip


def spans_much(values: Sequence[float]) -> bool:
    """Does a scale without logarithms hide most of them?"""
    return len(values) > 0 and min(values) > 0 and max(values) > 30 * min(values)
