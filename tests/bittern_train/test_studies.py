"""Studies: the answers that a low best score gives, and the studies from pictures to result file.

The weights are random: that the way works is shown, not what is better.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles import drawn_pictures

from bittern_train import studies

BITTERN = Path(sys.executable).with_name("bittern")
TASK = """
name = "discs"
question = "Which disc?"
labels = ["blue", "red", "none"]
alarm = ["red"]
nothing = ["none"]
[backbone]
size = 96
width = 0.35
[augment]
copies = 2
[recipe]
folds = 2
epochs = 1
cut = "block_16_project_BN"
rate = [1e-4]
"""


@given(
    scores=st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=8, max_size=24),
    seed=st.integers(0, 99),
)
def test_the_threshold_of_a_fold_is_chosen_on_the_others(scores: list[tuple[float, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = np.array(scores, np.float32)
    true = np.arange(len(table)) % 3
    folds = np.array_split(rng.permutation(len(table)), 2)
    answers = studies._answers(table, true, folds)
    # What a picture's own label is must not change the answers of its fold.
    other = true.copy()
    other[folds[0]] = (other[folds[0]] + 1) % 3
    assert np.array_equal(studies._answers(table, other, folds)[folds[0]], answers[folds[0]])
    best = table.argmax(1)
    assert all(a in (2, b) for a, b in zip(answers, best, strict=True))


def test_a_low_best_score_is_none() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45], [0.5, 0.5]] * 3, np.float32)
    true = np.array([0, 1, 2, 2] * 3)
    folds = [np.arange(0, 4), np.arange(4, 12)]
    assert np.array_equal(studies._answers(scores, true, folds), true)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs and noise with an index that has two twins of test pictures, and a finished run."""
    root = tmp_path_factory.mktemp("studies")
    pictures = drawn_pictures.discs(root / "pictures", 8)
    (pictures / "none").mkdir()
    for i, file in enumerate(sorted((pictures / "blue").iterdir())):
        (pictures / "none" / file.name).write_bytes(drawn_pictures.noise(i))
    rows = []
    for label in ("blue", "red", "none"):
        for i, file in enumerate(sorted((pictures / label).iterdir())):
            split = {0: "test", 1: "twin"}.get(i, "train")
            # The twin shares its group with a test picture, on purpose.
            group = f"{label}-{max(i, 1)}"
            rows.append(f"{label}/{file.name},{label},{split},{group}")
    (pictures / "index.csv").write_text("\n".join(["path,label,split,group", *rows]) + "\n")
    (root / "discs.toml").write_text(TASK)
    run(root, "train", "discs.toml", "--data", "pictures", "--weights", "none", "--out", "runs/discs")
    return root


def run(root: Path, *words: str) -> None:
    done = subprocess.run([str(BITTERN), *words], cwd=root, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr


def test_none(world: Path) -> None:
    run(world, "study", "none", "discs.toml", "--data", "pictures", "--weights", "none", "--out", "results")
    result = json.loads((world / "results" / "none-discs.json").read_text())
    assert result["n"] == 18
    for kind in studies.KINDS:
        figures = result[kind]
        assert figures["correct"] == figures["targets"]["correct"] + figures["none"]["correct"] <= 18
        assert (figures["targets"]["n"], figures["none"]["n"]) == (12, 6)
    against = result["exposed"]["against_label"]
    assert against["only_this_right"] - against["only_label_right"] == (
        result["exposed"]["correct"] - result["label"]["correct"]
    )


@pytest.mark.slow
def test_twins(world: Path) -> None:
    words = ["--run", "runs/discs", "--weights", "none", "--out", "results"]
    run(world, "study", "twins", "discs.toml", "--data", "pictures", *words)
    result = json.loads((world / "results" / "twins-discs.json").read_text())
    assert (result["n"], result["twins"]) == (3, 3)
    assert result["with"]["correct"] - result["without"]["correct"] == (
        result["only_with_right"] - result["only_without_right"]
    )


@pytest.mark.slow
def test_soup(world: Path) -> None:
    words = ["--run", "runs/discs", "--weights", "none", "--out", "results"]
    run(world, "study", "soup", "discs.toml", "--data", "pictures", *words)
    result = json.loads((world / "results" / "soup-discs.json").read_text())
    assert (result["n"], len(result["fits"])) == (18, studies.SOUP)
    # The first fit of every fold is the k-fold's own.
    chosen = json.loads((world / "runs/discs/run.json").read_text())["choice"]
    for key in ("accuracy", "harmed_accuracy", "loss"):
        assert result["fits"][0][key] == pytest.approx(chosen[key], abs=1e-6)
    # Three fits that differ, and an average that is none of them.
    assert len({round(fit["loss"], 6) for fit in [*result["fits"], result["average"]]}) == studies.SOUP + 1
