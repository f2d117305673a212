"""`run.json`: what it keeps of a task, and files that an earlier version wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bittern.errors import ConfigurationError
from bittern_convert import run
from bittern_convert.task import Augment, Data, Drawn, Recipe, Task

TASK = Task(
    name="signs",
    question="which?",
    labels=("not_stop", "stop"),
    alarm=("stop",),
    region=(0, 10, 640, 300),
    views=("left", "right"),
    data=(Data(path="own", where={"has_sign": "1"}),),
    drawn=Drawn(with_sign="stop", without_sign="not_stop", streets=3),
    augment=Augment(copies=3),
    recipe=Recipe(rate=(0.0,)),
)
RUN: dict[str, Any] = {
    "id": "signs", "task": msgspec.to_builtins(TASK), "data": "pictures", "data_sha256": "", "weights_sha256": "none",
    "seed": 1, "thresholds": {"default": {"on": 0.5, "off": 0.4, "chosen_for": "a test"}}, "metrics": {}, "choice": {},
    "pictures": {}, "skipped": [], "versions": {}, "revision": "", "seconds": 1.0,
}  # fmt: skip


def written(folder: Path, **changes: Any) -> Path:
    (folder / run.FILE).write_text(json.dumps(RUN | changes))
    return folder


def test_the_task_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = run.load(written(tmp_path))
    assert made.task == TASK
    assert made.thresholds["default"].on == 0.5
    assert (made.stills, made.streams) == ((), None), "earlier versions had none"


def test_a_task_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Keys that it did not have yet get their defaults; keys that are gone are left out, wherever they are."""
    task = json.loads(json.dumps(RUN["task"]))
    for key in ("region", "views", "licence", "drawn"):
        del task[key]
    del task["recipe"]["soup"]
    for part in (task, task["augment"], task["recipe"], task["data"][0]):
        part["of_old"] = 1
    made = run.load(written(tmp_path, task=task)).task
    assert made == msgspec.structs.replace(TASK, region=None, views=("center",), drawn=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": RUN["task"] | {"labels": ["stop"]}}, "labels"),
        ({"task": RUN["task"] | {"alarm": ["yield"]}}, "'yield'"),
        ({"task": {}}, "name"),
        ({"task": []}, "task: Expected `object`, got `array`"),
        ({"task": None}, "task: Expected `object`, got `null`"),
        ({"task": RUN["task"] | {"recipe": "x"}}, "task: Expected `object`, got `str` - at `$.recipe`"),
        ({"task": RUN["task"] | {"drawn": [1]}}, "task: Expected `object | null`, got `array` - at `$.drawn`"),
        ({"task": RUN["task"] | {"data": None}}, "task: Expected `array`, got `null` - at `$.data`"),
        ({"task": RUN["task"] | {"data": [1]}}, "task: Expected `object`, got `int` - at `$.data[0]`"),
        ({"seed": "one"}, "seed"),
        ({"novel": 1}, "novel"),
    ],
)
def test_a_run_that_does_not_fit_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        run.load(written(tmp_path, **changes))
    assert str(caught.value).startswith(f"{tmp_path / run.FILE}: ")
    assert str(caught.value).endswith(": damaged, or written by another version of Bittern: train again")
    assert "\n" not in str(caught.value)
