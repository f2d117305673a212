"""How far long work has come: reported by the work, shown as a line every half minute where stderr is no terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, Self, TextIO, TypeVar

# Seconds between two lines.
INTERVAL_S = 30.0

_T = TypeVar("_T")


class Progress(Protocol):
    """Where long work reports to."""

    def __call__(self, step: str, done: int, total: int) -> None:
        """Of the step that the work is at, `done` of `total` parts are done; another `step` begins a new one."""

    def say(self, line: str) -> None:
        """Show a line that stays."""


class Counter:
    """Counts the parts of one step, for work that cannot count them itself."""

    def __init__(self, progress: Progress, step: str, total: int) -> None:
        self.done = 0
        self._progress, self._step, self._total = progress, step, total
        progress(step, 0, total)

    def advance(self) -> None:
        """One part more is done."""
        self.reach(self.done + 1)

    def reach(self, done: int) -> None:
        """Set the number of finished parts."""
        self.done = done
        self._progress(self._step, done, self._total)


def counted(items: Iterable[_T], progress: Progress, step: str, total: int) -> Iterator[_T]:
    """The items, reported as they are consumed."""
    progress(step, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(step, done, total)


class ProgressLines:
    """While entered, a thread writes a line with step, share and time left every INTERVAL_S seconds."""

    def __init__(
        self, stream: TextIO, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._interval_s, self._clock = stream, interval_s, clock
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="progress")
        # Step, done, total, and when the step began; replaced as a whole, because two threads use it.
        self._step: tuple[str, int, int, float] | None = None

    def __call__(self, step: str, done: int, total: int) -> None:
        """See `Progress`."""
        before = self._step
        began = before[3] if before is not None and before[0] == step else self._clock()
        self._step = step, done, total, began

    def say(self, line: str) -> None:
        """See `Progress`."""
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def line(self) -> str | None:
        """The line that is due now; None before the first step, and after one until the next begins."""
        if self._step is None:
            return None
        step, done, total, began = self._step
        if done >= total:
            return None
        elapsed = self._clock() - began
        if done == 0:
            return f"{step}: 0 of {total} after {duration(elapsed)}"
        left = elapsed * (total - done) / done
        return f"{step}: {done} of {total} ({done / total:.0%}), about {duration(left)} left"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            if (line := self.line()) is not None:
                self.say(line)


def duration(seconds: float) -> str:
    """In words, rounded to what matters: "40 s", "5 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
