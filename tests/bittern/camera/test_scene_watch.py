"""What pictures say about the camera: covered, standing still, turned away; and what they do not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bittern.camera import scene_watch
from bittern.camera.scene_watch import SceneChange, SceneWatch
from bittern.frames import Pixels
from bittern.scene.street import Street

SIZE = (320, 240)
FPS = 4


def scene(seed: int, size: tuple[int, int] = SIZE) -> Pixels:
    return np.asarray(Street(seed, size).render(4.0).pixels)


def noisy(pixels: Pixels, seed: int, sigma: float = 4.0, gain: float = 1.0, offset: float = 0.0) -> Pixels:
    noise = np.random.default_rng(seed).normal(offset, sigma, pixels.shape)
    return np.clip(pixels.astype(np.float64) * gain + noise, 0, 255).astype(np.uint8)


# Normal noise of one grey level, to be scaled; drawing it anew for every frame took longer than the test.
NOISE = np.random.default_rng(5).standard_normal((16, SIZE[1], SIZE[0], 3)).astype(np.float32)


class Film:
    """Shows frames to a view, by the frames' own clock."""

    def __init__(self, **more: float) -> None:
        self.view = SceneWatch(**more)
        self.number = 0
        self.changes: list[tuple[float, SceneChange]] = []

    def show(self, *frames: Pixels, seconds: float, noise: float = 4.0) -> list[str]:
        """One frame after the other, again and again; what was said."""
        states: list[str] = []
        for _ in range(round(seconds * FPS)):
            pixels = frames[self.number % len(frames)]
            if noise:
                pixels = np.clip(pixels + noise * NOISE[self.number % 16], 0, 255).astype(np.uint8)
            changes = self.view.look(pixels, self.number * 10**9 // FPS)
            self.changes += [(self.number / FPS, change) for change in changes]
            states += [change.state for change in changes]
            self.number += 1
        return states


FLAT = {
    "black": np.zeros((240, 320, 3), np.uint8),
    "white": np.full((240, 320, 3), 255, np.uint8),
    "grey": np.full((240, 320, 3), 130, np.uint8),
    "a blue screen": np.full((240, 320, 3), (200, 20, 10), np.uint8),
    "a lens cap, with the noise of a high gain": np.full((240, 320, 3), 15, np.uint8),
}


@pytest.mark.parametrize("kind", FLAT)
def test_blind_and_seeing_again(kind: str) -> None:
    film = Film(blind_after_s=3.0)
    assert film.show(scene(1), seconds=3) == []
    assert not film.view.blind
    noise = 12.0 if "gain" in kind else 1.0
    assert film.show(FLAT[kind], seconds=0.2, noise=noise) == []
    assert film.view.blind, "from the first such frame"
    assert film.show(FLAT[kind], seconds=2.6, noise=noise) == []
    assert film.show(FLAT[kind], seconds=9, noise=noise) == ["blind"], "told once"
    assert 6.0 <= film.changes[0][0] <= 6.4
    assert film.show(scene(1), seconds=0.4) == []
    assert film.view.blind, "until it is sure"
    assert film.show(scene(1), seconds=3) == ["seeing"]
    assert not film.view.blind


def test_flicker_between_blind_and_seeing_tells_nothing() -> None:
    film = Film(blind_after_s=2.0)
    for _ in range(10):
        assert film.show(scene(1), seconds=0.6) == []
        assert film.show(FLAT["black"], seconds=1.4) == []
    assert film.show(FLAT["black"], seconds=2) == ["blind"]
    for _ in range(10):
        assert film.show(scene(1), seconds=0.6) == []
        assert film.show(FLAT["black"], seconds=0.4) == []


def test_a_lamp_in_the_night_is_no_scene_and_a_dim_room_is_one() -> None:
    night = FLAT["black"].copy()
    cv2.circle(night, (200, 60), 8, (255, 255, 255), -1)
    film = Film()
    assert film.show(night, seconds=6) == ["blind"]
    dim = noisy(scene(1), 0, 0, gain=0.25)
    assert Film().show(dim, seconds=6) == []
    bright = noisy(scene(1), 0, 0, gain=0.2, offset=190)
    assert Film().show(bright, seconds=6) == []


def test_equal_content_is_told_once_and_taken_back() -> None:
    film = Film(frozen_after_s=10.0)
    assert film.show(scene(1), seconds=12) == [], "a sensor's noise"
    assert film.show(scene(1), seconds=9, noise=0) == []
    assert film.show(scene(1), seconds=9, noise=0) == ["frozen"]
    assert film.show(scene(1), seconds=1) == ["changing"]


def test_equal_and_black_is_blind_not_frozen() -> None:
    assert Film(frozen_after_s=2.0).show(FLAT["black"], seconds=9, noise=0) == ["blind"]


def test_moved_once_when_the_camera_is_pushed_or_turned() -> None:
    wide = scene(3, (640, 480))
    before, pushed = wide[100:340, 100:420], wide[130:370, 160:480]
    film = Film()
    assert film.show(before, seconds=60) == []
    assert film.show(pushed, seconds=5) == [], "not at once"
    assert film.show(pushed, seconds=60) == ["moved"]
    assert "turned or pushed" in film.changes[-1][1].detail
    assert film.show(before, seconds=60) == ["moved"], "and when it is turned back"
    turned = np.ascontiguousarray(np.rot90(scene(4, (240, 320))))
    assert film.show(turned, seconds=60) == ["moved"]


def test_what_is_not_a_moved_camera() -> None:
    room = scene(3)
    film = Film()
    assert film.show(room, seconds=60) == []
    assert film.show(noisy(room, 1, 0, gain=0.35), seconds=60) == [], "the light goes down"
    assert film.show(noisy(room, 1, 0, gain=1.4, offset=20), seconds=60) == [], "and up"
    person = room.copy()
    cv2.rectangle(person, (90, 20), (190, 239), (40, 70, 90), -1)
    cv2.circle(person, (140, 40), 25, (120, 150, 200), -1)
    assert film.show(person, seconds=60) == [], "somebody who stays"
    assert film.show(room, person, seconds=60) == []
    assert film.show(FLAT["black"], seconds=20) == ["blind"]
    assert film.show(room, seconds=30) == ["seeing"], "a dark night does not move it"


def by_night(room: Pixels, kind: str) -> Pixels:
    """What a camera shows of a room when its infrared filter moves away: grey, in another light, far noisier."""
    # A sensor without the filter sees mostly what its red pixels see; its own lamp lights the middle.
    height, width = room.shape[:2]
    down, across = np.mgrid[-1.5 : 1.5 : height * 1j, -1.5 : 1.5 : width * 1j]
    lamp = np.exp(-(down**2) - across**2)
    red = room[..., 0].astype(np.float64)
    grey = {
        "grey": cv2.cvtColor(room, cv2.COLOR_RGB2GRAY).astype(np.float64),
        "grey and brighter": 0.5 * cv2.cvtColor(room, cv2.COLOR_RGB2GRAY) + 100,
        "red light only": red,
        "red light only, another gamma": 255 * (red / 255) ** 0.5,
        "a lamp in the middle": red * (0.25 + 0.75 * lamp),
        "a lamp in the middle, overexposed": np.minimum(1.8 * red * (0.3 + 0.7 * lamp), 255),
    }[kind]
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("seed", [3, 6])
@pytest.mark.parametrize(
    "kind",
    [
        "grey",
        "grey and brighter",
        "red light only",
        "red light only, another gamma",
        "a lamp in the middle",
        "a lamp in the middle, overexposed",
    ],
)
def test_a_camera_that_switches_to_night_has_not_moved_and_is_seen_to_move_then(kind: str, seed: int) -> None:
    wide = scene(seed, (640, 480))
    room, pushed = wide[100:340, 100:420], wide[130:370, 160:480]
    film = Film()
    assert film.show(room, seconds=60) == []
    assert film.show(by_night(room, kind), seconds=60, noise=10.0) == [], "the filter moved, not the camera"
    assert film.show(room, seconds=60) == [], "and back in the morning"
    assert film.show(by_night(pushed, kind), seconds=60, noise=10.0) == ["moved"], "pushed in the dark"


def test_a_camera_that_drives_has_no_place_to_be_moved_from() -> None:
    street = Street(2, SIZE)
    view, states = SceneWatch(), []
    for number in range(60 * FPS):
        pixels = np.asarray(street.render(number / FPS).pixels)
        states += [change.state for change in view.look(pixels, number * 10**9 // FPS)]
        assert not view.blind
    assert states == []


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (224, 224), (640, 480), (1920, 1080)])
def test_any_size(size: tuple[int, int]) -> None:
    view = SceneWatch()
    for number in range(30):
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        assert view.look(pixels, number * 10**9) == []


@pytest.mark.parametrize("size", [(640, 480), (1920, 1080)])
def test_a_frame_costs_the_same_for_any_size(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: a small sample of every frame, and the finer comparison of a scene only now and then."""
    frames = [noisy(scene(1, size), n) for n in range(4)]
    resized: list[tuple[int, tuple[int, int]]] = []
    resize = cv2.resize

    def spy(picture: Pixels, to: tuple[int, int], **more: int) -> object:
        resized.append((picture.size, to))
        return resize(picture, to, **more)

    monkeypatch.setattr(cv2, "resize", spy)
    view = SceneWatch()
    for number in range(60):
        view.look(frames[number % 4], number * 10**9 // 15)
    assert max(pixels for pixels, _ in resized) <= 4 * scene_watch._SAMPLE[0] * scene_watch._SAMPLE[1]
    assert sum(to == scene_watch._COARSE for _, to in resized) == 60
    assert 4 <= sum(to == scene_watch._FINE for _, to in resized) <= 4e9 / scene_watch._COMPARE_NS + 1
