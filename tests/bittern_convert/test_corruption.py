"""Corruptions: each changes the picture as it says and leaves the original alone; a seed gives the same picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bittern.model import preprocess
from bittern.scene import street
from bittern_convert.corruption import CORRUPTIONS, Corruption, corrupt

PICTURE = preprocess.preprocess(street.random_picture(np.random.default_rng(5), stop=True), "RGB")[0]


def error(corruption: Corruption) -> float:
    return float(np.abs(corrupt(PICTURE, corruption, 7).astype(float) - PICTURE).mean())


def test_there_are_fourteen_kinds_at_two_strengths() -> None:
    assert len({c.kind for c in CORRUPTIONS}) == 14
    assert len(CORRUPTIONS) == 28


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda c: f"{c.kind}-{c.strength}")
def test_a_seed_gives_the_same_corrupted_picture(corruption: Corruption) -> None:
    before = PICTURE.copy()
    corrupted = corrupt(PICTURE, corruption, 7)
    assert corrupted.shape == PICTURE.shape
    assert corrupted.dtype == np.uint8
    assert np.array_equal(PICTURE, before), "the picture itself stays as it is"
    assert not np.array_equal(corrupted, PICTURE)
    assert np.array_equal(corrupt(PICTURE, corruption, 7), corrupted)


@pytest.mark.parametrize("kind", sorted({c.kind for c in CORRUPTIONS}))
def test_strong_is_worse_than_mild(kind: str) -> None:
    assert error(Corruption(kind, "strong")) > error(Corruption(kind, "mild")) > 0.5


@pytest.mark.parametrize("kind", ["noise", "shot noise", "hot pixels", "fog", "motion"])
def test_what_is_random_differs_with_the_seed(kind: str) -> None:
    corruption = Corruption(kind, "mild")
    assert any(
        not np.array_equal(corrupt(PICTURE, corruption, 7), corrupt(PICTURE, corruption, seed)) for seed in range(8, 16)
    )


def test_what_each_kind_does() -> None:
    def mean(kind: str) -> float:
        return float(corrupt(PICTURE, Corruption(kind, "strong"), 1).mean())

    def channels(kind: str) -> np.ndarray:
        return np.asarray(corrupt(PICTURE, Corruption(kind, "mild"), 1).reshape(-1, 3).mean(0))

    plain = PICTURE.reshape(-1, 3).mean(0)
    assert mean("dim") < 0.35 * PICTURE.mean()
    assert mean("bright") > 1.2 * PICTURE.mean()
    assert channels("warm cast")[0] > plain[0] + 5 > plain[0] > channels("cold cast")[0] + 5
    assert channels("warm cast")[2] < plain[2] - 5 < plain[2] < channels("cold cast")[2] - 5
    assert corrupt(PICTURE, Corruption("contrast", "strong"), 1).std() < 0.35 * PICTURE.std()


def test_threads_do_not_disturb_each_other() -> None:
    jobs = [(corruption, seed) for seed in range(4) for corruption in CORRUPTIONS]
    alone = [corrupt(PICTURE, *job) for job in jobs]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda job: corrupt(PICTURE, *job), jobs))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
