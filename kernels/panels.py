"""Linear maps and norms as the kernels read them: the structures of `cpu/`, weights in panels."""

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from minibert.kernels.build import KernelsUnavailableError

# What linear maps compute with, by the numbers of `enum Numbers` in linear.h.
NUMBERS = ("float32", "bfloat16", "int16", "int8", "bfloat16x3")

_GROUP = {32: 1, 16: 2, 8: 4}  # by bits of a weight: inputs that one multiplication takes


class LinearStructure(ctypes.Structure):
    """`struct Linear` of linear.h."""

    _fields_ = (
        ("weights", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("scale", ctypes.c_void_p),
        ("sums", ctypes.c_void_p), ("outputs", ctypes.c_int), ("inputs", ctypes.c_int),
    )  # fmt: skip


class NormStructure(ctypes.Structure):
    """`struct Norm` of norm.h."""

    _fields_ = (
        ("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("eps", ctypes.c_float),
    )  # fmt: skip


class Panels(NamedTuple):
    """A linear map's weights in the order in which `linear.h` reads them, and what goes along."""

    weights: Tensor  # (panels, groups of inputs, outputs of a panel, inputs of a group)
    bias: Tensor  # (outputs, rounded up to whole panels), as the next two
    scale: Tensor  # of integers
    sums: Tensor  # of each output's weights, times its scale


def number_of(library: ctypes.CDLL, numbers: str) -> int:
    """By which number the kernels know one of `NUMBERS`.

    Raises: KernelsUnavailableError: this CPU cannot, or its system does not let it.
    """
    number = NUMBERS.index(numbers)
    if not library.minibert_has(number):
        raise KernelsUnavailableError(f"the kernels do not have a form for {numbers} without AMX")
    return number


def numbers_of(weight: Tensor) -> str:
    """Which of `NUMBERS` linear maps of such weights compute with, unless these are split."""
    return str(weight.dtype).removeprefix("torch.")


def instructions_of(library: ctypes.CDLL, numbers: str) -> str:
    """Which instructions of the CPU linear maps of such numbers are computed by."""
    return library.minibert_instructions(NUMBERS.index(numbers)).decode()


def packed(
    library: ctypes.CDLL,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    *,
    bfloat16x3: bool = False,
    put: Callable[[Tensor], Tensor] = Tensor.contiguous,
) -> Panels:
    """Weights `(outputs, inputs)` of one of `NUMBERS` in panels, filled up with zeros.

    Args:
        bfloat16x3: split float32 weights as `ops.split` does, into (high, high, low), which meet
            inputs of (high, low, high).
        put: makes a tensor contiguous, where it is to lie.
    """
    weight, bias = weight.detach(), bias.detach()
    sums = weight.sum(dim=1, dtype=torch.float64)
    parts = [weight]
    if bfloat16x3:
        high = weight.bfloat16()
        parts = [high, high, (weight - high).bfloat16()]
    panel, block = library.minibert_panel(), library.minibert_block()
    group = _GROUP[8 * parts[0].element_size()]
    outputs, inputs = weight.shape
    rows = _rounded_up(outputs, panel)
    columns = inputs if group == 1 else _rounded_up(inputs, block)
    filled = parts[0].new_zeros(rows, len(parts), columns)
    filled[:outputs, :, :inputs] = torch.stack(parts, dim=1)
    panels = filled.view(rows // panel, panel, -1, group).permute(0, 2, 1, 3)
    scale = torch.ones(outputs) if scale is None else scale
    per_output = (bias, scale, sums * scale.double())
    return Panels(put(panels), *(_lengthened(each, rows) for each in per_output))


def most_bytes(library: ctypes.CDLL, weight: Tensor, *, bfloat16x3: bool = False) -> int:
    """What panels of `weight` take, each on lines of the cache of its own, at most."""
    outputs, inputs = weight.shape
    n_bytes = 3 * 2 if bfloat16x3 else weight.element_size()
    rows = _rounded_up(outputs, library.minibert_panel())
    return rows * _rounded_up(inputs, library.minibert_block()) * n_bytes + 64


def structure_of(library: ctypes.CDLL, panels: Panels) -> LinearStructure:
    """What the kernels are handed; it points into `panels`, which has to be kept."""
    n_panels, groups, panel, group = panels.weights.shape
    pointers = (each.data_ptr() for each in panels)
    return LinearStructure(*pointers, n_panels * panel, groups * group)


def _rounded_up(count: int, step: int) -> int:
    return -(-count // step) * step


def _lengthened(values: Tensor, length: int) -> Tensor:
    longer = torch.zeros(length)
    longer[: len(values)] = values
    return longer
