"""The pictures of a run that conversion uses: proved to be those of the training, read, and drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bittern.errors import ConfigurationError, PictureError
from bittern.evaluation import dataset
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern.model import pictures, preprocess
from bittern.system.progress import Progress, counted
from bittern_convert import copies, run
from bittern_convert.run import Run
from bittern_convert.task import FieldOfView

# Of copies.
KINDS = copies.KINDS | {"photo": "augmented copies"}


class Picture(NamedTuple):
    """One labelled picture as the network sees it.

    Attributes:
        tensor: (size, size, 3) uint8 RGB.
        target: index of its label.
        kind: what it is, in words.
        name: of the picture that it is from.
        group: of that picture.
    """

    tensor: Pixels
    target: int
    kind: str
    name: str
    group: str


def verify(made: Run, items: Sequence[Item], root: Path, progress: Progress) -> None:
    """Check that index and picture files are those that a run was trained with.

    Raises:
        ConfigurationError: they are not, or a picture is missing.
    """
    if dataset.digest(items) != made.data_sha256:
        raise ConfigurationError(f"{run.INDEX} of run {made.id!r} was changed after the training: train again")
    expected = [item for item in items if item.columns.get("sha256")]
    without = [
        item.name
        for item in items
        if item.split in copies.TRAINED_SPLITS
        and not item.columns.get("sha256")
        and not any(f"{item.name}: " in line for line in made.skipped)
    ]
    if without and made.copies is not None:  # earlier versions left the copies, and no digests
        raise ConfigurationError(
            f"{run.INDEX} of run {made.id!r} has no sha256 for {len(without)} pictures ({without[0]}, ...), "
            "so they cannot be checked: train again"
        )
    digests = [
        copies.picture_digest(item.path) for item in counted(expected, progress, "check pictures", len(expected))
    ]
    missing = [item.name for item, digest in zip(expected, digests, strict=True) if not digest]
    if missing:
        raise ConfigurationError(
            f"{root}: {len(missing)} of {len(expected)} pictures of run {made.id!r} cannot be read there "
            f"({missing[0]}, ...): say with --data where they are now"
        )
    changed = [i.name for i, digest in zip(expected, digests, strict=True) if digest != i.columns["sha256"]]
    if changed:
        raise ConfigurationError(
            f"{root}: {len(changed)} of {len(expected)} pictures were changed after the training of run {made.id!r} "
            f"({changed[0]}, ...): put them back as they were, or train again"
        )


def tensor(item: Item, field: FieldOfView, size: int = 224) -> Pixels | None:
    """The centred square of a picture's region, (1, size, size, 3) uint8 RGB; None if it cannot be read."""
    try:
        frame = pictures.cut(pictures.decode(item.path), item.path, field.region)
        return preprocess.preprocess(frame, size=size)
    except PictureError:
        return None  # training listed it


def photographs(items: Sequence[Item], labels: Sequence[str], field: FieldOfView, size: int = 224) -> list[Picture]:
    """Those that can be read."""
    return [
        Picture(picture[0], labels.index(item.label or ""), f"photographs, split {item.split}", item.name, item.group)
        for item in items
        if (picture := tensor(item, field, size)) is not None
    ]


def unseen_copies(folder: Path, made: Run, items: Sequence[Item], progress: Progress) -> list[Picture]:
    """Copies that no epoch has trained on: drawn again, or read if an earlier version left them as a file.

    Raises:
        ConfigurationError: they are not those of the training, or the file cannot be read.
    """
    if made.copies is None:
        return _read(folder / run.COPIES)
    samples = copies.with_drawn(made.task, copies.photographs(made.task, items), made.seed)
    drawn = copies.redraw(made.task, samples, made.copies, made.seed)
    try:
        redrawn = [
            Picture(tensor, sample.target, KINDS[sample.kind], sample.item.name, sample.item.group)
            for sample, tensors in counted(drawn, progress, "draw copies", len(made.copies.samples))
            for tensor in tensors
        ]
    except PictureError as error:
        raise ConfigurationError(f"the copies of run {made.id!r} cannot be drawn again: {error}") from None
    if made.copies.sha256 and copies.digest(picture.tensor for picture in redrawn) != made.copies.sha256:
        now = run.environment() | {"numpy": np.__version__}
        then = now | made.versions
        others = [f"{key} {then[key]}, now {now[key]}" for key in now if then[key] != now[key]]
        why = "; ".join(others) or "the libraries and the processor are the same"
        raise ConfigurationError(
            f"the copies of run {made.id!r} come out differently from those of its training ({why}): "
            "convert it where it was trained, or train again"
        )
    return redrawn


def _read(file: Path) -> list[Picture]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            columns = [archive[key] for key in ("tensors", "targets", "kinds", "names", "groups")]
    except Exception as error:  # numpy, zipfile and zlib raise half a dozen kinds
        raise ConfigurationError(f"{file}: cannot be read ({error}): train again") from None
    return [Picture(tensor, int(t), str(k), str(n), str(g)) for tensor, t, k, n, g in zip(*columns, strict=True)]
