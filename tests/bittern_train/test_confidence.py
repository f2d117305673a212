"""The temperature that calibrates scores."""

from __future__ import annotations

import numpy as np
import pytest

from bittern_train import confidence


@pytest.mark.parametrize("sharpened", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_what_was_done_to_calibrated_scores(sharpened: float) -> None:
    rng = np.random.default_rng(1)
    true = np.exp(rng.normal(0, 2, (8000, 1, 3)))
    true /= true.sum(-1, keepdims=True)
    targets = (true[:, 0].cumsum(1) < rng.random((8000, 1))).sum(1)
    scores = confidence.tempered(true.astype(np.float32), sharpened)
    found = confidence.temperature(scores, targets)
    assert found == pytest.approx(1 / sharpened, rel=0.06)
    after = confidence.tempered(scores, found)
    assert confidence.error(after[:, 0], targets) < 0.015
    if sharpened != 1:
        assert confidence.error(scores[:, 0], targets) > 0.04
    np.testing.assert_array_equal(after.argmax(2), scores.argmax(2))


def test_tempered_scores_are_those_of_divided_logits() -> None:
    logits = np.random.default_rng(2).normal(0, 3, (50, 4))

    def softmax(
        x: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.asarray(np.exp(x) / np.exp(x).sum(1, keepdims=True))

    made = confidence.tempered(softmax(logits).astype(np.float32), 2.5)
    np.testing.assert_allclose(made, softmax(logits / 2.5), atol=1e-5)


def test_both_ends_are_bounded() -> None:
    """Scores that are always right, or never: no temperature is the best."""
    scores = np.array([[[0.9, 0.1]], [[0.1, 0.9]]], np.float32)
    assert confidence.temperature(scores, np.array([0, 1])) == confidence.LEAST
    assert confidence.temperature(scores, np.array([1, 0])) == pytest.approx(confidence.LARGEST, rel=0.01)
