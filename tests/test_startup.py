"""What a command imports before it has something to do, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bittern.cli.main import COMMANDS

HEAVY = {"numpy", "cv2", "msgspec", "ai_edge_litert", "tflite_runtime", "tensorflow", "keras", "logging", "asyncio"}
PROGRAM = """
import json, sys
from bittern.cli.main import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit:
        pass
    print("IMPORTED", *{name.split(".")[0] for name in sys.modules})
"""


def imported(*commands: tuple[str, ...]) -> list[set[str]]:
    """What one process has imported after each of the commands."""
    call = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    return [set(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("IMPORTED ")]


def test_help_imports_nothing_heavy() -> None:
    helps = [
        ("--help",),
        ("--version",),
        *((command, "--help") for command in COMMANDS),
        ("classify",),
        ("clasify", "x"),
    ]
    for words, names in zip(helps, imported(*helps), strict=True):
        assert {"click", "bittern"} <= names
        assert not names & HEAVY, words


def test_a_command_that_runs_does_import_them() -> None:
    """The list above is looked for in the right place."""
    assert {"numpy", "cv2", "msgspec"} <= imported(("classify", "absent.jpg"))[0]


def test_the_package_itself_is_light() -> None:
    program = "import sys, bittern; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in done.stdout.split()} & HEAVY


def test_names_of_the_package_come_when_asked_for() -> None:
    import bittern

    assert all(getattr(bittern, name) is not None for name in bittern.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Clasifier'"):
        _ = bittern.Clasifier
