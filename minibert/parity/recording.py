"""What a network computed on one batch: its inputs, its stages, and where they come from."""

import copy
import hashlib
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import minibert
from minibert.checkpoint import DTYPES, to_disk
from minibert.errors import ParityError
from minibert.heads import BertForMultipleChoice
from minibert.parity.stages import encoder_of, select, stages_of
from minibert.parity.trace import trace
from minibert.tokenizer import Tokenizer

# A first text and, for a pair, a second. Of several lengths, so that there is padding; with pairs,
# so that both token types occur; one word often and many words once.
TEXTS: tuple[tuple[str, str | None], ...] = (
    ("The cat sat on the mat.", None),
    ("A man is playing a guitar.", "Someone plays an instrument."),
    ("Why does the moon look larger near the horizon?", None),
    ("yes", None),
    ("Prices rose by 3.5 % in the second quarter, the bank said on Tuesday.", None),
    ("How old is she?", "She was born in 1931 in a small town by the sea."),
    ("the the the the the the the the", None),
    ("Unbelievably, the antidisestablishmentarianists won.", None),
    ("Ça va? Naïve café, Straße, smörgåsbord.", None),
    ("北京是中国的首都。", "東京は日本の首都です。"),
    ("It was a dark and stormy night; the rain fell in torrents, except at intervals.", None),
    ("No.", "Yes!"),
    ("To be, or not to be, that is the question.", "Hamlet says this in the third act."),
    ("x = (a + b) * c / d - 42", None),
    ("The film is not bad, but I would not call it good either.", None),
    ("", None),
)


@dataclass(eq=False)
class Recording:
    """The stages of a padded batch, under the names of `parity/stages.py`.

    `inputs` are the encoder's arguments: `input_ids`, and where there are some `attention_mask` and
    `token_type_ids`.  `stages` hold `(batch, seq, …)`, scores and probabilities
    `(batch, heads, seq, keys)`.  `steps` names the stages of which only every n-th entry of the
    last axis is held.  `noise` is the largest error of each stage, over the attended positions,
    when the same network computes it in that dtype instead of float64.  `parameters` are SHA-256
    of the weights in float32, under the names of checkpoints.  `texts` are what the batch was made
    of, of a pair both; `vectors` what the library that recorded makes of those that are no pairs.
    """

    stages: dict[str, Tensor]
    inputs: dict[str, Tensor] = field(default_factory=dict)
    origin: str = "arrays"
    network: str = "BertModel"
    config: dict[str, Any] | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    noise: dict[str, dict[str, float]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    texts: list[list[str]] = field(default_factory=list)
    tokens: list[list[str]] = field(default_factory=list)
    vectors: Tensor | None = None
    versions: dict[str, str] = field(default_factory=dict)
    model_name: str | None = None
    dropout: bool = False  # was any dropout active?

    @property
    def dtype(self) -> torch.dtype:
        """That of its stages, the least precise where they differ."""
        dtypes = {tensor.dtype for tensor in self.stages.values() if tensor.is_floating_point()}
        return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)

    @property
    def input_ids(self) -> Tensor:
        """The batch's ids, `(batch, seq)`."""
        if "input_ids" not in self.inputs:
            raise ParityError(f"{self.origin}: has no input_ids, expected the batch's")
        return self.inputs["input_ids"]

    @property
    def attention_mask(self) -> Tensor | None:
        """1 where a token is attended; None where all are."""
        return self.inputs.get("attention_mask")

    @property
    def mask(self) -> Tensor:
        """True where a token is attended: `(batch, seq)`."""
        if self.attention_mask is None:
            return torch.ones_like(self.input_ids, dtype=torch.bool)
        return self.attention_mask.bool()


def inputs_of(
    texts: Sequence[tuple[str, str | None]], tokenizer: Tokenizer, max_length: int
) -> dict[str, Tensor]:
    """Texts and pairs as one padded batch, cut to `max_length` tokens."""
    if not texts:
        raise ParityError("got no text, expected at least one")
    encodings = []
    for first, second in texts:
        pairs = None if second is None else [second]
        encodings += tokenizer.encode([first], pairs, max_length=max_length)
    return tokenizer.pad(encodings)


def describe(
    recording: Recording, texts: Iterable[tuple[str, str | None]], tokenizer: Tokenizer
) -> None:
    """Note the texts that a recording's batch was made of, and its tokens as they are spelled."""
    recording.texts = [[first] if second is None else [first, second] for first, second in texts]
    rows = recording.input_ids.tolist()
    recording.tokens = [[tokenizer.id_to_token(i) or "" for i in row] for row in rows]


def exact(model: nn.Module) -> nn.Module:
    """A copy of the network in float64, in evaluation mode."""
    return copy.deepcopy(model).double().eval()


def record(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    stages: str | Iterable[str] = "*",
    noise: bool = True,
    step: int = 1,
) -> Recording:
    """Run a network of minibert, in evaluation mode, and keep its stages.

    Args:
        model: a `BertModel` or one of minibert's heads.
        inputs: its arguments: `input_ids`, and where needed `attention_mask`, `token_type_ids`.
        stages: which to keep, as in `trace`.
        noise: also measure the errors of float32 and of bfloat16 against float64.
        step: keep every n-th entry of the last axis of each stage, to save room.
    """
    names = select([stage.name for stage in stages_of(model)], stages)
    recording = Recording(
        run(model, inputs, names),
        dict(inputs),
        origin=f"minibert {minibert.__version__}",
        network=type(model).__name__,
        config=encoder_of(model).config.to_dict(),
        parameters=digests(model),
        versions=versions(),
    )
    if noise:
        recording.noise = noise_of(partial(run_as, model, inputs, names), recording.mask)
    return sliced(recording, step)


