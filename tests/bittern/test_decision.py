"""Decisions against a plain model of them, for any scores and times."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bittern.decision import Change, Decision

S = 1_000_000_000


class Case(NamedTuple):
    on: float
    off: float
    votes: int
    of: int
    cooldown_s: float
    min_off_s: float
    steps: list[tuple[float, int]]  # score, ns since the frame before

    def run(self) -> list[tuple[int, float, Change]]:
        """Every change as (time in ns, score, change)."""
        decision = Decision(**{k: v for k, v in self._asdict().items() if k != "steps"})
        now = 0
        seen: list[tuple[int, float, Change]] = []
        for score, gap in self.steps:
            now += gap
            change = decision.update(score, now)
            assert decision.alarm == (seen[-1][2] == "on" if seen and change is None else change == "on")
            if change is not None:
                seen.append((now, score, change))
        return seen


@st.composite
def cases(draw: st.DrawFn) -> Case:
    # Few distinct values, so that equal scores and times, where mistakes live, are common.
    score = st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.7, 0.8, 1.0])
    on, off = sorted((draw(score), draw(score)), reverse=True)
    of = draw(st.integers(1, 6))
    seconds = st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0])
    gap = st.sampled_from([0, S // 10, S // 2, S, 3 * S])
    steps = draw(st.lists(st.tuples(score, gap), max_size=60))
    return Case(on, off, draw(st.integers(1, of)), of, draw(seconds), draw(seconds), steps)


def naive(case: Case) -> list[tuple[int, float, Change]]:
    """The class docstring, word for word, over the whole history."""
    seen: list[tuple[int, float, Change]] = []
    history: list[tuple[int, float]] = []  # since the last change to off
    now = 0
    for score, gap in case.steps:
        now += gap
        history.append((now, score))
        if seen and seen[-1][2] == "on":
            began = seen[-1][0]
            high = max([t for t, s in history if s >= case.off and t >= began] + [began])
            if score < case.off and now - high >= case.min_off_s * S:
                seen.append((now, score, "off"))
                history.clear()
        else:
            reached = sum(s >= case.on for _, s in history[-case.of :])
            cooled = not seen or now - seen[-1][0] >= case.cooldown_s * S
            if score >= case.on and reached >= case.votes and cooled:
                seen.append((now, score, "on"))
    return seen


@given(cases())
def test_it_does_what_its_docstring_says(case: Case) -> None:
    assert case.run() == naive(case)


@given(cases())
def test_on_and_off_alternate(case: Case) -> None:
    changes = [change for _, _, change in case.run()]
    assert changes == ["on", "off"] * (len(changes) // 2) + ["on"] * (len(changes) % 2)


@given(cases())
def test_an_alarm_ends_only_below_off_and_not_before_min_off(case: Case) -> None:
    seen = case.run()
    for (began, _, _), (ended, score, change) in itertools.pairwise(seen):
        if change == "off":
            assert score < case.off
            assert ended - began >= case.min_off_s * S


@given(cases())
def test_no_alarm_within_the_cooldown(case: Case) -> None:
    seen = case.run()
    for (ended, _, _), (began, _, change) in itertools.pairwise(seen):
        if change == "on":
            assert began - ended >= case.cooldown_s * S


@given(cases())
@example(Case(0.5, 0.5, 1, 2, 1.0, 0.0, [(1.0, S), (0.0, 0), (1.0, S // 2), (0.0, S // 2)]))
def test_an_alarm_begins_with_a_frame_that_reaches_the_threshold(case: Case) -> None:
    """The event carries this frame's score and snapshot: they must show what was seen."""
    assert all(score >= case.on for _, score, change in case.run() if change == "on")


@given(cases())
def test_an_alarm_needs_its_votes(case: Case) -> None:
    if not any(score >= case.on for score, _ in case.steps):
        assert case.run() == []
    high = Case(*case[:6], steps=[(1.0, S)] * case.of)
    seen = high.run()
    assert seen == [(case.votes * S, 1.0, "on")]


def test_n_of_m_looks_back_on_m_frames() -> None:
    case = Case(0.5, 0.3, 2, 3, 0.0, 0.0, [(s, S) for s in (0.9, 0.1, 0.1, 0.9, 0.1, 0.9)])
    assert case.run() == [(6 * S, 0.9, "on")]


def test_hysteresis() -> None:
    scores = (0.6, 0.4, 0.31, 0.29, 0.4, 0.49, 0.5)
    case = Case(0.5, 0.3, 1, 1, 0.0, 0.0, [(s, S) for s in scores])
    assert [(t // S, c) for t, _, c in case.run()] == [(1, "on"), (4, "off"), (7, "on")]


def test_votes_from_before_the_end_do_not_count_again() -> None:
    case = Case(0.5, 0.5, 3, 8, 0.0, 0.0, [(s, S) for s in (1, 1, 1, 0, 1, 1, 0, 1)])
    assert [(t // S, c) for t, _, c in case.run()] == [(3, "on"), (4, "off"), (8, "on")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"on": 0.3, "off": 0.4},
        {"on": 1.1},
        {"off": -0.1},
        {"on": float("nan")},
        {"votes": 0},
        {"votes": 4},
        {"of": 0},
        {"cooldown_s": -1},
        {"min_off_s": -0.1},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    right = {"on": 0.5, "off": 0.4, "votes": 2, "of": 3, "cooldown_s": 1, "min_off_s": 1}
    Decision(**right)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        Decision(**(right | wrong))  # type: ignore[arg-type]
