"""Pictures that were answered on the page, with their answers: kept on disk up to a limit, the oldest goes first."""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path
from typing import Any

import msgspec

from bittern.system import fileio

# The most pictures, and the most bytes of their files.
MOST = 500
MOST_BYTES = 500 * 2**20
_MAX_RECORD_BYTES = 2**20


class KeptPicture(msgspec.Struct):
    """One picture of the history.

    Attributes:
        id: a time and some random letters; later ones sort after earlier ones.
        name: of the file as it was sent.
        time: when, in seconds since 1970.
        width: of the picture, in pixels.
        height: the same.
        bytes: of the file.
        answers: as `bittern classify --json` prints them.
        corrected: task -> the label that a person gave.
    """

    id: str
    name: str
    time: float
    width: int
    height: int
    bytes: int
    answers: list[dict[str, Any]]
    corrected: dict[str, str] = {}


class PictureHistory:
    """The pictures below a folder.

    Args:
        folder: made if it is not there.

    Raises:
        OSError: the folder cannot be read or made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pictures: dict[str, KeptPicture] = {}
        self._bytes = 0
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.glob("*.json")):
            # A record that cannot be read, or whose picture is gone, is no reason not to start.
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                picture = msgspec.json.decode(fileio.read_regular(file, _MAX_RECORD_BYTES), type=KeptPicture)
                if picture.id == file.stem and self.file(picture).is_file():
                    self._pictures[picture.id] = picture
                    self._bytes += picture.bytes

    def file(self, picture: KeptPicture) -> Path:
        """Where the picture's file is, with the bytes as they were sent."""
        return self.folder / f"{picture.id}.picture"

    def add(self, name: str, data: bytes, width: int, height: int, answers: list[dict[str, Any]]) -> KeptPicture:
        """Keep a picture; the oldest ones go where there are too many.

        Raises:
            OSError: it cannot be written.
        """
        now = time.time()
        picture = KeptPicture(
            f"{int(now * 1000):012x}{secrets.token_hex(3)}", name, now, width, height, len(data), answers
        )
        fileio.write(self.file(picture), data)
        self._write(picture)
        self._pictures[picture.id] = picture
        self._bytes += picture.bytes
        while len(self._pictures) > MOST or self._bytes > MOST_BYTES:
            self.remove(next(iter(self._pictures)))
        return picture

    def correct(self, picture: KeptPicture, task: str, label: str | None) -> None:
        """Note the label that a person gave for a task; None takes it back."""
        picture.corrected = {key: value for key, value in picture.corrected.items() if key != task}
        if label is not None:
            picture.corrected[task] = label
        self._write(picture)

    def remove(self, identity: str) -> None:
        """Forget a picture; a copy that was corrected stays in its set."""
        picture = self._pictures.pop(identity)
        self._bytes -= picture.bytes
        for file in (self.folder / f"{identity}.json", self.file(picture)):
            file.unlink(missing_ok=True)

    def get(self, identity: str) -> KeptPicture | None:
        """The picture of an id."""
        return self._pictures.get(identity)

    def all(self) -> list[KeptPicture]:
        """All pictures, newest first."""
        return list(reversed(self._pictures.values()))

    def _write(self, picture: KeptPicture) -> None:
        fileio.write(self.folder / f"{picture.id}.json", msgspec.json.encode(picture))
