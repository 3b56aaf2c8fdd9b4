"""Vectors in fewer bytes: by hand, how far their cosines are off, and that none needs others."""

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from strategies import texts, without_type_checks

from minibert import Embedder, embed
from minibert import precision as module
from minibert.errors import TextError
from minibert.precision import (
    DTYPES,
    PRECISIONS,
    Precision,
    common_dim,
    components,
    quantise_vectors,
    stored_width,
)

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROWS = st.tuples(st.integers(1, 4), st.integers(1, 40)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=FINITE)
)
QUANTISED = pytest.mark.parametrize("precision", ["int8", "binary"])
ANY_PRECISION = pytest.mark.parametrize("precision", PRECISIONS)


@pytest.fixture(scope="module")
def embedder(minilm: Path) -> Embedder:
    return Embedder.from_pretrained(minilm, reproducible=True)


def of(*numbers: float) -> NDArray[np.float32]:
    return np.array([numbers], dtype=np.float32)


# By hand.


def test_int8_is_worked_by_hand() -> None:
    assert quantise_vectors(of(3, -4, 0, 1), "int8").tolist() == [[95, -127, 0, 32]]  # 31.75
    assert quantise_vectors(of(-1e-45, 0), "int8").tolist() == [[-127, 0]]
    assert quantise_vectors(of(3e38, -1.5e38, 1), "int8").tolist() == [[127, -64, 0]]
    assert quantise_vectors(of(0, -0.0), "int8").tolist() == [[0, 0]]


def test_binary_is_worked_by_hand() -> None:
    signs = quantise_vectors(of(1, -1, 0, -0.0, 1e-45, 2, -3, 4, -5, 6), "binary")
    assert signs.tolist() == [[0b10001101, 0b01000000]]
    assert components(signs, 10).tolist() == [[1, -1, -1, -1, 1, 1, -1, 1, -1, 1]]


def test_float32_is_left_as_it_is() -> None:
    rows = of(1, np.nan)
    assert quantise_vectors(rows, "float32") is rows


def test_dims_are_worked_by_hand() -> None:
    assert [stored_width(dim, DTYPES["binary"]) for dim in (1, 8, 9, 384)] == [1, 1, 2, 48]
    assert [stored_width(384, DTYPES[precision]) for precision in ("float32", "int8")] == [384] * 2
    wide, bits = np.zeros((1, 12), dtype=np.int8), np.zeros((1, 2), dtype=np.uint8)
    assert common_dim(wide, bits) == common_dim(bits, wide) == common_dim(bits, bits, 12) == 12
    assert common_dim(bits, bits) == 16


@ANY_PRECISION
def test_no_vectors_are_none_in_each_precision(precision: Precision) -> None:
    none = quantise_vectors(np.zeros((0, 12), dtype=np.float32), precision)
    assert (none.shape, none.dtype) == (
        (0, stored_width(12, DTYPES[precision])),
        DTYPES[precision],
    )


def test_doctests_run() -> None:
    result = doctest.testmod(without_type_checks(module))
    assert result.failed == 0
    assert result.attempted == 2


# Refusals.


@QUANTISED
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(precision: Precision, wrong: float) -> None:
    rows = np.ones((3, 4), dtype=np.float32)
    rows[1, 2] = wrong
    with pytest.raises(TextError) as caught:
        quantise_vectors(rows, precision)
    assert str(caught.value) == (
        f"vectors[1] holds NaN or infinity, expected finite numbers for precision {precision!r}; "
        "take dtype float32 or bfloat16, which do not overflow"
    )


@pytest.mark.parametrize("wrong", ["ubinary", "float16", "", None])
def test_unknown_precision_is_one_line(wrong: Any, minilm: Path) -> None:
    unchecked = without_type_checks(embed).Embedder.from_pretrained(minilm)
    for ask in (
        unchecked.encode,
        lambda *args, **options: list(unchecked.stream(*args, **options)),
    ):
        with pytest.raises(ValueError, match="got precision") as caught:
            ask(["a"], precision=wrong)
        assert str(caught.value) == (
            f"got precision {wrong!r}, expected 'float32', 'int8' or 'binary'"
        )


# Properties.


@given(ROWS)
def test_int8_is_off_by_half_a_step_at_most(rows: NDArray[np.float32]) -> None:
    stored = quantise_vectors(rows, "int8").astype(np.float64)
    wide = rows.astype(np.float64)
    largest = np.abs(wide).max(axis=1, keepdims=True)
    assert (np.abs(stored).max(axis=1) == np.where(largest[:, 0] == 0, 0, 127)).all()
    assert (np.abs(stored * largest - 127 * wide) <= 0.5001 * largest).all()


