"""Does what was exported give what the network gives? Judged as comparisons are, by noise.

What is exact is the network in float64.  The noise is how far the same network, run here in the
dtype of the export, is from that; what was exported may err `FACTOR` times as far.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from minibert.checkpoint import DTYPES
from minibert.columns import aligned
from minibert.errors import ParityError
from minibert.export.network import INPUTS, Exportable, Opened
from minibert.export.program import Axes
from minibert.parity.judge import Judge
from minibert.parity.recording import TEXTS, Recording, distance, inputs_of
from minibert.parity.result import FACTOR
from minibert.parity.stages import encoder_of

Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
Batch = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One output on one batch."""

    inputs: str  # what the batch is
    shape: tuple[int, ...]
    output: str
    error: float  # the largest, over the attended tokens
    noise: float

    @property
    def times(self) -> float:
        """The error in multiples of noise."""
        if self.error == 0:
            return 0.0
        return self.error / self.noise if self.noise else math.inf

    @property
    def holds(self) -> bool:
        """Is it no more than noise? What is infinite never is, though the noise be so too."""
        return self.times <= FACTOR


@dataclass(frozen=True)
class Checked:
    """All that was compared."""

    found: list[Agreement]
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Is every output, on every batch, within the noise?"""
        return bool(self.found) and all(each.holds for each in self.found)

    @property
    def worst(self) -> Agreement:
        """That of the largest error in multiples of noise; NaN and infinity before all."""
        return max(self.found, key=lambda each: (not math.isfinite(each.error), each.times))

    def to_dict(self) -> dict[str, Any]:
        """For `export.json`."""
        rows = [{**asdict(each), "shape": list(each.shape)} for each in self.found]
        return {"factor": FACTOR, "found": rows, "notes": self.notes}

    def __str__(self) -> str:
        """A table for a terminal, a line an output and batch."""
        rows = [("inputs", "shape", "output", "max error", "× noise", "verdict")]
        for each in self.found:
            shape = "×".join(map(str, each.shape))
            figures = (f"{each.error:.1e}", f"{each.times:.3g}")
            verdict = "equal" if each.holds else "DIFFERS"
            rows.append((each.inputs, shape, each.output, *figures, verdict))
        worst = self.worst
        lines = [*aligned(rows, left=(0, 1, 2, 5)), *(f"note: {note}" for note in self.notes)]
        differing = sum(not each.holds for each in self.found)
        said = f"{differing} of {len(self.found)} differ" if differing else "all equal"
        lines.append(f"{said}: the worst {worst.times:.3g} times the noise ({worst.output})")
        return "\n".join(lines)


def check(
    run: Run,
    opened: Opened,
    *,
    axes: Mapping[str, Axes],
    dtype: str,
    reference: Recording | None = None,
) -> Checked:
    """Compare what was exported with the network, and with a recording of the original.

    Args:
        run: what was exported.
        opened: where it is from.
        axes: of its outputs.
        dtype: what it was exported in.
        reference: a recording of these weights; None leaves that comparison out.
    """
    ours, exact = opened.network.cast(dtype), opened.network.cast("float64")
    found: list[Agreement] = []
    for what, batch in _batches(opened):
        inputs = _shaped(batch, opened.network)
        got, noisy, right = run(inputs), _run(ours, inputs), _run(exact, inputs)
        if list(got) != list(right):
            raise ParityError(f"got the outputs {list(got)}, expected {list(right)}")
        for name, expected in right.items():
            where = _counted(expected, axes[name], inputs["attention_mask"])
            found.append(
                Agreement(
                    inputs=what,
                    shape=tuple(inputs["input_ids"].shape),
                    output=name,
                    error=_largest(got[name], expected, where),
                    noise=_noise(noisy[name], expected, where, dtype),
                )
            )
    notes = []
    if reference is not None:
        if reference.input_ids.shape[1] > opened.max_length:
            notes.append(f"{reference.origin}: its texts have more than {opened.max_length} tokens")
        else:
            recorded = list(_against(run, ours, exact, reference, dtype))
            if not recorded:
                notes.append(f"{reference.origin}: holds none of the outputs")
            found += recorded
    return Checked(found, notes)


def _batches(opened: Opened) -> Iterator[tuple[str, Batch]]:
    """Real inputs: one token, one text, texts and pairs with padding, the longest that it takes."""
    takes_pairs = opened.network.config.type_vocab_size > 1
    max_length = opened.max_length
    texts = [(first, second if takes_pairs else None) for first, second in TEXTS]
    every = inputs_of(texts, opened.tokenizer, max_length)
    if not takes_pairs:
        every["token_type_ids"] = torch.zeros_like(every["input_ids"])
    lengths = every["attention_mask"].sum(dim=1)
    yield "one token", {name: each[:1, :1] for name, each in every.items()}
    yield "one text", {name: each[:1, : int(lengths[0])] for name, each in every.items()}
    yield "padded texts", every
    long = " ".join(first for first, _ in TEXTS)
    long = " ".join([long] * (1 + max_length // len(opened.tokenizer.ids([long])[0])))
    rows = [(long, None), (TEXTS[0][0], None)]
    yield "the longest, and a short one", inputs_of(rows, opened.tokenizer, max_length)


def _shaped(batch: Mapping[str, Tensor], network: Exportable) -> Batch:
    """A batch as the network takes it: each text a question of one choice, where it chooses."""
    has_choices = "num_choices" in network.axes
    return {name: batch[name][:, None] if has_choices else batch[name] for name in INPUTS}


def _run(network: Exportable, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with torch.inference_mode():
        return network(*(inputs[name] for name in INPUTS))


def _counted(output: Tensor, axes: Axes, mask: Tensor) -> Tensor:
    """True where an output is about an attended token, or about a text."""
    if "sequence_length" not in axes:
        return torch.ones_like(output, dtype=torch.bool)
    return mask.bool().reshape(*mask.shape, *[1] * (output.ndim - mask.ndim)).expand(output.shape)


def _largest(got: Tensor, expected: Tensor, where: Tensor) -> float:
    if got.shape != expected.shape:
        return math.inf
    return float(distance(got, expected)[where].max())


def _noise(noisy: Tensor, expected: Tensor, where: Tensor, dtype: str) -> float:
    """What the dtype does to the network itself, and at least a unit in the last place."""
    scale = float(expected[where].abs().max())
    return max(_largest(noisy, expected, where), torch.finfo(DTYPES[dtype]).eps * scale)


def _against(
    run: Run, ours: Exportable, exact: Exportable, reference: Recording, dtype: str
) -> Iterator[Agreement]:
    """What was exported against a recording of the original: the stages that are outputs too."""
    ids, mask = reference.input_ids, reference.mask.long()
    types = reference.inputs.get("token_type_ids", torch.zeros_like(ids))
    batch = dict(zip(INPUTS, (ids, mask, types), strict=True))
    inputs = _shaped(batch, ours)
    got = run(inputs)
    last = f"layers.{len(encoder_of(ours.network).layers) - 1}.feed_forward_norm"
    stages = {"last_hidden_state": last, "pooler_output": "pooler"}
    given = {stages.get(name, name): tensor for name, tensor in got.items()}
    given = {name: tensor for name, tensor in given.items() if name in reference.stages}
    what = f"recorded by {reference.origin}"
    if given:
        names = {stages.get(name, name): name for name in got}
        judged = Judge(Recording(given, batch), reference, None, []).comparison()
        for each in judged.results:
            yield Agreement(
                inputs=what, shape=tuple(ids.shape), output=names[each.stage],
                error=each.max_abs, noise=each.noise,
            )  # fmt: skip
    if reference.vectors is not None and "sentence_embedding" in got:
        rows = torch.tensor([len(texts) == 1 for texts in reference.texts])
        vectors, noisy, right = (
            each["sentence_embedding"][rows]
            for each in (got, _run(ours, inputs), _run(exact, inputs))
        )
        everywhere = torch.ones_like(right, dtype=torch.bool)
        yield Agreement(
            inputs=what, shape=tuple(ids[rows].shape), output="sentence_embedding",
            error=_largest(vectors, reference.vectors, everywhere),
            noise=_noise(noisy, right, everywhere, dtype),
        )  # fmt: skip
