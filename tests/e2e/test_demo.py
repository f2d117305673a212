"""`make demo` in a fresh clone: a bare Python, its own environment, an event, a picture, no TensorFlow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

REPO = Path(__file__).parents[2]
# The interpreter that this environment was made from, not the environment's own.
BARE_PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone would hold: the files that git tracks, and the new ones it does not ignore."""
    root = tmp_path_factory.mktemp("clone") / "bittern"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPO, capture_output=True, check=True
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (REPO / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, root / name)
    return root


@pytest.fixture(scope="module")
def demo(clone: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "VIRTUAL_ENV"))}
    done = subprocess.run(
        ["make", "demo", f"PYTHON={BARE_PYTHON}"],
        cwd=clone, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def test_the_sign_raises_one_alarm_that_ends(demo: subprocess.CompletedProcess[str]) -> None:
    events = [json.loads(line) for line in demo.stdout.splitlines() if '"type":"alarm' in line]
    assert [(e["type"], e["label"]) for e in events] == [("alarm.on", "stop"), ("alarm.off", "stop")]
    on, off = events
    assert on["id"] < off["id"]
    assert on["score"] > off["score"]
    # The street is empty for the first third of its 12 seconds.
    assert on["frame"] > 4 * 15
    assert 1e9 < off["monotonic_ns"] - on["monotonic_ns"] < 8e9


def test_it_leaves_a_picture_of_what_the_camera_saw(clone: Path, demo: subprocess.CompletedProcess[str]) -> None:
    assert "build/demo.png" in demo.stdout
    sheet = np.asarray(cv2.imread(str(clone / "build" / "demo.png")))
    assert sheet.shape[1] > 6 * 224
    red = (sheet[..., 2] > 180) & (sheet[..., :2] < 80).all(-1)
    assert red.mean() > 0.005  # the frames around alarms, and the sign


def test_it_does_not_install_tensorflow(clone: Path, demo: subprocess.CompletedProcess[str]) -> None:
    packages = next((clone / ".venv" / "lib").glob("python3*")) / "site-packages"
    names = {p.name.split("-")[0].lower() for p in packages.iterdir()}
    assert "ai_edge_litert" in names
    assert not names & {"tensorflow", "tensorflow_cpu", "keras", "pytest"}


def test_on_a_raspberry_pi_opencv_is_debians(clone: Path) -> None:
    """Only said, not run: `make -n` there and here."""
    commands = {}
    for pi in ("yes", ""):
        done = subprocess.run(
            ["make", "-n", "-B", "demo", f"PI={pi}"], cwd=clone, capture_output=True, text=True, check=True
        )
        commands[pi] = done.stdout
    assert "--system-site-packages" in commands["yes"]
    assert "opencv" not in commands["yes"]
    assert "--system-site-packages" not in commands[""]
    assert "opencv]" in commands[""]
