"""The outbox: holds events, first in memory, then on disk, until every sink has received them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from bittern.config.schema import OutboxConfig
from bittern.delivery.outbox_file import Cursor, InUse, OutboxFile, dropped_in, is_damage
from bittern.errors import ConfigurationError, one_line
from bittern.events import Event, new_id, rfc3339, to_line

# At most this many events wait in memory while the disk accepts none: a few megabytes.
MEMORY_EVENTS = 10_000
# At most this many events in one transaction.
BATCH = 500
_LOG = logging.getLogger(__name__)


class OutboxError(Exception):
    """The disk does not accept events now; they stay in memory, and the next `flush` tries again."""


class _Queue(Cursor):
    """The state of a sink: its cursor and counts.

    Attributes:
        waiting: number of events that it has not received.
        dropped_total: number of events that it will never receive, since the start.
        notice_saved: its notice is on disk.
        notice_frozen: the sink may have received the notice, so it must not change any more.
        offered: number of the event that `read` returned last, 0 for a notice, None if there is none.
        offered_dropped: that event has been dropped and counted meanwhile.
    """

    waiting: int = 0
    dropped_total: int = 0
    notice_saved: bool = False
    notice_frozen: bool = False
    offered: int | None = None
    offered_dropped: bool = False

    def drop(self, count: int) -> None:
        self.waiting -= count
        self.dropped += count
        self.dropped_total += count


def folder(config: OutboxConfig, source: str) -> Path:
    """The folder of a source's outbox: as configured, else $STATE_DIRECTORY, else ~/.local/state/bittern/SOURCE.

    Raises:
        ConfigurationError: there is no home folder either.
    """
    if config.folder:
        return Path(config.folder)
    if directories := os.environ.get("STATE_DIRECTORY", ""):
        return Path(directories.split(":")[0])  # systemd joins several with a colon
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    except RuntimeError:
        raise ConfigurationError("outbox.folder: no home folder and no $STATE_DIRECTORY: set a folder") from None
    return state / "bittern" / (re.sub(r"[^A-Za-z0-9_-]", "_", source) or "_")


class Outbox:
    """A queue that survives a power cut.

    An event gets a number when it is put, is written to disk in one transaction with others, and is deleted once every
    sink has received it. `put`, `done` and `status` touch memory only. While the disk accepts no events, sinks are
    served from memory. A sink that is added receives only later events; events waiting for a removed sink are
    forgotten. The file shrinks after an outage (incremental vacuum).

    One thread may call `flush`, and one thread per sink `read` and `done`; any thread may call `put`.

    Attributes:
        error: why the disk does not accept events now; None if it does.
    """

    def __init__(self, folder: Path, sinks: Sequence[str], source: str, max_events: int) -> None:
        """Does not open the file: the first `flush` does.

        Args:
            folder: the folder of the file, created if missing; only one process may use it at a time.
            sinks: names of the sinks, at least one.
            source: source name in the outbox's own events.
            max_events: the maximum on disk. Beyond it the oldest events are dropped, and every sink that did not
                receive them gets one `dropped` event with their number.
        """
        self.error: str | None = None
        self._source = source
        self._max = max_events
        # `_disk` is held during I/O and acquired first; `_memory` is held only briefly.
        self._disk = threading.Lock()
        self._memory = threading.Lock()
        self._file = OutboxFile(folder)
        self._identity: int | None = None  # of the file that was read last
        self._last = 0
        self._stored = 0
        self._tail: deque[tuple[int, bytes]] = deque()
        self._queues = {name: _Queue() for name in sinks}
        self._dirty = True  # so that the first `flush` opens the file

    def claim(self) -> None:
        """Lock the folder for this process, before anything starts that a second daemon must not do.

        If the disk fails, the daemon starts nevertheless: `flush` tries again.

        Raises:
            ConfigurationError: another process has locked it.
        """
        with self._disk, contextlib.suppress(OSError):
            try:
                self._file.lock()
            except InUse as error:
                raise ConfigurationError(str(error)) from None

    def put(self, body: bytes) -> None:
        """Add an event (its JSON). It is in memory when this returns, on disk after the next `flush`."""
        with self._memory:
            self._append(body)

    def lose(self) -> None:
        """Count an event that could not even be put."""
        with self._memory:
            for queue in self._queues.values():
                queue.waiting += 1
                queue.drop(1)
            self._dirty = True

    @property
    def pending(self) -> bool:
        """Whether there are events in memory that are not on disk yet."""
        return bool(self._tail)

    @property
    def unsaved(self) -> int:
        """Number of events that still wait for a sink and are in memory only: they would be lost with the process."""
        with self._memory:
            delivered = min((queue.seq for queue in self._queues.values()), default=0)
            return sum(seq > delivered for seq, _ in self._tail)

    @property
    def dirty(self) -> bool:
        """Whether anything is not on disk yet: events or cursors."""
        return self._dirty or bool(self._tail)

    def status(self) -> dict[str, tuple[int, int]]:
        """For every sink, how many events are waiting and how many were dropped since the start."""
        with self._memory:
            return {name: (queue.waiting, queue.dropped_total) for name, queue in self._queues.items()}

    def read(self, sink: str) -> bytes | None:
        """The next event for a sink, the same one until `done`; None if no event is safely on disk.

        While the disk accepts no events, they come from memory. Events on a disk that cannot even be read have to wait,
        and so do later ones, because the order is kept. The exception is a file that could not be opened since the
        start, so that its contents are unknown: then later events come first, and once more after the file's.
        """
        queue = self._queues[sink]
        with self._disk:
            with self._memory:
                queue.offered, queue.offered_dropped = None, False
                if queue.dropped and queue.notice is None:
                    queue.notice, queue.dropped = self._notice(queue.dropped), 0
                    queue.notice_saved = queue.notice_frozen = False
                    self._dirty = True
                if queue.notice is not None:
                    if not queue.notice_saved and self.error is None:
                        return None
                    queue.offered = 0
                    return queue.notice
                on_disk = queue.seq < self._stored
            entry = None
            if on_disk:
                try:
                    if self.error is None and self._file.is_touched():
                        self._dirty = True  # so that `flush` looks after it
                        return None
                    entry = self._file.next(queue.seq)
                except Exception as error:  # see `OutboxFile`
                    self._fail(error)
                    return None
            with self._memory:
                if entry is None and self.error is not None:
                    entry = next((item for item in self._tail if item[0] > queue.seq), None)
                if entry is None:
                    return None
                queue.offered, body = entry
                return body

    def done(self, sink: str) -> None:
        """The sink has received, or finally refused, the event that `read` returned last."""
        queue = self._queues[sink]
        with self._memory:
            offered, queue.offered = queue.offered, None
            if offered is None:  # the file was opened meanwhile, which changed the numbers
                return
            self._dirty = True
            if offered == 0:
                queue.notice = None
                return
            queue.seq = max(queue.seq, offered)
            if queue.offered_dropped:  # counted as dropped while it was being sent, but it arrived
                queue.dropped -= 1
                queue.dropped_total -= 1
            else:
                queue.waiting -= 1

    def failed(self, sink: str, *, unsent: bool) -> None:
        """The sink did not, or may not, have received the event that `read` returned last.

        As long as no attempt is in doubt, the count in a notice may still grow: the notice then gets a new id.
        """
        queue = self._queues[sink]
        with self._memory:
            if queue.offered != 0 or queue.notice is None:
                return
            queue.notice_frozen |= not unsent
            if not queue.notice_frozen and queue.dropped:
                queue.dropped += dropped_in(queue.notice)
                queue.notice = queue.offered = None
                self._dirty = True

    def flush(self) -> None:
        """Write everything to disk: when this returns, all events put before are safe.

        A damaged file is renamed, with the date in its name, and a new one is started. One that was deleted, replaced
        or changed by somebody else meanwhile is opened anew, with what was in it as far as it can be read.

        Raises:
            OutboxError: the disk does not accept it.
        """
        with self._disk:
            for _ in range(3):  # a damaged file is replaced by a new one, which is unlikely to be damaged too
                try:
                    if self._file.is_touched():
                        self._look_after()
                    if not self._file.is_open:
                        self._open()
                    self._write()
                    while self._tail:
                        self._write()
                except Exception as error:  # see `OutboxFile`
                    if not self._fail(error):
                        break
                else:
                    self.error = None
                    return
            raise OutboxError(self.error)

    def close(self) -> None:
        """Close the file, without writing the events that are still in memory."""
        with self._disk:
            self._file.close()

    def _append(self, body: bytes) -> None:
        self._last += 1
        self._tail.append((self._last, body))
        for queue in self._queues.values():
            queue.waiting += 1
        while len(self._tail) > MEMORY_EVENTS:
            seq, _ = self._tail.popleft()
            self._dirty = True
            for queue in self._queues.values():
                if queue.seq < seq:
                    queue.drop(1)
                    queue.offered_dropped |= queue.offered == seq

    def _notice(self, count: int) -> bytes:
        event = Event(
            id=new_id(),
            type="dropped",
            time=rfc3339(time.time_ns()),
            monotonic_ns=time.monotonic_ns(),
            source=self._source,
            count=count,
            detail="too many events were waiting: the oldest were dropped",
        )
        return to_line(event)[:-1]

    # --- the file; the caller holds `_disk` ---

    def _look_after(self) -> None:
        """Somebody else deleted, replaced or changed the file: close it, with all that is in it under its own name."""
        if self._file.is_away():
            events = self._file.rows
            try:
                self._file.restore()
            except Exception as error:
                if not is_damage(error):
                    raise  # what is open can still be read; `flush` tries again
                self._file.disconnect()
                what = f"was deleted or replaced while it was in use, and cannot be read any more: {one_line(error)}"
            else:
                what = f"was deleted or replaced while it was in use: written again, with the {events} events in it"
        else:
            self._file.disconnect()
            what = "was changed by another process: opened again"
        _LOG.error("outbox: %s %s", self._file.path, what)
        with self._memory:
            self._append(self._damage_event(f"the outbox {what}"))

    def _open(self) -> None:
        self._file.open()
        with self._memory:  # held while reading the disk, which is rare enough here
            if self._file.identity == self._identity:
                self._reconcile()
            else:
                if self._identity is not None:
                    self._abandon()
                self._adopt()
            self._identity, self._dirty = self._file.identity, True
            if lost := self._file.lost_writes:
                self._append(self._damage_event(f"the log of the outbox is damaged: its last {lost} writes are lost"))

    def _abandon(self) -> None:
        """Before another file is read: events that were on the disk are lost."""
        for queue in self._queues.values():
            queue.offered_dropped |= queue.seq < (queue.offered or 0) <= self._stored
            queue.drop(queue.waiting - sum(seq > queue.seq for seq, _ in self._tail))

    def _adopt(self) -> None:
        """After the first read of a file: number the events in memory after those in the file."""
        last, saved = self._file.last(), self._file.cursors()
        for name in saved.keys() - self._queues.keys():
            waiting = self._file.count(saved[name].seq)
            _LOG.warning("outbox: %d events for %s are discarded: it is no longer configured", waiting, name)
            self._file.forget(name)
        self._tail = deque((seq + last, body) for seq, body in self._tail)
        self._last += last
        self._stored = last
        for name, queue in self._queues.items():
            queue.offered = None
            # A new sink receives only events from now on.
            cursor = saved.get(name, Cursor(last))
            backlog = self._file.count(cursor.seq)
            if backlog:  # events that it already received from memory come again, after the backlog
                queue.seq = cursor.seq
                queue.waiting = backlog + len(self._tail)
            else:
                queue.seq += last
            queue.dropped += cursor.dropped
            if cursor.notice is not None:
                if queue.notice is not None:
                    queue.dropped += dropped_in(queue.notice)
                queue.notice, queue.notice_saved, queue.notice_frozen = cursor.notice, True, True

    def _reconcile(self) -> None:
        """After reopening the file: events that are no longer in it are lost."""
        self._file.delete_after(self._stored)  # from a commit that failed halfway; they are still in memory
        for queue in self._queues.values():
            remaining = self._file.count(queue.seq) + sum(seq > queue.seq for seq, _ in self._tail)
            if remaining < queue.waiting:
                queue.offered_dropped |= queue.seq < (queue.offered or 0) <= self._stored
                queue.drop(queue.waiting - remaining)

    def _write(self) -> None:
        with self._memory:
            batch = list(itertools.islice(self._tail, BATCH))
            for _ in batch:
                self._tail.popleft()
            begin = {name: queue.seq for name, queue in self._queues.items()}
            cursors = {name: Cursor(queue.seq, queue.dropped, queue.notice) for name, queue in self._queues.items()}
            self._dirty = False
        try:
            end, lost = self._file.write(batch, cursors, self._max)
        except BaseException:
            with self._memory:
                self._tail.extendleft(reversed(batch))
                self._dirty = True
            raise
        with self._memory:
            if batch:
                self._stored = batch[-1][0]
            for name, queue in self._queues.items():
                queue.notice_saved = queue.notice is not None and queue.notice == cursors[name].notice
                if name in lost:
                    # One event may have arrived while this was written, and one may be being sent now.
                    arrived = begin[name] < queue.seq <= end
                    queue.drop(lost[name] - arrived)
                    queue.offered_dropped |= begin[name] < (queue.offered or 0) <= end
                    queue.seq = max(queue.seq, end)

    def _fail(self, error: BaseException) -> bool:
        """Record an error. Returns whether the file was set aside, so that it is worth trying again at once."""
        if is_damage(error):
            try:
                new_name = self._file.set_aside(one_line(error))
            except OSError as rename_error:
                error = rename_error
            else:
                self.error = one_line(error)  # unless the next try succeeds
                detail = f"events waiting in it were not delivered; set aside as {new_name}"
                with self._memory:
                    self._append(self._damage_event(detail))
                return True
        self.error = one_line(error)
        try:  # a disk that is full or read-only can still be read
            self._file.next(0)
        except Exception:
            self._file.disconnect()
        return False

    def _damage_event(self, detail: str) -> bytes:
        event = Event(
            id=new_id(),
            type="state",
            time=rfc3339(time.time_ns()),
            monotonic_ns=time.monotonic_ns(),
            source=self._source,
            state="outbox_damaged",
            detail=detail,
        )
        return to_line(event)[:-1]
