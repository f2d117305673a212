"""Labelled pictures on disk: an index.csv, or a folder for each label."""

from __future__ import annotations

import collections
import csv
import hashlib
import io
import logging
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bittern.errors import ConfigurationError
from bittern.system import fileio

_log = logging.getLogger("bittern")

# Splits that may be used for choices, and those that only add training pictures; every other split is for reporting.
CHOICE_SPLITS = ("train", "val")
EXTRA_SPLIT = "extra"
# Of an index: half a million pictures.
MAX_INDEX_BYTES = 64 * 2**20


class Item(NamedTuple):
    """One picture of a data set.

    Attributes:
        path: of the file.
        name: its path relative to the data set, as in the index.
        label: None where the index has no labels.
        split: "train", "val", "test", ...; empty where there is no index.
        group: ties near-duplicates; never on two sides of a split.
        columns: the other columns of the index.
    """

    path: Path
    name: str
    label: str | None
    split: str
    group: str
    columns: dict[str, str]


def read(data: Path, root: Path | None = None) -> list[Item]:
    """Read a data set: an index.csv, a folder with one, or a folder that has a folder of pictures for each label.

    Args:
        data: the index or folder.
        root: what the paths of an index are relative to; None for the folder it is in.

    An index needs the column "path" only: without "label" there are no labels, without "split" or "group" those are
    empty. It is UTF-8, with or without a byte order mark, separated by commas, semicolons or tabs.

    What is left out of folders is said in one warning.

    Raises:
        ConfigurationError: no such folder, no picture, or an index that is broken or leads outside its folder; the
            message names the line.
    """
    if data.is_file():
        return _read_index(data, root or data.parent)
    if (data / "index.csv").is_file():
        return _read_index(data / "index.csv", root or data)
    if not data.is_dir():
        raise ConfigurationError(f"no data at {data}: expected a folder, or an index.csv")
    return _read_folders(data)


def select(items: list[Item], where: Mapping[str, str], data: Path) -> list[Item]:
    """The items whose columns have the given values.

    Args:
        items: at least one, all with the same columns.
        where: column and value; "label" is a column too, if the items have labels.
        data: the index or folder that they come from, for the message.

    Raises:
        ConfigurationError: there is no such column, or no picture with these values.
    """
    columns = [*(["label"] if items[0].label is not None else []), *items[0].columns]
    for key in where:
        if key not in columns:
            has = ", ".join(columns) or "none besides path, split and group"
            raise ConfigurationError(f"{data}: the index has no column {key!r} to select by; it has {has}")
    chosen = [i for i in items if all((i.label if k == "label" else i.columns[k]) == v for k, v in where.items())]
    if not chosen:
        raise ConfigurationError(f"{data}: no picture has {', '.join(f'{k}={v}' for k, v in where.items())}")
    return chosen


def of_split(items: list[Item], split: str, data: Path) -> list[Item]:
    """The items of a split.

    Args:
        items: at least one.
        split: its name.
        data: the index or folder that they come from, for the message.

    Raises:
        ConfigurationError: there is no such split, or no item has one.
    """
    splits = {item.split for item in items}
    if splits == {""}:
        has_index = data.is_file() or (data / "index.csv").is_file()
        reason = "gives no picture a split" if has_index else "has no index.csv"
        raise ConfigurationError(f"{data} {reason}, so there is no split {split!r}: leave out --split")
    if split not in splits:
        raise ConfigurationError(f"{data}: no split {split!r}; it has {', '.join(sorted(splits))}")
    return [item for item in items if item.split == split]


class Subset(NamedTuple):
    """Pictures of a data set that are reported on together.

    Attributes:
        set: value of the index's column "set", which the index of a run has; empty without one.
        split: of all of them.
        items: at least one.
    """

    set: str
    split: str
    items: list[Item]


def for_reporting(items: Iterable[Item]) -> list[Subset]:
    """The pictures of the splits that neither training nor a choice uses, by set and split, in this order."""
    subsets: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        if item.split not in ("", *CHOICE_SPLITS, EXTRA_SPLIT):
            subsets.setdefault((item.columns.get("set", ""), item.split), []).append(item)
    return [Subset(*key, chosen) for key, chosen in sorted(subsets.items())]


