"""`bittern data resize`: a smaller copy, with its index; the pictures themselves stay as they are."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.bittern_train.data import sets
from tests.doubles.command import BITTERN, bittern, one_line

from bittern.evaluation import dataset, index
from bittern.evaluation.dataset import Item
from bittern.model import pictures


def picture(width: int, height: int, suffix: str) -> bytes:
    grey = np.random.default_rng(1).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return bytes(cv2.imencode(suffix, cv2.resize(grey, (width, height)))[1].tobytes())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    files = {
        "cat/wide.JPG": picture(400, 200, ".jpg"),
        "cat/high.webp": picture(200, 500, ".webp"),
        "dog/map.bmp": picture(300, 300, ".bmp"),
        "dog/map.png": picture(300, 300, ".png"),
        "dog/small.png": picture(60, 80, ".png"),
    }
    folder = sets.write(tmp_path / "set", files)
    index.write(
        folder / "index.csv",
        [Item(folder / n, n, n[:3], "test" if "w" in n else "train", n, {"by": "me"}) for n in files],
    )
    return folder


def test_a_smaller_copy(tmp_path: Path, source: Path) -> None:
    before = {f: f.read_bytes() for f in source.rglob("*") if f.is_file()}
    (result,) = bittern("data", "resize", source, "--side", "100", "--out", tmp_path / "small", "--json").lines
    assert (result["pictures"], result["unchanged"], result["left_out"]) == (5, 1, [])
    assert result["bytes_before"] == sum(len(data) for file, data in before.items() if file.parent != source)
    assert result["bytes_after"] < result["bytes_before"] / 2
    items = dataset.read(tmp_path / "small")
    sizes = {i.name: pictures.decode(i.path).shape[1::-1] for i in items}
    assert sizes == {
        "cat/wide.JPG": (200, 100),
        "cat/high.webp": (100, 250),
        "dog/map.bmp.png": (100, 100),
        "dog/map.png": (100, 100),
        "dog/small.png": (60, 80),
    }
    assert [(i.label, i.split, i.columns) for i in items] == [
        (i.label, i.split, i.columns) for i in dataset.read(source)
    ]
    assert (tmp_path / "small" / "dog" / "small.png").read_bytes() == before[source / "dog" / "small.png"]
    done = bittern("data", "resize", source, "--side", "100", "--crop", "--out", tmp_path / "square")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{tmp_path}/square: 5 pictures; ")
    shapes = {pictures.decode(i.path).shape for i in dataset.read(tmp_path / "square")}
    assert shapes == {(100, 100, 3), (60, 60, 3)}
    assert {f: f.read_bytes() for f in before} == before


def test_what_cannot_be_read(tmp_path: Path, source: Path) -> None:
    (source / "cat" / "wide.JPG").write_bytes(b"")
    (source / "dog" / "map.png").unlink()
    done = bittern("data", "resize", source, "--out", tmp_path / "small")
    assert done.code == 1
    assert "bittern: cat/wide.JPG: the file is empty\n" in done.err
    assert "bittern: dog/map.png: No such file or directory\n" in done.err
    assert len(dataset.read(tmp_path / "small")) == 3
    one_line(bittern("data", "resize", source, "--out", tmp_path / "small"), 2, "has an index.csv already")
    for item in dataset.read(source):
        item.path.unlink(missing_ok=True)
    done = bittern("data", "resize", source, "--out", tmp_path / "none")
    assert done.code == 1
    assert "none of 5 pictures could be read" in done.err
    assert not (tmp_path / "none").exists()


def test_a_disk_that_takes_no_more(tmp_path: Path, source: Path) -> None:
    """Nothing half-written stays."""
    done = subprocess.run(
        [BITTERN, "data", "resize", str(source), "--out", str(tmp_path / "small"), "--side", "200"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 1
    assert done.stderr == f"bittern: {tmp_path}/small: cannot be written (File too large)\n"
    assert not (tmp_path / "small").exists()


def test_a_preview_says_what_it_needs(tmp_path: Path, source: Path) -> None:
    """Where the tests of this folder run there is no albumentations."""
    line = one_line(bittern("data", "preview", "folders", "--data", source), 2, "pip install 'bittern[train]'")
    assert line.startswith("bittern: data preview needs")
