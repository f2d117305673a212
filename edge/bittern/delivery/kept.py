"""Kept frames: whole JPEG files with an index.csv, in a ring of bounded bytes and number, no scene twice."""

from __future__ import annotations

import csv
import fcntl
import io
import logging
import os
import queue
import re
import threading
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from bittern.config.schema import KeepConfig
from bittern.delivery.snapshots import jpeg_of
from bittern.errors import one_line
from bittern.events import UUID, rfc3339, uuid7, uuid7_time_ms
from bittern.frames import Order, Pixels
from bittern.system import fileio

_log = logging.getLogger("bittern")

Signature = npt.NDArray[np.float32]

INDEX = "index.csv"
COLUMNS = ("path", "label", "split", "group", "time", "source", "reason", "model", "answer", "score", "scores")
_LOCK = ".lock"
_MAX_INDEX_BYTES = 16 * 2**20
_OURS = re.compile(rf"{UUID}\.jpg")
_UNFINISHED = re.compile(rf"\.(?:{UUID}\.jpg|index\.csv)\.[a-z0-9_]+")  # left by `fileio` when a process was killed
# Width and height of a signature, and which share of its cells must differ, and by how many standard deviations of the
# picture, for two frames to be two scenes: a sign of a sixth of a frame's height makes 16 of the 768 cells.
_CELLS = (32, 24)
_DIFFERENT, _CONTRAST = 0.02, 0.5
# Frames that were kept within this time of each other belong to one group: the same thing passes.
_GROUP_S = 60.0
# How many frames may wait for the disk, and how many seconds a recording, which is in no hurry, waits for room.
_WAITING, _PATIENCE_S = 4, 10.0
# How many of a full ring's frames make room at a time: the index is written anew each time.
_AT_ONCE = 0.1


class KeptFrame(NamedTuple):
    """A frame to keep, with what the models answered.

    Attributes:
        pixels: (H, W, 3) uint8, the whole frame; a copy of its own.
        order: of the channels.
        time_ns: wall clock, ns since 1970.
        source: name of the source.
        reason: "unsure", "alarm.on" or "alarm.off".
        model: names and versions of the models, "stop_sign 6; face_mask 5".
        answer: the label that the least sure head answered.
        score: of that label.
        scores: every label's score as JSON, by model.
    """

    pixels: Pixels
    order: Order
    time_ns: int
    source: str
    reason: str
    model: str
    answer: str
    score: float
    scores: str


