"""Simple probes on what `measure` keeps: what should not tell the labels apart, and a quick model that should."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bittern.evaluation import metrics
from bittern.system.progress import Progress, counted
from bittern_convert import parallel
from bittern_train.data.measure import Measured

FOLDS = 5
# Groups that a label needs to be probed: fewer say nothing.
LEAST_GROUPS = 10
# Pictures that a probe looks at; of a larger set it takes so many by chance, in equal shares of the labels.
MOST = 2000
# Orientation bins and cells a side of the histograms of gradients (Dalal and Triggs 2005).
_BINS = 8
_CELLS = 4
_SEED = 1
_TREES = 60
TOGETHER = "all of these"

Floats = npt.NDArray[np.float64]


def load() -> None:
    """Import what the probes need of scikit-learn, which takes a second or two: beside work that leaves a core free."""
    for module in ("ensemble", "linear_model", "model_selection", "pipeline"):
        importlib.import_module(f"sklearn.{module}")


class Shortcut(NamedTuple):
    """How well something that should not tell the labels apart does.

    Attributes:
        what: it is, in words.
        auc: of out-of-fold scores: each label against the rest, mean over the labels.
        interval: 95 %, by resampling groups; None where it is unknown.
    """

    what: str
    auc: float
    interval: tuple[float, float] | None

    @property
    def text(self) -> str:
        """In words: "size: AUC 0.81 (95 % 0.77 to 0.84)"."""
        interval = "" if self.interval is None else f" (95 % {self.interval[0]:.2f} to {self.interval[1]:.2f})"
        return f"{self.what}: AUC {self.auc:.2f}{interval}"


class Folds(NamedTuple):
    """Pictures that a probe may look at.

    Attributes:
        rows: positions of the pictures.
        labels: (rows,) index of the label of each.
        names: of the labels.
        groups: (rows,) group of each.
    """

    rows: npt.NDArray[np.intp]
    labels: npt.NDArray[np.intp]
    names: list[str]
    groups: list[str]

    def scores(self, make: Callable[[], Any], features: Floats) -> Floats:
        """(rows, labels) out-of-fold scores of a classifier; no group is trained on and scored at once."""
        from sklearn.model_selection import StratifiedGroupKFold

        scores = np.full((len(self.rows), len(self.names)), np.nan)
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=_SEED)
        for train, test in folds.split(features, self.labels, self.groups):
            fitted = make().fit(features[train], self.labels[train])
            scores[np.ix_(test, fitted.classes_)] = fitted.predict_proba(features[test])
        return np.asarray(np.nan_to_num(scores), np.float64)


def choose(labels: Sequence[str | None], groups: Sequence[str]) -> Folds | None:
    """The pictures of all labels with LEAST_GROUPS groups; None if fewer than two labels have them."""
    grouped: dict[str, set[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        if label:
            grouped.setdefault(label, set()).add(group)
    names = sorted(name for name, members in grouped.items() if len(members) >= LEAST_GROUPS)
    if len(names) < 2:
        return None
    rng = np.random.default_rng(_SEED)
    chosen: list[int] = []
    for name in names:
        of_label = [i for i, label in enumerate(labels) if label == name]
        share = math.ceil(MOST * len(of_label) / len(labels))
        chosen += rng.permutation(of_label)[:share].tolist() if len(labels) > MOST else of_label
    rows = np.array(sorted(chosen), np.intp)
    numbers = np.array([names.index(labels[i] or "") for i in rows], np.intp)
    return Folds(rows, numbers, names, [groups[i] for i in rows])


def shortcuts(measured: Sequence[Measured], folds: Folds, progress: Progress) -> list[Shortcut]:
    """How well each of a few things alone tells the labels apart; see `Shortcut`."""
    probes = _probes([measured[i] for i in folds.rows])

    def one(probe: tuple[str, Callable[[], Any], Floats]) -> Shortcut:
        what, make, features = probe
        return _shortcut(what, folds.scores(make, features), folds)

    return list(counted(parallel.results(one, probes), progress, "probe for shortcuts", len(probes)))


def _probes(measured: Sequence[Measured]) -> list[tuple[str, Callable[[], Any], Floats]]:
    sizes = np.array([[m.width, m.height] for m in measured], float)
    pixels = sizes.prod(1)
    number_of = np.array([m.bytes for m in measured], float)
    colours = np.array([m.colours for m in measured], float)
    kinds = sorted({m.kind for m in measured})
    kind = np.array([[m.kind == k for k in kinds] for m in measured], float)
    mean = colours.mean((1, 2))
    single = {
        "size": np.c_[sizes, pixels],
        "aspect": sizes[:, :1] / sizes[:, 1:],
        "bytes": np.c_[number_of, number_of / pixels],
        "format": kind,
        "mean colour": mean,
    }
    probes: list[tuple[str, Callable[[], Any], Floats]] = [
        (what, _Trees, features) for what, features in single.items() if len(kinds) > 1 or what != "format"
    ]
    probes.append(("8 x 8 thumbnail", _linear, colours.reshape(len(colours), -1)))
    probes.append(
        (TOGETHER, _Trees, np.c_[np.concatenate(list(single.values()), 1), colours.reshape(len(colours), -1)])
    )
    return probes


class _Trees:
    """Extremely randomized trees (Geurts et al. 2006), for numbers of any scale: an exact size may be the shortcut.

    The same as scikit-learn's ExtraTreesClassifier(60, min_samples_leaf=5), but for joblib: that changes the warning
    filters of the whole process in each of its calls, and several threads call at once here.
    """

    classes_: npt.NDArray[np.intp]

    def fit(self, features: Floats, labels: npt.NDArray[np.intp]) -> _Trees:
        """Of features (n, numbers) with labels' indices (n,)."""
        from sklearn.tree import ExtraTreeClassifier

        seeds = np.random.RandomState(_SEED).randint(np.iinfo(np.int32).max, size=_TREES)
        trees = [ExtraTreeClassifier(min_samples_leaf=5, max_features="sqrt", random_state=seed) for seed in seeds]
        self._fitted = [tree.fit(features, labels) for tree in trees]
        self.classes_ = self._fitted[0].classes_
        return self

    def predict_proba(self, features: Floats) -> npt.NDArray[np.float64]:
        """Scores (n, labels) of features (n, numbers)."""
        return np.asarray(np.mean([tree.predict_proba(features) for tree in self._fitted], axis=0), np.float64)


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))


