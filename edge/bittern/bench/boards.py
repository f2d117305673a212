"""Whether a Raspberry Pi is slower than published figures say, and why."""

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
        tolerance: a board that takes more than this many times as long is slow.
        published_ms: by `Machine.board_id`, milliseconds of one inference with a thread per core.
    """

    source: str
    tolerance: float
    published_ms: dict[str, float]


def load() -> Boards:
    """The file that ships with Bittern."""
    return msgspec.toml.decode(files("bittern.bench").joinpath("boards.toml").read_bytes(), type=Boards)


def verdict(machine: Machine, path: str, all_cores_ms: float, boards: Boards) -> list[str]:
    """What the owner of a Raspberry Pi should know about its speed, line by line; empty for other machines.

    Args:
        machine: read while the processor was still warm.
        path: the execution path.
        all_cores_ms: median of one inference with a thread per core.
        boards: the published figures.
    """
    if machine.board_id == "other":
        return []
    published = boards.published_ms.get(machine.board_id)
    if published is None:
        return [f"{machine.board}: {all_cores_ms:.1f} ms per inference on all cores; there is no published figure"]
    speed = f"{machine.board}: {all_cores_ms:.1f} ms per inference on all cores"
    basis = f"the published {published:g} ms ({boards.source}; not measured by Bittern)"
    if all_cores_ms <= published * boards.tolerance:
        return [f"{speed}, not slow beside {basis}"]
    causes = [f"  possible cause: {cause}" for cause in causes_of_slowness(machine, path)]
    return [
        f"{speed}, slow: more than {boards.tolerance:g} times {basis}",
        *(causes or ["  no known cause; are other programs running?"]),
    ]


def causes_of_slowness(machine: Machine, path: str) -> list[str]:
    """Known causes of a slow Raspberry Pi that hold on this one, each with its remedy."""
    causes = []
    if path != "xnnpack":
        causes.append(f"execution path {path}: XNNPACK does not run the graph; install ai-edge-litert")
    if machine.userland_bits == 32:
        causes.append("32-bit Python: install the 64-bit Raspberry Pi OS where the board allows it")
    if machine.governor == "powersave":
        causes.append("governor powersave: the lowest clock; choose ondemand or performance")
    if machine.throttled is not None:
        if machine.throttled.now:
            causes.append(f"throttling now: {', '.join(machine.throttled.now)}; check power supply and cooling")
        elif machine.throttled.since_boot:
            causes.append(f"throttling since boot: {', '.join(machine.throttled.since_boot)}; check the power supply")
    if machine.temperature_c is not None and machine.temperature_c >= HOT_C:
        heat = f"{machine.temperature_c:.0f} °C: the firmware slows it down from {HOT_C:.0f} °C"
        causes.append(f"{heat}; add a heat sink or a fan")
    return causes
