"""The study "growth": what more pictures brought, what a learning curve promised, and what a leaking split says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset
from bittern.frames import Pixels
from bittern.system.progress import Progress, counted
from bittern_convert import inputs
from bittern_convert.task import FieldOfView
from bittern_train import learning_curve

Indices = npt.NDArray[np.int64]

_FOLDS = 5
# How often the first pictures are drawn.
DRAWS = 10


def study(
    data: Path, where: Mapping[str, str], first: int, *, weights: str, seed: int, progress: Progress
) -> dict[str, Any]:
    """The study on a data set whose groups tie near-duplicates.

    Args:
        data: its index or folder.
        where: of these pictures only; see `dataset.select`.
        first: how many pictures there were first.
        weights: of MobileNetV2, see `Network`.
        seed: of everything random.
        progress: gets each step.

    Raises:
        ConfigurationError: data or weights do not fit, or there are no more than `first` pictures.
    """
    from bittern_train.network import Network, features

    items = [i for i in dataset.select(dataset.read(data), where, data) if i.label]
    network = Network(weights, "block_6_project_BN", 0.0)
    read: list[int] = []

    def tensors() -> Iterator[Pixels]:
        for i, item in enumerate(items):
            tensor = inputs.tensor(item, FieldOfView(None, ("center",)))
            if tensor is not None:
                read.append(i)
                yield tensor

    kept = features(network.base, counted(tensors(), progress, "features", len(items)), (len(items), 1))
    pooled = kept.of_copy(np.arange(len(read)), 0)  # those that cannot be read leave rows at the end empty
    own = [items[i] for i in read]
    result = compare(pooled, [i.label or "" for i in own], [i.group or i.name for i in own], first, seed)
    return {"study": "growth", "data": data.resolve().name, "where": dict(where), "seed": seed, **result}


def compare(
    features: npt.ArrayLike, labels: Sequence[str], groups: Sequence[str], first: int, seed: int, draws: int = DRAWS
) -> dict[str, Any]:
    """The figures of the study.

    Args:
        features: (n, channels).
        labels: (n,).
        groups: (n,) that tie near-duplicates.
        first: how many pictures there were first.
        seed: of the draws.
        draws: how often the first pictures are drawn.

    Returns:
        Balanced accuracies out of fold, each a mean over the draws of the first pictures, with the lowest and highest:
        `grouped` and `leaking` with `first` and `all`; `promised` by the curves of the first pictures, and how many of
        the draws' intervals hold the gain that was seen.

    Raises:
        ConfigurationError: there are no more than `first` pictures.
    """
    x = np.asarray(features, np.float64)
    names = sorted(set(labels))
    targets = np.array([names.index(label) for label in labels], np.int64)
    n = len(targets)
    if n <= first:
        raise ConfigurationError(f"expected more than {first} pictures, got {n}: give another --first")
    figures: dict[str, dict[str, list[float]]] = {kind: {"first": [], "all": []} for kind in ("grouped", "leaking")}
    promised, held = [], 0
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        some = _first(groups, first, rng)
        for kind in figures:
            for part, rows in (("first", some), ("all", np.arange(n))):
                own = [groups[i] for i in rows]
                folds = _folds(targets[rows], own if kind == "grouped" else None, draw)
                figures[kind][part].append(learning_curve.accuracy(x[rows], targets[rows], own, folds, len(names)))
        own = [groups[i] for i in some]
        folds = _folds(targets[some], own, draw)
        curve, *_ = learning_curve.measure(x[some], targets[some], own, folds, names, seed=draw, by_label=False)
        expected = learning_curve.forecast(curve, n - len(some), draw)
        gain = figures["grouped"]["all"][-1] - figures["grouped"]["first"][-1]
        held += expected.interval[0] <= gain <= expected.interval[1]
        promised.append((expected.gain, *expected.interval))
    return {
        "n": n,
        "group_count": len(set(groups)),
        "first": first,
        "folds": _FOLDS,
        "draws": draws,
        **{kind: {part: _spread(values) for part, values in parts.items()} for kind, parts in figures.items()},
        "promised": [round(float(value), 4) for value in np.mean(promised, axis=0)],
        "held": int(held),
    }


def _first(groups: Sequence[str], first: int, rng: np.random.Generator) -> Indices:
    """Pictures of whole groups, in a drawn order, until there are as many as there were first."""
    order = {name: i for i, name in enumerate(rng.permutation(sorted(set(groups))))}
    ordered = sorted(range(len(groups)), key=lambda i: order[groups[i]])
    return np.sort(np.array(ordered[:first], np.int64))


def _folds(targets: Indices, groups: Sequence[str] | None, seed: int) -> Indices:
    """(n,) the fold of each picture: of whole groups, or at random."""
    numbers = np.zeros(len(targets), np.int64)
    if groups is None:
        parts = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(targets, targets)
    else:
        parts = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(targets, targets, groups)
    for k, (_, validated) in enumerate(parts):
        numbers[validated] = k
    return numbers


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {key: round(float(f(values)), 4) for key, f in (("mean", np.mean), ("least", np.min), ("most", np.max))}
