"""How a camera hangs: the picture turned and mirrored.

OpenCV is imported by who needs it: the process of a camera that hangs straight does without its memory.
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
        rotation: of the picture, clockwise, in degrees.
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
        (H, W, 3) uint8, or (W, H, 3) for 90 and 270; contiguous. The picture itself where nothing is to be done.
    """
    if not (rotation or hflip or vflip):
        return pixels
    import cv2

    if rotation:
        turns = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
        pixels = np.asarray(cv2.rotate(pixels, turns[rotation]), np.uint8)
    if hflip or vflip:
        pixels = np.asarray(cv2.flip(pixels, -1 if hflip and vflip else int(hflip)), np.uint8)
    return pixels
