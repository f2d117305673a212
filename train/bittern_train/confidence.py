"""Calibrated scores: one temperature for a network, by maximum likelihood on scores that it was not trained for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bittern.evaluation import metrics
from bittern_train.network import Floats

# Temperatures are looked for between 1 / LARGEST and LARGEST, and none below LEAST is taken: of a few pictures that are
# all answered correctly the most likely one is 0, with which every score would be 0 or 1.
LARGEST = 8.0
LEAST = 0.5
# Halvings by the golden section: to a ten thousandth.
_STEPS = 32


def temperature(scores: Floats, targets: npt.NDArray[np.int64]) -> float:
    """The temperature T with which softmax(log(scores) / T) is most likely (Guo et al. 2017, "temperature scaling").

    Pictures as they are count as much as all their corrupted versions together, as in `criteria.judged_loss`.

    Args:
        scores: out of fold, (n, versions, labels); version 0 is the picture as it is.
        targets: (n,) the labels' indices.

    Returns:
        Above 1 for scores that are too sure, at least LEAST. The loss is convex in 1 / T, so the one minimum is found.
    """

    def loss(inverse: float) -> float:
        own = np.take_along_axis(tempered(scores, 1 / inverse), targets[:, None, None], 2)[..., 0]
        losses = -np.log(np.maximum(own, 1e-9))
        return float(losses[:, 0].mean() + losses[:, 1:].mean()) if losses.shape[1] > 1 else float(losses.mean())

    low, high = 1 / LARGEST, LARGEST
    golden = (5**0.5 - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = loss(right)
    return max(LEAST, round(2 / (low + high), 4))


def tempered(scores: Floats, temperature: float) -> Floats:
    """Scores (..., labels) as softmax(log(scores) / temperature): what dividing the logits gives."""
    logs = np.log(np.maximum(scores.astype(np.float64), 1e-30)) / temperature
    powers = np.exp(logs - logs.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)


def error(scores: Floats, targets: npt.NDArray[np.int64]) -> float:
    """Expected calibration error (`metrics.calibration_error`) of scores (n, labels)."""
    return metrics.calibration_error(scores.max(1), scores.argmax(1) == targets) or 0.0
