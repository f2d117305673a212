"""Tells systemd how the daemon is (sd_notify): one datagram to the socket named in $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

# STATUS is renewed at most this often, in seconds.
_STATUS_S = 10.0


class Watchdog:
    """Says READY=1 with the first frame, and WATCHDOG=1 as long as something gets on. Fed by progress, not by a timer.

    A call costs one comparison unless something is due, so that it may be made for every frame. Where nobody listens
    (no $NOTIFY_SOCKET) nothing is ever sent.

    Attributes:
        ready: whether READY=1 was said.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Read what systemd wants to hear from the environment.

        Args:
            environ: $NOTIFY_SOCKET, $WATCHDOG_USEC, $WATCHDOG_PID; None takes the process's own.
            clock: monotonic, in seconds.
        """
        environ = os.environ if environ is None else environ
        self._clock = clock
        self._listened = bool(environ.get("NOTIFY_SOCKET"))
        self._watched_s = _watchdog_s(environ)
        # A quarter: with frames as far apart as this the next one is still in time.
        self._every_s = min(self._watched_s / 4, _STATUS_S) if self._watched_s else _STATUS_S
        self._due_s = float("-inf")
        self._status = ""
        self.ready = False

    def frame(self, status: Callable[[], str]) -> None:
        """A frame came and was classified (or, by the gate, needs not be).

        Args:
            status: makes the text for STATUS; called only when it is sent.
        """
        if not self._listened or (self.ready and self._clock() < self._due_s):
            return
        if self.ready:
            self._send(status(), WATCHDOG=1)
        else:
            self.ready = True
            self._send(status(), READY=1, WATCHDOG=1)

    def outage(self, status: str) -> None:
        """The camera is away, and the main loop is seeing to it: that is progress too.

        Before the first frame systemd is asked for more time to start, so that a camera which is plugged in an hour
        late is not an hour of restarts.
        """
        if not self._listened or (self._clock() < self._due_s and status == self._status):
            return
        if self.ready:
            self._send(status, WATCHDOG=1)
        else:
            self._send(status, EXTEND_TIMEOUT_USEC=int(4e6 * max(self._every_s, _STATUS_S)))

    def reloading(self) -> None:
        """A reload begins; `reloaded` must follow, or systemd goes on waiting for it."""
        notify(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def reloaded(self, status: str) -> None:
        """The reload is over, whatever came of it."""
        self._status = status
        notify(**({"READY": 1} if self.ready else {}), STATUS=status)

    def stopping(self) -> None:
        """The end begins."""
        notify(STOPPING=1)

    def _send(self, status: str, **state: int) -> None:
        self._due_s = self._clock() + self._every_s
        self._status = status
        notify(**state, STATUS=status)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """In which time systemd wants to hear from this process; None if it does not watch it (sd_watchdog_enabled(3))."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) > 0 else None


def notify(**state: str | int) -> bool:
    """Send assignments such as `READY=1`, `WATCHDOG=1`, `STATUS="..."`, `STOPPING=1` in one datagram.

    The names are those of sd_notify(3). A line break in a value becomes a space, because it would begin
    the next assignment.

    Returns:
        Whether the message was handed over: false where nobody asked for it (no $NOTIFY_SOCKET), or where
        it could not be sent. It never raises and never waits: a watcher in trouble must not stop what it
        watches.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or len(address) < 2:
        return False
    if address.startswith("@"):  # how systemd writes an abstract socket, whose name begins with a zero byte
        address = "\0" + address[1:]
    message = "\n".join(f"{name}={' '.join(str(value).splitlines())}" for name, value in state.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(address)
            sock.sendall(message.encode("utf-8", "replace"))
    except (OSError, ValueError):
        return False
    return True
