"""The files below a folder, in a zip or in a tar: listed and read in place, nothing is unpacked."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from bittern.errors import ConfigurationError, one_line
from bittern.model import pictures
from bittern.system import fileio

# Files that may say what is in the pictures.
ANNOTATIONS = frozenset(
    {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".labels", ".xml", ".txt", ".yaml", ".yml", ".names"}
)
MAX_ANNOTATION_BYTES = 256 * 2**20
# Photographs hardly shrink; an archive that grows to more than this and by more than the factor is a bomb.
MAX_GROWN_BYTES = 2**30
MAX_GROWTH = 200
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    NotImplementedError,
)


class Omission(NamedTuple):
    """What is not taken: its path, why, and whether it should have been there (broken, missing, too large)."""

    name: str
    reason: str
    failed: bool = True


class Tree:
    """Files by their paths, with "/" between the parts.

    Attributes:
        path: of the folder or archive.
        sizes: bytes of each file, by its path, sorted; hidden ones are not among them.
        left_out: what is neither a file nor a folder, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sizes: dict[str, int] = {}
        self.left_out: list[Omission] = []

    def read(self, name: str, limit: int) -> bytes:
        """The contents of a file.

        Raises:
            OSError: it cannot be read, or has more bytes than `limit`.
        """
        raise NotImplementedError

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Names in the order in which they are read fastest."""
        return list(names)

    def close(self) -> None:
        """Close the archive."""

    def _sort(self) -> None:
        self.sizes = dict(sorted(self.sizes.items()))
        self.left_out.sort()


def open_tree(path: Path, without: Path | None = None) -> Tree:
    """Open a folder, zip or tar (plain, gzip, bzip2 or xz).

    Args:
        path: of it.
        without: a folder that does not belong to it, even if it is in it.

    Raises:
        ConfigurationError: there is none, it is broken or encrypted, a path in it leads outside, or it is a bomb.
    """
    if path.is_dir():
        return _Folder(path, without)
    try:
        with fileio.open_regular(path, 2**63) as file:
            head = file.read(512)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such folder or file") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        if zipfile.is_zipfile(path):
            return _Zip(path)
        opener = next((open_ for magic, open_ in _COMPRESSED.items() if head.startswith(magic)), None)
        if opener is not None or head[257:262] == b"ustar":
            return _Tar(path, opener)
    except ConfigurationError:
        raise
    except _BROKEN as error:
        raise ConfigurationError(f"{path}: broken archive ({one_line(error)})") from None
    raise ConfigurationError(f"{path}: expected a folder, a zip, a tar, or a CSV or JSON file with paths and labels")


_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


class _Folder(Tree):
    """Links to folders are followed, each folder once: there may be links in circles."""

    def __init__(self, path: Path, without: Path | None) -> None:
        super().__init__(path)
        visited: set[tuple[int, int]] = set()
        outside = os.path.realpath(without) if without is not None else None
        for folder, folders, files in os.walk(path, followlinks=True, onerror=self._cannot_list):
            status = os.stat(folder)  # noqa: PTH116
            below = os.path.relpath(folder, path)
            if below != "." and os.path.realpath(folder) == outside:
                folders.clear()
                continue
            if (status.st_dev, status.st_ino) in visited:
                self.left_out.append(Omission(below, "link to a folder that is there already", failed=False))
                folders.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in files:
                if not name.startswith("."):
                    self._add(name if below == "." else f"{below}/{name}", os.path.join(folder, name))  # noqa: PTH118
        self._sort()

    def _add(self, name: str, file: str) -> None:
        try:
            status = os.stat(file)  # noqa: PTH116
        except OSError as error:
            self.left_out.append(Omission(name, f"cannot be read ({error.strerror})"))
            return
        if stat.S_ISREG(status.st_mode):
            self.sizes[name] = status.st_size
        else:
            self.left_out.append(Omission(name, "no regular file"))

    def _cannot_list(self, error: OSError) -> None:
        name = os.path.relpath(error.filename, self.path)
        if name == ".":
            raise ConfigurationError(f"{self.path}: cannot be read ({error.strerror})") from None
        self.left_out.append(Omission(name, f"cannot be read ({error.strerror})"))

    def read(self, name: str, limit: int) -> bytes:
        return fileio.read_regular(self.path / name, limit)


@contextlib.contextmanager
def _closed_on_failure(opened: zipfile.ZipFile | _Bounded) -> Iterator[None]:
    try:
        yield
    except BaseException:
        opened.close()
        raise


class _Archive(Tree):
    """What zips and tars have in common: paths, and how much they may grow to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._most = max(MAX_GROWN_BYTES, MAX_GROWTH * path.stat().st_size)
        self._grown = 0

    def _name(self, stored: str) -> str | None:
        """The path in the archive; None if it is hidden."""
        name = stored.replace("\\", "/")
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "\0" in name or (len(name) > 1 and name[1] == ":"):
            raise ConfigurationError(f"{self.path}: {stored!r} leads outside of the archive: refused")
        if any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in parts):
            return None
        return posixpath.normpath(name)

    def _grow(self, size: int) -> None:
        self._grown += size
        if self._grown > self._most:
            raise ConfigurationError(
                f"{self.path}: grows to more than {self._most / 2**30:.1f} GiB, {MAX_GROWTH} times its size: refused"
            )


