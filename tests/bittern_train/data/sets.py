"""Small sets of drawn pictures as others lay them out."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from bittern.frames import Pixels

WIDTH, HEIGHT = 80, 60


def drawn(seed: int = 0) -> Pixels:
    """(60, 80, 3) uint8 BGR: noise of its own, and a red square from (20, 10) to (40, 30)."""
    picture = np.random.default_rng(seed).integers(90, 140, (HEIGHT, WIDTH, 3), np.uint8)
    picture[10:30, 20:40] = (0, 0, 255)
    return picture


def encoded(seed: int = 0, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, drawn(seed))[1].tobytes())


def write(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def zipped(file: Path, files: Mapping[str, bytes | str]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file


def tarred(file: Path, files: Mapping[str, bytes | str], mode: str) -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


FOLDERS: dict[str, bytes | str] = {
    "pets/Cat/1.png": encoded(1),
    "pets/Cat/deep/er/2.PNG": encoded(2),
    "pets/hünd/3.png": encoded(3),
    "pets/notes.md": "x",
}


def coco() -> dict[str, bytes | str]:
    annotations = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 8, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
            {"id": 9, "file_name": "gone.png", "width": WIDTH, "height": HEIGHT},
            {"id": 10, "file_name": "c.png", "width": HEIGHT, "height": WIDTH},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [20, 10, 20, 20]},
            {"id": 2, "image_id": 7, "category_id": 4, "bbox": [50, 30, 12, 10]},
            {"id": 3, "image_id": 10, "category_id": 3, "bbox": [20, 10, 20, 20]},
        ],
        "categories": [{"id": 3, "name": "stop"}, {"id": 4, "name": 'car, "old" \U0001f697'}],
    }
    pictures = {f"images/{name}.png": encoded(seed) for seed, name in enumerate("abcd")}
    return {**pictures, "annotations/instances_val2017.json": json.dumps(annotations)}


def yolo() -> dict[str, bytes | str]:
    return {
        "data.yaml": "train: ../train/images\nnc: 2\nnames: ['stop', \"give way\"]\n",
        "train/images/a.png": encoded(1),
        "train/labels/a.txt": "0 0.375 0.333333 0.25 0.333333\n1 0.8 0.7 0.9 0.7 0.9 0.9\n",
        "valid/images/b.png": encoded(2),
        "valid/labels/b.txt": "",
        "valid/images/c.png": encoded(3),
    }


def voc() -> dict[str, bytes | str]:
    annotation = (
        "<annotation><filename>a.png</filename><size><width>80</width><height>60</height><depth>3</depth></size>"
        "<object><name>stop</name><bndbox><xmin>20</xmin><ymin>10</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
        "</object></annotation>"
    )
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>'
    return {
        "JPEGImages/a.png": encoded(1),
        "Annotations/a.xml": annotation,
        "Annotations/bomb.xml": bomb,
        "Annotations/broken.xml": "<annotation><object>",
    }


def gtsrb() -> dict[str, bytes | str]:
    table = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    return {
        "Images/00014/00000_00000.ppm": encoded(1, ".ppm"),
        "Images/00014/00000_00001.ppm": encoded(2, ".ppm"),
        "Images/00014/GT-00014.csv": table
        + "00000_00000.ppm;80;60;20;10;39;29;14\n00000_00001.ppm;80;60;20;10;39;29;14\n",
        "Images/00003/00000_00000.ppm": encoded(3, ".ppm"),
        "Images/00003/GT-00003.csv": table + "00000_00000.ppm;80;60;20;10;39;29;3\n",
    }


def edge_impulse() -> dict[str, bytes | str]:
    info = {
        "version": 1,
        "files": [
            {"path": "training/a.png", "category": "training", "label": {"type": "label", "label": "stop"}},
            {
                "path": "testing/b.png",
                "category": "testing",
                "label": {"type": "unlabeled"},
                "boundingBoxes": [{"label": "stop", "x": 20, "y": 10, "width": 20, "height": 20}],
            },
        ],
    }
    return {"info.labels": json.dumps(info), "training/a.png": encoded(1), "testing/b.png": encoded(2)}


def frigate() -> dict[str, bytes | str]:
    event = {
        "id": "1700000000.123456-abcdef",
        "camera": "gate",
        "label": "person",
        "sub_label": None,
        "start_time": 1700000000.1,
        "has_snapshot": True,
        "data": {"box": [0.25, 1 / 6, 0.25, 1 / 3], "score": 0.8},
    }
    named = "clips/gate-1700000000.123456-abcdef"
    return {
        "events.json": json.dumps([event]),
        f"{named}.jpg": encoded(1, ".jpg"),
        f"{named}-clean.png": encoded(2),
    }
