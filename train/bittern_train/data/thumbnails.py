"""Small pictures for sheets and pages."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bittern.errors import PictureError
from bittern.frames import Pixels
from bittern.model import pictures


def read(file: Path, side: int) -> Pixels | None:
    """A picture with its longer side at most `side`, (h, w, 3) uint8 BGR; None if it cannot be read."""
    try:
        picture = pictures.decode(file)
    except PictureError:
        return None
    height, width = picture.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
