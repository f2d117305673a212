"""What the doctor prints: the table, the JSON, and a report that tells nobody whose machine it is."""

from __future__ import annotations

import getpass
import json
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.pi_machines import PYTHON, SERIAL, Pi, pi, step

from bittern.cli.doctor import doctor as command
from bittern.doctor import report
from bittern.doctor.examine import Examination, examine
from bittern.doctor.findings import failure, ok, skipped, warning
from bittern.system import machine
from bittern.system.commands import CommandResult

ALICES_PYTHON = "/home/alice/bittern/.venv/bin/python"
SECRETS = {
    "user": "alice",
    "host": "alices-door-cam",
    "home": "/home/alice",
    "serial of a camera": "8A2B3C4D",
    "password": "hunter2",
    "address": "192.168.178.44",
    "address 6": "fe80::ba27:ebff:fe12:3456",
    "mac": "b8:27:eb:12:34:56",
    "serial": SERIAL,
    "disk": "/media/alice",
}


@pytest.fixture
def telling(tmp_path: Path) -> Pi:
    """A Pi on which everything that can tell a name does."""
    fake = pi(tmp_path, "pi5", "trixie")
    venv = "/home/alice/bittern/.venv"
    fake.software["python"] = step(
        "python", {"prefix": venv, "base_prefix": "/usr", "picamera2": None, "opencv_wheels": ["opencv-python"]}
    )
    file = f"{venv}/lib/python3.13/site-packages/numpy/__init__.py"
    fake.software["numpy"] = step("numpy", {"version": "2.2.6", "file": file})
    fake.software["cv2"] = step("cv2", error="ImportError: /media/alice/libs/cv2.so on alices-door-cam: wrong")
    fake.software["file"] = step("file stop_sign", error="PermissionError: '/home/alice/models/manifest.json'")
    fake.camera = {
        "open": step(
            "open",
            error="SourceError: usb:/dev/v4l/by-id/usb-046d_HD_Pro_8A2B3C4D-video-index0: does not open: held by alice "
            "at 192.168.178.44, fe80::ba27:ebff:fe12:3456, b8:27:eb:12:34:56, rtsp://alice:hunter2@garden.local/stream",
        )
    }
    fake.answers["timedatectl show -p NTPSynchronized --value"] = CommandResult(
        1, "", "Failed to query server: alices-door-cam.fritz.box is not reachable"
    )
    return fake


def look(fake: Pi) -> Examination:
    def runner(command: Sequence[str], timeout_s: float = 5.0, stdin: str = "") -> CommandResult:
        return fake([PYTHON if word == ALICES_PYTHON else word for word in command], timeout_s)

    return examine(root=fake.root, runner=runner, python=ALICES_PYTHON)


def test_there_is_something_to_hide(telling: Pi) -> None:
    examination = look(telling)
    shown = report.table(examination.checks)
    assert [c.check for c in examination.checks if "alice" in (c.fix or "")] == ["opencv"]
    for what in set(SECRETS) - {"serial"}:
        assert SECRETS[what] in shown, what


def test_a_report_has_no_names(telling: Pi) -> None:
    text = report.report(look(telling), {"alice", "alices-door-cam"})
    for what, secret in SECRETS.items():
        assert secret not in text, what
    for word in ("alice", "fritz.box/", "garden.local"):
        assert word not in text
    # What is left is of use.
    assert "Raspberry Pi 5 Model B Rev 1.0" in text
    assert "/home/USER/bittern/.venv/lib/python3.13/site-packages/numpy" in text
    assert "Cortex-A76" in text
    assert "kernel 6.12.62+rpt-rpi-2712" in text
    assert re.search(r"^opencv +[0-9]+\.[0-9]+\.[0-9]+", text, re.MULTILINE), "a version is no address"
    assert text.startswith("```text\n")
    assert text.endswith("\n```")
    assert "`" not in text[7:-4]


def test_the_names_of_this_user_and_host() -> None:
    names = report.own_names()
    assert not names & {"root", "pi", "bittern", "raspberrypi", ""}
    user, host = getpass.getuser(), socket.gethostname()
    assert {user, host} <= names | {"root", "pi", "bittern", "raspberrypi", "localhost"}
    examination = Examination(machine=machine.read(), checks=[ok("x", f"{Path.home()}/x for {user} on {host}!")])
    text = report.report(examination)
    for name in (*names, str(Path.home())):
        assert not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)


@given(st.ip_addresses())
def test_no_address_is_left(address: object) -> None:
    assert report.anonymous(f"cannot reach {address}: no route", ()) == "cannot reach ADDRESS: no route"


@pytest.mark.parametrize(
    "text", ["numpy 2.4.6", "kernel 6.12.62+rpt-rpi-2712", "at 15:16:30", "steps: ok", "std::vector", "usb:0: busy"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert report.anonymous(text, {"alice"}) == text


def test_the_table() -> None:
    checks = [ok("board", "a Pi"), warning("governor", "slow", "echo a | b"), failure("numpy", "gone", "apt x")]
    assert report.table([*checks, skipped("camera", "none")]).splitlines() == [
        "ok       board     a Pi",
        "warning  governor  slow",
        "                   do: echo a | b",
        "failure  numpy     gone",
        "                   do: apt x",
        "skipped  camera    none",
        "1 ok, 1 warning, 1 failure, 1 skipped",
    ]


# The command. Its probes are real, its machine is this one.


def test_the_command_prints_a_table() -> None:
    done = CliRunner().invoke(command, [])
    assert done.exit_code == 0
    assert re.search(r"^ok +runtime +.*XNNPACK runs the graph of", done.stdout, re.MULTILINE)
    assert " 0 failures, " in done.stdout.splitlines()[-1]


def test_a_failed_check_is_exit_code_1(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["--json", "--source", str(tmp_path / "absent")])
    assert done.exit_code == 1
    (line,) = done.stdout.splitlines()
    printed = json.loads(line)
    assert set(printed) == {"machine", "checks"}
    (camera,) = [check for check in printed["checks"] if check["check"] == "camera"]
    assert camera["status"] == "failure"
    assert "no such file or folder" in camera["finding"]
    assert camera["fix"]
    assert printed["machine"]["bittern"]


def test_the_command_prints_a_report() -> None:
    done = CliRunner().invoke(command, ["--report"])
    assert done.exit_code == 0
    assert done.stdout.startswith("```text\narchitecture ")


def test_json_and_report_exclude_each_other() -> None:
    done = CliRunner().invoke(command, ["--json", "--report"])
    assert done.exit_code == 2
    assert "not both" in done.stderr
