"""The source `folder`: every picture in a folder, one after the other."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated

import msgspec

from bittern.errors import ConfigurationError, PictureError
from bittern.frames import Frame, Source
from bittern.model import pictures

_log = logging.getLogger("bittern")


class FolderSource(Source):
    """The picture files below a folder, sorted by path; not live: every picture is given.

    A picture that cannot be read is named in one warning, counted in `unreadable`, and leaves a gap in the numbers.

    Attributes:
        unreadable: number of pictures that could not be read so far.

    Raises:
        ConfigurationError: there is no such folder, or no picture in it.
    """

    live = False

    class Options(msgspec.Struct, forbid_unknown_fields=True):
        """Options of the URI; `fps` spaces the pictures on the recorded clock, in pictures per second."""

        fps: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0

    @classmethod
    def check(cls, address: str, options: Options) -> str:
        """The name of the source. Raises `ConfigurationError` if there is no such folder."""
        if not address or not Path(address).is_dir():
            raise ConfigurationError(f"source folder: expected the path of a folder, got {address!r}")
        return str(Path(address))

    def __init__(self, address: str, options: Options) -> None:
        self.name = self.check(address, options)
        self.path = folder = Path(address)
        self.unreadable = 0
        self._fps = options.fps
        self._paths = pictures.find(folder)
        if not self._paths:
            expected = ", ".join(sorted(pictures.SUFFIXES))
            raise ConfigurationError(f"{folder}: no pictures in this folder: expected files ending in {expected}")
        self._next = 0

    def read(self) -> Frame | None:
        """The next readable picture; None after the last one, and once closed.

        `time_ns` is the time of reading: a picture file does not reliably say when it was taken.
        """
        while self._next < len(self._paths):
            number = self._next
            self._next += 1
            try:
                pixels = pictures.decode(self._paths[number])
            except PictureError as error:
                self.unreadable += 1
                _log.warning("skipped: %s", error)
                continue
            return Frame(
                pixels=pixels,
                order="BGR",
                monotonic_ns=round(number * 1e9 / self._fps),
                time_ns=time.time_ns(),
                number=number,
                source=self.name,
            )
        return None

    def close(self) -> None:
        """End the iteration."""
        self._next = len(self._paths)
