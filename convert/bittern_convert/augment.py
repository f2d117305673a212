"""Augmentation: copies of a frame as a camera might have taken it, before the preprocessing."""

from __future__ import annotations

import cv2
import numpy as np

from bittern.frames import Pixels
from bittern_convert.task import Augment

# Side of the altered picture in pixels: larger than the network's input, so that the preprocessing still resizes.
SIDE = 288


def alter(rng: np.random.Generator, frame: Pixels, ranges: Augment) -> Pixels:
    """One altered copy of a frame, of its centred square or of one beside it.

    Zoom, shift, turn and mirror in one step, then light (gain, gamma, contrast, colour of the light), blur, noise.

    Args:
        rng: drawn from in a fixed order, so that a seed gives the same copies.
        frame: (H, W, 3) uint8 BGR.
        ranges: what is drawn from.

    Returns:
        (SIDE, SIDE, 3) uint8 BGR.
    """
    return _lens(rng, _light(rng, _view(rng, frame, ranges), ranges), ranges)


def _view(rng: np.random.Generator, frame: Pixels, ranges: Augment) -> Pixels:
    size = np.array(frame.shape[1::-1], float)
    side = size.min()
    width = side * rng.uniform(*ranges.zoom)
    room = side + ranges.aside * (size - side) - width
    center = size / 2 + rng.uniform(-0.5, 0.5, 2) * room
    turn = np.deg2rad(rng.uniform(-ranges.turn_degrees, ranges.turn_degrees))
    stretch = rng.uniform(0.92, 1.08)
    scale = width / SIDE
    # from a pixel of the copy back to a pixel of the frame
    cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
    back = np.array([[cos * stretch, -sin, 0.0], [sin * stretch, cos, 0.0]])
    if ranges.mirror and rng.random() < 0.5:
        back[:, 0] *= -1
    back[:, 2] = center - back[:, :2] @ np.array([SIDE / 2, SIDE / 2])
    # A large picture is first shrunk by a whole factor, or the warp would alias.
    factor = max(1, round(scale))
    if factor > 1:
        small = (size // factor).astype(int)
        frame = np.asarray(cv2.resize(frame, small.tolist(), interpolation=cv2.INTER_AREA), np.uint8)
        back /= (size / small)[:, None]
    warped = cv2.warpAffine(
        frame, back, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
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


def _lens(rng: np.random.Generator, picture: Pixels, ranges: Augment) -> Pixels:
    kind = rng.random()
    sigma = rng.uniform(0, ranges.blur) * SIDE / 224
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
    if rng.random() < 0.4:
        strength = rng.uniform(0, ranges.noise)
        noise = rng.standard_normal(picture.shape, np.float32) * strength
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:  # a small picture blown up, as cheap cameras and web pages give
        small = int(SIDE * rng.uniform(0.35, 0.8))
        picture = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.2:
        _, packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(25, 80))])
        picture = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(picture, np.uint8)
