"""How often a test repeats what it does: as `make test-faults` and `make test-slow` ask for, or fewer times."""

from __future__ import annotations

import os

FULL = os.environ.get("BITTERN_TESTS") == "full"


def examples(full: int) -> int:
    """How many examples to draw or mutations to try: a tenth of them, unless everything is asked for."""
    return full if FULL else max(full // 10, 3)


def times(full: int, few: int) -> int:
    """How often to play a fault: as often as its pass mark says, or a few times."""
    return full if FULL else few


def pass_mark(seconds: float) -> float:
    """A pass mark that is a time: as it stands where faults are played in full and alone, else ten times as long."""
    return seconds if FULL else 10 * seconds
