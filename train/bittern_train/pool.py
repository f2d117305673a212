"""The pictures of a task: gathered from its data sets, with splits and groups derived where they have none, decoded."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from bittern.errors import ConfigurationError, PictureError
from bittern.evaluation import dataset
from bittern.evaluation.dataset import Item
from bittern.model import pictures, preprocess
from bittern.system import fileio
from bittern.system.progress import Progress, counted
from bittern_convert import copies, parallel
from bittern_convert.copies import Photo, Sample
from bittern_convert.corruption import CORRUPTIONS, corrupt
from bittern_convert.corruption import SIZE as CORRUPTED_SIZE
from bittern_convert.task import Data, Task
from bittern_train.data import near_duplicates
from bittern_train.data.near_duplicates import Likeness

# Of the pictures of a folder without an index, this share becomes the test split.
TEST_SHARE = 0.2
# Beside a seed, what makes a generator of its own for each purpose (`bittern_convert.copies` has 0 to 2).
_SPLIT, _CORRUPTION = 3, 4
# Corrupted versions of every picture that chooses: each gets so many of the corruptions, and every corruption equally
# often.
CORRUPTED = 2
# Decoded pictures above this many bytes are not held.
IN_MEMORY = 500_000_000


class Photos(Sequence[Photo]):
    """Pictures that could be decoded: held up to IN_MEMORY bytes of them, the others read again when they are used.

    A file that is gone by then raises PictureError.
    """

    def __init__(self, task: Task) -> None:
        self._task, self._bytes = task, 0
        self._held: list[Photo | Sample] = []

    def append(self, sample: Sample, photo: Photo) -> None:
        """Hold one, if there is room."""
        self._bytes += photo.frame.nbytes + sum(tensor.nbytes for tensor in photo.exact.values())
        self._held.append(photo if self._bytes <= IN_MEMORY else sample)

    def some(self, positions: Sequence[int] | npt.NDArray[np.intp]) -> Photos:
        """Those at these positions."""
        chosen = Photos(self._task)
        chosen._held = [self._held[i] for i in positions]
        return chosen

    def __len__(self) -> int:
        return len(self._held)

    @overload
    def __getitem__(self, position: int) -> Photo: ...
    @overload
    def __getitem__(self, position: slice) -> list[Photo]: ...
    def __getitem__(self, position: int | slice) -> Photo | list[Photo]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        held = self._held[position]
        return held if isinstance(held, Photo) else copies.keep(self._task, held, copies.read(held))


class Decoded(NamedTuple):
    """Samples whose pictures could be decoded.

    Attributes:
        samples: those.
        photos: what is kept of each.
        positions: of each among the samples that were to be decoded.
        skipped: a line for each file that cannot be read.
        digests: sha256 (hex) of each file as it was read, by the name of its item; also of those that cannot be
            decoded.
    """

    samples: list[Sample]
    photos: Photos
    positions: list[int]
    skipped: list[str]
    digests: dict[str, str]


def gather(task: Task, root: Path, seed: int, progress: Progress) -> tuple[list[Sample], list[Item]]:
    """The pictures that a task may train on and choose with.

    Returns:
        The photographs to train on, and every item that is trained on, chosen with or reported on: its label set, its
        one column "set" the data set that it is from.

    Raises:
        ConfigurationError: data is missing, a label is unknown, a class has too few pictures, or a picture that is
            decoded here does not hold the task's region.
    """
    everything: list[Item] = []
    for data in task.data:
        items = dataset.select(dataset.read(root / data.path), data.where, root / data.path)
        without = sum(not i.split for i in items)
        if 0 < without < len(items):
            raise ConfigurationError(
                f"{root / data.path}: {without} of {len(items)} pictures have no split in the index: give each of them "
                "one (train, val, test or extra), or none at all"
            )
        if data.extra:
            items = [i._replace(split=dataset.EXTRA_SPLIT) for i in items if i.split in (*copies.TRAINED_SPLITS, "")]
            if not items:
                raise ConfigurationError(f"{root / data.path}: extra = true, but none of its splits may be trained on")
        elif without:
            items = _derive_splits(task, items, seed, progress)
        items = _without_left_out(data, items, root)
        labels = {e.path: e.label for e in data.errata}
        if data.most is not None:
            items = _at_most(items, data.most)
        for item in items:
            used = item.split in copies.TRAINED_SPLITS
            if not used and item.split not in data.report:
                continue
            label = labels.get(item.name) or data.label or item.label
            if label not in task.labels:
                raise ConfigurationError(
                    f"{item.path}: label {label!r} is not one of the task's: {', '.join(task.labels)}"
                )
            if used and data.without_note is not None and data.without_note in item.columns.get("note", ""):
                continue
            # The name is relative to `root`, so that it is the picture's own among all data sets of the task.
            name = (Path(data.path) / item.name).as_posix()
            group = (Path(data.path) / item.group).as_posix() if item.group else name
            own = item._replace(name=name, label=label, group=group, columns={"set": data.path or root.name})
            everything.append(own)
    samples = copies.photographs(task, everything)
    crossing = {i.group for i in everything if i.split not in copies.TRAINED_SPLITS} & {s.item.group for s in samples}
    if crossing:
        raise ConfigurationError(
            f"{root}: group {min(crossing)!r} is on both sides of a split ({len(crossing)} such groups): "
            "near-duplicates of test pictures must not be trained on"
        )
    return samples, everything


def _without_left_out(data: Data, items: list[Item], root: Path) -> list[Item]:
    """The items but those that the task leaves out."""
    splits = {item.name: item.split for item in items}
    for erratum in data.errata:
        split = splits.get(erratum.path)
        if split not in copies.TRAINED_SPLITS:
            what = "is not among its pictures" if split is None else f"is of the split {split!r}"
            raise ConfigurationError(
                f"{root / data.path}: {erratum.path} {what}: errata are of what is trained on or chosen with"
            )
    left_out = {e.path for e in data.errata if e.label is None}
    return [item for item in items if item.name not in left_out]


def _at_most(items: list[Item], most: int) -> list[Item]:
    """So many of them, in their order: first one of every group, then another one of every group, and so on."""
    hashes = {item.name: hashlib.sha256(item.name.encode()).digest() for item in items}
    taken: Counter[str] = Counter()
    ranked = []
    for item in sorted(items, key=lambda i: hashes[i.name]):
        group = item.group or item.name
        ranked.append((taken[group], hashes[item.name], item.name))
        taken[group] += 1
    chosen = {name for *_, name in sorted(ranked)[:most]}
    return [item for item in items if item.name in chosen]


def check_classes(task: Task, samples: Sequence[Sample]) -> None:
    """Raises ConfigurationError when a label has too few groups for the k-fold, or for one fold none to train on."""
    splits = " + ".join(copies.choice_splits(task))
    remedy = "lower recipe.folds" if task.recipe.folds > 1 else "take more than one fold, which needs no split val"
    for target, label in enumerate(task.labels):
        groups = {s.item.group for s in samples if s.chooses and s.target == target}
        if len(groups) < task.recipe.folds:
            raise ConfigurationError(
                f"label {label!r} has {len(groups)} distinct pictures in {splits}, at least {task.recipe.folds} "
                f"are needed for {task.recipe.folds} folds: add pictures, or {remedy}"
            )
    if task.recipe.folds > 1:
        return
    validated = {s.item.group for s in samples if s.chooses}
    trained = {s.target for s in samples if s.item.group not in validated}
    for target, label in enumerate(task.labels):
        if target not in trained:
            raise ConfigurationError(
                f"label {label!r} has pictures in {splits}, but none to train on: add some to train or extra, of "
                f"groups that are not in {splits}, or {remedy}"
            )


def decode(task: Task, samples: Sequence[Sample], progress: Progress) -> Decoded:
    """Decode every sample's picture, so that all that cannot be read are known before the training starts.

    Raises:
        ConfigurationError: the task's region does not fit into a picture: it is not of the camera that the region is
            for, and to leave out every such picture would train on something else than what was asked for.
    """

    def one(sample: Sample) -> tuple[str | None, Photo | str]:
        sha256 = None
        try:
            data = copies.read(sample)
            sha256 = hashlib.sha256(data).hexdigest()
            return sha256, copies.keep(task, sample, data)
        except PictureError as error:
            return sha256, str(error)

    decoded = Decoded([], Photos(task), [], [], {})
    skipped = set()
    photos = counted(parallel.results(one, samples), progress, "read pictures", len(samples))
    for position, (sample, (sha256, photo)) in enumerate(zip(samples, photos, strict=True)):
        if sha256 is not None and sample.kind != "street":
            decoded.digests[sample.item.name] = sha256
        if isinstance(photo, str):
            skipped.add(photo)
        else:
            decoded.samples.append(sample)
            decoded.photos.append(sample, photo)
            decoded.positions.append(position)
    return decoded._replace(skipped=sorted(skipped))


def two_labels(task: Task, decoded: Decoded) -> str | None:
    """A line on files that are trained on under two labels, byte by byte the same; None without any."""
    first: dict[str, Sample] = {}
    pairs: dict[str, tuple[Sample, Sample]] = {}
    for sample in decoded.samples:
        if sample.kind == "photo":
            digest = decoded.digests[sample.item.name]
            other = first.setdefault(digest, sample)
            if other.target != sample.target:
                pairs.setdefault(digest, (other, sample))
    if not pairs:
        return None
    a, b = (f"{s.item.name} is {task.labels[s.target]!r}" for s in next(iter(pairs.values())))
    return f"pictures with two labels: {len(pairs)} ({a}, {b}); both are learned, `bittern data check` shows them"


def viewed(task: Task, photos: Sequence[Photo]) -> Iterator[npt.NDArray[np.uint8]]:
    """The task's views of photographs, (views, size, size, 3) uint8 RGB each."""
    return parallel.results(lambda position: _views(task, photos[position], task.backbone.size), range(len(photos)))


