"""What make asks for before it begins."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("train", "say where the pictures are: make train DATA=../shared/data"),
        ("evaluate", "say where the pictures are: make evaluate DATA=../shared/data"),
        ("reproduce", "say where the pictures are: make reproduce DATA=../shared/data"),
        ("deploy", "say which Pi: make deploy HOST=pi@raspberrypi.local"),
        ("pull", "say which Pi: make pull HOST=pi@raspberrypi.local"),
        ("deploy-model", "say which Pi: make deploy-model HOST=pi@raspberrypi.local"),
        ("deploy-model HOST=pi", "say which model: make deploy-model HOST=pi MODEL=models/mine"),
    ],
)
def test_what_is_missing_is_asked_for_before_anything_is_made(target: str, message: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("DATA", "HOST", "MAKEFLAGS")}
    done = subprocess.run(
        ["make", "-C", tmp_path, "-f", REPO / "Makefile", *target.split()],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 2
    assert message in done.stderr.splitlines()
    assert list(tmp_path.iterdir()) == []
