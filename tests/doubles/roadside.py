"""Pictures of a roadside: stop signs, other signs, and advertising boards that a small network takes for stop signs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from bittern.frames import Pixels
from bittern.scene import signs

HEIGHT, WIDTH = 240, 320
_OTHERS = ("parking", "arrow", "one_way", "street_name")


def empty(seed: int) -> Pixels:
    """(240, 320, 3) uint8 RGB: sky, ground and a hedge, out of focus."""
    rng = np.random.default_rng(seed)
    small = np.empty((12, 16, 3), np.float32)
    horizon = int(rng.integers(5, 8))
    small[:horizon] = rng.uniform((130, 150, 170), (200, 215, 235))
    small[horizon:] = rng.uniform((70, 80, 60), (120, 120, 110))
    small += rng.normal(0, 14, small.shape)
    picture = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    noisy = picture + rng.normal(0, 3, picture.shape)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def _placed(seed: int, face: signs.Face) -> Pixels:
    rng = np.random.default_rng(seed + 10_000)
    picture = empty(seed)
    side = rng.uniform(110, 170)
    x, y = WIDTH / 2 + rng.uniform(-25, 25), HEIGHT / 2 + rng.uniform(-15, 15)
    half = side / 2
    quad = signs.floats([(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)])
    signs.composite(picture, face, quad, signs.floats([1, 1, 1]))
    return picture


def stop(seed: int) -> Pixels:
    """With a stop sign."""
    return _placed(seed, signs.face("stop", seed % signs.VARIANTS["stop"]))


def other(seed: int) -> Pixels:
    """With a sign that has nothing red."""
    return _placed(seed, signs.face(_OTHERS[seed % len(_OTHERS)], 0))


def board(seed: int) -> Pixels:
    """With an advertising board: a red panel with white words and a yellow disc."""
    rng = np.random.default_rng(seed + 20_000)
    picture = empty(seed)
    width, height = int(rng.integers(190, 240)), int(rng.integers(110, 140))
    x, y = int(rng.integers(25, 55)), int(rng.integers(40, 80))
    red = tuple(int(c) for c in rng.integers((180, 10, 10), (220, 40, 40)))
    cv2.rectangle(picture, (x, y), (x + width, y + height), red, -1)
    text = ("COLA", "SALE", "PIZZA", "RADIO")[seed % 4]
    cv2.putText(picture, text, (x + 12, y + height - 18), cv2.FONT_HERSHEY_DUPLEX, 2.0, (245, 245, 245), 6)
    cv2.circle(picture, (x + width - 35, y + 32), 22, (240, 200, 40), -1)
    return picture


def write(folder: Path, draw: Callable[[int], Pixels], seeds: range) -> None:
    """Pictures as `SEED.jpg`."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        cv2.imwrite(str(folder / f"{seed:03d}.jpg"), draw(seed)[:, :, ::-1])
