"""Faked Raspberry Pis: the files of /proc, /sys and /etc that Bittern reads, and what commands answer there.

Not taken from boards of ours. The contents are those of reports in public issue trackers: /proc/cpuinfo of a Pi 4 and a
Pi 5 (nicolargo/glances#2616), /proc/meminfo of a Zero 2 W on trixie (raspberrypi/picamera2#1358), contiguous memory of
a Pi 4 (picamera2#972), of a Pi 3B (raspberrypi/linux#5621) and of a Pi 5 (geerlingguy/raspberry-pi-pcie-devices#712),
clock rates of a Pi 5 (raspberrypi/linux#5876); the rest as Raspberry Pi's documentation describes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bittern.doctor.examine import Examination, examine
from bittern.doctor.findings import Finding
from bittern.system.commands import CommandResult

PYTHON = "/opt/bittern/current/venv/bin/python"
SERIAL = "10000000ab12cd34"  # of cpuinfo; made up
SHA256 = "fab3f094ee00c13889459c59d15b06d56ea43cabf3ef16bf9b337e5b75a92420"


class Board(NamedTuple):
    model: str
    cpu: str
    part: str
    revision: str
    total_kb: int
    available_kb: int
    cma_kb: int
    mhz: tuple[int, int]
    kernel: str
    camera: str


BOARDS = {
    "zero2w": Board(
        *("Raspberry Pi Zero 2 W Rev 1.0", "Cortex-A53", "0xd03", "902120", 426068, 288756, 262144, (600, 1000)),
        *("rpi-v8", "imx477"),
    ),
    "pi3b": Board(
        *("Raspberry Pi 3 Model B Rev 1.2", "Cortex-A53", "0xd03", "a02082", 929200, 672348, 262144, (600, 1200)),
        *("rpi-v8", "imx219"),
    ),
    "pi4": Board(
        *("Raspberry Pi 4 Model B Rev 1.5", "Cortex-A72", "0xd08", "d03115", 3884360, 3420556, 524288, (600, 1800)),
        *("rpi-v8", "imx708"),
    ),
    "pi5": Board(
        *("Raspberry Pi 5 Model B Rev 1.0", "Cortex-A76", "0xd0b", "d04170", 8256048, 7713744, 65536, (1500, 2400)),
        *("rpi-2712", "imx708"),
    ),
}


class System(NamedTuple):
    version: int
    image: str
    kernel: str
    python: str
    numpy: str
    opencv: str


SYSTEMS = {
    "bookworm": System(12, "2024-11-19", "6.6.51+rpt", "3.11.2", "1.24.2", "4.6.0"),
    "trixie": System(13, "2025-10-01", "6.12.62+rpt", "3.13.5", "2.2.4", "4.10.0"),
}
PACKAGES = "/usr/lib/python3/dist-packages"
CONFIG = """# Enable audio (loads snd_bcm2835)
dtparam=audio=on
camera_auto_detect=1
display_auto_detect=1
auto_initramfs=1
dtoverlay=vc4-kms-v3d
max_framebuffers=2
disable_fw_kms_setup=1
arm_64bit=1
"""


def step(name: str, result: dict[str, Any] | None = None, error: str | None = None) -> list[str]:
    """The lines of a probe for one step; begun only, if there is neither."""
    lines = [{"step": name}]
    if result is not None:
        lines.append({"step": name, "result": result})  # type: ignore[dict-item]
    elif error is not None:
        lines.append({"step": name, "error": error})
    return [json.dumps(line) for line in lines]


@dataclass
class Pi:
    """One faked machine below a folder; a healthy one until a test spoils it."""

    root: Path
    board: Board
    system: System

    def __post_init__(self) -> None:
        board, system = self.board, self.system
        codename = next(name for name, s in SYSTEMS.items() if s == system)
        self.write("proc/device-tree/model", board.model + "\0")
        core = (
            "BogoMIPS\t: 38.40\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
            f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {board.part}\nCPU revision\t: 4\n\n"
        )
        tail = f"Revision\t: {board.revision}\nSerial\t\t: {SERIAL}\nModel\t\t: {board.model}\n"
        self.write("proc/cpuinfo", "".join(f"processor\t: {i}\n{core}" for i in range(4)) + tail)
        self.memory(board.available_kb, board.cma_kb)
        self.write("proc/self/mounts", "/dev/mmcblk0p2 / ext4 rw,noatime 0 0\nproc /proc proc rw,relatime 0 0\n")
        self.write("proc/812/cmdline", "/usr/sbin/sshd\0-D\0")
        policy = "sys/devices/system/cpu/cpufreq/policy0"
        self.write(f"{policy}/scaling_governor", "ondemand\n")
        self.write(f"{policy}/scaling_cur_freq", f"{board.mhz[0] * 1000}\n")
        self.write(f"{policy}/scaling_min_freq", f"{board.mhz[0] * 1000}\n")
        self.write(f"{policy}/scaling_max_freq", f"{board.mhz[1] * 1000}\n")
        self.write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
        self.write("sys/class/thermal/thermal_zone0/temp", "48312\n")
        self.write(
            "etc/os-release",
            f'PRETTY_NAME="Debian GNU/Linux {system.version} ({codename})"\nNAME="Debian GNU/Linux"\n'
            f'VERSION_ID="{system.version}"\nVERSION_CODENAME={codename}\nID=debian\n',
        )
        self.write("etc/rpi-issue", f"Raspberry Pi reference {system.image}\nGenerated using pi-gen, stage2\n")
        self.write("boot/firmware/config.txt", CONFIG)
        self.write("usr/bin/vcgencmd", "")
        (self.root / "var/lib/bittern").mkdir(parents=True)
        for module in ("numpy", "cv2.so", "picamera2"):
            self.write(f"{PACKAGES[1:]}/{module}", "")
        venv = PYTHON.removesuffix("/bin/python")
        self.software: dict[str, list[str]] = {
            "python": step(
                "python",
                {
                    "prefix": venv,
                    "base_prefix": "/usr",
                    "picamera2": f"{PACKAGES}/picamera2/__init__.py",
                    "opencv_wheels": [],
                },
            ),
            "numpy": step("numpy", {"version": system.numpy, "file": f"{PACKAGES}/numpy/__init__.py"}),
            "cv2": step("cv2", {"version": system.opencv, "file": f"{PACKAGES}/cv2.abi3.so"}),
            "simplejpeg": step("simplejpeg", {"version": "1.8.1", "file": f"{PACKAGES}/simplejpeg/__init__.py"}),
            "runtime": step("runtime", {"distribution": "ai-edge-litert", "version": "2.3.0"}),
            "models": step("models", {"stop_sign": "/opt/bittern/current/models/stop_sign"}),
            "file": step(
                "file stop_sign",
                {
                    "file": "model.tflite",
                    "version": "1",
                    "sha256": SHA256,
                    "expected": SHA256,
                    "recorded_with": ["ai-edge-litert==2.3.0"],
                },
            ),
            "path": step("path stop_sign", {"path": "xnnpack"}),
            "golden": step("golden stop_sign", {"path": "xnnpack", "tasks": ["stop_sign"]}),
        }
        self.camera: dict[str, list[str]] = {
            "open": step("open", {"name": "picamera:0", "scheme": "picamera", "live": True, "format": "RGB888"}),
            "frame": step("frame", {"width": 640, "height": 480, "order": "BGR"}),
        }
        self.ends: dict[str, tuple[int | None, str]] = {}  # exit code and stderr of a probe
        self.answers: dict[str, CommandResult] = {
            "uname -r -m": CommandResult(0, f"{system.kernel}-{board.kernel} aarch64\n"),
            "dpkg --print-architecture": CommandResult(0, "arm64\n"),
            "dpkg-query -W -f ${Version} python3-opencv": CommandResult(0, f"{system.opencv}+dfsg-5"),
            f"dpkg -S {PACKAGES}/numpy/__init__.py": CommandResult(0, f"python3-numpy: {PACKAGES}/numpy/__init__.py\n"),
            f"dpkg -S {PACKAGES}/cv2.abi3.so": CommandResult(0, f"python3-opencv:arm64: {PACKAGES}/cv2.abi3.so\n"),
            "vcgencmd get_throttled": CommandResult(0, "throttled=0x0\n"),
            "timedatectl show -p NTPSynchronized --value": CommandResult(0, "yes\n"),
        }
        self.free(21034)

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def memory(self, available_kb: int, cma_kb: int) -> None:
        self.write(
            "proc/meminfo",
            f"MemTotal:       {self.board.total_kb:>8} kB\nMemFree:          193640 kB\n"
            f"MemAvailable:   {available_kb:>8} kB\n"
            f"CmaTotal:       {cma_kb:>8} kB\nCmaFree:        {cma_kb // 2:>8} kB\n",
        )

    def free(self, mb: int) -> None:
        line = f"/dev/mmcblk0p2        29500   6800     {mb}  25% /\n"
        self.answers["df -P -m / /var/lib/bittern"] = CommandResult(
            0, "Filesystem     1048576-blocks  Used Available Capacity Mounted on\n" + line + line
        )

    def __call__(self, command: Sequence[str], timeout_s: float = 5.0, stdin: str = "") -> CommandResult:
        """Answer as a shell on that machine would; what nobody prepared is not there."""
        if tuple(command[:3]) == (PYTHON, "-P", "-m"):
            name = command[3].removeprefix("bittern.doctor.")
            steps = {"probe_software": self.software, "probe_camera": self.camera}[name]
            code, err = self.ends.get(name, (0, ""))
            return CommandResult(code, "\n".join(line for lines in steps.values() for line in lines) + "\n", err)
        return self.answers.get(" ".join(command), CommandResult(None, err=f"{command[0]}: No such file or directory"))


def pi(root: Path, board: str, system: str) -> Pi:
    """A healthy machine."""
    return Pi(root, BOARDS[board], SYSTEMS[system])


def look(fake: Pi, source: str | None = None, *, red: bool = False) -> Examination:
    """What the doctor finds on that machine."""
    return examine(source, red=red, root=fake.root, runner=fake, python=PYTHON)


def finding_of(examination: Examination, check: str) -> Finding:
    """The one finding of a check."""
    (finding,) = [f for f in examination.checks if f.check == check]
    return finding
