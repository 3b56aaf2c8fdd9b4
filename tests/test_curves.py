"""The picture of a run: what it shows, of logs of every kind, and that it is a picture."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from minibert.training.curves import (
    Curve,
    RunLog,
    best_of,
    draw,
    figure_of,
    shown_figures,
    smoothed,
    thinned,
)


def update(step: int, **values: float | None) -> dict[str, Any]:
    known = {"loss": 1.0 / step, "count": 32.0, "learning_rate": 1e-4, "grad_norm": 2.0}
    return {"step": step, "epoch": (step - 1) // 10, **known, **values}


def evaluation(step: int, **values: float | None) -> dict[str, Any]:
    return {"step": step, "evaluation": values}


def written(path: Path, lines: Iterable[Mapping[str, Any]], end: str = "") -> Path:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.write(end)
    return path


def log_of(tmp_path: Path, lines: Iterable[Mapping[str, Any]]) -> RunLog:
    log = RunLog(written(tmp_path / "log.jsonl", lines))
    log.read()
    return log


def a_run(n: int = 30) -> list[dict[str, Any]]:
    """Three epochs with an evaluation at the end of each, of which the second is the best."""
    lines = []
    for step in range(1, n + 1):
        lines.append(update(step))
        if step % 10 == 0:
            figure = {10: 0.5, 20: 0.8, 30: 0.7}[step]
            lines.append(evaluation(step, accuracy=figure + 0.1, macro_f1=figure, loss=1 - figure))
    return lines


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(loc="left") or axes.get_title(): axes for axes in figure.axes}


def points(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Of each curve that the legend names."""
    lines, names = axes.get_legend_handles_labels()
    return {
        name: list(zip(*map(list, line.get_data()), strict=True))
        for line, name in zip(lines, names, strict=True)
    }


# ---- the log


def test_log_is_read_by_and_by(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", [update(1, loss=0.5)], end='{"step": 2, "epo')
    log = RunLog(path)
    log.read()
    assert (log.step, log.updates["loss"]) == (1, Curve([1], [0.5]))
    path.write_text(path.read_text()[: -len('{"step": 2, "epo')])
    written(path, [update(2, loss=0.25), evaluation(2, accuracy=0.5), update(11, loss=0.125)])
    log.read()
    log.read()
    assert log.updates["loss"] == Curve([1, 2, 11], [0.5, 0.25, 0.125])
    assert log.evaluations == {"accuracy": Curve([2], [0.5])}
    assert (log.step, log.epochs) == (11, [1, 11])


def test_what_is_no_number_leaves_a_gap(tmp_path: Path) -> None:
    """An overflow in half precision, a batch without labels, a figure that is not defined."""
    log = log_of(
        tmp_path,
        [
            update(1, grad_norm=None),
            update(2, count=0.0, loss=0.0, grad_norm=0.0),
            update(3),
            evaluation(3, roc_auc=None, macro_f1=0.5),
        ],
    )
    assert log.updates["grad_norm"] == Curve([3], [2.0])
    assert log.updates["loss"].steps == [1, 3]
    assert log.updates["learning_rate"].steps == [1, 2, 3]
    assert log.evaluations == {"roc_auc": Curve(), "macro_f1": Curve([3], [0.5])}
    assert list(panels(figure_of(log, metric="roc_auc"))) == [
        "Loss", "Learning rate", "Gradient norm", "Validation",
    ]  # fmt: skip


# ---- what is shown


def test_panels_show_what_the_log_holds(tmp_path: Path) -> None:
    figure = figure_of(log_of(tmp_path, a_run()), metric="macro_f1", max_grad_norm=1.0, title="run")
    found = panels(figure)
    assert list(found) == ["Loss", "Learning rate", "Gradient norm", "Validation"]
    assert points(found["Validation"]) == {
        "macro F1": [(10, 0.5), (20, 0.8), (30, 0.7)],
        "accuracy": [(10, 0.6), (20, 0.9), (30, pytest.approx(0.8))],
        "best": [(20, 0.8)],
    }
    loss = points(found["Loss"])
    assert loss["training"] == [(step, pytest.approx(1 / step)) for step in range(1, 31)]
    assert [step for step, _ in loss["validation"]] == [10, 20, 30]
    assert "best" not in loss
    (rate,) = found["Learning rate"].lines[:1]
    assert rate.get_ydata().tolist() == [1e-4] * 30
    assert set(points(found["Gradient norm"])) == {"before clipping", "clipped to"}
    assert figure.get_suptitle() == "run  ·  best macro F1 0.8 at update 20"
    for axes in found.values():
        dotted = [line for line in axes.lines if line.get_color() == "#888888"]
        assert [line.get_xdata()[0] for line in dotted] == [10.5, 20.5]  # the epochs
        assert axes.get_xlim()[0] == 0
        assert axes.get_xlim()[1] >= 30


def test_loss_that_decides_is_marked_beside_that_of_training(tmp_path: Path) -> None:
    figure = figure_of(log_of(tmp_path, a_run()), metric="loss")
    found = panels(figure)
    assert points(found["Loss"])["best"] == [(20, pytest.approx(0.2))]
    assert list(points(found["Validation"])) == ["macro F1", "accuracy"]
    assert figure.get_suptitle().endswith("best loss 0.2 at update 20")


def test_run_without_evaluation_has_no_panel_for_it(tmp_path: Path) -> None:
    figure = figure_of(log_of(tmp_path, [update(1)]), metric="loss", title="run")
    assert list(panels(figure)) == ["Loss", "Learning rate", "Gradient norm"]
    assert panels(figure)["Loss"].get_position().width > 0.9
    assert figure.get_suptitle() == "run"
    assert panels(figure)["Loss"].lines[0].get_marker() == "o"  # a line of one point is not seen


def test_one_evaluation_is_shown_as_bars(tmp_path: Path) -> None:
    figure = figure_of(log_of(tmp_path, a_run(10)), metric="macro_f1")
    axes = panels(figure)["Validation"]
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0.6]
    assert [text.get_text().split() for text in axes.texts] == [
        ["macro", "F1", "0.5"],
        ["accuracy", "0.6"],
    ]
    heights = [bar.get_y() for bar in axes.patches]
    assert heights == sorted(heights, reverse=True)


