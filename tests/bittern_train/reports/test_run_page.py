"""The page of a run: its figures are those of the run, it opens in a browser, and asks nobody for anything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.browser import browser, needs_chromium, opened, serious
from tests.doubles.small_runs import small_run
from tests.doubles.tflite_files import model_folder_of_means

from bittern.cli.main import main
from bittern.evaluation import dataset, index, metrics
from bittern_convert import copies
from bittern_convert import run as runs
from bittern_convert.task import Backbone
from bittern_train import growth, out_of_fold, run_figures, run_page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    done = report(run)
    assert done.exit_code == 0, done.output
    return run / "report.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as chromium:
        yield chromium


def report(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, words)])


def test_the_page_says_what_the_run_did(run: Path, page: Path) -> None:
    judged = run_figures.judged(run)
    text = page.read_text()
    correct = int(judged.correct.sum())
    assert 30 < correct < len(judged.items)
    assert f"{correct} of {len(judged.items)}" in text
    for i in run_figures.mistakes(judged, run_page.SHOWN):
        assert str(judged.items[i].path) in text
    for words in ("you catch", "Expected calibration error", "By source", "door", "yard", "By the size of the group",
                  "What the centre crop cut away", "With 100 more of red", "data:image/jpeg;base64,"):  # fmt: skip
        assert words in text, words
    assert text.count("<svg") == 6
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_in_a_browser_without_a_request_or_a_barrier(page: Path, chromium: Any, scheme: str) -> None:
    with opened(chromium, page.as_uri(), color_scheme=scheme) as shown:
        assert shown.locator("h1").inner_text() == "discs"
        assert shown.locator("svg").count() == 6
        images = shown.locator("img")
        assert images.count() > 12
        assert all(images.nth(i).evaluate("image => image.naturalWidth") > 100 for i in range(3))
        assert serious(shown) == []


def test_it_shows_what_the_network_looks_at(tmp_path: Path) -> None:
    model = model_folder_of_means(tmp_path / "means")
    other = small_run(tmp_path, each=12, labels=("blue", "red", "green"))
    done = report(other, "--model", model, "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "page.html").read_text()
    _, _, section = text.partition("What the network looks at")
    assert section.count("data:image/jpeg") == run_page.EXPLAINED - 1, "three mistakes, and one sure answer a label"
    assert "means 7" in section
    assert "How much is enough" not in text, "no picture is green"


def test_other_pictures_under_the_same_names_are_not_shown(tmp_path: Path) -> None:
    run = small_run(tmp_path, each=12)
    items = dataset.read(run / runs.INDEX, tmp_path / "pictures")
    index.write(run / runs.INDEX, [i._replace(columns={"sha256": copies.picture_digest(i.path)}) for i in items])
    assert report(run).exit_code == 0
    assert "was changed" not in (run / "report.html").read_text()
    for item in items:
        item.path.write_bytes(item.path.read_bytes() + b"0")
    assert report(run).exit_code == 0
    page = (run / "report.html").read_text()
    assert "was changed after the training, or is another picture" in page
    assert "data:image" not in page


def test_what_is_missing_is_one_line(run: Path, tmp_path: Path, model_folder: Path) -> None:
    def refused(*words: str | Path) -> str:
        done = report(*words)
        assert done.exit_code == 2, done.output
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "no run at" in refused(tmp_path / "absent")
    assert "bittern results" in refused(model_folder)
    assert "other labels" in refused(run, "--model", model_folder)
    assert report(run, "--data", tmp_path, "--out", tmp_path / "moved.html").exit_code == 0
    assert "No such file" in (tmp_path / "moved.html").read_text()
    assert "does not exist" in refused(run, "--data", tmp_path / "absent")
    other = small_run(tmp_path, each=12)
    kept = other / out_of_fold.FILE
    data = kept.read_bytes()
    kept.write_bytes(data[: len(data) // 2])
    assert "train again" in refused(other)
    kept.unlink()
    assert "train again" in refused(other)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=60))
def test_curves_and_thresholds_are_those_of_the_scores(pictures: list[tuple[int, bool]]) -> None:
    scores = np.array([score / 20 for score, _ in pictures])
    positive = np.array([own for _, own in pictures])
    if positive.all() or not positive.any():
        return
    points = run_figures.roc(scores, positive)
    assert points[0] == (0, 0)
    assert points[-1] == (1, 1)
    area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise(points))
    assert area == pytest.approx(metrics.auc(scores, positive))
    for row in run_figures.operating(scores, positive):
        assert row.false * row.one_in <= (~positive).sum()
        if row.threshold is not None:
            assert row.caught == (scores[positive] >= row.threshold).sum()
            assert row.false == (scores[~positive] >= row.threshold).sum()
    recall, precision = run_figures.precision_recall(scores, positive)[-1]
    assert recall == 1
    assert precision == pytest.approx(positive.mean())


def test_what_more_pictures_bring_is_not_forecast_of_a_network_that_started_from_nothing(run: Path) -> None:
    """What a run keeps are the features of the start; there they are those of random weights."""
    judged = run_figures.judged(run)
    backbone = Backbone(name="lenet", size=32, mode="scratch")
    task = msgspec.structs.replace(judged.made.task, backbone=backbone)
    scratch = judged._replace(made=msgspec.structs.replace(judged.made, task=task))
    assert growth.forecasts(judged, 100)
    assert growth.forecasts(scratch, 100) == []
