"""Puts near-duplicates of a data set into one group, and says where they cross labels and splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bittern.errors import PictureError
from bittern.evaluation import dataset, sheet
from bittern.evaluation.dataset import Item
from bittern.evaluation.sheet import Tile
from bittern.frames import Pixels
from bittern.model import pictures
from bittern.system.progress import Progress, counted
from bittern_convert import parallel
from bittern_train.data import near_duplicates, thumbnails
from bittern_train.data.near_duplicates import Likeness, Match

# Side of a picture on the contact sheet, pictures of a group and pictures of the sheet that are shown.
_SIDE = 160
_SHOWN_OF_GROUP = 12
_SHOWN = 360
_COLUMNS = 6


class Cluster(NamedTuple):
    """Pictures that are near-duplicates of each other.

    Attributes:
        items: at least two, in the order of the index.
        kinds: how they were found, see `near_duplicates.Match`.
    """

    items: list[Item]
    kinds: list[str]

    @property
    def labels(self) -> list[str]:
        """Those that they have."""
        return sorted({item.label for item in self.items if item.label})

    @property
    def splits(self) -> list[str]:
        """Those that they are in."""
        return sorted({item.split for item in self.items if item.split})


class Duplicates(NamedTuple):
    """The near-duplicates of a data set.

    Attributes:
        items: all pictures, each with its group: that of the index, joined with those that it has near-duplicates in.
        clusters: the near-duplicates, in the order of the index.
        pixels: of each picture that could be decoded, by name.
        unreadable: a line for each picture that could not.
    """

    items: list[Item]
    clusters: list[Cluster]
    pixels: dict[str, int]
    unreadable: list[str]

    @property
    def distinct(self) -> int:
        """How many of the pictures that could be read are no near-duplicate of an earlier one."""
        return len(self.pixels) - sum(len(cluster.items) - 1 for cluster in self.clusters)


class _Picture(NamedTuple):
    sha256: bytes
    pixels: int
    likeness: Likeness


def find(items: Sequence[Item], progress: Progress) -> Duplicates:
    """Compare all pictures with each other, and join the groups of near-duplicates. No group is ever split."""

    def read(item: Item) -> _Picture | str:
        try:
            data = pictures.read(item.path)
            picture = pictures.decode_bytes(data, str(item.path))
        except PictureError as error:
            return str(error)
        height, width = picture.shape[:2]
        return _Picture(hashlib.sha256(data).digest(), height * width, near_duplicates.describe(picture))

    positions: list[int] = []
    readable: list[_Picture] = []
    unreadable: list[str] = []
    for position, result in enumerate(counted(parallel.results(read, items), progress, "read pictures", len(items))):
        if isinstance(result, str):
            unreadable.append(result)
        else:
            positions.append(position)
            readable.append(result)
    pairs = near_duplicates.find_in_files([(picture.sha256, picture.likeness) for picture in readable], progress)
    pixels = {items[i].name: picture.pixels for i, picture in zip(positions, readable, strict=True)}
    placed = [Match(positions[p.first], positions[p.second], p.kind) for p in pairs]
    return Duplicates(_regroup(items, placed), _clusters(items, placed), pixels, unreadable)


def _clusters(items: Sequence[Item], pairs: Sequence[Match]) -> list[Cluster]:
    heads = near_duplicates.groups(len(items), ((p.first, p.second) for p in pairs))
    members: dict[int, list[Item]] = {heads[p.first]: [] for p in sorted(pairs)}
    kinds: dict[int, set[str]] = {head: set() for head in members}
    for i, item in enumerate(items):
        if heads[i] in members:
            members[heads[i]].append(item)
    for pair in pairs:
        kinds[heads[pair.first]].add(pair.kind)
    return [Cluster(members[head], sorted(kinds[head])) for head in sorted(members)]


def _regroup(items: Sequence[Item], pairs: Sequence[Match]) -> list[Item]:
    """The items with their groups joined: the new one is called like the first group in it, else like its picture."""
    ties = [(pair.first, pair.second) for pair in pairs] + near_duplicates.ties([item.group for item in items])
    heads = near_duplicates.groups(len(items), ties)
    names: dict[int, str] = {}
    for i, item in enumerate(items):
        if item.group:
            names.setdefault(heads[i], item.group)
    tied = {i for tie in ties for i in tie}
    taken = {item.group for item in items}
    regrouped = []
    for i, item in enumerate(items):
        if i in tied and heads[i] not in names:
            name = items[heads[i]].name
            while name in taken:  # somebody called another group so
                name += "+"
            names[heads[i]] = name
            taken.add(name)
        regrouped.append(item._replace(group=names[heads[i]]) if i in tied else item)
    return regrouped


def without(duplicates: Duplicates) -> tuple[list[Item], list[Cluster]]:
    """The items with one picture left of each cluster, and the clusters of which all are left: their labels differ.

    What is left has a label, if one of them has. It is one that is reported on, if there is one, so that no test set
    shrinks for the sake of training pictures; then one of val, of train, and of what has no split; among these the one
    with the most pixels.
    """
    dropped: set[str] = set()
    doubtful = []
    for cluster in duplicates.clusters:
        if len(cluster.labels) > 1:
            doubtful.append(cluster)
            continue
        ranked = sorted(cluster.items, key=lambda i: (not i.label, _rank(i.split), -duplicates.pixels[i.name]))
        dropped |= {item.name for item in ranked[1:]}
    return [item for item in duplicates.items if item.name not in dropped], doubtful


def _rank(split: str) -> int:
    order = (*reversed(dataset.CHOICE_SPLITS), dataset.EXTRA_SPLIT, "")
    return order.index(split) + 1 if split in order else 0


def write_sheet(file: Path, clusters: Sequence[Cluster]) -> int:
    """Write a contact sheet of clusters, those with several labels or splits first and in red.

    Returns:
        How many of the clusters are on it.

    Raises:
        ValueError: there is none.
        OSError: it cannot be written.
    """
    ordered = sorted(enumerate(clusters), key=lambda c: (len(c[1].labels) < 2, len(c[1].splits) < 2, c[0]))
    tiles: list[Tile] = []
    shown = 0
    for number, cluster in ordered:
        if len(tiles) + min(len(cluster.items), _SHOWN_OF_GROUP) > _SHOWN:
            break
        shown += 1
        crosses = len(cluster.labels) > 1 or len(cluster.splits) > 1
        for item in cluster.items[:_SHOWN_OF_GROUP]:
            what = " ".join(filter(None, (f"{number + 1}:", item.label, item.split)))
            tiles.append(Tile(_tile(item.path), (what, Path(item.name).name), crosses))
    sheet.write(file, tiles, _COLUMNS)
    return shown


def _tile(file: Path) -> Pixels:
    """(_SIDE, _SIDE, 3) uint8 RGB: the whole picture on white; white alone if it cannot be read any more."""
    square = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    small = thumbnails.read(file, _SIDE)
    if small is not None:
        height, width = small.shape[:2]
        top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
        square[top : top + height, left : left + width] = small[:, :, ::-1]
    return square
