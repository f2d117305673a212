"""How much is enough: the promised interval holds what is seen when the pictures have come."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from tests.doubles.repetitions import FULL

from bittern.errors import ConfigurationError
from bittern_train import growth_study, learning_curve
from bittern_train.learning_curve import Curve

Drawn = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def drawn_task(rng: np.random.Generator) -> tuple[Callable[[int], Drawn], int]:
    """A task as features: each label is three clouds; how far apart they are is drawn too."""
    channels, labels = int(rng.integers(20, 80)), int(rng.integers(2, 4))
    means = rng.normal(0, rng.uniform(0.1, 0.5), (labels, 3, channels))
    scale = rng.uniform(0.5, 1.5, channels)

    def draw(n: int) -> Drawn:
        targets = rng.integers(0, labels, n)
        clouds = means[targets, rng.integers(0, 3, n)]
        return clouds + rng.normal(0, 1, (n, channels)) * scale, targets

    return draw, labels


def later_accuracy(trained: Drawn, judged: Drawn, labels: int) -> float:
    """Balanced accuracy of a ridge head that is fitted elsewhere, by the normal equations, with its best ridge."""
    (x, targets), (other, true) = trained, judged
    mean = x.mean(0)
    x, other = np.c_[x - mean, np.ones(len(x))], np.c_[other - mean, np.ones(len(other))]
    signs = np.where(targets[:, None] == np.arange(labels), 1.0, -1.0)
    weight = 1 / np.bincount(targets, minlength=labels)[targets]
    best = 0.0
    for ridge in (1e-3, 1e-2, 1e-1, 1.0):
        system = (x.T * weight) @ x + ridge * np.trace((x.T * weight) @ x) / len(x) * np.eye(x.shape[1])
        answers = (other @ np.linalg.solve(system, (x.T * weight) @ signs)).argmax(1)
        best = max(best, float(np.mean([(answers[true == own] == own).mean() for own in range(labels)])))
    return best


@pytest.mark.parametrize("seed", range(4 if FULL else 1))
def test_the_promised_interval_holds_the_later_truth_in_8_of_10(seed: int) -> None:
    rng = np.random.default_rng(seed)
    held = 0
    for number in range(10):
        draw, labels = drawn_task(rng)
        n = int(rng.integers(80, 300))
        more = n if number % 2 else n // 2
        x, targets = draw(n)
        groups, folds = [str(i) for i in range(n)], rng.permutation(n) % 5
        names = [str(label) for label in range(labels)]
        curve, *others = learning_curve.measure(x, targets, groups, folds, names, seed=number, by_label=False)
        assert not others
        low, high = learning_curve.forecast(curve, more).interval
        later, judged = draw(more), draw(4000)
        truth = later_accuracy((np.r_[x, later[0]], np.r_[targets, later[1]]), judged, labels)
        held += low <= truth - later_accuracy((x, targets), judged, labels) <= high
    assert held >= 8


def test_more_of_a_rare_label_helps_and_more_of_a_common_one_does_not() -> None:
    rng = np.random.default_rng(3)
    counts = (30, 400)
    targets = np.repeat([0, 1], counts)
    x = rng.normal(0, 1, (len(targets), 40)) + 0.33 * (2 * targets[:, None] - 1) * (np.arange(40) < 20)
    folds = rng.permutation(len(x)) % 5
    curves = learning_curve.measure(x, targets, [str(i) for i in range(len(x))], folds, ["rare", "common"], seed=1)
    assert [curve.label for curve in curves] == [None, "rare", "common"]
    rare, common = (learning_curve.forecast(curve, 200) for curve in curves[1:])
    assert rare.gain > 2 * max(common.gain, 0.0)
    assert rare.interval[1] > common.interval[1]
    assert curves[1].counts[-1] == pytest.approx(0.8 * 30)


def test_a_curve_that_is_flat_promises_nothing() -> None:
    accuracies = np.array([0.9, 0.9, 0.9, 0.9])
    resampled = accuracies + np.random.default_rng(0).normal(0, 0.01, (400, 1))
    flat = Curve(None, np.array([100.0, 200.0, 300.0, 400.0]), accuracies, resampled, 0.005)
    forecast = learning_curve.forecast(flat, 100)
    assert not forecast.visible
    assert abs(forecast.gain) < 0.002


def test_groups_are_not_divided() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    targets = (groups % 2).astype(np.int64)
    x = rng.normal(0, 1, (120, 8))
    task = learning_curve._Task(x @ x.T, targets, [f"{group:02}" for group in groups], groups % 5, 2)
    for share in learning_curve.SHARES:
        kept = task.part(share, None, rng)
        assert {len(kept[groups[kept] == group]) for group in set(groups[kept])} == {4}
        assert abs(len(kept) - share * 120) <= 8


def test_a_split_that_divides_near_duplicates_says_too_much() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 150)
    single = rng.normal(0, 1, (150, 30)) + 0.25 * (2 * labels[:, None] - 1) * (np.arange(30) < 10)
    x = np.repeat(single, 2, axis=0) + rng.normal(0, 0.05, (300, 30))  # every picture has a near-duplicate
    names, groups = [("no", "stop")[label] for label in labels.repeat(2)], [str(i // 2) for i in range(300)]
    figures = growth_study.compare(x, names, groups, 150, seed=1, draws=3)
    assert (figures["n"], figures["group_count"], figures["first"]) == (300, 150, 150)
    for part in ("first", "all"):
        assert figures["leaking"][part]["mean"] > figures["grouped"][part]["mean"] + 0.02
    low, high = figures["promised"][1:]
    assert low < high
    assert figures["held"] >= 2
    with pytest.raises(ConfigurationError, match="expected more than 300 pictures, got 300"):
        growth_study.compare(x, names, groups, 300, seed=1)
