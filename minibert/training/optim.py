"""Optimizers: how far each parameter goes, which are decayed, and what is remembered of each.

    groups = parameter_groups(model, learning_rate=3e-5, weight_decay=0.01)
    optimizer = AdamW(groups)                        # or PRESETS["google_bert"](groups)
    for step in range(total):
        …backward…
        norm = clip_gradients(model.parameters(), 1.0)
        optimizer.step(schedules.linear(step, total, warmup))
        optimizer.zero_grad()

A group says the highest rate; `step` receives the schedule's multiplier in [0, 1].  Only parameters
that require a gradient and have one are touched: what is frozen keeps its value, whatever the decay
says, costs no memory, and can be unfrozen later.

The arithmetic is done on many tensors by one call: on a CPU all of AdamW in one pass over memory
where that gives the same, else on blocks that stay in the cache, for with nine operations over all
parameters waiting for memory is much of what a step costs.  The `torch._foreach_…` and
`torch._fused_…` functions have a private name but are what every optimizer of torch runs on.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minibert.errors import CheckpointError, TrainingError
from minibert.gradients import gradient_values
from minibert.model import BertModel
from minibert.training.row_moments import Part, RowMoments

# Elements. 2 MiB of float32: a block of values, gradients, two moments and one temporary stays in
# the cache that the cores share, and is long enough for the threads to be worth their start.
_BLOCK = 1 << 19
# Elements that fill every register that torch computes with. What is left over it computes one by
# one, in float64: near, but not the same. Without AVX2 nothing is.
_LANES = 16
_HAS_LANES = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
# Of a long float32 tensor, torch's norm on a CPU is wrong by up to 5e-4; of pieces by 2e-7.
_NORM_PIECE = 1 << 16
_HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters that are updated alike.

    Attributes:
        names: of the parameters, as `named_parameters` has them; state is saved under them.
        learning_rate: the highest; a schedule's multiplier comes on top.
        weight_decay: the share of a value that each step takes away, before the rate's factor.
        l1: the amount that each step takes away, before the rate's factor; it stops at 0.

    Raises: TrainingError for a rate, decay or l1 that is negative or not finite.
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    learning_rate: float
    weight_decay: float = 0.0
    l1: float = 0.0

    def __post_init__(self) -> None:
        if len(self.names) != len(self.parameters):
            raise TrainingError(
                f"a group has {len(self.names)} names for {len(self.parameters)} parameters, "
                "expected one each; make groups with parameter_groups"
            )
        for setting in ("learning_rate", "weight_decay", "l1"):
            _check_number(setting, getattr(self, setting))


def parameter_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float = 0.01,
    l1: float = 0.0,
    head_learning_rate: float | None = None,
    layer_decay: float = 1.0,
) -> list[ParameterGroup]:
    """Every parameter of `model` once, with its own rate and decay.

    Biases and the parameters of LayerNorm have neither decay nor l1; everything else, embeddings
    included, has both.  A parameter is a bias when its module calls it `bias`, and a LayerNorm's
    when its module is one, whatever either is called in the model.

    The rate depends on how far from the loss a parameter is, in an encoder of n layers:

        the head: all outside the encoder     head_learning_rate, or learning_rate
        pooler and layer n-1                  learning_rate
        layer i                               learning_rate · layer_decay^(n-1-i)
        embeddings                            learning_rate · layer_decay^n

    A table that the head shares (a tied decoder) belongs to the encoder.

    Raises: TrainingError for a number out of its range, or for `head_learning_rate` or
        `layer_decay` where `model` holds no `BertModel`, or several.
    Source: Howard & Ruder 2018, https://arxiv.org/abs/1801.06146, "discriminative fine-tuning".
    Differs: google-research/electra gives the top layer layer_decay² already.
    """
    _check_number("layer_decay", layer_decay)
    if not 0 < layer_decay <= 1:
        raise TrainingError(
            f"layer_decay is {layer_decay}, expected a number above 0 and at most 1; 1 gives all "
            "layers one rate"
        )
    head_rate = learning_rate
    if head_learning_rate is not None:
        _check_number("head_learning_rate", head_learning_rate)
        head_rate = head_learning_rate
    encoders = [module for module in model.modules() if isinstance(module, BertModel)]
    if len(encoders) != 1 and (head_learning_rate is not None or layer_decay != 1):
        raise TrainingError(
            f"the model holds {len(encoders)} BertModels, expected one to tell head from encoder; "
            "leave out head_learning_rate and layer_decay"
        )
    _check_number("learning_rate", learning_rate)
    factors = _layer_factors(encoders[0], layer_decay) if len(encoders) == 1 else {}
    undecayed = _undecayed(model)
    members: dict[tuple[float, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        rate = learning_rate * factors[parameter] if parameter in factors else head_rate
        members.setdefault((rate, parameter not in undecayed), []).append((name, parameter))
    return [
        ParameterGroup(
            names=tuple(name for name, _ in group),
            parameters=tuple(parameter for _, parameter in group),
            learning_rate=rate,
            weight_decay=weight_decay if decayed else 0.0,
            l1=l1 if decayed else 0.0,
        )
        for (rate, decayed), group in members.items()
    ]


def _layer_factors(encoder: BertModel, layer_decay: float) -> dict[nn.Parameter, float]:
    """What `layer_decay` makes of the rate of each parameter of an encoder."""
    n_layers = len(encoder.layers)
    factors = dict.fromkeys(encoder.parameters(), 1.0)
    for parameter in encoder.embeddings.parameters():
        factors[parameter] = layer_decay**n_layers
    for i, layer in enumerate(encoder.layers):
        for parameter in layer.parameters():
            factors[parameter] = layer_decay ** (n_layers - 1 - i)
    return factors


def _undecayed(model: nn.Module) -> set[nn.Parameter]:
    """Biases, and the parameters of LayerNorm."""
    return {
        parameter
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, nn.LayerNorm) or name == "bias"
    }


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float, *, divisor: float = 1.0) -> float:
    """Divide gradients, and scale them so that their common norm is at most `max_norm`.

    norm = √(Σ (g / divisor)²) over all gradients
    g = g / divisor, and where norm > max_norm, g = g / divisor · max_norm / norm

    All in one pass behind the one for the norm; a sparse gradient is coalesced.  At or below the
    bound nothing is scaled, so that `math.inf` only measures.  Where the norm is NaN or infinite
    nothing is touched: scaled, infinite gradients would become NaN and the others 0.  The caller
    must look at what is returned, and not step.  Returning a number waits for an accelerator.

    Returns: the norm before it was clipped.

    Raises: TrainingError for a bound that is NaN, 0 or negative.
    Differs: torch.nn.utils.clip_grad_norm_ divides by norm + 1e-6, so that gradients just below
        the bound change too.
    """
    if not max_norm > 0:
        raise TrainingError(
            f"max_norm is {max_norm}, expected a number above 0; 1.0 is BERT's, math.inf clips "
            "nothing"
        )
    gradients = []
    for parameter in dict.fromkeys(parameters):
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
            gradients.append(gradient_values(parameter.grad))
    raw = _norm([part for grad in gradients for part in torch.split(grad.reshape(-1), _NORM_PIECE)])
    if not math.isfinite(raw):  # perhaps only the squares were too large for float32
        raw = _norm([gradient.double() for gradient in gradients])
    norm = raw / divisor
    if not math.isfinite(norm):
        return norm
    if norm > max_norm:
        _scale(gradients, torch._foreach_mul_, max_norm / raw)
    elif divisor != 1:
        _scale(gradients, torch._foreach_div_, divisor)
    return norm


def _scale(
    gradients: list[Tensor], operation: Callable[[list[Tensor], Any], None], by: float
) -> None:
    full = [gradient for gradient in gradients if gradient.dtype not in _HALVES]
    if full:
        operation(full, by)
    for gradient in gradients:
        if gradient.dtype in _HALVES:  # in which the factor itself would be rounded
            wide = [gradient.float()]
            operation(wide, by)
            gradient.copy_(wide[0])


def _norm(tensors: list[Tensor]) -> float:
    """The norm of all values together, summed up in float64."""
    if not tensors:
        return 0.0
    # A norm has its tensor's dtype: half precision would round it, or have no room for it.
    tensors = [tensor.float() if tensor.dtype in _HALVES else tensor for tensor in tensors]
    norms = [norm.to(tensors[0].device) for norm in torch._foreach_norm(tensors)]
    return float(torch.stack(norms).double().norm())


@dataclass(eq=False)
class _Tracked:
    """A parameter, and what the optimizer remembers of it: nothing before its first step."""

    name: str
    parameter: nn.Parameter
    group: ParameterGroup
    steps: int = 0
    memory: tuple[Tensor, ...] = ()
    of_rows: RowMoments | None = None  # in place of `memory`

    @property
    def ready(self) -> bool:
        return self.parameter.requires_grad and self.parameter.grad is not None

    @property
    def dtype(self) -> torch.dtype:
        """In which the step is computed and remembered: float32, or float64 of float64."""
        return torch.promote_types(self.parameter.dtype, torch.float32)

    @property
    def in_one_pass(self) -> bool:
        """Whether a kernel over all of it gives what one operation after the other does."""
        assert self.parameter.grad is not None
        return (
            _HAS_LANES
            and self.parameter.device.type == "cpu"
            and self.parameter.dtype == self.dtype
            and (self.parameter.shape[1] if self.by_rows else self.parameter.numel()) % _LANES == 0
            and self.parameter.is_contiguous()
            and (self.by_rows or self.parameter.grad.is_contiguous())
        )

    @property
    def by_rows(self) -> bool:
        """Whether the gradient is one of rows, and no other row moves but by the decay."""
        assert self.parameter.grad is not None
        return (
            self.parameter.grad.is_sparse
            and self.parameter.ndim == 2
            and self.parameter.grad.sparse_dim() == 1
            and (not self.steps or self.of_rows is not None)
            and not self.group.l1
            and self.parameter.device.type == "cpu"
            and self.parameter.dtype == self.dtype
        )

    def prepare(self, *, rows: bool) -> None:
        """Make the gradient a whole one, and the memory, unless both can be of `rows`."""
        assert self.parameter.grad is not None
        if rows and self.by_rows:
            self.parameter.grad = self.parameter.grad.coalesce()
            return
        if self.parameter.grad.is_sparse:
            self.parameter.grad = self.parameter.grad.to_dense()
        if self.of_rows is not None:
            whole = self.of_rows.of_whole_table()
            self.memory = tuple(kind.to(self.parameter.device) for kind in whole)
            self.of_rows = None

    def begin(self, n_memories: int) -> None:
        """Count a step, and make room for what is new."""
        if self.by_rows:
            assert self.parameter.grad is not None
            if self.of_rows is None:
                self.of_rows = RowMoments(self.parameter, n_memories, self.dtype)
            self.of_rows.see(self.parameter.grad.indices()[0])
        elif not self.steps:
            self.memory = tuple(
                torch.zeros_like(
                    self.parameter, dtype=self.dtype, memory_format=torch.contiguous_format
                )
                for _ in range(n_memories)
            )
        self.steps += 1

    def pieces(self, limit: int) -> list[tuple[Tensor, ...]]:
        """Value, gradient and memory, cut alike into pieces of at most `limit` elements."""
        assert self.parameter.grad is not None
        tensors = (self.parameter.detach(), self.parameter.grad, *self.memory)
        if tensors[0].numel() <= limit or not tensors[0].is_contiguous():
            return [tensors]
        return list(
            zip(*(torch.split(tensor.reshape(-1), limit) for tensor in tensors), strict=True)
        )


class _Block(NamedTuple):
    """Pieces that are updated alike, by one call for each operation."""

    group: ParameterGroup
    steps: int  # this one included
    stored: list[Tensor]  # the parameters themselves
    values: list[Tensor]  # the same, or copies in float32 of half-precision parameters, or of rows
    gradients: list[Tensor]  # in the dtype of `values`
    memories: tuple[list[Tensor], ...]
    in_one_pass: bool  # whether it may be
    weight_decay: float
    rows: Tensor | None = None  # of the one parameter that is stored

    def finish(self, rate: float) -> None:
        """Take away l1, and round half-precision parameters once, at the end."""
        if self.group.l1:
            torch._foreach_sub_(self.values, _clamped(self.values, rate * self.group.l1))
        if self.rows is not None:
            self.stored[0].index_copy_(0, self.rows, self.values[0])
        elif self.stored[0].dtype != self.values[0].dtype:
            torch._foreach_copy_(self.stored, self.values)


def _clamped(values: list[Tensor], bound: float) -> tuple[Tensor, ...]:
    """`values` limited to ±bound: what the soft threshold takes away, so that it ends in 0."""
    clamped = torch._foreach_clamp_max(values, bound)
    torch._foreach_clamp_min_(clamped, -bound)
    return tuple(clamped)


class _Memory:
    """The parameters of an optimizer with what it remembers of them, under the names `kinds`.

    With `one_pass` what may be updated by a single kernel comes in blocks of its own, uncut.  With
    `rows` a sparse gradient's parameter comes in blocks of the rows that ever had one, and what is
    remembered is of these alone.
    """

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        kinds: tuple[str, ...],
        *,
        one_pass: bool = False,
        rows: bool = False,
    ) -> None:
        self.kinds = kinds
        self.one_pass = one_pass
        self.rows = rows
        self.tracked = [
            _Tracked(name, parameter, group)
            for group in groups
            for name, parameter in zip(group.names, group.parameters, strict=True)
        ]
        names, parameters = set[str](), set[nn.Parameter]()
        for entry in self.tracked:
            if entry.name in names or entry.parameter in parameters:
                raise TrainingError(
                    f"the groups hold {entry.name} twice, expected each name and parameter once; "
                    "make groups with parameter_groups"
                )
            names.add(entry.name)
            parameters.add(entry.parameter)

    def blocks(self, multiplier: float) -> Iterator[_Block]:
        """Count a step of every parameter that has a gradient, and give all that there is to do.

        A parameter of half precision is copied into float32, block by block.  All rows of a table
        that comes by rows have been decayed, at `multiplier` times the rate.
        """
        for likeness, alike in groupby(self._ready(), key=self._likeness):
            if likeness.by_rows:
                for entry in alike:
                    yield from self._row_blocks(entry, likeness, multiplier)
                continue
            cut = likeness.device.type == "cpu" and not likeness.in_one_pass
            limit = _BLOCK if cut else sys.maxsize
            n_elements, block = 0, list[tuple[Tensor, ...]]()
            for entry in alike:
                entry.begin(len(self.kinds))
                for piece in entry.pieces(limit):
                    if block and n_elements + piece[0].numel() > limit:
                        yield _block(likeness, block)
                        n_elements, block = 0, []
                    n_elements += piece[0].numel()
                    block.append(piece)
            yield _block(likeness, block)

    def _ready(self) -> Iterator[_Tracked]:
        for entry in self.tracked:
            if entry.ready:
                entry.prepare(rows=self.rows)
                yield entry

    def _row_blocks(
        self, entry: _Tracked, likeness: "_Likeness", multiplier: float
    ) -> Iterator[_Block]:
        entry.begin(len(self.kinds))
        assert entry.of_rows is not None
        assert entry.parameter.grad is not None
        table, group = entry.parameter.detach(), entry.group
        if group.weight_decay:
            table.mul_(1 - group.learning_rate * multiplier * group.weight_decay)
        for part in entry.of_rows.parts(entry.parameter.grad):
            yield _row_block(likeness, table, part)

    def _likeness(self, entry: _Tracked) -> "_Likeness":
        return _Likeness(
            entry.group,
            entry.steps,
            entry.parameter.device,
            entry.parameter.dtype,
            self.one_pass and entry.in_one_pass,
            entry.by_rows,
        )

    def zero_grad(self) -> None:
        for entry in self.tracked:
            entry.parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        state = {}
        for entry in self.tracked:
            state[f"steps.{entry.name}"] = torch.tensor(entry.steps)
            kinds = self.kinds if entry.steps else ()  # before its first step it remembers nothing
            memory = entry.memory
            if entry.of_rows is not None:
                memory = entry.of_rows.memory()
                state[f"rows.{entry.name}"] = entry.of_rows.rows
            for kind, tensor in zip(kinds, memory, strict=True):
                state[f"{kind}.{entry.name}"] = tensor
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        loaded, known = [], set[str]()
        for entry in self.tracked:
            steps = int(_stored(state, f"steps.{entry.name}", (), torch.int64))
            keys = [f"{kind}.{entry.name}" for kind in self.kinds] if steps else []
            shape = tuple(entry.parameter.shape)
            rows = None
            if steps and self.rows and f"rows.{entry.name}" in state:
                rows = _stored_rows(state, entry)
                shape = (len(rows), *shape[1:])
                known.add(f"rows.{entry.name}")
            memory = tuple(_stored(state, key, shape, entry.dtype) for key in keys)
            loaded.append((steps, rows, memory))
            known.update(keys, [f"steps.{entry.name}"])
        if unexpected := sorted(set(state) - known):
            raise CheckpointError(
                f"the optimizer's state holds {unexpected[0]}, expected nothing beside the "
                "parameters being trained; resume with the settings that it was saved with"
            )
        for entry, (steps, rows, memory) in zip(self.tracked, loaded, strict=True):
            device = entry.parameter.device
            entry.steps, entry.of_rows = steps, None
            if rows is not None:
                entry.of_rows = RowMoments(entry.parameter, len(self.kinds), entry.dtype)
                entry.of_rows.put(rows, memory)
                memory = ()
            entry.memory = tuple(
                tensor.to(device, copy=True, memory_format=torch.contiguous_format)
                for tensor in memory
            )


class _Likeness(NamedTuple):
    """What the parameters of a block have in common."""

    group: ParameterGroup
    steps: int  # before this one
    device: torch.device
    dtype: torch.dtype
    in_one_pass: bool
    by_rows: bool


def _row_block(likeness: _Likeness, table: Tensor, part: Part) -> _Block:
    return _Block(
        likeness.group,
        likeness.steps + 1,
        [table],
        [table.index_select(0, part.rows)],
        [part.gradients],
        tuple([kind] for kind in part.memory),
        likeness.in_one_pass,
        weight_decay=0.0,
        rows=part.rows,
    )


def _block(likeness: _Likeness, pieces: list[tuple[Tensor, ...]]) -> _Block:
    stored, gradients, *memories = (list(column) for column in zip(*pieces, strict=True))
    dtype = torch.promote_types(likeness.dtype, torch.float32)
    values = [tensor.to(dtype) for tensor in stored]
    gradients = [tensor.to(dtype) for tensor in gradients]
    return _Block(
        likeness.group,
        likeness.steps + 1,
        stored,
        values,
        gradients,
        tuple(memories),
        likeness.in_one_pass,
        likeness.group.weight_decay,
    )


def _stored(
    state: Mapping[str, Tensor], key: str, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    if key not in state:
        raise CheckpointError(
            f"the optimizer's state lacks {key}; resume with the model, the optimizer and the "
            "settings that it was saved with"
        )
    tensor = state[key]
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise CheckpointError(
            f"the optimizer's state has {key} of shape {tuple(tensor.shape)} and {tensor.dtype}, "
            f"expected {shape} and {dtype}; resume with the model that it was saved with"
        )
    return tensor


def _stored_rows(state: Mapping[str, Tensor], entry: _Tracked) -> Tensor:
    """Which rows are remembered."""
    key, is_table = f"rows.{entry.name}", entry.parameter.ndim == 2
    rows, n_rows = state[key], entry.parameter.shape[0] if is_table else 0
    if (
        not is_table
        or rows.ndim != 1
        or rows.dtype != torch.int64
        or len(set(rows.tolist())) != len(rows)
        or not bool(((rows >= 0) & (rows < n_rows)).all())
    ):
        raise CheckpointError(
            f"the optimizer's state has {key}, {rows.dtype} of shape {tuple(rows.shape)}, expected "
            f"rows of a table, each once, from 0 to {n_rows - 1}; resume with the model that it "
            "was saved with"
        )
    return rows


class AdamW:
    """Adam with decoupled weight decay: steps of about the rate, whatever a gradient's size.

        mean   = β₁ mean + (1 - β₁) g
        square = β₂ square + (1 - β₂) g²
        p = p - lr · ( mean' / (√square' + eps) + weight_decay · p )

    With `bias_correction` mean' = mean / (1 - β₁ᵗ) and square' = square / (1 - β₂ᵗ), which undo
    that both start at 0; without, they are as they are, and the first steps are up to
    (1 - β₁) / √(1 - β₂) ≈ 3 times as long: a reason for the warmup of BERT.  t counts the
    steps of each parameter by itself.

    A table with sparse gradients, on a CPU, keeps the moments of the rows that had one, and nothing
    else is computed of the others but their decay: the result is that of whole gradients, to the
    last bit (`row_moments`).

    Parameters of half precision keep float32 moments and are rounded once a step.  A step below
    half their spacing (1/512 of the value for bfloat16) is lost in that: to train in half
    precision keep float32 parameters, and use autocast.

    Raises: TrainingError for settings out of range, or a parameter that is in the groups twice.
    Source: Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101; operation for operation
        torch.optim.AdamW(foreach=False), to the last bit in float32 and float64.  On a CPU what
        fills whole registers is updated as by fused=True: its moments are the same to the last bit,
        its values but where MKL rounds a root the wrong way, which one in 150 is.
    Differs: torch keeps moments in the parameter's dtype, and steps frozen parameters that have a
        gradient.
    """

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        bias_correction: bool = True,
    ) -> None:
        for beta in betas:
            _check_number("betas", beta)
            if beta >= 1:
                raise TrainingError(
                    f"betas are {betas}, expected numbers from 0 to below 1; (0.9, 0.999) is usual"
                )
        _check_number("eps", eps)
        self.groups = tuple(groups)
        self.betas = betas
        self.eps = eps
        self.bias_correction = bias_correction
        self._memory = _Memory(self.groups, ("mean", "square"), one_pass=bias_correction, rows=True)

    @torch.no_grad()
    def step(self, multiplier: float = 1.0) -> None:
        """Update every parameter that has a gradient, at `multiplier` times its group's rate.

        With multiplier 0 the gradients are still remembered, but no value changes.
        """
        _check_number("multiplier", multiplier)
        for block in self._memory.blocks(multiplier):
            self._update(block, block.group.learning_rate * multiplier)

    def _update(self, block: _Block, rate: float) -> None:
        if block.in_one_pass:
            mean, square = block.memories
            torch._fused_adamw_(
                block.values,
                block.gradients,
                mean,
                square,
                [],
                [torch.tensor(float(block.steps))] * len(block.values),
                lr=rate,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=block.weight_decay,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
            )
        else:
            self._update_by_operations(block, rate)
        block.finish(rate)

    def _update_by_operations(self, block: _Block, rate: float) -> None:
        beta1, beta2 = self.betas
        mean, square = block.memories
        if block.weight_decay:
            torch._foreach_mul_(block.values, 1 - rate * block.weight_decay)
        torch._foreach_lerp_(mean, block.gradients, 1 - beta1)
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, block.gradients, block.gradients, 1 - beta2)
        denominator = torch._foreach_sqrt(square)
        if self.bias_correction:
            torch._foreach_div_(denominator, (1 - beta2**block.steps) ** 0.5)
            step_size = rate / (1 - beta1**block.steps)
        else:
            step_size = rate
        torch._foreach_add_(denominator, self.eps)
        torch._foreach_addcdiv_(block.values, mean, denominator, -step_size)

    def zero_grad(self) -> None:
        """Forget the gradients: `None`, which costs nothing, not 0."""
        self._memory.zero_grad()

    def state_dict(self) -> dict[str, Tensor]:
        """What is remembered, flat, to be saved as safetensors; not copied, but that of rows.

        `steps.NAME` for each parameter, and once it has stepped `mean.NAME` and `square.NAME`.
        Of a table with sparse gradients these are of the rows that `rows.NAME` says.
        Rates and settings are not in it: they belong to the configuration of the run.
        """
        return self._memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where `state_dict` was taken, to the last bit; the tensors are copied.

        Raises: CheckpointError for a state of other parameters, shapes or dtypes; then nothing
            has changed.
        """
        self._memory.load_state_dict(state)


