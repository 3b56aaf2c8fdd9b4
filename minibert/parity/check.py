"""The figures by which parity is judged, measured on one checkpoint against a reference."""

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.checkpoint import Pretrained
from minibert.columns import aligned
from minibert.config import BertConfig
from minibert.embed import Embedder
from minibert.errors import ParityError
from minibert.layout import Padded, pack
from minibert.model import BertModel
from minibert.parity.compare import check_inputs, check_network, differing_weights
from minibert.parity.folders import named_class
from minibert.parity.pack import read_pack, shaped
from minibert.parity.recording import (
    Recording,
    attended,
    digests,
    distance,
    largest_errors,
    run,
    run_as,
)
from minibert.parity.stages import encoder_of, parts_of, stages_of
from minibert.parity.trace import trace
from minibert.pooling import normalise, pool
from minibert.weights import manifest, resolve, shipped

_SCALED = "× scale"  # a stage's largest value, at least 1


@dataclass(frozen=True, kw_only=True)
class Check:
    """One figure: what it is of, its bound, and what was measured."""

    what: str
    bound: float
    measured: float
    unit: str
    at_least: bool = False  # the bound is a lower one
    worst: str = ""  # the stage that gave it

    @property
    def holds(self) -> bool:
        """Is it within its bound? What is not a number is not."""
        within = self.measured >= self.bound if self.at_least else self.measured <= self.bound
        return bool(within)


