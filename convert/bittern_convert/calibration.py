"""Which pictures calibrate the int8 model, and which are left for the parity check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset
from bittern.evaluation.dataset import Item

# Pictures of one label, at most, and of all.
PER_LABEL, MOST = 100, 1000


def choose(items: Sequence[Item], labels: Sequence[str], seed: int) -> tuple[list[Item], list[Item]]:
    """The same number of pictures of every label from train, val and extra; and the rest, without near-duplicates.

    At most a third of a label's pictures calibrate, and MOST in all. The groups that they belong to, which the parity
    check loses, hold at most half of them, unless the label has no group that is so small.

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
    by_label = {label: [usable[i] for i in order if usable[i].label == label] for label in labels}
    each = min(PER_LABEL, max(1, MOST // len(labels)), *(max(1, len(own) // 3) for own in by_label.values()))
    chosen = [item for own in by_label.values() for item in _of_label(own, each)]
    groups = {i.group for i in chosen}
    if not chosen:
        raise ConfigurationError("the run's index has no pictures to calibrate with")
    return chosen, [i for i in usable if i.group not in groups]


def copies(items: Sequence[Item], labels: Sequence[str], seed: int, pictures: int) -> int:
    """How many copies of its pictures a run needs, so that the parity check has enough.

    `choose` leaves two thirds of the pictures, or fewer where groups are large, and the same share of the copies. The
    number is a third more than the check lacks, because chance decides which copies it gets.

    Args:
        items: see `choose`.
        labels: see `choose`.
        seed: see `choose`.
        pictures: that the parity check needs, photographs and copies.

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
    lost = 0  # pictures of the groups that calibrate
    chosen: list[Item] = []
    for item in items:
        if len(chosen) == each:
            break
        if item.group not in taken:
            if lost + sizes[item.group] > len(items) // 2:
                continue  # the series of one scene, say, which would leave nothing for the parity check
            lost += sizes[item.group]
            taken.add(item.group)
        chosen.append(item)
    if not chosen and items:
        smallest = min(sizes, key=lambda group: (sizes[group], group))
        chosen = [i for i in items if i.group == smallest][:each]
    return chosen
