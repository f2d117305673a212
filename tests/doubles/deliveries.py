"""What tests of the delivery share: numbered events, a sink that does what it is told, a webhook."""

from __future__ import annotations

import threading

from tests.doubles.http_peer import Peer

from bittern.config.schema import WebhookConfig
from bittern.delivery.sinks.base import Sink
from bittern.delivery.sinks.webhook import WebhookSink
from bittern.events import Event, uuid7


def event(number: int, detail: str = "") -> Event:
    return Event(id=uuid7(), type="state", time="", monotonic_ns=number, source="s", state="test", detail=detail)


class Device(Sink):
    """A double of something outside: a pin, or a peer, that does what it is told."""

    def __init__(self, name: str = "device", *, durable: bool = False) -> None:
        self.name, self.durable = name, durable
        self.delivered: list[int] = []
        self.failure: Exception | None = None
        self.let = threading.Event()
        self.let.set()
        self.closed = 0
        self.tries = 0

    def deliver(self, event: Event, body: bytes) -> str:
        self.tries += 1
        self.let.wait(30)
        if self.failure is not None:
            raise self.failure
        self.delivered.append(event.monotonic_ns)
        return "ok"

    def close(self) -> None:
        self.closed += 1


def hook(peer: Peer) -> WebhookSink:
    return WebhookSink(WebhookConfig(url=peer.url, timeout_s=2))


def numbers(peer: Peer) -> list[int]:
    return [e["monotonic_ns"] for e in peer.events]
