"""Augmentation."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.repetitions import examples

from bittern_convert import conditions
from bittern_convert.augment import SIDE, alter
from bittern_convert.task import Augment

STILL = Augment(
    mirror=False, zoom=(1.0, 1.0), turn_degrees=0, brightness=(1.0, 1.0), contrast=(1.0, 1.0), colour=0, noise=0, blur=0
)


@settings(max_examples=examples(40))
@given(st.integers(0, 2**32 - 1), st.integers(20, 900), st.integers(20, 900))
def test_any_frame_gives_a_picture_of_one_size(seed: int, height: int, width: int) -> None:
    frame = np.full((height, width, 3), 128, np.uint8)
    altered = alter(np.random.default_rng(seed), frame, Augment())
    assert altered.shape == (SIDE, SIDE, 3)
    assert altered.dtype == np.uint8


@settings(max_examples=examples(20))
@given(st.integers(0, 2**32 - 1), st.integers(16, 120))
def test_a_task_may_have_its_copies_altered_at_another_size(seed: int, side: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    ranges = Augment(side=side, far=0.3, close_ups=0.3, conditions=0.3, poles=0.3, hands=0.3)
    assert alter(np.random.default_rng(seed), frame, ranges, nothing=True).shape == (side, side, 3)


def test_a_seed_gives_the_same_copy() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    a, b, c = (alter(np.random.default_rng(s), frame, Augment()) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_no_mirror_keeps_left_left() -> None:
    frame = np.zeros((300, 300, 3), np.uint8)
    frame[:, :150] = 255
    for seed in range(50):
        kept = alter(np.random.default_rng(seed), frame, msgspec.structs.replace(STILL, turn_degrees=8.0))
        assert kept[:, : SIDE // 3].mean() > kept[:, -SIDE // 3 :].mean() + 50
    mirrored = [
        alter(np.random.default_rng(seed), frame, msgspec.structs.replace(STILL, mirror=True))[:, :50].mean() < 128
        for seed in range(50)
    ]
    assert 10 <= sum(mirrored) <= 40


@pytest.mark.parametrize(("limits", "darker"), [((0.3, 0.3), True), ((1.4, 1.4), False)])
def test_brightness_is_a_gain(limits: tuple[float, float], darker: bool) -> None:
    frame = np.full((300, 300, 3), 120, np.uint8)
    means = [
        alter(np.random.default_rng(s), frame, msgspec.structs.replace(STILL, brightness=limits)).mean()
        for s in range(20)
    ]
    assert all((mean < 80) if darker else (mean > 120) for mean in means)


EVERYTHING = msgspec.structs.replace(
    Augment(), close_ups=0.3, far=0.4, far_size=(0.15, 1.0), conditions=0.5, poles=0.3, hands=0.3
)


@settings(max_examples=examples(40))
@given(st.integers(0, 2**32 - 1), st.integers(20, 500), st.integers(20, 500), st.integers(0, 255), st.booleans())
def test_whatever_a_camera_sees_through_is_a_picture_of_the_seed(
    seed: int, height: int, width: int, grey: int, nothing: bool
) -> None:
    frame = np.full((height, width, 3), grey, np.uint8)
    a, b = (alter(np.random.default_rng(seed), frame, EVERYTHING, nothing=nothing) for _ in range(2))
    assert a.shape == (SIDE, SIDE, 3)
    assert a.dtype == np.uint8
    np.testing.assert_array_equal(a, b)
    assert (frame == grey).all()


def test_shares_of_nothing_draw_nothing() -> None:
    """A task without the keys keeps its copies, and of one that has them those that the share leaves out."""
    frame = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    only_nothing = msgspec.structs.replace(Augment(), close_ups=1.0, hands=1.0)
    for seed in range(5):
        plain = alter(np.random.default_rng(seed), frame, Augment())
        np.testing.assert_array_equal(plain, alter(np.random.default_rng(seed), frame, only_nothing))
        assert (plain != alter(np.random.default_rng(seed), frame, only_nothing, nothing=True)).any()


def test_a_close_up_shows_a_part_from_anywhere() -> None:
    height, width = 300, 600
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0] = np.linspace(0, 255, width)  # blue says where
    still = msgspec.structs.replace(STILL, close_ups=1.0)
    blues = [alter(np.random.default_rng(s), frame, still, nothing=True)[..., 0] for s in range(40)]
    assert max(np.ptp(b[100:180]) for b in blues) <= 0.6 * 255 / 2 * 1.25
    assert min(b.mean() for b in blues) < 50
    assert max(b.mean() for b in blues) > 205


def test_far_is_smaller_and_elsewhere() -> None:
    frame = np.zeros((300, 300, 3), np.uint8)
    frame[..., 1:] = np.kron(
        np.eye(2, dtype=np.uint8)[np.indices((12, 12)).sum(0) % 2] * 255, np.ones((25, 25, 1), int)
    )
    still = msgspec.structs.replace(STILL, far=1.0, far_size=(0.3, 0.3))
    places = []
    for seed in range(30):
        picture = alter(np.random.default_rng(seed), frame, still).astype(int)
        pure = (picture[..., 2] > 200) & (picture[..., 1] < 40) & (picture[..., 0] < 40)
        rows, columns = np.nonzero(pure)
        if len(rows):
            places.append((rows.mean(), columns.mean()))
            assert np.count_nonzero(pure) < (SIDE * 0.3) ** 2 / 2
    assert len(places) >= 20
    assert np.ptp(places, axis=0).min() > SIDE / 2


@pytest.mark.parametrize("condition", dict.fromkeys([*conditions.LIGHT, *conditions.LENS]))
def test_a_condition_changes_a_picture_without_losing_it(condition: conditions.Condition) -> None:
    frame = np.zeros((SIDE, SIDE, 3), np.uint8)
    frame[:, SIDE // 2 :] = 230
    for seed in range(12):
        picture = condition(np.random.default_rng(seed), frame)
        assert picture.shape == frame.shape
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, condition(np.random.default_rng(seed), frame))
        assert (picture != frame).any()
        assert picture[:, SIDE * 3 // 4 :].mean() > picture[:, : SIDE // 4].mean() - 60


def test_the_night_is_dark_and_motion_mostly_level() -> None:
    frame = np.full((SIDE, SIDE, 3), 160, np.uint8)
    assert np.mean([conditions.night(np.random.default_rng(s), frame).mean() for s in range(20)]) < 100
    frame = np.zeros((SIDE, SIDE, 3), np.uint8)
    frame[SIDE // 2, SIDE // 2] = 255
    level = 0
    for seed in range(20):
        rows, columns = np.nonzero(conditions.motion(np.random.default_rng(seed), frame)[..., 0])
        level += bool(np.ptp(columns) > np.ptp(rows))
    assert level >= 14


def test_a_pole_stands_from_top_to_bottom_and_a_hand_comes_from_an_edge() -> None:
    frame = np.full((SIDE, SIDE, 3), 250, np.uint8)
    for seed in range(20):
        changed = (conditions.behind_pole(np.random.default_rng(seed), frame) != 250).any(axis=2)
        assert changed.any(axis=1).all()
        assert changed.mean() < 0.2
        changed = (conditions.behind_hand(np.random.default_rng(seed), frame) != 250).any(axis=2)
        assert changed[[0, -1]].any() or changed[:, [0, -1]].any()
        assert 0.01 < changed.mean() < 0.75
