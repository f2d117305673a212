"""The pictures of a task: gathered from its data sets, derived splits and groups, drawn pictures, augmented copies."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from bittern.errors import ConfigurationError, PictureError
from bittern.evaluation import dataset
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern.model import pictures, preprocess
from bittern.model.preprocess import View
from bittern.scene import street
from bittern.system import fileio
from bittern_convert.corruption import CORRUPTIONS, corrupt
from bittern_convert.task import Augment, Task
from bittern_train import augment
from bittern_train.pasting import paste_sign

# Of the pictures of a folder without an index, this share becomes the test split.
TEST_SHARE = 0.2
# Two pictures whose 64-bit perceptual hashes differ in at most this many bits share a group.
NEAR_BITS = 6

# Side in pixels that a photograph is enlarged to before a sign is drawn into it.
_LEAST_SIDE = 96
_USED = (*dataset.CHOICE_SPLITS, dataset.EXTRA_SPLIT)
# Longer pictures are cut to this shape, still centred, where only the centre is looked at.
WIDEST = 1.8
# Samples whose copies are made ahead of the network.
_PART = 64

Kind = Literal["photo", "street", "pasted"]
# Rounds a seed to independent generators: one for every picture and copy, whatever else is drawn.
_COPY, _STREET, _PASTE, _SPLIT, _HARM = range(5)
# Harmed versions of every picture that chooses: each gets so many of the corruptions, and every corruption as often.
HARMED = 2


class Photo(NamedTuple):
    """What is kept of a picture that was read.

    Attributes:
        frame: (H, W, 3) uint8 BGR, of the task's region; cut and shrunk to save memory (see `readable`).
        exact: what the network sees of the picture where `frame` was shrunk, which cannot give it any more: of the
            centre, and if it chooses of each of the task's views, (1, 224, 224, 3) uint8 RGB. Else empty.
    """

    frame: Pixels
    exact: dict[View, Pixels]


class Sample(NamedTuple):
    """One picture of the pool.

    Attributes:
        item: where it is from; for a street drawn by our own code there is no file.
        target: index of its label.
        kind: a photograph, a drawn street, or a photograph with a drawn sign.
        chooses: whether it may be validated on (splits train and val, photographs).
    """

    item: Item
    target: int
    kind: Kind
    chooses: bool


def gather(task: Task, root: Path, seed: int) -> tuple[list[Sample], list[Item]]:
    """The pictures that a task may train on and choose with.

    Returns:
        The pool, and every item that is trained on, chosen with or reported on: its label set, its one column "set"
        the data set that it is from.

    Raises:
        ConfigurationError: data is missing, a label is unknown, a class has too few pictures, or a picture that is
            looked at here does not hold the task's region.
    """
    pool: list[Sample] = []
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
            items = [i._replace(split=dataset.EXTRA_SPLIT) for i in items if i.split in (*_USED, "")]
            if not items:
                raise ConfigurationError(f"{root / data.path}: extra = true, but none of its splits may be trained on")
        elif without:
            items = _derive_splits(task, items, seed)
        for item in items:
            used = item.split in _USED
            if not used and item.split not in data.report:
                continue
            label = data.label or item.label
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
            if used:
                pool.append(Sample(own, task.labels.index(label), "photo", item.split in dataset.CHOICE_SPLITS))
    crossing = {i.group for i in everything if i.split not in _USED} & {s.item.group for s in pool}
    if crossing:
        raise ConfigurationError(
            f"{root}: group {min(crossing)!r} is on both sides of a split ({len(crossing)} such groups): "
            "near-duplicates of test pictures must not be trained on"
        )
    return pool, everything


def check_classes(task: Task, pool: Sequence[Sample]) -> None:
    """Raises ConfigurationError when a label has too few groups for the k-fold."""
    for target, label in enumerate(task.labels):
        groups = {s.item.group for s in pool if s.chooses and s.target == target}
        if len(groups) < task.recipe.folds:
            raise ConfigurationError(
                f"label {label!r} has {len(groups)} distinct pictures in train + val, at least {task.recipe.folds} "
                f"are needed for {task.recipe.folds} folds: add pictures, or lower recipe.folds"
            )


def add_drawn(task: Task, pool: list[Sample], seed: int) -> list[Sample]:
    """The pool with the drawn pictures that the task asks for; a pasted one keeps its photograph's group."""
    drawn = task.drawn
    if drawn is None:
        return pool
    targets = [task.labels.index(drawn.without_sign), task.labels.index(drawn.with_sign)]
    added = [
        Sample(Item(Path(), f"drawn/street-{i}", drawn.with_sign, "extra", f"drawn-{i}", {}), targets[i % 2],
               "street", False)
        for i in range(drawn.streets)
    ]  # fmt: skip
    plain = [s for s in pool if s.target == targets[0]]
    order = np.random.default_rng([seed, _PASTE]).permutation(len(plain))[: drawn.pasted]
    added += [plain[i]._replace(target=targets[1], kind="pasted", chooses=False) for i in order]
    return pool + added


