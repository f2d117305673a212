"""Every model in reach ($BITTERN_MODELS, models/) proves itself on this machine, on both execution paths."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from bittern.model import catalog, golden, manifest
from bittern.model.classifier import Classifier
from bittern.model.runtime import PATHS, ExecutionPath

MODELS = catalog.available()


def test_a_model_ships() -> None:
    assert MODELS


@pytest.mark.parametrize("folder", MODELS.values(), ids=MODELS.keys())
def test_the_manifest_has_the_hash_of_every_file(folder: Path) -> None:
    described = manifest.read(folder)
    files = {file.name for file in folder.iterdir()} - {manifest.FILE}
    assert files == {described.file, *described.files}
    manifest.check_files(folder, described)


@pytest.mark.parametrize("folder", MODELS.values(), ids=MODELS.keys())
def test_it_is_small_enough_to_ship(folder: Path) -> None:
    assert (folder / manifest.read(folder).file).stat().st_size <= 3_000_000


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("folder", MODELS.values(), ids=MODELS.keys())
def test_golden_vectors_replay(folder: Path, path: ExecutionPath) -> None:
    classifier = Classifier(folder, path=path)  # refuses what does not replay
    assert classifier.path == path
    assert classifier.manifest is not None
    recorded = classifier.manifest.golden[path]
    steps = recorded.steps_on(platform.machine())
    vectors = golden.load(folder / golden.FILE, path)
    assert len(vectors) >= 2, "one picture proves little"
    for vector in vectors:
        outputs = classifier.invoke(classifier.preprocess(vector.frame))
        for output, expected in zip(outputs, vector.outputs, strict=True):
            assert output.shape == expected.shape
            assert abs(output.astype(int) - expected).max() <= steps
    different = {tuple(o.tobytes() for o in v.outputs) for v in vectors}
    assert len(different) >= 2, "every golden picture gives the same answer"
