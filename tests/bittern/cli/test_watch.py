"""`bittern watch` as a user meets it: events, signals at any moment, what it leaves."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from threading import Timer
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from tests.doubles.command import BITTERN, EVENT, OFTEN, STATE, Done, bittern, one_line
from tests.doubles.repetitions import pass_mark, times
from tests.doubles.waiting import until, within


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Pictures that a folder source gives one a second: red in the second, third and fifth."""
    (tmp_path / "film").mkdir()
    for i, red in enumerate((0, 255, 255, 0, 255, 0)):
        cv2.imwrite(str(tmp_path / f"film/{i}.png"), np.full((30, 40, 3), (10, 10, red), np.uint8))
    return tmp_path / "film"


def test_watch_prints_an_event_a_line(place: Path, film: Path, tmp_path: Path) -> None:
    config = tmp_path / "watch.toml"
    config.write_text(f'source = "{film}"\nname = "the gate"\nmodels = ["{place / "means"}"]\n{OFTEN}')
    done = bittern("watch", "--config", config)
    assert done.code == 0
    assert "6 frames in" in done.err
    assert "8 alarm events" in done.err
    (started,) = [e for e in done.lines if e["type"] == "state"]
    assert started["state"] == "started"
    assert started["monotonic_ns"] == 0, "on the recording's clock, as the alarms"
    events = done.alarms
    assert all(set(event) == EVENT for event in events)
    of_head = [event for event in events if event["task"] == "colour_1"]
    assert [(e["type"], e["frame"], e["label"]) for e in of_head] == [
        ("alarm.on", 1, "red"),
        ("alarm.off", 3, "red"),
        ("alarm.on", 4, "red"),
        ("alarm.off", 5, "red"),
    ]
    assert [e["monotonic_ns"] for e in of_head] == [1_000_000_000, 3_000_000_000, 4_000_000_000, 5_000_000_000]
    assert {(e["source"], e["model"], e["model_version"]) for e in events} == {("the gate", "means", "7")}
    assert [e["score"] for e in of_head] == [1.0, 0.0, 1.0, 0.0]
    assert len({e["id"] for e in events}) == 8
    moments = [datetime.fromisoformat(e["time"]) for e in of_head]
    assert moments == sorted(moments)
    assert all(e["time"].endswith("Z") for e in events)


@pytest.mark.parametrize("snapshots", ["", '[snapshots]\nfolder = "{}/snapshots"\n'])
def test_a_recording_ends_when_a_slow_program_has_every_event(
    place: Path, film: Path, tmp_path: Path, snapshots: str
) -> None:
    took = tmp_path / "took"
    config = tmp_path / "watch.toml"
    config.write_text(
        f'source = "{film}"\nmodels = ["{place / "means"}"]\n'
        f'[outbox]\nfolder = "{tmp_path}/state"\n[command]\nrun = ["sh", "-c", "sleep 1.3; cat >> {took}"]\n'
        + snapshots.format(tmp_path)
    )
    done = bittern("watch", "--config", config)
    assert done.code == 0
    printed = [event["id"] for event in done.lines]
    assert len(printed) >= 3
    assert [json.loads(line)["id"] for line in took.read_text().splitlines()] == printed


