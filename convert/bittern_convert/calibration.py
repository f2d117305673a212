"""Which pictures calibrate the int8 model, and which are left for the gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset
from bittern.evaluation.dataset import Item

# Pictures of one label, at most.
PER_LABEL = 100


def choose(items: Sequence[Item], labels: Sequence[str], seed: int) -> tuple[list[Item], list[Item]]:
    """As many pictures of every label from train, val and extra; and the rest, without their near-duplicates.

    Of no label more than a third calibrates, and more than half of its pictures are not taken from the gate with them,
    unless the label has no group that is so small.

    Args:
        items: of a run's index.
        labels: of the task.
        seed: of the order in which pictures are drawn.

    Returns:
        Those that calibrate, and those of no group that does.

    Raises:
        ConfigurationError: there are no pictures.
    """
    usable = _usable(items)
    order = np.random.default_rng(seed).permutation(len(usable))
    of = {label: [usable[i] for i in order if usable[i].label == label] for label in labels}
    each = min(PER_LABEL, *(max(1, len(x) // 3) for x in of.values()))
    chosen = [item for label in labels for item in _of_label(of[label], each)]
    groups = {i.group for i in chosen}
    if not chosen:
        raise ConfigurationError("the run's index has no pictures to calibrate with")
    return chosen, [i for i in usable if i.group not in groups]


def copies(items: Sequence[Item], labels: Sequence[str], seed: int, pictures: int) -> int:
    """How many copies of its pictures a run needs, so that the gate gets to see enough.

    `choose` leaves two thirds of the pictures, or fewer where groups are large, and as many of the copies. A third more
    than the gate misses, because which copies it gets is chance.

    Args:
        items: see `choose`.
        labels: see `choose`.
        seed: see `choose`.
        pictures: that the gate is to see, photographs and copies.

    Raises:
        ConfigurationError: see `choose`.
    """
    usual = 2 * len(_usable(items)) // 3
    left = max(1, min(usual, len(choose(items, labels, seed)[1])))
    return max(0, 2 * (pictures - left) * usual // left)


def _usable(items: Sequence[Item]) -> list[Item]:
    return [i for i in items if i.split in (*dataset.CHOICE_SPLITS, dataset.EXTRA_SPLIT)]


def _of_label(items: Sequence[Item], each: int) -> list[Item]:
    sizes = Counter(i.group for i in items)
    taken: set[str] = set()
    gone = 0
    chosen: list[Item] = []
    for item in items:
        if len(chosen) == each:
            break
        if item.group not in taken:
            if gone + sizes[item.group] > len(items) // 2:
                continue  # the series of one scene, say, which would leave the gate nothing
            gone += sizes[item.group]
            taken.add(item.group)
        chosen.append(item)
    if not chosen and items:
        smallest = min(sizes, key=lambda group: (sizes[group], group))
        chosen = [i for i in items if i.group == smallest][:each]
    return chosen
