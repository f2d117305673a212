"""Serves an application until SIGTERM or SIGINT: the socket, the guard before it, and how slow a peer may be."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from bittern.page.access import Access
from bittern.page.address import Address
from bittern.page.guard import Guard

# Connections and requests at a time; one more gets 503.
_MOST_CONNECTIONS = 512
# A connection without a request is closed, whether it never had one or had one before.
_IDLE_S = 15
_SHUTDOWN_S = 2


class PageServer(uvicorn.Server):
    """Answers requests until SIGTERM or SIGINT, which are no failure of the process; made inside of a running loop.

    Args:
        app: the application.
        address: where it listens.
        access: see `access_of`.
    """

    def __init__(self, app: ASGIApp, address: Address, access: Access | None) -> None:
        super().__init__(
            uvicorn.Config(
                Guard(app, access, address.names),
                http=_Protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # A proxy on this machine says for whom it asks: wrong tokens are counted by address.
                proxy_headers=True,
                forwarded_allow_ips=["127.0.0.1", "::1"],
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_keep_alive=_IDLE_S,
                timeout_graceful_shutdown=_SHUTDOWN_S,
            )
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)

    def _end(self) -> None:
        """End soon; at once when asked again."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The loop's handlers stay."""
        yield


class _Protocol(H11Protocol):
    """A connection that is closed if no request comes, or only half of a head, also after an earlier request."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Wait no longer for a head that is whole, and from now on for one that has begun."""
        super().data_received(data)
        self._watch()

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if self._is_between_requests():
            self._timer = self._timer or self.loop.call_later(_IDLE_S, self._close_without_request)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_without_request(self) -> None:
        self._timer = None
        if self._is_between_requests() and not self.transport.is_closing():
            self.transport.close()


class Site:
    """A page that can be asked, once `serve` is called.

    Attributes:
        url: its address, for a browser on this machine.
    """

    def __init__(self, url: str, runner: asyncio.Runner, page_server: PageServer, listener: socket.socket) -> None:
        self.url = url
        self._runner = runner
        self._server = page_server
        self._listener = listener

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        self._runner.run(self._server.serve([self._listener]))
