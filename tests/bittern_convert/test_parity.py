"""The arithmetic of the parity check, on made-up scores."""

from __future__ import annotations

import numpy as np
import pytest

from bittern_convert import parity
from bittern_convert.parity import Pair, judge


def pair(n: int, flips: int, parent_wrong: int = 0) -> Pair:
    """Scores of n pictures of label 0; int8 answers `flips` of those that the parent answers correctly with label 1."""
    targets = np.zeros(n, np.int64)
    parent = np.tile(np.array([0.9, 0.1], np.float32), (n, 1))
    parent[n - parent_wrong :] = (0.1, 0.9)
    int8 = parent.copy()
    int8[:flips] = (0.4, 0.6)
    return Pair(parent, int8, targets)


def test_equal_networks_pass() -> None:
    outcome = judge(pair(1200, 0, parent_wrong=100), ["a"] * 1000 + ["b"] * 200)
    assert outcome.passed
    assert not outcome.reason
    assert outcome.kinds == {"a": 1000, "b": 200}
    assert outcome.same == outcome.n == 1200
    assert outcome.loss == 0
    assert outcome.loss_ci95[0] < 0 < outcome.loss_ci95[1]


def test_too_few_pictures_fail() -> None:
    outcome = judge(pair(parity.PICTURES - 1, 0), ["a"] * (parity.PICTURES - 1))
    assert not outcome.passed
    assert "too few" in outcome.reason


def test_the_limit_of_agreement_is_two_in_a_hundred() -> None:
    # The flips go both ways here, so that accuracy is lost on neither side.
    for flips, passes in ((20, True), (22, False)):
        p = pair(1000, 0)
        targets = p.targets.copy()
        p.int8[:flips] = (0.4, 0.6)
        targets[: flips // 2] = 1
        outcome = judge(Pair(p.parent, p.int8, targets), ["a"] * 1000)
        assert outcome.passed is passes, outcome.reason
        assert outcome.flipped == list(range(flips))


def test_a_loss_over_a_point_that_can_be_told_from_zero_fails() -> None:
    outcome = judge(pair(1000, 15), ["a"] * 1000)
    assert outcome.agreement == pytest.approx(0.985)
    assert not outcome.passed
    assert "points of accuracy" in outcome.reason
    # Below a point it is allowed, whatever the interval says.
    assert judge(pair(1000, 9), ["a"] * 1000).passed
