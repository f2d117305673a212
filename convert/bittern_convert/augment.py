"""Augmentation: copies of a frame as a camera might have taken it, before the preprocessing."""

from __future__ import annotations

import cv2
import numpy as np

from bittern.frames import Pixels
from bittern.scene import street
from bittern.scene.signs import Floats, floats
from bittern_convert import conditions
from bittern_convert.task import Augment

# Side of the altered picture in pixels where a task names none: larger than the network's input, so that the
# preprocessing still resizes.
SIDE = Augment().side
# Part of the shorter side that a close-up of nothing shows.
_CLOSE_UP = (0.1, 0.6)


def alter(rng: np.random.Generator, frame: Pixels, ranges: Augment, *, nothing: bool = False) -> Pixels:
    """One altered copy of a frame, of its centred square or of one beside it.

    Zoom, shift, turn and mirror in one step; perhaps small in other surroundings, or with something in front; then
    light (gain, gamma, contrast, colour of the light), blur, noise.

    Args:
        rng: drawn from in a fixed order, so that a seed gives the same copies. A share of 0 draws nothing: a task that
            does not use it has the copies that it would have without the key.
        frame: (H, W, 3) uint8 BGR.
        ranges: what is drawn from.
        nothing: whether the picture's label says that the thing is absent.

    Returns:
        (`ranges.side`, `ranges.side`, 3) uint8 BGR.
    """
    if nothing and happens(rng, ranges.close_ups):
        # Any part of a picture of nothing is nothing.
        picture = _view(rng, frame, ranges, _CLOSE_UP, 1.0)
    elif happens(rng, ranges.far):
        picture = _far(rng, frame, ranges)
    else:
        picture = _view(rng, frame, ranges, ranges.zoom, ranges.aside)
    if happens(rng, ranges.poles):
        picture = conditions.behind_pole(rng, picture)
    if nothing and happens(rng, ranges.hands):
        picture = conditions.behind_hand(rng, picture)
    if not happens(rng, ranges.conditions):
        return _sensor(rng, _blur(rng, _light(rng, picture, ranges), ranges), ranges)
    number = int(rng.integers(len(conditions.LIGHT) + len(conditions.LENS)))
    if number < len(conditions.LIGHT):  # in place of the light of an ordinary day
        return _sensor(rng, conditions.LIGHT[number](rng, picture), ranges)
    blurred = conditions.LENS[number - len(conditions.LIGHT)](rng, picture)
    return _sensor(rng, _light(rng, blurred, ranges), ranges)


def happens(rng: np.random.Generator, share: float) -> bool:
    """Whether a copy is one of a share of them; nothing is drawn for a share of 0."""
    return share > 0 and float(rng.random()) < share


def _far(rng: np.random.Generator, frame: Pixels, ranges: Augment) -> Pixels:
    """The picture small, somewhere in other surroundings, perhaps cut by the edge; its own edges are soft."""
    inner = _view(rng, frame, ranges, ranges.zoom, ranges.aside)
    whole = ranges.side
    low, high = np.log(ranges.far_size)
    side = max(8, round(whole * float(np.exp(rng.uniform(low, high)))))
    # At most an eighth of it is outside, either way.
    left, top = (round(v) for v in rng.uniform(-side / 8, whole - 7 / 8 * side, 2))
    around = _surroundings(rng, frame, whole)
    small = cv2.resize(inner, (side, side), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / np.float32(side - 1) * 2 - 1
    # From nearly a square to nearly a disc.
    power = np.float32(rng.uniform(2.2, 12))
    away = (np.abs(x) ** power + np.abs(y) ** power) ** (1 / power)
    mask = np.clip((1 - away) / np.float32(rng.uniform(0.04, 0.35)), 0, 1)[..., None]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, whole), min(top + side, whole)
    share, part = mask[y0 - top : y1 - top, x0 - left : x1 - left], around[y0:y1, x0:x1]
    part[:] = np.rint(part * (1 - share) + small[y0 - top : y1 - top, x0 - left : x1 - left] * share)
    return np.asarray(around, np.uint8)


