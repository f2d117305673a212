"""The sources `video` (a file) and `usb` (a camera), both through OpenCV."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import cv2
import msgspec

from bittern import pictures
from bittern.contract import Pixels
from bittern.errors import ConfigurationError, SourceError
from bittern.frames import Frame, Source, wall_clock_of
from bittern.sources import parse_size
from bittern.sources.devices import held_by

_log = logging.getLogger("bittern")
_HEAD_BYTES = 64 * 1024


def _quiet() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr: what they know is said in our own line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read when the first file is opened
    if hasattr(cv2, "setLogLevel"):  # OpenCV 4
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class VideoSource(Source):
    """A video file; not live: every frame is given, as fast as it is asked for.

    Raises:
        ConfigurationError: the file is absent, cannot be read, or is no video.
    """

    live = False

    class Options(msgspec.Struct, forbid_unknown_fields=True):
        """A video file has no options."""

    def __init__(self, address: str, options: Options) -> None:
        self.name = address
        _refuse_other_files(address)
        _quiet()
        # FFmpeg by name: the other readers of OpenCV take "picture_01.jpg" for the start of a sequence.
        self._capture: Any = cv2.VideoCapture(address, cv2.CAP_FFMPEG)
        self._period_ns = _period_ns(self._capture.get(cv2.CAP_PROP_FPS))
        self._number = 0
        self._origin_ns = 0
        self._clock_ns = 0
        self._first = self._decode()
        if self._first is None:
            self.close()
            raise ConfigurationError(f"{address}: not a video that OpenCV's FFmpeg can read, or one without a frame")

    def _decode(self) -> tuple[Pixels, int] | None:
        """Pixels and the file's own time stamp (ns) of the next frame."""
        ok, pixels = self._capture.read()
        return (pixels, round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)) if ok else None

    def read(self) -> Frame | None:
        """The next frame; None at the end, and once closed.

        `monotonic_ns` counts from the first frame, by the file's time stamps; where they do not grow, by the
        frame rate. `time_ns` is the moment of reading: a file does not say reliably when it was taken.
        """
        if self._capture is None:
            return None
        decoded, self._first = self._first or self._decode(), None
        if decoded is None:
            return None
        pixels, stamp_ns = decoded
        if self._number == 0:
            self._origin_ns = stamp_ns
        else:
            elapsed_ns = stamp_ns - self._origin_ns
            self._clock_ns = elapsed_ns if elapsed_ns > self._clock_ns else self._clock_ns + self._period_ns
        self._number += 1
        return Frame(
            pixels=pixels,
            order="BGR",
            monotonic_ns=self._clock_ns,
            time_ns=time.time_ns(),
            number=self._number - 1,
            source=self.name,
        )

    def close(self) -> None:
        """Close the file."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()


def _period_ns(fps: float) -> int:
    """Time between two frames, by the rate that a file states; else FFmpeg's own 25 a second."""
    return round(1e9 / fps) if math.isfinite(fps) and fps > 0 else 40_000_000


def _refuse_other_files(address: str) -> None:
    """Refuse what FFmpeg opens although it is no video: a picture is a frame to it, a text is a terminal."""
    if Path(address).exists() and not Path(address).is_file():  # opening a pipe would wait for its writer
        raise ConfigurationError(f"{address}: expected a video file, but it is no regular file")
    try:
        with Path(address).open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise ConfigurationError(f"{address}: expected a video file: {error.strerror or error}") from None
    if not head:
        raise ConfigurationError(f"{address}: expected a video file, but it is empty")
    if pictures.header_size(head) is not None:
        raise ConfigurationError(
            f"{address}: expected a video file, but it is a picture: give its folder as the source, or say "
            f"`bittern classify {address}`"
        )
    if b"\0" not in head:  # every container of videos has zeros at its start; texts and playlists have none
        raise ConfigurationError(f"{address}: expected a video file, but it looks like a text")


