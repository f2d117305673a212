"""Events: plain data, one line of JSON each."""

from __future__ import annotations

import threading
import time
from datetime import date
from functools import lru_cache
from random import Random
from typing import Literal, NamedTuple

import msgspec

# A regular expression: a UUID as `new_id` makes them, in lower case.
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

_ENCODER = msgspec.json.Encoder()
_RANDOM = Random()
_RANDOM_BITS = 74
_DAY_0 = date(1970, 1, 1).toordinal()


class AlarmKey(NamedTuple):
    """Names an alarm among all alarms of a daemon: no two events of different alarms have the same three values.

    Attributes:
        model: name of the model.
        task: of its head.
        label: the alarm label.
    """

    model: str
    task: str
    label: str


class State(NamedTuple):
    """A state of the camera or the daemon that begins.

    Attributes:
        name: such as "camera_stalled", "camera_ok", "blind", "models_loaded".
        detail: further information, for people; may be empty.
    """

    name: str
    detail: str


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An alarm that changed, a state that began, or a notice of dropped events.

    Attributes:
        id: UUIDv7, so that events sort by time, those of one process in their order, and a repeated delivery can be
            recognised.
        type: "alarm.on", "alarm.off", "state" (of the camera or the daemon), or "dropped" (events that will never be
            delivered).
        time: RFC 3339, UTC, when the frame was taken, by the wall clock.
        monotonic_ns: the same moment on the source's monotonic clock, for intervals: the machine's, or a recording's
            own. The outbox's own events (`dropped`, and the state `outbox_damaged`) always have the machine's.
        source: name of the source.
        model: name of the model; only alarms have this and the next seven.
        model_version: its version.
        task: of the model's head.
        label: the alarm label.
        score: of that label, 0 to 1.
        frame: number of the frame.
        view: "left", "right" or "moving" where it was not the centre that scored highest.
        square: of the view "moving": left, top and side, in pixels of the frame.
        snapshot: name of the snapshot's file.
        state: of a "state" event, such as "camera_stalled", "camera_ok", "blind", "seeing".
        detail: further information, for people.
        count: of a "dropped" event, how many were dropped.
        clock_jump_s: seconds by which the wall clock jumped since the last event: earlier times are off by as much.
    """

    id: str
    type: Literal["alarm.on", "alarm.off", "state", "dropped"]
    time: str
    monotonic_ns: int
    source: str
    model: str | None = None
    model_version: str | None = None
    task: str | None = None
    label: str | None = None
    score: float | None = None
    frame: int | None = None
    view: str | None = None
    square: tuple[int, int, int] | None = None
    snapshot: str | None = None
    state: str | None = None
    detail: str | None = None
    count: int | None = None
    clock_jump_s: float | None = None

    @property
    def alarm(self) -> AlarmKey | None:
        """The alarm that went on or off; None for other events."""
        if self.model is None or self.task is None or self.label is None:
            return None
        return AlarmKey(self.model, self.task, self.label)


def uuid7(now_ns: int | None = None, source: Random = _RANDOM) -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): 48 bits of milliseconds since 1970, then bits of a random source."""
    # It has to be unique, not unpredictable: a generator that was seeded once is enough.
    return _uuid7(_milliseconds(now_ns) << _RANDOM_BITS | source.getrandbits(_RANDOM_BITS))


def uuid7_time_ms(text: str) -> int:
    """The time of a UUID of version 7, its first 48 bits: ms since 1970."""
    return int(text[:8] + text[9:13], 16)


class EventIds:
    """UUIDs of version 7 in the order in which they are made, also in one millisecond, or when the clock is set back.

    Monotonic random (RFC 9562, section 6.2, method 2): one that would not be greater than the last is the last one plus
    a random number. Any thread may make one.
    """

    def __init__(self, source: Random = _RANDOM) -> None:
        self._source = source
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self, now_ns: int | None = None) -> str:
        """The next id, of a time in ns since 1970; None is now."""
        value = _milliseconds(now_ns) << _RANDOM_BITS | self._source.getrandbits(_RANDOM_BITS)
        with self._lock:
            if value <= self._last:
                value = self._last + 1 + self._source.getrandbits(32)
            self._last = value
        return _uuid7(value)


def _milliseconds(now_ns: int | None) -> int:
    return (time.time_ns() if now_ns is None else now_ns) // 1_000_000


def _uuid7(value: int) -> str:
    """Of 48 bits of milliseconds and `_RANDOM_BITS` others, with version and variant in between."""
    milliseconds, first, second = value >> 74, value >> 62 & 0xFFF, value & (1 << 62) - 1
    head = f"{milliseconds >> 16 & 0xFFFFFFFF:08x}-{milliseconds & 0xFFFF:04x}-{0x7000 | first:04x}"
    return f"{head}-{0x8000 | second >> 48:04x}-{second & 0xFFFFFFFFFFFF:012x}"


# The ids of this process.
new_id = EventIds()


def rfc3339(time_ns: int) -> str:
    """A wall-clock time (ns since 1970) as RFC 3339 in UTC with milliseconds."""
    # Not with `datetime`, which takes twice as long: this is done for every event.
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
    # Not `encode`, which crashes (SIGSEGV, msgspec 0.22) if there is no memory; this raises MemoryError.
    line = bytearray(512)
    _ENCODER.encode_into(event, line)
    line += b"\n"
    return bytes(line)
