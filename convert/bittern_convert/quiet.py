"""Keeps TensorFlow's noise off the screen: it goes to a log file, progress and results do not."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[Console]:
    """Send everything written to file descriptors 1 and 2 into `log`; yields a console on the real stderr.

    C++ code writes past Python's sys.stderr, so the descriptors themselves are exchanged.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with log.open("ab", buffering=0) as sink, os.fdopen(os.dup(saved[1]), "w") as screen:
        try:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            yield Console(file=screen)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            for handle in saved:
                os.close(handle)
