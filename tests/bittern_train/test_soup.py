"""The final fit is the average of several, and of their weights, not of their answers."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from tests.doubles.progress import Reports

from bittern_convert.task import Recipe, Task
from bittern_train import training
from bittern_train.network import FeatureStore, Network

LABELS = ["plain", "striped"]


@pytest.fixture(scope="module")
def network() -> Network:
    return Network("none", "block_16_project_BN", 0.1)


def final_fit(network: Network, *, soup: int, seed: int, rate: float = 1e-3) -> tuple[list[np.ndarray], int]:
    """Weights of tail and head, and the number of fits, on features that differ by label."""
    rng = np.random.default_rng(1)
    samples = 8
    targets = np.arange(samples) % 2
    features = rng.normal(targets[:, None, None, None, None], 1, (samples, 2, *network.body_features))
    cache = training.Cache(FeatureStore.of(features.astype(np.float16)), FeatureStore((0, 0, 1)), targets)
    made = msgspec.convert(
        {
            "name": "test", "question": "?", "labels": LABELS, "alarm": ["striped"], "nothing": [], "data": [{}],
            "sources": ["drawn"], "limits": ["-"], "augment": {},
            "recipe": {"epochs": 2, "batch": 4, "soup": soup, "rate": [rate]},
        },
        Task,
    )  # fmt: skip
    none = np.zeros((0, 0, 0), np.float32)
    chosen = training.Choice(training.Candidate(rate), 0, 0, 0, 2 if rate else 0, none, [])
    reports = Reports()
    trainer = training.Trainer(network, made.recipe, len(LABELS))
    model, fits = training.final_fit(made, trainer, cache, chosen, seed, reports)
    assert sorted({done for _, done, _ in reports.steps}) == list(range(2 * soup + 1)) or rate == 0
    return [*network.tail.get_weights(), *model.layers[-1].get_weights()], len(fits)


def test_a_soup_is_the_mean_of_its_fits(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    members: list[list[np.ndarray]] = []
    average = training.average

    def recorded(weights: list[list[np.ndarray]]) -> list[np.ndarray]:
        members.extend(weights)
        return average(weights)

    monkeypatch.setattr(training, "average", recorded)
    weights, count = final_fit(network, soup=2, seed=5)
    assert count == 2
    first, second = members
    assert max(np.abs(a - b).max() for a, b in zip(first, second, strict=True)) > 5e-3, "fits differ by more"
    for a, b, mean in zip(first, second, weights, strict=True):
        np.testing.assert_allclose(mean, (a.astype(np.float64) + b) / 2, atol=1e-4)


def test_a_head_alone_is_fitted_once(network: Network) -> None:
    assert final_fit(network, soup=3, seed=5, rate=0.0)[1] == 1


def test_no_soup_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="soup"):
        msgspec.convert({"rate": [1e-4], "soup": 0}, Recipe)
