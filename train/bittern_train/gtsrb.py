"""Unpack GTSRB, and write an index for it: python -m bittern_train.gtsrb FOLDER TRAIN.zip [TEST.zip]."""

from __future__ import annotations

import csv
import hashlib
import io
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bittern.errors import BitternError, ConfigurationError, one_line
from bittern.system import fileio

# Label of each of the 43 kinds of signs, in their order (Stallkamp et al. 2012, "Man vs. computer").
LABELS = (
    "speed_limit_20", "speed_limit_30", "speed_limit_50", "speed_limit_60", "speed_limit_70", "speed_limit_80",
    "end_of_speed_limit_80", "speed_limit_100", "speed_limit_120", "no_passing", "no_passing_for_trucks",
    "priority_at_next_intersection", "priority_road", "yield", "stop", "no_vehicles", "no_trucks", "no_entry",
    "general_caution", "curve_left", "curve_right", "double_curve", "bumpy_road", "slippery_road", "narrow_right",
    "road_work", "traffic_signals", "pedestrians", "children", "bicycles", "ice_or_snow", "wild_animals",
    "end_of_all_limits", "turn_right", "turn_left", "ahead_only", "ahead_or_right", "ahead_or_left", "keep_right",
    "keep_left", "roundabout", "end_of_no_passing", "end_of_no_passing_for_trucks",
)  # fmt: skip
# Of the tracks of each kind, this share is the split "val", at least one.
VALIDATED = 0.2
_TEST_INDEX = "GT-final_test.csv"
_TEST = "test"


class _Row(NamedTuple):
    path: str
    label: str
    split: str
    group: str
    stop: int


def unpack(folder: Path, train: Path, test: Path | None = None) -> int:
    """Unpack `00000/00000_00000.webp` ... (kind, then track and frame) and `test/00000.webp` ..., and write an index.

    Its columns: path, label, split, group (one physical sign), stop (1 for stop signs, else 0). The splits are train
    and val, between which no track is divided, and test, the official one.

    Args:
        folder: to unpack into.
        train: archive of the training pictures.
        test: archive of the official test pictures, with their answers.

    Returns:
        How many pictures.

    Raises:
        ConfigurationError: an archive that is missing, or is not one of GTSRB.
        OSError: the folder cannot be written.
    """
    for archive in (train, test):
        if archive is not None and not archive.is_file():
            raise ConfigurationError(f"{archive}: expected an archive of GTSRB, there is no such file")
    try:
        with zipfile.ZipFile(train) as pictures:
            names = sorted(name for name in pictures.namelist() if name.endswith(".webp"))
            rows = list(_trained(names))
            pictures.extractall(folder, names)
        if test is not None:
            with zipfile.ZipFile(test) as pictures:
                rows += _tested(pictures)
                pictures.extractall(folder / _TEST, [Path(row.path).name for row in rows if row.split == _TEST])
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, KeyError, ValueError, IndexError) as error:
        raise ConfigurationError(
            f"{train.parent}: expected the archives of GTSRB, as its README has them: {one_line(error)}"
        ) from None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_Row._fields)
    writer.writerows(rows)
    fileio.write(folder / "index.csv", text.getvalue().encode())
    return len(rows)


def _trained(names: list[str]) -> Iterator[_Row]:
    tracks: dict[int, set[str]] = {}
    own = {name: (int(Path(name).parent.name), Path(name).stem.split("_")[0]) for name in names}
    for kind, track in own.values():
        tracks.setdefault(kind, set()).add(f"{kind}/{track}")
    # By a hash of the names: the choice stays when tracks are added or go.
    validated = {
        group
        for groups in tracks.values()
        for group in sorted(groups, key=lambda g: hashlib.sha256(g.encode()).digest())[: _share(len(groups))]
    }
    for name, (kind, track) in own.items():
        group = f"{kind}/{track}"
        yield _Row(name, LABELS[kind], "val" if group in validated else "train", group, int(LABELS[kind] == "stop"))


def _share(tracks: int) -> int:
    return min(tracks - 1, max(1, round(VALIDATED * tracks)))


def _tested(pictures: zipfile.ZipFile) -> list[_Row]:
    lines = pictures.read(_TEST_INDEX).decode().splitlines()
    kinds = [(row["Filename"], LABELS[int(row["ClassId"])]) for row in csv.DictReader(lines, delimiter=";")]
    return [
        _Row(f"{_TEST}/{name}", label, _TEST, f"{_TEST}/{Path(name).stem}", int(label == "stop"))
        for name, label in kinds
    ]


def main(arguments: list[str]) -> int:
    """Unpack what the command line names; returns the exit code."""
    if not 2 <= len(arguments) <= 3:
        print("usage: python -m bittern_train.gtsrb FOLDER TRAIN.zip [TEST.zip]", file=sys.stderr)
        return 2
    try:
        count = unpack(*map(Path, arguments))
    except (BitternError, OSError) as error:
        print(f"gtsrb: {one_line(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, BitternError) else 1
    print(f"{count} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
