"""Several models on one frame: one decode, one crop, one resize; counted at OpenCV's own functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from tests.doubles.loops import Watched
from tests.doubles.tflite_files import COLOURS, channel_means, model_folder_of_means, with_files

from bittern import Classifier
from bittern.cli.classify import classify
from bittern.config.schema import GateConfig, WatchConfig
from bittern.model import preprocess as preprocessing
from bittern.model.classifier import preprocess_all
from bittern.model.preprocess import Region, preprocess
from bittern.sources.registry import open_source

PICTURES = 3
# The channels are changed twice: the exact resize has four (see `preprocess.resize_exact`).
ONCE = {"imdecode": PICTURES, "square_of": PICTURES, "resize": PICTURES, "cvtColor": 2 * PICTURES}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models with an input of 8, and one with an input of 16."""
    place = tmp_path_factory.mktemp("models")
    whole = [model_folder_of_means(place / name, name=name) for name in ("first", "second", "third")]
    larger = place / "larger.tflite"
    larger.write_bytes(with_files(channel_means((1, 16, 16, 3)), labels_txt="\n".join(COLOURS).encode()))
    return [*whole, larger]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures for which one resize is one call: not more than twice as large as the input."""
    rng = np.random.default_rng(1)
    made = tmp_path / "pictures"
    made.mkdir()
    for i in range(PICTURES):
        cv2.imwrite(str(made / f"{i}.png"), rng.integers(0, 256, (12, 15, 3), np.uint8))
    return made


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a picture is decoded, cropped and resized from now on."""
    counted: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return function(*args, **kwargs)

        return call

    for module, name in ((cv2, "imdecode"), (cv2, "resize"), (cv2, "cvtColor"), (preprocessing, "square_of")):
        monkeypatch.setattr(module, name, counting(name, getattr(module, name)))
    return counted


def once_a_picture(calls: Counter[str], opened: Counter[str]) -> dict[str, int]:
    """The calls without those that opening the models made (golden vectors)."""
    return {name: calls[name] - opened[name] for name in calls}


def test_classify_decodes_crops_and_resizes_once(models: list[Path], folder: Path, calls: Counter[str]) -> None:
    words = [word for model in models[:3] for word in ("--model", str(model))]
    for model in models[:3]:
        Classifier(model)
    opened = Counter(calls)
    done = CliRunner().invoke(classify, [str(folder), *words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == PICTURES * 3 * 2, "a line a picture, model and head"
    # Opening them a second time counts once more.
    assert {name: calls[name] - 2 * opened[name] for name in calls} == ONCE


def test_watch_decodes_crops_and_resizes_once(models: list[Path], folder: Path, calls: Counter[str]) -> None:
    classifiers = [Classifier(model) for model in models[:3]]
    opened = Counter(calls)
    config = WatchConfig(gate=GateConfig(enabled=False))  # whose thumbnail is a resize too
    with open_source(str(folder)) as source:
        steps = list(Watched(source, classifiers, config).steps())
    assert len(steps) == PICTURES
    assert [[answer.classifier for answer in step.answers] for step in steps] == [classifiers] * PICTURES
    assert once_a_picture(calls, opened) == ONCE


def test_each_input_size_is_made_once_and_exactly(models: list[Path], calls: Counter[str]) -> None:
    classifiers = [Classifier(model) for model in (models[0], models[3], models[1])]
    opened = Counter(calls)
    frame = np.random.default_rng(2).integers(0, 256, (30, 40, 3), np.uint8)
    region = Region(3, 2, 31, 20)
    tensors = preprocess_all(classifiers, frame, "RGB", region)
    assert once_a_picture(calls, opened)["square_of"] == 2
    for classifier, tensor in zip(classifiers, tensors, strict=True):
        assert np.array_equal(tensor, preprocess(frame, "RGB", size=classifier.size, region=region))
        alone = classifier.classify(frame, "RGB", region)
        assert classifier.answer(classifier.invoke(tensor)) == alone
    assert preprocess_all([], frame) == []
