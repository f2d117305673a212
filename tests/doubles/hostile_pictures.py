"""Picture files whose header lies, or whose decoding explodes: small files that want seconds or gigabytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from tests.doubles.picture_files import animated_webp, drawn, encode, gif, png_chunk

from bittern.frames import Pixels

SIDE = 7000  # 49 megapixels, just below the limit


def tiff(tags: Sequence[tuple[int, int, int, bytes]], strip: bytes, big: bool = False) -> bytes:
    """A little-endian TIFF, or BigTIFF, of one directory: (tag, type, count, packed values), which may be any."""
    inline, first = (8, 16) if big else (4, 8)
    entry = "<HHQ" if big else "<HHI"
    count = struct.pack("<Q" if big else "<H", len(tags))
    step = struct.calcsize(entry) + inline
    end = first + len(count) + step * len(tags) + inline
    strip_at = end
    outside = strip
    entries = b""
    for tag, kind, length, packed in tags:
        packed = packed.replace(b"STRIP", struct.pack("<I", strip_at))
        if len(packed) > inline:
            where = struct.pack("<Q" if big else "<I", end + len(outside))
            outside += packed
        else:
            where = packed.ljust(inline, b"\0")
        entries += struct.pack(entry, tag, kind, length) + where
    head = b"II+\0" + struct.pack("<HHQ", 8, 0, 16) if big else b"II*\0" + struct.pack("<I", 8)
    return head + count + entries + bytes(inline) + outside


def short(tag: int, *values: int) -> tuple[int, int, int, bytes]:
    return tag, 3, len(values), struct.pack(f"<{len(values)}H", *values)


def long(tag: int, *values: int) -> tuple[int, int, int, bytes]:
    return tag, 4, len(values), struct.pack(f"<{len(values)}I", *values)


def long8(tag: int, *values: int) -> tuple[int, int, int, bytes]:
    return tag, 16, len(values), struct.pack(f"<{len(values)}Q", *values)


def tiff_of(
    sizes: Sequence[tuple[int, int, int, bytes]], strip: bytes, *more: tuple[int, int, int, bytes], big: bool = False
) -> bytes:
    """A grey, deflated TIFF with these tags for its size, and others that replace or add to the usual ones."""
    usual = {
        258: short(258, 8),
        259: short(259, 8),
        262: short(262, 1),
        273: (273, 4, 1, b"STRIP"),
        277: short(277, 1),
        279: long(279, len(strip)),
    }
    usual |= {tag[0]: tag for tag in more}
    return tiff(sorted([*sizes, *usual.values()], key=lambda tag: tag[0]), strip, big)


def zeros(length: int) -> bytes:
    """So many zero bytes, deflated."""
    packer = zlib.compressobj(1)
    part = bytes(2**20)
    out = [packer.compress(part[: min(len(part), length - done)]) for done in range(0, length, len(part))]
    return b"".join(out) + packer.flush()


def jpeg_of_scans(scans: int, side: int = SIDE) -> bytes:
    """A progressive JPEG of three components whose scans say nothing: each refines all coefficients by zero."""
    out = b"\xff\xd8\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([1] * 64)
    out += b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, side, side, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    # DC: one code of one bit, for a difference of 0. AC: end-of-band runs of 2 ** 14 blocks and more, one bit.
    out += b"\xff\xc4" + struct.pack(">HB", 20, 0x00) + bytes([1] + [0] * 15) + b"\0"
    out += b"\xff\xc4" + struct.pack(">HB", 20, 0x10) + bytes([1] + [0] * 15) + b"\xe0"
    blocks = (side + 7) // 8 * ((side + 7) // 8)
    out += b"\xff\xda" + struct.pack(">HB", 12, 3) + bytes([1, 0, 2, 0, 3, 0, 0, 0, 0]) + bytes(3 * blocks // 8 + 1)
    bits = "0" + "1" * 14
    runs = (bits * (blocks // (2**15 - 1) + 1)).ljust(8, "1")
    runs += "1" * (-len(runs) % 8)
    band = int(runs, 2).to_bytes(len(runs) // 8, "big").replace(b"\xff", b"\xff\0")
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0, 1, 63, 0x00]) + band
    return out + scan * scans + b"\xff\xd9"


def apng(frames: int, side: int) -> bytes:
    """An animated PNG whose frames are all black."""
    rows = zeros((side + 1) * side)
    out = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    out += png_chunk(b"acTL", struct.pack(">II", frames, 0))
    number = 0
    for frame in range(frames):
        out += png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, side, side, 0, 0, 1, 10, 0, 0))
        number += 1
        if frame == 0:
            out += png_chunk(b"IDAT", rows)
        else:
            out += png_chunk(b"fdAT", struct.pack(">I", number) + rows)
            number += 1
    return out + png_chunk(b"IEND", b"")


def png_with(*chunks: bytes) -> bytes:
    """A small PNG with further chunks before its data."""
    plain = encode(".png", drawn())
    return plain[:33] + b"".join(chunks) + plain[33:]


def lying_avif() -> bytes:
    """An AVIF file whose box of sizes says less than its picture has."""
    whole = encode(".avif", np.zeros((2000, 2000, 3), np.uint8), cv2.IMWRITE_AVIF_SPEED, 10)
    return whole.replace(struct.pack(">II", 2000, 2000), struct.pack(">II", 20, 20))


def huge_avif() -> bytes:
    whole = encode(".avif", np.zeros((64, 64, 3), np.uint8), cv2.IMWRITE_AVIF_SPEED, 10)
    return whole.replace(struct.pack(">II", 64, 64), struct.pack(">II", 60_000, 60_000))


def jpeg2000(width: int, height: int) -> bytes:
    """A JPEG 2000 file with another size in its codestream (SIZ), as image and as tile, than it was written with."""
    data = bytearray(encode(".jp2", drawn()))
    start = data.index(b"\xff\x4f\xff\x51")
    data[start + 8 : start + 16] = data[start + 24 : start + 32] = struct.pack(">II", width, height)
    return bytes(data)


def jpeg2000_of_tiles() -> bytes:
    """A JPEG 2000 file of 49 megapixels in tiles of one pixel."""
    data = bytearray(jpeg2000(SIDE, SIDE))
    start = data.index(b"\xff\x4f\xff\x51")
    data[start + 24 : start + 32] = struct.pack(">II", 1, 1)
    return bytes(data)


def gif_of_codes(length: int) -> bytes:
    """A GIF whose data goes on and on behind its picture."""
    blocks = (b"\xff" + bytes(range(255))) * (length // 256)
    head = b"GIF89a" + struct.pack("<HHBBB", 64, 64, 0xF7, 0, 0) + bytes(768)
    return head + b"\x2c" + struct.pack("<HHHHB", 0, 0, 64, 64, 0) + b"\x08" + blocks + b"\0;"


def ppm_text(side: int) -> bytes:
    """A PPM in decimal digits."""
    return f"P3\n{side} {side}\n255\n".encode() + b"0 " * (3 * side * side)


def small(side: int = 3000) -> Pixels:
    return np.zeros((side, side, 3), np.uint8)


def hostile() -> dict[str, Callable[[], bytes]]:
    """By what is wrong with them. Those of formats that this OpenCV cannot write are left out."""
    strip = zeros(50_000_000)
    sized = [long(256, 200), long(257, 200)]
    bomb = b"Comment\0\0" + zeros(7_900_000)
    files = {
        "TIFF, LONG8 sizes": lambda: tiff_of([long8(256, 20_000), long8(257, 20_000)], strip),
        "TIFF, width twice": lambda: tiff_of([long(256, 20_000), long(256, 10), long(257, 20_000)], strip),
        "TIFF, height twice": lambda: tiff_of([long(256, 20_000), long(257, 10), long(257, 20_000)], strip),
        "TIFF, several widths": lambda: tiff_of([long(256, 10, 20_000), long(257, 20_000)], strip),
        "TIFF, signed sizes": lambda: tiff_of([(256, 9, 1, struct.pack("<i", 20_000)), long(257, 20_000)], strip),
        "TIFF, floating point sizes": lambda: tiff_of([(256, 12, 1, struct.pack("<d", 2e4)), long(257, 20_000)], strip),
        "BigTIFF": lambda: tiff_of([long8(256, 20_000), long8(257, 20_000)], strip, big=True),
        "TIFF, huge strips": lambda: tiff_of(sized, strip, long(278, 2**23)),
        "TIFF, huge tiles": lambda: tiff_of(sized, strip, long(322, 16_000), long(323, 16_000), (324, 4, 1, b"STRIP")),
        "TIFF, 255 samples": lambda: tiff_of(sized, strip, short(277, 255), short(258, *[8] * 255)),
        "TIFF, endless tag": lambda: tiff_of(sized, strip, (700, 7, 2**31 - 1, bytes(8))),
        "JPEG, 3000 scans": lambda: jpeg_of_scans(3000),
        "JPEG, 150 scans": lambda: jpeg_of_scans(150),
        "JPEG, all fill bytes": lambda: b"\xff\xd8" + b"\xff" * 60_000_000,
        "JPEG, empty segments": lambda: b"\xff\xd8" + b"\xff\xe0\0\2" * 15_000_000,
        "APNG": lambda: apng(60, 6000),
        "PNG, compressed texts": lambda: png_with(*[png_chunk(b"zTXt", bomb)] * 900),
        "PNG, compressed profile": lambda: png_with(png_chunk(b"iCCP", b"p\0\0" + zeros(300_000_000))),
        "PNG, a million chunks": lambda: png_with(png_chunk(b"tEXt", b"a\0b") * 1_000_000),
        "WebP, animated": lambda: animated_webp([small(6000)] * 2),
        "WebP, lossless": lambda: encode(".webp", small(6000), cv2.IMWRITE_WEBP_QUALITY, 101),
        "PPM, digits": lambda: ppm_text(3000),
    }
    if cv2.haveImageWriter(".gif"):
        files |= {
            "GIF, many pictures": lambda: gif([drawn()]) + gif([drawn()])[13 + 768 : -1] * 20_000,
            "GIF, endless data": lambda: gif_of_codes(30_000_000),
        }
    if cv2.haveImageWriter(".avif"):
        files |= {"AVIF, lying size": lying_avif, "AVIF, huge": huge_avif}
    if cv2.haveImageWriter(".jp2"):
        files |= {
            "JPEG 2000, huge": lambda: jpeg2000(60_000, 60_000),
            "JPEG 2000, at the limit": lambda: jpeg2000(SIDE, SIDE),
            "JPEG 2000, millions of tiles": jpeg2000_of_tiles,
        }
    return files
