"""What is measured of each picture of a data set, at little more than the cost of decoding it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from bittern.errors import PictureError
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern.model import picture_header, pictures
from bittern.system.progress import Progress, counted
from bittern_convert import parallel
from bittern_train.data import near_duplicates, sharpness
from bittern_train.data.near_duplicates import Likeness

# Side of the small grey picture, and of the small coloured one, that the probes look at.
GREY = 32
COLOURS = 8


class Measured(NamedTuple):
    """What is measured of a picture.

    Attributes:
        sha256: of the file.
        bytes: of the file.
        kind: format by the first bytes, such as "JPEG".
        width: in pixels, upright.
        height: in pixels, upright.
        orientation: EXIF, 1 to 8; 1 is upright.
        sharpness: variance of the Laplacian of the grey levels, at about the size that the network sees.
        bright: the grey level that 99 % of the pixels do not exceed, 0 to 255.
        contrast: standard deviation of the grey levels.
        coloured: mean difference between the largest and the smallest channel, 0 to 255.
        grey: (GREY, GREY) uint8, the picture squeezed.
        colours: (COLOURS, COLOURS, 3) uint8 BGR, the picture squeezed.
        likeness: for finding near-duplicates.
    """

    sha256: bytes
    bytes: int
    kind: str
    width: int
    height: int
    orientation: int
    sharpness: float
    bright: float
    contrast: float
    coloured: float
    grey: Pixels
    colours: Pixels
    likeness: Likeness


def measure(file: Path) -> Measured:
    """Read and measure a picture.

    Raises:
        PictureError: it cannot be read.
    """
    data = pictures.read(file)
    header = picture_header.read(data)
    at_least = None
    if header is not None and header.sized and min(header.width, header.height) > 0:
        # The size that the network sees is enough: a large JPEG then takes half of the time.
        at_least = -(-sharpness.NETWORK_SIDE * max(header.width, header.height) // min(header.width, header.height))
    picture = pictures.decode_bytes(data, str(file), at_least=at_least)
    assert header is not None, "it was decoded"
    height, width = picture.shape[:2]
    size = (header.width, header.height) if header.sized else (width, height)
    if header.sized and header.orientation >= 5:  # turned by a quarter
        size = size[1], size[0]
    grey = sharpness.network_sized(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))
    spread = cv2.meanStdDev(grey)[1][0, 0]
    levels = np.cumsum(cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel())
    # Of large pictures every n-th row and column is enough for so few cells.
    step = max(1, min(height, width) // (4 * near_duplicates.THUMBNAIL))
    side = near_duplicates.THUMBNAIL
    thumbnail = np.asarray(cv2.resize(picture[::step, ::step], (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    small = np.asarray(cv2.resize(grey, (GREY, GREY), interpolation=cv2.INTER_AREA), np.uint8)
    return Measured(
        sha256=hashlib.sha256(data).digest(),
        bytes=len(data),
        kind=header.kind,
        width=size[0],
        height=size[1],
        orientation=header.orientation,
        sharpness=sharpness.measure(grey),
        bright=float(np.searchsorted(levels, 0.99 * levels[-1])),
        contrast=float(spread),
        coloured=float((thumbnail.max(2) - thumbnail.min(2)).mean()),
        grey=small,
        colours=np.asarray(cv2.resize(thumbnail, (COLOURS, COLOURS), interpolation=cv2.INTER_AREA), np.uint8),
        likeness=near_duplicates.describe_quickly(small, thumbnail, small=near_duplicates.is_small(*size)),
    )


def measure_all(items: Sequence[Item], progress: Progress) -> list[Measured | str]:
    """`measure` each picture; a line for one that cannot be read."""

    def one(item: Item) -> Measured | str:
        try:
            return measure(item.path)
        except PictureError as error:
            return str(error)

    return list(counted(parallel.results(one, items), progress, "measure pictures", len(items)))
