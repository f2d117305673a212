"""A process with limits: delivers to a webhook, and does what the lines on its stdin say, one answer each.

send FIRST END SIZE; squeeze FIRST END SIZE BYTES (the same with so much more memory and no more, and half a second
long); files (no new file descriptor from now on); lift; status; close. With a third argument the limit on files holds
before the delivery begins.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

import msgspec

import bittern.delivery.outbox  # noqa: F401  # while it can be opened
from bittern.config.schema import OutboxConfig, WebhookConfig
from bittern.delivery.dispatch import Delivery
from bittern.delivery.sinks.webhook import WebhookSink
from bittern.events import Event, uuid7


def limit_files() -> None:
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + more, resource.RLIM_INFINITY))


def lift() -> None:
    for what in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (hard, hard))


def send(delivery: Delivery, first: int, end: int, size: int) -> int:
    """How many could not even be made: that is the main loop's loss, and not delivery's."""
    unmade = 0
    for n in range(first, end):
        try:
            event = Event(id=uuid7(), type="state", time="", monotonic_ns=n, source="cam", detail="x" * size)
        except MemoryError:
            unmade += 1
        else:
            delivery.send(event)
    return unmade


def main(folder: str, url: str, *limited: str) -> None:
    sink = WebhookSink(WebhookConfig(url=url))
    if limited:
        limit_files()
    delivery = Delivery(OutboxConfig(folder=folder), [sink], "cam")
    for line in sys.stdin:
        what, *words = line.split()
        numbers = [int(word) for word in words]
        answer: object = "ok"
        if what == "send":
            answer = send(delivery, *numbers)
        elif what == "squeeze":
            limit_memory(numbers.pop())
            answer = send(delivery, *numbers)
            time.sleep(0.5)
            lift()
        elif what == "files":
            limit_files()
        elif what == "lift":
            lift()
        elif what == "status":
            answer = {"status": delivery.status(), "failed": delivery.failed}
        elif what == "close":
            delivery.close(2)
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
