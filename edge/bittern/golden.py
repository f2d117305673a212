"""Golden vectors: a few frames, the tensor that each must become, and the output bytes on every execution path."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bittern import fileio
from bittern.contract import Pixels
from bittern.errors import ModelRefused
from bittern.runtime import ExecutionPath

FILE = "golden.npz"


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
    """Write golden vectors; `outputs` has, for every execution path, the outputs of every head for every frame."""
    arrays: dict[str, Pixels] = {}
    for i, (frame, tensor) in enumerate(zip(frames, tensors, strict=True)):
        arrays[f"frame_{i}"] = frame
        arrays[f"tensor_{i}"] = tensor
        for path, of_frames in outputs.items():
            for head, raw in enumerate(of_frames[i]):
                arrays[f"{path}_{i}_{head}"] = raw
    with fileio.atomic(file) as opened:
        np.savez_compressed(opened, **arrays)  # type: ignore[arg-type]


def load(file: str | os.PathLike[str], path: ExecutionPath) -> list[Vector]:
    """Read the golden vectors of one execution path.

    Raises:
        ModelRefused: the file is missing, broken or empty, or has none for this path.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = set(archive.files)
            vectors: list[Vector] = []
            while (key := f"frame_{len(vectors)}") in names:
                i = len(vectors)
                heads = sorted((n for n in names if n.startswith(f"{path}_{i}_")), key=lambda n: int(n.split("_")[2]))
                vectors.append(Vector(archive[key], archive[f"tensor_{i}"], [archive[h] for h in heads]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelRefused(f"{file}: no golden vectors can be read ({error})") from None
    if not vectors or not all(v.outputs for v in vectors):
        raise ModelRefused(f"{file}: has no golden vectors for the execution path {path}")
    return vectors
