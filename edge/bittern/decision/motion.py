"""The motion gate: whether a frame differs from the last classified one; pure, on the frames' clock."""

from __future__ import annotations

import cv2
import numpy as np

from bittern.frames import Pixels

# A thumbnail has cells of a 40th of the picture's short side, so that what is 1/20 of it high fills at least one.
_CELLS = 40
_LEAST_CELL = 8
# Mean of so many pixels, at least: the noise of a camera in bad light (a deviation of 4 of 255) becomes 0.7.
_SAMPLES = 32


class Gate:
    """Lets a frame pass that shows motion, that comes soon after motion, or that is due as a heartbeat.

    Motion is a difference of more than `threshold`, in any cell and channel of a thumbnail, to the frame that passed
    last. So a frame that does not pass differs by at most so much from one that was classified, however slowly it came
    to that; and slow changes of light, less than `threshold` between two heartbeats, are no motion.
    """

    def __init__(self, *, threshold: float, heartbeat_s: float, linger_s: float) -> None:
        """See the class.

        Args:
            threshold: grey levels of 255.
            heartbeat_s: seconds after which a frame passes in any case.
            linger_s: seconds after motion in which every frame passes.
        """
        self._threshold = threshold
        self._heartbeat_ns, self._linger_ns = int(heartbeat_s * 1e9), int(linger_s * 1e9)
        self._reference: Pixels | None = None
        self._spare: Pixels | None = None
        self._passed_ns = 0
        self._moved_ns: int | None = None

    def passes(self, pixels: Pixels, now_ns: int, *, wanted: bool = False) -> bool:
        """Whether to classify a frame.

        Args:
            pixels: (H, W, 3) uint8, what is looked at of the frame.
            now_ns: its monotonic time in ns. A clock that was set back is a new scene.
            wanted: it is to be classified anyhow, as while a decision is unsettled (`Decision.unsettled`).
        """
        seen = thumbnail(pixels, self._spare)
        last = self._reference
        if (
            last is None
            or last.shape != seen.shape
            or now_ns < self._passed_ns
            or cv2.norm(seen, last, cv2.NORM_INF) > self._threshold
        ):
            self._moved_ns = now_ns
        elif not (
            wanted
            or now_ns - self._passed_ns >= self._heartbeat_ns
            or (self._moved_ns is not None and now_ns - self._moved_ns <= self._linger_ns)
        ):
            self._spare = seen
            return False
        self._reference, self._spare, self._passed_ns = seen, last, now_ns
        return True


def thumbnail(pixels: Pixels, out: Pixels | None = None) -> Pixels:
    """The means of square cells of a picture, of every n-th row of them: what is left out would only make it slower.

    Args:
        pixels: (H, W, 3) uint8.
        out: an array of the result's shape to write into; of another shape it is left alone.

    Returns:
        (H // cell, W // cell, 3) uint8, cut in the middle of the picture.
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    cell = min(side, max(_LEAST_CELL, side // _CELLS))
    rows = min(cell, max(2, -(-_SAMPLES // cell)))
    step = cell // rows
    cell = rows * step
    high, wide = height // cell, width // cell
    top, left = (height - high * cell) // 2, (width - wide * cell) // 2
    taken = pixels[top + step // 2 : top + high * cell : step, left : left + wide * cell]
    if out is not None and out.shape != (high, wide, 3):
        out = None
    return np.asarray(cv2.resize(taken, (wide, high), dst=out, interpolation=cv2.INTER_AREA), np.uint8)
