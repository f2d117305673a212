"""Our source `picamera` on the real picamera2 and libcamera's virtual camera: one line a check, non-zero on failure.

Runs inside the system that root.sh makes. The virtual camera shows eight vertical bars that move.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import virtual_picamera2  # noqa: F401  (prepares picamera2 for a machine that is no Raspberry Pi)

from bittern.camera.supervisor import Camera, Timing
from bittern.errors import BitternError, ConfigurationError, SourceError
from bittern.frames import Frame
from bittern.sources.registry import open_source

# What the bars are, left to right and round again, in R, G, B.
BARS = {
    "white": (255, 255, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "green": (0, 255, 0),
    "magenta": (255, 0, 255),
    "red": (255, 0, 0),
    "blue": (0, 0, 255),
    "black": (0, 0, 0),
}
NAMES = tuple(BARS)
IDEAL = np.array(list(BARS.values()), dtype=np.int32)
TOLERANCE = 12  # of 255: 8-bit YUV with limited range, there and back
CAMERA = "picamera:?size=640x480"
QUICK = Timing(settled_s=0.2)


class Log(logging.Handler):
    """Keeps what the package logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def rgb(frame: Frame) -> npt.NDArray[np.int32]:
    """The frame as R, G, B, by the order that it claims to have."""
    pixels = frame.pixels if frame.order == "RGB" else frame.pixels[..., ::-1]
    return pixels.astype(np.int32)


