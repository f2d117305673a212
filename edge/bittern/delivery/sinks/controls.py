"""Commands from an owner: how many are taken, and what they have set, which survives a restart."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import msgspec

from bittern.delivery.sinks.announced import MAX_BYTES
from bittern.delivery.sinks.base import Controls
from bittern.errors import one_line
from bittern.events import AlarmKey
from bittern.system import fileio

NAME = "controls.json"
_log = logging.getLogger("bittern")


class Allowance:
    """How many commands are taken: ten at once, and after that one a second."""

    def __init__(self, most: float = 10.0) -> None:
        self._most = self._left = most
        self._last_s = 0.0

    def take(self, now_s: float) -> bool:
        """Whether one more is taken now, by a monotonic clock in seconds."""
        self._left = min(self._most, self._left + max(0.0, now_s - self._last_s))
        self._last_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class _Threshold(msgspec.Struct, frozen=True):
    """An entry of the file."""

    alarm: AlarmKey
    value: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]


class _File(msgspec.Struct, frozen=True):
    """What the owner wants, in a file."""

    detection: bool
    thresholds: tuple[_Threshold, ...]


class KeptControls:
    """What the owner wants, which survives a restart.

    Attributes:
        controls: what the owner wants now; `save` brings it to the disk.
    """

    def __init__(self, folder: Path | None) -> None:
        """Read the file in a folder; None keeps nothing."""
        self._file = folder / NAME if folder is not None else None
        self.controls = Controls()
        self._saved = self.controls
        if self._file is None:
            return
        try:
            kept = msgspec.json.decode(fileio.read_regular(self._file, MAX_BYTES), type=_File)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.warning("%s: what was set before is lost: %s", self._file, one_line(error))
            return
        thresholds = {entry.alarm: entry.value for entry in kept.thresholds}
        self.controls = self._saved = Controls(kept.detection, thresholds)

    def save(self) -> None:
        """Write the file, if there is anything new in it."""
        controls = self.controls
        if self._file is None or controls is self._saved:
            return
        self._saved = controls
        thresholds = tuple(_Threshold(alarm, value) for alarm, value in controls.thresholds.items())
        try:
            fileio.write(self._file, msgspec.json.encode(_File(controls.detection, thresholds)))
        except OSError as error:
            _log.warning("what was set is lost with the next restart: %s: %s", self._file, error.strerror)
