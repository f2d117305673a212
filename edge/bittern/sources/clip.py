"""The source `clip`: what `bittern record` wrote, a folder of pictures and an index of when each was taken.

`clip.jsonl` is one line of JSON about the clip, then one per frame. A line is written after its picture, so a killed
recorder leaves a shorter clip. The picture of the first frame is `00000000.png`, and so on.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import shutil
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import cv2
import msgspec
from msgspec import Meta

from bittern.errors import BitternError, ConfigurationError, PictureError
from bittern.frames import Frame, Source
from bittern.model import pictures
from bittern.sources.sampling import Sampler
from bittern.sources.video import SUFFIXES
from bittern.system import fileio

_log = logging.getLogger("bittern")

INDEX = "clip.jsonl"
# Recording leaves this much of the disk free.
RESERVE_BYTES = 256 * 2**20
# Lossless; a third of the time of zlib's default, for less than a tenth more bytes.
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
_NAME = re.compile(r"[0-9]{8}\.(png|jpg)")
_MAX_INDEX_BYTES = 256 * 2**20

Unsigned = Annotated[int, Meta(ge=0, le=2**63 - 1)]
T = TypeVar("T")


class ClipHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of the index.

    Attributes:
        clip: version of this format.
        source: name of the source that was recorded.
        suffix: file name suffix of its pictures: "png" is lossless, "jpg" is not.
    """

    clip: Literal[1]
    source: str
    suffix: Literal["png", "jpg"]


class ClipFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frame's line in the index: see `bittern.frames.Frame`."""

    number: Unsigned
    monotonic_ns: Unsigned
    time_ns: Unsigned


class Recorder:
    """Writes a clip.

    Attributes:
        frames: number of frames written.
        bytes: number of bytes written, pictures only.
    """

    def __init__(
        self, folder: Path, source: str, *, max_bytes: int, jpeg_quality: int | None = None, force: bool = False
    ) -> None:
        """Make the folder and its index.

        Args:
            folder: the clip.
            source: name of the source.
            max_bytes: the size at which the recorder is full.
            jpeg_quality: 1 to 100; None writes PNG, which is lossless.
            force: delete an existing clip first; a folder with anything else in it is left alone.

        Raises:
            ConfigurationError: the folder exists.
        """
        _make_room(folder, force)
        self.frames = self.bytes = 0
        self._folder, self._max_bytes = folder, max_bytes
        self._suffix: Literal["png", "jpg"] = "png" if jpeg_quality is None else "jpg"
        self._options = _PNG if jpeg_quality is None else (cv2.IMWRITE_JPEG_QUALITY, jpeg_quality)
        # Unbuffered: on a full disk, closing would try to write the buffer and fail once more.
        self._index = (folder / INDEX).open("xb", buffering=0)
        self._line(ClipHead(1, source, self._suffix))

    def full(self) -> str | None:
        """Why recording should stop, or None."""
        if self.bytes >= self._max_bytes:
            return f"{self._max_bytes / 1e6:g} MB written"
        if shutil.disk_usage(self._folder).free < RESERVE_BYTES:
            return f"less than {RESERVE_BYTES >> 20} MiB of disk space left"
        return None

    def write(self, frame: Frame) -> None:
        """Add a frame.

        Raises:
            BitternError: the disk is full or fails; the clip ends before this frame.
        """
        pixels = frame.pixels if frame.order == "BGR" else cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(f".{self._suffix}", pixels, self._options)
        file = self._folder / _file(self.frames, self._suffix)
        try:
            file.write_bytes(data.tobytes())
            self._line(ClipFrame(frame.number, frame.monotonic_ns, frame.time_ns))
        except OSError as error:
            file.unlink(missing_ok=True)
            raise BitternError(f"{file}: {error.strerror}: the clip ends with {self.frames} frames") from None
        self.frames += 1
        self.bytes += data.nbytes

    def _line(self, value: msgspec.Struct) -> None:
        line = msgspec.json.encode(value) + b"\n"
        if self._index.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """End the clip."""
        self._index.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_clip(path: Path) -> bool:
    """Whether a path is the folder of a clip."""
    return (path / INDEX).is_file()


