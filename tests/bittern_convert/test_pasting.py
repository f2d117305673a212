"""Signs drawn into photographs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.colours import redness
from tests.doubles.repetitions import examples

from bittern_convert.pasting import paste_decoy, paste_sign


@settings(max_examples=examples(40))
@given(
    seed=st.integers(0, 2**32),
    stop=st.booleans(),
    size=st.sampled_from([(288, 288), (420, 288), (288, 512), (64, 48), (32, 32)]),
    grey=st.integers(0, 255),
)
def test_paste(seed: int, stop: bool, size: tuple[int, int], grey: int) -> None:
    width, height = size
    picture = np.full((height, width, 3), grey, np.uint8)
    before = picture.copy()
    pasted = paste_sign(np.random.default_rng(seed), picture, stop=stop)
    assert np.array_equal(picture, before), "the photograph is left as it was"
    assert pasted.shape == picture.shape
    assert pasted.dtype == np.uint8
    assert np.array_equal(pasted, paste_sign(np.random.default_rng(seed), picture, stop=stop))
    changed = (pasted != picture).any(axis=2)
    assert 0.002 < changed.mean() < 0.96


@settings(max_examples=examples(40))
@given(seed=st.integers(0, 2**32), size=st.sampled_from([(288, 288), (420, 288), (32, 48)]), grey=st.integers(0, 255))
def test_decoys_of_any_size(seed: int, size: tuple[int, int], grey: int) -> None:
    picture = np.full((size[1], size[0], 3), grey, np.uint8)
    pasted = paste_decoy(np.random.default_rng(seed), picture)
    assert pasted.shape == picture.shape
    assert pasted.dtype == np.uint8
    assert (picture == grey).all(), "the photograph is left as it was"
    assert np.array_equal(pasted, paste_decoy(np.random.default_rng(seed), picture))


def test_some_decoys_are_cut_by_the_edge_and_some_are_small() -> None:
    picture = np.full((288, 288, 3), 128, np.uint8)
    parts, cut = [], 0
    for seed in range(40):
        changed = (paste_decoy(np.random.default_rng(seed), picture) != 128).any(axis=2)
        parts.append(changed.mean())
        cut += bool(changed[0].any() or changed[-1].any() or changed[:, 0].any() or changed[:, -1].any())
    assert 5 <= cut <= 35
    assert min(parts) < 0.03
    assert max(parts) > 0.4


def test_paste_refuses_tiny_pictures() -> None:
    with pytest.raises(ValueError, match="at least 32 x 32 px, got 40 x 31"):
        paste_sign(np.random.default_rng(0), np.zeros((31, 40, 3), np.uint8), stop=True)


def test_a_pasted_sign_shows_in_a_black_and_in_a_white_picture() -> None:
    rng = np.random.default_rng(8)
    for grey in (0, 255):
        for _ in range(20):
            picture = np.full((288, 288, 3), grey, np.uint8)
            difference = np.abs(paste_sign(rng, picture, stop=True).astype(int) - grey).max(axis=2)
            assert np.percentile(difference, 99.5) > 20


def test_pasted_signs_are_red_and_mostly_in_the_centred_square() -> None:
    rng = np.random.default_rng(5)
    red = cut = 0
    for _ in range(80):
        picture = np.full((288, 288, 3), 190, np.uint8)
        pasted = paste_sign(rng, picture, stop=True)
        red += int(np.count_nonzero(redness(pasted)) > 200)
        cut += bool((np.abs(pasted[:, [0, -1]].astype(int) - 190) > 40).any())
        picture = np.full((288, 480, 3), 190, np.uint8)
        other = paste_sign(rng, picture, stop=False)
        outside = np.hypot(*np.gradient(other[..., 0].astype(float))) > 40
        assert not outside[:, :60].any()
        assert not outside[:, -60:].any()
    assert red >= 72
    assert 3 <= cut <= 24
