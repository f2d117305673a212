"""Lines of long work where stderr is no terminal."""

from __future__ import annotations

import io
import time

import pytest
from tests.doubles.waiting import until

from bittern.system.progress import Counter, ProgressLines, counted, duration


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_has_step_share_and_time_left() -> None:
    clock = Clock()
    lines = ProgressLines(io.StringIO(), clock=clock)
    assert lines.line() is None
    lines("read pictures", 0, 200)
    clock.now += 40
    assert lines.line() == "read pictures: 0 of 200 after 40 s"
    lines("read pictures", 50, 200)
    assert lines.line() == "read pictures: 50 of 200 (25%), about 2 min left"
    # The time left is that of the step, from its own speed.
    lines("final fit", 0, 10)
    clock.now += 20
    lines("final fit", 5, 10)
    assert lines.line() == "final fit: 5 of 10 (50%), about 20 s left"


def test_a_finished_step_is_not_reported_any_more() -> None:
    clock = Clock()
    lines = ProgressLines(io.StringIO(), clock=clock)
    lines("parity check", 1000, 1000)
    clock.now += 240
    assert lines.line() is None
    lines("test/test", 0, 154)
    clock.now += 30
    assert lines.line() == "test/test: 0 of 154 after 30 s"


def test_lines_come_while_a_step_reports_nothing_and_end_with_the_work() -> None:
    stream = io.StringIO()
    with ProgressLines(stream, interval_s=0.01) as lines:
        lines("quantize", 0, 1)
        lines.say("2 pictures skipped")
        until(lambda: stream.getvalue().count("quantize: 0 of 1 after 0 s\n") >= 2)
    before = stream.getvalue()
    assert "2 pictures skipped\n" in before
    assert not lines._thread.is_alive()
    time.sleep(0.05)
    assert stream.getvalue() == before


def test_what_is_consumed_is_counted() -> None:
    clock = Clock()
    lines = ProgressLines(io.StringIO(), clock=clock)
    items = counted("abcd", lines, "look", 4)
    assert [next(items), next(items)] == ["a", "b"]
    assert lines.line() == "look: 1 of 4 (25%), about 0 s left"
    counter = Counter(lines, "fit", 8)
    counter.reach(3)
    counter.advance()
    assert lines.line() == "fit: 4 of 8 (50%), about 0 s left"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (5400, "1 h 30 min")]
)
def test_durations_are_rounded_to_what_matters(seconds: float, words: str) -> None:
    assert duration(seconds) == words
