"""Copies labelled pictures of others into a data set of our own: whole, or a crop around each box."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import cv2

from bittern.errors import BitternError, PictureError, one_line, printable
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern.model import picture_header, pictures
from bittern.system import fileio
from bittern_convert import parallel
from bittern_train.data import copying
from bittern_train.data.copying import Destination
from bittern_train.data.formats import AnnotatedPicture, Box, Contents
from bittern_train.data.tree import Omission, Tree

# A crop with a shorter side shows nothing.
LEAST_SIDE = 8
_SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WebP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "PNM": ".ppm",
    "GIF": ".gif",
}


class Options(NamedTuple):
    """What becomes of the pictures.

    Attributes:
        whole: copy whole pictures also where there are boxes.
        margin: around a box, as a part of its longer side.
        label: of pictures that have none; empty to leave them without.
        split: of all pictures; None to keep what the format says.
    """

    whole: bool = False
    margin: float = 0.1
    label: str = ""
    split: str | None = None


class Imported(NamedTuple):
    """What was done.

    Attributes:
        items: the new rows of the index; none if all pictures are in it already.
        total: the rows of the index, old and new.
        left_out: what is not among them, and why.
        several: pictures with boxes of several labels, of which the largest box gave the label.
    """

    items: list[Item]
    total: int
    left_out: list[Omission]
    several: int


class _Part(NamedTuple):
    """A file that one picture becomes: its content, and what the index says of it."""

    suffix: str
    data: bytes
    label: str
    columns: dict[str, str]


def copy(
    tree: Tree, contents: Contents, out: Path, options: Options, progress: Callable[[int], None], *, add: bool = False
) -> Imported:
    """Copy the pictures into the folder `out`, and write its index.

    A picture that cannot be read is left out. Whole pictures are copied byte for byte, crops of JPEG files are coded as
    JPEG of quality 95, other crops as PNG.

    Args:
        tree: the files.
        contents: what is in them.
        out: see `copying.target`.
        options: what becomes of the pictures.
        progress: called with the number of pictures done.
        add: add to the index that is there. A picture that is there with the same path and bytes is left out.

    Raises:
        ConfigurationError: see `copying.target`.
        BitternError: no picture can be read, or the disk takes no more.
    """
    with copying.target(tree.path, out, add=add) as into:
        return _copy(tree, contents, into, options, progress)


def _copy(
    tree: Tree, contents: Contents, into: Destination, options: Options, progress: Callable[[int], None]
) -> Imported:
    left_out = [*tree.left_out, *contents.left_out]
    by_name = {picture.name: picture for picture in contents.pictures}
    taken = {item.name for item in into.old}
    items: list[Item] = []
    several = 0
    done = known = 0
    # Read one after another: a compressed tar can only be read in its order.
    jobs = ((by_name[name], _read(tree, name)) for name in tree.in_order(by_name))
    for (picture, _), parts in parallel.finished(lambda job: _parts(*job, options), jobs):
        done += 1
        try:
            new, same = _place(picture, parts.result(), into, taken, tree.path.resolve().name, options)
            items += new
            left_out += [Omission(name, "is in the data set already", failed=False) for name in same]
            known += len(same)
            several += options.whole and len({box.label for box in picture.boxes or ()}) > 1
        except _Nothing as error:
            left_out.append(Omission(picture.name, str(error), failed=False))
        except PictureError as error:
            left_out.append(Omission(picture.name, str(error)))
        progress(done)
    if not items and not known:
        why = f": {left_out[-1].name}: {left_out[-1].reason}" if left_out else ""
        raise BitternError(printable(f"{tree.path}: none of {done} pictures could be imported{why}"))
    items.sort(key=lambda item: item.name)
    if items:
        copying.finish(into, items)
    return Imported(items, len(into.old) + len(items), left_out, several)


class _Nothing(PictureError):
    """There is nothing to import in a file, and nobody expects it."""


def _read(tree: Tree, name: str) -> bytes | PictureError:
    try:
        return tree.read(name, pictures.MAX_BYTES)
    except OSError as error:
        return PictureError(one_line(error) if error.strerror is None else error.strerror)


def _parts(picture: AnnotatedPicture, data: bytes | PictureError, options: Options) -> list[_Part]:
    if isinstance(data, PictureError):
        raise data
    name = picture.name
    header = picture_header.read(data)
    if header is None and "." not in posixpath.basename(name):
        raise _Nothing("not a picture")
    cropped = bool(picture.boxes) and not options.whole
    try:
        # A whole picture is copied as it is: that it can be decoded is seen, and sooner, at the smallest size too.
        pixels = pictures.decode_bytes(data, "", at_least=None if cropped else 1)
    except PictureError as error:
        raise PictureError(str(error).removeprefix(": ")) from None
    assert header is not None
    suffix = posixpath.splitext(name)[1] or _SUFFIXES.get(header.kind, "")
    if picture.boxes is None or (not picture.boxes and (options.whole or options.label)):
        return [_Part(suffix, data, picture.label or options.label, {})]
    if not picture.boxes:
        raise _Nothing("no box")
    if options.whole:
        largest = max(picture.boxes, key=lambda box: (box.right - box.left) * (box.bottom - box.top))
        return [_Part(suffix, data, largest.label, {})]
    return _crops(picture, picture.boxes, pixels, options, jpeg=header.kind == "JPEG")


def _crops(
    picture: AnnotatedPicture, boxes: Collection[Box], pixels: Pixels, options: Options, *, jpeg: bool
) -> list[_Part]:
    height, width = pixels.shape[:2]
    if picture.size is not None and picture.size != (width, height):
        raise PictureError(f"its boxes are for {picture.size[0]} x {picture.size[1]} pixels, it has {width} x {height}")
    parts = []
    for box in boxes:
        scale = (width, height) if picture.relative else (1, 1)
        edges = box.left * scale[0], box.top * scale[1], box.right * scale[0], box.bottom * scale[1]
        left, top, right, bottom = crop_of(edges, width, height, options.margin)
        if min(right - left, bottom - top) < LEAST_SIDE or min(edges[2] - edges[0], edges[3] - edges[1]) < 1:
            continue
        crop = pixels[top:bottom, left:right]
        suffix, words = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]) if jpeg else (".png", [])
        ok, data = cv2.imencode(suffix, crop, words)
        assert ok
        columns = {"original": picture.name, "box": f"{left} {top} {right} {bottom}"}
        parts.append(_Part(suffix, data.tobytes(), box.label, columns))
    if not parts:
        raise _Nothing(f"box of less than {LEAST_SIDE} pixels, or outside of the picture")
    return parts


def crop_of(
    edges: tuple[float, float, float, float], width: int, height: int, margin: float
) -> tuple[int, int, int, int]:
    """The square around a box, as the network sees the centred square of a picture: left, top, right, bottom.

    At an edge of the picture it is moved inside; where the picture is too small for it, it is no square.

    Args:
        edges: of the box, in pixels: left, top, right, bottom.
        width: of the picture.
        height: the same.
        margin: on each side, as a part of the box's longer side.
    """
    left, top, right, bottom = edges
    side = max(right - left, bottom - top) * (1 + 2 * margin)
    spans = []
    for low, high, size in ((left, right, width), (top, bottom, height)):
        length = max(1, min(round(side), size))
        start = min(max(round((low + high) / 2 - length / 2), 0), size - length)
        spans.append((start, start + length))
    (x0, x1), (y0, y1) = spans
    return x0, y0, x1, y1


def _place(
    picture: AnnotatedPicture,
    parts: list[_Part],
    into: Destination,
    taken: set[str],
    source: str,
    options: Options,
) -> tuple[list[Item], list[str]]:
    """Write the parts below the staging folder: their rows, and the names of those that are in the data set."""
    items: list[Item] = []
    same: list[str] = []
    stem = posixpath.splitext(_safe(picture.name))[0]
    cropped = picture.boxes is not None and not options.whole and bool(picture.boxes)
    for number, part in enumerate(parts):
        base = f"{stem}-{number + 1}" if cropped else stem
        name = f"{base}{part.suffix}"
        copies = 1
        while name in taken or (into.folder / name).exists():
            if _content(into.folder / name) == part.data:
                break
            copies += 1
            name = f"{base}-{copies}{part.suffix}" if not cropped else f"{base}-of-{copies}{part.suffix}"
        if name in taken:
            same.append(name)
            continue
        taken.add(name)
        target = into.staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(part.data)
        split = picture.split if options.split is None else options.split
        group = picture.group or (picture.name if cropped else "")
        columns = {"source": source, **picture.columns, **part.columns}
        items.append(Item(into.folder / name, name, part.label, split, group, columns))
    return items, same


def _content(file: Path) -> bytes | None:
    try:
        return fileio.read_regular(file, pictures.MAX_BYTES)
    except OSError:
        return None


def _safe(name: str) -> str:
    """A path for the data set: printable Unicode, no part hidden or too long."""
    parts = []
    for part in name.split("/"):
        text = "".join(c if c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF else "_" for c in part)
        stem, suffix = posixpath.splitext(text.lstrip(".") or "_")
        while len(f"{stem}{suffix}".encode()) > 200:
            stem = stem[:-1] if stem else stem
            suffix = suffix if stem else suffix[:-1]
        parts.append(f"{stem}{suffix}")
    return "/".join(parts)
