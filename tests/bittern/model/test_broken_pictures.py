"""Broken, huge and hostile picture files: one line, bounded time and memory, and ten thousand mutated ones."""

from __future__ import annotations

import os
import random
import resource
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.doubles.hostile_pictures import apng, long8, tiff_of, zeros
from tests.doubles.picture_files import (
    CUT,
    FORMATS,
    HEIGHT,
    WIDTH,
    animated_webp,
    avif_with_exif,
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
    png_with_exif,
    refused,
    tiff_with_orientation,
    webp_with_exif,
    with_checksums,
)
from tests.doubles.repetitions import times

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
    refused(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" * 20, "is PDF: save it as JPEG or PNG")
    refused(b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "is SVG: save it as JPEG or PNG")


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


@pytest.mark.parametrize("name", [pytest.param(n, marks=needs_gif if n == "gif" else ()) for n in huge()])
def test_a_huge_header_is_refused_before_decoding(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(huge()[name], "60000 x 60000 is more than the limit of 50 megapixels")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, "memory grew by less than 20 MB"


def test_sizes_of_nothing_are_refused() -> None:
    refused(b"P6\n0 5\n255\n", "0 x 5 pixels")
    refused(b"P6\n-3 5\n255\n", "-3 x 5 pixels")
    refused(png(0, 3, 8, 2, b"\0"), "0 x 3 pixels")


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


FUZZ = times(10_000, 150)  # of each format
LONGEST_S = 5.0  # of the processor, for one picture, its decoder's process included


def seeds_of(kind: str) -> list[bytes]:
    small = noise(24, 16)
    if kind == "JPEG":
        progressive = encode(".jpg", small, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
        return [encode(".jpg", small), progressive, jpeg_with_exif(small, exif(6)), cmyk_jpeg(drawn(16, 16))]
    if kind == "PNG":
        deep = encode(".png", small.astype(np.uint16) * 257)
        return [encode(".png", small), palette_png(), deep, png_with_exif(small, exif(3)), apng(3, 20)]
    if kind == "WebP":
        lossless = encode(".webp", small, cv2.IMWRITE_WEBP_QUALITY, 101)
        lossy = encode(".webp", small, cv2.IMWRITE_WEBP_QUALITY, 80)
        return [lossy, lossless, animated_webp([small, small]), webp_with_exif(small, exif(8))]
    if kind == "BMP":
        return [encode(".bmp", small), os2_bmp(small)]
    if kind == "TIFF":
        big = tiff_of([long8(256, 20), long8(257, 20)], zeros(400), big=True)
        return [encode(".tiff", small), big_endian_tiff(small), tiff_with_orientation(small, 6), big]
    if kind == "PNM":
        return [encode(".ppm", small), encode(".pgm", small[:, :, 0]), b"P3 2 2 255 " + b"9 " * 12]
    if kind == "GIF":
        return [gif([small, small]), gif([drawn(16, 16)])]
    if kind == "AVIF":
        return [encode(".avif", small), avif_with_exif(drawn(32, 32), exif(6))]
    assert kind == "JPEG 2000"
    return [encode(".jp2", drawn(32, 32)), encode(".jp2", noise(40, 64))]


def processor_s() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "BMP", "TIFF", "PNM", "GIF", "AVIF", "JPEG 2000"])
def test_mutated_pictures_decode_or_are_refused(kind: str) -> None:
    if not pictures.can_read(kind):
        pytest.skip(f"this OpenCV has no {kind}")
    seeds = seeds_of(kind)
    rng = random.Random(20)
    decoded, slowest_s, messages = 0, 0.0, []
    for number in range(FUZZ):
        data = mutate(rng, seeds[number % len(seeds)], seeds)
        if kind == "PNG" and rng.random() < 0.8:
            data = with_checksums(data)
        start = processor_s()
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
        slowest_s = max(slowest_s, processor_s() - start)
    crashed = sum("crashes its decoder" in line for line in messages)
    slow = sum("takes longer" in line for line in messages)
    largest_mb = (
        max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1e3
    )
    print(f"{kind}: {FUZZ}, {decoded} decoded, {crashed} crashed the decoder, {slow} took too long", end="; ")
    print(f"at most {slowest_s:.2f} s, {largest_mb:.0f} MB")
    assert slowest_s < LONGEST_S
    assert not any("\n" in line or len(line) > 300 for line in messages)
    assert FUZZ / 200 < decoded < FUZZ * 99 / 100, "the mutations reach both ways out"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_500_000, "in kB"
