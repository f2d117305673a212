"""Work on many pictures by threads, a few pictures ahead of whoever takes the results."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_S = TypeVar("_S")
_T = TypeVar("_T")

# Results that may wait for each thread: more would only hold memory.
_AHEAD = 4


def finished(function: Callable[[_S], _T], items: Iterable[_S]) -> Iterator[tuple[_S, Future[_T]]]:
    """The items in order, each with the future that has the function's result or error, as many threads as cores.

    Items are taken a few ahead only: how many results are in memory does not depend on how many items there are.
    """
    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as executor:
        waiting: deque[tuple[_S, Future[_T]]] = deque()
        try:
            for item in items:
                waiting.append((item, executor.submit(function, item)))
                if len(waiting) > _AHEAD * threads:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:  # interrupted: what has not begun does not begin
            executor.shutdown(cancel_futures=True)


def results(function: Callable[[_S], _T], items: Iterable[_S]) -> Iterator[_T]:
    """The function's results in order; the first error is raised."""
    for _, future in finished(function, items):
        yield future.result()