@given(ROWS)
def test_cosines_of_int8_are_within_their_bound(rows: NDArray[np.float32]) -> None:
    """What is rounded off is at most √dim / 2 long, beside 127 |v| / max|v|: the sine of the angle
    by which a vector turns is at most their ratio. Angles add up, and a cosine changes no more than
    its angle does.
    """
    rows = rows[np.abs(rows).max(axis=1) > 0]
    wide, stored = rows.astype(np.float64), quantise_vectors(rows, "int8").astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    sines = 0.5001 * np.sqrt(rows.shape[1]) * np.abs(wide).max(axis=1) / (127 * lengths)
    units, turned = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (wide, stored))
    assert ((units * turned).sum(axis=1) >= np.sqrt(1 - sines**2) - 1e-12).all()
    angles = np.arcsin(sines)
    one_sided, both = (
        np.abs(units @ turned.T - units @ units.T),
        np.abs(turned @ turned.T - units @ units.T),
    )
    assert (one_sided <= angles + 1e-12).all()
    assert (both <= angles[:, None] + angles + 1e-12).all()


@given(ROWS)
def test_binary_is_the_signs(rows: NDArray[np.float32]) -> None:
    stored = quantise_vectors(rows, "binary")
    bits = np.unpackbits(stored, axis=1)
    np.testing.assert_array_equal(bits[:, : rows.shape[1]], rows > 0)
    assert not bits[:, rows.shape[1] :].any()
    np.testing.assert_array_equal(components(stored, rows.shape[1]), np.where(rows > 0, 1, -1))


@QUANTISED
@given(rows=ROWS)
def test_a_row_depends_on_no_other(precision: Precision, rows: NDArray[np.float32]) -> None:
    together = quantise_vectors(rows, precision)
    alone = [quantise_vectors(rows[i : i + 1], precision) for i in range(len(rows))]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@given(ROWS)
def test_cosine_of_binary_vectors_counts_the_bits_that_differ(rows: NDArray[np.float32]) -> None:
    dim = rows.shape[1]
    signs = rows > 0
    expected = 1 - 2 * (signs[:, None] != signs).sum(axis=2) / dim
    stored = quantise_vectors(rows, "binary")
    np.testing.assert_allclose(Embedder.similarity(stored, stored, dim=dim), expected, atol=1e-6)


# Of texts.


@QUANTISED
@settings(max_examples=5)
@given(batch=st.lists(texts(), min_size=1, max_size=4), data=st.data())
def test_vectors_of_texts_do_not_depend_on_their_company(
    embedder: Embedder, precision: Precision, batch: list[str], data: st.DataObject
) -> None:
    width = data.draw(st.integers(1, embedder.dim))
    options: dict[str, Any] = {"precision": precision, "truncate_dim": width}
    together = embedder.encode(batch, **options)
    assert together.dtype == DTYPES[precision]
    assert together.shape == (len(batch), stored_width(width, together.dtype))
    floats = embedder.encode(batch, truncate_dim=width)
    np.testing.assert_array_equal(together, quantise_vectors(floats, precision))
    np.testing.assert_array_equal(together[-1], embedder.encode(batch[-1], **options))
    streamed = np.concatenate(list(embedder.stream(batch, chunk_texts=2, **options)))
    np.testing.assert_array_equal(together, streamed)


@QUANTISED
def test_length_leaves_signs_and_steps_as_they_are(
    embedder: Embedder, precision: Precision
) -> None:
    both = [
        embedder.encode("a text", precision=precision, normalize_embeddings=each).astype(np.int64)
        for each in (True, False)
    ]
    assert np.abs(both[0] - both[1]).max() <= (1 if precision == "int8" else 0)


def test_text_that_overflows_is_counted_within_the_corpus(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Embedder._finish

    def overflowing(self: Embedder, *args: Any) -> Any:
        vectors = finish(self, *args).clone()
        vectors[-1, 0] = np.inf
        return vectors

    monkeypatch.setattr(Embedder, "_finish", overflowing)
    with pytest.raises(TextError, match=r"^vectors\[1\] holds NaN or infinity, expected finite"):
        list(embedder.stream(["a", "b", "c"], chunk_texts=2, precision="int8"))
