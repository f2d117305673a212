"""How a loop is asked to end: SIGTERM and SIGINT break off a wait, and nothing else."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Set by SIGTERM and SIGINT; ends a wait for a frame at once, but never interrupts an event being written."""

    def __init__(self) -> None:
        self.asked = False
        self._waiting = False

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT while the block runs."""
        old = {s: signal.signal(s, self._handle) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def wait(self, call: Callable[[], T]) -> T | None:
        """Call something that waits; None if a signal came before it returned."""
        try:
            try:
                self._waiting = True
                return None if self.asked else call()
            finally:
                self._waiting = False
        except _Stopped:  # outside of the `finally`, in which a signal may come too
            return None

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if self._waiting:
            self._waiting = False
            raise _Stopped


class _Stopped(BaseException):
    """Leaves a wait; caught by `Stop.wait`."""
