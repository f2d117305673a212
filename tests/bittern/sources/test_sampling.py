"""Frames of a recording on a regular grid: as many a second as asked for, none twice, none lost to jitter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.sources.sampling import Sampler

rates = st.floats(0.2, 120, allow_nan=False)


def taken(times_ns: Sequence[int], fps: float, interval_ns: float) -> list[int]:
    sampler = Sampler(fps, interval_ns)
    return [i for i, time_ns in enumerate(times_ns) if sampler.due(time_ns)]


def regular(rate: float, frames: int, first_ns: int = 0, step_ns: int = 1) -> list[int]:
    """Times of a clip of constant rate, rounded to whole steps as files round them."""
    return [first_ns + round(i * 1e9 / rate / step_ns) * step_ns for i in range(frames)]


@given(
    k=st.integers(1, 20),
    fps=st.sampled_from([1.0, 2.0, 5.0, 6.0]),
    first_ns=st.integers(0, 10**15),
    step_ns=st.sampled_from([1, 1000, 10**6]),
)
def test_of_a_multiple_exactly_every_kth_is_taken(k: int, fps: float, first_ns: int, step_ns: int) -> None:
    times = regular(k * fps, 400, first_ns, step_ns)
    assert taken(times, fps, 1e9 / (k * fps)) == list(range(0, 400, k))


@given(rate=rates, fps=rates, frames=st.integers(1, 500))
def test_the_rate_is_kept_without_drift(rate: float, fps: float, frames: int) -> None:
    times = regular(rate, frames)
    chosen = taken(times, fps, 1e9 / rate)
    if rate <= fps:
        assert chosen == list(range(frames))
        return
    ticks = times[-1] / 1e9 * fps
    assert abs(len(chosen) - 1 - ticks) <= 1
    for n, i in enumerate(chosen):
        assert abs(times[i] / 1e9 - n / fps) <= 0.5 / rate + 1e-6, "the nearest frame to its tick"


@pytest.mark.parametrize("rate", [24.0, 25.0, 29.97, 30.0, 59.94])
def test_five_a_second_on_average(rate: float) -> None:
    times = regular(rate, round(3600 * rate))
    assert len(taken(times, 5.0, 1e9 / rate)) == pytest.approx(5 * 3600, abs=1)


@given(
    camera_s=st.floats(0.001, 0.2, exclude_max=True),
    waits=st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 1, exclude_max=True)), min_size=1, max_size=200),
)
def test_what_a_recorder_took_is_taken_whole(camera_s: float, waits: list[tuple[float, float]]) -> None:
    """Turns are a period or more apart; each takes a frame that is up to one interval of the camera old."""
    now, times = 1.0, []
    for late_s, age in waits:
        times.append(round((now - age * camera_s) * 1e9))
        now += 0.2 + late_s
    # As a recording gives it: the ages of the first and last frame lack less than one interval.
    interval = (times[-1] - times[0]) / (len(times) - 2) if len(times) > 2 else math.inf
    assert taken(times, 5.0, interval) == list(range(len(times)))


@given(gaps=st.lists(st.integers(1, 2 * 10**9), min_size=1, max_size=300), fps=rates, rate=rates)
def test_whatever_the_times_no_more_than_the_rate(gaps: list[int], fps: float, rate: float) -> None:
    times = [0]
    for gap in gaps:
        times.append(times[-1] + gap)
    chosen = taken(times, fps, 1e9 / rate)
    assert chosen[0] == 0
    assert len(chosen) <= times[-1] / 1e9 * fps + 3


def test_after_a_gap_the_grid_goes_on() -> None:
    times = [n * 40_000_000 for n in range(50) if not 7 <= n < 23]
    chosen = [times[i] // 10**6 for i in taken(times, 5.0, 4e7)]
    assert chosen == [0, 200, 920, 1000, 1200, 1400, 1600, 1800], "a tick that was missed is not made up for"
