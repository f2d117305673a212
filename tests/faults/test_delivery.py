"""Faults 11, 12, 13 and 15: what peers, limits and a full outbox do to delivery, over real HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.camera_process import descriptors
from tests.doubles.deliveries import event
from tests.doubles.http_peer import OK, Answer, Peer, Request, status
from tests.doubles.repetitions import times
from tests.doubles.waiting import until

from bittern.config.schema import OutboxConfig, WebhookConfig
from bittern.delivery.dispatch import Delivery
from bittern.delivery.sinks.webhook import WebhookSink

Record = Callable[..., None]
PROCESS = Path(__file__).with_name("delivery_process.py")
HOUR = times(360, 120)  # events: an alarm that goes on or off every ten seconds


def deliver_to(peer: Peer, folder: Path, timeout_s: float = 5.0, max_events: int = 100_000) -> Delivery:
    sink = WebhookSink(WebhookConfig(url=peer.url, timeout_s=timeout_s))
    return Delivery(OutboxConfig(folder=str(folder), max_events=max_events), [sink], "cam")


def first_deliveries(peer: Peer) -> list[int]:
    """Numbers of the events in the order in which they came, each once; the same id must mean the same event."""
    bodies: dict[str, bytes] = {}
    for request in peer.requests:
        key = request.headers["idempotency-key"]
        assert bodies.setdefault(key, request.body) == request.body
        assert request.event["id"] == key
    return [json.loads(body)["monotonic_ns"] for body in bodies.values()]


def test_webhook_down_and_back(tmp_path: Path, peer: Peer, record: Record) -> None:
    """Fault 12: gone for an hour's worth of events; and when it is back, an answer is lost on the way."""
    n = times(10, 1)
    back_s = []
    since_up = 0

    def answer(_: Request) -> bytes:
        nonlocal since_up
        since_up += 1
        return b"" if since_up == 3 else OK

    peer.answer = answer
    delivery = deliver_to(peer, tmp_path)
    for run in range(n):
        peer.down()
        failures = delivery.status().sinks[0].failures
        for number in range(HOUR):
            delivery.send(event(run * HOUR + number))
        until(lambda failures=failures: delivery.status().sinks[0].failures > failures)  # type: ignore[misc]
        assert delivery.status().depth == HOUR
        since_up = 0
        peer.up()
        start = time.monotonic()
        until(lambda: delivery.status().depth < HOUR)
        back_s.append(time.monotonic() - start)
        until(lambda: delivery.status().depth == 0, 120)
    delivery.close()
    sent = n * HOUR
    assert first_deliveries(peer) == list(range(sent))
    assert delivery.status().dropped == 0
    repeated = len(peer.requests) - sent
    assert repeated == n
    record(
        12, "webhook down, then back", n,
        f"{sent} events, {sent} delivered in order, {repeated} twice with the same id; "
        f"{max(back_s):.1f} s at most until the first",
        "all events delivered, in order, at least once; duplicates carry the same id",
    )  # fmt: skip


def ways(peer: Peer) -> dict[str, Answer]:
    return {
        "never answers": peer.never,
        "drips a header": peer.drip,
        "500": lambda _: status(500, "Internal Server Error"),
        "429 + Retry-After": lambda _: status(429, "Too Many Requests", "Retry-After: 2"),
        "301": lambda _: status(301, "Moved Permanently", f"Location: {peer.url}/elsewhere"),
        "half a response": peer.half,
    }


def test_hostile_peers(tmp_path: Path, record: Record) -> None:
    """Fault 13: all of them at the same time, each twice for every one of some events."""
    n, bad = times(10, 1), 2
    before, files = threading.active_count(), descriptors()
    with ExitStack() as opened:
        names = list(ways(opened.enter_context(Peer())))
        peers = {name: opened.enter_context(Peer()) for name in names}
        moments: dict[str, list[float]] = {name: [] for name in names}

        def hostile(name: str, way: Answer) -> Answer:
            def answer(request: Request) -> Any:
                moments[name].append(time.monotonic())
                return OK if len(moments[name]) % (bad + 1) == 0 else way(request)

            return answer

        for name, peer in peers.items():
            peer.answer = hostile(name, ways(peer)[name])
        deliveries = {name: deliver_to(peer, tmp_path / str(i), 0.5) for i, (name, peer) in enumerate(peers.items())}
        at_most = threading.active_count()
        for delivery in deliveries.values():
            for number in range(n):
                delivery.send(event(number))
        until(lambda: all(d.status().depth == 0 for d in deliveries.values()), 120)
        for name, delivery in deliveries.items():
            (sink,) = delivery.status().sinks
            assert (sink.delivered, sink.failures, sink.refused) == (n, bad * n, 0), name
            assert first_deliveries(peers[name]) == list(range(n))
            assert all("/elsewhere" not in request.line for request in peers[name].requests)
            attempts = [moments[name][i : i + bad + 1] for i in range(0, len(moments[name]), bad + 1)]
            for first, second, third in attempts:
                assert second - first >= (2.0 if "429" in name else 0.8), name
                assert third - second >= (2.0 if "429" in name else 1.6), name
                assert third - first < 0.5 * 2 + 2.4 * 2 + 2, name
        for delivery in deliveries.values():
            delivery.close()
        assert at_most >= before + 2 * len(names)
    until(lambda: threading.active_count() <= before, 5)
    until(lambda: descriptors() <= files, 5)
    mark = "time-outs everywhere; back-off; redirects refused; no thread leak"
    for name in names:
        record(13, name, n, f"{n} events delivered after {bad * n} failures, 0 threads and files left", mark)


