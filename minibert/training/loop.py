"""The training loop: `Trainer.run` goes through the updates one by one, and can be read so.

    an update: batch -> portions -> loss as (sum, count) -> backward -> divided by the count of all
    portions -> clipped -> optimizer at the schedule's rate -> StepRecord

Of several processes each computes its share of every portion, and all make the same update.

Whoever wants to know what happens is an observer, called with each loss, after backward, before and
after each update, and after each evaluation: the log, the progress bar, the doctor.
"""

import contextlib
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from minibert import ops
from minibert.errors import CheckpointError, RunError, TrainingError
from minibert.gradients import gradient_values, row_gradients
from minibert.model import BertModel
from minibert.training.batches import drawn, epoch_batches, portions
from minibert.training.examples import Batch, Examples, collate
from minibert.training.losses import IGNORED, LossSum
from minibert.training.memory import freed_memory_kept
from minibert.training.metrics import LOWER_IS_BETTER, is_better
from minibert.training.optim import PRESETS, SGD, AdamW, clip_gradients, parameter_groups
from minibert.training.processes import Processes, current
from minibert.training.run_config import RunConfig
from minibert.training.schedules import SCHEDULES, Plateau, constant
from minibert.training.state import (
    Checkpoint,
    load_facts,
    load_state,
    prune,
    save_state,
    steps,
)
from minibert.training.substitutes import substitutes_for

Objective = Callable[[nn.Module, Batch], LossSum]
Evaluation = Callable[[nn.Module], Mapping[str, float]]
Prepare = Callable[[Examples, Sequence[int], int], Batch]
Schedule = Callable[[int, int, int], float]

_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What is known of an update."""

    step: int  # counted from 1
    epoch: int  # counted from 0
    loss: float  # the mean over what counts
    count: float  # of what counts: examples, tokens, or the sum of their weights
    learning_rate: float  # the highest of the groups
    grad_norm: float  # before it was clipped
    n_examples: int
    n_tokens: int
    seconds: float


class Observer:
    """Told of what happens; each method does nothing unless a subclass wants to know."""

    def after_loss(self, trainer: "Trainer", batch: Batch, loss: LossSum) -> None:
        """The network has seen a portion of the update's batch; its gradients come next."""

    def after_backward(self, trainer: "Trainer") -> None:
        """The gradients are there, not yet divided by the count."""

    def before_update(self, trainer: "Trainer") -> None:
        """The gradients are divided and clipped."""

    def after_update(self, trainer: "Trainer", record: StepRecord) -> None:
        """The parameters are new."""

    def after_evaluation(self, trainer: "Trainer", metrics: Mapping[str, float]) -> None:
        """`metrics` are those of the validation examples."""

    def before_save(self, trainer: "Trainer") -> None:
        """A checkpoint comes next: what it takes as told has to be on the disk."""

    def at_end(self, trainer: "Trainer") -> None:
        """Training is over, or was stopped."""


@dataclass
class Best:
    """The best evaluation so far, and how many came after it."""

    value: float | None = None
    step: int = 0
    since: int = 0

    def update(self, metric: str, value: float, step: int) -> bool:
        """Note an evaluation; is it the best?"""
        better = is_better(metric, value, math.nan if self.value is None else self.value)
        if better:
            self.value, self.step, self.since = value, step, 0
        else:
            self.since += 1
        return better


