"""The probe that imports numpy, OpenCV and the runtime and opens every model; a process of its own."""

from __future__ import annotations

import functools
import hashlib
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bittern.doctor.steps import take

_OPENCV_WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def main() -> None:
    """Run and print every step."""
    take("python", _python)
    take("numpy", functools.partial(_module, "numpy"))
    take("cv2", functools.partial(_module, "cv2"))
    if find_spec("simplejpeg") is not None:
        # picamera2 encodes with it; it is compiled against Debian's numpy, so it is the first to fail with another one.
        take("simplejpeg", functools.partial(_module, "simplejpeg"))
    take("runtime", _runtime)
    models = take("models", _models)
    for name, folder in (models or {}).items():
        file = take(f"file {name}", functools.partial(_file, Path(folder)))
        if file is not None:
            take(f"path {name}", functools.partial(_path, Path(folder, file["file"])))
            take(f"golden {name}", functools.partial(_golden, Path(folder)))


def _python() -> dict[str, Any]:
    picamera2 = find_spec("picamera2")
    return {
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "picamera2": picamera2.origin if picamera2 is not None else None,
        "opencv_wheels": [name for name in _OPENCV_WHEELS if list(metadata.distributions(name=name))],
    }


def _module(name: str) -> dict[str, Any]:
    module = import_module(name)
    return {"version": getattr(module, "__version__", None), "file": module.__file__}


def _runtime() -> dict[str, Any]:
    from bittern.model import runtime

    return {"distribution": runtime.DISTRIBUTION, "version": runtime.version()}


def _models() -> dict[str, Any]:
    from bittern.model import catalog

    return {name: str(folder) for name, folder in catalog.available().items()}


def _file(folder: Path) -> dict[str, Any]:
    from bittern.model import manifest
    from bittern.model.classifier import read_model

    described = manifest.read(folder)
    digest = hashlib.sha256(read_model(folder / described.file)).hexdigest()
    runtimes = sorted({f"{path.runtime}=={path.version}" for path in described.golden.values()})
    return {
        "file": described.file,
        "version": described.version,
        "sha256": digest,
        "expected": described.sha256,
        "recorded_with": runtimes,
    }


def _path(file: Path) -> dict[str, Any]:
    from bittern.model import runtime
    from bittern.model.classifier import read_model

    return {"path": runtime.open_model(read_model(file), None, 1).path}


def _golden(folder: Path) -> dict[str, Any]:
    from bittern.model.classifier import Classifier

    classifier = Classifier(folder)
    return {"path": classifier.path, "tasks": [head.task for head in classifier.heads]}


if __name__ == "__main__":
    main()
