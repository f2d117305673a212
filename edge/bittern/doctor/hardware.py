"""Checks of the machine itself: board, system, clock rate, power, heat, disk, memory, time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bittern.doctor.findings import Finding, failure, ok, skipped, warning
from bittern.system import machine
from bittern.system.commands import Runner
from bittern.system.machine import Machine

NEW_CARD = "write a new card with Raspberry Pi Imager: Raspberry Pi OS Lite (64-bit)"
CONFIG = "/boot/firmware/config.txt"  # since bookworm
_SUPPORTED = ("bookworm", "trixie")
_ARMV6 = ("zero", "zerow", "pi1")
_STATE = "/var/lib/bittern"
_GOVERNOR = "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
# The firmware lowers the clock rate from 80 °C (Raspberry Pi documentation, "Frequency management and thermal
# control").
_HOT_C = 80.0
# Raspberry Pi documentation, "Power supply"; the others need 2.5 A at most.
_SUPPLIES = {"pi5": "5 V, 5 A", "pi500": "5 V, 5 A", "pi4": "5 V, 3 A", "pi400": "5 V, 3 A"}
# SQLite, the journal and apt fail on a full disk; a release with its virtual environment takes about 150 MB.
_DISK_FAILURE_MB, _DISK_WARNING_MB = 50, 500
# The loop with three models may take 150 MB.
_MEMORY_MB = 150
# Four pictures and four raw buffers of Camera Module 3 in a full-field sensor mode, with some reserve.
_CMA_MB = 64
# Boards whose camera pipeline needs contiguous memory for its buffers; a Pi 5 has an IOMMU instead.
_CMA_BOARDS = ("zero2w", "pi2b", "pi3b", "pi3aplus", "pi3bplus", "cm3", "pi4", "pi400", "cm4")


def is_pi(signature: Machine) -> bool:
    """Whether the machine is a Raspberry Pi."""
    return signature.board is not None and signature.board.startswith("Raspberry Pi")


def check(root: Path, runner: Runner, signature: Machine) -> list[Finding]:
    """All checks of this module."""
    return [
        _board(signature),
        _bits(signature),
        _system(signature),
        _governor(signature),
        _power(root, signature),
        _heat(signature),
        _disk(root, runner, signature),
        _memory(root, signature),
        _time(runner),
    ]


def _board(signature: Machine) -> Finding:
    processor = f"{signature.cpu or signature.architecture or 'unknown processor'}, {signature.cores or '?'} cores"
    if not is_pi(signature):
        name = signature.board or signature.architecture or "unknown"
        return ok("board", f"not a Raspberry Pi: {name}, {processor}")
    if signature.board_id in _ARMV6:
        return failure("board", f"{signature.board}: there is no runtime for ARMv6", "use a Pi Zero 2 W, 2 or newer")
    return ok("board", f"{signature.board} ({signature.board_id}), {processor}")


def _bits(signature: Machine) -> Finding:
    if signature.kernel_bits is None:
        return skipped("bitness", "uname does not answer")
    summary = f"kernel {signature.kernel_bits} bit ({signature.architecture}), Python {signature.userland_bits} bit"
    if signature.kernel_bits != signature.userland_bits:
        # pip goes by the kernel and installs wheels of the wrong architecture.
        fix = f"echo arm_64bit=0 | sudo tee -a {CONFIG} && sudo reboot"
        return failure(
            "bitness", f"{summary}: pip installs for the wrong architecture", f"{fix}   (or better, {NEW_CARD})"
        )
    return ok("bitness", summary)


def _system(signature: Machine) -> Finding:
    if signature.os is None:
        return skipped("system", "there is no /etc/os-release")
    summary = f"{signature.os}, kernel {signature.kernel or '?'}, Python {signature.python}"
    if is_pi(signature) and signature.userland_bits == 32 and signature.codename != "bookworm":
        return failure("system", f"{summary}: the only runtime for 32 bit is for bookworm", NEW_CARD)
    if is_pi(signature) and signature.codename not in _SUPPORTED:
        return warning("system", f"{summary}: Bittern supports {' and '.join(_SUPPORTED)}", NEW_CARD)
    return ok("system", summary)


def _governor(signature: Machine) -> Finding:
    if signature.governor is None:
        return skipped("governor", "the kernel does not scale this processor's clock rate")
    summary = (
        f"{signature.governor}: {signature.frequency_mhz} MHz of "
        f"{signature.frequency_min_mhz} to {signature.frequency_max_mhz}"
    )
    if signature.governor == "powersave":
        # Takes effect now and at every boot; the package for this differs between bookworm and trixie.
        fix = (
            f"echo 'w {_GOVERNOR} - - - - ondemand' | sudo tee /etc/tmpfiles.d/governor.conf "
            "&& sudo systemd-tmpfiles --create governor.conf"
        )
        return warning("governor", f"{summary}: always the lowest clock rate", fix)
    return ok("governor", summary)


def _power(root: Path, signature: Machine) -> Finding:
    throttled = signature.throttled
    if throttled is None:
        if not is_pi(signature):
            return skipped("power", "not a Raspberry Pi: no information")
        if (root / "usr/bin/vcgencmd").exists():
            return warning(
                "power", "vcgencmd may not query the firmware", "sudo usermod -aG video $USER   (then log in again)"
            )
        return warning("power", "vcgencmd is missing: cannot detect under-voltage", "sudo apt install -y raspi-utils")
    supply = _SUPPLIES.get(signature.board_id, "5 V, 2.5 A")
    fix = f"use Raspberry Pi's own power supply ({supply}) and a short cable, then: sudo reboot; vcgencmd get_throttled"
    if "under-voltage" in throttled.now:
        return failure("power", f"under-voltage now ({throttled.raw}): it damages cards and makes cameras fail", fix)
    if throttled.since_boot is None:
        return ok("power", f"no under-voltage now; unknown since boot ({throttled.raw})")
    if "under-voltage" in throttled.since_boot:
        return warning("power", f"under-voltage occurred since boot ({throttled.raw})", fix)
    return ok("power", f"no under-voltage since boot ({throttled.raw})")


def _heat(signature: Machine) -> Finding:
    if signature.temperature_c is None and signature.throttled is None:
        return skipped("heat", "no information")
    degrees = f"{signature.temperature_c:.0f} °C" if signature.temperature_c is not None else "temperature unknown"
    fix = "add a heat sink or a fan, and let air reach the case; then, under load: vcgencmd measure_temp   (below 80)"
    throttled = signature.throttled
    if throttled is not None:
        for when, flags in (("now", throttled.now), ("since boot", throttled.since_boot or ())):
            # Under-voltage throttles too; the check of the power supply reports that.
            slowed = [f for f in flags if f == "soft temperature limit" or "under-voltage" not in flags]
            if slowed:
                return warning("heat", f"{degrees}; {when}: {', '.join(slowed)} ({throttled.raw})", fix)
    if signature.temperature_c is not None and signature.temperature_c >= _HOT_C:
        return warning("heat", f"{degrees}: the clock rate is lowered from {_HOT_C:.0f} °C", fix)
    return ok("heat", f"{degrees}, not throttled" if throttled is not None else degrees)


def _disk(root: Path, runner: Runner, signature: Machine) -> Finding:
    folders = ["/", *([_STATE] if (root / _STATE.lstrip("/")).is_dir() else [])]
    mounts = _mounts(machine.text(root / "proc/self/mounts") or "")
    for folder in folders:
        point, kind, options = _mount_of(folder, mounts)
        if "ro" in options:
            fix = (
                f"sudo mount -o remount,rw {point}; sudo dmesg | grep -iE 'mmc|ext4'   (if it shows errors: a new card)"
            )
            return failure("disk", f"{point} is mounted read-only: after card errors, or by /etc/fstab", fix)
        if kind == "overlay" and point == "/" and is_pi(signature):
            fix = "sudo raspi-config nonint do_overlayfs 1 && sudo reboot"
            return warning("disk", "/ is an overlay in memory: all changes are lost at the next boot", fix)
    result = runner(("df", "-P", "-m", *folders))
    free = {line[5]: int(line[3]) for line in map(str.split, result.out.splitlines()[1:]) if len(line) >= 6}
    if not free:
        return skipped("disk", f"df does not answer: {' '.join(result.err.split()) or result.code}")
    point, least = min(free.items(), key=lambda item: item[1])
    summary = ", ".join(f"{p} has {mb} MB free" for p, mb in free.items())
    fix = "sudo apt clean && sudo journalctl --vacuum-size=50M; ls /opt/bittern/releases   (remove old ones)"
    if least < _DISK_FAILURE_MB:
        return failure("disk", f"{summary}: {point} is full", fix)
    if least < _DISK_WARNING_MB:
        return warning("disk", f"{summary}: not much for another release", fix)
    return ok("disk", summary)


def _mounts(text: str) -> list[tuple[str, str, list[str]]]:
    """Mount point, type and options of every line of /proc/self/mounts."""
    lines = [line.split() for line in text.splitlines()]
    return [(fields[1], fields[2], fields[3].split(",")) for fields in lines if len(fields) >= 4]


def _mount_of(folder: str, mounts: Iterable[tuple[str, str, list[str]]]) -> tuple[str, str, list[str]]:
    """The mount that contains a folder; the last one if several have the same mount point."""
    best: tuple[str, str, list[str]] = ("/", "", [])
    for mount in mounts:
        inside = folder == mount[0] or folder.startswith(mount[0].rstrip("/") + "/")
        if inside and len(mount[0]) >= len(best[0]):
            best = mount
    return best


def _memory(root: Path, signature: Machine) -> Finding:
    if signature.memory_available_mb is None:
        return skipped("memory", "no information in /proc/meminfo")
    summary = f"{signature.memory_available_mb} of {signature.memory_total_mb} MB available"
    if signature.cma_total_mb:
        summary += f", {signature.cma_free_mb} of {signature.cma_total_mb} MB contiguous for the camera"
    if signature.memory_available_mb < _MEMORY_MB:
        fix = "ps -eo rss,comm --sort=-rss | head"
        return warning("memory", f"{summary}: the daemon needs up to {_MEMORY_MB} MB", fix)
    if signature.board_id in _CMA_BOARDS and signature.cma_total_mb is not None and signature.cma_total_mb < _CMA_MB:
        # The display driver's overlay sets the size; a second line for it would be ignored.
        overlay = "dtoverlay=vc4-kms-v3d"
        if overlay in (machine.text(root / CONFIG.lstrip("/")) or ""):
            fix = f"sudo sed -i 's/^{overlay}.*/{overlay},cma-128/' {CONFIG} && sudo reboot"
        else:
            fix = f"echo {overlay},cma-128 | sudo tee -a {CONFIG} && sudo reboot"
        return warning("memory", f"{summary}: too little for the pictures of a large sensor", fix)
    return ok("memory", summary)


def _time(runner: Runner) -> Finding:
    result = runner(("timedatectl", "show", "-p", "NTPSynchronized", "--value"))
    synchronized = result.out.strip()
    if result.code != 0 or synchronized not in ("yes", "no"):
        reason = " ".join(result.err.split()) or synchronized or result.code
        return skipped("clock", f"timedatectl does not answer: {reason}")
    if synchronized == "no":
        fix = "sudo timedatectl set-ntp true; timedatectl timesync-status   (no server? check the internet connection)"
        return warning(
            "clock", "not synchronized: a Pi boots with the time of its last shutdown, which then jumps", fix
        )
    return ok("clock", "synchronized with a time server")
