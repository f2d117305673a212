"""The world along one round of road, its light and weather, and the picture of it from a point on the road.

Lengths are in metres: X to the right, Y up from the road, z ahead of the camera.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from bittern.frames import Pixels
from bittern.scene.roadside import FAR, NEAR, Thing, car, house, lamp, light, tree
from bittern.scene.signs import OCTAGON, Floats, composite, floats

ROUND_M = 144  # length of one lap; a whole number of texture tiles and of lane dashes
_TILE_M, _TILE_PX = 16, 512
_DASH_M = 6
_BEHIND_M = 14  # longer than the longest thing


@dataclass
class Mood:
    """Time of day and weather. Colours are factors, or RGB from 0 to 255."""

    ambient: Floats
    zenith: Floats
    horizon: Floats
    clouds: float
    fog_m: float
    headlight: float
    noise: float
    rain: int = 0
    lamps: float = 0.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Mood:
        """Draw one of sunny, overcast, rain, dusk and night, each with random variations."""
        kind = rng.choice(["sunny", "overcast", "rain", "dusk", "night"], p=[0.34, 0.24, 0.12, 0.16, 0.14])
        tint = rng.uniform(0.94, 1.06, 3)
        grey = rng.uniform(150, 225)

        def tinted(*rgb: float, by: float = 1.0) -> Floats:
            return (np.array(rgb) * tint * by).astype(np.float32)

        gain = rng.uniform(0.85, 1.15)
        if kind == "sunny":
            return cls(
                ambient=tinted(1.1, 1.06, 1.0, by=gain),
                zenith=tinted(70, 130, 215),
                horizon=tinted(190, 214, 235),
                clouds=rng.uniform(0, 0.8),
                fog_m=rng.uniform(150, 500),
                headlight=0,
                noise=rng.uniform(1, 4),
            )
        if kind in ("overcast", "rain"):
            wet = kind == "rain"
            sky = tinted(grey, grey, grey * 1.02)
            return cls(
                ambient=tinted(0.82, 0.84, 0.86, by=gain * (0.75 if wet else 1)),
                zenith=sky * np.float32(0.85),
                horizon=sky,
                clouds=1.0,
                fog_m=rng.uniform(50, 120) if wet else rng.uniform(80, 300),
                headlight=0,
                noise=rng.uniform(2, 6),
                rain=int(rng.integers(40, 160)) if wet else 0,
            )
        if kind == "dusk":
            return cls(
                ambient=tinted(0.62, 0.5, 0.46, by=gain),
                zenith=tinted(70, 76, 130),
                horizon=tinted(240, 160, 104),
                clouds=rng.uniform(0.2, 0.9),
                fog_m=rng.uniform(120, 400),
                headlight=0.12,
                noise=rng.uniform(3, 8),
                lamps=0.6,
            )
        return cls(
            ambient=tinted(0.13, 0.14, 0.19, by=gain),
            zenith=tinted(8, 10, 22),
            horizon=tinted(30, 30, 44),
            clouds=rng.uniform(0, 0.5),
            fog_m=rng.uniform(100, 300),
            headlight=rng.uniform(0.5, 0.9),
            noise=rng.uniform(4, 10),
            lamps=1.0,
        )


@dataclass
class Pinhole:
    """A pinhole camera with an off-centre optical axis: (cx, cy) is the vanishing point, `roll` is in radians."""

    width: int
    height: int
    focal: float
    cx: float
    cy: float
    roll: float
    eye_m: float
    turn: Floats = field(init=False)

    def __post_init__(self) -> None:
        c, s = np.cos(self.roll), np.sin(self.roll)
        self.turn = floats([[c, s], [-s, c]])

    def project(self, points: Floats) -> Floats:
        """Project (..., 3) metres to (..., 2) px; points nearer than NEAR are moved there."""
        z = np.maximum(points[..., 2], NEAR)
        flat = np.stack([points[..., 0], self.eye_m - points[..., 1]], axis=-1) * (self.focal / z)[..., None]
        turned: Floats = (flat @ self.turn + floats([self.cx, self.cy])).astype(np.float32)
        return turned

    def rays(self) -> tuple[Floats, Floats]:
        """For each pixel, how far it is to the right of and below the vanishing point, in px, without the roll."""
        x, y = np.meshgrid(
            np.arange(self.width, dtype=np.float32) + 0.5 - self.cx,
            np.arange(self.height, dtype=np.float32) + 0.5 - self.cy,
        )
        (a, b), (c, d) = self.turn.T.tolist()
        return x * a + y * c, x * b + y * d


def _soft_noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int = 4) -> Floats:
    """(height, width) between 0 and 1: a sum of grids of random numbers, each twice as fine and half as strong."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        n = cells << octave
        grid = rng.random((n, n), np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR) * np.float32(0.5**octave)
    return total / np.float32(2 - 0.5 ** (octaves - 1))


