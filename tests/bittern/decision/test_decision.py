"""Decisions against a plain model of them, for any scores and times."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bittern.config.schema import AlarmConfig, DecisionConfig
from bittern.decision.decision import Change, Decision, Settings, settings_of
from bittern.errors import ConfigurationError
from bittern.events import AlarmKey
from bittern.model.manifest import Head, StreamPoint, Streams, Threshold

S = 1_000_000_000


class Case(NamedTuple):
    on: float
    off: float
    votes: int
    of: int
    cooldown_s: float
    min_off_s: float
    evidence: float
    steps: list[tuple[float, int]]  # score, ns since the frame before

    def run(self) -> list[tuple[int, float, Change]]:
        """Every change as (time in ns, score, change)."""
        decision = Decision(**{k: v for k, v in self._asdict().items() if k != "steps"})
        now = 0
        changes: list[tuple[int, float, Change]] = []
        for score, gap in self.steps:
            now += gap
            change = decision.update(score, now)
            assert decision.alarm == (changes[-1][2] == "on" if changes and change is None else change == "on")
            if change is not None:
                changes.append((now, score, change))
        return changes


@st.composite
def cases(draw: st.DrawFn) -> Case:
    # Few distinct values, so that equal scores and times, where mistakes live, are common.
    score = st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.7, 0.8, 1.0])
    on, off = sorted((draw(score), draw(score)), reverse=True)
    of = draw(st.integers(1, 6))
    seconds = st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0])
    gap = st.sampled_from([0, S // 10, S // 2, S, 3 * S])
    steps = draw(st.lists(st.tuples(score, gap), max_size=60))
    evidence = draw(st.sampled_from([0.0, 0.0, 0.5, 2.0, 5.0]))
    return Case(on, off, draw(st.integers(1, of)), of, draw(seconds), draw(seconds), evidence, steps)


def naive(case: Case) -> list[tuple[int, float, Change]]:
    """The class docstring, word for word, over the whole history."""
    changes: list[tuple[int, float, Change]] = []
    history: list[tuple[int, float]] = []  # since the last change to off
    evidence, peak, now = 0.0, 0.0, 0
    for i, (score, gap) in enumerate(case.steps):
        now += gap
        history.append((now, score))
        weight = 1 if i == 0 else min(1, gap / (S / 5))
        excess = logit(score) - min(logit(case.on), logit(1.0) - 0.5)
        evidence = min(max(0, evidence + weight * min(1.5, max(-1.5, excess))), case.evidence)
        if changes and changes[-1][2] == "on":
            began = changes[-1][0]
            high = max([t for t, s in history if s >= case.off and t >= began] + [began])
            peak = max(peak, score)
            if score < case.off and now - high >= case.min_off_s * S:
                changes.append((now, score, "off"))
                history.clear()
                evidence = 0
        else:
            reached = sum(s >= case.on for _, s in history[-case.of :])
            cooled = not changes or now - changes[-1][0] >= case.cooldown_s * S
            cooled = cooled or logit(score) >= logit(peak) + 2
            if score >= case.on and reached >= case.votes and evidence >= case.evidence and cooled:
                changes.append((now, score, "on"))
                peak = score
    return changes


def logit(score: float) -> float:
    score = min(255 / 256, max(1 / 256, score))
    return math.log(score / (1 - score))


@given(cases())
def test_it_does_what_its_docstring_says(case: Case) -> None:
    assert case.run() == naive(case)


@given(cases())
def test_on_and_off_alternate(case: Case) -> None:
    changes = [change for _, _, change in case.run()]
    assert changes == ["on", "off"] * (len(changes) // 2) + ["on"] * (len(changes) % 2)


@given(cases())
def test_an_alarm_ends_only_below_off_and_not_before_min_off(case: Case) -> None:
    changes = case.run()
    for (began, _, _), (ended, score, change) in itertools.pairwise(changes):
        if change == "off":
            assert score < case.off
            assert ended - began >= case.min_off_s * S


@given(cases())
def test_within_the_cooldown_an_alarm_takes_a_much_higher_score_than_the_last_one(case: Case) -> None:
    changes = case.run()
    triples = zip(changes, changes[1:], changes[2:], strict=False)
    for (last, highest, _), (ended, _, _), (began, score, change) in triples:
        if change == "on" and began - ended < case.cooldown_s * S:
            assert logit(score) >= logit(highest) + 2, last


@given(cases())
@example(Case(0.5, 0.5, 1, 2, 1.0, 0.0, 0.0, [(1.0, S), (0.0, 0), (1.0, S // 2), (0.0, S // 2)]))
def test_an_alarm_begins_with_a_frame_that_reaches_the_threshold(case: Case) -> None:
    """The event carries this frame's score and snapshot: they must show what was seen."""
    assert all(score >= case.on for _, score, change in case.run() if change == "on")


