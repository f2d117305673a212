"""The way from a frame to the tensor, for every size, orientation, order and region."""

from __future__ import annotations

import tracemalloc
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.repetitions import examples

from bittern.errors import ConfigurationError
from bittern.frames import Pixels
from bittern.model.preprocess import Region, View, preprocess, resize_exact, square_of, strip_of, views_of

SIDE = st.integers(1, 700)
SIZE = st.sampled_from([1, 2, 32, 96, 160, 192, 224, 225, 320])


def frame_of(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@given(SIDE, SIDE)
def test_the_square_is_a_centred_view(height: int, width: int) -> None:
    frame = frame_of(height, width)
    square = square_of(frame)
    side = min(height, width)
    assert square.shape == (side, side, 3)
    assert np.shares_memory(square, frame)
    top, left = (height - side) // 2, (width - side) // 2
    assert np.array_equal(square, frame[top : top + side, left : left + side])


@given(SIDE, SIDE, st.data())
def test_the_square_of_a_region_is_that_of_the_cut(height: int, width: int, data: st.DataObject) -> None:
    frame = frame_of(height, width)
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    region = Region(x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    square = square_of(frame, region)
    cut = frame[region.y : region.y + region.height, region.x : region.x + region.width]
    assert np.array_equal(square, square_of(cut))
    assert np.shares_memory(square, frame)


@given(SIDE, SIDE, st.tuples(*[st.integers(-800, 800)] * 4))
def test_a_region_is_inside_or_refused(height: int, width: int, numbers: tuple[int, int, int, int]) -> None:
    region = Region(*numbers)
    inside = (
        region.x >= 0
        and region.y >= 0
        and region.width > 0
        and region.height > 0
        and region.x + region.width <= width
        and region.y + region.height <= height
    )
    if inside:
        assert square_of(frame_of(height, width), region).shape[0] == min(region.width, region.height)
    else:
        with pytest.raises(ConfigurationError, match=f"does not fit into the frame of {width} x {height} pixels"):
            preprocess(frame_of(height, width), region=region)


@settings(max_examples=examples(60))
@given(SIDE, SIDE, SIZE)
def test_the_tensor_is_the_picture_in_rgb(height: int, width: int, size: int) -> None:
    frame = frame_of(height, width)
    tensor = preprocess(frame, "BGR", size=size)
    assert tensor.shape == (1, size, size, 3)
    assert tensor.dtype == np.uint8
    assert tensor.flags.c_contiguous
    assert np.array_equal(tensor, preprocess(np.ascontiguousarray(frame[:, :, ::-1]), "RGB", size=size))
    assert np.array_equal(tensor[0, :, :, ::-1], resize_exact(square_of(frame), size))


@settings(max_examples=examples(60))
@given(SIDE, SIZE)
def test_the_resize_is_a_whole_box_mean_and_one_linear_step(side: int, size: int) -> None:
    square = frame_of(side, side)
    factor = max(1, side // size)
    kept = side - side % factor
    start = (side - kept) // 2
    small = square[start : start + kept, start : start + kept]
    blocks = small.reshape(kept // factor, factor, kept // factor, factor, 3).astype(float).mean((1, 3))
    expected = cv2.resize(np.round(blocks).astype(np.uint8), (size, size), interpolation=cv2.INTER_LINEAR_EXACT)
    assert np.abs(resize_exact(square, size).astype(int) - expected).max() <= 1


@settings(max_examples=examples(60))
@given(st.integers(1, 447), st.booleans())
def test_channels_do_not_meet_in_the_resize(side: int, swap: bool) -> None:
    """It takes a fourth channel along for speed; the other three must come out as they do alone."""
    square = frame_of(side, side)
    alone = cv2.resize(square, (224, 224), interpolation=cv2.INTER_LINEAR_EXACT)
    assert np.array_equal(resize_exact(square, swap=swap), alone[:, :, ::-1] if swap else alone)


def test_a_result_is_not_overwritten_by_the_next() -> None:
    frames = [frame_of(480, 640), frame_of(1080, 1920), frame_of(448, 448), frame_of(100, 300), frame_of(224, 224)]
    kept = [preprocess(frame, order) for frame in frames for order in ("BGR", "RGB")]
    copies = [tensor.copy() for tensor in kept]
    for frame in frames[::-1]:
        preprocess(255 - frame)
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))


@settings(max_examples=examples(40))
@given(st.integers(1, 700), st.integers(1, 700), st.tuples(*[st.integers(0, 255)] * 3))
def test_a_flat_frame_stays_flat(height: int, width: int, colour: tuple[int, int, int]) -> None:
    tensor = preprocess(np.full((height, width, 3), colour, np.uint8))
    assert (tensor == np.array(colour[::-1])).all()


@pytest.mark.parametrize("size", [32, 96, 224, 320])
def test_a_picture_of_that_size_is_not_touched(size: int) -> None:
    frame = frame_of(size, size)
    assert resize_exact(frame, size) is frame
    untouched = np.full((size, size, 3), 7, np.uint8)
    assert resize_exact(frame, size, untouched) is frame
    assert (untouched == 7).all()
    assert np.array_equal(preprocess(frame, "RGB", size=size)[0], frame)
    assert np.array_equal(preprocess(frame, size=size)[0], frame[:, :, ::-1])


def chequered(side: int) -> Pixels:
    """Black and white pixels in turn: nothing aliases more."""
    return np.repeat(((np.add.outer(np.arange(side), np.arange(side)) % 2) * 255).astype(np.uint8)[:, :, None], 3, 2)


@pytest.mark.parametrize("factor", range(2, 9))
def test_a_shrink_by_a_whole_factor_does_not_alias(factor: int) -> None:
    tensor = preprocess(chequered(224 * factor)).astype(float)
    # Boxes of an even side hold as much black as white; those of an odd one a pixel more of one.
    rest = 0 if factor % 2 == 0 else 127.5 / factor**2
    assert np.abs(tensor - 127.5).max() <= rest + 1


@pytest.mark.parametrize("side", [449, 480, 600, 671, 673, 720, 1080])
def test_any_shrink_hardly_aliases(side: int) -> None:
    assert np.abs(preprocess(chequered(side)).astype(float) - 127.5).max() < 16


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_out_is_written_in_place(order: Any) -> None:
    frame = frame_of(480, 640)
    out = np.full((1, 224, 224, 3), 7, np.uint8)
    assert preprocess(frame, order, out=out) is out
    assert np.array_equal(out, preprocess(frame, order))
    batch = np.full((4, 224, 224, 3), 7, np.uint8)
    preprocess(frame, order, out=batch[2:3])
    assert np.array_equal(batch[2:3], out)
    assert (batch[[0, 1, 3]] == 7).all()


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_out_saves_the_allocation(order: Any) -> None:
    frame = frame_of(224, 300)  # no resize, whose own arrays would hide it
    out = np.empty((1, 224, 224, 3), np.uint8)
    preprocess(frame, order, out=out)
    peaks = []
    for given_out in (out, None):
        tracemalloc.start()
        preprocess(frame, order, out=given_out)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 10_000
    assert peaks[1] >= out.nbytes


@pytest.mark.parametrize("order", ["BGR", "RGB"])
@pytest.mark.parametrize(
    "out",
    [
        np.zeros((1, 224, 224, 3), np.float32),
        np.zeros((1, 224, 224, 3), np.int8),
        np.zeros((1, 192, 192, 3), np.uint8),
        np.zeros((224, 224, 3), np.uint8),
        np.zeros((2, 224, 224, 3), np.uint8),
        np.zeros((1, 224, 224, 4), np.uint8),
    ],
    ids=lambda out: f"{out.shape} {out.dtype}",
)
def test_an_out_of_another_kind_is_refused_not_left_unwritten(order: Any, out: Any) -> None:
    with pytest.raises(ConfigurationError, match="out") as caught:
        preprocess(frame_of(480, 640), order, out=out)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", ["bgr", "RGBA", "", "GRB"])
def test_an_unknown_order_is_refused(order: Any) -> None:
    with pytest.raises(ConfigurationError, match="BGR"):
        preprocess(frame_of(9, 9), order)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 7))
