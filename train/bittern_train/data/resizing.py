"""Copies a data set with smaller pictures: the shortest side as asked for, perhaps only the centred square."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2

from bittern.errors import BitternError, PictureError
from bittern.evaluation.dataset import Item
from bittern.model import picture_header, pictures, preprocess
from bittern_convert import parallel
from bittern_train.data import copying
from bittern_train.data.copying import Destination
from bittern_train.data.tree import Omission

# What is coded again in its own format, and how; anything else becomes PNG, which loses nothing.
_CODED = {"JPEG": cv2.IMWRITE_JPEG_QUALITY, "WebP": cv2.IMWRITE_WEBP_QUALITY}


class Resized(NamedTuple):
    """What was done.

    Attributes:
        items: of the copy.
        before: bytes of their pictures.
        after: the same, of the copy.
        unchanged: pictures that were copied byte for byte, as they are small enough.
        left_out: pictures that cannot be read.
    """

    items: list[Item]
    before: int
    after: int
    unchanged: int
    left_out: list[Omission]


def resize(
    items: Sequence[Item],
    source: Path,
    out: Path,
    progress: Callable[[int], None],
    *,
    side: int,
    crop: bool,
    quality: int,
) -> Resized:
    """Copy the pictures of a data set, smaller, and its index.

    Shrunk by area, upright; never enlarged. A picture that needs no change is copied byte for byte.

    Args:
        items: of the data set.
        source: its folder.
        out: see `copying.target`.
        progress: called with the number of pictures done.
        side: the shortest side of the copies, in pixels.
        crop: whether to keep the centred square only.
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        ConfigurationError: see `copying.target`.
        BitternError: no picture can be read, or the disk takes no more.
    """
    with copying.target(source, out) as into:
        return _resize(items, into, progress, side, crop, quality)


class _Copy(NamedTuple):
    """A picture's file before and after, and the suffix that it needs; None to keep the one that it has."""

    before: int
    data: bytes
    suffix: str | None


def _resize(
    items: Sequence[Item], into: Destination, progress: Callable[[int], None], side: int, crop: bool, quality: int
) -> Resized:
    done: list[Item] = []
    left_out: list[Omission] = []
    before = after = unchanged = 0
    taken = {item.name for item in items}
    copies = parallel.finished(lambda item: _copy(item, side, crop, quality), items)
    for count, (item, future) in enumerate(copies, 1):
        try:
            copy = future.result()
        except PictureError as error:
            left_out.append(Omission(item.name, str(error).removeprefix(f"{item.path}: ")))
        else:
            name = item.name
            if copy.suffix is not None and posixpath.splitext(name)[1].lower() != copy.suffix:
                name = posixpath.splitext(name)[0] + copy.suffix
                name = item.name + copy.suffix if name in taken else name
                taken.add(name)
            (into.staging / name).parent.mkdir(parents=True, exist_ok=True)
            (into.staging / name).write_bytes(copy.data)
            done.append(item._replace(path=into.folder / name, name=name))
            before, after = before + copy.before, after + len(copy.data)
            unchanged += copy.suffix is None
        progress(count)
    if not done:
        why = f": {left_out[0].name}: {left_out[0].reason}" if left_out else ""
        raise BitternError(f"none of {len(items)} pictures could be read{why}")
    copying.finish(into, done)
    return Resized(done, before, after, unchanged, left_out)


def _copy(item: Item, side: int, crop: bool, quality: int) -> _Copy:
    data = pictures.read(item.path)
    frame = pictures.decode_bytes(data, str(item.path))
    height, width = frame.shape[:2]
    if min(height, width) <= side and (height == width or not crop):
        return _Copy(len(data), data, None)
    if crop:
        frame = preprocess.square_of(frame)
    scale = side / min(frame.shape[:2])
    if scale < 1:
        size = [max(side, round(n * scale)) for n in frame.shape[1::-1]]
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    header = picture_header.read(data)
    assert header is not None, "it has been decoded"
    suffix, words = ".png", []
    if header.kind in _CODED:
        suffix, words = {"JPEG": ".jpg", "WebP": ".webp"}[header.kind], [_CODED[header.kind], quality]
    ok, coded = cv2.imencode(suffix, frame, words)
    assert ok
    own = posixpath.splitext(item.name)[1].lower()
    return _Copy(len(data), coded.tobytes(), own if header.kind == "JPEG" and own in (".jpg", ".jpeg") else suffix)
