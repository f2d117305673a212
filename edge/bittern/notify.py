"""Tells systemd how the daemon is (sd_notify): one datagram to the socket named in $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket


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
