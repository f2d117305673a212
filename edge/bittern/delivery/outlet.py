"""The way of an event out of the loop: marked after a jump of the clock, with its snapshot, to stdout and the sinks."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from bittern.errors import one_line
from bittern.events import Event, rfc3339, uuid7
from bittern.frames import Frame, Order

if TYPE_CHECKING:
    import numpy.typing as npt

    from bittern.delivery.snapshots import Ring

_log = logging.getLogger("bittern")

Taker = Callable[[Event], None]
Picture = tuple["npt.NDArray[np.uint8]", Order]

# NTP moves a clock by less than this between two frames; what is more is a step.
JUMP_S = 0.5
# Events that may wait for the snapshots; of so many the picture is kept meanwhile.
_WAITING, _WAITING_PICTURES = 1000, 4
# Seconds that the loop waits for a thousand events to become fewer; and the end of a recording for one picture.
_PATIENCE_S, _DRAIN_S = 2.0, 10.0


class Clock:
    """Notices that the wall clock was set: it moved against the monotonic one."""

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns):
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns
        self._offset_ns = wall_ns() - monotonic_ns()
        self._jumped_ns = 0

    def look(self) -> None:
        """To be called often: what happens slowly between two calls does not count."""
        offset_ns = self._wall_ns() - self._monotonic_ns()
        moved_ns, self._offset_ns = offset_ns - self._offset_ns, offset_ns
        if abs(moved_ns) >= JUMP_S * 1e9:
            self._jumped_ns += moved_ns
            _log.warning("the clock was set by %+.1f s", moved_ns / 1e9)

    def mark(self, event: Event) -> Event:
        """The event, marked if it is the first one after a jump."""
        self.look()
        jumped_ns, self._jumped_ns = self._jumped_ns, 0
        if abs(jumped_ns) < JUMP_S * 1e9:
            return event
        return msgspec.structs.replace(event, clock_jump_s=round(jumped_ns / 1e9, 3))


class Outlet:
    """Takes events from the loop and hands them on, in order.

    Where snapshots are kept, a thread writes them first, so that who gets an event finds its picture; else events are
    handed on at once.

    Attributes:
        failed: why events can be handed on no more; None as long as they can.
    """

    def __init__(self, takers: list[Taker], source: str, ring: Ring | None = None) -> None:
        """Start the thread, if there are snapshots.

        Args:
            takers: called with every event, one after the other. What one raises comes out of `take`, or with
                snapshots ends up in `failed`; those before it have got the event.
            source: what events call the source.
            ring: where snapshots go; None takes none.
        """
        self.clock = Clock()
        self.failed: str | None = None
        self._takers, self._source, self._ring = takers, source, ring
        self._queue: queue.Queue[tuple[Event, Picture | None] | None] = queue.Queue(_WAITING)
        self._frame: Frame | None = None
        self._thread: threading.Thread | None = None
        if ring is not None:
            self._thread = threading.Thread(target=self._work, name="snapshots", daemon=True)
            self._thread.start()

    def seeing(self, frame: Frame | None) -> None:
        """Which frame the next events come from; its pixels need to be valid until they came."""
        self._frame = frame

    def take(self, event: Event) -> None:
        """An event of the loop."""
        event = self.clock.mark(event)
        if self._thread is None:
            self._hand_on(event)
            return
        picture: Picture | None = None
        if event.type == "alarm.on" and self._frame is not None and self._queue.qsize() < _WAITING_PICTURES:
            with contextlib.suppress(MemoryError):  # then without its picture
                picture = self._frame.pixels.copy(), self._frame.order
        try:
            self._queue.put((event, picture), timeout=_PATIENCE_S)
        except queue.Full:
            self.failed = "snapshots: the disk hangs, and a thousand events wait for it"

    def state(self, state: str, detail: str, monotonic_ns: int | None = None) -> None:
        """A state of the camera or the daemon begins: an event of its own.

        Args:
            state: its name.
            detail: what else is known.
            monotonic_ns: now, on the clock of the frames; left out, that is the machine's.
        """
        now = time.time_ns()
        self.take(
            Event(
                id=uuid7(now),
                type="state",
                time=rfc3339(now),
                monotonic_ns=time.monotonic_ns() if monotonic_ns is None else monotonic_ns,
                source=self._source,
                state=state,
                detail=detail or None,
            )
        )

    def drain(self, ended: Callable[[], bool]) -> None:
        """Hand on what waits, for as long as that goes on; the last thing before `close`.

        Args:
            ended: asked every few hundredths of a second; when it says yes, nothing is waited for any more.
        """
        if self._thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=_PATIENCE_S)
        left, until = self._queue.qsize(), time.monotonic() + _DRAIN_S
        while self._thread.is_alive() and not ended() and time.monotonic() < until:
            self._thread.join(0.05)
            if self._queue.qsize() < left:
                left, until = self._queue.qsize(), time.monotonic() + _DRAIN_S

    def close(self, timeout_s: float = 1.0) -> None:
        """Hand on what waits."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=timeout_s / 2)
            self._thread.join(timeout_s / 2)
            if self._thread.is_alive():
                _log.error("snapshots: the disk hangs; %d events were not handed on", self._queue.qsize())

    def _work(self) -> None:
        while (waiting := self._queue.get()) is not None:
            event, picture = waiting
            if picture is not None and (name := self._keep(event, *picture)) is not None:
                event = msgspec.structs.replace(event, snapshot=name)
            try:
                self._hand_on(event)
            except Exception as error:  # stdout was closed, for example: the loop ends, and says so
                self.failed = f"events cannot be handed on: {one_line(error)}"

    def _keep(self, event: Event, pixels: npt.NDArray[np.uint8], order: Order) -> str | None:
        assert self._ring is not None
        try:
            return self._ring.add(event.id, pixels, order)
        except Exception as error:  # no memory, or a picture that is none for OpenCV
            _log.error("snapshots: %s", one_line(error))
            return None

    def _hand_on(self, event: Event) -> None:
        for taker in self._takers:
            taker(event)
