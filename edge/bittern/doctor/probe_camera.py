"""The probe that opens the camera and checks a frame; a process of its own, because drivers may hang.

python -m bittern.doctor.probe_camera [red]; the URI comes on stdin, because it may hold a password.
"""

from __future__ import annotations

import functools
import sys
import time
from typing import TYPE_CHECKING, Any, Literal

from bittern.doctor.steps import take

if TYPE_CHECKING:
    from bittern.frames import Order, Pixels, Source

# The stop sign of the demonstration counts from this height, in pixels.
_SIGN_PX = 24
# How long to wait for that sign, and for something red in front of a camera.
DEMO_S = 10.0
HOLD_S = 15.0
# A colour has at least this saturation and brightness, and fills at least this part of the middle.
_SATURATION, _VALUE, _PART = 0.45, 0.25, 0.5

Primary = Literal["red", "blue"]


def main(uri: str, *, look_for_red: bool) -> None:
    """Run and print every step."""
    sources: list[Source] = []
    opened = take("open", functools.partial(_open, uri, sources))
    if opened is None:
        return
    with sources[0] as source:
        frame = take("frame", functools.partial(_frame, source))
        if frame is not None and opened["scheme"] == "demo":
            take("sign", functools.partial(_sign, source, uri))
        elif frame is not None and look_for_red:
            take("red", functools.partial(_red, source))


def _open(uri: str, sources: list[Source]) -> dict[str, Any]:
    from bittern.sources.registry import open_source

    source = open_source(uri)
    sources.append(source)
    # "format": the pixel format that libcamera chose, where the source has one.
    return {
        "name": source.name,
        "scheme": source.name.partition(":")[0],
        "live": source.live,
        "format": getattr(source, "pixel_format", None),
    }


def _frame(source: Source) -> dict[str, Any]:
    frame = source.read()
    if frame is None:
        raise RuntimeError("the source ended before its first frame")
    height, width = frame.pixels.shape[:2]
    return {"width": width, "height": height, "order": frame.order}


def _red(source: Source) -> dict[str, Any]:
    """The first clear colour in the middle of the picture within the next seconds."""
    deadline = time.monotonic() + HOLD_S
    while time.monotonic() < deadline:
        frame = source.read()
        if frame is None:
            break
        height, width = frame.pixels.shape[:2]
        middle = frame.pixels[height // 3 : -(height // 3), width // 3 : -(width // 3)]
        if (colour := colour_of(middle, frame.order)) is not None:
            return {"colour": colour}
    return {"colour": None}


def _sign(source: Source, uri: str) -> dict[str, Any]:
    """The colour of the demonstration's stop sign, whose position in the picture is known."""
    from urllib.parse import parse_qsl, urlsplit

    import msgspec

    from bittern.scene.street import Street
    from bittern.sources.demo import DemoSource
    from bittern.sources.uri import parse_size

    options = msgspec.convert(dict(parse_qsl(urlsplit(uri).query)), DemoSource.Options, strict=False)
    street = Street(options.seed, parse_size(options.size))
    deadline = time.monotonic() + DEMO_S
    while time.monotonic() < deadline and (frame := source.read()) is not None:
        box = street.render(frame.number / options.fps).sign
        if box is not None and box[3] >= _SIGN_PX:
            x, y, width, height = box
            # Letters and border are white, so the sign is only partly red.
            return {"colour": colour_of(frame.pixels[y : y + height, x : x + width], frame.order, part=0.25)}
    return {"colour": None}


def colour_of(pixels: Pixels, order: Order, part: float = _PART) -> Primary | None:
    """The colour of a picture.

    Args:
        pixels: (H, W, 3) uint8.
        order: channel order of the pixels.
        part: fraction of the pixels that must have the colour, 0 to 1.

    Returns:
        "red" or "blue" if enough pixels are a clear red or blue, and at least three times as many as of the other
        colour; else None. Hue and saturation are those of HSV.
    """
    import cv2
    import numpy as np

    hsv = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_BGR2HSV if order == "BGR" else cv2.COLOR_RGB2HSV)
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]  # hue in steps of 2 degrees
    clear = (saturation >= _SATURATION * 255) & (value >= _VALUE * 255)
    red = float((clear & ((hue <= 12) | (hue >= 165))).mean())
    # With red and blue swapped, red becomes blue: 240 degrees minus the hue.
    blue = float((clear & (hue >= 108) & (hue <= 135)).mean())
    if red >= part and red >= 3 * blue:
        return "red"
    if blue >= part and blue >= 3 * red:
        return "blue"
    return None


if __name__ == "__main__":
    main(sys.stdin.read(), look_for_red=sys.argv[1:] == ["red"])