def _shortcut(what: str, scores: Floats, folds: Folds) -> Shortcut:
    # Of two labels the second says the same as the first.
    columns = range(1 if len(folds.names) == 2 else 0, len(folds.names))

    def mean(weights: metrics.Floats) -> npt.NDArray[np.float64]:
        areas = [metrics.weighted_auc(weights, scores[:, c], folds.labels == c) for c in columns]
        return np.asarray(np.mean(areas, axis=0)[:, None], np.float64)

    resampled = metrics.bootstrap(folds.groups, [folds.names[n] for n in folds.labels], mean, resamples=400)
    interval = None if resampled is None else metrics.percentile_interval(resampled[:, 0])
    return Shortcut(what, float(mean(np.ones((1, len(scores))))[0, 0]), interval)


def gradients(grey: npt.NDArray[np.uint8]) -> Floats:
    """Histograms of gradients, (n, 128), of (n, 32, 32) uint8: where and in which direction it becomes brighter."""
    pictures = grey.astype(np.float32)
    across, down = np.gradient(pictures, axis=2), np.gradient(pictures, axis=1)
    size = np.hypot(across, down)
    direction = ((np.arctan2(down, across) / (2 * np.pi) % 1) * _BINS).astype(int) % _BINS
    side = grey.shape[1] // _CELLS
    cells = np.stack(
        [
            np.where(direction == bin_, size, 0).reshape(len(grey), _CELLS, side, _CELLS, side).sum((2, 4))
            for bin_ in range(_BINS)
        ],
        axis=-1,
    ).reshape(len(grey), -1)
    return np.asarray(np.sqrt(cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-6)), np.float64)


def simple_features(measured: Sequence[Measured]) -> Floats:
    """(n, 320): histograms of gradients and the colours of 8 x 8 cells, 0 to 1."""
    return _features(np.array([m.grey for m in measured]), np.array([m.colours for m in measured]))


def _features(grey: npt.NDArray[np.uint8], colours: npt.NDArray[np.uint8]) -> Floats:
    return np.asarray(np.c_[gradients(grey), colours.reshape(len(colours), -1) / 255], np.float64)


def out_of_fold(folds: Folds, features: Floats) -> Floats:
    """(rows, labels) scores that a quick model gives to pictures whose group it was not trained on."""
    return folds.scores(_linear, features)


def balanced_accuracy(folds: Folds, scores: Floats) -> float:
    """Mean over the labels of the share of their pictures that the highest score answers correctly."""
    return metrics.mean_of_labels(scores.argmax(1) == folds.labels, folds.labels)