@given(cases())
def test_an_alarm_needs_its_votes(case: Case) -> None:
    if not any(score >= case.on for score, _ in case.steps):
        assert case.run() == []
    high = case._replace(evidence=0.0, steps=[(1.0, S)] * case.of)
    assert high.run() == [(case.votes * S, 1.0, "on")]


@given(cases(), st.sampled_from([5, 25, 100]))
def test_evidence_takes_time_however_many_frames_there_are(case: Case, fps: int) -> None:
    """A certain answer at every frame: the alarm comes after the same time, whatever the rate."""
    certain = case._replace(on=0.5, off=0.5, votes=1, of=1, evidence=4.0, steps=[(1.0, S // fps)] * fps)
    ((at_ns, _, _),) = certain.run()
    # The first frame counts for a fifth of a second that was not waited for.
    assert at_ns == pytest.approx((4 / 1.5 - 1) / 5 * S + S // fps, abs=S // fps + 1)


def test_one_frame_is_not_enough_and_two_are() -> None:
    case = Case(0.5, 0.5, 1, 1, 0.0, 0.0, 2.0, [(s, S // 5) for s in (1.0, 0.0, 1.0, 0.0, 1.0, 1.0)])
    assert case.run() == [(6 * S // 5, 1.0, "on")]


def test_a_threshold_next_to_certainty_can_be_reached() -> None:
    case = Case(255 / 256, 0.5, 1, 1, 0.0, 0.0, 2.0, [(255 / 256, S)] * 4)
    assert case.run() == [(4 * S, 255 / 256, "on")]


def test_a_true_alarm_after_a_false_one_does_not_wait_for_the_cooldown() -> None:
    scores = (0.7, 0.7, 0.1, 0.7, 0.7, 0.98, 0.98)
    case = Case(0.5, 0.3, 1, 1, 60.0, 0.0, 0.0, [(s, S) for s in scores])
    assert [(t // S, c) for t, _, c in case.run()] == [(1, "on"), (3, "off"), (6, "on")]


def test_n_of_m_looks_back_on_m_frames() -> None:
    case = Case(0.5, 0.3, 2, 3, 0.0, 0.0, 0.0, [(s, S) for s in (0.9, 0.1, 0.1, 0.9, 0.1, 0.9)])
    assert case.run() == [(6 * S, 0.9, "on")]


def test_hysteresis() -> None:
    scores = (0.6, 0.4, 0.31, 0.29, 0.4, 0.49, 0.5)
    case = Case(0.5, 0.3, 1, 1, 0.0, 0.0, 0.0, [(s, S) for s in scores])
    assert [(t // S, c) for t, _, c in case.run()] == [(1, "on"), (4, "off"), (7, "on")]


def test_votes_from_before_the_end_do_not_count_again() -> None:
    case = Case(0.5, 0.5, 3, 8, 0.0, 0.0, 0.0, [(s, S) for s in (1, 1, 1, 0, 1, 1, 0, 1)])
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
        {"evidence": -0.1},
        {"evidence": float("nan")},
        {"evidence": float("inf")},
        {"cooldown_s": -1},
        {"min_off_s": -0.1},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    right = {"on": 0.5, "off": 0.4, "evidence": 2.0, "votes": 2, "of": 3, "cooldown_s": 1, "min_off_s": 1}
    Decision(**right)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        Decision(**(right | wrong))  # type: ignore[arg-type]


# --- still, blind, and another model ---


def made(**other: Any) -> Decision:
    values = {"on": 0.5, "off": 0.3, "votes": 2, "of": 3, "cooldown_s": 0.0, "min_off_s": 1.0}
    return Decision(**(values | other))


@given(cases())
def test_a_settled_decision_stays_as_it_is_while_the_score_does(case: Case) -> None:
    """What the gate rests on: frames like the last change nothing, unless the decision says that it is unsettled."""
    decision, now, last = Decision(**{k: v for k, v in case._asdict().items() if k != "steps"}), 0, 0.0
    for last, gap in case.steps:
        now += gap
        decision.update(last, now)
    if case.steps and not decision.unsettled:
        alarm = decision.alarm
        for _ in range(10):
            now += S
            assert decision.update(last, now) is None
        assert decision.alarm == alarm


def test_what_was_held_counts_as_seen() -> None:
    decision = made()
    assert [decision.update(0.9, t * S) for t in (0, 1)] == [None, "on"]
    decision.hold(60 * S)
    assert decision.update(0.1, 60 * S + S // 2) is None, "it was there half a second ago"
    decision.hold(100 * S)
    assert decision.update(0.1, 61 * S) == "off", "a low score is not held"


def test_blind_frames_raise_no_alarm_and_end_none() -> None:
    decision = made()
    decision.update(0.9, 0)
    decision.blind(1 * S)
    assert not decision.unsettled
    assert decision.update(0.9, 2 * S) is None, "the vote from before is forgotten"
    assert decision.update(0.9, 3 * S) == "on"
    for t in range(4, 60):
        decision.blind(t * S)
    assert decision.alarm
    assert decision.update(0.1, 60 * S - 1) is None
    assert decision.update(0.1, 60 * S) == "off", "min_off_s after the last blind frame"


def test_a_decision_goes_on_where_another_stood() -> None:
    old = made(cooldown_s=10)
    for t, score in enumerate((0.9, 0.9, 0.1, 0.1)):
        old.update(score, t * S)
    assert not old.alarm
    new = made(on=0.8, cooldown_s=10)
    new.take_over(old)
    assert [new.update(s, t * S) for t, s in ((4, 0.9), (5, 0.9), (11, 0.9), (12, 0.9))] == [None, None, None, "on"]
    last = made(of=1, votes=1)
    last.take_over(new)
    assert last.alarm
    assert [last.update(0.1, t * S) for t in (12, 13)] == [None, "off"]


# --- which settings a label has ---


def head(task: str, *alarm: str, quiet: bool = True) -> Head:
    thresholds = {"default": Threshold(on=0.5, off=0.4, chosen_for="x")}
    if quiet:
        thresholds["quiet"] = Threshold(on=0.9, off=0.7, chosen_for="x")
    return Head(
        task=task, output="o", labels=(*alarm, "none"), alarm=alarm, scale=1 / 256, zero_point=0, thresholds=thresholds
    )


MODELS = {
    "street": (head("signs", "stop", "yield"),),
    "yard": (head("pets", "dog"), head("signs", "stop", quiet=False)),
}
STREET_STOP, STREET_YIELD = AlarmKey("street", "signs", "stop"), AlarmKey("street", "signs", "yield")
YARD_DOG, YARD_STOP = AlarmKey("yard", "pets", "dog"), AlarmKey("yard", "signs", "stop")


def settings(*alarms: AlarmConfig, **default: Any) -> dict[AlarmKey, Settings]:
    return settings_of(MODELS, DecisionConfig(**default), alarms)


def test_without_entries_all_have_the_default() -> None:
    assert set(settings().values()) == {Settings(0.5, 0.4, 5.0, 0.5, 2.0)}
    assert list(settings()) == [STREET_STOP, STREET_YIELD, YARD_DOG, YARD_STOP]


def test_the_entry_that_names_most_wins_then_the_later_one() -> None:
    votes = {
        key: decided.votes
        for key, decided in settings(
            AlarmConfig(model="street", label="stop", votes=1, of=9),
            AlarmConfig(votes=3, of=9),
            AlarmConfig(label="stop", votes=4, of=9),
            AlarmConfig(model="yard", votes=5, of=9),
            AlarmConfig(model="yard", votes=6, of=9),
        ).items()
    }
    assert votes == {STREET_STOP: 1, STREET_YIELD: 3, YARD_DOG: 6, YARD_STOP: 6}


def test_a_threshold_may_be_a_promise() -> None:
    streams = Streams(
        hours=10.0, passings=20, points=(StreamPoint(0.4, 1.0, 5.0), StreamPoint(0.75, 0.9, 0.5)), tail=None
    )
    model = {"m": (msgspec.structs.replace(head("signs", "stop"), streams=streams),)}
    promised = settings_of(model, DecisionConfig(threshold="at most 1 false alarm an hour"), ())
    assert promised[AlarmKey("m", "signs", "stop")].on == 0.75
    with pytest.raises(ConfigurationError, match="model 'm' has no threshold that promises"):
        settings_of(model, DecisionConfig(threshold="at most 1 false alarm a day"), ())


def test_votes_alone_are_counted_without_evidence() -> None:
    assert settings(votes=2)[STREET_STOP][4:] == (0.0, 2, 3)
    assert settings(of=5)[STREET_STOP][4:] == (0.0, 2, 5)
    assert settings(evidence=1.0, of=5)[STREET_STOP][4:] == (1.0, 2, 5)
    assert settings(AlarmConfig(evidence=3.0), votes=1, of=1)[STREET_STOP][4:] == (3.0, 1, 1)
    assert settings(AlarmConfig(label="stop", votes=3))[STREET_STOP][4:] == (0.0, 3, 3)
    assert settings(AlarmConfig(label="stop", votes=3))[YARD_DOG][4:] == (2.0, 1, 1)


def test_an_entry_leaves_the_rest_to_decision() -> None:
    stop = settings(AlarmConfig(label="stop", min_off_s=7.0), threshold=0.8, votes=1, of=1, cooldown_s=9.0)
    assert stop[STREET_STOP] == Settings(0.8, 0.4, 9.0, 7.0, 0.0)
    assert stop[STREET_YIELD] == Settings(0.8, 0.4, 9.0, 0.5, 0.0)
    quiet = settings(AlarmConfig(model="street", label="stop", threshold="quiet"))
    assert quiet[STREET_STOP][:2] == (0.9, 0.7)


def test_two_heads_for_one_task_and_label_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="model 'm' has two heads with task 'pets' and alarm label 'dog'"):
        settings_of({"m": (head("pets", "dog"), head("pets", "cat", "dog"))}, DecisionConfig(), ())


@pytest.mark.parametrize(
    ("entry", "default", "says"),
    [
        (
            AlarmConfig(model="stret"),
            {},
            "alarm 1: model 'stret' is not configured: models has 'street', 'yard'; did you mean 'street'?",
        ),
        (
            AlarmConfig(label="stpo"),
            {},
            "alarm 1: no alarm label 'stpo': expected 'stop', 'yield', 'dog'; did you mean 'stop'?",
        ),
        (
            AlarmConfig(model="street", label="dog"),
            {},
            "no alarm label 'dog' of model 'street': expected 'stop', 'yield'",
        ),
        (
            AlarmConfig(label="none"),
            {},
            "alarm 1: label 'none' does not raise an alarm; these do: 'stop', 'yield', 'dog'",
        ),
        (
            AlarmConfig(label="stop", threshold="quiet"),
            {},
            "alarm 1.threshold: model 'yard' has no threshold 'quiet'; it has default",
        ),
        (AlarmConfig(votes=4), {}, "alarm 1, with the rest from [decision]: votes (4) must not exceed of (3)"),
        (AlarmConfig(threshold=0.3), {"off": 0.4}, "off (0.4) must not exceed threshold (0.3)"),
        (AlarmConfig(threshold="default", off=0.6), {}, "alarm 1.off 0.6 is above the threshold 0.5 of model 'street'"),
    ],
    ids=str,
)
def test_entries_that_fit_nothing_are_refused(entry: AlarmConfig, default: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(entry, **default)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
