"""Thresholds from out-of-fold scores."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bittern_train.thresholds import NOTHING_FALSE_ALARMS, QUIET_FALSE_ALARMS, choose


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
    assert set(chosen) == {"default", "quiet", "sensitive"}
    for threshold in chosen.values():
        assert 0 <= threshold.off <= threshold.on <= 1
    quiet = chosen["quiet"].on
    if quiet < 255 / 256:
        assert (scores[~positive] >= quiet).mean() <= QUIET_FALSE_ALARMS
    sensitive = chosen["sensitive"].on
    if sensitive > 1 / 256:
        assert (scores[positive] >= sensitive).mean() >= 0.99
    assert sensitive <= chosen["default"].on <= quiet


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
