"""Picture files as they come: every format and kind, broken ones, and ten thousand mutated ones."""

from __future__ import annotations

import itertools
import os
import random
import re
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern import pictures
from bittern.contract import Pixels
from bittern.errors import PictureError

WIDTH, HEIGHT = 48, 32
RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)


def drawn(width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    """(H, W, 3) uint8 BGR: the top left quarter red, top right green, bottom left blue, bottom right white."""
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[: height // 2, : width // 2] = RED
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, : width // 2] = BLUE
    return picture


def noise(width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    """Pixels that do not compress, so that a file cut in its middle has lost picture."""
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)


def encode(suffix: str, picture: Pixels | np.ndarray[tuple[int, ...], np.dtype[np.uint16]], *options: int) -> bytes:
    ok, data = cv2.imencode(suffix, picture, options)
    assert ok
    return bytes(data.tobytes())


def corners(picture: Pixels) -> list[str]:
    """The colour in the middle of each quarter, by rows."""
    height, width = picture.shape[:2]
    names = {(0, 0, 1): "red", (0, 1, 0): "green", (1, 0, 0): "blue", (1, 1, 1): "white", (0, 0, 0): "black"}
    found = []
    for y, x in itertools.product((height // 4, 3 * height // 4), (width // 4, 3 * width // 4)):
        pixel = picture[y, x].astype(int)
        assert all(value < 60 or value > 195 for value in pixel), f"no pure colour: {pixel}"
        found.append(names.get(tuple(int(value > 127) for value in pixel), str(pixel)))
    return found


FOUR = ["red", "green", "blue", "white"]


def refused(data: bytes, says: str | None = None, **limits: int) -> str:
    with pytest.raises(PictureError, match=says) as caught:
        pictures.decode_bytes(data, "some.file", **limits)
    message = str(caught.value)
    assert message.startswith("some.file: ")
    assert "\n" not in message
    return message


# --- the formats -----------------------------------------------------------------------------------------------------

FORMATS: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encode(".jpg", drawn(), cv2.IMWRITE_JPEG_QUALITY, 95),
    "jpeg, progressive": lambda: encode(".jpg", drawn(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "jpeg, optimised, restart markers": lambda: encode(
        ".jpg", drawn(), cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2
    ),
    "png": lambda: encode(".png", drawn()),
    "webp": lambda: encode(".webp", drawn(), cv2.IMWRITE_WEBP_QUALITY, 95),
    "webp, lossless": lambda: encode(".webp", drawn(), cv2.IMWRITE_WEBP_QUALITY, 101),
    "bmp": lambda: encode(".bmp", drawn()),
    "bmp, top down": lambda: top_down_bmp(drawn()),
    "bmp, OS/2": lambda: os2_bmp(drawn()),
    "tiff": lambda: encode(".tiff", drawn()),
    "tiff, big endian": lambda: big_endian_tiff(drawn()),
    "ppm": lambda: encode(".ppm", drawn()),
    "ppm, comment": lambda: b"P6 # drawn\n#\n48 32\n255\n" + drawn()[:, :, ::-1].tobytes(),
    "gif": lambda: gif([drawn()]),
    "gif, animated": lambda: gif([drawn(), np.zeros_like(drawn()), np.zeros_like(drawn())]),
    "webp, animated": lambda: animated_webp([drawn(), np.zeros_like(drawn())]),
    "png, 16 bit": lambda: encode(".png", drawn().astype(np.uint16) * 257),
    "png, alpha": lambda: encode(".png", np.dstack([drawn(), np.full((HEIGHT, WIDTH), 128, np.uint8)])),
    "png, 16 bit and alpha": lambda: encode(".png", np.dstack([drawn(), drawn()[:, :, :1]]).astype(np.uint16) * 257),
    "png, palette": lambda: palette_png(),
    "webp, alpha": lambda: encode(".webp", np.dstack([drawn(), np.full((HEIGHT, WIDTH), 200, np.uint8)])),
    "tiff, alpha": lambda: encode(".tiff", np.dstack([drawn(), np.full((HEIGHT, WIDTH), 200, np.uint8)])),
    "tiff, 16 bit": lambda: encode(".tiff", drawn().astype(np.uint16) * 257),
    "jpeg, CMYK": lambda: cmyk_jpeg(drawn()),
}
needs_gif = pytest.mark.skipif(
    not re.search(r"GIF:\s*YES", cv2.getBuildInformation()), reason="this OpenCV has no GIF decoder (before 4.11)"
)
ALL = [pytest.param(name, marks=needs_gif if name.startswith("gif") else ()) for name in FORMATS]


def top_down_bmp(picture: Pixels) -> bytes:
    height, width = picture.shape[:2]
    header = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, picture.size, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + picture.size, 0, 0, 54) + header + picture.tobytes()


def os2_bmp(picture: Pixels) -> bytes:
    height, width = picture.shape[:2]
    header = struct.pack("<IHHHH", 12, width, height, 1, 24)
    return b"BM" + struct.pack("<IHHI", 26 + picture.size, 0, 0, 26) + header + picture[::-1].tobytes()


def big_endian_tiff(picture: Pixels) -> bytes:
    height, width = picture.shape[:2]
    short, long = 3, 4
    end_of_directory = 8 + 2 + 12 * 9 + 4
    tags = [
        (256, short, 1, width << 16),
        (257, long, 1, height),
        (258, short, 3, end_of_directory),
        (259, short, 1, 1 << 16),
        (262, short, 1, 2 << 16),
        (273, long, 1, end_of_directory + 6),
        (277, short, 1, 3 << 16),
        (278, long, 1, height),
        (279, long, 1, picture.size),
    ]
    directory = struct.pack(">H", len(tags)) + b"".join(struct.pack(">HHII", *tag) for tag in tags) + bytes(4)
    return b"MM\0*" + struct.pack(">I", 8) + directory + struct.pack(">HHH", 8, 8, 8) + picture[:, :, ::-1].tobytes()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def palette_png() -> bytes:
    rows = [b"\0" + bytes([0] * 24 + [1] * 24)] * 16 + [b"\0" + bytes([2] * 24 + [3] * 24)] * 16
    palette = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255])
    return png(WIDTH, HEIGHT, 8, 3, b"".join(rows), png_chunk(b"PLTE", palette))


def gif(frames: list[Pixels]) -> bytes:
    """GIF89a whose LZW stream holds literals only: a clear code before every 100 pixels keeps the codes 9 bits wide."""
    height, width = frames[0].shape[:2]
    palette = np.array([(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)] + [(0, 0, 0)] * 248, np.uint8)
    data = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0) + palette.tobytes()
    for frame in frames:
        bits = frame[:, :, ::-1].reshape(-1, 3) > 127
        indices = bits @ np.array([4, 2, 1])
        codes = [c for at in range(0, len(indices), 100) for c in (256, *(int(i) for i in indices[at : at + 100]))]
        packed = sum(code << (9 * i) for i, code in enumerate([*codes, 257]))
        stream = packed.to_bytes((9 * (len(codes) + 1) + 7) // 8, "little")
        blocks = b"".join(bytes([len(stream[i : i + 255])]) + stream[i : i + 255] for i in range(0, len(stream), 255))
        control = b"\x21\xf9\x04\x04\x0a\x00\x00\x00"
        data += control + b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x08" + blocks + b"\0"
    return data + b";"


def animated_webp(frames: list[Pixels]) -> bytes:
    """RFC 9649: VP8X, ANIM and an ANMF chunk a frame."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)

    def u24(value: int) -> bytes:
        return value.to_bytes(3, "little")

    height, width = frames[0].shape[:2]
    body = chunk(b"VP8X", struct.pack("<I", 2) + u24(width - 1) + u24(height - 1))
    body += chunk(b"ANIM", struct.pack("<IH", 0, 0))
    for frame in frames:
        still = encode(".webp", frame, cv2.IMWRITE_WEBP_QUALITY, 101)[12:]
        body += chunk(b"ANMF", u24(0) + u24(0) + u24(width - 1) + u24(height - 1) + u24(100) + b"\0" + still)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def cmyk_jpeg(picture: Pixels) -> bytes:
    """A baseline JPEG of four components as Adobe programs write it: CMYK inverted, no colour transform.

    Every block of 8 x 8 is flat, so that only the DC coefficients are coded (ITU T.81, F.1.2.1), each in 12 bits of
    one Huffman code.
    """
    height, width = picture.shape[:2]
    planes = [*np.moveaxis(picture[::8, ::8, ::-1], 2, 0), np.full((height // 8, width // 8), 255, np.uint8)]
    out = b"\xff\xd8\xff\xee" + struct.pack(">H", 14) + b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)
    out += b"\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([8] + [1] * 63)
    out += b"\xff\xc0" + struct.pack(">HBHHB", 8 + 12, 8, height, width, 4)
    out += b"".join(bytes([i + 1, 0x11, 0]) for i in range(4))
    # DC categories 0..11 as twelve codes of four bits; AC: end of block is the one-bit code 0.
    out += b"\xff\xc4" + struct.pack(">HB", 19 + 12, 0x00) + bytes([0, 0, 0, 12] + [0] * 12) + bytes(range(12))
    out += b"\xff\xc4" + struct.pack(">HB", 19 + 1, 0x10) + bytes([1] + [0] * 15) + b"\0"
    out += b"\xff\xda" + struct.pack(">HB", 6 + 8, 4) + b"".join(bytes([i + 1, 0]) for i in range(4)) + b"\0\x3f\0"
    bits, last = "", [0] * 4
    for y, x in itertools.product(range(height // 8), range(width // 8)):
        for i, plane in enumerate(planes):
            value = int(plane[y, x]) - 128  # DC = 8 * mean, quantized by 8
            change, last[i] = value - last[i], value
            size = abs(change).bit_length()
            bits += f"{size:04b}"
            if size:
                bits += f"{change if change > 0 else change + (1 << size) - 1:0{size}b}"
            bits += "0"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return out + scan + b"\xff\xd9"


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
    assert pictures.header_size(FORMATS[name]()) == (WIDTH, HEIGHT)


SUFFIXES_OF_SIZE = (".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm", ".pgm")


@given(st.sampled_from(SUFFIXES_OF_SIZE), st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_header_size_agrees_with_opencv(suffix: str, width: int, height: int, grey: bool) -> None:
    grey = suffix == ".pgm" or (grey and suffix != ".ppm")
    shape = (height, width) if grey else (height, width, 3)
    data = encode(suffix, np.full(shape, 99, np.uint8))
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    assert pictures.header_size(data) == (decoded.shape[1], decoded.shape[0]) == (width, height)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff", ".pgm"])
def test_grey_gets_three_equal_channels(suffix: str) -> None:
    grey = np.tile(np.arange(0, 240, 5, np.uint8), (HEIGHT, 1))
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


def exif(orientation: int, end: str = ">") -> bytes:
    """An EXIF block that holds the orientation only (tag 0x0112, SHORT)."""
    mark = b"MM" if end == ">" else b"II"
    entry = struct.pack(end + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(end + "HIH", 42, 8, 1) + entry + bytes(4)


def jpeg_with_exif(picture: Pixels, block: bytes) -> bytes:
    data = encode(".jpg", picture, cv2.IMWRITE_JPEG_QUALITY, 95)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(block)) + b"Exif\0\0" + block + data[2:]


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


@pytest.mark.parametrize("end", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, end: str) -> None:
    data = jpeg_with_exif(drawn(), exif(orientation, end))
    picture = pictures.decode_bytes(data, "turned")
    assert picture.shape[:2] == ((HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT))
    assert corners(picture) == TURNED[orientation]
    assert pictures.header_size(data) == (WIDTH, HEIGHT), "before the turn"


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_means_nothing_is_left_out(orientation: int) -> None:
    assert corners(pictures.decode_bytes(jpeg_with_exif(drawn(), exif(orientation)), "odd")) == FOUR


@pytest.mark.parametrize("block", [b"", b"MM", b"MM\0*\xff\xff\xff\xff", exif(6)[:14], b"\0" * 40])
def test_broken_exif_is_left_out(block: bytes) -> None:
    assert corners(pictures.decode_bytes(jpeg_with_exif(drawn(), block), "odd")) == FOUR


def test_a_preview_in_the_exif_block_is_not_the_picture() -> None:
    preview = encode(".jpg", np.zeros((8, 8, 3), np.uint8))
    data = jpeg_with_exif(drawn(), exif(1) + preview)
    assert pictures.header_size(data) == (WIDTH, HEIGHT)
    assert corners(pictures.decode_bytes(data, "with preview")) == FOUR
    refused(data[: len(data) * 3 // 4], "broken picture")


# --- broken files ----------------------------------------------------------------------------------------------------

CUT: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encode(".jpg", noise(), cv2.IMWRITE_JPEG_QUALITY, 90),
    "jpeg, progressive": lambda: encode(".jpg", noise(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "png": lambda: encode(".png", noise()),
    "webp": lambda: encode(".webp", noise(), cv2.IMWRITE_WEBP_QUALITY, 90),
    "webp, lossless": lambda: encode(".webp", noise(), cv2.IMWRITE_WEBP_QUALITY, 101),
    "webp, animated": lambda: animated_webp([noise(), noise()]),
    "bmp": lambda: encode(".bmp", noise()),
    "ppm": lambda: encode(".ppm", noise()),
    "tiff": lambda: encode(".tiff", noise()),
    "tiff, big endian": lambda: big_endian_tiff(noise()),
    "gif": lambda: gif([noise()]),
}


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
    begin = time.monotonic()
    with pytest.raises(PictureError, match="larger than the limit of 64 MiB"):
        pictures.decode(sparse)
    assert time.monotonic() - begin < 5


def test_the_limit_on_pixels_is_inclusive() -> None:
    data = FORMATS["png"]()
    assert pictures.decode_bytes(data, "fits", max_pixels=WIDTH * HEIGHT).shape == (HEIGHT, WIDTH, 3)
    refused(data, "48 x 32 is more than the limit", max_pixels=WIDTH * HEIGHT - 1)


def huge() -> dict[str, bytes]:
    side = 60_000
    jpeg = bytearray(FORMATS["jpeg"]())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", side, side)
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
    begin = time.monotonic()
    refused(huge()[name], "60000 x 60000 is more than the limit of 50 megapixels")
    assert time.monotonic() - begin < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, "memory grew by less than 20 MB"


def test_sizes_of_nothing_are_refused() -> None:
    refused(b"P6\n0 5\n255\n", "0 x 5 pixels")
    refused(b"P6\n-3 5\n255\n", "-3 x 5 pixels")
    refused(png(0, 3, 8, 2, b"\0"), "0 x 3 pixels")


def test_find(tmp_path: Path) -> None:
    for name in ("b/c.JPG", "a.png", "d.txt", ".hidden/e.png", ".f.png", "g.webp", "dir.png/h.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in pictures.find(tmp_path)]
    assert found == ["a.png", "b/c.JPG", "dir.png/h.gif", "g.webp"]
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
        "from bittern import pictures\n"
        "from bittern.errors import PictureError\n"
        "for path in sys.argv[1:]:\n"
        "    try: pictures.decode(path)\n"
        "    except PictureError: pass\n"
    )
    paths = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True)
    assert done.stderr == ""


# --- fuzz ------------------------------------------------------------------------------------------------------------


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Flip, overwrite, cut, insert, repeat or splice, one to six times."""
    for _ in range(rng.randint(1, 6)):
        if not data:
            break
        at = rng.randrange(len(data))
        length = min(len(data) - at, rng.choice((1, 1, 2, 4, 16)))
        kind = rng.randrange(7)
        if kind == 0:
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + rng.choice((b"\0", b"\xff", b"\x7f", b"\x80"))[:1] * length + data[at + length :]
        elif kind == 2:
            data = data[:at]
        elif kind == 3:
            data = data[:at] + rng.randbytes(length) + data[at:]
        elif kind == 4:
            data = data[:at] + data[at + length :]
        elif kind == 5:
            data = data[: at + length] + data[at:]
        else:
            other = rng.choice(others)
            data = data[:at] + other[rng.randrange(len(other)) :]
    return data


FUZZ = 10_500
TOTAL_S = 60.0
ONE_S = 2.0


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
    begin = time.monotonic()
    decoded = slowest = 0.0
    for number in range(FUZZ):
        data = mutate(rng, seeds[number % len(seeds)], seeds)
        start = time.monotonic()
        try:
            # A limit of a tenth of a megapixel: what is tested is the way through, not how fast memory can be filled.
            picture = pictures.decode_bytes(data, "fuzzed", max_pixels=100_000)
        except PictureError as error:
            assert "\n" not in str(error), (number, str(error))
        else:
            decoded += 1
            assert picture.ndim == 3
            assert picture.shape[2] == 3
            assert picture.dtype == np.uint8
            assert 0 < picture.shape[0] * picture.shape[1] <= 100_000, "no larger than its header said"
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < ONE_S
    assert time.monotonic() - begin < TOTAL_S
    assert FUZZ / 20 < decoded < FUZZ * 19 / 20, "the mutations reach both ways out"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_500_000, "in kB"
