"""The work of a comparison: errors, noise, each stage by itself, and what explains it."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minibert.errors import ParityError
from minibert.parity.causes import VARIANTS, signs
from minibert.parity.pack import shaped
from minibert.parity.recording import Recording, attended, distance, exact, noise_of, run_as
from minibert.parity.replay import RULES, Replay
from minibert.parity.result import FACTOR, Cause, Comparison, StageResult
from minibert.parity.stages import (
    EMBEDDINGS,
    OUTPUTS,
    POOLER,
    TRANSFORM,
    Stage,
    layer_stages,
    parts_of,
)

# Rows of the batch on which causes are looked for; the one found is then held against all.
_SEARCH_ROWS = 4


class Judge:
    """The work of one comparison."""

    def __init__(
        self,
        candidate: Recording,
        reference: Recording,
        network: nn.Module | None,
        notes: list[str],
    ) -> None:
        self.candidate, self.reference, self.notes = candidate, reference, notes
        self.dtype = max(candidate.dtype, reference.dtype, key=lambda d: torch.finfo(d).eps)
        self.network = network
        self.mask = reference.mask
        self.stages = self._stages()
        self.given = self._given()

    def comparison(self) -> Comparison:
        results, errors = [], {}
        for stage in self.stages:
            if stage.name not in self.given:
                continue
            result, errors[stage.name] = self._result(stage)
            results.append(result)
        results = self._explained(results)
        return Comparison(
            candidate=self.candidate.origin,
            reference=self.reference.origin,
            dtype=dtype_name(self.dtype),
            results=results,
            notes=self.notes,
            missing=[s.name for s in self.stages if s.name not in self.given],
            tokens=self.reference.tokens,
            errors=errors,
            attended=self.mask,
        )

    def _stages(self) -> list[Stage]:
        """The stages of the reference, in order."""
        layers = [parts_of(name)[0] for name in self.reference.stages]
        count = 1 + max((layer for layer in layers if layer is not None), default=-1)
        table = [*EMBEDDINGS, *layer_stages(count), POOLER, TRANSFORM, *OUTPUTS]
        known = {stage.name for stage in table}
        for recording in (self.reference, self.candidate):
            unknown = [name for name in recording.stages if name not in known]
            if unknown:
                raise ParityError(
                    f"{recording.origin}: holds {unknown[0]}, which the reference's network has "
                    "no stage for; the mapping gives the names"
                )
        found = [stage for stage in table if stage.name in self.reference.stages]
        if not any(stage.name in self.candidate.stages for stage in found):
            raise ParityError(
                f"{self.candidate.origin}: has no stage of {self.reference.origin}, expected some "
                f"of {', '.join(s.name for s in found[:3])}, …"
            )
        return found

    def _given(self) -> dict[str, Tensor]:
        """The candidate's stages, in the reference's shape."""
        given = {}
        for stage in self.stages:
            tensor = self.candidate.stages.get(stage.name)
            if tensor is None:
                continue
            step = self.reference.steps.get(stage.name, 1)
            if step > 1 and self.candidate.steps.get(stage.name, 1) == 1:
                tensor = tensor[..., ::step]
            expected = tuple(self.reference.stages[stage.name].shape)
            given[stage.name] = shaped(stage.name, tensor, expected, self.candidate.origin)
        return given

    @cached_property
    def _double(self) -> nn.Module | None:
        return None if self.network is None else exact(self.network)

    @cached_property
    def _whole(self) -> dict[str, Tensor]:
        """What of the candidate a replay may start from: stages that are there in full."""
        steps = self.reference.steps | self.candidate.steps
        return {name: tensor for name, tensor in self.given.items() if steps.get(name, 1) == 1}

    @cached_property
    def _noise(self) -> dict[str, float]:
        """What the dtype alone does to each stage."""
        noise = self.reference.noise
        if not noise and self.network is not None:
            names = [stage.name for stage in self.stages]
            stages = partial(run_as, self.network, self.reference.inputs, names)
            noise = noise_of(stages, self.mask)
        name = dtype_name(self.dtype)
        if name in noise:
            return noise[name]
        shift = torch.finfo(self.dtype).eps / torch.finfo(torch.float32).eps
        return {stage: value * shift for stage, value in noise.get("float32", {}).items()}

    @cached_property
    def _own(self) -> dict[str, Tensor]:
        """The same stages computed here in the candidate's dtype, to see what rounding does."""
        assert self.network is not None
        names = [stage.name for stage in self.stages]
        return run_as(self.network, self.reference.inputs, names, dtype_name(self.dtype))

    def _result(self, stage: Stage) -> tuple[StageResult, Tensor]:
        name = stage.name
        got, expected = self.given[name].double(), self.reference.stages[name].double()
        where = attended(name, tuple(expected.shape), self.mask)
        error = distance(got, expected)
        scale = _largest(expected[where])
        eps = torch.finfo(self.dtype).eps
        noise = max(self._noise.get(name, 8 * eps * scale), eps * scale)
        inside, outside = error[where], error[~where]
        result = StageResult(
            stage=name,
            max_abs=_largest(inside),
            mean_abs=float(inside.mean()) if inside.numel() else 0.0,
            relative=_largest(inside) / scale if scale else math.inf if _largest(inside) else 0.0,
            ulp=_ulp(inside, expected[where], eps),
            cosine=_cosine(got, expected, where),
            noise=noise,
            padding=_largest(outside) if outside.numel() else None,
            differs=not _largest(inside) <= FACTOR * noise,
        )
        if self._double is not None:
            local, local_noise, between = self._local(name, got, where)
            result = replace(result, local=local, local_noise=local_noise, between=between)
        by_token = _by_token(error.masked_fill(~where, 0.0), self.mask, name)
        return result, by_token

    def _replay(self, recorded: Mapping[str, Tensor]) -> Replay:
        assert self._double is not None
        return Replay(self._double, self.reference.inputs, recorded)

    def _sliced(self, name: str, tensor: Tensor) -> Tensor:
        return tensor[..., :: self.reference.steps.get(name, 1)]

    def _local(self, name: str, got: Tensor, where: Tensor) -> tuple[float, float, tuple[str, ...]]:
        """The stage's own error, what rounding makes of it, and which stages it spans."""
        replay = self._replay(self._whole)
        ours = self._sliced(name, replay.again(name))
        error = _largest(distance(got, ours)[where])
        same = {n: t for n, t in self._own.items() if n in self._whole}
        again = self._sliced(name, self._replay(same).again(name))
        noise = _largest(distance(self._sliced(name, self._own[name]).double(), again)[where])
        scale, normal = _largest(ours[where]), _largest(again[where])
        larger = max(1.0, scale / normal) if normal and math.isfinite(scale) else 1.0
        eps = torch.finfo(self.dtype).eps
        between = tuple(s.name for s in self.stages if s.name in replay.between)
        return error, max(noise * larger, eps * scale), between

    # ---- causes

    def _explained(self, results: list[StageResult]) -> list[StageResult]:
        """The results, those that differ by themselves with their causes."""
        if self._double is None:
            return results
        known: dict[str, int] = {}  # kinds of stages, and the variant that explained the last
        explained = []
        for result in results:
            if result.faulty:
                _, kind = parts_of(result.stage)
                cause, index = self._cause(result, known.get(kind))
                if index is not None:
                    known[kind] = index
                result = replace(result, cause=cause)
            explained.append(result)
        return explained

    def _cause(self, result: StageResult, likely: int | None) -> tuple[Cause | None, int | None]:
        """What explains a stage's own error: a known variant, or what the figures show."""
        name, limit = result.stage, FACTOR * (result.local_noise or 0.0)
        kinds = {parts_of(n)[1] for n in (*result.between, name)}
        part = self._part(name, self._search_rows(name))
        tried: list[tuple[float, int]] = []
        order = [i for i, v in enumerate(VARIANTS) if kinds & v.changes.keys()]
        if likely in order:
            order.insert(0, order.pop(order.index(likely)))
        for index in order:
            residual = self._residual(name, index, part)
            if residual <= limit and index == likely:
                tried = [(residual, index)]
                break
            tried.append((residual, index))
        explaining = sorted(t for t in tried if t[0] <= limit)
        if explaining:
            best = explaining[0][0]
            near = [i for residual, i in explaining if residual <= max(2 * best, limit / 10)]
            # Those that agree at attended positions may not at padding.
            index = min(near, key=lambda i: (self._residual(name, i, part, padding=True), i))
            whole = self._residual(name, index, self._part(name))
            if whole <= limit:
                variant = VARIANTS[index]
                return Cause(variant.name, variant.advice, whole, True), index
        return self._signs(result, limit), None

    def _signs(self, result: StageResult, limit: float) -> Cause | None:
        """What the figures of a stage show by themselves."""
        name = result.stage
        replay = self._replay(self._whole)
        ours = self._sliced(name, replay.again(name))
        where = attended(name, tuple(ours.shape), self.mask)
        width = ours.shape[-1]
        got = self.given[name].double()
        columns = where.all(-1) if where.shape else where
        flat = [x[columns].reshape(-1, width) for x in (got, ours)]
        if said := signs(flat[0], flat[1], limit):
            label, _, advice = said.partition(": ")
            return Cause(label, advice, 0.0, True)
        weights = next((n for n in self.notes if n.startswith("weights differ")), None)
        if weights:
            return Cause("other weights", weights, result.local or 0.0, False)
        if self.candidate.dropout:
            return Cause("dropout left on", "call eval()", result.local or 0.0, False)
        return None

    def _part(self, name: str, rows: Tensor | None = None) -> "_Part":
        """Some rows of the batch, or all of them, to try variants of a stage on."""
        inputs, recorded = self.reference.inputs, self._whole
        given, mask = self.given[name].double(), self.mask
        if rows is not None:
            inputs = {n: t[rows] for n, t in inputs.items()}
            recorded = {n: t[rows] for n, t in recorded.items()}
            given, mask = given[rows], mask[rows]
        return _Part(inputs, recorded, given, mask)

    def _residual(self, name: str, index: int, part: "_Part", *, padding: bool = False) -> float:
        """What is left of a stage's error when a variant's mistake is made here too."""
        assert self._double is not None
        rules = {**RULES, **VARIANTS[index].changes}
        replay = Replay(self._double, part.inputs, part.recorded, rules)
        found = self._sliced(name, replay.again(name))
        where = attended(name, tuple(part.given.shape), part.mask | padding)
        return _largest(distance(found, part.given)[where])

    def _search_rows(self, name: str) -> Tensor:
        """A few rows to look for causes on: those with the largest errors, and the most padding."""
        error = distance(self.given[name].double(), self.reference.stages[name].double())
        by_row = error.flatten(1).amax(1) if error.ndim > 1 else error
        padded = (~self.mask).sum(1).double()
        first = by_row.topk(min(_SEARCH_ROWS - 1, len(by_row))).indices
        return torch.tensor(sorted({*first.tolist(), int(padded.argmax())}))


