"""What the daemon says to systemd, over real datagram sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bittern.notify import notify


@pytest.fixture(params=["path", "abstract"])
def listener(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@bittern-test-{id(request)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0"))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield sock


def test_every_state_is_an_assignment_in_one_datagram(listener: socket.socket) -> None:
    assert notify(READY=1, STATUS="watching demo:, 5 fps")
    assert listener.recv(4096) == b"READY=1\nSTATUS=watching demo:, 5 fps"
    assert notify(WATCHDOG=1)
    assert listener.recv(4096) == b"WATCHDOG=1"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(max_size=200))
def test_no_text_can_begin_another_assignment(listener: socket.socket, text: str) -> None:
    assert notify(STATUS=text)
    message = listener.recv(65536)
    assert message.startswith(b"STATUS=")
    assert b"\n" not in message


def test_without_a_socket_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify(READY=1)


@pytest.mark.parametrize("address", ["", "@", "relative", "vsock:2:1", "/nowhere/at/all", "@nobody", "/" + "x" * 200])
def test_a_socket_that_cannot_be_reached_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify(WATCHDOG=1)


def test_a_listener_that_does_not_read_never_holds_the_daemon_up(listener: socket.socket) -> None:
    begun = time.monotonic()
    delivered = [notify(WATCHDOG=1) for _ in range(10_000)]
    assert time.monotonic() - begun < 5
    assert delivered[0]
    assert not delivered[-1]  # the queue of the socket is full
    listener.recv(4096)
    assert notify(WATCHDOG=1)
