"""Writes files and folders atomically (temporary name, fsync, rename, fsync of the folder), and reads small ones."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# The umask can only be read by setting it, which is not thread-safe: so it is read once, here.
_UMASK = os.umask(0)
os.umask(_UMASK)


@contextlib.contextmanager
def atomic(file: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for writing that gets its name only when the block ends without an error.

    Raises:
        OSError: the file cannot be written; the error never names the temporary file.
    """
    # Not with pathlib, which interns every part of a path: with a new name for every event the table of interned
    # strings grows by megabytes at a time, and CPython 3.12.1 keeps every name for good (120 bytes each, measured).
    folder, base = os.path.split(os.path.abspath(file))  # noqa: PTH100
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{base}.")
    except OSError as error:
        error.filename = os.fspath(file)
        raise
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp creates files for the owner only; set the mode that an ordinary open would have set.
        os.chmod(name, 0o666 & ~_UMASK)  # noqa: PTH101
        os.replace(name, file)  # noqa: PTH105
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108
        if isinstance(error, OSError) and error.filename in (None, name):
            error.filename, error.filename2 = os.fspath(file), None
        raise
    sync_folder(folder)


def read_regular(file: str | os.PathLike[str], limit: int) -> bytes:
    """Read the whole of a file that a user names, without waiting for what is no file: a FIFO, a device, a link to one.

    Args:
        file: its path.
        limit: the largest size that is accepted, in bytes.

    Raises:
        OSError: it cannot be read, is not a regular file, or is too large; `strerror` says which.
        ValueError: a NUL character in the name.
    """
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(file))
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", os.fspath(file))
    return data


def write(file: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file atomically."""
    with atomic(file) as stream:
        stream.write(data)


@contextlib.contextmanager
def atomic_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder that gets its name only when the block ends without an error.

    Args:
        folder: its final name.
        replace: replace an existing folder. The old one is moved aside first and removed last, so a crash leaves
            either the old or the new one complete (for an instant only the old one, as `.NAME.old-*`).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.new-"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_UMASK)
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
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
    """fsync a folder, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
