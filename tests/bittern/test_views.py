"""Several views of a frame: each is looked at once, and the right one decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from tests.model_files import altered
from tests.tflite_files import model_folder_of_means

from bittern import Classifier
from bittern.classifier import Result
from bittern.cli.classify import classify
from bittern.cli.evaluate import evaluate
from bittern.contract import Pixels, Region, View, square_of
from bittern.manifest import Head, Threshold
from bittern.views import deciding, look

VIEWS: tuple[View, ...] = ("center", "left", "right")
BLACK, RED, GREEN = (0, 0, 0), (0, 0, 255), (0, 255, 0)


def head(alarm: tuple[str, ...] = ("no_mask",), nothing: tuple[str, ...] = ("none",)) -> Head:
    return Head(
        task="t", output="o", labels=("mask", "no_mask", "none"), alarm=alarm, nothing=nothing, scale=1 / 256,
        zero_point=0, thresholds={"default": Threshold(on=0.5, off=0.4, chosen_for="x")},
    )  # fmt: skip


def result(mask: float, no_mask: float, none: float) -> Result:
    scores = {"mask": mask, "no_mask": no_mask, "none": none}
    best = max(scores, key=lambda label: scores[label])
    return Result("t", best, scores[best], no_mask >= 0.5, scores)


def thirds(*bgr: tuple[int, int, int]) -> Pixels:
    """A frame three times as wide as high, a colour in each third."""
    return np.concatenate([np.full((32, 32, 3), colour, np.uint8) for colour in bgr], 1)


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder_of_means(tmp_path_factory.mktemp("m") / "means")


def test_the_view_that_alarms_most_decides() -> None:
    assert deciding(head(), [result(0.9, 0.1, 0), result(0, 0.3, 0.7), result(0.2, 0.2, 0.6)]) == 1
    assert deciding(head(), [result(0, 0.2, 0.8), result(0, 0.6, 0.4), result(0, 0.6, 0.4)]) == 1, "the first of equals"


def test_without_an_alarm_something_is_worth_more_than_nothing() -> None:
    assert deciding(head(), [result(0, 0, 1), result(0.6, 0, 0.4), result(0.1, 0, 0.9)]) == 1
    assert deciding(head(alarm=()), [result(0.1, 0.2, 0.7), result(0, 0.3, 0.7)]) == 1
    assert deciding(head(alarm=(), nothing=()), [result(0.1, 0.2, 0.7), result(0, 0.1, 0.9)]) == 1
    assert deciding(head(alarm=(), nothing=("mask", "no_mask", "none")), [result(0, 0, 1)] * 2) == 0


def test_a_look_is_every_view_by_itself(means: Path) -> None:
    models = [Classifier(means), Classifier(means)]
    frame = np.random.default_rng(3).integers(0, 256, (40, 90, 3), np.uint8)
    region = Region(5, 3, 80, 30)
    looks, preprocess_ns = look(models, frame, "RGB", region, VIEWS)
    assert preprocess_ns > 0
    for model, seen in zip(models, looks, strict=True):
        assert seen.invoke_ns > 0
        for view, results in zip(VIEWS, seen.by_view, strict=True):
            alone = model.classify(np.ascontiguousarray(square_of(frame, region, view)), "RGB")
            assert [r.scores for r in results] == [r.scores for r in alone]
            assert {r.view for r in results} == {view}
        reds = [results[0].scores["red"] for results in seen.by_view]
        assert seen.results[0] is seen.by_view[reds.index(max(reds))][0]
        assert model.classify(seen.tensor[0], "RGB")[0].scores == seen.results[0].scores, "the tensor is its own"


@pytest.mark.parametrize("size", [(40, 40), (60, 40)])
def test_a_frame_that_is_not_wide_is_looked_at_once(means: Path, size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), (0, 0, 255), np.uint8)
    (seen,), _ = look([Classifier(means)], frame, views=("left", "right"))
    assert len(seen.by_view) == 1
    assert seen.results[0].view == "center"


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    for name, colours in (
        ("left", (RED, GREEN, BLACK)),
        ("centre", (BLACK, RED, BLACK)),
        ("green", (GREEN, GREEN, GREEN)),
    ):
        cv2.imwrite(str(tmp_path / f"set/{name}.png"), thirds(*colours))
    return tmp_path / "set"


def test_classify_says_which_view_it_was(means: Path, wide: Path) -> None:
    words = [str(wide / "left.png"), "--model", str(means), "--json"]
    done = CliRunner().invoke(classify, [*words, "--views", "center,left,right"], catch_exceptions=False)
    said = json.loads(done.stdout.splitlines()[0])
    assert (said["label"], said["score"], said["alarm"], said["view"]) == ("red", 1.0, True, "left")
    plain = CliRunner().invoke(classify, [*words[:-1], "--views", "right,left"], catch_exceptions=False)
    assert "red  1.000  ALARM  left  " in plain.stdout
    said = json.loads(CliRunner().invoke(classify, words, catch_exceptions=False).stdout.splitlines()[0])
    assert said["alarm"] is False
    assert "view" not in said


@pytest.mark.parametrize("given", ["", "top", "left,left", "left,", "left right", "LEFT"])
def test_unknown_views_are_wrong_usage(wide: Path, means: Path, given: str) -> None:
    for command, words in ((classify, [str(wide)]), (evaluate, [str(means), "--data", str(wide)])):
        done = CliRunner().invoke(command, [*words, "--views", given])
        assert done.exit_code == 2
        assert "expected some of center, left, right" in done.output


def test_evaluate_counts_what_any_view_shows(wide: Path, tmp_path: Path) -> None:
    rows = ["path,label,split,group", "left.png,red,test,1", "centre.png,red,test,2", "green.png,green,test,3"]
    (tmp_path / "index.csv").write_text("\n".join(rows))

    def same_labels(said: dict[str, Any]) -> None:
        said["heads"][1]["labels"] = said["heads"][0]["labels"]

    model = altered(model_folder_of_means(tmp_path / "model"), same_labels)

    def figures(*words: str) -> list[int]:
        done = CliRunner().invoke(
            evaluate,
            [str(model), "--data", str(tmp_path / "index.csv"), "--root", str(wide), "--json", *words],
            catch_exceptions=False,
        )
        said = json.loads(done.stdout.splitlines()[0])
        return [said["correct"], said["alarms"], said["missed_alarms"], said["false_alarms"]]

    assert figures() == [2, 1, 1, 0]
    assert figures("--views", "center,left,right") == [3, 2, 0, 0]
