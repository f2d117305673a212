"""Picture files made by hand: every format and kind, whole, and broken in any way."""

from __future__ import annotations

import itertools
import random
import re
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from bittern.errors import PictureError
from bittern.frames import Pixels
from bittern.model import pictures

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
    colours = []
    for y, x in itertools.product((height // 4, 3 * height // 4), (width // 4, 3 * width // 4)):
        pixel = picture[y, x].astype(int)
        assert all(value < 60 or value > 195 for value in pixel), f"no pure colour: {pixel}"
        b, g, r = (int(value > 127) for value in pixel)
        colours.append(names.get((b, g, r), str(pixel)))
    return colours


FOUR = ["red", "green", "blue", "white"]


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
        indices = [int(i) for i in bits @ np.array([4, 2, 1])]
        codes = [c for i in range(0, len(indices), 100) for c in (256, *indices[i : i + 100])]
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


def exif(orientation: int, end: str = ">") -> bytes:
    """An EXIF block that holds the orientation only (tag 0x0112, SHORT)."""
    mark = b"MM" if end == ">" else b"II"
    entry = struct.pack(end + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(end + "HIH", 42, 8, 1) + entry + bytes(4)


def jpeg_with_exif(picture: Pixels, block: bytes) -> bytes:
    data = encode(".jpg", picture, cv2.IMWRITE_JPEG_QUALITY, 95)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(block)) + b"Exif\0\0" + block + data[2:]


def png_with_exif(picture: Pixels, block: bytes) -> bytes:
    data = encode(".png", picture)
    return data[:33] + png_chunk(b"eXIf", block) + data[33:]


def webp_with_exif(picture: Pixels, block: bytes) -> bytes:
    height, width = picture.shape[:2]
    still = encode(".webp", picture, cv2.IMWRITE_WEBP_QUALITY, 101)[12:]
    head = b"VP8X" + struct.pack("<II", 10, 8) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = head + still + b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def avif_with_exif(picture: Pixels, block: bytes) -> bytes:
    """Written by OpenCV 5, with the block, and the turn and mirror that libavif makes of it."""
    blocks = [np.frombuffer(block, np.uint8)]
    ok, data = cv2.imencodeWithMetadata(".avif", picture, [cv2.IMAGE_METADATA_EXIF], blocks)
    assert ok
    made: bytes = data.tobytes()
    return made


def tiff_with_orientation(picture: Pixels, orientation: int) -> bytes:
    """Written by OpenCV, with another directory behind it that has the tag."""
    data = encode(".tiff", picture)
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    entries = [entry for entry in entries if struct.unpack_from("<H", entry) != (274,)]
    entries = sorted(
        [*entries, struct.pack("<HHIHH", 274, 3, 1, orientation, 0)], key=lambda e: struct.unpack_from("<H", e)
    )
    end = len(data) + len(data) % 2
    head = data[:4] + struct.pack("<I", end) + data[8:]
    return head.ljust(end, b"\0") + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


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


def refused(data: bytes, says: str | None = None, **limits: int) -> str:
    with pytest.raises(PictureError, match=says) as caught:
        pictures.decode_bytes(data, "some.file", **limits)
    message = str(caught.value)
    assert message.startswith("some.file: ")
    assert "\n" not in message
    return message


def with_checksums(data: bytes) -> bytes:
    """A mutated PNG file with the right checksum behind every chunk that it still has."""
    out, offset = data[:8], 8
    while offset + 12 <= len(data):
        length = int.from_bytes(data[offset : offset + 4], "big")
        if offset + 12 + length > len(data):
            break
        out += png_chunk(data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length])
        offset += 12 + length
    return out + data[offset:]


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Flip, overwrite, cut, insert, repeat or splice, one to six times."""
    for _ in range(rng.randint(1, 6)):
        if not data:
            break
        start = rng.randrange(len(data))
        length = min(len(data) - start, rng.choice((1, 1, 2, 4, 16)))
        kind = rng.randrange(7)
        if kind == 0:
            data = data[:start] + bytes([data[start] ^ 1 << rng.randrange(8)]) + data[start + 1 :]
        elif kind == 1:
            data = data[:start] + rng.choice((b"\0", b"\xff", b"\x7f", b"\x80"))[:1] * length + data[start + length :]
        elif kind == 2:
            data = data[:start]
        elif kind == 3:
            data = data[:start] + rng.randbytes(length) + data[start:]
        elif kind == 4:
            data = data[:start] + data[start + length :]
        elif kind == 5:
            data = data[: start + length] + data[start:]
        else:
            other = rng.choice(others)
            data = data[:start] + other[rng.randrange(len(other)) :]
    return data
