"""What a command imports before it has something to do, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bittern.cli.main import COMMANDS

HEAVY = {"numpy", "cv2", "msgspec", "ai_edge_litert", "tflite_runtime", "tensorflow", "keras", "logging", "asyncio"}
PROGRAM = """
import sys
from bittern.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("IMPORTED", *{name.split(".")[0] for name in sys.modules})
"""


def imported(*words: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True)
    return set(done.stdout.rsplit("IMPORTED ", 1)[1].split())


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("--version",),
        *((command, "--help") for command in COMMANDS),
        ("classify",),
        ("clasify", "x"),
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    names = imported(*words)
    assert "click" in names
    assert "bittern" in names
    assert not names & HEAVY


def test_a_command_that_runs_does_import_them() -> None:
    """The list above is looked for in the right place."""
    assert {"numpy", "cv2", "msgspec"} <= imported("classify", "absent.jpg")


def test_the_package_itself_is_light() -> None:
    program = "import sys, bittern; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in done.stdout.split()} & HEAVY


def test_names_of_the_package_come_when_asked_for() -> None:
    import bittern

    assert all(getattr(bittern, name) is not None for name in bittern.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Clasifier'"):
        _ = bittern.Clasifier
