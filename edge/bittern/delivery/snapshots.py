"""The files of events, such as the pictures of alarms: within a budget, the oldest make room for the newest."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from bittern.errors import ConfigurationError
from bittern.events import UUID
from bittern.system import fileio

if TYPE_CHECKING:
    from bittern.frames import Order, Pixels

_log = logging.getLogger("bittern")


class EventFiles:
    """The files of one folder that are named after an event, `ID.SUFFIX`; others are neither counted nor touched.

    Room is made before a file is written, so the budget is never exceeded. For one thread of one process.

    Attributes:
        folder: where the files are.
    """

    def __init__(self, folder: Path, budget_mb: float, suffix: str, what: str, limit: str) -> None:
        """Make the folder (0750) unless it exists, and count the files of an earlier process.

        If that fails, every file tries again; the log says so once.

        Args:
            folder: where the files go.
            budget_mb: for all files together, in MB of 10**6 bytes.
            suffix: of their names, without a dot.
            what: the files are, for the log.
            limit: what the user calls the budget, for the log.
        """
        self.folder = folder
        self._budget = int(budget_mb * 1e6)
        self._suffix, self._what, self._limit = suffix, what, limit
        self._own_name = re.compile(rf"{UUID}\.{suffix}")
        # Left by `fileio`, or by a thread that was writing one, when the process was killed.
        self._unfinished_name = re.compile(rf"\.{UUID}\.{suffix}\.[a-z0-9_.]+")
        self._files: deque[tuple[str, int]] | None = None  # name and bytes, the oldest first; None: not counted yet
        self._total = 0
        self._trouble = ""
        try:
            self._count()
        except OSError as error:
            self._failed(f"{folder}: {error.strerror}")

    def keep(self, event_id: str, data: bytes) -> str | None:
        """Write the file of an event, whole or not at all. Takes some milliseconds, on an SD card up to a second.

        A failure is logged once, and again only after a file was written.

        Args:
            event_id: a UUID, as events have it.
            data: what is in it.

        Returns:
            Name of the file in the folder; None if it could not be written.

        Raises:
            ValueError: no UUID.
        """
        name = f"{event_id}.{self._suffix}"
        if not self._own_name.fullmatch(name):
            raise ValueError(f"expected the UUID of an event, got {event_id!r}")
        if len(data) > self._budget:
            self._failed(f"one takes {len(data)} bytes, but {self._limit} allows {self._budget} for all")
            return None
        try:
            files = self._count() if self._files is None else self._files
            self._forget(files, name)
            self._make_room(files, len(data))
            fileio.write(self._file(name), data)
        except OSError as error:
            self._failed(f"{self.folder}: {error.strerror}")
            return None
        files.append((name, len(data)))
        self._total += len(data)
        if self._trouble:
            _log.info("%s are being written again", self._what)
            self._trouble = ""
        return name

    def _failed(self, trouble: str) -> None:
        if not self._trouble:
            _log.warning("no %s: %s", self._what, trouble)
        self._trouble = trouble

    def _count(self) -> deque[tuple[str, int]]:
        """Count the files of the folder, and delete unfinished ones."""
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        entries = []
        for file in self.folder.iterdir():
            if self._unfinished_name.fullmatch(file.name):
                file.unlink(missing_ok=True)
            elif self._own_name.fullmatch(file.name) and stat.S_ISREG((status := file.lstat()).st_mode):
                entries.append((status.st_mtime_ns, file.name, status.st_size))
        files = deque((name, size) for _, name, size in sorted(entries))
        self._total = sum(size for _, size in files)
        self._make_room(files, 0)
        self._files = files
        return files

    def _make_room(self, files: deque[tuple[str, int]], size: int) -> None:
        while files and self._total + size > self._budget:
            self._forget(files, files[0][0])

    def _forget(self, files: deque[tuple[str, int]], name: str) -> None:
        """Delete a file, if it is one of these; it counts until it is gone."""
        size = next((size for kept, size in files if kept == name), None)
        if size is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file(name))  # noqa: PTH108
            files.remove((name, size))
            self._total -= size

    def _file(self, name: str) -> str:
        return os.path.join(self.folder, name)  # noqa: PTH118  # see `fileio.atomic` for why not pathlib


class SnapshotStore(EventFiles):
    """The pictures of alarms, as JPEG."""

    def __init__(self, folder: Path, budget_mb: float, quality: int) -> None:
        """See `EventFiles`.

        Args:
            folder: where the files go.
            budget_mb: for all files together, in MB of 10**6 bytes.
            quality: of the JPEG, 1 to 100.
        """
        super().__init__(folder, budget_mb, "jpg", "snapshots", "snapshots.budget_mb")
        self._quality = quality

    def add(self, event_id: str, pixels: Pixels, order: Order) -> str | None:
        """Write the picture of an event, see `keep`.

        Args:
            event_id: a UUID, as events have it.
            pixels: (H, W, 3) uint8.
            order: of the channels.

        Returns:
            See `keep`.

        Raises:
            ValueError: no UUID, or a picture that cannot be a JPEG.
        """
        return self.keep(event_id, jpeg_of(pixels, order, self._quality))


def jpeg_of(pixels: Pixels, order: Order, quality: int) -> bytes:
    """A picture as JPEG.

    Args:
        pixels: (H, W, 3) uint8.
        order: of the channels.
        quality: on OpenCV's scale, 1 to 100.

    Raises:
        ValueError: a picture that cannot be a JPEG.
    """
    import cv2

    bgr = pixels if order == "BGR" else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"a picture of shape {pixels.shape} cannot be encoded as JPEG")
    return jpeg.tobytes()


def default_folder(name: str) -> Path:
    """Where snapshots go unless a folder is configured: memory, not the SD card.

    $RUNTIME_DIRECTORY (systemd's, one for each unit), else $XDG_RUNTIME_DIR/bittern/NAME, else
    /dev/shm/bittern-UID/NAME.

    Args:
        name: of the camera; characters that a file name cannot have become underscores.

    Raises:
        ConfigurationError: that folder in /dev/shm belongs to another user.
    """
    if runtime := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(runtime.partition(":")[0]) / "snapshots"
    part = re.sub(r"[^\w.-]|^\.", "_", name) or "_"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "bittern" / part / "snapshots"
    shared = Path(f"/dev/shm/bittern-{os.getuid()}")
    try:
        shared.mkdir(mode=0o750, exist_ok=True)
        status = shared.lstat()
    except OSError as error:
        raise ConfigurationError(f"{shared}: {error.strerror}: set snapshots.folder") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ConfigurationError(f"{shared} belongs to another user: set snapshots.folder")
    return shared / part / "snapshots"
