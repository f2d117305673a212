"""Unpack the training pictures of GTSRB, and write an index for them: python -m bittern_train.gtsrb ZIP FOLDER."""

from __future__ import annotations

import csv
import sys
import zipfile
from pathlib import Path

# Of the 43 kinds of signs.
STOP = "14"


def unpack(archive: Path, folder: Path) -> int:
    """Unpack `00000/00000_00000.webp` ... (kind, then track and frame), and write `index.csv`.

    Its columns: path, label (the kind, 0 to 42), split (always "extra": for training only), group (one physical sign),
    stop (1 for stop signs, else 0).

    Returns:
        How many pictures.
    """
    with zipfile.ZipFile(archive) as pictures:
        names = sorted(name for name in pictures.namelist() if name.endswith(".webp"))
        pictures.extractall(folder, names)
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "split", "group", "stop"])
        for name in names:
            kind, track = str(int(Path(name).parent.name)), Path(name).stem.split("_")[0]
            writer.writerow([name, kind, "extra", f"{kind}/{track}", int(kind == STOP)])
    return len(names)


if __name__ == "__main__":
    print(f"{unpack(Path(sys.argv[1]), Path(sys.argv[2]))} pictures")
