"""`runs/<id>/`: what training leaves and conversion reads. A run is finished when `run.json` exists."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import msgspec

from bittern.errors import ConfigurationError, one_line
from bittern.model.manifest import StillPoint, Streams, Strict, Threshold
from bittern.system import fileio, machine
from bittern_convert import task
from bittern_convert.copies import UnseenCopies
from bittern_convert.task import Task

MODEL = "model.keras"
FILE = "run.json"
INDEX = "index.csv"
# Left by earlier versions: the copies themselves.
COPIES = "copies.npz"
# Of the run's own JSON.
MAX_BYTES = 64 * 2**20


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
        task: what was trained, with every default.
        data: folder of the pictures; the paths of `index.csv` are relative to it.
        thresholds: chosen on out-of-fold scores of pictures; of no account where there are streams, by which conversion
            chooses (`bittern_convert.thresholds`).
        stills: the out-of-fold ROC of pictures, at every threshold; runs of earlier versions have neither it nor the
            next.
        streams: out of fold, at every threshold; None also where the task has none.
        metrics: figures of the k-fold.
        pictures: what was trained on, by kind and label, and how many could not be read.
        copies: what conversion draws again; None in runs of earlier versions, which hold a file of them.
        choice: the candidate that the k-fold chose, and the others' losses.
        versions: of the tools.
        revision: git revision of the code, empty where unknown.
    """

    id: str
    task: Task
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
    copies: UnseenCopies | None = None
    stills: tuple[StillPoint, ...] = ()
    streams: Streams | None = None


def check_target(out: Path, *, replace: bool) -> None:
    """Raises ConfigurationError if a run must not be written to a folder."""
    if out.exists() and not replace:
        raise ConfigurationError(f"{out} exists already: give another --out, or --force to replace it")
    if out.exists() and not (out / FILE).is_file():
        raise ConfigurationError(f"{out} is not a run: it is not replaced")


def load(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        ConfigurationError: no such run, one that is not finished, or one that cannot be read.
    """
    file = folder / FILE
    if not folder.is_dir():
        raise ConfigurationError(f"no run at {folder}: expected a folder that `bittern train` left, such as runs/NAME")
    if not file.exists():
        raise ConfigurationError(f"{folder}: the run is not finished ({FILE} is missing): train again")
    try:
        values = msgspec.json.decode(fileio.read_regular(file, MAX_BYTES), type=dict[str, Any])
        # Of the task, which an earlier version may have written, `of_run` leaves out what is not known any more.
        return msgspec.convert(values | {"task": task.of_run(values.get("task", {}))}, Run)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except RecursionError:
        raise ConfigurationError(f"{file}: nested too deeply") from None
    except (msgspec.MsgspecError, ValueError, ConfigurationError) as error:
        raise ConfigurationError(
            f"{file}: {one_line(error)}: damaged, or written by another version of Bittern: train again"
        ) from None
