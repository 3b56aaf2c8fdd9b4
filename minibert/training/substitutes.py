"""Which way a run computes its updates on a CPU: by PyTorch, or by kernels that know gradients."""

import logging

import torch

from minibert import ops
from minibert.engine_choice import TOKENS_TO_COMPILE, chosen_engine
from minibert.errors import EngineError

_log = logging.getLogger(__name__)

# A token of an update is gone through forward, and backward for its own gradient and for weights'.
_PASSES = 3


def substitutes_for(
    asked: str | None, *, precision: str, device: torch.device, n_tokens: float
) -> ops.Substitutes | None:
    """The kernels' operations for a run, or None for PyTorch's.

    Args:
        asked: the engine that the run file names; None: as `engine_choice.chosen_engine` says.
        precision: of the run; "auto" leaves float32 to PyTorch, so that a run gives the same
            weights to the last bit as it always did.
        n_tokens: of all updates: kernels that were asked for by none are compiled for many.

    Raises: EngineError where kernels were asked for, and there can be none.
    """
    choice = chosen_engine(asked)
    if choice == "pytorch" or (choice == "auto" and (precision, device.type) != ("bf16", "cpu")):
        return None
    try:
        if device.type != "cpu":
            raise EngineError(f"the kernels do not have a form for {device.type}")
        compiles = choice == "kernels" or _PASSES * n_tokens >= TOKENS_TO_COMPILE
        return _loaded(compile_kernels=compiles)
    except EngineError as error:
        if choice == "kernels":
            raise EngineError(f"{error}; or choose engine = 'pytorch', which is slower") from None
        _log.info("updates are computed by PyTorch: %s", error)
        return None


def _loaded(*, compile_kernels: bool) -> ops.Substitutes:
    try:  # Here: who trains without needs no kernels to be installed.
        from minibert.engine import load_kernels
        from minibert.kernels import operations
        from minibert.kernels import training_operations as kernels
        from minibert.kernels.build import KernelsUnavailableError
    except ImportError:
        raise EngineError("minibert.kernels is not installed") from None
    try:
        operations.use(load_kernels(compile_kernels=compile_kernels))
    except KernelsUnavailableError as error:
        raise EngineError(str(error)) from None
    return ops.Substitutes(
        linear=kernels.products,
        attention=kernels.packed_attention,
        dropout=kernels.dropout,
        gelu=kernels.gelu,
        add_norm=kernels.add_norm_training,
    )
