"""Files and folders that appear whole or not at all: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# It can only be read by setting it, which threads must not do beside each other: so once, here.
_UMASK = os.umask(0)
os.umask(_UMASK)


@contextlib.contextmanager
def atomic(file: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its name only when the block ends without an error.

    Raises:
        OSError: the disk does not take it; it never names the temporary file.
    """
    # Not by pathlib, which interns every part of a path: with a new name for every event the table of interned strings
    # grows by megabytes at a time, and CPython 3.12.1 keeps every name for good (120 bytes each, measured).
    folder, base = os.path.split(os.path.abspath(file))  # noqa: PTH100
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{base}.")
    except OSError as error:
        error.filename = os.fspath(file)
        raise
    try:
        with os.fdopen(handle, "wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        # mkstemp makes files for the owner only; give what an ordinary open would have given.
        os.chmod(name, 0o666 & ~_UMASK)  # noqa: PTH101
        os.replace(name, file)  # noqa: PTH105
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108
        if isinstance(error, OSError) and error.filename in (None, name):
            error.filename, error.filename2 = os.fspath(file), None
        raise
    sync_folder(folder)


def write(file: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file atomically."""
    with atomic(file) as opened:
        opened.write(data)


@contextlib.contextmanager
def atomic_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder that takes its name only when the block ends without an error.

    Args:
        folder: the name it will have.
        replace: a folder of that name may be there already. It is moved aside first and removed last, so a crash
            leaves the old or the new one whole (for an instant neither, but the old one beside it as `.NAME.old-*`).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.new-"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_UMASK)
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        sync_folder(temporary)
        if replace and folder.exists():
            old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old-"))
            folder.rename(old / folder.name)
            try:
                temporary.rename(folder)
            except BaseException:
                (old / folder.name).rename(folder)
                old.rmdir()
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """fsync of a folder, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
