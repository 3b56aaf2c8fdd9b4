"""The training loop: portions add up, what is saved goes on bit for bit, what is wrong stops it."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from strategies import TINY
from torch import Tensor, nn

from minibert import BertForSequenceClassification, BertForTokenClassification
from minibert.errors import CheckpointError, RunError, TrainingError
from minibert.training.examples import Batch, Examples, collate, each_batch
from minibert.training.loop import (
    LossScale,
    Observer,
    StepRecord,
    Trainer,
    first_not_finite,
    frozen_modules,
)
from minibert.training.losses import LossSum
from minibert.training.run_config import RunConfig
from minibert.training.text_task import text_task

LABELS = ("no", "yes", "maybe")


def examples(n: int = 11) -> Examples:
    """Texts of 2 to 7 tokens, whose label is their third-last token modulo 3."""
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(2, 8, (n,), generator=generator).tolist()
    ids = [torch.randint(5, 11, (length,), generator=generator).tolist() for length in lengths]
    return Examples(ids, [[0] * len(row) for row in ids], [row[0] % 3 for row in ids])


def settings(**tables: dict[str, Any]) -> RunConfig:
    training = {"epochs": 2, "batch_size": 4, "seed": 3} | tables.pop("training", {})
    optimizer = {"learning_rate": 1e-2} | tables.pop("optimizer", {})
    return RunConfig.from_dict(
        {"task": "multiclass", "training": training, "optimizer": optimizer, **tables}
    )


class Records(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []
        self.metrics: list[Mapping[str, float]] = []
        self.calls: list[str] = []

    def after_backward(self, trainer: Trainer) -> None:
        self.calls.append("after_backward")

    def before_update(self, trainer: Trainer) -> None:
        self.calls.append("before_update")

    def after_update(self, trainer: Trainer, record: StepRecord) -> None:
        self.calls.append("after_update")
        self.records.append(record)

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        self.calls.append("after_evaluation")
        self.metrics.append(metrics)

    def at_end(self, trainer: Trainer) -> None:
        self.calls.append("at_end")


def trainer(
    run: RunConfig, *, dropout: float = 0.3, data: Examples | None = None, **more: Any
) -> Trainer:
    """A small network of its own, the same each time, and what trains it."""
    from dataclasses import replace

    torch.manual_seed(run.training.seed)
    config = replace(TINY, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    model = BertForSequenceClassification(config)
    train = examples() if data is None else data
    task = text_task(run, LABELS, train.targets)
    return Trainer(model, task.objective, train, run, **more)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


# ---- batches of examples


def test_batch_holds_examples_end_to_end_without_padding() -> None:
    data = Examples([[2, 7, 3], [2, 3], [2, 5, 6, 3]], [[0, 0, 1], [0, 0], [0, 0, 1, 1]], [4, 5, 6])
    batch = collate(data, [2, 0, 1], dtype=torch.long)
    assert batch.input_ids.tolist() == [2, 3, 2, 7, 3, 2, 5, 6, 3]
    assert batch.token_type_ids.tolist() == [0, 0, 0, 0, 1, 0, 0, 1, 1]
    assert batch.layout.lengths == (2, 3, 4)
    assert batch.targets.tolist() == [5, 4, 6]
    assert (batch.n_examples, batch.n_tokens) == (3, 9)


def test_targets_of_tags_numbers_and_several_labels() -> None:
    data = Examples([[2, 7, 3], [2, 3]], [[0] * 3, [0] * 2], [[-100, 1, -100], [-100, -100]])
    assert collate(data, [0, 1], dtype=torch.long).targets.tolist() == [-100, -100, -100, 1, -100]
    data = Examples([[2, 7, 3], [2, 3]], [[0] * 3, [0] * 2], [[0.0, 1.0], [1.0, 1.0]])
    targets = collate(data, [0, 1], dtype=torch.float).targets
    assert targets.tolist() == [[1.0, 1.0], [0.0, 1.0]]


def test_each_batch_goes_through_all_examples_once() -> None:
    data = examples()
    seen: dict[int, int] = {}
    for batch in each_batch(data, 4, partial(collate, dtype=torch.long)):
        rows = batch.rows
        assert [data.lengths[row] for row in rows] == list(batch.layout.lengths)
        seen |= dict(zip(rows, batch.targets.tolist(), strict=True))
    assert [seen[row] for row in range(len(data))] == data.targets


# ---- updates


def test_training_learns_and_tells_of_every_update() -> None:
    records = Records()
    run = settings(training={"epochs": 40})
    found = trainer(run, dropout=0.0, observers=[records])
    found.run()
    assert found.step == found.total == len(records.records) == 40 * 3
    assert [record.step for record in records.records] == list(range(1, 121))
    assert records.records[0].loss == pytest.approx(math.log(3), rel=0.2)
    assert records.records[-1].loss < 0.2
    assert sum(record.n_examples for record in records.records[:3]) == 11
    assert sum(record.n_tokens for record in records.records[:3]) == sum(examples().lengths)
    assert records.calls[:3] == ["after_backward", "before_update", "after_update"]
    assert records.calls[-1] == "at_end"


def test_rate_follows_the_schedule() -> None:
    records = Records()
    run = settings(training={"epochs": 4}, schedule={"warmup_fraction": 0.25})
    trainer(run, observers=[records]).run()
    rates = [record.learning_rate for record in records.records]
    expected = [0, 1 / 3, 2 / 3, *(1 - i / 9 for i in range(9))]
    assert rates == pytest.approx([1e-2 * share for share in expected])


@pytest.mark.parametrize("accumulate", [2, 3, 4])
def test_portions_give_the_gradients_of_the_whole_batch(accumulate: int) -> None:
    whole, parts = (
        trainer(
            settings(
                training={"accumulate": n, "max_grad_norm": None},
                loss={"class_weights": [1.0, 3.0, 0.5]},
            ),
            dropout=0.0,
        )
        for n in (1, accumulate)
    )
    for one in (whole, parts):
        one.optimizer.zero_grad = lambda: None  # type: ignore[method-assign]
        one._update(one._batches(0)[0], 0)
    for (name, a), b in zip(whole.model.named_parameters(), parts.model.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, name  # noqa: PT018
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


def test_gradients_are_clipped_before_the_update() -> None:
    class Norms(Records):
        def before_update(self, trainer: Trainer) -> None:
            grads = [p.grad for p in trainer.model.parameters() if p.grad is not None]
            self.norm = float(torch.stack([g.double().norm() for g in grads]).norm())

    records = Norms()
    found = trainer(settings(training={"max_grad_norm": 0.01}), observers=[records])
    record = found._update(found._batches(0)[0], 0)
    assert record.grad_norm > 0.01
    assert records.norm == pytest.approx(0.01, rel=1e-5)


def test_batch_whose_labels_are_all_ignored_is_skipped_and_counted() -> None:
    ids = [[2, 5, 3], [2, 6, 3], [2, 7, 3], [2, 8, 3]]
    tags = [[-100] * 3, [-100] * 3, [-100, 1, -100], [-100, 2, -100]]
    data = Examples(ids, [[0] * 3] * 4, tags)
    run = RunConfig.from_dict({"task": "tokens", "training": {"batch_size": 1, "epochs": 1}})
    task = text_task(run, LABELS, data.targets)
    model = BertForTokenClassification(TINY)
    records = Records()
    found = Trainer(model, task.objective, data, run, observers=[records])
    found.run()
    assert found.n_skipped == 2
    assert sorted(record.count for record in records.records) == [0.0, 0.0, 1.0, 1.0]


def test_loss_that_is_no_number_stops_before_the_update(tmp_path: Path) -> None:
    found = trainer(settings(), folder=tmp_path)
    before = values(found.model)

    def broken(model: nn.Module, batch: Batch) -> LossSum:
        loss = model(batch.input_ids, layout=batch.layout).logits.sum()
        return LossSum(loss * math.nan, torch.tensor(1.0))

    found.objective = broken
    with pytest.raises(TrainingError, match=r"the loss of update 1 is not finite .*learning_rate"):
        found.run()
    assert_same(before, values(found.model))
    assert found.step == 0


def test_gradient_that_is_no_number_names_where(tmp_path: Path) -> None:
    found = trainer(settings(), folder=tmp_path)

    class Breaking(Observer):
        def after_backward(self, trainer: Trainer) -> None:
            grad = trainer.model.bert.layers[1].feed_forward.up.weight.grad  # type: ignore[union-attr,index]
            grad[0, 0] = math.inf

    found.observers = [Breaking()]
    where = r"the gradient of bert\.layers\.1\.feed_forward\.up\.weight"
    with pytest.raises(
        TrainingError, match=f"the gradient of update 1 .* first in {where}"
    ) as caught:
        found.run()
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_where_numbers_end_is_looked_for_in_the_order_of_the_network() -> None:
    model = BertForSequenceClassification(TINY)
    assert first_not_finite(model) == "the loss"
    with torch.no_grad():
        model.classifier.bias[0] = math.nan
        assert first_not_finite(model) == "the values of classifier.bias"
        model.bert.layers[0].attention.qkv.bias[3] = math.nan
        assert first_not_finite(model) == "the values of bert.layers.0.attention.qkv.bias"


# ---- freezing


def test_frozen_modules_neither_learn_nor_drop() -> None:
    found = trainer(settings(training={"freeze": "embeddings, 0"}))
    before = values(found.model)
    found.run()
    after = values(found.model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [n for n in changed if n.startswith(("bert.embeddings", "bert.layers.0"))]
    assert "bert.layers.1.feed_forward.up.weight" in changed
    modes = {name: module.training for name, module in found.model.named_modules()}
    assert not modes["bert.embeddings.dropout"]
    assert not modes["bert.layers.0.dropout"]
    assert modes["bert.layers.1.dropout"]


def test_what_is_frozen_learns_from_its_step_on() -> None:
    seen = []

    class Watch(Observer):
        def after_update(self, trainer: Trainer, record: StepRecord) -> None:
            seen.append(values(trainer.model)["bert.layers.0.attention.qkv.weight"])

    run = settings(training={"freeze": "encoder", "freeze_until_step": 4})
    found = trainer(run, observers=[Watch()])
    start = values(found.model)["bert.layers.0.attention.qkv.weight"]
    found.run()
    assert all(torch.equal(start, each) for each in seen[:4])
    assert not torch.equal(start, seen[4])


@pytest.mark.parametrize("spec", ["layers", "2", "1-0", "0-9", "embedding", "-1"])
def test_freezing_what_is_not_there_is_refused(spec: str) -> None:
    with pytest.raises(RunError, match="expected 'embeddings', 'encoder', or layers from 0 to 1"):
        frozen_modules(BertForSequenceClassification(TINY), spec)


# ---- evaluation


class Scores:
    """An evaluation that gives prepared figures."""

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)
        self.modes: list[bool] = []

    def __call__(self, model: nn.Module) -> dict[str, float]:
        self.modes.append(model.training)
        score = self.scores.pop(0)
        return {"f1": score, "loss": score}


def test_best_weights_are_kept_and_restored(tmp_path: Path) -> None:
    kept = []

    class Keep(Observer):
        def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
            kept.append(values(trainer.model))

    scores = Scores(0.5, 0.8, float("nan"), 0.7)
    found = trainer(
        settings(training={"epochs": 4}), evaluate=scores, metric="f1",
        folder=tmp_path, observers=[Keep()],
    )  # fmt: skip
    found.run()
    assert scores.modes == [False] * 4
    assert (found.best.value, found.best.step, found.best.since) == (0.8, 6, 2)
    assert not torch.equal(kept[1]["classifier.weight"], values(found.model)["classifier.weight"])
    found.restore_best()
    assert_same(kept[1], values(found.model))


def test_early_stopping_waits_for_its_patience() -> None:
    run = settings(training={"epochs": 9, "early_stopping_patience": 2})
    scores = Scores(0.5, 0.4, 0.6, 0.6, 0.5, 0.9)
    found = trainer(run, evaluate=scores, metric="f1")
    found.run()
    assert found.step == 5 * 3
    assert scores.scores == [0.9]


def test_evaluation_comes_as_often_as_asked() -> None:
    records = Records()
    run = settings(training={"evaluate_every": 4})
    found = trainer(run, evaluate=Scores(1.0, 0.9), metric="loss", observers=[records])
    found.run()  # 6 updates: after the 4th and at the end
    assert [m["f1"] for m in records.metrics] == [1.0, 0.9]
    assert (found.best.value, found.best.step) == (0.9, 6)  # lower is better


def test_plateau_lowers_the_rate() -> None:
    records = Records()
    run = settings(
        training={"epochs": 4},
        schedule={"name": "plateau", "warmup_fraction": 0.0, "plateau_patience": 0},
    )
    scores = Scores(0.5, 0.4, 0.6, 0.6)
    trainer(run, evaluate=scores, metric="f1", observers=[records]).run()
    rates = [record.learning_rate / 1e-2 for record in records.records]
    assert rates == pytest.approx([1.0] * 6 + [0.5] * 6)


# ---- going on


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"training": {"precision": "bf16", "accumulate": 2}},
        {"optimizer": {"name": "sgd"}, "schedule": {"name": "plateau"}},
        {"training": {"freeze": "0", "freeze_until_step": 3}, "optimizer": {"layer_decay": 0.5}},
        {"data": {"sampling": "over"}, "optimizer": {"name": "google_bert"}},
    ],
    ids=["adamw", "bf16", "sgd", "freeze", "over"],
)
def test_resumed_training_is_that_of_one_go_bit_for_bit(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    """From every update on, with dropout: weights, optimizer, order and figures."""
    training = tables.get("training", {}) | {"save_every": 1, "keep_checkpoints": 99}
    run = settings(**{**tables, "training": training})
    scores = (0.5, 0.6, 0.4)
    records = Records()
    whole = trainer(
        run, folder=tmp_path / "whole", evaluate=Scores(*scores), metric="f1",
        observers=[records],
    )  # fmt: skip
    whole.run()
    assert whole.total >= 6
    for k in range(1, whole.total):
        folder = tmp_path / f"from-{k}"
        (folder / "checkpoints").mkdir(parents=True)
        name = f"step-{k:07d}"
        (folder / "checkpoints" / name).symlink_to(tmp_path / "whole" / "checkpoints" / name)
        torch.manual_seed(k)  # whatever was drawn before
        again = Records()
        resumed = trainer(
            run, folder=folder, metric="f1", observers=[again],
            evaluate=Scores(*scores[k // whole.steps_per_epoch :]),
        )  # fmt: skip
        assert resumed.resume() == []
        assert resumed.step == k
        resumed.run()
        assert_same(values(whole.model), values(resumed.model))
        assert_same(whole.optimizer.state_dict(), resumed.optimizer.state_dict())
        figures = [(r.step, r.epoch, r.loss, r.grad_norm, r.learning_rate) for r in again.records]
        assert figures == [
            (r.step, r.epoch, r.loss, r.grad_norm, r.learning_rate) for r in records.records[k:]
        ]
        assert vars(resumed.best) == vars(whole.best)
        last = f"checkpoints/step-{whole.total:07d}/tensors.safetensors"
        assert (folder / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


def test_stopped_from_outside_it_saves_and_ends(tmp_path: Path) -> None:
    class Stop(Observer):
        def after_update(self, trainer: Trainer, record: StepRecord) -> None:
            trainer.stopping = record.step == 2

    found = trainer(settings(), folder=tmp_path, observers=[Stop()])
    found.run()
    assert found.step == 2
    assert (tmp_path / "checkpoints" / "step-0000002").is_dir()


def test_torn_checkpoint_is_told_of_and_the_one_before_counts(tmp_path: Path) -> None:
    run = settings(training={"save_every": 1, "keep_checkpoints": 3})
    trainer(run, folder=tmp_path).run()
    (tmp_path / "checkpoints" / "step-0000006" / "tensors.safetensors").write_bytes(b"torn")
    resumed = trainer(run, folder=tmp_path)
    (line,) = resumed.resume()
    assert "step-0000006 is torn" in line
    assert resumed.step == 5


def test_resuming_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    trainer(settings(), folder=tmp_path, identity={"data": "a", "model": "b"}).run()
    run = settings(training={"batch_size": 5, "seed": 4}, schedule={"name": "cosine"})
    with pytest.raises(CheckpointError) as caught:
        trainer(run, folder=tmp_path, identity={"data": "z", "model": "b"}).resume()
    said = str(caught.value)
    for part in (
        "training.batch_size is 5, was 4", "training.seed is 4, was 3",
        "schedule.name is 'cosine', was 'linear'", "data changed",
    ):  # fmt: skip
        assert part in said
    assert "model changed" not in said
    assert "\n" not in said
    same = settings(training={"keep_checkpoints": 5, "save_every": 2})
    trainer(same, folder=tmp_path, identity={"data": "a", "model": "b"}).resume()


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to go on from"):
        trainer(settings(), folder=tmp_path).resume()


# ---- precision and memory


def test_recomputed_activations_change_nothing() -> None:
    plain, saving = (
        trainer(settings(training={"gradient_checkpointing": on})) for on in (False, True)
    )
    plain.run()
    saving.run()
    assert_same(values(plain.model), values(saving.model))


def test_loss_scale_halves_on_overflow_and_doubles_after_2000() -> None:
    scale = LossScale(8.0)
    scale.update(finite=False)
    assert (scale.value, scale.since) == (4.0, 0)
    for _ in range(1999):
        scale.update(finite=True)
    assert scale.value == 4.0
    scale.update(finite=True)
    assert (scale.value, scale.since) == (8.0, 0)


def test_float16_overflow_leaves_the_update_out_and_goes_on() -> None:
    found = trainer(settings(training={"precision": "fp16"}), dropout=0.0)
    assert found.scale is not None
    found.scale = LossScale(2.0**40)  # sure to overflow
    before = values(found.model)
    found._update(found._batches(0)[0], 0)
    assert_same(before, values(found.model))
    assert found.scale.value == 2.0**39
    found.scale = LossScale(2.0**8)
    found._update(found._batches(0)[0], 0)  # the second: the rate of the first is 0
    assert not torch.equal(
        before["classifier.weight"], found.model.state_dict()["classifier.weight"]
    )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_as_float32_does(precision: str) -> None:
    losses = []
    for each in ("fp32", precision):
        records = Records()
        run = settings(training={"precision": each, "epochs": 12})
        trainer(run, dropout=0.0, observers=[records]).run()
        losses.append([record.loss for record in records.records])
    assert losses[1][0] == pytest.approx(losses[0][0], rel=2e-2)
    assert losses[1][-1] < 0.9 * losses[1][0]


def test_nothing_to_train_on_and_a_device_that_is_not_here_are_refused() -> None:
    with pytest.raises(RunError, match="nothing to train on"):
        trainer(settings(), data=Examples([], [], []))
    with pytest.raises(RunError, match=r"training\.device is 'tpu9', which is not here"):
        trainer(settings(training={"device": "tpu9"}))
