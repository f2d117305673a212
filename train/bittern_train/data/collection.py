"""A data set that grows: pictures are checked, written under a name of their content, and put into the index."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from bittern.errors import BitternError, ConfigurationError
from bittern.evaluation import dataset, index
from bittern.evaluation.dataset import Item
from bittern.model import picture_header, pictures
from bittern.system import fileio

_SUFFIXES = {"JPEG": ".jpg", "TIFF": ".tif", "JPEG 2000": ".jp2", "PNM": ".ppm"}
# Pictures after which the index is written in between: so many are looked at again after a power cut.
_SAVED_EVERY = 50


class Collection:
    """Pictures of one folder and its index; made by `opened`, which holds the index.

    Attributes:
        folder: of the pictures.
        added: how many pictures were added.
        duplicates: how many were not, because the folder has the same file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.added = self.duplicates = 0
        self._file = folder / index.FILE
        self._items = dataset.read(self._file) if self._file.exists() else []
        self._names = {item.name for item in self._items}
        self._sources = {item.columns.get("source", "") for item in self._items}
        self._saved = len(self._items)
        self._kept = False

    def __contains__(self, source: str) -> bool:
        """Whether a picture of this source is there already."""
        return source in self._sources

    def add(self, name: str, data: bytes, label: str, group: str, columns: dict[str, str]) -> None:
        """Add a picture.

        Args:
            name: what an error calls it.
            data: its file.
            label: may be empty.
            group: may be empty.
            columns: others of the index; "source" says where it is from.

        Raises:
            PictureError: it is no picture that can be read.
            BitternError: it cannot be written.
        """
        pictures.decode_bytes(data, name)
        kind = picture_header.kind_of(data[: picture_header.HEAD_BYTES]) or ""
        suffix = _SUFFIXES.get(kind, f".{kind.lower()}")
        file = f"{hashlib.sha256(data).hexdigest()[:16]}{suffix}"
        if file in self._names:
            self.duplicates += 1
            return
        try:
            fileio.write(self.folder / file, data)
        except OSError as error:
            raise BitternError(f"{self.folder / file}: cannot write it ({error.strerror})") from None
        clean = {key: " ".join(value.split()) for key, value in columns.items()}
        self._items.append(Item(self.folder / file, file, label, "", group, clean))
        self._names.add(file)
        self._sources.add(clean["source"])
        self.added += 1
        if len(self._items) - self._saved >= _SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Write the index, if something was added; the one from before the first time is kept.

        Raises:
            BitternError: it cannot be written.
        """
        if len(self._items) > self._saved:
            index.write(self._file, self._items, keep=not self._kept)
            self._saved, self._kept = len(self._items), True


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Collection]:
    """The collection in a folder, which is made if it is not there; saved at the end, however that comes.

    Raises:
        ConfigurationError: the folder cannot be used, another command changes its index, or that is broken.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder}: cannot be made ({error.strerror})") from None
    with index.locked(folder / index.FILE):
        collection = Collection(folder)
        try:
            yield collection
        finally:
            collection.save()
