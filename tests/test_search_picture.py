"""The picture of a search: a panel by trial and one by each setting."""

from pathlib import Path

import pytest
from PIL import Image

from minibert.training.search_picture import Drawn, draw_search, figure_of_search

TRIALS: list[Drawn] = [
    ({"a.rate": 1e-5, "a.name": "sgd", "a.deep": True}, 0.5, "complete"),
    ({"a.rate": 1e-3, "a.name": "adamw", "a.deep": False}, None, "diverged"),
    ({"a.rate": 1e-4, "a.name": "adamw", "a.deep": True}, 0.4, "pruned"),
    ({"a.rate": 2e-4, "a.name": "sgd", "a.deep": True}, 0.8, "complete"),
    ({"a.rate": 3e-4, "a.name": "sgd", "a.deep": True}, 0.7, "complete"),
]


def test_panels_show_the_figure_by_trial_and_by_setting() -> None:
    figure = figure_of_search(metric="macro_f1", trials=TRIALS, logarithmic=["a.rate"])
    shown = [axes for axes in figure.axes if axes.axison]
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in shown]
    assert titles == ["By trial", "a.rate", "a.name", "a.deep"]
    assert [axes.get_xscale() for axes in shown] == ["linear", "log", "linear", "linear"]
    (line,) = shown[0].get_lines()
    assert line.get_xdata().tolist() == [1, 4, 5]
    assert line.get_ydata().tolist() == [0.5, 0.8, 0.8]
    _, labels = shown[0].get_legend_handles_labels()
    assert labels == ["complete", "pruned", "the best yet"]


def test_best_is_the_lowest_of_a_loss() -> None:
    figure = figure_of_search(metric="loss", trials=TRIALS)
    assert figure.axes[0].get_lines()[0].get_ydata().tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("n", [0, 1, 5])
def test_picture_is_written_of_any_number_of_trials(n: int, tmp_path: Path) -> None:
    draw_search(tmp_path / "tune.png", metric="loss", trials=TRIALS[:n], logarithmic=["a.rate"])
    with Image.open(tmp_path / "tune.png") as image:
        assert image.size[0] == 1210
