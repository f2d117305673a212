"""GTSRB's archive as a data set."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np

from bittern.evaluation import dataset
from bittern_train import gtsrb


def test_the_archive_becomes_a_data_set(tmp_path: Path) -> None:
    names = ["00013/00001_00000.webp", "00014/00000_00000.webp", "00014/00000_00001.webp"]
    picture = cv2.imencode(".webp", np.full((40, 40, 3), 90, np.uint8))[1].tobytes()
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        for name in names:
            archive.writestr(name, picture)
        archive.writestr("00014/GT-00014.csv", "Filename;ClassId\n")
    (tmp_path / "set").mkdir()
    assert gtsrb.unpack(tmp_path / "train.zip", tmp_path / "set") == 3
    items = dataset.read(tmp_path / "set")
    assert [(i.name, i.label, i.split, i.group, i.columns) for i in items] == [
        (names[0], "13", "extra", "13/00001", {"stop": "0"}),
        (names[1], "14", "extra", "14/00000", {"stop": "1"}),
        (names[2], "14", "extra", "14/00000", {"stop": "1"}),
    ]
    assert all(item.path.read_bytes() == picture for item in items)
