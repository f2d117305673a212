"""The source `bench`: stored frames in turn, like a camera that is never late; `bench:FILE.npy?fps=30`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
import numpy as np

from bittern.errors import ConfigurationError, one_line, redacted
from bittern.frames import Frame, Source, wall_clock_of


class BenchSource(Source):
    """Live frames from an .npy file, (n, H, W, 3) uint8 RGB, repeated in a loop."""

    live = True

    class Options(msgspec.Struct, forbid_unknown_fields=True):
        """Options of the URI: `fps`, frames per second."""

        fps: Annotated[float, msgspec.Meta(gt=0, le=10000)] = 30.0

    @classmethod
    def check(cls, address: str, options: Options) -> str:
        """The name of the source. Raises `ConfigurationError` without a file."""
        if not address.endswith(".npy"):
            raise ConfigurationError(
                f"bench: expected an .npy file, got {redacted(address)!r}; it is for `bittern bench` only"
            )
        return "bench"

    def __init__(self, address: str, options: Options) -> None:
        self.name = self.check(address, options)
        try:
            frames: Any = np.load(address)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"bench: {redacted(address)}: {one_line(error)}") from None
        self._frames, self._period_ns = frames, round(1e9 / options.fps)
        self._start_ns = time.monotonic_ns()
        self._next = 0
        self._closed = False

    def read(self) -> Frame | None:
        """Wait for the frame that is due; missed frames are dropped."""
        now = time.monotonic_ns()
        number = max(self._next, (now - self._start_ns) // self._period_ns)
        due_ns = self._start_ns + number * self._period_ns
        while (wait_ns := due_ns - time.monotonic_ns()) > 0 and not self._closed:
            time.sleep(min(wait_ns / 1e9, 0.1))
        if self._closed:
            return None
        self._next = number + 1
        taken_ns = time.monotonic_ns()
        pixels = self._frames[number % len(self._frames)]
        return Frame(pixels, "RGB", taken_ns, wall_clock_of(taken_ns), int(number), self.name)

    def close(self) -> None:
        """No more frames."""
        self._closed = True
