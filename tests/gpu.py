"""Where the kernels for GPUs are tested: on a GPU, or on the CPU in Triton's interpreter."""

from typing import Any

import numpy as np
import torch
from triton.runtime import interpreter

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

_plain_dot = interpreter.InterpreterBuilder.create_dot
_plain_cast = interpreter.InterpreterBuilder.cast_impl
_tl = interpreter.tl


def mend_interpreter() -> None:
    """Let Triton's interpreter compute with bfloat16 as a GPU does.

    It multiplies matrices of the bits of bfloat16, as integers, and cuts numbers off where a GPU
    rounds them to the nearest.
    """
    interpreter.InterpreterBuilder.create_dot = _dot
    interpreter.InterpreterBuilder.cast_impl = _cast


def _dot(builder: Any, a: Any, b: Any, *rest: Any) -> Any:
    return _plain_dot(builder, *(_widened(each) for each in (a, b)), *rest)


def _widened(handle: Any) -> Any:
    if handle.dtype.scalar != _tl.bfloat16:
        return handle
    values = (handle.data.astype(np.uint32) << 16).view(np.float32)
    return interpreter.TensorHandle(values, _tl.float32)


def _cast(builder: Any, source: Any, to: Any) -> Any:
    if source.dtype.scalar != _tl.float32 or to.scalar != _tl.bfloat16:
        return _plain_cast(builder, source, to)
    rounded = torch.from_numpy(np.ascontiguousarray(source.data)).to(torch.bfloat16)
    return interpreter.TensorHandle(rounded.view(torch.uint16).numpy(), _tl.bfloat16)
