"""Frames from one process to another through anonymous shared memory: newest wins, no side waits, no frame is torn.

A memfd has no name, so nothing is left behind when a process is killed. Each of its slots is guarded by a record lock
of the kernel (fcntl(2), F_SETLK) on one byte: the writer holds it while it writes a frame, the reader for as long as it
uses one. Sequence numbers alone would not do: Python has no memory barriers, and aarch64 may show one core the stores
of another in another order; taking and releasing a lock in the kernel orders them. And the kernel releases the locks of
a killed process.

Three slots are enough: the writer never takes the newest one and the reader holds one at most, so one is always free.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bittern.frames import Order

SLOTS = 3

# The first page: int64 words, aligned to 8 bytes. The newest slot, when the camera last gave a frame, the time between
# two frames (both in ns; 0: not known yet), the number of the first frame written, height and width in pixels; then a
# row for each slot.
_HEADER_BYTES = 4096
_NEWEST, _LAST, _PERIOD, _FIRST, _HEIGHT, _WIDTH = range(6)
_FIRST_ROW = 8
_SERIAL, _NUMBER, _MONOTONIC, _TIME, _ORDER, _ROW_WORDS = range(6)
_ORDERS: tuple[Order, ...] = ("BGR", "RGB")
_BUSY = (errno.EACCES, errno.EAGAIN)
_TRIES = 100  # one fails only if the writer went through all slots between two lines of `take`


class Shared(NamedTuple):
    """A frame in shared memory.

    Attributes:
        pixels: (H, W, 3) uint8, not writeable; valid until the reader releases it.
        order: of the channels.
        number: of the frame, as its source counts.
        monotonic_ns: when it was taken, see `bittern.frames.Frame`.
        time_ns: the same by the wall clock.
    """

    pixels: npt.NDArray[np.uint8]
    order: Order
    number: int
    monotonic_ns: int
    time_ns: int


def create() -> int:
    """The file descriptor of an empty ring, for one writer and one reader in different processes.

    Close it only when neither is used any more: closing any descriptor of it releases all locks of the process.
    """
    return os.memfd_create("bittern-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


class Writer:
    """The camera's side.

    Args:
        fd: of `create`.
        height: of every frame, in pixels.
        width: of every frame, in pixels.
    """

    def __init__(self, fd: int, height: int, width: int) -> None:
        self._fd = fd
        size, stride = _layout(height, width)
        os.ftruncate(fd, size)
        # A file that shrinks below a mapping kills the process that reads it (SIGBUS).
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        memory = mmap.mmap(fd, size)
        self._head = np.frombuffer(memory, np.int64, _HEADER_BYTES // 8)
        self._rows = self._head[_FIRST_ROW : _FIRST_ROW + SLOTS * _ROW_WORDS].reshape(SLOTS, _ROW_WORDS)
        self._slots = [_pixels(memory, slot, height, width, stride) for slot in range(SLOTS)]
        self._head[_NEWEST] = -1
        self._head[_HEIGHT : _WIDTH + 1] = height, width
        self._serial = 0

    def note(self, now_ns: int, period_ns: int) -> None:
        """Note that the camera gave a frame, written or not: when, and the time between two of them (0: not known)."""
        self._head[_LAST] = now_ns
        self._head[_PERIOD] = period_ns

    def write(
        self, pixels: npt.NDArray[np.uint8], order: Order, *, number: int, monotonic_ns: int, time_ns: int
    ) -> None:
        """Copy a frame into a free slot, and make it the newest.

        Args:
            pixels: (H, W, 3) uint8 of the ring's size.
            order: of the channels.
            number: of the frame, more than the last one's.
            monotonic_ns: when it was taken.
            time_ns: the same by the wall clock.
        """
        if self._serial == 0:
            self._head[_FIRST] = number
        newest = int(self._head[_NEWEST])
        slot = next(s for s in range(SLOTS) if s != newest and _lock(self._fd, s, fcntl.LOCK_EX))
        try:
            self._serial += 1
            np.copyto(self._slots[slot], pixels)
            self._rows[slot] = (self._serial, number, monotonic_ns, time_ns, _ORDERS.index(order))
        finally:
            _unlock(self._fd, slot)
        self._head[_NEWEST] = slot


class Reader:
    """The daemon's side; made when the writer has laid out the ring.

    Args:
        fd: of `create`.

    Raises:
        ValueError: no `Writer` has laid out this ring.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        size = os.fstat(fd).st_size
        if size <= _HEADER_BYTES or not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise ValueError("the ring of frames is not laid out")
        memory = mmap.mmap(fd, size, prot=mmap.PROT_READ)
        self._head = np.frombuffer(memory, np.int64, _HEADER_BYTES // 8)
        height, width = int(self._head[_HEIGHT]), int(self._head[_WIDTH])
        expected, stride = _layout(height, width)
        if size != expected:
            raise ValueError(f"the ring of frames has {size} bytes, expected {expected} for {width}x{height}")
        self._rows = self._head[_FIRST_ROW : _FIRST_ROW + SLOTS * _ROW_WORDS].reshape(SLOTS, _ROW_WORDS)
        self._slots = [_pixels(memory, slot, height, width, stride) for slot in range(SLOTS)]
        self._held: int | None = None
        self._serial = 0

    @property
    def last_ns(self) -> int:
        """When the camera last gave a frame, on the monotonic clock in ns."""
        return int(self._head[_LAST])

    @property
    def period_ns(self) -> int:
        """Time between two frames in ns, as the writer measures it; 0 if it is not known yet."""
        return int(self._head[_PERIOD])

    @property
    def first_number(self) -> int:
        """Number of the first frame that was written; valid as soon as `take` gave a frame."""
        return int(self._head[_FIRST])

    def take(self) -> Shared | None:
        """The newest frame, if it was not taken before. Its slot is not written to until `release`."""
        self.release()
        for _ in range(_TRIES):
            slot = int(self._head[_NEWEST])
            if slot < 0:
                break
            if not _lock(self._fd, slot, fcntl.LOCK_SH):
                continue  # a newer frame has come, and the writer uses this slot again
            row = self._rows[slot].copy()
            if row[_SERIAL] <= self._serial:
                _unlock(self._fd, slot)
                break
            self._held = slot
            self._serial = int(row[_SERIAL])
            order = _ORDERS[int(row[_ORDER])]
            return Shared(self._slots[slot], order, int(row[_NUMBER]), int(row[_MONOTONIC]), int(row[_TIME]))
        return None

    def release(self) -> None:
        """Release the slot of the last frame."""
        held, self._held = self._held, None
        if held is not None:
            _unlock(self._fd, held)


def _layout(height: int, width: int) -> tuple[int, int]:
    """Size of the whole ring and distance from slot to slot, in bytes."""
    stride = -(-height * width * 3 // mmap.PAGESIZE) * mmap.PAGESIZE
    return _HEADER_BYTES + SLOTS * stride, stride


def _pixels(memory: Any, slot: int, height: int, width: int, stride: int) -> npt.NDArray[np.uint8]:
    start = _HEADER_BYTES + slot * stride
    return np.frombuffer(memory, np.uint8, height * width * 3, start).reshape(height, width, 3)


def _lock(fd: int, slot: int, kind: int) -> bool:
    try:
        fcntl.lockf(fd, kind | fcntl.LOCK_NB, 1, slot)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True


def _unlock(fd: int, slot: int) -> None:
    fcntl.lockf(fd, fcntl.LOCK_UN, 1, slot)
