"""GTSRB's archives as a data set."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset
from bittern_train import gtsrb, task_files


def archives(root: Path, tracks: int) -> tuple[Path, Path]:
    """Training pictures of two kinds, two frames of each track, and two test pictures."""
    picture = cv2.imencode(".webp", np.full((40, 40, 3), 90, np.uint8))[1].tobytes()
    with zipfile.ZipFile(root / "train.zip", "w") as archive:
        for kind in (13, 14):
            for name in (f"{kind:05d}/{track:05d}_{frame:05d}.webp" for track in range(tracks) for frame in range(2)):
                archive.writestr(name, picture)
            archive.writestr(f"{kind:05d}/GT-{kind:05d}.csv", "Filename;ClassId\n")
    with zipfile.ZipFile(root / "test.zip", "w") as archive:
        for number in range(2):
            archive.writestr(f"{number:05d}.webp", picture)
        archive.writestr("GT-final_test.csv", "Filename;Width;ClassId\n00000.webp;40;14\n00001.webp;40;13\n")
    return root / "train.zip", root / "test.zip"


def test_the_archives_become_a_data_set(tmp_path: Path) -> None:
    train, test = archives(tmp_path, tracks=10)
    (tmp_path / "set").mkdir()
    assert gtsrb.unpack(tmp_path / "set", train, test) == 42
    items = dataset.read(tmp_path / "set")
    assert all(item.path.read_bytes() for item in items)
    rows = {i.name: (i.label, i.group, i.columns) for i in items}
    assert rows["00013/00001_00000.webp"] == ("yield", "13/00001", {"stop": "0"})
    assert rows["00014/00000_00001.webp"] == ("stop", "14/00000", {"stop": "1"})
    assert [(i.label, i.columns["stop"]) for i in items if i.split == "test"] == [("stop", "1"), ("yield", "0")]
    validated = {i.group for i in items if i.split == "val"}
    assert {kind: sum(g.startswith(f"{kind}/") for g in validated) for kind in (13, 14)} == {13: 2, 14: 2}
    assert validated.isdisjoint(i.group for i in items if i.split == "train"), "no track is divided"


def test_without_the_test_pictures(tmp_path: Path) -> None:
    train, _ = archives(tmp_path, tracks=2)
    assert gtsrb.unpack(tmp_path, train) == 8
    assert {i.split for i in dataset.read(tmp_path)} == {"train", "val"}


def test_other_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("cats/1.webp", b"")
    with pytest.raises(ConfigurationError, match="expected the archives of GTSRB"):
        gtsrb.unpack(tmp_path, tmp_path / "train.zip")


def test_an_index_stays_when_other_archives_are_refused(tmp_path: Path) -> None:
    train, test = archives(tmp_path, tracks=2)
    gtsrb.unpack(tmp_path, train)
    before = (tmp_path / "index.csv").read_bytes()
    test.write_bytes(b"no archive")
    with pytest.raises(ConfigurationError, match="expected the archives of GTSRB"):
        gtsrb.unpack(tmp_path, train, test)
    assert (tmp_path / "index.csv").read_bytes() == before


def test_an_index_that_cannot_be_written_whole_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, _ = archives(tmp_path, tracks=2)
    gtsrb.unpack(tmp_path, train)
    before = (tmp_path / "index.csv").read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    train, _ = archives(tmp_path, tracks=3)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        gtsrb.unpack(tmp_path, train)
    assert (tmp_path / "index.csv").read_bytes() == before


@pytest.mark.parametrize("case", ["no archive", "other archive", "damaged", "missing", "too few words"])
def test_what_cannot_be_unpacked_is_one_line(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    train, _ = archives(tmp_path, tracks=2)
    if case == "no archive":
        train.write_bytes(b"no archive")
    elif case == "other archive":
        with zipfile.ZipFile(train, "w") as archive:
            archive.writestr("99999/1_2.webp", b"")
    elif case == "damaged":
        data = bytearray(train.read_bytes())
        data[60] ^= 0xFF
        train.write_bytes(data)
    elif case == "missing":
        train.unlink()
    words = [str(tmp_path / "set"), str(train)]
    assert gtsrb.main(words[:1] if case == "too few words" else words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "set" / "index.csv").exists()


def test_the_command_line_tells_how_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = archives(tmp_path, tracks=2)
    assert gtsrb.main([str(tmp_path / "set"), str(train), str(test)]) == 0
    assert capsys.readouterr().out == "10 pictures\n"


def test_the_labels_of_the_task_are_those_of_the_index() -> None:
    assert task_files.load("gtsrb").labels == (*gtsrb.LABELS, "none")
