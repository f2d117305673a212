"""The formulas behind every figure, with their sources; numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Interval = tuple[float, float]

# The 97.5 % point of the normal distribution.
Z95 = 1.959963984540054
RESAMPLES = 1000
BINS = 10
# Weights in memory at a time, 4 MB: a large data set needs no more memory than a small one.
_BLOCK = 1_000_000


def wilson(successes: int, n: int) -> Interval:
    """95 % interval of a share (Wilson 1927, without continuity correction); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    middle = p + Z95**2 / (2 * n)
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    low, high = (middle - half) / (1 + Z95**2 / n), (middle + half) / (1 + Z95**2 / n)
    # At the ends the bound is exactly 0 or 1; rounding would leave it just inside.
    return (0.0 if successes == 0 else max(0.0, low)), (1.0 if successes == n else min(1.0, high))


def expected_half_width(share: float, n: int) -> float:
    """Half of the width that `wilson` will have, before anything is measured.

    Args:
        share: that is expected, 0 to 1.
        n: number of independent pictures, at least 1.
    """
    return Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2)) / (1 + Z95**2 / n)


def pictures_for(share: float, half_width: float) -> int:
    """The smallest n of which `expected_half_width` is at most `half_width` (above 0)."""
    n = max(1, math.floor(share * (1 - share) * (Z95 / half_width) ** 2 - Z95**2))
    while expected_half_width(share, n) > half_width:
        n += 1
    return n


def paired_loss_interval(lost: int, won: int, n: int) -> Interval:
    """95 % interval of (lost - won) / n for paired answers (Agresti and Min 2005: Wald with half a count added).

    Args:
        lost: number of pictures that only the first answered correctly.
        won: number of pictures that only the second answered correctly.
        n: number of all pictures.
    """
    total = n + 2
    b, c = lost + 0.5, won + 0.5
    middle = (b - c) / total
    half = Z95 * math.sqrt(max(0.0, (b + c) - (b - c) ** 2 / total)) / total
    return max(-1.0, middle - half), min(1.0, middle + half)


def mcnemar(lost: int, won: int) -> float:
    """Two-sided p of McNemar's exact test: the binomial test of `lost` out of `lost + won` at 1/2 (McNemar 1947).

    The exact conditional test, not the mid-p: it never rejects more often than its level, at the cost of being
    conservative. 1.0 where no picture tells the two apart.
    """
    n = lost + won
    term = tail = 1
    for i in range(min(lost, won)):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << n))


def auc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float | None:
    """Area under the ROC curve, ties counted half (Mann-Whitney U); None unless there are both kinds.

    Args:
        scores: (n,) float, higher means positive.
        positive: (n,) bool.
    """
    values, is_positive = np.asarray(scores, float), np.asarray(positive, bool)
    if is_positive.all() or not is_positive.any():
        return None
    return float(weighted_auc(np.ones((1, len(values))), values, is_positive)[0])


