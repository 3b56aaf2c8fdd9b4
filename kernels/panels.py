"""Linear maps and norms as the kernels read them: the structures of `cpu/`, weights in panels."""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from minibert.kernels.build import KernelsUnavailableError

# What linear maps compute with, by the numbers of `enum Numbers` in linear.h.
NUMBERS = (torch.float32, torch.bfloat16, torch.int16, torch.int8)

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


def number_of(library: ctypes.CDLL, dtype: torch.dtype) -> int:
    """Which of `NUMBERS` a linear map of such weights computes with.

    Raises: KernelsUnavailableError: this CPU cannot, or its system does not let it.
    """
    number = NUMBERS.index(dtype)
    if not library.minibert_has(number):
        raise KernelsUnavailableError("the kernels do not have a form for bfloat16 without AMX")
    return number


def instructions_of(library: ctypes.CDLL, dtype: torch.dtype) -> str:
    """Which instructions of the CPU linear maps of such weights are computed by."""
    return library.minibert_instructions(NUMBERS.index(dtype)).decode()


def packed(library: ctypes.CDLL, weight: Tensor, bias: Tensor, scale: Tensor | None) -> Panels:
    """Weights `(outputs, inputs)` of one of `NUMBERS` in panels, filled up with zeros."""
    weight, bias = weight.detach(), bias.detach()
    panel, block = library.minibert_panel(), library.minibert_block()
    group = _GROUP[8 * weight.element_size()]
    outputs, inputs = weight.shape
    rows = _rounded_up(outputs, panel)
    columns = inputs if group == 1 else _rounded_up(inputs, block)
    filled = weight.new_zeros(rows, columns)
    filled[:outputs, :inputs] = weight
    panels = filled.view(rows // panel, panel, columns // group, group).permute(0, 2, 1, 3)
    scale = torch.ones(outputs) if scale is None else scale
    sums = weight.sum(dim=1, dtype=torch.float64) * scale.double()
    return Panels(panels.contiguous(), *(_lengthened(each, rows) for each in (bias, scale, sums)))


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
