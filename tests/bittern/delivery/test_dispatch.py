"""Delivery: threads, back-off, what is counted, and that the main loop never waits."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.doubles.deliveries import Device, event, hook, numbers
from tests.doubles.http_peer import OK, Peer, Request, status
from tests.doubles.waiting import until, within

from bittern.config.schema import CommandConfig, OutboxConfig, WebhookConfig
from bittern.delivery import dispatch as module
from bittern.delivery.dispatch import Delivery
from bittern.delivery.sinks.base import Undelivered
from bittern.delivery.sinks.command import CommandSink
from bittern.delivery.sinks.webhook import WebhookSink
from bittern.events import Event


def test_events_arrive_in_order(start_delivery: Callable[..., Delivery], peer: Peer) -> None:
    delivery = start_delivery(hook(peer))
    for n in range(50):
        delivery.send(event(n))
    until(lambda: len(peer.requests) == 50)
    assert numbers(peer) == list(range(50))
    until(lambda: delivery.status().depth == 0)
    (sink,) = delivery.status().sinks
    assert (sink.name, sink.delivered, sink.failures, sink.last_error, sink.dropped) == ("webhook", 50, 0, None, 0)


def test_without_sinks_there_is_no_thread_and_without_durable_ones_no_file(
    start_delivery: Callable[..., Delivery], tmp_path: Path
) -> None:
    before = threading.active_count()
    delivery = start_delivery()
    delivery.send(event(1))
    assert threading.active_count() == before
    assert delivery.status() == module.DeliveryStatus((), 0, 0, None)
    pin = Device()
    delivery = start_delivery(pin)
    delivery.send(event(2))
    until(lambda: pin.delivered == [2])
    assert threading.active_count() == before + 1
    assert not (tmp_path / "state").exists()


def test_a_slow_sink_does_not_hold_up_another_nor_the_caller(
    start_delivery: Callable[..., Delivery], peer: Peer
) -> None:
    slow = Device("slow", durable=True)
    slow.let.clear()
    delivery = start_delivery(slow, hook(peer))
    for n in range(300):
        delivery.send(event(n))
    until(lambda: len(peer.requests) == 300)
    assert delivery.status().depth == 300
    slow.let.set()
    until(lambda: slow.delivered == list(range(300)))


def test_a_peer_that_is_down_gets_everything_later(
    start_delivery: Callable[..., Delivery], peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = start_delivery(hook(peer))
    peer.down()
    for n in range(20):
        delivery.send(event(n))
    until(lambda: delivery.status().sinks[0].failures >= 4)
    assert delivery.status().depth == 20
    assert "Connection refused" in str(delivery.status().sinks[0].last_error)
    peer.up()
    until(lambda: len(peer.requests) == 20)
    assert numbers(peer) == list(range(20))
    until(lambda: delivery.status().sinks[0].last_error is None)
    messages = [r.message for r in caplog.records if r.message.startswith("webhook: ")]
    assert len(messages) == 2, "once when it goes and once when it comes back"
    assert "not delivered" in messages[0]
    assert "delivering again (200 OK)" in messages[1]


def test_what_was_not_delivered_is_delivered_after_the_next_start(
    start_delivery: Callable[..., Delivery], peer: Peer
) -> None:
    peer.answer = lambda _: status(503)
    delivery = start_delivery(hook(peer))
    for n in range(5):
        delivery.send(event(n))
    until(lambda: delivery.status().sinks[0].failures)
    delivery.close(2)
    ids = {e["id"] for e in peer.events}
    peer.requests.clear()
    peer.answer = lambda _: OK
    delivery = start_delivery(hook(peer))
    until(lambda: len(peer.requests) == 5)
    assert numbers(peer) == list(range(5))
    assert ids == {peer.events[0]["id"]}, "the same id again"


def test_backoff_doubles_to_a_minute_with_jitter() -> None:
    for failures, expected in enumerate((1, 2, 4, 8, 16, 32), 1):
        waits = [module._backoff_s(failures) for _ in range(200)]
        assert expected * 0.8 <= min(waits) < expected * 0.9
        assert expected * 1.1 < max(waits) <= expected * 1.2
    assert max(module._backoff_s(n) for n in range(7, 5000)) == 60
    assert min(module._backoff_s(n) for n in range(7, 5000)) > 50


def test_retry_after_is_kept_to(start_delivery: Callable[..., Delivery], peer: Peer) -> None:
    times: list[float] = []

    def answer(_: object) -> bytes:
        times.append(time.monotonic())
        return status(429, "Slow down", "Retry-After: 1") if len(times) == 1 else OK

    peer.answer = answer
    start_delivery(hook(peer)).send(event(1))
    until(lambda: len(times) == 2)
    assert times[1] - times[0] >= 1.0, "without it, a twentieth of that"


def test_retry_after_has_a_limit(
    start_delivery: Callable[..., Delivery], peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_AFTER_MAX_S", 0.3)
    peer.answer = lambda _: status(503, "No", "Retry-After: 999999") if len(peer.requests) == 1 else OK
    start_delivery(hook(peer)).send(event(1))
    until(lambda: len(peer.requests) == 2)


def test_a_refused_event_is_counted_and_skipped(
    start_delivery: Callable[..., Delivery], peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    peer.answer = lambda request: status(422) if request.event["monotonic_ns"] == 2 else OK
    delivery = start_delivery(hook(peer))
    for n in (1, 2, 3):
        delivery.send(event(n))
    until(lambda: numbers(peer) == [1, 2, 3])
    until(lambda: delivery.status().depth == 0)
    (sink,) = delivery.status().sinks
    assert (sink.delivered, sink.refused, sink.failures) == (2, 1, 1)
    assert "is refused and skipped: " in caplog.text


def test_a_command_that_always_fails_on_one_event_does_not_block(start_delivery: Callable[..., Delivery]) -> None:
    delivery = start_delivery(CommandSink(CommandConfig(run=("sh", "-c", "! grep -q poison"))))
    for n, detail in enumerate(("fine", "poison", "fine")):
        delivery.send(event(n, detail))
    until(lambda: delivery.status().depth == 0)
    (sink,) = delivery.status().sinks
    assert (sink.delivered, sink.refused, sink.failures) == (2, 1, 5)


def test_a_mistake_in_a_sink_is_told_and_blocks_nothing(
    start_delivery: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    broken = Device("broken", durable=True)
    broken.failure = KeyError("oh")
    delivery = start_delivery(broken)
    delivery.send(event(1))
    until(lambda: delivery.status().sinks[0].refused == 1)
    assert broken.tries == module.TRIES_ON_BUG
    assert "a bug in the sink" in caplog.text
    broken.failure = None
    delivery.send(event(2))
    until(lambda: broken.delivered == [2])


def test_no_file_descriptors_is_no_mistake(start_delivery: Callable[..., Delivery]) -> None:
    device = Device("device", durable=True)
    device.failure = OSError(24, "Too many open files")
    delivery = start_delivery(device)
    delivery.send(event(1))
    until(lambda: device.tries > module.TRIES_ON_BUG)
    device.failure = None
    until(lambda: device.delivered == [1])
    assert delivery.status().sinks[0].refused == 0


def test_a_thread_that_dies_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device("device", durable=True)
    delivery = Delivery(OutboxConfig(folder=str(tmp_path)), [device], "cam")
    assert delivery.failed is None

    def broken(_: str) -> None:
        raise ZeroDivisionError("a bug")

    assert delivery._outbox is not None
    monkeypatch.setattr(delivery._outbox, "done", broken)
    delivery.send(event(1))
    until(lambda: delivery.failed)
    assert delivery.failed == "the thread of device died: ZeroDivisionError: a bug"
    delivery.send(event(2))
    delivery.close(2)
    assert device.closed == 1


def test_send_never_raises(start_delivery: Callable[..., Delivery], peer: Peer) -> None:
    delivery = start_delivery(hook(peer))
    delivery.send(event(1, "half a character: \udc80"))
    delivery.send(event(2))
    until(lambda: len(peer.requests) == 2)
    assert sorted((e["type"], e.get("count")) for e in peer.events) == [("dropped", 1), ("state", None)]


def test_drain_waits_for_a_slow_sink(start_delivery: Callable[..., Delivery], caplog: pytest.LogCaptureFixture) -> None:
    delivery = start_delivery(CommandSink(CommandConfig(run=("sleep", "0.8"))))
    with caplog.at_level("INFO"):
        for n in range(4):
            delivery.send(event(n))
        delivery.drain(lambda: False)
    assert delivery.status().sinks[0].delivered == 4
    assert re.search("events still to be delivered: [1-4]; Ctrl-C leaves them for the next start", caplog.text)
    assert "not delivered" not in caplog.text


def test_drain_waits_for_no_sink_that_fails(
    start_delivery: Callable[..., Delivery], peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device("device", durable=True)
    delivery = start_delivery(hook(peer), device)
    peer.down()
    delivery.send(event(1))
    end = time.monotonic() + 20
    delivery.drain(lambda: time.monotonic() > end)
    assert time.monotonic() < end
    assert device.delivered == [1]
    assert [sink.waiting for sink in delivery.status().sinks] == [1, 0]
    assert "webhook: events not delivered: 1; the next start tries again" in caplog.text


def test_drain_goes_on_after_a_refused_event(start_delivery: Callable[..., Delivery], peer: Peer) -> None:
    def answer(request: Request) -> bytes:
        time.sleep(0.2)
        return status(422) if request.event["monotonic_ns"] == 0 else OK

    peer.answer = answer
    delivery = start_delivery(hook(peer))
    for n in range(4):
        delivery.send(event(n))
    end = time.monotonic() + 20
    delivery.drain(lambda: time.monotonic() > end)
    (sink,) = delivery.status().sinks
    assert (sink.waiting, sink.refused, sink.delivered) == (0, 1, 3)


def test_drain_ends_when_it_is_asked(start_delivery: Callable[..., Delivery]) -> None:
    slow = Device("slow", durable=True)
    slow.let.clear()
    delivery = start_delivery(slow)
    delivery.send(event(1))
    answers = iter([False, False, True])
    delivery.drain(lambda: next(answers))
    assert slow.delivered == []
    assert next(answers, None) is None
    slow.let.set()


@pytest.mark.parametrize("way", ["never", "drip", "down", "fine"])
def test_close_is_quick_whatever_the_peer_does(start_delivery: Callable[..., Delivery], peer: Peer, way: str) -> None:
    before = threading.active_count()
    if way == "down":
        peer.down()
    elif way != "fine":
        peer.answer = getattr(peer, way)
    delivery = start_delivery(WebhookSink(WebhookConfig(url=peer.url, timeout_s=60)), Device())
    for n in range(100):
        delivery.send(event(n))
    until(lambda: way == "down" or peer.requests)
    with within():
        delivery.close(1.5)
    peer.close()
    assert threading.active_count() <= before
    delivery.send(event(0))
    delivery.close(1.5)


def test_close_with_a_sink_that_hangs_for_good(tmp_path: Path) -> None:
    stuck = Device("stuck", durable=True)
    stuck.let.clear()
    delivery = Delivery(OutboxConfig(folder=str(tmp_path)), [stuck], "cam")
    delivery.send(event(1))
    until(lambda: stuck.tries)
    with within():
        delivery.close(1.0)
    stuck.let.set()


class Shows(Device):
    """A peer that shows states: it hears of an event at once."""

    def __init__(self) -> None:
        super().__init__(durable=True)
        self.followed: list[int] = []
        self.connections = 0

    def follow(self, event: Event) -> None:
        self.followed.append(event.monotonic_ns)
        if event.monotonic_ns == 1:
            raise MemoryError


def test_a_sink_that_shows_states_hears_of_an_event_at_once(
    start_delivery: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    peer = Shows()
    peer.failure = Undelivered("away")
    delivery = start_delivery(peer)
    for n in range(3):
        delivery.send(event(n))
    assert peer.followed == [0, 1, 2]
    assert "device: its states may be wrong: MemoryError" in caplog.text
    peer.failure = None
    until(lambda: peer.delivered == [0, 1, 2])  # and what it could not follow is not lost


def test_a_connection_that_is_back_ends_the_back_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_backoff_s", lambda failures: 3600.0)
    peer = Shows()
    peer.failure = Undelivered("away")
    delivery = Delivery(OutboxConfig(folder=str(tmp_path)), [peer], "cam")
    delivery.send(event(0))
    until(lambda: peer.tries == 1)
    peer.failure = None
    peer.connections += 1
    until(lambda: peer.delivered == [0])
    delivery.close()
