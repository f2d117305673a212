"""Faults 1 to 8, on the camera. The camera's process opens tests/camera_double, which does what a file says."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.camera_process import (
    Double,
    children,
    descriptors,
    gone,
    kill,
    next_frame,
    read_for,
    read_until,
    resident_kb,
)
from tests.faults.conftest import times
from tests.picamera2_double import picture

from bittern.camera import Camera, Timing
from bittern.camera.view import View
from bittern.config import RecoveryConfig
from bittern.errors import SourceError
from bittern.frames import Frame

FPS = 15
URI = f"picamera:?size=320x240&fps={FPS}"
# So that a test need not wait ten seconds until a camera counts as well again.
QUICK = Timing(settled_s=0.3)

Record = Callable[..., None]


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """The camera; afterwards there may be no process and no file descriptor more than before."""
    fds, processes = descriptors(), children()
    double = Double(tmp_path, monkeypatch)
    double.say(fps=FPS)
    yield double
    assert children() == processes, "a process is left, or a zombie"
    assert descriptors() == fds, "a file descriptor is left"


def watch(double: Double, uri: str = URI, timing: Timing = QUICK, **more: object) -> Camera:
    return Camera(uri, states=double.told, timing=timing, **more)  # type: ignore[arg-type]


# --- 1: hangs ----------------------------------------------------------------------------------------------------


def test_fault_1_a_read_that_hangs(double: Double, record: Record) -> None:
    n = times(20, 1)
    mark_s = 3 / FPS + 2
    noticed, back = [], []
    with watch(double) as camera:
        next_frame(camera)
        for _ in range(n):
            read_for(camera, 0.4)
            double.states.clear()
            pid = camera.pid
            assert pid is not None
            double.say(do="hang")
            last = time.monotonic()
            while "camera_stalled" not in double.names:
                frame = camera.read(0.05)  # one may still be on its way
                last = last if frame is None else max(last, frame.monotonic_ns / 1e9)
                assert time.monotonic() - last < 5
            noticed.append(double.when("camera_stalled") - last)
            double.say(fps=FPS)
            read_until(camera, lambda: "camera_ok" in double.names, 6)
            back.append(double.when("camera_ok") - double.when("camera_stalled"))
            assert double.names == ["camera_stalled", "camera_ok"]
            assert gone(pid)
        assert camera.restarts == n
    assert max(noticed) <= mark_s
    assert max(back) <= 5
    record(
        *(1, "a read blocks for ever", n),
        f"noticed after at most {max(noticed):.2f} s, frames again {max(back):.2f} s later, one event each",
        f"{mark_s:.2f} s (3 periods + 2 s); 5 s; one camera_stalled, one camera_ok",
    )


def test_fault_1_a_start_that_hangs(double: Double) -> None:
    double.say(open="hang")
    with watch(double, timing=QUICK._replace(start_s=2.0)) as camera:
        read_until(camera, lambda: double.names == ["camera_stalled"], 4)
        assert "no frame since its start for 2.0 s" in double.detail("camera_stalled")
        double.say(fps=FPS)
        read_until(camera, lambda: double.names == ["camera_stalled", "camera_ok"], 6)


def test_fault_1_a_stopped_process_is_killed_too(double: Double) -> None:
    with watch(double, timeout_s=0.5) as camera:
        next_frame(camera)
        double.states.clear()
        pid = kill(camera, signal.SIGSTOP)
        read_until(camera, lambda: double.names == ["camera_stalled", "camera_ok"], 8)
        assert gone(pid)


def test_fault_1_a_process_that_sigkill_does_not_end(double: Double, tmp_path: Path, record: Record) -> None:
    """As a process in kernel wait: a tracer that does not reap keeps it from us after SIGKILL."""
    tracer = (
        "import ctypes, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]\n"
        "print(libc.ptrace(0x4206, int(sys.argv[1]), None, None), flush=True)\n"  # PTRACE_SEIZE
        "sys.stdin.read()\n"
    )
    ran = tmp_path / "reboot"
    recovery = RecoveryConfig(reboot_command=(sys.executable, "-c", f"open({str(ran)!r}, 'a').write('x')"))
    n = times(5, 1)
    longest = 0.0
    for _ in range(n):
        ran.unlink(missing_ok=True)
        double.say(fps=FPS)
        double.states.clear()
        with watch(double, timeout_s=0.5, timing=QUICK._replace(kill_s=0.5), recovery=recovery) as camera:
            next_frame(camera)
            pid = camera.pid
            with subprocess.Popen(
                [sys.executable, "-c", tracer, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as holder:
                assert holder.stdout is not None
                if holder.stdout.readline() != "0\n":
                    holder.communicate()
                    pytest.skip("this machine does not let one process trace another")
                double.say(do="hang")
                read_until(camera, lambda: "reboot_needed" in double.names, 5)
                begin = time.monotonic()
                assert camera.read(0.1) is None
                longest = max(longest, time.monotonic() - begin)
                read_for(camera, 1.0)
                read_until(camera, ran.exists, 5)
                assert camera.pid == pid, "no second process on the same camera"
                assert double.names.count("reboot_needed") == 1
                assert str(pid) in double.detail("reboot_needed")
                double.say(fps=FPS)
                holder.communicate()  # the driver wakes up
            read_until(camera, lambda: double.names[-1] == "camera_ok", 8)
            assert camera.pid != pid
        assert ran.read_text() == "x"
    assert longest < 0.3
    record(
        *(1, "not even SIGKILL ends the process", n),
        f"one reboot_needed, the command once, no second process; read({0.1}) took at most {longest:.2f} s",
        "told once; never waits",
    )


# --- 2: unplugged ------------------------------------------------------------------------------------------------


def test_fault_2_unplugged_and_back(double: Double, record: Record) -> None:
    n = times(20, 1)
    away_s = times(10, 3)
    back, memory = [], []
    with watch(double) as camera:
        next_frame(camera)
        for _ in range(n):
            read_for(camera, 0.4)
            double.states.clear()
            double.file.with_suffix(".log").write_text("")
            double.say(do="raise", absent=True)
            read_for(camera, away_s)
            assert double.names == ["camera_lost", "camera_absent"]
            assert "came loose" in double.detail("camera_lost")
            assert "no camera found" in double.detail("camera_absent")
            double.say(fps=FPS)
            plugged = time.monotonic()
            read_until(camera, lambda: double.names[-1] == "camera_ok", 35)
            back.append(time.monotonic() - plugged)
            assert double.names == ["camera_lost", "camera_absent", "camera_ok"]
            looks = [at for at, _, what in double.log() if what == "look"]
            waits = [b - a for a, b in pairwise(looks)]
            assert len(waits) >= 2
            for number, wait in enumerate(waits):
                least, most = 0.8 * 2**number, 2**number + 1.5  # and the start of a process
                assert least <= wait <= most, waits
            memory.append(resident_kb())
    growth = memory[-1] - memory[len(memory) // 4] if len(memory) > 4 else 0
    assert growth < 2000
    record(
        *(2, f"device gone for {away_s} s", n),
        f"waits of 1, 2, 4 ... s less up to 20 %, frames {max(back):.1f} s after it was back, memory {growth:+d} kB",
        "back-off 1, 2, 4 ... 30 s; recovers; memory flat",
    )


def test_fault_2_back_off_ends_at_thirty_seconds() -> None:
    with Camera(URI) as camera:
        waits = [camera._delay() for _ in range(200)]
    for number, wait in enumerate(waits[:5]):
        assert 0.8 * 2**number <= wait <= 2**number
    assert all(24 <= wait <= 30 for wait in waits[6:])
    assert len(set(waits[6:])) > 10, "jitter"


# --- 3: dies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL], ids=lambda s: s.name)
def test_fault_3_the_process_dies(double: Double, number: signal.Signals, record: Record) -> None:
    n = times(20, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    before = children()
    took, fds, memory = [], [], []
    with watch(double) as camera:
        next_frame(camera)
        held: list[Frame] = []
        for _ in range(n):
            read_for(camera, 0.4)
            double.states.clear()
            fds.append(descriptors())
            memory.append(resident_kb())
            pid = kill(camera, number)
            killed = time.monotonic()
            read_until(camera, lambda: double.names == ["camera_lost", "camera_ok"], 6)
            took.append(time.monotonic() - killed)
            assert double.detail("camera_lost") == f"its process ended with {number.name}"
            assert gone(pid), "a zombie"
            assert len(children() - before) == 1
            held = [next_frame(camera)]
        assert held[0].number > 0
    assert max(fds) == min(fds), fds
    growth = memory[-1] - memory[len(memory) // 4] if len(memory) > 4 else 0
    assert growth < 2000
    assert max(took) <= 5
    record(
        *(3, f"{number.name} to the child", n),
        f"frames again after at most {max(took):.2f} s, {fds[-1] - fds[0]:+d} descriptors, memory {growth:+d} kB",
        "restarted; no zombie, nothing leaked",
    )


# --- 4: absent or busy -------------------------------------------------------------------------------------------


def test_fault_4_absent_at_the_start(double: Double, record: Record) -> None:
    n = times(5, 1)
    for _ in range(n):
        double.states.clear()
        double.say(absent=True)
        with pytest.raises(SourceError, match="no camera found") as caught, watch(double, once=True) as camera:
            camera.read(10)
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)
        with watch(double) as camera:
            read_for(camera, 2.0)
            assert double.names == ["camera_absent"], "once, and it goes on trying"
            assert camera.restarts >= 1
            double.say(fps=FPS)
            read_until(camera, lambda: double.names == ["camera_absent", "camera_ok"], 8)
    record(
        4,
        "no camera at the start",
        n,
        "one line, tried again, exit 2 with once",
        "one line, holder if known; keeps trying; exit 2 with --once",
    )


def test_fault_4_busy_names_the_holder(double: Double, tmp_path: Path, record: Record) -> None:
    n = times(5, 1)
    device = tmp_path / "video0"
    device.write_bytes(b"")
    program = f"f = open({str(device)!r}); print('open', flush=True); import sys; sys.stdin.read()"
    for _ in range(n):
        double.states.clear()
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "open\n"
            with (
                pytest.raises(SourceError, match=f"held by process {holder.pid} ") as caught,
                watch(double, f"usb:{device}", once=True) as camera,
            ):
                camera.read(10)
            assert caught.value.exit_code == 2
            assert "\n" not in str(caught.value)
            with watch(double, f"usb:{device}") as camera:
                read_until(camera, lambda: camera.restarts >= 1, 8)
            assert double.names == ["camera_busy"]
            assert f"held by process {holder.pid} " in double.detail("camera_busy")
            holder.communicate()
    record(
        4,
        "held by another process",
        n,
        "holder named, tried again, exit 2 with once",
        "one line, holder if known; keeps trying; exit 2 with --once",
    )


# --- 5: the same frame -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["frozen", "frozen counter"])
def test_fault_5_a_frozen_counter_is_a_stall(double: Double, what: str, record: Record) -> None:
    n = times(10, 1)
    noticed = []
    with watch(double) as camera:
        next_frame(camera)
        for _ in range(n):
            read_for(camera, 0.4)
            double.states.clear()
            double.say(fps=FPS, do=what)
            begin = time.monotonic()
            read_until(camera, lambda: "camera_stalled" in double.names, 5)
            noticed.append(time.monotonic() - begin)
            double.say(fps=FPS)
            read_until(camera, lambda: double.names == ["camera_stalled", "camera_ok"], 6)
    mark_s = 4 / FPS + 2  # a last frame may have been on its way
    assert max(noticed) <= mark_s
    record(
        5,
        "frozen counter and stamp" if what == "frozen" else "frozen counter, moving stamp",
        n,
        f"restarted after at most {max(noticed):.2f} s",
        f"restarted; {mark_s:.2f} s",
    )


def test_fault_5_equal_content_is_only_reported(double: Double, record: Record) -> None:
    n = times(10, 1)
    double.say(fps=FPS, show="moving")
    with watch(double, view=View(frozen_after_s=1.0)) as camera:
        next_frame(camera)
        pid = camera.pid
        for _ in range(n):
            double.states.clear()
            double.say(fps=FPS, show="still")
            read_until(camera, lambda: double.names == ["camera_frozen"], 4)
            read_for(camera, 2.5)  # longer than the time-out of a stall
            double.say(fps=FPS, show="moving")
            read_until(camera, lambda: double.names == ["camera_frozen", "camera_ok"], 2)
        assert (camera.pid, camera.restarts) == (pid, 0)
    record(5, "equal content, moving counter", n, "one camera_frozen, no restart", "reported, not restarted")


# --- 6: another format, size or stride ---------------------------------------------------------------------------

HANDLED: dict[str, dict[str, Any]] = {
    "NV12": {"adjust": {"format": "NV12"}},
    "YUV420 with a wider stride": {"adjust": {"format": "YUV420"}, "padding": 64},
    "R, G, B with a fourth byte": {"adjust": {"format": "XBGR8888"}},
    "R, G, B for B, G, R": {"adjust": {"format": "BGR888"}},
    "YUYV of another size with a wider stride": {"adjust": {"format": "YUYV", "size": [256, 192]}, "padding": 32},
}


@pytest.mark.parametrize("kind", HANDLED)
def test_fault_6_an_adjusted_configuration_is_handled(double: Double, kind: str, record: Record) -> None:
    world = HANDLED[kind]
    double.say(fps=FPS, show="picture", world=world)
    with watch(double) as camera:
        frame = next_frame(camera)
        expected = picture(tuple(world["adjust"].get("size", (320, 240))))
        assert frame.pixels.shape == expected.shape
        rgb = frame.pixels if frame.order == "RGB" else frame.pixels[..., ::-1]
        far = int(np.abs(rgb.astype(np.int64) - expected).max())
    assert far <= 4
    record(6, kind, 1, f"every pixel within {far} of 255 of the scene", "handled; never wrong colours or sheared")


@pytest.mark.parametrize(
    ("kind", "world", "line"),
    [
        ("a format that is not known", {"adjust": {"format": "RGB161616"}}, "libcamera gives pixel format RGB161616"),
        ("an array of another size than configured", {"array": [200, 320, 3]}, "expected uint8, 240 rows"),
    ],
)
def test_fault_6_what_cannot_be_handled_is_refused(
    double: Double, kind: str, world: dict[str, object], line: str, record: Record
) -> None:
    double.say(fps=FPS, world=world)
    with pytest.raises(SourceError, match=line) as caught, watch(double, once=True) as camera:
        camera.read(10)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    record(6, kind, 1, f"refused: {caught.value}", "refused in one line")


# --- 7: blind ----------------------------------------------------------------------------------------------------


def test_fault_7_blind(double: Double, record: Record) -> None:
    n = times(10, 1)
    noticed, unmarked, frames = [], 0, 0
    with watch(double) as camera:
        next_frame(camera)
        for number in range(n):
            double.states.clear()
            double.say(fps=FPS, show=("covered", "white", "grey", "black")[number % 4])
            begin = time.monotonic()
            while "blind" not in double.names:
                frame = camera.read(0.1)
                assert time.monotonic() - begin < 8
                if frame is not None and frame.pixels.astype(int).std() < 6:
                    frames += 1
                    unmarked += not camera.blind
            noticed.append(time.monotonic() - begin)
            double.say(fps=FPS)
            read_until(camera, lambda: double.names[-1] == "seeing", 4)
            assert double.names == ["blind", "seeing"]
            assert not camera.blind
        assert camera.restarts == 0
    assert max(noticed) <= 5
    assert frames > 20 * n
    assert unmarked == 0
    record(
        *(7, "covered with noise, white, grey, black", n),
        f"blind after at most {max(noticed):.2f} s; of {frames} frames without a picture {unmarked} could alarm",
        "5 s; no alarm events from it; seeing after",
    )


# --- 8: rates and clocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [10, 0.1])
def test_fault_8_faster_or_slower_than_asked(double: Double, factor: float, record: Record) -> None:
    n = times(5, 1)
    ages, dropped, memory = [], [], []
    for _ in range(n):
        double.states.clear()
        double.say(fps=FPS * factor)
        # Less than the slow camera's period, which is what counts then.
        with watch(double, timeout_s=0.5, recovery=RecoveryConfig(warm_up_frames=2)) as camera:
            next_frame(camera, 15)
            start, first = time.monotonic(), resident_kb(camera.pid or 0)
            frames = []
            while time.monotonic() - start < (2 if factor > 1 else 3):
                frame = camera.read(1.5)
                assert frame is not None
                ages.append((time.monotonic_ns() - frame.monotonic_ns) / 1e9)
                frames.append(frame.number)
                time.sleep(0.1)  # a consumer that is 15 times too slow for the fast camera
            assert all(b > a for a, b in pairwise(frames))
            assert camera.dropped == frames[-1] + 1 - (len(frames) + 1), "all frames are read or counted"
            dropped.append(camera.dropped)
            memory.append(resident_kb(camera.pid or 0) - first)
            assert camera.restarts == 0
        assert double.names == ["camera_ok"]
    period_s = 1 / (FPS * factor)
    age = float(np.median(ages))
    assert age <= period_s + 0.02
    assert max(memory) < 4000
    assert (min(dropped) > 100) if factor > 1 else (max(dropped) <= 1)
    record(
        *(8, f"{factor:g} times the rate asked", n),
        f"median age {age * 1000:.0f} ms, period {period_s * 1000:.0f} ms, {dropped[-1]} dropped and counted",
        "newest frame wins; no queue growth",
    )


@pytest.mark.parametrize("jump_s", [-3600, 86400])
def test_fault_8_the_wall_clock_jumps(
    double: Double, jump_s: int, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    n = times(5, 1)
    real = time.time_ns
    with watch(double, timeout_s=1.0) as camera:
        for number in range(n):
            read_for(camera, 0.5)
            before = next_frame(camera)
            offset = jump_s * (number + 1)
            double.say(fps=FPS, clock_s=offset)
            monkeypatch.setattr(time, "time_ns", lambda offset=offset: real() + offset * 10**9)
            monkeypatch.setattr(time, "time", lambda offset=offset: real() / 1e9 + offset)
            read_for(camera, 0.5)
            after = next_frame(camera)
            assert 0 < after.monotonic_ns - before.monotonic_ns < 3e9
            assert abs(after.time_ns - before.time_ns - jump_s * 10**9) < 3e9
        assert camera.restarts == 0
    assert double.names == ["camera_ok"]
    record(8, f"wall clock {jump_s:+d} s", n, "no state, no restart, intervals go on", "intervals by monotonic clock")


def test_a_parent_that_is_killed_leaves_nothing(double: Double) -> None:
    program = (
        "from bittern.camera import Camera\n"
        f"camera = Camera({URI!r})\n"
        "assert camera.read(10) is not None\n"
        "print(camera.pid, flush=True)\n"
        "while True: camera.read(1)\n"
    )
    for what in ("runs", "hangs", "stopped")[times(0, 2) :]:
        double.say(fps=FPS)
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            if what == "hangs":
                double.say(do="hang")
                time.sleep(0.2)
            elif what == "stopped":
                os.kill(pid, signal.SIGSTOP)
            os.kill(parent.pid, signal.SIGKILL)
            parent.communicate()
        # Not ours: whoever takes orphans reaps it, so that a zombie may be left here.
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and _runs(pid):
            time.sleep(0.01)
        assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
