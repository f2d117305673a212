"""Clips around alarms: small frames of the last seconds in memory, and a film of them once an alarm was raised.

A ring of JPEGs would have to be encoded all the time, for nobody. Small frames are only copied, five a second; those
around an alarm are encoded a few seconds later, by the thread that serves the page's process.

The film is Motion JPEG in an AVI file: OpenCV writes it by itself, without ffmpeg, and ordinary players show it.
"""

from __future__ import annotations

import logging
import tempfile
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2

from bittern.delivery.snapshots import EventFiles
from bittern.errors import BitternError, one_line
from bittern.events import Event
from bittern.frames import Frame, Order, Pixels

_log = logging.getLogger("bittern")

SUFFIX = "avi"
# What a clip shows: seconds before and after the alarm, frames a second.
BEFORE_S, AFTER_S, FPS = 5, 5, 5
# It takes the sink's thread up to two seconds to look, and a camera may be late.
_LATE_S = 3
_PERIOD_NS = 10**9 // FPS
# A camera's frames are never exactly so far apart.
_SOONEST_NS = _PERIOD_NS * 9 // 10
_MOST_FRAMES = FPS * (BEFORE_S + AFTER_S + _LATE_S)
# Of a frame, in pixels: 320 x 240, or as many in another shape. With all frames, 15 MB.
_MOST_PIXELS = 320 * 240
_QUALITY = 80
# Of all clips together: ten to twenty.
_BUDGET_MB = 10.0
# Alarms whose clip is not written yet.
_MOST_ALARMS = 20


class _Small(NamedTuple):
    """A frame, made small."""

    monotonic_ns: int
    pixels: Pixels
    order: Order


class _Alarm(NamedTuple):
    """An alarm whose clip is to be written, and until when the frames after it are waited for, by `time.monotonic`."""

    event_id: str
    monotonic_ns: int
    until: float


class Clips:
    """Keeps the frames, and writes the clips. The loop calls `see`, one other thread the rest.

    Attributes:
        folder: where they are, `ID.avi` by the event's id.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder, and count the clips of an earlier process.

        Args:
            folder: where the clips go.
        """
        self.folder = folder
        self._files = EventFiles(folder, _BUDGET_MB, SUFFIX, "clips", "the page")
        self._frames: deque[_Small] = deque(maxlen=_MOST_FRAMES)
        self._alarms: deque[_Alarm] = deque(maxlen=_MOST_ALARMS)
        self._last_ns = 0

    def see(self, frame: Frame) -> None:
        """Keep a small copy of a frame, five a second at most. Never waits."""
        if frame.monotonic_ns < self._last_ns:  # a recording that begins anew
            self._frames.clear()
        elif self._frames and frame.monotonic_ns - self._last_ns < _SOONEST_NS:
            return
        try:
            self._frames.append(_Small(frame.monotonic_ns, _small(frame.pixels), frame.order))
        except (MemoryError, cv2.error):  # a clip has a gap then
            return
        self._last_ns = frame.monotonic_ns

    def expect(self, event: Event) -> None:
        """Have a clip written of an event, if it is an alarm that begins."""
        if event.type == "alarm.on":
            self._alarms.append(_Alarm(event.id, event.monotonic_ns, time.monotonic() + AFTER_S + _LATE_S))

    def write_due(self) -> list[str]:
        """Write the clips of alarms that are long enough ago; of one whose frames are gone there is none.

        Returns:
            The ids of their events.
        """
        if not self._alarms:
            return []
        frames = self._frames.copy()
        written = []
        for alarm in list(self._alarms):
            late = time.monotonic() >= alarm.until
            if not (late or (frames and frames[-1].monotonic_ns >= alarm.monotonic_ns + AFTER_S * 10**9)):
                continue
            self._alarms.remove(alarm)
            around = _around(frames, alarm.monotonic_ns)
            if around and self._write(alarm.event_id, around):
                written.append(alarm.event_id)
        return written

    def _write(self, event_id: str, frames: Sequence[_Small]) -> bool:
        try:
            return self._files.keep(event_id, _film(frames, self.folder, event_id)) is not None
        except (OSError, BitternError, MemoryError, cv2.error) as error:
            _log.warning("page: no clip of the alarm %s: %s", event_id, one_line(error))
            return False


def _small(pixels: Pixels) -> Pixels:
    """Every so-many-th pixel of a frame, smoothed a little: a copy of at most `_MOST_PIXELS`."""
    height, width = pixels.shape[:2]
    factor = 1
    while (height // factor) * (width // factor) > _MOST_PIXELS:
        factor += 1
    size = max(1, width // factor), max(1, height // factor)
    # Linear, not by area, which would read every pixel: 3 ms of a 1080p frame.
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR) if factor > 1 else pixels.copy()


def _around(frames: Sequence[_Small], alarm_ns: int) -> list[_Small]:
    """The frames around an alarm, one for each 1/FPS s: the newest one by then. None if that of the alarm is gone."""
    if not frames or frames[0].monotonic_ns > alarm_ns:
        return []
    shape = next(f.pixels.shape for f in reversed(frames) if f.monotonic_ns <= alarm_ns)
    frames = [f for f in frames if f.pixels.shape == shape]
    times = [f.monotonic_ns for f in frames]
    first = max(times[0], alarm_ns - BEFORE_S * 10**9)
    last = min(times[-1], alarm_ns + AFTER_S * 10**9)
    moments = range(first, max(first, last) + 1, _PERIOD_NS)
    return [frames[max(0, bisect_right(times, moment) - 1)] for moment in moments]


def _film(frames: Sequence[_Small], folder: Path, event_id: str) -> bytes:
    """An AVI file with Motion JPEG."""
    height, width = frames[0].pixels.shape[:2]
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{event_id}.{SUFFIX}.", suffix=f".{SUFFIX}") as file:
        codec = cv2.VideoWriter.fourcc(*"MJPG")
        writer = cv2.VideoWriter(file.name, cv2.CAP_OPENCV_MJPEG, codec, float(FPS), (width, height))
        if not writer.isOpened():
            raise BitternError("OpenCV cannot write Motion JPEG")
        writer.set(cv2.VIDEOWRITER_PROP_QUALITY, _QUALITY)
        for frame in frames:
            writer.write(frame.pixels if frame.order == "BGR" else cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2BGR))
        writer.release()
        return Path(file.name).read_bytes()
