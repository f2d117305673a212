"""Checks of the machine itself: board, system, clock rate, power, heat, disk, memory, time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bittern.doctor.findings import Finding, failure, ok, skipped, warning
from bittern.system import machine
from bittern.system.commands import Runner
from bittern.system.machine import Machine

NEW_CARD = "write the card anew with Raspberry Pi Imager: Raspberry Pi OS Lite (64-bit)"
CONFIG = "/boot/firmware/config.txt"  # since bookworm
_TRIED = ("bookworm", "trixie")
_ARMV6 = ("zero", "zerow", "pi1")
_STATE = "/var/lib/bittern"
_GOVERNOR = "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
# The firmware lowers the clock from 80 °C on (Raspberry Pi documentation, "Frequency management and thermal control").
_HOT_C = 80.0
# Raspberry Pi documentation, "Power supply"; the others need 2.5 A at most.
_SUPPLIES = {"pi5": "5 V, 5 A", "pi500": "5 V, 5 A", "pi4": "5 V, 3 A", "pi400": "5 V, 3 A"}
# SQLite, the journal and apt fail on a full disk; a release with its virtual environment takes some 150 MB.
_DISK_FAILURE_MB, _DISK_WARNING_MB = 50, 500
# The loop with three models may take 150 MB.
_MEMORY_MB = 150
# Four pictures and four raw buffers of a sensor mode with the full view of a camera module 3, and some more.
_CMA_MB = 64
# Boards whose camera pipeline takes its buffers from the contiguous memory; a Pi 5 has an IOMMU instead.
_CMA_BOARDS = ("zero2w", "pi2b", "pi3b", "pi3aplus", "pi3bplus", "cm3", "pi4", "pi400", "cm4")


def is_pi(found: Machine) -> bool:
    """Whether the machine is a Raspberry Pi."""
    return found.board is not None and found.board.startswith("Raspberry Pi")


def check(root: Path, runner: Runner, found: Machine) -> list[Finding]:
    """All checks of this module."""
    return [
        _board(found),
        _bits(found),
        _system(found),
        _governor(found),
        _power(root, found),
        _heat(found),
        _disk(root, runner, found),
        _memory(root, found),
        _time(runner),
    ]


def _board(found: Machine) -> Finding:
    processor = f"{found.cpu or found.architecture or 'unknown processor'}, {found.cores or '?'} cores"
    if not is_pi(found):
        return ok("board", f"no Raspberry Pi: {found.board or found.architecture or 'unknown'}, {processor}")
    if found.board_id in _ARMV6:
        return failure("board", f"{found.board}: ARMv6, for which there is no runtime", "use a Pi Zero 2 W, 2 or newer")
    return ok("board", f"{found.board} ({found.board_id}), {processor}")


def _bits(found: Machine) -> Finding:
    if found.kernel_bits is None:
        return skipped("bitness", "uname does not answer")
    said = f"kernel {found.kernel_bits} bit ({found.architecture}), Python {found.userland_bits} bit"
    if found.kernel_bits != found.userland_bits:
        # pip asks the kernel, and takes wheels of the wrong kind.
        fix = f"echo arm_64bit=0 | sudo tee -a {CONFIG} && sudo reboot"
        return failure("bitness", f"{said}: pip installs for the wrong one", f"{fix}   (or better, {NEW_CARD})")
    return ok("bitness", said)


def _system(found: Machine) -> Finding:
    if found.os is None:
        return skipped("system", "there is no /etc/os-release")
    said = f"{found.os}, kernel {found.kernel or '?'}, Python {found.python}"
    if is_pi(found) and found.userland_bits == 32 and found.codename != "bookworm":
        return failure("system", f"{said}: for 32 bits there is a runtime on bookworm only", NEW_CARD)
    if is_pi(found) and found.codename not in _TRIED:
        return warning("system", f"{said}: Bittern knows {' and '.join(_TRIED)}", NEW_CARD)
    return ok("system", said)


def _governor(found: Machine) -> Finding:
    if found.governor is None:
        return skipped("governor", "the kernel does not scale the clock of this processor")
    said = f"{found.governor}: {found.frequency_mhz} MHz of {found.frequency_min_mhz} to {found.frequency_max_mhz}"
    if found.governor == "powersave":
        # Both now and after every start; the packages that did this differ between bookworm and trixie.
        fix = (
            f"echo 'w {_GOVERNOR} - - - - ondemand' | sudo tee /etc/tmpfiles.d/governor.conf "
            "&& sudo systemd-tmpfiles --create governor.conf"
        )
        return warning("governor", f"{said}: always the lowest clock", fix)
    return ok("governor", said)


def _power(root: Path, found: Machine) -> Finding:
    said = found.throttled
    if said is None:
        if not is_pi(found):
            return skipped("power", "no Raspberry Pi: nothing says so here")
        if (root / "usr/bin/vcgencmd").exists():
            return warning(
                "power", "vcgencmd may not ask the firmware", "sudo usermod -aG video $USER   (then log in again)"
            )
        return warning("power", "vcgencmd is missing: under-voltage is not seen", "sudo apt install -y raspi-utils")
    supply = _SUPPLIES.get(found.board_id, "5 V, 2.5 A")
    fix = f"use Raspberry Pi's own power supply ({supply}) and a short cable, then: sudo reboot; vcgencmd get_throttled"
    if "under-voltage" in said.now:
        return failure("power", f"under-voltage now ({said.raw}): cards get damaged, cameras drop out", fix)
    if said.since_boot is None:
        return ok("power", f"no under-voltage now; since the start not known ({said.raw})")
    if "under-voltage" in said.since_boot:
        return warning("power", f"there was under-voltage since the start ({said.raw})", fix)
    return ok("power", f"no under-voltage since the start ({said.raw})")


def _heat(found: Machine) -> Finding:
    if found.temperature_c is None and found.throttled is None:
        return skipped("heat", "nothing says so here")
    at = f"{found.temperature_c:.0f} °C" if found.temperature_c is not None else "temperature unknown"
    fix = "a heat sink or a fan, and air around the case; then, under load: vcgencmd measure_temp   (below 80)"
    if found.throttled is not None:
        for when, flags in (("now", found.throttled.now), ("since the start", found.throttled.since_boot or ())):
            # Under-voltage throttles too: then it is the power supply's, above.
            slowed = [f for f in flags if f == "soft temperature limit" or "under-voltage" not in flags]
            if slowed:
                return warning("heat", f"{at}; {when}: {', '.join(slowed)} ({found.throttled.raw})", fix)
    if found.temperature_c is not None and found.temperature_c >= _HOT_C:
        return warning("heat", f"{at}: from {_HOT_C:.0f} °C on the clock is lowered", fix)
    return ok("heat", f"{at}, not throttled" if found.throttled is not None else at)


def _disk(root: Path, runner: Runner, found: Machine) -> Finding:
    places = ["/", *([_STATE] if (root / _STATE.lstrip("/")).is_dir() else [])]
    mounts = _mounts(machine.text(root / "proc/self/mounts") or "")
    for place in places:
        point, kind, options = _mount_of(place, mounts)
        if "ro" in options:
            fix = f"sudo mount -o remount,rw {point}; sudo dmesg | grep -iE 'mmc|ext4'   (errors there: a new card)"
            return failure("disk", f"{point} is mounted read-only: after errors of the card, or by /etc/fstab", fix)
        if kind == "overlay" and point == "/" and is_pi(found):
            fix = "sudo raspi-config nonint do_overlayfs 1 && sudo reboot"
            return warning("disk", "/ is an overlay in memory: what is written is gone at the next start", fix)
    asked = runner(("df", "-P", "-m", *places))
    free = {line[5]: int(line[3]) for line in map(str.split, asked.out.splitlines()[1:]) if len(line) >= 6}
    if not free:
        return skipped("disk", f"df does not answer: {' '.join(asked.err.split()) or asked.code}")
    point, least = min(free.items(), key=lambda item: item[1])
    said = ", ".join(f"{p} has {mb} MB free" for p, mb in free.items())
    fix = "sudo apt clean && sudo journalctl --vacuum-size=50M; ls /opt/bittern/releases   (old ones can go)"
    if least < _DISK_FAILURE_MB:
        return failure("disk", f"{said}: {point} is full", fix)
    if least < _DISK_WARNING_MB:
        return warning("disk", f"{said}: little for another release", fix)
    return ok("disk", said)


def _mounts(text: str) -> list[tuple[str, str, list[str]]]:
    """Mount point, type and options of every line of /proc/self/mounts."""
    lines = [line.split() for line in text.splitlines()]
    return [(words[1], words[2], words[3].split(",")) for words in lines if len(words) >= 4]


def _mount_of(place: str, mounts: Iterable[tuple[str, str, list[str]]]) -> tuple[str, str, list[str]]:
    """The mount that a path lies on; of several on one point the last."""
    best: tuple[str, str, list[str]] = ("/", "", [])
    for mount in mounts:
        inside = place == mount[0] or place.startswith(mount[0].rstrip("/") + "/")
        if inside and len(mount[0]) >= len(best[0]):
            best = mount
    return best


def _memory(root: Path, found: Machine) -> Finding:
    if found.memory_available_mb is None:
        return skipped("memory", "/proc/meminfo does not say")
    said = f"{found.memory_available_mb} of {found.memory_total_mb} MB available"
    if found.cma_total_mb:
        said += f", {found.cma_free_mb} of {found.cma_total_mb} MB contiguous for the camera"
    if found.memory_available_mb < _MEMORY_MB:
        return warning("memory", f"{said}: the daemon takes up to {_MEMORY_MB}", "ps -eo rss,comm --sort=-rss | head")
    if found.board_id in _CMA_BOARDS and found.cma_total_mb is not None and found.cma_total_mb < _CMA_MB:
        # The display driver's overlay sets the size; a second line for it would not be read.
        overlay = "dtoverlay=vc4-kms-v3d"
        if overlay in (machine.text(root / CONFIG.lstrip("/")) or ""):
            fix = f"sudo sed -i 's/^{overlay}.*/{overlay},cma-128/' {CONFIG} && sudo reboot"
        else:
            fix = f"echo {overlay},cma-128 | sudo tee -a {CONFIG} && sudo reboot"
        return warning("memory", f"{said}: too little for the pictures of a large sensor", fix)
    return ok("memory", said)


def _time(runner: Runner) -> Finding:
    asked = runner(("timedatectl", "show", "-p", "NTPSynchronized", "--value"))
    said = asked.out.strip()
    if asked.code != 0 or said not in ("yes", "no"):
        return skipped("clock", f"timedatectl does not answer: {' '.join(asked.err.split()) or said or asked.code}")
    if said == "no":
        fix = "sudo timedatectl set-ntp true; timedatectl timesync-status   (no server: is there internet?)"
        return warning("clock", "not in step: a Pi starts with the time of its last stop, then jumps", fix)
    return ok("clock", "in step with a time server")
