"""What tests of the outbox share: numbered events, and how they go in and come out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bittern.delivery.outbox import Outbox
from bittern.delivery.outbox_file import NAME
from bittern.events import Event, to_line, uuid7


def body(number: int, size: int = 0) -> bytes:
    event = Event(id=uuid7(), type="state", time="", monotonic_ns=number, source="s", detail="x" * size)
    return to_line(event)[:-1]


def number(body: bytes) -> int:
    return int(json.loads(body)["monotonic_ns"])


def box_in(folder: Path, *sinks: str, max_events: int = 1000) -> Outbox:
    return Outbox(folder, sinks or ("a",), "cam", max_events)


def put(box: Outbox, *numbers: int) -> None:
    for n in numbers:
        box.put(body(n))
    box.flush()


def take(box: Outbox, sink: str = "a", count: int = 10_000) -> list[Any]:
    """Numbers of events in the order in which a sink gets them; a notice as its event."""
    taken: list[Any] = []
    while len(taken) < count:
        encoded = box.read(sink)
        if encoded is None and box.dirty:
            box.flush()
            encoded = box.read(sink)
        if encoded is None:
            break
        event = msgspec.json.decode(encoded, type=Event)
        taken.append(event.monotonic_ns if event.type != "dropped" else f"dropped {event.count}")
        box.done(sink)
    return taken


def bodies(box: Outbox) -> Iterator[bytes]:
    while (encoded := box.read("a")) is not None:
        yield encoded
        box.done("a")


def take_from_memory(box: Outbox) -> list[Any]:
    events = [msgspec.json.decode(encoded, type=Event) for encoded in bodies(box)]
    return [event.monotonic_ns if event.type != "dropped" else f"dropped {event.count}" for event in events]


def rows(folder: Path) -> list[int]:
    with sqlite3.connect(folder / NAME) as db:
        return [number(encoded) for (encoded,) in db.execute("SELECT body FROM events ORDER BY seq")]
