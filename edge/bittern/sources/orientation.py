"""Orientation of a camera: turns and mirrors its pictures.

OpenCV is imported only when needed: the process of a camera that is mounted upright saves its memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

if TYPE_CHECKING:
    from bittern.frames import Pixels

Rotation = Literal[0, 90, 180, 270]


class OrientationOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Options that cameras share.

    Attributes:
        rotation: clockwise rotation of the picture, in degrees.
        hflip: swap left and right, after the rotation.
        vflip: swap top and bottom, after the rotation.
    """

    rotation: Rotation = 0
    hflip: bool = False
    vflip: bool = False


def oriented(pixels: Pixels, rotation: Rotation, hflip: bool, vflip: bool) -> Pixels:
    """Turn a picture clockwise by `rotation` degrees, then mirror it.

    Args:
        pixels: (H, W, 3) uint8.
        rotation: 0, 90, 180 or 270.
        hflip: swap left and right, after the rotation.
        vflip: swap top and bottom, after the rotation.

    Returns:
        (H, W, 3) uint8, or (W, H, 3) for 90 and 270; contiguous. The picture itself if there is nothing to do.
    """
    if not (rotation or hflip or vflip):
        return pixels
    import cv2

    if rotation:
        codes = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
        pixels = np.asarray(cv2.rotate(pixels, codes[rotation]), np.uint8)
    if hflip or vflip:
        pixels = np.asarray(cv2.flip(pixels, -1 if hflip and vflip else int(hflip)), np.uint8)
    return pixels
