"""Masks at the chin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.repetitions import examples

from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern_convert import copies
from bittern_convert.chin_mask import wear
from bittern_convert.copies import Photo, Sample
from bittern_convert.task import Augment, Data, Task


@settings(max_examples=examples(40))
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(300, 300), (420, 280), (90, 160)]),
    face=st.tuples(st.floats(-0.3, 0.3), st.floats(-0.4, 0.4), st.floats(0.1, 0.9)),
)
def test_nose_and_mouth_stay_free(seed: int, size: tuple[int, int], face: tuple[float, float, float]) -> None:
    width, height = size
    frame = np.full((height, width, 3), 120, np.uint8)
    masked = wear(np.random.default_rng(seed), frame, face)
    np.testing.assert_array_equal(masked, wear(np.random.default_rng(seed), frame, face))
    assert (frame == 120).all()
    short = min(size)
    x, y, side = width / 2 + face[0] * short, height / 2 + face[1] * short, face[2] * short
    free = (masked == frame).all(axis=2)
    mouth = free[
        max(int(y - side * 0.1), 0) : max(int(y + side * 0.12), 0), max(int(x - side * 0.15), 0) : int(x + side * 0.15)
    ]
    assert mouth.all()


def test_it_is_seen_below_the_face() -> None:
    frame = np.full((300, 300, 3), 120, np.uint8)
    for seed in range(20):
        changed = (np.abs(wear(np.random.default_rng(seed), frame, (0.0, 0.0, 0.4)).astype(int) - 120) > 8).any(axis=2)
        assert changed[195:230, 110:190].mean() > 0.25
        assert not changed[:110].any()


def test_a_share_of_the_copies_of_a_picture_with_a_face_wear_one() -> None:
    def drawn(share: float, faces: dict[str, tuple[float, float, float]]) -> Iterator[Pixels]:
        task = Task(
            name="masks",
            question="which?",
            labels=("mask", "no_mask"),
            data=(Data(path="set", faces=faces),),
            augment=Augment(chin_masks=share),
        )
        sample = Sample(Item(Path("a.png"), "set/a.png", "no_mask", "train", "g", {}), 1, "photo", True)
        frame = np.full((300, 300, 3), 120, np.uint8)
        return iter(next(copies.draw(task, [sample], [Photo(frame, {})], 1, range(40))))

    face = {"a.png": (0.0, 0.0, 0.4)}
    plain = list(drawn(0.0, face))
    others = [list(drawn(share, faces)) for share, faces in ((0.0, {}), (0.5, {}), (0.5, {"b.png": (0.0, 0.0, 0.4)}))]
    for other in others:
        np.testing.assert_array_equal(plain, other)
    worn = sum(bool((a != b).any()) for a, b in zip(plain, drawn(0.5, face), strict=True))
    assert worn > 20
    np.testing.assert_array_equal(plain[0], next(drawn(1.0, face)), "copy 0 is the picture itself")
    assert sum(np.std(copy[160:, 60:160].astype(float)) > 12 for copy in drawn(1.0, face)) > sum(
        np.std(copy[160:, 60:160].astype(float)) > 12 for copy in plain
    )
