"""The models and drawn pictures that all runtimes get, in a folder with a description for scripts.

Generated models of every kind, files that TensorFlow's converter wrote, and the shipped models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tests.doubles.foreign_models import KINDS, LABELS, RANGES, Kind, red_or_blue
from tests.doubles.tflite_files import with_files

from bittern import Classifier
from bittern.frames import Pixels
from bittern.model import catalog
from bittern.scene import street

PICTURES = 10


def write(folder: Path, converted: Sequence[Path]) -> dict[str, list[str]]:
    """Write models.json, the models and their pictures; the labels of each model, in the order of its scores.

    models.json has for each model what its owner knows, with the files of its pictures: `pictures` of the network's
    size, as the plain loop gets them, and `frames` (BGR), which Bittern crops and resizes itself.

    Args:
        folder: is there.
        converted: files of `keras_files.py`, which get their labels packed into them.
    """
    described: dict[str, dict[str, Any]] = {}
    labels: dict[str, list[str]] = {}
    for number, (name, (kind, stated)) in enumerate(KINDS.items()):
        file = folder / f"kind_{number}.tflite"
        file.write_bytes(with_files(red_or_blue(kind), labels_txt="\n".join(LABELS).encode()))
        height, width = stated.get("size") or kind.shape[2 if kind.nchw else 1 :][:2]
        frames = np.stack([_tinted(seed, (height, width)) for seed in range(PICTURES)])
        grey = kind.shape[1 if kind.nchw else 3] == 1
        pictures = np.stack([_as_taken(frame, grey) for frame in frames])
        described[name] = _description(folder, file, frames, pictures, LABELS) | _of_kind(kind, stated)
        labels[name] = list(LABELS)
    for file in converted:
        file.write_bytes(with_files(file.read_bytes(), labels_txt="\n".join(LABELS).encode()))
        dtype = file.stem if "int8" in file.stem else "float32"
        kind, stated = Kind(dtype, dtype, shape=(1, 32, 32, 3)), {"pixels": "-1..1" if dtype == "float32" else None}
        frames = np.stack([_tinted(seed, (32, 32)) for seed in range(PICTURES)])
        pictures = np.stack([_as_taken(frame, grey=False) for frame in frames])
        described[f"Keras, {file.stem}"] = _description(folder, file, frames, pictures, LABELS) | _of_kind(kind, stated)
        labels[f"Keras, {file.stem}"] = list(LABELS)
    rng = np.random.default_rng(5)
    drawn = [street.random_picture(rng, stop=bool(i % 2)) for i in range(2 * PICTURES)]
    streets = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) for picture in drawn])
    for name, model in catalog.available().items():
        classifier = Classifier(model)
        assert classifier.manifest is not None
        (head,) = classifier.heads
        crops = np.concatenate([classifier.preprocess(frame).copy() for frame in streets])
        file = model.absolute() / classifier.manifest.file
        described[name] = _description(folder, file, streets, crops, head.labels) | {"folder": str(model.absolute())}
        labels[name] = list(head.labels)
    (folder / "models.json").write_text(json.dumps(described))
    return labels


def _description(folder: Path, file: Path, frames: Pixels, pictures: Pixels, labels: Sequence[str]) -> dict[str, Any]:
    """A model that takes the bytes and gives scores."""
    number = len(list(folder.glob("*-frames.npy")))
    for what, array in (("frames", frames), ("pictures", pictures)):
        np.save(folder / f"{number}-{what}.npy", array)
    return {
        "file": str(file),
        "folder": None,
        "frames": str(folder / f"{number}-frames.npy"),
        "pictures": str(folder / f"{number}-pictures.npy"),
        "labels": list(labels),
        "mean": None,
        "std": None,
        "size": None,
        "pixels": None,
        "score_of": None,
        "channels_first": False,
        "logits": False,
        "single": False,
    }


def _of_kind(kind: Kind, stated: dict[str, Any]) -> dict[str, Any]:
    low, high = RANGES[kind.pixels]
    # A float network, or one whose quantization is wider than its pixels, gets real values; any other the bytes, as in
    # TensorFlow's label_image.py.
    real = kind.takes == "float32" or kind.odd != 1
    std = 255 / (high - low)
    return stated | {
        "mean": -low * std if real else None,
        "std": std if real else None,
        "channels_first": kind.nchw,
        "logits": kind.ending == "logits",
        "single": kind.ending == "sigmoid",
    }


def _tinted(seed: int, size: tuple[int, int]) -> Pixels:
    """A drawn street of a network's height and width, BGR; bright and red, or dark and blue."""
    picture = street.random_picture(np.random.default_rng(seed), stop=bool(seed % 2))
    small = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    small = 255 - (255 - small) * (0.4, 0.5, 0.9) if seed % 2 else small * (0.3, 0.4, 0.7)
    bgr: Pixels = small.astype(np.uint8)[..., ::-1].copy()
    return bgr


def _as_taken(frame: Pixels, grey: bool) -> Pixels:
    taken: Pixels = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY if grey else cv2.COLOR_BGR2RGB)
    return taken[..., np.newaxis] if grey else taken
