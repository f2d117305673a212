"""What a run keeps of its k-fold: the score of every picture by a fit that did not train on it, and its features."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bittern.errors import ConfigurationError
from bittern.system import fileio

FILE = "out_of_fold.npz"
_MAX_BYTES = 256 * 2**20
# Pictures whose features are kept: enough for a learning curve, and 10 MB at most.
MOST_FEATURES = 4000

Floats = npt.NDArray[np.float32]


class OutOfFold(NamedTuple):
    """The pictures that chose, in the order of the training.

    Attributes:
        names: of each, as in the run's index (n,).
        folds: number of the fold that each was validated in (n,).
        scores: calibrated, of the chosen candidate (n, labels).
        rows: numbers of the pictures whose features are kept (m,).
        features: pooled, by the network that training started from (m, channels) float16.
    """

    names: list[str]
    folds: npt.NDArray[np.int64]
    scores: Floats
    rows: npt.NDArray[np.int64]
    features: npt.NDArray[np.float16]


def feature_rows(n: int, seed: int) -> npt.NDArray[np.int64]:
    """(m,) numbers of the pictures whose features are kept, in order: all of n, or `MOST_FEATURES` drawn ones."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:MOST_FEATURES]).astype(np.int64)


def fold_numbers(validated: Sequence[npt.NDArray[np.intp]]) -> npt.NDArray[np.int64]:
    """(n,) the number of the fold that each picture is validated in.

    Args:
        validated: of each fold the numbers of its pictures; together every number below n, once.
    """
    numbers = np.zeros(sum(map(len, validated)), np.int64)
    for k, part in enumerate(validated):
        numbers[part] = k
    return numbers


def write(folder: Path, kept: OutOfFold) -> None:
    """Write the file of a run."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **(kept._asdict() | {"names": np.array(kept.names, str)}))
    fileio.write(folder / FILE, buffer.getvalue())


def read(folder: Path) -> OutOfFold:
    """Read the file of a run.

    Raises:
        ConfigurationError: there is none, as in runs of earlier versions, or it cannot be read.
    """
    file = folder / FILE
    try:
        with fileio.open_regular(file, _MAX_BYTES) as opened, np.load(opened, allow_pickle=False) as archive:
            names, folds, scores, rows, features = (archive[key] for key in OutOfFold._fields)
    except FileNotFoundError:
        raise ConfigurationError(
            f"{folder}: the run keeps no out-of-fold scores ({FILE}), as runs of earlier versions: train again"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror or 'damaged: train again'}") from None
    except Exception:  # numpy, zipfile and zlib raise half a dozen kinds
        raise ConfigurationError(f"{file}: damaged: train again") from None
    n = len(names)
    if (
        folds.shape != (n,)
        or scores.ndim != 2
        or len(scores) != n
        or features.shape[:1] != rows.shape
        or (len(rows) and not 0 <= rows.min() <= rows.max() < n)
    ):
        raise ConfigurationError(f"{file}: its parts do not fit together: train again")
    return OutOfFold([str(name) for name in names], folds, scores, rows, features)
