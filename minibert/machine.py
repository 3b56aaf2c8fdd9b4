"""This machine: what computes, how fast it multiplies matrices, and what a BERT asks of it.

A network can be no faster than its matrix products. So its speed is best said as a share of what
the same machine, in the same minute, gets out of products of the same shapes and nothing else.
"""

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.config import BertConfig

Product = Callable[[], Tensor]

# Units that decide how fast matrices are multiplied, by the names that Linux has for them.
UNITS = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip

# Rows of a product: the tokens that are computed at once. More change nothing.
PRODUCT_TOKENS = 1024


@dataclass(frozen=True)
class Machine:
    """What computes here."""

    cpu: str
    units: tuple[str, ...]  # those of `UNITS` that it has
    n_cores: int  # that this process may use

    def __str__(self) -> str:
        cores = f"{self.n_cores} core{'' if self.n_cores == 1 else 's'}"
        return f"{self.cpu}, {cores}; {' '.join(self.units) or 'units unknown'}"


def this_machine(cpu_info: str | Path = "/proc/cpuinfo") -> Machine:
    """The machine that runs this, as far as its system tells."""
    path = Path(cpu_info)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    pairs = [line.partition(":")[::2] for line in lines if ":" in line]
    facts = {key.strip(): value.strip() for key, value in reversed(pairs)}  # the first core's
    flags = facts.get("flags", facts.get("Features", "")).split()
    cpu = facts.get("model name") or platform.processor() or platform.machine()
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    n_cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return Machine(cpu, tuple(unit for unit in UNITS if unit in flags), n_cores)


