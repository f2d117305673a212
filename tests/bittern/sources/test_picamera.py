"""The source `picamera` against a double of picamera2: every adjusted format, every failure, nothing kept."""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.doubles import picamera2_double
from tests.doubles.picamera2_double import World, picture
from tests.doubles.picamera_uris import open_picamera, refuse
from tests.doubles.waiting import within

from bittern.errors import SourceError
from bittern.frames import Frame
from bittern.sources.picamera import PicameraSource, on_monotonic_clock
from bittern.sources.pixel_formats import KNOWN_FORMATS
from bittern.sources.registry import open_source


def read(source: PicameraSource) -> Frame:
    frame = source.read()
    assert frame is not None
    return frame


def rgb_of(frame: Frame) -> np.ndarray[Any, np.dtype[np.int64]]:
    pixels = frame.pixels if frame.order == "RGB" else frame.pixels[..., ::-1]
    return pixels.astype(np.int64)


# --- frames ------------------------------------------------------------------------------------------------------


def test_red_is_red_and_what_was_asked_is_right(world: World) -> None:
    with open_picamera("picamera:?size=320x240&fps=10") as source:
        before = time.monotonic_ns()
        frame = read(source)
        assert (source.name, source.live, source.size) == ("picamera:0", True, (320, 240))
    assert (rgb_of(frame) == picture((320, 240))).all()
    assert frame.order == "BGR"
    assert before <= frame.monotonic_ns <= time.monotonic_ns()
    assert abs(frame.time_ns - time.time_ns()) < 5e9
    configured = world.configured
    assert configured["main"] == {"format": "RGB888", "size": (320, 240)}
    assert configured["controls"] == {"FrameDurationLimits": (100_000, 100_000)}
    assert (configured["buffer_count"], configured["queue"]) == (4, False)
    assert (configured["raw"], configured["sensor"]) == (None, None)
    assert (world.held, world.running, world.opened) == (0, 0, 0)


@pytest.mark.parametrize("name", KNOWN_FORMATS)
@pytest.mark.parametrize("rotation", [0, 180])
def test_every_format_that_libcamera_may_give_instead(
    world: World, name: str, rotation: int, caplog: pytest.LogCaptureFixture
) -> None:
    world.adjust = {"format": name}
    world.padding = 32
    with open_picamera(f"picamera:?size=64x48&rotation={rotation}") as source:
        frame = read(source)
    expected = picture((64, 48))
    if rotation:
        expected = expected[::-1, ::-1]
    assert np.abs(rgb_of(frame) - expected).max() <= 4
    assert (name == "RGB888") == (not caplog.records)
    assert all(f"libcamera gives {name} 64x48" in record.getMessage() for record in caplog.records)


def test_a_rotation_that_libcamera_drops_is_done_here(world: World) -> None:
    world.adjust_all = {"transform": picamera2_double.Transform()}
    with open_picamera("picamera:?size=64x48&rotation=180") as source:
        frame = read(source)
    assert (rgb_of(frame) == picture((64, 48))[::-1, ::-1]).all()
    assert frame.pixels.flags.c_contiguous


