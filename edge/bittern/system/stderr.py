"""Keeps native libraries off the screen: they write to file descriptor 2 past Python."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_inside = 0
_saved = -1


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """A block whose writing to stderr goes nowhere. For the whole process: keep it short.

    Several threads may be inside at once: the first one sends stderr away, the last one brings it back.
    """
    global _inside, _saved
    with _lock:
        if _inside == 0:
            _saved = _send_away()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _saved >= 0:
                os.dup2(_saved, 2)
                os.close(_saved)


def _send_away() -> int:
    """A copy of what descriptor 2 was, or -1 where there is no stderr."""
    try:
        saved = os.dup(2)
    except OSError:
        return -1
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return saved
