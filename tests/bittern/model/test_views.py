"""Several views of a frame: each is looked at once, and the right one decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.model_files import altered
from tests.doubles.tflite_files import model_folder_of_means

from bittern import Classifier
from bittern.cli.classify import classify
from bittern.cli.evaluate import evaluate
from bittern.frames import Pixels
from bittern.model.classifier import Result
from bittern.model.manifest import Head, Threshold
from bittern.model.preprocess import Region, View, square_of
from bittern.model.views import deciding_view, deciding_views, predict

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
    assert deciding_view(head(), [result(0.9, 0.1, 0), result(0, 0.3, 0.7), result(0.2, 0.2, 0.6)]) == 1
    assert deciding_view(head(), [result(0, 0.2, 0.8), result(0, 0.6, 0.4), result(0, 0.6, 0.4)]) == 1, (
        "the first of equals"
    )


def test_without_an_alarm_something_is_worth_more_than_nothing() -> None:
    assert deciding_view(head(), [result(0, 0, 1), result(0.6, 0, 0.4), result(0.1, 0, 0.9)]) == 1
    assert deciding_view(head(alarm=()), [result(0.1, 0.2, 0.7), result(0, 0.3, 0.7)]) == 1
    assert deciding_view(head(alarm=(), nothing=()), [result(0.1, 0.2, 0.7), result(0, 0.1, 0.9)]) == 1
    assert deciding_view(head(alarm=(), nothing=("mask", "no_mask", "none")), [result(0, 0, 1)] * 2) == 0


LABELS = ("mask", "no_mask", "none")
# Few values, so that many are equal.
SCORES = st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0])] * 3)


@given(
    frames=st.integers(1, 3).flatmap(
        lambda views: st.lists(st.lists(SCORES, min_size=views, max_size=views), min_size=1, max_size=5)
    ),
    alarm=st.sets(st.sampled_from(LABELS)),
    nothing=st.sets(st.sampled_from(LABELS)),
)
def test_many_frames_are_decided_as_one_by_one(
    frames: list[list[tuple[float, float, float]]], alarm: set[str], nothing: set[str]
) -> None:
    """The rule in words, of frame after frame; training asks for all of them at once, in single precision."""

    def weight(scores: tuple[float, ...]) -> tuple[float, float]:
        score_of = dict(zip(LABELS, scores, strict=True))
        something = [score_of[x] for x in LABELS if x not in nothing]
        return max([score_of[x] for x in alarm], default=0), max(something, default=0)

    expected = [max(range(len(views)), key=lambda index: weight(views[index])) for views in frames]
    of_head = head(tuple(alarm), tuple(nothing))
    assert [deciding_view(of_head, [result(*scores) for scores in views]) for views in frames] == expected
    at_once = deciding_views(np.array(frames, np.float32), LABELS, tuple(alarm), tuple(nothing))
    assert at_once.tolist() == expected


def test_a_look_is_every_view_by_itself(means: Path) -> None:
    models = [Classifier(means), Classifier(means)]
    frame = np.random.default_rng(3).integers(0, 256, (40, 90, 3), np.uint8)
    region = Region(5, 3, 80, 30)
    looks, preprocess_ns = predict(models, frame, "RGB", region, VIEWS)
    assert preprocess_ns > 0
    for model, look in zip(models, looks, strict=True):
        assert look.invoke_ns > 0
        for view, results in zip(VIEWS, look.by_view, strict=True):
            alone = model.classify(np.ascontiguousarray(square_of(frame, region, view)), "RGB")
            assert [r.scores for r in results] == [r.scores for r in alone]
            assert {r.view for r in results} == {view}
        reds = [results[0].scores["red"] for results in look.by_view]
        assert look.results[0] is look.by_view[reds.index(max(reds))][0]
        assert model.classify(look.tensor[0], "RGB")[0].scores == look.results[0].scores, "the tensor is its own"


@pytest.mark.parametrize("size", [(40, 40), (60, 40)])
def test_a_frame_that_is_not_wide_is_looked_at_once(means: Path, size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), (0, 0, 255), np.uint8)
    (look,), _ = predict([Classifier(means)], frame, views=("left", "right"))
    assert len(look.by_view) == 1
    assert look.results[0].view == "center"


@pytest.mark.parametrize("size", [(40, 90), (40, 40), (60, 40)])
def test_what_moves_is_a_square_of_its_own(means: Path, size: tuple[int, int]) -> None:
    model = Classifier(means)
    frame = np.random.default_rng(4).integers(0, 256, (*size, 3), np.uint8)
    square = Region(9, 3, 30, 30)

    def seen(moving: Region | None, *views: View) -> list[list[Result]]:
        return predict([model], frame, "RGB", None, views, moving)[0][0].by_view

    alone = [r.scores for r in model.classify(np.ascontiguousarray(square_of(frame, square)), "RGB")]
    for views in (("moving",), ("moving", "center"), ("left", "moving")):
        by_view = seen(square, *views)
        moving = next(results for results in by_view if results[0].view == "moving")
        assert len(by_view) == len(views)
        assert [r.scores for r in moving] == alone
    assert [[r.view for r in results] for results in seen(None, "moving", "center")] == [["center"] * 2], "once"
    assert [results[0].view for results in seen(None, "moving")] == ["center"]


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
    answer = json.loads(done.stdout.splitlines()[0])
    assert (answer["label"], answer["score"], answer["alarm"], answer["view"]) == ("red", 1.0, True, "left")
    plain = CliRunner().invoke(classify, [*words[:-1], "--views", "right,left"], catch_exceptions=False)
    assert "red  1.000  ALARM  left  " in plain.stdout
    answer = json.loads(CliRunner().invoke(classify, words, catch_exceptions=False).stdout.splitlines()[0])
    assert answer["alarm"] is False
    assert "view" not in answer


@pytest.mark.parametrize("given", ["", "top", "left,left", "left,", "left right", "LEFT"])
def test_unknown_views_are_wrong_usage(wide: Path, means: Path, given: str) -> None:
    for command, words in ((classify, [str(wide)]), (evaluate, [str(means), "--data", str(wide)])):
        done = CliRunner().invoke(command, [*words, "--views", given])
        assert done.exit_code == 2
        assert "expected some of center, left, right" in done.output


def test_nothing_moves_in_a_picture(wide: Path, means: Path) -> None:
    for command, words in ((classify, [str(wide)]), (evaluate, [str(means), "--data", str(wide)])):
        done = CliRunner().invoke(command, [*words, "--views", "center,moving"])
        assert (done.exit_code, "moving: nothing moves in a single picture" in done.output) == (2, True)


def test_evaluate_counts_what_any_view_shows(wide: Path, tmp_path: Path) -> None:
    rows = ["path,label,split,group", "left.png,red,test,1", "centre.png,red,test,2", "green.png,green,test,3"]
    (tmp_path / "index.csv").write_text("\n".join(rows))

    def same_labels(fields: dict[str, Any]) -> None:
        fields["heads"][1]["labels"] = fields["heads"][0]["labels"]

    model = altered(model_folder_of_means(tmp_path / "model"), same_labels)

    def figures(*words: str) -> list[int]:
        done = CliRunner().invoke(
            evaluate,
            [str(model), "--data", str(tmp_path / "index.csv"), "--root", str(wide), "--json", *words],
            catch_exceptions=False,
        )
        report = json.loads(done.stdout.splitlines()[0])
        return [report["correct"], report["alarms"], report["missed_alarms"], report["false_alarms"]]

    assert figures() == [2, 1, 1, 0]
    assert figures("--views", "center,left,right") == [3, 2, 0, 0]


REGION = "5,3,60,20"


def cropped(file: Path, to: Path) -> Path:
    """The picture cut as REGION says."""
    cv2.imwrite(str(to), np.asarray(cv2.imread(str(file)))[3:23, 5:65])
    return to


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    (tmp_path / "noise").mkdir()
    for i in range(3):
        picture = np.random.default_rng(i).integers(0, 256, (40, 90, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"noise/{i}.png"), picture)
    return tmp_path / "noise"


def test_a_region_is_the_cropped_picture(noisy: Path, tmp_path: Path) -> None:
    model = str(model_folder_of_means(tmp_path / "means", size=24))

    def answer(*words: str | Path) -> dict[str, Any]:
        done = CliRunner().invoke(classify, [*map(str, words), "--model", model, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return {k: v for k, v in json.loads(done.stdout.splitlines()[0]).items() if k not in ("time_ms", "path")}

    for file in sorted(noisy.iterdir()):
        small = cropped(file, tmp_path / "small.png")
        for views in ("center", "right,left,center"):
            assert answer(file, "--region", REGION, "--views", views) == answer(small, "--views", views)
        assert answer(file, "--region", REGION) != answer(file)


def test_a_region_that_does_not_fit_is_the_pictures_own_error(noisy: Path, wide: Path, means: Path) -> None:
    words = [str(wide / "left.png"), str(noisy / "0.png"), "--model", str(means)]
    done = CliRunner().invoke(classify, [*words, "--region", "0,0,90,40"], catch_exceptions=False)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        f"bittern: {wide / 'left.png'}: region x=0 y=0 width=90 height=40 does not fit into the frame of 96 x 32 pixels"
    )
    assert [line.split("  ")[0] for line in done.stdout.splitlines()][:1] == [str(noisy / "0.png")]
    data = (noisy / "0.png").read_bytes()
    done = CliRunner().invoke(classify, ["-", "--model", str(means), "--region", "0,0,91,40"], input=data)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "stdin: region" in done.stderr


@pytest.mark.parametrize("given", ["", "0,0,10", "0,0,10,10,10", "0,0,0,10", "-1,0,10,10", "0,0,a,10", "0,0,9.5,9"])
def test_a_region_that_is_none_is_wrong_usage(wide: Path, means: Path, given: str) -> None:
    for command, words in ((classify, [str(wide)]), (evaluate, [str(means), "--data", str(wide)])):
        done = CliRunner().invoke(command, [*words, "--region", given])
        assert done.exit_code == 2
        assert "expected X,Y,WIDTH,HEIGHT in whole pixels" in done.output


def test_evaluate_looks_at_the_region(noisy: Path, tmp_path: Path) -> None:
    def scores(root: Path, *words: str, code: int = 0) -> tuple[list[str], str]:
        (tmp_path / "index.csv").write_text(
            "\n".join(["path,label,split,group", *(f"{f.name},red,test,{f.name}" for f in sorted(root.iterdir()))])
        )
        done = CliRunner().invoke(
            evaluate,
            [str(model), "--data", str(tmp_path / "index.csv"), "--root", str(root), "--scores",
             str(tmp_path / "scores.csv"), "--sheet", str(tmp_path / "sheet.png"), *words],
            catch_exceptions=False,
        )  # fmt: skip
        assert done.exit_code == code, done.output
        rows = (tmp_path / f"scores-{task}.csv").read_text().splitlines()
        return rows, done.stderr

    def same_labels(fields: dict[str, Any]) -> None:
        fields["heads"][1]["labels"] = fields["heads"][0]["labels"]

    model = altered(model_folder_of_means(tmp_path / "model"), same_labels)
    task = Classifier(model).heads[0].task
    small = tmp_path / "small"
    small.mkdir()
    for file in noisy.iterdir():
        cropped(file, small / file.name)
    rows = scores(noisy, "--region", REGION, "--views", "left,right")[0]
    assert rows == scores(small, "--views", "left,right")[0] != scores(noisy, "--views", "left,right")[0]
    cv2.imwrite(str(noisy / "3.png"), np.zeros((9, 9, 3), np.uint8))
    rows, errors = scores(noisy, "--region", REGION, code=1)
    assert len(rows) == 1 + 3
    assert "3.png: region" in errors
