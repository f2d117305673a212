"""The things along the drawn street: houses, trees, lamps, cars and posts with signs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from bittern.scene.signs import Face, Floats, floats, pyramid

NEAR, FAR = 0.6, 110.0  # metres: nearer things are clipped, farther ones are not drawn
DARK, WARM = (0, 0, 0), (225, 180, 105)  # light that a surface emits at night


@dataclass
class Billboard:
    """A flat picture in space.

    Attributes:
        levels: the picture.
        corners: (4, 3) metres: top left, top right, bottom right, bottom left.
        retro: how much more light of the headlights it reflects than paint.
        solid: false for light that is only added, and only while lamps are on.
        stop: whether it is a stop sign.
    """

    levels: Face
    corners: Floats
    retro: float = 1.0
    solid: bool = True
    stop: bool = False


@dataclass
class Thing:
    """Something at the roadside or on the road.

    Attributes:
        p: position of its near end along the round, in metres.
        length: its length along the road, in metres.
        quads: (n, 4, 3) metres, relative to p, painted in this order.
        colours: (n, 3) RGB from 0 to 255, in daylight.
        glow: (n, 3) RGB, light that each emits at night.
        boards: painted after the quads.
        drift: metres that it moves per metre that the camera moves.
        visible_from: the distance up to which it is drawn, in metres.
    """

    p: float
    length: float
    quads: Floats
    colours: Floats
    glow: Floats
    boards: list[Billboard] = field(default_factory=list)
    drift: float = 0.0
    visible_from: float = FAR

    def mirrored(self) -> Thing:
        """The same thing on the other side of the road; boards are not mirrored themselves."""
        flip = floats([-1, 1, 1])
        boards = [replace(b, corners=(b.corners * flip)[[1, 0, 3, 2]]) for b in self.boards]
        return replace(self, quads=self.quads * flip, boards=boards)


class _Builder:
    def __init__(self) -> None:
        self.quads: list[Any] = []
        self.colours: list[Any] = []
        self.glow: list[Any] = []

    def quad(self, points: Any, colour: Any, glow: Any = DARK) -> None:
        self.quads.append(points)
        self.colours.append(colour)
        self.glow.append(glow)

    def facing(self, x: tuple[float, float], y: tuple[float, float], z: float, colour: Any, glow: Any = DARK) -> None:
        """A rectangle across the road."""
        self.quad([(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)], colour, glow)

    def along(self, x: float, y: tuple[float, float], z: tuple[float, float], colour: Any, glow: Any = DARK) -> None:
        """A rectangle along the road."""
        self.quad([(x, y[0], z[0]), (x, y[0], z[1]), (x, y[1], z[1]), (x, y[1], z[0])], colour, glow)

    def thing(self, p: float, length: float, **more: Any) -> Thing:
        quads = floats(self.quads).reshape(-1, 4, 3)
        return Thing(
            p,
            length,
            quads,
            floats(self.colours).reshape(-1, 3),
            floats(self.glow).reshape(-1, 3),
            **more,
        )


def light(z: Floats, x: Floats) -> Floats:
    """Light of the headlights at a point on the road, 0 to 1 (a plausible shape, not optics)."""
    z = np.maximum(z, NEAR)
    beam: Floats = np.exp(-((x / (0.42 * z + 1.5)) ** 2)) * np.minimum(1.0, (11 / (z + 4)) ** 1.3)
    return beam


def house(rng: np.random.Generator, p: float, x: float, out: int) -> Thing:
    """A house with its wall along the road at `x`; `out` is the direction away from the road, 1 or -1."""
    build = _Builder()
    depth, length = rng.uniform(6, 9), rng.uniform(7, 10)
    flat = rng.random() < 0.35
    height = rng.uniform(6, 12) if flat else rng.uniform(3.2, 6.5)
    walls = [(196, 178, 150), (168, 92, 74), (206, 204, 196), (150, 160, 170), (186, 150, 110), (120, 70, 60),
             (222, 210, 180), (110, 124, 112), (176, 60, 52)]  # fmt: skip
    wall = np.array(walls[int(rng.integers(len(walls)))]) + rng.uniform(-14, 14, 3)
    roof = np.array([(120, 62, 48), (76, 74, 78), (98, 84, 72)][int(rng.integers(3))]) + rng.uniform(-10, 10, 3)
    sun = rng.uniform(0.7, 1.0)
    back, middle = x + out * depth, x + out * depth / 2
    build.facing((x, back), (0, height), 0, wall * sun)
    if not flat:
        top = height + rng.uniform(1.5, 3)
        build.quad([(x, height, 0), (back, height, 0), (middle, top, 0), (middle, top, 0)], wall * sun)
        eave = x - out * 0.4
        build.quad(
            [(eave, height - 0.2, 0), (eave, height - 0.2, length), (middle, top, length), (middle, top, 0)],
            roof,
        )
    build.along(x, (0, height), (0, length), wall * (1.7 - sun))
    build.along(x, (0, 0.5), (0, length), wall * 0.6)
    pane, frame = np.array([70, 84, 100]) + rng.uniform(-20, 30, 3), np.array([216, 212, 204])
    for floor in range(max(int(height / 2.8), 1)):
        y = 0.9 + floor * 2.8
        across, beside = int(rng.integers(2, 4)), int(rng.integers(1, 3))
        for i in range(across):
            z = length * (i + 0.5) / across
            glow = WARM if rng.random() < 0.35 else DARK
            build.along(x - out * 0.02, (y - 0.1, y + 1.4), (z - 0.65, z + 0.65), frame)
            build.along(x - out * 0.04, (y, y + 1.3), (z - 0.55, z + 0.55), pane, glow)
        for i in range(beside):
            centre = x + out * depth * (i + 0.5) / beside
            glow = WARM if rng.random() < 0.35 else DARK
            build.facing((centre - 0.6, centre + 0.6), (y - 0.1, y + 1.4), -0.02, frame)
            build.facing((centre - 0.5, centre + 0.5), (y, y + 1.3), -0.04, pane, glow)
    return build.thing(p, length)


@lru_cache(maxsize=12)
def _crown(variant: int) -> Face:
    """Leaves: many discs, darker below."""
    rng = np.random.default_rng([31, variant])
    side, pointed = 200, variant % 4 == 3
    picture = np.zeros((side, side, 4), np.uint8)
    base = np.array(
        [(62, 98, 40), (86, 112, 46), (44, 80, 44), (40, 70, 48), (150, 112, 44), (110, 118, 60)][variant % 6]
    )
    n = 420
    angle, radius = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.random(n)) * 0.8
    x, y = np.cos(angle) * radius, np.sin(angle) * radius
    if pointed:
        y = rng.uniform(-0.95, 0.85, n)
        x = rng.uniform(-1, 1, n) * (y + 1) * 0.38
    order = np.argsort(rng.random(n) * 0.8 - y * 0.6)  # lower and darker ones first
    for i in order.tolist():
        shade = 0.72 - 0.42 * y[i] + 0.2 * x[i] + rng.uniform(-0.16, 0.16)
        colour = (base * shade).clip(0, 255).tolist()
        centre = (int((x[i] + 1) * side / 2), int((y[i] + 1) * side / 2))
        cv2.circle(picture, centre, int(rng.integers(5, 13)), (*colour, 255), -1, cv2.LINE_AA)
    edge = picture[:, :, 3:] > 127
    return pyramid(picture * edge)


@lru_cache(maxsize=1)
def _halo() -> Face:
    """Light that is only added: its alpha is 0 everywhere."""
    axis = np.linspace(-1, 1, 128, dtype=np.float32)
    fall = np.exp(-5 * np.hypot(*np.meshgrid(axis, axis))) - np.exp(np.float32(-5))
    picture = np.zeros((128, 128, 4), np.uint8)
    picture[..., :3] = (fall.clip(0, 1) * 230)[..., None]
    return pyramid(picture)


def _upright(x: float, y: float, size: float, z: float, yaw: float = 0.0, roll: float = 0.0) -> Floats:
    """Corners of a square board; yaw turns it around the vertical axis, roll within its plane (radians)."""
    flat = floats([(-1, 1), (1, 1), (1, -1), (-1, -1)]) * np.float32(size / 2)
    c, s = np.cos(roll), np.sin(roll)
    flat = flat @ floats([[c, s], [-s, c]])
    return np.stack([x + flat[:, 0] * np.cos(yaw), y + flat[:, 1], z + flat[:, 0] * np.sin(yaw)], 1).astype(np.float32)


def tree(rng: np.random.Generator, p: float, x: float) -> Thing:
    """A tree; its crown is a board."""
    build = _Builder()
    size, trunk = rng.uniform(3.0, 6.5), rng.uniform(1.0, 2.2)
    build.facing((x - 0.14, x + 0.14), (0, trunk + size * 0.4), 0.02, (84, 66, 50))
    crown = Billboard(_crown(int(rng.integers(12))), _upright(x, trunk + size / 2, size, 0))
    return build.thing(p, 0, boards=[crown])


def lamp(rng: np.random.Generator, p: float, x: float, arm: int) -> Thing:
    """A lamp post with an arm over the road."""
    build = _Builder()
    height, grey = rng.uniform(5, 7.5), rng.uniform(70, 140)
    colour = np.full(3, grey)
    build.facing((x - 0.08, x + 0.08), (0, height), 0, colour)
    build.facing((x + 0.03, x + 0.08), (0, height), -0.01, colour * 0.7)
    reach = x + arm * 1.6
    build.quad([(x, height - 0.1, 0), (x, height, 0), (reach, height + 0.35, 0), (reach, height + 0.25, 0)], colour)
    build.facing((reach - 0.3, reach + 0.3), (height + 0.18, height + 0.36), 0, (206, 204, 196), (255, 236, 190))
    return build.thing(p, 0, boards=[Billboard(_halo(), _upright(reach, height + 0.2, 3.4, -0.02), solid=False)])


def car(rng: np.random.Generator, p: float, x: float, role: str) -> Thing:
    """A car at `x`: "parked", "oncoming" (seen from the front) or "ahead" (at a constant distance)."""
    build = _Builder()
    paints = [
        (150, 24, 30),
        (36, 56, 110),
        (200, 200, 204),
        (44, 44, 48),
        (120, 124, 128),
        (226, 226, 222),
        (60, 84, 66),
    ]
    paint = np.array(paints[int(rng.integers(len(paints)))]) + rng.uniform(-10, 10, 3)
    length, roof, half = rng.uniform(3.8, 4.6), rng.uniform(1.4, 1.75), 0.86
    near, glass = (x + half if x < 0 else x - half), (48, 56, 66)
    build.quad([(x - 1, 0.01, -0.1), (x + 1, 0.01, -0.1), (x + 1, 0.01, length), (x - 1, 0.01, length)], (40, 40, 42))
    build.along(near, (0.35, 0.95), (0, length), paint * 0.8)
    a, b = length * 0.12, length * 0.72
    build.quad(
        [
            (near, 0.95, a),
            (near, 0.95, b + 0.5),
            (near * 0.97 + x * 0.03, roof, b),
            (near * 0.97 + x * 0.03, roof, a + 0.35),
        ],
        paint * 0.75,
    )
    build.along(near, (1.0, roof - 0.1), (a + 0.4, b), glass)
    for z in (0.75, length - 0.75):
        for r, tone in ((0.34, (22, 22, 24)), (0.18, (130, 130, 134))):
            ring = [(near, 0.34 + r * dy, z + r * dz) for dz, dy in ((-1, -0.4), (-0.4, -1), (0.4, -1), (1, -0.4))]
            build.quad(ring, tone)
            ring = [(near, 0.34 - r * dy, z - r * dz) for dz, dy in ((-1, -0.4), (-0.4, -1), (0.4, -1), (1, -0.4))]
            build.quad(ring, tone)
            build.quad([ring[0], ring[3], (near, 0.34 - r * 0.4, z - r), (near, 0.34 - r * 0.4, z + r)], tone)
    for wheel in (x - 0.66, x + 0.66):
        build.facing((wheel - 0.1, wheel + 0.1), (0, 0.4), -0.01, (24, 24, 26))
    build.quad(
        [
            (x - half * 0.95, 0.93, 0),
            (x + half * 0.95, 0.93, 0),
            (x + 0.62, roof, 0.3),
            (x - 0.62, roof, 0.3),
        ],
        paint * 0.9,
    )
    build.quad(
        [
            (x - 0.72, 0.98, -0.01),
            (x + 0.72, 0.98, -0.01),
            (x + 0.55, roof - 0.1, 0.25),
            (x - 0.55, roof - 0.1, 0.25),
        ],
        glass,
    )
    build.facing((x - half, x + half), (0.3, 0.95), -0.02, paint)
    build.facing((x - half, x + half), (0.28, 0.45), -0.03, (50, 50, 54))
    build.facing((x - 0.26, x + 0.26), (0.52, 0.64), -0.04, (226, 224, 210))
    lights = (250, 244, 220) if role == "oncoming" else (212, 24, 26)
    glow = DARK if role == "parked" else lights
    boards = []
    for headlight in (x - half + 0.17, x + half - 0.17):
        build.facing((headlight - 0.15, headlight + 0.15), (0.66, 0.84), -0.04, lights, glow)
        if role == "oncoming":
            boards.append(Billboard(_halo(), _upright(headlight, 0.75, 1.6, -0.05), solid=False))
    drift = {"parked": 0.0, "oncoming": -1.0, "ahead": 1.0}[role]
    return build.thing(p, length, boards=boards, drift=drift)


def post(
    rng: np.random.Generator,
    position: tuple[float, float, float],
    size: float,
    levels: Face,
    *,
    stop: bool = False,
    visible_from: float = FAR,
    turn: float = 0.14,
) -> Thing:
    """A sign on a post.

    Args:
        rng: draws the post and the sign's rotation.
        position: of the sign's centre, in metres: along the round, to the right, up.
        size: height of the sign, in metres.
        levels: its face.
        stop: whether it is a stop sign.
        visible_from: the distance up to which it is drawn, in metres.
        turn: standard deviation of its rotation away from the road, in radians.
    """
    p, x, y = position
    build = _Builder()
    kind = int(rng.integers(4))
    colour = np.array([(150, 152, 154), (118, 92, 66), (70, 96, 76), (88, 88, 92)][kind]) + rng.uniform(-12, 12, 3)
    half = 0.055 if kind == 1 else 0.035
    build.facing((x - half, x + half), (0, y + size * rng.uniform(0.2, 0.55)), 0.03, colour)
    build.facing((x + half * 0.3, x + half), (0, y), 0.02, colour * 0.7)
    yaw, roll = float(rng.normal(0, turn)), float(rng.normal(0, 0.2 * turn))
    board = Billboard(levels, _upright(x, y, size, 0, yaw, roll), retro=1.5, stop=stop)
    return build.thing(p, 0, boards=[board], visible_from=visible_from)