def bars_of(frame: Frame) -> list[tuple[str, int]]:
    """The bars of a frame, left to right, with their widths; pixels of no bar's colour are called "?"."""
    row = rgb(frame)[frame.pixels.shape[0] // 2]
    distance = np.abs(row[:, None, :] - IDEAL[None]).max(axis=2)
    bars: list[tuple[str, int]] = []
    for index, far in zip(distance.argmin(axis=1), distance.min(axis=1), strict=True):
        name = NAMES[index] if far <= TOLERANCE else "?"
        if bars and bars[-1][0] == name:
            bars[-1] = (name, bars[-1][1] + 1)
        else:
            bars.append((name, 1))
    return bars


def assert_bars(frame: Frame, size: tuple[int, int]) -> str:
    width, height = size
    assert frame.pixels.shape == (height, width, 3), frame.pixels.shape
    assert frame.pixels.dtype == np.uint8
    assert frame.pixels.flags.c_contiguous
    # A sheared picture has rows that differ; chroma is shared by two rows and columns, so edges may be soft.
    assert (frame.pixels == frame.pixels[:1]).all(), "rows differ: sheared"
    bars = bars_of(frame)
    unknown = sum(count for name, count in bars if name == "?")
    assert unknown <= 2 * (len(BARS) + 1), f"{unknown} pixels are of no bar's colour: {bars}"
    order = [name for name, count in bars if name != "?" and count > 2]
    first = NAMES.index(order[0])
    assert order == [NAMES[(first + i) % len(NAMES)] for i in range(len(order))], f"wrong colours or order: {order}"
    assert set(order) == set(NAMES), f"missing: {set(NAMES) - set(order)}"
    widths = [count for name, count in bars[1:-1] if name != "?" and count > 2]
    assert max(abs(count - width // len(BARS)) for count in widths) <= 3, bars
    return f"{len(order)} bars in order from {order[0]}"


def frames_arrive(log: Log) -> str:
    with open_source(CAMERA) as source:
        frames = [frame for frame, _ in zip(source, range(30), strict=False)]
        age = (time.monotonic_ns() - frames[-1].monotonic_ns) / 1e9
    numbers = [frame.number for frame in frames]
    assert len(frames) == 30
    assert numbers[0] == 0
    assert all(b > a for a, b in pairwise(numbers)), numbers
    stamps = [frame.monotonic_ns for frame in frames]
    assert all(b > a for a, b in pairwise(stamps)), stamps
    assert 0 <= age < 1, age
    assert abs(frames[-1].time_ns - time.time_ns()) < 5e9
    assert len({frame.pixels.tobytes() for frame in frames}) > 10, "the picture stands still"
    return f"30 frames, numbers to {numbers[-1]}, the last one {age * 1000:.1f} ms old"


def red_is_red(log: Log) -> str:
    with open_source(CAMERA) as source:
        frames = [frame for frame, _ in zip(source, range(10), strict=False)]
    for frame in frames:
        bars = assert_bars(frame, (640, 480))
    picture = rgb(frames[0])[240]
    red = picture[np.abs(picture - (255, 0, 0)).max(axis=1) <= TOLERANCE]
    assert 70 <= len(red) <= 90, f"expected a red bar of 80 pixels, got {len(red)}"
    return f"{bars}; red is R, G, B = {', '.join(f'{v:.0f}' for v in red.mean(axis=0))}"


def changed_format_is_noticed(log: Log) -> str:
    with open_source(CAMERA) as source:
        camera: Any = source
        assert camera.pixel_format == "NV12", camera.pixel_format
        request = camera._camera.capture_request()
        try:
            raw = request.make_array("main")
        finally:
            request.release()
        assert raw.shape == (720, 640), raw.shape
        frame = source.read()
        assert frame is not None
        assert_bars(frame, (640, 480))
    line = next(line for line in log.lines if "NV12" in line)
    assert "RGB888" in line, line
    return f"(720, 640) became (480, 640, 3), and the log says: {line}"


def changed_size_is_handled(log: Log) -> str:
    with open_source("picamera:?size=648x486") as source:
        frame = source.read()
        assert frame is not None
        assert_bars(frame, (1920, 1080))
    line = next(line for line in log.lines if "648x486" in line)
    assert "1920x1080" in line, line
    return f"asked for 648x486, got a whole 1920x1080; the log says: {line}"


def every_listed_size(log: Log) -> str:
    for size in ((1920, 1080), (640, 480)):
        with open_source(f"picamera:?size={size[0]}x{size[1]}") as source:
            frame = source.read()
            assert frame is not None
            assert_bars(frame, size)
    return "1920x1080 and 640x480"


def close_and_open_again(log: Log) -> str:
    free = []
    for _ in range(8):
        source = open_source(CAMERA)
        frame = source.read()
        assert frame is not None
        assert_bars(frame, (640, 480))
        source.close()
        source.close()
        assert source.read() is None
        lowest = os.dup(0)  # the lowest free number: it rises when descriptors leak (there is no /proc here)
        os.close(lowest)
        free.append(lowest)
    assert free[-1] == free[0], f"file descriptors leak: {free}"
    return f"8 times, the lowest free file descriptor stays {free[-1]}"


def hangs_and_comes_back(log: Log) -> str:
    with open_source(CAMERA) as source:
        camera: Any = source
        source.timeout_s = 0.2
        held = [camera._camera.capture_request() for _ in range(4)]  # every buffer: no frame can come
        started = time.monotonic()
        for _ in held:  # a capture left behind by each time-out would take a buffer each
            try:
                source.read()
            except SourceError as error:
                line = str(error)
            else:
                raise AssertionError("a frame came without a buffer")
        waited = (time.monotonic() - started) / len(held)
        assert waited < 1, waited
        for request in held:
            request.release()
        for _ in range(8):  # more than there are buffers: none was lost
            frame = source.read()
            assert frame is not None
            assert_bars(frame, (640, 480))
            assert frame.monotonic_ns > started * 1e9, "an old frame"
    assert "no new frame within 0.2 s" in line, line
    return f"said after {waited:.2f} s, 4 times, and frames came again"


def closes_while_it_hangs(log: Log) -> str:
    source = open_source(CAMERA)
    camera: Any = source
    source.timeout_s = 0.2
    held = [camera._camera.capture_request() for _ in range(4)]
    with contextlib.suppress(SourceError):
        source.read()
    started = time.monotonic()
    source.close()
    took = time.monotonic() - started
    del held
    assert took < 2, took
    with open_source(CAMERA) as source:
        assert source.read() is not None
    return f"closed in {took:.2f} s, opens again"


def closed_from_another_thread(log: Log) -> str:
    source = open_source(CAMERA)
    camera: Any = source
    held = [camera._camera.capture_request() for _ in range(4)]
    timer = threading.Timer(0.3, source.close)
    started = time.monotonic()
    timer.start()
    assert source.read() is None
    took = time.monotonic() - started
    timer.join()
    del held
    assert took < 2, took
    return f"a read that waited ended after {took:.2f} s"


def refused(uri: str, expected: str, kind: type[BitternError]) -> str:
    try:
        open_source(uri).close()
    except kind as caught:
        error = caught
    else:
        raise AssertionError(f"{uri} was opened")
    line = str(error)
    assert expected in line, line
    assert "\n" not in line, line
    assert error.exit_code == 2
    return line


def busy_in_one_line(log: Log) -> str:
    with open_source(CAMERA) as source:
        line = refused(CAMERA, "busy", SourceError)
        assert source.read() is not None, "the first one goes on"
    return line


def no_such_camera(log: Log) -> str:
    return refused("picamera:?camera=7", "Virtual bars", SourceError)


def no_focus_to_set(log: Log) -> str:
    return refused("picamera:?lens_position=2", "no control AfMode", ConfigurationError)


def in_a_process_of_its_own(log: Log) -> str:
    """Frames through shared memory; the process is killed as hard as can be, and the camera opens again."""
    states: list[str] = []
    took = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Camera(CAMERA, timing=QUICK) as camera,
    ):
        # What the import above does here, for the child.
        (Path(folder) / "sitecustomize.py").write_text("import virtual_picamera2\n")
        os.environ["PYTHONPATH"] = os.pathsep.join((folder, os.environ["PYTHONPATH"]))
        for restarts, number in enumerate((None, signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)):
            begin = time.monotonic()
            if number is not None:
                assert camera.pid is not None
                os.kill(camera.pid, number)
            while len(states) < 1 + 2 * restarts:
                frame = camera.read(1)
                states += [state.name for state in camera.states()]
                assert time.monotonic() - begin < 20, states
            took.append(time.monotonic() - begin)
            assert frame is not None
            for _ in range(20):
                following = camera.read(5)
                states += [state.name for state in camera.states()]
                assert following is not None, states
                assert following.number > frame.number
                frame = following
            assert_bars(frame, (640, 480))
            assert camera.restarts == restarts
    with open_source(CAMERA) as source:
        assert source.read() is not None, "given back"
    assert states == [
        *("camera_ok", "camera_lost", "camera_ok", "camera_lost", "camera_ok", "camera_stalled", "camera_ok")
    ], states
    return f"killed, crashed and stopped; frames again after {', '.join(f'{s:.1f}' for s in took[1:])} s"


CHECKS: tuple[Callable[[Log], str], ...] = (
    frames_arrive,
    red_is_red,
    changed_format_is_noticed,
    changed_size_is_handled,
    every_listed_size,
    close_and_open_again,
    hangs_and_comes_back,
    closes_while_it_hangs,
    closed_from_another_thread,
    busy_in_one_line,
    no_such_camera,
    no_focus_to_set,
    in_a_process_of_its_own,
)


def main() -> int:
    passed = failed = 0
    for check in CHECKS:
        log = Log()
        logging.getLogger("bittern").handlers[:] = [log]
        faulthandler.dump_traceback_later(60, exit=True)  # a hang is a failure too
        try:
            print(f"ok    {check.__name__}: {check(log)}", flush=True)
            passed += 1
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"FAIL  {check.__name__}: {type(error).__name__}: {error} (line {where.lineno})", flush=True)
            failed += 1
    faulthandler.cancel_dump_traceback_later()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