def sliced(recording: Recording, step: int) -> Recording:
    """The recording with only every n-th entry of the last axis of each stage."""
    if step < 1:
        raise ParityError(f"got step {step}, expected at least 1")
    if step > 1:
        recording.steps = dict.fromkeys(recording.stages, step)
        recording.stages = {name: t[..., ::step] for name, t in recording.stages.items()}
    return recording


def run(model: nn.Module, inputs: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The stages of one call in evaluation mode; the network's own mode comes back."""
    if isinstance(model, BertForMultipleChoice):  # each text as a question of one choice
        inputs = {name: tensor[:, None] for name, tensor in inputs.items()}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), trace(model, names) as found:
            model(**inputs)
    finally:
        model.train(was_training)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def run_as(
    model: nn.Module, inputs: Mapping[str, Tensor], names: Iterable[str], dtype: str
) -> dict[str, Tensor]:
    """The stages of one call, computed in the dtype of that name."""
    return run(copy.deepcopy(model).to(DTYPES[dtype]), inputs, names)


def noise_of(
    stages: Callable[[str], Mapping[str, Tensor]], mask: Tensor
) -> dict[str, dict[str, float]]:
    """The largest error of each stage in float32 and in bfloat16 against float64, where attended.

    Args:
        stages: what a network computes in the dtype of that name.
        mask: `(batch, seq)`, True where a token is attended.
    """
    best = stages("float64")
    return {dtype: largest_errors(stages(dtype), best, mask) for dtype in ("float32", "bfloat16")}


def largest_errors(
    got: Mapping[str, Tensor], best: Mapping[str, Tensor], mask: Tensor
) -> dict[str, float]:
    """The largest error of each stage, over the attended positions."""
    return {
        name: float(distance(tensor, best[name])[attended(name, tuple(tensor.shape), mask)].max())
        for name, tensor in got.items()
    }


def distance(got: Tensor, expected: Tensor) -> Tensor:
    """How far each entry is off, in float64; NaN counts as infinite, equal infinities as 0."""
    error = (got.double() - expected.double()).abs()
    error = error.masked_fill(got.isinf() & (got == expected), 0.0)
    return error.nan_to_num(nan=torch.inf, posinf=torch.inf)


def attended(name: str, shape: tuple[int, ...], mask: Tensor) -> Tensor:
    """True where a stage of this shape is about attended tokens alone.

    A query that is attended counts against every key, for a hidden key's probability must be 0;
    its scores count against attended keys only, for the mask comes later.
    """
    if name.endswith((".scores", ".probabilities")):
        keys = mask[:, None, None, :] if name.endswith(".scores") else True
        return (mask[:, None, :, None] & keys).expand(shape)
    per_token = len(shape) >= 2 and shape[:2] == tuple(mask.shape) and name != "pooler"
    if not per_token:
        return torch.ones(shape, dtype=torch.bool)
    return mask.reshape(*mask.shape, *[1] * (len(shape) - 2)).expand(shape)


def digests(model: nn.Module) -> dict[str, str]:
    """SHA-256 of each parameter in float32, under its name in checkpoints, "bert." left out."""
    tensors = to_disk(dict(model.state_dict()))
    return digests_of({name.removeprefix("bert."): tensor for name, tensor in tensors.items()})


def digests_of(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of tensors in float32, by name."""
    return {
        name: hashlib.sha256(
            tensor.detach().float().cpu().contiguous().numpy().tobytes()
        ).hexdigest()
        for name, tensor in sorted(tensors.items())
    }


def versions() -> dict[str, str]:
    """What the figures of a recording may depend on."""
    return {
        "minibert": minibert.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


@contextmanager
def capture(module: nn.Module, names: Mapping[str, str]) -> Iterator[Recording]:
    """Record any network while it runs, a port's or a student's: its modules under our names.

    >>> with minibert.capture(port, {"encoder.0.attn": "layers.0.context"}) as recording:
    ...     port(pack.input_ids, pack.attention_mask)
    >>> minibert.compare(recording, pack)

    Args:
        module: the network.
        names: from a module's name, as in `named_modules`, to the stage that it gives.  Behind the
            name, ":input" takes what goes into the module, ":1" the second of several outputs.

    Raises: ParityError for a name that the network has no module of, or what is no tensor.
    """
    modules = dict(module.named_modules())
    recording = Recording({}, origin=type(module).__name__)
    dropouts = [part for part in modules.values() if isinstance(part, nn.Dropout)]
    with ExitStack() as stack:
        for name, stage in names.items():
            path, _, part = name.partition(":")
            if path not in modules or not (part in ("", "input") or part.isdecimal()):
                raise ParityError(
                    f"{type(module).__name__} has no module {name!r}, expected a name of "
                    "named_modules(), with ':input' behind it for what goes into it"
                )
            keep = partial(
                _keep, recording, dropouts, stage, int(part or 0) if part != "input" else 0
            )
            if part == "input":
                handle = modules[path].register_forward_pre_hook(keep)
            else:
                handle = modules[path].register_forward_hook(keep)
            stack.callback(handle.remove)
        yield recording


def _keep(
    recording: Recording,
    dropouts: Sequence[nn.Dropout],
    stage: str,
    index: int,
    module: nn.Module,
    *values: Any,
) -> None:
    """Note a module's input (given alone) or its output (given behind it)."""
    value = values[-1]
    if isinstance(value, tuple | list):
        value = value[index] if index < len(value) else None
    if not isinstance(value, Tensor):
        raise ParityError(
            f"{type(module).__name__} gives {type(value).__name__} for {stage}, expected a tensor"
        )
    recording.stages[stage] = value.detach().cpu().clone()
    recording.dropout |= any(dropout.training and dropout.p > 0 for dropout in dropouts)