def sample(items: list[Item], most: int, seed: int) -> list[Item]:
    """The items in their order; of more than `most`, so many of them, drawn by a seed."""
    if len(items) <= most:
        return items
    kept = set(random.Random(seed).sample(range(len(items)), most))
    return [item for number, item in enumerate(items) if number in kept]


def digest(items: Iterable[Item]) -> str:
    """sha256 (hex) over names, labels, splits and groups, in order: the same for two runs on the same data."""
    lines = (f"{i.name},{i.label or ''},{i.split},{i.group}\n" for i in items)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_name(name: str) -> None:
    """Check a picture's path in an index.

    Only the path itself is checked: where the user's own symbolic links lead is the user's business.

    Raises:
        ValueError: it is empty, or leads outside the folder.
    """
    if "\0" in name or not Path(name).parts or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"path {name!r} is empty or leads outside the folder")


def _read_index(file: Path, root: Path) -> list[Item]:
    try:
        data = fileio.read_regular(file, MAX_INDEX_BYTES)
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot read the index ({error.strerror})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{file}:{line}: cannot read the index, it is not UTF-8: save it as UTF-8") from None
    items: list[Item] = []
    names: set[str] = set()
    for line, row in _rows(text, file):
        name = row.pop("path")
        try:
            check_name(name)
        except ValueError as error:
            raise ConfigurationError(f"{file}:{line}: {error}") from None
        if name in names:
            raise ConfigurationError(f"{file}:{line}: path {name!r} appears twice")
        names.add(name)
        label, split, group = row.pop("label", None), row.pop("split", ""), row.pop("group", "")
        items.append(Item(root / name, name, label, split, group, row))
    if not items:
        raise ConfigurationError(f"{file}: the index has no pictures")
    return items


def _rows(text: str, file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of an index as people and spreadsheets save it, each with the number of its first line.

    Values are separated by commas, semicolons or tabs. Rows without any value are left out, and so are columns that
    have neither a name nor a value.

    Raises:
        ConfigurationError: it is not CSV, lacks the column "path", or has a row of another length.
    """
    lines = io.StringIO(text, newline="")
    first = lines.readline()
    lines.seek(0)
    reader = csv.reader(lines, delimiter=max(",;\t", key=first.count), strict=True)
    line = 1
    try:
        fields = next(reader, [])
        _check_fields(fields, file)
        line = reader.line_num + 1
        for row in reader:
            if any(row):
                if len(row) != len(fields):
                    raise ConfigurationError(f"{file}:{line}: expected {len(fields)} values, as in the first line")
                columns = dict(zip(fields, row, strict=True))
                if columns.pop("", ""):
                    raise ConfigurationError(f"{file}:{line}: a value in a column that has no name in the first line")
                yield line, columns
            line = reader.line_num + 1
    except csv.Error as error:
        raise ConfigurationError(f"{file}:{line}: cannot read the index ({error})") from None


def _check_fields(fields: list[str], file: Path) -> None:
    if "path" not in fields:
        raise ConfigurationError(f"{file}: no column path; expected path,label,split,group and any others")
    for name in fields:
        if name and fields.count(name) > 1:
            raise ConfigurationError(f"{file}:1: two columns are called {name!r}")
    # A misspelt column would be one of the others, and its splits or groups ignored without a word.
    for known in {"label", "split", "group"} - set(fields):
        similar = [field for field in fields if field.strip().lower() in (known, f"{known}s")]
        if similar:
            raise ConfigurationError(f"{file}:1: column {similar[0]!r}: did you mean {known!r}?")


def _read_folders(root: Path) -> list[Item]:
    # Only here: a process that reads and writes indexes does without OpenCV.
    from bittern.model import pictures

    items: list[Item] = []
    left_out: collections.Counter[str] = collections.Counter()
    for folder in sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith(".")):
        listing = pictures.find(folder)
        left_out.update(listing.left_out)
        for path in listing.paths:
            name = path.relative_to(root).as_posix()
            items.append(Item(path, name, folder.name, "", name, {}))
    note = pictures.Listing([], left_out).note
    if not items:
        left_over = f" ({note})" if note else ""
        raise ConfigurationError(
            f"{root}: no pictures found{left_over}: expected an index.csv, or a folder of pictures for each label"
        )
    if note:
        _log.warning("%s: %s", root, note)
    return items
