"""The way of an event out of the loop: order, snapshots before their events, marks after a jump of the clock."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.delivery import outlet as outlet_module
from bittern.delivery.outlet import JUMP_S, Clock, Outlet
from bittern.delivery.snapshots import SnapshotStore
from bittern.events import Event, State, rfc3339, uuid7
from bittern.frames import Frame

S = 1_000_000_000


def event(kind: str = "alarm.on") -> Event:
    now = time.time_ns()
    return Event(id=uuid7(now), type=kind, time=rfc3339(now), monotonic_ns=1, source="door", label="stop")  # type: ignore[arg-type]


def frame(level: int) -> Frame:
    return Frame(np.full((24, 32, 3), (level, 0, 0), np.uint8), "RGB", 1, 1, 1, "door")


def test_without_snapshots_an_event_is_out_at_once_and_in_order() -> None:
    first: list[Event] = []
    second: list[Event] = []
    outlet = Outlet([first.append, second.append], "door")
    sent = [event(), event("alarm.off")]
    for e in sent:
        outlet.take(e)
        assert first[-1] is second[-1] is e
    outlet.close()
    assert first == sent


def test_the_picture_is_there_before_its_event_is_out(tmp_path: Path) -> None:
    taken: list[tuple[Event, int]] = []

    def take(e: Event) -> None:
        picture = cv2.imread(str(tmp_path / "ring" / e.snapshot)) if e.snapshot else None
        taken.append((e, -1 if picture is None else int(picture[..., 2].mean())))

    outlet = Outlet([take], "door", SnapshotStore(tmp_path / "ring", 1.0, 95))
    pixels = frame(0)
    for level in (100, 200):
        pixels.pixels[..., 0] = level
        outlet.take(event(), pixels)
        outlet.take(event("alarm.off"), pixels)
        pixels.pixels[:] = 0  # the source takes its memory back
    outlet.take(event())
    outlet.state(State("blind", ""))
    outlet.close()
    assert [e.type for e, _ in taken] == ["alarm.on", "alarm.off"] * 2 + ["alarm.on", "state"]
    assert [e.snapshot is not None for e, _ in taken] == [True, False, True, False, False, False]
    assert [level for _, level in taken] == pytest.approx([100, -1, 200, -1, -1, -1], abs=3)


def test_a_picture_that_cannot_be_written_does_not_hold_up_its_event(tmp_path: Path) -> None:
    (tmp_path / "ring").write_bytes(b"a file where the folder should be")
    events: list[Event] = []
    outlet = Outlet([events.append], "door", SnapshotStore(tmp_path / "ring", 1.0, 95))
    outlet.take(event(), frame(9))
    outlet.close()
    assert [e.snapshot for e in events] == [None]


class Slow:
    """Takes one event each time that it is let."""

    def __init__(self) -> None:
        self.taken: list[Event] = []
        self._lets = threading.Semaphore(0)

    def take(self, event: Event) -> None:
        self._lets.acquire()
        self.taken.append(event)

    def let(self, times: int = 1) -> None:
        self._lets.release(times)


def test_drain_waits_for_who_takes_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as one event after the other is taken, however long all of them take."""
    monkeypatch.setattr(outlet_module, "_DRAIN_S", 1.0)
    slow = Slow()
    outlet = Outlet([slow.take], "door", SnapshotStore(tmp_path / "ring", 1.0, 95))
    sent = [event("alarm.off") for _ in range(30)]
    for e in sent:
        outlet.take(e)

    def ended() -> bool:
        """Asked every 0.05 s, which is 1.5 s in all."""
        slow.let()
        return False

    outlet.drain(ended)
    outlet.close()
    assert slow.taken == sent
    assert outlet.failed is None


def test_drain_ends_when_it_is_asked(tmp_path: Path) -> None:
    slow = Slow()
    outlet = Outlet([slow.take], "door", SnapshotStore(tmp_path / "ring", 1.0, 95))
    sent = [event("alarm.off") for _ in range(6)]
    for e in sent:
        outlet.take(e)
    slow.let(2)
    outlet.drain(lambda: len(slow.taken) == 2)
    assert slow.taken == sent[:2]
    slow.let(4)
    outlet.close()


def test_a_state_says_what_and_where() -> None:
    events: list[Event] = []
    earliest = time.monotonic_ns()
    Outlet([events.append], "door").state(State("camera_ok", "frames of 640x480"))
    (e,) = events
    assert (e.type, e.source, e.state, e.detail, e.label) == ("state", "door", "camera_ok", "frames of 640x480", None)
    assert earliest <= e.monotonic_ns <= time.monotonic_ns()


@given(st.lists(st.tuples(st.integers(0, 5 * S), st.integers(-(10**6) * S, 10**6 * S)), max_size=30))
def test_what_the_wall_clock_moved_against_the_monotonic_one_is_marked_once(steps: list[tuple[int, int]]) -> None:
    wall, mono = 1_700_000_000 * S, 5 * S
    clock = Clock(lambda: wall, lambda: mono)
    for elapsed, moved in steps:
        mono += elapsed
        wall += elapsed + moved
        marked = clock.mark(event()).clock_jump_s
        if abs(moved) >= JUMP_S * S:
            assert marked is not None
            assert abs(marked - moved / S) < 0.001
        else:
            assert marked is None
        assert clock.mark(event()).clock_jump_s is None


def test_slow_corrections_are_no_jump_but_jumps_add_up() -> None:
    wall = 1_700_000_000 * S
    clock = Clock(lambda: wall, lambda: 0)
    for _ in range(1000):
        wall += S // 100
        clock.look()
    assert clock.mark(event()).clock_jump_s is None
    for _ in range(2):
        wall -= 3600 * S
        clock.look()
    assert clock.mark(event()).clock_jump_s == -7200