def _surroundings(rng: np.random.Generator, frame: Pixels, side: int) -> Pixels:
    """A street without a stop sign, the picture's own colours out of focus, or a wall; (side, side, 3) uint8 BGR."""
    kind = rng.random()
    if kind < 0.35:
        drawn = street.random_picture(rng, stop=False, size=(side, side))
        return np.ascontiguousarray(drawn[:, :, ::-1])
    if kind < 0.75:
        square = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
        flip = int(rng.integers(-1, 2))
        return np.asarray(cv2.GaussianBlur(cv2.flip(square, flip), (0, 0), side * rng.uniform(0.03, 0.12)), np.uint8)
    # A wall, a sky or a floor: two or three tones with straight borders, in uneven light, with some grain.
    tones = rng.uniform(20, 235, (3, 1)) + rng.uniform(-28, 28, (3, 3))
    wall = np.empty((side, side, 3), np.float32)
    wall[:] = tones[0]
    for tone in tones[1 : int(rng.integers(1, 4))]:
        edge, lean = rng.uniform(0, side), rng.normal(0, 0.2) * side
        half = floats([(0, edge), (side, edge + lean), (side, 2 * side), (0, 2 * side)])
        corners = half if rng.random() < 0.6 else half[:, ::-1]
        cv2.fillPoly(wall, [np.rint(corners).astype(np.int32)], tone.tolist(), cv2.LINE_AA)
    light: Floats = cv2.resize(floats(rng.uniform(0.6, 1.2, (3, 3))), (side, side), interpolation=cv2.INTER_CUBIC)
    fine = int(rng.choice([side, side // 2, side // 4, side // 12]))
    grain = cv2.resize(rng.standard_normal((fine, fine), np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    lit = wall * light[..., None] + floats(grain)[..., None] * np.float32(rng.uniform(0, 14))
    return np.asarray(np.rint(np.clip(lit, 0, 255)), np.uint8)


def _view(rng: np.random.Generator, frame: Pixels, ranges: Augment, zoom: tuple[float, float], aside: float) -> Pixels:
    size = np.array(frame.shape[1::-1], float)
    shorter = size.min()
    width = shorter * rng.uniform(*zoom)
    room = shorter + aside * (size - shorter) - width
    center = size / 2 + rng.uniform(-0.5, 0.5, 2) * room
    turn = np.deg2rad(rng.uniform(-ranges.turn_degrees, ranges.turn_degrees))
    stretch = rng.uniform(0.92, 1.08)
    side = ranges.side
    scale = width / side
    # from a pixel of the copy back to a pixel of the frame
    cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
    back = np.array([[cos * stretch, -sin, 0.0], [sin * stretch, cos, 0.0]])
    if ranges.mirror and rng.random() < 0.5:
        back[:, 0] *= -1
    back[:, 2] = center - back[:, :2] @ np.array([side / 2, side / 2])
    # A large picture is first shrunk by a whole factor, or the warp would alias.
    factor = max(1, round(scale))
    if factor > 1:
        small = (size // factor).astype(int)
        frame = np.asarray(cv2.resize(frame, small.tolist(), interpolation=cv2.INTER_AREA), np.uint8)
        back /= (size / small)[:, None]
    warped = cv2.warpAffine(
        frame, back, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(warped, np.uint8)


def _light(rng: np.random.Generator, picture: Pixels, ranges: Augment) -> Pixels:
    # In the logarithm, so that halving is as likely as doubling.
    gain = np.exp(rng.uniform(*np.log(ranges.brightness)))
    gamma = np.exp(rng.uniform(-0.25, 0.25))
    contrast = rng.uniform(*ranges.contrast)
    cast = 1 + rng.uniform(-ranges.colour, ranges.colour, 3)
    ramp = np.arange(256) / 255.0
    table = np.empty((256, 3))
    for channel in range(3):
        lit = (ramp**gamma - 0.5) * contrast + 0.5
        table[:, channel] = lit * gain * cast[channel]
    lut = np.clip(np.rint(table * 255), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(picture, lut[:, None, :].reshape(1, 256, 3)), np.uint8)


def _blur(rng: np.random.Generator, picture: Pixels, ranges: Augment) -> Pixels:
    kind = rng.random()
    sigma = rng.uniform(0, ranges.blur) * ranges.side / 224
    if kind < 0.25 and sigma > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    elif kind < 0.35 and sigma > 0.3:  # motion: a short line of sight moved while the shutter was open
        length = max(2, round(4 * sigma))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        middle = (length - 1) / 2
        for t in np.linspace(-middle, middle, 4 * length):
            kernel[round(middle + t * np.sin(angle)), round(middle + t * np.cos(angle))] = 1
        picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
    return np.asarray(picture, np.uint8)


def _sensor(rng: np.random.Generator, picture: Pixels, ranges: Augment) -> Pixels:
    if rng.random() < 0.4:
        strength = rng.uniform(0, ranges.noise)
        noise = rng.standard_normal(picture.shape, np.float32) * strength
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:  # a small picture blown up, as cheap cameras and web pages give
        side = ranges.side
        small = int(side * rng.uniform(0.35, 0.8))
        picture = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.2:
        _, packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(25, 80))])
        picture = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(picture, np.uint8)
