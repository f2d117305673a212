"""Faults 5 to 8, on the camera: frames that repeat, are in another format, show nothing, or come at another rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tests.doubles.camera_process import FPS, QUICK, Double, next_frame, read_for, read_until, resident_kb, watch
from tests.doubles.picamera2_double import picture
from tests.doubles.repetitions import pass_mark, times

from bittern.config.schema import RecoveryConfig
from bittern.errors import SourceError

Record = Callable[..., None]


# --- 5: the same frame -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["frozen", "frozen counter"])
def test_fault_5_a_frozen_counter_is_a_stall(double: Double, what: str, record: Record) -> None:
    n = times(10, 1)
    noticed = []
    with watch(double) as camera:
        next_frame(camera)
        for _ in range(n):
            read_for(camera, 0.4)
            double.states.clear()
            double.say(fps=FPS, do=what)
            begin = time.monotonic()
            read_until(camera, lambda: "camera_stalled" in double.names, 5)
            noticed.append(time.monotonic() - begin)
            double.say(fps=FPS)
            read_until(camera, lambda: double.names == ["camera_stalled", "camera_ok"], 6)
    mark_s = 4 / FPS + 2  # a last frame may have been on its way
    assert max(noticed) <= pass_mark(mark_s)
    record(
        5,
        "frozen counter and stamp" if what == "frozen" else "frozen counter, moving stamp",
        n,
        f"restarted after at most {max(noticed):.2f} s",
        f"restarted; {mark_s:.2f} s",
    )


def test_fault_5_equal_content_is_only_reported(double: Double, record: Record) -> None:
    n = times(10, 1)
    double.say(fps=FPS, show="moving")
    with watch(double, timing=QUICK._replace(frozen_after_s=1.0)) as camera:
        next_frame(camera)
        pid = camera.pid
        for _ in range(n):
            double.states.clear()
            double.say(fps=FPS, show="still")
            read_until(camera, lambda: double.names == ["camera_frozen"], 4)
            read_for(camera, 2.5)  # longer than the time-out of a stall
            double.say(fps=FPS, show="moving")
            read_until(camera, lambda: double.names == ["camera_frozen", "camera_ok"], 2)
        assert (camera.pid, camera.restarts) == (pid, 0)
    record(5, "equal content, moving counter", n, "one camera_frozen, no restart", "reported, not restarted")


# --- 6: another format, size or stride ---------------------------------------------------------------------------

HANDLED: dict[str, dict[str, Any]] = {
    "NV12": {"adjust": {"format": "NV12"}},
    "YUV420 with a wider stride": {"adjust": {"format": "YUV420"}, "padding": 64},
    "R, G, B with a fourth byte": {"adjust": {"format": "XBGR8888"}},
    "R, G, B for B, G, R": {"adjust": {"format": "BGR888"}},
    "YUYV of another size with a wider stride": {"adjust": {"format": "YUYV", "size": [256, 192]}, "padding": 32},
}


@pytest.mark.parametrize("kind", HANDLED)
def test_fault_6_an_adjusted_configuration_is_handled(double: Double, kind: str, record: Record) -> None:
    world = HANDLED[kind]
    double.say(fps=FPS, show="picture", world=world)
    with watch(double) as camera:
        frame = next_frame(camera)
        expected = picture(tuple(world["adjust"].get("size", (320, 240))))
        assert frame.pixels.shape == expected.shape
        rgb = frame.pixels if frame.order == "RGB" else frame.pixels[..., ::-1]
        far = int(np.abs(rgb.astype(np.int64) - expected).max())
    assert far <= 4
    record(6, kind, 1, f"every pixel within {far} of 255 of the scene", "handled; never wrong colours or sheared")


@pytest.mark.parametrize(
    ("kind", "world", "line"),
    [
        ("a format that is not known", {"adjust": {"format": "RGB161616"}}, "RGB161616"),
        ("an array of another size than configured", {"array": [200, 320, 3]}, "expected uint8, 240 rows"),
    ],
)
def test_fault_6_what_cannot_be_handled_is_refused(
    double: Double, kind: str, world: dict[str, object], line: str, record: Record
) -> None:
    double.say(fps=FPS, world=world)
    with pytest.raises(SourceError, match=line) as caught, watch(double, once=True) as camera:
        camera.read(10)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    record(6, kind, 1, f"refused: {caught.value}", "refused in one line")


# --- 7: blind ----------------------------------------------------------------------------------------------------


def test_fault_7_blind(double: Double, record: Record) -> None:
    n = times(10, 1)
    noticed, unmarked, frames = [], 0, 0
    with watch(double) as camera:
        next_frame(camera)
        for number in range(n):
            double.states.clear()
            double.say(fps=FPS, show=("covered", "white", "grey", "black")[number % 4])
            begin = time.monotonic()
            while "blind" not in double.names:
                frame = camera.read(0.1)
                assert time.monotonic() - begin < pass_mark(8)
                if frame is not None and frame.pixels.astype(int).std() < 6:
                    frames += 1
                    unmarked += not camera.blind
            noticed.append(time.monotonic() - begin)
            double.say(fps=FPS)
            read_until(camera, lambda: double.names[-1] == "seeing", 4)
            assert double.names == ["blind", "seeing"]
            assert not camera.blind
        assert camera.restarts == 0
    assert max(noticed) <= pass_mark(5)
    assert frames > 20 * n
    assert unmarked == 0
    record(
        *(7, "covered with noise, white, grey, black", n),
        f"blind after at most {max(noticed):.2f} s; of {frames} frames without a picture {unmarked} could alarm",
        "5 s; no alarm events from it; seeing after",
    )


# --- 8: rates and clocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [10, 0.1])
def test_fault_8_faster_or_slower_than_asked(double: Double, factor: float, record: Record) -> None:
    n = times(5, 1)
    ages, dropped, memory = [], [], []
    for _ in range(n):
        double.states.clear()
        double.say(fps=FPS * factor)
        # Less than the slow camera's period, which is what counts then.
        with watch(double, timeout_s=0.5, recovery=RecoveryConfig(warm_up_frames=2)) as camera:
            next_frame(camera, 15)
            start, first = time.monotonic(), resident_kb(camera.pid or 0)
            frames = []
            while time.monotonic() - start < (2 if factor > 1 else 3):
                frame = camera.read(1.5)
                assert frame is not None
                ages.append((time.monotonic_ns() - frame.monotonic_ns) / 1e9)
                frames.append(frame.number)
                time.sleep(0.1)  # a consumer that is 15 times too slow for the fast camera
            assert all(b > a for a, b in pairwise(frames))
            assert camera.dropped == frames[-1] + 1 - (len(frames) + 1), "all frames are read or counted"
            dropped.append(camera.dropped)
            memory.append(resident_kb(camera.pid or 0) - first)
            assert camera.restarts == 0
        assert double.names == ["camera_ok"]
    period_s = 1 / (FPS * factor)
    age = float(np.median(ages))
    assert age <= pass_mark(period_s + 0.02)
    assert max(memory) < 4000
    assert (min(dropped) > times(100, 10)) if factor > 1 else (max(dropped) <= times(1, 5))
    record(
        *(8, f"{factor:g} times the rate asked", n),
        f"median age {age * 1000:.0f} ms, period {period_s * 1000:.0f} ms, {dropped[-1]} dropped and counted",
        "newest frame wins; no queue growth",
    )


@pytest.mark.parametrize("jump_s", [-3600, 86400])
def test_fault_8_the_wall_clock_jumps(
    double: Double, jump_s: int, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    n = times(5, 1)
    real = time.time_ns
    with watch(double, timeout_s=1.0) as camera:
        for number in range(n):
            read_for(camera, 0.5)
            before = next_frame(camera)
            offset = jump_s * (number + 1)
            double.say(fps=FPS, clock_s=offset)
            monkeypatch.setattr(time, "time_ns", lambda offset=offset: real() + offset * 10**9)
            monkeypatch.setattr(time, "time", lambda offset=offset: real() / 1e9 + offset)
            read_for(camera, 0.5)
            after = next_frame(camera)
            assert 0 < after.monotonic_ns - before.monotonic_ns < 3e9
            assert abs(after.time_ns - before.time_ns - jump_s * 10**9) < 3e9
        assert camera.restarts == 0
    assert double.names == ["camera_ok"]
    record(8, f"wall clock {jump_s:+d} s", n, "no state, no restart, intervals go on", "intervals by monotonic clock")
