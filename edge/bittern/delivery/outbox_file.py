"""The outbox's file: SQLite with a write-ahead log, every commit synced; a damaged file is set aside."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from bittern.system.fileio import sync_folder

NAME = "outbox.sqlite"
# Full, read-only, no file descriptors, no memory, a broken file: what a disk can do to a daemon.
FAILURES = (sqlite3.Error, OSError, MemoryError)
# Free pages (of 4 kB) are given back to the file system when they are more than this, and more than half of the file.
SPARE_PAGES = 256
# Damaged files that are kept, for whoever wants to look into them.
KEPT = 3
_SCHEMA = 1
# The last three: a table is missing or is another one.
_DAMAGED = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}
# Event numbers stay below; one that is higher was not given by us.
_LIMIT = 2**62
_LOG = logging.getLogger(__name__)


class Damaged(Exception):
    """The file is no outbox, or a broken one."""


class InUse(OSError):
    """Another process has the outbox."""


class Cursor(msgspec.Struct):
    """How far one sink is.

    Attributes:
        seq: it has every event up to this number.
        dropped: events that it will never get, not yet in a notice.
        notice: the JSON of a `dropped` event on its way to it.
    """

    seq: Annotated[int, msgspec.Meta(ge=0, le=_LIMIT)] = 0
    dropped: Annotated[int, msgspec.Meta(ge=0, le=_LIMIT)] = 0
    notice: bytes | None = None


class OutboxFile:
    """A table of events and one of cursors. Used by one thread at a time, and by one process at a time.

    Every method may raise one of `FAILURES`; `is_damage` tells those that say that the file itself is broken.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.rows = 0
        self._db: sqlite3.Connection | None = None
        self._folder_fd: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._db is not None

    def open(self) -> None:
        """Open the file, or make it and its folder.

        Raises:
            Damaged: it is not an outbox, or a broken one.
            InUse: another process has it.
        """
        self.lock()
        db = self._db = sqlite3.connect(self.path, timeout=2, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise OSError(f"{self.path}: no write-ahead log here, but {mode}")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute("PRAGMA wal_autocheckpoint = 256")
            db.execute("PRAGMA journal_size_limit = 1048576")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, _SCHEMA):
                raise Damaged(f"its version is {version}, not {_SCHEMA}")
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise Damaged(str(found))
            if version == 0:
                self._make_tables()
            self.rows = self.count(0)
            self.cursors()
            if self.last() > _LIMIT:
                raise Damaged(f"an event has the number {self.last()}")
        except BaseException:
            self.disconnect()
            raise

    def last(self) -> int:
        """The highest number that was ever given to an event that matters."""
        highest = "SELECT max((SELECT coalesce(max(seq), 0) FROM events), (SELECT coalesce(max(seq), 0) FROM cursors))"
        return int(self._connection().execute(highest).fetchone()[0])

    def cursors(self) -> dict[str, Cursor]:
        """How far every sink is that was ever used and not forgotten.

        Raises:
            Damaged: they are no cursors.
        """
        rows = self._connection().execute("SELECT sink, seq, dropped, notice FROM cursors")
        try:
            return {
                str(row[0]): msgspec.convert(dict(zip(Cursor.__struct_fields__, row[1:], strict=True)), Cursor)
                for row in rows
            }
        except msgspec.ValidationError as error:
            raise Damaged(f"cursors: {error}") from None

    def forget(self, sink: str) -> None:
        """Remove the cursor of a sink."""
        self._connection().execute("DELETE FROM cursors WHERE sink = ?", (sink,))

    def count(self, begin: int, end: int = _LIMIT) -> int:
        """How many events have a number above `begin` and up to `end`."""
        found = self._connection().execute("SELECT count(*) FROM events WHERE seq > ? AND seq <= ?", (begin, end))
        return int(found.fetchone()[0])

    def next(self, after: int) -> tuple[int, bytes] | None:
        """Number and JSON of the first event after a number."""
        first = "SELECT seq, CAST(body AS BLOB) FROM events WHERE seq > ? ORDER BY seq LIMIT 1"
        row = self._connection().execute(first, (after,)).fetchone()
        return None if row is None else (row[0], row[1])

    def cut(self, after: int) -> None:
        """Delete the events after a number."""
        self._connection().execute("DELETE FROM events WHERE seq > ?", (after,))
        self.rows = self.count(0)

    def write(
        self, events: Sequence[tuple[int, bytes]], cursors: Mapping[str, Cursor], max_events: int
    ) -> tuple[int, dict[str, int]]:
        """In one transaction: add events, set the cursors, delete what every sink has and what is too much.

        It is on the disk when this returns.

        Args:
            events: number and JSON, numbers rising.
            cursors: of every sink. Those of sinks that lose events are moved, and the events counted in `dropped`.
            max_events: how many rows may stay; beyond it the oldest are deleted.

        Returns:
            The highest number that was deleted for want of room, 0 if none; how many every sink lost by it.
        """
        db = self._connection()
        lost: dict[str, int] = {}
        end = 0
        with self._transaction():
            floor = min(cursor.seq for cursor in cursors.values())
            new = [item for item in events if item[0] > floor]
            db.executemany("INSERT INTO events VALUES (?, ?)", new)
            rows = self.rows + len(new) - self._delete(floor)
            if (excess := rows - max_events) > 0:
                nth = "SELECT seq FROM events ORDER BY seq LIMIT 1 OFFSET ?"
                (end,) = db.execute(nth, (excess - 1,)).fetchone()
                for name, cursor in cursors.items():
                    if cursor.seq < end:
                        lost[name] = self.count(cursor.seq, end)
                        cursor.seq = end
                        cursor.dropped += lost[name]
                rows -= self._delete(end)
            db.executemany(
                "INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?)",
                [(name, cursor.seq, cursor.dropped, cursor.notice) for name, cursor in cursors.items()],
            )
        self.rows = rows
        with contextlib.suppress(*FAILURES):  # what had to be written is
            self._shrink()
        return end, lost

    def set_aside(self, why: str) -> str:
        """Rename a damaged file, so that a new one can be made; its new name."""
        self.disconnect()
        aside = self.path.with_name(f"{NAME}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        for end in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{end}").rename(f"{aside}{end}")
        Path(f"{self.path}-shm").unlink(missing_ok=True)
        sync_folder(self.path.parent)
        _LOG.error("outbox: %s is damaged (%s): set aside as %s, a new one is begun", self.path, why, aside.name)
        for old in sorted(self.path.parent.glob(f"{NAME}.damaged-*Z"))[:-KEPT]:
            old.unlink()
            Path(f"{old}-wal").unlink(missing_ok=True)
        return aside.name

    def disconnect(self) -> None:
        """Close the connection; the folder stays ours."""
        if self._db is not None:
            with contextlib.suppress(*FAILURES):
                self._db.close()
            self._db = None

    def close(self) -> None:
        """Let go of everything."""
        self.disconnect()
        if self._folder_fd is not None:
            os.close(self._folder_fd)
            self._folder_fd = None

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.OperationalError(f"{self.path} is not open")
        return self._db

    def lock(self) -> None:
        """Take the folder, which is made if it is not there, for this process alone, until `close` or its end.

        Raises:
            InUse: another process has it.
        """
        folder = self.path.parent
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
        if self._folder_fd is None:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # Not a lock on the file itself: closing any other handle of that would end SQLite's own locks.
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = _holder(handle)
                os.close(handle)
                if not isinstance(error, BlockingIOError):
                    raise
                raise InUse(
                    f"the outbox in {folder} is used by {holder}: expected one daemon for each outbox; "
                    "end that one, or give another outbox.folder"
                ) from None
            self._folder_fd = handle

    def _make_tables(self) -> None:
        db = self._connection()
        with self._transaction():
            db.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, body BLOB NOT NULL)")
            db.execute(
                "CREATE TABLE cursors (sink TEXT PRIMARY KEY, seq INTEGER NOT NULL, dropped INTEGER NOT NULL, "
                "notice BLOB) WITHOUT ROWID"
            )
            db.execute(f"PRAGMA user_version = {_SCHEMA}")
        sync_folder(self.path.parent)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            try:
                if db.in_transaction:
                    db.execute("ROLLBACK")
            except FAILURES:
                self.disconnect()
            raise

    def _delete(self, end: int) -> int:
        return self._connection().execute("DELETE FROM events WHERE seq <= ?", (end,)).rowcount

    def _shrink(self) -> None:
        db = self._connection()
        (free,), (pages,) = (db.execute(f"PRAGMA {what}").fetchone() for what in ("freelist_count", "page_count"))
        if free > SPARE_PAGES and 2 * free > pages:
            # Not `execute`, which takes a single step, and this gives one page back with each.
            db.executescript(f"PRAGMA incremental_vacuum({free})")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _holder(handle: int) -> str:
    """Which process has the lock on an open file, as Linux shows it to every user (proc_locks(5))."""
    # By the number of the file alone: that of its device is not the one of `stat` on every file system. Where two
    # files have that number, none is named rather than a wrong one.
    wanted = f"{os.fstat(handle).st_ino}"
    pids = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == wanted and int(words[4]) > 0:
                pids.add(words[4])
    if len(pids) != 1:
        return "another process"
    pid = pids.pop()
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return f"process {pid}"


def is_damage(error: BaseException) -> bool:
    """Whether an error says that the file is broken, and not that the disk is full, read-only or busy."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the higher bits say more exactly what happened
    return isinstance(error, Damaged) or code in _DAMAGED


def count_waiting(path: Path) -> dict[str, int]:
    """How many events wait for each sink in an outbox that a daemon may be using.

    Raises:
        OSError: it cannot be read.
    """
    # Without a write-ahead log nobody is writing, and SQLite must not be asked for shared memory, whose file it could
    # not make in a folder of another user.
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=2)) as db:
            count = "SELECT sink, (SELECT count(*) FROM events WHERE events.seq > cursors.seq) FROM cursors"
            return dict(db.execute(count).fetchall())
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from None
