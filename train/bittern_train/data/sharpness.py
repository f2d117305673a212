"""How sharp a picture is at the size that the network sees."""

from __future__ import annotations

import cv2
import numpy as np

from bittern.frames import Pixels

# Below it a picture is blurred. Of 600 everyday photographs none is.
BLURRED = 40.0
# Side of the input of the shipped models.
NETWORK_SIDE = 224


def network_sized(grey: Pixels) -> Pixels:
    """Grey levels, (h, w) uint8, shrunk by a whole factor as the network's input is, which hides some of a blur."""
    height, width = grey.shape
    factor = max(1, min(height, width) // NETWORK_SIDE)
    if factor == 1:
        return grey
    small = cv2.resize(grey, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def measure(grey: Pixels) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000) of grey levels, (h, w) uint8."""
    return float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1][0, 0]) ** 2
