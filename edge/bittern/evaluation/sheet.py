"""Contact sheets: the input of the network, with captions, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from bittern.frames import Pixels
from bittern.system import fileio

CAPTION = 34
GAP = 6
_INK = (40, 40, 40)
_ALARM = (40, 40, 215)


class Tile(NamedTuple):
    """One picture of a sheet.

    Attributes:
        picture: (height, width, 3) uint8 RGB, the input of the network; a small one is shown larger.
        lines: at most two short captions.
        alarm: whether to draw a red frame.
    """

    picture: Pixels
    lines: Sequence[str]
    alarm: bool


def write(file: Path, tiles: Sequence[Tile], columns: int = 6) -> None:
    """Write the tiles as one PNG, row by row.

    Raises:
        ValueError: there are no tiles.
        OSError: the file cannot be written.
    """
    if not tiles:
        raise ValueError("a contact sheet needs at least one picture")
    pictures = [_enlarged(tile.picture) for tile in tiles]
    tallest, widest = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    height, width = tallest + CAPTION + GAP, widest + GAP
    sheet = np.full((rows * height + GAP, columns * width + GAP, 3), 255, np.uint8)
    for i, (tile, picture) in enumerate(zip(tiles, pictures, strict=True)):
        top, left = GAP + i // columns * height, GAP + i % columns * width
        tall, wide = picture.shape[:2]
        sheet[top : top + tall, left : left + wide] = picture[:, :, ::-1]
        if tile.alarm:
            cv2.rectangle(sheet, (left, top), (left + wide - 1, top + tall - 1), _ALARM, 4)
        for row, line in enumerate(tile.lines[:2]):
            origin = (left + 2, top + tall + 13 + 15 * row)
            ink = _ALARM if tile.alarm and row == 0 else _INK
            # The font has ASCII only, and on a file name that is no UTF-8 OpenCV crashes.
            text = line.encode("ascii", "replace").decode()
            cv2.putText(sheet, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, 1, cv2.LINE_AA)
    _, png = cv2.imencode(".png", sheet)
    fileio.write(file, png.tobytes())


def _enlarged(picture: Pixels) -> Pixels:
    """The picture, by a whole factor about as large as one of 224 pixels: captions do not fit below a smaller one."""
    times = max(1, round(224 / max(picture.shape)))
    return picture.repeat(times, 0).repeat(times, 1) if times > 1 else picture
