"""Augmented copies of a task's pictures: drawn for training, and again for conversion from what `run.json` keeps."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
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
from bittern.model.manifest import Strict
from bittern.model.preprocess import View
from bittern.scene import street
from bittern_convert import augment, chin_mask, parallel
from bittern_convert.pasting import paste_decoy, paste_sign
from bittern_convert.task import Task

# Side in pixels that a photograph is enlarged to before a sign is drawn into it.
_LEAST_SIDE = 96
# Longer pictures are cut to this shape, still centred, where only the centre is looked at.
WIDEST = 1.8
# Pictures that the processes are given at a time.
_PART = 64
# From this many copies on, starting processes to draw them pays.
WORTH_PROCESSES = 2000
# Splits whose pictures are trained on.
TRAINED_SPLITS = (*dataset.CHOICE_SPLITS, dataset.EXTRA_SPLIT)

Kind = Literal["photo", "street", "pasted"]
KINDS: dict[Kind, str] = {
    "photo": "photographs",
    "street": "drawn streets",
    "pasted": "photographs with a drawn sign",
}
# Beside a seed, what makes a generator of its own for each purpose, picture and copy (`pool` has 3 and 4).
_COPY, _STREET, _PASTE = range(3)


class Photo(NamedTuple):
    """What is kept of a picture that was decoded.

    Attributes:
        frame: (H, W, 3) uint8 BGR, of the task's region; cut and shrunk to save memory (see `keep`).
        exact: what the network sees of the picture where `frame` was shrunk, which cannot give it any more: of the
            centre, and if it chooses of each of the task's views, (1, size, size, 3) uint8 RGB. Else empty.
    """

    frame: Pixels
    exact: dict[View, Pixels]


class Sample(NamedTuple):
    """One picture to train on.

    Attributes:
        item: where it is from; for a street drawn by our own code there is no file.
        target: index of its label.
        kind: a photograph, a drawn street, or a photograph with a drawn sign.
        chooses: whether it may be validated on (photographs of `choice_splits`).
    """

    item: Item
    target: int
    kind: Kind
    chooses: bool


class UnseenCopies(Strict, frozen=True, kw_only=True):
    """Copies that no epoch trains on, for the calibration and the parity check of a run; `redraw` draws them.

    Attributes:
        samples: positions of their pictures among the samples of the run (`photographs`, then `with_drawn`).
        first: number of the first copy of each.
        each: how many copies of each.
        sha256: hex digest of the drawn tensors, picture by picture; empty where conversion draws them first.
    """

    samples: tuple[int, ...]
    first: int
    each: int
    sha256: str


def photographs(task: Task, items: Sequence[Item]) -> list[Sample]:
    """The samples of labelled pictures, in order, of those whose split may be trained on."""
    choosing = choice_splits(task)
    return [
        Sample(item, task.labels.index(item.label or ""), "photo", item.split in choosing)
        for item in items
        if item.split in TRAINED_SPLITS
    ]


def choice_splits(task: Task) -> tuple[str, ...]:
    """The splits whose pictures are validated on: both of the k-fold, or "val" alone."""
    return dataset.CHOICE_SPLITS if task.recipe.folds > 1 else ("val",)


def with_drawn(task: Task, samples: list[Sample], seed: int) -> list[Sample]:
    """The samples and the drawn pictures that the task asks for; a pasted one keeps its photograph's group."""
    drawn = task.drawn
    if drawn is None:
        return samples
    targets = [task.labels.index(drawn.without_sign), task.labels.index(drawn.with_sign)]
    streets = [
        Sample(Item(Path(), f"drawn/street-{i}", drawn.with_sign, "extra", f"drawn-{i}", {}), target, "street", False)
        for i in range(drawn.streets)
        for target in [targets[i % 2]]
    ]
    plain = [s for s in samples if s.target == targets[0]]
    order = np.random.default_rng([seed, _PASTE]).permutation(len(plain))[: drawn.pasted]
    pasted = [plain[i]._replace(target=targets[1], kind="pasted", chooses=False) for i in order]
    return [*samples, *streets, *pasted]


