"""What the tests of the camera's process use: the double that obeys a file, and looks at processes and descriptors."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.repetitions import pass_mark

from bittern.camera.supervisor import Camera, Timing
from bittern.frames import Frame
from bittern.sources.registry import Value

HERE = Path(__file__).parent
FPS = 15
URI = f"picamera:?size=320x240&fps={FPS}"
# So that a test need not wait ten seconds until a camera counts as well again.
QUICK = Timing(settled_s=0.3)


class Double:
    """The camera outside, as seen from a test.

    Attributes:
        states: of its cameras: when each began by the monotonic clock (s), its name and its detail.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = folder / "camera.json"
        self.say()
        monkeypatch.setenv("CAMERA_DOUBLE", str(self.file))
        path = (str(HERE / "camera_double"), str(HERE.parents[1]), os.environ.get("PYTHONPATH", ""))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        self.states: list[tuple[float, str, str]] = []

    def say(self, **what: Any) -> None:
        """What the camera does from now on; see tests/doubles/camera_double/picamera2.py."""
        whole = self.file.with_suffix(".new")
        whole.write_text(json.dumps(what))
        whole.rename(self.file)

    def camera(self, uri: str, options: Mapping[str, Value] | None = None, **more: Any) -> Camera:
        """A camera that writes its states down here, at every read or rest."""
        return _Noted(self, uri, options, **more)

    @property
    def names(self) -> list[str]:
        return [state for _, state, _ in self.states]

    def when(self, state: str) -> float:
        """The last time that a state began."""
        return next(time_s for time_s, name, _ in reversed(self.states) if name == state)

    def detail(self, state: str) -> str:
        return next(detail for _, name, detail in reversed(self.states) if name == state)

    def log(self) -> list[tuple[float, int, str]]:
        """Openings and closings: when, in which process, what."""
        lines = self.file.with_suffix(".log").read_text().splitlines()
        return [(float(time_s), int(pid), what) for time_s, pid, what in map(str.split, lines)]


class _Noted(Camera):
    def __init__(self, double: Double, uri: str, options: Mapping[str, Value] | None, **more: Any) -> None:
        super().__init__(uri, options, **more)
        self._double = double

    def read(self, timeout_s: float) -> Frame | None:
        try:
            return super().read(timeout_s)
        finally:
            self._note()

    def rest(self, seconds: float) -> None:
        super().rest(seconds)
        self._note()

    def _note(self) -> None:
        self._double.states += [(time.monotonic(), state.name, state.detail) for state in self.states()]


def watch(double: Double, uri: str = URI, timing: Timing = QUICK, **more: Any) -> Camera:
    return double.camera(uri, timing=timing, **more)


def read_until(camera: Camera, done: Callable[[], bool], within_s: float) -> float:
    """Read as the daemon does until something is true; how long it took."""
    begin = time.monotonic()
    while not done():
        assert time.monotonic() - begin < pass_mark(within_s), f"not within {within_s} s"
        camera.read(0.02)
    return time.monotonic() - begin


def read_for(camera: Camera, seconds: float) -> None:
    """Read as the daemon does for some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        camera.read(0.02)


def next_frame(camera: Camera, within_s: float = 10.0) -> Frame:
    frame = camera.read(pass_mark(within_s))
    assert frame is not None, f"no frame within {within_s} s"
    return frame


def children() -> set[int]:
    """Process ids of this process's children, zombies too."""
    return {int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


def descriptors() -> int:
    """How many file descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def resident_kb(pid: int | str = "self") -> int:
    """Memory of a process, in kB."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1])


def gone(pid: int, within_s: float = 2.0) -> bool:
    """Whether a process is no more, not even as a zombie."""
    deadline = time.monotonic() + pass_mark(within_s)
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def kill(camera: Camera, number: signal.Signals) -> int:
    pid = camera.pid
    assert pid is not None
    os.kill(pid, number)
    return pid