def test_views_give_what_copies_give(height: int, width: int, kind: int) -> None:
    """Flipped, turned and strided frames, as cameras and numpy code hand them over."""
    frame = frame_of(height, width)
    view = frame[:: -1 if kind & 1 else 1, :: -1 if kind & 2 else 1]
    if kind & 4:
        view = view.transpose(1, 0, 2)
    before = frame.copy()
    assert np.array_equal(preprocess(view), preprocess(np.ascontiguousarray(view)))
    assert np.array_equal(preprocess(view[:, :, ::-1], "RGB"), preprocess(view))
    assert np.array_equal(frame, before), "the frame is the source's"


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 1), np.uint8),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((1, 9, 9, 3), np.uint8),
        np.zeros((3, 9, 9), np.uint8),
        np.zeros((9, 9, 3), np.uint16),
        np.zeros((9, 9, 3), np.float32),
        np.zeros((9, 9, 3), bool),
    ],
    ids=lambda frame: f"{frame.shape} {frame.dtype}",
)
def test_another_shape_or_dtype_is_refused(frame: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        preprocess(frame)
    assert str(caught.value) == f"expected a frame of shape (H, W, 3) uint8, got {frame.shape} {frame.dtype}"


@pytest.mark.parametrize("shape", [(0, 9, 3), (9, 0, 3), (0, 0, 3)])
def test_an_empty_frame_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigurationError, match="is empty"):
        preprocess(np.zeros(shape, np.uint8))


