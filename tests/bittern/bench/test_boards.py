"""Whether a Raspberry Pi is slow, and why; on invented machines."""

from __future__ import annotations

import msgspec
import pytest

from bittern.bench import boards
from bittern.system.machine import Machine, Throttled, board_id, decode_throttled

KNOWN = boards.load()
PI4 = Machine(
    board="Raspberry Pi 4 Model B Rev 1.4",
    board_id="pi4",
    userland_bits=64,
    governor="ondemand",
    temperature_c=55.0,
    throttled=Throttled("0x0", (), ()),
    python="3.13",
    bittern="1",
)


def verdict(ms: float, path: str = "xnnpack", **changed: object) -> list[str]:
    return boards.verdict(msgspec.structs.replace(PI4, **changed), path, ms, KNOWN)


def test_the_file_names_its_source_and_a_generous_tolerance() -> None:
    assert "XNNPACK" in KNOWN.source
    assert KNOWN.tolerance >= 1.5
    assert all(ms > 0 for ms in KNOWN.published_ms.values())
    models = ("Raspberry Pi 4 Model B", "Raspberry Pi 3 Model B Plus", "Raspberry Pi 2 Model B", "Raspberry Pi Zero W")
    assert {board_id(model + " Rev 1.2") for model in models} == set(KNOWN.published_ms), "names that a board can have"


def test_a_board_within_the_tolerance_is_not_slow() -> None:
    limit = KNOWN.published_ms["pi4"] * KNOWN.tolerance
    (line,) = verdict(limit)
    assert "not slow beside" in line
    assert "not measured by Bittern" in line
    assert ", slow: more than" in verdict(limit + 0.1)[0]


@pytest.mark.parametrize(
    ("path", "changed", "because"),
    [
        ("builtin", {}, "XNNPACK does not run the graph"),
        ("xnnpack", {"userland_bits": 32}, "32-bit Python"),
        ("xnnpack", {"governor": "powersave"}, "governor powersave"),
        ("xnnpack", {"temperature_c": 83.0}, "83 °C"),
        ("xnnpack", {"throttled": decode_throttled(0x50005)}, "throttling now: under-voltage, throttled"),
        ("xnnpack", {"throttled": decode_throttled(0x50000)}, "throttling since boot: under-voltage, throttled"),
    ],
)
def test_a_slow_board_gets_its_causes(path: str, changed: dict[str, object], because: str) -> None:
    lines = verdict(99.0, path, **changed)
    assert len(lines) == 2
    assert "99.0 ms per inference on all cores, slow" in lines[0]
    assert because in lines[1]


def test_all_causes_are_named_and_none_is_invented() -> None:
    assert len(verdict(99.0, "builtin", userland_bits=32, governor="powersave")) == 4
    assert "no known cause" in verdict(99.0)[1]
    assert "no known cause" in verdict(99.0, throttled=None, temperature_c=None, governor=None)[1]


def test_a_board_without_a_published_figure_gets_no_verdict() -> None:
    (line,) = verdict(50.0, board="Raspberry Pi 5 Model B", board_id="pi5")
    assert "no published figure" in line
    assert verdict(50.0, board=None, board_id="other") == []
