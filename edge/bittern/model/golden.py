"""Golden vectors: a few frames, the tensor that each must become, and the output bytes for every execution path."""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bittern.errors import ModelRefused, one_line
from bittern.frames import Pixels
from bittern.model.runtime import ExecutionPath
from bittern.system import fileio

FILE = "golden.npz"
# Of the file, and of the arrays in it, which may be compressed: several times what the models have.
MAX_BYTES, MAX_ARRAY_BYTES = 16 * 2**20, 64 * 2**20
_OUTPUTS = (np.uint8, np.int8, np.float32)
# Raised by numpy, zipfile and zlib for a file that is damaged, of another kind (TypeError: a single .npy) or too large.
_UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


class Vector(NamedTuple):
    """One golden vector.

    Attributes:
        frame: (H, W, 3) uint8 BGR.
        tensor: (1, size, size, 3) uint8 RGB.
        outputs: the raw output (values,) of every head.
    """

    frame: Pixels
    tensor: Pixels
    outputs: list[Pixels]


def save(
    file: Path, frames: Sequence[Pixels], tensors: Sequence[Pixels], outputs: Mapping[str, Sequence[Sequence[Pixels]]]
) -> None:
    """Write golden vectors; `outputs` holds, for every execution path, the outputs of every head for every frame.

    Not compressed: every command reads them at its start, and inflating one took longer than an inference.
    """
    arrays: dict[str, Pixels] = {}
    for i, (frame, tensor) in enumerate(zip(frames, tensors, strict=True)):
        arrays[f"frame_{i}"] = frame
        arrays[f"tensor_{i}"] = tensor
        for path, by_frame in outputs.items():
            for head, raw in enumerate(by_frame[i]):
                arrays[f"{path}_{i}_{head}"] = raw
    with fileio.atomic(file) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def load(file: str | os.PathLike[str], path: ExecutionPath) -> list[Vector]:
    """Read the golden vectors of one execution path.

    Args:
        file: at most `MAX_BYTES`, and the arrays in it `MAX_ARRAY_BYTES` together.
        path: the execution path.

    Raises:
        ModelRefused: the file is missing, broken, too large or empty, or has none for this path.
    """
    try:
        data = fileio.read_regular(file, MAX_BYTES)
        _check_sizes(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            names = set(archive.files)
            vectors: list[Vector] = []
            while (key := f"frame_{len(vectors)}") in names:
                i = len(vectors)
                heads = sorted((n for n in names if n.startswith(f"{path}_{i}_")), key=lambda n: int(n.split("_")[2]))
                vectors.append(Vector(archive[key], archive[f"tensor_{i}"], [archive[h] for h in heads]))
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise ModelRefused(f"{file}: cannot read the golden vectors ({reason})") from None
    except _UNREADABLE as error:
        raise ModelRefused(f"{file}: cannot read the golden vectors ({one_line(error)})") from None
    for vector in vectors:
        for array in (vector.frame, vector.tensor):
            if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
                raise ModelRefused(f"{file}: golden vectors must be uint8 arrays")
        for array in vector.outputs:
            if not isinstance(array, np.ndarray) or array.dtype not in _OUTPUTS:
                raise ModelRefused(f"{file}: golden vectors must be uint8 arrays, and outputs int8 or float32 at most")
    if not vectors or not all(v.outputs for v in vectors):
        raise ModelRefused(f"{file}: has no golden vectors for the execution path {path}")
    return vectors


def _check_sizes(data: bytes) -> None:
    """Refuse arrays that say that they are larger than they are: numpy makes room for them before it reads them.

    Raises:
        ValueError: see above, or they are larger than `MAX_ARRAY_BYTES` together.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_ARRAY_BYTES:
            raise ValueError(f"the arrays are larger than the limit of {MAX_ARRAY_BYTES >> 20} MiB together")
        for member in archive.infolist():
            with archive.open(member) as stream:
                if np.lib.format.read_magic(stream) != (1, 0):
                    raise ValueError(f"{member.filename} is not an array of bytes")
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError(f"{member.filename} is shorter than its header says")