@dataclass(eq=False)
class Trainer:
    """Trains a network on examples, as a run file says.

    Args:
        model: what is trained, in float32.
        objective: the loss of a batch.
        train: the examples.
        run_config: what the run file says.
        prepare: makes some of the examples a batch, for the update of that number; None collates
            them, with targets of `target_dtype`.
        evaluate: measures the network on validation examples; None for no evaluation.
        metric: which of its figures decides.
        observers: who is told.
        folder: where checkpoints go; None keeps none.
        identity: what a checkpoint has to agree with to be gone on from: model and data.
        processes: those that train together; of the files in `folder` the first writes all.
        schedule: the rate's multiplier by step, total and warmup, as those of `schedules.py`, in
            place of the one that the run file names.

    Raises: RunError for settings that do not fit.
    """

    model: nn.Module
    objective: Objective
    train: Examples
    run_config: RunConfig
    target_dtype: torch.dtype = torch.long
    prepare: Prepare | None = None
    evaluate: Evaluation | None = None
    metric: str = "loss"
    observers: Sequence[Observer] = ()
    folder: Path | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    processes: Processes = field(default_factory=current)
    schedule: Schedule | None = None
    step: int = 0  # updates done
    stopping: bool = False  # set from outside: end after this update, to be gone on with
    stopped_early: bool = False  # no evaluation was better for as long as its patience
    best: Best = field(default_factory=Best)
    n_skipped: int = 0  # updates without anything that counts
    rate: float = 0.0  # of the update that is being made: the highest of the groups

    def __post_init__(self) -> None:
        settings = self.run_config.training
        if not len(self.train):
            raise RunError("there is nothing to train on, expected at least one example")
        if not any(map(_has_label, self.train.targets)):
            raise RunError(
                "all labels of all training examples are ignored, expected at least one that "
                "counts; is data.max_length so short that no labelled word is left?"
            )
        self.device = _device(self.processes.device(settings.device))
        self.model.to(self.device)
        self._epochs: dict[int, list[list[int]]] = {}
        self._examples = self.train  # those of the epoch
        self.steps_per_epoch = len(self._batches(0))
        self.total = max(1, math.ceil(settings.epochs * self.steps_per_epoch))
        self.warmup = round(self.run_config.schedule.warmup_fraction * self.total)
        self.frozen = frozen_modules(self.model, settings.freeze)
        if settings.gradient_checkpointing:
            recompute_activations(self.model)
        self.optimizer = _optimizer(self.model, self.run_config)
        self.plateau = None
        if self.run_config.schedule.name == "plateau":
            self.plateau = Plateau(
                mode="min" if self.metric in LOWER_IS_BETTER else "max",
                factor=self.run_config.schedule.plateau_factor,
                patience=self.run_config.schedule.plateau_patience,
            )
        self.scale = LossScale() if settings.precision == "fp16" else None
        self.substitutes = substitutes_for(
            settings.engine,
            precision=settings.precision,
            device=self.device,
            n_tokens=sum(self.train.lengths) * settings.epochs,
        )
        if self.substitutes is not None:  # whose weights are not to the last bit PyTorch's
            self.identity = {**self.identity, "engine": "kernels"}

    @freed_memory_kept()
    def run(self) -> None:
        """All updates that are left, with evaluations and checkpoints in between."""
        with ops.computed_by(self.substitutes), self._gradients_of_tables():
            self._run()

    def _run(self) -> None:
        settings = self.run_config.training
        if self.step == 0:
            # Of dropout, whatever was drawn before.
            torch.manual_seed(self.processes.seed(settings.seed))
        stopping = self.processes.any(self.stopping)
        while self.step < self.total and not (stopping or self.stopped_early):
            self._mode()
            epoch, place = divmod(self.step, self.steps_per_epoch)
            record = self._update(self._batches(epoch)[place], epoch)
            for observer in self.observers:
                observer.after_update(self, record)
            last = self.step == self.total
            if self.evaluate is not None and (last or self._due(settings.evaluate_every)):
                self._evaluate()
            last = last or self.stopped_early
            # Of all of them after the same update; a signal may come behind the next line too.
            stopping = self.processes.any(self.stopping)
            if self.folder is not None and (last or stopping or self._due(settings.save_every)):
                self.save()
                stopping = self.processes.any(self.stopping)
        for observer in self.observers:
            observer.at_end(self)

    def _update(self, rows: Sequence[int], epoch: int) -> StepRecord:
        """One update: the gradients of a batch, and a step of the optimizer."""
        start = time.perf_counter()
        total, count, n_tokens = 0.0, 0.0, 0.0
        for part in portions(rows, self.run_config.training.accumulate):
            with self.processes.sharing(part) as share:
                if share:
                    loss, n = self._backward(share)
                    total, count = total + float(loss.sum), count + float(loss.count)
                    n_tokens += n
        mean, counted, n_tokens = self.processes.add_up(total, count, n_tokens)
        self.processes.add_gradients(self.model.parameters())
        for observer in self.observers:
            observer.after_backward(self)
        multiplier = self._multiplier()
        self.rate = multiplier * max(group.learning_rate for group in self.optimizer.groups)
        norm = 0.0
        if counted:
            mean = mean / counted
            divisor = counted * (1.0 if self.scale is None else self.scale.value)
            limit = self.run_config.training.max_grad_norm or math.inf
            norm = clip_gradients(self.model.parameters(), limit, divisor=divisor)
            for observer in self.observers:
                observer.before_update(self)
            if self._is_usable(mean, norm):
                self.optimizer.step(multiplier)
        else:  # all labels of the batch are ignored
            self.n_skipped += 1
        self.optimizer.zero_grad()
        self.step += 1
        return StepRecord(
            step=self.step,
            epoch=epoch,
            loss=mean,
            count=counted,
            learning_rate=self.rate,
            grad_norm=norm,
            n_examples=len(rows),
            n_tokens=int(n_tokens),
            seconds=time.perf_counter() - start,
        )

    def _batch(self, rows: Sequence[int]) -> Batch:
        if self.prepare is None:
            return collate(self._examples, rows, dtype=self.target_dtype)
        return self.prepare(self._examples, rows, self.step)

    def _backward(self, rows: Sequence[int]) -> tuple[LossSum, int]:
        """Add the gradients of some examples; their loss, and how many tokens they have."""
        batch = self._batch(rows).to(self.device)
        with self._precision():
            loss = self.objective(self.model, batch)
        for observer in self.observers:
            observer.after_loss(self, batch, loss)
        scaled = loss.sum if self.scale is None else loss.sum * self.scale.value
        scaled.backward()  # type: ignore[no-untyped-call]
        return LossSum(loss.sum.detach(), loss.count.detach()), batch.n_tokens

    def _is_usable(self, loss: float, norm: float) -> bool:
        """May the optimizer step? In half precision an overflow only lowers the scale.

        Raises: TrainingError for a loss or a gradient that is no number, naming where.
        """
        finite = math.isfinite(loss) and math.isfinite(norm)
        if self.scale is not None:
            self.scale.update(finite=math.isfinite(norm))
            if math.isfinite(loss) and self.scale.value >= 1:
                return finite
        if finite:
            return True
        where = first_not_finite(self.model)
        what = "the loss" if not math.isfinite(loss) else "the gradient"
        kept = "" if self.folder is None else f"; the checkpoints in {self.folder} are whole"
        raise TrainingError(
            f"{what} of update {self.step + 1} is not finite ({loss}, norm {norm}), first in "
            f"{where}, expected numbers: nothing was updated{kept}; lower "
            "optimizer.learning_rate, or take precision = 'bf16' or 'fp32'"
        )

    def _multiplier(self) -> float:
        """The share of the highest rate that this update is made with."""
        if self.schedule is not None:
            return self.schedule(self.step, self.total, self.warmup)
        schedule = self.run_config.schedule
        if self.plateau is not None:
            return constant(self.step, self.total, self.warmup) * self.plateau.multiplier
        settings: dict[str, Any] = {}
        if schedule.name == "cosine":
            settings["restarts"] = schedule.restarts
        elif schedule.name == "polynomial":
            settings["power"] = schedule.power
        return SCHEDULES[schedule.name](self.step, self.total, self.warmup, **settings)

    def _evaluate(self) -> None:
        assert self.evaluate is not None
        self.model.eval()
        with torch.no_grad(), self._precision():
            metrics = self.processes.from_first(dict(self.evaluate(self.model)))
        value = metrics[self.metric]
        if self.best.update(self.metric, value, self.step):
            self.save_best()
        if self.plateau is not None:
            self.plateau.update(value)
        self.stopped_early = self._is_out_of_patience()
        for observer in self.observers:
            observer.after_evaluation(self, metrics)

    def _is_out_of_patience(self) -> bool:
        patience = self.run_config.training.early_stopping_patience
        return patience is not None and self.best.since >= patience

    def _mode(self) -> None:
        """Training mode, but for what is frozen, which neither drops nor learns."""
        until = self.run_config.training.freeze_until_step
        thawed = until is not None and self.step >= until
        self.model.train()
        for module in self.frozen:
            module.train(thawed)
            module.requires_grad_(thawed)

    def _batches(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch, of its examples; of the last one asked for they are kept."""
        if epoch not in self._epochs:
            settings, sampling = self.run_config.training, self.run_config.data.sampling
            self._examples = self.train
            if sampling != "none":
                # One that is drawn twice becomes two, which are not augmented alike.
                rows = drawn(self.train.targets, sampling, seed=settings.seed, epoch=epoch)
                self._examples = self.train.taken(rows)
            self._epochs = {
                epoch: epoch_batches(
                    self._examples.lengths,
                    settings.batch_size,
                    seed=settings.seed,
                    epoch=epoch,
                    pool_batches=self.run_config.data.length_pool,
                )
            }
        return self._epochs[epoch]

    def _gradients_of_tables(self) -> contextlib.AbstractContextManager[None]:
        """Of rows alone, with kernels: a norm of other parts is not the same to the last bit."""
        takes_rows = isinstance(self.optimizer, AdamW) and not self.run_config.optimizer.l1
        if self.substitutes is None or not takes_rows or self.processes.size > 1:
            return contextlib.nullcontext()
        return row_gradients(self.model)

    def _due(self, every: str | int) -> bool:
        return self.step % (every if isinstance(every, int) else self.steps_per_epoch) == 0

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        dtype = _PRECISIONS.get(self.run_config.training.precision)
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=dtype)

    # ---- checkpoints

    def save(self) -> None:
        """A checkpoint from which training goes on bit for bit; then the oldest go."""
        assert self.folder is not None
        random = self.processes.exchange(_random_state(self.device))
        if not self.processes.is_first:
            return
        for observer in self.observers:
            observer.before_save(self)
        tensors = {f"model.{name}": tensor for name, tensor in _weights(self.model).items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.optimizer.state_dict().items()}
        for rank, state in enumerate(random):
            tensors |= {f"random.{rank}.{kind}": values for kind, values in state.items()}
        facts: dict[str, Any] = {
            "identity": dict(self.identity),
            "run": self.run_config.to_dict(),
            "processes": self.processes.size,
            "metric": self.metric,
            "best": vars(self.best),
            "n_skipped": self.n_skipped,
            "plateau": None if self.plateau is None else self.plateau.state_dict(),
            "scale": None if self.scale is None else vars(self.scale),
        }
        place = self.folder / "checkpoints"
        save_state(place, self.step, tensors, facts)
        self._prune(newer=False)  # torn ones, which training went on without

    def save_best(self) -> None:
        """The weights of the best evaluation."""
        if self.folder is not None and self.processes.is_first:
            save_state(self.folder / "best", self.step, _weights(self.model), {})
            self._prune()

    def _prune(self, *, newer: bool = True) -> None:
        """Delete all but the newest checkpoints up to here, and the best weights of each.

        Whichever checkpoint is gone on from finds the weights that were the best then.
        """
        assert self.folder is not None
        place = self.folder / "checkpoints"
        found = steps(place)
        up_to_here = [step for step in found if step <= self.step]
        kept = up_to_here[: self.run_config.training.keep_checkpoints]
        facts = [load_facts(place, step) for step in kept]
        best = {each["best"]["step"] for each in facts if each is not None}
        prune(place, [step for step in found if step > self.step and newer] + kept)
        prune(self.folder / "best", best | {self.best.step})

    def resume(self, *, allow_changes: bool = False) -> list[str]:
        """Go on from the newest whole checkpoint.

        Args:
            allow_changes: go on with another run file, other data or another start of the model:
                the weights and the number of updates are those of the checkpoint, all else is as
                it is set now.

        Returns: a line about each checkpoint that is torn, and each change.

        Raises: CheckpointError where there is none, or it is of another run: what differs is
            listed.
        """
        assert self.folder is not None
        found, lines = load_state(self.folder / "checkpoints")
        if found is None:
            raise CheckpointError(
                f"{self.folder}: has no checkpoint to go on from, expected one in checkpoints/"
                f"{''.join(f'; {line}' for line in lines)}; start anew, without --resume"
            )
        changes = self._changes(found)
        if changes and not allow_changes:
            raise CheckpointError(
                f"{found.folder}: is of another run, expected the same: {'; '.join(changes)}; put "
                "it back, go on all the same by --allow-changes, or start anew in another output "
                "folder"
            )
        lines += [f"gone on with all the same: {change}" for change in changes]
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "random": {}}
        for name, tensor in found.tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = tensor
        _put_weights(self.model, parts["model"], found.folder)
        try:
            self.optimizer.load_state_dict(parts["optimizer"])
        except CheckpointError as error:
            if not changes:
                raise
            lines.append(f"the optimizer starts anew: {error}")
        facts = found.facts
        self.step, self.n_skipped = int(facts["step"]), int(facts["n_skipped"])
        if self.scale is not None and facts["scale"] is not None:
            self.scale = LossScale(**facts["scale"])
        lines += self._resume_best(facts, allow_changes=allow_changes)
        rank = self.processes.rank
        if f"{rank}.cpu" in parts["random"]:
            torch.set_rng_state(parts["random"][f"{rank}.cpu"])
        else:  # there are more processes than before
            torch.manual_seed(self.processes.seed(self.run_config.training.seed))
        if self.device.type == "cuda" and f"{rank}.cuda" in parts["random"]:
            torch.cuda.set_rng_state(parts["random"][f"{rank}.cuda"], self.device)
        if self.processes.is_first:
            self._prune()
        return lines

    def _resume_best(self, facts: Mapping[str, Any], *, allow_changes: bool) -> list[str]:
        """Take over the best evaluation, where it can be compared with those that come."""
        assert self.folder is not None
        best = Best(**facts["best"])
        if self.identity.get("data") != facts["identity"].get("data") or (
            self.metric != facts["metric"]
        ):
            return ["the best evaluation is looked for anew: it was of other data or figures"]
        if best.value is not None:
            found, torn = load_state(self.folder / "best", step=best.step)
            why = f"the best weights, of update {best.step}, are {'torn' if torn else 'gone'}"
            if found is None and not allow_changes:
                raise CheckpointError(
                    f"{self.folder / 'best'}: {why}, expected them beside the checkpoints; put "
                    "them back, or go on without by --allow-changes"
                )
            if found is None:
                return [f"the best evaluation is looked for anew: {why}"]
        self.best = best
        if self.plateau is not None and facts["plateau"] is not None:
            self.plateau.load_state_dict(facts["plateau"])
        self.stopped_early = self._is_out_of_patience()
        return []

    def restore_best(self) -> None:
        """Put the best evaluation's weights back into the model."""
        if self.folder is not None and self.best.value is not None:
            found, torn = load_state(self.folder / "best", step=self.best.step)
            if found is None:
                raise CheckpointError(
                    f"{self.folder / 'best'}: the best weights, of update {self.best.step}, are "
                    f"{'torn' if torn else 'gone'}; go on without by --resume --allow-changes"
                )
            _put_weights(self.model, found.tensors, found.folder)

    def _changes(self, found: Checkpoint) -> list[str]:
        """What differs from the run that a checkpoint is of."""
        differing = _differences(found.facts["run"], self.run_config.to_dict())
        n_processes, n_before = self.processes.size, found.facts["processes"]
        if n_processes != n_before:  # each of which draws by itself
            differing.append(f"torchrun's processes are {n_processes}, were {n_before}")
        known = found.facts["identity"]
        parts = dict.fromkeys([*self.identity, *known])
        return differing + [
            f"{part} changed" for part in parts if known.get(part) != self.identity.get(part)
        ]


@dataclass
class LossScale:
    """What a float16 loss is multiplied by, so that small gradients do not vanish.

    Halved when gradients overflow, and that update left out; doubled after 2,000 that did not.
    Source: Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740, section 3.2.
    """

    value: float = 2.0**16
    since: int = 0

    def update(self, *, finite: bool) -> None:
        """After an update, whether its gradients were finite."""
        if not finite:
            self.value, self.since = self.value / 2, 0
        elif self.since + 1 == 2000:
            self.value, self.since = self.value * 2, 0
        else:
            self.since += 1


def frozen_modules(model: nn.Module, spec: str) -> list[nn.Module]:
    """The modules that a run file freezes: "embeddings", "encoder", layers as "0-5" or "3".

    Raises: RunError for a part that is none of these, or a layer that is not there.
    """
    encoders = [module for module in model.modules() if isinstance(module, BertModel)]
    found: list[nn.Module] = []
    for part in filter(None, (part.strip() for part in spec.split(","))):
        encoder = encoders[0]
        n_layers = len(encoder.layers)
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        if part == "encoder":
            found.append(encoder)
        elif part == "embeddings":
            found.append(encoder.embeddings)
        elif match and int(match[1]) <= int(match[2] or match[1]) < n_layers:
            found += list(encoder.layers[int(match[1]) : int(match[2] or match[1]) + 1])
        else:
            raise RunError(
                f"training.freeze has {part!r}, expected 'embeddings', 'encoder', or layers from "
                f"0 to {n_layers - 1}, as '0-{n_layers - 1}'"
            )
    return found


def recompute_activations(model: nn.Module) -> None:
    """Have each layer compute its activations again for the backward pass, in place of keeping
    them."""
    for module in model.modules():
        if isinstance(module, BertModel):
            for layer in module.layers:
                layer.forward = partial(recompute, layer.forward, use_reentrant=False)


def first_not_finite(model: nn.Module) -> str:
    """Where the first parameter is, in the order of the network, that is or has got no numbers."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            return f"the values of {name}"
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        if not bool(gradient_values(parameter.grad).isfinite().all()):
            return f"the gradient of {name}"
    return "the loss"


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """Where the random numbers of this process stand."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter once, under its name; tied ones under their first."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _has_label(target: Any) -> bool:
    """Is there anything to learn from an example with this target?"""
    return any(
        each != IGNORED for each in (target if isinstance(target, list | tuple) else [target])
    )


@torch.no_grad()
def _put_weights(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Give the parameters the values that `_weights` took.

    Raises: CheckpointError where they are those of another network.
    """
    for name, parameter in model.named_parameters():
        shape = tuple(tensors[name].shape) if name in tensors else "not there"
        if shape != tuple(parameter.shape):
            raise CheckpointError(
                f"{folder}: {name} is {shape}, expected {tuple(parameter.shape)}: one cannot go on "
                "with another model or other labels; start anew in another output folder"
            )
    for name, parameter in model.named_parameters():
        parameter.copy_(tensors[name])


def _optimizer(model: nn.Module, run: RunConfig) -> AdamW | SGD:
    settings = run.optimizer
    groups = parameter_groups(
        model,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        l1=settings.l1,
        head_learning_rate=settings.head_learning_rate,
        layer_decay=settings.layer_decay,
    )
    if settings.name == "sgd":
        return SGD(groups, momentum=settings.momentum)
    name = "torch_adamw" if settings.name == "adamw" else settings.name
    return PRESETS[name](groups)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise RunError(f"training.device is {name!r}, which is not here: {line}") from None
    return device


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    """The keys of a run that changed, as "data.max_length is 64, was 128"."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for name in [*now, *(name for name in before if name not in now)]:
            inner = f"{where}.{name}" if where else name
            if inner in _MAY_CHANGE:
                continue
            found += _differences(before.get(name), now.get(name), inner)
        return found
    return [] if before == now else [f"{where} is {now!r}, was {before!r}"]


# What changes nothing of what is computed.
_MAY_CHANGE = {
    "output", "training.save_every", "training.keep_checkpoints", "training.device",
}  # fmt: skip
