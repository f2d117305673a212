"""Lines on stderr, which the daemon never waits for; and silence for native libraries, which write to it directly."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import sys
import threading
from collections.abc import Iterator

from bittern.errors import printable

_lock = threading.Lock()
_inside = 0
_saved = -1


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Discard everything written to stderr during the block. Affects the whole process: keep it short.

    Several threads may be inside at once: the first one redirects stderr, the last one restores it.
    """
    global _inside, _saved
    with _lock:
        if _inside == 0:
            _saved = _redirect()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _saved >= 0:
                os.dup2(_saved, 2)
                os.close(_saved)


def _redirect() -> int:
    """Redirect descriptor 2 to nowhere. Returns a copy of the old one, or -1 if there is no stderr."""
    try:
        saved = os.dup(2)
    except OSError:
        return -1
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    os.close(devnull)
    return saved


# What a pipe takes whole or not at all; a longer line is cut.
_LINE_BYTES = select.PIPE_BUF
_waits = True
_lost = 0


def open_standard_descriptors() -> None:
    """Give stdin, stdout and stderr something to be, where they are closed.

    Else the next file that is opened, such as a database, would be what a native library takes for stderr.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest descriptor that is free


def never_wait() -> None:
    """From now on a line that stderr does not take at once is dropped and counted; also for native libraries.

    For a daemon: whoever reads its log may hang, and it must go on, and end.
    """
    global _waits
    _waits = False
    with contextlib.suppress(OSError):
        mode = os.fstat(2).st_mode
        if stat.S_ISSOCK(mode):  # systemd's journal, whose socket belongs to the unit
            os.set_blocking(2, False)
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            # Opened once more, because the flag belongs to what was opened, which other processes may share.
            own = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
            os.dup2(own, 2)
            os.close(own)


def write_line(text: str) -> None:
    """Write one line, with everything that would not be one made visible. Never fails."""
    global _lost
    line = printable(text)
    try:
        if _waits:
            with _lock:  # another thread may be silencing a library: the line is not for its silence
                if _inside and _saved >= 0 and sys.stderr is sys.__stderr__:
                    os.write(_saved, f"{line}\n".encode(errors="backslashreplace"))
                elif sys.stderr is not None:
                    sys.stderr.write(f"{line}\n")
                    sys.stderr.flush()
            return
        if not _is_ready():
            raise BlockingIOError
        lost = f" (lines before this one that were not read: {_lost})" if _lost else ""
        data = f"{line}{lost}".encode(errors="backslashreplace")
        os.write(2, data[: _LINE_BYTES - 1] + b"\n")
        _lost = 0
    except OSError:  # nobody reads it, or the disk is full
        _lost += 1
        if _waits:  # what is left in the buffer must not fail again at exit
            drop()


def drop() -> None:
    """Let everything that is still written to stderr vanish."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def _is_ready() -> bool:
    # Beside O_NONBLOCK, because a descriptor of another user cannot be opened once more.
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    return bool(poll.poll(0))
