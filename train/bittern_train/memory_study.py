"""The study "memory": what training takes, of parts of a task's pictures and of all: memory and time.

bittern study memory gtsrb --data build/data --weights none --count 1000 --count 10000 --out docs/results
"""

from __future__ import annotations

import csv
import hashlib
import math
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bittern.bench.chart import COLOURS, GREY, WIDTH, line, path, svg, text
from bittern.evaluation.dataset import Item
from bittern.system.progress import Progress
from bittern_convert import copies, run
from bittern_convert.task import Data, Task
from bittern_train import pool

# Epochs of each training, and copies of each picture, of which an epoch uses one: more of them take longer, and no more
# memory.
EPOCHS = 2
_LINKS = "pictures"


class Spent(NamedTuple):
    """What one training took.

    Attributes:
        n: pictures that it read.
        seconds: on the clock.
        cpu_seconds: of all its processes.
        peak_mb: of its resident memory, in 10^6 bytes.
        peak_drawing_mb: of the largest of the processes that drew copies for it; 0 without any.
    """

    n: int
    seconds: float
    cpu_seconds: float
    peak_mb: int
    peak_drawing_mb: int


def study(
    task: Task, root: Path, counts: Sequence[int], *, weights: str, seed: int, progress: Progress
) -> dict[str, Any]:
    """Train on about so many pictures, and on all, for EPOCHS epochs, each in a process of its own.

    Args:
        task: what is learned.
        root: see `session.train`.
        counts: how many pictures; the same share of every label and split, at least one.
        weights: see `session.train`.
        seed: see `session.train`.
        progress: gets each training.

    Raises:
        ConfigurationError: see `session.train`.
    """
    _, everything = pool.gather(task, root, seed, progress)
    items = [item for item in everything if item.split in copies.TRAINED_SPLITS]
    recipe = msgspec.structs.replace(task.recipe, epochs=EPOCHS)
    augment = msgspec.structs.replace(task.augment, copies=EPOCHS)
    # The labels of the index below are the task's own, and what was left out or most of a set is not in it.
    chosen = msgspec.structs.replace(task, recipe=recipe, augment=augment, data=(Data(),))
    amounts = [*sorted(count for count in set(counts) if count < len(items)), len(items)]
    spent = []
    for number, count in enumerate(amounts):
        progress("trainings", number, len(amounts))
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            some = _some(items, count)
            _write(folder, root, some)
            # What a process has taken at most is only known of the whole of its life.
            with ProcessPoolExecutor(1, get_context("spawn")) as child:
                spent.append(child.submit(_train, chosen, folder, len(some), weights, seed).result())
    progress("trainings", len(amounts), len(amounts))
    return {
        "study": "memory",
        "task": task.name,
        "network": task.backbone.title,
        "size": task.backbone.size,
        "copies": EPOCHS,
        "epochs": EPOCHS,
        "folds": task.recipe.folds,
        "seed": seed,
        "machine": run.environment(),
        "trainings": [each._asdict() for each in spent],
    }


def _some(items: Sequence[Item], count: int) -> list[Item]:
    """About so many items: of every label and split the same share, chosen by a hash of the names."""
    parts: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        parts.setdefault((item.label or "", item.split), []).append(item)
    chosen = set()
    for own in parts.values():
        order = sorted(own, key=lambda item: hashlib.sha256(item.name.encode()).digest())
        chosen |= {item.name for item in order[: max(1, math.floor(len(own) * count / len(items)))]}
    return [item for item in items if item.name in chosen]


def _write(folder: Path, root: Path, items: Sequence[Item]) -> None:
    (folder / _LINKS).symlink_to(root.resolve())
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "split", "group"])
        writer.writerows([f"{_LINKS}/{item.name}", item.label, item.split, item.group] for item in items)


def _train(task: Task, folder: Path, n: int, weights: str, seed: int) -> Spent:
    from bittern_convert.quiet import quiet
    from bittern_convert.screen import bar
    from bittern_train import session

    start = time.monotonic()
    with quiet(folder / "train.log") as console, bar(console) as progress:
        session.train(task, folder, folder / "run", weights=weights, seed=seed, replace=False, progress=progress)
    own, drawing = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(
        n=n,
        seconds=round(time.monotonic() - start, 1),
        cpu_seconds=round(sum(usage.ru_utime + usage.ru_stime for usage in (own, drawing)), 1),
        peak_mb=_megabytes(own.ru_maxrss),
        peak_drawing_mb=_megabytes(drawing.ru_maxrss),
    )


def _megabytes(maxrss: int) -> int:
    """Of `ru_maxrss`, which is in bytes on macOS and in units of 1024 elsewhere."""
    return round(maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6)


def draw(result: dict[str, Any]) -> str:
    """The picture of a result, as SVG: peak memory and processor time against the number of pictures."""
    trainings = result["trainings"]
    left, top, wide, tall, gap = 70, 80, 370, 230, 100
    most_n = max(training["n"] for training in trainings)
    parts = [
        text(16, 24, f"Training {result['task']}: memory and time against the number of pictures", weight="bold"),
        text(16, 44, f"{result['network']}, {result['size']} px, {result['copies']} copies of each picture, "
             f"{result['epochs']} epochs; {result['machine']['processor']}, {result['machine']['threads']} threads",
             colour=GREY),
    ]  # fmt: skip
    for number, (key, unit, name) in enumerate(
        (("peak_mb", "MB", "peak resident memory"), ("cpu_seconds", "s", "processor time, of all processes"))
    ):
        x0, most = left + number * (wide + gap), 1.1 * max(training[key] for training in trainings)
        parts.append(text(x0, top - 8, f"{name}, {unit}"))
        for i in range(5):
            y = top + tall * (1 - i / 4)
            parts.append(line(x0, y, x0 + wide, y, "#ddd"))
            parts.append(text(x0 - 8, y + 4, f"{most * i / 4:,.0f}", anchor="end", colour=GREY, size=11))
        spots = [(x0 + wide * t["n"] / most_n, top + tall * (1 - t[key] / most)) for t in trainings]
        parts.append(path(spots, COLOURS[number], ""))
        for (x, _), training in zip(spots, trainings, strict=True):
            parts.append(line(x, top + tall, x, top + tall + 4, GREY))
            parts.append(text(x, top + tall + 18, f"{training['n']:,}", anchor="middle", colour=GREY, size=11))
    parts.append(text(WIDTH - 20, top + tall + 36, "pictures", anchor="end", colour=GREY, size=11))
    return svg(top + tall + 48, parts)
