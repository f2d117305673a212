"""Delivery: brings events to sinks from threads of its own, so that the main loop never waits for a disk or a peer."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from bittern.config.schema import OutboxConfig
from bittern.delivery.sinks.base import Sink, Undelivered
from bittern.errors import one_line
from bittern.events import Event, to_line

if TYPE_CHECKING:
    from bittern.delivery.outbox import Outbox

# Back-off in seconds: 1, 2, 4 ... 60, each up to a fifth more or less, so that many cameras do not return all at once.
BACKOFF_MAX_S = 60.0
_JITTER = 0.2
# A peer may ask for a longer pause, up to this many seconds.
RETRY_AFTER_MAX_S = 3600.0
# An event on which the sink's own code fails, which is a bug in the sink, is tried this often and then refused.
TRIES_ON_BUG = 5
# The progress of the sinks is written to the disk at this interval; after a power cut, later events are sent once more.
PROGRESS_S = 1.0
# A disk that is nearly full takes some events and not others: it counts as recovered after this many seconds without a
# failure. The log mentions lost events at this interval at most.
QUIET_S = 60.0
# At the end of a recording: the interval at which deliveries are checked, when the log says what is still waiting, and
# how long a failing disk is waited for.
_DRAIN_POLL_S, _DRAIN_LOG_S, _DRAIN_DISK_S = 0.05, 2.0, 10.0
# Interval at which a back-off looks whether the sink has connected again.
_RECONNECTED_POLL_S = 0.1
# How many events wait for a sink that is not durable (an output pin); the newest win.
BEST_EFFORT_EVENTS = 64
_LOG = logging.getLogger(__name__)


class SinkStatus(msgspec.Struct, frozen=True):
    """What became of the events for one sink, since the start.

    Attributes:
        name: of the sink.
        delivered: events that it took, including notices of dropped events.
        refused: events that it will never take.
        failures: attempts that failed.
        last_error: why the last attempt failed; None if the last attempt did not.
        waiting: events that are still to be delivered to it.
        dropped: events that it will never get, because too many were waiting.
    """

    name: str
    delivered: int = 0
    refused: int = 0
    failures: int = 0
    last_error: str | None = None
    waiting: int = 0
    dropped: int = 0


class DeliveryStatus(msgspec.Struct, frozen=True):
    """The state of the delivery.

    Attributes:
        sinks: of every sink.
        depth: events that are still to be delivered to at least one durable sink.
        dropped: events that were dropped since the start, summed over the sinks that did not get them.
        disk_error: why the disk takes no events now; None if it does.
    """

    sinks: tuple[SinkStatus, ...]
    depth: int
    dropped: int
    disk_error: str | None


class _Line:
    """One sink with its counters, which only the sink's thread writes."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.delivered = self.refused = self.failures = self.dropped = 0
        self.last_error: str | None = None
        self.retrying = False
        self.closed = False
        self.newest: deque[tuple[Event, bytes]] = deque(maxlen=BEST_EFFORT_EVENTS)

    def attempt(self, event: Event, body: bytes) -> None:
        """Deliver once.

        Raises:
            Undelivered: it did not arrive; the log says so, but not at every attempt.
        """
        name = self.sink.name
        try:
            answer = self.sink.deliver(event, body)
        except Undelivered as error:
            self._failed(error.reason)
            raise
        except (OSError, MemoryError) as error:  # no file descriptors, no memory
            self._failed(reason := f"{type(error).__name__}: {error}")
            raise Undelivered(reason) from None
        except Exception as error:
            if self.last_error is None:
                _LOG.exception("%s: a bug in the sink", name)
            self._failed(reason := f"{type(error).__name__}: {error}")
            raise _SinkBug(reason) from None
        self.delivered += 1
        if self.last_error is not None:
            _LOG.warning("%s: delivering again (%s)", name, answer)
            self.last_error = None

    def refuse(self, event: str, reason: str) -> None:
        """Count an event that the sink will never take, and name it in the log."""
        self.refused += 1
        _LOG.error("%s: %s is refused and skipped: %s", self.sink.name, event, reason)

    def _failed(self, reason: str) -> None:
        if self.closed:  # by `Delivery.close`, while it was delivering
            return
        self.failures += 1
        if reason != self.last_error:  # a peer may be away for a week
            _LOG.warning("%s: not delivered, will be tried again: %s", self.sink.name, reason)
        self.last_error = reason


class _SinkBug(Undelivered):
    """The sink raised an exception that no sink should raise."""


