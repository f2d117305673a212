"""Every command that is given a folder says which files of it were not taken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.doubles.command import bittern
from tests.doubles.picture_files import FORMATS

JPEG_XL = b"\xff\x0a" + bytes(50)
NOTE = "left out: 2 JPEG XL, 1 .txt"


@pytest.fixture
def folder(place: Path, tmp_path: Path) -> Path:
    """A folder for each label, with files of other kinds beside the pictures."""
    for label in ("red", "green", "blue"):
        (tmp_path / "set" / label).mkdir(parents=True)
        shutil.copy(place / f"{label}.png", tmp_path / "set" / label / "a.png")
    (tmp_path / "set/red/b.jxl").write_bytes(JPEG_XL)
    (tmp_path / "set/blue/c.jpeg_xl").write_bytes(JPEG_XL)
    (tmp_path / "set/blue/notes.txt").write_text("blue")
    (tmp_path / "set/green/camera.jfif").write_bytes(FORMATS["jpeg"]())
    return tmp_path / "set"


def test_classify(folder: Path, place: Path) -> None:
    done = bittern("classify", folder, "--model", place / "means")
    assert (done.code, done.err) == (0, f"bittern: {folder}: {NOTE}\n")
    assert len(done.out.splitlines()) == 4 * 2


def test_watch(folder: Path, place: Path) -> None:
    done = bittern("watch", "--source", f"folder:{folder}", "--model", place / "means")
    assert done.code == 0
    assert f"bittern: {folder}: {NOTE}\n" in done.err


def test_evaluate(folder: Path, place: Path) -> None:
    done = bittern("evaluate", place / "bare.tflite", "--data", folder)
    assert done.code == 0
    assert f"bittern: {folder}: {NOTE}\n" in done.err


def test_explain(folder: Path, place: Path, tmp_path: Path) -> None:
    done = bittern("explain", folder, "--model", place / "bare.tflite", "--out", tmp_path / "sheet.png")
    assert done.code == 0
    assert f"bittern: {folder}: {NOTE}\n" in done.err
