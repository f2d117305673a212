"""What a fold is judged by: pictures as they are and corrupted count the same, and so do the labels."""

from __future__ import annotations

import numpy as np
import pytest

from bittern_train import criteria, task_files, training


def scores(correct: list[list[float]]) -> np.ndarray:
    """Of two labels: given the score of the correct one, (n, versions), both."""
    own = np.array(correct, np.float32)
    return np.stack([own, 1 - own], axis=2)


def test_every_label_counts_the_same() -> None:
    values = np.array([[[0.9, 0.1]], [[0.9, 0.1]], [[0.9, 0.1]], [[0.8, 0.2]]], np.float32)
    assert criteria.balanced_accuracy(values, np.array([0, 0, 0, 1])) == 0.5
    assert criteria.balanced_accuracy(values, np.array([0, 0, 0, 0])) == 1.0


def test_versions_count_with_the_label_of_their_picture() -> None:
    values = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.1, 0.9], [0.1, 0.9]]], np.float32)
    assert criteria.balanced_accuracy(values, np.array([0, 1])) == pytest.approx(0.75)


def test_the_judged_loss_is_the_mean_of_plain_and_corrupted() -> None:
    cost = np.ones(2)
    values = scores([[0.9, 0.5, 0.5], [0.9, 0.5, 0.5]])
    targets = np.array([0, 0])
    assert criteria.judged_loss(values, targets, cost) == pytest.approx((-np.log(0.9) - np.log(0.5)) / 2, rel=1e-5)


def test_corruption_alone_changes_the_judged_loss() -> None:
    targets = np.array([0, 0])
    better, worse = scores([[0.9, 0.8], [0.9, 0.8]]), scores([[0.9, 0.3], [0.9, 0.3]])
    assert criteria.judged_loss(better, targets, np.ones(2)) < criteria.judged_loss(worse, targets, np.ones(2))


def test_weights_balance_the_labels_and_add_the_cost() -> None:
    targets = np.array([0, 0, 0, 1, 2, 2])
    values = criteria.weights(targets, np.arange(6), np.array([1.0, 1.0, 2.0]))
    sums = [values[targets == label].sum() for label in range(3)]
    assert sums[0] == pytest.approx(sums[1])
    assert sums[2] == pytest.approx(2 * sums[1])
    assert values.dtype == np.float32


@pytest.mark.parametrize("name", sorted(file.stem for file in task_files.folder().glob("*.toml")))
def test_shipped_tasks_state_their_labels(name: str) -> None:
    task = task_files.load(name)
    assert task.name == name
    assert task.alarm
    assert task.nothing
    assert training.candidates(task)
