"""What a fit is judged by: every label counts the same, and pictures as they are count as much as corrupted ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bittern.evaluation import metrics
from bittern.model.views import deciding_views
from bittern_convert.task import Task
from bittern_train.network import Floats


def decided(scores: Floats, task: Task) -> Floats:
    """Scores (..., views, labels) of the deciding view, (..., labels): `bittern.model.views.deciding_views`."""
    deciding = deciding_views(scores, task.labels, task.alarm, task.nothing)
    return np.take_along_axis(scores, deciding[..., None, None], axis=-2)[..., 0, :]


def balanced_loss(scores: Floats, targets: npt.NDArray[np.int64], cost: npt.NDArray[np.float64]) -> float:
    """Mean cross-entropy in nats; every label counts the same, times what an error on it costs.

    Args:
        scores: (n, labels).
        targets: (n,) indices of the labels.
        cost: (labels,).
    """
    own = np.clip(scores[np.arange(len(targets)), targets], 1e-6, 1)
    present = np.unique(targets)
    return float(np.average([-np.log(own[targets == t]).mean() for t in present], weights=cost[present]))


def judged_loss(scores: Floats, targets: npt.NDArray[np.int64], cost: npt.NDArray[np.float64]) -> float:
    """Mean of two `balanced_loss`: of pictures as they are (version 0) and of their corrupted versions.

    Args:
        scores: (n, versions, labels).
        targets: (n,) indices of the labels.
        cost: (labels,).
    """
    versions = scores.shape[1]
    corrupted = balanced_loss(scores[:, 1:].reshape(-1, scores.shape[2]), targets.repeat(versions - 1), cost)
    return (balanced_loss(scores[:, 0], targets, cost) + corrupted) / 2


def balanced_accuracy(scores: Floats, targets: npt.NDArray[np.int64]) -> float:
    """Mean over the labels of the share of correct answers.

    Args:
        scores: (n, versions, labels).
        targets: (n,) indices of the labels.
    """
    return metrics.mean_of_labels((scores.argmax(2) == targets[:, None]).mean(1), targets)


def costs(task: Task) -> npt.NDArray[np.float64]:
    """What an error on each label costs, (labels,)."""
    return np.array([task.recipe.cost.get(label, 1.0) for label in task.labels])


def weights(
    targets: npt.NDArray[np.int64], trained: npt.NDArray[np.intp], cost: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Weights (trained,) with which every label counts the same, times its cost."""
    counts = np.bincount(targets[trained], minlength=len(cost))
    each = cost * len(trained) / (len(cost) * np.maximum(1, counts))
    return np.asarray(each[targets[trained]], np.float32)
