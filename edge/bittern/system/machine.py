"""The machine signature: board, system, clock rate and versions that a figure was measured with."""

from __future__ import annotations

import platform
import re
import struct
import sys
from importlib import metadata
from pathlib import Path

import msgspec

from bittern.system.commands import Runner, run
from bittern.version import __version__

# Start of the device tree's model string, and a short name for the board; the first match wins.
_BOARDS = (
    ("Raspberry Pi 500", "pi500"),
    ("Raspberry Pi 5 ", "pi5"),
    ("Raspberry Pi Compute Module 5", "cm5"),
    ("Raspberry Pi 400", "pi400"),
    ("Raspberry Pi 4 ", "pi4"),
    ("Raspberry Pi Compute Module 4", "cm4"),
    ("Raspberry Pi 3 Model B Plus", "pi3bplus"),
    ("Raspberry Pi 3 Model A Plus", "pi3aplus"),
    ("Raspberry Pi 3 ", "pi3b"),
    ("Raspberry Pi Compute Module 3", "cm3"),
    ("Raspberry Pi Zero 2", "zero2w"),
    ("Raspberry Pi 2 ", "pi2b"),
    ("Raspberry Pi Zero W", "zerow"),
    ("Raspberry Pi Zero", "zero"),
    ("Raspberry Pi Model", "pi1"),
)
# "CPU part" of /proc/cpuinfo for "CPU implementer" 0x41 (Arm), from the Main ID registers of Arm's manuals.
_ARM_PARTS = {
    "0xb76": "ARM1176",
    "0xc07": "Cortex-A7",
    "0xd03": "Cortex-A53",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
}
# Bits of `vcgencmd get_throttled`: the present state, and 16 bits higher whether it ever occurred since boot (Raspberry
# Pi documentation, "vcgencmd").
THROTTLED_BITS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
_OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")


