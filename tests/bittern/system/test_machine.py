"""The machine signature, of faked Raspberry Pis and of the machine that runs this."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.pi_machines import BOARDS, SERIAL, SYSTEMS, pi

from bittern.system import machine
from bittern.system.commands import CommandResult
from bittern.system.machine import Machine, Throttled


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("board", BOARDS)
def test_the_boards(tmp_path: Path, board: str, system: str) -> None:
    fake = pi(tmp_path, board, system)
    expected, release = BOARDS[board], SYSTEMS[system]
    facts = machine.read(tmp_path, fake, userland_bits=64)
    assert (facts.board, facts.board_id, facts.cpu, facts.cores) == (expected.model, board, expected.cpu, 4)
    assert (facts.architecture, facts.kernel_bits, facts.userland_bits, facts.userland) == ("aarch64", 64, 64, "arm64")
    assert (facts.codename, facts.os) == (system, f"Debian GNU/Linux {release.version} ({system})")
    assert facts.os_image == f"Raspberry Pi reference {release.image}"
    assert facts.kernel == f"{release.kernel}-{expected.kernel}"
    assert (facts.governor, facts.frequency_mhz) == ("ondemand", expected.mhz[0])
    assert (facts.frequency_min_mhz, facts.frequency_max_mhz) == expected.mhz
    assert facts.temperature_c == 48.312
    assert facts.throttled == Throttled("0x0", (), ())
    assert facts.memory_total_mb == expected.total_kb // 1024
    assert facts.memory_available_mb == expected.available_kb // 1024
    assert (facts.cma_total_mb, facts.cma_free_mb) == (expected.cma_kb // 1024, expected.cma_kb // 2048)
    assert SERIAL not in msgspec.json.encode(facts).decode()


def test_an_empty_machine_says_nothing_and_raises_nothing(tmp_path: Path) -> None:
    facts = machine.read(tmp_path, lambda command, timeout_s=5.0, stdin="": CommandResult(None), userland_bits=32)
    known = {"board_id", "userland_bits", "python", "bittern", "runtime", "numpy", "opencv"}
    fields = msgspec.to_builtins(facts)
    assert {key for key, value in fields.items() if value is not None} <= known
    assert (facts.board_id, facts.userland_bits) == ("other", 32)


def test_this_machine() -> None:
    facts = machine.read()
    assert facts.architecture == platform.machine()
    assert facts.kernel == platform.release()
    assert facts.python == platform.python_version()
    assert facts.cores is not None
    assert facts.cores >= 1
    assert facts.memory_total_mb is not None
    assert facts.memory_available_mb is not None
    assert 0 < facts.memory_available_mb <= facts.memory_total_mb
    assert None not in (facts.runtime, facts.numpy, facts.opencv)
    assert msgspec.json.decode(msgspec.json.encode(facts), type=Machine) == facts


def test_reading_it_imports_nothing_heavy() -> None:
    program = "import sys; from bittern.system import machine; machine.read(); print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "cv2", "ai_edge_litert", "tflite_runtime"} & {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("model", "short"),
    [
        ("Raspberry Pi 500 Rev 1.0", "pi500"),
        ("Raspberry Pi Compute Module 5 Rev 1.0", "cm5"),
        ("Raspberry Pi 400 Rev 1.0", "pi400"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "cm4"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "pi3bplus"),
        ("Raspberry Pi 3 Model A Plus Rev 1.0", "pi3aplus"),
        ("Raspberry Pi 2 Model B Rev 1.1", "pi2b"),
        ("Raspberry Pi Zero W Rev 1.1", "zerow"),
        ("Raspberry Pi Zero Rev 1.3", "zero"),
        ("Raspberry Pi Model B Plus Rev 1.2", "pi1"),
        ("Raspberry Pi 6 Model B Rev 1.0", "other"),
        ("Radxa ROCK 5B", "other"),
        (None, "other"),
    ],
)
def test_short_names(model: str | None, short: str) -> None:
    assert machine.board_id(model) == short


def test_32_bits_on_a_64_bit_kernel(tmp_path: Path) -> None:
    fake = pi(tmp_path, "pi4", "bookworm")
    fake.answers["dpkg --print-architecture"] = CommandResult(0, "armhf\n")
    facts = machine.read(tmp_path, fake, userland_bits=32)
    assert (facts.kernel_bits, facts.userland_bits, facts.userland) == (64, 32, "armhf")


def test_a_32_bit_kernel_names_the_core_too(tmp_path: Path) -> None:
    fake = pi(tmp_path, "pi3b", "bookworm")
    fake.answers["uname -r -m"] = CommandResult(0, "6.6.51+rpt-rpi-v7 armv7l\n")
    text = (tmp_path / "proc/cpuinfo").read_text()
    fake.write("proc/cpuinfo", text.replace("BogoMIPS", "model name\t: ARMv7 Processor rev 4 (v7l)\nBogoMIPS"))
    facts = machine.read(tmp_path, fake, userland_bits=32)
    assert (facts.kernel_bits, facts.architecture, facts.cpu, facts.cores) == (32, "armv7l", "Cortex-A53", 4)


def test_under_voltage_now_and_heat_before() -> None:
    throttled = machine.decode_throttled(0x80001)
    assert throttled == Throttled("0x80001", ("under-voltage",), ("soft temperature limit",))


@given(st.integers(0, 0xFFFFFFFF))
def test_every_bit_is_one_flag(word: int) -> None:
    throttled = machine.decode_throttled(word)
    assert throttled.since_boot is not None
    assert len(throttled.now) == (word & 0xF).bit_count()
    assert len(throttled.since_boot) == (word >> 16 & 0xF).bit_count()


@pytest.mark.parametrize("folder", ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware"])
def test_without_vcgencmd_the_kernel_is_asked(tmp_path: Path, folder: str) -> None:
    fake = pi(tmp_path, "pi4", "bookworm")
    fake.answers["vcgencmd get_throttled"] = CommandResult(255, "", "Can't open device file: /dev/vcio\n")
    assert machine.throttled(tmp_path, fake) is None
    # The kernel's file has no 0x (drivers/firmware/raspberrypi.c) and no reliable history.
    fake.write(f"sys/devices/platform/{folder}/get_throttled", "1\n")
    assert machine.throttled(tmp_path, fake) == Throttled("0x1", ("under-voltage",), None)
    fake.write(f"sys/devices/platform/{folder}/get_throttled", "50005\n")
    now = ("under-voltage", "throttled")
    assert machine.throttled(tmp_path, fake) == Throttled("0x50005", now, now)


def test_the_processor_and_not_another_zone_is_the_temperature(tmp_path: Path) -> None:
    fake = pi(tmp_path, "pi5", "trixie")
    fake.write("sys/class/thermal/thermal_zone0/type", "rp1_adc\n")
    assert machine.temperature_c(tmp_path) is None
    fake.write("sys/class/thermal/thermal_zone1/type", "cpu-thermal\n")
    fake.write("sys/class/thermal/thermal_zone1/temp", "61000\n")
    assert machine.temperature_c(tmp_path) == 61.0


@given(st.binary(max_size=200))
def test_garbage_in_the_files_is_no_exception(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.mktemp("garbage")
    for name in ("proc/cpuinfo", "proc/meminfo", "etc/os-release", "etc/rpi-issue", "proc/device-tree/model"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    answer = CommandResult(0, data.decode(errors="replace"))
    machine.read(root, lambda command, timeout_s=5.0, stdin="": answer)
