"""The process of a daemon's page: serves it, and knows only what the daemon says.

    python -P -m bittern.page.live LINK LISTENER PARENT

The first two are the file descriptors of sockets, the last one is the daemon's process id. It ends when the daemon
closes the link, and when the daemon ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from bittern.page import live_messages as messages
from bittern.page.access import Access
from bittern.page.address import Address
from bittern.page.app import application
from bittern.page.live_api import LiveInterface
from bittern.page.live_state import Known
from bittern.page.review import Review
from bittern.page.server import PageServer
from bittern.system import log, stderr

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# How often it says that it has not hung, in seconds.
_ALIVE_S = 5.0
# The kernel holds no more than this for a viewer, in bytes, so that a live picture is not seconds old.
_BUFFER = 128 * 1024
# The classifier comes first.
_NICE = 5


def main() -> int:
    """Serve until the daemon ends."""
    link_fd, listener_fd, parent = map(int, sys.argv[1:])
    # The daemon decides when this process ends: systemd may send SIGTERM to both.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        return 1
    os.nice(_NICE)
    stderr.never_wait()
    log.begin(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # A viewer that was dropped is nothing to report.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "without completing response" not in record.getMessage()
    )
    link, listener = socket.socket(fileno=link_fd), socket.socket(fileno=listener_fd)
    link.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    asyncio.run(_serve(link, listener))
    return 0


async def _serve(link: socket.socket, listener: socket.socket) -> None:
    known = Known(link)
    begin: asyncio.Future[messages.Begin] = asyncio.get_running_loop().create_future()

    def receive() -> None:
        try:
            while (received := messages.receive_in_page(link)) is not None:
                message, fds = received
                if isinstance(message, messages.Begin):
                    begin.set_result(message)
                else:
                    known.take(message, fds)
        except EOFError:
            os._exit(0)  # whoever looks is cut off: the daemon has ended

    loop = asyncio.get_running_loop()
    loop.add_reader(link.fileno(), receive)
    first = await begin
    data = Path(first.data)
    review = Review(
        Path(first.snapshots) if first.snapshots else None, Path(first.kept) if first.kept else None, data / "sets"
    )
    app = application(LiveInterface(first.name, known, review, Path(first.clips)).routes(), "live.html")
    server = PageServer(app, Address(names=first.names), Access(data) if first.open else None)
    alive = asyncio.create_task(_say_alive(link))
    gc.freeze()
    await server.serve([listener])
    alive.cancel()


async def _say_alive(link: socket.socket) -> None:
    while True:
        messages.send(link, messages.Alive())
        await asyncio.sleep(_ALIVE_S)


if __name__ == "__main__":
    sys.exit(main())
