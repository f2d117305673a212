"""A recorded clip: a folder of pictures and an index of when each was taken; read as a source of frames.

`clip.jsonl` is a line of JSON about the clip, then one for every frame. A line is written after its picture, so what a
killed recorder leaves is a clip that is shorter. The picture of the first frame is `00000000.png`, and so on.
"""

from __future__ import annotations

import errno
import logging
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

_log = logging.getLogger("bittern")

INDEX = "clip.jsonl"
# So much of the disk is left to the rest of the machine.
RESERVE_BYTES = 256 * 2**20
# Lossless, in a third of zlib's usual time, for less than a tenth more bytes.
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
_NAME = re.compile(r"[0-9]{8}\.(png|jpg)")
_MAX_INDEX_BYTES = 256 * 2**20

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
T = TypeVar("T")


class ClipHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of the index.

    Attributes:
        clip: version of this format.
        source: name of the source that was recorded.
        suffix: of its pictures: "png" is what came, to the bit; "jpg" nearly.
    """

    clip: Literal[1]
    source: str
    suffix: Literal["png", "jpg"]


class ClipFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frame's line of the index: see `bittern.frames.Frame`."""

    number: Count
    monotonic_ns: Count
    time_ns: Count


class Recorder:
    """Writes a clip.

    Attributes:
        frames: how many were written.
        bytes: how many, pictures only.
    """

    def __init__(
        self, folder: Path, source: str, *, max_bytes: int, jpeg_quality: int | None = None, force: bool = False
    ) -> None:
        """Make the folder and its index.

        Args:
            folder: the clip.
            source: name of the source.
            max_bytes: the recorder is full from then on.
            jpeg_quality: 1 to 100; None writes PNG, which keeps every bit.
            force: a clip that is there already is deleted first; a folder with anything else in it is not.

        Raises:
            ConfigurationError: the folder is there.
        """
        _make_room(folder, force)
        self.frames = self.bytes = 0
        self._folder, self._max_bytes = folder, max_bytes
        self._suffix: Literal["png", "jpg"] = "png" if jpeg_quality is None else "jpg"
        self._options = _PNG if jpeg_quality is None else (cv2.IMWRITE_JPEG_QUALITY, jpeg_quality)
        # Without a buffer, which a full disk would leave filled, to fail once more when it is closed.
        self._index = (folder / INDEX).open("xb", buffering=0)
        self._line(ClipHead(1, source, self._suffix))

    def full(self) -> str | None:
        """Why nothing more should be written, or None."""
        if self.bytes >= self._max_bytes:
            return f"{self._max_bytes / 1e6:g} MB are written"
        if shutil.disk_usage(self._folder).free < RESERVE_BYTES:
            return f"less than {RESERVE_BYTES >> 20} MiB of the disk are free"
        return None

    def write(self, frame: Frame) -> None:
        """Add a frame.

        Raises:
            BitternError: the disk is full, or something else is wrong with it; the clip ends before this frame.
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


class ClipSource(Source):
    """A clip as a source: every frame with its pixels, times and number as they came; not live.

    A picture that cannot be read is named in one warning, and counted in `skipped`.

    Attributes:
        length: how many frames the index has.
    """

    live = False

    def __init__(self, folder: Path) -> None:
        """Read the index.

        Raises:
            ConfigurationError: there is none, or it is broken: the message names the line. A last line that was not
                written to its end is left out.
        """
        head, self._entries = _read(folder / INDEX)
        self.name = head.source
        self.length = len(self._entries)
        self._folder, self._suffix = folder, head.suffix
        self._next = 0

    def read(self) -> Frame | None:
        """The next frame whose picture can be read; None after the last one, and once closed."""
        while self._next < len(self._entries):
            at = self._next
            self._next += 1
            try:
                pixels = pictures.decode(self._folder / _file(at, self._suffix))
            except PictureError as error:
                self.skipped += 1
                _log.warning("skipped: %s", error)
                continue
            entry = self._entries[at]
            return Frame(pixels, "BGR", entry.monotonic_ns, entry.time_ns, entry.number, self.name)
        return None

    def close(self) -> None:
        """End the iteration."""
        self._next = len(self._entries)


def _file(index: int, suffix: str) -> str:
    return f"{index:08}.{suffix}"


def _make_room(folder: Path, force: bool) -> None:
    if not folder.absolute().parent.is_dir():
        raise ConfigurationError(f"{folder}: no folder {folder.parent}")
    if folder.exists():
        if not folder.is_dir():
            raise ConfigurationError(f"{folder}: is a file; a clip is a folder")
        inside = sorted(folder.iterdir())
        other = next((file for file in inside if file.name != INDEX and not _NAME.fullmatch(file.name)), None)
        if other is not None:
            raise ConfigurationError(f"{folder}: is there, and has {other.name} in it, which is no part of a clip")
        if inside and not force:
            raise ConfigurationError(f"{folder}: is there already; --force deletes it first")
        # The index first: without it, what is left of a broken-off deletion is no clip.
        for file in sorted(inside, key=lambda file: file.name != INDEX):
            file.unlink()
    folder.mkdir(exist_ok=True)


def _read(index: Path) -> tuple[ClipHead, list[ClipFrame]]:
    try:
        if index.stat().st_size > _MAX_INDEX_BYTES:
            raise ConfigurationError(f"{index}: larger than the limit of {_MAX_INDEX_BYTES >> 20} MiB")
        data = index.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{index}: {error.strerror}: expected the index of a clip") from None
    # What stands behind the last line break was not written to its end.
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    if not lines:
        raise ConfigurationError(f"{index}: is empty: nothing was recorded")
    head = _line(index, 1, lines[0], ClipHead)
    frames: list[ClipFrame] = []
    for number, line in enumerate(lines[1:], 2):
        frame = _line(index, number, line, ClipFrame)
        if frames and (frame.monotonic_ns < frames[-1].monotonic_ns or frame.number <= frames[-1].number):
            raise ConfigurationError(f"{index}: line {number}: is earlier than the line before")
        frames.append(frame)
    return head, frames


def _line(index: Path, number: int, line: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{index}: line {number}: {error}") from None
