"""The device's formulas against scikit-learn and scipy, which only the host has."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from bittern.evaluation import metrics


@pytest.fixture(params=[(2, 60), (3, 250), (5, 1000)], ids=str)
def scored(request: pytest.FixtureRequest) -> tuple[metrics.Floats, np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """Scores (n, labels) in steps of 1/256 that add up to 1, and true labels."""
    labels, n = request.param
    rng = np.random.default_rng(labels)
    truth = rng.integers(0, labels, n)
    chances = rng.dirichlet(np.ones(labels), n) + 0.5 * np.eye(labels)[truth]
    raw = np.array([rng.multinomial(256, p / p.sum()) for p in chances])
    return raw / 256, truth


def test_areas(scored: tuple[metrics.Floats, np.ndarray[tuple[int], np.dtype[np.intp]]]) -> None:
    scores, truth = scored
    labels = range(scores.shape[1])
    areas = [metrics.auc(scores[:, i], truth == i) for i in labels]
    assert areas == pytest.approx([sk.roc_auc_score(truth == i, scores[:, i]) for i in labels])
    if len(labels) > 2:
        macro = sk.roc_auc_score(truth, scores, multi_class="ovr", average="macro")
        assert np.mean(np.array(areas, float)) == pytest.approx(macro)
    weights = np.random.default_rng(0).integers(0, 4, (3, len(truth))).astype(np.float32)
    for i in labels:
        areas_of_resamples = metrics.weighted_auc(weights, scores[:, i], truth == i)
        expected = [sk.roc_auc_score(truth == i, scores[:, i], sample_weight=w) for w in weights]
        assert areas_of_resamples == pytest.approx(expected)


def test_nll_and_brier(scored: tuple[metrics.Floats, np.ndarray[tuple[int], np.dtype[np.intp]]]) -> None:
    scores, truth = scored
    labels = list(range(scores.shape[1]))
    # Half a step in place of 0 makes the rows a little more than 1; where a true label's score is 0 they differ.
    positive = scores[np.arange(len(truth)), truth] > 0
    losses = metrics.log_losses(scores, truth, 1 / 256)
    assert losses[positive].mean() == pytest.approx(sk.log_loss(truth[positive], scores[positive], labels=labels))
    assert losses[~positive] == pytest.approx(np.log(512))
    brier = sk.brier_score_loss(truth, scores, labels=labels, scale_by_half=False)
    if len(labels) == 2:
        brier = 2 * sk.brier_score_loss(truth, scores[:, 1], scale_by_half=True)
    assert metrics.brier_scores(scores, truth).mean() == pytest.approx(brier)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (0, 5), (3, 9), (12, 12), (40, 61), (700, 800)])
def test_mcnemar(lost: int, won: int) -> None:
    expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert metrics.mcnemar(lost, won) == pytest.approx(expected)


@pytest.mark.parametrize(("k", "n"), [(0, 8), (8, 8), (73, 79), (219, 245), (1, 1000)])
def test_wilson(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(0.95, "wilson")
    assert metrics.wilson(k, n) == pytest.approx((expected.low, expected.high))
    assert pytest.approx(stats.norm.ppf(0.975)) == metrics.Z95


def test_bootstrap_of_a_mean() -> None:
    """Of one label, and each picture a group of its own, it is the ordinary bootstrap."""
    values = np.random.default_rng(3).exponential(1.0, 120)
    drawn = metrics.bootstrap(
        [str(i) for i in range(120)],
        ["x"] * 120,
        lambda weights: (weights @ values / weights.sum(1))[:, None],
        resamples=5000,
    )
    assert drawn is not None
    ours = metrics.percentile_interval(drawn[:, 0])
    theirs = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.02)
