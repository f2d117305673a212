"""Road signs drawn by code: each kind as a pyramid of RGBA pictures, and the compositing of one into a picture.

A face is a tuple of (n, n, 4) uint8 arrays, RGB premultiplied by alpha, each half the size of the one before.
Letters are drawn as strokes, so that they do not depend on the fonts of an OpenCV version.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from bittern.frames import Pixels

Floats = npt.NDArray[np.float32]
Face = tuple[Pixels, ...]
Colour = tuple[int, int, int]

FACE_PX = 320


def floats(values: Any) -> Floats:
    """Convert to a float32 array."""
    return np.asarray(values, np.float32)


_SUPERSAMPLING = 3
# A regular octagon of width 2 has its corners at 1 and tan(22.5 degrees).
OCTAGON: Floats = floats(
    [(x, y) for x, y in [(-1, -0.4142), (-0.4142, -1), (0.4142, -1), (1, -0.4142)]]
    + [(-x, -y) for x, y in [(-1, -0.4142), (-0.4142, -1), (0.4142, -1), (1, -0.4142)]]
)

WHITE, BLACK = (244, 244, 240), (22, 22, 24)
RED, BLUE, YELLOW, GREEN = (188, 24, 32), (24, 76, 160), (244, 190, 24), (12, 104, 66)

OTHERS = (
    "yield", "no_entry", "speed_limit", "speed_limit_us", "priority", "warning_diamond", "warning_triangle",
    "parking", "arrow", "no_parking", "no_vehicles", "wrong_way", "one_way", "street_name", "red_board",
    "red_disc", "traffic_light", "no_turn", "construction",
)  # fmt: skip
# No signs, but red, round or eight-sided: what a network may take for a stop sign. The drawn street has none of them.
DECOYS = (
    "ball", "bucket", "lid", "umbrella", "octagon", "advert", "banner", "tail_lights", "shop_front", "screen", "car",
    "cup",
)  # fmt: skip
VARIANTS = {"stop": 10, "red_board": 6, "red_disc": 6, "speed_limit": 5} | dict.fromkeys(DECOYS, 6)
_WORDS = (
    "SALE", "OPEN", "CAFE", "PIZZA", "COLA", "BUS", "BANK", "TAXI", "SHOP", "STORE", "SPORT", "TOP", "POST", "STEP",
    "SPOT", "STEAK", "50 OFF", "24 H", "GO", "BAR", "PUSH", "EXIT", "SUPER", "HOTEL", "MARKET",
)  # fmt: skip

# Centre lines of the letters in a unit box, y down: (width, straight strokes, round strokes).
_Strokes = Sequence[Sequence[tuple[float, float]]]
_O = [(0.5, 0), (1, 0), (1, 0.3), (1, 0.7), (1, 1), (0.5, 1), (0, 1), (0, 0.7), (0, 0.3), (0, 0), (0.5, 0)]
_BOWL = [(0, 0), (0.6, 0), (1, 0), (1, 0.27), (1, 0.54), (0.6, 0.54), (0, 0.54)]
_S = [(1, 0.28), (1, 0), (0, 0), (0, 0.43), (1, 0.55), (1, 1), (0, 1), (0, 0.72)]
_STEM, _FOOT, _HEAD, _BAR = [(0, 0), (0, 1)], [(0, 1), (1, 1)], [(0, 0), (1, 0)], [(0, 0.5), (0.85, 0.5)]
_GLYPHS: dict[str, tuple[float, _Strokes, _Strokes]] = {
    "A": (0.62, [[(0, 1), (0.5, 0)], [(0.5, 0), (1, 1)], [(0.2, 0.68), (0.8, 0.68)]], []),
    "B": (0.54, [_STEM], [[(x * 0.95, y * 0.93) for x, y in _BOWL], [(x, 0.5 + y * 0.93) for x, y in _BOWL]]),
    "C": (0.54, [], [[(1, 0.3), (1, 0), (0, 0), (0, 0.3), (0, 0.7), (0, 1), (1, 1), (1, 0.7)]]),
    "D": (0.54, [_STEM], [[(0, 0), (0.5, 0), (1, 0), (1, 0.3), (1, 0.7), (1, 1), (0.5, 1), (0, 1)]]),
    "E": (0.48, [_STEM, _HEAD, _BAR, _FOOT], []),
    "G": (0.54, [[(0.6, 0.55), (1, 0.55)], [(1, 0.55), (1, 0.9)]],
          [[(1, 0.3), (1, 0), (0, 0), (0, 0.3), (0, 0.7), (0, 1), (1, 1), (1, 0.7)]]),
    "I": (0.16, [[(0.5, 0), (0.5, 1)]], []),
    "K": (0.56, [_STEM, [(0, 0.62), (1, 0)], [(0.35, 0.42), (1, 1)]], []),
    "L": (0.46, [_STEM, _FOOT], []),
    "M": (0.66, [_STEM, [(0, 0), (0.5, 0.7)], [(0.5, 0.7), (1, 0)], [(1, 0), (1, 1)]], []),
    "N": (0.56, [_STEM, [(0, 0), (1, 1)], [(1, 0), (1, 1)]], []),
    "O": (0.56, [], [_O]),
    "P": (0.54, [_STEM], [_BOWL]),
    "R": (0.54, [_STEM, [(0.45, 0.54), (1, 1)]], [_BOWL]),
    "S": (0.54, [], [_S]),
    "T": (0.52, [_HEAD, [(0.5, 0), (0.5, 1)]], []),
    "U": (0.54, [], [[(0, 0), (0, 0.3), (0, 0.7), (0, 1), (1, 1), (1, 0.7), (1, 0.3), (1, 0)]]),
    "W": (0.8, [[(0, 0), (0.25, 1)], [(0.25, 1), (0.5, 0.2)],
                [(0.5, 0.2), (0.75, 1)], [(0.75, 1), (1, 0)]], []),
    "F": (0.48, [_STEM, _HEAD, _BAR], []),
    "H": (0.56, [_STEM, [(1, 0), (1, 1)], [(0, 0.5), (1, 0.5)]], []),
    "X": (0.58, [[(0, 0), (1, 1)], [(1, 0), (0, 1)]], []),
    "Z": (0.54, [_HEAD, [(0.95, 0), (0.05, 1)], _FOOT], []),
    "4": (0.54, [[(0.75, 0), (0.75, 1)], [(0.7, 0), (0, 0.7)], [(0, 0.7), (1, 0.7)]], []),
    "Y": (0.58, [[(0, 0), (0.5, 0.5)], [(1, 0), (0.5, 0.5)], [(0.5, 0.5), (0.5, 1)]], []),
    "0": (0.54, [], [_O]),
    "1": (0.3, [[(0.7, 0), (0.7, 1)], [(0.1, 0.2), (0.7, 0)]], []),
    "2": (0.54, [_FOOT, [(0.92, 0.5), (0, 1)]], [[(0, 0.28), (0, 0), (1, 0), (1, 0.4), (0.86, 0.56)]]),
    "3": (0.54, [], [[(0, 0.25), (0, 0), (1, 0), (1, 0.47), (0.35, 0.47)],
                     [(0.35, 0.47), (1, 0.47), (1, 1), (0, 1), (0, 0.75)]]),
    "5": (0.54, [[(0, 0), (0, 0.45)], [(0, 0), (0.9, 0)]],
          [[(0, 0.45), (1, 0.35), (1, 1), (0, 1), (0, 0.75)]]),
    "6": (0.54, [], [[(1, 0.2), (1, 0), (0, 0), (0, 0.5), (0, 1), (1, 1), (1, 0.45), (0, 0.45), (0, 0.7)]]),
    "7": (0.52, [_HEAD, [(1, 0), (0.3, 1)]], []),
    "8": (0.54, [], [[(0.5, 0), (1, 0), (1, 0.48), (0, 0.48), (0, 1), (0.5, 1)],
                     [(0.5, 0), (0, 0), (0, 0.48), (1, 0.48), (1, 1), (0.5, 1)]]),
}  # fmt: skip


class _Sheet:
    """A square canvas from -1 to 1, y down, drawn large without antialiasing, then shrunk."""

    def __init__(self, ground: Colour) -> None:
        self.side = FACE_PX * _SUPERSAMPLING
        self.rgb = np.empty((self.side, self.side, 3), np.uint8)
        self.rgb[:] = ground
        self.alpha = np.zeros((self.side, self.side), np.uint8)

    def _to_px(self, points: Any) -> npt.NDArray[np.int32]:
        return np.round((np.asarray(points, np.float32) + 1) * (self.side / 2)).astype(np.int32)

    def fill(self, points: Any, colour: Colour) -> None:
        """Paint a polygon; the sign covers everything that was painted."""
        corners = self._to_px(points)
        cv2.fillPoly(self.rgb, [corners], colour)
        cv2.fillPoly(self.alpha, [corners], 255)

    def stroke(self, path: Any, width: float, colour: Colour) -> None:
        """Paint a line of a width, with flat ends."""
        points = np.asarray(path, np.float32)
        along = np.gradient(points, axis=0)
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1) * (width / 2)
        left, right = points + across, points - across
        for i in range(len(points) - 1):
            self.fill([left[i], left[i + 1], right[i + 1], right[i]], colour)

    def text(self, text: str, box: tuple[float, float, float, float], colour: Colour, weight: float) -> None:
        """Paint a word that fills a box (x, y of its centre, width, height); weight = stroke / height."""
        cx, cy, width, height = box
        stroke, gap = weight * height, 0.13
        natural = sum(_GLYPHS[c][0] if c != " " else 0.3 for c in text) + gap * (len(text) - 1)
        scale = width / natural
        x = cx - width / 2
        for char in text:
            glyph_width, straight, rounded = _GLYPHS.get(char, (0.3, [], []))
            corner = floats([x + stroke / 2, cy - height / 2 + stroke / 2])
            extent = floats([max(glyph_width * scale - stroke, 0.0), height - stroke])
            for path in straight:
                ends = corner + floats(path) * extent
                along = ends[1] - ends[0]
                reach = along / max(float(np.hypot(*along)), 1e-6) * stroke / 2
                self.stroke([ends[0] - reach, ends[1] + reach], stroke, colour)
            for path in rounded:
                self.stroke(corner + _rounded(path) * extent, stroke, colour)
            x += (glyph_width + gap) * scale

    def levels(self) -> Face:
        """The pyramid, with premultiplied alpha."""
        size = (FACE_PX, FACE_PX)
        painted = cv2.bitwise_and(self.rgb, self.rgb, mask=self.alpha)
        small = (cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (painted, self.alpha))
        return pyramid(np.dstack(list(small)))


def _rounded(path: Any) -> Floats:
    """Cut the corners of an open path three times (Chaikin 1974), keeping its ends."""
    points = np.asarray(path, np.float32)
    for _ in range(3):
        a, b = points[:-1], points[1:]
        cut = np.stack([0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b], axis=1).reshape(-1, 2)
        points = np.concatenate([points[:1], cut[1:-1], points[-1:]])
    return points


def _disc(radius: float) -> Floats:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32) * np.float32(radius)


def _panel(width: float, height: float, y: float = 0.0, corner: float = 0.06) -> Floats:
    arc = _disc(corner).reshape(4, 16, 2)
    centre = [(width - corner, height - corner), (corner - width, height - corner)]
    centre += [(corner - width, corner - height), (width - corner, corner - height)]
    outline = np.concatenate([arc[i] + floats(centre[i]) for i in range(4)])
    return outline + floats([0, y])


def _triangle(inset: float, up: bool) -> Floats:
    outline = _rounded(
        floats([(0, -0.88), (0.5, -0.88), (1, -0.88), (0.5, 0), (0, 0.9), (-0.5, 0), (-1, -0.88), (0, -0.88)])
    )
    outline = (outline - floats([0, -0.28])) * np.float32(1 - inset) + floats([0, -0.28])
    return -outline if up else outline


_ARROW: Floats = floats(
    [(-0.14, 0.6), (-0.14, -0.1), (-0.42, -0.1), (0, -0.62), (0.42, -0.1), (0.14, -0.1), (0.14, 0.6)]
)


def pyramid(top: Pixels) -> Face:
    """The picture (n, n, 4), and repeatedly half of its size, down to about 8 px."""
    levels = [top]
    while levels[-1].shape[0] >= 16:
        side = levels[-1].shape[0] // 2
        levels.append(cv2.resize(levels[-1], (side, side), interpolation=cv2.INTER_AREA))
    return tuple(levels)


def variant_of(rng: np.random.Generator, kind: str) -> Face:
    """A random variant of a kind."""
    return face(kind, int(rng.integers(VARIANTS.get(kind, 3))))


@lru_cache(maxsize=192)
def face(kind: str, variant: int) -> Face:
    """The face of "stop", of one of `OTHERS` or of `DECOYS`; the variant selects proportions, colours and lettering."""
    rng = np.random.default_rng([variant, *kind.encode()])
    if kind in DECOYS:
        return _decoy(rng, kind)

    def vary(colour: Colour, by: int = 14) -> Colour:
        r, g, b = np.clip(np.add(colour, rng.integers(-by, by + 1, 3)), 0, 255).tolist()
        return r, g, b

    red, white, black = vary(RED), vary(WHITE, 4), vary(BLACK, 8)
    sheet = _Sheet(white)
    if kind == "stop":
        border = rng.uniform(0.035, 0.075)
        if rng.random() < 0.3:  # a dark rim around the white border
            sheet.fill(OCTAGON, red)
            sheet.fill(OCTAGON * np.float32(0.965), white)
            border += 0.035
        else:
            sheet.fill(OCTAGON, white)
        sheet.fill(OCTAGON * np.float32(1 - border), red)
        box = (0.0, rng.uniform(-0.02, 0.02), rng.uniform(1.42, 1.6), rng.uniform(0.62, 0.76))
        sheet.text("STOP", box, white, rng.uniform(0.165, 0.205))
        if rng.random() < 0.6:
            for y in (-0.74, 0.74):
                sheet.fill(_disc(0.035) + floats([0, y]), (150, 140, 140))
    elif kind == "yield":
        sheet.fill(_triangle(0, False), red)
        sheet.fill(_triangle(rng.uniform(0.34, 0.48), False), white)
        if rng.random() < 0.5:
            sheet.text("YIELD", (0, -0.42, 0.62, 0.2), red, 0.2)
    elif kind == "no_entry":
        if rng.random() < 0.35:
            sheet.fill(_panel(1, 1), white)
            sheet.fill(_disc(0.92), red)
        else:
            sheet.fill(_disc(1), white)
            sheet.fill(_disc(0.96), red)
        sheet.fill(_panel(0.7, 0.15, corner=0.02), white)
    elif kind in ("speed_limit", "no_vehicles"):
        sheet.fill(_disc(1), red)
        sheet.fill(_disc(rng.uniform(0.72, 0.8)), white)
        if kind == "speed_limit":
            sheet.text(str(rng.choice(["30", "50", "60", "70", "80"])), (0, 0, 1.0, 0.78), black, 0.17)
    elif kind == "speed_limit_us":
        sheet.fill(_panel(0.78, 1), white)
        sheet.fill(_panel(0.72, 0.94), black)
        sheet.fill(_panel(0.69, 0.91), white)
        sheet.text("SPEED", (0, -0.64, 0.98, 0.26), black, 0.2)
        sheet.text("LIMIT", (0, -0.24, 0.8, 0.26), black, 0.2)
        sheet.text(str(rng.choice(["25", "35", "55"])), (0, 0.42, 0.9, 0.74), black, 0.18)
    elif kind in ("priority", "warning_diamond", "construction"):
        diamond = floats([(0, -1), (1, 0), (0, 1), (-1, 0)])
        if kind == "priority":
            sheet.fill(diamond, white)
            sheet.fill(diamond * np.float32(0.7), vary(YELLOW))
        else:
            sheet.fill(diamond, vary(YELLOW) if kind == "warning_diamond" else vary((236, 116, 24)))
            for inset, colour in (
                (0.93, black),
                (0.88, tuple(sheet.rgb[sheet.side // 2, sheet.side // 2].tolist())),
            ):
                sheet.fill(diamond * np.float32(inset), colour)
            sheet.fill(_ARROW * np.float32(0.75), black)
    elif kind == "warning_triangle":
        sheet.fill(_triangle(0, True), red)
        sheet.fill(_triangle(rng.uniform(0.3, 0.4), True), white)
        sheet.fill(_panel(0.07, 0.24, 0.2, 0.02), black)
        sheet.fill(_disc(0.08) + floats([0, 0.58]), black)
    elif kind == "parking":
        sheet.fill(_panel(1, 1, corner=0.12), white)
        sheet.fill(_panel(0.95, 0.95, corner=0.1), vary(BLUE))
        sheet.text("P", (0, 0, 0.78, 1.3), white, 0.19)
    elif kind == "arrow":
        sheet.fill(_disc(1), white)
        sheet.fill(_disc(0.95), vary(BLUE))
        turn = np.deg2rad(rng.choice([0, 90, -90, 135, -135]))
        spin = floats([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        sheet.fill(_ARROW @ spin.T, white)
    elif kind in ("no_parking", "no_turn"):
        sheet.fill(_disc(1), red)
        sheet.fill(_disc(0.8), vary(BLUE) if kind == "no_parking" else white)
        if kind == "no_turn":
            sheet.fill(_ARROW @ floats([[0, -1], [1, 0]]), black)
        sheet.stroke([(-0.62, -0.62), (0.62, 0.62)], 0.18, red)
    elif kind in ("wrong_way", "red_board"):
        tall = 0.55 if kind == "wrong_way" else rng.uniform(0.35, 1.0)
        sheet.fill(_panel(1, tall), white)
        sheet.fill(_panel(0.95, tall - 0.05), red)
        if kind == "wrong_way":
            sheet.text("WRONG", (0, -0.23, 1.5, 0.34), white, 0.2)
            sheet.text("WAY", (0, 0.23, 1.0, 0.34), white, 0.2)
        else:
            word = str(rng.choice(["SALE", "OPEN", "BUS", "COLA", "BANK"]))
            sheet.text(word, (0, 0, 1.5, min(tall, 0.6)), white, 0.18)
    elif kind == "one_way":
        sheet.fill(_panel(1, 0.36), black)
        sheet.fill((_ARROW @ floats([[0, -1], [1, 0]])) * floats([1.5, 0.7]), white)
    elif kind == "street_name":
        sheet.fill(_panel(1, 0.2, corner=0.03), white)
        sheet.fill(_panel(0.98, 0.18, corner=0.03), vary(GREEN if rng.random() < 0.6 else BLUE))
        sheet.text(str(rng.choice(["MAIN ST", "PARK RD", "MILL LN"])), (0, 0, 1.6, 0.22), white, 0.17)
    elif kind == "red_disc":
        sheet.fill(_disc(1), vary((204, 28, 34), 22))
        if rng.random() < 0.5:
            sheet.fill(_disc(0.72), white)
            sheet.fill(_disc(0.48), red)
        else:
            sheet.text(str(rng.choice(["COLA", "BUS", "UP", "GO"])), (0, 0, 1.4, 0.5), white, 0.18)
    elif kind == "traffic_light":
        sheet.fill(_panel(0.38, 1, corner=0.1), vary((40, 42, 40), 20))
        lit = int(rng.integers(3))
        for i, (y, colour) in enumerate(((-0.62, (255, 40, 30)), (0, (255, 190, 40)), (0.62, (60, 240, 130)))):
            off: Colour = (colour[0] // 5, colour[1] // 5, colour[2] // 5)
            sheet.fill(_disc(0.26) + floats([0, y]), colour if i == lit else off)
    else:
        raise ValueError(f"no such sign: {kind!r}")
    return sheet.levels()


def _shaded(sheet: _Sheet, outline: Floats, colour: Colour, light: Floats, steps: int = 28) -> None:
    """Fill an outline around 0 as if it were round, the brightest towards `light`."""
    for part in np.linspace(1, 0, steps, endpoint=False):
        tone = np.clip(np.array(colour) * (1.15 - 0.6 * part**2) + 40 * (1 - part) ** 3, 0, 255)
        sheet.fill(
            outline * np.float32(part) + light * np.float32(1 - part), (int(tone[0]), int(tone[1]), int(tone[2]))
        )


def _decoy(rng: np.random.Generator, kind: str) -> Face:
    def near(colour: Colour, by: int) -> Colour:
        r, g, b = np.clip(np.add(colour, rng.integers(-by, by + 1, 3)), 0, 255).tolist()
        return r, g, b

    red, white = near((196, 30, 36), 26), near(WHITE, 8)
    others = (
        (30, 80, 170),
        (20, 130, 80),
        (230, 170, 30),
        (110, 70, 48),
        (60, 60, 66),
        (220, 110, 30),
        (150, 150, 150),
    )
    colour = red if rng.random() < 0.7 else near(others[int(rng.integers(len(others)))], 20)
    word = str(rng.choice(np.array(_WORDS)))
    light = floats(rng.uniform(-0.5, 0.1, 2))
    sheet = _Sheet(colour)
    if kind == "ball":
        _shaded(sheet, _disc(0.98), colour, light)
        if rng.random() < 0.5:
            sheet.stroke(_rounded([(-0.6, -0.75), (-0.1, 0), (-0.6, 0.75)]), 0.05, white)
    elif kind == "bucket":
        width = rng.uniform(0.62, 0.85)
        for part in np.linspace(1, 0.1, 14):  # round: lighter towards the middle
            tone = np.clip(np.array(colour) * (1.15 - 0.55 * part), 0, 255).astype(int).tolist()
            edge = floats([(-0.9, -0.6), (0.9, -0.6), (width, 0.95), (-width, 0.95)]) * floats([part, 1])
            sheet.fill(edge + floats([-0.1, 0]) * np.float32(1 - part), (tone[0], tone[1], tone[2]))
        sheet.fill(_disc(0.9) * floats([1, 0.28]) + floats([0, -0.62]), near((70, 10, 14), 8))
        sheet.stroke(_rounded([(-0.88, -0.62), (-0.7, -0.98), (0.7, -0.98), (0.88, -0.62)]), 0.04, (170, 170, 172))
    elif kind == "lid":
        for radius, tone in ((1.0, 0.7), (0.93, 1.0), (0.8, 0.85), (0.77, 1.05)):
            r, g, b = (int(min(255, c * tone)) for c in colour)
            sheet.fill(_disc(radius), (r, g, b))
        if rng.random() < 0.6:
            sheet.text(word, (0, 0, 1.15, rng.uniform(0.25, 0.4)), white, 0.18)
    elif kind == "umbrella":
        tip = floats(rng.uniform(-0.2, 0.2, 2))
        second = white if rng.random() < 0.5 else near(colour, 30)
        for i in range(8):
            shade = 0.75 + 0.3 * np.cos(i * np.pi / 4 - 2)
            r, g, b = (int(min(255, c * shade)) for c in (colour if i % 2 else second))
            sheet.fill(np.stack([tip, OCTAGON[i - 1], OCTAGON[i]]), (r, g, b))
    elif kind == "octagon":  # a tile, a window, a table: never red and empty, as a stop sign far off is
        ground = near(others[int(rng.choice([0, 1, 2, 4, 6]))], 20)
        sheet.fill(OCTAGON, white if rng.random() < 0.5 else near(ground, 40))
        sheet.fill(OCTAGON * np.float32(rng.uniform(0.84, 0.96)), ground)
        if rng.random() < 0.4:
            sheet.fill(OCTAGON * np.float32(rng.uniform(0.4, 0.7)), white)
    elif kind in ("advert", "banner"):
        wide, tall = (1.0, rng.uniform(0.5, 1.0)) if kind == "advert" else (1.0, rng.uniform(0.18, 0.34))
        ground, ink = (colour, white) if rng.random() < 0.6 else (white, colour)
        sheet.fill(_panel(wide, tall, corner=0.03), ground)
        lines = int(rng.integers(1, 4)) if kind == "advert" else 1
        for i in range(lines):
            y = (i + 0.5) / lines * 2 * tall - tall
            text = str(rng.choice(np.array(_WORDS)))
            size = min(tall / lines * rng.uniform(0.7, 1.4), 0.9)
            sheet.text(text, (0, y, min(1.8, size * len(text) * 0.8), size), ink, rng.uniform(0.14, 0.22))
        if kind == "advert" and rng.random() < 0.4:
            badge = _disc(rng.uniform(0.2, 0.45)) + floats([rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.3) * tall])
            sheet.fill(badge, near((240, 200, 40), 20) if rng.random() < 0.5 else ink)
    elif kind == "tail_lights":
        paints = ((40, 42, 48), (150, 152, 156), (200, 200, 202), (120, 20, 24), (30, 50, 90))
        paint = near(paints[int(rng.integers(5))], 12)
        sheet.fill(_panel(1, 0.52, corner=0.12), paint)
        sheet.fill(_panel(0.75, 0.2, -0.3, corner=0.08), (34, 40, 48))
        lit = near((255, 60, 48), 20) if rng.random() < 0.6 else near((150, 20, 24), 14)
        round_lamps = rng.random() < 0.4
        for side in (-1, 1):
            lamp = _disc(0.15) if round_lamps else _panel(0.16, rng.uniform(0.08, 0.2), corner=0.04)
            sheet.fill(lamp + floats([side * 0.78, 0.08]), lit)
            sheet.fill(lamp * np.float32(0.4) + floats([side * 0.78, 0.08]), near((255, 180, 150), 20))
        sheet.fill(_panel(0.26, 0.08, 0.22, corner=0.01), white)
    elif kind == "shop_front":
        sheet.fill(_panel(1, 1, corner=0.01), near((150, 130, 110), 40))
        sheet.fill(_panel(0.94, 0.2, -0.72, corner=0.01), colour)
        sheet.text(word, (0, -0.72, min(1.6, 0.3 * len(word)), 0.24), white, 0.18)
        for x in (-0.5, 0.5):
            sheet.fill(_panel(0.4, 0.55, 0.25, corner=0.01) + floats([x, 0]), near((60, 76, 90), 26))
            for _ in range(int(rng.integers(1, 5))):
                spot = floats([x + rng.uniform(-0.3, 0.3), rng.uniform(0, 0.7)])
                sheet.fill(_disc(rng.uniform(0.05, 0.14)) + spot, near((190, 120, 90), 60))
    elif kind == "screen":
        sheet.fill(_panel(1, 0.66, corner=0.03), near((26, 26, 28), 12))
        sheet.fill(_panel(0.94, 0.6, corner=0.01), near((150, 180, 220), 60))
        for _ in range(int(rng.integers(2, 7))):
            shift = floats([rng.uniform(-0.6, 0.6), rng.uniform(-0.35, 0.35)])
            shape = _panel(rng.uniform(0.06, 0.3), rng.uniform(0.05, 0.18), corner=0.01)
            sheet.fill((shape if rng.random() < 0.7 else _disc(0.15)) + shift, near(colour, 60))
    elif kind == "car":
        half = [(0, -0.8), (0.45, -0.8), (0.6, -0.55), (0.98, 0.0), (0.98, 0.62), (0, 0.62)]
        body = _rounded(half)
        sheet.fill(np.concatenate([body, body[::-1] * floats([-1, 1])]), colour)
        sheet.fill([(-0.5, -0.68), (0.5, -0.68), (0.7, -0.2), (-0.7, -0.2)], near((50, 60, 72), 18))
        sheet.fill(_panel(0.45, 0.13, 0.2, corner=0.05), near((30, 30, 34), 10))
        for side in (-1, 1):
            sheet.fill(_disc(0.14) * floats([1.2, 0.8]) + floats([side * 0.74, 0.14]), near((236, 232, 214), 14))
            sheet.fill(_panel(0.13, 0.17, 0.76, corner=0.04) + floats([side * 0.7, 0]), (24, 24, 26))
        sheet.fill(_panel(0.24, 0.07, 0.45, corner=0.01), white)
    else:  # a cup or a can
        width = rng.uniform(0.45, 0.65)
        for part in np.linspace(1, 0.1, 16):
            tone = np.clip(np.array(colour) * (1.2 - 0.65 * part), 0, 255).astype(int).tolist()
            wall = floats([(-width, -0.95), (width, -0.95), (width * 0.85, 0.95), (-width * 0.85, 0.95)])
            sheet.fill(wall * floats([part, 1]), (tone[0], tone[1], tone[2]))
        sheet.fill(_disc(width) * floats([1, 0.2]) + floats([0, -0.9]), white)
        sheet.text(word, (0, 0.1, width * 1.3, 0.3), white, 0.18)
    return sheet.levels()


def composite(
    canvas: Pixels,
    levels: Face,
    quad: Floats,
    gain: npt.NDArray[np.float32],
    haze: npt.NDArray[np.float32] | None = None,
) -> None:
    """Composite a face into a picture, in place.

    Args:
        canvas: (H, W, C) uint8; with C = 4, premultiplied RGBA.
        levels: the face.
        quad: (4, 2) positions of its corners, in px: top left, top right, bottom right, bottom left.
        gain: (3,) factor for each colour channel.
        haze: (3,) colour that is added where the face is opaque, or None.
    """
    height, width = canvas.shape[:2]
    x0, y0 = np.maximum(np.floor(quad.min(axis=0)), 0).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil(quad.max(axis=0)) + 1, (width, height)).astype(int).tolist()
    if x1 <= x0 or y1 <= y0:
        return
    edge = max(float(np.hypot(*(quad[1] - quad[0]))), float(np.hypot(*(quad[3] - quad[0]))))
    level = next((lv for lv in reversed(levels) if lv.shape[0] >= edge), levels[0])
    side = level.shape[0]
    # Pixel centres are at half-integers: without the offset, small signs would shift up and to the left.
    corners = floats([(0, 0), (side, 0), (side, side), (0, side)]) - np.float32(0.5)
    transform = cv2.getPerspectiveTransform(corners, (quad - floats([x0 + 0.5, y0 + 0.5])).astype(np.float32))
    warped = cv2.warpPerspective(level, transform, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    colours = np.zeros((canvas.shape[2], 4), np.float32)
    colours[[0, 1, 2], [0, 1, 2]] = gain
    if haze is not None:
        colours[:3, 3] = haze / 255
    if canvas.shape[2] == 4:
        colours[3, 3] = 1
    rest = cv2.merge([255 - warped[:, :, 3]] * canvas.shape[2])
    part = canvas[y0:y1, x0:x1]
    part[:] = cv2.add(cv2.multiply(part, rest, scale=1 / 255), cv2.transform(warped, colours))
