"""Signs drawn into photographs, lit and blurred like the photograph: augmentation for training."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from bittern.frames import Pixels
from bittern.scene.signs import DECOYS, OTHERS, Floats, composite, floats, variant_of


def paste_sign(rng: np.random.Generator, picture: Pixels, *, stop: bool) -> Pixels:
    """A copy of a photograph, (H, W, 3) uint8 RGB, with a drawn sign on a post inside the centred square.

    The sign is a stop sign, or any other kind if `stop` is false, 28 to 180 px high where the picture's short side is
    288 px; one stop sign in four is as high as 0.6 to 1 of that side, or a part of it is cut by the edge. It is turned
    in space, weathered, lit like the bright parts of the picture, and as sharp and as noisy as it.

    Raises:
        ValueError: the short side is below 32 px.
    """
    height, width, short = _size(picture)
    px = float(short * np.exp(rng.uniform(np.log(28 / 288), np.log(180 / 288))))
    reach, beyond = max(short * 0.48 - px / 2, 1.0), rng.random() if stop else 1.0
    if beyond < 0.125:  # close by
        px = float(short * rng.uniform(0.6, 1.0))
        reach = short * 0.06 + max(short * 0.5 - px / 2, 0)
    elif beyond < 0.25:  # at the edge, at least three quarters of it in the square
        reach = short * 0.5 - px / 4
    cx, cy = width / 2 + rng.uniform(-1, 1) * reach, height / 2 + rng.uniform(-1, 0.8) * reach
    layer = np.zeros((height, width, 4), np.uint8)
    quad = _turned(rng, px) + floats([cx, cy])
    _post(rng, layer, quad, px)
    if rng.random() < 0.3:
        _plate(rng, layer, quad)
    one = np.ones(3, np.float32)
    composite(layer, variant_of(rng, "stop" if stop else str(rng.choice(np.array(OTHERS)))), quad, one)
    return _blended(rng, picture, layer, (cx, cy), px)


def paste_decoy(rng: np.random.Generator, picture: Pixels) -> Pixels:
    """A copy of a photograph, (H, W, 3) uint8 RGB, with something drawn that is no stop sign, see `DECOYS`.

    It is 0.12 to 1.6 times as high as the centred square, and the edge may cut it: its middle is in that square. One in
    three is a sign of another kind.

    Raises:
        ValueError: the short side is below 32 px.
    """
    height, width, short = _size(picture)
    layer = np.zeros((height, width, 4), np.uint8)
    px = float(short * np.exp(rng.uniform(np.log(0.12), np.log(1.6))))
    cx, cy = width / 2 + rng.uniform(-0.5, 0.5) * short, height / 2 + rng.uniform(-0.5, 0.5) * short
    quad = _turned(rng, px) + floats([cx, cy])
    kind = str(rng.choice(np.array(OTHERS if rng.random() < 0.35 else DECOYS)))
    composite(layer, variant_of(rng, kind), quad, np.ones(3, np.float32))
    return _blended(rng, picture, layer, (cx, cy), px)


def _size(picture: Pixels) -> tuple[int, int, int]:
    height, width = picture.shape[:2]
    short = min(height, width)
    if short < 32:
        raise ValueError(f"expected a picture of at least 32 x 32 px, got {width} x {height}")
    return height, width, short


def _blended(
    rng: np.random.Generator, picture: Pixels, layer: Pixels, middle: tuple[float, float], px: float
) -> Pixels:
    """A layer (H, W, 4) of something drawn, about `px` high around `middle`, over a copy of a picture."""
    height, width = picture.shape[:2]
    # Work on the part of the layer that has something on it.
    x0, x1 = _extent(layer.max(axis=(0, 2)), width)
    y0, y1 = _extent(layer.max(axis=(1, 2)), height)
    part = layer[y0:y1, x0:x1].astype(np.float32)
    alpha = part[:, :, 3:] / np.float32(255)
    colour = part[:, :, :3] / np.maximum(alpha, np.float32(1 / 255))
    centre = (middle[0] - x0, middle[1] - y0)
    colour = _weathered(rng, colour, centre, px)
    colour = _lit(rng, colour, picture, centre, px)
    if rng.random() < 0.2:
        alpha = alpha * _leaves(rng, alpha.shape[:2], centre, px)
    sigma = _blur(rng, picture, px)
    both = np.concatenate([colour * alpha, alpha], axis=2)
    if sigma > 0.25:
        both = cv2.GaussianBlur(both, (0, 0), sigma)
    noise = _noise(picture) * rng.uniform(0.5, 1.3) + rng.uniform(0, 2.5)
    grain = rng.standard_normal((*both.shape[:2], 1), np.float32) * np.float32(noise)
    out = picture.copy()
    under = out[y0:y1, x0:x1]
    under[:] = np.clip(under * (1 - both[:, :, 3:]) + both[:, :, :3] + grain * both[:, :, 3:], 0, 255)
    return out


def _extent(used: npt.NDArray[np.uint8], size: int) -> tuple[int, int]:
    indices = np.flatnonzero(used)
    margin = 6
    return (max(int(indices[0]) - margin, 0), min(int(indices[-1]) + 1 + margin, size)) if len(indices) else (0, size)


def _turned(rng: np.random.Generator, px: float) -> Floats:
    """A square of `px` turned in space about three axes, seen from some sides away; (4, 2) px around 0."""
    yaw = rng.normal(0, 0.16) if rng.random() < 0.7 else rng.uniform(-0.95, 0.95)
    pitch, roll = rng.normal(0, 0.1), rng.normal(0, 0.06) if rng.random() < 0.85 else rng.uniform(-0.4, 0.4)
    flat = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    c, s = np.cos(roll), np.sin(roll)
    flat = flat @ np.array([[c, s], [-s, c]])
    x, depth = flat[:, 0] * np.cos(yaw), flat[:, 0] * np.sin(yaw)
    y, depth = flat[:, 1] * np.cos(pitch), depth + flat[:, 1] * np.sin(pitch)
    away = rng.uniform(1.8, 8)
    projected = np.stack([x, y], axis=1) * (away / (away + depth))[:, None]
    return floats(projected * px)


def _post(rng: np.random.Generator, layer: Pixels, quad: Floats, px: float) -> None:
    if rng.random() < 0.08:
        return  # hung, or held from behind
    height = layer.shape[0]
    down = (quad[2] + quad[3] - quad[0] - quad[1]) / 2
    down = down / max(float(np.hypot(*down)), 1e-6)
    across = np.array([down[1], -down[0]])
    middle = quad.mean(axis=0)
    kind = int(rng.integers(5))
    colour = np.array([(150, 152, 156), (112, 86, 60), (62, 92, 70), (60, 60, 64), (176, 40, 40)][kind], np.float64)
    half = px * (rng.uniform(0.04, 0.07) if kind == 1 else rng.uniform(0.02, 0.045))
    top = middle - down * px * (rng.uniform(0.3, 0.75) if rng.random() < 0.4 else 0.2)
    foot = middle + down * (height * 1.3 if rng.random() < 0.75 else px * rng.uniform(1.2, 3.5))
    light = rng.uniform(-1, 1)
    # A round post: a strip of shades, the brightest where the light comes from.
    shade = 1.1 - 0.5 * np.abs(np.linspace(-1, 1, 16) - light)
    strip = np.empty((16, 16, 4), np.uint8)
    strip[..., :3] = (colour * shade[:, None]).clip(0, 255)
    strip[..., 3] = 255
    corners = [top - across * half, top + across * half, foot + across * half, foot - across * half]
    composite(layer, (strip,), floats(corners), np.ones(3, np.float32))


def _plate(rng: np.random.Generator, layer: Pixels, quad: Floats) -> None:
    """A second plate above or below the sign."""
    kind = str(rng.choice(["street_name", "wrong_way", "one_way", "street_name"]))
    down, across = (quad[3] - quad[0] + quad[2] - quad[1]) / 2, (quad[1] - quad[0] + quad[2] - quad[3]) / 2
    above = kind == "street_name"
    middle = quad.mean(axis=0) + down * (-rng.uniform(0.62, 0.72) if above else rng.uniform(0.68, 0.8))
    scale = rng.uniform(0.5, 0.75) if above else rng.uniform(0.25, 0.4)
    corner = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * scale
    composite(
        layer,
        variant_of(rng, kind),
        (middle + corner[:, :1] * across + corner[:, 1:] * down).astype(np.float32),
        np.ones(3, np.float32),
    )


def _field(rng: np.random.Generator, shape: tuple[int, ...], cell: float) -> Floats:
    """Soft noise, 0..1, with blotches of about `cell` px."""
    rows, cols = (max(int(n / max(cell, 1)) + 2, 2) for n in shape[:2])
    grid = rng.random((rows, cols), np.float32)
    soft: Floats = cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return soft


def _weathered(rng: np.random.Generator, colour: Floats, centre: tuple[float, float], px: float) -> Floats:
    """Faded, dirty, scratched paint. (H, W, 3) in 0..255."""
    fade = rng.beta(1, 4)
    tired = np.array([200, 110, 100] if rng.random() < 0.6 else [190, 150, 150], np.float32)
    # White stays white: it is the red that bleaches.
    paint = 1 - colour.min(axis=2, keepdims=True) / 255
    colour = colour + (tired - colour) * (np.float32(fade * 0.6) * paint)
    grey = colour.mean(axis=2, keepdims=True)
    colour = grey + (colour - grey) * np.float32(rng.uniform(0.7, 1.1))
    if rng.random() < 0.5:
        dirt = _field(rng, colour.shape, px / rng.uniform(2, 10)) * _field(rng, colour.shape, px / 3)
        strength = np.float32(rng.uniform(0.1, 0.6))
        colour = colour * (1 - strength * dirt[..., None].clip(0, 1))
    if rng.random() < 0.15:
        colour = colour.copy()
        for _ in range(int(rng.integers(1, 5))):
            spot = np.array(centre) + rng.normal(0, px * 0.2, 2)
            size = max(int(px * rng.uniform(0.01, 0.07)), 1)
            tone = rng.uniform(40, 240, 3).tolist()
            cv2.circle(colour, (int(spot[0]), int(spot[1])), size, tone, -1)
    return colour


def _lit(rng: np.random.Generator, colour: Floats, picture: Pixels, centre: tuple[float, float], px: float) -> Floats:
    """As bright and tinted as the bright parts of the picture, with a gradient, perhaps shadow or glare."""
    small = cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
    luma = small.mean(axis=1)
    bright = small[luma >= np.percentile(luma, 75)].mean(axis=0)
    level = float(bright.mean())
    gain = np.clip(level / 225, 0.3, 1.1) * rng.uniform(0.6, 1.15)
    if rng.random() < 0.08:
        gain = rng.uniform(0.9, 1.3)  # lit by a flash or by headlights
    # The 16 keeps a sign in a black picture from vanishing.
    cast = ((bright + 16) / (level + 16)) ** np.float32(rng.uniform(0.2, 0.8)) * rng.uniform(0.95, 1.05, 3)
    colour = colour * (gain * cast).astype(np.float32)
    lift = np.float32(rng.uniform(0, 0.12) * np.percentile(luma, 10))
    colour = colour + lift
    height, width = colour.shape[:2]
    x = (np.arange(width, dtype=np.float32) - np.float32(centre[0])) / np.float32(px)
    y = (np.arange(height, dtype=np.float32) - np.float32(centre[1])) / np.float32(px)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (x[None, :] * np.float32(np.cos(angle)) + y[:, None] * np.float32(np.sin(angle))).clip(-1, 1)
    colour = colour * (1 + np.float32(rng.uniform(0, 0.3)) * ramp)[..., None]
    if rng.random() < 0.3:
        if rng.random() < 0.5:  # the edge of a shadow
            shadow = ((ramp - np.float32(rng.uniform(-0.4, 0.4))) * np.float32(rng.uniform(4, 40)) + 0.5).clip(0, 1)
        else:  # the shadow of leaves
            shadow = ((_field(rng, colour.shape, px / rng.uniform(3, 8)) - 0.5) * 6 + 0.5).clip(0, 1)
        colour = colour * (1 - np.float32(rng.uniform(0.25, 0.6)) * shadow)[..., None]
    if rng.random() < 0.15:
        gx, gy = rng.uniform(-0.4, 0.4, 2)
        spot = np.exp(-((x[None, :] - gx) ** 2 + (y[:, None] - gy) ** 2) / rng.uniform(0.02, 0.3))
        colour = colour + np.float32(rng.uniform(40, 150)) * spot[..., None].astype(np.float32)
    if rng.random() < 0.5:
        bent = np.power(colour.clip(0, 255) / 255, np.float32(rng.uniform(0.75, 1.35))) * 255
        colour = bent.astype(np.float32)
    return colour.clip(0, 255)


def _leaves(rng: np.random.Generator, shape: tuple[int, ...], centre: tuple[float, float], px: float) -> Floats:
    """Holes where the photograph stays in front of the sign, (H, W, 1) in 0..1; the middle stays whole."""
    x = (np.arange(shape[1], dtype=np.float32) - np.float32(centre[0])) / np.float32(px)
    y = (np.arange(shape[0], dtype=np.float32) - np.float32(centre[1])) / np.float32(px)
    angle = rng.uniform(0, 2 * np.pi)
    outward = x[None, :] * np.float32(np.cos(angle)) + y[:, None] * np.float32(np.sin(angle))
    holes = (_field(rng, shape, px / 9) - 0.5) * 4 + (outward - 0.3) * 8
    return (1 - holes.clip(0, 1))[..., None].astype(np.float32)


def _blur(rng: np.random.Generator, picture: Pixels, px: float) -> float:
    """The sigma, in px, that makes the sign about as soft as the picture's sharpest edges."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    step = np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=1))
    coarse = np.abs(grey[:, 4:] - grey[:, :-4])
    # A step edge of width sigma: steepest difference over 2 px against the whole height of the step.
    sharp = float(np.percentile(step, 99)) / max(float(np.percentile(coarse, 99)), 1.0)
    sigma = float(np.clip(0.8 / max(sharp, 0.2) - 0.55, 0.3, 2.5)) * rng.uniform(0.7, 1.3)
    if rng.random() < 0.1:
        sigma += rng.uniform(0.5, 1.5)
    return min(sigma, px / 24)


def _noise(picture: Pixels) -> float:
    """The spread of the picture's noise (Immerkaer 1996, by the median, so that edges count little)."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    kernel = floats([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    response = np.abs(cv2.filter2D(grey, cv2.CV_32F, kernel))
    return min(float(np.median(response)) / (6 * 0.6745), 12.0)
