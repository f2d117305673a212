"""The sources `folder` and `video`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.doubles.capture_double import Camera, flat, red_of, refuse, write_video

from bittern.errors import ConfigurationError
from bittern.sources.folder import FolderSource
from bittern.sources.registry import check_source, open_source

# --- folder ------------------------------------------------------------------------------------------------------


def test_a_folder_gives_every_picture_once_sorted(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, level in (("b/2.PNG", 120), ("a.png", 80), ("c.bmp", 160), (".hidden.png", 10)):
        cv2.imwrite(str(tmp_path / name), flat(level))
    (tmp_path / "notes.txt").write_text("no picture")
    with open_source(f"folder:{tmp_path}?fps=4") as source:
        assert not source.live
        frames = list(source)
    assert [red_of(frame) for frame in frames] == [80, 120, 160]
    assert [frame.number for frame in frames] == [0, 1, 2]
    assert [frame.monotonic_ns for frame in frames] == [0, 250_000_000, 500_000_000]
    assert {frame.source for frame in frames} == {str(tmp_path)}
    assert abs(frames[0].time_ns - time.time_ns()) < 60e9


def test_a_folder_is_thinned_only_if_its_rate_is_stated(tmp_path: Path) -> None:
    for i in range(30):
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), flat(80 + i))
    for uri, fps, kept in (
        (tmp_path, 0.5, 30),
        (f"folder:{tmp_path}?fps=5", 5.0, 30),
        (f"folder:{tmp_path}?fps=30", 5.0, 5),
    ):
        with open_source(str(uri)) as source:
            source.thin(fps)
            frames = list(source)
            assert (len(frames), source.left_out) == (kept, 30 - kept)
            assert [red_of(frame) for frame in frames] == [80 + i for i in range(0, 30, 30 // kept)]


def test_a_broken_picture_is_skipped_said_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "c.png"):
        cv2.imwrite(str(tmp_path / name), flat(90))
    (tmp_path / "b.png").write_bytes(b"not a picture")
    source = open_source(str(tmp_path))
    assert isinstance(source, FolderSource)
    frames = list(source)
    assert [frame.number for frame in frames] == [0, 2]
    assert [frame.monotonic_ns for frame in frames] == [0, 2_000_000_000]
    assert source.unreadable == 1
    assert [(r.name, r.levelname) for r in caplog.records] == [("bittern", "WARNING")]
    assert "b.png" in caplog.text


def test_folders_that_are_none(tmp_path: Path) -> None:
    assert "no pictures in this folder" in refuse(tmp_path, ConfigurationError)
    refuse("folder:/does/not/exist", ConfigurationError)
    refuse("folder:", ConfigurationError)
    refuse(f"folder:{tmp_path}?fps=0", ConfigurationError)


def test_a_closed_folder_ends(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), flat(90))
    source = open_source(str(tmp_path))
    source.close()
    source.close()
    assert source.read() is None


# --- video -------------------------------------------------------------------------------------------------------


def test_a_video_gives_every_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 12)
    with open_source(str(path)) as source:
        assert not source.live
        frames = list(source)
        assert source.read() is None
    assert [frame.number for frame in frames] == list(range(12))
    assert [round(frame.monotonic_ns / 1e6) for frame in frames] == [100 * n for n in range(12)]
    reds = [red_of(frame) for frame in frames]
    assert all(abs(red - (60 + 10 * n)) <= 3 for n, red in enumerate(reds)), reds
    assert frames[0].pixels.shape == (48, 64, 3)


@pytest.mark.parametrize(("rate", "fps"), [(10.0, 5.0), (25.0, 5.0), (29.97, 5.0), (24.0, 5.0), (10.0, 10.0)])
def test_a_video_is_thinned_by_its_own_clock(tmp_path: Path, rate: float, fps: float) -> None:
    path = write_video(tmp_path / "clip.avi", 60, rate)
    with open_source(str(path)) as source:
        every = list(source)
    with open_source(str(path)) as source:
        source.thin(fps)
        frames = list(source)
        assert len(frames) + source.left_out == len(every)
    step = round(rate / fps, 1)
    assert [frame.number for frame in frames] == [round(i * step) for i in range(len(frames))]
    for frame in frames:
        whole = every[frame.number]
        assert (frame.monotonic_ns, frame.pixels.tobytes()) == (whole.monotonic_ns, whole.pixels.tobytes())


@pytest.mark.parametrize(
    ("stamps", "fps", "expected"),
    [
        ([500.0, 540.0, 700.0], 25.0, [0, 40, 200]),  # counted from the first frame; uneven
        ([0.0, 0.0, 0.0], 20.0, [0, 50, 100]),  # no time stamps: the frame rate
        ([0.0, 100.0, 90.0, 300.0], 10.0, [0, 100, 200, 300]),  # a step back
        ([0.0, 0.0], float("nan"), [0, 40]),
        ([0.0, 0.0], 0.0, [0, 40]),
    ],
)
def test_the_recorded_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stamps: list[float], fps: float, expected: list[int]
) -> None:
    path = tmp_path / "clip.avi"
    path.write_bytes(b"\0")
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Camera(stamps=stamps, fps=fps))
    with open_source(str(path)) as source:
        assert [round(frame.monotonic_ns / 1e6) for frame in source] == expected


@pytest.mark.parametrize(("share", "warned"), [(1.0, False), (0.6, True)])
def test_a_cut_video_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float, warned: bool) -> None:
    clip = write_video(tmp_path / "clip.avi", 20)
    clip.write_bytes(clip.read_bytes()[: int(share * clip.stat().st_size)])
    with open_source(str(clip)) as source:
        read = len(list(source))
        assert source.read() is None
    assert (f"states 20 frames, {read} could be read" in caplog.text) is warned
    assert len(caplog.records) == warned


def test_a_closed_video_ends(tmp_path: Path) -> None:
    source = open_source(str(write_video(tmp_path / "clip.avi", 3)))
    assert source.read() is not None
    source.close()
    source.close()
    assert source.read() is None


def test_files_that_are_no_video(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", 5).read_bytes()
    files = {
        "empty.avi": (b"", "empty"),
        "text.avi": (b"one, two, three\n" * 99, "looks like text"),
        "random.mp4": (np.random.default_rng(1).bytes(50_000), "not a video"),
        "cut.avi": (whole[: len(whole) // 4], "not a video"),
        "picture.avi": (cv2.imencode(".jpg", flat(90))[1].tobytes(), "it is a picture"),
    }
    for name, (data, expected) in files.items():
        (tmp_path / name).write_bytes(data)
        assert expected in refuse(tmp_path / name, ConfigurationError)
    refuse("video:/does/not/exist.avi", ConfigurationError)
    assert "not a regular file" in refuse(f"video:{tmp_path}", ConfigurationError)


def test_opencv_and_ffmpeg_keep_quiet(tmp_path: Path) -> None:
    """In a process of its own: FFmpeg reads how loud it may be once, and the tests have used it already."""
    whole = write_video(tmp_path / "whole.avi", 5).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 4])
    (tmp_path / "random.mp4").write_bytes(np.random.default_rng(1).bytes(50_000))
    program = (
        "import sys\n"
        "from bittern.errors import BitternError\n"
        "from bittern.sources.registry import open_source\n"
        "for uri in sys.argv[1:]:\n"
        "    try: open_source(uri)\n"
        "    except BitternError: print('refused')\n"
    )
    uris = [str(tmp_path / "random.mp4"), str(tmp_path / "cut.avi"), f"usb:{tmp_path}/whole.avi", "usb:99"]
    done = subprocess.run([sys.executable, "-c", program, *uris], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("refused\n" * 4, "")


# --- options and checks ------------------------------------------------------------------------------------------


def test_options_of_the_configuration_and_of_the_address_are_merged(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), flat(90))
    with open_source(str(tmp_path), {"fps": 4}) as source:
        assert [frame.monotonic_ns for frame in source] == [0, 250_000_000]
    for options in ({"fps": 4}, {"fps": "4"}):
        assert check_source("demo:?seed=3", options) == ("demo", True)
    with pytest.raises(ConfigurationError, match=r"the option 'seed' is also in"):
        open_source("demo:?seed=3", {"seed": 3})
    with pytest.raises(ConfigurationError, match="did you mean 'seed'"):
        open_source("demo:", {"sede": 3})
    for options, message in (
        ({"size": 640}, "size: expected text, got 640"),
        ({"rotation": 45}, "rotation: expected one of 0, 90, 180, 270, got 45"),
        ({"fps": "fast", "hflip": "on"}, 'fps: expected a number above 0, at most 1000, got "fast"'),
        ({"hflip": "on"}, 'hflip: expected true or false, got "on"'),
    ):
        with pytest.raises(ConfigurationError, match=f"source '(usb:0|demo:)': {message}$"):
            check_source("demo:" if "size" in options else "usb:0", options)
    with pytest.raises(ConfigurationError, match="unknown option 'size': expected fps"):
        open_source(str(write_video(tmp_path / "clip.avi", 2)), {"size": 3})


def test_a_check_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "clip.avi", 2)

    def opened(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(cv2, "VideoCapture", opened)
    cv2.imwrite(str(tmp_path / "a.png"), flat(90))
    assert check_source(str(video)) == (str(video), False)
    assert check_source(str(tmp_path)) == (str(tmp_path), False)
    assert check_source("picamera:?camera=1") == ("picamera:1", True)
    assert check_source("usb:7") == ("usb:7", True)
    assert check_source("usb:/dev/v4l/by-id/x", {"rotation": 180, "hflip": True}) == ("usb:/dev/v4l/by-id/x", True)
    for uri in ("usb:front", "usb:0?size=1x1", "picamera:1", "demo:here", "demo:?size=1x1", f"video:{tmp_path}/no.avi"):
        with pytest.raises(ConfigurationError):
            check_source(uri)
