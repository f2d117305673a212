"""The README: every command in it is run by a test, its figures are the model's own."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from bittern.config import schema
from bittern.scene import street

REPO = Path(__file__).parents[2]
README = (REPO / "README.md").read_text(encoding="utf-8")
BITTERN = Path(sys.executable).with_name("bittern")

JOURNEY = "tests/bittern_train/test_journey.py"
RETRAIN = "tests/bittern_train/test_retrain.py"
# Commands that a test elsewhere runs, and which.
ELSEWHERE = {
    "make demo": "tests/e2e/test_demo.py",
    "make test": ".ci/run",
    "python3 -m venv v && . v/bin/activate && pip install '.[opencv]'": "tests/e2e/test_wheel.py",
    "make train convert evaluate bench DATA=../shared/data": JOURNEY,
    "make deploy HOST=pi@raspberrypi.local": "tests/e2e/test_deploy.py",
    "bittern train folders --data pictures/ --alarm cat --weights imagenet --out runs/mine": JOURNEY,
    "bittern convert runs/mine --out models/mine": JOURNEY,
    "bittern convert keras_model.h5 --labels labels.txt --pixels -1..1 --calibrate pictures/ --alarm open "
    "--out models/gate": "tests/bittern_convert/test_foreign.py",
    "bittern evaluate models/mine --data runs/mine/index.csv --root pictures/": JOURNEY,
    "bittern evaluate models/mine --data runs/mine/index.csv --root pictures/ "
    "--against models/older --sheet worst.png": JOURNEY,
    "bittern explain street.jpg --model stop_sign --out heat.png": "tests/bittern/evaluation/test_explain.py",
    "bittern report runs/mine --model models/mine": "tests/bittern_train/reports/test_run_page.py",
    "bittern data import downloads/gates.zip --out set/": JOURNEY,
    "bittern data check set/ --html check.html": JOURNEY,
    "bittern data label set/ --label open --label closed": JOURNEY,
    "bittern data dedupe set/ --sheet duplicates.png": JOURNEY,
    "bittern data split set/": JOURNEY,
    "make pull HOST=pi@raspberrypi.local": "tests/e2e/test_deploy.py",
    "bittern data label kept/": "tests/bittern_train/data/test_label.py",
    "bittern retrain runs/mine --add kept/ --out runs/mine-2": RETRAIN,
    "bittern convert runs/mine-2 --out models/mine --version 2 --force": JOURNEY,
    "make deploy-model HOST=pi@raspberrypi.local MODEL=models/mine": "tests/e2e/test_deploy.py",
    "bittern serve": "tests/bittern/page/test_api.py",
    "bittern doctor": "tests/bittern/doctor/test_examine.py",
    "bittern bench": "tests/bittern/bench/test_bench.py",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the README speaks of."""
    lap = street.Street(seed=1, size=(480, 360))
    (tmp_path / "holiday").mkdir()
    for name, t in (("street.jpg", 9.4), ("holiday/1.jpg", 0.0), ("holiday/2.jpg", 9.0), ("holiday/3.jpg", 9.2)):
        cv2.imwrite(str(tmp_path / name), np.ascontiguousarray(lap.render(t).pixels[:, :, ::-1]))
    (tmp_path / "door.toml").write_text(
        f'source = "demo:?laps=1&fps=30"\nfps = 30\n[command]\nrun = ["true"]\n[outbox]\nfolder = "{tmp_path}/state"\n'
    )
    return tmp_path


def test_commands_run_elsewhere_are_in_the_readme_and_their_tests_are_there() -> None:
    for command, test in ELSEWHERE.items():
        assert command in COMMANDS
        assert (REPO / test).is_file()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ELSEWHERE])
def test_command(command: str, folder: Path) -> None:
    assert command.startswith("bittern ")
    environment = os.environ | {"PATH": f"{BITTERN.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (code,) = blocks("python")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code, {})
    assert output.getvalue().split()[:2] == ["stop_sign", "stop"]


def test_the_configuration_loads() -> None:
    (text,) = blocks("toml")
    shown = msgspec.toml.decode(text.encode(), type=schema.WatchConfig)
    assert shown.decision.threshold == "default"
    assert shown.mqtt is not None


def test_the_check_finds_nothing_wrong_with_the_configuration(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "door.toml").write_text(text)
    command = [str(BITTERN), "config", "--check", "door.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "door.toml: ok\n"), done.stderr


def test_the_commands_of_the_daemons_page(folder: Path) -> None:
    """One after the other, in one folder: what one leaves the next one takes."""
    page = (REPO / "docs" / "daemon.md").read_text(encoding="utf-8")
    environment = os.environ | {"PATH": f"{BITTERN.parent}:{os.environ['PATH']}"}
    (folder / "seen.csv").write_text("start_s,end_s,label\n6,10,stop\n")
    commands = [
        line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines() if line
    ]
    assert len(commands) >= 6
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        if "record" in command:
            shutil.copytree(folder / "morning", folder / "clips" / "morning")
            (folder / "intervals").mkdir()
            shutil.copy(folder / "seen.csv", folder / "intervals" / "morning.stop.csv")
        if "--check" in command:  # from here on a camera that is there
            shutil.copy(folder / "door.toml", folder / "garden.toml")
    assert (folder / "scores.png").stat().st_size > 1000
    assert (folder / "curves" / "morning.png").stat().st_size > 1000


@pytest.mark.parametrize("model", sorted(file.parent.name for file in (REPO / "models").glob("*/manifest.json")))
def test_the_figures_are_those_of_the_card(model: str) -> None:
    card = (REPO / "models" / model / "MODEL_CARD.md").read_text(encoding="utf-8")
    table = re.search(r"## Figures.*?\n(\|.*?)\n\n", card, re.DOTALL)
    between = re.search(rf"<!-- figures: {model} -->\n(.*?)<!-- end of figures -->", README, re.DOTALL)
    assert table is not None
    assert between is not None
    assert between[1].strip() == table[1].strip()
