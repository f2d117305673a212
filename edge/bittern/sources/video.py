"""The source `video`: a video file, through OpenCV."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Annotated, Any

import cv2
import msgspec

from bittern.errors import ConfigurationError
from bittern.frames import Frame, Source
from bittern.model import picture_header
from bittern.sources.capture import silence_logs
from bittern.sources.sampling import Sampler

_log = logging.getLogger("bittern")

# By which a folder of clips is recognized; a video file that is named as the source may have any suffix.
SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".h264", ".h265", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg",
     ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"}
)  # fmt: skip
_HEAD_BYTES = 64 * 1024
# FFmpeg's, for a stream that states no rate (its demuxers' option "framerate").
_DEFAULT_FPS = 25.0
# A file with fewer of its stated frames is reported as cut. Not 1: where a container states no number of frames, OpenCV
# estimates it from length and rate.
_COMPLETE = 0.95


class VideoSource(Source):
    """A video file; not live: frames are given as fast as they are read.

    Raises:
        ConfigurationError: the file is missing, cannot be read, or is not a video.
    """

    live = False

    class Options(msgspec.Struct, forbid_unknown_fields=True):
        """Options of the URI.

        Attributes:
            fps: frames per second, whatever the file says; for a raw stream, which has no time stamps.
        """

        fps: Annotated[float, msgspec.Meta(gt=0, le=1000)] | None = None

    @classmethod
    def check(cls, address: str, options: Options) -> str:
        """The name of the source. Raises `ConfigurationError` for anything that cannot be a video file."""
        _read_head(address)
        return address

    def __init__(self, address: str, options: Options) -> None:
        self.name, head = address, _read_head(address)
        self.path = Path(address)
        silence_logs()
        # Only FFmpeg: OpenCV's other readers take "picture_01.jpg" for the start of a sequence.
        self._capture: Any = cv2.VideoCapture(address, cv2.CAP_FFMPEG)
        stated_fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._period_ns = _period_ns(options.fps or stated_fps)
        # A raw stream may state a rate, which FFmpeg then goes by.
        self._by_rate = options.fps is not None
        if _is_raw(head) and options.fps is None and stated_fps in (0.0, _DEFAULT_FPS):
            _log.warning(
                "%s: a raw stream without time stamps: its frames count as %g a second; video:%s?fps=N gives "
                "their rate",
                self.name,
                _DEFAULT_FPS,
                self.name,
            )
        self._stated = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._sampler: Sampler | None = None
        self._number = 0
        self._origin_ns = 0
        self._clock_ns = 0
        # The first frame is decoded, which shows that it is a video.
        self._first: tuple[bool, Any] | None = self._capture.read()
        if not self._first[0]:
            self.close()
            raise ConfigurationError(f"{address}: not a video that OpenCV's FFmpeg can read, or it has no frames")

    def thin(self, fps: float) -> None:
        """See `Source`."""
        self._sampler = Sampler(fps, self._period_ns)

    def read(self) -> Frame | None:
        """The next frame that is due; None at the end, and once closed.

        `monotonic_ns` counts from the first frame, by the file's time stamps; where they do not increase, by the
        frame rate, and with the option `fps` always by that. `time_ns` is the time of reading: a file does not reliably
        say when it was taken.
        """
        if self._capture is None:
            return None
        while self._first is not None or self._capture.grab():
            self._tick()
            if self._sampler is not None and not self._sampler.due(self._clock_ns):
                self.left_out += 1  # and spare the conversion to BGR
                continue
            ok, pixels = self._first or self._capture.retrieve()
            self._first = None
            if not ok:
                break
            return Frame(
                pixels=pixels,
                order="BGR",
                monotonic_ns=self._clock_ns,
                time_ns=time.time_ns(),
                number=self._number - 1,
                source=self.name,
            )
        self._warn_if_cut()
        return None

    def _tick(self) -> None:
        """Count the frame that was grabbed last, and set the clock to it."""
        stamp_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        if self._by_rate:
            self._clock_ns = self._number * self._period_ns
        elif self._number == 0:
            self._origin_ns = stamp_ns
        else:
            elapsed_ns = stamp_ns - self._origin_ns
            self._clock_ns = elapsed_ns if elapsed_ns > self._clock_ns else self._clock_ns + self._period_ns
        self._number += 1

    def _warn_if_cut(self) -> None:
        stated, self._stated = self._stated, 0.0
        if self._number < _COMPLETE * stated:
            _log.warning(
                "%s: the header states %d frames, %d could be read: the file is cut, damaged, or was trimmed without "
                "re-encoding",
                self.name,
                stated,
                self._number,
            )

    def close(self) -> None:
        """Close the file."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()


def _period_ns(fps: float) -> int:
    """Time between two frames, by the rate that a file states; else FFmpeg's default."""
    return round(1e9 / (fps if math.isfinite(fps) and fps > 0 else _DEFAULT_FPS))


def _is_raw(head: bytes) -> bool:
    """Whether a file is a stream without a container: pictures of JPEG, or units of H.264 or H.265.

    These begin with a start code (ITU-T H.264, annex B); those of MPEG-1 and MPEG-2, which have clocks, are followed by
    a byte from 0xB0 on.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return True
    code = head[:5].lstrip(b"\0")
    return head.startswith(b"\0\0") and code[:1] == b"\1" and code[1:2] < b"\x80" and len(code) > 1


def _read_head(address: str) -> bytes:
    """The first bytes of a video file.

    Raises:
        ConfigurationError: FFmpeg would open it although it is no video: it reads pictures, and text as terminal
            output.
    """
    if Path(address).exists() and not Path(address).is_file():  # opening a pipe would wait for its writer
        raise ConfigurationError(f"{address}: expected a video file, but it is not a regular file")
    try:
        with Path(address).open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise ConfigurationError(f"{address}: expected a video file: {error.strerror or error}") from None
    if not head:
        raise ConfigurationError(f"{address}: expected a video file, but it is empty")
    is_film = head.startswith(b"\xff\xd8\xff") and Path(address).suffix.lower() in (".mjpeg", ".mjpg")
    if picture_header.kind_of(head) not in (None, "video") and not is_film:
        raise ConfigurationError(
            f"{address}: expected a video file, but it is a picture: give its folder as the source, or run "
            f"`bittern classify {address}`"
        )
    if b"\0" not in head:  # every video container has zero bytes at its start; texts and playlists have none
        raise ConfigurationError(f"{address}: expected a video file, but it looks like text")
    return head
