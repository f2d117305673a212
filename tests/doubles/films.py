"""Reads films as the tests need them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bittern.frames import Pixels


def frames_of(file: Path) -> list[Pixels]:
    """All frames of a Motion JPEG film, (H, W, 3) uint8 BGR, with OpenCV's own reader."""
    film = cv2.VideoCapture(str(file), cv2.CAP_OPENCV_MJPEG)
    assert film.isOpened(), file
    frames = []
    while True:
        more, pixels = film.read()
        if not more:
            break
        frames.append(np.asarray(pixels, np.uint8))
    assert len(frames) == film.get(cv2.CAP_PROP_FRAME_COUNT)
    assert film.get(cv2.CAP_PROP_FPS) == 5
    film.release()
    return frames
