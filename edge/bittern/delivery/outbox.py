"""The outbox: events on their way to sinks, in memory first, then on the disk, until every sink has them."""

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

import msgspec

from bittern.config.schema import OutboxConfig
from bittern.delivery.outbox_file import FAILURES, Cursor, Damaged, InUse, OutboxFile, is_damage
from bittern.errors import ConfigurationError, one_line
from bittern.events import Event, rfc3339, to_line, uuid7

# So many events wait in memory while the disk takes none: some megabytes.
MEMORY_EVENTS = 10_000
# Events in one transaction at most.
BATCH = 500
_LOG = logging.getLogger(__name__)


class OutboxError(Exception):
    """The disk does not take events now; they stay in memory, and the next `flush` tries again."""


class _Queue(Cursor):
    """What is known of a sink beside its cursor.

    Attributes:
        waiting: events that it has not got.
        dropped_total: events that it will never get, since the start.
        notice_saved: its notice is on the disk.
        notice_frozen: the sink may have got it, so that it must stay as it is.
        offered: number of the event that `read` gave out last, 0 for a notice, None if there is none.
        offered_dropped: that event was dropped, and counted, meanwhile.
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
    """Where the outbox of a source is: as configured, else $STATE_DIRECTORY, else ~/.local/state/bittern/SOURCE.

    Raises:
        ConfigurationError: there is no home folder either.
    """
    if config.folder:
        return Path(config.folder)
    if given := os.environ.get("STATE_DIRECTORY", ""):
        return Path(given.split(":")[0])  # systemd joins several with a colon
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    except RuntimeError:
        raise ConfigurationError("outbox.folder: no home folder and no $STATE_DIRECTORY: give a folder") from None
    return state / "bittern" / (re.sub(r"[^A-Za-z0-9_-]", "_", source) or "_")


class Outbox:
    """A queue that survives a power cut.

    An event gets a number when it is put, is written with others in one transaction, and is deleted when every sink
    has it. `put`, `done` and `status` touch memory only. While the disk takes no events, sinks are served from memory.
    A sink that was added later gets what comes after that; what waited for one that was removed is forgotten. The
    file shrinks after an outage (incremental vacuum).

    One thread may call `flush`, and one a sink `read` and `done`; `put` may come from anywhere.

    Attributes:
        error: why the disk does not take events now; None if it does.
    """

    def __init__(self, folder: Path, sinks: Sequence[str], source: str, max_events: int) -> None:
        """Nothing is opened yet: the first `flush` does.

        Args:
            folder: where the file is; it is made if it is not there, and used by one process at a time.
            sinks: names of the sinks, at least one.
            source: what the events of the outbox itself call their source.
            max_events: how many the disk holds at most. Beyond it the oldest are dropped, and every sink that did not
                get them gets one `dropped` event with their number.
        """
        self.error: str | None = None
        self._source = source
        self._max = max_events
        # `_disk` is held during input and output, and taken first; `_memory` only for moments.
        self._disk = threading.Lock()
        self._memory = threading.Lock()
        self._file = OutboxFile(folder)
        self._known = False  # whether the file was ever read
        self._last = 0
        self._stored = 0
        self._tail: deque[tuple[int, bytes]] = deque()
        self._queues = {name: _Queue() for name in sinks}
        self._dirty = True  # so that the first `flush` opens the file

    def claim(self) -> None:
        """Take the folder for this process alone, before anything is begun that a second daemon must not do.

        A disk that does not let it is no reason not to begin: `flush` tries again.

        Raises:
            ConfigurationError: another process has it.
        """
        with self._disk, contextlib.suppress(OSError):
            try:
                self._file.lock()
            except InUse as error:
                raise ConfigurationError(str(error)) from None

    def put(self, body: bytes) -> None:
        """Add an event (its JSON). It is in memory when this returns, on the disk after the next `flush`."""
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
        """Whether there are events in memory that should be on the disk."""
        return bool(self._tail)

    @property
    def unsaved(self) -> int:
        """How many events are in memory only and still wait for a sink: they would go with the process."""
        with self._memory:
            reached = min((queue.seq for queue in self._queues.values()), default=0)
            return sum(seq > reached for seq, _ in self._tail)

    @property
    def dirty(self) -> bool:
        """Whether there is anything that should be on the disk: events, or how far the sinks are."""
        return self._dirty or bool(self._tail)

    def status(self) -> dict[str, tuple[int, int]]:
        """Of every sink, how many events wait for it, and how many were dropped since the start."""
        with self._memory:
            return {name: (queue.waiting, queue.dropped_total) for name, queue in self._queues.items()}

    def read(self, sink: str) -> bytes | None:
        """The next event for a sink, the same one until `done`; None if there is none that is safe on the disk.

        While the disk takes no events they come from memory. What waits on a disk that cannot even be read waits with
        it, and later events behind it, because the order is kept. Only if the file could not be opened since the
        start, nobody knows what waits in it: then later events come first, and once more after it.
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
            found = None
            if on_disk:
                try:
                    found = self._file.next(queue.seq)
                except FAILURES as error:
                    self._fail(error)
                    return None
            with self._memory:
                if found is None and self.error is not None:
                    found = next((item for item in self._tail if item[0] > queue.seq), None)
                if found is None:
                    return None
                queue.offered = found[0]
                return found[1]

    def done(self, sink: str) -> None:
        """The sink has got, or refused for good, what `read` gave out last."""
        queue = self._queues[sink]
        with self._memory:
            offered, queue.offered = queue.offered, None
            if offered is None:  # the file was opened only now, and numbers changed
                return
            self._dirty = True
            if offered == 0:
                queue.notice = None
                return
            queue.seq = max(queue.seq, offered)
            if queue.offered_dropped:  # counted as dropped while it was on its way, but it arrived
                queue.dropped -= 1
                queue.dropped_total -= 1
            else:
                queue.waiting -= 1

    def failed(self, sink: str, *, unsent: bool) -> None:
        """The sink has not got what `read` gave out last, or only may have.

        While no attempt is in doubt, the number in a notice may still grow: it gets another id then.
        """
        queue = self._queues[sink]
        with self._memory:
            if queue.offered != 0 or queue.notice is None:
                return
            queue.notice_frozen |= not unsent
            if not queue.notice_frozen and queue.dropped:
                queue.dropped += _count(queue.notice)
                queue.notice = queue.offered = None
                self._dirty = True

    def flush(self) -> None:
        """Write everything to the disk: when this returns, what was put before is safe.

        A file that is damaged is set aside, under a name with the date, and a new one begun.

        Raises:
            OutboxError: the disk does not take it.
        """
        with self._disk:
            for _ in range(3):  # damaged files are rare, and their successors are new
                try:
                    if not self._file.is_open:
                        self._open()
                    self._write()
                    while self._tail:
                        self._write()
                except (Damaged, *FAILURES) as error:
                    if not self._fail(error):
                        break
                else:
                    self.error = None
                    return
            raise OutboxError(self.error)

    def close(self) -> None:
        """Let go of the file, without writing what is still in memory."""
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
            id=uuid7(),
            type="dropped",
            time=rfc3339(time.time_ns()),
            monotonic_ns=time.monotonic_ns(),
            source=self._source,
            count=count,
            detail="too many were waiting: the oldest were dropped",
        )
        return to_line(event)[:-1]

    # --- the file; the caller holds `_disk` ---

    def _open(self) -> None:
        self._file.open()
        with self._memory:  # rare enough to read the disk meanwhile
            if self._known:
                self._reconcile()
            else:
                self._adopt()
            self._known = self._dirty = True

    def _adopt(self) -> None:
        """The file is read for the first time: what came before that comes after what is in it."""
        last, saved = self._file.last(), self._file.cursors()
        for name in saved.keys() - self._queues.keys():
            forgotten = self._file.count(saved[name].seq)
            _LOG.warning("outbox: %d events for %s are forgotten: it is not configured any more", forgotten, name)
            self._file.forget(name)
        self._tail = deque((seq + last, body) for seq, body in self._tail)
        self._last += last
        self._stored = last
        for name, queue in self._queues.items():
            queue.offered = None
            # A new sink gets what comes from now on.
            cursor = saved.get(name, Cursor(last))
            backlog = self._file.count(cursor.seq)
            if backlog:  # what it got from memory before that comes again, after it
                queue.seq = cursor.seq
                queue.waiting = backlog + len(self._tail)
            else:
                queue.seq += last
            queue.dropped += cursor.dropped
            if cursor.notice is not None:
                if queue.notice is not None:
                    queue.dropped += _count(queue.notice)
                queue.notice, queue.notice_saved, queue.notice_frozen = cursor.notice, True, True

    def _reconcile(self) -> None:
        """The file was opened again, or it is another one: what it does not have any more is lost."""
        self._file.cut(self._stored)  # of a commit that failed in between: still in memory
        for queue in self._queues.values():
            there = self._file.count(queue.seq) + sum(seq > queue.seq for seq, _ in self._tail)
            if there < queue.waiting:
                queue.offered_dropped |= queue.seq < (queue.offered or 0) <= self._stored
                queue.drop(queue.waiting - there)

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
                    # One may have arrived while this was written, and one may be on its way now.
                    arrived = begin[name] < queue.seq <= end
                    queue.drop(lost[name] - arrived)
                    queue.offered_dropped |= begin[name] < (queue.offered or 0) <= end
                    queue.seq = max(queue.seq, end)

    def _fail(self, error: BaseException) -> bool:
        """Take note of an error; whether the file was set aside, so that it is worth trying again at once."""
        if is_damage(error):
            try:
                aside = self._file.set_aside(str(error))
            except OSError as failed:
                error = failed
            else:
                with self._memory:
                    self._append(self._damage(aside))
                return True
        self.error = one_line(error)
        try:  # a disk that is full or read-only can still be read
            self._file.next(0)
        except FAILURES:
            self._file.disconnect()
        return False

    def _damage(self, aside: str) -> bytes:
        event = Event(
            id=uuid7(),
            type="state",
            time=rfc3339(time.time_ns()),
            monotonic_ns=time.monotonic_ns(),
            source=self._source,
            state="outbox_damaged",
            detail=f"what waited in it was not delivered; set aside as {aside}",
        )
        return to_line(event)[:-1]


def _count(notice: bytes) -> int:
    return msgspec.json.decode(notice, type=Event).count or 0