class _Part(NamedTuple):
    """Some rows of a comparison: inputs, the candidate's stages, the one that is looked at."""

    inputs: dict[str, Tensor]
    recorded: dict[str, Tensor]
    given: Tensor
    mask: Tensor


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _ulp(error: Tensor, expected: Tensor, eps: float) -> float:
    """The median error, as a multiple of the distance between neighbouring numbers."""
    if not error.numel():
        return 0.0
    place = eps * 2.0 ** torch.floor(torch.log2(expected.abs().clamp(min=1e-300)))
    return float((error / place).nan_to_num(posinf=math.inf).median())


def _cosine(got: Tensor, expected: Tensor, where: Tensor) -> float:
    """The lowest cosine over the vectors of the last axis; vectors of nothing are left out."""
    if got.ndim < 2:
        return 1.0
    kept = where.all(-1)
    a, b = got[kept], expected[kept]
    product = (a * b).sum(-1)
    norms = a.norm(dim=-1) * b.norm(dim=-1)
    cosines = (product / norms)[norms > 0]
    return float(cosines.nan_to_num(nan=-1.0).min()) if len(cosines) else 1.0


def _by_token(error: Tensor, mask: Tensor, name: str) -> Tensor:
    """The largest error of each token, `(batch, seq)`; of a whole text at its first."""
    if name.endswith((".scores", ".probabilities")):
        return error.amax((1, 3))
    if error.shape[:2] == mask.shape and name != "pooler":
        return error.flatten(2).amax(2) if error.ndim > 2 else error
    spread = torch.zeros(mask.shape, dtype=error.dtype)
    spread[:, 0] = error.flatten(1).amax(1) if error.ndim > 1 else error
    return spread
