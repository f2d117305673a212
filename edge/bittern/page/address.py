"""Where a page listens, and whether others can reach it. Imports nothing that serves, so that a daemon stays small."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bittern.errors import ConfigurationError
from bittern.page.access import Access
from bittern.system import hosts

# The kernel closes a connection whose peer takes nothing for so long (TCP_USER_TIMEOUT, tcp(7)), in ms.
_STALL_MS = 10_000


class Address(NamedTuple):
    """Where to listen.

    Attributes:
        host: an address of this machine, or a name for one.
        port: its port; 0 takes a free one.
        names: further host names by which the page may be asked for, such as those of a reverse proxy.
        keys: what the user calls host and port, for messages.
    """

    host: str = "127.0.0.1"
    port: int = 8766
    names: Sequence[str] = ()
    keys: tuple[str, str] = ("--host", "--port")

    @property
    def is_open(self) -> bool:
        """Whether others than this machine can reach it: directly, or through a proxy that knows it by a name."""
        return not hosts.is_loopback(self.host) or bool(self.names)


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
        raise ConfigurationError(f"{address.keys[0]} {address.host}: no such address ({error.strerror})") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALL_MS)
        listener.bind(place)
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {address.host} port {address.port} ({error.strerror}): choose another {address.keys[1]}"
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """How a browser on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    return hosts.http_url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)


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
