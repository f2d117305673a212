"""The bytes of preprocessing: against stored digests, and against exact integer arithmetic without OpenCV."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles import preprocess_vectors
from tests.doubles.preprocess_vectors import VECTORS, Vector, draw, sha256
from tests.doubles.repetitions import examples

from bittern.frames import Pixels
from bittern.model.preprocess import resize_exact

Integers = npt.NDArray[np.int64]


# --- the reference: the same resize in integers ------------------------------------------------------------------


def box_mean(square: Pixels, factor: int) -> Pixels:
    """The mean of `factor` x `factor` pixels, to the nearest integer.

    Ties go up where the factor is 2, and to the even integer where it is larger: OpenCV has code of its own for 2.
    """
    side, area = square.shape[0] // factor, factor * factor
    total: Integers = square.reshape(side, factor, side, factor, 3).sum(axis=(1, 3), dtype=np.int64)
    mean, rest = total // area, total % area
    up = 2 * rest > area
    tie = 2 * rest == area
    rounded: Integers = mean + (up | (tie if factor == 2 else tie & (mean % 2 == 1)))
    return rounded.astype(np.uint8)


def linear(square: Pixels, size: int) -> Pixels:
    """Linear interpolation with weights in 1/256 and one rounding at the end, half up."""
    side = square.shape[0]
    # The centre of target pixel i is at source pixel ((2i + 1) side - size) / (2 size).
    lower, rest = np.divmod((2 * np.arange(size, dtype=np.int64) + 1) * side - size, 2 * size)
    weight: Integers = (2 * 256 * rest + 2 * size) // (4 * size)
    first, second = lower.clip(0, side - 1), (lower + 1).clip(0, side - 1)
    values = square.astype(np.int64)
    rows = values[first] * (256 - weight)[:, None, None] + values[second] * weight[:, None, None]
    both: Integers = rows[:, first] * (256 - weight)[:, None] + rows[:, second] * weight[:, None]
    return ((both + 2**15) >> 16).astype(np.uint8)


def reference(vector: Vector) -> Pixels:
    """`preprocess` once more: its definition, in integers."""
    frame = vector.frame()
    if vector.region is not None:
        x, y, width, height = vector.region
        frame = frame[y : y + height, x : x + width]
    height, width = frame.shape[:2]
    side = min(height, width)
    factor = max(1, side // vector.size)
    # Both crops are centred, and what does not divide evenly lies at the right and at the bottom.
    cut = side % factor
    top, left = (height - side) // 2 + cut // 2, (width - side) // 2 + cut // 2
    square = frame[top : top + side - cut, left : left + side - cut]
    if factor > 1:
        square = box_mean(square, factor)
    if len(square) != vector.size:
        square = linear(square, vector.size)
    return (square if vector.order == "RGB" else square[..., ::-1])[None]


# --- the tests ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored() -> dict[str, dict[str, str]]:
    return preprocess_vectors.stored()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_a_frame_becomes_the_same_bytes_everywhere(vector: Vector, stored: dict[str, dict[str, str]]) -> None:
    assert sha256(vector.frame()) == stored["frames"][vector.frame_name], "the drawn frame itself differs"
    assert sha256(vector.tensor()) == stored["tensors"][vector.name]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_a_frame_becomes_what_exact_arithmetic_says(vector: Vector) -> None:
    np.testing.assert_array_equal(vector.tensor(), reference(vector))


def test_nothing_stored_is_left_unchecked(stored: dict[str, dict[str, str]]) -> None:
    assert stored["tensors"].keys() == {vector.name for vector in VECTORS}
    assert stored["frames"].keys() == {vector.frame_name for vector in VECTORS}


def test_one_other_byte_is_a_difference() -> None:
    vector = next(v for v in VECTORS if v.width == 640)
    tensor = vector.tensor()
    tensor[0, 100, 100, 1] ^= 1
    digests = preprocess_vectors.stored()
    digests["tensors"][vector.name] = sha256(tensor)
    assert preprocess_vectors.differences(digests) == [f"tensors {vector.name}"]
    del digests["tensors"][vector.name]
    assert preprocess_vectors.differences(digests) == [f"tensors {vector.name}"]


@settings(max_examples=examples(60))
@given(side=st.integers(1, 1500), size=st.sampled_from([96, 192, 224]), kind=st.sampled_from(preprocess_vectors.KINDS))
def test_any_square_is_resized_as_exact_arithmetic_says(side: int, size: int, kind: str) -> None:
    square = draw(side, side, "noise" if kind == "noise" else "gradient")
    expected = reference(Vector(side, side, "noise" if kind == "noise" else "gradient", "RGB", size))[0]
    np.testing.assert_array_equal(resize_exact(square, size), expected)


@pytest.mark.parametrize(("factor", "mean"), [(2, (1, 2, 3)), (4, (0, 2, 2))])
def test_ties_of_the_box_mean(factor: int, mean: tuple[int, int, int]) -> None:
    # Half of every box is n, half n + 1: the mean is n + 1/2, for n = 0, 1, 2 in the three channels.
    rows = np.arange(8 * factor) % 2
    square = np.broadcast_to(rows[:, None, None] + np.arange(3), (8 * factor, 8 * factor, 3)).astype(np.uint8)
    assert resize_exact(square, 8).reshape(-1, 3).tolist() == [list(mean)] * 64