@dataclass(frozen=True)
class Report:
    """What was checked, against what."""

    model: str
    reference: str
    checks: list[Check]
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Is every figure within its bound?"""
        return all(check.holds for check in self.checks)

    def to_json(self) -> str:
        """All of it, as one JSON object."""
        checks = [{**asdict(check), "holds": check.holds} for check in self.checks]
        values = {**asdict(self), "checks": checks, "holds": self.holds}
        return json.dumps(values, ensure_ascii=False, indent=1)

    def __str__(self) -> str:
        """A table for a terminal, a line for each figure."""
        rows = [("", "bound", "measured", "", "worst at")]
        for check in self.checks:
            sign = "≥" if check.at_least else "≤"
            rows.append(
                (
                    check.what,
                    f"{sign} {check.bound:g} {check.unit}".rstrip(),
                    f"{check.measured:.7f}" if check.at_least else f"{check.measured:.2g}",
                    "holds" if check.holds else "MISSED",
                    check.worst,
                )
            )
        lines = [f"model      {self.model}", f"reference  {self.reference}", "", *aligned(rows)]
        lines += ["", "scale: the largest value of the stage, at least 1; attended tokens count"]
        lines += [f"note: {note}" for note in self.notes]
        missed = sum(not check.holds for check in self.checks)
        total = len(self.checks)
        lines.append(f"all {total} hold" if not missed else f"{missed} of {total} missed")
        return "\n".join(lines)


def shipped_reference(name: str | Path) -> Recording:
    """The recording of the original that comes with minibert, for a model of the manifest.

    Args:
        name: the model, or a folder that holds its weights.

    Raises: ParityError where there is none.
    """
    packs = {known: shipped(f"packs/{known}.safetensors") for known in manifest()}
    if str(name) in packs and packs[str(name)].is_file():
        return read_pack(packs[str(name)])
    if (found := reference_of(BertModel.from_pretrained(name))) is not None:
        return found
    raise ParityError(
        f"{name}: no reference of its weights comes with minibert; give --reference PACK, or "
        "--with transformers where that is installed"
    )


def reference_of(network: nn.Module) -> Recording | None:
    """The recording of the original that comes with minibert, for a network of its weights."""
    parameters = digests(network)
    for path in (shipped(f"packs/{known}.safetensors") for known in manifest()):
        if path.is_file() and (found := read_pack(path)).parameters == parameters:
            return found
    return None


def check(name: str | Path, reference: Recording) -> Report:
    """Measure the figures of parity on a checkpoint, each beside its bound.

    Args:
        name: a folder, a name of the manifest, or a hub id.
        reference: the same checkpoint recorded from the original in float64, by `minibert parity
            record --with transformers --dtype float64`.

    Returns: of the network in float32 and in float64 the error at the worst stage; of unit vectors
        against the original's; of the packed layout against the padded one; of bfloat16 as a
        multiple of the original's own error, and its cosine; of saving and loading.
    Raises: ParityError for a reference of another checkpoint, or one that is too coarse.
    """
    folder = resolve(name)
    check_network(BertConfig.from_file(folder / "config.json"), reference, str(name))
    if reference.dtype != torch.float64:
        raise ParityError(
            f"{reference.origin}: was recorded in {str(reference.dtype).removeprefix('torch.')}, "
            "expected float64, to see the errors of float32; record it with --dtype float64"
        )
    kind = named_class(reference.network)
    network = kind.from_pretrained(folder)
    check_inputs(network, reference)
    if differing := differing_weights(network, reference):
        raise ParityError(
            f"{name}: {len(differing)} tensors are not those of {reference.origin}, {differing[0]} "
            "first: a pack for another checkpoint; record one for this"
        )
    embedder = Embedder.from_pretrained(folder)
    notes: list[str] = []
    with torch.inference_mode():
        checks = [
            _model(network, reference, "float32", 1e-5),
            _model(kind.from_pretrained(folder, dtype="float64"), reference, "float64", 1e-10),
        ]
        if not all(each.holds for each in checks):
            notes.append(
                "minibert parity compare names the first stage that differs, and the likely cause"
            )
        if reference.vectors is None:
            notes.append("the reference holds no vectors of sentence-transformers")
        else:
            checks.append(_vectors(embedder, reference, reference.vectors))
        checks += _packed(encoder_of(network), reference, embedder.recipe.pooling)
        if "bfloat16" in reference.noise:
            checks += _bfloat16(network, reference)
        else:
            notes.append("the reference does not say its own error in bfloat16")
    checks += _saved(network)
    return Report(str(name), reference.origin, checks, notes)


def _model(network: Pretrained, reference: Recording, dtype: str, bound: float) -> Check:
    """Every stage that the reference holds, where tokens are attended."""
    names = [stage.name for stage in stages_of(network) if stage.name in reference.stages]
    if not names:
        raise ParityError(
            f"{reference.origin}: holds no stage of the network, only "
            f"{', '.join(list(reference.stages)[:3])}; record it again"
        )
    errors = {}
    for name, tensor in run(network, reference.inputs, names).items():
        got = tensor[..., :: reference.steps.get(name, 1)]
        shape = tuple(got.shape)
        expected = shaped(name, reference.stages[name], shape, reference.origin)
        errors[name] = _scaled(got, expected, attended(name, shape, reference.mask))
    worst = max(errors, key=errors.__getitem__)
    what = f"{dtype}, {len(errors)} stages"
    return Check(what=what, bound=bound, measured=errors[worst], unit=_SCALED, worst=worst)


def _scaled(got: Tensor, expected: Tensor, where: Tensor) -> float:
    """The largest error, as a multiple of the stage's largest value or of 1."""
    scale = max(1.0, float(expected[where].abs().max()))
    return float(distance(got, expected)[where].max()) / scale


def _vectors(embedder: Embedder, reference: Recording, expected: Tensor) -> Check:
    """The embedder's vectors of the reference's texts, of those that are no pairs."""
    singles = [texts[0] for texts in reference.texts if len(texts) == 1]
    vectors = torch.from_numpy(embedder.encode(singles, show_progress_bar=False))
    error = float(distance(vectors, expected).max())
    return Check(what=f"unit vectors of {len(singles)} texts", bound=1e-6, measured=error, unit="")


