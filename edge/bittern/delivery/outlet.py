"""Events on their way out of the loop: marked after a clock jump, given a snapshot, passed to stdout and the sinks."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from bittern.errors import one_line
from bittern.events import AlarmKey, Event, State, new_id, rfc3339
from bittern.frames import Frame, Order, Pixels

if TYPE_CHECKING:
    from bittern.delivery.sinks.base import Controls, Sink
    from bittern.delivery.snapshots import SnapshotStore

_log = logging.getLogger("bittern")

Taker = Callable[[Event], None]
OrderedPixels = tuple[Pixels, Order]

# NTP adjusts a clock by less than this between two frames; more is a jump.
JUMP_S = 0.5
# How many events may wait for the snapshots' thread, and for how many of them the picture is kept meanwhile.
_WAITING, _WAITING_PICTURES = 1000, 4
# How many seconds the loop waits for room if that many events wait, and the end of a recording for one picture.
_PATIENCE_S, _DRAIN_S = 2.0, 10.0


class Clock:
    """Notices when the wall clock was set, by comparing it with the monotonic one."""

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns):
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns
        self._offset_ns = wall_ns() - monotonic_ns()
        self._jumped_ns = 0

    def look(self) -> None:
        """Compare the clocks. Call it often: only a change between two calls counts as a jump."""
        offset_ns = self._wall_ns() - self._monotonic_ns()
        moved_ns, self._offset_ns = offset_ns - self._offset_ns, offset_ns
        if abs(moved_ns) >= JUMP_S * 1e9:
            self._jumped_ns += moved_ns
            _log.warning("the clock was set by %+.1f s", moved_ns / 1e9)

    def mark(self, event: Event) -> Event:
        """The event, with the jump noted in it if it is the first one after a jump."""
        self.look()
        jumped_ns, self._jumped_ns = self._jumped_ns, 0
        if abs(jumped_ns) < JUMP_S * 1e9:
            return event
        return msgspec.structs.replace(event, clock_jump_s=round(jumped_ns / 1e9, 3))


class Outlet:
    """Takes events from the loop and passes them on, in order.

    If snapshots are kept, a thread writes the picture first, so that it exists when its event arrives; otherwise events
    are passed on at once.

    Attributes:
        source: what events call the source.
        clock: of the events; to be looked at between events too.
        failed: why events cannot be passed on any more; None as long as they can.
    """

    def __init__(
        self,
        takers: list[Taker],
        source: str,
        snapshots: SnapshotStore | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        """Start the thread, if there are snapshots.

        Args:
            takers: called with every event, one after the other. An exception of one is raised by `take`, or with
                snapshots is noted in `failed`; the takers before it have got the event.
            source: what events call the source.
            snapshots: keeps the pictures; None keeps none.
            sinks: are shown every frame, and may say what the owner wants.
        """
        self.clock = Clock()
        self.failed: str | None = None
        self.source = source
        self._takers, self._snapshots, self._sinks = takers, snapshots, sinks
        self._controls: Controls | None = None
        self._queue: queue.Queue[tuple[Event, OrderedPixels | None] | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        if snapshots is not None:
            self._thread = threading.Thread(target=self._work, name="snapshots", daemon=True)
            self._thread.start()

    @property
    def controls(self) -> Controls | None:
        """What the owner wants; None if no sink can be told. A sink that was told something new tells the others."""
        for sink in self._sinks:
            controls = sink.controls
            if controls is not None and controls is not self._controls:
                self._controls = controls
                for other in self._sinks:
                    if other is not sink:
                        other.agree(controls)
                break
        return self._controls

    def see(self, frame: Frame, scores: Mapping[AlarmKey, float]) -> None:
        """Show a frame and the scores of each alarm to the sinks."""
        for sink in self._sinks:
            sink.see(frame, scores)

    def take(self, event: Event, frame: Frame | None = None) -> None:
        """Take an event.

        Args:
            event: the event.
            frame: that it comes from, for its snapshot; None if it comes from none. Its pixels need not stay valid.
        """
        event = self.clock.mark(event)
        if self._thread is None:
            self._pass_on(event)
            return
        picture: OrderedPixels | None = None
        if event.type == "alarm.on" and frame is not None and self._queue.qsize() < _WAITING_PICTURES:
            with contextlib.suppress(MemoryError):  # then without its picture
                picture = frame.pixels.copy(), frame.order
        try:
            self._queue.put((event, picture), timeout=_PATIENCE_S)
        except queue.Full:
            self.failed = f"snapshots: the disk hangs, and {_WAITING} events wait for it"

    def state(self, state: State, monotonic_ns: int | None = None) -> None:
        """A state of the camera or the daemon begins, which is an event.

        Args:
            state: its name and detail.
            monotonic_ns: now, on the clock of the frames; None if that is the machine's.
        """
        now = time.time_ns()
        self.take(
            Event(
                id=new_id(now),
                type="state",
                time=rfc3339(now),
                monotonic_ns=time.monotonic_ns() if monotonic_ns is None else monotonic_ns,
                source=self.source,
                state=state.name,
                detail=state.detail or None,
            )
        )

    def drain(self, ended: Callable[[], bool]) -> None:
        """Pass on the events that wait, as long as that makes progress; the last call before `close`.

        Args:
            ended: called every few hundredths of a second; once it returns true, the wait ends.
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
        """Pass on the events that wait, if that does not take longer than the time-out."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=timeout_s / 2)
            self._thread.join(timeout_s / 2)
            if self._thread.is_alive():
                _log.error("snapshots: the disk hangs; events lost: %d", self._queue.qsize())

    def _work(self) -> None:
        while (waiting := self._queue.get()) is not None:
            event, picture = waiting
            if picture is not None and (name := self._keep(event, *picture)) is not None:
                event = msgspec.structs.replace(event, snapshot=name)
            try:
                self._pass_on(event)
            except Exception as error:  # stdout was closed, for example: the loop ends with this reason
                self.failed = f"events cannot be written: {one_line(error)}"

    def _keep(self, event: Event, pixels: Pixels, order: Order) -> str | None:
        assert self._snapshots is not None
        try:
            return self._snapshots.add(event.id, pixels, order)
        except Exception as error:  # no memory, or a picture that OpenCV refuses
            _log.error("snapshots: %s", one_line(error))
            return None

    def _pass_on(self, event: Event) -> None:
        for taker in self._takers:
            taker(event)