def readable(
    task: Task, pool: Sequence[Sample], progress: Callable[[Iterator[Photo | str]], Iterator[Photo | str]]
) -> tuple[list[Sample], list[Photo], list[str]]:
    """Decode the pool once.

    Returns:
        The samples that can be read; of each what is kept (at most WIDEST times as long as it is wide, or as wide as
        it is where the task has side views; shrunk by a whole factor where the shorter side is four times augment.SIDE
        or more); and a line for each file that was skipped.

    Raises:
        ConfigurationError: the task's region does not fit into a picture: it is not of the camera that the region is
            for, and to leave out every such picture would train on something else than what was asked for.
    """
    kept: list[Sample] = []
    photos: list[Photo] = []
    skipped: list[str] = []
    with ThreadPoolExecutor() as threads:
        for sample, got in zip(pool, progress(threads.map(partial(_read, task), pool)), strict=True):
            if isinstance(got, str):
                skipped.append(got)
            else:
                kept.append(sample)
                photos.append(got)
    return kept, photos, sorted(set(skipped))


def _read(task: Task, sample: Sample) -> Photo | str:
    if sample.kind == "street":
        return Photo(np.empty((0, 0, 3), np.uint8), {})
    try:
        whole = frame = _decode(task, sample.item)
    except PictureError as error:
        return str(error)
    side = min(frame.shape[:2])
    factor = max(1, side // (2 * augment.SIDE))
    # Still centred, so that the centred square of what is kept is that of the frame.
    height, width = (min(n, int(WIDEST * side)) for n in frame.shape[:2])
    if task.views != preprocess.CENTER:
        width = frame.shape[1]
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    frame = frame[top : top + height, left : left + width]
    if factor == 1:
        return Photo(frame.copy(), {})
    small = [n // factor for n in (width, height)]
    views = preprocess.views_of(whole, None, task.views) if sample.chooses else ()
    centre = preprocess.CENTER if sample.kind == "photo" else ()
    exact = {view: preprocess.preprocess(whole, view=view) for view in (*centre, *views)}
    return Photo(np.asarray(cv2.resize(frame, small, interpolation=cv2.INTER_AREA), np.uint8), exact)


def _unaltered(task: Task, sample: Sample, frame: Pixels, seed: int, number: int) -> Pixels:
    """The unaltered picture of a sample, (H, W, 3) uint8 BGR; drawn things are drawn anew for every copy."""
    if sample.kind == "photo":
        return frame
    assert task.drawn is not None
    stop = sample.target == task.labels.index(task.drawn.with_sign)
    rng = np.random.default_rng([seed, _STREET, _stable(sample), number])
    if sample.kind == "street":
        return np.ascontiguousarray(street.random_picture(rng, stop=stop)[:, :, ::-1])
    return _paste(rng, frame, stop=True)


def _paste(rng: np.random.Generator, frame: Pixels, *, stop: bool) -> Pixels:
    square = preprocess.square_of(frame)
    if square.shape[0] < _LEAST_SIDE:
        square = preprocess.resize_exact(square, _LEAST_SIDE)
    return np.ascontiguousarray(paste_sign(rng, square[:, :, ::-1], stop=stop)[:, :, ::-1])


def copies(
    task: Task, samples: Sequence[Sample], photos: Sequence[Photo], seed: int, numbers: Sequence[int]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Every sample's copies of the given numbers, through the contract: (copies, size, size, 3) uint8 RGB each.

    Copy 0 is the picture itself; the others are altered. The same seed gives the same copies.
    """

    def one(at: int) -> npt.NDArray[np.uint8]:
        return np.concatenate([_copy(task, samples[at], photos[at], seed, number) for number in numbers])

    yield from _in_parts(one, len(samples))


def _decode(task: Task, item: Item) -> Pixels:
    frame = pictures.decode(item.path)
    try:
        return preprocess.region_of(frame, task.region)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{item.path}: {error}: a task with a region takes photographs of the one camera that it is for"
        ) from None


def seen(task: Task, photos: Sequence[Photo]) -> Iterator[npt.NDArray[np.uint8]]:
    """The task's views of photographs, (views, 224, 224, 3) uint8 RGB each."""
    yield from _in_parts(lambda at: _views(task, photos[at]), len(photos))


def _views(task: Task, photo: Photo) -> npt.NDArray[np.uint8]:
    there = preprocess.views_of(photo.frame, None, task.views)
    if photo.exact:  # the shrunk frame may be a square where the picture is none
        there = [view for view in task.views if view in photo.exact] or preprocess.CENTER
    made = np.concatenate(
        [photo.exact[view] if view in photo.exact else preprocess.preprocess(photo.frame, view=view) for view in there]
    )
    # A frame with one square only: as many of it, so that the rule by which a view decides has nothing to choose from.
    return made if len(there) == len(task.views) else made.repeat(len(task.views), axis=0)


def harmed(task: Task, photos: Sequence[Photo], seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    """HARMED versions of photographs, each view of them as a bad camera would have taken it.

    Returns:
        (HARMED * views, 224, 224, 3) uint8 RGB each: all views of the first version, then of the next.
    """
    kinds = len(CORRUPTIONS)
    order = np.random.default_rng([seed, _HARM]).permutation(len(photos))

    def one(at: int) -> npt.NDArray[np.uint8]:
        plain = _views(task, photos[at])
        number = int(order[at]) * HARMED
        return np.stack(
            [corrupt(p, CORRUPTIONS[(number + i) % kinds], number + i) for i in range(HARMED) for p in plain]
        )

    yield from _in_parts(one, len(photos))


def _in_parts(one: Callable[[int], npt.NDArray[np.uint8]], of: int) -> Iterator[npt.NDArray[np.uint8]]:
    with ThreadPoolExecutor() as threads:
        # In parts: all at once would pile up in memory when the network is slower than the drawing.
        for start in range(0, of, _PART):
            yield from threads.map(one, range(start, min(start + _PART, of)))


def _copy(task: Task, sample: Sample, photo: Photo, seed: int, number: int) -> npt.NDArray[np.uint8]:
    """One copy, as the network sees it: (1, 224, 224, 3) uint8 RGB."""
    if number == 0 and photo.exact:
        return photo.exact["center"]
    picture = _unaltered(task, sample, photo.frame, seed, number)
    if number == 0:
        return preprocess.preprocess(picture)
    how: Augment = task.augment
    rng = np.random.default_rng([seed, _COPY, _stable(sample), number])
    drawn = task.drawn
    if (
        drawn is not None
        and sample.kind == "photo"
        and task.labels[sample.target] == drawn.without_sign
        and rng.random() < how.other_signs
    ):
        picture = _paste(rng, picture, stop=False)
    return preprocess.preprocess(augment.alter(rng, picture, how))


def _stable(sample: Sample) -> int:
    # A number of the picture's own, so that adding pictures does not change the copies of the others.
    text = f"{sample.kind}:{sample.item.name}:{sample.item.group}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def _derive_splits(task: Task, items: list[Item], seed: int) -> list[Item]:
    """Groups of near-duplicates and of the index, and a seeded split train / test that none crosses, label by label."""
    groups = _near_duplicates(task, items)
    by_label: dict[str, dict[int, list[int]]] = {}
    for at, (item, group) in enumerate(zip(items, groups, strict=True)):
        by_label.setdefault(item.label or "", {}).setdefault(group, []).append(at)
    in_test: set[int] = set()
    seen: set[int] = set()
    for label in sorted(by_label):
        of_label = by_label[label]
        free = [g for g in sorted(of_label) if g not in seen]  # a group with two labels keeps its first side
        seen.update(free)
        order = np.random.default_rng([seed, _SPLIT, len(seen)]).permutation(len(free))
        wanted = TEST_SHARE * sum(len(of_label[g]) for g in free)
        taken = 0
        for i in order:
            size = len(of_label[free[i]])
            if taken + size / 2 > wanted:
                break
            in_test.add(free[i])
            taken += size
    return [
        i._replace(split="test" if g in in_test else "train", group=f"g{g:05d}")
        for i, g in zip(items, groups, strict=True)
    ]


def _near_duplicates(task: Task, items: Sequence[Item]) -> list[int]:
    import imagehash
    from PIL import Image

    bits: list[npt.NDArray[np.bool_] | None] = []
    for item in items:
        try:
            bgr = _decode(task, item)
        except PictureError:
            bits.append(None)
            continue
        bits.append(imagehash.phash(Image.fromarray(bgr[:, :, ::-1])).hash.ravel())
    parent = list(range(len(items)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    there = [i for i, b in enumerate(bits) if b is not None]
    table = np.array([bits[i] for i in there], np.float32).reshape(len(there), -1) * 2 - 1
    for row, i in enumerate(there):
        # of ±1 vectors the product is 64 - 2 * (bits that differ)
        near = np.flatnonzero(table[row + 1 :] @ table[row] >= 64 - 2 * NEAR_BITS)
        for other in near:
            parent[root(there[row + 1 + other])] = root(i)
    first: dict[str, int] = {}
    for i, item in enumerate(items):
        if item.group:
            parent[root(i)] = root(first.setdefault(item.group, i))
    return [root(i) for i in range(len(items))]


def write_index(file: Path, items: Sequence[Item]) -> None:
    """Write the index that a run really used; names are relative to the folder of its data."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split", "group", "set"])
    for item in items:
        writer.writerow([item.name, item.label, item.split, item.group, item.columns["set"]])
    fileio.write(file, text.getvalue().encode())
