"""Shared by sources that read cameras through OpenCV: a thread that keeps the newest frame, and muted logs."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import cv2

from bittern.errors import SourceError, one_line
from bittern.frames import Frame, Source, wall_clock_of
from bittern.sources.orientation import OrientationOptions, oriented


def silence_logs() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr: Bittern reports their errors in a line of its own."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read when the first file is opened
    if hasattr(cv2, "setLogLevel"):  # OpenCV 4
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class CaptureSource(Source):
    """A camera read through `cv2.VideoCapture`; live.

    A thread reads every frame and keeps the last one, so that the newest frame wins however many the driver or the
    network queues.

    Args:
        name: name of the source.
        capture: the open `cv2.VideoCapture`; the thread closes it.
        options: orientation of the camera.
        end_message: error message when there are no more frames.
    """

    live = True

    def __init__(self, name: str, capture: Any, options: OrientationOptions, end_message: str) -> None:
        self.name = name
        self._options = options
        self._end_message = end_message
        self._arrived = threading.Condition()
        self._newest: Frame | None = None
        self._failure: str | None = None
        self._stop = threading.Event()
        # A daemon thread: a driver that hangs in a read must not keep the process alive.
        self._thread = threading.Thread(target=self._take, args=(capture,), name=name, daemon=True)
        self._thread.start()

    def _take(self, capture: Any) -> None:
        """Body of the thread: read frames until stopped or a read fails, then release the device."""
        number = 0
        failure = None
        options = self._options
        try:
            while not self._stop.is_set():
                ok, pixels = capture.read()
                if not ok:
                    failure = self._end_message
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
        except Exception as error:  # `read` raises it in the caller's thread
            failure = f"OpenCV failed: {one_line(error)}"
        finally:
            capture.release()
            with self._arrived:
                self._failure = failure
                self._arrived.notify()

    def read(self) -> Frame | None:
        """Wait for the newest frame that was not read yet. None once closed.

        `monotonic_ns` is the kernel's time stamp if OpenCV passes on a plausible one, else the time of arrival.

        Raises:
            SourceError: no frame within `timeout_s`, or the camera is lost.
        """
        with self._arrived:
            arrived = self._arrived.wait_for(
                lambda: self._newest or self._failure or self._stop.is_set(), timeout=self.timeout_s
            )
            if self._stop.is_set():
                return None
            frame, self._newest = self._newest, None
            if frame is not None:
                return frame
            if arrived:
                raise SourceError(f"{self.name}: {self._failure}")
        raise SourceError(f"{self.name}: no frame within {self.timeout_s:g} s: the camera hangs; plug it in again")

    def close(self) -> None:
        """End the thread, which releases the device; waits one second at most."""
        with self._arrived:
            self._stop.set()
            self._arrived.notify()
        self._thread.join(timeout=1.0)


def _kernel_stamp(capture: Any) -> int:
    """When the last frame was taken, on the monotonic clock, ns: OpenCV passes on the V4L2 buffer's stamp.

    A stamp that is not within the last second is from another clock (some drivers, and streams): now is used instead.
    """
    now = time.monotonic_ns()
    stamp = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
    return stamp if now - 10**9 < stamp <= now else now
