"""Things that pass in front of a camera that stands still: a drawn sign moves across a drawn street."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from bittern.frames import Pixels
from bittern.scene.signs import composite, face
from bittern.scene.street import Street

FPS = 5
WIDE = (1280, 720)


class Passing(NamedTuple):
    """A sign that is there for a while.

    Attributes:
        seed: of the street, the noise and the sign's look.
        kind: of the sign, see `bittern.scene.signs.face`.
        px: its height.
        start: where its centre is at first, in px.
        end: where it is at last.
        size: width and height of the frames, in px.
        still_s: how long the street stands empty, before and afterwards.
        seconds: how long the sign is there.
    """

    seed: int
    kind: str
    px: int
    start: tuple[float, float]
    end: tuple[float, float]
    size: tuple[int, int] = WIDE
    still_s: float = 2.0
    seconds: float = 3.0

    def at(self, t: float) -> tuple[float, float] | None:
        """The sign's centre at a moment, in px; None while it is not there."""
        share = (t - self.still_s) / self.seconds
        if not 0 <= share < 1:
            return None
        (x0, y0), (x1, y1) = self.start, self.end
        return x0 + share * (x1 - x0), y0 + share * (y1 - y0)

    def pictures(self, noise: float = 2.0) -> Iterator[Pixels]:
        """Frames (H, W, 3) uint8 RGB, FPS a second, each value with noise of this standard deviation."""
        rng = np.random.default_rng(self.seed)
        street = Street(self.seed, self.size).render(0.3).pixels
        levels = face(self.kind, self.seed % 20)
        gain = (np.float32(street.mean() / 255 * 0.6 + 0.5) * rng.uniform(0.85, 1.05, 3)).astype(np.float32)
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * self.px / 2
        width, height = self.size
        # One field of noise for all frames, each time at another place: a new one takes longer than all the rest.
        field = np.round(rng.normal(0, noise, (height + 64, width + 64, 3))).astype(np.int16)
        for number in range(round((2 * self.still_s + self.seconds) * FPS)):
            picture = street.copy()
            centre = self.at(number / FPS)
            if centre is not None:
                composite(picture, levels, (corners + centre).astype(np.float32), gain)
            y, x = rng.integers(65, size=2)
            grain = field[y : y + height, x : x + width]
            yield np.asarray(cv2.add(picture, grain, dtype=cv2.CV_8U), np.uint8)


def anywhere(seed: int, kind: str = "stop", *, centred: bool = False, size: tuple[int, int] = WIDE) -> Passing:
    """A sign of a sixth of the frame's height on a straight way of 0.3 to 0.8 heights, in the frame or its centre."""
    rng = np.random.default_rng([seed, int(centred)])
    width, height = size
    px = round(height / 6)
    margin = (width - height) / 2 if centred else 0.0
    low, high = (margin + px / 2, px / 2), (width - margin - px / 2, height - px / 2)
    while True:
        start, end = rng.uniform(low, high), rng.uniform(low, high)
        if 0.3 * height <= np.hypot(*(end - start)) <= 0.8 * height:
            return Passing(seed, kind, px, (start[0], start[1]), (end[0], end[1]), size)
