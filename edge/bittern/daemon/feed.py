"""What the loop reads frames from: a camera in a process of its own, or a recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bittern.events import State
from bittern.frames import Frame, Source
from bittern.system.stop import Stop


class Feed(Protocol):
    """Gives the loop its frames. `bittern.camera.supervisor.Camera` is one, `Recording` is the other."""

    @property
    def live(self) -> bool:
        """A camera, whose clock is the machine's and whose old frames are dropped; else a recording."""

    @property
    def blind(self) -> bool:
        """Whether the frame read last shows nothing, so that no alarm may come from it."""

    @property
    def ended(self) -> bool:
        """Whether there are no more frames."""

    @property
    def restarts(self) -> int:
        """How often the camera was started again."""

    @property
    def unreadable(self) -> int:
        """How many pictures of a recording could not be read."""

    @property
    def left_out(self) -> int:
        """How many frames of a recording were left out, to keep to a rate."""

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame; its pixels are valid until the next call.

        Returns:
            None if a camera gave none within `timeout_s` seconds, when a stop is asked, and at the end (`ended`).

        Raises:
            ConfigurationError: the camera cannot follow an option.
            SourceError: a recording was lost, or the camera cannot be opened at the start and is not to be tried again.
        """

    def rest(self, seconds: float) -> None:
        """Let time pass between two frames of a camera, which is watched over meanwhile."""

    def states(self) -> Sequence[State]:
        """The states that began since the last call, in order."""

    def close(self) -> None:
        """Give the device back. A second call does nothing."""


class Recording:
    """A recorded source, read in the loop's own thread, as fast as the loop takes its frames: none is dropped."""

    live = False
    blind = False
    restarts = 0

    def __init__(self, source: Source, stop: Stop) -> None:
        """Nothing is read yet; `close` closes the source."""
        self._source, self._stop = source, stop
        self.ended = False

    @property
    def unreadable(self) -> int:
        """See `Feed`."""
        return self._source.unreadable

    @property
    def left_out(self) -> int:
        """See `Feed`."""
        return self._source.left_out

    def read(self, timeout_s: float) -> Frame | None:
        """See `Feed`. How long to wait for a frame is the source's own affair, which raises `SourceError` then."""
        frame = self._stop.wait(self._source.read)
        self.ended = frame is None and not self._stop.asked
        return frame

    def rest(self, seconds: float) -> None:
        """Nothing: a recording is thinned by its own clock, see `Source.thin`."""

    def states(self) -> Sequence[State]:
        """None: a recording either gives frames or has ended."""
        return ()

    def close(self) -> None:
        """Close the source."""
        self._source.close()
