"""Timing: two calls in turn, and the ratio of their times with its interval."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple

WARM_UP = 10


class Pairs(NamedTuple):
    """Times in milliseconds; the two of one index were measured right after each other.

    Attributes:
        ours: times of what is measured.
        reference: times of what it is compared with.
        n: single measurements of each side; more than the number of pairs where a pair is a block's median.
    """

    ours: list[float]
    reference: list[float]
    n: int


class Ratio(NamedTuple):
    """Median of the pairs' ratios, with its 95 % interval."""

    value: float
    low: float
    high: float


def interleave(
    ours: Callable[[], Any],
    reference: Callable[[], Any],
    n: int,
    warm_up: int = WARM_UP,
    before: Callable[[], Any] = lambda: None,
) -> Pairs:
    """Time two calls in turn, n times each: A B B A A B ..., so that neither always goes first.

    Other load on the machine affects both alike. The garbage collector is off meanwhile. `before` runs before each
    call and is not timed.
    """

    def time_of(call: Callable[[], Any]) -> float:
        before()
        return milliseconds(call)

    for _ in range(warm_up):
        time_of(ours)
        time_of(reference)
    a, b = [], []
    with collector_off():
        for i in range(n):
            if i % 2:
                b.append(time_of(reference))
                a.append(time_of(ours))
            else:
                a.append(time_of(ours))
                b.append(time_of(reference))
    return Pairs(a, b, n)


def milliseconds(call: Callable[[], Any]) -> float:
    """The time that a call takes, in ms."""
    start = perf_counter()
    call()
    return (perf_counter() - start) * 1e3


def ratio(pairs: Pairs) -> Ratio:
    """Median of the pairs' ratios with its 95 % interval.

    The interval is that of order statistics (sign test): exact for any distribution if the pairs are independent.
    With fewer than six pairs it is the range, which covers less than 95 %.
    """
    ratios = sorted(x / y for x, y in zip(pairs.ours, pairs.reference, strict=True))
    n = len(ratios)
    # The largest rank k for which P(fewer than k of n pairs lie below the median) is at most 2.5 %.
    rank, below = 0, 0.0
    while below + math.comb(n, rank) / 2**n <= 0.025:
        below += math.comb(n, rank) / 2**n
        rank += 1
    low = max(rank - 1, 0)
    return Ratio(statistics.median(ratios), ratios[low], ratios[n - 1 - low])


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


@contextmanager
def collector_off() -> Iterator[None]:
    """A block in which Python's garbage collector does not run."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()
