"""`runs/<id>/`: what training leaves and conversion reads. A run is finished when `run.json` exists."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Self

import cv2
import msgspec

from bittern.errors import ConfigurationError
from bittern.model.manifest import Strict, Threshold
from bittern.model.preprocess import CENTER, Region, View
from bittern.system import machine

MODEL = "model.keras"
FILE = "run.json"
INDEX = "index.csv"
COPIES = "copies.npz"


class Seen(NamedTuple):
    """What a task looks at of a photograph: a region of it (None for all of it), and squares of that."""

    region: Region | None
    views: tuple[View, ...]

    @classmethod
    def of(cls, task: dict[str, Any]) -> Self:
        """Of a task file as a mapping, whose keys "region" and "views" may be missing."""
        region = task.get("region")
        return cls(Region(*region) if region else None, tuple(task.get("views", CENTER)))

    def keys(self) -> dict[str, Any]:
        """The keys that say something else than the default."""
        views = {"views": list(self.views)} if self.views != CENTER else {}
        return ({"region": list(self.region)} if self.region else {}) | views

    def text(self) -> str:
        """In words, empty for the default."""
        views = f"the deciding one of the views {', '.join(self.views)}" if self.views != CENTER else ""
        region = f"the region {', '.join(map(str, self.region))}" if self.region else ""
        return " of ".join(part for part in (views, region) if part)


def environment() -> dict[str, str]:
    """Libraries and machine on which figures depend: others add up in another order, or decode JPEGs otherwise.

    Returns:
        Versions of TensorFlow and OpenCV, the processor's name, and the number of cores that this process may use.
    """
    return {
        "tensorflow": metadata.version("tensorflow"),
        "opencv": cv2.__version__,
        "processor": machine.read().cpu or platform.machine(),
        "threads": str(len(os.sched_getaffinity(0))),
    }


class Run(Strict, frozen=True, kw_only=True):
    """`run.json`.

    Attributes:
        task: the task file as a mapping; `name`, `labels`, `alarm`, `nothing` are used for the manifest.
        data: folder of the pictures; the paths of `index.csv` are relative to it.
        thresholds: chosen on out-of-fold scores.
        metrics: figures of the k-fold.
        pictures: what was trained on, by kind and label, and how many could not be read.
        choice: the candidate that the k-fold chose, and the others' losses.
        versions: of the tools.
        revision: git revision of the code, empty where unknown.
    """

    id: str
    task: dict[str, Any]
    data: str
    data_sha256: str
    weights_sha256: str
    seed: int
    thresholds: dict[str, Threshold]
    metrics: dict[str, Any]
    choice: dict[str, Any]
    pictures: dict[str, Any]
    skipped: list[str]
    versions: dict[str, str]
    revision: str
    seconds: float


def load(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        ConfigurationError: no such run, or one that is not finished.
    """
    file = folder / FILE
    if not folder.is_dir():
        raise ConfigurationError(f"no run at {folder}: expected a folder that `bittern train` left, such as runs/NAME")
    if not file.is_file():
        raise ConfigurationError(f"{folder}: the run is not finished ({FILE} is missing): train again")
    try:
        return msgspec.json.decode(file.read_bytes(), type=Run)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"{file}: {error}") from None
