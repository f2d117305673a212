"""Augmentation."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.repetitions import examples

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