def weighted_auc(weights: Floats, scores: Floats, positive: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """`auc` of each resample.

    Args:
        weights: (resamples, n) how often each picture was drawn.
        scores: (n,).
        positive: (n,) bool.

    Returns:
        (resamples,), NaN where only one kind was drawn.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    drawn, is_positive = weights[:, order], positive[order]
    # For each distinct score the number of pictures of each kind.
    high = np.add.reduceat(drawn * is_positive, starts, axis=1).astype(np.float64)
    low = np.add.reduceat(drawn * ~is_positive, starts, axis=1).astype(np.float64)
    below = np.cumsum(low, axis=1) - low
    pairs = high.sum(1) * low.sum(1)
    won = (high * (below + low / 2)).sum(1)
    areas = np.full(len(pairs), np.nan)
    np.divide(won, pairs, out=areas, where=pairs > 0)
    return areas


def mean_of_labels(values: npt.NDArray[Any], truth: npt.NDArray[np.integer]) -> float:
    """Mean of values in which every label that occurs counts the same; of correct answers, balanced accuracy.

    Args:
        values: (n,) of the pictures.
        truth: (n,) index of the true label.
    """
    return float(np.mean([values[truth == label].mean() for label in np.unique(truth)]))


def log_losses(scores: Floats, truth: npt.NDArray[np.intp], step: float) -> npt.NDArray[np.float64]:
    """(n,) negative logarithms (nats) of the score of the true label; their mean is the NLL.

    Args:
        scores: (n, labels), as the int8 network gives them: not made to add up to 1 again.
        truth: (n,) index of the true label.
        step: of the output's quantization. A score of 0 stands for anything below half of it, so it counts as that.
    """
    return np.asarray(-np.log(np.clip(scores[np.arange(len(truth)), truth], step / 2, 1.0)), np.float64)


def brier_scores(scores: Floats, truth: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """(n,) squared errors summed over all labels (Brier 1950: 0 to 2, twice the usual binary one); the mean is Brier.

    Args:
        scores: (n, labels).
        truth: (n,) index of the true label.
    """
    targets = np.eye(scores.shape[1])[truth]
    return np.asarray(((scores - targets) ** 2).sum(1), np.float64)


def calibration_error(confidence: Floats, correct: npt.NDArray[np.bool_], bins: int = BINS) -> float | None:
    """Expected calibration error of the answer (Guo et al. 2017): mean of |accuracy - mean score| over the bins.

    Bins have equal width from 0 to 1, are closed below (the last one above too), and are weighted by their number of
    pictures. There is no interval: the figure is never negative, so resampling shifts it upwards.

    Args:
        confidence: (n,) score of the answered label.
        correct: (n,) bool.
        bins: number of bins.

    Returns:
        0 to 1; None for n = 0.
    """
    if len(confidence) == 0:
        return None
    bin_numbers = np.clip((confidence * bins).astype(int), 0, bins - 1)
    gaps = np.bincount(bin_numbers, np.asarray(correct, float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def bootstrap(
    groups: Sequence[str],
    labels: Sequence[str],
    figures: Callable[[Floats], npt.NDArray[np.float64]],
    *,
    resamples: int = RESAMPLES,
    seed: int | np.random.Generator = 0,
) -> npt.NDArray[np.float64] | None:
    """Figures of resamples of the groups within each label (Efron and Tibshirani 1993, chapters 8 and 13).

    Whole groups are drawn, as the pictures of one group (near-duplicates, frames of one track) are not independent of
    each other: drawn one by one they would make every interval too narrow. They are drawn within the label of their
    first picture, so that every resample has about the label frequencies of the data set, which are taken as given.

    Args:
        groups: (n,) the group of each picture.
        labels: (n,) its true label.
        figures: (rows, n) how often each picture was drawn -> (rows, figures), NaN where a figure is undefined.
        resamples: number of resamples.
        seed: of the random draws, or what draws.

    Returns:
        (resamples, figures); None without pictures, and where a label has a single group, whose variation is
        unknown.
    """
    names, first, member = np.unique(np.asarray(groups, str), return_index=True, return_inverse=True)
    _, stratum = np.unique(np.asarray(labels, str)[first], return_inverse=True)
    sizes = np.bincount(stratum)
    if len(sizes) == 0 or sizes.min() < 2:
        return None
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(groups))
    blocks = []
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        weights = np.empty((count, len(names)), np.float32)
        for number, size in enumerate(sizes):
            drawn = rng.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
            weights[:, stratum == number] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        blocks.append(figures(weights[:, member]))
    return np.concatenate(blocks)


def percentile_interval(values: npt.NDArray[np.float64]) -> Interval | None:
    """95 % percentile interval of a figure's resamples, (resamples,), of which NaN are left out.

    None where all are the same, such as the AUC of labels that are told apart without a mistake: the bootstrap cannot
    show the uncertainty of the figure then.
    """
    values = values[~np.isnan(values)]
    if len(values) == 0 or np.ptp(values) < 1e-12:
        return None
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
