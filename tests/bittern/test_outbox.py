"""The outbox, on real files: what is in it, for whom, and what becomes of it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bittern import outbox as module
from bittern.config import OutboxConfig
from bittern.errors import ConfigurationError
from bittern.events import Event, to_line, uuid7
from bittern.outbox import Outbox, OutboxError, folder
from bittern.outbox_file import KEPT, NAME, count_waiting


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
    got: list[Any] = []
    while len(got) < count:
        found = box.read(sink)
        if found is None and box.dirty:
            box.flush()
            found = box.read(sink)
        if found is None:
            break
        event = msgspec.json.decode(found, type=Event)
        got.append(event.monotonic_ns if event.type != "dropped" else f"dropped {event.count}")
        box.done(sink)
    return got


def bodies(box: Outbox) -> Iterator[bytes]:
    while (found := box.read("a")) is not None:
        yield found
        box.done("a")


def take_from_memory(box: Outbox) -> list[Any]:
    events = [msgspec.json.decode(found, type=Event) for found in bodies(box)]
    return [event.monotonic_ns if event.type != "dropped" else f"dropped {event.count}" for event in events]


def rows(folder: Path) -> list[int]:
    with sqlite3.connect(folder / NAME) as db:
        return [number(found) for (found,) in db.execute("SELECT body FROM events ORDER BY seq")]


def test_events_come_in_order_and_are_deleted_when_every_sink_has_them(tmp_path: Path) -> None:
    box = box_in(tmp_path, "a", "b")
    put(box, 1, 2, 3)
    assert take(box, "a") == [1, 2, 3]
    assert take(box, "b", 2) == [1, 2]
    box.flush()
    assert rows(tmp_path) == [3]
    assert box.status() == {"a": (0, 0), "b": (1, 0)}
    assert take(box, "b") == [3]
    box.flush()
    assert rows(tmp_path) == []
    assert not box.dirty
    box.close()


def test_an_event_is_given_out_only_when_it_is_on_the_disk(tmp_path: Path) -> None:
    box = box_in(tmp_path)
    box.flush()
    box.put(body(1))
    assert box.pending
    assert box.read("a") is None
    box.flush()
    assert not box.pending
    assert box.read("a") is not None


def test_the_same_event_until_it_is_done(tmp_path: Path) -> None:
    box = box_in(tmp_path)
    put(box, 1, 2)
    assert box.read("a") == box.read("a")
    box.done("a")
    box.done("a")  # nothing was given out since: nothing happens
    assert take(box) == [2]


def test_what_waits_is_there_after_the_next_start(tmp_path: Path) -> None:
    box = box_in(tmp_path, "a", "b")
    put(box, 1, 2, 3)
    take(box, "a", 2)
    box.flush()
    box.close()
    again = box_in(tmp_path, "a", "b")
    put(again, 4)
    assert again.status() == {"a": (2, 0), "b": (4, 0)}
    assert take(again, "a") == [3, 4]
    assert take(again, "b") == [1, 2, 3, 4]


def test_numbers_go_on_when_everything_was_delivered(tmp_path: Path) -> None:
    for start in range(3):
        box = box_in(tmp_path)
        put(box, start)
        assert take(box) == [start]
        box.flush()
        box.close()


def test_a_new_sink_gets_what_comes_from_now_on(tmp_path: Path) -> None:
    box = box_in(tmp_path, "a")
    put(box, 1, 2)
    box.close()
    box = box_in(tmp_path, "a", "b")
    box.put(body(3))  # before the file was opened
    box.flush()
    put(box, 4)
    assert take(box, "b") == [3, 4]
    assert take(box, "a") == [1, 2, 3, 4]


def test_a_removed_sink_holds_nothing_back_and_gets_nothing_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = box_in(tmp_path, "a", "b")
    put(box, 1, 2, 3)
    assert take(box, "a") == [1, 2, 3]
    assert take(box, "b", 1) == [1]
    box.flush()
    box.close()
    box = box_in(tmp_path, "a")
    put(box, 4)
    assert "2 events for b are forgotten" in caplog.text
    assert rows(tmp_path) == [4]
    box.close()
    box = box_in(tmp_path, "b")
    put(box, 5)
    assert take(box, "b") == [5]


def test_beyond_the_bound_the_oldest_go_and_one_notice_says_how_many(tmp_path: Path) -> None:
    box = box_in(tmp_path, "a", "b", max_events=10)
    for n in range(25):
        put(box, n)
        if n < 12:
            take(box, "b")
    assert rows(tmp_path) == list(range(15, 25))
    assert box.status() == {"a": (10, 15), "b": (10, 3)}
    assert take(box, "a") == ["dropped 15", *range(15, 25)]
    assert take(box, "b") == ["dropped 3", *range(15, 25)]
    assert take(box, "a") == []


def test_the_count_survives_a_restart(tmp_path: Path) -> None:
    box = box_in(tmp_path, max_events=2)
    put(box, *range(5))
    box.close()
    box = box_in(tmp_path, max_events=2)
    put(box, *range(5, 9))
    assert take(box) == ["dropped 7", 7, 8]


def test_a_notice_keeps_its_id_and_number_when_it_may_have_arrived(tmp_path: Path) -> None:
    box = box_in(tmp_path, max_events=2)
    put(box, *range(5))
    assert box.read("a") is None, "its id is not on the disk yet"
    box.flush()
    first = box.read("a")
    assert first is not None
    put(box, *range(5, 9))
    assert box.read("a") == first
    box.close()
    box = box_in(tmp_path, max_events=2)
    box.flush()
    assert box.read("a") == first
    assert take(box) == ["dropped 3", "dropped 4", 7, 8]


def test_a_notice_that_was_certainly_not_sent_grows_instead_of_having_company(tmp_path: Path) -> None:
    box = box_in(tmp_path, max_events=2)
    put(box, *range(5))
    box.read("a")
    box.flush()
    first = box.read("a")
    box.failed("a", unsent=True)
    assert box.read("a") == first, "nothing came to it"
    put(box, *range(5, 9))
    box.failed("a", unsent=True)
    assert box.read("a") is None
    box.flush()
    second = box.read("a")
    assert second != first
    assert b'"count":7' in (second or b"")
    box.failed("a", unsent=False)  # from now on it may have arrived
    put(box, *range(9, 12))
    box.read("a")
    box.failed("a", unsent=True)
    assert box.read("a") == second
    assert take(box) == ["dropped 7", "dropped 3", 10, 11]


def test_what_arrives_while_it_is_dropped_is_not_counted(tmp_path: Path) -> None:
    box = box_in(tmp_path, max_events=2)
    put(box, 1, 2)
    assert number(box.read("a") or b"") == 1  # on its way ...
    put(box, 3, 4)  # ... when it is dropped
    assert box.status() == {"a": (2, 2)}
    box.done("a")
    assert box.status() == {"a": (2, 1)}
    assert take(box) == ["dropped 1", 3, 4]


def test_the_bound_may_shrink(tmp_path: Path) -> None:
    box = box_in(tmp_path)
    put(box, *range(20))
    box.close()
    box = box_in(tmp_path, max_events=5)
    box.flush()
    assert take(box) == ["dropped 15", *range(15, 20)]


def test_an_event_that_could_not_be_put_is_counted(tmp_path: Path) -> None:
    box = box_in(tmp_path)
    box.lose()
    box.lose()
    box.flush()
    assert take(box) == ["dropped 2"]
    assert box.status() == {"a": (0, 2)}


def test_one_process_at_a_time(tmp_path: Path) -> None:
    box = box_in(tmp_path)
    put(box, 1)
    other = box_in(tmp_path)
    other.put(body(2))
    with pytest.raises(OutboxError, match=f"used by process {os.getpid()} "):
        other.flush()
    assert take_from_memory(other) == [2], "from memory meanwhile"
    box.close()
    put(other, 3)
    assert take(other) == [1, 2, 3], "at least once, and in order"


def test_the_file_shrinks_after_an_outage(tmp_path: Path) -> None:
    """Incremental vacuum: and so does the write-ahead log."""

    def size() -> int:
        return sum(file.stat().st_size for file in tmp_path.iterdir() if not file.name.endswith("-shm"))

    box = box_in(tmp_path, max_events=20_000)
    for _ in range(20):
        for n in range(500):
            box.put(body(n, 500))
        box.flush()
    full = size()
    assert full > 5_000_000
    count = 0
    while box.read("a") is not None:
        box.done("a")
        count += 1
        if count % 100 == 0:
            box.flush()
    assert count == 10_000
    box.flush()
    assert size() < 2_500_000, f"{full} before"
    box.close()
    assert (tmp_path / NAME).stat().st_size < 1_200_000


def test_the_file_does_not_grow_at_the_bound(tmp_path: Path) -> None:
    box = box_in(tmp_path, max_events=1000)
    sizes = []
    for _ in range(20):
        for n in range(1000):
            box.put(body(n, 300))
        box.flush()
        sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
    assert max(sizes[3:]) <= max(sizes[:3]) * 1.2
    assert box.status()["a"] == (1000, 19_000)


def test_how_much_waits_can_be_asked_beside_the_daemon_and_without_it(tmp_path: Path) -> None:
    box = box_in(tmp_path, "a", "b")
    put(box, 1, 2, 3)
    take(box, "b", 1)
    box.flush()
    assert count_waiting(tmp_path / NAME) == {"a": 3, "b": 2}
    put(box, 4)
    assert count_waiting(tmp_path / NAME) == {"a": 4, "b": 3}
    box.close()
    assert count_waiting(tmp_path / NAME) == {"a": 4, "b": 3}
    assert sorted(file.name for file in tmp_path.iterdir()) == [NAME], "asking leaves nothing behind"
    (tmp_path / NAME).write_bytes(b"nonsense" * 1000)
    with pytest.raises(OSError, match=r"outbox\.sqlite: file is not a database"):
        count_waiting(tmp_path / NAME)


@pytest.mark.parametrize("what", ["text", "half", "zeros", "other", "newer", "cursors"])
def test_a_damaged_file_is_set_aside(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    box = box_in(tmp_path)
    put(box, *range(2000))
    box.close()
    file = tmp_path / NAME
    good = file.read_bytes()
    if what in ("text", "half", "zeros"):
        file.write_bytes(
            {"text": b"no database" * 999, "half": good[: len(good) // 2], "zeros": good[:9000] + bytes(99_000)}[what]
        )
    else:
        with sqlite3.connect(file) as db:
            db.execute(
                {
                    "other": "DROP TABLE events",
                    "newer": "PRAGMA user_version = 7",
                    "cursors": "UPDATE cursors SET seq = 'x'",
                }[what]
            )
        db.close()
    spoilt = file.read_bytes()
    box = box_in(tmp_path)
    put(box, 5000)
    assert "is damaged" in caplog.text
    (aside,) = tmp_path.glob(f"{NAME}.damaged-*Z")
    assert aside.stat().st_size == len(spoilt)
    found = {event.state: event for event in (msgspec.json.decode(b, type=Event) for b in bodies(box))}
    assert set(found) == {None, "outbox_damaged"}
    assert aside.name in str(found["outbox_damaged"].detail)
    box.flush()
    box.close()
    box = box_in(tmp_path)
    put(box, 5001)
    assert take(box) == [5001]


def test_a_file_damaged_while_it_is_used_is_set_aside_and_what_was_in_it_counted(tmp_path: Path) -> None:
    box = box_in(tmp_path, max_events=5000)
    for n in range(3000):
        box.put(body(n, 100))
    box.flush()
    with sqlite3.connect(tmp_path / NAME) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / NAME).open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(500_000))
    got = take(box)
    box.put(body(9999))
    box.flush()
    got += take(box)
    assert list(tmp_path.glob(f"{NAME}.damaged-*Z"))
    delivered = [n for n in got if isinstance(n, int) and n < 3000]
    (notice,) = [n for n in got if isinstance(n, str)]
    assert int(notice.split()[1]) + len(delivered) == 3000
    assert 9999 in got


def test_only_a_few_damaged_files_are_kept(tmp_path: Path) -> None:
    for second in range(6):
        (tmp_path / f"{NAME}.damaged-2026010{second}T000000Z").write_text("old")
        (tmp_path / f"{NAME}.damaged-2026010{second}T000000Z-wal").write_text("old")
    (tmp_path / NAME).write_text("no database" * 100)
    box_in(tmp_path).flush()
    assert len(list(tmp_path.glob(f"{NAME}.damaged-*Z"))) == KEPT
    assert len(list(tmp_path.glob(f"{NAME}.damaged-*Z-wal"))) == KEPT - 1


def test_memory_is_bounded_while_the_disk_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_EVENTS", 100)
    (tmp_path / "file").write_text("")
    box = box_in(tmp_path / "file" / "no-folder")
    for n in range(250):
        box.put(body(n))
        if n % 50 == 0:
            with pytest.raises(OutboxError, match="Not a directory"):
                box.flush()
    assert box.error is not None
    assert box.status() == {"a": (100, 150)}
    assert take_from_memory(box) == ["dropped 150", *range(150, 250)]
    (tmp_path / "file").unlink()
    put(box, 250)
    assert box.error is None
    assert take(box) == [250], "what was delivered from memory does not come again"


def test_a_file_that_cannot_be_opened_at_the_start_does_not_hold_up_what_comes(tmp_path: Path) -> None:
    state = tmp_path / "state"
    box = box_in(state, "a", "b")
    put(box, 1, 2)
    take(box, "b")
    box.flush()
    box.close()
    state.rename(tmp_path / "hidden")
    state.write_text("")
    box = box_in(state, "a", "b")
    box.put(body(3))
    box.put(body(4))
    with pytest.raises(OutboxError):
        box.flush()
    assert take_from_memory(box) == [3, 4]
    number(box.read("b") or b"")
    box.done("b")
    state.unlink()
    (tmp_path / "hidden").rename(state)
    box.flush()
    assert take(box, "a") == [1, 2, 3, 4], "what nobody knew of, and the rest once more"
    assert take(box, "b") == [4], "it had no backlog: nothing twice"


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert folder(OutboxConfig(folder="/somewhere"), "usb:0") == Path("/somewhere")
    assert folder(OutboxConfig(), "usb:0") == Path("/home/me/.local/state/bittern/usb_0")
    assert folder(OutboxConfig(), "../..") == Path("/home/me/.local/state/bittern/_____")
    assert folder(OutboxConfig(), "") == Path("/home/me/.local/state/bittern/_")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert folder(OutboxConfig(), "porch") == Path("/state/bittern/porch")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/bittern/porch:/var/lib/other")
    assert folder(OutboxConfig(), "usb:0") == Path("/var/lib/bittern/porch")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.delenv("XDG_STATE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigurationError, match=r"outbox\.folder"):
        folder(OutboxConfig(), "usb:0")


STEPS = st.lists(
    st.sampled_from(["put", "put", "flush", "a", "b", "fail a", "restart", "fail", "mend"]), min_size=1, max_size=60
)


@settings(max_examples=60)
@given(steps=STEPS, bound=st.integers(1, 6))
def test_whatever_happens_everything_is_delivered_or_counted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], bound: int
) -> None:
    """Both sinks, at random: in order, at least once, and the sum is right; a restart may repeat, never lose."""
    place = tmp_path_factory.mktemp("box")
    state = place / "state"
    box = box_in(state, "a", "b", max_events=bound)
    put_, failing = 0, False
    got: dict[str, list[int]] = defaultdict(list)
    notices: dict[str, dict[str, int]] = defaultdict(dict)

    def step(sink: str, *, finish: bool = True) -> bool:
        found = box.read(sink)
        if found is None:
            return False
        event = msgspec.json.decode(found, type=Event)
        if finish:
            if event.type == "dropped":
                notices[sink][event.id] = event.count or 0
            else:
                got[sink].append(event.monotonic_ns)
            box.done(sink)
        return True

    def flush() -> bool:
        try:
            box.flush()
        except OutboxError:
            return False
        return True

    # A real disk that takes nothing: the folder is hidden, and a file stands in its place.
    def fail() -> None:
        nonlocal failing
        if not failing:
            box._file.disconnect()
            if state.exists():
                state.rename(place / "hidden")
            state.write_text("")
            failing = True

    def mend() -> None:
        nonlocal failing
        if failing:
            state.unlink()
            if (place / "hidden").exists():
                (place / "hidden").rename(state)
            failing = False

    for what in steps:
        if what == "put":
            put_ += 1
            box.put(body(put_))
        elif what == "flush":
            flush()
        elif what in ("a", "b"):
            step(what)
        elif what == "fail a":
            step("a", finish=False)
            box.failed("a", unsent=True)
        elif what == "restart":
            mend()
            assert flush()
            box.close()
            box = box_in(state, "a", "b", max_events=bound)
            assert flush()
        elif what == "fail":
            fail()
        else:
            mend()
    mend()
    assert flush()
    for sink in ("a", "b"):
        for _ in range(500):
            if not step(sink) and not (box.dirty and flush() and step(sink)):
                break
        firsts = list(dict.fromkeys(got[sink]))
        assert firsts == sorted(firsts)
        assert len(firsts) + sum(notices[sink].values()) == put_, (got[sink], notices[sink])
        assert box.status()[sink][0] == 0
    box.close()
