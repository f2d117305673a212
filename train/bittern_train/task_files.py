"""Task files: the shipped ones, one's own, and a task for a folder per class."""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bittern.config import toml_file
from bittern.errors import ConfigurationError, did_you_mean, one_line
from bittern.evaluation import dataset
from bittern.evaluation.dataset import Item
from bittern.system import fileio
from bittern_convert.task import Task
from bittern_train import backbones

MAX_BYTES = 256 * 1024
# A folder per class with fewer pictures is trained the quick way.
SMALL = 500


def folder() -> Path:
    """Where the shipped tasks are."""
    package = Path(__file__).parent
    shipped = package / "shipped" / "tasks"
    return shipped if shipped.is_dir() else package.parent / "tasks"


def load(name: str) -> Task:
    """Read a task by its name among the shipped ones, or by the path of a .toml file.

    Raises:
        ConfigurationError: no such task, or a file that does not fit; the message names the key.
    """
    if name.endswith(".toml"):
        file = Path(name)
    else:
        known = sorted(f.stem for f in folder().glob("*.toml"))
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigurationError(f"unknown task {name!r}: expected {', '.join(known)}, or a .toml file{hint}")
        file = folder() / f"{name}.toml"
    try:
        data = fileio.read_regular(file, MAX_BYTES)
        if toml_file.is_too_deep(data.decode(errors="replace")):
            raise RecursionError
        return msgspec.toml.decode(data, type=Task)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except RecursionError:
        raise ConfigurationError(f"{file}: {toml_file.TOO_DEEP}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigurationError(f"{file}: {one_line(error)}") from None


def check_inputs(task: Task, root: Path, weights: str) -> None:
    """Check backbone, data sets and weights of a task, before TensorFlow takes its seconds to load.

    Args:
        task: whose data sets and backbone are meant.
        root: what their paths are relative to.
        weights: "imagenet", "none", or the path of a file.

    Raises:
        ConfigurationError: one is not there, or the backbone cannot be as the task says.
    """
    for part in task.data:
        if not (root / part.path).exists():
            dataset.read(root / part.path)  # raises its error
    backbones.check_weights(task.backbone, weights)


def check_counts(task: Task, items: Sequence[Item]) -> None:
    """Count the pictures of each label, before TensorFlow takes its seconds to load; `pool.check_classes` goes further.

    Raises:
        ConfigurationError: a label has fewer of them than there are folds.
    """
    counts = collections.Counter(item.label for item in items)
    for label in task.labels:
        if counts[label] < task.recipe.folds:
            raise ConfigurationError(
                f"label {label!r} has {counts[label]} picture{'s' * (counts[label] != 1)}, at least "
                f"{task.recipe.folds} are needed for {task.recipe.folds} folds: add pictures"
            )


def quick(task: Task) -> Task:
    """A task with less of everything that takes time: rates, folds, epochs, copies, streams; also in conversion."""
    recipe = msgspec.structs.replace(task.recipe, rate=(3e-4,), folds=3, epochs=8, patience=3, stream_s=2.0, quick=True)
    return msgspec.structs.replace(task, recipe=recipe, augment=msgspec.structs.replace(task.augment, copies=6))


def effort(task: Task, thorough: Task) -> str:
    """In words, how much a task compares and trains, and how much more the thorough way does."""
    if task == thorough:
        return f"the thorough way: {_effort(task)}"
    return f"the quick way, for fewer than {SMALL} pictures: {_effort(task)}; --thorough takes {_effort(thorough)}"


def _effort(task: Task) -> str:
    recipe, rates = task.recipe, len(task.rates)
    parts = [
        f"{rates} learning rate{'s' * (rates > 1)}",
        f"{recipe.folds} folds of at most {recipe.epochs} epochs",
        f"{task.augment.copies} copies of a picture",
        *([f"streams of {recipe.stream_s:g} s"] if task.alarm else []),
    ]
    return ", ".join(parts)


def from_folders(labels: list[str], folder: str, alarm: tuple[str, ...] = ()) -> Task:
    """A task with every default, for a folder per class.

    Args:
        labels: names of the folders.
        folder: that holds them; the task is named after it.
        alarm: labels that raise an alarm.
    """
    name = re.sub(r"[^a-z0-9_.-]+", "_", folder.lower()).strip("_.-") or "task"
    if len(labels) < 2:
        raise ConfigurationError(f"expected two labels or more, found {labels or 'none'}: make a folder per label")
    values: dict[str, Any] = {"name": name, "question": f"which of {', '.join(labels)}?", "labels": labels}
    values |= {"alarm": alarm}
    try:
        return msgspec.convert(values, Task)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"cannot make a task from these folders: {error}") from None
