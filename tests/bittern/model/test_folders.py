"""Which files of a folder are pictures: by their content where the suffix does not say, and the others are counted."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import cv2
import pytest
from tests.doubles.picture_files import FORMATS, drawn, encode, refused

from bittern.model import pictures

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
AVIF = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(100)


def write(folder: Path, **files: bytes) -> None:
    """Names with __ for / and _ for a dot."""
    for name, data in files.items():
        file = folder / name.replace("__", "/").replace("_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in pictures.find(folder).paths]


def test_pictures_by_suffix_are_taken_whatever_is_in_them(tmp_path: Path) -> None:
    write(tmp_path, b__c_JPG=b"", a_png=b"", g_webp=b"no picture", dir_png__h_tif=b"")
    assert names(tmp_path) == ["a.png", "b/c.JPG", "dir.png/h.tif", "g.webp"]
    assert pictures.find(tmp_path).note == ""


def test_hidden_files_are_neither_taken_nor_counted(tmp_path: Path) -> None:
    write(tmp_path, _hidden__e_png=b"", _f_png=b"", _DS_Store=b"x")
    assert pictures.find(tmp_path) == pictures.Listing([], {})
    assert pictures.find(tmp_path / ".hidden").paths == [tmp_path / ".hidden/e.png"], "asked for by name, it is not"


def test_pictures_by_content_are_taken_whatever_they_are_called(tmp_path: Path) -> None:
    jpeg = FORMATS["jpeg"]()
    write(tmp_path, a_jfif=jpeg, b_jpe=jpeg, c=jpeg, d_png_1=FORMATS["png"](), e_dat=FORMATS["tiff"]())
    assert names(tmp_path) == ["a.jfif", "b.jpe", "c", "d.png.1", "e.dat"]
    for path in pictures.find(tmp_path).paths:
        assert pictures.decode(path).shape == drawn().shape


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    write(
        tmp_path,
        a_heic=HEIC,
        b_HEIC=HEIC,
        c_txt=b"BMW is a make of cars",
        d_csv=b"P5,P6\n",
        e_mp4=HEIC[:4] + b"ftypisom",
    )
    write(tmp_path, f=b"", g_pdf=b"%PDF-1.7", h_jpg=b"")
    listing = pictures.find(tmp_path)
    assert listing.paths == [tmp_path / "h.jpg"]
    heic = {"HEIC": 2} if importlib.util.find_spec("pillow_heif") is None else {}
    assert listing.left_out == heic | {".txt": 1, ".csv": 1, "video": 1, "without a suffix": 1, "PDF": 1}
    assert listing.note.endswith(", 1 .csv, 1 .txt"), "pictures first"
    if heic:
        assert "2 HEIC (pip install 'bittern[heif]')" in listing.note


def test_the_note_stays_short(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"file.{number}{'x' * 20}").touch()
    note = pictures.find(tmp_path).note
    assert note.endswith(", 34 of other kinds")
    assert len(note) < 300


def test_a_pipe_in_a_folder_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert pictures.find(tmp_path) == pictures.Listing([], {})


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is not None, reason="HEIC can be read here")
def test_heic_is_named_whatever_it_is_called() -> None:
    refused(HEIC, r"is HEIC: pip install 'bittern\[heif\]', or save it as JPEG or PNG")


@pytest.mark.parametrize(("suffix", "kind"), [(".avif", "AVIF"), (".gif", "GIF"), (".jp2", "JPEG 2000")])
def test_what_this_opencv_reads_is_read_and_what_not_is_named(tmp_path: Path, suffix: str, kind: str) -> None:
    file = tmp_path / f"picture{suffix}"
    if cv2.haveImageWriter(suffix):
        file.write_bytes(encode(suffix, drawn(64, 64)))
        assert pictures.find(tmp_path).paths == [file]
        assert pictures.decode(file).shape == (64, 64, 3)
    elif not (kind == "AVIF" and importlib.util.find_spec("pillow_heif")):
        data = {"AVIF": AVIF, "GIF": FORMATS["gif"](), "JPEG 2000": b"\xff\x4f\xff\x51" + bytes(60)}[kind]
        file.write_bytes(data)
        assert pictures.find(tmp_path).left_out == {kind: 1}
        refused(data, f"is {kind}")
