"""How much more data would help: heads refitted on parts of a run's pictures, a power law, and an interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bittern.evaluation import metrics
from bittern.evaluation.metrics import Interval

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

SHARES = (0.25, 0.5, 0.75, 1.0)
# How often the pictures of a part are drawn, and the pictures that judge are drawn again.
_DRAWS, _RESAMPLES = 8, 400
# Of the error's power law, b in n**-b: between what is seen in vision (Hestness et al. 2017, "Deep Learning Scaling is
# Predictable, Empirically": 0.07 to 0.35, harder tasks less) and the 1 of a linear model that nearly fits.
_EXPONENTS = (0.1, 1.0)
# Ridge: shares of the mean squared length of the features.
_RIDGES = (1e-3, 1e-2, 1e-1)


class Curve(NamedTuple):
    """A learning curve.

    Attributes:
        label: whose pictures were left out; None where those of all labels were.
        counts: pictures of that label (or of all) in the whole of a fit's training, at each of SHARES (4,).
        accuracies: balanced accuracy out of fold at each of SHARES (4,), mean over the draws.
        resampled: the same for resamples of the pictures that judge (resamples, 4).
        spread: standard deviation of one fit's accuracy from one training set to another, at the full size.
    """

    label: str | None
    counts: Floats
    accuracies: Floats
    resampled: Floats
    spread: float


class Forecast(NamedTuple):
    """What more pictures would bring.

    Attributes:
        more: how many more pictures.
        gain: expected gain in balanced accuracy, 0 to 1.
        interval: 95 %, of the gain that is then seen.
    """

    more: int
    gain: float
    interval: Interval

    @property
    def visible(self) -> bool:
        """Whether the gain is more than what chance would do."""
        return self.interval[0] > 0


def measure(
    features: npt.ArrayLike,
    targets: Indices,
    groups: Sequence[str],
    folds: Indices,
    labels: Sequence[str],
    *,
    seed: int,
    by_label: bool = True,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Curve]:
    """The curves of a run: of all pictures, then of each label, while those of the others stay.

    The head is a ridge regression on the labels, whose pictures count the same label by label: its curve says how the
    network's would bend, not how high it is. No group is divided, neither by a fold nor by a part.

    Args:
        features: (n, channels), of the frozen network.
        targets: (n,) indices of the labels.
        groups: (n,).
        folds: (n,) the fold that each picture is validated in.
        labels: their names.
        seed: of the draws.
        by_label: whether the labels have curves of their own.
        progress: called with the number of curves that are done.
    """
    task = _task(features, targets, groups, folds, len(labels))
    ridge = task.best_ridge()
    curves = []
    for number, label in enumerate([None, *(labels if by_label else ())]):
        rng = np.random.default_rng([seed, number])
        curves.append(_curve(task, ridge, label, None if label is None else number - 1, rng))
        progress(number + 1)
    return curves


def accuracy(features: npt.ArrayLike, targets: Indices, groups: Sequence[str], folds: Indices, labels: int) -> float:
    """Balanced accuracy out of fold, 0 to 1, of the head of `measure`, trained on all pictures of the other folds.

    Args:
        features: (n, channels).
        targets: (n,) indices of the labels.
        groups: (n,).
        folds: (n,) the fold that each picture is validated in.
        labels: how many there are.
    """
    task = _task(features, targets, groups, folds, labels)
    return metrics.mean_of_labels(task.out_of_fold(np.arange(len(targets)), task.best_ridge()), targets)


def forecast(curve: Curve, more: int, seed: int = 0) -> Forecast:
    """Extrapolate a curve: error = a + b n**-c by least squares, for exponents and resamples that could be.

    The interval is that of the gain that is seen when the pictures have come: of the resamples of the pictures that
    judge, of the exponents, and of the luck of one training set.

    Args:
        curve: a learning curve.
        more: how many more pictures, above 0.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    n = curve.counts[-1]
    gains = np.empty(len(curve.resampled))
    for i, accuracies in enumerate(curve.resampled):
        exponent = rng.uniform(*_EXPONENTS)
        powers = curve.counts**-exponent
        design = np.stack([np.ones_like(powers), powers], 1)
        # The larger a part, the less its draws differ.
        weight = np.sqrt(curve.counts / n)[:, None]
        (level, slope), *_ = np.linalg.lstsq(design * weight, (1 - accuracies) * weight[:, 0], rcond=None)
        slope = max(slope, 0.0)
        # More pictures cannot undo what no fit gets right, and an error is not negative.
        gains[i] = min(slope * (n**-exponent - (n + more) ** -exponent), max(level + slope * n**-exponent, 0.0))
    luck = curve.spread * np.sqrt(2 * more / (n + more))
    low, high = np.quantile(gains + rng.normal(0, max(luck, 1e-9), len(gains)), (0.025, 0.975))
    return Forecast(more, float(np.mean(gains)), (float(low), float(high)))


