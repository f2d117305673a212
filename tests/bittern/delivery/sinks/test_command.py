"""The command sink, with real programs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.doubles.camera_process import descriptors
from tests.doubles.waiting import until, within

from bittern.config.schema import CommandConfig
from bittern.delivery.sinks.base import Undelivered
from bittern.delivery.sinks.command import TRIES, CommandSink
from bittern.errors import ConfigurationError
from bittern.events import Event, to_line

EVENT = Event(id="0190-1", type="alarm.on", time="2026-01-01T00:00:00.000Z", monotonic_ns=1, source="s", label="stop")
BODY = to_line(EVENT)[:-1]


def shell(script: str, timeout_s: float = 10.0) -> CommandSink:
    return CommandSink(CommandConfig(run=("sh", "-c", script), timeout_s=timeout_s))


def zombies() -> list[str]:
    """Children of this process that nobody waited for."""
    processes = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
            if (state, int(parent)) == ("Z", os.getpid()):
                processes.append(file.parent.name)
    return processes


def test_the_program_gets_the_event_and_little_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "secret")
    program = (
        "import json, os, sys; "
        "found = [sys.stdin.read(), dict(os.environ), os.getsid(0) == os.getpid()]; "
        f"json.dump(found, open({str(tmp_path / 'x')!r}, 'w'))"
    )
    sink = CommandSink(CommandConfig(run=(sys.executable, "-c", program)))
    assert sink.deliver(EVENT, BODY) == "exit code 0"
    stdin, environment, own_group = json.loads((tmp_path / "x").read_text())
    assert stdin.encode() == BODY + b"\n"
    assert environment["BITTERN_EVENT_TYPE"] == "alarm.on"
    assert environment["BITTERN_LABEL"] == "stop"
    assert environment["PATH"] == os.environ["PATH"]
    assert "MQTT_PASSWORD" not in environment
    assert own_group


def test_no_shell_looks_at_the_arguments(tmp_path: Path) -> None:
    CommandSink(CommandConfig(run=("touch", str(tmp_path / "a b; c $HOME")))).deliver(EVENT, BODY)
    assert [file.name for file in tmp_path.iterdir()] == ["a b; c $HOME"]


def test_an_event_without_a_label_has_an_empty_one() -> None:
    state = Event(id="1", type="state", time="", monotonic_ns=1, source="s", state="test")
    assert shell('set -u; test -z "$BITTERN_LABEL"').deliver(state, b"{}") == "exit code 0"


def test_a_program_that_does_not_read_holds_nothing_up() -> None:
    assert shell("exit 0").deliver(EVENT, b"x" * 5_000_000) == "exit code 0"


def test_a_failure_says_how_and_the_first_line_of_stderr() -> None:
    with pytest.raises(Undelivered) as failed:
        shell("echo out; echo 'no such light' >&2; echo more >&2; exit 3").deliver(EVENT, BODY)
    assert failed.value.reason == "sh: exit code 3: no such light"
    with pytest.raises(Undelivered, match="sh: ended by SIGSEGV"):
        shell("kill -SEGV $$").deliver(EVENT, BODY)


def test_an_event_is_refused_after_some_failures_and_the_next_begins_anew() -> None:
    sink = shell("exit 1")
    other = Event(id="0190-2", type="alarm.off", time="", monotonic_ns=2, source="s")

    def finals(event: Event, count: int) -> list[bool]:
        final = []
        for _ in range(count):
            with pytest.raises(Undelivered) as failed:
                sink.deliver(event, b"{}")
            final.append(failed.value.final)
        return final

    assert finals(EVENT, TRIES) == [False] * (TRIES - 1) + [True]
    assert finals(other, 2) == [False, False]


def test_the_whole_group_is_killed_when_its_time_is_over(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    sink = shell(f"sleep 60 & echo $! > {pid}; trap '' TERM; echo waiting >&2; wait", timeout_s=0.5)
    with within(), pytest.raises(Undelivered, match=r"sh: killed after 0\.5 s: waiting"):
        sink.deliver(EVENT, BODY)
    stat = Path(f"/proc/{int(pid.read_text())}/stat")
    until(lambda: not stat.exists() or stat.read_text().split()[2] == "Z", 20)


def test_what_runs_on_in_the_background_holds_nothing_up(tmp_path: Path) -> None:
    """It keeps stderr open, and even writes to it."""
    pid = tmp_path / "pid"
    script = f"(while true; do echo noise >&2 || exit; done) & echo $! > {pid}; exit 0"
    try:
        with within():
            assert shell(script, timeout_s=60).deliver(EVENT, BODY) == "exit code 0"
    finally:
        os.kill(int(pid.read_text()), 9)


def test_a_flood_on_stderr_is_not_kept() -> None:
    with pytest.raises(Undelivered) as failed:
        shell("head -c 300000000 /dev/zero | tr '\\0' x >&2; exit 1", timeout_s=60).deliver(EVENT, BODY)
    assert len(failed.value.reason) < 300


def test_close_kills_the_program(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    sink = shell(f"touch '{begun}'; sleep 60", timeout_s=60)
    with ThreadPoolExecutor(1) as thread:
        attempt = thread.submit(sink.deliver, EVENT, BODY)
        until(begun.exists)
        sink.close()
        with pytest.raises(Undelivered, match=r"^sh: ended by SIGKILL$"):
            attempt.result(20)
    with pytest.raises(Undelivered, match="closed"):
        sink.deliver(EVENT, BODY)


def test_a_program_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"command\.run: 'no-such-program' is not an executable"):
        CommandSink(CommandConfig(run=("no-such-program",)))
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    sink = CommandSink(CommandConfig(run=(str(program),)))
    program.unlink()
    for _ in range(2 * TRIES):  # while it is being exchanged no event is refused
        with pytest.raises(Undelivered, match="No such file") as failed:
            sink.deliver(EVENT, BODY)
        assert not failed.value.final


def test_neither_file_descriptors_nor_zombies_stay() -> None:
    before = descriptors()
    good, bad, slow = shell("exit 0"), shell("exit 1"), shell("sleep 9", timeout_s=0.05)
    for _ in range(5):
        good.deliver(EVENT, BODY)
        for sink in (bad, slow):
            with pytest.raises(Undelivered):
                sink.deliver(EVENT, BODY)
    until(lambda: descriptors() <= before)
    assert not zombies()
