"""A mask worn at or below the chin, drawn into photographs of faces without one: nose and mouth stay free."""

from __future__ import annotations

import cv2
import numpy as np

from bittern.frames import Pixels
from bittern.scene.signs import Floats, floats

# Middle of a face from the middle of the picture, to the right and down, and the side of the square around it, from the
# brows to the chin; all in shorter sides of the picture.
Face = tuple[float, float, float]

# BGR in full light, and whether it has pleats.
_MATERIALS: tuple[tuple[tuple[int, int, int], bool], ...] = (
    ((214, 190, 140), True), ((222, 204, 166), True), ((200, 200, 120), True), ((240, 240, 238), True),
    ((240, 240, 240), False), ((236, 238, 240), False), ((40, 38, 38), False), ((30, 30, 32), False),
    ((190, 170, 225), True), ((120, 80, 50), False), ((70, 60, 150), False),
)  # fmt: skip


def wear(rng: np.random.Generator, frame: Pixels, face: Face) -> Pixels:
    """A copy of a photograph, (H, W, 3) uint8 BGR, whose face has a drawn mask pulled down to its chin or throat."""
    height, width = frame.shape[:2]
    short = min(height, width)
    size = face[2] * short
    middle = floats([width / 2 + face[0] * short, height / 2 + face[1] * short])
    colour, pleated = _MATERIALS[rng.integers(len(_MATERIALS))]
    turn = rng.normal(0, 0.05)
    spin = floats([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])

    def placed(points: Floats) -> Floats:
        # of the face's own square, -0.5 to 0.5, to pixels
        return floats(points @ spin * np.float32(size) + middle)

    half, corner = rng.uniform(0.34, 0.43), rng.uniform(0.22, 0.36)
    top = rng.uniform(0.42, 0.54)
    bottom = top + rng.uniform(0.16, 0.36)
    across = np.linspace(-1, 1, 33, dtype=np.float32)
    hang = (1 - np.abs(across) ** np.float32(rng.uniform(2.0, 3.2))).astype(np.float32)
    wide = np.float32(half) * across
    upper = np.stack([wide, corner + (top - corner) * hang], axis=1)
    lower = np.stack(
        [wide * np.float32(rng.uniform(0.8, 0.98)), corner + 0.05 + (bottom - corner - 0.05) * hang], axis=1
    )
    shape = np.zeros((height, width), np.float32)
    _fill(shape, placed(floats(np.concatenate([upper, lower[::-1]]))), 1.0)
    # Round: darker to the sides and below.
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    local = (np.stack([x, y], axis=-1) - middle) @ spin.T / np.float32(size)
    aside, down = local[..., 0] / np.float32(half), (local[..., 1] - np.float32(top)) / np.float32(bottom - top)
    light = np.float32(rng.uniform(-0.4, 0.4))
    shade = 1.05 - np.float32(0.38) * np.abs(aside - light * 0.5) ** 2 - np.float32(0.22) * np.clip(down, 0, 1)
    folds = np.zeros((height, width), np.float32)
    parts = (0.28, 0.52, 0.76) if pleated else ((0.5,) if rng.random() < 0.5 else ())
    for part in parts:
        line = placed(floats(upper * (1 - part) + lower * part))
        _draw(folds, line, max(1, round(size * 0.012)), 1.0)
    _draw(folds, placed(floats(upper * 0.96 + lower * 0.04)), max(1, round(size * 0.01)), 0.5)
    shade = shade * (1 - np.float32(rng.uniform(0.12, 0.35)) * cv2.GaussianBlur(folds, (0, 0), max(size * 0.006, 0.4)))
    # The light is that on the face.
    x0, y0 = np.maximum(np.rint(middle - size / 3), 0).astype(int)
    x1, y1 = np.rint(middle + size / 3).astype(int)
    skin = frame[y0:y1, x0:x1].reshape(-1, 3)
    bright = np.percentile(skin, 75, axis=0) if len(skin) else np.full(3, 140.0)
    level = floats(np.clip(bright.mean() / 185, 0.25, 1.15) * rng.uniform(0.8, 1.1) * (bright / bright.mean()) ** 0.25)
    grain = rng.standard_normal((height, width, 1), np.float32) * np.float32(rng.uniform(0.5, 4))
    cloth = np.clip(floats(colour) * level * shade[..., None] + grain, 0, 255)
    out = floats(frame)
    if rng.random() < 0.75:  # the straps, to the ears
        straps = np.zeros((height, width), np.float32)
        ear = rng.uniform(-0.12, 0.06)
        for side in (-1, 1):
            for end in (corner, corner + 0.06):
                line = placed(floats([(side * half, end), (side * rng.uniform(0.43, 0.48), ear)]))
                _draw(straps, line, max(1, round(size * 0.013)), 1.0)
        straps = cv2.GaussianBlur(straps, (0, 0), max(size * 0.004, 0.4))[..., None] * np.float32(0.8)
        out = out * (1 - straps) + floats(colour) * level * np.float32(0.9) * straps
    mask = cv2.GaussianBlur(shape, (0, 0), max(size * 0.008, 0.5))[..., None]
    return np.asarray(np.rint(out * (1 - mask) + cloth * mask), np.uint8)


def _fill(canvas: Floats, outline: Floats, value: float) -> None:
    cv2.fillPoly(canvas, [np.rint(outline * 16).astype(np.int32)], value, cv2.LINE_AA, 4)


def _draw(canvas: Floats, line: Floats, width: int, value: float) -> None:
    cv2.polylines(canvas, [np.rint(line * 16).astype(np.int32)], False, value, width, cv2.LINE_AA, 4)