class UsbSource(Source):
    """A camera of the kernel's V4L2 interface; live.

    A thread of its own takes every frame and keeps the last one, so that the newest frame wins whatever the
    driver queues. No USB camera was at hand when this was written: the thread runs in the tests against a
    double of `cv2.VideoCapture` and against a video file; opening a real device, the kernel's time stamps,
    and size and frame rate as a driver adjusts them, have not been run.

    Raises:
        SourceError: exit code 2 when the camera is absent, not allowed or busy.
    """

    live = True

    class Options(msgspec.Struct, forbid_unknown_fields=True):
        """Options of the URI: `size` in pixels, `fps` in frames a second; the camera takes its nearest."""

        size: str = "640x480"
        fps: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 15.0

    def __init__(self, address: str, options: Options) -> None:
        if not (address.isdecimal() or address.startswith("/")):
            raise ConfigurationError(
                f"source usb:{address}: expected the number of a camera (usb:0 is /dev/video0) or the path "
                "of its device (usb:/dev/v4l/by-id/...)"
            )
        width, height = parse_size(options.size)
        self.name = f"usb:{address}"
        self._arrived = threading.Condition()
        self._newest: Frame | None = None
        self._failure: str | None = None
        self._stop = threading.Event()
        _quiet()
        capture = _open_device(f"/dev/video{address}" if address.isdecimal() else address, self.name)
        asked = {
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_FPS: options.fps,
        }
        for what, value in asked.items():
            capture.set(what, value)
        given = [capture.get(what) for what in asked]
        if given != list(asked.values()):
            _log.warning(
                "%s: asked for %dx%d at %g frames a second, the camera gives %dx%d at %g",
                *(self.name, *asked.values(), *given),
            )
        # A daemon: a driver that hangs in a read must not keep the process alive.
        self._thread = threading.Thread(target=self._take, args=(capture,), name=self.name, daemon=True)
        self._thread.start()

    def _take(self, capture: Any) -> None:
        """The thread: takes frames until it is stopped or one fails, then gives the device back."""
        number = 0
        failure = None
        try:
            while not self._stop.is_set():
                ok, pixels = capture.read()
                if not ok:
                    failure = "the camera gives no more frames: unplugged, or too little power? See `dmesg`"
                    break
                if pixels.ndim != 3 or pixels.shape[2] != 3:
                    failure = f"expected frames (H, W, 3) from OpenCV, got {pixels.shape}"
                    break
                monotonic_ns = _kernel_stamp(capture)
                frame = Frame(
                    pixels=pixels,
                    order="BGR",
                    monotonic_ns=monotonic_ns,
                    time_ns=wall_clock_of(monotonic_ns),
                    number=number,
                    source=self.name,
                )
                number += 1
                with self._arrived:
                    self._newest = frame
                    self._arrived.notify()
        except Exception as error:  # whatever it is, the reader must hear of it
            failure = f"OpenCV failed: {' '.join(str(error).split())}"
        finally:
            capture.release()
            with self._arrived:
                self._failure = failure
                self._arrived.notify()

    def read(self) -> Frame | None:
        """The newest frame not yet given; waits for it. None once closed.

        `monotonic_ns` is the kernel's time stamp where OpenCV passes a plausible one on.

        Raises:
            SourceError: no frame within `timeout_s`, or the camera is lost.
        """
        with self._arrived:
            came = self._arrived.wait_for(
                lambda: self._newest or self._failure or self._stop.is_set(), timeout=self.timeout_s
            )
            if self._stop.is_set():
                return None
            frame, self._newest = self._newest, None
            if frame is not None:
                return frame
            if came:
                raise SourceError(f"{self.name}: {self._failure}")
        raise SourceError(f"{self.name}: no frame within {self.timeout_s:g} s: the camera hangs; plug it in again")

    def close(self) -> None:
        """End the thread, which gives the device back; waits for that for one second at most."""
        with self._arrived:
            self._stop.set()
            self._arrived.notify()
        self._thread.join(timeout=1.0)


def _kernel_stamp(capture: Any) -> int:
    """When the last frame was taken, on the monotonic clock, ns: OpenCV passes the V4L2 buffer's stamp on.

    The stamp of a driver with another clock is not within the last second: then it is now.
    """
    now = time.monotonic_ns()
    stamp = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
    return stamp if now - 10**9 < stamp <= now else now


def _open_device(device: str, name: str) -> Any:
    if not Path(device).exists():
        there = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "no /dev/video* at all"
        raise SourceError(
            f"{name}: there is no {device}, but {there}: check the plug, then `v4l2-ctl --list-devices`",
            exit_code=2,
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise SourceError(
            f"{name}: no permission to use {device}: sudo usermod -aG video $USER, then log in again",
            exit_code=2,
        )
    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    if not capture.isOpened():
        capture.release()
        raise SourceError(
            f"{name}: {device} does not open as a camera: busy ({held_by(device)}), or a device that gives "
            "no pictures: see `v4l2-ctl --list-devices`",
            exit_code=2,
        )
    return capture
