"""Clips in which it is known what happens: a street that stands still, as a noisy camera sees it, and a sign in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import cv2
import numpy as np

from bittern.frames import Frame, Pixels
from bittern.scene.street import Street

FPS = 5
SIZE = (640, 480)


def frames(pictures: Iterator[Pixels], fps: float = FPS) -> Iterator[Frame]:
    """RGB pictures as frames of a recorded source."""
    for number, picture in enumerate(pictures):
        now = round(number / fps * 1e9)
        yield Frame(picture, "RGB", now, now, number, "script")


def driven(seed: int, laps: int = 1) -> Iterator[Pixels]:
    """The drawn street from a moving car."""
    street = Street(seed, SIZE)
    for number in range(round(street.lap_s * FPS) * laps):
        yield street.render(number / FPS).pixels


@cache
def sign_of(seed: int, height: int) -> Pixels:
    """The street's own stop sign with what is behind it, about so many px high (H, W, 3), in its light and weather."""
    street = Street(seed, SIZE)
    best: tuple[float, Pixels] | None = None
    for ms in range(4000, 11000, 100):
        view = street.render(ms / 1000)
        if view.sign is not None:
            x, y, w, h = view.sign
            whole = x > 0 and y > 0 and x + w < SIZE[0] and y + h < SIZE[1]
            if whole and (best is None or abs(h - height) < best[0]):
                best = abs(h - height), view.pixels[y : y + h, x : x + w]
    assert best is not None, f"street {seed} shows no whole sign"
    width = round(best[1].shape[1] * height / best[1].shape[0])
    return np.asarray(cv2.resize(best[1], (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def still(
    seed: int,
    seconds: float,
    shows_sign: Callable[[float], bool],
    *,
    sign_px: int,
    at: tuple[int, int],
    noise: float = 0.0,
    drift: float = 0.0,
    jpeg: int | None = None,
) -> Iterator[Pixels]:
    """A street that stands still, with its own stop sign put in and taken out.

    Args:
        seed: of street and noise.
        seconds: how long.
        there: whether the sign is there at a moment, in s.
        sign_px: its height.
        at: its left upper corner, in px.
        noise: standard deviation of every value of every frame, in grey levels.
        drift: how much brighter it gets, in grey levels a second.
        jpeg: the quality at which each frame is compressed, as by a network camera.
    """
    rng = np.random.default_rng(seed)
    empty = Street(seed, SIZE).render(0.3).pixels
    sign = sign_of(seed, sign_px)
    mask = np.zeros(sign.shape[:2], np.uint8)
    h, w = sign.shape[:2]
    corners = [(0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3)]
    cv2.fillPoly(mask, [np.array([(round(x * (w - 1)), round(y * (h - 1))) for x, y in corners])], 1)
    full = empty.copy()
    place = full[at[1] : at[1] + h, at[0] : at[0] + w]
    place[mask > 0] = sign[mask > 0]
    for number in range(round(seconds * FPS)):
        t = number / FPS
        picture = (full if shows_sign(t) else empty).astype(np.float32) + np.float32(drift * t)
        if noise:
            picture += rng.standard_normal(picture.shape, np.float32) * np.float32(noise)
        frame = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
        if jpeg is not None:
            frame = cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, jpeg])[1], cv2.IMREAD_COLOR)
        yield np.asarray(frame, np.uint8)