def find_clips(folder: Path) -> list[Path]:
    """The clips in a folder, sorted: video files by their suffix, and recordings. None if it is a recording itself."""
    if is_clip(folder) or not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and (is_clip(path) or (path.suffix.lower() in SUFFIXES and path.is_file()))
    )


class ClipSource(Source):
    """A clip as a source: frames with the pixels, times and numbers that were recorded; not live.

    A picture that cannot be read is named in one warning and counted in `unreadable`.

    Attributes:
        length: number of frames in the index.
    """

    live = False

    class Options(msgspec.Struct, forbid_unknown_fields=True):
        """A recording has no options."""

    @classmethod
    def check(cls, address: str, options: Options) -> str:
        """The name of the source. Raises `ConfigurationError` if there is no index, or a broken one."""
        return _read(Path(address) / INDEX)[0].source

    def __init__(self, address: str | Path, options: Options | None = None) -> None:
        """Read the index of the folder `address`.

        Raises:
            ConfigurationError: there is none, or it is broken: the message names the line. An incomplete last line is
                ignored.
        """
        self.path = folder = Path(address)
        head, self._entries = _read(folder / INDEX)
        self.name = head.source
        self.length = len(self._entries)
        self._folder, self._suffix = folder, head.suffix
        self._sampler: Sampler | None = None
        self._next = 0

    def thin(self, fps: float) -> None:
        """See `Source`."""
        if self._entries:
            # The recorder waits from turn to turn, but its first frame may be fresh and its last one old: together
            # they lack less than one interval.
            clip_ns = self._entries[-1].monotonic_ns - self._entries[0].monotonic_ns
            intervals = len(self._entries) - 2
            self._sampler = Sampler(fps, clip_ns / intervals if intervals > 0 else math.inf)

    def read(self) -> Frame | None:
        """The next frame that is due and whose picture can be read; None after the last one, and once closed."""
        while self._next < len(self._entries):
            index = self._next
            self._next += 1
            if self._sampler is not None and not self._sampler.due(self._entries[index].monotonic_ns):
                self.left_out += 1
                continue
            try:
                pixels = pictures.decode(self._folder / _file(index, self._suffix))
            except PictureError as error:
                self.unreadable += 1
                _log.warning("skipped: %s", error)
                continue
            entry = self._entries[index]
            return Frame(pixels, "BGR", entry.monotonic_ns, entry.time_ns, entry.number, self.name)
        return None

    def close(self) -> None:
        """End the iteration."""
        self._next = len(self._entries)


def _file(index: int, suffix: str) -> str:
    return f"{index:08}.{suffix}"


def _make_room(folder: Path, force: bool) -> None:
    if not folder.absolute().parent.is_dir():
        raise ConfigurationError(f"{folder}: there is no folder {folder.parent}")
    if folder.exists():
        if not folder.is_dir():
            raise ConfigurationError(f"{folder}: is a file; a clip is a folder")
        files = sorted(folder.iterdir())
        other = next((file for file in files if file.name != INDEX and not _NAME.fullmatch(file.name)), None)
        if other is not None:
            raise ConfigurationError(f"{folder}: exists and contains {other.name}, which is not part of a clip")
        if files and not force:
            raise ConfigurationError(f"{folder}: already exists; --force deletes it first")
        # The index first: without it, the rest of an interrupted deletion is not a clip.
        for file in sorted(files, key=lambda file: file.name != INDEX):
            file.unlink()
    folder.mkdir(exist_ok=True)


def _read(index: Path) -> tuple[ClipHead, list[ClipFrame]]:
    try:
        data = fileio.read_regular(index, _MAX_INDEX_BYTES)
    except OSError as error:
        raise ConfigurationError(f"{index}: {error.strerror}: expected the index of a clip") from None
    # Anything after the last line break is an incomplete line.
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    if not lines:
        raise ConfigurationError(f"{index}: empty: nothing was recorded")
    head = _line(index, 1, lines[0], ClipHead)
    frames: list[ClipFrame] = []
    for number, line in enumerate(lines[1:], 2):
        frame = _line(index, number, line, ClipFrame)
        if frames and (frame.monotonic_ns < frames[-1].monotonic_ns or frame.number <= frames[-1].number):
            raise ConfigurationError(f"{index}: line {number}: earlier than the line before")
        frames.append(frame)
    return head, frames


def _line(index: Path, number: int, line: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{index}: line {number}: {error}") from None
