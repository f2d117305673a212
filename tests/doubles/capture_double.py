"""A double of `cv2.VideoCapture`, and the pictures and clips that the tests of the sources use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bittern.errors import BitternError
from bittern.frames import Frame, Pixels
from bittern.sources.registry import open_source

SIZE = (64, 48)


def flat(level: int) -> Pixels:
    """(48, 64, 3) uint8 BGR: reddish, the brighter the higher `level`."""
    return np.full((SIZE[1], SIZE[0], 3), (20, 20, level), np.uint8)


def write_video(path: Path, frames: int, fps: float = 10.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, SIZE)
    for number in range(frames):
        writer.write(flat(60 + 10 * number))
    writer.release()
    return path


def refuse(uri: str | Path, kind: type[BitternError]) -> str:
    with pytest.raises(kind) as caught:
        open_source(str(uri))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def red_of(frame: Frame) -> int:
    """The mean of the red channel, after a look that red is not blue."""
    assert frame.order == "BGR"
    assert frame.pixels[..., 0].mean() < 40
    return round(float(frame.pixels[..., 2].mean()))


class Camera:
    """A double of `cv2.VideoCapture`: a camera that gives `frames` frames, then does as `then` says."""

    def __init__(
        self,
        frames: int = 10**9,
        period_s: float = 0.0,
        stamps: list[float] | None = None,
        fps: float = 15.0,
        then: Callable[[], tuple[bool, Any]] = lambda: (False, None),
        opens: bool = True,
        sizes: tuple[int, int] | None = None,
        lacks: tuple[int, ...] = (),
        picture: Pixels | None = None,
    ) -> None:
        self.left = frames if stamps is None else len(stamps)
        self.period_s, self.stamps, self.then, self.opens = period_s, stamps, then, opens
        self.properties: dict[int, float] = {cv2.CAP_PROP_FPS: fps}
        self.sizes, self.lacks, self.picture = sizes, lacks, picture
        self.frames_read = 0
        self.grabbed: tuple[bool, Any] = (False, None)
        self.released = threading.Event()

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def set(self, what: int, value: float) -> bool:
        if what in self.lacks:
            return False
        self.properties[what] = value
        return True

    def get(self, what: int) -> float:
        if what == cv2.CAP_PROP_POS_MSEC:
            return self.stamps[self.frames_read - 1] if self.stamps else time.monotonic_ns() / 1e6
        if self.sizes and what == cv2.CAP_PROP_FRAME_WIDTH:
            return self.sizes[0]
        if self.sizes and what == cv2.CAP_PROP_FRAME_HEIGHT:
            return self.sizes[1]
        if what == cv2.CAP_PROP_FRAME_COUNT:
            return 0.0  # not known
        return self.properties[what]

    def grab(self) -> bool:
        self.grabbed = self.read()
        return self.grabbed[0]

    def retrieve(self) -> tuple[bool, Any]:
        return self.grabbed

    def read(self) -> tuple[bool, Any]:
        if self.left == 0:
            return self.then()
        time.sleep(self.period_s)
        self.left -= 1
        self.frames_read += 1
        return True, flat(self.frames_read % 256) if self.picture is None else self.picture

    def release(self) -> None:
        self.released.set()
