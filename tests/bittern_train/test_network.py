"""The network's noise: the same for a seed, whenever the network was built."""

from __future__ import annotations

import numpy as np

from bittern_train.network import Network

CUT = "block_13_project_BN"


def outputs(network: Network, seed: int) -> list[np.ndarray]:
    network.reset(seed)
    features = np.ones((1, *network.body_features), np.float32)
    return [network.tail(features, training=True).numpy() for _ in range(2)]


def test_noise_depends_on_the_seed_alone() -> None:
    """Keras draws the seed of a layer when it is built: trainings were not repeatable before `reset` set it."""
    one, other = Network("none", CUT, 0.5), Network("none", CUT, 0.5)
    other.tail.set_weights(one.tail.get_weights())
    other._start = other.tail.get_weights()
    first = outputs(one, 3)
    assert not np.array_equal(first[0], first[1]), "there is noise, and it goes on"
    for again in (outputs(one, 3), outputs(other, 3)):
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], outputs(one, 4)[0])