def _views(task: Task, photo: Photo, size: int) -> npt.NDArray[np.uint8]:
    different = preprocess.views_of(photo.frame, None, task.views)
    exact = photo.exact if size == task.backbone.size else {}
    if photo.exact:  # the shrunk frame may be a square where the picture is none
        different = [view for view in task.views if view in photo.exact] or preprocess.CENTER
    tensors = [
        exact[view] if view in exact else preprocess.preprocess(photo.frame, size=size, view=view) for view in different
    ]
    # A frame with one square only: as many of it, so that the rule by which a view decides has nothing to choose from.
    return np.concatenate(tensors if len(different) == len(task.views) else tensors * len(task.views))


def corrupted(task: Task, photos: Sequence[Photo], seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    """CORRUPTED versions of photographs, each view of them as a bad camera would have taken it.

    Returns:
        (CORRUPTED * views, size, size, 3) uint8 RGB each: all views of the first version, then of the next.
    """
    size = task.backbone.size
    order = np.random.default_rng([seed, _CORRUPTION]).permutation(len(photos))

    def one(position: int) -> npt.NDArray[np.uint8]:
        views = _views(task, photos[position], CORRUPTED_SIZE)
        first = int(order[position]) * CORRUPTED
        versions = range(first, first + CORRUPTED)
        made = [corrupt(view, CORRUPTIONS[n % len(CORRUPTIONS)], n) for n in versions for view in views]
        return np.stack([preprocess.resize_exact(picture, size) for picture in made])

    return parallel.results(one, range(len(photos)))


def _derive_splits(task: Task, items: list[Item], seed: int, progress: Progress) -> list[Item]:
    """Groups of near-duplicates and of the index, and for each label a seeded split train / test that none crosses."""
    groups = _near_duplicates(task, items, progress)
    by_label: dict[str, dict[int, list[int]]] = {}
    for position, (item, group) in enumerate(zip(items, groups, strict=True)):
        by_label.setdefault(item.label or "", {}).setdefault(group, []).append(position)
    in_test: set[int] = set()
    assigned: set[int] = set()
    for label in sorted(by_label):
        sizes = {group: len(positions) for group, positions in by_label[label].items()}
        free = [g for g in sorted(sizes) if g not in assigned]  # a group with two labels keeps its first side
        assigned.update(free)
        order = np.random.default_rng([seed, _SPLIT, len(assigned)]).permutation(len(free))
        target = TEST_SHARE * sum(sizes[g] for g in free)
        tested = 0
        for i in order:
            if tested + sizes[free[i]] / 2 > target:
                break
            in_test.add(free[i])
            tested += sizes[free[i]]
    return [
        i._replace(split="test" if g in in_test else "train", group=f"g{g:05d}")
        for i, g in zip(items, groups, strict=True)
    ]


def _near_duplicates(task: Task, items: Sequence[Item], progress: Progress) -> list[int]:
    """For each item the first one of its group: near-duplicates of each other, or one group of the index."""

    def one(item: Item) -> Likeness | None:
        try:
            return near_duplicates.describe(copies.decode(task, item, pictures.read(item.path)))
        except PictureError:
            return None

    read = list(counted(parallel.results(one, items), progress, "compare pictures", len(items)))
    positions = [position for position, likeness in enumerate(read) if likeness is not None]
    pairs = near_duplicates.find([likeness for likeness in read if likeness is not None], progress)
    ties = [(positions[pair.first], positions[pair.second]) for pair in pairs]
    ties += near_duplicates.ties([item.group for item in items])
    return near_duplicates.groups(len(items), ties)


def write_index(file: Path, items: Sequence[Item], digests: Mapping[str, str]) -> None:
    """Write the index that a run really used; names are relative to the folder of its data.

    Its column "sha256" is that of the file where the picture was trained on, so that conversion knows it again; empty
    where the file could not be read.

    Args:
        file: the index.
        items: its rows.
        digests: see `Decoded`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split", "group", "set", "sha256"])
    for item in items:
        writer.writerow(
            [item.name, item.label, item.split, item.group, item.columns["set"], digests.get(item.name, "")]
        )
    fileio.write(file, text.getvalue().encode())
