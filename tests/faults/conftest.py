"""What the fault tests share: a camera that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.camera_process import FPS, Double, children, descriptors


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """The camera; afterwards there may be no process and no file descriptor more than before."""
    fds, processes = descriptors(), children()
    double = Double(tmp_path, monkeypatch)
    double.say(fps=FPS)
    yield double
    assert children() == processes, "a process is left, or a zombie"
    assert descriptors() == fds, "a file descriptor is left"
