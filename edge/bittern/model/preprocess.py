"""Preprocessing: turns a frame into the input tensor, the same bytes on every machine.

Training, calibration, evaluation and the daemon all call `preprocess`. The resize was measured to be byte-identical on
x86-64 and aarch64 and on OpenCV 4.6 to 5.0; `tests/bittern/model/test_preprocess_vectors.py` replays stored bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np

from bittern.errors import ConfigurationError
from bittern.frames import Order, Pixels

# "moving" is the square around what moves in a stream (`bittern.decision.moving`), given to `predict` as a region.
View = Literal["center", "left", "right", "moving"]
CENTER: tuple[View, ...] = ("center",)

# OpenCV's own thread pool costs more than it gains at this size, and can deadlock under qemu.
cv2.setNumThreads(1)


class Region(NamedTuple):
    """A rectangle in pixels of the frame: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int


def square_of(
    frame: Pixels, region: Region | None = None, view: View = "center", aspect: tuple[int, int] = (1, 1)
) -> Pixels:
    """Crop a frame, or a region of it, to a square: in the centre, or at the left or right end.

    Args:
        frame: (H, W, 3) uint8.
        region: a rectangle inside the frame; None takes the whole frame.
        view: where the square lies in a frame that is wider than high. Any other frame has only the centred square,
            whatever the view (see `views_of`). "moving" is unknown here: a single frame does not say where it is.
        aspect: height and width of the network's input; if they differ, the square is the largest rectangle of this
            shape instead.

    Returns:
        (S, S, 3) uint8 with S = min(H, W), sharing the frame's memory. Offsets are (H - S) // 2 and, from left to
        right, 0, (W - S) // 2 and W - S.

    Raises:
        ConfigurationError: the frame has another shape or dtype, the region is empty or not inside the frame, or the
            view is unknown.
    """
    return strip_of(frame, region, (view,), aspect)


