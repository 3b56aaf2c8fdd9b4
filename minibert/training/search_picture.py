"""The trials of a search as a picture: the figure that decides, by trial and by each setting."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minibert.files import replacing
from minibert.training.look import BLUE, FAINT, LOOK, ORANGE, short, spelt
from minibert.training.metrics import is_better

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Settings, the figure that decides, and how the trial ended.
Drawn = tuple[Mapping[str, str | bool | int | float], float | None, str]

_COLUMNS = 3
_MARKS = {"complete": (BLUE, "o"), "pruned": (FAINT, "x"), "diverged": (ORANGE, "v")}


def draw_search(
    path: Path, *, metric: str, trials: Sequence[Drawn], logarithmic: Sequence[str] = ()
) -> None:
    """Write the picture of `figure_of_search` to a .png file, whole or not at all."""
    import matplotlib

    with matplotlib.rc_context(LOOK):
        figure = figure_of_search(metric=metric, trials=trials, logarithmic=logarithmic)
        with replacing(path) as part:
            figure.savefig(part, format="png")


def figure_of_search(
    *, metric: str, trials: Sequence[Drawn], logarithmic: Sequence[str] = ()
) -> "Figure":
    """A panel of the figure by trial, with the best up to each, and one by each setting.

    Args:
        logarithmic: the settings that are drawn on a logarithmic scale.
    """
    from matplotlib.figure import Figure

    names = list(trials[0][0]) if trials else []
    n_rows = -(-(1 + len(names)) // _COLUMNS)
    figure = Figure(figsize=(11, 0.6 + 2.9 * n_rows), dpi=110, layout="constrained")
    panels = figure.subplots(n_rows, _COLUMNS, squeeze=False).ravel()
    _draw_trials(panels[0], metric, trials)
    for axes, name in zip(panels[1:], names, strict=False):
        axes.set_title(name)
        _scatter(axes, [_place(values[name]) for values, _, _ in trials], trials)
        if name in logarithmic:
            _use_powers(axes)
    for axes in panels[1 + len(names) :]:
        axes.set_axis_off()
    for axes in panels[::_COLUMNS]:
        axes.set_ylabel(spelt(metric))
    return figure


def _draw_trials(axes: "Axes", metric: str, trials: Sequence[Drawn]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title("By trial")
    _scatter(axes, list(range(1, len(trials) + 1)), trials)
    places: list[int] = []
    best: list[float] = []
    for number, (_, value, state) in enumerate(trials, start=1):
        if state == "complete" and value is not None:
            better = not best or is_better(metric, value, best[-1])
            best.append(value if better else best[-1])
            places.append(number)
    axes.plot(places, best, color=BLUE, linewidth=1.2, drawstyle="steps-post", label="the best yet")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")


def _use_powers(axes: "Axes") -> None:
    """A logarithmic scale of rates, as many of them written as there is room for."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _scatter(axes: "Axes", places: Sequence[str | int | float], trials: Sequence[Drawn]) -> None:
    """A mark for each trial that has a figure, by how it ended."""
    for state, (color, marker) in _MARKS.items():
        points = [
            (place, value)
            for place, (_, value, how) in zip(places, trials, strict=True)
            if how == state and value is not None
        ]
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, color=color, marker=marker, s=28, label=state)


def _place(value: str | bool | int | float) -> str | int | float:
    """Where a value stands: what is no number is its own category."""
    return str(value).lower() if isinstance(value, str | bool) else value
