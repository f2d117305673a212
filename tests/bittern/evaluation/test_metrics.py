"""The formulas against published values, against their definition counted out, and against simulated truth."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.evaluation import metrics
from bittern.evaluation.metrics import auc, mcnemar, paired_loss_interval, wilson

# --- shares ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # The mirror of the third.
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_against_a_published_table(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing() -> None:
    assert wilson(0, 0) == (0, 1)


@given(st.integers(1, 10_000), st.data())
def test_wilson_holds_the_share_and_mirrors(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low))
    # The ends solve |p - k/n| = z * sqrt(p (1 - p) / n).
    for p in (low, high):
        if 0 < p < 1:
            assert abs(p - k / n) == pytest.approx(metrics.Z95 * math.sqrt(p * (1 - p) / n), rel=1e-6, abs=1e-12)


# --- two models on the same pictures ---------------------------------------------------------------------------------


def test_paired_interval_against_the_published_example() -> None:
    # Agresti and Min 2005, section 2: n = 1144 matched pairs, 132 against 107 discordant: 0.022 (-0.004 to 0.048).
    low, high = paired_loss_interval(132, 107, 1144)
    assert low == pytest.approx(-0.0046, abs=0.0015)
    assert high == pytest.approx(0.0484, abs=0.0015)


@given(st.integers(1, 5000), st.data())
def test_paired_interval_holds_the_difference(n: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, n))
    won = data.draw(st.integers(0, n - lost))
    low, high = paired_loss_interval(lost, won, n)
    assert -1 <= low <= (lost - won) / (n + 2) <= high <= 1
    assert paired_loss_interval(won, lost, n) == pytest.approx((-high, -low))


@given(st.integers(0, 11), st.integers(0, 11))
def test_mcnemar_counts_the_coins_that_fall_as_far_off(lost: int, won: int) -> None:
    n = lost + won
    off = abs(lost - won)
    as_far = sum(math.comb(n, k) for k in range(n + 1) if abs(n - 2 * k) >= off)
    assert mcnemar(lost, won) == pytest.approx(float(Fraction(as_far, 2**n)), rel=1e-12)
    assert mcnemar(lost, won) == mcnemar(won, lost)


def test_mcnemar_of_known_and_of_large_counts() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(7, 7) == 1
    assert mcnemar(0, 6) == 0.03125
    # Thousands of pictures neither overflow nor round to nothing too early.
    assert mcnemar(5000, 5000) == 1
    assert 0 < mcnemar(400, 600) < 1e-9


# --- area under the curve --------------------------------------------------------------------------------------------

few_scores = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])


@given(st.lists(st.tuples(few_scores, st.booleans()), max_size=40))
def test_auc_counts_pairs(scored: list[tuple[float, bool]]) -> None:
    high = [s for s, positive in scored if positive]
    low = [s for s, positive in scored if not positive]
    area = auc([s for s, _ in scored], [p for _, p in scored])
    if not high or not low:
        assert area is None
    else:
        wins = sum((h > x) + (h == x) / 2 for h in high for x in low)
        assert area == pytest.approx(wins / (len(high) * len(low)))


def test_auc_of_extremes() -> None:
    assert auc([0.9, 0.8, 0.1], [True, True, False]) == 1
    assert auc([0.1, 0.2, 0.9], [True, True, False]) == 0
    assert auc([0.5] * 7, [True] * 3 + [False] * 4) == 0.5


@given(st.lists(st.tuples(few_scores, st.booleans(), st.integers(0, 3)), min_size=1, max_size=25))
def test_a_weight_is_as_good_as_a_picture_that_is_there_so_often(scored: list[tuple[float, bool, int]]) -> None:
    scores, positive, times = (np.array(column) for column in zip(*scored, strict=True))
    (area,) = metrics.weighted_auc(times[None].astype(np.float32), scores, positive)
    expected = auc(np.repeat(scores, times), np.repeat(positive, times))
    if expected is None:
        assert np.isnan(area)
    else:
        assert area == pytest.approx(expected)


# --- how sure the scores are -----------------------------------------------------------------------------------------

STEP = 1 / 256


@st.composite
def scored_pictures(draw: st.DrawFn) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], list[int]]:
    labels = draw(st.integers(2, 4))
    raw = draw(st.lists(st.lists(st.integers(0, 255), min_size=labels, max_size=labels), min_size=1, max_size=20))
    truth = draw(st.lists(st.integers(0, labels - 1), min_size=len(raw), max_size=len(raw)))
    return np.array(raw) * STEP, truth


@given(scored_pictures())
def test_nll_and_brier_by_their_definition(
    scored: tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], list[int]],
) -> None:
    scores, truth = scored
    losses = metrics.log_losses(scores, np.array(truth), STEP)
    errors = metrics.brier_scores(scores, np.array(truth))
    for i, label in enumerate(truth):
        assert losses[i] == pytest.approx(-math.log(scores[i][label] or STEP / 2))
        squared_error = sum((score - (k == label)) ** 2 for k, score in enumerate(scores[i]))
        assert errors[i] == pytest.approx(squared_error)
        assert 0 <= losses[i] <= math.log(512)


@given(st.lists(st.tuples(st.integers(0, 256), st.booleans()), min_size=1, max_size=20), st.integers(1, 20))
def test_calibration_error_bin_by_bin(answers: list[tuple[int, bool]], bins: int) -> None:
    ece = metrics.calibration_error(
        np.array([q * STEP for q, _ in answers]), np.array([right for _, right in answers]), bins
    )
    expected = Fraction(0)
    for b in range(bins):
        last = b == bins - 1
        inside = [
            (Fraction(q, 256), r) for q, r in answers if b * 256 <= q * bins and (last or q * bins < (b + 1) * 256)
        ]
        if inside:
            right = Fraction(sum(r for _, r in inside), len(inside))
            score = sum((q for q, _ in inside), Fraction(0)) / len(inside)
            expected += Fraction(len(inside), len(answers)) * abs(right - score)
    assert ece == pytest.approx(float(expected), abs=1e-12)


def test_calibration_error_of_extremes() -> None:
    sure = np.ones(8)
    assert metrics.calibration_error(sure, np.ones(8, bool)) == 0
    assert metrics.calibration_error(sure, np.zeros(8, bool)) == 1
    assert metrics.calibration_error(np.full(8, 0.75), np.array([True] * 6 + [False] * 2)) == 0
    assert metrics.calibration_error(np.array([]), np.array([], bool)) is None


# --- bootstrap -------------------------------------------------------------------------------------------------------


def drawn_auc(
    scores: metrics.Floats, positive: np.ndarray[tuple[int], np.dtype[np.bool_]], groups: list[str], **options: int
) -> metrics.Interval | None:
    def figures(weights: metrics.Floats) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        return metrics.weighted_auc(weights, scores, positive)[:, None]

    resamples = metrics.bootstrap(groups, [str(p) for p in positive], figures, **options)
    return None if resamples is None else metrics.percentile_interval(resamples[:, 0])


def made(seed: int, each: int, shift: float) -> tuple[metrics.Floats, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    rng = np.random.default_rng(seed)
    return np.r_[rng.normal(shift, 1, each), rng.normal(0, 1, each)], np.arange(2 * each) < each


def test_resamples_have_as_many_groups_of_each_label_as_there_are() -> None:
    groups = ["a", "a", "b", "c", "d", "d", "d", "e"]
    labels = ["x", "x", "x", "x", "y", "y", "x", "y"]
    drawn = []
    metrics.bootstrap(groups, labels, lambda w: drawn.append(w) or w.sum(1)[:, None], resamples=200)  # type: ignore[func-returns-value]
    weights = np.concatenate(drawn)
    assert weights.shape == (200, 8)
    # The pictures of a group go together; d counts as a group of its first picture's label.
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 4] == weights[:, 5]).all()
    assert (weights[:, 4] == weights[:, 6]).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()
    assert (weights[:, [4, 7]].sum(1) == 2).all()
    # Each way to draw two of two and three of three comes.
    assert {tuple(w) for w in weights[:, [4, 7]]} == {(0, 2), (1, 1), (2, 0)}
    assert {tuple(w) for w in weights[:, [0, 2, 3]]} == {
        c for c in itertools.product(range(4), repeat=3) if sum(c) == 3
    }


def test_the_interval_holds_the_true_area_about_as_often_as_it_says() -> None:
    # The area of two normal distributions that lie `shift` apart (Hanley and McNeil 1982).
    shift, n = 1.2, 40
    truth = 0.5 * (1 + math.erf(shift / 2))
    held = 0
    for seed in range(150):
        scores, positive = made(seed, n, shift)
        interval = drawn_auc(scores, positive, [str(i) for i in range(2 * n)], resamples=200)
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
    assert 0.90 <= held / 150 <= 0.99


def test_copies_of_a_picture_in_its_group_make_nothing_surer() -> None:
    scores, positive = made(1, 30, 1.0)
    alone = drawn_auc(scores, positive, [f"{i:03}" for i in range(60)])
    together = drawn_auc(np.repeat(scores, 4), np.repeat(positive, 4), [f"{i:03}" for i in range(60) for _ in range(4)])
    apart = drawn_auc(np.repeat(scores, 4), np.repeat(positive, 4), [f"{i:03}" for i in range(240)])
    assert alone is not None
    assert together == pytest.approx(alone)
    assert apart is not None
    assert apart[1] - apart[0] < 0.6 * (alone[1] - alone[0])


def test_the_same_seed_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, positive = made(2, 25, 0.8)
    groups = [str(i) for i in range(50)]
    assert drawn_auc(scores, positive, groups) == drawn_auc(scores, positive, groups)
    assert drawn_auc(scores, positive, groups, seed=1) != drawn_auc(scores, positive, groups)
    # In pieces it is another drawing of as many resamples.
    whole = drawn_auc(scores, positive, groups)
    monkeypatch.setattr(metrics, "_BLOCK", 50 * 7)
    sizes: list[int] = []
    metrics.bootstrap(groups, groups[:1] * 50, lambda w: sizes.append(len(w)) or w[:, :1])  # type: ignore[func-returns-value, arg-type, return-value]
    assert set(sizes[:-1]) == {7}
    assert sum(sizes) == 1000
    assert drawn_auc(scores, positive, groups) == pytest.approx(whole, abs=0.03)


def test_no_interval_where_a_bootstrap_cannot_tell() -> None:
    scores, positive = np.array([0.9, 0.8, 0.7, 0.2, 0.1]), np.array([True, True, False, False, False])
    apart = list("abcde")
    assert drawn_auc(np.array([0.6, 0.8, 0.7, 0.2, 0.1]), positive, apart) is not None
    assert drawn_auc(scores, positive, apart) is None, "told apart without a mistake"
    assert drawn_auc(np.array([0.6, 0.8, 0.7, 0.2, 0.1]), positive, list("aacde")) is None, "one group of a label"
    assert drawn_auc(np.array([]), np.array([], bool), []) is None
    assert metrics.percentile_interval(np.array([np.nan, np.nan])) is None
    assert metrics.percentile_interval(np.r_[np.nan, np.linspace(0, 1, 201)]) == pytest.approx((0.025, 0.975))
