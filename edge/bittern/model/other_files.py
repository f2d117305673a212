"""What a file is that was given as a model and is no .tflite file, and what to do with it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

_CONVERT = "make a model of it on the host: bittern convert"


def remedy(file: Path, data: bytes) -> str | None:
    """What a file is and what to do, in one line; None for anything unknown.

    Args:
        file: its name may say more than its contents.
        data: its contents.
    """
    suffix = file.suffix.lower()
    if data.startswith(b"\x89HDF\r\n\x1a\n"):
        return f"a Keras model (HDF5): {_CONVERT}"
    if data.startswith(b"PK\x03\x04"):
        return _of_archive(data)
    if data.startswith(b"\x7fELF"):
        return "a program, not a model: of Edge Impulse take the export TensorFlow Lite instead of .eim"
    if suffix == ".pb":
        return f"a graph of TensorFlow: {_CONVERT} takes the folder of the SavedModel"
    if suffix == ".onnx":
        return "an ONNX model: convert it to .tflite first (docs/models.md)"
    if suffix in (".pt", ".pth"):
        return "a PyTorch model: convert it to .tflite first (docs/models.md)"
    return None


def remedy_of_folder(folder: Path) -> str | None:
    """The same for a folder without a manifest."""
    if (folder / "saved_model.pb").exists():
        return f"a SavedModel of TensorFlow: {_CONVERT}"
    if (folder / "run.json").exists():
        return f"a run of bittern train: {_CONVERT}"
    try:
        models = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in (".tflite", ".lite"))
    except OSError:
        return None
    return f"has no manifest.json: give the file in it: {', '.join(models[:3])}" if models else None


def _of_archive(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises half a dozen kinds on a broken archive
        return "a broken zip archive"
    models = [name for name in names if name.lower().endswith((".tflite", ".lite"))]
    if models:
        return f"a zip archive: unzip it, and give the file in it: {', '.join(models[:3])}"[:200]
    if {"config.json", "metadata.json"} <= {*names}:
        return f"a Keras model (.keras): {_CONVERT}"
    if any(name.endswith("saved_model.pb") for name in names):
        return f"a zip archive with a SavedModel: unzip it, and {_CONVERT}"
    if any(name.endswith((".h5", ".keras")) for name in names):
        return f"a zip archive with a Keras model: unzip it, and {_CONVERT}"
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch model: convert it to .tflite first (docs/models.md)"
    return "a zip archive without a .tflite file"