def decode(task: Task, item: Item, data: bytes) -> Pixels:
    """The task's region of a picture, (H, W, 3) uint8 BGR.

    Args:
        task: that the picture is for.
        item: the picture, for the message.
        data: its file.

    Raises:
        PictureError: it cannot be decoded.
        ConfigurationError: the region does not fit into it.
    """
    frame = pictures.decode_bytes(data, str(item.path))
    try:
        return preprocess.region_of(frame, task.region)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{item.path}: {error}: a task with a region takes photographs of the one camera that it is for"
        ) from None


def read(sample: Sample) -> bytes:
    """The file of a sample's picture; empty for a drawn street.

    Raises:
        PictureError: it cannot be read.
    """
    return b"" if sample.kind == "street" else pictures.read(sample.item.path)


def keep(task: Task, sample: Sample, data: bytes) -> Photo:
    """Decode a sample's picture, and keep what its copies are drawn from.

    At most WIDEST times as long as it is wide, or as wide as it is where the task has side views; shrunk by a whole
    factor where the shorter side is four times `task.augment.side` or more.

    Args:
        task: that the sample is for.
        sample: whose picture it is.
        data: see `read`.

    Raises:
        PictureError: it cannot be decoded.
        ConfigurationError: the task's region does not fit into it.
    """
    if sample.kind == "street":
        return Photo(np.empty((0, 0, 3), np.uint8), {})
    whole = decode(task, sample.item, data)
    side = min(whole.shape[:2])
    factor = max(1, side // (2 * task.augment.side))
    # Still centred, so that the centred square of what is kept is that of the picture.
    height, width = (min(n, int(WIDEST * side)) for n in whole.shape[:2])
    if task.views != preprocess.CENTER:
        width = whole.shape[1]
    top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
    frame = whole[top : top + height, left : left + width]
    if factor == 1:
        return Photo(frame.copy(), {})
    small = [n // factor for n in (width, height)]
    views = preprocess.views_of(whole, None, task.views) if sample.chooses else ()
    centre = preprocess.CENTER if sample.kind == "photo" else ()
    exact = {view: preprocess.preprocess(whole, size=task.backbone.size, view=view) for view in (*centre, *views)}
    return Photo(np.asarray(cv2.resize(frame, small, interpolation=cv2.INTER_AREA), np.uint8), exact)


def draw(
    task: Task, samples: Sequence[Sample], photos: Sequence[Photo], seed: int, numbers: Sequence[int]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Every sample's copies of the given numbers, preprocessed: (numbers, size, size, 3) uint8 RGB each.

    Copy 0 is the picture itself; the others are augmented. A copy depends on the seed, the picture's own name and the
    copy's number, on nothing else.
    """

    if len(samples) * len(numbers) < WORTH_PROCESSES:
        return parallel.results(lambda i: _copies(task, samples[i], photos[i], seed, numbers), range(len(samples)))
    return _drawn_by_processes(task, samples, photos, seed, numbers)


def _drawn_by_processes(
    task: Task, samples: Sequence[Sample], photos: Sequence[Photo], seed: int, numbers: Sequence[int]
) -> Iterator[npt.NDArray[np.uint8]]:
    # Much of the drawing is Python, which threads cannot share out. Ctrl-C reaches the workers too: this process ends
    # them.
    workers = ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    with workers:
        for start in range(0, len(samples), _PART):
            part = slice(start, start + _PART)
            count = len(samples[part])
            yield from workers.map(
                _copies, [task] * count, samples[part], photos[part], [seed] * count, [numbers] * count
            )


def redraw(
    task: Task, samples: Sequence[Sample], copies: UnseenCopies, seed: int
) -> Iterator[tuple[Sample, npt.NDArray[np.uint8]]]:
    """The copies of a run, drawn from its pictures as they are now.

    Args:
        task: of the run.
        samples: of the run.
        copies: which of them.
        seed: of the run.

    Returns:
        Each sample with its tensors (`copies.each`, size, size, 3) uint8 RGB.

    Raises:
        PictureError: a picture cannot be read.
    """
    numbers = range(copies.first, copies.first + copies.each)

    def one(position: int) -> tuple[Sample, npt.NDArray[np.uint8]]:
        sample = samples[position]
        return sample, _copies(task, sample, keep(task, sample, read(sample)), seed, numbers)

    return parallel.results(one, copies.samples)


def picture_digest(file: Path) -> str:
    """sha256 (hex) of a picture's file, as far as `pictures.read` reads it; empty if it cannot be read."""
    try:
        return hashlib.sha256(pictures.read(file)).hexdigest()
    except PictureError:
        return ""


def digest(tensors: Iterable[npt.NDArray[np.uint8]]) -> str:
    """sha256 (hex) of the bytes of tensors, one after the other."""
    sha256 = hashlib.sha256()
    for tensor in tensors:
        sha256.update(np.ascontiguousarray(tensor).data)
    return sha256.hexdigest()


def _copies(task: Task, sample: Sample, photo: Photo, seed: int, numbers: Sequence[int]) -> npt.NDArray[np.uint8]:
    return np.concatenate([_copy(task, sample, photo, seed, number) for number in numbers])


def _copy(task: Task, sample: Sample, photo: Photo, seed: int, number: int) -> npt.NDArray[np.uint8]:
    """One copy, as the network sees it: (1, size, size, 3) uint8 RGB."""
    if number == 0 and photo.exact:
        return photo.exact["center"]
    picture = _unaltered(task, sample, photo.frame, seed, number)
    if number == 0:
        return preprocess.preprocess(picture, size=task.backbone.size)
    ranges, label = task.augment, task.labels[sample.target]
    rng = np.random.default_rng([seed, _COPY, _stable(sample), number])
    if task.drawn is not None and label == task.drawn.without_sign:
        if sample.kind == "photo" and rng.random() < ranges.other_signs:
            picture = _paste(rng, picture, partial(paste_sign, stop=False))
        if augment.happens(rng, ranges.decoys):
            picture = _paste(rng, picture, paste_decoy)
    face = _face(task, sample) if ranges.chin_masks > 0 else None
    if face is not None and augment.happens(rng, ranges.chin_masks):
        picture = chin_mask.wear(rng, picture, face)
    altered = augment.alter(rng, picture, ranges, nothing=label in task.nothing)
    return preprocess.preprocess(altered, size=task.backbone.size)


def _face(task: Task, sample: Sample) -> chin_mask.Face | None:
    for data in task.data:
        name = sample.item.name.removeprefix(f"{data.path}/" if data.path else "")
        if name in data.faces and sample.kind == "photo":
            return data.faces[name]
    return None


def _unaltered(task: Task, sample: Sample, frame: Pixels, seed: int, number: int) -> Pixels:
    """The unaltered picture of a sample, (H, W, 3) uint8 BGR; drawn things are drawn anew for every copy."""
    if sample.kind == "photo":
        return frame
    assert task.drawn is not None
    stop = sample.target == task.labels.index(task.drawn.with_sign)
    rng = np.random.default_rng([seed, _STREET, _stable(sample), number])
    if sample.kind == "street":
        return np.ascontiguousarray(street.random_picture(rng, stop=stop)[:, :, ::-1])
    return _paste(rng, frame, partial(paste_sign, stop=True))


def _paste(rng: np.random.Generator, frame: Pixels, paste: Callable[[np.random.Generator, Pixels], Pixels]) -> Pixels:
    square = preprocess.square_of(frame)
    if square.shape[0] < _LEAST_SIDE:
        square = preprocess.resize_exact(square, _LEAST_SIDE)
    return np.ascontiguousarray(paste(rng, square[:, :, ::-1])[:, :, ::-1])


def _stable(sample: Sample) -> int:
    # A number of the picture's own, so that adding pictures does not change the copies of the others.
    text = f"{sample.kind}:{sample.item.name}:{sample.item.group}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
