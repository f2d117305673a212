"""Converts the pixel formats that libcamera may give to 8-bit pictures in a known channel order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bittern.errors import SourceError
from bittern.frames import Order, Pixels


class _Layout(NamedTuple):
    bytes_per_pixel: int  # of a row of the array
    order: Order  # channel order of the converted picture
    code: str | None = None  # name of OpenCV's conversion code (OpenCV is imported only then); None: no conversion
    half_chroma: bool = False  # 4:2:0: the chroma rows, half as many, follow the picture's rows


# libcamera names a format after the little-endian word, so the bytes in memory, and in picamera2's arrays, are in
# reverse order: "RGB888" is B, G, R (The Picamera2 Library, appendix A). YUV is taken as ITU-R BT.601, limited range,
# which OpenCV converts and `picamera` requests from libcamera (SMPTE 170M).
_LAYOUTS: dict[str, _Layout] = {
    "RGB888": _Layout(3, "BGR"),
    "BGR888": _Layout(3, "RGB"),
    "XRGB8888": _Layout(4, "BGR", "COLOR_BGRA2BGR"),
    "XBGR8888": _Layout(4, "RGB", "COLOR_BGRA2BGR"),  # only drops the fourth channel
    "YUYV": _Layout(2, "BGR", "COLOR_YUV2BGR_YUYV"),
    "YVYU": _Layout(2, "BGR", "COLOR_YUV2BGR_YVYU"),
    "UYVY": _Layout(2, "BGR", "COLOR_YUV2BGR_UYVY"),
    "NV12": _Layout(1, "BGR", "COLOR_YUV2BGR_NV12", half_chroma=True),
    "NV21": _Layout(1, "BGR", "COLOR_YUV2BGR_NV21", half_chroma=True),
    "YUV420": _Layout(1, "BGR", "COLOR_YUV2BGR_I420", half_chroma=True),
    "YVU420": _Layout(1, "BGR", "COLOR_YUV2BGR_YV12", half_chroma=True),
    "MJPEG": _Layout(3, "RGB"),  # picamera2 decodes it with Pillow
}
# The planes follow each other: two chroma rows share one row of the array, so padding is cut after the conversion.
_PLANAR = ("YUV420", "YVU420")

KNOWN_FORMATS = tuple(_LAYOUTS)


def to_pixels(array: Pixels, pixel_format: str, size: tuple[int, int]) -> tuple[Pixels, Order]:
    """Convert an array from picamera2's `make_array`.

    Args:
        array: uint8, one row of bytes (with or without stride padding) per row of the stream, in two or three
            dimensions: (480, 640, 3) for RGB888, (720, 640) for NV12 of 640 x 480, (720, 704) for YUV420 with
            a stride of 704.
        pixel_format: libcamera's name, one of `KNOWN_FORMATS`.
        size: width and height of the picture, in pixels; both even for YUV.

    Returns:
        Pixels (H, W, 3) uint8, contiguous, and their channel order.

    Raises:
        SourceError: an unknown format, or an array that cannot be a picture of that format and size.
    """
    width, height = size
    layout = _LAYOUTS.get(pixel_format)
    if layout is None:
        known = ", ".join(KNOWN_FORMATS)
        raise SourceError(f"the camera gives pixel format {pixel_format}: expected one of {known}", exit_code=2)
    rows = height * 3 // 2 if layout.half_chroma else height
    row_bytes = width * layout.bytes_per_pixel
    subsampled = layout.half_chroma or layout.bytes_per_pixel == 2
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or array.shape[0] != rows
        or array[0].size < row_bytes
        or (subsampled and (width % 2 or height % 2 or array[0].size % 2))
    ):
        raise SourceError(
            f"the camera gives an array {array.shape} {array.dtype} for {pixel_format} {width}x{height}: "
            f"expected uint8, {rows} rows of at least {row_bytes} bytes" + (", even sizes" if subsampled else "")
        )
    lines = np.ascontiguousarray(array.reshape(rows, -1))
    if pixel_format not in _PLANAR:
        lines = np.ascontiguousarray(lines[:, :row_bytes])
    if layout.bytes_per_pixel > 1:
        lines = lines.reshape(height, width, layout.bytes_per_pixel)
    pixels = lines
    if layout.code is not None:
        import cv2

        pixels = np.asarray(cv2.cvtColor(lines, getattr(cv2, layout.code)), np.uint8)
    return np.ascontiguousarray(pixels[:, :width]), layout.order
