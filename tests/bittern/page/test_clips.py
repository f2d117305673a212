"""Clips around alarms: which frames they show, within which bounds, and what becomes of what cannot be written."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.films import frames_of

from bittern.events import Event, rfc3339, uuid7
from bittern.frames import Frame, Order
from bittern.page import clips as module
from bittern.page.clips import Clips

MS = 1_000_000


def frame(ms: int, red: int = 0, size: tuple[int, int] = (24, 32), order: Order = "BGR") -> Frame:
    colour = (0, 0, red) if order == "BGR" else (red, 0, 0)
    return Frame(np.full((*size, 3), colour, np.uint8), order, ms * MS, time.time_ns(), ms, "film")


def alarm(ms: int) -> Event:
    return Event(id=uuid7(), type="alarm.on", time=rfc3339(time.time_ns()), monotonic_ns=ms * MS, source="x")


def reds(file: Path) -> list[int]:
    return [int(pixels[..., 2].mean().round()) for pixels in frames_of(file)]


def test_five_seconds_before_and_after(tmp_path: Path) -> None:
    """A frame each tenth of a second, whose red tells its time."""
    clips = Clips(tmp_path)
    event = alarm(12_000)
    clips.see(frame(0))
    clips.expect(event)
    for ms in range(100, 17_000, 100):
        clips.see(frame(ms, red=ms // 100))
        assert clips.write_due() == [], "not before five seconds have passed"
    clips.see(frame(17_000, red=170))
    assert clips.write_due() == [event.id]
    assert clips.write_due() == []
    shown = reds(tmp_path / f"{event.id}.avi")
    assert shown == pytest.approx(list(range(70, 171, 2)), abs=2)


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_colours_and_size(tmp_path: Path, order: Order) -> None:
    clips = Clips(tmp_path)
    for ms in range(0, 11_000, 200):
        clips.see(frame(ms, red=200, size=(480, 640), order=order))
    event = alarm(5000)
    clips.expect(event)
    assert clips.write_due() == [event.id]
    shown = frames_of(tmp_path / f"{event.id}.avi")
    assert {pixels.shape for pixels in shown} == {(240, 320, 3)}
    blue, green, red = shown[0].mean((0, 1))
    assert (blue < 10, green < 10, red > 190) == (True, True, True)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 700), width=st.integers(1, 700))
def test_a_frame_of_any_size_becomes_a_small_one(height: int, width: int) -> None:
    small = module._small(np.zeros((height, width, 3), np.uint8))
    assert small.shape[0] * small.shape[1] <= 320 * 240
    assert small.flags.owndata or small.base is None


def test_memory_is_bounded_and_fast_cameras_are_thinned(tmp_path: Path) -> None:
    clips = Clips(tmp_path)
    for ms in range(0, 60_000, 10):
        clips.see(frame(ms))
    kept = clips._frames
    assert len(kept) == 65
    assert {b.monotonic_ns - a.monotonic_ns for a, b in zip(kept, list(kept)[1:], strict=False)} == {180 * MS}


def test_a_camera_that_stops_after_the_alarm_has_a_shorter_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = Clips(tmp_path)
    for ms in range(0, 4001, 200):
        clips.see(frame(ms, red=ms // 50))
    event = alarm(3000)
    clips.expect(event)
    assert clips.write_due() == []
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert clips.write_due() == [event.id]
    assert reds(tmp_path / f"{event.id}.avi") == pytest.approx(list(range(0, 81, 4)), abs=2)


def test_a_slow_camera_has_its_frames_shown_for_longer(tmp_path: Path) -> None:
    clips = Clips(tmp_path)
    for ms in range(0, 20_000, 1000):
        clips.see(frame(ms, red=ms // 100))
    event = alarm(10_000)
    clips.expect(event)
    assert clips.write_due() == [event.id]
    shown = reds(tmp_path / f"{event.id}.avi")
    assert len(shown) == 51
    assert shown[:6] == pytest.approx([50] * 5 + [60], abs=2)


def test_no_clip_without_the_frame_of_the_alarm(tmp_path: Path) -> None:
    clips = Clips(tmp_path)
    clips.expect(alarm(1000))
    for ms in range(0, 60_000, 200):
        clips.see(frame(ms))
    assert clips.write_due() == []
    assert list(tmp_path.iterdir()) == []


def test_only_an_alarm_that_begins_has_a_clip_and_a_size_that_changes_ends_it(tmp_path: Path) -> None:
    clips = Clips(tmp_path)
    for ms in range(0, 30_000, 200):
        clips.see(frame(ms, size=(24, 32) if ms < 22_000 else (48, 64)))
    event = alarm(20_000)
    clips.expect(Event(id=uuid7(), type="alarm.off", time="", monotonic_ns=20_000 * MS, source="x"))
    clips.expect(event)
    assert clips.write_due() == [event.id]
    shown = frames_of(tmp_path / f"{event.id}.avi")
    assert {pixels.shape for pixels in shown} == {(24, 32, 3)}


def test_a_recording_that_begins_anew(tmp_path: Path) -> None:
    clips = Clips(tmp_path)
    for ms in [*range(0, 9000, 200), *range(0, 6000, 200)]:
        clips.see(frame(ms, red=1))
    assert len(clips._frames) == 30


def test_the_oldest_make_room_and_an_earlier_process_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUDGET_MB", 0.25)
    clips = Clips(tmp_path)
    noise = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    for ms in range(0, 11_000, 200):
        clips.see(Frame(noise, "BGR", ms * MS, 0, ms, "film"))
    ids = []
    for _ in range(4):
        event = alarm(5000)
        clips.expect(event)
        ids += clips.write_due()
    left = sorted(file.stem for file in tmp_path.iterdir())
    assert 0 < len(left) < 4
    assert left == ids[-len(left) :]
    (tmp_path / f".{uuid7()}.avi.abc_12.avi").write_bytes(b"half")
    Clips(tmp_path)
    assert sorted(file.stem for file in tmp_path.iterdir()) == left


def test_a_folder_that_is_gone_is_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = Clips(tmp_path / "clips")
    for ms in range(0, 11_000, 200):
        clips.see(frame(ms))
    (tmp_path / "clips").rmdir()
    clips.expect(alarm(5000))
    assert clips.write_due() == []
    assert "no clip of the alarm" in caplog.text


@pytest.mark.skipif(cv2.CAP_FFMPEG not in cv2.videoio_registry.getStreamBackends(), reason="OpenCV without FFmpeg")
def test_ffmpeg_reads_it_too(tmp_path: Path) -> None:
    clips = Clips(tmp_path)
    for ms in range(0, 11_000, 200):
        clips.see(frame(ms, red=ms // 50, size=(90, 160)))
    event = alarm(5000)
    clips.expect(event)
    assert clips.write_due() == [event.id]
    film = cv2.VideoCapture(str(tmp_path / f"{event.id}.avi"), cv2.CAP_FFMPEG)
    assert film.isOpened()
    assert film.get(cv2.CAP_PROP_FPS) == 5
    shown = [film.read()[1] for _ in range(51)]
    assert [pixels[..., 2].mean() for pixels in shown] == pytest.approx(list(range(0, 201, 4)), abs=3)
    assert film.read()[0] is False


def test_a_failure_of_opencv_costs_the_loop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = Clips(tmp_path)

    def no_memory(*_: object, **__: object) -> None:
        raise cv2.error("out of memory")

    monkeypatch.setattr(cv2, "resize", no_memory)
    clips.see(frame(0, size=(480, 640)))
    assert len(clips._frames) == 0
