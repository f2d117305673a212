"""Features of pictures, in memory or in a file: the same rows; and the one fit that is validated is the one kept."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from tests.doubles.progress import Reports

from bittern.errors import ConfigurationError
from bittern.evaluation.dataset import Item
from bittern_convert.copies import Sample
from bittern_convert.task import Augment, Backbone, Recipe, Task
from bittern_train import confidence, network, training
from bittern_train.checkpoints import Checkpoints
from bittern_train.network import FeatureStore, Network, side_by_side

RNG = np.random.default_rng(1)


@pytest.fixture(params=["memory", "file"])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "file":
        monkeypatch.setattr(network, "IN_MEMORY", 0)


@pytest.mark.usefixtures("limit")
def test_rows_come_back_as_they_were_written() -> None:
    values = RNG.normal(size=(7, 3, 4, 5)).astype(np.float16)
    kept = FeatureStore((7, 3, 4, 5))
    for part in np.array_split(values.reshape(-1, 4, 5), [2, 9]):
        kept.append(part)
    samples = np.array([6, 0, 3])
    assert np.array_equal(kept.of_copy(samples, 1), values[samples, 1].astype(np.float32))
    assert np.array_equal(kept.rows(kept.numbers(samples)), values[samples].reshape(-1, 4, 5).astype(np.float32))
    joined = side_by_side([(kept, samples, 1), (FeatureStore.of(values[:3]), np.arange(3), 2)])
    expected = np.concatenate([values[samples, :1], values[:3, :2]], axis=1)
    assert joined.shape == expected.shape
    assert np.array_equal(joined.raw(joined.numbers(np.arange(3))), expected.reshape(-1, 4, 5))


@pytest.mark.usefixtures("limit")
def test_pictures_themselves_are_kept_as_bytes_and_read_like_features() -> None:
    body = Network("none", "", 0, Backbone(name="lenet", size=32, mode="scratch")).body
    pictures = RNG.integers(0, 256, (3, 2, 32, 32, 3), np.uint8)
    kept = network.features(body, iter(pictures), (3, 2))
    assert kept.dtype == np.uint8
    expected = network.scale(pictures[:, 1]).astype(np.float16).astype(np.float32)
    assert np.array_equal(kept.of_copy(np.arange(3), 1), expected)


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "IN_MEMORY", 0)
    kept = FeatureStore((100, 1, 1000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(ConfigurationError, match=r"features take 0\.0 GB: set TMPDIR"):
            kept.append(np.zeros((100, 1000), np.float16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_of_one_fold_the_fit_itself_is_kept(tmp_path: Path) -> None:
    labels = ("dark", "light")
    task = Task(
        name="tones",
        question="?",
        labels=labels,
        augment=Augment(copies=1),
        backbone=Backbone(name="lenet", size=32, mode="scratch"),
        recipe=Recipe(folds=1, epochs=2, batch=8, rate=(1e-3,)),
    )
    built = Network("none", "", 0, task.backbone)
    targets = np.arange(24) % 2
    pictures = np.clip(RNG.normal(90 + 70 * targets[:, None, None, None, None], 40, (24, 1, 32, 32, 3)), 0, 255)
    kept = FeatureStore.of(pictures.astype(np.uint8))
    samples = [
        Sample(Item(Path(), f"{i}", labels[t], "val" if i < 8 else "train", f"{i}", {}), int(t), "photo", i < 8)
        for i, t in enumerate(targets)
    ]
    chosen = np.arange(8)
    judged = side_by_side([(kept, chosen, 1), (kept, chosen, 1)])
    cache = training.Cache(kept, judged, targets)
    checkpoints = Checkpoints(tmp_path)
    trainer = training.Trainer(built, task.recipe, len(labels))
    (choice,) = training.cross_validate(task, trainer, samples, cache, None, 1, Reports(), checkpoints)
    (resumed,) = training.cross_validate(task, trainer, samples, cache, None, 1, Reports(), checkpoints)
    for fold in (*choice.folds, *resumed.folds):
        assert len(fold.weights) == 1, "those of the chosen epoch"
    choice = resumed
    model, folds = training.final_fit(task, trainer, cache, choice, 1, Reports())
    assert len(folds[0].scores) == 3, "the start and two epochs"
    answers = np.concatenate([model(picture[None], training=False) for picture in kept.of_copy(chosen, 0)])
    np.testing.assert_allclose(
        answers, confidence.tempered(choice.scores[:, 0], choice.temperature), rtol=1e-3, atol=1e-4
    )
