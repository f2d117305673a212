"""What the sources that read cameras through OpenCV share: a thread that keeps the newest frame, and silence."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import cv2

from bittern.errors import SourceError
from bittern.frames import Frame, Source, wall_clock_of
from bittern.sources.orientation import OrientationOptions, oriented


def quiet() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr: what they know is said in our own line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read when the first file is opened
    if hasattr(cv2, "setLogLevel"):  # OpenCV 4
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class CaptureSource(Source):
    """A `cv2.VideoCapture` that is a camera; live.

    A thread of its own takes every frame and keeps the last one, so that the newest frame wins whatever the driver or
    the network queues.

    Args:
        name: of the source.
        capture: the open `cv2.VideoCapture`; the thread closes it.
        options: how the camera hangs.
        ended: what to say when there are no more frames.
    """

    live = True

    def __init__(self, name: str, capture: Any, options: OrientationOptions, ended: str) -> None:
        self.name = name
        self._options = options
        self._ended = ended
        self._arrived = threading.Condition()
        self._newest: Frame | None = None
        self._failure: str | None = None
        self._stop = threading.Event()
        # A daemon: a driver that hangs in a read must not keep the process alive.
        self._thread = threading.Thread(target=self._take, args=(capture,), name=name, daemon=True)
        self._thread.start()

    def _take(self, capture: Any) -> None:
        """The thread: takes frames until it is stopped or one fails, then gives the device back."""
        number = 0
        failure = None
        options = self._options
        try:
            while not self._stop.is_set():
                ok, pixels = capture.read()
                if not ok:
                    failure = self._ended
                    break
                if pixels.ndim != 3 or pixels.shape[2] != 3:
                    failure = f"expected frames (H, W, 3) from OpenCV, got {pixels.shape}"
                    break
                monotonic_ns = _kernel_stamp(capture)
                frame = Frame(
                    pixels=oriented(pixels, options.rotation, options.hflip, options.vflip),
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

        `monotonic_ns` is the kernel's time stamp where OpenCV passes a plausible one on, else the moment of arrival.

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

    The stamp of a driver with another clock, or of a stream, is not within the last second: then it is now.
    """
    now = time.monotonic_ns()
    stamp = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
    return stamp if now - 10**9 < stamp <= now else now