def peak_bytes() -> int:
    """The most memory that this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def matrix_flops(config: BertConfig, lengths: Iterable[int]) -> int:
    """Floating point operations of the encoder's matrix products, 2·m·n·k for (m,k) by (k,n).

    Those of the linear layers and of attention's scores and context, for sequences that are
    computed without padding.  The pooler is left out: an embedding does not need it.

    Args:
        lengths: the tokens of each sequence, [CLS] and [SEP] among them.
    """
    width = config.hidden_size
    a_token = sum(2 * n_in * n_out for n_in, n_out in layer_shapes(config))
    layer = sum(length * a_token + 2 * 2 * length * length * width for length in lengths)
    return config.num_hidden_layers * layer


def layer_shapes(config: BertConfig) -> tuple[tuple[int, int], ...]:
    """The linear layers of one layer, as they follow each other: what each takes and gives."""
    width, wide = config.hidden_size, config.intermediate_size
    return (width, 3 * width), (width, width), (width, wide), (wide, width)


def distinct_lengths(ids: Iterable[Sequence[int]], max_length: int) -> list[int]:
    """The tokens of each text that has to be computed: cut, with [CLS] and [SEP], no text twice.

    Args:
        ids: of texts, without special tokens.
        max_length: where texts are cut, special tokens included.
    """
    return [len(cut) + 2 for cut in {tuple(text[: max_length - 2]) for text in ids}]


def matrix_rate(config: BertConfig, dtype: str, *, seconds: float = 0.3) -> float:
    """Operations a second of a layer's linear maps, one after the other and with nothing between.

    Every way that PyTorch has of computing them is tried for an equal part of the time, and the
    fastest run of the fastest way counts: it is a limit.

    Args:
        config: whose shapes are multiplied, `PRODUCT_TOKENS` rows at once.
        dtype: of `LIMITS`, "int16", or "bfloat16x3".
        seconds: of wall time, all ways together; each runs twice at the least.

    Raises: ValueError for a dtype whose products PyTorch does not have here.
    """
    if dtype == "int16":  # PyTorch has none; an instruction takes half as many as of 8 bits
        return matrix_rate(config, "int8", seconds=seconds) / 2
    if dtype == "bfloat16x3":  # three products make one; without AMX it is one of float32
        thirds = matrix_rate(config, "bfloat16", seconds=seconds / 2) / 3
        return max(thirds, matrix_rate(config, "float32", seconds=seconds / 2))
    if dtype not in LIMITS:
        known = [*LIMITS, "int16", "bfloat16x3"]
        raise ValueError(f"got dtype {dtype!r}, expected one of {known}")
    shapes = layer_shapes(config)
    flops = sum(2 * PRODUCT_TOKENS * n_in * n_out for n_in, n_out in shapes)
    ways = [way for way, is_there in LIMITS[dtype] if is_there()]
    if not ways:
        raise ValueError(f"this build of PyTorch has no matrix products of {dtype} on a CPU")
    best = float("inf")
    for way in ways:
        with torch.inference_mode():
            products = [way(*shape, PRODUCT_TOKENS) for shape in shapes]
            for product in products:  # what is made ready once, is now
                product()
            end = time.perf_counter() + seconds / len(ways)
            while True:
                start = time.perf_counter()
                for product in products:
                    product()
                now = time.perf_counter()
                best = min(best, now - start)
                if now > end:
                    break
    return flops / best


def _plain(dtype: torch.dtype) -> Callable[[int, int, int], Product]:
    def way(n_in: int, n_out: int, tokens: int) -> Product:
        x, weight = torch.randn(tokens, n_in).to(dtype), torch.randn(n_out, n_in).to(dtype)
        bias = torch.zeros(n_out, dtype=dtype)
        return lambda: F.linear(x, weight, bias)

    return way


def _packed(dtype: torch.dtype) -> Callable[[int, int, int], Product]:
    """The products of oneDNN, with weights that it has brought into its own order before."""

    def way(n_in: int, n_out: int, tokens: int) -> Product:
        x, weight = torch.randn(tokens, n_in).to(dtype), torch.randn(n_out, n_in).to(dtype)
        bias = torch.zeros(n_out, dtype=dtype)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, tokens)
        linear = torch.ops.mkldnn._linear_pointwise
        return lambda: linear(x, packed, bias, "none", [], "")

    return way


def _quantised(out: torch.dtype) -> Callable[[int, int, int], Product]:
    """Products of 8 bit integers, summed in 32 bits and scaled: unsigned inputs, signed weights."""

    def way(n_in: int, n_out: int, tokens: int) -> Product:
        x = torch.randint(0, 255, (tokens, n_in), dtype=torch.uint8)
        weight = torch.randint(-127, 127, (n_out, n_in), dtype=torch.int8)
        packed = torch.ops.onednn.qlinear_prepack(weight, [tokens, n_in])
        scale, zero = torch.tensor(0.02), torch.tensor(128)
        scales, zeros = torch.full((n_out,), 0.01), torch.zeros(n_out, dtype=torch.int64)
        linear, bias = torch.ops.onednn.qlinear_pointwise, torch.zeros(n_out)
        return lambda: linear(
            x, scale, zero, packed, scales, zeros, bias, 1.0, 0, out, "none", [], ""
        )

    return way


def _always() -> bool:
    return True


def _has_packed() -> bool:
    return torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def _has_packed_bfloat16() -> bool:
    return _has_packed() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _has_quantised() -> bool:
    return "onednn" in torch.backends.quantized.supported_engines


_Way = tuple[Callable[[int, int, int], Product], Callable[[], bool]]
_FLOAT32: tuple[_Way, ...] = (
    (_plain(torch.float32), _always),
    (_packed(torch.float32), _has_packed),
)

# The ways of each dtype, and whether this build and machine have them. The products of bfloat16 are
# exact in float32, and where a CPU has no units for them that way is the faster one.
LIMITS: dict[str, tuple[_Way, ...]] = {
    "float64": ((_plain(torch.float64), _always),),
    "float32": _FLOAT32,
    "bfloat16": (
        (_plain(torch.bfloat16), _always),
        (_packed(torch.bfloat16), _has_packed_bfloat16),
        *_FLOAT32,
    ),
    "float16": ((_plain(torch.float16), _always),),
    "int8": (
        (_quantised(torch.float32), _has_quantised),
        (_quantised(torch.bfloat16), _has_quantised),
    ),
}
