"""Doubtful labels: those that were swapped on purpose are named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.doubles import drawn_pictures
from tests.doubles.data_command import data as command

from bittern.evaluation import dataset, index
from bittern_train.data import doubt


def test_swapped_labels_are_doubted() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 50)
    scores = np.full((150, 3), 0.04)
    scores[np.arange(150), truth] = 0.92 - rng.random(150) * 0.1
    scores[3], scores[77] = (0.97, 0.02, 0.01), (0.02, 0.95, 0.03)
    scores /= scores.sum(1, keepdims=True)
    labels = truth.copy()
    labels[[3, 77]] = [2, 0]
    assert doubt.doubted(labels, scores) == [3, 77], "the most doubtful first"
    assert doubt.doubted(truth, scores) == []


@pytest.mark.parametrize("options", [[], ["--weights", "none"]])
def test_check_names_them(tmp_path: Path, options: list[str]) -> None:
    """By simple features; those of MobileNetV2 with random weights are taken too, but say little."""
    root = drawn_pictures.discs(tmp_path / "set", 30)
    items = dataset.read(root)
    swapped = items[5]
    assert swapped.label == "blue"
    index.write(root / "index.csv", [i._replace(label="red") if i is swapped else i for i in items])
    done = command("check", root, "--json", *options)
    (report,) = done.lines
    doubted = [p for f in report["findings"] if f["kind"] == "doubted" for p in f["pictures"]]
    if options:
        assert done.code == 0
        assert not [remark for remark in report["not_checked"] if "--weights" in remark]
    else:
        assert [p["path"] for p in doubted] == [swapped.name]
        assert doubted[0]["note"].startswith("rather blue (0.")
    assert cv2.imread(str(swapped.path)) is not None
