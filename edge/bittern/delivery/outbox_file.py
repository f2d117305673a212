"""The outbox's file: SQLite with a write-ahead log, every commit synced; a damaged file is set aside.

SQLite notices neither a changed number nor a log that ends early. So the table of cursors has one row more, `_CHECK`,
written in every transaction: the number of events, the highest event number, and a checksum of the cursors.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
import stat
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from bittern.errors import one_line
from bittern.events import Event
from bittern.system.fileio import sync_folder

NAME = "outbox.sqlite"
# Free pages (of 4 kB) are returned to the file system if there are more than this and they are over half of the file.
SPARE_PAGES = 256
# Number of damaged files to keep for inspection.
KEPT = 3
_SCHEMA = 1
# What SQLite says of the disk, of a lock, and of a lack of memory. Anything else that comes of a file is damage.
_NO_DAMAGE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
}
# Event numbers and counts stay below these; higher ones mean damage.
_LIMIT, _COUNT_LIMIT = 2**62, 2**40
# The row of the table of cursors that is no sink's.
_CHECK = "#check"
# https://www.sqlite.org/walformat.html: sizes of the log's header and of a frame's.
_LOG_HEADER, _FRAME_HEADER = 32, 24
# SQLite cuts the log to this size, in bytes; no log is begun anew more often than this.
_LOG_LIMIT, _MOST_LOGS = 2**20, 2**24
_LOG_MAGIC = (bytes.fromhex("377f0682"), bytes.fromhex("377f0683"))
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
    dropped: Annotated[int, msgspec.Meta(ge=0, le=_COUNT_LIMIT)] = 0
    notice: bytes | None = None


class OutboxFile:
    """A table of events and one of cursors. For one thread and one process at a time.

    Every method may raise any exception, because a damaged file makes SQLite and its Python module do so; `is_damage`
    recognizes those that mean that the file itself is broken.

    Attributes:
        path: of the file.
        rows: number of events in it.
        identity: a random number that the file got when it was made; 0 of earlier versions.
        lost_writes: how many writes in the log could not be read when the file was opened.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.rows = 0
        self.identity = 0
        self.lost_writes = 0
        # Device and inode of the file and its log when it was opened; size and time of the file when it was written.
        self._files: list[tuple[int, int] | None] = []
        self._state: tuple[int, int] | None = None
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
        self._check_kind()
        salts = _salts(Path(f"{self.path}-wal"))  # SQLite begins a log with a damaged header anew
        db = self._db = sqlite3.connect(self.path, timeout=2, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise OSError(f"{self.path}: expected a write-ahead log, got journal mode {mode}")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute("PRAGMA wal_autocheckpoint = 256")
            db.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT}")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, _SCHEMA):
                raise Damaged(f"its version is {version}, not {_SCHEMA}")
            (check,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if check != "ok":
                raise Damaged(str(check))
            self.lost_writes = self._lost_writes(salts)
            if version == 0:
                self._make_tables()
            self._check_tables()
            (self.identity,) = db.execute("PRAGMA application_id").fetchone()
            self._files, self._state = self._look()
        except BaseException:
            self.disconnect()
            raise

    def last(self) -> int:
        """The highest event number in use, by an event or a cursor."""
        (event,) = self._connection().execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        return max(int(event), *(cursor.seq for cursor in self.cursors().values()), 0)

    def cursors(self) -> dict[str, Cursor]:
        """The cursor of every known sink.

        Raises:
            Damaged: the table has invalid values.
        """
        rows = self._connection().execute("SELECT sink, seq, dropped, notice FROM cursors WHERE sink != ?", (_CHECK,))
        try:
            cursors = {
                str(row[0]): msgspec.convert(dict(zip(Cursor.__struct_fields__, row[1:], strict=True)), Cursor)
                for row in rows
            }
            for cursor in cursors.values():
                if cursor.notice is not None:
                    dropped_in(cursor.notice)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Damaged(f"cursors: {error}") from None
        return cursors

    def forget(self, sink: str) -> None:
        """Remove the cursor of a sink."""
        self._connection().execute("DELETE FROM cursors WHERE sink IN (?, ?)", (sink, _CHECK))
        self._remember()

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
        with self._transaction():
            self._connection().execute("DELETE FROM events WHERE seq > ?", (after,))
            self._connection().execute("DELETE FROM cursors WHERE sink = ?", (_CHECK,))
        self.rows = self.count(-_LIMIT)
        self._remember()

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
            check = (_CHECK, self.last(), rows, _checksum(cursors))
            db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?)", check)
        self.rows = rows
        with contextlib.suppress(Exception):  # the events are already written
            self._shrink()
        self._remember()
        return end, lost

    def is_touched(self) -> bool:
        """Whether somebody else deleted, replaced or changed the open file, or deleted or replaced its log."""
        if self._db is None:
            return False
        files, state = self._look()
        return None in files or files != self._files or state != self._state

    def is_away(self) -> bool:
        """Whether the open file is not the one at its name any more; what is in it can still be read."""
        return self._db is not None and self._look()[0][0] != self._files[0]

    def restore(self) -> None:
        """Write a file that is away once more under its name, with all that is in it, and close it.

        Another file that has taken its name is set aside.
        """
        if not self._holds_folder():
            self._unlock()
            self.lock()
        copy = self.path.with_name(f"{NAME}.new")
        copy.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(copy)) as target:
            self._connection().backup(target)
        if self.path.exists():
            self._move_aside()
        for suffix in ("-wal", "-shm"):  # they belong to the old file
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        copy.rename(self.path)
        sync_folder(self.path.parent)
        self.disconnect()  # SQLite leaves the log of a file that was moved alone

    def set_aside(self, reason: str) -> str:
        """Rename a damaged file, so that a new one can be started. Returns its new name."""
        self.disconnect()
        renamed = self._move_aside()
        _LOG.error("outbox: %s is damaged (%s): set aside as %s, starting a new one", self.path, reason, renamed.name)
        return renamed.name

    def _move_aside(self) -> Path:
        """Rename the file with its log; delete all but the newest of those that were set aside before."""
        base = f"{NAME}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
        names = (self.path.with_name(f"{base}{number}Z") for number in ("", *(f".{n}" for n in range(1, 1000))))
        renamed = next(name for name in names if not os.path.lexists(name))
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{renamed}{suffix}")
        sync_folder(self.path.parent)
        for old in sorted(self.path.parent.glob(f"{NAME}.damaged-*Z"))[:-KEPT]:
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):  # a folder may have been in its place
                    Path(f"{old}{suffix}").unlink()
        return renamed

    def disconnect(self) -> None:
        """Close the connection; the folder stays locked."""
        if self._db is not None:
            with contextlib.suppress(Exception):
                self._db.close()
            self._db = None

    def close(self) -> None:
        """Close the connection and unlock the folder."""
        self.disconnect()
        self._unlock()

    def _unlock(self) -> None:
        if self._folder_fd is not None:
            os.close(self._folder_fd)
            self._folder_fd = None

    def _holds_folder(self) -> bool:
        """Whether the folder that is locked is still the one at its name."""
        try:
            return self._folder_fd is not None and os.path.samestat(os.fstat(self._folder_fd), self.path.parent.stat())
        except FileNotFoundError:
            return False

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise OSError(f"{self.path} is not open")
        return self._db

    def _look(self) -> tuple[list[tuple[int, int] | None], tuple[int, int] | None]:
        """Device and inode of what is at the names of the file and its log now; size and time of the first."""
        # Not with pathlib, see `fileio.atomic`: this is done for every event.
        files: list[tuple[int, int] | None] = []
        state = None
        for file in (os.fspath(self.path), f"{self.path}-wal"):
            try:
                now = os.stat(file)  # noqa: PTH116
            except OSError:
                files.append(None)
                continue
            if not files:
                state = now.st_size, now.st_mtime_ns
            files.append((now.st_dev, now.st_ino))
        return files, state

    def _remember(self) -> None:
        # Not what is at the names: it may have been replaced while this was written.
        _, self._state = self._look()

    def _check_kind(self) -> None:
        """Refuse what SQLite would wait for, or take for a disk that cannot be written.

        Raises:
            Damaged: the file or its log is a folder, a pipe or a device, or of a version that SQLite does not write.
        """
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(os.stat(f"{self.path}{suffix}").st_mode):  # noqa: PTH116
                    raise Damaged(f"{NAME}{suffix} is not a regular file")
        # Before it is connected: closing a second handle of the file would release SQLite's locks.
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            header = file.read(20)
            if len(header) == 20 and max(header[18:]) > 2:  # https://www.sqlite.org/fileformat.html, 1.3.3
                raise Damaged(f"its format is {header[18]}/{header[19]}, not 2/2")

    def _check_tables(self) -> None:
        """Refuse numbers that cannot be, and what does not agree with the row `_CHECK`.

        Raises:
            Damaged: see above.
        """
        self.rows = self.count(-_LIMIT)
        cursors, last = self.cursors(), self.last()
        if last > _LIMIT:
            raise Damaged(f"an event has the number {last}")
        check = "SELECT seq, dropped, notice FROM cursors WHERE sink = ?"
        row = self._connection().execute(check, (_CHECK,)).fetchone()
        # An outbox of an earlier version has none.
        if row is not None and row != (last, self.rows, _checksum(cursors)):
            raise Damaged("its numbers do not agree with each other")

    def _lost_writes(self, salts: bytes) -> int:
        """How many writes in the log SQLite did not take, because it stops at the first damaged frame.

        After a power cut the last write may be there in part; nothing in it was acknowledged, so it does not count. The
        log says so all the same, because it looks like a damaged one.
        """
        db = self._connection()
        (page_size,) = db.execute("PRAGMA page_size").fetchone()
        try:
            _, taken, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            lost, torn = _writes_after(Path(f"{self.path}-wal"), salts, page_size, max(0, taken))
            if lost or torn:
                _LOG.warning("outbox: the end of %s-wal cannot be read: the last events in it may be lost", self.path)
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # so that they are not counted again
        except (sqlite3.Error, OSError) as error:
            if is_damage(error):
                raise
            return 0  # a disk that is full or read-only can still be read
        return lost if lost > 1 else 0

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
            db.execute(f"PRAGMA application_id = {secrets.randbelow(2**31 - 1) + 1}")
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
            except Exception:
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
    """Whether an error means that the file is broken, and not that the disk is full, read-only or busy.

    SQLite's messages quote the file, and Python may fail to decode them: so an error of any type is damage.
    """
    if isinstance(error, sqlite3.Error):
        # The higher bits are the extended code. Without a code it is an error of Python's module.
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF not in _NO_DAMAGE
    return not isinstance(error, OSError | MemoryError)


