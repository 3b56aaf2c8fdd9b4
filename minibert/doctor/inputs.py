"""What reaches the network: seen through its own modules, whatever loop it is trained by."""

import inspect
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minibert.gradients import gradient_values


class Watch:
    """Keeps what a network was last given, by hooks; `close` takes them off again.

    Attributes:
        ids: the token ids that the largest embedding table was asked for.
        types: the token types that their table was asked for.
        mask: the `attention_mask` that any module on the way to that table was given.
        labels: of the call, where the network takes them.
        loss, logits: what the network gave under these names.
        n_dropping: how often the network was called without gradients, and with dropout.
        features, answers: what the last linear map of a width got and gave, once `follow` has
            named it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.ids: Tensor | None = None
        self.types: Tensor | None = None
        self.mask: Tensor | None = None
        self.labels: Tensor | None = None
        self.loss: Tensor | None = None
        self.logits: Tensor | None = None
        self.features: Tensor | None = None
        self.answers: Tensor | None = None
        self.head: nn.Linear | None = None
        self.n_dropping = 0
        self._call: _Call | None = None
        self._open: int | None = None  # how deep the call is that is being made
        self._handles: list[RemovableHandle] = [model.register_forward_hook(self._after)]
        self.table = _table_of_words(model)
        way = _way_to(self.table, model)
        self._signatures = [inspect.signature(module.forward) for module in way]
        for depth, module in enumerate(way):
            before, after = partial(self._before, depth), partial(self._done, depth)
            self._handles += [
                module.register_forward_pre_hook(before, with_kwargs=True),
                module.register_forward_hook(after),
            ]
        if self.table is not None:
            self._handles.append(self.table.register_forward_pre_hook(self._before_table))
        if (types := _table_of_types(model)) is not None:
            self._handles.append(types.register_forward_pre_hook(self._before_types))

    def follow(self, width: int) -> None:
        """Look at the last linear map with so many outputs: the one that gives the logits."""
        if self.head is not None:
            return
        found = [
            module
            for module in self._model.modules()
            if isinstance(module, nn.Linear) and module.out_features == width
        ]
        if found:
            self.head = found[-1]
            self._handles.append(self.head.register_forward_hook(self._after_head))

    def first_not_finite(self) -> str:
        """Where the first value is that is no number: a parameter, or what a module gives.

        The network computes its last call again, which changes nothing, random state included.
        """
        for name, parameter in self._model.named_parameters():
            if not bool(parameter.isfinite().all()):
                return f"the values of {name}"
        found: list[str] = []
        names = {module: name for name, module in self._model.named_modules()}

        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            values = output if isinstance(output, tuple | list) else [output]
            tensors = [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]
            if not found and not all(bool(v.isfinite().all()) for v in tensors):
                found.append(f"what {names[module] or 'the network'} gives")

        if self._call is not None:
            handles = [module.register_forward_hook(after) for module in names]
            try:
                self._again(self._call)
            finally:
                for handle in handles:
                    handle.remove()
        if found:
            return found[0]
        for name, parameter in self._model.named_parameters():
            if parameter.grad is None:
                continue
            if not bool(gradient_values(parameter.grad).isfinite().all()):
                return f"the gradient of {name}"
        return "the loss, not the network's answers"

    def sees_padding(self, pad_id: int) -> bool:
        """Does what the network gives hang on what stands in the place of padding?

        The last call is computed twice more, without dropout, the second time with other vectors
        there; what is given of these places themselves is left out.
        """
        ids, call = self.ids, self._call
        if ids is None or call is None or self.table is None:
            return False
        padding = ~_real(ids, pad_id)
        plain = self._again(call, training=False)

        def replace(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            if output.shape[: padding.ndim] != padding.shape:
                return None
            return torch.where(padding[..., None], output.flip(-1) + 1, output)

        handle = self.table.register_forward_hook(replace)
        try:
            changed = self._again(call, training=False)
        finally:
            handle.remove()
        for before, after in zip(plain, changed, strict=True):
            if before.shape[:2] == padding.shape:
                before, after = before[~padding], after[~padding]
            elif before.ndim != 2 or len(before) != len(padding):  # not of texts, nor of tokens
                continue
            if not torch.allclose(before.float(), after.float(), rtol=1e-3, atol=1e-3):
                return True
        return False

    def _again(self, call: "_Call", *, training: bool | None = None) -> list[Tensor]:
        """Compute a call again, and give its tensors; random state and modes stay as they are."""
        modes = {module: module.training for module in call.module.modules()}
        # Its own are hooks of a call that trains, not of this one.
        kept = (self.ids, self.types, self.features, self.answers, self.loss, self.logits)
        n_dropping = self.n_dropping
        devices = sorted({p.device.index for p in call.module.parameters() if p.is_cuda})
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=devices):
                if training is not None:
                    call.module.train(training)
                output = call.module(*call.args, **call.kwargs)
        finally:
            for module, mode in modes.items():
                module.training = mode
            self.ids, self.types, self.features, self.answers, self.loss, self.logits = kept
            self._call, self._open, self.n_dropping = call, None, n_dropping
        values = output.values() if isinstance(output, Mapping) else output
        if isinstance(values, Tensor):
            return [values]
        found = values if isinstance(values, Iterable) else vars(values).values()
        return [value for value in found if isinstance(value, Tensor)]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _before(self, depth: int, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if self._open is None or depth <= self._open:  # a call that is not part of another one
            self._call, self._open = _Call(module, args, kwargs), depth
            self.mask = self.labels = None
        if depth == 0 and module is self._model and not torch.is_grad_enabled():
            drops = (m for m in module.modules() if isinstance(m, nn.Dropout))
            self.n_dropping += any(drop.training and drop.p > 0 for drop in drops)
        try:
            given = self._signatures[depth].bind_partial(*args, **kwargs).arguments
        except TypeError:  # which the call itself is about to say
            return
        given |= given.get("kwargs", {})  # of a network that takes whatever it is given
        if self.mask is None:
            self.mask = _tensor(given, "attention_mask")
        if self.labels is None:
            self.labels = _tensor(given, "labels")

    def _done(self, depth: int, module: nn.Module, args: Any, output: Any) -> None:
        if depth == self._open:
            self._open = None

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        self.loss, self.logits = _tensor(output, "loss"), _tensor(output, "logits")

    def _before_table(self, module: nn.Module, args: Any) -> None:
        if args and isinstance(args[0], Tensor):
            self.ids = args[0].detach()

    def _before_types(self, module: nn.Module, args: Any) -> None:
        if args and isinstance(args[0], Tensor):
            self.types = args[0].detach()

    def _after_head(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if args and isinstance(args[0], Tensor):
            self.features, self.answers = args[0].detach(), output.detach()


def _tensor(values: Any, name: str) -> Tensor | None:
    """A tensor by its name, of a mapping or of an object, where there is one."""
    found = values.get(name) if isinstance(values, Mapping) else getattr(values, name, None)
    return found.detach() if isinstance(found, Tensor) else None


class _Call(NamedTuple):
    """What a module was given."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _way_to(inner: nn.Module | None, model: nn.Module) -> list[nn.Module]:
    """The modules around one, from the network inwards.

    What wraps a network to train it in several processes is no part of it: a call of it waits for
    the others.
    """
    name = next((n for n, m in model.named_modules() if m is inner), "")
    places = ["", *(name[: dot.start()] for dot in re.finditer(r"\.", name))]
    found = [model.get_submodule(place) for place in places]
    return [m for m in found if not isinstance(m, nn.parallel.DistributedDataParallel)]


