"""AdamW in one pass: values, gradients and both moments are read once and written once.

About 15 operations for 7 numbers moved: the memory's rate bounds it.  A launch for each parameter.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from minibert.kernels.gpu.shapes import TILE


@triton.jit
def _adamw(
    values, gradients, means, squares, n_elements, decay, step_size, mean_share, square_kept,
    square_share, root_divisor, eps, BLOCK: tl.constexpr,
):  # fmt: skip
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < n_elements
    value = tl.load(values + places, mask=inside, other=0.0).to(tl.float32)
    gradient = tl.load(gradients + places, mask=inside, other=0.0).to(tl.float32)
    mean = tl.load(means + places, mask=inside, other=0.0)
    square = tl.load(squares + places, mask=inside, other=0.0)
    mean += (gradient - mean) * mean_share
    square = square * square_kept + gradient * gradient * square_share
    denominator = tl.sqrt(square) / root_divisor + eps
    value = value * decay - step_size * (mean / denominator)
    tl.store(values + places, value, mask=inside)
    tl.store(means + places, mean, mask=inside)
    tl.store(squares + places, square, mask=inside)


@torch.library.custom_op(
    "minibert_gpu::adamw_", mutates_args=("values", "means", "squares")
)  # fmt: skip
def adamw_(
    values: list[Tensor], gradients: list[Tensor], means: list[Tensor], squares: list[Tensor],
    steps: int, rate: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    bias_correction: bool,
) -> None:  # fmt: skip
    """A step of `training.optim.AdamW`, in place.

    Args:
        values: parameters, contiguous, of any floating dtype but float64; rounded once.
        gradients: of the same shapes.
        means, squares: the moments, float32.
        steps: this one included.
    """
    decay = 1 - rate * weight_decay
    root_divisor = (1 - beta2**steps) ** 0.5 if bias_correction else 1.0
    step_size = rate / (1 - beta1**steps) if bias_correction else rate
    for value, gradient, mean, square in zip(values, gradients, means, squares, strict=True):
        assert value.is_contiguous(), "a parameter's values are not contiguous"
        with torch.cuda.device_of(value):
            _adamw[(triton.cdiv(value.numel(), TILE),)](
                value, gradient.contiguous(), mean, square, value.numel(), decay, step_size,
                1 - beta1, beta2, 1 - beta2, root_divisor, eps, BLOCK=TILE,
            )  # fmt: skip
