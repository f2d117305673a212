"""Writes the index of a data set: whole or not at all, one command at a time, and the old one is kept for `undo`."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bittern.errors import BitternError, ConfigurationError
from bittern.evaluation import dataset
from bittern.evaluation.dataset import Item
from bittern.system import fileio

FILE = "index.csv"


def file_of(data: Path) -> Path:
    """The index of a data set: the file itself, or `index.csv` in the folder, whether it exists or not."""
    return data if data.is_file() else data / FILE


def write(file: Path, items: Sequence[Item], *, keep: bool = True) -> None:
    """Write an index atomically; hold `locked` from before it was read.

    Its columns are path, label (unless no item has one), split, group, and then those of the items, in the order in
    which they first appear; what an item lacks is empty. If this changes the index, the old one becomes `NAME.1`,
    `NAME.2`, ...: the highest number is the newest.

    Args:
        file: the index.
        items: at least one; see `dataset.Item`.
        keep: whether the old index is kept; False for the second and further changes that are undone together.

    Raises:
        ConfigurationError: there is no item, or one that could not be read back: its path is empty, leads outside the
            folder or is there twice, or a text is not Unicode or longer than a reader of CSV takes.
        BitternError: the index cannot be written; the old one is still in its place.
    """
    data = _encode(file, items)
    target = Path(os.path.realpath(file))
    try:
        old = _read(target)
        if old == data:
            return
        if old is not None and keep:
            fileio.write(_version(target, max(versions(target), default=0) + 1), old)
        fileio.write(target, data)
    except OSError as error:
        raise _cannot_write(file, error) from None


def undo(file: Path) -> int:
    """Put the newest kept index in the place of the present one, which becomes `NAME.undone`; hold `locked`.

    Returns:
        The number of the kept index.

    Raises:
        ConfigurationError: none is kept.
        BitternError: it cannot be put there; nothing is changed.
    """
    target = Path(os.path.realpath(file))
    try:
        present = _read(target)
        for number in reversed(versions(target)):
            kept = _version(target, number)
            # The same as the present one: the change was interrupted before it was made.
            if _read(kept) == present:
                kept.unlink()
                continue
            if present is not None:
                fileio.write(target.with_name(f"{target.name}.undone"), present)
            kept.replace(target)
            fileio.sync_folder(target.parent)
            return number
    except OSError as error:
        raise _cannot_write(file, error) from None
    raise ConfigurationError(f"{file}: no older index is kept ({file.name}.1, ...), so there is nothing to undo")


def versions(file: Path) -> list[int]:
    """The numbers of the kept indexes of a file, oldest first."""
    try:
        names = os.listdir(file.parent)  # noqa: PTH208  # of a folder that may hold all pictures: no Path for each
    except FileNotFoundError:
        return []
    suffixes = (name.removeprefix(f"{file.name}.") for name in names if name.startswith(f"{file.name}."))
    return sorted(int(suffix) for suffix in suffixes if suffix.isascii() and suffix.isdigit() and suffix[0] != "0")


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keep other commands from changing an index, from reading it to writing it.

    Raises:
        ConfigurationError: another command does this already, or there is no such folder.
        BitternError: the folder cannot be written to.
    """
    target = Path(os.path.realpath(file))
    # A file of its own, as the index is replaced. It stays there: removing it could leave two commands with two locks.
    lock = target.with_name(f".{target.name}.lock")
    try:
        opened = lock.open("a+b")
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(f"{file}: no such folder {file.parent}") from None
    except OSError as error:
        raise _cannot_write(file, error) from None
    with opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            opened.seek(0)
            process = opened.read(20).decode("ascii", "replace").strip()
            raise ConfigurationError(
                f"{file}: another command (process {process or '?'}) is changing this index: wait until it has ended"
            ) from None
        except OSError as error:
            raise _cannot_write(file, error) from None
        opened.truncate(0)
        opened.write(str(os.getpid()).encode())
        opened.flush()
        yield


def _encode(file: Path, items: Sequence[Item]) -> bytes:
    if not items:
        raise ConfigurationError(f"{file}: there would be no picture left in the index")
    columns = list(dict.fromkeys(key for item in items for key in item.columns))
    with_labels = any(item.label is not None for item in items)
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    # Before Python 3.13 a writer leaves "\r" without quotes if its lines do not end in it.
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(["path", *(["label"] if with_labels else []), "split", "group", *columns])
    names: set[str] = set()
    for item in items:
        try:
            dataset.check_name(item.name)
        except ValueError as error:
            raise ConfigurationError(f"{file}: {error}") from None
        if item.name in names:
            raise ConfigurationError(f"{file}: path {item.name!r} would appear twice")
        names.add(item.name)
        row = [item.name, *([item.label or ""] if with_labels else []), item.split, item.group]
        row += [item.columns.get(key, "") for key in columns]
        longest = max(map(len, row))
        if longest > csv.field_size_limit():
            raise ConfigurationError(f"{file}: {item.name[:100]!r}: a text of {longest} characters is too long")
        (quoted if any("\r" in value for value in row) else plain).writerow(row)
    try:
        data = text.getvalue().encode()
    except UnicodeEncodeError as error:
        line = text.getvalue().count("\n", 0, error.start) + 1
        raise ConfigurationError(f"{file}: row {line} holds a name that is not Unicode: rename that file") from None
    if len(data) > dataset.MAX_INDEX_BYTES:
        raise ConfigurationError(f"{file}: the index would be larger than {dataset.MAX_INDEX_BYTES >> 20} MiB")
    return data


def _version(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")


def _read(file: Path) -> bytes | None:
    try:
        return fileio.read_regular(file, dataset.MAX_INDEX_BYTES)
    except FileNotFoundError:
        return None


def _cannot_write(file: Path, error: OSError) -> BitternError:
    return BitternError(f"{file}: cannot write the index ({error.strerror})")