@pytest.mark.parametrize("drops", [False, True], ids=["libcamera turns", "libcamera does not"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("flips", ["", "hflip", "vflip", "hflip vflip"])
def test_turned_and_mirrored(world: World, rotation: int, flips: str, drops: bool) -> None:
    if drops:
        world.adjust_all = {"transform": picamera2_double.Transform()}
    query = "".join(f"&{flip}=true" for flip in flips.split())
    with open_picamera(f"picamera:?size=64x48&rotation={rotation}{query}") as source:
        frame = read(source)
    expected = np.rot90(picture((64, 48)), -rotation // 90)
    expected = expected[:, ::-1] if "hflip" in flips else expected
    expected = expected[::-1] if "vflip" in flips else expected
    assert np.array_equal(rgb_of(frame), expected)
    assert frame.pixels.flags.c_contiguous


def test_a_changed_size_is_handled_and_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.adjust = {"size": (128, 96)}
    with open_picamera("picamera:?size=100x90") as source:
        assert source.size == (128, 96)
        assert (rgb_of(read(source)) == picture((128, 96))).all()
    assert "requested RGB888 100x90, libcamera gives RGB888 128x96" in caplog.text


def test_a_format_that_is_not_known_is_refused_at_once(world: World) -> None:
    world.adjust = {"format": "RGB161616"}
    assert "RGB161616" in refuse("picamera:", SourceError)
    assert (world.running, world.opened) == (0, 0)


def test_a_frame_of_another_size_than_configured_is_refused(world: World) -> None:
    with open_picamera("picamera:?size=64x48") as source:
        world.array = np.zeros((40, 64, 3), np.uint8)
        with pytest.raises(SourceError, match="RGB888 64x48"):
            source.read()
    assert world.held == 0


def test_numbers_follow_libcamera_and_show_dropped_frames(world: World) -> None:
    with open_picamera() as source:
        assert [read(source).number for _ in range(3)] == [0, 3, 6]


def test_numbers_are_counted_where_libcamera_has_none(world: World) -> None:
    world.sequences = False
    with open_picamera() as source:
        assert [read(source).number for _ in range(3)] == [0, 1, 2]


def test_the_same_frame_is_not_given_twice(world: World) -> None:
    now = time.monotonic_ns()
    world.stamps = [now - 9, now - 9, now - 10, now - 5]
    with open_picamera() as source:
        assert [read(source).monotonic_ns for _ in range(2)] == [now - 9, now - 5]
    assert world.released == 4


def test_a_frozen_stamp_ends_in_a_time_out(world: World) -> None:
    world.sequences = False
    with open_picamera(timeout_s=0.2) as source:
        world.frozen = read(source).monotonic_ns
        with pytest.raises(SourceError, match=r"the same frame for 0\.2 s"):
            source.read()
    assert world.held == 0


def test_without_a_stamp_the_clock_of_the_machine_counts(world: World) -> None:
    world.stamps = [None]
    with open_picamera() as source:
        before = time.monotonic_ns()
        assert before <= read(source).monotonic_ns <= time.monotonic_ns()


def test_stamps_of_either_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    suspended = 3600 * 10**9
    clocks = {time.CLOCK_MONOTONIC: 50 * 10**9, time.CLOCK_BOOTTIME: 50 * 10**9 + suspended}
    clock = SimpleNamespace(
        CLOCK_BOOTTIME=time.CLOCK_BOOTTIME,
        clock_gettime_ns=clocks.__getitem__,
        monotonic_ns=lambda: clocks[time.CLOCK_MONOTONIC],
    )
    monkeypatch.setattr("bittern.sources.picamera.time", clock)
    assert on_monotonic_clock(49 * 10**9) == 49 * 10**9  # CLOCK_MONOTONIC
    assert on_monotonic_clock(49 * 10**9 + suspended) == 49 * 10**9  # CLOCK_BOOTTIME
    assert on_monotonic_clock(99 * 10**9 + suspended) == 50 * 10**9  # neither
    assert on_monotonic_clock(0) == 50 * 10**9


def test_a_camera_without_frame_durations_is_spaced_here(world: World) -> None:
    world.controls = {}
    with open_picamera("picamera:?fps=20") as source:
        started = time.monotonic()
        for _ in range(4):
            read(source)
        assert time.monotonic() - started >= 0.15
    assert world.configured["controls"] == {}


# --- failures ----------------------------------------------------------------------------------------------------


def test_without_picamera2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libcamera", None)
    assert "apt install python3-picamera2 --no-install-recommends" in refuse("picamera:", SourceError)


def test_a_picamera2_that_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "libcamera.py").write_text("raise ValueError('numpy.dtype size changed,\\nExpected 96')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "numpy.dtype size changed, Expected 96" in refuse("picamera:", SourceError)


def test_no_camera(world: World) -> None:
    world.cameras = []
    assert "rpicam-hello --list-cameras" in refuse("picamera:", SourceError)


def test_no_camera_of_that_number(world: World) -> None:
    assert "no camera 1, only 0 (imx708)" in refuse("picamera:?camera=1", SourceError)


def test_busy(world: World) -> None:
    world.open_error = RuntimeError("Failed to acquire camera: Device or resource busy")
    assert "the camera is busy: " in refuse("picamera:", SourceError)


def test_does_not_open(world: World) -> None:
    world.open_error = RuntimeError("")
    assert "the camera does not open: RuntimeError" in refuse("picamera:", SourceError)


def test_does_not_start(world: World) -> None:
    world.start_error = RuntimeError("Failed to start\ncamera")
    assert "does not start: Failed to start camera" in refuse("picamera:", SourceError)
    assert world.opened == 0


def test_an_interrupted_start_gives_the_camera_back(world: World) -> None:
    world.start_error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        open_source("picamera:")
    assert world.opened == 0


def test_a_hung_camera_is_said_in_time_and_loses_no_buffer(world: World) -> None:
    with open_picamera(timeout_s=0.05) as source:
        for _ in range(2 * picamera2_double.BUFFERS):
            world.hang = True
            with within(), pytest.raises(SourceError, match=r"no new frame within 0\.05 s") as caught:
                source.read()
            assert caught.value.exit_code == 1
            world.hang = False
            read(source)
    assert world.held == 0


def test_a_frame_that_comes_with_the_time_out_is_given(world: World) -> None:
    world.finish_when_cancelled = True
    with open_picamera(timeout_s=0.05) as source:
        world.hang = True
        read(source)
    assert world.held == 0


def test_closed_while_a_read_waits(world: World) -> None:
    source = open_picamera()
    world.hang = True
    timer = threading.Timer(0.1, source.close)
    timer.start()
    with within():
        assert source.read() is None
    timer.join()


def test_closed_at_the_moment_of_the_time_out(world: World) -> None:
    source = open_picamera(timeout_s=0.05)
    world.hang = True
    world.on_cancel = source.close
    assert source.read() is None


def test_the_request_is_released_whatever_happens(world: World) -> None:
    with open_picamera() as source:
        for error in (RuntimeError("failed to find buffer"), KeyboardInterrupt()):
            world.array_error = error
            expected = SourceError if isinstance(error, RuntimeError) else KeyboardInterrupt
            with pytest.raises(expected):
                source.read()
            assert world.held == 0
        world.array_error = None
        read(source)


def test_close_twice_and_open_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        source = open_picamera()
        read(source)
        assert world.running == 1
        source.close()
        source.close()
        assert source.read() is None
        assert (world.running, world.opened, world.held) == (0, 0, 0)
    assert not caplog.records
