"""Bias correction of the head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from bittern_convert.correction import head_bias


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True), np.float32)


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_a_shift_is_taken_back(labels: int) -> None:
    rng = np.random.default_rng(labels)
    parent = rng.normal(0, 1.2, (600, labels))
    shift = np.linspace(-0.8, 0.8, labels)
    bias = head_bias(softmax(parent), softmax(parent + shift))
    np.testing.assert_allclose(bias, -shift, atol=0.12)
    corrected = (parent + shift + bias).argmax(1)
    assert (corrected == parent.argmax(1)).mean() > 0.97


def test_equal_scores_need_no_correction_of_any_answer() -> None:
    parent = np.random.default_rng(1).normal(0, 2, (400, 2))
    bias = head_bias(softmax(parent), softmax(parent))
    assert ((parent + bias).argmax(1) == parent.argmax(1)).all()
    assert abs(bias.mean()) < 1e-12


def test_a_label_that_the_parent_never_gives_is_left_alone() -> None:
    scores = np.tile(np.array([0.9, 0.1], np.float32), (20, 1))
    np.testing.assert_array_equal(head_bias(scores, scores), [0, 0])
