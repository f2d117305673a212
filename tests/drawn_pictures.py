"""Data sets for tests, drawn by Bittern's own seeded code: nobody's pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bittern import scene


def folders(root: Path, each: int, seed: int = 1) -> Path:
    """A folder per label, `stop` and `not_stop`, with `each` street pictures."""
    rng = np.random.default_rng(seed)
    for label, stop in (("stop", True), ("not_stop", False)):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            picture = scene.random_view(rng, stop=stop, size=(260, 240))
            cv2.imwrite(str(root / label / f"{i:03d}.jpg"), picture[:, :, ::-1])
    return root
