"""Makes a folder of pictures with an index: all of it gets its place when it is complete, or nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bittern.errors import BitternError, ConfigurationError
from bittern.evaluation import dataset, index
from bittern.evaluation.dataset import Item

_PREFIX = ".import-"


class Destination(NamedTuple):
    """A data set that is being written.

    Attributes:
        folder: of it.
        staging: a hidden folder in it, for files that are not complete yet: they have the names of their items.
        old: the rows that its index has already.
    """

    folder: Path
    staging: Path
    old: list[Item]


@contextlib.contextmanager
def target(source: Path, out: Path, *, add: bool = False) -> Iterator[Destination]:
    """A folder to copy pictures to; in the block files are written to `staging`, and then `finish` is called.

    A block that ends with an error leaves nothing. One that is killed leaves the hidden folder, which the next removes.

    Args:
        source: the folder or archive that the pictures come from.
        out: a folder that does not exist, is empty, or, with `add`, has an index.
        add: add to the index that is there.

    Raises:
        ConfigurationError: `out` is not such a folder, or another command is changing its index.
        BitternError: it cannot be written, such as where the disk is full.
    """
    file = out / index.FILE
    _check(source, out, add)
    created = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with index.locked(file):
            for left in out.glob(f"{_PREFIX}*"):
                shutil.rmtree(left, ignore_errors=True)
            staging = Path(tempfile.mkdtemp(dir=out, prefix=_PREFIX))
            try:
                yield Destination(out, staging, dataset.read(file) if file.exists() else [])
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise BitternError(f"{out}: cannot be written ({error.strerror})") from None
    finally:
        if created and not file.exists():
            shutil.rmtree(out, ignore_errors=True)


def finish(into: Destination, items: Sequence[Item]) -> None:
    """Move the files of the items from the staging folder to their places, and add the items to the index.

    Raises:
        OSError: it cannot be written; the files are taken away again.
    """
    # One for all: an fsync of each of ten thousand files takes longer than reading them.
    os.sync()
    moved: list[Path] = []
    try:
        for item in items:
            item.path.parent.mkdir(parents=True, exist_ok=True)
            moved.append(item.path)
            (into.staging / item.name).rename(item.path)
        index.write(into.folder / index.FILE, [*into.old, *items])
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        raise


def _check(source: Path, out: Path, add: bool) -> None:
    inner, outer = out.resolve(), source.resolve()
    if inner == outer or inner in outer.parents:
        raise ConfigurationError(f"{out}: {source} lies in it: choose another folder for the data set")
    if out.exists() and not out.is_dir():
        raise ConfigurationError(f"{out}: expected a folder, got a file")
    if (out / index.FILE).exists():
        if not add:
            raise ConfigurationError(f"{out} has an index.csv already: choose another folder, or add to it (--add)")
    elif out.exists() and any(not name.startswith(".") for name in os.listdir(out)):  # noqa: PTH208
        raise ConfigurationError(f"{out} is not empty, and has no index.csv: choose another folder")
