"""Which pictures calibrate: of every label as many, in whole groups, and enough left for the parity check."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.errors import ConfigurationError
from bittern.evaluation.dataset import Item
from bittern_convert import calibration

LABELS = ("a", "b")


def items(sizes: dict[str, list[int]], split: str = "train") -> list[Item]:
    """Pictures of groups of these sizes, for each label."""
    return [
        Item(Path(), f"{label}/{g}/{i}", label, split, f"{label}/{g}", {})
        for label, group_sizes in sizes.items()
        for g, size in enumerate(group_sizes)
        for i in range(size)
    ]


GROUPS = st.lists(st.integers(1, 40), min_size=2, max_size=60)


@given(a=GROUPS, b=GROUPS, seed=st.integers(0, 9))
def test_as_many_of_every_label_and_no_group_on_both_sides(a: list[int], b: list[int], seed: int) -> None:
    pool = items({"a": a, "b": b})
    chosen, rest = calibration.choose(pool, LABELS, seed)
    counts = Counter(i.label for i in chosen)
    assert all(
        1 <= counts[label] <= min(calibration.PER_LABEL, max(1, sum(sizes) // 3))
        for label, sizes in zip(LABELS, (a, b), strict=True)
    )
    assert not {i.group for i in chosen} & {i.group for i in rest}
    left = Counter(i.label for i in rest)
    for label, sizes in zip(LABELS, (a, b), strict=True):
        small_enough = [s for s in sizes if s <= sum(sizes) // 2]
        assert left[label] >= sum(sizes) / 2 if small_enough else left[label] == sum(sizes) - min(sizes)


def test_of_many_labels_fewer_pictures_of_each() -> None:
    labels = [f"kind{i}" for i in range(40)]
    chosen, rest = calibration.choose(items({label: [1] * 150 for label in labels}), labels, 1)
    assert set(Counter(i.label for i in chosen).values()) == {calibration.MOST // 40}
    assert len(chosen) + len(rest) == 40 * 150


def test_single_pictures_are_drawn_up_to_a_third() -> None:
    chosen, rest = calibration.choose(items({"a": [1] * 90, "b": [1] * 600}), LABELS, 1)
    assert Counter(i.label for i in chosen) == {"a": 30, "b": 30}
    assert len(rest) == 690 - 60


def test_long_series_leave_the_parity_check_at_least_half() -> None:
    chosen, rest = calibration.choose(items({"a": [30] * 10, "b": [30] * 10}), LABELS, 1)
    assert Counter(i.label for i in chosen) == {"a": 100, "b": 100}
    assert len(rest) == 300


@given(sizes=st.lists(st.integers(1, 40), min_size=4, max_size=40), seed=st.integers(0, 9))
def test_with_its_copies_the_parity_check_has_enough(sizes: list[int], seed: int) -> None:
    """On average: training draws which pictures it copies."""
    pool = items({"a": sizes, "b": sizes[::-1]})
    copies = calibration.copies(pool, LABELS, seed, 1000)
    _, rest = calibration.choose(pool, LABELS, seed)
    if not rest:
        return  # one group is all there is of a label: the parity check says so
    missing = max(0, 1000 - len(rest))
    expected = copies * len(rest) / len(pool)
    assert missing <= expected <= 2 * 1000
    assert (copies == 0) == (min(len(rest), 2 * len(pool) // 3) >= 1000)


def test_other_splits_are_left_alone() -> None:
    pool = [
        *items({"a": [1] * 6, "b": [1] * 6}),
        *(i._replace(name=f"t{i.name}", group=f"t{i.group}") for i in items({"a": [1] * 6}, "test")),
    ]
    chosen, rest = calibration.choose(pool, LABELS, 1)
    assert {i.split for i in [*chosen, *rest]} == {"train"}
    with pytest.raises(ConfigurationError, match="no pictures to calibrate with"):
        calibration.choose(items({"a": [3]}, "test"), LABELS, 1)
