"""Signals that end or reload a loop: SIGTERM and SIGINT interrupt a wait, SIGHUP sets a flag."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Set by SIGTERM and SIGINT; ends a wait for a frame at once, but never interrupts an event being written.

    Attributes:
        asked: whether SIGTERM or SIGINT came.
        reload: whether SIGHUP came; whoever reloads resets it.
        restart: whether the process is to start again when it has ended; whoever sets it sets `asked`, too.
    """

    def __init__(self) -> None:
        self.asked = False
        self.reload = False
        self.restart = False
        self._waiting = False

    @contextlib.contextmanager
    def signals(self, *, reload: bool = False, last: bool = False) -> Iterator[None]:
        """Handle SIGTERM and SIGINT while the block runs, and SIGHUP with `reload`.

        `last` says that the process ends after the block: from then on the signals are ignored, so that a second one
        does not kill the process during a clean shutdown.
        """
        hook, sys.unraisablehook = sys.unraisablehook, _unraisable
        old = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        if reload:
            old[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._note_reload)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, signal.SIG_IGN if last else handler)
            sys.unraisablehook = hook

    def wait(self, call: Callable[[], T]) -> T | None:
        """Call a function that waits; None if a signal came before it returned."""
        try:
            try:
                self._waiting = True
                return None if self.asked else call()
            finally:
                self._waiting = False
        except _Stopped:  # outside of the `finally`, because the signal may come during that too
            return None

    def start(self, call: Callable[[], T]) -> T | None:
        """Like `wait`, for start-up code, which is mostly imports.

        A signal during the import of a compiled module surfaces as an ImportError of that module.
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


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Say nothing of a signal that came in a place that nothing can be raised from, as when a module's lock is freed.

    `Stop.asked` is set all the same.
    """
    if unraisable.exc_type is not _Stopped:
        sys.__unraisablehook__(unraisable)
