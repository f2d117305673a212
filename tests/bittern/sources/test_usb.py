"""The source `usb`: its thread against a double of the camera, and against OpenCV on a video file."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.doubles.capture_double import SIZE, Camera, red_of, refuse, write_video
from tests.doubles.waiting import until, within

from bittern.errors import ConfigurationError, SourceError
from bittern.frames import Frame, Source
from bittern.sources.registry import open_source

Plug = Callable[[Any], str]


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plug]:
    """Plug a double in and get its URI; afterwards no reader thread may be left."""
    before = set(threading.enumerate())
    device = tmp_path / "video0"
    device.write_bytes(b"")

    def plug_in(camera: Any) -> str:
        monkeypatch.setattr(cv2, "VideoCapture", lambda path, backend: camera)
        return f"usb:{device}"

    yield plug_in
    until(lambda: not set(threading.enumerate()) - before)


def read(source: Source) -> Frame:
    frame = source.read()
    assert frame is not None
    return frame


def test_the_newest_frame_wins(plug: Plug) -> None:
    camera = Camera(period_s=0.005)
    with open_source(plug(camera)) as source:
        assert source.live
        first = read(source)
        until(lambda: camera.frames_read >= first.number + 20)  # a slow consumer
        frames_read = camera.frames_read
        second = read(source)
        assert second.number >= frames_read - 3, "not one that lay in a queue"
        assert second.pixels[0, 0, 2] == (second.number + 1) % 256
        numbers = [read(source).number for _ in range(5)]
        assert all(b > a for a, b in pairwise(numbers))
    assert camera.released.wait(20)
    assert source.read() is None


def test_what_was_asked_of_the_camera(plug: Plug, caplog: pytest.LogCaptureFixture) -> None:
    camera = Camera(period_s=0.01)
    open_source(plug(camera) + "?size=320x240&fps=5").close()
    assert camera.properties == {
        cv2.CAP_PROP_FRAME_WIDTH: 320,
        cv2.CAP_PROP_FRAME_HEIGHT: 240,
        cv2.CAP_PROP_FPS: 5.0,
    }
    assert not caplog.records


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"exposure_us": 20_000}, {cv2.CAP_PROP_AUTO_EXPOSURE: 1, cv2.CAP_PROP_EXPOSURE: 200}),
        ({"gain": 7.5}, {cv2.CAP_PROP_GAIN: 7.5}),
        ({"white_balance_k": 4600}, {cv2.CAP_PROP_AUTO_WB: 0, cv2.CAP_PROP_WB_TEMPERATURE: 4600}),
        ({"focus": 0}, {cv2.CAP_PROP_AUTOFOCUS: 0, cv2.CAP_PROP_FOCUS: 0}),
    ],
    ids=str,
)
def test_settings(plug: Plug, option: dict[str, float], expected: dict[int, float]) -> None:
    camera = Camera(period_s=0.01)
    uri = plug(camera)
    open_source(uri, option).close()
    sizes = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS)
    assert {what: value for what, value in camera.properties.items() if what not in sizes} == expected
    lacking = Camera(period_s=0.01, lacks=(max(expected),))
    uri = plug(lacking)
    (name,) = option
    with pytest.raises(ConfigurationError, match=f"{name}=.*: this camera does not accept it"):
        open_source(uri, option)
    assert lacking.released.is_set()


QUARTERS = np.zeros((48, 64, 3), np.uint8)
QUARTERS[:24, :32], QUARTERS[:24, 32:], QUARTERS[24:, :32] = (9, 0, 0), (0, 9, 0), (0, 0, 9)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("vflip", [False, True])
def test_turned_and_mirrored(plug: Plug, rotation: int, hflip: bool, vflip: bool) -> None:
    query = f"?rotation={rotation}&hflip={str(hflip).lower()}&vflip={str(vflip).lower()}"
    with open_source(plug(Camera(period_s=0.01, picture=QUARTERS)) + query) as source:
        pixels = read(source).pixels
    expected = np.rot90(QUARTERS, -rotation // 90)
    expected = expected[:, ::-1] if hflip else expected
    expected = expected[::-1] if vflip else expected
    assert np.array_equal(pixels, expected)
    assert pixels.flags.c_contiguous


def test_another_size_is_said(plug: Plug, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with open_source(plug(Camera(period_s=0.01, sizes=SIZE)) + "?size=320x240") as source:
        assert read(source).pixels.shape == (48, 64, 3)
    assert "requested 320x240 at 15 frames per second, the camera gives 64x48 at 15" in caplog.text


def test_stamps_of_the_kernel_are_kept_if_plausible(plug: Plug) -> None:
    now = time.monotonic_ns()
    stamps = [round(now / 1e6) - 5.0, 3.0, now / 1e6 + 1e9]
    times = []
    for stamp in stamps:
        with open_source(plug(Camera(stamps=[stamp]))) as source:
            times.append(read(source).monotonic_ns)
    assert abs(times[0] - stamps[0] * 1e6) < 1000
    assert all(now <= stamp <= time.monotonic_ns() for stamp in times[1:])


def test_unplugged(plug: Plug) -> None:
    camera = Camera(frames=1)
    with open_source(plug(camera)) as source:
        read(source)
        for _ in range(2):
            with pytest.raises(SourceError, match="gives no more frames") as caught:
                source.read()
            assert caught.value.exit_code == 1
    assert camera.released.is_set()


def test_opencv_fails_in_the_thread(plug: Plug) -> None:
    def fail() -> tuple[bool, Any]:
        raise cv2.error("select()\nfailed")

    with (
        open_source(plug(Camera(frames=0, then=fail))) as source,
        pytest.raises(SourceError, match=r"OpenCV failed: select\(\) failed"),
    ):
        source.read()


def test_frames_of_another_kind(plug: Plug) -> None:
    with (
        open_source(plug(Camera(frames=0, then=lambda: (True, np.zeros((48, 64), np.uint8))))) as source,
        pytest.raises(SourceError, match=r"got \(48, 64\)"),
    ):
        source.read()


def test_hangs_in_a_read(plug: Plug) -> None:
    wakes = threading.Event()

    def hang() -> tuple[bool, Any]:
        wakes.wait(60)
        return False, None

    camera = Camera(frames=0, then=hang)
    source = open_source(plug(camera))
    source.timeout_s = 0.1
    with pytest.raises(SourceError, match=r"no frame within 0\.1 s"):
        source.read()
    with within():
        source.close()
    assert not camera.released.is_set()  # nobody but the thread may touch the device
    wakes.set()
    assert camera.released.wait(20)


def test_closed_while_a_read_waits(plug: Plug) -> None:
    wakes = threading.Event()
    source = open_source(plug(Camera(frames=0, then=lambda: (wakes.wait(60), None))))
    timer = threading.Timer(0.1, source.close)
    timer.start()
    with within():
        assert source.read() is None
    wakes.set()
    timer.join()


def test_the_thread_on_opencv_itself(tmp_path: Path, plug: Plug) -> None:
    path = write_video(tmp_path / "clip.avi", 8)
    with open_source(plug(cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)) + "?size=64x48&fps=10") as source:
        frames: list[Frame] = []
        with pytest.raises(SourceError, match="gives no more frames"):
            frames.extend(source)
    last = frames[-1]
    assert last.number == 7  # the end does not swallow the last frame
    assert abs(red_of(last) - 130) <= 3


def test_absent_and_wrong_devices(tmp_path: Path) -> None:
    assert "usb:99: no /dev/video99" in refuse("usb:99", SourceError)
    refuse("usb:", ConfigurationError)
    refuse("usb:front", ConfigurationError)
    refuse("usb:0?size=0x0", ConfigurationError)
    path = write_video(tmp_path / "clip.avi", 2)
    assert "does not open as a camera" in refuse(f"usb:{path}", SourceError)  # OpenCV's V4L2 says no


def test_no_permission(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "usermod -aG video" in refuse(plug(Camera()), SourceError)


def test_busy_names_the_holder(plug: Plug) -> None:
    uri = plug(Camera(opens=False))
    program = f"import sys; f = open({uri.removeprefix('usb:')!r}); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        assert f"held by process {holder.pid} (" in refuse(uri, SourceError)
        holder.communicate()
    assert "no process of this user" in refuse(uri, SourceError)
