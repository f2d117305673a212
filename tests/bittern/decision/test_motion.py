"""The motion gate: what passes, and that nothing is missed that a scripted clip has in it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.scripted_clips import SIZE, driven, frames, sign_of, still

from bittern import Classifier
from bittern.config.schema import GateConfig, WatchConfig
from bittern.decision.motion import MotionGate, thumbnail
from bittern.decision.pipeline import Pipeline
from bittern.frames import Pixels
from bittern.model.preprocess import square_of
from bittern.scene.street import Street

S = 1_000_000_000
LEVELS = WatchConfig().gate.threshold


def flat(level: int, size: tuple[int, int] = (40, 40)) -> Pixels:
    return np.full((*size, 3), level, np.uint8)


def gate(threshold: float = 5.0, heartbeat_s: float = 10.0, linger_s: float = 0.0) -> MotionGate:
    return MotionGate(threshold=threshold, heartbeat_s=heartbeat_s, linger_s=linger_s)


def test_a_still_scene_passes_once_and_as_a_heartbeat() -> None:
    motion = gate(heartbeat_s=3.0)
    assert [t for t in range(10) if motion.passes(flat(50), t * S)] == [0, 3, 6, 9]


def test_motion_passes_and_lingers() -> None:
    motion = gate(linger_s=2.0)
    levels = [50, 50, 50, 50, 50, 50, 90, 90, 90, 90, 90]
    assert [t for t, level in enumerate(levels) if motion.passes(flat(level), t * S)] == [0, 1, 2, 6, 7, 8]


def test_what_is_forced_passes_and_becomes_the_reference() -> None:
    motion = gate()
    assert motion.passes(flat(50), 0)
    assert motion.passes(flat(54), S, force=True)
    assert not motion.passes(flat(59), 2 * S)
    assert motion.passes(flat(60), 3 * S)


def test_slow_change_adds_up() -> None:
    """Against the last frame that passed, not the last one: what creeps is seen too."""
    motion = gate(heartbeat_s=1000.0)
    assert [t for t in range(20) if motion.passes(flat(50 + t), t * S)] == [0, 6, 12, 18]


def test_another_size_and_a_clock_set_back_pass() -> None:
    motion = gate()
    assert motion.passes(flat(50), 100 * S)
    assert not motion.passes(flat(50), 101 * S)
    assert motion.passes(flat(50, (60, 40)), 102 * S)
    assert motion.passes(flat(50, (60, 40)), 3 * S)


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 3 * S), st.booleans()), max_size=40))
def test_what_does_not_pass_is_near_what_did(steps: list[tuple[int, int, bool]]) -> None:
    motion, now, passed = gate(linger_s=1.0), 0, None
    for level, gap, forced in steps:
        now += gap
        if motion.passes(flat(level), now, force=forced):
            passed = level, now
        else:
            assert not forced
            assert passed is not None
            assert abs(level - passed[0]) <= 5
            assert now - passed[1] < 10 * S


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (8, 8), (224, 224), (480, 640), (1080, 1920), (1944, 2592)])
def test_a_thumbnail_covers_the_picture(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    small = thumbnail(picture)
    assert min(small.shape[:2]) <= 45
    assert small.shape[0] * small.shape[1] <= 45 * 80
    for level in (0, 77, 255):
        assert set(np.unique(thumbnail(flat(level, size)))) == {level}
    assert thumbnail(picture, small) is small or size == (1, 1)


def test_a_cell_is_the_mean_of_its_rows() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (480, 480, 3), np.uint8)
    rows = picture[2::4].reshape(40, 3, 40, 12, 3).astype(float).mean((1, 3))
    assert np.abs(thumbnail(picture) - rows).max() <= 0.51


# --- with the default settings ---------------------------------------------------------------------------------------


def difference(one: Pixels, other: Pixels) -> float:
    return float(cv2.norm(thumbnail(square_of(one)), thumbnail(square_of(other)), cv2.NORM_INF))


@pytest.mark.parametrize("kind", [{"noise": 4.0}, {"noise": 3.0, "jpeg": 80}, {"noise": 2.0, "drift": 0.5}], ids=str)
def test_noise_and_slow_light_are_no_motion(kind: dict[str, float]) -> None:
    for seed in range(2):
        # As long as there is no heartbeat.
        frames = list(still(seed, 5.0, lambda _: False, sign_px=24, at=(300, 200), **kind))  # type: ignore[arg-type]
        assert max(difference(frames[0], picture) for picture in frames) <= LEVELS


def test_a_sign_of_24_pixels_is_motion() -> None:
    rng = np.random.default_rng(4)
    for seed in range(6):
        empty = Street(seed, SIZE).render(0.3).pixels
        sign = sign_of(seed, 24)
        h, w = sign.shape[:2]
        x, y = int(rng.integers(80, 560 - w)), int(rng.integers(0, 480 - h))
        with_sign = empty.copy()
        with_sign[y + 4 : y + h - 4, x + 4 : x + w - 4] = sign[4:-4, 4:-4]  # without what is around it
        assert difference(empty, with_sign) > LEVELS, (seed, x, y)


def changes(model: Classifier, clip: list[Pixels], gate: GateConfig) -> tuple[list[tuple[str, int | None]], int]:
    """Type and frame of every event, and how many frames were not classified."""
    pipeline = Pipeline([model], WatchConfig(gate=gate))
    steps = [pipeline.step(frame) for frame in frames(iter(clip))]
    changes: list[tuple[str, int | None]] = [(event.type, event.frame) for step in steps for event in step.events]
    return changes, sum(step.skipped for step in steps)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Classifier:
    return Classifier(model_folder)


@pytest.mark.parametrize("seed", range(4))
def test_on_a_drive_nothing_is_missed(model: Classifier, seed: int) -> None:
    clip = list(driven(seed))
    every, none = changes(model, clip, GateConfig(enabled=False))
    assert len(every) == 2
    assert none == 0
    assert changes(model, clip, GateConfig())[0] == every


@pytest.mark.parametrize("kind", [{"noise": 4.0}, {"noise": 3.0, "jpeg": 80}, {"noise": 2.0, "drift": 0.5}], ids=str)
def test_what_appears_and_stays_still_is_told_at_the_same_frame(model: Classifier, kind: dict[str, float]) -> None:
    """It is there from one frame to the next, stands still for longer than linger and heartbeat, and is gone again."""
    clip = list(still(1, 22.0, lambda t: 6 <= t < 15, sign_px=130, at=(230, 120), **kind))  # type: ignore[arg-type]
    every, _ = changes(model, clip, GateConfig(enabled=False))
    gated, skipped = changes(model, clip, GateConfig())
    assert every == [("alarm.on", 31), ("alarm.off", 77)]
    assert gated == every
    assert skipped > len(clip) / 2


def test_votes_come_without_lingering(model: Classifier) -> None:
    """A first vote is reason enough to look at the next frame."""
    clip = list(still(1, 12.0, lambda t: t >= 6, sign_px=130, at=(230, 120), noise=3.0))
    assert changes(model, clip, GateConfig(linger_s=0.0))[0] == [("alarm.on", 31)]


def test_one_bad_frame_of_a_still_scene_does_not_end_an_alarm(model: Classifier) -> None:
    """Who passes in front of the sign: frames that were not classified count as what they looked like."""
    clip = list(still(1, 15.0, lambda t: t >= 2 and not 11 <= t < 11.4, sign_px=130, at=(230, 120), noise=3.0))
    every, _ = changes(model, clip, GateConfig(enabled=False))
    assert every == [("alarm.on", 11)]
    assert changes(model, clip, GateConfig())[0] == every