def dropped_in(notice: bytes) -> int:
    """The number of dropped events in a notice.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError: it is none.
    """
    return msgspec.json.decode(notice, type=_Notice).count


class _Notice(Event, frozen=True, kw_only=True):
    count: Annotated[int, msgspec.Meta(ge=0, le=_COUNT_LIMIT)]


def _checksum(cursors: Mapping[str, Cursor]) -> bytes:
    return zlib.crc32(msgspec.json.encode(sorted(cursors.items()))).to_bytes(4, "big")


def _salts(file: Path) -> bytes:
    """Two random numbers that a write-ahead log's frames have, unless they are left from before it was begun anew.

    They are in its header, and if that is damaged, in its first frame.
    """
    try:
        with file.open("rb") as log:
            header, frame = log.read(_LOG_HEADER), log.read(_FRAME_HEADER)
    except FileNotFoundError:
        return b""
    return header[16:24] if _is_intact(header) else frame[8:16]


def _writes_after(file: Path, salts: bytes, page_size: int, taken: int) -> tuple[int, bool]:
    """How many commits a write-ahead log has after so many frames, and whether anything else there is no frame.

    A frame's header has the size of the database if it ends a commit, else 0, and then the salts. The first of them
    counts how often the log was begun anew.
    """
    if not salts:
        return 0, False
    commits = 0
    with file.open("rb") as log:
        size = os.fstat(log.fileno()).st_size
        torn = size != _LOG_LIMIT and (size - _LOG_HEADER) % (_FRAME_HEADER + page_size) != 0
        log.seek(_LOG_HEADER + taken * (_FRAME_HEADER + page_size))
        while len(frame := log.read(_FRAME_HEADER)) == _FRAME_HEADER:
            age = int.from_bytes(salts[:4], "big") - int.from_bytes(frame[8:12], "big") & 0xFFFFFFFF
            commits += frame[4:8] != bytes(4) and frame[8:16] == salts
            torn |= frame[8:16] != salts and not 0 < age < _MOST_LOGS
            log.seek(page_size, os.SEEK_CUR)
    return commits, torn


def _is_intact(header: bytes) -> bool:
    """Whether the header of a write-ahead log agrees with its checksum."""
    if len(header) < _LOG_HEADER or header[:4] not in _LOG_MAGIC:
        return False
    order = ">" if header[3] & 1 else "<"
    numbers = struct.unpack(f"{order}6I", header[:24])
    first = second = 0
    for i in range(0, 6, 2):
        first = first + numbers[i] + second & 0xFFFFFFFF
        second = second + numbers[i + 1] + first & 0xFFFFFFFF
    return header[24:] == struct.pack(">2I", first, second)


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
            count = "SELECT sink, (SELECT count(*) FROM events WHERE seq > cursors.seq) FROM cursors WHERE sink != ?"
            return dict(db.execute(count, (_CHECK,)).fetchall())
    except Exception as error:  # see `is_damage`
        raise OSError(f"{path}: {one_line(error)}") from None
