"""Data sets for tests, drawn by Bittern's own seeded code: nobody's pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bittern.scene import street

# The beginning of a task file for `discs`.
DISCS_TASK = """
name = "discs"
question = "Is there a red disc?"
labels = ["blue", "red"]
alarm = ["red"]
nothing = ["blue"]
"""


def folders(root: Path, each: int, seed: int = 1) -> Path:
    """A folder per label, `stop` and `not_stop`, with `each` street pictures."""
    rng = np.random.default_rng(seed)
    for label, stop in (("stop", True), ("not_stop", False)):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            picture = street.random_picture(rng, stop=stop, size=(260, 240))
            cv2.imwrite(str(root / label / f"{i:03d}.jpg"), picture[:, :, ::-1])
    return root


def discs(root: Path, each: int, seed: int = 1) -> Path:
    """A folder per label, `red` and `blue`, each picture with such a disc: easy to learn."""
    rng = np.random.default_rng(seed)
    for label, colour in (("red", (30, 30, 220)), ("blue", (220, 60, 30))):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            grey = rng.integers(60, 200)
            picture = rng.integers(grey - 30, grey + 30, (240, 260, 3), dtype=np.uint8)
            center = tuple(int(c) for c in rng.integers(110, 150, 2))
            cv2.circle(picture, center, int(rng.integers(60, 100)), colour, -1)
            cv2.imwrite(str(root / label / f"{i:03d}.jpg"), picture)
    return root


def noise(seed: int) -> bytes:
    """A JPEG of grey noise."""
    picture = np.random.default_rng(seed).integers(0, 256, (240, 260), dtype=np.uint8)
    return cv2.imencode(".jpg", picture)[1].tobytes()
