"""`python -m bittern_train.data.pulled INDEX FOLDER`: adds the frames that deploy/pull.sh fetched to an index."""

from __future__ import annotations

import sys
from pathlib import Path

from bittern.errors import BitternError
from bittern.evaluation import dataset, index
from bittern.page.labelling import REJECTED


def merge(device: Path, folder: Path) -> tuple[int, int]:
    """Add what the device's index says of frames that are new in a folder; what is in the folder's index stays.

    A frame of which a region was labelled, and one that was rejected, is not new.

    Args:
        device: the index of the device's kept frames.
        folder: where the frames were fetched to. One that is not there is left out.

    Returns:
        How many were added, and how many there are now.

    Raises:
        ConfigurationError: an index that cannot be read, or no frame at all.
        BitternError: the index cannot be written.
    """
    file = folder / index.FILE
    with index.locked(file):
        items = dataset.read(file) if file.exists() else []
        beside = file.with_name(REJECTED)
        rejected = dataset.read(beside) if beside.exists() else []
        known = {name for item in (*items, *rejected) for name in (item.name, item.columns.get("original"))}
        new = [item for item in dataset.read(device, folder) if item.name not in known and item.path.is_file()]
        if new or not (items or rejected):
            index.write(file, [*items, *new])
    return len(new), len(items) + len(new)


if __name__ == "__main__":
    try:
        added, total = merge(Path(sys.argv[1]), Path(sys.argv[2]))
    except BitternError as problem:
        sys.exit(f"pull: {problem}")
    print(f"{sys.argv[2]}: {added} new frames, {total} in all; next: bittern data label {sys.argv[2]}")
