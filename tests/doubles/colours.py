"""Which pixels of a picture are red."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bittern.frames import Pixels


def redness(pixels: Pixels) -> npt.NDArray[np.bool_]:
    """Where the hue is red: red clearly above green and blue, whatever the light."""
    r, g, b = (pixels[..., i].astype(int) for i in range(3))
    return (r > 1.5 * g + 8) & (r > 1.4 * b + 8)
