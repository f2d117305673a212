"""Waiting for something that threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for something to come true; fail when it has not after so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


@contextmanager
def within(seconds: float = 20.0) -> Iterator[None]:
    """Fail where the block took longer: not how fast it is, but that it does not wait for what comes late or never."""
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    assert took < seconds, f"{took:.1f} s"
