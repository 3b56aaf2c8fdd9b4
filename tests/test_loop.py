"""The training loop: portions add up, what is saved goes on bit for bit, what is wrong stops it."""

import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from strategies import TINY
from torch import Tensor, nn

from minibert import BertForSequenceClassification, BertForTokenClassification
from minibert.errors import CheckpointError, RunError, TrainingError
from minibert.training.batches import epoch_batches
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
from minibert.training.state import load_state, save_state, steps
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


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


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


def test_gradients_are_those_of_the_mean_loss() -> None:
    class Gradients(Observer):
        def before_update(self, trainer: Trainer) -> None:
            named = trainer.model.named_parameters()
            self.found = {name: p.grad.clone() for name, p in named if p.grad is not None}

    weights = torch.tensor([1.0, 3.0, 0.5])
    seen = Gradients()
    run = settings(
        training={"accumulate": 2, "max_grad_norm": None}, loss={"class_weights": weights.tolist()}
    )
    found = trainer(run, dropout=0.0, observers=[seen])
    rows = found._batches(0)[0]
    record = found._update(rows, 0)
    again = trainer(run, dropout=0.0)
    batch = collate(again.train, rows, dtype=torch.long)
    logits = again.model(batch.input_ids, layout=batch.layout).logits
    loss = nn.functional.cross_entropy(logits, batch.targets, weight=weights)
    loss.backward()
    assert record.loss == pytest.approx(loss.item(), rel=1e-6)
    assert record.count == pytest.approx(float(weights[batch.targets].sum()))
    for name, parameter in again.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(seen.found[name], parameter.grad, rtol=1e-5, atol=1e-7)


def test_thinned_examples_take_turns_from_epoch_to_epoch() -> None:
    found = trainer(settings(data={"sampling": "under"}))
    seen: list[set[tuple[int, ...]]] = []
    for epoch in range(9):
        found._batches(epoch)
        assert len(found._examples) < len(found.train)
        seen.append(set(map(tuple, found._examples.ids)))
    assert set().union(*seen) == set(map(tuple, found.train.ids))


def test_batches_are_sorted_together_as_many_as_the_run_says() -> None:
    found = {}
    for pool in (1, 2, 50):
        made = trainer(settings(data={"length_pool": pool}))
        lengths, size = made.train.lengths, made.run_config.training.batch_size
        found[pool] = made._batches(1)
        seed = made.run_config.training.seed
        assert found[pool] == epoch_batches(lengths, size, seed=seed, epoch=1, pool_batches=pool)
    assert found[1] != found[50]
    assert trainer(settings())._batches(1) == found[50]


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


def test_labels_that_are_all_ignored_are_refused() -> None:
    data = Examples([[2, 5, 3], [2, 6, 3]], [[0] * 3] * 2, [[-100] * 3, [-100] * 3])
    run = RunConfig.from_dict({"task": "tokens"})
    task = text_task(run, LABELS, data.targets)
    with pytest.raises(RunError, match="all labels of all training examples are ignored, expected"):
        Trainer(BertForTokenClassification(TINY), task.objective, data, run)


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


class ByStep:
    """An evaluation whose figure depends on the update after which it is made alone."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = scores
        self.trainer: Trainer | None = None

    def __call__(self, model: nn.Module) -> dict[str, float]:
        assert self.trainer is not None
        return {"f1": self.scores[self.trainer.step - 1], "loss": 0.0}


class Trace(Records):
    """What each update was made of and came to, and what was evaluated."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[int]] = []

    def watch(self, trainer: Trainer) -> None:
        objective = trainer.objective

        def watched(model: nn.Module, batch: Batch) -> LossSum:
            self.batches.append(batch.input_ids.tolist())
            return objective(model, batch)

        trainer.objective = watched

    def of(self, k: int, accumulate: int) -> Any:
        """What happened behind update `k`, but for timings."""
        figures = [{**vars(record), "seconds": 0} for record in self.records[k:]]
        return figures, self.batches[accumulate * k :]


def traced(
    run: RunConfig, folder: Path, scores: Sequence[float], **more: Any
) -> tuple[Trainer, Trace]:
    trace, evaluate = Trace(), ByStep(scores)
    found = trainer(
        run, folder=folder, evaluate=evaluate, metric="f1", observers=[trace],
        identity={"data": "a", "model": "b"}, **more,
    )  # fmt: skip
    evaluate.trainer = found
    trace.watch(found)
    return found, trace


