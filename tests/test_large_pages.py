"""Weights on large pages: the same numbers, side by side."""

import mmap

import pytest
import torch

from minibert.kernels import large_pages
from minibert.kernels.large_pages import LargePages

N_BYTES = 5 << 21


def test_tensors_are_the_same_side_by_side_from_a_page_on() -> None:
    pages = LargePages(N_BYTES)
    given = [torch.rand(300, 1000).t(), torch.arange(37, dtype=torch.int8), torch.rand(2, 3, 4)]
    moved = [pages.put(tensor) for tensor in given]
    for tensor, there in zip(given, moved, strict=True):
        assert there.dtype == tensor.dtype
        assert there.equal(tensor)
        assert there.is_contiguous()
        assert there.data_ptr() % 64 == 0
    if hasattr(mmap, "MADV_HUGEPAGE"):
        assert moved[0].data_ptr() % (1 << 21) == 0
        assert moved[1].data_ptr() == moved[0].data_ptr() + 4 * 1000 * 300
        assert all(
            there.data_ptr() != here.data_ptr() for there, here in zip(moved, given, strict=True)
        )


def test_what_has_no_room_stays_where_it_is() -> None:
    pages = LargePages(N_BYTES)
    large = torch.zeros(8 << 21, dtype=torch.uint8)
    assert pages.put(large) is large
    assert LargePages(100).put(large) is large


@pytest.mark.parametrize("lacking", ["advice", "addresses"])
def test_systems_without_leave_tensors_where_they_are(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Cannot allocate memory")

    if lacking == "advice":
        monkeypatch.delattr(large_pages.mmap, "MADV_HUGEPAGE", raising=False)
    else:
        monkeypatch.setattr(large_pages.mmap, "mmap", refuse)
    tensor = torch.zeros(3)
    assert LargePages(N_BYTES).put(tensor) is tensor
