"""Texts of a source's URI: what of it may be shown, and sizes in it."""

from __future__ import annotations

import re

from bittern.errors import ConfigurationError

NETWORK = ("rtsp", "rtsps")  # schemes whose addresses may carry a password


def shown(uri: str) -> str:
    """A URI as it may stand in logs and messages: without user, password and query if it goes over the network."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() not in NETWORK:
        return uri
    host, slash, path = rest.removeprefix("//").partition("/")
    if "@" in path:  # a password with a slash in it ends up there
        return f"{scheme.lower()}://..."
    return f"{scheme.lower()}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0].partition('#')[0]}"


def parse_size(text: str, what: str = "size") -> tuple[int, int]:
    """Width and height, in pixels, of a text such as "640x480"; each from 32 to 8192.

    Args:
        text: what was given.
        what: the option's name, for the error.

    Raises:
        ConfigurationError: not two whole numbers with an x between them, or out of range.
    """
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not (32 <= width <= 8192 and 32 <= height <= 8192):
        raise ConfigurationError(f"{what} {text!r}: expected WIDTHxHEIGHT, each 32 to 8192, such as 640x480")
    return width, height
