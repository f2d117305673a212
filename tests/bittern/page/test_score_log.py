"""The scores of a day: what is kept of them, and that trying a threshold gives what the daemon's decision gives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.repetitions import examples

from bittern.decision.decision import Settings
from bittern.page import score_log
from bittern.page.score_log import ScoreLog

FRAME_NS = 200_000_000
# Scores in the steps of a model's output.
SCORES = st.integers(0, 255).map(lambda step: step / 256)
ROWS = st.lists(st.one_of(SCORES, st.sampled_from(["still", "blind"]), st.just(0.001)), max_size=80)
SETTINGS = st.builds(
    lambda on, off, cooldown, least, evidence, votes, more: Settings(
        on, min(on, off), cooldown, least, evidence, votes, votes + more
    ),
    st.integers(1, 255).map(lambda step: step / 256),
    SCORES,
    st.sampled_from([0.0, 1.0, 5.0]),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.integers(1, 3),
    st.integers(0, 2),
)


@settings(max_examples=examples(1000), deadline=None)
@given(ROWS, SETTINGS)
def test_a_trial_is_the_decision_over_all_rows(rows: list[float | str], tried: Settings) -> None:
    log, decision, alarms = ScoreLog(2), tried.decision(), 0
    for i, row in enumerate(rows):
        now = (i + 1) * FRAME_NS
        if isinstance(row, float):
            log.add(now, [0.0, row])
            alarms += decision.update(row, now) == "on"
        elif row == "blind":
            log.add(now, [], blind=True)
            decision.blind(now)
        else:
            log.add(now, [])
            decision.hold(now)
    assert log.trial(1, tried).alarms == alarms


ON = Settings(on=0.5, off=0.25, cooldown_s=0.0, min_off_s=0.0, evidence=0.0)


def test_a_still_day_takes_one_row() -> None:
    log = ScoreLog(1)
    for second in range(100_000):
        log.add(second * 10**9, [])
    assert log.trial(0, ON) == (0, 0.0)
    assert log.series(3600) == []


def test_what_is_older_than_a_day_goes() -> None:
    log = ScoreLog(1)
    for minute in range(3 * 24 * 60):
        for k in range(4):
            log.add(minute * 60 * 10**9 + k * FRAME_NS, [0.9 if k == 1 else 0.0])
    trial = log.trial(0, ON)
    assert trial.alarms == pytest.approx(24 * 60, abs=600), "a block more or less"
    assert trial.seconds == pytest.approx(86_400, abs=36_000)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_log, "MAX_BYTES", 100_000)
    log = ScoreLog(1)
    for frame in range(50_000):
        log.add(frame * FRAME_NS, [0.1])
    assert 5_000 < len(log.series(1e9, most=10**9)) <= 100_000 / 10 + 2048


def test_a_clock_that_goes_back_begins_anew() -> None:
    log = ScoreLog(1)
    log.add(10**12, [0.9])
    log.add(10**9, [0.9])
    assert log.trial(0, ON) == (1, 0.0)


def test_the_picture_shows_the_highest_of_many() -> None:
    log = ScoreLog(1)
    for frame in range(1000):
        log.add(frame * FRAME_NS, [0.75 if frame == 777 else 0.0])
    rows = log.series(100, most=50)
    assert len(rows) <= 50
    assert max(score for _, score in rows) == pytest.approx(0.75, abs=1e-4)
    assert rows[-1][0] * 10**6 > 900 * FRAME_NS
