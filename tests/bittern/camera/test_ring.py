"""The ring of frames between two processes: nothing torn, the newest wins, nobody waits, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.doubles.camera_process import descriptors
from tests.doubles.repetitions import times
from tests.doubles.waiting import within

from bittern.camera import ring

# Writes frames of one value each, as fast as it can, until it is killed or has written enough.
WRITER = """
import sys, time
import numpy as np
from bittern.camera.ring import Writer
fd, height, width, count, pause = int(sys.argv[1]), *map(int, sys.argv[2:5]), float(sys.argv[5])
writer = Writer(fd, height, width)
frames = [np.full((height, width, 3), value, np.uint8) for value in range(8)]  # so that it mostly copies
writer.note(time.monotonic_ns(), 7)
for number in range(3, 3 + count):
    order = "RGB" if number % 2 else "BGR"
    writer.write(frames[number % 8], order, number=number, monotonic_ns=number * 10, time_ns=number * 100)
    if number == 3:
        print("ready", flush=True)
        sys.stdin.readline()
    if pause:
        time.sleep(pause)
print("done", flush=True)
sys.stdin.read()
"""


class Writing:
    """A writer in a process of its own; with `hold` it waits for `go` after the first frame."""

    def __init__(
        self, count: int, pause_s: float = 0.0, size: tuple[int, int] = (48, 64), *, hold: bool = False
    ) -> None:
        self.fd = ring.create()
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, *map(str, (self.fd, *size, count, pause_s))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self.fd],
        )
        self.expect("ready")
        if not hold:
            self.go()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def expect(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().decode().strip() == word

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.fd)


@pytest.fixture
def writing() -> Iterator[list[Writing]]:
    started: list[Writing] = []
    yield started
    for one in started:
        one.end()


def test_a_frame_comes_as_it_went(writing: list[Writing]) -> None:
    writing.append(Writing(1))
    reader = ring.Reader(writing[0].fd)
    shared = reader.take()
    assert shared is not None
    assert (shared.number, shared.monotonic_ns, shared.time_ns, shared.order) == (3, 30, 300, "RGB")
    assert shared.pixels.shape == (48, 64, 3)
    assert (shared.pixels == 3).all()
    assert not shared.pixels.flags.writeable
    assert shared.pixels.flags.c_contiguous
    assert (reader.first_number, reader.period_ns) == (3, 7)
    assert 0 < time.monotonic_ns() - reader.last_ns < 10e9
    assert reader.take() is None, "given once"


def test_the_newest_wins_and_what_is_held_stays(writing: list[Writing]) -> None:
    writing.append(Writing(500, hold=True))
    reader = ring.Reader(writing[0].fd)
    held = reader.take()
    assert held is not None
    writing[0].go()
    number = held.number
    writing[0].expect("done")  # it never waited for the reader
    assert (held.pixels == number % 8).all()
    last = reader.take()
    assert last is not None
    assert last.number == 502


@pytest.mark.parametrize("size", [(48, 64), (480, 640)])
def test_no_frame_is_torn(writing: list[Writing], size: tuple[int, int]) -> None:
    """A writer at full speed against a reader at full speed, which looks at every byte, and again a moment later."""
    writing.append(Writing(10**9, size=size))
    reader = ring.Reader(writing[0].fd)
    end = time.monotonic() + 1
    taken, last = 0, 0
    while time.monotonic() < end or taken <= 100:
        shared = reader.take()
        if shared is None:
            continue
        assert shared.number > last
        last = shared.number
        value = shared.number % 8
        assert shared.monotonic_ns == shared.number * 10
        assert shared.order == ("RGB" if shared.number % 2 else "BGR")
        assert shared.pixels.min() == shared.pixels.max() == value
        if taken % 20 == 0:
            time.sleep(0.001)
            assert shared.pixels.min() == shared.pixels.max() == value
        taken += 1
    assert last > 3 + taken / 2


def test_a_writer_that_dies_in_the_middle_leaves_a_whole_frame_and_no_lock(writing: list[Writing]) -> None:
    for number in range(times(12, 4)):
        writing.append(Writing(10**9, size=(1080, 1920)))
        one = writing[-1]
        reader = ring.Reader(one.fd)
        time.sleep(0.01 + 0.0007 * number)
        one.process.kill()
        one.process.wait()
        shared = reader.take()
        assert shared is not None
        assert shared.pixels.min() == shared.pixels.max() == shared.number % 8
        assert reader.take() is None


def test_a_writer_that_is_stopped_blocks_nobody(writing: list[Writing]) -> None:
    writing.append(Writing(10**9, size=(480, 640)))
    reader = ring.Reader(writing[0].fd)
    for _ in range(20):
        writing[0].process.send_signal(signal.SIGSTOP)
        with within():  # and not until it goes on
            while (shared := reader.take()) is not None:
                assert shared.pixels.min() == shared.pixels.max() == shared.number % 8
        writing[0].process.send_signal(signal.SIGCONT)
        time.sleep(0.005)


def test_frames_outlive_the_ring(writing: list[Writing]) -> None:
    one = Writing(1)
    reader = ring.Reader(one.fd)
    shared = reader.take()
    one.end()
    del reader
    assert shared is not None
    assert (shared.pixels == 3).all()


def test_a_ring_that_nobody_laid_out_is_refused(tmp_path: Path) -> None:
    fd = ring.create()
    with pytest.raises(ValueError, match="not laid out"):
        ring.Reader(fd)
    os.ftruncate(fd, 10**6)
    with pytest.raises(ValueError, match="not laid out"):
        ring.Reader(fd)
    os.close(fd)
    fd = ring.create()
    ring.Writer(fd, 48, 64)
    reader = ring.Reader(fd)
    assert reader.take() is None
    assert (reader.period_ns, reader.last_ns) == (0, 0)
    with pytest.raises(PermissionError):  # a mapping whose file shrinks is a SIGBUS
        os.ftruncate(fd, 100)
    os.close(fd)


def test_nothing_is_left() -> None:
    before = descriptors()
    for _ in range(20):
        fd = ring.create()
        writer = ring.Writer(fd, 48, 64)
        reader = ring.Reader(fd)
        writer.write(np.ones((48, 64, 3), np.uint8), "BGR", number=0, monotonic_ns=1, time_ns=1)
        assert reader.take() is not None
        del writer, reader
        os.close(fd)
    assert descriptors() == before
