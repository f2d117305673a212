"""The source `folder`: every picture in a folder, one after the other."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated

import msgspec

from bittern.errors import ConfigurationError, PictureError, redacted
from bittern.frames import Frame, Source
from bittern.model import pictures
from bittern.sources.sampling import Sampler

_log = logging.getLogger("bittern")


class FolderSource(Source):
    """The picture files below a folder, sorted by path; not live.

    Picture files have no times. Without the option `fps` they count as one a second, and every one of them is given,
    however few frames a daemon takes; with it they are frames of a film of that rate, which may be thinned.

    Files that are no pictures, or of a kind that cannot be read here, are counted in one warning at the start.

    A picture that cannot be read is named in one warning, counted in `unreadable`, and leaves a gap in the numbers.

    Attributes:
        unreadable: number of pictures that could not be read so far.

    Raises:
        ConfigurationError: there is no such folder, or no picture in it.
    """

    live = False

    class Options(msgspec.Struct, forbid_unknown_fields=True):
        """Options of the URI; `fps`: the rate at which the pictures were taken, in pictures per second."""

        fps: Annotated[float, msgspec.Meta(gt=0, le=1000)] | None = None

    @classmethod
    def check(cls, address: str, options: Options) -> str:
        """The name of the source. Raises `ConfigurationError` if there is no such folder."""
        if not address or not Path(address).is_dir():
            raise ConfigurationError(f"source folder: expected the path of a folder, got {redacted(address)!r}")
        return str(Path(address))

    def __init__(self, address: str, options: Options) -> None:
        self.name = self.check(address, options)
        self.path = folder = Path(address)
        self.unreadable = 0
        self._dated = options.fps is not None
        self._fps = options.fps or 1.0
        self._sampler: Sampler | None = None
        listing = pictures.find(folder)
        self._paths = listing.paths
        if not self._paths:
            note = listing.note or "it has no files"
            raise ConfigurationError(f"{folder}: no pictures in this folder: expected JPEG, PNG or others; {note}")
        if listing.note:
            _log.warning("%s: %s", folder, listing.note)
        self._next = 0

    def thin(self, fps: float) -> None:
        """See `Source`."""
        if self._dated:
            self._sampler = Sampler(fps, 1e9 / self._fps)

    def read(self) -> Frame | None:
        """The next readable picture that is due; None after the last one, and once closed.

        `time_ns` is the time of reading: a picture file does not reliably say when it was taken.
        """
        while self._next < len(self._paths):
            number = self._next
            self._next += 1
            monotonic_ns = round(number * 1e9 / self._fps)
            if self._sampler is not None and not self._sampler.due(monotonic_ns):
                self.left_out += 1
                continue
            try:
                pixels = pictures.decode(self._paths[number])
            except PictureError as error:
                self.unreadable += 1
                _log.warning("skipped: %s", error)
                continue
            return Frame(
                pixels=pixels,
                order="BGR",
                monotonic_ns=monotonic_ns,
                time_ns=time.time_ns(),
                number=number,
                source=self.name,
            )
        return None

    def close(self) -> None:
        """End the iteration."""
        self._next = len(self._paths)
