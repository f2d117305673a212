"""Silences native libraries, which write directly to file descriptor 2."""

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
