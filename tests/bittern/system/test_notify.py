"""What the daemon says to systemd, over real datagram sockets."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.doubles.waiting import within

from bittern.system.notify import Watchdog, notify


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
    with within():
        delivered = [notify(WATCHDOG=1) for _ in range(10_000)]
    assert delivered[0]
    assert not delivered[-1]  # the queue of the socket is full
    listener.recv(4096)
    assert notify(WATCHDOG=1)


# --- Watchdog ---------------------------------------------------------------------------------------------------------


class Clock:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def received(listener: socket.socket) -> list[dict[str, str]]:
    """Every datagram that has come, as its assignments."""
    listener.setblocking(False)
    messages = []
    with contextlib.suppress(BlockingIOError):
        while True:
            lines = listener.recv(65536).decode().splitlines()
            messages.append(dict(line.split("=", 1) for line in lines))
    return messages


def systemd(usec: int, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": os.environ["NOTIFY_SOCKET"], "WATCHDOG_USEC": str(usec), **more}


def test_ready_with_the_first_frame_and_then_often_enough(listener: socket.socket) -> None:
    clock = Clock()
    watchdog = Watchdog(systemd(30_000_000), clock)
    assert not watchdog.ready
    calls = 0

    def status() -> str:
        nonlocal calls
        calls += 1
        return "25 fps"

    sent: list[tuple[float, dict[str, str]]] = []
    for _ in range(3000):  # two minutes at 25 frames a second
        clock.now += 0.04
        watchdog.frame(status)
        sent += [(clock.now, message) for message in received(listener)]
    assert sent[0][1] == {"READY": "1", "WATCHDOG": "1", "STATUS": "25 fps"}
    assert watchdog.ready
    assert all(message == {"WATCHDOG": "1", "STATUS": "25 fps"} for _, message in sent[1:])
    gaps = [b - a for (a, _), (b, _) in itertools.pairwise(sent)]
    assert max(gaps) <= 15, "systemd asks for half of its time"
    assert min(gaps) >= 7, "not for every frame"
    assert calls == len(sent) == 16


def test_no_progress_no_keep_alive(listener: socket.socket) -> None:
    clock = Clock()
    watchdog = Watchdog(systemd(30_000_000), clock)
    watchdog.frame(lambda: "")
    assert len(received(listener)) == 1
    clock.now += 1000
    assert received(listener) == []


@pytest.mark.parametrize("period_s", [0.01, 1.0, 5.0, 10.0])
def test_frames_of_any_rate_keep_it_alive(period_s: float, listener: socket.socket) -> None:
    clock = Clock()
    watchdog = Watchdog(systemd(30_000_000), clock)
    last = clock.now
    for _ in range(round(100 / period_s)):
        clock.now += period_s
        watchdog.frame(lambda: "")
        if received(listener):
            assert clock.now - last < 30 * 2 / 3
            last = clock.now
    assert clock.now - last < 30 * 2 / 3


def test_an_outage_that_is_seen_to_is_progress(listener: socket.socket) -> None:
    clock = Clock()
    watchdog = Watchdog(systemd(30_000_000), clock)
    for _ in range(100):
        clock.now += 1
        watchdog.outage("no camera: next try in 4 s")
    first, *further = received(listener)
    assert first == {"READY": "1", "WATCHDOG": "1", "STATUS": "no camera: next try in 4 s"}
    assert watchdog.ready, "nobody waits for a camera"
    assert all(message == {"WATCHDOG": "1", "STATUS": "no camera: next try in 4 s"} for message in further)
    assert 10 <= len(further) <= 20
    clock.now += 0.1
    watchdog.frame(lambda: "5 fps")
    assert received(listener) == [{"WATCHDOG": "1", "STATUS": "5 fps"}], "the first frame is told at once"
    clock.now += 0.1
    watchdog.outage("camera_stalled")
    watchdog.outage("camera_stalled")
    assert received(listener) == [{"WATCHDOG": "1", "STATUS": "camera_stalled"}]
    watchdog.outage("camera_ok")
    assert received(listener) == [{"WATCHDOG": "1", "STATUS": "camera_ok"}]


def test_a_reload_is_begun_and_ended(listener: socket.socket) -> None:
    watchdog = Watchdog(systemd(30_000_000))
    watchdog.frame(lambda: "")
    received(listener)
    before = time.monotonic_ns() // 1000
    watchdog.reloading()
    watchdog.reloaded("stop_sign 2")
    watchdog.stopping()
    begin, end, stop = received(listener)
    assert begin["RELOADING"] == "1"
    assert before <= int(begin["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert end == {"READY": "1", "STATUS": "stop_sign 2"}
    assert stop == {"STOPPING": "1"}


def test_a_reload_before_the_first_frame_is_not_ready(listener: socket.socket) -> None:
    watchdog = Watchdog(systemd(30_000_000))
    watchdog.reloading()
    watchdog.reloaded("waits for a camera")
    assert received(listener)[1] == {"STATUS": "waits for a camera"}


@pytest.mark.parametrize("usec", ["", "0", "-1", "x", "\N{SUPERSCRIPT TWO}"])
def test_without_a_watchdog_the_status_is_renewed(usec: str, listener: socket.socket) -> None:
    clock = Clock()
    watchdog = Watchdog(systemd(0, WATCHDOG_USEC=usec), clock)
    for _ in range(1000):
        clock.now += 0.1
        watchdog.frame(lambda: "5 fps")
    assert 9 <= len(received(listener)) <= 11


def test_another_process_is_watched(listener: socket.socket) -> None:
    clock = Clock()
    watchdog = Watchdog(systemd(1_000_000, WATCHDOG_PID="1"), clock)
    for _ in range(100):
        clock.now += 0.1
        watchdog.frame(lambda: "")
    assert len(received(listener)) <= 2


def test_nobody_listens() -> None:
    def never() -> str:
        raise AssertionError("a status that nobody reads")

    watchdog = Watchdog({})
    watchdog.frame(never)
    watchdog.outage("")
    watchdog.reloading()
    watchdog.reloaded("")
    watchdog.stopping()


def test_a_frame_costs_next_to_nothing(listener: socket.socket) -> None:
    """No datagram, and nobody is asked for a status."""

    def never() -> str:
        raise AssertionError("a status that goes nowhere")

    watchdog = Watchdog(systemd(30_000_000), Clock())
    watchdog.frame(lambda: "")
    assert len(received(listener)) == 1
    for _ in range(1000):
        watchdog.frame(never)
    assert received(listener) == []
