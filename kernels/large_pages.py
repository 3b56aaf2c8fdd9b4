"""Memory for weights on large pages, where the system has them.

A question reads all weights once.  On pages of 4 KiB that is ten thousand addresses to translate,
which takes some hundredths of its time; on pages of 2 MiB it is twenty.
"""

import mmap

import torch
from torch import Tensor

_PAGE = 1 << 21
_LINE = 64


class LargePages:
    """Room for `n_bytes`, of which only what is used takes memory, in whole pages.

    Where the system has no such pages, or no room for more addresses, tensors lie as they would.
    """

    def __init__(self, n_bytes: int) -> None:
        self._room = torch.empty(0, dtype=torch.uint8)
        self._used = 0
        advice = getattr(mmap, "MADV_HUGEPAGE", None)  # of Linux
        if advice is None or n_bytes < _PAGE:
            return
        try:
            kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            memory = mmap.mmap(-1, n_bytes // _PAGE * _PAGE + 2 * _PAGE, flags=kind)
            memory.madvise(advice)
        except OSError:  # a limit on addresses, or a kernel built without
            return
        self._room = torch.frombuffer(memory, dtype=torch.uint8)
        self._used = -self._room.data_ptr() % _PAGE

    def put(self, tensor: Tensor) -> Tensor:
        """The same numbers, contiguous, there if there is room."""
        n_bytes = tensor.numel() * tensor.element_size()
        place = self._room[self._used : self._used + n_bytes]
        if len(place) < n_bytes:
            return tensor.contiguous()
        self._used += -(-n_bytes // _LINE) * _LINE
        return place.view(tensor.dtype).view(tensor.shape).copy_(tensor)
