"""How a loop is asked to end, or to reload: SIGTERM and SIGINT break off a wait, SIGHUP sets a flag."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Set by SIGTERM and SIGINT; ends a wait for a frame at once, but never interrupts an event being written.

    Attributes:
        asked: whether the end was asked.
        reload: whether SIGHUP came; who reloads puts it back.
    """

    def __init__(self) -> None:
        self.asked = False
        self.reload = False
        self._waiting = False

    @contextlib.contextmanager
    def signals(self, *, reload: bool = False, last: bool = False) -> Iterator[None]:
        """Take SIGTERM and SIGINT while the block runs, and SIGHUP with `reload`.

        With `last` the process ends after the block: from then on they are ignored, so that a second one, sent while
        it ends, does not turn a clean end into a killed process.
        """
        old = {s: signal.signal(s, self._handle) for s in (signal.SIGTERM, signal.SIGINT)}
        if reload:
            old[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._note_reload)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, signal.SIG_IGN if last else handler)

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

    def start(self, call: Callable[[], T]) -> T | None:
        """As `wait`, for a start, most of which is imports.

        In the middle of the import of a compiled module a signal comes out as an ImportError of that module.
        """
        try:
            return self.wait(call)
        except Exception:
            if not self.asked:
                raise
            return None

    def _note_reload(self, _number: int, _frame: FrameType | None) -> None:
        self.reload = True

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if self._waiting:
            self._waiting = False
            raise _Stopped


class _Stopped(BaseException):
    """Leaves a wait; caught by `Stop.wait`."""
