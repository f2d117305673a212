"""The orientation of a picture file is honoured in every format that has one, whatever OpenCV makes of it.

`make test-opencv` runs this with OpenCV 5 and 4.10. By itself 4.10 leaves a WebP lying on its side, and every version
does so where `Exif\\0\\0` stands before the block of a PNG or WebP.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import pytest
from tests.doubles.picture_files import (
    HEIGHT,
    WIDTH,
    avif_with_exif,
    corners,
    drawn,
    exif,
    jpeg_with_exif,
    png_with_exif,
    tiff_with_orientation,
    webp_with_exif,
)

from bittern.frames import Pixels
from bittern.model import picture_header, pictures

# What each value means for the four quarters red, green / blue, white (Exif 2.3, 4.6.4 A).
TURNED = {
    1: ["red", "green", "blue", "white"],
    2: ["green", "red", "white", "blue"],
    3: ["white", "blue", "green", "red"],
    4: ["blue", "white", "red", "green"],
    5: ["red", "blue", "green", "white"],
    6: ["blue", "red", "white", "green"],
    7: ["white", "green", "blue", "red"],
    8: ["green", "white", "red", "blue"],
}
PREFIX = b"Exif\0\0"


def avif_without_turn(orientation: int) -> bytes:
    """An AVIF file in which only the EXIF block knows the orientation."""
    return avif_with_exif(drawn(), exif(1, "<")).replace(exif(1, "<"), exif(orientation, "<"))


KINDS: dict[str, Callable[[int], bytes]] = {
    "JPEG": lambda orientation: jpeg_with_exif(drawn(), exif(orientation)),
    "JPEG, little endian": lambda orientation: jpeg_with_exif(drawn(), exif(orientation, "<")),
    "PNG": lambda orientation: png_with_exif(drawn(), exif(orientation)),
    "PNG, prefix": lambda orientation: png_with_exif(drawn(), PREFIX + exif(orientation, "<")),
    "WebP": lambda orientation: webp_with_exif(drawn(), exif(orientation)),
    "WebP, prefix": lambda orientation: webp_with_exif(drawn(), PREFIX + exif(orientation, "<")),
    "TIFF": lambda orientation: tiff_with_orientation(drawn(), orientation),
    "AVIF": lambda orientation: avif_with_exif(drawn(), exif(orientation)),
    "AVIF, only in the block": avif_without_turn,
}
needs_avif = pytest.mark.skipif(not cv2.haveImageWriter(".avif"), reason="this OpenCV has no AVIF (4.10's wheels)")
ROWS = [pytest.param(name, marks=needs_avif if name.startswith("AVIF") else ()) for name in KINDS]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ROWS)
def test_every_orientation_of_every_kind(name: str, orientation: int) -> None:
    data = KINDS[name](orientation)
    picture = pictures.decode_bytes(data, name)
    assert picture.shape[:2] == ((HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT))
    assert corners(picture) == TURNED[orientation]
    header = picture_header.read(data)
    assert header is not None
    assert (header.width, header.height) == (WIDTH, HEIGHT), "before the turn"


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
@pytest.mark.parametrize("name", ROWS)
def test_an_orientation_that_means_nothing_is_left_out(name: str, orientation: int) -> None:
    assert corners(pictures.decode_bytes(KINDS[name](orientation), name)) == TURNED[1]


@pytest.mark.parametrize("block", [b"", b"MM", b"MM\0*\xff\xff\xff\xff", exif(6)[:14], b"\0" * 40, PREFIX])
@pytest.mark.parametrize("put", [jpeg_with_exif, png_with_exif, webp_with_exif])
def test_a_broken_block_is_left_out(put: Callable[[Pixels, bytes], bytes], block: bytes) -> None:
    assert corners(pictures.decode_bytes(put(drawn(), block), "odd")) == TURNED[1]


def test_the_first_of_several_blocks_counts() -> None:
    twice = jpeg_with_exif(drawn(), exif(6))
    data = jpeg_with_exif(drawn(), exif(3))
    data = data[: 2 + 10 + len(exif(3))] + twice[2:]
    assert corners(pictures.decode_bytes(data, "two blocks")) == TURNED[3]
