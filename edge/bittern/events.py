"""Events: plain data, one line of JSON each."""

from __future__ import annotations

import time
from datetime import date
from functools import lru_cache
from random import Random
from typing import Literal

import msgspec

_ENCODER = msgspec.json.Encoder()
_RANDOM = Random()
_DAY_0 = date(1970, 1, 1).toordinal()


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
    # Unique is enough, nobody has to be unable to guess it: seeded by the system once, not asked for every event.
    random = _RANDOM.getrandbits(80)
    version = 0x7000 | random & 0xFFF
    variant = 0x8000 | random >> 12 & 0x3FFF
    first = f"{milliseconds >> 16 & 0xFFFFFFFF:08x}-{milliseconds & 0xFFFF:04x}"
    return f"{first}-{version:04x}-{variant:04x}-{random >> 26 & 0xFFFFFFFFFFFF:012x}"


def rfc3339(time_ns: int) -> str:
    """A wall-clock time (ns since 1970) as RFC 3339 in UTC with milliseconds."""
    # Not by `datetime`, which took twice as long: this is done for every event.
    day, milliseconds = divmod(time_ns // 1_000_000, 86_400_000)
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{_date(day)}T{minutes // 60:02}:{minutes % 60:02}:{seconds:02}.{milliseconds:03}Z"


@lru_cache(maxsize=2)
def _date(day: int) -> str:
    """The date of a day, counted from 1970-01-01."""
    return date.fromordinal(_DAY_0 + day).isoformat()


def to_line(event: Event) -> bytes:
    """One line of JSON with its line break."""
    return _ENCODER.encode(event) + b"\n"
