"""Events: plain data, one line of JSON each."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Literal

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that the decision raised.

    Attributes:
        id: UUIDv7, so that events sort by time and a repeated delivery can be told.
        type: "alarm.on" or "alarm.off".
        time: RFC 3339, UTC, when the frame was taken, by the wall clock.
        monotonic_ns: the same moment on the source's monotonic clock, for intervals.
        source: name of the source.
        model: name of the model.
        model_version: its version.
        task: what was asked.
        label: the alarm label.
        score: of that label, 0 to 1.
        frame: number of the frame.
    """

    id: str
    type: Literal["alarm.on", "alarm.off"]
    time: str
    monotonic_ns: int
    source: str
    model: str
    model_version: str
    task: str
    label: str
    score: float
    frame: int


def uuid7(now_ns: int | None = None) -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): 48 bits of milliseconds since 1970, then random bits."""
    milliseconds = (time.time_ns() if now_ns is None else now_ns) // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def rfc3339(time_ns: int) -> str:
    """A wall-clock time (ns since 1970) as RFC 3339 in UTC with milliseconds."""
    seconds, milliseconds = divmod(time_ns // 1_000_000, 1000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_line(event: Event) -> bytes:
    """One line of JSON with its line break."""
    return msgspec.json.encode(event) + b"\n"