class Throttled(msgspec.Struct, frozen=True):
    """The Pi firmware's state of power and heat.

    Attributes:
        raw: the firmware's value, such as "0x50005".
        now: the conditions among "under-voltage", "frequency capped", "throttled" and "soft temperature limit" that
            hold now.
        since_boot: the conditions that ever held since boot; None if unknown.
    """

    raw: str
    now: tuple[str, ...]
    since_boot: tuple[str, ...] | None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine; None for everything unknown. Contains nothing that identifies the owner.

    Attributes:
        board: the device tree's model, "Raspberry Pi 4 Model B Rev 1.4".
        board_id: a short name for it, "pi4"; "other" for anything but a Raspberry Pi.
        architecture: architecture of the kernel, from `uname -m`: "aarch64", "armv7l", "x86_64".
        kernel_bits: 64 or 32.
        userland_bits: 64 or 32, of the running Python.
        userland: Debian's name for the architecture of its packages, "arm64", "armhf", "amd64".
        os: pretty name of the operating system.
        codename: "bookworm", "trixie".
        os_image: the image that the card was written from, "Raspberry Pi reference 2025-05-13".
        kernel: release of the kernel.
        cpu: model of the processor.
        cores: number of cores in use.
        governor: the kernel's CPU frequency governor.
        frequency_mhz: the current clock rate, as seen by the governor.
        frequency_min_mhz: the lowest clock rate that the governor may choose.
        frequency_max_mhz: the highest clock rate that the governor may choose.
        temperature_c: temperature of the processor, °C.
        throttled: power and heat, on a Raspberry Pi.
        memory_total_mb: memory in MB of 2**20 bytes, without the GPU's share.
        memory_available_mb: memory that is available to programs, in MB.
        cma_total_mb: contiguous memory, which cameras need for their buffers, in MB.
        cma_free_mb: contiguous memory that is free, in MB.
        python: version of Python.
        bittern: version of Bittern.
        runtime: distribution and version, "ai-edge-litert 2.3.0".
        numpy: version of numpy.
        opencv: version of OpenCV.
    """

    board: str | None = None
    board_id: str = "other"
    architecture: str | None = None
    kernel_bits: int | None = None
    userland_bits: int
    userland: str | None = None
    os: str | None = None
    codename: str | None = None
    os_image: str | None = None
    kernel: str | None = None
    cpu: str | None = None
    cores: int | None = None
    governor: str | None = None
    frequency_mhz: int | None = None
    frequency_min_mhz: int | None = None
    frequency_max_mhz: int | None = None
    temperature_c: float | None = None
    throttled: Throttled | None = None
    memory_total_mb: int | None = None
    memory_available_mb: int | None = None
    cma_total_mb: int | None = None
    cma_free_mb: int | None = None
    python: str
    bittern: str
    runtime: str | None = None
    numpy: str | None = None
    opencv: str | None = None


def read(root: Path = Path("/"), runner: Runner = run, userland_bits: int = 8 * struct.calcsize("P")) -> Machine:
    """Read the signature of this machine. Takes about ten milliseconds and imports neither numpy nor OpenCV.

    Args:
        root: the folder that contains `proc`, `sys` and `etc`.
        runner: runs uname, dpkg, dpkg-query and vcgencmd.
        userland_bits: 64 or 32, of the running Python.
    """
    board = text(root / "proc/device-tree/model")
    uname = runner(("uname", "-r", "-m"))
    kernel, _, architecture = uname.out.strip().partition(" ") if uname.code == 0 else ("", "", "")
    os_release = _assignments(text(root / "etc/os-release") or text(root / "usr/lib/os-release") or "")
    image = text(root / "etc/rpi-issue")
    cpu, cores = _processor(text(root / "proc/cpuinfo") or "")
    memory = _memory_mb(text(root / "proc/meminfo") or "")
    policy = root / "sys/devices/system/cpu/cpufreq/policy0"
    return Machine(
        board=board,
        board_id=board_id(board),
        architecture=architecture or None,
        kernel_bits=(64 if "64" in architecture or architecture == "armv8l" else 32) if architecture else None,
        userland_bits=userland_bits,
        userland=_first_line(runner, "dpkg", "--print-architecture"),
        os=os_release.get("PRETTY_NAME"),
        codename=os_release.get("VERSION_CODENAME"),
        os_image=image.splitlines()[0] if image else None,
        kernel=kernel or None,
        cpu=cpu,
        cores=cores,
        governor=text(policy / "scaling_governor"),
        frequency_mhz=_mhz(policy / "scaling_cur_freq"),
        frequency_min_mhz=_mhz(policy / "scaling_min_freq"),
        frequency_max_mhz=_mhz(policy / "scaling_max_freq"),
        temperature_c=temperature_c(root),
        throttled=throttled(root, runner),
        memory_total_mb=memory.get("MemTotal"),
        memory_available_mb=memory.get("MemAvailable"),
        cma_total_mb=memory.get("CmaTotal"),
        cma_free_mb=memory.get("CmaFree"),
        python=platform.python_version(),
        bittern=__version__,
        runtime=_runtime(),
        numpy=_version("numpy"),
        opencv=_opencv(runner),
    )


def board_id(board: str | None) -> str:
    """The short name of a device tree's model string."""
    return next((name for start, name in _BOARDS if board is not None and board.startswith(start)), "other")


def temperature_c(root: Path = Path("/")) -> float | None:
    """Temperature of the processor in °C, from its thermal zone in the kernel; None if there is none."""
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*"))
    for zone_type in ("cpu-thermal", "cpu_thermal", "x86_pkg_temp"):
        for zone in zones:
            if text(zone / "type") == zone_type and (millidegrees := _integer(zone / "temp")) is not None:
                return millidegrees / 1000
    return None


def frequency_mhz(root: Path = Path("/")) -> int | None:
    """The current clock rate of the first core in MHz, as seen by the governor; None if it is not scaled."""
    return _mhz(root / "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq")


