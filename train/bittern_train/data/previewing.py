"""What training makes of pictures, on one sheet: what the network sees of them, their copies, each corruption."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from bittern.errors import ConfigurationError, PictureError
from bittern.evaluation import dataset
from bittern.evaluation.dataset import Item
from bittern.evaluation.sheet import Tile
from bittern.frames import Pixels
from bittern.model import preprocess
from bittern_convert import copies
from bittern_convert.corruption import CORRUPTIONS, corrupt
from bittern_convert.task import Task

SIDE = 224
COLUMNS = 8
_BLANK = Tile(np.full((SIDE, SIDE, 3), 255, np.uint8), (), False)


def choose(task: Task, root: Path, each: int, seed: int) -> tuple[list[Item], list[str]]:
    """Some pictures of every label of a task, in the order of the labels, of those that may be trained on.

    A data set of the task that cannot be read is left out; why is returned too.

    Args:
        task: with its data sets.
        root: folder that those are in.
        each: how many of each label, where there are so many.
        seed: of the choice.

    Raises:
        ConfigurationError: there is no picture with a label of the task.
    """
    of_label: dict[str, list[Item]] = {label: [] for label in task.labels}
    problems: list[str] = []
    for data in task.data:
        try:
            items = dataset.select(dataset.read(root / data.path), data.where, root / data.path)
        except ConfigurationError as error:
            problems.append(str(error))
            continue
        for item in items:
            label = data.label or item.label
            if label in of_label and item.split in ("", *copies.TRAINED_SPLITS):
                of_label[label].append(item._replace(label=label))
    if not any(of_label.values()):
        why = f" ({problems[0]})" if problems else ""
        raise ConfigurationError(f"{root}: no picture to train on has one of the labels {', '.join(task.labels)}{why}")

    def key(item: Item) -> bytes:
        return hashlib.sha256(f"{seed}:{item.name}".encode("utf-8", "surrogatepass")).digest()

    return [item for label in task.labels for item in sorted(of_label[label], key=key)[:each]], problems


def tiles(task: Task, item: Item, seed: int, count: int, *, corruptions: bool) -> list[Tile]:
    """Tiles of one picture, in whole rows of COLUMNS.

    First the picture with what is cut away darkened, then what the network sees of it in each view, then its augmented
    copies; then, if asked for, every corruption.

    Args:
        task: that the picture is for.
        item: the picture, with a label of the task.
        seed: of the copies, as for training.
        count: how many copies.
        corruptions: whether to show them.

    Raises:
        PictureError: it cannot be decoded.
        ConfigurationError: the task's region does not fit into it.
    """
    target = task.labels.index(item.label or "")
    sample = copies.Sample(item, target, "photo", chooses=True)
    data = copies.read(sample)
    frame = copies.decode(task, item, data)
    views = preprocess.views_of(frame, None, task.views)
    whole = _outlined(task, item, data)
    shown = [Tile(whole, (item.name[-30:], f"{item.label}: darkened is cut away"), task.labels[target] in task.alarm)]
    squares = [preprocess.preprocess(frame, view=view)[0] for view in views]
    shown += [
        Tile(picture, ("what the network sees", "" if view == "center" else view), False)
        for picture, view in zip(squares, views, strict=True)
    ]
    if count:
        (altered,) = copies.draw(task, [sample], [copies.keep(task, sample, data)], seed, range(1, count + 1))
        shown += [Tile(picture, (f"copy {number}", ""), False) for number, picture in enumerate(altered, 1)]
    rows = _rows(shown)
    if corruptions:
        rows += _rows(
            [
                Tile(corrupt(squares[0], corruption, number), (f"{corruption.kind}, {corruption.strength}", ""), False)
                for number, corruption in enumerate(CORRUPTIONS)
            ]
        )
    return rows


def sheet(task: Task, items: Sequence[Item], seed: int, count: int) -> tuple[list[Tile], list[str]]:
    """Tiles of several pictures, the first that can be read with its corruptions; and why others cannot be read."""
    shown: list[Tile] = []
    unreadable: list[str] = []
    for item in items:
        try:
            shown += tiles(task, item, seed, count, corruptions=not shown)
        except PictureError as error:
            unreadable.append(str(error))
    return shown, unreadable


def _rows(row: list[Tile]) -> list[Tile]:
    return row + [_BLANK] * (-len(row) % COLUMNS)


def _outlined(task: Task, item: Item, data: bytes) -> Pixels:
    """The whole picture, (SIDE, SIDE, 3) uint8 RGB on white: each view in a frame, what is outside of them dark."""
    whole = copies.decode(_without_region(task), item, data)
    left, top, width, height = task.region or (0, 0, whole.shape[1], whole.shape[0])
    side = min(width, height)
    starts = {"left": 0, "center": (width - side) // 2, "right": width - side}
    squares = [
        (left + starts[view], top + (height - side) // 2)
        for view in preprocess.views_of(whole, task.field_of_view.region, task.views)
    ]
    dark = whole // 3
    for x, y in squares:
        dark[y : y + side, x : x + side] = whole[y : y + side, x : x + side]
    scale = SIDE / max(whole.shape[:2])
    size = [max(1, round(n * scale)) for n in whole.shape[1::-1]]
    small = cv2.resize(dark, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    for x, y in squares:
        corners = [(round(a * scale), round(b * scale)) for a, b in ((x, y), (x + side - 1, y + side - 1))]
        cv2.rectangle(small, corners[0], corners[1], (40, 200, 255), 1)
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    y0, x0 = (SIDE - small.shape[0]) // 2, (SIDE - small.shape[1]) // 2
    picture[y0 : y0 + small.shape[0], x0 : x0 + small.shape[1]] = small[:, :, ::-1]
    return picture


def _without_region(task: Task) -> Task:
    import msgspec

    return msgspec.structs.replace(task, region=None)