class Delivery:
    """Takes events from the main loop and brings them to the sinks.

    Durable sinks stand behind the outbox: one thread writes events to the disk, many in one transaction, and one thread
    per sink delivers them in order and at least once. Other sinks get the newest events, one attempt each. Without
    sinks there is no thread, without durable sinks no file.

    Attributes:
        failed: why the delivery has stopped, because a thread died; None as long as all run.
    """

    def __init__(self, config: OutboxConfig, sinks: Sequence[Sink], source: str, box: Outbox | None = None) -> None:
        """Start the threads.

        Args:
            config: where the outbox is, and how many events it holds.
            sinks: `close` closes them.
            source: what events call the source.
            box: the outbox for the durable ones of these sinks, if it exists already; `close` closes it too.

        Raises:
            ConfigurationError: there is no folder for the outbox.
        """
        self.failed: str | None = None
        self._lines = [_Line(sink) for sink in sinks]
        # Threads wait on it: one that changes what another waits for notifies all.
        self._changed = threading.Condition()
        self._stopping = False
        self._lost_s: float | None = None  # when the log last mentioned a lost event, by the monotonic clock
        self._finishing = False
        self._flushed = False
        self._ready = 0
        self._trouble_s = 0.0  # when the disk last took no events, by the monotonic clock
        self._outbox: Outbox | None = None
        self._writer: threading.Thread | None = None
        self._threads: list[threading.Thread] = []
        durable = [sink.name for sink in sinks if sink.durable]
        if durable:
            from bittern.delivery import outbox

            self._outbox = box or outbox.Outbox(outbox.folder(config, source), durable, source, config.max_events)
            self._writer = self._start("outbox", partial(self._write, self._outbox))
        for line in self._lines:
            run = self._deliver_all if line.sink.durable else self._deliver_newest
            self._threads.append(self._start(line.sink.name, partial(run, line)))

    def send(self, event: Event) -> None:
        """Take an event. Never waits for a disk or a peer, never raises."""
        if not self._lines:
            return
        try:
            self._take(event)
        except Exception as error:  # a text that is not Unicode, or no memory
            with contextlib.suppress(Exception):
                if self._outbox is not None:
                    self._outbox.lose()
                now = time.monotonic()
                if self._lost_s is None or now - self._lost_s >= QUIET_S:
                    self._lost_s = now
                    _LOG.error("event %s is lost: %s: %s", event.id, type(error).__name__, error)
        self._follow(event)

    def _follow(self, event: Event) -> None:
        """Show an event to every sink at once, whatever waits in the outbox."""
        for line in self._lines:
            try:
                line.sink.follow(event)
            except Exception as error:  # no memory; the event itself is in the outbox
                _LOG.error("%s: its states may be wrong: %s", line.sink.name, one_line(error))

    def status(self) -> DeliveryStatus:
        """The state now; never waits for a disk or a peer."""
        counts = self._outbox.status() if self._outbox is not None else {}
        sinks = []
        for line in self._lines:
            waiting, dropped = counts.get(line.sink.name, (len(line.newest), line.dropped))
            sinks.append(
                SinkStatus(
                    line.sink.name, line.delivered, line.refused, line.failures, line.last_error, waiting, dropped
                )
            )
        return DeliveryStatus(
            tuple(sinks),
            max((waiting for waiting, _ in counts.values()), default=0),
            sum(sink.dropped for sink in sinks),
            self._outbox.error if self._outbox is not None else None,
        )

    def drain(self, ended: Callable[[], bool]) -> None:
        """Wait until every sink has received its events, including those of earlier runs.

        It does not wait for a sink whose last attempt failed, and only briefly for a disk that fails. The log says what
        is left.

        Args:
            ended: called every few hundredths of a second; once it returns true, the wait ends.
        """
        log_s, logged = time.monotonic() + _DRAIN_LOG_S, False
        least, since_s = self._outstanding(), time.monotonic()
        while not ended() and self.failed is None:
            waiting, now = self._outstanding(), time.monotonic()
            if waiting < least:
                least, since_s = waiting, now
            disk_fails = self._outbox is not None and self._outbox.error is not None
            if not waiting or (disk_fails and now - since_s >= _DRAIN_DISK_S):
                break
            if not logged and now >= log_s:
                logged = True
                _LOG.info("events still to be delivered: %d; Ctrl-C leaves them for the next start", waiting)
            time.sleep(_DRAIN_POLL_S)
        status = self.status()
        for sink, line in zip(status.sinks, self._lines, strict=True):
            if sink.waiting and line.sink.durable and status.disk_error is None:  # else `close` says what is lost
                _LOG.warning("%s: events not delivered: %d; the next start tries again", sink.name, sink.waiting)

    def _outstanding(self) -> int:
        """The number of events that wait for one sink, whose last attempt did not fail, at most."""
        return max(
            (s.waiting for s, line in zip(self.status().sinks, self._lines, strict=True) if not line.retrying),
            default=0,
        )

    def close(self, timeout_s: float = 1.5) -> None:
        """Write the events in memory to the disk, stop the threads, close the sinks.

        A sink whose peer does not answer is closed while its thread still uses it; a thread that does not even end then
        is left behind, and dies with the process. Events that were not delivered stay in the outbox for the next start.
        """
        end = time.monotonic() + timeout_s
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            if self._writer is not None and self._writer.is_alive():
                # First of all, make the events safe.
                self._changed.wait_for(lambda: self._flushed, timeout_s / 2)
        grace = time.monotonic() + timeout_s / 4
        for thread in self._threads:
            thread.join(max(0.0, grace - time.monotonic()))
        for line in self._lines:
            line.closed = True
            try:
                line.sink.close()
            except Exception:
                _LOG.exception("%s: not closed", line.sink.name)
        for thread in self._threads:
            thread.join(max(0.0, end - timeout_s / 8 - time.monotonic()))
        with self._changed:
            self._finishing = True
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join(max(0.0, end - time.monotonic()))

    def _take(self, event: Event) -> None:
        body = to_line(event)[:-1]
        for line in self._lines:
            if not line.sink.durable:
                line.dropped += len(line.newest) == BEST_EFFORT_EVENTS
                line.newest.append((event, body))
        if self._outbox is not None:
            self._outbox.put(body)
        # Sinks wait for events to be safe on the disk, but not while the disk takes none.
        self._notify(ready=self._outbox is not None and self._outbox.error is not None)

    # --- threads ---

    def _start(self, name: str, run: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            while True:
                try:
                    return run()
                except MemoryError:  # the state is in the outbox: start over when there may be memory again
                    time.sleep(1.0)
                except Exception as error:
                    self.failed = f"the thread of {name} died: {type(error).__name__}: {error}"
                    _LOG.exception("the thread of %s died", name)
                    return None

        # A daemon thread: a peer or a disk that hangs must not keep the process from ending.
        thread = threading.Thread(target=guarded, name=f"bittern-{name}", daemon=True)
        thread.start()
        return thread

    def _notify(self, *, ready: bool = False) -> None:
        with self._changed:
            self._ready += ready
            self._changed.notify_all()

    def _wait(self, until: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Wait until a condition holds, or the delivery is to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or until(), timeout_s)

    def _pause(self, sink: Sink, seconds: float) -> None:
        """Wait before another attempt, but no longer once the sink has connected to its peer again."""
        connections, end = sink.connections, time.monotonic() + seconds
        while not self._stopping and connections == sink.connections and (left := end - time.monotonic()) > 0:
            self._wait(lambda: False, min(left, _RECONNECTED_POLL_S))

    def _write(self, box: Outbox) -> None:
        """The writer's thread: brings the events in memory to the disk."""
        failures = 0
        while not self._stopping:
            if failures:
                self._wait(lambda: False, _backoff_s(failures))
            else:
                self._wait(lambda: box.dirty or box.error is not None, QUIET_S if self._trouble_s else None)
                # The progress alone can wait a little, to save the disk; events cannot.
                self._wait(lambda: box.pending or box.error is not None, PROGRESS_S)
            failures = self._flush(box, failures)
            self._notify(ready=True)
        failures = self._flush(box, failures)
        with self._changed:
            self._flushed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._finishing)
        self._flush(box, failures)
        if lost := box.unsaved:
            _LOG.error("outbox: the disk took no events until the end; events lost: %d", lost)
        box.close()

    def _flush(self, box: Outbox, failures: int) -> int:
        from bittern.delivery.outbox import OutboxError

        try:
            box.flush()
        except OutboxError as error:
            if not self._trouble_s:
                _LOG.error("outbox: the disk takes no events (%s): they stay in memory", error)
            self._trouble_s = time.monotonic()
            return failures + 1
        if self._trouble_s and time.monotonic() - self._trouble_s >= QUIET_S:
            self._trouble_s = 0.0
            _LOG.warning("outbox: the disk takes events again")
        return 0

    def _deliver_all(self, line: _Line) -> None:
        """The thread of a durable sink: delivers every event in order, until it is taken or refused."""
        box, name = self._outbox, line.sink.name
        assert box is not None
        failures = bugs = 0
        while not self._stopping:
            ready = self._ready
            body = box.read(name)
            if body is None:
                self._notify()  # an event may have to be written before it can be read
                self._wait(lambda ready=ready: self._ready != ready)  # type: ignore[misc]
                continue
            try:
                event = msgspec.json.decode(body, type=Event)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                line.refuse("an event", f"it cannot be decoded: {error}")
            else:
                try:
                    line.attempt(event, body)
                except Undelivered as error:
                    failures += 1
                    bugs += isinstance(error, _SinkBug)
                    if not error.final and bugs < TRIES_ON_BUG:
                        line.retrying = True
                        box.failed(name, unsent=error.unsent)
                        asked_s = min(error.retry_after_s or 0.0, RETRY_AFTER_MAX_S)
                        self._pause(line.sink, max(_backoff_s(failures), asked_s))
                        continue
                    line.refuse(f"{event.type} {event.id}", error.reason)
            failures = bugs = 0
            line.retrying = False
            box.done(name)
            self._notify()

    def _deliver_newest(self, line: _Line) -> None:
        """The thread of a sink that is not durable: one attempt for each of the newest events."""
        while not self._stopping:
            self._wait(lambda: bool(line.newest))
            with contextlib.suppress(IndexError, Undelivered):
                line.attempt(*line.newest.popleft())


def _backoff_s(failures: int) -> float:
    """Seconds to wait after a number of failures in a row."""
    jitter = random.uniform(1 - _JITTER, 1 + _JITTER)
    return min(BACKOFF_MAX_S, 2.0 ** min(failures - 1, 10) * jitter)