class KeptFrames:
    """A ring of frames in a folder: `ID.jpg` files and an index.csv that names them, which is a data set.

    Room is made before a frame is written. A picture is in the index only while its file is whole: the index is written
    after the picture, and before a picture is deleted. For one thread of one process; a lock keeps a second one out.
    """

    def __init__(self, folder: Path, config: KeepConfig) -> None:
        """Nothing is read or written yet.

        Args:
            folder: made (0750) with the first frame.
            config: bytes, number and quality.
        """
        self.folder = folder
        self._budget, self._most, self._quality = int(config.budget_mb * 1e6), config.max_frames, config.quality
        self._rows: list[dict[str, str]] = []
        self._sizes: dict[str, int] = {}
        self._signatures: dict[str, Signature] = {}
        self._lock: int | None = None

    def add(self, frame: KeptFrame) -> str | None:
        """Keep a frame, unless one of its scene is kept already.

        Returns:
            Name of the file; None if the scene is kept already, or the frame alone is larger than the budget.

        Raises:
            OSError: the disk; or another process keeps its frames in this folder.
            ValueError: a picture that cannot be a JPEG.
        """
        if self._lock is None:
            self._open()
        jpeg = jpeg_of(frame.pixels, frame.order, self._quality)
        signature = signature_of(jpeg)
        if len(jpeg) > self._budget or any(same_scene(signature, kept) for kept in self._signatures.values()):
            return None
        self._make_room(len(jpeg))
        name = f"{uuid7(frame.time_ns)}.jpg"
        fileio.write(self._file(name), jpeg)
        self._sizes[name] = len(jpeg)
        self._rows.append(self._row(name, frame))
        try:
            self._write_index()
        except OSError:
            self._rows.pop()
            del self._sizes[name]
            os.unlink(self._file(name))  # noqa: PTH108
            raise
        self._signatures[name] = signature
        return name

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self) -> None:
        """Take the folder, and bring index and files together after a power cut."""
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(None, "another process keeps its frames there") from None
            files = {file.name: file for file in self.folder.iterdir()}
            for name in filter(_UNFINISHED.fullmatch, files):
                files[name].unlink(missing_ok=True)
            rows = [row for row in _read(self.folder / INDEX) if row["path"] in files]
            # The power was cut between a picture and the index: it stays, without what the models answered.
            names = sorted(filter(_OURS.fullmatch, files))
            unlisted = sorted({*names} - {row["path"] for row in rows})
            self._rows = [*map(_unlisted, unlisted), *rows]
            for name in names:  # one at a time: all of them may be more than the memory
                jpeg = files[name].read_bytes()
                self._sizes[name], self._signatures[name] = len(jpeg), signature_of(jpeg)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def _make_room(self, size: int) -> None:
        """Delete the oldest frames, if one of so many bytes would be too much."""
        total, count = sum(self._sizes.values()), len(self._rows)
        if total + size <= self._budget and count < self._most:
            return
        least = max(1, int(count * _AT_ONCE))
        gone = 0
        while gone < count and (gone < least or total + size > self._budget or count - gone >= self._most):
            total -= self._sizes[self._rows[gone]["path"]]
            gone += 1
        deleted, self._rows = self._rows[:gone], self._rows[gone:]
        try:
            self._write_index()
        except OSError:
            self._rows = [*deleted, *self._rows]
            raise
        for row in deleted:
            name = row["path"]
            (self.folder / name).unlink(missing_ok=True)
            del self._sizes[name], self._signatures[name]

    def _row(self, name: str, frame: KeptFrame) -> dict[str, str]:
        group = name.removesuffix(".jpg")
        if self._rows:
            before = self._rows[-1]
            apart_ns = frame.time_ns - _time_ns(before["path"])
            if abs(apart_ns) <= _GROUP_S * 1e9 and before["source"] == frame.source:
                group = before["group"]
        values = (
            name, "", "", group, rfc3339(frame.time_ns), frame.source, frame.reason, frame.model, frame.answer,
            f"{frame.score:.4f}", frame.scores,
        )  # fmt: skip
        return dict(zip(COLUMNS, values, strict=True))

    def _write_index(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        fileio.write(self._file(INDEX), text.getvalue().encode())

    def _file(self, name: str) -> str:
        return os.path.join(self.folder, name)  # noqa: PTH118  # see `fileio.atomic` for why not pathlib


class KeptWriter:
    """Writes kept frames in a thread of its own, so that the disk never holds up the loop."""

    def __init__(self, frames: KeptFrames, *, live: bool) -> None:
        """Start the thread.

        Args:
            frames: where they go; this thread's alone from now on.
            live: of a camera: a frame for which the disk has no time is left out; a recording waits for the disk.
        """
        self._frames, self._live = frames, live
        self._queue: queue.Queue[KeptFrame | None] = queue.Queue(_WAITING)
        self._trouble = ""
        self._thread = threading.Thread(target=self._work, name="kept frames", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether a frame would be left out now."""
        return self._live and self._queue.full()

    def put(self, frame: KeptFrame) -> None:
        """Have a frame written, unless too many wait. Returns at once, if the source is a camera."""
        try:
            self._queue.put(frame, block=not self._live, timeout=_PATIENCE_S)
        except queue.Full:
            self._failed("the disk does not keep up")

    def close(self, timeout_s: float) -> None:
        """Write the frames that wait, if that does not take longer than the time-out."""
        until = time.monotonic() + timeout_s
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while (frame := self._queue.get()) is not None:
            try:
                self._frames.add(frame)
            except OSError as error:
                self._failed(f"{self._frames.folder}: {error.strerror}")
            except Exception as error:  # no memory, or a picture that OpenCV refuses
                self._failed(one_line(error))
            else:
                if self._trouble:
                    _log.info("frames are being kept again")
                self._trouble = ""
        self._frames.close()

    def _failed(self, trouble: str) -> None:
        if not self._trouble:
            _log.warning("frames are not kept: %s", trouble)
        self._trouble = trouble


def signature_of(jpeg: bytes) -> Signature:
    """What is compared of two frames: a small picture, without its light: brightness, contrast and white balance.

    Args:
        jpeg: a JPEG file.

    Returns:
        (24, 32, 3) float32, in standard deviations of the picture from the mean of each channel; zeros for one that
        cannot be decoded.
    """
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_REDUCED_COLOR_4) if jpeg else None
    if pixels is None:
        return np.zeros((_CELLS[1], _CELLS[0], 3), np.float32)
    small = cv2.resize(pixels, _CELLS, interpolation=cv2.INTER_AREA).astype(np.float32)
    # Not below four grey levels: what is left of a dark or flat frame is noise.
    return np.asarray((small - small.mean((0, 1))) / max(float(small.std()), 4.0), np.float32)


def same_scene(one: Signature, other: Signature) -> bool:
    """Whether two frames show the same: too little of the picture is different, in any channel."""
    different = np.abs(one - other).max(axis=2) > _CONTRAST
    return float(different.mean()) < _DIFFERENT


def _read(index: Path) -> list[dict[str, str]]:
    """The rows of an index that this module wrote; none if it is missing or something else."""
    try:
        text = fileio.read_regular(index, _MAX_INDEX_BYTES).decode()
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        _log.warning("%s cannot be read: it begins anew (%s)", index, one_line(error))
        return []
    if any(set(row) != set(COLUMNS) or None in row.values() or not _OURS.fullmatch(row["path"]) for row in rows):
        _log.warning("%s cannot be read: it begins anew", index)
        return []
    return rows


def _unlisted(name: str) -> dict[str, str]:
    known = {"path": name, "group": name.removesuffix(".jpg"), "time": rfc3339(_time_ns(name))}
    return dict.fromkeys(COLUMNS, "") | known


def _time_ns(name: str) -> int:
    """When a frame was taken, by its name, a UUIDv7; ns since 1970."""
    return uuid7_time_ms(name) * 1_000_000
