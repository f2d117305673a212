"""The drawn street as a camera: `demo:?laps=1&seed=1`."""

from __future__ import annotations

import math
import time

import msgspec

from bittern.errors import ConfigurationError, redacted
from bittern.frames import Frame, Source, wall_clock_of
from bittern.scene.street import Street
from bittern.sources.uri import parse_size


class DemoSource(Source):
    """Live frames of `bittern.scene.street.Street`, at the times when they are due by the monotonic clock.

    Missed frames are dropped. The clock starts at the first `read`.
    """

    live = True

    class Options(msgspec.Struct, forbid_unknown_fields=True):
        """Options of the URI.

        Attributes:
            seed: selects the street.
            laps: end after this many laps; 0 never ends.
            fps: frames per second.
            size: width and height in pixels.
        """

        seed: int = 1
        laps: int = 0
        fps: float = 15
        size: str = "640x480"

    @classmethod
    def check(cls, address: str, options: Options) -> str:
        """The name of the source. Raises `ConfigurationError` for an address, and for values out of range."""
        if address:
            raise ConfigurationError(f"demo: takes no address, got {redacted(address)!r}: write demo:?seed=1")
        if not (options.fps > 0 and math.isfinite(options.fps)):
            raise ConfigurationError(f"demo: fps: expected a number above 0, got {options.fps:g}")
        if options.laps < 0:
            raise ConfigurationError(f"demo: laps: expected 0 (for ever) or more, got {options.laps}")
        parse_size(options.size)
        return "demo"

    def __init__(self, address: str, options: Options) -> None:
        self.name = self.check(address, options)
        self._street = Street(options.seed, parse_size(options.size))
        self._fps = options.fps
        self._end = math.ceil(options.laps * self._street.lap_s * options.fps) if options.laps else None
        self._start_ns: int | None = None
        self._next = 0
        self._closed = False

    def read(self) -> Frame | None:
        """The frame that is due, or wait for the next one if it was already read; None after the last lap."""
        if self._closed:
            return None
        if self._start_ns is None:
            self._start_ns = time.monotonic_ns()
        elapsed_s = (time.monotonic_ns() - self._start_ns) / 1e9
        number = max(math.floor(elapsed_s * self._fps), self._next)
        if self._end is not None and number >= self._end:
            return None
        due_ns = self._start_ns + round(number / self._fps * 1e9)
        while (wait_ns := due_ns - time.monotonic_ns()) > 0 and not self._closed:
            time.sleep(min(wait_ns / 1e9, 0.2))  # in short steps: `close` may come from another thread
        if self._closed:
            return None
        self._next = number + 1
        pixels = self._street.render(number / self._fps).pixels
        return Frame(pixels, "RGB", due_ns, wall_clock_of(due_ns), number, self.name)

    def close(self) -> None:
        """End the stream."""
        self._closed = True
