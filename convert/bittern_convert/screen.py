"""Progress on a terminal: one line a step with the time that is left; nothing where there is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextlib.contextmanager
def bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yields `show(what, done, of)`; a new `what` starts a new line unless `of` stays the same and counts on."""
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        current: tuple[str, int] | None = None
        task = None

        def show(what: str, done: int, of: int) -> None:
            nonlocal current, task
            if task is None or (current is not None and (current[1] != of or done == 0) and current[0] != what):
                task = progress.add_task(what, total=of)
            current = what, of
            progress.update(task, description=what, completed=done, total=of)

        yield show
