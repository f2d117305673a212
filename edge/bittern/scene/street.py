"""A street drawn by seeded code: a stop sign comes nearer and passes.

It serves as the camera of the demonstration and of the tests, and as a source of training pictures. The bytes depend
only on the seed and the version of OpenCV.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from bittern.frames import Pixels
from bittern.scene.roadside import Thing, post
from bittern.scene.signs import OTHERS, Floats, variant_of
from bittern.scene.world import ROUND_M, Pinhole, World

SIGN_M = 0.95  # height of a stop sign; 0.75 to 0.9 on most roads
# Distance to the stop sign over a lap: out of sight, far, slowly nearer, past. 122 + 22 = ROUND_M.
_LAP = (0.0, 0.31, 0.44, 0.55, 0.65, 0.75, 0.84, 0.89, 1.0)
_AHEAD_M = (122.0, 70.0, 25.0, 12.5, 7.4, 4.5, 2.9, 0.9, -22.0)
_SIGN_FAR_M = 64.0
_MIN_PX = 6


class StreetPicture(NamedTuple):
    """One picture of the street.

    Attributes:
        pixels: (H, W, 3) uint8, RGB.
        sign: bounding box of the stop sign, x, y, width, height in px, clipped to the frame; None while it is out of
            sight or less than 6 px high.
    """

    pixels: Pixels
    sign: tuple[int, int, int, int] | None


def _box(outline: Floats | None, width: int, height: int) -> tuple[int, int, int, int] | None:
    if outline is None:
        return None
    x0, y0 = np.maximum(np.floor(outline.min(axis=0)), 0).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil(outline.max(axis=0)), (width, height)).astype(int).tolist()
    return (x0, y0, x1 - x0, y1 - y0) if x1 - x0 >= 2 and y1 - y0 >= _MIN_PX else None


class Street:
    """A camera driving down a street; every lap of one seed has the same pictures.

    Args:
        seed: selects houses, colours, sky, weather, time of day, other signs, noise and the camera's position.
        size: width and height of a picture in px.
        lap_s: duration of a lap, in seconds.
        stop: whether there is a stop sign; everything else is the same without it.
    """

    def __init__(
        self, seed: int = 1, size: tuple[int, int] = (640, 480), lap_s: float = 12.0, *, stop: bool = True
    ) -> None:
        rng = np.random.default_rng([abs(seed), int(seed < 0), 2062])
        width, height = self.size = size
        self.lap_s = lap_s
        side = 1 if rng.random() < 0.75 else -1
        x, unit = float(rng.uniform(1.6, 2.0)), min(width, height) / 480
        # The vanishing point is beside the centre, so that a sign 130 px high (of 480) is still inside the centred
        # square.
        shift = (x / SIGN_M * 130 - 148) * unit
        camera = Pinhole(
            width=width,
            height=height,
            focal=384 * unit,
            cx=width / 2 - side * shift,
            cy=height * rng.uniform(0.5, 0.56),
            roll=float(rng.normal(0, 0.012)),
            eye_m=float(rng.uniform(1.2, 1.45)),
        )
        self._world = World(rng, camera, side, x - float(rng.uniform(0.5, 0.9)))
        place = _AHEAD_M[0]
        self._world.furnish(rng, (place - 64, place + 4))
        position = (place, x, float(rng.uniform(1.95, 2.15)))
        sign = post(rng, position, SIGN_M, variant_of(rng, "stop"), stop=True, visible_from=_SIGN_FAR_M)
        if stop:
            self._world.add(sign)
        others = rng.permutation(np.array(OTHERS))
        for kind, p in zip(others, (22.0, 40.0, 58.0, 132.0), strict=False):
            position = (p + float(rng.uniform(-4, 4)), x + float(rng.uniform(0, 0.6)), float(rng.uniform(1.9, 2.3)))
            self._world.add(post(rng, position, 0.75, variant_of(rng, str(kind))))
        # Smooth the changes of speed: two running means over the lap, extended before and after it.
        fine = np.linspace(-0.5, 1.5, 2001)
        laps = np.floor(fine)
        way = _AHEAD_M[0] - np.interp(fine - laps, _LAP, _AHEAD_M) + laps * ROUND_M
        for _ in range(2):
            way = np.convolve(np.pad(way, 20, mode="reflect", reflect_type="odd"), np.full(41, 1 / 41), "valid")
        self._fine, self._way = fine, way

    @property
    def night(self) -> bool:
        """Whether the street lamps are fully lit."""
        return self._world.mood.lamps == 1.0

    def render(self, t: float) -> StreetPicture:
        """The picture at `t` seconds."""
        lap_ms = max(round(self.lap_s * 1000), 1)
        moment = round(t * 1000) % lap_ms  # in whole milliseconds, so that it is the same number in every lap
        way = float(np.interp(moment / lap_ms, self._fine, self._way))
        pixels, outline = self._world.picture_at(way, moment)
        return StreetPicture(pixels, _box(outline, *self.size))


def random_picture(rng: np.random.Generator, *, stop: bool, size: tuple[int, int] = (320, 320)) -> Pixels:
    """A street picture, (H, W, 3) uint8 RGB, with a stop sign or with any other sign.

    The sign is 24 to 200 px high if the picture's short side is 320 px, and mostly inside the centred square.
    """
    width, height = size
    short = min(size)
    camera = Pinhole(
        width=width,
        height=height,
        focal=short * rng.uniform(0.7, 1.3),
        cx=width / 2 + short * rng.uniform(-0.3, 0.3),
        cy=height * rng.uniform(0.4, 0.65),
        roll=float(rng.normal(0, 0.03)),
        eye_m=float(rng.uniform(0.9, 1.8)),
    )
    world = World(rng, camera, 1, float(rng.uniform(0.5, 2.4)))
    way = float(rng.uniform(0, ROUND_M))
    world.furnish(rng, (way, way + 40))
    kinds = ["stop"] if stop else []
    if rng.random() < 0.75 or not stop:
        kinds += rng.choice(np.array(OTHERS), int(rng.integers(0 if stop else 1, 3))).tolist()
    occupied: list[tuple[float, float, float]] = []
    signs: list[Thing] = []
    for kind in kinds:
        for _ in range(8):
            px = short * np.exp(rng.uniform(np.log(24 / 320), np.log((200 if kind == "stop" else 140) / 320)))
            reach = max(short * 0.46 - px / 2, 4)
            centre = np.array([width / 2, height / 2]) + rng.uniform(-1, 1, 2) * (reach, reach * 0.9)
            if all(np.hypot(centre[0] - x, centre[1] - y) > (px + other) * 0.6 for x, y, other in occupied):
                break
        else:
            continue
        occupied.append((float(centre[0]), float(centre[1]), float(px)))
        z = max(float(rng.uniform(0.7, 1.0)) * camera.focal / px, 1.4)
        world.uncover(way, (centre[0] - px / 2, centre[1] - px / 2, centre[0] + px / 2, centre[1] + px / 2), z)
        x, y = (centre - (camera.cx, camera.cy)) @ camera.turn.T * z / camera.focal
        position = (way + z, float(x), camera.eye_m - float(y))
        signs.append(post(rng, position, z * px / camera.focal, variant_of(rng, kind), turn=0.3))
    world.things += signs
    picture, _ = world.picture_at(way, int(rng.integers(1 << 20)))
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.4) * short / 320)
    if rng.random() < 0.5:
        lut = 255 * np.linspace(0, 1, 256) ** rng.uniform(0.7, 1.4) * rng.uniform(0.8, 1.15)
        picture = cv2.LUT(picture, lut.clip(0, 255).astype(np.uint8))
    return np.ascontiguousarray(picture)
