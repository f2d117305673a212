"""`bittern adopt`: a model folder out of another tool's file, which proves itself and runs like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.doubles.command import bittern, one_line
from tests.doubles.foreign_models import KINDS, LABELS, red_or_blue
from tests.doubles.model_files import flat, refused

from bittern import Classifier
from bittern.config import schema
from bittern.daemon import opening
from bittern.evaluation.adopt import adopt
from bittern.model import golden, runtime
from bittern.model.bare import Bare
from bittern.model.candidate import check_candidate

CHOSEN = (
    "float32, the label's number beside the scores",
    "float32, channels first, wide",
    "int8 in and out",
    "uint8 in and out, a wide quantization",
    "uint8, free size",
    "uint8, output (1, 1) of a sigmoid",
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    kind, _ = KINDS["float32, logits"]
    (tmp_path / "Gate Cam.tflite").write_bytes(red_or_blue(kind))
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    return tmp_path


def pictures(folder: Path, each: int = 6, split: str | None = None) -> Path:
    """Pictures of two labels: warm ones from clearly red to hardly red, cold ones all blue."""
    rows = ["path,label,split,group"]
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for number in range(each):
            red = 140 + 15 * number if label == "warm" else 60
            picture = np.full((40, 50, 3), (100, 60, red), np.uint8)
            cv2.imwrite(str(folder / label / f"{number}.png"), picture)
            rows.append(f"{label}/{number}.png,{label},{split if number == 0 else 'train'},{label}{number}")
    if split is not None:
        (folder / "index.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize("name", CHOSEN)
def test_an_adopted_model_answers_as_the_bare_file_and_proves_itself(tmp_path: Path, name: str) -> None:
    kind, stated = KINDS[name]
    file = tmp_path / "a.tflite"
    file.write_bytes(red_or_blue(kind))
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    about = Bare(**stated, labels=str(tmp_path / "labels.txt"), alarm=("warm",))
    out = tmp_path / "gate"
    adopted = adopt(file, out, about, name="gate", version="2", items=[], progress=lambda done: None)
    assert set(adopted.manifest.golden) <= {*runtime.PATHS}
    assert "builtin" in adopted.manifest.golden
    whole, bare = Classifier(out, tried=True), Classifier(file, bare=about, tried=True)
    assert (whole.name, whole.version, whole.heads[0].alarm) == ("gate", "2", ("warm",))
    noise = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    for frame in (noise, flat((40, 60, 220)), flat((220, 60, 40))):
        assert whole.classify(frame)[0].scores == bare.classify(frame)[0].scores
    for path in adopted.manifest.golden:
        assert Classifier(out, path=path, tried=True).path == path
        assert len(golden.load(out / "golden.npz", path)) == 3
    (out / "labels.txt").write_text("other\n")
    refused(out, "labels.txt", "copy the folder again", tried=True)


def test_the_command_from_file_to_daemon(place: Path) -> None:
    words = ("adopt", "Gate Cam.tflite", "--labels", "labels.txt")
    one_line(bittern(*words, cwd=place), 2, "--pixels 0..1 or --pixels -1..1")
    done = bittern(*words, "--pixels", "-1..1", "--alarm", "warm", cwd=place)
    assert done.code == 0, done.err
    assert done.out.startswith("models/gate_cam: gate_cam 1, 2 labels\n  the threshold is unchosen, 0.5")
    one_line(bittern(*words, "--pixels", "-1..1", cwd=place), 2, "models/gate_cam exists already")
    assert [path.name for path in (place / "models").iterdir()] == ["gate_cam"]
    card = (place / "models/gate_cam/MODEL_CARD.md").read_text()
    for line in ("from `Gate Cam.tflite`", "| pixels | -1..1 (stated) |", "unchosen", "| scores | softmax (no softmax"):
        assert line in card
    (row,) = (json.loads(line) for line in bittern("models", "gate_cam", "--json", cwd=place).out.splitlines())
    assert (row["origin"], row["pixels"], row["scores"]) == ("unsigned", "-1..1", {"gate_cam": "softmax"})
    for number in range(6):
        colour = (40, 60, 220) if 2 <= number < 4 else (220, 60, 40)
        (place / "frames").mkdir(exist_ok=True)
        cv2.imwrite(str(place / f"frames/{number}.png"), np.full((40, 50, 3), colour, np.uint8))
    watched = bittern("watch", "--source", "frames", "--model", "gate_cam", cwd=place)
    assert '"alarm.on"' in watched.out
    model = schema.ModelConfig(path=str(place / "models/gate_cam"))
    old = [opening.open_model(model, 1)]
    limits: dict[str, Any] = {"threads": 1, "max_slowdown": 50.0, "timeout_s": 120.0}
    assert check_candidate(model.path, old, bare=opening.stated(model), **limits).name == "gate_cam"


def test_the_threshold_is_chosen_on_pictures_and_never_on_the_test_split(place: Path) -> None:
    words = ("adopt", "Gate Cam.tflite", "--labels", "labels.txt", "--pixels", "-1..1", "--alarm", "warm", "--json")
    pictures(place / "set")
    row = json.loads(bittern(*words, "--data", "set", "--out", "models/a", cwd=place).out)
    assert "100.0% of 6 alarms found, 0.0% of 6 others are false alarms" in row["chosen_for"]
    manifest = json.loads((place / "models/a/manifest.json").read_bytes())
    assert manifest["provenance"]["reports"]["owner/the same pictures"]["n"] == 12
    assert manifest["heads"][0]["stills"]
    report = json.loads(bittern("evaluate", "models/a", "--data", "set", "--json", cwd=place).out)
    assert (report["alarm_rate"], report["missed_alarms"]) == (0.5, 0)
    pictures(place / "split", split="test")
    row = json.loads(bittern(*words, "--data", "split", "--out", "models/b", cwd=place).out)
    assert "of 5 alarms found" in row["chosen_for"]
    manifest = json.loads((place / "models/b/manifest.json").read_bytes())
    assert manifest["provenance"]["reports"]["owner/held back"]["n"] == 2
    pictures(place / "few", each=2)
    row = json.loads(bittern(*words, "--data", "few", "--out", "models/c", cwd=place).out)
    assert "unchosen" in row["chosen_for"]
    assert "too few" in row["notes"][0]


def test_what_cannot_be_adopted_leaves_nothing(place: Path) -> None:
    words = ("adopt", "Gate Cam.tflite", "--labels", "labels.txt", "--pixels", "-1..1")
    one_line(bittern(*words, "--name", "a b", cwd=place), 2, "--name")
    one_line(bittern(*words, "--alarm", "wram", cwd=place), 2, "did you mean 'warm'?")
    (place / "set/other").mkdir(parents=True)
    cv2.imwrite(str(place / "set/other/a.png"), flat((1, 2, 3)))
    one_line(bittern(*words, "--data", "set", cwd=place), 2, "label 'other' is not one of the model's")
    one_line(bittern("adopt", "absent.tflite", cwd=place), 2, "no such file: expected a .tflite file")
    one_line(bittern("adopt", "set", cwd=place), 2, "is a folder: expected a .tflite file")
    (place / "text.tflite").write_text("hello world")
    one_line(bittern("adopt", "text.tflite", cwd=place), 2, "not a TFLite model")
    assert not (place / "models").exists()