def test_noise_is_light_behind_its_mean(tmp_path: Path) -> None:
    losses = [1.0 + (step % 2) for step in range(1, 101)]
    log = log_of(tmp_path, [update(step, loss=loss) for step, loss in enumerate(losses, 1)])
    raw, mean = panels(figure_of(log, metric="loss"))["Loss"].lines[:2]
    assert raw.get_ydata().tolist() == losses
    assert raw.get_alpha() == 0.25
    assert mean.get_label() == "training, mean of 5 updates"
    inner = np.asarray(mean.get_ydata())[2:-2]
    assert set(inner.round(6).tolist()) == {1.4, 1.6}


@pytest.mark.parametrize(
    ("values", "scale"), [([2.0, 1.0], "linear"), ([9.0, 0.2], "log"), ([9.0, 0.0], "linear")]
)
def test_loss_that_spans_much_is_drawn_by_its_logarithm(
    tmp_path: Path, values: list[float], scale: str
) -> None:
    log = log_of(tmp_path, [update(step, loss=loss) for step, loss in enumerate(values, 1)])
    axes = panels(figure_of(log, metric="loss"))["Loss"]
    assert axes.get_yscale() == scale
    assert (axes.get_ylim()[0] == 0) == (scale == "linear")


def test_rates_are_labelled_as_people_write_them(tmp_path: Path) -> None:
    log = log_of(tmp_path, [update(step, learning_rate=step * 1e-5) for step in range(1, 7)])
    axes = panels(figure_of(log, metric="loss"))["Learning rate"]
    said = [axes.yaxis.get_major_formatter()(rate) for rate in (0.0, 6e-5, 1.5e-4, 0.01)]
    assert said == ["0", "6e-5", "1.5e-4", "1e-2"]


@pytest.mark.parametrize(
    ("metric", "names", "expected"),
    [
        (
            "macro_f1",
            "accuracy macro_precision macro_f1 mcc roc_auc pr_auc f1 loss",
            "macro_f1 f1 accuracy mcc",
        ),
        ("label_accuracy", "label_accuracy macro_f1 loss", "label_accuracy macro_f1"),
        ("perplexity", "perplexity loss accuracy", "perplexity"),
        ("rmse", "pearson spearman rmse mae loss", "rmse"),
        ("loss", "pearson spearman rmse mae loss", "spearman pearson"),
        ("loss", "loss", ""),
        ("spearman", "pearson loss", "pearson"),
        ("macro_f1", "", ""),
    ],
)
def test_figures_that_are_shown(metric: str, names: str, expected: str) -> None:
    assert shown_figures(metric, names.split()) == expected.split()


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("macro_f1", [0.1, 0.3, 0.3], (2, 0.3)),
        ("loss", [0.1, 0.3, 0.1], (1, 0.1)),
        ("loss", [], None),
    ],
)
def test_best_is_the_first_of_equals(
    metric: str, values: list[float], expected: tuple[int, float] | None
) -> None:
    assert best_of(Curve(list(range(1, len(values) + 1)), values), metric) == expected


# ---- curves


def test_smoothed_by_hand() -> None:
    assert smoothed([1.0, 2.0, 6.0, 0.0], 3).tolist() == [1.5, 3.0, pytest.approx(8 / 3), 3.0]
    assert smoothed([1.0, 2.0], 1).tolist() == [1.0, 2.0]
    assert smoothed([], 1).tolist() == []


@given(st.integers(0, 9000), st.integers(0, 100))
def test_thinned_curves_keep_their_extremes(n: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=n)
    values[-1:] = seed  # the newest is often the highest
    x, y = thinned(range(1, n + 1), values)
    assert len(x) == len(y) <= max(n if n <= 2000 else 0, 2010)
    assert all(values[int(step) - 1] == value for step, value in zip(x, y, strict=True))
    assert x.tolist() == sorted(x)
    if n:
        assert (y.min(), y.max()) == (values.min(), values.max())
    if n <= 2000:
        assert y.tolist() == values.tolist()


# ---- the file


def test_picture_is_a_picture_whole_or_not_at_all(tmp_path: Path) -> None:
    log = log_of(tmp_path, a_run())
    path = tmp_path / "curves.png"
    draw(log, path, metric="macro_f1", max_grad_norm=1.0, title="run")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1210, 726)
        colors = picture.convert("RGB").getcolors(1 << 20)
    assert colors is not None
    found = {color for _, color in colors}
    # The blue of training, the orange of validation, the yellow of the best, on white.
    assert {(0, 114, 178), (213, 94, 0), (240, 228, 66), (255, 255, 255)} <= found
    assert sorted(each.name for each in tmp_path.iterdir()) == ["curves.png", "log.jsonl"]


def test_picture_that_cannot_be_written_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, path = log_of(tmp_path, a_run()), tmp_path / "curves.png"
    path.write_bytes(b"the earlier one")

    def save(figure: Figure, part: Path, **settings: str) -> None:
        part.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", save)
    with pytest.raises(OSError, match="No space left"):
        draw(log, path, metric="macro_f1")
    assert path.read_bytes() == b"the earlier one"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["curves.png", "log.jsonl"]
