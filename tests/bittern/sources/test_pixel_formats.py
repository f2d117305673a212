"""The conversion of libcamera's pixel formats, driven by pictures whose colours are known."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from tests.doubles.picamera2_double import array_of, picture

from bittern.errors import SourceError
from bittern.sources.pixel_formats import KNOWN_FORMATS, to_pixels

YUV = [name for name in KNOWN_FORMATS if "888" not in name and name != "MJPEG"]
FULL_RGB = {"RGB888": "BGR", "BGR888": "RGB", "XRGB8888": "BGR", "XBGR8888": "RGB", "MJPEG": "RGB"}


@st.composite
def blocky(draw: st.DrawFn) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H, W, 3) R, G, B, even, of blocks of 2 x 2 equal pixels: what halved chroma can carry."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return rgb.repeat(2, axis=0).repeat(2, axis=1)


@given(rgb=blocky(), name=st.sampled_from(YUV), padding=st.integers(0, 8).map(lambda n: 2 * n))
def test_yuv_comes_back_as_the_picture_that_it_was(
    rgb: np.ndarray[Any, np.dtype[np.uint8]], name: str, padding: int
) -> None:
    height, width = rgb.shape[:2]
    pixels, order = to_pixels(array_of(rgb, name, padding), name, (width, height))
    assert order == "BGR"
    assert pixels.shape == rgb.shape
    assert pixels.flags.c_contiguous
    # Rounding of Y, U and V to 8 bits of limited range costs up to 2.4 steps, the conversion's own rounding 1.
    assert np.abs(pixels[..., ::-1].astype(int) - rgb).max() <= 4


@given(rgb=blocky(), name=st.sampled_from(sorted(FULL_RGB)), padding=st.integers(0, 9), flat=st.booleans())
def test_rgb_is_kept_to_the_byte(rgb: np.ndarray[Any, np.dtype[np.uint8]], name: str, padding: int, flat: bool) -> None:
    height, width = rgb.shape[:2]
    array = array_of(rgb, name)
    if flat:  # rows of bytes, padding and all
        array = np.pad(array.reshape(height, -1), ((0, 0), (0, padding)), constant_values=7)
    pixels, order = to_pixels(array, name, (width, height))
    assert order == FULL_RGB[name]
    assert pixels.flags.c_contiguous
    assert (pixels == (rgb if order == "RGB" else rgb[..., ::-1])).all()


@pytest.mark.parametrize("name", KNOWN_FORMATS)
def test_an_array_that_does_not_fit_is_refused(name: str) -> None:
    array = array_of(picture((64, 48)), name)
    wrongs: list[Any] = [array[:-1], array[:, :-2], array.astype(np.uint16), array.reshape(-1), array[:0]]
    for wrong in wrongs:
        with pytest.raises(SourceError, match="expected uint8"):
            to_pixels(wrong, name, (64, 48))


@pytest.mark.parametrize("name", YUV)
def test_odd_sizes_of_yuv_are_refused(name: str) -> None:
    with pytest.raises(SourceError, match="even sizes"):
        to_pixels(np.zeros((72, 64, 2), np.uint8), name, (33, 48))


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(SourceError, match=r"SRGGB10_CSI2P.*NV12"):
        to_pixels(np.zeros((48, 80), np.uint8), "SRGGB10_CSI2P", (64, 48))
