"""Delivery of more than can go out: bounds, what is dropped and counted, disks that take nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.deliveries import Device, event, hook, numbers
from tests.doubles.http_peer import OK, Answer, Peer, Request, status
from tests.doubles.waiting import until

from bittern.delivery import dispatch as module
from bittern.delivery.dispatch import Delivery
from bittern.delivery.outbox import MEMORY_EVENTS, Outbox
from bittern.delivery.sinks.base import Undelivered


def test_the_outbox_is_bounded_and_the_drop_is_told(start_delivery: Callable[..., Delivery], peer: Peer) -> None:
    peer.down()
    delivery = start_delivery(hook(peer), max_events=10)
    for n in range(100):
        delivery.send(event(n))
        time.sleep(0.002)
    until(lambda: delivery.status().depth == 10)
    assert delivery.status().dropped == 90
    peer.up()
    until(lambda: len(peer.requests) == 11)
    first, *rest = peer.events
    assert (first["type"], first["count"], first["source"]) == ("dropped", 90, "cam")
    assert [e["monotonic_ns"] for e in rest] == list(range(90, 100))


def test_the_sum_is_right_when_everything_happens_at_once(start_delivery: Callable[..., Delivery], peer: Peer) -> None:
    """A small bound, a burst of events, two peers that now and then say no: each event arrives or is counted."""
    choose = random.Random(15)
    with Peer() as other:
        taken: dict[Peer, list[dict[str, Any]]] = {peer: [], other: []}

        def moody(which: Peer) -> Answer:
            def answer(request: Request) -> bytes:
                if choose.random() < 0.2:
                    return status(500)
                taken[which].append(request.event)
                return OK

            return answer

        sinks = [hook(peer), hook(other)]
        sinks[1].name = "other"
        peer.answer, other.answer = moody(peer), moody(other)
        delivery = start_delivery(*sinks, max_events=5)
        for n in range(600):
            delivery.send(event(n))
            time.sleep(choose.choice((0, 0, 0, 0, 0.02)))
        until(lambda: all(sink.waiting == 0 for sink in delivery.status().sinks), 60)
        until(lambda: all(sum(e.get("count", 1) for e in events) >= 600 for events in taken.values()))
        for sink, events in zip(delivery.status().sinks, taken.values(), strict=True):
            numbers_ = [e["monotonic_ns"] for e in events if e["type"] == "state"]
            dropped = sum(e["count"] for e in events if e["type"] == "dropped")
            assert numbers_ == sorted(set(numbers_))
            assert (len(numbers_), dropped) == (600 - sink.dropped, sink.dropped)
            assert sink.dropped > 0


def test_the_newest_win_where_only_they_matter(start_delivery: Callable[..., Delivery]) -> None:
    pin = Device()
    pin.let.clear()
    delivery = start_delivery(pin)
    for n in range(500):
        delivery.send(event(n))
        if n == 0:
            until(lambda: pin.tries == 1)
    assert delivery.status().sinks[0].waiting == module.BEST_EFFORT_EVENTS
    assert delivery.status().dropped == 499 - module.BEST_EFFORT_EVENTS
    pin.let.set()
    until(lambda: pin.delivered == [0, *range(500 - module.BEST_EFFORT_EVENTS, 500)])
    pin.failure = Undelivered("the pin fell off")
    delivery.send(event(500))
    until(lambda: delivery.status().sinks[0].last_error == "the pin fell off")
    pin.failure = None
    delivery.send(event(501))
    until(lambda: pin.delivered[-1] == 501)
    assert pin.tries == len(pin.delivered) + 1, "one attempt each"


def test_a_disk_that_takes_nothing_holds_nothing_up(
    start_delivery: Callable[..., Delivery], peer: Peer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    delivery = start_delivery(hook(peer), folder=tmp_path / "file")
    for n in range(20):
        delivery.send(event(n))
    until(lambda: len(peer.requests) == 20)
    assert numbers(peer) == list(range(20))
    assert delivery.status().disk_error is not None
    (tmp_path / "file").unlink()
    until(lambda: delivery.status().disk_error is None)
    delivery.send(event(20))
    until(lambda: len(peer.requests) == 21)
    assert numbers(peer) == list(range(21))
    until(lambda: "takes events again" in caplog.text)
    messages = [r.message for r in caplog.records if r.message.startswith("outbox: ")]
    assert len(messages) == 2
    assert "takes no events" in messages[0]
    assert "takes events again" in messages[1]


@pytest.mark.parametrize("delivered", [True, False])
def test_what_a_sink_has_got_is_not_lost_with_the_disk(
    start_delivery: Callable[..., Delivery],
    peer: Peer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    delivered: bool,
) -> None:
    (tmp_path / "file").write_text("")
    if not delivered:
        peer.down()
    delivery = start_delivery(hook(peer), folder=tmp_path / "file")
    for n in range(3):
        delivery.send(event(n))
    until(lambda: delivery.status().sinks[0].waiting == (0 if delivered else 3))
    until(lambda: delivery.status().disk_error is not None)
    delivery.close(2)
    assert ("events lost: 3" in caplog.text) is not delivered
    assert ("lost" in caplog.text) is not delivered


def test_memory_is_bounded(start_delivery: Callable[..., Delivery], peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    peer.down()
    delivery = start_delivery(hook(peer), folder=tmp_path / "file")
    for n in range(MEMORY_EVENTS + 500):
        delivery.send(event(n))
    assert delivery.status().depth == MEMORY_EVENTS
    assert delivery.status().dropped == 500


def test_many_events_share_a_commit(start_delivery: Callable[..., Delivery], monkeypatch: pytest.MonkeyPatch) -> None:
    commits = []
    write = Outbox._write

    def counted(outbox: Outbox) -> None:
        commits.append(outbox)
        write(outbox)

    monkeypatch.setattr(Outbox, "_write", counted)
    device = Device("device", durable=True)
    delivery = start_delivery(device, max_events=100_000)
    for n in range(5000):
        delivery.send(event(n))
    until(lambda: len(device.delivered) == 5000, 120)
    assert device.delivered == list(range(5000))
    assert len(commits) < 1000
