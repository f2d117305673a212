"""Doubtful labels: those that out-of-fold scores speak against, by confident learning (Northcutt et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from bittern.errors import PictureError
from bittern.evaluation.dataset import Item
from bittern.model import pictures, preprocess
from bittern.system.progress import Progress, counted
from bittern_convert import parallel

HINT = "pip install 'bittern[train]'"


def is_installed() -> bool:
    """Whether cleanlab is."""
    return find_spec("cleanlab") is not None


def doubted(labels: npt.NDArray[np.intp], scores: npt.NDArray[np.float64]) -> list[int]:
    """The rows whose label is doubted, most doubtful first.

    Args:
        labels: (n,) index of each label.
        scores: (n, labels) out-of-fold scores.
    """
    from cleanlab.filter import find_label_issues

    rows: Any = find_label_issues(labels, scores, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [int(row) for row in rows]


def network_features(items: Sequence[Item], weights: str, progress: Progress) -> npt.NDArray[np.float64]:
    """(n, 1280) pooled features of MobileNetV2, of the centred squares; needs TensorFlow.

    Raises:
        ConfigurationError: the weights cannot be had, or do not fit.
    """
    from bittern_train import architectures, network

    base = architectures.build(network.OURS, weights)

    def tensor(item: Item) -> npt.NDArray[np.uint8]:
        try:
            return preprocess.preprocess(pictures.decode(item.path))
        except PictureError:  # it could be read a moment ago
            return np.zeros((1, *base.input.shape[1:]), np.uint8)

    def tensors() -> Iterator[npt.NDArray[np.uint8]]:
        yield from counted(parallel.results(tensor, items), progress, "look at pictures", len(items))

    kept = network.features(base, tensors(), (len(items), 1))
    return kept.of_copy(np.arange(len(items)), 0).astype(np.float64)
