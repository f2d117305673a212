"""`bittern compare`: the table, the CSV and the picture, of runs as training leaves them."""

from __future__ import annotations

import csv
import itertools
import shutil
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score, roc_auc_score
from tests.doubles import drawn_pictures
from tests.doubles.progress import Reports

from bittern.errors import ConfigurationError
from bittern.evaluation import metrics
from bittern.model import catalog
from bittern_convert.task import Augment, Backbone, Recipe, Task
from bittern_train import compare
from bittern_train.compare import NamedBackbone, NetworkFigures

TASK = Task(
    name="discs",
    question="Is there a red disc?",
    labels=("blue", "red"),
    alarm=("red",),
    nothing=("blue",),
    augment=Augment(copies=2, turn_degrees=0),
    recipe=Recipe(folds=2, epochs=24, batch=4, patience=24, rate=(1e-3,), stream_s=0),
    backbone=Backbone(name="lenet", size=32, mode="scratch"),
)


def test_backbones_are_read() -> None:
    assert compare.parse("mobilenet_v2:96x0.35, mobilenet_v2:96,lenet") == [
        NamedBackbone("mobilenet_v2", 96, 0.35),
        NamedBackbone("mobilenet_v2", 96, None),
        NamedBackbone("lenet", None, None),
    ]
    assert [choice.folder for choice in compare.parse("mobilenet_v2:96x0.35,lenet")] == [
        "mobilenet_v2-96-0.35",
        "lenet",
    ]


