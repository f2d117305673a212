"""Reports the daemon's state to systemd (sd_notify): one datagram to the socket in $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

# STATUS is renewed at most this often, in seconds.
_STATUS_S = 10.0


class Watchdog:
    """Sends READY=1 when the main loop turns, and WATCHDOG=1 while there is progress: no timer drives it.

    A daemon that waits for its camera is ready too: neither the rest of the machine nor a reload must wait for one. The
    status says whether there are frames.

    A call costs one comparison unless something is due, so it can be made for every frame. Without $NOTIFY_SOCKET
    nothing is ever sent.

    Attributes:
        ready: whether READY=1 was sent.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the environment variables that systemd sets.

        Args:
            environ: $NOTIFY_SOCKET, $WATCHDOG_USEC, $WATCHDOG_PID; None takes the process's own.
            clock: monotonic, in seconds.
        """
        environ = os.environ if environ is None else environ
        self._clock = clock
        self._has_socket = bool(environ.get("NOTIFY_SOCKET"))
        timeout_s = _watchdog_s(environ)
        # A quarter of the time-out: if frames are that far apart, the next one is still in time.
        self._interval_s = min(timeout_s / 4, _STATUS_S) if timeout_s else _STATUS_S
        self._due_s = float("-inf")
        self._status = ""
        self._has_frames = False
        self.ready = False

    def frame(self, status: Callable[[], str]) -> None:
        """Report that a frame was classified, or was skipped by the motion gate.

        Args:
            status: makes the text for STATUS; called only when it is sent.
        """
        if self._has_socket and not (self._has_frames and self._clock() < self._due_s):
            self._has_frames = True
            self._send(status())

    def outage(self, status: str) -> None:
        """Report that the camera is unavailable and the main loop is handling it: that counts as progress."""
        if self._has_socket and not (self._clock() < self._due_s and status == self._status):
            self._send(status)

    def reloading(self) -> None:
        """Report that a reload starts; `reloaded` must follow, because systemd waits for it."""
        notify(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def reloaded(self, status: str) -> None:
        """Report that the reload is over, successful or not."""
        self._status = status
        notify(**({"READY": 1} if self.ready else {}), STATUS=status)

    def stopping(self) -> None:
        """Report that the daemon is stopping."""
        notify(STOPPING=1)

    def _send(self, status: str) -> None:
        self._due_s = self._clock() + self._interval_s
        self._status = status
        ready = {} if self.ready else {"READY": 1}
        self.ready = True
        notify(**ready, WATCHDOG=1, STATUS=status)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """The watchdog's time-out, in seconds; None if systemd does not watch this process (sd_watchdog_enabled(3))."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) > 0 else None


def notify(**state: str | int) -> bool:
    """Send assignments such as `READY=1`, `WATCHDOG=1`, `STATUS="..."`, `STOPPING=1` in one datagram.

    The names are those of sd_notify(3). A line break in a value becomes a space, because it would start the next
    assignment.

    Returns:
        Whether the message was sent: false without $NOTIFY_SOCKET, or if it could not be sent. Never raises and never
        blocks: a watchdog in trouble must not stop the process that it watches.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or len(address) < 2:
        return False
    if address.startswith("@"):  # systemd's notation for an abstract socket, whose name begins with a zero byte
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
