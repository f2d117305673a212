"""The table of exports in docs/models.md: `bittern classify` runs as written on a file of each form."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from tests.doubles.foreign_models import LABELS, Kind, red_or_blue
from tests.doubles.tflite_files import with_files

from bittern.cli.classify import classify

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
TABLE = PAGE.read_text(encoding="utf-8").split("<!-- exports -->")[1].split("<!-- /exports -->")[0]
COMMANDS = {
    command.split(" --model ")[1].split()[0]: command for command in re.findall(r"`(bittern classify [^`]+)`", TABLE)
}
LOBE = json.dumps({"doc_id": "a", "classes": {"Label": LABELS}})
TEXT, NUMBERED = "\n".join(LABELS), "".join(f"{i} {label}\n" for i, label in enumerate(LABELS))
# The file that each command names: what it takes and gives, and the label file beside it.
FORMS = {
    "model.tflite": (Kind("uint8", "uint8"), NUMBERED),
    "model_unquant.tflite": (Kind(), NUMBERED),
    "ei.lite": (Kind("int8", "int8", "0..1"), TEXT),
    "ei-float32.lite": (Kind(pixels="0..1"), TEXT),
    "saved_model.tflite": (Kind(pixels="0..1"), LOBE),
    "model_maker.tflite": (Kind(pixels="0..1", metadata=((0.0,), (255.0,))), None),
    "integer.tflite": (Kind("int8", "int8"), TEXT),
    "float.tflite": (Kind(weights="int8"), TEXT),
    "torch.tflite": (Kind(nchw=True, shape=(1, 3, 16, 16), ending="logits"), TEXT),
    "onnx.tflite": (Kind(ending="logits"), TEXT),
}


def test_every_command_of_the_table_has_a_form() -> None:
    assert list(COMMANDS) == list(FORMS)


@pytest.mark.parametrize("name", FORMS)
def test_the_command_runs_as_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, labels = FORMS[name]
    data = red_or_blue(kind)
    monkeypatch.chdir(tmp_path)
    words = COMMANDS[name].split()[2:]
    if labels is None:
        data = with_files(data, labels_txt=TEXT.encode())
    else:
        Path(words[words.index("--labels") + 1]).write_text(labels)
    Path(name).write_bytes(data)
    for colour, label in (((40, 60, 220), "warm"), ((220, 60, 40), "cold")):
        cv2.imwrite("street.jpg", np.full((60, 80, 3), colour, np.uint8))
        done = CliRunner().invoke(classify, [*words, "--json"])
        assert done.exit_code == 0, done.output
        (line,) = done.stdout.splitlines()
        assert f'"label":"{label}"' in line.replace(" ", "")
