"""The drawn street: what the demonstration and the tests look at."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.colours import redness
from tests.doubles.repetitions import examples

from bittern.frames import Pixels
from bittern.scene.signs import DECOYS, FACE_PX, OTHERS, VARIANTS, face
from bittern.scene.street import Street, StreetPicture, random_picture

MOMENTS = np.arange(0, 12, 0.25).tolist()


def inside(view: StreetPicture) -> Pixels:
    assert view.sign is not None
    x, y, w, h = view.sign
    return view.pixels[y : y + h, x : x + w]


@pytest.mark.parametrize("seed", range(8))
def test_a_lap_shows_no_sign_then_a_growing_one_then_none(seed: int) -> None:
    street = Street(seed)
    height, width = 480, 640
    left = (width - height) // 2
    largest, was, near = 0, 0, 0
    visible = []
    for t in MOMENTS:
        view = street.render(t)
        assert view.pixels.shape == (height, width, 3)
        assert view.pixels.dtype == np.uint8
        visible.append(view.sign is not None)
        if view.sign is None:
            continue
        x, y, w, h = view.sign
        assert x >= 0
        assert y >= 0
        assert w >= 2
        assert h >= 6
        assert x + w <= width
        assert y + h <= height
        if t < 9.5:
            assert h >= was - 1, "it comes nearer"
            was = h
        if 30 <= h <= 125 and t < 10.2:
            assert left <= x, "large, and in the square that the network sees"
            assert x + w <= left + height
            assert 0 < y < y + h < height
            largest = max(largest, h)
            near += h >= 40
    first, last = visible.index(True), len(visible) - 1 - visible[::-1].index(True)
    assert MOMENTS[first] >= 3.5, "the street is empty for the first third"
    assert all(visible[first : last + 1])
    assert MOMENTS[last] < 11.5, "it has passed before the lap ends"
    assert largest >= 85
    assert near >= 8, "2 seconds, for a decision over several frames"


@pytest.mark.parametrize("seed", range(12))
def test_the_box_holds_a_red_sign_with_light_letters(seed: int) -> None:
    street = Street(seed)
    view = max((street.render(t) for t in (9, 9.5, 9.75)), key=lambda v: v.sign[3] if v.sign else 0)
    sign = inside(view)
    red = redness(sign)
    assert red.mean() > 0.35
    # The middle row crosses four letters: light between red.
    row = cv2.resize(sign, (96, 96), interpolation=cv2.INTER_AREA)[44:52].mean(axis=(0, 2))
    contrast = row[12:84] > (row[12:84].max() + row[12:84].min()) / 2
    assert 5 <= np.count_nonzero(np.diff(contrast.astype(int))) <= 16


@pytest.mark.parametrize("seed", range(24))
def test_nothing_hides_the_sign(seed: int) -> None:
    street = Street(seed, (320, 240))
    for t in np.arange(7, 11, 0.2).tolist():
        view = street.render(t)
        if view.sign is None or min(view.sign[2:]) < 24:
            continue
        x, y, w, _ = view.sign
        if x > 0 and x + w < 320 and y > 0:
            assert redness(inside(view)).mean() > 0.35, f"at {t} s"


def test_a_lap_starts_empty_and_looks_elsewhere_different() -> None:
    street = Street(1)
    assert street.render(0).sign is None
    assert (street.render(0).pixels != street.render(1).pixels).mean() > 0.2


@settings(max_examples=examples(12))
@given(seed=st.integers(-(2**40), 2**70), t=st.floats(0, 12))
def test_same_seed_same_bytes_and_every_lap_the_same(seed: int, t: float) -> None:
    street, twin = Street(seed, (160, 120)), Street(seed, (160, 120))
    view = street.render(t)
    street.render(t / 2)  # what was drawn before does not matter
    for other in (twin.render(t), street.render(t), street.render(t + 12), street.render(t + 120)):
        assert other.sign == view.sign
        assert np.array_equal(other.pixels, view.pixels)


def test_seeds_differ() -> None:
    pictures = [Street(seed, (64, 48)).render(8).pixels for seed in range(40)]
    assert len({p.tobytes() for p in pictures}) == 40
    brightness = [p.mean() for p in pictures]
    assert max(brightness) > 3 * min(brightness), "day and night are among them"


@settings(max_examples=examples(15))
@given(width=st.integers(32, 400), height=st.integers(32, 400), seed=st.integers(0, 99), t=st.floats(0, 30))
def test_any_size(width: int, height: int, seed: int, t: float) -> None:
    view = Street(seed, (width, height), lap_s=5).render(t)
    assert view.pixels.shape == (height, width, 3)
    if view.sign:
        x, y, w, h = view.sign
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height


@pytest.mark.parametrize("kind", ["stop", *OTHERS, *DECOYS])
def test_faces_are_premultiplied(kind: str) -> None:
    for variant in range(VARIANTS.get(kind, 3)):
        levels = face(kind, variant)
        assert levels[0].shape == (FACE_PX, FACE_PX, 4)
        for level in levels:
            assert (level[..., :3].max(axis=2).astype(int) <= level[..., 3].astype(int) + 1).all()
        assert 0.1 < (levels[0][..., 3] > 127).mean() <= 1


def test_a_stop_sign_is_an_octagon() -> None:
    for variant in range(VARIANTS["stop"]):
        alpha = face("stop", variant)[0][..., 3]
        contours, _ = cv2.findContours((alpha > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        assert len(contours) == 1
        assert len(cv2.approxPolyDP(contours[0], 0.02 * FACE_PX, True)) == 8


def test_no_such_sign() -> None:
    with pytest.raises(ValueError, match="no such sign: 'halt'"):
        face("halt", 0)


@settings(max_examples=examples(25))
@given(seed=st.integers(0, 2**32), stop=st.booleans(), size=st.sampled_from([(320, 320), (224, 160), (96, 128)]))
def test_random_pictures(seed: int, stop: bool, size: tuple[int, int]) -> None:
    picture = random_picture(np.random.default_rng(seed), stop=stop, size=size)
    assert picture.shape == (size[1], size[0], 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 2
    assert np.array_equal(picture, random_picture(np.random.default_rng(seed), stop=stop, size=size))


def octagons(picture: Pixels) -> int:
    """How many red, filled, upright shapes as high as wide there are."""
    mask = cv2.morphologyEx(redness(picture).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    n, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    return sum(int(s[4] > 0.6 * s[2] * s[3] and 0.6 < s[2] / s[3] < 1.5 and s[3] > 20) for s in stats[1:n].tolist())


def test_random_pictures_with_a_stop_sign_show_one() -> None:
    rng = np.random.default_rng(3)
    shown = [octagons(random_picture(rng, stop=True)) > 0 for _ in range(40)]
    assert np.mean(shown) > 0.6, "the others are small, at night, or before a red wall"
