"""Vectors in fewer bytes: each component as an integer of 8 bits, or its sign alone.

float32  <f4 (rows, dim)          as they are computed
int8     |i1 (rows, dim)          round(127 v / max|v|), of each vector by itself
binary   |u1 (rows, ⌈dim / 8⌉)    1 where a component is > 0, the first in the highest bit of a
                                  byte; zeros behind the last

Nothing has to be kept beside them: a cosine takes no scale, and the dtype says what they are.
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from minibert.errors import TextError

Precision = Literal["float32", "int8", "binary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "int8": np.dtype("i1"),
    "binary": np.dtype("u1"),
}

# Of one of these dtypes. Not their union, which those who take float32 would have to narrow.
Vectors = NDArray[Any]


def check_precision(precision: object) -> None:
    """Refuse what is no precision.

    Raises: ValueError.
    """
    if precision not in PRECISIONS:
        first, *others = map(repr, PRECISIONS)
        raise ValueError(f"got precision {precision!r}, expected {first}, {' or '.join(others)}")


def stored_width(dim: int, dtype: np.dtype[Any]) -> int:
    """How many numbers of a dtype hold a vector of `dim` components."""
    return -(-dim // 8) if dtype == np.uint8 else dim


def quantise_vectors(vectors: NDArray[np.float32], precision: Precision) -> Vectors:
    """The vectors in a precision, see above; a zero vector stays zero, lengths are lost.

    A row depends on no other. The cosine of an int8 vector with its float32 one is at least
    √(1 - s²), s = √dim max|v| / (254 |v|), for no component is off by more than half a step.

    Args:
        vectors: `(rows, dim)`.

    Returns: `(rows, dim)`, as "binary" `(rows, ⌈dim / 8⌉)`.
    Raises: TextError for NaN or infinity, with the index of its row, but as "float32".
    Differs: sentence-transformers takes the range of each dimension from the batch for its "int8",
        so that its vectors depend on their company and their cosines need the ranges. Its "ubinary"
        is this "binary", its "binary" the same less 128.

    >>> quantise_vectors(np.array([[-0.5, 0.25, 1.0]], dtype=np.float32), "int8").tolist()
    [[-64, 32, 127]]
    >>> quantise_vectors(np.array([[-0.5, 0.25, 1.0]], dtype=np.float32), "binary").tolist()
    [[96]]
    """
    if precision == "float32":
        return vectors
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise TextError(
            f"vectors[{int(finite.argmin())}] holds NaN or infinity, expected finite numbers for "
            f"precision {precision!r}; take dtype float32 or bfloat16, which do not overflow"
        )
    if precision == "binary":
        return np.packbits(vectors > 0, axis=1)
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    # Divided first: 127 / max|v| would be infinite of the smallest numbers.
    steps = vectors / np.where(largest == 0, 1, largest)
    steps *= 127
    return np.rint(steps, out=steps).astype(np.int8)


def common_dim(a: Vectors, b: Vectors, dim: int | None = None) -> int:
    """How many components rows of `a` and of `b` stand for.

    Args:
        dim: what is known of it; None takes that of the one that is not uint8, of two uint8 ones
            8 a byte.

    Raises: ValueError where they do not stand for as many.
    """
    widths = [rows.shape[1] for rows in (a, b)]
    most = [8 * n if rows.dtype == np.uint8 else n for rows, n in zip((a, b), widths, strict=True)]
    found = min(most) if dim is None else dim
    if widths != [stored_width(found, rows.dtype) for rows in (a, b)]:
        told = "" if dim is None else f" for dim {dim}"
        raise ValueError(
            f"got vectors of width {widths[0]} and {widths[1]}{told}, expected the same (of uint8 "
            "a byte for 8 components); compare vectors of one model"
        )
    return found


def components(vectors: Vectors, dim: int) -> NDArray[np.float32]:
    """What stored vectors stand for, `(rows, dim)`: of uint8 each bit is a component of 1 or -1."""
    if vectors.dtype != np.uint8:
        return vectors.astype(np.float32)
    signs = np.unpackbits(vectors, axis=1, count=dim).astype(np.float32)
    signs *= 2
    signs -= 1
    return signs