RUNS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "accumulate": {"training": {"accumulate": 2, "evaluate_every": 2}},
    "bf16": {"training": {"precision": "bf16", "accumulate": 2}},
    "kernels": {"training": {"precision": "bf16", "engine": "kernels"}},
    "fp16": {"training": {"precision": "fp16"}},
    "sgd": {"optimizer": {"name": "sgd", "l1": 1e-3}, "schedule": {"name": "cosine"}},
    "plateau": {
        "training": {"evaluate_every": 1},
        "schedule": {"name": "plateau", "plateau_patience": 0},
    },
    "early": {"training": {"evaluate_every": 1, "early_stopping_patience": 3, "epochs": 4}},
    "freeze": {
        "training": {"freeze": "0", "freeze_until_step": 3},
        "optimizer": {"layer_decay": 0.5},
    },
    "over": {
        "data": {"sampling": "over"},
        "optimizer": {"name": "google_bert"},
        "training": {"epochs": 1.4},
    },
    "under": {"data": {"sampling": "under"}, "training": {"epochs": 7}},
}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_text_that_is_drawn_twice_in_an_epoch_is_two_texts(accumulate: int) -> None:
    """With a number each, whatever the portions: what is drawn by number makes them unlike."""
    ids = [[5 + i, 6] for i in range(5)]
    data = Examples(ids, [[0, 0]] * 5, [0, 0, 0, 0, 1])
    run = settings(
        training={"batch_size": 8, "epochs": 2, "accumulate": accumulate},
        data={"sampling": "over"},
    )
    seen: list[tuple[int, int, tuple[int, ...]]] = []

    def prepare(found: Examples, rows: Sequence[int], step: int) -> Batch:
        seen.extend((step, row, tuple(found.ids[row])) for row in rows)
        return collate(found, rows, dtype=torch.long)

    trainer(run, data=data, prepare=prepare).run()
    for epoch in (0, 1):
        drawn = [(row, text) for step, row, text in seen if step == epoch]
        assert sorted(row for row, _ in drawn) == list(range(8))
        texts = [text for _, text in drawn]
        assert sorted(texts) == sorted([(5, 6), (6, 6), (7, 6), (8, 6)] + [(9, 6)] * 4)


