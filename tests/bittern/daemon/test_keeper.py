"""Which frames are kept: the least sure one of so many, and those of alarms; with what the models answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
from tests.doubles.tflite_files import model_folder_of_means

from bittern import Classifier
from bittern.config.schema import KeepConfig, OutboxConfig, WatchConfig
from bittern.daemon import run
from bittern.decision.pipeline import Step
from bittern.delivery.sinks.base import SinkContext
from bittern.errors import ConfigurationError
from bittern.evaluation import dataset
from bittern.frames import Pixels
from bittern.system.stop import Stop


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state folder, as systemd gives it."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))


def coloured(red: int, seed: int) -> Pixels:
    """A BGR frame of which the drawn model says "red" with the score red / 255; its patches are those of the seed."""
    patches = np.random.default_rng(seed).integers(-30, 31, (6, 8, 1))
    pixels = np.zeros((6, 8, 3), int)
    pixels[..., 2:] = red + patches - round(patches.mean())
    return np.asarray(cv2.resize(pixels.clip(0, 255).astype(np.uint8), (64, 48), interpolation=cv2.INTER_NEAREST))


def watched(folder: Path, reds: Sequence[int], keep: KeepConfig, **keys: Any) -> list[Step]:
    """Watch a folder of pictures."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, red in enumerate(reds):
        cv2.imwrite(str(pictures / f"{number:03}.png"), coloured(red, number))
    model = model_folder_of_means(folder / "means")
    config = WatchConfig(
        source=str(pictures),
        name="yard",
        models=(str(model),),
        keep=keep,
        **keys,
    )
    with run.opened(config, [Classifier(model)], lambda _: None, Stop()) as daemon:
        return list(daemon.steps())


def kept(folder: Path) -> list[dataset.Item]:
    return dataset.read(folder / "state/kept")


def test_of_so_many_frames_the_least_sure_is_kept(tmp_path: Path) -> None:
    steps = watched(tmp_path, [80, 90, 100, 60, 110, 100, 90, 100, 70, 110, 85], KeepConfig(every=5))
    scores = [step.answers[0].results[0].score for step in steps]
    least = [min(scores[:5]), min(scores[5:10]), scores[10]]
    items = kept(tmp_path)
    assert [float(item.columns["score"]) for item in items] == pytest.approx(least, abs=1e-4)
    for item in items:
        assert item.columns["source"] == "yard"
        assert item.columns["reason"] == "unsure"
        assert item.columns["model"] == "means 7"
        answered = json.loads(item.columns["scores"])["means"]
        assert all(item.columns["answer"] == max(head, key=head.__getitem__) for head in answered.values())
    frame = cv2.imread(str(items[0].path))
    assert frame is not None
    assert float(np.abs(frame.astype(int) - coloured(60, 3)).mean()) < 4, "the whole frame, as it came"


def test_frames_that_the_model_is_sure_of_are_not_kept(tmp_path: Path) -> None:
    watched(tmp_path, [80, 90, 100, 90], KeepConfig(every=2, sure=0.2))
    assert not (tmp_path / "state/kept").exists()


def test_the_frames_of_an_alarm_are_kept_however_sure(tmp_path: Path) -> None:
    steps = watched(tmp_path, [20, 20, 220, 220, 220, 20, 20, 20], KeepConfig(every=100, sure=0.0))
    changed = [(event.type, step.frame.number) for step in steps for event in step.events]
    assert [kind for kind, _ in changed] == ["alarm.on", "alarm.on", "alarm.off", "alarm.off"], "of both heads"
    items = kept(tmp_path)
    assert [item.columns["reason"] for item in items] == ["alarm.on", "alarm.off"]
    assert items[0].columns["answer"] == "red"
    for item, (_, number) in zip(items, changed[::2], strict=True):
        frame = cv2.imread(str(item.path))
        assert frame is not None
        red = 220 if number in (2, 3, 4) else 20
        assert abs(float(frame[..., 2].mean()) - red) < 10


def test_without_the_table_nothing_is_kept(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "1.png"), coloured(80, 1))
    model = model_folder_of_means(tmp_path / "means")
    config = WatchConfig(source=str(pictures), models=(str(model),))
    with run.opened(config, [Classifier(model)], lambda _: None, Stop()) as daemon:
        assert len(list(daemon.steps())) == 1
    assert not (tmp_path / "state/kept").exists()


def test_the_page_looks_where_the_frames_are_kept(tmp_path: Path) -> None:
    """In the state folder, also where the outbox is elsewhere."""
    contexts: list[SinkContext] = []

    def page(context: SinkContext, *_: object) -> NoReturn:
        contexts.append(context)
        raise ConfigurationError("seen enough")

    model = model_folder_of_means(tmp_path / "means")
    config = WatchConfig(
        source="demo:",
        name="yard",
        models=(str(model),),
        keep=KeepConfig(),
        outbox=OutboxConfig(folder=str(tmp_path / "elsewhere")),
    )
    with (
        pytest.raises(ConfigurationError, match="seen enough"),
        run.opened(config, [Classifier(model)], lambda _: None, Stop(), page=page),
    ):
        pass
    assert contexts[0].kept == tmp_path / "state/kept"
