"""Writes files and folders atomically: temporary name, fsync, rename, fsync of the folder; reads only regular files."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

# The umask can only be read by setting it, which is not thread-safe: so it is read once, here.
_UMASK = os.umask(0)
os.umask(_UMASK)
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(file: str | os.PathLike[str], limit: int) -> BinaryIO:
    """Open a file for reading; never waits for a pipe, and never opens a device.

    Args:
        file: its name, or that of a link to it.
        limit: how many bytes it may have.

    Raises:
        OSError: it cannot be opened, is not a regular file, or is larger.
    """
    try:
        _check_regular(os.stat(file), limit)  # noqa: PTH116  # before it is opened: that alone may do something
    except ValueError:  # a NUL in the name
        raise OSError(errno.EINVAL, "not a file name", os.fspath(file)) from None
    opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(opened), limit)
        return os.fdopen(opened, "rb")
    except BaseException:
        os.close(opened)
        raise


def read_regular(file: str | os.PathLike[str], limit: int) -> bytes:
    """Read a whole file; see `open_regular`."""
    with open_regular(file, limit) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:  # it has grown
        raise _too_large(limit)
    return data


def _check_regular(status: os.stat_result, limit: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"expected a regular file, got {kind}")
    if status.st_size > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> OSError:
    size = f"{limit >> 20} MiB" if limit >> 20 else f"{limit >> 10} KiB"
    return OSError(errno.EFBIG, f"larger than the limit of {size}")


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

    Raises:
        OSError: it cannot be written; the error never names the temporary folder.
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
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and (
            error.filename is None or os.fspath(error.filename).startswith(os.fspath(temporary))
        ):
            error.filename, error.filename2 = os.fspath(folder), None
        raise
    sync_folder(folder.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """fsync a folder, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
