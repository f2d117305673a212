"""Every kind of model and the shipped ones, on every runtime: Bittern answers what documentation's plain loop does.

`make test-compat` makes the environments and names them in BITTERN_COMPAT. Figures go to build/compat.txt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.compat import files

from bittern.model import catalog

pytestmark = pytest.mark.skipif("BITTERN_COMPAT" not in os.environ, reason="make test-compat runs it")
HERE = Path(__file__).parent
REPO = HERE.parents[1]
STEP = 1 / 256  # of a uint8 score
# NAME=PYTHON NAME=PYTHON: the interpreter of each environment.
ENVIRONMENTS = dict(word.split("=", 1) for word in os.environ.get("BITTERN_COMPAT", "").split())
RUNTIMES = {"ai-edge-litert": sys.executable} | {n: p for n, p in ENVIRONMENTS.items() if n != "mediapipe"}
# Bittern itself does not run on TensorFlow.
OURS = [name for name in RUNTIMES if name != "tf.lite"]


class Given(NamedTuple):
    """The folder that all scripts get, and the labels of each model in it."""

    folder: Path
    labels: dict[str, list[str]]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder, converted = tmp_path_factory.mktemp("compat"), tmp_path_factory.mktemp("converted")
    if "tf.lite" in RUNTIMES:
        ran(RUNTIMES["tf.lite"], "keras_files.py", converted)
    return Given(folder, files.write(folder, sorted(converted.iterdir())))


@pytest.fixture(scope="module")
def figures() -> Iterator[list[str]]:
    """Lines for build/compat.txt."""
    lines: list[str] = []
    yield lines
    (REPO / "build").mkdir(exist_ok=True)
    (REPO / "build/compat.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def ran(python: str, script: str, *arguments: str | Path) -> Any:
    """The JSON that a script prints in an environment, or None."""
    done = subprocess.run([python, HERE / script, *arguments], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{script}: {done.stderr[-3000:]}"
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.startswith("{") else None


@pytest.fixture(scope="module")
def plain(given: Given) -> dict[str, Any]:
    return {name: ran(python, "plain_loop.py", name, given.folder) for name, python in RUNTIMES.items()}


@pytest.fixture(scope="module")
def ours(given: Given) -> dict[str, Any]:
    made = {name: ran(RUNTIMES[name], "bittern_scores.py", given.folder) for name in OURS}
    assert {name: answers["runtime"] for name, answers in made.items()} == {name: name for name in OURS}
    return made


@pytest.mark.parametrize(("runtime", "beside"), list(product(OURS, RUNTIMES)))
def test_every_model_gives_what_the_plain_loop_gives(
    runtime: str, beside: str, given: Given, ours: dict[str, Any], plain: dict[str, Any], figures: list[str]
) -> None:
    """Through many layers of int8 one version of XNNPACK rounds as another does not: there the label has to agree."""
    largest = {"generated and converted": 0.0, "shipped": 0.0}
    pictures, same, wrong = 0, 0, []
    for name, labels in given.labels.items():
        shipped = name in catalog.available()
        scores = np.array(ours[runtime]["scores"][name])
        expected = np.array(plain[beside]["scores"][name])
        assert scores.shape == expected.shape == (len(scores), len(labels))
        difference = float(np.abs(scores - expected).max())
        agree = scores.argmax(-1) == expected.argmax(-1)
        if not agree.all():
            wrong.append(f"{name}: another label")
        if difference > STEP + 1e-6 and (runtime == beside or not shipped):
            wrong.append(f"{name}: {difference / STEP:.2f} steps")
        if not shipped:  # drawn so that there is something to tell
            assert set(expected.argmax(-1)) == {0, 1}, name
        what = "shipped" if shipped else "generated and converted"
        largest[what], pictures = max(largest[what], difference), pictures + len(scores)
        same += int(agree.sum())
    figures.append(
        f"Bittern on {runtime} {ours[runtime]['version']} (numpy {ours[runtime]['numpy']}) beside the plain loop on "
        f"{beside} {plain[beside]['version']} (numpy {plain[beside]['numpy']}): {len(given.labels)} models, "
        f"the same top label on {same} of {pictures} pictures; steps of 1/256 at most: "
        + ", ".join(f"{steps / STEP:.2f} ({what})" for what, steps in largest.items())
    )
    assert not wrong


@pytest.mark.skipif("mediapipe" not in ENVIRONMENTS, reason="no environment with MediaPipe")
def test_shipped_models_have_their_labels_in_mediapipe(given: Given, ours: dict[str, Any], figures: list[str]) -> None:
    theirs = ran(ENVIRONMENTS["mediapipe"], "mediapipe_labels.py", given.folder)
    assert set(theirs["answers"]) == set(catalog.available())
    pictures, largest = 0, 0.0
    for name, answers in theirs["answers"].items():
        labels = given.labels[name]
        assert all({label for label, _ in answer} == set(labels) for answer in answers), answers[0]
        scores = np.array([[dict(answer)[label] for label in labels] for answer in answers])
        expected = np.array(ours["ai-edge-litert"]["scores"][name])
        assert (scores.argmax(-1) == expected.argmax(-1)).all(), name
        largest, pictures = max(largest, float(np.abs(scores - expected).max())), pictures + len(scores)
    figures.append(
        f"MediaPipe Tasks {theirs['version']} beside Bittern: the labels of {len(theirs['answers'])} shipped models, "
        f"the same top label on {pictures} crops, scores at most {largest / STEP:.2f} steps of 1/256 apart"
    )