def throttled(root: Path = Path("/"), runner: Runner = run) -> Throttled | None:
    """State of power and heat from a Raspberry Pi's firmware; None on other machines and if it does not answer.

    `vcgencmd` needs the group video. The file in /sys of Raspberry Pi OS kernels does not, but its driver clears the
    history every two seconds: conditions that it does not report may have occurred nevertheless.
    """
    answer = runner(("vcgencmd", "get_throttled"))
    if match := re.fullmatch(r"throttled=0x([0-9a-fA-F]{1,8})", answer.out.strip()):
        return decode_throttled(int(match[1], 16))
    files = sorted(root.glob("sys/devices/platform/soc*/*firmware/get_throttled"))
    if match := re.fullmatch(r"([0-9a-fA-F]{1,8})", next(filter(None, map(text, files)), "")):
        state = decode_throttled(int(match[1], 16))
        return msgspec.structs.replace(state, since_boot=state.since_boot or None)
    return None


def decode_throttled(value: int) -> Throttled:
    """Decode the bits of the firmware's value."""
    return Throttled(
        raw=hex(value),
        now=tuple(name for bit, name in enumerate(THROTTLED_BITS) if value >> bit & 1),
        since_boot=tuple(name for bit, name in enumerate(THROTTLED_BITS) if value >> (bit + 16) & 1),
    )


def text(file: Path) -> str | None:
    """Contents of a file of /proc, /sys or /etc, without white space (and a device tree's zero bytes) at the ends.

    None for a file that is missing, unreadable or empty.
    """
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip(" \t\n\0") or None
    except OSError:  # also raised by a driver that cannot answer now
        return None


def _integer(file: Path) -> int | None:
    content = text(file)
    return int(content) if content is not None and re.fullmatch(r"-?[0-9]+", content) else None


def _mhz(file: Path) -> int | None:
    khz = _integer(file)
    return round(khz / 1000) if khz is not None else None


def _first_line(runner: Runner, *command: str) -> str | None:
    result = runner(command)
    return result.out.strip().partition("\n")[0] or None if result.code == 0 else None


def _assignments(lines: str) -> dict[str, str]:
    """Parse the lines KEY="value" of an os-release file."""
    pairs = (line.partition("=") for line in lines.splitlines() if not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, equals, value in pairs if equals}


def _processor(cpuinfo: str) -> tuple[str | None, int | None]:
    """Model and number of cores. A 64-bit kernel on ARM has only part numbers; serial numbers are not read."""
    cores = len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None
    part = re.search(r"^CPU implementer\s*:\s*0x41$(?:.*\n)*?^CPU part\s*:\s*(0x[0-9a-f]+)$", cpuinfo, re.MULTILINE)
    model = re.search(r"^model name\s*:\s*(.+?)\s*$", cpuinfo, re.MULTILINE)
    if part is not None:
        return _ARM_PARTS.get(part[1], f"Arm part {part[1]}"), cores
    return model[1] if model is not None else None, cores


def _memory_mb(meminfo: str) -> dict[str, int]:
    return {key: int(kb) // 1024 for key, kb in re.findall(r"^(\w+):\s+([0-9]+) kB$", meminfo, re.MULTILINE)}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _runtime() -> str | None:
    # Not from bittern.model.runtime, which would import the runtime.
    for name in ("ai-edge-litert", "tflite-runtime"):
        if (version := _version(name)) is not None:
            return f"{name} {version}"
    return None


def _opencv(runner: Runner) -> str | None:
    """OpenCV's version: of the loaded module, else of pip's package, else of Debian's (which has no metadata)."""
    loaded = getattr(sys.modules.get("cv2"), "__version__", None)
    installed = next(filter(None, map(_version, _OPENCV)), None)
    return loaded or installed or _first_line(runner, "dpkg-query", "-W", "-f", "${Version}", "python3-opencv")
