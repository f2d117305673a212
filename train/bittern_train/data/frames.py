"""Frames of a source that are worth keeping: sharp, and different from the one before."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from bittern.config.schema import GateConfig
from bittern.decision.motion import MotionGate
from bittern.frames import Frame, Pixels
from bittern_train.data import sharpness

# Of the JPEG that a frame becomes.
_QUALITY = 95
_LONG_S = 1e9


class Left(NamedTuple):
    """How many frames were looked at and not kept.

    Attributes:
        blurred: nothing in them was sharp.
        alike: they differed too little from the last one.
    """

    blurred: int
    alike: int


class Chooser:
    """Chooses frames, and counts what it leaves out in `left`."""

    def __init__(self) -> None:
        self.left = Left(0, 0)
        self.start()

    def start(self) -> None:
        """The next frame is of another source."""
        # The daemon's own measure of a difference, without its heartbeat.
        self._gate = MotionGate(threshold=GateConfig().threshold, heartbeat_s=_LONG_S, linger_s=0)

    def keeps(self, frame: Frame) -> bool:
        """Whether a frame is sharp, and differs from the last one that was kept."""
        pixels = as_bgr(frame)
        grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
        if sharpness.measure(sharpness.network_sized(grey)) < sharpness.BLURRED:
            self.left = self.left._replace(blurred=self.left.blurred + 1)
            return False
        if not self._gate.passes(pixels, frame.monotonic_ns):
            self.left = self.left._replace(alike=self.left.alike + 1)
            return False
        return True


def as_bgr(frame: Frame) -> Pixels:
    """The pixels of a frame, (H, W, 3) uint8 BGR."""
    return frame.pixels if frame.order == "BGR" else np.ascontiguousarray(frame.pixels[:, :, ::-1])


def jpeg(frame: Frame) -> bytes:
    """The frame as a JPEG file."""
    return bytes(cv2.imencode(".jpg", as_bgr(frame), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
