"""Faults 9 to 11, on the whole daemon: signals at any moment, a main loop that hangs, resources that run out."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.doubles.command import BITTERN, OFTEN, bittern, one_line
from tests.doubles.http_peer import Peer
from tests.doubles.repetitions import pass_mark, times
from tests.doubles.tflite_files import model_folder_of_means

from bittern.system import fileio

Record = Callable[..., None]


class Daemon:
    """`bittern watch` with a camera whose every frame is an event, a webhook, an outbox, figures, systemd's double."""

    def __init__(
        self,
        folder: Path,
        peer: Peer,
        fps: float = 20.0,
        pipe_bytes: int = 0,
        more: str = "",
        state: Path | None = None,
        before: tuple[str, ...] = (),
        stderr: int | None = None,
        **env: str,
    ) -> None:
        self.folder = folder
        folder.mkdir()
        frames = np.random.default_rng(1).integers(0, 60, (2, 48, 64, 3), np.uint8)
        frames[0, ..., 0] += 190
        np.save(folder / "frames.npy", frames)
        model_folder_of_means(folder / "means")
        (folder / "watch.toml").write_text(
            f'source = "bench:{folder}/frames.npy?fps={fps}"\nfps = 200.0\nmodels = ["{folder}/means"]\n'
            f'[recovery]\nwarm_up_frames = 0\n{OFTEN}[webhook]\nurl = "{peer.url}"\ntimeout_s = 2.0\n'
            f'[outbox]\nfolder = "{state or folder / "state"}"\n[health]\nport = 0\n{more}'
        )
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(folder / "notify"))
        self.notices.setblocking(False)
        self._notified: list[str] = []
        out, into = os.pipe()
        if pipe_bytes:
            fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, pipe_bytes)
        self.out = out
        self.errors = folder / "stderr"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*before, BITTERN, "watch", "--config", str(folder / "watch.toml")], stdout=into,
                stderr=errors if stderr is None else stderr,
                env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "2000000"} | env,
            )  # fmt: skip
        os.close(into)
        self.printed = b""

    def read(self, until: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Take what it prints until something holds."""
        os.set_blocking(self.out, False)
        end = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < end, self.errors.read_text()
            with contextlib.suppress(BlockingIOError):
                part = os.read(self.out, 1 << 20)
                if not part:
                    break
                self.printed += part
            self._hear()  # the system queues ten notices at most
            time.sleep(0.01)

    @property
    def events(self) -> list[Any]:
        """What it has printed; the last line may be half a one."""
        return [json.loads(line) for line in self.printed.split(b"\n")[:-1]]

    def states(self) -> list[str]:
        return [event["state"] for event in self.events if event["type"] == "state"]

    def alarms(self) -> list[str]:
        return [event["id"] for event in self.events if event["type"].startswith("alarm")]

    def take_notices(self) -> list[str]:
        """What systemd would have heard since the last call."""
        self._hear()
        notices, self._notified = self._notified, []
        return notices

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._notified.append(self.notices.recv(4096).decode())

    def figure(self, name: str) -> float:
        """A figure of the page for Prometheus."""
        address = re.search(r"http://127.0.0.1:(\d+)/metrics", self.errors.read_text())
        assert address is not None, self.errors.read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/metrics", timeout=5) as page:
            text = page.read().decode()
        value = re.search(rf"^{name} (\S+)$", text, re.M)
        assert value is not None, text
        return float(value[1])

    def camera(self) -> int | None:
        """Process id of the camera's process, if there is one."""
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def takes_signals(self) -> None:
        """Wait until it has its own handlers; that of SIGHUP is the last one."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            if int(re.findall(r"^SigCgt:\s*([0-9a-f]+)$", status, re.M)[0], 16) >> (signal.SIGHUP - 1) & 1:
                return
            time.sleep(0.005)
        raise AssertionError("no handler")

    def end(self, number: signal.Signals, again: signal.Signals | None = None, after: float = 0.0) -> float:
        """Send a signal, and perhaps another one while it ends; how long it took to end, in seconds."""
        begin = time.monotonic()
        self.process.send_signal(number)
        if again is not None:
            time.sleep(after)
            if self.process.poll() is None:
                self.process.send_signal(again)
        self.read(lambda: False, 30)  # until it closes its end
        self.process.wait(30)
        return time.monotonic() - begin

    def in_outbox(self) -> set[str]:
        """Ids of the events that wait, after a check of the database."""
        file = self.folder / "state/outbox.sqlite"
        if not file.exists():
            return set()
        with contextlib.closing(sqlite3.connect(file)) as opened:
            assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return {json.loads(body)["id"] for (body,) in opened.execute("SELECT body FROM events")}

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        self.notices.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_fault_9_a_signal_at_any_moment(tmp_path: Path, peer: Peer, record: Record, number: signal.Signals) -> None:
    n = times(50, 3)
    rng = random.Random(number)
    longest = 0.0
    for i in range(n):
        daemon = Daemon(tmp_path / str(i), peer)
        try:
            if i % 3 == 2:  # while it starts, from the moment on that it takes signals
                daemon.takes_signals()
                time.sleep(rng.uniform(0, 1.0))
                if number == signal.SIGHUP:
                    daemon.process.send_signal(number)
                    daemon.read(lambda daemon=daemon: "models_loaded" in daemon.states())  # type: ignore[misc]
            else:
                enough = rng.randrange(1, 40)
                daemon.read(lambda daemon=daemon, enough=enough: len(daemon.alarms()) >= enough)  # type: ignore[misc]
                time.sleep(rng.uniform(0, 0.05))
            if number == signal.SIGHUP and i % 3 != 2:
                daemon.process.send_signal(number)
                daemon.read(lambda daemon=daemon: "models_loaded" in daemon.states())  # type: ignore[misc]
                before = len(daemon.alarms())
                daemon.read(lambda daemon=daemon, before=before: len(daemon.alarms()) > before + 5)  # type: ignore[misc]
            camera = daemon.camera()
            daemon.take_notices()  # a full queue would take no more
            seconds = daemon.end(
                signal.SIGTERM if number == signal.SIGHUP else number, again=number, after=rng.random() / 5
            )
            assert camera is None or not Path(f"/proc/{camera}").exists(), "the camera's process is left"
            assert daemon.process.returncode == 0, daemon.errors.read_text()
            assert seconds < pass_mark(2)
            longest = max(longest, seconds)
            assert daemon.printed.endswith(b"\n") or not daemon.printed
            delivered = {event["id"] for event in peer.events}
            assert set(daemon.alarms()) <= daemon.in_outbox() | delivered, "an event is neither delivered nor kept"
            assert i % 3 == 2 or any("STOPPING=1" in notice for notice in daemon.take_notices())
        finally:
            daemon.close()
    record(9, number.name, n, f"ended within {longest:.2f} s, exit 0, nothing lost", "2 s, exit 0, outbox consistent")


def test_fault_10_a_main_loop_that_hangs(tmp_path: Path, peer: Peer, record: Record) -> None:
    """It is stuck in a frame: nobody reads what it prints."""
    n = times(5, 1)
    daemon = Daemon(tmp_path / "d", peer, pipe_bytes=4096)
    try:
        daemon.read(lambda: len(daemon.alarms()) >= 5)
        for _ in range(n):
            before = daemon.take_notices()
            assert any("WATCHDOG=1" in notice for notice in before)
            time.sleep(2.5)  # the pipe is full after a dozen events
            daemon.take_notices()
            time.sleep(2.5)
            assert daemon.take_notices() == [], "it says that it lives, and does nothing"
            assert daemon.figure("bittern_progress_age_seconds") > 2
            printed = len(daemon.alarms())
            daemon.read(lambda printed=printed: len(daemon.alarms()) > printed + 60)  # type: ignore[misc]
            assert daemon.figure("bittern_progress_age_seconds") < pass_mark(2)
        time.sleep(2.5)  # full again
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(pass_mark(2)) == 0, "it ends, although nobody reads what it prints"
    finally:
        daemon.close()
    record(10, "stuck in a frame", n, "no keep-alive in 2.5 s (watchdog 2 s); the figure shows it", "keep-alive stops")


def test_fault_11_no_file_descriptors(tmp_path: Path, peer: Peer, record: Record) -> None:
    n = times(5, 1)
    daemon = Daemon(tmp_path / "d", peer)
    try:
        daemon.read(lambda: len(peer.requests) >= 5)
        for i in range(n):
            complaints = daemon.errors.read_text().count("Too many open files")
            used = len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))
            limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
            printed, delivered = len(daemon.alarms()), len(peer.requests)
            daemon.read(lambda printed=printed: len(daemon.alarms()) > printed + 40)  # type: ignore[misc]
            assert len(peer.requests) <= delivered + 2, "it had a socket after all"
            assert daemon.errors.read_text().count("Too many open files") == complaints + 1, "said once"
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)
            last = daemon.alarms()[-1]
            daemon.read(lambda last=last: last in {event["id"] for event in peer.events})  # type: ignore[misc]
            assert len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir())) <= used + 3, f"descriptors leak, {i}"
        assert daemon.end(signal.SIGTERM) < pass_mark(2)
    finally:
        daemon.close()
    record(11, "no file descriptors", n, "frames went on, one line, all delivered afterwards", "goes on, says so once")


def test_fault_11_no_memory_for_the_camera(tmp_path: Path, peer: Peer, record: Record) -> None:
    """The camera's process is killed while there is no memory for a new one."""
    n = times(5, 1)
    daemon = Daemon(tmp_path / "d", peer)
    try:
        daemon.read(lambda: len(daemon.alarms()) >= 5)
        for _ in range(n):
            pid = daemon.process.pid
            size = int(re.findall(r"^VmSize:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)[0]) * 1024
            limits = resource.prlimit(pid, resource.RLIMIT_AS, (size - (8 << 20), resource.RLIM_INFINITY))
            (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            daemon.printed = b""
            os.kill(int(child), signal.SIGKILL)
            daemon.read(lambda: "camera_lost" in daemon.states())
            time.sleep(1.0)
            assert daemon.process.poll() is None, daemon.errors.read_text()
            resource.prlimit(pid, resource.RLIMIT_AS, limits)
            daemon.read(lambda: "camera_ok" in daemon.states() and len(daemon.alarms()) > 20)
        assert daemon.end(signal.SIGTERM) < pass_mark(2)
    finally:
        daemon.close()
    record(11, "no memory for a new camera process", n, "stayed up, camera back by itself", "goes on, recovers")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for a wall clock that can be set")
def test_fault_8_the_wall_clock_is_set(tmp_path: Path, peer: Peer, record: Record) -> None:
    """Back an hour and on a day, under a running daemon."""
    n = times(5, 1)
    clock, library = tmp_path / "clock", tmp_path / "set_clock.so"
    clock.write_text("+0")
    source = Path(__file__).with_name("set_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    daemon = Daemon(tmp_path / "d", peer, LD_PRELOAD=str(library), SET_CLOCK=str(clock))
    offset = 0
    try:
        daemon.read(lambda: len(daemon.alarms()) >= 5)
        for step in (-3600, 86400) * n:
            before = len(daemon.alarms())
            offset += step
            fileio.write(clock, f"{offset:+d}".encode())
            daemon.read(lambda before=before: len(daemon.alarms()) >= before + 20)  # type: ignore[misc]
            events = [event for event in daemon.events if event["type"].startswith("alarm")][before - 1 :]
            (marked,) = [event for event in events if "clock_jump_s" in event]
            assert marked["clock_jump_s"] == pytest.approx(step, abs=1)
            moments = [datetime.fromisoformat(event["time"]).timestamp() for event in events]
            jump = max(range(1, len(moments)), key=lambda i, moments=moments: abs(moments[i] - moments[i - 1]))  # type: ignore[misc]
            assert moments[jump] - moments[jump - 1] == pytest.approx(step, abs=1)
            # The frame's time is of the camera's process, the mark of the daemon's.
            assert 0 <= jump - events.index(marked) <= times(1, 5), "the mark is where the times jump"
            steps = [b["monotonic_ns"] - a["monotonic_ns"] for a, b in pairwise(events)]
            assert min(steps) >= 0
            assert max(steps) < pass_mark(1) * 1e9, "frames go on"
        assert daemon.end(signal.SIGTERM) < pass_mark(2)
        assert daemon.process.returncode == 0
    finally:
        daemon.close()
    record(8, "wall clock set back 1 h and on 1 day", 2 * n, "next event marked, frames went on", "marked, monotonic")


def test_fault_11_nowhere_to_print_to(tmp_path: Path, peer: Peer) -> None:
    """A pipe that nobody reads any more ends it, and what it raised is delivered or kept."""
    daemon = Daemon(tmp_path / "d", peer, more=f'[snapshots]\nfolder = "{tmp_path}/snapshots"\n')
    try:
        daemon.read(lambda: len(daemon.alarms()) >= 5)
        os.close(daemon.out)
        daemon.out = os.open(os.devnull, os.O_RDONLY)
        assert daemon.process.wait(20) == 1
        assert daemon.errors.read_text().splitlines()[-1].startswith("bittern: ")
        assert set(daemon.alarms()) <= daemon.in_outbox() | {event["id"] for event in peer.events}
    finally:
        daemon.close()


def test_a_second_daemon_on_one_outbox_refuses_and_a_kill_leaves_no_lock(tmp_path: Path, peer: Peer) -> None:
    daemon = Daemon(tmp_path / "d", peer)
    file = daemon.folder / "watch.toml"
    again = daemon
    try:
        daemon.read(lambda: len(daemon.alarms()) >= 5)
        for _ in range(2):
            second = bittern("watch", "--config", file)
            message = one_line(second, 2, f"process {daemon.process.pid} (bittern)", f"{daemon.folder}/state")
            assert "outbox.folder" in message
        printed = len(daemon.alarms())
        daemon.read(lambda: len(daemon.alarms()) >= printed + 5)
        # The peer heard of one daemon.
        assert [event.get("state") for event in peer.events].count("started") == 1
        daemon.process.kill()
        daemon.read(lambda: False)
        kept = daemon.in_outbox()
        again = Daemon(tmp_path / "e", peer, state=daemon.folder / "state")
        again.read(lambda: len(again.alarms()) >= 5)
        again.read(lambda: kept <= {event["id"] for event in peer.events})
        assert again.end(signal.SIGTERM) < pass_mark(2)
        assert again.process.returncode == 0
    finally:
        daemon.close()
        if again is not daemon:
            again.close()


def test_fault_39_frozen_and_thawed(tmp_path: Path, peer: Peer, record: Record) -> None:
    """Daemon and camera process are both stopped for longer than a camera may be silent: that is no stalled camera."""
    n, seconds = times(10, 1), times(8, 3)
    daemon = Daemon(tmp_path / "d", peer)
    camera: int | None = None
    try:
        for _ in range(n):
            enough = len(daemon.alarms()) + 10
            daemon.read(lambda enough=enough: len(daemon.alarms()) >= enough)  # type: ignore[misc]
            camera = daemon.camera()
            assert camera is not None
            for number in (signal.SIGSTOP, signal.SIGCONT):
                os.kill(daemon.process.pid, number)
                time.sleep(0.2)  # so that the daemon is the first to run again
                os.kill(camera, number)
                if number == signal.SIGSTOP:
                    time.sleep(seconds)
            enough = len(daemon.alarms()) + 10
            daemon.read(lambda enough=enough: len(daemon.alarms()) >= enough)  # type: ignore[misc]
            assert daemon.camera() == camera
        assert camera is not None
        os.kill(camera, signal.SIGSTOP)  # and one that really hangs is still noticed
        daemon.read(lambda: "camera_stalled" in daemon.states())
        assert daemon.states()[:3] == ["started", "camera_ok", "camera_stalled"]
        ids = [event["id"] for event in daemon.events]
        assert ids == sorted(ids), "ids sort in the order of their events"
        daemon.end(signal.SIGTERM)
        assert daemon.process.returncode == 0
    finally:
        daemon.close()
    record(39, f"daemon and camera frozen for {seconds} s", n, "0 camera_stalled, same process", "no camera_stalled")
