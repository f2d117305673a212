"""The wheel: what is in it, and what it gives in an empty environment."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from bittern.scene import street

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an empty environment with nothing but the wheel, its dependencies and OpenCV."""
    root = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", str(root)], check=True)
    subprocess.run(
        [str(root / "bin" / "python"), "-m", "pip", "install", "-q", f"{wheel}[opencv]"],
        capture_output=True, check=True,
    )  # fmt: skip
    return root / "bin"


def test_no_module_with_a_general_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"bittern", "bittern_convert", "bittern_train"}


def test_it_carries_models_tasks_and_the_unit(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    models = {f.relative_to(REPO / "models").as_posix() for f in (REPO / "models").rglob("*") if f.is_file()}
    assert "stop_sign/model.tflite" in models
    assert {f"bittern/shipped/models/{m}" for m in models} <= names
    assert "bittern/shipped/systemd/bittern@.service" in names
    assert "bittern_train/shipped/tasks/stop_sign.toml" in names
    assert "bittern/py.typed" in names
    assert not [n for n in names if "test" in n.split("/")[0] or n.endswith((".jpg", ".h5"))]


def test_installed_it_classifies(installed: Path, tmp_path: Path) -> None:
    picture = street.Street(seed=1).render(9.4).pixels
    cv2.imwrite(str(tmp_path / "street.png"), np.ascontiguousarray(picture[:, :, ::-1]))
    done = subprocess.run(
        [str(installed / "bittern"), "classify", "street.png", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["label"], answer["alarm"], answer["model"]) == ("stop", True, "stop_sign")
    assert done.stderr == ""


def test_a_host_command_says_what_to_install(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(installed / "bittern"), "train", "stop_sign", "--data", "."],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].endswith("pip install 'bittern[train]'")


def test_without_opencv_it_says_what_to_install(installed: Path, tmp_path: Path) -> None:
    python = installed / "python"
    subprocess.run([str(python), "-m", "pip", "uninstall", "-q", "-y", "opencv-python-headless"], check=True)
    done = subprocess.run(
        [str(installed / "bittern"), "classify", "street.png"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("bittern: OpenCV is missing: pip install 'bittern[opencv]'")
    assert len(done.stderr.splitlines()) == 1
