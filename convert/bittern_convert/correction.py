"""Bias correction: quantization shifts the scores of a network as a whole; biases of the head undo the shift."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Passes over the labels; two labels need one, more converge within a few.
_ROUNDS = 20
# The smallest score that int8 can tell from zero is 1/256.
_LEAST = 1 / 512


def head_bias(parent: npt.NDArray[np.float32], int8: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The change of the head's biases after which int8 gives every label as often as its float parent does.

    A form of empirical bias correction (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
    Correction", section 4.2), on answers instead of means, so the pictures near the decision boundary determine it.

    Args:
        parent: (n, labels) scores of the float network.
        int8: (n, labels) scores of the int8 network on the same pictures.

    Returns:
        (labels,) in units of a logit, with mean 0.
    """
    n, labels = int8.shape
    logits = np.log(np.maximum(int8, _LEAST))
    counts = np.bincount(parent.argmax(1), minlength=labels)
    bias = np.zeros(labels)
    for _ in range(_ROUNDS if labels > 2 else 1):
        for label in range(labels - 1) if labels == 2 else range(labels):
            rivals = np.delete(logits + bias, label, axis=1).max(1)
            needed = np.sort(rivals - logits[:, label])  # the bias from which each picture gets this label
            k = counts[label]
            if 0 < k < n:  # else there is no boundary
                bias[label] = (needed[k - 1] + needed[k]) / 2
    return np.asarray(bias - bias.mean(), np.float64)
