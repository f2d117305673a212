"""Event ids and times as their standards say them."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from bittern.events import Event, EventIds, rfc3339, to_line, uuid7

MS = 1_000_000
# Until the year 9999, which RFC 3339 ends with.
TIMES = st.integers(0, 253_402_300_799 * 10**9)


@given(TIMES)
def test_a_uuid7_has_version_variant_and_milliseconds(now_ns: int) -> None:
    text = uuid7(now_ns)
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == now_ns // MS


@given(TIMES, st.integers(1, 10**12))
def test_ids_sort_by_millisecond(now_ns: int, later_ms: int) -> None:
    assert uuid7(now_ns) < uuid7(now_ns + later_ms * MS)


def test_ids_of_the_same_moment_differ() -> None:
    assert len({uuid7(5) for _ in range(10_000)}) == 10_000
    ids = [uuid.UUID(uuid7(5)).int for _ in range(2000)]
    free = (1 << 80) - 1 & ~(0xF << 76) & ~(0x3 << 62)
    for bit in (b for b in range(80) if free >> b & 1):
        ones = sum(value >> bit & 1 for value in ids)
        assert 800 < ones < 1200, f"bit {bit} is random"


@given(st.lists(st.one_of(st.just(5), TIMES), min_size=2, max_size=30))
def test_ids_of_one_process_sort_in_the_order_in_which_they_were_made(times: list[int]) -> None:
    """Also in one millisecond, and when the clock was set back."""
    make = EventIds()
    ids = [make(now_ns) for now_ns in times]
    assert ids == sorted(set(ids))
    for text in ids:
        assert (uuid.UUID(text).version, uuid.UUID(text).variant) == (7, uuid.RFC_4122)
    assert uuid.UUID(ids[0]).int >> 80 == times[0] // MS
    assert uuid.UUID(ids[-1]).int >> 80 >= max(times) // MS


def test_ids_of_many_threads_are_all_different() -> None:
    make, made = EventIds(), list[list[str]]()
    threads = [threading.Thread(target=lambda: made.append([make(5) for _ in range(2000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(ids == sorted(ids) for ids in made)
    assert len({text for ids in made for text in ids}) == 8000


def test_an_id_without_a_time_is_of_now() -> None:
    assert abs((uuid.UUID(uuid7()).int >> 80) - time.time_ns() // MS) < 10_000


@given(TIMES)
def test_a_time_is_rfc_3339_in_utc_to_the_millisecond(time_ns: int) -> None:
    text = rfc3339(time_ns)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert datetime.fromisoformat(text) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ns // MS)


@given(st.text(), st.text(), st.floats(0, 1), st.integers(0, 2**63 - 1))
def test_an_event_is_one_line(source: str, label: str, score: float, number: int) -> None:
    event = Event(
        id=uuid7(),
        type="alarm.on",
        time=rfc3339(0),
        monotonic_ns=number,
        source=source,
        model="m",
        model_version="1",
        task="t",
        label=label,
        score=score,
        frame=number,
    )
    line = to_line(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    fields = json.loads(line)
    # What an alarm of the centre has not is left out.
    assert list(fields) == list(Event.__struct_fields__[: len(fields)])
    assert (fields["source"], fields["label"], fields["score"], fields["frame"]) == (source, label, score, number)
