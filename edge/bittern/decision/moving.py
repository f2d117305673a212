"""The view `moving`: a square that follows what moves; pure, on the frames' clock."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from bittern.decision.motion import Cells, Grid, grid_of
from bittern.model.preprocess import Region

# The square is so many times as large as what moves, which therefore fills at most two thirds of it: the pictures that
# the networks are trained on show a thing with what is around it, and the square lags behind.
_MARGIN = 1.5
# Time constant of the smoothing. The square is behind what moves steadily by the way of so much time: in 0.2 s a thing
# that crosses the frame in 4 s goes 5 % of the way, less than the margin. Shorter, and it would jump at 5 frames a
# second; longer, and it would leave behind what passes.
_SMOOTHING_S = 0.2
# Motion over at least this share of the picture is nowhere in particular: the camera moves, or the light changes.
_EVERYWHERE = 0.5
# Cells of one group are at most four apart, a tenth of the picture's short side: what is of one colour changes only at
# its two edges when it moves.
_REACH = np.ones((5, 5), np.uint8)


class _Square(NamedTuple):
    """A square in pixels, not rounded."""

    x: float  # of its centre
    y: float
    side: float


class MovingView:
    """The square around the largest group of cells that changed.

    It is never smaller than the network's input and never larger than the picture's short side, and always inside the
    picture. Centre and side are exponential averages over time. It goes back to the centred square when nothing has
    moved for a while, and while motion is everywhere. If several groups move, cells inside the square count twice: it
    stays with what it follows until something else is much larger.
    """

    def __init__(self, *, least: int, hold_s: float) -> None:
        """Start with the centred square.

        Args:
            least: the smallest side, in px: that of the network's input.
            hold_s: seconds after the last motion before it begins to go back.
        """
        self._least, self._hold_ns = least, int(hold_s * 1e9)
        self._size = (0, 0)
        self._square = self._target = _Square(0.0, 0.0, 0.0)
        self._now_ns = self._moved_ns = 0

    def follow(self, changed: Cells, height: int, width: int, now_ns: int) -> Region | None:
        """Take the motion of one frame.

        Args:
            changed: (down, across) bool, see `MotionGate.changed`.
            height: of the picture, in px.
            width: of the picture, in px.
            now_ns: its monotonic time in ns. A clock that was set back starts anew, as does another size.

        Returns:
            The square, in px of the picture; None if it is the centred one.
        """
        short = min(height, width)
        centre = Region((width - short) // 2, (height - short) // 2, short, short)
        centred = _Square(centre.x + short / 2, centre.y + short / 2, short)
        if (height, width) != self._size or now_ns < self._now_ns:
            self._size, self._now_ns = (height, width), now_ns
            self._square = self._target = centred
        if changed.any():
            self._target = self._around(changed, grid_of(height, width)) or centred
            self._moved_ns = now_ns
        elif now_ns - self._moved_ns > self._hold_ns:
            self._target = centred
        share = -math.expm1((self._now_ns - now_ns) / 1e9 / _SMOOTHING_S)
        self._now_ns = now_ns
        # The squares inside a picture are a convex set, so this one is inside too.
        x, y, side = (old + share * (new - old) for old, new in zip(self._square, self._target, strict=True))
        self._square = _Square(x, y, side)
        region = _rounded(self._square, height, width)
        return None if region == centre else region

    def _around(self, changed: Cells, grid: Grid) -> _Square | None:
        """The square around the largest group of cells; None if motion is everywhere."""
        height, width = self._size
        joined = cv2.dilate(changed.view(np.uint8), _REACH)
        _, groups = cv2.connectedComponents(joined, connectivity=8, ltype=cv2.CV_16U)
        weight = changed.astype(np.float32)
        x, y, side = self._square
        top, bottom = ((edge - grid.top) / grid.cell for edge in (y - side / 2, y + side / 2))
        left, right = ((edge - grid.left) / grid.cell for edge in (x - side / 2, x + side / 2))
        weight[max(0, round(top)) : max(0, round(bottom)), max(0, round(left)) : max(0, round(right))] *= 2
        largest = np.bincount(groups.ravel(), weight.ravel()).argmax()
        group = changed & (groups == largest)
        rows, columns = np.flatnonzero(group.any(1)), np.flatnonzero(group.any(0))
        top, bottom = (grid.top + cells * grid.cell for cells in (int(rows[0]), int(rows[-1]) + 1))
        left, right = (grid.left + cells * grid.cell for cells in (int(columns[0]), int(columns[-1]) + 1))
        if (bottom - top) * (right - left) >= _EVERYWHERE * height * width:
            return None
        short = min(height, width)
        side = min(short, max(self._least, _MARGIN * max(bottom - top, right - left)))
        x = min(max((left + right) / 2, side / 2), width - side / 2)
        y = min(max((top + bottom) / 2, side / 2), height - side / 2)
        return _Square(x, y, side)


def _rounded(square: _Square, height: int, width: int) -> Region:
    """The square in whole pixels, inside the picture."""
    side = round(square.side)
    x = min(max(round(square.x - side / 2), 0), width - side)
    y = min(max(round(square.y - side / 2), 0), height - side)
    return Region(x, y, side, side)
