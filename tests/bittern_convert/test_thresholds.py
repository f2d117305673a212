"""Thresholds from out-of-fold scores."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bittern.model import operating
from bittern.model.manifest import Streams, Threshold
from bittern_convert import thresholds
from bittern_convert.streams import STEPS, Swept
from bittern_convert.thresholds import MOST_FALSE, NOTHING_FALSE_ALARMS, QUIET_FALSE_ALARMS, choose


def test_separable_scores_put_the_default_between() -> None:
    scores = np.array([0.1] * 500 + [0.9] * 100, np.float32)
    chosen = choose(scores, scores > 0.5)
    assert 0.3 < chosen["default"].on < 0.7
    assert "100.0% of 100 found, 0.0% false alarms of 500" in chosen["default"].chosen_for


@given(st.lists(st.tuples(st.integers(0, 255), st.booleans()), min_size=2, max_size=300))
def test_what_is_chosen_does_what_it_says(rows: list[tuple[int, bool]]) -> None:
    rows += [(10, False), (200, True)]
    scores = np.array([q / 256 for q, _ in rows], np.float32)
    positive = np.array([p for _, p in rows])
    chosen = choose(scores, positive)
    assert {"default"} <= set(chosen) <= {"default", "quiet", "sensitive"}
    assert len({threshold.on for threshold in chosen.values()}) == len(chosen), "no two names for one threshold"
    for threshold in chosen.values():
        assert 0 <= threshold.off <= threshold.on <= 1
    default = chosen["default"].on
    quiet = chosen["quiet"].on if "quiet" in chosen else default
    assert quiet == 255 / 256 or (scores[~positive] >= quiet).mean() <= QUIET_FALSE_ALARMS
    if "sensitive" in chosen:
        sensitive = chosen["sensitive"].on
        assert sensitive < default
        assert (scores[~positive] >= sensitive).mean() <= MOST_FALSE
        assert (scores[positive] >= sensitive).mean() >= 0.99 or sensitive == 1 / 256


@given(
    st.lists(st.tuples(st.integers(0, 255), st.sampled_from(["alarm", "other", "nothing"])), min_size=2, max_size=300)
)
def test_the_default_is_silent_about_nothing(rows: list[tuple[int, str]]) -> None:
    rows += [(10, "nothing"), (200, "alarm")]
    scores = np.array([q / 256 for q, _ in rows], np.float32)
    positive, nothing = (np.array([kind == of for _, kind in rows]) for of in ("alarm", "nothing"))
    chosen, unbound = choose(scores, positive, nothing), choose(scores, positive)
    default = chosen["default"].on
    if default < 255 / 256:
        assert (scores[nothing] >= default).mean() <= NOTHING_FALSE_ALARMS
    if (scores[nothing] >= unbound["default"].on).mean() == 0:
        assert (scores[positive] >= default).mean() + (scores[~positive] < default).mean() == (
            (scores[positive] >= unbound["default"].on).mean() + (scores[~positive] < unbound["default"].on).mean()
        )
    assert "alarms from nothing" in chosen["default"].chosen_for
    assert "nothing" not in unbound["default"].chosen_for


def swept(empty: list[float], passed: list[float], hours: float = 0.75) -> Swept:
    """Of streams with one alarm each, up to a highest threshold in log-odds."""
    odds = np.log(STEPS / (1 - STEPS))
    false = (odds[None] <= np.array(empty)[:, None]).astype(np.int64)
    found = odds[None] <= np.array(passed)[:, None]
    return Swept(
        np.concatenate([np.zeros_like(false, bool), found]),
        np.concatenate([false, np.zeros_like(found, np.int64)]),
        hours,
        len(passed),
    )


def chosen_of(stills: thresholds.Stills, streams: Streams) -> dict[str, Threshold]:
    points = thresholds.still_points(stills)
    return thresholds.choose_on_streams(points, streams, positive=stills.n, negative=stills.m)


def drawn(scale: float, at: float, seed: int = 1) -> thresholds.Stills:
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(at, scale, 300), rng.normal(-at, scale, 600)])
    return thresholds.of_stills((1 / (1 + np.exp(-scores))).astype(np.float32), np.arange(900) < 300)


def test_an_exponential_tail_is_found_again() -> None:
    """Peaks with a tail of a known scale: the rate at a threshold that they do not reach is about the true one."""
    rng = np.random.default_rng(3)
    errors = []
    for _ in range(40):
        peaks = rng.exponential(0.5, 600) - 3
        streams = thresholds.of_streams(swept(peaks.tolist(), [2.0]))
        assert streams.tail is not None
        on = 1 / (1 + np.exp(-0.9))
        true = 600 / 0.75 * np.exp(-(0.9 + 3) / 0.5)
        errors.append(np.log(operating.rate(streams.tail, float(on)) / true))
    assert abs(np.median(errors)) < 0.7


def test_the_bounds_on_streams_are_kept() -> None:
    rng = np.random.default_rng(1)
    # Less than half an hour: what an hour allows is extrapolated.
    made = swept((rng.exponential(0.5, 360) - 2).tolist(), rng.normal(2, 1, 100).tolist(), hours=0.45)
    streams = thresholds.of_streams(made)
    chosen = chosen_of(drawn(0.7, 2), streams)
    assert list(chosen) == ["default", "quiet", "sensitive"]
    assert chosen["sensitive"].on < chosen["default"].on < chosen["quiet"].on
    assert streams.tail is not None
    of = {name: round(threshold.on * 256) - 1 for name, threshold in chosen.items()}
    assert made.false_an_hour[of["default"]] <= 10
    assert operating.rate(streams.tail, chosen["quiet"].on) <= 1
    assert made.false_an_hour[of["sensitive"]] <= 30
    assert made.found_share[of["default"]] > 0.5
    assert thresholds.found_within_bound(made) == made.found_share[of["quiet"]]
    assert "at most 1 false alarm an hour on streams (extrapolated): " in chosen["quiet"].chosen_for
    assert "(counted)" in chosen["sensitive"].chosen_for
    assert "of 300 found" in chosen["default"].chosen_for
    kept = thresholds.compact(streams.points, {t.on for t in chosen.values()})
    assert len(kept) <= thresholds.POINTS + 3
    assert {t.on for t in chosen.values()} <= {point.on for point in kept}
    assert thresholds.compact((), {0.5}) == ()


def test_where_a_strict_bound_finds_little_the_default_keeps_to_a_looser_one() -> None:
    rng = np.random.default_rng(2)
    made = swept((rng.exponential(0.5, 600) - 1).tolist(), rng.normal(0.8, 1, 100).tolist())
    chosen = chosen_of(drawn(0.7, 2), thresholds.of_streams(made))
    i = round(chosen["default"].on * 256) - 1
    assert thresholds.found_within_bound(made) < thresholds.FOUND <= made.found_share[i]
    assert 1 < made.false_an_hour[i] <= 30
    assert "at most 30 false alarms an hour on streams (counted)" in chosen["default"].chosen_for
    assert "at most 10 false alarms an hour on streams (counted)" in chosen["quiet"].chosen_for


def test_names_that_promise_nothing_more_are_left_out() -> None:
    silent = thresholds.of_streams(swept([-5.0] * 600, [3.0] * 100))
    chosen = chosen_of(drawn(0.3, 3), silent)
    assert "sensitive" not in chosen or chosen["sensitive"].on < chosen["default"].on
    loud = thresholds.of_streams(swept([6.0] * 600, [3.0] * 100))
    assert thresholds.found_within_bound(swept([6.0] * 600, [3.0] * 100)) == 0
    fallback = chosen_of(drawn(1, 2), loud)
    assert list(fallback) == ["default"]
    assert "no threshold promises at most 30 false alarms an hour on streams" in fallback["default"].chosen_for
    assert 0.3 < fallback["default"].on < 0.7, "by pictures alone"


def test_a_threshold_that_pictures_cannot_bear_is_not_shipped() -> None:
    """Streams would allow a low one, but a fifth of the pictures without the label reach it."""
    streams = thresholds.of_streams(swept([-3.0] * 600, [3.0] * 50 + [-0.5] * 50))
    stills = drawn(2, 1)
    for threshold in chosen_of(stills, streams).values():
        assert stills.false[round(threshold.on * 256) - 1] <= MOST_FALSE + 1e-4


def test_few_streams_have_no_tail() -> None:
    assert thresholds.of_streams(swept([-1.0] * 15, [1.0])).tail is None
    assert thresholds.of_streams(swept([-1.0] * 40, [1.0])).tail is not None
