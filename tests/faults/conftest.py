"""What the fault tests share: the table of what was seen, and a camera that leaves nothing behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.doubles.camera_process import FPS, Double, children, descriptors


@pytest.fixture
def record() -> Callable[..., None]:
    """Adds a line to the table of `make test-faults`: fault, what was done, how many times, the figure, the mark."""

    def add(fault: int, what: str, n: int, figure: str, mark: str) -> None:
        table = os.environ.get("BITTERN_FAULTS_TABLE")
        if table:
            with Path(table).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"fault": fault, "what": what, "n": n, "figure": figure, "mark": mark}) + "\n")

    return add


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """The camera; afterwards there may be no process and no file descriptor more than before."""
    fds, processes = descriptors(), children()
    double = Double(tmp_path, monkeypatch)
    double.say(fps=FPS)
    yield double
    assert children() == processes, "a process is left, or a zombie"
    assert descriptors() == fds, "a file descriptor is left"
