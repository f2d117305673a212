"""What is tuned: the bound is read strictly, intervals are checked, and the search finds what a full search finds."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.repetitions import examples

from bittern.decision.decision import Settings
from bittern.errors import ConfigurationError
from bittern.evaluation import tuning
from bittern.evaluation.tuning import (
    LabelledInterval,
    NothingFits,
    Target,
    Track,
    judge,
    parse_target,
    poisson_interval,
    poisson_upper,
    read_intervals,
    tune,
)

NOW = Settings(0.5, 0.25, 1.0, 0.5, 2.0)
HOUR = Target(1, 1.0, "at most 1 false alarm an hour")


def track(scores: list[float], fps: float = 5.0, clip_s: float | None = None) -> Track:
    times = np.round(np.arange(len(scores)) / fps * 1e9).astype(np.int64)
    length = float(times[-1]) / 1e9 if clip_s is None else clip_s
    return Track("street", "t", "stop", times, np.array(scores, float), length)


# --- what a user writes ----------------------------------------------------------------------------------------------


def test_the_bound_is_a_sentence() -> None:
    assert parse_target("at most 1 false alarm an hour") == HOUR
    assert parse_target("at most 3 false alarms a day")[:2] == (3, 24.0)
    assert parse_target("at most 0 false alarms a day")[:2] == (0, 24.0)


@pytest.mark.parametrize(
    "text",
    ["", "1", "at most one false alarm an hour", "at most 1 false alarm", "at most 1 false alarm a week",
     "At most 1 false alarm an hour", "at most 1.5 false alarms an hour", "at most -1 false alarms an hour",
     "at most 1 false alarm an hour ", "at most 1 false alarm an hour\n", "at most 1 alarm an hour",
     "at most 9999999 false alarms an hour"],
)  # fmt: skip
def test_another_sentence_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--tune: expected 'at most N false alarms an hour', or 'a day', got"):
        parse_target(text)


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "labels.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_intervals_are_read(tmp_path: Path) -> None:
    text = '\ufeffstart_s,end_s,label\r\n 1.5, 3 ,stop\r\n\r\n3,4e0,"a, b"\n0,1,stop\n2,9,a\n'
    assert read_intervals(written(tmp_path, text)) == [
        LabelledInterval(1.5, 3.0, "stop"),
        LabelledInterval(3.0, 4.0, "a, b"),
        LabelledInterval(0.0, 1.0, "stop"),
        LabelledInterval(2.0, 9.0, "a"),
    ]


def test_without_rows_nothing_happens(tmp_path: Path) -> None:
    assert read_intervals(written(tmp_path, "start_s,end_s,label\n\n")) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty: expected the header start_s,end_s,label"),
        ("start,end,label\n1,2,a", "row 1: expected the header start_s,end_s,label, got 'start,end,label'"),
        ("1,2,a\n", "row 1: expected the header"),
        ("start_s,end_s,label\n1,2,a\n3,4", "row 3: expected 3 values, got 2"),
        ("start_s,end_s,label\n1,2,a,b", "row 2: expected 3 values, got 4"),
        ("start_s,end_s,label\none,2,a", "row 2: start_s: expected seconds, got 'one'"),
        ("start_s,end_s,label\n1,,a", "row 2: end_s: expected seconds, got ''"),
        ("start_s,end_s,label\n2,2,a", "row 2: expected 0 <= start_s < end_s, got 2 and 2"),
        ("start_s,end_s,label\n-1,2,a", "row 2: expected 0 <="),
        ("start_s,end_s,label\n1,inf,a", "row 2: expected 0 <="),
        ("start_s,end_s,label\nnan,2,a", "row 2: expected 0 <="),
        ("start_s,end_s,label\n1,2, ", "row 2: the label is empty"),
        ("start_s,end_s,label\n5,9,a\n1,5.5,a", "row 2: overlaps row 3, of the same label"),
        ('start_s,end_s,label\n1,2,"a', "row 2: unexpected end of data"),
        (b"start_s,end_s,label\n1,2,\xff", "not UTF-8 at byte 24"),
        ("start_s,end_s,label\n" + "1,2,a\n" * 200_000, "larger than the limit of 1 MiB"),
    ],
    ids=lambda v: str(v)[:50],
)
def test_intervals_that_are_none_are_refused(tmp_path: Path, text: str | bytes, says: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        read_intervals(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.fuzz
def test_mutated_intervals_are_read_or_refused(tmp_path: Path) -> None:
    whole = 'start_s,end_s,label\n1.5,3,stop\n4,5,"a, b"\n6,7,a\n'
    rng, messages = random.Random(3), []
    n = examples(10_000)
    for _ in range(n):
        data = bytearray(whole.encode())
        for _ in range(rng.randint(1, 4)):
            offset = rng.randrange(len(data))
            data[offset : offset + rng.randint(0, 3)] = bytes(
                rng.choices(b'",\n\r .019einfa\xff\0', k=rng.randint(0, 3))
            )
        try:
            assert all(i.start_s < i.end_s for i in read_intervals(written(tmp_path, bytes(data))))
        except ConfigurationError as error:
            messages.append(str(error))
    assert n * 0.1 < len(messages) < n
    assert not any("\n" in message for message in messages)


# --- the bound of a rate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "bound"), [(0, 2.9957), (1, 4.7439), (2, 6.2958), (5, 10.5130), (10, 16.9622), (100, 118.079)]
)
def test_the_upper_bound_is_that_of_the_tables(count: int, bound: float) -> None:
    """Half of the 95 % point of chi-squared with 2 (count + 1) degrees of freedom."""
    assert poisson_upper(count) == pytest.approx(bound, abs=1e-3)


def test_the_upper_bound_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert poisson_upper(2000) == pytest.approx(2000 + 1.645 * math.sqrt(2000), abs=3)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(0, 0.0, 3.6889), (1, 0.0253, 5.5716), (2, 0.2422, 7.2247), (10, 4.7954, 18.3904), (100, 81.3640, 121.6270)],
)
def test_the_interval_is_that_of_the_tables(count: int, low: float, high: float) -> None:
    """Halves of the 2.5 and 97.5 % points of chi-squared with 2 count and 2 (count + 1) degrees of freedom."""
    assert poisson_interval(count) == pytest.approx((low, high), abs=1e-3)


# --- judging ---------------------------------------------------------------------------------------------------------


def test_an_alarm_is_right_within_an_interval_and_false_elsewhere() -> None:
    intervals = [LabelledInterval(10, 20, "stop"), LabelledInterval(30, 40, "stop"), LabelledInterval(50, 60, "stop")]
    alarms = [(5.0, 31.0), (12.0, 14.0), (15.0, 45.0), (50.0, 51.0), (60.5, math.inf)]
    judged = judge(track([0.0], clip_s=100.0), intervals, NOW, alarms)
    # The first and the last began outside; the third stayed on for 15 s outside of intervals.
    assert (judged.detected, judged.intervals, judged.false_alarms) == (2, 3, 3)
    assert judge(track([0.0], clip_s=100.0), intervals, NOW, [(15.0, 39.0)]).false_alarms == 0
    assert judge(track([0.0], clip_s=100.0), intervals, NOW, [(55.0, math.inf)]).false_alarms == 1
    assert judged.delays_s == [2.0, 0.0]
    assert judged.mean_delay_s == 1.0
    assert judged.outside_h == pytest.approx(70 / 3600)
    assert judge(track([0.0], clip_s=15.0), intervals[:1], NOW, []).outside_h == pytest.approx(10 / 3600)


def test_an_alarm_detects_what_it_meets() -> None:
    intervals = [LabelledInterval(10, 20, "stop"), LabelledInterval(23, 25, "stop"), LabelledInterval(50, 60, "stop")]

    def judged(*alarms: tuple[float, float]) -> tuple[int, list[bool], list[float]]:
        result = judge(track([0.0], clip_s=100.0), intervals, NOW, alarms)
        return result.detected, result.correct, result.delays_s

    assert judged((8.0, 12.0)) == (1, [True], [0.0]), "it began before"
    assert judged((8.0, 9.6), (12.0, 13.0)) == (1, [True, True], [0.0]), "half a second is within the labels' error"
    assert judged((8.0, 9.4), (20.5, 21.0)) == (1, [False, True], [10.5])
    assert judged((20.6, 22.4)) == (0, [False], [])
    assert judged((12.0, 24.0), (49.0, math.inf)) == (2, [True, False], [2.0, 0.0]), "two of a kind; 41 s too long"
    assert judged((1.0, 99.0)) == (0, [False], []), "an alarm that never ends detects nothing"
    assert judged((18.0, 99.0)) == (1, [False], [8.0]), "but for the interval in which it went on"


# --- the search ------------------------------------------------------------------------------------------------------


def test_a_spike_outside_is_outvoted() -> None:
    scores = [0.0] * 20 + [0.9] + [0.0] * 20 + [0.6, 0.7, 0.8, 0.9, 0.9, 0.9] + [0.0] * 20
    best = tune(track(scores), [LabelledInterval(8.0, 9.4, "stop")], HOUR, NOW)
    assert (best.detected, best.false_alarms) == (1, 0)
    assert best.settings.evidence > 0
    assert best.settings.cooldown_s == NOW.cooldown_s
    assert best.mean_delay_s < 1


def test_the_lowest_delay_wins_but_not_by_less_than_labels_are_exact() -> None:
    ramp = [0.0] * 20 + [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8] + [0.0] * 20
    best = tune(track(ramp), [LabelledInterval(4.0, 6.0, "stop")], HOUR, NOW)
    assert best.settings.on == pytest.approx(0.3)
    assert best.mean_delay_s == pytest.approx(0.4)
    flat = [0.0] * 20 + [0.1] + [0.8, 0.9, 0.8] * 3 + [0.0] * 20
    best = tune(track(flat), [LabelledInterval(4.2, 6.0, "stop")], HOUR, NOW)
    assert best.settings.on == 0.9, "the highest that is as quick"


def test_an_alarm_before_anything_is_in_view_is_no_quick_one() -> None:
    """A burst before the interval would keep an alarm with a low threshold on until there is something to detect."""
    rise = [0.1, 0.2, 0.3, 0.5, 0.8, 0.95, 0.95, 0.95, 0.95, 0.95]
    scores = [0.02] * 15 + [0.4, 0.4] + [0.02] * 15 + rise + [0.02] * 10
    best = tune(track(scores), [LabelledInterval(6.4, 8.4, "stop")], HOUR, NOW)
    assert all(6.4 <= on <= 8.4 for on, _ in best.alarms)


def test_a_day_allows_what_a_day_long_clip_would() -> None:
    spikes = ([0.9] + [0.0] * 59) * 3 + [0.9, 0.9] + [0.0] * 10
    day = Target(3, 24.0, "at most 3 false alarms a day")
    slow = track(spikes, fps=1 / 480)
    interval = LabelledInterval(180 * 480.0 - 1, 182 * 480.0 + 1, "stop")
    now = NOW._replace(cooldown_s=0.0, min_off_s=0.0)
    once = tune(slow._replace(clip_s=24 * 3600 + 970.0), [interval], day, now)
    assert (once.detected, once.false_alarms, once.settings.evidence) == (1, 3, 0.0)
    twice = tune(slow._replace(clip_s=12 * 3600.0), [interval], day, now)
    assert (twice.detected, twice.false_alarms) == (1, 0)
    assert twice.settings.evidence > 0


def test_nothing_fits_and_what_comes_nearest() -> None:
    scores = ([0.9] * 8 + [0.0] * 12) * 4
    with pytest.raises(NothingFits) as caught:
        tune(track(scores), [LabelledInterval(8.0, 9.0, "stop")], HOUR, NOW)
    message = str(caught.value)
    assert (
        "street, stop: no settings detect an interval with at most 1 false alarm an hour, which is 0 in the" in message
    )
    assert "nearest: 3 false alarms, 1 of 1 detected with threshold 0.9" in message
    assert caught.value.nearest is not None
    with pytest.raises(NothingFits, match="no settings detect any of 1 intervals: no score rises in them") as caught:
        tune(track([0.0] * 30), [LabelledInterval(1.0, 2.0, "stop")], HOUR, NOW)
    assert caught.value.nearest is None


@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=120),
    st.sampled_from([0.25, 0.5, 1.0]),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from(tuning.EVIDENCE),
    st.sampled_from([1.0, 5.0, 25.0]),
)
@settings(max_examples=examples(300))
def test_leaving_out_the_quiet_changes_no_alarm(
    scores: list[float], off: float, min_off_s: float, cooldown_s: float, evidence: float, fps: float
) -> None:
    whole = track(scores, fps)
    given = Settings(max(off, 0.5), off, cooldown_s, min_off_s, evidence)
    short = tuning._without_quiet(whole, given.on, off, min_off_s)
    on_short, on_whole = (
        tuning.periods(given.decision().update, t.times_ns.tolist(), t.scores.tolist()) for t in (short, whole)
    )
    assert on_short == on_whole


def test_a_long_quiet_clip_is_made_short() -> None:
    scores = [0.0] * 5000 + [0.9] * 10 + [0.0] * 5000
    assert len(tuning._without_quiet(track(scores), 0.5, 0.5, 0.5).scores) <= 20


def test_figures_say_how_little_a_short_clip_can_say() -> None:
    intervals = [LabelledInterval(10, 20, "stop"), LabelledInterval(30, 40, "stop")]
    judged = judge(track([0.0], clip_s=380.0), intervals, NOW, [(11.0, 12.0)])
    text = tuning.lines(tuning.figures(track([0.0]), judged), HOUR)
    assert text == [
        "street, stop: 1 of 2 intervals detected (95 % 9% to 91%); delay 1.00 s on average, 1.00 s at most",
        "false alarms: 0 in the 6.0 min outside of the intervals; the true rate is at most 30 an hour (95 %, Poisson)",
        "proving at most 1 false alarm an hour takes a clip of 3.0 h without a false alarm",
    ]
