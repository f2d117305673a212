"""Faults 1 to 4: a camera hangs, is unplugged, dies, is not there. tests/doubles/camera_double obeys a file."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from tests.doubles.camera_process import (
    FPS,
    QUICK,
    URI,
    Double,
    children,
    descriptors,
    gone,
    kill,
    next_frame,
    read_for,
    read_until,
    resident_kb,
    watch,
)
from tests.doubles.http_peer import Peer
from tests.doubles.repetitions import pass_mark, times
from tests.doubles.waiting import until

from bittern.camera import supervisor
from bittern.camera.supervisor import Camera
from bittern.config.schema import RecoveryConfig
from bittern.errors import SourceError
from bittern.frames import Frame

Record = Callable[..., None]


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
                assert time.monotonic() - last < pass_mark(5)
            noticed.append(double.when("camera_stalled") - last)
            double.say(fps=FPS)
            read_until(camera, lambda: "camera_ok" in double.names, 6)
            back.append(double.when("camera_ok") - double.when("camera_stalled"))
            assert double.names == ["camera_stalled", "camera_ok"]
            assert gone(pid)
        assert camera.restarts == n
    assert max(noticed) <= pass_mark(mark_s)
    assert max(back) <= pass_mark(5)
    record(
        *(1, "a read blocks for ever", n),
        f"noticed after at most {max(noticed):.2f} s, frames again {max(back):.2f} s later, one event each",
        f"{mark_s:.2f} s (3 periods + 2 s); 5 s; one camera_stalled, one camera_ok",
    )


def test_fault_1_a_start_that_hangs(double: Double) -> None:
    double.say(open="hang")
    start_s = times(2, 8)  # beside other tests the start of a process takes longer
    with watch(double, timing=QUICK._replace(start_s=float(start_s))) as camera:
        read_until(camera, lambda: double.names == ["camera_stalled"], start_s + 2)
        assert f"no frame since its start for {start_s:.1f} s" in double.detail("camera_stalled")
        double.say(fps=FPS)
        read_until(camera, lambda: double.names == ["camera_stalled", "camera_ok"], 6)


@pytest.mark.slow
def test_a_machine_that_is_too_slow_for_the_first_start_has_a_camera_too(double: Double) -> None:
    double.say(fps=FPS, open_s=5)
    with watch(double, timing=QUICK._replace(start_s=4.0)) as camera:
        read_until(camera, lambda: double.names[-1:] == ["camera_ok"], 40)
        assert double.names == ["camera_stalled", "camera_ok"]
        assert 1 <= camera.restarts <= 2, "the second start may take 8 s, the third 16 s"


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
    assert longest < pass_mark(0.3)
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
            read_until(camera, lambda: _looks(double) >= 3, 5)
            assert double.names == ["camera_lost", "camera_absent"]
            assert "came loose" in double.detail("camera_lost")
            assert "no camera found" in double.detail("camera_absent")
            double.say(fps=FPS)
            plugged = time.monotonic()
            read_until(camera, lambda: double.names[-1] == "camera_ok", 35)
            back.append(time.monotonic() - plugged)
            assert double.names == ["camera_lost", "camera_absent", "camera_ok"]
            looks = [time_s for time_s, _, what in double.log() if what == "look"]
            waits = [b - a for a, b in pairwise(looks)]
            assert len(waits) >= 2
            for number, wait in enumerate(waits):
                least, most = 0.8 * 2**number, 2**number + 1.5  # and the start of a process
                assert least <= wait <= pass_mark(most), waits
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
    assert max(took) <= pass_mark(5)
    record(
        *(3, f"{number.name} to the child", n),
        f"frames again after at most {max(took):.2f} s, {fds[-1] - fds[0]:+d} descriptors, memory {growth:+d} kB",
        "restarted; no zombie, nothing leaked",
    )


def test_a_parent_that_is_killed_leaves_nothing(double: Double) -> None:
    program = (
        "from bittern.camera.supervisor import Camera\n"
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
        until(lambda pid=pid: not _runs(pid), pass_mark(2))  # type: ignore[misc]


def _looks(double: Double) -> int:
    return sum(what == "look" for _, _, what in double.log())


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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
            read_until(camera, lambda camera=camera: camera.restarts >= 1, 4)  # type: ignore[misc]
            assert double.names == ["camera_absent"], "once, and it goes on trying"
            double.say(fps=FPS)
            read_until(camera, lambda: double.names == ["camera_absent", "camera_ok"], 8)
    record(
        4,
        "no camera at the start",
        n,
        "one line, tried again, exit 2 with once",
        "one line, holder if known; keeps trying; exit 2 with --once",
    )


def test_fault_40_a_device_that_is_plugged_in_ends_the_wait(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    devices = tmp_path / "dev"
    devices.mkdir()
    monkeypatch.setattr(supervisor, "DEVICES", str(devices))
    monkeypatch.setattr(random, "uniform", lambda *_: 30.0)  # 30 s to the second try
    double.say(absent=True)
    with watch(double) as camera:
        read_until(camera, lambda: "camera_absent" in double.names, 20)
        double.say(fps=FPS)
        (devices / "video0").touch()
        begin = time.monotonic()
        read_until(camera, lambda: "camera_ok" in double.names, 15)
        took = time.monotonic() - begin
    record(40, "a camera that is plugged in while the next try is 30 s away", 1, f"{took:.1f} s", "frames within 15 s")


def test_fault_40_a_device_that_is_plugged_in_during_a_try_ends_the_wait_too(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = tmp_path / "dev"
    devices.mkdir()
    monkeypatch.setattr(supervisor, "DEVICES", str(devices))
    monkeypatch.setattr(random, "uniform", lambda *_: 600.0)
    double.say(absent=True)
    with watch(double) as camera:
        read_until(camera, lambda: camera.pid is not None, 20)
        (devices / "video0").touch()
        read_until(camera, lambda: "camera_absent" in double.names, 20)
        double.say(fps=FPS)
        read_until(camera, lambda: "camera_ok" in double.names, 15)


def test_fault_40_another_reason_of_the_same_state_is_told(double: Double, peer: Peer) -> None:
    """A camera that is on the network at last, but without a stream."""
    peer.answer = lambda _: b"RTSP/1.0 404 Not Found\r\nCSeq: 1\r\n\r\n"
    peer.down()
    with watch(double, f"rtsp://127.0.0.1:{peer.port}/live") as camera:
        read_until(camera, lambda: camera.restarts >= 1, 20)
        assert double.names == ["camera_absent"]
        assert "Connection refused" in double.detail("camera_absent")
        peer.up()
        read_until(camera, lambda: len(double.names) > 1, 20)
        assert double.names == ["camera_absent", "camera_absent"]
        assert "404" in double.states[-1][2]
        again = camera.restarts + 1
        read_until(camera, lambda: camera.restarts >= again, 20)
        assert len(double.names) == 2, "the same reason is told once"


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
