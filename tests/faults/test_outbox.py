"""Faults 11 and 14 to 15 on the outbox: killed at every step, power cuts, a disk that is full, read-only or broken."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.doubles.repetitions import times
from tests.faults.outbox_writer import SINKS
from tests.faults.power_cut import STRACE, Call, leave, read_record

from bittern.delivery.outbox import Outbox
from bittern.delivery.outbox_file import NAME

Record = Callable[..., None]
WRITER = Path(__file__).with_name("outbox_writer.py")
MARK = "database opens; no acknowledged event lost; none invented"


class Journal(NamedTuple):
    """What the killed processes said until they died."""

    put: int = -1
    acknowledged: int = -1
    delivered: frozenset[tuple[str, int]] = frozenset()
    unsure: frozenset[int] = frozenset()  # put by one that died before it was acknowledged

    def and_then(self, out: str) -> Journal:
        put, acknowledged, delivered = self.put, self.acknowledged, set(self.delivered)
        unsure = self.unsure | set(range(acknowledged + 1, put + 1))
        for line in out.split("\n")[:-1]:
            what, *rest = line.split()
            if what == "P":
                put = int(rest[0])
            elif what == "A":
                acknowledged = int(rest[0])
            elif what == "D":
                delivered.add((rest[0], int(rest[1])))
        return Journal(put, acknowledged, frozenset(delivered), unsure)


def inspect(folder: Path, journal: Journal) -> int:
    """Open what is left, as the daemon does, and check the pass mark; how many events were acknowledged and waiting."""
    box = Outbox(folder, SINKS, "cam", 100_000)
    box.flush()
    box.close()
    assert not list(folder.glob("*.damaged-*")), "the database does not open"
    with contextlib.closing(sqlite3.connect(folder / NAME)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = [(seq, json.loads(body)) for seq, body in db.execute("SELECT seq, body FROM events ORDER BY seq")]
        cursors = dict(db.execute("SELECT sink, seq FROM cursors"))
    numbers = [event["monotonic_ns"] for _, event in rows]
    assert numbers == sorted(set(numbers)), "twice, or out of order"
    assert not numbers or max(numbers) <= journal.put, "invented"
    waiting = 0
    for sink in SINKS:
        left = {event["monotonic_ns"] for seq, event in rows if seq > cursors[sink]}
        waiting += len(left)
        for n in set(range(journal.acknowledged + 1)) - journal.unsure:
            assert n in left or (sink, n) in journal.delivered, f"{n} is lost for {sink}"
    return waiting


def writer(folder: Path, first: int, count: int, seed: int, *before: str) -> subprocess.Popen[str]:
    command = [*before, sys.executable, str(WRITER), str(folder), str(first), str(count), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def needs_strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")


def test_killed_at_random(tmp_path: Path, record: Record) -> None:
    """Fault 14: the same outbox is killed again and again."""
    n = times(200, 8)
    choose = random.Random(14)
    journal, waiting, killed = Journal(), 0, 0
    for run in range(n):
        process = writer(tmp_path, journal.put + 1, 10**9, run)
        assert process.stdout is not None
        select.select([process.stdout], [], [])  # it has begun
        time.sleep(choose.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate()
        killed += process.returncode == -signal.SIGKILL
        journal = journal.and_then(out)
        waiting = inspect(tmp_path, journal)
    assert killed == n
    assert journal.acknowledged > 10 * n
    figure = f"{n} killed, {journal.acknowledged + 1} acknowledged, 0 lost, 0 invented, {waiting} waiting at the end"
    record(14, "SIGKILL at a random time", n, figure, MARK)


# The calls with which SQLite changes files, and what opens and closes them.
STEPS = ("pwrite64", "fdatasync", "ftruncate", "unlink", "openat", "close", "fcntl", "mmap", "write")


def test_killed_at_every_step(tmp_path: Path, record: Record, needs_strace: None) -> None:
    """Fault 14: SIGKILL on entering the Nth call of a kind, from making the file to closing it."""
    n = times(200, 9)
    count = 60  # events, with a commit for every few
    log = tmp_path / "log"
    whole = writer(
        tmp_path / "whole", 0, count, 14, "strace", "-f", "-qq", "-e", f"trace={','.join(STEPS)}", "-o", str(log)
    )
    out, _ = whole.communicate()
    assert whole.returncode == 0
    assert Journal().and_then(out).acknowledged >= count - 1
    # Python itself makes such calls while it starts: those before the outbox is there are not ours.
    calls = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
    begin = next(i for i, call in enumerate(calls) if NAME in call)
    steps = []
    seen = dict.fromkeys(STEPS, 0)
    for i, call in enumerate(calls):
        name = re.split(r"\W", call, maxsplit=1)[0]
        if name in seen:
            seen[name] += 1
            if i >= begin:
                steps.append((name, seen[name]))
    kinds = {name for name, _ in steps}
    assert {"pwrite64", "fdatasync", "openat"} <= kinds
    chosen = random.Random(15).sample(steps, min(n, len(steps)))
    killed, waiting = 0, 0
    for i, (name, when) in enumerate(chosen):
        folder = tmp_path / f"state{i}"
        inject = f"inject={name}:signal=SIGKILL:when={when}"
        process = writer(folder, 0, count, 14, "strace", "-f", "-qq", "--seccomp-bpf", "-e", inject, "-o", "/dev/null")
        out, _ = process.communicate()
        killed += process.returncode == -signal.SIGKILL
        waiting += inspect(folder, Journal().and_then(out))
        shutil.rmtree(folder)
    assert killed >= 0.9 * len(chosen), "what Python does is not exactly the same every time"
    figure = (
        f"{killed} killed at {len(set(chosen))} of {len(steps)} calls ({', '.join(sorted(kinds))}), 0 lost, 0 invented"
    )
    record(14, "SIGKILL at a system call", len(chosen), figure, MARK)


def test_copies_taken_in_the_middle(tmp_path: Path, record: Record) -> None:
    """Fault 14: database and write-ahead log as they are between two instructions of the writer."""
    n = times(200, 15)
    choose = random.Random(16)
    process = writer(tmp_path / "state", 0, 10**9, 14)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    out, waiting = "", 0
    try:
        for i in range(n):
            time.sleep(choose.uniform(0.001, 0.05) if i else 0.5)
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            while data := os.read(process.stdout.fileno(), 1 << 20) if _readable(process) else b"":
                out += data.decode()
            copy = tmp_path / f"copy{i}"
            copy.mkdir()
            for name in (NAME, f"{NAME}-wal"):
                if (tmp_path / "state" / name).exists():
                    shutil.copy(tmp_path / "state" / name, copy)
            process.send_signal(signal.SIGCONT)
            waiting += inspect(copy, Journal().and_then(out[: out.rfind("\n") + 1]))
            shutil.rmtree(copy)
    finally:
        process.kill()
        process.communicate()
    journal = Journal().and_then(out)
    assert journal.acknowledged > n
    record(14, "copies of database and log", n, f"{journal.acknowledged + 1} acknowledged, 0 lost, 0 invented", MARK)


def test_power_cuts(tmp_path: Path, record: Record, needs_strace: None) -> None:
    """Fault 14: what was not synced is there, or not, or in part."""
    n = times(200, 20)
    state, log = tmp_path / "state", tmp_path / "log"
    state.mkdir()
    whole = writer(state, 0, times(600, 200), 14, *STRACE, str(log))
    out, _ = whole.communicate()
    assert whole.returncode == 0
    calls = read_record(log, state)
    # Shared memory is no file that counts: SQLite makes it anew.
    calls = [call for call in calls if not call.file.endswith("-shm")]
    assert b"".join(call.data for call in calls if not call.file).decode().endswith(out[-500:])
    begin = next(i for i, call in enumerate(calls) if call.file == NAME)
    with pytest.raises(AssertionError):  # what is played here would find an outbox that does not sync
        cut_off([call for call in calls if call.name != "sync"], begin, 20, tmp_path / "unsynced")
    acknowledged = cut_off(calls, begin, n, tmp_path / "left")
    figure = f"{n} cuts among {len(calls) - begin} calls, {acknowledged} acknowledged in sum, 0 lost, 0 invented"
    record(14, "power cut: unsynced writes lost or torn", n, figure, MARK)


def cut_off(calls: list[Call], begin: int, n: int, left: Path) -> int:
    """Cut the power n times at some call, and inspect what is left; how many events were acknowledged in sum."""
    choose = random.Random(17)
    acknowledged = 0
    for _ in range(n):
        cut = choose.randrange(begin, len(calls) + 1)
        left.mkdir()
        leave(calls[:cut], left, choose)
        journal = Journal().and_then(b"".join(call.data for call in calls[:cut] if not call.file).decode())
        inspect(left, journal)
        acknowledged += journal.acknowledged + 1
        shutil.rmtree(left)
    return acknowledged


# What a failing disk answers, and to which call on the outbox's files; in a row, from one of the first so many on.
ERRORS = (
    ("pwrite64", "ENOSPC", 20, 60), ("pwrite64", "EROFS", 20, 60), ("pwrite64", "EIO", 5, 60),
    ("fdatasync", "EIO", 3, 12), ("openat", "EMFILE", 6, 3), ("openat", "EROFS", 6, 3),
    ("ftruncate", "EIO", 1, 2), ("mmap", "ENOMEM", 1, 1),
)  # fmt: skip


def test_errors_of_the_disk(tmp_path: Path, record: Record, needs_strace: None) -> None:
    """Fault 11: whatever a call is answered for a while, the outbox goes on in memory and makes it good."""
    n = times(5, 1)
    choose = random.Random(18)
    for call, error, many, among in ERRORS if n > 1 else ERRORS[1:5]:
        met = 0
        for run in range(n):
            folder = tmp_path / f"{call}{error}{run}"
            files = [word for end in ("", "-wal", "-shm") for word in ("-P", str(folder / f"{NAME}{end}"))]
            begin = choose.randint(1, among)
            inject = f"inject={call}:error={error}:when={begin}..{begin + many - 1}"
            process = writer(
                folder, 0, 120, run, "strace", "-f", "-qq", *files, "-e", inject, "-o", str(tmp_path / "log")
            )
            out, _ = process.communicate(timeout=60)
            assert process.returncode == 0, out[-500:]
            journal = Journal().and_then(out)
            assert journal.acknowledged == journal.put >= 119
            inspect(folder, journal)
            met += "INJECTED" in (tmp_path / "log").read_text()
        assert met == n, call
        mark = "goes on classifying; says so once; recovers when it ends"
        record(11, f"{call} answers {error}", n, "all acknowledged in the end, 0 lost", mark)


def _readable(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return bool(select.select([process.stdout], [], [], 0)[0])
