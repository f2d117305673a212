"""How a camera hangs: the picture turned and mirrored."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from bittern.contract import Pixels

Rotation = Literal[0, 90, 180, 270]

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def oriented(pixels: Pixels, rotation: Rotation, hflip: bool, vflip: bool) -> Pixels:
    """Turn a picture clockwise by `rotation` degrees, then mirror it.

    Args:
        pixels: (H, W, 3) uint8.
        rotation: 0, 90, 180 or 270.
        hflip: swap left and right, after the rotation.
        vflip: swap top and bottom, after the rotation.

    Returns:
        (H, W, 3) uint8, or (W, H, 3) for 90 and 270; contiguous. The picture itself where nothing is to be done.
    """
    if rotation:
        pixels = np.asarray(cv2.rotate(pixels, _TURNS[rotation]), np.uint8)
    if hflip or vflip:
        pixels = np.asarray(cv2.flip(pixels, -1 if hflip and vflip else int(hflip)), np.uint8)
    return pixels
