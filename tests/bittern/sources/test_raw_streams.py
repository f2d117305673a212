"""Raw streams, which have no time stamps, and what is no source but nearly one."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from bittern.errors import ConfigurationError
from bittern.sources import video
from bittern.sources.registry import check_source, open_source


def film(file: Path, frames: int = 6) -> Path:
    """A stream of JPEG pictures, one behind the other."""
    data = b""
    for number in range(frames):
        picture = np.full((48, 64, 3), 40 * number, np.uint8)
        picture[:, : 8 * number] = (30, 200, 90)
        data += cv2.imencode(".jpg", picture)[1].tobytes()
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("suffix", ["mjpeg", "mjpg"])
def test_a_stream_of_pictures_is_a_video_on_a_clock_that_is_said(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = film(tmp_path / f"door.{suffix}")
    with caplog.at_level(logging.WARNING, "bittern"), open_source(str(file)) as source:
        times = [frame.monotonic_ns for frame in source]
    assert len(times) == 6
    assert np.diff(times).tolist() == [40_000_000] * 5
    assert f"its frames count as 25 a second; video:{file}?fps=N gives their rate" in caplog.text


@pytest.mark.parametrize("form", ["video:{}?fps=10", "{}?fps=10"])
def test_its_rate_can_be_given(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    file = film(tmp_path / "door.mjpeg")
    with caplog.at_level(logging.WARNING, "bittern"), open_source(form.format(file)) as source:
        times = [frame.monotonic_ns for frame in source]
    assert np.diff(times).tolist() == [100_000_000] * 5
    assert not caplog.text
    with pytest.raises(ConfigurationError, match="fps: expected"):
        check_source(f"{file}?fps=0")


def test_a_picture_is_still_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="it is a picture"):
        check_source(str(film(tmp_path / "door.jpg", 1)))


def test_raw_units_are_told_from_containers() -> None:
    assert video._is_raw(b"\0\0\0\1\x67\x42")
    assert video._is_raw(b"\0\0\1\x40\1")
    for head in (b"\0\0\1\xba\x44", b"\0\0\1\xb3\x16", b"\0\0\0\x18ftypmp42", b"RIFF", b"\0\0\0\0", b"\0\0\1"):
        assert not video._is_raw(head)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("0", "the camera of this number is usb:0"),
        ("demo", "no such file or folder: demo; the source demo is written with a colon: demo:?laps=1&seed=1"),
        ("usb?size=640x480", "the source usb is written with a colon: usb:0?size=640x480"),
        ("/dev/null", "is a device: a camera is usb:/dev/null"),
        ("udp://10.0.0.5:5000", "expected rtsp://; a server such as MediaMTX gives a udp stream out by RTSP"),
        ("rtsp://user:pa#ss@host/path", "# as %23"),
        ("rtsp://user:pa/ss@host/path", "/ as %2F"),
    ],
)
def test_what_is_nearly_a_source_says_how_to_write_it(uri: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_source(uri)
    assert says in str(caught.value)
    assert "pa" not in str(caught.value).replace("path", "").replace("password", "")
