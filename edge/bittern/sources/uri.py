"""Helpers for a source's URI: which schemes are those of the network, sizes in it."""

from __future__ import annotations

import re

from bittern.errors import ConfigurationError

NETWORK = ("rtsp", "rtsps")  # schemes whose addresses are those of network cameras


def parse_size(text: str, option: str = "size") -> tuple[int, int]:
    """Parse a size such as "640x480": width and height in pixels, each from 32 to 8192.

    Args:
        text: the option's value.
        option: the option's name, for the error.

    Raises:
        ConfigurationError: not two whole numbers with an x between them, or out of range.
    """
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (32 <= width <= 8192 and 32 <= height <= 8192):
        raise ConfigurationError(f"{option} {text!r}: expected WIDTHxHEIGHT, each 32 to 8192, such as 640x480")
    return width, height
