"""Progress of the data commands: a bar for each step on a terminal, else a line every half minute."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bittern.system.progress import Progress


@contextlib.contextmanager
def steps() -> Iterator[Progress]:
    """What long work of several steps reports to, on stderr."""
    from bittern.system.progress import ProgressLines

    if not sys.stderr.isatty():
        with ProgressLines(sys.stderr) as lines:
            yield lines
        return
    bars = _Bars()
    try:
        yield bars
    finally:
        bars.end()


class _Bars:
    """One bar after the other."""

    def __init__(self) -> None:
        self._step = ""
        self._bar: Any = None

    def __call__(self, step: str, done: int, total: int) -> None:
        if step != self._step:
            self.end()
            self._step = step
            self._bar = click.progressbar(length=total, label=step, file=sys.stderr)
            self._bar.render_progress()
        self._bar.update(done - self._bar.pos)

    def say(self, line: str) -> None:
        self.end()
        click.echo(line, err=True)

    def end(self) -> None:
        """Leave the bar as it is, and begin a line."""
        if self._bar is not None:
            self._bar.render_finish()
        self._bar, self._step = None, ""