def test_opencv_uses_one_thread() -> None:
    assert cv2.getNumThreads() == 1


# --- views -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("view", "left"), [("left", 0), ("center", 80), ("right", 160)])
def test_views_of_a_wide_frame(view: View, left: int) -> None:
    frame = frame_of(480, 640)
    assert np.array_equal(square_of(frame, None, view), frame[:, left : left + 480])
    assert np.array_equal(preprocess(frame, view=view), preprocess(frame[:, left : left + 480]))


def test_views_lie_inside_the_region() -> None:
    frame, region = frame_of(100, 200), Region(20, 10, 101, 50)
    for view, left in (("left", 20), ("center", 45), ("right", 71)):
        assert np.array_equal(square_of(frame, region, view), frame[10:60, left : left + 50])  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(480, 480), (640, 480)])
def test_a_frame_that_is_not_wide_has_one_square(size: tuple[int, int]) -> None:
    frame = frame_of(*size)
    for view in ("left", "right"):
        assert np.array_equal(square_of(frame, None, view), square_of(frame))
    assert views_of(frame, None, ("right", "left")) == ("center",)
    assert views_of(frame, Region(0, 0, 20, 10), ("right", "left")) == ("right", "left")


def test_a_strip_is_all_that_the_views_see() -> None:
    frame = frame_of(480, 640)
    assert strip_of(frame).shape == (480, 480, 3)
    assert np.array_equal(strip_of(frame, None, ("right", "center")), frame[:, 80:])
    assert np.array_equal(strip_of(frame, None, ("left", "right")), frame)
    with pytest.raises(ConfigurationError, match="expected view center, left or right, got 'top'"):
        square_of(frame, None, "top")  # type: ignore[arg-type]


def test_a_picture_that_could_not_be_read_is_said() -> None:
    """cv2.imread gives None, and the README's example goes on with it."""
    nothing: Any = cv2.imread("absent.jpg")
    with pytest.raises(ConfigurationError, match="got None: the picture could not be read"):
        preprocess(nothing)