@lru_cache(maxsize=8)
def _tile(variant: int) -> Pixels:
    """Texture of the ground, around 128; it tiles seamlessly."""
    rng = np.random.default_rng([77, variant])
    total = np.zeros((_TILE_PX, _TILE_PX), np.float32)
    for cells, strength in ((512, 0.7), (256, 0.5), (64, 0.25), (8, 0.3)):
        grid = np.pad(rng.standard_normal((cells, cells)).astype(np.float32), 1, mode="wrap")
        scale = _TILE_PX // cells
        big = cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        total += big[scale:-scale, scale:-scale] * np.float32(strength)
    return np.clip(128 + 30 * total, 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def _noise(height: int, width: int) -> npt.NDArray[np.int8]:
    """Noise with a spread of 16, partly common to the three channels."""
    noise = np.random.default_rng(5).standard_normal((height, width, 3), np.float32)
    # In place: each copy would take 5 MB, just when `watch demo:` needs the most memory.
    common = noise.mean(axis=2, keepdims=True)
    noise *= np.float32(0.7)
    noise += common
    noise *= 16
    return np.asarray(np.clip(noise, -127, 127, out=noise), np.int8)


def _ahead(thing: Thing, way: float) -> float:
    """How far ahead the near end of a thing is, in metres; negative for a while after it was passed."""
    return (thing.p + thing.drift * way - way + _BEHIND_M) % ROUND_M - _BEHIND_M


class World:
    """All things along one round of road, and the picture of them from a point on it."""

    def __init__(self, rng: np.random.Generator, camera: Pinhole, side: int, kerb: float) -> None:
        self.camera, self.side, self.kerb = camera, side, kerb
        self.mood = Mood.draw(rng)
        self.things: list[Thing] = []
        self._background(rng)

    def furnish(self, rng: np.random.Generator, keep_clear: tuple[float, float]) -> None:
        """Add houses, trees, lamps and cars; no lamp on our side within `keep_clear` (m), as it could hide a sign."""
        far_kerb = self.kerb - self.road
        built = rng.uniform(0.1, 0.75)
        for kerb, out in ((self.kerb, 1), (far_kerb, -1)):
            p = rng.uniform(0, 8)
            while p < ROUND_M - 6:
                x = kerb + out * rng.uniform(4.5, 8)
                if rng.random() < built:
                    self.add(house(rng, p, x, out))
                    p += rng.uniform(10, 16)
                else:
                    self.add(tree(rng, p, x + out * rng.uniform(0, 4)))
                    p += rng.uniform(3, 8)
            for p in np.arange(rng.uniform(4, 24), ROUND_M, rng.uniform(20, 30)):
                if out < 0 or not keep_clear[0] - 14 < p < keep_clear[1]:
                    self.add(lamp(rng, float(p), kerb + out * 0.9, -out))
            for p in rng.uniform(0, ROUND_M, int(rng.integers(0, 7))):
                if out < 0:
                    self.add(car(rng, float(p), kerb + 0.2, "parked"))
        for _ in range(int(rng.integers(0, 3))):
            self.add(car(rng, float(rng.uniform(0, ROUND_M)), self.kerb - self.road / 2 - 1.2, "oncoming"))
        if rng.random() < 0.3:
            self.add(car(rng, float(rng.uniform(18, 32)), self.kerb - 2.6, "ahead"))

    def add(self, thing: Thing) -> None:
        """Add a thing; mirrored to the other side of the road for left-hand traffic."""
        self.things.append(thing.mirrored() if self.side < 0 else thing)

    def _background(self, rng: np.random.Generator) -> None:
        """Draw what does not change along the road: the sky, and the ground without its texture."""
        cam, mood = self.camera, self.mood
        self.road = rng.uniform(6.2, 8)
        u, v = cam.rays()
        u *= self.side
        self.top = int(np.argmax((v > 0.5).any(axis=1))) if (v > 0.5).any() else cam.height - 1
        bottom = cam.height - int(np.argmax((v < 1)[::-1].any(axis=1)))
        self.picture = np.zeros((cam.height, cam.width, 3), np.uint8)
        self.picture[:bottom] = self._sky(rng, v[:bottom])
        u, v = u[self.top :], v[self.top :]
        z = floats(cam.focal * cam.eye_m / np.maximum(v, np.float32(0.5)))
        x = floats(u * z / np.float32(cam.focal))
        below = self.picture[self.top :]
        below[:] = cv2.blendLinear(below, self._road(rng, x, z), 1 - np.clip(v, 0, 1), np.clip(v, 1e-3, 1))
        self._tile = _tile(int(rng.integers(4)))
        scale = _TILE_PX / _TILE_M
        self._map_x, self._map_z = x * np.float32(scale), np.minimum(z, FAR) * np.float32(scale)
        self._depth = np.exp(z * np.float32(-1 / 14)) * (z < FAR) * np.float32(rng.uniform(0.5, 1.1) / 128)
        # Sensor noise, a little larger than the frame, so that it can be shifted.
        noise = _noise(cam.height + 61, cam.width + 67).astype(np.float32)
        noise *= np.float32(mood.noise / 16)
        self._grain = np.round(noise, out=noise).astype(np.int16)
        self.dash = float(rng.uniform(0.09, 0.15))

    def uncover(self, way: float, box: tuple[float, float, float, float], depth: float) -> None:
        """Remove everything that hides a box (x0, y0, x1, y1 in px) `depth` metres ahead."""
        remaining = []
        for thing in self.things:
            ahead = _ahead(thing, way)
            if NEAR - thing.length < ahead < depth:
                points = np.concatenate([thing.quads.reshape(-1, 3), *(board.corners for board in thing.boards)])
                projected = self.camera.project(points + floats([0, 0, ahead]))
                (x0, y0), (x1, y1) = projected.min(axis=0), projected.max(axis=0)
                if x0 < box[2] and x1 > box[0] and y0 < box[3] and y1 > box[1]:
                    continue
            remaining.append(thing)
        self.things = remaining

    def _sky(self, rng: np.random.Generator, v: Floats) -> Pixels:
        """Sky, clouds and a forest on the horizon, for rays `v` px below it: (h, width, 3)."""
        cam, mood = self.camera, self.mood
        height, width = v.shape
        # Everything except the forest is smooth: half the size is enough.
        half = (max(width // 2, 1), max(height // 2, 1))
        up = np.sqrt(np.clip(-cv2.resize(v, half) / cam.height, 0, 1)).clip(0, 0.9)[..., None] * np.float32(1.1)
        sky = mood.horizon + (mood.zenith - mood.horizon) * up
        noise = _soft_noise(rng, half[1], half[0], int(rng.integers(2, 5)))[..., None]
        cover = np.clip((noise - np.float32(0.62 - 0.25 * mood.clouds)) * 5, 0, 1) * np.float32(mood.clouds)
        cloud = mood.horizon * (np.float32(0.75) + np.float32(0.35) * noise)
        sky += (cloud + np.float32(18 * mood.ambient.mean()) - sky) * cover
        picture: Pixels = cv2.resize(sky.clip(0, 255).astype(np.uint8), (width, height))
        ridge = cv2.resize(_soft_noise(rng, 1, 64, 4), (width, 1))[0] - np.float32(0.3)
        hill = np.clip(ridge * np.float32(rng.uniform(0.05, 0.3) * cam.height) + v + 1, 0, 1)
        forest = np.empty((height, width, 3), np.uint8)
        clear = np.float32(np.exp(-120 / mood.fog_m))
        green = floats([42, 56, 42]) * mood.ambient
        forest[:] = (green * clear + mood.horizon * (1 - clear)).clip(0, 255)
        return np.asarray(cv2.blendLinear(picture, forest, 1 - hill, np.maximum(hill, np.float32(1e-3))), np.uint8)

    def _road(self, rng: np.random.Generator, x: Floats, z: Floats) -> Pixels:
        """Verge, footway, kerb and road at positions x, z, with lighting: (h, width, 3)."""
        mood, left, right = self.mood, self.kerb - self.road, self.kerb
        verges = [(86, 118, 54), (110, 126, 66), (132, 120, 84), (150, 146, 138)]
        tar = rng.uniform(70, 130)
        bands = [
            (left - 2.2, right + 2.0, (158, 154, 148)),
            (left - 0.2, right + 0.2, (190, 188, 182)),
            (left, right, (tar, tar, tar * 1.02)),
        ]
        if rng.random() < 0.4:
            bands += [(a, a + 0.12, (225, 225, 220)) for a in (left + 0.3, right - 0.42)]
        ground = np.empty((*x.shape, 3), np.float32)
        ground[:] = verges[int(rng.choice(4, p=[0.4, 0.25, 0.15, 0.2]))]
        per_px = np.float32(self.camera.focal) / z
        for a, b, colour in bands:
            inside = np.clip((x - np.float32(a)) * per_px + np.float32(0.5), 0, 1)
            inside *= np.clip((np.float32(b) - x) * per_px + np.float32(0.5), 0, 1)
            ground += (floats(colour) - ground) * inside[..., None]
        clear = np.exp(z * np.float32(-1 / mood.fog_m))[..., None]
        if mood.headlight:
            ground *= mood.ambient + np.float32(mood.headlight) * light(z, x)[..., None]
        else:
            ground *= mood.ambient
        return np.asarray((ground * clear + mood.horizon * (1 - clear)).clip(0, 255), np.uint8)

    def _ground(self, way: float) -> Pixels:
        picture = self.picture.copy()
        shift = np.float32(way % _TILE_M * _TILE_PX / _TILE_M)
        grain = cv2.remap(self._tile, self._map_x, self._map_z + shift, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        factor = 1 + (grain.astype(np.float32) - 128) * self._depth
        ground = picture[self.top :]
        cv2.multiply(ground, cv2.merge([factor] * 3), dst=ground, dtype=cv2.CV_8U)
        middle = (self.kerb - self.road / 2) * self.side
        starts = np.arange(-(way % _DASH_M), 60, _DASH_M, dtype=np.float32)
        a, b = middle - self.dash / 2, middle + self.dash / 2
        quads = floats([[(a, 0, z), (b, 0, z), (b, 0, z + 2.6), (a, 0, z + 2.6)] for z in starts if z > -2.2])
        projected, colours = self._project(quads, floats([[228] * 3]), np.zeros((1, 3), np.float32))
        self._paint(picture, projected, colours)
        return picture

    def _shine(self, points: Floats, retro: Floats | float = 1.0) -> tuple[Floats, Floats]:
        """At points (n, 3): the light (n, 3) as a factor, and the transmission of the air in between (n, 1)."""
        beam = self.mood.headlight * light(points[:, 2], points[:, 0]) * np.float32(retro)
        clear = np.exp(np.maximum(points[:, 2], 0) * np.float32(-1 / self.mood.fog_m))
        return self.mood.ambient + beam[:, None], clear[:, None]

    def _paint(self, picture: Pixels, quads: npt.NDArray[np.int32], colours: list[list[float]]) -> None:
        for corners, colour in zip(quads, colours, strict=True):
            cv2.fillConvexPoly(picture, corners, colour, cv2.LINE_AA, 4)

    def _project(self, quads: Floats, colours: Floats, glow: Floats) -> tuple[npt.NDArray[np.int32], list[list[float]]]:
        """Corners (n, 4, 2) in 1/16 px, and colours with light and haze applied."""
        mood = self.mood
        shine, clear = self._shine(quads.mean(axis=1))
        lit = (colours * shine + glow * np.float32(mood.lamps)) * clear + mood.horizon * (1 - clear)
        corners = np.round(self.camera.project(quads).clip(-9000, 9000) * 16).astype(np.int32)
        return corners, lit.clip(0, 255).tolist()

    def picture_at(self, way: float, moment: int) -> tuple[Pixels, Floats | None]:
        """The picture from `way` metres along the round, and the stop sign's outline (8, 2) in px if it is drawn.

        `moment` is the number of the frame, for rain and noise.
        """
        picture = self._ground(way)
        outline = None
        placed = [(_ahead(t, way), t) for t in self.things]
        placed = [(z, t) for z, t in placed if z <= t.visible_from and z + t.length > NEAR]
        # Sorted by the far end: a thing beside a long house is between the house and the road.
        placed.sort(key=lambda pair: -pair[0] - pair[1].length)
        if placed:
            offsets = np.repeat(floats([z for z, _ in placed]), [len(t.quads) for _, t in placed])
            quads = np.concatenate([t.quads for _, t in placed])
            quads[..., 2] += offsets[:, None]
            colours, glow = (np.concatenate([getattr(t, name) for _, t in placed]) for name in ("colours", "glow"))
            projected, lit = self._project(quads, colours, glow)
        done = 0
        for z, thing in placed:
            end = done + len(thing.quads)
            self._paint(picture, projected[done:end], lit[done:end])
            done = end
            for board in thing.boards:
                corners = board.corners + floats([0, 0, z])
                if corners[:, 2].min() < NEAR or not (board.solid or self.mood.lamps):
                    continue
                middle = corners.mean(axis=0, keepdims=True)
                shine, clear = self._shine(middle, board.retro)
                if board.solid:
                    haze = (self.mood.horizon * (1 - clear))[0]
                    composite(picture, board.levels, self.camera.project(corners), (shine * clear)[0], haze)
                else:
                    glow = np.full(3, self.mood.lamps * float(clear[0, 0]), np.float32)
                    composite(picture, board.levels, self.camera.project(corners), glow)
                if board.stop:
                    across, down = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
                    outline = self.camera.project(middle + OCTAGON[:, :1] * across + OCTAGON[:, 1:] * down)
        self._weather(picture, moment)
        return picture, outline

    def _weather(self, picture: Pixels, moment: int) -> None:
        height, width = picture.shape[:2]
        if self.mood.rain:
            rng = np.random.default_rng([11, moment])
            start = rng.random((self.mood.rain, 2)) * (width, height)
            fall = np.stack([rng.uniform(-0.01, 0.02, self.mood.rain), rng.uniform(0.02, 0.07, self.mood.rain)], 1)
            lines = np.round(np.stack([start, start + fall * height], 1)).astype(np.int32)
            veil = picture.copy()
            cv2.polylines(veil, list(lines), False, (205, 210, 215), 1, cv2.LINE_AA)
            cv2.addWeighted(veil, 0.4, picture, 0.6, 0, dst=picture)
        y, x = moment * 37 % 61, moment * 41 % 67
        cv2.add(picture, self._grain[y : y + height, x : x + width], dst=picture, dtype=cv2.CV_8U)
