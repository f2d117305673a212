"""From a run and newly labelled pictures to another run: what is trained on, and whether the new network is kept."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset, metrics
from bittern.evaluation.dataset import Item
from bittern.evaluation.metrics import Interval
from bittern.system import fileio
from bittern.system.progress import Progress
from bittern_convert import copies, run
from bittern_convert.run import Run
from bittern_convert.task import Data, Task
from bittern_train.data import dedupe

FILE = "retrained.json"
# How often a picture is trained on that the network of the run got wrong; the others once.
WEIGHT = 3
_OLD, _NEW = "before", "added"


class RetrainingPictures(NamedTuple):
    """Newly labelled pictures, beside those of the run.

    Attributes:
        old: the pictures of the run, with corrected labels.
        new: pictures that the run does not have.
        corrected: names of the run's pictures whose label was corrected.
        unlabelled: how many have no label yet.
        known: how many are in the run with the same label.
        tested: how many are test pictures of the run, or near-duplicates of one, which must not be trained on.
    """

    old: list[Item]
    new: list[Item]
    corrected: frozenset[str]
    unlabelled: int
    known: int
    tested: int


class Retrained(msgspec.Struct, frozen=True, kw_only=True):
    """The old and the new network on the same test pictures, none of which either has trained on.

    Attributes:
        n: test pictures that can be read.
        old_correct: of these, by the network of the run.
        new_correct: by the new network.
        only_old: names of those that only the old one answers correctly.
        only_new: names of those that only the new one answers correctly.
        difference_ci95: paired interval of the difference in accuracy, new minus old.
        mcnemar_p: of McNemar's exact test, two-sided.
        keep: whether the new one answers no fewer of them correctly.
    """

    n: int
    old_correct: int
    new_correct: int
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    difference_ci95: Interval
    mcnemar_p: float
    keep: bool


def sort(made: Run, items: Sequence[Item], added: Sequence[Item]) -> RetrainingPictures:
    """Tell new pictures from corrected and known ones, by the bytes of their files.

    Args:
        made: the run.
        items: its pictures, of its index.
        added: the newly labelled ones.

    Raises:
        ConfigurationError: a label that the task does not have, no test picture, or nothing new at all.
    """
    if not any(item.split not in copies.TRAINED_SPLITS for item in items):
        raise ConfigurationError(
            f"run {made.id!r} has no test pictures, so an old and a new network cannot be compared: give some of them "
            "the split test (bittern data split), and train again"
        )
    digests = {_digest(item): i for i, item in enumerate(items)}
    old, new, corrected = list(items), [], set()
    unlabelled = known = tested = 0
    digests_of_added: set[str] = set()
    for item in added:
        if not item.label:
            unlabelled += 1
            continue
        if item.label not in made.task.labels:
            raise ConfigurationError(
                f"{item.path}: label {item.label!r} is not one of the run's ({', '.join(made.task.labels)}): a task "
                "with other labels is trained anew"
            )
        digest = _digest(item)
        if not digest:
            raise ConfigurationError(f"{item.path}: cannot be read: take it out of the index")
        i = digests.get(digest)
        if i is None:
            if digest not in digests_of_added:
                new.append(item)
            digests_of_added.add(digest)
        elif items[i].split not in copies.TRAINED_SPLITS:
            tested += 1
        elif items[i].label == item.label:
            known += 1
        else:
            old[i] = items[i]._replace(label=item.label)
            corrected.add(items[i].name)
    if not new and not corrected:
        raise ConfigurationError(
            f"nothing to train on: of {len(added)} pictures {unlabelled} have no label, {known} are in the run with "
            f"the same label, and {tested} are its test pictures"
        )
    return RetrainingPictures(old, new, frozenset(corrected), unlabelled, known, tested)


def without_near_duplicates(pictures: RetrainingPictures, progress: Progress) -> RetrainingPictures:
    """Leave out new pictures that are near-duplicates of test pictures, or of their group: they favour the new network.

    Args:
        pictures: all of them.
        progress: gets each step.

    Raises:
        ConfigurationError: nothing is left to train on.
    """
    held = [item for item in pictures.old if item.split not in copies.TRAINED_SPLITS]
    tests, groups = {item.path for item in held}, {item.group for item in held if item.group}
    alike = {
        item.path
        for cluster in dedupe.find([*held, *pictures.new], progress).clusters
        if any(other.path in tests for other in cluster.items)
        for item in cluster.items
    }
    new = [item for item in pictures.new if item.path not in alike and item.group not in groups]
    if not new and not pictures.corrected:
        raise ConfigurationError("nothing to train on: the new pictures are near-duplicates of the run's test pictures")
    return pictures._replace(new=new, tested=pictures.tested + len(pictures.new) - len(new))


def assemble(
    made: Run, root: Path, pictures: RetrainingPictures, mistakes: frozenset[str], folder: Path, *, again: bool = False
) -> Task:
    """Write the data set of the new training, which holds links to the pictures, and the task that names it.

    Args:
        made: the run.
        root: folder of its pictures.
        pictures: all of them.
        mistakes: the new and corrected ones that the run's network gets wrong (`key`): trained on `WEIGHT` times.
        folder: of the new data set; it must not exist.
        again: it may exist, if it is the same.

    Returns:
        The task, with the one rate that the run chose, for `session.train` with `folder` as the folder of the pictures.

    Raises:
        ConfigurationError: the folder exists, and is not the same.
    """
    reported = sorted({item.split for item in pictures.old if item.split not in copies.TRAINED_SPLITS})
    report = tuple(dict.fromkeys([*reported, "test"]))
    with fileio.atomic_folder(folder, replace=again) as new_folder:
        data = []
        for name, items, source in ((_OLD, pictures.old, root), (_NEW, pictures.new, None)):
            if items:
                (new_folder / name).mkdir()
                rows = _rows(items, source, mistakes, new_folder / name)
                fileio.write(new_folder / name / "index.csv", rows)
                data.append(Data(path=name, report=report))
        if folder.exists() and _contents(folder) != _contents(new_folder):
            raise ConfigurationError(f"{folder} links to other pictures or labels: remove it, or give another --out")
    faces = {
        f"pictures/{Path(d.path, path).as_posix()}": face for d in made.task.data for path, face in d.faces.items()
    }
    data[0] = msgspec.structs.replace(data[0], faces=faces)
    recipe = msgspec.structs.replace(made.task.recipe, rate=(made.choice["rate"],))
    return msgspec.structs.replace(made.task, data=tuple(data), recipe=recipe)


def key(item: Item, *, new: bool) -> str:
    """A name that a new picture and one of the run do not share."""
    return f"{_NEW if new else _OLD}/{item.name}"


def judge(
    items: Sequence[Item],
    targets: npt.NDArray[np.int64],
    old: npt.NDArray[np.int64],
    new: npt.NDArray[np.int64],
) -> Retrained:
    """Compare the answers of two networks to the same test pictures.

    Args:
        items: the pictures, at least one (n,).
        targets: indices of their labels (n,).
        old: the answers of the old network (n,).
        new: those of the new one (n,).
    """
    old_correct, new_correct = old == targets, new == targets
    only_old = tuple(item.name for item, a, b in zip(items, old_correct, new_correct, strict=True) if a and not b)
    only_new = tuple(item.name for item, a, b in zip(items, old_correct, new_correct, strict=True) if b and not a)
    return Retrained(
        n=len(items),
        old_correct=int(old_correct.sum()),
        new_correct=int(new_correct.sum()),
        only_old=only_old,
        only_new=only_new,
        difference_ci95=metrics.paired_loss_interval(len(only_new), len(only_old), len(items)),
        mcnemar_p=metrics.mcnemar(len(only_old), len(only_new)),
        keep=len(only_new) >= len(only_old),
    )


def mistaken(made: Run, pictures: RetrainingPictures, answers: npt.NDArray[np.int64]) -> frozenset[str]:
    """What `assemble` trains on more often.

    Args:
        made: the run.
        pictures: all of them.
        answers: of the run's network, to `to_answer(pictures)` in order; -1 for one that cannot be read.
    """
    return frozenset(
        name
        for (name, item), answer in zip(to_answer(pictures), answers, strict=True)
        if answer < 0 or made.task.labels[answer] != item.label
    )


def to_answer(pictures: RetrainingPictures) -> list[tuple[str, Item]]:
    """The new and the corrected pictures, by `key`."""
    return [
        *((key(item, new=True), item) for item in pictures.new),
        *((key(item, new=False), item) for item in pictures.old if item.name in pictures.corrected),
    ]


def _contents(folder: Path) -> dict[str, bytes]:
    """Files and targets of links, by their paths."""
    paths = [Path(parent, name) for parent, folders, files in os.walk(folder) for name in (*folders, *files)]
    return {
        path.relative_to(folder).as_posix(): os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in paths
        if path.is_symlink() or path.is_file()
    }


def _rows(items: Sequence[Item], root: Path | None, mistakes: frozenset[str], folder: Path) -> bytes:
    """The index of one part, beside which links lead to the pictures.

    A row that is there again is of the split "extra": it is trained on, and no choice is made with it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split", "group"])
    links = ["pictures", *(f"again-{i}" for i in range(1, WEIGHT))]
    for link in links:
        # All of them lead to the same folder; of new pictures, to a folder of links, because they may be anywhere.
        (folder / link).symlink_to(root.resolve() if root else "files")
    if root is None:
        (folder / "files").mkdir()
    for number, item in enumerate(items):
        name = item.name if root else f"{number:05}{item.path.suffix}"
        if root is None:
            (folder / "files" / name).symlink_to(item.path.resolve())
        split = item.split or "train"
        group = item.group or item.name
        writer.writerow([f"pictures/{name}", item.label, split, group])
        if key(item, new=root is None) in mistakes and split in dataset.CHOICE_SPLITS:
            for link in links[1:]:
                writer.writerow([f"{link}/{name}", item.label, dataset.EXTRA_SPLIT, group])
    return text.getvalue().encode()


def _digest(item: Item) -> str:
    return item.columns.get("sha256") or copies.picture_digest(item.path)


def write(folder: Path, verdict: Retrained) -> None:
    """Write the verdict into the new run."""
    fileio.write(folder / FILE, msgspec.json.format(msgspec.json.encode(verdict), indent=1) + b"\n")


def tested(folder: Path, root: Path) -> list[Item]:
    """The test pictures of a new run."""
    return [i for i in dataset.read(folder / run.INDEX, root) if i.split not in copies.TRAINED_SPLITS]
