"""Tells the owner of a Raspberry Pi whether theirs is slow, and why."""

from __future__ import annotations

from importlib.resources import files

import msgspec

from bittern.system.machine import Machine

# The firmware of every Raspberry Pi starts to slow down at 80 °C (Raspberry Pi documentation, "Frequency management
# and thermal control").
HOT_C = 80.0


class Boards(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`boards.toml`.

    Attributes:
        source: where the figures come from.
        tolerance: a board is slow when it takes this many times as long.
        published_ms: by `Machine.board_id`, milliseconds of one inference with a thread for each core.
    """

    source: str
    tolerance: float
    published_ms: dict[str, float]


def load() -> Boards:
    """The file that ships with Bittern."""
    return msgspec.toml.decode(files("bittern.bench").joinpath("boards.toml").read_bytes(), type=Boards)


def verdict(machine: Machine, path: str, all_cores_ms: float, boards: Boards) -> list[str]:
    """What the owner of a machine should know about its speed, a line each; empty for what is no Raspberry Pi.

    Args:
        machine: read while the processor was still warm.
        path: the execution path that was taken.
        all_cores_ms: median of one inference with a thread for each core.
        boards: see there.
    """
    if machine.board_id == "other":
        return []
    published = boards.published_ms.get(machine.board_id)
    if published is None:
        return [f"{machine.board}: {all_cores_ms:.1f} ms an inference; no published figure to compare it with"]
    basis = f"published are {published:g} ms ({boards.source}; not measured by Bittern)"
    if all_cores_ms <= published * boards.tolerance:
        return [f"{machine.board}: {all_cores_ms:.1f} ms an inference with all cores is not slow: {basis}"]
    found = reasons(machine, path)
    return [
        f"{machine.board}: {all_cores_ms:.1f} ms an inference with all cores is slow, more than {boards.tolerance:g} "
        f"times what is usual: {basis}",
        *(f"  because of {reason}" for reason in found),
        *(() if found else ("  nothing that is known to slow a board down was found; are other programs running?",)),
    ]


def reasons(machine: Machine, path: str) -> list[str]:
    """What is known to slow a Raspberry Pi down and holds on this one, each with what mends it."""
    found = []
    if path != "xnnpack":
        found.append(f"the execution path {path}: XNNPACK did not take the graph; install ai-edge-litert")
    if machine.userland_bits == 32:
        found.append("32-bit Python: install the 64-bit Raspberry Pi OS where the board allows it")
    if machine.governor == "powersave":
        found.append("governor powersave: the lowest clock; choose ondemand or performance")
    if machine.throttled is not None:
        if machine.throttled.now:
            found.append(f"throttling now: {', '.join(machine.throttled.now)}; see to power supply and cooling")
        elif machine.throttled.since_boot:
            found.append(f"throttling since the start: {', '.join(machine.throttled.since_boot)}; see to power supply")
    if machine.temperature_c is not None and machine.temperature_c >= HOT_C:
        found.append(f"{machine.temperature_c:.0f} °C: it slows down from {HOT_C:.0f} °C; give it a heat sink or a fan")
    return found
