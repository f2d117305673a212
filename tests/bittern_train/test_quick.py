"""The quick way: as many copies as the parity check needs and no more, and every second passing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bittern.evaluation.dataset import Item
from bittern_convert import calibration, copies, parity
from bittern_convert.task import Task
from bittern_train import session, stream_fold, task_files
from bittern_train.pool import Decoded, Photos

LABELS = ("a", "b")
GROUPS = st.lists(st.integers(1, 6), min_size=2, max_size=40)
QUICK = task_files.quick(Task(name="x", question="?", labels=LABELS, alarm=("a",)))


def loaded(sizes: dict[str, list[int]]) -> session.Loaded:
    """Pictures of groups of these sizes, for each label."""
    items = [
        Item(Path(), f"{label}/{g}/{i}", label, "train", f"{label}/{g}", {})
        for label, groups in sizes.items()
        for g, size in enumerate(groups)
        for i in range(size)
    ]
    samples = copies.photographs(QUICK, items)
    network: Any = None
    return session.Loaded(items, Decoded(samples, Photos(QUICK), [*range(len(samples))], [], {}), network)


@given(a=GROUPS, b=GROUPS, seed=st.integers(0, 9))
def test_copies_make_up_for_what_the_parity_check_lacks(a: list[int], b: list[int], seed: int) -> None:
    made = loaded({"a": a, "b": b})
    samples = made.decoded.samples
    groups = {item.group for item in calibration.choose(made.everything, LABELS, seed)[0]}
    checked = [i for i, sample in enumerate(samples) if sample.item.group not in groups]
    chosen, each = session._fewest(QUICK, made, seed, np.random.default_rng(seed).permutation(len(samples)))
    assert len(set(chosen)) == len(chosen)
    assert set(checked) <= set(chosen)
    compared = len(checked) * (1 + each)
    assert parity.PICTURES <= compared < parity.PICTURES + len(checked)
    beside, calibrating = len(chosen) - len(checked), len(samples) - len(checked)
    assert beside == min(calibrating, -(-session.CHECKED_COPIES // each))


def test_these_are_a_third_fewer_than_otherwise() -> None:
    made = loaded({"a": [1] * 80, "b": [1] * 80})
    chosen, each = session._fewest(QUICK, made, 1, np.arange(160))
    assert len(chosen) * each < calibration.copies(made.everything, LABELS, 1, parity.PICTURES) * 2 / 3


def test_every_second_thing_passes_and_every_picture_of_nothing_has_its_stream() -> None:
    passing = [True, False, True, True, False, False, True, True]
    plans = [stream_fold._Plan(owner, 25 if passes else 10) for owner, passes in enumerate(passing)]
    streets = [stream_fold._Plan(-1, 60, number) for number in range(3)]
    kept = stream_fold._thinned([*plans, *streets], passing)
    assert [plan.owner for plan in kept] == [0, 1, 3, 4, 5, 7, -1, -1, -1]
    assert kept[-3:] == streets