@pytest.mark.parametrize("text", ["lenet", "lenet,lenet", "lenet:big,vgg_style", "lenet,vgg_style:96xwide", ""])
def test_what_is_no_list_of_backbones(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--backbones"):
        compare.parse(text)


def test_figures_are_sklearns() -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, 200)
    red = np.clip(0.5 + 0.2 * (2 * targets - 1) + rng.normal(0, 0.3, 200), 0.01, 0.99)
    scores = np.stack([1 - red, red], 1)
    estimates = compare.figures(scores, targets, [str(i // 2) for i in range(200)], TASK)
    answered = scores.argmax(1)
    expected = {
        "loss": log_loss(targets, scores),
        "accuracy": float((answered == targets).mean()),
        "precision": precision_score(targets, answered),
        "recall": recall_score(targets, answered),
        "f1": f1_score(targets, answered),
        "auc": roc_auc_score(targets, red),
    }
    assert {name: figure.value for name, figure in estimates.items()} == pytest.approx(expected)
    for figure in estimates.values():
        assert figure.ci95 is not None
        assert figure.value is not None
        assert figure.ci95[0] < figure.value < figure.ci95[1]


def test_times_are_relative_to_the_reference() -> None:
    # The reference takes 2 s and then 4 s, the other model 3 s and then 6 s: the machine became slower meanwhile.
    ticks = itertools.accumulate(itertools.cycle([0, 2, 0, 3, 0, 4, 0, 6]))
    (own,) = compare.relative_times([catalog.find(compare.REFERENCE)], Reports(), clock=lambda: float(next(ticks)))
    assert own == 1.5


def planned(data: Path, text: str = "lenet:32,lenet:28") -> list[compare.Planned]:
    return compare.plan(TASK, compare.parse(text), data, weights={"": "none"}, mode=None)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the smallest networks, trained, converted and compared."""
    folder = tmp_path_factory.mktemp("compared")
    data = drawn_pictures.discs(folder / "data" / "pictures", 9)
    made = compare.make(planned(data), data, folder / "runs", seed=1, progress=Reports())
    compare.write(folder / "out", TASK, made)
    return folder


def test_a_row_for_each(compared: Path) -> None:
    page = (compared / "out" / "compare-discs.md").read_text()
    rows = list(csv.DictReader((compared / "out" / "compare-discs.csv").read_text().splitlines()))
    assert [(row["network"], row["size"]) for row in rows] == [("lenet", "32"), ("lenet", "28")]
    assert page.count("| the best |") == 1
    assert [bool(row["p"]) for row in rows].count(True) == 1
    for row in rows:
        assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])
        assert (float(row["accuracy_low"]), float(row["accuracy_high"])) == pytest.approx(
            metrics.wilson(round(float(row["accuracy"]) * int(row["n"])), int(row["n"]))
        )
        assert int(row["float_bytes"]) == 4 * int(row["parameters"])
        assert float(row["relative_time"]) > 0
        assert int(row["int8_bytes"]) < int(row["float_bytes"])
    assert np.asarray(cv2.imread(str(compared / "out" / "compare-discs.png"))).std() > 5


def test_what_is_finished_is_not_made_again(compared: Path) -> None:
    def again(seed: int) -> Reports:
        reports = Reports()
        data = compared / "data" / "pictures"
        made = compare.make(planned(data), data, compared / "runs", seed=seed, progress=reports)
        assert [row.name for row in made] == ["lenet-32", "lenet-28"]
        return reports

    assert {step for step, _, _ in again(1).steps} == {"time"}
    with pytest.raises(ConfigurationError, match="trained with another task, seed or weights"):
        again(2)


@pytest.mark.slow
def test_a_conversion_that_was_killed_is_made_again(compared: Path, tmp_path: Path) -> None:
    runs = shutil.copytree(compared / "runs", tmp_path / "runs")
    shutil.rmtree(runs / "lenet-28" / "model")
    data = compared / "data" / "pictures"
    compare.make(planned(data), data, runs, seed=1, progress=Reports())
    first, second = (folder / "lenet-28" / "model" / "model.tflite" for folder in (compared / "runs", runs))
    assert first.read_bytes() == second.read_bytes()


def test_a_conversion_that_failed_is_not_tried_again(compared: Path, tmp_path: Path) -> None:
    runs = shutil.copytree(compared / "runs", tmp_path / "runs")
    shutil.rmtree(runs / "lenet-28" / "model")
    file = runs / "lenet-28" / "network.json"
    before = msgspec.json.decode(file.read_bytes(), type=NetworkFigures)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(before, failed="the parity check failed: 3 flipped")))
    reports = Reports()
    data = compared / "data" / "pictures"
    made = compare.make(planned(data), data, runs, seed=1, progress=reports)
    assert {step for step, _, _ in reports.steps} == {"time"}
    assert made[1].failed == "the parity check failed: 3 flipped"
    assert made[1].int8_bytes is None
    assert made[1].parameters == before.parameters
    assert any(f"to try again, remove {file}" in line for line in reports.lines)
    file.write_bytes(b'{"parameters": 1')
    with pytest.raises(ConfigurationError, match=r"network\.json: .*: damaged: remove it"):
        compare.make(planned(data), data, runs, seed=1, progress=reports)


def test_a_misspelt_backbone_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown backbone 'mobilnet_v2'.*did you mean"):
        planned(tmp_path, "lenet,mobilnet_v2")
    assert not list(tmp_path.iterdir())


def test_a_backbone_that_is_named_in_two_ways_is_refused(tmp_path: Path) -> None:
    for text, message in (
        ("lenet,small_cnn,lenet:32", "--backbones: lenet-32 is lenet again"),
        ("mobilenet_v2:96,mobilenet_v2:96x1", "--backbones: mobilenet_v2-96-1 is mobilenet_v2-96 again"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            planned(tmp_path, text)


def test_each_network_may_have_weights_of_its_own() -> None:
    assert compare.parse_weights([]) == {"": "imagenet"}
    assert compare.parse_weights(["a=b.h5", "resnet18=r=1.pth"]) == {"": "a=b.h5", "resnet18": "r=1.pth"}
    few = compare.parse("lenet:32,lenet:40")
    with pytest.raises(ConfigurationError, match="--weights resnet18=a: resnet18 is not among --backbones"):
        compare.plan(TASK, few, Path(), weights={"": "none", "resnet18": "a"}, mode=None)
    with pytest.raises(ConfigurationError, match="--weights: resnet18: given twice"):
        compare.parse_weights(["resnet18=a", "resnet18=b"])
    with pytest.raises(ConfigurationError, match="--weights: all networks: given twice"):
        compare.parse_weights(["none", "imagenet"])