def test_a_signal_ends_the_wait_for_a_slow_program(place: Path, film: Path, tmp_path: Path) -> None:
    took = tmp_path / "took"
    config = tmp_path / "watch.toml"
    config.write_text(
        f'source = "{film}"\nmodels = ["{place / "means"}"]\n'
        f'[outbox]\nfolder = "{tmp_path}/state"\n[command]\nrun = ["sh", "-c", "sleep 30; cat >> {took}"]\n'
    )
    with subprocess.Popen(
        [BITTERN, "watch", "--config", config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watch:
        assert watch.stderr is not None
        message = next(line for line in watch.stderr if "still to be delivered" in line)
        with within():
            watch.send_signal(signal.SIGTERM)
            out, rest = watch.communicate(timeout=30)
    waiting = len(out.splitlines())
    assert waiting >= 3
    assert f"events still to be delivered: {waiting}; Ctrl-C" in message
    assert f"not delivered: {waiting};" in rest
    assert watch.returncode == 0
    config.write_text(config.read_text().replace("sleep 30; ", ""))
    assert bittern("watch", "--config", config).code == 0
    assert [json.loads(line)["id"] for line in took.read_text().splitlines()][:waiting] == [
        json.loads(line)["id"] for line in out.splitlines()
    ]


def test_votes_and_cooldown_come_from_the_file(place: Path, film: Path, tmp_path: Path) -> None:
    config = tmp_path / "watch.toml"
    config.write_text("[decision]\nvotes = 2\nof = 2\ncooldown_s = 60\nmin_off_s = 0\n")
    done = bittern("watch", "--config", config, "--source", film, "--model", place / "means")
    changes = [(e["type"], e["frame"]) for e in done.alarms if e["task"] == "colour_0"]
    assert changes == [("alarm.on", 2), ("alarm.off", 3)]


def test_watch_a_live_source_for_some_frames(place: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    words = ("--fps", "20", "--frames", "12", "--model", place / "means")
    done = bittern("watch", "--source", "demo:?fps=40&size=160x120", "--sheet", sheet, *words)
    assert done.code == 0
    summary = re.search(r"12 frames in (\d+\.\d) s, \d+ of them still, (\d+) dropped", done.err)
    assert summary is not None
    assert float(summary[1]) >= 0.4
    assert int(summary[2]) >= 5, "the cap leaves frames out"
    picture = cv2.imread(str(sheet))
    assert picture is not None
    assert picture.shape[2] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_while_it_watches_garbage_is_collected_soon(place: Path) -> None:
    # Not as seldom as at the start, where all that is made stays.
    run = (
        "import atexit, gc\n"
        "atexit.register(lambda: print(gc.get_threshold()[0], file=__import__('sys').stderr))\n"
        "from bittern.cli.main import main; main()"
    )
    words = ["watch", "--source", "demo:?fps=40&size=160x120", "--frames", "2", "--model", str(place / "means")]
    done = subprocess.run([sys.executable, "-c", run, *words], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stderr.split("\n")[-2]) <= 1000


def test_a_threshold_that_the_model_does_not_have(place: Path, tmp_path: Path) -> None:
    config = tmp_path / "watch.toml"
    for text, says in (
        ('[decision]\nthreshold = "quite"', "has no threshold 'quite'"),
        ("[decision]\noff = 0.9", "decision.off 0.9 is above the threshold 0.5"),
        ("[decision]\nvots = 3", "did you mean 'votes'"),
        ("[decision]\nvotes = 9", "votes (9) must not exceed of (3)"),
        ("fps = 'fast'", "fps"),
        ("fps 3", "watch.toml:1"),
        ("x = " + "[" * 20_000, ""),
    ):
        config.write_text(text)
        done = bittern("watch", "--config", config, "--source", "demo:", "--model", place / "means")
        errors = [line for line in done.err.splitlines() if "watching" not in line]
        one_line(Done(done.code, done.out, "\n".join(errors) + "\n"), 2, says)


# --- signals ---------------------------------------------------------------------------------------------------------


def takes_signals(pid: int) -> bool:
    """Whether a process has its own handler for SIGTERM, as Linux says it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.M)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def until_it_takes_signals(process: subprocess.Popen[bytes]) -> None:
    until(lambda: takes_signals(process.pid) or process.poll() is not None)


@pytest.fixture(scope="module")
def live(place: Path) -> list[str]:
    """A command that waits for frames most of the time."""
    words = ["--source", "demo:?fps=240&size=64x48", "--fps", "240", "--model", "means"]
    return [BITTERN, "watch", *words]


@pytest.fixture(scope="module")
def busy(place: Path) -> list[str]:
    """A command that prints events all the time: red and black pictures in turn, enough for many seconds."""
    (place / "flicker").mkdir()
    for i in range(4000):
        if i < 2:
            cv2.imwrite(str(place / f"flicker/{i:04}.png"), np.full((480, 640, 3), (0, 0, 255 * i), np.uint8))
        else:
            os.link(place / f"flicker/{i % 2:04}.png", place / f"flicker/{i:04}.png")
    (place / "busy.toml").write_text(OFTEN)
    return [BITTERN, "watch", "--config", "busy.toml", "--source", "flicker", "--model", "means"]


def first_event(process: subprocess.Popen[bytes]) -> bytes:
    """The first line on stdout, however long a busy machine takes for it."""
    assert process.stdout is not None
    last = Timer(60, process.kill)
    last.start()
    try:
        return process.stdout.readline()
    finally:
        last.cancel()


class Moment(NamedTuple):
    """When a signal is sent: so many seconds after the handler is there, or after the first event."""

    delay: float
    after_an_event: bool


def stopped(command: list[str], place: Path, number: signal.Signals, moment: Moment) -> tuple[int, float, bytes, bytes]:
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until_it_takes_signals(process)
    event = first_event(process) if moment.after_an_event else b""
    time.sleep(moment.delay)
    process.send_signal(number)
    begin = time.monotonic()
    out, err = process.communicate(timeout=30)
    return process.returncode, time.monotonic() - begin, event + out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_ends_it_cleanly(
    busy: list[str], live: list[str], place: Path, number: signal.Signals
) -> None:
    rng = random.Random(number)
    # Every other one of the busy ones while events are printed, the others from the start on.
    moments = [Moment(rng.uniform(0, 1.2), i % 4 == 0) for i in range(times(20, 8))]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(stopped, (busy, live)[i % 2], place, number, moment) for i, moment in enumerate(moments)]
        results = [job.result() for job in jobs]
    for (code, seconds, out, err), moment in zip(results, moments, strict=True):
        where = f"{number.name} at {moment}: {err.decode()}"
        assert code == 0, where
        assert seconds < pass_mark(2), where
        assert out.endswith(b"\n") or not out, where
        events = [json.loads(line) for line in out.splitlines()]
        assert all(set(event) == (STATE if event["type"] == "state" else EVENT) for event in events), where
        assert b"Traceback" not in err, where
        assert b"internal error" not in err, where
        assert out or not moment.after_an_event, where


def test_signals_are_taken_before_the_heavy_imports(busy: list[str], place: Path) -> None:
    process = subprocess.Popen(busy, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until_it_takes_signals(process)
    loaded = Path(f"/proc/{process.pid}/maps").read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "/cv2" not in loaded
    assert "tensorflow" not in loaded
    assert "ai_edge_litert" not in loaded


def test_a_second_signal_does_no_harm(busy: list[str], place: Path) -> None:
    process = subprocess.Popen(busy, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert first_event(process)
    for _ in range(5):
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert b"Traceback" not in err
    assert b"internal error" not in err
    assert process.returncode == 0


def test_a_sheet_is_left_by_a_stopped_watch(place: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    words = ["watch", "--source", "demo:?size=64x48", "--model", "means", "--sheet", str(sheet)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        process = subprocess.Popen(
            [BITTERN, *words], cwd=place, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        while b"frames per second" not in listener.recv(4096):
            pass
    process.terminate()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert cv2.imread(str(sheet)) is not None
