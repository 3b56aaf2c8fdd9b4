"""Which way a network computes: on the kernels of `engine.py`, or in PyTorch, and why."""

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import nn

from minibert.errors import EngineError
from minibert.model import BertModel
from minibert.ops import QuantisedLinear
from minibert.quantise import BITS

if TYPE_CHECKING:
    from minibert.engine import Engine
    from minibert.gpu_engine import GpuEngine

    AnyEngine = Engine | GpuEngine

_log = logging.getLogger(__name__)

EngineChoice = Literal["auto", "kernels", "pytorch"]

# With the choice "auto" kernels that have been compiled are used from so many tokens on, since
# making their copy of the weights takes as long as computing these; and compiled from so many in
# one call on, since that takes as long as they save.
TOKENS_TO_LOAD = 256
TOKENS_TO_COMPILE = 100_000

# What a text is taken to have before it is looked at.
TOKENS_PER_TEXT = 25


def chosen_engine(asked: str | None) -> EngineChoice:
    """What is asked for, else what $MINIBERT_ENGINE says, else "auto"."""
    place = "engine" if asked is not None else "MINIBERT_ENGINE"
    name = asked if asked is not None else os.environ.get("MINIBERT_ENGINE") or "auto"
    for choice in get_args(EngineChoice):
        if choice == name:
            return choice
    raise EngineError(f"got {place} {name!r}, expected one of {list(get_args(EngineChoice))}")


class Engines:
    """Decides, for a network, what computes: the kernels, or PyTorch, and why."""

    def __init__(
        self,
        model: BertModel,
        choice: EngineChoice,
        *,
        reproducible: bool,
        bfloat16x3: bool = False,
    ) -> None:
        self.reproducible = reproducible
        self._bfloat16x3 = bfloat16x3
        self._why_not_bfloat16x3 = ""
        self._model = model
        self._choice = choice
        self._dtype = next(
            (name for module in model.layers.modules() if (name := _integers(module))),
            str(model.embeddings.token.weight.dtype).removeprefix("torch."),
        )
        self._is_of_integers = self._dtype in BITS
        self._engine: AnyEngine | None = None
        self._why_not = "" if choice != "pytorch" else "as asked"
        self._seen_tokens = 0
        self._settled = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}  # its pointers mean nothing in another process

    @property
    def description(self) -> str:
        """What computed last, for a line that says it."""
        if self._engine is not None:
            computed, why = self._engine.description, self._why_not_bfloat16x3
        else:
            computed, why = f"{self._dtype} by PyTorch", self._why_not
        return f"{computed} ({why})" if why else computed

    def settle(self, n_tokens: int) -> bool:
        """Decide for a job of about so many tokens, and what follows: whether the kernels do it.

        Each part of the job then comes out as in another process that goes on with it.
        """
        if not self._settled:
            self._seen_tokens = max(self._seen_tokens, TOKENS_TO_LOAD)
            self.for_tokens(n_tokens)
            self._settled = True
        return self._engine is not None

    def settle_for_texts(self, n_texts: int | None) -> bool:
        """The same for a job of so many texts, None for very many."""
        return self.settle(sys.maxsize if n_texts is None else TOKENS_PER_TEXT * n_texts)

    def of(self, model: BertModel) -> "Engines":
        """These, or where another network has been put in the place of theirs, ones for it."""
        if model is self._model:
            return self
        return Engines(
            model, self._choice, reproducible=self.reproducible, bfloat16x3=self._bfloat16x3
        )

    def for_tokens(self, n_tokens: int) -> "AnyEngine | None":
        """The kernels, for so many tokens that are next; None for PyTorch.

        Raises: EngineError where kernels were asked for, and there can be none.
        """
        if self._choice == "pytorch" or (self._settled and self._engine is None):
            return None
        self._seen_tokens += n_tokens
        by_dtype = self._is_of_integers or self._bfloat16x3
        asked = self._choice == "kernels" or by_dtype or self.reproducible
        if not asked and self._seen_tokens < TOKENS_TO_LOAD:
            self._why_not = "there is little to do"
            return None
        if self._engine is None or not self._engine.is_of(self._model):
            self._engine = self._made(asked or n_tokens >= TOKENS_TO_COMPILE)
        return self._engine

    def _made(self, compile_kernels: bool) -> "AnyEngine | None":
        on_gpu = _is_on_gpu(self._model)
        if on_gpu and self.reproducible:
            self._refuse("on a GPU a text's last bits hang on what is embedded with it")
            return None
        try:
            # Here: who embeds a sentence or two does without, and the import is felt at start-up.
            from minibert.engine import Engine
            from minibert.kernels.build import KernelsUnavailableError

            if on_gpu:
                from minibert.gpu_engine import GpuEngine
        except ImportError as error:
            advice = ": pip install 'minibert[gpu]'" if error.name == "triton" else ""
            self._refuse(f"{error.name} is not installed{advice}")
            return None
        kind = GpuEngine if on_gpu else Engine
        if self._bfloat16x3:
            try:
                return Engine(self._model, compile_kernels=compile_kernels, bfloat16x3=True)
            except KernelsUnavailableError as error:
                self._do_without_bfloat16x3(str(error))
        try:
            return kind(self._model, compile_kernels=compile_kernels)
        except KernelsUnavailableError as error:
            self._refuse(str(error))
            return None

    def _do_without_bfloat16x3(self, why: str) -> None:
        if not self._why_not_bfloat16x3:
            _log.warning("%s is computed in place of bfloat16x3: %s", self._dtype, why)
        self._why_not_bfloat16x3 = why

    def _refuse(self, why: str) -> None:
        if self._choice == "kernels":
            raise EngineError(f"{why}; or choose engine='pytorch', which is slower")
        if self._is_of_integers and not self._why_not:
            _log.warning("integers are computed by PyTorch, slower than float32: %s", why)
        self._why_not = why


def _is_on_gpu(model: BertModel) -> bool:
    return model.embeddings.token.weight.is_cuda


def _integers(module: nn.Module) -> str:
    """The name in `quantise.BITS` of what a linear map computes with; "" where it is none."""
    return f"int{module.bits}" if isinstance(module, QuantisedLinear) else ""
