"""Alarms of a shipped model on streams of drawn pictures."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.doubles import drawn_pictures
from tests.doubles.progress import Reports

from bittern import Classifier
from bittern.evaluation.dataset import Item
from bittern_convert import card, stream_report
from bittern_convert.task import Recipe, Task

MODEL = Path(__file__).parents[2] / "models" / "stop_sign"
TASK = Task(name="stop_sign", question="?", labels=("not_stop", "stop"), alarm=("stop",), nothing=("not_stop",))


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    root = drawn_pictures.folders(tmp_path_factory.mktemp("held") / "signs", 2)
    made = [Item(file, file.name, file.parent.name, "test", "", {}) for file in sorted(root.glob("*/*.jpg"))]
    broken = root / "stop" / "broken.jpg"
    broken.write_bytes(b"no picture")
    return [*made, Item(broken, broken.name, "stop", "test", "", {})]


def test_streams_are_counted_by_size_and_light(items: list[Item]) -> None:
    figures = stream_report.measure(Classifier(MODEL), TASK, items, 1, Reports())
    assert figures is not None
    passings, false = figures["passings"], figures["false"]
    assert passings["n"] == 2 * stream_report.PASSINGS
    assert 0 <= passings["found"] <= passings["n"]
    for parts in (figures["by_size"], figures["passings_by_light"]):
        assert sum(part["n"] for part in parts.values()) == passings["n"]
        assert sum(part["found"] for part in parts.values()) == passings["found"]
    assert false["minutes"] == 2 * stream_report.ROUNDS * stream_report.STREAM_S / 60
    assert sum(part["alarms"] for part in figures["false_by_light"].values()) == false["alarms"]
    low, high = false["an_hour_ci95"]
    assert low <= false["an_hour"] <= high
    assert high > 10, "a minute of streams proves little"
    assert figures == stream_report.measure(Classifier(MODEL), TASK, items, 1, Reports())
    text = "\n".join(card._streams(figures))
    assert f"| all | {passings['found']} of {passings['n']}" in text
    assert f"{false['alarms']} in 1 min" in text


def test_of_a_quick_run_a_third_of_the_streams(items: list[Item]) -> None:
    quick = msgspec.structs.replace(TASK, recipe=Recipe(quick=True))
    figures = stream_report.measure(Classifier(MODEL), quick, items, 1, Reports())
    assert figures is not None
    assert figures["passings"]["n"] == 2
    assert figures["false"]["minutes"] == 2 * 2 * stream_report.STREAM_S / 60


def test_no_streams_where_they_would_show_nothing(items: list[Item]) -> None:
    classifier = Classifier(MODEL)
    silent = msgspec.structs.replace(TASK, alarm=())
    wide = msgspec.structs.replace(TASK, views=("left", "center"))
    assert stream_report.measure(classifier, silent, items, 1, Reports()) is None
    assert stream_report.measure(classifier, wide, items, 1, Reports()) is None
    without = msgspec.structs.replace(TASK, recipe=msgspec.structs.replace(TASK.recipe, stream_s=0.0))
    assert stream_report.measure(classifier, without, items, 1, Reports()) is None
    assert card._streams(None) == []
