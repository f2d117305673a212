"""Decodes picture files: limits are checked from the header before a pixel is decoded, errors are one line."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from bittern.errors import ConfigurationError, PictureError
from bittern.frames import Pixels
from bittern.model import preprocess
from bittern.model.preprocess import Region
from bittern.system import stderr

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})


def find(folder: Path) -> list[Path]:
    """Every picture file below a folder, sorted; hidden files and folders are skipped."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def decode(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Read a picture file: (H, W, 3) uint8 BGR, EXIF orientation applied.

    Raises:
        PictureError: the file cannot be read, is not a picture, is broken, or exceeds a limit (bytes, pixels).
    """
    return decode_bytes(read(path, max_bytes=max_bytes), str(path), max_bytes=max_bytes, max_pixels=max_pixels)


def read(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a picture file for `decode_bytes`: all of it, or one byte more than `max_bytes`.

    Raises:
        PictureError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            # Reading up to the limit would allocate 64 MiB each time; a pipe or device has no size.
            size = os.fstat(file.fileno()).st_size or max_bytes
            return file.read(min(size, max_bytes) + 1)
    except OSError as error:
        raise PictureError(f"{path or repr(path)}: {error.strerror or error}") from None


def cut(frame: Pixels, name: str | os.PathLike[str], region: Region | None) -> Pixels:
    """Crop a decoded picture to a region, see `preprocess.region_of`.

    Raises:
        PictureError: the region does not fit into the picture; the message begins with `name`.
    """
    try:
        return preprocess.region_of(frame, region)
    except ConfigurationError as error:
        raise PictureError(f"{name}: {error}") from None


def decode_bytes(data: bytes, name: str, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a picture in memory: (H, W, 3) uint8 BGR, EXIF orientation applied.

    Grey pictures get three equal channels, 16 bits become 8, transparency is dropped, CMYK is converted, and an
    animation gives its first picture.

    Raises:
        PictureError: as for `decode`; the message begins with `name`.
    """
    if not data:
        raise PictureError(f"{name}: the file is empty")
    if len(data) > max_bytes:
        raise PictureError(f"{name}: larger than the limit of {max_bytes / 2**20:.0f} MiB")
    size = header_size(data)
    if size is None:
        raise PictureError(f"{name}: not a picture that can be read (JPEG, PNG, WebP, BMP, GIF, TIFF, PNM)")
    width, height = size
    if width < 1 or height < 1:
        raise PictureError(f"{name}: the header says {width} x {height} pixels")
    if width * height > max_pixels:
        raise PictureError(f"{name}: {width} x {height} is more than the limit of {max_pixels / 1e6:.0f} megapixels")
    if _ends_early(data):
        raise PictureError(f"{name}: broken picture, the file is truncated")
    try:
        with stderr.silenced():  # libjpeg, libpng and OpenCV print their complaints there
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise PictureError(f"{name}: broken picture ({error.err})") from None
    if picture is None:
        raise PictureError(f"{name}: broken picture, or a kind that OpenCV does not decode (such as floating point)")
    return np.asarray(picture, np.uint8)


def header_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels from a picture's header, without decoding; None for an unknown format.

    Formats: JPEG (ITU T.81, SOF segment), PNG (IHDR), WebP (RFC 9649), BMP, GIF89a, TIFF 6.0 (first directory), PNM.
    """
    for magic, reader in _READERS:
        if data.startswith(magic):
            try:
                return reader(data)
            except (struct.error, IndexError, ValueError):
                return None
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    for marker, offset in _jpeg_segments(data):
        # SOF0..SOF15, without DHT (C4), JPG (C8) and DAC (CC)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, offset + 3)
            return width, height
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and offset (of its length field) of every segment up to and including the first scan."""
    offset = 2
    while data[offset] == 0xFF:
        while data[offset] == 0xFF:
            offset += 1
        marker = data[offset]
        offset += 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        yield marker, offset
        if marker in (0xD9, 0xDA):
            return
        (length,) = struct.unpack_from(">H", data, offset)
        offset += max(2, length)


def _png(data: bytes) -> tuple[int, int] | None:
    width, height = struct.unpack_from(">II", data, 16)
    return (width, height) if data[12:16] == b"IHDR" else None


def _webp(data: bytes) -> tuple[int, int] | None:
    if data[8:12] != b"WEBP":
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _gif(data: bytes) -> tuple[int, int] | None:
    return struct.unpack_from("<HH", data, 6)


def _bmp(data: bytes) -> tuple[int, int] | None:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)


def _tiff(data: bytes) -> tuple[int, int] | None:
    endian = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(endian + "I", data, 4)
    (count,) = struct.unpack_from(endian + "H", data, directory)
    sizes: dict[int, int] = {}
    for i in range(count):
        tag, kind, _, value = struct.unpack_from(endian + "HHII", data, directory + 2 + 12 * i)
        if tag in (256, 257):  # ImageWidth, ImageLength
            if kind == 3:
                (value,) = struct.unpack_from(endian + "H", data, directory + 10 + 12 * i)
            sizes[tag] = value
    return (sizes[256], sizes[257]) if len(sizes) == 2 else None


def _pnm(data: bytes) -> tuple[int, int] | None:
    tokens: list[bytes] = []
    for line in data[2:512].splitlines():
        tokens += line.split(b"#")[0].split()
    return int(tokens[0]), int(tokens[1])


_READERS = (
    (b"\xff\xd8", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"RIFF", _webp),
    (b"GIF8", _gif),
    (b"BM", _bmp),
    (b"II*\x00", _tiff),
    (b"MM\x00*", _tiff),
    (b"P5", _pnm),
    (b"P6", _pnm),
)


def _ends_early(data: bytes) -> bool:
    # OpenCV fills the missing part with grey and reports it only on stderr, so the end marker is checked here.
    if data.startswith(b"\xff\xd8"):
        # A preview in the EXIF data has an end marker too, so only markers after the picture's own first scan count;
        # data after the end (the video of a motion photograph) is allowed.
        try:
            scan = next(offset for marker, offset in _jpeg_segments(data) if marker == 0xDA)
        except (StopIteration, IndexError, struct.error):
            return True
        return data.rfind(b"\xff\xd9", scan) < 0  # from the end, where it usually is
    if data.startswith(b"\x89PNG"):
        # Chunk by chunk: OpenCV allocates a chunk's stated length, up to 1 GB, before it checks that the data is there.
        offset = 8
        while offset + 12 <= len(data):
            if data[offset + 4 : offset + 8] == b"IEND":
                return False
            offset += 12 + int.from_bytes(data[offset : offset + 4], "big")
        return True
    if data.startswith(b"RIFF"):
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    return False