def test_the_outbox_reaches_its_bound(tmp_path: Path, peer: Peer, record: Record) -> None:
    """Fault 15."""
    n, bound, sent = times(3, 1), 50, 500
    for run in range(n):
        fill(deliver_to(peer, tmp_path / str(run), max_events=bound), peer, bound, sent)
    figure = f"{sent} sent, {bound} delivered, 1 `dropped` event that counts {sent - bound}"
    record(15, f"bound of {bound} events", n, figure, "oldest dropped, counted, one `dropped` event with the number")


def fill(delivery: Delivery, peer: Peer, bound: int, sent: int) -> None:
    peer.requests.clear()
    peer.down()
    for number in range(sent):
        delivery.send(event(number))
        time.sleep(0.001)
    until(lambda: delivery.status().depth == bound)
    until(lambda: delivery.status().sinks[0].failures >= 2)
    peer.up()
    until(lambda: delivery.status().depth == 0)
    delivery.close()
    first, *rest = peer.events
    assert (first["type"], first["count"]) == ("dropped", sent - bound)
    assert [e["monotonic_ns"] for e in rest] == list(range(sent - bound, sent))


class Limited:
    """The process of `delivery_process.py`."""

    def __init__(self, folder: Path, url: str, *limited: str) -> None:
        self.log = folder.with_suffix(".log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROCESS), str(folder), url, *limited],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip

    def do(self, line: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, self.log.read_text()
        return json.loads(answer)

    def sink(self) -> Any:
        answer = self.do("status")
        assert answer["failed"] is None
        return answer["status"]["sinks"][0]

    def __enter__(self) -> Limited:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> str:
        self.do("close")
        self.process.communicate(timeout=10)
        assert self.process.returncode == 0
        return self.log.read_text()


def nothing_waits(limited: Limited) -> bool:
    return bool(limited.sink()["waiting"] == 0)


def has_failed(limited: Limited) -> bool:
    return bool(limited.sink()["failures"] > 0)


@pytest.mark.parametrize("at_start", [False, True], ids=["running", "at the start"])
def test_out_of_file_descriptors(tmp_path: Path, peer: Peer, record: Record, at_start: bool) -> None:
    """Fault 11: no new file descriptor for anybody in the process, for a while."""
    n = times(5, 1)
    for run in range(n):
        peer.requests.clear()
        with Limited(tmp_path / str(run), peer.url, *(["limited"] if at_start else [])) as limited:
            if not at_start:
                limited.do("send 0 10 10")
                until(lambda: len(peer.requests) == 10)
                until(partial(nothing_waits, limited))  # its socket is closed
                limited.do("files")
            limited.do("send 10 60 10")
            until(partial(has_failed, limited))
            assert len(peer.requests) == (0 if at_start else 10)
            limited.do("lift")
            until(partial(nothing_waits, limited))
            assert first_deliveries(peer) == list(range(10 if at_start else 0, 60))
            errors = limited.end()
            assert errors.count("Too many open files") <= 2, "once for the disk, once for the peer"
            assert "Traceback" not in errors
    what = f"out of file descriptors, {'at the start' if at_start else 'running'}"
    mark = "goes on classifying; says so once; recovers when it ends"
    record(11, what, n, "all events delivered after it, in order; said once", mark)


def test_out_of_memory(tmp_path: Path, peer: Peer, record: Record) -> None:
    """Fault 11: the process may take some hundred kilobytes more, and events come that need megabytes."""
    n = times(5, 1)
    lost = 0
    for run in range(n):
        peer.requests.clear()
        with Limited(tmp_path / str(run), peer.url) as limited:
            limited.do("send 0 10 10")
            until(lambda: len(peer.requests) == 10)
            peer.down()
            unmade = limited.do("squeeze 10 2010 5000 300000")
            peer.up()
            limited.do("send 2010 2020 10")
            until(partial(nothing_waits, limited))
            received = [n for n in first_deliveries(peer) if n < 10_000]
            dropped = sum(e["count"] for e in peer.events if e["type"] == "dropped")
            assert received == sorted(received)
            assert received[-10:] == list(range(2010, 2020))
            assert len(received) + dropped + unmade == 2020
            assert dropped > 0
            lost += dropped + unmade
            errors = limited.log.read_text()
            assert errors.count("is lost") <= 5, "not once for each"
            limited.end()
    figure = f"{2020 * n} events: {2020 * n - lost} delivered, {lost} counted; process and threads live"
    record(11, "out of memory", n, figure, "goes on classifying; says so once; recovers when it ends")
