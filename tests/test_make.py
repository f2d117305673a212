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


def test_gtsrb_is_unpacked_again_when_either_archive_is_newer(tmp_path: Path) -> None:
    index = tmp_path / "build/data/gtsrb/index.csv"
    archives = [tmp_path / "data/gtsrb" / name for name in ("train.zip", "test.zip")]
    others = [tmp_path / "train/bittern_train/gtsrb.py", tmp_path / ".venv-host/.ready"]
    for file in (index, *archives, *others):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    def up_to_date() -> bool:
        words = ["-q", "-o", ".venv-host/.ready", "DATA=data", "build/data/gtsrb/index.csv"]
        code = subprocess.run(["make", "-C", tmp_path, "-f", REPO / "Makefile", *words], capture_output=True).returncode
        assert code in (0, 1)
        return code == 0

    for newer in archives:
        for file in (*archives, *others):
            os.utime(file, (1000, 1000))
        os.utime(index, (2000, 2000))
        assert up_to_date()
        os.utime(newer, (3000, 3000))
        assert not up_to_date(), newer.name
