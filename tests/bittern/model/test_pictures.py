"""Picture files as they come: every format and kind, the right way up and in the right colours."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.picture_files import (
    ALL,
    FORMATS,
    FOUR,
    HEIGHT,
    WIDTH,
    corners,
    drawn,
    encode,
    exif,
    jpeg_with_exif,
    noise,
    png,
    refused,
)

from bittern.errors import PictureError
from bittern.model import picture_header, pictures


def size_of(data: bytes) -> tuple[int, int]:
    header = picture_header.read(data)
    assert header is not None
    return header.width, header.height


@pytest.mark.parametrize("name", ALL)
def test_what_is_red_is_red(name: str, tmp_path: Path) -> None:
    data = FORMATS[name]()
    picture = pictures.decode_bytes(data, name)
    assert picture.dtype == np.uint8
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert corners(picture) == FOUR
    file = tmp_path / "picture"
    file.write_bytes(data)
    assert np.array_equal(pictures.decode(file), picture), "from a file as from memory"


@pytest.mark.parametrize("name", ALL)
def test_the_header_says_the_size_that_is_decoded(name: str) -> None:
    assert size_of(FORMATS[name]()) == (WIDTH, HEIGHT)


SUFFIXES_OF_SIZE = (".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm", ".pgm")


@given(st.sampled_from(SUFFIXES_OF_SIZE), st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_header_size_agrees_with_opencv(suffix: str, width: int, height: int, grey: bool) -> None:
    grey = suffix == ".pgm" or (grey and suffix != ".ppm")
    shape = (height, width) if grey else (height, width, 3)
    data = encode(suffix, np.full(shape, 99, np.uint8))
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    assert size_of(data) == (decoded.shape[1], decoded.shape[0]) == (width, height)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff", ".pgm"])
def test_grey_gets_three_equal_channels(suffix: str) -> None:
    grey = np.tile(np.arange(0, 240, 5).astype(np.uint8), (HEIGHT, 1))
    picture = pictures.decode_bytes(encode(suffix, grey), "grey")
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert np.array_equal(picture[:, :, 0], picture[:, :, 1])
    assert np.array_equal(picture[:, :, 0], picture[:, :, 2])
    assert np.abs(picture[:, :, 0].astype(int) - grey).max() <= 3


def test_sixteen_bits_keep_the_upper_eight() -> None:
    deep = np.arange(WIDTH * HEIGHT * 3, dtype=np.uint16).reshape(HEIGHT, WIDTH, 3) * 14
    picture = pictures.decode_bytes(encode(".png", deep), "deep")
    assert np.abs(picture.astype(int) - deep / 257).max() <= 1


def test_one_bit_png() -> None:
    rows = b"".join(b"\0" + bytes([0b11110000]) for _ in range(8))
    picture = pictures.decode_bytes(png(8, 8, 1, 0, rows), "one bit")
    assert picture[0, :, 0].tolist() == [255] * 4 + [0] * 4


# --- EXIF ------------------------------------------------------------------------------------------------------------


def test_a_preview_in_the_exif_block_is_not_the_picture() -> None:
    preview = encode(".jpg", np.zeros((8, 8, 3), np.uint8))
    data = jpeg_with_exif(drawn(), exif(1) + preview)
    assert size_of(data) == (WIDTH, HEIGHT)
    assert corners(pictures.decode_bytes(data, "with preview")) == FOUR
    refused(data[: len(data) * 3 // 4], "broken picture")


def test_a_pipe_has_no_size_but_a_picture(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    data = encode(".png", noise(400, 300))
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    picture = pictures.decode(pipe)
    writer.join()
    assert len(data) > 2**16, "more than a pipe holds"
    assert np.array_equal(picture, noise(400, 300))


def test_of_a_file_over_the_limit_no_more_is_read(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(PictureError, match="64 MiB"):
        pictures.decode(large)


@pytest.mark.parametrize("suffix", [".pam", ".ras", ".hdr"])
def test_what_else_opencv_reads_keeps_its_colours(suffix: str) -> None:
    source = drawn().astype(np.float32) / 255 if suffix == ".hdr" else drawn()
    ok, data = cv2.imencode(suffix, source)
    assert ok
    assert corners(pictures.decode_bytes(data.tobytes(), suffix)) == FOUR


def test_pictures_without_a_range_are_not_guessed() -> None:
    ok, data = cv2.imencode(".pfm", drawn().astype(np.float32) / 255)
    assert ok
    refused(data.tobytes(), "is PFM: save it as JPEG or PNG")


@pytest.mark.parametrize(
    "data",
    [
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 60000 +X 60000\n" + bytes(1000),
        b"P7\nWIDTH 60000\nHEIGHT 60000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(100),
        b"\x59\xa6\x6a\x95" + bytes.fromhex("0000ea60 0000ea60 00000018 00000000 00000001 00000000 00000000"),
    ],
    ids=["Radiance HDR", "PAM", "Sun raster"],
)
def test_formats_whose_header_only_opencv_reads_have_a_limit_too(data: bytes) -> None:
    refused(data, "more pixels than the limit|broken picture|memory")


@pytest.mark.parametrize(
    ("at_least", "size"), [(None, 1600), (1600, 1600), (801, 1600), (800, 800), (192, 200), (1, 200)]
)
def test_a_jpeg_may_be_decoded_smaller_for_a_thumbnail(at_least: int | None, size: int) -> None:
    picture = cv2.resize(drawn(), (1200, 1600), interpolation=cv2.INTER_NEAREST)
    data = jpeg_with_exif(picture, exif(6))
    small = pictures.decode_bytes(data, "thumbnail", at_least=at_least)
    assert small.shape == (size * 3 // 4, size, 3)
    assert corners(small) == corners(pictures.decode_bytes(data, "whole"))


def test_only_a_jpeg_is_decoded_smaller() -> None:
    data = encode(".png", drawn())
    assert pictures.decode_bytes(data, "thumbnail", at_least=1).shape == (HEIGHT, WIDTH, 3)


def test_a_jpeg_above_the_usual_limit_is_decoded_at_a_part_of_its_size() -> None:
    large = encode(".jpg", np.full((7200, 7300), 90, np.uint8))
    with pytest.raises(picture_header.TooManyPixels, match="7300 x 7200 is more than the limit of 50"):
        pictures.decode_bytes(large, "x.jpg")
    picture = pictures.decode_bytes(large, "x.jpg", max_pixels=60_000_000)
    assert picture.shape == (3600, 3650, 3)
    assert int(picture[1800, 1800, 0]) == 90
