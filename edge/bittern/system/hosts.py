"""Names and addresses of hosts: which are this machine's own, and how a URL has them."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine itself can reach what listens on an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def http_url(host: str, port: int) -> str:
    """The URL of a server, an address of IPv6 in brackets, "/" at its end."""
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