class SGD:
    """Stochastic gradient descent: straight down the gradient, or down its running sum.

        g = gradient + weight_decay · p
        velocity = momentum · velocity + g
        p = p - lr · velocity           (nesterov: p - lr · (g + momentum · velocity))

    The decay is coupled, as in torch: it goes through the momentum.  Without momentum nothing is
    remembered.  Half precision as in `AdamW`.

    Raises: TrainingError for settings out of range, or a parameter that is in the groups twice.
    Source: operation for operation torch.optim.SGD(foreach=False), dampening 0.
    """

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        _check_number("momentum", momentum)
        if momentum >= 1:
            raise TrainingError(
                f"momentum is {momentum}, expected a number from 0 to below 1; 0.9 is usual"
            )
        if nesterov and not momentum:
            raise TrainingError("nesterov without momentum, expected momentum; 0.9 is usual")
        self.groups = tuple(groups)
        self.momentum = momentum
        self.nesterov = nesterov
        self._memory = _Memory(self.groups, ("velocity",) if momentum else ())

    @torch.no_grad()
    def step(self, multiplier: float = 1.0) -> None:
        """Update every parameter that has a gradient, at `multiplier` times its group's rate."""
        _check_number("multiplier", multiplier)
        for block in self._memory.blocks(multiplier):
            self._update(block, block.group.learning_rate * multiplier)

    def _update(self, block: _Block, rate: float) -> None:
        direction: list[Tensor] | tuple[Tensor, ...] = block.gradients
        if block.group.weight_decay:
            direction = torch._foreach_add(direction, block.values, alpha=block.group.weight_decay)
        if self.momentum:
            (velocity,) = block.memories
            torch._foreach_mul_(velocity, self.momentum)
            torch._foreach_add_(velocity, direction)
            direction = (
                torch._foreach_add(direction, velocity, alpha=self.momentum)
                if self.nesterov
                else velocity
            )
        torch._foreach_add_(block.values, direction, alpha=-rate)
        block.finish(rate)

    def zero_grad(self) -> None:
        """Forget the gradients: `None`, which costs nothing, not 0."""
        self._memory.zero_grad()

    def state_dict(self) -> dict[str, Tensor]:
        """As of `AdamW`, with `velocity.NAME` where there is momentum."""
        return self._memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """As of `AdamW`."""
        self._memory.load_state_dict(state)


Optimizer = AdamW | SGD

# google_bert is what BERT was trained with, `optimization.py` of google-research/bert:
# update = m / (√v + eps) + weight_decay · p;  p = p - lr · update
PRESETS: Mapping[str, Callable[[Sequence[ParameterGroup]], Optimizer]] = {
    "torch_adamw": AdamW,
    "google_bert": partial(AdamW, eps=1e-6, bias_correction=False),
    "sgd": partial(SGD, momentum=0.9),
}


def _check_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}, expected a number")
    if not (math.isfinite(value) and value >= 0):
        raise TrainingError(f"{name} is {value}, expected a finite number, 0 or above")