def _table_of_words(model: nn.Module) -> nn.Embedding | None:
    """The table of the vocabulary: by its name, or else the largest there is."""
    tables = {n: m for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    named = [
        table
        for name, table in tables.items()
        if re.search(r"(^|[._])(token|word|words|tok|wte)(s|_embeddings?)?$", name)
    ]
    found = named or list(tables.values())
    return max(found, key=lambda table: table.num_embeddings, default=None)


def _table_of_types(model: nn.Module) -> nn.Embedding | None:
    """The table of token types, where there are several."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and re.search(r"(token_type|segment)s?[^.]*$", name):
            return module if module.num_embeddings > 1 else None
    return None


def squashed_by(answers: Tensor | None, logits: Tensor) -> str | None:
    """What stands between a head's answers and what is called logits: "sigmoid", "softmax".

    "" for nothing at all, None where that cannot be told.
    """
    pair = _of_one_shape(answers, logits)
    if pair is None:
        return None
    answers, logits = pair
    for name, forms in (
        ("", answers),
        ("sigmoid", answers.sigmoid()),
        ("softmax", answers.softmax(-1) if answers.shape[-1] > 1 else answers),
    ):
        if torch.allclose(forms, logits, rtol=1e-2, atol=1e-4):
            return name
    return None


def scale_of(answers: Tensor | None, logits: Tensor) -> float | None:
    """By which factor logits are a head's answers; None where they are no multiple of them."""
    pair = _of_one_shape(answers, logits)
    if pair is None:
        return None
    answers, logits = pair
    square = float(answers.square().sum())
    if not square:
        return None
    factor = float((answers * logits).sum()) / square
    left = float((logits - factor * answers).norm())
    return factor if left <= 1e-2 * float(logits.norm()) and factor else None


def _of_one_shape(answers: Tensor | None, logits: Tensor) -> tuple[Tensor, Tensor] | None:
    """A head's answers and what is called logits, in float32; None where they are of other size."""
    if answers is None or answers.numel() != logits.numel():
        return None
    return answers.float(), logits.detach().float().reshape(answers.shape)


def padding_seen(ids: Tensor, mask: Tensor | None, pad_id: int) -> float:
    """The share of tokens that are padding at the end of a row, and may be attended to."""
    if ids.ndim != 2 or not ids.numel():
        return 0.0
    real = _real(ids, pad_id)
    seen = ~real if mask is None or mask.shape != ids.shape else ~real & mask.bool()
    return float(seen.float().mean())


def _real(ids: Tensor, pad_id: int) -> Tensor:
    """Of each row what does not stand behind its last token that is no padding."""
    return (ids != pad_id).flip(-1).cummax(-1).values.flip(-1)


def text_hidden(ids: Tensor, mask: Tensor | None, pad_id: int) -> float:
    """The share of tokens that are no padding, and that the mask hides."""
    if mask is None or mask.shape != ids.shape or ids.ndim != 2 or not ids.numel():
        return 0.0
    real = ids != pad_id
    return float((real & ~mask.bool()).sum() / real.sum().clamp(min=1))


def pairs_of_one_type(ids: Tensor, types: Tensor | None, pad_id: int) -> bool:
    """Are all rows two texts, each ended by the same token, and all tokens of one type?"""
    if types is None or ids.ndim != 2 or len(ids) < 4 or bool((types != types.flatten()[0]).any()):
        return False
    real = _real(ids, pad_id)
    lengths = real.sum(1, keepdim=True)
    if int(lengths.min()) < 3:
        return False
    ends = ids.gather(1, lengths - 1)
    parted = ((ids == ends) & real).sum(1) == 2
    return bool((ends == ends[0]).all() and parted.all())


def labels_at_start(ids: Tensor, labels: Tensor, ignored: int) -> bool:
    """Has the first token of every row, the same in all of them, a label that is not itself?"""
    if ids.ndim != 2 or labels.shape != ids.shape or len(ids) < 4:
        return False
    first, given = ids[:, 0], labels[:, 0]
    counts = (given != ignored) & (given != first)  # which it is where the next token is wanted
    return bool(counts.all() and (first == first[0]).all() and (ids[:, 1] != ids[0, 1]).any())


def rows_alike(ids: Tensor) -> bool:
    """Are all rows of a batch the same?"""
    return ids.ndim == 2 and len(ids) > 3 and bool((ids == ids[0]).all())


def fingerprint(ids: Tensor) -> tuple[int, int, tuple[int, ...]]:
    """Alike for the same tokens in the same places."""
    flat = ids.flatten().long()
    weights = torch.arange(1, len(flat) + 1, device=flat.device)
    return int(flat.sum()), int((flat * weights).sum()), tuple(ids.shape)
