"""The systemd unit: no line that systemd does not understand, and how much of the system it can reach."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bittern.config.schema import WatchConfig

UNIT = Path(__file__).parents[3] / "edge/systemd/bittern@.service"
(MIN_FPS,) = [
    field.type.ge
    for field in msgspec.inspect.type_info(WatchConfig).fields  # type: ignore[attr-defined]
    if field.name == "fps"
]

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian: systemd)"
)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def complaints(unit: str, folder: Path) -> list[str]:
    """What `systemd-analyze verify` says; its exit code is 0 even for a key that does not exist."""
    path = folder / UNIT.name
    # It also looks whether the program is there.
    path.write_text(re.sub(r"/opt/\S+/bittern ", f"{sys.executable} ", unit))
    return analyze("verify", path).stderr.splitlines()


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    assert complaints(UNIT.read_text(), tmp_path) == []


def test_systemd_understands_the_units_that_reboot(tmp_path: Path) -> None:
    files = [shutil.copy(file, tmp_path) for file in UNIT.parent.glob("bittern-reboot@.*")]
    assert len(files) == 2
    assert analyze("verify", *files).stderr == ""


def test_a_misspelt_key_would_be_noticed(tmp_path: Path) -> None:
    unit = UNIT.read_text().replace("NoNewPrivileges=", "NoNewPriviliges=")
    assert "NoNewPriviliges" in "".join(complaints(unit, tmp_path))


def test_exposure_is_at_most_two() -> None:
    """Of 10; a unit without hardening has 9.6. What is left is the network, the camera and /proc."""
    result = analyze("security", "--offline=true", "--threshold=20", UNIT)
    match = re.search(r"Overall exposure level for .*: ([\d.]+)", result.stdout)
    assert match, result.stderr
    assert float(match[1]) <= 2.0
    assert result.returncode == 0


def test_the_camera_stays_reachable() -> None:
    unit = UNIT.read_text().splitlines()
    assert "DevicePolicy=closed" in unit
    for group in ("char-video4linux", "char-media", "char-dma_heap", "char-gpiochip"):
        assert f"DeviceAllow={group} rw" in unit
    assert not any(line.startswith(("PrivateDevices=", "ProcSubset=")) for line in unit)
    (families,) = [line for line in unit if line.startswith("RestrictAddressFamilies=")]
    assert "AF_NETLINK" in families


def settings() -> dict[str, str]:
    """Every setting of the unit that stands there once."""
    lines = [line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    names = [name for name, _ in lines]
    return {name: value for name, value in lines if names.count(name) == 1}


def test_readiness_watchdog_and_reload() -> None:
    unit = settings()
    assert unit["Type"] == "notify", "notify-reload is unknown to systemd 252"
    assert unit["NotifyAccess"] == "main"
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"
    # The slowest rate that the configuration allows still feeds the watchdog.
    slowest_s = 1 / MIN_FPS
    assert int(unit["WatchdogSec"]) >= 2 * slowest_s


def test_a_child_that_hangs_dies_with_the_daemon_and_not_the_other_way_round() -> None:
    unit = settings()
    assert unit["KillMode"] == "mixed"
    assert int(unit["TimeoutStopSec"]) <= 10
    assert unit["OOMPolicy"] == "continue"
    assert unit["MemoryMax"].endswith("%")
    assert unit["Restart"] == "always"


def test_folders_are_those_of_the_instance() -> None:
    unit = settings()
    assert unit["StateDirectory"] == unit["RuntimeDirectory"] == "bittern/%i"
    assert unit["ExecStart"].endswith("bittern watch --config /etc/bittern/%i.toml")
    assert unit["WorkingDirectory"] == "/var/lib/bittern/%i", "gpiozero's lgpio writes to it"
