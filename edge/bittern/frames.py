"""A frame, and the interface of every source of frames."""

from __future__ import annotations

import abc
import time
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Order = Literal["BGR", "RGB"]


class Frame(msgspec.Struct, frozen=True, eq=False):
    """One picture of a source, unchanged.

    Attributes:
        pixels: (H, W, 3) uint8, channels in the order that `order` names.
        order: "BGR" (OpenCV's own) or "RGB".
        monotonic_ns: when the picture was taken, on the monotonic clock, in ns; from the sensor if it gives the time.
            A recorded source (`live` is false) counts from its own first frame instead.
        time_ns: the wall clock at that moment, ns since 1970, UTC. Only for people: intervals use `monotonic_ns`.
        number: counts the frames of the source from 0. A gap shows that frames were dropped.
        source: the name of the source.
    """

    pixels: Pixels
    order: Order
    monotonic_ns: int
    time_ns: int
    number: int
    source: str


class Source(abc.ABC):
    """An iterator of frames.

    The iterator ends with a recorded source. It raises `SourceError` when no frame came within `timeout_s` seconds, or
    when the source is lost. `close` may be called at any time, and more than once.

    Attributes:
        name: what events call this source.
        live: whether it is a camera, which drops old frames, so that the next frame is the newest one; a recorded
            source gives every frame, unless `thin` says otherwise.
        timeout_s: how long to wait for one frame, in seconds.
        unreadable: how many of its pictures a recorded source could not read.
        left_out: how many of its frames a recorded source left out so far, see `thin`.
        path: the file or folder that a recorded source reads; None for a camera.
        Options: the options of its address or of `[camera]`, with types and defaults; unknown ones are refused.
    """

    Options: ClassVar[type[msgspec.Struct]]
    name: str
    live: bool
    timeout_s: float = 5.0
    unreadable: int = 0
    left_out: int = 0
    path: Path | None = None

    @abc.abstractmethod
    def __init__(self, address: str, options: Any) -> None:
        """Open it, with an instance of its `Options`. Raises what `check` raises, and `SourceError`."""

    @classmethod
    @abc.abstractmethod
    def check(cls, address: str, options: Any) -> str:
        """The name of the source, without opening it. Raises `ConfigurationError` for an invalid address or option."""

    @abc.abstractmethod
    def read(self) -> Frame | None:
        """The next frame, or None at the end. Raises `SourceError`."""

    def thin(self, fps: float) -> None:  # noqa: B027 - a camera has nothing to thin
        """Give only those frames of a recording that a daemon would look at; called before the first `read`.

        A camera is not concerned: whoever reads it decides how often. A recording without times of its own is not
        thinned either.

        Args:
            fps: frames a second at most, by the recording's own clock; see `bittern.sources.sampling.Sampler`.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release the device or file."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        frame = self.read()
        if frame is None:
            raise StopIteration
        return frame

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def wall_clock_of(monotonic_ns: int) -> int:
    """The wall clock (ns since 1970) at a past moment of the monotonic clock (ns)."""
    return time.time_ns() - (time.monotonic_ns() - monotonic_ns)
