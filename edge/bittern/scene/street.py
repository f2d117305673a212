"""A street drawn by seeded code: a stop sign comes nearer, passes, is gone.

It is the camera of the demonstration and of the tests, and a source of training pictures. For a seed and a
version of OpenCV the bytes are the same.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from bittern.frames import Pixels
from bittern.scene.roadside import Thing, post
from bittern.scene.signs import OTHERS, Floats, variant_of
from bittern.scene.world import ROUND_M, Camera, World

SIGN_M = 0.95  # a stop sign's height; 0.75 to 0.9 on most roads
# Distance of the stop sign over a lap: out of sight, far, slowly nearer, past. 122 + 22 = ROUND_M.
_LAP = (0.0, 0.31, 0.44, 0.55, 0.65, 0.75, 0.84, 0.89, 1.0)
_AHEAD_M = (122.0, 70.0, 25.0, 12.5, 7.4, 4.5, 2.9, 0.9, -22.0)
_SIGN_FAR_M = 64.0
_LEAST_PX = 6


class View(NamedTuple):
    """One picture of the street.

    Attributes:
        pixels: (H, W, 3) uint8, RGB.
        sign: the stop sign's bounding box x, y, width, height in px, cut at the frame's edge; None while it
            is out of view or less than 6 px high.
    """

    pixels: Pixels
    sign: tuple[int, int, int, int] | None


def _box(outline: Floats | None, width: int, height: int) -> tuple[int, int, int, int] | None:
    if outline is None:
        return None
    x0, y0 = np.maximum(np.floor(outline.min(axis=0)), 0).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil(outline.max(axis=0)), (width, height)).astype(int).tolist()
    return (x0, y0, x1 - x0, y1 - y0) if x1 - x0 >= 2 and y1 - y0 >= _LEAST_PX else None


class Street:
    """A camera on a street; every lap of one seed shows the same pictures.

    Args:
        seed: picks houses, colours, sky, weather, hour, other signs, noise and where the camera stands.
        size: width and height of a picture in px.
        lap_s: how long a lap takes, in seconds.
    """

    def __init__(self, seed: int = 1, size: tuple[int, int] = (640, 480), lap_s: float = 12.0) -> None:
        rng = np.random.default_rng([abs(seed), int(seed < 0), 2062])
        width, height = self.size = size
        self.lap_s = lap_s
        side = 1 if rng.random() < 0.75 else -1
        x, unit = float(rng.uniform(1.6, 2.0)), min(width, height) / 480
        # The vanishing point lies beside the centre, so that a sign 130 px high
        # (of 480) is still inside the centred square.
        shift = (x / SIGN_M * 130 - 148) * unit
        camera = Camera(
            *(width, height, 384 * unit, width / 2 - side * shift, height * rng.uniform(0.5, 0.56)),
            *(float(rng.normal(0, 0.012)), float(rng.uniform(1.2, 1.45))),
        )
        self._world = World(rng, camera, side, x - float(rng.uniform(0.5, 0.9)))
        stop = _AHEAD_M[0]
        self._world.furnish(rng, (stop - 64, stop + 4))
        self._world.add(
            post(
                rng,
                stop,
                x,
                float(rng.uniform(1.95, 2.15)),
                SIGN_M,
                variant_of(rng, "stop"),
                stop=True,
                seen=_SIGN_FAR_M,
            )
        )
        others = rng.permutation(np.array(OTHERS))
        for kind, p in zip(others, (22.0, 40.0, 58.0, 132.0), strict=False):
            at = (p + float(rng.uniform(-4, 4)), x + float(rng.uniform(0, 0.6)), float(rng.uniform(1.9, 2.3)))
            self._world.add(post(rng, *at, 0.75, variant_of(rng, str(kind))))
        # The corners of the speed are rounded: two running means over a lap that goes on before and after.
        fine = np.linspace(-0.5, 1.5, 2001)
        laps = np.floor(fine)
        way = _AHEAD_M[0] - np.interp(fine - laps, _LAP, _AHEAD_M) + laps * ROUND_M
        for _ in range(2):
            way = np.convolve(np.pad(way, 20, mode="reflect", reflect_type="odd"), np.full(41, 1 / 41), "valid")
        self._fine, self._way = fine, way

    def render(self, t: float) -> View:
        """The picture at `t` seconds."""
        lap_ms = max(round(self.lap_s * 1000), 1)
        moment = round(t * 1000) % lap_ms  # whole milliseconds: the same number in every lap
        way = float(np.interp(moment / lap_ms, self._fine, self._way))
        pixels, outline = self._world.picture_at(way, moment)
        return View(pixels, _box(outline, *self.size))


def random_view(rng: np.random.Generator, *, stop: bool, size: tuple[int, int] = (320, 320)) -> Pixels:
    """One street picture, (H, W, 3) uint8 RGB, with a stop sign or with anything but one.

    The sign is 24 to 200 px high where the picture's short side is 320 px, most often inside the
    centred square.
    """
    width, height = size
    short = min(size)
    camera = Camera(
        *(width, height, short * rng.uniform(0.7, 1.3), width / 2 + short * rng.uniform(-0.3, 0.3)),
        *(height * rng.uniform(0.4, 0.65), float(rng.normal(0, 0.03)), float(rng.uniform(0.9, 1.8))),
    )
    world = World(rng, camera, 1, float(rng.uniform(0.5, 2.4)))
    way = float(rng.uniform(0, ROUND_M))
    world.furnish(rng, (way, way + 40))
    kinds = ["stop"] if stop else []
    if rng.random() < 0.75 or not stop:
        kinds += rng.choice(np.array(OTHERS), int(rng.integers(0 if stop else 1, 3))).tolist()
    taken: list[tuple[float, float, float]] = []
    signs: list[Thing] = []
    for kind in kinds:
        for _ in range(8):
            px = short * np.exp(rng.uniform(np.log(24 / 320), np.log((200 if kind == "stop" else 140) / 320)))
            reach = max(short * 0.46 - px / 2, 4)
            at = np.array([width / 2, height / 2]) + rng.uniform(-1, 1, 2) * (reach, reach * 0.9)
            if all(np.hypot(at[0] - x, at[1] - y) > (px + other) * 0.6 for x, y, other in taken):
                break
        else:
            continue
        taken.append((float(at[0]), float(at[1]), float(px)))
        z = max(float(rng.uniform(0.7, 1.0)) * camera.focal / px, 1.4)
        world.uncover(way, (at[0] - px / 2, at[1] - px / 2, at[0] + px / 2, at[1] + px / 2), z)
        x, y = (at - (camera.cx, camera.cy)) @ camera.turn.T * z / camera.focal
        size_m = z * px / camera.focal
        signs.append(post(rng, way + z, float(x), camera.eye_m - float(y), size_m, variant_of(rng, kind), turn=0.3))
    world.things += signs
    picture, _ = world.picture_at(way, int(rng.integers(1 << 20)))
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.4) * short / 320)
    if rng.random() < 0.5:
        lut = 255 * np.linspace(0, 1, 256) ** rng.uniform(0.7, 1.4) * rng.uniform(0.8, 1.15)
        picture = cv2.LUT(picture, lut.clip(0, 255).astype(np.uint8))
    return np.ascontiguousarray(picture)
