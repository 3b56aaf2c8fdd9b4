"""The learning-rate finder: what it makes of losses, and that it leaves a run as it was."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_runs import run_of, save_encoder

from minibert import cli
from minibert.errors import RunError, TrainingError
from minibert.training.consultation import set_up_aside
from minibert.training.rate_finder import RateSearch, exponential, find_rate, judged
from minibert.training.run import Setup
from minibert.training.run_config import RunConfig

pytestmark = pytest.mark.slow  # whole runs, seconds each

RATES = [10 ** (-7 + 7 * i / 99) for i in range(100)]


def a_run(folder: Path, **tables: Any) -> RunConfig:
    """Films, and whether they are liked."""
    words = ("good", "bad", "fine", "poor")
    rows = [
        {"text": f"the film is {words[i % 4]} {'in paris ' * (i % 3)}", "label": "ab"[i % 2]}
        for i in range(32)
    ]
    tables = {
        "data": {"train": rows, "max_length": 8}, "optimizer": {"head_learning_rate": 1e-3},
        "training": {"batch_size": 16, "epochs": 1, "dropout": 0.0}, **tables,
    }  # fmt: skip
    return run_of("binary", folder, model=str(save_encoder(folder / "encoder")), **tables)


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    with set_up_aside(a_run(tmp_path)) as found:
        yield found


def falling(at: float, *, rising: float = math.inf) -> list[float]:
    """Losses that fall from 1 to 0.2 around a rate, over two orders of magnitude, and rise."""
    return [
        0.2
        + 0.8 / (1 + (rate / at) ** 2)
        + (0.0 if rate < rising else 2 * math.log10(rate / rising))
        for rate in RATES
    ]


# ---- what losses say


def test_rate_grows_by_the_same_factor_each_update() -> None:
    multipliers = [exponential(step, 5, start=1e-4) for step in range(5)]
    assert multipliers == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])


def test_steepest_fall_is_proposed_where_it_is_far_below_divergence() -> None:
    found = judged(RATES, falling(1e-4, rising=1e-1))
    assert found.steepest == pytest.approx(1e-4, rel=0.2)
    assert found.diverging == pytest.approx(1e-1, rel=0.5)
    assert found.proposal == float(f"{found.steepest:.1e}")


def test_a_tenth_of_where_it_diverges_is_proposed_where_that_is_lower() -> None:
    found = judged(RATES, falling(1e-4, rising=3e-4))
    assert found.diverging is not None
    assert found.steepest is not None
    assert found.diverging / 10 < found.steepest
    assert found.proposal == float(f"{found.diverging / 10:.1e}")


def test_loss_that_falls_once_more_behind_its_rise_has_diverged_all_the_same() -> None:
    losses = falling(1e-5, rising=1e-3)
    losses[-15:] = [0.25] * 15
    found = judged(RATES, losses)
    assert found.diverging is not None
    assert 5e-4 < found.diverging < 2e-3


def test_losses_that_never_rise_are_judged_by_their_fall_alone() -> None:
    found = judged(RATES, falling(1e-3))
    assert found.diverging is None
    assert found.proposal == pytest.approx(1e-3, rel=0.2)


@pytest.mark.parametrize(
    "losses",
    [
        [0.7] * 100,
        [0.7 + 0.01 * i for i in range(100)],
        [0.7 + 0.2 * math.sin(i * i) for i in range(100)],
    ],
    ids=["flat", "rising", "noise"],
)
def test_losses_that_never_fall_give_no_proposal(losses: list[float]) -> None:
    found = judged(RATES, losses)
    assert found.proposal is None
    assert "no rate up to 1 brought the loss down" in found.table()


def test_table_ends_in_a_line_for_the_run_file() -> None:
    found = judged(RATES, falling(1e-4, rising=1e-1))
    lines = found.table().splitlines()
    assert lines[0].split() == ["rate", "mean", "loss"]
    assert sum("falls fastest" in line for line in lines) == 1
    assert sum("starts to diverge" in line for line in lines) == 1
    assert 10 < len(lines) < 25
    key, _, rate = lines[-1].partition(" = ")
    assert (key, float(rate)) == ("optimizer.learning_rate", found.proposal)
    values = json.loads(found.to_json())
    assert set(values) == {"rates", "losses", "means", "steepest", "diverging", "proposal"}


# ---- on a network


def test_weights_and_random_numbers_stay_as_they_are(setup: Setup) -> None:
    before = {name: tensor.clone() for name, tensor in setup.model.state_dict().items()}
    random = torch.get_rng_state()
    found = find_rate(setup)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(t, before[name]) for name, t in setup.model.state_dict().items())
    assert setup.trainer.step == 0
    assert all(parameter.grad is None for parameter in setup.model.parameters())
    assert found.rates[0] == pytest.approx(1e-7)


def test_small_network_learns_at_the_rate_that_is_proposed(setup: Setup) -> None:
    found = find_rate(setup)
    assert found.proposal is not None
    assert 1e-5 < found.proposal < 1e-1


def test_rates_end_at_the_highest_unless_the_loss_ends_them(setup: Setup) -> None:
    gentle = find_rate(setup, highest=1e-6, n_updates=20)
    assert (len(gentle.rates), gentle.rates[-1]) == (20, pytest.approx(1e-6))
    assert gentle.proposal is None
    harsh = find_rate(setup, lowest=1e-3, highest=1e4, n_updates=100)
    assert len(harsh.rates) < 100
    assert harsh.means[-1] > 4 * min(harsh.means)


def test_loss_that_is_no_number_ends_the_updates(setup: Setup) -> None:
    found = find_rate(setup, lowest=1e-3, highest=1e36, n_updates=20)
    assert 1 <= len(found.rates) < 20
    assert all(map(math.isfinite, found.losses))


def test_network_that_is_broken_from_the_start_is_refused(setup: Setup) -> None:
    with torch.no_grad():
        next(setup.model.parameters()).fill_(math.nan)
    with pytest.raises(TrainingError, match="update 1 is not finite"):
        find_rate(setup)


@pytest.mark.parametrize(
    ("lowest", "highest", "n_updates"), [(0.0, 1.0, 100), (1e-2, 1e-3, 100), (1e-7, 1.0, 5)]
)
def test_range_that_is_none_is_refused(
    setup: Setup, lowest: float, highest: float, n_updates: int
) -> None:
    with pytest.raises(RunError, match=r"^the rates are .*, expected a lowest above 0"):
        find_rate(setup, lowest=lowest, highest=highest, n_updates=n_updates)


# ---- the command


def test_command_prints_the_proposal_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = a_run(tmp_path)
    rows = "".join(f"{row['text']},{row['label']}\n" for row in run.data.train)  # type: ignore[index]
    (tmp_path / "train.csv").write_text(f"text,label\n{rows}")
    toml = tmp_path / "run.toml"
    toml.write_text(
        'task = "binary"\nmodel = "encoder"\n[data]\ntrain = "train.csv"\nmax_length = 8\n'
        "[training]\nbatch_size = 16\ndropout = 0.0\n[optimizer]\nhead_learning_rate = 1e-3\n"
    )
    picture = tmp_path / "rates.png"
    assert cli.main(["doctor", str(toml), "--find-rate", "--plot", str(picture)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("optimizer.learning_rate = ")
    with Image.open(picture) as image:
        assert image.size == (880, 495)
    assert not (tmp_path / "run").exists()
    assert cli.main(["doctor", str(toml), "--plot", str(picture)]) == 2
    assert "--plot goes with --find-rate" in capsys.readouterr().err


def test_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    found = RateSearch((1e-3, 1e-2), (1.0, 0.5), (1.0, 0.5), None, None)
    with pytest.raises(RunError, match=r"rates\.png: cannot be written: "):
        found.draw(tmp_path / "nowhere" / "rates.png")