def region_of(frame: Pixels, region: tuple[int, int, int, int] | None) -> Pixels:
    """Crop a frame to a region.

    Args:
        frame: (H, W, 3) uint8.
        region: left, top, width, height of a rectangle inside the frame; None takes the whole frame.

    Returns:
        (height, width, 3) uint8, sharing the frame's memory.

    Raises:
        ConfigurationError: the frame has another shape or dtype, or is None; or the region is empty or not inside it.
    """
    if frame is None:  # cv2.imread returns it for a file that it cannot read
        raise ConfigurationError("expected a frame of shape (H, W, 3) uint8, got None: the picture could not be read")
    if not isinstance(frame, np.ndarray):
        raise ConfigurationError(f"expected a frame of shape (H, W, 3) uint8, got {type(frame).__name__}")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ConfigurationError(f"expected a frame of shape (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
    if region is None:
        return frame
    x, y, w, h = region
    height, width = frame.shape[:2]
    if w < 1 or h < 1 or x < 0 or y < 0 or x + w > width or y + h > height:
        raise ConfigurationError(
            f"region x={x} y={y} width={w} height={h} does not fit into the frame of {width} x {height} pixels"
        )
    return frame[y : y + h, x : x + w]


def strip_of(
    frame: Pixels, region: Region | None = None, views: Sequence[View] = CENTER, aspect: tuple[int, int] = (1, 1)
) -> Pixels:
    """Crop a frame to the part that some views cover, from the leftmost square to the rightmost.

    Args:
        frame: see `square_of`.
        region: see there.
        views: at least one.
        aspect: see there.

    Returns:
        (S, at least S, 3) uint8, sharing the frame's memory.

    Raises:
        ConfigurationError: see there.
    """
    frame = region_of(frame, region)
    height, width = frame.shape[:2]
    tall = min(height, width * aspect[0] // aspect[1])
    wide = min(width, height * aspect[1] // aspect[0])
    if min(tall, wide) < 1:
        empty = "is empty" if min(height, width) < 1 else f"has no part of the shape {aspect[1]} x {aspect[0]}"
        raise ConfigurationError(f"the frame of {width} x {height} pixels {empty}")
    top = (height - tall) // 2
    first, last = width, 0
    for view in views:
        if view == "center":
            left = (width - wide) // 2
        elif view == "left":
            left = 0
        elif view == "right":
            left = width - wide
        else:
            raise ConfigurationError(f"expected view center, left or right, got {view!r}")
        first, last = min(first, left), max(last, left)
    return frame[top : top + tall, first : last + wide]


def views_of(frame: Pixels, region: Region | None, views: Sequence[View]) -> Sequence[View]:
    """The distinct views of a frame: those given; the centre for left and right if it is not wider than high."""
    width, height = (frame.shape[1], frame.shape[0]) if region is None else (region.width, region.height)
    if width > height:
        return views
    return tuple(dict.fromkeys("moving" if view == "moving" else "center" for view in views))


class _Scratch(threading.local):
    """Intermediate pictures, reused from frame to frame: the kernel has to map the memory of every new array."""

    def __init__(self) -> None:
        self._buffers: dict[str, Pixels] = {}

    def picture(self, step: str, size: tuple[int, int], channels: int) -> Pixels:
        """A (height, width, channels) uint8 array, the same one as long as a step asks for the same shape."""
        shape = (*size, channels)
        if step not in self._buffers or self._buffers[step].shape != shape:
            self._buffers[step] = np.empty(shape, np.uint8)
        return self._buffers[step]


_scratch = _Scratch()


def resize_exact(
    square: Pixels, size: int | tuple[int, int] = 224, out: Pixels | None = None, *, swap: bool = False
) -> Pixels:
    """Resize a square picture; the same bytes on every architecture and OpenCV version.

    First `INTER_AREA` by the whole factor `side // size`, over the largest centred part that the factor divides: the
    box mean, rounded to nearest (ties up for factor 2, to even above), so nothing aliases. Then one
    `INTER_LINEAR_EXACT` step by a factor below two.

    Args:
        square: (S, S, 3) uint8; for a size that is no square a rectangle of its shape, to the pixel.
        size: side of the result, or its height and width, in pixels.
        out: a contiguous (size, size, 3) uint8 array for the last step to write into.
        swap: exchange the first and the last channel (BGR and RGB).

    Returns:
        (size, size, 3) uint8: `out`, if it was given and there was a step. The input itself (no copy) if it already
        has that size and no channels are swapped.
    """
    height, width = (size, size) if isinstance(size, int) else size
    tall, wide = square.shape[:2]
    factor = max(1, min(tall // height, wide // width))
    if factor > 1:
        small = tall // factor, wide // factor
        top, left = tall % factor // 2, wide % factor // 2
        square = square[top : top + small[0] * factor, left : left + small[1] * factor]
        last = small == (height, width) and not swap
        target = out if last else _scratch.picture("area", small, 3)
        square = cv2.resize(square, small[::-1], dst=target, interpolation=cv2.INTER_AREA)
    if square.shape[:2] != (height, width):
        # With an unused fourth channel OpenCV's exact resize takes a fifth less time: it has vector instructions for
        # four channels, but not for three. Channels do not affect each other.
        code = cv2.COLOR_BGR2RGBA if swap else cv2.COLOR_RGB2RGBA
        rgba = cv2.cvtColor(square, code, dst=_scratch.picture("rgba", (square.shape[0], square.shape[1]), 4))
        resized = _scratch.picture("resized", (height, width), 4)
        cv2.resize(rgba, (width, height), dst=resized, interpolation=cv2.INTER_LINEAR_EXACT)
        square = cv2.cvtColor(resized, cv2.COLOR_RGBA2RGB, dst=out)
    elif swap:
        square = cv2.cvtColor(square, cv2.COLOR_BGR2RGB, dst=out)
    return square


def preprocess(
    frame: Pixels,
    order: Order = "BGR",
    *,
    size: int | tuple[int, int] = 224,
    region: Region | None = None,
    view: View = "center",
    out: Pixels | None = None,
) -> Pixels:
    """Turn a frame into the input tensor: square, exact resize, RGB.

    Args:
        frame: (H, W, 3) uint8.
        order: the channel order of `frame`; "BGR" is what OpenCV decodes to.
        size: side of the network's input, or its height and width, in pixels.
        region: a rectangle to use instead of the whole frame.
        view: which square of it, see `square_of`.
        out: a contiguous (1, size, size, 3) uint8 array to write into; None allocates one.

    Returns:
        (1, size, size, 3) uint8 RGB: the picture itself. The scaling to [-1, 1] that the weights expect is part of
        the model's input quantization (scale 1/127.5).

    Raises:
        ConfigurationError: see `square_of`; also for an unknown order, or if `out` has another shape or dtype.
    """
    if order not in ("BGR", "RGB"):
        raise ConfigurationError(f"expected channel order BGR or RGB, got {order!r}")
    height, width = (size, size) if isinstance(size, int) else size
    if out is None:
        out = np.empty((1, height, width, 3), np.uint8)
    elif out.shape != (1, height, width, 3) or out.dtype != np.uint8:
        # OpenCV would allocate another array and leave this one unchanged.
        raise ConfigurationError(f"expected out of shape {(1, height, width, 3)} uint8, got {out.shape} {out.dtype}")
    picture = out[0]
    crop = square_of(frame, region, view, (height, width))
    small = resize_exact(crop, (height, width), picture, swap=order == "BGR")
    if small is not picture:
        picture[:] = small
    return out