@pytest.mark.parametrize("name", list(RUNS))
def test_resumed_training_is_that_of_one_go_bit_for_bit(name: str, tmp_path: Path) -> None:
    """From every update on, with dropout: weights, optimizer, random state, order and figures."""
    training = RUNS[name].get("training", {}) | {"save_every": 1, "keep_checkpoints": 99}
    run = settings(**{**RUNS[name], "training": training})
    scores = (0.5, 0.4, 0.3, 0.6, 0.6, 0.2, 0.9, 0.8, 0.1, 0.7, 0.7, 0.7)
    whole, trace = traced(run, tmp_path / "whole", scores)
    whole.run()
    assert whole.step >= 6
    assert whole.stopped_early == (name == "early") == (whole.step < whole.total)
    multipliers = {record.learning_rate for record in trace.records}
    assert whole.plateau is None or len(multipliers) > 2
    for k in range(1, whole.step):
        folder = tmp_path / f"from-{k}"
        kept = f"checkpoints/step-{k:07d}"
        shutil.copytree(tmp_path / "whole" / kept, folder / kept)
        shutil.copytree(tmp_path / "whole" / "best", folder / "best")
        torch.manual_seed(k)  # whatever was drawn before
        resumed, again = traced(run, folder, scores)
        assert resumed.resume() == []
        assert resumed.step == k
        resumed.run()
        assert_same(values(whole.model), values(resumed.model))
        assert_same(whole.optimizer.state_dict(), resumed.optimizer.state_dict())
        assert again.of(0, 1) == trace.of(k, run.training.accumulate)
        assert vars(resumed.best) == vars(whole.best)
        assert resumed.stopped_early == whole.stopped_early
        for step in range(k, whole.step + 1):
            for file in ("tensors.safetensors", "state.json"):
                last = f"checkpoints/step-{step:07d}/{file}"
                assert (folder / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


def test_checkpoint_holds_all_that_changes_while_training(tmp_path: Path) -> None:
    """Every parameter, every moment and the random state: each differs between two updates."""
    run = settings(training={"save_every": 1, "keep_checkpoints": 9})
    found, _ = traced(run, tmp_path, [0.5] * 6)
    found.run()
    place = tmp_path / "checkpoints"
    third, fourth = (load_state(place, step=step)[0] for step in (3, 4))
    assert third is not None
    assert fourth is not None
    names = {f"model.{name}" for name, _ in found.model.named_parameters()}
    names |= {
        f"optimizer.{kind}.{name.removeprefix('model.')}"
        for kind in ("mean", "square", "steps")
        for name in list(names)
    }
    assert set(third.tensors) == set(fourth.tensors) == names | {"random.0.cpu"}
    same = [n for n in third.tensors if torch.equal(third.tensors[n], fourth.tensors[n])]
    assert not same


def test_stopped_from_outside_it_saves_and_ends(tmp_path: Path) -> None:
    class Stop(Observer):
        def after_update(self, trainer: Trainer, record: StepRecord) -> None:
            trainer.stopping = record.step == 2

    found = trainer(settings(), folder=tmp_path, observers=[Stop()])
    found.run()
    assert found.step == 2
    assert steps(tmp_path / "checkpoints") == [2]


def test_last_update_and_an_early_stop_are_saved_whenever_they_come(tmp_path: Path) -> None:
    found, _ = traced(settings(training={"save_every": 5}), tmp_path / "all", [0.5] * 6)
    found.run()
    assert steps(tmp_path / "all" / "checkpoints") == [6, 5]
    run = settings(training={"save_every": 99, "evaluate_every": 1, "early_stopping_patience": 1})
    found, _ = traced(run, tmp_path / "early", [0.5, 0.4])
    found.run()
    assert steps(tmp_path / "early" / "checkpoints") == [2]


def test_observers_are_told_before_a_checkpoint_is_written(tmp_path: Path) -> None:
    seen = []

    class Watch(Observer):
        def before_save(self, trainer: Trainer) -> None:
            seen.append((trainer.step, steps(tmp_path / "checkpoints")))

    trainer(
        settings(training={"save_every": 2}), folder=tmp_path, observers=[Watch()]
    ).run()  # fmt: skip
    assert seen == [(2, []), (4, [2]), (6, [4, 2])]


def test_torn_checkpoint_is_told_of_and_the_one_before_counts(tmp_path: Path) -> None:
    run = settings(training={"save_every": 1, "keep_checkpoints": 3})
    trainer(run, folder=tmp_path).run()
    (tmp_path / "checkpoints" / "step-0000006" / "tensors.safetensors").write_bytes(b"torn")
    resumed = trainer(run, folder=tmp_path)
    (line,) = resumed.resume()
    assert "step-0000006 is torn" in line
    assert resumed.step == 5
    assert steps(tmp_path / "checkpoints") == [6, 5, 4]  # told of, not deleted


def test_new_checkpoint_outlives_torn_ones_of_later_updates(tmp_path: Path) -> None:
    """Kept is what is whole: the newest by number may be one that training went on without."""
    run = settings(training={"save_every": 3, "keep_checkpoints": 1})
    trainer(run, folder=tmp_path).run()
    found = trainer(settings(training={"save_every": 3}), folder=tmp_path / "b")
    found.run()
    shutil.copytree(
        tmp_path / "b" / "checkpoints" / "step-0000003",
        tmp_path / "checkpoints" / "step-0000003",
    )
    (tmp_path / "checkpoints" / "step-0000006" / "state.json").write_bytes(b"{}")

    class Stop(Observer):
        def after_update(self, trainer: Trainer, record: StepRecord) -> None:
            trainer.stopping = True

    changed = settings(training={"save_every": 3, "keep_checkpoints": 1})
    resumed = trainer(changed, folder=tmp_path, observers=[Stop()])
    assert len(resumed.resume()) == 1
    resumed.run()
    assert steps(tmp_path / "checkpoints") == [4]
    again = trainer(changed, folder=tmp_path)
    assert again.resume() == []
    assert again.step == 4


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_best_weights_of_every_checkpoint_that_is_kept_are_kept(keep: int, tmp_path: Path) -> None:
    """A checkpoint may be gone on from whose best is not the newest one, and then not again."""
    run = settings(
        training={"evaluate_every": 1, "save_every": 2, "keep_checkpoints": keep, "epochs": 4}
    )
    best_at = {2: 1, 4: 3, 6: 3, 8: 7, 10: 9, 12: 9}
    seen = []

    class Watch(Observer):
        def before_update(self, trainer: Trainer) -> None:
            kept = steps(tmp_path / "checkpoints")
            wanted = {best_at[step] for step in kept} | {trainer.best.step} - {0}
            assert set(steps(tmp_path / "best")) == wanted
            assert len(kept) == min(keep, trainer.step // 2)
            seen.append(wanted)

    found, _ = traced(run, tmp_path, [0.2, 0.1, 0.4, 0.3, 0.1, 0.3, 0.5, 0.4, 0.6, 0.1, 0.2, 0.3])
    found.observers = [*found.observers, Watch()]
    found.run()
    assert len(seen) == 12
    (tmp_path / "checkpoints" / "step-0000012" / "state.json").write_bytes(b"torn")
    if keep > 1:
        resumed, _ = traced(run, tmp_path, [0.0] * 12)  # other figures than before
        resumed.resume()
        assert (resumed.step, resumed.best.step) == (10, 9)
        resumed.run()
        resumed.restore_best()
        kept, _ = load_state(tmp_path / "best", step=9)
        assert kept is not None
        assert_same(kept.tensors, values(resumed.model))


def test_best_that_is_found_again_later_does_not_pass_for_an_earlier_one(tmp_path: Path) -> None:
    """Killed between a best evaluation and the next checkpoint, and other figures the next time."""
    run = settings(training={"evaluate_every": 1, "save_every": 2})
    found, _ = traced(run, tmp_path, [0.5, 0.4, 0.9, 0.1, 0.1, 0.1])

    class Killed(Observer):
        def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
            if trainer.step == 3:
                raise KeyboardInterrupt

    found.observers = [Killed()]
    with pytest.raises(KeyboardInterrupt):
        found.run()
    assert steps(tmp_path / "best") == [3, 1]
    first, _ = load_state(tmp_path / "best", step=1)
    assert first is not None
    first = first._replace(tensors={n: t.clone() for n, t in first.tensors.items()})
    resumed, _ = traced(run, tmp_path, [0.5, 0.4, 0.3, 0.1, 0.1, 0.1])
    resumed.resume()
    assert steps(tmp_path / "best") == [1]
    resumed.run()
    resumed.restore_best()
    assert resumed.best.step == 1
    assert_same(first.tensors, values(resumed.model))


@pytest.mark.parametrize("how", ["torn", "gone"])
def test_best_weights_that_cannot_be_read_are_told_of_before_training(
    how: str, tmp_path: Path
) -> None:
    run = settings(training={"evaluate_every": 1, "save_every": 1, "keep_checkpoints": 9})
    found, _ = traced(run, tmp_path, [0.1, 0.9, 0.2, 0.3, 0.2, 0.3])
    found.run()
    for step in (5, 6):
        shutil.rmtree(tmp_path / "checkpoints" / f"step-{step:07d}")
    best = tmp_path / "best" / "step-0000002"
    if how == "torn":
        (best / "tensors.safetensors").write_bytes(b"torn")
    else:
        shutil.rmtree(best)
    resumed, _ = traced(run, tmp_path, [0.1, 0.9, 0.2, 0.3, 0.2, 0.3])
    said = f"best: the best weights, of update 2, are {how}, .* by --allow-changes"
    with pytest.raises(CheckpointError, match=said):
        resumed.resume()
    resumed, _ = traced(run, tmp_path, [0.1, 0.9, 0.2, 0.3, 0.2, 0.3])
    (line,) = resumed.resume(allow_changes=True)
    assert line == (
        f"the best evaluation is looked for anew: the best weights, of update 2, are {how}"
    )
    resumed.run()
    assert (resumed.best.step, resumed.best.value) == (6, 0.3)
    shutil.rmtree(tmp_path / "best")
    with pytest.raises(CheckpointError, match="the best weights, of update 6, are gone; go on"):
        resumed.restore_best()


def test_resuming_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    trainer(settings(), folder=tmp_path, identity={"data": "a", "model": "b"}).run()
    run = settings(training={"batch_size": 5, "seed": 4}, schedule={"name": "cosine"})
    with pytest.raises(CheckpointError) as caught:
        trainer(run, folder=tmp_path, identity={"data": "z", "model": "b"}).resume()
    said = str(caught.value)
    for part in (
        "training.batch_size is 5, was 4", "training.seed is 4, was 3",
        "schedule.name is 'cosine', was 'linear'", "data changed", "--allow-changes",
    ):  # fmt: skip
        assert part in said
    assert "model changed" not in said
    assert "\n" not in said
    same = settings(training={"keep_checkpoints": 5, "save_every": 2})
    trainer(same, folder=tmp_path, identity={"data": "a", "model": "b"}).resume()


def test_changes_that_are_allowed_are_told_of_and_gone_on_with(tmp_path: Path) -> None:
    run = settings(training={"save_every": 4, "evaluate_every": 2})
    found, _ = traced(run, tmp_path, [0.5] * 6)
    found.run()
    shutil.rmtree(tmp_path / "checkpoints" / "step-0000006")
    longer = settings(
        training={"epochs": 3, "precision": "fp16", "evaluate_every": 2},
        schedule={"name": "plateau"}, optimizer={"learning_rate": 2e-2},
    )  # fmt: skip
    resumed, trace = traced(longer, tmp_path, [0.4] * 5 + [0.6] * 4)
    lines = resumed.resume(allow_changes=True)
    said = "gone on with all the same: "
    assert sorted(lines) == [
        f"{said}optimizer.learning_rate is 0.02, was 0.01",
        f"{said}schedule.name is 'plateau', was 'linear'",
        f"{said}training.epochs is 3.0, was 2.0",
        f"{said}training.precision is 'fp16', was 'fp32'",
    ]
    assert (resumed.step, resumed.best.step, resumed.best.value) == (4, 2, 0.5)
    kept, _ = load_state(tmp_path / "checkpoints")
    assert kept is not None
    assert_same(
        {n.removeprefix("model."): t for n, t in kept.tensors.items() if n.startswith("model.")},
        values(resumed.model),
    )
    resumed.run()
    assert [record.step for record in trace.records] == [5, 6, 7, 8, 9]
    assert trace.records[0].learning_rate == 2e-2
    assert (resumed.best.step, resumed.best.value) == (6, 0.6)
    again, _ = traced(longer, tmp_path, [])
    assert again.resume() == []  # it is this run now
    assert again.step == 9


def test_another_optimizer_starts_anew_where_that_is_allowed(tmp_path: Path) -> None:
    trainer(settings(training={"save_every": 4}), folder=tmp_path).run()
    shutil.rmtree(tmp_path / "checkpoints" / "step-0000006")
    run = settings(optimizer={"name": "sgd"})
    resumed = trainer(run, folder=tmp_path)
    lines = resumed.resume(allow_changes=True)
    assert [line[:30] for line in lines] == [
        "gone on with all the same: opt", "the optimizer starts anew: the",
    ]  # fmt: skip
    resumed.run()
    assert resumed.step == 6


def test_early_stop_is_known_when_it_is_gone_on_with(tmp_path: Path) -> None:
    """Killed while the model was saved, say: there is nothing left to train."""
    run = settings(training={"evaluate_every": 1, "early_stopping_patience": 2})
    found, _ = traced(run, tmp_path, [0.5, 0.4, 0.4])
    found.run()
    assert (found.step, found.stopped_early) == (3, True)
    resumed, trace = traced(run, tmp_path, [])
    assert resumed.resume() == []
    assert resumed.stopped_early
    resumed.run()
    assert resumed.step == 3
    assert trace.calls == ["at_end"]


def test_best_weights_are_those_of_the_best_update_whatever_else_is_there(tmp_path: Path) -> None:
    run = settings(training={"evaluate_every": 1})
    found, _ = traced(run, tmp_path, [0.5, 0.4, 0.9, 0.1, 0.1, 0.1])
    found.run()
    kept, _ = load_state(tmp_path / "best", step=3)
    assert kept is not None
    other = {name: torch.zeros_like(tensor) for name, tensor in kept.tensors.items()}
    save_state(tmp_path / "best", 5, other, {})
    found.restore_best()
    assert_same(kept.tensors, values(found.model))


def test_optimizer_state_that_does_not_fit_is_refused_in_the_same_run(tmp_path: Path) -> None:
    """As another version of the optimizers might have left it."""
    trainer(settings(), folder=tmp_path).run()
    place = tmp_path / "checkpoints"
    found, _ = load_state(place)
    assert found is not None
    tensors = {name: t for name, t in found.tensors.items() if "square.classifier" not in name}
    facts = {k: v for k, v in found.facts.items() if k not in ("step", "tensors_sha256")}
    save_state(place, 6, tensors, facts)
    with pytest.raises(
        CheckpointError, match=r"optimizer's state lacks square\.classifier\.weight"
    ):
        trainer(settings(), folder=tmp_path).resume(allow_changes=True)


def test_updates_that_were_skipped_are_counted_on(tmp_path: Path) -> None:
    ids = [[2, 5, 3], [2, 6, 3], [2, 7, 3], [2, 8, 3]]
    tags = [[-100] * 3, [-100] * 3, [-100, 1, -100], [-100, 2, -100]]
    data = Examples(ids, [[0] * 3] * 4, tags)
    run = RunConfig.from_dict(
        {"task": "tokens", "training": {"batch_size": 1, "epochs": 3, "save_every": 5}}
    )

    def made() -> Trainer:
        torch.manual_seed(0)
        task = text_task(run, LABELS, data.targets)
        return Trainer(BertForTokenClassification(TINY), task.objective, data, run, folder=tmp_path)

    made().run()
    shutil.rmtree(tmp_path / "checkpoints" / "step-0000012")
    resumed = made()
    resumed.resume()
    assert (resumed.step, 4 <= resumed.n_skipped <= 6) == (10, True)
    resumed.run()
    assert (resumed.step, resumed.n_skipped) == (12, 6)


@pytest.mark.parametrize("what", ["data", "metric"])
def test_best_of_other_data_or_another_figure_is_not_compared_with(
    what: str, tmp_path: Path
) -> None:
    run = settings(training={"save_every": 1, "evaluate_every": 1})
    found, _ = traced(run, tmp_path, [0.9] * 6)
    found.run()
    shutil.rmtree(tmp_path / "checkpoints" / "step-0000006")
    if what == "metric":
        run = settings(training={"save_every": 1, "evaluate_every": 1, "metric": "loss"})
    resumed, _ = traced(run, tmp_path, [0.1] * 6)
    if what == "data":
        resumed.identity = {"data": "other", "model": "b"}
    else:
        resumed.metric = "loss"
    lines = resumed.resume(allow_changes=True)
    assert lines[-1] == "the best evaluation is looked for anew: it was of other data or figures"
    resumed.run()
    assert (resumed.best.step, resumed.best.value) == (6, 0.1 if what == "data" else 0.0)


def test_another_network_cannot_be_gone_on_with(tmp_path: Path) -> None:
    trainer(settings(), folder=tmp_path).run()
    before = files(tmp_path)
    other = trainer(settings(), folder=tmp_path)
    other.model.classifier = nn.Linear(4, 2)
    with pytest.raises(
        CheckpointError, match=r"step-0000006: classifier.weight is \(3, 4\), expected \(2, 4\)"
    ):
        other.resume(allow_changes=True)
    other.model.classifier = nn.Sequential(nn.Linear(4, 3))  # type: ignore[assignment]
    with pytest.raises(CheckpointError, match=r"classifier\.0\.weight is not there, expected"):
        other.resume(allow_changes=True)
    assert files(tmp_path) == before


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint to go on from.* without --resume"):
        trainer(settings(), folder=tmp_path).resume()
    trainer(settings(training={"save_every": 9}), folder=tmp_path).run()
    (tmp_path / "checkpoints" / "step-0000006" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"no checkpoint .*; step-0000006 is torn and passed"):
        trainer(settings(), folder=tmp_path).resume(allow_changes=True)


def test_resuming_tidies_up_behind_a_process_that_was_killed(tmp_path: Path) -> None:
    run = settings(training={"save_every": 1, "keep_checkpoints": 2})
    trainer(run, folder=tmp_path).run()
    before = files(tmp_path)
    place = tmp_path / "checkpoints"
    shutil.copytree(place / "step-0000006", place / "step-0000001")
    shutil.copytree(place / "step-0000006", place / ".step-0000006.abcd_123" / "step-0000006")
    shutil.copytree(place / "step-0000006", tmp_path / "best" / "step-0000003")
    trainer(run, folder=tmp_path).resume()
    assert files(tmp_path) == before


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
