"""Gives the pictures of a data set their splits: seeded, in the same shares for each label, no group divided."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bittern.errors import ConfigurationError
from bittern.evaluation.dataset import Item

# In this order a group goes to the split that lacks most of its pictures.
SPLITS = ("train", "val", "test")


class Counts(NamedTuple):
    """How many pictures of a label a split has, and of how many groups."""

    pictures: int
    groups: int


def assign(items: Sequence[Item], shares: Mapping[str, float], seed: int, *, again: bool = False) -> list[Item]:
    """Give each picture with a label a split.

    A picture that has one keeps it, so that what was held back stays held back when pictures are added; its group
    follows it. Pictures without a label get none.

    A group goes as a whole to the split that lacks the largest part of what it should have of the group's labels,
    large groups first, of equals in an order that depends on the seed and on the groups' own names.

    Args:
        items: of a data set.
        shares: "train", "val" and "test", which add up to 1.
        seed: of the order.
        again: assign anew what is in one of SPLITS.

    Raises:
        ConfigurationError: a group is on both sides already, or there is no label.
    """
    groups: dict[str, list[Item]] = {}
    for item in items:
        if item.label:
            groups.setdefault(_group(item), []).append(item)
    if not groups:
        raise ConfigurationError("no picture has a label: label them first (bittern data label)")
    splits: dict[str, str] = {}
    for name, members in groups.items():
        kept = {item.split for item in members if item.split and not (again and item.split in SPLITS)}
        if len(kept) > 1:
            raise ConfigurationError(
                f"group {name!r} is in {' and '.join(sorted(kept))} already: say --again to split all pictures anew"
            )
        if kept:
            splits[name] = kept.pop()
    totals = collections.Counter(
        item.label for name, members in groups.items() if splits.get(name, "train") in SPLITS for item in members
    )
    missing = {split: {label: shares[split] * count for label, count in totals.items()} for split in SPLITS}
    for name, split in splits.items():
        if split in SPLITS:
            for item in groups[name]:
                missing[split][item.label] -= 1
    order = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest())
    for name in sorted(order, key=lambda name: -len(groups[name])):
        if name in splits:
            continue
        labels = collections.Counter(item.label for item in groups[name])
        splits[name] = max(
            (split for split in SPLITS if shares[split] > 0),
            key=lambda split: sum(missing[split][label] / (shares[split] * totals[label]) for label in labels),
        )
        for label, count in labels.items():
            missing[splits[name]][label] -= count
    return [item._replace(split=splits[_group(item)]) if item.label else item for item in items]


def _group(item: Item) -> str:
    return item.group or item.name


def table(items: Sequence[Item]) -> dict[str, dict[str, Counts]]:
    """For each label, and each split that occurs, the pictures and the groups."""
    groups: dict[tuple[str, str], set[str]] = {}
    pictures: collections.Counter[tuple[str, str]] = collections.Counter()
    for item in items:
        if item.label:
            groups.setdefault((item.label, item.split), set()).add(_group(item))
            pictures[item.label, item.split] += 1
    counts: dict[str, dict[str, Counts]] = {}
    for (label, split), names in sorted(groups.items()):
        counts.setdefault(label, {})[split] = Counts(pictures[label, split], len(names))
    return counts
