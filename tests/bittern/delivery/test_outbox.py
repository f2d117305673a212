"""The outbox, on real files: what is in it, for whom, and what becomes of it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.outboxes import body, box_in, number, put, rows, take, take_from_memory
from tests.doubles.repetitions import examples

from bittern.delivery import outbox as module
from bittern.delivery.outbox import OutboxError
from bittern.events import Event


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
    assert "2 events for b are discarded" in caplog.text
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


STEPS = st.lists(
    st.sampled_from(["put", "put", "flush", "a", "b", "fail a", "restart", "fail", "mend"]), min_size=1, max_size=60
)


@settings(max_examples=examples(60))
@given(steps=STEPS, bound=st.integers(1, 6))
def test_whatever_happens_everything_is_delivered_or_counted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], bound: int
) -> None:
    """Both sinks, at random: in order, at least once, and the sum is right; a restart may repeat, never lose."""
    place = tmp_path_factory.mktemp("box")
    state = place / "state"
    box = box_in(state, "a", "b", max_events=bound)
    put_, failing = 0, False
    delivered: dict[str, list[int]] = defaultdict(list)
    notices: dict[str, dict[str, int]] = defaultdict(dict)

    def step(sink: str, *, finish: bool = True) -> bool:
        encoded = box.read(sink)
        if encoded is None:
            return False
        event = msgspec.json.decode(encoded, type=Event)
        if finish:
            if event.type == "dropped":
                notices[sink][event.id] = event.count or 0
            else:
                delivered[sink].append(event.monotonic_ns)
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
        firsts = list(dict.fromkeys(delivered[sink]))
        assert firsts == sorted(firsts)
        assert len(firsts) + sum(notices[sink].values()) == put_, (delivered[sink], notices[sink])
        assert box.status()[sink][0] == 0
    box.close()
