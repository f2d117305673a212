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
# Raised for a full or read-only disk, a broken file, or no file descriptors or memory left.
FAILURES = (sqlite3.Error, OSError, MemoryError)
# Free pages (of 4 kB) are returned to the file system if there are more than this and they are over half of the file.
SPARE_PAGES = 256
# Number of damaged files to keep for inspection.
KEPT = 3
_SCHEMA = 1
# The last three: a table is missing or has other columns.
_DAMAGED = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}
# Event numbers stay below this; a higher one means damage.
_LIMIT = 2**62
_LOG = logging.getLogger(__name__)


class Damaged(Exception):
    """The file is not an outbox, or is broken."""


class InUse(OSError):
    """Another process uses the outbox."""


class Cursor(msgspec.Struct):
    """How far one sink has got.

    Attributes:
        seq: it has received every event up to this number.
        dropped: number of events that it will never receive, not yet in a notice.
        notice: the JSON of a `dropped` event that is still to be delivered to it.
    """

    seq: Annotated[int, msgspec.Meta(ge=0, le=_LIMIT)] = 0
    dropped: Annotated[int, msgspec.Meta(ge=0, le=_LIMIT)] = 0
    notice: bytes | None = None


class OutboxFile:
    """A table of events and one of cursors. For one thread and one process at a time.

    Every method may raise one of `FAILURES`; `is_damage` recognizes those that mean that the file itself is broken.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.rows = 0
        self._db: sqlite3.Connection | None = None
        self._folder_fd: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._db is not None

    def open(self) -> None:
        """Open the file; create it and its folder if missing.

        Raises:
            Damaged: it is not an outbox, or is broken.
            InUse: another process uses it.
        """
        self.lock()
        db = self._db = sqlite3.connect(self.path, timeout=2, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise OSError(f"{self.path}: expected a write-ahead log, got journal mode {mode}")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute("PRAGMA wal_autocheckpoint = 256")
            db.execute("PRAGMA journal_size_limit = 1048576")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, _SCHEMA):
                raise Damaged(f"its version is {version}, not {_SCHEMA}")
            (check,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if check != "ok":
                raise Damaged(str(check))
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
        """The highest event number in use, by an event or a cursor."""
        highest = "SELECT max((SELECT coalesce(max(seq), 0) FROM events), (SELECT coalesce(max(seq), 0) FROM cursors))"
        return int(self._connection().execute(highest).fetchone()[0])

    def cursors(self) -> dict[str, Cursor]:
        """The cursor of every known sink.

        Raises:
            Damaged: the table has invalid values.
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
        result = self._connection().execute("SELECT count(*) FROM events WHERE seq > ? AND seq <= ?", (begin, end))
        return int(result.fetchone()[0])

    def next(self, after: int) -> tuple[int, bytes] | None:
        """Number and JSON of the first event after a number."""
        first = "SELECT seq, CAST(body AS BLOB) FROM events WHERE seq > ? ORDER BY seq LIMIT 1"
        row = self._connection().execute(first, (after,)).fetchone()
        return None if row is None else (row[0], row[1])

    def delete_after(self, after: int) -> None:
        """Delete the events after a number."""
        self._connection().execute("DELETE FROM events WHERE seq > ?", (after,))
        self.rows = self.count(0)

    def write(
        self, events: Sequence[tuple[int, bytes]], cursors: Mapping[str, Cursor], max_events: int
    ) -> tuple[int, dict[str, int]]:
        """In one transaction: add events, set the cursors, delete events that every sink has and events in excess.

        It is on disk when this returns.

        Args:
            events: number and JSON, in increasing order.
            cursors: of every sink. Cursors of sinks that lose events are advanced, and the events counted in `dropped`.
            max_events: the maximum number of rows; beyond it the oldest are deleted.

        Returns:
            The highest number that was deleted to make room, 0 if none; how many events each sink lost by it.
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
        with contextlib.suppress(*FAILURES):  # the events are already written
            self._shrink()
        return end, lost

    def set_aside(self, reason: str) -> str:
        """Rename a damaged file, so that a new one can be started. Returns its new name."""
        self.disconnect()
        renamed = self.path.with_name(f"{NAME}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{renamed}{suffix}")
        Path(f"{self.path}-shm").unlink(missing_ok=True)
        sync_folder(self.path.parent)
        _LOG.error("outbox: %s is damaged (%s): set aside as %s, starting a new one", self.path, reason, renamed.name)
        for old in sorted(self.path.parent.glob(f"{NAME}.damaged-*Z"))[:-KEPT]:
            old.unlink()
            Path(f"{old}-wal").unlink(missing_ok=True)
        return renamed.name

    def disconnect(self) -> None:
        """Close the connection; the folder stays locked."""
        if self._db is not None:
            with contextlib.suppress(*FAILURES):
                self._db.close()
            self._db = None

    def close(self) -> None:
        """Close the connection and unlock the folder."""
        self.disconnect()
        if self._folder_fd is not None:
            os.close(self._folder_fd)
            self._folder_fd = None

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.OperationalError(f"{self.path} is not open")
        return self._db

    def lock(self) -> None:
        """Lock the folder, created if missing, for this process until `close`.

        Raises:
            InUse: another process has locked it.
        """
        folder = self.path.parent
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
        if self._folder_fd is None:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # Not a lock on the file itself: closing another handle of it would release SQLite's own locks.
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = _holder(handle)
                os.close(handle)
                if not isinstance(error, BlockingIOError):
                    raise
                raise InUse(
                    f"the outbox in {folder} is used by {holder}: expected one daemon per outbox; "
                    "stop that one, or set another outbox.folder"
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
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        if free > SPARE_PAGES and 2 * free > pages:
            # Not `execute`: it makes a single step, and every step returns only one page.
            db.executescript(f"PRAGMA incremental_vacuum({free})")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _holder(handle: int) -> str:
    """The process that has locked an open file, according to /proc/locks, which every user can read (proc_locks(5))."""
    # By inode only: on some file systems the device number differs from that of `stat`. If locks on several files
    # have this inode number, no process is named.
    inode = f"{os.fstat(handle).st_ino}"
    pids = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode and int(fields[4]) > 0:
                pids.add(fields[4])
    if len(pids) != 1:
        return "another process"
    pid = pids.pop()
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return f"process {pid}"


def is_damage(error: BaseException) -> bool:
    """Whether an error means that the file is broken, and not that the disk is full, read-only or busy."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the higher bits are the extended code
    return isinstance(error, Damaged) or code in _DAMAGED


def count_waiting(path: Path) -> dict[str, int]:
    """How many events wait for each sink in an outbox that a daemon may be using.

    Raises:
        OSError: it cannot be read.
    """
    # Without a write-ahead log nobody is writing, so SQLite needs no shared memory; it could not create the file for it
    # in another user's folder.
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=2)) as db:
            count = "SELECT sink, (SELECT count(*) FROM events WHERE events.seq > cursors.seq) FROM cursors"
            return dict(db.execute(count).fetchall())
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from None
