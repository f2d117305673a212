"""Models of other tools on the command line: what a file does not say is stated, and asked for by the option's name."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.doubles.command import bittern, one_line
from tests.doubles.foreign_models import LABELS, Kind, red_or_blue


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    for name, kind in {
        "float": Kind(),
        "scaled": Kind(pixels="0..1", ending="logits"),
        "free": Kind("uint8", "uint8", free=(0, 1, 2)),
        "single": Kind("uint8", "uint8", ending="sigmoid"),
        "wide": Kind("int8", "int8", shape=(1, 16, 24, 3)),
    }.items():
        (folder / f"{name}.tflite").write_bytes(red_or_blue(kind))
    (folder / "labels.txt").write_text("\n".join(LABELS))
    (folder / "other.txt").write_text("hot\ncool")
    for name, colour in (("warm", (40, 60, 220)), ("cold", (220, 60, 40))):
        for number in range(2):
            (folder / "set" / name).mkdir(parents=True, exist_ok=True)
            picture = np.full((60, 80, 3), colour, np.uint8)
            picture[:10] = 30 * number
            cv2.imwrite(str(folder / "set" / name / f"{number}.png"), picture)
    return folder


def test_what_is_missing_is_said_with_its_option_and_then_it_runs(place: Path) -> None:
    words = ("classify", "set", "--labels", "labels.txt", "--json", "--model")
    for model, missing, given in (
        ("float.tflite", "--pixels 0..1 or --pixels -1..1", ("--pixels", "-1..1")),
        ("free.tflite", "--size 224", ("--size", "32x24")),
        ("single.tflite", "--score-of warm or --score-of cold", ("--score-of", "warm")),
    ):
        one_line(bittern(*words, model, cwd=place), 2, missing)
        done = bittern(*words, model, *given, "--alarm", "warm", cwd=place)
        rows = [json.loads(line) for line in done.out.splitlines()]
        assert [(row["label"], row["alarm"]) for row in rows] == [("cold", False)] * 2 + [("warm", True)] * 2


def test_several_bare_models_have_what_is_theirs(place: Path) -> None:
    models = ("--model", "float.tflite", "--model", "scaled.tflite", "--model", "wide.tflite")
    own = ("--labels", "labels.txt", "--labels", "other.txt", "--labels", "labels.txt")
    pixels = ("--pixels", "-1..1", "--pixels", "0..1", "--pixels", "-1..1")
    done = bittern("classify", "set/warm/0.png", *models, *own, *pixels, "--json", cwd=place)
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["model"], row["label"]) for row in rows] == [("float", "warm"), ("scaled", "hot"), ("wide", "warm")]
    refusal = bittern("classify", "set", *models, *own[:4], *pixels, cwd=place)
    assert refusal.code == 2
    assert "--labels is given 2 times for 3 bare .tflite files" in refusal.err


def test_an_option_for_bare_files_beside_a_manifest_is_refused(place: Path) -> None:
    refusal = bittern("classify", "set", "--pixels", "0..1", cwd=place)
    assert refusal.code == 2
    assert "--pixels is for a bare .tflite file: stop_sign has it in its manifest" in refusal.err


def test_models_states_the_rules(place: Path) -> None:
    words = ("models", "scaled.tflite", "--labels", "labels.txt", "--pixels", "0..1")
    text = bittern(*words, cwd=place).out
    assert "takes 16 x 16 RGB float32, pixels 0..1 (stated)" in text
    assert "scores softmax (no softmax or sigmoid in the model)" in text
    row = json.loads(bittern(*words, "--scores-by", "sigmoid", "--json", cwd=place).out)
    assert (row["verified"], row["origin"], row["scores"]) == (False, "unsigned", {"bare": "sigmoid"})
    assert (row["pixels"], row["pixels_from"], row["scores_from"]) == ("0..1", "stated", "stated")
    refused = bittern("models", "float.tflite", "--labels", "labels.txt", cwd=place)
    assert refused.code == 1
    assert "REFUSED" in refused.out
    row = json.loads(bittern("models", "stop_sign", "--json", cwd=place).out)
    assert (row["input"], row["pixels"], row["scores"]) == ("224 x 224 RGB uint8", "bytes", {"stop_sign": "as-is"})


def test_evaluate_and_explain_take_them(place: Path) -> None:
    stated = ("--labels", "labels.txt", "--alarm", "warm")
    report = json.loads(bittern("evaluate", "wide.tflite", "--data", "set", *stated, "--json", cwd=place).out)
    assert (report["accuracy"], report["auc"], report["n"]) == (1.0, 1.0, 4)
    words = ("evaluate", "float.tflite", "--data", "set", *stated, "--pixels", "-1..1", "--json")
    assert json.loads(bittern(*words, cwd=place).out)["nll"] < 0.5
    for model, more in (("wide.tflite", ()), ("float.tflite", ("--pixels", "-1..1"))):
        done = bittern("explain", "set/warm/1.png", "--model", model, *stated, *more, "--json", cwd=place)
        assert json.loads(done.out)["label"] == "warm"
        sheet = cv2.imread(str(place / "explain.png"))
        assert sheet is not None
        assert sheet.shape[1] > 300
