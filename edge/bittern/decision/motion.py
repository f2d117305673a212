"""The motion gate: whether a frame differs from the last classified one; pure, on the frames' clock."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from bittern.frames import Pixels

Cells = npt.NDArray[np.bool_]

# A cell of a thumbnail is a 40th of the picture's short side: an object of 1/20 of its height fills at least one.
_CELLS = 40
_LEAST_CELL = 8
# A cell is the mean of at least so many pixels: a camera's noise in bad light (a deviation of 4 of 255) becomes 0.7.
_SAMPLES = 32


class MotionGate:
    """Passes a frame that shows motion, that comes soon after motion, or that is due as a heartbeat.

    Motion is a difference of more than `threshold`, in any cell and channel of a thumbnail, from the last frame that
    passed. So a frame that does not pass differs by at most `threshold` from one that was classified, however slowly
    the scene changed; and slow changes of light, of less than `threshold` between two heartbeats, are no motion.
    """

    def __init__(self, *, threshold: float, heartbeat_s: float, linger_s: float) -> None:
        """See the class.

        Args:
            threshold: grey levels of 255.
            heartbeat_s: seconds after which a frame passes in any case.
            linger_s: seconds after motion during which every frame passes.
        """
        self._threshold = threshold
        self._heartbeat_ns, self._linger_ns = int(heartbeat_s * 1e9), int(linger_s * 1e9)
        self._reference: Pixels | None = None
        self._spare: Pixels | None = None
        self._passed_ns = 0
        self._moved_ns: int | None = None

    def passes(self, pixels: Pixels, now_ns: int, *, force: bool = False) -> bool:
        """Whether to classify a frame.

        Args:
            pixels: (H, W, 3) uint8, the part of the frame that the models get.
            now_ns: its monotonic time in ns. A clock that was set back counts as motion.
            force: pass in any case, as while a decision is unsettled (`Decision.unsettled`).
        """
        current = thumbnail(pixels, self._spare)
        reference = self._reference
        if (
            reference is None
            or reference.shape != current.shape
            or now_ns < self._passed_ns
            or cv2.norm(current, reference, cv2.NORM_INF) > self._threshold
        ):
            self._moved_ns = now_ns
        elif not (
            force
            or now_ns - self._passed_ns >= self._heartbeat_ns
            or (self._moved_ns is not None and now_ns - self._moved_ns <= self._linger_ns)
        ):
            self._spare = current
            return False
        self._reference, self._spare, self._passed_ns = current, reference, now_ns
        return True

    def changed(self) -> Cells:
        """Where there is motion, to be asked after a frame has passed and before the next one comes.

        Returns:
            (down, across) bool, see `Grid`: the cells that differ from the frame that passed before; none of the first
            frame and of one with another size than the last.
        """
        current, before = self._reference, self._spare
        assert current is not None, "no frame has passed"
        if before is None or before.shape != current.shape:
            return np.zeros(current.shape[:2], bool)
        blue, green, red = cv2.split(cv2.absdiff(current, before))
        return np.asarray(cv2.max(cv2.max(blue, green), red) > self._threshold)


class Grid(NamedTuple):
    """The cells of a picture's thumbnail, in pixels of the picture.

    Attributes:
        cell: side of a cell.
        step: of so many rows of a cell one is used.
        down: number of rows of cells.
        across: number of columns of cells.
        top: where the first row begins.
        left: where the first column begins.
    """

    cell: int
    step: int
    down: int
    across: int
    top: int
    left: int


def grid_of(height: int, width: int) -> Grid:
    """The cells of a picture of so many pixels, in its middle."""
    side = min(height, width)
    cell = min(side, max(_LEAST_CELL, side // _CELLS))
    rows = min(cell, max(2, -(-_SAMPLES // cell)))
    step = cell // rows
    cell = rows * step
    down, across = height // cell, width // cell
    return Grid(cell, step, down, across, (height - down * cell) // 2, (width - across * cell) // 2)


def thumbnail(pixels: Pixels, out: Pixels | None = None) -> Pixels:
    """The means of the square cells of a picture, taken over every n-th row only: more rows would only cost time.

    Args:
        pixels: (H, W, 3) uint8.
        out: an array to write into; ignored if it has not the result's shape.

    Returns:
        (H // cell, W // cell, 3) uint8, of the middle of the picture.
    """
    cell, step, down, across, top, left = grid_of(*pixels.shape[:2])
    sampled = pixels[top + step // 2 : top + down * cell : step, left : left + across * cell]
    if out is not None and out.shape != (down, across, 3):
        out = None
    return np.asarray(cv2.resize(sampled, (across, down), dst=out, interpolation=cv2.INTER_AREA), np.uint8)
