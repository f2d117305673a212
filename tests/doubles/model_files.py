"""Model folders and files to be spoilt, and what a refusal must look like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bittern import Classifier
from bittern.errors import ModelRefused
from bittern.frames import Pixels


def refused(model: Path, *says: str, **options: Any) -> str:
    """Open a model that must be refused in one line, which has all of these words in it."""
    with pytest.raises(ModelRefused) as caught:
        Classifier(model, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(model) in message
    for words in says:
        assert words in message
    return message


def altered(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The model folder with a changed manifest."""
    file = folder / "manifest.json"
    fields = json.loads(file.read_bytes())
    change(fields)
    file.write_text(json.dumps(fields))
    return folder


def bare(folder: Path, data: bytes, name: str = "means.tflite") -> Path:
    file = folder / name
    file.write_bytes(data)
    return file


def flat(bgr: tuple[int, int, int]) -> Pixels:
    return np.full((20, 30, 3), bgr, np.uint8)