def _packed(encoder: BertModel, reference: Recording, pooling: Sequence[str]) -> Iterator[Check]:
    """The packed layout against the padded one: unit vectors, and every stage."""
    rows = reference.mask[:, 0]  # packing needs the first token of each
    inputs = {name: tensor[rows] for name, tensor in reference.inputs.items()}
    mask = reference.mask[rows]
    names = [stage.name for stage in stages_of(encoder)]
    padded = run(encoder, inputs, names)
    packed_inputs = {
        name: pack(tensor, mask)[0] for name, tensor in inputs.items() if name != "attention_mask"
    }
    layout = pack(inputs["input_ids"], mask)[1]
    with trace(encoder) as packed:
        encoder(**packed_inputs, layout=layout)
    last = f"layers.{len(encoder.layers) - 1}.feed_forward_norm"
    vectors = [
        normalise(pool(hidden, where, pooling))
        for hidden, where in (
            (padded[last], Padded.of(inputs["input_ids"], mask)),
            (packed[last], layout),
        )
    ]
    error = float(distance(vectors[1], vectors[0]).max())
    yield Check(what="packed = padded, unit vectors", bound=1e-6, measured=error, unit="")
    errors = {
        name: _scaled(got, expected, torch.ones_like(got, dtype=torch.bool))
        for name in names
        for got, expected in [_attended_alike(name, packed[name], padded[name], mask)]
    }
    worst = max(errors, key=errors.__getitem__)
    yield Check(
        what=f"packed = padded, {len(errors)} stages",
        bound=1e-5,
        measured=errors[worst],
        unit=_SCALED,
        worst=worst,
    )


def _attended_alike(
    name: str, packed: Tensor, padded: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """The same entries of a stage in both layouts: those of attended tokens."""
    if name == "pooler":
        return packed, padded
    if not name.endswith((".scores", ".probabilities")):
        return packed, padded[mask]
    sequence = mask.nonzero()[:, 0]
    together = sequence[:, None] == sequence[None, :]
    pairs = mask[:, None, :, None] & mask[:, None, None, :]
    heads = padded.transpose(0, 1)  # (heads, batch, seq, keys), as packed has heads first
    return packed[:, together], heads[:, pairs[:, 0]]


def _bfloat16(network: nn.Module, reference: Recording) -> Iterator[Check]:
    """How much bfloat16 loses: as a multiple of the original's own loss, and in direction."""
    theirs = reference.noise["bfloat16"]
    names = [stage.name for stage in stages_of(network) if stage.name in theirs]
    best = run_as(network, reference.inputs, names, "float64")
    half = run_as(network, reference.inputs, names, "bfloat16")
    ours = largest_errors(half, best, reference.mask)
    ratios = {name: _ratio(ours[name], theirs[name]) for name in names}
    worst = max(ratios, key=ratios.__getitem__)
    yield Check(
        what=f"bfloat16, {len(ratios)} stages",
        bound=2.0,
        measured=ratios[worst],
        unit="× the reference's own error",
        worst=worst,
    )
    cosines = {
        name: float(
            F.cosine_similarity(half[name].double(), best[name], dim=-1)[reference.mask].mean()
        )
        for name in names
        if parts_of(name)[1] == "feed_forward_norm"
    }
    worst = min(cosines, key=cosines.__getitem__)
    yield Check(
        what="bfloat16, mean cosine of hidden states",
        bound=0.9999,
        measured=cosines[worst],
        unit="",
        at_least=True,
        worst=worst,
    )


def _ratio(ours: float, theirs: float) -> float:
    if ours == 0:
        return 0.0
    return ours / theirs if theirs else math.inf


def _saved(network: Pretrained) -> Iterator[Check]:
    """What saving and loading changes: nothing, to the last bit."""
    with tempfile.TemporaryDirectory() as place:
        first, second = Path(place) / "first", Path(place) / "second"
        network.save_pretrained(first)
        again = type(network).from_pretrained(first)
        again.save_pretrained(second)
        files = [
            np.frombuffer((folder / "model.safetensors").read_bytes(), dtype=np.uint8)
            for folder in (first, second)
        ]
    before, after = network.state_dict(), again.state_dict()
    differing = before.keys() ^ after.keys()
    differing |= {
        name
        for name in before.keys() & after.keys()
        if before[name].dtype != after[name].dtype or not torch.equal(before[name], after[name])
    }
    yield Check(
        what=f"save, load: of {len(before)} tensors",
        bound=0.0,
        measured=float(len(differing)),
        unit="differ",
        worst=min(differing, default=""),
    )
    same = len(files[0]) == len(files[1])
    yield Check(
        what=f"save, load, save: of {len(files[0]):,} bytes",
        bound=0.0,
        measured=float(np.count_nonzero(files[0] != files[1])) if same else math.inf,
        unit="differ",
    )
