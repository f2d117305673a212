"""Golden vectors: a few frames, the tensor that each must become, and the output bytes on every execution path."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bittern.errors import ModelRefused
from bittern.frames import Pixels
from bittern.model.runtime import ExecutionPath

FILE = "golden.npz"
# What numpy, zipfile and zlib raise for a file that is damaged, none, or too large to be one (TypeError: a lone .npy).
_UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


class Vector(NamedTuple):
    """One golden vector.

    Attributes:
        frame: (H, W, 3) uint8 BGR.
        tensor: (1, size, size, 3) uint8 RGB.
        outputs: the raw uint8 output (labels,) of every head.
    """

    frame: Pixels
    tensor: Pixels
    outputs: list[Pixels]


def save(
    file: Path, frames: Sequence[Pixels], tensors: Sequence[Pixels], outputs: Mapping[str, Sequence[Sequence[Pixels]]]
) -> None:
    """Write golden vectors; `outputs` has, for every execution path, the outputs of every head for every frame.

    Not compressed: every start of every command reads them, and inflating took longer than an inference each.
    """
    from bittern.system import fileio

    arrays: dict[str, Pixels] = {}
    for i, (frame, tensor) in enumerate(zip(frames, tensors, strict=True)):
        arrays[f"frame_{i}"] = frame
        arrays[f"tensor_{i}"] = tensor
        for path, of_frames in outputs.items():
            for head, raw in enumerate(of_frames[i]):
                arrays[f"{path}_{i}_{head}"] = raw
    with fileio.atomic(file) as opened:
        np.savez(opened, **arrays)  # type: ignore[arg-type]


def load(file: str | os.PathLike[str], path: ExecutionPath) -> list[Vector]:
    """Read the golden vectors of one execution path.

    Raises:
        ModelRefused: the file is missing, broken or empty, or has none for this path.
    """
    try:
        # Opened here, because numpy leaves a file open that it cannot read.
        with Path(file).open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            names = set(archive.files)
            vectors: list[Vector] = []
            while (key := f"frame_{len(vectors)}") in names:
                i = len(vectors)
                heads = sorted((n for n in names if n.startswith(f"{path}_{i}_")), key=lambda n: int(n.split("_")[2]))
                vectors.append(Vector(archive[key], archive[f"tensor_{i}"], [archive[h] for h in heads]))
    except _UNREADABLE as error:
        raise ModelRefused(f"{file}: no golden vectors can be read ({' '.join(str(error).split())})") from None
    for vector in vectors:
        for array in (vector.frame, vector.tensor, *vector.outputs):
            if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
                raise ModelRefused(f"{file}: golden vectors must be uint8 arrays")
    if not vectors or not all(v.outputs for v in vectors):
        raise ModelRefused(f"{file}: has no golden vectors for the execution path {path}")
    return vectors