class _Zip(_Archive):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._archive = zipfile.ZipFile(path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        with _closed_on_failure(self._archive):
            self._list()

    def _list(self) -> None:
        for member in self._archive.infolist():
            name = self._name(member.filename)
            if name is None or member.is_dir():
                continue
            self._grow(member.file_size)
            if member.flag_bits & 1:
                raise ConfigurationError(f"{self.path}: is encrypted: unpack it first")
            mode = member.external_attr >> 16
            if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
                self.left_out.append(Omission(name, "link in the archive"))
                continue
            self.sizes[name] = member.file_size
            self._members[name] = member
        self._sort()

    def read(self, name: str, limit: int) -> bytes:
        if self.sizes[name] > limit:
            raise OSError(f"larger than the limit of {limit >> 20} MiB")
        try:
            return self._archive.read(self._members[name])
        except _BROKEN as error:
            raise OSError(f"broken archive ({one_line(error)})") from None

    def close(self) -> None:
        self._archive.close()


class _Bounded:
    """A stream of which no more than an annotation may be read at once: the headers of a tar state any size."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_ANNOTATION_BYTES:
            raise tarfile.ReadError("a header of more than 256 MiB")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()


class _Tar(_Archive):
    """Listed in a first pass, which keeps the annotations; the pictures are read in a second one, in their order."""

    def __init__(self, path: Path, opener: object) -> None:
        super().__init__(path)
        self._stream = _Bounded(opener(path, "rb") if callable(opener) else path.open("rb"))
        self._members: dict[str, tarfile.TarInfo] = {}
        self._kept: dict[str, bytes] = {}
        with _closed_on_failure(self._stream):
            self._archive = tarfile.open(fileobj=self._stream, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
            self._list()

    def _list(self) -> None:
        kept = 0
        while (member := self._archive.next()) is not None:
            self._grow(member.size)
            name = self._name(member.name)
            if name is None or member.isdir():
                continue
            if not member.isreg() or member.issparse():
                self.left_out.append(Omission(name, "link or device in the archive"))
                continue
            self.sizes[name] = member.size
            self._members[name] = member
            if posixpath.splitext(name)[1].lower() in ANNOTATIONS and kept + member.size <= MAX_ANNOTATION_BYTES:
                kept += member.size
                self._kept[name] = self._content(member)
        self._sort()

    def _content(self, member: tarfile.TarInfo) -> bytes:
        file = self._archive.extractfile(member)
        assert file is not None
        data: bytes = file.read()
        if len(data) < member.size:
            raise EOFError("it ends in the middle of a file")
        return data

    def in_order(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=lambda name: self._members[name].offset)

    def read(self, name: str, limit: int) -> bytes:
        if self.sizes[name] > min(limit, MAX_ANNOTATION_BYTES):
            raise OSError(f"larger than the limit of {limit >> 20} MiB")
        if name in self._kept:
            return self._kept[name]
        try:
            return self._content(self._members[name])
        except _BROKEN as error:
            raise OSError(f"broken archive ({one_line(error)})") from None

    def close(self) -> None:
        self._archive.close()
        self._stream.close()


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture."""
    return posixpath.splitext(name)[1].lower() in _PICTURES


_PICTURES = pictures.SUFFIXES | {".gif", ".avif", ".heic", ".heif", ".jp2", ".jfif"}
