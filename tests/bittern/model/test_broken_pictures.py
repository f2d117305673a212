"""Broken, huge and hostile picture files: one line, bounded time and memory, and ten thousand mutated ones."""

from __future__ import annotations

import os
import random
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.doubles.picture_files import (
    CUT,
    FORMATS,
    HEIGHT,
    WIDTH,
    animated_webp,
    big_endian_tiff,
    cmyk_jpeg,
    drawn,
    encode,
    exif,
    gif,
    jpeg_with_exif,
    mutate,
    needs_gif,
    noise,
    os2_bmp,
    palette_png,
    png,
    refused,
)
from tests.doubles.repetitions import examples

from bittern.errors import PictureError
from bittern.model import pictures


@pytest.mark.parametrize("name", [pytest.param(n, marks=needs_gif if n == "gif" else ()) for n in CUT])
def test_a_truncated_file_is_refused_wherever_it_is_cut(name: str) -> None:
    data = CUT[name]()
    pictures.decode_bytes(data, name)
    for length in sorted({*range(1, 60), *(len(data) * part // 40 for part in range(1, 40)), len(data) - 10}):
        message = refused(data[:length])
        assert "not a picture" in message or "broken picture" in message, f"cut at {length}: {message}"


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    for data in (
        b"one, two, three\n" * 99,
        b"\0" * 500,
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" * 20,
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"PK\x03\x04" + bytes(200),
        random.Random(3).randbytes(4000),
        b"BM",
        b"\xff\xd8\xff",
        b"GIF8",
        b"P6",
        b"RIFF\x10\0\0\0WAVEfmt ",
    ):
        refused(data, "not a picture that can be read")
    refused(b"", "the file is empty")


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "absent.jpg", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(PictureError, match=says) as caught:
            pictures.decode(path)
        assert str(path) in str(caught.value)
    with pytest.raises(PictureError, match="too long"):
        pictures.decode(tmp_path / ("a" * 300))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    file = tmp_path / "locked.jpg"
    file.write_bytes(FORMATS["jpeg"]())
    file.chmod(0)
    with pytest.raises(PictureError, match="Permission denied"):
        pictures.decode(file)


def test_the_limit_on_bytes(tmp_path: Path) -> None:
    data = FORMATS["png"]()
    assert pictures.decode_bytes(data, "fits", max_bytes=len(data)).shape == (HEIGHT, WIDTH, 3)
    refused(data, "larger than the limit", max_bytes=len(data) - 1)
    sparse = tmp_path / "huge.jpg"
    with sparse.open("wb") as file:
        file.truncate(10 * 2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PictureError, match="larger than the limit of 64 MiB"):
        pictures.decode(sparse)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "no more than the limit is read"


def test_the_limit_on_pixels_is_inclusive() -> None:
    data = FORMATS["png"]()
    assert pictures.decode_bytes(data, "fits", max_pixels=WIDTH * HEIGHT).shape == (HEIGHT, WIDTH, 3)
    refused(data, "48 x 32 is more than the limit", max_pixels=WIDTH * HEIGHT - 1)


def huge() -> dict[str, bytes]:
    side = 60_000
    jpeg = bytearray(FORMATS["jpeg"]())
    position = jpeg.index(b"\xff\xc0")
    jpeg[position + 5 : position + 9] = struct.pack(">HH", side, side)
    webp = bytearray(animated_webp([drawn()]))
    webp[24:30] = (side - 1).to_bytes(3, "little") * 2
    bmp = bytearray(FORMATS["bmp"]())
    bmp[18:26] = struct.pack("<ii", side, side)
    upside = bytearray(bmp)
    upside[22:26] = struct.pack("<i", -side)
    tiff = bytearray(big_endian_tiff(drawn()))
    tiff[18:20] = tiff[32:34] = struct.pack(">H", side)
    tiff[30:34] = struct.pack(">I", side)
    gif_file = bytearray(gif([drawn()]))
    gif_file[6:10] = struct.pack("<HH", side, side)
    return {
        "jpeg": bytes(jpeg),
        "png": png(side, side, 8, 2, bytes(9999)),
        "webp": bytes(webp),
        "bmp": bytes(bmp),
        "bmp, top down": bytes(upside),
        "tiff": bytes(tiff),
        "gif": bytes(gif_file),
        "ppm": b"P6\n60000 60000\n255\n" + bytes(99),
    }


@pytest.mark.parametrize("name", huge())
def test_a_huge_header_is_refused_before_decoding(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(huge()[name], "60000 x 60000 is more than the limit of 50 megapixels")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, "memory grew by less than 20 MB"


def test_sizes_of_nothing_are_refused() -> None:
    refused(b"P6\n0 5\n255\n", "0 x 5 pixels")
    refused(b"P6\n-3 5\n255\n", "-3 x 5 pixels")
    refused(png(0, 3, 8, 2, b"\0"), "0 x 3 pixels")


def test_find(tmp_path: Path) -> None:
    for name in ("b/c.JPG", "a.png", "d.txt", ".hidden/e.png", ".f.png", "g.webp", "dir.png/h.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    paths = [path.relative_to(tmp_path).as_posix() for path in pictures.find(tmp_path)]
    assert paths == ["a.png", "b/c.JPG", "dir.png/h.gif", "g.webp"]
    assert pictures.find(tmp_path / ".hidden") == [tmp_path / ".hidden/e.png"], "asked for by name, it is not hidden"


def test_broken_files_leave_no_noise_on_the_screen(tmp_path: Path) -> None:
    """In a process of its own, because codecs write past Python to file descriptor 2."""
    rng = random.Random(5)
    for number, (name, make) in enumerate(CUT.items()):
        whole = make()
        for i, length in enumerate((len(whole) // 2, len(whole) * 9 // 10)):
            (tmp_path / f"{number}-cut{i}").write_bytes(whole[:length])
        for i in range(10):
            (tmp_path / f"{number}-mutated{i}").write_bytes(mutate(rng, whole, [whole]))
        assert name
    program = (
        "import sys\n"
        "from bittern.model import pictures\n"
        "from bittern.errors import PictureError\n"
        "for path in sys.argv[1:]:\n"
        "    try: pictures.decode(path)\n"
        "    except PictureError: pass\n"
    )
    paths = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True)
    assert done.stderr == ""


# --- fuzz ------------------------------------------------------------------------------------------------------------


FUZZ = examples(10_500)
ONE_S = 2.0  # of the processor, for one picture


@pytest.mark.fuzz
def test_mutated_pictures_decode_or_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    small = noise(24, 16)
    seeds = [
        encode(".jpg", small),
        encode(".jpg", small, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        jpeg_with_exif(small, exif(6)),
        cmyk_jpeg(drawn(16, 16)),
        encode(".png", small),
        palette_png(),
        encode(".png", small.astype(np.uint16) * 257),
        encode(".webp", small, cv2.IMWRITE_WEBP_QUALITY, 80),
        encode(".webp", small, cv2.IMWRITE_WEBP_QUALITY, 101),
        animated_webp([small, small]),
        encode(".bmp", small),
        os2_bmp(small),
        gif([small, small]),
        encode(".tiff", small),
        big_endian_tiff(small),
        encode(".ppm", small),
    ]
    rng = random.Random(20)
    decoded, slowest, messages = 0, 0.0, []
    for number in range(FUZZ):
        data = mutate(rng, seeds[number % len(seeds)], seeds)
        start = time.process_time()
        try:
            # A limit of a tenth of a megapixel: what is tested is the way through, not how fast memory can be filled.
            picture = pictures.decode_bytes(data, "fuzzed", max_pixels=100_000)
        except PictureError as error:
            messages.append(str(error))
        else:
            decoded += 1
            assert picture.ndim == 3
            assert picture.shape[2] == 3
            assert picture.dtype == np.uint8
            assert 0 < picture.shape[0] * picture.shape[1] <= 100_000, "no larger than its header said"
        slowest = max(slowest, time.process_time() - start)
    assert slowest < ONE_S
    assert not any("\n" in line for line in messages)
    assert FUZZ / 20 < decoded < FUZZ * 19 / 20, "the mutations reach both ways out"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_500_000, "in kB"