def _task(features: npt.ArrayLike, targets: Indices, groups: Sequence[str], folds: Indices, labels: int) -> _Task:
    x = np.asarray(features, np.float64)
    x = x - x.mean(0)
    # One more channel, as large as a picture's features are long: the bias of the head.
    x = np.hstack([x, np.full((len(x), 1), np.sqrt(np.mean(np.sum(x**2, 1))))])
    return _Task(x @ x.T, targets, groups, folds, labels)


class _Task:
    """The pictures by their Gram matrix, in which every fit is a system of its own rows.

    Args:
        gram: (n, n) products of their features.
        targets: (n,) indices of the labels.
        groups: (n,) names.
        folds: (n,) the fold that each picture is validated in.
        labels: how many there are.
    """

    def __init__(self, gram: Floats, targets: Indices, groups: Sequence[str], folds: Indices, labels: int) -> None:
        self.gram, self.targets, self.group_names, self.folds, self.labels = gram, targets, groups, folds, labels
        self.groups = np.unique(np.asarray(groups, str), return_inverse=True)[1]
        self._scale = float(np.mean(np.diag(gram)))
        self._signs = np.where(targets[:, None] == np.arange(labels), 1.0, -1.0)

    def out_of_fold(self, trained: Indices, ridge: float) -> npt.NDArray[np.bool_]:
        """(n,) whether each picture is answered correctly by a head that was fitted to `trained` of the other folds.

        Args:
            trained: (m,) numbers of pictures.
            ridge: share of the mean squared length of the features.
        """
        correct = np.zeros(len(self.targets), bool)
        for fold in np.unique(self.folds):
            rows = trained[self.folds[trained] != fold]
            judged = np.flatnonzero(self.folds == fold)
            if len(rows):
                counts = np.bincount(self.targets[rows], minlength=self.labels)
                cost = counts[self.targets[rows]] * self.labels / len(rows)  # every label counts the same
                system = self.gram[np.ix_(rows, rows)] + np.diag(ridge * self._scale * cost)
                weights = np.linalg.solve(system, self._signs[rows])
                answers = (self.gram[np.ix_(judged, rows)] @ weights).argmax(1)
                correct[judged] = answers == self.targets[judged]
        return correct

    def best_ridge(self) -> float:
        """The ridge with which most is correct out of fold."""
        everything = np.arange(len(self.targets))
        return max(_RIDGES, key=lambda ridge: metrics.mean_of_labels(self.out_of_fold(everything, ridge), self.targets))

    def part(self, share: float, label: int | None, rng: np.random.Generator) -> Indices:
        """(m,) numbers of pictures of whole groups: about this share of each label, or of one, with all others."""
        kept = np.ones(len(self.targets), bool)
        for own in range(self.labels) if label is None else [label]:
            rows = np.flatnonzero(self.targets == own)
            order = rng.permutation(np.unique(self.groups[rows]))
            place = np.empty(self.groups.max() + 1)
            place[order] = np.arange(len(order))
            ordered = rows[np.argsort(place[self.groups[rows]], kind="stable")]
            sizes = place[self.groups[ordered]]
            cut = max(1, round(share * len(rows)))
            last = sizes[cut - 1] if cut <= len(ordered) else np.inf
            kept[ordered[sizes > last]] = False
        return np.flatnonzero(kept).astype(np.int64)


def _curve(task: _Task, ridge: float, name: str | None, label: int | None, rng: np.random.Generator) -> Curve:
    n = len(task.targets)
    of_fit = 1 - 1 / len(np.unique(task.folds))
    own = n if label is None else int((task.targets == label).sum())
    correct = np.zeros((len(SHARES), n))
    halves = []
    for i, share in enumerate(SHARES):
        draws = _DRAWS if share < 1 else 1
        for _ in range(draws):
            answered = task.out_of_fold(task.part(share, label, rng), ridge)
            correct[i] += answered / draws
            if share == SHARES[1]:
                halves.append(metrics.mean_of_labels(answered, task.targets))
    # Halves of the same pictures share half of them: two sets of their own differ by twice the variance; at the full
    # size by half of that (the error of a fit falls like 1/n).
    spread = float(np.std(halves, ddof=1))

    def accuracies(weights: metrics.Floats) -> Floats:
        """(resamples, shares) balanced accuracy, of how often each picture was drawn."""
        rows = []
        for target in np.unique(task.targets):
            mask = task.targets == target
            total = weights[:, mask].sum(1, keepdims=True)
            rows.append(weights[:, mask] @ correct[:, mask].T / np.maximum(total, 1e-9))
        return np.asarray(np.mean(rows, axis=0), np.float64)

    whole = accuracies(np.ones((1, n)))
    names = [str(target) for target in task.targets]
    resampled = metrics.bootstrap(task.group_names, names, accuracies, resamples=_RESAMPLES, seed=rng)
    return Curve(
        label=name,
        counts=np.array(SHARES) * own * of_fit,
        accuracies=whole[0],
        # None: a label has a single group, whose variation is unknown.
        resampled=np.repeat(whole, _RESAMPLES, 0) if resampled is None else resampled,
        spread=spread,
    )
