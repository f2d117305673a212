"""Decodes picture files: limits are checked from the header before a pixel is decoded, errors are one line."""

from __future__ import annotations

import collections
import os
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from bittern.errors import ConfigurationError, PictureError
from bittern.frames import Pixels
from bittern.model import picture_header, preprocess
from bittern.model.preprocess import Region
from bittern.system import stderr

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
# A file with one of these is a picture in a folder, whatever is in it; of others the first bytes decide.
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})
# Formats that OpenCV always has, and those that it may have, with the suffix by which it is asked.
_ALWAYS = frozenset({"JPEG", "PNG", "WebP", "BMP", "TIFF", "PNM", "PAM", "Sun raster", "Radiance HDR"})
_MAYBE = {"GIF": ".gif", "AVIF": ".avif", "JPEG 2000": ".jp2"}
# Formats that Pillow decodes with the extra, where OpenCV does not.
_WITH_PILLOW = ("AVIF", "HEIC")
PILLOW_HINT = "pip install 'bittern[heif]'"


class Listing(NamedTuple):
    """The files below a folder.

    Attributes:
        paths: the pictures that can be read here, sorted.
        left_out: how many other files there are, by their kind: a format that cannot be read here, or a suffix.
    """

    paths: list[Path]
    left_out: dict[str, int]

    @property
    def note(self) -> str:
        """What was left out, in words, formats before suffixes and many before few; empty if nothing was."""
        counts = sorted(self.left_out.items(), key=lambda item: (item[0].startswith("."), -item[1], item[0]))
        kinds = [f"{count} {kind}{_remedy(kind)}" for kind, count in counts]
        if len(kinds) > 6:
            kinds[6:] = [f"{sum(count for _, count in counts[6:])} of other kinds"]
        return f"left out: {', '.join(kinds)}" if kinds else ""


def _remedy(kind: str) -> str:
    return f" ({PILLOW_HINT})" if kind in _WITH_PILLOW else ""


def find(folder: Path) -> Listing:
    """Every picture file below a folder; hidden files and folders are skipped."""
    paths: list[Path] = []
    left_out: collections.Counter[str] = collections.Counter()
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts) or not path.is_file():
            continue
        if path.suffix.lower() in SUFFIXES:
            paths.append(path)
            continue
        kind = _kind_of(path)
        if kind is not None and can_read(kind):
            paths.append(path)
        else:
            left_out[kind or path.suffix.lower() or "without a suffix"] += 1
    return Listing(paths, dict(left_out))


def _kind_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return picture_header.kind_of(file.read(picture_header.HEAD_BYTES))
    except OSError:
        return None


def can_read(kind: str) -> bool:
    """Whether pictures of a format (`picture_header.kind_of`) can be decoded here."""
    return kind in _ALWAYS or _opencv_has(kind) or _needs_pillow(kind)


def _opencv_has(kind: str) -> bool:
    return kind in _MAYBE and bool(cv2.haveImageWriter(_MAYBE[kind]))  # it has no question for readers without a file


def _needs_pillow(kind: str) -> bool:
    return kind in _WITH_PILLOW and not _opencv_has(kind) and find_spec("pillow_heif") is not None


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


def decode_bytes(
    data: bytes, name: str, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS, at_least: int | None = None
) -> Pixels:
    """Decode a picture in memory: (H, W, 3) uint8 BGR, EXIF orientation applied.

    Grey pictures get three equal channels, 16 bits become 8, transparency is dropped, CMYK is converted, and an
    animation gives its first picture.

    A picture whose header bounds the time and memory of decoding, as of most JPEG, PNG, WebP, BMP and TIFF files, is
    decoded in this process; any other in one with limits (`bittern.model.decoder`).

    With `at_least` an ordinary JPEG, which decodes faster at a half, a quarter or an eighth of its size, is decoded at
    the smallest of these whose longer side has that many pixels: for thumbnails, never for a network. One with more
    than `MAX_PIXELS`, where `max_pixels` allows it, is decoded at the largest of these that has no more.

    Raises:
        PictureError: as for `decode`; the message begins with `name`.
        TooManyPixels: the header states more pixels than `max_pixels`.
    """
    try:
        return _decode_bytes(data, max_bytes, max_pixels, at_least)
    except PictureError as error:
        raise type(error)(f"{name}: {error}") from None


def _decode_bytes(data: bytes, max_bytes: int, max_pixels: int, at_least: int | None) -> Pixels:
    if not data:
        raise PictureError("the file is empty")
    if len(data) > max_bytes:
        raise PictureError(f"larger than the limit of {max_bytes / 2**20:.0f} MiB")
    header = picture_header.read(data)
    if header is None:
        raise PictureError("not a picture that can be read (JPEG, PNG, WebP, BMP, GIF, TIFF, PNM, AVIF, JPEG 2000)")
    kind, width, height = header.kind, header.width, header.height
    if not can_read(kind):
        raise PictureError(_cannot_read(kind))
    if header.sized:
        if width < 1 or height < 1:
            raise PictureError(f"the header says {width} x {height} pixels")
        picture_header.check_pixels(width, height, max_pixels)
    if header.fault:
        raise PictureError(f"broken picture, {header.fault}")
    if kind == "PNG":
        data = picture_header.plain_png(data)
    elif kind == "WebP" and not header.bounded:
        data = picture_header.plain_webp(data)
    if header.bounded:
        part = 1
        while kind == "JPEG" and part < 8:
            too_large = width * height > MAX_PIXELS * part**2
            if not too_large and not (at_least and max(width, height) >= 2 * part * at_least):
                break
            part *= 2
        picture = _decode_here(data, _REDUCED[part])
    else:
        from bittern.model import decoder  # only where it is needed: importing it takes 10 ms

        pixels = width * height if header.sized else 0
        picture = decoder.decode(data, pixels=pixels, max_pixels=max_pixels, pillow=_needs_pillow(kind))
    return _upright(picture, header.orientation)


def _cannot_read(kind: str) -> str:
    """What to do with a picture of a format that cannot be read here."""
    if kind in _WITH_PILLOW:
        return f"is {kind}: {PILLOW_HINT}, or save it as JPEG or PNG"
    if kind in _MAYBE:
        return f"is {kind}, which OpenCV {cv2.__version__} here cannot read: save it as JPEG or PNG"
    if kind == "video":
        return "is a video: give it to `bittern watch --source` or `bittern replay`"
    return f"is {kind}: save it as JPEG or PNG"


# How OpenCV decodes a picture whole, or at a part of its size.
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def _decode_here(data: bytes, how: int) -> Pixels:
    try:
        with stderr.silenced():  # libjpeg, libpng and OpenCV print their complaints there
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise PictureError(f"broken picture ({error.err})") from None
    if picture is None:
        raise PictureError("broken picture, or a kind that OpenCV does not decode (such as floating point)")
    return np.asarray(picture, np.uint8)


def _upright(picture: Pixels, orientation: int) -> Pixels:
    """The picture as its EXIF orientation (TIFF 6.0, tag 274) wants it shown."""
    match orientation:
        case 2:
            turned = cv2.flip(picture, 1)
        case 3:
            turned = cv2.rotate(picture, cv2.ROTATE_180)
        case 4:
            turned = cv2.flip(picture, 0)
        case 5:
            turned = cv2.transpose(picture)
        case 6:
            turned = cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            turned = cv2.rotate(cv2.transpose(picture), cv2.ROTATE_180)
        case 8:
            turned = cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            return picture
    return np.asarray(turned, np.uint8)
