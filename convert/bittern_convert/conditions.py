"""What a camera has to see through: night, water, light from behind, a lens out of focus, motion, poles, hands.

Every function takes a square uint8 BGR picture and gives another of the same size. Strengths were chosen by eye, so
that a person still recognizes most of the pictures; lengths are shares of the picture's side.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from bittern.frames import Pixels
from bittern.scene.signs import Floats, floats

# BGR, as a white surface looks: sodium, warm and cold lamps, moon and sky.
_LAMPS = floats([(0.30, 0.62, 1.0), (0.62, 0.85, 1.0), (1.0, 0.97, 0.90), (1.0, 0.80, 0.62)])
_SKIN = floats([(126, 158, 214), (104, 142, 204), (92, 128, 186), (66, 98, 152), (48, 70, 112), (38, 54, 86)])
_POLES = floats([(156, 152, 150), (60, 86, 112), (70, 92, 62), (64, 60, 60), (210, 212, 214), (40, 40, 44)])


def night(rng: np.random.Generator, picture: Pixels) -> Pixels:
    """Dim, in pools of coloured light, with lamps that dazzle and the noise of a high gain."""
    side = picture.shape[0]
    lit = floats(picture / 255) ** np.float32(rng.uniform(1.0, 1.5))
    sky = _LAMPS[3] if rng.random() < 0.6 else _LAMPS[0]
    light = floats(np.ones((side, side, 1)) * sky * rng.uniform(0.06, 0.2))
    for _ in range(int(rng.integers(1, 4))):
        pool = np.exp(-(_distance(rng, side, 0.0, 1.0) ** 2) / np.float32(2 * rng.uniform(0.12, 0.45) ** 2))
        light += pool[..., None] * _LAMPS[rng.integers(3)] * np.float32(rng.uniform(0.25, 0.9))
    lit = lit * light
    # The camera's exposure lifts the dark, as far as it can.
    lit *= np.float32(np.clip(rng.uniform(0.1, 0.28) / max(float(lit.mean()), 1e-3), 0.8, 4.0))
    for _ in range(int(rng.integers(0, 5))):
        away = _distance(rng, side, -0.1, 0.7)
        core, colour = rng.uniform(0.004, 0.03), _LAMPS[rng.integers(3)]
        if rng.random() < 0.2:
            colour = floats([(0.1, 0.1, 1.0), (0.2, 0.7, 1.0), (0.5, 1.0, 0.3)][int(rng.integers(3))])
        glow = np.exp(-away / np.float32(core * rng.uniform(2, 6))) * np.float32(rng.uniform(0.2, 0.7))
        lamp = np.clip((core - away) * np.float32(side / 2) + 0.5, 0, 1)
        lit += glow[..., None] * colour + lamp[..., None] * np.float32(1.2)
    lit = _grain(rng, floats(lit), rng.uniform(0.012, 0.07))
    picture = _bytes(lit)
    return motion(rng, picture) if rng.random() < 0.25 else picture


def wet(rng: np.random.Generator, picture: Pixels) -> Pixels:
    """Drops and smears on the glass, a wet road that mirrors, and less contrast."""
    side = picture.shape[0]
    if rng.random() < 0.45:  # the lower part mirrors what is above it
        edge = int(side * rng.uniform(0.55, 0.85))
        below = side - edge
        mirrored = picture[edge - below : edge][::-1]
        soft = cv2.blur(mirrored, (1 + 2 * int(rng.integers(0, 3)), 5 + 2 * int(rng.integers(2, 12))))
        share = rng.uniform(0.3, 0.65)
        picture = picture.copy()
        picture[edge:] = cv2.addWeighted(picture[edge:], 1 - share, soft, share, 0)
    if rng.random() < 0.6:  # a wiper or a hand has smeared the glass
        angle = rng.uniform(0, np.pi)
        smeared = cv2.filter2D(picture, -1, line_kernel(side * rng.uniform(0.03, 0.12), angle))
        mask = _soft(rng, side, rng.uniform(0.15, 0.5))
        mask = np.clip((mask - np.float32(rng.uniform(0.3, 0.6))) * 5, 0, 1)
        picture = _mixed(picture, smeared, mask)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    map_x, map_y, inside = x.copy(), y.copy(), np.zeros((side, side), np.float32)
    for _ in range(int(rng.integers(3, 36))):
        cx, cy = rng.uniform(0, side, 2)
        radius = side * np.exp(rng.uniform(np.log(0.008), np.log(0.05)))
        away = np.hypot(x - np.float32(cx), (y - np.float32(cy)) * np.float32(rng.uniform(0.7, 1.0))) / np.float32(
            radius
        )
        drop = away < 1
        # A drop is a strong lens: it shows a wide view upside down.
        wide = np.float32(rng.uniform(2.5, 6))
        map_x[drop], map_y[drop] = cx - (x[drop] - cx) * wide, cy - (y[drop] - cy) * wide
        inside = np.maximum(inside, np.clip((1 - away) * 3, 0, 1))
    lens = cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    picture = _mixed(picture, cv2.GaussianBlur(lens, (0, 0), 1.2), inside * np.float32(rng.uniform(0.6, 1.0)))
    haze = rng.uniform(0, 0.35)
    return _bytes(floats(picture / 255 * (1 - haze) + haze * rng.uniform(0.4, 0.8)))


def backlit(rng: np.random.Generator, picture: Pixels) -> Pixels:
    """Against the light: what is looked at is dark, a bright part veils the rest."""
    side = picture.shape[0]
    lit = floats(picture) / np.float32(255)
    bright = np.clip(cv2.GaussianBlur(lit, (0, 0), side / 40).mean(axis=2, keepdims=True) - np.float32(0.6), 0, 1)
    lit = lit ** np.float32(rng.uniform(1.0, 1.7)) * np.float32(rng.uniform(0.25, 0.6)) + bright * 2
    away = _distance(rng, side, -0.3, 0.5) if rng.random() < 0.7 else _distance(rng, side, -0.3, 1.3)
    colour = floats([rng.uniform(0.6, 1.0), rng.uniform(0.85, 1.0), 1.0])
    veil = np.exp(-away / np.float32(rng.uniform(0.12, 0.5))) * np.float32(rng.uniform(0.5, 1.3))
    lit = lit * (1 - np.clip(veil, 0, 1)[..., None] * np.float32(0.5)) + veil[..., None] * colour
    return _bytes(lit)


def defocused(rng: np.random.Generator, picture: Pixels) -> Pixels:
    """Out of focus: every point becomes a disc."""
    radius = picture.shape[0] * rng.uniform(0.008, 0.03)
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101), np.uint8)


def motion(rng: np.random.Generator, picture: Pixels) -> Pixels:
    """Moved while the shutter was open, mostly along the way of travel, which is level."""
    angle = rng.normal(0, 0.15) if rng.random() < 0.75 else rng.uniform(0, np.pi)
    kernel = line_kernel(picture.shape[0] * rng.uniform(0.03, 0.13), angle)
    return np.asarray(cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.uint8)


# One of these in a copy, see `Augment.conditions`.
Condition = Callable[[np.random.Generator, Pixels], Pixels]
LIGHT: tuple[Condition, ...] = (night, night, wet, backlit)
LENS: tuple[Condition, ...] = (defocused, motion, motion)


def line_kernel(length: float, angle: float) -> Floats:
    """The kernel of a motion of `length` px at `angle` (radians, 0 is level)."""
    size = max(3, 2 * round(length / 2) + 1)
    kernel = np.zeros((size, size), np.float32)
    middle = (size - 1) / 2
    step = floats([np.cos(angle), np.sin(angle)]) * np.float32(middle)
    ends = np.rint((floats([[middle, middle], [middle, middle]]) + np.stack([-step, step])) * 16).astype(int)
    cv2.line(kernel, ends[0].tolist(), ends[1].tolist(), 1.0, 1, cv2.LINE_AA, 4)
    total = float(kernel.sum())
    return kernel / np.float32(total) if total > 0 else kernel


def behind_pole(rng: np.random.Generator, picture: Pixels) -> Pixels:
    """A post, a pole or the frame of a window stands in front: a bar from the top to the bottom."""
    side = picture.shape[0]
    width, middle = side * rng.uniform(0.025, 0.1), side * rng.uniform(0.15, 0.85)
    lean = side * rng.normal(0, 0.03)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    across = (x - np.float32(middle) - (y / side - np.float32(0.5)) * np.float32(lean)) / np.float32(width / 2)
    soft = np.float32(rng.uniform(0.5, 4) / width)  # nearer than what is in focus
    mask = np.clip((1 - np.abs(across)) / soft + np.float32(0.5), 0, 1)
    level = np.float32(np.clip(picture.mean() / 120, 0.25, 1.3) * rng.uniform(0.5, 1.2))
    shade = 1.1 - 0.5 * np.abs(across - np.float32(rng.uniform(-1, 1)))
    bar = (
        (_POLES[rng.integers(len(_POLES))] + floats(rng.uniform(-14, 14, 3))) * level * np.clip(shade, 0, 2)[..., None]
    )
    return _mixed(picture, _bytes(bar / 255), mask)


def behind_hand(rng: np.random.Generator, picture: Pixels) -> Pixels:
    """Fingers or a hand near the lens, out of focus, from one edge inwards."""
    side = picture.shape[0]
    shape, shade = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
    # Drawn upwards from the bottom, then turned to one of the four edges.
    width = side * rng.uniform(0.09, 0.2)
    count = int(rng.integers(1, 5))
    first = side * rng.uniform(0.0, 0.7)
    fan, top = rng.uniform(-0.08, 0.16), rng.uniform(0.3, 0.8)
    for k in range(count):
        foot = (first + k * width * 1.04, side * 1.05)
        tip = (foot[0] + side * (fan * (k - count / 2) + rng.normal(0, 0.03)), side * (1 - top + rng.uniform(0, 0.15)))
        _finger(shape, shade, foot, tip, width * rng.uniform(0.85, 1.05))
    if count > 2:  # the palm
        palm = (int(first + count * width / 2), int(side * 1.05))
        cv2.ellipse(shape, palm, (int(width * count * 0.6), int(width * 2)), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
        shade = np.maximum(shade, shape * np.float32(0.8))
    turns = int(rng.integers(4))
    shape, shade = np.rot90(shape, turns), np.rot90(shade, turns)
    sigma = side * rng.uniform(0.004, 0.035)
    mask = cv2.GaussianBlur(np.ascontiguousarray(shape), (0, 0), sigma)
    tone = cv2.GaussianBlur(np.ascontiguousarray(shade), (0, 0), max(sigma, side * 0.012)) / np.maximum(mask, 0.05)
    tone = tone * (1 - np.float32(rng.uniform(0, 0.5)) * _soft(rng, side, 0.5))
    level = np.float32(np.clip(picture.mean() / 115, 0.3, 1.25) * rng.uniform(0.6, 1.15))
    skin = _SKIN[rng.integers(len(_SKIN))] + floats(rng.uniform(-10, 10, 3))
    return _mixed(picture, _bytes(skin * (tone * level)[..., None] / 255), mask)


def _finger(shape: Floats, shade: Floats, foot: tuple[float, float], tip: tuple[float, float], width: float) -> None:
    # Round: lines ever thinner and lighter over each other.
    a, b = (tuple(round(v * 16) for v in end) for end in (foot, tip))
    cv2.line(shape, a, b, 1.0, max(1, round(width)), cv2.LINE_AA, 4)
    for part in np.linspace(1, 0.1, 8):
        cv2.line(shade, a, b, float(1.05 - 0.5 * part**2), max(1, round(width * part)), cv2.LINE_AA, 4)


def _distance(rng: np.random.Generator, side: int, top: float, bottom: float) -> Floats:
    """Of every pixel to a random point, in sides of the picture; the point lies between two heights."""
    cx, cy = rng.uniform(-0.1, 1.1), rng.uniform(top, bottom)
    axis = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    away: Floats = np.hypot(axis[None, :] - np.float32(cx), axis[:, None] - np.float32(cy))
    return away


def _soft(rng: np.random.Generator, side: int, cell: float) -> Floats:
    """Soft noise, 0 to 1, with blotches of about `cell` sides."""
    cells = max(2, round(1 / cell) + 1)
    grown = cv2.resize(rng.random((cells, cells), np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(floats(grown), 0, 1)


def _grain(rng: np.random.Generator, lit: Floats, strength: float) -> Floats:
    """Noise of light and of colour; the camera's own smoothing makes that of colour blotchy."""
    side = lit.shape[0]
    fine = rng.standard_normal((side, side, 1), np.float32)
    blotchy = cv2.resize(rng.standard_normal((side // 3, side // 3, 3), np.float32), (side, side))
    return lit + (fine + floats(blotchy)) * np.float32(strength) * np.sqrt(np.clip(lit, 0.05, 1))


def _mixed(under: Pixels, over: npt.NDArray[np.uint8], mask: Floats) -> Pixels:
    share = np.clip(mask, 0, 1)[..., None]
    return np.asarray(np.rint(under * (1 - share) + over * share), np.uint8)


def _bytes(lit: Floats) -> Pixels:
    return np.rint(np.clip(lit, 0, 1) * 255).astype(np.uint8)
