"""Serves an application until SIGTERM or SIGINT: the socket, the guard before it, and how slow a peer may be."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from bittern.errors import ConfigurationError
from bittern.page.access import Access
from bittern.page.guard import Guard, is_loopback

# Connections and requests at a time; one more gets 503.
_MOST_CONNECTIONS = 512
# A connection without a request is closed, whether it never had one or had one before.
_IDLE_S = 15
_SHUTDOWN_S = 2


class Address(NamedTuple):
    """Where to listen.

    Attributes:
        host: an address of this machine, or a name for one.
        port: its port; 0 takes a free one.
        names: further host names by which the page may be asked for, such as those of a reverse proxy.
    """

    host: str = "127.0.0.1"
    port: int = 8766
    names: Sequence[str] = ()

    @property
    def is_open(self) -> bool:
        """Whether others than this machine can reach it: directly, or through a proxy that knows it by a name."""
        return not is_loopback(self.host) or bool(self.names)


def listen(address: Address) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigurationError: the address is not of this machine, or its port is taken.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"--host {address.host}: no such address ({error.strerror})") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {address.host} port {address.port} ({error.strerror}): choose another --port"
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """How a browser on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def access_of(address: Address, data: Path) -> Access | None:
    """The check of tokens; None on loopback, where everybody may use the page.

    Raises:
        ConfigurationError: others can reach the address, and there is no token.
    """
    if not address.is_open:
        return None
    try:
        return Access(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"others can reach {address.host}, so a token is needed; {error}") from None


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
                proxy_headers=False,
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
    """A connection that is closed if no request comes, or only half of its head."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self.loop.call_later(_IDLE_S, self._close_without_request)

    def _close_without_request(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()
