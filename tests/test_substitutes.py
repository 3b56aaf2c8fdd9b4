"""Runs on the kernels: when they are taken, and what a run gives on them."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from strategies import TINY
from torch import Tensor

from minibert import BertForSequenceClassification, ops
from minibert.engine import load_kernels
from minibert.errors import CheckpointError, EngineError
from minibert.kernels import build
from minibert.kernels.build import KernelsUnavailableError
from minibert.training.examples import Examples
from minibert.training.loop import Observer, StepRecord, Trainer
from minibert.training.run_config import RunConfig
from minibert.training.substitutes import substitutes_for
from minibert.training.text_task import text_task

MANY, FEW = 1e6, 100.0
CPU = torch.device("cpu")


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether kernels might be compiled, at each time they were asked for; there are none."""
    asked: list[bool] = []

    def load(folder: Path, *, build: bool = True) -> None:
        asked.append(build)
        raise KernelsUnavailableError("no compiler")

    monkeypatch.setattr(build, "load", load)
    return asked


@pytest.mark.parametrize(
    ("asked", "precision", "environment", "expected"),
    [
        (None, "bf16", "pytorch", False),
        (None, "bf16", "auto", True),
        (None, "bf16", "", True),
        (None, "fp32", "auto", False),
        (None, "fp16", "auto", False),
        (None, "fp32", "kernels", True),
        ("auto", "bf16", "pytorch", True),
        ("auto", "fp32", "kernels", False),
        ("pytorch", "bf16", "kernels", False),
        ("kernels", "fp32", "pytorch", True),
    ],
)
def test_kernels_are_taken_for_bf16_or_where_they_are_asked_for(
    asked: str | None,
    precision: str,
    environment: str,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_kernels()
    monkeypatch.setenv("MINIBERT_ENGINE", environment)
    found = substitutes_for(asked, precision=precision, device=CPU, n_tokens=FEW)
    assert (found is not None) == expected


def test_kernels_are_compiled_for_many_tokens_or_where_they_are_asked_for(
    builds: list[bool],
) -> None:
    for n_tokens in (FEW, MANY):
        assert substitutes_for("auto", precision="bf16", device=CPU, n_tokens=n_tokens) is None
    with pytest.raises(EngineError, match=r"^no compiler; or choose engine = 'pytorch', which is"):
        substitutes_for("kernels", precision="bf16", device=CPU, n_tokens=FEW)
    assert builds == [False, True, True]


def test_kernels_are_of_the_cpu_alone() -> None:
    other = torch.device("meta")
    assert substitutes_for("auto", precision="bf16", device=other, n_tokens=MANY) is None
    with pytest.raises(EngineError, match="the kernels do not have a form for meta; or choose"):
        substitutes_for("kernels", precision="bf16", device=other, n_tokens=MANY)


# ---- runs


class Losses(Observer):
    def __init__(self) -> None:
        self.found: list[float] = []

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        self.found.append(record.loss)


def trainer(
    engine: str, precision: str, folder: Path | None = None, *, dropout: float = 0.0, **more: Any
) -> Trainer:
    """A small network of its own, the same each time, on texts of 2 to 20 tokens."""
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(2, 21, (24,), generator=generator).tolist()
    ids = [torch.randint(5, 11, (length,), generator=generator).tolist() for length in lengths]
    train = Examples(ids, [[0] * len(row) for row in ids], [row[0] % 2 for row in ids])
    training = {"epochs": 2, "batch_size": 8, "save_every": 1, "keep_checkpoints": 99}
    run = RunConfig.from_dict(
        {
            "task": "multiclass",
            "training": {**training, "precision": precision, "engine": engine, **more},
            "optimizer": {"learning_rate": 1e-2},
        }
    )
    torch.manual_seed(0)
    config = replace(
        TINY, max_position_embeddings=20,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    task = text_task(run, ("even", "odd"), train.targets)
    return Trainer(model, task.objective, train, run, folder=folder, observers=[Losses()])


def losses(trainer: Trainer) -> list[float]:
    (observer,) = trainer.observers
    assert isinstance(observer, Losses)
    return observer.found


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def assert_same(a: Trainer, b: Trainer) -> None:
    assert all(map(torch.equal, weights(a).values(), weights(b).values()))


@pytest.fixture
def without_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU on which bfloat16 is slow, whatever this one is."""
    monkeypatch.setattr(ops, "_has_bfloat16_units", lambda: False)


@pytest.mark.usefixtures("without_units")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_a_run_on_kernels_learns_as_in_pytorch(precision: str, tolerance: float) -> None:
    found = {engine: trainer(engine, precision) for engine in ("kernels", "pytorch")}
    for each in found.values():
        each.run()
    assert losses(found["kernels"]) == pytest.approx(losses(found["pytorch"]), rel=tolerance)
    pairs = zip(*(weights(each).values() for each in found.values()), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.usefixtures("without_units")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_on_kernels_is_that_of_one_go(precision: str, tmp_path: Path) -> None:
    whole = trainer("kernels", precision, tmp_path, dropout=0.3)
    whole.run()
    again = trainer("kernels", precision, dropout=0.3)
    again.run()
    assert_same(whole, again)
    for step in range(whole.total, 2, -1):  # of which resuming takes the newest
        (tmp_path / "checkpoints" / f"step-{step:07d}" / "state.json").unlink()
    resumed = trainer("kernels", precision, tmp_path, dropout=0.3)
    torch.manual_seed(9)  # whatever was drawn before
    resumed.resume()
    assert resumed.step == 2
    resumed.run()
    assert_same(whole, resumed)


@pytest.mark.usefixtures("without_units")
def test_activations_computed_again_drop_the_same() -> None:
    plain = trainer("kernels", "bf16", dropout=0.3)
    again = trainer("kernels", "bf16", dropout=0.3, gradient_checkpointing=True)
    plain.run()
    again.run()
    assert_same(plain, again)


@pytest.mark.usefixtures("without_units")
@pytest.mark.parametrize(
    ("engine", "optimizer", "of_rows"),
    [
        ("kernels", {}, True),
        ("kernels", {"name": "google_bert"}, True),
        ("kernels", {"l1": 0.1}, False),
        ("kernels", {"name": "sgd"}, False),
        ("pytorch", {}, False),
    ],
)
def test_moments_of_rows_are_kept_where_that_gives_the_same(
    engine: str, optimizer: dict[str, Any], of_rows: bool
) -> None:
    found = trainer(engine, "bf16")
    settings = found.run_config.with_values(
        {f"optimizer.{key}": value for key, value in optimizer.items()}
    )
    again = Trainer(found.model, found.objective, found.train, settings)
    again.run()
    assert ("rows.bert.embeddings.token.weight" in again.optimizer.state_dict()) is of_rows
    assert not found.model.bert.embeddings.token.sparse


@pytest.mark.parametrize(("first", "second"), [("kernels", "pytorch"), ("pytorch", "kernels")])
def test_going_on_with_another_engine_is_refused(
    first: str, second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the run file is the same, and the other machine is what differs."""
    monkeypatch.setenv("MINIBERT_ENGINE", first)
    before = trainer("pytorch", "fp32", tmp_path)
    settings = before.run_config.with_values({"training.engine": None})
    made = {"model": before.model, "objective": before.objective, "train": before.train}
    Trainer(**made, run_config=settings, folder=tmp_path).run()  # type: ignore[arg-type]
    monkeypatch.setenv("MINIBERT_ENGINE", second)
    with pytest.raises(CheckpointError, match="expected the same: engine changed; put it back"):
        Trainer(**made, run_config=settings, folder=tmp_path).resume()  # type: ignore[arg-type]


def test_pytorch_computes_again_behind_a_run() -> None:
    load_kernels()
    found = trainer("kernels", "bf16")
    model, x = copy.deepcopy(found.model).eval(), torch.tensor([[5, 6, 7]])
    before = model(x).logits
    found.run()
    assert torch.equal(model(x).logits, before)
    with ops.computed_by(found.substitutes):
        assert not torch.equal(model(x).logits, before)
