"""Which addresses only this machine can reach."""

from __future__ import annotations

import pytest

from bittern.system.hosts import http_url, is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.0.2.1", "bittern.example.org"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_a_url_has_ipv6_in_brackets() -> None:
    assert http_url("::1", 80) == "http://[::1]:80/"
    assert http_url("192.0.2.1", 8766) == "http://192.0.2.1:8766/"
